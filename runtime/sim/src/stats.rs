//! How much of everything happened in a run, and in many.

use std::collections::BTreeMap;

/// Counts of one run or of many.
#[derive(Clone, Default, Debug)]
pub struct Stats {
    /// Runs.
    pub runs: u64,
    /// Time of the runs themselves, in nanoseconds.
    pub virtual_ns: u64,
    /// Events.
    pub events: u64,
    /// Turns of shards.
    pub turns: u64,
    /// Replies that clients were given.
    pub replies: u64,
    /// Answers to questions.
    pub answers: u64,
    /// Commands that took effect.
    pub commands: u64,
    /// Terms that had a leader.
    pub elections: u64,
    /// Processes started.
    pub starts: u64,
    /// Sessions that clients had.
    pub sessions: u64,
    /// Snapshots that replicas took of themselves.
    pub snapshots_taken: u64,
    /// Snapshots that replicas took over from another one.
    pub snapshots_moved: u64,
    /// Bytes committed.
    pub bytes: u64,
    /// Faults that were done, by kind.
    pub faults: BTreeMap<&'static str, u64>,
    /// Faults left out because the budget did not allow them.
    pub spared: u64,
}

impl Stats {
    /// Adds another run's counts.
    pub fn add(&mut self, other: &Self) {
        self.runs += other.runs;
        self.virtual_ns += other.virtual_ns;
        self.events += other.events;
        self.turns += other.turns;
        self.replies += other.replies;
        self.answers += other.answers;
        self.commands += other.commands;
        self.elections += other.elections;
        self.starts += other.starts;
        self.sessions += other.sessions;
        self.snapshots_taken += other.snapshots_taken;
        self.snapshots_moved += other.snapshots_moved;
        self.bytes += other.bytes;
        self.spared += other.spared;
        for (kind, count) in &other.faults {
            *self.faults.entry(kind).or_default() += count;
        }
    }
}
