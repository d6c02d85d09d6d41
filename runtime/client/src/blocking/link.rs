//! One TCP connection and the buffers on both sides of it.
//!
//! The socket is in blocking mode with one fixed receive timeout, [`TICK`], set once: the common wait is a single
//! `recv`. What must not wait passes `MSG_DONTWAIT`; shorter or exact waits use `ppoll`.

use std::io;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use evershard_protocol::limits::FRAME_SIZE_MAX;
use evershard_protocol::time::{MILLISECOND_NS, SECOND_NS};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, SockaddrStorage, connect, recv, send, socket};
use nix::sys::time::TimeSpec;

use crate::core::OUTPUT_SIZE_MIN;

/// The receive timeout of the socket: longer waits are made of several.
pub(super) const TICK_NS: u64 = 50 * MILLISECOND_NS;
const TICK: Duration = Duration::from_nanos(TICK_NS);
/// Received bytes at most: room for a few hundred replies per system call, and for any frame.
const INBOX_SIZE: usize = 512 * 1024;
/// Below this much room behind the unread bytes they are moved to the front.
const INBOX_ROOM_MIN: usize = 128 * 1024;
/// Bytes to send at most; more stays in the session's queue.
const OUTBOX_SIZE: usize = 256 * 1024;

const _: () = assert!(INBOX_SIZE - FRAME_SIZE_MAX >= INBOX_ROOM_MIN, "beside an unfinished frame there is always room");
const _: () = assert!(OUTBOX_SIZE >= OUTPUT_SIZE_MIN, "an empty outbox takes any frame");

/// The connection in its stages.
pub(super) enum Link {
    /// There is none.
    Down,
    /// Under way, non-blocking.
    Connecting(TcpStream),
    /// Made; blocking mode.
    Up(TcpStream),
}

/// What came of an attempt to receive.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Received {
    /// So many bytes are new in the inbox.
    Bytes(usize),
    /// Nothing is there (yet).
    Nothing,
    /// The connection is over.
    Over(Option<io::ErrorKind>),
}

impl Link {
    /// Begins to connect. `attempt` picks among the addresses a name has.
    pub(super) fn begin(address: &str, attempt: usize) -> io::Result<Self> {
        let target = resolve(address, attempt)?;
        let family = if target.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let stream = TcpStream::from(socket(family, SockType::Stream, flags, None)?);
        match connect(stream.as_raw_fd(), &SockaddrStorage::from(target)) {
            Ok(()) | Err(Errno::EINPROGRESS) => Ok(Self::Connecting(stream)),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Waits `wait_ns` at most until a begun connection is made. `Ok(false)`: not yet.
    pub(super) fn finish(&mut self, wait_ns: u64) -> io::Result<bool> {
        let Self::Connecting(stream) = self else {
            return Err(io::ErrorKind::NotConnected.into());
        };
        if !wait_for(stream, PollFlags::POLLOUT, wait_ns) {
            return Ok(false);
        }
        if let Some(error) = stream.take_error()? {
            return Err(error);
        }
        stream.set_nonblocking(false)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(TICK))?;
        let Self::Connecting(stream) = std::mem::replace(self, Self::Down) else {
            unreachable!("matched above");
        };
        *self = Self::Up(stream);
        Ok(true)
    }

    /// Sends what the socket takes without waiting. An error shows again when receiving, after what came before it.
    pub(super) fn send(&self, outbox: &mut Outbox) {
        let Self::Up(stream) = self else {
            return;
        };
        while !outbox.unsent().is_empty() {
            match send(stream.as_raw_fd(), outbox.unsent(), MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL) {
                Ok(size) => outbox.on_sent(size),
                Err(Errno::EINTR) => {}
                Err(_) => return,
            }
        }
    }

    /// Receives what is there, or waits for it: `wait_ns` at most, rounded up to no more than [`TICK_NS`].
    pub(super) fn receive(&self, inbox: &mut Inbox, outbox: &Outbox, wait_ns: u64) -> Received {
        let Self::Up(stream) = self else {
            return Received::Over(None);
        };
        let blocked = !outbox.unsent().is_empty();
        if wait_ns >= TICK_NS && !blocked {
            return receive_once(stream, inbox, MsgFlags::empty());
        }
        let received = receive_once(stream, inbox, MsgFlags::MSG_DONTWAIT);
        if received != Received::Nothing || wait_ns == 0 {
            return received;
        }
        let interest = if blocked { PollFlags::POLLIN | PollFlags::POLLOUT } else { PollFlags::POLLIN };
        if !wait_for(stream, interest, wait_ns.min(TICK_NS)) {
            return Received::Nothing;
        }
        receive_once(stream, inbox, MsgFlags::MSG_DONTWAIT)
    }

    /// Tells the peer that nothing more will be sent.
    pub(super) fn shutdown(&self) {
        if let Self::Up(stream) = self {
            // A peer that has gone already needs no telling.
            let _ = stream.shutdown(std::net::Shutdown::Write);
        }
    }
}

/// Bytes received and not yet taken.
pub(super) struct Inbox {
    bytes: Box<[u8]>,
    /// Invariant: `start <= end <= bytes.len()`.
    start: usize,
    end: usize,
}

impl Inbox {
    pub(super) fn new() -> Self {
        Self { bytes: vec![0; INBOX_SIZE].into_boxed_slice(), start: 0, end: 0 }
    }

    pub(super) fn unread(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    /// `size` bytes of the unread are done with.
    pub(super) fn skip(&mut self, size: usize) {
        assert!(size <= self.end - self.start, "only received bytes can be skipped");
        self.start += size;
    }

    /// The `size` bytes that were skipped last.
    pub(super) fn skipped(&self, size: usize) -> &[u8] {
        &self.bytes[self.start - size..self.start]
    }

    pub(super) fn clear(&mut self) {
        (self.start, self.end) = (0, 0);
    }

    fn room(&mut self) -> &mut [u8] {
        if self.start == self.end {
            // At the front again: light traffic stays in the same cache lines.
            self.clear();
        } else if self.bytes.len() - self.end < INBOX_ROOM_MIN {
            self.bytes.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        &mut self.bytes[self.end..]
    }
}

/// Bytes encoded and not yet sent.
pub(super) struct Outbox {
    bytes: Vec<u8>,
    /// Invariant: `sent <= bytes.len()`, and both are 0 when all is sent.
    sent: usize,
}

impl Outbox {
    pub(super) fn new() -> Self {
        Self { bytes: Vec::with_capacity(OUTBOX_SIZE), sent: 0 }
    }

    /// Where the session appends.
    pub(super) fn bytes(&mut self) -> &mut Vec<u8> {
        if self.sent > OUTBOX_SIZE / 2 {
            self.bytes.drain(..self.sent);
            self.sent = 0;
        }
        &mut self.bytes
    }

    pub(super) fn unsent(&self) -> &[u8] {
        &self.bytes[self.sent..]
    }

    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.sent = 0;
    }

    fn on_sent(&mut self, size: usize) {
        self.sent += size;
        assert!(self.sent <= self.bytes.len(), "the kernel takes no more than it was given");
        if self.sent == self.bytes.len() {
            self.clear();
        }
    }
}

fn receive_once(stream: &TcpStream, inbox: &mut Inbox, flags: MsgFlags) -> Received {
    let room = inbox.room();
    assert!(!room.is_empty(), "an inbox without room would look like a closed connection");
    match recv(stream.as_raw_fd(), room, flags) {
        Ok(0) => Received::Over(None),
        Ok(size) => {
            inbox.end += size;
            Received::Bytes(size)
        }
        Err(Errno::EAGAIN | Errno::EINTR) => Received::Nothing,
        Err(errno) => Received::Over(Some(io::Error::from(errno).kind())),
    }
}

/// True if `interest` (or an error, which the next operation tells) arose within `wait_ns`.
fn wait_for(stream: &TcpStream, interest: PollFlags, wait_ns: u64) -> bool {
    let mut polled = [PollFd::new(stream.as_fd(), interest)];
    let seconds = i64::try_from(wait_ns / SECOND_NS).unwrap_or(i64::MAX);
    let nanoseconds = i64::try_from(wait_ns % SECOND_NS).expect("below a second");
    // An interrupted wait is a short wait.
    ppoll(&mut polled, Some(TimeSpec::new(seconds, nanoseconds)), None).is_ok_and(|ready| ready > 0)
}

fn resolve(address: &str, attempt: usize) -> io::Result<SocketAddr> {
    if let Ok(target) = address.parse() {
        return Ok(target);
    }
    let targets: Vec<SocketAddr> = address.to_socket_addrs()?.collect();
    if targets.is_empty() {
        return Err(io::ErrorKind::NotFound.into());
    }
    Ok(targets[attempt % targets.len()])
}
