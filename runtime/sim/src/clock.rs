//! A node's two clocks, as functions of the run's own time.
//!
//! Fault model. The monotonic clock begins anywhere, runs up to some hundred parts per million too fast or too slow,
//! and never goes back. The wall clock shares its rate, is off by some offset, and jumps, forwards and back, by up to an
//! hour. A process may be stopped between two looks at a clock: then the second one is much later, and what came in
//! meanwhile lies before it.

use evershard_node::env::Now;
use evershard_protocol::{Instant, Timestamp};

/// Time of the run, in nanoseconds since its beginning.
pub type Time = u64;

/// Wall clocks begin here: some day in 2024.
const EPOCH_NS: i128 = 1_720_000_000_000_000_000;

/// One node's clocks.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// What the monotonic clock says at the beginning.
    base_ns: u64,
    /// Parts per million it gains.
    drift_ppm: i64,
    /// What the wall clock is off by.
    offset_ns: i64,
}

impl Clock {
    /// A clock that says `base_ns` at the beginning.
    #[must_use]
    pub fn new(base_ns: u64, drift_ppm: i64, offset_ns: i64) -> Self {
        assert!(drift_ppm.abs() < 100_000, "a clock that runs at some rate");
        Self { base_ns, drift_ppm, offset_ns }
    }

    /// Both clocks at a time of the run.
    #[must_use]
    pub fn now(&self, time: Time) -> Now {
        let wall = EPOCH_NS + i128::from(time) + self.gained(time) + i128::from(self.offset_ns);
        let timestamp = Timestamp(u64::try_from(wall).expect("far from the ends of time"));
        Now { instant: self.instant(time), timestamp }
    }

    /// The monotonic clock alone.
    #[must_use]
    pub fn instant(&self, time: Time) -> Instant {
        let local = i128::from(self.base_ns) + i128::from(time) + self.gained(time);
        Instant(u64::try_from(local).expect("the clock runs forwards"))
    }

    /// The first time of the run at which the monotonic clock says at least `instant`.
    #[must_use]
    pub fn time_of(&self, instant: Instant) -> Time {
        let local = i128::from(instant.0.saturating_sub(self.base_ns));
        let time = local * 1_000_000 / (1_000_000 + i128::from(self.drift_ppm));
        let mut time = u64::try_from(time).unwrap_or(u64::MAX / 2).min(u64::MAX / 2);
        while self.instant(time) < instant && time < u64::MAX / 2 {
            time += 1;
        }
        time
    }

    /// The wall clock is set.
    pub fn jump(&mut self, by_ns: i64) {
        self.offset_ns = self.offset_ns.saturating_add(by_ns).clamp(-OFFSET_NS_MAX, OFFSET_NS_MAX);
    }

    fn gained(&self, time: Time) -> i128 {
        i128::from(time) * i128::from(self.drift_ppm) / 1_000_000
    }
}

/// No wall clock is ever further off than a day.
const OFFSET_NS_MAX: i64 = 86_400_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_is_reached_exactly_and_not_before() {
        for drift in [-700, -1, 0, 1, 900] {
            let clock = Clock::new(12_345, drift, 0);
            for deadline in [12_345, 12_346, 99_999_999, 123_456_789_012] {
                let time = clock.time_of(Instant(deadline));
                assert!(clock.instant(time) >= Instant(deadline));
                assert!(time == 0 || clock.instant(time - 1) < Instant(deadline), "{drift} {deadline}");
            }
        }
    }

    #[test]
    fn jumps_move_the_wall_clock_only() {
        let mut clock = Clock::new(0, 0, 0);
        let before = clock.now(1000);
        clock.jump(-5);
        let after = clock.now(1000);
        assert_eq!(before.instant, after.instant);
        assert_eq!(before.timestamp.0 - 5, after.timestamp.0);
    }
}
