//! The bytes of every message, pinned: a change here breaks clients that are out there. And that messages can grow:
//! what a newer writer appends, an older reader skips.

use std::collections::BTreeMap;

use evershard_service::SessionId;
use exchange::local::Local;
use exchange::wire::{Command, DepthQuery, Event, OrdersQuery, Reply, TradesQuery};
use exchange_book::{Arrival, Price, Side, TradeNumber};

use crate::{bytes, hex, order};

fn commands() -> Vec<(&'static str, Command)> {
    let symbol = "BTCUSD".parse().expect("a symbol");
    let after = Some((Price(0x0102), Arrival(0x0304)));
    vec![
        ("new order", Command::Order(order("BTCUSD", 'N', 0x1122, Side::Buy, 101, 7))),
        ("immediate or cancel", Command::Order(order("SIXTEEN_LETTERS.", 'I', 0x3344, Side::Sell, 100, 9))),
        ("modify", Command::Order(order("BTCUSD", 'M', 0x1122, Side::Buy, 102, 6))),
        ("cancel", Command::Order(order("BTCUSD", 'C', 0x1122, Side::Buy, 0, 0))),
        ("depth query", Command::Depth(DepthQuery { symbol, levels: 5 })),
        ("orders query", Command::Orders(OrdersQuery { symbol, side: Side::Sell, after })),
        ("trades query", Command::Trades(TradesQuery { symbol, from: TradeNumber(0x0708) })),
        ("symbols query", Command::Symbols),
    ]
}

/// A short story that brings forth each reply, and an event.
fn replies() -> Vec<(&'static str, Vec<u8>)> {
    let mut exchange = Local::default();
    let (symbol, maker, taker) = ("BTCUSD".parse().expect("a symbol"), SessionId(7), SessionId(8));
    exchange.apply(maker, &bytes(&Command::Order(order("BTCUSD", 'N', 1, Side::Sell, 100, 5))));
    exchange.apply(maker, &bytes(&Command::Order(order("BTCUSD", 'N', 2, Side::Buy, 99, 4))));
    let trade = bytes(&Command::Order(order("BTCUSD", 'I', 3, Side::Buy, 100, 2)));
    let ack = exchange.apply(taker, &trade).to_vec();
    let event = exchange.events().next().expect("the maker is told").1.to_vec();
    let mut ask = |command: &[u8]| exchange.apply(taker, command).to_vec();
    let mut unknown = bytes(&Command::Symbols);
    unknown[2] = 99;
    vec![
        ("ack", ack),
        ("ack of a reject", ask(&bytes(&Command::Order(order("BTCUSD", 'C', 3, Side::Buy, 0, 0))))),
        ("depth", ask(&bytes(&Command::Depth(DepthQuery { symbol, levels: 5 })))),
        ("orders", ask(&bytes(&Command::Orders(OrdersQuery { symbol, side: Side::Sell, after: None })))),
        ("trades", ask(&bytes(&Command::Trades(TradesQuery { symbol, from: TradeNumber(1) })))),
        ("symbols", ask(&bytes(&Command::Symbols))),
        ("unknown", ask(&unknown)),
        ("malformed", ask(&trade[..20])),
        ("execution", event),
    ]
}

/// Made from the layouts independently of the code.
const GOLDEN: &str = include_str!("golden.txt");

#[test]
fn every_message_has_the_bytes_it_always_had() {
    let mut found = BTreeMap::new();
    found.extend(commands().iter().map(|(name, command)| (*name, hex(&bytes(command)))));
    found.extend(replies().iter().map(|(name, reply)| (*name, hex(reply))));
    let lines = GOLDEN.lines().filter(|line| !line.starts_with('#'));
    let entry = |line: &'static str| {
        let (name, bytes) = line.split_once(':').expect("name: bytes");
        (name, bytes.replace([' ', '|'], ""))
    };
    let expected: BTreeMap<_, _> = lines.map(entry).collect();
    for (name, bytes) in &found {
        assert_eq!(expected.get(name), Some(bytes), "{name}");
    }
    assert_eq!(found.len(), expected.len());
    for (name, command) in commands() {
        assert_eq!(Command::decode(&bytes(&command)), Ok(command), "{name}");
    }
}

/// What a newer writer would send: eight bytes more in the block, six in each entry, and something after the groups.
fn grown(message: &[u8]) -> Vec<u8> {
    let number = |bytes: &[u8]| usize::from(u16::from_le_bytes([bytes[0], bytes[1]]));
    let put = |out: &mut Vec<u8>, value: usize| out.extend(u16::try_from(value).expect("small").to_le_bytes());
    let block = number(message);
    let mut out = Vec::new();
    put(&mut out, block + 8);
    out.extend(&message[2..6]);
    put(&mut out, 2);
    out.extend(&message[8..8 + block]);
    out.extend([0xEE; 8]);
    let mut rest = &message[8 + block..];
    while !rest.is_empty() {
        let (stride, len) = (number(rest), number(&rest[2..]));
        put(&mut out, stride + 6);
        put(&mut out, len);
        for entry in rest[4..4 + stride * len].chunks_exact(stride) {
            out.extend(entry);
            out.extend([0xEE; 6]);
        }
        rest = &rest[4 + stride * len..];
    }
    out.extend([0xEE; 5]);
    out
}

#[test]
fn what_a_newer_writer_appends_is_skipped() {
    for (name, command) in commands() {
        assert_eq!(Command::decode(&grown(&bytes(&command))), Ok(command), "{name}");
    }
    for (name, reply) in replies() {
        let newer = grown(&reply);
        if name == "execution" {
            assert_eq!(Event::decode(&newer), Event::decode(&reply));
            continue;
        }
        assert_eq!(seen(&newer), seen(&reply), "{name}");
    }
}

/// All that a reader sees of a reply.
fn seen(reply: &[u8]) -> String {
    match Reply::decode(reply).expect("a readable reply") {
        Reply::Ack(ack) => {
            let result = ack.result.map(|accepted| {
                let fills: Vec<_> = accepted.fills.iter().collect();
                let more = (accepted.first_trade, accepted.trades, accepted.more);
                format!("{} {} {more:?} {fills:?}", accepted.filled, accepted.remaining)
            });
            format!("{} {result:?}", ack.order_id)
        }
        Reply::Depth(page) => {
            let levels: Vec<_> = page.bids.iter().chain(page.asks.iter()).collect();
            format!("{} {} {levels:?}", page.symbol, page.latest_trade)
        }
        Reply::Orders(page) => {
            format!("{} {:?} {:?} {:?}", page.symbol, page.side, page.next, page.orders.iter().collect::<Vec<_>>())
        }
        Reply::Trades(page) => {
            let numbers = (page.first, page.retained_from, page.latest);
            format!("{} {numbers:?} {:?}", page.symbol, page.trades.iter().collect::<Vec<_>>())
        }
        Reply::Symbols(symbols) => format!("{:?}", symbols.iter().collect::<Vec<_>>()),
        other => format!("{other:?}"),
    }
}
