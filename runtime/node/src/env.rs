//! What a shard needs from the world below: time, disk, network and background work, as one seam.
//!
//! In production this is one io_uring and two bounded rings to the background ([`crate::uring`]); in the simulator it
//! is a model. The shard hands work down during a turn, [`Env::submit`] is the turn's only entry into the kernel, and
//! [`Env::reap`] reports all that has happened since.

use evershard_log::{Hole, Location, SegmentHeader, SegmentNumber};
use evershard_protocol::{Instant, NodeId, Position, Timestamp};
use evershard_sys::buffer::AlignedBuffer;

use crate::shadow::{DropOrder, SnapshotFailure, SnapshotOrder};
use crate::snapshot::Snapshot;

/// One connection: index and generation, so that news of an earlier connection is not taken for a later one's.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct LinkId {
    /// Place in the table of links.
    pub index: u32,
    /// Counts the uses of that place.
    pub generation: u32,
}

/// Both clocks, read once per turn.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Now {
    /// For timers.
    pub instant: Instant,
    /// For record time.
    pub timestamp: Timestamp,
}

/// Why log content is read back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReadPurpose {
    /// To apply records that are no longer in memory.
    Apply,
    /// For a follower that is behind what is in memory.
    Peer(NodeId),
    /// For a replica that cannot read it any more.
    Repair(NodeId),
}

/// Log content wanted from disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReadRequest {
    /// Why.
    pub purpose: ReadPurpose,
    /// Where the log says it lies.
    pub location: Location,
    /// The first position wanted, a record boundary.
    pub from: Position,
    /// Set by the shard to know an answer from an answer to an earlier question.
    pub ticket: u64,
}

/// Log content read back.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Chunk {
    /// Where it begins in the log; a record boundary, as is its end.
    pub first: Position,
    /// Records, one behind the other.
    pub bytes: Vec<u8>,
}

impl Chunk {
    /// Where it ends in the log.
    #[must_use]
    pub fn end(&self) -> Position {
        self.first.advance(self.bytes.len() as u64)
    }
}

/// What has happened.
#[derive(Debug)]
pub enum Event<'a> {
    /// Somebody has connected.
    Accepted {
        /// The new connection.
        link: LinkId,
    },
    /// A connection that the shard asked for is there.
    Connected {
        /// The connection.
        link: LinkId,
    },
    /// Bytes came in.
    Received {
        /// The connection.
        link: LinkId,
        /// The bytes, lent for the time of the call.
        bytes: &'a [u8],
    },
    /// All of a buffer was sent.
    Sent {
        /// The connection.
        link: LinkId,
        /// The buffer comes back.
        buffer: Vec<u8>,
    },
    /// The connection has ended, or could not be made. Nothing more is heard of this link.
    Closed {
        /// The connection.
        link: LinkId,
    },
    /// A block of the log was written and is durable, or will never be.
    BlockWritten {
        /// What [`Env::write_block`] was told.
        sequence: u64,
        /// The buffer comes back.
        buffer: AlignedBuffer,
        /// The error's number, if it failed.
        outcome: Result<(), i32>,
    },
    /// The term and vote are durable, or will never be.
    SlotWritten {
        /// The buffer comes back.
        buffer: AlignedBuffer,
        /// The error's number, if it failed.
        outcome: Result<(), i32>,
    },
    /// A segment is ready to be written.
    SegmentPrepared {
        /// Its header.
        header: SegmentHeader,
    },
    /// A segment could not be prepared: typically no space is left.
    SegmentFailed {
        /// The error's number.
        errno: i32,
    },
    /// A block was written again in its place and reads back, or not.
    BlockRepaired {
        /// The segment.
        segment: SegmentNumber,
        /// Where in its file.
        offset: u64,
        /// The error's number, if it failed.
        outcome: Result<(), i32>,
    },
    /// The shadow has taken a snapshot, which is durable and has its name, or not.
    SnapshotTaken {
        /// Where it stands.
        position: Position,
        /// Its size, or why there is none.
        outcome: Result<u64, SnapshotFailure>,
    },
    /// A snapshot of another replica is durable and has its name, or not.
    SnapshotKept {
        /// What [`Env::keep_snapshot`] was given.
        snapshot: Box<Snapshot>,
        /// The error's number, if it failed.
        outcome: Result<(), i32>,
    },
    /// A part of a snapshot was read back.
    SnapshotRead {
        /// Which.
        position: Position,
        /// Where the part begins.
        offset: u64,
        /// The part and the size of the whole, or the error's number.
        outcome: Result<(Vec<u8>, u64), i32>,
    },
    /// What is not needed any more is gone, or not.
    LogDropped {
        /// The error's number, if it failed.
        outcome: Result<(), i32>,
    },
    /// Log content was read back.
    Read {
        /// The question.
        request: ReadRequest,
        /// The content, or what is wrong.
        chunk: Result<Chunk, ReadFailure>,
    },
}

/// Why log content could not be read back.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ReadFailure {
    /// The disk says so.
    Disk(i32),
    /// It does not verify: the replica has it no more, though it once had.
    Faulty,
    /// It does not verify, and it is known what is missing.
    Hole(Box<Hole>),
}

/// How the shard may wait for the next event.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Idle {
    /// There is more to do at once.
    Busy,
    /// Nothing to do before this time, unless something happens.
    Until(Instant),
}

/// The world below one shard.
pub trait Env {
    /// Both clocks.
    fn now(&self) -> Now;

    /// Reports everything that has happened, never only a part. Returns how many events there were.
    fn reap(&mut self, sink: &mut dyn FnMut(Event<'_>)) -> usize;

    /// Hands all work to the kernel and waits as allowed. The only system call of a turn.
    fn submit(&mut self, idle: Idle);

    /// Begins to connect to a peer; `None` when no link is free. `address` is where the shard believes it to be
    /// (`ip:port`), for a peer that this node's configuration does not name.
    fn connect(&mut self, peer: NodeId, address: Option<&str>) -> Option<LinkId>;

    /// Sends all of `buffer`. One send at a time per link.
    fn send(&mut self, link: LinkId, buffer: Vec<u8>);

    /// Ends the connection; [`Event::Closed`] follows.
    fn close(&mut self, link: LinkId);

    /// Writes a block of the log durably.
    fn write_block(&mut self, segment: SegmentNumber, offset: u64, buffer: AlignedBuffer, size: usize, sequence: u64);

    /// Writes one of the two slots of term and vote durably.
    fn write_slot(&mut self, offset: u64, buffer: AlignedBuffer);

    /// Has a segment made in the background. False if the background has too much to do: ask again later.
    fn prepare_segment(&mut self, header: SegmentHeader) -> bool;

    /// Has log content read in the background. False as above.
    fn read_log(&mut self, request: ReadRequest) -> bool;

    /// Has a block written durably in the background, at the place where it once was, and read back to see that it is
    /// there; [`Event::BlockRepaired`] follows. False as above: then the block is lost and is to be rebuilt later.
    fn repair_block(&mut self, segment: SegmentNumber, offset: u64, block: AlignedBuffer) -> bool;

    /// Has the shadow take a snapshot in the background; [`Event::SnapshotTaken`] follows. False as above.
    fn take_snapshot(&mut self, order: SnapshotOrder) -> bool;

    /// Has a snapshot of another replica written in the background; [`Event::SnapshotKept`] follows.
    ///
    /// # Errors
    /// The snapshot comes back if the background has too much to do: ask again later.
    fn keep_snapshot(&mut self, snapshot: Box<Snapshot>) -> Result<(), Box<Snapshot>>;

    /// Has up to [`crate::shipping::PIECE_SIZE`] bytes of a snapshot read in the background; [`Event::SnapshotRead`]
    /// follows. False as above.
    fn read_snapshot(&mut self, position: Position, offset: u64) -> bool;

    /// Has segments and snapshots deleted in the background; [`Event::LogDropped`] follows. False as above.
    fn drop_log(&mut self, order: DropOrder) -> bool;

    /// Tells people something, off this core. Dropped and counted when too much is said.
    fn notify(&mut self, notice: crate::notice::Notice);

    /// Whether the shard should stop cleanly.
    fn stop_requested(&self) -> bool;
}
