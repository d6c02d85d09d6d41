//! A network of replicas in one thread, with one clock.
//!
//! Fault model. A link keeps order and may be slow; it may lose letters in one direction without anyone noticing
//! (`cut`, `loss`), it may be reported down and up again, and in `unruly` networks letters of one link even overtake
//! each other and arrive twice. A disk ends one write at a time, later than asked; a crash loses what was not written,
//! and brings back what was cut from the log but not yet overwritten on disk. A crash may be noticed by the peers at
//! once (a killed process) or not at all (a lost host). A paused node does nothing while its letters pile up.

use std::collections::VecDeque;

use evershard_consensus::{
    ChangeError, Config, Durability, HardState, Output, Raft, Read, Restored, Role, Standing, TermTable, Timing,
};
use evershard_protocol::peer::PeerMessage;
use evershard_protocol::{Instant, Membership, MembershipChange, NodeId, Position, Term};

use crate::node::{Letter, Node, Record};
use crate::oracle::Oracle;

pub const MS: u64 = 1_000_000;

/// How a network is made; the fields that most scenarios leave alone.
#[derive(Clone, Debug)]
pub struct Setup {
    pub durability: Durability,
    pub timing: Timing,
    pub seed: u64,
    pub inflight_size_max: u64,
    pub append_size_max: u64,
    pub record_size: u64,
    pub step_ns: u64,
    pub save_ns: u64,
    pub flush_ns: u64,
    pub delay_ns: u64,
    /// In a thousand: letters lost, and whether a link's letters overtake each other and arrive twice.
    pub loss: u64,
    pub unruly: bool,
    /// In a thousand: duty cycles in which a node's send buffers have no room for data.
    pub full: u64,
    /// So many nodes are voters from the start, the others join; all if not given.
    pub voters: Option<usize>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            durability: Durability::Durable,
            timing: Timing::default(),
            seed: 1,
            inflight_size_max: 1 << 20,
            append_size_max: 256 * 1024,
            record_size: 64,
            step_ns: MS,
            save_ns: MS,
            flush_ns: MS,
            delay_ns: 0,
            loss: 0,
            unruly: false,
            full: 0,
            voters: None,
        }
    }
}

/// Letters that nodes wanted to send, to see who disturbs whom and what a command costs.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Counts {
    pub votes: u64,
    pub data: u64,
    pub empty: u64,
    pub replies: u64,
    pub rejections: u64,
}

impl Counts {
    fn add(&mut self, letter: &Letter) {
        match letter {
            Letter::Append(append, _) if append.size > 0 => self.data += 1,
            Letter::Append(..) => self.empty += 1,
            Letter::Message(PeerMessage::AppendReply(reply)) => {
                self.replies += 1;
                self.rejections += u64::from(reply.rejected.is_some());
            }
            Letter::Message(PeerMessage::Vote(_)) => self.votes += 1,
            Letter::Message(_) => {}
        }
    }
}

pub struct Cluster {
    pub setup: Setup,
    pub now: Instant,
    pub nodes: Vec<Node>,
    pub oracle: Oracle,
    /// Letters lost without notice, from and to.
    pub cut: Vec<Vec<bool>>,
    connected: Vec<Vec<bool>>,
    letters: Vec<Vec<VecDeque<(Instant, Letter)>>>,
    pub counts: Counts,
    tag: u64,
    dice: u64,
    reads: Vec<(usize, Read, Position)>,
    confirmed: usize,
}

impl Cluster {
    pub fn new(len: usize, setup: Setup) -> Self {
        Self::with_logs(&vec![vec![]; len], setup)
    }

    /// Nodes whose logs hold records of these terms; equal beginnings are equal records.
    pub fn with_logs(logs: &[Vec<u64>], setup: Setup) -> Self {
        let len = logs.len();
        let mut cluster = Self {
            now: Instant(MS),
            nodes: vec![],
            oracle: Oracle::new(len, setup.voters.unwrap_or(len), setup.durability),
            cut: vec![vec![false; len]; len],
            connected: vec![vec![false; len]; len],
            letters: vec![vec![VecDeque::new(); len]; len],
            counts: Counts::default(),
            tag: 1_000_000,
            reads: vec![],
            confirmed: 0,
            dice: setup.seed,
            setup,
        };
        // Whoever wrote the latest of these terms was elected by nodes that remember it.
        let term = Term(logs.iter().filter_map(|terms| terms.last().copied()).max().unwrap_or(0));
        for (index, terms) in logs.iter().enumerate() {
            let size = cluster.setup.record_size;
            let record = |(at, &term): (usize, &u64)| {
                let end = Position((at as u64 + 1) * size);
                Record { term: Term(term), end, tag: term * 10_000 + at as u64, membership: None }
            };
            let log: Vec<Record> = terms.iter().enumerate().map(record).collect();
            cluster.nodes.push(Node {
                id: NodeId(u8::try_from(index).expect("few nodes")),
                raft: None,
                disk: log.clone(),
                log,
                hard: HardState { term, vote: None, standing: Standing::Sound },
                paused: false,
                disk_stuck: false,
                save_stuck: false,
                out: Output::new(),
                saving: None,
                flushing: None,
                dirty: false,
            });
        }
        for index in 0..len {
            cluster.restart(index);
        }
        cluster
    }

    pub fn raft(&self, index: usize) -> &Raft {
        self.nodes[index].raft.as_ref().expect("the node is running")
    }

    /// The running leader of the highest term.
    pub fn leader(&self) -> Option<usize> {
        let running = self.nodes.iter().filter_map(|node| node.raft.as_ref());
        let leaders = running.filter(|raft| raft.role() == Role::Leader);
        leaders.max_by_key(|raft| raft.term()).map(|raft| usize::from(raft.id().0))
    }

    pub fn run_ms(&mut self, ms: u64) {
        let end = self.now.after(ms * MS);
        while self.now < end {
            self.step();
        }
    }

    /// Runs until the condition holds; says whether it did within the time, and how long it took.
    pub fn run_until(&mut self, ms: u64, condition: impl Fn(&Self) -> bool) -> Option<u64> {
        let start = self.now;
        while self.now.since(start) < ms * MS {
            if condition(self) {
                return Some(self.now.since(start) / MS);
            }
            self.step();
        }
        condition(self).then_some(ms)
    }

    /// Runs until a leader admits commands, and returns it.
    pub fn elect(&mut self) -> usize {
        let admitted =
            self.run_until(3000, |cluster| cluster.leader().is_some_and(|leader| cluster.raft(leader).admits()));
        assert!(admitted.is_some(), "nobody was elected");
        self.leader().expect("just seen")
    }

    pub fn step(&mut self) {
        self.now = self.now.after(self.setup.step_ns);
        for index in 0..self.nodes.len() {
            if self.nodes[index].raft.is_some() && !self.nodes[index].paused {
                self.deliver(index);
                let now = self.now;
                self.nodes[index].complete(now);
                self.advance(index);
            }
        }
        self.check_reads();
        self.oracle.check(&self.nodes);
    }

    /// A record of the leader's term; the node must admit.
    pub fn propose(&mut self, index: usize) -> Position {
        let size = self.setup.record_size;
        self.propose_sized(index, size)
    }

    pub fn propose_sized(&mut self, index: usize, size: u64) -> Position {
        assert!(self.raft(index).admits(), "the node does not admit commands");
        self.append_own(index, size, None)
    }

    /// The process is gone, with all that is not on disk. If `noticed`, its links close at once.
    pub fn crash(&mut self, index: usize, noticed: bool) {
        let node = &mut self.nodes[index];
        node.raft = None;
        node.saving = None;
        node.flushing = None;
        node.log = node.disk.clone();
        if self.setup.durability == Durability::Replicated {
            node.hard.standing = Standing::Recovering;
        }
        for peer in 0..self.nodes.len() {
            self.letters[index][peer].clear();
            self.letters[peer][index].clear();
            if noticed {
                self.disconnect(index, peer);
            }
        }
    }

    /// Stops after everything has been written.
    pub fn stop(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        node.disk = node.log.clone();
        let standing = node.hard.standing;
        self.crash(index, true);
        self.nodes[index].hard.standing = standing;
    }

    pub fn restart(&mut self, index: usize) {
        assert!(self.nodes[index].raft.is_none(), "it is running");
        let setup = &self.setup;
        let voters = 0..u8::try_from(setup.voters.unwrap_or(self.cut.len())).expect("few nodes");
        let joins = usize::from(self.nodes[index].id.0) >= usize::from(voters.end);
        let node = &mut self.nodes[index];
        let mut terms = TermTable::new();
        for record in &node.log {
            terms.append(record.term, record.end);
        }
        let config = Config {
            id: node.id,
            members: if joins { vec![] } else { voters.map(NodeId).collect() },
            durability: setup.durability,
            timing: setup.timing,
            seed: setup.seed,
            inflight_size_max: setup.inflight_size_max,
        };
        let durable = terms.last();
        let memberships = node.log.iter().filter_map(|record| Some((record.end, record.membership?))).collect();
        let restored = Restored { hard: node.hard, terms, memberships, durable, commit: Position::ZERO };
        node.raft = Some(Raft::new(config, restored, self.now));
        node.paused = false;
        node.out.messages.clear();
        node.dirty = false;
        self.oracle.on_restart(index);
        for peer in 0..self.nodes.len() {
            self.disconnect(index, peer);
            self.connect(index, peer);
        }
    }

    pub fn connect(&mut self, a: usize, b: usize) {
        if a == b || self.connected[a][b] || self.nodes[a].raft.is_none() || self.nodes[b].raft.is_none() {
            return;
        }
        self.set_link(a, b, true);
    }

    pub fn disconnect(&mut self, a: usize, b: usize) {
        if a != b && self.connected[a][b] {
            self.set_link(a, b, false);
        }
    }

    /// Silence in both directions between two groups, and nobody is told.
    pub fn part(&mut self, one: &[usize], other: &[usize]) {
        for &a in one {
            for &b in other {
                self.cut[a][b] = true;
                self.cut[b][a] = true;
            }
        }
    }

    /// Every letter arrives again and in order, and every running pair has a link.
    pub fn heal(&mut self) {
        self.setup.loss = 0;
        self.setup.full = 0;
        self.setup.unruly = false;
        for a in 0..self.nodes.len() {
            self.nodes[a].paused = false;
            self.nodes[a].disk_stuck = false;
            self.nodes[a].save_stuck = false;
            for b in 0..self.nodes.len() {
                self.cut[a][b] = false;
                self.connect(a, b);
            }
        }
    }

    /// The same log everywhere, all of it committed everywhere.
    pub fn has_converged(&self) -> bool {
        let Some(leader) = self.leader().filter(|leader| self.raft(*leader).admits()) else { return false };
        let members = self.raft(leader).membership();
        let same = |node: &Node| {
            let raft = node.raft.as_ref();
            raft.is_some_and(|raft| raft.commit() == raft.last()) && node.log == self.nodes[leader].log
        };
        let belongs = |node: &&Node| members.everybody().contains(node.id);
        !members.is_joint() && self.nodes.iter().filter(belongs).all(same)
    }

    /// A number below `bound`, from the network's own seed.
    pub fn roll(&mut self, bound: u64) -> u64 {
        self.dice = self.dice.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.dice;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (word ^ (word >> 31)) % bound
    }

    /// Every node in a line.
    pub fn describe(&self) -> String {
        let lines = self.nodes.iter().filter_map(|node| {
            let raft = node.raft.as_ref()?;
            let (role, term, standing) = (raft.role(), raft.term(), raft.standing());
            let (last, last_term, commit) = (raft.last(), raft.last_term(), raft.commit());
            Some(format!(
                "\n{:?}: {role:?} {term:?} {standing:?} last {last:?}/{last_term:?} commit {commit:?} {} at {:?}",
                node.id,
                raft.membership(),
                raft.membership_position()
            ))
        });
        lines.collect()
    }

    /// Moves leadership, as an operator would ask.
    pub fn transfer(&mut self, from: usize, to: u8) -> Result<(), evershard_consensus::TransferError> {
        let node = &mut self.nodes[from];
        node.raft.as_mut().expect("the node is running").transfer(NodeId(to), self.now, &mut node.out)
    }

    fn set_link(&mut self, a: usize, b: usize, up: bool) {
        for (here, there) in [(a, b), (b, a)] {
            self.connected[here][there] = up;
            self.letters[here][there].clear();
            let node = &mut self.nodes[here];
            let peer = NodeId(u8::try_from(there).expect("few nodes"));
            let Some(raft) = node.raft.as_mut() else { continue };
            if up {
                raft.on_link_up(peer, self.now, &mut node.out);
            } else {
                raft.on_link_down(peer, self.now, &mut node.out);
            }
        }
    }

    fn append_own(&mut self, index: usize, size: u64, membership: Option<Membership>) -> Position {
        self.tag += 1;
        let node = &mut self.nodes[index];
        let raft = node.raft.as_mut().expect("the node is running");
        let record = Record { term: raft.term(), end: raft.last().advance(size), tag: self.tag, membership };
        node.log.push(record);
        node.dirty = true;
        if let Some(membership) = membership {
            raft.on_membership(record.end, membership);
        }
        raft.on_appended(record.term, record.end);
        record.end
    }

    /// Changes the configuration, as an operator would ask the leader.
    pub fn change(&mut self, leader: usize, change: &MembershipChange) -> Result<Position, ChangeError> {
        let next = self.raft(leader).plan_membership(change)?;
        let size = self.setup.record_size;
        Ok(self.append_own(leader, size, Some(next)))
    }

    /// Begins a read; the oracle watches that it is not stale.
    pub fn begin_read(&mut self, index: usize) -> bool {
        let raft = self.nodes[index].raft.as_mut().expect("the node is running");
        let Some(read) = raft.begin_read(self.now) else { return false };
        let committed = self.oracle.committed_end();
        self.reads.push((index, read, committed));
        true
    }

    /// Reads that were confirmed since this was last asked.
    pub fn take_confirmed(&mut self) -> usize {
        std::mem::take(&mut self.confirmed)
    }

    fn check_reads(&mut self) {
        let Self { reads, nodes, confirmed, .. } = self;
        reads.retain(|(index, read, committed)| {
            let Some(raft) = nodes[*index].raft.as_ref().filter(|_| !nodes[*index].paused) else { return false };
            if raft.is_confirmed(read) {
                assert!(read.position >= *committed, "stale read at node {index}: {read:?}, {committed} was committed");
                *confirmed += 1;
                return false;
            }
            raft.is_pending(read)
        });
    }

    fn deliver(&mut self, index: usize) {
        for from in 0..self.nodes.len() {
            while self.letters[from][index].front().is_some_and(|(due, _)| *due <= self.now) {
                let (_, letter) = self.letters[from][index].pop_front().expect("just seen");
                self.nodes[index].receive(NodeId(u8::try_from(from).expect("few nodes")), letter, self.now);
            }
        }
    }

    /// The rest of a duty cycle: time, own records, new writes, letters.
    fn advance(&mut self, index: usize) {
        let now = self.now;
        let node = &mut self.nodes[index];
        let raft = node.raft.as_mut().expect("the node is running");
        raft.tick(now, &mut node.out);
        if raft.wants_term_start() {
            self.append_own(index, self.setup.record_size, None);
        } else if let Some(next) = raft.wants_membership() {
            self.append_own(index, self.setup.record_size, Some(next));
        }
        self.nodes[index].begin_writes(now.after(self.setup.save_ns), now.after(self.setup.flush_ns));
        let full = self.setup.full > 0 && self.roll(1000) < self.setup.full;
        let room = if full { 0 } else { self.setup.append_size_max };
        for (to, letter) in self.nodes[index].write_letters(now, room) {
            self.post(index, usize::from(to.0), letter);
        }
    }

    fn post(&mut self, from: usize, to: usize, letter: Letter) {
        self.counts.add(&letter);
        let lost = self.setup.loss > 0 && self.roll(1000) < self.setup.loss;
        if !self.connected[from][to] || self.cut[from][to] || lost || self.nodes[to].raft.is_none() {
            return;
        }
        let late = if self.setup.delay_ns > 0 { self.roll(self.setup.delay_ns) } else { 0 };
        let due = self.now.after(late);
        if !self.setup.unruly {
            self.letters[from][to].push_back((due, letter));
            return;
        }
        for _ in 0..1 + self.roll(8) / 7 {
            let queue_len = self.letters[from][to].len() as u64;
            let at = queue_len - self.roll(queue_len.min(3) + 1);
            self.letters[from][to].insert(usize::try_from(at).expect("short"), (due, letter.clone()));
        }
    }
}
