//! What may go wrong at the same time, so that a correct system still keeps its promise.
//!
//! * **Harm.** A fault that destroys what a replica has acknowledged (rot, a lost or misdirected write, a damaged slot, a
//!   wiped disk) may hit a node only while no other node is harmed. A node is whole again when it was started anew since
//!   (so that its recovery looked at the damage), is sound, and holds durably everything that was committed. And the
//!   others that count (or will, once they are up) must be a quorum: a record that is rotten where it stands, and that a
//!   recovering replica may have had, keeps a shard waiting for ever, and rightly so.
//! * **Unclean stops** in `replicated` durability lose acknowledged records by design: a node may be killed only if the
//!   others that are running, sound and not harmed are a quorum. In `durable` durability any number may be killed.
//! * **A loss that nobody can see yet** (see [`crate::disk`]): its node may not be killed.

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
}

impl Budget {
    /// Everything is well.
    #[must_use]
    pub fn new(nodes: usize, replicated: bool) -> Self {
        Self { nodes: vec![Health::default(); nodes], replicated }
    }

    /// One node.
    pub fn node(&mut self, node: usize) -> &mut Health {
        &mut self.nodes[node]
    }

    /// Whether a node is harmed.
    #[must_use]
    pub fn is_harmed(&self, node: usize) -> bool {
        self.nodes[node].harmed
    }

    /// Whether what a node has acknowledged may be destroyed.
    #[must_use]
    pub fn may_harm(&self, node: usize) -> bool {
        let others = || self.others(node);
        let whole = others().all(|health| !health.harmed);
        let enough = !self.replicated || self.is_quorum(others().filter(|health| health.sound).count());
        let counted = self.is_quorum(others().filter(|health| health.counted).count());
        self.nodes.len() >= 3 && whole && enough && counted
    }

    /// Whether a node may stop uncleanly.
    #[must_use]
    pub fn may_crash(&self, node: usize) -> bool {
        let intact = self.others(node).filter(|health| health.sound && !health.harmed).count();
        !self.nodes[node].fragile && (!self.replicated || self.is_quorum(intact))
    }

    /// Whether all nodes may lose power at once.
    #[must_use]
    pub fn may_lose_all_power(&self) -> bool {
        !self.replicated && self.nodes.iter().all(|health| !health.fragile)
    }

    fn others(&self, node: usize) -> impl Iterator<Item = &Health> {
        self.nodes.iter().enumerate().filter(move |(at, _)| *at != node).map(|(_, health)| health)
    }

    fn is_quorum(&self, count: usize) -> bool {
        2 * count > self.nodes.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(replicated: bool) -> Budget {
        let mut budget = Budget::new(3, replicated);
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
        assert!(!Budget::new(1, false).may_harm(0));
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
}
