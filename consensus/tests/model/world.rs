//! All replicas together, the letters between them, and the steps that lead from one state to the next.
//!
//! # The abstraction
//!
//! The replicas are [`evershard_consensus::Raft`] itself, driven as the crate's page demands. What is simplified is
//! the world around it:
//!
//! * **Time.** Each replica has a clock of its own, which moves only in two ways: a little, so that heartbeats are
//!   due, or by more than every timer. Any replica may time out at any moment (a leader then follows, anybody else
//!   campaigns), and whoever receives a vote of a later term has been out of touch for long. That is more than clocks
//!   can do, and safety must not depend on less. A refusal out of loyalty is the same as the loss of the vote. With a
//!   lease safety does depend on clocks: there nobody's time passes at all, and only transfers elect.
//! * **Pre-votes** are granted without being asked for. They promise nothing, so this is more than can happen.
//! * **Letters** of one link are delivered in any order, or never, which is also how they are lost; some twice. A real
//!   link keeps order and loses only its end. At most [`Scenario::letters_max`] are under way on a link: fewer than
//!   can be in reality.
//! * **Disks.** A save or flush ends in the step in which it begins, so a state that was superseded is never written
//!   late: less than can happen; the swarm of the cluster tests does that. A restart loses what was not written. It
//!   is noticed by all at once, but as everything may be late, that is no restriction.
//! * **Coarse** steps are fine ones in a row, and so are a part of what fine ones can do: an election with a given set
//!   of voters, a follower that takes over all that the leader has. What is said to others is never sent.
//!
//! So a counterexample is real, except that clocks and pre-votes may be unlikely; and what is not found is
//! impossible only within these bounds. Two states are the same if the cores are (without instants, which the first
//! rule makes irrelevant, and without dice), the logs, disks, letters, the history and what is spent.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use evershard_consensus::{HardState, Output, Role};
use evershard_protocol::{Instant, MembershipChange, NodeId, NodeSet, Position};

use crate::history::{Fault, History};
use crate::replica::{Birth, Letter, Replica};
use crate::scenario::{Scenario, Spent, nodes};

/// A letter under way.
#[derive(Clone, Hash, Debug)]
pub struct Parcel {
    pub from: usize,
    pub to: usize,
    pub letter: Letter,
}

/// A state of the model.
#[derive(Clone, Debug)]
pub struct World {
    pub replicas: Vec<Arc<Replica>>,
    pub parcels: Vec<Arc<Parcel>>,
    pub history: History,
    pub spent: Spent,
    pub fault: Option<Fault>,
    /// Replicas to whom logs are offered in the current step.
    listeners: NodeSet,
}

impl World {
    pub fn new(scenario: &Scenario) -> Self {
        let mut world = Self {
            replicas: vec![],
            parcels: vec![],
            history: History::new(scenario.durability, nodes(0..scenario.voters), usize::from(scenario.len())),
            spent: Spent::default(),
            fault: None,
            listeners: NodeSet::EMPTY,
        };
        for id in scenario.everybody().iter() {
            let replica = Replica::start(&birth(scenario, id), vec![], HardState::NEW, Instant(1));
            world.replicas.push(Arc::new(replica));
        }
        for (one, other) in world.pairs() {
            let peer = id_of(other);
            world.act(one, |replica, out| replica.link_up(peer, out));
        }
        if scenario.settled {
            world.settle(scenario);
        }
        world
    }

    /// Node 0 is elected, everybody has its log, and knows it to be committed. No bug is switched on meanwhile.
    fn settle(&mut self, scenario: &Scenario) {
        self.elect(0, nodes(1..scenario.voters), true);
        for follower in (1..usize::from(scenario.len())).cycle().take(3 * usize::from(scenario.len())) {
            if self.spent.changes == 0 && scenario.learners > 0 && self.replicas[0].raft.commit() > Position::ZERO {
                let learn = nodes(scenario.voters..scenario.len());
                self.change(0, &MembershipChange { learn, ..Default::default() });
                self.spent.changes = 1;
            }
            self.replicate(0, follower, true);
        }
        self.spent = Spent::default();
        let end = self.replicas[0].raft.last();
        assert!(self.fault.is_none() && self.replicas.iter().all(|one| one.raft.commit() == end), "all is quiet");
    }

    // Fine steps.

    pub fn time_out(&mut self, index: usize) {
        self.act(index, Replica::time_out);
    }

    pub fn beat(&mut self, index: usize) {
        self.act(index, |replica, _| replica.beat());
    }

    pub fn save(&mut self, index: usize) {
        self.act(index, Replica::save);
    }

    pub fn flush(&mut self, index: usize) {
        self.act(index, |replica, _| replica.flush());
    }

    pub fn propose(&mut self, index: usize) {
        self.spent.commands += 1;
        let command = self.spent.commands;
        self.act(index, |replica, _| replica.append(command, None));
    }

    pub fn change(&mut self, index: usize, change: &MembershipChange) {
        self.act(index, |replica, _| {
            if let Ok(next) = replica.raft.plan_membership(change) {
                replica.append(0, Some(next));
            }
        });
    }

    pub fn begin_read(&mut self, index: usize) {
        let committed = self.history.committed_end();
        self.act(index, |replica, _| replica.begin_read(committed));
    }

    pub fn deliver(&mut self, parcel: &Parcel, patient: bool) {
        let from = id_of(parcel.from);
        self.act(parcel.to, |replica, out| replica.receive(from, &parcel.letter, patient, out));
    }

    pub fn restart(&mut self, index: usize, scenario: &Scenario) {
        self.parcels.retain(|parcel| parcel.from != index && parcel.to != index);
        self.history.on_restart(index);
        let id = id_of(index);
        self.act(index, |replica, _| *replica = replica.restart(&birth(scenario, id)));
        for peer in (0..self.replicas.len()).filter(|peer| *peer != index) {
            self.act(index, |replica, out| replica.link_up(id_of(peer), out));
            self.act(peer, |replica, out| {
                replica.link_down(id, out);
                replica.link_up(id, out);
            });
        }
    }

    // Coarse steps.

    /// `index` campaigns and is answered by `voters` only. Without `disks` nothing that they decide is saved.
    pub fn elect(&mut self, index: usize, voters: NodeSet, disks: bool) {
        if self.replicas[index].raft.role() == Role::Leader {
            self.time_out(index);
        }
        self.time_out(index);
        self.exchange(index, voters, disks, true);
    }

    /// `leader` hands over to `heir`, who is answered by `voters` only.
    pub fn hand_over(&mut self, leader: usize, heir: usize, voters: NodeSet) {
        self.act(leader, |replica, out| replica.transfer(id_of(heir), out));
        let summons: Vec<_> = std::mem::take(&mut self.parcels);
        for parcel in summons {
            self.deliver(&parcel, false);
        }
        self.exchange(heir, voters, true, false);
    }

    /// As [`World::replicate`], but the link is lost as soon as the follower has appended something.
    pub fn replicate_part(&mut self, leader: usize, follower: usize) {
        let before = self.replicas[follower].log.clone();
        self.listeners = NodeSet::of(id_of(follower)).union(NodeSet::of(id_of(leader)));
        self.beat(leader);
        for _ in 0..EXCHANGES_MAX {
            self.write(leader);
            self.write(follower);
            let heard = std::mem::take(&mut self.parcels);
            // What the follower has just written is still acknowledged.
            let over = self.replicas[follower].log != before;
            let heard = heard.iter().filter(|parcel| !over || parcel.to == leader);
            heard
                .filter(|parcel| parcel.from == leader || parcel.to == leader)
                .for_each(|parcel| self.deliver(parcel, true));
            if over {
                break;
            }
        }
        self.listeners = NodeSet::EMPTY;
    }

    /// `follower` hears all that `leader` has to say, and answers. Without `disks` it writes nothing.
    pub fn replicate(&mut self, leader: usize, follower: usize, disks: bool) {
        self.listeners = NodeSet::of(id_of(follower));
        self.beat(leader);
        self.exchange(leader, self.listeners.union(NodeSet::of(id_of(leader))), disks, true);
        self.listeners = NodeSet::EMPTY;
    }

    pub fn write(&mut self, index: usize) {
        if self.replicas[index].raft.hard_state_to_save().is_some() {
            self.save(index);
        }
        if !self.replicas[index].is_flushed() {
            self.flush(index);
        }
    }

    /// Letters between `index` and the others, until there are none. What is said to anybody else is lost.
    fn exchange(&mut self, index: usize, others: NodeSet, disks: bool, patient: bool) {
        for _ in 0..EXCHANGES_MAX {
            self.write(index);
            let writers = others.iter().map(|id| usize::from(id.0)).filter(|_| disks);
            writers.for_each(|other| self.write(other));
            let first = std::mem::take(&mut self.parcels);
            let mine = |parcel: &&Arc<Parcel>| {
                let other = if parcel.from == index { parcel.to } else { parcel.from };
                (parcel.from == index || parcel.to == index) && others.contains(id_of(other))
            };
            let kept: Vec<_> = first.iter().filter(mine).cloned().collect();
            if kept.is_empty() || self.fault.is_some() {
                return;
            }
            kept.iter().for_each(|parcel| self.deliver(parcel, patient));
        }
        panic!("an exchange of letters ends");
    }

    /// Listeners of all steps to come.
    pub fn speak_to(&mut self, listeners: NodeSet) {
        self.listeners = listeners;
    }

    /// Letters beyond what a link holds are lost, the oldest first.
    pub fn limit_parcels(&mut self, letters_max: usize) {
        for (from, to) in self.pairs() {
            let len = self.parcels.iter().filter(|parcel| (parcel.from, parcel.to) == (from, to)).count();
            for _ in letters_max..len {
                let oldest = self.parcels.iter().position(|parcel| (parcel.from, parcel.to) == (from, to));
                self.parcels.remove(oldest.expect("just counted"));
            }
        }
    }

    fn pairs(&self) -> impl Iterator<Item = (usize, usize)> + use<> {
        let len = self.replicas.len();
        (0..len * len).map(move |pair| (pair / len, pair % len)).filter(|(one, other)| one != other)
    }

    /// One replica does something, and finishes its duty cycle.
    fn act(&mut self, index: usize, input: impl FnOnce(&mut Replica, &mut Output)) {
        let replica = Arc::make_mut(&mut self.replicas[index]);
        let mut out = Output::new();
        input(replica, &mut out);
        for (to, letter) in replica.finish(self.listeners, out) {
            self.parcels.push(Arc::new(Parcel { from: index, to: usize::from(to.0), letter }));
        }
        let stale = settle_reads(replica);
        let all = self.replicas.iter().map(Arc::as_ref);
        let observed = self.history.observe(&self.replicas[index], all);
        self.fault = self.fault.or(observed.err()).or(stale.then_some(Fault::StaleRead));
    }
}

/// Takes out the reads that have ended; says whether one of them was confirmed too early.
fn settle_reads(replica: &mut Replica) -> bool {
    let Replica { raft, reads, .. } = replica;
    let stale = reads.iter().any(|(read, committed)| raft.is_confirmed(read) && read.position < *committed);
    reads.retain(|(read, _)| raft.is_pending(read) && !raft.is_confirmed(read));
    stale
}

impl Hash for World {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.replicas.iter().for_each(|replica| replica.hash(hasher));
        // In which order the letters were sent decides only which is lost first, so it does not count.
        let letters = self.parcels.iter().map(|parcel| {
            let mut own = DefaultHasher::new();
            parcel.hash(&mut own);
            own.finish()
        });
        letters.fold(0, u64::wrapping_add).hash(hasher);
        (&self.history, self.spent, self.fault).hash(hasher);
    }
}

impl PartialEq for World {
    fn eq(&self, other: &Self) -> bool {
        let fingerprint = |world: &Self| {
            let mut hasher = DefaultHasher::new();
            world.hash(&mut hasher);
            hasher.finish()
        };
        fingerprint(self) == fingerprint(other)
    }
}

pub fn id_of(index: usize) -> NodeId {
    NodeId(u8::try_from(index).expect("few replicas"))
}

fn birth(scenario: &Scenario, id: NodeId) -> Birth {
    let joins = id.0 >= scenario.voters;
    let voters = if joins { NodeSet::EMPTY } else { nodes(0..scenario.voters) };
    let lease_ns = if scenario.lease { LEASE_NS } else { 0 };
    Birth { id, voters, durability: scenario.durability, lease_ns }
}

const LEASE_NS: u64 = 100_000_000;
/// More than any two replicas have to say to each other about a few records.
const EXCHANGES_MAX: usize = 64;
