//! A disk in memory.
//!
//! Fault model. A write is split into sectors of 512 bytes, and each is written whole or not at all. Writes in flight
//! have no order among each other. At a power cut every sector of every unfinished write is there or not, by chance;
//! what was complete stays. Rot changes bits of any sector or makes it zero. A deleted file is gone. A disk may give
//! back zeros where something was written, once for each place, and the right bytes the next time.

use evershard_log::{Identity, SegmentHeader, SegmentNumber, SegmentSource, Write};
use evershard_protocol::{ClusterId, NodeId, ShardId};
use std::collections::BTreeMap;

pub const IDENTITY: Identity = Identity { cluster: ClusterId(0xC1), shard: ShardId(3), node: NodeId(1) };
pub const SECTOR: usize = 512;

/// Small, fast and the same everywhere.
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).expect("below a usize")
    }
}

#[derive(Clone, Default)]
pub struct Disk {
    pub files: BTreeMap<SegmentNumber, Vec<u8>>,
    numbers: Vec<SegmentNumber>,
    in_flight: Vec<(Write, Vec<u8>)>,
    /// Places that read as zeros the first time.
    pub stale: Vec<(SegmentNumber, u64)>,
}

impl Disk {
    /// What the background worker does.
    pub fn prepare(&mut self, number: SegmentNumber, nonce: u64, size: u64) -> SegmentHeader {
        let header = SegmentHeader { identity: IDENTITY, number, nonce, size };
        let mut file = vec![0; usize::try_from(size).expect("small")];
        file[..4096].copy_from_slice(&header.encode());
        assert!(self.files.insert(number, file).is_none(), "a number is used once");
        header
    }

    pub fn delete(&mut self, number: SegmentNumber) {
        assert!(self.files.remove(&number).is_some());
    }

    pub fn submit(&mut self, write: Write, bytes: &[u8]) {
        self.in_flight.push((write, bytes.to_vec()));
    }

    /// A repair: written and durable.
    pub fn overwrite(&mut self, segment: SegmentNumber, offset: u64, bytes: &[u8]) {
        let offset = usize::try_from(offset).expect("small");
        self.files.get_mut(&segment).expect("it is there")[offset..offset + bytes.len()].copy_from_slice(bytes);
    }

    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// Completes the write at `index` of those in flight; returns its sequence.
    pub fn complete(&mut self, index: usize) -> u64 {
        let (write, bytes) = self.in_flight.swap_remove(index);
        self.apply(&write, &bytes, |_| true);
        write.sequence
    }

    /// The power goes.
    pub fn cut_power(&mut self, random: &mut Random) {
        for (write, bytes) in std::mem::take(&mut self.in_flight) {
            match random.below(6) {
                0 => {}
                1 => self.apply(&write, &bytes, |_| true),
                2 => self.apply(&write, &bytes, |sector| sector == 0),
                3 => self.apply(&write, &bytes, |sector| sector != 0),
                _ => {
                    let mut random = Random(random.next());
                    self.apply(&write, &bytes, |_| random.below(3) > 0);
                }
            }
        }
    }

    /// The power goes, and of each write in flight, oldest first, these sectors are there.
    pub fn tear(&mut self, written: &[fn(usize) -> bool]) {
        for ((write, bytes), written) in std::mem::take(&mut self.in_flight).into_iter().zip(written) {
            self.apply(&write, &bytes, written);
        }
    }

    fn apply(&mut self, write: &Write, bytes: &[u8], mut written: impl FnMut(usize) -> bool) {
        let file = self.files.get_mut(&write.segment).expect("a prepared segment");
        let offset = usize::try_from(write.offset).expect("small");
        for (index, sector) in bytes.chunks(SECTOR).enumerate() {
            if written(index) {
                let at = offset + index * SECTOR;
                file[at..at + SECTOR].copy_from_slice(sector);
            }
        }
    }

    /// As a source for recovery.
    pub fn mount(&mut self) -> &mut Self {
        self.numbers = self.files.keys().copied().collect();
        self
    }
}

impl SegmentSource for Disk {
    fn segments(&self) -> &[SegmentNumber] {
        &self.numbers
    }

    fn size(&self, segment: SegmentNumber) -> u64 {
        self.files[&segment].len() as u64
    }

    fn read(&mut self, segment: SegmentNumber, offset: u64, out: &mut [u8]) -> std::io::Result<()> {
        assert!(offset.is_multiple_of(4096) && out.len().is_multiple_of(4096), "as O_DIRECT wants it");
        let at = usize::try_from(offset).expect("small");
        out.copy_from_slice(&self.files[&segment][at..at + out.len()]);
        self.stale.retain(|(number, place)| {
            let read = *number == segment && (offset..offset + out.len() as u64).contains(place);
            if read {
                let index = usize::try_from(place - offset).expect("small");
                out[index..index + 4096].fill(0);
            }
            !read
        });
        Ok(())
    }
}
