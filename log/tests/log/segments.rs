//! Rolls, recycling, trimming, a new begin.

use evershard_log::{Plan, SEGMENT_SIZE_MIN, SegmentNumber, Verdict};
use evershard_protocol::{Position, Term};

use crate::disk::Disk;
use crate::replica::{Replica, runs_of};

fn file(disk: &mut Disk, number: u64) -> &mut Vec<u8> {
    disk.files.get_mut(&SegmentNumber(number)).expect("it is there")
}

/// Fills the first segment to its last byte with one-unit blocks.
fn full_segment() -> Replica {
    let mut replica = Replica::new(9);
    let units = SEGMENT_SIZE_MIN / 4096 - 2;
    for _ in 0..units {
        replica.append(&[5; 1000]);
        replica.flush();
    }
    replica
}

#[test]
fn a_roll_exactly_at_the_boundary() {
    let mut replica = full_segment();
    assert!(file(&mut replica.disk, 1)[SEGMENT_SIZE_MIN as usize - 4096..].iter().any(|byte| *byte != 0));
    replica.crash();
    replica.append(b"over");
    let Plan::Write(start) = replica.plan() else { panic!("a start block") };
    assert_eq!(start.offset, 4096);
    assert_eq!(start.segment, SegmentNumber(3), "2 was prepared ahead by the life before");
    replica.flush();
    assert_eq!(replica.crash().verdict, Verdict::Clean);
    replica.check_read_back();
}

#[test]
fn a_cut_at_the_roll() {
    for seed in 0..60 {
        let mut replica = full_segment();
        replica.random.0 = seed;
        replica.append(b"over");
        assert!(matches!(replica.plan(), Plan::Write(_)));
        assert!(matches!(replica.plan(), Plan::Write(_)));
        replica.append(b"and on");
        replica.plan();
        replica.crash();
        replica.append(b"go on");
        replica.flush();
        assert_eq!(replica.crash().verdict, Verdict::Clean);
        replica.check_read_back();
    }
}

/// A trimmed segment's file used again as it was: not zeroed, but with a header of its own.
#[test]
fn stale_blocks_of_a_recycled_segment_never_pass() {
    let mut replica = Replica::new(5);
    while replica.disk.files.len() < 4 {
        replica.append_any();
        replica.flush();
    }
    let first = SegmentNumber(1);
    let stale = file(&mut replica.disk, 1).clone();
    replica.disk.delete(first);
    replica.writer.forget_before(SegmentNumber(2));
    let begin = replica.writer.table().first().expect("segment 2");
    let recycled = file(&mut replica.disk, 4);
    assert!(recycled[4096..].iter().all(|byte| *byte == 0), "prepared ahead");
    recycled[4096..].copy_from_slice(&stale[4096..]);
    let recovered = replica.recovered();
    assert_eq!((recovered.start, recovered.end), (begin, replica.end()));
    assert!(matches!(recovered.verdict, Verdict::TornTailCut { .. }), "{:?}", recovered.verdict);
    let stream = replica.stream.split_off(replica.index(begin));
    replica.resume(&recovered, stream);
    replica.append(b"behind it");
    replica.flush();
    assert_eq!(replica.crash().verdict, Verdict::Clean);
    replica.check_read_back();
}

/// A recycled file with the same number's own older life cannot be: but its blocks would not pass either.
#[test]
fn a_stale_block_at_the_next_place_ends_the_log() {
    let mut replica = Replica::new(2);
    replica.append(b"one");
    replica.flush();
    let end = replica.end();
    let mut donor = Replica::new(77);
    for _ in 0..3 {
        donor.append(b"two");
        donor.flush();
    }
    let stale = file(&mut donor.disk, 1)[12_288..16_384].to_vec();
    file(&mut replica.disk, 1)[12_288..16_384].copy_from_slice(&stale);
    let recovered = replica.recovered();
    assert_eq!(recovered.end, end);
    assert!(matches!(recovered.verdict, Verdict::Faulty { .. }), "same number, other nonce: somebody wrote here");
}

#[test]
fn an_interrupted_preparation_is_unused() {
    let mut replica = Replica::new(3);
    replica.append(b"one");
    replica.flush();
    let highest = *replica.disk.files.keys().last().expect("segments");
    replica.disk.files.insert(highest.next(), vec![0; 1000]);
    let recovered = replica.crash();
    assert_eq!(recovered.verdict, Verdict::Clean);
    assert!(recovered.unused.contains(&highest.next()));
    for number in recovered.unused {
        replica.disk.delete(number);
    }
    replica.append(b"two");
    replica.flush();
    replica.crash();
    assert!(replica.writer.wants_segment().is_some_and(|number| number > SegmentNumber(1)));
}

/// Torn again and again: the segments left on the way can be deleted, and the log stays.
#[test]
fn segments_left_by_recoveries_may_go() {
    for seed in 0..30 {
        let mut replica = Replica::new(seed);
        for _ in 0..12 {
            for _ in 0..4 {
                replica.append_any();
                replica.plan();
            }
            replica.complete_any();
            let recovered = replica.crash();
            for number in recovered.unused {
                replica.disk.delete(number);
            }
        }
        replica.append_any();
        replica.flush();
        assert_eq!(replica.crash().verdict, Verdict::Clean);
        replica.check_read_back();
    }
}

#[test]
fn the_front_is_trimmed() {
    let mut replica = Replica::new(5);
    while replica.disk.files.len() < 5 {
        replica.append_any();
        replica.flush();
    }
    let runs = runs_of(replica.begin, &replica.stream);
    let keep = replica.writer.table().locate(replica.end()).expect("it was written").segment;
    let numbers: Vec<_> = replica.disk.files.keys().copied().filter(|number| *number < keep).collect();
    assert!(!numbers.is_empty());
    for number in numbers {
        replica.disk.delete(number);
    }
    replica.writer.forget_before(keep);
    let first = replica.writer.table().first().expect("the last segment");
    let recovered = replica.recovered();
    assert_eq!((recovered.verdict, recovered.start, recovered.end), (Verdict::Clean, first, replica.end()));
    assert_eq!(recovered.runs, runs, "the start block remembers the terms before it");
    assert!(recovered.table.locate(Position(0)).is_none());
    let stream = replica.stream.split_off(replica.index(first));
    replica.resume(&recovered, stream);
    replica.append_any();
    replica.flush();
    replica.check_read_back();
}

#[test]
fn the_stream_begins_anew_behind_a_snapshot() {
    let mut replica = Replica::new(6);
    for _ in 0..20 {
        replica.append_any();
        replica.plan();
    }
    let start = Position(1 << 30);
    replica.writer.reset(start);
    replica.tail.reset(start);
    replica.stream.clear();
    replica.begin = start;
    replica.committed = start;
    replica.runs = vec![(Term(1), Position(0)), (Term(40), Position(64))];
    replica.term = Term(40);
    assert_eq!(replica.writer.durable(), start);
    replica.append(b"anew");
    replica.flush();
    let recovered = replica.recovered();
    assert_eq!((recovered.verdict, recovered.start, recovered.end), (Verdict::Clean, start, replica.end()));
    assert_eq!(recovered.runs, replica.runs);
    replica.check_read_back();
    replica.append(b"and on");
    replica.flush();
    let last = *replica.disk.files.keys().last().expect("segments");
    for number in recovered.unused {
        assert_ne!(number, recovered.table.locate(start).expect("it was written").segment);
        if number != last {
            replica.disk.delete(number);
        }
    }
    assert_eq!(replica.recovered().end, replica.end());
}

#[test]
fn nothing_to_write_without_a_segment() {
    let recovered = evershard_log::Recovered::default();
    let mut writer = evershard_log::Writer::new(crate::replica::CONFIG, &recovered);
    let mut replica = Replica::new(8);
    assert_eq!(replica.plan(), Plan::Nothing);
    replica.append(b"x");
    let mut buffer = vec![0; evershard_log::WRITE_SIZE_MAX];
    assert_eq!(writer.plan(&replica.tail, Position(0), &replica.runs, &mut buffer), Plan::NoSegment);
    assert_eq!(writer.wants_segment(), Some(SegmentNumber(1)));
}
