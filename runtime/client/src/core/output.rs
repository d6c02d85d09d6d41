//! What the session sends: `Hello` on a new connection, then `Ping`s and the requests from the cursor on.

use evershard_protocol::client::{Close, Hello, PROTOCOL_MAX, PROTOCOL_MIN, Ping, Request};
use evershard_protocol::frame::{Full, put, put_gathered};
use evershard_protocol::{Instant, RequestNumber};

use super::{Phase, Session};
use crate::error::SessionError;

impl Session {
    /// Appends what is to be sent to `out`, as much as its capacity takes. The bytes belong to this connection: they
    /// are void once it has ended.
    pub fn poll_output(&mut self, out: &mut Vec<u8>, now: Instant) {
        if self.hello_due && self.put_hello(out).is_ok() {
            self.hello_due = false;
        }
        if self.phase != Phase::Open {
            return;
        }
        if self.ping_due && put(out, &Ping { token: now.0.into() }, &[]).is_ok() {
            self.ping_due = false;
        }
        if self.pause.until.is_some_and(|until| until <= now) {
            self.pause.until = None;
        }
        if self.queries.is_due() {
            self.begin_awaiting(now);
            self.queries.put(out);
        }
        if self.cursor < self.queue.next() && self.pause.until.is_none() {
            self.put_requests(out, now);
        }
    }

    /// Something is about to be sent that will be answered.
    fn begin_awaiting(&mut self, now: Instant) {
        if !self.is_owed() {
            self.progress_at = now;
        }
        if !self.is_awaiting() {
            self.awaiting_since = now;
        }
    }

    /// Ends the session: appends `Close` to `out`. False if the session is not open, requests wait to be sent, or
    /// `out` is full; nothing happened then.
    pub fn close(&mut self, out: &mut Vec<u8>) -> bool {
        let closable = self.phase == Phase::Open && self.cursor == self.queue.next();
        if !closable || put(out, &Close {}, &[]).is_err() {
            return false;
        }
        self.end(SessionError::Closed);
        true
    }

    fn put_hello(&self, out: &mut Vec<u8>) -> Result<(), Full> {
        let hello = Hello {
            protocol_min: PROTOCOL_MIN.into(),
            protocol_max: PROTOCOL_MAX.into(),
            shard: self.config.shard.0.into(),
            padding: [0; 2],
            features: 0.into(),
            cluster: self.config.cluster.0.into(),
            session: self.id.0.into(),
            token: self.config.token.into(),
            first_unanswered: self.queue.first().0.into(),
        };
        put(out, &hello, &[])
    }

    fn put_requests(&mut self, out: &mut Vec<u8>, now: Instant) {
        let first = self.queue.first();
        assert!(first <= self.cursor, "answered requests are not sent");
        self.begin_awaiting(now);
        let end = self.queue.next().min(RequestNumber(first.0 + self.window_len));
        while self.cursor < end {
            let block = Request { request: self.cursor.0.into(), first_unanswered: first.0.into() };
            if put_gathered(out, &block, &self.queue.payload(self.cursor)).is_err() {
                break;
            }
            self.cursor = self.cursor.next();
        }
        self.sent_end = self.sent_end.max(self.cursor);
    }
}
