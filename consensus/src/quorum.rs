//! How many members are enough, and what so many of them have in common.
//!
//! Every decision of the core asks one question: what is the greatest value that a quorum reaches, and in a joint
//! configuration, that a quorum of both sets of voters reaches? Committing ranks positions, electing ranks grants,
//! checking for a quorum and confirming reads rank instants and numbers. [`reached`] is the only answer to it.

use evershard_protocol::bugs::{self, Bug};
use evershard_protocol::limits::NODES_MAX;
use evershard_protocol::{Membership, NodeId, NodeSet};

/// Where an election stands.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum VoteOutcome {
    /// The answers so far decide nothing.
    Pending,
    /// Every majority that has to agree has agreed.
    Won,
    /// Not even the consent of all who have not answered would help.
    Lost,
}

/// The greatest value that a majority of the voters reaches; in a joint configuration, that a majority of both sets
/// reaches. The default where nobody votes: a replica that does not know to whom it belongs decides nothing.
#[must_use]
//= raft §6: agreement takes separate majorities from both the old and the new configuration.
pub fn reached<T: Ord + Copy + Default>(membership: &Membership, value: impl Fn(NodeId) -> T) -> T {
    let ranked = |set: NodeSet| rank(set.iter().map(&value), quorum_of(set.len()));
    let Membership { voters, outgoing, .. } = *membership;
    if voters.is_empty() {
        return T::default();
    }
    if outgoing.is_empty() || bugs::is_on(Bug::JointOneMajority) {
        return ranked(voters);
    }
    ranked(voters).min(ranked(outgoing))
}

/// Where an election stands; `answer` is nothing for a voter that has not answered.
#[must_use]
pub fn vote_outcome(membership: &Membership, answer: impl Fn(NodeId) -> Option<bool>) -> VoteOutcome {
    if reached(membership, |node| answer(node) == Some(true)) {
        return VoteOutcome::Won;
    }
    if reached(membership, |node| answer(node) != Some(false)) { VoteOutcome::Pending } else { VoteOutcome::Lost }
}

/// The least number of members of which any two such sets share one.
fn quorum_of(members_len: usize) -> usize {
    assert!(members_len > 0, "a shard has members");
    members_len / 2 + 1
}

/// The greatest value that at least `quorum` of the `values` reach; the default if there are fewer values.
fn rank<T: Ord + Copy + Default>(values: impl Iterator<Item = T>, quorum: usize) -> T {
    assert!(quorum > 0 && quorum <= NODES_MAX, "a quorum is some of the members");
    let mut ranked = [T::default(); NODES_MAX];
    let mut len = 0;
    for value in values {
        ranked[len] = value;
        len += 1;
    }
    if len < quorum {
        return T::default();
    }
    ranked[..len].sort_unstable();
    ranked[len - quorum]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_two_quorums_share_a_member() {
        for len in 1..=NODES_MAX {
            assert!(2 * quorum_of(len) > len);
            assert!(2 * (quorum_of(len) - 1) <= len, "not more than needed");
        }
    }

    #[test]
    fn the_rank_is_reached_by_a_quorum_and_no_greater_one_is() {
        assert_eq!(rank([5].into_iter(), 1), 5);
        assert_eq!(rank([5, 1, 9].into_iter(), 2), 5);
        assert_eq!(rank([5, 5, 9, 1, 7].into_iter(), 3), 5);
        assert_eq!(rank([4, 1, 2, 3].into_iter(), 3), 2);
        assert_eq!(rank([4, 1].into_iter(), 3), 0, "too few to have anything in common");
    }
}
