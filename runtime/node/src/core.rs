//! The state of one shard on this node, and where each event goes.
//!
//! Everything here is driven by [`crate::shard::Shard::turn`]; nothing below knows of kernel, threads or clocks. Each
//! subject has its file: [`crate::clients`], [`crate::peers`], [`crate::disk`], [`crate::apply`], [`crate::placement`].

use std::sync::Arc;

use evershard_consensus::{Config as RaftConfig, Durability, Output, Raft, Role as RaftRole, Timing};
use evershard_log::{Tail, Writer, WriterConfig};
use evershard_protocol::bugs::{self, Bug};
use evershard_protocol::frame::{Frame, FrameError};
use evershard_protocol::limits::SESSIONS_MAX;
use evershard_protocol::record::{Draft, Kind};
use evershard_protocol::{ClusterId, Incarnation, NodeId, NodeSet, Position, SessionId, ShardId, Term, Timestamp};
use evershard_service::Service;

use crate::apply::Replay;
use crate::clients::PendingOpens;
use crate::disk::{Disk, WRITES_IN_FLIGHT_MAX};
use crate::env::{Env, Event, LinkId, Now};
use crate::links::{LinkTable, Role};
use crate::notice::Notice;
use crate::peers::PeerTable;
use crate::placement::Placement;
use crate::queries::Queries;
use crate::repair::Repair;
use crate::replica::Replica;
use crate::snapshot::RestoreError;
use crate::snapshots::Snapshots;
use crate::start::Started;
use crate::timers::Timer;

/// Notices of one turn at most; more are dropped.
const NOTICES_PER_TURN_MAX: usize = 32;

/// Who this replica is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Identity {
    /// The cluster.
    pub cluster: ClusterId,
    /// This node.
    pub node: NodeId,
    /// The shard.
    pub shard: ShardId,
    /// This life of the replica.
    pub incarnation: Incarnation,
}

/// How a shard behaves.
#[derive(Clone, Copy, Debug)]
pub struct ShardConfig {
    /// What an acknowledgement is worth.
    pub durability: Durability,
    /// A session without a client is closed after this long, in nanoseconds.
    pub session_timeout_ns: u64,
    /// When all is well shard i is led by voter i mod n.
    pub prefer_leaders: bool,
    /// A snapshot is taken when so many segments were begun since the last one; 0: only when an operator asks.
    pub snapshot_segments: u64,
    /// A state of so many bytes at most is saved by the hot instance itself: that takes less than to build a shadow, and
    /// hardly longer than a turn.
    pub hot_save_size_max: usize,
}

/// Counters and flags that an operator sees.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counters {
    /// Commands put into the log by this replica as leader.
    pub commands_sequenced: u64,
    /// Records applied.
    pub records_applied: u64,
    /// Connections closed because what they sent made no sense.
    pub connections_malformed: u64,
    /// Clients told to come again.
    pub busy_told: u64,
    /// Commands too large.
    pub commands_too_large: u64,
    /// Clients cut off for not reading.
    pub clients_slow: u64,
    /// Blocks of the log that did not read back and were repaired from another replica.
    pub blocks_repaired: u64,
    /// Bytes from another replica that were not what was in a block.
    pub repairs_refused: u64,
}

/// What a leader keeps for the time of its term.
#[derive(Clone, Copy, Debug)]
pub struct Leading {
    /// The term.
    pub term: Term,
    /// The TermStart record is applied: all that earlier leaders committed is in the replica, clients may come.
    pub ready: bool,
    /// The last timer whose record was appended.
    pub fired: Option<Timer>,
    /// When sessions are next looked through for idle ones.
    pub next_scan: evershard_protocol::Instant,
}

/// The state of one shard on this node.
pub struct Core<S: Service> {
    pub(crate) identity: Identity,
    pub(crate) config: ShardConfig,
    /// The nodes that this node's configuration names.
    pub(crate) configured: NodeSet,
    pub(crate) now: Now,
    pub(crate) raft: Raft,
    pub(crate) output: Output,
    pub(crate) tail: Tail,
    pub(crate) disk: Disk,
    pub(crate) links: LinkTable,
    pub(crate) peers: PeerTable,
    pub(crate) replica: Replica<S>,
    pub(crate) replay: Replay,
    pub(crate) repair: Repair,
    pub(crate) snapshots: Snapshots,
    /// Makes a fresh instance of the service, for the state of another replica's snapshot.
    pub(crate) instances: Box<dyn Fn() -> S>,
    pub(crate) leading: Option<Leading>,
    pub(crate) opens: PendingOpens,
    pub(crate) queries: Queries,
    /// Sessions with replies to deliver.
    pub(crate) touched: Vec<SessionId>,
    pub(crate) placement: Placement,
    pub(crate) counters: Counters,
    pub(crate) notices: Vec<Notice>,
    /// Timestamp of the newest record in the log.
    pub(crate) log_time: Timestamp,
    /// What was last told about role, term and leader.
    pub(crate) told: (RaftRole, Term, Option<NodeId>),
    pub(crate) stopping: bool,
    /// Where clients of this shard find each node, by node id: `host:port`.
    pub(crate) addresses: Vec<Option<Arc<str>>>,
    /// Shards of every node.
    pub(crate) shards: u16,
}

/// What a shard's state is made of at its start.
pub struct CoreParts<S> {
    /// Who this replica is; the incarnation is what [`crate::start::start`] chose.
    pub identity: Identity,
    /// How the shard behaves.
    pub config: ShardConfig,
    /// The voters of a shard whose log says nothing about them yet; empty for a replica that joins.
    pub members: Vec<NodeId>,
    /// The nodes that this node's configuration names, itself included.
    pub configured: NodeSet,
    /// How patient consensus is.
    pub timing: Timing,
    /// Bytes of one log file.
    pub segment_size: u64,
    /// Bytes of log kept in memory.
    pub tail_size: usize,
    /// Bytes a leader sends a follower ahead of its acknowledgement.
    pub inflight_size_max: u64,
    /// What the files say.
    pub started: Started,
    /// Makes an instance of the service before its first record.
    pub instances: Box<dyn Fn() -> S>,
    /// Where clients of this shard find each node, by node id: `host:port`.
    pub addresses: Vec<Option<Arc<str>>>,
    /// Shards of every node.
    pub shards: u16,
    /// The clocks at the start.
    pub now: Now,
}

impl<S: Service> Core<S> {
    /// The state that a shard starts its first turn with. What it needs in steady state is allocated here.
    ///
    /// # Errors
    /// [`RestoreError`] if the service does not read the snapshot that was found.
    pub fn new(parts: CoreParts<S>) -> Result<Self, RestoreError> {
        let CoreParts { identity, config, members, segment_size, started, .. } = parts;
        let Started { recovered, slot, restored, addresses, snapshot, snapshots, log_time, .. } = started;
        let service = (parts.instances)();
        let replica = match snapshot {
            Some(snapshot) => snapshot.restore(service)?,
            None => Replica::new(service),
        };
        let raft_config = RaftConfig {
            id: identity.node,
            members,
            durability: config.durability,
            timing: parts.timing,
            // The incarnation is the time of the start: two lives draw different time-outs, and consensus mixes in
            // the id.
            seed: identity.incarnation.0 ^ u64::from(identity.shard.0) << 48,
            inflight_size_max: parts.inflight_size_max,
        };
        let raft = Raft::new(raft_config, restored, parts.now.instant);
        let writer = Writer::new(WriterConfig { segment_size, writes_in_flight_max: WRITES_IN_FLIGHT_MAX }, &recovered);
        let mut core = Self {
            identity,
            config,
            configured: parts.configured,
            now: Now::default(),
            peers: PeerTable::new(identity.node, parts.configured),
            told: (raft.role(), raft.term(), raft.leader()),
            raft,
            output: Output::new(),
            tail: Tail::new(parts.tail_size, recovered.end),
            disk: Disk::new(writer, slot, segment_size),
            links: LinkTable::new(),
            replica,
            replay: Replay::default(),
            repair: Repair::default(),
            snapshots: Snapshots::new(snapshots, config.snapshot_segments),
            instances: parts.instances,
            leading: None,
            opens: PendingOpens::new(),
            queries: Queries::default(),
            touched: Vec::with_capacity(SESSIONS_MAX),
            placement: Placement::default(),
            counters: Counters::default(),
            notices: Vec::with_capacity(NOTICES_PER_TURN_MAX),
            log_time,
            stopping: false,
            addresses: parts.addresses,
            shards: parts.shards,
        };
        for (node, address) in addresses {
            core.learn_address(node, &address);
        }
        core.forgive_holes_before(core.replica.applied);
        core.renew_peers();
        Ok(core)
    }

    /// Consensus, as it stands.
    #[must_use]
    pub fn raft(&self) -> &Raft {
        &self.raft
    }

    /// The replicated state, as it stands.
    #[must_use]
    pub fn replica(&self) -> &Replica<S> {
        &self.replica
    }

    /// The end of the log in memory.
    #[must_use]
    pub fn tail(&self) -> &Tail {
        &self.tail
    }

    /// The snapshots on disk.
    #[must_use]
    pub fn snapshots(&self) -> &Snapshots {
        &self.snapshots
    }

    /// The log on disk.
    #[must_use]
    pub fn disk(&self) -> &Disk {
        &self.disk
    }

    /// What an operator sees.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Sends one event where it belongs.
    pub(crate) fn on_event(&mut self, event: Event<'_>) {
        match event {
            Event::Received { link, bytes } => self.on_received(link, bytes),
            Event::Sent { link, buffer } => self.on_sent(link, buffer),
            Event::BlockWritten { sequence, buffer, outcome } => self.on_block_written(sequence, buffer, outcome),
            Event::SlotWritten { buffer, outcome } => self.on_slot_written(buffer, outcome),
            Event::Accepted { link } => self.links.insert(link, Role::Unknown),
            Event::Connected { link } => self.on_connected(link),
            Event::Closed { link } => self.on_closed(link),
            Event::SegmentPrepared { header } => self.on_segment_prepared(header),
            Event::SegmentFailed { errno } => self.on_segment_failed(errno),
            Event::BlockRepaired { segment, offset, outcome } => self.on_block_repaired(segment, offset, outcome),
            Event::Read { request, chunk } => self.on_read(&request, chunk),
            Event::SnapshotTaken { position, outcome } => self.on_snapshot_taken(position, outcome),
            Event::SnapshotKept { snapshot, outcome } => self.on_snapshot_kept(&snapshot, outcome),
            Event::SnapshotRead { position, offset, outcome } => self.on_snapshot_read(position, offset, outcome),
            Event::LogDropped { outcome } => self.on_log_dropped(outcome),
        }
    }

    fn on_received(&mut self, id: LinkId, bytes: &[u8]) {
        let Some(mut assembly) = self.links.assemble(id) else { return };
        let outcome = assembly.run(bytes, |frame| self.on_frame(id, frame));
        if outcome.is_err() {
            self.counters.connections_malformed += 1;
            self.refuse_malformed(id);
        } else {
            self.links.put_back(id, assembly);
        }
    }

    fn on_frame(&mut self, id: LinkId, frame: &Frame<'_>) -> Result<(), FrameError> {
        let Some(link) = self.links.get(id) else { return Ok(()) };
        if link.is_closing() {
            return Ok(());
        }
        match frame.schema {
            1 => self.on_client_frame(id, frame),
            2 => self.on_peer_frame(id, frame),
            schema => Err(FrameError::Unexpected { schema, template: frame.template }),
        }
    }

    fn on_sent(&mut self, id: LinkId, buffer: Vec<u8>) {
        self.links.on_sent(id, buffer);
        if let Some(Role::Client(session)) = self.links.get(id).map(|link| link.role) {
            self.touch(session);
        }
    }

    fn on_closed(&mut self, id: LinkId) {
        match self.links.remove(id) {
            Some(Role::Client(session)) => {
                if let Some(session) = self.replica.sessions.get(session)
                    && session.volatile.link == Some(id)
                {
                    session.volatile.link = None;
                    session.volatile.idle_since = self.now.instant;
                }
            }
            Some(Role::Peer(node)) => self.on_peer_closed(node, id),
            Some(Role::Unknown | Role::Waiting(_)) | None => {}
        }
    }

    /// Marks a session as having replies to deliver.
    pub(crate) fn touch(&mut self, session: SessionId) {
        if self.touched.last() != Some(&session) && self.touched.len() < self.touched.capacity() {
            self.touched.push(session);
        }
    }

    /// Below this position the tail's bytes are needed neither for applying nor for the disk.
    pub(crate) fn floor(&self) -> Position {
        self.replica.applied.min(self.disk.durable())
    }

    /// The floor for a record that must not be kept waiting for others to be applied: without room above the ordinary
    /// floor, what is on disk may go from memory, and is read back when it is to be applied. A new leader whose memory is
    /// full of what its predecessors did not commit could begin its term in no other way, nor its followers follow it.
    pub(crate) fn floor_for(&self, padded_size: usize) -> Position {
        let floor = self.floor();
        if self.tail.has_room(padded_size, floor) { floor } else { self.disk.durable().max(floor) }
    }

    /// Record time for a record appended now.
    pub(crate) fn stamp(&mut self) -> Timestamp {
        if bugs::is_on(Bug::TimeGoesBack) {
            return self.now.timestamp;
        }
        self.log_time = self.log_time.max(self.now.timestamp);
        self.log_time
    }

    /// Puts a record of the platform's own into the leader's log; `None` when there is no room just now.
    pub(crate) fn append_own(&mut self, kind: Kind, session: SessionId, payload: &[u8]) -> Option<Position> {
        let term = self.raft.term();
        let draft = Draft { session, ..Draft::plain(kind, term, self.stamp(), payload) };
        let floor = self.floor_for(draft.padded_size());
        self.tail.append(&draft, floor).ok()
    }

    /// Whether this replica leads and may take commands.
    pub(crate) fn takes_commands(&self) -> bool {
        self.leading.is_some_and(|leading| leading.ready) && self.raft.admits() && !self.stopping
    }

    /// Tells the outside what has been noticed.
    pub(crate) fn tell(&mut self, env: &mut impl Env) {
        for notice in self.notices.drain(..) {
            env.notify(notice);
        }
    }

    /// Keeps a notice for the end of the turn; beyond the capacity it is dropped.
    pub(crate) fn notice(&mut self, notice: Notice) {
        if self.notices.len() < self.notices.capacity() {
            self.notices.push(notice);
        }
    }
}
