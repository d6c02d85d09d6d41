//! What the author of a service sees.
//!
//! A service is a deterministic state machine: [`Service::apply`] takes one command and changes the state; replies,
//! events and timers go through the [`Context`]. Every replica of a shard runs its own instance on the same records
//! in the same order and must reach the same state.
//!
//! # The determinism contract
//!
//! 1. The only inputs are the calls of the trait and their arguments. No clock (use [`Context::now`]), no files, no
//!    network, no environment, no thread, no process-wide state.
//! 2. No random source, except one seeded from a command or from the position.
//! 3. No iteration over a `HashMap` or `HashSet` with the standard hasher; use `BTreeMap`, `Vec`, or sort.
//! 4. No floating point in state or replies: integers, scaled.
//! 5. No addresses or capacities in state, replies or digests (`{:p}`, `Vec::capacity`).
//! 6. Never a panic on account of a command's content: answer with an error reply. A panic halts the shard at that
//!    record on *every* replica until a corrected version is deployed.
//! 7. An unknown command gets a deterministic "unknown" reply: clients are newer than servers now and then.
//! 8. [`Service::digest`] covers everything that can influence a later reply, and nothing else.
//! 9. [`Service::save`] followed by [`Service::restore`] into a fresh instance gives the same digest and the same
//!    future.
//! 10. Bounded state: every table has a limit and an error reply for "full".
//!
//! [`harness::Harness`] runs a service on a list of commands twice, once with a save and restore in the middle, and
//! compares replies and digests: rules 2 to 5, 8 and 9 broken show up in a unit test.
//!
//! ```
//! use evershard_service::{Context, Digest, Service, SnapshotError, SnapshotReader, SnapshotWriter};
//!
//! #[derive(Default)]
//! struct Counter { total: u64 }
//!
//! impl Service for Counter {
//!     fn apply(&mut self, context: &mut Context<'_>, command: &[u8]) {
//!         self.total += command.len() as u64;
//!         context.reply(&self.total.to_le_bytes()).expect("eight bytes fit a reply");
//!     }
//!     fn digest(&self) -> Digest {
//!         Digest::of(&self.total.to_le_bytes())
//!     }
//!     fn save(&self, out: &mut dyn SnapshotWriter) -> Result<(), SnapshotError> {
//!         out.write(&self.total.to_le_bytes())
//!     }
//!     fn restore(&mut self, source: &mut dyn SnapshotReader) -> Result<(), SnapshotError> {
//!         let mut bytes = [0; 8];
//!         source.read_exact(&mut bytes)?;
//!         self.total = u64::from_le_bytes(bytes);
//!         Ok(())
//!     }
//! }
//!
//! let report = evershard_service::harness::Harness::new(Counter::default)
//!     .command(1, b"abc")
//!     .command(1, b"de")
//!     .run();
//! assert_eq!(report.replies[1], 5_u64.to_le_bytes());
//! ```
#![forbid(unsafe_code)]

mod context;
mod digest;
pub mod harness;
mod snapshot;

pub use context::{Context, ContextError, Effects, EventEntry, Occasion, TimerChange};
pub use digest::{Digest, Digester};
pub use evershard_protocol::{Position, RequestNumber, ServiceVersion, SessionId, ShardId, TimerId, Timestamp};
pub use snapshot::{SnapshotError, SnapshotReader, SnapshotWriter};

/// A deterministic state machine. See the [crate docs](crate) for the contract.
pub trait Service: 'static {
    /// The service's name: part of what makes a data directory this service's.
    fn name(&self) -> &'static str {
        "service"
    }

    /// The version of its behaviour.
    fn version(&self) -> ServiceVersion {
        ServiceVersion(1)
    }

    /// Applies one command. What [`Context::reply`] was given is the reply; without a call the reply is empty.
    fn apply(&mut self, context: &mut Context<'_>, command: &[u8]);

    /// Answers a question without changing anything: it leaves no record and is asked on the leader only, of a state that
    /// has everything that was committed before the question came in. `answer` is empty and takes at most
    /// [`evershard_protocol::limits::REPLY_SIZE_MAX`] bytes. `false`: not a question this service answers in this
    /// way; the client sends it as a command.
    fn query(&self, question: &[u8], answer: &mut Vec<u8>) -> bool {
        let _ = (question, answer);
        false
    }

    /// A session was opened; [`Context::session`] names it.
    fn on_session_open(&mut self, context: &mut Context<'_>) {
        let _ = context;
    }

    /// A session was closed by its client or has expired; [`Context::session`] names it.
    fn on_session_close(&mut self, context: &mut Context<'_>) {
        let _ = context;
    }

    /// A timer set with [`Context::set_timer`] is due. It is no longer set.
    fn on_timer(&mut self, context: &mut Context<'_>, timer: TimerId) {
        let _ = (context, timer);
    }

    /// A digest of the whole state: equal on all replicas at the same position.
    fn digest(&self) -> Digest;

    /// Writes the whole state.
    ///
    /// # Errors
    /// Only those of the writer.
    fn save(&self, out: &mut dyn SnapshotWriter) -> Result<(), SnapshotError>;

    /// Reads the whole state into a fresh instance.
    ///
    /// # Errors
    /// Those of the reader, and [`SnapshotError::Format`] for what this version cannot read.
    fn restore(&mut self, source: &mut dyn SnapshotReader) -> Result<(), SnapshotError>;
}
