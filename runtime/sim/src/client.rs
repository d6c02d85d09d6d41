//! A simulated client: the production session over the simulated network, with a random load.
//!
//! It opens a session, sends commands one by one or many at a time, follows redirects, reconnects, sends again, closes
//! its session now and then and opens another one. A session that the cluster has given up is replaced by a new one;
//! what was not answered in it stays unknown. Beside its commands it asks questions that leave no record; those that its
//! session takes with it are nobody's any more.

use std::collections::VecDeque;

use evershard_client::core::{Session, SessionConfig, Want};
use evershard_client::{ClientEvent, SessionError, Trouble};
use evershard_protocol::client::{QueryStatus, Reply, ReplyStatus};
use evershard_protocol::frame::Frame;
use evershard_protocol::limits::PAYLOAD_SIZE_MAX;
use evershard_protocol::{ClusterId, Instant, Position, QueryNumber, RequestNumber, SessionId, ShardId};
use xxhash_rust::xxh3::xxh3_64;

use crate::clock::Time;
use crate::plan::{MS, Options};
use crate::random::Random;
use crate::service::Command;

/// What a client wants from the world.
pub enum ClientWant {
    /// Begin to connect to this node.
    Dial(usize),
    /// Send this.
    Send(Vec<u8>),
    /// End the connection.
    Drop,
}

/// What a client was told.
#[derive(Clone, Debug)]
pub enum Told {
    /// A reply, as the session gives it out: once, in order.
    Reply {
        /// The operation's place in the history.
        operation: usize,
        /// The session.
        session: SessionId,
        /// The request.
        request: RequestNumber,
        /// Where its record ends.
        position: Position,
        /// How it ended.
        status: ReplyStatus,
        /// What the service said.
        payload: Vec<u8>,
    },
    /// A reply frame as it came in, however often.
    Frame {
        /// The session.
        session: SessionId,
        /// The request.
        request: RequestNumber,
        /// Where its record ends.
        position: Position,
        /// How it ended.
        status: ReplyStatus,
        /// Hash of what the service said.
        payload: u64,
    },
    /// The answer to a question.
    Answer {
        /// What was asked.
        key: u8,
        /// Everything up to here was committed when it was first asked.
        after: Position,
        /// Of which state it speaks.
        position: Position,
        /// How it ended.
        status: QueryStatus,
        /// What the service said.
        payload: Vec<u8>,
    },
    /// The session has ended.
    Ended(SessionError),
    /// The session was opened or resumed.
    Linked,
}

/// One client.
pub struct Client {
    /// The shard it talks to.
    pub shard: usize,
    /// Its connection, and whether it is up.
    pub connection: Option<usize>,
    /// It takes nothing in before this time.
    pub reads_from: Time,
    /// It sends nothing new.
    pub draining: bool,
    session: Session,
    random: Random,
    nodes: usize,
    load: Load,
    out: Option<Vec<u8>>,
    received: Vec<u8>,
    /// Bytes of `received` that were looked at for reply frames.
    looked: usize,
    /// Operations without an answer: request and place in the history.
    unanswered: VecDeque<(RequestNumber, usize)>,
    /// Questions without an answer, in their order.
    questions: VecDeque<Question>,
    /// Where questions come from: commands do not depend on them.
    curiosity: Random,
    sessions: u64,
    issued: u64,
    next_issue: Time,
    asked: u64,
    next_question: Time,
    closing: bool,
}

/// A question without an answer.
struct Question {
    number: QueryNumber,
    key: u8,
    after: Position,
}

#[derive(Clone, Copy)]
struct Load {
    commands: u64,
    window_len: usize,
    think_ns: u64,
    keys: u64,
    large_per_mille: u64,
    close_per_mille: u64,
    questions: u64,
    question_ns: u64,
}

/// What a client wants next: things to do now, and when to come again.
pub struct Polled {
    /// What to do.
    pub wants: Vec<ClientWant>,
    /// When to come again.
    pub wake: Time,
}

impl Client {
    /// A client of one shard.
    #[must_use]
    pub fn new(index: usize, shard: usize, options: &Options, seed: u64) -> Self {
        let mut random = Random::numbered(seed, "client", index as u64);
        let load = Load {
            commands: options.commands,
            window_len: options.window_len,
            think_ns: options.think_ns,
            keys: options.keys,
            large_per_mille: options.large_per_mille,
            close_per_mille: options.close_per_mille,
            questions: options.questions,
            question_ns: options.question_ns,
        };
        let mut curiosity = Random::numbered(seed, "questions", index as u64);
        Self {
            shard,
            connection: None,
            reads_from: 0,
            draining: false,
            session: session(shard, options.nodes, load.window_len, &mut random),
            next_issue: random.below(200 * MS),
            random,
            nodes: options.nodes,
            load,
            out: Some(Vec::with_capacity(OUT_SIZE)),
            received: Vec::new(),
            looked: 0,
            unanswered: VecDeque::new(),
            questions: VecDeque::new(),
            next_question: curiosity.below(400 * MS),
            curiosity,
            sessions: 1,
            issued: 0,
            asked: 0,
            closing: false,
        }
    }

    /// Requests and questions without an answer.
    #[must_use]
    pub fn unanswered(&self) -> usize {
        self.unanswered.len() + self.questions.len()
    }

    /// Sessions it has had.
    #[must_use]
    pub fn sessions(&self) -> u64 {
        self.sessions
    }

    /// What it is up to, for people.
    #[must_use]
    pub fn describe(&self) -> String {
        let (id, address) = (self.session.id(), self.session.address());
        let state = if self.session.is_open() { "open at" } else { "wants" };
        let trouble = self.session.trouble().map(|trouble| format!(", {trouble}")).unwrap_or_default();
        let questions = self.questions.len();
        let unanswered = self.unanswered.len();
        format!(
            "{id}, {unanswered} of {} and {questions} questions unanswered, {state} {address}{trouble}",
            self.issued
        )
    }

    /// The connection that was asked for is there.
    pub fn on_connected(&mut self, now: Time) {
        if self.session.is_connecting() {
            self.session.on_connected(Instant(now));
        }
    }

    /// The connection is over.
    pub fn on_closed(&mut self, now: Time) {
        self.forget_connection();
        self.session.on_disconnected(Instant(now), Trouble::Closed);
    }

    /// All of a buffer was sent.
    pub fn on_sent(&mut self, mut buffer: Vec<u8>) {
        buffer.clear();
        self.out = Some(buffer);
    }

    /// Bytes came in.
    pub fn on_bytes(&mut self, bytes: &[u8], now: Time) -> Vec<Told> {
        let mut told = Vec::new();
        self.received.extend_from_slice(bytes);
        let was_open = self.session.is_open();
        loop {
            // Before the session's id is known there are no replies.
            self.look_at_frames(&mut told);
            let Self { session, received, unanswered, questions, .. } = self;
            let taken = session.take(received, Instant(now));
            let more = taken.event.is_some();
            match taken.event {
                Some(ClientEvent::Reply { request, position, status, payload, .. }) => {
                    let (expected, operation) = unanswered.pop_front().expect("a reply is to something that was asked");
                    assert_eq!(request, expected, "replies come in the order of the requests");
                    let payload = payload.to_vec();
                    told.push(Told::Reply { operation, session: session.id(), request, position, status, payload });
                }
                Some(ClientEvent::Answer { query, position, status, payload }) => {
                    let Question { number, key, after } = questions.pop_front().expect("an answer is to a question");
                    assert_eq!(query, number, "answers come in the order of the questions");
                    told.push(Told::Answer { key, after, position, status, payload: payload.to_vec() });
                }
                Some(ClientEvent::Event { .. } | ClientEvent::Reconnected { .. }) | None => {}
            }
            let size = taken.size;
            self.received.drain(..size);
            self.looked = self.looked.saturating_sub(size);
            if !more {
                break;
            }
        }
        if !was_open && self.session.is_open() {
            told.push(Told::Linked);
        }
        told
    }

    /// Lets time pass, sends what there is to send, and asks the random load for more; `committed` is all that was
    /// committed by now.
    pub fn poll(
        &mut self,
        now: Time,
        committed: Position,
        issue: &mut dyn FnMut(Command, RequestNumber) -> usize,
    ) -> (Polled, Vec<Told>) {
        let mut wants = Vec::new();
        let mut told = Vec::new();
        self.session.on_tick(Instant(now));
        let farewell = self.closing && self.session.failure() == Some(&SessionError::Closed) && self.out.is_none();
        if farewell {
            // The goodbye is on its way.
            return (Polled { wants, wake: now + 50 * MS }, told);
        }
        if let Some(failure) = self.session.failure().cloned() {
            if self.connection.is_some() {
                wants.push(ClientWant::Drop);
            }
            told.push(Told::Ended(failure));
            self.begin_anew();
        }
        self.issue(now, issue);
        self.ask_now_and_then(now, committed);
        if !self.session.is_linked() && !self.session.is_connecting() && self.connection.is_some() {
            self.forget_connection();
            wants.push(ClientWant::Drop);
        }
        let mut wake = match self.session.want(Instant(now)) {
            Want::Connect(address) => {
                let node = node_of(address);
                self.forget_connection();
                wants.push(ClientWant::Dial(node));
                self.session.next_timer().0
            }
            Want::Wait(until) => until.0,
            Want::Nothing => Time::MAX,
        };
        if self.session.is_linked()
            && let Some(mut out) = self.out.take()
        {
            self.session.poll_output(&mut out, Instant(now));
            if out.is_empty() && self.closing && self.unanswered() == 0 {
                self.closing = self.session.close(&mut out);
            }
            if out.is_empty() {
                self.out = Some(out);
            } else {
                wants.push(ClientWant::Send(out));
                wake = wake.min(self.session.next_timer().0);
            }
        }
        if self.wants_to_issue() {
            wake = wake.min(self.next_issue);
        }
        if self.wants_to_ask() {
            wake = wake.min(self.next_question);
        }
        (Polled { wants, wake: wake.max(now + 1000) }, told)
    }

    /// Sends this command now, with filler up to `size`, whatever the load says; false if there is no room.
    pub fn send(
        &mut self,
        command: Command,
        size: usize,
        issue: &mut dyn FnMut(Command, RequestNumber) -> usize,
    ) -> bool {
        let Ok(request) = self.session.send(&command.encode(size)) else { return false };
        self.issued += 1;
        self.unanswered.push_back((request, issue(command, request)));
        true
    }

    /// Asks this now, whatever the load says; false if there is no room.
    pub fn ask(&mut self, key: u8, committed: Position) -> bool {
        let Ok(number) = self.session.query(&[key]) else { return false };
        self.asked += 1;
        self.questions.push_back(Question { number, key, after: committed });
        true
    }

    /// Questions without an answer.
    #[must_use]
    pub fn unanswered_questions(&self) -> usize {
        self.questions.len()
    }

    fn wants_to_ask(&self) -> bool {
        !self.draining && !self.closing && self.asked < self.load.questions
    }

    fn ask_now_and_then(&mut self, now: Time, committed: Position) {
        while self.wants_to_ask() && self.next_question <= now {
            let key = u8::try_from(self.curiosity.below(self.load.keys)).expect("few keys");
            // Some of those that are lent.
            let key = if self.curiosity.chance(100) { key + 100 } else { key };
            self.next_question = now + self.curiosity.below(self.load.question_ns + 1);
            if !self.ask(key, committed) {
                break;
            }
        }
    }

    fn wants_to_issue(&self) -> bool {
        !self.draining
            && !self.closing
            && self.issued < self.load.commands
            && self.unanswered.len() < self.load.window_len
    }

    fn issue(&mut self, now: Time, issue: &mut dyn FnMut(Command, RequestNumber) -> usize) {
        while self.wants_to_issue() && self.next_issue <= now {
            let command = self.draw();
            let large = self.random.chance(self.load.large_per_mille);
            let size = if large { self.random.index(PAYLOAD_SIZE_MAX / 4) } else { self.random.index(80) };
            let size = if large && self.random.chance(100) { PAYLOAD_SIZE_MAX } else { size };
            let Ok(request) = self.session.send(&command.encode(size)) else {
                // No room: later.
                self.next_issue = now + 5 * MS;
                break;
            };
            self.issued += 1;
            self.unanswered.push_back((request, issue(command, request)));
            self.closing = self.random.chance(self.load.close_per_mille);
            let burst = self.load.window_len > 1 && self.random.chance(600);
            self.next_issue = if burst { now } else { now + self.random.below(self.load.think_ns + 1) };
        }
    }

    fn draw(&mut self) -> Command {
        let random = &mut self.random;
        let key = u8::try_from(random.below(self.load.keys)).expect("few keys");
        match random.below(20) {
            0..=4 => Command::Put(key, random.below(1000)),
            5..=8 => Command::Get(key),
            9..=11 => Command::Cas(key, random.below(1000), random.below(1000)),
            12..=15 => Command::Add(key, random.below(1000)),
            // Keys of their own: the others stay registers.
            16 => Command::Lend(key + 100, random.below(1000), random.below(2000)),
            17 => Command::Scan,
            18 => Command::Echo(key),
            _ => Command::Unknown(200),
        }
    }

    fn begin_anew(&mut self) {
        self.forget_connection();
        self.unanswered.clear();
        self.questions.clear();
        self.closing = false;
        self.sessions += 1;
        self.session = session(self.shard, self.nodes, self.load.window_len, &mut self.random);
    }

    fn forget_connection(&mut self) {
        self.connection = None;
        self.received.clear();
        self.looked = 0;
        if self.out.is_none() {
            self.out = Some(Vec::with_capacity(OUT_SIZE));
        }
    }

    fn look_at_frames(&mut self, told: &mut Vec<Told>) {
        if self.session.id() == SessionId(0) {
            return;
        }
        while let Ok(Some((frame, size))) = Frame::take(&self.received[self.looked..]) {
            self.looked += size;
            if frame.is::<Reply>()
                && let Ok((reply, payload)) = frame.read::<Reply>()
                && let Some(status) = ReplyStatus::from_number(reply.status)
            {
                told.push(Told::Frame {
                    session: self.session.id(),
                    request: RequestNumber(reply.request.get()),
                    position: Position(reply.position.get()),
                    status,
                    payload: xxh3_64(payload),
                });
            }
        }
    }
}

/// Bytes of output capacity.
const OUT_SIZE: usize = 80 * 1024;

/// The address of a node, as files name it: its number.
#[must_use]
pub fn address(node: usize) -> String {
    format!("n{node}")
}

/// The address of a node, as operators name it.
#[must_use]
pub fn socket(node: usize) -> String {
    format!("127.0.0.1:{}", PORT_OF_FIRST + node)
}

fn node_of(address: &str) -> usize {
    let by_port = address.rsplit_once(':').map(|(_, port)| port.parse::<usize>().map(|port| port - PORT_OF_FIRST));
    by_port.unwrap_or_else(|| address[1..].parse()).expect("an address that the simulator gave out")
}

const PORT_OF_FIRST: usize = 7000;

fn session(shard: usize, nodes: usize, window_len: usize, random: &mut Random) -> Session {
    let first = random.index(nodes);
    Session::new(SessionConfig {
        endpoints: (0..nodes).map(|node| address((first + node) % nodes)).collect(),
        shard: ShardId(u16::try_from(shard).expect("few shards")),
        cluster: ClusterId(0),
        token: random.any(),
        window_len,
        queue_size: 2 * PAYLOAD_SIZE_MAX,
        attempt_max_ns: 500 * MS,
        ping_after_ns: random.pick(&[100, 1000]) * MS,
        silence_max_ns: random.pick(&[300, 2000]) * MS,
        stall_max_ns: random.pick(&[600, 5000]) * MS,
    })
}
