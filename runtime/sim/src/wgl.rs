//! Is a history linearizable? The search of Wing and Gong (1993) with Lowe's cache (2017): take the operations one by
//! one that may come next, undo what led nowhere, and never visit the same set of operations with the same state twice.
//!
//! An operation that was never answered may take effect at any time after its invocation, or never. It is a candidate
//! like any other, and the search is done when all answered operations are placed.

use std::collections::HashSet;
use std::hash::Hash;

use crate::clock::Time;

/// A sequential object.
pub trait Model: Clone + Eq + Hash {
    /// What it is asked, with what it answered.
    type Op;

    /// The state afterwards; `None` if it could not have answered so.
    fn apply(&self, op: &Self::Op) -> Option<Self>;
}

/// One operation of a history.
#[derive(Clone, Debug)]
pub struct Call<Op> {
    /// What, with the answer, if there is one.
    pub op: Op,
    /// When it began.
    pub invoked: Time,
    /// When it ended; `None`: nobody knows whether it took effect.
    pub returned: Option<Time>,
}

/// How a search ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// There is an order that explains every answer.
    Linearizable,
    /// There is none.
    NotLinearizable,
    /// The search took too many steps.
    GaveUp,
}

/// Searches for an order, within `steps_max` steps.
#[must_use]
pub fn check<M: Model>(initial: &M, calls: &[Call<M::Op>], steps_max: u64) -> Verdict {
    let mut search = Search::new(initial.clone(), calls);
    let mut steps = 0;
    loop {
        if search.open_len == 0 {
            return Verdict::Linearizable;
        }
        steps += 1;
        if steps > steps_max {
            return Verdict::GaveUp;
        }
        if search.advance() {
            continue;
        }
        if !search.undo() {
            return Verdict::NotLinearizable;
        }
    }
}

/// Entries of the history in order of time: a call's begin at `2 * i`, its end at `2 * i + 1`; a doubly linked list from
/// which placed operations are lifted.
struct Search<'a, M: Model> {
    calls: &'a [Call<M::Op>],
    state: M,
    next: Vec<usize>,
    previous: Vec<usize>,
    placed: Vec<u64>,
    cache: HashSet<(Vec<u64>, M)>,
    /// What was placed, with the state before.
    stack: Vec<(usize, M)>,
    /// Where the search goes on.
    at: usize,
    /// Answered operations that are not placed.
    open_len: usize,
}

impl<'a, M: Model> Search<'a, M> {
    fn new(state: M, calls: &'a [Call<M::Op>]) -> Self {
        let mut order: Vec<usize> = (0..2 * calls.len()).collect();
        // At equal times begins come before ends: the operations overlap.
        order.sort_by_key(|entry| {
            let call = &calls[entry / 2];
            if entry % 2 == 0 { (call.invoked, 0) } else { (call.returned.unwrap_or(Time::MAX), 1) }
        });
        let head = 2 * calls.len();
        let mut next = vec![head; head + 1];
        let mut previous = vec![head; head + 1];
        let mut last = head;
        for entry in order {
            (next[last], previous[entry]) = (entry, last);
            last = entry;
        }
        (next[last], previous[head]) = (head, last);
        let open_len = calls.iter().filter(|call| call.returned.is_some()).count();
        let at = next[head];
        Self {
            calls,
            state,
            next,
            previous,
            placed: vec![0; calls.len().div_ceil(64)],
            cache: HashSet::new(),
            stack: Vec::new(),
            at,
            open_len,
        }
    }

    fn head(&self) -> usize {
        2 * self.calls.len()
    }

    /// Places the next operation that fits from `at` on; false when an end is reached first.
    fn advance(&mut self) -> bool {
        while self.at != self.head() && self.at.is_multiple_of(2) {
            let index = self.at / 2;
            if let Some(after) = self.state.apply(&self.calls[index].op) {
                self.placed[index / 64] ^= 1 << (index % 64);
                if self.cache.insert((self.placed.clone(), after.clone())) {
                    self.lift(index);
                    self.stack.push((index, std::mem::replace(&mut self.state, after)));
                    self.open_len -= usize::from(self.calls[index].returned.is_some());
                    self.at = self.next[self.head()];
                    return true;
                }
                self.placed[index / 64] ^= 1 << (index % 64);
            }
            self.at = self.next[self.at];
        }
        false
    }

    /// Takes back what was placed last and goes on behind it; false if there is nothing.
    fn undo(&mut self) -> bool {
        let Some((index, before)) = self.stack.pop() else { return false };
        self.state = before;
        self.placed[index / 64] ^= 1 << (index % 64);
        self.open_len += usize::from(self.calls[index].returned.is_some());
        self.unlift(index);
        self.at = self.next[2 * index];
        true
    }

    fn lift(&mut self, index: usize) {
        for entry in [2 * index, 2 * index + 1] {
            let (before, after) = (self.previous[entry], self.next[entry]);
            self.next[before] = after;
            self.previous[after] = before;
        }
    }

    fn unlift(&mut self, index: usize) {
        for entry in [2 * index + 1, 2 * index] {
            let (before, after) = (self.previous[entry], self.next[entry]);
            self.next[before] = entry;
            self.previous[after] = entry;
        }
    }
}

/// One key of the key-value service.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Register(pub u64);

/// What a register is asked, with its answer if there is one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RegisterOp {
    /// Reads.
    Read(Option<u64>),
    /// Sets; answers with the value before.
    Swap(u64, Option<u64>),
    /// Sets without an answer.
    Write(u64),
    /// Sets if equal; answers whether.
    Cas(u64, u64, Option<bool>),
    /// Adds, counting an absent value as nothing; answers with the sum.
    Add(u64, Option<u64>),
}

impl Model for Register {
    type Op = RegisterOp;

    fn apply(&self, op: &RegisterOp) -> Option<Self> {
        let fits = |told: Option<u64>, is: u64| told.is_none_or(|told| told == is);
        match *op {
            RegisterOp::Read(told) => fits(told, self.0).then_some(*self),
            RegisterOp::Swap(value, told) => fits(told, self.0).then_some(Self(value)),
            RegisterOp::Write(value) => Some(Self(value)),
            RegisterOp::Cas(expected, new, told) => {
                let done = self.0 == expected;
                told.is_none_or(|told| told == done).then_some(if done { Self(new) } else { *self })
            }
            RegisterOp::Add(delta, told) => {
                let held = if self.0 == u64::MAX { 0 } else { self.0 };
                let sum = held.wrapping_add(delta);
                fits(told, sum).then_some(Self(sum))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(op: RegisterOp, invoked: Time, returned: Option<Time>) -> Call<RegisterOp> {
        Call { op, invoked, returned }
    }

    fn verdict(calls: &[Call<RegisterOp>]) -> Verdict {
        check(&Register(0), calls, 10_000)
    }

    #[test]
    fn overlapping_operations_may_come_in_any_order_and_others_may_not() {
        let write = call(RegisterOp::Write(1), 0, Some(10));
        assert_eq!(verdict(&[write.clone(), call(RegisterOp::Read(Some(0)), 5, Some(6))]), Verdict::Linearizable);
        assert_eq!(verdict(&[write.clone(), call(RegisterOp::Read(Some(1)), 5, Some(6))]), Verdict::Linearizable);
        assert_eq!(verdict(&[write, call(RegisterOp::Read(Some(0)), 11, Some(12))]), Verdict::NotLinearizable);
    }

    #[test]
    fn what_was_never_answered_may_have_happened_late_or_never() {
        let pending = call(RegisterOp::Write(1), 0, None);
        let reads = |values: [u64; 3]| {
            let mut calls = vec![pending.clone()];
            for (at, value) in values.into_iter().enumerate() {
                let at = 10 * (at as Time + 1);
                calls.push(call(RegisterOp::Read(Some(value)), at, Some(at + 1)));
            }
            calls
        };
        assert_eq!(verdict(&reads([0, 0, 0])), Verdict::Linearizable);
        assert_eq!(verdict(&reads([0, 0, 1])), Verdict::Linearizable);
        assert_eq!(verdict(&reads([0, 1, 0])), Verdict::NotLinearizable);
    }

    #[test]
    fn writes_in_reverse_order_are_found() {
        let mut calls: Vec<_> = (1..=3).map(|value| call(RegisterOp::Write(value), 0, Some(100))).collect();
        for (at, value) in [(10, 3), (20, 2), (30, 1)] {
            calls.push(call(RegisterOp::Read(Some(value)), at, Some(at + 1)));
        }
        assert_eq!(verdict(&calls), Verdict::Linearizable);
        calls.push(call(RegisterOp::Read(Some(2)), 40, Some(41)));
        assert_eq!(verdict(&calls), Verdict::NotLinearizable);
    }
}
