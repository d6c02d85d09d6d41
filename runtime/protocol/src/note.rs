//! What an operator's remark in the log says. A [`crate::record::Kind::Note`] changes nothing; it is there to be read.
//!
//! One subject is known: **recovery**, the audit record of an operator who has made a new cluster of what a survivor held,
//! after a quorum of the old one was lost for good. The payload:
//!
//! | offset | size | field | meaning |
//! |---|---|---|---|
//! | 0 | 2 | subject | what the note is about: 1, recovery |
//! | 2 | 2 | format | version of this layout, 1 |
//! | 4 | 1 | survivor | the node whose log it was |
//! | 5 | 1 | flags | 1 the operator has accepted that something known is lost |
//! | 6 | 2 | reason_len | bytes of the reason |
//! | 8 | 8 | old_cluster | the cluster that is no more |
//! | 16 | 8 | new_cluster | the cluster that begins here |
//! | 24 | 8 | voters | of the survivor's last configuration, bit i: node i; 0 if its log had none |
//! | 32 | 8 | outgoing | those that voted as well, because it was joint |
//! | 40 | 8 | learners | its learners |
//! | 48 | 8 | kept | the log was kept up to here |
//! | 56 | 8 | known | the survivor once had it up to here, as far as it knows |
//! | 64 | 8 | committed | the survivor knew that it was committed up to here; it may have been further |
//! | 72 | 8 | term | the highest term that was found |
//! | 80 | 8 | timestamp | the wall clock of the recovery, nanoseconds since the epoch |
//! | 88 | .. | reason | what the operator said, UTF-8 |

use zerocopy::byteorder::little_endian::{U16, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::{ClusterId, Membership, NodeId, NodeSet, Position, Term, Timestamp};

/// The number of the subject above.
pub const SUBJECT_RECOVERY: u16 = 1;
/// The version of the layout above.
pub const RECOVERY_FORMAT: u16 = 1;
/// Bytes of a reason. More: the operator is asked to be brief.
pub const REASON_SIZE_MAX: usize = 1024;

const LOSS_ACCEPTED: u8 = 1;
const FIXED_SIZE: usize = size_of::<RawRecovery>();

const _: () = assert!(FIXED_SIZE == 88, "the table above says so");
const _: () =
    assert!(FIXED_SIZE + REASON_SIZE_MAX <= crate::limits::PAYLOAD_SIZE_MAX, "a note is a record like any other");

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Clone, Copy)]
#[repr(C)]
struct RawRecovery {
    subject: U16,
    format: U16,
    survivor: u8,
    flags: u8,
    reason_len: U16,
    old_cluster: U64,
    new_cluster: U64,
    voters: U64,
    outgoing: U64,
    learners: U64,
    kept: U64,
    known: U64,
    committed: U64,
    term: U64,
    timestamp: U64,
}

/// The audit record of a recovery, without its reason.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RecoveryNote {
    /// The node whose log it was.
    pub survivor: NodeId,
    /// The operator has accepted that something known is lost.
    pub loss_accepted: bool,
    /// The cluster that is no more.
    pub old_cluster: ClusterId,
    /// The cluster that begins here.
    pub new_cluster: ClusterId,
    /// The survivor's last configuration; empty if its log had none.
    pub membership: Membership,
    /// The log was kept up to here.
    pub kept: Position,
    /// The survivor once had it up to here, as far as it knows.
    pub known: Position,
    /// The survivor knew that it was committed up to here.
    pub committed: Position,
    /// The highest term that was found.
    pub term: Term,
    /// The wall clock of the recovery.
    pub timestamp: Timestamp,
}

impl RecoveryNote {
    /// Writes a record's payload.
    ///
    /// # Panics
    /// If the reason is longer than [`REASON_SIZE_MAX`]: it is checked where it comes in.
    pub fn encode(&self, reason: &str, out: &mut Vec<u8>) {
        assert!(reason.len() <= REASON_SIZE_MAX, "checked where it came in");
        let raw = RawRecovery {
            subject: SUBJECT_RECOVERY.into(),
            format: RECOVERY_FORMAT.into(),
            survivor: self.survivor.0,
            flags: if self.loss_accepted { LOSS_ACCEPTED } else { 0 },
            reason_len: u16::try_from(reason.len()).expect("just checked").into(),
            old_cluster: self.old_cluster.0.into(),
            new_cluster: self.new_cluster.0.into(),
            voters: self.membership.voters.bits().into(),
            outgoing: self.membership.outgoing.bits().into(),
            learners: self.membership.learners.bits().into(),
            kept: self.kept.0.into(),
            known: self.known.0.into(),
            committed: self.committed.0.into(),
            term: self.term.0.into(),
            timestamp: self.timestamp.0.into(),
        };
        out.extend_from_slice(raw.as_bytes());
        out.extend_from_slice(reason.as_bytes());
    }

    /// Reads a record's payload and the reason in it. `None`: it is a note about something else, or of a release that this
    /// one does not know.
    #[must_use]
    pub fn decode(payload: &[u8]) -> Option<(Self, &str)> {
        let (raw, rest) = RawRecovery::ref_from_prefix(payload).ok()?;
        if raw.subject.get() != SUBJECT_RECOVERY || raw.format.get() != RECOVERY_FORMAT {
            return None;
        }
        let reason = rest.get(..usize::from(raw.reason_len.get()))?;
        let note = Self {
            survivor: NodeId(raw.survivor),
            loss_accepted: raw.flags & LOSS_ACCEPTED != 0,
            old_cluster: ClusterId(raw.old_cluster.get()),
            new_cluster: ClusterId(raw.new_cluster.get()),
            membership: Membership {
                voters: NodeSet::from_bits(raw.voters.get()),
                outgoing: NodeSet::from_bits(raw.outgoing.get()),
                learners: NodeSet::from_bits(raw.learners.get()),
            },
            kept: Position(raw.kept.get()),
            known: Position(raw.known.get()),
            committed: Position(raw.committed.get()),
            term: Term(raw.term.get()),
            timestamp: Timestamp(raw.timestamp.get()),
        };
        Some((note, std::str::from_utf8(reason).ok()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::mem::offset_of;
    use proptest::prelude::*;

    fn note() -> RecoveryNote {
        RecoveryNote {
            survivor: NodeId(2),
            loss_accepted: true,
            old_cluster: ClusterId(11),
            new_cluster: ClusterId(12),
            membership: Membership::of_voters(NodeSet::from_bits(0b111)),
            kept: Position(640),
            known: Position(704),
            committed: Position(576),
            term: Term(5),
            timestamp: Timestamp(77),
        }
    }

    /// Rows of the table above, as text, against the structure.
    #[test]
    fn layout_is_the_documented_one() {
        let fields = [
            ("subject", offset_of!(RawRecovery, subject), 2),
            ("format", offset_of!(RawRecovery, format), 2),
            ("survivor", offset_of!(RawRecovery, survivor), 1),
            ("flags", offset_of!(RawRecovery, flags), 1),
            ("reason_len", offset_of!(RawRecovery, reason_len), 2),
            ("old_cluster", offset_of!(RawRecovery, old_cluster), 8),
            ("new_cluster", offset_of!(RawRecovery, new_cluster), 8),
            ("voters", offset_of!(RawRecovery, voters), 8),
            ("outgoing", offset_of!(RawRecovery, outgoing), 8),
            ("learners", offset_of!(RawRecovery, learners), 8),
            ("kept", offset_of!(RawRecovery, kept), 8),
            ("known", offset_of!(RawRecovery, known), 8),
            ("committed", offset_of!(RawRecovery, committed), 8),
            ("term", offset_of!(RawRecovery, term), 8),
            ("timestamp", offset_of!(RawRecovery, timestamp), 8),
        ];
        let rows = fields.iter().map(|(name, offset, size)| format!("//! | {offset} | {size} | {name} |"));
        let source = include_str!("note.rs");
        let documented: Vec<&str> =
            source.lines().filter(|line| line.starts_with("//! | ") && !line.contains("offset")).collect();
        assert_eq!(documented.len(), fields.len() + 1, "and the reason");
        for (line, row) in documented.iter().zip(rows) {
            assert!(line.starts_with(&row), "{line} does not say {row}");
        }
        assert!(documented[fields.len()].starts_with(&format!("//! | {FIXED_SIZE} | .. | reason |")));
    }

    #[test]
    fn other_notes_are_not_taken_for_it() {
        let mut payload = Vec::new();
        note().encode("the data centre burnt down", &mut payload);
        assert_eq!(RecoveryNote::decode(&payload), Some((note(), "the data centre burnt down")));
        for cut in 0..payload.len() {
            assert_eq!(RecoveryNote::decode(&payload[..cut]), None);
        }
        payload[0] = 2;
        assert_eq!(RecoveryNote::decode(&payload), None);
        assert_eq!(RecoveryNote::decode(b"a remark in words"), None);
    }

    proptest! {
        #[test]
        fn garbage_never_panics(mut bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
            let _ = RecoveryNote::decode(&bytes);
            if let Some(front) = bytes.get_mut(..4) {
                front.copy_from_slice(&[1, 0, 1, 0]);
                let _ = RecoveryNote::decode(&bytes);
            }
        }
    }
}
