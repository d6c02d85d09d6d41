//! Replies and events: what the exchange says to clients. Views on the bytes received.

use std::marker::PhantomData;

use exchange_book::{Arrival, OrderId, Price, Qty, Side, TradeNumber};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use super::layout::{
    AckBlock, DepthBlock, ExecutionBlock, FillEntry, LevelEntry, MalformedBlock, OrderEntry, OrdersBlock, SymbolEntry,
    TradeEntry, TradesBlock, UnknownBlock,
};
use super::{DecodeError, Reader, RejectCode, Symbol, encode::FLAG_MORE, template};

/// The entries of a repeating group.
#[derive(Debug)]
pub struct Group<'a, T> {
    /// Invariant: a multiple of `stride`.
    bytes: &'a [u8],
    /// Invariant: at least the size of `T`.
    stride: usize,
    entries: PhantomData<T>,
}

impl<T> Clone for Group<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Group<'_, T> {}

impl<'a, T> Group<'a, T> {
    pub(super) fn new(bytes: &'a [u8], stride: usize) -> Self {
        assert!(stride >= size_of::<T>(), "checked by the reader");
        assert!(bytes.len().is_multiple_of(stride), "cut by the reader");
        Self { bytes, stride, entries: PhantomData }
    }

    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len() / self.stride
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}

impl<'a, T: FromBytes + KnownLayout + Immutable + Unaligned + 'a> Group<'a, T> {
    /// All of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = &'a T> + use<'a, T> {
        let entry = |bytes: &'a [u8]| T::ref_from_prefix(bytes).expect("a stride holds an entry").0;
        self.bytes.chunks_exact(self.stride).map(entry)
    }
}

/// An accepted order, modification or cancellation.
#[derive(Clone, Copy, Debug)]
pub struct Accepted<'a> {
    /// Lots traded at once.
    pub filled: Qty,
    /// Lots that rest now; of an immediate-or-cancel order or a cancellation, lots that were dropped.
    pub remaining: Qty,
    /// The number of the first trade; 0 if there was none.
    pub first_trade: TradeNumber,
    /// How many trades: numbered consecutively.
    pub trades: u32,
    /// The first trades.
    pub fills: Group<'a, FillEntry>,
    /// There are more trades than `fills` holds: ask for them with [`TradesQuery`](super::TradesQuery).
    pub more: bool,
}

/// Answers [`Command::Order`](super::Command::Order).
#[derive(Clone, Copy, Debug)]
pub struct Ack<'a> {
    /// The order it is about.
    pub order_id: OrderId,
    /// What became of it.
    pub result: Result<Accepted<'a>, RejectCode>,
}

/// Answers [`DepthQuery`](super::DepthQuery).
#[derive(Clone, Copy, Debug)]
pub struct DepthPage<'a> {
    /// Which book.
    pub symbol: Symbol,
    /// Why there is nothing to show.
    pub reject: Option<RejectCode>,
    /// How many trades there have been.
    pub latest_trade: TradeNumber,
    /// Best first.
    pub bids: Group<'a, LevelEntry>,
    /// Best first.
    pub asks: Group<'a, LevelEntry>,
}

/// Answers [`OrdersQuery`](super::OrdersQuery).
#[derive(Clone, Copy, Debug)]
pub struct OrdersPage<'a> {
    /// Which book.
    pub symbol: Symbol,
    /// Which side of it.
    pub side: Side,
    /// Why there is nothing to show.
    pub reject: Option<RejectCode>,
    /// Best price first, then oldest first.
    pub orders: Group<'a, OrderEntry>,
    /// What to put into [`OrdersQuery::after`](super::OrdersQuery::after) for the next page; none if this is the last.
    pub next: Option<(Price, Arrival)>,
}

/// Answers [`TradesQuery`](super::TradesQuery).
#[derive(Clone, Copy, Debug)]
pub struct TradesPage<'a> {
    /// Which book.
    pub symbol: Symbol,
    /// Why there is nothing to show.
    pub reject: Option<RejectCode>,
    /// The number of the first trade here.
    pub first: TradeNumber,
    /// The oldest trade still on the tape; `latest` + 1 if there is none.
    pub retained_from: TradeNumber,
    /// The latest trade.
    pub latest: TradeNumber,
    /// Numbered consecutively.
    pub trades: Group<'a, TradeEntry>,
}

/// What the exchange answers.
#[derive(Clone, Copy, Debug)]
pub enum Reply<'a> {
    /// To an order.
    Ack(Ack<'a>),
    /// To a depth query.
    Depth(DepthPage<'a>),
    /// To an orders query.
    Orders(OrdersPage<'a>),
    /// To a trades query.
    Trades(TradesPage<'a>),
    /// To a symbols query: sorted.
    Symbols(Group<'a, SymbolEntry>),
    /// The service does not know the command's template or schema.
    Unknown {
        /// As the command had it.
        template: u16,
        /// As the command had it.
        schema: u16,
        /// As the command had it.
        version: u16,
    },
    /// The service could not read the command.
    Malformed {
        /// As the command had it.
        template: u16,
        /// A [`Malformed`](super::Malformed) as on the wire.
        reason: u8,
    },
}

impl<'a> Reply<'a> {
    /// Reads one.
    ///
    /// # Errors
    /// [`DecodeError`]; never panics, whatever the bytes.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes)?;
        Ok(match reader.template {
            template::ACK => Self::Ack(ack(&mut reader)?),
            template::DEPTH => Self::Depth(depth(&mut reader)?),
            template::ORDERS => Self::Orders(orders(&mut reader)?),
            template::TRADES => Self::Trades(trades(&mut reader)?),
            template::SYMBOLS => Self::Symbols(reader.group()?),
            template::UNKNOWN => {
                let block: &UnknownBlock = reader.block()?;
                let (template, schema, version) = (block.template.get(), block.schema.get(), block.version.get());
                Self::Unknown { template, schema, version }
            }
            template::MALFORMED => {
                let block: &MalformedBlock = reader.block()?;
                Self::Malformed { template: block.template.get(), reason: block.reason }
            }
            _ => return Err(reader.unknown(bytes)),
        })
    }
}

/// A resting order of this session traded with another session's order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Execution {
    /// Which book.
    pub symbol: Symbol,
    /// The order that was resting.
    pub order_id: OrderId,
    /// Which trade.
    pub trade: TradeNumber,
    /// In ticks.
    pub price: Price,
    /// In lots.
    pub qty: Qty,
    /// What is left of it; 0 means it is gone.
    pub open: Qty,
}

/// What the exchange tells without being asked. Not repeated after a fail-over: the tape has it all.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// A trade.
    Execution(Execution),
}

impl Event {
    /// Reads one.
    ///
    /// # Errors
    /// [`DecodeError`]; never panics, whatever the bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let reader = Reader::new(bytes)?;
        if reader.template != template::EXECUTION {
            return Err(reader.unknown(bytes));
        }
        let block: &ExecutionBlock = reader.block()?;
        Ok(Self::Execution(Execution {
            symbol: reader.symbol(block.symbol)?,
            order_id: OrderId(block.order_id.get()),
            trade: TradeNumber(block.trade.get()),
            price: Price(block.price.get()),
            qty: Qty(block.qty.get()),
            open: Qty(block.open.get()),
        }))
    }
}

fn ack<'a>(reader: &mut Reader<'a>) -> Result<Ack<'a>, DecodeError> {
    let block: &AckBlock = reader.block()?;
    let fills = reader.group()?;
    let result = match RejectCode::from_wire(block.reject) {
        Some(reject) => Err(reject),
        None => Ok(Accepted {
            filled: Qty(block.filled.get()),
            remaining: Qty(block.remaining.get()),
            first_trade: TradeNumber(block.first_trade.get()),
            trades: block.trades.get(),
            fills,
            more: block.flags & FLAG_MORE != 0,
        }),
    };
    Ok(Ack { order_id: OrderId(block.order_id.get()), result })
}

fn depth<'a>(reader: &mut Reader<'a>) -> Result<DepthPage<'a>, DecodeError> {
    let block: &DepthBlock = reader.block()?;
    Ok(DepthPage {
        symbol: reader.symbol(block.symbol)?,
        reject: RejectCode::from_wire(block.reject),
        latest_trade: TradeNumber(block.latest_trade.get()),
        bids: reader.group()?,
        asks: reader.group()?,
    })
}

fn orders<'a>(reader: &mut Reader<'a>) -> Result<OrdersPage<'a>, DecodeError> {
    let block: &OrdersBlock = reader.block()?;
    let last = (Price(block.price.get()), Arrival(block.arrival.get()));
    Ok(OrdersPage {
        symbol: reader.symbol(block.symbol)?,
        side: reader.side(block.side)?,
        reject: RejectCode::from_wire(block.reject),
        orders: reader.group()?,
        next: (block.flags & FLAG_MORE != 0).then_some(last),
    })
}

fn trades<'a>(reader: &mut Reader<'a>) -> Result<TradesPage<'a>, DecodeError> {
    let block: &TradesBlock = reader.block()?;
    Ok(TradesPage {
        symbol: reader.symbol(block.symbol)?,
        reject: RejectCode::from_wire(block.reject),
        first: TradeNumber(block.first.get()),
        retained_from: TradeNumber(block.retained_from.get()),
        latest: TradeNumber(block.latest.get()),
        trades: reader.group()?,
    })
}
