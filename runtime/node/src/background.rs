//! Work off the critical cores: preparing segments, reading the log back, repairing it, and snapshots
//! ([`crate::background_snapshots`]).
//!
//! One glommio executor per node, pinned to a non-critical core if there is one, serves the desks of all shards. A desk
//! is three bounded rings: work, answers, notices; no lock is shared with a shard. The executor looks at the desks
//! every [`POLL_IDLE`] when nothing is going on and every [`POLL_BUSY`] while something is: background work may wait a
//! little, a shard may not be made to enter the kernel for it.
//!
//! glommio 0.9 decides whether a device can be polled by reading the first file an executor opens on it, and decides
//! wrongly if that file is empty: every later read then fails with EOPNOTSUPP (DataDog/glommio #605). So each
//! executor first opens a file that has content; see [`prime`]. And it panics if a file is deleted while it is being opened:
//! whoever opens says so ([`Desk::opening`]), and whoever deletes waits.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_queue::ArrayQueue;
use evershard_log::{BLOCK_ALIGNMENT, SegmentHeader, SegmentNumber, segment_file_name};
use evershard_protocol::{NodeId, Position, ShardId};
use evershard_sys::buffer::AlignedBuffer;
use evershard_sys::file::LogFile;
use glommio::io::{DmaFile, OpenOptions};
use glommio::timer::sleep;
use glommio::{LocalExecutorBuilder, Placement};

use crate::background_snapshots::Snapshotting;
use crate::chunk::ChunkReader;
use crate::env::{Chunk, ReadFailure, ReadRequest};
use crate::notice::Notice;
use crate::shadow::{DropOrder, ShadowMaker, SnapshotFailure, SnapshotOrder};
use crate::snapshot::Snapshot;

/// How often idle desks are looked at.
const POLL_IDLE: Duration = Duration::from_millis(5);
/// How often they are looked at while there is work.
const POLL_BUSY: Duration = Duration::from_micros(200);
/// How long after the last work the executor stays attentive.
const ATTENTIVE: Duration = Duration::from_millis(50);
/// Work of one shard that may wait. Full: the shard asks again later.
const WORK_LEN_MAX: usize = 16;
/// Notices of one shard that may wait. Full: they are counted, not kept.
const NOTICES_LEN_MAX: usize = 256;
/// Zeros written at a time when a segment is prepared.
const ZEROS_SIZE: usize = 512 * 1024;
/// Memory registered with each of the executor's three rings: small enough for a memory lock limit of 8 MiB.
const IO_MEMORY_SIZE: usize = 1024 * 1024;

/// Something to do.
#[derive(Debug)]
pub enum Work {
    /// Make a segment file: header, then zeros, all written, so that later writes change no metadata.
    Prepare(SegmentHeader),
    /// Read log content back.
    Read(ReadRequest),
    /// Have the shadow take a snapshot.
    TakeSnapshot(SnapshotOrder),
    /// Write a snapshot of another replica.
    KeepSnapshot(Box<Snapshot>),
    /// Read a part of a snapshot.
    ReadSnapshot {
        /// Which.
        position: Position,
        /// Where the part begins.
        offset: u64,
    },
    /// Delete what is not needed any more.
    Drop(DropOrder),
    /// Write a block again, where it was, and see that it is there.
    Repair {
        /// The segment.
        segment: SegmentNumber,
        /// Where in its file.
        offset: u64,
        /// The whole block.
        block: AlignedBuffer,
    },
}

/// Something done.
#[derive(Debug)]
pub enum Answer {
    /// The segment is there, under its name, durable.
    Prepared {
        /// Its header.
        header: SegmentHeader,
        /// Opened for the shard to write.
        file: LogFile,
    },
    /// It could not be made.
    NotPrepared {
        /// Why.
        errno: i32,
    },
    /// The snapshot is durable under its name, or not.
    SnapshotTaken {
        /// Where it stands.
        position: Position,
        /// Its size, or why there is none.
        outcome: Result<u64, SnapshotFailure>,
    },
    /// The snapshot is durable under its name, or not.
    SnapshotKept {
        /// It comes back.
        snapshot: Box<Snapshot>,
        /// The error's number, if it failed.
        outcome: Result<(), i32>,
    },
    /// A part of a snapshot, with the size of the whole.
    SnapshotRead {
        /// Which.
        position: Position,
        /// Where the part begins.
        offset: u64,
        /// The part, or the error's number.
        outcome: Result<(Vec<u8>, u64), i32>,
    },
    /// It is gone, or not.
    Dropped {
        /// The error's number, if it failed.
        outcome: Result<(), i32>,
    },
    /// The block was written and reads back, or not.
    Repaired {
        /// The segment.
        segment: SegmentNumber,
        /// Where in its file.
        offset: u64,
        /// The error's number, if it failed.
        outcome: Result<(), i32>,
    },
    /// What was read.
    Read {
        /// The question.
        request: ReadRequest,
        /// Content, or what is wrong.
        chunk: Result<Chunk, ReadFailure>,
    },
}

/// Where a shard and the background meet.
pub struct Desk {
    node: NodeId,
    shard: ShardId,
    pub(crate) directory: PathBuf,
    pub(crate) shadows: Box<dyn ShadowMaker>,
    /// Files that are being opened. Only the executor's thread counts here.
    openings: AtomicU64,
    work: ArrayQueue<Work>,
    answers: ArrayQueue<Answer>,
    notices: ArrayQueue<Notice>,
    notices_lost: AtomicU64,
}

impl Desk {
    /// A desk for one shard, whose log is in `directory` and whose shadows come from `shadows`.
    #[must_use]
    pub fn new(node: NodeId, shard: ShardId, directory: PathBuf, shadows: Box<dyn ShadowMaker>) -> Self {
        Self {
            node,
            shard,
            directory,
            shadows,
            openings: AtomicU64::new(0),
            work: ArrayQueue::new(WORK_LEN_MAX),
            answers: ArrayQueue::new(WORK_LEN_MAX + 1),
            notices: ArrayQueue::new(NOTICES_LEN_MAX),
            notices_lost: AtomicU64::new(0),
        }
    }

    /// Asks for something; false when there is too much to do already.
    pub fn ask(&self, work: Work) -> bool {
        self.work.push(work).is_ok()
    }

    /// Asks for a snapshot to be written; gives it back when there is too much to do already.
    ///
    /// # Errors
    /// The snapshot.
    pub fn ask_to_keep(&self, snapshot: Box<Snapshot>) -> Result<(), Box<Snapshot>> {
        self.work.push(Work::KeepSnapshot(snapshot)).map_err(|back| match back {
            Work::KeepSnapshot(snapshot) => snapshot,
            _ => unreachable!("the queue gives back what it was given"),
        })
    }

    /// Until it is dropped nothing is deleted.
    pub(crate) fn opening(&self) -> Opening<'_> {
        // Relaxed: one thread counts, and looks.
        self.openings.fetch_add(1, Ordering::Relaxed);
        Opening(self)
    }

    /// Whether a file is being opened just now.
    pub(crate) fn is_opening(&self) -> bool {
        self.openings.load(Ordering::Relaxed) > 0
    }

    /// Takes something done.
    pub fn take_answer(&self) -> Option<Answer> {
        self.answers.pop()
    }

    /// Says something to people.
    pub fn notify(&self, notice: Notice) {
        if self.notices.push(notice).is_err() {
            // Relaxed: a mere count.
            self.notices_lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn log_notices(&self) {
        while let Some(notice) = self.notices.pop() {
            notice.log(self.node, self.shard);
        }
        // Relaxed: a mere count.
        let lost = self.notices_lost.swap(0, Ordering::Relaxed);
        if lost > 0 {
            tracing::warn!(node = self.node.0, shard = self.shard.0, lost, "notices were lost: too many at once");
        }
    }

    /// Answers are taken with every turn of the shard and there is room for as many as there may be work.
    pub(crate) fn answer(&self, mut answer: Answer, stop: &AtomicBool) {
        while let Err(back) = self.answers.push(answer) {
            if stop.load(Ordering::Relaxed) {
                return;
            }
            answer = back;
            std::thread::yield_now();
        }
    }
}

/// A file is being opened.
pub(crate) struct Opening<'a>(&'a Desk);

impl Drop for Opening<'_> {
    fn drop(&mut self) {
        self.0.openings.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The background of one node.
pub struct Background {
    thread: Option<JoinHandle<()>>,
    stop: Arc<AtomicBool>,
}

/// Tells a node that its background has panicked: without segments and reads its shards would stand still before long.
struct StopOnPanic(Arc<AtomicBool>);

impl Drop for StopOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // Relaxed: nothing else is published with the flag.
            self.0.store(true, Ordering::Relaxed);
        }
    }
}

/// The background could not be started.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot start the background executor: {0}\n\nhint: it needs io_uring and about 512 KiB of locked memory \
     (`ulimit -l`, LimitMEMLOCK= in the systemd unit); `evershard-tuning check` tells what this host allows"
)]
pub struct BackgroundError(String);

impl Background {
    /// Starts the executor, on `core` if one is given. Should it panic, `node_stop` is set.
    ///
    /// # Errors
    /// [`BackgroundError`] if glommio cannot set up its rings here.
    pub fn start(
        desks: Vec<Arc<Desk>>,
        core: Option<usize>,
        scratch: PathBuf,
        node_stop: Arc<AtomicBool>,
    ) -> Result<Self, BackgroundError> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let (started, starting) = std::sync::mpsc::sync_channel(1);
        let body = move || {
            let _guard = StopOnPanic(node_stop);
            let placement = core.map_or(Placement::Unbound, Placement::Fixed);
            let builder = LocalExecutorBuilder::new(placement).name("background").io_memory(IO_MEMORY_SIZE);
            let executor = match builder.make() {
                Ok(executor) => executor,
                Err(error) => return started.send(Err(BackgroundError(error.to_string()))).unwrap_or(()),
            };
            executor.run(async move {
                let primed = prime(&scratch).await.map_err(|error| BackgroundError(error.to_string()));
                let go_on = primed.is_ok();
                let _ = started.send(primed);
                if go_on {
                    serve(&desks, &stopped).await;
                }
            });
        };
        let thread = std::thread::Builder::new()
            .name("background".to_owned())
            .spawn(body)
            .map_err(|error| BackgroundError(error.to_string()))?;
        starting.recv().unwrap_or_else(|_| Err(BackgroundError("it panicked while starting".to_owned())))?;
        Ok(Self { thread: Some(thread), stop })
    }
}

impl Background {
    /// Ends the executor; false if it had panicked.
    pub fn end(&mut self) -> bool {
        // Relaxed: the thread is joined right after.
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().is_none_or(|thread| thread.join().is_ok())
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.end();
    }
}

/// Makes the executor look at a file with content first; see the module's text.
async fn prime(directory: &Path) -> io::Result<()> {
    let path = directory.join("prime");
    std::fs::write(&path, vec![0_u8; 2 * BLOCK_ALIGNMENT])?;
    let opened = OpenOptions::new().read(true).dma_open(&path).await;
    if let Ok(file) = opened {
        file.close().await.map_err(io_error)?;
    }
    std::fs::remove_file(&path)
}

async fn serve(desks: &[Arc<Desk>], stop: &Arc<AtomicBool>) {
    let snapshots = Snapshotting::new(Arc::clone(stop));
    let mut last_work = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        for desk in desks {
            desk.log_notices();
            while let Some(work) = desk.work.pop() {
                last_work = Instant::now();
                match work {
                    // In a task of its own: reading back must not wait for a whole segment of zeros.
                    Work::Prepare(header) => {
                        let (desk, stop) = (Arc::clone(desk), Arc::clone(stop));
                        glommio::spawn_local(async move {
                            let answer = match prepare(&desk.directory, &header).await {
                                Ok(file) => Answer::Prepared { header, file },
                                Err(error) => Answer::NotPrepared { errno: error.raw_os_error().unwrap_or(libc::EIO) },
                            };
                            desk.answer(answer, &stop);
                        })
                        .detach();
                    }
                    Work::TakeSnapshot(order) => snapshots.take(Arc::clone(desk), order),
                    Work::KeepSnapshot(snapshot) => snapshots.keep(Arc::clone(desk), snapshot),
                    Work::ReadSnapshot { position, offset } => {
                        snapshots.read(Arc::clone(desk), position, offset);
                    }
                    Work::Drop(order) => snapshots.drop(Arc::clone(desk), order),
                    Work::Read(request) => {
                        let chunk = read(desk, &request).await;
                        desk.answer(Answer::Read { request, chunk }, stop);
                    }
                    Work::Repair { segment, offset, block } => {
                        let outcome = repair(desk, segment, offset, &block).await;
                        let outcome = outcome.map_err(|error| error.raw_os_error().unwrap_or(libc::EIO));
                        desk.answer(Answer::Repaired { segment, offset, outcome }, stop);
                    }
                }
            }
        }
        sleep(if last_work.elapsed() < ATTENTIVE { POLL_BUSY } else { POLL_IDLE }).await;
    }
    for desk in desks {
        desk.log_notices();
    }
}

/// Writes header and zeros under another name, then renames: a segment is there as a whole or not at all.
async fn prepare(directory: &Path, header: &SegmentHeader) -> io::Result<LogFile> {
    let path = directory.join(segment_file_name(header.number));
    let unfinished = path.with_extension("preparing");
    let outcome = fill(&unfinished, header).await;
    if let Err(error) = outcome {
        // What was written takes the space that is lacking.
        let _ = std::fs::remove_file(&unfinished);
        return Err(error);
    }
    std::fs::rename(&unfinished, &path)?;
    evershard_sys::file::sync_directory(directory)?;
    LogFile::open(&path)
}

async fn fill(path: &Path, header: &SegmentHeader) -> io::Result<()> {
    let _ = std::fs::remove_file(path);
    let file = match DmaFile::create(path).await {
        Ok(file) => file,
        Err(error) => return Err(io_error(error)),
    };
    let outcome = write_all(&file, header).await;
    file.close().await.map_err(io_error)?;
    outcome
}

async fn write_all(file: &DmaFile, header: &SegmentHeader) -> io::Result<()> {
    file.pre_allocate(header.size, false).await.map_err(io_error)?;
    let mut offset = 0;
    while offset < header.size {
        let size = ZEROS_SIZE.min(usize::try_from(header.size - offset).unwrap_or(ZEROS_SIZE));
        let mut buffer = file.alloc_dma_buffer(size);
        buffer.as_bytes_mut().fill(0);
        if offset == 0 {
            let encoded = header.encode();
            buffer.as_bytes_mut()[..encoded.len()].copy_from_slice(&encoded);
        }
        let written = file.write_at(buffer, offset).await.map_err(io_error)?;
        if written != size {
            return Err(io::Error::from_raw_os_error(libc::ENOSPC));
        }
        offset += size as u64;
    }
    file.fdatasync().await.map_err(io_error)
}

pub(crate) async fn read(desk: &Desk, request: &ReadRequest) -> Result<Chunk, ReadFailure> {
    let failed = |error: io::Error| ReadFailure::Disk(error.raw_os_error().unwrap_or(libc::EIO));
    let file = open(desk, &segment_file_name(request.location.segment)).await.map_err(failed)?;
    let outcome = read_from(&file, request).await;
    file.close().await.map_err(io_error).map_err(failed)?;
    outcome
}

async fn repair(desk: &Desk, segment: SegmentNumber, offset: u64, block: &[u8]) -> io::Result<()> {
    let path = desk.directory.join(segment_file_name(segment));
    let opening = desk.opening();
    let file = OpenOptions::new().read(true).write(true).dma_open(&path).await.map_err(io_error)?;
    drop(opening);
    let outcome = rewrite(&file, offset, block).await;
    file.close().await.map_err(io_error)?;
    outcome
}

async fn rewrite(file: &DmaFile, offset: u64, block: &[u8]) -> io::Result<()> {
    let mut buffer = file.alloc_dma_buffer(block.len());
    buffer.as_bytes_mut().copy_from_slice(block);
    let written = file.write_at(buffer, offset).await.map_err(io_error)?;
    file.fdatasync().await.map_err(io_error)?;
    let found = file.read_at_aligned(offset, block.len()).await.map_err(io_error)?;
    let there = written == block.len() && found[..] == *block;
    if there { Ok(()) } else { Err(io::Error::from_raw_os_error(libc::EIO)) }
}

/// Opens a file of a shard for reading.
pub(crate) async fn open(desk: &Desk, name: &str) -> io::Result<DmaFile> {
    let path = desk.directory.join(name);
    let _opening = desk.opening();
    OpenOptions::new().read(true).dma_open(&path).await.map_err(io_error)
}

async fn read_from(file: &DmaFile, request: &ReadRequest) -> Result<Chunk, ReadFailure> {
    let failed = |error| ReadFailure::Disk(io_error(error).raw_os_error().unwrap_or(libc::EIO));
    let head = file.read_at_aligned(0, BLOCK_ALIGNMENT).await.map_err(failed)?;
    let end = file.file_size().await.map_err(failed)?;
    let mut reader = ChunkReader::new(*request, &head, end)?;
    while let Some((offset, size)) = reader.wants() {
        let bytes = file.read_at_aligned(offset, size).await.map_err(failed)?;
        reader.take(&bytes)?;
    }
    Ok(reader.finish())
}

/// The system's own error, which glommio wraps: its number is what people are told.
pub(crate) fn io_error<T>(error: glommio::GlommioError<T>) -> io::Error {
    match error {
        glommio::GlommioError::IoError(source) | glommio::GlommioError::EnhancedIoError { source, .. } => source,
        other => other.into(),
    }
}
