//! One replica, node 1 of five, and messages of peers that are made up: what it says to each.

use evershard_consensus::{Config, Durability, HardState, Output, Raft, Restored, Role, Taken, TermTable, Timing};
use evershard_protocol::peer::{Append, AppendReply, PeerMessage, Vote, VoteReply};
use evershard_protocol::{Instant, NodeId, Position, Term};

use crate::stage::MS;

pub struct Alone {
    pub raft: Raft,
    pub out: Output,
    pub now: Instant,
}

impl Alone {
    /// With a log of records of these terms, each of 64 bytes, and a current term; `members` nodes from 1 on.
    pub fn new(members: u8, terms: &[u64], term: u64) -> Self {
        let mut table = TermTable::new();
        for (index, term) in terms.iter().enumerate() {
            table.append(Term(*term), at(index as u64 + 1));
        }
        let config = Config {
            id: NodeId(1),
            members: (1..=members).map(NodeId).collect(),
            durability: Durability::Durable,
            timing: Timing::default(),
            seed: 5,
            inflight_size_max: 1 << 20,
        };
        let hard = HardState { term: Term(term), ..HardState::NEW };
        let durable = table.last();
        let restored = Restored { hard, terms: table, memberships: vec![], durable, commit: Position::ZERO };
        let now = Instant(MS);
        let mut alone = Self { raft: Raft::new(config, restored, now), out: Output::new(), now };
        for peer in 2..=members {
            alone.raft.on_link_up(NodeId(peer), now, &mut alone.out);
        }
        alone
    }

    pub fn save(&mut self) {
        if let Some(hard) = self.raft.hard_state_to_save() {
            self.raft.on_hard_state_saved(hard, &mut self.out);
        }
    }

    /// What it says so far, after everything that had to be saved was.
    pub fn said(&mut self) -> Vec<(u8, PeerMessage)> {
        self.save();
        self.out.messages.drain(..).map(|(to, message)| (to.0, message)).collect()
    }

    pub fn hear(&mut self, from: u8, message: PeerMessage) -> Vec<(u8, PeerMessage)> {
        self.raft.on_message(NodeId(from), &message, self.now, &mut self.out);
        self.raft.check_invariants();
        self.said()
    }

    /// Takes an append as a caller does: data behind record `previous`, of one term.
    pub fn take(&mut self, from: u8, append: &Append) -> (Taken, Option<AppendReply>) {
        let taken = self.raft.on_append(NodeId(from), append, self.now, &mut self.out);
        if let Taken::Data { skip, .. } = taken {
            let end = append.previous.advance(append.size);
            if skip < append.size {
                self.raft.on_appended(append.data_term, end);
            }
            self.raft.on_durable(self.raft.last());
        }
        self.raft.check_invariants();
        self.save();
        (taken, self.raft.take_reply(self.now).map(|(_, reply)| reply))
    }

    pub fn pass_ms(&mut self, ms: u64) {
        for _ in 0..ms {
            self.now = self.now.after(MS);
            self.raft.tick(self.now, &mut self.out);
        }
    }

    /// How long until its election timer runs out.
    pub fn time_out(&mut self) -> u64 {
        let start = self.now;
        while self.raft.role() == Role::Follower {
            self.pass_ms(1);
        }
        self.now.since(start) / MS
    }

    /// Becomes candidate of the next term: its timer runs out and a quorum would vote for it.
    pub fn stand(&mut self) {
        self.time_out();
        let term = self.raft.term().0 + 1;
        for voter in 2..=3 {
            self.hear(voter, reply(term, true, true));
        }
        assert_eq!((self.raft.role(), self.raft.term()), (Role::Candidate, Term(term)));
    }

    /// Becomes leader of the next term, whose first record is durable at once.
    pub fn lead(&mut self) {
        self.stand();
        let term = self.raft.term().0;
        for voter in 2..=3 {
            self.hear(voter, reply(term, true, false));
        }
        assert!(self.raft.wants_term_start(), "elected");
        self.append();
    }

    /// A record of its own, durable at once.
    pub fn append(&mut self) -> Position {
        let end = self.raft.last().advance(SIZE);
        self.raft.on_appended(self.raft.term(), end);
        self.raft.on_durable(end);
        end
    }

    pub fn send(&mut self, to: u8) -> Option<Append> {
        let append = self.raft.plan_append(NodeId(to), self.now, 1 << 16)?;
        self.raft.on_append_sent(NodeId(to), &append, self.now);
        Some(append)
    }

    /// A peer has everything up to this record on disk.
    pub fn acknowledge(&mut self, from: u8, index: u64, round: u64) {
        let reply = AppendReply {
            term: self.raft.term(),
            received: at(index),
            durable: at(index),
            round,
            rejected: None,
            recovering: false,
            promise_ns: 0,
        };
        self.hear(from, PeerMessage::AppendReply(reply));
    }
}

pub fn at(index: u64) -> Position {
    Position(index * SIZE)
}

/// A candidate of `term` whose log ends with record `last` of `last_term`.
pub fn vote(term: u64, last_term: u64, last: u64) -> PeerMessage {
    let vote = Vote { term: Term(term), last: at(last), last_term: Term(last_term), pre_vote: false, transfer: false };
    PeerMessage::Vote(vote)
}

pub fn reply(term: u64, granted: bool, pre_vote: bool) -> PeerMessage {
    PeerMessage::VoteReply(VoteReply { term: Term(term), granted, pre_vote, recovering: false })
}

/// A leader of `term` sends `len` records of `data_term` behind record `previous` of `previous_term`.
pub fn append(term: u64, (previous, previous_term): (u64, u64), (data_term, len): (u64, u64), commit: u64) -> Append {
    Append {
        term: Term(term),
        previous: at(previous),
        previous_term: Term(previous_term),
        data_term: Term(if len == 0 { previous_term } else { data_term }),
        size: len * SIZE,
        commit: at(commit),
        round: 1,
        confirmed: Position::ZERO,
        vouched: false,
    }
}

pub const SIZE: u64 = 64;
