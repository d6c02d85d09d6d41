//! What each frame from the server does to the session.
//!
//! | frame | greeting | open |
//! |---|---|---|
//! | `Welcome` | open | malformed |
//! | `Redirect`, `Refused` | as they say | as they say |
//! | `Reply`, `QueryReply`, `Event`, `Busy`, `Pong` | malformed | as they say |
//! | anything else | malformed | malformed |
//!
//! "Malformed" ends the connection, nothing else: the session goes on at the next endpoint.

use evershard_protocol::client::{
    Busy, Event, NOBODY, PROTOCOL_MAX, PROTOCOL_MIN, Pong, Promise, QueryReply, QueryStatus, Redirect, Refused,
    RefusedCode, Reply, ReplyStatus, Welcome,
};
use evershard_protocol::frame::{Block, Frame, FrameError};
use evershard_protocol::limits::PAYLOAD_SIZE_MAX;
use evershard_protocol::{Instant, NodeId, Position, QueryNumber, RequestNumber, SessionId};

use super::{ClientEvent, PAUSE_MAX_NS, PAUSE_NS, Phase, Session};
use crate::error::{SessionError, Trouble};

/// Bytes of a refusal's sentence that are kept.
const TEXT_SIZE_MAX: usize = 256;
/// So many refusals in a row that may pass are taken for final.
const STRIKES_MAX: u32 = 3;

type Outcome<'a> = Result<Option<ClientEvent<'a>>, FrameError>;

impl Session {
    /// Acts on one frame that arrived at `now`.
    pub(super) fn on_frame<'a>(&mut self, frame: &Frame<'a>, now: Instant) -> Outcome<'a> {
        self.received_at = now;
        self.ping_awaited = false;
        if self.phase == Phase::Open {
            let outcome = self.on_frame_open(frame, now)?;
            if self.phase == Phase::Open {
                self.route.on_progress();
            }
            return Ok(outcome);
        }
        match (frame.schema, frame.template) {
            (Welcome::SCHEMA, Welcome::TEMPLATE) => self.on_welcome(&frame.read::<Welcome>()?.0, now),
            _ => self.on_dismissal(frame, now),
        }
    }

    fn on_frame_open<'a>(&mut self, frame: &Frame<'a>, now: Instant) -> Outcome<'a> {
        if frame.is::<Reply>() {
            let (reply, payload) = frame.read::<Reply>()?;
            return self.on_reply(&reply, payload, now);
        }
        if frame.is::<QueryReply>() {
            let (reply, payload) = frame.read::<QueryReply>()?;
            return self.on_answer(&reply, payload, now);
        }
        if frame.is::<Event>() {
            let (event, payload) = frame.read::<Event>()?;
            let position = Position(event.position.get());
            return Ok(Some(ClientEvent::Event { position, index: event.index.get(), payload }));
        }
        if frame.is::<Busy>() {
            return self.on_busy(&frame.read::<Busy>()?.0, now);
        }
        if frame.is::<Pong>() {
            frame.read::<Pong>()?;
            self.strikes = 0;
            return Ok(None);
        }
        self.on_dismissal(frame, now)
    }

    fn on_reply<'a>(&mut self, reply: &Reply, payload: &'a [u8], now: Instant) -> Outcome<'a> {
        let request = RequestNumber(reply.request.get());
        if request == RequestNumber(0) || request >= self.sent_end {
            return Err(FrameError::Field("request"));
        }
        let status = ReplyStatus::from_number(reply.status).ok_or(FrameError::Field("status"))?;
        let promise = Promise::from_number(reply.promise).ok_or(FrameError::Field("promise"))?;
        // Before the first unanswered: delivered already. Behind it: applied just when we resumed; the requests sent
        // again bring it once more, in its order.
        if request != self.queue.first() {
            return Ok(None);
        }
        self.queue.pop();
        // A reply may overtake the cursor: the request was sent on an earlier connection.
        self.cursor = self.cursor.max(self.queue.first());
        self.pause.length_ns = PAUSE_NS;
        self.progress_at = now;
        self.strikes = 0;
        let position = Position(reply.position.get());
        Ok(Some(ClientEvent::Reply { request, position, status, promise, payload }))
    }

    fn on_answer<'a>(&mut self, reply: &QueryReply, payload: &'a [u8], now: Instant) -> Outcome<'a> {
        let status = QueryStatus::from_number(reply.status).ok_or(FrameError::Field("status"))?;
        let awaited = self.queries.on_answer(reply.query.get()).ok_or(FrameError::Field("query"))?;
        self.progress_at = now;
        self.strikes = 0;
        let (query, position) = (QueryNumber(reply.query.get()), Position(reply.position.get()));
        Ok(awaited.then_some(ClientEvent::Answer { query, position, status, payload }))
    }

    fn on_busy<'a>(&mut self, busy: &Busy, now: Instant) -> Outcome<'a> {
        let expected = RequestNumber(busy.expected.get());
        // What was answered was taken; what was never sent cannot be missing, only be next.
        if expected < self.queue.first() || expected > self.sent_end {
            return Err(FrameError::Field("expected"));
        }
        if expected >= self.cursor {
            // Said about requests that are being sent again anyhow.
            return Ok(None);
        }
        self.cursor = expected;
        if self.pause.until.is_none() {
            self.pause.until = Some(now.after(self.pause.length_ns));
            self.pause.length_ns = (self.pause.length_ns * 2).min(PAUSE_MAX_NS);
        }
        Ok(None)
    }

    fn on_welcome<'a>(&mut self, welcome: &Welcome, now: Instant) -> Outcome<'a> {
        let session = SessionId(welcome.session.get());
        let last = RequestNumber(welcome.last_request.get());
        let first = self.queue.first();
        let resumed = self.id != SessionId(0);
        if !(PROTOCOL_MIN..=PROTOCOL_MAX).contains(&welcome.protocol.get()) {
            return Err(FrameError::Field("protocol"));
        }
        if session == SessionId(0) || (resumed && session != self.id) {
            return Err(FrameError::Field("session"));
        }
        if welcome.window_len_max.get() == 0 {
            return Err(FrameError::Field("window_len_max"));
        }
        if last >= self.sent_end {
            return Err(FrameError::Field("last_request"));
        }
        if welcome.term.get() < self.term {
            // Deposed and not aware of it: what it does not know says nothing.
            self.lose(now, Trouble::NoLeader);
            return Ok(None);
        }
        if last.next() < first {
            let answered = RequestNumber(first.0 - 1);
            self.end(SessionError::HistoryLost { session, answered, known: last });
            return Ok(None);
        }
        self.id = session;
        self.term = welcome.term.get();
        self.leader = Some(NodeId(welcome.node));
        self.window_len = u64::from(welcome.window_len_max.get()).min(self.config.window_len as u64);
        self.payload_size_max = PAYLOAD_SIZE_MAX.min(welcome.payload_size_max.get() as usize);
        self.phase = Phase::Open;
        self.cursor = first;
        self.queries.restart();
        self.pause.until = None;
        self.progress_at = now;
        let resent = self.sent_end.0 - first.0;
        let leader = NodeId(welcome.node);
        let trouble = self.trouble.take();
        Ok(resumed.then_some(ClientEvent::Reconnected { leader, trouble, resent }))
    }

    /// `Redirect` or `Refused`: this connection is over. Anything else was not expected here.
    fn on_dismissal<'a>(&mut self, frame: &Frame<'a>, now: Instant) -> Outcome<'a> {
        if frame.is::<Redirect>() {
            let (redirect, leader) = frame.read::<Redirect>()?;
            let leader = if redirect.leader == NOBODY { &[] } else { leader };
            let trouble = if leader.is_empty() { Trouble::NoLeader } else { Trouble::Redirected };
            let until = self.route.on_redirect(leader, now);
            self.wait(until, trouble);
            return Ok(None);
        }
        let (refused, text) = frame.read::<Refused>()?;
        let code = RefusedCode::from_number(refused.code.get()).ok_or(FrameError::Field("code"))?;
        self.on_refused(code, text, now);
        Ok(None)
    }

    fn on_refused(&mut self, code: RefusedCode, text: &[u8], now: Instant) {
        let trouble = Trouble::Refused(code);
        match code {
            RefusedCode::SessionsFull => {
                let until = self.route.on_full(now);
                self.wait(until, trouble);
            }
            RefusedCode::Slow => {
                let until = self.route.on_again(now);
                self.wait(until, trouble);
            }
            // Our own last connection may have been served late, or a byte was damaged: not final the first time.
            RefusedCode::Superseded | RefusedCode::Malformed if self.strikes + 1 < STRIKES_MAX => {
                self.strikes += 1;
                let until = self.route.on_again(now);
                self.wait(until, trouble);
            }
            RefusedCode::Superseded => self.end(SessionError::Superseded { session: self.id }),
            RefusedCode::SessionUnknown if self.id != SessionId(0) => {
                self.end(SessionError::SessionLost { session: self.id, unanswered: self.queue.len() });
            }
            RefusedCode::SessionUnknown
            | RefusedCode::Malformed
            | RefusedCode::Protocol
            | RefusedCode::Cluster
            | RefusedCode::Shard
            | RefusedCode::Token => {
                let address = self.route.address().to_owned();
                let text = String::from_utf8_lossy(&text[..text.len().min(TEXT_SIZE_MAX)]).into_owned();
                self.end(SessionError::Refused { address, code, text });
            }
        }
    }
}
