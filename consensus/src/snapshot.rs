//! Peers that need more than the log still has: a snapshot takes the place of its beginning.
//!
//! The core neither makes nor carries snapshots. It says which peer needs one, waits while it is on its way (the peer
//! gets heartbeats only), and goes on behind it. On the other side a snapshot that has been taken in whole replaces the
//! log up to its position.

use evershard_protocol::{Instant, Membership, NodeId, Position, Term};

use crate::progress::Mode;
use crate::raft::TERM_MAX;
use crate::{Raft, Role};

/// What the core must know of a snapshot: where it stands in the log.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct SnapshotMark {
    /// It is the state at this position; committed.
    pub position: Position,
    /// Term of the record that ends there.
    pub term: Term,
    /// The configuration in force there.
    pub membership: Membership,
}

/// What the caller does with its log after a snapshot was taken in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Installed {
    /// Nothing: the log has this already, or the message is stale.
    No,
    /// The log holds the position: keep it, all up to there is committed.
    Kept,
    /// Begin the log anew at the position; what was there is gone.
    Replaced,
}

impl Raft {
    /// The caller has dropped the log below the record boundary `to`, where a snapshot stands.
    ///
    /// # Panics
    /// If that is not committed yet.
    pub fn on_trimmed(&mut self, to: Position) {
        assert!(to <= self.commit, "only what is committed is in a snapshot");
        self.terms.forget_before(to);
        let base = self.terms.base();
        for peer in &mut self.peers {
            if peer.next < base {
                peer.await_snapshot(base);
            }
        }
    }

    /// On a leader: a peer that can only go on from a snapshot, for which none is on its way.
    #[must_use]
    pub fn wants_snapshot(&self, peer: NodeId) -> bool {
        self.role == Role::Leader
            && self.peer_index(peer).is_some_and(|index| {
                let peer = &self.peers[index];
                peer.connected && self.feeds(peer) && peer.mode == Mode::Snapshot { sending: None }
            })
    }

    /// A snapshot at `position` is on its way to a peer that wanted one.
    pub fn on_snapshot_begun(&mut self, peer: NodeId, position: Position) {
        let Some(index) = self.peer_index(peer) else { return };
        if let Mode::Snapshot { sending } = &mut self.peers[index].mode {
            *sending = Some(position);
        }
    }

    /// The snapshot has reached the peer, or it has not: then another one is wanted.
    pub fn on_snapshot_ended(&mut self, peer: NodeId, arrived: bool) {
        let Some(index) = self.peer_index(peer) else { return };
        let base = self.terms.base();
        let peer = &mut self.peers[index];
        let Mode::Snapshot { sending: Some(position) } = peer.mode else { return };
        if arrived && position >= base {
            peer.probe_from(position, false);
        } else {
            peer.mode = Mode::Snapshot { sending: None };
            peer.await_snapshot(base);
        }
    }

    /// A whole snapshot came from `from`, which leads `term`; it is on stable storage before this call.
    pub fn install_snapshot(&mut self, from: NodeId, term: Term, mark: &SnapshotMark, now: Instant) -> Installed {
        self.see(now);
        let sensible = term > Term(0) && term <= TERM_MAX && mark.term <= term && mark.membership.check().is_ok();
        if !sensible || term < self.hard.term || !self.follow(from, term) {
            return Installed::No;
        }
        self.following.owe();
        if mark.position <= self.commit {
            let held = mark.position.min(self.terms.last());
            self.following.matched = self.following.matched.max(held);
            return Installed::No;
        }
        if self.terms.term_at(mark.position) == Some(mark.term) {
            self.commit = mark.position;
            self.following.matched = self.following.matched.max(mark.position);
            return Installed::Kept;
        }
        self.terms.reset(mark.position, mark.term);
        self.commit = mark.position;
        self.durable = mark.position;
        self.cut = true;
        self.following.restart_at(mark.position);
        self.reset_memberships(mark.position, mark.membership);
        Installed::Replaced
    }
}
