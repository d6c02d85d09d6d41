//! The service that simulated clusters run: a small key-value store with everything a service may do, and a probe that
//! tells the oracles what the service saw.
//!
//! | command | does | reply |
//! |---|---|---|
//! | `Put(key, value)` | sets; an expiry that was set is cancelled | value before |
//! | `Get(key)` | | value |
//! | `Cas(key, expected, new)` | sets if equal | 1 or 0, value before |
//! | `Add(key, delta)` | adds, wrapping | value after |
//! | `Lend(key, value, ms)` | sets; the key is gone after so many milliseconds of record time | value before |
//! | `Scan` | | all keys and values, ascending |
//! | `Echo` | an event with the key to every session that was opened | the command itself |
//! | anything else | | `?` |
//!
//! A question is a key; the answer is its value and how many calls there have been.
//!
//! Layout of a command: code, key, two little-endian words, then filler that is ignored.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, BuildHasherDefault, Hasher};
use std::rc::Rc;

use evershard_protocol::bugs::{self, Bug};
use evershard_protocol::{Position, RequestNumber, SessionId, TimerId};
use evershard_service::{Context, Digest, Digester, Service, SnapshotError, SnapshotReader, SnapshotWriter};
use xxhash_rust::xxh3::xxh3_64;

use crate::random::mix;

/// Nobody was there: the word for an absent value.
pub const ABSENT: u64 = u64::MAX;
/// Bytes of a command without filler.
pub const COMMAND_SIZE: usize = 18;

/// A command, decoded.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Command {
    /// Sets.
    Put(u8, u64),
    /// Reads.
    Get(u8),
    /// Sets if equal.
    Cas(u8, u64, u64),
    /// Adds.
    Add(u8, u64),
    /// Sets for some milliseconds.
    Lend(u8, u64, u64),
    /// Reads everything.
    Scan,
    /// Comes back as it is.
    Echo(u8),
    /// Something no service knows.
    Unknown(u8),
}

impl Command {
    /// Encodes it, with filler up to `size`.
    #[must_use]
    pub fn encode(&self, size: usize) -> Vec<u8> {
        let (code, key, one, two) = match *self {
            Self::Put(key, value) => (1, key, value, 0),
            Self::Get(key) => (2, key, 0, 0),
            Self::Cas(key, expected, new) => (3, key, expected, new),
            Self::Add(key, delta) => (4, key, delta, 0),
            Self::Lend(key, value, ms) => (5, key, value, ms),
            Self::Scan => (6, 0, 0, 0),
            Self::Echo(key) => (7, key, 0, 0),
            Self::Unknown(code) => (code, 0, 0, 0),
        };
        let mut bytes = vec![code, key];
        bytes.extend_from_slice(&one.to_le_bytes());
        bytes.extend_from_slice(&two.to_le_bytes());
        bytes.resize(bytes.len().max(size), key ^ 0xA5);
        bytes
    }

    /// Decodes it; what makes no sense is unknown.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Self {
        let word = |at: usize| bytes.get(at..at + 8).and_then(|word| word.try_into().ok()).map(u64::from_le_bytes);
        let (Some([code, key]), Some(one), Some(two)) = (bytes.first_chunk::<2>(), word(2), word(10)) else {
            return Self::Unknown(0);
        };
        match code {
            1 => Self::Put(*key, one),
            2 => Self::Get(*key),
            3 => Self::Cas(*key, one, two),
            4 => Self::Add(*key, one),
            5 => Self::Lend(*key, one, two),
            6 => Self::Scan,
            7 => Self::Echo(*key),
            code => Self::Unknown(*code),
        }
    }
}

/// What a service saw: one call.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// The record.
    pub position: Position,
    /// Whose it is; 0 for a timer.
    pub session: SessionId,
    /// Its number; 0 for a timer.
    pub request: RequestNumber,
    /// Hash of the reply.
    pub reply: u64,
    /// Digest of the state afterwards.
    pub digest: u64,
}

/// What one replica's service saw since it was last asked.
pub type Probe = Rc<RefCell<Vec<Seen>>>;

/// Where the order of a map comes from when [`Bug::MapOrder`] is on: different on every replica, the same in every run.
#[derive(Clone, Copy, Default)]
struct Salted(u64);

impl Hasher for Salted {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.0 = mix(self.0 ^ u64::from(*byte)));
    }
}

#[derive(Clone)]
struct Salt(u64);

impl BuildHasher for Salt {
    type Hasher = Salted;

    fn build_hasher(&self) -> Salted {
        Salted(BuildHasherDefault::<Salted>::default().build_hasher().0 ^ self.0)
    }
}

/// The service.
pub struct KeyValue {
    values: BTreeMap<u8, u64>,
    sessions: Vec<SessionId>,
    calls: u64,
    /// Sum over all entries: changes with each, whatever their order.
    sum: u64,
    salt: u64,
    probe: Probe,
}

impl KeyValue {
    /// An empty store that tells `probe` what it sees. `salt` differs between replicas; it must have no effect.
    #[must_use]
    pub fn new(probe: Probe, salt: u64) -> Self {
        Self { values: BTreeMap::new(), sessions: Vec::new(), calls: 0, sum: 0, salt, probe }
    }

    fn set(&mut self, key: u8, value: u64) -> u64 {
        let before = self.values.insert(key, value);
        self.sum = self.sum.wrapping_add(weight(key, value));
        if let Some(before) = before {
            self.sum = self.sum.wrapping_sub(weight(key, before));
        }
        before.unwrap_or(ABSENT)
    }

    fn remove(&mut self, key: u8) {
        if let Some(before) = self.values.remove(&key) {
            self.sum = self.sum.wrapping_sub(weight(key, before));
        }
    }

    fn execute(&mut self, context: &mut Context<'_>, bytes: &[u8], reply: &mut Vec<u8>) {
        let mut say = |word: u64| reply.extend_from_slice(&word.to_le_bytes());
        match Command::decode(bytes) {
            Command::Put(key, value) => {
                let _ = context.cancel_timer(TimerId(u64::from(key)));
                say(self.set(key, value));
            }
            Command::Get(key) => say(self.values.get(&key).copied().unwrap_or(ABSENT)),
            Command::Cas(key, expected, new) => {
                let before = self.values.get(&key).copied().unwrap_or(ABSENT);
                say(u64::from(before == expected));
                say(before);
                if before == expected {
                    self.set(key, new);
                }
            }
            Command::Add(key, delta) => {
                let after = self.values.get(&key).copied().unwrap_or(0).wrapping_add(delta);
                self.set(key, after);
                say(after);
            }
            Command::Lend(key, value, ms) => {
                let deadline = context.now().after(ms.saturating_mul(1_000_000));
                let _ = context.set_timer(TimerId(u64::from(key)), deadline);
                say(self.set(key, value));
            }
            Command::Scan => self.scan(&mut say),
            Command::Echo(key) => {
                for session in &self.sessions {
                    let _ = context.emit(*session, &[key]);
                }
                reply.extend_from_slice(bytes);
            }
            Command::Unknown(_) => reply.push(b'?'),
        }
    }

    fn scan(&self, say: &mut impl FnMut(u64)) {
        if bugs::is_on(Bug::MapOrder) {
            let mut map = HashMap::with_hasher(Salt(self.salt));
            map.extend(self.values.iter().map(|(key, value)| (*key, *value)));
            return map.iter().for_each(|(key, value)| {
                say(u64::from(*key));
                say(*value);
            });
        }
        for (key, value) in &self.values {
            say(u64::from(*key));
            say(*value);
        }
    }

    fn tell(&self, context: &Context<'_>, reply: &[u8]) {
        self.probe.borrow_mut().push(Seen {
            position: context.position(),
            session: context.session(),
            request: context.request(),
            reply: xxh3_64(reply),
            digest: state_digest(self.sum, self.calls),
        });
    }
}

/// What an entry adds to the digest.
#[must_use]
pub fn weight(key: u8, value: u64) -> u64 {
    mix(value ^ (u64::from(key) + 1) << 56)
}

/// The digest of a state with this sum of weights after so many calls.
#[must_use]
pub fn state_digest(sum: u64, calls: u64) -> u64 {
    mix(sum ^ mix(calls))
}

impl Service for KeyValue {
    fn name(&self) -> &'static str {
        "key-value"
    }

    fn apply(&mut self, context: &mut Context<'_>, command: &[u8]) {
        let mut reply = Vec::new();
        self.calls += 1;
        self.execute(context, command, &mut reply);
        context.reply(&reply).expect("no command is larger than a reply, and a scan has 256 entries at most");
        self.tell(context, &reply);
    }

    fn query(&self, question: &[u8], answer: &mut Vec<u8>) -> bool {
        let Some(key) = question.first() else { return false };
        for word in [self.values.get(key).copied().unwrap_or(ABSENT), self.calls] {
            answer.extend_from_slice(&word.to_le_bytes());
        }
        true
    }

    fn on_session_open(&mut self, context: &mut Context<'_>) {
        self.sessions.push(context.session());
    }

    fn on_session_close(&mut self, context: &mut Context<'_>) {
        self.sessions.retain(|session| *session != context.session());
    }

    fn on_timer(&mut self, context: &mut Context<'_>, timer: TimerId) {
        self.calls += 1;
        self.remove(u8::try_from(timer.0).expect("timers are named after keys"));
        self.tell(context, &[]);
    }

    fn digest(&self) -> Digest {
        let mut digester = Digester::new();
        digester.add_u64(state_digest(self.sum, self.calls));
        self.sessions.iter().for_each(|session| digester.add_u64(session.0));
        digester.finish()
    }

    fn save(&self, out: &mut dyn SnapshotWriter) -> Result<(), SnapshotError> {
        out.write(&self.calls.to_le_bytes())?;
        out.write(&(self.sessions.len() as u64).to_le_bytes())?;
        for session in &self.sessions {
            out.write(&session.0.to_le_bytes())?;
        }
        for (key, value) in &self.values {
            out.write(&[1, *key])?;
            out.write(&value.to_le_bytes())?;
        }
        out.write(&[0])
    }

    fn restore(&mut self, source: &mut dyn SnapshotReader) -> Result<(), SnapshotError> {
        let word = |source: &mut dyn SnapshotReader| {
            let mut bytes = [0; 8];
            source.read_exact(&mut bytes).map(|()| u64::from_le_bytes(bytes))
        };
        self.calls = word(source)?;
        for _ in 0..word(source)? {
            self.sessions.push(SessionId(word(source)?));
        }
        loop {
            let mut more = [0];
            source.read_exact(&mut more)?;
            if more == [0] {
                return Ok(());
            }
            let mut key = [0];
            source.read_exact(&mut key)?;
            let value = word(source)?;
            self.set(key[0], value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use evershard_service::harness::Harness;

    #[test]
    fn commands_come_back_as_they_were_and_the_service_keeps_its_contract() {
        let commands = [
            Command::Put(1, 5),
            Command::Get(1),
            Command::Cas(1, 5, 6),
            Command::Add(2, 9),
            Command::Lend(3, 4, 2),
            Command::Scan,
            Command::Echo(1),
            Command::Unknown(99),
        ];
        let mut harness = Harness::new(|| KeyValue::new(Probe::default(), 1)).open(1);
        for command in commands {
            assert_eq!(Command::decode(&command.encode(40)), command);
            harness = harness.command(1, &command.encode(30));
        }
        let report = harness.advance(5_000_000).command(1, &Command::Get(3).encode(0)).run();
        assert_eq!(report.replies[1], 5_u64.to_le_bytes());
        assert_eq!(report.replies[8], ABSENT.to_le_bytes(), "it was lent for two milliseconds");
    }
}
