//! The scripted server: frames it says, and a harness that holds the session and a clock that only the test moves.
//!
//! Fault model: the script may say anything at any time; nothing happens that it does not say.

use evershard_client::ClientEvent;
use evershard_client::core::{Session, SessionConfig, Want};
use evershard_protocol::client::{
    Busy, BusyReason, Close, Event, Hello, NOBODY, Ping, Pong, Promise, Query, QueryReply, QueryStatus, Redirect,
    Refused, RefusedCode, Reply, ReplyStatus, Request, Welcome,
};
use evershard_protocol::frame::{Block, Frame, put};
use evershard_protocol::time::{MILLISECOND_NS, SECOND_NS};
use evershard_protocol::{ClusterId, Instant, RequestNumber, ShardId};

/// The session id every script gives.
pub const SESSION: u64 = 4096;

/// What the client said.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Said {
    Hello { session: u64, token: u64, first_unanswered: u64 },
    Request { request: u64, first_unanswered: u64, payload: Vec<u8> },
    Query { query: u64, payload: Vec<u8> },
    Ping,
    Close,
}

/// What the client told its user.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Told {
    Reply { request: u64, status: ReplyStatus, payload: Vec<u8> },
    Answer { query: u64, payload: Vec<u8> },
    Event(Vec<u8>),
    Reconnected { resent: u64 },
}

pub fn config(endpoints: &[&str]) -> SessionConfig {
    SessionConfig {
        endpoints: endpoints.iter().map(ToString::to_string).collect(),
        shard: ShardId(3),
        cluster: ClusterId(9),
        token: 77,
        window_len: 8,
        queue_size: 64 * 1024,
        attempt_max_ns: 500 * MILLISECOND_NS,
        ping_after_ns: SECOND_NS,
        silence_max_ns: 2 * SECOND_NS,
        stall_max_ns: 5 * SECOND_NS,
    }
}

/// A session and what surrounds it.
pub struct Harness {
    pub session: Session,
    pub now: Instant,
    pub out: Vec<u8>,
}

impl Harness {
    pub fn new(config: SessionConfig) -> Self {
        Self { session: Session::new(config), now: Instant(1), out: Vec::with_capacity(256 * 1024) }
    }

    /// A session that was opened by the first of `endpoints`.
    pub fn open(endpoints: &[&str]) -> Self {
        let mut harness = Self::new(config(endpoints));
        harness.connect(endpoints[0]);
        assert_eq!(harness.said(), [Said::Hello { session: 0, token: 77, first_unanswered: 1 }]);
        assert_eq!(harness.feed(&welcome(0)), []);
        assert!(harness.session.is_open());
        harness
    }

    /// Waits as long as the session wants, then connects to the address it must want.
    pub fn connect(&mut self, address: &str) {
        if let Want::Wait(until) = self.session.want(self.now) {
            self.now = until;
            assert_eq!(self.session.want(self.now), Want::Connect(address));
        } else {
            assert_eq!(self.session.address(), address);
        }
        self.out.clear();
        self.session.on_connected(self.now);
    }

    /// Reconnects after the connection was lost; `last` is the last request the server took.
    pub fn resume(&mut self, address: &str, last: u64) -> Vec<Told> {
        self.connect(address);
        let [Said::Hello { session: SESSION, token: 77, .. }] = self.said()[..] else {
            panic!("a session that was opened is resumed");
        };
        self.feed(&welcome(last))
    }

    pub fn advance_ms(&mut self, ms: u64) {
        self.now = self.now.after(ms * MILLISECOND_NS);
        self.session.on_tick(self.now);
    }

    pub fn send(&mut self, payload: &str) -> u64 {
        self.session.send(payload.as_bytes()).expect("the window has room").0
    }

    /// Everything the session sends now.
    pub fn said(&mut self) -> Vec<Said> {
        self.session.poll_output(&mut self.out, self.now);
        let said = parse(&self.out);
        self.out.clear();
        said
    }

    /// The numbers of the requests the session sends now.
    pub fn said_requests(&mut self) -> Vec<u64> {
        let numbers = self.said().into_iter().filter_map(|said| match said {
            Said::Request { request, .. } => Some(request),
            _ => None,
        });
        numbers.collect()
    }

    /// The session receives `bytes`, which hold whole frames only.
    pub fn feed(&mut self, bytes: &[u8]) -> Vec<Told> {
        let mut told = Vec::new();
        let size = take_all(&mut self.session, bytes, self.now, &mut told);
        assert_eq!(size, bytes.len(), "whole frames are taken whole");
        told
    }
}

/// Feeds `bytes` and returns how many were taken.
pub fn take_all(session: &mut Session, bytes: &[u8], now: Instant, told: &mut Vec<Told>) -> usize {
    let mut size = 0;
    loop {
        let taken = session.take(&bytes[size..], now);
        size += taken.size;
        match taken.event {
            Some(event) => told.push(tell(event)),
            None => return size,
        }
    }
}

pub fn tell(event: ClientEvent<'_>) -> Told {
    match event {
        ClientEvent::Reply { request: RequestNumber(request), status, payload, .. } => {
            Told::Reply { request, status, payload: payload.to_vec() }
        }
        ClientEvent::Answer { query, payload, .. } => Told::Answer { query: query.0, payload: payload.to_vec() },
        ClientEvent::Event { payload, .. } => Told::Event(payload.to_vec()),
        ClientEvent::Reconnected { resent, .. } => Told::Reconnected { resent },
    }
}

pub fn applied(request: u64, payload: &str) -> Told {
    Told::Reply { request, status: ReplyStatus::Applied, payload: payload.as_bytes().to_vec() }
}

/// All frames of a client in `bytes`, which hold whole frames only.
pub fn parse(mut bytes: &[u8]) -> Vec<Said> {
    let mut said = Vec::new();
    while let Some((frame, size)) = Frame::take(bytes).expect("the client sends frames") {
        said.push(parse_frame(&frame));
        bytes = &bytes[size..];
    }
    assert_eq!(bytes, [], "the client sends whole frames");
    said
}

pub fn parse_frame(frame: &Frame<'_>) -> Said {
    if let Ok((request, payload)) = frame.read::<Request>() {
        let (request, first_unanswered) = (request.request.get(), request.first_unanswered.get());
        return Said::Request { request, first_unanswered, payload: payload.to_vec() };
    }
    if let Ok((query, payload)) = frame.read::<Query>() {
        return Said::Query { query: query.query.get(), payload: payload.to_vec() };
    }
    if let Ok((hello, _)) = frame.read::<Hello>() {
        assert_eq!((hello.shard.get(), hello.cluster.get()), (3, 9));
        let (session, token) = (hello.session.get(), hello.token.get());
        return Said::Hello { session, token, first_unanswered: hello.first_unanswered.get() };
    }
    if frame.read::<Ping>().is_ok() {
        return Said::Ping;
    }
    frame.read::<Close>().expect("a client says nothing else");
    Said::Close
}

pub fn frame<B: Block>(block: &B, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(payload.len() + 128);
    put(&mut bytes, block, payload).expect("the capacity fits");
    bytes
}

pub fn welcome(last_request: u64) -> Vec<u8> {
    welcome_with(last_request, 4096)
}

pub fn welcome_with(last_request: u64, window_len_max: u32) -> Vec<u8> {
    let block = Welcome {
        protocol: 1.into(),
        promise: Promise::Durable as u8,
        node: 0,
        window_len_max: window_len_max.into(),
        payload_size_max: (64 * 1024).into(),
        padding: 0.into(),
        features: 0.into(),
        session: SESSION.into(),
        last_request: last_request.into(),
        term: 1.into(),
    };
    frame(&block, &[])
}

pub fn reply(request: u64, payload: &[u8]) -> Vec<u8> {
    reply_with(request, ReplyStatus::Applied, payload)
}

pub fn reply_with(request: u64, status: ReplyStatus, payload: &[u8]) -> Vec<u8> {
    let block = Reply {
        request: request.into(),
        position: (request * 64).into(),
        status: status as u8,
        promise: Promise::Durable as u8,
        padding: [0; 6],
    };
    frame(&block, payload)
}

pub fn answer(query: u64, payload: &[u8]) -> Vec<u8> {
    let status = QueryStatus::Answered as u8;
    frame(&QueryReply { query: query.into(), position: 640.into(), status, padding: [0; 7] }, payload)
}

pub fn event(payload: &[u8]) -> Vec<u8> {
    frame(&Event { position: 64.into(), index: 0.into(), padding: 0.into() }, payload)
}

pub fn busy(expected: u64) -> Vec<u8> {
    frame(&Busy { expected: expected.into(), reason: (BusyReason::Log as u16).into(), padding: [0; 6] }, &[])
}

pub fn pong() -> Vec<u8> {
    frame(&Pong { token: 0.into() }, &[])
}

/// An empty address: nobody leads.
pub fn redirect(address: &str) -> Vec<u8> {
    let leader = if address.is_empty() { NOBODY } else { 1 };
    frame(&Redirect { leader, padding: [0; 7] }, address.as_bytes())
}

pub fn refused(code: RefusedCode) -> Vec<u8> {
    frame(&Refused { code: (code as u16).into(), padding: [0; 6] }, b"says the script")
}
