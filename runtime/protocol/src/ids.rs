//! Newtypes for every integer of the domain.

use std::fmt;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($inner:ty), $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub $inner);
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }
    };
}

id!(
    /// One process on one host; at most [`crate::limits::NODE_ID_MAX`].
    NodeId(u8), "n"
);
id!(
    /// One replicated log with one service instance per replica. Counted from 0.
    ShardId(u16), "s"
);
id!(
    /// A Raft term. Term 0 is before the first election.
    Term(u64), "t"
);
id!(
    /// A byte offset in a shard's log. The position of a record is the offset at which it *ends*.
    Position(u64), "@"
);
id!(
    /// A client's session: the position of the record that opened it. 0 is nobody.
    SessionId(u64), "session "
);
id!(
    /// Counts a session's requests from 1, without gaps.
    RequestNumber(u64), "request "
);
id!(
    /// Counts a client's questions from 1.
    QueryNumber(u64), "query "
);
id!(
    /// Identity of a cluster, derived from its name (see [`ClusterId::of_name`]).
    ClusterId(u64), "cluster "
);
id!(
    /// One life of a replica's data directory; drawn when the process starts. Grows with every start.
    Incarnation(u64), "incarnation "
);
id!(
    /// The version of a service's behaviour.
    ServiceVersion(u32), "v"
);
id!(
    /// A timer of a service; chosen by the service.
    TimerId(u64), "timer "
);

impl Term {
    /// The term after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl Position {
    /// Where every log begins.
    pub const ZERO: Self = Self(0);

    /// The position `size` bytes further on.
    #[must_use]
    pub fn advance(self, size: u64) -> Self {
        Self(self.0 + size)
    }

    /// Bytes from `earlier` to here; 0 if `earlier` is not earlier.
    #[must_use]
    pub fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl RequestNumber {
    /// The number after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl ClusterId {
    /// The identity that belongs to a cluster's name: 64-bit FNV-1a of its UTF-8 bytes, never 0.
    #[must_use]
    pub fn of_name(name: &str) -> Self {
        let hash = name
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
        Self(hash.max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_only_measure_forwards() {
        assert_eq!(Position(10).since(Position(4)), 6);
        assert_eq!(Position(4).since(Position(10)), 0);
    }

    #[test]
    fn cluster_identity_follows_the_name() {
        assert_ne!(ClusterId::of_name("a"), ClusterId::of_name("b"));
        assert_ne!(ClusterId::of_name(""), ClusterId(0));
    }
}
