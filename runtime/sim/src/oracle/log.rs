//! `log-differs`: what one replica holds for committed every other does, byte for byte. The first replica that commits a
//! range tells what it is; it is kept, so that it must stay the same through every later life of every replica.

use evershard_node::core::Core;
use evershard_node::env::{ReadPurpose, ReadRequest};
use evershard_protocol::{NodeSet, Position};

use crate::disk::SimDisk;
use crate::oracle::Violation;
use crate::oracle::replay::Replay;
use crate::service::KeyValue;

/// The committed log of a shard.
pub struct CommittedLog {
    bytes: Vec<u8>,
    /// Up to where each replica was compared in this life.
    compared: Vec<Position>,
    /// What it means.
    pub replay: Replay,
}

impl CommittedLog {
    /// Nothing is committed.
    #[must_use]
    pub fn new(nodes: usize, voters: NodeSet) -> Self {
        Self { bytes: Vec::new(), compared: vec![Position::ZERO; nodes], replay: Replay::new(voters) }
    }

    /// Where it ends, as far as is known.
    #[must_use]
    pub fn end(&self) -> Position {
        Position(self.bytes.len() as u64)
    }

    pub(super) fn on_start(&mut self, node: usize) {
        self.compared[node] = Position::ZERO;
    }

    pub(super) fn advance(&mut self, node: usize, core: &Core<KeyValue>, disk: &mut SimDisk) -> Result<(), Violation> {
        let commit = core.raft().commit();
        let tail = core.tail();
        if commit <= self.compared[node] {
            return Ok(());
        }
        // What is known already and no longer in memory is not read back: applying it is compared anyhow.
        let from = self.compared[node].max(tail.start().min(self.end()));
        if from < tail.start() && !self.read_back(node, core, disk, from, commit)? {
            // Damaged here; another replica will tell.
            return Ok(());
        }
        let from = from.max(tail.start());
        if from < commit && from <= self.end() {
            let (high, low) = tail.range(from, commit).expect("what is committed and in memory is whole");
            self.compare(node, from, high)?;
            self.compare(node, from.advance(high.len() as u64), low)?;
            self.compared[node] = commit;
        } else if from >= commit {
            self.compared[node] = commit;
        }
        self.replay.run(&self.bytes)
    }

    /// Compares what is only on disk; false if it cannot be read.
    fn read_back(
        &mut self,
        node: usize,
        core: &Core<KeyValue>,
        disk: &mut SimDisk,
        mut from: Position,
        commit: Position,
    ) -> Result<bool, Violation> {
        let end = core.tail().start().min(commit);
        while from < end {
            let Some(location) = core.disk().locate(from) else { return Ok(false) };
            let request = ReadRequest { purpose: ReadPurpose::Apply, location, from, ticket: 0 };
            let bad_reads = std::mem::take(&mut disk.bad_reads);
            let chunk = disk.answer(&request);
            disk.bad_reads = bad_reads;
            let Ok(chunk) = chunk else { return Ok(false) };
            let size = usize::try_from(end.since(from)).expect("a simulated log is small").min(chunk.bytes.len());
            if size == 0 {
                return Ok(false);
            }
            self.compare(node, from, &chunk.bytes[..size])?;
            from = from.advance(size as u64);
        }
        Ok(true)
    }

    fn compare(&mut self, node: usize, from: Position, bytes: &[u8]) -> Result<(), Violation> {
        let at = usize::try_from(from.0).expect("a simulated log is small");
        assert!(at <= self.bytes.len(), "no range is left out");
        let known = &self.bytes[at..];
        let shared = known.len().min(bytes.len());
        if let Some(differs) = (0..shared).find(|index| known[*index] != bytes[*index]) {
            let position = from.advance(differs as u64);
            let what =
                format!("n{node} holds something else for committed at byte {position} than was committed first");
            return Violation::of("log-differs", what);
        }
        self.bytes.extend_from_slice(&bytes[shared..]);
        Ok(())
    }
}
