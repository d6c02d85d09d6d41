//! The bytes of every message: fixed blocks and the entries of repeating groups.
//!
//! Little-endian, no alignment, reserved bytes zero. To extend a block or an entry, append fields and raise
//! [`VERSION`](super::VERSION); never move or reuse one.

use zerocopy::little_endian::{U16, U32, U64, U128};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Bytes of a symbol: ASCII, zero padded.
pub const SYMBOL_SIZE: usize = 16;

macro_rules! layout {
    ($($(#[$doc:meta])* $name:ident, $size:literal { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* })*) => { $(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
        #[repr(C)]
        pub struct $name {
            $($(#[$field_doc])* pub $field: $type,)*
        }
        const _: () = assert!(size_of::<$name>() == $size, "the size of a released layout is fixed");
    )* };
}

layout! {
    /// Opens every message.
    Header, 8 {
        /// Bytes of the fixed block that follows.
        block_length: U16,
        /// Which message.
        template: U16,
        /// Whose messages: [`SCHEMA`](super::SCHEMA).
        schema: U16,
        /// By which version of the schema it was written.
        version: U16,
    }
    /// Opens every repeating group.
    GroupHeader, 4 {
        /// Bytes of one entry.
        block_length: U16,
        /// Number of entries.
        len: U16,
    }

    /// New order, immediate-or-cancel order.
    OrderBlock, 48 {
        /// Symbol.
        symbol: [u8; SYMBOL_SIZE],
        /// Order id.
        order_id: U64,
        /// Limit in ticks.
        price: U64,
        /// Quantity in lots.
        qty: U64,
        /// `B` or `S`.
        side: u8,
        /// Zero.
        reserved: [u8; 7],
    }
    /// Modify.
    ModifyBlock, 40 {
        /// Symbol.
        symbol: [u8; SYMBOL_SIZE],
        /// Order id.
        order_id: U64,
        /// New limit in ticks.
        price: U64,
        /// New open quantity in lots.
        qty: U64,
    }
    /// Cancel.
    CancelBlock, 24 {
        /// Symbol.
        symbol: [u8; SYMBOL_SIZE],
        /// Order id.
        order_id: U64,
    }
    /// Depth query.
    DepthQueryBlock, 24 {
        /// Symbol.
        symbol: [u8; SYMBOL_SIZE],
        /// Levels of each side at most.
        levels: U32,
        /// Zero.
        reserved: [u8; 4],
    }
    /// Orders query.
    OrdersQueryBlock, 40 {
        /// Symbol.
        symbol: [u8; SYMBOL_SIZE],
        /// Price of the last order seen; 0 for the first page.
        price: U64,
        /// Arrival of the last order seen.
        arrival: U64,
        /// `B` or `S`.
        side: u8,
        /// Zero.
        reserved: [u8; 7],
    }
    /// Trades query.
    TradesQueryBlock, 24 {
        /// Symbol.
        symbol: [u8; SYMBOL_SIZE],
        /// Number of the first trade wanted.
        from: U64,
    }

    /// Answer to an order, a modification or a cancellation. One group: [`FillEntry`].
    AckBlock, 40 {
        /// Order id of the command.
        order_id: U64,
        /// Lots traded at once.
        filled: U64,
        /// Lots that rest, or were dropped (immediate-or-cancel, cancel).
        remaining: U64,
        /// Number of the first trade; 0 if there is none.
        first_trade: U64,
        /// Number of trades; they are numbered consecutively.
        trades: U32,
        /// 0 accepted, otherwise a [`RejectCode`](super::RejectCode).
        reject: u8,
        /// Bit 0: the group holds the first trades only, the rest is on the tape.
        flags: u8,
        /// Zero.
        reserved: [u8; 2],
    }
    /// One trade of the order that is acknowledged.
    FillEntry, 24 {
        /// Price in ticks.
        price: U64,
        /// Quantity in lots.
        qty: U64,
        /// The order that was resting.
        maker: U64,
    }
    /// Level-2 view. Two groups of [`LevelEntry`]: bids, asks; best first.
    DepthBlock, 32 {
        /// Symbol.
        symbol: [u8; SYMBOL_SIZE],
        /// Number of the latest trade.
        latest_trade: U64,
        /// 0, or a [`RejectCode`](super::RejectCode).
        reject: u8,
        /// Zero.
        reserved: [u8; 7],
    }
    /// One price level.
    LevelEntry, 32 {
        /// Price in ticks.
        price: U64,
        /// Sum of open lots.
        qty: U128,
        /// Number of orders.
        orders: U32,
        /// Zero.
        reserved: [u8; 4],
    }
    /// A page of resting orders. One group: [`OrderEntry`].
    OrdersBlock, 40 {
        /// Symbol.
        symbol: [u8; SYMBOL_SIZE],
        /// Price of the last order of the page, to ask for the next.
        price: U64,
        /// Arrival of the last order of the page.
        arrival: U64,
        /// `B` or `S`.
        side: u8,
        /// 0, or a [`RejectCode`](super::RejectCode).
        reject: u8,
        /// Bit 0: there are more.
        flags: u8,
        /// Zero.
        reserved: [u8; 5],
    }
    /// One resting order.
    OrderEntry, 24 {
        /// Order id.
        order_id: U64,
        /// Price in ticks.
        price: U64,
        /// Open lots.
        qty: U64,
    }
    /// A page of the trade tape. One group: [`TradeEntry`].
    TradesBlock, 48 {
        /// Symbol.
        symbol: [u8; SYMBOL_SIZE],
        /// Number of the first trade in the group; they are numbered consecutively.
        first: U64,
        /// Number of the oldest trade that is still on the tape; latest + 1 if none is.
        retained_from: U64,
        /// Number of the latest trade.
        latest: U64,
        /// 0, or a [`RejectCode`](super::RejectCode).
        reject: u8,
        /// Zero.
        reserved: [u8; 7],
    }
    /// One trade.
    TradeEntry, 32 {
        /// Price in ticks.
        price: U64,
        /// Quantity in lots.
        qty: U64,
        /// The order that was resting.
        maker: U64,
        /// The order that came in.
        taker: U64,
    }
    /// All symbols. One group: [`SymbolEntry`].
    SymbolsBlock, 8 {
        /// Zero.
        reserved: [u8; 8],
    }
    /// One symbol.
    SymbolEntry, 32 {
        /// Symbol.
        symbol: [u8; SYMBOL_SIZE],
        /// Number of trades.
        trades: U64,
        /// Number of resting orders.
        orders: U32,
        /// Zero.
        reserved: [u8; 4],
    }
    /// Answer to a command of a template or schema that the service does not know.
    UnknownBlock, 8 {
        /// From the command's header.
        template: U16,
        /// From the command's header.
        schema: U16,
        /// From the command's header.
        version: U16,
        /// Zero.
        reserved: [u8; 2],
    }
    /// Answer to a command that cannot be read.
    MalformedBlock, 8 {
        /// From the command's header; 0 if there is none.
        template: U16,
        /// A [`Malformed`](super::Malformed).
        reason: u8,
        /// Zero.
        reserved: [u8; 5],
    }
    /// Event to the session whose resting order traded with another session's.
    ExecutionBlock, 56 {
        /// Symbol.
        symbol: [u8; SYMBOL_SIZE],
        /// The order that was resting.
        order_id: U64,
        /// Number of the trade.
        trade: U64,
        /// Price in ticks.
        price: U64,
        /// Quantity in lots.
        qty: U64,
        /// What is left of the order; 0 means it is gone.
        open: U64,
    }
}
