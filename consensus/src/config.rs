//! What a replica is told at its start: who it is, which promise it keeps, how patient it is, what its disk remembers.

use evershard_protocol::limits::{NODE_ID_MAX, NODES_MAX, RECORD_SIZE_MAX};
use evershard_protocol::time::MILLISECOND_NS;
use evershard_protocol::{Membership, NodeId, Position, Term};

use crate::TermTable;

/// Which position of every replica the commit rule ranks.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Durability {
    /// What is on stable storage. A committed record survives the loss of power of every node at once.
    Durable,
    /// What is in memory. A committed record survives as long as a quorum does not fail uncleanly at once.
    Replicated,
}

/// What a replica is to its shard at the moment.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Role {
    /// Takes over the log of a leader, or waits for one to appear.
    Follower,
    /// Asks whether a candidature would have a chance; nothing is promised yet (Raft thesis §9.6).
    PreCandidate,
    /// Asks for votes in a term of its own.
    Candidate,
    /// Decides what the log of its term is.
    Leader,
}

/// Whether a replica's word counts.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Standing {
    /// It holds everything that it ever acknowledged.
    Sound,
    /// It may have lost records it once acknowledged. Its votes and acknowledgements count only where every
    /// member's word is in, until a leader has brought it up to what a quorum confirmed after its restart.
    Recovering,
}

/// How patient a replica is. The relations between the fields are asserted when a [`crate::Raft`] is made.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Timing {
    /// A leader lets no peer wait longer than this for a sign of life.
    pub heartbeat_ns: u64,
    /// The shortest silence of the leader after which a follower campaigns; also how long it stays loyal.
    pub election_min_ns: u64,
    /// The longest such silence. A leader that has not heard a quorum for so long steps down.
    pub election_max_ns: u64,
    /// A gap between two ticks above this means that the loop itself was not run.
    pub stall_ns: u64,
    /// For so long after an append a follower grants nobody a vote, whatever it hears, and tells its leader so: the leader
    /// may then serve reads without asking ([`crate::Raft::begin_read`]). The price: a dead leader is not replaced
    /// sooner. 0: no such promise, and a closed link to the leader is reason enough to vote for another. To switch
    /// it off on a running cluster, stop all members at once.
    pub lease_ns: u64,
}

impl Default for Timing {
    /// For nodes in one data centre: seven heartbeats may be lost before anyone campaigns.
    fn default() -> Self {
        Self {
            heartbeat_ns: 20 * MILLISECOND_NS,
            election_min_ns: 150 * MILLISECOND_NS,
            election_max_ns: 300 * MILLISECOND_NS,
            stall_ns: 75 * MILLISECOND_NS,
            lease_ns: 0,
        }
    }
}

/// Who a replica is and what it keeps to.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Config {
    /// This replica's node.
    pub id: NodeId,
    /// The voters of a shard whose log says nothing about them yet, each once. Empty for a replica that joins: it learns
    /// from the log to whom it belongs.
    pub members: Vec<NodeId>,
    /// Which position commit ranks; the same on every member.
    pub durability: Durability,
    /// Timers; best the same on every member.
    pub timing: Timing,
    /// Where the election timers come from; mixed with `id`, so all members may be given the same.
    pub seed: u64,
    /// Bytes sent to one peer and not yet acknowledged. Beyond, the peer is sent heartbeats only.
    pub inflight_size_max: u64,
}

impl Config {
    /// Panics on a configuration that no caller should have let through.
    pub(crate) fn check(&self) {
        assert!(self.members.len() <= NODES_MAX, "at most NODES_MAX members");
        assert!(self.id.0 <= NODE_ID_MAX, "ids are bounded");
        for (index, member) in self.members.iter().enumerate() {
            assert!(!self.members[..index].contains(member), "every member is named once");
        }
        let timing = &self.timing;
        assert!(timing.heartbeat_ns > 0, "a heartbeat takes time");
        assert!(timing.heartbeat_ns * 2 <= timing.election_min_ns, "one heartbeat may be lost without an election");
        assert!(timing.election_min_ns < timing.election_max_ns, "election timers need room to differ");
        assert!(timing.lease_ns <= timing.election_min_ns, "a leader that is gone is replaced after all");
        assert!(timing.stall_ns > 0, "two ticks are never at the same instant");
        assert!(self.inflight_size_max >= RECORD_SIZE_MAX as u64, "one record always fits in flight");
    }
}

/// What must be on stable storage before anyone relies on it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct HardState {
    /// The latest term this replica has seen.
    pub term: Term,
    /// Whom it voted for in that term.
    pub vote: Option<NodeId>,
    /// Whether its word counts.
    pub standing: Standing,
}

impl HardState {
    /// The state of a replica that has never taken part.
    pub const NEW: Self = Self { term: Term(0), vote: None, standing: Standing::Sound };
}

/// What the disk remembers of a replica's earlier life.
#[derive(Clone, Debug)]
pub struct Restored {
    /// As last saved; [`HardState::NEW`] for a new replica. The caller sets [`Standing::Recovering`] when the log may
    /// have lost records that were acknowledged.
    pub hard: HardState,
    /// The terms of the records in the log.
    pub terms: TermTable,
    /// The configurations in the log, by the position of their records, ascending.
    pub memberships: Vec<(Position, Membership)>,
    /// The durable prefix of the log; normally all of it.
    pub durable: Position,
    /// A position known to be committed.
    pub commit: Position,
}
