//! The floor's follower: message in, to the file if there is one, acknowledgement out.

use std::fs::File;
use std::io;
use std::net::TcpStream;

use super::leader::{ACKNOWLEDGEMENT_SIZE, Inbox, PAYLOAD_SLOTS, Writes, payload_slot};
use super::plan::Wait;
use super::ring::{Counters, Event, Ring, SLOT_SIZE};

/// Follows one leader until it hangs up.
pub fn follow(wait: Wait, size: usize, leader: TcpStream, file: Option<File>) -> io::Result<Counters> {
    let durable = file.is_some();
    let mut ring = Ring::new(wait, vec![leader], file)?;
    let mut inbox = Inbox::new(size);
    let mut writes = Writes::default();
    let mut acknowledged = 0_u64;
    let mut received = vec![0_u8; RECEIVED_SIZE_MAX];
    loop {
        ring.turn()?;
        let mut closed = false;
        let mut received_len = 0;
        ring.reap(|event| match event {
            Event::Received(_, bytes) => {
                received[received_len..received_len + bytes.len()].copy_from_slice(bytes);
                received_len += bytes.len();
            }
            Event::Closed => closed = true,
            Event::Written(block) => writes.on_written(block),
        })?;
        if closed {
            return Ok(ring.counters());
        }
        inbox.fill(&mut ring, &received[..received_len]);
        if durable {
            writes.issue(&mut ring, inbox.complete)?;
        }
        let safe = if durable { writes.durable } else { inbox.complete };
        while acknowledged < safe {
            acknowledged += 1;
            let slot = PAYLOAD_SLOTS as usize + payload_slot(acknowledged);
            ring.message_mut(slot)[..size_of::<u64>()].copy_from_slice(&acknowledged.to_le_bytes());
            ring.send(LEADER, slot, ACKNOWLEDGEMENT_SIZE)?;
        }
    }
}

/// What a leader may have under way: every payload slot, full.
const RECEIVED_SIZE_MAX: usize = PAYLOAD_SLOTS as usize * SLOT_SIZE;
const LEADER: usize = 0;
