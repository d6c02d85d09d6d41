//! What a shard's turn, a completion, an arrival and a client's poll bring about.

use evershard_log::SegmentHeader;
use evershard_node::env::{Idle, LinkId, ReadRequest};
use evershard_protocol::{NodeId, Position, RequestNumber};

use crate::client::{ClientWant, Told};
use crate::clock::Time;
use crate::disk::{Completed, Target, WriteFault};
use crate::env::{Action, Happened};
use crate::history::{Answered, Operation, Replied};
use crate::network::{Arrival, Party, Reminder, State};
use crate::node::Node;
use crate::oracle::Violation;
use crate::oracle::damage::check_halt;
use crate::oracle::memberships::check_votes;
use crate::panics;
use crate::service::{Command, Seen};
use crate::trace::CLIENTS;
use crate::world::{Event, World};

impl World {
    pub(crate) fn on_turn(&mut self, node: usize, shard: usize, life: u64) -> Result<(), Violation> {
        let now = self.time;
        let awake = self.nodes[node].is_awake(now);
        let clock = self.nodes[node].clock.now(now);
        if self.nodes[node].life != life {
            return Ok(());
        }
        let Some(process) = self.nodes[node].process.as_mut() else { return Ok(()) };
        let stopping = process.stopping.is_some();
        let running = &mut process.shards[shard];
        if running.wake != Some(now) || running.stopped {
            return Ok(());
        }
        running.wake = None;
        if !awake {
            return Ok(());
        }
        self.stats.turns += 1;
        running.shard.env().now = clock;
        let outcome = panics::watch(|| {
            if stopping {
                running.shard.stop_turn()
            } else {
                running.shard.turn();
                false
            }
        });
        let seen = std::mem::take(&mut *running.probe.borrow_mut());
        let stopped = self.judge_turn(node, shard, outcome, &seen)?;
        let cost = self.streams.turn.between(1500, 12_000) + if self.streams.turn.chance(2) { 1_000_000 } else { 0 };
        self.act(node, shard);
        let Node { clock, process, .. } = &mut self.nodes[node];
        let running = &mut process.as_mut().expect("it just had a turn").shards[shard];
        running.busy_until = now + cost;
        running.stopped = stopped;
        let has_news = running.shard.env().has_news();
        let wake = match running.shard.env().idle {
            _ if has_news => now + cost,
            Idle::Busy => now + cost,
            Idle::Until(instant) => clock.time_of(instant),
        };
        if stopped {
            self.leave_if_stopped(node);
        } else {
            self.wake_shard(node, shard, wake.max(now + cost));
        }
        Ok(())
    }

    /// Holds what a turn did against all rules. A panic is a finding, but what the services saw before tells more.
    fn judge_turn(
        &mut self,
        node: usize,
        shard: usize,
        outcome: Result<bool, String>,
        seen: &[Seen],
    ) -> Result<bool, Violation> {
        let now = self.time;
        let Node { process, disks, damaged, .. } = &mut self.nodes[node];
        let running = &mut process.as_mut().expect("it just had a turn").shards[shard];
        let oracle = &mut self.oracles[shard];
        let led = oracle.leaders.count();
        let stopped = match outcome {
            Ok(stopped) => stopped,
            Err(said) => {
                oracle.services.check(node, seen, &oracle.log.replay)?;
                return Violation::of("panic", format!("n{node}.s{shard}: {said}"));
            }
        };
        let excused = damaged[shard] || running.misled;
        let core = running.shard.core();
        oracle.after_turn(node, core, &mut disks[shard], seen)?;
        check_halt(node, excused, core)?;
        let raft = core.raft();
        let told = (raft.term().0, raft.role() as u8);
        self.trace.fold(&[
            now,
            (node as u64) << 8 | shard as u64,
            told.0 << 8 | u64::from(told.1),
            core.tail().end().0,
            raft.commit().0,
            core.replica().applied.0,
            core.disk().durable().0,
        ]);
        if told != running.told {
            running.told = told;
            let last = raft.last();
            self.trace.say(now, node, shard, || format!("is {:?} of {:?}, log up to {last}", raft.role(), raft.term()));
        }
        let notices = std::mem::take(&mut running.shard.env().notices);
        for notice in notices {
            self.trace.say(now, node, shard, || format!("says {notice:?}"));
        }
        if self.oracles[shard].leaders.count() > led {
            self.check_votes(node, shard)?;
        }
        Ok(stopped)
    }

    /// Somebody was elected: by whom, as far as the disks know? One that was ever damaged may have forgotten.
    fn check_votes(&self, node: usize, shard: usize) -> Result<(), Violation> {
        let vote_of = |(index, node): (usize, &Node)| {
            let marks = node.file.marks(index, shard);
            let remembers = !node.ever_damaged[shard];
            remembers.then(|| node.disks[shard].vote(&marks).unwrap_or_default())
        };
        let votes: Vec<_> = self.nodes.iter().enumerate().map(vote_of).collect();
        let core = self.nodes[node].core(shard).expect("it just had a turn");
        check_votes(node, core, &votes)
    }

    /// Does what a shard wants done.
    fn act(&mut self, node: usize, shard: usize) {
        let (now, life) = (self.time, self.nodes[node].life);
        let Some(running) = self.nodes[node].running(shard) else { return };
        let actions = std::mem::take(&mut running.shard.env().actions);
        for action in actions {
            match action {
                Action::Connect(link, NodeId(peer)) => {
                    let parties = [Party::Shard(node, shard, life), Party::Shard(usize::from(peer), shard, 0)];
                    let connection = self.network.dial(parties, Some(link), now);
                    if let Some(running) = self.nodes[node].running(shard) {
                        running.links.insert((link.index, link.generation), (connection, 0));
                    }
                }
                Action::Send(link, buffer) => {
                    if let Some((connection, side)) = self.connection(node, shard, link) {
                        self.network.send(connection, side, buffer, now);
                    }
                }
                Action::Close(link) => {
                    if let Some((connection, side)) = self.connection(node, shard, link) {
                        self.network.end(connection, side, now);
                        if let Some(running) = self.nodes[node].running(shard) {
                            running.links.remove(&(link.index, link.generation));
                        }
                    }
                }
                Action::WriteBlock(segment, offset, buffer, size, sequence) => {
                    self.write(node, shard, Target::Block(segment, offset, sequence), buffer, size);
                }
                Action::WriteSlot(offset, buffer) => {
                    let size = buffer.len();
                    self.write(node, shard, Target::Slot(offset), buffer, size);
                }
                Action::Prepare(header) => {
                    let time = now + self.streams.disk.between(200_000, 12_000_000);
                    self.at(time, Event::Prepared(node, shard, life, header));
                }
                Action::Repair(segment, offset, block) => {
                    let time = now + self.streams.disk.between(200_000, 6_000_000);
                    let name = self.repairs.last_key_value().map_or(0, |(last, _)| last + 1);
                    self.repairs.insert(name, (segment, offset, block));
                    self.at(time, Event::Repaired(node, shard, life, name));
                }
                Action::Background(job) => self.begin_job(node, shard, job),
                Action::Read(request) => {
                    let time = now + self.streams.disk.between(100_000, 3_000_000);
                    self.at(time, Event::Read(node, shard, life, request));
                }
            }
        }
        self.settle_network();
    }

    fn connection(&mut self, node: usize, shard: usize, link: LinkId) -> Option<(usize, usize)> {
        self.nodes[node].running(shard)?.connection(link)
    }

    fn write(
        &mut self,
        node: usize,
        shard: usize,
        target: Target,
        buffer: evershard_sys::buffer::AlignedBuffer,
        size: usize,
    ) {
        let (base, jitter) = self.plan.options.disk_ns;
        let slow = if matches!(target, Target::Block(..)) { self.plan.options.slow_blocks_ns } else { 0 };
        let time = self.time + base + self.streams.disk.below(jitter + slow + 1);
        let disk = &mut self.nodes[node].disks[shard];
        let id = disk.submit(target, buffer, size);
        let time = time.max(disk.stalled_until);
        self.at(time, Event::Write(node, shard, id, self.nodes[node].life));
    }

    pub(crate) fn on_write(&mut self, node: usize, shard: usize, id: u64, life: u64) -> Result<(), Violation> {
        let now = self.time;
        if self.nodes[node].life != life || self.nodes[node].process.is_none() {
            return Ok(());
        }
        let disk = &mut self.nodes[node].disks[shard];
        if disk.is_in_flight(id) && now < disk.stalled_until {
            let time = disk.stalled_until + self.streams.disk.below(100_000);
            self.at(time, Event::Write(node, shard, id, life));
            return Ok(());
        }
        let Some(Completed { target, buffer, outcome, fault }) = disk.complete(id) else { return Ok(()) };
        if let Some(fault) = fault {
            let words = match fault {
                WriteFault::Fails => "the disk refuses a write",
                WriteFault::Lost => "the disk loses a write",
                WriteFault::Misdirected => "the disk puts a write elsewhere",
            };
            self.trace.say(now, node, shard, || format!("{words}: {target:?}"));
        }
        let happened = match target {
            Target::Block(_, _, sequence) => Happened::BlockWritten(sequence, buffer, outcome),
            Target::Slot(_) => Happened::SlotWritten(buffer, outcome),
        };
        self.tell_shard(node, shard, happened);
        Ok(())
    }

    pub(crate) fn on_prepared(&mut self, node: usize, shard: usize, life: u64, header: &SegmentHeader) {
        if self.nodes[node].life == life && self.nodes[node].process.is_some() {
            let happened = match self.nodes[node].disks[shard].prepare(header) {
                Ok(()) => Happened::Prepared(*header),
                Err(errno) => Happened::NotPrepared(errno),
            };
            self.tell_shard(node, shard, happened);
        }
    }

    pub(crate) fn on_read(&mut self, node: usize, shard: usize, life: u64, request: ReadRequest) {
        if self.nodes[node].life == life && self.nodes[node].process.is_some() {
            let chunk = self.nodes[node].disks[shard].answer(&request);
            self.tell_shard(node, shard, Happened::Read(request, chunk));
        }
    }

    /// A repair whose process is gone was never written.
    pub(crate) fn on_repaired(&mut self, node: usize, shard: usize, life: u64, name: u64) {
        let Some((segment, offset, block)) = self.repairs.remove(&name) else { return };
        if self.nodes[node].life == life && self.nodes[node].process.is_some() {
            let outcome = self.nodes[node].disks[shard].repair(segment, offset, &block);
            self.tell_shard(node, shard, Happened::Repaired(segment, offset, outcome));
        }
    }

    /// Puts news before a shard and has it turn soon.
    pub(crate) fn tell_shard(&mut self, node: usize, shard: usize, happened: Happened) {
        let delay = self.streams.turn.between(200, 6000);
        if let Some(running) = self.nodes[node].running(shard).filter(|running| !running.stopped) {
            running.shard.env().push(happened);
            self.wake_shard(node, shard, self.time + delay);
        }
    }

    pub(crate) fn on_reminder(&mut self, reminder: Reminder) -> Result<(), Violation> {
        match reminder {
            Reminder::Dialled(connection) => self.on_dialled(connection),
            Reminder::Arrive(connection, side) => self.on_arrival(connection, side)?,
            Reminder::Sent(connection, side) => {
                if let Some(buffer) = self.network.take_sent(connection, side) {
                    self.tell_sent(connection, side, buffer);
                }
            }
            Reminder::Dead(connection, token) => {
                if self.network.is_dead(connection, token) {
                    self.break_connection(connection);
                } else {
                    self.network.revive(connection);
                }
            }
        }
        self.settle_network();
        Ok(())
    }

    /// Ends a connection for both sides at once.
    pub(crate) fn break_connection(&mut self, connection: usize) {
        let ended = self.network.get(connection).ended;
        self.network.close(connection);
        for (side, ended) in ended.into_iter().enumerate() {
            if !ended {
                self.tell_closed(connection, side);
            }
        }
    }

    fn on_dialled(&mut self, connection: usize) {
        let now = self.time;
        let dialled = self.network.get(connection);
        if dialled.state != State::Dialling {
            return;
        }
        let [from, to] = dialled.parties;
        let Party::Shard(node, shard, _) = to else { unreachable!("nobody dials a client") };
        let life = self.nodes[node].life;
        let accepting = self.nodes[node].running(shard).filter(|running| !running.stopped);
        let Some(link) = accepting.and_then(|running| running.shard.env().occupy()) else {
            self.break_connection(connection);
            return;
        };
        let opened = self.network.get(connection);
        opened.state = State::Open;
        opened.parties[1] = Party::Shard(node, shard, life);
        opened.links[1] = Some(link);
        let dialler_link = opened.links[0];
        if let Some(running) = self.nodes[node].running(shard) {
            running.links.insert((link.index, link.generation), (connection, 1));
        }
        self.tell_shard(node, shard, Happened::Accepted(link));
        match from {
            Party::Shard(node, shard, life) => {
                let link = dialler_link.expect("a shard names its links");
                // A later life names its links alike, and they are others.
                if self.nodes[node].life == life {
                    self.tell_shard(node, shard, Happened::Connected(link));
                }
            }
            Party::Client(client) if client == self.clients.len() => {
                if let Some(message) = self.operators.get(&connection).cloned() {
                    self.network.send(connection, 0, message, now);
                }
            }
            Party::Client(client) => {
                if self.clients[client].connection == Some(connection) {
                    self.clients[client].on_connected(now);
                    self.wake_client(client, now + 5000);
                }
            }
        }
    }

    fn on_arrival(&mut self, connection: usize, side: usize) -> Result<(), Violation> {
        let now = self.time;
        let receiver = self.network.get(connection).parties[1 - side];
        let takes = match receiver {
            Party::Shard(node, _, life) => self.nodes[node].life == life && self.nodes[node].is_awake(now),
            Party::Client(client) => self.clients.get(client).is_none_or(|client| client.reads_from <= now),
        };
        if !takes {
            self.network.defer(connection, side);
            return Ok(());
        }
        for arrival in self.network.arrive(connection, side, now) {
            match arrival {
                Arrival::Bytes(bytes) => self.deliver(connection, 1 - side, receiver, bytes)?,
                Arrival::End => {
                    self.network.close(connection);
                    self.tell_closed(connection, 1 - side);
                }
            }
        }
        Ok(())
    }

    fn deliver(&mut self, connection: usize, side: usize, to: Party, bytes: Vec<u8>) -> Result<(), Violation> {
        let now = self.time;
        self.trace.fold(&[connection as u64, bytes.len() as u64]);
        match to {
            Party::Shard(node, shard, _) => {
                if let Some(link) = self.network.get(connection).links[side] {
                    self.tell_shard(node, shard, Happened::Received(link, bytes));
                }
            }
            Party::Client(client) if client == self.clients.len() => {
                self.operators.remove(&connection);
                self.network.end(connection, side, now);
            }
            Party::Client(client) => {
                if self.clients[client].connection == Some(connection) {
                    let outcome = panics::watch(|| self.clients[client].on_bytes(&bytes, now));
                    match outcome {
                        Ok(told) => self.judge_client(client, told)?,
                        Err(said) => return Violation::of("panic", format!("client {client}: {said}")),
                    }
                    let delay = self.streams.turn.between(1000, 20_000);
                    self.wake_client(client, now + delay);
                }
            }
        }
        Ok(())
    }

    fn tell_sent(&mut self, connection: usize, side: usize, buffer: Vec<u8>) {
        let Some(party) = Some(self.network.get(connection).parties[side]) else { return };
        match party {
            Party::Shard(node, shard, life) => {
                if let Some(link) = self.network.get(connection).links[side].filter(|_| self.nodes[node].life == life) {
                    self.tell_shard(node, shard, Happened::Sent(link, buffer));
                }
            }
            Party::Client(client) => {
                if let Some(found) = self.clients.get_mut(client).filter(|one| one.connection == Some(connection)) {
                    found.on_sent(buffer);
                    self.wake_client(client, self.time + 2000);
                }
            }
        }
    }

    pub(crate) fn tell_closed(&mut self, connection: usize, side: usize) {
        let now = self.time;
        let ended = self.network.get(connection);
        ended.ended[side] = true;
        let link = ended.links[side];
        match ended.parties[side] {
            Party::Shard(node, shard, life) => {
                let Some(link) = link.filter(|_| self.nodes[node].life == life) else { return };
                if let Some(running) = self.nodes[node].running(shard) {
                    running.links.remove(&(link.index, link.generation));
                }
                self.tell_shard(node, shard, Happened::Closed(link));
            }
            Party::Client(client) => {
                if let Some(found) = self.clients.get_mut(client).filter(|one| one.connection == Some(connection)) {
                    found.on_closed(now);
                    self.wake_client(client, now + 2000);
                } else {
                    self.operators.remove(&connection);
                }
            }
        }
    }

    pub(crate) fn on_client(&mut self, client: usize) -> Result<(), Violation> {
        let now = self.time;
        if self.client_wakes[client] != Some(now) {
            return Ok(());
        }
        self.client_wakes[client] = None;
        let Self { clients, history, oracles, .. } = self;
        let shard = clients[client].shard;
        let before = clients[client].connection;
        let invoked_after = oracles[shard].replies.latest();
        let committed = oracles[shard].committed();
        let mut issue = |command: Command, request: RequestNumber| {
            invoke(&mut history.operations, client, shard, now, invoked_after, command, request)
        };
        let outcome = panics::watch(|| clients[client].poll(now, committed, &mut issue));
        let (polled, told) = match outcome {
            Ok(polled) => polled,
            Err(said) => return Violation::of("panic", format!("client {client}: {said}")),
        };
        self.judge_client(client, told)?;
        for want in polled.wants {
            match want {
                ClientWant::Drop => {
                    if let Some(connection) = before {
                        self.network.end(connection, 0, now);
                    }
                }
                ClientWant::Dial(node) => {
                    if let Some(connection) = before {
                        self.network.end(connection, 0, now);
                    }
                    let parties = [Party::Client(client), Party::Shard(node, shard, 0)];
                    self.clients[client].connection = Some(self.network.dial(parties, None, now));
                }
                ClientWant::Send(buffer) => {
                    if let Some(connection) = self.clients[client].connection {
                        self.network.send(connection, 0, buffer, now);
                    }
                }
            }
        }
        self.settle_network();
        self.wake_client(client, polled.wake);
        Ok(())
    }

    fn judge_client(&mut self, client: usize, told: Vec<Told>) -> Result<(), Violation> {
        let (now, shard) = (self.time, self.clients[client].shard);
        for one in told {
            let mut invoked_after = Position::ZERO;
            match &one {
                Told::Reply { operation, session, request, position, status, payload } => {
                    self.trace.fold(&[now, client as u64, request.0, position.0]);
                    let operation = &mut self.history.operations[*operation];
                    invoked_after = operation.invoked_after;
                    operation.reply = Some(Replied {
                        time: now,
                        session: *session,
                        position: *position,
                        status: *status,
                        payload: payload.clone(),
                    });
                    let command = operation.command;
                    self.trace.say(now, CLIENTS + client, shard, || {
                        format!("{request:?} of {session} answered at {position}: {command:?}, {status:?}")
                    });
                }
                Told::Frame { .. } => {}
                Told::Answer { key, after, position, status, payload } => {
                    self.trace.fold(&[now, client as u64, u64::from(*key), position.0]);
                    let value = payload.first_chunk().map(|word| u64::from_le_bytes(*word));
                    self.history.answers.push(Answered { client, time: now, position: *position, value });
                    self.trace.say(now, CLIENTS + client, shard, || {
                        format!("key {key}, asked for after {after}, was read at {position}: {status:?}")
                    });
                }
                Told::Linked => self.trace.say(now, CLIENTS + client, shard, || "is welcome".to_owned()),
                Told::Ended(error) => {
                    self.trace.say(now, CLIENTS + client, shard, || format!("loses its session: {error}"));
                    use evershard_client::SessionError;
                    match error {
                        SessionError::Closed | SessionError::SessionLost { .. } => {}
                        SessionError::HistoryLost { .. } if self.history.given_up => {}
                        SessionError::HistoryLost { .. } => {
                            return Violation::of("reply-lost", format!("client {client}: {error}"));
                        }
                        SessionError::Superseded { .. } | SessionError::Refused { .. } => {
                            return Violation::of("session-refused", format!("client {client}: {error}"));
                        }
                    }
                }
            }
            let oracle = &mut self.oracles[shard];
            oracle.replies.on_told(&one, invoked_after, &oracle.log.replay)?;
            oracle.reads.on_told(&one, &oracle.log.replay)?;
        }
        Ok(())
    }
}

/// Notes a new operation; returns its place in the history.
pub(crate) fn invoke(
    operations: &mut Vec<Operation>,
    client: usize,
    shard: usize,
    now: Time,
    invoked_after: Position,
    command: Command,
    request: RequestNumber,
) -> usize {
    operations.push(Operation { client, shard, command, invoked: now, invoked_after, request, reply: None });
    operations.len() - 1
}
