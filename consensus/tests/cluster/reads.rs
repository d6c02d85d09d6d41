//! Reads without records: never stale, whoever else has been elected meanwhile. The network's oracle compares each
//! confirmed read with what was committed anywhere when it began.

use evershard_consensus::Timing;

use crate::network::{Cluster, MS, Setup};

const LEASE: Timing = Timing {
    heartbeat_ns: 20 * MS,
    election_min_ns: 150 * MS,
    election_max_ns: 300 * MS,
    stall_ns: 75 * MS,
    lease_ns: 120 * MS,
};

fn leased(seed: u64) -> (Cluster, usize) {
    let mut cluster = Cluster::new(3, Setup { seed, timing: LEASE, ..Setup::default() });
    let leader = cluster.elect();
    cluster.run_ms(60);
    (cluster, leader)
}

#[test]
fn a_quorum_is_asked_once_for_all_reads_that_wait() {
    let mut cluster = Cluster::new(3, Setup::default());
    let leader = cluster.elect();
    cluster.run_ms(60);
    let before = cluster.counts.empty;
    for _ in 0..10 {
        assert!(cluster.begin_read(leader));
    }
    cluster.run_ms(4);
    assert_eq!(cluster.take_confirmed(), 10);
    assert!(cluster.counts.empty - before <= 4, "one round for all of them");
    assert!(!cluster.begin_read((leader + 1) % 3), "followers serve none");
}

#[test]
fn a_new_leader_waits_until_it_knows_what_is_committed() {
    let mut cluster = Cluster::new(3, Setup::default());
    cluster.elect();
    let old = cluster.leader().expect("elected");
    cluster.run_ms(60);
    cluster.crash(old, true);
    let elected = |cluster: &Cluster| cluster.leader().is_some_and(|now| now != old);
    assert!(cluster.run_until(3000, elected).is_some());
    let leader = cluster.leader().expect("just seen");
    assert!(!cluster.begin_read(leader), "its own term is not committed yet");
    cluster.run_ms(100);
    assert!(cluster.begin_read(leader));
}

#[test]
fn a_leader_out_of_touch_confirms_nothing() {
    for seed in 0..20 {
        let mut cluster = Cluster::new(3, Setup { seed, ..Setup::default() });
        let leader = cluster.elect();
        cluster.run_ms(60);
        cluster.part(&[leader], &[0, 1, 2]);
        let elected = |cluster: &Cluster| cluster.leader().is_some_and(|now| now != leader);
        for _ in 0..300 {
            cluster.begin_read(leader);
            cluster.step();
        }
        assert_eq!(cluster.take_confirmed(), 0);
        assert!(cluster.run_until(3000, elected).is_some());
    }
}

/// Paused for long, with answers waiting in its buffers: what they prove lies before the pause (scenario 12).
#[test]
fn a_leader_that_was_paused_answers_nothing_stale() {
    for seed in 0..20 {
        let (mut cluster, leader) = leased(seed);
        cluster.begin_read(leader);
        cluster.step();
        cluster.nodes[leader].paused = true;
        let elected =
            |cluster: &Cluster| cluster.leader().is_some_and(|now| now != leader && cluster.raft(now).admits());
        assert!(cluster.run_until(30_000, elected).is_some());
        let next = cluster.leader().expect("just seen");
        cluster.propose(next);
        cluster.run_ms(100);
        cluster.nodes[leader].paused = false;
        for _ in 0..100 {
            cluster.begin_read(leader);
            cluster.step();
        }
    }
}

#[test]
fn under_a_lease_nobody_is_asked() {
    let (mut cluster, leader) = leased(1);
    assert!(cluster.raft(leader).has_lease());
    let before = cluster.counts.empty;
    cluster.begin_read(leader);
    cluster.step();
    assert_eq!(cluster.take_confirmed(), 1);
    assert!(cluster.counts.empty - before <= 2, "no round but a heartbeat that was due");
    cluster.part(&[leader], &[0, 1, 2]);
    cluster.run_ms(121);
    assert!(!cluster.raft(leader).has_lease(), "promises last so long and no longer");
}

/// A lease is void at once when leadership moves: the summoned candidate is exempt from the promises (scenario 51).
#[test]
fn a_transfer_voids_the_lease() {
    for seed in 0..20 {
        let (mut cluster, leader) = leased(seed);
        let target = u8::try_from((leader + 1) % 3).expect("few");
        cluster.transfer(leader, target).expect("in step");
        assert!(!cluster.raft(leader).has_lease());
        for _ in 0..200 {
            cluster.begin_read(leader);
            if let Some(now) = cluster.leader().filter(|now| cluster.raft(*now).admits()) {
                cluster.propose(now);
            }
            cluster.step();
        }
    }
}

/// With a lease a closed link is no reason to vote for another leader; without one it is.
#[test]
fn followers_keep_their_promise_though_the_link_is_closed() {
    for (timing, quick) in [(LEASE, false), (Timing::default(), true)] {
        let mut cluster = Cluster::new(3, Setup { timing, ..Setup::default() });
        let leader = cluster.elect();
        cluster.run_ms(60);
        cluster.crash(leader, true);
        let elected = |cluster: &Cluster| cluster.leader().is_some_and(|now| now != leader);
        let took = cluster.run_until(3000, elected).expect("somebody else leads");
        assert_eq!(took < 90, quick, "{took} ms");
    }
}

/// A pause that the leader notices ends the lease until the others have spoken again.
#[test]
fn a_stall_voids_the_lease() {
    let (mut cluster, leader) = leased(3);
    cluster.nodes[leader].paused = true;
    cluster.run_ms(80);
    cluster.nodes[leader].paused = false;
    // Only its own clock speaks in this step: nothing was delivered before.
    cluster.part(&[leader], &[0, 1, 2]);
    cluster.step();
    let now = cluster.now;
    let raft = cluster.nodes[leader].raft.as_mut().expect("it runs");
    assert!(raft.begin_read(now).is_none_or(|read| !raft.is_confirmed(&read)));
}

/// A follower that was restarted has forgotten its promise, and so makes it once more.
#[test]
fn promises_survive_a_restart() {
    for seed in 0..30 {
        let (mut cluster, leader) = leased(seed);
        let others: Vec<usize> = (0..3).filter(|at| *at != leader).collect();
        cluster.part(&[leader], &others);
        for &other in &others {
            cluster.crash(other, true);
            cluster.restart(other);
        }
        cluster.part(&[leader], &others);
        for _ in 0..200 {
            cluster.begin_read(leader);
            if let Some(now) = cluster.leader().filter(|now| *now != leader && cluster.raft(*now).admits()) {
                cluster.propose(now);
            }
            cluster.step();
        }
    }
}
