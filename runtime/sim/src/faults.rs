//! What faults do to the world, and how they end.

use evershard_consensus::Durability;
use evershard_protocol::client::AdminAction;

use crate::clock::Time;
use crate::disk::WriteFault;
use crate::network::{CLIENT_SITE, Party};
use crate::node::Process;
use crate::plan::{Fault, MS, Who};
use crate::trace::WORLD;
use crate::world::{Event, World};

/// How a process ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// kill -9.
    Killed,
    /// The power is gone.
    PowerLost,
}

impl World {
    pub(crate) fn begin_fault(&mut self, index: usize) {
        if self.healed {
            return;
        }
        let planned = self.plan.faults[index];
        self.examine();
        let done = self.do_fault(index, planned.fault, planned.for_ns);
        let now = self.time;
        self.trace.fold(&[2, index as u64, u64::from(done)]);
        self.trace.say(now, WORLD, 0, || {
            let spared = if done { "" } else { " (not possible or not allowed now)" };
            format!("fault {planned}{spared}")
        });
        if done {
            *self.stats.faults.entry(planned.fault.name()).or_default() += 1;
            self.at(now + planned.for_ns, Event::End(index));
        } else {
            self.stats.spared += 1;
        }
        self.settle_network();
    }

    fn resolve(&mut self, who: Who) -> usize {
        match who {
            Who::Node(node) => node,
            Who::Leader(shard) => match self.leader(shard) {
                Some(node) => node,
                None => self.streams.fault.index(self.nodes.len()),
            },
        }
    }

    fn do_fault(&mut self, index: usize, fault: Fault, for_ns: u64) -> bool {
        let now = self.time;
        match fault {
            Fault::Kill(who) => {
                let node = self.resolve(who);
                self.crash_for(node, End::Killed, for_ns)
            }
            Fault::PowerLoss(who) => {
                let node = self.resolve(who);
                self.crash_for(node, End::PowerLost, for_ns)
            }
            Fault::Blackout => self.blackout(for_ns),
            Fault::Stop(who) => {
                let node = self.resolve(who);
                self.stop(node, for_ns)
            }
            Fault::Pause(who) => {
                let node = self.resolve(who);
                self.pause(node, for_ns)
            }
            Fault::PauseInTurn(who) => {
                let node = self.resolve(who);
                self.pause_in_turn(node, for_ns)
            }
            Fault::Wipe(who) => {
                let node = self.resolve(who);
                self.wipe_for(node, for_ns)
            }
            Fault::CutOneWay(who, to) => {
                let from = self.resolve(who);
                self.victims.insert(index, from);
                from != to && {
                    self.network.cut(from, to);
                    true
                }
            }
            Fault::Cut(who, to) => {
                let from = self.resolve(who);
                self.victims.insert(index, from);
                from != to && {
                    self.network.cut(from, to);
                    self.network.cut(to, from);
                    true
                }
            }
            Fault::Sever(who, to) => {
                let from = self.resolve(who);
                self.victims.insert(index, from);
                from != to && {
                    for other in self.sites_but(from, false) {
                        self.network.cut(from, other);
                        self.network.cut(other, from);
                    }
                    self.reset_between(from, to);
                    true
                }
            }
            Fault::Isolate(who, clients) => {
                let node = self.resolve(who);
                self.victims.insert(index, node);
                for site in self.sites_but(node, clients) {
                    self.network.cut(node, site);
                    self.network.cut(site, node);
                }
                true
            }
            Fault::Reset(who) => {
                let node = self.resolve(who);
                self.reset(|party| matches!(party, Party::Shard(of, ..) if of == node))
            }
            Fault::ResetClient(client) => self.reset(|party| party == Party::Client(client)),
            Fault::CutClient(client) => {
                for node in 0..self.nodes.len() {
                    self.network.cut(node, CLIENT_SITE + client);
                    self.network.cut(CLIENT_SITE + client, node);
                }
                true
            }
            Fault::SlowClient(client) => {
                self.clients[client].reads_from = now + for_ns;
                true
            }
            Fault::SlowLink(who, to, ns) => {
                let from = self.resolve(who);
                self.victims.insert(index, from);
                self.network.slow(from, to, ns);
                from != to
            }
            Fault::ClockJump(who, by_ns) => {
                let node = self.resolve(who);
                self.nodes[node].clock.jump(by_ns);
                true
            }
            Fault::Transfer(shard, to) => {
                let node = u8::try_from(to).expect("few nodes");
                self.ask_operator(shard, AdminAction::Transfer, node)
            }
            Fault::Snapshot(who, shard) => {
                let node = self.resolve(who);
                self.ask_node(node, shard, AdminAction::Snapshot, 0)
            }
            Fault::Digest(shard) => self.ask_operator(shard, AdminAction::Digest, 0),
            Fault::MemberAdd(shard, node) => self.add_member(shard, node),
            Fault::MemberPromote(shard, node) => self.promote_member(shard, node),
            Fault::MemberRemove(shard, who) => {
                let node = self.resolve(who);
                self.remove_member(shard, node)
            }
            _ => self.do_disk_fault(index, fault, for_ns),
        }
    }

    fn do_disk_fault(&mut self, index: usize, fault: Fault, for_ns: u64) -> bool {
        let now = self.time;
        match fault {
            Fault::DiskStall(who) => {
                let node = self.resolve(who);
                let stopping = self.nodes[node].process.as_ref().is_some_and(|process| process.stopping.is_some());
                let allowed = !stopping || self.may_fail(node);
                for disk in self.nodes[node].disks.iter_mut().filter(|_| allowed) {
                    disk.stalled_until = disk.stalled_until.max(now + for_ns);
                }
                allowed
            }
            Fault::DiskFull(who) => {
                let node = self.resolve(who);
                self.victims.insert(index, node);
                self.nodes[node].disks.iter_mut().for_each(|disk| disk.full = true);
                true
            }
            Fault::WriteError(who, shard) => {
                let node = self.resolve(who);
                self.victims.insert(index, node);
                self.fail_write(node, shard)
            }
            Fault::SlotError(who, shard) => {
                let node = self.resolve(who);
                self.victims.insert(index, node);
                let allowed = self.may_fail(node);
                self.nodes[node].disks[shard].slot_fails |= allowed;
                allowed
            }
            Fault::LostWrite(who, shard) => {
                let node = self.resolve(who);
                self.spoil_write(node, shard, WriteFault::Lost)
            }
            Fault::Misdirected(who, shard) => {
                let node = self.resolve(who);
                self.spoil_write(node, shard, WriteFault::Misdirected)
            }
            Fault::Rot(who, shard, pick) => {
                let node = self.resolve(who);
                self.budget.may_harm(node) && self.nodes[node].disks[shard].rot(pick) && self.harm(node, shard)
            }
            Fault::SlotRot(who, shard, pick) => {
                let node = self.resolve(who);
                let fit = !self.nodes[node].slot_damaged[shard] && self.nodes[node].disks[shard].has_both_slots();
                if !fit || !self.budget.may_harm(node) {
                    return false;
                }
                self.nodes[node].disks[shard].rot_slot(pick);
                self.nodes[node].slot_damaged[shard] = true;
                self.harm(node, shard)
            }
            Fault::SnapshotRot(who, shard, pick) => {
                let node = self.resolve(who);
                self.budget.may_harm(node) && self.nodes[node].disks[shard].shelf.rot(pick) && self.harm(node, shard)
            }
            Fault::BadRead(who, shard) => {
                let node = self.resolve(who);
                self.nodes[node].disks[shard].bad_reads += 2;
                if let Some(running) = self.nodes[node].running(shard) {
                    running.misled = true;
                }
                true
            }
            Fault::LeftOver(who, shard) => {
                let node = self.resolve(who);
                self.crash_for(node, End::Killed, for_ns) && self.nodes[node].disks[shard].leave_over()
            }
            other => unreachable!("{other:?} is no fault of a disk"),
        }
    }

    pub(crate) fn end_fault(&mut self, index: usize) {
        if self.healed {
            return;
        }
        let now = self.time;
        let fault = self.plan.faults[index].fault;
        // Faults that hit no node in particular do not ask.
        let victim = self.victims.get(&index).copied().unwrap_or(usize::MAX);
        match fault {
            Fault::CutOneWay(_, to) => self.network.mend(victim, to, now),
            Fault::Cut(_, to) => {
                self.network.mend(victim, to, now);
                self.network.mend(to, victim, now);
            }
            Fault::Isolate(..) | Fault::Sever(..) => {
                let clients = matches!(fault, Fault::Isolate(_, true));
                for site in self.sites_but(victim, clients) {
                    self.network.mend(victim, site, now);
                    self.network.mend(site, victim, now);
                }
            }
            Fault::CutClient(client) => {
                for node in 0..self.nodes.len() {
                    self.network.mend(node, CLIENT_SITE + client, now);
                    self.network.mend(CLIENT_SITE + client, node, now);
                }
            }
            Fault::SlowClient(_) => self.network.resume(now),
            Fault::SlowLink(_, to, _) => self.network.slow(victim, to, 0),
            Fault::DiskFull(_) => self.nodes[victim].disks.iter_mut().for_each(|disk| disk.full = false),
            Fault::WriteError(..) | Fault::SlotError(..) => {
                self.examine();
                if self.is_sick(victim) {
                    self.crash_for(victim, End::Killed, 30 * MS);
                }
            }
            _ => {}
        }
        self.settle_network();
    }

    fn sites_but(&self, node: usize, clients: bool) -> Vec<usize> {
        let nodes = (0..self.nodes.len()).filter(|other| *other != node);
        let sites = (0..=self.clients.len()).filter(|_| clients).map(|client| CLIENT_SITE + client);
        nodes.chain(sites).collect()
    }

    /// Ends a node's process uncleanly, if the budget allows it, and plans the next one.
    pub(crate) fn crash_for(&mut self, node: usize, end: End, down_ns: u64) -> bool {
        if self.nodes[node].process.is_none() {
            if end == End::PowerLost {
                self.nodes[node].disks.iter_mut().for_each(crate::disk::SimDisk::lose_power);
            }
            return end == End::PowerLost && self.nodes[node].life > 0;
        }
        if !self.budget.may_crash(node) {
            return false;
        }
        self.crash(node, end);
        self.at(self.time + down_ns, Event::Start(node, self.nodes[node].life));
        true
    }

    /// Ends a node's process uncleanly.
    pub(crate) fn crash(&mut self, node: usize, end: End) {
        let now = self.time;
        self.nodes[node].process = None;
        for (connection, side) in self.network.open_of(|party| matches!(party, Party::Shard(of, ..) if of == node)) {
            let dialled = matches!(self.network.get(connection).parties[side], Party::Shard(_, _, 0));
            match end {
                _ if dialled => {}
                End::Killed => self.network.end(connection, side, now),
                End::PowerLost => self.network.vanish(connection, side, now),
            }
        }
        for disk in &mut self.nodes[node].disks {
            match end {
                End::Killed => disk.kill(),
                End::PowerLost => disk.lose_power(),
            }
            disk.forget_next_write();
        }
        self.trace.say(now, node, 0, || format!("is down: {end:?}"));
        self.settle_network();
    }

    fn blackout(&mut self, down_ns: u64) -> bool {
        if !self.budget.may_lose_all_power() {
            return false;
        }
        for node in 0..self.nodes.len() {
            let later_ns = self.streams.fault_delay();
            self.crash_for(node, End::PowerLost, down_ns + later_ns);
        }
        true
    }

    /// Asks a node to stop cleanly and to stay down so long.
    pub(crate) fn stop(&mut self, node: usize, down_ns: u64) -> bool {
        let (now, clock) = (self.time, self.nodes[node].clock.now(self.time));
        let stalled = self.nodes[node].disks.iter().any(|disk| disk.stalled_until > now);
        // A stop that takes too long is an unclean one.
        let may_last = !stalled || self.may_fail(node);
        if !self.nodes[node].is_awake(now) || !may_last {
            return false;
        }
        let Some(process) = self.nodes[node].process.as_mut().filter(|process| process.stopping.is_none()) else {
            return false;
        };
        process.stopping = Some(down_ns);
        for running in &mut process.shards {
            running.shard.env().now = clock;
            running.shard.begin_stop();
        }
        for shard in 0..self.plan.options.shards {
            self.wake_shard(node, shard, now + 1000);
        }
        true
    }

    /// The process ends when all its shards have stopped.
    pub(crate) fn leave_if_stopped(&mut self, node: usize) {
        let now = self.time;
        let Some(Process { shards, stopping: Some(down_ns), .. }) = &self.nodes[node].process else { return };
        if shards.iter().all(|running| running.stopped) {
            let down_ns = *down_ns;
            self.crash(node, End::Killed);
            self.at(now + down_ns, Event::Start(node, self.nodes[node].life));
        }
    }

    /// Stops a node's process for a while.
    pub(crate) fn pause(&mut self, node: usize, for_ns: u64) -> bool {
        let (now, life) = (self.time, self.nodes[node].life);
        let Some(process) = self.nodes[node].process.as_mut() else { return false };
        process.paused_until = process.paused_until.max(now + for_ns);
        let until = process.paused_until;
        self.at(until, Event::Resume(node, life));
        true
    }

    /// Stops a node's process for a while, each of its shards between its look at the clock and the rest of a turn: what
    /// comes in meanwhile is taken in by that turn.
    pub(crate) fn pause_in_turn(&mut self, node: usize, for_ns: u64) -> bool {
        if !self.nodes[node].is_awake(self.time) {
            return false;
        }
        let clock = self.nodes[node].clock.now(self.time);
        if let Some(process) = &mut self.nodes[node].process {
            process.shards.iter_mut().for_each(|running| running.shard.env().earlier.set(Some(clock)));
        }
        self.pause(node, for_ns)
    }

    pub(crate) fn resume(&mut self, node: usize, life: u64) {
        let now = self.time;
        if self.nodes[node].life == life && self.nodes[node].is_awake(now) {
            self.network.resume(now);
            self.settle_network();
            for shard in 0..self.plan.options.shards {
                self.wake_shard(node, shard, now + 1000);
            }
        }
    }

    /// A node loses its process and its disks.
    pub(crate) fn wipe_for(&mut self, node: usize, down_ns: u64) -> bool {
        if !self.budget.may_harm(node) || !self.budget.may_crash(node) || self.nodes[node].life == 0 {
            return false;
        }
        let was_running = self.nodes[node].process.is_some();
        // An empty disk and a file that names nobody else are a new cluster.
        self.nodes[node].file.joins |= self.plan.options.voters == 1;
        self.crash(node, End::PowerLost);
        if was_running {
            self.at(self.time + down_ns, Event::Start(node, self.nodes[node].life));
        }
        self.budget.node(node).counted = false;
        for shard in 0..self.plan.options.shards {
            self.nodes[node].disks[shard].wipe();
            self.oracles[shard].on_wipe(node);
            self.harm(node, shard);
        }
        true
    }

    pub(crate) fn harm(&mut self, node: usize, shard: usize) -> bool {
        self.nodes[node].damaged[shard] = true;
        self.nodes[node].ever_damaged[shard] = true;
        let health = self.budget.node(node);
        health.harmed = true;
        health.examined = false;
        true
    }

    /// A node whose disk has failed has stopped: in `replicated` durability that costs what a crash costs. A disk that
    /// hides a loss must go on until the loss can be seen.
    fn may_fail(&self, node: usize) -> bool {
        let hides = self.nodes[node].disks.iter().any(crate::disk::SimDisk::hides_a_loss);
        !hides && (self.plan.options.durability == Durability::Durable || self.budget.may_crash(node))
    }

    pub(crate) fn fail_write(&mut self, node: usize, shard: usize) -> bool {
        let allowed = self.may_fail(node);
        let disk = &mut self.nodes[node].disks[shard];
        let free = disk.next_write.is_none();
        if allowed && free {
            disk.next_write = Some(WriteFault::Fails);
        }
        allowed && free
    }

    fn spoil_write(&mut self, node: usize, shard: usize, fault: WriteFault) -> bool {
        let free = self.nodes[node].disks[shard].next_write.is_none() && self.nodes[node].process.is_some();
        if !free || !self.budget.may_harm(node) {
            return false;
        }
        self.nodes[node].disks[shard].next_write = Some(fault);
        self.harm(node, shard)
    }

    fn reset(&mut self, of: impl Fn(Party) -> bool) -> bool {
        let open = self.network.open_of(of);
        for (connection, _) in &open {
            self.break_connection(*connection);
        }
        !open.is_empty()
    }

    fn reset_between(&mut self, one: usize, other: usize) {
        let of = |node: usize| move |party: Party| matches!(party, Party::Shard(of, ..) if of == node);
        for (connection, side) in self.network.open_of(of(one)) {
            if of(other)(self.network.get(connection).parties[1 - side]) {
                self.break_connection(connection);
            }
        }
    }

    /// Whether an operator would restart this node: it says that it cannot go on, or its disk was damaged since its
    /// start.
    pub(crate) fn is_sick(&mut self, node: usize) -> bool {
        let unexamined = {
            let health = self.budget.node(node);
            health.harmed && !health.examined
        };
        self.nodes[node].process.as_ref().is_some_and(|process| {
            let broken = process.shards.iter().any(|running| {
                let core = running.core();
                core.disk().failed().is_some() || core.replica().halted.is_some()
            });
            process.stopping.is_none() && (broken || unexamined)
        })
    }

    /// All trouble is over: links, disks and processes work from now on.
    pub(crate) fn heal(&mut self) {
        let now: Time = self.time;
        self.healed = true;
        self.network.calm(now);
        for node in 0..self.nodes.len() {
            let life = self.nodes[node].life;
            self.nodes[node].disks.iter_mut().for_each(crate::disk::SimDisk::calm);
            if let Some(process) = &mut self.nodes[node].process {
                process.paused_until = now;
                self.resume(node, life);
            } else if !self.nodes[node].lost {
                self.at(now + MS, Event::Start(node, life));
            }
        }
        for client in 0..self.clients.len() {
            self.clients[client].draining = true;
            self.clients[client].reads_from = 0;
            self.wake_client(client, now + MS);
        }
        self.network.resume(now);
        self.settle_network();
        self.trace.say(now, WORLD, 0, || "all trouble is over".to_owned());
    }

    /// Has the sick restarted, as an operator would, as far as the budget allows.
    pub(crate) fn nurse(&mut self) {
        self.examine();
        for node in 0..self.nodes.len() {
            if self.is_sick(node) && self.may_fail(node) {
                self.stop(node, 50 * MS);
                self.examine();
            } else if self.is_sick(node) && self.budget.node(node).fragile {
                // A record more, and the loss can be seen: then it may be restarted.
                for shard in 0..self.plan.options.shards {
                    self.ask_operator(shard, AdminAction::Digest, 0);
                }
            }
        }
    }
}
