//! A check that cannot fail proves nothing: with a bug switched on, it must find a way to something that must not be.
//!
//! One bug of the core is left to the simulator: `CommitAheadOfData` shows only where an append without news reaches a
//! follower whose log goes on with another leader's records, and within these bounds the leader's back-off ends exactly
//! where the logs part.

use evershard_protocol::bugs::Bug;

use crate::check::fails;
use crate::{membership, reads, replication};

#[test]
fn votes_that_are_told_before_they_are_saved() {
    fails(Bug::VoteNotDurable, replication::crashes());
}

#[test]
fn votes_for_shorter_logs() {
    fails(Bug::VoteForShorterLog, replication::conflicts());
}

#[test]
fn records_of_earlier_terms_committed_by_counting() {
    fails(Bug::CommitPriorTerm, replication::figure_8());
}

#[test]
fn what_is_received_taken_for_durable() {
    fails(Bug::ReceivedAsDurable, replication::crashes());
}

#[test]
fn the_word_of_a_replica_that_lost_its_memory() {
    fails(Bug::RecoveringCounts, replication::in_memory());
}

#[test]
fn one_majority_where_two_are_asked_for() {
    fails(Bug::JointOneMajority, membership::replace());
}

#[test]
fn joint_configurations_that_are_left_early() {
    fails(Bug::JointLeftEarly, membership::replace());
}

#[test]
fn configurations_in_force_when_committed() {
    fails(Bug::MembershipAtCommit, membership::replace());
}

#[test]
fn reads_that_ask_nobody() {
    fails(Bug::ReadUnconfirmed, reads::read_index());
}

#[test]
fn leases_that_are_kept_while_handing_over() {
    fails(Bug::LeaseAcrossTransfer, reads::lease());
}
