//! `false-fault`: recovery finds damage only where damage was done; a crash or a loss of power is none. `refused-start`: a
//! replica starts from every disk that the fault model allows. `halted`: applying stops only because of damage.

use evershard_log::{FaultReason, Verdict};
use evershard_node::core::Core;
use evershard_node::notice::HaltReason;
use evershard_node::snapshot::Snapshot;
use evershard_node::start::{StartError, Started};
use evershard_protocol::Position;

use crate::oracle::Violation;
use crate::service::KeyValue;

/// A replica was started, or not; `damaged` says whether harm was done to this disk since it was last whole, `ever` whether
/// at any time: until the log has grown beyond where it once reached, a repaired one says so at every start.
///
/// # Errors
/// [`Violation`].
pub fn check_start(
    node: usize,
    damaged: bool,
    ever: bool,
    outcome: &Result<Started, StartError>,
) -> Result<(), Violation> {
    match outcome {
        Ok(started) => match started.recovered.verdict {
            Verdict::Faulty { reason: FaultReason::Unrepaired, .. } if ever => Ok(()),
            Verdict::Faulty { from, reason, .. } if !damaged => {
                let what = format!("n{node} finds its log damaged from {from} on ({reason}), and nothing damaged it");
                Violation::of("false-fault", what)
            }
            // What a snapshot covers is not repaired any more, and no trouble.
            _ if !damaged && started.recovered.holes.iter().any(|hole| hole.until() > covered(started)) => {
                let what = format!("n{node} finds holes where nothing damaged it: {:?}", started.recovered.holes);
                Violation::of("false-fault", what)
            }
            _ => Ok(()),
        },
        Err(error) => Violation::of("refused-start", format!("n{node}: {error:?}")),
    }
}

fn covered(started: &Started) -> Position {
    started.snapshot.as_ref().map_or(Position::ZERO, Snapshot::position)
}

/// A replica has had a turn; `excused` says whether something unreadable was put before it.
///
/// # Errors
/// [`Violation`].
pub fn check_halt(node: usize, excused: bool, core: &Core<KeyValue>) -> Result<(), Violation> {
    match core.replica().halted {
        Some((_, HaltReason::Faulty)) if excused => Ok(()),
        Some((position, reason)) => Violation::of("halted", format!("n{node} at {position}: {reason}")),
        None => Ok(()),
    }
}
