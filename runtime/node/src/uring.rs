//! The world below a shard in production: one io_uring for its log file, its peers and its clients.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use evershard_log::{SegmentHeader, SegmentNumber};
use evershard_protocol::limits::LINKS_MAX;
use evershard_protocol::{Instant, NodeId, Position, Timestamp};
use evershard_sys::buffer::AlignedBuffer;
use evershard_sys::clock;
use evershard_sys::file::LogFile;
use evershard_sys::probe::RingError;
use evershard_sys::ring::{Completion, Ring, RingConfig, Token, Wait};
use evershard_sys::socket::Socket;

use crate::background::{Answer, Desk, Work};
use crate::config::IdleStrategy;
use crate::env::{Env, Event, Idle, LinkId, Now, ReadRequest};
use crate::notice::Notice;
use crate::shadow::{DropOrder, SnapshotOrder};
use crate::snapshot::Snapshot;

/// How long `backoff` spins after the last event before it blocks.
const BACKOFF_SPIN_NS: u64 = 50_000;
/// Segment files kept open for writing: the current one and the ones around it.
const OPEN_SEGMENTS_MAX: usize = 4;

/// What a completion belongs to; the upper byte of its token.
const LISTENER: u64 = 1;
const CONNECT: u64 = 2;
const RECEIVE: u64 = 3;
const SEND: u64 = 4;
const BLOCK: u64 = 5;
const SLOT: u64 = 6;

const PAYLOAD_BITS: u32 = 56;

/// A connection's place in the table.
struct Seat {
    generation: u32,
    /// None: the place is free.
    socket: Option<Socket>,
}

/// One shard's ring, sockets and files.
pub struct UringEnv {
    ring: Ring,
    listener: TcpListener,
    seats: Vec<Seat>,
    free: Vec<u32>,
    slots: LogFile,
    segments: Vec<(SegmentNumber, LogFile)>,
    desk: Arc<Desk>,
    peers: Vec<(NodeId, SocketAddr)>,
    idle: IdleStrategy,
    last_event: u64,
    stop: Arc<AtomicBool>,
    /// The listener must be armed again.
    rearm_listener: bool,
    /// Links whose receive must be armed again: the kernel ran out of receive buffers.
    rearm: Vec<LinkId>,
    /// Links that were closed by us: their `Closed` is still to be reported.
    closed: Vec<LinkId>,
}

/// What a shard's world is made of.
pub struct UringParts {
    /// Where clients and peers of this shard come in.
    pub listener: TcpListener,
    /// Term and vote.
    pub slots: LogFile,
    /// The segments that may still be written, opened.
    pub segments: Vec<(SegmentNumber, LogFile)>,
    /// The way to the background.
    pub desk: Arc<Desk>,
    /// Where the peers' replicas of this shard listen.
    pub peers: Vec<(NodeId, SocketAddr)>,
    /// What to do when there is nothing to do.
    pub idle: IdleStrategy,
    /// Set when the node shall stop.
    pub stop: Arc<AtomicBool>,
}

impl UringEnv {
    /// Sets up the ring on the calling thread, which is the shard's.
    ///
    /// # Errors
    /// [`RingError`] with what is missing and what to do.
    pub fn new(parts: UringParts) -> Result<Self, RingError> {
        let mut ring = Ring::new(&RingConfig::default())?;
        ring.accept(&parts.listener, token(LISTENER, 0));
        let links_max = u32::try_from(LINKS_MAX).expect("a small constant");
        Ok(Self {
            ring,
            listener: parts.listener,
            seats: (0..links_max).map(|_| Seat { generation: 0, socket: None }).collect(),
            free: (0..links_max).rev().collect(),
            slots: parts.slots,
            segments: parts.segments,
            desk: parts.desk,
            peers: parts.peers,
            idle: parts.idle,
            last_event: 0,
            stop: parts.stop,
            rearm_listener: false,
            rearm: Vec::with_capacity(LINKS_MAX),
            closed: Vec::with_capacity(LINKS_MAX),
        })
    }

    fn take_answers(&mut self, sink: &mut dyn FnMut(Event<'_>)) -> usize {
        let mut count = 0;
        while let Some(answer) = self.desk.take_answer() {
            count += 1;
            match answer {
                Answer::Prepared { header, file } => {
                    if self.segments.len() == OPEN_SEGMENTS_MAX {
                        self.segments.remove(0);
                    }
                    self.segments.push((header.number, file));
                    sink(Event::SegmentPrepared { header });
                }
                Answer::NotPrepared { errno } => sink(Event::SegmentFailed { errno }),
                Answer::Repaired { segment, offset, outcome } => {
                    sink(Event::BlockRepaired { segment, offset, outcome });
                }
                Answer::SnapshotTaken { position, outcome } => sink(Event::SnapshotTaken { position, outcome }),
                Answer::SnapshotKept { snapshot, outcome } => sink(Event::SnapshotKept { snapshot, outcome }),
                Answer::SnapshotRead { position, offset, outcome } => {
                    sink(Event::SnapshotRead { position, offset, outcome });
                }
                Answer::Dropped { outcome } => sink(Event::LogDropped { outcome }),
                Answer::Read { request, chunk } => sink(Event::Read { request, chunk }),
            }
        }
        count
    }

    fn rearm(&mut self) {
        if std::mem::take(&mut self.rearm_listener) {
            self.ring.accept(&self.listener, token(LISTENER, 0));
        }
        while let Some(link) = self.rearm.pop() {
            if let Some(socket) = socket_of(&self.seats, link) {
                self.ring.receive(socket, token(RECEIVE, pack(link)));
            }
        }
    }
}

impl Env for UringEnv {
    fn now(&self) -> Now {
        Now { instant: Instant(clock::monotonic_ns()), timestamp: Timestamp(clock::realtime_ns()) }
    }

    fn reap(&mut self, sink: &mut dyn FnMut(Event<'_>)) -> usize {
        let mut count = self.take_answers(sink);
        while let Some(link) = self.closed.pop() {
            count += 1;
            sink(Event::Closed { link });
        }
        let Self { ring, seats, free, rearm, rearm_listener, .. } = self;
        count += ring.reap(|completion| match completion {
            Completion::Received { token, result, more } => {
                let link = unpack(token);
                if socket_of(seats, link).is_none() {
                    return;
                }
                match result {
                    Ok([]) => release(seats, free, link, sink),
                    Ok(bytes) => {
                        if !more {
                            rearm.push(link);
                        }
                        sink(Event::Received { link, bytes });
                    }
                    Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => rearm.push(link),
                    Err(_) => release(seats, free, link, sink),
                }
            }
            Completion::Sent { token, buffer, result } => {
                let link = unpack(token);
                if socket_of(seats, link).is_none() {
                    return;
                }
                if result.ok() == Some(buffer.len()) {
                    sink(Event::Sent { link, buffer });
                } else {
                    release(seats, free, link, sink);
                }
            }
            Completion::Written { token, buffer, result } => {
                let outcome = result.map_err(|error| error.raw_os_error().unwrap_or(libc::EIO));
                if token >> PAYLOAD_BITS == SLOT {
                    sink(Event::SlotWritten { buffer, outcome });
                } else {
                    sink(Event::BlockWritten { sequence: token & payload_mask(), buffer, outcome });
                }
            }
            Completion::Accepted { socket, more, .. } => {
                *rearm_listener = !more;
                let Ok(socket) = socket else { return };
                // Without a free place the connection is dropped, which closes it.
                if let Some(link) = occupy(seats, free, socket) {
                    rearm.push(link);
                    sink(Event::Accepted { link });
                }
            }
            Completion::Connected { token, result } => {
                let link = unpack(token);
                if socket_of(seats, link).is_none() {
                    return;
                }
                match result {
                    Ok(()) => {
                        rearm.push(link);
                        sink(Event::Connected { link });
                    }
                    Err(_) => release(seats, free, link, sink),
                }
            }
        });
        self.rearm();
        if count > 0 && self.idle == IdleStrategy::Backoff {
            self.last_event = clock::monotonic_ns();
        }
        count
    }

    fn submit(&mut self, idle: Idle) {
        let wait = match (self.idle, idle) {
            (IdleStrategy::Spin, _) | (_, Idle::Busy) => Wait::Not,
            (_, Idle::Until(_)) if !self.closed.is_empty() => Wait::Not,
            (IdleStrategy::Backoff, Idle::Until(_))
                if clock::monotonic_ns().saturating_sub(self.last_event) < BACKOFF_SPIN_NS =>
            {
                Wait::Not
            }
            (IdleStrategy::Backoff | IdleStrategy::Park, Idle::Until(deadline)) => {
                let ns = deadline.since(Instant(clock::monotonic_ns()));
                Wait::For { completions: 1, timeout: Duration::from_nanos(ns.max(1)) }
            }
        };
        self.ring.enter(wait).expect("a ring that was set up keeps working; the kernel refuses it otherwise");
    }

    fn connect(&mut self, peer: NodeId, address: Option<&str>) -> Option<LinkId> {
        let configured = self.peers.iter().find(|(id, _)| *id == peer).map(|(_, address)| *address);
        // Names are not looked up here: that may take long. What the log names is an address.
        let address = configured.or_else(|| address?.parse().ok())?;
        let socket = Socket::for_address(&address).ok()?;
        let link = occupy(&mut self.seats, &mut self.free, socket)?;
        let socket = socket_of(&self.seats, link).expect("just seated");
        self.ring.connect(socket, &address, token(CONNECT, pack(link)));
        Some(link)
    }

    fn send(&mut self, link: LinkId, buffer: Vec<u8>) {
        if let Some(socket) = socket_of(&self.seats, link) {
            self.ring.send(socket, buffer, token(SEND, pack(link)));
        }
    }

    fn close(&mut self, link: LinkId) {
        let closed = &mut self.closed;
        release(&mut self.seats, &mut self.free, link, &mut |event| {
            if let Event::Closed { link } = event {
                closed.push(link);
            }
        });
    }

    fn write_block(&mut self, segment: SegmentNumber, offset: u64, buffer: AlignedBuffer, size: usize, sequence: u64) {
        let (_, file) = self
            .segments
            .iter()
            .find(|(number, _)| *number == segment)
            .expect("the log writes only to segments that were prepared or recovered");
        assert!(sequence <= payload_mask(), "56 bits of blocks last longer than any disk");
        self.ring.write(file.as_fd(), buffer, size, offset, token(BLOCK, sequence));
    }

    fn write_slot(&mut self, offset: u64, buffer: AlignedBuffer) {
        let size = buffer.len();
        self.ring.write(self.slots.as_fd(), buffer, size, offset, token(SLOT, 0));
    }

    fn prepare_segment(&mut self, header: SegmentHeader) -> bool {
        self.desk.ask(Work::Prepare(header))
    }

    fn read_log(&mut self, request: ReadRequest) -> bool {
        self.desk.ask(Work::Read(request))
    }

    fn repair_block(&mut self, segment: SegmentNumber, offset: u64, block: AlignedBuffer) -> bool {
        self.desk.ask(Work::Repair { segment, offset, block })
    }

    fn take_snapshot(&mut self, order: SnapshotOrder) -> bool {
        self.desk.ask(Work::TakeSnapshot(order))
    }

    fn keep_snapshot(&mut self, snapshot: Box<Snapshot>) -> Result<(), Box<Snapshot>> {
        self.desk.ask_to_keep(snapshot)
    }

    fn read_snapshot(&mut self, position: Position, offset: u64) -> bool {
        self.desk.ask(Work::ReadSnapshot { position, offset })
    }

    fn drop_log(&mut self, order: DropOrder) -> bool {
        self.desk.ask(Work::Drop(order))
    }

    fn notify(&mut self, notice: Notice) {
        self.desk.notify(notice);
    }

    fn stop_requested(&self) -> bool {
        // Relaxed: nothing else is published with the flag; a turn more or less does not matter.
        self.stop.load(Ordering::Relaxed)
    }
}

fn occupy(seats: &mut [Seat], free: &mut Vec<u32>, socket: Socket) -> Option<LinkId> {
    let index = free.pop()?;
    let seat = &mut seats[index as usize];
    seat.generation = seat.generation.wrapping_add(1) & GENERATION_MASK;
    seat.socket = Some(socket);
    Some(LinkId { index, generation: seat.generation })
}

/// Frees the place and reports it; the pending operations on the socket end by its shutdown.
fn release(seats: &mut [Seat], free: &mut Vec<u32>, link: LinkId, sink: &mut dyn FnMut(Event<'_>)) {
    if socket_of(seats, link).is_none() {
        return;
    }
    if let Some(socket) = seats[link.index as usize].socket.take() {
        socket.shutdown();
        free.push(link.index);
        sink(Event::Closed { link });
    }
}

fn socket_of(seats: &[Seat], link: LinkId) -> Option<&Socket> {
    let seat = seats.get(link.index as usize).filter(|seat| seat.generation == link.generation)?;
    seat.socket.as_ref()
}

const GENERATION_MASK: u32 = (1 << 24) - 1;
const _: () = assert!(LINKS_MAX < 1 << 32, "an index takes 32 bits of a token, a generation 24");

fn token(kind: u64, payload: u64) -> Token {
    kind << PAYLOAD_BITS | payload
}

fn payload_mask() -> u64 {
    (1 << PAYLOAD_BITS) - 1
}

fn pack(link: LinkId) -> u64 {
    u64::from(link.generation) << 32 | u64::from(link.index)
}

fn unpack(token: Token) -> LinkId {
    let index = u32::try_from(token & u64::from(u32::MAX)).expect("masked to 32 bits");
    let generation = u32::try_from((token & payload_mask()) >> 32).expect("24 bits");
    LinkId { index, generation }
}
