//! The sparse table from stream positions to places on disk.
//!
//! An entry names the place of one block: at least one entry per 64 KiB of file, one for each segment's first block,
//! and one for every block that begins below the end of what came before it (a truncation). Between two entries
//! the blocks of a segment follow each other without a gap, so a reader finds its way by their headers.

use evershard_protocol::Position;

use crate::segment::SegmentNumber;

/// Bytes of file between two entries, at least.
pub const TABLE_STEP: u64 = 64 * 1024;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Entry {
    position: Position,
    segment: SegmentNumber,
    offset: u64,
}

/// Where a position is to be looked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Location {
    /// The segment to read.
    pub segment: SegmentNumber,
    /// Where a block begins in that segment's file.
    pub offset: u64,
    /// First position of that block.
    pub position: Position,
    /// The stream is to be read here up to this position only; the maximum if nothing follows.
    pub end: Position,
}

impl Location {
    /// The same place, not to be read beyond `position`: how a reader keeps to what is durable.
    #[must_use]
    pub fn until(self, position: Position) -> Self {
        Self { end: self.end.min(position), ..self }
    }
}

/// Positions to places, ascending in both.
///
/// Invariant: positions ascend strictly; segments ascend; offsets ascend within a segment.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct BlockTable {
    entries: Vec<Entry>,
}

impl BlockTable {
    /// The block to begin with in order to read from `position` on; `None` below the log's first block.
    #[must_use]
    pub fn locate(&self, position: Position) -> Option<Location> {
        let behind = self.entries.partition_point(|entry| entry.position <= position);
        let entry = self.entries[..behind].last()?;
        let end = self.entries.get(behind).map_or(Position(u64::MAX), |next| next.position);
        Some(Location { segment: entry.segment, offset: entry.offset, position: entry.position, end })
    }

    /// The lowest position that can be read.
    #[must_use]
    pub fn first(&self) -> Option<Position> {
        self.entries.first().map(|entry| entry.position)
    }

    /// The number of entries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is nothing to read.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Notes the block at `offset` that begins at `position`; `cuts` if that is below the end of the block before.
    pub(crate) fn note(&mut self, position: Position, segment: SegmentNumber, offset: u64, cuts: bool) {
        let near = self.entries.last().is_some_and(|last| last.segment == segment && offset - last.offset < TABLE_STEP);
        if near && !cuts {
            return;
        }
        self.truncate(position);
        self.entries.push(Entry { position, segment, offset });
    }

    /// Drops the entries at and above `to`.
    pub(crate) fn truncate(&mut self, to: Position) {
        let kept = self.entries.partition_point(|entry| entry.position < to);
        self.entries.truncate(kept);
    }

    /// Drops the entries of segments below `segment`.
    pub(crate) fn forget_before(&mut self, segment: SegmentNumber) {
        let gone = self.entries.partition_point(|entry| entry.segment < segment);
        self.entries.drain(..gone);
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        self.entries.clear();
    }

    /// Makes room for all the entries `count` segments of `size` bytes can bring, and some for truncations.
    pub(crate) fn reserve_segments(&mut self, size: u64, count: usize) {
        let steps = usize::try_from(size / TABLE_STEP).expect("a segment's steps fit memory");
        self.entries.reserve((count + 1) * (steps + TRUNCATIONS_RESERVED));
    }
}

/// Entries kept in reserve per segment for truncations, which may come at any block.
const TRUNCATIONS_RESERVED: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: SegmentNumber = SegmentNumber(1);
    const TWO: SegmentNumber = SegmentNumber(2);
    const END: Position = Position(u64::MAX);

    fn check(table: &BlockTable, position: u64, expected: Option<(SegmentNumber, u64, u64, Position)>) {
        let expected = expected.map(|(segment, offset, position, end)| Location {
            segment,
            offset,
            position: Position(position),
            end,
        });
        assert_eq!(table.locate(Position(position)), expected, "at {position}");
    }

    #[test]
    fn sparse_within_a_segment_dense_at_its_start() {
        let mut table = BlockTable::default();
        check(&table, 0, None);
        table.note(Position(0), ONE, 4096, false);
        table.note(Position(1000), ONE, 8192, false);
        table.note(Position(90_000), ONE, 4096 + TABLE_STEP, false);
        table.note(Position(95_000), TWO, 4096, false);
        assert_eq!(table.len(), 3);
        check(&table, 1500, Some((ONE, 4096, 0, Position(90_000))));
        check(&table, 95_000, Some((TWO, 4096, 95_000, END)));
        table.forget_before(TWO);
        check(&table, 94_999, None);
        assert_eq!(table.first(), Some(Position(95_000)));
    }

    /// The scheme of [`Location`] alone is used here.
    #[test]
    fn a_truncation_has_its_entry_and_bounds_the_one_before() {
        let mut table = BlockTable::default();
        table.note(Position(0), ONE, 4096, false);
        table.note(Position(500), TWO, 4096, false);
        table.truncate(Position(300));
        table.note(Position(300), TWO, 8192, true);
        check(&table, 299, Some((ONE, 4096, 0, Position(300))));
        check(&table, 700, Some((TWO, 8192, 300, END)));
        assert_eq!(table.locate(Position(299)).map(|at| at.until(Position(200)).end), Some(Position(200)));
    }
}
