//! The command `evershard-bench`: what this machine can do, and what Evershard adds to it.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use evershard_bench::floor::plan::{ClientKind, Idle, Placement};
use evershard_bench::floor::process::NodeOptions;
use evershard_bench::floor::{self, FloorOptions, Variant};
use evershard_bench::latency::cluster::{self, EchoNodeOptions};
use evershard_bench::latency::{self, LatencyOptions};
use indicatif::{ProgressBar, ProgressStyle};

/// Measures the machine's floor and Evershard's latency above it.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// The machine's limit for a three-hop quorum echo, with no product in between.
    Floor(FloorArguments),
    /// The latency and throughput of a cluster of three processes, beside the floor.
    Latency(LatencyOptions),
    /// One process of the floor; started by the floor itself.
    #[command(hide = true)]
    FloorNode(NodeOptions),
    /// One node of the cluster; started by `latency` itself.
    #[command(hide = true)]
    EchoNode(EchoNodeOptions),
}

#[derive(clap::Args)]
struct FloorArguments {
    /// Seconds for each finalist and size; the screening takes a third of it for each combination.
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// A quick look: a quarter of the time, and fewer finalists.
    #[arg(long)]
    quick: bool,
    /// Bytes of a request; the first size is the one screened.
    #[arg(long, value_delimiter = ',', default_values_t = [32, 288, 1344])]
    sizes: Vec<usize>,
    /// What an answer promises; both when not given.
    #[arg(long, value_delimiter = ',')]
    variants: Vec<Variant>,
    /// Only these placements.
    #[arg(long, value_delimiter = ',')]
    placements: Vec<Placement>,
    /// Only these idle modes.
    #[arg(long, value_delimiter = ',')]
    idles: Vec<Idle>,
    /// Only these clients.
    #[arg(long, value_delimiter = ',')]
    clients: Vec<ClientKind>,
    /// How many of the best enter the final.
    #[arg(long, default_value_t = 4)]
    finalists: usize,
    /// Rounds of the final, in which the finalists take turns.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Whose disk the durable variant writes to.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Where to write the report as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
}

fn main() -> ExitCode {
    // Nodes tell of their elections at info; among the progress only what is wrong should show.
    tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::WARN)
        .with_writer(std::io::stderr)
        .init();
    let result = match Arguments::parse().command {
        Command::Floor(arguments) => run_floor(arguments),
        Command::Latency(options) => latency::run(options),
        Command::FloorNode(options) => floor::process::serve(&options),
        Command::EchoNode(options) => cluster::serve(&options),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run_floor(arguments: FloorArguments) -> Result<()> {
    let defaults = FloorOptions::default();
    let share = if arguments.quick { 0.25 } else { 1.0 };
    let options = FloorOptions {
        duration: Duration::try_from_secs_f64(arguments.seconds * share).context("--seconds is out of range")?,
        sizes: arguments.sizes,
        variants: if arguments.variants.is_empty() { defaults.variants } else { arguments.variants },
        placements: arguments.placements,
        idles: arguments.idles,
        clients: arguments.clients,
        finalists: if arguments.quick { arguments.finalists.min(2) } else { arguments.finalists },
        rounds: arguments.rounds,
        dir: arguments.dir.unwrap_or(defaults.dir),
        program: None,
    };
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} {wide_msg}").context("the template is fixed")?;
    let progress = ProgressBar::new(0).with_style(style);
    let report = floor::measure(&options, |done, total, title| {
        progress.set_length(total as u64);
        progress.set_position(done as u64);
        progress.set_message(title.to_owned());
    })?;
    progress.finish_and_clear();
    print!("{}", floor::show::tables(&report));
    if let Some(path) = arguments.json {
        let file = std::fs::File::create(&path).with_context(|| format!("cannot create {}", path.display()))?;
        serde_json::to_writer_pretty(file, &report)?;
    }
    Ok(())
}
