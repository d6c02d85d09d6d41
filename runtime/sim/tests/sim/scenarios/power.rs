//! Loss of power and of whole disks: scenarios 13, 14, 15, 23, 26, 27, 28 and 29.

use evershard_consensus::{Durability, Standing};
use evershard_sim::plan::MS;
use evershard_sim::script::Script;
use evershard_sim::service::{ABSENT, Command};

use super::{await_other, durable, leads, ready, terms, with};

/// Sends commands that add one, one every so many microseconds, for some milliseconds; returns how many.
fn load(script: &mut Script, every_us: u64, ms: u64) -> u64 {
    let end = script.world.time + ms * MS;
    let mut sent = 0;
    while script.world.time < end {
        sent += u64::from(script.send(0, Command::Add(1, 1)));
        let until = script.world.time + every_us * 1000;
        script.world.run_until_time(until).unwrap_or_else(|violation| panic!("{violation:?}"));
    }
    sent
}

/// All replicas lose power while commands are under way: what was answered is there afterwards, and what was not is executed
/// once when its client sends it again.
#[test]
fn s13_what_was_acknowledged_survives_the_loss_of_all_power() {
    for seed in 0..12 {
        let mut script = with(seed, |options| options.disk_ns = (100_000, 3_000_000));
        ready(&mut script);
        let sent = load(&mut script, 700, 40 + seed * 3);
        let answered = script.answered(0) as u64;
        assert!(0 < answered && answered < sent, "{answered} of {sent}: some were under way");
        script.power_cut(&[0, 1, 2]);
        script.run_for(500);
        (0..3).for_each(|node| script.restart(node));
        script.settle();
        assert_eq!(script.call(0, Command::Get(1)), [sent]);
    }
}

/// In `replicated` durability one replica loses power and with it what it had only in memory. It comes back as one whose word
/// does not count, so that it elects nobody who lacks what was acknowledged; with the others it is caught up.
#[test]
fn s14_a_replica_that_lost_bytes_does_not_vote_as_if_it_had_them() {
    for seed in 0..10 {
        let mut script = with(seed, |options| options.durability = Durability::Replicated);
        let leader = ready(&mut script);
        let (lossy, third) = ((leader + 1) % 3, (leader + 2) % 3);
        // The third hears nothing of the last commands; nobody's disk has them.
        script.isolate(third);
        (0..3).for_each(|node| script.stall_disk(node, 200));
        for value in 1..=20 {
            assert_eq!(script.call(0, Command::Add(1, 1)), [value]);
        }
        assert!(
            script.status(lossy, 0).expect("it runs").durable < script.status(leader, 0).expect("it runs").committed
        );
        script.power_cut(&[lossy]);
        // Without the leader the two others know nothing of the commands: they must not elect one of themselves.
        script.heal();
        script.pause(leader, 3000);
        script.restart(lossy);
        assert_eq!(script.status(lossy, 0).expect("it runs").standing, Standing::Recovering);
        for _ in 0..29 {
            script.run_for(100);
            assert!(!leads(&script, lossy) && !leads(&script, third), "seed {seed}");
        }
        script.settle();
        script.await_sound(lossy, 0);
        assert_eq!(script.call(0, Command::Get(1)), [20]);
    }
}

/// Power is lost again and again in the middle of writes, of which any sectors may be there: no replica takes that for damage
/// (`false-fault`), and nothing acknowledged is missing.
#[test]
fn s15_torn_writes_at_the_end_are_no_damage() {
    for seed in 0..6 {
        let mut script = with(seed, |options| options.disk_ns = (200_000, 4_000_000));
        ready(&mut script);
        let mut sent = 0;
        for round in 0..8 {
            sent += load(&mut script, 400, 5 + (seed + round) % 9);
            let victim = usize::try_from(round % 3).expect("small");
            script.power_cut(&[victim]);
            script.run_for(20);
            script.restart(victim);
            assert_eq!(script.status(victim, 0).expect("it runs").standing, Standing::Sound, "seed {seed}");
            script.elect(0);
        }
        script.settle();
        assert_eq!(script.call(0, Command::Get(1)), [sent]);
    }
}

/// Writes end in any order, some after many that were begun later; when the power goes in between, what was acknowledged is
/// what stands without a gap on a quorum of disks.
#[test]
fn s23_only_what_is_durable_without_a_gap_is_acknowledged() {
    for seed in 0..12 {
        let mut script = with(seed, |options| {
            options.disk_ns = (20_000, 30_000);
            options.slow_blocks_ns = 15 * MS;
        });
        script.elect(0);
        let sent = load(&mut script, 150, 30 + seed);
        script.run_until(2000, "something is acknowledged", |script| script.answered(0) > 0);
        let answered = script.answered(0) as u64;
        script.power_cut(&[0, 1, 2]);
        script.run_for(100);
        (0..3).for_each(|node| script.restart(node));
        script.elect(0);
        let held = (0..3).filter_map(|node| script.status(node, 0)).map(|status| status.durable).max();
        assert!(held.is_some() && answered > 0, "seed {seed}");
        script.settle();
        assert_eq!(script.call(0, Command::Get(1)), [sent]);
    }
}

/// The two copies of term and vote: the power goes at every moment of an election, and then one of the copies rots. No vote is
/// given twice (`two-leaders`), no term goes back (`position-back`), and the replica starts from either copy.
#[test]
fn s26_term_and_vote_survive_a_crash_at_any_moment_and_the_loss_of_one_copy() {
    for seed in 0..24 {
        let mut script = with(seed, |options| options.disk_ns = (2 * MS, 3 * MS));
        let leader = ready(&mut script);
        script.call(0, Command::Put(1, 1));
        let voter = (leader + 1) % 3;
        script.crash(leader);
        let term = script.status(voter, 0).expect("it runs").term;
        script.run_until(3000, "a new term begins", |script| {
            [voter, (leader + 2) % 3]
                .iter()
                .any(|node| script.status(*node, 0).is_some_and(|status| status.term > term))
        });
        script.run_for(seed % 8);
        script.power_cut(&[voter]);
        script.restart(leader);
        script.run_for(10);
        if script.world.nodes[voter].disks[0].has_both_slots() {
            script.rot_slot(voter, 0, seed);
        }
        script.restart(voter);
        script.settle();
        assert_eq!(script.call(0, Command::Add(1, 1)), [2]);
    }
}

/// Small segments, so that the log rolls often, and blocks of an earlier life of the file behind its end: they are never taken
/// for records.
#[test]
fn s27_what_a_recycled_segment_holds_is_no_record() {
    let mut left_over = 0;
    for seed in 0..6 {
        let mut script = durable(seed);
        ready(&mut script);
        let mut sent = 0;
        for round in 0..6 {
            for _ in 0..3 {
                sent += u64::from(script.send_sized(0, Command::Add(1, 1), 60_000));
                script.run_for(20);
            }
            let victim = usize::try_from((seed + round) % 3).expect("small");
            script.crash(victim);
            left_over += u32::from(script.leave_over(victim, 0));
            script.restart(victim);
            assert_eq!(script.status(victim, 0).expect("it runs").standing, Standing::Sound, "seed {seed}");
            script.elect(0);
        }
        script.settle();
        assert_eq!(script.call(0, Command::Get(1)), [sent]);
    }
    assert!(left_over > 10, "the scenario shows nothing");
}

/// A replica comes back with an empty disk under its old id: it is another incarnation whose word does not count, so that with
/// one other it elects nobody; when the third is back it is caught up and counts.
#[test]
fn s28_a_wiped_replica_does_not_vote_until_it_was_caught_up() {
    for seed in 0..8 {
        let mut script = durable(seed);
        let leader = ready(&mut script);
        let (wiped, third) = ((leader + 1) % 3, (leader + 2) % 3);
        // The third lacks what the other two have acknowledged.
        script.isolate(third);
        for value in 1..=10 {
            assert_eq!(script.call(0, Command::Add(1, 1)), [value]);
        }
        script.power_cut(&[leader, wiped]);
        script.wipe(wiped);
        script.heal();
        script.restart(wiped);
        for _ in 0..30 {
            script.run_for(100);
            assert!(!leads(&script, wiped) && !leads(&script, third), "seed {seed}");
            assert_eq!(script.status(wiped, 0).expect("it runs").standing, Standing::Recovering);
        }
        script.restart(leader);
        script.await_sound(wiped, 0);
        script.settle();
        assert_eq!(script.call(0, Command::Get(1)), [10]);
    }
}

/// A replica's data directory is put back to an earlier state, every checksum of which is right: the others remember more of
/// it, so it counts only when it was caught up.
#[test]
fn s29_a_backup_that_was_put_back_is_noticed() {
    for seed in 0..8 {
        let mut script = durable(seed);
        let leader = ready(&mut script);
        let victim = (leader + 1) % 3;
        script.call(0, Command::Put(1, 1));
        script.crash(victim);
        let images = script.backup(victim);
        script.restart(victim);
        // It votes in a later term and acknowledges more.
        script.crash(leader);
        await_other(&mut script, leader, 3000);
        assert!(terms(&script) > 1);
        for _ in 0..10 {
            script.call(0, Command::Add(1, 1));
        }
        script.restart(leader);
        script.run_for(500);
        script.crash(victim);
        script.put_back(victim, &images);
        script.restart(victim);
        script.run_until(2000, "somebody notices", |script| script.said(victim, "PutBack"));
        assert_eq!(script.status(victim, 0).expect("it runs").standing, Standing::Recovering, "seed {seed}");
        script.await_sound(victim, 0);
        script.settle();
        assert_eq!(script.call(0, Command::Get(1)), [11]);
        assert_eq!(script.call(0, Command::Get(2)), [ABSENT]);
    }
}
