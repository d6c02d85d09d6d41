//! A segment: one preallocated file of the log. Its first 4096 bytes say whose it is; blocks follow.
//!
//! | offset | size | field | meaning |
//! |---|---|---|---|
//! | 0 | 8 | magic | `EVSEGMNT` |
//! | 8 | 4 | checksum | CRC-32C of bytes 12..64 |
//! | 12 | 2 | format | version of this layout and of the blocks behind it, 2 |
//! | 14 | 2 | shard | the shard it belongs to |
//! | 16 | 8 | cluster | the cluster it belongs to |
//! | 24 | 1 | node | the node it belongs to |
//! | 25 | 7 | reserved | zero |
//! | 32 | 8 | number | of the segment, counted from 1 |
//! | 40 | 8 | nonce | drawn when the file was prepared; every block repeats it |
//! | 48 | 8 | size | of the file in bytes |
//! | 56 | 8 | reserved_2 | zero |
//!
//! A background worker prepares a segment: it writes zeros over the whole file, makes them durable, then writes the
//! header and makes that durable. In this order, so that a file with a header is zero behind it, whatever it held
//! before, and a preparation that was interrupted leaves no header.

use evershard_protocol::checksum::crc32c;
use evershard_protocol::{ClusterId, NodeId, ShardId};
use std::fmt;
use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::block::{BLOCK_ALIGNMENT, SECTOR_SIZE, WRITE_SIZE_MAX, is_zero};

/// Bytes of a segment's header; the first block begins here.
pub const SEGMENT_HEADER_SIZE: usize = BLOCK_ALIGNMENT;
/// A segment holds at least the largest start block and the largest data block.
pub const SEGMENT_SIZE_MIN: u64 = (SEGMENT_HEADER_SIZE + 2 * WRITE_SIZE_MAX) as u64;
/// The version of the layout above.
pub const SEGMENT_FORMAT: u16 = 2;

const MAGIC: [u8; 8] = *b"EVSEGMNT";
const CHECKED_FROM: usize = 12;
const RAW_SIZE: usize = size_of::<RawHeader>();

const _: () = assert!(RAW_SIZE == 64, "the table above says so");
const _: () = assert!(RAW_SIZE <= SECTOR_SIZE, "the header is written whole or not at all");

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Clone, Copy)]
#[repr(C)]
struct RawHeader {
    magic: [u8; 8],
    checksum: U32,
    format: U16,
    shard: U16,
    cluster: U64,
    node: u8,
    reserved: [u8; 7],
    number: U64,
    nonce: U64,
    size: U64,
    reserved_2: U64,
}

/// Whose log it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Identity {
    /// The cluster.
    pub cluster: ClusterId,
    /// The shard.
    pub shard: ShardId,
    /// The node.
    pub node: NodeId,
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cluster {:016x}, shard {}, node {}", self.cluster.0, self.shard, self.node)
    }
}

/// Counts a log's segments from 1. A number is never used for a second segment of the same log.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash, Default)]
pub struct SegmentNumber(pub u64);

impl SegmentNumber {
    /// The number after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for SegmentNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// What a segment's first 4096 bytes say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SegmentHeader {
    /// Whose it is.
    pub identity: Identity,
    /// Its number.
    pub number: SegmentNumber,
    /// Drawn at random when the file was prepared, never 0: tells its blocks from those the file held before.
    pub nonce: u64,
    /// Bytes of the file.
    pub size: u64,
}

/// Why bytes are not a segment's header.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SegmentError {
    /// All zero: the preparation did not end.
    #[error("the segment was never prepared to its end")]
    Empty,
    /// Something is there that is no header.
    #[error("the segment's header is damaged")]
    Damaged,
    /// It was written in a layout that this release does not read any more.
    #[error("the segment has format {0}, this release reads format {SEGMENT_FORMAT}")]
    OlderFormat(u16),
    /// It was written in a layout this release does not know.
    #[error("the segment has format {0}, this release reads format {SEGMENT_FORMAT}: upgrade this node")]
    NewerFormat(u16),
}

impl SegmentHeader {
    /// The first 4096 bytes of the segment's file.
    ///
    /// # Panics
    /// If the size is not a multiple of 4096 or below [`SEGMENT_SIZE_MIN`]: the caller's bug.
    #[must_use]
    pub fn encode(&self) -> [u8; SEGMENT_HEADER_SIZE] {
        assert!(is_segment_size(self.size), "segment sizes are checked with the configuration");
        let mut raw = RawHeader {
            magic: MAGIC,
            checksum: U32::new(0),
            format: U16::new(SEGMENT_FORMAT),
            shard: U16::new(self.identity.shard.0),
            cluster: U64::new(self.identity.cluster.0),
            node: self.identity.node.0,
            reserved: [0; 7],
            number: U64::new(self.number.0),
            nonce: U64::new(self.nonce),
            size: U64::new(self.size),
            reserved_2: U64::new(0),
        };
        raw.checksum = U32::new(crc32c(&raw.as_bytes()[CHECKED_FROM..]));
        let mut out = [0; SEGMENT_HEADER_SIZE];
        out[..RAW_SIZE].copy_from_slice(raw.as_bytes());
        out
    }

    /// Reads a segment's header from the front of its file (at least one sector).
    ///
    /// # Errors
    /// See [`SegmentError`]; never panics, whatever the bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, SegmentError> {
        let Some(sector) = bytes.get(..SECTOR_SIZE) else {
            return Err(if is_zero(bytes) { SegmentError::Empty } else { SegmentError::Damaged });
        };
        if is_zero(sector) {
            return Err(SegmentError::Empty);
        }
        let raw = RawHeader::ref_from_bytes(&sector[..RAW_SIZE]).expect("exactly one header of bytes");
        if raw.magic != MAGIC || crc32c(&raw.as_bytes()[CHECKED_FROM..]) != raw.checksum.get() {
            return Err(SegmentError::Damaged);
        }
        match raw.format.get() {
            SEGMENT_FORMAT => {}
            older @ ..SEGMENT_FORMAT => return Err(SegmentError::OlderFormat(older)),
            newer => return Err(SegmentError::NewerFormat(newer)),
        }
        if !is_segment_size(raw.size.get()) || raw.number.get() == 0 {
            return Err(SegmentError::Damaged);
        }
        Ok(Self {
            identity: Identity {
                cluster: ClusterId(raw.cluster.get()),
                shard: ShardId(raw.shard.get()),
                node: NodeId(raw.node),
            },
            number: SegmentNumber(raw.number.get()),
            nonce: raw.nonce.get(),
            size: raw.size.get(),
        })
    }
}

/// Whether a segment may have this size: a multiple of 4096, at least [`SEGMENT_SIZE_MIN`].
#[must_use]
pub fn is_segment_size(size: u64) -> bool {
    size >= SEGMENT_SIZE_MIN && size.is_multiple_of(BLOCK_ALIGNMENT as u64)
}

/// The name of a segment's file; names sort as the numbers do.
#[must_use]
pub fn segment_file_name(number: SegmentNumber) -> String {
    format!("segment-{:016}.log", number.0)
}

/// The number in the name of a segment's file, if it is one.
#[must_use]
pub fn segment_number_of(file_name: &str) -> Option<SegmentNumber> {
    let digits = file_name.strip_prefix("segment-")?.strip_suffix(".log")?;
    let number = digits.parse().ok().filter(|number| *number > 0).map(SegmentNumber)?;
    (segment_file_name(number) == file_name).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> SegmentHeader {
        SegmentHeader {
            identity: Identity { cluster: ClusterId(11), shard: ShardId(2), node: NodeId(1) },
            number: SegmentNumber(5),
            nonce: 99,
            size: SEGMENT_SIZE_MIN,
        }
    }

    #[test]
    fn layout_is_the_documented_one() {
        let offsets = [
            ("magic", core::mem::offset_of!(RawHeader, magic), 8),
            ("checksum", core::mem::offset_of!(RawHeader, checksum), 4),
            ("format", core::mem::offset_of!(RawHeader, format), 2),
            ("shard", core::mem::offset_of!(RawHeader, shard), 2),
            ("cluster", core::mem::offset_of!(RawHeader, cluster), 8),
            ("node", core::mem::offset_of!(RawHeader, node), 1),
            ("reserved", core::mem::offset_of!(RawHeader, reserved), 7),
            ("number", core::mem::offset_of!(RawHeader, number), 8),
            ("nonce", core::mem::offset_of!(RawHeader, nonce), 8),
            ("size", core::mem::offset_of!(RawHeader, size), 8),
            ("reserved_2", core::mem::offset_of!(RawHeader, reserved_2), 8),
        ];
        evershard_protocol::layout::check(include_str!("segment.rs"), &offsets, RAW_SIZE);
    }

    #[test]
    fn round_trip_and_faults() {
        let bytes = header().encode();
        assert_eq!(SegmentHeader::decode(&bytes), Ok(header()));
        assert_eq!(SegmentHeader::decode(&[0; SEGMENT_HEADER_SIZE]), Err(SegmentError::Empty));
        assert_eq!(SegmentHeader::decode(&bytes[..100]), Err(SegmentError::Damaged));
        for byte in 0..RAW_SIZE {
            let mut flipped = bytes;
            flipped[byte] ^= 4;
            assert_eq!(SegmentHeader::decode(&flipped), Err(SegmentError::Damaged), "byte {byte}");
        }
    }

    #[test]
    fn file_names_sort_and_read_back() {
        assert_eq!(segment_file_name(SegmentNumber(1)), "segment-0000000000000001.log");
        assert!(segment_file_name(SegmentNumber(9)) < segment_file_name(SegmentNumber(10)));
        assert_eq!(segment_number_of("segment-0000000000000012.log"), Some(SegmentNumber(12)));
        for name in ["segment-12.log", "segment-0000000000000000.log", "votes", "segment-0000000000000012.tmp"] {
            assert_eq!(segment_number_of(name), None, "{name}");
        }
    }
}
