//! What one check explores: who takes part, where it begins, what may happen and how often.

use evershard_consensus::Durability;
use evershard_protocol::{MembershipChange, NodeId, NodeSet};

use crate::check::Step;

/// How finely the world is cut into steps.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Grain {
    /// Every letter, save and flush is a step of its own: all interleavings, not very deep.
    Fine,
    /// An election, or one follower's taking over what a leader has, is one step: deep, but nothing happens in
    /// between.
    Coarse,
}

/// The bounds of an exploration; the defaults let nothing happen but elections.
#[derive(Clone, Debug)]
pub struct Scenario {
    pub name: &'static str,
    pub grain: Grain,
    pub durability: Durability,
    /// So many voters from the start, then so many learners.
    pub voters: u8,
    pub learners: u8,
    /// Node 0 has led term 1, everybody has its log, and nothing is under way.
    pub settled: bool,
    /// Where the exploration begins: after these steps, which are taken without any bug.
    pub begin: Vec<Step>,
    pub term_max: u64,
    pub commands_max: u8,
    pub restarts_max: u8,
    pub heartbeats_max: u8,
    pub duplicates_max: u8,
    pub reads_max: u8,
    pub transfers_max: u8,
    /// Changes that may be asked of any leader, one after the other.
    pub changes: Vec<MembershipChange>,
    /// Fine only: letters under way from one replica to another; one more pushes out the oldest, which is lost.
    pub letters_max: usize,
    /// Promises last for ever, as nobody's time passes: no election but by transfer.
    pub lease: bool,
    /// Coarse only: links are lost while logs are taken over.
    pub partial: bool,
    /// Steps from where it begins.
    pub depth_max: usize,
}

impl Default for Scenario {
    fn default() -> Self {
        Self {
            name: "",
            grain: Grain::Coarse,
            durability: Durability::Durable,
            voters: 3,
            learners: 0,
            settled: false,
            begin: vec![],
            term_max: 3,
            commands_max: 0,
            restarts_max: 0,
            heartbeats_max: 0,
            duplicates_max: 0,
            reads_max: 0,
            transfers_max: 0,
            changes: vec![],
            letters_max: 2,
            lease: false,
            partial: false,
            depth_max: 10,
        }
    }
}

impl Scenario {
    pub fn len(&self) -> u8 {
        self.voters + self.learners
    }

    pub fn everybody(&self) -> NodeSet {
        nodes(0..self.len())
    }
}

pub fn nodes(ids: impl IntoIterator<Item = u8>) -> NodeSet {
    ids.into_iter().map(NodeId).collect()
}

/// How often what is bounded has happened.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct Spent {
    pub commands: u8,
    pub restarts: u8,
    pub heartbeats: u8,
    pub duplicates: u8,
    pub reads: u8,
    pub transfers: u8,
    pub changes: u8,
}
