//! The TOML of a node. An unknown key is refused, with the nearest known one suggested.
//!
//! ```
//! let text = r#"
//! cluster = "orders"                 # all nodes of a cluster have the same name
//! node = 0                           # this node's id: one of [[nodes]]
//! data = "/var/lib/evershard"        # its data directory, its own
//! shards = 3                         # shard i listens on the node's port + i
//!
//! ## All below may be left out; these are the defaults.
//! durability = "durable"             # or "replicated": acknowledged when a quorum has it in memory
//! idle = "auto"                      # "spin", "backoff" (spin, then block), "park" (block); auto goes by the cores
//! prefer_leaders = true              # shard i prefers voter i mod n as its leader
//! join = false                       # true: joins an existing cluster, by `evershard member add` and `promote`
//! lease_ms = 0                       # followers stay loyal for so long, and reads need not ask them; see `Timing`
//! segment_size_mib = 64              # one file of the log
//! snapshot_segments = 8              # a snapshot after so many of them, and what is older is deleted; 0: never by itself
//! hot_save_kib = 128                 # a state up to this size is saved between two turns, a larger one in the background
//! tail_size_mib = 16                 # log kept in memory per shard
//! session_timeout_ms = 60000         # a session without a client is closed after this
//! heartbeat_ms = 20
//! election_timeout_min_ms = 150
//! election_timeout_max_ms = 300
//! ## cores = [2, 3, 4]                # the core of each shard; left out: chosen by the number of cores
//! ## background_core = 1              # the core of the background executor; left out: any
//!
//! [[nodes]]
//! id = 0
//! address = "127.0.0.1:7000"
//! "#;
//! let config = evershard_node::NodeConfig::parse(text, "node.toml").expect("as documented");
//! assert_eq!(config.segment_size_mib, 64);
//! ```

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};

use evershard_consensus::{Durability, Timing};
use evershard_protocol::NodeId;
use evershard_protocol::limits::{NODE_ID_MAX, NODES_MAX, SHARDS_MAX};
use evershard_protocol::time::MILLISECOND_NS;
use serde::{Deserialize, Serialize};

/// The configuration of one node.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeConfig {
    /// Name of the cluster; its identity follows from it.
    pub cluster: String,
    /// This node's id.
    pub node: u8,
    /// Its data directory.
    pub data: PathBuf,
    /// Number of shards; the same on every node.
    pub shards: u16,
    /// What an acknowledgement is worth.
    #[serde(default)]
    pub durability: DurabilityConfig,
    /// What a shard does when there is nothing to do.
    #[serde(default)]
    pub idle: IdleConfig,
    /// Shard i prefers voter i mod n as its leader.
    #[serde(default = "yes")]
    pub prefer_leaders: bool,
    /// This node joins a cluster that exists: it has no vote until an operator has added and promoted it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub join: bool,
    /// For so long after a word of its leader a follower votes for nobody else, ms; 0: it may at once.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub lease_ms: u64,
    /// Size of one log file, MiB.
    #[serde(default = "default_segment_size_mib")]
    pub segment_size_mib: u64,
    /// A snapshot is taken when so many log files were begun since the last one; 0: only when an operator asks. It bounds
    /// what a start reads and what the log takes on disk: two to three times as many files, nine times as many while others
    /// are brought up to date.
    #[serde(default = "default_snapshot_segments")]
    pub snapshot_segments: u64,
    /// A state that takes no more than this in a snapshot is saved by the service's own instance between two turns, KiB; a
    /// larger one by its shadow in the background. 0: always by the shadow.
    #[serde(default = "default_hot_save_kib")]
    pub hot_save_kib: u64,
    /// Log kept in memory per shard, MiB.
    #[serde(default = "default_tail_size_mib")]
    pub tail_size_mib: u64,
    /// A session without a client is closed after this, ms.
    #[serde(default = "default_session_timeout_ms")]
    pub session_timeout_ms: u64,
    /// A leader is heard of at least this often, ms.
    #[serde(default = "default_heartbeat_ms")]
    pub heartbeat_ms: u64,
    /// Election time-outs are drawn from this, ms ...
    #[serde(default = "default_election_timeout_min_ms")]
    pub election_timeout_min_ms: u64,
    /// ... up to this, ms.
    #[serde(default = "default_election_timeout_max_ms")]
    pub election_timeout_max_ms: u64,
    /// The core of each shard.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cores: Option<Vec<usize>>,
    /// The core of the background executor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub background_core: Option<usize>,
    /// All nodes of the cluster, this one too.
    pub nodes: Vec<NodeAddress>,
}

/// One node of the cluster.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeAddress {
    /// Its id.
    pub id: u8,
    /// `host:port` of its shard 0; shard i is at port + i.
    pub address: String,
}

/// See [`Durability`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DurabilityConfig {
    /// A quorum holds it on stable storage.
    #[default]
    Durable,
    /// A quorum holds it in memory.
    Replicated,
}

/// What a shard does when there is nothing to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IdleConfig {
    /// Spin where every shard has a core of its own, park otherwise.
    #[default]
    Auto,
    /// Never block.
    Spin,
    /// Spin for a while, then block.
    Backoff,
    /// Block.
    Park,
}

/// What [`IdleConfig`] came to on this host.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum IdleStrategy {
    /// Never block.
    Spin,
    /// Spin for a while, then block.
    Backoff,
    /// Block.
    Park,
}

fn yes() -> bool {
    true
}
fn is_zero(number: &u64) -> bool {
    *number == 0
}
fn default_segment_size_mib() -> u64 {
    64
}
fn default_snapshot_segments() -> u64 {
    8
}
fn default_hot_save_kib() -> u64 {
    128
}
fn default_tail_size_mib() -> u64 {
    16
}
fn default_session_timeout_ms() -> u64 {
    60_000
}
fn default_heartbeat_ms() -> u64 {
    20
}
fn default_election_timeout_min_ms() -> u64 {
    150
}
fn default_election_timeout_max_ms() -> u64 {
    300
}

/// The configuration cannot be used. The operator's to mend.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error(
        "cannot read {path}: {source}\n\nhint: the crate docs of evershard-node::config show a whole configuration"
    )]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is no TOML, or a key is missing, unknown or of the wrong kind.
    #[error("{path}: {message}{hint}")]
    Syntax {
        /// The file.
        path: String,
        /// What is wrong and where.
        message: String,
        /// What was probably meant.
        hint: String,
    },
    /// A value is out of range.
    #[error("{key}: {what}")]
    Value {
        /// The key.
        key: &'static str,
        /// What is wrong and what is expected.
        what: String,
    },
}

impl NodeConfig {
    /// Reads a configuration file.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text =
            std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        Self::parse(&text, &path.display().to_string())
    }

    /// Reads a configuration; `path` is for messages.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn parse(text: &str, path: &str) -> Result<Self, ConfigError> {
        let config: Self = toml::from_str(text).map_err(|error| ConfigError::Syntax {
            path: path.to_owned(),
            message: error.to_string().trim_end().to_owned(),
            hint: suggest(error.message()),
        })?;
        config.check()?;
        Ok(config)
    }

    /// The configuration as TOML.
    #[must_use]
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("plain values become TOML")
    }

    /// A configuration with all defaults.
    #[must_use]
    pub fn new(cluster: &str, node: u8, data: PathBuf, shards: u16, nodes: Vec<NodeAddress>) -> Self {
        Self {
            cluster: cluster.to_owned(),
            node,
            data,
            shards,
            durability: DurabilityConfig::default(),
            idle: IdleConfig::default(),
            prefer_leaders: true,
            join: false,
            lease_ms: 0,
            segment_size_mib: default_segment_size_mib(),
            snapshot_segments: default_snapshot_segments(),
            hot_save_kib: default_hot_save_kib(),
            tail_size_mib: default_tail_size_mib(),
            session_timeout_ms: default_session_timeout_ms(),
            heartbeat_ms: default_heartbeat_ms(),
            election_timeout_min_ms: default_election_timeout_min_ms(),
            election_timeout_max_ms: default_election_timeout_max_ms(),
            cores: None,
            background_core: None,
            nodes,
        }
    }

    /// Checks what the syntax cannot.
    ///
    /// # Errors
    /// [`ConfigError::Value`].
    pub fn check(&self) -> Result<(), ConfigError> {
        let value = |key, what: String| Err(ConfigError::Value { key, what });
        if self.nodes.is_empty() || self.nodes.len() > NODES_MAX {
            return value("nodes", format!("a cluster has 1 to {NODES_MAX} nodes, here are {}", self.nodes.len()));
        }
        if !self.nodes.iter().any(|node| node.id == self.node) {
            return value("node", format!("node {} is not among [[nodes]]: add it, or correct its id", self.node));
        }
        for (at, node) in self.nodes.iter().enumerate() {
            if self.nodes[..at].iter().any(|other| other.id == node.id) {
                return value("nodes", format!("two nodes have the id {}", node.id));
            }
            self.address(node, 0)?;
        }
        if self.shards == 0 || usize::from(self.shards) > SHARDS_MAX {
            return value("shards", format!("a node has 1 to {SHARDS_MAX} shards, here are {}", self.shards));
        }
        if !(1..=16 * 1024).contains(&self.segment_size_mib) {
            return value("segment_size_mib", format!("1 to 16384 MiB, here {}", self.segment_size_mib));
        }
        if self.hot_save_kib > 64 * 1024 {
            let what = "at most 65536: the service stands still while its state is saved";
            return value("hot_save_kib", what.to_owned());
        }
        if !(2..=4 * 1024).contains(&self.tail_size_mib) {
            return value("tail_size_mib", format!("2 to 4096 MiB, here {}", self.tail_size_mib));
        }
        if self.heartbeat_ms == 0 || self.election_timeout_min_ms < 3 * self.heartbeat_ms {
            let what = "at least three heartbeats: fewer make elections out of a single late message";
            return value("election_timeout_min_ms", what.to_owned());
        }
        if self.election_timeout_max_ms <= self.election_timeout_min_ms {
            let what = "more than election_timeout_min_ms: equal time-outs split the votes";
            return value("election_timeout_max_ms", what.to_owned());
        }
        if self.lease_ms > self.election_timeout_min_ms {
            let what = "at most election_timeout_min_ms: a leader that is gone must be replaced";
            return value("lease_ms", what.to_owned());
        }
        if let Some(node) = self.nodes.iter().find(|node| node.id > NODE_ID_MAX) {
            return value("nodes", format!("node ids go up to {NODE_ID_MAX}, here is {}", node.id));
        }
        match &self.cores {
            Some(cores) if cores.len() != usize::from(self.shards) => {
                value("cores", format!("one core for each of the {} shards, here are {}", self.shards, cores.len()))
            }
            _ => Ok(()),
        }
    }

    /// Where a shard of a node listens.
    ///
    /// # Errors
    /// [`ConfigError::Value`] if the address is none or its name is not known.
    pub fn address(&self, node: &NodeAddress, shard: u16) -> Result<SocketAddr, ConfigError> {
        let wrong = |what: String| ConfigError::Value { key: "nodes.address", what };
        let mut found = node.address.to_socket_addrs().map_err(|error| {
            wrong(format!("`{}` is not a host and port ({error}): write it like 10.0.0.1:7000", node.address))
        })?;
        let mut address = found.next().ok_or_else(|| wrong(format!("`{}` has no address", node.address)))?;
        let port = address.port().checked_add(shard).filter(|_| address.port() > 0);
        let port = port.ok_or_else(|| wrong(format!("`{}`: the shards' ports do not fit 1..65535", node.address)))?;
        address.set_port(port);
        Ok(address)
    }

    /// The same as text, as clients are told it.
    pub(crate) fn address_text(&self, node: &NodeAddress, shard: u16) -> String {
        match node.address.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse::<u16>().ok()?))) {
            Some((host, port)) => format!("{host}:{}", port.saturating_add(shard)),
            None => node.address.clone(),
        }
    }

    pub(crate) fn members(&self) -> Vec<NodeId> {
        let mut members: Vec<NodeId> = self.nodes.iter().map(|node| NodeId(node.id)).collect();
        members.sort_unstable();
        members
    }

    pub(crate) fn timing(&self) -> Timing {
        Timing {
            heartbeat_ns: self.heartbeat_ms * MILLISECOND_NS,
            election_min_ns: self.election_timeout_min_ms * MILLISECOND_NS,
            election_max_ns: self.election_timeout_max_ms * MILLISECOND_NS,
            lease_ns: self.lease_ms * MILLISECOND_NS,
            ..Timing::default()
        }
    }

    /// Nodes with the same host in their address as this one, itself included.
    fn nodes_on_this_host(&self) -> usize {
        let host = |node: &NodeAddress| node.address.rsplit_once(':').map(|(host, _)| host.to_owned());
        let own = self.nodes.iter().find(|node| node.id == self.node).and_then(host);
        self.nodes.iter().filter(|node| host(node) == own).count().max(1)
    }

    /// The core of a shard on a host with these cores, and what it does when there is nothing to do.
    #[must_use]
    pub fn placement(&self, shard: u16, allowed: &[usize]) -> (Option<usize>, IdleStrategy) {
        // Nodes that share this host share its cores.
        let roomy = allowed.len() > usize::from(self.shards) * self.nodes_on_this_host();
        let core = match &self.cores {
            Some(cores) => Some(cores[usize::from(shard)]),
            // The first core is left to the background and to everybody else.
            None if roomy => Some(allowed[usize::from(shard) + 1]),
            None => None,
        };
        let idle = match self.idle {
            IdleConfig::Spin => IdleStrategy::Spin,
            IdleConfig::Backoff => IdleStrategy::Backoff,
            IdleConfig::Park => IdleStrategy::Park,
            IdleConfig::Auto if roomy => IdleStrategy::Spin,
            IdleConfig::Auto => IdleStrategy::Park,
        };
        (core, idle)
    }
}

impl From<DurabilityConfig> for Durability {
    fn from(config: DurabilityConfig) -> Self {
        match config {
            DurabilityConfig::Durable => Self::Durable,
            DurabilityConfig::Replicated => Self::Replicated,
        }
    }
}

/// "did you mean": from serde's sentence about an unknown field or variant.
fn suggest(message: &str) -> String {
    let mut quoted = message.split('`').skip(1).step_by(2);
    let is_unknown = message.starts_with("unknown");
    let Some(unknown) = quoted.next().filter(|_| is_unknown) else { return String::new() };
    let nearest =
        quoted.max_by(|one, other| strsim::jaro_winkler(unknown, one).total_cmp(&strsim::jaro_winkler(unknown, other)));
    nearest.map_or_else(String::new, |nearest| format!("\n\nhint: did you mean `{nearest}`?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "cluster = 'c'\nnode = 0\ndata = 'd'\nshards = 1\n";
    const NODES: &str = "[[nodes]]\nid = 0\naddress = '127.0.0.1:7000'\n";

    fn error(extra: &str) -> String {
        NodeConfig::parse(&format!("{GOOD}{extra}\n{NODES}"), "n.toml").expect_err("must be refused").to_string()
    }

    #[test]
    fn a_misspelt_key_is_named_and_the_nearest_suggested() {
        let message = error("durabilty = 'durable'");
        assert!(message.contains("durabilty") && message.contains("did you mean `durability`?"), "{message}");
        let message = error("durability = 'durabel'");
        assert!(message.contains("did you mean `durable`?"), "{message}");
    }

    #[test]
    fn values_out_of_range_are_named() {
        for (extra, key) in [
            ("segment_size_mib = 0", "segment_size_mib"),
            ("cores = [1, 2]", "cores"),
            ("election_timeout_min_ms = 20", "election_timeout_min_ms"),
            ("election_timeout_max_ms = 150", "election_timeout_max_ms"),
        ] {
            let message = error(extra);
            assert!(message.contains(key), "{message}");
        }
        let message =
            NodeConfig::parse(&format!("{}{NODES}", GOOD.replace("node = 0", "node = 4")), "n").expect_err("4");
        assert!(message.to_string().contains("node 4 is not among"), "{message}");
    }

    #[test]
    fn what_is_written_is_read() {
        let nodes = vec![NodeAddress { id: 0, address: "127.0.0.1:7000".to_owned() }];
        let config = NodeConfig::new("c", 0, "d".into(), 2, nodes);
        let again = NodeConfig::parse(&config.to_toml(), "again").expect("our own");
        assert_eq!(again.to_toml(), config.to_toml());
    }

    #[test]
    fn shards_spin_only_on_cores_of_their_own() {
        let config = NodeConfig::parse(&format!("{GOOD}{NODES}"), "n").expect("good");
        assert_eq!(config.placement(0, &[0]), (None, IdleStrategy::Park));
        assert_eq!(config.placement(0, &[0, 1, 2]), (Some(1), IdleStrategy::Spin));
        let more = "[[nodes]]\nid = 1\naddress = '127.0.0.1:7100'\n[[nodes]]\nid = 2\naddress = '127.0.0.1:7200'\n";
        let config = NodeConfig::parse(&format!("{GOOD}{NODES}{more}"), "n").expect("good");
        assert_eq!(config.placement(0, &[0, 1, 2]), (None, IdleStrategy::Park), "three nodes share these cores");
    }
}
