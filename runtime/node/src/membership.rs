//! Who belongs to the shard: configurations go into the log and come out of it, with the addresses of their nodes.
//!
//! Consensus decides which configuration may follow which ([`evershard_consensus`]); here it becomes a record, and what
//! a record says about addresses becomes links. The first leader of a new shard writes down the configuration that the
//! nodes' files named: from then on the log alone says who decides, whatever the files say later.

use std::net::SocketAddr;
use std::sync::Arc;

use evershard_protocol::limits::NODE_ID_MAX;
use evershard_protocol::record::{Kind, Record};
use evershard_protocol::{Membership, MembershipChange, NodeId, NodeSet, Position, SessionId};
use evershard_service::Service;

use crate::core::Core;
use crate::notice::Notice;

/// What an operator wants of a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MemberAction<'a> {
    /// It takes over the log, without a vote. The address of this shard on it, `ip:port`.
    Add(&'a str),
    /// The learner becomes a voter.
    Promote,
    /// It leaves.
    Remove,
}

impl<S: Service> Core<S> {
    /// Appends what the leader owes: the first configuration of a new shard, and the way out of a joint one.
    pub(crate) fn sequence_membership(&mut self) {
        if !self.leading.is_some_and(|leading| leading.ready) {
            return;
        }
        let first = self.raft.membership_position() == Position::ZERO;
        let owed = if first { Some(*self.raft.membership()) } else { self.raft.wants_membership() };
        if let Some(next) = owed.filter(|_| self.raft.admits()) {
            self.append_membership(next);
        }
    }

    /// Begins what an operator asks for; says how it went.
    pub(crate) fn change_member(&mut self, node: NodeId, action: MemberAction<'_>) -> Result<Position, String> {
        if node.0 > NODE_ID_MAX {
            return Err(format!("node ids go up to {NODE_ID_MAX}"));
        }
        let one = NodeSet::of(node);
        let mut change = MembershipChange::default();
        match action {
            MemberAction::Add(_) if self.raft.members().contains(node) => {
                return Err(format!("node {node} is a member of this shard already"));
            }
            MemberAction::Add(address) => {
                if address.parse::<SocketAddr>().is_err() {
                    return Err(format!("`{address}` is no address like 10.0.0.1:7000"));
                }
                change.learn = one;
            }
            MemberAction::Promote if self.raft.membership().voters.contains(node) => {
                return Err(format!("node {node} is a voter of this shard already"));
            }
            MemberAction::Promote => change.promote = one,
            MemberAction::Remove if !self.raft.members().contains(node) => {
                return Err(format!("node {node} is no member of this shard"));
            }
            MemberAction::Remove => change.remove = one,
        }
        let next = self.raft.plan_membership(&change).map_err(|error| error.to_string())?;
        if let MemberAction::Add(address) = action {
            self.learn_address(node, address);
        }
        self.append_membership(next).ok_or_else(|| "the log takes nothing just now: try again".to_owned())
    }

    fn append_membership(&mut self, next: Membership) -> Option<Position> {
        let payload = self.encode_membership(&next);
        let position = self.append_own(Kind::Membership, SessionId(0), &payload)?;
        self.raft.on_membership(position, next);
        self.note_appended();
        self.notice(Notice::Membership(position, next));
        Some(position)
    }

    /// A configuration as a record's payload, with the addresses of its nodes as far as they are known.
    pub(crate) fn encode_membership(&self, membership: &Membership) -> Vec<u8> {
        let mut payload = Vec::new();
        let known = self.addresses.iter().enumerate().filter_map(|(node, address)| {
            let node = NodeId(u8::try_from(node).ok()?);
            let address = address.as_deref().filter(|address| address.len() <= usize::from(u8::MAX))?;
            membership.everybody().contains(node).then_some((node, address))
        });
        membership.encode(known, &mut payload);
        payload
    }

    /// A follower is about to append a record; one that changes the configuration takes effect. `false` if it cannot be
    /// read.
    pub(crate) fn adopt_membership(&mut self, record: &Record<'_>) -> bool {
        if record.header.kind != Kind::Membership as u16 {
            return true;
        }
        let Some(next) = Membership::decode(record.payload, |node, address| self.learn_address(node, address)) else {
            return false;
        };
        self.raft.on_membership(record.header.position, next);
        self.notice(Notice::Membership(record.header.position, next));
        true
    }

    /// Where a node's replica of this shard is found, unless this node's own configuration says so.
    pub(crate) fn learn_address(&mut self, node: NodeId, address: &str) {
        let at = usize::from(node.0);
        if node.0 > NODE_ID_MAX || self.configured.contains(node) {
            return;
        }
        if self.addresses.len() <= at {
            self.addresses.resize(at + 1, None);
        }
        if self.addresses[at].as_deref() != Some(address) {
            self.addresses[at] = Some(Arc::from(address));
        }
    }

    /// The peers are those of the configuration, those that this node's own file names, and those that are leaving.
    pub(crate) fn renew_peers(&mut self) {
        let known = self.raft.members().union(self.configured).union(self.raft.parting());
        if self.peers.known() == known {
            return;
        }
        for link in self.peers.renew(self.identity.node, known).into_iter().flatten() {
            self.links.close_after_flush(link);
        }
    }
}
