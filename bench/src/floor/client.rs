//! The floor's client: one request in flight, the round trip of each into a histogram.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use super::plan::{ClientKind, Wait};
use super::ring::{Counters, Event, Ring};

/// Sends requests for so long after a warm-up and returns the round trips in nanoseconds.
pub fn run(
    kind: ClientKind,
    wait: Wait,
    size: usize,
    duration: Duration,
    leader: TcpStream,
) -> io::Result<(Histogram<u64>, Counters)> {
    let mut histogram = Histogram::new(3).map_err(io::Error::other)?;
    match kind {
        ClientKind::Syscalls => {
            let mut leader = leader;
            let mut request = vec![0_u8; size];
            let requests = measure(duration, &mut histogram, |number| {
                request[..size_of::<u64>()].copy_from_slice(&number.to_le_bytes());
                leader.write_all(&request)?;
                leader.read_exact(&mut request)?;
                check_echo(&request, number)
            })?;
            Ok((histogram, Counters { requests, ..Counters::default() }))
        }
        ClientKind::Ring => {
            let mut ring = Ring::new(wait, vec![leader], None)?;
            let mut reply = vec![0_u8; size];
            let requests = measure(duration, &mut histogram, |number| round_trip(&mut ring, &mut reply, number))?;
            Ok((histogram, Counters { requests, ..ring.counters() }))
        }
    }
}

fn round_trip(ring: &mut Ring, reply: &mut [u8], number: u64) -> io::Result<()> {
    ring.message_mut(0)[..size_of::<u64>()].copy_from_slice(&number.to_le_bytes());
    ring.send(0, 0, reply.len())?;
    let mut filled = 0;
    while filled < reply.len() {
        ring.turn()?;
        let mut closed = false;
        ring.reap(|event| match event {
            Event::Received(_, bytes) => {
                reply[filled..filled + bytes.len()].copy_from_slice(bytes);
                filled += bytes.len();
            }
            Event::Closed => closed = true,
            Event::Written(_) => {}
        })?;
        if closed {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the leader hung up"));
        }
    }
    check_echo(reply, number)
}

fn measure(
    duration: Duration,
    histogram: &mut Histogram<u64>,
    mut round_trip: impl FnMut(u64) -> io::Result<()>,
) -> io::Result<u64> {
    let start = Instant::now();
    let warm = duration.mul_f64(WARM_UP_SHARE);
    let mut number = 0_u64;
    let mut before = start;
    while before - start < warm + duration {
        number += 1;
        round_trip(number)?;
        let after = Instant::now();
        if before - start >= warm {
            let nanoseconds = u64::try_from((after - before).as_nanos()).unwrap_or(u64::MAX);
            histogram.record(nanoseconds).map_err(io::Error::other)?;
        }
        before = after;
    }
    Ok(number)
}

fn check_echo(reply: &[u8], number: u64) -> io::Result<()> {
    if reply.starts_with(&number.to_le_bytes()) {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::InvalidData, format!("request {number} was answered with other bytes")))
}

const WARM_UP_SHARE: f64 = 0.2;
