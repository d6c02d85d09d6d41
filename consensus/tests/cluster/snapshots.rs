//! A peer behind the leader's log waits for a snapshot and goes on behind it. The transfer is the caller's.

use evershard_consensus::{Durability, HardState, Installed, SnapshotMark, TermTable};
use evershard_protocol::peer::{AppendReply, Hint, PeerMessage};
use evershard_protocol::{Membership, NodeId, NodeSet, Position, Term};

use crate::network::MS;
use crate::solo::{PEER, Solo, acknowledge};

fn mark(position: u64, term: u64, voters: u64) -> SnapshotMark {
    let membership = Membership::of_voters(NodeSet::from_bits(voters));
    SnapshotMark { position: Position(position), term: Term(term), membership }
}

/// A leader of term 5 whose log begins at 640, and a peer that has nothing.
fn leader_with_a_peer_behind() -> Solo {
    let mut table = TermTable::starting_at(Position(640), Term(3));
    table.append(Term(4), Position(704));
    let mut solo = Solo::restored(Durability::Durable, table, HardState { term: Term(4), ..HardState::NEW });
    solo.lead();
    solo.raft.on_appended(Term(5), Position(768));
    for _ in 0..3 {
        answer_with_nothing(&mut solo);
    }
    assert!(solo.raft.wants_snapshot(PEER));
    solo
}

fn answer_with_nothing(solo: &mut Solo) {
    let Some(planned) = solo.raft.plan_append(PEER, solo.now, 1000) else { return };
    assert!(planned.size == 0 || planned.previous >= Position(640));
    solo.raft.on_append_sent(PEER, &planned, solo.now);
    let reply = AppendReply {
        term: Term(5),
        received: Position(0),
        durable: Position(0),
        round: planned.round,
        rejected: Some(Hint { position: Position(0), term: Term(0) }),
        recovering: true,
        promise_ns: 0,
    };
    solo.hear(PEER, PeerMessage::AppendReply(reply));
    solo.now = solo.now.after(20 * MS);
}

#[test]
fn while_it_is_on_its_way_only_heartbeats_go_out() {
    let mut solo = leader_with_a_peer_behind();
    solo.raft.on_snapshot_begun(PEER, Position(640));
    assert!(!solo.raft.wants_snapshot(PEER), "one at a time");
    for _ in 0..5 {
        answer_with_nothing(&mut solo);
        assert!(!solo.raft.wants_snapshot(PEER));
    }
    solo.raft.on_snapshot_ended(PEER, false);
    assert!(solo.raft.wants_snapshot(PEER), "it did not arrive");
}

#[test]
fn once_it_has_arrived_the_log_goes_on_behind_it() {
    let mut solo = leader_with_a_peer_behind();
    solo.raft.on_snapshot_begun(PEER, Position(640));
    solo.raft.on_snapshot_ended(PEER, true);
    let planned = solo.raft.plan_append(PEER, solo.now, 1000).expect("a probe with data");
    assert_eq!((planned.previous, planned.data_term), (Position(640), Term(4)));
    solo.raft.on_append_sent(PEER, &planned, solo.now);
    solo.hear(PEER, acknowledge(5, 704, 704, planned.round));
    let planned = solo.raft.plan_append(PEER, solo.now, 1000).expect("the rest");
    assert_eq!((planned.previous, planned.data_term), (Position(704), Term(5)));
}

/// The peer's own word is enough, though nobody reported the end of the transfer.
#[test]
fn the_peers_word_ends_the_wait() {
    let mut solo = leader_with_a_peer_behind();
    solo.raft.on_snapshot_begun(PEER, Position(640));
    let planned = solo.raft.plan_append(PEER, solo.now, 1000).expect("a heartbeat");
    solo.raft.on_append_sent(PEER, &planned, solo.now);
    solo.hear(PEER, acknowledge(5, 640, 640, planned.round));
    let planned = solo.raft.plan_append(PEER, solo.now, 1000).expect("a probe with data");
    assert_eq!(planned.previous, Position(640));
}

#[test]
fn a_log_that_is_trimmed_leaves_slow_peers_waiting() {
    let mut solo = Solo::new(Durability::Durable, &[(1, 256)], 1);
    solo.lead();
    let term = solo.raft.term();
    let end = solo.raft.last().advance(64);
    solo.raft.on_appended(term, end);
    solo.raft.on_durable(end);
    let planned = solo.raft.plan_append(NodeId(2), solo.now, 1000).expect("a probe");
    solo.raft.on_append_sent(NodeId(2), &planned, solo.now);
    solo.hear(NodeId(2), acknowledge(term.0, end.0, end.0, planned.round));
    assert_eq!(solo.raft.commit(), end);
    solo.raft.on_trimmed(end);
    assert_eq!(solo.raft.terms().base(), end);
    assert!(solo.raft.wants_snapshot(PEER));
}

#[test]
fn an_installed_snapshot_takes_the_place_of_the_log() {
    let mut solo = Solo::new(Durability::Durable, &[(1, 128)], 1);
    let term = solo.raft.term().next();
    let installed = solo.raft.install_snapshot(PEER, term, &mark(1024, 1, 0b11), solo.now);
    assert_eq!(installed, Installed::Replaced);
    assert_eq!(
        (solo.raft.last(), solo.raft.commit(), solo.raft.durable()),
        (Position(1024), Position(1024), Position(1024))
    );
    assert_eq!(solo.raft.membership().voters, NodeSet::from_bits(0b11), "with the configuration in it");
    let older = solo.raft.install_snapshot(PEER, term, &mark(64, 1, 0b111), solo.now);
    assert_eq!(older, Installed::No);
    assert_eq!(solo.raft.last(), Position(1024));
    let stale = solo.raft.install_snapshot(NodeId(2), Term(0), &mark(2048, 1, 0b111), solo.now);
    assert_eq!(stale, Installed::No);
}

#[test]
fn a_log_that_holds_the_position_is_kept() {
    let mut solo = Solo::new(Durability::Durable, &[(1, 192)], 1);
    let term = solo.raft.term().next();
    let installed = solo.raft.install_snapshot(PEER, term, &mark(128, 1, 0b111), solo.now);
    assert_eq!(installed, Installed::Kept);
    assert_eq!((solo.raft.last(), solo.raft.commit()), (Position(192), Position(128)));
}
