//! Who decides: the configurations of the log, joint consensus, and the leader's part in changing them.
//!
//! A configuration takes effect where its record is appended (Raft §6), so the core keeps the few latest with their
//! positions and goes back when the log is cut. Voters change through a joint configuration only: the leader appends
//! it, commits it by both majorities, then appends the final one. One change at a time, and none before the leader's
//! own term is committed; that also settles a joint configuration which a leader found in its log.

use std::collections::VecDeque;

use evershard_protocol::bugs::{self, Bug};
use evershard_protocol::peer::{PeerMessage, TimeoutNow};
use evershard_protocol::{Membership, MembershipChange, MembershipError, NodeId, NodeSet, Position};

use crate::progress::{Mode, Peer};
use crate::quorum::reached;
use crate::{Output, Raft, Role};

/// Configurations that are remembered with their positions. More: the oldest is forgotten, it was committed long ago,
/// since each is committed before the next is appended.
pub(crate) const MEMBERSHIPS_LEN_MAX: usize = 16;
/// A learner that is to vote may lack this many bytes of the leader's log at most.
pub const PROMOTE_LAG_MAX: u64 = 1024 * 1024;

/// Why a leader does not change the configuration.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ChangeError {
    /// Only the leader can.
    #[error("this replica does not lead the shard; ask the leader")]
    NotLeader,
    /// The leader has not committed a record of its own term, or the configuration before is not committed yet.
    #[error("the configuration before is not committed yet; try again in a moment")]
    NotSettled,
    /// Leadership is being moved.
    #[error("leadership of this shard is being handed over; ask the new leader")]
    Transfer,
    /// Only learners become voters.
    #[error("node {0} is no learner of this shard: add it first, it then takes over the log")]
    NotLearner(NodeId),
    /// It would vote before it has the log.
    #[error(
        "node {0} has not caught up: it is not connected, still recovering, or more than 1 MiB behind; try again later"
    )]
    NotCaughtUp(NodeId),
    /// There is no such configuration.
    #[error(transparent)]
    Invalid(#[from] MembershipError),
}

/// The latest configurations of a log, oldest first.
///
/// Invariant: positions ascend; there is at least one entry, the first of which is never cut.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct MembershipTable {
    entries: VecDeque<(Position, Membership)>,
}

impl MembershipTable {
    pub(crate) fn new(first: Membership, others: &[(Position, Membership)]) -> Self {
        let mut entries = VecDeque::with_capacity(MEMBERSHIPS_LEN_MAX);
        entries.push_back((Position::ZERO, first));
        let mut table = Self { entries };
        for (position, membership) in others {
            table.push(*position, *membership);
        }
        table
    }

    pub(crate) fn current(&self) -> (Position, Membership) {
        *self.entries.back().expect("there is at least one")
    }

    /// The configuration in force at `position`.
    pub(crate) fn at(&self, position: Position) -> Membership {
        let behind = self.entries.partition_point(|(at, _)| *at <= position);
        self.entries[behind.saturating_sub(1)].1
    }

    /// The same with where it stands in the log; `None` if that is forgotten.
    pub(crate) fn entry_at(&self, position: Position) -> Option<(Position, Membership)> {
        let behind = self.entries.partition_point(|(at, _)| *at <= position);
        self.entries.get(behind.checked_sub(1)?).copied()
    }

    fn push(&mut self, position: Position, membership: Membership) {
        assert!(self.current().0 <= position, "configurations come in the order of the log");
        if self.entries.len() == MEMBERSHIPS_LEN_MAX {
            self.entries.pop_front();
        }
        self.entries.push_back((position, membership));
    }

    /// The log was cut; true if the current configuration is another one now.
    fn truncate(&mut self, to: Position) -> bool {
        let len = self.entries.len();
        while self.entries.len() > 1 && self.current().0 > to {
            self.entries.pop_back();
        }
        self.entries.len() < len
    }

    /// A configuration that stood where the log could not be read until now.
    fn insert(&mut self, position: Position, membership: Membership) {
        let at = self.entries.partition_point(|(at, _)| *at < position);
        let known = self.entries.get(at).is_some_and(|(at, _)| *at == position);
        // Older than all that is remembered: forgotten like its neighbours.
        if known || (at == 0) || self.entries.len() == MEMBERSHIPS_LEN_MAX {
            return;
        }
        self.entries.insert(at, (position, membership));
    }

    fn reset(&mut self, position: Position, membership: Membership) {
        self.entries.clear();
        self.entries.push_back((position, membership));
    }
}

impl Raft {
    /// A record that changes the configuration stands in the log up to `position`. Said before the
    /// [`Raft::on_appended`] that covers it, by leader and follower alike; it takes effect at once.
    ///
    /// # Panics
    /// If the position is already covered, or the configuration is none: it was to be checked where it came in.
    pub fn on_membership(&mut self, position: Position, membership: Membership) {
        assert!(position > self.terms.last(), "a configuration takes effect where it is appended");
        membership.check().expect("checked where it came in");
        self.memberships.push(position, membership);
        self.adopt_membership();
    }

    /// A record that changes the configuration was found where the log could not be read until now.
    pub fn on_membership_found(&mut self, position: Position, membership: Membership) {
        self.memberships.insert(position, membership);
        self.adopt_membership();
    }

    /// The next configuration on the way to `change`. The leader's caller appends its record at once.
    ///
    /// # Errors
    /// [`ChangeError`]: nothing may be appended.
    pub fn plan_membership(&self, change: &MembershipChange) -> Result<Membership, ChangeError> {
        if self.role != Role::Leader {
            return Err(ChangeError::NotLeader);
        }
        if self.transfer.is_some() {
            return Err(ChangeError::Transfer);
        }
        let (position, current) = self.memberships.current();
        //= raft, correction of single-server changes (Ongaro, 2015): the own term is committed before any change.
        if self.term_start.is_none_or(|start| self.commit < start) || self.commit < position {
            return Err(ChangeError::NotSettled);
        }
        let next = current.begin(change)?;
        for node in next.voters.without(current.voters).iter() {
            if !current.learners.contains(node) {
                return Err(ChangeError::NotLearner(node));
            }
            if !self.is_caught_up(node) {
                return Err(ChangeError::NotCaughtUp(node));
            }
        }
        Ok(next)
    }

    /// The configuration that a leader is to append now, to leave a joint one that is committed.
    #[must_use]
    pub fn wants_membership(&self) -> Option<Membership> {
        if self.role != Role::Leader || self.transfer.is_some() {
            return None;
        }
        let (position, current) = self.memberships.current();
        let next = current.left()?;
        let settled = self.term_start.is_some_and(|start| self.commit >= start) && self.commit >= position;
        (settled || bugs::is_on(Bug::JointLeftEarly) && self.term_start.is_some()).then_some(next)
    }

    /// Whether a node has the leader's log, but for what is under way.
    #[must_use]
    pub fn is_caught_up(&self, node: NodeId) -> bool {
        self.peer_index(node).is_some_and(|index| {
            let peer = &self.peers[index];
            let near = self.terms.last().since(peer.received) <= PROMOTE_LAG_MAX;
            peer.connected && !peer.recovering && peer.mode == Mode::Replicate && near
        })
    }

    /// A leader that has committed a configuration without itself has done its part: it hands over to whoever has
    /// most and follows.
    //= raft §6: the leader steps down once it has committed the configuration it is not part of.
    pub(crate) fn retire_if_removed(&mut self, out: &mut Output) {
        let (position, current) = self.memberships.current();
        let removed = !current.is_joint() && !current.voters.contains(self.id) && self.commit >= position;
        if !removed || self.transfer.is_some() {
            return;
        }
        let fit = |peer: &&Peer| peer.connected && !peer.recovering && current.voters.contains(peer.id);
        let heir = self.peers.iter().filter(fit).max_by_key(|peer| peer.received).map(|peer| peer.id);
        if let Some(heir) = heir {
            out.push(heir, PeerMessage::TimeoutNow(TimeoutNow { term: self.hard.term }));
        }
        self.become_follower(self.hard.term);
    }

    /// The log was cut at `to`.
    pub(crate) fn truncate_memberships(&mut self, to: Position) {
        if self.memberships.truncate(to) {
            self.adopt_membership();
        }
    }

    /// A snapshot took the place of the log up to `position`.
    pub(crate) fn reset_memberships(&mut self, position: Position, membership: Membership) {
        self.memberships.reset(position, membership);
        self.adopt_membership();
    }

    /// Makes the latest configuration the one in force.
    pub(crate) fn adopt_membership(&mut self) {
        let (position, latest) = self.memberships.current();
        let latest = if bugs::is_on(Bug::MembershipAtCommit) { self.memberships.at(self.commit) } else { latest };
        let before = std::mem::replace(&mut self.membership, latest);
        if before == latest {
            return;
        }
        for node in latest.everybody().iter() {
            self.make_peer(node);
        }
        if !before.deciding().contains(self.id) && self.is_voter() && !self.is_sole_voter() {
            self.arm_election_timer();
        }
        if self.role != Role::Leader {
            return;
        }
        // The new voters have had no time yet to say anything.
        self.quorum_since = self.now;
        let (last, gone) = (self.terms.last(), before.everybody().without(latest.everybody()));
        let came = latest.everybody().without(before.everybody());
        for peer in &mut self.peers {
            if came.contains(peer.id) {
                peer.restart(last);
            } else if gone.contains(peer.id) && peer.connected {
                peer.farewell = Some(position);
            }
        }
    }

    /// Knows `node` from now on; its place in the table. `None` if the table is full of nodes that are connected.
    pub(crate) fn make_peer(&mut self, node: NodeId) -> Option<usize> {
        if node == self.id {
            return None;
        }
        if let Some(index) = self.peer_index(node) {
            return Some(index);
        }
        if self.peers.len() == PEERS_LEN_MAX {
            let everybody = self.membership.everybody();
            let idle = self.peers.iter().position(|peer| !peer.connected && !everybody.contains(peer.id))?;
            self.peers.swap_remove(idle);
        }
        let mut peer = Peer::new(node);
        peer.next = self.terms.last();
        self.peers.push(peer);
        Some(self.peers.len() - 1)
    }

    /// Whether this replica has a vote in the configuration in force.
    #[must_use]
    pub fn is_voter(&self) -> bool {
        self.membership.deciding().contains(self.id)
    }

    /// Whether this replica may lead: as a voter, or as a voter of the configuration before as long as the latest is not
    /// known to be committed. In that time it may be the only one that has the latest, and no voter could win against
    /// its log (seed 3072 of the swarm). It does not count its own vote.
    //= raft thesis §4.2.2: a server that is not part of its own latest configuration should still start new elections,
    //= until that configuration is committed.
    pub(crate) fn may_lead(&self) -> bool {
        let (position, _) = self.memberships.current();
        let before = || self.memberships.at(Position(position.0.saturating_sub(1)));
        self.is_voter() || (position > self.commit && before().deciding().contains(self.id))
    }

    /// Whether nobody else has one.
    pub(crate) fn is_sole_voter(&self) -> bool {
        self.membership.deciding() == NodeSet::of(self.id)
    }

    /// Whether a leader sends its log to this peer.
    pub(crate) fn feeds(&self, peer: &Peer) -> bool {
        peer.farewell.is_some() || self.membership.everybody().contains(peer.id)
    }

    /// The greatest value that a quorum reaches; in a joint configuration, that a quorum of both sets reaches. `own` is
    /// this replica's value.
    pub(crate) fn rank_of_quorum<T: Ord + Copy + Default>(&self, own: T, value: impl Fn(&Peer) -> T) -> T {
        let of_node = |node: NodeId| {
            if node == self.id {
                return own;
            }
            self.peer_index(node).map_or_else(T::default, |index| value(&self.peers[index]))
        };
        reached(&self.membership, of_node)
    }

    /// The least value that any voter has; `own` is this replica's.
    pub(crate) fn least_of_all<T: Ord + Copy + Default>(&self, own: T, value: impl Fn(&Peer) -> T) -> T {
        let of_node = |node: NodeId| {
            if node == self.id {
                return own;
            }
            self.peer_index(node).map_or_else(T::default, |index| value(&self.peers[index]))
        };
        self.membership.deciding().iter().map(of_node).min().unwrap_or_default()
    }

    /// Whether this holds of every voter; `own` says it of this replica.
    pub(crate) fn holds_of_all(&self, own: bool, holds: impl Fn(&Peer) -> bool) -> bool {
        let deciding = self.membership.deciding();
        let of_node = |node: NodeId| {
            if node == self.id { own } else { self.peer_index(node).is_some_and(|index| holds(&self.peers[index])) }
        };
        !deciding.is_empty() && deciding.iter().all(of_node)
    }
}

/// Peers known at a time: all of a joint configuration, and connected nodes that belong to none.
pub(crate) const PEERS_LEN_MAX: usize = 4 * evershard_protocol::limits::NODES_MAX;

#[cfg(test)]
mod tests {
    use super::*;

    fn voters(bits: u64) -> Membership {
        Membership::of_voters(NodeSet::from_bits(bits))
    }

    #[test]
    fn configurations_come_and_go_with_the_log() {
        let mut table = MembershipTable::new(voters(1), &[(Position(64), voters(3))]);
        table.push(Position(128), voters(7));
        assert_eq!(table.current(), (Position(128), voters(7)));
        assert_eq!(table.at(Position(127)), voters(3));
        assert!(!table.truncate(Position(128)), "a record that ends at the cut stays");
        assert!(table.truncate(Position(127)));
        assert_eq!(table.current(), (Position(64), voters(3)));
        table.truncate(Position(0));
        assert_eq!(table.current(), (Position(0), voters(1)));
    }

    #[test]
    fn what_is_found_later_stands_where_it_belongs() {
        let mut table = MembershipTable::new(voters(1), &[(Position(128), voters(7))]);
        table.insert(Position(64), voters(3));
        table.insert(Position(64), voters(3));
        assert_eq!(table.at(Position(100)), voters(3));
        assert_eq!(table.current(), (Position(128), voters(7)));
    }

    #[test]
    fn the_oldest_are_forgotten() {
        let mut table = MembershipTable::new(voters(1), &[]);
        for at in 1..100 {
            table.push(Position(at * 64), voters(at));
        }
        assert_eq!(table.entries.len(), MEMBERSHIPS_LEN_MAX);
        assert_eq!(table.current(), (Position(99 * 64), voters(99)));
    }
}
