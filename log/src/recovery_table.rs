//! The decision table of recovery: what is to be made of the place where the next block is expected.
//!
//! Legend. *header*: the block header found there: `Zero` nothing, `Valid` this segment's and of this place, `Stale` an
//! older life of this file, `Damaged` anything else. *content*: `Good` its checksum and every record verify,
//! `MissingSectors` sectors are missing (a tear), `Damaged` all sectors are there and it does not verify (rot),
//! `NotRead` there is no valid header to read it by. *chain*: the block `Continues` the one before at its end,
//! `Truncates` (begins below that end, which is how a cut of the stream looks), or `Breaks` (follows another block).
//! Where the header is not valid, this is said of the header that the block behind repeats, and `Breaks` also means
//! that nothing repeats it. *witness*: what stands behind this place, to the end of the newest segment: `None` zeros,
//! `Leftover` something that proves nothing, `Later` a valid block that says that this place was durable before it was
//! written itself. `*` is any.
//!
//! ```text
//! header   content         chain                 witness         -> decision
//! Zero     *               *                     None            -> End
//! Zero     *               *                     Leftover        -> CutTorn
//! Zero     *               Continues Truncates   Later           -> Hole
//! Zero     *               Breaks                Later           -> Faulty
//! Stale    *               *                     None Leftover   -> CutTorn
//! Stale    *               Continues Truncates   Later           -> Hole
//! Stale    *               Breaks                Later           -> Faulty
//! Damaged  *               Continues Truncates   *               -> Hole
//! Damaged  *               Breaks                *               -> Faulty
//! Valid    Good            Continues Truncates   *               -> Accept
//! Valid    Good            Breaks                *               -> Faulty
//! Valid    MissingSectors  *                     None Leftover   -> CutTorn
//! Valid    MissingSectors  Continues Truncates   Later           -> Hole
//! Valid    MissingSectors  Breaks                Later           -> Faulty
//! Valid    Damaged         Continues Truncates   *               -> Hole
//! Valid    Damaged         Breaks                *               -> Faulty
//! Valid    NotRead         *                     *               -> Faulty
//! ```
//!
//! Why a cut is safe: a block is acknowledged only when it and all before it are written. A place that misses sectors
//! was never written whole, or it lost what it had; in the second case every block planned after its completion says so
//! in its `settled` field. What is left is the loss of whole sectors at the very end of the log with nothing written
//! after it, which no log can see by itself: the clean-stop mark and the peers do.
//!
//! Why a hole is safe: its header is known and follows the block before, so it *is* the block that was written there,
//! and what it holds is known but for the bytes. Where rot is seen it may never have been acknowledged; then calling it
//! a hole keeps more than was promised. A repair that finds no peer with these bytes changes nothing.

/// The header found where a block is expected.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HeaderState {
    /// Its sector is zero, or the segment is full.
    Zero,
    /// Its checksum is right and it belongs to this segment and this offset.
    Valid,
    /// Something is there that does not belong there.
    Damaged,
    /// A block that an earlier segment, which is gone, wrote into the same file.
    Stale,
}

/// The content found behind the header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ContentState {
    /// It verifies, record by record.
    Good,
    /// More sectors are zero than were written as zero.
    MissingSectors,
    /// All sectors are there, and it does not verify.
    Damaged,
    /// The header does not say where it ends.
    NotRead,
}

/// How the block follows the one before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ChainState {
    /// It chains to it and begins where it ends.
    Continues,
    /// It chains to it and begins below its end.
    Truncates,
    /// It does not chain to it, or there is no valid header.
    Breaks,
}

/// What stands behind the place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Witness {
    /// Zeros.
    None,
    /// Something, but no proof.
    Leftover,
    /// Proof that the place was durable.
    Later,
}

/// What recovery does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Decision {
    /// The block is part of the log.
    Accept,
    /// The log ends here, and writing goes on here.
    End,
    /// The log ends here; writing goes on in a new segment.
    CutTorn,
    /// The block is part of the log and is to be repaired from a peer; the walk goes on behind it.
    Hole,
    /// The log once went on here and is damaged.
    Faulty,
}

struct Rule {
    header: HeaderState,
    content: &'static [ContentState],
    chain: &'static [ChainState],
    witness: &'static [Witness],
    decision: Decision,
}

const ANY_CONTENT: &[ContentState] =
    &[ContentState::Good, ContentState::MissingSectors, ContentState::Damaged, ContentState::NotRead];
const ANY_CHAIN: &[ChainState] = &[ChainState::Continues, ChainState::Truncates, ChainState::Breaks];
const FOLLOWS: &[ChainState] = &[ChainState::Continues, ChainState::Truncates];
const BREAKS: &[ChainState] = &[ChainState::Breaks];
const ANY_WITNESS: &[Witness] = &[Witness::None, Witness::Leftover, Witness::Later];
const NO_PROOF: &[Witness] = &[Witness::None, Witness::Leftover];
const PROOF: &[Witness] = &[Witness::Later];

const fn rule(
    header: HeaderState,
    content: &'static [ContentState],
    chain: &'static [ChainState],
    witness: &'static [Witness],
    decision: Decision,
) -> Rule {
    Rule { header, content, chain, witness, decision }
}

const RULES: [Rule; 17] = [
    rule(HeaderState::Zero, ANY_CONTENT, ANY_CHAIN, &[Witness::None], Decision::End),
    rule(HeaderState::Zero, ANY_CONTENT, ANY_CHAIN, &[Witness::Leftover], Decision::CutTorn),
    rule(HeaderState::Zero, ANY_CONTENT, FOLLOWS, PROOF, Decision::Hole),
    rule(HeaderState::Zero, ANY_CONTENT, BREAKS, PROOF, Decision::Faulty),
    rule(HeaderState::Stale, ANY_CONTENT, ANY_CHAIN, NO_PROOF, Decision::CutTorn),
    rule(HeaderState::Stale, ANY_CONTENT, FOLLOWS, PROOF, Decision::Hole),
    rule(HeaderState::Stale, ANY_CONTENT, BREAKS, PROOF, Decision::Faulty),
    rule(HeaderState::Damaged, ANY_CONTENT, FOLLOWS, ANY_WITNESS, Decision::Hole),
    rule(HeaderState::Damaged, ANY_CONTENT, BREAKS, ANY_WITNESS, Decision::Faulty),
    rule(HeaderState::Valid, &[ContentState::Good], FOLLOWS, ANY_WITNESS, Decision::Accept),
    rule(HeaderState::Valid, &[ContentState::Good], BREAKS, ANY_WITNESS, Decision::Faulty),
    rule(HeaderState::Valid, &[ContentState::MissingSectors], ANY_CHAIN, NO_PROOF, Decision::CutTorn),
    rule(HeaderState::Valid, &[ContentState::MissingSectors], FOLLOWS, PROOF, Decision::Hole),
    rule(HeaderState::Valid, &[ContentState::MissingSectors], BREAKS, PROOF, Decision::Faulty),
    rule(HeaderState::Valid, &[ContentState::Damaged], FOLLOWS, ANY_WITNESS, Decision::Hole),
    rule(HeaderState::Valid, &[ContentState::Damaged], BREAKS, ANY_WITNESS, Decision::Faulty),
    rule(HeaderState::Valid, &[ContentState::NotRead], ANY_CHAIN, ANY_WITNESS, Decision::Faulty),
];

/// Looks the decision up.
#[must_use]
pub fn decide(header: HeaderState, content: ContentState, chain: ChainState, witness: Witness) -> Decision {
    RULES
        .iter()
        .find(|rule| rule.matches(header, content, chain, witness))
        .map(|rule| rule.decision)
        .expect("the table is total, a test says so")
}

impl Rule {
    fn matches(&self, header: HeaderState, content: ContentState, chain: ChainState, witness: Witness) -> bool {
        self.header == header
            && self.content.contains(&content)
            && self.chain.contains(&chain)
            && self.witness.contains(&witness)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fmt::Debug;

    fn cell<T: Debug>(some: &[T], all: usize) -> String {
        if some.len() == all {
            return "*".to_owned();
        }
        some.iter().map(|state| format!("{state:?}")).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn the_documented_table_is_this_one() {
        let mut printed =
            String::from("//! header   content         chain                 witness         -> decision\n");
        for rule in &RULES {
            let line = format!(
                "//! {:<8} {:<15} {:<21} {:<15} -> {:?}\n",
                format!("{:?}", rule.header),
                cell(rule.content, ANY_CONTENT.len()),
                cell(rule.chain, ANY_CHAIN.len()),
                cell(rule.witness, ANY_WITNESS.len()),
                rule.decision
            );
            printed.push_str(&line);
        }
        assert!(include_str!("recovery_table.rs").contains(&printed), "the docs should say:\n{printed}");
    }

    #[test]
    fn the_table_is_total_and_without_overlap() {
        for header in [HeaderState::Zero, HeaderState::Valid, HeaderState::Damaged, HeaderState::Stale] {
            for content in ANY_CONTENT {
                for chain in ANY_CHAIN {
                    for witness in ANY_WITNESS {
                        let matching =
                            RULES.iter().filter(|rule| rule.matches(header, *content, *chain, *witness)).count();
                        assert_eq!(matching, 1, "{header:?} {content:?} {chain:?} {witness:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn proof_never_cuts() {
        for header in [HeaderState::Zero, HeaderState::Valid, HeaderState::Damaged, HeaderState::Stale] {
            for content in ANY_CONTENT {
                for chain in ANY_CHAIN {
                    let decision = decide(header, *content, *chain, Witness::Later);
                    let keeps = matches!(decision, Decision::Accept | Decision::Hole | Decision::Faulty);
                    assert!(keeps, "{decision:?}");
                }
            }
        }
    }
}
