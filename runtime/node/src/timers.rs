//! The timers of a service: part of the replicated state, changed by applied records only.

use evershard_protocol::limits::TIMERS_MAX;
use evershard_protocol::{TimerId, Timestamp};
use evershard_service::TimerChange;

/// A timer and when it is due.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Timer {
    /// Record time from which it is due.
    pub deadline: Timestamp,
    /// Which one.
    pub id: TimerId,
}

/// All timers that are set, earliest first.
pub struct TimerTable {
    /// Invariant: ascending by (deadline, id); ids are unique.
    timers: Vec<Timer>,
}

impl Default for TimerTable {
    fn default() -> Self {
        Self { timers: Vec::with_capacity(TIMERS_MAX) }
    }
}

impl TimerTable {
    /// Makes one change. A timer beyond [`TIMERS_MAX`] is not set; every replica decides the same.
    pub fn change(&mut self, change: TimerChange) {
        let (TimerChange::Set(id, _) | TimerChange::Cancel(id)) = change;
        if let Some(at) = self.timers.iter().position(|timer| timer.id == id) {
            self.timers.remove(at);
        }
        if let TimerChange::Set(id, deadline) = change
            && self.timers.len() < TIMERS_MAX
        {
            let timer = Timer { deadline, id };
            let at = self.timers.partition_point(|known| *known < timer);
            self.timers.insert(at, timer);
        }
    }

    /// The table with these timers, in firing order; `None` if they are not, or too many.
    #[must_use]
    pub fn restore(timers: impl Iterator<Item = Timer>) -> Option<Self> {
        let mut table = Self::default();
        for timer in timers {
            if table.timers.len() == TIMERS_MAX || table.timers.last().is_some_and(|last| *last >= timer) {
                return None;
            }
            table.timers.push(timer);
        }
        Some(table)
    }

    /// Takes a timer that has fired off the table; false if it is not set like this any more.
    pub fn fire(&mut self, timer: Timer) -> bool {
        match self.timers.binary_search(&timer) {
            Ok(at) => {
                self.timers.remove(at);
                true
            }
            Err(_) => false,
        }
    }

    /// The first timer behind `after`, in firing order.
    #[must_use]
    pub fn next_after(&self, after: Option<Timer>) -> Option<Timer> {
        let at = after.map_or(0, |after| self.timers.partition_point(|timer| *timer <= after));
        self.timers.get(at).copied()
    }

    /// All of them, in firing order.
    #[must_use]
    pub fn all(&self) -> &[Timer] {
        &self.timers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fires_in_order_and_only_what_is_still_set() {
        let mut timers = TimerTable::default();
        timers.change(TimerChange::Set(TimerId(1), Timestamp(30)));
        timers.change(TimerChange::Set(TimerId(2), Timestamp(10)));
        timers.change(TimerChange::Set(TimerId(1), Timestamp(5)));
        let first = timers.next_after(None).expect("two are set");
        assert_eq!((first.id, first.deadline), (TimerId(1), Timestamp(5)));
        assert_eq!(timers.next_after(Some(first)).map(|timer| timer.id), Some(TimerId(2)));
        assert!(!timers.fire(Timer { deadline: Timestamp(30), id: TimerId(1) }), "it was set anew");
        assert!(timers.fire(first));
        timers.change(TimerChange::Cancel(TimerId(2)));
        assert_eq!(timers.next_after(None), None);
    }
}
