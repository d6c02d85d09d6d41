//! The exchange as a service: determinism, limits, queries, events.

use evershard_service::harness::Harness;
use evershard_service::{Service, SessionId, SnapshotError};
use exchange::collect::{CollectError, Collector};
use exchange::generator::{Config, Generator};
use exchange::local::Local;
use exchange::service::{Exchange, ExchangeLimits, TAPE_PAGE_LEN};
use exchange::wire::{
    Command, DepthQuery, Event, Execution, FILLS_INLINE_MAX, MESSAGE_SIZE_MAX, ORDERS_PAGE_LEN_MAX, OrdersQuery,
    RejectCode, Reply, TradesQuery,
};
use exchange_book::{Limits, OrderId, Price, Qty, Reject, Side, TradeNumber};

use crate::{bytes, order};
use exchange::wire::Order;

const SMALL: ExchangeLimits = ExchangeLimits {
    symbols_max: 3,
    book: Limits { orders_max: 25, orders_reserved: 1 },
    orders_max: 70,
    tape_pages_max: 2,
};

fn reject_of(exchange: &mut Local, command: Order) -> Option<RejectCode> {
    match exchange.call(&Command::Order(command)).expect("a readable reply") {
        Reply::Ack(ack) => ack.result.err(),
        other => panic!("an order is acknowledged: {other:?}"),
    }
}

#[test]
fn two_runs_and_a_restored_one_are_the_same() {
    let mut codes = Vec::new();
    for seed in 0..4 {
        // More symbols and orders than there is room for: refusals are part of the behaviour.
        let mut harness = Harness::new(|| Exchange::new(SMALL)).open(1).open(2);
        let config = Config { resting: 40, ..Config::new(seed) };
        for (number, order) in Generator::new(config).take(1200).enumerate() {
            let session = 1 + number as u64 % 2;
            harness = harness.command(session, &bytes(&Command::Order(order)));
            let (symbol, side) = (order.symbol, if number % 2 == 0 { Side::Buy } else { Side::Sell });
            let from = TradeNumber(number as u64 / 8);
            harness = match number % 40 {
                0 => harness.command(1, &bytes(&Command::Depth(DepthQuery { symbol, levels: 5 }))),
                10 => harness.command(1, &bytes(&Command::Orders(OrdersQuery { symbol, side, after: None }))),
                20 => harness.command(2, &bytes(&Command::Trades(TradesQuery { symbol, from }))),
                30 => harness.command(2, &bytes(&Command::Symbols)).command(3, b"rubbish"),
                _ => harness,
            };
        }
        let report = harness.run();
        codes.extend(report.replies.iter().filter_map(|reply| reject(reply)));
        assert!(!report.events.is_empty());
    }
    for expected in [RejectCode::Book(Reject::BookFull), RejectCode::ShardFull, RejectCode::SymbolsFull] {
        assert!(codes.contains(&expected), "the runs meet {expected:?}");
    }
}

fn reject(reply: &[u8]) -> Option<RejectCode> {
    match Reply::decode(reply).expect("a readable reply") {
        Reply::Ack(ack) => ack.result.err(),
        _ => None,
    }
}

#[test]
fn refusals_change_nothing() {
    let mut exchange = Local::new(ExchangeLimits { orders_max: 2, symbols_max: 2, ..SMALL });
    let empty = exchange.digest();
    let zero = RejectCode::Book(Reject::ZeroQty);
    assert_eq!(reject_of(&mut exchange, order("A", 'N', 1, Side::Buy, 10, 0)), Some(zero));
    assert_eq!(reject_of(&mut exchange, order("A", 'C', 1, Side::Buy, 0, 0)), Some(RejectCode::UnknownSymbol));
    assert_eq!(exchange.digest(), empty);
    assert_eq!(reject_of(&mut exchange, order("A", 'N', 1, Side::Buy, 10, 5)), None);
    assert_eq!(reject_of(&mut exchange, order("B", 'N', 1, Side::Sell, 10, 5)), None);
    let full = exchange.digest();
    assert_eq!(reject_of(&mut exchange, order("C", 'I', 1, Side::Buy, 10, 5)), Some(RejectCode::SymbolsFull));
    assert_eq!(reject_of(&mut exchange, order("A", 'N', 2, Side::Buy, 10, 5)), Some(RejectCode::ShardFull));
    let duplicate = RejectCode::Book(Reject::DuplicateId);
    assert_eq!(reject_of(&mut exchange, order("A", 'N', 1, Side::Buy, 10, 5)), Some(duplicate));
    assert_eq!(exchange.digest(), full);
    assert_eq!(reject_of(&mut exchange, order("B", 'N', 2, Side::Buy, 10, 9)), None, "one that trades makes room");
    assert_eq!(reject_of(&mut exchange, order("A", 'C', 1, Side::Buy, 0, 0)), None);
    assert_eq!(reject_of(&mut exchange, order("A", 'N', 3, Side::Buy, 10, 5)), None, "there is room again");
}

#[test]
fn a_maker_of_another_session_is_told() {
    let mut exchange = Local::default();
    let (maker, taker) = (SessionId(7), SessionId(8));
    exchange.apply(maker, &bytes(&Command::Order(order("A", 'N', 1, Side::Sell, 10, 5))));
    exchange.apply(taker, &bytes(&Command::Order(order("A", 'N', 2, Side::Sell, 10, 5))));
    exchange.apply(taker, &bytes(&Command::Order(order("A", 'I', 3, Side::Buy, 10, 7))));
    let events: Vec<_> = exchange.events().map(|(session, event)| (session, Event::decode(event))).collect();
    let execution = Execution {
        symbol: "A".parse().expect("a symbol"),
        order_id: OrderId(1),
        trade: TradeNumber(1),
        price: Price(10),
        qty: Qty(5),
        open: Qty(0),
    };
    assert_eq!(events, [(maker, Ok(Event::Execution(execution)))], "and nobody of trades with themselves");
}

/// Fills the ask side with `makers` orders of one lot each, at ten prices.
fn asks(exchange: &mut Local, makers: u64) {
    for id in 1..=makers {
        let new = order("A", 'N', id, Side::Sell, 100 + id % 10, 1);
        exchange.apply(SessionId(2), &bytes(&Command::Order(new)));
    }
}

#[test]
fn an_ack_without_room_for_all_fills_says_so_and_the_tape_has_them() {
    let mut exchange = Local::default();
    let makers = 2 * FILLS_INLINE_MAX as u64 + 500;
    asks(&mut exchange, makers);
    let sweep = order("A", 'I', 9_999_999, Side::Buy, 200, makers + 1);
    let mut collector = Collector::new(1);
    let size = exchange.apply(SessionId(1), &bytes(&Command::Order(sweep))).to_vec();
    assert!(size.len() <= MESSAGE_SIZE_MAX);
    let Ok(Reply::Ack(ack)) = Reply::decode(&size) else { panic!("an order is acknowledged") };
    let accepted = ack.result.expect("accepted");
    assert!(accepted.more);
    assert_eq!((accepted.fills.len(), u64::from(accepted.trades)), (FILLS_INLINE_MAX, makers));
    assert_eq!((accepted.filled.0, accepted.remaining.0), (makers, 1));
    collector.on_ack(&sweep, &ack).expect("it fits");
    while let Some((shard, command)) = collector.wanted() {
        collector.on_reply(shard, &exchange.call(&command).expect("readable")).expect("it fits");
    }
    let mut text = Vec::new();
    collector.write_trades(&mut text).expect("a vector takes everything");
    assert_eq!(text.split(|byte| *byte == b'\n').count() as u64, makers + 2, "header, trades, and the end");
}

#[test]
fn pages_of_orders_cover_the_book_whatever_leaves_meanwhile() {
    for makers in [0, 1, ORDERS_PAGE_LEN_MAX as u64, ORDERS_PAGE_LEN_MAX as u64 + 1, 2500] {
        let mut exchange = Local::default();
        asks(&mut exchange, makers.max(1));
        let symbol = "A".parse().expect("a symbol");
        let side = if makers == 0 { Side::Buy } else { Side::Sell };
        let (mut after, mut found) = (None, Vec::new());
        loop {
            let command = Command::Orders(OrdersQuery { symbol, side, after });
            let Ok(Reply::Orders(page)) = exchange.call(&command) else { panic!("a page is answered") };
            found.extend(page.orders.iter().map(|order| (order.price.get(), order.order_id.get())));
            after = page.next;
            if after.is_none() {
                break;
            }
            // The order that the cursor points to leaves.
            let last = found.last().expect("a page that is not the last has orders").1;
            exchange.apply(SessionId(1), &bytes(&Command::Order(order("A", 'C', last, side, 0, 0))));
        }
        let mut expected: Vec<_> = (1..=makers).map(|id| (100 + id % 10, id)).collect();
        expected.sort_unstable();
        assert_eq!(found, expected);
    }
}

#[test]
fn the_largest_replies_fit_a_message() {
    let mut exchange = Local::default();
    for id in 1..=2000 {
        let (buy, sell) = (order("A", 'N', id, Side::Buy, id, 1), order("A", 'N', id + 5000, Side::Sell, id + 5000, 1));
        exchange.apply(SessionId(1), &bytes(&Command::Order(buy)));
        exchange.apply(SessionId(1), &bytes(&Command::Order(sell)));
    }
    let sweep = order("A", 'I', 99_999, Side::Buy, 9999, 1500);
    exchange.apply(SessionId(1), &bytes(&Command::Order(sweep)));
    let symbol = "A".parse().expect("a symbol");
    let queries = [
        Command::Depth(DepthQuery { symbol, levels: u32::MAX }),
        Command::Orders(OrdersQuery { symbol, side: Side::Buy, after: None }),
        Command::Trades(TradesQuery { symbol, from: TradeNumber(0) }),
    ];
    for query in &queries {
        let size = exchange.apply(SessionId(1), &bytes(query)).len();
        assert!((16 * 1024..=MESSAGE_SIZE_MAX).contains(&size), "{query:?} is answered with {size} bytes");
    }
    for number in 0..2000 {
        let new = order(&format!("S{number}"), 'N', 1, Side::Buy, 1, 1);
        exchange.apply(SessionId(1), &bytes(&Command::Order(new)));
    }
    let size = exchange.apply(SessionId(1), &bytes(&Command::Symbols)).len();
    assert!((16 * 1024..=MESSAGE_SIZE_MAX).contains(&size));
}

#[test]
fn what_the_tape_forgot_is_reported() {
    let mut exchange = Local::new(ExchangeLimits { book: Limits::default(), orders_max: 10_000, ..SMALL });
    let makers = 3 * TAPE_PAGE_LEN as u64;
    asks(&mut exchange, makers);
    let sweep = order("A", 'I', 9_999_999, Side::Buy, 200, makers);
    exchange.apply(SessionId(1), &bytes(&Command::Order(sweep)));
    let mut collector = Collector::new(1);
    let error = loop {
        let (shard, command) = collector.wanted().expect("trades are missing");
        let reply = exchange.call(&command).expect("readable");
        if let Err(error) = collector.on_reply(shard, &reply) {
            break error;
        }
    };
    let retained_from = TradeNumber(TAPE_PAGE_LEN as u64 + 1);
    let symbol = "A".parse().expect("a symbol");
    assert_eq!(error, CollectError::Forgotten { symbol, trade: TradeNumber(1), retained_from });
}

#[test]
fn a_damaged_snapshot_is_refused_or_understood_in_full() {
    let mut source = Exchange::new(SMALL);
    let mut effects = evershard_service::Effects::default();
    for order in Generator::new(Config { resting: 10, ..Config::new(3) }).take(150) {
        effects.clear();
        let occasion = evershard_service::Occasion {
            position: evershard_service::Position(64),
            now: evershard_service::Timestamp(1),
            session: SessionId(5),
            request: evershard_service::RequestNumber(1),
        };
        source.apply(&mut evershard_service::Context::new(occasion, &mut effects), &bytes(&Command::Order(order)));
    }
    let mut saved = Vec::new();
    source.save(&mut saved).expect("a vector takes everything");
    for at in 0..saved.len() {
        let cut = Exchange::new(SMALL).restore(&mut &saved[..at]);
        assert!(matches!(cut, Err(SnapshotError::Truncated)), "cut at {at}: {cut:?}");
        let mut damaged = saved.clone();
        damaged[at] ^= 0x41;
        let mut other = Exchange::new(SMALL);
        if other.restore(&mut &damaged[..]).is_ok() {
            let mut again = Vec::new();
            other.save(&mut again).expect("a vector takes everything");
            assert!(damaged.starts_with(&again), "byte {at}: what was read is written again");
            assert_ne!(other.digest(), source.digest(), "byte {at}: another state, another digest");
        }
    }
}
