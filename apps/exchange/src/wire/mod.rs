//! What clients and the exchange say to each other.
//!
//! A message is a [`layout::Header`] of eight bytes, a fixed block, and for some templates repeating groups, each a
//! [`layout::GroupHeader`] and its entries. Messages only ever grow: fields are appended to blocks and entries, groups
//! to messages, templates to the list. A reader takes the part of a block it knows and skips the rest by the lengths
//! that the writer gave; what follows the groups it knows it ignores.
//!
//! | template | message | block | groups |
//! |---|---|---|---|
//! | 1 | new order | 48 | |
//! | 2 | immediate-or-cancel order | 48 | |
//! | 3 | modify | 40 | |
//! | 4 | cancel | 24 | |
//! | 5 | depth query | 24 | |
//! | 6 | orders query | 40 | |
//! | 7 | trades query | 24 | |
//! | 8 | symbols query | 0 | |
//! | 101 | ack | 40 | fills of 24 |
//! | 102 | depth | 32 | bids of 32, asks of 32 |
//! | 103 | orders page | 40 | orders of 24 |
//! | 104 | trades page | 48 | trades of 32 |
//! | 105 | symbols | 8 | symbols of 32 |
//! | 106 | unknown | 8 | |
//! | 107 | malformed | 8 | |
//! | 201 | execution (event) | 56 | |
//!
//! [`Command`] is the client's half: build one, [`Command::encode`] it; the answer is a [`Reply`]. The service decodes
//! commands and writes replies through [`encode`].

mod command;
pub mod encode;
pub mod layout;
mod reply;
mod symbol;

use exchange_book::Reject;
use zerocopy::{FromBytes, Immutable, KnownLayout};

pub use command::{Action, Command, DepthQuery, LimitOrder, Order, OrdersQuery, TradesQuery};
pub use reply::{Accepted, Ack, DepthPage, Event, Execution, Group, OrdersPage, Reply, TradesPage};
pub use symbol::{Symbol, SymbolError};

/// Marks the exchange's messages in their headers.
pub const SCHEMA: u16 = 0x4558;
/// The version of the messages this code writes.
pub const VERSION: u16 = 1;
/// Bytes of one message at most; the platform's bound on commands and replies.
pub const MESSAGE_SIZE_MAX: usize = 64 * 1024;
/// Fills in an ack at most; the rest is fetched with [`TradesQuery`].
pub const FILLS_INLINE_MAX: usize = 1000;
/// Levels of each side in a depth reply at most.
pub const DEPTH_LEVELS_MAX: usize = 500;
/// Orders of one page.
pub const ORDERS_PAGE_LEN_MAX: usize = 1000;
/// Trades of one page.
pub const TRADES_PAGE_LEN_MAX: usize = 1000;

const _: () = assert!(
    FILLS_INLINE_MAX * size_of::<layout::FillEntry>() + 256 <= MESSAGE_SIZE_MAX
        && 2 * DEPTH_LEVELS_MAX * size_of::<layout::LevelEntry>() + 256 <= MESSAGE_SIZE_MAX
        && ORDERS_PAGE_LEN_MAX * size_of::<layout::OrderEntry>() + 256 <= MESSAGE_SIZE_MAX
        && TRADES_PAGE_LEN_MAX * size_of::<layout::TradeEntry>() + 256 <= MESSAGE_SIZE_MAX,
    "the largest group of each reply, its headers and its block fit one message"
);

/// Templates by number.
pub mod template {
    #![allow(missing_docs, reason = "the table in the module above lists them")]
    pub const NEW_ORDER: u16 = 1;
    pub const IMMEDIATE_OR_CANCEL: u16 = 2;
    pub const MODIFY: u16 = 3;
    pub const CANCEL: u16 = 4;
    pub const DEPTH_QUERY: u16 = 5;
    pub const ORDERS_QUERY: u16 = 6;
    pub const TRADES_QUERY: u16 = 7;
    pub const SYMBOLS_QUERY: u16 = 8;
    pub const ACK: u16 = 101;
    pub const DEPTH: u16 = 102;
    pub const ORDERS: u16 = 103;
    pub const TRADES: u16 = 104;
    pub const SYMBOLS: u16 = 105;
    pub const UNKNOWN: u16 = 106;
    pub const MALFORMED: u16 = 107;
    pub const EXECUTION: u16 = 201;
}

/// Why the exchange refused a well-formed command. Nothing has changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RejectCode {
    /// The book refused (1 to 5).
    #[error("{0}")]
    Book(Reject),
    /// There has been no order of this symbol (32).
    #[error("there has been no order of this symbol")]
    UnknownSymbol,
    /// The shard has as many symbols as it may (33).
    #[error("the shard has as many symbols as it may")]
    SymbolsFull,
    /// The shard has as many resting orders as it may, all symbols together (34).
    #[error("the shard has as many resting orders as it may")]
    ShardFull,
    /// A code of a newer version.
    #[error("reject code {0}, of a newer version")]
    Other(u8),
}

impl RejectCode {
    /// As on the wire; never 0.
    #[must_use]
    pub fn to_wire(self) -> u8 {
        match self {
            Self::Book(reject) => reject as u8,
            Self::UnknownSymbol => 32,
            Self::SymbolsFull => 33,
            Self::ShardFull => 34,
            Self::Other(code) => code,
        }
    }

    /// From the wire; none for 0.
    #[must_use]
    pub fn from_wire(code: u8) -> Option<Self> {
        Some(match code {
            0 => return None,
            1 => Self::Book(Reject::ZeroQty),
            2 => Self::Book(Reject::ZeroPrice),
            3 => Self::Book(Reject::DuplicateId),
            4 => Self::Book(Reject::UnknownId),
            5 => Self::Book(Reject::BookFull),
            32 => Self::UnknownSymbol,
            33 => Self::SymbolsFull,
            34 => Self::ShardFull,
            other => Self::Other(other),
        })
    }
}

/// What is wrong with a message; its sender is at fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[repr(u8)]
pub enum Malformed {
    /// It ends before what its header announces, or a block is shorter than in version 1.
    #[error("it is too short")]
    TooShort = 1,
    /// The symbol is not one.
    #[error("{SymbolError}")]
    Symbol = 2,
    /// The side is neither `B` nor `S`.
    #[error("the side is neither B nor S")]
    Side = 3,
}

/// Why bytes are not a message that this code knows.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum DecodeError {
    /// Of another schema, or a template that is not known here: its sender may be newer.
    #[error("unknown message: template {template}, schema {schema:#06x}, version {version}")]
    Unknown {
        /// From the header.
        template: u16,
        /// From the header.
        schema: u16,
        /// From the header.
        version: u16,
    },
    /// A known message with impossible content.
    #[error("malformed message of template {template}: {reason}")]
    Malformed {
        /// From the header; 0 if there is none.
        template: u16,
        /// What is wrong.
        reason: Malformed,
    },
}

/// Reads a message front to back.
pub(crate) struct Reader<'a> {
    pub(crate) template: u16,
    block: &'a [u8],
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let malformed = |template| DecodeError::Malformed { template, reason: Malformed::TooShort };
        let (header, rest) = layout::Header::ref_from_prefix(bytes).map_err(|_| malformed(0))?;
        let (template, schema) = (header.template.get(), header.schema.get());
        if schema != SCHEMA {
            return Err(DecodeError::Unknown { template, schema, version: header.version.get() });
        }
        let (block, rest) = rest.split_at_checked(usize::from(header.block_length.get())).ok_or(malformed(template))?;
        Ok(Self { template, block, rest })
    }

    /// The part of the block that this version knows.
    pub(crate) fn block<T: FromBytes + KnownLayout + Immutable + zerocopy::Unaligned>(
        &self,
    ) -> Result<&'a T, DecodeError> {
        T::ref_from_prefix(self.block).map(|(block, _)| block).map_err(|_| self.malformed(Malformed::TooShort))
    }

    /// The next repeating group.
    pub(crate) fn group<T>(&mut self) -> Result<Group<'a, T>, DecodeError> {
        let short = self.malformed(Malformed::TooShort);
        let (header, rest) = layout::GroupHeader::ref_from_prefix(self.rest).map_err(|_| short)?;
        let (stride, len) = (usize::from(header.block_length.get()), usize::from(header.len.get()));
        if stride < size_of::<T>() {
            return Err(short);
        }
        let (entries, rest) = rest.split_at_checked(stride * len).ok_or(short)?;
        self.rest = rest;
        Ok(Group::new(entries, stride))
    }

    pub(crate) fn symbol(&self, bytes: [u8; layout::SYMBOL_SIZE]) -> Result<Symbol, DecodeError> {
        Symbol::from_wire(bytes).map_err(|_| self.malformed(Malformed::Symbol))
    }

    pub(crate) fn side(&self, byte: u8) -> Result<exchange_book::Side, DecodeError> {
        match byte {
            b'B' => Ok(exchange_book::Side::Buy),
            b'S' => Ok(exchange_book::Side::Sell),
            _ => Err(self.malformed(Malformed::Side)),
        }
    }

    fn malformed(&self, reason: Malformed) -> DecodeError {
        DecodeError::Malformed { template: self.template, reason }
    }

    /// For a template that the caller does not know.
    pub(crate) fn unknown(&self, bytes: &[u8]) -> DecodeError {
        let version = layout::Header::ref_from_prefix(bytes).map_or(0, |(header, _)| header.version.get());
        DecodeError::Unknown { template: self.template, schema: SCHEMA, version }
    }
}
