//! The end of the stream, in memory.
//!
//! Records are encoded here once and go from here to the file and to the peers. One buffer of fixed capacity is used as
//! a bip-buffer: a record that does not fit between the last one and the buffer's end goes to the buffer's front, so no
//! record is ever split and any range of the stream is at most two slices.
//!
//! ```text
//! |  wrap .. end  |  free  |  start .. wrap  | unused |      wrapped
//! |     free      |  start .. end  |     free         |      not wrapped
//! 0                        head                        capacity
//! ```

use evershard_protocol::Position;
use evershard_protocol::limits::RECORD_SIZE_MAX;
use evershard_protocol::record::{Draft, Kind, Record};
use std::collections::VecDeque;

/// There is no room: the record was not taken, the tail is as before. Wait until `floor` can rise.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the log's tail has no room for {wanted} bytes above the floor")]
pub struct TailFull {
    /// Bytes of the record that did not fit.
    pub wanted: usize,
}

/// The stream from [`Tail::start`] to [`Tail::end`], in memory.
#[derive(Debug)]
pub struct Tail {
    buffer: Vec<u8>,
    region: Region,
    /// Some record boundaries of (start, end], ascending, about `mark_step` apart: forgetting and cutting need not
    /// walk record by record.
    marks: VecDeque<Position>,
    mark_step: u64,
    /// Where the records in memory end that change the configuration, ascending.
    memberships: VecDeque<Position>,
}

/// Where the stream lies in the buffer.
#[derive(Clone, Copy, Debug)]
struct Region {
    start: Position,
    end: Position,
    /// Index of the byte at `start`.
    head: usize,
    /// Position of the byte at index 0, if writing went on there. Invariant: `start < wrap < end`.
    wrap: Option<Position>,
}

/// What is kept of marks: forgetting goes in steps of 1/1024 of the capacity.
const MARKS: usize = 1024;
/// Changes of the configuration in memory for which there is room from the start.
const MEMBERSHIPS_RESERVED: usize = 64;

impl Tail {
    /// An empty tail; the next record begins at `start`.
    ///
    /// # Panics
    /// If not even one record of the largest size fits: a configuration bug.
    #[must_use]
    pub fn new(capacity: usize, start: Position) -> Self {
        assert!(capacity >= RECORD_SIZE_MAX, "the largest record must fit");
        let mark_step = (capacity / MARKS).max(1) as u64;
        Self {
            buffer: vec![0; capacity],
            region: Region::empty(start),
            marks: VecDeque::with_capacity(MARKS + 2),
            mark_step,
            memberships: VecDeque::with_capacity(MEMBERSHIPS_RESERVED),
        }
    }

    /// The first position in memory.
    #[must_use]
    pub fn start(&self) -> Position {
        self.region.start
    }

    /// Where the stream ends; the next record begins here.
    #[must_use]
    pub fn end(&self) -> Position {
        self.region.end
    }

    /// Bytes of the buffer.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.buffer.len()
    }

    /// Encodes a record at the end and returns its position. May forget what is below `floor`, oldest first.
    ///
    /// # Errors
    /// [`TailFull`] if it does not fit without forgetting something at or above `floor`.
    pub fn append(&mut self, draft: &Draft<'_>, floor: Position) -> Result<Position, TailFull> {
        let size = draft.padded_size();
        let index = self.make_room(size, floor)?;
        let end = draft.encode(self.region.end, &mut self.buffer[index..index + size]);
        self.advance(index, end);
        self.note_kind(draft.kind as u16, end);
        Ok(end)
    }

    /// Appends a record that a leader sent: verified, padded, and belonging at [`Tail::end`]. Otherwise as
    /// [`Tail::append`].
    ///
    /// # Errors
    /// [`TailFull`] if it does not fit without forgetting something at or above `floor`.
    ///
    /// # Panics
    /// If the bytes are not exactly one record for this place: it was to be verified before.
    pub fn append_record(&mut self, record: &[u8], floor: Position) -> Result<Position, TailFull> {
        let parsed = Record::parse_trusted(self.region.end, record).expect("a verified record that belongs here");
        assert_eq!(parsed.bytes.len(), record.len(), "one record, with its padding");
        let end = parsed.header.position;
        let index = self.make_room(record.len(), floor)?;
        let kind = parsed.header.kind;
        self.buffer[index..index + record.len()].copy_from_slice(record);
        self.advance(index, end);
        self.note_kind(kind, end);
        Ok(end)
    }

    /// Whether a record of this padded size can be appended with this floor.
    #[must_use]
    pub fn has_room(&self, padded_size: usize, floor: Position) -> bool {
        if self.region.place(padded_size, self.buffer.len()).is_some() {
            return true;
        }
        let mut region = self.region;
        region.forget(self.boundary_within(region.start, floor.clamp(region.start, region.end)));
        region.place(padded_size, self.buffer.len()).is_some()
    }

    /// Cuts the stream: drops what is behind the record boundary `to`. Below [`Tail::start`] the tail becomes empty at
    /// `to`.
    ///
    /// # Panics
    /// If `to` lies behind the end: nothing can be cut there.
    pub fn truncate(&mut self, to: Position) {
        assert!(to <= self.region.end, "cutting does not extend");
        if to <= self.region.start {
            self.reset(to);
            return;
        }
        debug_assert_eq!(self.boundary_within(self.region.start, to), to, "a cut is at a record boundary");
        self.region.end = to;
        self.region.wrap = self.region.wrap.filter(|wrap| *wrap < to);
        while self.marks.back().is_some_and(|mark| *mark > to) {
            self.marks.pop_back();
        }
        while self.memberships.back().is_some_and(|end| *end > to) {
            self.memberships.pop_back();
        }
    }

    /// Becomes empty; the next record begins at `start`.
    pub fn reset(&mut self, start: Position) {
        self.region = Region::empty(start);
        self.marks.clear();
        self.memberships.clear();
    }

    /// How many records of [from, to), which is in memory, change the configuration.
    pub(crate) fn memberships_within(&self, from: Position, to: Position) -> u16 {
        let within = self.memberships.iter().filter(|end| **end > from && **end <= to).count();
        u16::try_from(within).unwrap_or(u16::MAX)
    }

    fn note_kind(&mut self, kind: u16, end: Position) {
        if kind == Kind::Membership as u16 {
            // What was forgotten meanwhile was written to disk before.
            while self.memberships.front().is_some_and(|end| *end <= self.region.start) {
                self.memberships.pop_front();
            }
            self.memberships.push_back(end);
        }
    }

    /// The bytes of [from, to), in two slices because of the wrap; the second may be empty. `None` if they are
    /// not all in memory.
    #[must_use]
    pub fn range(&self, from: Position, to: Position) -> Option<(&[u8], &[u8])> {
        let region = &self.region;
        if from > to || from < region.start || to > region.end {
            return None;
        }
        let wrap = region.wrap.unwrap_or(region.end);
        let high = (from.min(wrap), to.min(wrap));
        let low = (from.max(wrap), to.max(wrap));
        let high_at = region.head + offset(region.start, high.0);
        let low_at = offset(wrap, low.0);
        let high = &self.buffer[high_at..high_at + offset(high.0, high.1)];
        let low = &self.buffer[low_at..low_at + offset(low.0, low.1)];
        Some(if high.is_empty() { (low, high) } else { (high, low) })
    }

    /// The record that begins at `start`; `None` if it is not in memory or `start` is the end.
    ///
    /// # Panics
    /// If `start` is in memory and no record begins there: the caller's bug.
    #[must_use]
    pub fn record_from(&self, start: Position) -> Option<Record<'_>> {
        let (bytes, more) = self.range(start, self.region.end)?;
        let bytes = if bytes.is_empty() { more } else { bytes };
        if bytes.is_empty() {
            return None;
        }
        Some(Record::parse_trusted(start, bytes).expect("the tail holds whole records, and one begins here"))
    }

    /// The largest record boundary up to `to_max`, which is at least the boundary `from`.
    ///
    /// # Panics
    /// If `from` is not a boundary in memory or lies behind `to_max`: the caller's bug.
    #[must_use]
    pub fn boundary_within(&self, from: Position, to_max: Position) -> Position {
        assert!(from >= self.region.start && from <= self.region.end, "the walk begins in memory");
        assert!(from <= to_max, "the walk goes forwards");
        if to_max >= self.region.end {
            return self.region.end;
        }
        let marked = self.marks.partition_point(|mark| *mark <= to_max);
        let mark = marked.checked_sub(1).map_or(from, |last| self.marks[last]);
        let mut boundary = from.max(mark);
        while let Some(record) = self.record_from(boundary) {
            if record.header.position > to_max {
                break;
            }
            boundary = record.header.position;
        }
        boundary
    }

    /// Finds the index for `size` bytes, forgetting as little below `floor` as it takes.
    fn make_room(&mut self, size: usize, floor: Position) -> Result<usize, TailFull> {
        let capacity = self.buffer.len();
        if let Some(index) = self.region.place(size, capacity) {
            return Ok(index);
        }
        if !self.has_room(size, floor) {
            return Err(TailFull { wanted: size });
        }
        while let Some(mark) = self.marks.front().copied().filter(|mark| *mark <= floor) {
            self.region.forget(mark);
            self.marks.pop_front();
            if let Some(index) = self.region.place(size, capacity) {
                return Ok(index);
            }
        }
        let floor = floor.clamp(self.region.start, self.region.end);
        self.region.forget(self.boundary_within(self.region.start, floor));
        while self.marks.front().is_some_and(|mark| *mark <= self.region.start) {
            self.marks.pop_front();
        }
        Ok(self.region.place(size, capacity).expect("has_room said so"))
    }

    /// Takes note of a record written at `index` that ends at `end`.
    fn advance(&mut self, index: usize, end: Position) {
        self.region.extend(index, end);
        let last = self.marks.back().copied().unwrap_or(self.region.start);
        if end.since(last) >= self.mark_step {
            assert!(self.marks.len() <= MARKS + 1, "marks are a step apart");
            self.marks.push_back(end);
        }
    }
}

impl Region {
    fn empty(start: Position) -> Self {
        Self { start, end: start, head: 0, wrap: None }
    }

    /// Where a record of `size` bytes goes, if it fits as things are.
    fn place(&self, size: usize, capacity: usize) -> Option<usize> {
        if self.start == self.end {
            return (size <= capacity).then_some(0);
        }
        if let Some(wrap) = self.wrap {
            let index = offset(wrap, self.end);
            return (index + size <= self.head).then_some(index);
        }
        let index = self.head + offset(self.start, self.end);
        if index + size <= capacity {
            return Some(index);
        }
        (size <= self.head).then_some(0)
    }

    fn extend(&mut self, index: usize, end: Position) {
        if self.start == self.end {
            self.head = index;
        } else if index == 0 {
            self.wrap = Some(self.end);
        }
        self.end = end;
    }

    /// Forgets what is below the boundary `to`.
    fn forget(&mut self, to: Position) {
        assert!(to >= self.start && to <= self.end, "forgets what is there");
        match self.wrap {
            Some(wrap) if to >= wrap => {
                self.head = offset(wrap, to);
                self.wrap = None;
            }
            _ => self.head += offset(self.start, to),
        }
        self.start = to;
    }
}

fn offset(from: Position, to: Position) -> usize {
    usize::try_from(to.since(from)).expect("the tail is in memory")
}
