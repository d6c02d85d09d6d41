//! Decides what is written where, and what is durable when.
//!
//! The writer hands out one block at a time, whatever is in the tail by then, and keeps at most
//! [`WriterConfig::writes_in_flight_max`] of them in flight. Completions come in any order; durable is the end of the
//! contiguous completed prefix in block order. A failed write is never tried again: the writer is failed for ever.

use evershard_protocol::bugs::{self, Bug};
use evershard_protocol::{Position, Term};
use std::collections::VecDeque;

use crate::block::{BLOCK_HEADER_SIZE, BlockDraft, BlockHeader, BlockKind, CONTENT_SIZE_MAX, WRITE_SIZE_MAX};
use crate::hole::{self, HOLES_MAX, Hole};
use crate::recovery::Recovered;
use crate::segment::{SEGMENT_HEADER_SIZE, SegmentHeader, SegmentNumber, is_segment_size};
use crate::start::{self, History, StartCause};
use crate::table::{BlockTable, Location};
use crate::tail::Tail;

/// Writes in flight that a configuration may ask for. More: the configuration is refused.
pub const WRITES_IN_FLIGHT_LIMIT: usize = 16;
/// Prepared segments that may wait for their turn.
pub const SEGMENTS_AHEAD_MAX: usize = 2;

/// How a writer works.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WriterConfig {
    /// Bytes of a new segment: see [`is_segment_size`].
    pub segment_size: u64,
    /// Writes handed out and not yet contiguously complete; 1 to [`WRITES_IN_FLIGHT_LIMIT`].
    pub writes_in_flight_max: usize,
}

impl Default for WriterConfig {
    fn default() -> Self {
        Self { segment_size: 64 * 1024 * 1024, writes_in_flight_max: 4 }
    }
}

/// What is to be done next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Plan {
    /// Everything in the tail was handed out.
    Nothing,
    /// There is something, and no segment to write it to: [`Writer::add_segment`] first.
    NoSegment,
    /// There is something, and it waits for a completion.
    TooManyInFlight,
    /// A write failed. Nothing will be written any more; start anew, with recovery.
    Failed,
    /// Write this.
    Write(Write),
}

/// One block to write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Write {
    /// The segment to write to.
    pub segment: SegmentNumber,
    /// Where in its file; a multiple of [`crate::BLOCK_ALIGNMENT`].
    pub offset: u64,
    /// Bytes at the front of the buffer to write; a multiple of [`crate::BLOCK_ALIGNMENT`].
    pub size: usize,
    /// Names the write when it is complete.
    pub sequence: u64,
}

/// Where the log goes on: what recovery found and the writer keeps up to date.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Place {
    /// The segment being written and the offset of its next block; `None`: the next block begins a new segment.
    pub current: Option<(SegmentHeader, u64)>,
    /// Header of the last block.
    pub last: Option<BlockHeader>,
    /// Why the next segment will begin.
    pub cause: StartCause,
    /// The highest number that any segment has.
    pub highest: SegmentNumber,
    /// See [`BlockDraft::known_end`]; 0 if the log is whole.
    pub known_end: Position,
}

impl Place {
    /// Of a log that has nothing yet.
    pub(crate) const FRESH: Self = Self {
        current: None,
        last: None,
        cause: StartCause::Roll,
        highest: SegmentNumber(0),
        known_end: Position::ZERO,
    };

    /// Sequence of the last block, 0 for none.
    pub(crate) fn sequence(&self) -> u64 {
        self.last.map_or(0, |last| last.draft.sequence)
    }

    /// Header checksum of the last block, 0 for none.
    pub(crate) fn chain(&self) -> u32 {
        self.last.map_or(0, |last| last.checksum)
    }

    /// Segment of the last block, 0 for none.
    pub(crate) fn previous(&self) -> SegmentNumber {
        self.last.map_or(SegmentNumber(0), |last| last.draft.segment)
    }
}

#[derive(Clone, Copy, Debug)]
struct InFlight {
    sequence: u64,
    end: Position,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Pending,
    Written,
    Failed,
}

/// Writes one shard's log.
///
/// Invariant: `durable <= submitted`, and both are at record boundaries.
#[derive(Debug)]
pub struct Writer {
    config: WriterConfig,
    place: Place,
    ahead: VecDeque<SegmentHeader>,
    segments: Vec<SegmentHeader>,
    table: BlockTable,
    in_flight: VecDeque<InFlight>,
    pending: usize,
    /// Nothing below can be cut.
    begin: Position,
    submitted: Position,
    /// End of the last block handed out, whatever was cut since.
    block_end: Position,
    durable: Position,
    /// Blocks below `durable` that do not read back, ascending. They count: they are known, and somebody has them.
    holes: Vec<Hole>,
    failed: bool,
}

impl Writer {
    /// Continues the log that recovery found; a [`Recovered::default`] begins a new one.
    ///
    /// What recovery read counts as durable from now on: the caller made it so (crate docs, duty 2).
    ///
    /// # Panics
    /// If the configuration is out of bounds: it is checked when it is read.
    #[must_use]
    pub fn new(config: WriterConfig, recovered: &Recovered) -> Self {
        assert!(is_segment_size(config.segment_size), "segment sizes are checked with the configuration");
        assert!((1..=WRITES_IN_FLIGHT_LIMIT).contains(&config.writes_in_flight_max), "as is this");
        let mut table = recovered.table.clone();
        table.reserve_segments(config.segment_size, SEGMENTS_RESERVED);
        let mut segments = recovered.segments.clone();
        segments.reserve(SEGMENTS_RESERVED);
        let mut holes = Vec::with_capacity(HOLES_MAX);
        holes.extend_from_slice(&recovered.holes);
        Self {
            config,
            place: recovered.place,
            ahead: VecDeque::with_capacity(SEGMENTS_AHEAD_MAX),
            segments,
            table,
            in_flight: VecDeque::with_capacity(WRITES_IN_FLIGHT_LIMIT),
            pending: 0,
            begin: recovered.start,
            submitted: recovered.end,
            block_end: recovered.end,
            durable: recovered.end,
            holes,
            failed: false,
        }
    }

    /// Takes a prepared segment; it is used when those before it are full.
    ///
    /// # Panics
    /// If the number was used before, or more than [`SEGMENTS_AHEAD_MAX`] wait: the caller's bug.
    pub fn add_segment(&mut self, header: SegmentHeader) {
        assert!(header.number > self.place.highest, "segment numbers are used once");
        assert!(is_segment_size(header.size), "the worker prepares segments of a legal size");
        assert!(self.ahead.len() < SEGMENTS_AHEAD_MAX, "no more than was wanted");
        self.place.highest = header.number;
        self.table.reserve_segments(header.size, 1);
        self.segments.push(header);
        self.ahead.push_back(header);
    }

    /// The number of the segment to be prepared now, if none waits.
    #[must_use]
    pub fn wants_segment(&self) -> Option<SegmentNumber> {
        self.ahead.is_empty().then(|| self.place.highest.next())
    }

    /// Fills `out` with the next block, if there is one to write: everything in the tail that was not handed out yet,
    /// cut at a record boundary and where the term changes. `out` is the caller's aligned buffer.
    ///
    /// # Panics
    /// If `out` is smaller than [`WRITE_SIZE_MAX`], the tail forgot what was not handed out (its floor must not rise
    /// above [`Writer::submitted`]), or the history does not reach as far as the tail.
    pub fn plan<H: History + ?Sized>(&mut self, tail: &Tail, committed: Position, history: &H, out: &mut [u8]) -> Plan {
        assert!(out.len() >= WRITE_SIZE_MAX, "the buffer takes the largest block");
        if self.failed {
            return Plan::Failed;
        }
        if tail.end() <= self.submitted {
            return Plan::Nothing;
        }
        assert!(tail.start() <= self.submitted, "the tail's floor is not above what was handed out");
        if self.in_flight.len() >= self.config.writes_in_flight_max {
            return Plan::TooManyInFlight;
        }
        if let Some((header, offset)) = self.place.current {
            let room = usize::try_from(header.size - offset).unwrap_or(usize::MAX);
            let content_max = room.saturating_sub(BLOCK_HEADER_SIZE).min(CONTENT_SIZE_MAX);
            let run_end = history.run_end(self.submitted);
            assert!(run_end > self.submitted, "the history knows the term of what is to be written");
            let cut = tail.boundary_within(self.submitted, self.submitted.advance(content_max as u64).min(run_end));
            if cut > self.submitted {
                return Plan::Write(self.data_block(header, offset, tail, cut, committed, out));
            }
        }
        let Some(header) = self.ahead.pop_front() else {
            return Plan::NoSegment;
        };
        Plan::Write(self.start_block(header, committed, history, out))
    }

    fn data_block(
        &mut self,
        segment: SegmentHeader,
        offset: u64,
        tail: &Tail,
        cut: Position,
        committed: Position,
        out: &mut [u8],
    ) -> Write {
        let (high, low) = tail.range(self.submitted, cut).expect("both are boundaries in memory");
        let used = high.len() + low.len();
        out[BLOCK_HEADER_SIZE..BLOCK_HEADER_SIZE + high.len()].copy_from_slice(high);
        out[BLOCK_HEADER_SIZE + high.len()..BLOCK_HEADER_SIZE + used].copy_from_slice(low);
        let term = tail.record_from(self.submitted).expect("there is something to write").header.term;
        let memberships = tail.memberships_within(self.submitted, cut);
        let draft = BlockDraft { memberships, ..self.draft(BlockKind::Data, segment, offset, committed, term) };
        self.hand_out(&draft, segment, used, cut, out)
    }

    fn start_block<H: History + ?Sized>(
        &mut self,
        segment: SegmentHeader,
        committed: Position,
        history: &H,
        out: &mut [u8],
    ) -> Write {
        let used = start::encode(self.submitted, history, &mut out[BLOCK_HEADER_SIZE..WRITE_SIZE_MAX]);
        let offset = SEGMENT_HEADER_SIZE as u64;
        let draft = self.draft(BlockKind::SegmentStart(self.place.cause), segment, offset, committed, Term(0));
        self.place.cause = StartCause::Roll;
        self.hand_out(&draft, segment, used, self.submitted, out)
    }

    fn draft(
        &self,
        kind: BlockKind,
        segment: SegmentHeader,
        offset: u64,
        committed: Position,
        term: Term,
    ) -> BlockDraft {
        BlockDraft {
            kind,
            chain: self.place.chain(),
            sequence: self.place.sequence() + 1,
            settled: self.place.sequence() - self.in_flight.len() as u64,
            nonce: segment.nonce,
            segment: segment.number,
            offset,
            first: self.submitted,
            durable: self.durable,
            committed,
            term,
            previous: self.place.previous(),
            known_end: self.place.known_end,
            memberships: 0,
        }
    }

    /// Seals the block and takes note of it.
    fn hand_out(
        &mut self,
        draft: &BlockDraft,
        segment: SegmentHeader,
        used: usize,
        end: Position,
        out: &mut [u8],
    ) -> Write {
        let sealed = draft.seal(used, self.place.last.as_ref(), out);
        let next = draft.offset + sealed.size as u64;
        assert!(next <= segment.size, "a block was cut to the room there is");
        self.table.note(draft.first, segment.number, draft.offset, draft.first < self.block_end);
        self.in_flight.push_back(InFlight { sequence: draft.sequence, end, state: State::Pending });
        self.pending += 1;
        self.place.last = Some(sealed);
        self.place.current = Some((segment, next));
        if end >= self.place.known_end {
            self.place.known_end = Position::ZERO;
        }
        self.submitted = end;
        self.block_end = end;
        Write { segment: segment.number, offset: draft.offset, size: sealed.size, sequence: draft.sequence }
    }

    /// Takes the completion of a write; they may come in any order. A short write is an error.
    ///
    /// # Panics
    /// If no such write is in flight: the caller's bug.
    pub fn on_written(&mut self, sequence: u64, outcome: Result<(), ()>) {
        let oldest = self.in_flight.front().expect("a completion has a write in flight").sequence;
        let index = usize::try_from(sequence.checked_sub(oldest).expect("not complete yet")).expect("a short queue");
        let write = self.in_flight.get_mut(index).expect("a write that was handed out");
        assert!(write.state == State::Pending, "a write completes once");
        write.state = if outcome.is_ok() { State::Written } else { State::Failed };
        self.pending -= 1;
        self.failed |= outcome.is_err();
        while let Some(write) = self.in_flight.front().copied().filter(|write| write.state == State::Written) {
            self.durable = self.durable.max(write.end);
            self.in_flight.pop_front();
        }
        if bugs::is_on(Bug::AckOverwritten) {
            self.durable = self.durable.min(self.submitted);
        }
        assert!(self.durable <= self.submitted, "what is durable was handed out");
    }

    /// The stream is cut at the record boundary `to`; the next block begins there. Nothing changes if `to` was not
    /// handed out yet.
    ///
    /// # Panics
    /// If `to` is below the log's begin: what a snapshot covers cannot be cut.
    pub fn truncate(&mut self, to: Position) {
        assert!(to >= self.begin, "what a snapshot covers is committed");
        if to >= self.submitted {
            return;
        }
        for write in self.in_flight.iter_mut().filter(|_| !bugs::is_on(Bug::AckOverwritten)) {
            write.end = write.end.min(to);
        }
        self.submitted = to;
        self.durable = self.durable.min(to);
        self.table.truncate(to);
        hole::truncate(&mut self.holes, to);
    }

    /// The stream begins anew at `start`, where a durable snapshot takes the place of everything before. The next block
    /// begins a new segment; all older ones may be deleted once that is durable.
    pub fn reset(&mut self, start: Position) {
        for write in &mut self.in_flight {
            write.end = start;
        }
        self.begin = start;
        self.submitted = start;
        self.block_end = start;
        self.durable = start;
        self.table.clear();
        self.holes.clear();
        self.place.current = None;
        self.place.cause = StartCause::Anew;
        if start >= self.place.known_end {
            self.place.known_end = Position::ZERO;
        }
    }

    /// The files of the segments below `segment` are gone (deleted lowest first), because a snapshot covers them.
    pub fn forget_before(&mut self, segment: SegmentNumber) {
        self.table.forget_before(segment);
        self.holes.retain(|hole| hole.segment() >= segment);
        self.segments.retain(|header| header.number >= segment);
    }

    /// The segment that the last block went to; `None` if the next block begins a new one.
    #[must_use]
    pub fn current_segment(&self) -> Option<SegmentNumber> {
        self.place.current.map(|(header, _)| header.number)
    }

    /// The lowest segment whose file is there, as far as the writer was told.
    #[must_use]
    pub fn first_segment(&self) -> Option<SegmentNumber> {
        self.segments.first().map(|header| header.number)
    }

    /// Forgets the holes below `to`, where a snapshot stands: what was there is needed no more, and is not in this log for
    /// others either. True if there were any.
    pub fn forgive_before(&mut self, to: Position) -> bool {
        let len = self.holes.len();
        self.holes.retain(|hole| hole.until() > to);
        self.holes.len() < len
    }

    /// Notes a block that did not read back; `false` if it is noted already, is not part of the log any more, or there
    /// are [`HOLES_MAX`] of them.
    pub fn note_hole(&mut self, hole: &Hole) -> bool {
        // If the stream was cut below it and written anew, the table names a later place.
        let leads_there = |at: Location| (at.segment, at.offset) <= (hole.segment(), hole.offset());
        let is_here = hole.first() < self.durable && self.table.locate(hole.first()).is_some_and(leads_there);
        if !is_here {
            return false;
        }
        let place = self.holes.partition_point(|other| other.first() < hole.first());
        let noted = self.holes.get(place).is_some_and(|other| other.first() == hole.first());
        if noted || self.holes.len() == HOLES_MAX {
            return false;
        }
        self.holes.insert(place, *hole);
        hole::truncate(&mut self.holes, self.submitted);
        true
    }

    /// A block was repaired in its place, durably: it reads back again.
    pub fn on_repaired(&mut self, segment: SegmentNumber, offset: u64) {
        self.holes.retain(|hole| hole.segment() != segment || hole.offset() != offset);
    }

    /// The blocks that do not read back, ascending.
    #[must_use]
    pub fn holes(&self) -> &[Hole] {
        &self.holes
    }

    /// The hole through which `position` goes, if there is one: reading stops there.
    #[must_use]
    pub fn hole_at(&self, position: Position) -> Option<&Hole> {
        let behind = self.holes.partition_point(|hole| hole.first() <= position);
        self.holes[..behind].last().filter(|hole| position < hole.until())
    }

    /// Handed to the disk up to here.
    #[must_use]
    pub fn submitted(&self) -> Position {
        self.submitted
    }

    /// Durable up to here: all blocks up to there are written, whatever the order of completions.
    #[must_use]
    pub fn durable(&self) -> Position {
        self.durable
    }

    /// Writes handed out that have not come back.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.pending
    }

    /// Whether a write failed.
    #[must_use]
    pub fn is_failed(&self) -> bool {
        self.failed
    }

    /// Where positions are on disk. Do not read beyond [`Writer::durable`] (see [`crate::table::Location::until`]).
    #[must_use]
    pub fn table(&self) -> &BlockTable {
        &self.table
    }

    /// The header of a segment, whose nonce a reader needs.
    #[must_use]
    pub fn segment(&self, number: SegmentNumber) -> Option<&SegmentHeader> {
        let index = self.segments.binary_search_by_key(&number, |header| header.number).ok()?;
        self.segments.get(index)
    }
}

/// Segments for which the tables have room from the start, so that taking one up allocates nothing for a long time. The
/// memory is not touched before it is used.
const SEGMENTS_RESERVED: usize = 256;
