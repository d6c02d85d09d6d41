//! How many members are enough, and what so many of them have in common.

use evershard_protocol::limits::NODES_MAX;

/// The least number of members of which any two such sets share one.
pub(crate) fn quorum_of(members_len: usize) -> usize {
    assert!(members_len > 0, "a shard has members");
    members_len / 2 + 1
}

/// The greatest value that at least `quorum` of the `values` reach; the default if there are fewer values.
pub(crate) fn rank<T: Ord + Copy + Default>(values: impl Iterator<Item = T>, quorum: usize) -> T {
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
