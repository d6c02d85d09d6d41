//! What a service may know and do while it handles one record.

use evershard_protocol::limits::{EVENT_BYTES_PER_RECORD_MAX, EVENTS_PER_RECORD_MAX, REPLY_SIZE_MAX, TIMERS_MAX};
use evershard_protocol::{Position, RequestNumber, SessionId, TimerId, Timestamp};

/// A limit was reached; nothing was changed. Deterministic: the same on every replica.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ContextError {
    /// More than [`REPLY_SIZE_MAX`] bytes.
    #[error("a reply or event may have {REPLY_SIZE_MAX} bytes at most")]
    TooLarge,
    /// More than [`EVENTS_PER_RECORD_MAX`] events or [`EVENT_BYTES_PER_RECORD_MAX`] bytes of events for one record.
    #[error("too many events for one record")]
    EventsFull,
    /// More than [`TIMERS_MAX`] changes of timers for one record.
    #[error("too many changes of timers for one record")]
    TimersFull,
}

/// Where and when a record is handled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Occasion {
    /// The record's position.
    pub position: Position,
    /// The record's time.
    pub now: Timestamp,
    /// The session it belongs to; 0 for none.
    pub session: SessionId,
    /// The request's number; 0 for none.
    pub request: RequestNumber,
}

/// One event, its bytes lying in [`Effects::event_bytes`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EventEntry {
    /// Whom it is for.
    pub session: SessionId,
    /// First byte in [`Effects::event_bytes`].
    pub start: usize,
    /// Number of bytes.
    pub size: usize,
}

/// A change of the service's timers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TimerChange {
    /// Set, or set anew.
    Set(TimerId, Timestamp),
    /// No longer wanted.
    Cancel(TimerId),
}

/// What one record brought about. Owned by who drives the service, and used again for the next record: its
/// buffers are allocated once.
#[derive(Debug)]
pub struct Effects {
    /// The reply; empty if the service gave none.
    pub reply: Vec<u8>,
    /// Events in the order they were emitted.
    pub events: Vec<EventEntry>,
    /// The bytes of all events.
    pub event_bytes: Vec<u8>,
    /// Changes of timers in the order they were made.
    pub timers: Vec<TimerChange>,
}

impl Default for Effects {
    fn default() -> Self {
        Self {
            reply: Vec::with_capacity(REPLY_SIZE_MAX),
            events: Vec::with_capacity(EVENTS_PER_RECORD_MAX),
            event_bytes: Vec::with_capacity(EVENT_BYTES_PER_RECORD_MAX),
            timers: Vec::with_capacity(64),
        }
    }
}

impl Effects {
    /// Forgets everything, keeps the buffers.
    pub fn clear(&mut self) {
        self.reply.clear();
        self.events.clear();
        self.event_bytes.clear();
        self.timers.clear();
    }

    /// The bytes of one event.
    #[must_use]
    pub fn event(&self, entry: &EventEntry) -> &[u8] {
        &self.event_bytes[entry.start..entry.start + entry.size]
    }
}

/// A service's view of the record it is handling, and its only way to have an effect.
#[derive(Debug)]
pub struct Context<'a> {
    occasion: Occasion,
    effects: &'a mut Effects,
}

impl<'a> Context<'a> {
    /// For who drives a service. `effects` should be clear.
    #[must_use]
    pub fn new(occasion: Occasion, effects: &'a mut Effects) -> Self {
        Self { occasion, effects }
    }

    /// The record's position: unique, growing.
    #[must_use]
    pub fn position(&self) -> Position {
        self.occasion.position
    }

    /// The record's time: the only time a service knows. Never goes back.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.occasion.now
    }

    /// The session the record belongs to; 0 for none (timers).
    #[must_use]
    pub fn session(&self) -> SessionId {
        self.occasion.session
    }

    /// The session's request number; 0 for none.
    #[must_use]
    pub fn request(&self) -> RequestNumber {
        self.occasion.request
    }

    /// Sets the reply, in place of an earlier one.
    ///
    /// # Errors
    /// [`ContextError::TooLarge`].
    pub fn reply(&mut self, reply: &[u8]) -> Result<(), ContextError> {
        if reply.len() > REPLY_SIZE_MAX {
            return Err(ContextError::TooLarge);
        }
        self.effects.reply.clear();
        self.effects.reply.extend_from_slice(reply);
        Ok(())
    }

    /// The reply under construction, for services that encode in place. Stay below [`REPLY_SIZE_MAX`]: what is
    /// beyond is cut off.
    pub fn reply_mut(&mut self) -> &mut Vec<u8> {
        &mut self.effects.reply
    }

    /// Sends `event` to `session` when the record is applied by the leader. Events are not repeated after a
    /// fail-over; state that a client must not miss belongs in replies.
    ///
    /// # Errors
    /// [`ContextError::TooLarge`], [`ContextError::EventsFull`].
    pub fn emit(&mut self, session: SessionId, event: &[u8]) -> Result<(), ContextError> {
        if event.len() > REPLY_SIZE_MAX {
            return Err(ContextError::TooLarge);
        }
        let start = self.effects.event_bytes.len();
        if self.effects.events.len() == EVENTS_PER_RECORD_MAX || start + event.len() > EVENT_BYTES_PER_RECORD_MAX {
            return Err(ContextError::EventsFull);
        }
        self.effects.event_bytes.extend_from_slice(event);
        self.effects.events.push(EventEntry { session, start, size: event.len() });
        Ok(())
    }

    /// Has [`crate::Service::on_timer`] called at record time `deadline` or soon after; replaces an earlier
    /// deadline of the same timer.
    ///
    /// # Errors
    /// [`ContextError::TimersFull`].
    pub fn set_timer(&mut self, timer: TimerId, deadline: Timestamp) -> Result<(), ContextError> {
        self.change_timer(TimerChange::Set(timer, deadline))
    }

    /// The timer is no longer wanted; no effect if it is not set.
    ///
    /// # Errors
    /// [`ContextError::TimersFull`].
    pub fn cancel_timer(&mut self, timer: TimerId) -> Result<(), ContextError> {
        self.change_timer(TimerChange::Cancel(timer))
    }

    fn change_timer(&mut self, change: TimerChange) -> Result<(), ContextError> {
        if self.effects.timers.len() == TIMERS_MAX {
            return Err(ContextError::TimersFull);
        }
        self.effects.timers.push(change);
        Ok(())
    }
}
