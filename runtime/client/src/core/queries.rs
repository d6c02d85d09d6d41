//! Questions that leave no record: a queue of their own beside the requests.
//!
//! A question changes nothing, so it is simply asked again on the next connection. Answers come in the order of the
//! questions of one connection.

use evershard_protocol::QueryNumber;
use evershard_protocol::RequestNumber;
use evershard_protocol::client::Query;
use evershard_protocol::frame::put_gathered;
use evershard_protocol::limits::PAYLOAD_SIZE_MAX;

use super::queue::Queue;
use crate::error::SendError;

/// Questions that may be unanswered. More: [`SendError::WindowFull`].
pub(super) const QUERIES_LEN_MAX: usize = 64;

/// The unanswered questions.
///
/// Invariant: `queue.first() <= cursor <= queue.next()`.
pub(super) struct Queries {
    queue: Queue,
    /// The next question to send on this connection.
    cursor: RequestNumber,
}

impl Queries {
    pub(super) fn new() -> Self {
        Self { queue: Queue::new(QUERIES_LEN_MAX, PAYLOAD_SIZE_MAX), cursor: RequestNumber(1) }
    }

    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    /// Whether an answer is owed on this connection.
    pub(super) fn is_awaiting(&self) -> bool {
        self.queue.first() < self.cursor
    }

    /// Whether there is something to send.
    pub(super) fn is_due(&self) -> bool {
        self.cursor < self.queue.next()
    }

    pub(super) fn push(&mut self, question: &[u8]) -> Result<QueryNumber, SendError> {
        self.queue.push(question).map(|number| QueryNumber(number.0))
    }

    /// A new connection: everything is asked again.
    pub(super) fn restart(&mut self) {
        self.cursor = self.queue.first();
    }

    /// Appends what is to be asked to `out`, as much as its capacity takes.
    pub(super) fn put(&mut self, out: &mut Vec<u8>) {
        while self.is_due() {
            let block = Query { query: self.cursor.0.into() };
            if put_gathered(out, &block, &self.queue.payload(self.cursor)).is_err() {
                return;
            }
            self.cursor = self.cursor.next();
        }
    }

    /// The answer to `number` has come. `None`: nobody asked that; `Some(false)`: it was answered before.
    pub(super) fn on_answer(&mut self, number: u64) -> Option<bool> {
        if number == 0 || number >= self.cursor.0 || number > self.queue.first().0 {
            return None;
        }
        let awaited = number == self.queue.first().0;
        if awaited {
            self.queue.pop();
        }
        Some(awaited)
    }
}
