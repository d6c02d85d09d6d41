//! How a replica begins a new life from its files: found, checked, judged. Without files of its own to touch: what they
//! are is the caller's ([`ReplicaFiles`]), the operating system's in production and a model in the simulator.

use std::io;

use evershard_consensus::{Durability, HardState, Restored, Standing, TermTable};
use evershard_log::slots::{SLOT_SIZE, SLOTS_FILE_SIZE};
use evershard_log::{
    Identity, Recovered, RecoveryError, SegmentNumber, SegmentSource, SlotContent, SlotError, Verdict, choose_slot,
    encode_slot, recover, segment_file_name, slot_offset,
};
use evershard_protocol::bugs::{self, Bug};
use evershard_protocol::{Incarnation, Membership, NodeId, Position, Term, Timestamp};

use crate::snapshot::{Snapshot, SnapshotFault, snapshot_file_name};

/// A replica's files, as far as starting needs them.
pub trait ReplicaFiles: SegmentSource {
    /// Reads the file with both slots of term and vote; what does not exist reads as zeros.
    ///
    /// # Errors
    /// If it cannot be read.
    fn read_slots(&mut self, out: &mut [u8; SLOTS_FILE_SIZE]) -> io::Result<()>;

    /// Writes one slot and waits until it is durable.
    ///
    /// # Errors
    /// If it cannot be written.
    fn write_slot(&mut self, offset: u64, slot: &[u8; SLOT_SIZE]) -> io::Result<()>;

    /// Where the snapshots stand that have their names, ascending.
    fn snapshots(&self) -> Vec<Position>;

    /// The content of a snapshot's file.
    ///
    /// # Errors
    /// If it cannot be read.
    fn read_snapshot(&mut self, position: Position) -> io::Result<Vec<u8>>;

    /// Writes what recovery has restored to a segment's file; [`ReplicaFiles::settle`] makes it durable.
    ///
    /// # Errors
    /// If it cannot be written.
    fn mend(&mut self, segment: SegmentNumber, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Removes the segments that hold nothing, and makes durable what was read of the others: a process that was killed
    /// leaves pages that the disk has not seen.
    ///
    /// # Errors
    /// If it cannot be done.
    fn settle(&mut self, kept: &[SegmentNumber], unused: &[SegmentNumber]) -> io::Result<()>;
}

/// Why a replica cannot begin.
#[derive(Debug)]
pub enum StartError {
    /// The system refuses the file with term and vote.
    SlotsIo(io::Error),
    /// The system refuses a segment.
    LogIo(io::Error),
    /// Term and vote are of another replica, or damaged.
    Slots(SlotError),
    /// The log is of another replica, or something is missing.
    Log(RecoveryError),
    /// There is a log but nobody knows what was voted.
    VoteMissing,
    /// The log begins here, and no snapshot that verifies reaches up to there.
    SnapshotMissing(Position),
    /// A snapshot is of another replica, or of a release that this one does not know.
    Snapshot(Position, SnapshotFault),
    /// A record that changes the configuration is of a release that this one does not know.
    Membership(Position),
}

/// What a replica starts from.
pub struct Started {
    /// What was found of the log.
    pub recovered: Recovered,
    /// The state that the replica begins with, if there is one.
    pub snapshot: Option<Snapshot>,
    /// All snapshots that may be counted on, ascending.
    pub snapshots: Vec<Position>,
    /// The greatest record time in log and snapshot.
    pub log_time: Timestamp,
    /// What is now in the slots.
    pub slot: SlotContent,
    /// How the replica stands in consensus.
    pub restored: Restored,
    /// Where the latest configuration in the log says that its nodes are found.
    pub addresses: Vec<(NodeId, String)>,
    /// Sentences for the operator.
    pub remarks: Vec<String>,
}

/// Finds and checks everything, and begins a new life of the replica at wall-clock time `now`: the mark of a clean stop,
/// if there is one, is taken away before anything else happens.
///
/// # Errors
/// [`StartError`].
pub fn start(
    files: &mut dyn ReplicaFiles,
    identity: &Identity,
    durability: Durability,
    now: Timestamp,
) -> Result<Started, StartError> {
    let mut both = [0; SLOTS_FILE_SIZE];
    files.read_slots(&mut both).map_err(StartError::SlotsIo)?;
    let (one, other) = both.split_at(SLOT_SIZE);
    let found = choose_slot(identity, one, other).map_err(StartError::Slots)?;
    if found.is_none() && !(files.segments().is_empty() && files.snapshots().is_empty()) {
        return Err(StartError::VoteMissing);
    }
    let mut remarks = Vec::new();
    let mut recovered = recover(identity, files).map_err(StartError::Log)?;
    let standing = judge(found.as_ref(), &recovered, &mut remarks);
    let (snapshots, snapshot) = find_snapshot(files, identity, &mut remarks)?;
    if snapshot.is_none() && recovered.start > Position::ZERO {
        return Err(StartError::SnapshotMissing(recovered.start));
    }
    if let Some(snapshot) = &snapshot {
        join(&mut recovered, snapshot, &mut remarks)?;
    }
    let numbers = recovered.segments.iter().map(|header| header.number);
    let kept: Vec<SegmentNumber> = numbers.filter(|number| !recovered.unused.contains(number)).collect();
    for mend in recovered.mends.iter().filter(|mend| kept.contains(&mend.segment)) {
        files.mend(mend.segment, mend.offset, &mend.bytes).map_err(StartError::LogIo)?;
    }
    files.settle(&kept, &recovered.unused).map_err(StartError::LogIo)?;

    let hard = HardState {
        term: found.as_ref().map_or(Term(0), |slot| slot.term),
        vote: found.as_ref().and_then(|slot| slot.vote),
        standing,
    };
    let slot = begin_life(files, identity, found.as_ref(), hard, durability, now).map_err(StartError::SlotsIo)?;
    let mut memberships = memberships_of(&recovered)?;
    let (mut commit, mut log_time) = (recovered.committed, recovered.log_time);
    if let Some(snapshot) = &snapshot {
        let position = snapshot.position();
        commit = commit.max(position);
        log_time = log_time.max(snapshot.time());
        if memberships.first().is_none_or(|(first, _, _)| *first > position) {
            memberships.insert(0, (position, snapshot.membership(), snapshot.addresses().to_vec()));
        }
    }
    let restored = Restored {
        hard,
        terms: terms_of(&recovered, snapshot.as_ref()),
        memberships: memberships.iter().map(|(position, membership, _)| (*position, *membership)).collect(),
        durable: recovered.end,
        commit,
    };
    let addresses = memberships.into_iter().next_back().map_or_else(Vec::new, |(_, _, addresses)| addresses);
    Ok(Started { recovered, snapshot, snapshots, log_time, slot, restored, addresses, remarks })
}

/// The newest snapshot that verifies, and the positions of all that may be: those up to it.
fn find_snapshot(
    files: &mut dyn ReplicaFiles,
    identity: &Identity,
    remarks: &mut Vec<String>,
) -> Result<(Vec<Position>, Option<Snapshot>), StartError> {
    let mut positions = files.snapshots();
    while let Some(position) = positions.last().copied() {
        let bytes = files.read_snapshot(position).map_err(StartError::LogIo)?;
        match Snapshot::parse(bytes, identity.cluster, identity.shard) {
            Ok(snapshot) if snapshot.position() == position => return Ok((positions, Some(snapshot))),
            Ok(_) | Err(SnapshotFault::Damaged) => remarks.push(format!(
                "{} does not verify: the one before it and the log take its place. The disk may be failing: look at it",
                snapshot_file_name(position)
            )),
            Err(fault) => return Err(StartError::Snapshot(position, fault)),
        }
        positions.pop();
    }
    Ok((positions, None))
}

/// Log and snapshot become one: the log goes on behind the snapshot, or begins anew there.
pub(crate) fn join(
    recovered: &mut Recovered,
    snapshot: &Snapshot,
    remarks: &mut Vec<String>,
) -> Result<(), StartError> {
    let position = snapshot.position();
    if position < recovered.start {
        return Err(StartError::SnapshotMissing(recovered.start));
    }
    let known = term_before(recovered, position);
    // A log that begins exactly there may know nothing of what came before: it was begun behind this very snapshot.
    let fits = known.map_or(position == recovered.start, |term| term == snapshot.term());
    if position > recovered.end || !fits {
        remarks.push(format!(
            "the log ends at position {}, or went another way, before the snapshot at {position}: it begins anew there",
            recovered.end
        ));
        recovered.begin_anew(position);
    }
    Ok(())
}

/// Term of the record that ends at `position`, as far as the log knows it.
pub(crate) fn term_before(recovered: &Recovered, position: Position) -> Option<Term> {
    let behind = recovered.runs.partition_point(|(_, start)| *start < position);
    behind.checked_sub(1).map(|at| recovered.runs[at].0)
}

/// The segment that may still be written, if there is one: the newest that holds something.
#[must_use]
pub fn writable(recovered: &Recovered) -> Option<SegmentNumber> {
    let mut newest = recovered.segments.iter().rev();
    newest.find(|header| !recovered.unused.contains(&header.number)).map(|header| header.number)
}

type LoggedMembership = (Position, Membership, Vec<(NodeId, String)>);

/// The configurations in the log, with the addresses they carry.
fn memberships_of(recovered: &Recovered) -> Result<Vec<LoggedMembership>, StartError> {
    let read = |(position, payload): &(Position, Vec<u8>)| {
        let mut addresses = Vec::new();
        let membership = Membership::decode(payload, |node, address| addresses.push((node, address.to_owned())));
        membership.map(|membership| (*position, membership, addresses)).ok_or(StartError::Membership(*position))
    };
    recovered.memberships.iter().map(read).collect()
}

fn terms_of(recovered: &Recovered, snapshot: Option<&Snapshot>) -> TermTable {
    let base = recovered.start;
    let here = snapshot.filter(|snapshot| snapshot.position() == base).map(Snapshot::term);
    let mut terms = TermTable::starting_at(base, term_before(recovered, base).or(here).unwrap_or(Term(0)));
    for (at, (term, _)) in recovered.runs.iter().enumerate() {
        let end = recovered.runs.get(at + 1).map_or(recovered.end, |(_, start)| *start);
        if end > base {
            terms.append(*term, end);
        }
    }
    terms
}

/// Whether this replica's word counts from the start, and what to tell about it.
fn judge(found: Option<&SlotContent>, recovered: &Recovered, remarks: &mut Vec<String>) -> Standing {
    if bugs::is_on(Bug::RecoveringCounts) {
        return Standing::Sound;
    }
    if let Some(cut) = &recovered.cut {
        remarks.push(format!("a torn write at the end of the log was cut; it was never acknowledged: {cut:?}"));
    }
    for mend in &recovered.mends {
        let file = segment_file_name(mend.segment);
        remarks.push(format!(
            "{file} did not verify at offset {}: restored from the rest of the log. The disk may be failing: look at it",
            mend.offset
        ));
    }
    // Holes do not count against it: they are known, and repaired from the peers before it leads.
    let Some(slot) = found else {
        // An empty directory: a new cluster, or a replica that has lost its disk. It cannot tell which.
        return Standing::Recovering;
    };
    if let Verdict::Faulty { from, .. } = recovered.verdict {
        remarks.push(format!(
            "the log does not verify from position {from} on: this replica does not count until a leader has brought \
             it up to date ({:?})",
            recovered.verdict
        ));
        return Standing::Recovering;
    }
    let short = slot.clean_end.is_some_and(|end| recovered.end < end);
    if short {
        remarks.push("the log is shorter than when this replica stopped cleanly".to_owned());
    }
    if slot.recovering {
        remarks.push(
            "unclean stop where acknowledgements do not wait for the disk, or not yet recovered from one: this \
             replica does not count until a leader has brought it up to date"
                .to_owned(),
        );
    }
    if short || slot.recovering { Standing::Recovering } else { Standing::Sound }
}

fn begin_life(
    files: &mut dyn ReplicaFiles,
    identity: &Identity,
    found: Option<&SlotContent>,
    hard: HardState,
    durability: Durability,
    now: Timestamp,
) -> io::Result<SlotContent> {
    let previous = found.map_or(0, |slot| slot.incarnation.0);
    let slot = SlotContent {
        sequence: found.map_or(0, |slot| slot.sequence) + 1,
        term: hard.term,
        vote: hard.vote,
        recovering: hard.standing == Standing::Recovering || durability == Durability::Replicated,
        incarnation: Incarnation(now.0.max(previous + 1)),
        clean_end: None::<Position>,
        identity: *identity,
    };
    if found.is_none() {
        // Both slots exist from now on: later writes change no metadata.
        files.write_slot(slot_offset(slot.sequence + 1), &[0; SLOT_SIZE])?;
    }
    files.write_slot(slot_offset(slot.sequence), &encode_slot(&slot))?;
    Ok(slot)
}
