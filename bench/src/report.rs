//! What was measured, for people (tables, plots) and for programs (JSON, `.hlog`).
//!
//! A [`Recorder`] takes latencies in nanoseconds as they come and cuts them into intervals; the [`Series`] it ends as is
//! what every other function here takes.

mod log;
mod plot;

use std::fmt::Write as _;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

pub use log::write_log;
pub use plot::plot;

/// Latency in microseconds at the percentiles that every table of this project shows.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Percentiles {
    /// Half are faster.
    pub p50: f64,
    /// Nine of ten are faster.
    pub p90: f64,
    /// All but one in a hundred.
    pub p99: f64,
    /// All but one in a thousand.
    pub p99_9: f64,
    /// The slowest.
    pub max: f64,
}

impl Percentiles {
    /// The percentiles of a histogram of nanoseconds.
    pub fn of(histogram: &Histogram<u64>) -> Self {
        let at = |quantile: f64| microseconds(histogram.value_at_quantile(quantile));
        Self { p50: at(0.5), p90: at(0.9), p99: at(0.99), p99_9: at(0.999), max: microseconds(histogram.max()) }
    }
}

/// Latencies of one run under one name.
#[derive(Debug, Clone)]
pub struct Series {
    /// What the tables, the legend and the files call it.
    pub name: String,
    /// When the run began.
    pub started: SystemTime,
    /// All latencies in nanoseconds.
    pub total: Histogram<u64>,
    /// The same, cut by time.
    pub intervals: Vec<Interval>,
}

impl Series {
    /// A series without intervals, such as a floor's.
    pub fn of(name: impl Into<String>, round_trips: &[(u64, u64)]) -> Self {
        let mut total = new_histogram();
        for &(nanoseconds, count) in round_trips {
            total.saturating_record_n(nanoseconds, count);
        }
        Self { name: name.into(), started: SystemTime::now(), total, intervals: Vec::new() }
    }

    /// The figures of a table's line.
    pub fn percentiles(&self) -> Percentiles {
        Percentiles::of(&self.total)
    }

    /// What a program reads of this series.
    pub fn summary(&self) -> Summary {
        Summary { name: self.name.clone(), count: self.total.len(), latency: self.percentiles() }
    }
}

/// Latencies of one stretch of a run.
#[derive(Debug, Clone)]
pub struct Interval {
    /// Since the run began.
    pub start: Duration,
    /// How long it was.
    pub length: Duration,
    /// Latencies in nanoseconds.
    pub histogram: Histogram<u64>,
}

/// A series in JSON.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// The series' name.
    pub name: String,
    /// How many latencies were recorded.
    pub count: u64,
    /// Microseconds.
    pub latency: Percentiles,
}

/// Records the latencies of one run. Recording allocates nothing but one histogram for each interval.
#[derive(Debug)]
pub struct Recorder {
    series: Series,
    interval: Duration,
    current_start: Duration,
    current: Histogram<u64>,
}

impl Recorder {
    /// An empty record that cuts intervals of the given length.
    pub fn new(name: impl Into<String>, interval: Duration) -> Self {
        assert!(!interval.is_zero(), "an interval has a length");
        let series = Series::of(name, &[]);
        Self { series, interval, current_start: Duration::ZERO, current: new_histogram() }
    }

    /// Notes one latency, at a time counted from the run's begin. Times may only grow.
    pub fn record(&mut self, at: Duration, latency: Duration) {
        while at >= self.current_start + self.interval {
            self.cut(self.interval);
        }
        self.current.saturating_record(u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX));
    }

    /// Ends the run at a time counted from its begin.
    pub fn finish(mut self, at: Duration) -> Series {
        while at >= self.current_start + self.interval {
            self.cut(self.interval);
        }
        let rest = at.saturating_sub(self.current_start);
        if !self.current.is_empty() {
            self.cut(rest);
        }
        self.series
    }

    fn cut(&mut self, length: Duration) {
        let histogram = std::mem::replace(&mut self.current, new_histogram());
        self.series.total.add(&histogram).expect("both have the same range");
        self.series.intervals.push(Interval { start: self.current_start, length, histogram });
        self.current_start += length;
    }
}

/// A table of series, one a line.
pub fn table(series: &[Series]) -> String {
    let width = series.iter().map(|series| series.name.chars().count()).max().unwrap_or(0).max(6);
    let mut text = format!(
        "{:<width$} {:>9} {:>9} {:>9} {:>9} {:>10} {:>10}   microseconds\n",
        "series", "p50", "p90", "p99", "p99.9", "max", "count"
    );
    for series in series {
        let Percentiles { p50, p90, p99, p99_9, max } = series.percentiles();
        let count = series.total.len();
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "{:<width$} {p50:>9.1} {p90:>9.1} {p99:>9.1} {p99_9:>9.1} {max:>10.1} {count:>10}",
            series.name
        );
    }
    text
}

/// Writes anything that serializes as JSON to a file.
pub fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let file = File::create(path).with_context(|| format!("cannot create {}", path.display()))?;
    serde_json::to_writer_pretty(file, value).with_context(|| format!("cannot write {}", path.display()))
}

/// Writes one `.hlog` for each series and one plot, `<title>.svg`, of all into a directory; returns the files.
pub fn write_all(directory: &Path, title: &str, series: &[Series]) -> Result<Vec<PathBuf>> {
    fs::create_dir_all(directory).with_context(|| format!("cannot create {}", directory.display()))?;
    let mut files = Vec::new();
    for series in series {
        let path = directory.join(format!("{}.hlog", file_name(&series.name)));
        write_log(&path, series)?;
        files.push(path);
    }
    let path = directory.join(format!("{}.svg", file_name(title)));
    plot(&path, title, series)?;
    files.push(path);
    Ok(files)
}

/// Lower case, digits, and single dashes for all else.
fn file_name(name: &str) -> String {
    let words = name.split(|c: char| !c.is_ascii_alphanumeric() && c != '.');
    let words: Vec<String> = words.filter(|word| !word.is_empty()).map(str::to_ascii_lowercase).collect();
    words.join("-")
}

fn microseconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1000.0
}

/// With its range from the begin: `saturating_record` clamps to it and never resizes, so that a histogram that starts
/// small would take every latency for its upper bound.
fn new_histogram() -> Histogram<u64> {
    Histogram::new_with_max(LATENCY_MAX_NS, SIGNIFICANT_DIGITS)
        .expect("an hour at three digits is in the crate's range")
}

const SIGNIFICANT_DIGITS: u8 = 3;
/// An hour; what is longer counts as this.
const LATENCY_MAX_NS: u64 = 3_600_000_000_000;

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A series whose latencies are 1..=n microseconds, one a millisecond.
    pub(crate) fn ramp(name: &str, n: u64) -> Series {
        let mut recorder = Recorder::new(name, Duration::from_millis(100));
        for i in 1..=n {
            recorder.record(Duration::from_millis(i - 1), Duration::from_micros(i));
        }
        recorder.finish(Duration::from_millis(n))
    }

    #[test]
    fn percentiles_are_microseconds_of_a_nanosecond_histogram() {
        let Percentiles { p50, p90, p99, p99_9, max } = ramp("ramp", 1000).percentiles();
        for (found, wanted) in [(p50, 500.0), (p90, 900.0), (p99, 990.0), (p99_9, 999.0), (max, 1000.0)] {
            assert!((found - wanted).abs() <= wanted / 500.0, "{found} is not about {wanted}");
        }
    }

    #[test]
    fn intervals_partition_the_run() {
        let series = ramp("ramp", 250);
        let lengths: Vec<_> = series.intervals.iter().map(|interval| interval.length.as_millis()).collect();
        assert_eq!(lengths, [100, 100, 50]);
        assert_eq!(series.intervals.iter().map(|interval| interval.histogram.len()).sum::<u64>(), 250);
        assert_eq!(series.total.len(), 250);
    }

    #[test]
    fn a_pause_leaves_empty_intervals_and_not_a_shifted_clock() {
        let mut recorder = Recorder::new("pause", Duration::from_secs(1));
        recorder.record(Duration::from_millis(3500), Duration::from_micros(9));
        let series = recorder.finish(Duration::from_secs(4));
        assert_eq!(series.intervals.len(), 4);
        assert_eq!(series.intervals[3].histogram.len(), 1);
        assert_eq!(series.intervals[3].start, Duration::from_secs(3));
    }

    #[test]
    fn a_table_has_a_line_for_each_series() {
        let text = table(&[ramp("a", 10), ramp("a longer name", 10)]);
        assert_eq!(text.lines().count(), 3);
        assert!(text.lines().all(|line| line.len() >= 13 + 5 * 10));
    }

    #[test]
    fn all_files_are_written_under_plain_names() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let files = write_all(directory.path(), "Durable, 32 B", &[ramp("1000/s: echo", 100)]).expect("writable");
        let names: Vec<_> = files.iter().map(|path| path.file_name().expect("a file").to_owned()).collect();
        assert_eq!(names, ["1000-s-echo.hlog", "durable-32-b.svg"]);
        assert!(files.iter().all(|path| path.metadata().expect("it exists").len() > 100));
    }

    #[test]
    fn json_comes_back_as_it_went() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("summary.json");
        let summary = ramp("ramp", 100).summary();
        write_json(&path, &summary).expect("writable");
        let text = fs::read_to_string(&path).expect("readable");
        assert_eq!(serde_json::from_str::<Summary>(&text).expect("valid"), summary);
    }
}
