//! `two-leaders`: a term has one leader. `leader-lacks`: a leader has everything that was committed in the terms before
//! its own. (What later terms committed it need not have: the last vote may have reached it long after it was given.)

use std::collections::BTreeMap;

use evershard_consensus::Role;
use evershard_node::core::Core;
use evershard_protocol::Term;

use crate::oracle::Violation;
use crate::oracle::log::CommittedLog;
use crate::service::KeyValue;

/// Who led when.
#[derive(Default)]
pub struct Leaders(BTreeMap<Term, usize>);

impl Leaders {
    /// Terms that had a leader.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.len()
    }

    pub(super) fn check(&mut self, node: usize, core: &Core<KeyValue>, log: &CommittedLog) -> Result<(), Violation> {
        let raft = core.raft();
        if raft.role() != Role::Leader {
            return Ok(());
        }
        let term = raft.term();
        match self.0.insert(term, node) {
            Some(known) if known == node => return Ok(()),
            Some(known) => return Violation::of("two-leaders", format!("{term:?} is led by n{known} and by n{node}")),
            None => {}
        }
        let needed = log.replay.committed_before(term);
        if raft.last() < needed {
            let what = format!("n{node} leads {term:?} with a log up to {}, and {needed} was committed", raft.last());
            return Violation::of("leader-lacks", what);
        }
        Ok(())
    }
}
