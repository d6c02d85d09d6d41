//! The exchange's state as a digest and as a snapshot.
//!
//! Snapshot, integers little-endian, eight bytes wide: magic, format, number of markets; for each market in the order
//! of coming into being its symbol (16 bytes) and its book ([`Book::save`]); number of pages of the tape; for each
//! page, the oldest first, its market, first trade number, number of trades, and the trades as on the wire (32 bytes).

use evershard_service::{Digest, Digester, SnapshotError, SnapshotReader, SnapshotWriter};
use exchange_book::{Book, RestoreError, TradeNumber};
use zerocopy::{FromZeros, IntoBytes};

use super::{Exchange, ExchangeLimits, TAPE_PAGE_LEN};
use crate::wire::Symbol;
use crate::wire::layout::{SYMBOL_SIZE, TradeEntry};

/// "EXCHANGE" as eight ASCII bytes.
const MAGIC: u64 = u64::from_le_bytes(*b"EXCHANGE");
/// The format this version writes, and the only one it reads.
const FORMAT: u64 = 1;

impl Exchange {
    /// Reads all books; of the tape, the digests of its pages.
    pub(super) fn state_digest(&self) -> Digest {
        let mut digester = Digester::new();
        digester.add_u64(self.markets.len() as u64);
        for market in &self.markets {
            digester.add(&market.symbol.to_wire());
            digester.add_u64(market.book.digest());
        }
        digester.add_u64(self.tape.pages().len() as u64);
        for page in self.tape.pages() {
            digester.add_u64(u64::from(page.market));
            digester.add_u64(page.first);
            digester.add_u64(page.trades.len() as u64);
            digester.add_u64(page.chain);
        }
        digester.finish()
    }

    pub(super) fn save_state(&self, out: &mut dyn SnapshotWriter) -> Result<(), SnapshotError> {
        write_all(out, &[MAGIC, FORMAT, self.markets.len() as u64])?;
        for market in &self.markets {
            out.write(&market.symbol.to_wire())?;
            market.book.save(|bytes| out.write(bytes))?;
        }
        write_all(out, &[self.tape.pages().len() as u64])?;
        for page in self.tape.pages() {
            write_all(out, &[u64::from(page.market), page.first, page.trades.len() as u64])?;
            out.write(page.trades.as_bytes())?;
        }
        Ok(())
    }

    pub(super) fn restore_state(
        limits: ExchangeLimits,
        source: &mut dyn SnapshotReader,
    ) -> Result<Self, SnapshotError> {
        let mut exchange = Self::new(limits);
        if (read(source)?, read(source)?) != (MAGIC, FORMAT) {
            return Err(format_error("it is not an exchange's, or of another format"));
        }
        let markets_len = read(source)?;
        if markets_len > limits.symbols_max as u64 {
            return Err(format_error("it has more symbols than the limit"));
        }
        for _ in 0..markets_len {
            exchange.restore_market(source)?;
        }
        if exchange.resting > limits.orders_max {
            return Err(format_error("it has more resting orders than the limit"));
        }
        let pages_len = read(source)?;
        if pages_len > limits.tape_pages_max as u64 {
            return Err(format_error("its tape is longer than the limit"));
        }
        for _ in 0..pages_len {
            exchange.restore_page(source)?;
        }
        for (number, market) in (0_u32..).zip(&exchange.markets) {
            if exchange.tape.latest(number).is_some_and(|latest| latest != market.book.trades()) {
                return Err(format_error("its tape does not end with the latest trade"));
            }
        }
        Ok(exchange)
    }

    fn restore_market(&mut self, source: &mut dyn SnapshotReader) -> Result<(), SnapshotError> {
        let mut bytes = [0; SYMBOL_SIZE];
        source.read_exact(&mut bytes)?;
        let symbol = Symbol::from_wire(bytes).map_err(|_| format_error("a symbol is not one"))?;
        if self.market(symbol).is_some() {
            return Err(format_error("a symbol is there twice"));
        }
        let book = Book::restore(self.limits.book, |out| source.read_exact(out).map_err(Failure::Source))?;
        self.add_market(symbol, book);
        Ok(())
    }

    fn restore_page(&mut self, source: &mut dyn SnapshotReader) -> Result<(), SnapshotError> {
        let (market, first, len) = (read(source)?, read(source)?, read(source)?);
        let market = u32::try_from(market).ok().filter(|market| (*market as usize) < self.markets.len());
        let market = market.ok_or_else(|| format_error("a page of the tape has no symbol"))?;
        let first_ok = self.tape.continues(market, TradeNumber(first));
        let last = first.checked_add(len).filter(|_| first > 0 && (1..=TAPE_PAGE_LEN as u64).contains(&len));
        let (true, Some(end)) = (first_ok, last) else {
            return Err(format_error("a page of the tape does not continue the one before"));
        };
        for number in first..end {
            let mut trade = TradeEntry::new_zeroed();
            source.read_exact(trade.as_mut_bytes())?;
            self.tape.push_entry(market, TradeNumber(number), trade);
        }
        Ok(())
    }
}

enum Failure {
    Source(SnapshotError),
    Book(RestoreError),
}

impl From<RestoreError> for Failure {
    fn from(error: RestoreError) -> Self {
        Self::Book(error)
    }
}

impl From<Failure> for SnapshotError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Source(error) => error,
            Failure::Book(error) => format_error(&error.to_string()),
        }
    }
}

fn format_error(reason: &str) -> SnapshotError {
    SnapshotError::Format(reason.to_owned())
}

fn write_all(out: &mut dyn SnapshotWriter, words: &[u64]) -> Result<(), SnapshotError> {
    words.iter().try_for_each(|word| out.write(&word.to_le_bytes()))
}

fn read(source: &mut dyn SnapshotReader) -> Result<u64, SnapshotError> {
    let mut bytes = [0; 8];
    source.read_exact(&mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
}
