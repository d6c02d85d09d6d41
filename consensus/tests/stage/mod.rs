//! Replicas that are moved by hand: every message is delivered or lost when the test says so, every write ends when the
//! test says so, and each replica has a clock of its own that only the test moves.
//!
//! Nodes and records are counted from 1; a record's index times [`RECORD_SIZE`] is the position where it ends.
#![allow(dead_code, reason = "every binary that plays on the stage uses a part of it")]

mod actor;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use evershard_consensus::{
    COMMIT_CARRIER_NS, ChangeError, Config, Durability, Raft, Role, SnapshotMark, Timing, TransferError,
};
use evershard_protocol::{Membership, MembershipChange, NodeId, NodeSet, Position, Term};

pub use actor::{Actor, Letter, MS, RECORD_SIZE, Record};

/// How the replicas of a stage begin.
#[derive(Clone, Debug)]
pub struct Plot {
    pub voters: Vec<u8>,
    pub learners: Vec<u8>,
    /// All logs begin with a snapshot of so many records, of term 0.
    pub index: u64,
    /// All know of this term, or of the last one in their log.
    pub term: u64,
    pub durability: Durability,
    pub timing: Timing,
    pub inflight_size_max: u64,
    pub seed: u64,
}

impl Default for Plot {
    fn default() -> Self {
        Self {
            voters: vec![1, 2, 3],
            learners: vec![],
            index: 10,
            term: 0,
            durability: Durability::Durable,
            timing: Timing::default(),
            inflight_size_max: 16 * RECORD_SIZE,
            seed: 1,
        }
    }
}

#[derive(Default)]
pub struct Stage {
    pub actors: BTreeMap<u8, Actor>,
    links: BTreeMap<(u8, u8), VecDeque<Letter>>,
    silent: BTreeSet<(u8, u8)>,
    tag: u64,
}

impl Stage {
    /// The replicas 1 to `len`, in step.
    pub fn new(len: u8, plot: &Plot) -> Self {
        let mut stage = Self::default();
        for id in 1..=len {
            stage.enter(id, plot, &[]);
        }
        stage
    }

    /// A replica comes, with records of these terms behind the snapshot; equal beginnings are equal records.
    pub fn enter(&mut self, id: u8, plot: &Plot, terms: &[u64]) {
        let position = at(plot.index);
        let membership = Membership { voters: set(&plot.voters), learners: set(&plot.learners), ..Default::default() };
        let record = |(offset, term): (usize, &u64)| {
            let offset = offset as u64;
            Record { term: Term(*term), end: at(plot.index + offset + 1), tag: term * 1000 + offset, membership: None }
        };
        let config = Config {
            id: NodeId(id),
            members: plot.voters.iter().map(|id| NodeId(*id)).collect(),
            durability: plot.durability,
            timing: plot.timing,
            seed: plot.seed,
            inflight_size_max: plot.inflight_size_max,
        };
        let base = SnapshotMark { position, term: Term(0), membership };
        let log = terms.iter().enumerate().map(record).collect();
        let term = Term(terms.last().copied().unwrap_or(0).max(plot.term));
        self.actors.insert(id, Actor::new(config, base, log, term));
        self.tag = self.tag.max(1_000_000);
        for other in self.ids() {
            self.link(id, other);
        }
    }

    pub fn ids(&self) -> Vec<u8> {
        self.actors.keys().copied().collect()
    }

    pub fn actor(&mut self, id: u8) -> &mut Actor {
        self.actors.get_mut(&id).unwrap_or_else(|| panic!("there is no node {id}"))
    }

    pub fn raft(&self, id: u8) -> &Raft {
        self.actors.get(&id).unwrap_or_else(|| panic!("there is no node {id}")).raft()
    }

    pub fn role(&self, id: u8) -> Role {
        self.raft(id).role()
    }

    /// The index up to which it knows the log to be committed.
    pub fn commit(&self, id: u8) -> u64 {
        self.raft(id).commit().0 / RECORD_SIZE
    }

    /// The index of its last record.
    pub fn last(&self, id: u8) -> u64 {
        self.raft(id).last().0 / RECORD_SIZE
    }

    pub fn term(&self, id: u8) -> u64 {
        self.raft(id).term().0
    }

    pub fn leader_of(&self, id: u8) -> Option<u8> {
        self.raft(id).leader().map(|leader| leader.0)
    }

    // Time, of one replica only.

    pub fn pass_ms(&mut self, id: u8, ms: u64) {
        self.actor(id).pass(ms * MS);
    }

    /// As long as a follower stays loyal to a leader it does not hear.
    pub fn rest(&mut self, id: u8) {
        let ns = self.actor(id).config.timing.election_min_ns;
        self.actor(id).pass(ns);
    }

    /// Long enough for a heartbeat to be due.
    pub fn heartbeat(&mut self, id: u8) {
        let ns = self.actor(id).config.timing.heartbeat_ns;
        self.actor(id).pass(ns);
    }

    /// Longer than any replica waits for anything.
    pub fn patience(&mut self, id: u8) {
        let ns = self.actor(id).config.timing.election_max_ns;
        self.actor(id).pass(ns);
    }

    /// Lets time pass until its election timer runs out; `false` if it does not.
    pub fn campaign(&mut self, id: u8) -> bool {
        for _ in 0..100 {
            let (term, role) = (self.term(id), self.role(id));
            let asked = self.actor(id).out.messages.len();
            self.pass_ms(id, 10);
            let changed = self.role(id) != role && self.role(id) != Role::Follower;
            if changed || self.term(id) > term || self.actor(id).out.messages.len() > asked {
                return true;
            }
        }
        false
    }

    // What callers do.

    pub fn propose(&mut self, id: u8) -> u64 {
        assert!(self.raft(id).admits(), "{id} admits no commands");
        self.append(id, None)
    }

    pub fn change(&mut self, id: u8, change: &MembershipChange) -> Result<u64, ChangeError> {
        let next = self.raft(id).plan_membership(change)?;
        Ok(self.append(id, Some(next)))
    }

    pub fn transfer(&mut self, from: u8, to: u8) -> Result<(), TransferError> {
        let (raft, out, now) = self.actor(from).raft_mut();
        raft.transfer(NodeId(to), now, out)
    }

    fn append(&mut self, id: u8, membership: Option<Membership>) -> u64 {
        self.tag += 1;
        let tag = self.tag;
        self.actor(id).append_own(tag, membership).0 / RECORD_SIZE
    }

    /// One duty cycle: time is looked at, own records are written, and what there is to say goes out. How many letters
    /// that were.
    pub fn process(&mut self, id: u8) -> usize {
        let (raft, out, now) = self.actor(id).raft_mut();
        raft.tick(now, out);
        loop {
            let began = self.actor(id).write();
            if self.raft(id).wants_term_start() {
                self.append(id, None);
            } else if let Some(next) = self.raft(id).wants_membership() {
                self.append(id, Some(next));
            } else if !began {
                break;
            }
        }
        let letters = self.actor(id).letters();
        let len = letters.len();
        for (to, letter) in letters {
            let link = (id, to.0);
            if self.links.contains_key(&link) && !self.silent.contains(&link) {
                self.links.entry(link).or_default().push_back(letter);
            }
        }
        len
    }

    // Links.

    /// The oldest letter arrives; `false` if there is none.
    pub fn deliver(&mut self, from: u8, to: u8) -> bool {
        let Some(letter) = self.links.get_mut(&(from, to)).and_then(VecDeque::pop_front) else { return false };
        if self.actor(to).raft.is_some() {
            self.actor(to).receive(NodeId(from), &letter);
        }
        true
    }

    pub fn deliver_all(&mut self, from: u8, to: u8) -> usize {
        let mut len = 0;
        while self.deliver(from, to) {
            len += 1;
        }
        len
    }

    /// All letters under way are lost, and nobody is told.
    pub fn lose(&mut self, from: u8, to: u8) {
        if let Some(letters) = self.links.get_mut(&(from, to)) {
            letters.clear();
        }
    }

    /// Letters under way.
    pub fn letters(&self, from: u8, to: u8) -> Vec<Letter> {
        self.links.get(&(from, to)).map(|letters| letters.iter().cloned().collect()).unwrap_or_default()
    }

    /// From now on letters are lost in this direction.
    pub fn silence(&mut self, from: u8, to: u8) {
        self.silent.insert((from, to));
        self.lose(from, to);
    }

    pub fn isolate(&mut self, id: u8) {
        for other in self.ids() {
            self.silence(id, other);
            self.silence(other, id);
        }
    }

    pub fn hear_again(&mut self) {
        self.silent.clear();
    }

    /// Both ends see a new link.
    pub fn link(&mut self, a: u8, b: u8) {
        if a == b || self.actor(a).raft.is_none() || self.actor(b).raft.is_none() {
            return;
        }
        for (here, there) in [(a, b), (b, a)] {
            self.links.insert((here, there), VecDeque::new());
            let (raft, out, now) = self.actor(here).raft_mut();
            raft.on_link_up(NodeId(there), now, out);
        }
    }

    /// Both ends see that the link is gone.
    pub fn unlink(&mut self, a: u8, b: u8) {
        for (here, there) in [(a, b), (b, a)] {
            if self.links.remove(&(here, there)).is_some() && self.actor(here).raft.is_some() {
                let (raft, out, now) = self.actor(here).raft_mut();
                raft.on_link_down(NodeId(there), now, out);
            }
        }
    }

    /// The process is gone with all that is not on disk; its links close.
    pub fn crash(&mut self, id: u8) {
        self.actor(id).crash();
        for other in self.ids() {
            self.unlink(id, other);
        }
    }

    pub fn restart(&mut self, id: u8) {
        self.actor(id).start();
        for other in self.ids() {
            self.link(id, other);
        }
    }

    /// Runs these replicas, and delivers what is meant for them, until they have nothing to say for a while.
    pub fn stabilize(&mut self, ids: &[u8]) {
        let mut rested = false;
        for _ in 0..1000 {
            let mut active = 0;
            for &id in ids.iter().filter(|id| self.actors[id].raft.is_some()).collect::<Vec<_>>() {
                active += self.process(id);
            }
            for &to in ids {
                for from in self.ids() {
                    active += self.deliver_all(from, to);
                }
            }
            if active > 0 {
                rested = false;
                continue;
            }
            if rested {
                return;
            }
            rested = true;
            for &id in ids.iter().filter(|id| self.actors[id].raft.is_some()).collect::<Vec<_>>() {
                // As long as a commit position waits for an append to ride on.
                self.actor(id).pass(COMMIT_CARRIER_NS);
            }
        }
        panic!("{ids:?} never come to rest");
    }

    pub fn stabilize_all(&mut self) {
        let ids = self.ids();
        self.stabilize(&ids);
    }

    /// Makes a replica leader with the consent of all.
    pub fn elect(&mut self, id: u8) {
        assert!(self.campaign(id), "{id} does not campaign");
        self.stabilize_all();
        assert_eq!(self.role(id), Role::Leader, "{id} was to lead");
    }
}

/// Where the record with this index ends.
pub fn at(index: u64) -> Position {
    Position(index * RECORD_SIZE)
}

pub fn set(ids: &[u8]) -> NodeSet {
    ids.iter().map(|id| NodeId(*id)).collect()
}
