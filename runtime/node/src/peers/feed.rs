//! What goes out to the peers in a turn: appends from memory or from disk, the leader's acknowledgement, and whatever
//! consensus has to say.

use evershard_protocol::limits::{APPEND_SIZE_MAX, RECORD_SIZE_MAX};
use evershard_protocol::peer::{self, APPEND_OVERHEAD, PeerMessage};
use evershard_protocol::record::Record;
use evershard_protocol::time::MILLISECOND_NS;
use evershard_protocol::{NodeId, Position};
use evershard_service::Service;

use super::Contact;
use crate::core::Core;
use crate::env::{Chunk, Env, ReadFailure, ReadPurpose, ReadRequest};
use crate::repair::READS_MAX;

/// A leader is told this often how far its followers have applied.
const APPLIED_NS: u64 = 10 * MILLISECOND_NS;
/// Room a link must have before another append is planned for it.
const APPEND_ROOM_MIN: usize = RECORD_SIZE_MAX + APPEND_OVERHEAD;

impl<S: Service> Core<S> {
    /// Sends every peer what it lacks, the leader its acknowledgement, and whatever consensus has to say.
    pub(crate) fn replicate(&mut self, env: &mut impl Env) {
        if self.leading.is_some() {
            for at in 0..self.peers.peers.len() {
                self.feed_peer(at, env);
            }
        }
        // Two at most: to the leader, and to a deposed one.
        while let Some((leader, reply)) = self.raft.take_reply(self.now.instant) {
            self.tell_peer(leader, &PeerMessage::AppendReply(reply));
            self.tell_applied(leader);
        }
        for at in 0..self.output.messages.len() {
            let (to, message) = self.output.messages[at];
            self.tell_peer(to, &message);
        }
        self.output.messages.clear();
    }

    /// With an acknowledgement now and then: how far this replica has applied, so that leadership is not moved to one
    /// that would first have to catch up.
    fn tell_applied(&mut self, leader: NodeId) {
        if self.now.instant < self.peers.tell_applied_at {
            return;
        }
        self.peers.tell_applied_at = self.now.instant.after(APPLIED_NS);
        let Some(id) = self.peers.link(leader) else { return };
        if let Some(link) = self.links.get_dirty(id) {
            // Without room it is told with a later acknowledgement.
            let _ = peer::put_applied(&mut link.out, self.replica.applied);
        }
    }

    /// A message that finds no room is lost, as it might be on any network: its sender repeats it in its own time.
    fn tell_peer(&mut self, to: NodeId, message: &PeerMessage) {
        let Some(id) = self.peers.link(to) else { return };
        if let Some(link) = self.links.get_dirty(id) {
            let _ = peer::put_message(&mut link.out, message, &[]);
        }
    }

    fn feed_peer(&mut self, at: usize, env: &mut impl Env) {
        let Contact::Up(id) = self.peers.peers[at].contact else { return };
        let to = self.peers.peers[at].id;
        loop {
            let Some(room) = self.links.get(id).map(|link| link.room()) else { return };
            if room < APPEND_ROOM_MIN {
                return;
            }
            let size_max = (room - APPEND_OVERHEAD).min(APPEND_SIZE_MAX) as u64;
            let Some(mut append) = self.raft.plan_append(to, self.now.instant, size_max) else { return };
            let from = append.previous;
            let end = from.advance(append.size);
            let (first, second): (&[u8], &[u8]) = if append.size == 0 {
                (&[], &[])
            } else if from >= self.tail.start() {
                let end = if append.size == size_max { self.tail.boundary_within(from, end) } else { end };
                self.tail.range(from, end).expect("what is planned is in the log, and in memory from here on")
            } else {
                let peer = &mut self.peers.peers[at];
                let Some(bytes) = peer.feed.as_ref().and_then(|chunk| cut_chunk(chunk, from, end)) else {
                    return self.ask_for_feed(at, from, env);
                };
                (bytes, &[])
            };
            append.size = (first.len() + second.len()) as u64;
            let link = self.links.get_dirty(id).expect("looked up above");
            peer::put_message(&mut link.out, &PeerMessage::Append(append), &[first, second])
                .expect("planned within the room");
            self.raft.on_append_sent(to, &append, self.now.instant);
            if append.size == 0 {
                return;
            }
        }
    }

    fn ask_for_feed(&mut self, at: usize, from: Position, env: &mut impl Env) {
        let peer = &mut self.peers.peers[at];
        peer.feed = None;
        if peer.asked.is_some() {
            return;
        }
        let Some(location) = self.disk.locate(from) else { return };
        let id = peer.id;
        let ticket = self.peers.next_ticket();
        let request = ReadRequest { purpose: ReadPurpose::Peer(id), location, from, ticket };
        if env.read_log(request) {
            self.peers.peers[at].asked = Some(ticket);
        }
    }

    pub(crate) fn on_peer_read(&mut self, node: NodeId, request: &ReadRequest, chunk: Result<Chunk, ReadFailure>) {
        let Some(peer) = self.peers.find(node).filter(|peer| peer.asked == Some(request.ticket)) else { return };
        peer.asked = None;
        peer.faults = if chunk.is_ok() { 0 } else { peer.faults.saturating_add(1) };
        let believed = peer.faults >= READS_MAX;
        match chunk {
            Ok(chunk) => peer.feed = Some(chunk).filter(|chunk| !chunk.bytes.is_empty()),
            Err(ReadFailure::Hole(hole)) if believed => self.note_hole(&hole),
            Err(_) => {}
        }
    }
}

/// The part of a chunk from `from` on that ends on a record boundary at or before `end`; `None` if there is none.
fn cut_chunk(chunk: &Chunk, from: Position, end: Position) -> Option<&[u8]> {
    if from < chunk.first || from >= chunk.end() {
        return None;
    }
    let start = usize::try_from(from.since(chunk.first)).expect("inside the chunk");
    let mut at = start;
    while let Some(rest) = chunk.bytes.get(at..).filter(|rest| !rest.is_empty()) {
        let position = chunk.first.advance(at as u64);
        let Ok(record) = Record::parse_trusted(position, rest) else { break };
        if record.header.position > end {
            break;
        }
        at += record.bytes.len();
    }
    (at > start).then(|| &chunk.bytes[start..at])
}
