//! The rounds that went out to one peer and were not answered yet.

use std::hash::{Hash, Hasher};

use evershard_protocol::Instant;

/// Rounds under way to one peer. More: reads wait for an answer before they ask again; of heartbeats the oldest is
/// forgotten, and its answer confirms nothing.
pub(crate) const ROUNDS_LEN_MAX: usize = 16;

/// A round that was sent: when, and which reads had begun by then.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Round {
    pub(crate) number: u64,
    pub(crate) sent_at: Instant,
    pub(crate) read: u64,
}

/// The rounds, oldest first, in a ring of fixed size.
///
/// Invariant: numbers ascend; `len <= ROUNDS_LEN_MAX`.
#[derive(Clone, Default, Debug)]
pub(crate) struct Rounds {
    ring: [Round; ROUNDS_LEN_MAX],
    oldest: usize,
    len: usize,
}

impl Rounds {
    pub(crate) fn is_full(&self) -> bool {
        self.len == ROUNDS_LEN_MAX
    }

    pub(crate) fn clear(&mut self) {
        self.len = 0;
    }

    /// Notes a round; forgets the oldest if there are too many.
    pub(crate) fn push(&mut self, round: Round) {
        if self.is_full() {
            self.pop();
        }
        self.ring[(self.oldest + self.len) % ROUNDS_LEN_MAX] = round;
        self.len += 1;
    }

    /// The round with this number was answered, and those before it will not be; gives it back if it is known.
    pub(crate) fn answer(&mut self, number: u64) -> Option<Round> {
        let mut answered = None;
        while self.len > 0 && self.ring[self.oldest].number <= number {
            answered = Some(self.pop()).filter(|round| round.number == number);
        }
        answered
    }

    /// The rounds without their instants; see [`crate::Raft::hash_state`].
    pub(crate) fn hash_state(&self, hasher: &mut impl Hasher) {
        for at in self.oldest..self.oldest + self.len {
            let round = &self.ring[at % ROUNDS_LEN_MAX];
            (round.number, round.read).hash(hasher);
        }
    }

    fn pop(&mut self) -> Round {
        assert!(self.len > 0, "only what is there is taken");
        let round = self.ring[self.oldest];
        self.oldest = (self.oldest + 1) % ROUNDS_LEN_MAX;
        self.len -= 1;
        round
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_find_their_round_and_settle_those_before() {
        let mut rounds = Rounds::default();
        for number in 1..=ROUNDS_LEN_MAX as u64 + 3 {
            rounds.push(Round { number, sent_at: Instant(number * 10), read: number });
        }
        assert!(rounds.is_full());
        assert!(rounds.answer(3).is_none(), "forgotten");
        assert_eq!(rounds.answer(6).map(|round| round.sent_at), Some(Instant(60)));
        assert!(rounds.answer(5).is_none(), "settled with the later one");
        assert!(rounds.answer(1000).is_none(), "never sent");
        assert!(!rounds.is_full());
    }
}
