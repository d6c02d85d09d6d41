//! Named scenarios: what was once found by a seed, or what must be seen to hold, step by step. Those of the project's list
//! begin with their number (`COVERAGE.md`); the others are here.

mod clocks;
mod disks;
mod elections;
mod members;
mod power;
mod recoveries;
mod replication;
mod sessions;
mod snapshots;

use evershard_consensus::{Durability, Role, Standing, Timing};
use evershard_sim::client::address;
use evershard_sim::plan::Options;
use evershard_sim::script::Script;
use evershard_sim::service::Command;

/// A cluster in `durable` durability with quick disks and links, and timers that allow bounds to be told.
fn durable(seed: u64) -> Script {
    with(seed, |_| {})
}

/// The same but for what `adjust` says.
fn with(seed: u64, adjust: impl FnOnce(&mut Options)) -> Script {
    Script::new(seed, |options| {
        options.durability = Durability::Durable;
        options.timing = Timing::default();
        options.latency_ns = (50_000, 100_000);
        options.disk_ns = (50_000, 100_000);
        options.slow_blocks_ns = 0;
        options.window_len = 64;
        options.session_timeout_ns = 60_000_000_000;
        adjust(options);
    })
}

/// Waits for a leader and until all voters count: those of a new shard do not until they have heard of its first commit.
/// Returns the leader.
fn ready(script: &mut Script) -> usize {
    let leader = script.elect(0);
    (0..script.world.plan.options.voters).for_each(|node| script.await_sound(node, 0));
    leader
}

/// Whether something is known to be missing on a replica of shard 0.
fn is_harmed(script: &Script, node: usize) -> bool {
    !is_whole(script, node) || script.status(node, 0).is_some_and(|status| status.standing == Standing::Recovering)
}

/// Whether a node leads the shard 0.
fn leads(script: &Script, node: usize) -> bool {
    script.status(node, 0).is_some_and(|status| status.role == Role::Leader)
}

/// Waits until somebody else leads and admits commands.
fn await_other(script: &mut Script, old: usize, ms: u64) -> usize {
    let other = |script: &Script| {
        let leader = script.world.leader(0).filter(|leader| *leader != old)?;
        script.world.nodes[leader].core(0).is_some_and(|core| core.raft().admits()).then_some(leader)
    };
    script.run_until(ms, "somebody else leads", |script| other(script).is_some());
    other(script).expect("just seen")
}

/// Whether a running replica of shard 0 has all of its log, and on a disk that works.
fn is_whole(script: &Script, node: usize) -> bool {
    script.world.nodes[node].core(0).is_some_and(|core| core.disk().is_whole() && core.disk().failed().is_none())
}

/// A leader is suspended and cut off from the others, but not from one client, which still believes in it. The others elect one
/// of themselves, and another client writes there; then the first one asks. When the old leader goes on it knows of nothing and
/// has the question before it: an answer would be `stale-read`. Whether the client still believed in it when the leader woke up.
fn wake_up_alone(script: &mut Script) -> bool {
    let old = ready(script);
    script.call(0, Command::Put(1, 1));
    script.call(1, Command::Add(1, 1));
    assert_eq!(script.read(0, 1), 2);
    script.isolate(old);
    script.part(old, 1);
    script.pause(old, 1600);
    let woken = script.world.time + 1_600_000_000;
    await_other(script, old, 1500);
    script.send(1, Command::Add(1, 1));
    let written = |script: &Script| script.answered(1) == 2;
    while script.world.time < woken - 50_000_000 && !written(script) {
        script.run_for(5);
    }
    let was_written = written(script);
    for _ in 0..5 {
        script.ask(0, 1);
    }
    script.run_for((woken - script.world.time) / 1_000_000 + 1);
    let believes = script.world.clients[0].describe().contains(&format!("open at {}", address(old)));
    let is_leader = leads(script, old);
    script.run_for(1000);
    script.settle();
    assert_eq!(script.read(0, 1), 3);
    was_written && believes && is_leader
}

/// Terms of shard 0 that had a leader.
fn terms(script: &Script) -> usize {
    script.world.oracles[0].leaders.count()
}

#[test]
fn a_cluster_answers_and_all_replicas_agree() {
    let mut script = durable(1);
    script.elect(0);
    assert_eq!(script.call(0, Command::Add(1, 5)), [5]);
    assert_eq!(script.call(0, Command::Add(1, 6)), [11]);
    script.settle();
    let digests: Vec<u64> = (0..3).map(|node| script.status(node, 0).expect("it runs").digest).collect();
    assert_eq!(digests, [digests[0]; 3]);
}

#[test]
fn everything_acknowledged_survives_the_loss_of_all_power() {
    let mut script = durable(2);
    script.elect(0);
    for value in 1..=20 {
        assert_eq!(script.call(0, Command::Add(1, 1)), [value]);
    }
    script.power_cut(&[0, 1, 2]);
    script.run_for(500);
    (0..3).for_each(|node| script.restart(node));
    assert_eq!(script.call(0, Command::Get(1)), [20]);
    script.settle();
}

/// The story: a leader was paused, another one was elected. When it woke up, its sockets held requests of clients and an
/// append of the new leader. The requests became records; consensus had not heard of them when it stepped down, and what
/// the new leader sent was appended behind them.
#[test]
fn a_leader_that_wakes_up_deposed_with_requests_in_its_sockets() {
    for seed in 0..10 {
        let mut script = durable(seed);
        let leader = script.elect(0);
        script.call(0, Command::Add(1, 1));
        // The requests are read before the news of the new leader.
        script.reset_links(leader);
        script.run_for(200);
        let leader = script.elect(0);
        script.pause(leader, 1500);
        for _ in 0..5 {
            script.send(0, Command::Add(1, 1));
        }
        script.run_for(2500);
        script.settle();
        assert_eq!(script.call(0, Command::Get(1)), [6]);
    }
}

/// The story: the clock of a node was behind; it was restarted and became leader, and its first record was stamped before
/// those on its disk.
#[test]
fn record_time_does_not_go_back_when_a_leader_with_a_late_clock_was_restarted() {
    let mut script = durable(3);
    let leader = script.elect(0);
    (0..3).for_each(|node| script.clock_jump(node, 600));
    script.call(0, Command::Put(1, 1));
    (0..3).for_each(|node| script.clock_jump(node, -1200));
    script.power_cut(&[0, 1, 2]);
    (0..3).for_each(|node| script.restart(node));
    script.call(0, Command::Put(1, 2));
    assert!(script.status(leader, 0).is_some());
    script.settle();
}

#[test]
fn a_wiped_node_comes_back_as_recovering_and_becomes_sound() {
    let mut script = durable(4);
    let leader = script.elect(0);
    script.call(0, Command::Put(1, 7));
    let victim = (leader + 1) % 3;
    script.crash(victim);
    script.wipe(victim);
    script.restart(victim);
    assert_eq!(script.status(victim, 0).expect("it runs").standing, Standing::Recovering);
    script.run_until(5000, "it is sound", |script| {
        script.status(victim, 0).is_some_and(|status| status.standing == Standing::Sound)
    });
    script.settle();
}

#[test]
fn rot_in_the_middle_of_a_log_is_made_good_by_the_others() {
    let mut script = durable(5);
    let leader = script.elect(0);
    let mut positions = Vec::new();
    for value in 0..10 {
        script.call(0, Command::Put(1, value));
        positions.push(script.status(leader, 0).expect("it runs").committed);
        script.run_for(30);
    }
    let victim = (leader + 1) % 3;
    script.crash(victim);
    script.rot(victim, 0, positions[4]);
    script.restart(victim);
    assert!(!is_whole(&script, victim), "it lacks a block, and no more than that");
    script.settle();
    assert!(is_whole(&script, victim));
    assert_eq!(script.call(0, Command::Get(1)), [9]);
}

#[test]
fn a_leader_whose_disk_fails_lets_another_lead() {
    let mut script = durable(6);
    let leader = script.elect(0);
    script.call(0, Command::Put(1, 1));
    script.fail_write(leader, 0);
    script.send(0, Command::Put(1, 2));
    script.run_until(10_000, "another leads", |script| {
        (0..3).any(|node| node != leader && script.status(node, 0).is_some_and(|status| status.role == Role::Leader))
    });
    script.settle();
}

#[test]
fn a_transfer_moves_leadership() {
    let mut script = durable(7);
    let leader = script.elect(0);
    script.call(0, Command::Put(1, 1));
    let to = (leader + 1) % 3;
    script.await_sound(to, 0);
    script.transfer(0, to);
    script.run_until(2000, "it leads", |script| script.status(to, 0).is_some_and(|status| status.role == Role::Leader));
    script.settle();
}

#[test]
fn a_leader_that_is_cut_off_commits_nothing_and_comes_back() {
    let mut script = durable(8);
    let leader = script.elect(0);
    script.call(0, Command::Put(1, 1));
    script.isolate(leader);
    script.send(0, Command::Put(1, 2));
    script.run_for(2000);
    script.heal();
    script.settle();
    assert_eq!(script.call(0, Command::Get(1)), [2]);
}

/// The story: a leader without its followers filled its log's tail in memory with what nobody committed. Elected again,
/// it found no room for its term's first record, and without that nothing could be committed that would have made room.
#[test]
fn a_leader_whose_tail_is_full_of_uncommitted_records_can_begin_its_term() {
    let mut script = Script::new(9, |options| {
        options.durability = Durability::Durable;
        options.latency_ns = (50_000, 100_000);
        options.disk_ns = (50_000, 100_000);
        options.bandwidth = 1000;
        options.window_len = 2000;
        options.tail_size = 80 * 1024;
        options.session_timeout_ns = 60_000_000_000;
    });
    let leader = script.elect(0);
    script.call(0, Command::Put(1, 1));
    script.crash((leader + 1) % 3);
    script.isolate(leader);
    // Records of 88 bytes: what is left in the end has no room for the 56 of a term's first record.
    for _ in 0..1000 {
        script.send_sized(0, Command::Put(1, 2), 32);
    }
    script.run_for(1000);
    script.heal();
    script.run_until(10_000, "what fills the tail is committed", |script| {
        script.status(leader, 0).is_some_and(|status| status.committed.0 > 70_000)
    });
    script.settle();
}

/// The story (seed 1080): a leader was paused and replaced; the new one committed with the third, which then lost its disk.
/// Woken up, the old leader taught the third its own log, and the two of them were a quorum without what was acknowledged.
#[test]
fn a_wiped_replica_is_not_made_sound_by_a_deposed_leader() {
    let mut script = Script::new(11, |options| {
        options.durability = Durability::Durable;
        options.clients = 2;
        options.latency_ns = (50_000, 100_000);
        options.disk_ns = (50_000, 100_000);
    });
    let old = script.elect(0);
    script.call(0, Command::Put(1, 1));
    let other = evershard_sim::network::CLIENT_SITE + 1;
    (0..3).filter(|node| *node != old).for_each(|node| {
        script.partition(node, other);
        script.partition(other, node);
    });
    script.pause(old, 2500);
    script.run_until(2400, "another leads", |script| script.world.leader(0).is_some_and(|leader| leader != old));
    let new = script.elect(0);
    let third = 3 - old - new;
    script.run_for(50);
    script.call(0, Command::Put(1, 2));
    script.isolate(new);
    let site = evershard_sim::network::CLIENT_SITE;
    script.partition(new, site);
    script.partition(site, new);
    script.crash(third);
    script.wipe(third);
    script.restart(third);
    script.send(1, Command::Put(1, 3));
    script.run_for(4000);
    let standing = script.status(third, 0).expect("it runs").standing;
    assert_eq!(standing, Standing::Recovering, "nobody could confirm what it was taught");
    script.settle();
}
