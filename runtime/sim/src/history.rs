//! What clients asked and what they were told, with the times of both.

use evershard_protocol::client::ReplyStatus;
use evershard_protocol::{Position, RequestNumber, SessionId};

use crate::clock::Time;
use crate::service::{ABSENT, Command};
use crate::wgl::{Call, Register, RegisterOp};

/// One command of one client.
#[derive(Clone, Debug)]
pub struct Operation {
    /// Who asked.
    pub client: usize,
    /// Which shard.
    pub shard: usize,
    /// What.
    pub command: Command,
    /// When it was handed to the session.
    pub invoked: Time,
    /// The highest position that any client of the shard had been told by then.
    pub invoked_after: Position,
    /// Its number in its session.
    pub request: RequestNumber,
    /// The answer.
    pub reply: Option<Replied>,
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Replied {
    /// When.
    pub time: Time,
    /// The session, known by then.
    pub session: SessionId,
    /// What the server said about it.
    pub position: Position,
    /// How it ended.
    pub status: ReplyStatus,
    /// What the service said.
    pub payload: Vec<u8>,
}

/// The answer to a question.
#[derive(Clone, Copy, Debug)]
pub struct Answered {
    /// Who asked.
    pub client: usize,
    /// When it was told.
    pub time: Time,
    /// Which state the answer is from.
    pub position: Position,
    /// The value; `None` if there was no answer to that question.
    pub value: Option<u64>,
}

/// All operations of a run, in the order of their invocation.
#[derive(Clone, Default, Debug)]
pub struct History {
    /// An operator has given up what some clients were told.
    pub given_up: bool,
    /// The operations.
    pub operations: Vec<Operation>,
    /// Answers to questions that left no record.
    pub answers: Vec<Answered>,
}

impl History {
    /// The history of one key as that of a register, if it is one: nothing was lent, nobody scanned beyond it.
    #[must_use]
    pub fn register(&self, shard: usize, key: u8) -> Option<Vec<Call<RegisterOp>>> {
        let mut calls = Vec::new();
        for operation in self.operations.iter().filter(|operation| operation.shard == shard) {
            let word = |at: usize| {
                let reply = operation.reply.as_ref()?;
                let bytes = reply.payload.get(at * 8..at * 8 + 8)?;
                Some(u64::from_le_bytes(bytes.try_into().expect("eight bytes")))
            };
            let answered = operation.reply.as_ref().is_some_and(|reply| reply.status == ReplyStatus::Applied);
            let op = match operation.command {
                Command::Lend(lent, ..) if lent == key => return None,
                Command::Put(of, value) if of == key => RegisterOp::Swap(value, word(0)),
                Command::Get(of) if of == key => RegisterOp::Read(word(0)),
                Command::Cas(of, expected, new) if of == key => {
                    RegisterOp::Cas(expected, new, word(0).map(|done| done == 1))
                }
                Command::Add(of, delta) if of == key => RegisterOp::Add(delta, word(0)),
                _ => continue,
            };
            let returned = operation.reply.as_ref().filter(|_| answered).map(|reply| reply.time);
            calls.push(Call { op, invoked: operation.invoked, returned });
        }
        Some(calls)
    }
}

/// What a register of this service holds at first.
#[must_use]
pub fn empty_register() -> Register {
    Register(ABSENT)
}
