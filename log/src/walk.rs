//! The walk of recovery along the lineage, block by block.

use evershard_protocol::bugs::{self, Bug};
use evershard_protocol::limits::TERM_RUNS_MAX;
use evershard_protocol::record::{Kind, Record};
use evershard_protocol::{Position, Term};

use crate::block::{BLOCK_HEADER_SIZE, BlockHeader, BlockKind, WRITE_SIZE_MAX};
use crate::hole::{self, HOLES_MAX, Hole};
use crate::recovery::{Cut, FaultReason, Mend, Recovered, RecoveryError, Verdict};
use crate::recovery_table::{ChainState, ContentState, Decision, HeaderState, Witness, decide};
use crate::scan::{Proof, Reading, Rest, SegmentState, Slot, StartBlock, Surveyed};
use crate::segment::SEGMENT_HEADER_SIZE;
use crate::start::{self, Lists, StartCause};

const FIRST_BLOCK: u64 = SEGMENT_HEADER_SIZE as u64;

/// A block's place: index of the segment, offset in its file.
pub(crate) type BlockPlace = (usize, u64);

/// How a walk went.
pub(crate) enum Walked {
    /// It found the end of the log, or of what is good of it.
    ToTheEnd(Box<Recovered>),
    /// It noted a hole at this place and then found the stream cut within it: to be walked again, to there only.
    CutHole(BlockPlace),
}

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
    /// What the blocks behind are known to prove.
    proof: Proof,
    /// Places of the holes noted. Invariant: as long as `found.holes`.
    hole_places: Vec<BlockPlace>,
    /// The block before this place is a hole: a reader cannot pass it.
    behind_hole: bool,
    /// A hole that a walk before this one found cut.
    cut_hole: Option<BlockPlace>,
    found: Recovered,
}

impl<'a> Walk<'a> {
    pub fn new(segments: &'a [Surveyed], lineage: &'a [usize], cut_hole: Option<BlockPlace>) -> Self {
        let headers = segments.iter().filter_map(|segment| segment.header().copied()).collect();
        let mut found = Recovered { segments: headers, ..Recovered::default() };
        if let Some(newest) = segments.last() {
            found.place.highest = newest.number;
        }
        Self {
            segments,
            ahead: lineage,
            entered: Vec::new(),
            at: 0,
            offset: FIRST_BLOCK,
            proof: Proof::default(),
            hole_places: Vec::new(),
            behind_hole: false,
            cut_hole,
            found,
        }
    }

    /// Walks to the end of the log and says what is there.
    pub fn run(mut self, reading: &mut Reading<'_>) -> Result<Walked, RecoveryError> {
        if self.segments.is_empty() {
            return Ok(Walked::ToTheEnd(Box::new(self.found)));
        }
        loop {
            if let Some(place) = self.found_cut_hole() {
                return Ok(Walked::CutHole(place));
            }
            if let Some(start) = self.next_start() {
                if self.enter(reading, start)? {
                    continue;
                }
                let rest = self.rest(reading)?;
                return self.finish_faulty(reading, rest, FaultReason::Content);
            }
            let slot = match self.segments[self.at].state {
                SegmentState::Ready { .. } => reading.look(self.segments, self.at, self.offset)?,
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
            let missing = self.found.place.sequence() + 1;
            // What stands behind is looked through only where it makes a difference and is not known yet.
            let known = decided(Witness::None) == decided(Witness::Later) || self.proof.covers(missing);
            if known && decided(Witness::Later) == Decision::Accept {
                let block = slot.block.expect("only a valid header is accepted");
                if self.accept(&block) {
                    self.gather(reading, &block)?;
                    continue;
                }
                let rest = self.rest(reading)?;
                return self.finish_faulty(reading, rest, FaultReason::Content);
            }
            let cuts = bugs::is_on(Bug::HoleAsAbsent) || bugs::is_on(Bug::TruncateOnChecksum);
            if known && decided(Witness::Later) == Decision::Hole && !cuts && self.note_hole(&slot) {
                continue;
            }
            let rest = self.rest(reading)?;
            if slot.header == HeaderState::Zero && !rest.here_used && self.ahead.is_empty() {
                // Nothing more here: if anything follows, it is a newer segment, whose start is not readable.
                if let Some(next) = rest.next_used {
                    (self.at, self.offset) = (next, FIRST_BLOCK);
                    continue;
                }
            }
            self.proof = rest.proof();
            return match decided(rest.witness(missing)) {
                Decision::End => self.finish_clean(reading),
                Decision::Hole if cuts => self.finish_torn(reading, rest),
                Decision::Hole if self.note_hole(&slot) => continue,
                Decision::CutTorn => self.finish_torn(reading, rest),
                Decision::Faulty if bugs::is_on(Bug::TruncateOnChecksum) => self.finish_torn(reading, rest),
                Decision::Faulty | Decision::Hole => {
                    let is_cut = self.cut_hole == Some((self.at, self.offset));
                    self.finish_faulty(reading, rest, if is_cut { FaultReason::CutHole } else { reason(&slot) })
                }
                Decision::Accept => unreachable!("acceptance does not depend on what stands behind"),
            };
        }
    }

    /// The place of a hole within which the stream was cut.
    fn found_cut_hole(&self) -> Option<BlockPlace> {
        self.found.holes.iter().position(Hole::is_cut).map(|index| self.hole_places[index])
    }

    /// Goes on behind a block that is known and does not verify; `false` if it cannot be passed.
    fn note_hole(&mut self, slot: &Slot) -> bool {
        let block = slot.block.expect("only a known block is a hole");
        let place = (self.at, self.offset);
        // Without the configuration that counts from there on, what follows cannot be judged.
        let is_plain = block.draft.kind == BlockKind::Data && block.used > 0 && block.draft.memberships == 0;
        let fits = is_plain && self.found.holes.len() < HOLES_MAX;
        if bugs::is_on(Bug::HoleAsAbsent) || !fits || self.cut_hole == Some(place) {
            return false;
        }
        let before = self.found.place.last;
        // Where it begins is where a reader must stop, so the table has to know.
        self.behind_hole = true;
        if !self.accept(&block) {
            return false;
        }
        self.behind_hole = true;
        self.found.holes.push(Hole::new(block, before));
        self.hole_places.push(place);
        true
    }

    fn rest(&self, reading: &mut Reading<'_>) -> Result<Rest, RecoveryError> {
        reading.rest(self.segments, self.at, self.offset)
    }

    /// The next segment's start, if that follows the block before this place (or is the first of all).
    fn next_start(&self) -> Option<StartBlock> {
        let next = *self.segments[*self.ahead.first()?].start().expect("the lineage is readable");
        let follows = next.block.draft.previous == self.found.place.previous()
            && self.chain_state(&next.block) != ChainState::Breaks;
        (self.entered.is_empty() || follows).then_some(next)
    }

    fn chain_state(&self, block: &BlockHeader) -> ChainState {
        let place = &self.found.place;
        let (draft, end) = (&block.draft, self.found.end);
        let chained = draft.sequence == place.sequence() + 1 && draft.chain == place.chain();
        if !chained || draft.first > end || draft.first < self.found.start {
            ChainState::Breaks
        } else if draft.first == end {
            ChainState::Continues
        } else {
            ChainState::Truncates
        }
    }

    /// Goes over to the next segment of the lineage; `false` if it is the first and does not tell what came before it.
    fn enter(&mut self, reading: &mut Reading<'_>, next: StartBlock) -> Result<bool, RecoveryError> {
        let index = self.ahead[0];
        let segment = &self.segments[index];
        let first = next.block.draft.first;
        let lists = if next.whole {
            let content = reading.bytes(segment, FIRST_BLOCK, next.block.size)?;
            Lists::decode(next.block.content(content)).expect("it was verified")
        } else {
            // Of a segment in the middle, what came before is known anyway.
            let known = Lists { runs: self.found.runs.clone(), versions: self.found.versions.clone() };
            let mend = self.mend_start(&next, &known);
            if self.entered.is_empty() && mend.is_none() {
                self.at = index;
                return Ok(false);
            }
            self.found.mends.extend(mend);
            known
        };
        if self.entered.is_empty() {
            self.found.start = first;
            self.found.runs = lists.runs;
        }
        self.found.versions = lists.versions;
        self.found.place.known_end = next.block.draft.known_end;
        self.ahead = &self.ahead[1..];
        self.entered.push(index);
        self.at = index;
        self.offset = FIRST_BLOCK;
        self.found.table.note(first, segment.number, FIRST_BLOCK, true);
        self.step(&next.block);
        // The start block itself may stay damaged: then a reader begins behind it.
        self.behind_hole = !next.whole;
        Ok(true)
    }

    /// The start block as it was written, if that is what the log says came before.
    fn mend_start(&self, next: &StartBlock, known: &Lists) -> Option<Mend> {
        let mut bytes = vec![0; WRITE_SIZE_MAX];
        let draft = &next.block.draft;
        let before = if self.entered.is_empty() { next.before } else { self.found.place.last };
        if draft.chain != before.map_or(0, |before| before.checksum) {
            return None;
        }
        let used = start::encode(draft.first, known, &mut bytes[BLOCK_HEADER_SIZE..]);
        let sealed = draft.seal(used, before.as_ref(), &mut bytes);
        bytes.truncate(sealed.size);
        (sealed == next.block).then_some(Mend { segment: draft.segment, offset: draft.offset, bytes })
    }

    /// Takes a data block; `false` if its term contradicts the log.
    fn accept(&mut self, block: &BlockHeader) -> bool {
        let (first, term) = (block.draft.first, block.draft.term);
        let kept = self.found.runs.partition_point(|(_, start)| *start < first);
        let term_before = kept.checked_sub(1).map_or(Term(0), |last| self.found.runs[last].0);
        if block.draft.kind != BlockKind::Data || term < term_before || term == Term(0) {
            return false;
        }
        self.found.runs.truncate(kept);
        if term > term_before {
            self.found.runs.push((term, first));
        }
        let dense = first < self.found.end || self.behind_hole;
        self.found.table.note(first, self.segments[self.at].number, self.offset, dense);
        self.step(block);
        true
    }

    /// Keeps the record time and the configurations that an accepted block holds.
    fn gather(&mut self, reading: &mut Reading<'_>, block: &BlockHeader) -> Result<(), RecoveryError> {
        let bytes = reading.bytes(&self.segments[self.at], block.draft.offset, block.size)?;
        let records = records(block.draft.first, block.content(bytes));
        let memberships = &mut self.found.memberships;
        for record in records {
            self.found.log_time = self.found.log_time.max(record.header.timestamp);
            if record.header.kind == Kind::Membership as u16 {
                memberships.push((record.header.position, record.payload.to_vec()));
            }
        }
        let surplus = memberships.len().saturating_sub(MEMBERSHIPS_LEN_MAX);
        memberships.drain(..surplus);
        Ok(())
    }

    /// Stands behind a block.
    fn step(&mut self, block: &BlockHeader) {
        let found = &mut self.found;
        if block.draft.first < found.end {
            hole::truncate(&mut found.holes, block.draft.first);
            self.hole_places.truncate(found.holes.len());
            found.memberships.retain(|(position, _)| *position <= block.draft.first);
        }
        found.end = block.end();
        found.runs.truncate(found.runs.partition_point(|(_, start)| *start < found.end));
        found.committed = found.committed.max(block.draft.committed);
        found.place.last = Some(*block);
        if found.end >= found.place.known_end {
            found.place.known_end = Position::ZERO;
        }
        self.behind_hole = false;
        self.offset += block.size as u64;
    }

    fn finish_clean(mut self, reading: &mut Reading<'_>) -> Result<Walked, RecoveryError> {
        if self.entered.last() == Some(&self.at) {
            let header = self.segments[self.at].header().expect("a segment that was entered");
            self.found.place.current = Some((*header, self.offset));
        }
        self.finish(reading, Verdict::Clean)
    }

    fn finish_torn(mut self, reading: &mut Reading<'_>, rest: Rest) -> Result<Walked, RecoveryError> {
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
    ) -> Result<Walked, RecoveryError> {
        let (segment, offset) = (self.segments[self.at].number, self.offset);
        let from = self.found.end;
        // The stream takes no more bytes than the files do, so this is an upper bound of what there once was.
        let bound = from.advance(rest.extent).max(rest.end_max);
        let place = &mut self.found.place;
        place.known_end = place.known_end.max(bound);
        place.cause = StartCause::Faulty;
        self.finish(reading, Verdict::Faulty { from, segment, offset, reason })
    }

    fn finish(mut self, reading: &mut Reading<'_>, verdict: Verdict) -> Result<Walked, RecoveryError> {
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
        let restored = |segment: &&Surveyed| matches!(segment.state, SegmentState::Ready { restored: true, .. });
        for segment in self.segments.iter().filter(restored) {
            let header = segment.header().expect("it was restored");
            self.found.mends.push(Mend { segment: segment.number, offset: 0, bytes: header.encode().to_vec() });
        }
        Ok(Walked::ToTheEnd(Box::new(self.found)))
    }
}

/// Verified records, one after the other.
fn records(first: Position, content: &[u8]) -> impl Iterator<Item = Record<'_>> {
    let mut start = first;
    let mut rest = content;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let record = Record::parse_trusted(start, rest).expect("the records were verified");
        start = record.header.position;
        rest = &rest[record.bytes.len()..];
        Some(record)
    })
}

/// Configurations that recovery gives back. More: the oldest are left out, they were committed long ago.
const MEMBERSHIPS_LEN_MAX: usize = 16;

fn reason(slot: &Slot) -> FaultReason {
    match (slot.header, slot.content) {
        (HeaderState::Damaged, _) => FaultReason::Header,
        (HeaderState::Zero | HeaderState::Stale, _) | (_, ContentState::MissingSectors) => FaultReason::Missing,
        (_, ContentState::Good) => FaultReason::Chain,
        (_, ContentState::Damaged | ContentState::NotRead) => FaultReason::Content,
    }
}
