//! The table against a model that remembers the term of every byte.

use super::*;
use proptest::prelude::*;

/// Terms of all bytes; slow and obvious.
#[derive(Default)]
struct Model {
    terms: Vec<u64>,
}

impl Model {
    fn term_at(&self, position: u64) -> Option<Term> {
        match position {
            0 => Some(Term(0)),
            _ => self.terms.get(usize::try_from(position - 1).expect("small")).map(|&term| Term(term)),
        }
    }

    fn run_end(&self, position: u64) -> u64 {
        let start = usize::try_from(position).expect("small").min(self.terms.len());
        let same = self.terms[start..].iter().take_while(|&&term| term == self.terms[start]).count();
        (start + same) as u64
    }

    fn hint(&self, position: u64, term: u64) -> u64 {
        let last = self.terms.len() as u64;
        let fits = |&at: &u64| self.term_at(at).is_some_and(|found| found <= Term(term));
        (0..=position.min(last)).rev().find(fits).expect("position 0 always fits")
    }
}

fn check(table: &TermTable, model: &Model) {
    table.check_invariants();
    let last = model.terms.len() as u64;
    assert_eq!(table.last(), Position(last));
    assert_eq!(Some(table.last_term()), model.term_at(last));
    for position in 0..last + 3 {
        assert_eq!(table.term_at(Position(position)), model.term_at(position), "term at {position}");
        assert_eq!(table.term_of_byte(Position(position)), model.term_at(position + 1), "term of byte {position}");
        assert_eq!(table.run_end(Position(position)).0, model.run_end(position), "end of the run at {position}");
        for term in 0..8 {
            let hint = table.find_hint(Position(position), Term(term));
            assert_eq!(hint.position.0, model.hint(position, term), "hint for {position}, {term}");
            assert_eq!(Some(hint.term), model.term_at(hint.position.0));
        }
    }
}

proptest! {
    #[test]
    fn the_table_says_what_the_bytes_say(
        operations in proptest::collection::vec((any::<bool>(), 0_u64..3, 1_u64..6), 1..20)
    ) {
        let mut table = TermTable::new();
        let mut model = Model::default();
        for (truncate, rise, size) in operations {
            if truncate {
                let to = table.last().0.saturating_sub(size);
                table.truncate(Position(to));
                model.terms.truncate(usize::try_from(to).expect("small"));
            } else {
                let term = (table.last_term().0 + rise).max(1);
                table.append(Term(term), table.last().advance(size));
                model.terms.extend((0..size).map(|_| term));
            }
            check(&table, &model);
        }
    }
}

#[test]
fn the_oldest_run_is_forgotten_but_not_the_term_at_its_end() {
    let mut table = TermTable::new();
    let runs = TERM_RUNS_MAX as u64 + 3;
    for term in 1..=runs {
        table.append(Term(term), Position(term * 8));
    }
    table.check_invariants();
    assert_eq!(table.runs().count(), TERM_RUNS_MAX);
    assert_eq!(table.base(), Position(24));
    assert_eq!(table.term_at(Position(24)), Some(Term(3)));
    assert_eq!(table.term_at(Position(23)), None);
    assert_eq!(table.term_of_byte(Position(24)), Some(Term(4)));
    assert_eq!(table.find_hint(Position(30), Term(3)), Hint { position: Position(24), term: Term(3) });
    assert_eq!(table.find_hint(Position(30), Term(2)), Hint { position: Position(0), term: Term(0) });
    assert_eq!(table.run_start(Position(20)), Position(24));
    assert_eq!(table.run_start(Position(33)), Position(32));
    assert_eq!(table.run_start(Position(32)), Position(24));
}

#[test]
fn a_table_may_begin_in_the_middle_of_a_log() {
    let mut table = TermTable::starting_at(Position(100), Term(4));
    assert_eq!((table.last(), table.last_term()), (Position(100), Term(4)));
    table.append(Term(4), Position(108));
    table.append(Term(4), Position(116));
    table.append(Term(6), Position(124));
    table.check_invariants();
    assert_eq!(table.runs().collect::<Vec<_>>(), [(Term(4), Position(100)), (Term(6), Position(116))]);
    assert_eq!(table.term_at(Position(100)), Some(Term(4)));
    table.truncate(Position(100));
    table.check_invariants();
    assert_eq!((table.last(), table.last_term()), (Position(100), Term(4)));
}
