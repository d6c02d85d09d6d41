//! The sessions of a shard: who has them, what was applied for them, and what they may ask for again.
//!
//! The replicated part changes by applied records only. The leader keeps a volatile part beside it: which link a session
//! is at, what it has admitted and delivered; it starts empty with every leader.

use evershard_protocol::bugs::{self, Bug};
use evershard_protocol::client::ReplyStatus;
use evershard_protocol::limits::SESSIONS_MAX;
use evershard_protocol::{Instant, Position, RequestNumber, SessionId};

use crate::env::LinkId;
use crate::replies::ReplyRing;

/// One session.
pub struct Session {
    /// Its id: the position of the record that opened it.
    pub id: SessionId,
    /// Who resumes it must know this.
    pub token: u64,
    /// Client protocol version agreed in the handshake.
    pub protocol: u16,
    /// Feature bits agreed in the handshake.
    pub features: u64,
    /// The last request applied.
    pub applied: RequestNumber,
    /// Replies that may be asked for again.
    pub replies: ReplyRing,
    /// The leader's own part.
    pub volatile: Volatile,
}

/// What only a leader knows of a session.
#[derive(Clone, Copy, Debug, Default)]
pub struct Volatile {
    /// Where its client is connected.
    pub link: Option<LinkId>,
    /// The last request put into the log. Invariant on a leader that is ready: at least `applied`.
    pub admitted: RequestNumber,
    /// The last request whose reply was handed to the link.
    pub delivered: RequestNumber,
    /// Since when no client is connected.
    pub idle_since: Instant,
    /// A record that closes it is in the log.
    pub closing: bool,
    /// The client was told to come again from `admitted + 1`; said once until it does.
    pub told_busy: bool,
}

/// All sessions, by id.
#[derive(Default)]
pub struct SessionTable {
    /// Invariant: ascending by id.
    sessions: Vec<Session>,
    /// Where the last look-up ended: runs of records of one session are the rule.
    last: usize,
}

impl SessionTable {
    /// An empty table.
    #[must_use]
    pub fn new() -> Self {
        Self { sessions: Vec::with_capacity(SESSIONS_MAX), last: 0 }
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    /// True if there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    /// Opens one; false when [`SESSIONS_MAX`] are open.
    pub fn open(&mut self, position: Position, token: u64, protocol: u16, features: u64) -> bool {
        if self.sessions.len() == SESSIONS_MAX {
            return false;
        }
        let id = SessionId(position.0);
        assert!(self.sessions.last().is_none_or(|last| last.id < id), "positions grow");
        self.sessions.push(Session {
            id,
            token,
            protocol,
            features,
            applied: RequestNumber(0),
            replies: ReplyRing::default(),
            volatile: Volatile::default(),
        });
        true
    }

    /// Closes one; gives it back if it was open.
    pub fn close(&mut self, id: SessionId) -> Option<Session> {
        let at = self.sessions.binary_search_by_key(&id, |session| session.id).ok()?;
        Some(self.sessions.remove(at))
    }

    /// The session, if it is open.
    pub fn get(&mut self, id: SessionId) -> Option<&mut Session> {
        if self.sessions.get(self.last).is_none_or(|session| session.id != id) {
            self.last = self.sessions.binary_search_by_key(&id, |session| session.id).ok()?;
        }
        self.sessions.get_mut(self.last)
    }

    /// All sessions, by id.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Session> {
        self.sessions.iter_mut()
    }

    /// All sessions, by id.
    pub fn iter(&self) -> impl Iterator<Item = &Session> {
        self.sessions.iter()
    }

    /// A new leader begins: nobody is connected, nothing is admitted beyond what is applied.
    pub fn reset_volatile(&mut self, now: Instant) {
        for session in &mut self.sessions {
            session.volatile = Volatile {
                admitted: session.applied,
                delivered: session.applied,
                idle_since: now,
                ..Volatile::default()
            };
        }
    }
}

/// What the next request of a session means to the leader.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Admission {
    /// The next in order: take it.
    Next,
    /// Taken already; its reply comes, or has gone out and is asked for again.
    Repeated,
    /// An earlier one is missing, or the window is full.
    OutOfTurn,
}

impl Session {
    /// Decides about request `number` of a client whose first unanswered request is `first_unanswered`.
    #[must_use]
    pub fn admission(&self, number: RequestNumber, first_unanswered: RequestNumber, window_len_max: u64) -> Admission {
        if number <= self.volatile.admitted && bugs::is_on(Bug::DuplicateReexecuted) {
            return Admission::Next;
        }
        if number <= self.volatile.admitted {
            return Admission::Repeated;
        }
        let window_full = number.0.saturating_sub(first_unanswered.0) >= window_len_max;
        if number != self.volatile.admitted.next() || window_full || first_unanswered > number {
            return Admission::OutOfTurn;
        }
        Admission::Next
    }

    /// Applies a request's outcome: remembers the reply, forgets what the client has.
    pub fn on_applied(
        &mut self,
        request: RequestNumber,
        first_unanswered: RequestNumber,
        position: Position,
        status: ReplyStatus,
        reply: &[u8],
    ) {
        self.applied = request;
        self.replies.release(first_unanswered);
        self.replies.push(request, position, status, reply);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_taken_in_order_each_once() {
        let mut table = SessionTable::new();
        assert!(table.open(Position(64), 1, 1, 0));
        let session = table.get(SessionId(64)).expect("just opened");
        let admission =
            |session: &Session, number, first| session.admission(RequestNumber(number), RequestNumber(first), 4);
        assert_eq!(admission(session, 1, 1), Admission::Next);
        assert_eq!(admission(session, 2, 1), Admission::OutOfTurn);
        session.volatile.admitted = RequestNumber(4);
        assert_eq!(admission(session, 3, 1), Admission::Repeated);
        assert_eq!(admission(session, 5, 1), Admission::OutOfTurn, "four are unanswered");
        assert_eq!(admission(session, 5, 2), Admission::Next);
        assert_eq!(admission(session, 5, 6), Admission::OutOfTurn, "nobody has an answer before it asks");
    }

    #[test]
    fn a_closed_session_is_gone_and_the_others_stay() {
        let mut table = SessionTable::new();
        for position in [64, 128, 192] {
            assert!(table.open(Position(position), position, 1, 0));
        }
        assert!(table.close(SessionId(128)).is_some());
        assert!(table.close(SessionId(128)).is_none());
        assert!(table.get(SessionId(128)).is_none());
        assert_eq!(table.get(SessionId(192)).map(|session| session.token), Some(192));
    }
}
