//! Rot: what was acknowledged and changed is faulty, never absent. Where the block is known it is a hole, everything
//! behind it is kept, and the bytes of a peer make the file what it was, to the last bit.

use evershard_log::block::{BLOCK_HEADER_SIZE, BlockHeader, BlockKind};
use evershard_log::{FaultReason, Hole, Recovered, SegmentNumber, Verdict};
use evershard_protocol::Position;
use proptest::prelude::*;
use proptest::sample::Index;
use std::collections::BTreeMap;

use crate::crash::{Step, step, take};
use crate::disk::SECTOR;
use crate::replica::{Replica, read_back};

/// Where a block lies: segment, offset, bytes of header and content, what it says.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    pub segment: SegmentNumber,
    pub offset: usize,
    pub covered: usize,
    pub sequence: u64,
    pub settled: u64,
    pub is_data: bool,
    pub first: Position,
    /// All it held was cut from the stream later.
    pub gone: bool,
}

/// A durable log of several segments, with truncations in it.
pub fn written(seed: u64) -> Replica {
    let mut replica = Replica::new(seed);
    for round in 0..24 {
        for _ in 0..5 {
            replica.append_any();
        }
        if round % 7 == 3 {
            replica.flush();
            replica.truncate_any();
            replica.append_any();
        }
        replica.flush();
        replica.commit_durable();
    }
    replica
}

pub fn file(replica: &mut Replica, segment: SegmentNumber) -> &mut Vec<u8> {
    replica.disk.files.get_mut(&segment).expect("it is there")
}

pub fn blocks(replica: &Replica) -> Vec<Place> {
    let mut all = Vec::new();
    for (segment, file) in &replica.disk.files {
        let mut offset = 4096;
        while let Some(Ok(block)) = file.get(offset..).filter(|rest| !rest.is_empty()).map(BlockHeader::decode) {
            let covered = BLOCK_HEADER_SIZE + block.used;
            all.push(Place {
                segment: *segment,
                offset,
                covered,
                sequence: block.draft.sequence,
                settled: block.draft.settled,
                is_data: block.draft.kind == BlockKind::Data,
                first: block.draft.first,
                gone: false,
            });
            offset += block.size;
        }
    }
    all.sort_by_key(|place| place.sequence);
    let mut cut_at = Position(u64::MAX);
    for place in all.iter_mut().rev() {
        place.gone = place.is_data && place.first >= cut_at;
        cut_at = cut_at.min(place.first);
    }
    all
}

/// Those that a later block says were durable before it was written.
fn witnessed(replica: &Replica) -> Vec<Place> {
    let mut all = blocks(replica);
    let settled = all.iter().map(|place| place.settled).max().expect("blocks");
    all.retain(|place| place.sequence <= settled);
    all
}

/// Bytes of a block's header without the copy.
pub const OWN_HEADER: usize = BLOCK_HEADER_SIZE / 2;

type Files = BTreeMap<SegmentNumber, Vec<u8>>;

/// What recovery made of the damage.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Found {
    /// It has no effect.
    Nothing,
    /// It was restored or noted as holes, repaired, and the log went on.
    Repaired,
    /// The prefix is good.
    Faulty(FaultReason),
}

/// What recovery finds must be the whole log with holes, or faulty with a good prefix.
pub fn check_rot(replica: &mut Replica, good: &Files) -> Found {
    let recovered = replica.recovered();
    let start = recovered.start;
    if let Verdict::Faulty { from, reason, .. } = recovered.verdict {
        assert_eq!(from, recovered.end);
        check_between_holes(replica, &recovered, good);
        return Found::Faulty(reason);
    }
    assert_eq!((recovered.verdict, recovered.end), (Verdict::Clean, replica.end()), "silently cut");
    assert_eq!(start, replica.begin);
    assert!(recovered.runs.ends_with(&replica.runs), "holes have their terms");
    check_between_holes(replica, &recovered, good);
    let damaged = !recovered.holes.is_empty() || !recovered.mends.is_empty();
    replica.repair(&recovered);
    let whole = replica.recovered();
    assert_eq!((whole.verdict, whole.end, &whole.runs), (Verdict::Clean, recovered.end, &recovered.runs));
    assert!(whole.holes.is_empty() && whole.mends.is_empty());
    let holes = recovered.holes.iter().map(|hole| (hole.segment(), hole.offset(), hole.size()));
    let mends = recovered.mends.iter().map(|mend| (mend.segment, mend.offset, mend.bytes.len()));
    for (segment, offset, size) in holes.chain(mends) {
        let at = usize::try_from(offset).expect("small");
        let range = at..at + size;
        assert!(replica.disk.files[&segment][range.clone()] == good[&segment][range], "what was there is there again");
    }
    let stream = read_back(&mut replica.disk, &whole.table, &whole.segments, start, whole.end);
    assert!(stream == replica.stream, "{} of {} bytes", stream.len(), replica.stream.len());
    replica.resume(&whole, stream);
    take(replica, Step::CleanRestart);
    replica.check_read_back();
    if damaged { Found::Repaired } else { Found::Nothing }
}

/// Everything but the holes reads back, and a reader is told which hole it has met.
fn check_between_holes(replica: &mut Replica, recovered: &Recovered, good: &Files) {
    let mut from = recovered.start;
    let mut stream = Vec::new();
    for hole in &recovered.holes {
        stream.extend(read_back(&mut replica.disk, &recovered.table, &recovered.segments, from, hole.first()));
        assert_eq!(read_fault(replica, recovered, hole.first()).map(|hole| *hole), Some(*hole));
        let at = usize::try_from(hole.offset()).expect("small") + BLOCK_HEADER_SIZE;
        let missing = usize::try_from(hole.until().since(hole.first())).expect("small");
        stream.extend_from_slice(&good[&hole.segment()][at..at + missing]);
        from = hole.until();
    }
    stream.extend(read_back(&mut replica.disk, &recovered.table, &recovered.segments, from, recovered.end));
    assert!(replica.was_ever(&stream), "what is called good was once the stream");
}

/// What a reader is told that begins in a hole; nothing if it cannot know more than that the block is faulty.
fn read_fault(replica: &Replica, recovered: &Recovered, at: Position) -> Option<Box<Hole>> {
    let location = recovered.table.locate(at).expect("the table knows holes");
    let nonce = recovered.segments.iter().find(|header| header.number == location.segment).expect("known").nonce;
    let offset = usize::try_from(location.offset).expect("small");
    let chunk = &replica.disk.files[&location.segment][offset..];
    let mut sink = |_, _: &[u8]| panic!("a hole has no bytes");
    let read = evershard_log::read_blocks(chunk, nonce, location.until(recovered.end), at, &mut sink);
    let evershard_log::ReadError::Faulty { offset, position, hole } = read.expect_err("it does not read back");
    assert_eq!((offset, position), (location.offset, at));
    // Where the header is gone, the block before is known to recovery only.
    hole.or_else(|| recovered.holes.iter().find(|hole| hole.first() == at).copied().map(Box::new))
}

/// Whether a fault beyond repair is legitimate: the last block's header is known to nobody, and a block within which the
/// log was cut cannot be had from anybody.
pub fn check_one_block(replica: &mut Replica, good: &Files, place: Place, last: u64) -> Found {
    let found = check_rot(replica, good);
    match found {
        Found::Faulty(FaultReason::CutHole) => assert!(place.is_data),
        Found::Faulty(reason) => {
            assert_eq!(place.sequence, last, "{reason:?}, but the block behind it repeats the header of {place:?}");
        }
        Found::Nothing | Found::Repaired => {}
    }
    found
}

pub fn flip(replica: &mut Replica, place: Place, at: usize, bit: u8) {
    file(replica, place.segment)[place.offset + at] ^= 1 << bit;
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn a_flipped_bit_is_never_cut(seed in 0_u64..6, block in any::<Index>(), at in any::<Index>(), bit in 0_u8..8) {
        let mut replica = written(seed);
        let blocks = blocks(&replica);
        let place = blocks[block.index(blocks.len())];
        let at = at.index(place.covered);
        let good = replica.disk.files.clone();
        flip(&mut replica, place, at, bit);
        let found = check_one_block(&mut replica, &good, place, blocks.len() as u64);
        let in_copy = (OWN_HEADER..BLOCK_HEADER_SIZE).contains(&at);
        prop_assert_eq!(found == Found::Nothing, in_copy || place.gone, "only the copy may rot unseen");
    }

}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(50))]

    /// Several blocks at once, also neighbours.
    #[test]
    fn many_holes(seed in 0_u64..6, first in any::<Index>(), flips in proptest::collection::vec((0_usize..9, any::<Index>(), 0_u8..8), 1..6)) {
        let mut replica = written(seed);
        let blocks = blocks(&replica);
        let first = first.index(blocks.len());
        let good = replica.disk.files.clone();
        let mut all_in_content = true;
        for (step, at, bit) in flips {
            let place = blocks[(first + step) % blocks.len()];
            let at = at.index(place.covered);
            all_in_content &= at >= BLOCK_HEADER_SIZE;
            flip(&mut replica, place, at, bit);
        }
        let found = check_rot(&mut replica, &good);
        let cut = found == Found::Faulty(FaultReason::CutHole);
        // Two flips may undo each other; a header may be lost together with what repeats it.
        prop_assert!(!all_in_content || cut || found != Found::Faulty(FaultReason::Header), "{:?}", found);
        prop_assert!(!all_in_content || cut || !matches!(found, Found::Faulty(_)), "{:?}", found);
    }

}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    /// Rot after many lives, with segments and blocks about that earlier recoveries left: it is found, or it hit what
    /// is not part of the log any more.
    #[test]
    fn rot_after_crashes(
        seed in any::<u64>(),
        steps in proptest::collection::vec(step(), 1..50),
        block in any::<Index>(),
        at in any::<Index>(),
        zero in any::<bool>(),
    ) {
        let mut replica = Replica::new(seed);
        for step in steps {
            take(&mut replica, step);
        }
        for _ in 0..3 {
            take(&mut replica, Step::CleanRestart);
        }
        let places = if zero { witnessed(&replica) } else { blocks(&replica) };
        let place = places[block.index(places.len())];
        let last = blocks(&replica).last().expect("blocks").sequence;
        let good = replica.disk.files.clone();
        let at = at.index(place.covered);
        if zero {
            let sector = (place.offset + at) / SECTOR * SECTOR;
            file(&mut replica, place.segment)[sector..sector + SECTOR].fill(0);
        } else {
            flip(&mut replica, place, at, 6);
        }
        check_one_block(&mut replica, &good, place, last);
    }

    #[test]
    fn a_lost_sector_with_a_witness_is_never_cut(seed in 0_u64..6, block in any::<Index>(), at in any::<Index>()) {
        let mut replica = written(seed);
        let last = blocks(&replica).len() as u64;
        let blocks = witnessed(&replica);
        let place = blocks[block.index(blocks.len())];
        let sector = place.offset + at.index(place.covered) / SECTOR * SECTOR;
        let good = replica.disk.files.clone();
        file(&mut replica, place.segment)[sector..sector + SECTOR].fill(0);
        let was_zero = replica.disk.files == good;
        let found = check_one_block(&mut replica, &good, place, last);
        prop_assert_eq!(found == Found::Nothing, was_zero || place.gone);
    }

    /// Scenario 19: the disk said that it had written.
    #[test]
    fn a_lost_write_with_a_witness_is_a_hole(seed in 0_u64..6, block in any::<Index>()) {
        let mut replica = written(seed);
        let last = blocks(&replica).len() as u64;
        let blocks = witnessed(&replica);
        let place = blocks[block.index(blocks.len())];
        let size = place.covered.next_multiple_of(4096);
        let good = replica.disk.files.clone();
        file(&mut replica, place.segment)[place.offset..place.offset + size].fill(0);
        let found = check_one_block(&mut replica, &good, place, last);
        prop_assert_eq!(found == Found::Nothing, place.gone);
    }

    /// Scenario 18: a good block at another block's place. Both that lost what it held and, where the write was meant to
    /// go, nothing.
    #[test]
    fn a_misdirected_write_is_a_hole(seed in 0_u64..6, from in any::<Index>(), to in any::<Index>(), lost in any::<bool>()) {
        let mut replica = written(seed);
        let last = blocks(&replica).len() as u64;
        let blocks = witnessed(&replica);
        let (from, to) = (blocks[from.index(blocks.len())], blocks[to.index(blocks.len())]);
        let size = from.covered.next_multiple_of(4096);
        prop_assume!(from.sequence != to.sequence && to.offset + size <= replica.disk.files[&to.segment].len());
        let good = replica.disk.files.clone();
        let copy = good[&from.segment][from.offset..from.offset + size].to_vec();
        file(&mut replica, to.segment)[to.offset..to.offset + size].copy_from_slice(&copy);
        if lost {
            file(&mut replica, from.segment)[from.offset..from.offset + size].fill(0);
        }
        let found = check_rot(&mut replica, &good);
        prop_assert!(found != Found::Nothing || to.gone);
        // A block that covers several small ones takes their headers and what repeats them.
        let one_for_one = size <= to.covered.next_multiple_of(4096) && !lost;
        prop_assert!(
            !one_for_one || !matches!(found, Found::Faulty(reason) if reason != FaultReason::CutHole) || to.sequence == last,
            "{:?}", found
        );
    }
}

#[test]
fn rot_in_the_padding_is_nobodys_business() {
    let mut replica = Replica::new(1);
    replica.append(b"short");
    replica.flush();
    file(&mut replica, SegmentNumber(1))[8192 + 4000] ^= 1;
    assert_eq!(replica.recovered().verdict, Verdict::Clean);
}

#[test]
fn a_rotten_or_lost_segment_header_is_restored() {
    for lost in [false, true] {
        for segment in 1..=2 {
            let mut replica = written(2);
            let good = replica.disk.files.clone();
            let file = file(&mut replica, SegmentNumber(segment));
            if lost {
                file[..4096].fill(0);
            } else {
                file[40] ^= 1;
            }
            assert_eq!(check_rot(&mut replica, &good), Found::Repaired);
        }
    }
}

/// Where nothing tells what a segment's header said, it hides nothing.
#[test]
fn a_segment_without_header_and_blocks_hides_nothing() {
    let mut replica = written(2);
    let good = replica.disk.files.clone();
    let file = file(&mut replica, SegmentNumber(2));
    file[40] ^= 1;
    for offset in (4096..file.len()).step_by(4096) {
        file[offset + 20] ^= 1;
    }
    assert!(matches!(check_rot(&mut replica, &good), Found::Faulty(_)));
}

/// Faulty, filled again from a peer, whole: and at no time in between does a restart forget that it was faulty.
#[test]
fn a_fault_is_remembered_until_it_is_filled() {
    for seed in 0..6 {
        let mut replica = written(seed);
        let true_stream = replica.stream.clone();
        let all = blocks(&replica);
        // A header and the one that repeats it: nothing is known of what was there.
        for place in &all[all.len() / 2..][..2] {
            file(&mut replica, place.segment)[place.offset + 30] ^= 1;
        }
        let recovered = replica.recovered();
        assert!(matches!(recovered.verdict, Verdict::Faulty { .. }), "{:?}", recovered.verdict);
        let mut good = recovered.end;
        let prefix = true_stream[..replica.index(good)].to_vec();
        replica.committed = replica.committed.min(good);
        replica.resume(&recovered, prefix);
        let (mut whole, mut rounds) = (false, 0);
        while !whole {
            rounds += 1;
            assert!(rounds < 400, "filled at last");
            for _ in 0..3 {
                replica.append_any();
            }
            replica.flush();
            replica.commit_durable();
            let recovered = replica.recovered();
            assert_eq!(recovered.end, replica.end(), "nothing of the new stream is lost");
            whole = match recovered.verdict {
                Verdict::Clean => true,
                Verdict::Faulty { from, reason: FaultReason::Unrepaired, .. } => {
                    assert_eq!(from, recovered.end);
                    false
                }
                other => panic!("{other:?}"),
            };
            assert!(whole || recovered.end >= good);
            assert!(!whole || replica.stream.len() >= true_stream.len(), "not before it is as long as it was");
            good = recovered.end;
            let stream = replica.stream.clone();
            replica.resume(&recovered, stream);
        }
        assert!(rounds > 1);
        replica.check_read_back();
    }
}

/// The last block of all may lose sectors without a witness: a cut, never bytes that were not written.
#[test]
fn the_very_end_can_only_be_told_by_others() {
    let mut replica = written(3);
    let last = *blocks(&replica).last().expect("blocks");
    file(&mut replica, last.segment)[last.offset..last.offset + SECTOR].fill(0);
    let recovered = replica.recovered();
    assert!(matches!(recovered.verdict, Verdict::TornTailCut { .. } | Verdict::Clean));
    assert!(recovered.end < replica.end(), "the clean-stop mark in the slots tells");
}
