//! The latency and throughput of a cluster of Evershard nodes, beside the machine's floor of the same run.
//!
//! Three nodes run as processes of their own with the echo service, the client in this process on a pinned thread:
//!
//! - [`load`]: the three kinds of load: closed loop, a full window, open loop by a schedule.
//! - [`layout`]: on which cores nodes and client run, and how they idle.
//! - [`cluster`]: starting the nodes and ending them.
//! - [`figures`]: what comes out, as JSON and as tables.

pub mod cluster;
pub mod figures;
pub mod layout;
pub mod load;

mod plan;

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use indicatif::{ProgressBar, ProgressStyle};

use crate::floor::Variant;
use crate::report::{self, Series};
use figures::Figures;
use layout::Layout;
use plan::Campaign;

/// What to measure.
#[derive(Debug, Clone, clap::Args)]
pub struct LatencyOptions {
    /// Bytes of a request's payload in the closed loop.
    #[arg(long, value_delimiter = ',', default_values_t = [32, 288, 1344])]
    pub sizes: Vec<usize>,
    /// Requests a second of the open loop, one series each.
    #[arg(long, value_delimiter = ',', default_values_t = [5_000.0, 25_000.0])]
    pub rates: Vec<f64>,
    /// Requests in flight when measuring throughput.
    #[arg(long, default_value_t = 1_000)]
    pub window: usize,
    /// Seconds for each measurement.
    #[arg(long, default_value_t = 5.0)]
    pub seconds: f64,
    /// A quick look: a quarter of the time, a shorter floor, fewer layouts.
    #[arg(long)]
    pub quick: bool,
    /// What an acknowledgement promises; both when not given.
    #[arg(long, value_delimiter = ',')]
    pub durability: Vec<Variant>,
    /// Where nodes and client run; `auto` tries several and takes the best for each kind of load.
    #[arg(long, default_value = "auto")]
    pub placement: PlacementOption,
    /// Whose disk the nodes write to.
    #[arg(long)]
    pub dir: Option<PathBuf>,
    /// Where to write the figures as JSON.
    #[arg(long)]
    pub json: Option<PathBuf>,
    /// A directory for interval logs (`.hlog`) and percentile plots (`.svg`).
    #[arg(long)]
    pub out: Option<PathBuf>,
    /// Leave the floor out.
    #[arg(long)]
    pub without_floor: bool,
}

/// The choice of a layout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum PlacementOption {
    /// The best of a short trial for each kind of load.
    Auto,
    /// All on one core.
    OneCore,
    /// Client and leader on one core, both followers on another.
    FollowersApart,
    /// The leader has a core, client and followers share another.
    LeaderAlone,
    /// The client has a core, the cluster shares another.
    ClientAlone,
}

/// Runs a cluster and measures it.
pub fn run(options: LatencyOptions) -> Result<()> {
    ensure!(options.rates.iter().all(|rate| rate.is_finite() && *rate > 0.0), "--rates are above zero");
    ensure!((1..=WINDOW_MAX).contains(&options.window), "--window is 1 to {WINDOW_MAX}");
    ensure!(options.seconds.is_finite() && options.seconds > 0.0, "--seconds is above zero");
    ensure!(!options.sizes.is_empty(), "--sizes names at least one size");
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} {wide_msg}").context("the template is fixed")?;
    let progress = ProgressBar::new(0).with_style(style);
    let layouts = Layout::candidates(options.placement, options.quick)?;
    let mut campaign = Campaign::new(&options, layouts, progress.clone())?;
    let variants = match options.durability.as_slice() {
        [] => vec![Variant::Replicated, Variant::Durable],
        some => some.to_vec(),
    };
    progress.set_length(campaign.steps(variants.len()));
    for variant in variants {
        campaign.measure(variant)?;
    }
    progress.finish_and_clear();
    let (figures, series) = campaign.finish();
    print!("{}", figures.tables());
    if let Some(path) = &options.json {
        report::write_json(path, &figures)?;
    }
    if let Some(directory) = &options.out {
        write_plots(directory, &figures, &series)?;
    }
    Ok(())
}

/// One plot for each durability, with its logs.
fn write_plots(directory: &std::path::Path, figures: &Figures, series: &[(Variant, Series)]) -> Result<()> {
    for variant in figures.variants() {
        let own: Vec<Series> =
            series.iter().filter(|(of, _)| *of == variant).map(|(_, series)| series.clone()).collect();
        let title = format!("{} latency", figures::name(variant));
        for file in report::write_all(directory, &title, &own)? {
            println!("wrote {}", file.display());
        }
    }
    Ok(())
}

/// As many requests as the protocol lets one session have in flight.
const WINDOW_MAX: usize = 4096;
