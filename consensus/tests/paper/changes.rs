//! Membership: paper §6 with figure 11; thesis §4.1, §4.2.1, §4.2.2, §4.2.3.

use evershard_consensus::{ChangeError, Role};
use evershard_protocol::{MembershipChange, NodeId};

use crate::stage::{Plot, Stage, set};

fn change(promote: &[u8], learn: &[u8], remove: &[u8]) -> MembershipChange {
    MembershipChange { promote: set(promote), learn: set(learn), remove: set(remove) }
}

/// Nodes 1 to `len`, of which 1, 2, 3 vote; 1 leads; the others have caught up as learners.
fn stage(len: u8) -> Stage {
    let learners: Vec<u8> = (4..=len).collect();
    let mut stage = Stage::new(len, &Plot { learners, ..Plot::default() });
    stage.elect(1);
    stage
}

#[test]
fn section_6_figure_11_no_point_at_which_either_side_decides_alone() {
    // From three servers to three others: while the configuration is joint, neither the old majority nor the new one
    // commits or elects by itself; before and after it is one of them.
    for silent in [[2, 3], [4, 5]] {
        let others: Vec<u8> = (1..=6).filter(|id| !silent.contains(id)).collect();
        let blocked = || {
            let mut stage = stage(6);
            stage.change(1, &change(&[4, 5, 6], &[], &[1, 2, 3])).expect("settled");
            assert!(stage.raft(1).membership().is_joint(), "in force as soon as it is appended");
            silent.iter().for_each(|id| stage.isolate(*id));
            stage.stabilize(&others);
            assert_eq!(stage.commit(1), 11, "{silent:?} are a majority of one side");
            stage
        };
        let mut stage = blocked();
        stage.hear_again();
        for _ in 0..5 {
            stage.heartbeat(1);
            stage.stabilize_all();
        }
        let leader = (4..=6).find(|id| stage.role(*id) == Role::Leader).expect("with both sides it goes on");
        assert_eq!(stage.raft(leader).membership().everybody(), set(&[4, 5, 6]));
        // The same without the leader: nobody is elected.
        let mut stage = blocked();
        stage.isolate(1);
        for _ in 0..5 {
            for &id in &others[1..] {
                stage.patience(id);
            }
            stage.stabilize(&others[1..]);
        }
        let elected = others[1..].iter().find(|id| stage.role(**id) == Role::Leader);
        assert_eq!(elected, None, "{silent:?} are a majority of one side");
    }
}

#[test]
fn section_6_the_new_configuration_follows_when_the_joint_one_is_committed() {
    // The leader appends the new configuration only after both majorities have the joint one.
    let mut stage = stage(4);
    stage.change(1, &change(&[4], &[], &[2])).expect("settled");
    stage.stabilize(&[1]);
    assert_eq!((stage.last(1), stage.commit(1)), (12, 11));
    assert_eq!(stage.raft(1).wants_membership(), None, "not left early");
    stage.stabilize_all();
    assert_eq!((stage.last(1), stage.commit(1)), (13, 13));
    assert_eq!(stage.raft(1).membership().voters, set(&[1, 3, 4]));
}

#[test]
fn section_6_a_configuration_that_was_cut_is_in_force_no_more() {
    // A server uses the latest configuration in its log; if the log is cut, that is the one before.
    let mut stage = stage(4);
    stage.isolate(1);
    stage.change(1, &change(&[4], &[], &[])).expect("settled");
    stage.process(1);
    stage.rest(3);
    stage.campaign(2);
    stage.stabilize(&[2, 3]);
    assert_eq!(stage.role(2), Role::Leader);
    stage.hear_again();
    for _ in 0..3 {
        stage.heartbeat(2);
        stage.stabilize_all();
    }
    assert_eq!(stage.raft(1).membership().voters, set(&[1, 2, 3]));
    assert_eq!(stage.raft(1).membership(), stage.raft(2).membership());
}

#[test]
fn section_6_new_servers_learn_before_they_vote() {
    // A server that is to vote first takes over the log without a vote, so that the change is short.
    let mut stage = Stage::new(4, &Plot::default());
    stage.elect(1);
    let four = NodeId(4);
    assert_eq!(stage.change(1, &change(&[4], &[], &[])), Err(ChangeError::NotLearner(four)));
    stage.isolate(4);
    stage.change(1, &change(&[], &[4], &[])).expect("settled");
    stage.stabilize(&[1, 2, 3]);
    assert_eq!(stage.commit(1), 12, "nobody waits for a learner");
    assert_eq!(stage.change(1, &change(&[4], &[], &[])), Err(ChangeError::NotCaughtUp(four)));
    stage.hear_again();
    for _ in 0..3 {
        stage.heartbeat(1);
        stage.stabilize_all();
    }
    assert_eq!(stage.change(1, &change(&[4], &[], &[])), Ok(13));
}

#[test]
fn section_6_a_leader_outside_of_the_new_configuration_steps_down_when_it_is_committed() {
    // Until then it manages servers without counting itself.
    let mut stage = stage(3);
    stage.change(1, &change(&[], &[], &[1])).expect("settled");
    stage.stabilize(&[1, 2]);
    assert_eq!(stage.commit(1), 11, "2 alone is no majority of the two that stay, whatever 1 has");
    assert_eq!(stage.role(1), Role::Leader);
    stage.stabilize_all();
    assert_eq!(stage.role(1), Role::Follower);
    assert!((2..=3).any(|id| stage.role(id) == Role::Leader && stage.commit(id) >= 13));
}

#[test]
fn section_6_removed_servers_disturb_nobody() {
    // A server that was removed and does not know it campaigns for ever; those who hear a leader do not listen.
    let mut stage = stage(4);
    stage.change(1, &change(&[4], &[], &[3])).expect("settled");
    stage.silence(1, 3);
    stage.silence(2, 3);
    stage.silence(4, 3);
    stage.stabilize(&[1, 2, 4]);
    assert_eq!(stage.raft(1).membership().voters, set(&[1, 2, 4]));
    let term = stage.term(1);
    for _ in 0..10 {
        assert!(stage.campaign(3), "it believes to be a voter");
        stage.heartbeat(1);
        stage.stabilize_all();
        assert_eq!((stage.role(1), stage.term(1), stage.term(2)), (Role::Leader, term, term));
    }
}

#[test]
fn thesis_4_1_the_flaw_of_single_server_changes_is_impossible() {
    // The known schedule: a leader appends a change that reaches nobody; another one, without a record of its own term
    // committed, appends a different change; two disjoint majorities come about. Here the second must wait.
    let mut stage = stage(5);
    stage.change(1, &change(&[4], &[], &[])).expect("settled");
    stage.process(1);
    stage.isolate(1);
    stage.rest(3);
    stage.campaign(2);
    // Elected, and its first record has not left yet.
    for _ in 0..3 {
        for (from, to) in [(2, 3), (3, 2)] {
            stage.process(from);
            if stage.role(2) != Role::Leader {
                stage.deliver_all(from, to);
            }
        }
    }
    assert_eq!(stage.role(2), Role::Leader);
    assert_eq!(stage.change(2, &change(&[5], &[], &[])), Err(ChangeError::NotSettled));
    stage.stabilize(&[2, 3, 4, 5]);
    assert!(stage.commit(2) >= 12, "its own record");
    stage.change(2, &change(&[5], &[], &[])).expect("now it may");
    stage.stabilize(&[2, 3, 4, 5]);
    assert_eq!(stage.raft(2).membership().voters, set(&[1, 2, 3, 5]));
    // And the first leader comes back to that, not to its own.
    stage.hear_again();
    for _ in 0..3 {
        stage.heartbeat(2);
        stage.stabilize_all();
    }
    assert_eq!(stage.raft(1).membership(), stage.raft(2).membership());
}

#[test]
fn thesis_4_1_one_change_at_a_time() {
    // No change is begun before the one before is committed, whoever asks.
    let mut stage = stage(5);
    stage.change(1, &change(&[4], &[], &[])).expect("settled");
    assert_eq!(stage.change(1, &change(&[5], &[], &[])), Err(ChangeError::NotSettled));
    assert_eq!(stage.change(2, &change(&[5], &[], &[])), Err(ChangeError::NotLeader));
    stage.stabilize_all();
    assert_eq!(stage.change(1, &change(&[5], &[], &[])), Ok(14));
}

#[test]
fn thesis_4_2_1_a_promotion_that_would_stall_the_shard_is_refused() {
    // A learner far behind would hold up every commit once its vote is needed.
    let mut stage = Stage::new(4, &Plot { voters: vec![1], learners: vec![4], ..Plot::default() });
    stage.elect(1);
    stage.isolate(4);
    for _ in 0..40 {
        stage.propose(1);
        stage.process(1);
    }
    assert_eq!(stage.change(1, &change(&[4], &[], &[])), Err(ChangeError::NotCaughtUp(NodeId(4))));
}

#[test]
fn thesis_4_2_2_who_is_not_in_its_own_latest_configuration_may_still_campaign() {
    // Only 1 and 2 have the joint record that removes 1 and 2 (figure 4.7); 1 is needed to bring it to the others.
    let mut stage = Stage::new(4, &Plot { voters: vec![1, 2], learners: vec![3, 4], ..Plot::default() });
    stage.elect(1);
    stage.change(1, &change(&[3, 4], &[], &[1, 2])).expect("settled");
    stage.process(1);
    stage.deliver_all(1, 2);
    stage.process(2);
    stage.lose(1, 3);
    stage.lose(1, 4);
    stage.crash(1);
    // Still joint, so that 2 is a voter of the old side; it wins with the others' votes and 1's.
    stage.restart(1);
    for id in [2, 3, 4] {
        stage.rest(id);
    }
    stage.campaign(2);
    stage.stabilize_all();
    for _ in 0..5 {
        for id in 1..=4 {
            stage.heartbeat(id);
        }
        stage.stabilize_all();
    }
    let leaders: Vec<u8> = (1..=4).filter(|id| stage.role(*id) == Role::Leader).collect();
    assert_eq!(leaders.len(), 1);
    assert_eq!(stage.raft(leaders[0]).membership().everybody(), set(&[3, 4]));
}

#[test]
fn thesis_4_2_2_until_its_removal_is_committed_a_leader_that_crashed_leads_again() {
    // The record without node 1 is on node 1 only, and 2 has no vote of 3: 1 has the better log and campaigns though it
    // is not in its own latest configuration. Without that nobody could be elected.
    let mut stage = stage(3);
    stage.change(1, &change(&[], &[], &[1])).expect("settled");
    stage.process(1);
    for id in [2, 3] {
        stage.deliver_all(1, id);
        stage.process(id);
        stage.deliver_all(id, 1);
    }
    stage.process(1);
    assert!(!stage.raft(1).is_voter(), "the final configuration is in its log");
    assert_eq!((stage.last(1), stage.last(2)), (13, 12));
    stage.deliver_all(1, 2);
    stage.process(2);
    stage.lose(2, 1);
    stage.lose(1, 3);
    stage.crash(1);
    stage.crash(2);
    stage.restart(1);
    stage.restart(2);
    stage.isolate(2);
    assert!(stage.campaign(1), "as a voter of the configuration before");
    stage.hear_again();
    stage.rest(2);
    stage.rest(3);
    for _ in 0..8 {
        for id in 1..=3 {
            stage.heartbeat(id);
        }
        stage.stabilize_all();
    }
    let leaders: Vec<u8> = (2..=3).filter(|id| stage.role(*id) == Role::Leader).collect();
    assert_eq!(leaders.len(), 1, "whoever was elected, one of the two that stay leads in the end");
    assert_eq!(stage.raft(leaders[0]).membership().voters, set(&[2, 3]));
    assert!(!stage.campaign(1), "and now that it is committed, node 1 is silent");
}
