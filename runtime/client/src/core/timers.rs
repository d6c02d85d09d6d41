//! What the session does when time passes and nothing comes.
//!
//! | nothing for | while | then |
//! |---|---|---|
//! | `attempt_max_ns` | connecting | on to the next endpoint |
//! | `ping_after_ns` | open | `Ping` |
//! | `silence_max_ns` | greeting, or a reply or `Pong` is owed | on to the next endpoint |
//! | `stall_max_ns` without a reply | requests are unanswered, whatever else comes | on to the next endpoint |

use evershard_protocol::Instant;

use super::{Phase, Session};
use crate::error::Trouble;

impl Session {
    /// Time has passed and nothing was received. Call it only after having looked for received bytes.
    pub fn on_tick(&mut self, now: Instant) {
        match self.phase {
            Phase::Connecting { until } if until <= now => self.lose(now, Trouble::Unanswered),
            Phase::Greeting if self.silence_deadline() <= now => self.lose(now, Trouble::Silent),
            Phase::Open => self.on_tick_open(now),
            _ => {}
        }
    }

    /// When [`Session::on_tick`] has something to do, or a pause ends.
    #[must_use]
    pub fn next_timer(&self) -> Instant {
        match self.phase {
            Phase::Waiting { until } | Phase::Connecting { until } => until,
            Phase::Greeting => self.silence_deadline(),
            Phase::Open => self.next_timer_open(),
            Phase::Ended => Instant(u64::MAX),
        }
    }

    fn next_timer_open(&self) -> Instant {
        let mut next = self.pause.until.unwrap_or(Instant(u64::MAX));
        if !self.ping_awaited {
            next = next.min(self.quiet_since().after(self.config.ping_after_ns));
        }
        if self.is_awaiting() {
            next = next.min(self.silence_deadline());
        }
        if self.is_owed() {
            next = next.min(self.progress_at.after(self.config.stall_max_ns));
        }
        next
    }

    fn on_tick_open(&mut self, now: Instant) {
        if self.is_awaiting() && self.silence_deadline() <= now {
            return self.lose(now, Trouble::Silent);
        }
        if self.is_owed() && self.progress_at.after(self.config.stall_max_ns) <= now {
            return self.lose(now, Trouble::Stalled);
        }
        if !self.ping_awaited && self.quiet_since().after(self.config.ping_after_ns) <= now {
            if !self.is_awaiting() {
                self.awaiting_since = now;
            }
            self.ping_due = true;
            self.ping_awaited = true;
        }
    }

    /// True if the server owes something on this connection.
    pub(super) fn is_awaiting(&self) -> bool {
        self.ping_awaited || self.queue.first() < self.cursor || self.queries.is_awaiting()
    }

    /// True if a request was sent, on any connection, or a question on this one, and is not answered.
    pub(super) fn is_owed(&self) -> bool {
        self.queue.first() < self.sent_end || self.queries.is_awaiting()
    }

    fn silence_deadline(&self) -> Instant {
        self.quiet_since().after(self.config.silence_max_ns)
    }

    /// Silence before anything was awaited is no sign of trouble.
    fn quiet_since(&self) -> Instant {
        self.received_at.max(self.awaiting_since)
    }
}
