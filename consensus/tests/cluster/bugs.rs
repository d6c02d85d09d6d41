//! Known bugs are switched on, one at a time, and the swarm has to find each of them: a swarm that does not proves
//! nothing when it is green.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

use evershard_protocol::bugs::{self, Bug};

use crate::swarm;

macro_rules! found {
    ($($test:ident: $bug:ident by $run:path, within $seeds:literal;)*) => {
        $(#[test]
        fn $test() {
            find(Bug::$bug, $run, $seeds);
        })*
    };
}

found! {
    committing_a_prior_term_is_found: CommitPriorTerm by swarm::short_lives, within 1000;
    a_vote_told_before_it_is_saved_is_found: VoteNotDurable by swarm::durable, within 1000;
    received_as_durable_is_found: ReceivedAsDurable by swarm::durable, within 1000;
    a_commit_position_ahead_of_the_data_is_found: CommitAheadOfData by swarm::short_lives, within 1000;
    a_vote_for_a_shorter_log_is_found: VoteForShorterLog by swarm::durable, within 1000;
    a_lease_kept_across_a_transfer_is_found: LeaseAcrossTransfer by swarm::members, within 1000;
    a_read_without_asking_is_found: ReadUnconfirmed by swarm::members, within 1000;
    a_joint_configuration_left_early_is_found: JointLeftEarly by swarm::members, within 1000;
    one_majority_instead_of_two_is_found: JointOneMajority by swarm::members, within 1000;
    a_configuration_in_force_when_committed_is_found: MembershipAtCommit by swarm::members, within 1000;
    a_recovering_replica_that_counts_is_found: RecoveringCounts by swarm::replicated, within 1000;
}

/// Runs seeds until the bug shows.
fn find(bug: Bug, run: fn(u64), seeds: u64) {
    hush();
    QUIET.set(true);
    bugs::switch(Some(bug));
    let found = (0..seeds).find_map(|seed| Some((seed, catch_unwind(AssertUnwindSafe(|| run(seed))).err()?)));
    bugs::switch(None);
    QUIET.set(false);
    let (seed, panic) = found.unwrap_or_else(|| panic!("{} stays hidden for {seeds} seeds", bug.slug()));
    let text = panic.downcast_ref::<String>().cloned();
    let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
    println!("{}: seed {seed}: {}", bug.slug(), text.unwrap_or_default().lines().next().unwrap_or_default());
}

thread_local! {
    /// Panics of this thread are expected.
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Expected panics print nothing; those of other threads still do.
fn hush() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let loud = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !QUIET.get() {
                loud(info);
            }
        }));
    });
}
