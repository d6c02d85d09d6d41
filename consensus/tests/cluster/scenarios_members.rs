//! Scenarios of the project's list about members, leases and reads, each under its number; see [`crate::scenarios`].

use evershard_consensus::{ChangeError, Role, Timing};
use evershard_protocol::{MembershipChange, NodeId, NodeSet};

use crate::network::{Cluster, MS, Setup};

fn set(nodes: &[usize]) -> NodeSet {
    nodes.iter().map(|index| NodeId(u8::try_from(*index).expect("few nodes"))).collect()
}

fn change(learn: &[usize], promote: &[usize], remove: &[usize]) -> MembershipChange {
    MembershipChange { learn: set(learn), promote: set(promote), remove: set(remove) }
}

/// Voters 0 to 3 with a settled leader; the other nodes are learners that have caught up.
fn cluster(voters: usize, len: usize, seed: u64) -> (Cluster, usize) {
    let mut cluster = Cluster::new(len, Setup { seed, voters: Some(voters), ..Setup::default() });
    let leader = cluster.elect();
    cluster.run_ms(60);
    let learners: Vec<usize> = (voters..len).collect();
    if !learners.is_empty() {
        cluster.change(leader, &change(&learners, &[], &[])).expect("settled");
        settle(&mut cluster);
    }
    (cluster, leader)
}

fn settle(cluster: &mut Cluster) {
    assert!(cluster.run_until(5000, Cluster::has_converged).is_some(), "never settled: {}", cluster.describe());
    cluster.run_ms(5);
}

fn other_than(old: usize) -> impl Fn(&Cluster) -> bool {
    move |cluster| cluster.leader().is_some_and(|now| now != old && cluster.raft(now).admits())
}

/// The flaw of changing one server at a time (Ongaro 2015): a leader appends a configuration that reaches nobody, another
/// leader appends a second one without having committed anything of its own term, and two majorities are disjoint. With add
/// and remove, two adds and two removes: the second change waits for a commit of the own term, and what was cut is void.
#[test]
fn s44_no_second_change_before_the_leader_has_committed_in_its_own_term() {
    let cases: [(MembershipChange, MembershipChange); 3] = [
        (change(&[], &[4], &[]), change(&[], &[], &[0])),
        (change(&[], &[4], &[]), change(&[], &[5], &[])),
        (change(&[], &[], &[1]), change(&[], &[], &[0])),
    ];
    for seed in 0..8 {
        for (first, second) in &cases {
            let (mut cluster, leader) = cluster(4, 6, seed);
            let everybody: Vec<usize> = (0..6).collect();
            cluster.part(&[leader], &everybody);
            let unseen = cluster.change(leader, first).expect("settled");
            let mut refused = false;
            for _ in 0..3000 {
                cluster.step();
                let Some(next) = cluster.leader().filter(|next| *next != leader) else { continue };
                let start = cluster.raft(next).term_start();
                let has_committed = start.is_some_and(|start| cluster.raft(next).commit() >= start);
                match cluster.change(next, second) {
                    Err(error) => {
                        assert_eq!((error, has_committed), (ChangeError::NotSettled, false), "seed {seed}");
                        refused = true;
                    }
                    Ok(_) => {
                        assert!(has_committed, "seed {seed}: a change before the term has committed anything");
                        break;
                    }
                }
            }
            assert!(refused, "seed {seed}: the scenario shows nothing");
            cluster.heal();
            settle(&mut cluster);
            let now = cluster.leader().expect("settled");
            assert_eq!(cluster.raft(leader).membership(), cluster.raft(now).membership(), "seed {seed}");
            assert!(cluster.raft(now).last() > unseen);
        }
    }
}

/// The leader dies at every moment of a joint change; whoever follows finds the joint configuration in its log or does not,
/// and leaves it only when it is committed under both majorities.
#[test]
fn s45_a_joint_configuration_found_in_the_log_is_not_left_early() {
    let mut joint_seen = 0;
    for seed in 0..5 {
        for crash_ms in 0..8 {
            let (mut cluster, leader) = cluster(3, 5, seed);
            let gone = (leader + 1) % 3;
            let joint = cluster.change(leader, &change(&[], &[3, 4], &[gone])).expect("settled");
            cluster.run_ms(crash_ms);
            cluster.crash(leader, true);
            for _ in 0..500 {
                cluster.step();
                for node in &cluster.nodes {
                    let Some(raft) = node.raft.as_ref().filter(|raft| raft.role() == Role::Leader) else { continue };
                    joint_seen += u32::from(raft.membership().is_joint());
                    if raft.membership_position() > joint && raft.last() > joint && !raft.membership().is_joint() {
                        assert!(raft.commit() >= joint, "left before it was committed");
                    }
                }
            }
            cluster.restart(leader);
            settle(&mut cluster);
            let now = cluster.leader().expect("settled");
            let voters = cluster.raft(now).membership().voters;
            let (before, after) = (set(&[0, 1, 2]), set(&[0, 1, 2, 3, 4]).without(set(&[gone])));
            assert!(voters == before || voters == after, "all of it or nothing: {}", cluster.describe());
        }
    }
    assert!(joint_seen > 20, "the scenario shows nothing");
}

/// A leader removes itself and hands over; one is removed while it is cut off and finds out; one is removed and added again
/// at once under the same id.
#[test]
fn s46_a_leader_is_removed_by_itself_while_partitioned_and_added_again() {
    for seed in 0..10 {
        let (mut cluster, leader) = cluster(3, 3, seed);
        cluster.change(leader, &change(&[], &[], &[leader])).expect("settled");
        assert!(cluster.run_until(1000, other_than(leader)).is_some(), "it hands over");
        settle(&mut cluster);
        let next = cluster.leader().expect("settled");
        assert!(!cluster.raft(next).members().contains(NodeId(u8::try_from(leader).expect("few"))));
        for step in [change(&[leader], &[], &[]), change(&[], &[leader], &[])] {
            cluster.change(next, &step).expect("settled and caught up");
            settle(&mut cluster);
        }
        assert_eq!(cluster.raft(next).membership().voters, set(&[0, 1, 2]), "the same id, at once");

        // It is cut off with a record nobody else has, and the others go on without it.
        cluster.part(&[next], &[0, 1, 2]);
        cluster.propose(next);
        assert!(cluster.run_until(3000, other_than(next)).is_some());
        let third = cluster.leader().expect("just seen");
        let removed = cluster.run_until(1000, |cluster| {
            let raft = cluster.raft(third);
            raft.term_start().is_some_and(|start| raft.commit() >= start)
        });
        assert!(removed.is_some(), "two of three go on");
        cluster.change(third, &change(&[], &[], &[next])).expect("its own term is committed");
        cluster.run_ms(500);
        cluster.heal();
        settle(&mut cluster);
        assert_eq!(cluster.leader(), Some(third));
        assert_eq!(cluster.raft(third).members(), set(&[0, 1, 2]).without(set(&[next])));
        let term = cluster.raft(third).term();
        cluster.run_ms(2000);
        assert_eq!(
            (cluster.raft(third).term(), cluster.leader()),
            (term, Some(third)),
            "who was removed disturbs nobody"
        );
    }
}

/// A learner that lags is not promoted; one that does not know yet that it was votes when it is asked, because the candidate
/// knows better.
#[test]
fn s47_a_learner_that_lags_is_not_promoted_and_votes_when_asked() {
    let (mut cluster, leader) = cluster(3, 4, 3);
    for peer in 0..3 {
        cluster.cut[peer][3] = true;
    }
    for _ in 0..300 {
        cluster.propose_sized(leader, 60_000);
        cluster.step();
    }
    let promote = change(&[], &[3], &[]);
    assert_eq!(cluster.change(leader, &promote), Err(ChangeError::NotCaughtUp(NodeId(3))));
    cluster.heal();
    settle(&mut cluster);
    for peer in 0..3 {
        cluster.cut[peer][3] = true;
    }
    cluster.change(leader, &promote).expect("caught up");
    let committed = |cluster: &Cluster| cluster.raft(leader).commit() == cluster.raft(leader).last();
    assert!(cluster.run_until(140, committed).is_some());
    assert!(!cluster.raft(3).membership().voters.contains(NodeId(3)), "it has not heard of it");
    cluster.crash(leader, true);
    cluster.heal();
    assert!(cluster.run_until(3000, other_than(leader)).is_some(), "without its vote two of four elect nobody");
}

/// Three voters, two are replaced one after the other while commands go on; the one to be replaced is lost for good in the
/// middle of it.
#[test]
fn s48_two_of_three_are_replaced_and_one_is_lost_for_good_meanwhile() {
    for seed in 0..10 {
        let (mut cluster, leader) = cluster(3, 5, seed);
        let (first, second) = ((leader + 1) % 3, (leader + 2) % 3);
        for (new, old) in [(3, first), (4, second)] {
            if old == first {
                cluster.crash(old, false);
            }
            cluster.change(leader, &change(&[], &[new], &[old])).expect("caught up");
            for _ in 0..50 {
                if cluster.raft(leader).admits() {
                    cluster.propose(leader);
                }
                cluster.step();
            }
            settle(&mut cluster);
        }
        assert_eq!(cluster.raft(leader).membership().voters, set(&[leader, 3, 4]));
        assert_eq!(cluster.oracle.leaders.len(), 1, "seed {seed}: the leader led all the time");
    }
}

fn leased(seed: u64) -> (Cluster, usize) {
    let timing = Timing { lease_ns: 120 * MS, ..Timing::default() };
    let mut cluster = Cluster::new(3, Setup { seed, timing, ..Setup::default() });
    let leader = cluster.elect();
    cluster.run_ms(60);
    assert!(cluster.raft(leader).has_lease());
    (cluster, leader)
}

/// A transfer ends the lease at once: the successor may be elected while the promises still run. The network compares every
/// read that is confirmed with what was committed anywhere when it began.
#[test]
fn s51_a_transfer_voids_the_lease_at_once() {
    for seed in 0..20 {
        let (mut cluster, leader) = leased(seed);
        let target = (leader + 1) % 3;
        cluster.transfer(leader, u8::try_from(target).expect("few")).expect("in step");
        assert!(!cluster.raft(leader).has_lease());
        let mut led = false;
        for _ in 0..200 {
            for node in 0..3 {
                cluster.begin_read(node);
            }
            if let Some(now) = cluster.leader().filter(|now| cluster.raft(*now).admits()) {
                led |= now == target;
                cluster.propose(now);
            }
            cluster.step();
        }
        assert!(led, "seed {seed}: it was to lead");
    }
}

/// A new leader serves no read before a record of its own term is committed: only then does it know what was.
#[test]
fn s52_a_read_waits_for_the_first_commit_of_the_term() {
    for seed in 0..10 {
        let mut cluster = Cluster::new(3, Setup { seed, ..Setup::default() });
        let old = cluster.elect();
        cluster.run_ms(60);
        // Committed by the old leader; nobody else has heard that it is.
        cluster.propose(old);
        cluster.run_until(20, |cluster| cluster.raft(old).commit() == cluster.raft(old).last());
        cluster.crash(old, true);
        assert!(cluster.run_until(3000, |cluster| cluster.leader().is_some_and(|now| now != old)).is_some());
        let leader = cluster.leader().expect("just seen");
        let mut waited = 0;
        while !cluster.begin_read(leader) {
            let raft = cluster.raft(leader);
            assert!(raft.term_start().is_none_or(|start| raft.commit() < start), "seed {seed}");
            cluster.step();
            waited += 1;
            assert!(waited < 1000, "seed {seed}: it never serves");
        }
        assert!(waited > 0, "seed {seed}: the scenario shows nothing");
        cluster.run_ms(50);
        assert_eq!(cluster.take_confirmed(), 1);
    }
}
