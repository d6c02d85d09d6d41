//! When a shard takes a snapshot, what it keeps, and what of its log may go.
//!
//! A snapshot is due when so many segments were begun since the last one, or when an operator asks. A small state is saved
//! by the hot instance between two turns: that costs far less than to go through the log again, and no more than a turn. Of a
//! larger one the shadow ([`crate::shadow`]) takes it in the background. In this order, whatever happens in between:
//!
//! 1. The snapshot's file is written under another name, made durable, and gets its name, durably.
//! 2. The log below the snapshot *before* it is dropped, and snapshots older than that.
//!
//! So there are two snapshots at any time, once there were two, and the log from the older one on: if the newer one does
//! not verify, the older one and the log say the same. A crash between the steps leaves more than is needed, never less.

use evershard_log::{Location, SegmentNumber};
use evershard_protocol::bugs::{self, Bug};
use evershard_protocol::time::{MILLISECOND_NS, SECOND_NS};
use evershard_protocol::{Instant, Position};
use evershard_service::Service;

use crate::core::Core;
use crate::env::{Env, ReadFailure};
use crate::notice::Notice;
use crate::shadow::{DropOrder, SnapshotFailure, SnapshotOrder};
use crate::shipping::Shipping;
use crate::snapshot::{Mark, Snapshot, encode_within};

/// Snapshots that are kept.
pub const SNAPSHOTS_KEPT: usize = 2;
/// While others are brought up to date, the log is kept for so many snapshots ...
const HOLD_INTERVALS: u64 = 8;
/// ... or so many segments, whichever is more.
const HOLD_SEGMENTS_MIN: u64 = 32;
/// How often it is looked whether a snapshot is due, or needed by another replica.
const LOOK_NS: u64 = 50 * MILLISECOND_NS;
/// A snapshot that could not be taken is tried again after this long.
const RETRY_NS: u64 = 5 * SECOND_NS;

/// A shard's snapshots.
pub struct Snapshots {
    /// Those on disk. Invariant: ascending.
    kept: Vec<Position>,
    /// A snapshot is due when so many segments were begun since the last one; 0: only when asked.
    every_segments: u64,
    /// One is to be taken here, as soon as the log is durable up to there.
    due: Option<Mark>,
    /// The hot instance's state is too large to be saved by itself; found out for the one that is due.
    is_large: bool,
    /// The shadow is at work on this one.
    taking: Option<Position>,
    /// Something may be dropped.
    drop_due: bool,
    dropping: bool,
    /// When it is looked next whether anything is due.
    look_at: Instant,
    /// None is ordered before.
    not_before: Instant,
    /// On their way to other replicas, and from one.
    pub(crate) shipping: Shipping,
}

impl Snapshots {
    /// Takes over what the start found.
    #[must_use]
    pub fn new(kept: Vec<Position>, every_segments: u64) -> Self {
        Self {
            kept,
            every_segments,
            due: None,
            is_large: false,
            taking: None,
            // A crash may have come between a snapshot and the drop that it allows.
            drop_due: true,
            dropping: false,
            look_at: Instant(0),
            not_before: Instant(0),
            shipping: Shipping::default(),
        }
    }

    /// The newest one.
    #[must_use]
    pub fn newest(&self) -> Option<Position> {
        self.kept.last().copied()
    }

    /// Whether answers from the background are awaited.
    #[must_use]
    pub fn awaits_background(&self) -> bool {
        self.taking.is_some() || self.dropping || self.shipping.awaits_background()
    }

    /// Whether one of this replica's own is being taken at this position.
    #[must_use]
    pub fn is_taking(&self, position: Position) -> bool {
        self.taking == Some(position)
    }

    fn begin(&mut self, mark: Option<Mark>) {
        self.due = mark;
        self.is_large = false;
    }

    /// Another one is on disk.
    pub(crate) fn keep(&mut self, position: Position) {
        let at = self.kept.partition_point(|kept| *kept < position);
        if self.kept.get(at) != Some(&position) {
            self.kept.insert(at, position);
        }
        self.drop_due = true;
    }

    /// One took the place of the log: what is older is of no use without the log behind it.
    pub(crate) fn keep_only(&mut self, position: Position) {
        self.kept.clear();
        self.due = None;
        self.keep(position);
    }
}

impl<S: Service> Core<S> {
    /// Goes on with whatever is due: taking, dropping, sending, taking over.
    #[inline]
    pub(crate) fn keep_snapshots(&mut self, env: &mut impl Env) {
        // None of this is in a hurry, and most turns are.
        if self.now.instant >= self.snapshots.look_at || !self.snapshots.shipping.is_idle() {
            self.go_on_with_snapshots(env);
        }
    }

    #[cold]
    fn go_on_with_snapshots(&mut self, env: &mut impl Env) {
        let now = self.now.instant;
        if now >= self.snapshots.look_at {
            self.snapshots.look_at = now.after(LOOK_NS);
            if now >= self.snapshots.not_before {
                if self.is_snapshot_due() {
                    let mark = self.mark();
                    self.snapshots.begin(mark);
                }
                self.order_snapshot(env);
            }
            self.drop_what_may_go(env);
        }
        self.ship(env);
    }

    /// Whether enough was written since the last snapshot.
    fn is_snapshot_due(&self) -> bool {
        let Snapshots { every_segments, due, taking, .. } = &self.snapshots;
        let current = self.disk.writer.current_segment();
        if *every_segments == 0 || due.is_some() || taking.is_some() {
            return false;
        }
        let since = self.snapshots.newest().or(self.disk.writer.table().first());
        let begun = since.and_then(|since| self.disk.locate(since)).map(|location| location.segment);
        matches!((begun, current), (Some(begun), Some(current)) if current.0.saturating_sub(begun.0) >= *every_segments)
    }

    /// An operator asks for a snapshot; says how it went.
    pub(crate) fn ask_for_snapshot(&mut self) -> Result<Position, &'static str> {
        if self.snapshots.due.is_some() || self.snapshots.taking.is_some() {
            return Err("a snapshot is being taken already");
        }
        if self.snapshots.newest() >= Some(self.replica.applied) {
            return Err("nothing was applied since the last snapshot");
        }
        let mark = self.mark();
        self.snapshots.begin(mark);
        self.snapshots.not_before = Instant(0);
        if self.snapshots.due.is_some() {
            self.save_hot_instance(self.config.hot_save_size_max);
        }
        let due = self.snapshots.due.as_ref().map(|mark| mark.position).or(self.snapshots.taking);
        due.ok_or("nothing can be saved yet: this replica has applied too little, or has stopped applying")
    }

    /// Where a snapshot would stand now. None before there is a configuration in the log, and where nothing is applied
    /// any more.
    fn mark(&self) -> Option<Mark> {
        let position = self.replica.applied;
        let (known, membership) = self.raft.membership_entry_at(position)?;
        if known == Position::ZERO || self.replica.halted.is_some() {
            return None;
        }
        let term = self.raft.terms().term_at(position)?;
        Some(Mark { position, term, membership: self.encode_membership(&membership) })
    }

    fn order_snapshot(&mut self, env: &mut impl Env) {
        if self.snapshots.due.is_none() || self.snapshots.taking.is_some() || self.disk.failed().is_some() {
            return;
        }
        if !self.snapshots.is_large && self.save_hot_instance(self.config.hot_save_size_max) {
            return;
        }
        let Some(mark) = self.snapshots.due.as_ref().filter(|mark| mark.position <= self.disk.durable()) else {
            return;
        };
        let position = mark.position;
        let previous = self.snapshots.kept.iter().rev().find(|kept| **kept < position).copied();
        let from = previous.unwrap_or(Position::ZERO);
        let Some(locations) = self.locations(from, position) else {
            // A block there does not read back yet: after its repair it does.
            self.snapshots.due = None;
            self.snapshots.not_before = self.now.instant.after(RETRY_NS);
            if self.snapshots.kept.is_empty() {
                // No snapshot is good any more, and the log's beginning is dropped: no shadow can be built, and the next
                // start would find nothing to begin with. The hot instance is all there is, however long that takes.
                self.save_hot_instance(usize::MAX);
            }
            return;
        };
        let early = bugs::is_on(Bug::TrimBeforePublish).then(|| locations.last().map(|last| last.segment)).flatten();
        let order = SnapshotOrder { previous, mark: mark.clone(), locations };
        if env.take_snapshot(order) {
            self.snapshots.due = None;
            self.snapshots.taking = Some(position);
            if let Some(before) = early {
                self.forget_log_before(before);
                env.drop_log(DropOrder { segments_before: before, snapshots_before: None });
            }
        }
    }

    /// Saves the hot instance as it is now, if that takes no more than `size_max` bytes. What it has applied is committed,
    /// so it need not be in this replica's log on disk. True if it was done, or is to be tried again.
    fn save_hot_instance(&mut self, size_max: usize) -> bool {
        let (cluster, shard) = (self.identity.cluster, self.identity.shard);
        let Some(mark) = self.mark() else { return false };
        if !self.snapshots.shipping.is_free() {
            return true;
        }
        let saved = encode_within(&self.replica, cluster, shard, &mark, size_max);
        let saved = saved.ok().flatten().and_then(|bytes| Snapshot::parse(bytes, cluster, shard).ok());
        let Some(snapshot) = saved else {
            self.snapshots.is_large = true;
            return false;
        };
        self.snapshots.due = None;
        self.snapshots.taking = Some(mark.position);
        self.snapshots.shipping.hand_in(snapshot);
        true
    }

    /// Where the log lies on disk; `None` if a part of it cannot be read.
    fn locations(&self, from: Position, until: Position) -> Option<Vec<Location>> {
        let mut found = Vec::new();
        let mut at = from;
        while at < until {
            let location = self.disk.locate(at)?;
            at = location.end;
            found.push(location);
        }
        Some(found)
    }

    pub(crate) fn on_snapshot_taken(&mut self, position: Position, outcome: Result<u64, SnapshotFailure>) {
        self.snapshots.taking = None;
        match outcome {
            Ok(size) => {
                // What a snapshot of another replica has replaced meanwhile is of no use.
                if self.snapshots.newest().is_none_or(|newest| newest < position) {
                    self.snapshots.keep(position);
                }
                self.notice(Notice::SnapshotTaken(position, size));
            }
            // A snapshot of another replica has taken the place of the log that the shadow was reading.
            Err(_) if self.snapshots.newest() > Some(position) => {}
            Err(failure) => {
                if !matches!(failure, SnapshotFailure::Previous(_)) {
                    self.snapshots.not_before = self.now.instant.after(RETRY_NS);
                }
                let errno = if let SnapshotFailure::Disk(errno) = failure { errno } else { 0 };
                self.notice(Notice::SnapshotFailed(position, errno));
                match failure {
                    SnapshotFailure::Log(ReadFailure::Hole(hole)) => self.note_hole(&hole),
                    SnapshotFailure::Previous(previous) => self.distrust_snapshot(previous),
                    _ => {}
                }
            }
        }
    }

    /// A snapshot turned out not to be what was saved: the one before it counts, and a new one is taken.
    pub(crate) fn distrust_snapshot(&mut self, position: Position) {
        self.snapshots.kept.retain(|kept| *kept != position);
        if self.snapshots.due.is_none() && self.snapshots.taking.is_none() {
            let mark = self.mark();
            self.snapshots.begin(mark);
        }
    }

    /// Step 2 of the order above.
    fn drop_what_may_go(&mut self, env: &mut impl Env) {
        if !self.snapshots.drop_due || self.snapshots.dropping {
            return;
        }
        let kept = &self.snapshots.kept;
        let keep = kept[kept.len().saturating_sub(SNAPSHOTS_KEPT)..].to_vec();
        // The log may begin behind the older one: then it was begun anew, with the newer one in its place.
        let oldest_needed = if keep.len() < SNAPSHOTS_KEPT { Position::ZERO } else { keep[0] };
        let Some(first) = self.disk.writer.table().first() else { return };
        let Some(needed) = self.disk.locate(oldest_needed.max(first)).map(|location| location.segment) else { return };
        let before = self.held_from().map_or(needed, |held| held.min(needed));
        let is_held = before < needed;
        if is_held && self.disk.writer.first_segment().is_none_or(|there| there >= before) {
            return;
        }
        // One that is being sent stays: a large one takes longer than the next two.
        let sent = self.snapshots.shipping.needed(self.now.instant).min();
        let snapshots_before = keep.first().map(|oldest| sent.map_or(*oldest, |sent| sent.min(*oldest)));
        let order = DropOrder { segments_before: before, snapshots_before };
        if env.drop_log(order) {
            self.snapshots.drop_due = is_held;
            self.snapshots.dropping = true;
            self.snapshots.kept = keep;
            self.forget_log_before(order.segments_before);
            if let [older, ..] = self.snapshots.kept[..]
                && self.snapshots.kept.len() == SNAPSHOTS_KEPT
            {
                self.forgive_holes_before(older);
            }
        }
    }

    /// The segment from which on others still need this leader's log: who is sent a snapshot needs what comes behind it, and
    /// who takes over the log what it has not got. They are waited for, or a busy shard would drop each part before anybody
    /// could have it; but not for ever.
    fn held_from(&self) -> Option<SegmentNumber> {
        self.leading?;
        let current = self.disk.writer.current_segment()?;
        let others = self.peers.known().iter().filter_map(|node| self.raft.peer(node));
        let in_step = others.filter(|peer| peer.connected && !peer.needs_snapshot && peer.received > Position::ZERO);
        let received = in_step.map(|peer| peer.received);
        let lowest = received.chain(self.snapshots.shipping.needed(self.now.instant)).min()?;
        let held_max = (HOLD_INTERVALS * self.snapshots.every_segments).max(HOLD_SEGMENTS_MIN);
        let location = self.disk.locate(lowest)?;
        Some(SegmentNumber(location.segment.0.max(current.0.saturating_sub(held_max))))
    }

    /// Nobody reads there any more from now on, and whoever needs it gets a snapshot.
    fn forget_log_before(&mut self, segment: SegmentNumber) {
        self.disk.writer.forget_before(segment);
        if let Some(first) = self.disk.writer.table().first() {
            self.raft.on_trimmed(first);
        }
    }

    /// Holes below a snapshot are no trouble any more. Whoever needs what was there gets the snapshot.
    pub(crate) fn forgive_holes_before(&mut self, position: Position) {
        if self.disk.writer.forgive_before(position) {
            self.raft.on_trimmed(position);
        }
    }

    pub(crate) fn on_log_dropped(&mut self, outcome: Result<(), i32>) {
        self.snapshots.dropping = false;
        if let Err(errno) = outcome {
            // What is there still is dropped with the next one.
            self.notice(Notice::DropFailed(errno));
        }
    }
}
