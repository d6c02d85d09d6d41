//! Replication of one shard's log: Raft on byte positions, without IO.
//!
//! [`Raft`] is one replica's share of the agreement: who leads, what the log is, and how much of it is committed. It
//! is a function of (state, input, now) to output: no clock, no IO, no thread, no random source, and no allocation after
//! construction. It never sees a record. A log is a stream of bytes; a **position** is the offset at which a record
//! ends; and since each term has one leader and one leader writes one stream, a [`TermTable`] of (term, first byte) is
//! all that is needed to compare two logs.
//!
//! # What it decides
//!
//! * **Elections** with pre-vote, loyalty to a leader that is alive, a check for a quorum, and timers drawn from the
//!   caller's seed. A closed link to the leader is taken as a hint to ask soon.
//! * **Replication**: appends in flight per peer bounded in bytes, one probe at a time while the logs' agreement is
//!   unknown, back-off by whole term runs.
//! * **Commit** by rank of durable or of received positions ([`Durability`]), own term only.
//! * **Recovery**: a replica that may have lost acknowledged records ([`Standing::Recovering`]) counts only where
//!   everybody's word is in, until it holds what its leader has confirmed with a quorum of others since its return.
//! * **Membership**: voters change through joint configurations only, learners come and go freely
//!   ([`Raft::plan_membership`]). A configuration is in force where its record is appended.
//! * **Reads** without a record, confirmed by a quorum or by a lease ([`Raft::begin_read`]).
//! * **Snapshots**: which peer needs one, and what follows from one that came ([`SnapshotMark`]).
//! * **Transfer** of leadership to a replica that has everything.
//! * **Stalls**: when two ticks are far apart, the loop was not run; the replica listens before it concludes anything.
//!
//! # The caller's duties
//!
//! 1. Keep the log. Append and cut it exactly as [`Taken`] says, before the next call; report with
//!    [`Raft::on_appended`] what was appended and with [`Raft::on_durable`] what became durable. A durable position is
//!    the end of a record and speaks of the bytes that the log holds *now*: the late completion of a write that was cut
//!    away since is not reported.
//! 2. Save [`Raft::hard_state_to_save`] whenever there is one, one save at a time, and report it with
//!    [`Raft::on_hard_state_saved`]. Votes and acknowledgements that depend on it wait for that inside the core.
//! 3. When [`Raft::wants_term_start`], append a `TermStart` record of [`Raft::term`] at [`Raft::last`] before anything
//!    else. Sequence commands only while [`Raft::admits`].
//! 4. Report links with [`Raft::on_link_up`] and [`Raft::on_link_down`]. A link keeps order and loses nothing but its
//!    end; once it is reported down (or its successor up), nothing that came over it is handed in any more.
//! 5. Drain [`Output::messages`] and ask [`Raft::plan_append`] and [`Raft::take_reply`] every duty cycle. A message for
//!    a peer without a link is dropped.
//! 6. Call [`Raft::tick`] every duty cycle, and at [`Raft::next_deadline`] at the latest, with instants of one
//!    monotonic clock.
//! 7. Look at every record that is appended. One that changes the configuration is reported with
//!    [`Raft::on_membership`] *before* the [`Raft::on_appended`] that covers it, on every replica, and given back with
//!    [`Restored::memberships`] after a restart. A leader appends what [`Raft::wants_membership`] wants, and a change an
//!    operator asks for only as [`Raft::plan_membership`] allows it.
//! 8. Begin a read, where there are leases ([`Raft::promises`]), with an instant that was read from the clock after the
//!    request came in; answer it when
//!    [`Raft::is_confirmed`] says so and [`Read::position`] is applied, refuse it when [`Raft::is_pending`] does not.
//!    The clock must go on while the machine is suspended.
//! 9. Make a snapshot durable before [`Raft::install_snapshot`], and begin the log anew when it says so. Report what
//!    was dropped from the log's front with [`Raft::on_trimmed`].
//! 10. Say with [`Raft::set_whole`] when a part of the log cannot be read, and when it can again.
//! 11. After an unclean stop in [`Durability::Replicated`], or when something that was on the disk does not verify,
//!     restore with [`Standing::Recovering`]. In [`Durability::Durable`] a restored log holds all that was ever reported
//!     durable.
//! 12. When a link is made, hand in with [`Raft::on_floor`] what the peer remembers of this replica's earlier lives
//!     ([`Raft::floor_of`] on the other side).
//!
//! # The loop
//!
//! ```
//! use evershard_consensus::{Config, Durability, HardState, Output, Raft, Restored, TermTable, Timing};
//! use evershard_protocol::limits::APPEND_SIZE_MAX;
//! use evershard_protocol::{Instant, NodeId, Position};
//!
//! let config = Config {
//!     id: NodeId(0),
//!     members: vec![NodeId(0)],
//!     durability: Durability::Durable,
//!     timing: Timing::default(),
//!     seed: 1,
//!     inflight_size_max: 1 << 20,
//! };
//! let restored =
//!     Restored { hard: HardState::NEW, terms: TermTable::new(), memberships: vec![], durable: Position(0), commit: Position(0) };
//! let mut raft = Raft::new(config, restored, Instant(0));
//! let mut out = Output::new();
//!
//! for cycle in 1..10 {
//!     let now = Instant(cycle * 1_000_000);
//!     // Input: messages (`on_message`, `on_append` and its data), completions, links.
//!     raft.tick(now, &mut out);
//!     if let Some(hard) = raft.hard_state_to_save() {
//!         // Here the save takes no time; a real one is in flight for some cycles.
//!         raft.on_hard_state_saved(hard, &mut out);
//!     }
//!     if raft.wants_term_start() {
//!         // The record goes into the log; here it has 64 bytes.
//!         raft.on_appended(raft.term(), raft.last().advance(64));
//!     }
//!     if let Some(next) = raft.wants_membership() {
//!         // A record that says so goes into the log; here it has 88 bytes.
//!         let end = raft.last().advance(88);
//!         raft.on_membership(end, next);
//!         raft.on_appended(raft.term(), end);
//!     }
//!     if let Some(read) = raft.begin_read(now) {
//!         // Answered when it is confirmed and `read.position` is applied; here nobody has to be asked.
//!         assert!(raft.is_confirmed(&read));
//!     }
//!     if raft.admits() {
//!         // Commands become records: `on_appended` once for all that the cycle gathered.
//!     }
//!     raft.on_durable(raft.last());
//!     for peer in raft.members().iter() {
//!         while let Some(append) = raft.plan_append(peer, now, APPEND_SIZE_MAX as u64) {
//!             // Cut at the end of a record, send with its data.
//!             raft.on_append_sent(peer, &append, now);
//!         }
//!     }
//!     if let Some((_leader, _reply)) = raft.take_reply(now) {
//!         // Send.
//!     }
//!     for (_peer, _message) in out.messages.drain(..) {
//!         // Send.
//!     }
//!     // Apply up to `raft.commit()`.
//! }
//! assert_eq!(raft.commit(), Position(64));
//! ```
//!
//! # What a peer may send
//!
//! Anything. A message that no correct peer would send is ignored or refused; assertions are kept for mistakes of this
//! crate and of its caller.
#![forbid(unsafe_code)]

mod config;
mod election;
mod follower;
mod membership;
mod output;
mod progress;
pub mod quorum;
mod raft;
mod random;
mod read;
mod replication;
mod rounds;
mod snapshot;
mod term_table;
mod transfer;
mod view;

pub use config::{Config, Durability, HardState, Restored, Role, Standing, Timing};
pub use membership::{ChangeError, PROMOTE_LAG_MAX};
pub use output::{Output, Taken, TransferError};
pub use progress::COMMIT_CARRIER_NS;
pub use raft::Raft;
pub use read::{DRIFT_DIVISOR, Read};
pub use snapshot::{Installed, SnapshotMark};
pub use term_table::TermTable;
pub use view::PeerView;
