//! `state-differs`: at every record every replica's service does what the model does: the same call, the same reply, the
//! same state afterwards. `executed-twice`: no replica's service sees a request twice in one life. `digests-differ`: the
//! digests that records ask for are the same on all replicas.

use std::collections::BTreeMap;

use evershard_node::core::Core;
use evershard_protocol::{Position, RequestNumber, SessionId};

use crate::oracle::Violation;
use crate::oracle::replay::Replay;
use crate::service::{KeyValue, Seen};

/// What the services of all replicas did.
pub struct Services {
    /// Of each replica in this life: the last request of each session its service saw.
    seen: Vec<BTreeMap<SessionId, RequestNumber>>,
    last: Vec<Position>,
    digests: BTreeMap<Position, (usize, u64)>,
}

impl Services {
    /// Nothing was seen.
    #[must_use]
    pub fn new(nodes: usize) -> Self {
        Self { seen: vec![BTreeMap::new(); nodes], last: vec![Position::ZERO; nodes], digests: BTreeMap::new() }
    }

    pub(super) fn on_start(&mut self, node: usize) {
        self.seen[node].clear();
        self.last[node] = Position::ZERO;
    }

    /// Holds what a service saw against the model.
    ///
    /// # Errors
    /// [`Violation`].
    pub fn check(&mut self, node: usize, seen: &[Seen], replay: &Replay) -> Result<(), Violation> {
        for call in seen {
            let Seen { position, session, request, .. } = *call;
            if session != SessionId(0) && request != RequestNumber(0) {
                let before = self.seen[node].insert(session, request);
                if before.is_some_and(|before| before >= request) {
                    let what = format!("n{node} executes {request:?} of {session} again at {position}");
                    return Violation::of("executed-twice", what);
                }
            }
            if position > replay.end() {
                // The bytes are damaged where they were first committed: compared by digests later.
                continue;
            }
            let Some(effect) = replay.effect(position) else {
                let what = format!("n{node} calls its service for the record at {position}, which has no effect");
                return Violation::of("state-differs", what);
            };
            if (effect.session, effect.request) != (session, request) || position <= self.last[node] {
                let what = format!("n{node} at {position}: {request:?} of {session} instead of {effect:?}");
                return Violation::of("state-differs", what);
            }
            if effect.reply_hash != call.reply || effect.digest != call.digest {
                let reply = if effect.reply_hash == call.reply { "the state" } else { "the reply" };
                let what = format!("n{node} at {position}, {request:?} of {session}: {reply} is not the model's");
                return Violation::of("state-differs", what);
            }
            self.last[node] = position;
        }
        Ok(())
    }

    /// Compares the last digest that a record asked for.
    pub(super) fn check_digest(&mut self, node: usize, core: &Core<KeyValue>) -> Result<(), Violation> {
        let Some((position, digest)) = core.replica().digest else { return Ok(()) };
        self.compare_digest(node, position, digest.0)
    }

    /// Compares a digest of everything replicated at a position.
    ///
    /// # Errors
    /// [`Violation`].
    pub fn compare_digest(&mut self, node: usize, position: Position, digest: u64) -> Result<(), Violation> {
        let (first, known) = *self.digests.entry(position).or_insert((node, digest));
        if known != digest {
            let what = format!("at {position}: {known:016x} on n{first}, {digest:016x} on n{node}");
            return Violation::of("digests-differ", what);
        }
        Ok(())
    }
}
