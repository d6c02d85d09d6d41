//! A limit order book with price-time priority, in integers.
//!
//! Prices are ticks, quantities lots. The book knows nothing of symbols, sessions, time or the cluster it may run
//! in: it is a function of the instructions it was given.
//!
//! # Rules
//!
//! 1. A new order trades while it crosses, best price first, at one price the oldest order first, always at the
//!    maker's price. What is left rests; of an immediate-or-cancel order it is dropped.
//! 2. A modification to the same price and a quantity not larger than what is open keeps its place. Any other leaves
//!    the queue and enters again as new, trading if it crosses. The quantity is the new open quantity.
//! 3. A new order with the id of a resting one, and a modification or cancellation of an id that is not resting,
//!    are rejected. So are price 0 and quantity 0. An order that is gone leaves its id free.
//! 4. At most [`Limits::orders_max`] orders rest. A new order that would be one more is rejected unless it trades:
//!    then it fills, or makes room.
//!
//! # Speed
//!
//! Orders lie in a slab and are linked into a queue per level; ids lead to them through a hash table; levels lie in a
//! [`ladder::Ladder`]. In steady state nothing allocates: memory grows only when more orders or levels rest than
//! ever before, up to the limit.
//!
//! # Example
//!
//! ```
//! use exchange_book::{Book, Limits, NewOrder, OrderId, Price, Qty, Side};
//!
//! let mut book = Book::new(Limits::default());
//! let ask = NewOrder { id: OrderId(1), side: Side::Sell, price: Price(100), qty: Qty(7), owner: 0 };
//! book.new_order(ask, |_| unreachable!("nothing to trade with"))?;
//!
//! let mut fills = Vec::new();
//! let bid = NewOrder { id: OrderId(2), side: Side::Buy, price: Price(101), qty: Qty(9), owner: 0 };
//! let outcome = book.new_order(bid, |fill| fills.push(*fill))?;
//! assert_eq!((outcome.filled, outcome.remaining), (Qty(7), Qty(2)));
//! assert_eq!((fills[0].price, fills[0].maker), (Price(100), OrderId(1)));
//! assert_eq!(book.best(Side::Buy), Some(Price(101)));
//! # Ok::<(), exchange_book::Reject>(())
//! ```
#![forbid(unsafe_code)]

mod book;
mod id_table;
pub mod ladder;
mod slab;
mod state;
mod types;
mod view;

pub use book::Book;
pub use state::RestoreError;
pub use types::{
    Arrival, DepthLevel, Fill, Limits, NewOrder, OrderId, Outcome, Price, Qty, Reject, RestingOrder, Side, TradeNumber,
};
