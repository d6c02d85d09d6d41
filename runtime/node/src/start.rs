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
    /// A record that changes the configuration is of a release that this one does not know.
    Membership(Position),
}

/// What a replica starts from.
pub struct Started {
    /// What was found of the log.
    pub recovered: Recovered,
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
    if found.is_none() && !files.segments().is_empty() {
        return Err(StartError::VoteMissing);
    }
    let recovered = recover(identity, files).map_err(StartError::Log)?;
    let numbers = recovered.segments.iter().map(|header| header.number);
    let kept: Vec<SegmentNumber> = numbers.filter(|number| !recovered.unused.contains(number)).collect();
    for mend in recovered.mends.iter().filter(|mend| kept.contains(&mend.segment)) {
        files.mend(mend.segment, mend.offset, &mend.bytes).map_err(StartError::LogIo)?;
    }
    files.settle(&kept, &recovered.unused).map_err(StartError::LogIo)?;

    let mut remarks = Vec::new();
    let standing = judge(found.as_ref(), &recovered, &mut remarks);
    let hard = HardState {
        term: found.as_ref().map_or(Term(0), |slot| slot.term),
        vote: found.as_ref().and_then(|slot| slot.vote),
        standing,
    };
    let slot = begin_life(files, identity, found.as_ref(), hard, durability, now).map_err(StartError::SlotsIo)?;
    let memberships = memberships_of(&recovered)?;
    let restored = Restored {
        hard,
        terms: terms_of(&recovered),
        memberships: memberships.iter().map(|(position, membership, _)| (*position, *membership)).collect(),
        durable: recovered.end,
        commit: recovered.committed,
    };
    let addresses = memberships.into_iter().next_back().map_or_else(Vec::new, |(_, _, addresses)| addresses);
    Ok(Started { recovered, slot, restored, addresses, remarks })
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

fn terms_of(recovered: &Recovered) -> TermTable {
    let mut terms = TermTable::new();
    for (at, (term, _)) in recovered.runs.iter().enumerate() {
        let end = recovered.runs.get(at + 1).map_or(recovered.end, |(_, start)| *start);
        terms.append(*term, end);
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
