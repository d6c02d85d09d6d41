//! Interval logs in HdrHistogram's own text format, which its tools in every language read.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, Tag};

use super::{Interval, Series};

/// Writes a series as an interval log; values are nanoseconds, maxima in the log microseconds.
pub fn write_log(path: &Path, series: &Series) -> Result<()> {
    let file = File::create(path).with_context(|| format!("cannot create {}", path.display()))?;
    let mut file = BufWriter::new(file);
    write_to(&mut file, series).with_context(|| format!("cannot write {}", path.display()))?;
    file.flush().with_context(|| format!("cannot write {}", path.display()))
}

fn write_to(out: &mut impl Write, series: &Series) -> Result<()> {
    let mut serializer = V2DeflateSerializer::new();
    let mut log = IntervalLogWriterBuilder::new()
        .add_comment(&format!("Evershard latency, nanoseconds: {}", series.name))
        .with_start_time(series.started)
        .with_base_time(series.started)
        .with_max_value_divisor(NANOSECONDS_PER_MICROSECOND)
        .begin_log_with(out, &mut serializer)?;
    let whole = [Interval { start: Duration::ZERO, length: Duration::ZERO, histogram: series.total.clone() }];
    let intervals = if series.intervals.is_empty() { &whole[..] } else { &series.intervals };
    let tag: String = series.name.chars().map(|c| if c == ',' || c.is_whitespace() { '_' } else { c }).collect();
    for interval in intervals {
        log.write_histogram(&interval.histogram, interval.start, interval.length, Tag::new(&tag))
            .map_err(|error| anyhow!("an interval of {:?} cannot be encoded: {error:?}", interval.start))?;
    }
    Ok(())
}

const NANOSECONDS_PER_MICROSECOND: f64 = 1000.0;

#[cfg(test)]
mod tests {
    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

    use super::*;
    use crate::report::tests::ramp;

    #[test]
    fn a_log_reads_back_interval_by_interval() {
        let mut bytes = Vec::new();
        write_to(&mut bytes, &ramp("32 B, echo", 250)).expect("memory is writable");
        let entries: Vec<_> = IntervalLogIterator::new(&bytes).map(|entry| entry.expect("well formed")).collect();
        let intervals: Vec<_> = entries
            .iter()
            .filter_map(|entry| match entry {
                LogEntry::Interval(interval) => Some((interval.tag().map(|tag| tag.as_str()), interval.max())),
                _ => None,
            })
            .collect();
        assert_eq!(intervals.len(), 3);
        assert_eq!(intervals[0].0, Some("32_B__echo"));
        assert!((intervals[2].1 - 250.0).abs() < 1.0);
    }
}
