//! Reads segments for recovery: what stands where, without judging it.

use evershard_protocol::bugs::{self, Bug};
use evershard_protocol::record::Record;
use evershard_protocol::{Position, Term};

use crate::block::{BLOCK_ALIGNMENT, BlockHeader, BlockKind, HeaderFault, WRITE_SIZE_MAX, is_zero};
use crate::hole::known_header;
use crate::recovery::{READS_MAX, RecoveryError, SegmentSource};
use crate::recovery_table::{ChainState, ContentState, Decision, HeaderState, Witness, decide};
use crate::segment::{Identity, SEGMENT_HEADER_SIZE, SegmentError, SegmentHeader, SegmentNumber, is_segment_size};
use crate::start::Lists;
use crate::writer::WRITES_IN_FLIGHT_LIMIT;

const BUFFER_SIZE: usize = 4 * WRITE_SIZE_MAX;
const FIRST_BLOCK: u64 = SEGMENT_HEADER_SIZE as u64;
const UNIT: u64 = BLOCK_ALIGNMENT as u64;

/// The source with a buffer before it, so that blocks may be looked at one by one.
pub(crate) struct Reading<'a> {
    source: &'a mut dyn SegmentSource,
    buffer: Vec<u8>,
    segment: SegmentNumber,
    offset: u64,
    /// Of all segments there are: a block with one of these in another segment was misdirected, it is not left over.
    nonces: Vec<u64>,
}

/// One segment, as far as its first blocks tell.
#[derive(Clone, Debug)]
pub(crate) struct Surveyed {
    pub number: SegmentNumber,
    /// Bytes of the file, in whole units.
    pub size: u64,
    pub state: SegmentState,
}

#[derive(Clone, Debug)]
pub(crate) enum SegmentState {
    /// Its preparation did not end.
    Empty,
    /// Its header is not readable, and there is no block that would tell what was in it.
    Damaged,
    /// Prepared; with its start block, if that is known. `restored`: the header was not readable.
    Ready { header: SegmentHeader, start: Option<Box<StartBlock>>, restored: bool },
}

/// What is known of a segment's start block.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StartBlock {
    pub block: BlockHeader,
    /// Of the block before, if the start block itself tells.
    pub before: Option<BlockHeader>,
    /// It verifies; otherwise only the header is known.
    pub whole: bool,
}

impl Surveyed {
    pub fn header(&self) -> Option<&SegmentHeader> {
        match &self.state {
            SegmentState::Ready { header, .. } => Some(header),
            _ => None,
        }
    }

    pub fn start(&self) -> Option<&StartBlock> {
        match &self.state {
            SegmentState::Ready { start, .. } => start.as_deref(),
            _ => None,
        }
    }
}

/// What stands where a block is expected.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slot {
    pub header: HeaderState,
    pub content: ContentState,
    /// The header, if it is valid or the block behind it repeats it.
    pub block: Option<BlockHeader>,
}

impl Slot {
    pub const fn without_block(header: HeaderState) -> Self {
        Self { header, content: ContentState::NotRead, block: None }
    }

    fn is_good(&self) -> bool {
        self.header == HeaderState::Valid && self.content == ContentState::Good
    }
}

/// What stands from some place on to the end of the newest segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Rest {
    /// The rest of the segment itself is not zero.
    pub here_used: bool,
    /// Index of the first newer segment that holds something.
    pub next_used: Option<usize>,
    proof: Proof,
    /// The highest end any valid block has.
    pub end_max: Position,
    /// Bytes that are not known to be zero.
    pub extent: u64,
}

/// What valid blocks say about those before them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Proof {
    settled_max: u64,
    sequence_max: u64,
}

impl Proof {
    /// Whether the block with sequence `missing` was durable once.
    pub fn covers(&self, missing: u64) -> bool {
        self.settled_max >= missing || self.sequence_max > missing + WRITES_IN_FLIGHT_LIMIT as u64
    }

    fn note(&mut self, block: &BlockHeader) {
        self.settled_max = self.settled_max.max(block.draft.settled);
        self.sequence_max = self.sequence_max.max(block.draft.sequence);
    }
}

impl Rest {
    /// What is proven. It remains so for any place further on: no block speaks of those behind it.
    pub fn proof(&self) -> Proof {
        self.proof
    }

    /// What this says about the block with sequence `missing`.
    pub fn witness(&self, missing: u64) -> Witness {
        if self.proof.covers(missing) {
            Witness::Later
        } else if self.here_used || self.next_used.is_some() {
            Witness::Leftover
        } else {
            Witness::None
        }
    }
}

impl<'a> Reading<'a> {
    pub fn new(source: &'a mut dyn SegmentSource) -> Self {
        Self {
            source,
            buffer: Vec::with_capacity(BUFFER_SIZE),
            segment: SegmentNumber(0),
            offset: 0,
            nonces: Vec::new(),
        }
    }

    /// The `size` bytes at `offset`, which lie within the segment.
    pub fn bytes(&mut self, segment: &Surveyed, offset: u64, size: usize) -> Result<&[u8], RecoveryError> {
        let buffered = self.offset..self.offset + self.buffer.len() as u64;
        let wanted = offset..offset + size as u64;
        if self.segment != segment.number || wanted.start < buffered.start || wanted.end > buffered.end {
            let room = usize::try_from(segment.size - offset).unwrap_or(usize::MAX);
            self.buffer.resize(room.min(BUFFER_SIZE), 0);
            self.segment = segment.number;
            self.offset = offset;
            let read = self.source.read(segment.number, offset, &mut self.buffer);
            read.map_err(|source| RecoveryError::Read { segment: segment.number, offset, source })?;
        }
        let index = usize::try_from(offset - self.offset).expect("within the buffer");
        Ok(&self.buffer[index..index + size])
    }

    /// Forgets what was read: the next look is at the disk.
    fn forget(&mut self) {
        self.buffer.clear();
        self.source.forget();
    }

    /// Looks at all segments' headers and start blocks.
    pub fn survey(&mut self, identity: &Identity) -> Result<Vec<Surveyed>, RecoveryError> {
        let numbers = self.source.segments().to_vec();
        assert!(numbers.is_sorted_by(|a, b| a < b), "the source lists segments in order");
        let mut segments = Vec::with_capacity(numbers.len());
        for number in numbers {
            segments.push(self.survey_header(identity, number)?);
        }
        self.nonces = segments.iter().filter_map(Surveyed::header).map(|header| header.nonce).collect();
        // The newest first: a start may repeat the header of the one before.
        for index in (0..segments.len()).rev() {
            if let SegmentState::Ready { header, restored, .. } = segments[index].state {
                let start = self.start_block(&segments, index)?.map(Box::new);
                segments[index].state = SegmentState::Ready { header, start, restored };
            }
        }
        Ok(segments)
    }

    fn survey_header(&mut self, identity: &Identity, number: SegmentNumber) -> Result<Surveyed, RecoveryError> {
        let found_size = self.source.size(number);
        let mut surveyed = Surveyed { number, size: found_size - found_size % UNIT, state: SegmentState::Empty };
        if surveyed.size < FIRST_BLOCK {
            return Ok(surveyed);
        }
        let mut decoded = SegmentHeader::decode(self.bytes(&surveyed, 0, SEGMENT_HEADER_SIZE)?);
        for _ in 1..READS_MAX {
            if matches!(decoded, Err(SegmentError::Empty | SegmentError::Damaged)) {
                self.forget();
                decoded = SegmentHeader::decode(self.bytes(&surveyed, 0, SEGMENT_HEADER_SIZE)?);
            }
        }
        surveyed.state = match decoded {
            Ok(header) => {
                check_header(identity, number, found_size, &header)?;
                SegmentState::Ready { header, start: None, restored: false }
            }
            Err(SegmentError::OlderFormat(format)) => {
                return Err(RecoveryError::OlderFormat { segment: number, format });
            }
            Err(SegmentError::NewerFormat(format)) => {
                return Err(RecoveryError::NewerFormat { segment: number, format });
            }
            Err(empty) => match self.nonce_of_blocks(&surveyed)? {
                // The number is in the name, whose it is is known, and every block repeats the nonce.
                Some(nonce) if is_segment_size(surveyed.size) => {
                    let header = SegmentHeader { identity: *identity, number, nonce, size: surveyed.size };
                    SegmentState::Ready { header, start: None, restored: true }
                }
                None if empty == SegmentError::Empty => SegmentState::Empty,
                _ => SegmentState::Damaged,
            },
        };
        Ok(surveyed)
    }

    /// The start block of a segment, if it is good, or known and certain to have been there.
    fn start_block(&mut self, segments: &[Surveyed], index: usize) -> Result<Option<StartBlock>, RecoveryError> {
        let segment = &segments[index];
        let slot = self.look(segments, index, FIRST_BLOCK)?;
        let Some(block) = slot.block else { return Ok(None) };
        if !matches!(block.draft.kind, BlockKind::SegmentStart(_)) {
            return Ok(None);
        }
        // Whether it follows the block before is the walk's to see. What stands behind is looked through only where it
        // makes a difference.
        let decided = |witness| decide(slot.header, slot.content, ChainState::Continues, witness);
        let decision = if decided(Witness::None) == decided(Witness::Later) {
            decided(Witness::None)
        } else {
            decided(self.rest(segments, index, FIRST_BLOCK)?.witness(block.draft.sequence))
        };
        let whole = match decision {
            Decision::Accept => true,
            Decision::Hole => false,
            Decision::End | Decision::CutTorn | Decision::Faulty => return Ok(None),
        };
        let known = slot.header == HeaderState::Valid;
        let before = if known { block.before(self.bytes(segment, FIRST_BLOCK, BLOCK_ALIGNMENT)?) } else { None };
        Ok(Some(StartBlock { block, before, whole }))
    }

    /// Looks at a place, again if something is wrong there, and names the block that should be there if it can be known:
    /// the block behind repeats its header, in the same segment or at the start of a newer one.
    pub fn look(&mut self, segments: &[Surveyed], index: usize, offset: u64) -> Result<Slot, RecoveryError> {
        let segment = &segments[index];
        let mut slot = self.slot(segment, offset)?;
        for _ in 1..READS_MAX {
            if !slot.is_good() {
                self.forget();
                slot = self.slot(segment, offset)?;
            }
        }
        let nonce = segment.header().map(|header| header.nonce);
        let Some(nonce) = nonce.filter(|_| slot.block.is_none() && offset + UNIT <= segment.size) else {
            return Ok(slot);
        };
        let size = (segment.size - offset).min((WRITE_SIZE_MAX + BLOCK_ALIGNMENT) as u64);
        let size = usize::try_from(size).expect("bounded by a block and a unit");
        slot.block = known_header(self.bytes(segment, offset, size)?, nonce, segment.number, offset).or_else(|| {
            let fits = |block: &BlockHeader| {
                block.belongs_at(segment.number, offset) && offset + block.size as u64 <= segment.size
            };
            let starts = segments[index + 1..].iter().filter_map(Surveyed::start);
            starts.filter_map(|start| start.before).find(fits)
        });
        Ok(slot)
    }

    /// Looks at the place of a block in a prepared segment.
    pub fn slot(&mut self, segment: &Surveyed, offset: u64) -> Result<Slot, RecoveryError> {
        let nonce = segment.header().map(|header| header.nonce);
        if offset + UNIT > segment.size {
            return Ok(Slot::without_block(HeaderState::Zero));
        }
        let block = match BlockHeader::decode(self.bytes(segment, offset, BLOCK_ALIGNMENT)?) {
            Ok(block) => block,
            Err(HeaderFault::Zero) => return Ok(Slot::without_block(HeaderState::Zero)),
            Err(HeaderFault::Damaged) => return Ok(Slot::without_block(HeaderState::Damaged)),
            // The segment itself is not of that format, so this was left over in its file.
            Err(HeaderFault::OlderFormat(_)) => return Ok(Slot::without_block(HeaderState::Stale)),
            Err(HeaderFault::NewerFormat(format)) => {
                return Err(RecoveryError::NewerFormat { segment: segment.number, format });
            }
        };
        let draft = &block.draft;
        let unknown = !self.nonces.contains(&draft.nonce) && !bugs::is_on(Bug::StaleBlockAccepted);
        if unknown && draft.offset == offset && draft.segment < segment.number {
            return Ok(Slot::without_block(HeaderState::Stale));
        }
        let kind_fits = (draft.kind != BlockKind::Data) == (offset == FIRST_BLOCK);
        let room_fits = offset + block.size as u64 <= segment.size;
        if Some(draft.nonce) != nonce || !block.belongs_at(segment.number, offset) || !kind_fits || !room_fits {
            return Ok(Slot::without_block(HeaderState::Damaged));
        }
        let content = content_state(&block, self.bytes(segment, offset, block.size)?);
        Ok(Slot { header: HeaderState::Valid, content, block: Some(block) })
    }

    /// Looks through everything from `offset` in segment `index` to the end of the newest segment.
    pub fn rest(&mut self, segments: &[Surveyed], index: usize, offset: u64) -> Result<Rest, RecoveryError> {
        let mut rest = Rest::default();
        for (other, segment) in segments.iter().enumerate().skip(index) {
            if matches!(segment.state, SegmentState::Empty) {
                continue;
            }
            let from = if other == index { offset } else { FIRST_BLOCK };
            let extent = self.look_through(segment, from, &mut rest)?;
            rest.extent += extent;
            if extent > 0 && other == index {
                rest.here_used = true;
            } else if extent > 0 && rest.next_used.is_none() {
                rest.next_used = Some(other);
            }
        }
        Ok(rest)
    }

    /// Notes the valid blocks of one segment; returns the bytes up to the last that is not zero.
    fn look_through(&mut self, segment: &Surveyed, from: u64, rest: &mut Rest) -> Result<u64, RecoveryError> {
        let nonce = segment.header().map(|header| header.nonce);
        let mut extent = 0;
        for offset in (from..segment.size).step_by(BLOCK_ALIGNMENT) {
            let unit = self.bytes(segment, offset, BLOCK_ALIGNMENT)?;
            if is_zero(unit) {
                continue;
            }
            extent = offset + UNIT - from;
            let Ok(block) = BlockHeader::decode(unit) else {
                continue;
            };
            if self.nonces.contains(&block.draft.nonce) && !block.belongs_at(segment.number, offset) {
                // Misdirected: no tear looks like this, so where it should be it counts as written.
                rest.proof.settled_max = rest.proof.settled_max.max(block.draft.sequence);
            }
            let nonce_fits = nonce.is_none_or(|nonce| nonce == block.draft.nonce);
            if nonce_fits && block.belongs_at(segment.number, offset) {
                rest.proof.note(&block);
                rest.end_max = rest.end_max.max(block.end());
            }
        }
        Ok(extent)
    }

    /// What the blocks say that were written to a segment whose header does not tell.
    fn nonce_of_blocks(&mut self, segment: &Surveyed) -> Result<Option<u64>, RecoveryError> {
        for offset in (FIRST_BLOCK..segment.size).step_by(BLOCK_ALIGNMENT) {
            let found = BlockHeader::decode(self.bytes(segment, offset, BLOCK_ALIGNMENT)?);
            if let Some(block) = found.ok().filter(|block| block.belongs_at(segment.number, offset)) {
                return Ok(Some(block.draft.nonce));
            }
        }
        Ok(None)
    }

    /// Whether anything stands behind a segment's header.
    pub fn is_unused(&mut self, segment: &Surveyed) -> Result<bool, RecoveryError> {
        if matches!(segment.state, SegmentState::Empty) {
            return Ok(true);
        }
        Ok(self.look_through(segment, FIRST_BLOCK, &mut Rest::default())? == 0)
    }
}

fn check_header(
    identity: &Identity,
    number: SegmentNumber,
    found_size: u64,
    header: &SegmentHeader,
) -> Result<(), RecoveryError> {
    if header.identity != *identity {
        return Err(RecoveryError::Foreign { segment: number, found: header.identity, expected: *identity });
    }
    if header.number != number {
        return Err(RecoveryError::Misnamed { segment: number, found: header.number });
    }
    if header.size > found_size {
        return Err(RecoveryError::Shortened { segment: number, found: found_size, expected: header.size });
    }
    Ok(())
}

fn content_state(block: &BlockHeader, bytes: &[u8]) -> ContentState {
    if !block.verifies(bytes) {
        return if block.misses_sectors(bytes) { ContentState::MissingSectors } else { ContentState::Damaged };
    }
    let content = block.content(bytes);
    let right = match block.draft.kind {
        BlockKind::Data => records_verify(block.draft.first, block.draft.term, content),
        BlockKind::SegmentStart(_) => Lists::decode(content).is_some(),
    };
    if right { ContentState::Good } else { ContentState::Damaged }
}

fn records_verify(first: Position, term: Term, content: &[u8]) -> bool {
    let mut start = first;
    let mut rest = content;
    while !rest.is_empty() {
        let Ok(record) = Record::parse(start, rest) else {
            return false;
        };
        if record.header.term != term {
            return false;
        }
        start = record.header.position;
        rest = &rest[record.bytes.len()..];
    }
    !content.is_empty()
}
