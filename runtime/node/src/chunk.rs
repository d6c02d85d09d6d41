//! Reading the log back: from raw bytes of a segment's file to a [`Chunk`] of records, without IO.

use evershard_log::{Location, ReadError, SegmentHeader, read_blocks};

use crate::env::{Chunk, ReadFailure, ReadRequest};

/// Bytes of a segment read at a time.
const READ_SIZE: usize = 1024 * 1024;
/// Bytes of log given back at a time, about.
const CHUNK_SIZE: usize = 512 * 1024;

/// Answers one [`ReadRequest`] from what its caller reads of the segment's file.
pub struct ChunkReader {
    request: ReadRequest,
    nonce: u64,
    /// Where the next block begins.
    location: Location,
    file_size: u64,
    chunk: Chunk,
    finished: bool,
}

impl ChunkReader {
    /// Begins with the first block of the segment's file, which has `file_size` bytes.
    ///
    /// # Errors
    /// [`ReadFailure::Faulty`] if the segment's header does not verify.
    pub fn new(request: ReadRequest, head: &[u8], file_size: u64) -> Result<Self, ReadFailure> {
        let header = SegmentHeader::decode(head).map_err(|_| ReadFailure::Faulty)?;
        let chunk = Chunk { first: request.from, bytes: Vec::with_capacity(CHUNK_SIZE + READ_SIZE) };
        Ok(Self { request, nonce: header.nonce, location: request.location, file_size, chunk, finished: false })
    }

    /// What to read next: offset and size in the file, and [`ChunkReader::take`] it. `None`: enough was read.
    #[must_use]
    pub fn wants(&self) -> Option<(u64, usize)> {
        let Location { offset, end, .. } = self.location;
        let more = self.chunk.bytes.len() < CHUNK_SIZE && offset < self.file_size && self.chunk.end() < end;
        let left = self.file_size.saturating_sub(offset);
        (more && !self.finished).then(|| (offset, READ_SIZE.min(usize::try_from(left).unwrap_or(READ_SIZE))))
    }

    /// Takes what was read.
    ///
    /// # Errors
    /// [`ReadFailure::Hole`] or [`ReadFailure::Faulty`] if it does not verify. What was good before that comes first:
    /// then there is no error yet, and nothing more is wanted.
    pub fn take(&mut self, bytes: &[u8]) -> Result<(), ReadFailure> {
        let chunk = &mut self.chunk;
        let mut sink = |first, stream: &[u8]| {
            assert_eq!(first, chunk.end(), "blocks come in order without gaps");
            chunk.bytes.extend_from_slice(stream);
        };
        let progress = match read_blocks(bytes, self.nonce, self.location, self.request.from, &mut sink) {
            Ok(progress) => progress,
            Err(_) if !chunk.bytes.is_empty() => {
                self.finished = true;
                return Ok(());
            }
            Err(ReadError::Faulty { hole, .. }) => return Err(hole.map_or(ReadFailure::Faulty, ReadFailure::Hole)),
        };
        self.finished = progress.finished || progress.next_offset == self.location.offset;
        self.location.offset = progress.next_offset;
        self.location.position = progress.position_reached;
        Ok(())
    }

    /// The records that were found.
    #[must_use]
    pub fn finish(self) -> Chunk {
        self.chunk
    }
}
