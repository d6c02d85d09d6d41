//! A block: what one write puts on disk. A header, stream bytes, zeros up to a multiple of [`BLOCK_ALIGNMENT`].
//!
//! | offset | size | field | meaning |
//! |---|---|---|---|
//! | 0 | 8 | magic | `EVSBLOCK` |
//! | 8 | 4 | header_checksum | CRC-32C of bytes 12..128 |
//! | 12 | 4 | content_checksum | CRC-32C of the `used` bytes behind the header |
//! | 16 | 2 | format | version of this layout, 1 |
//! | 18 | 2 | kind | 1 data, 2 segment start |
//! | 20 | 4 | used | content bytes; the rest of the block is zero |
//! | 24 | 2 | size | of the whole block, in units of 4096 bytes |
//! | 26 | 2 | zero_sectors | 512-byte sectors of header and content that were entirely zero as written |
//! | 28 | 4 | chain | `header_checksum` of the block before, 0 for the first |
//! | 32 | 8 | sequence | counts the blocks of this log from 1 |
//! | 40 | 8 | settled | all blocks up to this sequence were known durable when this one was planned |
//! | 48 | 8 | nonce | of the segment; a block left over in a recycled file has another one |
//! | 56 | 8 | segment | number of the segment it was written to |
//! | 64 | 8 | offset | in the segment's file; a misdirected block does not pass |
//! | 72 | 8 | first | stream position of its first byte |
//! | 80 | 8 | durable | durable position known when it was planned |
//! | 88 | 8 | committed | commit position known when it was planned |
//! | 96 | 8 | term | of its first record, 0 in a segment start |
//! | 104 | 24 | reserved | zero |
//!
//! Sectors are written whole or not at all: of a torn block some sectors read as the zeros the segment was prepared
//! with. `zero_sectors` tells a torn block (more zero sectors than that) from a rotten one (all sectors are there and
//! the checksum is wrong). The header lies in one sector, so it is there or zero, and anything else is rot.

use evershard_protocol::checksum::crc32c;
use evershard_protocol::limits::{APPEND_SIZE_MAX, RECORD_SIZE_MAX};
use evershard_protocol::{Position, Term};
use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::segment::SegmentNumber;

/// Blocks begin and end at multiples of this, and so does every write.
pub const BLOCK_ALIGNMENT: usize = 4096;
/// What a disk writes whole or not at all.
pub const SECTOR_SIZE: usize = 512;
/// Bytes of the largest block: header, content and padding.
pub const WRITE_SIZE_MAX: usize = APPEND_SIZE_MAX + BLOCK_ALIGNMENT;
/// Bytes of a block's header.
pub const BLOCK_HEADER_SIZE: usize = size_of::<RawHeader>();
/// Bytes of the largest content.
pub const CONTENT_SIZE_MAX: usize = WRITE_SIZE_MAX - BLOCK_HEADER_SIZE;
/// The version of the layout above.
pub const BLOCK_FORMAT: u16 = 1;

const MAGIC: [u8; 8] = *b"EVSBLOCK";
const CHECKED_FROM: usize = 12;

const _: () = assert!(BLOCK_HEADER_SIZE == 128, "the table above says so");
const _: () = assert!(BLOCK_HEADER_SIZE <= SECTOR_SIZE, "the header is there or not, never torn");
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
    reserved: [u8; 24],
}

/// What a block holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u16)]
pub enum BlockKind {
    /// Whole records of the stream.
    Data = 1,
    /// The first block of a segment: where it continues and what came before (see [`crate::start`]).
    SegmentStart = 2,
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
    /// Term of the first record.
    pub term: Term,
}

/// A sealed block: how many bytes it takes and the checksum the next one chains to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sealed {
    /// Bytes to write, a multiple of [`BLOCK_ALIGNMENT`].
    pub size: usize,
    /// The header's checksum.
    pub checksum: u32,
}

impl BlockDraft {
    /// Completes a block in place: `out` holds `used` bytes of content behind room for the header.
    /// Fills the padding with zeros and writes the header.
    ///
    /// # Panics
    /// If the content is too large for a block or for `out`: the caller's bug.
    pub fn seal(&self, used: usize, out: &mut [u8]) -> Sealed {
        assert!(used <= CONTENT_SIZE_MAX, "the writer cuts at the largest content");
        let size = block_size(used);
        let block = &mut out[..size];
        block[BLOCK_HEADER_SIZE + used..].fill(0);
        block[..8].copy_from_slice(&MAGIC);
        let zero_sectors = zero_sectors(block, used);
        let mut raw = RawHeader {
            magic: MAGIC,
            header_checksum: U32::new(0),
            content_checksum: U32::new(crc32c(&block[BLOCK_HEADER_SIZE..BLOCK_HEADER_SIZE + used])),
            format: U16::new(BLOCK_FORMAT),
            kind: U16::new(self.kind as u16),
            used: U32::new(u32::try_from(used).expect("bounded by CONTENT_SIZE_MAX")),
            size: U16::new(u16::try_from(size / BLOCK_ALIGNMENT).expect("bounded by WRITE_SIZE_MAX")),
            zero_sectors: U16::new(zero_sectors),
            chain: U32::new(self.chain),
            sequence: U64::new(self.sequence),
            settled: U64::new(self.settled),
            nonce: U64::new(self.nonce),
            segment: U64::new(self.segment.0),
            offset: U64::new(self.offset),
            first: U64::new(self.first.0),
            durable: U64::new(self.durable.0),
            committed: U64::new(self.committed.0),
            term: U64::new(self.term.0),
            reserved: [0; 24],
        };
        let checksum = crc32c(&raw.as_bytes()[CHECKED_FROM..]);
        raw.header_checksum = U32::new(checksum);
        block[..BLOCK_HEADER_SIZE].copy_from_slice(raw.as_bytes());
        Sealed { size, checksum }
    }
}

/// A block's header whose checksum is right.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BlockHeader {
    /// What the writer said of it.
    pub draft: BlockDraft,
    /// Content bytes.
    pub used: usize,
    /// Bytes of the whole block.
    pub size: usize,
    /// Entirely zero sectors of header and content, as written.
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
        let raw = RawHeader::ref_from_bytes(&sector[..BLOCK_HEADER_SIZE]).expect("exactly one header of bytes");
        if raw.magic != MAGIC || crc32c(&raw.as_bytes()[CHECKED_FROM..]) != raw.header_checksum.get() {
            return Err(HeaderFault::Damaged);
        }
        if raw.format.get() > BLOCK_FORMAT {
            return Err(HeaderFault::NewerFormat(raw.format.get()));
        }
        let kind = match raw.kind.get() {
            1 => BlockKind::Data,
            2 => BlockKind::SegmentStart,
            _ => return Err(HeaderFault::Damaged),
        };
        let used = raw.used.get() as usize;
        let size = usize::from(raw.size.get()) * BLOCK_ALIGNMENT;
        let range_fits = raw.first.get().checked_add(u64::from(raw.used.get())).is_some();
        if used > CONTENT_SIZE_MAX || size != block_size(used) || !range_fits {
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
            },
            used,
            size,
            zero_sectors: raw.zero_sectors.get(),
            content_checksum: raw.content_checksum.get(),
            checksum: raw.header_checksum.get(),
        })
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
            BlockKind::SegmentStart => self.draft.first,
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
            chain: 0x0102_0304,
            sequence: 7,
            settled: 5,
            nonce: 0xABCD,
            segment: SegmentNumber(3),
            offset: 8192,
            first: Position(640),
            durable: Position(512),
            committed: Position(256),
            term: Term(9),
        }
    }

    fn sealed(content: &[u8]) -> Vec<u8> {
        let mut out = vec![0xEE; WRITE_SIZE_MAX];
        out[BLOCK_HEADER_SIZE..BLOCK_HEADER_SIZE + content.len()].copy_from_slice(content);
        let sealed = draft().seal(content.len(), &mut out);
        out.truncate(sealed.size);
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
            ("reserved", offset_of!(RawHeader, reserved), 24),
        ];
        crate::layout::check(include_str!("block.rs"), &offsets, BLOCK_HEADER_SIZE);
    }

    #[test]
    fn round_trip() {
        let block = sealed(b"0123456789");
        let header = BlockHeader::decode(&block).expect("just sealed");
        assert_eq!(header.draft, draft());
        assert!(header.belongs_at(SegmentNumber(3), 8192) && header.verifies(&block));
        assert!(header.content(&block) == b"0123456789");
        assert_eq!((header.end(), block.len()), (Position(650), BLOCK_ALIGNMENT));
    }

    #[test]
    fn every_flipped_bit_of_the_header_is_noticed() {
        let block = sealed(b"0123456789");
        for byte in 0..BLOCK_HEADER_SIZE {
            let mut flipped = block.clone();
            flipped[byte] ^= 0x10;
            assert_eq!(BlockHeader::decode(&flipped), Err(HeaderFault::Damaged), "byte {byte}");
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
    fn nothing_and_newer_are_their_own_faults() {
        assert_eq!(BlockHeader::decode(&[0; SECTOR_SIZE]), Err(HeaderFault::Zero));
        let mut block = sealed(b"x");
        block[16] = 2;
        let checksum = crc32c(&block[CHECKED_FROM..BLOCK_HEADER_SIZE]);
        block[8..12].copy_from_slice(&checksum.to_le_bytes());
        assert_eq!(BlockHeader::decode(&block), Err(HeaderFault::NewerFormat(2)));
    }
}
