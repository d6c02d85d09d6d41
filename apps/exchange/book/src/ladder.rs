//! The price levels of one side, in order: a sorted list cut into chunks.
//!
//! In recorded markets most levels hold one order, so a level comes or goes with nearly every instruction, mostly
//! near the touch but now and then far away, and there are thousands of them. A sorted array is fast at its end
//! and moves tens of kilobytes for a level far down; a `BTreeMap` allocates nodes. Here an insertion moves at most
//! one chunk's worth (under 1 KiB), wherever it is, and the best level is two loads away. `benches/book.rs`
//! compares the three.
//!
//! Levels are ordered by *rank*: a number that grows as the price gets better.

/// Levels of one chunk.
const CHUNK_LEN: usize = 64;
/// A chunk that shrinks below this looks for a neighbour to join.
const SPARSE_LEN: usize = CHUNK_LEN / 4;
/// Two chunks join if they have no more levels than this together.
const JOINED_LEN_MAX: usize = CHUNK_LEN * 3 / 4;

const _: () = assert!(JOINED_LEN_MAX < CHUNK_LEN, "a joined chunk does not split at the next insertion");
const _: () = assert!(SPARSE_LEN < CHUNK_LEN / 2, "a split chunk does not join at the next removal");

#[derive(Debug, Clone)]
struct Chunk {
    len: usize,
    /// Invariant: strictly ascending up to `len`.
    ranks: [u64; CHUNK_LEN],
    levels: [u32; CHUNK_LEN],
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    /// Invariant: not above any rank of its chunk, above every rank of the chunk before.
    low: u64,
    chunk: u32,
}

/// Where a level is or would be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    entry: usize,
    at: usize,
}

/// A sorted list of (rank, level), best last.
#[derive(Debug, Clone, Default)]
pub struct Ladder {
    /// Invariant: ascending; no chunk is empty.
    directory: Vec<Entry>,
    chunks: Vec<Chunk>,
    free: Vec<u32>,
}

impl Ladder {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The best rank and its level.
    #[inline]
    #[must_use]
    pub fn best(&self) -> Option<(u64, u32)> {
        let chunk = &self.chunks[self.directory.last()?.chunk as usize];
        Some((chunk.ranks[chunk.len - 1], chunk.levels[chunk.len - 1]))
    }

    /// The level of `rank`, or where it would be inserted.
    ///
    /// # Errors
    /// The place for [`Ladder::insert`], valid until the next change.
    #[inline]
    pub fn find(&self, rank: u64) -> Result<u32, Place> {
        let place = self.place(rank);
        let Some(entry) = self.directory.get(place.entry) else { return Err(place) };
        let chunk = &self.chunks[entry.chunk as usize];
        if place.at < chunk.len && chunk.ranks[place.at] == rank { Ok(chunk.levels[place.at]) } else { Err(place) }
    }

    /// Inserts at a place that [`Ladder::find`] named for this rank.
    pub fn insert(&mut self, mut place: Place, rank: u64, level: u32) {
        if self.directory.is_empty() {
            let chunk = self.take_chunk();
            self.directory.push(Entry { low: rank, chunk });
        }
        let entry = self.directory[place.entry];
        if self.chunks[entry.chunk as usize].len == CHUNK_LEN {
            self.split(place.entry);
            place = self.place(rank);
        }
        let entry = &mut self.directory[place.entry];
        entry.low = entry.low.min(rank);
        let chunk = &mut self.chunks[entry.chunk as usize];
        chunk.ranks.copy_within(place.at..chunk.len, place.at + 1);
        chunk.levels.copy_within(place.at..chunk.len, place.at + 1);
        chunk.ranks[place.at] = rank;
        chunk.levels[place.at] = level;
        chunk.len += 1;
    }

    /// Removes a rank that is there.
    pub fn remove(&mut self, rank: u64) {
        let place = self.place(rank);
        let chunk = &mut self.chunks[self.directory[place.entry].chunk as usize];
        assert!(place.at < chunk.len && chunk.ranks[place.at] == rank, "only ranks that are there are removed");
        chunk.ranks.copy_within(place.at + 1..chunk.len, place.at);
        chunk.levels.copy_within(place.at + 1..chunk.len, place.at);
        chunk.len -= 1;
        if chunk.len < SPARSE_LEN {
            self.join(place.entry);
        }
    }

    /// Removes the best.
    pub fn remove_best(&mut self) {
        let entry = self.directory.len() - 1;
        let chunk = &mut self.chunks[self.directory[entry].chunk as usize];
        chunk.len -= 1;
        if chunk.len < SPARSE_LEN {
            self.join(entry);
        }
    }

    /// All levels, best first.
    pub fn descending(&self) -> impl Iterator<Item = (u64, u32)> + '_ {
        self.descending_from(u64::MAX)
    }

    /// The levels not better than `rank`, best first.
    pub fn descending_from(&self, rank: u64) -> impl Iterator<Item = (u64, u32)> + '_ {
        let Place { entry, at } = self.place(rank);
        let first_len = match self.find(rank) {
            Ok(_) => at + 1,
            Err(_) => at,
        };
        let entries_len = (entry + 1).min(self.directory.len());
        self.directory[..entries_len].iter().rev().enumerate().flat_map(move |(number, entry)| {
            let chunk = &self.chunks[entry.chunk as usize];
            let len = if number == 0 { first_len } else { chunk.len };
            (0..len).rev().map(|at| (chunk.ranks[at], chunk.levels[at]))
        })
    }

    /// Bytes allocated.
    #[must_use]
    pub fn memory_size(&self) -> usize {
        self.directory.capacity() * size_of::<Entry>()
            + self.chunks.capacity() * size_of::<Chunk>()
            + self.free.capacity() * size_of::<u32>()
    }

    /// The first place whose rank is not below `rank`.
    #[inline]
    fn place(&self, rank: u64) -> Place {
        let entry = match self.directory.last() {
            None => return Place { entry: 0, at: 0 },
            Some(last) if last.low <= rank => self.directory.len() - 1,
            Some(_) => self.directory.partition_point(|entry| entry.low <= rank).saturating_sub(1),
        };
        let chunk = &self.chunks[self.directory[entry].chunk as usize];
        Place { entry, at: chunk.ranks[..chunk.len].partition_point(|other| *other < rank) }
    }

    /// Moves the upper half of a full chunk into a new one.
    fn split(&mut self, entry: usize) {
        let upper = self.take_chunk();
        let lower = self.directory[entry].chunk;
        let [lower, new] = self
            .chunks
            .get_disjoint_mut([lower as usize, upper as usize])
            .expect("a chunk just taken is not in the directory");
        let half = CHUNK_LEN / 2;
        new.len = lower.len - half;
        new.ranks[..new.len].copy_from_slice(&lower.ranks[half..lower.len]);
        new.levels[..new.len].copy_from_slice(&lower.levels[half..lower.len]);
        lower.len = half;
        self.directory.insert(entry + 1, Entry { low: new.ranks[0], chunk: upper });
    }

    /// Removes an empty chunk; lets a sparse one join a neighbour if they have room together.
    fn join(&mut self, entry: usize) {
        if self.chunk_len(entry) == 0 {
            self.release_chunk(entry);
        } else if entry > 0 && self.chunk_len(entry - 1) + self.chunk_len(entry) <= JOINED_LEN_MAX {
            self.join_with_next(entry - 1);
        } else if entry + 1 < self.directory.len()
            && self.chunk_len(entry) + self.chunk_len(entry + 1) <= JOINED_LEN_MAX
        {
            self.join_with_next(entry);
        }
    }

    fn join_with_next(&mut self, entry: usize) {
        let pair = [self.directory[entry].chunk as usize, self.directory[entry + 1].chunk as usize];
        let [lower, upper] = self.chunks.get_disjoint_mut(pair).expect("each chunk is in the directory once");
        let len = lower.len + upper.len;
        lower.ranks[lower.len..len].copy_from_slice(&upper.ranks[..upper.len]);
        lower.levels[lower.len..len].copy_from_slice(&upper.levels[..upper.len]);
        lower.len = len;
        self.release_chunk(entry + 1);
    }

    fn chunk_len(&self, entry: usize) -> usize {
        self.chunks[self.directory[entry].chunk as usize].len
    }

    fn take_chunk(&mut self) -> u32 {
        if let Some(chunk) = self.free.pop() {
            return chunk;
        }
        self.chunks.push(Chunk { len: 0, ranks: [0; CHUNK_LEN], levels: [0; CHUNK_LEN] });
        self.free.reserve(self.chunks.len());
        u32::try_from(self.chunks.len() - 1).expect("no more chunks than levels")
    }

    fn release_chunk(&mut self, entry: usize) {
        let chunk = self.directory.remove(entry).chunk;
        self.chunks[chunk as usize].len = 0;
        self.free.push(chunk);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn check_invariants(ladder: &Ladder) {
        let mut before = None;
        for (number, entry) in ladder.directory.iter().enumerate() {
            let chunk = &ladder.chunks[entry.chunk as usize];
            assert!(chunk.len > 0, "no chunk is empty");
            assert!(number == 0 || before < Some(entry.low));
            for rank in &chunk.ranks[..chunk.len] {
                assert!(entry.low <= *rank);
                assert!(before < Some(*rank));
                before = Some(*rank);
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn agrees_with_a_tree(steps in proptest::collection::vec((0_u8..8, 0_u64..400), 0..3000), bias in 1_u8..8) {
            let mut ladder = Ladder::new();
            let mut model = BTreeMap::new();
            for (number, (kind, rank)) in steps.into_iter().enumerate() {
                // The second half of the steps removes as often as the first inserted.
                let insert = if number < 1500 { kind < bias } else { kind >= bias };
                match ladder.find(rank) {
                    Ok(level) => {
                        prop_assert_eq!(model.get(&rank), Some(&level));
                        if !insert {
                            ladder.remove(rank);
                            model.remove(&rank);
                        }
                    }
                    Err(place) if insert => {
                        prop_assert!(!model.contains_key(&rank));
                        ladder.insert(place, rank, number as u32);
                        model.insert(rank, number as u32);
                    }
                    Err(_) if kind == 0 && !model.is_empty() => {
                        ladder.remove_best();
                        model.pop_last();
                    }
                    Err(_) => prop_assert!(!model.contains_key(&rank)),
                }
                prop_assert_eq!(ladder.best(), model.last_key_value().map(|(rank, level)| (*rank, *level)));
                if number % 50 == 0 {
                    check_invariants(&ladder);
                    let expected: Vec<_> = model.range(..=rank).rev().map(|(rank, level)| (*rank, *level)).collect();
                    prop_assert_eq!(ladder.descending_from(rank).collect::<Vec<_>>(), expected);
                }
            }
            let expected: Vec<_> = model.iter().rev().map(|(rank, level)| (*rank, *level)).collect();
            prop_assert_eq!(ladder.descending().collect::<Vec<_>>(), expected);
        }
    }
}
