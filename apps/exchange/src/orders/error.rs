//! What can be wrong with an order file. The file's author is at fault, or the disk.

use std::fmt;
use std::io;

/// A fault of an order file, and where.
#[derive(Debug, thiserror::Error)]
pub struct OrderFileError {
    /// The file as the caller named it.
    pub file: String,
    /// Counted from 1; 0 if it is about the file as a whole.
    pub line: u64,
    /// What is wrong.
    #[source]
    pub problem: Problem,
}

impl fmt::Display for OrderFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.file, self.problem),
            line => write!(f, "{} line {line}: {}", self.file, self.problem),
        }
    }
}

impl OrderFileError {
    /// Whether later lines can still be read: the fault is of one line and not of the file.
    #[must_use]
    pub fn is_one_line(&self) -> bool {
        matches!(self.problem, Problem::FieldCount { .. } | Problem::Field { .. })
    }
}

/// What is wrong.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// It cannot be opened.
    #[error("cannot open it: {0}")]
    Open(io::Error),
    /// It cannot be read on.
    #[error("cannot read on: {0}")]
    Read(io::Error),
    /// Compressed data are cut off.
    #[error("the gzip data end too early: the file is incomplete, fetch or copy it again")]
    Truncated,
    /// Compressed data are damaged.
    #[error("the gzip data are damaged ({0}), fetch or copy the file again")]
    Damaged(io::Error),
    /// A line beyond [`LINE_SIZE_MAX`](super::LINE_SIZE_MAX).
    #[error("the line is longer than {} bytes: expected a CSV file of orders", super::LINE_SIZE_MAX)]
    LineTooLong,
    /// There is no line.
    #[error("the file is empty: expected the header `{}`, or LOBSTER messages", super::HEADER)]
    Empty,
    /// The first line is none of those known.
    #[error("expected the header `{}`, or LOBSTER messages, found `{found}`", super::HEADER)]
    Header {
        /// The line.
        found: String,
    },
    /// Too few or too many fields.
    #[error("expected {expected} fields, found {found}")]
    FieldCount {
        /// As many as the header has.
        expected: usize,
        /// How many there are.
        found: usize,
    },
    /// A field that cannot be understood.
    #[error("{name}: expected {expected}, found `{found}`")]
    Field {
        /// Which.
        name: &'static str,
        /// What would be right.
        expected: &'static str,
        /// What there is.
        found: String,
    },
    /// LOBSTER messages whose symbol nothing tells.
    #[error("LOBSTER messages do not name their symbol: give it as SYMBOL=FILE, or name the file SYMBOL_...")]
    NoSymbol,
    /// A symbol was given for a file that has its own.
    #[error("the file names its symbols itself: give it without SYMBOL=")]
    SymbolGiven,
}

/// At most so many characters of what was found are shown.
const SHOWN_LEN_MAX: usize = 60;

/// A field or line for people: printable and not too long.
pub(super) fn shown(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut shown: String = text.chars().take(SHOWN_LEN_MAX).flat_map(char::escape_debug).collect();
    if text.chars().nth(SHOWN_LEN_MAX).is_some() {
        shown.push('…');
    }
    shown
}
