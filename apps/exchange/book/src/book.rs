//! The book itself: what each instruction does.

use crate::id_table::IdTable;
use crate::ladder::Ladder;
use crate::slab::Slab;
use crate::types::{Arrival, Fill, Limits, NewOrder, OrderId, Outcome, Price, Qty, Reject, Side, TradeNumber};

/// No order: the end of a queue.
pub(crate) const NONE: u32 = u32::MAX;

/// A resting order, linked into the queue of its level.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Order {
    pub(crate) id: OrderId,
    /// Invariant: not 0.
    pub(crate) qty: Qty,
    pub(crate) owner: u64,
    pub(crate) arrival: Arrival,
    pub(crate) level: u32,
    pub(crate) older: u32,
    pub(crate) newer: u32,
}

/// All orders of one side at one price. Invariant: at least one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Level {
    /// The sum of its orders' quantities.
    pub(crate) qty: u128,
    pub(crate) price: Price,
    pub(crate) side: Side,
    pub(crate) orders: u32,
    pub(crate) oldest: u32,
    pub(crate) newest: u32,
}

const _: () = assert!(size_of::<Order>() <= 64, "an order is one cache line at most");
const _: () = assert!(size_of::<Level>() <= 64, "a level is one cache line at most");

/// A limit order book with price-time priority. See the [crate docs](crate) for its rules.
///
/// Invariant: the best bid is below the best ask.
#[derive(Debug, Clone)]
pub struct Book {
    pub(crate) limits: Limits,
    pub(crate) orders: Slab<Order>,
    pub(crate) levels: Slab<Level>,
    pub(crate) ids: IdTable,
    /// Indexed by [`Side`].
    pub(crate) ladders: [Ladder; 2],
    pub(crate) trades: TradeNumber,
    pub(crate) arrivals: Arrival,
}

impl Book {
    /// An empty book.
    ///
    /// # Panics
    /// If `limits.orders_max` is 0 or `u32::MAX`.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        assert!(limits.orders_max > 0, "a book holds an order at least");
        assert!(limits.orders_max < NONE, "the largest place means none");
        let reserved = limits.orders_reserved.min(limits.orders_max) as usize;
        Self {
            limits,
            orders: Slab::with_capacity(reserved),
            levels: Slab::with_capacity(reserved / 4),
            ids: IdTable::with_capacity(reserved),
            ladders: [Ladder::new(), Ladder::new()],
            trades: TradeNumber(0),
            arrivals: Arrival(0),
        }
    }

    /// Enters a limit order: it trades while it crosses, at the makers' prices, and the rest of it rests.
    /// `sink` is given each fill, in order.
    ///
    /// # Errors
    /// [`Reject::ZeroQty`], [`Reject::ZeroPrice`], [`Reject::DuplicateId`], [`Reject::BookFull`].
    pub fn new_order(&mut self, order: NewOrder, sink: impl FnMut(&Fill)) -> Result<Outcome, Reject> {
        self.check_new(&order)?;
        // An order that crosses either fills, or empties a place before it rests.
        if self.is_full() && !self.crosses(order.side, order.price) {
            return Err(Reject::BookFull);
        }
        Ok(self.enter(order, sink))
    }

    /// Enters a limit order that never rests: what does not trade at once is dropped.
    ///
    /// # Errors
    /// [`Reject::ZeroQty`], [`Reject::ZeroPrice`], [`Reject::DuplicateId`].
    pub fn immediate_or_cancel(&mut self, order: NewOrder, sink: impl FnMut(&Fill)) -> Result<Outcome, Reject> {
        self.check_new(&order)?;
        let remaining = self.take(&order, sink);
        Ok(Outcome { filled: Qty(order.qty.0 - remaining.0), remaining })
    }

    /// Gives a resting order a new price and a new open quantity. At the same price and with no more than it has,
    /// it keeps its place; otherwise it leaves the queue and enters again as new. It keeps side and owner.
    ///
    /// # Errors
    /// [`Reject::ZeroQty`], [`Reject::ZeroPrice`], [`Reject::UnknownId`].
    pub fn modify(&mut self, id: OrderId, price: Price, qty: Qty, sink: impl FnMut(&Fill)) -> Result<Outcome, Reject> {
        check_amounts(price, qty)?;
        let at = self.ids.get(id).ok_or(Reject::UnknownId)?;
        let order = self.orders.get_mut(at);
        let level = self.levels.get_mut(order.level);
        if level.price == price && qty <= order.qty {
            level.qty -= u128::from(order.qty.0 - qty.0);
            order.qty = qty;
            return Ok(Outcome { filled: Qty(0), remaining: qty });
        }
        let new = NewOrder { id, side: level.side, price, qty, owner: order.owner };
        self.remove(at);
        Ok(self.enter(new, sink))
    }

    /// Takes a resting order out.
    ///
    /// # Errors
    /// [`Reject::UnknownId`].
    pub fn cancel(&mut self, id: OrderId) -> Result<Outcome, Reject> {
        let at = self.ids.get(id).ok_or(Reject::UnknownId)?;
        let remaining = self.orders.get(at).qty;
        self.remove(at);
        Ok(Outcome { filled: Qty(0), remaining })
    }

    /// Whether an order like this would trade, at least in part.
    #[must_use]
    pub fn crosses(&self, side: Side, price: Price) -> bool {
        let other = side.opposite();
        self.ladders[other as usize].best().is_some_and(|(best, _)| best >= other.rank(price))
    }

    fn is_full(&self) -> bool {
        self.orders.len() >= self.limits.orders_max as usize
    }

    pub(crate) fn check_new(&self, order: &NewOrder) -> Result<(), Reject> {
        check_amounts(order.price, order.qty)?;
        if self.ids.get(order.id).is_some() { Err(Reject::DuplicateId) } else { Ok(()) }
    }

    fn enter(&mut self, mut order: NewOrder, sink: impl FnMut(&Fill)) -> Outcome {
        let remaining = self.take(&order, sink);
        let outcome = Outcome { filled: Qty(order.qty.0 - remaining.0), remaining };
        if remaining.0 > 0 {
            order.qty = remaining;
            self.arrivals.0 += 1;
            self.rest(order, self.arrivals);
        }
        outcome
    }

    /// Trades as much as crosses. Returns what is left of the quantity.
    fn take(&mut self, order: &NewOrder, mut sink: impl FnMut(&Fill)) -> Qty {
        let other = order.side.opposite();
        let worst = other.rank(order.price);
        let mut left = order.qty.0;
        while left > 0 {
            let Some((rank, at)) = self.ladders[other as usize].best() else { break };
            if rank < worst {
                break;
            }
            left = self.take_level(at, order.id, left, &mut sink);
        }
        Qty(left)
    }

    /// Trades with one level, oldest order first, until it or the quantity is used up.
    fn take_level(&mut self, at: u32, taker: OrderId, mut left: u64, sink: &mut impl FnMut(&Fill)) -> u64 {
        let mut level = *self.levels.get(at);
        while left > 0 && level.orders > 0 {
            let maker_at = level.oldest;
            let maker = self.orders.get_mut(maker_at);
            let qty = left.min(maker.qty.0);
            left -= qty;
            maker.qty.0 -= qty;
            level.qty -= u128::from(qty);
            self.trades.0 += 1;
            sink(&Fill {
                trade: self.trades,
                price: level.price,
                qty: Qty(qty),
                maker: maker.id,
                maker_open: maker.qty,
                maker_owner: maker.owner,
                taker,
            });
            if maker.qty.0 == 0 {
                level.oldest = maker.newer;
                level.orders -= 1;
                self.ids.remove(maker.id);
                self.orders.release(maker_at);
            }
        }
        if level.orders == 0 {
            self.ladders[level.side as usize].remove_best();
            self.levels.release(at);
        } else {
            self.orders.get_mut(level.oldest).older = NONE;
            *self.levels.get_mut(at) = level;
        }
        left
    }

    /// Puts an order at the end of the queue at its price. The caller has seen to it that it does not cross, that
    /// its id is new, and that there is room.
    pub(crate) fn rest(&mut self, new: NewOrder, arrival: Arrival) {
        assert!(!self.is_full(), "room was checked or made before");
        let rank = new.side.rank(new.price);
        let level_at = match self.ladders[new.side as usize].find(rank) {
            Ok(level) => level,
            Err(place) => {
                let (price, side) = (new.price, new.side);
                let level = self.levels.insert(Level { qty: 0, price, side, orders: 0, oldest: NONE, newest: NONE });
                self.ladders[new.side as usize].insert(place, rank, level);
                level
            }
        };
        let level = self.levels.get_mut(level_at);
        let at = self.orders.insert(Order {
            id: new.id,
            qty: new.qty,
            owner: new.owner,
            arrival,
            level: level_at,
            older: level.newest,
            newer: NONE,
        });
        match level.newest {
            NONE => level.oldest = at,
            older => self.orders.get_mut(older).newer = at,
        }
        level.newest = at;
        level.orders += 1;
        level.qty += u128::from(new.qty.0);
        self.ids.insert(new.id, at);
    }

    /// Takes an order out of its queue, and its level off the ladder if it was the last.
    fn remove(&mut self, at: u32) {
        let order = *self.orders.get(at);
        self.ids.remove(order.id);
        self.orders.release(at);
        let level = self.levels.get_mut(order.level);
        if level.orders == 1 {
            let (side, rank) = (level.side, level.side.rank(level.price));
            self.levels.release(order.level);
            self.ladders[side as usize].remove(rank);
            return;
        }
        level.orders -= 1;
        level.qty -= u128::from(order.qty.0);
        match order.older {
            NONE => level.oldest = order.newer,
            older => self.orders.get_mut(older).newer = order.newer,
        }
        match order.newer {
            NONE => level.newest = order.older,
            newer => self.orders.get_mut(newer).older = order.older,
        }
    }
}

fn check_amounts(price: Price, qty: Qty) -> Result<(), Reject> {
    match (price.0, qty.0) {
        (_, 0) => Err(Reject::ZeroQty),
        (0, _) => Err(Reject::ZeroPrice),
        _ => Ok(()),
    }
}
