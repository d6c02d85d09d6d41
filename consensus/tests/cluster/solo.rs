//! One replica and the messages of peers that do not exist: what it says, and what it must not say yet.

use evershard_consensus::{
    Config, Durability, HardState, Output, Raft, Restored, Role, Standing, Taken, TermTable, Timing,
};
use evershard_protocol::peer::{Append, AppendReply, Hint, PeerMessage, TimeoutNow, Vote, VoteReply};
use evershard_protocol::{Instant, NodeId, Position, Term};

use crate::network::MS;

pub const PEER: NodeId = NodeId(1);
pub const THIRD: NodeId = NodeId(2);

/// Node 0 of 3. Saves take as long as the scenario wants.
pub struct Solo {
    pub raft: Raft,
    pub out: Output,
    pub now: Instant,
}

impl Solo {
    pub fn new(durability: Durability, terms: &[(u64, u64)], term: u64) -> Self {
        let mut table = TermTable::new();
        for &(term, end) in terms {
            table.append(Term(term), Position(end));
        }
        Self::restored(durability, table, HardState { term: Term(term), ..HardState::NEW })
    }

    pub fn restored(durability: Durability, terms: TermTable, hard: HardState) -> Self {
        let config = Config {
            id: NodeId(0),
            members: vec![NodeId(0), PEER, THIRD],
            durability,
            timing: Timing::default(),
            seed: 7,
            inflight_size_max: 1 << 20,
        };
        let durable = terms.last();
        let restored = Restored { hard, terms, durable, commit: Position(0) };
        let now = Instant(MS);
        let mut solo = Self { raft: Raft::new(config, restored, now), out: Output::new(), now };
        solo.raft.on_link_up(PEER, now, &mut solo.out);
        solo.raft.on_link_up(THIRD, now, &mut solo.out);
        solo
    }

    pub fn save(&mut self) {
        if let Some(hard) = self.raft.hard_state_to_save() {
            self.raft.on_hard_state_saved(hard, &mut self.out);
        }
    }

    pub fn said(&mut self) -> Vec<(NodeId, PeerMessage)> {
        self.out.messages.drain(..).collect()
    }

    pub fn hear(&mut self, from: NodeId, message: PeerMessage) -> Vec<(NodeId, PeerMessage)> {
        self.raft.on_message(from, &message, self.now, &mut self.out);
        self.raft.check_invariants();
        self.said()
    }

    /// Takes an append as a caller does: cut, append, report.
    pub fn append(&mut self, from: NodeId, append: &Append) -> Taken {
        let taken = self.raft.on_append(from, append, self.now, &mut self.out);
        if let Taken::Data { skip, .. } = taken
            && skip < append.size
        {
            self.raft.on_appended(append.data_term, append.previous.advance(append.size));
        }
        self.raft.check_invariants();
        taken
    }

    pub fn reply(&mut self) -> Option<AppendReply> {
        let reply = self.raft.take_reply(self.now)?;
        assert_eq!(reply.0, PEER);
        Some(reply.1)
    }

    /// Ticks until the timer is out.
    pub fn time_out(&mut self) {
        while self.raft.role() == Role::Follower {
            self.now = self.now.after(10 * MS);
            self.raft.tick(self.now, &mut self.out);
        }
    }

    /// Becomes leader with the vote of `PEER`.
    pub fn lead(&mut self) {
        self.time_out();
        let term = self.raft.term().next();
        self.hear(PEER, grant(term.0, true));
        self.save();
        self.hear(PEER, grant(term.0, false));
        assert!(self.raft.wants_term_start());
    }
}

pub fn vote(term: u64, last_term: u64, last: u64) -> Vote {
    Vote { term: Term(term), last: Position(last), last_term: Term(last_term), pre_vote: false, transfer: false }
}

fn grant(term: u64, pre_vote: bool) -> PeerMessage {
    PeerMessage::VoteReply(VoteReply { term: Term(term), granted: true, pre_vote, recovering: false })
}

fn refusal(term: u64, pre_vote: bool) -> PeerMessage {
    PeerMessage::VoteReply(VoteReply { term: Term(term), granted: false, pre_vote, recovering: false })
}

/// An append of (term, (previous, its term), (data term, size), commit, round).
pub fn append(term: u64, previous: (u64, u64), data: (u64, u64), commit: u64, round: u64) -> Append {
    Append {
        term: Term(term),
        previous: Position(previous.0),
        previous_term: Term(previous.1),
        data_term: Term(data.0),
        size: data.1,
        commit: Position(commit),
        round,
    }
}

fn acknowledge(term: u64, received: u64, durable: u64, round: u64) -> PeerMessage {
    PeerMessage::AppendReply(AppendReply {
        term: Term(term),
        received: Position(received),
        durable: Position(durable),
        round,
        rejected: None,
        recovering: false,
    })
}

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

#[test]
fn records_may_outlive_the_term_they_came_with() {
    let mut solo = Solo::new(Durability::Durable, &[(3, 64)], 2);
    assert_eq!(solo.raft.term(), Term(3));
    assert_eq!(solo.raft.hard_state_to_save().map(|hard| hard.term), Some(Term(3)));
    solo.save();
    assert_eq!(solo.hear(PEER, PeerMessage::Vote(vote(3, 2, 999))), [(PEER, refusal(3, false))]);
}
