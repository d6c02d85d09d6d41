//! One shard's durable log. It decides; the caller's disk does.
//!
//! The **log** is one stream of records ([`evershard_protocol::record`]), the same bytes on every replica. A replica
//! writes the stream in **blocks**: one write is one block of whole 4096-byte units with a header of its own, and an
//! acknowledged block is never written again. Blocks follow each other in **segments**, preallocated files. Where one
//! replica cuts its blocks is its own business; positions are the stream's.
//!
//! * [`tail`]: the end of the stream in memory, where records are encoded once.
//! * [`writer`]: which bytes go where next, and what is durable when.
//! * [`block`], [`segment`], [`start`]: the formats on disk.
//! * [`table`], [`reader`]: from a position back to the stream, for catch-up and replay.
//! * [`recovery`], [`recovery_table`]: finding the log again; what is torn, what is faulty.
//! * [`hole`]: a block that is faulty and known, repaired in its place from a peer.
//! * [`slots`]: term and vote.
//!
//! No IO, no clock, no thread. Nothing allocates on the way of append, plan and completion; taking a new segment
//! does, and so may a burst of more than 64 truncations within one segment.
//!
//! # The caller's duties
//!
//! 1. Prepare segments as [`segment`] says: zeros over the whole file first, made durable, then the header, made
//!    durable. A recycled file is zeroed first of all at its header. Never give a number twice.
//! 2. After [`recover`], make the segment files durable (`fdatasync`) before [`Writer::new`]: what recovery read may
//!    stand only in a cache, and counts as durable from then on.
//! 3. On [`Verdict::Faulty`], set [`SlotContent::recovering`] durably before the first write, and clear it when a
//!    leader has brought the replica up to a position that a quorum confirmed since. The log says `Faulty` by itself
//!    until it has been filled again up to where it once reached.
//! 4. Write [`Recovered::mends`] durably, each at its place, before the first write. Repair [`Writer::holes`] from peers:
//!    [`Hole::rebuild`], a durable write at [`Hole::offset`], then [`Writer::on_repaired`]. A replica with holes counts
//!    with its whole log: it votes and acknowledges. But it must not lead, for it cannot serve what it does not have,
//!    and nothing behind a hole may be applied before the hole is filled.
//! 5. Compare [`Recovered::end`] with [`SlotContent::clean_end`] and with the snapshot's position: a log that ends
//!    below the first lost something without a trace; one that ends below the second begins anew with
//!    [`Writer::reset`]. One that begins ([`Recovered::start`]) above the snapshot needs another snapshot.
//! 6. Never let the tail's floor rise above [`Writer::submitted`], and let floors be positions that were reached.
//! 7. Hand every completion back, an incomplete write as an error. After an error nothing is written any more; stop
//!    acknowledging and say why.
//! 8. Cut [`Tail`] and [`Writer`] together, at a record boundary; a cut within a hole makes it one that only a restart
//!    gets rid of ([`Hole::is_cut`]). An acknowledgement is due only for what was appended by the leader that waits for
//!    it: [`Writer::durable`] knows positions, not terms.
//! 9. Delete segments lowest number first, those below `table().locate(p)` of the lowest position `p` still needed,
//!    then [`Writer::forget_before`]. Those in [`Recovered::unused`] may go at any time before the first write.
//! 10. Read no further than [`Writer::durable`] ([`Location::until`]). What does not read back is read again before it is
//!     noted with [`Writer::note_hole`]: a disk may give back old bytes once.
//! 11. Write and read term and vote as [`slots`] says: the next write only when the one before is durable.
//!
//! # The loop
//!
//! ```
//! use evershard_log::{Identity, Plan, Recovered, SegmentHeader, Tail, WRITE_SIZE_MAX, Writer, WriterConfig};
//! use evershard_protocol::record::{Draft, Kind};
//! use evershard_protocol::{ClusterId, NodeId, Position, ShardId, Term, Timestamp};
//!
//! let identity = Identity { cluster: ClusterId::of_name("demo"), shard: ShardId(0), node: NodeId(0) };
//! let recovered = Recovered::default(); // recover(&identity, &mut files)?
//! let config = WriterConfig::default();
//! let mut writer = Writer::new(config, &recovered);
//! let mut tail = Tail::new(1024 * 1024, recovered.end);
//! let mut buffer = vec![0; WRITE_SIZE_MAX]; // aligned, registered, one per write in flight
//! let mut runs = recovered.runs.clone();
//!
//! // Each duty cycle: append what came ...
//! let floor = writer.submitted(); // and what peers and the service still need
//! runs.push((Term(1), tail.end())); // a block holds one term only
//! tail.append(&Draft::plain(Kind::TermStart, Term(1), Timestamp(1), &[]), floor).expect("room");
//!
//! // ... have the next segment prepared in time ...
//! if let Some(number) = writer.wants_segment() {
//!     let nonce = 0x5EED; // drawn at random
//!     writer.add_segment(SegmentHeader { identity, number, nonce, size: config.segment_size });
//! }
//!
//! // ... write what there is (the segment's start block, then data) ...
//! while let Plan::Write(write) = writer.plan(&tail, Position(0), &runs, &mut buffer) {
//!     // disk.write(write.segment, write.offset, &buffer[..write.size]), later:
//!     writer.on_written(write.sequence, Ok(()));
//! }
//!
//! // ... and acknowledge what is durable.
//! assert_eq!(writer.durable(), tail.end());
//! ```
#![forbid(unsafe_code)]

pub mod block;
pub mod hole;
mod lineage;
pub mod reader;
pub mod recovery;
pub mod recovery_table;
mod scan;
pub mod segment;
pub mod slots;
pub mod start;
pub mod table;
pub mod tail;
mod walk;
pub mod writer;

pub use block::{BLOCK_ALIGNMENT, WRITE_SIZE_MAX};
pub use hole::{HOLES_MAX, Hole, RepairError};
pub use reader::{ReadError, ReadProgress, read_blocks};
pub use recovery::{Cut, FaultReason, Mend, Recovered, RecoveryError, SegmentSource, Verdict, recover};
pub use segment::{
    Identity, SEGMENT_HEADER_SIZE, SEGMENT_SIZE_MIN, SegmentError, SegmentHeader, SegmentNumber, segment_file_name,
    segment_number_of,
};
pub use slots::{SlotContent, SlotError, choose_slot, encode_slot, slot_offset};
pub use start::History;
pub use table::{BlockTable, Location};
pub use tail::{Tail, TailFull};
pub use writer::{Plan, Write, Writer, WriterConfig};
