//! Single fields of order files.

use exchange_book::{OrderId, Price, Qty};

use super::error::{Problem, shown};
use crate::wire::Symbol;

/// The largest price and quantity of an order file.
pub(super) const AMOUNT_MAX: u64 = i64::MAX as u64;

/// Without blanks around it and without a pair of quotes.
pub(super) fn trimmed(field: &[u8]) -> &[u8] {
    let field = field.trim_ascii();
    field.strip_prefix(b"\"").and_then(|field| field.strip_suffix(b"\"")).unwrap_or(field)
}

pub(super) fn wrong(name: &'static str, expected: &'static str, field: &[u8]) -> Problem {
    Problem::Field { name, expected, found: shown(field) }
}

pub(super) fn symbol(field: &[u8]) -> Result<Symbol, Problem> {
    let text = str::from_utf8(field).ok().and_then(|text| text.parse().ok());
    text.ok_or_else(|| wrong("symbol", "1 to 16 printable ASCII characters without space, comma or quote", field))
}

pub(super) fn order_id(field: &[u8]) -> Result<OrderId, Problem> {
    integer(field).map(OrderId).ok_or_else(|| wrong("order_id", "an integer from 0 to 18446744073709551615", field))
}

pub(super) fn price(field: &[u8]) -> Result<Price, Problem> {
    amount("price", field).map(Price)
}

pub(super) fn qty(name: &'static str, field: &[u8]) -> Result<Qty, Problem> {
    amount(name, field).map(Qty)
}

fn amount(name: &'static str, field: &[u8]) -> Result<u64, Problem> {
    let value = integer(field).filter(|value| (1..=AMOUNT_MAX).contains(value));
    value.ok_or_else(|| wrong(name, "an integer from 1 to 9223372036854775807", field))
}

/// Digits only: no sign, no blank.
fn integer(field: &[u8]) -> Option<u64> {
    if !field.iter().all(u8::is_ascii_digit) {
        return None;
    }
    str::from_utf8(field).ok()?.parse().ok()
}
