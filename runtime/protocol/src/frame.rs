//! The envelope of everything sent over a connection.
//!
//! | offset | size | field | meaning |
//! |---|---|---|---|
//! | 0 | 4 | size | the whole frame, this header included |
//! | 4 | 4 | checksum | CRC-32C from offset 8 to the end of the payload; of log data, to the end of the block |
//! | 8 | 2 | block length | bytes of the fixed part behind the header |
//! | 10 | 2 | template | which frame it is, within its schema |
//! | 12 | 2 | schema | 1 client frames, 2 peer frames |
//! | 14 | 2 | version | version of the template: fields are only ever appended |
//! | 16 | .. | block, then payload | |
//!
//! The header carries what SBE's does (block length, template, schema, version). A reader takes the part of a block
//! it knows: a longer block is cut, a shorter one (an older sender's) is read as if followed by zeros.

use zerocopy::byteorder::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::checksum::crc32c;
use crate::limits::FRAME_SIZE_MAX;

/// Bytes of the envelope.
pub const HEADER_SIZE: usize = size_of::<RawHeader>();

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Clone, Copy)]
#[repr(C)]
struct RawHeader {
    size: U32,
    checksum: U32,
    block_length: U16,
    template: U16,
    schema: U16,
    version: U16,
}

const _: () = assert!(HEADER_SIZE == 16, "the table above says so");

/// The checksum covers everything behind itself.
const SUMMED_FROM: usize = 8;

/// The fixed part of one kind of frame.
pub trait Block: FromBytes + IntoBytes + Immutable + KnownLayout + Unaligned + Copy {
    /// 1 client, 2 peer.
    const SCHEMA: u16;
    /// Which frame.
    const TEMPLATE: u16;
    /// Grows when fields are appended.
    const VERSION: u16 = 1;
    /// False where the payload carries checksums of its own (log records).
    const PAYLOAD_SUMMED: bool = true;
}

/// Why bytes are not a frame. All of these are the sender's fault: the connection is closed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FrameError {
    /// The size field is below a header or above [`FRAME_SIZE_MAX`].
    #[error("a frame of {0} bytes is announced, which is not possible")]
    Size(u32),
    /// The block is longer than the frame.
    #[error("the frame's block length does not fit its size")]
    BlockLength,
    /// The checksum does not match.
    #[error("the frame's checksum does not match its content")]
    Checksum,
    /// Another frame was expected here.
    #[error("unexpected frame: schema {schema}, template {template}")]
    Unexpected {
        /// Its schema.
        schema: u16,
        /// Its template.
        template: u16,
    },
    /// A field has a value that no sender of this protocol writes.
    #[error("the frame's field `{0}` is out of range")]
    Field(&'static str),
}

/// There is not enough room left in the output buffer; nothing was written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the output buffer is full")]
pub struct Full;

/// One verified frame, borrowed from the bytes it was found in.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// 1 client, 2 peer.
    pub schema: u16,
    /// Which frame.
    pub template: u16,
    /// Version of the template at the sender.
    pub version: u16,
    block: &'a [u8],
    payload: &'a [u8],
    summed: &'a [u8],
    checksum: u32,
}

/// Size of the frame that begins at the front of `bytes`, as soon as that can be told.
///
/// # Errors
/// [`FrameError::Size`] if no frame can be that large or small.
pub fn peek_size(bytes: &[u8]) -> Result<Option<usize>, FrameError> {
    let Some(field) = bytes.first_chunk::<4>() else {
        return Ok(None);
    };
    let size = u32::from_le_bytes(*field);
    if (size as usize) < HEADER_SIZE || size as usize > FRAME_SIZE_MAX {
        return Err(FrameError::Size(size));
    }
    Ok(Some(size as usize))
}

impl<'a> Frame<'a> {
    /// Takes the first frame off `bytes`; `None` if it is not complete yet. Returns it with its size.
    ///
    /// The checksum is verified by [`Frame::read`], which knows what it covers.
    ///
    /// # Errors
    /// See [`FrameError`]; never panics, whatever the bytes.
    pub fn take(bytes: &'a [u8]) -> Result<Option<(Self, usize)>, FrameError> {
        let Some(size) = peek_size(bytes)? else {
            return Ok(None);
        };
        let Some(whole) = bytes.get(..size) else {
            return Ok(None);
        };
        let (head, body) = whole.split_at(HEADER_SIZE);
        let raw = RawHeader::ref_from_bytes(head).expect("exactly one header of bytes, no alignment needed");
        let block_length = usize::from(raw.block_length.get());
        if block_length > body.len() {
            return Err(FrameError::BlockLength);
        }
        let (block, payload) = body.split_at(block_length);
        let frame = Self {
            schema: raw.schema.get(),
            template: raw.template.get(),
            version: raw.version.get(),
            block,
            payload,
            summed: &whole[SUMMED_FROM..],
            checksum: raw.checksum.get(),
        };
        Ok(Some((frame, size)))
    }

    /// True if this is the frame `B` describes.
    #[must_use]
    pub fn is<B: Block>(&self) -> bool {
        self.schema == B::SCHEMA && self.template == B::TEMPLATE
    }

    /// The block and the payload, checksum verified.
    ///
    /// # Errors
    /// [`FrameError::Unexpected`] if it is another frame, [`FrameError::Checksum`] if it was damaged.
    pub fn read<B: Block>(&self) -> Result<(B, &'a [u8]), FrameError> {
        if !self.is::<B>() {
            return Err(FrameError::Unexpected { schema: self.schema, template: self.template });
        }
        let unsummed = if B::PAYLOAD_SUMMED { 0 } else { self.payload.len() };
        if crc32c(&self.summed[..self.summed.len() - unsummed]) != self.checksum {
            return Err(FrameError::Checksum);
        }
        let mut block = B::new_zeroed();
        let known = self.block.len().min(size_of::<B>());
        block.as_mut_bytes()[..known].copy_from_slice(&self.block[..known]);
        Ok((block, self.payload))
    }
}

/// Bytes a frame with block `B` and this much payload takes.
#[must_use]
pub fn size_of_frame<B: Block>(payload_size: usize) -> usize {
    HEADER_SIZE + size_of::<B>() + payload_size
}

/// Appends one frame to `out` without ever growing its allocation.
///
/// # Errors
/// [`Full`] if it does not fit the capacity left; `out` is unchanged then.
///
/// # Panics
/// If the frame is larger than [`FRAME_SIZE_MAX`]: the caller's bug.
pub fn put<B: Block>(out: &mut Vec<u8>, block: &B, payload: &[u8]) -> Result<(), Full> {
    put_gathered(out, block, &[payload])
}

/// [`put`] with a payload that lies in several places.
///
/// # Errors
/// As [`put`].
///
/// # Panics
/// As [`put`].
pub fn put_gathered<B: Block>(out: &mut Vec<u8>, block: &B, payload: &[&[u8]]) -> Result<(), Full> {
    let payload_size: usize = payload.iter().map(|part| part.len()).sum();
    let size = size_of_frame::<B>(payload_size);
    assert!(size <= FRAME_SIZE_MAX, "senders cut what they send to the frame limit");
    if out.capacity() - out.len() < size {
        return Err(Full);
    }
    let mut header = RawHeader {
        size: U32::new(u32::try_from(size).expect("bounded by FRAME_SIZE_MAX")),
        block_length: U16::new(u16::try_from(size_of::<B>()).expect("blocks are small")),
        template: U16::new(B::TEMPLATE),
        schema: U16::new(B::SCHEMA),
        version: U16::new(B::VERSION),
        checksum: U32::new(0),
    };
    let start = out.len();
    out.extend_from_slice(header.as_bytes());
    out.extend_from_slice(block.as_bytes());
    for part in payload {
        out.extend_from_slice(part);
    }
    let summed_end = if B::PAYLOAD_SUMMED { out.len() } else { start + HEADER_SIZE + size_of::<B>() };
    header.checksum = U32::new(crc32c(&out[start + SUMMED_FROM..summed_end]));
    out[start + 4..start + SUMMED_FROM].copy_from_slice(header.checksum.as_bytes());
    Ok(())
}
