//! Commands: what a client asks of the exchange.

use exchange_book::{Arrival, OrderId, Price, Qty, Side, TradeNumber};
use zerocopy::{Immutable, IntoBytes};

use super::layout::{
    CancelBlock, DepthQueryBlock, ModifyBlock, OrderBlock, OrdersQueryBlock, SYMBOL_SIZE, TradesQueryBlock,
};
use super::{DecodeError, Reader, Symbol, encode, template};

/// A limit order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LimitOrder {
    /// Its name, unique among the resting orders of its symbol.
    pub id: OrderId,
    /// Which way.
    pub side: Side,
    /// The worst price it accepts, in ticks.
    pub price: Price,
    /// How many lots.
    pub qty: Qty,
}

impl LimitOrder {
    /// Whether price and quantity are not 0.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.price.0 > 0 && self.qty.0 > 0
    }
}

/// What to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// Trade what crosses, let the rest rest.
    New(LimitOrder),
    /// Trade what crosses, drop the rest.
    ImmediateOrCancel(LimitOrder),
    /// Give a resting order another price and open quantity.
    Modify {
        /// Which.
        id: OrderId,
        /// In ticks.
        price: Price,
        /// In lots.
        qty: Qty,
    },
    /// Take a resting order out.
    Cancel {
        /// Which.
        id: OrderId,
    },
}

/// An instruction to the book of one symbol.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Order {
    /// Which book.
    pub symbol: Symbol,
    /// What to do.
    pub action: Action,
}

impl Order {
    /// The order it is about.
    #[must_use]
    pub fn id(&self) -> OrderId {
        match self.action {
            Action::New(order) | Action::ImmediateOrCancel(order) => order.id,
            Action::Modify { id, .. } | Action::Cancel { id } => id,
        }
    }
}

/// Asks for the best levels of a book.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DepthQuery {
    /// Which book.
    pub symbol: Symbol,
    /// Levels of each side; [`DEPTH_LEVELS_MAX`](super::DEPTH_LEVELS_MAX) at most are given.
    pub levels: u32,
}

/// Asks for a page of resting orders, best price first, then oldest first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OrdersQuery {
    /// Which book.
    pub symbol: Symbol,
    /// Which side of it.
    pub side: Side,
    /// Price and arrival of the last order of the page before; none for the first page.
    pub after: Option<(Price, Arrival)>,
}

/// Asks for a page of trades.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TradesQuery {
    /// Which book.
    pub symbol: Symbol,
    /// The first trade wanted.
    pub from: TradeNumber,
}

/// Everything a client can ask.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Command {
    /// Answered with an ack.
    Order(Order),
    /// Answered with the depth.
    Depth(DepthQuery),
    /// Answered with a page of orders.
    Orders(OrdersQuery),
    /// Answered with a page of trades.
    Trades(TradesQuery),
    /// Answered with all symbols of the shard.
    Symbols,
}

impl Command {
    /// Which shard it goes to: that of its symbol. None for [`Command::Symbols`], which each shard answers for itself.
    #[must_use]
    pub fn symbol(&self) -> Option<Symbol> {
        match self {
            Self::Order(order) => Some(order.symbol),
            Self::Depth(query) => Some(query.symbol),
            Self::Orders(query) => Some(query.symbol),
            Self::Trades(query) => Some(query.symbol),
            Self::Symbols => None,
        }
    }

    /// Appends its bytes to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Order(order) => encode_order(order, out),
            Self::Depth(query) => {
                let (symbol, levels) = (query.symbol.to_wire(), query.levels.into());
                put(out, template::DEPTH_QUERY, &DepthQueryBlock { symbol, levels, reserved: [0; 4] });
            }
            Self::Orders(query) => {
                let (price, arrival) = query.after.unwrap_or_default();
                let block = OrdersQueryBlock {
                    symbol: query.symbol.to_wire(),
                    price: price.0.into(),
                    arrival: arrival.0.into(),
                    side: encode::side(query.side),
                    reserved: [0; 7],
                };
                put(out, template::ORDERS_QUERY, &block);
            }
            Self::Trades(query) => {
                let (symbol, from) = (query.symbol.to_wire(), query.from.0.into());
                put(out, template::TRADES_QUERY, &TradesQueryBlock { symbol, from });
            }
            Self::Symbols => put(out, template::SYMBOLS_QUERY, &[0_u8; 0]),
        }
    }

    /// Reads one.
    ///
    /// # Errors
    /// [`DecodeError`]; never panics, whatever the bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let reader = Reader::new(bytes)?;
        Ok(match reader.template {
            template::NEW_ORDER => {
                let (symbol, order) = limit_order(&reader)?;
                Self::Order(Order { symbol, action: Action::New(order) })
            }
            template::IMMEDIATE_OR_CANCEL => {
                let (symbol, order) = limit_order(&reader)?;
                Self::Order(Order { symbol, action: Action::ImmediateOrCancel(order) })
            }
            template::MODIFY => {
                let block: &ModifyBlock = reader.block()?;
                let (price, qty) = (Price(block.price.get()), Qty(block.qty.get()));
                let action = Action::Modify { id: OrderId(block.order_id.get()), price, qty };
                Self::Order(Order { symbol: reader.symbol(block.symbol)?, action })
            }
            template::CANCEL => {
                let block: &CancelBlock = reader.block()?;
                let action = Action::Cancel { id: OrderId(block.order_id.get()) };
                Self::Order(Order { symbol: reader.symbol(block.symbol)?, action })
            }
            template::DEPTH_QUERY => {
                let block: &DepthQueryBlock = reader.block()?;
                Self::Depth(DepthQuery { symbol: reader.symbol(block.symbol)?, levels: block.levels.get() })
            }
            template::ORDERS_QUERY => {
                let block: &OrdersQueryBlock = reader.block()?;
                let last = (Price(block.price.get()), Arrival(block.arrival.get()));
                Self::Orders(OrdersQuery {
                    symbol: reader.symbol(block.symbol)?,
                    side: reader.side(block.side)?,
                    after: (last.0.0 > 0).then_some(last),
                })
            }
            template::TRADES_QUERY => {
                let block: &TradesQueryBlock = reader.block()?;
                let from = TradeNumber(block.from.get());
                Self::Trades(TradesQuery { symbol: reader.symbol(block.symbol)?, from })
            }
            template::SYMBOLS_QUERY => Self::Symbols,
            _ => return Err(reader.unknown(bytes)),
        })
    }
}

fn put<T: IntoBytes + Immutable>(out: &mut Vec<u8>, template: u16, block: &T) {
    encode::message(out, template, block);
}

fn encode_order(order: &Order, out: &mut Vec<u8>) {
    let symbol = order.symbol.to_wire();
    match order.action {
        Action::New(order) => put(out, template::NEW_ORDER, &order_block(symbol, &order)),
        Action::ImmediateOrCancel(order) => put(out, template::IMMEDIATE_OR_CANCEL, &order_block(symbol, &order)),
        Action::Modify { id, price, qty } => {
            let (order_id, price, qty) = (id.0.into(), price.0.into(), qty.0.into());
            put(out, template::MODIFY, &ModifyBlock { symbol, order_id, price, qty });
        }
        Action::Cancel { id } => put(out, template::CANCEL, &CancelBlock { symbol, order_id: id.0.into() }),
    }
}

fn order_block(symbol: [u8; SYMBOL_SIZE], order: &LimitOrder) -> OrderBlock {
    OrderBlock {
        symbol,
        order_id: order.id.0.into(),
        price: order.price.0.into(),
        qty: order.qty.0.into(),
        side: encode::side(order.side),
        reserved: [0; 7],
    }
}

fn limit_order(reader: &Reader<'_>) -> Result<(Symbol, LimitOrder), DecodeError> {
    let block: &OrderBlock = reader.block()?;
    let order = LimitOrder {
        id: OrderId(block.order_id.get()),
        side: reader.side(block.side)?,
        price: Price(block.price.get()),
        qty: Qty(block.qty.get()),
    };
    Ok((reader.symbol(block.symbol)?, order))
}
