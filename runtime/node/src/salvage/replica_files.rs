//! The files of one replica, on the operating system: a survivor's, opened for reading only, and the new one's.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use evershard_log::slots::SLOTS_FILE_SIZE;
use evershard_log::{
    BLOCK_ALIGNMENT, SegmentHeader, SegmentNumber, SegmentSource, segment_file_name, segment_number_of,
};
use evershard_protocol::{Position, ShardId};
use evershard_sys::file::sync_directory;

use super::{ReplicaSink, SalvageError, Survey, identify, newest_snapshot, survey};
use crate::snapshot::{snapshot_file_name, snapshot_position_of};
use crate::storage::SLOTS_FILE;

/// Zeros written at a time.
const ZEROS_SIZE: usize = 1024 * 1024;

/// The files of one replica, opened for reading only.
pub(super) struct LogFiles {
    directory: PathBuf,
    numbers: Vec<SegmentNumber>,
    snapshots: Vec<Position>,
    open: Option<(SegmentNumber, File)>,
}

impl LogFiles {
    pub(super) fn open(directory: &Path) -> io::Result<Self> {
        let (mut numbers, mut snapshots) = (Vec::new(), Vec::new());
        for entry in std::fs::read_dir(directory)? {
            let name = entry?.file_name();
            numbers.extend(name.to_str().and_then(segment_number_of));
            snapshots.extend(name.to_str().and_then(snapshot_position_of));
        }
        numbers.sort_unstable();
        snapshots.sort_unstable();
        Ok(Self { directory: directory.to_owned(), numbers, snapshots, open: None })
    }

    pub(super) fn survey(&mut self, shard: u16) -> Result<Survey, SalvageError> {
        let identity = identify(self)?;
        if identity.shard != ShardId(shard) {
            return Err(SalvageError::Misplaced { found: identity.shard.0, expected: shard });
        }
        let mut slots = [0; SLOTS_FILE_SIZE];
        match std::fs::read(self.directory.join(SLOTS_FILE)) {
            Ok(bytes) => {
                let size = bytes.len().min(slots.len());
                slots[..size].copy_from_slice(&bytes[..size]);
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(SalvageError::Read(SLOTS_FILE.to_owned(), error)),
        }
        let directory = self.directory.clone();
        let snapshot = newest_snapshot(&identity, &self.snapshots, &mut |position| {
            std::fs::read(directory.join(snapshot_file_name(position)))
        })?;
        survey(&identity, &slots, snapshot, self)
    }

    fn path(&self, segment: SegmentNumber) -> PathBuf {
        self.directory.join(segment_file_name(segment))
    }
}

impl SegmentSource for LogFiles {
    fn segments(&self) -> &[SegmentNumber] {
        &self.numbers
    }

    fn size(&self, segment: SegmentNumber) -> u64 {
        std::fs::metadata(self.path(segment)).map_or(0, |metadata| metadata.len())
    }

    fn read(&mut self, segment: SegmentNumber, offset: u64, out: &mut [u8]) -> io::Result<()> {
        if self.open.as_ref().is_none_or(|(number, _)| *number != segment) {
            self.open = Some((segment, File::open(self.path(segment))?));
        }
        let (_, file) = self.open.as_ref().expect("just opened");
        file.read_exact_at(out, offset)
    }
}

/// The files of the new replica.
pub(super) struct NewFiles {
    directory: PathBuf,
    /// The segment that is written; those before it are durable.
    open: Option<(SegmentNumber, File)>,
}

impl NewFiles {
    /// Nothing is in the directory yet.
    pub(super) fn new(directory: &Path) -> Self {
        Self { directory: directory.to_owned(), open: None }
    }

    fn write_new(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let file = File::create_new(self.directory.join(name))?;
        file.write_all_at(bytes, 0)?;
        file.sync_all()
    }

    fn settle(&self) -> io::Result<()> {
        self.open.as_ref().map_or(Ok(()), |(_, file)| file.sync_all())
    }
}

impl ReplicaSink for NewFiles {
    fn prepare(&mut self, header: &SegmentHeader) -> io::Result<()> {
        let file = File::create_new(self.directory.join(segment_file_name(header.number)))?;
        let zeros = vec![0; ZEROS_SIZE];
        let mut offset = 0;
        while offset < header.size {
            let size = ZEROS_SIZE.min(usize::try_from(header.size - offset).unwrap_or(ZEROS_SIZE));
            file.write_all_at(&zeros[..size], offset)?;
            offset += size as u64;
        }
        // The whole directory appears at the end or not at all, so the order of header and zeros does not matter here.
        file.write_all_at(&header.encode(), 0)?;
        self.settle()?;
        self.open = Some((header.number, file));
        Ok(())
    }

    fn write_block(&mut self, segment: SegmentNumber, offset: u64, block: &[u8]) -> io::Result<()> {
        assert!(offset.is_multiple_of(BLOCK_ALIGNMENT as u64), "blocks are written in whole units");
        let (_, file) = self.open.as_ref().filter(|(number, _)| *number == segment).expect("it was prepared last");
        file.write_all_at(block, offset)
    }

    fn write_snapshot(&mut self, position: Position, bytes: &[u8]) -> io::Result<()> {
        self.write_new(&snapshot_file_name(position), bytes)
    }

    fn write_slots(&mut self, slots: &[u8; SLOTS_FILE_SIZE]) -> io::Result<()> {
        self.settle()?;
        self.write_new(SLOTS_FILE, slots)?;
        sync_directory(&self.directory)
    }
}
