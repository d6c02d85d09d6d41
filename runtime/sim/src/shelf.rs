//! The snapshots on one simulated disk, and the background's work on them.
//!
//! # Fault model
//!
//! * **Interrupted work.** A snapshot that was being written when the process ended is there under its name as a whole, or
//!   not at all. Of files that were being deleted the first few are gone.
//! * **No space.** A snapshot cannot be written while the disk is full (ENOSPC).
//! * **Rot.** Some bits of the newest snapshot change, unnoticed, if there is an older one that is good.

use std::collections::BTreeMap;

use evershard_log::SegmentNumber;
use evershard_node::shadow::{DropOrder, SnapshotOrder};
use evershard_node::snapshot::Snapshot;
use evershard_protocol::Position;

use crate::random::Random;

/// Work of the background that has to do with snapshots.
pub enum Job {
    /// See [`evershard_node::env::Env::take_snapshot`].
    Take(SnapshotOrder),
    /// What the shadow has saved is being written.
    Write(Position, Vec<u8>),
    /// See [`evershard_node::env::Env::keep_snapshot`].
    Keep(Box<Snapshot>),
    /// See [`evershard_node::env::Env::read_snapshot`].
    Read(Position, u64),
    /// See [`evershard_node::env::Env::drop_log`].
    Drop(DropOrder),
}

/// The snapshots of one disk.
#[derive(Default)]
pub struct Shelf {
    /// The files, by position.
    pub files: BTreeMap<Position, Vec<u8>>,
    /// Work under way, by name.
    pub jobs: BTreeMap<u64, Job>,
    names: u64,
    rotten: Option<Position>,
}

impl Shelf {
    /// Work has been handed to the background; names it.
    pub fn begin(&mut self, job: Job) -> u64 {
        self.names += 1;
        self.jobs.insert(self.names, job);
        self.names
    }

    /// A part of a file and the size of the whole, or ENOENT.
    ///
    /// # Errors
    /// The error's number.
    pub fn read(&self, position: Position, offset: u64, size: usize) -> Result<(Vec<u8>, u64), i32> {
        let file = self.files.get(&position).ok_or(2)?;
        let from = usize::try_from(offset).unwrap_or(usize::MAX).min(file.len());
        let until = from.saturating_add(size).min(file.len());
        Ok((file[from..until].to_vec(), file.len() as u64))
    }

    /// Puts a snapshot on the disk.
    pub fn put(&mut self, position: Position, bytes: Vec<u8>) {
        self.files.insert(position, bytes);
    }

    /// Deletes the first so many of the files that an order names; the snapshots here, the segments in `segments`. Gives
    /// the segments that are to go.
    pub fn delete(&mut self, order: &DropOrder, segments: &[SegmentNumber], most: usize) -> Vec<SegmentNumber> {
        let old = |position: &Position| order.snapshots_before.is_some_and(|before| *position < before);
        let snapshots: Vec<Position> = self.files.keys().copied().filter(old).take(most).collect();
        for position in &snapshots {
            self.files.remove(position);
        }
        let unneeded = segments.iter().copied().filter(|number| *number < order.segments_before);
        unneeded.take(most - snapshots.len()).collect()
    }

    /// The process has ended: what it had under way is there, or not. Gives the segments that are gone with it.
    pub fn interrupt(&mut self, random: &mut Random, segments: &[SegmentNumber]) -> Vec<SegmentNumber> {
        let mut gone = Vec::new();
        for (name, job) in std::mem::take(&mut self.jobs) {
            let mut own = Random::numbered(random.any(), "interrupted", name);
            match job {
                Job::Write(position, bytes) if own.chance(500) => self.put(position, bytes),
                Job::Keep(snapshot) if own.chance(500) => self.put(snapshot.position(), snapshot.into_bytes()),
                Job::Drop(order) => gone.extend(self.delete(&order, segments, own.index(6))),
                _ => {}
            }
        }
        gone
    }

    /// Changes a bit of the newest snapshot; false if there is no good one before it.
    pub fn rot(&mut self, pick: u64) -> bool {
        let spoilt = self.rotten.is_some_and(|rotten| self.files.contains_key(&rotten));
        if spoilt || self.files.len() < 2 {
            return false;
        }
        let (position, file) = self.files.iter_mut().next_back().expect("there are two");
        let at = usize::try_from(pick % file.len() as u64).expect("an index");
        file[at] ^= 0x10;
        self.rotten = Some(*position);
        true
    }

    /// A new disk.
    pub fn wipe(&mut self) {
        *self = Self { names: self.names, ..Self::default() };
    }
}
