//! Two kinds of time, never mixed: a monotonic clock for timers, a wall clock for records.

/// Nanoseconds in one millisecond.
pub const MILLISECOND_NS: u64 = 1_000_000;
/// Nanoseconds in one second.
pub const SECOND_NS: u64 = 1_000_000_000;

/// A reading of one process's monotonic clock, in nanoseconds since an arbitrary start.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Instant(pub u64);

impl Instant {
    /// `ns` nanoseconds later; saturates, so "never" may be written `after(u64::MAX)`.
    #[must_use]
    pub fn after(self, ns: u64) -> Self {
        Self(self.0.saturating_add(ns))
    }

    /// Nanoseconds since `earlier`; 0 if it is not earlier.
    #[must_use]
    pub fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// Record time: nanoseconds since the Unix epoch, as stamped by the leader. Never goes back within one log.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// `ns` nanoseconds later; saturates.
    #[must_use]
    pub fn after(self, ns: u64) -> Self {
        Self(self.0.saturating_add(ns))
    }
}
