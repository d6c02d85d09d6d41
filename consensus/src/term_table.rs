//! Which term wrote which part of the log.
//!
//! A log is a stream of bytes written by one leader after the other, so a short table of runs (term, first byte)
//! answers every question that Raft asks of a log. By log matching, two logs that have the same term at the same byte
//! are the same up to there, and their record boundaries within a term are the same too: comparing tables is
//! comparing logs, and the core never reads one.

use std::collections::VecDeque;

use evershard_protocol::limits::TERM_RUNS_MAX;
use evershard_protocol::peer::Hint;
use evershard_protocol::{Position, Term};

/// Runs of terms over a log, oldest first; at most [`TERM_RUNS_MAX`], the oldest are forgotten first.
///
/// Invariant: terms and first positions grow from run to run, and no run is empty.
#[derive(Clone, PartialEq, Eq, Debug, Hash)]
pub struct TermTable {
    /// Where the table begins: the start of the first run, or `last` when there is none.
    base: Position,
    /// Term of the record that ends at `base`.
    base_term: Term,
    runs: VecDeque<Run>,
    last: Position,
}

/// One leader's part of the log.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Run {
    term: Term,
    first: Position,
}

impl TermTable {
    /// The table of an empty log. Allocates all it will ever need.
    #[must_use]
    pub fn new() -> Self {
        Self::starting_at(Position::ZERO, Term(0))
    }

    /// The table of a log whose records up to `position` are known only by the term of the last of them.
    #[must_use]
    pub fn starting_at(position: Position, term: Term) -> Self {
        let runs = VecDeque::with_capacity(TERM_RUNS_MAX);
        Self { base: position, base_term: term, runs, last: position }
    }

    /// Notes that the log now ends at `end` and that what came since the last end was written in `term`.
    ///
    /// # Panics
    /// If `end` is not beyond the last end, or `term` lies before the last term.
    pub fn append(&mut self, term: Term, end: Position) {
        assert!(end > self.last, "a log grows by appending");
        assert!(term >= self.last_term(), "terms in a log never go back");
        assert!(term > Term(0), "no record is of term 0");
        if term > self.last_term() || self.runs.is_empty() {
            if self.runs.len() == TERM_RUNS_MAX {
                self.drop_oldest();
            }
            self.runs.push_back(Run { term, first: self.last });
        }
        self.last = end;
    }

    /// Notes that the log was cut at `to`.
    ///
    /// # Panics
    /// If the table does not reach back to `to`, or not up to it.
    pub fn truncate(&mut self, to: Position) {
        assert!(to <= self.last, "only what is there can be cut");
        assert!(to >= self.base, "what the table forgot was committed long ago");
        while self.runs.back().is_some_and(|run| run.first >= to) {
            self.runs.pop_back();
        }
        self.last = to;
    }

    /// Notes that the log below the record boundary `to` is gone.
    ///
    /// # Panics
    /// If the log does not reach up to `to`.
    pub fn forget_before(&mut self, to: Position) {
        assert!(to <= self.last, "only what was there can be forgotten");
        if to <= self.base {
            return;
        }
        let term = self.term_at(to).expect("between base and end");
        while self.runs.get(1).is_some_and(|next| next.first <= to) {
            self.runs.pop_front();
        }
        match self.runs.front_mut() {
            Some(run) if to < self.last => run.first = run.first.max(to),
            _ => self.runs.clear(),
        }
        self.base = to;
        self.base_term = term;
    }

    /// Begins anew behind a snapshot at `position`, whose last record is of `term`.
    pub fn reset(&mut self, position: Position, term: Term) {
        self.runs.clear();
        self.base = position;
        self.base_term = term;
        self.last = position;
    }

    /// Term of the record that ends at `position`, or through which it goes: term 0 at position 0, none beyond the
    /// end or below the table.
    #[must_use]
    pub fn term_at(&self, position: Position) -> Option<Term> {
        if position > self.last || position < self.base {
            return None;
        }
        if position == self.base {
            return Some(self.base_term);
        }
        let run = self.runs[self.run_index(Position(position.0 - 1))];
        Some(run.term)
    }

    /// Term of the byte at `position`, i.e. of the record that begins there; none at the end and below the table.
    #[must_use]
    pub fn term_of_byte(&self, position: Position) -> Option<Term> {
        let within = position < self.last && position >= self.base;
        within.then(|| self.runs[self.run_index(position)].term)
    }

    /// End of the run that contains the byte at `position`; the log's end if there is no such byte.
    #[must_use]
    pub fn run_end(&self, position: Position) -> Position {
        if position >= self.last || position < self.base {
            return self.last;
        }
        self.runs.get(self.run_index(position) + 1).map_or(self.last, |next| next.first)
    }

    /// Start of the run that contains the byte before `position`: a record boundary before it; `base` if there is none.
    #[must_use]
    pub fn run_start(&self, position: Position) -> Position {
        if position > self.last || position <= self.base {
            return self.base;
        }
        self.runs[self.run_index(Position(position.0 - 1))].first
    }

    /// The greatest position up to `position` at which the term is not above `term`, and its term. It is `position`
    /// itself, the log's end, or a boundary between two runs; position 0 if the table does not reach back far enough.
    #[must_use]
    pub fn find_hint(&self, position: Position, term: Term) -> Hint {
        let above = self.runs.partition_point(|run| run.term <= term);
        let end = self.runs.get(above).map_or(self.last, |run| run.first);
        let position = position.min(end);
        match self.term_at(position) {
            Some(found) if found <= term => Hint { position, term: found },
            _ => Hint { position: Position::ZERO, term: Term(0) },
        }
    }

    /// Where the table begins: what lies before is forgotten.
    #[must_use]
    pub fn base(&self) -> Position {
        self.base
    }

    /// Where the log ends.
    #[must_use]
    pub fn last(&self) -> Position {
        self.last
    }

    /// Term of the log's last record.
    #[must_use]
    pub fn last_term(&self) -> Term {
        self.runs.back().map_or(self.base_term, |run| run.term)
    }

    /// The runs, oldest first: term, and where its first record begins.
    pub fn runs(&self) -> impl Iterator<Item = (Term, Position)> + '_ {
        self.runs.iter().map(|run| (run.term, run.first))
    }

    /// Makes sure that no later append allocates; a clone does not inherit its original's room.
    pub(crate) fn reserve(&mut self) {
        self.runs.reserve(TERM_RUNS_MAX.saturating_sub(self.runs.len()));
    }

    /// Panics if the table contradicts itself. For tests and `debug_assert!`.
    pub(crate) fn check_invariants(&self) {
        let (mut term, mut first) = (self.base_term, self.base);
        for (index, run) in self.runs.iter().enumerate() {
            // Two neighbouring runs differ in term; the first may go on in the term below the table.
            assert!(run.term > term || (index == 0 && run.term == term), "terms grow from run to run");
            assert!(run.first > first || (index == 0 && run.first == first), "no run is empty");
            (term, first) = (run.term, run.first);
        }
        assert!(self.runs.is_empty() || self.last > first, "the last run is not empty");
        assert!(!self.runs.is_empty() || self.last == self.base, "what is not in a run is not in the log");
        assert!(self.runs.len() <= TERM_RUNS_MAX, "the table is bounded");
    }

    /// Index of the run that holds the byte at `position`, which must be in the table.
    fn run_index(&self, position: Position) -> usize {
        assert!(position >= self.base && position < self.last, "the byte is in the table");
        let newest = self.runs.len() - 1;
        if self.runs[newest].first <= position {
            return newest;
        }
        self.runs.partition_point(|run| run.first <= position) - 1
    }

    fn drop_oldest(&mut self) {
        let oldest = self.runs.pop_front().expect("only a full table forgets");
        self.base_term = oldest.term;
        self.base = self.runs.front().map_or(self.last, |run| run.first);
    }
}

impl Default for TermTable {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
#[path = "term_table_tests.rs"]
mod tests;
