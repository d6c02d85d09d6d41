//! One node of the network: a replica, its log in memory and on disk, and the duty cycle that a real node would run.

use evershard_consensus::{HardState, Output, Raft, Taken};
use evershard_protocol::peer::{Append, PeerMessage};
use evershard_protocol::{Instant, Membership, NodeId, Position, Term};

/// One entry of a log. The tag is its payload: no two records ever written have the same.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Record {
    pub term: Term,
    pub end: Position,
    pub tag: u64,
    pub membership: Option<Membership>,
}

/// What travels between nodes.
#[derive(Clone, Debug)]
pub enum Letter {
    Message(PeerMessage),
    Append(Append, Vec<Record>),
}

/// See the fault model in [`crate::network`].
pub struct Node {
    pub id: NodeId,
    /// None while the process is not running.
    pub raft: Option<Raft>,
    pub log: Vec<Record>,
    pub disk: Vec<Record>,
    pub hard: HardState,
    pub paused: bool,
    pub disk_stuck: bool,
    pub save_stuck: bool,
    pub out: Output,
    pub saving: Option<(HardState, Instant)>,
    pub flushing: Option<(Vec<Record>, Instant)>,
    pub dirty: bool,
}

impl Node {
    pub fn receive(&mut self, from: NodeId, letter: Letter, now: Instant) {
        let raft = self.raft.as_mut().expect("the node is running");
        let (append, data) = match letter {
            Letter::Message(message) => return raft.on_message(from, &message, now, &mut self.out),
            Letter::Append(append, data) => (append, data),
        };
        let Taken::Data { skip, truncate_to } = raft.on_append(from, &append, now, &mut self.out) else { return };
        if let Some(to) = truncate_to {
            self.log.retain(|record| record.end <= to);
            self.dirty = true;
        }
        if skip == append.size {
            return;
        }
        let begin = append.previous.advance(skip);
        assert_eq!(self.log.last().map_or(Position::ZERO, |record| record.end), begin, "cut at a boundary");
        for record in data.iter().filter(|record| record.end > begin) {
            if let Some(membership) = record.membership {
                raft.on_membership(record.end, membership);
            }
            self.log.push(*record);
        }
        self.dirty = true;
        raft.on_appended(append.data_term, append.previous.advance(append.size));
    }

    /// Ends the writes whose time has come.
    pub fn complete(&mut self, now: Instant) {
        let raft = self.raft.as_mut().expect("the node is running");
        if let Some((hard, due)) = self.saving
            && due <= now
            && !self.save_stuck
        {
            self.saving = None;
            self.hard = hard;
            raft.on_hard_state_saved(hard, &mut self.out);
        }
        if self.flushing.as_ref().is_some_and(|(_, due)| *due <= now) && !self.disk_stuck {
            let (written, _) = self.flushing.take().expect("just seen");
            if common_len(&written, &self.disk) < written.len() {
                self.disk = written;
            }
            // What the log holds now and the disk has: a write of what was cut since counts for nothing.
            let held = common_len(&self.log, &self.disk);
            raft.on_durable(self.log[..held].last().map_or(Position::ZERO, |record| record.end));
        }
    }

    /// Begins to save and to write the log, unless a save or a write is under way.
    pub fn begin_writes(&mut self, saved_at: Instant, flushed_at: Instant) {
        let raft = self.raft.as_mut().expect("the node is running");
        if self.saving.is_none()
            && let Some(hard) = raft.hard_state_to_save()
        {
            self.saving = Some((hard, saved_at));
        }
        if self.flushing.is_none() && self.dirty {
            self.dirty = false;
            self.flushing = Some((self.log.clone(), flushed_at));
        }
    }

    pub fn write_letters(&mut self, now: Instant, size_max: u64) -> Vec<(NodeId, Letter)> {
        let raft = self.raft.as_mut().expect("the node is running");
        let mut letters = vec![];
        for peer in raft.peers().collect::<Vec<_>>() {
            let mut rounds = 0;
            let mut limit = size_max;
            while let Some(mut append) = raft.plan_append(peer, now, limit) {
                rounds += 1;
                assert!(rounds < 10_000, "planning ends");
                let data = cut_at_record(&self.log, &append);
                let size = data.last().map_or(0, |record| record.end.since(append.previous));
                if append.size > 0 && size == 0 {
                    limit = 0;
                    continue;
                }
                append.size = size;
                raft.on_append_sent(peer, &append, now);
                letters.push((peer, Letter::Append(append, data)));
            }
        }
        while let Some((to, reply)) = raft.take_reply(now) {
            letters.push((to, Letter::Message(PeerMessage::AppendReply(reply))));
        }
        letters.extend(self.out.messages.drain(..).map(|(to, message)| (to, Letter::Message(message))));
        letters
    }
}

/// The records of an append; it must begin where a record does.
fn cut_at_record(log: &[Record], append: &Append) -> Vec<Record> {
    if append.size == 0 {
        return vec![];
    }
    let end = append.previous.advance(append.size);
    let first = log.partition_point(|record| record.end <= append.previous);
    let before = first.checked_sub(1).map_or(Position::ZERO, |index| log[index].end);
    assert_eq!(before, append.previous, "data is sent from a boundary");
    let data: Vec<Record> = log[first..].iter().take_while(|record| record.end <= end).copied().collect();
    assert!(data.iter().all(|record| record.term == append.data_term), "an append carries data of one term");
    data
}

fn common_len(one: &[Record], other: &[Record]) -> usize {
    one.iter().zip(other).take_while(|(a, b)| a == b).count()
}
