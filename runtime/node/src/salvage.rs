//! When a quorum is lost for good: what a survivor holds becomes the beginning of a new cluster.
//!
//! Without a quorum nothing is committed any more, and nobody can know what was committed last: only the lost members had it
//! perhaps. No replica decides to go on alone, for the others may only be out of sight. An operator can, who knows that they
//! will not come back. What is made then is another cluster, with an identity of its own: every segment, every slot and every
//! introduction carries it, so what was left of the old one is a stranger to the new one for ever ([`crate::start`] refuses
//! its files, `check_hello` its members), and a lost member comes back only as a new node with an empty disk.
//!
//! * [`survey`] looks at what a survivor holds and changes nothing; of several, [`Survey::rank`] says which log is best.
//! * [`copy()`] writes the newest snapshot and the same records behind it into a new log, then the audit record ([`evershard_protocol::note`]) and the
//!   configuration in which one node decides alone.
//! * [`files`] does that for whole data directories, offline.
//!
//! Both know the files only by traits, so the simulator runs the very same code on its disks. Nothing that is read is
//! changed: whatever goes wrong, the survivor's own files are still there to try again.

use std::fmt;
use std::io;

use evershard_log::slots::{SLOT_SIZE, SLOTS_FILE_SIZE};
use evershard_log::{
    FaultReason, Identity, Recovered, RecoveryError, SegmentHeader, SegmentNumber, SegmentSource, SlotContent,
    SlotError, Verdict, choose_slot, recover,
};
use evershard_protocol::note::REASON_SIZE_MAX;
use evershard_protocol::{ClusterId, Incarnation, Membership, NodeId, NodeSet, Position, Term};

use crate::snapshot::{Snapshot, SnapshotFault, snapshot_file_name};
use crate::start::{join, term_before};

mod copy;
pub mod files;
mod replica_files;

pub use copy::{Copied, Order, ReplicaSink, copy};

/// What a survivor holds of one shard.
pub struct Survey {
    /// Whose it is.
    pub identity: Identity,
    /// The term it was in, or its log's last if that is not known.
    pub term: Term,
    /// Its vote in that term.
    pub vote: Option<NodeId>,
    /// What can be kept begins here, with a snapshot if that is not 0.
    pub start: Position,
    /// All of it reads back up to here: so much can be kept.
    pub kept: Position,
    /// It once had the log up to here, as far as it knows.
    pub known: Position,
    /// The term of the last record below `kept`.
    pub last_term: Term,
    /// It knows that the log is committed up to here; it may be further.
    pub committed: Position,
    /// The last configuration below `kept`, and where its record or the snapshot with it ends; `None` if there is none, and the nodes' files
    /// said who decides.
    pub membership: Option<(Position, Membership)>,
    /// Why it may have less than it once acknowledged. Empty: its word counts.
    pub doubts: Vec<Doubt>,
    incarnation: Incarnation,
    recovered: Recovered,
    snapshot: Option<Snapshot>,
}

/// Why a survivor may have less than it once acknowledged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Doubt {
    /// A block does not read back: what is in it and behind it is not kept.
    Hole {
        /// Where it begins.
        first: Position,
        /// Where the log ends behind it.
        end: Position,
    },
    /// The log does not verify from here on.
    Faulty {
        /// Where the good part ends.
        from: Position,
        /// What is wrong.
        reason: FaultReason,
    },
    /// It was recovering: an unclean stop where acknowledgements do not wait for the disk, or not caught up since a loss.
    Recovering,
    /// The log is shorter than at the last clean stop.
    Short {
        /// Where it ended then.
        clean_end: Position,
    },
    /// Term and vote cannot be read, and with them whether it was recovering.
    VoteLost,
}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hole { first, end } => {
                write!(f, "the block at position {first} does not read back: it and all behind it up to {end} is lost")
            }
            Self::Faulty { from, reason } => {
                write!(f, "from position {from} on the log does not verify ({reason}): what was there is lost")
            }
            Self::Recovering => f.write_str(
                "it was recovering (an unclean stop in `replicated` durability, or not caught up since a loss): records \
                 that it had acknowledged may be lost",
            ),
            Self::Short { clean_end } => {
                write!(f, "the log is shorter than at its last clean stop, when it ended at position {clean_end}")
            }
            Self::VoteLost => {
                f.write_str("term and vote cannot be read: whether records were lost before is not known either")
            }
        }
    }
}

/// Why nothing can be made of what a survivor holds.
#[derive(Debug, thiserror::Error)]
pub enum SalvageError {
    /// There is nothing.
    #[error("there is no log: nothing was written yet, or it is gone\n\nhint: take another survivor")]
    Empty,
    /// No segment says whose it is.
    #[error("no segment has a header that can be read, so nobody knows whose log it is\n\nhint: take another survivor")]
    Nameless,
    /// Another shard's log is where this one should be.
    #[error("shard {found}'s log is in the directory of shard {expected}\n\nhint: put the directories back in order")]
    Misplaced {
        /// By its header.
        found: u16,
        /// By its directory.
        expected: u16,
    },
    /// Term and vote are somebody else's.
    #[error(transparent)]
    Slots(#[from] SlotError),
    /// The log is somebody else's, or something is missing.
    #[error(transparent)]
    Log(#[from] RecoveryError),
    /// It is the log of another cluster than the one that is said to be lost.
    #[error(
        "the log belongs to cluster {found:016x}, and the lost one is {expected:016x}\n\nhint: `--old-cluster` is `cluster` \
         in the old nodes' files, or this is another cluster's directory"
    )]
    OtherCluster {
        /// By the log.
        found: u64,
        /// By the operator.
        expected: u64,
    },
    /// The old name would let the old members in.
    #[error(
        "the new cluster has the identity of the old one\n\nhint: give it a name that no cluster had before: the name is what \
         keeps the lost members out for ever"
    )]
    SameCluster,
    /// What comes before the first record is not there.
    #[error(
        "the log begins at position {0}, and no snapshot that verifies reaches up to there\n\nhint: take another survivor"
    )]
    Trimmed(Position),
    /// A snapshot is another shard's, or of a newer release.
    #[error("the snapshot at position {0}: {1}")]
    Snapshot(Position, #[source] SnapshotFault),
    /// Something is known to be lost.
    #[error(
        "not all that this survivor once had can be kept:\n  {}\n\nhint: take another survivor if there is one; otherwise \
         `--accept-loss` keeps the log up to position {kept}", list(.doubts)
    )]
    Doubtful {
        /// Why.
        doubts: Vec<Doubt>,
        /// So much could be kept.
        kept: Position,
    },
    /// A configuration that this release cannot read.
    #[error(
        "the record at position {0} changes who belongs to the shard in a way that this release does not know\n\nhint: a \
         newer release wrote it; use the `evershard` of that release"
    )]
    Membership(Position),
    /// The survivors are enough.
    #[error(
        "the survivors are a quorum of {0}, so nothing is lost\n\nhint: start them as they are, and replace the lost nodes \
         with `evershard member`"
    )]
    QuorumThere(Membership),
    /// The reason is too long.
    #[error("the reason has {0} bytes\n\nhint: {REASON_SIZE_MAX} are taken; be brief")]
    Reason(usize),
    /// A block does not read back that did a moment ago.
    #[error(
        "the log does not read back from position {0} on, and did a moment ago\n\nhint: the disk is probably failing: copy \
         the directory to another one and try again"
    )]
    Unreadable(Position),
    /// The system refuses to read.
    #[error("{0} cannot be read: {1}\n\nhint: look at the disk")]
    Read(String, #[source] io::Error),
    /// The system refuses to write.
    #[error("the new log cannot be written: {0}\n\nhint: is there space, and may this user write there?")]
    Write(#[source] io::Error),
    /// What was written is not what is found.
    #[error(
        "what was written does not read back: {0}\n\nhint: do not use the new directory; the disk is probably failing"
    )]
    Unverified(String),
}

fn list(doubts: &[Doubt]) -> String {
    doubts.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n  ")
}

/// Whose log it is, by the first of its segments that has a readable header.
///
/// # Errors
/// [`SalvageError`].
pub fn identify(segments: &mut dyn SegmentSource) -> Result<Identity, SalvageError> {
    let numbers: Vec<SegmentNumber> = segments.segments().to_vec();
    if numbers.is_empty() {
        return Err(SalvageError::Empty);
    }
    let mut head = vec![0; evershard_log::SEGMENT_HEADER_SIZE];
    for number in numbers {
        let read = segments.size(number) >= head.len() as u64 && segments.read(number, 0, &mut head).is_ok();
        if let Some(header) = read.then(|| SegmentHeader::decode(&head).ok()).flatten() {
            return Ok(header.identity);
        }
    }
    Err(SalvageError::Nameless)
}

/// Looks at what a survivor holds, as a start of the replica would, and changes nothing.
///
/// # Errors
/// [`SalvageError`].
pub fn survey(
    identity: &Identity,
    slots: &[u8; SLOTS_FILE_SIZE],
    snapshot: Option<Snapshot>,
    segments: &mut dyn SegmentSource,
) -> Result<Survey, SalvageError> {
    let (one, other) = slots.split_at(SLOT_SIZE);
    let slot = match choose_slot(identity, one, other) {
        Ok(slot) => slot,
        // The new cluster does not ask what was voted in the old one.
        Err(SlotError::Damaged | SlotError::Contradiction { .. }) => None,
        Err(error) => return Err(error.into()),
    };
    let mut recovered = recover(identity, segments)?;
    let mut doubts = doubts(slot.as_ref(), &recovered);
    let end = recovered.end;
    let start = state_before(&mut recovered, snapshot.as_ref())?;
    if recovered.end == Position::ZERO {
        return Err(SalvageError::Empty);
    }
    let hole = recovered.holes.iter().find(|hole| hole.until() > start);
    let kept = hole.map_or(recovered.end, |hole| hole.first().max(start));
    if hole.is_some() {
        doubts.push(Doubt::Hole { first: kept, end: recovered.end });
    }
    let of_snapshot = snapshot.as_ref().map_or(Term(0), Snapshot::term);
    let last_term = term_before(&recovered, kept).unwrap_or(of_snapshot);
    let clean_end = slot.as_ref().and_then(|slot| slot.clean_end);
    Ok(Survey {
        identity: *identity,
        term: slot.as_ref().map_or(last_term, |slot| slot.term.max(last_term)),
        vote: slot.as_ref().and_then(|slot| slot.vote),
        start,
        kept,
        known: end.max(recovered.end).max(clean_end.unwrap_or_default()),
        last_term,
        committed: recovered.committed.max(start),
        membership: membership_below(&recovered, snapshot.as_ref(), kept)?,
        doubts,
        incarnation: slot.map_or(Incarnation(0), |slot| slot.incarnation),
        recovered,
        snapshot,
    })
}

/// The newest snapshot that verifies, of those at these ascending positions.
///
/// # Errors
/// [`SalvageError`].
pub fn newest_snapshot(
    identity: &Identity,
    positions: &[Position],
    read: &mut dyn FnMut(Position) -> io::Result<Vec<u8>>,
) -> Result<Option<Snapshot>, SalvageError> {
    for position in positions.iter().rev().copied() {
        let bytes = read(position).map_err(|error| SalvageError::Read(snapshot_file_name(position), error))?;
        match Snapshot::parse(bytes, identity.cluster, identity.shard) {
            Ok(snapshot) if snapshot.position() == position => return Ok(Some(snapshot)),
            // The one before it and the log take its place.
            Ok(_) | Err(SnapshotFault::Damaged) => {}
            Err(fault) => return Err(SalvageError::Snapshot(position, fault)),
        }
    }
    Ok(None)
}

/// Joins log and snapshot as a start does. What is kept begins at the snapshot, or at position 0 with a fresh service.
fn state_before(recovered: &mut Recovered, snapshot: Option<&Snapshot>) -> Result<Position, SalvageError> {
    let trimmed = recovered.start;
    match snapshot {
        Some(snapshot) => {
            join(recovered, snapshot, &mut Vec::new()).map_err(|_| SalvageError::Trimmed(trimmed))?;
            Ok(snapshot.position())
        }
        None if trimmed > Position::ZERO => Err(SalvageError::Trimmed(trimmed)),
        None => Ok(Position::ZERO),
    }
}

impl Survey {
    /// Of two logs of one shard the one with the greater rank is taken, as in an election: it has everything that was
    /// committed if one of the two has.
    #[must_use]
    pub fn rank(&self) -> (Term, Position) {
        (self.last_term, self.kept)
    }

    /// Bytes of one file of its log.
    #[must_use]
    pub fn segment_size(&self) -> u64 {
        self.recovered.segments.last().map_or(evershard_log::SEGMENT_SIZE_MIN, |header| header.size)
    }
}

/// Whether these survivors of one shard could go on by themselves: then nothing is to be recovered.
#[must_use]
pub fn quorum_among<'a>(surveys: impl Iterator<Item = &'a Survey> + Clone) -> Option<Membership> {
    let (_, membership) = surveys.clone().max_by_key(|survey| survey.rank())?.membership?;
    let sound: NodeSet = surveys.filter(|survey| survey.doubts.is_empty()).map(|survey| survey.identity.node).collect();
    let majority = |of: NodeSet| 2 * of.intersection(sound).len() > of.len();
    let outgoing = membership.outgoing.is_empty() || majority(membership.outgoing);
    (majority(membership.voters) && outgoing).then_some(membership)
}

fn doubts(slot: Option<&SlotContent>, recovered: &Recovered) -> Vec<Doubt> {
    let mut doubts = Vec::new();
    if let Verdict::Faulty { from, reason, .. } = recovered.verdict {
        doubts.push(Doubt::Faulty { from, reason });
    }
    match slot {
        None => doubts.push(Doubt::VoteLost),
        Some(slot) if slot.recovering => doubts.push(Doubt::Recovering),
        Some(_) => {}
    }
    if let Some(clean_end) = slot.and_then(|slot| slot.clean_end).filter(|clean_end| recovered.end < *clean_end) {
        doubts.push(Doubt::Short { clean_end });
    }
    doubts
}

fn membership_below(
    recovered: &Recovered,
    snapshot: Option<&Snapshot>,
    kept: Position,
) -> Result<Option<(Position, Membership)>, SalvageError> {
    let Some((position, payload)) = recovered.memberships.iter().rfind(|(position, _)| *position <= kept) else {
        return Ok(snapshot.map(|snapshot| (snapshot.position(), snapshot.membership())));
    };
    let membership = Membership::decode(payload, |_, _| {}).ok_or(SalvageError::Membership(*position))?;
    Ok(Some((*position, membership)))
}

/// The old cluster is the one that is meant, and the new one is another.
///
/// # Errors
/// [`SalvageError`].
pub fn check_clusters(survey: &Survey, old: ClusterId, new: ClusterId) -> Result<(), SalvageError> {
    let found = survey.identity.cluster;
    if found != old {
        return Err(SalvageError::OtherCluster { found: found.0, expected: old.0 });
    }
    if new == old { Err(SalvageError::SameCluster) } else { Ok(()) }
}
