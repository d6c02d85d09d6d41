//! Dealings with clients: the handshake, requests into the log, and what operators ask.

use evershard_consensus::Role as RaftRole;
use evershard_protocol::bugs::{self, Bug};
use evershard_protocol::client::{
    Admin, AdminAction, AdminReply, Busy, BusyReason, Close, Hello, NOBODY, PROTOCOL_MAX, PROTOCOL_MIN, Ping, Pong,
    Query, Redirect, Refused, RefusedCode, ReplyStatus, Request, StatusReply, StatusRequest, Welcome,
};
use evershard_protocol::frame::{self, Frame, FrameError};
use evershard_protocol::limits::{PAYLOAD_SIZE_MAX, REPLY_RING_SIZE, SESSIONS_MAX, WINDOW_LEN_MAX};
use evershard_protocol::record::{Draft, Kind, SessionOpen};
use evershard_protocol::time::SECOND_NS;
use evershard_protocol::{NodeId, Position, RequestNumber, SessionId};
use evershard_service::Service;
use zerocopy::IntoBytes;

use crate::core::Core;
use crate::env::LinkId;
use crate::links::Role;
use crate::membership::MemberAction;
use crate::replica::timer_fired;
use crate::sessions::Admission;

/// Remembered replies beyond this many bytes make a session wait until its client has taken some in.
const REPLIES_SIZE_BUSY: usize = REPLY_RING_SIZE / 4 * 3;
/// Sessions are looked through for idle ones this often.
const SCAN_NS: u64 = SECOND_NS;

/// Clients whose session is being opened: where the record stands, and their link.
#[derive(Default)]
pub struct PendingOpens(Vec<(Position, LinkId)>);

impl PendingOpens {
    /// Nobody waits.
    #[must_use]
    pub fn new() -> Self {
        Self(Vec::with_capacity(SESSIONS_MAX))
    }

    /// The link that waits for the record at `position`.
    pub fn take(&mut self, position: Position) -> Option<LinkId> {
        let at = self.0.iter().position(|(waiting, _)| *waiting == position)?;
        Some(self.0.swap_remove(at).1)
    }
}

impl<S: Service> Core<S> {
    pub(crate) fn on_client_frame(&mut self, id: LinkId, frame: &Frame<'_>) -> Result<(), FrameError> {
        if frame.is::<Request>() {
            return self.on_request(id, frame);
        }
        if frame.is::<Ping>() {
            let (ping, _) = frame.read::<Ping>()?;
            self.put(id, &Pong { token: ping.token }, &[]);
            return Ok(());
        }
        if frame.is::<Query>() {
            let (query, question) = frame.read::<Query>()?;
            self.on_query(id, query.query.get(), question);
            return Ok(());
        }
        if frame.is::<Hello>() {
            let (hello, _) = frame.read::<Hello>()?;
            if self.links.get(id).is_some_and(|link| link.role != Role::Unknown) {
                return Err(FrameError::Field("second hello"));
            }
            self.on_hello(id, &hello);
            return Ok(());
        }
        if frame.is::<StatusRequest>() {
            frame.read::<StatusRequest>()?;
            let text = self.status_json();
            let reply = StatusReply {
                node: self.identity.node.0,
                padding: 0,
                shard: self.identity.shard.0.into(),
                reserved: 0.into(),
            };
            self.put(id, &reply, text.as_bytes());
            return Ok(());
        }
        if frame.is::<Admin>() {
            let (admin, argument) = frame.read::<Admin>()?;
            self.on_admin(id, &admin, argument);
            return Ok(());
        }
        frame.read::<Close>()?;
        self.on_close(id);
        Ok(())
    }

    /// Writes a frame to a link; a link without room for it is cut off.
    fn put<B: frame::Block>(&mut self, id: LinkId, block: &B, payload: &[u8]) {
        if let Some(link) = self.links.get_dirty(id)
            && frame::put(&mut link.out, block, payload).is_err()
        {
            self.counters.clients_slow += 1;
            self.links.close_after_flush(id);
        }
    }

    fn on_hello(&mut self, id: LinkId, hello: &Hello) {
        if hello.protocol_max.get() < PROTOCOL_MIN || hello.protocol_min.get() > PROTOCOL_MAX {
            let text = "no common version of the client protocol: this node speaks version 1";
            return self.refuse(id, RefusedCode::Protocol, text);
        }
        if hello.cluster.get() != 0 && hello.cluster.get() != self.identity.cluster.0 {
            return self.refuse(id, RefusedCode::Cluster, "this node belongs to another cluster: check the address");
        }
        if hello.shard.get() != self.identity.shard.0 {
            return self.refuse(id, RefusedCode::Shard, "this port serves another shard: check the address");
        }
        let Some(link) = self.links.get(id) else { return };
        link.role = Role::Waiting(*hello);
        self.seat(id);
    }

    /// Gives a waiting client its session, or sends it to who can.
    fn seat(&mut self, id: LinkId) {
        let Some(Role::Waiting(hello)) = self.links.get(id).map(|link| link.role) else { return };
        if self.raft.role() != RaftRole::Leader || self.raft.transfer_target().is_some() || self.stopping {
            return self.redirect(id);
        }
        if !self.takes_commands() || self.opens.0.iter().any(|(_, link)| *link == id) {
            return;
        }
        if hello.session.get() == 0 {
            self.open_session(id, &hello);
        } else {
            self.resume_session(id, &hello);
        }
    }

    /// The leader is ready: clients that came early get their turn.
    pub(crate) fn seat_waiting(&mut self) {
        let waiting: Vec<LinkId> =
            self.links.iter().filter(|link| matches!(link.role, Role::Waiting(_))).map(|link| link.id).collect();
        for id in waiting {
            self.seat(id);
        }
    }

    fn open_session(&mut self, id: LinkId, hello: &Hello) {
        let full = self.replica.sessions.len() + self.opens.0.len() >= SESSIONS_MAX;
        if full {
            return self.on_sessions_full(id);
        }
        let open = SessionOpen {
            token: hello.token,
            protocol: hello.protocol_max.get().min(PROTOCOL_MAX).into(),
            padding: [0; 6],
            features: 0.into(),
        };
        // Without room the client waits; it is seated when there is.
        if let Some(position) = self.append_own(Kind::SessionOpen, SessionId(0), open.as_bytes()) {
            self.opens.0.push((position, id));
        }
    }

    fn resume_session(&mut self, id: LinkId, hello: &Hello) {
        let session_id = SessionId(hello.session.get());
        let Some(session) = self.replica.sessions.get(session_id) else {
            let text = "this session is not open: it was closed or has expired; open a new one";
            return self.refuse(id, RefusedCode::SessionUnknown, text);
        };
        if session.token != hello.token.get() {
            return self.refuse(id, RefusedCode::Token, "this is not the token the session was opened with");
        }
        if let Some(old) = session.volatile.link.replace(id).filter(|old| *old != id) {
            if let Some(link) = self.links.get(old) {
                link.role = Role::Unknown;
            }
            self.refuse(old, RefusedCode::Superseded, "another connection has resumed this session");
        }
        self.welcome(id, session_id, RequestNumber(hello.first_unanswered.get()));
    }

    /// Tells a client that its session is open, and goes on delivering from its first unanswered request.
    pub(crate) fn welcome(&mut self, id: LinkId, session_id: SessionId, first_unanswered: RequestNumber) {
        let promise = self.promise();
        let term = self.raft.term();
        let Some(session) = self.replica.sessions.get(session_id) else { return };
        let Some(link) = self.links.get_dirty(id) else {
            session.volatile.link = None;
            session.volatile.idle_since = self.now.instant;
            return;
        };
        link.role = Role::Client(session_id);
        session.volatile.link = Some(id);
        session.volatile.admitted = session.volatile.admitted.max(session.applied);
        session.volatile.told_busy = false;
        let last_delivered = RequestNumber(first_unanswered.0.saturating_sub(1));
        session.volatile.delivered = last_delivered.min(session.applied);
        let welcome = Welcome {
            protocol: session.protocol.into(),
            promise: promise as u8,
            node: self.identity.node.0,
            window_len_max: u32::try_from(WINDOW_LEN_MAX).expect("a small constant").into(),
            payload_size_max: u32::try_from(PAYLOAD_SIZE_MAX).expect("a small constant").into(),
            padding: 0.into(),
            features: session.features.into(),
            session: session_id.0.into(),
            last_request: session.volatile.admitted.0.into(),
            term: term.0.into(),
        };
        frame::put(&mut link.out, &welcome, &[]).expect("a link before its first reply has room");
        self.touch(session_id);
    }

    pub(crate) fn on_open_refused(&mut self, position: Position) {
        if let Some(link) = self.opens.take(position) {
            self.on_sessions_full(link);
        }
    }

    fn on_sessions_full(&mut self, id: LinkId) {
        self.refuse(id, RefusedCode::SessionsFull, "as many sessions are open as a shard may have: try again later");
    }

    /// The hot path of a leader: one request becomes one record, or is told why not.
    fn on_request(&mut self, id: LinkId, frame: &Frame<'_>) -> Result<(), FrameError> {
        let (block, payload) = frame.read::<Request>()?;
        let Some(Role::Client(session_id)) = self.links.get(id).map(|link| link.role) else {
            return Err(FrameError::Field("request without session"));
        };
        let (takes, floor, term, timestamp) = (self.takes_commands(), self.floor(), self.raft.term(), self.stamp());
        let Some(session) = self.replica.sessions.get(session_id) else { return Ok(()) };
        let number = RequestNumber(block.request.get());
        let first_unanswered = RequestNumber(block.first_unanswered.get());
        match session.admission(number, first_unanswered, WINDOW_LEN_MAX) {
            Admission::Next => {}
            Admission::Repeated => {
                self.repeat_reply(id, session_id, number);
                return Ok(());
            }
            Admission::OutOfTurn => {
                let in_turn = number == session.volatile.admitted.next();
                let reason = if in_turn { BusyReason::Window } else { BusyReason::Gap };
                if in_turn || !session.volatile.told_busy {
                    self.tell_busy(id, session_id, reason);
                }
                return Ok(());
            }
        }
        let too_large = payload.len() > PAYLOAD_SIZE_MAX;
        let refusal = [ReplyStatus::PayloadTooLarge as u8];
        let draft = Draft {
            term,
            session: session_id,
            request: number,
            timestamp,
            kind: if too_large { Kind::Refusal } else { Kind::Command },
            answered: u32::try_from(number.0 - first_unanswered.0).expect("bounded by the window"),
            payload: if too_large { &refusal } else { payload },
        };
        if session.replies.used_from(first_unanswered) > REPLIES_SIZE_BUSY {
            self.tell_busy(id, session_id, BusyReason::Window);
        } else if !takes || self.tail.append(&draft, floor).is_err() {
            self.tell_busy(id, session_id, BusyReason::Log);
        } else {
            session.volatile.admitted = number;
            session.volatile.told_busy = false;
            self.counters.commands_sequenced += 1;
            self.counters.commands_too_large += u64::from(too_large);
        }
        Ok(())
    }

    fn tell_busy(&mut self, id: LinkId, session_id: SessionId, reason: BusyReason) {
        let Some(session) = self.replica.sessions.get(session_id) else { return };
        session.volatile.told_busy = true;
        let expected = session.volatile.admitted.next();
        self.counters.busy_told += 1;
        self.put(id, &Busy { expected: expected.0.into(), reason: (reason as u16).into(), padding: [0; 6] }, &[]);
    }

    /// A request that was taken before: its reply goes out once more if it had gone out already.
    fn repeat_reply(&mut self, id: LinkId, session_id: SessionId, number: RequestNumber) {
        let promise = self.promise();
        let Some(session) = self.replica.sessions.get(session_id) else { return };
        if number > session.volatile.delivered {
            return;
        }
        if let Some(link) = self.links.get_dirty(id) {
            // Without room nothing is lost: the client asks again.
            let _ = crate::apply::put_reply(&mut link.out, session, number, promise);
        }
    }

    fn on_close(&mut self, id: LinkId) {
        if let Some(Role::Client(session)) = self.links.get(id).map(|link| link.role) {
            self.append_close(session);
        } else {
            self.links.close_after_flush(id);
        }
    }

    fn append_close(&mut self, id: SessionId) {
        if !self.takes_commands() {
            return;
        }
        let closing = self.replica.sessions.get(id).is_some_and(|session| session.volatile.closing);
        if !closing
            && self.append_own(Kind::SessionClose, id, &[]).is_some()
            && let Some(session) = self.replica.sessions.get(id)
        {
            session.volatile.closing = true;
        }
    }

    /// A leader's own records: timers that are due, sessions nobody came back for.
    pub(crate) fn sequence_own(&mut self) {
        if bugs::is_on(Bug::TimerFiredLocally) {
            self.replica.fire_locally(self.now.timestamp);
        }
        self.sequence_membership();
        if !self.takes_commands() {
            return;
        }
        let Some(mut leading) = self.leading else { return };
        while let Some(timer) = self.replica.timers.next_after(leading.fired) {
            if timer.deadline > self.now.timestamp
                || self.append_own(Kind::TimerFired, SessionId(0), &timer_fired(timer)).is_none()
            {
                break;
            }
            leading.fired = Some(timer);
        }
        if self.now.instant >= leading.next_scan {
            leading.next_scan = self.now.instant.after(SCAN_NS);
            self.close_idle_sessions();
            self.seat_waiting();
        }
        self.leading = Some(leading);
    }

    fn close_idle_sessions(&mut self) {
        let (now, timeout_ns) = (self.now.instant, self.config.session_timeout_ns);
        let idle = self.replica.sessions.iter().find(|session| {
            let volatile = &session.volatile;
            volatile.link.is_none() && !volatile.closing && now.since(volatile.idle_since) >= timeout_ns
        });
        if let Some(id) = idle.map(|session| session.id) {
            self.append_close(id);
        }
    }

    /// This replica leads no more: every client is sent to who does.
    pub(crate) fn dismiss_clients(&mut self) {
        let clients: Vec<LinkId> = self
            .links
            .iter()
            .filter(|link| matches!(link.role, Role::Client(_) | Role::Waiting(_)))
            .map(|link| link.id)
            .collect();
        for id in clients {
            self.redirect(id);
        }
        // Who only asks has no session: it is sent on as well.
        for id in self.queries.dismiss() {
            self.redirect(id);
        }
        self.opens.0.clear();
    }

    pub(crate) fn redirect(&mut self, id: LinkId) {
        if self.links.get(id).is_none_or(|link| link.is_closing()) {
            return;
        }
        let target = self.raft.transfer_target().or_else(|| self.raft.leader());
        let target = target.filter(|node| *node != self.identity.node);
        let address = target.and_then(|node| self.addresses.get(usize::from(node.0)).cloned().flatten());
        let redirect = Redirect { leader: target.map_or(NOBODY, |node| node.0), padding: [0; 7] };
        self.put(id, &redirect, address.as_deref().unwrap_or("").as_bytes());
        self.links.close_after_flush(id);
    }

    /// Ends a connection with a reason.
    pub(crate) fn refuse(&mut self, id: LinkId, code: RefusedCode, reason: &str) {
        if let Some(link) = self.links.get_dirty(id) {
            // A link too full to take the reason is closed all the same.
            let _ =
                frame::put(&mut link.out, &Refused { code: (code as u16).into(), padding: [0; 6] }, reason.as_bytes());
        }
        self.links.close_after_flush(id);
    }

    pub(crate) fn refuse_malformed(&mut self, id: LinkId) {
        if self.links.get(id).is_some_and(|link| matches!(link.role, Role::Peer(_))) {
            return self.links.close_after_flush(id);
        }
        self.refuse(id, RefusedCode::Malformed, "these bytes are no frames of the client protocol");
    }

    fn on_admin(&mut self, id: LinkId, admin: &Admin, argument: &[u8]) {
        let node = NodeId(admin.node);
        let argument = std::str::from_utf8(argument).unwrap_or_default();
        let (code, position, text) = match AdminAction::from_number(admin.action.get()) {
            Some(AdminAction::Transfer) => match self.raft.transfer(node, self.now.instant, &mut self.output) {
                Ok(()) => (0, Position::ZERO, "leadership is being handed over".to_owned()),
                Err(error) => (1, Position::ZERO, error.to_string()),
            },
            Some(AdminAction::Digest) if self.takes_commands() => {
                match self.append_own(Kind::Digest, SessionId(0), &[]) {
                    Some(position) => (0, position, "every replica computes its digest at this position".to_owned()),
                    None => (1, Position::ZERO, "the log takes nothing just now: try again".to_owned()),
                }
            }
            Some(AdminAction::Digest) => (1, Position::ZERO, "this replica does not lead: ask the leader".to_owned()),
            Some(AdminAction::MemberAdd) => self.on_member(node, MemberAction::Add(argument)),
            Some(AdminAction::MemberPromote) => self.on_member(node, MemberAction::Promote),
            Some(AdminAction::MemberRemove) => self.on_member(node, MemberAction::Remove),
            Some(AdminAction::Snapshot) => match self.ask_for_snapshot() {
                Ok(position) => (0, position, format!("a snapshot is taken at position {position}")),
                Err(reason) => (1, Position::ZERO, reason.to_owned()),
            },
            None => (2, Position::ZERO, "this release does not know that request".to_owned()),
        };
        let reply = AdminReply { code: code.into(), padding: [0; 6], position: position.0.into() };
        self.put(id, &reply, text.as_bytes());
    }

    fn on_member(&mut self, node: NodeId, action: MemberAction<'_>) -> (u16, Position, String) {
        match self.change_member(node, action) {
            Ok(position) => (0, position, format!("the configuration is now {}", self.raft.membership())),
            Err(reason) => (1, Position::ZERO, reason),
        }
    }
}
