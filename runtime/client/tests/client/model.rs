//! A cluster in miniature under random faults: each request is applied once and answered once, in order.
//!
//! Fault model: the connection may end at any byte in either direction; the leader may change at any time and take
//! with it what was taken in but not committed; a node may name a wrong leader or none; the log may be busy. What is
//! committed is never lost and memory of replies is unbounded.

use std::collections::BTreeMap;

use evershard_client::Trouble;
use evershard_client::core::Want;
use evershard_protocol::frame::Frame;
use evershard_protocol::time::MILLISECOND_NS;
use proptest::prelude::*;

use crate::fake::*;

const NODES: [&str; 3] = ["n0:1", "n1:1", "n2:1"];

#[derive(Clone, Copy, Debug)]
enum Step {
    Send,
    ToServer(usize),
    Commit(usize),
    ToClient(usize),
    Cut,
    Elect(usize),
    Depose,
    Busy(bool),
    Repeat(usize),
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => Just(Step::Send),
        10 => (1_usize..600).prop_map(Step::ToServer),
        6 => (1_usize..4).prop_map(Step::Commit),
        10 => (1_usize..400).prop_map(Step::ToClient),
        2 => Just(Step::Cut),
        1 => (0_usize..3).prop_map(Step::Elect),
        1 => prop::bool::weighted(0.3).prop_map(Step::Busy),
        1 => (0_usize..20).prop_map(Step::Repeat),
        4 => (1_u64..20).prop_map(Step::Wait),
        1 => prop::bool::weighted(0.2).prop_map(|depose| if depose { Step::Depose } else { Step::Send }),
    ]
}

/// The connection of the client, as its node sees it.
struct Connection {
    node: usize,
    greeted: bool,
    from_client: Vec<u8>,
    to_client: Vec<u8>,
    /// Everything is dropped until the request the last `Busy` named.
    dropping: bool,
}

#[derive(Default)]
struct Cluster {
    leader: Option<usize>,
    busy: bool,
    /// What was taken in; the first `committed` are applied.
    log: Vec<Vec<u8>>,
    committed: usize,
    /// Times each request was applied.
    applied: BTreeMap<u64, usize>,
    connection: Option<Connection>,
}

impl Cluster {
    fn commit(&mut self, count: usize) {
        for _ in 0..count.min(self.log.len() - self.committed) {
            self.committed += 1;
            let request = self.committed as u64;
            *self.applied.entry(request).or_default() += 1;
            self.answer(request);
        }
    }

    fn answer(&mut self, request: u64) {
        let payload = &self.log[usize::try_from(request).expect("small") - 1];
        if let Some(connection) = self.connection.as_mut().filter(|connection| connection.greeted) {
            connection.to_client.extend(reply(request, payload));
        }
    }

    fn say(&mut self, bytes: &[u8]) {
        self.connection.as_mut().expect("said to a client").to_client.extend(bytes);
    }

    fn elect(&mut self, leader: Option<usize>) {
        if leader == self.leader {
            return;
        }
        self.log.truncate(self.committed);
        self.leader = leader;
        let greeted = self.connection.as_ref().is_some_and(|connection| connection.greeted);
        if greeted {
            self.say(&redirect(leader.map_or("", |leader| NODES[leader])));
            self.connection.as_mut().expect("greeted").greeted = false;
        }
    }

    fn receive(&mut self) {
        while let Some(connection) = &mut self.connection {
            let Some((frame, size)) = Frame::take(&connection.from_client).expect("the client sends frames") else {
                return;
            };
            let said = parse_frame(&frame);
            connection.from_client.drain(..size);
            match said {
                Said::Hello { session, .. } => self.on_hello(session),
                Said::Request { request, payload, .. } if connection.greeted => self.on_request(request, payload),
                Said::Ping if connection.greeted => self.say(&pong()),
                _ => {}
            }
        }
    }

    fn on_hello(&mut self, session: u64) {
        assert!(session != 0 || self.log.is_empty(), "a session with requests is resumed, never opened again");
        let connection = self.connection.as_mut().expect("said hello");
        if self.leader == Some(connection.node) {
            connection.greeted = true;
            self.say(&welcome(self.log.len() as u64));
        } else {
            self.say(&redirect(self.leader.map_or("", |leader| NODES[leader])));
        }
    }

    fn on_request(&mut self, request: u64, payload: Vec<u8>) {
        let expected = self.log.len() as u64 + 1;
        if request <= self.committed as u64 {
            return self.answer(request);
        }
        if request < expected {
            return;
        }
        let connection = self.connection.as_mut().expect("said a request");
        if request == expected && !self.busy {
            connection.dropping = false;
            self.log.push(payload);
        } else if request == expected || !connection.dropping {
            connection.dropping = true;
            self.say(&busy(expected));
        }
    }
}

struct World {
    client: Harness,
    cluster: Cluster,
    /// Received by the client, not yet taken.
    inbox: Vec<u8>,
    told: Vec<Told>,
    sent: u64,
}

impl World {
    fn new() -> Self {
        let cluster = Cluster { leader: Some(1), ..Cluster::default() };
        Self { client: Harness::new(config(&NODES)), cluster, inbox: Vec::new(), told: Vec::new(), sent: 0 }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Send => {
                if self.client.session.send(format!("command {}", self.sent + 1).as_bytes()).is_ok() {
                    self.sent += 1;
                }
            }
            Step::ToServer(size) => self.carry_to_server(size),
            Step::Commit(count) => self.cluster.commit(count),
            Step::ToClient(size) => self.carry_to_client(size),
            Step::Cut => self.client.session.on_disconnected(self.client.now, Trouble::Closed),
            Step::Elect(leader) => self.cluster.elect(Some(leader)),
            Step::Depose => self.cluster.elect(None),
            Step::Busy(busy) => self.cluster.busy = busy,
            Step::Repeat(request) => {
                if (1..=self.cluster.committed).contains(&request) {
                    self.cluster.answer(request as u64);
                }
            }
            Step::Wait(ms) => self.client.advance_ms(ms),
        }
        self.mend();
    }

    /// What the shell does: drop what has ended, connect where it is wanted.
    fn mend(&mut self) {
        if self.client.session.is_linked() {
            return;
        }
        self.cluster.connection = None;
        self.inbox.clear();
        self.client.out.clear();
        if let Want::Connect(address) = self.client.session.want(self.client.now) {
            let node = NODES.iter().position(|node| *node == address).expect("only nodes are named");
            let (from_client, to_client) = (Vec::new(), Vec::new());
            let connection = Connection { node, greeted: false, from_client, to_client, dropping: false };
            self.cluster.connection = Some(connection);
            self.client.session.on_connected(self.client.now);
        }
    }

    fn carry_to_server(&mut self, size: usize) {
        self.client.session.poll_output(&mut self.client.out, self.client.now);
        if let Some(connection) = &mut self.cluster.connection {
            let size = size.min(self.client.out.len());
            connection.from_client.extend(self.client.out.drain(..size));
            self.cluster.receive();
        }
    }

    fn carry_to_client(&mut self, size: usize) {
        if let Some(connection) = &mut self.cluster.connection {
            let size = size.min(connection.to_client.len());
            self.inbox.extend(connection.to_client.drain(..size));
            let taken = take_all(&mut self.client.session, &self.inbox, self.client.now, &mut self.told);
            self.inbox.drain(..taken);
        }
    }

    fn heal(&mut self) {
        self.step(Step::Busy(false));
        self.step(Step::Elect(2));
        for _ in 0..2_000 {
            for step in
                [Step::ToServer(usize::MAX), Step::Commit(usize::MAX), Step::ToClient(usize::MAX), Step::Wait(1)]
            {
                self.step(step);
            }
            if self.client.session.unanswered() == 0 {
                return;
            }
        }
        panic!("a healed cluster answers within {} s", 2_000 * MILLISECOND_NS / 1_000_000_000);
    }

    fn check(&self) {
        let replies: Vec<&Told> = self.told.iter().filter(|told| matches!(told, Told::Reply { .. })).collect();
        assert_eq!(replies.len() as u64, self.sent, "each request is answered once");
        for (found, request) in replies.into_iter().zip(1..) {
            assert_eq!(*found, applied(request, &format!("command {request}")));
        }
        assert_eq!(self.cluster.applied.len() as u64, self.sent, "each request is applied");
        assert!(self.cluster.applied.values().all(|times| *times == 1), "and applied once");
        assert_eq!(self.client.session.failure(), None);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn every_request_is_applied_once_and_answered_once_in_order(steps in prop::collection::vec(step(), 1..800)) {
        let mut world = World::new();
        for step in steps {
            world.step(step);
        }
        world.heal();
        world.check();
    }
}
