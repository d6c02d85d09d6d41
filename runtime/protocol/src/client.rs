//! Frames between clients and nodes (schema 1), and the operator's requests.
//!
//! A connection begins with [`Hello`]. The leader of the shard answers [`Welcome`]; any other replica answers
//! [`Redirect`]; who is not wanted gets [`Refused`] with a reason. Then [`Request`]s flow one way and
//! [`Reply`]s (one per request, in order) and [`Event`]s the other. A [`Query`] is answered without a record. Requests of a session are numbered from 1 without
//! gaps; what cannot be taken now is answered by [`Busy`] with the number to go on from, and everything behind it
//! is dropped until that number comes. [`StatusRequest`] and [`Admin`] need no session.
//!
//! Numbers below 32 go to the node, the others to the client.

use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::frame::Block;

/// The lowest client protocol version this release speaks.
pub const PROTOCOL_MIN: u16 = 1;
/// The highest client protocol version this release speaks.
pub const PROTOCOL_MAX: u16 = 1;
/// In [`Redirect::leader`]: nobody leads at the moment.
pub const NOBODY: u8 = u8::MAX;

macro_rules! block {
    ($(#[$doc:meta])* $name:ident = $template:literal { $($(#[$field_doc:meta])* $field:ident: $kind:ty,)* }) => {
        $(#[$doc])*
        #[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(C)]
        pub struct $name { $($(#[$field_doc])* pub $field: $kind,)* }
        impl Block for $name {
            const SCHEMA: u16 = 1;
            const TEMPLATE: u16 = $template;
        }
    };
}

block! {
    /// The client's first frame.
    Hello = 1 {
        /// Lowest version the client speaks.
        protocol_min: U16,
        /// Highest version the client speaks.
        protocol_max: U16,
        /// The shard the client wants.
        shard: U16,
        /// Zero.
        padding: [u8; 2],
        /// Optional behaviours the client knows.
        features: U64,
        /// The cluster the client means; 0 for any.
        cluster: U64,
        /// The session to resume; 0 opens a new one.
        session: U64,
        /// The session's token, drawn by the client when it opened it.
        token: U64,
        /// The lowest request number without an answer.
        first_unanswered: U64,
    }
}
block! {
    /// One command. The payload is the command.
    Request = 2 {
        /// Number of this request.
        request: U64,
        /// The lowest request number without an answer: replies before it may be forgotten.
        first_unanswered: U64,
    }
}
block! {
    /// Ends the session.
    Close = 3 { }
}
block! {
    /// Asks for [`StatusReply`].
    StatusRequest = 4 { }
}
block! {
    /// An operator's request; see [`AdminAction`]. The payload is what the action needs besides a node.
    Admin = 5 {
        /// See [`AdminAction`].
        action: U16,
        /// A node, where the action needs one.
        node: u8,
        /// Zero.
        padding: [u8; 5],
    }
}
block! {
    /// Keeps the connection alive; answered by [`Pong`].
    Ping = 6 {
        /// Comes back in the answer.
        token: U64,
    }
}
block! {
    /// A question that leaves no record; it sees all that was committed before it was asked. Needs no session. The
    /// payload is the question.
    Query = 7 {
        /// Comes back in the answer.
        query: U64,
    }
}
block! {
    /// The session is open.
    Welcome = 33 {
        /// The protocol version chosen.
        protocol: U16,
        /// See [`Promise`].
        promise: u8,
        /// The node that leads.
        node: u8,
        /// Requests the session may have unanswered.
        window_len_max: U32,
        /// Bytes of one command at most.
        payload_size_max: U32,
        /// Zero.
        padding: U32,
        /// Optional behaviours both sides know.
        features: U64,
        /// The session's id.
        session: U64,
        /// The highest request number already taken in; the client goes on behind it, or repeats what it has no
        /// answer to.
        last_request: U64,
        /// The leader's term.
        term: U64,
    }
}
block! {
    /// Another node leads. The payload is its address for this shard, `host:port`, empty if unknown.
    Redirect = 34 {
        /// The node, or [`NOBODY`].
        leader: u8,
        /// Zero.
        padding: [u8; 7],
    }
}
block! {
    /// The node will not serve this connection. The payload is a sentence for a person.
    Refused = 35 {
        /// See [`RefusedCode`].
        code: U16,
        /// Zero.
        padding: [u8; 6],
    }
}
block! {
    /// The answer to one request. The payload is what the service replied.
    Reply = 36 {
        /// The request's number.
        request: U64,
        /// Position of the command's record.
        position: U64,
        /// See [`ReplyStatus`].
        status: u8,
        /// See [`Promise`].
        promise: u8,
        /// Zero.
        padding: [u8; 6],
    }
}
block! {
    /// Something a service tells a session unasked.
    Event = 37 {
        /// Position of the record that caused it.
        position: U64,
        /// Counts the events of one record from 0.
        index: U32,
        /// Zero.
        padding: U32,
    }
}
block! {
    /// A request could not be taken; everything from `expected` on must be sent again, after a pause.
    Busy = 38 {
        /// The request number to go on from.
        expected: U64,
        /// See [`BusyReason`].
        reason: U16,
        /// Zero.
        padding: [u8; 6],
    }
}
block! {
    /// The state of one replica. The payload is JSON, see [`crate::status`].
    StatusReply = 39 {
        /// The node.
        node: u8,
        /// Zero.
        padding: u8,
        /// The shard.
        shard: U16,
        /// Zero.
        reserved: U32,
    }
}
block! {
    /// The answer to [`Admin`]. The payload is a sentence for a person.
    AdminReply = 40 {
        /// 0 if it was begun.
        code: U16,
        /// Zero.
        padding: [u8; 6],
        /// Where an appended record ended; 0 if none was.
        position: U64,
    }
}
block! {
    /// The answer to [`Ping`].
    Pong = 41 {
        /// What the ping carried.
        token: U64,
    }
}

block! {
    /// The answer to [`Query`]; answers come in the order of the questions of a connection. The payload is the service's
    /// answer.
    QueryReply = 42 {
        /// What the question carried.
        query: U64,
        /// The answer is from the state at this position.
        position: U64,
        /// See [`QueryStatus`].
        status: u8,
        /// Zero.
        padding: [u8; 7],
    }
}

macro_rules! codes {
    ($(#[$doc:meta])* $name:ident($inner:ty) { $($(#[$case_doc:meta])* $case:ident = $number:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
        #[repr($inner)]
        pub enum $name { $($(#[$case_doc])* $case = $number,)* }
        impl $name {
            /// The case with this number, if this release knows it.
            #[must_use]
            pub fn from_number(number: $inner) -> Option<Self> {
                match number { $($number => Some(Self::$case),)* _ => None }
            }
        }
    };
}

codes! {
    /// What an operator may ask for.
    AdminAction(u16) {
        /// Hand leadership of this shard to [`Admin::node`].
        Transfer = 1,
        /// Append a digest record: every replica computes its state digest at one position.
        Digest = 2,
        /// [`Admin::node`] takes over the log of this shard, without a vote. The payload is its address for this shard,
        /// `ip:port`.
        MemberAdd = 3,
        /// The learner [`Admin::node`] becomes a voter of this shard.
        MemberPromote = 4,
        /// [`Admin::node`] leaves this shard.
        MemberRemove = 5,
        /// Have this replica's shadow take a snapshot.
        Snapshot = 6,
    }
}
codes! {
    /// What an acknowledgement is worth.
    Promise(u8) {
        /// A quorum holds the command on stable storage.
        Durable = 1,
        /// A quorum holds the command in memory; the disk follows.
        Replicated = 2,
    }
}
codes! {
    /// How a request ended.
    ReplyStatus(u8) {
        /// Applied; the payload is the service's reply.
        Applied = 1,
        /// Applied earlier, but the reply is no longer remembered. It was not applied again.
        ReplyForgotten = 2,
        /// The command is larger than `payload_size_max`; it was not applied, the number is used up.
        PayloadTooLarge = 3,
    }
}
codes! {
    /// How a question ended.
    QueryStatus(u8) {
        /// The payload is the answer.
        Answered = 1,
        /// The service answers no such question without a record: send it as a command.
        Unsupported = 2,
        /// The service failed on it, or its answer is too large.
        Failed = 3,
        /// Too many questions wait: ask again later.
        Busy = 4,
    }
}
codes! {
    /// Why a request was not taken just now.
    BusyReason(u16) {
        /// The log cannot take more at the moment (disk slow or full, quorum lost).
        Log = 1,
        /// More requests are unanswered than the session may have.
        Window = 2,
        /// An earlier request is missing.
        Gap = 3,
    }
}
codes! {
    /// Why a connection was refused.
    RefusedCode(u16) {
        /// No common protocol version.
        Protocol = 1,
        /// The client means another cluster.
        Cluster = 2,
        /// This port serves another shard.
        Shard = 3,
        /// The session is not known: it was closed or has expired. Nothing of it will be executed again.
        SessionUnknown = 4,
        /// The token is not the session's.
        Token = 5,
        /// As many sessions are open as the shard may have.
        SessionsFull = 6,
        /// The frames do not make sense.
        Malformed = 7,
        /// The client reads its replies too slowly.
        Slow = 8,
        /// Another connection has resumed the session.
        Superseded = 9,
    }
}
