//! What one replica gives another that lacks it: blocks of the log that do not read back there, and snapshots.

use zerocopy::byteorder::little_endian::U64;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{PeerFrame, flag};
use crate::frame::{self, Block, Frame, FrameError, Full};
use crate::{Position, Term};

/// A replica asks for a part of the log that it had and cannot read any more.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct RepairRequest {
    /// Where it begins: a record boundary.
    pub first: Position,
    /// Where it ends: a record boundary.
    pub end: Position,
    /// Term of all records in it: who has these positions in this term has the same bytes.
    pub term: Term,
}

/// The answer to [`RepairRequest`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct RepairReply {
    /// As it was asked.
    pub first: Position,
    /// As it was asked.
    pub end: Position,
    /// As it was asked.
    pub term: Term,
    /// The bytes go with this; otherwise the speaker does not have them.
    pub found: bool,
}

/// A replica can only go on with a snapshot that stands at `beyond` or higher: a part of its log below cannot be repaired.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct SnapshotRequest {
    /// See above.
    pub beyond: Position,
}

/// A leader sends a part of a snapshot to a replica that lacks what the leader's log no longer has.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct SnapshotChunk {
    /// The leader's term.
    pub term: Term,
    /// Where the snapshot stands.
    pub position: Position,
    /// Bytes of the whole snapshot.
    pub size: u64,
    /// Where in the snapshot the data belongs.
    pub offset: u64,
}

/// The answer to [`SnapshotChunk`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct SnapshotReply {
    /// As it was said.
    pub term: Term,
    /// As it was said.
    pub position: Position,
    /// What is wanted next; the snapshot's size when all has come.
    pub offset: u64,
    /// How it stands.
    pub progress: SnapshotProgress,
}

/// How far the taking over of a snapshot has come. The numbers are on the wire for ever.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum SnapshotProgress {
    /// More is wanted, or what has come is being kept.
    GoesOn = 0,
    /// It is in force, or was not needed.
    Done = 1,
    /// It cannot be used here.
    Refused = 2,
    /// What came is not what was saved.
    Damaged = 3,
}

block! { RepairRequestBlock = 9 { first: U64, end: U64, term: U64, } }
block! { RepairReplyBlock = 10 { first: U64, end: U64, term: U64, found: u8, padding: [u8; 7], } }
block! { SnapshotChunkBlock = 11 { term: U64, position: U64, size: U64, offset: U64, } }
block! { SnapshotRequestBlock = 13 { beyond: U64, } }
block! { SnapshotReplyBlock = 12 { term: U64, position: U64, offset: U64, progress: u8, padding: [u8; 7], } }

/// Bytes that a repair's frame takes beside its data.
pub const REPAIR_OVERHEAD: usize = frame::HEADER_SIZE + size_of::<RepairReplyBlock>();

/// Bytes that a part of a snapshot takes beside its data.
pub const SNAPSHOT_OVERHEAD: usize = frame::HEADER_SIZE + size_of::<SnapshotChunkBlock>();

/// Writes a question for a part of the log.
///
/// # Errors
/// [`Full`] if it does not fit `out`'s capacity.
pub fn put_repair_request(out: &mut Vec<u8>, request: &RepairRequest) -> Result<(), Full> {
    let RepairRequest { first, end, term } = request;
    let block = RepairRequestBlock { first: first.0.into(), end: end.0.into(), term: term.0.into() };
    frame::put(out, &block, &[])
}

/// Writes a part of the log, or that this side does not have it.
///
/// # Errors
/// [`Full`] if it does not fit `out`'s capacity.
pub fn put_repair_reply(out: &mut Vec<u8>, reply: &RepairReply, data: &[u8]) -> Result<(), Full> {
    assert_eq!(reply.found, !data.is_empty(), "the reply says whether data goes with it");
    let block = RepairReplyBlock {
        first: reply.first.0.into(),
        end: reply.end.0.into(),
        term: reply.term.0.into(),
        found: reply.found.into(),
        padding: [0; 7],
    };
    frame::put(out, &block, data)
}

/// Writes a question for a snapshot.
///
/// # Errors
/// [`Full`] if it does not fit `out`'s capacity.
pub fn put_snapshot_request(out: &mut Vec<u8>, request: &SnapshotRequest) -> Result<(), Full> {
    frame::put(out, &SnapshotRequestBlock { beyond: request.beyond.0.into() }, &[])
}

/// Writes a part of a snapshot.
///
/// # Errors
/// [`Full`] if it does not fit `out`'s capacity.
pub fn put_snapshot_chunk(out: &mut Vec<u8>, chunk: &SnapshotChunk, data: &[u8]) -> Result<(), Full> {
    let block = SnapshotChunkBlock {
        term: chunk.term.0.into(),
        position: chunk.position.0.into(),
        size: chunk.size.into(),
        offset: chunk.offset.into(),
    };
    frame::put(out, &block, data)
}

/// Writes how far a snapshot has come.
///
/// # Errors
/// [`Full`] if it does not fit `out`'s capacity.
pub fn put_snapshot_reply(out: &mut Vec<u8>, reply: &SnapshotReply) -> Result<(), Full> {
    let block = SnapshotReplyBlock {
        term: reply.term.0.into(),
        position: reply.position.0.into(),
        offset: reply.offset.into(),
        progress: reply.progress as u8,
        padding: [0; 7],
    };
    frame::put(out, &block, &[])
}

/// Reads one of these frames; `None` if it is another one.
pub(super) fn read<'a>(frame: &Frame<'a>) -> Result<Option<PeerFrame<'a>>, FrameError> {
    if frame.is::<RepairRequestBlock>() {
        let (block, _) = frame.read::<RepairRequestBlock>()?;
        let request = RepairRequest {
            first: Position(block.first.get()),
            end: Position(block.end.get()),
            term: Term(block.term.get()),
        };
        if request.first >= request.end {
            return Err(FrameError::Field("end"));
        }
        return Ok(Some(PeerFrame::RepairRequest(request)));
    }
    if frame.is::<RepairReplyBlock>() {
        let (block, data) = frame.read::<RepairReplyBlock>()?;
        let reply = RepairReply {
            first: Position(block.first.get()),
            end: Position(block.end.get()),
            term: Term(block.term.get()),
            found: flag(block.found, "found")?,
        };
        return Ok(Some(PeerFrame::RepairReply(reply, data)));
    }
    if frame.is::<SnapshotChunkBlock>() {
        let (block, data) = frame.read::<SnapshotChunkBlock>()?;
        let chunk = SnapshotChunk {
            term: Term(block.term.get()),
            position: Position(block.position.get()),
            size: block.size.get(),
            offset: block.offset.get(),
        };
        let fits = chunk.offset.checked_add(data.len() as u64).is_some_and(|end| end <= chunk.size);
        if !fits || data.is_empty() {
            return Err(FrameError::Field("offset"));
        }
        return Ok(Some(PeerFrame::SnapshotChunk(chunk, data)));
    }
    if frame.is::<SnapshotReplyBlock>() {
        let (block, _) = frame.read::<SnapshotReplyBlock>()?;
        let reply = SnapshotReply {
            term: Term(block.term.get()),
            position: Position(block.position.get()),
            offset: block.offset.get(),
            progress: match block.progress {
                0 => SnapshotProgress::GoesOn,
                1 => SnapshotProgress::Done,
                2 => SnapshotProgress::Refused,
                3 => SnapshotProgress::Damaged,
                _ => return Err(FrameError::Field("progress")),
            },
        };
        return Ok(Some(PeerFrame::SnapshotReply(reply)));
    }
    if frame.is::<SnapshotRequestBlock>() {
        let (block, _) = frame.read::<SnapshotRequestBlock>()?;
        return Ok(Some(PeerFrame::SnapshotRequest(SnapshotRequest { beyond: Position(block.beyond.get()) })));
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::super::read;
    use super::*;

    #[test]
    fn repairs_come_back_as_they_were() {
        let mut out = Vec::with_capacity(1024);
        let request = RepairRequest { first: Position(64), end: Position(128), term: Term(3) };
        put_repair_request(&mut out, &request).expect("there is room");
        let (frame, size) = Frame::take(&out).expect("well formed").expect("complete");
        assert_eq!((read(&frame), size), (Ok(PeerFrame::RepairRequest(request)), out.len()));
        for data in [&b"sixty-four bytes"[..], b""] {
            out.clear();
            let found = !data.is_empty();
            let reply = RepairReply { first: Position(64), end: Position(128), term: Term(3), found };
            put_repair_reply(&mut out, &reply, data).expect("there is room");
            let (frame, size) = Frame::take(&out).expect("well formed").expect("complete");
            assert_eq!((read(&frame), size), (Ok(PeerFrame::RepairReply(reply, data)), out.len()));
        }
    }

    #[test]
    fn snapshots_come_back_as_they_were() {
        let mut out = Vec::with_capacity(1024);
        let request = SnapshotRequest { beyond: Position(64) };
        put_snapshot_request(&mut out, &request).expect("there is room");
        let (frame, size) = Frame::take(&out).expect("well formed").expect("complete");
        assert_eq!((read(&frame), size), (Ok(PeerFrame::SnapshotRequest(request)), out.len()));
        out.clear();
        let chunk = SnapshotChunk { term: Term(3), position: Position(64), size: 100, offset: 94 };
        put_snapshot_chunk(&mut out, &chunk, b"sixsix").expect("there is room");
        let (frame, size) = Frame::take(&out).expect("well formed").expect("complete");
        assert_eq!((read(&frame), size), (Ok(PeerFrame::SnapshotChunk(chunk, b"sixsix")), out.len()));
        out.clear();
        put_snapshot_chunk(&mut out, &chunk, b"sevenup").expect("there is room");
        let (frame, _) = Frame::take(&out).expect("well formed").expect("complete");
        assert_eq!(read(&frame), Err(FrameError::Field("offset")), "more than the whole");
        for progress in
            [SnapshotProgress::GoesOn, SnapshotProgress::Done, SnapshotProgress::Refused, SnapshotProgress::Damaged]
        {
            out.clear();
            let reply = SnapshotReply { term: Term(3), position: Position(64), offset: 100, progress };
            put_snapshot_reply(&mut out, &reply).expect("there is room");
            let (frame, size) = Frame::take(&out).expect("well formed").expect("complete");
            assert_eq!((read(&frame), size), (Ok(PeerFrame::SnapshotReply(reply)), out.len()));
        }
    }
}
