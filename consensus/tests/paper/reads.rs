//! Clients that read: paper §8; thesis §6.4 and §6.4.1.

use evershard_consensus::{Role, Timing};

use crate::alone::{Alone, at};
use crate::stage::{MS, Plot, Stage};

fn leased() -> Stage {
    let timing = Timing { lease_ns: 120 * MS, ..Timing::default() };
    let mut stage = Stage::new(3, &Plot { timing, ..Plot::default() });
    for id in 1..=3 {
        stage.rest(id);
    }
    stage.elect(1);
    stage
}

#[test]
fn section_8_a_leader_knows_what_is_committed_once_it_has_committed_in_its_term() {
    // Before that it serves no reads: what its predecessors committed may not be known to it yet.
    let mut alone = Alone::new(5, &[1, 1], 1);
    alone.lead();
    assert_eq!(alone.raft.begin_read(alone.now), None);
    alone.acknowledge(2, 3, 0);
    alone.acknowledge(3, 3, 0);
    assert_eq!(alone.raft.begin_read(alone.now).map(|read| read.position), Some(at(3)));
}

#[test]
fn section_8_a_leader_exchanges_heartbeats_with_a_majority_before_it_answers() {
    // Otherwise a successor may have committed something that the read would miss.
    let mut alone = Alone::new(5, &[], 0);
    alone.lead();
    let rounds: Vec<u64> = (2..=5).map(|peer| alone.send(peer).expect("a probe").round).collect();
    for (peer, round) in (2..=5).zip(rounds) {
        alone.acknowledge(peer, 1, round);
    }
    while alone.send(2).is_some() || alone.send(3).is_some() || alone.send(4).is_some() || alone.send(5).is_some() {}
    let read = alone.raft.begin_read(alone.now).expect("settled");
    assert!(!alone.raft.is_confirmed(&read));
    let rounds: Vec<u64> = (2..=5).map(|peer| alone.send(peer).expect("a round for the read").round).collect();
    alone.acknowledge(2, 1, rounds[0] - 1);
    alone.acknowledge(3, 1, rounds[1] - 1);
    assert!(!alone.raft.is_confirmed(&read), "those rounds were sent before the read began");
    alone.acknowledge(2, 1, rounds[0]);
    assert!(!alone.raft.is_confirmed(&read), "two of five");
    alone.acknowledge(3, 1, rounds[1]);
    assert!(alone.raft.is_confirmed(&read));
}

#[test]
fn thesis_6_4_a_read_is_served_at_the_commit_position_of_its_beginning() {
    // The position is noted when the read begins; many reads share one round.
    let mut stage = Stage::new(3, &Plot::default());
    stage.elect(1);
    let (raft, _, now) = stage.actor(1).raft_mut();
    let reads = [raft.begin_read(now), raft.begin_read(now), raft.begin_read(now)].map(|read| read.expect("settled"));
    stage.propose(1);
    let sent = stage.process(1);
    assert_eq!(sent, 2, "one append for each follower, with the round and the record");
    stage.stabilize_all();
    assert_eq!(stage.commit(1), 12);
    for read in &reads {
        assert!(stage.raft(1).is_confirmed(read));
        assert_eq!(read.position, crate::stage::at(11));
    }
}

#[test]
fn thesis_6_4_a_deposed_leader_confirms_nothing() {
    // A leader that was replaced without noticing gets no majority to answer; when it notices, its reads are over.
    let mut stage = Stage::new(3, &Plot::default());
    stage.elect(1);
    stage.isolate(1);
    stage.rest(3);
    stage.campaign(2);
    stage.stabilize(&[2, 3]);
    stage.propose(2);
    stage.stabilize(&[2, 3]);
    assert_eq!((stage.role(1), stage.role(2)), (Role::Leader, Role::Leader));
    let (raft, _, now) = stage.actor(1).raft_mut();
    let read = raft.begin_read(now).expect("it believes to lead");
    stage.heartbeat(1);
    stage.process(1);
    assert!(!stage.raft(1).is_confirmed(&read) && stage.raft(1).is_pending(&read));
    stage.hear_again();
    stage.heartbeat(2);
    stage.stabilize_all();
    assert!(!stage.raft(1).is_confirmed(&read) && !stage.raft(1).is_pending(&read));
}

#[test]
fn thesis_6_4_1_under_a_lease_nobody_is_asked_as_long_as_a_majority_has_promised() {
    // A promise is counted from the sending of what it answers, and a bit shorter than it was given for.
    let mut stage = leased();
    stage.heartbeat(1);
    stage.stabilize_all();
    let (raft, _, now) = stage.actor(1).raft_mut();
    let read = raft.begin_read(now).expect("settled");
    assert!(raft.has_lease() && raft.is_confirmed(&read), "at once");
    stage.isolate(1);
    stage.pass_ms(1, 120);
    let (raft, _, now) = stage.actor(1).raft_mut();
    let read = raft.begin_read(now).expect("it still leads");
    assert!(!raft.has_lease() && !raft.is_confirmed(&read), "promises last so long and no longer");
}

#[test]
fn thesis_6_4_1_whoever_promised_votes_for_nobody_meanwhile() {
    // The lease is worth what the followers' patience is worth, even if their link to the leader closes.
    let mut stage = leased();
    stage.heartbeat(1);
    stage.stabilize_all();
    stage.unlink(1, 2);
    stage.unlink(1, 3);
    for id in [2, 3] {
        stage.pass_ms(id, 100);
    }
    stage.stabilize(&[2, 3]);
    assert!((2..=3).all(|id| stage.role(id) == Role::Follower && stage.term(id) == 1));
    for _ in 0..40 {
        for id in [2, 3] {
            stage.pass_ms(id, 10);
        }
        stage.stabilize(&[2, 3]);
    }
    assert!((2..=3).any(|id| stage.role(id) == Role::Leader), "but not for ever");
}

#[test]
fn thesis_6_4_1_a_transfer_ends_the_lease() {
    // The summoned candidate is exempt from the promises, so they are worth nothing from that moment on.
    let mut stage = leased();
    stage.heartbeat(1);
    stage.stabilize_all();
    assert!(stage.raft(1).has_lease());
    stage.transfer(1, 2).expect("in step");
    assert!(!stage.raft(1).has_lease());
    stage.isolate(2);
    for _ in 0..20 {
        stage.heartbeat(1);
        stage.stabilize(&[1, 3]);
    }
    assert!(stage.raft(1).transfer_target().is_none(), "given up");
    assert!(!stage.raft(1).has_lease(), "the one that was summoned may campaign at any time");
}
