//! What may go wrong at the same time, so that a correct system still keeps its promise.
//!
//! * **Harm.** A fault that destroys what a replica has acknowledged (rot, a lost or misdirected write, a damaged slot, a
//!   wiped disk) may hit a node only while no other node is harmed. A node is whole again when it was started anew since
//!   (so that its recovery looked at the damage), is sound, and holds durably everything that was committed. And the
//!   others that count (or will, once they are up) must be a quorum: a record that is rotten where it stands, and that a
//!   recovering replica may have had, keeps a shard waiting for ever, and rightly so.
//! * **Members.** All this is asked of every configuration in force: the last one that is committed, and later ones that a
//!   running replica has, of every shard. Only a member is harmed, only while each of these configurations has three
//!   voters or more (one copy may be bad, one late), and what counts as a quorum counts in each of them, in both its sets
//!   if it is joint. Whoever was harmed and is no member any more takes nothing from the others; it is not added again.
//!   Members change only in `durable` durability: there an acknowledgement outlives any loss of power, so a quorum of
//!   the old configuration may fall while the new one takes over. A voter is removed only from a configuration that is
//!   not joint and has more than three, and only one such request is on its way at a time.
//! * **The only voter.** A node whose file names no other voter, and whose disk is lost after others have joined, is
//!   started with `join = true`: an empty disk and that file are a new cluster, and nobody could tell.
//! * **Unclean stops** in `replicated` durability lose acknowledged records by design: a node may be killed only if the
//!   others that are running, sound and not harmed are a quorum. In `durable` durability any number may be killed.
//! * **A loss that nobody can see yet** (see [`crate::disk`]): its node may not be killed.

use evershard_protocol::{Membership, NodeSet};

use crate::node::node_id;

/// The state of one node, as far as the budget cares.
#[derive(Clone, Copy, Debug, Default)]
pub struct Health {
    /// Harm was done to it, and it is not whole yet.
    pub harmed: bool,
    /// It was started since.
    pub examined: bool,
    /// A crash now would lose something without a trace.
    pub fragile: bool,
    /// It runs, and all its replicas are sound.
    pub sound: bool,
    /// All its replicas were sound when it was last seen running.
    pub counted: bool,
}

/// The state of all nodes.
#[derive(Clone, Debug)]
pub struct Budget {
    nodes: Vec<Health>,
    replicated: bool,
    /// The configurations in force, of all shards.
    configurations: Vec<Membership>,
}

impl Budget {
    /// Everything is well; the first `voters` of the nodes decide.
    #[must_use]
    pub fn new(nodes: usize, voters: usize, replicated: bool) -> Self {
        let configurations = vec![Membership::of_voters((0..voters).map(node_id).collect())];
        Self { nodes: vec![Health::default(); nodes], replicated, configurations }
    }

    /// One node.
    pub fn node(&mut self, node: usize) -> &mut Health {
        &mut self.nodes[node]
    }

    /// These are in force from now on.
    pub fn set_configurations(&mut self, configurations: Vec<Membership>) {
        assert!(!configurations.is_empty(), "somebody always decides");
        self.configurations = configurations;
    }

    /// Whether a node is harmed.
    #[must_use]
    pub fn is_harmed(&self, node: usize) -> bool {
        self.nodes[node].harmed
    }

    /// Whether what a node has acknowledged may be destroyed.
    #[must_use]
    pub fn may_harm(&self, node: usize) -> bool {
        let others = || self.others(node).filter(|(other, _)| self.is_member(*other));
        let whole = others().all(|(_, health)| !health.harmed);
        let enough = !self.replicated || self.is_quorum(node, |health| health.sound);
        let counted = self.is_quorum(node, |health| health.counted);
        let three = |set: NodeSet| set.is_empty() || set.len() >= 3;
        let many = self.configurations.iter().all(|one| three(one.voters) && three(one.outgoing));
        many && self.is_member(node) && whole && enough && counted
    }

    /// Whether a node may stop uncleanly.
    #[must_use]
    pub fn may_crash(&self, node: usize) -> bool {
        let intact = self.is_quorum(node, |health| health.sound && !health.harmed);
        !self.nodes[node].fragile && (!self.replicated || intact)
    }

    /// Whether all nodes may lose power at once.
    #[must_use]
    pub fn may_lose_all_power(&self) -> bool {
        !self.replicated && self.nodes.iter().all(|health| !health.fragile)
    }

    /// Whether any configuration in force names a node.
    #[must_use]
    pub fn is_member(&self, node: usize) -> bool {
        self.configurations.iter().any(|one| one.everybody().contains(node_id(node)))
    }

    fn others(&self, node: usize) -> impl Iterator<Item = (usize, &Health)> {
        self.nodes.iter().enumerate().filter(move |(at, _)| *at != node)
    }

    /// Whether those of the others that are so are a quorum, everywhere.
    fn is_quorum(&self, node: usize, is_so: impl Fn(&Health) -> bool) -> bool {
        let fit: NodeSet = self.others(node).filter(|(_, health)| is_so(health)).map(|(at, _)| node_id(at)).collect();
        self.configurations.iter().all(|one| has_majorities(one, fit))
    }
}

/// Whether a set has a majority of the voters, and of those that are left behind if there are any.
#[must_use]
pub fn has_majorities(membership: &Membership, set: NodeSet) -> bool {
    let majority = |of: NodeSet| of.is_empty() || 2 * of.intersection(set).len() > of.len();
    majority(membership.voters) && majority(membership.outgoing)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(replicated: bool) -> Budget {
        let mut budget = Budget::new(3, 3, replicated);
        (0..3).for_each(|node| (budget.node(node).sound, budget.node(node).counted) = (true, true));
        budget
    }

    fn durable() -> Budget {
        budget(false)
    }

    #[test]
    fn harm_comes_to_one_at_a_time() {
        let mut budget = budget(false);
        assert!(budget.may_harm(0));
        budget.node(0).harmed = true;
        assert!(budget.may_harm(0) && !budget.may_harm(1));
        assert!(!Budget::new(1, 1, false).may_harm(0));
        budget.node(2).counted = false;
        assert!(!budget.may_harm(0), "two of three are not known to hold anything");
    }

    #[test]
    fn in_replicated_durability_a_quorum_stays() {
        let mut budget = budget(true);
        assert!(budget.may_crash(0) && !budget.may_lose_all_power());
        budget.node(1).sound = false;
        assert!(!budget.may_crash(0) && budget.may_crash(1));
        let mut durable = durable();
        durable.node(1).sound = false;
        assert!(durable.may_crash(0) && durable.may_lose_all_power());
        durable.node(2).fragile = true;
        assert!(!durable.may_crash(2) && !durable.may_lose_all_power());
    }

    #[test]
    fn every_configuration_in_force_is_asked() {
        let of = |voters: u64, outgoing: u64| Membership {
            voters: NodeSet::from_bits(voters),
            outgoing: NodeSet::from_bits(outgoing),
            learners: NodeSet::EMPTY,
        };
        let mut budget = Budget::new(5, 3, false);
        (0..4).for_each(|node| budget.node(node).counted = true);
        assert!(budget.may_harm(0) && !budget.may_harm(3), "who is no member is left alone");
        budget.set_configurations(vec![of(0b111, 0), of(0b1111, 0b111)]);
        assert!(budget.may_harm(3));
        budget.node(4).harmed = true;
        assert!(budget.may_harm(3), "who is no member any more takes nothing from the others");
        budget.node(1).counted = false;
        assert!(!budget.may_harm(0), "one of three is left");
        budget.set_configurations(vec![of(0b11, 0)]);
        assert!(!budget.may_harm(0), "two copies are too few");
    }
}
