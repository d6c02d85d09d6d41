//! Tables and lines for people.

use std::fmt::Write;
use std::time::Duration;

use crate::run::Report;
use crate::shrink::Case;
use crate::stats::Stats;

/// Entries of a trace that a finding shows.
const TRACE_LEN: usize = 60;

/// The summary of many runs.
#[must_use]
pub fn summary(stats: &Stats, elapsed: Duration) -> String {
    let mut text = String::new();
    let seconds = elapsed.as_secs_f64().max(0.001);
    let hours = stats.virtual_ns as f64 / 3.6e12;
    let rate = stats.runs as f64 * 60.0 / seconds;
    let rows = [
        ("seeds", stats.runs.to_string()),
        ("seeds per minute", format!("{rate:.0}")),
        ("hours simulated", format!("{hours:.2}")),
        ("turns of shards", stats.turns.to_string()),
        ("commands applied", stats.commands.to_string()),
        ("replies checked", stats.replies.to_string()),
        ("answers checked", stats.answers.to_string()),
        ("sessions", stats.sessions.to_string()),
        ("leaders elected", stats.elections.to_string()),
        ("processes started", stats.starts.to_string()),
        ("snapshots taken", stats.snapshots_taken.to_string()),
        ("snapshots taken over", stats.snapshots_moved.to_string()),
        ("faults spared by the budget", stats.spared.to_string()),
    ];
    for (name, value) in rows {
        let _ = writeln!(text, "{name:<28} {value:>12}");
    }
    let mut line = String::new();
    for (name, count) in &stats.faults {
        let part = format!("{name} {count}");
        if line.len() + part.len() > 92 {
            let _ = writeln!(text, "  {line}");
            line.clear();
        }
        let _ = write!(line, "{}{part}", if line.is_empty() { "" } else { ", " });
    }
    let _ = writeln!(text, "  {line}");
    text
}

/// What is said about a finding.
#[must_use]
pub fn finding(case: &Case, report: &Report) -> String {
    let mut text = String::new();
    let Some(violation) = &report.violation else { return format!("nothing was found by: {case}\n") };
    let _ = writeln!(text, "FOUND `{}`: {}", violation.rule, violation.what);
    let plan = case.plan();
    let _ = writeln!(text, "\nfaults:");
    for planned in &plan.faults {
        let _ = writeln!(text, "  {planned}");
    }
    let _ = writeln!(text, "\nthe last of the trace:");
    for entry in report.trace.iter().skip(report.trace.len().saturating_sub(TRACE_LEN)) {
        let _ = writeln!(text, "  {entry}");
    }
    let _ = writeln!(text, "\nagain: {case}");
    text
}
