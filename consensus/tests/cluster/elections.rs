//! Who leads, when, and who must not disturb.

use evershard_consensus::{Role, Timing};
use evershard_protocol::{NodeId, Term};

use crate::network::{Cluster, MS, Setup};

fn seeded(seed: u64) -> Setup {
    Setup { seed, ..Setup::default() }
}

/// A cluster with a leader and some committed records.
fn settled(len: usize, setup: Setup) -> (Cluster, usize) {
    let mut cluster = Cluster::new(len, setup);
    let leader = cluster.elect();
    let end = cluster.propose(leader);
    let done = cluster.run_until(500, |cluster| {
        cluster.nodes.iter().all(|node| node.raft.as_ref().is_some_and(|r| r.commit() == end))
    });
    assert!(done.is_some(), "a command is committed everywhere");
    (cluster, leader)
}

/// Nothing changes any more, and the one who leads can commit.
fn check_settles(cluster: &mut Cluster) {
    cluster.run_ms(3000);
    let (terms, leader) = (cluster.oracle.leaders.len(), cluster.elect());
    let end = cluster.propose(leader);
    cluster.run_ms(1000);
    assert!(cluster.raft(leader).commit() >= end, "the leader cannot commit");
    assert_eq!(cluster.leader(), Some(leader), "leadership moves without need");
    assert_eq!(cluster.oracle.leaders.len(), terms, "terms come and go");
}

#[test]
fn one_leader_is_elected_whatever_the_size() {
    for len in [1, 2, 3, 5, 7] {
        for seed in 0..10 {
            let (cluster, leader) = settled(len, seeded(seed));
            for node in &cluster.nodes {
                assert_eq!(node.raft.as_ref().expect("it runs").leader(), Some(cluster.nodes[leader].id));
            }
        }
    }
}

#[test]
fn a_single_node_elects_itself_at_once() {
    let mut cluster = Cluster::new(1, Setup::default());
    let took = cluster.run_until(100, |cluster| cluster.leader().is_some_and(|leader| cluster.raft(leader).admits()));
    assert!(took.is_some_and(|ms| ms <= 5), "it took {took:?} ms");
}

/// Timers so close that candidates meet again and again: sooner or later one is ahead.
#[test]
fn split_votes_resolve() {
    let timing =
        Timing { election_min_ns: 100 * MS, election_max_ns: 112 * MS, stall_ns: 50 * MS, ..Timing::default() };
    let mut split = 0;
    for seed in 0..40 {
        let mut cluster = Cluster::new(5, Setup { timing, delay_ns: 15 * MS, ..seeded(seed) });
        let leader = cluster.elect();
        split += u64::from(cluster.raft(leader).term() > Term(1));
    }
    assert!(split > 3, "only {split} of the elections were split: the scenario shows nothing");
}

#[test]
fn a_dead_leader_is_replaced_soon_and_sooner_if_its_links_close() {
    for seed in 0..60 {
        for (noticed, limit_ms) in [(true, 150), (false, 500)] {
            let (mut cluster, leader) = settled(3, seeded(seed));
            cluster.crash(leader, noticed);
            let took =
                cluster.run_until(2000, |cluster| cluster.leader().is_some_and(|leader| cluster.raft(leader).admits()));
            assert!(took.is_some_and(|ms| ms < limit_ms), "seed {seed}: {took:?} ms, noticed: {noticed}");
        }
    }
}

/// Without pre-vote a node that comes back from isolation would depose the leader with its high term.
#[test]
fn whoever_comes_back_from_isolation_disturbs_nobody() {
    let (mut cluster, leader) = settled(3, Setup::default());
    let lonely = (leader + 1) % 3;
    let term = cluster.raft(leader).term();
    cluster.part(&[lonely], &[leader, (leader + 2) % 3]);
    cluster.run_ms(3000);
    assert_eq!(cluster.raft(lonely).term(), term, "a pre-candidate does not count terms");
    assert_eq!(cluster.raft(lonely).role(), Role::PreCandidate);
    cluster.heal();
    check_settles(&mut cluster);
    assert_eq!((cluster.leader(), cluster.raft(leader).term()), (Some(leader), term));
}

/// A link to the leader that flaps makes its follower ask; the others refuse.
#[test]
fn a_lost_link_to_a_living_leader_elects_nobody() {
    let (mut cluster, leader) = settled(3, Setup::default());
    let follower = (leader + 1) % 3;
    let (votes, term) = (cluster.counts.votes, cluster.raft(leader).term());
    cluster.disconnect(leader, follower);
    cluster.run_ms(60);
    assert!(cluster.counts.votes > votes, "it asks soon");
    cluster.run_ms(1000);
    cluster.connect(leader, follower);
    check_settles(&mut cluster);
    assert_eq!((cluster.leader(), cluster.raft(leader).term()), (Some(leader), term));
}

#[test]
fn one_way_silences_settle() {
    for seed in 0..10 {
        for (leader_is_cut, sends) in [(false, false), (false, true), (true, false), (true, true)] {
            let (mut cluster, leader) = settled(3, seeded(seed));
            let cut = if leader_is_cut { leader } else { (leader + 1) % 3 };
            for other in (0..3).filter(|&other| other != cut) {
                if sends {
                    cluster.cut[cut][other] = true;
                } else {
                    cluster.cut[other][cut] = true;
                }
            }
            check_settles(&mut cluster);
            assert_eq!(cluster.leader() == Some(leader), !leader_is_cut, "seed {seed}: who hears and is heard leads");
            cluster.heal();
            check_settles(&mut cluster);
            assert!(cluster.has_converged());
        }
    }
}

/// A - B - C: whoever leads, the other end must not depose it over and over.
#[test]
fn a_chain_of_links_settles() {
    for seed in 0..20 {
        let (mut cluster, leader) = settled(3, seeded(seed));
        let other = (leader + 1 + usize::from(seed % 2 == 0)) % 3;
        if seed % 4 < 2 {
            cluster.disconnect(leader, other);
        } else {
            cluster.part(&[leader], &[other]);
        }
        check_settles(&mut cluster);
        assert_eq!(cluster.leader(), Some(leader), "seed {seed}: the leader has a quorum");
    }
}

#[test]
fn a_leader_that_hears_no_quorum_steps_down() {
    let (mut cluster, leader) = settled(5, Setup::default());
    cluster.part(&[leader, (leader + 1) % 5], &[(leader + 2) % 5, (leader + 3) % 5, (leader + 4) % 5]);
    let uncommitted = cluster.propose(leader);
    cluster.run_ms(250);
    assert_eq!(cluster.raft(leader).role(), Role::Leader, "not before the longest election timeout");
    cluster.run_ms(100);
    assert_ne!(cluster.raft(leader).role(), Role::Leader);
    assert!(cluster.raft(leader).commit() < uncommitted);
    cluster.run_ms(500);
    assert!(cluster.leader().is_some_and(|new| new != leader && new != (leader + 1) % 5));
    cluster.heal();
    check_settles(&mut cluster);
    assert!(cluster.has_converged(), "the old leader's record gave way");
}

/// A replica that was not run for a second finds its timer long gone. It must listen before it calls an election.
#[test]
fn a_stall_does_not_start_an_election() {
    let (mut cluster, leader) = settled(3, Setup::default());
    let (stalled, third) = ((leader + 1) % 3, (leader + 2) % 3);
    let votes = cluster.counts.votes;
    cluster.nodes[stalled].paused = true;
    cluster.part(&[stalled], &[leader, third]);
    cluster.run_ms(1000);
    cluster.heal();
    cluster.run_ms(1000);
    assert_eq!(cluster.counts.votes, votes, "nobody asked for a vote");
    check_settles(&mut cluster);
    for node in &mut cluster.nodes {
        node.paused = true;
    }
    cluster.run_ms(1000);
    cluster.heal();
    check_settles(&mut cluster);
    assert_eq!(cluster.counts.votes, votes, "not even when everything was stopped");
    assert_eq!(cluster.leader(), Some(leader));
}

#[test]
fn a_leader_that_was_stopped_finds_its_successor() {
    let (mut cluster, leader) = settled(3, Setup::default());
    cluster.nodes[leader].paused = true;
    cluster.run_ms(1000);
    let successor = cluster.leader().expect("the others elected one");
    assert_ne!(successor, leader);
    cluster.heal();
    check_settles(&mut cluster);
    assert_eq!(cluster.leader(), Some(successor));
    assert!(cluster.has_converged());
}

/// Raft §5.4.1: the later term wins over the longer log.
#[test]
fn a_newer_log_beats_a_longer_one() {
    for seed in 0..20 {
        let mut cluster = Cluster::with_logs(&[vec![1; 9], vec![1, 2], vec![1, 2]], seeded(seed));
        let leader = cluster.elect();
        assert_ne!(leader, 0, "seed {seed}");
        check_settles(&mut cluster);
        assert!(cluster.has_converged());
        assert_eq!(cluster.nodes[0].log[1].term, Term(2));
    }
}

#[test]
fn the_longer_log_wins_within_a_term() {
    for seed in 0..20 {
        let mut cluster = Cluster::with_logs(&[vec![1, 2, 2], vec![1, 2], vec![1, 2]], seeded(seed));
        cluster.part(&[1], &[2]);
        cluster.run_ms(5000);
        assert!(cluster.leader() == Some(0), "seed {seed}: only node 0 can be elected by one of the others");
        assert_eq!(cluster.raft(1).leader(), Some(NodeId(0)));
    }
}

/// All nodes restart again and again; terms and votes come back from disk.
#[test]
fn restarts_do_not_lose_votes() {
    let (mut cluster, _) = settled(3, Setup::default());
    for round in 0..20 {
        let first = round % 3;
        let before = cluster.raft(first).term();
        cluster.crash(first, true);
        cluster.crash((first + 1) % 3, round % 2 == 0);
        cluster.run_ms(50);
        cluster.restart(first);
        cluster.restart((first + 1) % 3);
        assert!(cluster.raft(first).term() >= Term(before.0.saturating_sub(1)));
        cluster.elect();
    }
    check_settles(&mut cluster);
    assert!(cluster.has_converged());
}
