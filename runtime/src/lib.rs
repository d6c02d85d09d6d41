//! Low-latency replicated services on thread-per-core io_uring.
//!
//! Write a deterministic [`Service`], run it on one node or many with [`Node`], talk to it with [`Client`]. For
//! development and tests [`Cluster::embedded`] runs a node in this process:
//!
//! ```no_run
//! use evershard::{Cluster, Context, Digest, Service, SnapshotError, SnapshotReader, SnapshotWriter};
//!
//! #[derive(Default)]
//! struct Counter(u64);
//!
//! impl Service for Counter {
//!     fn apply(&mut self, context: &mut Context<'_>, command: &[u8]) {
//!         self.0 += command.len() as u64;
//!         context.reply(&self.0.to_le_bytes()).expect("eight bytes fit a reply");
//!     }
//!     fn digest(&self) -> Digest {
//!         Digest::of(&self.0.to_le_bytes())
//!     }
//!     fn save(&self, out: &mut dyn SnapshotWriter) -> Result<(), SnapshotError> {
//!         out.write(&self.0.to_le_bytes())
//!     }
//!     fn restore(&mut self, source: &mut dyn SnapshotReader) -> Result<(), SnapshotError> {
//!         let mut bytes = [0; 8];
//!         source.read_exact(&mut bytes)?;
//!         self.0 = u64::from_le_bytes(bytes);
//!         Ok(())
//!     }
//! }
//!
//! let cluster = Cluster::embedded(1, |_| Counter::default())?;
//! let mut client = cluster.client(0)?;
//! assert_eq!(client.call(b"abc")?.payload, 3_u64.to_le_bytes());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Features: `node`, `client`, and `cli` for the operator's binary `evershard`; all on by default.
#![forbid(unsafe_code)]

#[cfg(all(feature = "node", feature = "client"))]
mod cluster;
mod loopback;

#[cfg(all(feature = "node", feature = "client"))]
pub use cluster::{Cluster, ClusterError};
pub use evershard_protocol as protocol;
pub use evershard_service::{
    Context, ContextError, Digest, Digester, Position, RequestNumber, Service, ServiceVersion, SessionId, ShardId,
    SnapshotError, SnapshotReader, SnapshotWriter, TimerId, Timestamp, harness,
};
pub use loopback::free_addresses;

/// Running nodes.
#[cfg(feature = "node")]
pub mod node {
    pub use evershard_node::config::{DurabilityConfig, IdleConfig, NodeAddress, NodeConfig};
    pub use evershard_node::salvage;
    pub use evershard_node::{ConfigError, Node, NodeError, Stopper, describe, log_to_stderr, serve_until_signal};
}
/// Talking to a cluster.
#[cfg(feature = "client")]
pub mod client {
    pub use evershard_client::*;
}
#[cfg(feature = "client")]
pub mod operator;
#[cfg(feature = "client")]
pub use client::{Client, ClientConfig};
#[cfg(feature = "node")]
pub use node::{Node, NodeConfig};
