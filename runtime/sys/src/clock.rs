//! The two clocks: monotonic for timers, real time for record time. Both are read through the vDSO, without entering
//! the kernel.
//!
//! The monotonic clock is CLOCK_BOOTTIME (Linux 2.6.39): unlike CLOCK_MONOTONIC it goes on while the machine is
//! suspended, and a leader that was suspended must not take the promises of its followers for fresh.

use nix::time::{ClockId, clock_gettime};

/// Nanoseconds of CLOCK_BOOTTIME.
#[must_use]
pub fn monotonic_ns() -> u64 {
    read(ClockId::CLOCK_BOOTTIME)
}

/// Nanoseconds since the Unix epoch, CLOCK_REALTIME.
#[must_use]
pub fn realtime_ns() -> u64 {
    read(ClockId::CLOCK_REALTIME)
}

fn read(clock: ClockId) -> u64 {
    let time = clock_gettime(clock).expect("both clocks exist on every Linux");
    let seconds = u64::try_from(time.tv_sec()).unwrap_or(0);
    let nanoseconds = u64::try_from(time.tv_nsec()).unwrap_or(0);
    seconds * 1_000_000_000 + nanoseconds
}
