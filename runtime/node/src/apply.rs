//! Applying what is committed, and handing the outcome to the clients of a leader.

use evershard_log::Tail;
use evershard_protocol::client::{self, Promise, ReplyStatus};
use evershard_protocol::frame;
use evershard_protocol::record::Record;
use evershard_protocol::{Position, RequestNumber, SessionId};
use evershard_service::Service;

use crate::core::Core;
use crate::env::{Chunk, Env, ReadFailure, ReadPurpose, ReadRequest};
use crate::notice::{HaltReason, Notice};
use crate::repair::READS_MAX;
use crate::replica::{Applied, Recovery};

/// Bytes of log applied in one turn at most: a replica that catches up still answers its peers in between.
const APPLY_SIZE_PER_TURN: u64 = 256 * 1024;

/// Committed records that are no longer in memory, read back from disk.
#[derive(Default)]
pub struct Replay {
    chunk: Option<Chunk>,
    /// What comes behind it, read while it is applied.
    next: Option<Chunk>,
    /// The question that is under way.
    asked: Option<u64>,
    tickets: u64,
    /// Reads in a row that failed.
    faults: u8,
}

impl Replay {
    /// The log has begun anew: what was read of it, or will come, is of no use.
    pub fn forget(&mut self) {
        *self = Self { tickets: self.tickets, ..Self::default() };
    }

    /// Whether an answer from the background is awaited.
    #[must_use]
    pub fn awaits_background(&self) -> bool {
        self.asked.is_some()
    }
}

/// The record behind `applied`, from memory or from what was read back.
fn next_record<'a>(
    tail: &'a Tail,
    chunk: Option<&'a Chunk>,
    applied: Position,
) -> Result<Option<Record<'a>>, HaltReason> {
    if applied >= tail.start() {
        return Ok(tail.record_from(applied));
    }
    let Some(chunk) = chunk.filter(|chunk| chunk.first <= applied && applied < chunk.end()) else { return Ok(None) };
    let offset = usize::try_from(applied.since(chunk.first)).expect("inside the chunk");
    Record::parse(applied, &chunk.bytes[offset..]).map(Some).map_err(|_| HaltReason::Faulty)
}

impl<S: Service> Core<S> {
    /// Applies what is committed, as far as one turn may. True if there is more to apply at once.
    pub(crate) fn apply(&mut self, env: &mut impl Env) -> bool {
        let end = self.replica.applied.advance(APPLY_SIZE_PER_TURN);
        while self.replica.applied < self.raft.commit() && self.replica.halted.is_none() {
            if self.replica.applied >= end {
                return true;
            }
            let outcome = match next_record(&self.tail, self.replay.chunk.as_ref(), self.replica.applied) {
                Ok(Some(record)) => self.replica.apply(&record),
                Ok(None) => {
                    let Some(next) = self.replay.next.take() else {
                        self.ask_for_replay(self.replica.applied, env);
                        return false;
                    };
                    let end = next.end();
                    self.replay.chunk = Some(next);
                    self.ask_for_replay(end, env);
                    continue;
                }
                Err(reason) => Err(reason),
            };
            match outcome {
                Ok(applied) => {
                    self.counters.records_applied += 1;
                    if applied == Applied::Recovery {
                        self.tell_recovery();
                    }
                    if self.leading.is_some() && applied != Applied::Quiet {
                        self.on_applied(applied);
                    }
                }
                Err(reason) => {
                    let position = self.replica.applied;
                    self.replica.halted = Some((position, reason));
                    self.notice(Notice::Halted(position, reason));
                }
            }
        }
        if self.replica.applied >= self.tail.start() {
            self.replay.chunk = None;
            self.replay.next = None;
        }
        false
    }

    /// Every replica says so, at every replay: whoever looks shall know that this is not the cluster that it once was.
    fn tell_recovery(&mut self) {
        if let Some(Recovery { position, note, .. }) = &self.replica.recovery {
            self.notice(Notice::RecoveredByOperator(*position, note.old_cluster, note.survivor, note.kept));
        }
    }

    fn ask_for_replay(&mut self, from: Position, env: &mut impl Env) {
        if self.replay.asked.is_some() || from >= self.tail.start() {
            return;
        }
        let Some(location) = self.disk.locate(from) else { return };
        self.replay.tickets += 1;
        let request = ReadRequest { purpose: ReadPurpose::Apply, location, from, ticket: self.replay.tickets };
        if env.read_log(request) {
            self.replay.asked = Some(request.ticket);
        }
    }

    pub(crate) fn on_read(&mut self, request: &ReadRequest, chunk: Result<Chunk, ReadFailure>) {
        match &chunk {
            Err(ReadFailure::Disk(errno)) => self.notice(Notice::ReadFailed(*errno)),
            Err(ReadFailure::Faulty | ReadFailure::Hole(_)) => self.notice(Notice::Faulty(request.from)),
            Ok(_) => {}
        }
        match request.purpose {
            ReadPurpose::Peer(node) => self.on_peer_read(node, request, chunk),
            ReadPurpose::Repair(node) => self.on_repair_read(node, request, chunk),
            ReadPurpose::Apply if self.replay.asked == Some(request.ticket) => {
                self.replay.asked = None;
                self.on_replay_read(request.from, chunk);
            }
            ReadPurpose::Apply => {}
        }
    }

    /// What does not read back is read again before anything is concluded. Then applying waits for a repair, or ends where
    /// nobody can know what was there.
    fn on_replay_read(&mut self, from: Position, chunk: Result<Chunk, ReadFailure>) {
        self.replay.next = None;
        let failure = match chunk {
            Ok(chunk) => {
                self.replay.faults = 0;
                self.replay.next = Some(chunk).filter(|chunk| !chunk.bytes.is_empty());
                return;
            }
            Err(ReadFailure::Disk(_)) => return,
            Err(failure) => failure,
        };
        self.replay.faults += 1;
        if self.replay.faults < READS_MAX {
            return;
        }
        self.replay.faults = 0;
        if let ReadFailure::Hole(hole) = failure {
            self.note_hole(&hole);
        } else if from == self.replica.applied && self.replica.halted.is_none() {
            self.replica.halted = Some((from, HaltReason::Faulty));
            self.notice(Notice::Halted(from, HaltReason::Faulty));
        }
    }

    /// A leader's dealings with its clients after a record was applied.
    fn on_applied(&mut self, applied: Applied) {
        match applied {
            Applied::Replied(session) => {
                self.emit_events();
                self.touch(session);
            }
            Applied::Opened(session) => {
                self.emit_events();
                self.on_session_opened(session);
            }
            Applied::OpenRefused => self.on_open_refused(self.replica.applied),
            Applied::Closed(_, link) => {
                self.emit_events();
                if let Some(link) = link {
                    self.links.close_after_flush(link);
                }
            }
            Applied::Timer(_) => self.emit_events(),
            Applied::Quiet | Applied::Recovery => {}
        }
    }

    fn emit_events(&mut self) {
        for at in 0..self.replica.effects.events.len() {
            let entry = self.replica.effects.events[at];
            let Some(session) = self.replica.sessions.get(entry.session) else { continue };
            let Some(id) = session.volatile.link else { continue };
            let Some(link) = self.links.get_dirty(id) else { continue };
            let event = client::Event {
                position: self.replica.applied.0.into(),
                index: u32::try_from(at).expect("bounded by EVENTS_PER_RECORD_MAX").into(),
                padding: 0.into(),
            };
            if frame::put(&mut link.out, &event, self.replica.effects.event(&entry)).is_err() {
                self.counters.clients_slow += 1;
                self.refuse(
                    id,
                    client::RefusedCode::Slow,
                    "this client reads its events too slowly; reconnect to go on",
                );
            }
        }
    }

    /// Hands replies to the links, as far as there is room.
    pub(crate) fn deliver(&mut self) {
        let promise = self.promise();
        for at in 0..self.touched.len() {
            let Some(session) = self.replica.sessions.get(self.touched[at]) else { continue };
            let Some(id) = session.volatile.link else { continue };
            let Some(link) = self.links.get_dirty(id) else { continue };
            while session.volatile.delivered < session.applied && !link.is_closing() {
                let request = session.volatile.delivered.next();
                if put_reply(&mut link.out, session, request, promise).is_err() {
                    break;
                }
                session.volatile.delivered = request;
            }
        }
        self.touched.clear();
    }

    /// What acknowledgements of this shard are worth.
    pub(crate) fn promise(&self) -> Promise {
        match self.config.durability {
            evershard_consensus::Durability::Durable => Promise::Durable,
            evershard_consensus::Durability::Replicated => Promise::Replicated,
        }
    }

    /// The session's open record was applied on the leader.
    fn on_session_opened(&mut self, session: SessionId) {
        if let Some(link) = self.opens.take(Position(session.0)) {
            self.welcome(link, session, RequestNumber(1));
        }
    }
}

/// Writes the remembered reply to `request`, or that it is forgotten.
pub(crate) fn put_reply(
    out: &mut Vec<u8>,
    session: &crate::sessions::Session,
    request: RequestNumber,
    promise: Promise,
) -> Result<(), frame::Full> {
    let reply = session.replies.get(request);
    let block = client::Reply {
        request: request.0.into(),
        position: reply.map_or(0, |reply| reply.position.0).into(),
        status: reply.map_or(ReplyStatus::ReplyForgotten, |reply| reply.status) as u8,
        promise: promise as u8,
        padding: [0; 6],
    };
    frame::put(out, &block, reply.map_or(&[], |reply| reply.payload))
}
