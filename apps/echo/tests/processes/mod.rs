//! Nodes as processes of their own, ended by their ids when dropped.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use evershard::client::admin;
use evershard::free_addresses;
use evershard::node::{DurabilityConfig, NodeAddress, NodeConfig};
use serde_json::Value;

/// Nothing that is waited for takes longer.
pub const WAIT_MAX: Duration = Duration::from_secs(30);
/// Nodes that may join; they are configured and do not run.
const JOINERS_MAX: u8 = 2;
const QUESTION_MAX: Duration = Duration::from_millis(500);

/// A cluster of processes in a temporary directory.
pub struct Processes {
    children: Vec<Option<Child>>,
    addresses: Vec<String>,
    directory: tempfile::TempDir,
}

impl Processes {
    /// Starts nodes with one shard.
    pub fn start(nodes: u8, durability: DurabilityConfig) -> Self {
        Self::with_shards(nodes, 1, durability)
    }

    pub fn with_shards(nodes: u8, shards: u16, durability: DurabilityConfig) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let all = nodes + JOINERS_MAX;
        let shards_of_all = free_addresses(u16::from(all) * shards).expect("free addresses");
        let addresses: Vec<String> = shards_of_all.into_iter().step_by(usize::from(shards)).collect();
        let known: Vec<NodeAddress> =
            (0..all).zip(addresses.clone()).map(|(id, address)| NodeAddress { id, address }).collect();
        let mut cluster = Self { children: Vec::new(), addresses, directory };
        let founders = known[..usize::from(nodes)].to_vec();
        for id in 0..all {
            let (data, joins) = (cluster.data(usize::from(id)), id >= nodes);
            let mut named = founders.clone();
            named.extend(known.get(usize::from(id)).filter(|_| joins).cloned());
            let mut config = NodeConfig::new("chaos", id, data, shards, named);
            config.durability = durability;
            config.segment_size_mib = 8;
            config.join = joins;
            std::fs::write(cluster.config(usize::from(id)), config.to_toml()).expect("the directory is ours");
            cluster.children.push(None);
            if !joins {
                cluster.run(usize::from(id));
            }
        }
        cluster
    }

    /// Starts a node that does not run.
    pub fn run(&mut self, node: usize) {
        assert!(self.children[node].is_none(), "node {node} runs already");
        self.children[node] = Some(self.command(node).spawn().expect("echo was built"));
    }

    /// SIGKILL.
    pub fn kill(&mut self, node: usize) {
        let mut child = self.children[node].take().expect("the node runs");
        child.kill().expect("it is our child");
        child.wait().expect("it is our child");
    }

    /// Starts one more process of a node, which must give up; what it says.
    pub fn refusal(&self, node: usize) -> String {
        let mut child = self.command(node).stderr(Stdio::piped()).spawn().expect("echo was built");
        let until = Instant::now() + WAIT_MAX;
        while child.try_wait().expect("it is our child").is_none() {
            if Instant::now() > until {
                child.kill().expect("it is our child");
                child.wait().expect("it is our child");
                panic!("node {node} started although it must not");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let output = child.wait_with_output().expect("it has ended");
        assert!(!output.status.success(), "a refusal is a failure");
        String::from_utf8(output.stderr).expect("messages are text")
    }

    pub fn is_running(&mut self, node: usize) -> bool {
        self.children[node].as_mut().is_some_and(|child| child.try_wait().is_ok_and(|status| status.is_none()))
    }

    /// What the node says of its shard 0, if it answers.
    pub fn status(&self, node: usize) -> Option<Value> {
        self.children[node].as_ref()?;
        let text = admin::status(&self.addresses[node], QUESTION_MAX).ok()?;
        Some(serde_json::from_str(&text).expect("status is JSON"))
    }

    /// The node that leads shard 0.
    pub fn wait_for_leader(&self) -> u8 {
        let mut leader = None;
        wait_for("a leader", || {
            leader = (0..self.children.len())
                .find(|node| self.status(*node).is_some_and(|status| status["role"] == "leader"));
            leader.is_some()
        });
        u8::try_from(leader.expect("waited for")).expect("few nodes")
    }

    /// All replicas that run come to the same state.
    pub fn check_digests(&self) {
        let mut position = 0;
        wait_for("a digest record", || {
            let leader = usize::from(self.wait_for_leader());
            let answer = admin::digest(&self.addresses[leader], QUESTION_MAX);
            answer.is_ok_and(|answer| {
                position = answer.position.0;
                answer.code == 0
            })
        });
        let mut digests = Vec::new();
        wait_for("the digest of every replica", || {
            let status = (0..self.children.len()).filter_map(|node| self.status(node));
            digests = status.map(|status| status["digest"].clone()).collect();
            let running = self.children.iter().flatten().count();
            digests.len() == running && digests.iter().all(|digest| digest["position"].as_u64() >= Some(position))
        });
        assert!(digests.windows(2).all(|pair| pair[0] == pair[1]), "replicas differ: {digests:?}");
    }

    /// Addresses of shard 0.
    pub fn addresses(&self) -> &[String] {
        &self.addresses
    }

    pub fn data(&self, node: usize) -> PathBuf {
        self.directory.path().join(format!("node-{node}"))
    }

    pub fn edit_config(&self, node: usize, edit: impl FnOnce(&str) -> String) {
        let path = self.config(node);
        let text = std::fs::read_to_string(&path).expect("written by us");
        std::fs::write(path, edit(&text)).expect("written by us");
    }

    fn config(&self, node: usize) -> PathBuf {
        self.directory.path().join(format!("node-{node}.toml"))
    }

    fn command(&self, node: usize) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_echo"));
        command.arg("node").arg("--config").arg(self.config(node)).env("EVERSHARD_LOG", "warn");
        command
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        for node in 0..self.children.len() {
            if self.children[node].is_some() {
                self.kill(node);
            }
        }
    }
}

/// Polls until `done`.
pub fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let until = Instant::now() + WAIT_MAX;
    while !done() {
        assert!(Instant::now() < until, "waited {WAIT_MAX:?} in vain for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// xorshift64: the same draws from the same seed.
#[derive(Clone)]
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 16).expect("64 bits") % bound
    }

    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.below(256).to_le_bytes()[0]).collect()
    }
}
