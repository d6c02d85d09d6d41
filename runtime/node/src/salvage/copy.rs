//! From a survivor's log to the log of a new cluster: its newest snapshot and the same records behind it, then the two that make it one.
//!
//! The new log is written as any log is, by [`Writer`]; only the segments are new, and marked with the new identity. Records
//! carry no cluster, so they stay byte for byte what they were, and sessions, timers and state go on from them. The two
//! records behind them are of a term above all terms that were found, and so is the term in the slots, with a vote for the
//! node itself: it has written in that term, so nobody else may.

use std::io;

use evershard_log::slots::{SLOT_SIZE, SLOTS_FILE_SIZE};
use evershard_log::{
    Identity, Mend, Plan, Recovered, SEGMENT_HEADER_SIZE, SegmentHeader, SegmentNumber, SegmentSource, SlotContent,
    Tail, WRITE_SIZE_MAX, Writer, WriterConfig, encode_slot, slot_offset,
};
use evershard_protocol::note::REASON_SIZE_MAX;
use evershard_protocol::record::{Draft, Kind, Record};
use evershard_protocol::{
    ClusterId, Incarnation, Membership, NodeId, NodeSet, Position, RecoveryNote, Term, Timestamp,
};

use super::{SalvageError, Survey, check_clusters};
use crate::chunk::ChunkReader;
use crate::disk::nonce;
use crate::env::{Chunk, ReadPurpose, ReadRequest};

/// Records in memory between reading and writing.
const TAIL_SIZE: usize = 4 * 1024 * 1024;

/// Where the new replica is written. Only [`ReplicaSink::write_slots`], the last call, makes something of it that starts;
/// what was written before must be durable by then.
pub trait ReplicaSink {
    /// Makes a segment file with this header and zeros behind it.
    ///
    /// # Errors
    /// If it cannot be made.
    fn prepare(&mut self, header: &SegmentHeader) -> io::Result<()>;

    /// Writes a block into it.
    ///
    /// # Errors
    /// If it cannot be written.
    fn write_block(&mut self, segment: SegmentNumber, offset: u64, block: &[u8]) -> io::Result<()>;

    /// Writes the file of a snapshot, durably.
    ///
    /// # Errors
    /// If it cannot be written.
    fn write_snapshot(&mut self, position: Position, bytes: &[u8]) -> io::Result<()>;

    /// Makes all of it durable, then writes the file with both slots of term and vote, durably.
    ///
    /// # Errors
    /// If it cannot be done.
    fn write_slots(&mut self, slots: &[u8; SLOTS_FILE_SIZE]) -> io::Result<()>;
}

/// What the operator has decided.
#[derive(Clone, Copy, Debug)]
pub struct Order<'a> {
    /// The cluster that is lost.
    pub old_cluster: ClusterId,
    /// The one that begins.
    pub new_cluster: ClusterId,
    /// The node that decides alone in it.
    pub node: NodeId,
    /// Where this shard is found on it, `ip:port`.
    pub address: &'a str,
    /// Why, for the audit record.
    pub reason: &'a str,
    /// The highest term that any survivor knows of.
    pub term: Term,
    /// The wall clock.
    pub now: Timestamp,
    /// What is known to be lost is given up.
    pub accept_loss: bool,
}

/// What was written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Copied {
    /// The audit record.
    pub note: RecoveryNote,
    /// The term of the two new records, and of the slots.
    pub term: Term,
    /// Where the new log ends.
    pub end: Position,
}

/// Makes the beginning of a new cluster of what a survivor holds: reads `segments`, which `survey` was made of, and writes
/// to `sink`.
///
/// # Errors
/// [`SalvageError`]: what was written is of no use then, and nothing that was read has changed.
pub fn copy(
    survey: &Survey,
    segments: &mut dyn SegmentSource,
    order: &Order<'_>,
    sink: &mut dyn ReplicaSink,
) -> Result<Copied, SalvageError> {
    check_clusters(survey, order.old_cluster, order.new_cluster)?;
    if !survey.doubts.is_empty() && !order.accept_loss {
        return Err(SalvageError::Doubtful { doubts: survey.doubts.clone(), kept: survey.kept });
    }
    if order.reason.len() > REASON_SIZE_MAX {
        return Err(SalvageError::Reason(order.reason.len()));
    }
    let recovered = &survey.recovered;
    let term = survey.term.max(order.term).next();
    let identity = Identity { cluster: order.new_cluster, node: order.node, ..survey.identity };
    let incarnation = Incarnation(order.now.0.max(survey.incarnation.0 + 1));
    let mut runs: Vec<(Term, Position)> =
        recovered.runs.iter().copied().filter(|(_, start)| *start < survey.kept).collect();
    runs.push((term, survey.kept));
    let segment_size = survey.segment_size();
    let config = WriterConfig { segment_size, writes_in_flight_max: 1 };
    let mut fresh = Recovered::default();
    let mut time = recovered.log_time.max(order.now);
    if let Some(snapshot) = &survey.snapshot {
        fresh.begin_anew(survey.start);
        time = time.max(snapshot.time());
        let bytes = snapshot.renamed(order.new_cluster);
        sink.write_snapshot(survey.start, &bytes).map_err(SalvageError::Write)?;
    }
    let mut log = NewLog {
        identity,
        incarnation,
        segment_size,
        tail: Tail::new(TAIL_SIZE, survey.start),
        writer: Writer::new(config, &fresh),
        runs,
        committed: survey.committed.min(survey.kept),
        buffer: vec![0; WRITE_SIZE_MAX],
        sink,
    };
    let mut source = Mended { segments, mends: &recovered.mends };
    // What stands below the snapshot is in it.
    while log.tail.end() < survey.kept {
        let chunk = read(survey, &mut source, log.tail.end())?;
        log.take(&chunk)?;
    }
    assert_eq!(log.tail.end(), survey.kept, "reading ends where it was told to");
    let note = note(survey, order, term);
    log.add_own(&note, order, time, term)?;
    let end = log.tail.end();
    let slot = SlotContent {
        sequence: 1,
        term,
        vote: Some(order.node),
        recovering: false,
        incarnation,
        clean_end: Some(end),
        identity,
    };
    let mut slots = [0; SLOTS_FILE_SIZE];
    let at = usize::try_from(slot_offset(slot.sequence)).expect("a small file");
    slots[at..at + SLOT_SIZE].copy_from_slice(&encode_slot(&slot));
    log.sink.write_slots(&slots).map_err(SalvageError::Write)?;
    Ok(Copied { note, term, end })
}

fn note(survey: &Survey, order: &Order<'_>, term: Term) -> RecoveryNote {
    RecoveryNote {
        survivor: survey.identity.node,
        loss_accepted: !survey.doubts.is_empty(),
        old_cluster: order.old_cluster,
        new_cluster: order.new_cluster,
        membership: survey.membership.map(|(_, membership)| membership).unwrap_or_default(),
        kept: survey.kept,
        known: survey.known,
        committed: survey.committed,
        term: Term(term.0 - 1),
        timestamp: order.now,
    }
}

/// Records of the old log from `from` on, not beyond what is kept.
fn read(survey: &Survey, source: &mut Mended<'_>, from: Position) -> Result<Chunk, SalvageError> {
    let unreadable = SalvageError::Unreadable(from);
    let Some(location) = survey.recovered.table.locate(from) else { return Err(unreadable) };
    let (location, segment) = (location.until(survey.kept), location.segment);
    let file = || evershard_log::segment_file_name(segment);
    let mut read = |offset: u64, size: usize| {
        let mut bytes = vec![0; size];
        source.read(segment, offset, &mut bytes).map_err(|error| SalvageError::Read(file(), error))?;
        Ok::<Vec<u8>, SalvageError>(bytes)
    };
    let head = read(0, SEGMENT_HEADER_SIZE)?;
    let header = SegmentHeader::decode(&head).map_err(|_| SalvageError::Unreadable(from))?;
    let request = ReadRequest { purpose: ReadPurpose::Apply, location, from, ticket: 0 };
    let mut reader = ChunkReader::new(request, &head, header.size).map_err(|_| SalvageError::Unreadable(from))?;
    while let Some((offset, size)) = reader.wants() {
        reader.take(&read(offset, size)?).map_err(|_| SalvageError::Unreadable(from))?;
    }
    let chunk = reader.finish();
    if chunk.bytes.is_empty() { Err(unreadable) } else { Ok(chunk) }
}

/// The survivor's files with what recovery could restore by itself in its place: it is not written there.
struct Mended<'a> {
    segments: &'a mut dyn SegmentSource,
    mends: &'a [Mend],
}

impl Mended<'_> {
    fn read(&mut self, segment: SegmentNumber, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.segments.read(segment, offset, out)?;
        let end = offset + out.len() as u64;
        for mend in self.mends.iter().filter(|mend| mend.segment == segment) {
            let (from, to) = (mend.offset.max(offset), (mend.offset + mend.bytes.len() as u64).min(end));
            if from < to {
                let index = |position: u64, base: u64| usize::try_from(position - base).expect("within the buffer");
                out[index(from, offset)..index(to, offset)]
                    .copy_from_slice(&mend.bytes[index(from, mend.offset)..index(to, mend.offset)]);
            }
        }
        Ok(())
    }
}

/// The log that is being written.
struct NewLog<'a> {
    identity: Identity,
    incarnation: Incarnation,
    segment_size: u64,
    tail: Tail,
    writer: Writer,
    runs: Vec<(Term, Position)>,
    committed: Position,
    buffer: Vec<u8>,
    sink: &'a mut dyn ReplicaSink,
}

impl NewLog<'_> {
    /// Appends records that were read, each of them verified.
    fn take(&mut self, chunk: &Chunk) -> Result<(), SalvageError> {
        let mut rest = &chunk.bytes[..];
        while !rest.is_empty() {
            let start = self.tail.end();
            let record = Record::parse(start, rest).map_err(|_| SalvageError::Unreadable(start))?;
            if !self.tail.has_room(record.bytes.len(), self.writer.submitted()) {
                self.flush()?;
            }
            self.tail.append_record(record.bytes, self.writer.submitted()).expect("all of the tail was written");
            rest = &rest[record.bytes.len()..];
        }
        self.flush()
    }

    /// Appends the audit record and the configuration of one.
    fn add_own(
        &mut self,
        note: &RecoveryNote,
        order: &Order<'_>,
        time: Timestamp,
        term: Term,
    ) -> Result<(), SalvageError> {
        let (mut audit, mut alone) = (Vec::new(), Vec::new());
        note.encode(order.reason, &mut audit);
        let membership = Membership::of_voters(NodeSet::of(order.node));
        membership.encode(std::iter::once((order.node, order.address)), &mut alone);
        for (kind, payload) in [(Kind::Note, &audit), (Kind::Membership, &alone)] {
            let draft = Draft::plain(kind, term, time, payload);
            self.tail.append(&draft, self.writer.submitted()).expect("all of the tail was written");
        }
        self.flush()
    }

    /// Writes all that is in the tail.
    fn flush(&mut self) -> Result<(), SalvageError> {
        loop {
            let committed = self.committed.min(self.tail.end());
            match self.writer.plan(&self.tail, committed, &self.runs, &mut self.buffer) {
                Plan::Nothing => return Ok(()),
                Plan::NoSegment => {
                    let number = self.writer.wants_segment().expect("none waits");
                    let nonce = nonce(self.incarnation.0, number.0);
                    let header = SegmentHeader { identity: self.identity, number, nonce, size: self.segment_size };
                    self.sink.prepare(&header).map_err(SalvageError::Write)?;
                    self.writer.add_segment(header);
                }
                Plan::Write(write) => {
                    let block = &self.buffer[..write.size];
                    self.sink.write_block(write.segment, write.offset, block).map_err(SalvageError::Write)?;
                    self.writer.on_written(write.sequence, Ok(()));
                }
                Plan::TooManyInFlight | Plan::Failed => unreachable!("each write ends before the next, or ends it all"),
            }
        }
    }
}
