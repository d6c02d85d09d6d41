//! The walk of recovery along the lineage, block by block.

use evershard_protocol::bugs::{self, Bug};
use evershard_protocol::limits::TERM_RUNS_MAX;
use evershard_protocol::record::Record;
use evershard_protocol::{Position, Term};

use crate::block::{BlockHeader, BlockKind};
use crate::recovery::{Cut, FaultReason, Recovered, RecoveryError, Verdict};
use crate::recovery_table::{ChainState, ContentState, Decision, HeaderState, Witness, decide};
use crate::scan::{Reading, Rest, SegmentState, Slot, StartBlock, Surveyed};
use crate::segment::SEGMENT_HEADER_SIZE;
use crate::start::{Lists, StartCause};

const FIRST_BLOCK: u64 = SEGMENT_HEADER_SIZE as u64;

/// Where the walk stands and what it has gathered.
pub(crate) struct Walk<'a> {
    segments: &'a [Surveyed],
    /// Segments of the lineage that the walk has not entered yet, oldest first.
    ahead: &'a [usize],
    /// Segments of the lineage that it has entered.
    entered: Vec<usize>,
    /// Index of the segment it stands in.
    at: usize,
    offset: u64,
    found: Recovered,
}

impl<'a> Walk<'a> {
    pub fn new(segments: &'a [Surveyed], lineage: &'a [usize]) -> Self {
        let headers = segments.iter().filter_map(|segment| segment.header().copied()).collect();
        let mut found = Recovered { segments: headers, ..Recovered::default() };
        if let Some(newest) = segments.last() {
            found.place.highest = newest.number;
        }
        Self { segments, ahead: lineage, entered: Vec::new(), at: 0, offset: FIRST_BLOCK, found }
    }

    /// Walks to the end of the log and says what is there.
    pub fn run(mut self, reading: &mut Reading<'_>) -> Result<Recovered, RecoveryError> {
        if self.segments.is_empty() {
            return Ok(self.found);
        }
        loop {
            if let Some(start) = self.next_start() {
                self.enter(reading, start)?;
                continue;
            }
            let slot = match self.segments[self.at].state {
                SegmentState::Ready { .. } => reading.slot(&self.segments[self.at], self.offset)?,
                SegmentState::Empty => Slot::without_block(HeaderState::Zero),
                SegmentState::Damaged => {
                    let rest = self.rest(reading)?;
                    if rest.here_used {
                        return self.finish_faulty(reading, rest, FaultReason::SegmentHeader);
                    }
                    Slot::without_block(HeaderState::Zero)
                }
            };
            let chain = slot.block.as_ref().map_or(ChainState::Breaks, |block| self.chain_state(block));
            let decided = |witness| decide(slot.header, slot.content, chain, witness);
            // What stands behind is looked through only where it makes a difference.
            if decided(Witness::None) == Decision::Accept && decided(Witness::Later) == Decision::Accept {
                let block = slot.block.expect("only a valid header is accepted");
                if self.accept(reading, &block)? {
                    continue;
                }
                let rest = self.rest(reading)?;
                return self.finish_faulty(reading, rest, FaultReason::Content);
            }
            let rest = self.rest(reading)?;
            if slot.header == HeaderState::Zero && !rest.here_used && self.ahead.is_empty() {
                // Nothing more here: if anything follows, it is a newer segment, whose start is not readable.
                if let Some(next) = rest.next_used {
                    (self.at, self.offset) = (next, FIRST_BLOCK);
                    continue;
                }
            }
            let missing = self.found.place.sequence + 1;
            return match decided(rest.witness(missing)) {
                Decision::End => self.finish_clean(reading),
                Decision::CutTorn => self.finish_torn(reading, rest),
                Decision::Faulty if bugs::is_on(Bug::TruncateOnChecksum) => self.finish_torn(reading, rest),
                Decision::Faulty => self.finish_faulty(reading, rest, reason(&slot)),
                Decision::Accept => unreachable!("acceptance does not depend on what stands behind"),
            };
        }
    }

    fn rest(&self, reading: &mut Reading<'_>) -> Result<Rest, RecoveryError> {
        reading.rest(self.segments, self.at, self.offset)
    }

    /// The next segment's start, if that follows the block before this place (or is the first of all).
    fn next_start(&self) -> Option<StartBlock> {
        let next = *self.segments[*self.ahead.first()?].start().expect("the lineage is readable");
        let follows = next.start.previous_sequence == self.found.place.sequence
            && next.start.previous == self.found.place.previous
            && self.chain_state(&next.block) != ChainState::Breaks;
        (self.entered.is_empty() || follows).then_some(next)
    }

    fn chain_state(&self, block: &BlockHeader) -> ChainState {
        let place = &self.found.place;
        let (draft, end) = (&block.draft, self.found.end);
        let chained = draft.sequence == place.sequence + 1 && draft.chain == place.chain;
        if !chained || draft.first > end || draft.first < self.found.start {
            ChainState::Breaks
        } else if draft.first == end {
            ChainState::Continues
        } else {
            ChainState::Truncates
        }
    }

    /// Goes over to the next segment of the lineage.
    fn enter(&mut self, reading: &mut Reading<'_>, next: StartBlock) -> Result<(), RecoveryError> {
        let index = self.ahead[0];
        let segment = &self.segments[index];
        let content = reading.bytes(segment, FIRST_BLOCK, next.block.size)?;
        let lists = Lists::decode(next.block.content(content)).unwrap_or_default();
        let first = next.block.draft.first;
        if self.entered.is_empty() {
            self.found.start = first;
            self.found.runs = lists.runs;
            self.found.place.sequence = next.block.draft.sequence - 1;
        }
        self.found.versions = lists.versions;
        self.found.place.known_end = next.start.known_end;
        self.ahead = &self.ahead[1..];
        self.entered.push(index);
        self.at = index;
        self.offset = FIRST_BLOCK;
        self.found.table.note(first, segment.number, FIRST_BLOCK, true);
        self.step(&next.block);
        Ok(())
    }

    /// Takes a data block; `false` if its records contradict the log.
    fn accept(&mut self, reading: &mut Reading<'_>, block: &BlockHeader) -> Result<bool, RecoveryError> {
        if block.draft.kind != BlockKind::Data {
            return Ok(false);
        }
        let segment = &self.segments[self.at];
        let content = block.content(reading.bytes(segment, self.offset, block.size)?);
        let first = block.draft.first;
        let kept = self.found.runs.partition_point(|(_, start)| *start < first);
        let term_before = kept.checked_sub(1).map_or(Term(0), |last| self.found.runs[last].0);
        let mut ascending = terms(first, content).map(|(term, _)| term);
        if ascending.try_fold(term_before, |last, term| (term >= last).then_some(term)).is_none() {
            return Ok(false);
        }
        self.found.runs.truncate(kept);
        let mut last = term_before;
        for (term, start) in terms(first, content) {
            if term > last {
                self.found.runs.push((term, start));
                last = term;
            }
        }
        self.found.table.note(first, segment.number, self.offset, first < self.found.end);
        self.step(block);
        Ok(true)
    }

    /// Stands behind a good block.
    fn step(&mut self, block: &BlockHeader) {
        let found = &mut self.found;
        found.end = block.end();
        found.runs.truncate(found.runs.partition_point(|(_, start)| *start < found.end));
        found.committed = found.committed.max(block.draft.committed);
        found.place.sequence = block.draft.sequence;
        found.place.chain = block.checksum;
        found.place.previous = block.draft.segment;
        if found.end >= found.place.known_end {
            found.place.known_end = Position::ZERO;
        }
        self.offset += block.size as u64;
    }

    fn finish_clean(mut self, reading: &mut Reading<'_>) -> Result<Recovered, RecoveryError> {
        if self.entered.last() == Some(&self.at) {
            let header = self.segments[self.at].header().expect("a segment that was entered");
            self.found.place.current = Some((*header, self.offset));
        }
        self.finish(reading, Verdict::Clean)
    }

    fn finish_torn(mut self, reading: &mut Reading<'_>, rest: Rest) -> Result<Recovered, RecoveryError> {
        let segment = self.segments[self.at].number;
        let cut = Cut { position: self.found.end, segment, offset: self.offset, bytes_left: rest.extent };
        self.found.cut = Some(cut);
        self.found.place.cause = StartCause::Torn;
        let offset = self.offset;
        self.finish(reading, Verdict::TornTailCut { segment, offset })
    }

    fn finish_faulty(
        mut self,
        reading: &mut Reading<'_>,
        rest: Rest,
        reason: FaultReason,
    ) -> Result<Recovered, RecoveryError> {
        let (segment, offset) = (self.segments[self.at].number, self.offset);
        let from = self.found.end;
        // The stream takes no more bytes than the files do, so this is an upper bound of what there once was.
        let bound = from.advance(rest.extent).max(rest.end_max);
        let place = &mut self.found.place;
        place.known_end = place.known_end.max(bound);
        place.cause = StartCause::Faulty;
        self.finish(reading, Verdict::Faulty { from, segment, offset, reason })
    }

    fn finish(mut self, reading: &mut Reading<'_>, verdict: Verdict) -> Result<Recovered, RecoveryError> {
        let from = self.found.end;
        self.found.verdict = match verdict {
            Verdict::Clean | Verdict::TornTailCut { .. } if self.found.place.known_end > from => Verdict::Faulty {
                from,
                segment: self.segments[self.at].number,
                offset: self.offset,
                reason: FaultReason::Unrepaired,
            },
            other => other,
        };
        self.found.committed = self.found.committed.min(from);
        let forgotten = self.found.runs.len().saturating_sub(TERM_RUNS_MAX);
        self.found.runs.drain(..forgotten);
        let newest = self.entered.last().copied();
        for (index, segment) in self.segments.iter().enumerate() {
            let left = newest.is_some_and(|newest| index < newest) && !self.entered.contains(&index);
            if left || (newest.is_none_or(|newest| index > newest) && reading.is_unused(segment)?) {
                self.found.unused.push(segment.number);
            }
        }
        Ok(self.found)
    }
}

/// The terms of verified records and where each record begins.
fn terms(first: Position, content: &[u8]) -> impl Iterator<Item = (Term, Position)> + '_ {
    let mut start = first;
    let mut rest = content;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let record = Record::parse_trusted(start, rest).expect("the records were verified");
        let found = (record.header.term, start);
        start = record.header.position;
        rest = &rest[record.bytes.len()..];
        Some(found)
    })
}

fn reason(slot: &Slot) -> FaultReason {
    match (slot.header, slot.content) {
        (HeaderState::Damaged, _) => FaultReason::Header,
        (HeaderState::Zero | HeaderState::Stale, _) | (_, ContentState::MissingSectors) => FaultReason::Missing,
        (_, ContentState::Good) => FaultReason::Chain,
        (_, ContentState::Damaged | ContentState::NotRead) => FaultReason::Content,
    }
}
