//! TCP sockets.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::sys::socket::{AddressFamily, Shutdown, SockFlag, SockType, setsockopt, shutdown, socket, sockopt};

/// A TCP connection, or one to be.
#[derive(Debug)]
pub struct Socket(OwnedFd);

impl Socket {
    /// A socket to connect to `address` with, without Nagle's delay.
    ///
    /// # Errors
    /// When the process has no file descriptor left, or the family is not supported.
    pub fn for_address(address: &SocketAddr) -> io::Result<Self> {
        let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        let socket = Self(socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?);
        socket.set_no_delay();
        Ok(socket)
    }

    /// Wraps an accepted connection.
    #[must_use]
    pub fn accepted(fd: OwnedFd) -> Self {
        let socket = Self(fd);
        socket.set_no_delay();
        socket
    }

    /// Ends the connection in both directions: pending operations on it complete.
    pub fn shutdown(&self) {
        use std::os::fd::AsRawFd;
        // An error means that it was not connected any more, which is what is wanted.
        let _ = shutdown(self.0.as_raw_fd(), Shutdown::Both);
    }

    fn set_no_delay(&self) {
        // Refused only by sockets that are not TCP, which have no such delay.
        let _ = setsockopt(&self.0, sockopt::TcpNoDelay, &true);
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Opens a listening socket, address reuse on.
///
/// # Errors
/// When the address is taken or not this host's.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address)
}
