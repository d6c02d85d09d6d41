//! What operators ask of whoever leads: they move leadership, ask for digests, and change who belongs to a shard, within
//! the limits of [`crate::budget`].

use evershard_consensus::Durability;
use evershard_protocol::client::{Admin, AdminAction};
use evershard_protocol::frame::{self, Frame};
use evershard_protocol::{Membership, NodeId};

use crate::client::socket;
use crate::network::Party;
use crate::node::node_id;
use crate::world::World;

impl World {
    /// The configuration of whoever leads a shard, if members may change at all.
    fn changeable(&self, shard: usize) -> Option<Membership> {
        let leader = self.leader(shard).filter(|_| self.plan.options.durability == Durability::Durable)?;
        self.nodes[leader].core(shard).map(|core| *core.raft().membership())
    }

    /// The first node from this one on that is so.
    fn next_node(&self, from: usize, is_so: impl Fn(NodeId) -> bool) -> Option<usize> {
        let len = self.nodes.len();
        (0..len).map(|step| (from + step) % len).find(|node| is_so(node_id(*node)))
    }

    pub(crate) fn add_member(&mut self, shard: usize, from: usize) -> bool {
        let Some(membership) = self.changeable(shard) else { return false };
        let Some(node) = self.next_node(from, |node| !membership.everybody().contains(node)) else { return false };
        // A damaged disk is not brought in again.
        !self.budget.is_harmed(node) && self.ask_operator(shard, AdminAction::MemberAdd, node_id(node).0)
    }

    pub(crate) fn promote_member(&mut self, shard: usize, from: usize) -> bool {
        let Some(membership) = self.changeable(shard) else { return false };
        let Some(node) = self.next_node(from, |node| membership.learners.contains(node)) else { return false };
        self.ask_operator(shard, AdminAction::MemberPromote, node_id(node).0)
    }

    pub(crate) fn remove_member(&mut self, shard: usize, node: usize) -> bool {
        let Some(membership) = self.changeable(shard) else { return false };
        let is_voter = membership.voters.contains(node_id(node));
        let enough = !is_voter || membership.voters.len() > 3;
        if membership.is_joint() || !enough || !membership.everybody().contains(node_id(node)) {
            return false;
        }
        // Another one on its way might be the one too many.
        let on_its_way = self.operators.values().any(|message| removes(message));
        !on_its_way && self.ask_operator(shard, AdminAction::MemberRemove, node_id(node).0)
    }

    /// An operator's message to whoever leads a shard.
    pub(crate) fn ask_operator(&mut self, shard: usize, action: AdminAction, node: u8) -> bool {
        let Some(leader) = self.leader(shard) else { return false };
        self.ask_node(leader, shard, action, node)
    }

    /// An operator's message to one replica.
    pub(crate) fn ask_node(&mut self, replica: usize, shard: usize, action: AdminAction, node: u8) -> bool {
        let admin = Admin { action: (action as u16).into(), node, padding: [0; 5] };
        let mut message = Vec::with_capacity(128);
        // Whoever is added is found somewhere.
        let address = if action == AdminAction::MemberAdd { socket(usize::from(node)) } else { String::new() };
        frame::put(&mut message, &admin, address.as_bytes()).expect("there is room");
        let parties = [Party::Client(self.clients.len()), Party::Shard(replica, shard, 0)];
        let connection = self.network.dial(parties, None, self.time);
        self.operators.insert(connection, message);
        self.settle_network();
        true
    }
}

/// Whether an operator's message removes a member.
fn removes(message: &[u8]) -> bool {
    let admin = Frame::take(message).ok().flatten().and_then(|(frame, _)| frame.read::<Admin>().ok());
    admin.is_some_and(|(admin, _)| admin.action.get() == AdminAction::MemberRemove as u16)
}
