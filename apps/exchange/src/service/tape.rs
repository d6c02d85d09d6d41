//! The latest trades of all symbols of a shard, bounded together.
//!
//! Trades lie in pages of one symbol each. When all pages are taken, the page begun longest ago gives way, whatever its
//! symbol: a quiet symbol does not hold a busy one's memory for ever, and what is forgotten is a matter of the
//! trades alone. The pages of one symbol are consecutive, so a trade is found by division.

use std::collections::VecDeque;

use exchange_book::{Fill, TradeNumber};
use xxhash_rust::xxh3::xxh3_64_with_seed;
use zerocopy::IntoBytes;

use crate::wire::layout::TradeEntry;

/// Trades of one page.
pub const TAPE_PAGE_LEN: usize = 1024;

#[derive(Debug)]
pub(super) struct Page {
    pub(super) market: u32,
    /// The number of its first trade.
    pub(super) first: u64,
    /// A digest of its trades, one folded into the next.
    pub(super) chain: u64,
    /// Invariant: [`TAPE_PAGE_LEN`] at most, and not empty.
    pub(super) trades: Vec<TradeEntry>,
}

#[derive(Debug)]
pub(super) struct Tape {
    pages_max: usize,
    pages: Vec<Page>,
    /// Pages by age, the oldest first.
    queue: VecDeque<u32>,
    /// Pages of each market, the oldest first.
    markets: Vec<VecDeque<u32>>,
}

impl Tape {
    pub(super) fn new(pages_max: usize) -> Self {
        assert!(pages_max > 0, "a tape has a page at least");
        Self { pages_max, pages: Vec::new(), queue: VecDeque::with_capacity(pages_max), markets: Vec::new() }
    }

    /// Adds a market; they are numbered from 0.
    pub(super) fn add_market(&mut self) {
        self.markets.push(VecDeque::new());
    }

    /// Adds a trade, the next of its market.
    pub(super) fn push(&mut self, market: u32, fill: &Fill) {
        let trade = TradeEntry {
            price: fill.price.0.into(),
            qty: fill.qty.0.into(),
            maker: fill.maker.0.into(),
            taker: fill.taker.0.into(),
        };
        self.push_entry(market, fill.trade, trade);
    }

    pub(super) fn push_entry(&mut self, market: u32, number: TradeNumber, trade: TradeEntry) {
        let at = match self.markets[market as usize].back() {
            Some(at) if self.pages[*at as usize].trades.len() < TAPE_PAGE_LEN => *at,
            _ => self.begin_page(market, number),
        };
        let page = &mut self.pages[at as usize];
        assert!(page.first + page.trades.len() as u64 == number.0, "trades are numbered consecutively");
        page.chain = xxh3_64_with_seed(trade.as_bytes(), page.chain);
        page.trades.push(trade);
    }

    /// Begins a page for `market`, in the place of the oldest of all if there is no other.
    pub(super) fn begin_page(&mut self, market: u32, first: TradeNumber) -> u32 {
        let at = if self.pages.len() < self.pages_max {
            let trades = Vec::with_capacity(TAPE_PAGE_LEN);
            self.pages.push(Page { market, first: first.0, chain: 0, trades });
            u32::try_from(self.pages.len() - 1).expect("pages are few")
        } else {
            let at = self.queue.pop_front().expect("all pages are in the queue");
            let page = &mut self.pages[at as usize];
            let forgotten = self.markets[page.market as usize].pop_front();
            assert!(forgotten == Some(at), "the oldest page of all is the oldest of its market");
            (page.market, page.first, page.chain) = (market, first.0, 0);
            page.trades.clear();
            at
        };
        self.queue.push_back(at);
        self.markets[market as usize].push_back(at);
        at
    }

    /// The oldest trade of a market that is still here.
    pub(super) fn retained_from(&self, market: u32) -> Option<TradeNumber> {
        let at = *self.markets[market as usize].front()?;
        Some(TradeNumber(self.pages[at as usize].first))
    }

    /// The trades of a market from number `from` on, which is at least what [`Tape::retained_from`] says.
    pub(super) fn trades_from(&self, market: u32, from: TradeNumber) -> impl Iterator<Item = TradeEntry> + '_ {
        let pages = &self.markets[market as usize];
        let skip = self.retained_from(market).map_or(0, |first| from.0.saturating_sub(first.0));
        let skip = usize::try_from(skip).unwrap_or(usize::MAX);
        let (page, at) = (skip / TAPE_PAGE_LEN, skip % TAPE_PAGE_LEN);
        let trades = pages.iter().skip(page).map(|at| &self.pages[*at as usize].trades);
        trades.enumerate().flat_map(move |(number, trades)| {
            let start = if number == 0 { at.min(trades.len()) } else { 0 };
            trades[start..].iter().copied()
        })
    }

    /// All pages, the oldest first.
    pub(super) fn pages(&self) -> impl ExactSizeIterator<Item = &Page> + '_ {
        self.queue.iter().map(|at| &self.pages[*at as usize])
    }

    /// Whether a page of `market` beginning with trade `first` continues what is here.
    pub(super) fn continues(&self, market: u32, first: TradeNumber) -> bool {
        let Some(last) = self.markets[market as usize].back() else { return true };
        let last = &self.pages[*last as usize];
        last.trades.len() == TAPE_PAGE_LEN && last.first.checked_add(TAPE_PAGE_LEN as u64) == Some(first.0)
    }

    /// The number of a market's latest trade, if the tape has one.
    pub(super) fn latest(&self, market: u32) -> Option<TradeNumber> {
        let last = &self.pages[*self.markets[market as usize].back()? as usize];
        Some(TradeNumber(last.first + last.trades.len() as u64 - 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(number: u64) -> TradeEntry {
        TradeEntry { price: number.into(), qty: 1.into(), maker: 2.into(), taker: 3.into() }
    }

    #[test]
    fn the_oldest_page_gives_way_whatever_its_market() {
        let mut tape = Tape::new(3);
        tape.add_market();
        tape.add_market();
        tape.push_entry(1, TradeNumber(1), entry(1));
        for number in 1..=2 * TAPE_PAGE_LEN as u64 {
            tape.push_entry(0, TradeNumber(number), entry(number));
        }
        assert_eq!(tape.retained_from(1), Some(TradeNumber(1)));
        tape.push_entry(0, TradeNumber(2 * TAPE_PAGE_LEN as u64 + 1), entry(9));
        assert_eq!(tape.retained_from(1), None, "the quiet market's page was begun first");
        tape.push_entry(1, TradeNumber(2), entry(2));
        assert_eq!(tape.retained_from(1), Some(TradeNumber(2)));
        assert_eq!(tape.retained_from(0), Some(TradeNumber(TAPE_PAGE_LEN as u64 + 1)));
        let from = TradeNumber(2 * TAPE_PAGE_LEN as u64);
        let found: Vec<u64> = tape.trades_from(0, from).map(|trade| trade.price.get()).collect();
        assert_eq!(found, [2 * TAPE_PAGE_LEN as u64, 9]);
        assert_eq!(tape.trades_from(0, TradeNumber(u64::MAX)).count(), 0);
        assert_eq!(tape.pages().len(), 3);
    }
}
