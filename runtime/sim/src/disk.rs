//! One replica's disk: its segments and its two slots of term and vote.
//!
//! # Fault model
//!
//! * **Order.** A write takes effect when it completes, after a latency of its own: writes in flight complete in any
//!   order. The disk may stall for seconds; what is in flight then completes later.
//! * **Kill.** Writes in flight of a killed process reach the page cache as a whole or not at all. What is only there
//!   is lost, in whole sectors, if the power goes before the next start has made it durable
//!   ([`ReplicaFiles::settle`]).
//! * **Power loss.** Of every write in flight any subset of its 512-byte sectors is there; the rest holds what it held.
//!   What was reported as written stays.
//! * **Errors.** A write may fail with EIO; any part of its sectors may be there. A segment cannot be prepared while the
//!   disk is full (ENOSPC).
//! * **Bit rot.** Some bits of a written block change, at any time, unnoticed.
//! * **Lost write.** Reported as written, the old content stays.
//! * **Misdirected write.** Reported as written, at another place of the same segment.
//! * **Bad read.** What is read to answer the shard is garbage; read again it is good.
//! * **Slot rot.** One of the two slots changes, all sectors of it.
//! * **Wipe.** A new, empty disk.
//! * **Snapshots.** See [`crate::shelf`].
//! * **Left over.** Behind the end of the log stands a block that an earlier life of the segment's file left there.
//!
//! # Budget
//!
//! What no correct system survives is not done ([`crate::budget`]): the faults that destroy what was acknowledged (rot,
//! lost and misdirected writes, slot rot, wipe) hit one replica of a shard at a time, and the next one only after that
//! one is whole again.
//! A lost or misdirected write must be followed by another block, planned after it and written, before its node may
//! crash: the loss of the very last block leaves no trace on any disk (see `evershard_log::recovery_table`), and the
//! promise does not cover it.

use std::collections::BTreeMap;
use std::io;

use evershard_log::block::{BLOCK_HEADER_SIZE, BlockDraft, BlockHeader, BlockKind, SECTOR_SIZE};
use evershard_log::slots::{SLOT_SIZE, SLOTS_FILE_SIZE, choose_slot};
use evershard_log::{BLOCK_ALIGNMENT, Identity, SegmentHeader, SegmentNumber, SegmentSource};
use evershard_node::chunk::ChunkReader;
use evershard_node::env::{Chunk, ReadFailure, ReadRequest};
use evershard_node::shadow::DropOrder;
use evershard_node::start::ReplicaFiles;
use evershard_protocol::{NodeId, Position, Term};
use evershard_sys::buffer::AlignedBuffer;

use crate::random::Random;
use crate::shelf::Shelf;

/// EIO.
pub const EIO: i32 = 5;
/// ENOSPC.
pub const ENOSPC: i32 = 28;

/// Where a write goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Target {
    /// A block of the log: segment, offset, the block's sequence.
    Block(SegmentNumber, u64, u64),
    /// A slot at this offset.
    Slot(u64),
}

/// A write on its way.
pub struct InFlight {
    /// Names it.
    pub id: u64,
    /// Where it goes.
    pub target: Target,
    buffer: AlignedBuffer,
    size: usize,
}

/// What is wrong with the next write of a block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WriteFault {
    /// EIO.
    Fails,
    /// Reported, not done.
    Lost,
    /// Reported, done elsewhere.
    Misdirected,
}

/// A write that has ended.
pub struct Completed {
    /// Where it went.
    pub target: Target,
    /// The buffer comes back.
    pub buffer: AlignedBuffer,
    /// EIO, or nothing.
    pub outcome: Result<(), i32>,
    /// What was done to it.
    pub fault: Option<WriteFault>,
}

/// Content that is only in the page cache: what the disk held before.
struct Unsettled {
    segment: Option<SegmentNumber>,
    offset: usize,
    before: Vec<u8>,
}

/// The content of a disk, kept apart.
#[derive(Clone, PartialEq, Eq)]
pub struct Image {
    files: BTreeMap<SegmentNumber, Vec<u8>>,
    numbers: Vec<SegmentNumber>,
    slots: Vec<u8>,
    snapshots: BTreeMap<Position, Vec<u8>>,
}

/// One replica's disk.
pub struct SimDisk {
    files: BTreeMap<SegmentNumber, Vec<u8>>,
    numbers: Vec<SegmentNumber>,
    slots: Vec<u8>,
    /// The snapshots, and the background's work on them.
    pub shelf: Shelf,
    in_flight: Vec<InFlight>,
    unsettled: Vec<Unsettled>,
    random: Random,
    ids: u64,
    /// The disk does nothing before this time.
    pub stalled_until: u64,
    /// Segments cannot be prepared.
    pub full: bool,
    /// What is wrong with the next write of a block.
    pub next_write: Option<WriteFault>,
    /// Reads that will be garbage.
    pub bad_reads: u32,
    /// Slot writes that will fail.
    pub slot_fails: bool,
    /// The sequence of a block that was lost or misdirected, until a block planned after it is written.
    lost: Option<(u64, bool)>,
}

impl SimDisk {
    /// An empty disk.
    #[must_use]
    pub fn new(random: Random) -> Self {
        Self {
            files: BTreeMap::new(),
            numbers: Vec::new(),
            slots: vec![0; SLOTS_FILE_SIZE],
            shelf: Shelf::default(),
            in_flight: Vec::new(),
            unsettled: Vec::new(),
            random,
            ids: 0,
            stalled_until: 0,
            full: false,
            next_write: None,
            bad_reads: 0,
            slot_fails: false,
            lost: None,
        }
    }

    /// Everything is gone; the process must be down.
    pub fn wipe(&mut self) {
        self.files.clear();
        self.numbers.clear();
        self.slots.fill(0);
        self.shelf.wipe();
        self.in_flight.clear();
        self.unsettled.clear();
        self.lost = None;
        self.calm();
    }

    /// What is on it, for a backup; the process must be down.
    #[must_use]
    pub fn image(&self) -> Image {
        assert!(self.in_flight.is_empty(), "a backup is made of a disk at rest");
        Image {
            files: self.files.clone(),
            numbers: self.numbers.clone(),
            slots: self.slots.clone(),
            snapshots: self.shelf.files.clone(),
        }
    }

    /// Puts a backup back; the process must be down.
    pub fn put_back(&mut self, image: &Image) {
        self.wipe();
        (self.files, self.numbers, self.slots) = (image.files.clone(), image.numbers.clone(), image.slots.clone());
        self.shelf.files.clone_from(&image.snapshots);
    }

    /// Nothing more goes wrong from now on.
    pub fn calm(&mut self) {
        self.stalled_until = 0;
        self.full = false;
        self.next_write = None;
        self.bad_reads = 0;
        self.slot_fails = false;
    }

    /// A lost write that no later block tells of yet, or one to come.
    #[must_use]
    pub fn hides_a_loss(&self) -> bool {
        self.lost.is_some() || matches!(self.next_write, Some(WriteFault::Lost | WriteFault::Misdirected))
    }

    /// Nobody writes any more: what was to go wrong with the next write does not.
    pub fn forget_next_write(&mut self) {
        self.next_write = None;
        self.slot_fails = false;
    }

    /// Whether its next write is going to fail.
    #[must_use]
    pub fn is_about_to_fail(&self) -> bool {
        self.slot_fails || self.next_write == Some(WriteFault::Fails)
    }

    /// Hands a write to the disk; returns its name.
    pub fn submit(&mut self, target: Target, buffer: AlignedBuffer, size: usize) -> u64 {
        self.ids += 1;
        if let (Target::Block(..), Some((_, planned))) = (target, &mut self.lost) {
            *planned = true;
        }
        self.in_flight.push(InFlight { id: self.ids, target, buffer, size });
        self.ids
    }

    /// Whether a write of this name is still in flight.
    #[must_use]
    pub fn is_in_flight(&self, id: u64) -> bool {
        self.in_flight.iter().any(|write| write.id == id)
    }

    /// Ends a write.
    pub fn complete(&mut self, id: u64) -> Option<Completed> {
        let at = self.in_flight.iter().position(|write| write.id == id)?;
        let write = self.in_flight.remove(at);
        let fault = match write.target {
            Target::Block(..) => self.next_write.take(),
            Target::Slot(_) => std::mem::take(&mut self.slot_fails).then_some(WriteFault::Fails),
        };
        let mut outcome = Ok(());
        match fault {
            None => {
                self.apply(&write, |_| true, false);
                self.on_block_complete(&write);
            }
            Some(WriteFault::Fails) => {
                let mut random = self.random.clone();
                self.random.any();
                let share = random.below(3) * 500;
                self.apply(&write, |_| random.chance(share), false);
                outcome = Err(EIO);
            }
            Some(WriteFault::Lost) => self.note_loss(&write),
            Some(WriteFault::Misdirected) => {
                self.note_loss(&write);
                self.misdirect(&write);
            }
        }
        Some(Completed { target: write.target, buffer: write.buffer, outcome, fault })
    }

    fn note_loss(&mut self, write: &InFlight) {
        if let Target::Block(_, _, sequence) = write.target {
            self.lost = Some((sequence, false));
        }
    }

    /// A block planned after a loss was written: from now on the loss can be seen.
    fn on_block_complete(&mut self, write: &InFlight) {
        if let (Target::Block(..), Some((lost, true))) = (write.target, self.lost)
            && let Ok(header) = BlockHeader::decode(&write.buffer)
            && header.draft.settled >= lost
        {
            self.lost = None;
        }
    }

    fn misdirect(&mut self, write: &InFlight) {
        let Target::Block(segment, offset, _) = write.target else { return };
        let Some(file) = self.files.get_mut(&segment) else { return };
        let units = file.len() / BLOCK_ALIGNMENT;
        let size_units = write.size / BLOCK_ALIGNMENT;
        let at = (1 + self.random.index(units - size_units)) * BLOCK_ALIGNMENT;
        if at as u64 != offset && at + write.size <= file.len() {
            file[at..at + write.size].copy_from_slice(&write.buffer[..write.size]);
        }
    }

    /// Makes a segment file, or fails.
    ///
    /// # Errors
    /// The error's number.
    pub fn prepare(&mut self, header: &SegmentHeader) -> Result<(), i32> {
        if self.full {
            return Err(ENOSPC);
        }
        let size = usize::try_from(header.size).expect("simulated segments are small");
        let mut file = vec![0; size];
        let head = header.encode();
        file[..head.len()].copy_from_slice(&head);
        self.files.insert(header.number, file);
        self.numbers = self.files.keys().copied().collect();
        Ok(())
    }

    /// Answers a shard's question, as the background does.
    ///
    /// # Errors
    /// What is wrong with the content.
    pub fn answer(&mut self, request: &ReadRequest) -> Result<Chunk, ReadFailure> {
        let bad = self.bad_reads > 0;
        self.bad_reads = self.bad_reads.saturating_sub(1);
        let Some(file) = self.files.get(&request.location.segment) else { return Err(ReadFailure::Disk(2)) };
        let mut reader = ChunkReader::new(*request, &file[..BLOCK_ALIGNMENT], file.len() as u64)?;
        while let Some((offset, size)) = reader.wants() {
            let at = usize::try_from(offset).expect("within the file");
            if bad {
                let mut garbage = file[at..at + size].to_vec();
                garbage[64 + self.random.index(2000)] ^= 0x20;
                reader.take(&garbage)?;
            } else {
                reader.take(&file[at..at + size])?;
            }
        }
        Ok(reader.finish())
    }

    /// Writes a block again at its place, as the background does.
    ///
    /// # Errors
    /// The error's number.
    pub fn repair(&mut self, segment: SegmentNumber, offset: u64, block: &[u8]) -> Result<(), i32> {
        let at = usize::try_from(offset).expect("small files");
        let Some(file) = self.files.get_mut(&segment) else { return Err(2) };
        file[at..at + block.len()].copy_from_slice(block);
        Ok(())
    }

    /// Deletes what an order names.
    pub fn drop_all(&mut self, order: &DropOrder) {
        let gone = self.shelf.delete(order, &self.numbers, usize::MAX);
        self.remove(&gone);
    }

    fn remove(&mut self, segments: &[SegmentNumber]) {
        self.files.retain(|number, _| !segments.contains(number));
        self.numbers.retain(|number| !segments.contains(number));
    }

    fn interrupt(&mut self) {
        let mut random = self.random.clone();
        if !self.shelf.jobs.is_empty() {
            self.random.any();
        }
        let gone = self.shelf.interrupt(&mut random, &self.numbers);
        self.remove(&gone);
    }

    /// The process was killed.
    pub fn kill(&mut self) {
        self.interrupt();
        for write in std::mem::take(&mut self.in_flight) {
            if self.random.chance(500) {
                self.apply(&write, |_| true, true);
            }
        }
    }

    /// The power goes, of a running process or of one that is down.
    pub fn lose_power(&mut self) {
        self.interrupt();
        for Unsettled { segment, offset, before } in std::mem::take(&mut self.unsettled).into_iter().rev() {
            let mut random = Random::numbered(self.random.any(), "unsettled", 0);
            let Some(file) = self.file(segment) else { continue };
            for (index, sector) in before.chunks(SECTOR_SIZE).enumerate() {
                if random.chance(500) {
                    let at = offset + index * SECTOR_SIZE;
                    file[at..at + sector.len()].copy_from_slice(sector);
                }
            }
        }
        for write in std::mem::take(&mut self.in_flight) {
            let mut random = Random::numbered(self.random.any(), "torn", 0);
            match random.below(6) {
                0 => {}
                1 => self.apply(&write, |_| true, false),
                2 => self.apply(&write, |sector| sector == 0, false),
                3 => self.apply(&write, |sector| sector != 0, false),
                _ => self.apply(&write, |_| random.chance(667), false),
            }
        }
    }

    /// Changes some bits of a written block; false if there is none. `pick` chooses which, from the end if `late`.
    pub fn rot(&mut self, pick: u64) -> bool {
        let mut written = Vec::new();
        for (number, file) in &self.files {
            for offset in (BLOCK_ALIGNMENT..file.len()).step_by(BLOCK_ALIGNMENT) {
                if BlockHeader::decode(&file[offset..offset + SECTOR_SIZE]).is_ok() {
                    written.push((*number, offset));
                }
            }
        }
        if written.is_empty() {
            return false;
        }
        let (number, offset) = written[usize::try_from(pick % written.len() as u64).expect("an index")];
        self.rot_at(number, offset);
        true
    }

    /// Changes some bits of the block that holds a position's byte; false if there is none.
    pub fn rot_position(&mut self, position: u64) -> bool {
        let mut found = None;
        for (number, file) in &self.files {
            for offset in (BLOCK_ALIGNMENT..file.len()).step_by(BLOCK_ALIGNMENT) {
                if let Ok(header) = BlockHeader::decode(&file[offset..offset + SECTOR_SIZE])
                    && header.draft.first.0 <= position
                    && position < header.end().0
                {
                    found = Some((*number, offset));
                }
            }
        }
        let Some((number, offset)) = found else { return false };
        self.rot_at(number, offset);
        true
    }

    fn rot_at(&mut self, number: SegmentNumber, offset: usize) {
        let file = self.files.get_mut(&number).expect("it was just looked at");
        let used = BlockHeader::decode(&file[offset..offset + SECTOR_SIZE]).map_or(64, |header| header.used);
        // Mostly the content; now and then the header, from the checksum on.
        let at = if self.random.chance(800) {
            BLOCK_HEADER_SIZE + self.random.index(used.max(1))
        } else {
            self.random.index(BLOCK_HEADER_SIZE)
        };
        file[offset + at] ^= 1 << self.random.below(8);
    }

    /// The term and the vote that it remembers.
    #[must_use]
    pub fn vote(&self, identity: &Identity) -> Option<(Term, Option<NodeId>)> {
        let (one, other) = self.slots.split_at(SLOT_SIZE);
        choose_slot(identity, one, other).ok().flatten().map(|slot| (slot.term, slot.vote))
    }

    /// Whether both slots were written: until then the loss of one is the loss of all.
    #[must_use]
    pub fn has_both_slots(&self) -> bool {
        self.slots.chunks(SLOT_SIZE).all(|slot| slot.iter().any(|byte| *byte != 0))
    }

    /// Changes one slot.
    pub fn rot_slot(&mut self, pick: u64) {
        let at = usize::try_from(pick % 2).expect("0 or 1") * SLOT_SIZE;
        for byte in &mut self.slots[at..at + SLOT_SIZE] {
            *byte ^= 0x5A;
        }
    }

    /// Leaves a block behind the end of what is written that an earlier life of the file wrote there.
    pub fn leave_over(&mut self) -> bool {
        let used = |file: &[u8]| BlockHeader::decode(&file[BLOCK_ALIGNMENT..BLOCK_ALIGNMENT + SECTOR_SIZE]).is_ok();
        let Some((number, file)) = self.files.iter_mut().rev().find(|(_, file)| used(file)) else { return false };
        let mut offset = BLOCK_ALIGNMENT;
        let mut last = None;
        while offset + SECTOR_SIZE <= file.len() {
            let Ok(header) = BlockHeader::decode(&file[offset..offset + SECTOR_SIZE]) else { break };
            last = Some(header);
            offset += header.size;
        }
        let Some(last) = last.filter(|_| offset + BLOCK_ALIGNMENT <= file.len()) else { return false };
        if !file[offset..].iter().all(|byte| *byte == 0) {
            return false;
        }
        let draft = BlockDraft {
            kind: BlockKind::Data,
            nonce: last.draft.nonce ^ 0x00DD_BA11,
            segment: SegmentNumber(number.0.saturating_sub(1)),
            offset: offset as u64,
            sequence: (last.draft.sequence / 2).max(1),
            term: last.draft.term.max(Term(1)),
            chain: last.checksum,
            ..last.draft
        };
        let mut block = vec![0; BLOCK_ALIGNMENT];
        let content = b"what an earlier log left here";
        block[BLOCK_HEADER_SIZE..BLOCK_HEADER_SIZE + content.len()].copy_from_slice(content);
        draft.seal(content.len(), Some(&last), &mut block);
        file[offset..offset + BLOCK_ALIGNMENT].copy_from_slice(&block);
        true
    }

    /// For a start of the replica.
    pub fn mount(&mut self) -> Mounted<'_> {
        assert!(self.in_flight.is_empty(), "whoever wrote is gone");
        Mounted(self)
    }

    /// The segments there are, ascending.
    #[must_use]
    pub fn segments(&self) -> &[SegmentNumber] {
        &self.numbers
    }

    fn file(&mut self, segment: Option<SegmentNumber>) -> Option<&mut Vec<u8>> {
        match segment {
            Some(number) => self.files.get_mut(&number),
            None => Some(&mut self.slots),
        }
    }

    /// Puts some sectors of a write on the disk, or only in the page cache.
    fn apply(&mut self, write: &InFlight, mut written: impl FnMut(usize) -> bool, cached: bool) {
        let (segment, offset) = match write.target {
            Target::Block(segment, offset, _) => (Some(segment), usize::try_from(offset).expect("small files")),
            Target::Slot(offset) => (None, usize::try_from(offset).expect("a small file")),
        };
        let Some(file) = self.file(segment) else { return };
        let before = cached.then(|| file[offset..offset + write.size].to_vec());
        for (index, sector) in write.buffer[..write.size].chunks(SECTOR_SIZE).enumerate() {
            if written(index) {
                let at = offset + index * SECTOR_SIZE;
                file[at..at + SECTOR_SIZE].copy_from_slice(sector);
            }
        }
        if let Some(before) = before {
            self.unsettled.push(Unsettled { segment, offset, before });
        }
    }
}

/// A disk as the start of a replica sees it.
pub struct Mounted<'a>(&'a mut SimDisk);

impl SegmentSource for Mounted<'_> {
    fn segments(&self) -> &[SegmentNumber] {
        &self.0.numbers
    }

    fn size(&self, segment: SegmentNumber) -> u64 {
        self.0.files[&segment].len() as u64
    }

    fn read(&mut self, segment: SegmentNumber, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let offset = usize::try_from(offset).expect("small files");
        out.copy_from_slice(&self.0.files[&segment][offset..offset + out.len()]);
        Ok(())
    }
}

impl ReplicaFiles for Mounted<'_> {
    fn snapshots(&self) -> Vec<Position> {
        self.0.shelf.files.keys().copied().collect()
    }

    fn read_snapshot(&mut self, position: Position) -> io::Result<Vec<u8>> {
        Ok(self.0.shelf.files[&position].clone())
    }

    fn read_slots(&mut self, out: &mut [u8; SLOTS_FILE_SIZE]) -> io::Result<()> {
        out.copy_from_slice(&self.0.slots);
        Ok(())
    }

    fn write_slot(&mut self, offset: u64, slot: &[u8; SLOT_SIZE]) -> io::Result<()> {
        let at = usize::try_from(offset).expect("a small file");
        self.0.slots[at..at + SLOT_SIZE].copy_from_slice(slot);
        Ok(())
    }

    fn mend(&mut self, segment: SegmentNumber, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.repair(segment, offset, bytes).map_err(io::Error::from_raw_os_error)
    }

    fn settle(&mut self, kept: &[SegmentNumber], unused: &[SegmentNumber]) -> io::Result<()> {
        for number in unused {
            self.0.files.remove(number);
        }
        self.0.numbers.retain(|number| !unused.contains(number));
        // The slots were settled by being written; of the log only what is named.
        self.0.unsettled.retain(|one| one.segment.is_some_and(|segment| !kept.contains(&segment)));
        Ok(())
    }
}
