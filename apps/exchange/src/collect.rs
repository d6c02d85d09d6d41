//! Rebuilds `trades.csv` and `book.csv` from an exchange's replies.
//!
//! Feed it the acks; then, as long as [`Collector::wanted`] names a command, send that and feed the reply. Trades come
//! with the acks; those an ack had no room for, and those of other clients, come from the exchange's tape. The books are
//! read page by page: they are one picture only if nobody trades meanwhile.

use std::collections::BTreeMap;
use std::io;

use evershard_service::ShardId;
use exchange_book::{Arrival, OrderId, Price, Qty, Side, TradeNumber};

use crate::shard_of;
use crate::wire::layout::SymbolEntry;
use crate::wire::{
    Ack, Command, Group, Order, OrdersPage, OrdersQuery, RejectCode, Reply, Symbol, TradesPage, TradesQuery,
};

/// What does not fit together.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CollectError {
    /// An ack about another order than the one sent: replies were mixed up.
    #[error("sent order {sent}, the ack is about {acked}")]
    OtherOrder {
        /// The order of the command.
        sent: OrderId,
        /// The order of the ack.
        acked: OrderId,
    },
    /// Two replies tell different things about one trade.
    #[error("{symbol}: trade {trade} was told in two ways")]
    Conflict {
        /// Which book.
        symbol: Symbol,
        /// Which trade.
        trade: TradeNumber,
    },
    /// Trades are missing and the exchange has forgotten them.
    #[error("{symbol}: trade {trade} is no longer on the tape, which begins at {retained_from}")]
    Forgotten {
        /// Which book.
        symbol: Symbol,
        /// The first that is missing.
        trade: TradeNumber,
        /// The oldest there is.
        retained_from: TradeNumber,
    },
    /// A reply that brings nothing new where something was asked for.
    #[error("{symbol}: a page is empty that should not be")]
    EmptyPage {
        /// Which book.
        symbol: Symbol,
    },
    /// The exchange refused a query.
    #[error("{symbol}: the query was refused: {code}")]
    Refused {
        /// Which book.
        symbol: Symbol,
        /// Why.
        code: RejectCode,
    },
    /// A symbol on a shard it does not belong to: the number of shards is not the cluster's.
    #[error("{symbol} was found on shard {found}, it belongs to {expected}")]
    OtherShard {
        /// Which.
        symbol: Symbol,
        /// Where it was.
        found: ShardId,
        /// Where it belongs.
        expected: ShardId,
    },
    /// A reply of a kind that was not asked for, or that cannot be read.
    #[error("unexpected reply: {0}")]
    Unexpected(String),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Trade {
    price: Price,
    qty: Qty,
    maker: OrderId,
    taker: OrderId,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Progress {
    /// The next page begins behind this order, or at the beginning.
    From(Option<(Price, Arrival)>),
    Done,
}

#[derive(Debug)]
struct Collected {
    trades: BTreeMap<u64, Trade>,
    /// No trade up to this one is missing.
    complete: u64,
    /// The latest trade known of.
    latest: u64,
    /// Indexed by [`Side`].
    orders: [Vec<(Price, OrderId, Qty)>; 2],
    progress: [Progress; 2],
}

impl Default for Collected {
    fn default() -> Self {
        Self {
            trades: BTreeMap::new(),
            complete: 0,
            latest: 0,
            orders: [Vec::new(), Vec::new()],
            progress: [Progress::From(None); 2],
        }
    }
}

/// Counts of what was collected.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Totals {
    /// Acks that accepted.
    pub accepted: u64,
    /// Acks that rejected.
    pub rejected: u64,
    /// Trades.
    pub trades: u64,
    /// Lots traded.
    pub volume: u128,
    /// Orders that rest, as far as the books were read.
    pub resting: u64,
}

/// See the [module docs](self).
#[derive(Debug)]
pub struct Collector {
    shards: u16,
    /// Shards that told their symbols, from 0 on.
    shards_told: u16,
    accepted: u64,
    rejected: u64,
    symbols: BTreeMap<Symbol, Collected>,
}

impl Collector {
    /// For a cluster of so many shards.
    ///
    /// # Panics
    /// If `shards` is 0.
    #[must_use]
    pub fn new(shards: u16) -> Self {
        assert!(shards > 0, "a cluster has a shard at least");
        Self { shards, shards_told: 0, accepted: 0, rejected: 0, symbols: BTreeMap::new() }
    }

    /// Takes the ack of an order. In any order, and repeated ones do no harm but to the counts.
    ///
    /// # Errors
    /// [`CollectError::OtherOrder`], [`CollectError::Conflict`].
    pub fn on_ack(&mut self, order: &Order, ack: &Ack<'_>) -> Result<(), CollectError> {
        if ack.order_id != order.id() {
            return Err(CollectError::OtherOrder { sent: order.id(), acked: ack.order_id });
        }
        let Ok(accepted) = &ack.result else {
            self.rejected += 1;
            return Ok(());
        };
        self.accepted += 1;
        if accepted.trades == 0 {
            return Ok(());
        }
        let collected = self.symbols.entry(order.symbol).or_default();
        let first = accepted.first_trade.0;
        for (number, fill) in numbered(first, accepted.fills.iter()) {
            let (price, qty) = (Price(fill.price.get()), Qty(fill.qty.get()));
            let trade = Trade { price, qty, maker: OrderId(fill.maker.get()), taker: order.id() };
            collected.add(order.symbol, number, trade)?;
        }
        collected.latest = collected.latest.max(first.saturating_add(u64::from(accepted.trades) - 1));
        collected.advance();
        Ok(())
    }

    /// The next command that must be asked to have everything, and of which shard. None: all is there.
    #[must_use]
    pub fn wanted(&self) -> Option<(ShardId, Command)> {
        if self.shards_told < self.shards {
            return Some((ShardId(self.shards_told), Command::Symbols));
        }
        self.symbols.iter().find_map(|(symbol, collected)| {
            let command = collected.wanted(*symbol)?;
            Some((shard_of(*symbol, self.shards), command))
        })
    }

    /// Takes the reply to a command that [`Collector::wanted`] named.
    ///
    /// # Errors
    /// [`CollectError`].
    pub fn on_reply(&mut self, shard: ShardId, reply: &Reply<'_>) -> Result<(), CollectError> {
        match reply {
            Reply::Symbols(symbols) => self.on_symbols(shard, symbols),
            Reply::Trades(page) => self.on_trades(page),
            Reply::Orders(page) => self.on_orders(page),
            other => Err(CollectError::Unexpected(format!("{other:?}"))),
        }
    }

    /// Counts of what was collected so far.
    #[must_use]
    pub fn totals(&self) -> Totals {
        let mut totals = Totals { accepted: self.accepted, rejected: self.rejected, ..Totals::default() };
        for collected in self.symbols.values() {
            totals.trades += collected.trades.len() as u64;
            totals.volume += collected.trades.values().map(|trade| u128::from(trade.qty.0)).sum::<u128>();
            totals.resting += collected.orders.iter().map(|orders| orders.len() as u64).sum::<u64>();
        }
        totals
    }

    /// Writes `trades.csv`: symbols sorted, trades numbered from 1 in each.
    ///
    /// # Errors
    /// Those of `out`, which should be buffered.
    pub fn write_trades(&self, out: &mut impl io::Write) -> io::Result<()> {
        writeln!(out, "symbol,trade,price,qty,maker,taker")?;
        for (symbol, collected) in &self.symbols {
            for (number, Trade { price, qty, maker, taker }) in &collected.trades {
                writeln!(out, "{symbol},{number},{price},{qty},{maker},{taker}")?;
            }
        }
        Ok(())
    }

    /// Writes `book.csv`: symbols sorted, bids before asks, best price first, then oldest first.
    ///
    /// # Errors
    /// Those of `out`, which should be buffered.
    pub fn write_book(&self, out: &mut impl io::Write) -> io::Result<()> {
        writeln!(out, "symbol,side,price,order_id,qty")?;
        for (symbol, collected) in &self.symbols {
            for side in Side::BOTH {
                for (price, id, qty) in &collected.orders[side as usize] {
                    writeln!(out, "{symbol},{},{price},{id},{qty}", side.letter())?;
                }
            }
        }
        Ok(())
    }

    fn on_symbols(&mut self, shard: ShardId, symbols: &Group<'_, SymbolEntry>) -> Result<(), CollectError> {
        for entry in symbols.iter() {
            let unreadable = |error| CollectError::Unexpected(format!("{error}"));
            let symbol = Symbol::from_wire(entry.symbol).map_err(unreadable)?;
            let expected = shard_of(symbol, self.shards);
            if expected != shard {
                return Err(CollectError::OtherShard { symbol, found: shard, expected });
            }
            let collected = self.symbols.entry(symbol).or_default();
            collected.latest = collected.latest.max(entry.trades.get());
        }
        self.shards_told = self.shards_told.max(shard.0.saturating_add(1));
        Ok(())
    }

    fn on_trades(&mut self, page: &TradesPage<'_>) -> Result<(), CollectError> {
        let symbol = page.symbol;
        if let Some(code) = page.reject {
            return Err(CollectError::Refused { symbol, code });
        }
        let collected = self.symbols.entry(symbol).or_default();
        let before = collected.complete;
        for (number, entry) in numbered(page.first.0, page.trades.iter()) {
            let (maker, taker) = (OrderId(entry.maker.get()), OrderId(entry.taker.get()));
            let trade = Trade { price: Price(entry.price.get()), qty: Qty(entry.qty.get()), maker, taker };
            collected.add(symbol, number, trade)?;
        }
        collected.latest = collected.latest.max(page.latest.0);
        collected.advance();
        if collected.complete > before || collected.complete == collected.latest {
            return Ok(());
        }
        let (trade, retained_from) = (TradeNumber(before + 1), page.retained_from);
        if trade < retained_from {
            return Err(CollectError::Forgotten { symbol, trade, retained_from });
        }
        Err(CollectError::EmptyPage { symbol })
    }

    fn on_orders(&mut self, page: &OrdersPage<'_>) -> Result<(), CollectError> {
        let (symbol, side) = (page.symbol, page.side as usize);
        if let Some(code) = page.reject {
            return Err(CollectError::Refused { symbol, code });
        }
        if page.orders.is_empty() && page.next.is_some() {
            return Err(CollectError::EmptyPage { symbol });
        }
        let collected = self.symbols.entry(symbol).or_default();
        let orders = page.orders.iter();
        let order = orders.map(|order| (Price(order.price.get()), OrderId(order.order_id.get()), Qty(order.qty.get())));
        collected.orders[side].extend(order);
        collected.progress[side] = page.next.map_or(Progress::Done, |last| Progress::From(Some(last)));
        Ok(())
    }
}

impl Collected {
    fn wanted(&self, symbol: Symbol) -> Option<Command> {
        if self.complete < self.latest {
            return Some(Command::Trades(TradesQuery { symbol, from: TradeNumber(self.complete + 1) }));
        }
        Side::BOTH.into_iter().find_map(|side| match self.progress[side as usize] {
            Progress::From(after) => Some(Command::Orders(OrdersQuery { symbol, side, after })),
            Progress::Done => None,
        })
    }

    fn add(&mut self, symbol: Symbol, number: u64, trade: Trade) -> Result<(), CollectError> {
        let known = *self.trades.entry(number).or_insert(trade);
        if known == trade { Ok(()) } else { Err(CollectError::Conflict { symbol, trade: TradeNumber(number) }) }
    }

    fn advance(&mut self) {
        while self.trades.contains_key(&(self.complete + 1)) {
            self.complete += 1;
        }
    }
}

/// Trades with their numbers, which come from a reply and may be anything.
fn numbered<T>(first: u64, trades: impl Iterator<Item = T>) -> impl Iterator<Item = (u64, T)> {
    trades.enumerate().map(move |(at, trade)| (first.wrapping_add(at as u64), trade))
}
