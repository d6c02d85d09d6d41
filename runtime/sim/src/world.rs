//! A whole cluster with its clients in one thread: a queue of events in order of time, and what each of them does.
//!
//! Events at the same time happen in the order in which they were planned. An event never looks at anything but the
//! world; every choice comes from a named stream of the seed. So a run is a function of its plan.
//!
//! * [`crate::turns`]: what a shard's turn and a client's poll bring about.
//! * [`crate::faults`]: what faults do to the world, and their end.
//! * [`crate::script`]: the same by hand, for scenarios.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use evershard_consensus::Durability;
use evershard_log::{SegmentHeader, SegmentNumber};
use evershard_node::core::Core;
use evershard_node::env::ReadRequest;
use evershard_protocol::{Membership, NodeId, Position};
use evershard_sys::buffer::AlignedBuffer;

use crate::budget::Budget;
use crate::client::Client;
use crate::clock::{Clock, Time};
use crate::disk::SimDisk;
use crate::history::History;
use crate::network::{CLIENT_SITE, Links, Network, Reminder};
use crate::node::{self, Node, NodeFile, Process};
use crate::oracle::damage::check_start;
use crate::oracle::{ShardOracle, Violation};
use crate::panics;
use crate::plan::{MS, Plan};
use crate::random::Random;
use crate::service::KeyValue;
use crate::stats::Stats;
use crate::trace::Trace;

/// Something that will happen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// A shard's turn: node, shard, life.
    Turn(usize, usize, u64),
    /// See [`Reminder`].
    Net(Reminder),
    /// A write ends: node, shard, its name on the disk, life.
    Write(usize, usize, u64, u64),
    /// The background has prepared a segment: node, shard, life.
    Prepared(usize, usize, u64, SegmentHeader),
    /// The background has read: node, shard, life.
    Read(usize, usize, u64, ReadRequest),
    /// The background has written a block again: node, shard, life, the repair's name.
    Repaired(usize, usize, u64, u64),
    /// The background has ended work on snapshots: node, shard, life, its name.
    Background(usize, usize, u64, u64),
    /// A node starts that has had so many lives.
    Start(usize, u64),
    /// A paused process goes on.
    Resume(usize, u64),
    /// A client has something to do.
    Client(usize),
    /// A fault of the plan begins, by its place in the kept list.
    Begin(usize),
    /// It ends.
    End(usize),
}

#[derive(PartialEq, Eq)]
struct Queued {
    time: Time,
    sequence: u64,
    event: Event,
}

impl Ord for Queued {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.time, self.sequence).cmp(&(other.time, other.sequence))
    }
}

impl PartialOrd for Queued {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// The streams that the world itself draws from.
pub struct Streams {
    /// Latencies of disks and background.
    pub disk: Random,
    /// Length of turns.
    pub turn: Random,
    /// Details of faults that their plan leaves open.
    pub fault: Random,
}

impl Streams {
    /// How much later one node comes back than another.
    pub(crate) fn fault_delay(&mut self) -> u64 {
        self.fault.below(400 * MS)
    }
}

/// A cluster, its clients and its judges.
pub struct World {
    /// Where it comes from.
    pub plan: Plan,
    /// Now.
    pub time: Time,
    /// The nodes.
    pub nodes: Vec<Node>,
    /// The clients.
    pub clients: Vec<Client>,
    /// The network.
    pub network: Network,
    /// What is known of each shard.
    pub oracles: Vec<ShardOracle>,
    /// What may still go wrong.
    pub budget: Budget,
    /// What clients asked.
    pub history: History,
    /// What happened.
    pub trace: Trace,
    /// How much of everything.
    pub stats: Stats,
    pub(crate) streams: Streams,
    /// Messages of operators on their way: by connection.
    pub(crate) operators: BTreeMap<usize, Vec<u8>>,
    /// The nodes that faults of the plan have hit, by their place in the list.
    pub(crate) victims: BTreeMap<usize, usize>,
    /// All trouble is over.
    pub(crate) healed: bool,
    /// Blocks on their way to be written again, by name.
    pub(crate) repairs: BTreeMap<u64, (SegmentNumber, u64, AlignedBuffer)>,
    pub(crate) client_wakes: Vec<Option<Time>>,
    queue: BinaryHeap<Reverse<Queued>>,
    sequence: u64,
}

impl World {
    /// A world in which nothing has happened yet.
    #[must_use]
    pub fn new(plan: Plan) -> Self {
        let (seed, options) = (plan.seed, plan.options.clone());
        let clients: Vec<Client> = (0..options.clients * options.shards)
            .map(|index| Client::new(index, index % options.shards, &options, seed))
            .collect();
        let links = Links {
            latency_ns: options.latency_ns,
            bandwidth: options.bandwidth,
            cuts_per_mille: options.cuts_per_mille,
            unruly_per_mille: options.unruly_per_mille,
        };
        let sites = CLIENT_SITE + clients.len() + 1;
        let mut world = Self {
            time: 0,
            nodes: (0..options.nodes).map(|index| new_node(seed, index, &plan)).collect(),
            client_wakes: vec![None; clients.len()],
            clients,
            network: Network::new(sites, links, Random::stream(seed, "network")),
            oracles: (0..options.shards).map(|_| ShardOracle::new(options.nodes, options.voters)).collect(),
            budget: Budget::new(options.nodes, options.voters, options.durability == Durability::Replicated),
            history: History::default(),
            trace: Trace::default(),
            stats: Stats::default(),
            streams: Streams {
                disk: Random::stream(seed, "disk"),
                turn: Random::stream(seed, "turn"),
                fault: Random::stream(seed, "fault details"),
            },
            operators: BTreeMap::new(),
            victims: BTreeMap::new(),
            repairs: BTreeMap::new(),
            healed: false,
            queue: BinaryHeap::new(),
            sequence: 0,
            plan,
        };
        let mut starts = Random::stream(seed, "starts");
        for index in 0..options.nodes {
            world.at(starts.below(80 * MS), Event::Start(index, 0));
        }
        for index in 0..world.clients.len() {
            world.wake_client(index, starts.below(100 * MS));
        }
        for index in 0..world.plan.faults.len() {
            world.at(world.plan.faults[index].at, Event::Begin(index));
        }
        world
    }

    /// Plans an event.
    pub(crate) fn at(&mut self, time: Time, event: Event) {
        self.sequence += 1;
        self.queue.push(Reverse(Queued { time: time.max(self.time), sequence: self.sequence, event }));
    }

    /// Lets everything happen up to a time.
    ///
    /// # Errors
    /// [`Violation`]: the world stands still where a rule was broken.
    pub fn run_until_time(&mut self, end: Time) -> Result<(), Violation> {
        while self.queue.peek().is_some_and(|Reverse(next)| next.time <= end) {
            let Reverse(Queued { time, event, .. }) = self.queue.pop().expect("just seen");
            self.time = time;
            self.stats.events += 1;
            self.happen(event)?;
        }
        self.time = self.time.max(end);
        Ok(())
    }

    fn happen(&mut self, event: Event) -> Result<(), Violation> {
        match event {
            Event::Turn(node, shard, life) => self.on_turn(node, shard, life),
            Event::Net(reminder) => self.on_reminder(reminder),
            Event::Write(node, shard, id, life) => self.on_write(node, shard, id, life),
            Event::Prepared(node, shard, life, header) => {
                self.on_prepared(node, shard, life, &header);
                Ok(())
            }
            Event::Read(node, shard, life, request) => {
                self.on_read(node, shard, life, request);
                Ok(())
            }
            Event::Repaired(node, shard, life, id) => {
                self.on_repaired(node, shard, life, id);
                Ok(())
            }
            Event::Background(node, shard, life, name) => {
                self.on_background(node, shard, life, name);
                Ok(())
            }
            Event::Start(node, lives) => self.start(node, lives),
            Event::Resume(node, life) => {
                self.resume(node, life);
                Ok(())
            }
            Event::Client(client) => self.on_client(client),
            Event::Begin(index) => {
                self.begin_fault(index);
                Ok(())
            }
            Event::End(index) => {
                self.end_fault(index);
                Ok(())
            }
        }
    }

    /// Hands the network's reminders to the queue.
    pub(crate) fn settle_network(&mut self) {
        for (time, reminder) in self.network.take_reminders() {
            self.at(time, Event::Net(reminder));
        }
    }

    /// A node's process begins.
    pub(crate) fn start(&mut self, node: usize, lives: u64) -> Result<(), Violation> {
        if self.nodes[node].life != lives || self.nodes[node].process.is_some() {
            return Ok(());
        }
        self.nodes[node].life += 1;
        self.stats.starts += 1;
        let options = self.plan.options.clone();
        let mut shards = Vec::new();
        for shard in 0..options.shards {
            let Node { clock, disks, damaged, ever_damaged, file, .. } = &mut self.nodes[node];
            let (disk, now) = (&mut disks[shard], self.time);
            let opened = panics::watch(|| node::open(node, shard, *file, &options, clock, disk, now));
            let outcome = match opened {
                Ok(outcome) => outcome,
                Err(said) => return Violation::of("panic", format!("n{node} at its start: {said}")),
            };
            check_start(node, damaged[shard], ever_damaged[shard], &outcome)?;
            disk.bad_reads = 0;
            let started = outcome.expect("a refused start is a violation");
            let (end, verdict) = (started.recovered.end, started.recovered.verdict);
            self.trace.fold(&[1, node as u64, shard as u64, end.0]);
            self.trace.say(now, node, shard, || {
                let hard = started.restored.hard;
                format!("starts with a log up to {end} ({verdict:?}), {:?}, {:?}", hard.term, hard.standing)
            });
            let made = panics::watch(|| node::make(node, shard, *file, &options, clock, started, now));
            match made {
                Ok(running) => shards.push(running),
                Err(said) => return Violation::of("panic", format!("n{node} at its start: {said}")),
            }
            self.oracles[shard].on_start(node);
        }
        self.nodes[node].slot_damaged.fill(false);
        self.nodes[node].process = Some(Process { shards, stopping: None, paused_until: 0 });
        self.budget.node(node).examined = true;
        let life = self.nodes[node].life;
        for shard in 0..options.shards {
            self.wake_shard(node, shard, self.time + 1000);
            self.trace.fold(&[life]);
        }
        Ok(())
    }

    /// Plans a shard's turn, unless an earlier one is planned.
    pub(crate) fn wake_shard(&mut self, node: usize, shard: usize, time: Time) {
        let life = self.nodes[node].life;
        let Some(running) = self.nodes[node].running(shard) else { return };
        let time = time.max(running.busy_until);
        if running.wake.is_none_or(|wake| time < wake) {
            running.wake = Some(time);
            self.at(time, Event::Turn(node, shard, life));
        }
    }

    /// Plans a client's poll, unless an earlier one is planned.
    pub(crate) fn wake_client(&mut self, client: usize, time: Time) {
        if self.client_wakes[client].is_none_or(|wake| time < wake) && time < Time::MAX / 2 {
            self.client_wakes[client] = Some(time);
            self.at(time, Event::Client(client));
        }
    }

    /// Who leads a shard: the running leader of the highest term.
    #[must_use]
    pub fn leader(&self, shard: usize) -> Option<usize> {
        let leads = |node: &&Node| {
            let process = node.process.as_ref()?;
            let raft = process.shards[shard].core().raft();
            (raft.role() == evershard_consensus::Role::Leader).then(|| (raft.term(), raft.id()))
        };
        let best = self.nodes.iter().filter_map(|node| leads(&node)).max()?;
        let NodeId(id) = best.1;
        Some(usize::from(id))
    }

    /// All replicas of a shard; `None` for a node that is down.
    #[must_use]
    pub fn cores(&self, shard: usize) -> Vec<Option<&Core<KeyValue>>> {
        self.nodes.iter().map(|node| node.core(shard)).collect()
    }

    /// The configurations in force: of each shard the last that is committed, and later ones that a running replica has.
    #[must_use]
    pub fn configurations(&self) -> Vec<Membership> {
        let mut found = Vec::new();
        for (shard, oracle) in self.oracles.iter().enumerate() {
            let (position, committed) = oracle.log.replay.membership();
            found.push(committed);
            for core in self.nodes.iter().filter_map(|node| node.core(shard)) {
                let raft = core.raft();
                if raft.membership_position() > position {
                    found.push(raft.membership_at(raft.last()));
                }
            }
        }
        found.sort_unstable_by_key(|one| (one.voters, one.outgoing, one.learners));
        found.dedup();
        found
    }

    /// What is committed on each shard, as far as is known.
    #[must_use]
    pub fn committed(&self) -> Vec<Position> {
        self.oracles.iter().map(ShardOracle::committed).collect()
    }

    /// Brings the budget up to date.
    pub(crate) fn examine(&mut self) {
        self.budget.set_configurations(self.configurations());
        let committed = self.committed();
        for index in 0..self.nodes.len() {
            let node = &mut self.nodes[index];
            let sound = node.is_sound() && !node.disks.iter().any(SimDisk::is_about_to_fail);
            let health = self.budget.node(index);
            health.sound = sound;
            if node.process.is_some() {
                health.counted = node.counts();
            }
            health.fragile = node.disks.iter().any(SimDisk::hides_a_loss);
            if health.harmed && health.examined && sound && node.has(&committed) {
                health.harmed = false;
                node.damaged.fill(false);
            }
        }
    }
}

fn new_node(seed: u64, index: usize, plan: &Plan) -> Node {
    let options = &plan.options;
    let random = &mut Random::numbered(seed, "node", index as u64);
    let within = |random: &mut Random, limit: i64| {
        let limit = u64::try_from(limit).expect("a limit is positive");
        i64::try_from(random.below(2 * limit + 1)).expect("small") - i64::try_from(limit).expect("small")
    };
    let base_ns = random.between(1_000_000_000, 1_000_000_000_000);
    let (drift, offset) = (within(random, options.drift_ppm), within(random, options.offset_ns));
    let disk = |shard: usize| SimDisk::new(Random::numbered(seed, "media", (index * 64 + shard) as u64));
    Node {
        clock: Clock::new(base_ns, drift, offset),
        disks: (0..options.shards).map(disk).collect(),
        damaged: vec![false; options.shards],
        ever_damaged: vec![false; options.shards],
        slot_damaged: vec![false; options.shards],
        file: NodeFile::default(),
        lost: false,
        life: 0,
        process: None,
    }
}
