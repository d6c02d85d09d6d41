//! A replicated exchange: limit order books as a deterministic service, and what a client of it needs.
//!
//! * [`service`]: [`Exchange`], the state machine. Each shard runs one; a symbol belongs to one shard ([`shard_of`]).
//! * [`wire`]: commands, replies and events.
//! * [`orders`]: reads files of order flow, the neutral format and LOBSTER messages.
//! * [`generator`]: makes up order flow from a seed.
//! * [`collect`]: rebuilds `trades.csv` and `book.csv` from replies, byte for byte what the rules demand.
//! * [`demo`]: three nodes, real orders, a leader killed on the way, and the proof that nothing was lost.
//! * [`local`]: an exchange in this process, without a cluster: the yardstick for a run on one.
//!
//! # A client's loop
//!
//! ```
//! use exchange::collect::Collector;
//! use exchange::local::Local;
//! use exchange::orders::OrderFile;
//! use exchange::wire::{Command, Reply};
//!
//! let sample = concat!(env!("CARGO_MANIFEST_DIR"), "/samples/orders-sample.csv");
//! let (mut exchange, mut collector) = (Local::default(), Collector::new(1));
//! for line in OrderFile::open(sample)? {
//!     let (_line, order) = line?;
//!     // In a cluster: encode, send to `shard_of(order.symbol, shards)`, receive.
//!     if let Reply::Ack(ack) = exchange.call(&Command::Order(order))? {
//!         collector.on_ack(&order, &ack)?;
//!     }
//! }
//! while let Some((shard, command)) = collector.wanted() {
//!     collector.on_reply(shard, &exchange.call(&command)?)?;
//! }
//! let mut trades = Vec::new();
//! collector.write_trades(&mut trades)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

pub mod collect;
pub mod demo;
pub mod generator;
pub mod local;
pub mod orders;
pub mod service;
mod shard;
pub mod wire;

pub use service::Exchange;
pub use shard::shard_of;
