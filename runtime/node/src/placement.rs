//! Who should lead: shard i prefers voter i mod n. Leadership is moved there rarely, only to a replica that has
//! everything, and never in times of trouble.

use evershard_consensus::{Role, Standing};
use evershard_protocol::time::{MILLISECOND_NS, SECOND_NS};
use evershard_protocol::{Instant, NodeId};
use evershard_service::Service;

use crate::core::Core;
use crate::notice::Notice;

/// A leader leads at least this long before it hands over.
const SETTLED_NS: u64 = 500 * MILLISECOND_NS;
/// After an attempt the next one waits this long.
const RETRY_NS: u64 = 5 * SECOND_NS;
/// The other replica may lack this many bytes at most, in its log and in what it has applied.
const LAG_SIZE_MAX: u64 = 1024 * 1024;

/// When leadership may next be moved.
#[derive(Clone, Copy, Debug, Default)]
pub struct Placement {
    not_before: Instant,
}

impl Placement {
    /// This replica has just become leader.
    pub fn on_leading(&mut self, now: Instant) {
        self.not_before = self.not_before.max(now.after(SETTLED_NS));
    }
}

impl<S: Service> Core<S> {
    /// Hands leadership to the preferred node if all is well, or away if this node's disk has failed, a
    /// part of its log does not read back, or it is stopping.
    pub(crate) fn place_leadership(&mut self) {
        let now = self.now.instant;
        let idle = self.raft.role() == Role::Leader && self.raft.transfer_target().is_none();
        if !idle || now < self.placement.not_before || !self.leading.is_some_and(|leading| leading.ready) {
            return;
        }
        let target = if self.stopping || self.disk.failed().is_some() || !self.disk.writer.holes().is_empty() {
            self.best_other()
        } else {
            self.preferred_leader().filter(|node| *node != self.identity.node && self.is_fit(*node))
        };
        let Some(target) = target else { return };
        self.placement.not_before = now.after(RETRY_NS);
        if self.raft.transfer(target, now, &mut self.output).is_ok() {
            self.notice(Notice::Transfer(target));
        }
    }

    /// Voter i mod n, by their ids.
    fn preferred_leader(&self) -> Option<NodeId> {
        let voters = self.raft.membership().voters;
        let at = usize::from(self.identity.shard.0) % voters.len().max(1);
        voters.iter().nth(at).filter(|_| self.config.prefer_leaders && !self.raft.membership().is_joint())
    }

    fn is_fit(&self, node: NodeId) -> bool {
        let applied = self.raft.commit().since(self.peers.applied(node)) <= LAG_SIZE_MAX;
        applied
            && self.raft.peer(node).is_some_and(|peer| {
                peer.connected && !peer.recovering && self.raft.last().since(peer.received) <= LAG_SIZE_MAX
            })
            && self.raft.standing() == Standing::Sound
    }

    fn best_other(&self) -> Option<NodeId> {
        let others = self.raft.membership().voters.iter().filter(|node| *node != self.identity.node);
        let fit = others.filter(|node| self.is_fit(*node));
        fit.max_by_key(|node| self.raft.peer(*node).map(|peer| peer.received))
    }

    /// A stopping leader need not wait for its next attempt.
    pub(crate) fn hasten_placement(&mut self) {
        self.placement.not_before = Instant(0);
    }
}
