//! The exchange as a service: the books of a shard's symbols and the tape of their trades.
//!
//! A symbol comes into being with its first new or immediate-or-cancel order. Any session may modify or cancel any
//! order: who may do what is for a gateway to decide. An order keeps the session that entered it; when it trades with
//! another session's order, that session gets an execution event. Its own trades each session finds in its acks.
//!
//! Everything is bounded, see [`ExchangeLimits`]; what would exceed a bound is rejected with a code of its own, except
//! for the tape, which forgets its oldest trades, and events, which are left out when a record has too many
//! ([`evershard_service::ContextError::EventsFull`]; the tape has them).

mod query;
mod state;
mod tape;

use evershard_service::{Context, Digest, Service, ServiceVersion, SessionId, SnapshotError};
use evershard_service::{SnapshotReader, SnapshotWriter};
use exchange_book::{Book, Fill, Limits, NewOrder, Outcome, Reject};
use zerocopy::{Immutable, IntoBytes, Unaligned};

use crate::wire::layout::{AckBlock, ExecutionBlock, FillEntry, Header};
use crate::wire::{Action, Command, FILLS_INLINE_MAX, LimitOrder, Order, RejectCode, Symbol, encode, template};

pub use tape::TAPE_PAGE_LEN;
use tape::Tape;

/// Symbols of one shard. More: [`RejectCode::SymbolsFull`].
pub const SYMBOLS_MAX: usize = 1024;
/// Resting orders of one symbol. More: [`Reject::BookFull`].
pub const ORDERS_PER_SYMBOL_MAX: u32 = 1 << 20;
/// Resting orders of one shard. More: [`RejectCode::ShardFull`].
pub const ORDERS_PER_SHARD_MAX: usize = 1 << 22;
/// Trades that a shard remembers, up to a page per symbol less. More: the oldest are forgotten.
pub const TAPE_LEN_MAX: usize = 1 << 20;

const _: () = assert!(SYMBOLS_MAX <= TAPE_LEN_MAX / TAPE_PAGE_LEN, "each symbol can have a page of the tape");

/// The bounds of one shard's exchange. All replicas must have the same: they decide what is rejected.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ExchangeLimits {
    /// See [`SYMBOLS_MAX`]. Not more than that: the symbols reply is one message.
    pub symbols_max: usize,
    /// Bounds of each book; see [`ORDERS_PER_SYMBOL_MAX`].
    pub book: Limits,
    /// See [`ORDERS_PER_SHARD_MAX`].
    pub orders_max: usize,
    /// Pages of [`TAPE_PAGE_LEN`] trades; see [`TAPE_LEN_MAX`].
    pub tape_pages_max: usize,
}

impl Default for ExchangeLimits {
    fn default() -> Self {
        Self {
            symbols_max: SYMBOLS_MAX,
            book: Limits { orders_max: ORDERS_PER_SYMBOL_MAX, orders_reserved: 1 << 12 },
            orders_max: ORDERS_PER_SHARD_MAX,
            tape_pages_max: TAPE_LEN_MAX / TAPE_PAGE_LEN,
        }
    }
}

/// One symbol's book.
#[derive(Debug)]
struct Market {
    symbol: Symbol,
    book: Book,
}

/// The state machine of one shard. See the [module docs](self).
#[derive(Debug)]
pub struct Exchange {
    limits: ExchangeLimits,
    /// In the order in which they came into being: a market's number never changes.
    markets: Vec<Market>,
    /// Sorted: each symbol and the number of its market.
    names: Vec<(Symbol, u32)>,
    /// Orders resting in all books.
    resting: usize,
    tape: Tape,
    /// The fills for the ack under way. Empty between two commands; not part of the state.
    inline: Vec<FillEntry>,
}

impl Default for Exchange {
    fn default() -> Self {
        Self::new(ExchangeLimits::default())
    }
}

impl Exchange {
    /// An exchange without symbols.
    ///
    /// # Panics
    /// If a limit is 0, or above the constant it refers to where it says so.
    #[must_use]
    pub fn new(limits: ExchangeLimits) -> Self {
        assert!(limits.symbols_max > 0, "an exchange has a symbol at least");
        assert!(limits.symbols_max <= SYMBOLS_MAX, "the symbols reply is one message");
        Self {
            limits,
            markets: Vec::with_capacity(limits.symbols_max),
            names: Vec::with_capacity(limits.symbols_max),
            resting: 0,
            tape: Tape::new(limits.tape_pages_max),
            inline: Vec::with_capacity(FILLS_INLINE_MAX),
        }
    }

    fn on_order(&mut self, context: &mut Context<'_>, order: &Order) {
        self.inline.clear();
        let mut trades = Trades { first: 0, len: 0 };
        let result = self.execute(context, order, &mut trades);
        let outcome = result.unwrap_or_default();
        let block = AckBlock {
            order_id: order.id().0.into(),
            filled: outcome.filled.0.into(),
            remaining: outcome.remaining.0.into(),
            first_trade: trades.first.into(),
            trades: trades.len.into(),
            reject: result.err().map_or(0, RejectCode::to_wire),
            flags: if trades.len as usize > self.inline.len() { encode::FLAG_MORE } else { 0 },
            reserved: [0; 2],
        };
        let out = context.reply_mut();
        encode::message(out, template::ACK, &block);
        encode::group(out, self.inline.iter().copied());
    }

    fn execute(
        &mut self,
        context: &mut Context<'_>,
        order: &Order,
        trades: &mut Trades,
    ) -> Result<Outcome, RejectCode> {
        let session = context.session();
        let at = match self.market(order.symbol) {
            Some(at) => at,
            None => self.open_market(order)?,
        };
        let shard_full = self.resting >= self.limits.orders_max;
        let Self { markets, tape, inline, .. } = self;
        let Market { symbol, book } = &mut markets[at as usize];
        let sink = |fill: &Fill| {
            if trades.len == 0 {
                trades.first = fill.trade.0;
            }
            trades.len += 1;
            if inline.len() < FILLS_INLINE_MAX {
                inline.push(inline_fill(fill));
            }
            tape.push(at, fill);
            tell_maker(context, *symbol, session, fill);
        };
        let before = book.len();
        let result = match order.action {
            Action::New(new) if shard_full && would_rest(book, &new) => return Err(RejectCode::ShardFull),
            Action::New(new) => book.new_order(new_order(&new, session), sink),
            Action::ImmediateOrCancel(new) => book.immediate_or_cancel(new_order(&new, session), sink),
            Action::Modify { id, price, qty } => book.modify(id, price, qty, sink),
            Action::Cancel { id } => book.cancel(id),
        };
        self.resting = self.resting - before + book.len();
        result.map_err(RejectCode::Book)
    }

    fn market(&self, symbol: Symbol) -> Option<u32> {
        let at = self.names.binary_search_by_key(&symbol, |(name, _)| *name).ok()?;
        Some(self.names[at].1)
    }

    /// Opens a market for the first order of its symbol, if that order is not rejected.
    fn open_market(&mut self, order: &Order) -> Result<u32, RejectCode> {
        let (Action::New(new) | Action::ImmediateOrCancel(new)) = order.action else {
            return Err(RejectCode::UnknownSymbol);
        };
        if new.qty.0 == 0 {
            return Err(RejectCode::Book(Reject::ZeroQty));
        }
        if new.price.0 == 0 {
            return Err(RejectCode::Book(Reject::ZeroPrice));
        }
        if self.markets.len() >= self.limits.symbols_max {
            return Err(RejectCode::SymbolsFull);
        }
        if matches!(order.action, Action::New(_)) && self.resting >= self.limits.orders_max {
            return Err(RejectCode::ShardFull);
        }
        Ok(self.add_market(order.symbol, Book::new(self.limits.book)))
    }

    /// Adds a market for a symbol that has none.
    fn add_market(&mut self, symbol: Symbol, book: Book) -> u32 {
        let number = u32::try_from(self.markets.len()).expect("symbols are few");
        let at = self.names.partition_point(|(name, _)| *name < symbol);
        assert!(self.names.get(at).is_none_or(|(name, _)| *name != symbol), "a symbol has one market");
        self.names.insert(at, (symbol, number));
        self.resting += book.len();
        self.markets.push(Market { symbol, book });
        self.tape.add_market();
        number
    }
}

impl Service for Exchange {
    fn name(&self) -> &'static str {
        "exchange"
    }

    fn version(&self) -> ServiceVersion {
        ServiceVersion(1)
    }

    fn apply(&mut self, context: &mut Context<'_>, command: &[u8]) {
        match Command::decode(command) {
            Ok(Command::Order(order)) => self.on_order(context, &order),
            Ok(Command::Depth(query)) => self.on_depth(context.reply_mut(), &query),
            Ok(Command::Orders(query)) => self.on_orders(context.reply_mut(), &query),
            Ok(Command::Trades(query)) => self.on_trades(context.reply_mut(), &query),
            Ok(Command::Symbols) => self.on_symbols(context.reply_mut()),
            Err(error) => encode::failure(context.reply_mut(), error),
        }
    }

    fn query(&self, question: &[u8], answer: &mut Vec<u8>) -> bool {
        match Command::decode(question) {
            Ok(Command::Order(_)) => return false,
            Ok(Command::Depth(query)) => self.on_depth(answer, &query),
            Ok(Command::Orders(query)) => self.on_orders(answer, &query),
            Ok(Command::Trades(query)) => self.on_trades(answer, &query),
            Ok(Command::Symbols) => self.on_symbols(answer),
            Err(error) => encode::failure(answer, error),
        }
        true
    }

    fn digest(&self) -> Digest {
        self.state_digest()
    }

    fn save(&self, out: &mut dyn SnapshotWriter) -> Result<(), SnapshotError> {
        self.save_state(out)
    }

    fn restore(&mut self, source: &mut dyn SnapshotReader) -> Result<(), SnapshotError> {
        *self = Self::restore_state(self.limits, source)?;
        Ok(())
    }
}

/// The trades of one command.
struct Trades {
    /// 0 if there are none.
    first: u64,
    len: u32,
}

/// An event message in one piece.
#[derive(IntoBytes, Immutable, Unaligned)]
#[repr(C)]
struct ExecutionMessage {
    header: Header,
    block: ExecutionBlock,
}

fn tell_maker(context: &mut Context<'_>, symbol: Symbol, taker: SessionId, fill: &Fill) {
    let maker = SessionId(fill.maker_owner);
    if maker == taker || maker == SessionId(0) {
        return;
    }
    let block = ExecutionBlock {
        symbol: symbol.to_wire(),
        order_id: fill.maker.0.into(),
        trade: fill.trade.0.into(),
        price: fill.price.0.into(),
        qty: fill.qty.0.into(),
        open: fill.maker_open.0.into(),
    };
    let message = ExecutionMessage { header: encode::header::<ExecutionBlock>(template::EXECUTION), block };
    // Too many events for one record: they are left out from the same one on every replica.
    let _ = context.emit(maker, message.as_bytes());
}

/// Whether an order would be accepted and be one more. As with a full book: an order that trades fills, or makes room.
fn would_rest(book: &Book, new: &LimitOrder) -> bool {
    new.is_sound() && book.order(new.id).is_none() && !book.crosses(new.side, new.price)
}

fn inline_fill(fill: &Fill) -> FillEntry {
    FillEntry { price: fill.price.0.into(), qty: fill.qty.0.into(), maker: fill.maker.0.into() }
}

fn new_order(order: &LimitOrder, session: SessionId) -> NewOrder {
    NewOrder { id: order.id, side: order.side, price: order.price, qty: order.qty, owner: session.0 }
}
