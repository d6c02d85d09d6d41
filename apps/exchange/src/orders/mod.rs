//! Files of order flow, as instructions one after the other.
//!
//! Two formats, told apart by their first line: the neutral one with the header [`HEADER`], and LOBSTER messages
//! ([`AGGRESSOR_ID_MIN`] and [`Skipped`] say how those are replayed). Either may be compressed with gzip,
//! which shows in the first bytes, not in the name. Blank lines, CRLF, a byte order mark and quotes around fields do no harm.
//!
//! A file is read as it is used: memory holds one line, and of LOBSTER messages the open orders.

mod error;
mod field;
mod lines;
mod lobster;
mod neutral;

use std::fs::File;
use std::io::Read;
use std::path::Path;

pub use error::{OrderFileError, Problem};
pub use lines::LINE_SIZE_MAX;
pub use lobster::{AGGRESSOR_ID_MIN, Skipped};
pub use neutral::{HEADER, write_header, write_order};

use crate::wire::{Order, Symbol};
use lines::Lines;
use lobster::Lobster;
use neutral::Columns;

/// An order file under way: iterates over line numbers and orders.
///
/// A line that cannot be understood is an error that names it. Whoever iterates decides: to stop, or to go on with the
/// next line ([`OrderFileError::is_one_line`]). After a fault of the file as a whole the iterator ends.
pub struct OrderFile {
    name: String,
    lines: Lines,
    format: Format,
    /// The first line is an order, and it was read to tell the format.
    pending: bool,
    ended: bool,
}

enum Format {
    Neutral(Columns),
    Lobster(Lobster),
}

impl OrderFile {
    /// Opens a file given as `FILE`, or as `SYMBOL=FILE` for LOBSTER messages whose file name does not begin with
    /// `SYMBOL_`.
    ///
    /// # Errors
    /// [`OrderFileError`]: it cannot be opened or its first line is not understood.
    pub fn open(argument: &str) -> Result<Self, OrderFileError> {
        let (symbol, name) = split_argument(argument);
        match File::open(name) {
            Ok(file) => Self::from_reader(name, file, symbol),
            Err(error) => Err(fault(name, 0, Problem::Open(error))),
        }
    }

    /// Reads from anything. `name` is for messages, and tells the symbol of LOBSTER messages if `symbol` does not.
    ///
    /// # Errors
    /// [`OrderFileError`]: the first line is not understood.
    pub fn from_reader(
        name: &str,
        input: impl Read + Send + 'static,
        symbol: Option<Symbol>,
    ) -> Result<Self, OrderFileError> {
        let mut lines = Lines::new(input).map_err(|problem| fault(name, 0, problem))?;
        match lines.advance() {
            Ok(true) => (),
            Ok(false) => return Err(fault(name, 0, Problem::Empty)),
            Err(problem) => return Err(fault(name, lines.number(), problem)),
        }
        let pending = Lobster::is_message(&lines);
        let format = if pending {
            let symbol = symbol.or_else(|| symbol_of(name)).ok_or_else(|| fault(name, 0, Problem::NoSymbol))?;
            Format::Lobster(Lobster::new(symbol))
        } else {
            let columns = Columns::new(&lines).map_err(|problem| fault(name, lines.number(), problem))?;
            if symbol.is_some() {
                return Err(fault(name, 0, Problem::SymbolGiven));
            }
            Format::Neutral(columns)
        };
        Ok(Self { name: name.to_owned(), lines, format, pending, ended: false })
    }

    /// What was skipped so far; nothing of the neutral format ever is.
    #[must_use]
    pub fn skipped(&self) -> Skipped {
        match &self.format {
            Format::Neutral(_) => Skipped::default(),
            Format::Lobster(lobster) => lobster.skipped,
        }
    }

    fn next_order(&mut self) -> Result<Option<Order>, Problem> {
        loop {
            if !std::mem::take(&mut self.pending) && !self.lines.advance()? {
                return Ok(None);
            }
            match &mut self.format {
                Format::Neutral(columns) => return columns.order(&self.lines).map(Some),
                Format::Lobster(lobster) => {
                    if let Some(order) = lobster.order(&self.lines)? {
                        return Ok(Some(order));
                    }
                }
            }
        }
    }
}

impl Iterator for OrderFile {
    type Item = Result<(u64, Order), OrderFileError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        match self.next_order() {
            Ok(Some(order)) => Some(Ok((self.lines.number(), order))),
            Ok(None) => {
                self.ended = true;
                None
            }
            Err(problem) => {
                let error = fault(&self.name, self.lines.number(), problem);
                self.ended = !error.is_one_line();
                Some(Err(error))
            }
        }
    }
}

fn fault(file: &str, line: u64, problem: Problem) -> OrderFileError {
    OrderFileError { file: file.to_owned(), line, problem }
}

/// Takes `SYMBOL=FILE` apart, unless there is a file of that very name.
fn split_argument(argument: &str) -> (Option<Symbol>, &str) {
    if let Some((symbol, file)) = argument.split_once('=')
        && let Ok(symbol) = symbol.parse()
        && !Path::new(argument).exists()
    {
        return (Some(symbol), file);
    }
    (None, argument)
}

/// `AAPL_2012-06-21_34200000_57600000_message_10.csv` is about AAPL.
fn symbol_of(name: &str) -> Option<Symbol> {
    let file = Path::new(name).file_name()?.to_str()?;
    file.split_once('_')?.0.parse().ok()
}
