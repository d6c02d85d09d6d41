//! The exchange from outside: bytes, files, replies.

mod golden;
mod hostile;
mod local_run;
mod order_files;
mod service;

use exchange::wire::{Action, Command, LimitOrder, Order};
use exchange_book::{OrderId, Price, Qty, Side};

/// An order in short: `op` as in the neutral format.
fn order(symbol: &str, op: char, id: u64, side: Side, price: u64, qty: u64) -> Order {
    let (id, price, qty) = (OrderId(id), Price(price), Qty(qty));
    let action = match op {
        'N' => Action::New(LimitOrder { id, side, price, qty }),
        'I' => Action::ImmediateOrCancel(LimitOrder { id, side, price, qty }),
        'M' => Action::Modify { id, price, qty },
        _ => Action::Cancel { id },
    };
    Order { symbol: symbol.parse().expect("a symbol"), action }
}

fn bytes(command: &Command) -> Vec<u8> {
    let mut out = Vec::new();
    command.encode(&mut out);
    out
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
