//! Looking at a book without changing it.

use xxhash_rust::xxh3::Xxh3;

use crate::book::{Book, Level, NONE};
use crate::types::{Arrival, DepthLevel, Limits, OrderId, Price, RestingOrder, Side, TradeNumber};

impl Book {
    /// How many orders rest, both sides together.
    #[must_use]
    pub fn len(&self) -> usize {
        self.orders.len()
    }

    /// Whether no order rests.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many trades there have been: the number of the latest.
    #[must_use]
    pub fn trades(&self) -> TradeNumber {
        self.trades
    }

    /// Its bounds.
    #[must_use]
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// The best price of a side.
    #[must_use]
    pub fn best(&self, side: Side) -> Option<Price> {
        self.ladders[side as usize].best().map(|(_, level)| self.levels.get(level).price)
    }

    /// A resting order.
    #[must_use]
    pub fn order(&self, id: OrderId) -> Option<(Side, RestingOrder)> {
        let at = self.ids.get(id)?;
        let level = self.levels.get(self.orders.get(at).level);
        Some((level.side, self.resting(level, at)))
    }

    /// The levels of a side, best first.
    pub fn depth(&self, side: Side) -> impl Iterator<Item = DepthLevel> + '_ {
        self.ladders[side as usize].descending().map(|(_, at)| {
            let level = self.levels.get(at);
            DepthLevel { price: level.price, qty: level.qty, orders: level.orders }
        })
    }

    /// The orders of a side, best price first, at one price the oldest first: the order of `book.csv`.
    pub fn orders(&self, side: Side) -> impl Iterator<Item = RestingOrder> + '_ {
        self.ladders[side as usize].descending().flat_map(|(_, level)| self.queue(level))
    }

    /// The orders of a side behind (`price`, `arrival`), in the same order. To read a book in pages, go on from the
    /// last order seen: it need not be there any more, and no order that stays in its place is missed or repeated.
    /// Skips over the seen orders of that price one by one.
    pub fn orders_after(&self, side: Side, price: Price, arrival: Arrival) -> impl Iterator<Item = RestingOrder> + '_ {
        self.ladders[side as usize]
            .descending_from(side.rank(price))
            .flat_map(|(_, level)| self.queue(level))
            .skip_while(move |order| order.price == price && order.arrival <= arrival)
    }

    /// A digest of everything that can influence what the book does or shows later, and of nothing else: equal
    /// books have equal digests, however they came about. It reads all orders.
    #[must_use]
    pub fn digest(&self) -> u64 {
        let mut hasher = Xxh3::new();
        let mut add = |words: &[u64]| {
            let mut bytes = [0; 5 * 8];
            for (place, word) in bytes.chunks_exact_mut(8).zip(words) {
                place.copy_from_slice(&word.to_le_bytes());
            }
            hasher.update(&bytes[..words.len() * 8]);
        };
        add(&[self.trades.0, self.arrivals.0]);
        for side in Side::BOTH {
            for order in self.orders(side) {
                add(&[order.price.0, order.id.0, order.qty.0, order.owner, order.arrival.0]);
            }
            add(&[0]);
        }
        hasher.digest()
    }

    /// Bytes allocated: grows only when more orders or levels rest than ever before.
    #[must_use]
    pub fn memory_size(&self) -> usize {
        let ladders: usize = self.ladders.iter().map(crate::ladder::Ladder::memory_size).sum();
        self.orders.memory_size() + self.levels.memory_size() + self.ids.memory_size() + ladders
    }

    fn queue(&self, level: u32) -> impl Iterator<Item = RestingOrder> + '_ {
        let level = self.levels.get(level);
        let mut next = level.oldest;
        std::iter::from_fn(move || {
            if next == NONE {
                return None;
            }
            let order = self.resting(level, next);
            next = self.orders.get(next).newer;
            Some(order)
        })
    }

    fn resting(&self, level: &Level, at: u32) -> RestingOrder {
        let order = self.orders.get(at);
        RestingOrder { id: order.id, price: level.price, qty: order.qty, owner: order.owner, arrival: order.arrival }
    }
}
