//! One replica on the stage: a core, a log in memory and on disk, and a caller that keeps its duties when told to.

use std::collections::VecDeque;

use evershard_consensus::{Config, HardState, Installed, Output, Raft, Restored, SnapshotMark, Taken, TermTable};
use evershard_protocol::limits::{APPEND_SIZE_MAX, RECORD_SIZE_MAX};
use evershard_protocol::peer::{Append, PeerMessage};
use evershard_protocol::{Instant, Membership, NodeId, Position, Term};

pub const MS: u64 = 1_000_000;
/// Every record has this size, so that the record with index i ends at `i * RECORD_SIZE`. It is the largest, so that what
/// may be in flight is a number of records.
pub const RECORD_SIZE: u64 = RECORD_SIZE_MAX as u64;

/// One entry of a log. No two that were ever written have the same tag.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Record {
    pub term: Term,
    pub end: Position,
    pub tag: u64,
    pub membership: Option<Membership>,
}

/// What travels over a link.
#[derive(Clone, Debug)]
pub enum Letter {
    Message(PeerMessage),
    Append(Append, Vec<Record>),
    Snapshot(Term, SnapshotMark),
}

/// Saves and writes end at once, unless they are held: then they wait until they are completed one by one.
pub struct Actor {
    pub config: Config,
    /// None while the process is not running.
    pub raft: Option<Raft>,
    pub out: Output,
    /// Its own clock: nobody else's time passes with it.
    pub now: Instant,
    /// What the log begins with: a snapshot, or nothing.
    pub base: SnapshotMark,
    pub log: Vec<Record>,
    pub disk: Vec<Record>,
    pub hard: HardState,
    pub saves_held: bool,
    pub writes_held: bool,
    /// Its send buffers have no room for data.
    pub full: bool,
    pub saving: Option<HardState>,
    pub writing: VecDeque<Vec<Record>>,
    dirty: bool,
}

impl Actor {
    pub fn new(config: Config, base: SnapshotMark, log: Vec<Record>, term: Term) -> Self {
        let mut actor = Self {
            config,
            raft: None,
            out: Output::new(),
            now: Instant(MS),
            base,
            disk: log.clone(),
            log,
            hard: HardState { term, ..HardState::NEW },
            saves_held: false,
            writes_held: false,
            full: false,
            saving: None,
            writing: VecDeque::new(),
            dirty: false,
        };
        actor.start();
        actor
    }

    pub fn raft(&self) -> &Raft {
        self.raft.as_ref().expect("it runs")
    }

    pub fn raft_mut(&mut self) -> (&mut Raft, &mut Output, Instant) {
        (self.raft.as_mut().expect("it runs"), &mut self.out, self.now)
    }

    /// Begins a life with what is on disk.
    pub fn start(&mut self) {
        assert!(self.raft.is_none(), "it runs already");
        self.log = self.disk.clone();
        let mut terms = TermTable::starting_at(self.base.position, self.base.term);
        for record in &self.log {
            terms.append(record.term, record.end);
        }
        let mut memberships = vec![];
        if !self.base.membership.voters.is_empty() && self.base.position > Position::ZERO {
            memberships.push((self.base.position, self.base.membership));
        }
        memberships.extend(self.log.iter().filter_map(|record| Some((record.end, record.membership?))));
        let (durable, commit) = (terms.last(), self.base.position);
        let restored = Restored { hard: self.hard, terms, memberships, durable, commit };
        self.raft = Some(Raft::new(self.config.clone(), restored, self.now));
    }

    /// Ends without notice, with all that is not on disk.
    pub fn crash(&mut self) {
        self.raft = None;
        self.saving = None;
        self.writing.clear();
        self.dirty = false;
        self.out.messages.clear();
    }

    pub fn pass(&mut self, ns: u64) {
        let end = self.now.after(ns);
        while self.now < end {
            self.now = self.now.after((10 * MS).min(end.since(self.now)));
            let (raft, out, now) = self.raft_mut();
            raft.tick(now, out);
            raft.check_invariants();
        }
    }

    pub fn append_own(&mut self, tag: u64, membership: Option<Membership>) -> Position {
        let (raft, _, _) = self.raft_mut();
        let record = Record { term: raft.term(), end: raft.last().advance(RECORD_SIZE), tag, membership };
        if let Some(membership) = membership {
            raft.on_membership(record.end, membership);
        }
        raft.on_appended(record.term, record.end);
        self.log.push(record);
        self.dirty = true;
        record.end
    }

    pub fn receive(&mut self, from: NodeId, letter: &Letter) {
        let (raft, out, now) = self.raft_mut();
        match letter {
            Letter::Message(message) => raft.on_message(from, message, now, out),
            Letter::Append(append, data) => {
                let taken = raft.on_append(from, append, now, out);
                if let Taken::Data { skip, truncate_to } = taken {
                    self.take(append, data, skip, truncate_to);
                }
            }
            Letter::Snapshot(term, mark) => {
                if raft.install_snapshot(from, *term, mark, now) == Installed::Replaced {
                    self.base = *mark;
                    self.log.clear();
                    self.disk.clear();
                }
            }
        }
        self.raft().check_invariants();
    }

    fn take(&mut self, append: &Append, data: &[Record], skip: u64, truncate_to: Option<Position>) {
        if let Some(to) = truncate_to {
            self.log.retain(|record| record.end <= to);
            self.dirty = true;
        }
        if skip == append.size {
            return;
        }
        let begin = append.previous.advance(skip);
        assert_eq!(self.log.last().map_or(self.base.position, |record| record.end), begin, "cut at a boundary");
        let raft = self.raft.as_mut().expect("it runs");
        for record in data.iter().filter(|record| record.end > begin) {
            if let Some(membership) = record.membership {
                raft.on_membership(record.end, membership);
            }
            self.log.push(*record);
        }
        self.dirty = true;
        raft.on_appended(append.data_term, append.previous.advance(append.size));
    }

    /// Begins what there is to save and to write; ends it at once unless it is held. Whether anything was begun.
    pub fn write(&mut self) -> bool {
        let mut began = false;
        if self.saving.is_none()
            && let Some(hard) = self.raft().hard_state_to_save()
        {
            began = true;
            self.saving = Some(hard);
        }
        if std::mem::take(&mut self.dirty) {
            began = true;
            self.writing.push_back(self.log.clone());
        }
        while !self.saves_held && self.complete_save() {}
        while !self.writes_held && self.complete_write() {}
        began
    }

    /// The save that is under way ends, if there is one.
    pub fn complete_save(&mut self) -> bool {
        let Some(hard) = self.saving.take() else { return false };
        self.hard = hard;
        let (raft, out, _) = self.raft_mut();
        raft.on_hard_state_saved(hard, out);
        true
    }

    /// The oldest write that is under way ends, if there is one.
    pub fn complete_write(&mut self) -> bool {
        let Some(written) = self.writing.pop_front() else { return false };
        if common_len(&written, &self.disk) < written.len() {
            self.disk = written;
        }
        // What the log holds now and the disk has: a write of what was cut since counts for nothing.
        let held = common_len(&self.log, &self.disk);
        let durable = self.log[..held].last().map_or(self.base.position, |record| record.end);
        self.raft_mut().0.on_durable(durable);
        true
    }

    /// Everything it has to say.
    pub fn letters(&mut self) -> Vec<(NodeId, Letter)> {
        let (log, base) = (&self.log, self.base.position);
        let (raft, now) = (self.raft.as_mut().expect("it runs"), self.now);
        let room = if self.full { 0 } else { APPEND_SIZE_MAX as u64 };
        let mut letters = vec![];
        for peer in raft.peers().collect::<Vec<_>>() {
            while let Some(mut append) = raft.plan_append(peer, now, room) {
                let data = records(log, base, &append);
                assert!(append.size == 0 || !data.is_empty(), "every record fits");
                append.size = data.len() as u64 * RECORD_SIZE;
                raft.on_append_sent(peer, &append, now);
                letters.push((peer, Letter::Append(append, data)));
            }
            if raft.wants_snapshot(peer) {
                let mark = mark_at(raft, raft.commit());
                raft.on_snapshot_begun(peer, mark.position);
                letters.push((peer, Letter::Snapshot(raft.term(), mark)));
            }
        }
        while let Some((to, reply)) = raft.take_reply(now) {
            letters.push((to, Letter::Message(PeerMessage::AppendReply(reply))));
        }
        letters.extend(self.out.messages.drain(..).map(|(to, message)| (to, Letter::Message(message))));
        letters
    }

    /// Makes a snapshot at `to` and drops the log before it.
    pub fn trim(&mut self, to: Position) {
        let mark = mark_at(self.raft(), to);
        self.raft_mut().0.on_trimmed(to);
        self.base = mark;
        self.log.retain(|record| record.end > to);
        self.disk.retain(|record| record.end > to);
    }
}

/// A snapshot at this committed position.
fn mark_at(raft: &Raft, position: Position) -> SnapshotMark {
    let term = raft.terms().term_at(position).expect("within the log");
    SnapshotMark { position, term, membership: raft.membership_at(position) }
}

/// The records of an append, as many as it has room for.
fn records(log: &[Record], base: Position, append: &Append) -> Vec<Record> {
    let end = append.previous.advance(append.size);
    let data: Vec<Record> =
        log.iter().filter(|record| record.end > append.previous && record.end <= end).copied().collect();
    assert_eq!(data.len() as u64, append.size / RECORD_SIZE, "none is missing");
    assert!(append.size == 0 || append.previous >= base, "what was dropped is not sent");
    assert!(data.iter().all(|record| record.term == append.data_term), "an append carries data of one term");
    data
}

fn common_len(one: &[Record], other: &[Record]) -> usize {
    one.iter().zip(other).take_while(|(a, b)| a == b).count()
}
