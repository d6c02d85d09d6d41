//! A hole: a block that is known and does not read back. Which positions it held, of which term, and the checksum of
//! what it held are in its header; the bytes are in the same part of the stream on the other replicas.
//!
//! The rule that a block is never written again keeps: what a repair writes is exactly what was there, proven by the
//! checksums, so a repair that is torn leaves the hole that was there before. A hole counts as durable. It is faulty,
//! not absent: its replica never says that it lacks these records, and it cannot give them to anybody either.
//!
//! A hole in the middle of which the stream was cut later cannot be proven any more: what was cut is nowhere to be had.
//! Recovery takes it for a fault ([`crate::FaultReason::CutHole`]), and so it does a block that held a configuration:
//! without that, nobody could say whose word counts behind it.

use evershard_protocol::{Position, Term};

use crate::block::{BLOCK_ALIGNMENT, BLOCK_HEADER_SIZE, BlockHeader, WRITE_SIZE_MAX};
use crate::segment::SegmentNumber;

/// Holes of one log that are kept apart. More: recovery ends the good prefix at the next one.
pub const HOLES_MAX: usize = 64;

/// A block that does not read back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hole {
    header: BlockHeader,
    /// Of the block before, which the block repeats.
    before: Option<BlockHeader>,
    /// The stream goes through it up to here. Invariant: above its first position and at most its end.
    until: Position,
}

/// Why bytes do not fill a hole. Nothing may be written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RepairError {
    /// The caller or the peer mixed something up.
    #[error("the hole takes {expected} bytes, not {found}")]
    Size {
        /// Bytes that were there.
        expected: usize,
        /// Bytes that came.
        found: usize,
    },
    /// The peer has something else there, or it is damaged there too.
    #[error("these are not the bytes that were in the hole")]
    Content,
    /// The stream was cut within the block since.
    #[error("the log was cut within the hole: nobody has all the bytes that were in it")]
    Cut,
}

impl Hole {
    /// A hole of which nothing was cut yet.
    pub(crate) fn new(header: BlockHeader, before: Option<BlockHeader>) -> Self {
        assert!(header.used > 0, "a data block holds records");
        assert!(header.draft.chain == before.map_or(0, |before| before.checksum), "what the block repeats is known");
        Self { header, before, until: header.end() }
    }

    /// The same hole where the stream leaves it at `position`, if not before.
    pub(crate) fn cut_at(self, position: Position) -> Self {
        Self { until: self.until.min(position), ..self }
    }

    /// The segment it is in.
    #[must_use]
    pub fn segment(&self) -> SegmentNumber {
        self.header.draft.segment
    }

    /// Where in the segment's file.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.header.draft.offset
    }

    /// Bytes of the block in the file.
    #[must_use]
    pub fn size(&self) -> usize {
        self.header.size
    }

    /// The first position in it.
    #[must_use]
    pub fn first(&self) -> Position {
        self.header.draft.first
    }

    /// Where what was written there ends.
    #[must_use]
    pub fn end(&self) -> Position {
        self.header.end()
    }

    /// Where the stream leaves it: its end, if the log was not cut within it since.
    #[must_use]
    pub fn until(&self) -> Position {
        self.until
    }

    /// Term of all records in it.
    #[must_use]
    pub fn term(&self) -> Term {
        self.header.draft.term
    }

    /// Whether the stream was cut within it: then only a restart brings the log further (see the module's text).
    #[must_use]
    pub fn is_cut(&self) -> bool {
        self.until < self.end()
    }

    /// Fills the front of `out` with the block as it was, from the bytes of the stream that it held, and returns its
    /// size: that is to be written durably at [`Hole::offset`]. Every bit is proven.
    ///
    /// # Errors
    /// [`RepairError`]; `out` then holds nothing of use.
    ///
    /// # Panics
    /// If `out` is smaller than the block.
    pub fn rebuild(&self, stream: &[u8], out: &mut [u8]) -> Result<usize, RepairError> {
        if self.is_cut() {
            return Err(RepairError::Cut);
        }
        let used = self.header.used;
        if stream.len() != used {
            return Err(RepairError::Size { expected: used, found: stream.len() });
        }
        out[BLOCK_HEADER_SIZE..BLOCK_HEADER_SIZE + used].copy_from_slice(stream);
        let sealed = self.header.draft.seal(used, self.before.as_ref(), out);
        if sealed == self.header { Ok(self.header.size) } else { Err(RepairError::Content) }
    }
}

/// Holes of a log, ascending, after its stream was cut at `to`: gone if they lie behind it, marked if it goes through
/// one.
pub(crate) fn truncate(holes: &mut Vec<Hole>, to: Position) {
    holes.retain(|hole| hole.first() < to);
    if let Some(last) = holes.last_mut() {
        *last = last.cut_at(to);
    }
}

/// What is known of the block that should begin at the front of `chunk`, which lies at `offset` of a segment's file:
/// its header, if that is there, or as the block behind it repeats it.
pub(crate) fn known_header(chunk: &[u8], nonce: u64, segment: SegmentNumber, offset: u64) -> Option<BlockHeader> {
    let belongs =
        |block: &BlockHeader, at: usize| block.draft.nonce == nonce && block.belongs_at(segment, offset + at as u64);
    let own = BlockHeader::decode(chunk.get(..BLOCK_ALIGNMENT)?).ok();
    if let Some(block) = own.filter(|block| belongs(block, 0)) {
        return Some(block);
    }
    let units = chunk.chunks_exact(BLOCK_ALIGNMENT).enumerate().skip(1).take(WRITE_SIZE_MAX / BLOCK_ALIGNMENT);
    units.map(|(unit, bytes)| (unit * BLOCK_ALIGNMENT, bytes)).find_map(|(at, bytes)| {
        let behind = BlockHeader::decode(bytes).ok().filter(|block| belongs(block, at))?;
        behind.before(bytes).filter(|block| belongs(block, 0) && block.size == at)
    })
}
