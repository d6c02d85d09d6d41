//! One replica of the model: the core, its log in memory and on disk, and the rest of a duty cycle.

use std::hash::{Hash, Hasher};

use evershard_consensus::{
    Config, Durability, HardState, Output, Raft, Read, Restored, Role, Standing, Taken, TermTable, Timing,
};
use evershard_protocol::peer::{Append, PeerMessage, VoteReply};
use evershard_protocol::time::MILLISECOND_NS;
use evershard_protocol::{Instant, Membership, NodeId, NodeSet, Position, Term};

/// One entry of a log. Two records are the same if term, end and tag are.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Record {
    pub term: Term,
    pub end: Position,
    /// The number of a command; 0 for the records that the core itself asked for.
    pub command: u8,
    pub membership: Option<Membership>,
}

/// What travels between replicas.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Letter {
    Message(PeerMessage),
    Append(Append, Vec<Record>),
}

/// Who a replica is, whatever happens to it.
#[derive(Clone, Debug)]
pub struct Birth {
    pub id: NodeId,
    /// The voters it was born with; nobody for one that joins.
    pub voters: NodeSet,
    pub durability: Durability,
    pub lease_ns: u64,
}

/// See the abstraction in [`crate::world`].
#[derive(Clone, Debug)]
pub struct Replica {
    pub raft: Raft,
    pub log: Vec<Record>,
    pub disk: Vec<Record>,
    pub hard: HardState,
    /// Reads that were begun and are not confirmed, with what had been committed anywhere before.
    pub reads: Vec<(Read, Position)>,
    /// Its own clock; nothing but the replica itself moves it.
    clock: Instant,
    durability: Durability,
}

impl Replica {
    /// A replica that starts with what is on a disk.
    pub fn start(birth: &Birth, disk: Vec<Record>, hard: HardState, clock: Instant) -> Self {
        let mut terms = TermTable::new();
        for record in &disk {
            terms.append(record.term, record.end);
        }
        let config = Config {
            id: birth.id,
            members: birth.voters.iter().collect(),
            durability: birth.durability,
            timing: Timing { lease_ns: birth.lease_ns, stall_ns: NEVER_NS, ..Timing::default() },
            seed: 1,
            inflight_size_max: 1 << 20,
        };
        let memberships = disk.iter().filter_map(|record| Some((record.end, record.membership?))).collect();
        let durable = terms.last();
        let restored = Restored { hard, terms, memberships, durable, commit: Position::ZERO };
        let raft = Raft::new(config, restored, clock);
        Self { raft, log: disk.clone(), disk, hard, reads: vec![], clock, durability: birth.durability }
    }

    /// The same replica after a crash: what was neither saved nor flushed is gone.
    pub fn restart(&self, birth: &Birth) -> Self {
        let mut hard = self.hard;
        if self.durability == Durability::Replicated {
            hard.standing = Standing::Recovering;
        }
        Self::start(birth, self.disk.clone(), hard, self.clock)
    }

    pub fn link_up(&mut self, peer: NodeId, out: &mut Output) {
        self.raft.on_link_up(peer, self.clock, out);
    }

    pub fn link_down(&mut self, peer: NodeId, out: &mut Output) {
        self.raft.on_link_down(peer, self.clock, out);
    }

    /// Every timer runs out: a leader that heard nobody for so long follows, everybody else campaigns. Pre-votes are
    /// granted without being asked for.
    pub fn time_out(&mut self, out: &mut Output) {
        self.clock = self.clock.after(LONG_NS);
        self.raft.tick(self.clock, out);
        if self.raft.role() != Role::PreCandidate {
            return;
        }
        out.messages.clear();
        let (term, id) = (self.raft.term().next(), self.raft.id());
        for peer in self.raft.membership().deciding().without(NodeSet::of(id)).iter() {
            if self.raft.role() == Role::PreCandidate {
                let reply = VoteReply { term, granted: true, pre_vote: true, recovering: false };
                self.raft.on_message(peer, &PeerMessage::VoteReply(reply), self.clock, out);
            }
        }
    }

    /// Heartbeats become due, and nothing else does.
    pub fn beat(&mut self) {
        self.clock = self.clock.after(Timing::default().heartbeat_ns);
    }

    pub fn save(&mut self, out: &mut Output) {
        if let Some(hard) = self.raft.hard_state_to_save() {
            self.hard = hard;
            self.raft.on_hard_state_saved(hard, out);
        }
    }

    pub fn flush(&mut self) {
        self.disk.clone_from(&self.log);
        self.raft.on_durable(self.raft.last());
    }

    pub fn is_flushed(&self) -> bool {
        self.disk == self.log && self.raft.durable() == self.raft.last()
    }

    /// Appends a record of its own, as a leader.
    pub fn append(&mut self, command: u8, membership: Option<Membership>) {
        let end = self.raft.last().advance(RECORD_SIZE);
        self.log.push(Record { term: self.raft.term(), end, command, membership });
        if let Some(membership) = membership {
            self.raft.on_membership(end, membership);
        }
        self.raft.on_appended(self.raft.term(), end);
    }

    pub fn begin_read(&mut self, committed: Position) {
        if let Some(read) = self.raft.begin_read(self.clock) {
            self.reads.push((read, committed));
        }
    }

    pub fn transfer(&mut self, to: NodeId, out: &mut Output) {
        // A refusal changes nothing, so it leads to no other state.
        let _refused = self.raft.transfer(to, self.clock, out);
    }

    pub fn receive(&mut self, from: NodeId, letter: &Letter, patient: bool, out: &mut Output) {
        let (append, data) = match letter {
            Letter::Message(message) => {
                if let PeerMessage::Vote(vote) = message
                    && vote.term > self.raft.term()
                    && patient
                {
                    // Whoever it was loyal to has been silent for long.
                    self.clock = self.clock.after(LONG_NS);
                }
                return self.raft.on_message(from, message, self.clock, out);
            }
            Letter::Append(append, data) => (append, data),
        };
        let Taken::Data { skip, truncate_to } = self.raft.on_append(from, append, self.clock, out) else { return };
        if let Some(to) = truncate_to {
            self.log.retain(|record| record.end <= to);
        }
        if skip == append.size {
            return;
        }
        let begin = append.previous.advance(skip);
        assert_eq!(self.log.last().map_or(Position::ZERO, |record| record.end), begin, "cut at a boundary");
        for record in data.iter().filter(|record| record.end > begin) {
            if let Some(membership) = record.membership {
                self.raft.on_membership(record.end, membership);
            }
            self.log.push(*record);
        }
        self.raft.on_appended(append.data_term, append.previous.advance(append.size));
    }

    /// The rest of a duty cycle: own records, then what is to be said to `listeners` about the log, and all that is
    /// to be said about elections.
    pub fn finish(&mut self, listeners: NodeSet, mut out: Output) -> Vec<(NodeId, Letter)> {
        if self.raft.role() == Role::Leader {
            self.raft.tick(self.clock, &mut out);
        }
        if self.raft.wants_term_start() {
            self.append(0, None);
        } else if let Some(next) = self.raft.wants_membership() {
            self.append(0, Some(next));
        }
        let mut letters: Vec<_> = out.messages.drain(..).map(|(to, message)| (to, Letter::Message(message))).collect();
        for peer in listeners.iter() {
            while let Some(append) = self.raft.plan_append(peer, self.clock, 1 << 20) {
                let end = append.previous.advance(append.size);
                let within = |record: &&Record| record.end > append.previous && record.end <= end;
                let data = self.log.iter().filter(within).copied().collect();
                self.raft.on_append_sent(peer, &append, self.clock);
                letters.push((peer, Letter::Append(append, data)));
            }
        }
        while !listeners.is_empty()
            && let Some((to, reply)) = self.raft.take_reply(self.clock)
        {
            letters.push((to, Letter::Message(PeerMessage::AppendReply(reply))));
        }
        letters
    }

    /// The log up to what this replica holds for committed.
    pub fn committed(&self) -> &[Record] {
        let len = self.log.partition_point(|record| record.end <= self.raft.commit());
        &self.log[..len]
    }
}

impl Hash for Replica {
    /// All but the clock: see the abstraction in [`crate::world`].
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.raft.hash_state(hasher);
        (&self.log, &self.disk, self.hard, &self.reads).hash(hasher);
    }
}

pub const RECORD_SIZE: u64 = 64;
/// Longer than any timer.
const LONG_NS: u64 = 1000 * MILLISECOND_NS;
/// No pause of the model is a stall of the loop.
const NEVER_NS: u64 = 1 << 60;
