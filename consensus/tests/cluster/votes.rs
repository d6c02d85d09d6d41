//! One replica's votes: what it says, and what it must not say yet.

use evershard_consensus::{Durability, HardState, Role, Standing, Taken};
use evershard_protocol::peer::{PeerMessage, TimeoutNow, Vote};
use evershard_protocol::{NodeId, Position, Term};

use crate::network::MS;
use crate::solo::{PEER, Solo, THIRD, append, grant, refusal, vote};

#[test]
fn a_vote_is_told_only_when_saved_and_given_once_per_term() {
    let mut solo = Solo::new(Durability::Durable, &[(1, 64)], 1);
    assert_eq!(solo.hear(PEER, PeerMessage::Vote(vote(2, 1, 64))), [], "not before it is saved");
    let wanted = HardState { term: Term(2), vote: Some(PEER), standing: Standing::Sound };
    assert_eq!(solo.raft.hard_state_to_save(), Some(wanted));
    assert_eq!(solo.hear(THIRD, PeerMessage::Vote(vote(2, 1, 64))), [(THIRD, refusal(2, false))]);
    solo.save();
    assert_eq!(solo.said(), [(PEER, grant(2, false))]);
    assert_eq!(solo.raft.hard_state_to_save(), None);
    assert_eq!(
        solo.hear(PEER, PeerMessage::Vote(vote(2, 1, 64))),
        [(PEER, grant(2, false))],
        "asked again, told again"
    );
    assert_eq!(solo.hear(THIRD, PeerMessage::Vote(vote(2, 1, 999))), [(THIRD, refusal(2, false))]);
}

/// A save that was begun before the vote does not cover it.
#[test]
fn an_earlier_save_does_not_release_a_later_vote() {
    let mut solo = Solo::new(Durability::Durable, &[], 1);
    solo.hear(PEER, PeerMessage::Vote(vote(2, 0, 0)));
    let earlier = solo.raft.hard_state_to_save().expect("the vote in term 2");
    assert_eq!(solo.hear(THIRD, PeerMessage::Vote(vote(3, 0, 0))), []);
    solo.raft.on_hard_state_saved(earlier, &mut solo.out);
    assert_eq!(solo.said(), [], "the vote of term 2 is worth nothing any more, that of term 3 is not saved");
    solo.save();
    assert_eq!(solo.said(), [(THIRD, grant(3, false))]);
}

#[test]
fn a_candidate_asks_only_when_its_own_vote_is_saved() {
    let mut solo = Solo::new(Durability::Durable, &[(1, 64)], 1);
    solo.time_out();
    let asked = |pre_vote| PeerMessage::Vote(Vote { pre_vote, ..vote(2, 1, 64) });
    assert_eq!(solo.said(), [(PEER, asked(true)), (THIRD, asked(true))]);
    assert_eq!(solo.raft.term(), Term(1), "a pre-vote costs no term");
    assert_eq!(solo.hear(PEER, grant(2, true)), []);
    assert_eq!((solo.raft.role(), solo.raft.term()), (Role::Candidate, Term(2)));
    solo.hear(PEER, grant(2, false));
    assert_eq!(solo.raft.role(), Role::Candidate, "nobody was asked yet");
    solo.save();
    assert_eq!(solo.said(), [(PEER, asked(false)), (THIRD, asked(false))]);
    solo.hear(PEER, grant(2, false));
    assert_eq!(solo.raft.role(), Role::Leader);
    assert!(!solo.raft.admits(), "its term has not begun in the log");
    assert_eq!(solo.raft.plan_append(PEER, solo.now, 1000), None);
    solo.raft.on_appended(Term(2), Position(128));
    assert!(solo.raft.admits());
    let planned = solo.raft.plan_append(PEER, solo.now, 1000).expect("the first record");
    assert_eq!((planned.previous, planned.size, planned.data_term), (Position(64), 64, Term(2)));
}

#[test]
fn votes_are_refused_while_the_leader_is_alive_and_given_when_its_link_is_gone() {
    let mut solo = Solo::new(Durability::Durable, &[(1, 64)], 1);
    solo.append(PEER, &append(1, (64, 1), (1, 0), 0, 1));
    for pre_vote in [true, false] {
        let asked = Vote { pre_vote, ..vote(2, 1, 64) };
        assert_eq!(solo.hear(THIRD, PeerMessage::Vote(asked)), [(THIRD, refusal(1, pre_vote))]);
    }
    assert_eq!(solo.raft.term(), Term(1), "and the term is not taken over");
    solo.raft.on_link_down(PEER, solo.now, &mut solo.out);
    assert_eq!(solo.raft.leader(), None);
    let asked = Vote { pre_vote: true, ..vote(2, 1, 64) };
    assert_eq!(solo.hear(THIRD, PeerMessage::Vote(asked)), [(THIRD, grant(2, true))]);
    assert!(solo.raft.next_deadline() <= solo.now.after(40 * MS), "and it asks itself soon");

    solo.append(PEER, &append(1, (64, 1), (1, 0), 0, 2));
    let summoned = Vote { transfer: true, ..vote(2, 1, 64) };
    assert_eq!(solo.hear(THIRD, PeerMessage::Vote(summoned)), []);
    solo.save();
    assert_eq!(solo.said(), [(THIRD, grant(2, false))], "the leader itself sent the candidate");
}

#[test]
fn a_refused_pre_vote_brings_the_higher_term() {
    let mut solo = Solo::new(Durability::Durable, &[], 1);
    solo.time_out();
    solo.hear(PEER, refusal(9, true));
    assert_eq!((solo.raft.role(), solo.raft.term()), (Role::Follower, Term(9)));
    assert_eq!(solo.raft.hard_state_to_save().map(|hard| hard.vote), Some(None));
}

/// Two that ask at the same time: whoever is a term ahead gets the other's vote.
#[test]
fn a_pre_candidate_votes_for_a_candidate() {
    let mut solo = Solo::new(Durability::Durable, &[], 2);
    solo.time_out();
    assert_eq!(solo.raft.role(), Role::PreCandidate);
    solo.hear(PEER, PeerMessage::Vote(vote(2, 0, 0)));
    assert_eq!(solo.raft.role(), Role::Follower, "no vote was given in this term yet");
    solo.save();
    assert_eq!(solo.raft.term(), Term(2));
    assert!(solo.said().contains(&(PEER, grant(2, false))));
}

#[test]
fn records_may_outlive_the_term_they_came_with() {
    let mut solo = Solo::new(Durability::Durable, &[(3, 64)], 2);
    assert_eq!(solo.raft.term(), Term(3));
    assert_eq!(solo.raft.hard_state_to_save().map(|hard| hard.term), Some(Term(3)));
    solo.save();
    assert_eq!(solo.hear(PEER, PeerMessage::Vote(vote(3, 2, 999))), [(PEER, refusal(3, false))]);
}

#[test]
fn one_term_has_one_leader_whatever_others_say() {
    let mut solo = Solo::new(Durability::Durable, &[], 1);
    solo.append(PEER, &append(1, (0, 0), (1, 64), 0, 1));
    assert_eq!(solo.append(THIRD, &append(1, (64, 1), (1, 64), 0, 1)), Taken::No);
    assert_eq!(solo.append(NodeId(6), &append(1, (64, 1), (1, 64), 0, 1)), Taken::No, "a stranger");
    assert_eq!(solo.raft.leader(), Some(PEER));
    assert_eq!(solo.hear(THIRD, PeerMessage::TimeoutNow(TimeoutNow { term: Term(1) })), []);
    assert_eq!(solo.raft.role(), Role::Follower, "only the leader may summon");
}

/// The link to a peer comes up in the middle of a campaign: it is asked like the others were.
#[test]
fn a_late_link_is_asked_too() {
    let mut solo = Solo::new(Durability::Durable, &[], 1);
    solo.raft.on_link_down(PEER, solo.now, &mut solo.out);
    solo.time_out();
    assert_eq!(solo.said().len(), 1, "only who is connected is asked");
    solo.raft.on_link_up(PEER, solo.now, &mut solo.out);
    assert_eq!(solo.said(), [(PEER, PeerMessage::Vote(Vote { pre_vote: true, ..vote(2, 0, 0) }))]);
    solo.hear(PEER, grant(2, true));
    solo.raft.on_link_up(THIRD, solo.now, &mut solo.out);
    assert_eq!(solo.said(), [], "the own vote is not saved yet");
    solo.save();
    assert_eq!(solo.said().len(), 2);
}

/// A leader refuses to be replaced while it hears a quorum, and only then.
#[test]
fn a_leader_out_of_touch_gives_way() {
    let mut solo = Solo::new(Durability::Durable, &[], 0);
    solo.lead();
    solo.raft.on_appended(Term(1), Position(64));
    solo.said();
    assert_eq!(solo.hear(THIRD, PeerMessage::Vote(vote(2, 1, 64))), [(THIRD, refusal(1, false))]);
    for _ in 0..15 {
        solo.now = solo.now.after(10 * MS);
        solo.raft.tick(solo.now, &mut solo.out);
    }
    assert_eq!(solo.raft.role(), Role::Leader, "it has not given up yet");
    solo.hear(THIRD, PeerMessage::Vote(vote(2, 1, 64)));
    solo.save();
    assert_eq!(solo.said(), [(THIRD, grant(2, false))]);
    assert_eq!(solo.raft.role(), Role::Follower);
}
