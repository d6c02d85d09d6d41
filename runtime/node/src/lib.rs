//! One node of a cluster: its shards with their duty cycles, the background, and the way in and out.
//!
//! * [`config`]: the TOML of a node.
//! * [`node`]: starting and stopping a node; one pinned thread per shard, one background executor.
//! * [`shard`]: the duty cycle, straight-line. [`core`] is the state it drives, with one file per subject:
//!   [`clients`], [`peers`], [`membership`], [`disk`], [`apply`], [`queries`], [`repair`], [`snapshots`],
//!   [`shipping`], [`placement`], [`status`].
//! * [`start`]: what a replica begins a new life from; [`chunk`]: log content read back; [`salvage`]: a new cluster from what a
//!   survivor holds.
//! * [`env`](mod@env): the seam below a shard. [`uring`] is the production side; the simulator has another.
//! * [`snapshot`]: the replicated state as bytes; [`shadow`]: the second instance that takes it, on a background core.
//! * [`replica`], [`sessions`], [`replies`], [`timers`]: the replicated state, changed by records only.
//!
//! A shard's thread runs no lock, no async, and allocates nothing in steady state. What is slow goes over the bounded
//! rings of a [`background::Desk`].
#![forbid(unsafe_code)]

pub mod apply;
pub mod background;
mod background_snapshots;
pub mod chunk;
pub mod clients;
pub mod config;
pub mod core;
pub mod disk;
pub mod env;
pub mod links;
pub mod membership;
pub mod node;
pub mod notice;
pub mod peers;
pub mod placement;
pub mod queries;
pub mod repair;
pub mod replica;
pub mod replies;
pub mod salvage;
mod saved_sessions;
pub mod sessions;
pub mod shadow;
pub mod shard;
pub mod shipping;
pub mod snapshot;
pub mod snapshots;
pub mod start;
pub mod status;
mod storage;
pub mod timers;
pub mod uring;

pub use config::{ConfigError, NodeConfig};
pub use node::{Node, NodeError, Stopper, describe, log_to_stderr, serve_until_signal};
