//! The tail against a plain vector.

use evershard_log::Tail;
use evershard_protocol::limits::RECORD_SIZE_MAX;
use evershard_protocol::record::{Draft, Kind, Record};
use evershard_protocol::{Position, Term, Timestamp};
use proptest::prelude::*;

const CAPACITY: usize = RECORD_SIZE_MAX + 8 * 1024;

/// The whole stream, never forgotten, and its record boundaries.
struct Model {
    tail: Tail,
    stream: Vec<u8>,
    base: Position,
    boundaries: Vec<Position>,
    floor: Position,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Append { size: usize, verified: bool },
    Floor(usize),
    Truncate(usize),
    Reset(u64),
    Cut(usize, usize),
}

fn step() -> impl Strategy<Value = Step> {
    let size = prop_oneof![6 => 0..200_usize, 3 => 0..9000_usize, 1 => 30_000..65_537_usize];
    prop_oneof![
        20 => (size, any::<bool>()).prop_map(|(size, verified)| Step::Append { size, verified }),
        6 => any::<usize>().prop_map(Step::Floor),
        2 => any::<usize>().prop_map(Step::Truncate),
        1 => (0..1_u64 << 40).prop_map(|start| Step::Reset(start * 8)),
        4 => (any::<usize>(), any::<usize>()).prop_map(|(from, to)| Step::Cut(from, to)),
    ]
}

impl Model {
    fn new() -> Self {
        let tail = Tail::new(CAPACITY, Position(64));
        let base = Position(64);
        Self { tail, stream: Vec::new(), base, boundaries: vec![base], floor: base }
    }

    fn end(&self) -> Position {
        *self.boundaries.last().expect("the begin is one")
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Append { size, verified } => self.append(size, verified),
            Step::Floor(pick) => {
                let above: Vec<_> = self.boundaries.iter().filter(|at| **at >= self.floor).collect();
                self.floor = *above[pick % above.len()];
            }
            Step::Truncate(pick) => {
                let to = self.boundaries[pick % self.boundaries.len()];
                self.tail.truncate(to);
                self.boundaries.retain(|at| *at <= to);
                self.stream.truncate(to.since(self.base) as usize);
                self.floor = self.floor.min(to);
                if to <= self.tail.start() {
                    assert_eq!((self.tail.start(), self.tail.end()), (to, to));
                }
            }
            Step::Reset(start) => {
                self.tail.reset(Position(start));
                self.base = Position(start);
                self.stream.clear();
                self.boundaries = vec![self.base];
                self.floor = self.base;
            }
            Step::Cut(from, to) => self.cut(from, to),
        }
    }

    fn append(&mut self, size: usize, verified: bool) {
        let payload: Vec<u8> = (0..size).map(|index| (index * 31 + self.boundaries.len()) as u8).collect();
        let draft = Draft::plain(Kind::Command, Term(2), Timestamp(5), &payload);
        let mut record = vec![0; draft.padded_size()];
        draft.encode(self.end(), &mut record);
        let room = self.tail.has_room(record.len(), self.floor);
        let before = (self.tail.start(), self.tail.end());
        let done = match verified {
            true => self.tail.append_record(&record, self.floor),
            false => self.tail.append(&draft, self.floor),
        };
        assert_eq!(done.is_ok(), room, "has_room says what append does");
        let Ok(end) = done else {
            assert_eq!((self.tail.start(), self.tail.end()), before, "a refusal changes nothing");
            assert!(self.floor < self.end(), "with nothing to keep, any record fits");
            return;
        };
        self.stream.extend_from_slice(&record);
        self.boundaries.push(end);
        assert!(self.tail.start() <= self.floor.max(before.0), "nothing at or above the floor is forgotten");
    }

    fn cut(&self, from: usize, to: usize) {
        let inside: Vec<_> = self.boundaries.iter().filter(|at| **at >= self.tail.start()).copied().collect();
        let from = inside[from % inside.len()];
        let to_max = from.advance(to as u64 % (self.end().since(from) + 100));
        let expected = inside.iter().filter(|at| **at <= to_max).max().copied();
        assert_eq!(Some(self.tail.boundary_within(from, to_max)), expected);
    }

    fn check(&self) {
        let tail = &self.tail;
        assert_eq!(tail.end(), self.end());
        assert!(self.boundaries.contains(&tail.start()), "it begins with a whole record");
        let inside: Vec<_> = self.boundaries.iter().filter(|at| **at >= tail.start()).copied().collect();
        let index = |at: Position| at.since(self.base) as usize;
        for (from, to) in inside.iter().zip(inside.iter().skip(1)) {
            let record = tail.record_from(*from).expect("it is in memory");
            assert_eq!(record.bytes, &self.stream[index(*from)..index(*to)]);
            let (high, low) = tail.range(*from, tail.end()).expect("it is in memory");
            assert_eq!([high, low].concat(), &self.stream[index(*from)..]);
            let (high, low) = tail.range(tail.start(), *to).expect("it is in memory");
            assert_eq!([high, low].concat(), &self.stream[index(tail.start())..index(*to)]);
            for slice in [high, low].into_iter().filter(|slice| !slice.is_empty()) {
                let first = if slice.as_ptr() == high.as_ptr() {
                    tail.start()
                } else {
                    tail.start().advance(high.len() as u64)
                };
                assert!(Record::parse(first, slice).is_ok(), "each slice begins with a record");
            }
        }
        assert!(tail.record_from(tail.end()).is_none());
        assert!(tail.range(tail.start(), tail.end().advance(8)).is_none());
        assert!(tail.start().0 == 0 || tail.range(Position(tail.start().0 - 8), tail.end()).is_none());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn behaves_as_a_vector(steps in proptest::collection::vec(step(), 1..80)) {
        let mut model = Model::new();
        for step in steps {
            model.take(step);
            model.check();
        }
    }
}
