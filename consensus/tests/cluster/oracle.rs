//! What must hold after every step, judged from outside by comparing whole logs.

use std::collections::BTreeMap;

use evershard_consensus::{Durability, Role};
use evershard_protocol::{Membership, NodeId, NodeSet, Position, Term};

use crate::node::{Node, Record};

/// Remembers everything that was ever committed anywhere, and who led when.
pub struct Oracle {
    durability: Durability,
    /// The configuration by which the last record was committed.
    membership: Membership,
    pub committed: Vec<Record>,
    pub leaders: BTreeMap<Term, NodeId>,
    commits: Vec<Position>,
    /// Lengths of `committed` whenever it grew. The last record of such a length is of the term that committed it.
    lens: Vec<usize>,
    /// Set by scenarios in which losing records is part of the bargain.
    pub loss_allowed: bool,
}

impl Oracle {
    pub fn new(len: usize, voters: usize, durability: Durability) -> Self {
        let voters = (0..u8::try_from(voters).expect("few nodes")).map(NodeId).collect();
        Self {
            durability,
            membership: Membership::of_voters(voters),
            committed: vec![],
            leaders: BTreeMap::new(),
            commits: vec![Position::ZERO; len],
            lens: vec![],
            loss_allowed: false,
        }
    }

    pub fn on_restart(&mut self, index: usize) {
        self.commits[index] = Position::ZERO;
    }

    pub fn check(&mut self, nodes: &[Node]) {
        for (index, node) in nodes.iter().enumerate() {
            let Some(raft) = &node.raft else { continue };
            raft.check_invariants();
            let end = node.log.last().map_or(Position::ZERO, |record| record.end);
            assert_eq!(raft.last(), end, "the core knows where the log of {} ends", node.id);
            assert!(raft.commit() >= self.commits[index], "commit of {} went back", node.id);
            self.commits[index] = raft.commit();
            if raft.role() == Role::Leader {
                self.check_leader(node);
            }
            self.check_committed(node, nodes);
        }
        if self.durability == Durability::Durable {
            assert!(self.is_on_disk(nodes), "what is committed is on the disks of a quorum");
        }
    }

    pub fn committed_end(&self) -> Position {
        self.committed.last().map_or(Position::ZERO, |record| record.end)
    }

    /// The last committed record is on the disks of a majority, or of two in a joint configuration.
    fn is_on_disk(&self, nodes: &[Node]) -> bool {
        let last = self.committed.last();
        let majority = |set: NodeSet| {
            let held = nodes.iter().filter(|node| set.contains(node.id) && has(&node.disk, last)).count();
            set.is_empty() || 2 * held > set.len()
        };
        majority(self.membership.voters) && majority(self.membership.outgoing)
    }

    /// One leader per term, and it has everything that was committed in the terms before. What later terms committed
    /// it need not have: the last vote may have reached it long after it was given.
    fn check_leader(&mut self, node: &Node) {
        let term = node.raft.as_ref().expect("it leads").term();
        let known = self.leaders.insert(term, node.id);
        assert!(known.is_none_or(|leader| leader == node.id), "two leaders in term {term}: {known:?} and {}", node.id);
        if known.is_none() && !self.loss_allowed {
            let earlier = self.lens.iter().rev().map(|len| &self.committed[len - 1]).find(|record| record.term < term);
            assert!(has(&node.log, earlier), "leader {} of term {term} lacks {earlier:?}", node.id);
        }
    }

    /// What one replica holds for committed is what every other does.
    fn check_committed(&mut self, node: &Node, nodes: &[Node]) {
        let commit = node.raft.as_ref().expect("it runs").commit();
        let len = node.log.partition_point(|record| record.end <= commit);
        let held = &node.log[..len];
        assert_eq!(held.last().map_or(Position::ZERO, |record| record.end), commit, "commit is a boundary");
        if self.loss_allowed {
            return;
        }
        let shared = len.min(self.committed.len());
        // Equal last records mean equal logs up to there (log matching), which the full comparison below samples.
        assert_eq!(held[..shared].last(), self.committed[..shared].last(), "{} differs in what is committed", node.id);
        if len > self.committed.len() {
            assert_eq!(held[..shared], self.committed[..], "{} differs in what is committed", node.id);
            self.committed = held.to_vec();
            self.lens.push(len);
            self.membership = *node.raft.as_ref().expect("it runs").membership();
            if self.durability == Durability::Durable {
                assert!(self.is_on_disk(nodes), "{} committed {commit} before a quorum had it on disk", node.id);
            }
        }
    }
}

/// Whether a log holds this record; with log matching, also everything before it.
fn has(log: &[Record], record: Option<&Record>) -> bool {
    record
        .is_none_or(|record| log.binary_search_by_key(&record.end, |held| held.end).is_ok_and(|at| log[at] == *record))
}
