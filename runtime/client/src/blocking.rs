//! The blocking face: a [`Session`] on a TCP connection, driven by the caller's thread.
//!
//! Everything is one kind of turn: make or mend the connection, send what the socket takes, receive what is there or
//! wait for it. Sending never waits, so that two full directions cannot hold each other up. Timers are judged only
//! when a look at the socket found nothing: a caller who was away for long finds its replies, not a timeout.

mod link;

use std::hint::spin_loop;
use std::time::Duration;

use evershard_protocol::client::{Promise, QueryStatus, ReplyStatus};
use evershard_protocol::time::MILLISECOND_NS;
use evershard_protocol::{Instant, NodeId, Position, QueryNumber, RequestNumber, SessionId};

use self::link::{Inbox, Link, Outbox, Received};
use crate::config::{ClientConfig, nanoseconds};
use crate::core::{ClientEvent, Session, Want};
use crate::error::{ClientError, SendError, Trouble};

/// The answer to a [`Client::call`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reply<'a> {
    /// The request's number.
    pub request: RequestNumber,
    /// Position of the command's record in the shard's log; 0 if it was not applied.
    pub position: Position,
    /// How the request ended. Look at it: only [`ReplyStatus::Applied`] carries the service's reply.
    pub status: ReplyStatus,
    /// What the acknowledgement is worth.
    pub promise: Promise,
    /// What the service replied.
    pub payload: &'a [u8],
}

/// The answer to a [`Client::query`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Answer<'a> {
    /// The answer is from the state at this position.
    pub position: Position,
    /// How the question ended. Look at it: only [`QueryStatus::Answered`] carries the service's answer.
    pub status: QueryStatus,
    /// What the service answered.
    pub payload: &'a [u8],
}

/// A connected client of one shard. See the crate's chapter for the caller's duties.
pub struct Client {
    session: Session,
    link: Link,
    inbox: Inbox,
    outbox: Outbox,
    clock: Clock,
    /// The clock at the end of the last turn: when the bytes of the inbox were received.
    now: Instant,
    /// Attempts to connect; picks among the addresses of a name.
    attempts: usize,
    request_timeout: Duration,
    spin: bool,
}

impl Client {
    /// Opens a session with the shard, trying all endpoints until `config.connect_timeout`.
    ///
    /// # Errors
    /// [`ClientError::Config`], [`ClientError::ConnectTimeout`], or [`ClientError::Session`] for a final refusal.
    pub fn connect(config: &ClientConfig) -> Result<Self, ClientError> {
        let mut client = Self {
            session: Session::new(config.session()?),
            link: Link::Down,
            inbox: Inbox::new(),
            outbox: Outbox::new(),
            clock: Clock(std::time::Instant::now()),
            now: Instant(0),
            attempts: 0,
            request_timeout: config.request_timeout,
            spin: config.spin,
        };
        let until = client.clock.now().after(nanoseconds(config.connect_timeout));
        loop {
            client.turn(until)?;
            client.deliver(&mut |_| {});
            if client.session.is_open() {
                return Ok(client);
            }
            if client.session.failure().is_none() && until <= client.now {
                return Err(ClientError::ConnectTimeout {
                    waited: config.connect_timeout,
                    address: client.session.address().to_owned(),
                    trouble: client.session.trouble(),
                });
            }
        }
    }

    /// Sends one request and waits for its reply: one send, one receive.
    ///
    /// Events, and replies to requests sent before, are dropped if they come meanwhile; [`Client::call_with`] keeps
    /// them.
    ///
    /// # Errors
    /// [`ClientError::RequestTimeout`] after the configured time: the request may yet be applied.
    /// [`ClientError::Send`] if it was not taken in, [`ClientError::Session`] if the session has ended.
    pub fn call(&mut self, payload: &[u8]) -> Result<Reply<'_>, ClientError> {
        self.call_with(payload, &mut |_| {})
    }

    /// [`Client::call`], handing everything else that comes meanwhile to `on_event`.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub fn call_with(
        &mut self,
        payload: &[u8],
        on_event: &mut dyn FnMut(ClientEvent<'_>),
    ) -> Result<Reply<'_>, ClientError> {
        let until = self.clock.now().after(nanoseconds(self.request_timeout));
        let request = loop {
            match self.session.send(payload) {
                Ok(request) => break request,
                Err(SendError::WindowFull | SendError::QueueFull) if self.now < until => {
                    if self.deliver(on_event) == 0 {
                        self.turn(until)?;
                    }
                }
                Err(SendError::Ended) => self.check()?,
                Err(error) => return Err(error.into()),
            }
        };
        let wanted = |event: &ClientEvent<'_>| match event {
            ClientEvent::Reply { request: found, position, status, promise, payload } if *found == request => {
                Some(((*position, *status, *promise), payload.len()))
            }
            _ => None,
        };
        let Some(((position, status, promise), size)) = self.await_event(until, on_event, wanted)? else {
            let (waited, trouble) = (self.request_timeout, self.session.trouble());
            return Err(ClientError::RequestTimeout { request, waited, trouble });
        };
        Ok(Reply { request, position, status, promise, payload: self.inbox.skipped(size) })
    }

    /// Asks the service a question that leaves no record, and waits for the answer. The answer has everything that was
    /// committed before the question was asked, by whomever; it is not faster than a command where a quorum must be
    /// asked, but costs neither log nor disk. Events and replies that come meanwhile are dropped.
    ///
    /// # Errors
    /// [`ClientError::QueryTimeout`] after the configured time; [`ClientError::Send`] if it was not taken in,
    /// [`ClientError::Session`] if the session has ended.
    pub fn query(&mut self, question: &[u8]) -> Result<Answer<'_>, ClientError> {
        let until = self.clock.now().after(nanoseconds(self.request_timeout));
        let query = self.session.query(question)?;
        let wanted = |event: &ClientEvent<'_>| match event {
            ClientEvent::Answer { query: found, position, status, payload } if *found == query => {
                Some(((*position, *status), payload.len()))
            }
            _ => None,
        };
        let Some(((position, status), size)) = self.await_event(until, &mut |_| {}, wanted)? else {
            let (waited, trouble) = (self.request_timeout, self.session.trouble());
            return Err(ClientError::QueryTimeout { waited, trouble });
        };
        Ok(Answer { position, status, payload: self.inbox.skipped(size) })
    }

    /// Queues one question; otherwise as [`Client::try_send`].
    ///
    /// # Errors
    /// [`SendError`]: the question was not taken in.
    pub fn try_query(&mut self, question: &[u8]) -> Result<QueryNumber, SendError> {
        self.session.query(question)
    }

    /// Queues one request; [`Client::flush`] or [`Client::poll`] sends all that are queued together.
    ///
    /// # Errors
    /// [`SendError`]: the request was not taken in.
    pub fn try_send(&mut self, payload: &[u8]) -> Result<RequestNumber, SendError> {
        self.session.send(payload)
    }

    /// Sends what is queued, as far as the socket takes it without waiting.
    pub fn flush(&mut self) {
        let now = self.clock.now();
        self.send(now);
    }

    /// Sends what is queued, receives what is there and hands it to `on_event`. If nothing is there, waits for it:
    /// until `timeout`, or without limit if that is `None`. Returns how many events were handed over.
    ///
    /// # Errors
    /// [`ClientError::Session`] once the session has ended; everything short of that is mended.
    pub fn poll(
        &mut self,
        timeout: Option<Duration>,
        on_event: &mut dyn FnMut(ClientEvent<'_>),
    ) -> Result<usize, ClientError> {
        let mut delivered = self.deliver(on_event);
        let wait_ns = if delivered > 0 { 0 } else { timeout.map_or(u64::MAX, nanoseconds) };
        let until = if wait_ns == 0 { Instant(0) } else { self.clock.now().after(wait_ns) };
        loop {
            match self.turn(until) {
                Err(_) if delivered > 0 => return Ok(delivered),
                outcome => outcome?,
            }
            delivered += self.deliver(on_event);
            if delivered > 0 || until <= self.now {
                return Ok(delivered);
            }
        }
    }

    /// Ends the session: sends what is queued, tells the cluster, and waits briefly for the connection to end.
    /// Replies still under way are lost: poll until [`Client::unanswered`] is 0 first if they matter.
    ///
    /// # Errors
    /// [`ClientError::CloseTimeout`] if no leader could be told within the request timeout; [`ClientError::Session`]
    /// if the session had ended before.
    pub fn close(mut self) -> Result<(), ClientError> {
        let until = self.clock.now().after(nanoseconds(self.request_timeout));
        while !(self.outbox.unsent().is_empty() && self.session.close(self.outbox.bytes())) {
            if until <= self.clock.now() {
                return Err(ClientError::CloseTimeout { waited: self.request_timeout });
            }
            let soon = self.clock.now().after(MILLISECOND_NS);
            self.turn(soon.min(until))?;
            self.deliver(&mut |_| {});
        }
        self.link.send(&mut self.outbox);
        self.link.shutdown();
        // Closing with bytes unread would reset the connection and might overtake the Close.
        let until = self.clock.now().after(CLOSE_WAIT_NS);
        while self.clock.now() < until {
            self.inbox.clear();
            if let Received::Over(_) = self.link.receive(&mut self.inbox, &self.outbox, CLOSE_WAIT_NS) {
                break;
            }
        }
        Ok(())
    }

    /// Requests without an answer.
    #[must_use]
    pub fn unanswered(&self) -> usize {
        self.session.unanswered()
    }

    /// The session's id.
    #[must_use]
    pub fn session(&self) -> SessionId {
        self.session.id()
    }

    /// The leader, while connected to it.
    #[must_use]
    pub fn leader(&self) -> Option<NodeId> {
        self.session.leader()
    }

    /// The address in use or tried next.
    #[must_use]
    pub fn address(&self) -> &str {
        self.session.address()
    }

    /// Why there is no open connection; `None` while there is one.
    #[must_use]
    pub fn trouble(&self) -> Option<Trouble> {
        self.session.trouble()
    }

    /// One turn, waiting until `until` at most. It may end early with nothing done.
    fn turn(&mut self, until: Instant) -> Result<(), ClientError> {
        self.check()?;
        if self.session.is_linked() {
            self.turn_linked(until);
        } else if self.session.is_connecting() {
            self.turn_connecting(until);
        } else {
            self.turn_waiting(until);
        }
        Ok(())
    }

    fn turn_linked(&mut self, until: Instant) {
        let now = self.clock.now();
        self.send(now);
        let wake = until.min(self.session.next_timer());
        let received = if self.spin { self.receive_spinning(wake) } else { self.receive(wake.since(now)) };
        self.now = self.clock.now();
        match received {
            Received::Bytes(_) => {}
            Received::Nothing => self.session.on_tick(self.now),
            Received::Over(None) => self.session.on_disconnected(self.now, Trouble::Closed),
            Received::Over(Some(kind)) => self.session.on_disconnected(self.now, Trouble::Unreachable(kind)),
        }
    }

    fn turn_connecting(&mut self, until: Instant) {
        let now = self.clock.now();
        let wake = until.min(self.session.next_timer());
        let outcome = self.link.finish(wake.since(now));
        self.now = self.clock.now();
        match outcome {
            Ok(true) => self.session.on_connected(self.now),
            Ok(false) => self.session.on_tick(self.now),
            Err(error) => self.session.on_disconnected(self.now, Trouble::Unreachable(error.kind())),
        }
    }

    fn turn_waiting(&mut self, until: Instant) {
        self.link = Link::Down;
        self.inbox.clear();
        self.outbox.clear();
        let now = self.clock.now();
        match self.session.want(now) {
            Want::Connect(address) => match Link::begin(address, self.attempts) {
                Ok(link) => self.link = link,
                Err(error) => self.session.on_disconnected(now, Trouble::Unreachable(error.kind())),
            },
            Want::Wait(at) => std::thread::sleep(Duration::from_nanos(at.min(until).since(now))),
            Want::Nothing => {}
        }
        self.attempts = self.attempts.wrapping_add(1);
        self.now = self.clock.now();
    }

    fn receive(&mut self, wait_ns: u64) -> Received {
        self.link.receive(&mut self.inbox, &self.outbox, wait_ns)
    }

    fn receive_spinning(&mut self, wake: Instant) -> Received {
        loop {
            let received = self.receive(0);
            let now = self.clock.now();
            if received != Received::Nothing || wake <= now {
                return received;
            }
            if !self.outbox.unsent().is_empty() {
                self.send(now);
            }
            spin_loop();
        }
    }

    /// Sends all that is queued, or as much as the socket takes.
    fn send(&mut self, now: Instant) {
        loop {
            self.session.poll_output(self.outbox.bytes(), now);
            if self.outbox.unsent().is_empty() {
                return;
            }
            self.link.send(&mut self.outbox);
            if !self.outbox.unsent().is_empty() {
                return;
            }
        }
    }

    fn deliver(&mut self, on_event: &mut dyn FnMut(ClientEvent<'_>)) -> usize {
        let mut delivered = 0;
        while !self.inbox.unread().is_empty() {
            let taken = self.session.take(self.inbox.unread(), self.now);
            let size = taken.size;
            let Some(event) = taken.event else {
                self.inbox.skip(size);
                break;
            };
            on_event(event);
            delivered += 1;
            self.inbox.skip(size);
        }
        delivered
    }

    /// Turns until the event that `wanted` knows has come, or it is too late. Its payload is the `size` bytes skipped
    /// last.
    fn await_event<T>(
        &mut self,
        until: Instant,
        on_event: &mut dyn FnMut(ClientEvent<'_>),
        wanted: impl Fn(&ClientEvent<'_>) -> Option<(T, usize)>,
    ) -> Result<Option<(T, usize)>, ClientError> {
        loop {
            if let Some(found) = self.find(&wanted, on_event) {
                return Ok(Some(found));
            }
            if until <= self.now {
                return Ok(None);
            }
            self.turn(until)?;
        }
    }

    /// Takes what is in the inbox up to the event that `wanted` knows.
    fn find<T>(
        &mut self,
        wanted: &impl Fn(&ClientEvent<'_>) -> Option<(T, usize)>,
        on_event: &mut dyn FnMut(ClientEvent<'_>),
    ) -> Option<(T, usize)> {
        while !self.inbox.unread().is_empty() {
            let taken = self.session.take(self.inbox.unread(), self.now);
            let size = taken.size;
            let Some(event) = taken.event else {
                self.inbox.skip(size);
                return None;
            };
            let found = wanted(&event);
            if found.is_none() {
                on_event(event);
            }
            self.inbox.skip(size);
            if found.is_some() {
                return found;
            }
        }
        None
    }

    fn check(&self) -> Result<(), ClientError> {
        self.session.failure().map_or(Ok(()), |failure| Err(failure.clone().into()))
    }
}

/// The monotonic clock, counted from the client's birth.
struct Clock(std::time::Instant);

impl Clock {
    fn now(&self) -> Instant {
        Instant(nanoseconds(self.0.elapsed()))
    }
}

/// How long a closing client waits for the node to close the connection.
const CLOSE_WAIT_NS: u64 = 100 * MILLISECOND_NS;
