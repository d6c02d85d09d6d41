//! The content of a segment's first block: which terms and versions of the service came before.
//!
//! | offset | size | field | meaning |
//! |---|---|---|---|
//! | 0 | 2 | format | version of this layout, 2 |
//! | 2 | 2 | reserved | zero |
//! | 4 | 4 | runs_len | runs that follow |
//! | 8 | 4 | versions_len | service versions that follow the runs |
//! | 12 | 4 | reserved_2 | zero |
//!
//! Then `runs_len` times term and first position (16 bytes), then `versions_len` times position and version (8 + 8
//! bytes). Only what began below the block's first position is listed, the newest if there is more than fits.
//!
//! Where the stream continues, after which block and why is in the block's header: that is all that recovery needs of a
//! segment in the middle of the log. The lists are needed only when all before them is gone.
//!
//! The block's `chain` names the last good block before it. That is what allows a later recovery to leave whatever
//! stands behind that block in older segments: it was left already.

use evershard_protocol::limits::TERM_RUNS_MAX;
use evershard_protocol::{Position, ServiceVersion, Term};
use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::block::CONTENT_SIZE_MAX;

/// The version of the layout above.
pub const START_FORMAT: u16 = 2;
/// Bytes of the fixed part.
pub const START_HEADER_SIZE: usize = size_of::<RawStart>();
/// Service versions that a segment start lists. More: the oldest are left out.
pub const VERSIONS_MAX: usize = 128;

const PAIR_SIZE: usize = size_of::<RawPair>();

const _: () = assert!(START_HEADER_SIZE == 16, "the table above says so");
const _: () = assert!(
    START_HEADER_SIZE + (TERM_RUNS_MAX + VERSIONS_MAX) * PAIR_SIZE <= CONTENT_SIZE_MAX,
    "the whole term table and the version history fit one block"
);

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Clone, Copy)]
#[repr(C)]
struct RawStart {
    format: U16,
    reserved: U16,
    runs_len: U32,
    versions_len: U32,
    reserved_2: U32,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Clone, Copy)]
#[repr(C)]
struct RawPair {
    first: U64,
    second: U64,
}

/// Why the log went on in this segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u16)]
pub enum StartCause {
    /// The segment before was full, or this is the first.
    Roll = 1,
    /// The segment before ended in a torn tail, which was left as it is.
    Torn = 2,
    /// The segment before had a fault, and everything from there on was left as it is.
    Faulty = 3,
    /// The stream begins anew at this position, with a snapshot in place of what came before.
    Anew = 4,
}

impl StartCause {
    /// The cause with this number.
    pub(crate) fn from_number(number: u16) -> Option<Self> {
        [Self::Roll, Self::Torn, Self::Faulty, Self::Anew].into_iter().find(|cause| *cause as u16 == number)
    }
}

/// What the log's owner knows of the stream so far, including all that is in the tail.
pub trait History {
    /// Where the run that contains the record beginning at `position` ends: the start of the next one. The newest run
    /// ends at the stream's end or nowhere. Asked for every block, which holds one term only.
    fn run_end(&self, position: Position) -> Position;

    /// Calls `each` with every known run, oldest first: the term and where its first record *begins*. Of a run whose
    /// beginning is forgotten, because the log begins in it or behind it, any position before the log's first will do: the
    /// term of the record before is what a later recovery has to know.
    fn runs(&self, each: &mut dyn FnMut(Term, Position));

    /// Calls `each` with every known change of the service's version, oldest first.
    fn versions(&self, each: &mut dyn FnMut(Position, ServiceVersion)) {
        let _ = each;
    }
}

impl History for [(Term, Position)] {
    fn run_end(&self, position: Position) -> Position {
        // Mostly it is the newest run.
        if self.last().is_none_or(|(_, start)| *start <= position) {
            return Position(u64::MAX);
        }
        self[self.partition_point(|(_, start)| *start <= position)].1
    }

    fn runs(&self, each: &mut dyn FnMut(Term, Position)) {
        self.iter().for_each(|(term, start)| each(*term, *start));
    }
}

impl History for Vec<(Term, Position)> {
    fn run_end(&self, position: Position) -> Position {
        self[..].run_end(position)
    }

    fn runs(&self, each: &mut dyn FnMut(Term, Position)) {
        self[..].runs(each);
    }
}

/// What a segment start lists.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Lists {
    /// Term and first byte.
    pub runs: Vec<(Term, Position)>,
    /// Position and version.
    pub versions: Vec<(Position, ServiceVersion)>,
}

impl History for Lists {
    fn run_end(&self, position: Position) -> Position {
        self.runs.run_end(position)
    }

    fn runs(&self, each: &mut dyn FnMut(Term, Position)) {
        self.runs.runs(each);
    }

    fn versions(&self, each: &mut dyn FnMut(Position, ServiceVersion)) {
        self.versions.iter().for_each(|(at, version)| each(*at, *version));
    }
}

/// Writes the content of a segment start whose block begins at `first`; returns its size.
pub(crate) fn encode<H: History + ?Sized>(first: Position, history: &H, out: &mut [u8]) -> usize {
    let runs_len = count(TERM_RUNS_MAX, |each| history.runs(&mut |_, start| each(start < first)));
    let versions_len = count(VERSIONS_MAX, |each| history.versions(&mut |at, _| each(at <= first)));
    let raw = RawStart {
        format: U16::new(START_FORMAT),
        reserved: U16::new(0),
        runs_len: U32::new(to_u32(runs_len.kept)),
        versions_len: U32::new(to_u32(versions_len.kept)),
        reserved_2: U32::new(0),
    };
    out[..START_HEADER_SIZE].copy_from_slice(raw.as_bytes());
    let mut pairs = Pairs { out, size: START_HEADER_SIZE };
    let mut skip = runs_len.skipped;
    history.runs(&mut |term, start| pairs.put(start < first, &mut skip, term.0, start.0));
    let mut skip = versions_len.skipped;
    history.versions(&mut |at, version| pairs.put(at <= first, &mut skip, at.0, u64::from(version.0)));
    assert_eq!(
        pairs.size,
        START_HEADER_SIZE + (runs_len.kept + versions_len.kept) * PAIR_SIZE,
        "the history tells the same twice"
    );
    pairs.size
}

impl Lists {
    /// Reads what [`encode`] wrote.
    pub(crate) fn decode(content: &[u8]) -> Option<Self> {
        let raw = RawStart::ref_from_bytes(content.get(..START_HEADER_SIZE)?).ok()?;
        let listed = raw.runs_len.get() as usize + raw.versions_len.get() as usize;
        if raw.format.get() != START_FORMAT || content.len() != START_HEADER_SIZE + listed * PAIR_SIZE {
            return None;
        }
        let pairs = <[RawPair]>::ref_from_bytes(&content[START_HEADER_SIZE..]).ok()?;
        let (runs, versions) = pairs.split_at_checked(raw.runs_len.get() as usize)?;
        let version = |pair: &RawPair| {
            let version = u32::try_from(pair.second.get()).ok()?;
            Some((Position(pair.first.get()), ServiceVersion(version)))
        };
        Some(Self {
            runs: runs.iter().map(|pair| (Term(pair.first.get()), Position(pair.second.get()))).collect(),
            versions: versions.iter().map(version).collect::<Option<_>>()?,
        })
    }
}

struct Count {
    kept: usize,
    skipped: usize,
}

/// Counts what is to be listed, of which only the newest `max` are kept.
fn count(max: usize, visit: impl FnOnce(&mut dyn FnMut(bool))) -> Count {
    let mut all = 0_usize;
    visit(&mut |listed| all += usize::from(listed));
    Count { kept: all.min(max), skipped: all.saturating_sub(max) }
}

struct Pairs<'a> {
    out: &'a mut [u8],
    size: usize,
}

impl Pairs<'_> {
    fn put(&mut self, listed: bool, skip: &mut usize, first: u64, second: u64) {
        if !listed {
            return;
        }
        if *skip > 0 {
            *skip -= 1;
            return;
        }
        let pair = RawPair { first: U64::new(first), second: U64::new(second) };
        self.out[self.size..self.size + PAIR_SIZE].copy_from_slice(pair.as_bytes());
        self.size += PAIR_SIZE;
    }
}

fn to_u32(len: usize) -> u32 {
    u32::try_from(len).expect("bounded by TERM_RUNS_MAX and VERSIONS_MAX")
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Both;

    impl History for Both {
        fn run_end(&self, position: Position) -> Position {
            Position((position.0 / 64 + 1) * 64)
        }

        fn runs(&self, each: &mut dyn FnMut(Term, Position)) {
            for term in 1..=20_000 {
                each(Term(term), Position(term * 64));
            }
        }

        fn versions(&self, each: &mut dyn FnMut(Position, ServiceVersion)) {
            for version in 1..=200 {
                each(Position(u64::from(version) * 64), ServiceVersion(version));
            }
        }
    }

    #[test]
    fn layout_is_the_documented_one() {
        let offsets = [
            ("format", core::mem::offset_of!(RawStart, format), 2),
            ("reserved", core::mem::offset_of!(RawStart, reserved), 2),
            ("runs_len", core::mem::offset_of!(RawStart, runs_len), 4),
            ("versions_len", core::mem::offset_of!(RawStart, versions_len), 4),
            ("reserved_2", core::mem::offset_of!(RawStart, reserved_2), 4),
        ];
        evershard_protocol::layout::check(include_str!("start.rs"), &offsets, START_HEADER_SIZE);
    }

    #[test]
    fn lists_what_began_before_and_the_newest_of_it() {
        let mut out = vec![0; CONTENT_SIZE_MAX];
        let size = encode(Position(19_001 * 64), &Both, &mut out);
        let lists = Lists::decode(&out[..size]).expect("just encoded");
        assert_eq!(lists.runs.len(), TERM_RUNS_MAX);
        assert_eq!(lists.runs.last(), Some(&(Term(19_000), Position(19_000 * 64))));
        assert_eq!(lists.versions.len(), VERSIONS_MAX);
        assert_eq!(lists.versions.last(), Some(&(Position(200 * 64), ServiceVersion(200))));
        assert_eq!(Lists::decode(&out[..size - 1]), None);
        let mut again = vec![0; CONTENT_SIZE_MAX];
        assert!(encode(Position(19_001 * 64), &lists, &mut again) == size && again == out, "the same bytes");
    }

    #[test]
    fn an_empty_history_is_sixteen_bytes() {
        let runs: &[(Term, Position)] = &[(Term(1), Position(0))];
        let mut out = vec![0; CONTENT_SIZE_MAX];
        let size = encode(Position(0), runs, &mut out);
        assert_eq!(size, START_HEADER_SIZE);
        assert_eq!(Lists::decode(&out[..size]), Some(Lists::default()));
    }

    #[test]
    fn runs_end_where_the_next_begins() {
        let runs = [(Term(1), Position(0)), (Term(4), Position(64)), (Term(5), Position(256))];
        let ends = [0, 63, 64, 255, 256, 1000].map(|at| runs[..].run_end(Position(at)).0);
        assert_eq!(ends, [64, 64, 256, 256, u64::MAX, u64::MAX]);
        assert_eq!(runs[..0].run_end(Position(0)), Position(u64::MAX));
    }
}
