//! Connections between shards, and between clients and shards.
//!
//! # Fault model
//!
//! * **Streams.** A connection carries bytes in order, both ways. They arrive after a latency, cut into pieces of any
//!   size: frames straddle pieces. Each site pair has a latency and a bandwidth of its own.
//! * **Back-pressure.** At most [`SOCKET_SIZE`] bytes are on their way; a send beyond is reported as sent only when enough
//!   has been taken in by the other side. A process that is paused and a client that does not read take nothing in.
//! * **Cuts.** From one site to another nothing arrives, in one direction or both. Nobody is told. When the cut is healed
//!   what was sent arrives late; when it lasts longer than the connection's patience the connection is closed on both
//!   sides.
//! * **Resets.** A connection is closed on both sides; what is on its way is lost.
//! * **Death of a process.** Its connections end behind what it had sent. After a loss of power the other side is not
//!   told: it finds out when its patience is over.
//! * **Refusals.** Nobody listens at a node that is down; to a site that is cut off a connection is never made.
//! * **Unruly links** (between replicas only, where asked for): whole frames other than introductions are dropped, come
//!   twice, or overtake each other. TCP does not do that; consensus has to survive it all the same.

use std::collections::VecDeque;

use evershard_node::env::LinkId;
use evershard_protocol::frame;

use crate::clock::Time;
use crate::random::Random;

/// Bytes that may be on their way in one direction before sends wait.
pub const SOCKET_SIZE: usize = 192 * 1024;

/// One end of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Party {
    /// A shard of a node: node, shard, life of the process.
    Shard(usize, usize, u64),
    /// A client.
    Client(usize),
}

/// What the world is asked to remind the network of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reminder {
    /// A connection arrives at the one dialled.
    Dialled(usize),
    /// Bytes of this direction arrive.
    Arrive(usize, usize),
    /// A buffer of this direction was sent.
    Sent(usize, usize),
    /// The patience of a silent connection is over, unless it spoke since (token).
    Dead(usize, u64),
}

/// How far a connection has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// The one dialled has not answered.
    Dialling,
    /// Bytes flow.
    Open,
    /// It is over on both sides.
    Closed,
}

/// One direction.
#[derive(Default)]
pub struct Pipe {
    /// When each piece arrives. An empty piece is the end.
    queue: VecDeque<(Time, Vec<u8>)>,
    in_flight: usize,
    free_at: Time,
    last_arrival: Time,
    /// The buffer of a send that was not reported yet.
    returning: Option<Vec<u8>>,
    reminded: bool,
}

/// A connection. Side 0 dialled, side 1 was dialled; direction `d` leads away from side `d`.
pub struct Connection {
    /// Both ends.
    pub parties: [Party; 2],
    /// What shards call it.
    pub links: [Option<LinkId>; 2],
    /// How far it has come.
    pub state: State,
    /// Sides that have ended it or were told so.
    pub ended: [bool; 2],
    pipes: [Pipe; 2],
    token: u64,
    doomed: bool,
}

/// How sites are connected.
#[derive(Clone, Debug)]
pub struct Links {
    /// Latency from site to site: fixed part and jitter, in nanoseconds.
    pub latency_ns: (u64, u64),
    /// Bytes per microsecond.
    pub bandwidth: u64,
    /// Pieces: in a thousand, how often what arrives is cut once more.
    pub cuts_per_mille: u64,
    /// Frames between replicas dropped, doubled or reordered, in a thousand.
    pub unruly_per_mille: u64,
}

/// All connections.
pub struct Network {
    sites: usize,
    links: Links,
    /// Extra latency of a pair of sites, from slow links.
    slow_ns: Vec<u64>,
    cut: Vec<u32>,
    connections: Vec<Connection>,
    random: Random,
    reminders: Vec<(Time, Reminder)>,
}

/// What arrives at one side.
pub enum Arrival {
    /// Some bytes.
    Bytes(Vec<u8>),
    /// The connection has ended.
    End,
}

impl Network {
    /// No connections yet between `sites` sites.
    #[must_use]
    pub fn new(sites: usize, links: Links, random: Random) -> Self {
        Self {
            sites,
            links,
            slow_ns: vec![0; sites * sites],
            cut: vec![0; sites * sites],
            connections: Vec::new(),
            random,
            reminders: Vec::new(),
        }
    }

    /// What the world is to remind the network of, since it was last asked.
    pub fn take_reminders(&mut self) -> Vec<(Time, Reminder)> {
        std::mem::take(&mut self.reminders)
    }

    /// A connection.
    pub fn get(&mut self, connection: usize) -> &mut Connection {
        &mut self.connections[connection]
    }

    /// From now on nothing arrives from one site at another; cuts add up.
    pub fn cut(&mut self, from: usize, to: usize) {
        self.cut[from * self.sites + to] += 1;
    }

    /// Takes back one cut; what was held up arrives soon.
    pub fn mend(&mut self, from: usize, to: usize, now: Time) {
        let cut = &mut self.cut[from * self.sites + to];
        *cut = cut.saturating_sub(1);
        self.resume(now);
    }

    /// Makes everything between two sites slower.
    pub fn slow(&mut self, from: usize, to: usize, ns: u64) {
        self.slow_ns[from * self.sites + to] = ns;
    }

    /// No cuts, nothing slow, nothing unruly from now on.
    pub fn calm(&mut self, now: Time) {
        self.cut.fill(0);
        self.slow_ns.fill(0);
        self.links.unruly_per_mille = 0;
        self.resume(now);
    }

    /// Whether nothing arrives from one site at another.
    #[must_use]
    pub fn is_cut(&self, from: usize, to: usize) -> bool {
        self.cut[from * self.sites + to] > 0
    }

    /// Begins a connection.
    pub fn dial(&mut self, parties: [Party; 2], link: Option<LinkId>, now: Time) -> usize {
        let id = self.connections.len();
        self.connections.push(Connection {
            parties,
            links: [link, None],
            state: State::Dialling,
            ended: [false; 2],
            pipes: [Pipe::default(), Pipe::default()],
            token: 0,
            doomed: false,
        });
        let (from, to) = (site(parties[0]), site(parties[1]));
        if self.is_cut(from, to) || self.is_cut(to, from) {
            self.doom(id, now);
        } else {
            let at = now + self.latency(from, to) + self.latency(to, from);
            self.reminders.push((at, Reminder::Dialled(id)));
        }
        id
    }

    /// Sends a whole buffer in direction `side`.
    pub fn send(&mut self, id: usize, side: usize, buffer: Vec<u8>, now: Time) {
        let connection = &self.connections[id];
        if connection.state != State::Open || connection.ended[side] {
            return;
        }
        let between_replicas = connection.parties.iter().all(|party| matches!(party, Party::Shard(..)));
        let unruly = between_replicas && self.links.unruly_per_mille > 0;
        let bytes = if unruly { self.disturb(&buffer) } else { buffer.clone() };
        let (from, to) = self.direction(id, side);
        let latency = self.latency(from, to);
        let pipe = &mut self.connections[id].pipes[side];
        assert!(pipe.returning.is_none(), "one send at a time per link");
        let leaves = now.max(pipe.free_at) + bytes.len() as u64 * 1000 / self.links.bandwidth.max(1);
        let arrives = (leaves + latency).max(pipe.last_arrival);
        (pipe.free_at, pipe.last_arrival) = (leaves, arrives);
        pipe.in_flight += bytes.len();
        pipe.returning = Some(buffer);
        if !bytes.is_empty() {
            pipe.queue.push_back((arrives, bytes));
        }
        if pipe.in_flight <= SOCKET_SIZE {
            self.reminders.push((leaves, Reminder::Sent(id, side)));
        }
        self.remind(id, side, arrives);
    }

    /// The buffer that was sent, if the send has ended.
    pub fn take_sent(&mut self, id: usize, side: usize) -> Option<Vec<u8>> {
        let connection = &mut self.connections[id];
        let alive = connection.state == State::Open && !connection.ended[side];
        let pipe = &mut connection.pipes[side];
        if alive && pipe.in_flight <= SOCKET_SIZE { pipe.returning.take() } else { None }
    }

    /// The receiver takes nothing in just now: what has arrived waits for [`Network::resume`].
    pub fn defer(&mut self, id: usize, side: usize) {
        self.connections[id].pipes[side].reminded = false;
    }

    /// What arrives now in direction `side`; the world asks only when the receiver takes it in.
    pub fn arrive(&mut self, id: usize, side: usize, now: Time) -> Vec<Arrival> {
        let (from, to) = self.direction(id, side);
        self.connections[id].pipes[side].reminded = false;
        if self.connections[id].state != State::Open {
            return Vec::new();
        }
        if self.is_cut(from, to) {
            self.doom(id, now);
            return Vec::new();
        }
        let mut arrivals = Vec::new();
        let mut freed = false;
        while let Some((at, _)) = self.connections[id].pipes[side].queue.front() {
            if *at > now {
                let at = *at;
                self.remind(id, side, at);
                break;
            }
            let (_, mut bytes) = self.connections[id].pipes[side].queue.pop_front().expect("just seen");
            if bytes.is_empty() {
                arrivals.push(Arrival::End);
                break;
            }
            while bytes.len() > 1 && self.random.chance(self.links.cuts_per_mille) {
                let rest = bytes.split_off(1 + self.random.index(bytes.len() - 1));
                self.connections[id].pipes[side].in_flight -= bytes.len();
                arrivals.push(Arrival::Bytes(std::mem::replace(&mut bytes, rest)));
                if self.random.chance(300) {
                    let at = now + self.random.between(1000, 400_000);
                    self.connections[id].pipes[side].queue.push_front((at, std::mem::take(&mut bytes)));
                    break;
                }
            }
            freed = true;
            if !bytes.is_empty() {
                self.connections[id].pipes[side].in_flight -= bytes.len();
                arrivals.push(Arrival::Bytes(bytes));
            }
        }
        let pipe = &self.connections[id].pipes[side];
        if freed && pipe.returning.is_some() && pipe.in_flight <= SOCKET_SIZE {
            self.reminders.push((now.max(pipe.free_at), Reminder::Sent(id, side)));
        }
        arrivals
    }

    /// One side ends the connection behind what it has sent.
    pub fn end(&mut self, id: usize, side: usize, now: Time) {
        let connection = &mut self.connections[id];
        if connection.state == State::Closed || connection.ended[side] {
            return;
        }
        connection.ended[side] = true;
        if connection.state == State::Dialling || connection.ended[1 - side] {
            connection.state = State::Closed;
            return;
        }
        let (from, to) = self.direction(id, side);
        let latency = self.latency(from, to);
        let pipe = &mut self.connections[id].pipes[side];
        pipe.returning = None;
        pipe.last_arrival = pipe.last_arrival.max(now + latency);
        let at = pipe.last_arrival;
        pipe.queue.push_back((at, Vec::new()));
        self.remind(id, side, at);
    }

    /// The process of one side is gone without a word: the other side is told nothing for now.
    pub fn vanish(&mut self, id: usize, side: usize, now: Time) {
        let connection = &mut self.connections[id];
        if connection.state != State::Closed && !connection.ended[side] {
            connection.ended[side] = true;
            connection.pipes[side].returning = None;
            self.doom(id, now);
        }
    }

    /// Over on both sides at once.
    pub fn close(&mut self, id: usize) {
        let connection = &mut self.connections[id];
        connection.state = State::Closed;
        connection.pipes = [Pipe::default(), Pipe::default()];
    }

    /// Whether the patience of a connection is really over.
    #[must_use]
    pub fn is_dead(&self, id: usize, token: u64) -> bool {
        let connection = &self.connections[id];
        let [one, other] = connection.parties.map(site);
        let hopeless = self.is_cut(one, other) || self.is_cut(other, one) || connection.ended.contains(&true);
        connection.state != State::Closed
            && connection.token == token
            && (hopeless || connection.state == State::Dialling)
    }

    /// Its patience was not over after all.
    pub fn revive(&mut self, id: usize) {
        self.connections[id].doomed = false;
    }

    /// Connections that are not over, of one party or of all.
    pub fn open_of(&self, of: impl Fn(Party) -> bool) -> Vec<(usize, usize)> {
        let mut found = Vec::new();
        for (id, connection) in self.connections.iter().enumerate() {
            if connection.state == State::Closed {
                continue;
            }
            for side in 0..2 {
                if of(connection.parties[side]) {
                    found.push((id, side));
                }
            }
        }
        found
    }

    /// What was held up goes on, for whoever takes it in now.
    pub fn resume(&mut self, now: Time) {
        for id in 0..self.connections.len() {
            if self.connections[id].state == State::Open {
                for side in 0..2 {
                    if let Some((at, _)) = self.connections[id].pipes[side].queue.front() {
                        let at = (*at).max(now + 1000);
                        self.remind(id, side, at);
                    }
                }
            }
        }
    }

    /// Every connection that is not over, for people.
    #[must_use]
    pub fn picture(&self) -> String {
        let mut parts = Vec::new();
        for (id, one) in self.connections.iter().enumerate().filter(|(_, one)| one.state != State::Closed) {
            let waiting = one.pipes.each_ref().map(|pipe| (pipe.queue.len(), pipe.in_flight, pipe.returning.is_some()));
            parts.push(format!("#{id} {:?} {:?} ended {:?} waiting {waiting:?}", one.parties, one.state, one.ended));
        }
        parts.join("; ")
    }

    fn remind(&mut self, id: usize, side: usize, at: Time) {
        let pipe = &mut self.connections[id].pipes[side];
        if !pipe.reminded {
            pipe.reminded = true;
            self.reminders.push((at, Reminder::Arrive(id, side)));
        }
    }

    fn doom(&mut self, id: usize, now: Time) {
        if !self.connections[id].doomed {
            self.connections[id].doomed = true;
            self.connections[id].token += 1;
            let patience = self.random.between(PATIENCE_NS_MIN, PATIENCE_NS_MAX);
            let token = self.connections[id].token;
            self.reminders.push((now + patience, Reminder::Dead(id, token)));
        }
    }

    fn direction(&self, id: usize, side: usize) -> (usize, usize) {
        let parties = &self.connections[id].parties;
        (site(parties[side]), site(parties[1 - side]))
    }

    fn latency(&mut self, from: usize, to: usize) -> u64 {
        let (base, jitter) = self.links.latency_ns;
        base + self.random.below(jitter + 1) + self.slow_ns[from * self.sites + to]
    }

    /// Drops, doubles and reorders whole frames.
    fn disturb(&mut self, buffer: &[u8]) -> Vec<u8> {
        let mut frames: Vec<&[u8]> = Vec::new();
        let mut rest = buffer;
        while let Ok(Some(size)) = frame::peek_size(rest) {
            let Some((whole, more)) = rest.split_at_checked(size) else { break };
            let introduction = whole[10] <= 2;
            rest = more;
            if introduction || !self.random.chance(self.links.unruly_per_mille) {
                frames.push(whole);
                continue;
            }
            match self.random.below(3) {
                0 => {}
                1 => frames.extend([whole, whole]),
                _ => {
                    let fixed = frames.iter().rposition(|frame| frame[10] <= 2).map_or(0, |at| at + 1);
                    frames.insert(fixed + self.random.index(frames.len() - fixed + 1), whole);
                }
            }
        }
        assert!(rest.is_empty(), "a link sends whole frames");
        frames.concat()
    }
}

/// The site of a party. Clients are at sites of their own, behind the nodes; see [`CLIENT_SITE`].
#[must_use]
pub fn site(party: Party) -> usize {
    match party {
        Party::Shard(node, ..) => node,
        Party::Client(client) => CLIENT_SITE + client,
    }
}

/// The site of the first client.
pub const CLIENT_SITE: usize = evershard_protocol::limits::NODES_MAX;
/// How long a connection with a silent other side is believed in.
const PATIENCE_NS_MIN: u64 = 700_000_000;
const PATIENCE_NS_MAX: u64 = 4_000_000_000;
