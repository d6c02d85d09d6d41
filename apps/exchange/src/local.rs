//! An exchange in this process, without a cluster.
//!
//! The same service on the same commands: what a run on a cluster must equal, and the floor its latency is
//! measured against.

use evershard_service::{Context, Effects, EventEntry, Occasion, Position, RequestNumber, Service, SessionId};
use evershard_service::{Digest, Timestamp};

use crate::service::{Exchange, ExchangeLimits};
use crate::wire::{Command, DecodeError, Reply};

/// One shard, one session.
#[derive(Debug)]
pub struct Local {
    exchange: Exchange,
    effects: Effects,
    command: Vec<u8>,
    requests: u64,
}

impl Default for Local {
    fn default() -> Self {
        Self::new(ExchangeLimits::default())
    }
}

impl Local {
    /// The session all commands belong to unless said otherwise.
    pub const SESSION: SessionId = SessionId(1);

    /// A fresh exchange.
    #[must_use]
    pub fn new(limits: ExchangeLimits) -> Self {
        Self { exchange: Exchange::new(limits), effects: Effects::default(), command: Vec::new(), requests: 0 }
    }

    /// Applies a command and reads the reply.
    ///
    /// # Errors
    /// [`DecodeError`] if the exchange's reply cannot be read: a bug.
    pub fn call(&mut self, command: &Command) -> Result<Reply<'_>, DecodeError> {
        self.command.clear();
        command.encode(&mut self.command);
        let bytes = std::mem::take(&mut self.command);
        self.apply(Self::SESSION, &bytes);
        self.command = bytes;
        Reply::decode(&self.effects.reply)
    }

    /// Applies the bytes of a command of some session; returns the bytes of the reply.
    pub fn apply(&mut self, session: SessionId, command: &[u8]) -> &[u8] {
        self.requests += 1;
        self.effects.clear();
        let occasion = Occasion {
            position: Position(self.requests * 64),
            now: Timestamp(self.requests),
            session,
            request: RequestNumber(self.requests),
        };
        self.exchange.apply(&mut Context::new(occasion, &mut self.effects), command);
        &self.effects.reply
    }

    /// The events of the latest command: for whom, and their bytes.
    pub fn events(&self) -> impl Iterator<Item = (SessionId, &[u8])> + '_ {
        self.effects.events.iter().map(|entry: &EventEntry| (entry.session, self.effects.event(entry)))
    }

    /// The digest of the exchange's state.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.exchange.digest()
    }
}
