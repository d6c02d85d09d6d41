//! What can go wrong, at whose fault, and what to do about it.

use std::io;
use std::time::Duration;

use evershard_protocol::client::RefusedCode;
use evershard_protocol::frame::FrameError;
use evershard_protocol::{RequestNumber, SessionId};

/// Why a connection ended or could not be made. The client tries again by itself; this is told for information.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Trouble {
    /// The connection could not be made, or broke.
    #[error("the node cannot be reached ({0}); is it running, and does the address belong to this shard?")]
    Unreachable(io::ErrorKind),
    /// The connection was not made in time.
    #[error("the node did not accept the connection in time; is its host up, does a firewall drop packets?")]
    Unanswered,
    /// The node closed the connection without a word.
    #[error("the node closed the connection; it was probably stopped or has no room for more connections")]
    Closed,
    /// Nothing came from the node for too long although something was awaited.
    #[error("the node has fallen silent; it may be overloaded, stopped, or cut off")]
    Silent,
    /// The node lives but has answered no request for too long.
    #[error("the node answers no requests; it may have lost its quorum or its disk")]
    Stalled,
    /// What the node sent is not the protocol.
    #[error("the node does not speak the client protocol ({0}); is the address that of a shard?")]
    Malformed(FrameError),
    /// Another node leads.
    #[error("another node leads the shard")]
    Redirected,
    /// The node knows of no leader.
    #[error("no leader is known; an election is under way, or too few nodes are up")]
    NoLeader,
    /// The node ended the connection for this reason.
    #[error("the node refused the connection: {0:?}")]
    Refused(RefusedCode),
}

/// The session has ended for good. Make a new client, knowing that unanswered requests may or may not have been applied.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SessionError {
    /// The cluster no longer knows the session.
    #[error(
        "{session} is not known any more and {unanswered} requests are without an answer: it expired while the client \
         was away; open a new session and find out by query which requests were applied before sending them again"
    )]
    SessionLost {
        /// The session that was.
        session: SessionId,
        /// Requests that may or may not have been applied.
        unanswered: usize,
    },
    /// The cluster has forgotten requests it had answered.
    #[error(
        "the cluster has forgotten acknowledged requests of {session}: answered up to {answered}, known up to {known}; \
         acknowledged data was lost (all replicas restarted under `replicated` durability, or restored from a backup?)"
    )]
    HistoryLost {
        /// The session.
        session: SessionId,
        /// The last request that was answered.
        answered: RequestNumber,
        /// The last request the cluster knows of.
        known: RequestNumber,
    },
    /// Other connections have resumed the session again and again.
    #[error("{session} is used by another connection as well; give every client its own session")]
    Superseded {
        /// The session.
        session: SessionId,
    },
    /// The node refused the client for a reason that trying again does not change.
    #[error("`{address}` refuses the client ({code:?}): {text}; compare shard, cluster and release with the node's")]
    Refused {
        /// The node's address.
        address: String,
        /// The reason.
        code: RefusedCode,
        /// What the node says about it.
        text: String,
    },
    /// The client was closed by its user.
    #[error("the session was closed by its own client")]
    Closed,
}

/// Why a request was not taken in. Nothing was sent; the session goes on unless it says [`SendError::Ended`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SendError {
    /// As many requests are unanswered as the window allows: poll for replies, then send again.
    #[error("as many requests are unanswered as the window allows; poll for replies first")]
    WindowFull,
    /// The unanswered requests fill the queue's bytes: poll for replies, then send again.
    #[error("the unanswered requests fill the queue; poll for replies first or configure a larger `queue_size`")]
    QueueFull,
    /// The command is larger than the cluster takes.
    #[error("a command of {size} bytes is larger than the cluster takes ({max}); split it")]
    PayloadTooLarge {
        /// Bytes of the command.
        size: usize,
        /// Bytes at most.
        max: usize,
    },
    /// The session has ended for good; [`crate::Client::poll`] says why.
    #[error("the session has ended; poll tells why")]
    Ended,
}

/// Why an operation of the client failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The configuration cannot work.
    #[error("the client's configuration cannot work: {0}")]
    Config(&'static str),
    /// No leader welcomed the client in time.
    #[error("no session could be opened within {waited:?}; last seen at `{address}`: {}", text_of(*.trouble))]
    ConnectTimeout {
        /// How long was tried.
        waited: Duration,
        /// The address tried last.
        address: String,
        /// What happened last, if anything.
        trouble: Option<Trouble>,
    },
    /// A request was not answered in time. It stays queued: it may have been applied or may yet be.
    #[error(
        "request {request} was not answered within {waited:?} ({}); it may have been applied or may yet be: its reply is \
         still awaited, do not repeat it under another number", text_of(*.trouble)
    )]
    RequestTimeout {
        /// The request.
        request: RequestNumber,
        /// How long was waited.
        waited: Duration,
        /// What happened last to the connection, if anything.
        trouble: Option<Trouble>,
    },
    /// A question was not answered in time. It stays queued; its answer is dropped when it comes.
    #[error("the question was not answered within {waited:?} ({}); ask again", text_of(*.trouble))]
    QueryTimeout {
        /// How long was waited.
        waited: Duration,
        /// What happened last to the connection, if anything.
        trouble: Option<Trouble>,
    },
    /// A request was not taken in.
    #[error(transparent)]
    Send(#[from] SendError),
    /// The session has ended for good.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// The close could not be told to the cluster; the session ends when it expires.
    #[error("the session could not be closed within {waited:?}; it ends by itself when it expires")]
    CloseTimeout {
        /// How long was tried.
        waited: Duration,
    },
    /// An operator's request did not get through.
    #[error("cannot {what} at `{address}`: {source}; is the node running, and is this the address of a shard?")]
    Admin {
        /// What was being done.
        what: &'static str,
        /// The node's address.
        address: String,
        /// The cause.
        source: io::Error,
    },
    /// An operator's request was answered by something else.
    #[error("`{address}` did not answer as a node would: {source}; is this the address of a shard?")]
    AdminMalformed {
        /// The node's address.
        address: String,
        /// The cause.
        source: FrameError,
    },
    /// An operator's request needs the leader.
    #[error("`{address}` does not lead the shard; ask `{leader}` (empty: no leader is known, try again shortly)")]
    NotLeader {
        /// The node that was asked.
        address: String,
        /// The leader's address, if known.
        leader: String,
    },
    /// An operator's request was refused.
    #[error("`{address}` refuses: {text}")]
    AdminRefused {
        /// The node that was asked.
        address: String,
        /// What it says.
        text: String,
    },
}

fn text_of(trouble: Option<Trouble>) -> String {
    trouble.map_or_else(|| "the connection is well".to_owned(), |trouble| trouble.to_string())
}
