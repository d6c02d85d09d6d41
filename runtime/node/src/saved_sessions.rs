//! The sessions in a snapshot ([`crate::snapshot`]): each session, then its replies, each with its payload.
//!
//! | offset | size | field | meaning |
//! |---|---|---|---|
//! | 0 | 8 | id | of the session |
//! | 8 | 8 | token | who resumes it must know it |
//! | 16 | 8 | features | agreed in the handshake |
//! | 24 | 8 | applied | the last request applied |
//! | 32 | 8 | head | where the ring's next reply goes |
//! | 40 | 4 | replies_len | replies that follow |
//! | 44 | 2 | protocol | agreed in the handshake |
//! | 46 | 2 | reserved | zero |
//!
//! A reply:
//!
//! | offset | size | field | meaning |
//! |---|---|---|---|
//! | 0 | 8 | request | its number |
//! | 8 | 8 | position | of the request's record |
//! | 16 | 4 | start | its place in the ring |
//! | 20 | 4 | payload_size | bytes that follow |
//! | 24 | 1 | status | how the request ended |
//! | 25 | 7 | reserved | zero |

use evershard_protocol::client::ReplyStatus;
use evershard_protocol::limits::SESSIONS_MAX;
use evershard_protocol::{Position, RequestNumber, SessionId};
use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::replies::{Reply, ReplyRing};
use crate::sessions::{Session, SessionTable};

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Clone, Copy)]
#[repr(C)]
struct RawSession {
    id: U64,
    token: U64,
    features: U64,
    applied: U64,
    head: U64,
    replies_len: U32,
    protocol: U16,
    reserved: U16,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Clone, Copy)]
#[repr(C)]
struct RawReply {
    request: U64,
    position: U64,
    start: U32,
    payload_size: U32,
    status: u8,
    reserved: [u8; 7],
}

const _: () = assert!(size_of::<RawSession>() == 48 && size_of::<RawReply>() == 32, "the tables above say so");

impl SessionTable {
    /// Bytes that [`SessionTable::save`] writes, or some more: looked up, not counted.
    pub(crate) fn saved_size(&self) -> usize {
        let size = |session: &Session| {
            let replies = session.replies.placed().len() * size_of::<RawReply>();
            size_of::<RawSession>() + replies + session.replies.used()
        };
        self.iter().map(size).sum()
    }

    /// Writes all sessions.
    pub(crate) fn save(&self, out: &mut Vec<u8>) {
        for session in self.iter() {
            let raw = RawSession {
                id: session.id.0.into(),
                token: session.token.into(),
                features: session.features.into(),
                applied: session.applied.0.into(),
                head: (session.replies.head() as u64).into(),
                replies_len: word(session.replies.placed().len()),
                protocol: session.protocol.into(),
                reserved: U16::new(0),
            };
            out.extend_from_slice(raw.as_bytes());
            for (reply, start) in session.replies.placed() {
                let raw = RawReply {
                    request: reply.request.0.into(),
                    position: reply.position.0.into(),
                    start: word(start),
                    payload_size: word(reply.payload.len()),
                    status: reply.status as u8,
                    reserved: [0; 7],
                };
                out.extend_from_slice(raw.as_bytes());
                out.extend_from_slice(reply.payload);
            }
        }
    }

    /// Reads so many sessions off the front of `rest`; `None` if they contradict themselves.
    pub(crate) fn restore(rest: &mut &[u8], len: u32) -> Option<Self> {
        let mut table = Self::new();
        for _ in 0..len {
            let raw = take::<RawSession>(rest)?;
            let last = table.iter().last().map_or(SessionId(0), |last| last.id);
            let id = SessionId(raw.id.get());
            if id <= last || table.len() == SESSIONS_MAX {
                return None;
            }
            table.open(Position(id.0), raw.token.get(), raw.protocol.get(), raw.features.get());
            let session = table.get(id).expect("just opened");
            session.applied = RequestNumber(raw.applied.get());
            session.replies = ReplyRing::restored(usize::try_from(raw.head.get()).ok()?)?;
            restore_replies(session, rest, raw.replies_len.get())?;
        }
        Some(table)
    }
}

fn restore_replies(session: &mut Session, rest: &mut &[u8], len: u32) -> Option<()> {
    for _ in 0..len {
        let raw = take::<RawReply>(rest)?;
        let (payload, behind) = rest.split_at_checked(usize::try_from(raw.payload_size.get()).ok()?)?;
        *rest = behind;
        let reply = Reply {
            request: RequestNumber(raw.request.get()),
            position: Position(raw.position.get()),
            status: ReplyStatus::from_number(raw.status)?,
            payload,
        };
        session.replies.put_back(&reply, usize::try_from(raw.start.get()).ok()?)?;
    }
    Some(())
}

fn take<'a, T: FromBytes + KnownLayout + Immutable + Unaligned>(rest: &mut &'a [u8]) -> Option<&'a T> {
    let (raw, behind) = T::ref_from_prefix(rest).ok()?;
    *rest = behind;
    Some(raw)
}

fn word(value: usize) -> U32 {
    u32::try_from(value).expect("rings and replies are bounded").into()
}
