//! The voters change while the shard works: through joint configurations, one at a time, without losing a command.

use evershard_consensus::{ChangeError, Role, Standing};
use evershard_protocol::{MembershipChange, MembershipError, NodeId, NodeSet};

use crate::network::{Cluster, Setup};

fn set(nodes: &[usize]) -> NodeSet {
    nodes.iter().map(|index| NodeId(u8::try_from(*index).expect("few nodes"))).collect()
}

fn learn(nodes: &[usize]) -> MembershipChange {
    MembershipChange { learn: set(nodes), ..MembershipChange::default() }
}

fn promote(nodes: &[usize]) -> MembershipChange {
    MembershipChange { promote: set(nodes), ..MembershipChange::default() }
}

fn remove(nodes: &[usize]) -> MembershipChange {
    MembershipChange { remove: set(nodes), ..MembershipChange::default() }
}

/// Three voters with a settled leader, and nodes that may join.
fn cluster(len: usize, seed: u64) -> (Cluster, usize) {
    let mut cluster = Cluster::new(len, Setup { seed, voters: Some(3), ..Setup::default() });
    let leader = cluster.elect();
    cluster.run_ms(60);
    (cluster, leader)
}

fn settled(cluster: &Cluster) -> bool {
    cluster.has_converged()
}

fn settle(cluster: &mut Cluster) {
    assert!(cluster.run_until(3000, settled).is_some(), "the configuration never settled");
    // The last answers reach the leader.
    cluster.run_ms(5);
}

#[test]
fn a_learner_takes_over_the_log_and_has_no_vote() {
    let (mut cluster, leader) = cluster(4, 1);
    for _ in 0..50 {
        cluster.propose(leader);
    }
    cluster.change(leader, &learn(&[3])).expect("settled");
    settle(&mut cluster);
    assert_eq!(cluster.raft(3).last(), cluster.raft(leader).last());
    assert_eq!(cluster.raft(3).standing(), Standing::Sound);
    // Two of three voters gone: a learner is no help.
    cluster.crash((leader + 1) % 3, true);
    cluster.crash((leader + 2) % 3, true);
    let end = cluster.propose(leader);
    cluster.run_ms(2000);
    assert!(cluster.raft(leader).commit() < end);
    assert!(cluster.nodes[3].raft.as_ref().is_some_and(|raft| raft.role() == Role::Follower), "it never campaigns");
}

#[test]
fn a_learner_is_promoted_when_it_has_caught_up() {
    let (mut cluster, leader) = cluster(4, 2);
    assert_eq!(cluster.change(leader, &promote(&[3])), Err(ChangeError::NotLearner(NodeId(3))));
    cluster.disconnect(leader, 3);
    cluster.change(leader, &learn(&[3])).expect("settled");
    cluster.run_ms(100);
    assert_eq!(cluster.change(leader, &promote(&[3])), Err(ChangeError::NotCaughtUp(NodeId(3))));
    cluster.connect(leader, 3);
    settle(&mut cluster);
    let joint = cluster.change(leader, &promote(&[3])).expect("it has caught up");
    assert!(cluster.raft(leader).membership().is_joint(), "in force where it is appended");
    assert_eq!(cluster.change(leader, &remove(&[3])), Err(ChangeError::NotSettled));
    settle(&mut cluster);
    assert_eq!(cluster.raft(leader).membership().voters, set(&[0, 1, 2, 3]));
    assert!(cluster.raft(leader).membership_position() > joint);
}

#[test]
fn a_joint_configuration_needs_both_majorities() {
    let (mut cluster, leader) = cluster(6, 3);
    cluster.change(leader, &learn(&[3, 4, 5])).expect("settled");
    settle(&mut cluster);
    let replace = MembershipChange { promote: set(&[3, 4, 5]), remove: set(&[0, 1, 2]), ..MembershipChange::default() };
    // The new ones cannot answer.
    for (a, b) in [(3, 0), (3, 1), (3, 2), (4, 0), (4, 1), (4, 2), (5, 0), (5, 1), (5, 2)] {
        cluster.cut[a][b] = true;
    }
    let joint = cluster.change(leader, &replace).expect("settled");
    cluster.run_ms(150);
    assert!(cluster.raft(leader).commit() < joint, "the old majority alone does not commit it");
    for from in 3..6 {
        cluster.cut[from] = vec![false; 6];
    }
    let moved = |cluster: &Cluster| cluster.leader().is_some_and(|leader| leader > 2) && settled(cluster);
    assert!(cluster.run_until(3000, moved).is_some(), "the leader hands over to the new voters");
    let leader = cluster.leader().expect("just seen");
    assert_eq!(cluster.raft(leader).membership().everybody(), set(&[3, 4, 5]));
}

/// The leader removes itself: it leads until the configuration without it is committed, then follows and is silent.
#[test]
fn a_leader_that_removes_itself_hands_over() {
    for seed in 0..20 {
        let (mut cluster, leader) = cluster(3, seed);
        let end = cluster.propose(leader);
        cluster.change(leader, &remove(&[leader])).expect("settled");
        let moved = |cluster: &Cluster| cluster.leader().is_some_and(|now| now != leader) && settled(cluster);
        let took = cluster.run_until(1000, moved);
        assert!(took.is_some_and(|ms| ms < 100), "seed {seed}: {took:?} ms");
        let next = cluster.leader().expect("just seen");
        assert!(!cluster.raft(next).members().contains(NodeId(u8::try_from(leader).expect("few"))));
        assert!(cluster.raft(next).commit() > end);
        let votes = cluster.counts.votes;
        cluster.run_ms(3000);
        assert_eq!(cluster.counts.votes, votes, "the one that left disturbs nobody");
        assert_eq!(cluster.leader(), Some(next));
    }
}

/// The known flaw of changing one server at a time: a leader that has not committed anything of its own term appends
/// a configuration, and two disjoint majorities come about (Ongaro 2015). Here it must wait.
#[test]
fn no_change_before_the_leader_has_committed_in_its_own_term() {
    let (mut cluster, leader) = cluster(5, 4);
    cluster.change(leader, &learn(&[3, 4])).expect("settled");
    settle(&mut cluster);
    // A configuration that reaches nobody; then another leader.
    cluster.part(&[leader], &[0, 1, 2, 3, 4]);
    cluster.change(leader, &promote(&[3])).expect("settled");
    let others: Vec<usize> = (0..3).filter(|index| *index != leader).collect();
    let elected = |cluster: &Cluster| cluster.leader().is_some_and(|now| now != leader);
    assert!(cluster.run_until(3000, elected).is_some());
    let next = cluster.leader().expect("just seen");
    if !cluster.raft(next).admits() || cluster.raft(next).commit() < cluster.raft(next).term_start().expect("leads") {
        assert_eq!(cluster.change(next, &remove(&[others[0]])), Err(ChangeError::NotSettled));
    }
    cluster.run_ms(100);
    cluster.change(next, &promote(&[4])).expect("its own term is committed");
    cluster.heal();
    settle(&mut cluster);
    assert_eq!(cluster.raft(next).membership().voters, set(&[0, 1, 2, 4]));
    assert_eq!(cluster.raft(leader).membership(), cluster.raft(next).membership(), "what was cut is not in force");
}

/// A leader dies while the configuration is joint; its successor finds it in the log, commits it, and leaves it.
#[test]
fn a_joint_configuration_found_in_the_log_is_committed_before_it_is_left() {
    for seed in 0..20 {
        let (mut cluster, leader) = cluster(5, seed);
        cluster.change(leader, &learn(&[3, 4])).expect("settled");
        settle(&mut cluster);
        let change =
            MembershipChange { promote: set(&[3, 4]), remove: set(&[(leader + 1) % 3]), learn: NodeSet::EMPTY };
        let joint = cluster.change(leader, &change).expect("settled");
        let reached = |cluster: &Cluster| (0..5).filter(|at| cluster.raft(*at).last() >= joint).count() == 5;
        assert!(cluster.run_until(20, reached).is_some());
        cluster.crash(leader, true);
        let elected = |cluster: &Cluster| cluster.leader().is_some_and(|now| cluster.raft(now).admits());
        assert!(cluster.run_until(3000, elected).is_some());
        cluster.restart(leader);
        settle(&mut cluster);
        let now = cluster.leader().expect("settled");
        assert_eq!(cluster.raft(now).membership().voters, set(&[0, 1, 2, 3, 4]).without(set(&[(leader + 1) % 3])));
    }
}

#[test]
fn removed_and_added_again_at_once() {
    let (mut cluster, leader) = cluster(3, 6);
    let other = (leader + 1) % 3;
    for _ in 0..5 {
        cluster.change(leader, &remove(&[other])).expect("settled");
        settle(&mut cluster);
        cluster.change(leader, &learn(&[other])).expect("settled");
        settle(&mut cluster);
        cluster.change(leader, &promote(&[other])).expect("caught up");
        settle(&mut cluster);
        cluster.propose(leader);
    }
    assert_eq!(cluster.raft(leader).membership().voters, set(&[0, 1, 2]));
}

#[test]
fn two_of_three_are_replaced_one_after_the_other_and_one_is_lost_meanwhile() {
    let (mut cluster, leader) = cluster(5, 7);
    let gone = (leader + 1) % 3;
    cluster.change(leader, &learn(&[3])).expect("settled");
    settle(&mut cluster);
    cluster.crash(gone, false);
    let swap =
        |new: usize, old: usize| MembershipChange { promote: set(&[new]), remove: set(&[old]), learn: NodeSet::EMPTY };
    cluster.change(leader, &swap(3, gone)).expect("caught up");
    settle(&mut cluster);
    cluster.change(leader, &learn(&[4])).expect("settled");
    settle(&mut cluster);
    cluster.change(leader, &swap(4, (leader + 2) % 3)).expect("caught up");
    settle(&mut cluster);
    assert_eq!(cluster.raft(leader).membership().voters, set(&[leader, 3, 4]));
}

/// A learner that does not know yet that it was promoted votes when it is asked: the candidate knows better.
#[test]
fn a_learner_by_its_own_lights_votes_when_asked() {
    let (mut cluster, leader) = cluster(4, 8);
    cluster.change(leader, &learn(&[3])).expect("settled");
    settle(&mut cluster);
    // The change reaches the voters only.
    for peer in 0..3 {
        cluster.cut[peer][3] = true;
    }
    cluster.change(leader, &promote(&[3])).expect("caught up");
    let committed = |cluster: &Cluster| cluster.raft(leader).commit() == cluster.raft(leader).last();
    assert!(cluster.run_until(140, committed).is_some());
    // Two of four are left besides it: it must vote, or nobody leads.
    cluster.crash(leader, true);
    cluster.heal();
    let elected = |cluster: &Cluster| cluster.leader().is_some_and(|now| now != leader && cluster.raft(now).admits());
    assert!(cluster.run_until(3000, elected).is_some());
}

#[test]
fn nonsense_is_refused_with_a_reason() {
    let (mut cluster, leader) = cluster(3, 9);
    let all = cluster.change(leader, &remove(&[0, 1, 2]));
    assert_eq!(all, Err(ChangeError::Invalid(MembershipError::NoVoters)));
    assert_eq!(cluster.change((leader + 1) % 3, &remove(&[0])), Err(ChangeError::NotLeader));
    cluster.transfer(leader, u8::try_from((leader + 1) % 3).expect("few")).expect("in step");
    assert_eq!(cluster.change(leader, &remove(&[0])), Err(ChangeError::Transfer));
}
