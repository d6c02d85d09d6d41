//! Reads without a record, while leaders are deposed behind their backs.

use crate::check::holds;
use crate::scenario::{Grain, Scenario};

/// Confirmed by a quorum's answers.
pub fn read_index() -> Scenario {
    Scenario {
        name: "reads, coarse",
        settled: true,
        term_max: 3,
        commands_max: 1,
        reads_max: 2,
        depth_max: 6,
        ..Scenario::default()
    }
}

/// The same with every answer under way by itself: late ones must confirm nothing.
pub fn read_index_fine() -> Scenario {
    Scenario {
        name: "reads, fine",
        grain: Grain::Fine,
        settled: true,
        term_max: 2,
        reads_max: 2,
        heartbeats_max: 1,
        duplicates_max: 1,
        depth_max: 8,
        ..Scenario::default()
    }
}

/// Confirmed by promises, while leadership is handed over.
pub fn lease() -> Scenario {
    Scenario {
        name: "reads by lease, coarse",
        settled: true,
        lease: true,
        term_max: 4,
        commands_max: 2,
        reads_max: 3,
        transfers_max: 2,
        depth_max: 8,
        ..Scenario::default()
    }
}

#[test]
fn reads_by_quorum_are_never_stale() {
    holds(read_index());
}

#[test]
fn late_answers_confirm_nothing() {
    holds(read_index_fine());
}

#[test]
fn reads_by_lease_are_never_stale() {
    holds(lease());
}
