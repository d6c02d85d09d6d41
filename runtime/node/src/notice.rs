//! What a shard tells people. Fixed-size values on the shard's core; turned into text by another thread.

use std::fmt;

use evershard_consensus::Role;
use evershard_protocol::{ClusterId, Membership, NodeId, Position, ShardId, Term};

/// Something worth a line in the log of the process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Notice {
    /// The role or term of this replica changed.
    Role(Role, Term, Option<NodeId>),
    /// A peer's link is up.
    PeerUp(NodeId),
    /// A peer's link is down.
    PeerDown(NodeId),
    /// A peer refused us, with its code.
    PeerRefused(NodeId, u16),
    /// Somebody was refused as a peer: what it said it was, and our code.
    Stranger(NodeId, u16),
    /// A write failed: this replica acknowledges nothing any more.
    DiskFailed(i32),
    /// A segment could not be prepared; tried again every second.
    SegmentFailed(i32),
    /// Segments can be prepared again.
    SegmentsAgain,
    /// Log content could not be read back.
    ReadFailed(i32),
    /// Log content does not verify.
    Faulty(Position),
    /// The service panicked, or a record's kind is not known: nothing is applied any more.
    Halted(Position, HaltReason),
    /// Another configuration is in force from this position on.
    Membership(Position, Membership),
    /// A block of the log does not read back and is asked for: its positions.
    Repairing(Position, Position),
    /// It was written again in its place.
    Repaired(Position, Position),
    /// The disk refuses to take it; tried again.
    RepairFailed(i32),
    /// A snapshot was taken: where it stands, and its size.
    SnapshotTaken(Position, u64),
    /// A snapshot could not be taken or kept: the error's number, 0 if it was not the disk.
    SnapshotFailed(Position, i32),
    /// A snapshot is being sent to a peer that lacks what the log no longer has.
    SnapshotSent(NodeId, Position),
    /// A snapshot that came from the leader cannot be used here.
    SnapshotRefused(Position),
    /// The state of another replica's snapshot was taken over; the log begins anew there.
    SnapshotInstalled(Position),
    /// Segments or snapshots that are not needed any more could not be deleted.
    DropFailed(i32),
    /// Leadership is being handed to another node.
    Transfer(NodeId),
    /// A peer remembers more of this replica than its disk has: what it heard, term and durable position.
    PutBack(NodeId, Term, Position),
    /// This replica's acknowledgements count again.
    Sound,
    /// An operator's audit record was applied: where it ends, the lost cluster, who survived, how much was kept.
    RecoveredByOperator(Position, ClusterId, NodeId, Position),
}

/// Why nothing is applied any more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HaltReason {
    /// The service panicked on this record, as it will on every replica.
    Panic,
    /// The record's kind is unknown to this release: upgrade the node.
    UnknownKind(u16),
    /// The records to be applied do not verify on disk.
    Faulty,
}

impl fmt::Display for HaltReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Panic => f.write_str(
                "the service panicked on this record, as it does on every replica; deploy a corrected version",
            ),
            Self::UnknownKind(kind) => write!(f, "record kind {kind} is unknown to this release; upgrade this node"),
            Self::Faulty => f.write_str("the log does not verify here; this replica needs repair from a peer"),
        }
    }
}

impl Notice {
    /// Writes it to the process's log.
    pub fn log(self, node: NodeId, shard: ShardId) {
        let (node, shard) = (node.0, shard.0);
        match self {
            Self::Role(role, term, leader) => {
                tracing::info!(node, shard, term = term.0, leader = leader.map(|id| id.0), "role is now {role:?}");
            }
            Self::PeerUp(peer) => tracing::info!(node, shard, peer = peer.0, "peer connected"),
            Self::PeerDown(peer) => tracing::info!(node, shard, peer = peer.0, "peer disconnected"),
            Self::PeerRefused(peer, code) => tracing::warn!(
                node,
                shard,
                peer = peer.0,
                code,
                "the peer refused this node: cluster name, node ids, shards or release do not match; compare both configurations"
            ),
            Self::Stranger(peer, code) => tracing::warn!(
                node,
                shard,
                stranger = peer.0,
                code,
                "refused a connection that is no peer of this shard: wrong cluster, shard, node id or release"
            ),
            Self::DiskFailed(errno) => tracing::error!(
                node, shard, error = %std::io::Error::from_raw_os_error(errno),
                "a log write failed; this replica acknowledges nothing any more and lets others lead. Check the disk, then restart the node"
            ),
            Self::SegmentFailed(errno) => tracing::error!(
                node, shard, error = %std::io::Error::from_raw_os_error(errno),
                "cannot prepare a log segment; commands wait until there is space. Free space on the data disk: it is tried again every second"
            ),
            Self::SegmentsAgain => tracing::info!(node, shard, "log segments can be prepared again"),
            Self::ReadFailed(errno) => tracing::error!(
                node, shard, error = %std::io::Error::from_raw_os_error(errno), "reading the log back failed; it is tried again"
            ),
            Self::Faulty(position) => {
                tracing::error!(node, shard, position = position.0, "the log does not verify on disk at this position")
            }
            Self::Halted(position, reason) => {
                tracing::error!(node, shard, position = position.0, "nothing is applied from here on: {reason}")
            }
            Self::Membership(position, membership) => {
                tracing::info!(node, shard, position = position.0, "the configuration is now {membership}");
            }
            Self::Repairing(first, end) => tracing::warn!(
                node,
                shard,
                first = first.0,
                end = end.0,
                "a block of the log does not read back; it is asked for from the other replicas. The disk may be failing: look at it"
            ),
            Self::Repaired(first, end) => tracing::info!(
                node,
                shard,
                first = first.0,
                end = end.0,
                "a block of the log was repaired from another replica"
            ),
            Self::RepairFailed(errno) => tracing::error!(
                node, shard, error = %std::io::Error::from_raw_os_error(errno),
                "a repaired block could not be written; it is tried again. Check the disk"
            ),
            Self::SnapshotTaken(position, size) => {
                tracing::info!(node, shard, position = position.0, size, "a snapshot was taken");
            }
            Self::SnapshotFailed(position, 0) => {
                tracing::error!(node, shard, position = position.0, "no snapshot was taken; it is tried again");
            }
            Self::SnapshotFailed(position, errno) => tracing::error!(
                node, shard, position = position.0, error = %std::io::Error::from_raw_os_error(errno),
                "a snapshot could not be written; it is tried again. Check the space on the data disk"
            ),
            Self::SnapshotSent(to, position) => tracing::info!(
                node,
                shard,
                to = to.0,
                position = position.0,
                "a replica lacks what the log no longer has: it is sent a snapshot"
            ),
            Self::SnapshotRefused(position) => tracing::error!(
                node,
                shard,
                position = position.0,
                "the leader's snapshot cannot be used here: too large, damaged on the way, or of a service or version that                  this node does not run. Compare the releases of the nodes"
            ),
            Self::SnapshotInstalled(position) => {
                tracing::info!(node, shard, position = position.0, "the state of the leader's snapshot was taken over")
            }
            Self::DropFailed(errno) => tracing::error!(
                node, shard, error = %std::io::Error::from_raw_os_error(errno),
                "log files that are not needed any more could not be deleted; it is tried again with the next snapshot"
            ),
            Self::Transfer(to) => tracing::info!(node, shard, to = to.0, "handing leadership over"),
            Self::PutBack(peer, term, durable) => tracing::error!(
                node,
                shard,
                peer = peer.0,
                term = term.0,
                durable = durable.0,
                "the peer has heard more from this replica than its disk holds: the data directory was put back to an \
                 earlier state, from a backup perhaps. It does not count until a leader has brought it up to date"
            ),
            Self::Sound => tracing::info!(node, shard, "this replica's acknowledgements count again"),
            Self::RecoveredByOperator(position, old, survivor, kept) => tracing::warn!(
                node,
                shard,
                position = position.0,
                survivor = survivor.0,
                kept = kept.0,
                "this shard was recovered by an operator from what one node of cluster {:016x} held: what only others had \
                 is lost",
                old.0
            ),
        }
    }
}
