//! Scenarios of the project's list whose point lies inside consensus, each under its number: the schedule is exact, or tried
//! for every moment at which it may happen. `runtime/sim/COVERAGE.md` has the whole list.

use evershard_consensus::{Config, Durability, HardState, Output, Raft, Restored, Role, Taken, TermTable, Timing};
use evershard_protocol::peer::{PeerMessage, Vote};
use evershard_protocol::{Instant, NodeId, Position, Term};

use crate::network::{Cluster, MS, Setup};
use crate::solo::{PEER, Solo, THIRD, append, grant, refusal, vote};
use crate::stage::{Plot, Stage, at};

fn seeded(seed: u64) -> Setup {
    Setup { seed, ..Setup::default() }
}

fn converge(cluster: &mut Cluster) {
    assert!(cluster.run_until(5000, Cluster::has_converged).is_some(), "the replicas never agreed");
}

fn asks(term: u64, last_term: u64, last: u64) -> PeerMessage {
    PeerMessage::Vote(vote(term, last_term, last))
}

/// A vote is lost with the power before it was on disk: nobody has heard of it, so the next candidate of that term may have
/// it; one that was on disk is told, and is not given again.
#[test]
fn s07_a_vote_lost_in_a_crash_was_never_told_and_one_that_was_told_is_never_given_again() {
    for is_saved in [false, true] {
        let mut solo = Solo::new(Durability::Durable, &[(1, 64)], 1);
        let mut told = solo.hear(PEER, asks(2, 1, 64));
        let wanted = solo.raft.hard_state_to_save().expect("a vote is to be saved");
        assert_eq!(wanted.vote, Some(PEER));
        if is_saved {
            solo.raft.on_hard_state_saved(wanted, &mut solo.out);
            told.extend(solo.said());
        }
        let on_disk = if is_saved { wanted } else { HardState { term: Term(1), ..HardState::NEW } };
        let mut terms = TermTable::new();
        terms.append(Term(1), Position(64));
        let mut next = Solo::restored(Durability::Durable, terms, on_disk);
        told.extend(next.hear(THIRD, asks(2, 1, 64)));
        next.save();
        told.extend(next.said());
        let granted: Vec<NodeId> =
            told.iter().filter(|(_, said)| *said == grant(2, false)).map(|(candidate, _)| *candidate).collect();
        assert_eq!(granted, [if is_saved { PEER } else { THIRD }]);
    }
}

/// Votes of an earlier campaign, votes told twice and answers to questions of another kind elect nobody.
#[test]
fn s08_late_and_repeated_votes_do_not_count() {
    let config = Config {
        id: NodeId(0),
        members: (0..5).map(NodeId).collect(),
        durability: Durability::Durable,
        timing: Timing::default(),
        seed: 3,
        inflight_size_max: 1 << 20,
    };
    let hard = HardState { term: Term(1), ..HardState::NEW };
    let terms = TermTable::new();
    let restored = Restored { hard, terms, memberships: vec![], durable: Position(0), commit: Position(0) };
    let now = Instant(MS);
    let mut solo = Solo { raft: Raft::new(config, restored, now), out: Output::new(), now };
    (1..5).for_each(|peer| solo.raft.on_link_up(NodeId(peer), now, &mut solo.out));
    let campaign = |solo: &mut Solo, term: u64| {
        while solo.raft.role() != Role::PreCandidate {
            solo.now = solo.now.after(10 * MS);
            solo.raft.tick(solo.now, &mut solo.out);
        }
        (1..3).for_each(|peer| drop(solo.hear(NodeId(peer), grant(term, true))));
        solo.save();
        assert_eq!((solo.raft.role(), solo.raft.term()), (Role::Candidate, Term(term)));
    };
    campaign(&mut solo, 2);
    for _ in 0..3 {
        solo.hear(NodeId(1), grant(2, false));
        solo.hear(NodeId(2), grant(2, true));
    }
    assert_eq!(solo.raft.role(), Role::Candidate, "one vote is one vote, and a pre-vote is none");
    campaign(&mut solo, 3);
    for peer in 1..5 {
        solo.hear(NodeId(peer), grant(2, false));
    }
    assert_eq!((solo.raft.role(), solo.raft.term()), (Role::Candidate, Term(3)), "those are of a term that is over");
    solo.hear(NodeId(4), grant(3, false));
    assert_eq!(solo.raft.role(), Role::Candidate);
    solo.hear(NodeId(3), grant(3, false));
    assert_eq!(solo.raft.role(), Role::Leader, "with its own these are three of five");
}

/// The five servers of the paper's figure 8 in (c): 1 leads again and has brought its record of term 2 to three of five.
fn figure_8() -> Stage {
    let plot = Plot { voters: vec![1, 2, 3, 4, 5], index: 1, term: 3, ..Plot::default() };
    let mut stage = Stage::default();
    for (id, terms) in [(1, vec![2]), (2, vec![2]), (3, vec![]), (4, vec![]), (5, vec![3])] {
        stage.enter(id, &plot, &terms);
    }
    [4, 5].into_iter().for_each(|id| stage.isolate(id));
    [2, 3].into_iter().for_each(|id| stage.patience(id));
    stage.actor(1).full = true;
    while stage.role(1) != Role::Leader {
        assert!(stage.role(1) != Role::Follower || stage.campaign(1), "1 campaigns");
        stage.stabilize(&[1, 2, 3]);
    }
    assert_eq!((stage.last(1), stage.last(2), stage.last(3)), (3, 2, 1), "its own record is only on its own disk");
    stage.actor(1).full = false;
    // The record of term 2 reaches 3; of term 4 nothing leaves.
    for _ in 0..10 {
        stage.heartbeat(1);
        stage.process(1);
        while stage.last(3) < 2 && stage.deliver(1, 3) {}
        stage.lose(1, 3);
        stage.lose(1, 2);
        stage.process(3);
        if stage.last(3) == 2 {
            break;
        }
        stage.deliver_all(3, 1);
    }
    assert_eq!((stage.last(2), stage.last(3)), (2, 2), "on three of five disks");
    stage
}

/// Figure 8: a record of an earlier term on a majority of disks is not committed by counting, for it may still be replaced
/// (d); once a record of the leader's own term stands behind it on a majority, it may not (e).
#[test]
fn s09_a_majority_alone_does_not_commit_a_record_of_an_earlier_term() {
    let mut stage = figure_8();
    stage.deliver_all(3, 1);
    stage.deliver_all(2, 1);
    assert_eq!(stage.commit(1), 1, "it is on three of five, and not committed");
    stage.crash(1);
    stage.hear_again();
    [2, 3, 4].into_iter().for_each(|id| stage.patience(id));
    for _ in 0..3 {
        if stage.role(5) == Role::Follower {
            assert!(stage.campaign(5));
        }
        stage.stabilize(&[2, 3, 4, 5]);
    }
    assert_eq!(stage.role(5), Role::Leader, "its log ends in a later term");
    for id in [2, 3, 4] {
        let (of_five, of_this) = (stage.actor(5).log.clone(), stage.actor(id).log.clone());
        assert_eq!(of_this, of_five, "(d): the record of term 2 is gone on {id}");
    }

    let mut stage = figure_8();
    for _ in 0..4 {
        stage.heartbeat(1);
        stage.stabilize(&[1, 2, 3]);
    }
    assert_eq!(stage.commit(1), 3, "(e): below one of its own term it is committed");
    stage.crash(1);
    stage.hear_again();
    for _ in 0..5 {
        [2, 3, 4].into_iter().for_each(|id| stage.patience(id));
        stage.campaign(5);
        stage.stabilize(&[2, 3, 4, 5]);
        assert_ne!(stage.role(5), Role::Leader, "a majority has a better log");
        if let Some(leader) = [2, 3].into_iter().find(|id| stage.role(*id) == Role::Leader) {
            stage.stabilize(&[2, 3, 4, 5]);
            assert_eq!(stage.actor(leader).log[0].term, Term(2));
            return;
        }
    }
    panic!("nobody was elected");
}

/// Logs are compared by the term of their last record and only then by length, by each voter and by the whole.
#[test]
fn s10_a_later_term_beats_a_longer_log() {
    for (last_term, last, is_granted) in
        [(2, 9999, false), (3, 64, false), (3, 128, true), (3, 192, true), (4, 8, true)]
    {
        let mut solo = Solo::new(Durability::Durable, &[(1, 64), (3, 128)], 4);
        let refused = solo.hear(PEER, asks(5, last_term, last));
        solo.save();
        let told: Vec<_> = refused.into_iter().chain(solo.said()).collect();
        let expected = if is_granted { grant(5, false) } else { refusal(5, false) };
        assert_eq!(told, [(PEER, expected)], "a log up to {last} of term {last_term}");
    }
    for seed in 0..10 {
        let mut cluster = Cluster::with_logs(&[vec![1; 30], vec![1, 2], vec![1, 2]], seeded(seed));
        assert_ne!(cluster.elect(), 0, "seed {seed}: the long log of term 1 loses against the short one of term 2");
        converge(&mut cluster);
    }
}

/// A voter that does not ask beforehand but sends real votes at once is elected by those that do, as long as they have no
/// leader; while they have one it neither gets a vote nor raises their term.
#[test]
fn s11_a_candidate_without_pre_votes_is_served_and_disturbs_no_leader() {
    let mut solo = Solo::new(Durability::Durable, &[(1, 64)], 1);
    solo.time_out();
    solo.said();
    assert_eq!(solo.raft.role(), Role::PreCandidate);
    assert_eq!(solo.hear(PEER, asks(7, 1, 64)), [], "not before it is saved");
    solo.save();
    assert_eq!(solo.said(), [(PEER, grant(7, false))]);

    let mut solo = Solo::new(Durability::Durable, &[(1, 64)], 1);
    solo.append(PEER, &append(1, (64, 1), (1, 0), 0, 1));
    assert_eq!(solo.hear(THIRD, asks(7, 1, 64)), [(THIRD, refusal(1, false))]);
    assert_eq!((solo.raft.term(), solo.raft.leader()), (Term(1), Some(PEER)));
    // The other way round: an answer to a pre-vote that is a vote counts for no more than the question.
    let mut solo = Solo::new(Durability::Durable, &[(1, 64)], 1);
    solo.time_out();
    let asked = PeerMessage::Vote(Vote { pre_vote: true, ..vote(2, 1, 64) });
    assert_eq!(solo.said(), [(PEER, asked), (THIRD, asked)]);
    solo.hear(PEER, grant(2, false));
    assert_ne!(solo.raft.role(), Role::Leader);
}

/// A follower crashes at every moment of the overwriting of its divergent tail; whatever is on its disk then, it ends with
/// the leader's log.
#[test]
fn s30_a_crash_in_the_middle_of_an_overwrite() {
    let (leader, divergent) = (vec![1, 1, 3, 3, 5, 5, 5], vec![1, 1, 2, 2, 2, 4, 4, 4, 4, 4]);
    for crash_ms in 0..40 {
        let logs = [leader.clone(), leader.clone(), divergent.clone()];
        let setup = Setup { flush_ns: 7 * MS, append_size_max: 64, ..seeded(crash_ms) };
        let mut cluster = Cluster::with_logs(&logs, setup);
        cluster.part(&[2], &[0, 1]);
        cluster.elect();
        cluster.heal();
        cluster.run_ms(crash_ms);
        cluster.crash(2, crash_ms % 2 == 0);
        cluster.run_ms(20);
        cluster.restart(2);
        converge(&mut cluster);
        assert_eq!(cluster.nodes[2].log[..7], cluster.nodes[0].log[..7], "{crash_ms} ms");
    }
}

/// Appends come again, and earlier ones after later ones: what was acknowledged stays, and nothing received is durable.
#[test]
fn s31_an_earlier_append_after_a_later_one_takes_nothing_back() {
    for durability in [Durability::Durable, Durability::Replicated] {
        let mut solo = Solo::new(durability, &[], 1);
        solo.append(PEER, &append(1, (0, 0), (1, 64), 0, 1));
        solo.append(PEER, &append(1, (64, 1), (1, 128), 0, 2));
        let reply = solo.reply().expect("news");
        assert_eq!((reply.received, reply.durable), (Position(192), Position(0)), "received is not durable");
        solo.raft.on_durable(Position(128));
        for (round, (previous, data)) in
            [((0, 0), (1, 64)), ((64, 1), (1, 64)), ((0, 0), (1, 192)), ((64, 1), (1, 0))].into_iter().enumerate()
        {
            let late = append(1, previous, data, 0, 3 + round as u64);
            if let Taken::Data { skip, truncate_to } = solo.append(PEER, &late) {
                assert_eq!((skip, truncate_to), (late.size, None), "nothing is cut, nothing appended again");
            }
            let reply = solo.reply().expect("an answer to each");
            assert_eq!((reply.received, reply.durable), (Position(192), Position(128)), "{late:?}");
        }
    }
}

/// A write of one term ends when the next leader has replaced what it wrote: it is not taken for a write of what the log
/// holds now, at the same positions.
#[test]
fn s32_a_write_that_ends_late_acknowledges_nothing_that_took_its_place() {
    let mut stage = Stage::new(5, &Plot { voters: vec![1, 2, 3, 4, 5], ..Plot::default() });
    stage.elect(1);
    let kept = stage.last(3);
    // A record of the first leader reaches 3 only, whose disk is slow.
    stage.actor(3).writes_held = true;
    stage.propose(1);
    stage.process(1);
    [2, 4, 5].into_iter().for_each(|id| stage.lose(1, id));
    stage.deliver_all(1, 3);
    stage.process(3);
    assert_eq!((stage.last(3), stage.raft(3).durable()), (kept + 1, at(kept)), "the write has begun");
    // 2 leads the next term without it; what it writes takes the place on 3.
    stage.isolate(1);
    stage.isolate(3);
    [4, 5].into_iter().for_each(|id| stage.patience(id));
    while stage.role(2) != Role::Leader {
        assert!(stage.campaign(2));
        stage.stabilize(&[2, 4, 5]);
    }
    stage.hear_again();
    stage.isolate(1);
    let reached = |stage: &Stage| stage.raft(3).last_term() == stage.raft(2).term();
    for _ in 0..10 {
        if reached(&stage) {
            break;
        }
        stage.heartbeat(2);
        stage.process(2);
        stage.deliver_all(2, 3);
        stage.process(3);
        stage.deliver_all(3, 2);
    }
    assert!(reached(&stage) && stage.last(3) == kept + 1, "another record at the same place");
    assert!(stage.actor(3).complete_write(), "the write of the earlier term ends");
    assert_eq!(stage.raft(3).durable(), at(kept), "and says nothing about the record of the later one");
    stage.process(3);
    stage.deliver_all(3, 2);
    assert_eq!(stage.raft(2).peer(NodeId(3)).map(|peer| peer.durable), Some(at(kept)));
    while stage.actor(3).complete_write() {
        stage.process(3);
    }
    assert_eq!(stage.raft(3).durable(), at(kept + 1));
}

/// The leader's disk hangs: the two others commit. One of those hangs too: the leader's copy in memory is no third one.
#[test]
fn s33_the_leader_counts_only_what_its_own_disk_has() {
    let mut cluster = Cluster::new(3, Setup::default());
    let leader = cluster.elect();
    converge(&mut cluster);
    cluster.nodes[leader].disk_stuck = true;
    let first = cluster.propose(leader);
    cluster.run_ms(20);
    assert_eq!(cluster.raft(leader).commit(), first);
    assert!(cluster.raft(leader).durable() < first, "committed by the others");
    cluster.nodes[(leader + 1) % 3].disk_stuck = true;
    let second = cluster.propose(leader);
    cluster.run_ms(100);
    assert_eq!(cluster.raft(leader).commit(), first, "one disk of three has the second");
    cluster.nodes[leader].disk_stuck = false;
    cluster.run_ms(20);
    assert_eq!(cluster.raft(leader).commit(), second);
}

/// A commit position beyond what was compared is taken as far as it was compared, and no data that differs is committed.
#[test]
fn s37_a_commit_position_ahead_of_the_data_waits_for_it() {
    let mut solo = Solo::new(Durability::Durable, &[(1, 64), (2, 192)], 2);
    solo.append(PEER, &append(4, (64, 1), (4, 0), 640, 1));
    assert_eq!(solo.raft.commit(), Position(64), "what stands behind may be something else");
    let taken = solo.append(PEER, &append(4, (64, 1), (3, 64), 640, 1));
    assert_eq!(taken, Taken::Data { skip: 0, truncate_to: Some(Position(64)) });
    assert_eq!((solo.raft.commit(), solo.raft.last()), (Position(128), Position(128)));
    solo.append(PEER, &append(4, (128, 3), (4, 512), 640, 1));
    assert_eq!(solo.raft.commit(), Position(640));
}
