//! Snapshots: taken while commands are applied, interrupted by crashes, refused by a full disk, sent to those who lack what
//! the log no longer has. Scenarios 22, 25, 35 and 38 to 40.

use std::collections::BTreeMap;

use evershard_log::{SEGMENT_SIZE_MIN, SegmentNumber};
use evershard_protocol::Position;
use evershard_protocol::client::AdminAction::MemberAdd;
use evershard_sim::disk::SimDisk;
use evershard_sim::plan::Options;
use evershard_sim::script::Script;
use evershard_sim::service::Command;
use evershard_sim::shelf::Job;

use super::{ready, with};

/// The smallest segments, little memory; snapshots only when asked for.
fn small(options: &mut Options) {
    options.segment_size = SEGMENT_SIZE_MIN;
    options.tail_size = 80 * 1024;
    options.snapshot_segments = 0;
}

/// Adds one so often, with commands of five kilobytes: a hundred fill more than a segment.
fn write(script: &mut Script, len: u64) {
    let before = script.answered(0);
    for _ in 0..len {
        assert!(script.send_sized(0, Command::Add(1, 1), 5000));
        script.run_for(3);
    }
    let answered = before + usize::try_from(len).expect("small");
    script.run_until(10_000, "all is answered", |script| script.answered(0) >= answered);
}

fn disk(script: &Script, node: usize) -> &SimDisk {
    &script.world.nodes[node].disks[0]
}

fn snapshots(script: &Script, node: usize) -> Vec<Position> {
    disk(script, node).shelf.files.keys().copied().collect()
}

fn first_segment(script: &Script, node: usize) -> SegmentNumber {
    *disk(script, node).segments().first().expect("there is a log")
}

/// Has a node take a snapshot and waits for it and for what is dropped then.
fn snapshot(script: &mut Script, node: usize) {
    let newest = snapshots(script, node).last().copied();
    for _ in 0..50 {
        // A follower learns a little later what was committed: there may be nothing new yet.
        script.snapshot(node, 0);
        script.run_for(200);
        if snapshots(script, node).last().copied() > newest {
            return;
        }
    }
    panic!("no snapshot in ten seconds");
}

/// A log of some segments with two snapshots: its first segment is gone.
fn trim(script: &mut Script, node: usize) {
    snapshot(script, node);
    write(script, 150);
    snapshot(script, node);
    assert!(first_segment(script, node) > SegmentNumber(1), "the log below the older snapshot was dropped");
}

/// What the background is doing for a replica.
fn stage(script: &Script, node: usize) -> &'static str {
    let stage = |job: &Job| match job {
        Job::Take(_) => "the shadow is at work",
        Job::Write(..) => "the snapshot is being written",
        Job::Drop(_) => "the log is being dropped",
        Job::Keep(_) | Job::Read(..) => "it is being sent",
    };
    let named = snapshots(script, node).len();
    disk(script, node).shelf.jobs.values().map(stage).next().unwrap_or(if named > 2 {
        "it has its name, and nothing is dropped yet"
    } else {
        "all is done"
    })
}

/// The disk is full when the second snapshot is to be written: it is not there, the first one and the whole log are, commands
/// go on. With space it is taken.
#[test]
fn s22_a_snapshot_finds_no_space_and_is_taken_later() {
    for seed in 0..4 {
        let mut script = with(seed, small);
        let leader = ready(&mut script);
        write(&mut script, 60);
        snapshot(&mut script, leader);
        write(&mut script, 60);
        script.fill_disk(leader, true);
        script.snapshot(leader, 0);
        script.run_until(2000, "it is refused", |script| script.said(leader, "SnapshotFailed"));
        assert_eq!(snapshots(&script, leader).len(), 1);
        write(&mut script, 5);
        script.fill_disk(leader, false);
        snapshot(&mut script, leader);
        assert_eq!(snapshots(&script, leader).len(), 2);
        script.settle();
        assert_eq!(script.call(0, Command::Get(1)), [125]);
    }
}

/// Power is lost, or the process killed, at every moment from the order of a snapshot to the end of what is dropped behind it:
/// while the shadow works, while the file is written, between its name and the first segment that goes, between two of
/// those. The replica begins from a snapshot that is whole and a log without a gap, and has everything.
#[test]
fn s25_a_crash_at_any_moment_of_snapshot_and_trimming() {
    let mut stages = BTreeMap::new();
    for seed in 0..48 {
        let mut script = with(seed, small);
        let leader = ready(&mut script);
        let victim = (leader + usize::try_from(seed % 3).expect("small")) % 3;
        write(&mut script, 110);
        snapshot(&mut script, victim);
        write(&mut script, 110);
        snapshot(&mut script, victim);
        write(&mut script, 110);
        script.snapshot(victim, 0);
        // From the order until all is dropped it takes some 150 ms.
        script.run_for(seed * 7 / 2);
        *stages.entry(stage(&script, victim)).or_insert(0) += 1;
        if seed % 2 == 0 {
            script.power_cut(&[victim])
        } else {
            script.crash(victim)
        }
        script.restart(victim);
        let status = script.status(victim, 0).expect("it runs");
        let begun = script.world.nodes[victim].core(0).and_then(|core| core.snapshots().newest());
        assert!(begun.is_some_and(|begun| begun <= status.applied), "seed {seed}: it begins with a snapshot");
        script.settle();
        assert_eq!(script.call(0, Command::Get(1)), [330]);
        write(&mut script, 5);
        snapshot(&mut script, victim);
        assert!(snapshots(&script, victim).len() <= 2, "seed {seed}: what is old goes with the next one");
        script.power_cut(&[0, 1, 2]);
        (0..3).for_each(|node| script.restart(node));
        script.settle();
        assert_eq!(script.call(0, Command::Get(1)), [335]);
    }
    for wanted in [
        "the shadow is at work",
        "the snapshot is being written",
        "the log is being dropped",
        "it has its name, and nothing is dropped yet",
        "all is done",
    ] {
        assert!(stages.contains_key(wanted), "no crash came while {wanted}: {stages:?}");
    }
}

/// A follower is down while the others write and trim their logs beyond where it stopped. What it lacks is only in a snapshot,
/// which it is sent; the leader falls while that is on its way, and the next one sends its own.
#[test]
fn s35_a_follower_that_lacks_what_was_trimmed_is_sent_a_snapshot() {
    for seed in 0..8 {
        let mut script = with(seed, small);
        let leader = ready(&mut script);
        let slow = (leader + 1) % 3;
        write(&mut script, 20);
        script.crash(slow);
        write(&mut script, 110);
        for node in (0..3).filter(|node| *node != slow) {
            trim(&mut script, node);
        }
        script.restart(slow);
        script.run_until(3000, "it is on its way", |script| script.said(leader, "SnapshotSent"));
        if seed % 2 == 1 {
            script.run_for(seed / 2);
            script.crash(leader);
            script.restart(leader);
        }
        script.settle();
        assert!(script.world.stats.snapshots_moved > 0, "seed {seed}: it was taken over");
        assert_eq!(script.call(0, Command::Get(1)), [430]);
        // From then on its own log goes on behind the snapshot: what it has acknowledged since is there at the next start.
        let had = script.status(slow, 0).expect("it runs").durable;
        script.power_cut(&[slow]);
        script.restart(slow);
        assert!(script.status(slow, 0).expect("it runs").durable >= had, "seed {seed}");
        script.settle();
    }
}

/// The shadow's snapshot is the state at exactly its position: every node takes one while commands go on, all are killed,
/// and what begins from the snapshots is equal at every position, byte for byte (`digests-differ`, `state-differs`).
#[test]
fn s38_a_snapshot_taken_under_load_is_the_state_at_its_position() {
    for seed in 0..8 {
        let mut script = with(seed, small);
        ready(&mut script);
        write(&mut script, 30);
        for node in 0..3 {
            script.snapshot(node, 0);
            assert!(script.send(0, Command::Lend(7, 1, 400)));
            write(&mut script, 10);
        }
        script.run_until(3000, "all have one", |script| (0..3).all(|node| !snapshots(script, node).is_empty()));
        let digest_of = |script: &Script, node| script.status(node, 0).expect("it runs").digest;
        script.run_for(600);
        let before = [0, 1, 2].map(|node| digest_of(&script, node));
        script.power_cut(&[0, 1, 2]);
        (0..3).for_each(|node| script.restart(node));
        for node in 0..3 {
            let begun = script.world.nodes[node].core(0).and_then(|core| core.snapshots().newest());
            let applied = script.status(node, 0).expect("it runs").applied;
            assert_eq!(begun, Some(applied), "it begins with the snapshot");
        }
        script.settle();
        let after = [0, 1, 2].map(|node| digest_of(&script, node));
        assert!(after.windows(2).all(|pair| pair[0] == pair[1]) && before.windows(2).all(|pair| pair[0] == pair[1]));
        assert_eq!(script.call(0, Command::Get(1)), [60]);
    }
}

/// The way between the two breaks at every moment of a transfer, and each of them is killed in it: it is sent anew, and in the
/// end it is there.
#[test]
fn s39_a_transfer_that_is_interrupted_is_made_again() {
    for seed in 0..18 {
        let mut script = with(seed, small);
        let leader = ready(&mut script);
        let slow = (leader + 1) % 3;
        write(&mut script, 110);
        script.crash(slow);
        script.wipe(slow);
        for node in (0..3).filter(|node| *node != slow) {
            trim(&mut script, node);
        }
        script.restart(slow);
        script.run_until(5000, "it is on its way", |script| script.said(leader, "SnapshotSent"));
        script.run_for(seed * 2);
        match seed % 3 {
            0 => script.reset_links(slow),
            1 => {
                script.crash(slow);
                script.restart(slow);
            }
            _ => {
                script.crash(leader);
                script.restart(leader);
            }
        }
        script.settle();
        let begun = script.world.nodes[slow].core(0).and_then(|core| core.snapshots().newest());
        assert!(begun.is_some(), "seed {seed}: it was taken over");
        assert_eq!(script.call(0, Command::Get(1)), [410]);
    }
}

/// A snapshot right behind a change of members, with a session and a timer that are open, holds all three: when the log no
/// longer has their records, a start knows the learner, the session goes on, and the timer fires.
#[test]
fn s40_a_snapshot_holds_members_sessions_and_timers() {
    for seed in 0..4 {
        let mut script = with(seed, |options| {
            small(options);
            (options.nodes, options.voters) = (4, 3);
            (options.offset_ns, options.drift_ppm) = (0, 0);
        });
        ready(&mut script);
        assert!(script.send(0, Command::Lend(9, 5, 30_000)));
        script.change(0, MemberAdd, 3);
        (0..3).for_each(|node| snapshot(&mut script, node));
        write(&mut script, 150);
        (0..3).for_each(|node| trim(&mut script, node));
        let membership = script.membership(0).expect("there is a leader");
        script.power_cut(&[0, 1, 2, 3]);
        (0..4).for_each(|node| script.restart(node));
        script.elect(0);
        assert_eq!(script.membership(0), Some(membership), "seed {seed}");
        assert!(membership.learners.len() == 1, "the learner is one still");
        assert_eq!(script.call(0, Command::Get(9)), [5], "the session of before goes on, and the key is lent still");
        script.run_for(31_000);
        script.settle();
        assert_eq!(script.call(0, Command::Get(9)), [u64::MAX], "its time is over");
    }
}

/// Both snapshots rot while the node runs: the shadow finds out, nothing can be built from the log any more, so the hot
/// instance itself is saved, and the next start begins with that.
#[test]
fn a_replica_whose_snapshots_have_all_rotted_saves_its_hot_instance() {
    for seed in 0..4 {
        let mut script = with(seed, small);
        let leader = ready(&mut script);
        write(&mut script, 110);
        trim(&mut script, leader);
        for file in script.world.nodes[leader].disks[0].shelf.files.values_mut() {
            let middle = file.len() / 2;
            file[middle] ^= 1;
        }
        write(&mut script, 5);
        snapshot(&mut script, leader);
        script.crash(leader);
        script.restart(leader);
        script.settle();
        assert_eq!(script.call(0, Command::Get(1)), [265]);
    }
}
