//! Reads, leases, clocks and timers: scenarios 43, 50, 51 and 72. (52 is in the tests of consensus.)

use evershard_consensus::{DRIFT_DIVISOR, Role};
use evershard_sim::plan::MS;
use evershard_sim::script::Script;
use evershard_sim::service::{ABSENT, Command};

use super::{await_other, durable, ready, wake_up_alone, with};

const HOUR: i64 = 3600;
/// In parts per million. Two clocks differ by up to twice as much.
const DRIFT: u16 = 500;

const _: () = assert!(2 * DRIFT as u64 <= 1_000_000 / DRIFT_DIVISOR, "what a lease allows for");

fn leased(seed: u64) -> Script {
    with(seed, |options| {
        options.clients = 2;
        options.timing.lease_ns = 120 * MS;
        options.drift_ppm = i64::from(DRIFT);
        options.window_len = 256;
    })
}

/// Both clients write and ask all the time, wherever they believe the leader to be.
fn work(script: &mut Script, ms: u64) {
    let end = script.world.time + ms * MS;
    while script.world.time < end {
        for client in 0..2 {
            script.send(client, Command::Add(1, 1));
            script.ask(client, 1);
        }
        script.run_for(7);
    }
}

fn count(script: &Script) -> usize {
    let on_all = (0..2).map(|client| script.answered(client)).sum::<usize>();
    on_all.min(script.world.history.answers.len())
}

/// Wall clocks jump by an hour, forwards and back, the monotonic ones drift, processes are suspended, the leader is cut off
/// with its clients: no answer under a lease is stale (`stale-read`).
#[test]
fn s50_no_clock_makes_a_lease_lie() {
    for seed in 0..8 {
        let mut script = leased(seed);
        ready(&mut script);
        work(&mut script, 100);
        for round in 0..6 {
            let leader = script.elect(0);
            let jump = if round % 2 == 0 { HOUR } else { -HOUR };
            script.clock_jump((leader + usize::try_from(round).expect("small")) % 3, jump);
            script.clock_jump(leader, -jump);
            match (seed + round) % 3 {
                0 => script.pause(leader, 100 + 100 * (seed % 4)),
                1 => script.isolate(leader),
                _ => script.pause((leader + 1) % 3, 1000),
            }
            work(&mut script, 600);
            script.heal();
            work(&mut script, 300);
        }
        assert!(count(&script) > 100, "seed {seed}: the scenario shows nothing");
        script.settle();
    }
}

/// A leader under a lease whose process is suspended finds the lease over when it goes on: the time that passed counts.
#[test]
fn s50_a_lease_is_over_after_a_suspension() {
    for seed in 0..8 {
        let mut script = leased(seed);
        let leader = ready(&mut script);
        work(&mut script, 100);
        let has_lease =
            |script: &Script| script.world.nodes[leader].core(0).is_some_and(|core| core.raft().has_lease());
        assert!(has_lease(&script));
        script.pause(leader, 2000);
        let next = await_other(&mut script, leader, 2000);
        work(&mut script, 3000);
        assert!(!has_lease(&script) && script.world.leader(0) == Some(next), "seed {seed}");
        script.settle();
    }
}

/// The same for one that is alone when it goes on, with a question before it.
#[test]
fn s50_a_leader_that_wakes_up_alone_has_no_lease() {
    let woken = (0..24).filter(|seed| wake_up_alone(&mut leased(*seed))).count();
    assert!(woken >= 4, "{woken} of 24 leaders woke up to a question: the scenario shows nothing");
}

/// Leadership is moved under a lease, back and forth, while everybody asks: the lease is over when the transfer begins.
#[test]
fn s51_a_transfer_ends_the_lease_under_load() {
    for seed in 0..8 {
        let mut script = leased(seed);
        ready(&mut script);
        for round in 0..8 {
            work(&mut script, 60);
            let leader = script.elect(0);
            let to = (leader + 1 + round % 2) % 3;
            script.await_sound(to, 0);
            script.transfer(0, to);
            work(&mut script, 30);
            script.run_until(3000, "it leads", |script| {
                script.status(to, 0).is_some_and(|status| status.role == Role::Leader)
            });
        }
        assert!(count(&script) > 50, "seed {seed}: the scenario shows nothing");
        script.settle();
    }
}

/// Leaders follow each other whose wall clocks are an hour apart, either way: the times of the log never go back
/// (`record-time`), through restarts too, and timers still fire.
#[test]
fn s72_the_time_of_the_log_does_not_go_back_with_the_clocks_of_its_leaders() {
    for seed in 0..8 {
        let mut script = durable(seed);
        ready(&mut script);
        script.call(0, Command::Put(1, 0));
        for round in 0..6 {
            let leader = script.elect(0);
            script.clock_jump(leader, if (seed + round) % 2 == 0 { HOUR } else { -HOUR });
            script.call(0, Command::Add(1, 1));
            script.call(0, Command::Lend(100, 7, 20));
            if round % 3 == 2 {
                script.power_cut(&[0, 1, 2]);
                (0..3).for_each(|node| script.restart(node));
            } else {
                script.crash(leader);
                await_other(&mut script, leader, 10_000);
                script.restart(leader);
                script.run_for(400);
            }
        }
        assert_eq!(script.call(0, Command::Get(1)), [6]);
        script.settle();
    }
}

/// A timer is set, and before it is due the leader dies, or all lose power: it fires once, at one position of the log, on every
/// replica and in every replay of it (`state-differs`).
#[test]
fn s43_timers_fire_at_one_position_after_failover_and_replay() {
    for seed in 0..8 {
        let mut script = with(seed, |options| options.offset_ns = 0);
        let leader = ready(&mut script);
        script.call(0, Command::Lend(100, 7, 8000));
        script.call(0, Command::Lend(101, 8, 8000));
        script.call(0, Command::Put(101, 9));
        if seed % 2 == 0 {
            script.crash(leader);
            await_other(&mut script, leader, 5000);
            script.restart(leader);
        } else {
            script.power_cut(&[0, 1, 2]);
            script.run_for(100);
            (0..3).for_each(|node| script.restart(node));
        }
        assert_eq!(script.call(0, Command::Get(100)), [7]);
        script.run_for(9000);
        assert_eq!(script.call(0, Command::Get(100)), [ABSENT]);
        assert_eq!(script.call(0, Command::Get(101)), [9], "that one was cancelled");
        script.power_cut(&[0, 1, 2]);
        (0..3).for_each(|node| script.restart(node));
        assert_eq!(script.call(0, Command::Get(100)), [ABSENT], "a replay lets it fire where it fired");
        script.settle();
    }
}
