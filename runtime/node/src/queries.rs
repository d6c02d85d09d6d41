//! Questions to the service that leave no record: answered by the leader, from a state that has everything that was
//! committed when the question came in.
//!
//! All questions of one turn make one read of consensus ([`evershard_consensus::Raft::begin_read`]): a quorum is asked
//! once for all of them, or nobody under a lease. They wait, in their order, until the read is confirmed and applied.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};

use evershard_consensus::Read;
use evershard_protocol::client::{QueryReply, QueryStatus};
use evershard_protocol::frame;
use evershard_protocol::limits::{QUERIES_LEN_MAX, QUERIES_SIZE_MAX, REPLY_SIZE_MAX};
use evershard_service::Service;

use crate::core::Core;
use crate::env::LinkId;

/// One question that waits.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    link: LinkId,
    number: u64,
    size: usize,
    /// None until consensus has begun one.
    read: Option<Read>,
}

/// The questions that wait, oldest first, with their bytes in the same order.
pub struct Queries {
    waiting: VecDeque<Waiting>,
    /// How many have a read, at the front.
    begun: usize,
    bytes: VecDeque<u8>,
    question: Vec<u8>,
    answer: Vec<u8>,
}

impl Default for Queries {
    fn default() -> Self {
        Self {
            waiting: VecDeque::with_capacity(QUERIES_LEN_MAX),
            begun: 0,
            bytes: VecDeque::with_capacity(QUERIES_SIZE_MAX),
            question: Vec::with_capacity(QUERIES_SIZE_MAX),
            answer: Vec::with_capacity(REPLY_SIZE_MAX),
        }
    }
}

impl Queries {
    /// Whether any question waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// The links of all that wait; nobody waits any more.
    pub fn dismiss(&mut self) -> impl Iterator<Item = LinkId> + use<> {
        let links: Vec<LinkId> = self.waiting.drain(..).map(|waiting| waiting.link).collect();
        self.begun = 0;
        self.bytes.clear();
        links.into_iter()
    }

    fn push(&mut self, link: LinkId, number: u64, question: &[u8]) -> bool {
        let full = self.waiting.len() == QUERIES_LEN_MAX || self.bytes.len() + question.len() > QUERIES_SIZE_MAX;
        if !full {
            self.waiting.push_back(Waiting { link, number, size: question.len(), read: None });
            self.bytes.extend(question);
        }
        !full
    }

    /// Takes the oldest off, its bytes into `question`.
    fn pop(&mut self) -> Option<Waiting> {
        let oldest = self.waiting.pop_front()?;
        self.begun -= 1;
        self.question.clear();
        self.question.extend(self.bytes.drain(..oldest.size));
        Some(oldest)
    }
}

impl<S: Service> Core<S> {
    /// A question came in.
    pub(crate) fn on_query(&mut self, link: LinkId, number: u64, question: &[u8]) {
        if !self.takes_commands() {
            return self.redirect(link);
        }
        if !self.queries.push(link, number, question) {
            self.answer(link, number, QueryStatus::Busy);
        }
    }

    /// The questions of this turn become one read, by a clock that was read after they came in: a lease that held before
    /// may be over.
    pub(crate) fn begin_reads(&mut self) {
        if self.queries.begun == self.queries.waiting.len() {
            return;
        }
        // A leader that has not committed a record of its own term yet is asked again next turn.
        let Some(read) = self.raft.begin_read(self.now.instant) else { return };
        let Queries { waiting, begun, .. } = &mut self.queries;
        for waiting in waiting.range_mut(*begun..) {
            waiting.read = Some(read);
        }
        *begun = waiting.len();
    }

    /// Answers what can be answered.
    #[inline]
    pub(crate) fn answer_queries(&mut self) {
        if !self.queries.is_empty() {
            self.answer_waiting();
        }
    }

    fn answer_waiting(&mut self) {
        while let Some(read) = self.queries.waiting.front().and_then(|oldest| oldest.read) {
            let applied = self.replica.applied >= read.position && self.replica.halted.is_none();
            if !applied || !self.raft.is_confirmed(&read) {
                break;
            }
            let Some(oldest) = self.queries.pop() else { break };
            let Queries { question, answer, .. } = &mut self.queries;
            answer.clear();
            let replica = &self.replica;
            // A question cannot change the state, so a panic harms nobody but the one who asked.
            let outcome = catch_unwind(AssertUnwindSafe(|| replica.query(question, answer)));
            let status = match outcome {
                Ok(true) if answer.len() <= REPLY_SIZE_MAX => QueryStatus::Answered,
                Ok(true) | Err(_) => QueryStatus::Failed,
                Ok(false) => QueryStatus::Unsupported,
            };
            self.answer(oldest.link, oldest.number, status);
        }
    }

    fn answer(&mut self, id: LinkId, number: u64, status: QueryStatus) {
        let position = self.replica.applied.0;
        let Some(link) = self.links.get_dirty(id) else { return };
        let block =
            QueryReply { query: number.into(), position: position.into(), status: status as u8, padding: [0; 7] };
        let payload: &[u8] = if status == QueryStatus::Answered { &self.queries.answer } else { &[] };
        if frame::put(&mut link.out, &block, payload).is_err() {
            self.counters.clients_slow += 1;
            self.links.close_after_flush(id);
        }
    }
}
