//! `stale-read`: an answer speaks of a state that has everything that was committed when its question was first asked.
//! `read-wrong`: it says what the model says of exactly that state.

use evershard_protocol::Position;
use evershard_protocol::client::QueryStatus;

use crate::client::Told;
use crate::oracle::Violation;
use crate::oracle::replay::Replay;

struct Waiting {
    key: u8,
    position: Position,
    payload: Vec<u8>,
}

/// What was answered to questions of a shard.
#[derive(Default)]
pub struct Reads {
    /// Answers from states that are not known to be committed yet.
    waiting: Vec<Waiting>,
    /// Answers.
    pub count: u64,
}

impl Reads {
    /// Answers that nobody could verify.
    #[must_use]
    pub fn unverified(&self) -> usize {
        self.waiting.len()
    }

    /// A client was told something.
    ///
    /// # Errors
    /// [`Violation`].
    pub fn on_told(&mut self, told: &Told, replay: &Replay) -> Result<(), Violation> {
        let Told::Answer { key, after, position, status, payload } = told else { return Ok(()) };
        match status {
            QueryStatus::Answered => {}
            // Asked again or not, as the client likes.
            QueryStatus::Busy => return Ok(()),
            QueryStatus::Unsupported | QueryStatus::Failed => {
                return Violation::of("read-wrong", format!("key {key} was asked for: {status:?}"));
            }
        }
        self.count += 1;
        if position < after {
            let what = format!("key {key} was read at {position}; when the question was asked, {after} was committed");
            return Violation::of("stale-read", what);
        }
        self.waiting.push(Waiting { key: *key, position: *position, payload: payload.clone() });
        self.settle(replay)
    }

    /// Holds answers against the committed log as far as it is known.
    ///
    /// # Errors
    /// [`Violation`].
    pub fn settle(&mut self, replay: &Replay) -> Result<(), Violation> {
        while let Some(at) = self.waiting.iter().position(|waiting| waiting.position <= replay.end()) {
            let Waiting { key, position, payload } = self.waiting.swap_remove(at);
            let expected = replay.answer_at(position, key);
            if payload != expected.map(u64::to_le_bytes).concat() {
                let what = format!("key {key} was read at {position}: told {payload:?}, expected {expected:?}");
                return Violation::of("read-wrong", what);
            }
        }
        Ok(())
    }
}
