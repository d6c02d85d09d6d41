//! One replica's acknowledgements, and what a leader makes of them.

use evershard_consensus::{Durability, HardState, Role, Standing, Taken, TermTable};
use evershard_protocol::peer::{AppendReply, Hint, PeerMessage};
use evershard_protocol::{Position, Term};

use crate::network::MS;
use crate::solo::{PEER, Solo, THIRD, acknowledge, append, refusal};

#[test]
fn an_acknowledgement_waits_until_the_term_is_saved() {
    let mut solo = Solo::new(Durability::Replicated, &[(1, 64)], 1);
    let taken = solo.append(PEER, &append(2, (64, 1), (2, 64), 0, 1));
    assert_eq!(taken, Taken::Data { skip: 0, truncate_to: None });
    assert_eq!(solo.reply(), None);
    solo.save();
    let reply = solo.reply().expect("now it is safe");
    assert_eq!((reply.term, reply.received, reply.durable), (Term(2), Position(128), Position(64)));
    assert_eq!(solo.reply(), None, "said once");
}

#[test]
fn in_durable_mode_only_durability_is_news() {
    let mut solo = Solo::new(Durability::Durable, &[], 1);
    solo.append(PEER, &append(1, (0, 0), (1, 64), 0, 1));
    let reply = solo.reply().expect("a new round");
    assert_eq!((reply.received, reply.durable, reply.round), (Position(64), Position(0), 1));
    solo.append(PEER, &append(1, (64, 1), (1, 64), 0, 1));
    assert_eq!(solo.reply(), None, "being in memory is not worth a message");
    solo.raft.on_durable(Position(128));
    let reply = solo.reply().expect("both are durable");
    assert_eq!((reply.received, reply.durable), (Position(128), Position(128)));
    solo.append(PEER, &append(1, (128, 1), (1, 0), 64, 1));
    assert_eq!(solo.reply(), None, "a commit position needs no answer");
    assert_eq!(solo.raft.commit(), Position(64));
    solo.append(PEER, &append(1, (128, 1), (1, 0), 64, 2));
    assert!(solo.reply().is_some(), "a heartbeat does");
    let taken = solo.append(PEER, &append(1, (0, 0), (1, 64), 64, 2));
    assert_eq!(taken, Taken::Data { skip: 64, truncate_to: None });
    assert_eq!(solo.reply().map(|reply| reply.received), Some(Position(128)), "and so does a repeated append");
}

#[test]
fn in_replicated_mode_durability_rides_along() {
    let mut solo = Solo::new(Durability::Replicated, &[], 1);
    solo.append(PEER, &append(1, (0, 0), (1, 64), 0, 1));
    assert_eq!(solo.reply().map(|reply| reply.received), Some(Position(64)));
    solo.raft.on_durable(Position(64));
    assert_eq!(solo.reply(), None);
    solo.append(PEER, &append(1, (64, 1), (1, 64), 0, 1));
    let reply = solo.reply().expect("received is news");
    assert_eq!((reply.received, reply.durable), (Position(128), Position(64)));
}

/// A late completion of a write that a newer leader had cut away says nothing about what took its place.
#[test]
fn a_late_completion_of_what_was_cut_acknowledges_nothing() {
    let mut solo = Solo::new(Durability::Durable, &[(1, 64)], 1);
    solo.append(PEER, &append(1, (64, 1), (1, 128), 0, 1));
    let cut = append(2, (64, 1), (2, 64), 0, 1);
    let taken = solo.raft.on_append(THIRD, &cut, solo.now, &mut solo.out);
    assert_eq!(taken, Taken::Data { skip: 0, truncate_to: Some(Position(64)) });
    solo.raft.on_durable(Position(192));
    assert_eq!(solo.raft.durable(), Position(64), "clamped to what there is");
    solo.raft.on_appended(Term(2), Position(128));
    solo.save();
    let (to, reply) = solo.raft.take_reply(solo.now).expect("a new round");
    assert_eq!((to, reply.received, reply.durable), (THIRD, Position(128), Position(64)));
}

#[test]
fn commit_is_capped_by_what_was_verified() {
    let mut solo = Solo::new(Durability::Durable, &[(1, 64), (1, 128)], 1);
    solo.append(PEER, &append(2, (64, 1), (1, 0), 128, 1));
    assert_eq!(solo.raft.commit(), Position(64), "the tail may be something else than the leader's");
    let taken = solo.append(PEER, &append(2, (64, 1), (2, 64), 128, 1));
    assert_eq!(taken, Taken::Data { skip: 0, truncate_to: Some(Position(64)) });
    assert_eq!(solo.raft.commit(), Position(128));
    let broken = append(2, (0, 0), (2, 64), 128, 1);
    assert_eq!(solo.append(PEER, &broken), Taken::No, "what is committed is never cut");
    assert_eq!(solo.raft.last(), Position(128));
}

#[test]
fn a_mismatch_is_answered_with_where_to_look() {
    let mut solo = Solo::new(Durability::Durable, &[(1, 64), (3, 128), (5, 192)], 5);
    for (previous, expected) in [
        ((256, 6), Hint { position: Position(192), term: Term(5) }),
        ((192, 4), Hint { position: Position(128), term: Term(3) }),
        ((128, 2), Hint { position: Position(64), term: Term(1) }),
        ((192, 6), Hint { position: Position(192), term: Term(5) }),
    ] {
        assert_eq!(solo.append(PEER, &append(6, previous, (6, 64), 0, 1)), Taken::No);
        solo.save();
        assert_eq!(solo.reply().and_then(|reply| reply.rejected), Some(expected));
    }
    let data = append(6, (64, 1), (3, 128), 0, 2);
    assert_eq!(solo.append(PEER, &data), Taken::Data { skip: 64, truncate_to: Some(Position(128)) });
}

#[test]
fn a_deposed_leader_is_told_of_the_term() {
    let mut solo = Solo::new(Durability::Durable, &[], 5);
    assert_eq!(solo.append(PEER, &append(4, (0, 0), (4, 64), 0, 3)), Taken::No);
    let reply = solo.reply().expect("an answer is owed");
    assert_eq!((reply.term, reply.received, reply.round), (Term(5), Position(0), 3));
}

//= raft §5.4.2, figure 8
#[test]
fn only_records_of_the_own_term_are_committed_by_counting() {
    let mut solo = Solo::new(Durability::Durable, &[(1, 64), (2, 128)], 3);
    solo.lead();
    solo.raft.on_appended(Term(4), Position(192));
    solo.hear(PEER, acknowledge(4, 128, 128, 0));
    solo.hear(THIRD, acknowledge(4, 128, 128, 0));
    assert_eq!(solo.raft.commit(), Position(0), "on every disk, and not committed");
    solo.hear(PEER, acknowledge(4, 192, 128, 0));
    assert_eq!(solo.raft.commit(), Position(0), "received is not durable");
    solo.hear(PEER, acknowledge(4, 192, 192, 0));
    assert_eq!(solo.raft.commit(), Position(0), "one of three");
    solo.raft.on_durable(Position(192));
    assert_eq!(solo.raft.commit(), Position(192));
}

/// A restarted peer may have lost what it acknowledged over the old link.
#[test]
fn an_acknowledgement_counts_only_on_the_link_it_came_over() {
    let mut solo = Solo::new(Durability::Replicated, &[], 0);
    solo.lead();
    solo.raft.on_appended(Term(1), Position(64));
    solo.hear(PEER, acknowledge(1, 64, 0, 0));
    solo.raft.on_link_up(PEER, solo.now, &mut solo.out);
    assert_eq!(solo.raft.peer(PEER).map(|peer| peer.received), Some(Position(0)));
    assert_eq!(solo.raft.commit(), Position(64), "what was committed stays so");
}

/// A peer that needs what the table of terms no longer covers is asked now and then, and given no data.
#[test]
fn a_peer_out_of_reach_is_waited_for() {
    let mut table = TermTable::starting_at(Position(640), Term(3));
    table.append(Term(4), Position(704));
    let mut solo = Solo::restored(Durability::Durable, table, HardState { term: Term(4), ..HardState::NEW });
    solo.lead();
    solo.raft.on_appended(Term(5), Position(768));
    for _ in 0..5 {
        let planned = solo.raft.plan_append(PEER, solo.now, 1000).expect("a probe");
        solo.raft.on_append_sent(PEER, &planned, solo.now);
        let reject = AppendReply {
            term: Term(5),
            received: Position(0),
            durable: Position(0),
            round: planned.round,
            rejected: Some(Hint { position: Position(64), term: Term(1) }),
            recovering: false,
        };
        solo.hear(PEER, PeerMessage::AppendReply(reject));
        if planned.previous == Position(640) {
            assert_eq!(planned.size, 0);
            assert_eq!(solo.raft.plan_append(PEER, solo.now, 1000), None, "not again at once");
        }
        solo.now = solo.now.after(20 * MS);
    }
    assert!(solo.raft.peer(PEER).is_some_and(|peer| peer.out_of_reach && peer.probing));
    assert_eq!(solo.raft.slowest_needed(), Position(768));
}

/// What a peer acknowledged to this replica as the leader of an earlier term, another leader may have cut since.
#[test]
fn acknowledgements_of_an_earlier_term_do_not_count() {
    let mut solo = Solo::new(Durability::Durable, &[], 0);
    solo.lead();
    solo.raft.on_appended(Term(1), Position(64));
    solo.hear(PEER, acknowledge(1, 64, 64, 0));
    solo.hear(THIRD, refusal(5, false));
    assert_eq!(solo.raft.role(), Role::Follower);
    solo.lead();
    solo.raft.on_appended(Term(6), Position(128));
    solo.raft.on_durable(Position(128));
    let peer = solo.raft.peer(PEER).expect("a member");
    assert_eq!((peer.received, peer.durable, peer.probing), (Position(0), Position(0), true));
    solo.hear(PEER, acknowledge(1, 64, 64, 0));
    assert_eq!(solo.raft.peer(PEER).map(|peer| peer.received), Some(Position(0)), "not even if repeated");
    assert_eq!(solo.raft.commit(), Position(0));
}

/// A commit position of an older term may be from before the restart: the leader itself may not know yet what was
/// committed then.
#[test]
fn recovery_needs_a_commit_of_the_leaders_own_term() {
    let mut table = TermTable::new();
    table.append(Term(1), Position(128));
    let hard = HardState { term: Term(1), vote: None, standing: Standing::Recovering };
    let mut solo = Solo::restored(Durability::Replicated, table, hard);
    solo.append(PEER, &append(2, (128, 1), (2, 64), 128, 1));
    solo.save();
    assert!(solo.reply().is_some_and(|reply| reply.received == Position(192) && reply.recovering));
    assert_eq!(solo.raft.hard_state_to_save(), None, "it holds the commit position, but that is of term 1");
    solo.append(PEER, &append(2, (192, 2), (2, 64), 192, 1));
    assert!(solo.reply().is_some_and(|reply| reply.recovering), "wanted, not saved");
    assert_eq!(solo.raft.standing(), Standing::Recovering);
    solo.save();
    assert_eq!(solo.raft.standing(), Standing::Sound);
    assert!(solo.reply().is_some_and(|reply| !reply.recovering), "the leader is told at once");
}

/// The story: a follower had no room for an append's data, so it appended nothing. What that append had allowed stayed
/// allowed, and the next append, a repeated one, was taken for its completion: "a log grows by appending".
#[test]
fn what_an_append_allowed_is_void_when_the_next_one_comes() {
    let mut solo = Solo::new(Durability::Replicated, &[(1, 64), (1, 128)], 1);
    let now = solo.now;
    let taken = solo.raft.on_append(PEER, &append(1, (128, 1), (1, 64), 0, 1), now, &mut solo.out);
    assert_eq!(taken, Taken::Data { skip: 0, truncate_to: None });
    let taken = solo.raft.on_append(PEER, &append(1, (0, 0), (1, 64), 0, 1), now, &mut solo.out);
    assert_eq!(taken, Taken::Data { skip: 64, truncate_to: None });
    solo.raft.on_appended(Term(1), Position(128));
    assert_eq!(solo.raft.last(), Position(128));
}
