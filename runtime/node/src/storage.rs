//! A shard's files at start, on the operating system: found, and opened for the ring. What they mean is decided in
//! [`crate::start`].

use std::io;
use std::path::{Path, PathBuf};

use evershard_consensus::Durability;
use evershard_log::slots::{SLOT_SIZE, SLOTS_FILE_SIZE};
use evershard_log::{
    BLOCK_ALIGNMENT, Identity, RecoveryError, SegmentNumber, SegmentSource, SlotError, segment_file_name,
    segment_number_of,
};
use evershard_protocol::{Position, Timestamp};
use evershard_sys::buffer::AlignedBuffer;
use evershard_sys::clock;
use evershard_sys::file::{Directness, LogFile, sync_directory};

use crate::snapshot::{SnapshotFault, snapshot_file_name, snapshot_position_of};
use crate::start::{ReplicaFiles, StartError, Started, start, writable};

/// Bytes read at a time while the log is looked through.
const SCAN_SIZE: usize = 1024 * 1024;
/// The file with term and vote.
pub(crate) const SLOTS_FILE: &str = "term-and-vote";

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
    /// The log begins above all snapshots.
    #[error(
        "{path}: the log begins at position {start}, and no snapshot that verifies reaches up to there\n\nhint: snapshots were \
         removed or are damaged; put them back, or move the whole shard directory away: the replica then comes back from \
         its peers"
    )]
    SnapshotMissing {
        /// The directory.
        path: PathBuf,
        /// Where the log begins.
        start: Position,
    },
    /// A snapshot is another replica's, or of a newer release.
    #[error("{path}: {source}")]
    Snapshot {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: SnapshotFault,
    },
    /// A record that changes the configuration cannot be read.
    #[error(
        "{path}: the record at position {position} changes who belongs to the shard in a way that this release does not \
         know\n\nhint: a newer release wrote it; upgrade this node"
    )]
    Membership {
        /// The directory.
        path: PathBuf,
        /// Where the record ends.
        position: Position,
    },
}

/// What a shard starts from.
pub struct Storage {
    /// What the files say.
    pub started: Started,
    /// Term and vote.
    pub slots: LogFile,
    /// Segments that may still be written.
    pub segments: Vec<(SegmentNumber, LogFile)>,
}

struct Files {
    directory: PathBuf,
    slots: LogFile,
    numbers: Vec<SegmentNumber>,
    snapshots: Vec<Position>,
    open: Option<(SegmentNumber, LogFile)>,
    buffer: AlignedBuffer,
    /// What `buffer` holds: segment, offset, bytes.
    held: Option<(SegmentNumber, u64, usize)>,
}

impl Storage {
    /// Finds and checks everything below `directory`, making it if it does not exist, and begins a new life of the
    /// replica.
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
        let mut files = Files::open(directory, slots).map_err(failed(directory))?;
        let now = Timestamp(clock::realtime_ns());
        let mut started =
            start(&mut files, identity, durability, now).map_err(|error| located(error, directory, &slots_path))?;
        sync_directory(directory).map_err(failed(directory))?;
        if files.slots.directness() == Directness::Buffered {
            started
                .remarks
                .push("this file system refuses O_DIRECT: writes go through the page cache and take longer".to_owned());
        }
        let mut segments = Vec::new();
        if let Some(number) = writable(&started.recovered) {
            segments.push((number, LogFile::open(&files.path(number)).map_err(failed(directory))?));
        }
        Ok(Self { started, slots: files.slots, segments })
    }
}

fn located(error: StartError, directory: &Path, slots: &Path) -> StorageError {
    let (directory, slots) = (directory.to_owned(), slots.to_owned());
    match error {
        StartError::SlotsIo(source) => StorageError::Io { path: slots, source },
        StartError::LogIo(source) => StorageError::Io { path: directory, source },
        StartError::Slots(source) => StorageError::Slots { path: slots, source },
        StartError::Log(source) => StorageError::Log { path: directory, source },
        StartError::VoteMissing => StorageError::VoteMissing(directory),
        StartError::SnapshotMissing(start) => StorageError::SnapshotMissing { path: directory, start },
        StartError::Snapshot(position, source) => {
            StorageError::Snapshot { path: directory.join(snapshot_file_name(position)), source }
        }
        StartError::Membership(position) => StorageError::Membership { path: directory, position },
    }
}

impl Files {
    fn open(directory: &Path, slots: LogFile) -> io::Result<Self> {
        let (mut numbers, mut snapshots) = (Vec::new(), Vec::new());
        for entry in std::fs::read_dir(directory)? {
            let entry = entry?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if name.ends_with(".preparing") {
                std::fs::remove_file(entry.path())?;
            } else if let Some(number) = segment_number_of(&name) {
                numbers.push(number);
            } else if let Some(position) = snapshot_position_of(&name) {
                snapshots.push(position);
            }
        }
        numbers.sort_unstable();
        snapshots.sort_unstable();
        let directory = directory.to_owned();
        let buffer = AlignedBuffer::new(SCAN_SIZE);
        Ok(Self { directory, slots, numbers, snapshots, open: None, buffer, held: None })
    }

    fn path(&self, number: SegmentNumber) -> PathBuf {
        self.directory.join(segment_file_name(number))
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

    fn forget(&mut self) {
        self.held = None;
    }
}

impl ReplicaFiles for Files {
    fn snapshots(&self) -> Vec<Position> {
        self.snapshots.clone()
    }

    fn read_snapshot(&mut self, position: Position) -> io::Result<Vec<u8>> {
        std::fs::read(self.directory.join(snapshot_file_name(position)))
    }

    fn mend(&mut self, segment: SegmentNumber, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut buffer = AlignedBuffer::new(bytes.len());
        buffer.copy_from_slice(bytes);
        LogFile::open(&self.path(segment))?.write_durably(&buffer, offset)
    }

    fn read_slots(&mut self, out: &mut [u8; SLOTS_FILE_SIZE]) -> io::Result<()> {
        let mut both = AlignedBuffer::new(SLOTS_FILE_SIZE);
        self.slots.read(&mut both, 0)?;
        out.copy_from_slice(&both);
        Ok(())
    }

    fn write_slot(&mut self, offset: u64, slot: &[u8; SLOT_SIZE]) -> io::Result<()> {
        let mut buffer = AlignedBuffer::new(SLOT_SIZE);
        buffer.copy_from_slice(slot);
        self.slots.write_durably(&buffer, offset)
    }

    fn settle(&mut self, kept: &[SegmentNumber], unused: &[SegmentNumber]) -> io::Result<()> {
        self.open = None;
        for number in unused {
            std::fs::remove_file(self.path(*number))?;
        }
        for number in kept {
            std::fs::File::open(self.path(*number))?.sync_all()?;
        }
        sync_directory(&self.directory)
    }
}
