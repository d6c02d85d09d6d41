//! The floor: what this machine needs for a three-hop quorum echo with no product in between.
//!
//! Four processes over loopback TCP: a client, a leader, two followers; the leader sends every request to both
//! followers and answers when two of three (itself included) have it, in memory or on stable storage. One request is in
//! flight. Every placement and way to idle that fits the machine is screened at one size, and the best are measured at
//! every size. No product can beat the floor; what a product adds is the distance to it.

pub mod plan;
pub mod process;
pub mod show;

mod client;
mod follower;
mod leader;
mod ring;

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::report::Percentiles;
use plan::{ClientKind, Combination, Idle, Placement};
use process::Run;

/// What to measure.
#[derive(Debug, Clone)]
pub struct FloorOptions {
    /// Bytes of a request and of its reply.
    pub sizes: Vec<usize>,
    /// How long each combination is measured in the final, over all rounds; the screening takes a third of it.
    pub duration: Duration,
    /// Rounds of the final: the finalists take turns, so that a neighbour's noise meets them alike.
    pub rounds: u32,
    /// Whose disk the durable variant writes to; a temporary directory is made in it.
    pub dir: PathBuf,
    /// The variants to measure.
    pub variants: Vec<Variant>,
    /// How many of the best enter the final at every size.
    pub finalists: usize,
    /// Only these placements; all that fit when empty. The same holds for the next two.
    pub placements: Vec<Placement>,
    /// Only these idle modes.
    pub idles: Vec<Idle>,
    /// Only these clients.
    pub clients: Vec<ClientKind>,
    /// The program with the hidden subcommand `floor-node`: this executable when `None`.
    pub program: Option<PathBuf>,
}

impl Default for FloorOptions {
    fn default() -> Self {
        Self {
            sizes: vec![32, 288, 1344],
            duration: Duration::from_secs(1),
            dir: std::env::temp_dir(),
            variants: vec![Variant::Replicated, Variant::Durable],
            rounds: 3,
            finalists: 4,
            placements: Vec::new(),
            idles: Vec::new(),
            clients: Vec::new(),
            program: None,
        }
    }
}

/// What an answer promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Variant {
    /// Two of three have it in memory.
    Replicated,
    /// Two of three have it on stable storage.
    Durable,
}

/// One measurement.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FloorEntry {
    /// The variant.
    pub variant: Variant,
    /// Bytes of a request.
    pub size: usize,
    /// What was tried.
    pub combination: Combination,
    /// Whether this was the final, and not the shorter screening.
    pub is_final: bool,
    /// Round trips in microseconds.
    pub latency: Percentiles,
    /// Round trips measured.
    pub count: u64,
    /// The leader's `io_uring_enter` calls for one request.
    pub leader_enters: f64,
    /// The leader's context switches for one request.
    pub leader_switches: f64,
    /// The round trips themselves: (nanoseconds, count).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub round_trips: Vec<(u64, u64)>,
}

/// All measurements, and the best of each variant and size.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FloorReport {
    /// The cores that were used.
    pub cores: Vec<usize>,
    /// Every combination that ran.
    pub entries: Vec<FloorEntry>,
    /// The best final by p50 of each variant and size.
    pub best: Vec<FloorEntry>,
    /// What did not run, and why.
    pub failures: Vec<String>,
}

impl FloorReport {
    /// The floor of a variant and size.
    pub fn best(&self, variant: Variant, size: usize) -> Option<&FloorEntry> {
        self.best.iter().find(|entry| entry.variant == variant && entry.size == size)
    }
}

/// Measures the floor. `on_step` is told before each run: how many are done, how many there are, and what comes.
pub fn measure(options: &FloorOptions, on_step: impl FnMut(usize, usize, &str)) -> Result<FloorReport> {
    let cores: Vec<usize> = core_affinity::get_core_ids()
        .context("cannot list the cores this process may use")?
        .into_iter()
        .map(|core| core.id)
        .collect();
    let candidates = candidates(options, cores.len());
    ensure!(!candidates.is_empty(), "nothing that was asked for fits a machine with {} cores", cores.len());
    let finalists = options.finalists.min(candidates.len());
    let runs_in_final = finalists * options.sizes.len() * options.rounds as usize;
    let total = options.variants.len() * (candidates.len() + runs_in_final);
    let program = match &options.program {
        Some(program) => program.clone(),
        None => std::env::current_exe().context("cannot find this executable")?,
    };
    let directory = tempfile::Builder::new().prefix("evershard-floor-").tempdir_in(&options.dir)?;
    let files = prepare_files(directory.path())?;
    let mut bench = Bench { program, cores, files, tallies: Vec::new(), failures: Vec::new(), done: 0, total, on_step };
    for &variant in &options.variants {
        let screening_size = options.sizes.first().copied().unwrap_or(32);
        for &combination in &candidates {
            bench.step(variant, screening_size, combination, false, options.duration / SCREENING_SHARE);
        }
        let best = bench.best_of_screening(variant, finalists);
        for _ in 0..options.rounds {
            for &size in &options.sizes {
                for &combination in &best {
                    bench.step(variant, size, combination, true, options.duration / options.rounds);
                }
            }
        }
    }
    Ok(bench.into_report(options))
}

fn candidates(options: &FloorOptions, core_count: usize) -> Vec<Combination> {
    let mut candidates = plan::combinations(core_count);
    candidates.retain(|candidate| {
        (options.placements.is_empty() || options.placements.contains(&candidate.placement))
            && (options.idles.is_empty() || options.idles.contains(&candidate.idle))
            && (options.clients.is_empty() || options.clients.contains(&candidate.client))
    });
    candidates
}

/// A measurement under way: what runs, and what has been gathered.
struct Bench<F> {
    program: PathBuf,
    cores: Vec<usize>,
    files: [PathBuf; 3],
    tallies: Vec<Tally>,
    failures: Vec<String>,
    done: usize,
    total: usize,
    on_step: F,
}

/// The runs of one combination so far.
struct Tally {
    variant: Variant,
    size: usize,
    combination: Combination,
    is_final: bool,
    run: Run,
}

impl<F: FnMut(usize, usize, &str)> Bench<F> {
    fn step(&mut self, variant: Variant, size: usize, combination: Combination, is_final: bool, duration: Duration) {
        let title = show::title(variant, size, combination);
        (self.on_step)(self.done, self.total, &title);
        self.done += 1;
        let files = (variant == Variant::Durable).then_some(&self.files);
        let run = match process::run(&self.program, &self.cores, combination, size, duration, files) {
            Ok(run) => run,
            Err(error) => return self.failures.push(format!("{title}: {error:#}")),
        };
        let same = |tally: &&mut Tally| {
            (tally.variant, tally.size, tally.combination, tally.is_final) == (variant, size, combination, is_final)
        };
        match self.tallies.iter_mut().find(same) {
            Some(tally) => tally.run.add(&run),
            None => self.tallies.push(Tally { variant, size, combination, is_final, run }),
        }
    }

    fn best_of_screening(&self, variant: Variant, count: usize) -> Vec<Combination> {
        let mut ranked: Vec<&Tally> =
            self.tallies.iter().filter(|tally| tally.variant == variant && !tally.is_final).collect();
        ranked.sort_by_key(|tally| tally.run.histogram.value_at_quantile(0.5));
        ranked.iter().take(count).map(|tally| tally.combination).collect()
    }

    fn into_report(self, options: &FloorOptions) -> FloorReport {
        let entries: Vec<FloorEntry> = self.tallies.iter().map(FloorEntry::new).collect();
        let mut best = Vec::new();
        for &variant in &options.variants {
            for &size in &options.sizes {
                let finals = entries.iter().filter(|e| e.variant == variant && e.size == size && e.is_final);
                best.extend(finals.min_by(|a, b| a.latency.p50.total_cmp(&b.latency.p50)).cloned());
            }
        }
        FloorReport { cores: self.cores, entries, best, failures: self.failures }
    }
}

impl FloorEntry {
    fn new(tally: &Tally) -> Self {
        let histogram = &tally.run.histogram;
        let round_trips = histogram.iter_recorded().map(|at| (at.value_iterated_to(), at.count_at_value()));
        let requests = tally.run.requests as f64;
        Self {
            variant: tally.variant,
            size: tally.size,
            combination: tally.combination,
            is_final: tally.is_final,
            latency: Percentiles::of(histogram),
            count: histogram.len(),
            leader_enters: tally.run.leader_enters as f64 / requests,
            leader_switches: tally.run.leader_switches as f64 / requests,
            round_trips: if tally.is_final { round_trips.collect() } else { Vec::new() },
        }
    }
}

/// Three files with their space allocated and written, so that a later write changes no metadata.
fn prepare_files(directory: &Path) -> Result<[PathBuf; 3]> {
    let files = ["leader", "first-follower", "second-follower"].map(|name| directory.join(name));
    for path in &files {
        let mut file = File::create(path).with_context(|| format!("cannot create {}", path.display()))?;
        let zeroes = vec![0; ring::SLOT_SIZE * 64];
        for _ in 0..leader::FILE_BLOCKS / 64 {
            file.write_all(&zeroes)?;
        }
        file.sync_all()?;
    }
    Ok(files)
}

/// The screening takes the duration divided by this.
const SCREENING_SHARE: u32 = 3;
