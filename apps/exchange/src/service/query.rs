//! Questions: they change nothing.

use exchange_book::{Arrival, Price, Side, TradeNumber};

use super::Exchange;
use crate::wire::layout::{
    DepthBlock, LevelEntry, OrderEntry, OrdersBlock, SymbolEntry, SymbolsBlock, TradeEntry, TradesBlock,
};
use crate::wire::{
    DEPTH_LEVELS_MAX, DepthQuery, ORDERS_PAGE_LEN_MAX, OrdersQuery, RejectCode, TRADES_PAGE_LEN_MAX, TradesQuery,
    encode, template,
};

impl Exchange {
    pub(super) fn on_depth(&self, out: &mut Vec<u8>, query: &DepthQuery) {
        let market = self.market(query.symbol).map(|at| &self.markets[at as usize]);
        let block = DepthBlock {
            symbol: query.symbol.to_wire(),
            latest_trade: market.map_or(0, |market| market.book.trades().0).into(),
            reject: reject(market.is_none()),
            reserved: [0; 7],
        };
        encode::message(out, template::DEPTH, &block);
        let levels = usize::try_from(query.levels).unwrap_or(usize::MAX).min(DEPTH_LEVELS_MAX);
        for side in Side::BOTH {
            let depth = market.into_iter().flat_map(|market| market.book.depth(side)).take(levels);
            let entries = depth.map(|level| LevelEntry {
                price: level.price.0.into(),
                qty: level.qty.into(),
                orders: level.orders.into(),
                reserved: [0; 4],
            });
            encode::group(out, entries);
        }
    }

    pub(super) fn on_orders(&self, out: &mut Vec<u8>, query: &OrdersQuery) {
        let market = self.market(query.symbol).map(|at| &self.markets[at as usize]);
        // No order is better than the best price, and none arrived before the first.
        let best = match query.side {
            Side::Buy => Price(u64::MAX),
            Side::Sell => Price(0),
        };
        let (price, arrival) = query.after.unwrap_or((best, Arrival(0)));
        let orders = || market.into_iter().flat_map(|market| market.book.orders_after(query.side, price, arrival));
        let last = orders().take(ORDERS_PAGE_LEN_MAX).last();
        let more = orders().nth(ORDERS_PAGE_LEN_MAX).is_some();
        let block = OrdersBlock {
            symbol: query.symbol.to_wire(),
            price: last.map_or(0, |order| order.price.0).into(),
            arrival: last.map_or(0, |order| order.arrival.0).into(),
            side: encode::side(query.side),
            reject: reject(market.is_none()),
            flags: if more { encode::FLAG_MORE } else { 0 },
            reserved: [0; 5],
        };
        encode::message(out, template::ORDERS, &block);
        let entries = orders().take(ORDERS_PAGE_LEN_MAX).map(|order| OrderEntry {
            order_id: order.id.0.into(),
            price: order.price.0.into(),
            qty: order.qty.0.into(),
        });
        encode::group(out, entries);
    }

    pub(super) fn on_trades(&self, out: &mut Vec<u8>, query: &TradesQuery) {
        let market = self.market(query.symbol);
        let latest = market.map_or(TradeNumber(0), |at| self.markets[at as usize].book.trades());
        let retained = market.and_then(|at| self.tape.retained_from(at));
        let retained_from = retained.unwrap_or(TradeNumber(latest.0 + 1));
        let first = query.from.max(retained_from);
        let block = TradesBlock {
            symbol: query.symbol.to_wire(),
            first: first.0.into(),
            retained_from: retained_from.0.into(),
            latest: latest.0.into(),
            reject: reject(market.is_none()),
            reserved: [0; 7],
        };
        encode::message(out, template::TRADES, &block);
        let trades = market.into_iter().flat_map(|at| self.tape.trades_from(at, first));
        encode::group::<TradeEntry>(out, trades.take(TRADES_PAGE_LEN_MAX));
    }

    pub(super) fn on_symbols(&self, out: &mut Vec<u8>) {
        encode::message(out, template::SYMBOLS, &SymbolsBlock { reserved: [0; 8] });
        let entries = self.names.iter().map(|(symbol, at)| {
            let book = &self.markets[*at as usize].book;
            SymbolEntry {
                symbol: symbol.to_wire(),
                trades: book.trades().0.into(),
                orders: u32::try_from(book.len()).expect("a book's limit is 32 bits wide").into(),
                reserved: [0; 4],
            }
        });
        encode::group(out, entries);
    }
}

fn reject(unknown_symbol: bool) -> u8 {
    if unknown_symbol { RejectCode::UnknownSymbol.to_wire() } else { 0 }
}
