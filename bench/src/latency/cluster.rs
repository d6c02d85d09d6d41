//! Three echo nodes as processes of their own on loopback, one shard, led by node 0.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use evershard::client::ClientConfig;
use evershard::node::{DurabilityConfig, NodeAddress, NodeConfig, serve_until_signal};
use evershard::protocol::NodeId;
use evershard::{Client, ShardId};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use super::layout::Layout;
use crate::floor::Variant;

/// The arguments of the hidden subcommand that one node runs as.
#[derive(Debug, Clone, clap::Args)]
pub struct EchoNodeOptions {
    /// The node's configuration.
    #[arg(long)]
    config: PathBuf,
}

/// The body of the hidden subcommand.
pub fn serve(options: &EchoNodeOptions) -> Result<()> {
    let config = NodeConfig::load(&options.config)?;
    serve_until_signal(&config, |_| echo::Echo::default())?;
    Ok(())
}

/// A running cluster. Ended, and its data removed, when dropped.
#[derive(Debug)]
pub struct Cluster {
    endpoints: Vec<String>,
    nodes: Vec<Child>,
    _directory: TempDir,
}

impl Cluster {
    /// Starts three nodes with fresh data below `directory`. Call from a thread that is not pinned: children inherit.
    pub fn start(directory: &Path, variant: Variant, layout: &Layout) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("evershard-latency-").tempdir_in(directory)?;
        let endpoints = evershard::free_addresses(NODE_COUNT.into()).context("no free addresses on loopback")?;
        let nodes = (0..NODE_COUNT).zip(&endpoints);
        let addresses: Vec<NodeAddress> =
            nodes.map(|(id, address)| NodeAddress { id, address: address.clone() }).collect();
        let mut cluster = Self { endpoints, nodes: Vec::new(), _directory: directory };
        let program = std::env::current_exe().context("cannot find this executable")?;
        for node in 0..NODE_COUNT {
            let home = cluster._directory.path().join(format!("node-{node}"));
            fs::create_dir(&home)?;
            let mut config = NodeConfig::new("bench", node, home.join("data"), 1, addresses.clone());
            config.durability = match variant {
                Variant::Replicated => DurabilityConfig::Replicated,
                Variant::Durable => DurabilityConfig::Durable,
            };
            config.segment_size_mib = SEGMENT_SIZE_MIB;
            config.prefer_leaders = true;
            config.cores = Some(vec![layout.node_core(node)]);
            config.idle = layout.node_idle(node);
            let path = home.join("node.toml");
            fs::write(&path, config.to_toml())?;
            let mut command = Command::new(&program);
            command.arg("echo-node").arg("--config").arg(&path).stdin(Stdio::null()).stdout(Stdio::null());
            cluster.nodes.push(command.spawn().context("cannot start itself")?);
        }
        Ok(cluster)
    }

    /// A client that is led by node 0, which the shard prefers.
    pub fn client(&mut self, window_len: usize, spin: bool) -> Result<Client> {
        let begun = Instant::now();
        loop {
            self.check()?;
            let mut config = ClientConfig::new(self.endpoints.clone(), ShardId(0));
            config.window_len = window_len;
            config.spin = spin;
            let client = Client::connect(&config).context("the cluster did not become ready")?;
            if client.leader() == Some(NodeId(0)) {
                return Ok(client);
            }
            let leader = client.leader();
            client.close()?;
            ensure!(begun.elapsed() < READY_MAX, "node 0 does not lead although preferred; {leader:?} does");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Whether all nodes still run.
    pub fn check(&mut self) -> Result<()> {
        for (node, child) in self.nodes.iter_mut().enumerate() {
            if let Some(status) = child.try_wait()? {
                bail!("node {node} has ended: {status}");
            }
        }
        Ok(())
    }

    /// Processor time of each node so far.
    pub fn processor_times(&self) -> Vec<Duration> {
        self.nodes.iter().map(|child| processor_time(child.id()).unwrap_or_default()).collect()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for child in &self.nodes {
            let id = i32::try_from(child.id()).map(Pid::from_raw);
            // A node that has ended by itself is a zombie until waited for: the id cannot be another's.
            let _ = id.map(|id| kill(id, Signal::SIGTERM));
        }
        let begun = Instant::now();
        for child in &mut self.nodes {
            while matches!(child.try_wait(), Ok(None)) && begun.elapsed() < STOP_MAX {
                std::thread::sleep(Duration::from_millis(2));
            }
            if matches!(child.try_wait(), Ok(None)) {
                eprintln!("warning: node process {} ignores SIGTERM and is killed", child.id());
                // It may end just now; then there is nothing to kill.
                let _ = child.kill();
                let _ = child.wait();
            }
        }
    }
}

/// User and system time of a process from `/proc`.
fn processor_time(id: u32) -> Option<Duration> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    // The name, in parentheses, may contain spaces; utime and stime are the 12th and 13th field after it.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let ticks = fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?;
    Some(Duration::from_millis(ticks * MILLISECONDS_A_TICK))
}

const NODE_COUNT: u8 = 3;
const SEGMENT_SIZE_MIB: u64 = 64;
const READY_MAX: Duration = Duration::from_secs(5);
const STOP_MAX: Duration = Duration::from_secs(5);
/// Linux counts processor time for programs in hundredths of a second on every architecture we run on.
const MILLISECONDS_A_TICK: u64 = 10;
