//! What has happened in a run of the model, and what must never have happened.

use std::collections::BTreeMap;

use evershard_consensus::{Durability, Role};
use evershard_protocol::{Membership, NodeId, NodeSet, Position, Term};

use crate::replica::{Record, Replica};

/// A promise that was broken. A state with one is not explored any further.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Fault {
    TwoLeaders,
    LeaderLacksCommitted,
    CommittedDiffers,
    CommittedTooEarly,
    CommitWentBack,
    LogsDoNotMatch,
    StaleRead,
    Assertion,
}

/// Everything that was ever committed anywhere, and who led when.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct History {
    durability: Durability,
    /// In force where a log says nothing else.
    first: Membership,
    /// Each with the term in which it was committed.
    committed: Vec<(Record, Term)>,
    leaders: BTreeMap<Term, NodeId>,
    /// The highest commit position of each replica's life.
    commits: Vec<Position>,
}

impl History {
    pub fn new(durability: Durability, voters: NodeSet, len: usize) -> Self {
        let first = Membership::of_voters(voters);
        Self { durability, first, committed: vec![], leaders: BTreeMap::new(), commits: vec![Position::ZERO; len] }
    }

    pub fn on_restart(&mut self, index: usize) {
        self.commits[index] = Position::ZERO;
    }

    pub fn committed_end(&self) -> Position {
        self.committed.last().map_or(Position::ZERO, |(record, _)| record.end)
    }

    pub fn commands_committed(&self) -> usize {
        self.committed.iter().filter(|(record, _)| record.command > 0).count()
    }

    pub fn leaders_len(&self) -> usize {
        self.leaders.len()
    }

    /// Looks at one replica after it has acted, in the sight of all.
    pub fn observe<'a>(
        &mut self,
        replica: &Replica,
        all: impl Iterator<Item = &'a Replica> + Clone,
    ) -> Result<(), Fault> {
        let raft = &replica.raft;
        raft.check_invariants();
        assert_eq!(
            raft.last(),
            replica.log.last().map_or(Position::ZERO, |record| record.end),
            "the log's end is known"
        );
        let highest = &mut self.commits[usize::from(raft.id().0)];
        if raft.commit() < *highest {
            return Err(Fault::CommitWentBack);
        }
        *highest = raft.commit();
        self.check_committed(replica, all.clone())?;
        if raft.role() == Role::Leader {
            self.check_leader(replica)?;
        }
        if all.clone().any(|other| !logs_match(&replica.log, &other.log)) {
            return Err(Fault::LogsDoNotMatch);
        }
        Ok(())
    }

    /// State machine safety: what one replica holds for committed is what every other does.
    fn check_committed<'a>(
        &mut self,
        replica: &Replica,
        all: impl Iterator<Item = &'a Replica> + Clone,
    ) -> Result<(), Fault> {
        let held = replica.committed();
        if self.committed.iter().zip(held).any(|((known, _), record)| known != record) {
            return Err(Fault::CommittedDiffers);
        }
        if held.len() <= self.committed.len() {
            return Ok(());
        }
        let term = replica.raft.term();
        let news = held[self.committed.len()..].iter().map(|record| (*record, term));
        self.committed.extend(news);
        // The latest in the log decides, as far as the core must know it, whatever the core thinks is in force.
        let membership = replica.log.iter().rev().find_map(|record| record.membership).unwrap_or(self.first);
        let holds = |set: NodeSet| {
            let has = |one: &&Replica| {
                let log = if self.durability == Durability::Durable { &one.disk } else { &one.log };
                set.contains(one.raft.id()) && log.starts_with(held)
            };
            set.is_empty() || 2 * all.clone().filter(has).count() > set.len()
        };
        let safe = holds(membership.voters) && holds(membership.outgoing);
        if safe { Ok(()) } else { Err(Fault::CommittedTooEarly) }
    }

    /// Election safety and leader completeness. What a later term committed the leader of an earlier one need not
    /// have: the last vote may have reached it long after it was given.
    fn check_leader(&mut self, replica: &Replica) -> Result<(), Fault> {
        let (term, id) = (replica.raft.term(), replica.raft.id());
        let known = self.leaders.insert(term, id);
        if known.is_some_and(|leader| leader != id) {
            return Err(Fault::TwoLeaders);
        }
        let earlier = self.committed.iter().filter(|(_, committed_in)| *committed_in < term);
        let complete = earlier.enumerate().all(|(at, (record, _))| replica.log.get(at) == Some(record));
        if complete { Ok(()) } else { Err(Fault::LeaderLacksCommitted) }
    }
}

/// Log matching: with the same term at the same position, two logs are the same up to there.
fn logs_match(one: &[Record], other: &[Record]) -> bool {
    let same = one.iter().zip(other).rposition(|(a, b)| (a.term, a.end) == (b.term, b.end));
    same.is_none_or(|last| one[..=last] == other[..=last])
}
