//! Frames between the replicas of one shard (schema 2).
//!
//! The replica with the higher node id dials. It sends [`Hello`]; the other answers with its own [`Hello`], or with
//! [`Refused`] and a reason. Then [`PeerMessage`]s flow both ways. The same types are what the consensus core takes
//! and gives: log data travels beside them, never through the core.

use zerocopy::byteorder::little_endian::{U16, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::frame::{self, Block, Frame, FrameError, Full};
use crate::{ClusterId, Incarnation, NodeId, Position, ShardId, Term};

/// The lowest peer protocol version this release speaks.
pub const PROTOCOL_MIN: u16 = 1;
/// The highest peer protocol version this release speaks.
pub const PROTOCOL_MAX: u16 = 1;

/// A follower is asked to take over log data.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Append {
    /// The leader's term.
    pub term: Term,
    /// Where the data begins, and what must already be there.
    pub previous: Position,
    /// Term of the record that ends at `previous`; term 0 at position 0.
    pub previous_term: Term,
    /// Term of every record in the data: a frame never crosses a change of term.
    pub data_term: Term,
    /// Bytes of data; 0 for a heartbeat.
    pub size: u64,
    /// The leader's commit position.
    pub commit: Position,
    /// Counts the leader's heartbeat rounds; comes back in the answer.
    pub round: u64,
    /// For a follower that may have lost records: everything that was committed before it said so is at or below this
    /// position, for a quorum without it has followed this leader since. 0 while that is not known.
    pub confirmed: Position,
    /// The follower voted for this leader when every member did, in the life in which it is spoken to: no vote that it may
    /// have forgotten elects anybody any more.
    pub vouched: bool,
}

/// A follower's answer to [`Append`], or its news that more became durable.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct AppendReply {
    /// The follower's term.
    pub term: Term,
    /// Everything up to here is the leader's log and is in memory.
    pub received: Position,
    /// Everything up to here is the leader's log and is on stable storage.
    pub durable: Position,
    /// The round of the append that is answered.
    pub round: u64,
    /// The append did not match: go back to `hint` or before.
    pub rejected: Option<Hint>,
    /// The follower may have lost records that it once acknowledged; its word does not count yet.
    pub recovering: bool,
    /// For so long after it took in the append of this round, in nanoseconds of its clock, the follower grants nobody
    /// a vote, unless the leader itself has summoned the candidate. 0: it promises nothing.
    pub promise_ns: u64,
}

/// Where a follower's log may still agree with the leader's.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Hint {
    /// The follower has a record boundary here, at or before the rejected append's `previous`.
    pub position: Position,
    /// The term of the follower's record that ends there.
    pub term: Term,
}

/// A candidate asks for a vote.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Vote {
    /// The term the candidate wants to lead; in a pre-vote, would want.
    pub term: Term,
    /// Where the candidate's log ends.
    pub last: Position,
    /// Term of its last record.
    pub last_term: Term,
    /// Nothing is promised by the answer (Raft thesis §9.6).
    pub pre_vote: bool,
    /// The leader asked the candidate to take over: leader stickiness does not apply.
    pub transfer: bool,
}

/// The answer to [`Vote`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct VoteReply {
    /// The voter's term; in a granted pre-vote the term that was asked for.
    pub term: Term,
    /// Yes or no.
    pub granted: bool,
    /// The answer to a pre-vote.
    pub pre_vote: bool,
    /// The voter may have lost records it once acknowledged: its vote counts only if every member grants.
    pub recovering: bool,
}

/// The leader asks a caught-up follower to campaign at once (Raft thesis §3.10).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct TimeoutNow {
    /// The leader's term.
    pub term: Term,
}

/// Everything the replicas of a shard say to each other once they know each other.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum PeerMessage {
    /// See [`Append`].
    Append(Append),
    /// See [`AppendReply`].
    AppendReply(AppendReply),
    /// See [`Vote`].
    Vote(Vote),
    /// See [`VoteReply`].
    VoteReply(VoteReply),
    /// See [`TimeoutNow`].
    TimeoutNow(TimeoutNow),
}

/// Who is speaking, and with whom it wants to speak. First frame in both directions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hello {
    /// Lowest peer protocol version spoken.
    pub protocol_min: u16,
    /// Highest peer protocol version spoken.
    pub protocol_max: u16,
    /// The shard.
    pub shard: ShardId,
    /// The speaker.
    pub from: NodeId,
    /// Who should be listening.
    pub to: NodeId,
    /// The cluster.
    pub cluster: ClusterId,
    /// The speaker's life.
    pub incarnation: Incarnation,
    /// The speaker's term.
    pub term: Term,
    /// What the speaker last heard from the listener, so that a listener that was put back to an earlier state notices.
    pub heard: Heard,
}

/// What a replica once said to another, as that one remembers it; it does not survive its process.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Heard {
    /// The life in which it was said; 0 if nothing was heard.
    pub incarnation: Incarnation,
    /// A term that was on its stable storage.
    pub term: Term,
    /// It had everything up to here on its stable storage, and it is committed.
    pub durable: Position,
}

/// Why a peer was refused. The numbers are on the wire for ever.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u16)]
pub enum RefusedCode {
    /// No common protocol version.
    Protocol = 1,
    /// Another cluster.
    Cluster = 2,
    /// Another shard.
    Shard = 3,
    /// Not a member, or not the node that was dialled.
    Node = 4,
}

macro_rules! block {
    ($name:ident = $template:literal { $($field:ident: $kind:ty,)* }) => {
        #[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Clone, Copy)]
        #[repr(C)]
        struct $name { $($field: $kind,)* }
        impl Block for $name {
            const SCHEMA: u16 = 2;
            const TEMPLATE: u16 = $template;
            const PAYLOAD_SUMMED: bool = $template != 3;
        }
    };
}

mod supply;
pub use supply::{
    REPAIR_OVERHEAD, RepairReply, RepairRequest, SNAPSHOT_OVERHEAD, SnapshotChunk, SnapshotProgress, SnapshotReply,
    SnapshotRequest, put_repair_reply, put_repair_request, put_snapshot_chunk, put_snapshot_reply,
    put_snapshot_request,
};

block! { HelloBlock = 1 {
    protocol_min: U16, protocol_max: U16, shard: U16, from: u8, to: u8,
    cluster: U64, incarnation: U64, term: U64,
    heard_incarnation: U64, heard_term: U64, heard_durable: U64,
} }
block! { RefusedBlock = 2 { code: U16, padding: [u8; 6], } }
block! { AppendBlock = 3 {
    term: U64, previous: U64, previous_term: U64, data_term: U64, commit: U64, round: U64, confirmed: U64,
    vouched: u8, padding: [u8; 7],
} }
block! { AppendReplyBlock = 4 {
    term: U64, received: U64, durable: U64, round: U64, hint_position: U64, hint_term: U64,
    rejected: u8, recovering: u8, padding: [u8; 6], promise_ns: U64,
} }
block! { VoteBlock = 5 {
    term: U64, last: U64, last_term: U64, pre_vote: u8, transfer: u8, padding: [u8; 6],
} }
block! { VoteReplyBlock = 6 {
    term: U64, granted: u8, pre_vote: u8, recovering: u8, padding: [u8; 5],
} }
block! { TimeoutNowBlock = 7 { term: U64, } }
block! { AppliedBlock = 8 { applied: U64, } }

/// Bytes that an append frame takes beside its data.
pub const APPEND_OVERHEAD: usize = frame::HEADER_SIZE + size_of::<AppendBlock>();

/// What a frame of schema 2 turned out to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PeerFrame<'a> {
    /// The other side introduces itself.
    Hello(Hello),
    /// The other side refuses: the code's number and a sentence for a person.
    Refused(u16, &'a str),
    /// How far the other side has applied: for who places leaders, not for consensus.
    Applied(Position),
    /// The other side cannot read a part of its log any more.
    RepairRequest(RepairRequest),
    /// The answer to this side's question, and its data.
    RepairReply(RepairReply, &'a [u8]),
    /// The other side can only go on with a snapshot.
    SnapshotRequest(SnapshotRequest),
    /// A part of a snapshot, and its data.
    SnapshotChunk(SnapshotChunk, &'a [u8]),
    /// The answer to this side's part of a snapshot.
    SnapshotReply(SnapshotReply),
    /// A message for the core; with [`PeerMessage::Append`] its data, otherwise empty.
    Message(PeerMessage, &'a [u8]),
}

/// Writes the introduction.
///
/// # Errors
/// [`Full`] if it does not fit `out`'s capacity.
pub fn put_hello(out: &mut Vec<u8>, hello: &Hello) -> Result<(), Full> {
    let block = HelloBlock {
        protocol_min: hello.protocol_min.into(),
        protocol_max: hello.protocol_max.into(),
        shard: hello.shard.0.into(),
        from: hello.from.0,
        to: hello.to.0,
        cluster: hello.cluster.0.into(),
        incarnation: hello.incarnation.0.into(),
        term: hello.term.0.into(),
        heard_incarnation: hello.heard.incarnation.0.into(),
        heard_term: hello.heard.term.0.into(),
        heard_durable: hello.heard.durable.0.into(),
    };
    frame::put(out, &block, &[])
}

/// Writes a refusal with its reason.
///
/// # Errors
/// [`Full`] if it does not fit `out`'s capacity.
pub fn put_refused(out: &mut Vec<u8>, code: RefusedCode, reason: &str) -> Result<(), Full> {
    frame::put(out, &RefusedBlock { code: (code as u16).into(), padding: [0; 6] }, reason.as_bytes())
}

/// Writes how far this side has applied.
///
/// # Errors
/// [`Full`] if it does not fit `out`'s capacity.
pub fn put_applied(out: &mut Vec<u8>, applied: Position) -> Result<(), Full> {
    frame::put(out, &AppliedBlock { applied: applied.0.into() }, &[])
}

/// Writes a message; `data` is what an append carries, in as many pieces as it lies in.
///
/// # Errors
/// [`Full`] if it does not fit `out`'s capacity.
pub fn put_message(out: &mut Vec<u8>, message: &PeerMessage, data: &[&[u8]]) -> Result<(), Full> {
    match message {
        PeerMessage::Append(append) => {
            let size: u64 = data.iter().map(|part| part.len() as u64).sum();
            assert_eq!(size, append.size, "the message says how much data goes with it");
            let block = AppendBlock {
                term: append.term.0.into(),
                previous: append.previous.0.into(),
                previous_term: append.previous_term.0.into(),
                data_term: append.data_term.0.into(),
                commit: append.commit.0.into(),
                round: append.round.into(),
                confirmed: append.confirmed.0.into(),
                vouched: append.vouched.into(),
                padding: [0; 7],
            };
            frame::put_gathered(out, &block, data)
        }
        PeerMessage::AppendReply(reply) => {
            let hint = reply.rejected.unwrap_or(Hint { position: Position(0), term: Term(0) });
            let block = AppendReplyBlock {
                term: reply.term.0.into(),
                received: reply.received.0.into(),
                durable: reply.durable.0.into(),
                round: reply.round.into(),
                hint_position: hint.position.0.into(),
                hint_term: hint.term.0.into(),
                rejected: reply.rejected.is_some().into(),
                recovering: reply.recovering.into(),
                padding: [0; 6],
                promise_ns: reply.promise_ns.into(),
            };
            frame::put(out, &block, &[])
        }
        PeerMessage::Vote(vote) => {
            let block = VoteBlock {
                term: vote.term.0.into(),
                last: vote.last.0.into(),
                last_term: vote.last_term.0.into(),
                pre_vote: vote.pre_vote.into(),
                transfer: vote.transfer.into(),
                padding: [0; 6],
            };
            frame::put(out, &block, &[])
        }
        PeerMessage::VoteReply(reply) => {
            let block = VoteReplyBlock {
                term: reply.term.0.into(),
                granted: reply.granted.into(),
                pre_vote: reply.pre_vote.into(),
                recovering: reply.recovering.into(),
                padding: [0; 5],
            };
            frame::put(out, &block, &[])
        }
        PeerMessage::TimeoutNow(message) => frame::put(out, &TimeoutNowBlock { term: message.term.0.into() }, &[]),
    }
}

/// Reads a frame of schema 2.
///
/// # Errors
/// [`FrameError`]: the peer is broken or hostile; close the link. Never panics, whatever the bytes.
pub fn read<'a>(frame: &Frame<'a>) -> Result<PeerFrame<'a>, FrameError> {
    if frame.is::<AppendBlock>() {
        let (block, data) = frame.read::<AppendBlock>()?;
        let append = Append {
            term: Term(block.term.get()),
            previous: Position(block.previous.get()),
            previous_term: Term(block.previous_term.get()),
            data_term: Term(block.data_term.get()),
            size: data.len() as u64,
            commit: Position(block.commit.get()),
            round: block.round.get(),
            confirmed: Position(block.confirmed.get()),
            vouched: flag(block.vouched, "vouched")?,
        };
        if append.previous.0.checked_add(append.size).is_none() {
            return Err(FrameError::Field("previous"));
        }
        return Ok(PeerFrame::Message(PeerMessage::Append(append), data));
    }
    if frame.is::<AppendReplyBlock>() {
        let (block, _) = frame.read::<AppendReplyBlock>()?;
        let hint = Hint { position: Position(block.hint_position.get()), term: Term(block.hint_term.get()) };
        let reply = AppendReply {
            term: Term(block.term.get()),
            received: Position(block.received.get()),
            durable: Position(block.durable.get()),
            round: block.round.get(),
            rejected: flag(block.rejected, "rejected")?.then_some(hint),
            recovering: flag(block.recovering, "recovering")?,
            promise_ns: block.promise_ns.get(),
        };
        return Ok(message(PeerMessage::AppendReply(reply)));
    }
    if frame.is::<VoteBlock>() {
        let (block, _) = frame.read::<VoteBlock>()?;
        let vote = Vote {
            term: Term(block.term.get()),
            last: Position(block.last.get()),
            last_term: Term(block.last_term.get()),
            pre_vote: flag(block.pre_vote, "pre_vote")?,
            transfer: flag(block.transfer, "transfer")?,
        };
        return Ok(message(PeerMessage::Vote(vote)));
    }
    if frame.is::<VoteReplyBlock>() {
        let (block, _) = frame.read::<VoteReplyBlock>()?;
        let reply = VoteReply {
            term: Term(block.term.get()),
            granted: flag(block.granted, "granted")?,
            pre_vote: flag(block.pre_vote, "pre_vote")?,
            recovering: flag(block.recovering, "recovering")?,
        };
        return Ok(message(PeerMessage::VoteReply(reply)));
    }
    if frame.is::<TimeoutNowBlock>() {
        let (block, _) = frame.read::<TimeoutNowBlock>()?;
        return Ok(message(PeerMessage::TimeoutNow(TimeoutNow { term: Term(block.term.get()) })));
    }
    if frame.is::<AppliedBlock>() {
        let (block, _) = frame.read::<AppliedBlock>()?;
        return Ok(PeerFrame::Applied(Position(block.applied.get())));
    }
    if let Some(supply) = supply::read(frame)? {
        return Ok(supply);
    }
    if frame.is::<HelloBlock>() {
        let (block, _) = frame.read::<HelloBlock>()?;
        return Ok(PeerFrame::Hello(Hello {
            protocol_min: block.protocol_min.get(),
            protocol_max: block.protocol_max.get(),
            shard: ShardId(block.shard.get()),
            from: NodeId(block.from),
            to: NodeId(block.to),
            cluster: ClusterId(block.cluster.get()),
            incarnation: Incarnation(block.incarnation.get()),
            term: Term(block.term.get()),
            heard: Heard {
                incarnation: Incarnation(block.heard_incarnation.get()),
                term: Term(block.heard_term.get()),
                durable: Position(block.heard_durable.get()),
            },
        }));
    }
    let (block, reason) = frame.read::<RefusedBlock>()?;
    let reason = std::str::from_utf8(reason).unwrap_or("(the reason is not readable text)");
    Ok(PeerFrame::Refused(block.code.get(), reason))
}

fn message<'a>(message: PeerMessage) -> PeerFrame<'a> {
    PeerFrame::Message(message, &[])
}

fn flag(value: u8, field: &'static str) -> Result<bool, FrameError> {
    match value {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(FrameError::Field(field)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(message: PeerMessage, data: &[u8]) {
        let mut out = Vec::with_capacity(1024);
        put_message(&mut out, &message, &[data]).expect("there is room");
        let (frame, size) = Frame::take(&out).expect("well formed").expect("complete");
        assert_eq!(size, out.len());
        assert_eq!(read(&frame), Ok(PeerFrame::Message(message, data)));
        for cut in 0..out.len() {
            assert!(matches!(Frame::take(&out[..cut]), Ok(None)), "a part of a frame is no frame");
        }
    }

    #[test]
    fn every_message_comes_back_as_it_was() {
        let append = Append {
            term: Term(3),
            previous: Position(64),
            previous_term: Term(2),
            data_term: Term(3),
            size: 5,
            commit: Position(64),
            round: 9,
            confirmed: Position(40),
            vouched: true,
        };
        check(PeerMessage::Append(append), b"hello");
        let hint = Hint { position: Position(8), term: Term(1) };
        for rejected in [None, Some(hint)] {
            let reply = AppendReply {
                term: Term(3),
                received: Position(72),
                durable: Position(64),
                round: 9,
                rejected,
                recovering: rejected.is_some(),
                promise_ns: 7,
            };
            check(PeerMessage::AppendReply(reply), b"");
        }
        let vote = Vote { term: Term(4), last: Position(72), last_term: Term(3), pre_vote: true, transfer: false };
        check(PeerMessage::Vote(vote), b"");
        check(
            PeerMessage::VoteReply(VoteReply { term: Term(4), granted: true, pre_vote: false, recovering: true }),
            b"",
        );
        check(PeerMessage::TimeoutNow(TimeoutNow { term: Term(4) }), b"");
    }

    proptest! {
        #[test]
        fn hostile_bytes_never_panic(mut bytes in proptest::collection::vec(any::<u8>(), 16..200), template in 0_u16..15) {
            let size = u32::try_from(bytes.len()).expect("short");
            bytes[..4].copy_from_slice(&size.to_le_bytes());
            bytes[10..12].copy_from_slice(&template.to_le_bytes());
            bytes[12..14].copy_from_slice(&2_u16.to_le_bytes());
            if let Ok(Some((frame, _))) = Frame::take(&bytes) {
                let _ = read(&frame);
            }
        }
    }
}
