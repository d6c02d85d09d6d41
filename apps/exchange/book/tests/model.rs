//! The book against a naive model: a vector of orders, scanned.

use exchange_book::{
    Arrival, Book, DepthLevel, Fill, Limits, NewOrder, OrderId, Outcome, Price, Qty, Reject, RestoreError, Side,
    TradeNumber,
};
use proptest::prelude::*;

const LIMITS: Limits = Limits { orders_max: 24, orders_reserved: 2 };

/// All resting orders, oldest first.
#[derive(Default)]
struct Model {
    queue: Vec<(NewOrder, u64)>,
    trades: u64,
    arrivals: u64,
}

impl Model {
    fn live(&self, id: OrderId) -> Option<usize> {
        self.queue.iter().position(|(order, _)| order.id == id)
    }

    /// The best, oldest counter-order that crosses.
    fn counterpart(&self, side: Side, price: Price) -> Option<usize> {
        let mut best: Option<usize> = None;
        for (at, (order, _)) in self.queue.iter().enumerate() {
            let crosses = match side {
                Side::Buy => order.side == Side::Sell && order.price <= price,
                Side::Sell => order.side == Side::Buy && order.price >= price,
            };
            let better = best.is_none_or(|best| match side {
                Side::Buy => order.price < self.queue[best].0.price,
                Side::Sell => order.price > self.queue[best].0.price,
            });
            if crosses && better {
                best = Some(at);
            }
        }
        best
    }

    fn enter(&mut self, mut order: NewOrder, rests: bool, fills: &mut Vec<Fill>) -> Outcome {
        let entered = order.qty.0;
        while order.qty.0 > 0 {
            let Some(at) = self.counterpart(order.side, order.price) else { break };
            let maker = &mut self.queue[at].0;
            let qty = maker.qty.min(order.qty);
            maker.qty.0 -= qty.0;
            order.qty.0 -= qty.0;
            self.trades += 1;
            fills.push(Fill {
                trade: TradeNumber(self.trades),
                price: maker.price,
                qty,
                maker: maker.id,
                maker_open: maker.qty,
                maker_owner: maker.owner,
                taker: order.id,
            });
            if maker.qty.0 == 0 {
                self.queue.remove(at);
            }
        }
        if rests && order.qty.0 > 0 {
            self.arrivals += 1;
            self.queue.push((order, self.arrivals));
        }
        Outcome { filled: Qty(entered - order.qty.0), remaining: order.qty }
    }

    fn apply(&mut self, step: &Step, fills: &mut Vec<Fill>) -> Result<Outcome, Reject> {
        match *step {
            Step::New(order, rests) => {
                check(order.price, order.qty)?;
                if self.live(order.id).is_some() {
                    return Err(Reject::DuplicateId);
                }
                let full = self.queue.len() == LIMITS.orders_max as usize;
                if rests && full && self.counterpart(order.side, order.price).is_none() {
                    return Err(Reject::BookFull);
                }
                Ok(self.enter(order, rests, fills))
            }
            Step::Modify(id, price, qty) => {
                check(price, qty)?;
                let at = self.live(id).ok_or(Reject::UnknownId)?;
                let order = &mut self.queue[at].0;
                if order.price == price && qty <= order.qty {
                    order.qty = qty;
                    return Ok(Outcome { filled: Qty(0), remaining: qty });
                }
                let (order, _) = self.queue.remove(at);
                Ok(self.enter(NewOrder { price, qty, ..order }, true, fills))
            }
            Step::Cancel(id) => {
                let at = self.live(id).ok_or(Reject::UnknownId)?;
                let (order, _) = self.queue.remove(at);
                Ok(Outcome { filled: Qty(0), remaining: order.qty })
            }
        }
    }

    /// (price, id, quantity, owner, arrival), best first.
    fn side(&self, side: Side) -> Vec<(u64, u64, u64, u64, u64)> {
        let mut found: Vec<_> = self.queue.iter().filter(|(order, _)| order.side == side).collect();
        found.sort_by_key(|(order, arrival)| match side {
            Side::Buy => (u64::MAX - order.price.0, *arrival),
            Side::Sell => (order.price.0, *arrival),
        });
        found.into_iter().map(|(o, arrival)| (o.price.0, o.id.0, o.qty.0, o.owner, *arrival)).collect()
    }
}

fn check(price: Price, qty: Qty) -> Result<(), Reject> {
    if qty.0 == 0 {
        return Err(Reject::ZeroQty);
    }
    if price.0 == 0 { Err(Reject::ZeroPrice) } else { Ok(()) }
}

#[derive(Debug, Clone)]
enum Step {
    New(NewOrder, bool),
    Modify(OrderId, Price, Qty),
    Cancel(OrderId),
}

fn apply(book: &mut Book, step: &Step, fills: &mut Vec<Fill>) -> Result<Outcome, Reject> {
    let sink = |fill: &Fill| fills.push(*fill);
    match *step {
        Step::New(order, true) => book.new_order(order, sink),
        Step::New(order, false) => book.immediate_or_cancel(order, sink),
        Step::Modify(id, price, qty) => book.modify(id, price, qty, sink),
        Step::Cancel(id) => book.cancel(id),
    }
}

fn amount() -> impl Strategy<Value = u64> {
    prop_oneof![30 => 1_u64..12, 1 => Just(0), 1 => Just(u64::MAX), 1 => Just(u64::MAX - 3)]
}

fn step() -> impl Strategy<Value = Step> {
    let id = (0_u64..40).prop_map(OrderId);
    let side = prop_oneof![Just(Side::Buy), Just(Side::Sell)];
    let new = (id.clone(), side, amount(), amount(), 0_u64..3).prop_map(|(id, side, price, qty, owner)| NewOrder {
        id,
        side,
        price: Price(price),
        qty: Qty(qty),
        owner,
    });
    prop_oneof![
        6 => (new, proptest::bool::weighted(0.85)).prop_map(|(order, rests)| Step::New(order, rests)),
        3 => (id.clone(), amount(), amount()).prop_map(|(id, price, qty)| Step::Modify(id, Price(price), Qty(qty))),
        2 => id.prop_map(Step::Cancel),
    ]
}

fn saved(book: &Book) -> Vec<u8> {
    let mut bytes = Vec::new();
    let done: Result<(), ()> = book.save(|piece| {
        bytes.extend_from_slice(piece);
        Ok(())
    });
    done.expect("a vector takes everything");
    bytes
}

#[derive(Debug, PartialEq)]
enum ReadError {
    End,
    Restore(RestoreError),
}

impl From<RestoreError> for ReadError {
    fn from(error: RestoreError) -> Self {
        Self::Restore(error)
    }
}

fn restored(mut bytes: &[u8]) -> Result<Book, ReadError> {
    Book::restore(LIMITS, |out| {
        let (front, rest) = bytes.split_at_checked(out.len()).ok_or(ReadError::End)?;
        out.copy_from_slice(front);
        bytes = rest;
        Ok(())
    })
}

fn listed(book: &Book, side: Side) -> Vec<(u64, u64, u64, u64, u64)> {
    book.orders(side).map(|o| (o.price.0, o.id.0, o.qty.0, o.owner, o.arrival.0)).collect()
}

fn depth_of(orders: &[(u64, u64, u64, u64, u64)]) -> Vec<DepthLevel> {
    let groups = orders.chunk_by(|a, b| a.0 == b.0);
    let level = |group: &[(u64, u64, u64, u64, u64)]| DepthLevel {
        price: Price(group[0].0),
        qty: group.iter().map(|order| u128::from(order.2)).sum(),
        orders: group.len() as u32,
    };
    groups.map(level).collect()
}

fn check_equal(book: &Book, model: &Model) -> Result<(), TestCaseError> {
    prop_assert_eq!(book.len(), model.queue.len());
    prop_assert_eq!(book.trades().0, model.trades);
    for side in Side::BOTH {
        let expected = model.side(side);
        let orders = listed(book, side);
        prop_assert_eq!(&orders, &expected);
        prop_assert_eq!(book.depth(side).collect::<Vec<_>>(), depth_of(&expected));
        prop_assert_eq!(book.best(side).map(|price| price.0), expected.first().map(|order| order.0));
        for (at, order) in expected.iter().enumerate() {
            let rest: Vec<_> = book.orders_after(side, Price(order.0), Arrival(order.4)).map(|o| o.id.0).collect();
            prop_assert_eq!(rest, expected[at + 1..].iter().map(|order| order.1).collect::<Vec<_>>());
            let (found_side, found) = book.order(OrderId(order.1)).expect("it rests");
            prop_assert_eq!((found_side, found.qty.0), (side, order.2));
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn agrees_with_the_model(steps in proptest::collection::vec(step(), 0..300)) {
        let (mut book, mut model) = (Book::new(LIMITS), Model::default());
        for (number, step) in steps.iter().enumerate() {
            let (mut fills, mut expected_fills) = (Vec::new(), Vec::new());
            let digest = book.digest();
            let got = apply(&mut book, step, &mut fills);
            prop_assert_eq!(got, model.apply(step, &mut expected_fills), "step {} {:?}", number, step);
            prop_assert_eq!(fills, expected_fills);
            check_equal(&book, &model)?;
            if got.is_err() {
                prop_assert_eq!(digest, book.digest(), "a rejected instruction changes nothing");
            }
            if number % 16 == 0 {
                // The restored book has its orders in other places of the slab, and goes on from here.
                let again = restored(&saved(&book)).expect("a book reads what it wrote");
                prop_assert_eq!(again.digest(), book.digest());
                prop_assert_eq!(saved(&again), saved(&book));
                book = again;
            }
        }
    }

    #[test]
    fn restoring_hostile_bytes_never_panics(steps in proptest::collection::vec(step(), 0..60),
                                            at in any::<prop::sample::Index>(), value in any::<u8>()) {
        let mut book = Book::new(LIMITS);
        for step in &steps {
            let _ = apply(&mut book, step, &mut Vec::new());
        }
        let mut bytes = saved(&book);
        let at = at.index(bytes.len());
        prop_assert!(restored(&bytes[..at]).is_err());
        bytes[at] = value;
        if let Ok(other) = restored(&bytes) {
            prop_assert_eq!(saved(&other), bytes, "what is accepted is understood in full");
        }
    }
}

#[test]
fn memory_does_not_grow_once_warm() {
    let mut book = Book::new(Limits { orders_max: 10_000, orders_reserved: 16 });
    let turn = |book: &mut Book| {
        for number in 0_u64..5_000 {
            let side = if number % 2 == 0 { Side::Buy } else { Side::Sell };
            let price = if number % 2 == 0 { 10_000 - number } else { 10_001 + number };
            let order = NewOrder { id: OrderId(number * 7), side, price: Price(price), qty: Qty(1), owner: 0 };
            book.new_order(order, |_| ()).expect("room and a new id");
        }
        for number in 0_u64..5_000 {
            book.cancel(OrderId(number * 7)).expect("it rests");
        }
    };
    turn(&mut book);
    let warm = book.memory_size();
    for _ in 0..20 {
        turn(&mut book);
    }
    assert_eq!(book.memory_size(), warm);
}
