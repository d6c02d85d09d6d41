//! Term and vote: two alternating slots in one small file.
//!
//! | offset | size | field | meaning |
//! |---|---|---|---|
//! | 0 | 8 | magic | `EVSVOTES` |
//! | 8 | 4 | checksum | CRC-32C of bytes 12..96 |
//! | 12 | 2 | format | version of this layout, 1 |
//! | 14 | 2 | shard | the shard it belongs to |
//! | 16 | 8 | cluster | the cluster it belongs to |
//! | 24 | 1 | node | the node it belongs to |
//! | 25 | 1 | flags | 1 voted, 2 recovering, 4 clean end |
//! | 26 | 1 | vote | the node voted for, 0 without flag 1 |
//! | 27 | 5 | reserved | zero |
//! | 32 | 8 | sequence | counts the writes from 1; its parity names the slot |
//! | 40 | 8 | term | the current term |
//! | 48 | 8 | incarnation | of the process that wrote it |
//! | 56 | 8 | clean_end | the log was durable up to here at a clean stop, 0 without flag 4 |
//! | 64 | 32 | reserved_2 | zero |
//!
//! A slot of 4096 bytes holds these 96 bytes twice, at 0 and at 2048, so that one rotten sector destroys nothing. The
//! write with sequence `n` goes to slot `n % 2`, and write `n + 1` begins only when write `n` is durable.
//!
//! | one slot | other slot | what is taken |
//! |---|---|---|
//! | empty | empty | nothing: a new replica |
//! | valid | empty | the valid one |
//! | valid | valid | the newer one, if the older one does not contradict it |
//! | valid | damaged | the valid one, as `recovering` |
//! | damaged | empty or damaged | refused: faulty, not absent |
//!
//! Why the valid one beside a damaged one is safe: a slot is only overwritten when the other is durable. So a write
//! that was cut short destroys only the older of the two states, and what it was to say was not acted upon yet. But
//! where sectors are written whole, a cut write leaves each copy either old or new, and a slot without any good copy
//! has *rotted*: it may have been the newer one, with a vote the older does not know. Hence `recovering`: such a
//! replica does not vote until a leader has brought it up to date.

use evershard_protocol::checksum::crc32c;
use evershard_protocol::{ClusterId, Incarnation, NodeId, Position, ShardId, Term};
use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::block::{BLOCK_ALIGNMENT, SECTOR_SIZE, is_zero};
use crate::segment::Identity;

/// Bytes of a slot.
pub const SLOT_SIZE: usize = BLOCK_ALIGNMENT;
/// Bytes of the file with both slots.
pub const SLOTS_FILE_SIZE: usize = 2 * SLOT_SIZE;
/// The version of the layout above.
pub const SLOT_FORMAT: u16 = 1;

const MAGIC: [u8; 8] = *b"EVSVOTES";
const CHECKED_FROM: usize = 12;
const RAW_SIZE: usize = size_of::<RawSlot>();
const COPIES: [usize; 2] = [0, SLOT_SIZE / 2];
const VOTED: u8 = 1;
const RECOVERING: u8 = 2;
const CLEAN_END: u8 = 4;

const _: () = assert!(RAW_SIZE == 96, "the table above says so");
const _: () = assert!(RAW_SIZE <= SECTOR_SIZE && COPIES[1].is_multiple_of(SECTOR_SIZE), "a copy lies in one sector");

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Clone, Copy)]
#[repr(C)]
struct RawSlot {
    magic: [u8; 8],
    checksum: U32,
    format: U16,
    shard: U16,
    cluster: U64,
    node: u8,
    flags: u8,
    vote: u8,
    reserved: [u8; 5],
    sequence: U64,
    term: U64,
    incarnation: U64,
    clean_end: U64,
    reserved_2: [u8; 32],
}

/// What a replica must not forget, besides its log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SlotContent {
    /// Counts the writes from 1.
    pub sequence: u64,
    /// The current term.
    pub term: Term,
    /// The vote given in that term.
    pub vote: Option<NodeId>,
    /// The replica neither votes nor counts until a leader has brought it up to date.
    pub recovering: bool,
    /// Of the process that wrote it.
    pub incarnation: Incarnation,
    /// The mark of a clean stop: everything up to here was durable. A log that recovers shorter has lost something.
    pub clean_end: Option<Position>,
    /// Whose it is.
    pub identity: Identity,
}

/// Why the slots give no answer. The replica must not start with an empty one in its place: it could vote twice.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SlotError {
    /// No slot is readable, and at least one was written.
    #[error(
        "the term and vote of this replica are damaged in all copies. The disk is probably failing: remove this node's \
         data directory and let it come back as a learner"
    )]
    Damaged,
    /// The slots contradict each other.
    #[error(
        "the two copies of term and vote contradict each other (write {older} and write {newer}). The file was \
         probably put together from two backups: remove this node's data directory and let it come back as a learner"
    )]
    Contradiction {
        /// Sequence of the older slot.
        older: u64,
        /// Sequence of the newer slot.
        newer: u64,
    },
    /// They are somebody else's.
    #[error(
        "the term and vote belong to {found}, but this is {expected}. The data directory was probably copied or mixed \
         up: put the right one in place"
    )]
    Foreign {
        /// Whose they are.
        found: Identity,
        /// Who asks.
        expected: Identity,
    },
    /// A newer release wrote them.
    #[error(
        "term and vote have format {0}, which this release does not know: a newer one wrote them, upgrade this node"
    )]
    NewerFormat(u16),
}

enum SlotState {
    Empty,
    Valid(SlotContent),
    Damaged,
}

/// Where in the file the write with this sequence goes.
#[must_use]
pub fn slot_offset(sequence: u64) -> u64 {
    sequence % 2 * SLOT_SIZE as u64
}

/// The bytes of a slot.
///
/// # Panics
/// If the sequence is 0: writes count from 1.
#[must_use]
pub fn encode_slot(content: &SlotContent) -> [u8; SLOT_SIZE] {
    assert!(content.sequence > 0, "writes count from 1");
    let flag = |set: bool, flag: u8| if set { flag } else { 0 };
    let mut raw = RawSlot {
        magic: MAGIC,
        checksum: U32::new(0),
        format: U16::new(SLOT_FORMAT),
        shard: U16::new(content.identity.shard.0),
        cluster: U64::new(content.identity.cluster.0),
        node: content.identity.node.0,
        flags: flag(content.vote.is_some(), VOTED)
            | flag(content.recovering, RECOVERING)
            | flag(content.clean_end.is_some(), CLEAN_END),
        vote: content.vote.unwrap_or_default().0,
        reserved: [0; 5],
        sequence: U64::new(content.sequence),
        term: U64::new(content.term.0),
        incarnation: U64::new(content.incarnation.0),
        clean_end: U64::new(content.clean_end.unwrap_or_default().0),
        reserved_2: [0; 32],
    };
    raw.checksum = U32::new(crc32c(&raw.as_bytes()[CHECKED_FROM..]));
    let mut out = [0; SLOT_SIZE];
    for copy in COPIES {
        out[copy..copy + RAW_SIZE].copy_from_slice(raw.as_bytes());
    }
    out
}

/// Takes what the two slots say; `a` is the one at offset 0. `None`: nothing was ever written.
///
/// # Errors
/// See [`SlotError`]; never panics, whatever the bytes.
pub fn choose_slot(identity: &Identity, a: &[u8], b: &[u8]) -> Result<Option<SlotContent>, SlotError> {
    match (slot_state(identity, a, 0)?, slot_state(identity, b, 1)?) {
        (SlotState::Empty, SlotState::Empty) => Ok(None),
        (SlotState::Valid(valid), SlotState::Empty) | (SlotState::Empty, SlotState::Valid(valid)) => Ok(Some(valid)),
        (SlotState::Valid(valid), SlotState::Damaged) | (SlotState::Damaged, SlotState::Valid(valid)) => {
            Ok(Some(SlotContent { recovering: true, ..valid }))
        }
        (SlotState::Valid(a), SlotState::Valid(b)) => {
            let (older, newer) = if a.sequence < b.sequence { (a, b) } else { (b, a) };
            let revoked = older.term == newer.term && older.vote.is_some() && older.vote != newer.vote;
            if older.term > newer.term || older.incarnation > newer.incarnation || revoked {
                return Err(SlotError::Contradiction { older: older.sequence, newer: newer.sequence });
            }
            Ok(Some(newer))
        }
        (SlotState::Damaged, _) | (_, SlotState::Damaged) => Err(SlotError::Damaged),
    }
}

/// The newest good copy in a slot that takes sequences of this parity.
fn slot_state(identity: &Identity, bytes: &[u8], parity: u64) -> Result<SlotState, SlotError> {
    let mut newest = None;
    for copy in COPIES {
        let Some(raw) = bytes.get(copy..copy + RAW_SIZE).and_then(|bytes| RawSlot::ref_from_bytes(bytes).ok()) else {
            continue;
        };
        let Some(content) = decode(raw)? else {
            continue;
        };
        if content.identity != *identity {
            return Err(SlotError::Foreign { found: content.identity, expected: *identity });
        }
        let newer = newest.is_none_or(|newest: SlotContent| newest.sequence < content.sequence);
        if content.sequence % 2 == parity && newer {
            newest = Some(content);
        }
    }
    Ok(match newest {
        Some(content) => SlotState::Valid(content),
        None if is_zero(bytes) => SlotState::Empty,
        None => SlotState::Damaged,
    })
}

fn decode(raw: &RawSlot) -> Result<Option<SlotContent>, SlotError> {
    if raw.magic != MAGIC || crc32c(&raw.as_bytes()[CHECKED_FROM..]) != raw.checksum.get() {
        return Ok(None);
    }
    if raw.format.get() > SLOT_FORMAT {
        return Err(SlotError::NewerFormat(raw.format.get()));
    }
    let has = |flag: u8| raw.flags & flag != 0;
    Ok(Some(SlotContent {
        sequence: raw.sequence.get(),
        term: Term(raw.term.get()),
        vote: has(VOTED).then_some(NodeId(raw.vote)),
        recovering: has(RECOVERING),
        incarnation: Incarnation(raw.incarnation.get()),
        clean_end: has(CLEAN_END).then_some(Position(raw.clean_end.get())),
        identity: Identity {
            cluster: ClusterId(raw.cluster.get()),
            shard: ShardId(raw.shard.get()),
            node: NodeId(raw.node),
        },
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDENTITY: Identity = Identity { cluster: ClusterId(7), shard: ShardId(2), node: NodeId(1) };

    fn content(sequence: u64) -> SlotContent {
        SlotContent {
            sequence,
            term: Term(sequence / 2),
            vote: (sequence % 2 == 1).then_some(NodeId(2)),
            recovering: false,
            incarnation: Incarnation(5),
            clean_end: None,
            identity: IDENTITY,
        }
    }

    /// The two slots after the writes up to `sequence`.
    fn file(sequence: u64) -> [[u8; SLOT_SIZE]; 2] {
        let mut slots = [[0; SLOT_SIZE]; 2];
        for write in 1..=sequence {
            slots[(write % 2) as usize] = encode_slot(&content(write));
        }
        slots
    }

    fn choose(slots: &[[u8; SLOT_SIZE]; 2]) -> Result<Option<SlotContent>, SlotError> {
        choose_slot(&IDENTITY, &slots[0], &slots[1])
    }

    #[test]
    fn layout_is_the_documented_one() {
        let offsets = [
            ("magic", core::mem::offset_of!(RawSlot, magic), 8),
            ("checksum", core::mem::offset_of!(RawSlot, checksum), 4),
            ("format", core::mem::offset_of!(RawSlot, format), 2),
            ("shard", core::mem::offset_of!(RawSlot, shard), 2),
            ("cluster", core::mem::offset_of!(RawSlot, cluster), 8),
            ("node", core::mem::offset_of!(RawSlot, node), 1),
            ("flags", core::mem::offset_of!(RawSlot, flags), 1),
            ("vote", core::mem::offset_of!(RawSlot, vote), 1),
            ("reserved", core::mem::offset_of!(RawSlot, reserved), 5),
            ("sequence", core::mem::offset_of!(RawSlot, sequence), 8),
            ("term", core::mem::offset_of!(RawSlot, term), 8),
            ("incarnation", core::mem::offset_of!(RawSlot, incarnation), 8),
            ("clean_end", core::mem::offset_of!(RawSlot, clean_end), 8),
            ("reserved_2", core::mem::offset_of!(RawSlot, reserved_2), 32),
        ];
        evershard_protocol::layout::check(include_str!("slots.rs"), &offsets, RAW_SIZE);
    }

    #[test]
    fn round_trip_of_every_field() {
        let full = SlotContent { vote: Some(NodeId(0)), recovering: true, clean_end: Some(Position(0)), ..content(3) };
        for written in [full, content(1), content(2), SlotContent { clean_end: Some(Position(640)), ..content(5) }] {
            let mut slots = [[0; SLOT_SIZE]; 2];
            slots[(slot_offset(written.sequence) / SLOT_SIZE as u64) as usize] = encode_slot(&written);
            assert_eq!(choose(&slots), Ok(Some(written)));
        }
        assert_eq!(choose(&file(0)), Ok(None));
    }

    /// A power cut during each write: every subset of the slot's sectors may be new.
    #[test]
    fn a_cut_write_leaves_the_state_before_or_after() {
        for sequence in 1..8 {
            let (before, after) = (file(sequence - 1), file(sequence));
            let slot = (sequence % 2) as usize;
            for written in 0..1_usize << (SLOT_SIZE / SECTOR_SIZE) {
                let mut torn = before;
                for sector in (0..SLOT_SIZE / SECTOR_SIZE).filter(|sector| written >> sector & 1 == 1) {
                    let bytes = sector * SECTOR_SIZE..(sector + 1) * SECTOR_SIZE;
                    torn[slot][bytes.clone()].copy_from_slice(&after[slot][bytes]);
                }
                let chosen = choose(&torn).expect("a tear is not damage").map_or(0, |content| content.sequence);
                assert!(chosen == sequence - 1 || chosen == sequence, "write {sequence}, sectors {written:08b}");
                assert!(written & 0b1_0001 != 0b1_0001 || chosen == sequence, "written whole");
            }
        }
    }

    #[test]
    fn one_rotten_bit_changes_nothing() {
        for sequence in 1..4 {
            for bit in (0..SLOT_SIZE * 8).step_by(7) {
                for slot in 0..2 {
                    let mut slots = file(sequence);
                    slots[slot][bit / 8] ^= 1 << (bit % 8);
                    if choose(&file(sequence)) != choose(&slots) {
                        // The only slot that is not zero where nothing was written: faulty, not absent, hence careful.
                        assert_eq!((sequence, slot), (1, 0));
                        assert_eq!(choose(&slots), Ok(Some(SlotContent { recovering: true, ..content(1) })));
                    }
                }
            }
        }
    }

    #[test]
    fn a_rotten_slot_makes_the_other_careful() {
        let mut slots = file(6);
        slots[0].fill(0xA5);
        assert_eq!(choose(&slots), Ok(Some(SlotContent { recovering: true, ..content(5) })));
        slots[1].fill(0xA5);
        assert_eq!(choose(&slots), Err(SlotError::Damaged));
        slots[1].fill(0);
        assert_eq!(choose(&slots), Err(SlotError::Damaged));
    }

    #[test]
    fn copies_that_disagree() {
        let mut slots = file(6);
        slots[1] = encode_slot(&SlotContent { term: Term(9), ..content(5) });
        assert_eq!(choose(&slots), Err(SlotError::Contradiction { older: 5, newer: 6 }));
        slots[1] = encode_slot(&SlotContent { term: Term(3), vote: Some(NodeId(1)), ..content(5) });
        assert_eq!(choose(&slots), Err(SlotError::Contradiction { older: 5, newer: 6 }), "a vote is not taken back");
        slots[1] = encode_slot(&content(3));
        assert_eq!(choose(&slots), Ok(Some(content(6))), "a gap is not a contradiction");
        slots[1] = encode_slot(&content(4));
        assert_eq!(choose(&slots), Ok(Some(SlotContent { recovering: true, ..content(6) })), "misplaced is damaged");
    }

    #[test]
    fn strangers_are_named() {
        let other = Identity { node: NodeId(3), ..IDENTITY };
        let slots = file(2);
        let error = choose_slot(&other, &slots[0], &slots[1]).expect_err("a stranger");
        assert_eq!(error, SlotError::Foreign { found: IDENTITY, expected: other });
        assert!(error.to_string().contains("node 1") && error.to_string().contains("node 3"));
    }
}
