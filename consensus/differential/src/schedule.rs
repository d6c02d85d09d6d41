//! One schedule from one seed, for both clusters at once, and the first difference between them.

use std::fmt::Write;

use crate::cluster::{Change, Cluster, NODES_LEN, Node, Record, VOTERS_LEN};
use crate::ours::Ours;
use crate::theirs::Theirs;

/// What happened how often, to see that the schedules are worth something.
#[derive(Clone, Copy, Default, Debug)]
pub struct Counts {
    pub steps: u64,
    pub elections: u64,
    pub commands: u64,
    pub committed: u64,
    pub overwritten: u64,
    pub transfers: u64,
    pub changes: u64,
    pub crashes: u64,
}

/// One thing that is done to both.
#[derive(Clone, Debug)]
enum Step {
    Campaign(Node),
    Propose(Node),
    Transfer(Node, Node),
    Change(Node, Change),
    Crash(Node),
    Restart(Node),
    Stick(Node, bool),
    Part(Vec<usize>),
}

/// Both clusters, and what the schedule has made of the world.
pub struct Schedule {
    ours: Ours,
    theirs: Theirs,
    up: Vec<bool>,
    stuck: Vec<bool>,
    groups: Vec<usize>,
    voters: Vec<Node>,
    learners: Vec<Node>,
    /// Left out, and not yet heard by a leader that has taken it in again. Ours tells a node that it was removed.
    left: Vec<bool>,
    commands: u64,
    dice: u64,
    story: String,
    pub counts: Counts,
}

impl Schedule {
    pub fn new(seed: u64) -> Self {
        Self {
            ours: Ours::new(),
            theirs: Theirs::new(),
            up: vec![true; NODES_LEN],
            stuck: vec![false; NODES_LEN],
            groups: vec![0; NODES_LEN],
            voters: (0..VOTERS_LEN).collect(),
            learners: vec![],
            left: vec![false; NODES_LEN],
            commands: 0,
            dice: seed,
            story: String::new(),
            counts: Counts::default(),
        }
    }

    /// Runs so many steps.
    ///
    /// # Errors
    /// The first difference, with the steps that led there.
    pub fn run(&mut self, steps: usize) -> Result<(), String> {
        for _ in 0..steps {
            let Some(step) = self.draw() else { continue };
            self.take_and_compare(&step)?;
        }
        for node in 0..NODES_LEN {
            if !self.up[node] {
                self.take_and_compare(&Step::Restart(node))?;
            }
            if self.stuck[node] {
                self.take_and_compare(&Step::Stick(node, false))?;
            }
        }
        self.take_and_compare(&Step::Part(vec![0; NODES_LEN]))?;
        // Whoever has the best log can be elected. The first round tells everybody the latest term.
        for node in self.voters.clone().into_iter().chain(self.voters.clone()) {
            self.take_and_compare(&Step::Campaign(node))?;
        }
        let leader = self.leader().ok_or_else(|| self.tell("nobody leads though nothing is in the way"))?;
        self.take_and_compare(&Step::Propose(leader))?;
        let end = self.ours.view(leader).expect("it runs");
        if end.committed_len != end.log.len() {
            return Err(self.tell("the last command is not committed though nothing is in the way"));
        }
        self.counts.committed = end.log.iter().filter(|one| matches!(one, Record::Command(_))).count() as u64;
        Ok(())
    }

    fn take_and_compare(&mut self, step: &Step) -> Result<(), String> {
        self.counts.steps += 1;
        writeln!(self.story, "  {step:?}").expect("a string takes everything");
        let logs: Vec<_> = (0..NODES_LEN).map(|node| self.ours.view(node).map(|view| view.log)).collect();
        let same = self.take(step);
        self.ours.settle();
        self.theirs.settle();
        if !same {
            return Err(self.tell("one takes it and the other does not"));
        }
        for (node, before) in logs.iter().enumerate() {
            let (Some(before), Some(after)) = (before, self.ours.view(node)) else { continue };
            self.counts.overwritten += u64::from(!after.log.starts_with(before) && !matches!(step, Step::Crash(_)));
        }
        if let (Step::Change(before, _), Some(leader)) = (step, self.leader()) {
            let view = self.ours.view(leader).expect("it leads");
            (self.voters, self.learners) = (view.voters, view.learners);
            if leader != *before {
                // A leader of ours that was removed hands over; theirs leads on for ever.
                self.theirs.campaign(leader);
                self.theirs.settle();
            }
        }
        for node in 0..NODES_LEN {
            let met = self.leader().is_some_and(|leader| self.works_with(leader, node));
            self.left[node] = !self.belongs(node) || (self.left[node] && !met);
        }
        self.find_difference().map_or(Ok(()), |difference| Err(self.tell(&difference)))
    }

    /// False if only one of them does it.
    fn take(&mut self, step: &Step) -> bool {
        match step {
            Step::Campaign(node) => {
                self.counts.elections += 1;
                self.ours.campaign(*node);
                self.theirs.campaign(*node);
            }
            Step::Propose(node) => {
                self.commands += 1;
                self.counts.commands += 1;
                return self.ours.propose(*node, self.commands) == self.theirs.propose(*node, self.commands);
            }
            Step::Transfer(leader, to) => {
                self.counts.transfers += 1;
                self.ours.transfer(*leader, *to);
                self.theirs.transfer(*leader, *to);
            }
            Step::Change(leader, change) => {
                self.counts.changes += 1;
                return self.ours.change(*leader, *change) == self.theirs.change(*leader, *change);
            }
            Step::Crash(node) => {
                self.counts.crashes += 1;
                self.up[*node] = false;
                self.stuck[*node] = false;
                self.ours.crash(*node);
                self.theirs.crash(*node);
            }
            Step::Restart(node) => {
                self.up[*node] = true;
                self.ours.restart(*node);
                self.theirs.restart(*node);
            }
            Step::Stick(node, stuck) => {
                self.stuck[*node] = *stuck;
                self.ours.stick(*node, *stuck);
                self.theirs.stick(*node, *stuck);
            }
            Step::Part(groups) => {
                self.groups.clone_from(groups);
                self.ours.part(groups);
                self.theirs.part(groups);
            }
        }
        true
    }

    /// The next step; none if what came up makes no sense now.
    fn draw(&mut self) -> Option<Step> {
        let node = self.roll(NODES_LEN);
        let at = self.roll(self.voters.len());
        let voter = self.voters[at];
        let leader = self.leader().filter(|_| !self.stuck.contains(&true));
        match self.roll(22) {
            0..4 => self.may_campaign(voter).then_some(Step::Campaign(voter)),
            4..9 => {
                let leads = |node: &Node| self.belongs(*node) && self.ours.view(*node).is_some_and(|view| view.leads);
                let leaders: Vec<Node> = (0..NODES_LEN).filter(leads).collect();
                let at = self.roll(leaders.len().max(1));
                leaders.get(at).map(|leader| Step::Propose(*leader))
            }
            // Not while a disk is stuck: see `find_difference`.
            9..13 if self.stuck.contains(&true) => None,
            9..11 => {
                let groups = (0..NODES_LEN).map(|_| self.roll(2)).collect();
                Some(Step::Part(groups))
            }
            11..13 => Some(Step::Part(vec![0; NODES_LEN])),
            13 => self.up[node].then_some(Step::Stick(node, !self.stuck[node])),
            14 => self.up[node].then_some(Step::Crash(node)),
            15..17 => (0..NODES_LEN).find(|node| !self.up[*node]).map(Step::Restart),
            17 => {
                let leader = leader.filter(|leader| *leader != voter && self.works_with(*leader, voter))?;
                Some(Step::Transfer(leader, voter))
            }
            _ => {
                let leader = leader?;
                let change = self.draw_change(leader, node)?;
                self.can_end(leader, change).then_some(Step::Change(leader, change))
            }
        }
    }

    fn draw_change(&mut self, leader: Node, node: Node) -> Option<Change> {
        let learner = self.learners.first().copied();
        match self.roll(5) {
            0 | 1 if !self.voters.contains(&node) && !self.learners.contains(&node) => Some(Change::Learn(node)),
            2 if node != leader && self.voters.contains(&node) && self.voters.len() > 2 => Some(Change::Learn(node)),
            3 if self.learners.contains(&node) || (self.voters.contains(&node) && self.voters.len() > 2) => {
                Some(Change::Remove(node))
            }
            4 if self.voters.contains(&node) => learner.map(|learner| Change::Replace(node, learner)),
            _ => learner.map(Change::Promote),
        }
    }

    /// Nobody who would be asked is slow to write: theirs holds back even pre-votes until what came before is written,
    /// ours only what a write is a promise for.
    fn may_campaign(&self, node: Node) -> bool {
        let hears = |other: Node| self.up[other] && self.groups[other] == self.groups[node];
        self.up[node] && (0..NODES_LEN).all(|other| !hears(other) || !self.stuck[other])
    }

    /// Both majorities are there: a change that hangs between them is another thing in theirs, which goes by it only
    /// when it is applied.
    fn can_end(&self, leader: Node, change: Change) -> bool {
        let (came, gone) = match change {
            Change::Promote(node) => (Some(node), None),
            Change::Learn(node) | Change::Remove(node) => (None, Some(node)),
            Change::Replace(old, new) => (Some(new), Some(old)),
        };
        let old = self.voters.iter().copied();
        let next: Vec<Node> = old.filter(|node| Some(*node) != gone).chain(came).collect();
        let works = |node: &&Node| self.works_with(leader, **node);
        if gone == Some(leader) && !self.voters.iter().chain(&self.learners).all(|node| self.works_with(leader, *node))
        {
            // Where theirs leads on, somebody who has missed the change would hear of terms that ours does not tell.
            return false;
        }
        let majority = |set: &[Node]| 2 * set.iter().filter(works).count() > set.len();
        majority(&next) && majority(&self.voters) && came.is_none_or(|node| self.works_with(leader, node))
    }

    /// The leader that can commit, if there is one.
    fn leader(&self) -> Option<Node> {
        (0..NODES_LEN).find(|node| {
            let Some(view) = self.ours.view(*node).filter(|view| view.leads) else { return false };
            let works = |other: &&Node| self.works_with(*node, **other);
            2 * view.voters.iter().filter(works).count() > view.voters.len() && !self.stuck[*node]
        })
    }

    fn belongs(&self, node: Node) -> bool {
        self.voters.contains(&node) || self.learners.contains(&node)
    }

    fn works_with(&self, node: Node, other: Node) -> bool {
        self.up[other] && !self.stuck[other] && self.groups[node] == self.groups[other]
    }

    fn find_difference(&self) -> Option<String> {
        let leader = self.leader();
        for node in (0..NODES_LEN).filter(|node| !self.left[*node]) {
            let (Some(ours), Some(theirs)) = (self.ours.view(node), self.theirs.view(node)) else { continue };
            if ours.term != theirs.term && !self.stuck[node] {
                return Some(format!("node {node} is in different terms"));
            }
            if ours.leads != theirs.leads {
                return Some(format!("one believes that node {node} leads"));
            }
            // A follower of theirs says nothing while its disk is stuck, and so is not sent what it has missed.
            if self.stuck[node] && !ours.leads {
                continue;
            }
            if ours.log != theirs.log || ours.terms != theirs.terms {
                return Some(format!("the logs of node {node} differ"));
            }
            let told = leader.is_some_and(|leader| self.works_with(leader, node));
            if told && ours.committed_len != theirs.committed_len {
                return Some(format!("node {node} holds different prefixes for committed"));
            }
            let same = (&ours.voters, &ours.learners, ours.joint) == (&theirs.voters, &theirs.learners, theirs.joint);
            if told && !same {
                return Some(format!("node {node} has different configurations"));
            }
        }
        None
    }

    fn tell(&self, what: &str) -> String {
        let mut text = format!("{what}, after\n{}", self.story);
        for node in 0..NODES_LEN {
            let (ours, theirs) = (self.ours.view(node), self.theirs.view(node));
            writeln!(text, "node {node}\n  ours   {ours:?}\n  theirs {theirs:?}").expect("a string takes everything");
        }
        text
    }

    /// A number below `bound`, from the seed.
    fn roll(&mut self, bound: usize) -> usize {
        self.dice = self.dice.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.dice;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((word ^ (word >> 31)) % bound as u64).expect("small")
    }
}
