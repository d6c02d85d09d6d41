//! The session with one shard, without IO: a function of what came in and the time.
//!
//! | phase | entered when | left when |
//! |---|---|---|
//! | waiting | at first, and whenever a connection ended | the pause is over: [`Want::Connect`] |
//! | connecting | `Connect` was wanted | connected: greeting; failed or too slow: waiting |
//! | greeting | connected; `Hello` goes out | `Welcome`: open; `Redirect`, `Refused`, silence: waiting |
//! | open | welcomed; requests and replies flow | connection lost, silence, `Redirect`, `Refused`: waiting |
//! | ended | a refusal that is final, or closed by the user | never |
//!
//! A request is held in the queue until its reply is delivered. Sending is a cursor over the queue: a new connection
//! puts it back to the oldest unanswered request, `Busy` puts it back to the number the server named, after a pause.
//! The server answers what it has already applied from its memory, so that going back never applies twice.

mod frames;
mod output;
mod queries;
mod queue;
mod route;
mod timers;

use evershard_protocol::client::{Promise, QueryStatus, ReplyStatus, Request};
use evershard_protocol::frame::{Frame, HEADER_SIZE};
use evershard_protocol::limits::{PAYLOAD_SIZE_MAX, WINDOW_LEN_MAX};
use evershard_protocol::time::MILLISECOND_NS;
use evershard_protocol::{ClusterId, Instant, NodeId, Position, QueryNumber, RequestNumber, SessionId, ShardId};

use self::queries::Queries;
use self::queue::Queue;
use self::route::Route;
use crate::error::{SendError, SessionError, Trouble};

/// What a [`Session`] needs to know beforehand.
#[derive(Clone, Debug)]
pub struct SessionConfig {
    /// Addresses of the shard on its nodes, `host:port`; at least one.
    pub endpoints: Vec<String>,
    /// The shard.
    pub shard: ShardId,
    /// The cluster; `ClusterId(0)` for any.
    pub cluster: ClusterId,
    /// Proves that a resumed session is ours: a random number.
    pub token: u64,
    /// Requests that may be unanswered, 1 to [`WINDOW_LEN_MAX`]; the server may allow fewer.
    pub window_len: usize,
    /// Bytes of unanswered payloads, at least [`PAYLOAD_SIZE_MAX`].
    pub queue_size: usize,
    /// An attempt to connect that takes longer is given up.
    pub attempt_max_ns: u64,
    /// After so long without a byte from the server a `Ping` asks whether it lives.
    pub ping_after_ns: u64,
    /// After so long without a byte while something is awaited the connection is given up.
    pub silence_max_ns: u64,
    /// After so long without a reply, although the server lives, another node is asked who leads.
    pub stall_max_ns: u64,
}

/// What the session wants from the one who holds the sockets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Want<'a> {
    /// Drop any connection and begin to connect to this address. Said once per attempt.
    Connect(&'a str),
    /// Nothing to do before this time but to carry bytes; then call [`Session::on_tick`] (or ask again).
    Wait(Instant),
    /// The session has ended: nothing will be wanted any more.
    Nothing,
}

/// What the session has to tell its user.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ClientEvent<'a> {
    /// The answer to one request. Each request is answered once, in the order of their numbers.
    Reply {
        /// The request's number.
        request: RequestNumber,
        /// Position of the command's record in the shard's log; 0 if it was not applied.
        position: Position,
        /// How the request ended.
        status: ReplyStatus,
        /// What the acknowledgement is worth.
        promise: Promise,
        /// What the service replied.
        payload: &'a [u8],
    },
    /// Something the service tells unasked. Events that occur while the client is not connected are not repeated.
    Event {
        /// Position of the record that caused it.
        position: Position,
        /// Counts the events of one record from 0.
        index: u32,
        /// What the service tells.
        payload: &'a [u8],
    },
    /// The answer to one question; answers come in the order of the questions.
    Answer {
        /// The question's number.
        query: QueryNumber,
        /// The answer is from the state at this position.
        position: Position,
        /// How the question ended.
        status: QueryStatus,
        /// What the service answered.
        payload: &'a [u8],
    },
    /// The session was resumed on a new connection; events may have been missed in between.
    Reconnected {
        /// The node that leads now.
        leader: NodeId,
        /// Why the last connection ended.
        trouble: Option<Trouble>,
        /// Requests that are sent again.
        resent: u64,
    },
}

/// What [`Session::take`] has taken off the front of the received bytes.
#[derive(Clone, Copy, Debug)]
pub struct Taken<'a> {
    /// Bytes that are done with. The payload of the event, if it has one, is at their end.
    pub size: usize,
    /// The event, if there was one. `None`: more bytes are needed.
    pub event: Option<ClientEvent<'a>>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Waiting { until: Instant },
    Connecting { until: Instant },
    Greeting,
    Open,
    Ended,
}

/// Going back after `Busy`: how long the next pause is and whether one is on.
struct Pause {
    length_ns: u64,
    until: Option<Instant>,
}

/// The session of one client with one shard.
///
/// Invariant: `queue.first() <= cursor <= sent_end <= queue.next()`.
pub struct Session {
    config: SessionConfig,
    route: Route,
    queue: Queue,
    queries: Queries,
    phase: Phase,
    failure: Option<SessionError>,
    trouble: Option<Trouble>,
    /// 0 until the first welcome.
    id: SessionId,
    leader: Option<NodeId>,
    /// Of the last welcome. Leaders of earlier terms may still believe that they lead.
    term: u64,
    window_len: u64,
    payload_size_max: usize,
    /// The next request to send on this connection.
    cursor: RequestNumber,
    /// Behind the highest request ever sent on any connection.
    sent_end: RequestNumber,
    pause: Pause,
    hello_due: bool,
    ping_due: bool,
    /// A ping has been asked for and nothing has come since.
    ping_awaited: bool,
    received_at: Instant,
    /// When the server was last given something to answer while nothing else was awaited.
    awaiting_since: Instant,
    progress_at: Instant,
    /// Refusals in a row that suggest a fault but may pass.
    strikes: u32,
}

impl Session {
    /// A session that is yet to be opened; ask [`Session::want`] next.
    ///
    /// # Panics
    /// If the configuration breaks the bounds its fields name.
    #[must_use]
    pub fn new(config: SessionConfig) -> Self {
        assert!(config.window_len as u64 <= WINDOW_LEN_MAX, "a window is bounded by WINDOW_LEN_MAX");
        assert!(config.queue_size >= PAYLOAD_SIZE_MAX, "the queue holds one command of any size");
        Self {
            route: Route::new(config.endpoints.clone()),
            queue: Queue::new(config.window_len, config.queue_size),
            queries: Queries::new(),
            phase: Phase::Waiting { until: Instant(0) },
            failure: None,
            trouble: None,
            id: SessionId(0),
            leader: None,
            term: 0,
            window_len: config.window_len as u64,
            payload_size_max: PAYLOAD_SIZE_MAX,
            cursor: RequestNumber(1),
            sent_end: RequestNumber(1),
            pause: Pause { length_ns: PAUSE_NS, until: None },
            hello_due: false,
            ping_due: false,
            ping_awaited: false,
            received_at: Instant(0),
            awaiting_since: Instant(0),
            progress_at: Instant(0),
            strikes: 0,
            config,
        }
    }

    /// Takes in one request; [`Session::poll_output`] sends it.
    ///
    /// # Errors
    /// [`SendError`]; nothing was taken in then.
    pub fn send(&mut self, payload: &[u8]) -> Result<RequestNumber, SendError> {
        if self.phase == Phase::Ended {
            return Err(SendError::Ended);
        }
        if payload.len() > self.payload_size_max {
            return Err(SendError::PayloadTooLarge { size: payload.len(), max: self.payload_size_max });
        }
        if self.queue.len() as u64 >= self.window_len {
            return Err(SendError::WindowFull);
        }
        self.queue.push(payload)
    }

    /// Takes in a question that leaves no record; it is asked again on the next connection until it is answered.
    ///
    /// # Errors
    /// [`SendError`]; nothing was taken in then.
    pub fn query(&mut self, question: &[u8]) -> Result<QueryNumber, SendError> {
        if self.phase == Phase::Ended {
            return Err(SendError::Ended);
        }
        if question.len() > self.payload_size_max {
            return Err(SendError::PayloadTooLarge { size: question.len(), max: self.payload_size_max });
        }
        self.queries.push(question)
    }

    /// What is wanted now. A returned [`Want::Connect`] counts as begun.
    pub fn want(&mut self, now: Instant) -> Want<'_> {
        match self.phase {
            Phase::Waiting { until } if until <= now => {
                self.phase = Phase::Connecting { until: now.after(self.config.attempt_max_ns) };
                Want::Connect(self.route.address())
            }
            Phase::Ended => Want::Nothing,
            _ => Want::Wait(self.next_timer()),
        }
    }

    /// The connection that was wanted is made.
    ///
    /// # Panics
    /// If none was wanted.
    pub fn on_connected(&mut self, now: Instant) {
        assert!(self.is_connecting(), "only a connection that was wanted can be made");
        self.phase = Phase::Greeting;
        self.hello_due = true;
        self.ping_due = false;
        self.ping_awaited = false;
        self.received_at = now;
        self.awaiting_since = now;
    }

    /// The connection could not be made, or has ended.
    pub fn on_disconnected(&mut self, now: Instant, trouble: Trouble) {
        if self.is_connecting() || self.is_linked() {
            self.lose(now, trouble);
        }
    }

    /// Takes frames off the front of `bytes`, which arrived at `now`, up to one that is an event.
    ///
    /// Bytes that are no frame end the connection ([`Session::is_linked`] turns false) and are all taken.
    pub fn take<'a>(&mut self, bytes: &'a [u8], now: Instant) -> Taken<'a> {
        let mut size = 0;
        while self.is_linked() && size < bytes.len() {
            let outcome = match Frame::take(&bytes[size..]) {
                Ok(None) => {
                    self.received_at = now;
                    return Taken { size, event: None };
                }
                Ok(Some((frame, frame_size))) => {
                    size += frame_size;
                    self.on_frame(&frame, now)
                }
                Err(error) => Err(error),
            };
            match outcome {
                Ok(Some(event)) => return Taken { size, event: Some(event) },
                Ok(None) => {}
                Err(error) => self.lose(now, Trouble::Malformed(error)),
            }
        }
        let size = if self.is_linked() { size } else { bytes.len() };
        Taken { size, event: None }
    }

    /// Why the session has ended, if it has.
    #[must_use]
    pub fn failure(&self) -> Option<&SessionError> {
        self.failure.as_ref()
    }

    /// What ended the last connection; `None` while the session is open.
    #[must_use]
    pub fn trouble(&self) -> Option<Trouble> {
        self.trouble
    }

    /// True while a connection is up; when it turns false, drop the connection.
    #[must_use]
    pub fn is_linked(&self) -> bool {
        matches!(self.phase, Phase::Greeting | Phase::Open)
    }

    /// True from [`Want::Connect`] until the connection is made or given up.
    #[must_use]
    pub fn is_connecting(&self) -> bool {
        matches!(self.phase, Phase::Connecting { .. })
    }

    /// True while the leader has welcomed this connection.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.phase == Phase::Open
    }

    /// The session's id; `SessionId(0)` before it was opened.
    #[must_use]
    pub fn id(&self) -> SessionId {
        self.id
    }

    /// The leader, while connected to it.
    #[must_use]
    pub fn leader(&self) -> Option<NodeId> {
        self.leader
    }

    /// The address in use or to be tried next.
    #[must_use]
    pub fn address(&self) -> &str {
        self.route.address()
    }

    /// Questions taken in and not answered.
    #[must_use]
    pub fn unanswered_queries(&self) -> usize {
        self.queries.len()
    }

    /// Requests taken in and not answered.
    #[must_use]
    pub fn unanswered(&self) -> usize {
        self.queue.len()
    }

    /// The connection has ended; the next one is made to wherever the route leads.
    fn lose(&mut self, now: Instant, trouble: Trouble) {
        let until = self.route.on_failure(now);
        self.wait(until, trouble);
    }

    fn wait(&mut self, until: Instant, trouble: Trouble) {
        self.trouble = Some(trouble);
        self.phase = Phase::Waiting { until };
        self.detach();
    }

    fn end(&mut self, failure: SessionError) {
        self.failure = Some(failure);
        self.phase = Phase::Ended;
        self.detach();
    }

    fn detach(&mut self) {
        self.leader = None;
        self.hello_due = false;
        self.ping_due = false;
        self.ping_awaited = false;
        self.pause.until = None;
    }
}

/// The first pause after `Busy`; doubles with each up to [`PAUSE_MAX_NS`], until a reply comes.
const PAUSE_NS: u64 = MILLISECOND_NS;
const PAUSE_MAX_NS: u64 = 50 * MILLISECOND_NS;

/// Bytes of output capacity within which every frame of a client fits.
pub const OUTPUT_SIZE_MIN: usize = HEADER_SIZE + size_of::<Request>() + PAYLOAD_SIZE_MAX;
