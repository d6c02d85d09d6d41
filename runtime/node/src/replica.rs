//! The replicated state of one shard on this node: the service, its sessions, its timers. Changed by records, in order,
//! each once; the same on every replica at the same position.

use std::panic::{AssertUnwindSafe, catch_unwind};

use evershard_protocol::bugs::{self, Bug};
use evershard_protocol::client::ReplyStatus;
use evershard_protocol::record::{Kind, Record, SessionOpen};
use evershard_protocol::{Position, RecoveryNote, RequestNumber, SessionId, TimerId, Timestamp};
use evershard_service::{
    Context, Digest, Digester, Effects, Occasion, Service, SnapshotError, SnapshotReader, SnapshotWriter,
};
use zerocopy::{FromBytes, IntoBytes};

use crate::notice::HaltReason;
use crate::sessions::SessionTable;
use crate::timers::{Timer, TimerTable};

/// What applying one record brought about, for the leader's dealings with its clients.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Applied {
    /// Nothing that a client waits for.
    Quiet,
    /// A request has its reply. Events may be waiting in the effects.
    Replied(SessionId),
    /// A session was opened.
    Opened(SessionId),
    /// No further session can be opened.
    OpenRefused,
    /// A session was closed.
    Closed(SessionId, Option<crate::env::LinkId>),
    /// A timer fired or was found cancelled.
    Timer(Timer),
    /// An operator has recovered the shard from what a survivor held: see [`Replica::recovery`].
    Recovery,
}

/// A recovery by an operator: see [`crate::salvage`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Recovery {
    /// Where its audit record ends.
    pub position: Position,
    /// What that says.
    pub note: RecoveryNote,
    /// What the operator said.
    pub reason: String,
}

/// The payload of a [`Kind::TimerFired`] record.
#[derive(FromBytes, IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout, zerocopy::Unaligned, Clone, Copy)]
#[repr(C)]
struct TimerFired {
    timer: zerocopy::byteorder::little_endian::U64,
    deadline: zerocopy::byteorder::little_endian::U64,
}

/// Encodes the payload of a [`Kind::TimerFired`] record.
#[must_use]
pub fn timer_fired(timer: Timer) -> [u8; 16] {
    zerocopy::transmute!(TimerFired { timer: timer.id.0.into(), deadline: timer.deadline.0.into() })
}

/// The replicated state.
pub struct Replica<S> {
    service: S,
    /// What the last record brought about.
    pub effects: Effects,
    /// Everything up to here is applied.
    pub applied: Position,
    /// Record time of the last record: never goes back.
    pub time: Timestamp,
    /// The sessions.
    pub sessions: SessionTable,
    /// The service's timers.
    pub timers: TimerTable,
    /// The last digest that a record asked for.
    pub digest: Option<(Position, Digest)>,
    /// The last recovery by an operator that was applied in this life: it is told to people, nothing depends on it, and no
    /// snapshot has it.
    pub recovery: Option<Recovery>,
    /// Where and why nothing is applied any more.
    pub halted: Option<(Position, HaltReason)>,
}

impl<S: Service> Replica<S> {
    /// A fresh service before the first record.
    #[must_use]
    pub fn new(service: S) -> Self {
        Self {
            service,
            effects: Effects::default(),
            applied: Position::ZERO,
            time: Timestamp(0),
            sessions: SessionTable::new(),
            timers: TimerTable::default(),
            digest: None,
            recovery: None,
            halted: None,
        }
    }

    /// The service's name and version.
    #[must_use]
    pub fn describe(&self) -> (&'static str, u32) {
        (self.service.name(), self.service.version().0)
    }

    /// Asks the service; see [`Service::query`].
    pub fn query(&self, question: &[u8], answer: &mut Vec<u8>) -> bool {
        self.service.query(question, answer)
    }

    #[cfg(test)]
    pub(crate) fn service_mut(&mut self) -> &mut S {
        &mut self.service
    }

    /// Writes the service's own state; see [`Service::save`].
    ///
    /// # Errors
    /// Those of the service.
    pub(crate) fn save_service(&self, out: &mut dyn SnapshotWriter) -> Result<(), SnapshotError> {
        self.service.save(out)
    }

    /// Reads the service's own state; see [`Service::restore`].
    ///
    /// # Errors
    /// Those of the service.
    pub(crate) fn restore_service(&mut self, source: &mut dyn SnapshotReader) -> Result<(), SnapshotError> {
        self.service.restore(source)
    }

    /// Applies the record behind `applied`.
    ///
    /// # Errors
    /// The reason to stop applying; the position stays before the record.
    pub fn apply(&mut self, record: &Record<'_>) -> Result<Applied, HaltReason> {
        let header = &record.header;
        assert!(self.halted.is_none(), "a halted replica applies nothing");
        assert_eq!(
            self.applied.advance(record.bytes.len() as u64),
            header.position,
            "records are applied in order without gaps"
        );
        let kind = Kind::from_number(header.kind).ok_or(HaltReason::UnknownKind(header.kind))?;
        self.time = self.time.max(header.timestamp);
        self.effects.clear();
        let applied = match kind {
            Kind::Command => self.command(record)?,
            Kind::Refusal => self.refusal(record),
            Kind::SessionOpen => self.open_session(record)?,
            Kind::SessionClose => self.close_session(record)?,
            Kind::TimerFired => self.fire_timer(record)?,
            Kind::Digest => {
                self.digest = Some((header.position, self.compute_digest()));
                Applied::Quiet
            }
            // Who belongs to the shard is consensus's business, and took effect when the record was appended.
            Kind::TermStart | Kind::Membership => Applied::Quiet,
            Kind::Note => self.note(record),
            Kind::Feature | Kind::DeployPrepare | Kind::DeployActivate | Kind::DeployFinalize => {
                return Err(HaltReason::UnknownKind(header.kind));
            }
        };
        self.applied = header.position;
        Ok(applied)
    }

    fn note(&mut self, record: &Record<'_>) -> Applied {
        let Some((note, reason)) = RecoveryNote::decode(record.payload) else { return Applied::Quiet };
        self.recovery = Some(Recovery { position: record.header.position, note, reason: reason.to_owned() });
        Applied::Recovery
    }

    fn command(&mut self, record: &Record<'_>) -> Result<Applied, HaltReason> {
        let Some(first_unanswered) = self.turn_of(record) else { return Ok(Applied::Quiet) };
        self.call(record, record.header.session, |service, context| service.apply(context, record.payload))?;
        self.finish(record, first_unanswered, ReplyStatus::Applied);
        Ok(Applied::Replied(record.header.session))
    }

    fn refusal(&mut self, record: &Record<'_>) -> Applied {
        let Some(first_unanswered) = self.turn_of(record) else { return Applied::Quiet };
        let status = record.payload.first().and_then(|number| ReplyStatus::from_number(*number));
        self.finish(record, first_unanswered, status.unwrap_or(ReplyStatus::PayloadTooLarge));
        Applied::Replied(record.header.session)
    }

    /// Whether the record's request is still to be applied: its session is open and it was not applied before. Gives
    /// the client's first unanswered request.
    fn turn_of(&mut self, record: &Record<'_>) -> Option<RequestNumber> {
        let header = &record.header;
        let session = self.sessions.get(header.session)?;
        let first_unanswered = RequestNumber(header.request.0.saturating_sub(u64::from(header.answered)));
        let again = bugs::is_on(Bug::DuplicateReexecuted);
        (header.request > session.applied || again).then_some(first_unanswered)
    }

    fn finish(&mut self, record: &Record<'_>, first_unanswered: RequestNumber, status: ReplyStatus) {
        let header = &record.header;
        let session = self.sessions.get(header.session).expect("looked up before the service was called");
        session.on_applied(header.request, first_unanswered, header.position, status, &self.effects.reply);
    }

    fn open_session(&mut self, record: &Record<'_>) -> Result<Applied, HaltReason> {
        let position = record.header.position;
        let Ok(open) = SessionOpen::read_from_bytes(record.payload) else { return Ok(Applied::Quiet) };
        if !self.sessions.open(position, open.token.get(), open.protocol.get(), open.features.get()) {
            return Ok(Applied::OpenRefused);
        }
        let session = SessionId(position.0);
        self.call(record, session, |service, context| service.on_session_open(context))?;
        Ok(Applied::Opened(session))
    }

    fn close_session(&mut self, record: &Record<'_>) -> Result<Applied, HaltReason> {
        let id = record.header.session;
        let Some(session) = self.sessions.close(id) else { return Ok(Applied::Quiet) };
        self.call(record, id, |service, context| service.on_session_close(context))?;
        Ok(Applied::Closed(id, session.volatile.link))
    }

    fn fire_timer(&mut self, record: &Record<'_>) -> Result<Applied, HaltReason> {
        let Ok(fired) = TimerFired::read_from_bytes(record.payload) else { return Ok(Applied::Quiet) };
        let timer = Timer { deadline: Timestamp(fired.deadline.get()), id: TimerId(fired.timer.get()) };
        if self.timers.fire(timer) {
            self.call(record, SessionId(0), |service, context| service.on_timer(context, timer.id))?;
        }
        Ok(Applied::Timer(timer))
    }

    /// Calls the service for every timer that is due at `now`: only ever by [`Bug::TimerFiredLocally`].
    pub fn fire_locally(&mut self, now: Timestamp) {
        while let Some(timer) = self.timers.next_after(None).filter(|timer| timer.deadline <= now) {
            self.timers.fire(timer);
            self.effects.clear();
            let (position, session, request) = (self.applied, SessionId(0), RequestNumber(0));
            let mut context = Context::new(Occasion { position, now, session, request }, &mut self.effects);
            self.service.on_timer(&mut context, timer.id);
        }
    }

    fn call(
        &mut self,
        record: &Record<'_>,
        session: SessionId,
        call: impl FnOnce(&mut S, &mut Context<'_>),
    ) -> Result<(), HaltReason> {
        let header = &record.header;
        let occasion = Occasion { position: header.position, now: self.time, session, request: header.request };
        let mut context = Context::new(occasion, &mut self.effects);
        // After a panic the service is never called again (the replica is halted), so a broken invariant of its
        // state is not observed.
        catch_unwind(AssertUnwindSafe(|| call(&mut self.service, &mut context))).map_err(|_| HaltReason::Panic)?;
        self.effects.reply.truncate(evershard_protocol::limits::REPLY_SIZE_MAX);
        for at in 0..self.effects.timers.len() {
            self.timers.change(self.effects.timers[at]);
        }
        Ok(())
    }

    /// The digest of everything replicated: service, sessions, timers.
    #[must_use]
    pub fn compute_digest(&self) -> Digest {
        let mut digester = Digester::new();
        digester.add_u64(self.service.digest().0);
        digester.add_u64(self.time.0);
        for session in self.sessions.iter() {
            digester.add_u64(session.id.0);
            digester.add_u64(session.token);
            digester.add_u64(session.applied.0);
            digester.add_u64(session.replies.used() as u64);
        }
        for timer in self.timers.all() {
            digester.add_u64(timer.deadline.0);
            digester.add_u64(timer.id.0);
        }
        digester.finish()
    }
}
