//! The client of one shard's service.
//!
//! A [`Client`] connects to any node of the cluster, is led to the shard's leader, and keeps as many requests in flight
//! as the window allows. When the leader changes or the whole cluster is down for a while it reconnects by itself,
//! resumes its session and sends again what was not answered. The cluster remembers replies: a request that was
//! applied is answered from memory, so each is applied once and answered once, in the order of the request numbers.
//!
//! * [`core`]: the [`Session`](core::Session), a state machine without sockets, clock or threads. Build other faces
//!   and simulations on it.
//! * [`Client`]: the blocking face on a TCP connection.
//! * [`admin`]: an operator's one-shot requests.
//!
//! # The caller's duties
//!
//! 1. Poll. Everything happens inside [`Client::poll`] and [`Client::call`]: sending, receiving, reconnecting, proving to
//!    the server that the client lives. A client that is not polled for long loses its connection, then its session.
//! 2. Look at a reply's [`status`](Reply::status): `ReplyForgotten` means applied, but the reply is gone.
//! 3. After a [`ClientError::RequestTimeout`] do not repeat the command as a new request: the first is still queued and
//!    will be sent again until it is answered.
//! 4. After [`SessionError::SessionLost`] find out by query what was applied. The client never executes again silently.
//! 5. [`Client::close`] what you opened: a session that is merely dropped counts against the shard's limit until it
//!    expires.
//!
//! # One at a time, for latency
//!
//! ```no_run
//! use evershard_client::{Client, ClientConfig};
//! use evershard_protocol::ShardId;
//!
//! # fn main() -> Result<(), evershard_client::ClientError> {
//! let endpoints = ["10.0.0.1:7100", "10.0.0.2:7100", "10.0.0.3:7100"];
//! let mut client = Client::connect(&ClientConfig::new(endpoints, ShardId(0)))?;
//! let reply = client.call(b"hello")?;
//! println!("{:?} at {}: {} bytes", reply.status, reply.position, reply.payload.len());
//! client.close()
//! # }
//! ```
//!
//! # Many in flight, for throughput
//!
//! ```no_run
//! # use evershard_client::{Client, ClientConfig, ClientEvent, SendError};
//! # fn run(client: &mut Client, mut commands: impl Iterator<Item = Vec<u8>>) -> Result<(), evershard_client::ClientError> {
//! let mut next = commands.next();
//! while next.is_some() || client.unanswered() > 0 {
//!     while let Some(command) = &next {
//!         match client.try_send(command) {
//!             Ok(_) => next = commands.next(),
//!             Err(SendError::WindowFull | SendError::QueueFull) => break,
//!             Err(error) => return Err(error.into()),
//!         }
//!     }
//!     client.poll(None, &mut |event| match event {
//!         ClientEvent::Reply { request, payload, .. } => println!("{request:?}: {} bytes", payload.len()),
//!         ClientEvent::Event { payload, .. } => println!("told {} bytes", payload.len()),
//!         ClientEvent::Answer { payload, .. } => println!("answered {} bytes", payload.len()),
//!         ClientEvent::Reconnected { leader, .. } => println!("now led by {leader:?}"),
//!     })?;
//! }
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]

pub mod admin;
mod blocking;
mod config;
pub mod core;
mod error;

pub use blocking::{Answer, Client, Reply};
pub use config::ClientConfig;
pub use core::ClientEvent;
pub use error::{ClientError, SendError, SessionError, Trouble};
