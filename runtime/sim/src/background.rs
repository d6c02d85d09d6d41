//! The background of simulated nodes, as far as snapshots go: the shadow at work, files written, read and deleted. The
//! shadow is the production one ([`evershard_node::shadow`]).

use evershard_node::shadow::{Instances, SnapshotFailure, SnapshotJob, SnapshotOrder};
use evershard_node::shipping::PIECE_SIZE;

use crate::disk::{ENOSPC, SimDisk};
use crate::env::Happened;
use crate::node::NodeFile;
use crate::plan::MS;
use crate::service::{KeyValue, Probe};
use crate::shelf::Job;
use crate::world::{Event, World};

impl World {
    /// A shard has handed work to the background.
    pub(crate) fn begin_job(&mut self, node: usize, shard: usize, job: Job) {
        let (shortest, longest) = match job {
            Job::Take(_) => (MS, 60 * MS),
            Job::Write(..) | Job::Keep(_) => (MS, 40 * MS),
            Job::Read(..) => (MS / 10, 3 * MS),
            Job::Drop(_) => (MS / 2, 30 * MS),
        };
        let time = self.time + self.streams.disk.between(shortest, longest);
        let disk = &mut self.nodes[node].disks[shard];
        let name = disk.shelf.begin(job);
        let time = time.max(disk.stalled_until);
        self.at(time, Event::Background(node, shard, self.nodes[node].life, name));
    }

    /// It is done, if the process is still there.
    pub(crate) fn on_background(&mut self, node: usize, shard: usize, life: u64, name: u64) {
        if self.nodes[node].life != life || self.nodes[node].process.is_none() {
            return;
        }
        let file = self.nodes[node].file;
        let disk = &mut self.nodes[node].disks[shard];
        let Some(job) = disk.shelf.jobs.remove(&name) else { return };
        let happened = match job {
            Job::Take(order) => {
                let position = order.mark.position;
                match take((node, file), shard, life, disk, order) {
                    Ok(bytes) => return self.begin_job(node, shard, Job::Write(position, bytes)),
                    Err(failure) => Happened::SnapshotTaken(position, Err(failure)),
                }
            }
            Job::Write(position, _) if disk.full => {
                Happened::SnapshotTaken(position, Err(SnapshotFailure::Disk(ENOSPC)))
            }
            Job::Write(position, bytes) => {
                let size = bytes.len() as u64;
                disk.shelf.put(position, bytes);
                self.stats.snapshots_taken += 1;
                Happened::SnapshotTaken(position, Ok(size))
            }
            Job::Keep(snapshot) if disk.full => Happened::SnapshotKept(snapshot, Err(ENOSPC)),
            Job::Keep(snapshot) => {
                let own =
                    self.nodes[node].core(shard).is_some_and(|core| core.snapshots().is_taking(snapshot.position()));
                let disk = &mut self.nodes[node].disks[shard];
                *(if own { &mut self.stats.snapshots_taken } else { &mut self.stats.snapshots_moved }) += 1;
                disk.shelf.put(snapshot.position(), snapshot.bytes().to_vec());
                Happened::SnapshotKept(snapshot, Ok(()))
            }
            Job::Read(position, offset) => {
                Happened::SnapshotRead(position, offset, disk.shelf.read(position, offset, PIECE_SIZE))
            }
            Job::Drop(order) => {
                disk.drop_all(&order);
                Happened::LogDropped(Ok(()))
            }
        };
        self.tell_shard(node, shard, happened);
    }
}

/// The shadow takes a snapshot.
fn take(
    (node, file): (usize, NodeFile),
    shard: usize,
    life: u64,
    disk: &mut SimDisk,
    order: SnapshotOrder,
) -> Result<Vec<u8>, SnapshotFailure> {
    let marks = file.marks(node, shard);
    let salt = life ^ (node as u64) << 48;
    let service = move |_| KeyValue::new(Probe::default(), salt);
    let instances = Instances { cluster: marks.cluster, shard: marks.shard, service };
    let previous = match order.previous {
        Some(position) => Some(disk.shelf.read(position, 0, usize::MAX).map_err(SnapshotFailure::Disk)?.0),
        None => None,
    };
    let mut job = SnapshotJob::begin(&instances, order, previous)?;
    while let Some(request) = job.wants()? {
        let chunk = disk.answer(&request);
        job.take(chunk)?;
    }
    job.finish()
}
