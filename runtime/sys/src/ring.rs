//! One io_uring: typed operations, buffers moved in and given back.
//!
//! Set up with SINGLE_ISSUER and DEFER_TASKRUN (Linux 6.1): completions are made only when the owning thread enters
//! the kernel, so nothing interrupts it. Receives are multishot (6.0) into a ring of provided buffers (5.19); an
//! arriving buffer is lent to the caller for the time of one callback and goes back to the kernel after it.
//!
//! The owner's loop: queue operations ([`Ring::send`], [`Ring::write`], ...), one [`Ring::enter`], then
//! [`Ring::reap`]. `enter` is the only system call.

use std::io;
use std::mem::ManuallyDrop;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

use io_uring::types::{CancelBuilder, Fd, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode, squeue};
use nix::sys::socket::{SockaddrLike, SockaddrStorage};

use crate::buffer::AlignedBuffer;
use crate::probe::{RingError, explain};
use crate::socket::Socket;

mod provided;

use provided::ProvidedBuffers;

/// What the caller wants to know a completion by. Opaque here.
pub type Token = u64;

/// Sizes of a ring.
#[derive(Clone, Copy, Debug)]
pub struct RingConfig {
    /// Operations that may be queued before an enter. Power of two.
    pub queue_len: u32,
    /// Provided receive buffers. Power of two.
    pub receive_buffers_len: u16,
    /// Bytes of one receive buffer.
    pub receive_buffer_size: usize,
}

impl Default for RingConfig {
    fn default() -> Self {
        Self { queue_len: 1024, receive_buffers_len: 64, receive_buffer_size: 64 * 1024 }
    }
}

/// What has come to its end, or one more result of a multishot operation.
#[derive(Debug)]
pub enum Completion<'a> {
    /// A connection came in. `more` is false when the listener must be armed again.
    Accepted {
        /// The listener's token.
        token: Token,
        /// The connection.
        socket: io::Result<Socket>,
        /// Whether further connections will be reported.
        more: bool,
    },
    /// A connection attempt ended.
    Connected {
        /// The caller's token.
        token: Token,
        /// Whether it succeeded.
        result: io::Result<()>,
    },
    /// Bytes came in; none at the end of the stream. `more` is false when the receive must be armed again.
    Received {
        /// The caller's token.
        token: Token,
        /// The bytes, lent for the time of the callback.
        result: io::Result<&'a [u8]>,
        /// Whether further bytes will be reported.
        more: bool,
    },
    /// A send ended: all of the buffer was taken, or the connection is broken.
    Sent {
        /// The caller's token.
        token: Token,
        /// The buffer comes back.
        buffer: Vec<u8>,
        /// Bytes taken.
        result: io::Result<usize>,
    },
    /// A write ended: all of its bytes are durable, or it has failed. One that the kernel cut short has failed (EIO): the rest
    /// of it is not there.
    Written {
        /// The caller's token.
        token: Token,
        /// The buffer comes back.
        buffer: AlignedBuffer,
        /// Whether all of it was written.
        result: io::Result<()>,
    },
}

enum Operation {
    Accept(Token),
    Connect(Token, #[expect(dead_code, reason = "the kernel reads it until completion")] Box<SockaddrStorage>),
    Receive(Token),
    Send(Token, Vec<u8>),
    /// And how many bytes of it are to be written.
    Write(Token, AlignedBuffer, usize),
}

struct Slot {
    /// Counts uses, so that a completion of an earlier use is told apart.
    generation: u32,
    operation: Option<Operation>,
}

/// How long [`Ring::enter`] may stay in the kernel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wait {
    /// Not at all.
    Not,
    /// Until `completions` are there, or the time is over.
    For {
        /// At least one.
        completions: u32,
        /// At most this long.
        timeout: Duration,
    },
}

/// One io_uring with its buffers. Stays on the thread that made it.
pub struct Ring {
    ring: ManuallyDrop<IoUring>,
    provided: ManuallyDrop<ProvidedBuffers>,
    slots: ManuallyDrop<Vec<Slot>>,
    free: Vec<u32>,
    in_flight: usize,
}

const BUFFER_GROUP: u16 = 0;

impl Ring {
    /// Sets up a ring for the calling thread.
    ///
    /// # Errors
    /// [`RingError`] with what is missing and what to do.
    pub fn new(config: &RingConfig) -> Result<Self, RingError> {
        let mut ring: IoUring = IoUring::builder()
            .dontfork()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .setup_submit_all()
            .setup_cqsize(config.queue_len * 4)
            .build(config.queue_len)
            .map_err(explain)?;
        // Saves the file table look-up of every enter; since Linux 5.18, and only an optimisation.
        let _ = ring.submitter().register_ring_fd();
        let provided = ProvidedBuffers::new(&mut ring, BUFFER_GROUP, config).map_err(explain)?;
        let slots_len = config.queue_len * 4;
        let slots = (0..slots_len).map(|_| Slot { generation: 0, operation: None }).collect();
        Ok(Self {
            ring: ManuallyDrop::new(ring),
            provided: ManuallyDrop::new(provided),
            slots: ManuallyDrop::new(slots),
            free: (0..slots_len).rev().collect(),
            in_flight: 0,
        })
    }

    /// Operations the kernel holds, multishot ones included.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Has connections to `listener` reported until further notice.
    pub fn accept(&mut self, listener: &TcpListener, token: Token) {
        let entry = opcode::AcceptMulti::new(fd(listener.as_fd())).flags(libc::SOCK_CLOEXEC).build();
        self.push(Operation::Accept(token), entry);
    }

    /// Connects `socket` to `address`.
    pub fn connect(&mut self, socket: &Socket, address: &SocketAddr, token: Token) {
        let address: Box<SockaddrStorage> = Box::new((*address).into());
        let entry = opcode::Connect::new(fd(socket.as_fd()), address.as_ptr(), address.len()).build();
        self.push(Operation::Connect(token, address), entry);
    }

    /// Has everything that comes in on `socket` reported until further notice.
    pub fn receive(&mut self, socket: &Socket, token: Token) {
        let entry = opcode::RecvMulti::new(fd(socket.as_fd()), BUFFER_GROUP).build();
        self.push(Operation::Receive(token), entry);
    }

    /// Sends all of `buffer`.
    pub fn send(&mut self, socket: &Socket, buffer: Vec<u8>, token: Token) {
        let size = u32::try_from(buffer.len()).expect("send buffers are far below 4 GiB");
        let entry = opcode::Send::new(fd(socket.as_fd()), buffer.as_ptr(), size)
            .flags(libc::MSG_WAITALL | libc::MSG_NOSIGNAL)
            .build();
        self.push(Operation::Send(token, buffer), entry);
    }

    /// Writes the first `size` bytes of `buffer` at `offset`; durable when completed (RWF_DSYNC).
    ///
    /// # Panics
    /// If `size` is larger than the buffer: the caller's bug.
    pub fn write(&mut self, file: BorrowedFd<'_>, buffer: AlignedBuffer, size: usize, offset: u64, token: Token) {
        assert!(size <= buffer.len(), "only what is in the buffer can be written");
        let len = u32::try_from(size).expect("write buffers are far below 4 GiB");
        let entry = opcode::Write::new(fd(file), buffer.as_ptr(), len).offset(offset).rw_flags(libc::RWF_DSYNC).build();
        self.push(Operation::Write(token, buffer, size), entry);
    }

    fn push(&mut self, operation: Operation, entry: squeue::Entry) {
        let index = self.free.pop().expect("the caller bounds its links and writes below the number of slots");
        let slot = &mut self.slots[index as usize];
        slot.generation = slot.generation.wrapping_add(1);
        slot.operation = Some(operation);
        let entry = entry.user_data(u64::from(slot.generation) << 32 | u64::from(index));
        self.in_flight += 1;
        // SAFETY: all memory the entry points to is owned by the operation just put into its slot (heap memory that
        // does not move with it) and stays there until the completion is reaped; file descriptors are only looked
        // up by the kernel when the entry is submitted and a closed one gives EBADF, not a memory error.
        if unsafe { self.ring.submission().push(&entry) }.is_err() {
            self.enter(Wait::Not).expect("submitting without waiting fails only for a broken ring");
            // SAFETY: as above; the queue has just been emptied.
            unsafe { self.ring.submission().push(&entry) }.expect("the kernel has taken the whole queue");
        }
    }

    /// Hands the queued operations to the kernel and has it make completions of what is ready, waiting as told. The
    /// one system call of a turn; none at all when nothing is queued, nothing is ready and waiting is not wanted.
    ///
    /// # Errors
    /// Only for a broken ring; interruptions and time-outs are no errors.
    pub fn enter(&mut self, wait: Wait) -> io::Result<()> {
        let result = match wait {
            // TASKRUN_FLAG: the kernel says in shared memory whether an enter would make completions.
            Wait::Not => {
                let queue = self.ring.submission();
                if queue.is_empty() && !queue.taskrun() && !queue.cq_overflow() {
                    return Ok(());
                }
                drop(queue);
                self.ring.submitter().submit()
            }
            Wait::For { completions, timeout } => {
                let timeout = Timespec::from(timeout);
                let args = SubmitArgs::new().timespec(&timeout);
                self.ring.submitter().submit_with_args(completions as usize, &args)
            }
        };
        match result {
            Ok(_) => Ok(()),
            Err(error) => match error.raw_os_error() {
                // EBUSY and EAGAIN: the completion queue must be reaped first, which the caller does next.
                Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN) => Ok(()),
                _ => Err(error),
            },
        }
    }

    /// Gives every completion that is there to `sink`. Returns how many there were.
    pub fn reap(&mut self, mut sink: impl FnMut(Completion<'_>)) -> usize {
        let mut count = 0;
        let mut completions = self.ring.completion();
        completions.sync();
        for entry in &mut completions {
            count += 1;
            let index = entry.user_data() & u64::from(u32::MAX);
            let index = usize::try_from(index).expect("32 bits fit");
            let slot = &mut self.slots[index];
            assert_eq!(u64::from(slot.generation), entry.user_data() >> 32, "a completion belongs to its operation");
            let more = cqueue::more(entry.flags());
            let outcome = if entry.result() < 0 {
                Err(io::Error::from_raw_os_error(-entry.result()))
            } else {
                Ok(usize::try_from(entry.result()).expect("not negative"))
            };
            let operation = slot.operation.as_ref().expect("a slot in flight has its operation");
            match operation {
                Operation::Accept(token) => {
                    // SAFETY: the kernel has just made this descriptor for us; nobody else knows it.
                    let socket = outcome.map(|_| Socket::accepted(unsafe { OwnedFd::from_raw_fd(entry.result()) }));
                    sink(Completion::Accepted { token: *token, socket, more });
                }
                Operation::Receive(token) => {
                    let buffer = cqueue::buffer_select(entry.flags());
                    let result = outcome.map(|size| match buffer {
                        Some(id) => self.provided.filled(id, size),
                        None => &[],
                    });
                    sink(Completion::Received { token: *token, result, more });
                    if let Some(id) = buffer {
                        self.provided.give_back(id);
                    }
                }
                _ => match slot.operation.take().expect("just seen") {
                    Operation::Connect(token, _) => {
                        sink(Completion::Connected { token, result: outcome.map(drop) });
                    }
                    Operation::Send(token, buffer) => sink(Completion::Sent { token, buffer, result: outcome }),
                    Operation::Write(token, buffer, size) => {
                        let whole =
                            |written| if written == size { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) };
                        sink(Completion::Written { token, buffer, result: outcome.and_then(whole) });
                    }
                    Operation::Accept(_) | Operation::Receive(_) => unreachable!("handled above"),
                },
            }
            if !more {
                slot.operation = None;
                self.free.push(u32::try_from(index).expect("came from 32 bits"));
                self.in_flight -= 1;
            }
        }
        drop(completions);
        self.provided.publish();
        count
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        let time = Timespec::new().nsec(200_000_000);
        let _ = self.ring.submitter().register_sync_cancel(Some(time), CancelBuilder::any());
        for _ in 0..100 {
            if self.in_flight == 0 {
                break;
            }
            let _ = self.enter(Wait::For { completions: 1, timeout: Duration::from_millis(10) });
            self.reap(|_| {});
        }
        // SAFETY: dropped once, here, and not used behind this line.
        unsafe { ManuallyDrop::drop(&mut self.ring) };
        if self.in_flight == 0 {
            // SAFETY: the kernel holds none of these any more; dropped once, here.
            unsafe {
                ManuallyDrop::drop(&mut self.slots);
                ManuallyDrop::drop(&mut self.provided);
            }
        }
    }
}

fn fd(fd: BorrowedFd<'_>) -> Fd {
    Fd(fd.as_raw_fd())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[derive(Debug, PartialEq, Eq)]
    enum Seen {
        Connected,
        Bytes(Vec<u8>),
        Sent(usize),
        Written,
    }

    /// A connection to oneself: accept, connect, send, receive, end of stream; and a durable write beside it.
    #[test]
    fn a_connection_and_a_file_through_one_ring() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let file = crate::file::LogFile::open_or_create(&directory.path().join("f")).expect("a new file");
        let listener = crate::socket::listen("127.0.0.1:0".parse().expect("an address")).expect("a free port");
        let address = listener.local_addr().expect("bound");
        let mut ring = Ring::new(&RingConfig::default()).expect("this host has io_uring");
        ring.accept(&listener, 1);
        let client = Socket::for_address(&address).expect("a socket");
        ring.connect(&client, &address, 2);
        let mut page = AlignedBuffer::new(4096);
        page.fill(9);
        ring.write(file.as_fd(), page, 4096, 0, 3);
        let mut server = None;
        let mut seen = Vec::new();
        let mut receiving = false;
        let wait = Wait::For { completions: 1, timeout: Duration::from_millis(100) };
        for _ in 0..1000 {
            ring.enter(wait).expect("a healthy ring");
            ring.reap(|completion| match completion {
                Completion::Accepted { socket, .. } => server = socket.ok(),
                Completion::Connected { result, .. } => {
                    result.expect("the listener is there");
                    seen.push(Seen::Connected);
                }
                Completion::Received { result, .. } => {
                    seen.push(Seen::Bytes(result.expect("no error").to_vec()));
                }
                Completion::Sent { result, .. } => seen.push(Seen::Sent(result.expect("no error"))),
                Completion::Written { result, .. } => {
                    result.expect("no error");
                    seen.push(Seen::Written);
                }
            });
            if let (Some(server), false) = (&server, receiving)
                && seen.contains(&Seen::Connected)
            {
                receiving = true;
                ring.receive(server, 4);
                ring.send(&client, b"hello".to_vec(), 5);
            }
            if seen.contains(&Seen::Bytes(b"hello".to_vec())) {
                client.shutdown();
            }
            if seen.contains(&Seen::Bytes(Vec::new())) && seen.contains(&Seen::Written) {
                break;
            }
        }
        assert!(seen.contains(&Seen::Sent(5)), "{seen:?}");
        assert!(seen.contains(&Seen::Bytes(Vec::new())), "the end of the stream is seen: {seen:?}");
        assert!(seen.contains(&Seen::Written), "{seen:?}");
        assert_eq!(ring.in_flight(), 1, "only the listener is still armed");
    }

    /// A pipe takes what fits and the kernel says how much: the write has failed, whoever asks.
    #[test]
    fn s23_a_write_that_is_cut_short_has_failed() {
        use nix::fcntl::{FcntlArg, OFlag, fcntl};
        let (_reader, writer) = nix::unistd::pipe2(OFlag::O_NONBLOCK).expect("a pipe");
        fcntl(&writer, FcntlArg::F_SETPIPE_SZ(4096)).expect("one page");
        let mut ring = Ring::new(&RingConfig::default()).expect("this host has io_uring");
        let mut outcomes = Vec::new();
        ring.write(writer.as_fd(), AlignedBuffer::new(8192), 8192, 0, 1);
        while outcomes.is_empty() {
            let wait = Wait::For { completions: 1, timeout: Duration::from_secs(1) };
            ring.enter(wait).expect("a ring that was just made");
            ring.reap(|completion| {
                if let Completion::Written { result, buffer, .. } = completion {
                    outcomes.push((result.map_err(|error| error.kind()), buffer.len()));
                }
            });
        }
        assert_eq!(outcomes, [(Err(io::ErrorKind::WriteZero), 8192)], "half of it is not all of it");
    }
}
