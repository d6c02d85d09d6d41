//! Finds the log again when a replica starts.
//!
//! Recovery walks the blocks from the oldest segment on and asks the table of [`crate::recovery_table`] at every place
//! where no good block follows. The *lineage* is the chain of segments that leads to the newest one by their start
//! blocks' `previous` field; a segment beside it was left by an earlier recovery. Within the lineage the next segment's
//! start names the last good block before it; when the walk reaches that block it goes over to that segment, and
//! whatever stands behind the block was left as well.
//!
//! A block that does not verify and whose header is known, by itself or from the block behind it, is noted as a
//! [`Hole`], and the walk goes on behind it: what follows is kept. A place is read [`READS_MAX`] times before anything is
//! concluded from what is wrong there: a disk may once give back old bytes and then the right ones.

use evershard_protocol::{Position, ServiceVersion, Term, Timestamp};
use std::fmt;

use crate::hole::Hole;
use crate::lineage::lineage;
use crate::scan::Reading;
use crate::segment::{Identity, SegmentHeader, SegmentNumber, segment_file_name};
use crate::start::StartCause;
use crate::table::BlockTable;
use crate::walk::{Walk, Walked};
use crate::writer::Place;

/// How often a place is read before it counts as damaged.
pub const READS_MAX: usize = 3;

/// Where recovery reads from: the segment files of one log.
pub trait SegmentSource {
    /// All segments there are, ascending.
    fn segments(&self) -> &[SegmentNumber];
    /// Bytes of a segment's file.
    fn size(&self, segment: SegmentNumber) -> u64;
    /// Fills `out` from a segment's file. `offset` and the length are multiples of 4096 within the file; `out` lies
    /// anywhere in memory.
    ///
    /// # Errors
    /// If the file cannot be read there.
    fn read(&mut self, segment: SegmentNumber, offset: u64, out: &mut [u8]) -> std::io::Result<()>;
    /// Forgets what was read ahead: the next read asks the disk.
    fn forget(&mut self) {}
}

/// What recovery found.
#[derive(Clone, Debug)]
pub struct Recovered {
    /// The stream begins here; what is below is in a snapshot. If no snapshot reaches up to here, this replica needs
    /// one from a peer.
    pub start: Position,
    /// The stream ends here.
    pub end: Position,
    /// The terms: where the first record of each begins.
    pub runs: Vec<(Term, Position)>,
    /// Service versions that the newest segment's start lists.
    pub versions: Vec<(Position, ServiceVersion)>,
    /// Payloads of the latest records that changed the configuration, by position, ascending.
    pub memberships: Vec<(Position, Vec<u8>)>,
    /// The greatest record time in the log.
    pub log_time: Timestamp,
    /// The highest commit position that a good block names, at most `end`. The true one may be higher.
    pub committed: Position,
    /// Where positions are on disk.
    pub table: BlockTable,
    /// All readable segments' headers, ascending.
    pub segments: Vec<SegmentHeader>,
    /// Segments that hold nothing of the log: never used, or left by an earlier recovery. They may be deleted.
    pub unused: Vec<SegmentNumber>,
    /// What the end looks like.
    pub verdict: Verdict,
    /// A torn tail that was cut, to be told to the operator.
    pub cut: Option<Cut>,
    /// Blocks below `end` that do not verify and are known, ascending: to be repaired from a peer.
    pub holes: Vec<Hole>,
    /// What recovery could restore by itself. It is to be written durably; until then the next recovery finds the same.
    pub mends: Vec<Mend>,
    pub(crate) place: Place,
}

impl Default for Recovered {
    /// A log that has nothing yet.
    fn default() -> Self {
        Self {
            start: Position::ZERO,
            end: Position::ZERO,
            runs: Vec::new(),
            versions: Vec::new(),
            memberships: Vec::new(),
            log_time: Timestamp(0),
            committed: Position::ZERO,
            table: BlockTable::default(),
            segments: Vec::new(),
            unused: Vec::new(),
            verdict: Verdict::Clean,
            cut: None,
            holes: Vec::new(),
            mends: Vec::new(),
            place: Place::FRESH,
        }
    }
}

impl Recovered {
    /// A durable snapshot at `start` takes the place of all that was found, which ends below it or is of another history:
    /// the stream begins anew there. All segments are [`Recovered::unused`] then.
    pub fn begin_anew(&mut self, start: Position) {
        let place = Place { current: None, cause: StartCause::Anew, known_end: Position::ZERO, ..self.place };
        *self = Self {
            start,
            end: start,
            committed: start,
            log_time: self.log_time,
            versions: std::mem::take(&mut self.versions),
            unused: self.segments.iter().map(|header| header.number).collect(),
            place,
            ..Self::default()
        };
    }
}

/// A segment's header or start block that did not verify, restored from what the rest of the log says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mend {
    /// The segment to write to.
    pub segment: SegmentNumber,
    /// Where in its file.
    pub offset: u64,
    /// Whole units of 4096 bytes.
    pub bytes: Vec<u8>,
}

/// What the end of the log looks like.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// It ends where nothing was ever written.
    Clean,
    /// Writes were under way when the power went, and none of them was acknowledged.
    TornTailCut {
        /// The segment where the cut is.
        segment: SegmentNumber,
        /// The block that is not there.
        offset: u64,
    },
    /// It once went on and is damaged: everything below `from` is good, and from there on the replica knows that it
    /// had something. It must not count as lacking it.
    Faulty {
        /// Where the good prefix ends.
        from: Position,
        /// The segment with the damage.
        segment: SegmentNumber,
        /// The block with the damage.
        offset: u64,
        /// What it is.
        reason: FaultReason,
    },
}

/// What a fault looks like.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FaultReason {
    /// The segment's header cannot be read.
    SegmentHeader,
    /// There is something that is not the block that was written there.
    Header,
    /// The block's content does not verify, and no sector is missing.
    Content,
    /// The block is missing or torn, and later blocks say that it was durable.
    Missing,
    /// The block is good and follows another one than the one before it.
    Chain,
    /// The block is damaged, and later the stream was cut within it: nobody has all that was in it.
    CutHole,
    /// An earlier recovery found a fault, and the log has not been filled again up to where it once reached.
    Unrepaired,
}

impl fmt::Display for FaultReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SegmentHeader => "the segment's header does not verify",
            Self::Header => "the block's header does not verify",
            Self::Content => "the block's content does not verify though all its sectors are there",
            Self::Missing => "the block is gone though it was durable once",
            Self::Chain => "the block does not follow the one before it",
            Self::CutHole => "the block does not verify, and the log was cut within it later",
            Self::Unrepaired => "an earlier fault has not been repaired from a peer yet",
        })
    }
}

/// A torn tail that was cut.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cut {
    /// The log ends here.
    pub position: Position,
    /// The segment where the cut is.
    pub segment: SegmentNumber,
    /// The block that is not there.
    pub offset: u64,
    /// At most so many bytes of files are left unused.
    pub bytes_left: u64,
}

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (file, Self { position, offset, bytes_left, .. }) = (segment_file_name(self.segment), self);
        write!(
            f,
            "the log ends at position {position}: writes were under way when it stopped. {bytes_left} bytes from \
             {file} offset {offset} on were never acknowledged and are left unused"
        )
    }
}

/// Why recovery refuses to go on.
#[derive(Debug, thiserror::Error)]
pub enum RecoveryError {
    /// A segment belongs to somebody else.
    #[error(
        "{} belongs to {found}, but this is {expected}. The data directory was probably copied or mixed up: \
         put the right one in place", segment_file_name(*.segment)
    )]
    Foreign {
        /// Which.
        segment: SegmentNumber,
        /// Whose it is.
        found: Identity,
        /// Who asks.
        expected: Identity,
    },
    /// A release wrote it whose logs this one does not read.
    #[error(
        "{} has format {format}, which is older than what this release reads. No release between the two can convert \
         it: run the release that wrote it, or move the data directories of all nodes away and begin anew",
        segment_file_name(*.segment)
    )]
    OlderFormat {
        /// Which.
        segment: SegmentNumber,
        /// Its format.
        format: u16,
    },
    /// A newer release wrote it.
    #[error(
        "{} has format {format}, which this release does not know. A newer release wrote it: upgrade this node",
        segment_file_name(*.segment)
    )]
    NewerFormat {
        /// Which.
        segment: SegmentNumber,
        /// Its format.
        format: u16,
    },
    /// A segment in the middle is not there.
    #[error(
        "{} is missing while older ones are there. It was probably deleted or not copied: put it back, or empty the \
         data directory and let this node start anew as a learner", segment_file_name(*.segment)
    )]
    Missing {
        /// Which.
        segment: SegmentNumber,
    },
    /// A file has another segment's name.
    #[error(
        "{} says that it is segment {found}. It was probably renamed: give it back the name {}",
        segment_file_name(*.segment), segment_file_name(*.found)
    )]
    Misnamed {
        /// By its name.
        segment: SegmentNumber,
        /// By its header.
        found: SegmentNumber,
    },
    /// A file is shorter than its header says.
    #[error(
        "{} has {found} bytes of {expected}. Something cut it, perhaps an incomplete copy: put the whole file back",
        segment_file_name(*.segment)
    )]
    Shortened {
        /// Which.
        segment: SegmentNumber,
        /// Bytes there are.
        found: u64,
        /// Bytes there should be.
        expected: u64,
    },
    /// A file cannot be read.
    #[error("{} cannot be read at offset {offset}: {source}. Look at the disk", segment_file_name(*.segment))]
    Read {
        /// Which.
        segment: SegmentNumber,
        /// Where.
        offset: u64,
        /// What the system says.
        source: std::io::Error,
    },
}

/// Finds the log in its segments.
///
/// # Errors
/// See [`RecoveryError`]: what an operator must look at. Damage within the log is not an error but a [`Verdict`].
pub fn recover(identity: &Identity, source: &mut dyn SegmentSource) -> Result<Recovered, RecoveryError> {
    let mut reading = Reading::new(source);
    let segments = reading.survey(identity)?;
    let lineage = lineage(&segments)?;
    match Walk::new(&segments, &lineage, None).run(&mut reading)? {
        Walked::ToTheEnd(recovered) => Ok(*recovered),
        Walked::CutHole(place) => match Walk::new(&segments, &lineage, Some(place)).run(&mut reading)? {
            Walked::ToTheEnd(recovered) => Ok(*recovered),
            Walked::CutHole(_) => unreachable!("this walk ends at the first such hole"),
        },
    }
}
