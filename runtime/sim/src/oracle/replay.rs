//! A second implementation of what the committed log means, record by record: sessions, requests, timers and the
//! key-value store, written apart from the ones under test. What clients are told is held against it; since the log is a
//! total order that respects real time (`real-time`), this is the linear-time check of linearizability.
//!
//! `log-malformed`: the log is whole records in order. `record-time`: their times do not go back. `executed-twice`: a
//! session's requests come one by one, and a record that repeats one has no effect.

use std::collections::{BTreeMap, BTreeSet};

use evershard_protocol::record::{Kind, Record};
use evershard_protocol::{
    ClusterId, Membership, NodeSet, Position, RecoveryNote, RequestNumber, SessionId, Term, Timestamp,
};
use xxhash_rust::xxh3::xxh3_64;

use crate::oracle::{Violation, memberships};
use crate::service::{ABSENT, Command, state_digest, weight};

/// What a record did.
#[derive(Clone, Debug)]
pub struct Effect {
    /// Whose it was; 0 for a timer.
    pub session: SessionId,
    /// Its number; 0 for a timer.
    pub request: RequestNumber,
    /// What the service says.
    pub reply: Vec<u8>,
    /// Hash of it.
    pub reply_hash: u64,
    /// Digest of the service's state afterwards.
    pub digest: u64,
    /// Calls of the service up to and with this one.
    pub calls: u64,
}

/// The meaning of a committed log.
pub struct Replay {
    end: usize,
    term: Term,
    time: Timestamp,
    /// What each term has committed.
    terms: BTreeMap<Term, Position>,
    /// Sessions that are open, with their last request.
    sessions: BTreeMap<SessionId, u64>,
    /// The configuration, and where its record ends; 0 if it is the first.
    membership: (Position, Membership),
    /// Recoveries by an operator that may be found in the log.
    recoveries: BTreeSet<ClusterId>,
    /// The record before was the audit record of one.
    recovered: bool,
    timers: BTreeMap<u64, Timestamp>,
    values: [Option<u64>; 256],
    /// What each key came to hold, and with which record.
    changes: BTreeMap<u8, Vec<(Position, Option<u64>)>>,
    /// The record that is gone through.
    position: Position,
    calls: u64,
    effects: BTreeMap<Position, Effect>,
    /// Where each request took effect.
    requests: BTreeMap<(SessionId, RequestNumber), Position>,
    /// Records that repeated a request and had no effect.
    pub repeated: u64,
}

impl Default for Replay {
    fn default() -> Self {
        Self {
            end: 0,
            term: Term(0),
            time: Timestamp(0),
            terms: BTreeMap::new(),
            sessions: BTreeMap::new(),
            membership: (Position::ZERO, Membership::default()),
            recoveries: BTreeSet::new(),
            recovered: false,
            timers: BTreeMap::new(),
            values: [None; 256],
            changes: BTreeMap::new(),
            position: Position::ZERO,
            calls: 0,
            effects: BTreeMap::new(),
            requests: BTreeMap::new(),
            repeated: 0,
        }
    }
}

impl Replay {
    /// Nothing is committed; these nodes decide.
    #[must_use]
    pub fn new(voters: NodeSet) -> Self {
        Self { membership: (Position::ZERO, Membership::of_voters(voters)), ..Self::default() }
    }

    /// The committed configuration, and where its record ends; 0 if it is the first.
    #[must_use]
    pub fn membership(&self) -> (Position, Membership) {
        self.membership
    }

    /// An operator makes a new cluster of what a survivor holds.
    pub fn announce_recovery(&mut self, new: ClusterId) {
        self.recoveries.insert(new);
    }

    /// Goes through what is new in the log.
    pub(super) fn run(&mut self, log: &[u8]) -> Result<(), Violation> {
        while self.end < log.len() {
            let start = Position(self.end as u64);
            let record = match Record::parse(start, &log[self.end..]) {
                Ok(record) => record,
                Err(error) => return Violation::of("log-malformed", format!("at {start}: {error}")),
            };
            self.take(&record)?;
            self.end += record.bytes.len();
        }
        // A leader commits up to a record of its own term, so this is what that term has committed.
        self.terms.insert(self.term, self.end());
        Ok(())
    }

    /// What the record that ends at `position` did, if it did anything.
    #[must_use]
    pub fn effect(&self, position: Position) -> Option<&Effect> {
        self.effects.get(&position)
    }

    /// The digest of the service's state at a position.
    #[must_use]
    pub fn digest_at(&self, position: Position) -> Option<u64> {
        let effect = self.effects.range(..=position).next_back();
        Some(effect.map_or(state_digest(0, 0), |(_, effect)| effect.digest))
    }

    /// Where a request took effect.
    #[must_use]
    pub fn position_of(&self, session: SessionId, request: RequestNumber) -> Option<Position> {
        self.requests.get(&(session, request)).copied()
    }

    /// What a question is to be answered from the state at `position`: the key's value, and the calls so far.
    #[must_use]
    pub fn answer_at(&self, position: Position, key: u8) -> [u64; 2] {
        let changes = self.changes.get(&key).map_or(&[][..], Vec::as_slice);
        let behind = changes.partition_point(|(at, _)| *at <= position);
        let value = behind.checked_sub(1).and_then(|last| changes[last].1);
        let calls = self.effects.range(..=position).next_back().map_or(0, |(_, effect)| effect.calls);
        [value.unwrap_or(ABSENT), calls]
    }

    /// Where the log ends, as far as it was gone through.
    #[must_use]
    pub fn end(&self) -> Position {
        Position(self.end as u64)
    }

    /// What was committed in terms before this one. What later terms committed a leader need not have: the vote that elects
    /// it may reach it long after it was given, when another leads already.
    #[must_use]
    pub fn committed_before(&self, term: Term) -> Position {
        self.terms.range(..term).next_back().map_or(Position::ZERO, |(_, end)| *end)
    }

    /// Commands that took effect.
    #[must_use]
    pub fn commands(&self) -> usize {
        self.requests.len()
    }

    fn take(&mut self, record: &Record<'_>) -> Result<(), Violation> {
        let header = &record.header;
        let position = header.position;
        if header.term < self.term {
            return Violation::of("log-malformed", format!("{:?} behind {:?} at {position}", header.term, self.term));
        }
        if header.timestamp < self.time {
            let back = self.time.0 - header.timestamp.0;
            return Violation::of("record-time", format!("the record at {position} is {back} ns before one before it"));
        }
        self.term = header.term;
        self.time = header.timestamp;
        self.position = position;
        match Kind::from_number(header.kind) {
            Some(Kind::Command | Kind::Refusal) => self.request(record),
            Some(Kind::SessionOpen) => {
                self.sessions.insert(SessionId(position.0), 0);
                Ok(())
            }
            Some(Kind::SessionClose) => {
                self.sessions.remove(&header.session);
                Ok(())
            }
            Some(Kind::TimerFired) => {
                self.fire(record);
                Ok(())
            }
            Some(Kind::Membership) => {
                let Some(next) = Membership::decode(record.payload, |_, _| {}) else {
                    return Violation::of("log-malformed", format!("no configuration at {position}"));
                };
                if !std::mem::take(&mut self.recovered) || next.everybody().len() != 1 {
                    memberships::check_step(self.membership, next)?;
                }
                self.membership = (position, next);
                Ok(())
            }
            Some(Kind::Note) => self.recover(record),
            Some(Kind::TermStart | Kind::Digest) => Ok(()),
            other => Violation::of("log-malformed", format!("a record of kind {other:?} at {position}")),
        }
    }

    /// An operator's audit record: the configuration behind it takes no legal step. There is none but what was announced.
    fn recover(&mut self, record: &Record<'_>) -> Result<(), Violation> {
        let known =
            RecoveryNote::decode(record.payload).filter(|(note, _)| self.recoveries.contains(&note.new_cluster));
        self.recovered = known.is_some();
        match known {
            Some(_) => Ok(()),
            None => Violation::of("log-malformed", format!("a note that nobody wrote at {}", record.header.position)),
        }
    }

    fn request(&mut self, record: &Record<'_>) -> Result<(), Violation> {
        let header = &record.header;
        let Some(last) = self.sessions.get_mut(&header.session) else { return Ok(()) };
        if header.request.0 <= *last {
            self.repeated += 1;
            return Ok(());
        }
        if header.request.0 != *last + 1 {
            let what = format!("{} of {} follows request {last}", header.request, header.session);
            return Violation::of("executed-twice", what);
        }
        *last = header.request.0;
        self.requests.insert((header.session, header.request), header.position);
        let reply = if header.kind == Kind::Command as u16 {
            self.calls += 1;
            self.execute(record.payload)
        } else {
            Vec::new()
        };
        self.note(record, header.session, header.request, reply);
        Ok(())
    }

    fn fire(&mut self, record: &Record<'_>) {
        let word = |at: usize| record.payload[at..at + 8].try_into().map(u64::from_le_bytes);
        let (Ok(timer), Ok(deadline)) = (word(0), word(8)) else { return };
        if self.timers.get(&timer) == Some(&Timestamp(deadline)) {
            self.timers.remove(&timer);
            self.set(key(timer), None);
            self.calls += 1;
            self.note(record, SessionId(0), RequestNumber(0), Vec::new());
        }
    }

    fn note(&mut self, record: &Record<'_>, session: SessionId, request: RequestNumber, reply: Vec<u8>) {
        let held = self.values.iter().enumerate();
        let sum = held
            .fold(0_u64, |sum, (at, value)| value.map_or(sum, |value| sum.wrapping_add(weight(key(at as u64), value))));
        let effect = Effect {
            session,
            request,
            reply_hash: xxh3_64(&reply),
            reply,
            digest: state_digest(sum, self.calls),
            calls: self.calls,
        };
        self.effects.insert(record.header.position, effect);
    }

    fn set(&mut self, key: u8, value: Option<u64>) -> Option<u64> {
        self.changes.entry(key).or_default().push((self.position, value));
        std::mem::replace(&mut self.values[usize::from(key)], value)
    }

    fn execute(&mut self, bytes: &[u8]) -> Vec<u8> {
        let words = |words: &[u64]| words.iter().flat_map(|word| word.to_le_bytes()).collect();
        let held = |of: u8, this: &Self| this.values[usize::from(of)];
        match Command::decode(bytes) {
            Command::Put(of, value) => {
                self.timers.remove(&u64::from(of));
                words(&[self.set(of, Some(value)).unwrap_or(ABSENT)])
            }
            Command::Get(of) => words(&[held(of, self).unwrap_or(ABSENT)]),
            Command::Cas(of, expected, new) => {
                let before = held(of, self).unwrap_or(ABSENT);
                if before == expected {
                    self.set(of, Some(new));
                }
                words(&[u64::from(before == expected), before])
            }
            Command::Add(of, delta) => {
                let sum = held(of, self).unwrap_or(0).wrapping_add(delta);
                self.set(of, Some(sum));
                words(&[sum])
            }
            Command::Lend(of, value, ms) => {
                self.timers.insert(u64::from(of), Timestamp(self.time.0 + ms * 1_000_000));
                words(&[self.set(of, Some(value)).unwrap_or(ABSENT)])
            }
            Command::Scan => {
                let all = self.values.iter().enumerate();
                let pairs: Vec<u64> =
                    all.filter_map(|(at, value)| value.map(|value| [at as u64, value])).flatten().collect();
                words(&pairs)
            }
            Command::Echo(_) => bytes.to_vec(),
            Command::Unknown(_) => b"?".to_vec(),
        }
    }
}

fn key(number: u64) -> u8 {
    u8::try_from(number).expect("keys and timers are bytes")
}
