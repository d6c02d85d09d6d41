//! The log on disk: which block is written when, and what is durable. Term and vote beside it.

use evershard_consensus::{Durability, HardState, Standing, TermTable};
use evershard_log::{
    BLOCK_ALIGNMENT, History, Hole, Location, Plan, SegmentHeader, SlotContent, WRITE_SIZE_MAX, Writer, encode_slot,
    slot_offset,
};
use evershard_protocol::bugs::{self, Bug};
use evershard_protocol::time::{MILLISECOND_NS, SECOND_NS};
use evershard_protocol::{Instant, Position, Term};
use evershard_service::Service;
use evershard_sys::buffer::AlignedBuffer;

use crate::core::Core;
use crate::env::Env;
use crate::notice::Notice;

/// Blocks that may be on their way to the disk at a time.
pub const WRITES_IN_FLIGHT_MAX: usize = 4;
/// Where acknowledgements do not wait for the disk, it gets a block when this much has gathered ...
const REPLICATED_FLUSH_SIZE: u64 = 128 * 1024;
/// ... or when the oldest of it has waited this long.
const REPLICATED_FLUSH_NS: u64 = 2 * MILLISECOND_NS;
/// A segment that could not be prepared is tried again after this long.
const SEGMENT_RETRY_NS: u64 = SECOND_NS;

/// The disk side of a shard.
pub struct Disk {
    pub(crate) writer: Writer,
    /// Block buffers that are not on their way. Invariant: with those in flight, [`WRITES_IN_FLIGHT_MAX`].
    free: Vec<AlignedBuffer>,
    slot_buffer: Option<AlignedBuffer>,
    /// What the slots say, or will say when the write under way is done.
    slot: SlotContent,
    saving: Option<HardState>,
    /// Since when something waits to be written.
    waiting_since: Option<Instant>,
    /// A segment is being prepared.
    preparing: bool,
    /// When a failed preparation is tried again.
    retry_at: Option<Instant>,
    segment_size: u64,
    /// The error that ended all writing.
    failed: Option<i32>,
}

impl Disk {
    /// Takes over what recovery found.
    #[must_use]
    pub fn new(writer: Writer, slot: SlotContent, segment_size: u64) -> Self {
        Self {
            writer,
            free: (0..WRITES_IN_FLIGHT_MAX).map(|_| AlignedBuffer::new(WRITE_SIZE_MAX)).collect(),
            slot_buffer: Some(AlignedBuffer::new(BLOCK_ALIGNMENT)),
            slot,
            saving: None,
            waiting_since: None,
            preparing: false,
            retry_at: None,
            segment_size,
            failed: None,
        }
    }

    /// Everything up to here is on stable storage.
    #[must_use]
    pub fn durable(&self) -> Position {
        if bugs::is_on(Bug::AckBeforeDurable) {
            return self.writer.submitted();
        }
        self.writer.durable()
    }

    /// Where durable log content from `position` on is to be read; `None` if there is none, or it is in a hole.
    #[must_use]
    pub fn locate(&self, position: Position) -> Option<Location> {
        if position >= self.durable() || self.writer.hole_at(position).is_some() {
            return None;
        }
        self.writer.table().locate(position).map(|location| location.until(self.durable()))
    }

    /// Blocks that do not read back.
    #[must_use]
    pub fn holes(&self) -> &[Hole] {
        self.writer.holes()
    }

    /// Whether all of the log reads back, as far as is known.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.writer.holes().is_empty()
    }

    /// The error that ended all writing.
    #[must_use]
    pub fn failed(&self) -> Option<i32> {
        self.failed
    }

    /// Whether commands wait because no segment could be prepared.
    #[must_use]
    pub fn lacks_space(&self) -> bool {
        self.retry_at.is_some()
    }

    /// Whether answers from the background are awaited.
    #[must_use]
    pub fn awaits_background(&self) -> bool {
        self.preparing
    }

    /// When the disk side wants to be looked at again at the latest.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        let flush = self.waiting_since.map(|since| since.after(REPLICATED_FLUSH_NS));
        [flush, self.retry_at].into_iter().flatten().min()
    }

    /// Everything handed over is durable and nothing is on its way.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.writer.in_flight() == 0 && self.saving.is_none() && self.slot_buffer.is_some()
    }
}

impl<S: Service> Core<S> {
    /// Hands the disk what is new in the log.
    pub(crate) fn write_log(&mut self, env: &mut impl Env) {
        self.prepare_segment(env);
        while self.tail.end() > self.disk.writer.submitted() && self.is_time_to_write() {
            let Some(mut buffer) = self.disk.free.pop() else { return };
            let plan = self.disk.writer.plan(&self.tail, self.raft.commit(), &Terms(self.raft.terms()), &mut buffer);
            let Plan::Write(write) = plan else {
                self.disk.free.push(buffer);
                return;
            };
            env.write_block(write.segment, write.offset, buffer, write.size, write.sequence);
            self.disk.waiting_since = None;
            if bugs::is_on(Bug::AckBeforeDurable) {
                self.raft.on_durable(self.disk.durable());
            }
        }
    }

    /// Acknowledgements wait for the disk: at once. They do not: let some gather, one block at a time, so that the
    /// disk costs the commands little.
    fn is_time_to_write(&mut self) -> bool {
        let now = self.now.instant;
        let since = *self.disk.waiting_since.get_or_insert(now);
        if self.config.durability == Durability::Durable || self.stopping {
            return true;
        }
        let waiting = self.tail.end().since(self.disk.writer.submitted());
        self.disk.writer.in_flight() == 0
            && (waiting >= REPLICATED_FLUSH_SIZE || now.since(since) >= REPLICATED_FLUSH_NS)
    }

    fn prepare_segment(&mut self, env: &mut impl Env) {
        if self.disk.preparing || self.disk.retry_at.is_some_and(|at| self.now.instant < at) {
            return;
        }
        let Some(number) = self.disk.writer.wants_segment() else { return };
        let header = SegmentHeader {
            identity: self.identity.for_log(),
            number,
            nonce: nonce(self.identity.incarnation.0, number.0),
            size: self.disk.segment_size,
        };
        self.disk.preparing = env.prepare_segment(header);
    }

    pub(crate) fn on_segment_prepared(&mut self, header: SegmentHeader) {
        self.disk.preparing = false;
        if self.disk.retry_at.take().is_some() {
            self.notice(Notice::SegmentsAgain);
        }
        self.disk.writer.add_segment(header);
    }

    pub(crate) fn on_segment_failed(&mut self, errno: i32) {
        self.disk.preparing = false;
        if self.disk.retry_at.is_none() {
            self.notice(Notice::SegmentFailed(errno));
        }
        self.disk.retry_at = Some(self.now.instant.after(SEGMENT_RETRY_NS));
    }

    pub(crate) fn on_block_written(&mut self, sequence: u64, buffer: AlignedBuffer, outcome: Result<(), i32>) {
        self.disk.free.push(buffer);
        let outcome = if bugs::is_on(Bug::WriteErrorIgnored) { Ok(()) } else { outcome };
        self.disk.writer.on_written(sequence, outcome.map_err(drop));
        match outcome {
            Ok(()) => self.raft.on_durable(self.disk.durable()),
            Err(errno) => self.on_disk_failed(errno),
        }
    }

    /// A failed write is never tried again: what the kernel still holds of it is unknown.
    fn on_disk_failed(&mut self, errno: i32) {
        if self.disk.failed.is_none() {
            self.disk.failed = Some(errno);
            self.notice(Notice::DiskFailed(errno));
        }
    }

    /// Has the term and vote saved that the core wants saved.
    pub(crate) fn save_hard_state(&mut self, env: &mut impl Env) {
        if self.disk.saving.is_some() || self.disk.failed.is_some() {
            return;
        }
        let Some(hard) = self.raft.hard_state_to_save() else { return };
        let clean_end = None;
        if self.write_slot(env, hard, clean_end) {
            self.disk.saving = Some(hard);
        }
    }

    /// Leaves the mark of a clean stop: everything is durable, nothing was lost. False while a write is under way.
    pub(crate) fn save_clean_stop(&mut self, env: &mut impl Env) -> bool {
        let hard = HardState { term: self.disk.slot.term, vote: self.disk.slot.vote, standing: self.raft.standing() };
        self.disk.failed.is_some() || self.write_slot(env, hard, Some(self.disk.durable()))
    }

    fn write_slot(&mut self, env: &mut impl Env, hard: HardState, clean_end: Option<Position>) -> bool {
        let Some(mut buffer) = self.disk.slot_buffer.take() else { return false };
        let unsafe_if_killed = self.config.durability == Durability::Replicated && clean_end.is_none();
        let slot = SlotContent {
            sequence: self.disk.slot.sequence + 1,
            term: hard.term,
            vote: hard.vote,
            recovering: hard.standing == Standing::Recovering || unsafe_if_killed,
            clean_end,
            ..self.disk.slot
        };
        buffer.copy_from_slice(&encode_slot(&slot));
        self.disk.slot = slot;
        env.write_slot(slot_offset(slot.sequence), buffer);
        true
    }

    pub(crate) fn on_slot_written(&mut self, buffer: AlignedBuffer, outcome: Result<(), i32>) {
        self.disk.slot_buffer = Some(buffer);
        let saved = self.disk.saving.take();
        match (outcome, saved) {
            (Ok(()), Some(saved)) => {
                let before = self.raft.standing();
                self.raft.on_hard_state_saved(saved, &mut self.output);
                if before == Standing::Recovering && self.raft.standing() == Standing::Sound {
                    self.notice(Notice::Sound);
                }
            }
            (Ok(()), None) => {}
            (Err(errno), _) => self.on_disk_failed(errno),
        }
    }
}

/// Consensus's table of terms, as the log wants it for the start of a segment.
struct Terms<'a>(&'a TermTable);

impl History for Terms<'_> {
    fn run_end(&self, position: Position) -> Position {
        self.0.run_end(position)
    }

    fn runs(&self, each: &mut dyn FnMut(Term, Position)) {
        let base = self.0.base();
        if let Some(term) = self.0.term_at(base).filter(|term| *term > Term(0)) {
            each(term, Position(base.0 - 1));
        }
        self.0.runs().for_each(|(term, start)| each(term, start));
    }
}

impl crate::core::Identity {
    /// What the log's files are marked with.
    #[must_use]
    pub fn for_log(&self) -> evershard_log::Identity {
        evershard_log::Identity { cluster: self.cluster, shard: self.shard, node: self.node }
    }
}

/// A number that no other segment of this log is likely to have: the finaliser of splitmix64 over both.
pub(crate) fn nonce(incarnation: u64, segment: u64) -> u64 {
    let mut mixed = incarnation.wrapping_add(segment.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    (mixed ^ (mixed >> 31)).max(1)
}
