//! A leader's side of replication: what to send to whom, what the answers mean, and what is committed.

use evershard_protocol::bugs::{self, Bug};
use evershard_protocol::limits::{APPEND_SIZE_MAX, RECORD_SIZE_MAX};
use evershard_protocol::peer::{Append, AppendReply, Hint};
use evershard_protocol::{Instant, NodeId, Position};

use crate::progress::{Due, Mode, Pace, Peer};
use crate::raft::TERM_MAX;
use crate::{Durability, Output, Raft, Role};

impl Raft {
    /// What to send to a peer now: data of one term run, or a heartbeat or commit position if one is due. Asked again
    /// after every [`Raft::on_append_sent`] until it says `None`.
    ///
    /// The data is at most `size_max` bytes, what one frame carries, and what may be in flight to one peer. It need not end at the end of a
    /// record: the caller cuts it at the last one that fits. If not even one record fits `size_max`, the caller asks
    /// again with 0, which never plans data.
    pub fn plan_append(&mut self, to: NodeId, now: Instant, size_max: u64) -> Option<Append> {
        self.see(now);
        if self.role != Role::Leader || self.term_start.is_none() {
            return None;
        }
        let peer = &self.peers[self.peer_index(to)?];
        if !peer.connected || !self.feeds(peer) {
            return None;
        }
        let pace = self.pace();
        let room = self.data_size_max(peer).min(size_max).min(APPEND_SIZE_MAX as u64);
        let (size, round) = match (peer.mode, peer.due(&pace)) {
            (Mode::Replicate, _) if room > 0 => (room, peer.data_round(&pace)),
            (_, Due::Nothing) => return None,
            (_, Due::Data(round)) => (room, round),
            (_, Due::Empty(round)) => (0, round),
        };
        let previous_term = self.terms.term_at(peer.next).expect("next is in the table, or at its base");
        let data_term = if size == 0 { previous_term } else { self.terms.term_of_byte(peer.next)? };
        Some(Append {
            term: self.hard.term,
            previous: peer.next,
            previous_term,
            data_term,
            size,
            commit: self.commit,
            round,
            confirmed: peer.confirmed,
            vouched: peer.vouched,
        })
    }

    /// The caller sent what was planned, or less of its data, cut at the end of a record.
    pub fn on_append_sent(&mut self, to: NodeId, append: &Append, now: Instant) {
        self.see(now);
        let Some(index) = self.peer_index(to) else { return };
        let peer = &mut self.peers[index];
        let current = self.role == Role::Leader && append.term == self.hard.term && append.previous == peer.next;
        if current && peer.connected {
            assert!(append.previous.advance(append.size) <= self.terms.last(), "only what is in the log is sent");
            peer.on_sent(append, self.read_number, self.now);
            self.read_told = true;
        }
    }

    /// What sets the pace of appends just now.
    pub(crate) fn pace(&self) -> Pace {
        let (commit, read) = (self.commit, self.read_number);
        Pace { commit, read, heartbeat_ns: self.timing.heartbeat_ns, now: self.now }
    }

    pub(crate) fn on_append_reply(&mut self, index: usize, reply: &AppendReply, out: &mut Output) {
        if reply.term > TERM_MAX || reply.durable > reply.received {
            return;
        }
        if reply.term > self.hard.term {
            self.become_follower(reply.term);
            return;
        }
        if self.role != Role::Leader || reply.term < self.hard.term || !self.peers[index].connected {
            return;
        }
        if reply.received > self.terms.last() {
            return;
        }
        self.note_floor(index, reply.term, reply.durable);
        let peer = &mut self.peers[index];
        peer.contact = Some(self.now);
        peer.on_positions(reply);
        peer.on_round_answered(reply.round, reply.promise_ns);
        match (reply.rejected, peer.is_current(reply.round)) {
            (Some(hint), true) => self.back_off(index, hint),
            (None, true) => self.on_accepted(index),
            (_, false) => {}
        }
        self.advance_commit();
        self.audit(index);
        self.tick_transfer(out);
    }

    /// A peer that may have lost records needs what was committed while it was away, and before: a commit position at
    /// which this leader was followed by a quorum without it, later than the peer's return. A leader that was replaced
    /// unawares has none (seed 1080 of the simulation: woken from a pause it taught a wiped replica its old log, and
    /// the two of them were a quorum).
    fn audit(&mut self, index: usize) {
        if self.peers[index].recovering && self.peers[index].audit.is_none() {
            let number = self.next_read_number();
            self.peers[index].audit = Some(number);
        }
        let asked = |peer: &Peer| peer.audit.is_some() && peer.confirmed == Position::ZERO;
        if !self.peers.iter().any(asked) || self.term_start.is_none_or(|start| self.commit < start) {
            return;
        }
        let (confirmed, commit) = (self.confirmed_read(), self.commit);
        for peer in self.peers.iter_mut().filter(|peer| asked(peer)) {
            if peer.audit.is_some_and(|number| number <= confirmed) {
                peer.confirmed = commit;
            }
        }
    }

    /// Commits what a quorum has, or what every member has though some of them may have lost other records.
    pub(crate) fn advance_commit(&mut self) {
        let Some(term_start) = self.term_start else { return };
        let by_durability = |durable, received| match self.durability {
            Durability::Durable => durable,
            Durability::Replicated => received,
        };
        let own = by_durability(self.durable, self.terms.last());
        let held = |peer: &Peer| by_durability(peer.durable, peer.received);
        let counted = |peer: &Peer| if peer.counts() { held(peer) } else { Position::ZERO };
        let by_quorum = self.rank_of_quorum(own, counted);
        let committed = by_quorum.max(self.least_of_all(own, held));
        //= raft §5.4.2: only records of the leader's own term are committed by counting replicas.
        let own_term = committed >= term_start || bugs::is_on(Bug::CommitPriorTerm);
        if committed > self.commit && own_term {
            assert!(
                self.terms.term_at(committed) == Some(self.hard.term) || bugs::is_on(Bug::CommitPriorTerm),
                "the own term is the log's last"
            );
            self.commit = committed;
            if bugs::is_on(Bug::MembershipAtCommit) {
                self.adopt_membership();
            }
        }
    }

    /// The peer's log does not agree with this one at `next`. Every step goes back by at least one run of the
    /// leader's log or of the peer's, so there are no more steps than runs.
    fn back_off(&mut self, index: usize, hint: Hint) {
        let peer = &self.peers[index];
        if matches!(peer.mode, Mode::Snapshot { .. }) {
            // It lacks everything until a snapshot has come.
            return;
        }
        let found = self.terms.term_at(hint.position);
        let enquiry = found.is_some_and(|term| term < hint.term);
        let next = if found == Some(hint.term) || enquiry {
            // The same record is there, or the peer's record is from a term that this log skipped. In the latter
            // case the position need not be a boundary here: ask without data.
            hint.position
        } else {
            self.terms.find_hint(hint.position, hint.term).position
        };
        let base = self.terms.base();
        // Below the table's base only the very beginning of the log can match.
        if next < base {
            self.peers[index].await_snapshot(base);
            return;
        }
        let stuck = matches!(peer.mode, Mode::Probe { .. }) && next >= peer.next;
        let peer = &mut self.peers[index];
        if !stuck {
            peer.probe_from(next.min(peer.next), enquiry);
        }
        // A peer that did not move is asked again at the next heartbeat.
    }

    /// The peer's log agrees with this one at `next`.
    fn on_accepted(&mut self, index: usize) {
        let peer = &mut self.peers[index];
        if peer.received < peer.next {
            return;
        }
        if matches!(peer.mode, Mode::Snapshot { .. }) {
            // The snapshot has arrived, or the peer had the log after all.
            peer.probe_from(peer.received, false);
            return;
        }
        let Mode::Probe { enquiry, .. } = peer.mode else { return };
        if enquiry {
            // The peer had another record there when it was last asked. Begin where a record certainly begins.
            let start = self.terms.run_start(peer.next);
            peer.probe_from(start, false);
        } else {
            peer.replicate();
        }
    }

    /// Bytes of data that may follow `next`: within one run, and within what may be in flight.
    fn data_size_max(&self, peer: &Peer) -> u64 {
        let left = self.terms.run_end(peer.next).since(peer.next);
        let acknowledged = match (peer.mode, self.durability) {
            (Mode::Snapshot { .. }, _) => return 0,
            (Mode::Probe { .. }, _) => peer.next,
            (Mode::Replicate, Durability::Durable) => peer.durable,
            (Mode::Replicate, Durability::Replicated) => peer.received,
        };
        let room = self.inflight_size_max.saturating_sub(peer.next.since(acknowledged));
        // Less room than for any record must reach to the end of the run, or it could not be used.
        if room >= left || room >= RECORD_SIZE_MAX as u64 { left.min(room) } else { 0 }
    }
}
