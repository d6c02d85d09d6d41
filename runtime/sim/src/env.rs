//! The world below one simulated shard: a letterbox in, a letterbox out.
//!
//! The world fills [`SimEnv::push`] and turns the shard; the shard drains the one and fills [`SimEnv::actions`], which
//! the world takes care of afterwards. Nothing happens inside: the models are [`crate::disk`] and [`crate::network`].

use std::cell::Cell;
use std::collections::VecDeque;

use evershard_log::{SegmentHeader, SegmentNumber};
use evershard_node::env::{Chunk, Env, Event, Idle, LinkId, Now, ReadFailure, ReadRequest};
use evershard_node::notice::Notice;
use evershard_node::shadow::{DropOrder, SnapshotFailure, SnapshotOrder};
use evershard_node::snapshot::Snapshot;
use evershard_protocol::limits::LINKS_MAX;
use evershard_protocol::{NodeId, Position};
use evershard_sys::buffer::AlignedBuffer;

use crate::shelf::Job;

/// Notices kept for the trace; more of one turn are dropped.
const NOTICES_LEN_MAX: usize = 64;
/// Requests to the background that may wait; more are refused, as by a full desk.
const BACKGROUND_LEN_MAX: usize = 16;

/// What has happened, waiting for the shard's next turn.
pub enum Happened {
    /// See [`Event::Accepted`].
    Accepted(LinkId),
    /// See [`Event::Connected`].
    Connected(LinkId),
    /// See [`Event::Received`].
    Received(LinkId, Vec<u8>),
    /// See [`Event::Sent`].
    Sent(LinkId, Vec<u8>),
    /// See [`Event::Closed`].
    Closed(LinkId),
    /// See [`Event::BlockWritten`].
    BlockWritten(u64, AlignedBuffer, Result<(), i32>),
    /// See [`Event::SlotWritten`].
    SlotWritten(AlignedBuffer, Result<(), i32>),
    /// See [`Event::SegmentPrepared`].
    Prepared(SegmentHeader),
    /// See [`Event::SegmentFailed`].
    NotPrepared(i32),
    /// See [`Event::BlockRepaired`].
    Repaired(SegmentNumber, u64, Result<(), i32>),
    /// See [`Event::SnapshotTaken`].
    SnapshotTaken(Position, Result<u64, SnapshotFailure>),
    /// See [`Event::SnapshotKept`].
    SnapshotKept(Box<Snapshot>, Result<(), i32>),
    /// See [`Event::SnapshotRead`].
    SnapshotRead(Position, u64, Result<(Vec<u8>, u64), i32>),
    /// See [`Event::LogDropped`].
    LogDropped(Result<(), i32>),
    /// See [`Event::Read`].
    Read(ReadRequest, Result<Chunk, ReadFailure>),
}

/// What the shard wants done.
pub enum Action {
    /// See [`Env::connect`].
    Connect(LinkId, NodeId),
    /// See [`Env::send`].
    Send(LinkId, Vec<u8>),
    /// See [`Env::close`].
    Close(LinkId),
    /// See [`Env::write_block`]: segment, offset, buffer, size, sequence.
    WriteBlock(SegmentNumber, u64, AlignedBuffer, usize, u64),
    /// See [`Env::write_slot`].
    WriteSlot(u64, AlignedBuffer),
    /// See [`Env::prepare_segment`].
    Prepare(SegmentHeader),
    /// See [`Env::read_log`].
    Read(ReadRequest),
    /// See [`Env::repair_block`].
    Repair(SegmentNumber, u64, AlignedBuffer),
    /// Work that has to do with snapshots.
    Background(Job),
}

/// One shard's letterboxes and its table of links.
pub struct SimEnv {
    /// Both clocks, set by the world before each turn.
    pub now: Now,
    /// What they said when the process was stopped in the middle of a turn: behind its first look at them.
    pub earlier: Cell<Option<Now>>,
    /// What is to be done, in order.
    pub actions: Vec<Action>,
    /// How long the shard may wait.
    pub idle: Idle,
    /// What it told people.
    pub notices: Vec<Notice>,
    /// Requests that the background has not answered.
    pub background: usize,
    inbox: VecDeque<Happened>,
    generations: Vec<u32>,
    open: Vec<bool>,
    free: Vec<u32>,
}

impl SimEnv {
    /// Empty letterboxes.
    #[must_use]
    pub fn new() -> Self {
        Self {
            now: Now::default(),
            earlier: Cell::new(None),
            actions: Vec::new(),
            idle: Idle::Busy,
            notices: Vec::new(),
            background: 0,
            inbox: VecDeque::new(),
            generations: Vec::new(),
            open: Vec::new(),
            free: Vec::new(),
        }
    }

    /// Takes a free place in the table of links.
    pub fn occupy(&mut self) -> Option<LinkId> {
        let index = match self.free.pop() {
            Some(index) => index,
            None if self.open.len() < LINKS_MAX => {
                self.open.push(false);
                self.generations.push(0);
                u32::try_from(self.open.len() - 1).expect("bounded by LINKS_MAX")
            }
            None => return None,
        };
        let at = index as usize;
        self.generations[at] += 1;
        self.open[at] = true;
        Some(LinkId { index, generation: self.generations[at] })
    }

    /// Whether news of this link still interests the shard.
    #[must_use]
    pub fn is_open(&self, link: LinkId) -> bool {
        let at = link.index as usize;
        self.open.get(at).copied().unwrap_or(false) && self.generations[at] == link.generation
    }

    /// Something has happened.
    pub fn push(&mut self, happened: Happened) {
        match happened {
            Happened::Closed(link) => self.release(link),
            Happened::Accepted(link)
            | Happened::Connected(link)
            | Happened::Received(link, _)
            | Happened::Sent(link, _)
                if !self.is_open(link) => {}
            other => self.inbox.push_back(other),
        }
    }

    /// Whether the shard has something to look at.
    #[must_use]
    pub fn has_news(&self) -> bool {
        !self.inbox.is_empty()
    }

    fn ask_background(&mut self, action: impl FnOnce() -> Action) -> bool {
        let room = self.background < BACKGROUND_LEN_MAX;
        if room {
            self.background += 1;
            self.actions.push(action());
        }
        room
    }

    fn release(&mut self, link: LinkId) {
        if self.is_open(link) {
            self.open[link.index as usize] = false;
            self.free.push(link.index);
            self.inbox.push_back(Happened::Closed(link));
        }
    }
}

impl Default for SimEnv {
    fn default() -> Self {
        Self::new()
    }
}

impl Env for SimEnv {
    fn now(&self) -> Now {
        self.earlier.take().unwrap_or(self.now)
    }

    fn reap(&mut self, sink: &mut dyn FnMut(Event<'_>)) -> usize {
        let mut count = 0;
        while let Some(happened) = self.inbox.pop_front() {
            count += 1;
            match happened {
                // Closed by the shard since: the kernel would not report it any more.
                Happened::Accepted(link)
                | Happened::Connected(link)
                | Happened::Received(link, _)
                | Happened::Sent(link, _)
                    if !self.is_open(link) => {}
                Happened::Accepted(link) => sink(Event::Accepted { link }),
                Happened::Connected(link) => sink(Event::Connected { link }),
                Happened::Received(link, bytes) => sink(Event::Received { link, bytes: &bytes }),
                Happened::Sent(link, buffer) => sink(Event::Sent { link, buffer }),
                Happened::Closed(link) => sink(Event::Closed { link }),
                Happened::BlockWritten(sequence, buffer, outcome) => {
                    sink(Event::BlockWritten { sequence, buffer, outcome });
                }
                Happened::SlotWritten(buffer, outcome) => sink(Event::SlotWritten { buffer, outcome }),
                Happened::Prepared(header) => {
                    self.background -= 1;
                    sink(Event::SegmentPrepared { header });
                }
                Happened::NotPrepared(errno) => {
                    self.background -= 1;
                    sink(Event::SegmentFailed { errno });
                }
                Happened::Repaired(segment, offset, outcome) => {
                    self.background -= 1;
                    sink(Event::BlockRepaired { segment, offset, outcome });
                }
                Happened::SnapshotTaken(position, outcome) => {
                    self.background -= 1;
                    sink(Event::SnapshotTaken { position, outcome });
                }
                Happened::SnapshotKept(snapshot, outcome) => {
                    self.background -= 1;
                    sink(Event::SnapshotKept { snapshot, outcome });
                }
                Happened::SnapshotRead(position, offset, outcome) => {
                    self.background -= 1;
                    sink(Event::SnapshotRead { position, offset, outcome });
                }
                Happened::LogDropped(outcome) => {
                    self.background -= 1;
                    sink(Event::LogDropped { outcome });
                }
                Happened::Read(request, chunk) => {
                    self.background -= 1;
                    sink(Event::Read { request, chunk });
                }
            }
        }
        count
    }

    fn submit(&mut self, idle: Idle) {
        self.idle = idle;
    }

    fn connect(&mut self, peer: NodeId, _address: Option<&str>) -> Option<LinkId> {
        let link = self.occupy()?;
        self.actions.push(Action::Connect(link, peer));
        Some(link)
    }

    fn send(&mut self, link: LinkId, buffer: Vec<u8>) {
        if self.is_open(link) {
            self.actions.push(Action::Send(link, buffer));
        }
    }

    fn close(&mut self, link: LinkId) {
        if self.is_open(link) {
            self.actions.push(Action::Close(link));
            self.release(link);
        }
    }

    fn write_block(&mut self, segment: SegmentNumber, offset: u64, buffer: AlignedBuffer, size: usize, sequence: u64) {
        self.actions.push(Action::WriteBlock(segment, offset, buffer, size, sequence));
    }

    fn write_slot(&mut self, offset: u64, buffer: AlignedBuffer) {
        self.actions.push(Action::WriteSlot(offset, buffer));
    }

    fn prepare_segment(&mut self, header: SegmentHeader) -> bool {
        self.ask_background(|| Action::Prepare(header))
    }

    fn read_log(&mut self, request: ReadRequest) -> bool {
        self.ask_background(|| Action::Read(request))
    }

    fn repair_block(&mut self, segment: SegmentNumber, offset: u64, block: AlignedBuffer) -> bool {
        self.ask_background(|| Action::Repair(segment, offset, block))
    }

    fn take_snapshot(&mut self, order: SnapshotOrder) -> bool {
        self.ask_background(|| Action::Background(Job::Take(order)))
    }

    fn keep_snapshot(&mut self, snapshot: Box<Snapshot>) -> Result<(), Box<Snapshot>> {
        if self.background == BACKGROUND_LEN_MAX {
            return Err(snapshot);
        }
        self.ask_background(|| Action::Background(Job::Keep(snapshot)));
        Ok(())
    }

    fn read_snapshot(&mut self, position: Position, offset: u64) -> bool {
        self.ask_background(|| Action::Background(Job::Read(position, offset)))
    }

    fn drop_log(&mut self, order: DropOrder) -> bool {
        self.ask_background(|| Action::Background(Job::Drop(order)))
    }

    fn notify(&mut self, notice: Notice) {
        if self.notices.len() < NOTICES_LEN_MAX {
            self.notices.push(notice);
        }
    }

    fn stop_requested(&self) -> bool {
        // The world stops a shard by `Shard::begin_stop`.
        false
    }
}
