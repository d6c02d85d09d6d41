//! The neutral format: `symbol,op,order_id,side,price,qty`.
//!
//! Ops: `N` new, `I` immediate-or-cancel, `M` modify to price and open quantity, `C` cancel. Side `B` or `S`. Of a `C`
//! only symbol and id are read; of an `M` all but the side, as an order keeps its own.

use std::io;

use exchange_book::Side;

use super::error::{Problem, shown};
use super::field;
use super::lines::Lines;
use crate::wire::{Action, LimitOrder, Order};

/// The columns, in the order in which they are written.
pub const HEADER: &str = "symbol,op,order_id,side,price,qty";
const COLUMNS_LEN: usize = 6;

/// Where each column of [`HEADER`] is in the file: they may come in any order, and others beside them.
pub(super) struct Columns {
    places: [usize; COLUMNS_LEN],
    fields_len: usize,
}

impl Columns {
    /// From the header line.
    pub(super) fn new(lines: &Lines) -> Result<Self, Problem> {
        let found = || Problem::Header { found: shown(lines.line()) };
        let mut places = [0; COLUMNS_LEN];
        for (place, name) in places.iter_mut().zip(HEADER.split(',')) {
            let is_it = |field: &[u8]| field.eq_ignore_ascii_case(name.as_bytes());
            *place = lines.fields().position(is_it).ok_or_else(found)?;
        }
        Ok(Self { places, fields_len: lines.fields().count() })
    }

    pub(super) fn order(&self, lines: &Lines) -> Result<Order, Problem> {
        let mut values: [&[u8]; COLUMNS_LEN] = [b""; COLUMNS_LEN];
        let mut found = 0;
        for (number, field) in lines.fields().enumerate() {
            found = number + 1;
            if let Some(column) = self.places.iter().position(|place| *place == number) {
                values[column] = field;
            }
        }
        if found != self.fields_len {
            return Err(Problem::FieldCount { expected: self.fields_len, found });
        }
        let [symbol, op, id, side, price, qty] = values;
        let (symbol, id) = (field::symbol(symbol)?, field::order_id(id)?);
        let limit = || {
            let (side, price) = (side_of(side)?, field::price(price)?);
            Ok(LimitOrder { id, side, price, qty: field::qty("qty", qty)? })
        };
        let action = match op {
            b"N" => Action::New(limit()?),
            b"I" => Action::ImmediateOrCancel(limit()?),
            b"M" => Action::Modify { id, price: field::price(price)?, qty: field::qty("qty", qty)? },
            b"C" => Action::Cancel { id },
            _ => return Err(field::wrong("op", "N, I, M or C", op)),
        };
        Ok(Order { symbol, action })
    }
}

/// Writes [`HEADER`] and its line end.
///
/// # Errors
/// Those of `out`.
pub fn write_header(out: &mut impl io::Write) -> io::Result<()> {
    writeln!(out, "{HEADER}")
}

/// Writes an order as one line.
///
/// # Errors
/// Those of `out`.
pub fn write_order(out: &mut impl io::Write, order: &Order) -> io::Result<()> {
    let symbol = order.symbol;
    match order.action {
        Action::New(LimitOrder { id, side, price, qty }) => {
            writeln!(out, "{symbol},N,{id},{},{price},{qty}", side.letter())
        }
        Action::ImmediateOrCancel(LimitOrder { id, side, price, qty }) => {
            writeln!(out, "{symbol},I,{id},{},{price},{qty}", side.letter())
        }
        Action::Modify { id, price, qty } => writeln!(out, "{symbol},M,{id},,{price},{qty}"),
        Action::Cancel { id } => writeln!(out, "{symbol},C,{id},,,"),
    }
}

fn side_of(field: &[u8]) -> Result<Side, Problem> {
    match field {
        b"B" => Ok(Side::Buy),
        b"S" => Ok(Side::Sell),
        _ => Err(field::wrong("side", "B or S", field)),
    }
}
