//! What an operator does who has lost a quorum for good, by hand like the rest of [`crate::script`]: the production code reads
//! the survivors' disks and writes new ones.

use evershard_log::slots::{SLOT_SIZE, SLOTS_FILE_SIZE};
use evershard_log::{SegmentHeader, SegmentNumber};
use evershard_node::salvage::{
    Copied, Order, ReplicaSink, SalvageError, Survey, copy, identify, newest_snapshot, survey,
};
use evershard_node::start::{ReplicaFiles, StartError};
use evershard_protocol::{ClusterId, Position, Term};
use std::io;

use crate::client::address;
use crate::disk::SimDisk;
use crate::node::{self, NodeFile, node_id};
use crate::oracle::ShardOracle;
use crate::random::Random;
use crate::script::Script;

/// A disk that a recovery writes to.
struct NewDisk(SimDisk);

impl ReplicaSink for NewDisk {
    fn prepare(&mut self, header: &SegmentHeader) -> io::Result<()> {
        self.0.prepare(header).map_err(io::Error::from_raw_os_error)
    }

    fn write_block(&mut self, segment: SegmentNumber, offset: u64, block: &[u8]) -> io::Result<()> {
        self.0.repair(segment, offset, block).map_err(io::Error::from_raw_os_error)
    }

    fn write_snapshot(&mut self, position: Position, bytes: &[u8]) -> io::Result<()> {
        self.0.shelf.put(position, bytes.to_vec());
        Ok(())
    }

    fn write_slots(&mut self, slots: &[u8; SLOTS_FILE_SIZE]) -> io::Result<()> {
        let mut files = self.0.mount();
        for (slot, offset) in slots.as_chunks::<SLOT_SIZE>().0.iter().zip((0..).step_by(SLOT_SIZE)) {
            files.write_slot(offset, slot)?;
        }
        Ok(())
    }
}

impl Script {
    /// Nodes are lost for good: killed, and not started when all trouble is over.
    pub fn lose(&mut self, nodes: &[usize]) {
        for node in nodes {
            self.world.nodes[*node].lost = true;
            if self.world.nodes[*node].process.is_some() {
                self.crash(*node);
            }
        }
    }

    /// What a node that is down holds of a shard.
    ///
    /// # Errors
    /// [`SalvageError`].
    pub fn survey(&mut self, node: usize, shard: usize) -> Result<Survey, SalvageError> {
        assert!(self.world.nodes[node].process.is_none(), "a recovery is done offline");
        look(&mut self.world.nodes[node].disks[shard])
    }

    /// Makes a new cluster of what a node that is down holds, on new disks in the same node. The lost members' terms are not
    /// known. The node is not started.
    ///
    /// # Errors
    /// [`SalvageError`]: the node is as it was.
    pub fn recover(&mut self, node: usize, name: &str, accept_loss: bool) -> Result<Vec<Copied>, SalvageError> {
        assert!(self.world.nodes[node].process.is_none(), "a recovery is done offline");
        let new_cluster = ClusterId::of_name(name);
        let (seed, now) = (self.world.plan.seed, self.world.nodes[node].clock.now(self.world.time).timestamp);
        let (mut disks, mut done) = (Vec::new(), Vec::new());
        for shard in 0..self.world.plan.options.shards {
            let order = Order {
                old_cluster: self.world.nodes[node].file.cluster(),
                new_cluster,
                node: node_id(node),
                address: &address(node),
                reason: "the others are gone for good",
                term: Term(0),
                now,
                accept_loss,
            };
            let old = &mut self.world.nodes[node].disks[shard];
            let before = old.image();
            let mut new = NewDisk(SimDisk::new(Random::numbered(seed, "recovered media", shard as u64)));
            let found = look(old)?;
            done.push(copy(&found, &mut old.mount(), &order, &mut new)?);
            assert!(old.image() == before, "nothing that is read is changed");
            disks.push(new.0);
            self.world.oracles[shard].log.replay.announce_recovery(new_cluster);
        }
        self.world.nodes[node].disks = disks;
        self.world.nodes[node].file = NodeFile { joins: false, recovered: Some((new_cluster, node_id(node))) };
        Ok(done)
    }

    /// What was told to clients and is not on the survivor is given up: everything that the judges know of it is forgotten, and
    /// they begin with what is in its log. Clients may be told that something was lost.
    pub fn give_up(&mut self, survivor: usize) {
        let options = &self.world.plan.options;
        let (new_cluster, _) = self.world.nodes[survivor].file.recovered.expect("it was recovered");
        for oracle in &mut self.world.oracles {
            *oracle = ShardOracle::new(options.nodes, options.voters);
            oracle.log.replay.announce_recovery(new_cluster);
        }
        self.world.history.given_up = true;
    }

    /// A node that is down is given the file of a node that joins the cluster that `founder` was recovered into.
    pub fn enlist(&mut self, node: usize, founder: usize) {
        let recovered = self.world.nodes[founder].file.recovered;
        assert!(recovered.is_some(), "the founder was recovered");
        self.world.nodes[node].file = NodeFile { joins: true, recovered };
        self.world.nodes[node].lost = false;
    }

    /// Tries to start a node with this file on the disks it has; why it is refused.
    pub fn refusal(&mut self, node: usize, file: NodeFile) -> Option<StartError> {
        let now = self.world.time;
        let options = self.world.plan.options.clone();
        let node::Node { clock, disks, .. } = &mut self.world.nodes[node];
        let before = disks[0].image();
        let refused = node::open(node, 0, file, &options, clock, &mut disks[0], now).err();
        assert!(refused.is_none() || disks[0].image() == before, "who is refused changes nothing");
        refused
    }
}

fn look(disk: &mut SimDisk) -> Result<Survey, SalvageError> {
    let mut slots = [0; SLOTS_FILE_SIZE];
    let mut files = disk.mount();
    files.read_slots(&mut slots).map_err(|error| SalvageError::Read("slots".to_owned(), error))?;
    let identity = identify(&mut files)?;
    let snapshot = newest_snapshot(&identity, &files.snapshots(), &mut |position| files.read_snapshot(position))?;
    survey(&identity, &slots, snapshot, &mut files)
}
