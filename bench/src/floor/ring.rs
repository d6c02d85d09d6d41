//! One process's ring for the floor: sockets with multishot receive, sends, durable writes, and the ways to wait.
//!
//! JUSTIFICATION for `unsafe`: the kernel reads and writes memory behind the compiler's back, and the floor measures
//! what a ring costs with nothing of the product around it. All of that memory is allocated here, leaked, and so
//! outlives every operation; callers only ever see slices whose slot the kernel is not writing.

use std::alloc::{Layout, alloc_zeroed, handle_alloc_error};
use std::fs::File;
use std::io;
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::{Fixed, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode, squeue, types::BufRingEntry};
use nix::sched::sched_yield;

use super::plan::Wait;

/// What one completion means to a role.
#[derive(Debug)]
pub enum Event<'a> {
    /// Bytes came from a link, in stream order.
    Received(usize, &'a [u8]),
    /// The other side of a link has gone.
    Closed,
    /// The durable write of this block slot is on stable storage.
    Written(usize),
}

/// One process's ring and all the memory that the kernel may touch.
pub struct Ring {
    ring: IoUring,
    /// Keeps the registered sockets and the file open.
    links: Vec<TcpStream>,
    file: Option<File>,
    wait: Wait,
    /// Send buffers, `MESSAGE_SLOTS` of `SLOT_SIZE` bytes.
    messages: *mut u8,
    /// Write buffers, `BLOCK_SLOTS` of `SLOT_SIZE` bytes, aligned for O_DIRECT.
    blocks: *mut u8,
    receive: ReceiveBuffers,
    sends_queued: usize,
    idle_turns: u32,
    counters: Counters,
}

/// What a run cost in turns and system calls.
#[derive(Debug, Default, Clone, Copy)]
pub struct Counters {
    /// Calls of `io_uring_enter`.
    pub enters: u64,
    /// Turns of the loop.
    pub turns: u64,
    /// The client's requests.
    pub requests: u64,
}

impl Ring {
    /// Builds the ring for one way of waiting, registers sockets and file, and arms the receives.
    pub fn new(wait: Wait, links: Vec<TcpStream>, file: Option<File>) -> io::Result<Self> {
        let mut builder = IoUring::builder();
        builder.setup_single_issuer().setup_submit_all().setup_cqsize(256);
        if wait.is_cooperative() {
            builder.setup_coop_taskrun().setup_taskrun_flag();
        } else {
            builder.setup_defer_taskrun();
        }
        let ring = builder.build(64)?;
        let mut descriptors: Vec<i32> = links.iter().map(AsRawFd::as_raw_fd).collect();
        descriptors.extend(file.iter().map(AsRawFd::as_raw_fd));
        ring.submitter().register_files(&descriptors)?;
        let receive = ReceiveBuffers::register(&ring)?;
        let link_count = links.len();
        let mut this = Self {
            ring,
            links,
            file,
            wait,
            messages: leak_pages(MESSAGE_SLOTS * SLOT_SIZE),
            blocks: leak_pages(BLOCK_SLOTS * SLOT_SIZE),
            receive,
            sends_queued: 0,
            idle_turns: 0,
            counters: Counters::default(),
        };
        for link in 0..link_count {
            this.arm_receive(link)?;
        }
        Ok(this)
    }

    /// What the run has cost so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// The send buffer of a message slot. The caller rewrites a slot only when its last send has been answered.
    pub fn message_mut(&mut self, slot: usize) -> &mut [u8] {
        assert!(slot < MESSAGE_SLOTS);
        // SAFETY: the slot lies inside the leaked region, and `&mut self` excludes other slices of it. The kernel only
        // ever reads message slots, so the worst a caller's early rewrite can do is to send the newer bytes.
        unsafe { std::slice::from_raw_parts_mut(self.messages.add(slot * SLOT_SIZE), SLOT_SIZE) }
    }

    /// Queues the first `len` bytes of a message slot for sending on a link.
    pub fn send(&mut self, link: usize, slot: usize, len: usize) -> io::Result<()> {
        assert!(slot < MESSAGE_SLOTS && len <= SLOT_SIZE && link < self.links.len());
        // SAFETY: the offset is inside the leaked region, by the assertion above.
        let start = unsafe { self.messages.add(slot * SLOT_SIZE) };
        let mut entry = opcode::Send::new(Fixed(link as u32), start, len as u32)
            .flags(libc::MSG_NOSIGNAL | libc::MSG_WAITALL)
            .build()
            .user_data(SEND_TAG | link as u64);
        if self.wait.skips_send_completions() {
            entry = entry.flags(squeue::Flags::SKIP_SUCCESS);
        }
        self.sends_queued += 1;
        self.push(&entry)
    }

    /// Copies a message into a block slot and queues a durable 4 KiB write of it.
    pub fn write(&mut self, block: usize, message: usize, offset: u64) -> io::Result<()> {
        assert!(block < BLOCK_SLOTS && message < MESSAGE_SLOTS && self.file.is_some());
        // SAFETY: both slots lie inside their own leaked regions, which do not overlap. The caller reuses a block only
        // after its `Event::Written`, so the kernel is not reading it now.
        let start = unsafe {
            let start = self.blocks.add(block * SLOT_SIZE);
            std::ptr::copy_nonoverlapping(self.messages.add(message * SLOT_SIZE), start, SLOT_SIZE);
            start
        };
        let entry = opcode::Write::new(Fixed(self.links.len() as u32), start, SLOT_SIZE as u32)
            .offset(offset)
            .rw_flags(libc::RWF_DSYNC)
            .build()
            .user_data(WRITE_TAG | block as u64);
        self.push(&entry)
    }

    /// One turn: submits what is queued and waits in this ring's way. May return with nothing complete.
    pub fn turn(&mut self) -> io::Result<()> {
        self.counters.turns += 1;
        let sends = std::mem::take(&mut self.sends_queued);
        match self.wait {
            Wait::Block | Wait::BlockSkip | Wait::BlockCoop => self.enter(1),
            Wait::BlockCount if sends > 0 => self.enter_counting(1 + sends),
            Wait::BlockCount => self.enter(1),
            Wait::Spin => self.enter(0),
            Wait::SpinCoop => {
                self.enter_if_needed()?;
                std::hint::spin_loop();
                Ok(())
            }
            Wait::Yield => {
                self.enter(0)?;
                self.yield_if_idle()
            }
            Wait::YieldCoop => {
                self.enter_if_needed()?;
                self.yield_if_idle()
            }
            Wait::Backoff { turns, yielding } => self.back_off(turns, yielding),
        }
    }

    /// Hands out all that is complete, then gives its receive buffers back to the kernel.
    pub fn reap(&mut self, mut on_event: impl FnMut(Event<'_>)) -> io::Result<()> {
        let mut rearm = 0_u64;
        for entry in self.ring.completion() {
            let index = (entry.user_data() & INDEX_MASK) as usize;
            match entry.user_data() & TAG_MASK {
                RECEIVE_TAG => {
                    let ended = self.receive.deliver(&entry, index, &mut on_event)?;
                    rearm |= u64::from(ended) << index;
                }
                WRITE_TAG => {
                    completed(&entry)?;
                    on_event(Event::Written(index));
                }
                _ => match completed(&entry) {
                    Err(error) if error.raw_os_error() == Some(libc::EPIPE) => on_event(Event::Closed),
                    other => drop(other?),
                },
            }
        }
        self.receive.publish();
        while rearm != 0 {
            let link = rearm.trailing_zeros() as usize;
            rearm &= rearm - 1;
            self.arm_receive(link)?;
        }
        Ok(())
    }

    fn back_off(&mut self, turns: u32, yielding: bool) -> io::Result<()> {
        if self.idle_turns >= turns {
            self.idle_turns = 0;
            return self.enter(1);
        }
        self.enter(0)?;
        self.idle_turns = if self.ring.completion().is_empty() { self.idle_turns + 1 } else { 0 };
        if yielding { self.yield_if_idle() } else { Ok(()) }
    }

    fn yield_if_idle(&mut self) -> io::Result<()> {
        if self.ring.completion().is_empty() {
            sched_yield()?;
        }
        Ok(())
    }

    fn enter_if_needed(&mut self) -> io::Result<()> {
        let submission = self.ring.submission();
        if submission.is_empty() && !submission.taskrun() {
            return Ok(());
        }
        drop(submission);
        self.enter(0)
    }

    fn enter(&mut self, wait_count: u32) -> io::Result<()> {
        self.counters.enters += 1;
        let queued = self.ring.submission().len() as u32;
        // SAFETY: no argument structure is passed; the entries were valid when pushed and their memory is leaked.
        let entered = unsafe { self.ring.submitter().enter::<()>(queued, wait_count, GET_EVENTS, None) };
        match entered {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            other => other.map(drop),
        }
    }

    fn enter_counting(&mut self, wait_count: usize) -> io::Result<()> {
        self.counters.enters += 1;
        let guard = Timespec::new().nsec(GUARD_NS);
        match self.ring.submitter().submit_with_args(wait_count, &SubmitArgs::new().timespec(&guard)) {
            Err(error) if matches!(error.raw_os_error(), Some(libc::ETIME | libc::EINTR)) => Ok(()),
            other => other.map(drop),
        }
    }

    fn arm_receive(&mut self, link: usize) -> io::Result<()> {
        let entry = opcode::RecvMulti::new(Fixed(link as u32), BUFFER_GROUP).build();
        self.push(&entry.user_data(RECEIVE_TAG | link as u64))
    }

    fn push(&mut self, entry: &squeue::Entry) -> io::Result<()> {
        // SAFETY: every entry built in this module names registered descriptors and leaked memory only.
        unsafe { self.ring.submission().push(entry) }.map_err(|_| io::Error::other("the submission queue is full"))
    }
}

/// Buffers that the kernel picks from when bytes arrive.
struct ReceiveBuffers {
    entries: *mut BufRingEntry,
    bytes: *mut u8,
    tail: u16,
}

impl ReceiveBuffers {
    fn register(ring: &IoUring) -> io::Result<Self> {
        let entries = leak_pages(usize::from(RECEIVE_SLOTS) * size_of::<BufRingEntry>()).cast::<BufRingEntry>();
        let bytes = leak_pages(usize::from(RECEIVE_SLOTS) * SLOT_SIZE);
        // SAFETY: the entries are page-aligned, zeroed, long enough for RECEIVE_SLOTS and never freed.
        unsafe {
            ring.submitter().register_buf_ring_with_flags(entries as u64, RECEIVE_SLOTS, BUFFER_GROUP, 0)?;
        }
        let mut this = Self { entries, bytes, tail: 0 };
        for slot in 0..RECEIVE_SLOTS {
            this.give_back(slot);
        }
        this.publish();
        Ok(this)
    }

    /// Hands the bytes of one receive completion out; true when the multishot ended and must be armed again.
    fn deliver(
        &mut self,
        entry: &cqueue::Entry,
        link: usize,
        on_event: &mut impl FnMut(Event<'_>),
    ) -> io::Result<bool> {
        let ended = !cqueue::more(entry.flags());
        let Some(slot) = cqueue::buffer_select(entry.flags()) else {
            return match entry.result() {
                0 => closed(on_event),
                result if -result == libc::ENOBUFS => Ok(ended),
                result if -result == libc::ECONNRESET => closed(on_event),
                result => Err(io::Error::from_raw_os_error(-result)),
            };
        };
        if entry.result() <= 0 {
            self.give_back(slot);
            return closed(on_event);
        }
        let len = entry.result() as usize;
        assert!(slot < RECEIVE_SLOTS && len <= SLOT_SIZE);
        // SAFETY: the kernel has filled `len` bytes of this slot and will not touch it until it is given back below.
        let bytes = unsafe { std::slice::from_raw_parts(self.bytes.add(usize::from(slot) * SLOT_SIZE), len) };
        on_event(Event::Received(link, bytes));
        self.give_back(slot);
        Ok(ended)
    }

    fn give_back(&mut self, slot: u16) {
        let index = usize::from(self.tail & (RECEIVE_SLOTS - 1));
        // SAFETY: the index is inside the ring and the slot inside the region; the entry at the tail is ours until
        // `publish`. The tail field shares entry 0 and is not touched by these setters.
        unsafe {
            let entry = &mut *self.entries.add(index);
            entry.set_addr(self.bytes.add(usize::from(slot) * SLOT_SIZE) as u64);
            entry.set_len(SLOT_SIZE as u32);
            entry.set_bid(slot);
        }
        self.tail = self.tail.wrapping_add(1);
    }

    fn publish(&mut self) {
        // SAFETY: the tail lies in the leaked, aligned entry 0. Release pairs with the kernel's acquire of the tail, so
        // that it sees the entries written before.
        unsafe { (*BufRingEntry::tail(self.entries).cast::<AtomicU16>()).store(self.tail, Ordering::Release) };
    }
}

/// Gives this thread a scheduling policy.
pub fn set_policy(policy: i32, priority: i32) -> io::Result<()> {
    let parameters = libc::sched_param { sched_priority: priority };
    // SAFETY: the structure is initialised and outlives the call; 0 names the calling thread.
    match unsafe { libc::sched_setscheduler(0, policy, &parameters) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn closed(on_event: &mut impl FnMut(Event<'_>)) -> io::Result<bool> {
    on_event(Event::Closed);
    Ok(false)
}

fn completed(entry: &cqueue::Entry) -> io::Result<u32> {
    u32::try_from(entry.result()).map_err(|_| io::Error::from_raw_os_error(-entry.result()))
}

/// Zeroed, page-aligned memory that lives as long as the process, as the kernel may hold it to the end.
fn leak_pages(size: usize) -> *mut u8 {
    let layout = Layout::from_size_align(size, SLOT_SIZE).expect("a small size and a power of two");
    // SAFETY: the layout's size is not zero: every caller multiplies non-zero constants.
    let start = unsafe { alloc_zeroed(layout) };
    if start.is_null() {
        handle_alloc_error(layout);
    }
    start
}

/// Send buffers: the lower half for payloads, the upper half for acknowledgements.
pub const MESSAGE_SLOTS: usize = 128;
/// Durable writes that may be in flight.
pub const BLOCK_SLOTS: usize = 4;
/// Bytes of every buffer, and of one durable write.
pub const SLOT_SIZE: usize = 4096;

const RECEIVE_SLOTS: u16 = 64;
const BUFFER_GROUP: u16 = 0;
const GUARD_NS: u32 = 2_000_000;
const GET_EVENTS: u32 = io_uring::EnterFlags::GETEVENTS.bits();
const INDEX_MASK: u64 = 0xff;
const TAG_MASK: u64 = 0xff00;
const RECEIVE_TAG: u64 = 0x100;
const SEND_TAG: u64 = 0x200;
const WRITE_TAG: u64 = 0x300;
const _: () = assert!(RECEIVE_SLOTS.is_power_of_two(), "the buffer ring is indexed by a mask");
