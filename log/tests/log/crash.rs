//! Power cuts at any point, again and again.

use evershard_log::{Plan, Verdict};
use proptest::prelude::*;

use crate::replica::Replica;

#[derive(Clone, Copy, Debug)]
pub enum Step {
    Append(u8),
    Plan,
    Complete,
    Commit,
    Truncate,
    ReadBack,
    Crash,
    CleanRestart,
}

pub fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (1_u8..12).prop_map(Step::Append),
        10 => Just(Step::Plan),
        8 => Just(Step::Complete),
        2 => Just(Step::Commit),
        2 => Just(Step::Truncate),
        1 => Just(Step::ReadBack),
        2 => Just(Step::Crash),
        1 => Just(Step::CleanRestart),
    ]
}

pub fn take(replica: &mut Replica, step: Step) {
    match step {
        Step::Append(count) => {
            for _ in 0..count {
                replica.append_any();
            }
        }
        Step::Plan => {
            replica.plan();
        }
        Step::Complete => replica.complete_any(),
        Step::Commit => replica.commit_durable(),
        Step::Truncate => replica.truncate_any(),
        Step::ReadBack => replica.check_read_back(),
        Step::Crash => {
            replica.crash();
        }
        Step::CleanRestart => {
            // Where nothing is written after a cut, the next start finds the same cut.
            while !replica.append_any() {
                replica.plan();
                replica.complete_any();
            }
            replica.flush();
            let recovered = replica.crash();
            assert_eq!(recovered.verdict, Verdict::Clean);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Whatever recovery finds is one of the states the disk went through since the last one known durable: nothing
    /// acknowledged is lost, nothing appears that was not written, and no power cut looks like a fault.
    #[test]
    fn a_power_cut_is_never_a_fault(seed in any::<u64>(), steps in proptest::collection::vec(step(), 1..60)) {
        let mut replica = Replica::new(seed);
        for step in steps {
            take(&mut replica, step);
        }
        replica.crash();
        replica.check_read_back();
        take(&mut replica, Step::CleanRestart);
        prop_assert_eq!(replica.crash().verdict, Verdict::Clean);
    }
}

/// Restarting without writing changes nothing, torn or clean: recovery is a function of the disk.
#[test]
fn recovery_is_idempotent() {
    for seed in 0..40 {
        let mut replica = Replica::new(seed);
        for _ in 0..30 {
            replica.append_any();
            replica.plan();
            if seed % 2 == 0 {
                replica.complete_any();
            }
        }
        let first = replica.crash();
        let second = replica.recovered();
        assert_eq!((first.end, first.verdict, first.table), (second.end, second.verdict, second.table));
    }
}

/// After a clean end writing goes on in the same segment, so restarts do not eat up segments.
#[test]
fn a_clean_restart_stays_in_its_segment() {
    let mut replica = Replica::new(1);
    for _ in 0..20 {
        replica.append(b"again");
        replica.flush();
        replica.crash();
    }
    replica.append(b"where");
    let Plan::Write(write) = replica.plan() else { panic!("there is something") };
    assert_eq!((write.segment.0, write.offset), (1, 4096 * (1 + 1 + 20)));
}

/// The story: a replica cut its stream and wrote other records there; the power goes before they are durable. The old
/// ones are back, or the new ones are there, never a mix.
#[test]
fn a_cut_in_the_middle_of_an_overwrite() {
    for seed in 0..60 {
        let mut replica = Replica::new(seed);
        for _ in 0..10 {
            replica.append(b"old");
        }
        replica.flush();
        let middle = replica.boundaries(replica.begin)[4];
        replica.truncate(middle);
        replica.append(b"new and longer");
        replica.plan();
        replica.append(b"newer");
        replica.plan();
        replica.crash();
        replica.check_read_back();
    }
}

/// Scenario 15: of two blocks in flight every pair of parts may be there. Nothing was acknowledged, so nothing is a hole.
#[test]
fn torn_writes_of_every_shape() {
    let parts: [fn(usize) -> bool; 5] =
        [|_| false, |_| true, |sector| sector == 0, |sector| sector != 0, |sector| sector % 2 == 0];
    for first in parts {
        for second in parts {
            let mut replica = Replica::new(12);
            replica.append(b"acknowledged");
            replica.flush();
            let acknowledged = replica.writer.durable();
            for byte in [1, 2] {
                replica.append(&[byte; 5000]);
                assert!(matches!(replica.plan(), Plan::Write(_)));
            }
            replica.disk.tear(&[first, second]);
            let recovered = replica.crash();
            let whole = [first, second].iter().take_while(|written| written(1) && written(0)).count();
            assert_eq!(replica.boundaries(acknowledged).len(), 1 + whole);
            assert!(recovered.holes.is_empty());
        }
    }
}

/// A completion that comes late for what was cut since acknowledges only what is still the stream.
#[test]
fn a_late_completion_acknowledges_nothing_that_was_cut() {
    let mut replica = Replica::new(3);
    for _ in 0..4 {
        replica.append(b"old");
    }
    replica.plan();
    replica.plan();
    let middle = replica.boundaries(replica.begin)[2];
    replica.truncate(middle);
    replica.append(b"of a newer term");
    assert_eq!(replica.writer.durable().0, 0);
    replica.complete_any();
    replica.complete_any();
    assert_eq!(replica.writer.durable(), middle);
    replica.flush();
    assert_eq!(replica.writer.durable(), replica.end());
    replica.check_read_back();
}

#[test]
fn a_failed_write_is_for_ever() {
    let mut replica = Replica::new(4);
    replica.append(b"one");
    assert!(matches!(replica.plan(), Plan::Write(_)));
    let Plan::Write(data) = replica.plan() else { panic!("the data block") };
    replica.append(b"two");
    let Plan::Write(more) = replica.plan() else { panic!("the second data block") };
    replica.writer.on_written(more.sequence, Ok(()));
    replica.writer.on_written(data.sequence, Err(()));
    replica.writer.on_written(data.sequence - 1, Ok(()));
    assert_eq!(replica.writer.durable().0, 0, "only what is contiguous");
    assert!(replica.writer.is_failed());
    assert_eq!(replica.writer.in_flight(), 0);
    assert_eq!(replica.plan(), Plan::Failed);
}

#[test]
fn the_window_is_kept() {
    let mut replica = Replica::new(5);
    for _ in 0..4 {
        replica.append(b"x");
        assert!(matches!(replica.plan(), Plan::Write(_)));
    }
    replica.append(b"x");
    assert_eq!(replica.plan(), Plan::TooManyInFlight);
    assert_eq!(replica.writer.in_flight(), 4);
}
