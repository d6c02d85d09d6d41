//! A simulated node: its disks and its clocks, which outlive its process, and its process, if it runs.

use std::collections::BTreeMap;
use std::sync::Arc;

use evershard_consensus::Standing;
use evershard_node::core::{Core, CoreParts, Identity, ShardConfig};
use evershard_node::env::LinkId;
use evershard_node::shard::Shard;
use evershard_node::start::{StartError, Started, start};
use evershard_protocol::{ClusterId, NodeId, NodeSet, Position, ShardId};

use crate::client::address;
use crate::clock::{Clock, Time};
use crate::disk::SimDisk;
use crate::env::SimEnv;
use crate::plan::Options;
use crate::service::{KeyValue, Probe};

/// One shard of a running process.
pub struct Running {
    /// The production shard.
    pub shard: Shard<KeyValue, SimEnv>,
    /// What its service saw.
    pub probe: Probe,
    /// When its next turn is due.
    pub wake: Option<Time>,
    /// It is at work until then.
    pub busy_until: Time,
    /// Its connections: number and side.
    pub links: BTreeMap<(u32, u32), (usize, usize)>,
    /// It has stopped.
    pub stopped: bool,
    /// What was last said about its role.
    pub told: (u64, u8),
    /// Garbage was put before it.
    pub misled: bool,
}

impl Running {
    /// The connection behind a link.
    #[must_use]
    pub fn connection(&self, link: LinkId) -> Option<(usize, usize)> {
        self.links.get(&(link.index, link.generation)).copied()
    }

    /// The state.
    #[must_use]
    pub fn core(&self) -> &Core<KeyValue> {
        self.shard.core()
    }
}

/// A running process.
pub struct Process {
    /// Its shards.
    pub shards: Vec<Running>,
    /// It was asked to stop, and stays down so long.
    pub stopping: Option<u64>,
    /// SIGSTOP, until then.
    pub paused_until: Time,
}

/// One node.
pub struct Node {
    /// Its clocks.
    pub clock: Clock,
    /// Its disks, one per shard.
    pub disks: Vec<SimDisk>,
    /// Harm was done to these disks since they were last whole.
    pub damaged: Vec<bool>,
    /// Harm was done to these disks at some time.
    pub ever_damaged: Vec<bool>,
    /// A slot was damaged in this life.
    pub slot_damaged: Vec<bool>,
    /// What its operator has written in its file.
    pub file: NodeFile,
    /// It is lost for good: nobody starts it any more when all trouble is over.
    pub lost: bool,
    /// Counts its processes.
    pub life: u64,
    /// Its process.
    pub process: Option<Process>,
}

/// What a node's operator has written in its file, as far as nodes differ.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct NodeFile {
    /// `join = true`.
    pub joins: bool,
    /// The name of a cluster that was made after a quorum was lost, and its first node; the first cluster otherwise.
    pub recovered: Option<(ClusterId, NodeId)>,
}

impl NodeFile {
    /// The cluster it names.
    #[must_use]
    pub fn cluster(&self) -> ClusterId {
        self.recovered.map_or_else(|| ClusterId::of_name("simulated"), |(cluster, _)| cluster)
    }

    /// Whose a disk is to be.
    #[must_use]
    pub fn marks(&self, node: usize, shard: usize) -> evershard_log::Identity {
        evershard_log::Identity { cluster: self.cluster(), shard: shard_id(shard), node: node_id(node) }
    }

    /// The nodes that a node's file names.
    fn named(&self, node: usize, nodes: usize) -> NodeSet {
        match self.recovered {
            Some((_, founder)) => NodeSet::of(founder).union(NodeSet::of(node_id(node))),
            None => (0..nodes).map(node_id).collect(),
        }
    }

    /// The voters of a shard whose log says nothing about them yet.
    fn members(&self, node: usize, voters: usize) -> Vec<NodeId> {
        match self.recovered {
            _ if self.joins => Vec::new(),
            Some((_, founder)) => vec![founder],
            None if node >= voters => Vec::new(),
            None => (0..voters).map(node_id).collect(),
        }
    }
}

impl Node {
    /// Whether it takes anything in.
    #[must_use]
    pub fn is_awake(&self, now: Time) -> bool {
        self.process.as_ref().is_some_and(|process| process.paused_until <= now)
    }

    /// Whether all its replicas count.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.process.as_ref().is_some_and(|process| {
            process.stopping.is_none()
                && process.shards.iter().all(|running| {
                    let core = running.core();
                    core.raft().standing() == Standing::Sound && core.disk().failed().is_none()
                })
        })
    }

    /// Whether all its replicas' words count.
    #[must_use]
    pub fn counts(&self) -> bool {
        self.process.as_ref().is_some_and(|process| {
            process.shards.iter().all(|running| running.core().raft().standing() == Standing::Sound)
        })
    }

    /// Whether all its replicas have on disk what was committed.
    #[must_use]
    pub fn has(&self, committed: &[Position]) -> bool {
        self.process.as_ref().is_some_and(|process| {
            process.shards.iter().zip(committed).all(|(running, committed)| {
                let core = running.core();
                core.disk().durable() >= *committed && core.disk().is_whole() && core.replica().halted.is_none()
            })
        })
    }

    /// The state of one shard, if the process runs.
    #[must_use]
    pub fn core(&self, shard: usize) -> Option<&Core<KeyValue>> {
        self.process.as_ref().map(|process| process.shards[shard].core())
    }

    /// One shard of the process.
    pub fn running(&mut self, shard: usize) -> Option<&mut Running> {
        self.process.as_mut().and_then(|process| process.shards.get_mut(shard))
    }
}

/// What a start came to, for the oracles.
pub type Outcome = Result<Started, StartError>;

/// Looks at one replica's disk, as a starting node does.
///
/// # Errors
/// If the replica refuses to start.
pub fn open(
    node: usize,
    shard: usize,
    file: NodeFile,
    options: &Options,
    clock: &Clock,
    disk: &mut SimDisk,
    now: Time,
) -> Outcome {
    start(&mut disk.mount(), &file.marks(node, shard), options.durability, clock.now(now).timestamp)
}

/// Makes a shard of what was found.
#[must_use]
pub fn make(
    node: usize,
    shard: usize,
    file: NodeFile,
    options: &Options,
    clock: &Clock,
    started: Started,
    now: Time,
) -> Running {
    let probe = Probe::default();
    let instance_probe = Probe::clone(&probe);
    let nodes = options.nodes;
    let salt = started.slot.incarnation.0 ^ (node as u64) << 32;
    let core = Core::new(CoreParts {
        identity: Identity {
            cluster: file.cluster(),
            node: node_id(node),
            shard: shard_id(shard),
            incarnation: started.slot.incarnation,
        },
        config: ShardConfig {
            durability: options.durability,
            session_timeout_ns: options.session_timeout_ns,
            prefer_leaders: options.prefer_leaders,
            snapshot_segments: options.snapshot_segments,
            hot_save_size_max: options.hot_save_size_max,
        },
        members: file.members(node, options.voters),
        configured: file.named(node, nodes),
        timing: options.timing,
        segment_size: options.segment_size,
        tail_size: options.tail_size,
        inflight_size_max: options.inflight_size_max,
        started,
        instances: Box::new(move || KeyValue::new(Probe::clone(&instance_probe), salt)),
        addresses: (0..nodes).map(|node| Some(Arc::from(address(node)))).collect(),
        shards: u16::try_from(options.shards).expect("few shards"),
        now: clock.now(now),
    });
    let core = core.expect("what verifies is what was saved");
    Running {
        shard: Shard::new(SimEnv::new(), core),
        probe,
        wake: None,
        busy_until: now,
        links: BTreeMap::new(),
        stopped: false,
        told: (0, 0),
        misled: false,
    }
}

/// The id of a node.
#[must_use]
pub fn node_id(node: usize) -> NodeId {
    NodeId(u8::try_from(node).expect("few nodes"))
}

/// The id of a shard.
#[must_use]
pub fn shard_id(shard: usize) -> ShardId {
    ShardId(u16::try_from(shard).expect("few shards"))
}
