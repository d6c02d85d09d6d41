//! What the core answers: messages for peers, what to do with an append, why leadership cannot be moved.

use evershard_protocol::limits::NODES_MAX;
use evershard_protocol::peer::PeerMessage;
use evershard_protocol::{NodeId, Position};

/// Messages for peers that must leave soon. The caller drains it every duty cycle.
///
/// Only elections and transfers speak through it: appends are pulled with [`crate::Raft::plan_append`], their answers
/// with [`crate::Raft::take_reply`].
#[derive(Debug)]
pub struct Output {
    /// To whom, and what: [`PeerMessage::Vote`], [`PeerMessage::VoteReply`] or [`PeerMessage::TimeoutNow`].
    pub messages: Vec<(NodeId, PeerMessage)>,
}

impl Output {
    /// Room for all that one duty cycle can sensibly say. What is said beyond it is lost like any message on a bad
    /// network, and elections survive that.
    #[must_use]
    pub fn new() -> Self {
        Self { messages: Vec::with_capacity(MESSAGES_LEN_MAX) }
    }

    pub(crate) fn push(&mut self, to: NodeId, message: PeerMessage) {
        if self.messages.len() < MESSAGES_LEN_MAX {
            self.messages.push((to, message));
        }
    }
}

impl Default for Output {
    fn default() -> Self {
        Self::new()
    }
}

/// What the caller does with an append's data.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Taken {
    /// Nothing: it is stale, does not match (an answer is owed), comes from a broken peer, or carries no data.
    No,
    /// Cut the log at `truncate_to` if given, then append the data from its byte `skip` on, then call
    /// [`crate::Raft::on_appended`] with the data's term. With `skip` equal to the size everything is already there.
    Data {
        /// Bytes at the front of the data that the log already has.
        skip: u64,
        /// Where the log stops agreeing with the leader's.
        truncate_to: Option<Position>,
    },
}

/// Why leadership is not being moved.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TransferError {
    /// Only the leader can hand over.
    NotLeader,
    /// The target is no voter of the shard.
    NotMember,
    /// The target leads already.
    AlreadyLeader,
    /// An earlier transfer has not ended yet.
    InProgress,
    /// The target is not connected, or may have lost acknowledged records.
    NotReady,
}

impl std::fmt::Display for TransferError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::NotLeader => "this replica does not lead the shard; ask the leader",
            Self::NotMember => "the target is no voter of the shard; learners are promoted first",
            Self::AlreadyLeader => "the target leads the shard already",
            Self::InProgress => "an earlier transfer of this shard has not ended yet",
            Self::NotReady => "the target is not connected or still recovering; try again when it is in step",
        })
    }
}

impl std::error::Error for TransferError {}

/// Every member says a few things in one duty cycle, to every other.
const MESSAGES_LEN_MAX: usize = NODES_MAX * 16;
