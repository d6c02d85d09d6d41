//! The vocabulary of Evershard and the frames its processes exchange.
//!
//! Ground floor: everything above speaks in these words, nothing here knows of files, sockets, threads or clocks.
//!
//! * [`ids`]: newtypes for every domain integer; only the arithmetic that makes sense.
//! * [`time`]: monotonic [`Instant`] for timers, wall-clock [`Timestamp`] for record time.
//! * [`limits`]: the bound of every queue, buffer and table, with the reaction when it is full.
//! * [`membership`]: who belongs to a shard, and the record that changes it.
//! * [`note`]: what an operator's remark in the log says: the audit record of a recovery.
//! * [`record`]: one entry of a shard's log; the same bytes on the wire, on disk and in replay.
//! * [`frame`]: the envelope of everything sent over a connection.
//! * [`bugs`]: known bugs that the simulator switches on; compiled away elsewhere.
//! * [`client`] and [`peer`]: the frames between client and node, and between replicas of a shard.
//!
//! All integers on the wire and on disk are little-endian with explicit widths; padding is zero.
//! Formats evolve by appending fields: a reader acts on the block length it knows and skips the rest
//! (see [`frame`]).
#![forbid(unsafe_code)]

pub mod bugs;
pub mod checksum;
pub mod client;
pub mod frame;
pub mod ids;
pub mod layout;
pub mod limits;
pub mod membership;
pub mod note;
pub mod peer;
pub mod record;
pub mod status;
pub mod time;

pub use ids::{
    ClusterId, Incarnation, NodeId, Position, QueryNumber, RequestNumber, ServiceVersion, SessionId, ShardId, Term,
    TimerId,
};
pub use membership::{Membership, MembershipChange, MembershipError, NodeSet};
pub use note::RecoveryNote;
pub use time::{Instant, Timestamp};
