//! One entry of a shard's log: encoded once, then the same bytes on the wire, in the file and in replay.
//!
//! | offset | size | field | meaning |
//! |---|---|---|---|
//! | 0 | 4 | checksum | CRC-32C of everything behind it up to `size` |
//! | 4 | 4 | size | header and payload, without the padding |
//! | 8 | 8 | position | where the padded record ends in the log |
//! | 16 | 8 | term | the leader's term that wrote it |
//! | 24 | 8 | session | the session it belongs to, 0 for none |
//! | 32 | 8 | request | the session's request number, 0 for none |
//! | 40 | 8 | timestamp | record time, nanoseconds since the epoch |
//! | 48 | 2 | kind | see [`Kind`] |
//! | 50 | 2 | format | version of this layout, 1 |
//! | 52 | 4 | answered | requests before `request` that the client has answers to, as `request - first unanswered` |
//! | 56 | .. | payload | then zeros up to a multiple of eight |
//!
//! The checksum covers position and term: a record found at another place, of another term or left over in a
//! recycled segment does not pass.

use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::checksum::crc32c;
use crate::limits::{PAYLOAD_SIZE_MAX, RECORD_SIZE_MAX};
use crate::{Position, RequestNumber, SessionId, Term, Timestamp};

/// Bytes of a record's header.
pub const HEADER_SIZE: usize = size_of::<RawHeader>();
/// Records begin and end at multiples of this.
pub const ALIGNMENT: usize = 8;
/// The version of the layout above.
pub const FORMAT: u16 = 1;

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Clone, Copy)]
#[repr(C)]
struct RawHeader {
    checksum: U32,
    size: U32,
    position: U64,
    term: U64,
    session: U64,
    request: U64,
    timestamp: U64,
    kind: U16,
    format: U16,
    answered: U32,
}

const _: () = assert!(HEADER_SIZE == 56, "the table above says so");

/// What a record is. The numbers are on disk for ever; a number is never used again for something else.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[repr(u16)]
pub enum Kind {
    /// A client's command: payload is the command.
    Command = 1,
    /// The first record of a leader's term. No payload.
    TermStart = 2,
    /// Opens a session: payload is [`SessionOpen`].
    SessionOpen = 3,
    /// Closes the session named in the header. No payload.
    SessionClose = 4,
    /// A service's timer is due: payload is the timer id (8 bytes).
    TimerFired = 5,
    /// Another set of replicas, from here on: payload is a [`crate::membership`].
    Membership = 6,
    /// A behaviour is switched on.
    Feature = 7,
    /// A service version is announced.
    DeployPrepare = 8,
    /// A service version becomes active.
    DeployActivate = 9,
    /// The version before may be dropped.
    DeployFinalize = 10,
    /// Every replica computes its state digest here. No payload.
    Digest = 11,
    /// An operator's remark; no effect. Payload is a [`crate::note`].
    Note = 12,
    /// A request that could not be a command (too large): uses up its number, the service does not see it. Payload is
    /// the number of its [`crate::client::ReplyStatus`].
    Refusal = 13,
}

impl Kind {
    /// The kind with this number, if this release knows it.
    #[must_use]
    pub fn from_number(number: u16) -> Option<Self> {
        Some(match number {
            1 => Self::Command,
            2 => Self::TermStart,
            3 => Self::SessionOpen,
            4 => Self::SessionClose,
            5 => Self::TimerFired,
            6 => Self::Membership,
            7 => Self::Feature,
            8 => Self::DeployPrepare,
            9 => Self::DeployActivate,
            10 => Self::DeployFinalize,
            11 => Self::Digest,
            12 => Self::Note,
            13 => Self::Refusal,
            _ => return None,
        })
    }
}

/// A record's header, parsed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// Where the padded record ends.
    pub position: Position,
    /// The term that wrote it.
    pub term: Term,
    /// Whose it is.
    pub session: SessionId,
    /// The session's request number.
    pub request: RequestNumber,
    /// Record time.
    pub timestamp: Timestamp,
    /// The kind's number; [`Kind::from_number`] tells whether this release knows it.
    pub kind: u16,
    /// `request - first unanswered request` of the client when it sent this one.
    pub answered: u32,
}

/// What a caller gives to have a record encoded; the position follows from where it is put.
#[derive(Clone, Copy, Debug)]
pub struct Draft<'a> {
    /// The leader's term.
    pub term: Term,
    /// Whose it is.
    pub session: SessionId,
    /// The session's request number.
    pub request: RequestNumber,
    /// Record time.
    pub timestamp: Timestamp,
    /// What it is.
    pub kind: Kind,
    /// See [`Header::answered`].
    pub answered: u32,
    /// At most [`PAYLOAD_SIZE_MAX`] bytes.
    pub payload: &'a [u8],
}

impl<'a> Draft<'a> {
    /// A record without session, such as [`Kind::TermStart`].
    #[must_use]
    pub fn plain(kind: Kind, term: Term, timestamp: Timestamp, payload: &'a [u8]) -> Self {
        Self { term, session: SessionId(0), request: RequestNumber(0), timestamp, kind, answered: 0, payload }
    }

    /// Bytes the record will take in the log, padding included.
    #[must_use]
    pub fn padded_size(&self) -> usize {
        padded(HEADER_SIZE + self.payload.len())
    }

    /// Encodes the record into `out`, which begins at log position `start` and is exactly
    /// [`Draft::padded_size`] bytes long. Returns the record's position.
    ///
    /// # Panics
    /// If the payload is larger than [`PAYLOAD_SIZE_MAX`] or `out` has another length: the caller's bug.
    pub fn encode(&self, start: Position, out: &mut [u8]) -> Position {
        assert!(self.payload.len() <= PAYLOAD_SIZE_MAX, "the payload was admitted with its size checked");
        assert_eq!(out.len(), self.padded_size(), "the caller reserves the padded size");
        let size = HEADER_SIZE + self.payload.len();
        let position = start.advance(out.len() as u64);
        let mut header = RawHeader {
            checksum: U32::new(0),
            size: U32::new(u32::try_from(size).expect("bounded by RECORD_SIZE_MAX")),
            position: U64::new(position.0),
            term: U64::new(self.term.0),
            session: U64::new(self.session.0),
            request: U64::new(self.request.0),
            timestamp: U64::new(self.timestamp.0),
            kind: U16::new(self.kind as u16),
            format: U16::new(FORMAT),
            answered: U32::new(self.answered),
        };
        out[..HEADER_SIZE].copy_from_slice(header.as_bytes());
        out[HEADER_SIZE..size].copy_from_slice(self.payload);
        out[size..].fill(0);
        header.checksum = U32::new(crc32c(&out[4..size]));
        out[..4].copy_from_slice(header.checksum.as_bytes());
        position
    }
}

/// The payload of a [`Kind::SessionOpen`] record.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct SessionOpen {
    /// Drawn by the client; who resumes the session must know it.
    pub token: U64,
    /// Client protocol version agreed in the handshake.
    pub protocol: U16,
    /// Zero.
    pub padding: [u8; 6],
    /// Feature bits agreed in the handshake.
    pub features: U64,
}

/// A verified record, borrowed from the bytes it was found in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// The parsed header.
    pub header: Header,
    /// The payload, without padding.
    pub payload: &'a [u8],
    /// The whole padded record, as it stands in the log.
    pub bytes: &'a [u8],
}

/// Why bytes are not a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RecordError {
    /// There are fewer bytes than the record needs; at least this many are wanted.
    #[error("the record is incomplete: at least {wanted} bytes are needed")]
    Incomplete {
        /// Bytes needed from the record's start.
        wanted: usize,
    },
    /// The size field is impossible.
    #[error("the record's size field says {size}, which no record has")]
    Size {
        /// What the field says.
        size: u32,
    },
    /// The checksum does not match.
    #[error("the record's checksum does not match its content")]
    Checksum,
    /// It is a valid record of another place in the log.
    #[error("the record belongs at position {found}, not {expected}")]
    Misplaced {
        /// What its header says.
        found: Position,
        /// Where it was found.
        expected: Position,
    },
    /// It was written in a layout this release does not know.
    #[error("the record has format {0}, this release reads format 1: upgrade this node")]
    Format(u16),
}

impl<'a> Record<'a> {
    /// Parses and verifies the record that begins at log position `start` at the front of `bytes`.
    ///
    /// # Errors
    /// See [`RecordError`]; never panics, whatever the bytes.
    pub fn parse(start: Position, bytes: &'a [u8]) -> Result<Self, RecordError> {
        let record = Self::parse_trusted(start, bytes)?;
        let raw = RawHeader::ref_from_bytes(&bytes[..HEADER_SIZE]).expect("length checked by parse_trusted");
        let size = HEADER_SIZE + record.payload.len();
        if crc32c(&bytes[4..size]) != raw.checksum.get() {
            return Err(RecordError::Checksum);
        }
        Ok(record)
    }

    /// Like [`Record::parse`] for bytes whose checksum was verified when they came in.
    ///
    /// # Errors
    /// All of [`RecordError`] but [`RecordError::Checksum`].
    pub fn parse_trusted(start: Position, bytes: &'a [u8]) -> Result<Self, RecordError> {
        let Some(head) = bytes.get(..HEADER_SIZE) else {
            return Err(RecordError::Incomplete { wanted: HEADER_SIZE });
        };
        let raw = RawHeader::ref_from_bytes(head).expect("exactly one header of bytes, no alignment needed");
        let size = raw.size.get() as usize;
        if !(HEADER_SIZE..=RECORD_SIZE_MAX).contains(&size) {
            return Err(RecordError::Size { size: raw.size.get() });
        }
        let padded = padded(size);
        let Some(whole) = bytes.get(..padded) else {
            return Err(RecordError::Incomplete { wanted: padded });
        };
        let expected = start.advance(padded as u64);
        let found = Position(raw.position.get());
        if found != expected {
            return Err(RecordError::Misplaced { found, expected });
        }
        if raw.format.get() != FORMAT {
            return Err(RecordError::Format(raw.format.get()));
        }
        Ok(Self {
            header: Header {
                position: found,
                term: Term(raw.term.get()),
                session: SessionId(raw.session.get()),
                request: RequestNumber(raw.request.get()),
                timestamp: Timestamp(raw.timestamp.get()),
                kind: raw.kind.get(),
                answered: raw.answered.get(),
            },
            payload: &whole[HEADER_SIZE..size],
            bytes: whole,
        })
    }
}

/// `size` rounded up to the records' alignment.
#[must_use]
pub fn padded(size: usize) -> usize {
    size.next_multiple_of(ALIGNMENT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn draft(payload: &[u8]) -> Draft<'_> {
        Draft {
            term: Term(3),
            session: SessionId(64),
            request: RequestNumber(9),
            timestamp: Timestamp(77),
            kind: Kind::Command,
            answered: 2,
            payload,
        }
    }

    fn encoded(start: Position, payload: &[u8]) -> Vec<u8> {
        let draft = draft(payload);
        let mut out = vec![0xAA; draft.padded_size()];
        draft.encode(start, &mut out);
        out
    }

    #[test]
    fn layout_is_the_documented_one() {
        let bytes = encoded(Position(128), b"abc");
        assert_eq!(bytes.len(), 64);
        assert_eq!(u32::from_le_bytes(bytes[4..8].try_into().expect("four bytes")), 59);
        assert_eq!(u64::from_le_bytes(bytes[8..16].try_into().expect("eight bytes")), 192);
        assert_eq!(u64::from_le_bytes(bytes[16..24].try_into().expect("eight bytes")), 3);
        assert_eq!(u16::from_le_bytes(bytes[48..50].try_into().expect("two bytes")), 1);
        assert_eq!(&bytes[56..59], b"abc");
        assert_eq!(&bytes[59..], &[0; 5]);
    }

    #[test]
    fn a_record_at_another_place_does_not_pass() {
        let bytes = encoded(Position(128), b"abc");
        assert!(Record::parse(Position(128), &bytes).is_ok());
        assert!(matches!(Record::parse(Position(192), &bytes), Err(RecordError::Misplaced { .. })));
    }

    #[test]
    fn kinds_keep_their_numbers() {
        for number in 0..=u16::MAX {
            if let Some(kind) = Kind::from_number(number) {
                assert_eq!(kind as u16, number);
            }
        }
        assert_eq!(Kind::from_number(13), Some(Kind::Refusal));
        assert_eq!(Kind::from_number(14), None);
    }

    proptest! {
        #[test]
        fn round_trip(start in 0_u64..1 << 40, payload in proptest::collection::vec(any::<u8>(), 0..300)) {
            let start = Position(start * 8);
            let bytes = encoded(start, &payload);
            let record = Record::parse(start, &bytes).expect("just encoded");
            prop_assert_eq!(record.payload, &payload[..]);
            prop_assert_eq!(record.header.position, start.advance(bytes.len() as u64));
        }

        #[test]
        fn any_flipped_bit_is_noticed(payload in proptest::collection::vec(any::<u8>(), 0..64), at in any::<prop::sample::Index>(), bit in 0..8) {
            let mut bytes = encoded(Position(64), &payload);
            let content = HEADER_SIZE + payload.len();
            bytes[at.index(content)] ^= 1_u8 << bit;
            prop_assert!(Record::parse(Position(64), &bytes).is_err());
        }

        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Record::parse(Position(0), &bytes);
        }
    }
}
