//! Snapshots on their way between replicas: a leader sends its newest one to a replica that lacks what the leader's log
//! no longer has, piece by piece, each answered before the next; the other keeps it and begins its log anew behind it.
//!
//! The state is taken over in this order, so that a crash at any moment leaves either the old log or the snapshot:
//!
//! 1. All pieces have come; the whole verifies.
//! 2. It is kept: written, made durable, given its name. A start from here on finds a log that ends below the snapshot
//!    (or is of another history) and begins anew ([`crate::start`]).
//! 3. The service is restored, consensus is told, the log in memory and on disk begins anew at the snapshot.
//! 4. The first block behind it is durable: the old segments are dropped ([`crate::snapshots`]).
//!
//! What has come is held in memory until it is kept: as much as the state that is restored from it.

use evershard_consensus::{Installed, SnapshotMark};
use evershard_protocol::limits::{SNAPSHOT_CHUNK_SIZE, SNAPSHOT_SIZE_MAX};
use evershard_protocol::peer::{
    self, SNAPSHOT_OVERHEAD, SnapshotChunk, SnapshotProgress, SnapshotReply, SnapshotRequest,
};
use evershard_protocol::time::SECOND_NS;
use evershard_protocol::{Instant, NodeId, Position, Term};
use evershard_service::Service;

use crate::core::Core;
use crate::env::Env;
use crate::notice::Notice;
use crate::shadow::SnapshotFailure;
use crate::snapshot::{Snapshot, SnapshotFault};

/// Bytes of a snapshot read from disk at a time.
pub const PIECE_SIZE: usize = 8 * SNAPSHOT_CHUNK_SIZE;
/// A replica that does not answer to a piece is given up after this long.
const ANSWER_NS_MAX: u64 = 5 * SECOND_NS;
/// A replica that has all of it keeps and restores it within this long.
const INSTALL_NS_MAX: u64 = 120 * SECOND_NS;
/// After a refusal, or where there is nothing to send.
const PAUSE_NS: u64 = SECOND_NS;

/// What of snapshots is on its way.
#[derive(Default)]
pub struct Shipping {
    sending: Vec<Sending>,
    receiving: Option<Receiving>,
    /// Whole, and not handed to the background yet.
    arrived: Option<Box<Snapshot>>,
    /// From whom that came, and in which term.
    sender: Option<(NodeId, Term)>,
    /// In the background's hands.
    keeping: Option<Position>,
    not_before: Instant,
    /// The last one that arrived at a peer, which may not have said yet that it goes on from there, and until when it is
    /// waited for.
    arrived_at: Option<(Position, Instant)>,
}

/// One on its way to a peer.
struct Sending {
    to: NodeId,
    position: Position,
    /// It has the log, but not all of it can be read any more, there or here.
    instead: bool,
    /// What the peer wants next.
    offset: u64,
    /// Read from disk: where it begins, and the size of the whole.
    piece: Option<(u64, Vec<u8>, u64)>,
    /// Read from there, under way.
    asked: Option<u64>,
    /// The piece at `offset` was sent; the answer is due by then.
    answer_until: Option<Instant>,
    /// All of it has come; it is to be in force by then.
    install_until: Option<Instant>,
}

/// One that is coming in.
struct Receiving {
    from: NodeId,
    position: Position,
    size: u64,
    bytes: Vec<u8>,
}

impl Shipping {
    /// Whether a snapshot can be handed in to be kept.
    pub(crate) fn is_free(&self) -> bool {
        self.keeping.is_none() && self.arrived.is_none()
    }

    /// A snapshot of this replica's own is to be kept.
    pub(crate) fn hand_in(&mut self, snapshot: Snapshot) {
        assert!(self.is_free(), "asked before it was made");
        self.arrived = Some(Box::new(snapshot));
    }

    /// From where on the log is needed by those who are sent snapshots, or have just got one.
    pub(crate) fn needed(&self, now: Instant) -> impl Iterator<Item = Position> + '_ {
        let just_arrived = self.arrived_at.filter(|(_, until)| now < *until).map(|(position, _)| position);
        self.sending.iter().map(|sending| sending.position).chain(just_arrived)
    }

    /// Whether nothing is on its way.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.sending.is_empty() && self.arrived.is_none()
    }

    /// Whether answers from the background are awaited.
    #[must_use]
    pub fn awaits_background(&self) -> bool {
        self.keeping.is_some() || self.sending.iter().any(|sending| sending.asked.is_some())
    }
}

impl<S: Service> Core<S> {
    /// Begins, goes on with and ends what is on its way.
    pub(crate) fn ship(&mut self, env: &mut impl Env) {
        if let Some(snapshot) = self.snapshots.shipping.arrived.take() {
            let position = snapshot.position();
            match env.keep_snapshot(snapshot) {
                Ok(()) => self.snapshots.shipping.keeping = Some(position),
                Err(snapshot) => self.snapshots.shipping.arrived = Some(snapshot),
            }
        }
        if self.snapshots.shipping.receiving.as_ref().is_some_and(|coming| !self.would_take(coming.position)) {
            // It came another way: the memory is given back.
            self.snapshots.shipping.receiving = None;
        }
        self.begin_sending();
        for at in (0..self.snapshots.shipping.sending.len()).rev() {
            self.go_on_sending(at, env);
        }
    }

    /// A peer that can only go on from a snapshot gets the newest one.
    fn begin_sending(&mut self) {
        if self.leading.is_none() || self.now.instant < self.snapshots.shipping.not_before {
            return;
        }
        let Some(position) = self.snapshots.newest() else { return };
        for node in self.peers.known().iter() {
            let sent = self.snapshots.shipping.sending.iter().any(|sending| sending.to == node);
            if !sent && self.raft.wants_snapshot(node) {
                self.raft.on_snapshot_begun(node, position);
                self.begin_sending_to(node, position, false);
            }
        }
    }

    fn begin_sending_to(&mut self, to: NodeId, position: Position, instead: bool) {
        let sending = Sending {
            to,
            position,
            instead,
            offset: 0,
            piece: None,
            asked: None,
            answer_until: None,
            install_until: None,
        };
        self.snapshots.shipping.sending.push(sending);
        self.notice(Notice::SnapshotSent(to, position));
    }

    /// A peer can only go on with a snapshot beyond a place. If there is none yet, one is taken, and the peer asks again.
    pub(crate) fn on_snapshot_request(&mut self, from: NodeId, request: &SnapshotRequest) {
        let sent = self.snapshots.shipping.sending.iter().any(|sending| sending.to == from);
        if self.leading.is_none() || sent {
            return;
        }
        match self.snapshots.newest().filter(|newest| *newest >= request.beyond) {
            Some(newest) => self.begin_sending_to(from, newest, true),
            None if self.replica.applied >= request.beyond => {
                // It may be at work on one already.
                let _ = self.ask_for_snapshot();
            }
            None => {}
        }
    }

    /// A peer cannot read a part of its log and asks for it; if that is dropped here, it gets what took its place.
    pub(crate) fn send_snapshot_instead(&mut self, to: NodeId, first: Position, end: Position) {
        let newest = self.snapshots.newest().filter(|newest| *newest >= end && first < self.raft.terms().base());
        let Some(position) = newest.filter(|_| self.leading.is_some()) else { return };
        let sent = self.snapshots.shipping.sending.iter().any(|sending| sending.to == to);
        if !sent && self.now.instant >= self.snapshots.shipping.not_before {
            self.begin_sending_to(to, position, true);
        }
    }

    fn go_on_sending(&mut self, at: usize, env: &mut impl Env) {
        let now = self.now.instant;
        let sending = &mut self.snapshots.shipping.sending[at];
        let (to, position, offset) = (sending.to, sending.position, sending.offset);
        let lacks = |peer: evershard_consensus::PeerView| peer.needs_snapshot || sending.instead;
        let needed = self.leading.is_some() && self.raft.peer(to).is_some_and(lacks);
        let Some(link) = self.peers.link(to).filter(|_| needed) else {
            self.snapshots.shipping.sending.swap_remove(at);
            self.raft.on_snapshot_ended(to, false);
            return;
        };
        if let Some(until) = sending.answer_until {
            if now < until {
                return;
            }
            if sending.install_until.is_none_or(|until| now >= until) {
                return self.end_sending(at, false);
            }
            // The last piece once more: the answer says how it stands.
        }
        let piece = sending.piece.as_ref().and_then(|(first, bytes, size)| {
            let from = usize::try_from(offset.checked_sub(*first)?).ok()?;
            let data = bytes.get(from..).filter(|data| !data.is_empty())?;
            Some((&data[..data.len().min(SNAPSHOT_CHUNK_SIZE)], *size))
        });
        let Some((data, size)) = piece else {
            if sending.asked.is_none() && env.read_snapshot(position, offset) {
                sending.asked = Some(offset);
            }
            return;
        };
        let Some(link) = self.links.get_dirty(link).filter(|link| link.room() >= data.len() + SNAPSHOT_OVERHEAD) else {
            return;
        };
        let chunk = SnapshotChunk { term: self.raft.term(), position, size, offset };
        peer::put_snapshot_chunk(&mut link.out, &chunk, data).expect("there is room");
        sending.answer_until = Some(now.after(ANSWER_NS_MAX));
    }

    fn end_sending(&mut self, at: usize, arrived: bool) {
        let Sending { to, position, .. } = self.snapshots.shipping.sending.swap_remove(at);
        self.raft.on_snapshot_ended(to, arrived);
        if arrived {
            self.snapshots.shipping.arrived_at = Some((position, self.now.instant.after(ANSWER_NS_MAX)));
        } else {
            self.snapshots.shipping.not_before = self.now.instant.after(PAUSE_NS);
        }
    }

    pub(crate) fn on_snapshot_read(&mut self, position: Position, offset: u64, outcome: Result<(Vec<u8>, u64), i32>) {
        let asked = |sending: &Sending| sending.position == position && sending.asked == Some(offset);
        while let Some(at) = self.snapshots.shipping.sending.iter().position(asked) {
            let sending = &mut self.snapshots.shipping.sending[at];
            sending.asked = None;
            match &outcome {
                Ok((bytes, size)) if !bytes.is_empty() => sending.piece = Some((offset, bytes.clone(), *size)),
                // It was dropped meanwhile, or cannot be read: another one is tried.
                _ => self.end_sending(at, false),
            }
        }
    }

    pub(crate) fn on_snapshot_reply(&mut self, from: NodeId, reply: &SnapshotReply) {
        let is_ours = |sending: &Sending| sending.to == from && sending.position == reply.position;
        let Some(at) = self.snapshots.shipping.sending.iter().position(is_ours) else { return };
        if reply.term != self.raft.term() || self.leading.is_none() {
            return;
        }
        let sending = &mut self.snapshots.shipping.sending[at];
        match reply.progress {
            SnapshotProgress::Done => self.end_sending(at, true),
            SnapshotProgress::Refused => self.end_sending(at, false),
            SnapshotProgress::Damaged => {
                self.end_sending(at, false);
                self.distrust_snapshot(reply.position);
            }
            SnapshotProgress::GoesOn => {
                let whole = sending.piece.as_ref().is_some_and(|(_, _, size)| reply.offset >= *size);
                if whole {
                    let until = self.now.instant.after(INSTALL_NS_MAX);
                    sending.install_until = sending.install_until.or(Some(until));
                } else {
                    sending.offset = reply.offset;
                    sending.answer_until = None;
                }
            }
        }
    }

    /// A leader sends a part of its snapshot.
    pub(crate) fn on_snapshot_chunk(&mut self, from: NodeId, chunk: &SnapshotChunk, data: &[u8]) {
        let leads = self.raft.leader() == Some(from) && self.raft.term() == chunk.term;
        if !leads {
            return;
        }
        let Shipping { keeping, arrived, .. } = &self.snapshots.shipping;
        if let Some(busy) = keeping.or(arrived.as_ref().map(|snapshot| snapshot.position())) {
            // All of it is here already; of another one nothing is wanted now.
            if busy == chunk.position {
                self.answer_chunk(from, busy, chunk.size, SnapshotProgress::GoesOn);
            }
            return;
        }
        if !self.would_take(chunk.position) {
            return self.answer_chunk(from, chunk.position, chunk.size, SnapshotProgress::Done);
        }
        if chunk.size > SNAPSHOT_SIZE_MAX {
            self.notice(Notice::SnapshotRefused(chunk.position));
            return self.answer_chunk(from, chunk.position, 0, SnapshotProgress::Refused);
        }
        let receiving = self.snapshots.shipping.receiving.take();
        let same = |one: &Receiving| (one.from, one.position, one.size) == (from, chunk.position, chunk.size);
        let mut receiving = receiving.filter(same).unwrap_or_else(|| Receiving {
            from,
            position: chunk.position,
            size: chunk.size,
            bytes: Vec::new(),
        });
        if receiving.bytes.len() as u64 == chunk.offset {
            receiving.bytes.extend_from_slice(data);
        }
        let offset = receiving.bytes.len() as u64;
        if offset < chunk.size {
            self.snapshots.shipping.receiving = Some(receiving);
            return self.answer_chunk(from, chunk.position, offset, SnapshotProgress::GoesOn);
        }
        match Snapshot::parse(receiving.bytes, self.identity.cluster, self.identity.shard) {
            Ok(snapshot) if snapshot.position() == chunk.position => {
                self.snapshots.shipping.arrived = Some(Box::new(snapshot));
                self.snapshots.shipping.sender = Some((from, chunk.term));
                self.answer_chunk(from, chunk.position, offset, SnapshotProgress::GoesOn);
            }
            Ok(_) | Err(SnapshotFault::Damaged) => {
                self.notice(Notice::SnapshotRefused(chunk.position));
                self.answer_chunk(from, chunk.position, 0, SnapshotProgress::Damaged);
            }
            Err(_) => {
                self.notice(Notice::SnapshotRefused(chunk.position));
                self.answer_chunk(from, chunk.position, 0, SnapshotProgress::Refused);
            }
        }
    }

    /// Whether a snapshot at this position helps: it has more than this replica knows to be committed, or takes the place
    /// of what cannot be read here.
    fn would_take(&self, position: Position) -> bool {
        let gap = self.disk.holes().first().is_some_and(|hole| hole.first() < position);
        position > self.raft.commit() || (gap && position > self.replica.applied)
    }

    fn answer_chunk(&mut self, to: NodeId, position: Position, offset: u64, progress: SnapshotProgress) {
        let reply = SnapshotReply { term: self.raft.term(), position, offset, progress };
        let Some(id) = self.peers.link(to) else { return };
        if let Some(link) = self.links.get_dirty(id) {
            // Without room it is lost; the leader asks again in its time.
            let _ = peer::put_snapshot_reply(&mut link.out, &reply);
        }
    }

    /// Step 2 is done, or has failed.
    pub(crate) fn on_snapshot_kept(&mut self, snapshot: &Snapshot, outcome: Result<(), i32>) {
        self.snapshots.shipping.keeping = None;
        let position = snapshot.position();
        if self.snapshots.is_taking(position) {
            let size = snapshot.bytes().len() as u64;
            return self.on_snapshot_taken(position, outcome.map(|()| size).map_err(SnapshotFailure::Disk));
        }
        let installed = match outcome {
            Ok(()) => self.install(snapshot),
            Err(errno) => {
                self.notice(Notice::SnapshotFailed(position, errno));
                false
            }
        };
        if let Some((sender, _)) = self.snapshots.shipping.sender {
            let progress = if installed { SnapshotProgress::Done } else { SnapshotProgress::Refused };
            self.answer_chunk(sender, position, 0, progress);
        }
    }

    /// Step 3. Who leads by now vouches for it, or who sent it and led in this term: a snapshot holds only what is committed.
    fn install(&mut self, snapshot: &Snapshot) -> bool {
        let position = snapshot.position();
        let sender = self.snapshots.shipping.sender.filter(|(_, term)| *term == self.raft.term());
        let leader = self.raft.leader().or(sender.map(|(sender, _)| sender));
        let Some(leader) = leader.filter(|leader| *leader != self.identity.node) else { return false };
        if !self.would_take(position) {
            return true;
        }
        // Before anything is given up: if it cannot be restored here, the replica stays what it is.
        let restored = match snapshot.restore((self.instances)()) {
            Ok(restored) => restored,
            Err(_) => {
                self.notice(Notice::SnapshotRefused(position));
                return false;
            }
        };
        let mark = SnapshotMark { position, term: snapshot.term(), membership: snapshot.membership() };
        self.note_appended();
        let installed = self.raft.install_snapshot(leader, self.raft.term(), &mark, self.now.instant);
        if position > self.raft.commit() {
            // The leader is none any more.
            return false;
        }
        self.replica = restored;
        self.replay.forget();
        match installed {
            Installed::No | Installed::Kept => {
                self.snapshots.keep(position);
                self.forgive_holes_before(position);
            }
            Installed::Replaced => {
                self.tail.reset(position);
                self.disk.writer.reset(position);
                self.log_time = self.log_time.max(snapshot.time());
                for (node, address) in snapshot.addresses() {
                    self.learn_address(*node, address);
                }
                self.snapshots.keep_only(position);
            }
        }
        self.notice(Notice::SnapshotInstalled(position));
        true
    }
}
