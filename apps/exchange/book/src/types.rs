//! The words of an order book: integers with a meaning, what goes in, what comes out.

use std::fmt;

/// Names an order within one book. Chosen by whoever enters the order; free for use again once the order is gone.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct OrderId(pub u64);

/// A price in ticks. 0 is no price.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Price(pub u64);

/// A quantity in lots.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Qty(pub u64);

/// Numbers the trades of one book, from 1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct TradeNumber(pub u64);

/// Numbers the arrivals of orders in the queue, from 1. At one price, the smaller arrival has priority. An order
/// that leaves the queue and enters again gets a new one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Arrival(pub u64);

macro_rules! display_as_integer {
    ($($name:ident)*) => { $(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    )* };
}
display_as_integer!(OrderId Price Qty TradeNumber Arrival);

/// Which way an order goes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum Side {
    /// Bids.
    Buy = 0,
    /// Asks.
    Sell = 1,
}

impl Side {
    /// Both, in the order of `book.csv`.
    pub const BOTH: [Self; 2] = [Self::Buy, Self::Sell];

    /// The other one.
    #[must_use]
    pub fn opposite(self) -> Self {
        match self {
            Self::Buy => Self::Sell,
            Self::Sell => Self::Buy,
        }
    }

    /// `B` or `S`.
    #[must_use]
    pub fn letter(self) -> char {
        match self {
            Self::Buy => 'B',
            Self::Sell => 'S',
        }
    }

    /// A number that grows as the price gets better on this side: the price of a bid, the complement of an ask.
    pub(crate) fn rank(self, price: Price) -> u64 {
        match self {
            Self::Buy => price.0,
            Self::Sell => !price.0,
        }
    }
}

/// A limit order as it enters.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NewOrder {
    /// Its name. Must not be the name of an order that is resting.
    pub id: OrderId,
    /// Which way it goes.
    pub side: Side,
    /// The worst price it accepts.
    pub price: Price,
    /// How much.
    pub qty: Qty,
    /// Says whose it is. The book keeps it and gives it back in fills, and does nothing else with it.
    pub owner: u64,
}

/// One trade, at the maker's price.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fill {
    /// Its number in this book.
    pub trade: TradeNumber,
    /// The maker's price.
    pub price: Price,
    /// How much changed hands.
    pub qty: Qty,
    /// The order that was resting.
    pub maker: OrderId,
    /// What is left of it; 0 means it is gone.
    pub maker_open: Qty,
    /// [`NewOrder::owner`] of the maker.
    pub maker_owner: u64,
    /// The order that came in.
    pub taker: OrderId,
}

/// What became of an accepted instruction.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Outcome {
    /// How much traded at once.
    pub filled: Qty,
    /// How much did not: it rests; of an immediate-or-cancel order and of a cancelled one it is what was dropped.
    pub remaining: Qty,
}

/// Why an instruction was refused. Nothing has changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[repr(u8)]
pub enum Reject {
    /// The quantity is 0.
    #[error("the quantity is 0")]
    ZeroQty = 1,
    /// The price is 0.
    #[error("the price is 0")]
    ZeroPrice = 2,
    /// An order of this id is resting.
    #[error("an order of this id is resting")]
    DuplicateId = 3,
    /// No order of this id is resting.
    #[error("no order of this id is resting")]
    UnknownId = 4,
    /// The order would have to rest and [`Limits::orders_max`] orders do already.
    #[error("the book is full")]
    BookFull = 5,
}

/// The bounds of one book.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Orders that may rest at the same time, both sides together; at least 1. More: [`Reject::BookFull`]. Price
    /// levels are bounded by it too, as none is empty.
    pub orders_max: u32,
    /// Orders there is room for from the beginning. The book grows beyond by doubling (an allocation, and for the
    /// table of ids a rehash) and never shrinks.
    pub orders_reserved: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { orders_max: 1 << 20, orders_reserved: 1 << 12 }
    }
}

/// One price of one side, as level-2 market data shows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DepthLevel {
    /// The price.
    pub price: Price,
    /// The sum of the open quantities in lots. Wider than [`Qty`]: two orders may exceed it.
    pub qty: u128,
    /// How many orders.
    pub orders: u32,
}

/// An order in the queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RestingOrder {
    /// Its name.
    pub id: OrderId,
    /// Its price.
    pub price: Price,
    /// Its open quantity.
    pub qty: Qty,
    /// [`NewOrder::owner`].
    pub owner: u64,
    /// Its priority at its price.
    pub arrival: Arrival,
}
