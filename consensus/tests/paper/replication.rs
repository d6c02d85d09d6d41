//! Replication and commitment: paper §5.3, §5.4.2 with figures 7 and 8, §7; thesis §10.2.1.

use evershard_consensus::{Durability, Installed, Role, SnapshotMark, Taken};
use evershard_protocol::peer::Hint;
use evershard_protocol::{Membership, NodeId, NodeSet, Term};

use crate::alone::{Alone, append, at};
use crate::stage::{Plot, Stage};

#[test]
fn section_5_3_a_record_is_committed_when_a_majority_has_it() {
    // The leader commits what a majority stores, and everything before it.
    let mut alone = Alone::new(5, &[], 0);
    alone.lead();
    alone.append();
    alone.acknowledge(2, 2, 0);
    assert_eq!(alone.raft.commit(), at(0), "two of five");
    alone.acknowledge(3, 1, 0);
    assert_eq!(alone.raft.commit(), at(1), "three have the first");
    alone.acknowledge(4, 2, 0);
    assert_eq!(alone.raft.commit(), at(2), "three have both");
}

#[test]
fn section_5_3_followers_learn_what_is_committed_with_the_next_append() {
    // A leader tells how far it has committed, in heartbeats too, and a follower takes that over as far as its log goes.
    let mut alone = Alone::new(5, &[1, 1, 1], 1);
    alone.take(2, &append(2, (2, 1), (1, 0), 3));
    assert_eq!(alone.raft.commit(), at(2), "no further than the logs are known to agree");
    alone.take(2, &append(2, (3, 1), (2, 1), 3));
    assert_eq!(alone.raft.commit(), at(3));
    alone.take(2, &append(2, (4, 2), (2, 0), 4));
    assert_eq!(alone.raft.commit(), at(4));
}

#[test]
fn section_5_3_a_follower_refuses_what_does_not_fit() {
    // An append names the record before its data; a follower without that record refuses.
    for (previous, expected) in [
        ((4, 3), Hint { position: at(3), term: Term(2) }),
        ((3, 3), Hint { position: at(3), term: Term(2) }),
        ((3, 1), Hint { position: at(2), term: Term(1) }),
    ] {
        let mut alone = Alone::new(5, &[1, 1, 2], 3);
        let (taken, reply) = alone.take(2, &append(4, previous, (4, 1), 0));
        assert_eq!((taken, reply.and_then(|reply| reply.rejected)), (Taken::No, Some(expected)), "{previous:?}");
        assert_eq!(alone.raft.last(), at(3), "and loses nothing by it");
    }
}

#[test]
fn section_5_3_a_conflict_cuts_the_log_and_agreement_cuts_nothing() {
    // A record that conflicts goes with all that follow; an append that the log has already must not shorten it.
    let mut alone = Alone::new(5, &[1, 1, 2, 2], 3);
    let (taken, _) = alone.take(2, &append(4, (1, 1), (1, 1), 0));
    assert_eq!((taken, alone.raft.last()), (Taken::Data { skip: 64, truncate_to: None }, at(4)));
    let (taken, _) = alone.take(2, &append(4, (2, 1), (3, 1), 0));
    assert_eq!(taken, Taken::Data { skip: 0, truncate_to: Some(at(2)) });
    assert_eq!((alone.raft.last(), alone.raft.last_term()), (at(3), Term(3)));
}

#[test]
fn section_5_3_figure_7_every_follower_comes_to_agree() {
    // Followers may lack records, have too many, or both, over several terms; the leader makes them agree.
    let leader = [1, 1, 1, 4, 4, 5, 5, 6, 6, 6];
    let followers: [&[u64]; 6] = [
        &[1, 1, 1, 4, 4, 5, 5, 6, 6],
        &[1, 1, 1, 4],
        &[1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 6],
        &[1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 7, 7],
        &[1, 1, 1, 4, 4, 4, 4],
        &[1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3],
    ];
    for follower in followers {
        let plot = Plot { index: 0, term: 7, ..Plot::default() };
        let mut stage = Stage::default();
        for (id, log) in [(1, &leader[..]), (2, &leader[..]), (3, follower)] {
            stage.enter(id, &plot, log);
        }
        stage.isolate(3);
        stage.campaign(1);
        stage.stabilize(&[1, 2]);
        assert_eq!((stage.role(1), stage.term(1)), (Role::Leader, 8));
        stage.hear_again();
        for _ in 0..6 {
            stage.heartbeat(1);
            stage.stabilize_all();
        }
        assert_eq!(stage.actors[&3].log[..10], stage.actors[&1].log[..10], "{follower:?}");
        assert_eq!(stage.actors[&3].log, stage.actors[&1].log, "{follower:?}");
        assert_eq!(stage.commit(3), stage.last(1), "{follower:?}");
    }
}

#[test]
fn section_5_3_a_leader_never_cuts_its_own_log() {
    // Who leads only appends: an append of somebody who claims its term is not taken.
    let mut alone = Alone::new(5, &[1, 1], 1);
    alone.lead();
    let (term, last) = (alone.raft.term().0, alone.raft.last());
    let (taken, _) = alone.take(3, &append(term, (1, 1), (term, 1), 0));
    assert_eq!((taken, alone.raft.last(), alone.raft.role()), (Taken::No, last, Role::Leader));
}

#[test]
fn section_5_3_back_off_skips_whole_terms() {
    // The refusal says where the follower's conflicting term ends, so that one question settles one term.
    let plot = Plot { index: 0, ..Plot::default() };
    let mut stage = Stage::default();
    let long: Vec<u64> = std::iter::repeat_n(1, 2).chain(std::iter::repeat_n(3, 200)).collect();
    let other: Vec<u64> = std::iter::repeat_n(1, 2).chain(std::iter::repeat_n(2, 200)).collect();
    for (id, log) in [(1, &long), (2, &long), (3, &other)] {
        stage.enter(id, &plot, log);
    }
    stage.campaign(1);
    stage.stabilize(&[1, 2]);
    stage.lose(1, 3);
    stage.lose(3, 1);
    stage.heartbeat(1);
    let mut questions = 0;
    while stage.last(3) == 202 && stage.raft(3).last_term() == Term(2) {
        stage.process(1);
        stage.deliver_all(1, 3);
        stage.process(3);
        stage.deliver_all(3, 1);
        questions += 1;
        assert!(questions < 5, "two hundred records of one term are one step");
    }
}

#[test]
fn section_5_4_2_figure_8_an_old_record_on_a_majority_is_not_committed() {
    // (a) 1 leads term 2 and its record reaches 2. (b) 5 leads term 3 with a record of its own. (c) 1 leads term 4 and
    // brings its old record to a majority; it is not committed. (d) 5 may still overwrite it. (e) Once a record of
    // term 4 is on a majority, the old one is committed with it and 5 cannot be elected.
    for own_record_spreads in [false, true] {
        let plot = Plot { index: 0, term: 3, voters: vec![1, 2, 3, 4, 5], ..Plot::default() };
        let mut stage = Stage::default();
        for (id, log) in [(1, &[1, 2][..]), (2, &[1, 2]), (3, &[1]), (4, &[1]), (5, &[1, 3])] {
            stage.enter(id, &plot, log);
        }
        stage.isolate(5);
        // Elected, it asks where the logs agree, and sends no record yet.
        stage.actor(1).full = true;
        stage.elect(1);
        assert_eq!((stage.term(1), stage.last(1)), (4, 3));
        stage.actor(1).full = false;
        stage.silence(1, 4);
        stage.process(1);
        stage.lose(1, 2);
        stage.deliver(1, 3);
        stage.process(3);
        stage.deliver_all(3, 1);
        for id in 1..=3 {
            assert_eq!(stage.actors[&id].disk[1].term, Term(2), "a majority has the old record on disk");
        }
        for peer in [2, 3] {
            let known = stage.raft(1).peer(NodeId(peer)).map(|peer| peer.durable);
            assert_eq!(known, Some(crate::stage::at(2)), "and the leader knows it");
        }
        assert_eq!(stage.commit(1), 0, "and yet it is not committed");
        if own_record_spreads {
            stage.heartbeat(1);
            stage.stabilize(&[1, 2, 3]);
            assert_eq!(stage.commit(1), 3, "with a record of its own it is");
        }
        stage.lose(1, 3);
        stage.crash(1);
        stage.hear_again();
        for _ in 0..2 {
            if stage.role(5) != Role::Leader {
                stage.campaign(5);
                stage.stabilize(&[2, 3, 4, 5]);
            }
        }
        assert_eq!(stage.role(5) == Role::Leader, !own_record_spreads, "whose log is newer");
        if !own_record_spreads {
            assert_eq!(stage.actors[&3].log[1].term, Term(3), "the old record is gone");
            assert_eq!(stage.commit(3), stage.last(5));
        }
    }
}

#[test]
fn section_5_4_2_a_new_leader_commits_old_records_with_its_first_own() {
    // That is why a term begins with a record: what older terms left is committed with it.
    let mut alone = Alone::new(5, &[1, 1, 2], 2);
    alone.lead();
    alone.acknowledge(2, 3, 0);
    alone.acknowledge(3, 3, 0);
    assert_eq!(alone.raft.commit(), at(0));
    alone.acknowledge(2, 4, 0);
    alone.acknowledge(3, 4, 0);
    assert_eq!(alone.raft.commit(), at(4));
}

#[test]
fn section_7_a_snapshot_takes_the_place_of_the_log_and_keeps_what_lies_behind() {
    // A snapshot with new information replaces the log; if the log holds its last record, what follows is kept.
    let membership = Membership::of_voters(NodeSet::from_bits(0b11_1110));
    let mark = |index, term| SnapshotMark { position: at(index), term: Term(term), membership };
    let mut alone = Alone::new(5, &[1, 1, 2], 2);
    assert_eq!(alone.raft.install_snapshot(NodeId(2), Term(3), &mark(2, 1), alone.now), Installed::Kept);
    assert_eq!((alone.raft.last(), alone.raft.commit()), (at(3), at(2)));
    assert_eq!(alone.raft.install_snapshot(NodeId(2), Term(3), &mark(9, 3), alone.now), Installed::Replaced);
    assert_eq!((alone.raft.last(), alone.raft.last_term(), alone.raft.commit()), (at(9), Term(3), at(9)));
    assert_eq!(alone.raft.install_snapshot(NodeId(2), Term(3), &mark(4, 2), alone.now), Installed::No, "an older one");
    assert_eq!(alone.raft.install_snapshot(NodeId(3), Term(2), &mark(20, 2), alone.now), Installed::No, "a stale term");
    assert_eq!((alone.raft.last(), alone.raft.leader()), (at(9), Some(NodeId(2))));
    alone.take(2, &append(3, (9, 3), (3, 1), 9));
    assert_eq!(alone.raft.last(), at(10), "and the log goes on behind it");
}

#[test]
fn section_7_a_leader_sends_a_snapshot_where_its_log_begins_too_late() {
    // What was dropped is sent as a snapshot, and the log follows.
    let mut stage = Stage::new(3, &Plot { index: 0, ..Plot::default() });
    stage.isolate(3);
    stage.campaign(1);
    stage.stabilize(&[1, 2]);
    for _ in 0..5 {
        stage.propose(1);
    }
    stage.stabilize(&[1, 2]);
    let committed = stage.raft(1).commit();
    stage.actor(1).trim(committed);
    stage.propose(1);
    stage.hear_again();
    for _ in 0..4 {
        stage.heartbeat(1);
        stage.stabilize_all();
    }
    assert_eq!(stage.raft(3).terms().base(), committed, "by a snapshot");
    assert_eq!((stage.last(3), stage.commit(3)), (7, 7));
}

#[test]
fn thesis_10_2_1_a_leader_writes_while_it_sends() {
    // A leader sends before its own disk has the record, and counts itself only when it has.
    let mut stage = Stage::new(3, &Plot::default());
    stage.elect(1);
    stage.actor(1).writes_held = true;
    stage.propose(1);
    stage.process(1);
    assert_eq!(stage.letters(1, 2).len(), 1);
    stage.stabilize(&[1, 2]);
    assert_eq!(stage.commit(1), 11, "one disk of three");
    stage.stabilize(&[1, 2, 3]);
    assert_eq!(stage.commit(1), 12, "two, and the leader's is not among them");
}

#[test]
fn section_5_3_in_replicated_mode_memory_counts_instead() {
    // Which promise is kept is the operator's choice; the rule is the same.
    let mut stage = Stage::new(3, &Plot { durability: Durability::Replicated, ..Plot::default() });
    stage.elect(1);
    for id in 1..=3 {
        stage.actor(id).writes_held = true;
    }
    stage.propose(1);
    stage.stabilize_all();
    assert_eq!((stage.commit(1), stage.commit(2)), (12, 12));
    assert_eq!(stage.raft(1).durable().0 / crate::stage::RECORD_SIZE, 11);
}
