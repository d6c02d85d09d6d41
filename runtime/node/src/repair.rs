//! Repair of the log from the other replicas: blocks that do not read back are asked for, proven, and written again in
//! their places.
//!
//! A replica with a hole is not whole. It votes and acknowledges with its whole log, for what it once had may be why
//! somebody was told that it is safe; but it neither campaigns nor takes over ([`evershard_consensus::Raft::set_whole`]),
//! and a leader that finds a hole in its log hands over. Repair needs no leader: any replica answers from what it has,
//! because two logs with the same term at the same position hold the same bytes there. So three replicas, each with
//! another hole and none of them able to lead, make each other whole first and elect then. A hole that no living
//! replica can fill keeps its owner from leading: the shard rather waits than loses what is in it.
//!
//! One block is asked for at a time, each peer in its turn, with pauses. What comes is proven by the checksums of what
//! was there, so a peer may be wrong as much as it likes.

use evershard_log::block::CONTENT_SIZE_MAX;
use evershard_log::{Hole, SegmentNumber};
use evershard_protocol::limits::FRAME_SIZE_MAX;
use evershard_protocol::peer::{self, REPAIR_OVERHEAD, RepairReply, RepairRequest, SnapshotRequest};
use evershard_protocol::record::Record;
use evershard_protocol::time::{MILLISECOND_NS, SECOND_NS};
use evershard_protocol::{Instant, NodeId, Position};
use evershard_service::Service;
use evershard_sys::buffer::AlignedBuffer;

use crate::core::Core;
use crate::env::{Chunk, Env, ReadFailure, ReadPurpose, ReadRequest};
use crate::notice::Notice;

/// A peer that does not answer is given up after this long.
const ANSWER_NS_MAX: u64 = 500 * MILLISECOND_NS;
/// After an answer that does not help, or where nobody can be asked.
const PAUSE_NS: u64 = 20 * MILLISECOND_NS;
/// After the disk refused a repair.
const DISK_PAUSE_NS: u64 = SECOND_NS;
/// A place that does not read back is read so often before that is believed.
pub(crate) const READS_MAX: u8 = 3;

const _: () = assert!(CONTENT_SIZE_MAX + REPAIR_OVERHEAD <= FRAME_SIZE_MAX, "any block's content fits one answer");

/// What a replica does about blocks that do not read back, its own and others'.
#[derive(Default)]
pub struct Repair {
    /// Counts the questions; names whom to ask next for what.
    attempt: usize,
    asking: Option<Asking>,
    /// Rebuilt and not handed to the background yet.
    rebuilt: Option<(Hole, AlignedBuffer)>,
    writing: Option<Hole>,
    not_before: Instant,
    /// When the leader is asked for a snapshot again.
    snapshot_not_before: Instant,
    /// The holes that were there at the start have been told of.
    announced: bool,
    serving: Vec<Serving>,
}

struct Asking {
    peer: NodeId,
    hole: Hole,
    until: Instant,
}

/// What a peer asked for, while it is read from disk. One question per peer.
struct Serving {
    peer: NodeId,
    request: RepairRequest,
    /// From `request.first` on.
    found: Vec<u8>,
    asked: Option<u64>,
    /// Reads in a row that failed.
    faults: u8,
}

impl Repair {
    /// Whether answers from the background are awaited.
    #[must_use]
    pub fn awaits_background(&self) -> bool {
        self.writing.is_some() || self.serving.iter().any(|serving| serving.asked.is_some())
    }

    /// When the next question is due.
    fn next_deadline(&self) -> Instant {
        self.asking.as_ref().map_or(self.not_before, |asking| asking.until)
    }
}

impl<S: Service> Core<S> {
    /// Answers others, and goes on with whatever does not read back here.
    #[inline]
    pub(crate) fn repair(&mut self, env: &mut impl Env) {
        // In nearly every turn of nearly every life there is nothing to do here.
        if !self.disk.is_whole() || !self.raft.is_whole() || !self.repair.serving.is_empty() {
            self.go_on_repairing(env);
        }
    }

    #[cold]
    fn go_on_repairing(&mut self, env: &mut impl Env) {
        self.serve_repairs(env);
        let whole = self.disk.is_whole();
        self.raft.set_whole(whole);
        if whole {
            self.repair.asking = None;
            self.repair.rebuilt = None;
            return;
        }
        self.announce_holes();
        if let Some((hole, block)) = self.repair.rebuilt.take() {
            if env.repair_block(hole.segment(), hole.offset(), block) {
                self.repair.writing = Some(hole);
            } else {
                self.repair.not_before = self.now.instant.after(PAUSE_NS);
            }
        }
        let waits = self
            .repair
            .asking
            .as_ref()
            .is_some_and(|asking| self.now.instant < asking.until && self.peers.link(asking.peer).is_some());
        if self.repair.writing.is_none() && !waits && self.now.instant >= self.repair.not_before {
            self.ask_for_repair();
        }
    }

    /// When [`Core::repair`] wants to be called again, if there is something to repair.
    pub(crate) fn repair_deadline(&self) -> Option<Instant> {
        let waits = self.repair.rebuilt.is_some() || self.repair.writing.is_none();
        (waits && !self.disk.writer.holes().is_empty()).then(|| self.repair.next_deadline())
    }

    fn announce_holes(&mut self) {
        if !std::mem::replace(&mut self.repair.announced, true) {
            for at in 0..self.disk.writer.holes().len() {
                let hole = &self.disk.writer.holes()[at];
                self.notice(Notice::Repairing(hole.first(), hole.until()));
            }
        }
    }

    /// A place did not read back, [`READS_MAX`] times in a row.
    pub(crate) fn note_hole(&mut self, hole: &Hole) {
        if self.disk.writer.note_hole(hole) {
            self.repair.announced = true;
            self.notice(Notice::Repairing(hole.first(), hole.until()));
        }
    }

    /// Asks the next peer, or memory, for the next hole.
    fn ask_for_repair(&mut self) {
        self.repair.asking = None;
        self.repair.not_before = self.now.instant.after(PAUSE_NS);
        self.ask_for_snapshot_beyond_cut_holes();
        let holes = self.disk.writer.holes().iter().filter(|hole| !hole.is_cut());
        let (peers_len, holes_len) = (self.peers.connected().count(), holes.clone().count());
        let turn = self.repair.attempt;
        let Some(hole) = holes.cycle().nth(turn / peers_len.max(1) % holes_len.max(1)).copied() else { return };
        self.repair.attempt += 1;
        if let Some((first, second)) = self.tail.range(hole.first(), hole.end()) {
            let stream = [first, second].concat();
            self.rebuild(&hole, &stream);
            return;
        }
        let Some((peer, id)) = self.peers.connected().nth(turn % peers_len.max(1)) else { return };
        let request = RepairRequest { first: hole.first(), end: hole.end(), term: hole.term() };
        if let Some(link) = self.links.get_dirty(id)
            && peer::put_repair_request(&mut link.out, &request).is_ok()
        {
            self.repair.asking = Some(Asking { peer, hole, until: self.now.instant.after(ANSWER_NS_MAX) });
        }
    }

    /// A block that was cut after it had rotted cannot be rebuilt: nobody has all that was in it. What its log holds from
    /// there on is of use only behind a snapshot.
    fn ask_for_snapshot_beyond_cut_holes(&mut self) {
        let Some(beyond) = self.disk.writer.holes().iter().rfind(|hole| hole.is_cut()).map(Hole::until) else { return };
        if self.now.instant < self.repair.snapshot_not_before {
            return;
        }
        self.repair.snapshot_not_before = self.now.instant.after(ANSWER_NS_MAX);
        let link = self.raft.leader().and_then(|leader| self.peers.link(leader));
        if let Some(link) = link.and_then(|id| self.links.get_dirty(id)) {
            // Without room it is asked again.
            let _ = peer::put_snapshot_request(&mut link.out, &SnapshotRequest { beyond });
        }
    }

    pub(crate) fn on_repair_reply(&mut self, from: NodeId, reply: &RepairReply, data: &[u8]) {
        let asked = |asking: &mut Asking| {
            asking.peer == from && asking.hole.first() == reply.first && asking.hole.end() == reply.end
        };
        let Some(Asking { hole, .. }) = self.repair.asking.take_if(asked) else { return };
        if reply.found {
            self.rebuild(&hole, data);
        } else {
            self.repair.not_before = self.now.instant.after(PAUSE_NS);
        }
    }

    fn rebuild(&mut self, hole: &Hole, stream: &[u8]) {
        let mut block = AlignedBuffer::new(hole.size());
        match hole.rebuild(stream, &mut block) {
            Ok(_) => {
                self.repair.rebuilt = Some((*hole, block));
                self.learn_record_time(hole.first(), stream);
            }
            Err(_) => self.counters.repairs_refused += 1,
        }
    }

    /// What is appended next must not be before what stood in the hole.
    fn learn_record_time(&mut self, first: Position, stream: &[u8]) {
        let (mut at, mut rest) = (first, stream);
        while let Ok(record) = Record::parse_trusted(at, rest) {
            self.log_time = self.log_time.max(record.header.timestamp);
            at = record.header.position;
            rest = &rest[record.bytes.len()..];
        }
    }

    pub(crate) fn on_block_repaired(&mut self, segment: SegmentNumber, offset: u64, outcome: Result<(), i32>) {
        let written = self.repair.writing.take();
        match outcome {
            Ok(()) => {
                self.disk.writer.on_repaired(segment, offset);
                self.counters.blocks_repaired += 1;
                if let Some(hole) = written {
                    self.notice(Notice::Repaired(hole.first(), hole.end()));
                }
            }
            Err(errno) => {
                self.repair.not_before = self.now.instant.after(DISK_PAUSE_NS);
                self.notice(Notice::RepairFailed(errno));
            }
        }
    }

    /// A peer's block does not read back. Answered from memory at once, from disk as soon as it is read.
    pub(crate) fn on_repair_request(&mut self, from: NodeId, request: &RepairRequest) {
        self.repair.serving.retain(|serving| serving.peer != from);
        if !self.has_same(request) {
            self.send_snapshot_instead(from, request.first, request.end);
            self.answer_repair(from, request, None);
        } else if let Some((first, second)) = self.tail.range(request.first, request.end) {
            let stream = [first, second].concat();
            self.answer_repair(from, request, Some(&stream));
        } else {
            let serving = Serving { peer: from, request: *request, found: Vec::new(), asked: None, faults: 0 };
            self.repair.serving.push(serving);
        }
    }

    /// Whether this replica's log has the same bytes there: one leader per term writes one stream.
    fn has_same(&self, request: &RepairRequest) -> bool {
        let terms = self.raft.terms();
        let size = request.end.since(request.first);
        request.first < request.end
            && size <= CONTENT_SIZE_MAX as u64
            && request.end <= terms.last()
            && terms.term_of_byte(request.first) == Some(request.term)
            && terms.run_end(request.first) >= request.end
    }

    fn answer_repair(&mut self, to: NodeId, request: &RepairRequest, data: Option<&[u8]>) {
        let reply = RepairReply { first: request.first, end: request.end, term: request.term, found: data.is_some() };
        let Some(id) = self.peers.link(to) else { return };
        if let Some(link) = self.links.get_dirty(id) {
            // Without room it is lost; the peer asks again.
            let _ = peer::put_repair_reply(&mut link.out, &reply, data.unwrap_or_default());
        }
    }

    /// Reads on for those who asked.
    fn serve_repairs(&mut self, env: &mut impl Env) {
        for at in (0..self.repair.serving.len()).rev() {
            let serving = &self.repair.serving[at];
            if serving.asked.is_some() {
                continue;
            }
            let (peer, request) = (serving.peer, serving.request);
            let from = request.first.advance(serving.found.len() as u64);
            let same = self.has_same(&request);
            if same
                && from < request.end
                && let Some(location) = self.disk.locate(from)
            {
                let ticket = self.peers.next_ticket();
                let read = ReadRequest { purpose: ReadPurpose::Repair(peer), location, from, ticket };
                if env.read_log(read) {
                    self.repair.serving[at].asked = Some(ticket);
                }
                continue;
            }
            let found = self.repair.serving.swap_remove(at).found;
            let size = usize::try_from(request.end.since(request.first)).expect("bounded by a block");
            self.answer_repair(peer, &request, found.get(..size).filter(|_| same));
        }
    }

    pub(crate) fn on_repair_read(&mut self, node: NodeId, request: &ReadRequest, chunk: Result<Chunk, ReadFailure>) {
        let mut serving = self.repair.serving.iter_mut();
        let Some(serving) = serving.find(|serving| serving.peer == node && serving.asked == Some(request.ticket))
        else {
            return;
        };
        serving.asked = None;
        match chunk {
            Ok(chunk) if !chunk.bytes.is_empty() => {
                serving.faults = 0;
                serving.found.extend_from_slice(&chunk.bytes);
            }
            failed => {
                serving.faults += 1;
                if serving.faults >= READS_MAX {
                    let (peer, asked) = (serving.peer, serving.request);
                    self.repair.serving.retain(|serving| serving.peer != peer);
                    self.answer_repair(peer, &asked, None);
                    if let Err(ReadFailure::Hole(hole)) = failed {
                        self.note_hole(&hole);
                    }
                }
            }
        }
    }

    /// The first position that cannot be read, if there is one, and whether only a restart helps.
    pub(crate) fn first_hole(&self) -> Option<(Position, Position, bool)> {
        let hole = self.disk.writer.holes().first()?;
        Some((hole.first(), hole.until(), hole.is_cut()))
    }
}
