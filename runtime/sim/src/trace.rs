//! What happened in a run: folded into one number, and the last of it kept for people.
//!
//! Two runs of one seed have the same hash or the simulator is not deterministic. A line of a trace reads
//! `time node.shard what`; positions are byte offsets in the shard's log.

use std::collections::VecDeque;
use std::fmt;

use crate::clock::Time;
use crate::random::mix;

/// Entries kept.
const KEPT_LEN: usize = 400;

/// One thing that happened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// When.
    pub time: Time,
    /// Where: node, or the number of nodes plus a client.
    pub node: usize,
    /// Which shard.
    pub shard: usize,
    /// What, in words.
    pub what: String,
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, micros) = (self.time / 1_000_000_000, self.time / 1000 % 1_000_000);
        let place = if self.node >= CLIENTS {
            format!("c{}", self.node - CLIENTS)
        } else if self.node == WORLD {
            "--".to_owned()
        } else {
            format!("n{}.s{}", self.node, self.shard)
        };
        write!(f, "{seconds:>4}.{micros:06} {place:<6} {}", self.what)
    }
}

/// The place of entries about clients: this plus the client.
pub const CLIENTS: usize = 1000;
/// The place of entries about the whole.
pub const WORLD: usize = 999;

/// The trace of one run.
#[derive(Default)]
pub struct Trace {
    hash: u64,
    kept: VecDeque<Entry>,
    /// Words are made: costs time.
    pub worded: bool,
    /// Words are printed at once.
    pub printed: bool,
}

impl Trace {
    /// Folds numbers into the hash.
    pub fn fold(&mut self, numbers: &[u64]) {
        for number in numbers {
            self.hash = mix(self.hash.rotate_left(7) ^ *number).wrapping_add(0x9e37_79b9_7f4a_7c15);
        }
    }

    /// Says something, if anybody listens.
    pub fn say(&mut self, time: Time, node: usize, shard: usize, what: impl FnOnce() -> String) {
        if !self.worded {
            return;
        }
        let entry = Entry { time, node, shard, what: what() };
        if self.printed {
            println!("{entry}");
        }
        if self.kept.len() == KEPT_LEN {
            self.kept.pop_front();
        }
        self.kept.push_back(entry);
    }

    /// Everything that happened, as one number.
    #[must_use]
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// The last `len` entries.
    pub fn tail(&self, len: usize) -> impl Iterator<Item = &Entry> {
        self.kept.iter().skip(self.kept.len().saturating_sub(len))
    }
}
