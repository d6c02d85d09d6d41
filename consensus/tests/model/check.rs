//! The model as stateright takes it: which steps there are, what must hold, and how far to look.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use evershard_consensus::Role;
use evershard_protocol::NodeSet;
use evershard_protocol::bugs::{self, Bug};
use stateright::{Checker, HasDiscoveries, Model, Property};

use crate::history::Fault;
use crate::scenario::{Grain, Scenario};
use crate::world::{World, id_of};

/// One step. Replicas by index; see [`World`] for what happens.
#[derive(Clone, PartialEq, Debug)]
pub enum Step {
    TimeOut(usize),
    Beat(usize),
    Save(usize),
    Flush(usize),
    Deliver { at: usize, from: usize, to: usize, again: bool },
    Restart(usize),
    Propose(usize),
    Change(usize),
    Read(usize),
    Elect { candidate: usize, voters: NodeSet, disks: bool },
    HandOver { leader: usize, heir: usize, voters: NodeSet },
    Replicate { leader: usize, follower: usize, disks: bool },
    ReplicatePart { leader: usize, follower: usize },
    Write(usize),
}

struct Check {
    scenario: Scenario,
    bug: Option<Bug>,
}

impl Check {
    fn fine_steps(&self, world: &World, steps: &mut Vec<Step>) {
        let Scenario { term_max, heartbeats_max, duplicates_max, .. } = self.scenario;
        for (index, replica) in world.replicas.iter().enumerate() {
            let leads = replica.raft.role() == Role::Leader;
            if leads || replica.raft.term().0 < term_max {
                steps.push(Step::TimeOut(index));
            }
            if leads && world.spent.heartbeats < heartbeats_max {
                steps.push(Step::Beat(index));
            }
            if replica.raft.hard_state_to_save().is_some() {
                steps.push(Step::Save(index));
            }
            if !replica.is_flushed() {
                steps.push(Step::Flush(index));
            }
        }
        for (at, parcel) in world.parcels.iter().enumerate() {
            steps.push(Step::Deliver { at, from: parcel.from, to: parcel.to, again: false });
            if world.spent.duplicates < duplicates_max {
                steps.push(Step::Deliver { at, from: parcel.from, to: parcel.to, again: true });
            }
        }
    }

    fn coarse_steps(&self, world: &World, steps: &mut Vec<Step>) {
        let scenario = &self.scenario;
        for (index, replica) in world.replicas.iter().enumerate() {
            let own = NodeSet::of(id_of(index));
            let others = scenario.everybody().without(own);
            let subsets = (1..=scenario.everybody().bits()).map(NodeSet::from_bits);
            let subsets = subsets.filter(|set| set.without(others).is_empty());
            let leads = replica.raft.role() == Role::Leader;
            if replica.raft.term().0 < scenario.term_max && !scenario.lease {
                for voters in subsets.clone() {
                    steps.push(Step::Elect { candidate: index, voters, disks: true });
                    if scenario.restarts_max > 0 {
                        steps.push(Step::Elect { candidate: index, voters, disks: false });
                    }
                }
            }
            if leads && world.spent.transfers < scenario.transfers_max && replica.raft.term().0 < scenario.term_max {
                for heir in others.iter().map(|id| usize::from(id.0)) {
                    let voters = scenario.everybody().without(NodeSet::of(id_of(heir)));
                    steps.push(Step::HandOver { leader: index, heir, voters: voters.without(own) });
                    steps.push(Step::HandOver { leader: index, heir, voters });
                }
            }
            if !replica.is_flushed() || replica.raft.hard_state_to_save().is_some() {
                steps.push(Step::Write(index));
            }
            for follower in others.iter().map(|id| usize::from(id.0)).filter(|_| leads) {
                if has_news(world, index, follower) {
                    steps.push(Step::Replicate { leader: index, follower, disks: true });
                    if scenario.restarts_max > 0 {
                        steps.push(Step::Replicate { leader: index, follower, disks: false });
                    }
                    if scenario.partial {
                        steps.push(Step::ReplicatePart { leader: index, follower });
                    }
                }
            }
        }
    }

    fn take(&self, world: &mut World, step: &Step) {
        match *step {
            Step::TimeOut(index) => world.time_out(index),
            Step::Beat(index) => {
                world.spent.heartbeats += 1;
                world.beat(index);
            }
            Step::Save(index) => world.save(index),
            Step::Flush(index) => world.flush(index),
            Step::Deliver { at, again, .. } => {
                let parcel = world.parcels[at].clone();
                if again {
                    world.spent.duplicates += 1;
                } else {
                    world.parcels.remove(at);
                }
                world.deliver(&parcel, true);
            }
            Step::Restart(index) => {
                world.spent.restarts += 1;
                world.restart(index, &self.scenario);
            }
            Step::Propose(index) => world.propose(index),
            Step::Change(index) => {
                let change = self.scenario.changes[usize::from(world.spent.changes)];
                world.spent.changes += 1;
                world.change(index, &change);
            }
            Step::Read(index) => {
                world.spent.reads += 1;
                world.begin_read(index);
            }
            Step::Elect { candidate, voters, disks } => world.elect(candidate, voters, disks),
            Step::HandOver { leader, heir, voters } => {
                world.spent.transfers += 1;
                world.hand_over(leader, heir, voters);
            }
            Step::Replicate { leader, follower, disks } => world.replicate(leader, follower, disks),
            Step::ReplicatePart { leader, follower } => world.replicate_part(leader, follower),
            Step::Write(index) => world.write(index),
        }
        match self.scenario.grain {
            Grain::Fine => world.limit_parcels(self.scenario.letters_max),
            Grain::Coarse => world.parcels.clear(),
        }
    }
}

/// Whether something would change if the follower heard the leader, as far as can be seen from outside.
fn has_news(world: &World, leader: usize, follower: usize) -> bool {
    let (leader, follower) = (&world.replicas[leader], &world.replicas[follower]);
    let in_step = leader
        .raft
        .peer(follower.raft.id())
        .is_some_and(|peer| peer.received == leader.raft.last() && peer.durable == peer.received && !peer.recovering);
    let same = (leader.raft.term(), leader.raft.commit()) == (follower.raft.term(), follower.raft.commit())
        && follower.raft.leader() == Some(leader.raft.id());
    !in_step || !same || !leader.reads.is_empty() || follower.raft.hard_state_to_save().is_some()
}

impl Model for Check {
    type State = World;
    type Action = Step;

    fn init_states(&self) -> Vec<World> {
        bugs::switch(None);
        let mut world = World::new(&self.scenario);
        if self.scenario.grain == Grain::Fine {
            world.speak_to(self.scenario.everybody());
        }
        self.scenario.begin.iter().for_each(|step| self.take(&mut world, step));
        assert!(world.fault.is_none(), "nothing has gone wrong before it begins");
        vec![world]
    }

    fn actions(&self, world: &World, steps: &mut Vec<Step>) {
        if world.fault.is_some() {
            return;
        }
        let (scenario, spent) = (&self.scenario, &world.spent);
        for (index, replica) in world.replicas.iter().enumerate() {
            if replica.raft.admits() {
                if spent.commands < scenario.commands_max {
                    steps.push(Step::Propose(index));
                }
                if usize::from(spent.changes) < scenario.changes.len() {
                    steps.push(Step::Change(index));
                }
            }
            if replica.raft.role() == Role::Leader && spent.reads < scenario.reads_max {
                steps.push(Step::Read(index));
            }
            if spent.restarts < scenario.restarts_max {
                steps.push(Step::Restart(index));
            }
        }
        match scenario.grain {
            Grain::Fine => self.fine_steps(world, steps),
            Grain::Coarse => self.coarse_steps(world, steps),
        }
    }

    fn next_state(&self, world: &World, step: Step) -> Option<World> {
        // The checker calls from a thread of its own, and a switch is its thread's.
        bugs::switch(self.bug);
        let mut next = world.clone();
        let taken = catch_unwind(AssertUnwindSafe(|| self.take(&mut next, &step)));
        bugs::switch(None);
        if taken.is_err() {
            next.clone_from(world);
            next.fault = Some(Fault::Assertion);
        }
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties: Vec<Property<Self>> = vec![
            Property::always("one leader per term", |_, world: &World| world.fault != Some(Fault::TwoLeaders)),
            Property::always("a leader has all that was committed", |_, world: &World| {
                world.fault != Some(Fault::LeaderLacksCommitted)
            }),
            Property::always("what is committed is the same everywhere", |_, world: &World| {
                world.fault != Some(Fault::CommittedDiffers)
            }),
            Property::always("a quorum has what is committed", |_, world: &World| {
                world.fault != Some(Fault::CommittedTooEarly)
            }),
            Property::always("commit never goes back", |_, world: &World| world.fault != Some(Fault::CommitWentBack)),
            Property::always("logs match", |_, world: &World| world.fault != Some(Fault::LogsDoNotMatch)),
            Property::always("no read is stale", |_, world: &World| world.fault != Some(Fault::StaleRead)),
            Property::always("no assertion fails", |_, world: &World| world.fault != Some(Fault::Assertion)),
            Property::sometimes(ELECTED_AGAIN, |_, world: &World| world.history.leaders_len() > 1),
        ];
        if self.scenario.commands_max > 0 {
            properties.push(Property::sometimes(COMMITTED, |_, world: &World| world.history.commands_committed() > 0));
        }
        if self.scenario.restarts_max > 0 {
            properties.push(Property::sometimes(ELECTED_AFTER_CRASH, |_, world: &World| {
                let leads = |one: &std::sync::Arc<crate::replica::Replica>| one.raft.term_start().is_some();
                world.spent.restarts > 0 && world.replicas.iter().any(leads)
            }));
        }
        properties
    }
}

/// Explores, and panics with the shortest way to what must not be, or if something never came about.
pub fn holds(scenario: Scenario) {
    let name = scenario.name;
    let found = explore(scenario, None);
    let failures: BTreeMap<_, _> = found.failures.iter().collect();
    assert!(failures.is_empty(), "{name}: {failures:#?}");
    assert!(found.never.is_empty(), "{name}: never came about: {:?}", found.never);
}

/// Explores with a bug switched on, and panics if nobody notices.
pub fn fails(bug: Bug, scenario: Scenario) {
    let name = scenario.name;
    let found = explore(scenario, Some(bug));
    assert!(!found.failures.is_empty(), "{name}: {} goes unnoticed", bug.slug());
    for (property, steps) in &found.failures {
        println!("  not so: {property}");
        steps.iter().for_each(|step| println!("    {step:?}"));
    }
}

struct Found {
    failures: BTreeMap<&'static str, Vec<Step>>,
    never: Vec<&'static str>,
}

fn explore(scenario: Scenario, bug: Option<Bug>) -> Found {
    let more: usize = std::env::var(DEPTH_VARIABLE).map_or(0, |text| text.parse().expect("a number of steps"));
    // The first state counts for the checker.
    let depth_max = scenario.depth_max + 1 + if bug.is_none() { more } else { 0 };
    let name = scenario.name;
    let begun = Instant::now();
    let builder = Check { scenario, bug }.checker().threads(1).target_max_depth(depth_max);
    let builder = if bug.is_some() { builder.finish_when(HasDiscoveries::AnyFailures) } else { builder };
    let checker = builder.spawn_bfs().join();
    println!(
        "{name}{}: {} states, {} of them different, {} steps deep, in {:.1} s",
        bug.map_or_else(String::new, |bug| format!(" with {}", bug.slug())),
        checker.state_count(),
        checker.unique_state_count(),
        checker.max_depth() - 1,
        begun.elapsed().as_secs_f64(),
    );
    let mut found = Found { failures: BTreeMap::new(), never: vec![] };
    let discoveries = checker.discoveries();
    for property in checker.model().properties() {
        match (discoveries.get(property.name), property.expectation.discovery_is_failure()) {
            (Some(path), true) => {
                found.failures.insert(property.name, path.clone().into_actions());
            }
            (None, false) => found.never.push(property.name),
            (None, true) | (Some(_), false) => {}
        }
    }
    found
}

/// So many steps more than by default.
const DEPTH_VARIABLE: &str = "EVERSHARD_MODEL_DEPTH";
const ELECTED_AGAIN: &str = "another leader is elected";
const COMMITTED: &str = "a command is committed";
const ELECTED_AFTER_CRASH: &str = "somebody leads after a crash";
