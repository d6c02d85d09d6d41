//! A cluster by hand, for named scenarios: everything that faults of a plan do, said step by step, with all oracles
//! watching. A rule that is broken panics with what was seen and the trace.

use evershard_consensus::{Role, Standing};
use evershard_protocol::client::AdminAction;
use evershard_protocol::{Membership, Position, Term};

use crate::disk::{Image, SimDisk, WriteFault};
use crate::faults::End;
use crate::network::{CLIENT_SITE, Party};
use crate::node::node_id;
use crate::oracle::Violation;
use crate::plan::{MS, Options, Plan};
use crate::profile::calm;
use crate::run::{conclude, settle};
use crate::service::Command;
use crate::turns::invoke;
use crate::world::World;

/// A cluster by hand.
pub struct Script {
    /// The world: everything may be looked at.
    pub world: World,
}

/// What a replica is, at a glance.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Status {
    /// Its role.
    pub role: Role,
    /// Its term.
    pub term: Term,
    /// Whether its word counts.
    pub standing: Standing,
    /// What it knows to be committed.
    pub committed: Position,
    /// What it has applied.
    pub applied: Position,
    /// What it has on disk.
    pub durable: Position,
    /// Digest of everything replicated.
    pub digest: u64,
}

impl Script {
    /// A cluster without faults; `adjust` has the last word on what it is like. Clients send nothing by themselves.
    #[must_use]
    pub fn new(seed: u64, adjust: impl FnOnce(&mut Options)) -> Self {
        let mut plan = Plan::of_seed(seed, &calm());
        let options = &mut plan.options;
        (options.nodes, options.voters, options.shards) = (3, 3, 1);
        (options.clients, options.commands) = (1, 0);
        options.unruly_per_mille = 0;
        options.prefer_leaders = false;
        (options.snapshot_segments, options.hot_save_size_max) = (0, 0);
        adjust(options);
        let mut world = World::new(plan);
        world.trace.worded = true;
        Self { world }
    }

    /// Lets time pass.
    pub fn run_for(&mut self, ms: u64) {
        let outcome = self.world.run_until_time(self.world.time + ms * MS);
        self.expect(outcome);
    }

    /// Lets time pass until something is so; panics if that takes longer than `ms`.
    pub fn run_until(&mut self, ms: u64, what: &str, condition: impl Fn(&Self) -> bool) {
        let end = self.world.time + ms * MS;
        while !condition(self) {
            if self.world.time >= end {
                self.fail(&format!("after {ms} ms still not so: {what}"));
            }
            self.run_for(1);
        }
    }

    /// Waits for a leader that admits commands.
    pub fn elect(&mut self, shard: usize) -> usize {
        self.run_until(10_000, "a leader admits commands", |script| script.admitting(shard).is_some());
        self.admitting(shard).expect("just seen")
    }

    fn admitting(&self, shard: usize) -> Option<usize> {
        let leader = self.world.leader(shard)?;
        self.world.nodes[leader].core(shard).filter(|core| core.raft().admits()).map(|_| leader)
    }

    /// All trouble is over: everything is answered and all agree, in time.
    pub fn settle(&mut self) {
        self.world.heal();
        let outcome = settle(&mut self.world).and_then(|()| conclude(&mut self.world));
        self.expect(outcome);
    }

    /// kill -9.
    pub fn crash(&mut self, node: usize) {
        self.world.crash(node, End::Killed);
    }

    /// The power of these nodes goes at once.
    pub fn power_cut(&mut self, nodes: &[usize]) {
        nodes.iter().for_each(|node| self.world.crash(*node, End::PowerLost));
    }

    /// A node that is down starts again.
    pub fn restart(&mut self, node: usize) {
        let outcome = self.world.start(node, self.world.nodes[node].life);
        self.expect(outcome);
    }

    /// SIGTERM; the node stays down so long.
    pub fn stop(&mut self, node: usize, down_ms: u64) {
        assert!(self.world.stop(node, down_ms * MS), "a node that runs can be stopped");
    }

    /// An operator asks a replica for a snapshot.
    pub fn snapshot(&mut self, node: usize, shard: usize) {
        assert!(self.world.ask_node(node, shard, AdminAction::Snapshot, 0), "an operator can always ask");
    }

    /// SIGSTOP.
    pub fn pause(&mut self, node: usize, ms: u64) {
        assert!(self.world.pause(node, ms * MS), "a node that runs can be paused");
    }

    /// SIGSTOP, between a turn's look at the clock and its look at what has come in.
    pub fn pause_in_turn(&mut self, node: usize, ms: u64) {
        assert!(self.world.pause_in_turn(node, ms * MS), "a node that runs can be paused");
    }

    /// From one node nothing arrives at another.
    pub fn partition(&mut self, from: usize, to: usize) {
        self.world.network.cut(from, to);
    }

    /// From a node nothing arrives at a client any more; what the client says still arrives.
    pub fn mute(&mut self, node: usize, client: usize) {
        self.world.network.cut(node, CLIENT_SITE + client);
    }

    /// Nothing arrives any more between a node and a client.
    pub fn part(&mut self, node: usize, client: usize) {
        self.mute(node, client);
        self.world.network.cut(CLIENT_SITE + client, node);
    }

    /// A shard's thread does nothing for so long: its core was taken away.
    pub fn steal_core(&mut self, node: usize, shard: usize, ms: u64) {
        let until = self.world.time + ms * MS;
        let running = self.world.nodes[node].running(shard).expect("it runs");
        running.busy_until = running.busy_until.max(until);
        running.wake = None;
        self.world.wake_shard(node, shard, until);
    }

    /// A node neither hears the others nor is heard by them.
    pub fn isolate(&mut self, node: usize) {
        for other in (0..self.world.nodes.len()).filter(|other| *other != node) {
            self.partition(node, other);
            self.partition(other, node);
        }
    }

    /// A node's connections to the other nodes are reset; they are made anew, behind those of the clients.
    pub fn reset_links(&mut self, node: usize) {
        for (connection, side) in
            self.world.network.open_of(|party| matches!(party, Party::Shard(of, ..) if of == node))
        {
            if matches!(self.world.network.get(connection).parties[1 - side], Party::Shard(..)) {
                self.world.break_connection(connection);
            }
        }
        self.world.settle_network();
    }

    /// All links work.
    pub fn heal(&mut self) {
        self.world.network.calm(self.world.time);
        self.world.settle_network();
    }

    /// A node that is down gets new, empty disks.
    pub fn wipe(&mut self, node: usize) {
        assert!(self.world.nodes[node].process.is_none(), "disks are changed while the node is down");
        for shard in 0..self.world.plan.options.shards {
            self.world.nodes[node].disks[shard].wipe();
            self.world.oracles[shard].on_wipe(node);
            self.world.harm(node, shard);
        }
    }

    /// Bits of the block that holds this position change.
    pub fn rot(&mut self, node: usize, shard: usize, position: Position) {
        assert!(self.world.nodes[node].disks[shard].rot_position(position.0), "there is a block to rot");
        self.world.harm(node, shard);
    }

    /// Bits of one of the two slots of term and vote change.
    pub fn rot_slot(&mut self, node: usize, shard: usize, which: u64) {
        assert!(self.world.nodes[node].disks[shard].has_both_slots(), "until then the loss of one is the loss of all");
        self.world.nodes[node].disks[shard].rot_slot(which);
        self.world.nodes[node].slot_damaged[shard] = true;
        self.world.harm(node, shard);
    }

    /// What is on the disks of a node that is down.
    #[must_use]
    pub fn backup(&self, node: usize) -> Vec<Image> {
        assert!(self.world.nodes[node].process.is_none(), "a backup is made of a node at rest");
        self.world.nodes[node].disks.iter().map(SimDisk::image).collect()
    }

    /// A node that is down gets back what its disks once held.
    pub fn put_back(&mut self, node: usize, images: &[Image]) {
        self.wipe(node);
        for (disk, image) in self.world.nodes[node].disks.iter_mut().zip(images) {
            disk.put_back(image);
        }
    }

    /// The next write of a block goes wrong unnoticed.
    pub fn spoil_write(&mut self, node: usize, shard: usize, fault: WriteFault) {
        self.world.nodes[node].disks[shard].next_write = Some(fault);
        self.world.harm(node, shard);
    }

    /// The next reads of a running shard from its log are garbage; read again it is good.
    pub fn spoil_reads(&mut self, node: usize, shard: usize, reads: u32) {
        self.world.nodes[node].disks[shard].bad_reads = reads;
        self.world.nodes[node].running(shard).expect("it runs").misled = true;
    }

    /// A block of an earlier life of the file stands behind the end of the log of a node that is down.
    pub fn leave_over(&mut self, node: usize, shard: usize) -> bool {
        assert!(self.world.nodes[node].process.is_none(), "disks are changed while the node is down");
        self.world.nodes[node].disks[shard].leave_over()
    }

    /// The next write of a slot fails.
    pub fn fail_slot(&mut self, node: usize, shard: usize) {
        self.world.nodes[node].disks[shard].slot_fails = true;
    }

    /// The next write of a block fails.
    pub fn fail_write(&mut self, node: usize, shard: usize) {
        assert!(self.world.fail_write(node, shard), "one failure at a time");
    }

    /// A node's disks do nothing for so long.
    pub fn stall_disk(&mut self, node: usize, ms: u64) {
        let until = self.world.time + ms * MS;
        self.world.nodes[node].disks.iter_mut().for_each(|disk| disk.stalled_until = until);
    }

    /// A node's disks are full, or not any more.
    pub fn fill_disk(&mut self, node: usize, full: bool) {
        self.world.nodes[node].disks.iter_mut().for_each(|disk| disk.full = full);
    }

    /// A node's wall clock jumps.
    pub fn clock_jump(&mut self, node: usize, seconds: i64) {
        self.world.nodes[node].clock.jump(seconds * 1_000_000_000);
    }

    /// An operator moves leadership.
    pub fn transfer(&mut self, shard: usize, to: usize) {
        assert!(self.world.ask_operator(shard, AdminAction::Transfer, node_id(to).0), "there is a leader to ask");
    }

    /// A client sends a command; true if its session took it.
    pub fn send(&mut self, client: usize, command: Command) -> bool {
        self.send_sized(client, command, 0)
    }

    /// The same with filler, up to so many bytes.
    pub fn send_sized(&mut self, client: usize, command: Command, size: usize) -> bool {
        let now = self.world.time;
        let World { clients, history, oracles, .. } = &mut self.world;
        let shard = clients[client].shard;
        let after = oracles[shard].replies.latest();
        let mut issue = |command, request| invoke(&mut history.operations, client, shard, now, after, command, request);
        let sent = clients[client].send(command, size, &mut issue);
        self.world.wake_client(client, now + 1000);
        sent
    }

    /// A client sends a command and waits for its answer: the words of the reply.
    pub fn call(&mut self, client: usize, command: Command) -> Vec<u64> {
        assert!(self.send(client, command), "the session takes a command");
        let operation = self.world.history.operations.len() - 1;
        self.run_until(20_000, "the command is answered", |script| {
            script.world.history.operations[operation].reply.is_some()
        });
        let reply = self.world.history.operations[operation].reply.as_ref().expect("just seen");
        reply.payload.chunks_exact(8).map(|word| u64::from_le_bytes(word.try_into().expect("eight bytes"))).collect()
    }

    /// A client asks for the value of a key without a record; true if its session took it.
    pub fn ask(&mut self, client: usize, key: u8) -> bool {
        let now = self.world.time;
        let after = self.world.oracles[self.world.clients[client].shard].replies.latest();
        let asked = self.world.clients[client].ask(key, after);
        self.world.wake_client(client, now + 1000);
        asked
    }

    /// A client asks for the value of a key without a record and waits for the answer.
    pub fn read(&mut self, client: usize, key: u8) -> u64 {
        assert!(self.ask(client, key), "the session takes a question");
        self.run_until(20_000, "the question is answered", |script| {
            script.world.clients[client].unanswered_questions() == 0
        });
        let answers = &self.world.history.answers;
        let last = answers.iter().rev().find(|answer| answer.client == client).expect("just seen");
        last.value.expect("the service answers such questions")
    }

    /// Commands of a client that were answered.
    #[must_use]
    pub fn answered(&self, client: usize) -> usize {
        let of_client = self.world.history.operations.iter().filter(|operation| operation.client == client);
        of_client.filter(|operation| operation.reply.is_some()).count()
    }

    /// The configuration of a shard, as its leader knows it.
    #[must_use]
    pub fn membership(&self, shard: usize) -> Option<Membership> {
        let leader = self.world.leader(shard)?;
        self.world.nodes[leader].core(shard).map(|core| *core.raft().membership())
    }

    /// An operator changes what a node is to a shard, again and again until it is done and in force.
    pub fn change(&mut self, shard: usize, action: AdminAction, node: usize) {
        let id = node_id(node);
        let done = |script: &Self| {
            let Some(leader) = script.world.leader(shard) else { return false };
            let Some(core) = script.world.nodes[leader].core(shard) else { return false };
            let membership = core.raft().membership();
            let is = match action {
                AdminAction::MemberAdd => membership.everybody().contains(id),
                AdminAction::MemberPromote => membership.voters.contains(id),
                _ => !membership.everybody().contains(id),
            };
            is && !membership.is_joint() && core.raft().commit() >= core.raft().membership_position()
        };
        for _ in 0..200 {
            if done(self) {
                return;
            }
            self.world.ask_operator(shard, action, id.0);
            self.run_for(100);
        }
        self.fail(&format!("{action:?} of n{node} was never done"));
    }

    /// Whether a node has said this lately, or the world of it: part of what the trace says.
    #[must_use]
    pub fn said(&self, node: usize, words: &str) -> bool {
        self.world.trace.tail(usize::MAX).any(|entry| entry.node == node && entry.what.contains(words))
    }

    /// Waits until a replica's word counts.
    pub fn await_sound(&mut self, node: usize, shard: usize) {
        self.run_until(10_000, "it is sound", |script| {
            script.status(node, shard).is_some_and(|status| status.standing == Standing::Sound)
        });
    }

    /// What a replica is; `None` if its node is down.
    #[must_use]
    pub fn status(&self, node: usize, shard: usize) -> Option<Status> {
        self.world.nodes[node].core(shard).map(|core| Status {
            role: core.raft().role(),
            term: core.raft().term(),
            standing: core.raft().standing(),
            committed: core.raft().commit(),
            applied: core.replica().applied,
            durable: core.disk().durable(),
            digest: core.replica().compute_digest().0,
        })
    }

    fn expect(&self, outcome: Result<(), Violation>) {
        if let Err(Violation { rule, what }) = outcome {
            self.fail(&format!("`{rule}`: {what}"));
        }
    }

    fn fail(&self, what: &str) -> ! {
        let trace: Vec<String> = self.world.trace.tail(60).map(ToString::to_string).collect();
        panic!("{what}\n{}", trace.join("\n"));
    }
}
