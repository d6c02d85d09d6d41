//! A shard's files at start: found, checked, and opened for the ring.

use std::io;
use std::path::{Path, PathBuf};

use evershard_consensus::{Durability, HardState, Restored, Standing, TermTable};
use evershard_log::{
    BLOCK_ALIGNMENT, Identity, Recovered, RecoveryError, SegmentNumber, SegmentSource, SlotContent, SlotError, Verdict,
    choose_slot, encode_slot, recover, segment_file_name, segment_number_of, slot_offset,
};
use evershard_protocol::{Incarnation, Position, Term};
use evershard_sys::buffer::AlignedBuffer;
use evershard_sys::clock;
use evershard_sys::file::{Directness, LogFile, sync_directory};

/// Bytes read at a time while the log is looked through.
const SCAN_SIZE: usize = 1024 * 1024;
/// The file with term and vote.
const SLOTS_FILE: &str = "term-and-vote";

/// Why a shard's files cannot be used. The operator's to mend.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// The system refuses a file.
    #[error("{path}: {source}\n\nhint: check that the data directory exists, has space and belongs to this user")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Term and vote are of another replica, or damaged.
    #[error("{path}: {source}")]
    Slots {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: SlotError,
    },
    /// The log is of another replica, or something is missing.
    #[error("{path}: {source}")]
    Log {
        /// The directory.
        path: PathBuf,
        /// What is wrong.
        source: RecoveryError,
    },
    /// There is a log but nobody knows what was voted.
    #[error(
        "{0} holds a log but no term and vote\n\nhint: the file `{SLOTS_FILE}` was removed; without it this replica \
         might vote twice in a term. Restore it, or move the whole shard directory away: the replica then comes back \
         from its peers"
    )]
    VoteMissing(PathBuf),
}

/// What a shard starts from.
pub struct Storage {
    /// What was found of the log.
    pub recovered: Recovered,
    /// What is now in the slots.
    pub slot: SlotContent,
    /// How the replica stands in consensus.
    pub restored: Restored,
    /// Term and vote.
    pub slots: LogFile,
    /// Segments that may still be written.
    pub segments: Vec<(SegmentNumber, LogFile)>,
    /// Sentences for the operator.
    pub remarks: Vec<String>,
}

struct Files {
    directory: PathBuf,
    numbers: Vec<SegmentNumber>,
    open: Option<(SegmentNumber, LogFile)>,
    buffer: AlignedBuffer,
    /// What `buffer` holds: segment, offset, bytes.
    held: Option<(SegmentNumber, u64, usize)>,
}

impl Storage {
    /// Finds and checks everything below `directory`, making it if it does not exist, and begins a new life of the
    /// replica: the mark of a clean stop, if there is one, is taken away before anything else happens.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn open(directory: &Path, identity: &Identity, durability: Durability) -> Result<Self, StorageError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| StorageError::Io { path, source }
        };
        std::fs::create_dir_all(directory).map_err(failed(directory))?;
        let slots_path = directory.join(SLOTS_FILE);
        let slots = LogFile::open_or_create(&slots_path).map_err(failed(&slots_path))?;
        let found = read_slots(&slots, &slots_path, identity)?;
        let mut files = Files::open(directory).map_err(failed(directory))?;
        if found.is_none() && !files.numbers.is_empty() {
            return Err(StorageError::VoteMissing(directory.to_owned()));
        }
        let recovered =
            recover(identity, &mut files).map_err(|source| StorageError::Log { path: directory.to_owned(), source })?;
        files.settle(&recovered).map_err(failed(directory))?;

        let mut remarks = Vec::new();
        let standing = judge(found.as_ref(), &recovered, &mut remarks);
        if slots.directness() == Directness::Buffered {
            remarks
                .push("this file system refuses O_DIRECT: writes go through the page cache and take longer".to_owned());
        }
        let hard = HardState {
            term: found.as_ref().map_or(Term(0), |slot| slot.term),
            vote: found.as_ref().and_then(|slot| slot.vote),
            standing,
        };
        let slot = begin_life(&slots, identity, found.as_ref(), hard, durability).map_err(failed(&slots_path))?;
        sync_directory(directory).map_err(failed(directory))?;

        let mut terms = TermTable::new();
        for (at, (term, _)) in recovered.runs.iter().enumerate() {
            let end = recovered.runs.get(at + 1).map_or(recovered.end, |(_, start)| *start);
            terms.append(*term, end);
        }
        let segments = files.writable(&recovered).map_err(failed(directory))?;
        let restored =
            Restored { hard, terms, memberships: Vec::new(), durable: recovered.end, commit: recovered.committed };
        Ok(Self { recovered, slot, restored, slots, segments, remarks })
    }
}

fn read_slots(slots: &LogFile, path: &Path, identity: &Identity) -> Result<Option<SlotContent>, StorageError> {
    let mut both = AlignedBuffer::new(2 * BLOCK_ALIGNMENT);
    slots.read(&mut both, 0).map_err(|source| StorageError::Io { path: path.to_owned(), source })?;
    let (one, other) = both.split_at(BLOCK_ALIGNMENT);
    choose_slot(identity, one, other).map_err(|source| StorageError::Slots { path: path.to_owned(), source })
}

/// Whether this replica's word counts from the start, and what to tell about it.
fn judge(found: Option<&SlotContent>, recovered: &Recovered, remarks: &mut Vec<String>) -> Standing {
    if let Some(cut) = &recovered.cut {
        remarks.push(format!("a torn write at the end of the log was cut; it was never acknowledged: {cut:?}"));
    }
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
    slots: &LogFile,
    identity: &Identity,
    found: Option<&SlotContent>,
    hard: HardState,
    durability: Durability,
) -> io::Result<SlotContent> {
    let previous = found.map_or(0, |slot| slot.incarnation.0);
    let slot = SlotContent {
        sequence: found.map_or(0, |slot| slot.sequence) + 1,
        term: hard.term,
        vote: hard.vote,
        recovering: hard.standing == Standing::Recovering || durability == Durability::Replicated,
        incarnation: Incarnation(clock::realtime_ns().max(previous + 1)),
        clean_end: None::<Position>,
        identity: *identity,
    };
    let mut buffer = AlignedBuffer::new(BLOCK_ALIGNMENT);
    if found.is_none() {
        // Both slots exist from now on: later writes change no metadata.
        slots.write_durably(&buffer, slot_offset(slot.sequence + 1))?;
    }
    buffer.copy_from_slice(&encode_slot(&slot));
    slots.write_durably(&buffer, slot_offset(slot.sequence))?;
    Ok(slot)
}

impl Files {
    fn open(directory: &Path) -> io::Result<Self> {
        let mut numbers = Vec::new();
        for entry in std::fs::read_dir(directory)? {
            let entry = entry?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if name.ends_with(".preparing") {
                std::fs::remove_file(entry.path())?;
            } else if let Some(number) = segment_number_of(&name) {
                numbers.push(number);
            }
        }
        numbers.sort_unstable();
        let directory = directory.to_owned();
        Ok(Self { directory, numbers, open: None, buffer: AlignedBuffer::new(SCAN_SIZE), held: None })
    }

    fn path(&self, number: SegmentNumber) -> PathBuf {
        self.directory.join(segment_file_name(number))
    }

    /// Makes durable what was read (a process that was killed leaves pages that the disk has not seen), and removes
    /// segments that hold nothing.
    fn settle(&mut self, recovered: &Recovered) -> io::Result<()> {
        self.open = None;
        for number in &recovered.unused {
            std::fs::remove_file(self.path(*number))?;
        }
        for header in &recovered.segments {
            if !recovered.unused.contains(&header.number) {
                std::fs::File::open(self.path(header.number))?.sync_all()?;
            }
        }
        sync_directory(&self.directory)
    }

    fn writable(&self, recovered: &Recovered) -> io::Result<Vec<(SegmentNumber, LogFile)>> {
        let mut newest = recovered.segments.iter().rev();
        let last = newest.find(|header| !recovered.unused.contains(&header.number)).map(|header| header.number);
        last.into_iter().map(|number| Ok((number, LogFile::open(&self.path(number))?))).collect()
    }

    fn fill(&mut self, segment: SegmentNumber, offset: u64) -> io::Result<()> {
        if self.open.as_ref().is_none_or(|(number, _)| *number != segment) {
            self.open = Some((segment, LogFile::open(&self.path(segment))?));
        }
        let (_, file) = self.open.as_ref().expect("just opened");
        let aligned = offset / BLOCK_ALIGNMENT as u64 * BLOCK_ALIGNMENT as u64;
        let size = file.read(&mut self.buffer, aligned)?;
        self.held = Some((segment, aligned, size));
        Ok(())
    }
}

impl SegmentSource for Files {
    fn segments(&self) -> &[SegmentNumber] {
        &self.numbers
    }

    fn size(&self, segment: SegmentNumber) -> u64 {
        std::fs::metadata(self.path(segment)).map_or(0, |metadata| metadata.len())
    }

    fn read(&mut self, segment: SegmentNumber, mut offset: u64, mut out: &mut [u8]) -> io::Result<()> {
        while !out.is_empty() {
            let inside = self
                .held
                .filter(|(held, start, size)| *held == segment && (*start..*start + *size as u64).contains(&offset));
            let Some((_, start, size)) = inside else {
                self.fill(segment, offset)?;
                let (_, start, size) = self.held.expect("just filled");
                if offset >= start + size as u64 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                continue;
            };
            let from = usize::try_from(offset - start).expect("inside the buffer");
            let part = out.len().min(size - from);
            let (front, rest) = out.split_at_mut(part);
            front.copy_from_slice(&self.buffer[from..from + part]);
            offset += part as u64;
            out = rest;
        }
        Ok(())
    }
}
