//! Addresses for clusters on one host: tests, demos, benchmarks.
//!
//! All of 127.0.0.0/8 is loopback (RFC 1122, section 3.2.1.3). Each process takes a host of its own from it, after its
//! id: on 127.0.0.1 a port that was free a moment ago may be given to the next process that asks, or become the near
//! end of anybody's outgoing connection while a node is being restarted, which would keep the node from coming back.
//! Ports are below the range from which the kernel takes those (`net.ipv4.ip_local_port_range`, 32768 and up unless
//! set), and none is given out twice before all have been.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering};

const PORT_FIRST: u16 = 10_000;
const PORT_END: u16 = 32_000;
/// Ranges that are tried before giving up.
const ATTEMPTS: usize = 100;

/// `count` addresses on loopback, neighbouring ports of one host, free just now.
///
/// # Errors
/// When none are found.
pub fn free_addresses(count: u16) -> io::Result<Vec<String>> {
    static NEXT: AtomicU16 = AtomicU16::new(PORT_FIRST);
    let host = host_of(std::process::id());
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for _ in 0..ATTEMPTS {
        let end = |first: u16| first.checked_add(count).filter(|end| *end <= PORT_END);
        let advanced = |first: u16| end(first).or_else(|| end(PORT_FIRST));
        // Relaxed: nothing else is published with it.
        let Ok(next) = NEXT.fetch_update(Ordering::Relaxed, Ordering::Relaxed, advanced) else { break };
        let first = if end(next).is_some() { next } else { PORT_FIRST };
        let addresses = (first..first + count).map(|port| SocketAddr::from((host, port)));
        let held: io::Result<Vec<TcpListener>> = addresses.clone().map(TcpListener::bind).collect();
        match held {
            Ok(_) => return Ok(addresses.map(|address| address.to_string()).collect()),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Process ids have at most 22 bits (`PID_MAX_LIMIT`, Linux), an address on loopback has 24 to choose: none of these is
/// 127.0.0.1, and none is a broadcast address.
fn host_of(process: u32) -> Ipv4Addr {
    let [_, high, middle, low] = process.to_be_bytes();
    Ipv4Addr::new(127, 64 | (high & 63), middle, low)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_address_is_given_twice() {
        let mut all: Vec<String> =
            (1..40_u16).flat_map(|count| free_addresses(count).expect("thousands are free")).collect();
        let count = all.len();
        assert_eq!(count, (1..40).sum::<usize>());
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count);
        all.iter().for_each(|address| drop(TcpListener::bind(address).expect("free")));
    }

    #[test]
    fn what_is_taken_is_passed_over() {
        let [next] = &free_addresses(1).expect("free")[..] else { panic!("one was asked for") };
        let mut after: SocketAddr = next.parse().expect("it is an address");
        after.set_port(after.port() + 1);
        // Another test of this process may have it: then it is taken as well.
        let _taken = TcpListener::bind(after);
        let found = free_addresses(2).expect("there are others");
        assert!(!found.contains(&after.to_string()));
    }

    #[test]
    fn more_than_there_are_is_an_error() {
        assert!(free_addresses(u16::MAX).is_err());
    }

    #[test]
    fn processes_have_hosts_of_their_own() {
        assert_eq!(host_of(1), Ipv4Addr::new(127, 64, 0, 1));
        assert_eq!(host_of(4_194_304 - 1), Ipv4Addr::new(127, 127, 255, 255));
        assert_ne!(host_of(65_536 + 7), host_of(7));
    }
}
