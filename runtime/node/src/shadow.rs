//! The shadow of a shard: a second instance of its service, on a background core, that takes the snapshots.
//!
//! The shadow is built when a snapshot is due: restored from the snapshot before, fed with the committed records since,
//! as they stand in the log's files, and saved at the position that was asked for. The hot instance never pauses, and
//! every snapshot proves that the one before it and the log behind it can be read. The shadow's memory is given back
//! when it has saved.
//!
//! Here is what it does, without IO: the background executor drives a [`SnapshotJob`] in production, the world in the
//! simulator.

use evershard_log::{Location, SegmentNumber};
use evershard_protocol::record::Record;
use evershard_protocol::{ClusterId, Position, ShardId};
use evershard_service::Service;

use crate::env::{Chunk, ReadFailure, ReadPurpose, ReadRequest};
use crate::repair::READS_MAX;
use crate::replica::Replica;
use crate::snapshot::{Mark, Snapshot, encode};

/// What a shard asks of its shadow.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SnapshotOrder {
    /// The snapshot to begin with; none: the service begins empty.
    pub previous: Option<Position>,
    /// Where the snapshot shall stand. Invariant: committed, applied by the hot instance, and durable.
    pub mark: Mark,
    /// Where the log between the two lies on disk, in order.
    pub locations: Vec<Location>,
}

/// What is not needed any more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DropOrder {
    /// Segments below this one go, lowest first.
    pub segments_before: SegmentNumber,
    /// Snapshots below this position go. Never newer ones: another one may be getting its name just now.
    pub snapshots_before: Option<Position>,
}

/// Why there is no snapshot.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SnapshotFailure {
    /// The disk says so.
    Disk(i32),
    /// The log cannot be read.
    Log(ReadFailure),
    /// The snapshot that it was to begin with does not verify.
    Previous(Position),
    /// The service says so, in words.
    Said(String),
}

/// Makes shadows; shared with the background.
pub trait ShadowMaker: Send + Sync {
    /// A shadow in the state of `previous`.
    ///
    /// # Errors
    /// [`SnapshotFailure::Said`] if that is no snapshot of this shard.
    fn make(&self, previous: Option<Vec<u8>>) -> Result<Box<dyn Shadow>, SnapshotFailure>;
}

/// A second instance of a shard's service.
pub trait Shadow {
    /// Everything up to here is applied.
    fn applied(&self) -> Position;

    /// Applies the records of a chunk, up to `until`.
    ///
    /// # Errors
    /// [`SnapshotFailure::Said`] if one cannot be applied.
    fn feed(&mut self, chunk: &Chunk, until: Position) -> Result<(), SnapshotFailure>;

    /// The state, as a snapshot.
    ///
    /// # Errors
    /// [`SnapshotFailure::Said`] if the service refuses.
    fn save(&self, mark: &Mark) -> Result<Vec<u8>, SnapshotFailure>;
}

/// The shadows of one shard, by its way of making a service.
pub struct Instances<F> {
    /// The cluster.
    pub cluster: ClusterId,
    /// The shard.
    pub shard: ShardId,
    /// Makes a fresh instance.
    pub service: F,
}

struct ShadowOf<S> {
    cluster: ClusterId,
    shard: ShardId,
    replica: Replica<S>,
}

impl<S: Service, F: Fn(ShardId) -> S + Send + Sync> ShadowMaker for Instances<F> {
    fn make(&self, previous: Option<Vec<u8>>) -> Result<Box<dyn Shadow>, SnapshotFailure> {
        let Self { cluster, shard, .. } = *self;
        let service = (self.service)(shard);
        let replica = match previous {
            None => Replica::new(service),
            Some(bytes) => Snapshot::parse(bytes, cluster, shard).map_err(said)?.restore(service).map_err(said)?,
        };
        Ok(Box::new(ShadowOf { cluster, shard, replica }))
    }
}

impl<S: Service> Shadow for ShadowOf<S> {
    fn applied(&self) -> Position {
        self.replica.applied
    }

    fn feed(&mut self, chunk: &Chunk, until: Position) -> Result<(), SnapshotFailure> {
        while self.replica.applied < until.min(chunk.end()) {
            let from = usize::try_from(self.replica.applied.since(chunk.first)).expect("a chunk is in memory");
            let record = Record::parse(self.replica.applied, &chunk.bytes[from..]).map_err(said)?;
            self.replica.apply(&record).map_err(said)?;
        }
        Ok(())
    }

    fn save(&self, mark: &Mark) -> Result<Vec<u8>, SnapshotFailure> {
        encode(&self.replica, self.cluster, self.shard, mark).map_err(said)
    }
}

fn said(error: impl std::fmt::Display) -> SnapshotFailure {
    SnapshotFailure::Said(error.to_string())
}

/// One order on its way.
pub struct SnapshotJob {
    order: SnapshotOrder,
    shadow: Box<dyn Shadow>,
    /// Reads in a row that failed.
    faults: u8,
}

impl SnapshotJob {
    /// Begins; `previous` is the content of the snapshot that the order names.
    ///
    /// # Errors
    /// [`SnapshotFailure`].
    pub fn begin(
        maker: &dyn ShadowMaker,
        order: SnapshotOrder,
        previous: Option<Vec<u8>>,
    ) -> Result<Self, SnapshotFailure> {
        let shadow =
            maker.make(previous).map_err(|failure| order.previous.map_or(failure, SnapshotFailure::Previous))?;
        Ok(Self { shadow, order, faults: 0 })
    }

    /// What is to be read next; `None` when everything is applied.
    ///
    /// # Errors
    /// [`SnapshotFailure::Said`] if the order does not say where to read on.
    pub fn wants(&self) -> Result<Option<ReadRequest>, SnapshotFailure> {
        let from = self.shadow.applied();
        if from >= self.order.mark.position {
            return Ok(None);
        }
        let behind = self.order.locations.partition_point(|location| location.position <= from);
        let location = self.order.locations[..behind].last().filter(|location| from < location.end);
        let location = *location.ok_or_else(|| said(format!("the log is not on disk at position {from}")))?;
        Ok(Some(ReadRequest { purpose: ReadPurpose::Apply, location, from, ticket: 0 }))
    }

    /// Takes what was read. A place that does not read back is read again before that is believed.
    ///
    /// # Errors
    /// [`SnapshotFailure`].
    pub fn take(&mut self, chunk: Result<Chunk, ReadFailure>) -> Result<(), SnapshotFailure> {
        match chunk {
            Ok(chunk) if !chunk.bytes.is_empty() => {
                self.faults = 0;
                self.shadow.feed(&chunk, self.order.mark.position)
            }
            failed => {
                self.faults += 1;
                let failure = failed.err().unwrap_or(ReadFailure::Faulty);
                if self.faults < READS_MAX { Ok(()) } else { Err(SnapshotFailure::Log(failure)) }
            }
        }
    }

    /// Where the snapshot stands.
    #[must_use]
    pub fn position(&self) -> Position {
        self.order.mark.position
    }

    /// The snapshot.
    ///
    /// # Errors
    /// [`SnapshotFailure`].
    pub fn finish(self) -> Result<Vec<u8>, SnapshotFailure> {
        self.shadow.save(&self.order.mark)
    }
}
