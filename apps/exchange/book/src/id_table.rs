//! From an order's id to its place: open addressing, linear probing, deletion by shifting back.
//!
//! The hash is fixed. Nothing the book reports depends on it, but its speed does: ids made up to collide make a
//! search linear. That takes a hostile client with a session of its own; an exchange gives ids out itself or
//! trusts who it lets in.

use crate::types::OrderId;

/// No order.
const VACANT: u32 = u32::MAX;
/// 2^64 divided by the golden ratio, odd: spreads runs of consecutive ids evenly (Knuth 6.4).
const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

#[derive(Debug, Clone, Copy)]
struct Entry {
    id: u64,
    slot: u32,
}

/// Invariant: at most half of the entries are taken, so that probing ends soon, and ends at all.
#[derive(Debug, Clone)]
pub(crate) struct IdTable {
    /// Invariant: a power of two of them.
    entries: Vec<Entry>,
    len: usize,
    shift: u32,
}

impl IdTable {
    pub(crate) fn with_capacity(len: usize) -> Self {
        let size = (len.max(8) * 2).next_power_of_two();
        Self { entries: vec![Entry { id: 0, slot: VACANT }; size], len: 0, shift: 64 - size.trailing_zeros() }
    }

    pub(crate) fn get(&self, id: OrderId) -> Option<u32> {
        let entry = self.entries[self.probe(id.0)];
        (entry.slot != VACANT).then_some(entry.slot)
    }

    /// Adds an id that is not there.
    pub(crate) fn insert(&mut self, id: OrderId, slot: u32) {
        debug_assert!(self.get(id).is_none(), "ids are unique");
        if (self.len + 1) * 2 > self.entries.len() {
            self.grow();
        }
        let at = self.probe(id.0);
        self.entries[at] = Entry { id: id.0, slot };
        self.len += 1;
    }

    /// Removes an id that is there.
    pub(crate) fn remove(&mut self, id: OrderId) {
        let mask = self.entries.len() - 1;
        let mut hole = self.probe(id.0);
        assert!(self.entries[hole].slot != VACANT, "only ids that are there are removed");
        let mut at = hole;
        loop {
            at = (at + 1) & mask;
            let entry = self.entries[at];
            if entry.slot == VACANT {
                break;
            }
            // Whoever probed past the hole on the way to its place moves back into the hole.
            let travelled = at.wrapping_sub(self.home(entry.id)) & mask;
            if travelled >= (at.wrapping_sub(hole) & mask) {
                self.entries[hole] = entry;
                hole = at;
            }
        }
        self.entries[hole].slot = VACANT;
        self.len -= 1;
    }

    /// Bytes allocated.
    pub(crate) fn memory_size(&self) -> usize {
        self.entries.capacity() * size_of::<Entry>()
    }

    /// Where `id` is, or the vacancy where it would go.
    fn probe(&self, id: u64) -> usize {
        let mask = self.entries.len() - 1;
        let mut at = self.home(id);
        while self.entries[at].slot != VACANT && self.entries[at].id != id {
            at = (at + 1) & mask;
        }
        at
    }

    fn home(&self, id: u64) -> usize {
        ((id ^ (id >> 32)).wrapping_mul(GOLDEN) >> self.shift) as usize
    }

    fn grow(&mut self) {
        let mut larger = Self::with_capacity(self.entries.len());
        for entry in self.entries.iter().filter(|entry| entry.slot != VACANT) {
            let at = larger.probe(entry.id);
            larger.entries[at] = *entry;
        }
        larger.len = self.len;
        *self = larger;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn agrees_with_a_map(steps in proptest::collection::vec((any::<bool>(), 0_u64..64, 0_u32..40), 0..600)) {
            let mut table = IdTable::with_capacity(1);
            let mut model = HashMap::new();
            for (insert, number, shift) in steps {
                // Few distinct low bits and few distinct high bits: collisions abound.
                let id = number << shift;
                if insert && !model.contains_key(&id) {
                    model.insert(id, shift);
                    table.insert(OrderId(id), shift);
                } else if model.remove(&id).is_some() {
                    table.remove(OrderId(id));
                }
                prop_assert_eq!(table.len, model.len());
                for (id, slot) in &model {
                    prop_assert_eq!(table.get(OrderId(*id)), Some(*slot));
                }
                prop_assert_eq!(table.get(OrderId(id)), model.get(&id).copied());
            }
        }
    }
}
