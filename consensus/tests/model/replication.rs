//! Elections, replication and crashes of three voters.

use evershard_consensus::Durability;

use crate::check::{Step, holds};
use crate::scenario::{Grain, Scenario, nodes};

/// From nothing: two terms, every letter, save and flush apart, a crash.
pub fn votes() -> Scenario {
    Scenario {
        name: "votes, fine",
        grain: Grain::Fine,
        term_max: 2,
        restarts_max: 1,
        letters_max: 1,
        depth_max: 11,
        ..Scenario::default()
    }
}

/// One command on its way to a settled shard's disks, while anybody may campaign.
pub fn one_command() -> Scenario {
    Scenario {
        name: "one command, fine",
        grain: Grain::Fine,
        settled: true,
        term_max: 2,
        commands_max: 1,
        restarts_max: 1,
        heartbeats_max: 1,
        duplicates_max: 1,
        depth_max: 8,
        ..Scenario::default()
    }
}

/// Whole elections and exchanges as steps: logs that part and come together again.
pub fn conflicts() -> Scenario {
    Scenario { name: "conflicts, coarse", term_max: 4, commands_max: 2, depth_max: 6, ..Scenario::default() }
}

/// Figure 8 of the Raft paper, up to where the first leader, elected again, has a command of its old term that only it
/// has. It is to be replicated in part, and then somebody else's turn.
pub fn figure_8() -> Scenario {
    let elect = |candidate| Step::Elect { candidate, voters: nodes([2]), disks: true };
    Scenario {
        name: "figure 8, coarse",
        settled: true,
        begin: vec![Step::Propose(0), elect(1), elect(0), elect(0)],
        term_max: 4,
        commands_max: 2,
        partial: true,
        depth_max: 5,
        ..Scenario::default()
    }
}

/// The same with crashes, and with disks that write nothing for a while.
pub fn crashes() -> Scenario {
    Scenario {
        name: "crashes, coarse",
        term_max: 3,
        commands_max: 2,
        restarts_max: 2,
        depth_max: 5,
        ..Scenario::default()
    }
}

/// Commit by what is in memory: one replica may lose it all.
pub fn in_memory() -> Scenario {
    Scenario {
        name: "in memory, coarse",
        durability: Durability::Replicated,
        settled: true,
        term_max: 3,
        commands_max: 1,
        restarts_max: 1,
        depth_max: 5,
        ..Scenario::default()
    }
}

#[test]
fn votes_are_kept() {
    holds(votes());
}

#[test]
fn a_command_survives() {
    holds(one_command());
}

#[test]
fn conflicts_end_as_they_must() {
    holds(conflicts());
}

#[test]
fn old_terms_are_committed_by_new_ones() {
    holds(figure_8());
}

#[test]
fn what_is_committed_survives_crashes() {
    holds(crashes());
}

#[test]
fn what_is_committed_in_memory_survives_one_crash() {
    holds(in_memory());
}
