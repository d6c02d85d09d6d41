//! The floor's leader: request in, to both followers and the file, answer at two of three.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::net::TcpStream;

use super::plan::Wait;
use super::ring::{BLOCK_SLOTS, Counters, Event, MESSAGE_SLOTS, Ring, SLOT_SIZE};

/// Serves one client until it hangs up. Links are the client and then the followers.
pub fn serve(wait: Wait, size: usize, links: [TcpStream; 3], file: Option<File>) -> io::Result<Counters> {
    let durable = file.is_some();
    let mut ring = Ring::new(wait, Vec::from(links), file)?;
    let mut requests = Inbox::new(size);
    let mut acknowledged_size = [0_u64; 2];
    let mut writes = Writes::default();
    let mut broadcast = 0_u64;
    let mut replied = 0_u64;
    let mut received = [0_u8; SLOT_SIZE];
    loop {
        ring.turn()?;
        let mut closed = false;
        let mut received_len = 0;
        ring.reap(|event| match event {
            Event::Received(CLIENT, bytes) => {
                received[received_len..received_len + bytes.len()].copy_from_slice(bytes);
                received_len += bytes.len();
            }
            Event::Received(link, bytes) => acknowledged_size[link - 1] += bytes.len() as u64,
            Event::Closed => closed = true,
            Event::Written(block) => writes.on_written(block),
        })?;
        if closed {
            return Ok(ring.counters());
        }
        requests.fill(&mut ring, &received[..received_len]);
        let acknowledged = acknowledged_size.map(|size| size / ACKNOWLEDGEMENT_SIZE as u64);
        let slowest = acknowledged[0].min(acknowledged[1]);
        while broadcast < requests.complete && broadcast - slowest < LAG_MAX {
            broadcast += 1;
            let slot = payload_slot(broadcast);
            ring.send(FIRST_FOLLOWER, slot, size)?;
            ring.send(SECOND_FOLLOWER, slot, size)?;
        }
        if durable {
            writes.issue(&mut ring, broadcast)?;
        }
        let own = if durable { writes.durable } else { broadcast };
        let mut votes = [own, acknowledged[0], acknowledged[1]];
        votes.sort_unstable();
        while replied < votes[1].min(broadcast) {
            replied += 1;
            ring.send(CLIENT, payload_slot(replied), size)?;
        }
    }
}

/// Messages of one fixed size, put together from a byte stream straight into the ring's message slots.
pub struct Inbox {
    size: usize,
    filled: usize,
    /// How many messages have come whole.
    pub complete: u64,
}

impl Inbox {
    /// An empty inbox for messages of `size` bytes.
    pub fn new(size: usize) -> Self {
        Self { size, filled: 0, complete: 0 }
    }

    /// Takes bytes that came; complete messages lie in the slots of their numbers.
    pub fn fill(&mut self, ring: &mut Ring, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let len = bytes.len().min(self.size - self.filled);
            let slot = ring.message_mut(payload_slot(self.complete + 1));
            slot[self.filled..self.filled + len].copy_from_slice(&bytes[..len]);
            bytes = &bytes[len..];
            self.filled += len;
            if self.filled == self.size {
                self.filled = 0;
                self.complete += 1;
            }
        }
    }
}

/// Durable writes in flight and the contiguous prefix that is done.
#[derive(Default)]
pub struct Writes {
    /// (block slot, last message it covers, done), oldest first.
    in_flight: VecDeque<(usize, u64, bool)>,
    count: u64,
    covered: u64,
    /// Every message up to this one is on stable storage.
    pub durable: u64,
}

impl Writes {
    /// Queues one write that covers all messages up to `last`, if there are new ones and a block is free.
    pub fn issue(&mut self, ring: &mut Ring, last: u64) -> io::Result<()> {
        if self.covered == last || self.in_flight.len() == BLOCK_SLOTS {
            return Ok(());
        }
        let block = (self.count % BLOCK_SLOTS as u64) as usize;
        let offset = self.count % FILE_BLOCKS * SLOT_SIZE as u64;
        ring.write(block, payload_slot(last), offset)?;
        self.in_flight.push_back((block, last, false));
        self.count += 1;
        self.covered = last;
        Ok(())
    }

    /// Notes a completed write, in whatever order they come.
    pub fn on_written(&mut self, block: usize) {
        if let Some(write) = self.in_flight.iter_mut().find(|write| write.0 == block) {
            write.2 = true;
        }
        while let Some(&(_, last, true)) = self.in_flight.front() {
            self.durable = last;
            self.in_flight.pop_front();
        }
    }
}

/// The message slot of a message's number.
pub fn payload_slot(number: u64) -> usize {
    (number % PAYLOAD_SLOTS) as usize
}

/// The bytes of a follower's answer.
pub const ACKNOWLEDGEMENT_SIZE: usize = 32;
/// Blocks of the preallocated file, written in a circle.
pub const FILE_BLOCKS: u64 = 2048;
/// Message slots for payloads; the rest are for acknowledgements.
pub const PAYLOAD_SLOTS: u64 = MESSAGE_SLOTS as u64 / 2;

/// Half the slots, so that a slot's sends have all been answered before it is filled again.
const LAG_MAX: u64 = PAYLOAD_SLOTS / 2;
const CLIENT: usize = 0;
const FIRST_FOLLOWER: usize = 1;
const SECOND_FOLLOWER: usize = 2;
