//! Lines of a plain or compressed file, one at a time, of bounded length.

use std::io::{self, BufRead, BufReader, Cursor, Read};

use flate2::read::MultiGzDecoder;

use super::error::Problem;
use super::field::trimmed;

/// Bytes of one line at most.
pub const LINE_SIZE_MAX: usize = 4096;
/// How gzip data begin (RFC 1952).
const GZIP_MAGIC: [u8; 2] = [0x1F, 0x8B];
/// A mark that some editors put at the beginning of text.
const BYTE_ORDER_MARK: [u8; 3] = [0xEF, 0xBB, 0xBF];

pub(super) struct Lines {
    input: Box<dyn BufRead + Send>,
    compressed: bool,
    line: Vec<u8>,
    number: u64,
}

impl Lines {
    /// `input` need not be buffered. It is decompressed if it begins like gzip data.
    pub(super) fn new(mut input: impl Read + Send + 'static) -> Result<Self, Problem> {
        let mut magic = Vec::with_capacity(GZIP_MAGIC.len());
        input.by_ref().take(GZIP_MAGIC.len() as u64).read_to_end(&mut magic).map_err(Problem::Read)?;
        let compressed = magic == GZIP_MAGIC;
        let whole = Cursor::new(magic).chain(input);
        let input: Box<dyn BufRead + Send> = if compressed {
            Box::new(BufReader::with_capacity(64 * 1024, MultiGzDecoder::new(BufReader::new(whole))))
        } else {
            Box::new(BufReader::with_capacity(64 * 1024, whole))
        };
        Ok(Self { input, compressed, line: Vec::new(), number: 0 })
    }

    /// The number of the line read last, from 1.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// Reads the next line that is not blank. False at the end.
    pub(super) fn advance(&mut self) -> Result<bool, Problem> {
        loop {
            self.line.clear();
            self.number += 1;
            let bounded = &mut self.input.by_ref().take(LINE_SIZE_MAX as u64 + 1);
            let size = bounded.read_until(b'\n', &mut self.line).map_err(|error| problem(error, self.compressed))?;
            if size == 0 {
                self.number -= 1;
                return Ok(false);
            }
            if size > LINE_SIZE_MAX {
                return Err(Problem::LineTooLong);
            }
            if self.number == 1 && self.line.starts_with(&BYTE_ORDER_MARK) {
                self.line.drain(..BYTE_ORDER_MARK.len());
            }
            if !self.line().is_empty() {
                return Ok(true);
            }
        }
    }

    /// The line read last, without its end and blanks around it.
    pub(super) fn line(&self) -> &[u8] {
        self.line.trim_ascii()
    }

    /// Its fields.
    pub(super) fn fields(&self) -> impl Iterator<Item = &[u8]> {
        self.line().split(|byte| *byte == b',').map(trimmed)
    }
}

fn problem(error: io::Error, compressed: bool) -> Problem {
    match (compressed, error.kind()) {
        (true, io::ErrorKind::UnexpectedEof) => Problem::Truncated,
        (true, io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData) => Problem::Damaged(error),
        _ => Problem::Read(error),
    }
}
