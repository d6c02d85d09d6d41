//! Who belongs to a shard: sets of nodes, configurations, and the record that changes them.
//!
//! The payload of a [`crate::record::Kind::Membership`] record:
//!
//! | offset | size | field | meaning |
//! |---|---|---|---|
//! | 0 | 2 | format | version of this layout, 1 |
//! | 2 | 2 | addresses_len | addresses that follow |
//! | 4 | 4 | reserved | zero |
//! | 8 | 8 | voters | bit i: node i votes |
//! | 16 | 8 | outgoing | bit i: node i votes in the configuration that is being left; 0 unless joint |
//! | 24 | 8 | learners | bit i: node i takes over the log without a vote |
//! | 32 | .. | addresses | each: node (1 byte), length (1 byte), `host:port` of the node's shard 0 |
//!
//! A configuration takes effect where its record is appended, not where it is committed (Raft §6).

use std::fmt;

use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::NodeId;
use crate::limits::{NODE_ID_MAX, NODES_MAX};

/// The version of the layout above.
pub const MEMBERSHIP_FORMAT: u16 = 1;

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Clone, Copy)]
#[repr(C)]
struct RawMembership {
    format: U16,
    addresses_len: U16,
    reserved: U32,
    voters: U64,
    outgoing: U64,
    learners: U64,
}

const FIXED_SIZE: usize = size_of::<RawMembership>();
const _: () = assert!(FIXED_SIZE == 32, "the table above says so");
const _: () = assert!(NODE_ID_MAX < 64, "a set of nodes is one word");

/// A set of nodes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, PartialOrd, Ord)]
pub struct NodeSet(u64);

impl NodeSet {
    /// Nobody.
    pub const EMPTY: Self = Self(0);

    /// The set with just this node.
    ///
    /// # Panics
    /// If the id is above [`NODE_ID_MAX`]: ids are checked where they come in.
    #[must_use]
    pub fn of(node: NodeId) -> Self {
        assert!(node.0 <= NODE_ID_MAX, "ids are checked where they come in");
        Self(1 << node.0)
    }

    /// The set whose bit i stands for node i.
    #[must_use]
    pub fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// Bit i stands for node i.
    #[must_use]
    pub fn bits(self) -> u64 {
        self.0
    }

    /// Whether the node is in it.
    #[must_use]
    pub fn contains(self, node: NodeId) -> bool {
        node.0 <= NODE_ID_MAX && self.0 >> node.0 & 1 == 1
    }

    /// Both together.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// What is in this one and not in the other.
    #[must_use]
    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// What is in both.
    #[must_use]
    pub fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Whether nobody is in it.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// How many are in it.
    #[must_use]
    pub fn len(self) -> usize {
        self.0.count_ones() as usize
    }

    /// The nodes, ascending.
    pub fn iter(self) -> impl Iterator<Item = NodeId> {
        let mut bits = self.0;
        std::iter::from_fn(move || {
            let lowest = u8::try_from(bits.trailing_zeros()).expect("at most 64");
            (bits != 0).then(|| {
                bits &= bits - 1;
                NodeId(lowest)
            })
        })
    }
}

impl FromIterator<NodeId> for NodeSet {
    fn from_iter<T: IntoIterator<Item = NodeId>>(nodes: T) -> Self {
        nodes.into_iter().fold(Self::EMPTY, |set, node| set.union(Self::of(node)))
    }
}

impl fmt::Display for NodeSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, node) in self.iter().enumerate() {
            if at > 0 {
                f.write_str(" ")?;
            }
            write!(f, "{node}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for NodeSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{{self}}}")
    }
}

/// One configuration of a shard.
///
/// Invariant of what [`Membership::check`] takes: at most [`NODES_MAX`] in each set, no learner is a voter.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct Membership {
    /// Who decides. Empty: this replica does not know yet to whom it belongs.
    pub voters: NodeSet,
    /// Who decides as well while the configuration is joint: the voters that are being left behind.
    pub outgoing: NodeSet,
    /// Who takes over the log without a vote. May overlap `outgoing`: such a node votes until the joint
    /// configuration is left.
    pub learners: NodeSet,
}

/// What is to become of some nodes.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct MembershipChange {
    /// These become voters.
    pub promote: NodeSet,
    /// These become learners, whether they were voters or nothing.
    pub learn: NodeSet,
    /// These leave.
    pub remove: NodeSet,
}

/// Why a configuration cannot become another one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum MembershipError {
    /// Nobody would be left to decide.
    #[error("no voter would be left: a shard needs at least one")]
    NoVoters,
    /// Too many nodes.
    #[error(
        "more than {NODES_MAX} voters or {NODES_MAX} learners, or an id above {NODE_ID_MAX}: remove some nodes first"
    )]
    TooMany,
    /// The configuration is joint already.
    #[error("a change of the voters is under way: wait until it has ended")]
    Joint,
    /// A node was named twice.
    #[error("a node is to become two things at once: name it once")]
    Contradiction,
    /// A learner that votes.
    #[error("a node is both voter and learner")]
    VotingLearner,
}

impl Membership {
    /// The configuration with these voters and nobody else.
    #[must_use]
    pub fn of_voters(voters: NodeSet) -> Self {
        Self { voters, ..Self::default() }
    }

    /// Whether decisions take two majorities.
    #[must_use]
    pub fn is_joint(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Everybody who votes in this configuration.
    #[must_use]
    pub fn deciding(&self) -> NodeSet {
        self.voters.union(self.outgoing)
    }

    /// Everybody the log goes to.
    #[must_use]
    pub fn everybody(&self) -> NodeSet {
        self.deciding().union(self.learners)
    }

    /// Whether this is a configuration that a shard may have.
    ///
    /// # Errors
    /// [`MembershipError`].
    pub fn check(&self) -> Result<(), MembershipError> {
        if self.voters.is_empty() {
            return Err(MembershipError::NoVoters);
        }
        let sets = [self.voters, self.outgoing, self.learners];
        if sets.iter().any(|set| set.len() > NODES_MAX || set.bits() >> NODE_ID_MAX > 1) {
            return Err(MembershipError::TooMany);
        }
        if !self.voters.intersection(self.learners).is_empty() {
            return Err(MembershipError::VotingLearner);
        }
        Ok(())
    }

    /// The next configuration on the way to `change`: a joint one if the voters change, the final one otherwise.
    ///
    /// # Errors
    /// [`MembershipError`].
    pub fn begin(&self, change: &MembershipChange) -> Result<Self, MembershipError> {
        if self.is_joint() {
            return Err(MembershipError::Joint);
        }
        let MembershipChange { promote, learn, remove } = *change;
        let twice = promote.intersection(learn).union(promote.intersection(remove)).union(learn.intersection(remove));
        if !twice.is_empty() {
            return Err(MembershipError::Contradiction);
        }
        let voters = self.voters.union(promote).without(learn).without(remove);
        let learners = self.learners.union(learn).without(promote).without(remove);
        let outgoing = if voters == self.voters { NodeSet::EMPTY } else { self.voters };
        let next = Self { voters, outgoing, learners };
        next.check()?;
        Ok(next)
    }

    /// The configuration behind a joint one; `None` if this one is not joint.
    #[must_use]
    pub fn left(&self) -> Option<Self> {
        self.is_joint().then_some(Self { outgoing: NodeSet::EMPTY, ..*self })
    }

    /// Writes a record's payload.
    ///
    /// # Panics
    /// If an address is longer than 255 bytes: addresses are checked where they come in.
    pub fn encode<'a>(&self, addresses: impl Iterator<Item = (NodeId, &'a str)>, out: &mut Vec<u8>) {
        let start = out.len();
        out.resize(start + FIXED_SIZE, 0);
        let mut addresses_len = 0_u16;
        for (node, address) in addresses {
            out.push(node.0);
            out.push(u8::try_from(address.len()).expect("checked where it came in"));
            out.extend_from_slice(address.as_bytes());
            addresses_len += 1;
        }
        let raw = RawMembership {
            format: MEMBERSHIP_FORMAT.into(),
            addresses_len: addresses_len.into(),
            reserved: 0.into(),
            voters: self.voters.bits().into(),
            outgoing: self.outgoing.bits().into(),
            learners: self.learners.bits().into(),
        };
        out[start..start + FIXED_SIZE].copy_from_slice(raw.as_bytes());
    }

    /// Reads a record's payload; `each` is called with every address. `None`: it is no configuration that this release
    /// knows.
    pub fn decode(payload: &[u8], mut each: impl FnMut(NodeId, &str)) -> Option<Self> {
        let (raw, mut rest) = RawMembership::ref_from_prefix(payload).ok()?;
        if raw.format.get() != MEMBERSHIP_FORMAT {
            return None;
        }
        let membership = Self {
            voters: NodeSet::from_bits(raw.voters.get()),
            outgoing: NodeSet::from_bits(raw.outgoing.get()),
            learners: NodeSet::from_bits(raw.learners.get()),
        };
        membership.check().ok()?;
        for _ in 0..raw.addresses_len.get() {
            let [node, size, tail @ ..] = rest else { return None };
            let (address, tail) = tail.split_at_checked(usize::from(*size))?;
            each(NodeId(*node), std::str::from_utf8(address).ok()?);
            rest = tail;
        }
        rest.is_empty().then_some(membership)
    }
}

impl fmt::Display for Membership {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "voters=({})", self.voters)?;
        if self.is_joint() {
            write!(f, "&&({})", self.outgoing)?;
        }
        let (next, now) = (self.learners.intersection(self.outgoing), self.learners.without(self.outgoing));
        if !now.is_empty() {
            write!(f, " learners=({now})")?;
        }
        if !next.is_empty() {
            write!(f, " learners_next=({next})")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn set(nodes: &[u8]) -> NodeSet {
        nodes.iter().map(|id| NodeId(*id)).collect()
    }

    #[test]
    fn changing_voters_goes_through_a_joint_configuration() {
        let three = Membership::of_voters(set(&[0, 1, 2]));
        let change = MembershipChange { promote: set(&[3]), remove: set(&[0]), ..MembershipChange::default() };
        let joint = three.begin(&change).expect("fine");
        assert_eq!(joint.to_string(), "voters=(1 2 3)&&(0 1 2)");
        assert_eq!(joint.begin(&change), Err(MembershipError::Joint));
        assert_eq!(joint.left(), Some(Membership::of_voters(set(&[1, 2, 3]))));
    }

    #[test]
    fn learners_come_and_go_without_one() {
        let one = Membership::of_voters(set(&[0]));
        let learning = one.begin(&MembershipChange { learn: set(&[4]), ..Default::default() }).expect("fine");
        assert_eq!(learning.to_string(), "voters=(0) learners=(4)");
        assert_eq!(learning.left(), None);
        let nobody = one.begin(&MembershipChange { learn: set(&[0]), ..Default::default() });
        assert_eq!(nobody, Err(MembershipError::NoVoters));
    }

    #[test]
    fn a_demoted_voter_votes_until_the_joint_configuration_is_left() {
        let two = Membership::of_voters(set(&[0, 1]));
        let joint = two.begin(&MembershipChange { learn: set(&[0]), ..Default::default() }).expect("fine");
        assert_eq!(joint.to_string(), "voters=(1)&&(0 1) learners_next=(0)");
        assert_eq!(joint.left().map(|left| left.to_string()).as_deref(), Some("voters=(1) learners=(0)"));
    }

    proptest! {
        #[test]
        fn round_trip(voters in 1_u64..128, outgoing in 0_u64..128, learners in 0_u64..128) {
            let learners = learners & !voters;
            let membership = Membership {
                voters: NodeSet::from_bits(voters),
                outgoing: NodeSet::from_bits(outgoing),
                learners: NodeSet::from_bits(learners),
            };
            let mut out = vec![];
            membership.encode([(NodeId(1), "127.0.0.1:7000"), (NodeId(6), "")].into_iter(), &mut out);
            let mut found = vec![];
            let read = Membership::decode(&out, |node, address| found.push((node, address.to_owned())));
            prop_assert_eq!(read, Some(membership));
            prop_assert_eq!(found, vec![(NodeId(1), "127.0.0.1:7000".to_owned()), (NodeId(6), String::new())]);
            for cut in 0..out.len() {
                prop_assert_eq!(Membership::decode(&out[..cut], |_, _| {}), None);
            }
        }

        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = Membership::decode(&bytes, |_, _| {});
        }
    }
}
