//! How a book's state leaves and enters.
//!
//! All integers are little-endian and eight bytes wide. First four: trades so far, arrivals so far, resting bids,
//! resting asks. Then five for each order, the bids and then the asks, each side in the order of
//! [`Book::orders`]: id, price, quantity, owner, arrival.

use crate::book::Book;
use crate::types::{Arrival, Limits, NewOrder, OrderId, Price, Qty, Side, TradeNumber};

/// Why bytes are not a book's state: whoever stored them is at fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RestoreError {
    /// More orders than [`Limits::orders_max`].
    #[error("the saved book has {found} orders, the limit is {orders_max}")]
    TooMany {
        /// How many there are.
        found: u64,
        /// How many there may be.
        orders_max: u32,
    },
    /// An order that cannot be there.
    #[error("the saved book's order {0} cannot be where it is")]
    Impossible(OrderId),
}

impl Book {
    /// Writes the whole state through `write`, piece by piece.
    ///
    /// # Errors
    /// Those of `write`.
    pub fn save<E>(&self, mut write: impl FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
        let bids = self.orders(Side::Buy).count() as u64;
        let asks = self.len() as u64 - bids;
        write(&bytes_of([self.trades.0, self.arrivals.0, bids, asks, 0])[..4 * 8])?;
        for side in Side::BOTH {
            for order in self.orders(side) {
                write(&bytes_of([order.id.0, order.price.0, order.qty.0, order.owner, order.arrival.0]))?;
            }
        }
        Ok(())
    }

    /// Reads what [`Book::save`] wrote. `read` fills what it is given.
    ///
    /// # Errors
    /// Those of `read`, and [`RestoreError`].
    pub fn restore<E: From<RestoreError>>(
        limits: Limits,
        mut read: impl FnMut(&mut [u8]) -> Result<(), E>,
    ) -> Result<Self, E> {
        let mut book = Self::new(limits);
        let [trades, arrivals, bids, asks] = read_words(&mut read)?;
        book.trades = TradeNumber(trades);
        book.arrivals = Arrival(arrivals);
        let found = bids.saturating_add(asks);
        if found > u64::from(limits.orders_max) {
            return Err(RestoreError::TooMany { found, orders_max: limits.orders_max }.into());
        }
        for (side, count) in [(Side::Buy, bids), (Side::Sell, asks)] {
            let mut before = None;
            for _ in 0..count {
                let [id, price, qty, owner, arrival] = read_words(&mut read)?;
                let order = NewOrder { id: OrderId(id), side, price: Price(price), qty: Qty(qty), owner };
                // Worse than the order before, or at the same price and later.
                let place = (!side.rank(order.price), arrival);
                let possible = before < Some(place)
                    && (1..=arrivals).contains(&arrival)
                    && book.check_new(&order).is_ok()
                    && !book.crosses(side, order.price);
                if !possible {
                    return Err(RestoreError::Impossible(order.id).into());
                }
                before = Some(place);
                book.rest(order, Arrival(arrival));
            }
        }
        Ok(book)
    }
}

fn bytes_of(words: [u64; 5]) -> [u8; 40] {
    let mut bytes = [0; 40];
    for (place, word) in bytes.chunks_exact_mut(8).zip(words) {
        place.copy_from_slice(&word.to_le_bytes());
    }
    bytes
}

fn read_words<const LEN: usize, E>(read: &mut impl FnMut(&mut [u8]) -> Result<(), E>) -> Result<[u64; LEN], E> {
    let mut words = [0; LEN];
    for word in &mut words {
        let mut bytes = [0; 8];
        read(&mut bytes)?;
        *word = u64::from_le_bytes(bytes);
    }
    Ok(words)
}
