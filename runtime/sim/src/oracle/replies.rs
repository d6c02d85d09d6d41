//! `reply-wrong`: a reply is what the committed record with that request brought about. `reply-lost`: its record is in
//! the committed log. `reply-changed`: told again, it is the same. `real-time`: an operation that began after another's
//! reply was there stands behind it in the log. `stale-read`: an answer without a record is from a state that has all that
//! anybody had been told when it was asked.

use std::collections::BTreeMap;

use evershard_protocol::client::ReplyStatus;
use evershard_protocol::{Position, RequestNumber, SessionId};

use crate::client::Told;
use crate::oracle::Violation;
use crate::oracle::replay::Replay;

struct Waiting {
    session: SessionId,
    request: RequestNumber,
    position: Position,
    payload: Vec<u8>,
}

/// What the clients of a shard were told.
#[derive(Default)]
pub struct Replies {
    /// The highest position of any reply.
    latest: Position,
    /// Replies whose records are not known to be committed yet.
    waiting: Vec<Waiting>,
    frames: BTreeMap<(SessionId, RequestNumber), (Position, u64)>,
    /// Replies.
    pub count: u64,
}

impl Replies {
    /// The highest position that any client was told.
    #[must_use]
    pub fn latest(&self) -> Position {
        self.latest
    }

    /// Replies that nobody could verify.
    #[must_use]
    pub fn unverified(&self) -> usize {
        self.waiting.len()
    }

    /// A client was told something; `invoked_after` is what [`Replies::latest`] was when it asked.
    ///
    /// # Errors
    /// [`Violation`].
    pub fn on_told(&mut self, told: &Told, invoked_after: Position, replay: &Replay) -> Result<(), Violation> {
        match told {
            Told::Reply { session, request, position, status, payload, .. } => {
                self.count += 1;
                if *status == ReplyStatus::ReplyForgotten {
                    return Ok(());
                }
                if *position <= invoked_after {
                    let what = format!(
                        "{request:?} of {session} is at {position}; when it was asked, {invoked_after} had been answered"
                    );
                    return Violation::of("real-time", what);
                }
                self.latest = self.latest.max(*position);
                self.waiting.push(Waiting {
                    session: *session,
                    request: *request,
                    position: *position,
                    payload: if *status == ReplyStatus::Applied { payload.clone() } else { Vec::new() },
                });
                self.settle(replay)
            }
            Told::Frame { session, request, position, status, payload } => {
                if *status == ReplyStatus::ReplyForgotten {
                    return Ok(());
                }
                let first = *self.frames.entry((*session, *request)).or_insert((*position, *payload));
                if first != (*position, *payload) {
                    let what = format!("{request:?} of {session}: first at {}, then at {position}", first.0);
                    return Violation::of("reply-changed", what);
                }
                Ok(())
            }
            Told::Answer { .. } | Told::Ended(_) | Told::Linked => Ok(()),
        }
    }

    /// Holds replies against the committed log as far as it is known.
    ///
    /// # Errors
    /// [`Violation`].
    pub fn settle(&mut self, replay: &Replay) -> Result<(), Violation> {
        while let Some(at) = self.waiting.iter().position(|waiting| waiting.position <= replay.end()) {
            let Waiting { session, request, position, payload } = self.waiting.swap_remove(at);
            let Some(effect) = replay.effect(position).filter(|effect| effect.session == session) else {
                let what = format!("{request:?} of {session} was answered at {position}; no such record is committed");
                return Violation::of("reply-lost", what);
            };
            if effect.request != request || effect.reply != payload {
                let what = format!("{request:?} of {session} at {position}: told {payload:?}, expected {effect:?}");
                return Violation::of("reply-wrong", what);
            }
        }
        Ok(())
    }
}
