//! Snapshots on the background executor: the shadow at work, files written and read, what is old deleted.
//!
//! Each piece of work is a task of its own in a queue of few shares, so that preparing segments and reading back for a
//! shard that waits come first; the shadow yields after every chunk of log.

use std::io;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use evershard_log::{BLOCK_ALIGNMENT, segment_number_of};
use evershard_protocol::Position;
use glommio::io::DmaFile;
use glommio::{Latency, Shares, TaskQueueHandle};

use crate::background::{Answer, Desk, io_error, open, read};
use crate::shadow::{DropOrder, SnapshotFailure, SnapshotJob, SnapshotOrder};
use crate::shipping::PIECE_SIZE;
use crate::snapshot::{Snapshot, snapshot_file_name, snapshot_position_of};

/// Bytes written at a time.
const WRITE_SIZE: usize = 512 * 1024;
const _: () = assert!(WRITE_SIZE.is_multiple_of(BLOCK_ALIGNMENT), "direct IO writes whole blocks");
/// A file that is being opened is waited for like this before anything is deleted.
const OPENING_PAUSE: Duration = Duration::from_micros(100);
/// Of the executor's time while other work waits; the default queue has 1000.
const SHARES: usize = 100;

/// Does the work that has to do with snapshots.
pub(crate) struct Snapshotting {
    queue: TaskQueueHandle,
    stop: Arc<AtomicBool>,
}

impl Snapshotting {
    /// On the executor that calls.
    pub(crate) fn new(stop: Arc<AtomicBool>) -> Self {
        let queue = glommio::executor().create_task_queue(Shares::Static(SHARES), Latency::NotImportant, "snapshots");
        Self { queue, stop }
    }

    fn spawn(&self, work: impl Future<Output = ()> + 'static) {
        glommio::spawn_local_into(work, self.queue).expect("the queue was made on this executor").detach();
    }

    pub(crate) fn take(&self, desk: Arc<Desk>, order: SnapshotOrder) {
        let stop = Arc::clone(&self.stop);
        self.spawn(async move {
            let position = order.mark.position;
            let outcome = take(&desk, order).await;
            if let Err(failure) = &outcome {
                // Here, because the shard's notices carry no words. It is no trouble if the log was replaced meanwhile: the shard
                // knows.
                tracing::warn!(position = position.0, "{}: no snapshot: {failure:?}", desk.directory.display());
            }
            desk.answer(Answer::SnapshotTaken { position, outcome }, &stop);
        });
    }

    pub(crate) fn keep(&self, desk: Arc<Desk>, snapshot: Box<Snapshot>) {
        let stop = Arc::clone(&self.stop);
        self.spawn(async move {
            let outcome = write(&desk.directory, snapshot.position(), snapshot.bytes()).await.map_err(errno);
            desk.answer(Answer::SnapshotKept { snapshot, outcome }, &stop);
        });
    }

    pub(crate) fn read(&self, desk: Arc<Desk>, position: Position, offset: u64) {
        let stop = Arc::clone(&self.stop);
        self.spawn(async move {
            let outcome = read_piece(&desk, position, offset, PIECE_SIZE).await.map_err(errno);
            desk.answer(Answer::SnapshotRead { position, offset, outcome }, &stop);
        });
    }

    pub(crate) fn drop(&self, desk: Arc<Desk>, order: DropOrder) {
        let stop = Arc::clone(&self.stop);
        self.spawn(async move {
            let outcome = delete(&desk, &order).await.map_err(errno);
            desk.answer(Answer::Dropped { outcome }, &stop);
        });
    }
}

fn errno(error: io::Error) -> i32 {
    error.raw_os_error().unwrap_or(libc::EIO)
}

async fn take(desk: &Desk, order: SnapshotOrder) -> Result<u64, SnapshotFailure> {
    let failed = |error| SnapshotFailure::Disk(errno(error));
    let previous = match order.previous {
        Some(position) => Some(read_whole(desk, position).await.map_err(failed)?),
        None => None,
    };
    let mut job = SnapshotJob::begin(&*desk.shadows, order, previous)?;
    while let Some(request) = job.wants()? {
        let chunk = read(desk, &request).await;
        job.take(chunk)?;
        glommio::executor().yield_task_queue_now().await;
    }
    let position = job.position();
    let bytes = job.finish()?;
    write(&desk.directory, position, &bytes).await.map_err(failed)?;
    Ok(bytes.len() as u64)
}

/// Writes a snapshot under another name, makes it durable, then gives it its name: it is there as a whole or not at all.
async fn write(directory: &Path, position: Position, bytes: &[u8]) -> io::Result<()> {
    let path = directory.join(snapshot_file_name(position));
    let unfinished = path.with_extension("preparing");
    if let Err(error) = fill(&unfinished, bytes).await {
        // What was written takes the space that is lacking.
        let _ = std::fs::remove_file(&unfinished);
        return Err(error);
    }
    std::fs::rename(&unfinished, &path)?;
    evershard_sys::file::sync_directory(directory)
}

async fn fill(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let _ = std::fs::remove_file(path);
    let file = Rc::new(DmaFile::create(path).await.map_err(io_error)?);
    let outcome = write_all(&file, bytes).await;
    file.close_rc().await.map_err(io_error)?;
    outcome
}

async fn write_all(file: &DmaFile, bytes: &[u8]) -> io::Result<()> {
    let mut offset = 0;
    for part in bytes.chunks(WRITE_SIZE) {
        let mut buffer = file.alloc_dma_buffer(part.len().next_multiple_of(BLOCK_ALIGNMENT));
        let (front, padding) = buffer.as_bytes_mut().split_at_mut(part.len());
        front.copy_from_slice(part);
        padding.fill(0);
        let size = buffer.len();
        if file.write_at(buffer, offset).await.map_err(io_error)? != size {
            return Err(io::Error::from_raw_os_error(libc::ENOSPC));
        }
        offset += size as u64;
    }
    file.truncate(bytes.len() as u64).await.map_err(io_error)?;
    file.fdatasync().await.map_err(io_error)
}

async fn read_whole(desk: &Desk, position: Position) -> io::Result<Vec<u8>> {
    let mut whole = Vec::new();
    loop {
        let (piece, size) = read_piece(desk, position, whole.len() as u64, PIECE_SIZE).await?;
        whole.extend_from_slice(&piece);
        if piece.is_empty() || whole.len() as u64 >= size {
            return Ok(whole);
        }
    }
}

/// A part of a snapshot's file, and the size of the whole.
async fn read_piece(desk: &Desk, position: Position, offset: u64, size: usize) -> io::Result<(Vec<u8>, u64)> {
    let file = open(desk, &snapshot_file_name(position)).await?;
    let outcome = async {
        let whole = file.file_size().await.map_err(io_error)?;
        let piece = file.read_at(offset, size).await.map_err(io_error)?;
        Ok((piece.to_vec(), whole))
    }
    .await;
    file.close().await.map_err(io_error)?;
    outcome
}

/// Old snapshots first, then segments, lowest first: whenever it is interrupted, the log that is left has no gap.
async fn delete(desk: &Desk, order: &DropOrder) -> io::Result<()> {
    let directory = &desk.directory;
    let (mut segments, mut snapshots) = (Vec::new(), Vec::new());
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if let Some(number) = segment_number_of(&name).filter(|number| *number < order.segments_before) {
            segments.push((number, entry.path()));
        } else if let Some(position) = snapshot_position_of(&name)
            && order.snapshots_before.is_some_and(|before| position < before)
        {
            snapshots.push(entry.path());
        }
    }
    segments.sort_unstable();
    for path in snapshots.into_iter().chain(segments.into_iter().map(|(_, path)| path)) {
        while desk.is_opening() {
            glommio::timer::sleep(OPENING_PAUSE).await;
        }
        std::fs::remove_file(path)?;
        // One after the other for the disk as well: a power cut must leave no gap either.
        evershard_sys::file::sync_directory(directory)?;
        glommio::executor().yield_task_queue_now().await;
    }
    Ok(())
}
