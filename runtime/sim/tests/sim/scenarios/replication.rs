//! Replicas that are behind, divergent tails, large messages and slow cores: scenarios 30, 32, 34, 35, 36 and 71.

use evershard_protocol::limits::PAYLOAD_SIZE_MAX;
use evershard_sim::plan::MS;
use evershard_sim::script::Script;
use evershard_sim::service::Command;

use super::{await_other, durable, ready, terms, with};

/// A leader that was cut off has written what nobody else has; while its tail is replaced it loses power, at every moment of
/// it.
#[test]
fn s30_power_is_lost_while_a_divergent_tail_is_replaced() {
    for seed in 0..12 {
        let mut script = with(seed, |options| {
            options.clients = 2;
            options.disk_ns = (300_000, 2 * MS);
        });
        let old = ready(&mut script);
        script.call(1, Command::Put(1, 0));
        script.isolate(old);
        for _ in 0..30 {
            script.send(0, Command::Add(1, 1));
            script.send(1, Command::Add(1, 1));
            script.run_for(3);
        }
        await_other(&mut script, old, 5000);
        script.run_for(1500);
        script.heal();
        script.run_for(20);
        script.reset_links(old);
        script.run_for(seed);
        script.power_cut(&[old]);
        script.run_for(50);
        script.restart(old);
        script.settle();
        assert_eq!(script.call(0, Command::Get(1)), [60]);
    }
}

/// What a leader sent one follower of four before it was cut off waits for that follower's disk; meanwhile the next leader has
/// replaced it by less. When the disk goes on, the late writes acknowledge nothing of what stands there now.
#[test]
fn s32_late_writes_acknowledge_nothing_that_took_their_place() {
    for seed in 0..8 {
        let mut script = with(seed, |options| (options.nodes, options.voters) = (5, 5));
        let old = ready(&mut script);
        script.call(0, Command::Put(1, 0));
        let slow = (old + 1) % 5;
        let others: Vec<usize> = (2..5).map(|offset| (old + offset) % 5).collect();
        script.stall_disk(slow, 2000 + 50 * seed);
        for node in &others {
            for cut in [old, slow] {
                script.partition(cut, *node);
                script.partition(*node, cut);
            }
        }
        for _ in 0..30 {
            script.send_sized(0, Command::Add(1, 1), 3000);
            script.run_for(3);
        }
        let ends = |script: &Script, node: usize| script.world.nodes[node].core(0).expect("it runs").tail().end();
        let sent = ends(&script, slow);
        assert!(sent > script.status(slow, 0).expect("it runs").durable, "seed {seed}: it is in memory only");
        script.isolate(old);
        script.part(old, 0);
        let next = await_other(&mut script, old, 5000);
        assert!(others.contains(&next));
        script.heal();
        script.isolate(old);
        script.part(old, 0);
        script.run_until(3000, "it was replaced", |script| {
            script.status(slow, 0).expect("it runs").term == script.status(next, 0).expect("it runs").term
                && ends(script, slow) < sent
        });
        script.run_for(2500);
        script.settle();
        assert_eq!(script.call(0, Command::Get(1)), [30]);
    }
}

/// A follower that hangs for long costs the leader no memory beyond its bound and no client any time; when it goes on it is
/// brought up to date from the leader's disk.
#[test]
fn s34_a_slow_follower_is_fed_from_disk_and_holds_nobody_up() {
    for seed in 0..5 {
        let mut script = with(seed, |options| options.tail_size = 128 * 1024);
        let leader = ready(&mut script);
        let slow = (leader + 1) % 3;
        let call = |script: &mut Script| {
            let began = script.world.time;
            script.send_sized(0, Command::Add(1, 1), 8000);
            script.run_until(1000, "it is answered", |script| script.world.clients[0].unanswered() == 0);
            (script.world.time - began) / MS
        };
        let before = (0..20).map(|_| call(&mut script)).max().expect("some");
        script.pause(slow, 3000);
        let behind = script.status(slow, 0).expect("it runs").durable;
        let mut during = 0;
        for _ in 0..100 {
            during = call(&mut script).max(during);
            let tail = script.world.nodes[leader].core(0).expect("it runs").tail();
            assert!(tail.end().since(tail.start()) <= 128 * 1024, "seed {seed}: memory is bounded");
        }
        assert!(during <= before + 2, "seed {seed}: {during} ms with a slow follower, {before} ms before");
        let start = script.world.nodes[leader].core(0).expect("it runs").tail().start();
        assert!(start > behind, "seed {seed}: what it lacks is in memory, the scenario shows nothing");
        script.run_for(3500);
        script.settle();
        assert_eq!((script.call(0, Command::Get(1)), terms(&script)), (vec![120], 1));
    }
}

/// A follower is brought up to date over several segments from one leader's disk, and from the next one's when that dies in
/// the middle of it.
#[test]
fn s35_catching_up_from_disk_goes_on_with_the_next_leader() {
    for seed in 0..8 {
        let mut script = with(seed, |options| {
            options.tail_size = 80 * 1024;
            options.latency_ns = (2 * MS, MS);
            options.segment_size = evershard_log::SEGMENT_SIZE_MIN;
        });
        let leader = ready(&mut script);
        let slow = (leader + 1) % 3;
        script.crash(slow);
        let mut sent = 0;
        while sent < 150 {
            sent += u64::from(script.send_sized(0, Command::Add(1, 1), 20_000));
            script.run_for(4);
        }
        script.run_until(5000, "all is answered", |script| script.world.clients[0].unanswered() == 0);
        script.restart(slow);
        script.run_for(20 + 5 * seed);
        let end = script.status(leader, 0).expect("it runs").committed;
        assert!(script.status(slow, 0).expect("it runs").durable < end, "seed {seed}: it is still behind");
        script.crash(leader);
        script.run_until(10_000, "it was caught up", |script| {
            script.status(slow, 0).is_some_and(|status| status.committed > end)
        });
        script.restart(leader);
        script.settle();
        assert_eq!(script.call(0, Command::Get(1)), [sent]);
    }
}

/// Messages as large as they may be, over links that are slow, cut everything into pieces, lose, double and reorder frames
/// between replicas, and are reset again and again; every window fills up.
#[test]
fn s36_the_largest_messages_over_the_worst_links() {
    for seed in 0..6 {
        let mut script = with(seed, |options| {
            options.bandwidth = 10;
            options.cuts_per_mille = 600;
            options.unruly_per_mille = 50;
            options.inflight_size_max = 72 * 1024;
            options.tail_size = 256 * 1024;
        });
        let leader = ready(&mut script);
        let mut sent = 0;
        for round in 0..60 {
            sent += u64::from(script.send_sized(0, Command::Add(1, 1), PAYLOAD_SIZE_MAX));
            script.run_for(8);
            if round % 10 == 9 {
                script.reset_links((leader + usize::try_from(seed % 3).expect("small")) % 3);
            }
        }
        script.settle();
        assert_eq!(script.call(0, Command::Get(1)), [sent]);
        assert!(sent > 5, "the scenario shows nothing");
    }
}

/// The core of one shard is taken away for 50 ms, of its leader and of a follower: the other shard of the same node does not
/// notice, and nobody is elected.
#[test]
fn s71_a_core_that_is_taken_away_costs_its_own_shard_only() {
    for seed in 0..5 {
        let mut script = with(seed, |options| options.shards = 2);
        let leader = ready(&mut script);
        script.elect(1);
        script.call(0, Command::Put(1, 0));
        script.call(1, Command::Put(1, 0));
        script.run_for(300);
        let before: Vec<usize> = script.world.oracles.iter().map(|oracle| oracle.leaders.count()).collect();
        for round in 0..12 {
            let node = (leader + round) % 3;
            script.steal_core(node, 0, 50);
            script.send(0, Command::Add(1, 1));
            for _ in 0..5 {
                let began = script.world.time;
                script.call(1, Command::Add(1, 1));
                assert!((script.world.time - began) / MS <= 5, "seed {seed}: the other shard waited");
            }
            script.run_for(200);
        }
        let now: Vec<usize> = script.world.oracles.iter().map(|oracle| oracle.leaders.count()).collect();
        assert_eq!(now, before, "seed {seed}: 50 ms are no reason to elect");
        assert_eq!(script.call(0, Command::Get(1)), [12]);
        script.settle();
    }
}

/// A leader sleeps through two terms of others and wakes up.
#[test]
fn a_follower_that_slept_through_two_terms_is_brought_up_to_date() {
    for seed in 0..5 {
        let mut script = durable(seed);
        let first = ready(&mut script);
        script.call(0, Command::Put(1, 0));
        script.pause(first, 4000);
        let second = await_other(&mut script, first, 5000);
        script.call(0, Command::Add(1, 1));
        script.crash(second);
        script.restart(second);
        script.run_for(6000);
        script.call(0, Command::Add(1, 1));
        script.settle();
        assert_eq!(script.call(0, Command::Get(1)), [2]);
    }
}
