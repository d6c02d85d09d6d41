//! Order flow from a seed: the same seed, the same flow, on every machine.
//!
//! Each symbol has a middle price that walks at random; orders come in near it, more the nearer; old ones are cancelled
//! or modified, so that about as many rest as [`Config::resting`] says; a few cross and trade, some of them through
//! several levels; one in two hundred is a mistake that an exchange must reject.

use exchange_book::{Book, Limits, NewOrder, OrderId, Price, Qty, Side};

use crate::wire::{Action, LimitOrder, Order, Symbol};

/// What flow to make.
#[derive(Clone, Debug)]
pub struct Config {
    /// Everything follows from it.
    pub seed: u64,
    /// At least one.
    pub symbols: Vec<Symbol>,
    /// Orders resting per symbol, about; at least 2.
    pub resting: usize,
    /// Where the middle prices begin, in ticks; at least 10,000.
    pub mid: Price,
}

impl Config {
    /// Flow in the symbols of the sample, 1,000 orders resting in each.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let symbols = ["ALPHA", "BRAVO", "CHARLIE", "DELTA"].map(|name| name.parse().expect("a symbol"));
        Self { seed, symbols: symbols.into(), resting: 1000, mid: Price(100_000) }
    }
}

/// An endless iterator over orders.
#[derive(Debug)]
pub struct Generator {
    random: Random,
    markets: Vec<Market>,
    resting: usize,
    mid_min: u64,
    ids: u64,
}

#[derive(Debug)]
struct Market {
    symbol: Symbol,
    mid: u64,
    /// What the exchange's book should be by now.
    book: Book,
    /// Orders that rested when they came in; some may have gone since.
    known: Vec<OrderId>,
}

impl Generator {
    /// Begins.
    ///
    /// # Panics
    /// If the configuration is not what it says it must be.
    #[must_use]
    pub fn new(config: Config) -> Self {
        assert!(!config.symbols.is_empty(), "a symbol at least");
        assert!(config.resting >= 2, "an order of each side at least");
        assert!(config.mid.0 >= 10_000, "prices stay clear of 0");
        let limits = Limits { orders_max: 1 << 24, orders_reserved: 1 << 10 };
        let market = |symbol| Market { symbol, mid: config.mid.0, book: Book::new(limits), known: Vec::new() };
        Self {
            random: Random(config.seed),
            markets: config.symbols.into_iter().map(market).collect(),
            resting: config.resting,
            mid_min: config.mid.0 / 2,
            ids: 0,
        }
    }

    fn order(&mut self) -> Order {
        let Self { random, markets, resting, mid_min, ids } = self;
        let market = {
            let at = random.index(markets.len());
            &mut markets[at]
        };
        market.walk(random, *mid_min);
        *ids += 1;
        let new = OrderId(*ids);
        // While the book is thin, more orders come than go.
        let leave = if market.book.len() < *resting { 18 } else { 60 };
        let action = match random.below(200) {
            0 => Action::Cancel { id: new },
            roll if roll < 2 * leave => market.leave(random).unwrap_or_else(|| market.passive(random, new)),
            roll if roll < 2 * leave + 14 => market.modify(random).unwrap_or_else(|| market.passive(random, new)),
            roll if roll < 2 * leave + 26 => market.aggressive(random, new),
            _ => market.passive(random, new),
        };
        market.follow(action);
        Order { symbol: market.symbol, action }
    }
}

impl Iterator for Generator {
    type Item = Order;

    fn next(&mut self) -> Option<Order> {
        Some(self.order())
    }
}

impl Market {
    fn walk(&mut self, random: &mut Random, mid_min: u64) {
        match random.below(16) {
            0 => self.mid += 1,
            1 => self.mid = (self.mid - 1).max(mid_min),
            _ => (),
        }
    }

    /// An order near the middle, that most often rests.
    fn passive(&self, random: &mut Random, id: OrderId) -> Action {
        let side = random.side();
        let distance = 1 + random.below(6) + 4 * u64::from(random.next().trailing_zeros());
        let price = match side {
            Side::Buy => self.mid - distance,
            Side::Sell => self.mid + distance,
        };
        Action::New(LimitOrder { id, side, price: Price(price), qty: random.qty() })
    }

    /// An order that reaches beyond the middle; of four, three do not rest.
    fn aggressive(&self, random: &mut Random, id: OrderId) -> Action {
        let (side, reach) = (random.side(), random.below(8));
        let price = match side {
            Side::Buy => self.mid + reach,
            Side::Sell => self.mid - reach,
        };
        let order = LimitOrder { id, side, price: Price(price), qty: Qty(3 * random.qty().0) };
        if random.below(4) == 0 { Action::New(order) } else { Action::ImmediateOrCancel(order) }
    }

    fn leave(&mut self, random: &mut Random) -> Option<Action> {
        self.pick(random).map(|id| Action::Cancel { id })
    }

    /// Less at the same price, or the same at another.
    fn modify(&mut self, random: &mut Random) -> Option<Action> {
        let id = self.pick(random)?;
        let (side, order) = self.book.order(id)?;
        if random.below(2) == 0 {
            return Some(Action::Modify { id, price: order.price, qty: Qty(order.qty.0.div_ceil(2)) });
        }
        let Action::New(elsewhere) = self.passive(random, id) else { return None };
        let distance = elsewhere.price.0.abs_diff(self.mid);
        let price = if side == Side::Buy { self.mid - distance } else { self.mid + distance };
        Some(Action::Modify { id, price: Price(price), qty: order.qty })
    }

    /// An order that rests.
    fn pick(&mut self, random: &mut Random) -> Option<OrderId> {
        while !self.known.is_empty() {
            let at = random.index(self.known.len());
            if self.book.order(self.known[at]).is_some() {
                return Some(self.known[at]);
            }
            self.known.swap_remove(at);
        }
        None
    }

    fn follow(&mut self, action: Action) {
        let new = |order: LimitOrder| {
            let LimitOrder { id, side, price, qty } = order;
            NewOrder { id, side, price, qty, owner: 0 }
        };
        // A rejection here is the mistake that was made on purpose.
        let _ = match action {
            Action::New(order) => {
                self.known.push(order.id);
                self.book.new_order(new(order), |_| ())
            }
            Action::ImmediateOrCancel(order) => self.book.immediate_or_cancel(new(order), |_| ()),
            Action::Modify { id, price, qty } => self.book.modify(id, price, qty, |_| ()),
            Action::Cancel { id } => self.book.cancel(id),
        };
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014): small, good enough, and the same everywhere.
#[derive(Debug)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// Below `bound`, by the upper bits of a product: no division.
    fn below(&mut self, bound: u64) -> u64 {
        let wide = u128::from(self.next()) * u128::from(bound);
        u64::try_from(wide >> 64).expect("a product's upper half")
    }

    fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.below(len as u64)).expect("below a length")
    }

    fn side(&mut self) -> Side {
        if self.below(2) == 0 { Side::Buy } else { Side::Sell }
    }

    /// Mostly round lots.
    fn qty(&mut self) -> Qty {
        let lots = 1 + self.below(20);
        if self.below(3) == 0 { Qty(lots) } else { Qty(lots * 100) }
    }
}
