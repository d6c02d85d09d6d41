//! The latency of a cluster of Evershard nodes, open loop, beside the machine's floor.

use std::path::PathBuf;

use anyhow::{Result, bail};

use crate::floor::Variant;

/// What to measure.
#[derive(Debug, Clone, clap::Args)]
pub struct LatencyOptions {
    /// Bytes of a request's payload.
    #[arg(long, value_delimiter = ',', default_values_t = [32, 288, 1344])]
    pub sizes: Vec<usize>,
    /// Requests a second, one series each; 0 is the closed loop with one request in flight.
    #[arg(long, value_delimiter = ',', default_values_t = [0.0, 1000.0, 5000.0])]
    pub rates: Vec<f64>,
    /// Seconds for each size and rate.
    #[arg(long, default_value_t = 10.0)]
    pub seconds: f64,
    /// What an acknowledgement promises; both when not given.
    #[arg(long, value_delimiter = ',')]
    pub durability: Vec<Variant>,
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

/// Runs a cluster and measures it.
pub fn run(options: LatencyOptions) -> Result<()> {
    bail!("`latency` is not wired to the cluster yet ({} sizes were asked for)", options.sizes.len())
}
