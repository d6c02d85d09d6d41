//! `position-order`: applied <= committed <= appended and durable <= appended. `position-back`: within one life neither
//! applied nor committed goes back, and the term never does. `durable-back`: durable goes back only when the log is cut, and then
//! not below what was committed.

use evershard_node::core::Core;
use evershard_protocol::{Position, Term};

use crate::oracle::Violation;
use crate::service::KeyValue;

#[derive(Clone, Copy, Default)]
struct Last {
    applied: Position,
    committed: Position,
    durable: Position,
    term: Term,
}

/// How far each replica was when it was last looked at.
pub struct Positions(Vec<Last>);

impl Positions {
    /// Nobody was looked at.
    #[must_use]
    pub fn new(nodes: usize) -> Self {
        Self(vec![Last::default(); nodes])
    }

    pub(super) fn on_start(&mut self, node: usize) {
        // The term is remembered through a restart, or a vote might be given twice.
        self.0[node] = Last { term: Term(0), ..Last::default() };
    }

    pub(super) fn on_wipe(&mut self, node: usize) {
        self.0[node] = Last::default();
    }

    pub(super) fn check(&mut self, node: usize, core: &Core<KeyValue>) -> Result<(), Violation> {
        let (raft, last) = (core.raft(), self.0[node]);
        let is = Last {
            applied: core.replica().applied,
            committed: raft.commit(),
            durable: core.disk().durable(),
            term: raft.term(),
        };
        let appended = core.tail().end();
        let picture = || {
            let Last { applied, committed, durable, term } = is;
            format!(
                "n{node}: applied {applied}, committed {committed}, durable {durable}, appended {appended}, {term:?}; \
                 before: applied {}, committed {}, durable {}, {:?}",
                last.applied, last.committed, last.durable, last.term
            )
        };
        if is.applied > is.committed || is.committed > appended || is.durable > appended || raft.last() != appended {
            return Violation::of("position-order", picture());
        }
        if is.applied < last.applied || is.committed < last.committed || is.term < last.term {
            return Violation::of("position-back", picture());
        }
        if is.durable < last.durable.min(last.committed) {
            return Violation::of("durable-back", picture());
        }
        self.0[node] = is;
        Ok(())
    }
}
