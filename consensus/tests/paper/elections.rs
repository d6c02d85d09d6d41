//! Terms and elections: paper §5.1, §5.2, §5.4.1, §5.5, §5.6; thesis §3.10, §4.2.3, §9.6.

use std::collections::BTreeSet;

use evershard_consensus::{Role, Taken, TransferError};
use evershard_protocol::peer::{PeerMessage, TimeoutNow, Vote};
use evershard_protocol::{NodeId, Term};

use crate::alone::{Alone, append, at, reply, vote};
use crate::stage::{Plot, Stage};

#[test]
fn section_5_1_a_server_with_a_smaller_term_updates_and_follows() {
    // Whoever hears of a larger term takes it over; a candidate or leader becomes a follower by that.
    for role in [Role::Follower, Role::Candidate, Role::Leader] {
        let mut alone = Alone::new(5, &[1], 1);
        match role {
            Role::Candidate => alone.stand(),
            Role::Leader => alone.lead(),
            _ => {}
        }
        let last_term = alone.raft.last_term().0;
        let last = alone.raft.last().0 / 64;
        alone.take(4, &append(9, (last, last_term), (9, 0), 0));
        assert_eq!(
            (alone.raft.role(), alone.raft.term(), alone.raft.leader()),
            (Role::Follower, Term(9), Some(NodeId(4)))
        );
    }
}

#[test]
fn section_5_1_what_comes_with_a_stale_term_is_refused_and_the_sender_told() {
    // A request with an old term is refused, and the answer carries the current one.
    let mut alone = Alone::new(5, &[1, 4], 4);
    let (taken, reply_) = alone.take(2, &append(3, (1, 1), (3, 1), 2));
    assert_eq!((taken, reply_.map(|reply| reply.term)), (Taken::No, Some(Term(4))));
    assert_eq!((alone.raft.leader(), alone.raft.commit()), (None, at(0)));
    assert_eq!(alone.hear(2, vote(3, 2, 9)), [(2, reply(4, false, false))]);
}

#[test]
fn section_5_2_servers_start_as_followers() {
    // A server that starts follows, until it has waited in vain.
    let alone = Alone::new(5, &[], 0);
    assert_eq!((alone.raft.role(), alone.raft.leader()), (Role::Follower, None));
}

#[test]
fn section_5_2_a_leader_sends_heartbeats_to_all() {
    // An idle leader gives signs of life to every follower, so that nobody campaigns.
    let mut alone = Alone::new(5, &[], 0);
    alone.lead();
    for peer in 2..=5 {
        assert!(alone.send(peer).is_some());
        assert_eq!(alone.send(peer), None, "not before its time");
    }
    alone.pass_ms(20);
    for peer in 2..=5 {
        assert!(alone.send(peer).is_some(), "{peer} waits for a sign of life");
    }
}

#[test]
fn section_5_2_a_follower_without_a_leader_campaigns() {
    // A timer that runs out makes a candidate: next term, a vote for itself, and requests to all others.
    let mut alone = Alone::new(5, &[1, 1], 1);
    alone.stand();
    assert_eq!(alone.raft.hard_state_to_save(), None, "its own vote is saved before others are asked");
    alone.said();
    let mut alone = Alone::new(5, &[1, 1], 1);
    alone.time_out();
    alone.said();
    alone.hear(2, reply(2, true, true));
    let requests = alone.hear(3, reply(2, true, true));
    let expected: Vec<(u8, PeerMessage)> = (2..=5).map(|peer| (peer, vote(2, 1, 2))).collect();
    assert_eq!(requests, expected);
}

#[test]
fn section_5_2_a_signs_of_life_keep_a_follower_from_campaigning() {
    // As long as it hears a leader it stays a follower, however long that is.
    let mut alone = Alone::new(5, &[], 0);
    for _ in 0..100 {
        alone.pass_ms(100);
        alone.take(2, &append(1, (0, 0), (1, 0), 0));
        assert_eq!(alone.raft.role(), Role::Follower);
    }
    assert!(alone.time_out() >= 150);
}

#[test]
fn section_5_2_a_majority_of_one_term_elects() {
    // A candidate leads with the votes of a majority of all servers, and with no fewer.
    for (voters, elected) in [(&[][..], false), (&[2], false), (&[2, 2, 2], false), (&[2, 3], true), (&[4, 5], true)] {
        let mut alone = Alone::new(5, &[], 0);
        alone.stand();
        for &voter in voters {
            alone.hear(voter, reply(1, true, false));
        }
        assert_eq!(alone.raft.role() == Role::Leader, elected, "votes of {voters:?}");
    }
    let mut alone = Alone::new(5, &[], 0);
    alone.stand();
    for (voter, term) in [(2, 0), (3, 0), (4, 0)] {
        alone.hear(voter, reply(term, true, false));
    }
    assert_eq!(alone.raft.role(), Role::Candidate, "votes of another term do not count");
}

#[test]
fn section_5_2_one_vote_for_each_term_and_who_asks_first_gets_it() {
    // A server votes for one candidate of a term, and says the same when asked again.
    let mut alone = Alone::new(5, &[], 1);
    assert_eq!(alone.hear(2, vote(2, 0, 0)), [(2, reply(2, true, false))]);
    assert_eq!(alone.hear(3, vote(2, 0, 0)), [(3, reply(2, false, false))]);
    assert_eq!(alone.hear(2, vote(2, 0, 0)), [(2, reply(2, true, false))]);
    assert_eq!(alone.hear(3, vote(3, 0, 0)), [(3, reply(3, true, false))], "another term, another vote");
}

#[test]
fn section_5_2_a_candidate_gives_way_to_a_leader_of_its_term_or_a_later_one() {
    // Who hears a legitimate leader while it campaigns follows it; one of an older term changes nothing.
    for (term, follows) in [(0, false), (1, true), (2, true)] {
        let mut alone = Alone::new(5, &[], 0);
        alone.stand();
        alone.take(4, &append(term, (0, 0), (term, 0), 0));
        assert_eq!(alone.raft.role() == Role::Follower, follows, "a leader of term {term}");
    }
}

#[test]
fn section_5_figure_2_persistent_state_is_saved_before_it_is_told() {
    // A vote, and a record, are on stable storage before anybody hears of them.
    let mut alone = Alone::new(5, &[], 1);
    let PeerMessage::Vote(request) = vote(2, 0, 0) else { unreachable!("a request") };
    alone.raft.on_message(NodeId(2), &PeerMessage::Vote(request), alone.now, &mut alone.out);
    assert!(alone.out.messages.is_empty(), "not saved yet");
    assert_eq!(alone.said(), [(2, reply(2, true, false))]);
    let data = append(2, (0, 0), (2, 1), 0);
    assert_eq!(
        alone.raft.on_append(NodeId(2), &data, alone.now, &mut alone.out),
        Taken::Data { skip: 0, truncate_to: None }
    );
    alone.raft.on_appended(Term(2), at(1));
    let said = alone.raft.take_reply(alone.now).map(|(_, reply)| reply.durable);
    assert_eq!(said, Some(at(0)), "received, and not on disk yet");
    alone.raft.on_durable(at(1));
    assert_eq!(alone.raft.take_reply(alone.now).map(|(_, reply)| reply.durable), Some(at(1)));
}

#[test]
fn section_5_2_a_split_vote_ends_with_another_term() {
    // A candidate without a majority tries again, in a term of its own, when its timer runs out.
    let mut alone = Alone::new(5, &[], 0);
    alone.stand();
    alone.hear(2, reply(1, true, false));
    alone.pass_ms(301);
    assert_eq!(alone.raft.role(), Role::PreCandidate, "it asks whether another one makes sense");
    alone.hear(2, reply(2, true, true));
    alone.hear(3, reply(2, true, true));
    assert_eq!((alone.raft.role(), alone.raft.term()), (Role::Candidate, Term(2)));
}

#[test]
fn section_5_2_election_timeouts_are_spread_over_their_interval() {
    // Timers are drawn at random, within the interval, so that split votes are rare and end soon.
    let mut alone = Alone::new(5, &[], 0);
    let mut waits = BTreeSet::new();
    for term in 1..200 {
        alone.take(2, &append(term, (0, 0), (term, 0), 0));
        let wait = alone.time_out();
        assert!((150..=301).contains(&wait), "{wait} ms");
        waits.insert(wait);
    }
    assert!(waits.len() > 60, "{waits:?}");
    let mut first = BTreeSet::new();
    for id in 1..=5 {
        let mut stage = Stage::new(5, &Plot { voters: vec![1, 2, 3, 4, 5], ..Plot::default() });
        let start = stage.actor(id).now;
        stage.campaign(id);
        first.insert(stage.actor(id).now.since(start));
    }
    assert!(first.len() >= 4, "equal seeds and clocks, different replicas: {first:?}");
}

#[test]
fn section_5_4_1_votes_go_to_logs_that_are_at_least_as_up_to_date() {
    // The later last term wins; within a term the longer log.
    for (last_term, last, granted) in
        [(1, 9, false), (2, 1, false), (2, 2, true), (2, 3, true), (3, 1, true), (3, 2, true)]
    {
        let mut alone = Alone::new(5, &[1, 2], 3);
        assert_eq!(alone.hear(2, vote(4, last_term, last)), [(2, reply(4, granted, false))], "{last_term} {last}");
        assert_eq!(alone.raft.term(), Term(4), "the term is taken over in any case");
    }
}

#[test]
fn section_5_5_requests_may_be_repeated() {
    // Requests are idempotent: a lost answer is simply asked for again.
    let mut alone = Alone::new(5, &[1], 1);
    let data = append(2, (1, 1), (2, 2), 1);
    alone.take(2, &data);
    let before = (alone.raft.last(), alone.raft.commit(), alone.raft.term());
    for _ in 0..3 {
        let (taken, reply) = alone.take(2, &data);
        assert_eq!(taken, Taken::Data { skip: data.size, truncate_to: None }, "all of it is there already");
        assert_eq!(reply.map(|reply| reply.durable), Some(at(3)), "and it says so again");
        assert_eq!((alone.raft.last(), alone.raft.commit(), alone.raft.term()), before);
    }
}

#[test]
fn section_5_6_a_leader_stays_if_messages_are_much_faster_than_timers() {
    // With the broadcast time well below the election timeout nobody campaigns, for as long as one likes.
    let mut stage = Stage::new(3, &Plot::default());
    stage.elect(1);
    for _ in 0..200 {
        for id in 1..=3 {
            stage.heartbeat(id);
        }
        stage.stabilize_all();
    }
    assert_eq!((stage.role(1), stage.term(1), stage.term(2)), (Role::Leader, 1, 1));
}

#[test]
fn thesis_3_10_a_transfer_stops_commands_catches_up_and_summons() {
    // The leader takes no more commands, waits until the target has its log, and tells it to campaign at once.
    let mut stage = Stage::new(3, &Plot::default());
    stage.elect(1);
    stage.propose(1);
    assert_eq!(stage.transfer(1, 2), Ok(()));
    assert!(!stage.raft(1).admits());
    assert_eq!(stage.transfer(1, 3), Err(TransferError::InProgress));
    stage.process(1);
    assert!(!stage.letters(1, 2).iter().any(is_summons), "not before it has everything");
    stage.stabilize_all();
    assert_eq!((stage.role(2), stage.term(2), stage.leader_of(1)), (Role::Leader, 2, Some(2)));
    assert_eq!((stage.last(2), stage.commit(3)), (13, 13), "nothing is lost");
}

#[test]
fn thesis_3_10_a_transfer_that_fails_is_given_up_after_an_election_timeout() {
    // If the target does not take over in time, the leader goes on with commands.
    let mut stage = Stage::new(3, &Plot::default());
    stage.elect(1);
    assert_eq!(stage.transfer(1, 2), Ok(()));
    stage.isolate(2);
    for _ in 0..20 {
        stage.heartbeat(1);
        stage.stabilize(&[1, 3]);
    }
    assert!(stage.raft(1).admits() && stage.raft(1).transfer_target().is_none());
    stage.propose(1);
    stage.stabilize(&[1, 3]);
    assert_eq!(stage.commit(1), 12);
}

#[test]
fn thesis_4_2_3_servers_in_touch_with_a_leader_ignore_candidates() {
    // Within the shortest election timeout after a sign of life no vote is given and no term taken over, so that a
    // removed server cannot disturb; a candidate that the leader has summoned is the exception.
    for (wait_ms, transfer, granted) in [(0, false, false), (149, false, false), (151, false, true), (0, true, true)] {
        let mut alone = Alone::new(5, &[], 0);
        alone.take(2, &append(1, (0, 0), (1, 0), 0));
        alone.raft.tick(alone.now, &mut alone.out);
        alone.pass_ms(wait_ms);
        let asked = Vote { term: Term(7), last: at(0), last_term: Term(0), pre_vote: false, transfer };
        let said = alone.hear(3, PeerMessage::Vote(asked));
        assert_eq!(said.contains(&(3, reply(7, true, false))), granted, "after {wait_ms} ms: {said:?}");
        assert_eq!(alone.raft.term() == Term(7), granted, "after {wait_ms} ms");
    }
}

#[test]
fn thesis_6_2_a_leader_that_reaches_no_majority_steps_down() {
    // A leader that has heard no majority for an election timeout is no leader any more, so that clients look elsewhere.
    let mut alone = Alone::new(5, &[], 0);
    alone.lead();
    alone.pass_ms(290);
    assert_eq!(alone.raft.role(), Role::Leader);
    alone.acknowledge(2, 0, 0);
    alone.pass_ms(20);
    assert_eq!(alone.raft.role(), Role::Follower, "itself and one other are no majority of five");
}

#[test]
fn thesis_9_6_a_pre_vote_changes_nobody() {
    // Asking whether an election could be won costs no term, neither here nor there, and no vote.
    let mut alone = Alone::new(5, &[1], 1);
    alone.time_out();
    assert_eq!((alone.raft.role(), alone.raft.term()), (Role::PreCandidate, Term(1)));
    assert_eq!(alone.raft.hard_state_to_save(), None);
    let mut voter = Alone::new(5, &[1], 1);
    let asked = Vote { term: Term(2), last: at(1), last_term: Term(1), pre_vote: true, transfer: false };
    for candidate in [2, 3] {
        assert_eq!(voter.hear(candidate, PeerMessage::Vote(asked)), [(candidate, reply(2, true, true))]);
    }
    assert_eq!((voter.raft.term(), voter.raft.hard_state_to_save()), (Term(1), None));
    let behind = Vote { last: at(0), last_term: Term(0), ..asked };
    assert_eq!(voter.hear(4, PeerMessage::Vote(behind)), [(4, reply(1, false, true))]);
}

#[test]
fn thesis_9_6_a_returning_server_does_not_depose_the_leader() {
    // A server that was cut off campaigns in vain and comes back without a higher term.
    let mut stage = Stage::new(3, &Plot::default());
    stage.elect(1);
    stage.isolate(3);
    for _ in 0..20 {
        stage.patience(3);
        stage.process(3);
    }
    assert_eq!((stage.role(3), stage.term(3)), (Role::PreCandidate, 1));
    stage.hear_again();
    stage.heartbeat(1);
    stage.stabilize_all();
    assert_eq!((stage.role(1), stage.term(1), stage.leader_of(3)), (Role::Leader, 1, Some(1)));
}

#[test]
fn thesis_3_10_only_the_leader_may_summon() {
    // A summons of a stranger or of an older term starts no election.
    let mut alone = Alone::new(5, &[], 0);
    alone.take(2, &append(3, (0, 0), (3, 0), 0));
    for (from, term) in [(3, 3), (2, 2)] {
        alone.hear(from, PeerMessage::TimeoutNow(TimeoutNow { term: Term(term) }));
        assert_eq!((alone.raft.role(), alone.raft.term()), (Role::Follower, Term(3)));
    }
    alone.hear(2, PeerMessage::TimeoutNow(TimeoutNow { term: Term(3) }));
    assert_eq!((alone.raft.role(), alone.raft.term()), (Role::Candidate, Term(4)), "without a pre-vote");
}

fn is_summons(letter: &crate::stage::Letter) -> bool {
    matches!(letter, crate::stage::Letter::Message(PeerMessage::TimeoutNow(_)))
}
