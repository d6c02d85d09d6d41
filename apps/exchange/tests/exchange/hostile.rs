//! Bytes nobody should send: decoding refuses, never panics.

use evershard_service::SessionId;
use exchange::local::Local;
use exchange::service::ExchangeLimits;
use exchange::wire::layout::Header;
use exchange::wire::{Command, Event, Reply, SCHEMA};
use exchange_book::Limits;
use proptest::prelude::*;
use zerocopy::IntoBytes;

fn local() -> Local {
    Local::new(ExchangeLimits { book: Limits { orders_max: 100, orders_reserved: 1 }, ..ExchangeLimits::default() })
}

fn message() -> impl Strategy<Value = Vec<u8>> {
    let template = prop_oneof![0_u16..12, 100_u16..109, Just(201_u16), any::<u16>()];
    let block_length = prop_oneof![Just(0_u16), Just(24), Just(32), Just(40), Just(48), Just(56), any::<u16>()];
    let schema = prop_oneof![9 => Just(SCHEMA), 1 => any::<u16>()];
    let byte = prop_oneof![Just(0_u8), Just(b'A'), Just(b'B'), Just(b'S'), Just(1), any::<u8>()];
    let body = proptest::collection::vec(byte, 0..160);
    (template, block_length, schema, any::<u16>(), body, 0_usize..9).prop_map(
        |(template, block_length, schema, version, body, cut)| {
            let header = Header {
                block_length: block_length.into(),
                template: template.into(),
                schema: schema.into(),
                version: version.into(),
            };
            let mut bytes = header.as_bytes().to_vec();
            bytes.truncate(if body.is_empty() { cut } else { 8 });
            bytes.extend(body);
            bytes
        },
    )
}

/// Looks at everything a reply offers.
fn walk(reply: &Reply<'_>) -> usize {
    match reply {
        Reply::Ack(ack) => ack.result.map_or(0, |accepted| accepted.fills.iter().count()),
        Reply::Depth(page) => page.bids.iter().count() + page.asks.iter().count(),
        Reply::Orders(page) => page.orders.iter().count(),
        Reply::Trades(page) => page.trades.iter().count(),
        Reply::Symbols(symbols) => symbols.iter().count(),
        Reply::Unknown { .. } | Reply::Malformed { .. } => 0,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn decoding_never_panics(bytes in message()) {
        let _ = Event::decode(&bytes);
        if let Ok(reply) = Reply::decode(&bytes) {
            walk(&reply);
        }
        let mut again = Vec::new();
        if let Ok(command) = Command::decode(&bytes) {
            command.encode(&mut again);
            prop_assert_eq!(Command::decode(&again), Ok(command), "what was understood is written again as understood");
        }
    }

    #[test]
    fn every_command_is_answered_readably(commands in proptest::collection::vec(message(), 1..4)) {
        let mut exchange = local();
        for bytes in &commands {
            let decoded = Command::decode(bytes);
            let reply = exchange.apply(SessionId(1), bytes).to_vec();
            let reply = Reply::decode(&reply).expect("a reply is readable");
            walk(&reply);
            let refused = matches!(reply, Reply::Unknown { .. } | Reply::Malformed { .. });
            prop_assert_eq!(decoded.is_err(), refused);
        }
    }
}
