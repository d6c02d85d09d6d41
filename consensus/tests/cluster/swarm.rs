//! Random runs: everything that may go wrong does, nothing that was committed is ever lost or different, and when the
//! trouble is over all replicas agree. A failure names its seed; `EVERSHARD_SEED` runs that one alone,
//! `EVERSHARD_SEEDS` says how many to try.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use evershard_consensus::{Durability, Raft, Standing};
use evershard_protocol::{MembershipChange, NodeId, NodeSet};

use crate::network::{Cluster, MS, Setup};

#[test]
fn nothing_committed_is_lost_in_durable_mode() {
    for_seeds(0..300, durable);
}

/// In replicated mode a crash loses acknowledged records, so at any time fewer than a quorum may have crashed and not
/// recovered yet.
#[test]
fn nothing_committed_is_lost_in_replicated_mode_while_a_quorum_stays_sound() {
    for_seeds(1000..1200, replicated);
}

/// Links that reorder and repeat break the caller's duties; even so nothing is lost.
#[test]
fn unruly_links_harm_nobody() {
    for_seeds(2000..2150, |seed| swarm(seed, Durability::Durable, true));
}

/// The voters change meanwhile, and reads are served; in half of the runs under a lease.
#[test]
fn nothing_is_lost_and_no_read_is_stale_while_members_come_and_go() {
    for_seeds(3000..3300, members);
}

/// Leaders that live for some milliseconds only, and reach some of the others only: the schedule of Raft's figure 8,
/// with the dice thrown for who comes next.
#[test]
fn nothing_committed_is_lost_though_no_leader_lives_for_long() {
    for_seeds(4000..4060, short_lives);
}

/// One run in which every leader dies soon.
pub fn short_lives(seed: u64) {
    let mut cluster = Cluster::new(5, Setup { seed, full: 100 * (seed % 2), ..Setup::default() });
    cluster.setup.delay_ns = cluster.roll(3) * MS;
    for _ in 0..60 {
        cluster.run_until(600, |cluster| cluster.leader().is_some_and(|leader| cluster.raft(leader).admits()));
        let Some(leader) = cluster.leader() else { break };
        for peer in 0..5 {
            cluster.cut[leader][peer] = cluster.roll(2) == 0;
        }
        if cluster.raft(leader).admits() && cluster.roll(2) == 0 {
            cluster.propose(leader);
        }
        let left = cluster.roll(8);
        cluster.run_ms(left);
        cluster.crash(leader, true);
        cluster.cut[leader] = vec![false; 5];
        let down: Vec<usize> = (0..5).filter(|index| cluster.nodes[*index].raft.is_none()).collect();
        if down.len() > 2 || cluster.roll(3) > 0 {
            let at = cluster.roll(down.len() as u64);
            cluster.restart(down[usize::try_from(at).expect("small")]);
        }
    }
    recover(&mut cluster);
}

/// One run in durable mode.
pub fn durable(seed: u64) {
    swarm(seed, Durability::Durable, false);
}

/// One run in replicated mode.
pub fn replicated(seed: u64) {
    swarm(seed, Durability::Replicated, false);
}

/// One run in which members come and go and reads are served.
pub fn members(seed: u64) {
    let mut cluster = make(seed, Durability::Durable, seed.is_multiple_of(5));
    let len = 4 + usize::try_from(seed % 4).expect("small");
    cluster = Cluster::new(len, Setup { voters: Some(3), ..cluster.setup });
    if seed.is_multiple_of(2) {
        cluster.setup.timing.lease_ns = 140 * MS;
        cluster = Cluster::new(len, cluster.setup);
    }
    run(&mut cluster, |cluster| {
        change(cluster);
        let len = cluster.nodes.len() as u64;
        let index = usize::try_from(cluster.roll(len)).expect("small");
        if cluster.nodes[index].raft.is_some() && !cluster.nodes[index].paused {
            cluster.begin_read(index);
        }
    });
}

/// Now and then the leader is asked for some other configuration.
fn change(cluster: &mut Cluster) {
    if cluster.roll(20) > 0 {
        return;
    }
    let Some(leader) = cluster.leader().filter(|leader| !cluster.nodes[*leader].paused) else { return };
    if !cluster.raft(leader).admits() {
        return;
    }
    let len = cluster.nodes.len() as u64;
    let some = |cluster: &mut Cluster, chance: u64| {
        let mut bits = 0;
        for index in 0..len {
            bits |= u64::from(cluster.roll(chance) == 0) << index;
        }
        NodeSet::from_bits(bits)
    };
    let members = *cluster.raft(leader).membership();
    let promote = some(cluster, 2).intersection(members.learners);
    let learn = some(cluster, 4).without(promote);
    let remove = some(cluster, 5).intersection(members.everybody()).without(promote).without(learn);
    let _ = cluster.change(leader, &MembershipChange { promote, learn, remove });
}

fn for_seeds(seeds: std::ops::Range<u64>, run: impl Fn(u64)) {
    let number = |name| std::env::var(name).ok().map(|number| number.parse::<u64>().expect("a number"));
    let seeds = match (number("EVERSHARD_SEED"), number("EVERSHARD_SEEDS")) {
        (Some(seed), _) => seed..seed + 1,
        (None, Some(len)) => seeds.start..seeds.start + len,
        (None, None) => seeds,
    };
    for seed in seeds {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| run(seed))) {
            eprintln!("the swarm failed; reproduce with EVERSHARD_SEED={seed}");
            resume_unwind(panic);
        }
    }
}

fn swarm(seed: u64, durability: Durability, unruly: bool) {
    run(&mut make(seed, durability, unruly), |_| {});
}

fn run(cluster: &mut Cluster, mut also: impl FnMut(&mut Cluster)) {
    if cluster.roll(4) > 0 {
        cluster.run_until(3000, |cluster| cluster.leader().is_some());
    }
    let steps = 1000 + cluster.roll(1500);
    let calm = [1, 3, 10, 30][usize::try_from(cluster.roll(4)).expect("small")];
    for _ in 0..steps {
        if cluster.roll(calm) == 0 {
            trouble(cluster);
        }
        also(cluster);
        for index in 0..cluster.nodes.len() {
            let admits = cluster.nodes[index].raft.as_ref().is_some_and(|raft| raft.admits());
            if admits && !cluster.nodes[index].paused && cluster.roll(3) == 0 {
                let size = (1 + cluster.roll(40)) * 8;
                cluster.propose_sized(index, size);
            }
        }
        cluster.step();
    }
    recover(cluster);
}

fn make(seed: u64, durability: Durability, unruly: bool) -> Cluster {
    let mut cluster = Cluster::new(
        [1, 3, 3, 3, 5, 5][usize::try_from(seed % 6).expect("small")],
        Setup { durability, seed, unruly, inflight_size_max: 80_000, ..Setup::default() },
    );
    cluster.setup.step_ns = (1 + cluster.roll(8)) * MS;
    cluster.setup.save_ns = cluster.roll(20) * MS;
    cluster.setup.flush_ns = cluster.roll(20) * MS;
    cluster.setup.delay_ns = cluster.roll(30) * MS;
    cluster.setup.loss = [0, 0, 10, 100][usize::try_from(cluster.roll(4)).expect("small")];
    cluster.setup.append_size_max = 400 + cluster.roll(2000);
    cluster.setup.full = if seed % 7 == 3 { 300 } else { 0 };
    cluster
}

/// One roll of the dice for everything that may happen in a step.
fn trouble(cluster: &mut Cluster) {
    let len = cluster.nodes.len() as u64;
    let mut index = usize::try_from(cluster.roll(len)).expect("small");
    if cluster.roll(3) == 0 {
        index = cluster.leader().unwrap_or(index);
    }
    let other = usize::try_from(cluster.roll(len)).expect("small");
    match cluster.roll(32) {
        0 | 1 if cluster.nodes[index].raft.is_some() && may_crash(cluster, index) => {
            let noticed = cluster.roll(2) == 0;
            cluster.crash(index, noticed);
        }
        2..=5 if cluster.nodes[index].raft.is_none() => cluster.restart(index),
        6 => cluster.cut[index][other] = true,
        7 | 8 => cluster.cut[index][other] = false,
        9 => cluster.disconnect(index, other),
        10..=12 => cluster.connect(index, other),
        13 => cluster.nodes[index].paused = true,
        14..=17 => cluster.nodes[index].paused = false,
        18 => cluster.nodes[index].disk_stuck = true,
        19..=22 => cluster.nodes[index].disk_stuck = false,
        23 => cluster.nodes[index].save_stuck = true,
        24..=27 => cluster.nodes[index].save_stuck = false,
        28 if cluster.nodes[index].raft.is_some() && !cluster.nodes[index].paused => {
            let to = NodeId(u8::try_from(other).expect("few nodes"));
            if cluster.transfer(index, to.0).is_ok() && cluster.roll(3) == 0 {
                // The old leader hears nothing of what follows.
                for peer in 0..cluster.nodes.len() {
                    cluster.cut[peer][index] = true;
                }
            }
        }
        29 => {
            for one in 0..cluster.nodes.len() {
                for two in 0..cluster.nodes.len() {
                    cluster.cut[one][two] = false;
                    cluster.connect(one, two);
                }
            }
        }
        30 | 31 if cluster.nodes[index].raft.is_some() && may_crash(cluster, index) => {
            cluster.crash(index, true);
            cluster.restart(index);
        }
        _ => {}
    }
}

fn may_crash(cluster: &Cluster, index: usize) -> bool {
    if cluster.setup.durability == Durability::Durable {
        return true;
    }
    let sound = |at: &usize| {
        let raft = cluster.nodes[*at].raft.as_ref();
        *at != index && raft.is_some_and(|raft| raft.standing() == Standing::Sound)
    };
    (0..cluster.nodes.len()).filter(sound).count() > cluster.nodes.len() / 2
}

/// The trouble is over: all agree, new commands are committed everywhere, everyone is sound.
fn recover(cluster: &mut Cluster) {
    cluster.heal();
    for index in 0..cluster.nodes.len() {
        if cluster.nodes[index].raft.is_none() {
            cluster.restart(index);
        }
    }
    cluster.heal();
    let ready = |cluster: &Cluster| cluster.leader().is_some_and(|leader| cluster.raft(leader).admits());
    assert!(cluster.run_until(5000, ready).is_some(), "no leader after the trouble was over: {}", cluster.describe());
    assert!(cluster.run_until(10_000, Cluster::has_converged).is_some(), "the replicas never agreed");
    let leader = cluster.leader().expect("just seen");
    let end = cluster.propose(leader);
    let members = cluster.raft(leader).members();
    let all = |cluster: &Cluster, holds: &dyn Fn(&Raft) -> bool| {
        members.iter().all(|node| holds(cluster.raft(usize::from(node.0))))
    };
    let done = |cluster: &Cluster| all(cluster, &|raft| raft.commit() >= end);
    assert!(cluster.run_until(3000, done).is_some(), "a command was not committed everywhere");
    let sound = |cluster: &Cluster| all(cluster, &|raft| raft.standing() == Standing::Sound);
    assert!(cluster.run_until(1000, sound).is_some(), "a replica never recovered");
}
