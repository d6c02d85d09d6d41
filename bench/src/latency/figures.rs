//! The figures of one run, for programs (JSON) and for people (tables).

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use super::layout::Layout;
use crate::floor::plan::Combination;
use crate::floor::{FloorReport, Variant};
use crate::report::{Percentiles, Summary};

/// All that one run measured. Latencies are microseconds.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Figures {
    /// The closed loop's p50 at the smallest size, divided by the floor's best p50 of that size; by durability.
    pub ratio_to_floor_p50: BTreeMap<String, f64>,
    /// Replies a second with a full window; by durability.
    pub throughput: BTreeMap<String, f64>,
    /// The open loop's p99; by durability, then by rate.
    pub open_loop_p99: BTreeMap<String, BTreeMap<String, f64>>,
    /// The floor's best.
    pub floor: Vec<FloorFigure>,
    /// One request in flight.
    pub closed_loop: Vec<ClosedLoop>,
    /// A full window.
    pub window: Vec<Window>,
    /// By a schedule.
    pub open_loop: Vec<OpenLoop>,
    /// Why each layout was taken.
    pub trials: Vec<Trial>,
}

/// The best of the floor for one durability and size.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FloorFigure {
    /// What an answer promises.
    pub durability: Variant,
    /// Bytes of a request.
    pub size: usize,
    /// What was best.
    pub combination: Combination,
    /// Round trips.
    pub latency: Percentiles,
}

/// One closed loop.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ClosedLoop {
    /// What an acknowledgement promises.
    pub durability: Variant,
    /// Bytes of a request.
    pub size: usize,
    /// Where all ran.
    pub layout: Layout,
    /// What was measured.
    pub summary: Summary,
    /// Its p50 divided by the floor's; `None` without a floor.
    pub ratio_to_floor_p50: Option<f64>,
    /// Processor time of each node for one request, microseconds.
    pub node_processor_time: Vec<f64>,
}

/// One full window.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Window {
    /// What an acknowledgement promises.
    pub durability: Variant,
    /// Requests in flight.
    pub window_len: usize,
    /// Bytes of a request.
    pub size: usize,
    /// Where all ran.
    pub layout: Layout,
    /// Replies a second.
    pub rate: f64,
    /// Processor time of each node for one request, microseconds.
    pub node_processor_time: Vec<f64>,
}

/// One open loop.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct OpenLoop {
    /// What an acknowledgement promises.
    pub durability: Variant,
    /// Requests a second.
    pub rate: f64,
    /// Bytes of a request.
    pub size: usize,
    /// Where all ran.
    pub layout: Layout,
    /// What was measured, each latency from its request's intended time.
    pub summary: Summary,
}

/// What a layout gave in its short trial.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Trial {
    /// What an acknowledgement promises.
    pub durability: Variant,
    /// Where all ran.
    pub layout: Layout,
    /// The closed loop's p50; infinite, and null in JSON, when it failed.
    #[serde(deserialize_with = "infinite_if_null")]
    pub closed_p50: f64,
    /// Replies a second with a full window.
    pub window_rate: f64,
    /// The open loop's p99 at the highest rate; infinite, and null in JSON, when it did not keep up.
    #[serde(deserialize_with = "infinite_if_null")]
    pub open_p99: f64,
    /// What failed.
    pub failure: Option<String>,
}

impl Figures {
    /// Takes the floor's best of one durability.
    pub fn add_floor(&mut self, report: &FloorReport) {
        self.floor.extend(report.best.iter().map(|entry| FloorFigure {
            durability: entry.variant,
            size: entry.size,
            combination: entry.combination,
            latency: entry.latency,
        }));
    }

    /// The floor's best p50.
    pub fn floor_p50(&self, variant: Variant, size: usize) -> Option<f64> {
        let found = self.floor.iter().find(|floor| floor.durability == variant && floor.size == size);
        found.map(|floor| floor.latency.p50)
    }

    /// What was measured, in order.
    pub fn variants(&self) -> Vec<Variant> {
        let all = [Variant::Replicated, Variant::Durable];
        all.into_iter().filter(|variant| self.trials.iter().any(|trial| trial.durability == *variant)).collect()
    }

    /// Fills in the figures that sum up the others.
    pub fn summarize(&mut self) {
        for variant in self.variants() {
            let closed = self.closed_loop.iter().filter(|closed| closed.durability == variant);
            let smallest = closed.min_by_key(|closed| closed.size);
            if let Some(ratio) = smallest.and_then(|closed| closed.ratio_to_floor_p50) {
                self.ratio_to_floor_p50.insert(name(variant).to_owned(), ratio);
            }
        }
        for window in &self.window {
            self.throughput.insert(name(window.durability).to_owned(), window.rate);
        }
        for open in &self.open_loop {
            let rates = self.open_loop_p99.entry(name(open.durability).to_owned()).or_default();
            rates.insert(open.rate.to_string(), open.summary.latency.p99);
        }
    }

    /// All for people. Writing to a string cannot fail.
    pub fn tables(&self) -> String {
        let mut text = String::from("Three echo nodes over loopback, microseconds\n\nOne request in flight\n");
        write_header(&mut text, "to floor");
        for floor in &self.floor {
            let first = format!("floor {} {} B", name(floor.durability), floor.size);
            write_line(&mut text, &first, &floor.latency, "1.00", &format!("{:?}", floor.combination.placement));
        }
        for closed in &self.closed_loop {
            let ratio = closed.ratio_to_floor_p50.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}"));
            write_line(&mut text, &closed.summary.name, &closed.summary.latency, &ratio, &closed.layout.title());
        }
        text.push_str("\nOpen loop, from each request's scheduled time\n");
        write_header(&mut text, "count");
        for open in &self.open_loop {
            let count = open.summary.count.to_string();
            write_line(&mut text, &open.summary.name, &open.summary.latency, &count, &open.layout.title());
        }
        text.push_str("\nThroughput\n");
        for window in &self.window {
            let Window { durability, window_len, size, rate, node_processor_time, layout } = window;
            let _ = writeln!(
                text,
                "{} {size} B, {window_len} in flight: {rate:.0} requests/s; µs of processor a request on each node: {}; {}",
                name(*durability),
                join(node_processor_time),
                layout.title()
            );
        }
        text.push_str("\nTrials\n");
        for trial in &self.trials {
            let _ = writeln!(
                text,
                "{:<10} {:<28} closed p50 {:>8.1}  window {:>8.0}/s  open p99 {:>9.1}  {}",
                name(trial.durability),
                trial.layout.title(),
                trial.closed_p50,
                trial.window_rate,
                trial.open_p99,
                trial.failure.as_deref().unwrap_or_default()
            );
        }
        text
    }
}

/// As in options and JSON.
pub fn name(variant: Variant) -> &'static str {
    match variant {
        Variant::Replicated => "replicated",
        Variant::Durable => "durable",
    }
}

fn write_header(text: &mut String, last: &str) {
    let _ = writeln!(
        text,
        "{:<28} {:>9} {:>9} {:>9} {:>9} {:>10} {last:>9}  layout",
        "series", "p50", "p90", "p99", "p99.9", "max"
    );
}

fn write_line(text: &mut String, first: &str, latency: &Percentiles, last: &str, layout: &str) {
    let Percentiles { p50, p90, p99, p99_9, max } = latency;
    let _ = writeln!(text, "{first:<28} {p50:>9.1} {p90:>9.1} {p99:>9.1} {p99_9:>9.1} {max:>10.1} {last:>9}  {layout}");
}

fn join(figures: &[f64]) -> String {
    let figures: Vec<String> = figures.iter().map(|figure| format!("{figure:.1}")).collect();
    figures.join(" ")
}

fn infinite_if_null<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or(f64::INFINITY))
}
