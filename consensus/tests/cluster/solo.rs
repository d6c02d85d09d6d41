//! One replica and the messages of peers that do not exist: what it says, and what it must not say yet.

use evershard_consensus::{Config, Durability, HardState, Output, Raft, Restored, Role, Taken, TermTable, Timing};
use evershard_protocol::peer::{Append, AppendReply, PeerMessage, Vote, VoteReply};
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
        let restored = Restored { hard, terms, memberships: vec![], durable, commit: Position(0) };
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

pub fn grant(term: u64, pre_vote: bool) -> PeerMessage {
    PeerMessage::VoteReply(VoteReply { term: Term(term), granted: true, pre_vote, recovering: false })
}

pub fn refusal(term: u64, pre_vote: bool) -> PeerMessage {
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
        confirmed: Position::ZERO,
        vouched: false,
    }
}

pub fn acknowledge(term: u64, received: u64, durable: u64, round: u64) -> PeerMessage {
    PeerMessage::AppendReply(AppendReply {
        term: Term(term),
        received: Position(received),
        durable: Position(durable),
        round,
        rejected: None,
        recovering: false,
        promise_ns: 0,
    })
}
