//! The processes of the cluster: started, watched, killed, and asked how they are.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use evershard::client::admin;
use evershard::node::{DurabilityConfig, NodeAddress, NodeConfig};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

/// Nodes of the demonstration.
const NODES: u8 = 3;
/// How long one question may take.
const ASK: Duration = Duration::from_millis(500);
/// Pause between two looks.
const LOOK: Duration = Duration::from_millis(20);
/// Segments of a demonstration are small: nothing has to be written before it can begin.
const SEGMENT_SIZE_MIB: u64 = 16;

/// A running cluster. Dropping it ends its processes.
pub(super) struct Nodes {
    data: PathBuf,
    program: PathBuf,
    shards: u16,
    /// Every node's shards, one node after the other.
    addresses: Vec<String>,
    children: Vec<Option<Child>>,
}

/// The digests of one shard at one position.
#[derive(Clone, Debug)]
pub(super) struct ShardDigests {
    pub(super) shard: u16,
    pub(super) position: u64,
    pub(super) digests: Vec<String>,
}

impl Nodes {
    pub(super) fn start(data: &Path, shards: u16, durability: DurabilityConfig) -> Result<Self> {
        let program = std::env::current_exe().context("this program's own path is not known")?;
        let addresses =
            evershard::free_addresses(shards * u16::from(NODES)).context("no free addresses on loopback")?;
        let firsts = addresses.iter().step_by(usize::from(shards));
        let named: Vec<NodeAddress> =
            (0..NODES).zip(firsts).map(|(id, first)| NodeAddress { id, address: first.clone() }).collect();
        std::fs::create_dir_all(data).with_context(|| format!("cannot make {}", data.display()))?;
        let mut nodes = Self { data: data.to_owned(), program, shards, addresses, children: Vec::new() };
        for id in 0..NODES {
            let directory = data.join(format!("node-{id}"));
            let mut config = NodeConfig::new("exchange-demo", id, directory, shards, named.clone());
            config.durability = durability;
            config.segment_size_mib = SEGMENT_SIZE_MIB;
            std::fs::write(nodes.config_path(id), config.to_toml()).context("cannot write a node's configuration")?;
            nodes.children.push(None);
            nodes.restart(id)?;
        }
        Ok(nodes)
    }

    fn config_path(&self, node: u8) -> PathBuf {
        self.data.join(format!("node-{node}.toml"))
    }

    fn log_path(&self, node: u8) -> PathBuf {
        self.data.join(format!("node-{node}.log"))
    }

    /// Starts a node that does not run.
    pub(super) fn restart(&mut self, node: u8) -> Result<()> {
        let log = File::options().create(true).append(true).open(self.log_path(node))?;
        let mut command = Command::new(&self.program);
        command.arg("node").arg("--config").arg(self.config_path(node)).stdin(Stdio::null());
        let child = command.stdout(log.try_clone()?).stderr(log).spawn().context("cannot start a node")?;
        self.children[usize::from(node)] = Some(child);
        Ok(())
    }

    /// SIGKILL: no warning, no farewell.
    pub(super) fn kill(&mut self, node: u8) -> Result<()> {
        if let Some(mut child) = self.children[usize::from(node)].take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// Fails if a node has ended that should run.
    pub(super) fn check_alive(&mut self, except: Option<u8>) -> Result<()> {
        for (id, child) in (0_u8..).zip(&mut self.children) {
            let ended = child.as_mut().map(Child::try_wait).transpose()?.flatten();
            if let Some(status) = ended.filter(|_| except != Some(id)) {
                let log = std::fs::read_to_string(self.data.join(format!("node-{id}.log"))).unwrap_or_default();
                let end: Vec<&str> = log.lines().rev().take(8).collect();
                let end: Vec<&str> = end.into_iter().rev().collect();
                bail!("node {id} ended with {status}; the end of its log:\n{}", end.join("\n"));
            }
        }
        Ok(())
    }

    /// Where a shard is found on every node.
    pub(super) fn addresses(&self, shard: u16) -> Vec<String> {
        (0..NODES).map(|node| self.address(node, shard).to_owned()).collect()
    }

    fn address(&self, node: u8, shard: u16) -> &str {
        &self.addresses[usize::from(u16::from(node) * self.shards + shard)]
    }

    fn status(&self, node: u8, shard: u16) -> Option<Value> {
        serde_json::from_str(&admin::status(self.address(node, shard), ASK).ok()?).ok()
    }

    /// The node that leads a shard.
    pub(super) fn leader_of(&self, shard: u16) -> Option<u8> {
        (0..NODES).find(|node| self.status(*node, shard).is_some_and(|status| status["role"] == "leader"))
    }

    /// Waits until every shard is led by the node that should lead it and every replica counts.
    pub(super) fn wait_until_settled(&mut self, patience: Duration) -> Result<()> {
        let end = Instant::now() + patience;
        for shard in 0..self.shards {
            let preferred = u8::try_from(shard % u16::from(NODES)).expect("below the number of nodes");
            loop {
                self.check_alive(None)?;
                let states: Vec<Value> = (0..NODES).filter_map(|node| self.status(node, shard)).collect();
                let sound = states.len() == usize::from(NODES) && states.iter().all(|state| state["sound"] == true);
                if sound && states[usize::from(preferred)]["role"] == "leader" {
                    break;
                }
                if Instant::now() > end {
                    bail!(
                        "shard {shard} has not settled within {patience:?}; the nodes' logs are in {}",
                        self.data.display()
                    );
                }
                std::thread::sleep(LOOK);
            }
        }
        Ok(())
    }

    /// Has every replica compute its digest at one position per shard.
    pub(super) fn agree(&mut self, patience: Duration) -> Result<Vec<ShardDigests>> {
        let end = Instant::now() + patience;
        let mut all = Vec::new();
        for shard in 0..self.shards {
            let mut position = None;
            loop {
                self.check_alive(None)?;
                if position.is_none()
                    && let Some(leader) = self.leader_of(shard)
                {
                    position = admin::digest(self.address(leader, shard), ASK)
                        .ok()
                        .filter(|answer| answer.code == 0)
                        .map(|answer| answer.position.0);
                }
                let found = position.and_then(|position| self.digests_at(shard, position));
                if let (Some(position), Some(digests)) = (position, found) {
                    all.push(ShardDigests { shard, position, digests });
                    break;
                }
                if Instant::now() > end {
                    bail!("the replicas of shard {shard} have not come to the same position within {patience:?}");
                }
                std::thread::sleep(LOOK);
            }
        }
        Ok(all)
    }

    fn digests_at(&self, shard: u16, position: u64) -> Option<Vec<String>> {
        let digest = |node| {
            let status = self.status(node, shard)?;
            let digest = status.get("digest").filter(|digest| digest["position"] == position)?;
            Some(digest["digest"].as_str()?.to_owned())
        };
        (0..NODES).map(digest).collect()
    }

    /// Stops all nodes cleanly.
    pub(super) fn stop(&mut self) {
        for child in self.children.iter().flatten() {
            if let Ok(pid) = i32::try_from(child.id()) {
                let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
            }
        }
        let end = Instant::now() + Duration::from_secs(5);
        for child in self.children.iter_mut().flatten() {
            while Instant::now() < end && matches!(child.try_wait(), Ok(None)) {
                std::thread::sleep(LOOK);
            }
        }
    }
}

impl Drop for Nodes {
    fn drop(&mut self) {
        for child in self.children.iter_mut().flatten() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
