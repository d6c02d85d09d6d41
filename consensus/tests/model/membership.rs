//! Changing the voters while anybody may campaign.

use evershard_protocol::MembershipChange;

use crate::check::holds;
use crate::scenario::{Grain, Scenario, nodes};

/// A learner takes the place of voter 2, in one change.
pub fn replace() -> Scenario {
    let change = MembershipChange { promote: nodes([3]), remove: nodes([2]), ..MembershipChange::default() };
    Scenario {
        name: "replace a voter, coarse",
        learners: 1,
        settled: true,
        term_max: 3,
        commands_max: 1,
        changes: vec![change],
        depth_max: 5,
        ..Scenario::default()
    }
}

/// The same with every letter and write apart.
pub fn replace_fine() -> Scenario {
    Scenario {
        name: "replace a voter, fine",
        grain: Grain::Fine,
        letters_max: 1,
        commands_max: 0,
        term_max: 2,
        depth_max: 9,
        ..replace()
    }
}

/// The leader itself leaves; then the next one takes it in again as a learner.
pub fn leave() -> Scenario {
    let remove = MembershipChange { remove: nodes([0]), ..MembershipChange::default() };
    let learn = MembershipChange { learn: nodes([0]), ..MembershipChange::default() };
    Scenario {
        name: "the leader leaves, coarse",
        settled: true,
        term_max: 3,
        changes: vec![remove, learn],
        restarts_max: 1,
        depth_max: 5,
        ..Scenario::default()
    }
}

#[test]
fn a_voter_is_replaced() {
    holds(replace());
}

#[test]
fn a_voter_is_replaced_letter_by_letter() {
    holds(replace_fine());
}

#[test]
fn a_leader_leaves() {
    holds(leave());
}
