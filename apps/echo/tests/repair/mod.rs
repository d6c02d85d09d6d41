//! Blocks that rot while nodes are down: repaired from the others, and nothing is lost.

use std::path::PathBuf;

use evershard::node::DurabilityConfig;

use crate::Checked;
use crate::processes::{Processes, wait_for};

const UNIT: usize = 4096;
const CONTENT_AT: usize = 256;

/// A block of stream data in a segment's file.
struct Rotten {
    path: PathBuf,
    offset: usize,
    was: Vec<u8>,
}

fn field(block: &[u8], at: usize, size: usize) -> u64 {
    let mut bytes = [0; 8];
    bytes[..size].copy_from_slice(&block[at..at + size]);
    u64::from_le_bytes(bytes)
}

/// Flips a bit in the data block of the first segment through which `position` goes.
fn rot(cluster: &Processes, node: usize, position: u64) -> Rotten {
    let path = cluster.data(node).join("shard-0").join("segment-0000000000000001.log");
    let mut bytes = std::fs::read(&path).expect("the node wrote it");
    let mut offset = UNIT;
    loop {
        let block = &bytes[offset..];
        assert_eq!(&block[..8], b"EVSBLOCK", "the position is in this segment");
        let (kind, used, units, first) =
            (field(block, 18, 2), field(block, 20, 4), field(block, 24, 2), field(block, 72, 8));
        let size = usize::try_from(units).expect("small") * UNIT;
        if kind == 1 && (first..first + used).contains(&position) {
            let was = block[..size].to_vec();
            bytes[offset + CONTENT_AT + 33] ^= 4;
            std::fs::write(&path, &bytes).expect("the node is down");
            return Rotten { path, offset, was };
        }
        offset += size;
    }
}

impl Rotten {
    fn check_repaired(&self) {
        let bytes = std::fs::read(&self.path).expect("it is there");
        assert!(bytes[self.offset..][..self.was.len()] == self.was, "what was there is there again, bit by bit");
    }
}

fn loaded() -> (Processes, u64) {
    let cluster = Processes::start(3, DurabilityConfig::Durable);
    let mut client = Checked::connect(&cluster);
    client.progress(4000);
    client.finish();
    let mut committed = 0;
    wait_for("everybody to have everything", || {
        let status: Vec<_> = (0..3).filter_map(|node| cluster.status(node)).collect();
        committed = status.iter().filter_map(|status| status["committed"].as_u64()).max().unwrap_or(0);
        status.len() == 3 && status.iter().all(|status| status["durable"].as_u64() == Some(committed))
    });
    (cluster, committed)
}

fn wait_until_whole(cluster: &Processes, node: usize, committed: u64) {
    wait_for("the repair", || {
        cluster.status(node).is_some_and(|status| {
            let applied = status["applied"].as_u64() >= Some(committed);
            let whole = status["holes"] == 0 && status["blocks_repaired"] == 1 && status["sound"] == true;
            whole && applied && status["trouble"].as_array().is_some_and(Vec::is_empty)
        })
    });
}

#[test]
fn a_rotten_block_is_repaired_from_a_peer() {
    let (mut cluster, committed) = loaded();
    let follower = (usize::from(cluster.wait_for_leader()) + 1) % 3;
    cluster.kill(follower);
    let rotten = rot(&cluster, follower, committed / 2);
    cluster.run(follower);
    wait_until_whole(&cluster, follower, committed);
    cluster.check_digests();
    rotten.check_repaired();
}

/// Every record has good copies, but no replica is whole: they repair each other before anybody leads.
#[test]
fn a_different_block_rots_on_every_node() {
    let (mut cluster, committed) = loaded();
    for node in 0..3 {
        cluster.kill(node);
    }
    let rotten: Vec<Rotten> = (0..3).map(|node| rot(&cluster, node, committed * (node as u64 + 1) / 4)).collect();
    for node in 0..3 {
        cluster.run(node);
    }
    for node in 0..3 {
        wait_until_whole(&cluster, node, committed);
    }
    cluster.wait_for_leader();
    cluster.check_digests();
    for block in &rotten {
        block.check_repaired();
    }
    let mut client = Checked::connect(&cluster);
    client.progress(1000);
    client.finish();
}

/// The leader finds out while it feeds a replica that has lost everything: it is repaired, and the replica is fed.
#[test]
fn a_block_that_rots_in_a_running_leader_is_repaired() {
    let (mut cluster, committed) = loaded();
    for node in 0..3 {
        cluster.kill(node);
    }
    std::fs::remove_dir_all(cluster.data(2)).expect("it is down");
    cluster.run(0);
    cluster.run(1);
    let leader = usize::from(cluster.wait_for_leader());
    wait_for("what is on disk to be applied", || {
        cluster.status(leader).is_some_and(|status| status["applied"].as_u64() >= Some(committed))
    });
    let rotten = rot(&cluster, leader, committed / 2);
    cluster.run(2);
    wait_until_whole(&cluster, leader, committed);
    cluster.check_digests();
    wait_for("the replica that lost everything to count again", || {
        cluster.status(2).is_some_and(|status| status["sound"] == true)
    });
    rotten.check_repaired();
}

/// Nobody who lives has what is in the hole: its owner does not lead, and the shard waits for who has it.
#[test]
fn a_hole_that_nobody_can_fill_is_not_given_up() {
    let (mut cluster, committed) = loaded();
    for node in 0..3 {
        cluster.kill(node);
    }
    let rotten = [rot(&cluster, 0, committed / 2), rot(&cluster, 1, committed / 2)];
    cluster.run(0);
    cluster.run(1);
    wait_for("both to say what is missing", || {
        (0..2).all(|node| cluster.status(node).is_some_and(|status| status["holes"] == 1 && status["sound"] == true))
    });
    std::thread::sleep(std::time::Duration::from_secs(2));
    for node in 0..2 {
        let status = cluster.status(node).expect("it runs");
        assert!(status["leader"].is_null() && status["applied"].as_u64() < Some(committed), "{status}");
    }
    cluster.run(2);
    for node in 0..2 {
        wait_until_whole(&cluster, node, committed);
    }
    cluster.check_digests();
    for block in &rotten {
        block.check_repaired();
    }
}
