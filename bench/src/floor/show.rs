//! The floor as tables for people.

use std::fmt::Write;

use clap::ValueEnum;

use super::plan::{ClientKind, Combination};
use super::{FloorEntry, FloorReport, Variant};

/// A combination in one line.
pub fn title(variant: Variant, size: usize, combination: Combination) -> String {
    format!("{} {size} B, {}", name(variant), describe(combination))
}

/// The tables of a report: the best, then every combination, best first.
pub fn tables(report: &FloorReport) -> String {
    let mut text = String::from("Floor: three-hop quorum echo, loopback TCP, one request in flight, microseconds\n\n");
    write_header(&mut text);
    for entry in &report.best {
        write_entry(&mut text, entry);
    }
    text.push_str("\nAll combinations (final: measured longer)\n\n");
    write_header(&mut text);
    let mut entries: Vec<&FloorEntry> = report.entries.iter().collect();
    entries.sort_by(|a, b| {
        let key = |entry: &FloorEntry| (entry.variant as u8, entry.size);
        key(a).cmp(&key(b)).then(a.latency.p50.total_cmp(&b.latency.p50))
    });
    for entry in entries {
        write_entry(&mut text, entry);
    }
    for failure in &report.failures {
        // Writing to a string cannot fail; the same holds below.
        let _ = writeln!(text, "did not run: {failure}");
    }
    text
}

fn write_header(text: &mut String) {
    let _ = writeln!(
        text,
        "{:<10} {:>5}  {:<16} {:<17} {:<9} {:>5} {:>8} {:>8} {:>8} {:>8} {:>9} {:>8} {:>7} {:>9}",
        "variant",
        "bytes",
        "placement",
        "idle",
        "client",
        "",
        "p50",
        "p90",
        "p99",
        "p99.9",
        "max",
        "count",
        "enters",
        "switches"
    );
}

fn write_entry(text: &mut String, entry: &FloorEntry) {
    let Combination { placement, idle, client } = entry.combination;
    let latency = &entry.latency;
    let _ = writeln!(
        text,
        "{:<10} {:>5}  {:<16} {:<17} {:<9} {:>5} {:>8.1} {:>8.1} {:>8.1} {:>8.1} {:>9.1} {:>8} {:>7.1} {:>9.1}",
        name(entry.variant),
        entry.size,
        name(placement),
        name(idle),
        name(client),
        if entry.is_final { "final" } else { "" },
        latency.p50,
        latency.p90,
        latency.p99,
        latency.p99_9,
        latency.max,
        entry.count,
        entry.leader_enters,
        entry.leader_switches
    );
}

fn describe(combination: Combination) -> String {
    let client = match combination.client {
        ClientKind::Ring => "ring client",
        ClientKind::Syscalls => "syscall client",
    };
    format!("{}, {}, {client}", name(combination.placement), name(combination.idle))
}

fn name(value: impl ValueEnum) -> String {
    value.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}
