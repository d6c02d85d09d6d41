//! Disks that lie, fail, fill up and hang: scenarios 16 to 22 and 24.

use evershard_consensus::{Role, Standing};
use evershard_log::SEGMENT_SIZE_MIN;
use evershard_protocol::Position;
use evershard_sim::disk::WriteFault;
use evershard_sim::plan::MS;
use evershard_sim::script::Script;
use evershard_sim::service::Command;

use super::{durable, is_harmed, is_whole, leads, ready, terms, with};

/// Some records, each in a block of its own on every disk; returns where they end.
fn write(script: &mut Script, len: u64) -> Vec<Position> {
    let leader = ready(script);
    (0..len)
        .map(|_| {
            script.call(0, Command::Add(1, 1));
            script.run_for(40);
            script.status(leader, 0).expect("it runs").committed
        })
        .collect()
}

/// A bit flips in the middle of a replica's log, of a follower and of the leader, at rest: it goes on with all the rest, the
/// block is fetched from another, and at the next start nothing is missing.
#[test]
fn s16_a_flipped_bit_in_the_middle_is_repaired_from_another() {
    for seed in 0..10 {
        let mut script = durable(seed);
        let positions = write(&mut script, 10);
        let leader = script.world.leader(0).expect("it leads");
        let victim = (leader + usize::try_from(seed % 3).expect("small")) % 3;
        let end = script.status(victim, 0).expect("it runs").durable;
        script.crash(victim);
        script.rot(victim, 0, Position(positions[2 + usize::try_from(seed % 6).expect("small")].0 - 1));
        script.restart(victim);
        let status = script.status(victim, 0).expect("it runs");
        assert!(status.durable >= end || status.standing == Standing::Recovering, "nothing is cut");
        script.elect(0);
        assert_eq!(script.call(0, Command::Add(1, 1)), [11], "meanwhile the others go on");
        script.run_until(10_000, "it is whole", |script| is_whole(script, victim));
        script.settle();
        script.crash(victim);
        script.restart(victim);
        assert!(is_whole(&script, victim), "it was written back");
        script.settle();
        assert_eq!(script.call(0, Command::Get(1)), [11]);
    }
}

/// A bit flips in another record of each replica while all are down: every record has two good copies, so all are repaired.
#[test]
fn s17_another_record_rots_on_each_replica() {
    for seed in 0..10 {
        let mut script = durable(seed);
        let positions = write(&mut script, 12);
        script.run_for(200);
        script.power_cut(&[0, 1, 2]);
        for node in 0..3 {
            let at = positions[2 + 3 * node + usize::try_from(seed % 2).expect("small")];
            script.rot(node, 0, Position(at.0 - 1));
        }
        (0..3).for_each(|node| script.restart(node));
        // A bit of what a block repeats of the one before it is missed by nobody.
        let harmed = (0..3).filter(|node| is_harmed(&script, *node)).count();
        assert!(harmed >= 2, "seed {seed}: {harmed} lack something");
        script.settle();
        assert!((0..3).all(|node| is_whole(&script, node)));
        assert_eq!(script.call(0, Command::Get(1)), [12]);
    }
}

fn unnoticed(fault: WriteFault) {
    for seed in 0..10 {
        let mut script = durable(seed);
        write(&mut script, 4);
        let leader = script.world.leader(0).expect("it leads");
        let victim = (leader + usize::try_from(seed % 3).expect("small")) % 3;
        script.spoil_write(victim, 0, fault);
        write(&mut script, 6);
        script.crash(victim);
        script.restart(victim);
        assert!(is_harmed(&script, victim), "seed {seed}: it is noticed");
        script.settle();
        assert!(is_whole(&script, victim));
        assert_eq!(script.call(0, Command::Get(1)), [10]);
    }
}

/// A block is written at another block's place: where it should be it is missed, and where it is it is not believed.
#[test]
fn s18_a_misdirected_write_is_noticed_and_made_good() {
    unnoticed(WriteFault::Misdirected);
}

/// A block is reported as written and is not: the next one names it, so it is missed and fetched.
#[test]
fn s19_a_lost_write_is_noticed_and_made_good() {
    unnoticed(WriteFault::Lost);
}

/// What is read back for applying and for a follower that is behind is garbage at first and good when read again: no state is
/// built on it (`state-differs`), and nothing is sent of it (`log-differs`).
#[test]
fn s20_a_bad_read_leads_to_nothing() {
    for seed in 0..10 {
        let mut script = with(seed, |options| options.tail_size = 80 * 1024);
        let leader = ready(&mut script);
        let slow = (leader + 1) % 3;
        script.crash(slow);
        for _ in 0..40 {
            assert!(script.send_sized(0, Command::Add(1, 1), 5000));
            script.run_for(3);
        }
        script.spoil_reads(leader, 0, 3);
        script.restart(slow);
        script.spoil_reads(slow, 0, 3);
        script.settle();
        assert_eq!(script.call(0, Command::Get(1)), [40]);
    }
}

/// A write fails once, of a block or of a slot. The replica acknowledges nothing more, whatever the next write would say,
/// until it was started anew; a leader lets another lead.
#[test]
fn s21_after_a_failed_write_nothing_is_acknowledged_until_the_next_start() {
    for seed in 0..10 {
        let mut script = durable(seed);
        write(&mut script, 3);
        let leader = script.world.leader(0).expect("it leads");
        let victim = (leader + usize::try_from(seed % 3).expect("small")) % 3;
        script.fail_write(victim, 0);
        script.send(0, Command::Add(1, 1));
        script.run_until(2000, "the write fails", |script| !is_whole(script, victim));
        let durable = script.status(victim, 0).expect("it runs").durable;
        script.run_for(1000);
        for _ in 0..5 {
            script.call(0, Command::Add(1, 1));
        }
        let status = script.status(victim, 0).expect("it runs");
        assert_eq!(status.durable, durable, "seed {seed}: no write after the failed one is believed");
        assert_ne!(status.role, Role::Leader);
        script.settle();
        assert!(is_whole(&script, victim));
        assert_eq!(script.call(0, Command::Get(1)), [9]);
    }
}

/// A vote cannot be written: it is never told, and the replica says that its disk has failed.
#[test]
fn s21_a_vote_whose_write_failed_is_not_told() {
    for seed in 0..10 {
        let mut script = durable(seed);
        let leader = ready(&mut script);
        script.call(0, Command::Put(1, 1));
        let victim = (leader + 1) % 3;
        script.fail_slot(victim, 0);
        script.crash(leader);
        script.run_until(3000, "the slot cannot be written", |script| script.said(victim, "DiskFailed"));
        script.run_for(1500);
        assert!((0..3).all(|node| !leads(&script, node)), "seed {seed}: one of three has a vote");
        script.restart(leader);
        script.settle();
        assert_eq!(script.call(0, Command::Add(1, 1)), [2]);
    }
}

/// No segment can be prepared, on the leader and then anywhere: commands wait, no process ends, questions go on, and when there
/// is space again all is answered.
#[test]
fn s22_full_disks_hold_commands_up_and_nothing_else() {
    for seed in 0..6 {
        for full in [vec![0], vec![0, 1, 2]] {
            let mut script = with(seed, |options| {
                options.segment_size = SEGMENT_SIZE_MIN;
                options.window_len = 16;
            });
            let leader = ready(&mut script);
            script.call(0, Command::Put(1, 0));
            full.iter().for_each(|offset| script.fill_disk((leader + offset) % 3, true));
            let lives: Vec<u64> = (0..3).map(|node| script.world.nodes[node].life).collect();
            let mut sent = 0;
            for _ in 0..300 {
                sent += u64::from(script.send_sized(0, Command::Add(1, 1), 60_000));
                script.run_for(10);
            }
            if full.len() == 3 {
                assert!(script.answered(0) < 1 + usize::try_from(sent).expect("few"), "seed {seed}: all was taken");
                assert_eq!(terms(&script), 1, "seed {seed}: being full is no reason to elect");
            }
            full.iter().for_each(|offset| script.fill_disk((leader + offset) % 3, false));
            script.run_for(1500);
            script.settle();
            let now: Vec<u64> = (0..3).map(|node| script.world.nodes[node].life).collect();
            assert_eq!(now, lives, "seed {seed}: nobody was restarted");
            assert_eq!(script.call(0, Command::Get(1)), [sent]);
        }
    }
}

/// The leader's disks hang for five seconds. The others make a quorum, so commands of its shards are answered as before, by it
/// or by a successor; what it has on disk does not count meanwhile.
#[test]
fn s24_a_hanging_disk_of_the_leader_holds_nobody_up() {
    for seed in 0..6 {
        let mut script = with(seed, |options| (options.shards, options.clients) = (2, 1));
        let leader = ready(&mut script);
        script.elect(1);
        script.call(0, Command::Put(1, 0));
        script.call(1, Command::Put(1, 0));
        script.stall_disk(leader, 5000);
        let before = script.status(leader, 0).expect("it runs").durable;
        let mut slowest = 0;
        for value in 1..=40 {
            for client in 0..2 {
                let began = script.world.time;
                assert_eq!(script.call(client, Command::Add(1, 1)), [value]);
                slowest = slowest.max((script.world.time - began) / MS);
            }
            script.run_for(100);
        }
        assert!(slowest <= 10, "seed {seed}: a command took {slowest} ms");
        let status = script.status(leader, 0).expect("it runs");
        assert_eq!(status.durable, before, "its disk hangs");
        assert!(status.committed > status.durable, "the others commit");
        script.run_for(1200);
        script.settle();
    }
}
