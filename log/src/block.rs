//! A block: what one write puts on disk. A header, stream bytes, zeros up to a multiple of [`BLOCK_ALIGNMENT`].
//!
//! | offset | size | field | meaning |
//! |---|---|---|---|
//! | 0 | 8 | magic | `EVSBLOCK` |
//! | 8 | 4 | header_checksum | CRC-32C of bytes 12..128 |
//! | 12 | 4 | content_checksum | CRC-32C of the `used` bytes behind the header and the copy |
//! | 16 | 2 | format | version of this layout, 2 |
//! | 18 | 2 | kind | 1 data, 2 segment start |
//! | 20 | 4 | used | content bytes; the rest of the block is zero |
//! | 24 | 2 | size | of the whole block, in units of 4096 bytes |
//! | 26 | 2 | zero_sectors | 512-byte sectors of header, copy and content that were entirely zero as written |
//! | 28 | 4 | chain | `header_checksum` of the block before, 0 for the first |
//! | 32 | 8 | sequence | counts the blocks of this log from 1 |
//! | 40 | 8 | settled | all blocks up to this sequence were known durable when this one was planned |
//! | 48 | 8 | nonce | of the segment; a block left over in a recycled file has another one |
//! | 56 | 8 | segment | number of the segment it was written to |
//! | 64 | 8 | offset | in the segment's file; a misdirected block does not pass |
//! | 72 | 8 | first | stream position of its first byte |
//! | 80 | 8 | durable | durable position known when it was planned |
//! | 88 | 8 | committed | commit position known when it was planned |
//! | 96 | 8 | term | of all its records, 0 in a segment start |
//! | 104 | 8 | previous | segment of the block before, 0 for the first |
//! | 112 | 8 | known_end | the log once reached up to here before damage was found; 0 if it is whole |
//! | 120 | 2 | cause | of a segment start: see [`StartCause`]; 0 in a data block |
//! | 122 | 2 | memberships | records in it that change the configuration |
//! | 124 | 4 | reserved | zero |
//! | 128 | 128 | before | these 128 bytes of the block before, as they were written; zero in the first |
//!
//! Sectors are written whole or not at all: of a torn block some sectors read as the zeros the segment was prepared
//! with. `zero_sectors` tells a torn block (more zero sectors than that) from a rotten one (all sectors are there and
//! the checksum is wrong). Header and copy lie in one sector, so they are there or zero, and anything else is rot.
//!
//! A header alone tells which part of the stream its block holds and of which term that is, and the block behind it
//! repeats it. So a block that does not verify is a **hole** with known edges ([`crate::hole`]), and the bytes that were
//! there can be told from all others by the checksums. The copy is proven by `chain`, not by a checksum of this header;
//! one that rotted is no fault, it only repeats nothing any more.

use evershard_protocol::checksum::crc32c;
use evershard_protocol::limits::{APPEND_SIZE_MAX, RECORD_SIZE_MAX};
use evershard_protocol::{Position, Term};
use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::segment::SegmentNumber;
use crate::start::StartCause;

/// Blocks begin and end at multiples of this, and so does every write.
pub const BLOCK_ALIGNMENT: usize = 4096;
/// What a disk writes whole or not at all.
pub const SECTOR_SIZE: usize = 512;
/// Bytes of the largest block: header, content and padding.
pub const WRITE_SIZE_MAX: usize = APPEND_SIZE_MAX + BLOCK_ALIGNMENT;
/// Bytes of a block before its content: its header and the copy of the header before.
pub const BLOCK_HEADER_SIZE: usize = 2 * OWN_HEADER_SIZE;
/// Bytes of the largest content.
pub const CONTENT_SIZE_MAX: usize = WRITE_SIZE_MAX - BLOCK_HEADER_SIZE;
/// The version of the layout above.
pub const BLOCK_FORMAT: u16 = 2;

const MAGIC: [u8; 8] = *b"EVSBLOCK";
const CHECKED_FROM: usize = 12;
const OWN_HEADER_SIZE: usize = size_of::<RawHeader>();

const _: () = assert!(OWN_HEADER_SIZE == 128, "the table above says so");
const _: () = assert!(BLOCK_HEADER_SIZE <= SECTOR_SIZE, "header and copy are there or not, never torn");
const _: () = assert!(WRITE_SIZE_MAX.is_multiple_of(BLOCK_ALIGNMENT), "a block is whole units");
const _: () = assert!(BLOCK_ALIGNMENT.is_multiple_of(SECTOR_SIZE), "a unit is whole sectors");
const _: () = assert!(RECORD_SIZE_MAX <= CONTENT_SIZE_MAX, "any record fits one block");
const _: () = assert!(WRITE_SIZE_MAX / SECTOR_SIZE <= u16::MAX as usize, "zero_sectors cannot overflow");

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Clone, Copy)]
#[repr(C)]
struct RawHeader {
    magic: [u8; 8],
    header_checksum: U32,
    content_checksum: U32,
    format: U16,
    kind: U16,
    used: U32,
    size: U16,
    zero_sectors: U16,
    chain: U32,
    sequence: U64,
    settled: U64,
    nonce: U64,
    segment: U64,
    offset: U64,
    first: U64,
    durable: U64,
    committed: U64,
    term: U64,
    previous: U64,
    known_end: U64,
    cause: U16,
    memberships: U16,
    reserved: [u8; 4],
}

/// What a block holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BlockKind {
    /// Whole records of the stream, all of one term.
    Data,
    /// The first block of a segment: why the log goes on there, and what came before (see [`crate::start`]).
    SegmentStart(StartCause),
}

/// What the writer says of a block; sizes and checksums follow from the content.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BlockDraft {
    /// What it holds.
    pub kind: BlockKind,
    /// Header checksum of the block before, 0 for the first.
    pub chain: u32,
    /// Counts the log's blocks from 1.
    pub sequence: u64,
    /// All blocks up to this one were known durable.
    pub settled: u64,
    /// Nonce of the segment.
    pub nonce: u64,
    /// The segment it goes to.
    pub segment: SegmentNumber,
    /// Where in the segment's file.
    pub offset: u64,
    /// Stream position of the first byte.
    pub first: Position,
    /// Durable position known now.
    pub durable: Position,
    /// Commit position known now.
    pub committed: Position,
    /// Term of its records.
    pub term: Term,
    /// Segment of the block before, 0 for none.
    pub previous: SegmentNumber,
    /// Up to where the log once reached, if it has not been filled again; 0 if it is whole.
    pub known_end: Position,
    /// Records in it that change the configuration.
    pub memberships: u16,
}

impl BlockDraft {
    /// Completes a block in place: `out` holds `used` bytes of content behind room for header and copy; `before` is the
    /// header of the block before. Fills the padding with zeros and writes header and copy.
    ///
    /// # Panics
    /// If the content is too large for a block or for `out`, or `before` is not what the draft chains to: the caller's
    /// bug.
    pub fn seal(&self, used: usize, before: Option<&BlockHeader>, out: &mut [u8]) -> BlockHeader {
        assert!(used <= CONTENT_SIZE_MAX, "the writer cuts at the largest content");
        assert!(self.chain == before.map_or(0, |before| before.checksum), "the copy is of the block chained to");
        let size = block_size(used);
        let block = &mut out[..size];
        block[BLOCK_HEADER_SIZE + used..].fill(0);
        block[..MAGIC.len()].copy_from_slice(&MAGIC);
        let copy = before.map_or([0; OWN_HEADER_SIZE], BlockHeader::encode);
        block[OWN_HEADER_SIZE..BLOCK_HEADER_SIZE].copy_from_slice(&copy);
        let mut header = BlockHeader {
            draft: *self,
            used,
            size,
            zero_sectors: zero_sectors(block, used),
            content_checksum: crc32c(&block[BLOCK_HEADER_SIZE..BLOCK_HEADER_SIZE + used]),
            checksum: 0,
        };
        let mut raw = header.raw();
        header.checksum = crc32c(&raw.as_bytes()[CHECKED_FROM..]);
        raw.header_checksum = U32::new(header.checksum);
        block[..OWN_HEADER_SIZE].copy_from_slice(raw.as_bytes());
        header
    }
}

/// A block's header whose checksum is right.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BlockHeader {
    /// What the writer said of it.
    pub draft: BlockDraft,
    /// Content bytes.
    pub used: usize,
    /// Bytes of the whole block, a multiple of [`BLOCK_ALIGNMENT`].
    pub size: usize,
    /// Entirely zero sectors of header, copy and content, as written.
    pub zero_sectors: u16,
    /// Checksum of the content.
    pub content_checksum: u32,
    /// Checksum of the header, which the next block's `chain` repeats.
    pub checksum: u32,
}

/// Why bytes are not a block's header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HeaderFault {
    /// The header's sector is zero: nothing was ever written there, or it was torn off.
    Zero,
    /// Something is there that is no header.
    Damaged,
    /// A header of a layout that this release does not read any more.
    OlderFormat(u16),
    /// A header of a layout this release does not know.
    NewerFormat(u16),
}

impl BlockHeader {
    /// Reads the header of the block that begins at the front of `bytes` (at least one sector).
    ///
    /// # Errors
    /// See [`HeaderFault`]; never panics, whatever the bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, HeaderFault> {
        let sector = &bytes[..SECTOR_SIZE];
        if is_zero(sector) {
            return Err(HeaderFault::Zero);
        }
        Self::decode_own(&sector[..OWN_HEADER_SIZE])
    }

    /// The header of the block before, as this block, whose bytes begin with `block`, repeats it; `None` if there is no
    /// block before or the copy rotted.
    #[must_use]
    pub fn before(&self, block: &[u8]) -> Option<Self> {
        let before = Self::decode_own(&block[OWN_HEADER_SIZE..BLOCK_HEADER_SIZE]).ok()?;
        let follows = before.draft.sequence.checked_add(1) == Some(self.draft.sequence);
        (before.checksum == self.draft.chain && follows).then_some(before)
    }

    fn decode_own(bytes: &[u8]) -> Result<Self, HeaderFault> {
        let raw = RawHeader::ref_from_bytes(bytes).expect("exactly one header of bytes");
        if raw.magic != MAGIC || crc32c(&raw.as_bytes()[CHECKED_FROM..]) != raw.header_checksum.get() {
            return Err(HeaderFault::Damaged);
        }
        match raw.format.get() {
            0 => return Err(HeaderFault::Damaged),
            BLOCK_FORMAT => {}
            older @ ..BLOCK_FORMAT => return Err(HeaderFault::OlderFormat(older)),
            newer => return Err(HeaderFault::NewerFormat(newer)),
        }
        let kind = match (raw.kind.get(), raw.cause.get()) {
            (1, 0) => BlockKind::Data,
            (2, cause) => BlockKind::SegmentStart(StartCause::from_number(cause).ok_or(HeaderFault::Damaged)?),
            _ => return Err(HeaderFault::Damaged),
        };
        let used = raw.used.get() as usize;
        let size = usize::from(raw.size.get()) * BLOCK_ALIGNMENT;
        let range_fits = raw.first.get().checked_add(u64::from(raw.used.get())).is_some();
        let sequence_fits = raw.sequence.get() > 0 && raw.reserved == [0; 4];
        if used > CONTENT_SIZE_MAX || size != block_size(used) || !range_fits || !sequence_fits {
            return Err(HeaderFault::Damaged);
        }
        Ok(Self {
            draft: BlockDraft {
                kind,
                chain: raw.chain.get(),
                sequence: raw.sequence.get(),
                settled: raw.settled.get(),
                nonce: raw.nonce.get(),
                segment: SegmentNumber(raw.segment.get()),
                offset: raw.offset.get(),
                first: Position(raw.first.get()),
                durable: Position(raw.durable.get()),
                committed: Position(raw.committed.get()),
                term: Term(raw.term.get()),
                previous: SegmentNumber(raw.previous.get()),
                known_end: Position(raw.known_end.get()),
                memberships: raw.memberships.get(),
            },
            used,
            size,
            zero_sectors: raw.zero_sectors.get(),
            content_checksum: raw.content_checksum.get(),
            checksum: raw.header_checksum.get(),
        })
    }

    /// The bytes it was read from.
    fn encode(&self) -> [u8; OWN_HEADER_SIZE] {
        zerocopy::transmute!(self.raw())
    }

    fn raw(&self) -> RawHeader {
        let draft = &self.draft;
        let (kind, cause) = match draft.kind {
            BlockKind::Data => (1, 0),
            BlockKind::SegmentStart(cause) => (2, cause as u16),
        };
        RawHeader {
            magic: MAGIC,
            header_checksum: U32::new(self.checksum),
            content_checksum: U32::new(self.content_checksum),
            format: U16::new(BLOCK_FORMAT),
            kind: U16::new(kind),
            used: U32::new(u32::try_from(self.used).expect("bounded by CONTENT_SIZE_MAX")),
            size: U16::new(u16::try_from(self.size / BLOCK_ALIGNMENT).expect("bounded by WRITE_SIZE_MAX")),
            zero_sectors: U16::new(self.zero_sectors),
            chain: U32::new(draft.chain),
            sequence: U64::new(draft.sequence),
            settled: U64::new(draft.settled),
            nonce: U64::new(draft.nonce),
            segment: U64::new(draft.segment.0),
            offset: U64::new(draft.offset),
            first: U64::new(draft.first.0),
            durable: U64::new(draft.durable.0),
            committed: U64::new(draft.committed.0),
            term: U64::new(draft.term.0),
            previous: U64::new(draft.previous.0),
            known_end: U64::new(draft.known_end.0),
            cause: U16::new(cause),
            memberships: U16::new(draft.memberships),
            reserved: [0; 4],
        }
    }

    /// Whether this block was written to that segment at that offset.
    #[must_use]
    pub fn belongs_at(&self, segment: SegmentNumber, offset: u64) -> bool {
        self.draft.segment == segment && self.draft.offset == offset
    }

    /// Where the stream stands behind this block.
    #[must_use]
    pub fn end(&self) -> Position {
        match self.draft.kind {
            BlockKind::Data => self.draft.first.advance(self.used as u64),
            BlockKind::SegmentStart(_) => self.draft.first,
        }
    }

    /// The content of this block, whose bytes are `block`.
    #[must_use]
    pub fn content<'a>(&self, block: &'a [u8]) -> &'a [u8] {
        &block[BLOCK_HEADER_SIZE..BLOCK_HEADER_SIZE + self.used]
    }

    /// Whether the content is the one that was written.
    #[must_use]
    pub fn verifies(&self, block: &[u8]) -> bool {
        crc32c(self.content(block)) == self.content_checksum
    }

    /// Whether sectors of header or content are missing: more of them read as zero than were written as zero.
    #[must_use]
    pub fn misses_sectors(&self, block: &[u8]) -> bool {
        zero_sectors(block, self.used) > self.zero_sectors
    }
}

/// Bytes of the block that carries `used` bytes of content.
#[must_use]
pub fn block_size(used: usize) -> usize {
    (BLOCK_HEADER_SIZE + used).next_multiple_of(BLOCK_ALIGNMENT)
}

/// Whether all bytes are zero.
#[must_use]
pub fn is_zero(bytes: &[u8]) -> bool {
    let mut chunks = bytes.chunks_exact(64);
    chunks.all(|chunk| chunk.iter().fold(0, |all, byte| all | byte) == 0)
        && chunks.remainder().iter().all(|byte| *byte == 0)
}

fn zero_sectors(block: &[u8], used: usize) -> u16 {
    let covered = (BLOCK_HEADER_SIZE + used).next_multiple_of(SECTOR_SIZE);
    let count = block[..covered].chunks_exact(SECTOR_SIZE).filter(|sector| is_zero(sector)).count();
    u16::try_from(count).expect("bounded by WRITE_SIZE_MAX / SECTOR_SIZE")
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::mem::offset_of;

    fn draft() -> BlockDraft {
        BlockDraft {
            kind: BlockKind::Data,
            chain: 0,
            sequence: 7,
            settled: 5,
            nonce: 0xABCD,
            segment: SegmentNumber(3),
            offset: 8192,
            first: Position(640),
            durable: Position(512),
            committed: Position(256),
            term: Term(9),
            previous: SegmentNumber(2),
            known_end: Position(4096),
            memberships: 3,
        }
    }

    fn before() -> BlockHeader {
        let first = BlockDraft { kind: BlockKind::SegmentStart(StartCause::Torn), chain: 0, sequence: 6, ..draft() };
        first.seal(100, None, &mut vec![0xEE; WRITE_SIZE_MAX])
    }

    fn sealed(content: &[u8]) -> Vec<u8> {
        let mut out = vec![0xEE; WRITE_SIZE_MAX];
        out[BLOCK_HEADER_SIZE..BLOCK_HEADER_SIZE + content.len()].copy_from_slice(content);
        let before = before();
        let draft = BlockDraft { chain: before.checksum, ..draft() };
        let header = draft.seal(content.len(), Some(&before), &mut out);
        assert_eq!(BlockHeader::decode(&out), Ok(header));
        out.truncate(header.size);
        out
    }

    #[test]
    fn layout_is_the_documented_one() {
        let offsets = [
            ("magic", offset_of!(RawHeader, magic), 8),
            ("header_checksum", offset_of!(RawHeader, header_checksum), 4),
            ("content_checksum", offset_of!(RawHeader, content_checksum), 4),
            ("format", offset_of!(RawHeader, format), 2),
            ("kind", offset_of!(RawHeader, kind), 2),
            ("used", offset_of!(RawHeader, used), 4),
            ("size", offset_of!(RawHeader, size), 2),
            ("zero_sectors", offset_of!(RawHeader, zero_sectors), 2),
            ("chain", offset_of!(RawHeader, chain), 4),
            ("sequence", offset_of!(RawHeader, sequence), 8),
            ("settled", offset_of!(RawHeader, settled), 8),
            ("nonce", offset_of!(RawHeader, nonce), 8),
            ("segment", offset_of!(RawHeader, segment), 8),
            ("offset", offset_of!(RawHeader, offset), 8),
            ("first", offset_of!(RawHeader, first), 8),
            ("durable", offset_of!(RawHeader, durable), 8),
            ("committed", offset_of!(RawHeader, committed), 8),
            ("term", offset_of!(RawHeader, term), 8),
            ("previous", offset_of!(RawHeader, previous), 8),
            ("known_end", offset_of!(RawHeader, known_end), 8),
            ("cause", offset_of!(RawHeader, cause), 2),
            ("memberships", offset_of!(RawHeader, memberships), 2),
            ("reserved", offset_of!(RawHeader, reserved), 4),
            ("before", OWN_HEADER_SIZE, OWN_HEADER_SIZE),
        ];
        evershard_protocol::layout::check(include_str!("block.rs"), &offsets, BLOCK_HEADER_SIZE);
    }

    #[test]
    fn round_trip() {
        let block = sealed(b"0123456789");
        let header = BlockHeader::decode(&block).expect("just sealed");
        assert_eq!(header.draft, BlockDraft { chain: before().checksum, ..draft() });
        assert!(header.encode() == block[..OWN_HEADER_SIZE]);
        assert_eq!(header.before(&block), Some(before()));
        assert!(header.belongs_at(SegmentNumber(3), 8192) && header.verifies(&block));
        assert!(header.content(&block) == b"0123456789");
        assert_eq!((header.end(), block.len()), (Position(650), BLOCK_ALIGNMENT));
    }

    #[test]
    fn every_flipped_bit_of_the_header_is_noticed() {
        let block = sealed(b"0123456789");
        for byte in 0..OWN_HEADER_SIZE {
            let mut flipped = block.clone();
            flipped[byte] ^= 0x10;
            assert_eq!(BlockHeader::decode(&flipped), Err(HeaderFault::Damaged), "byte {byte}");
        }
    }

    #[test]
    fn a_rotten_copy_repeats_nothing_and_is_no_fault() {
        let block = sealed(b"0123456789");
        for byte in OWN_HEADER_SIZE..BLOCK_HEADER_SIZE {
            let mut flipped = block.clone();
            flipped[byte] ^= 0x10;
            let header = BlockHeader::decode(&flipped).expect("the header is good");
            assert!(header.verifies(&flipped) && header.before(&flipped).is_none(), "byte {byte}");
        }
    }

    #[test]
    fn missing_sectors_are_told_from_rot() {
        let content = [vec![7_u8; 900], vec![0; 1100], vec![7; 1000]].concat();
        let (mut torn, mut rotten) = (sealed(&content), sealed(&content));
        let header = BlockHeader::decode(&torn).expect("just sealed");
        assert!(header.zero_sectors > 0 && !header.misses_sectors(&torn));
        torn[SECTOR_SIZE * 5..SECTOR_SIZE * 6].fill(0);
        assert!(!header.verifies(&torn) && header.misses_sectors(&torn));
        rotten[SECTOR_SIZE * 5] ^= 1;
        assert!(!header.verifies(&rotten) && !header.misses_sectors(&rotten));
    }

    #[test]
    fn nothing_older_and_newer_are_their_own_faults() {
        assert_eq!(BlockHeader::decode(&[0; SECTOR_SIZE]), Err(HeaderFault::Zero));
        let mut block = sealed(b"x");
        for (format, fault) in
            [(0, HeaderFault::Damaged), (1, HeaderFault::OlderFormat(1)), (3, HeaderFault::NewerFormat(3))]
        {
            block[16] = format;
            let checksum = crc32c(&block[CHECKED_FROM..OWN_HEADER_SIZE]);
            block[8..12].copy_from_slice(&checksum.to_le_bytes());
            assert_eq!(BlockHeader::decode(&block), Err(fault));
        }
    }
}
