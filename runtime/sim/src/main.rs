//! The command line of the simulator.
#![forbid(unsafe_code)]

use std::io::IsTerminal;
use std::ops::Range;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, bail};
use clap::Parser;
use evershard_protocol::bugs::Bug;
use evershard_sim::profile::{self, Profile};
use evershard_sim::report::{finding, summary};
use evershard_sim::run::Words;
use evershard_sim::shrink::{Case, decode, shrink};
use evershard_sim::stats::Stats;
use evershard_sim::{bugs, panics};
use indicatif::{ProgressBar, ProgressStyle};

/// How often a run says how far it is where there is no terminal.
const SAY_EVERY: Duration = Duration::from_secs(10);
/// How long a finding is made smaller.
const SHRINK_WITHIN: Duration = Duration::from_secs(60);

/// Simulates whole clusters from seeds and judges them. Ends with 1 if anything was found.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// One seed, with a trace of what happens.
    #[arg(long, conflicts_with_all = ["seeds", "minutes", "prove"])]
    seed: Option<u64>,
    /// Many seeds: `from..to`.
    #[arg(long, value_parser = range, conflicts_with_all = ["minutes", "prove"])]
    seeds: Option<Range<u64>>,
    /// Seeds from a random one on, for so long.
    #[arg(long, conflicts_with = "prove")]
    minutes: Option<f64>,
    /// The mix of faults: standard, figure-eight, elections, blackouts, damage,
    /// overwrites, reads, hand-overs, members, snapshots.
    #[arg(long)]
    mix: Option<String>,
    /// Switches a known bug on, by its name.
    #[arg(long)]
    bug: Option<String>,
    /// Finds every known bug, within its bound of seeds.
    #[arg(long)]
    prove: bool,
    /// Runs each seed twice and compares.
    #[arg(long)]
    twice: bool,
    /// Threads, each with runs of its own.
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Faults to keep, by their places: `0-3,7` or `none`.
    #[arg(long)]
    keep: Option<String>,
    /// Clients of each shard.
    #[arg(long)]
    clients: Option<usize>,
    /// Commands of each client.
    #[arg(long)]
    commands: Option<u64>,
    /// How long faults go on, in milliseconds.
    #[arg(long)]
    duration: Option<u64>,
}

fn range(text: &str) -> Result<Range<u64>, String> {
    let (from, to) = text.split_once("..").ok_or("seeds are given as from..to")?;
    let number = |text: &str| text.parse::<u64>().map_err(|error| format!("{text}: {error}"));
    let range = number(from)?..number(to)?;
    if range.is_empty() { Err("there are no seeds in this range".to_owned()) } else { Ok(range) }
}

fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    if arguments.prove {
        return prove(arguments.threads);
    }
    let bug = arguments.bug.as_deref().map(known_bug).transpose()?;
    let profile = match arguments.mix.as_deref() {
        Some(name) => mix(name)?,
        None => bug.and_then(bugs::entry).map_or_else(profile::standard, |entry| (entry.profile)()),
    };
    if let Some(seed) = arguments.seed {
        let keep = match arguments.keep.as_deref() {
            Some(text) => Some(decode(text).with_context(|| format!("--keep {text}: expected `0-3,7` or `none`"))?),
            None => None,
        };
        let mut case = Case::of_seed(seed, profile, bug);
        (case.keep, case.clients, case.commands) = (keep, arguments.clients, arguments.commands);
        case.duration_ms = arguments.duration;
        return Ok(one(&case));
    }
    let (seeds, deadline) = match (arguments.seeds, arguments.minutes) {
        (Some(seeds), _) => (seeds, None),
        (None, minutes) => {
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).context("the clock is before 1970")?;
            let minutes = minutes.unwrap_or(1.0);
            let from = now.as_secs() * 1000;
            println!("seeds from {from} on, for {minutes} minutes");
            (from..u64::MAX, Some(Instant::now() + Duration::from_secs_f64(minutes * 60.0)))
        }
    };
    let search = Search::new(profile, bug, arguments.twice, seeds, deadline);
    Ok(search.conclude(arguments.threads))
}

fn known_bug(name: &str) -> anyhow::Result<Bug> {
    let Some(bug) = Bug::from_slug(name) else {
        let names: Vec<&str> = Bug::ALL.iter().map(|bug| bug.slug()).collect();
        bail!("there is no bug `{name}`\n\nhint: one of {}", names.join(", "));
    };
    Ok(bug)
}

fn mix(name: &str) -> anyhow::Result<Profile> {
    let all = profile::all();
    let names: Vec<&str> = all.iter().map(|profile| profile.name).collect();
    let hint = format!("there is no mix `{name}`\n\nhint: one of {}", names.join(", "));
    all.into_iter().find(|profile| profile.name == name).context(hint)
}

/// One seed, told as it happens.
fn one(case: &Case) -> ExitCode {
    let started = Instant::now();
    let report = case.run(Words::Printed);
    println!("\nhash {:016x}\n{}", report.hash, summary(&report.stats, started.elapsed()));
    match &report.violation {
        Some(violation) => {
            println!("FOUND `{}`: {}\nagain: {case}", violation.rule, violation.what);
            ExitCode::FAILURE
        }
        None => ExitCode::SUCCESS,
    }
}

/// Many seeds, until one fails or there are no more.
struct Search {
    profile: Profile,
    bug: Option<Bug>,
    twice: bool,
    seeds: Range<u64>,
    deadline: Option<Instant>,
    next: AtomicU64,
    stop: AtomicBool,
    stats: Mutex<Stats>,
    failed: Mutex<Option<(u64, String)>>,
}

impl Search {
    fn new(profile: Profile, bug: Option<Bug>, twice: bool, seeds: Range<u64>, deadline: Option<Instant>) -> Self {
        let next = AtomicU64::new(seeds.start);
        Self {
            profile,
            bug,
            twice,
            seeds,
            deadline,
            next,
            stop: AtomicBool::new(false),
            stats: Mutex::default(),
            failed: Mutex::default(),
        }
    }

    /// Runs seeds one after the other, on one of the threads.
    fn work(&self) {
        loop {
            // Relaxed: each seed is taken once, in no particular order.
            let seed = self.next.fetch_add(1, Ordering::Relaxed);
            let late = self.deadline.is_some_and(|deadline| Instant::now() >= deadline);
            if seed >= self.seeds.end || late || self.stop.load(Ordering::Relaxed) {
                return;
            }
            let case = Case::of_seed(seed, self.profile.clone(), self.bug);
            // A panic of the simulator itself is a finding too, about the simulator.
            let outcome = panics::watch(|| {
                let report = case.run(Words::None);
                let again = self.twice.then(|| case.run(Words::None).hash);
                (report, again)
            });
            let rule = match outcome {
                Ok((report, again)) => {
                    self.stats.lock().unwrap_or_else(std::sync::PoisonError::into_inner).add(&report.stats);
                    match (report.violation, again) {
                        (Some(violation), _) => Some(violation.rule.to_owned()),
                        (None, Some(hash)) if hash != report.hash => Some("not-deterministic".to_owned()),
                        (None, _) => None,
                    }
                }
                Err(said) => Some(format!("simulator: {said}")),
            };
            if let Some(rule) = rule {
                let mut failed = self.failed.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                if failed.as_ref().is_none_or(|(known, _)| seed < *known) {
                    *failed = Some((seed, rule));
                }
                self.stop.store(true, Ordering::Relaxed);
            }
        }
    }

    /// Runs on several threads and returns the failing seed with its rule, if there is one.
    fn run(&self, threads: usize, quiet: bool) -> Option<(u64, String)> {
        let started = Instant::now();
        std::thread::scope(|scope| {
            let workers: Vec<_> = (0..threads.max(1)).map(|_| scope.spawn(|| self.work())).collect();
            let bar = (!quiet && std::io::stderr().is_terminal()).then(|| self.bar());
            let mut said = Instant::now();
            while workers.iter().any(|worker| !worker.is_finished()) {
                std::thread::sleep(Duration::from_millis(20));
                let runs = self.stats.lock().unwrap_or_else(std::sync::PoisonError::into_inner).runs;
                if let Some(bar) = &bar {
                    bar.set_position(runs);
                } else if !quiet && said.elapsed() >= SAY_EVERY {
                    said = Instant::now();
                    let rate = runs as f64 * 60.0 / started.elapsed().as_secs_f64();
                    println!("{runs} seeds, {rate:.0} per minute");
                }
            }
            if let Some(bar) = bar {
                bar.finish_and_clear();
            }
        });
        self.failed.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    fn bar(&self) -> ProgressBar {
        let len = self.deadline.is_none().then(|| self.seeds.end - self.seeds.start);
        let bar = ProgressBar::new(len.unwrap_or(0));
        let template =
            if len.is_some() { "{wide_bar} {pos}/{len} seeds, {per_sec}" } else { "{spinner} {pos} seeds, {per_sec}" };
        bar.with_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()))
    }

    /// Runs, tells, and makes what was found small.
    fn conclude(&self, threads: usize) -> ExitCode {
        let started = Instant::now();
        let failed = self.run(threads, false);
        let stats = self.stats.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
        println!("{}", summary(&stats, started.elapsed()));
        let Some((seed, rule)) = failed else { return ExitCode::SUCCESS };
        println!("seed {seed} breaks `{rule}`; making it small ...");
        let case = Case::of_seed(seed, self.profile.clone(), self.bug);
        let small = shrink(&case, &rule, SHRINK_WITHIN);
        println!("{}", finding(&small, &small.run(Words::Kept)));
        ExitCode::FAILURE
    }
}

/// Finds every known bug.
fn prove(threads: usize) -> anyhow::Result<ExitCode> {
    let mut missed = 0;
    println!("{:<24} {:<14} {:>8} {:>8}  found as", "bug", "mix", "bound", "seeds");
    for entry in bugs::table() {
        let profile = (entry.profile)();
        let search = Search::new(profile.clone(), Some(entry.bug), false, 0..entry.bound, None);
        let (seeds, rule) = match search.run(threads, true) {
            Some((seed, rule)) => ((seed + 1).to_string(), rule),
            None => {
                missed += 1;
                ("-".to_owned(), "NOT FOUND".to_owned())
            }
        };
        println!("{:<24} {:<14} {:>8} {seeds:>8}  {rule}", entry.bug.slug(), profile.name, entry.bound);
    }
    Ok(if missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
