//! Rot: what was acknowledged and changed is faulty, never absent.

use evershard_log::block::{BLOCK_HEADER_SIZE, BlockHeader};
use evershard_log::{FaultReason, Recovered, SegmentNumber, Verdict};
use evershard_protocol::Position;
use proptest::prelude::*;
use proptest::sample::Index;

use crate::crash::{Step, step, take};
use crate::disk::SECTOR;
use crate::replica::{Replica, read_back};

/// Where a block lies: segment, offset, bytes of header and content, what it says.
#[derive(Clone, Copy, Debug)]
struct Place {
    segment: SegmentNumber,
    offset: usize,
    covered: usize,
    sequence: u64,
    settled: u64,
}

/// A durable log of several segments, with truncations in it.
fn written(seed: u64) -> Replica {
    let mut replica = Replica::new(seed);
    for round in 0..24 {
        for _ in 0..5 {
            replica.append_any();
        }
        if round % 7 == 3 {
            replica.truncate_any();
            replica.append_any();
        }
        replica.flush();
        replica.commit_durable();
    }
    replica
}

fn file(replica: &mut Replica, segment: SegmentNumber) -> &mut Vec<u8> {
    replica.disk.files.get_mut(&segment).expect("it is there")
}

fn blocks(replica: &Replica) -> Vec<Place> {
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
            });
            offset += block.size;
        }
    }
    all.sort_by_key(|place| place.sequence);
    all
}

/// Those that a later block says were durable before it was written.
fn witnessed(replica: &Replica) -> Vec<Place> {
    let mut all = blocks(replica);
    let settled = all.iter().map(|place| place.settled).max().expect("blocks");
    all.retain(|place| place.sequence <= settled);
    all
}

/// What recovery finds must be faulty, with a good prefix.
fn check_faulty(replica: &mut Replica) -> Recovered {
    let recovered = replica.recovered();
    let Verdict::Faulty { from, .. } = recovered.verdict else {
        panic!("silently cut: {:?} at {} of {}", recovered.verdict, recovered.end, replica.end());
    };
    assert_eq!(from, recovered.end);
    let start = recovered.start;
    let prefix = read_back(&mut replica.disk, &recovered.table, &recovered.segments, start, from);
    assert!(replica.was_ever(&prefix), "what is called good was once the stream");
    recovered
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn a_flipped_bit_is_never_cut(seed in 0_u64..6, block in any::<Index>(), at in any::<Index>(), bit in 0..8) {
        let mut replica = written(seed);
        let blocks = blocks(&replica);
        let place = blocks[block.index(blocks.len())];
        file(&mut replica, place.segment)[place.offset + at.index(place.covered)] ^= 1_u8 << bit;
        check_faulty(&mut replica);
    }

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
        let byte = place.offset + at.index(place.covered);
        let file = file(&mut replica, place.segment);
        if zero {
            file[byte / SECTOR * SECTOR..][..SECTOR].fill(0);
        } else {
            file[byte] ^= 0x40;
        }
        let recovered = replica.recovered();
        if recovered.verdict == Verdict::Clean {
            let table = &recovered.table;
            let stream = read_back(&mut replica.disk, table, &recovered.segments, recovered.start, recovered.end);
            prop_assert!(stream == replica.stream, "{} of {} bytes", stream.len(), replica.stream.len());
        } else {
            check_faulty(&mut replica);
        }
    }

    #[test]
    fn a_lost_sector_with_a_witness_is_never_cut(seed in 0_u64..6, block in any::<Index>(), at in any::<Index>()) {
        let mut replica = written(seed);
        let blocks = witnessed(&replica);
        let place = blocks[block.index(blocks.len())];
        let sector = place.offset + at.index(place.covered) / SECTOR * SECTOR;
        let file = file(&mut replica, place.segment);
        let was_zero = file[sector..sector + SECTOR].iter().all(|byte| *byte == 0);
        file[sector..sector + SECTOR].fill(0);
        if was_zero {
            prop_assert_eq!(replica.recovered().verdict, Verdict::Clean);
        } else {
            check_faulty(&mut replica);
        }
    }

    #[test]
    fn a_lost_write_with_a_witness_is_never_cut(seed in 0_u64..6, block in any::<Index>()) {
        let mut replica = written(seed);
        let blocks = witnessed(&replica);
        let place = blocks[block.index(blocks.len())];
        let size = place.covered.next_multiple_of(4096);
        file(&mut replica, place.segment)[place.offset..place.offset + size].fill(0);
        check_faulty(&mut replica);
    }

    #[test]
    fn a_misdirected_write_is_never_taken(seed in 0_u64..6, from in any::<Index>(), to in any::<Index>()) {
        let mut replica = written(seed);
        let blocks = blocks(&replica);
        let (from, to) = (blocks[from.index(blocks.len())], blocks[to.index(blocks.len())]);
        let size = from.covered.next_multiple_of(4096);
        prop_assume!(from.sequence != to.sequence && to.offset + size <= replica.disk.files[&to.segment].len());
        let copy = replica.disk.files[&from.segment][from.offset..from.offset + size].to_vec();
        file(&mut replica, to.segment)[to.offset..to.offset + size].copy_from_slice(&copy);
        check_faulty(&mut replica);
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
fn a_rotten_or_lost_segment_header_hides_nothing() {
    for lost in [false, true] {
        for segment in 1..=2 {
            let mut replica = written(2);
            let file = file(&mut replica, SegmentNumber(segment));
            if lost {
                file[..4096].fill(0);
            } else {
                file[40] ^= 1;
            }
            let recovered = check_faulty(&mut replica);
            assert_eq!(recovered.end == Position(0), segment == 1);
        }
    }
}

/// Faulty, filled again from a peer, whole: and at no time in between does a restart forget that it was faulty.
#[test]
fn a_fault_is_remembered_until_it_is_filled() {
    for seed in 0..6 {
        let mut replica = written(seed);
        let true_stream = replica.stream.clone();
        let all = blocks(&replica);
        let place = all[all.len() / 2];
        file(&mut replica, place.segment)[place.offset + 130] ^= 1;
        let recovered = check_faulty(&mut replica);
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
