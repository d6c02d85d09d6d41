//! LOBSTER message files (lobsterdata.com): `time,type,order id,size,price,direction`, without a header.
//!
//! | type | is | becomes |
//! |---|---|---|
//! | 1 | a new limit order | a new order |
//! | 2 | a partial cancellation, of so many shares | a modification to what is left, at the same price |
//! | 3 | a deletion | a cancellation |
//! | 4 | the execution of a visible order | an immediate-or-cancel order of the other side, at that price and of that size |
//! | 5, 6, 7 | hidden executions, crosses, halts | nothing; counted |
//!
//! Prices are in units of 1/10000 dollar and taken as ticks, sizes as lots. Executions name the resting order only; the
//! aggressor gets an id of its own, from [`AGGRESSOR_ID_MIN`] on. Messages of types 2 to 4 about orders from before the
//! beginning of the file cannot be replayed; they are counted too. Where the recorded market matched otherwise than by
//! price and time, or such unknown orders stood first, a replay trades with other orders than the recording.

use std::collections::HashMap;

use exchange_book::{OrderId, Price, Qty, Side};

use super::error::Problem;
use super::field::{self, wrong};
use super::lines::Lines;
use crate::wire::{Action, LimitOrder, Order, Symbol};

/// The first id of the orders made up for executions. Ids of the file must be below.
pub const AGGRESSOR_ID_MIN: u64 = 1 << 62;

const FIELDS_LEN: usize = 6;
const TYPES: &str = "a message type from 1 to 7";

/// Messages that did not become an instruction.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Skipped {
    /// Type 5.
    pub hidden_executions: u64,
    /// Type 6.
    pub crosses: u64,
    /// Type 7.
    pub halts: u64,
    /// Types 2 to 4 about orders the file has not introduced.
    pub unknown_orders: u64,
}

/// Follows the open quantities of the file's orders.
pub(super) struct Lobster {
    symbol: Symbol,
    open: HashMap<OrderId, (Price, Qty)>,
    aggressors: u64,
    pub(super) skipped: Skipped,
}

/// Type 1, 2, 3 or 4.
struct Message {
    id: OrderId,
    size: Qty,
    price: Price,
    side: Side,
}

impl Lobster {
    pub(super) fn new(symbol: Symbol) -> Self {
        Self { symbol, open: HashMap::new(), aggressors: 0, skipped: Skipped::default() }
    }

    /// Whether a first line looks like a LOBSTER message.
    pub(super) fn is_message(lines: &Lines) -> bool {
        lines.fields().count() == FIELDS_LEN && lines.fields().next().is_some_and(is_time)
    }

    /// The instruction a line becomes, if any.
    pub(super) fn order(&mut self, lines: &Lines) -> Result<Option<Order>, Problem> {
        let mut values: [&[u8]; FIELDS_LEN] = [b""; FIELDS_LEN];
        let found = lines.fields().count();
        if found != FIELDS_LEN {
            return Err(Problem::FieldCount { expected: FIELDS_LEN, found });
        }
        for (value, field) in values.iter_mut().zip(lines.fields()) {
            *value = field;
        }
        let [time, kind, ..] = values;
        if !is_time(time) {
            return Err(wrong("time", "seconds after midnight, like 34200.017459617", time));
        }
        let counter = match kind {
            b"1" | b"2" | b"3" | b"4" => {
                let message = message(&values)?;
                let action = self.action(kind[0], &message);
                self.skipped.unknown_orders += u64::from(action.is_none());
                return Ok(action.map(|action| Order { symbol: self.symbol, action }));
            }
            b"5" => &mut self.skipped.hidden_executions,
            b"6" => &mut self.skipped.crosses,
            b"7" => &mut self.skipped.halts,
            _ => return Err(wrong("type", TYPES, kind)),
        };
        *counter += 1;
        Ok(None)
    }

    fn action(&mut self, kind: u8, message: &Message) -> Option<Action> {
        let Message { id, size, price, side } = *message;
        if kind == b'1' {
            self.open.entry(id).or_insert((price, size));
            return Some(Action::New(LimitOrder { id, side, price, qty: size }));
        }
        let (resting_price, open) = *self.open.get(&id)?;
        let left = if kind == b'3' { Qty(0) } else { Qty(open.0.saturating_sub(size.0)) };
        if left.0 == 0 {
            self.open.remove(&id);
        } else {
            self.open.insert(id, (resting_price, left));
        }
        if kind == b'4' {
            let id = OrderId(AGGRESSOR_ID_MIN + self.aggressors);
            self.aggressors += 1;
            return Some(Action::ImmediateOrCancel(LimitOrder { id, side: side.opposite(), price, qty: size }));
        }
        let modify = Action::Modify { id, price: resting_price, qty: left };
        Some(if left.0 == 0 { Action::Cancel { id } } else { modify })
    }
}

fn message(values: &[&[u8]; FIELDS_LEN]) -> Result<Message, Problem> {
    let [_, _, id, size, price, direction] = *values;
    let id_field = id;
    let id = field::order_id(id)?;
    if id.0 >= AGGRESSOR_ID_MIN {
        return Err(wrong("order id", "an integer below 4611686018427387904", id_field));
    }
    let side = match direction {
        b"1" => Side::Buy,
        b"-1" => Side::Sell,
        _ => return Err(wrong("direction", "1 (buy) or -1 (sell)", direction)),
    };
    Ok(Message { id, size: field::qty("size", size)?, price: field::price(price)?, side })
}

/// Digits with at most one point between them.
fn is_time(field: &[u8]) -> bool {
    let mut parts = field.split(|byte| *byte == b'.');
    let digits = |part: &[u8]| !part.is_empty() && part.iter().all(u8::is_ascii_digit);
    parts.clone().count() <= 2 && parts.all(digits)
}
