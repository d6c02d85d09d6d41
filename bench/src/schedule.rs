//! Open-loop schedules: when each request should be sent, whatever became of the ones before it.
//!
//! A load generator that waits for a slow reply before it sends the next request measures the pause once and leaves out
//! all who would have suffered it (coordinated omission). Here each request has its intended time, and its latency
//! counts from there:
//!
//! ```
//! # use evershard_bench::schedule::Schedule;
//! # use std::time::Duration;
//! let mut schedule = Schedule::new(1000.0, Duration::from_secs(10));
//! # let elapsed = Duration::from_millis(2);
//! while let Some(request) = schedule.take_due(elapsed) {
//!     // Send it now, and when its reply comes at `replied`, record `request.latency(replied)`.
//!     let replied = elapsed + Duration::from_micros(40);
//!     assert!(request.latency(replied) >= Duration::from_micros(40));
//! }
//! ```

use std::time::Duration;

/// Intended send times at one rate. All times count from the run's begin.
#[derive(Debug, Clone)]
pub struct Schedule {
    rate: f64,
    length: Duration,
    next_number: u64,
}

/// One request that is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Due {
    /// Counts from 0.
    pub number: u64,
    /// When it should have been sent.
    pub intended: Duration,
}

impl Due {
    /// What the sender of this request waited, from its intended time. The schedule's own rounding never makes this
    /// negative: a reply cannot precede a send, and no request is handed out early.
    pub fn latency(&self, replied: Duration) -> Duration {
        replied.saturating_sub(self.intended)
    }
}

impl Schedule {
    /// A schedule of so many requests a second for a time.
    pub fn new(rate: f64, length: Duration) -> Self {
        assert!(rate.is_finite() && rate > 0.0, "a rate is above zero");
        Self { rate, length, next_number: 0 }
    }

    /// The next request if its time has come. Call until `None`: after a pause, many are due at once.
    pub fn take_due(&mut self, elapsed: Duration) -> Option<Due> {
        let due = self.peek()?;
        if due.intended > elapsed {
            return None;
        }
        self.next_number += 1;
        Some(due)
    }

    /// The next request and its intended time; `None` when the schedule has ended.
    pub fn peek(&self) -> Option<Due> {
        // Computed from the number and not summed up, so that rounding does not make the rate drift.
        let intended = Duration::from_secs_f64(self.next_number as f64 / self.rate);
        (intended < self.length).then_some(Due { number: self.next_number, intended })
    }

    /// How long until the next request is due; zero when one is, `None` when the schedule has ended.
    pub fn wait(&self, elapsed: Duration) -> Option<Duration> {
        self.peek().map(|due| due.intended.saturating_sub(elapsed))
    }

    /// How many requests were handed out.
    pub fn taken(&self) -> u64 {
        self.next_number
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_come_at_the_rate_and_end_with_the_run() {
        let mut schedule = Schedule::new(4.0, Duration::from_secs(1));
        let all: Vec<_> = std::iter::from_fn(|| schedule.take_due(Duration::from_secs(9))).collect();
        let times: Vec<_> = all.iter().map(|due| due.intended.as_millis()).collect();
        assert_eq!(times, [0, 250, 500, 750]);
        assert_eq!(schedule.peek(), None);
        assert_eq!(schedule.wait(Duration::ZERO), None);
    }

    #[test]
    fn nothing_is_due_early() {
        let mut schedule = Schedule::new(1000.0, Duration::from_secs(1));
        assert!(schedule.take_due(Duration::ZERO).is_some());
        assert_eq!(schedule.take_due(Duration::from_micros(999)), None);
        assert_eq!(schedule.wait(Duration::from_micros(999)), Some(Duration::from_micros(1)));
        assert!(schedule.take_due(Duration::from_millis(1)).is_some());
        assert_eq!(schedule.taken(), 2);
    }

    #[test]
    fn a_pause_is_charged_to_everyone_it_delayed() {
        let mut schedule = Schedule::new(1000.0, Duration::from_secs(1));
        let resumed = Duration::from_millis(10);
        let latencies: Vec<_> =
            std::iter::from_fn(|| schedule.take_due(resumed)).map(|due| due.latency(resumed)).collect();
        assert_eq!(latencies.len(), 11);
        assert_eq!(latencies[0], Duration::from_millis(10));
        assert_eq!(latencies[10], Duration::ZERO);
    }

    #[test]
    fn an_odd_rate_does_not_drift() {
        let schedule = Schedule { rate: 3.0, length: Duration::MAX, next_number: 3_000_000_000 };
        assert_eq!(schedule.peek().expect("it is endless").intended, Duration::from_secs(1_000_000_000));
    }
}
