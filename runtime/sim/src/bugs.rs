//! The known bugs, each with the mix of faults that is to find it and the number of seeds within which it does.
//!
//! The seeds a bug took are in the crate's own page; `--prove` measures them.

use evershard_protocol::bugs::Bug;

use crate::profile::{self, Profile};

/// A bug and how it is found.
pub struct Entry {
    /// The bug.
    pub bug: Bug,
    /// The mix.
    pub profile: fn() -> Profile,
    /// It is found within so many seeds, from 0 on.
    pub bound: u64,
}

/// All bugs that can be switched on.
#[must_use]
pub fn table() -> Vec<Entry> {
    let entry = |bug, profile, bound| Entry { bug, profile, bound };
    vec![
        entry(Bug::CommitPriorTerm, profile::figure_eight as fn() -> Profile, 2000),
        entry(Bug::VoteNotDurable, profile::elections, 1000),
        entry(Bug::AckBeforeDurable, profile::blackouts, 50),
        entry(Bug::ReceivedAsDurable, profile::blackouts, 100),
        entry(Bug::TruncateOnChecksum, profile::damage, 500),
        entry(Bug::DuplicateReexecuted, profile::standard, 50),
        entry(Bug::TimerFiredLocally, profile::standard, 50),
        entry(Bug::StaleBlockAccepted, profile::damage, 200),
        entry(Bug::WriteErrorIgnored, profile::standard, 200),
        entry(Bug::CommitAheadOfData, profile::figure_eight, 200),
        entry(Bug::MapOrder, profile::standard, 50),
        entry(Bug::AckOverwritten, profile::overwrites, 6000),
        entry(Bug::RecoveringCounts, profile::damage, 500),
        entry(Bug::VoteForShorterLog, profile::standard, 100),
        entry(Bug::TimeGoesBack, profile::standard, 100),
        entry(Bug::ReadUnconfirmed, profile::reads, 100),
        entry(Bug::LeaseAcrossTransfer, profile::hand_overs, 1000),
        entry(Bug::JointLeftEarly, profile::members, 50),
        entry(Bug::JointOneMajority, profile::members, 500),
        entry(Bug::MembershipAtCommit, profile::members, 1000),
        entry(Bug::HoleAsAbsent, profile::damage, 200),
        entry(Bug::SnapshotWithoutSessions, profile::snapshots, 100),
        entry(Bug::TrimBeforePublish, profile::snapshots, 100),
    ]
}

/// How a bug is found.
#[must_use]
pub fn entry(bug: Bug) -> Option<Entry> {
    table().into_iter().find(|entry| entry.bug == bug)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bug_has_its_place() {
        for bug in Bug::ALL {
            assert!(entry(*bug).is_some(), "{}", bug.slug());
        }
    }
}
