//! From what is in a segment's file back to the stream: for catch-up and replay.

use evershard_protocol::Position;

use crate::block::{BlockHeader, BlockKind, HeaderFault, SECTOR_SIZE};
use crate::hole::{Hole, known_header};
use crate::table::Location;

/// How far a reader came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReadProgress {
    /// Where the next block begins in the same segment.
    pub next_offset: u64,
    /// The stream is read up to here, clipped to the location's end.
    pub position_reached: Position,
    /// The location's end is reached (or, if it has none, the end of what was written): ask the table again.
    pub finished: bool,
}

/// Why reading stopped.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ReadError {
    /// What was written here does not read back: read it once more, then the replica needs repair from a peer.
    #[error("the block at offset {offset} (position {position}) does not read back as it was written")]
    Faulty {
        /// Of the block, in the segment's file.
        offset: u64,
        /// Where the stream goes on there.
        position: Position,
        /// What is missing, if that is known: it may be repaired in its place.
        hole: Option<Box<Hole>>,
    },
}

/// Decodes the whole blocks at the front of `chunk`, which was read from `location.segment` at `location.offset`.
/// Gives `sink` the stream bytes of [`from`, `location.end`) with their first position, block by block: whole records,
/// if `from` is a record boundary.
///
/// Keep `location.end` to what is durable ([`Location::until`]): a block in flight does not read back. To go on, pass a
/// location with `offset: next_offset, position: position_reached` and the chunk that begins there. A chunk of
/// [`crate::WRITE_SIZE_MAX`] bytes always brings at least one block forward.
///
/// # Errors
/// [`ReadError::Faulty`] if a block does not verify; what came before it was given to `sink`.
pub fn read_blocks(
    chunk: &[u8],
    nonce: u64,
    location: Location,
    from: Position,
    sink: &mut impl FnMut(Position, &[u8]),
) -> Result<ReadProgress, ReadError> {
    let mut rest = chunk;
    let mut offset = location.offset;
    let mut reached = location.position;
    let mut before = None;
    while reached < location.end && rest.len() >= SECTOR_SIZE {
        let faulty = || ReadError::Faulty {
            offset,
            position: reached,
            hole: hole_at(rest, nonce, Location { offset, position: reached, ..location }, before),
        };
        let header = match BlockHeader::decode(rest) {
            Ok(header) => header,
            Err(HeaderFault::Zero) if location.end == Position(u64::MAX) => {
                return Ok(ReadProgress { next_offset: offset, position_reached: reached, finished: true });
            }
            Err(_) => return Err(faulty()),
        };
        let right = header.draft.nonce == nonce && header.belongs_at(location.segment, offset);
        if !right || header.draft.first != reached {
            return Err(faulty());
        }
        let Some(block) = rest.get(..header.size) else {
            break;
        };
        if !header.verifies(block) {
            return Err(faulty());
        }
        if header.draft.kind == BlockKind::Data {
            let clipped = (from.clamp(reached, header.end().min(location.end)), header.end().min(location.end));
            let index = |position: Position| usize::try_from(position.since(reached)).expect("within one block");
            if clipped.0 < clipped.1 {
                sink(clipped.0, &header.content(block)[index(clipped.0)..index(clipped.1)]);
            }
            reached = clipped.1;
        }
        before = Some(header);
        offset += header.size as u64;
        rest = &rest[header.size..];
    }
    Ok(ReadProgress { next_offset: offset, position_reached: reached, finished: reached >= location.end })
}

/// The hole at the front of `chunk`, which follows the block `before`, if that is known.
fn hole_at(chunk: &[u8], nonce: u64, location: Location, before: Option<BlockHeader>) -> Option<Box<Hole>> {
    let header = known_header(chunk, nonce, location.segment, location.offset)?;
    if header.draft.kind != BlockKind::Data || header.draft.first != location.position || header.used == 0 {
        return None;
    }
    let before = header.before(chunk).or(before).filter(|before| before.checksum == header.draft.chain);
    let known = before.is_some() || header.draft.chain == 0;
    // The location ends between blocks, or where the stream was cut.
    known.then(|| Box::new(Hole::new(header, before).cut_at(location.end)))
}
