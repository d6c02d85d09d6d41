//! What both implementations are asked to do, and what of them is compared.

/// A node by its index; the other implementation counts from 1.
pub type Node = usize;

/// One record of a log, apart from its term.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Record {
    /// The first of a leader: our `TermStart`, their empty entry.
    Start,
    /// A step of a change of the configuration.
    Change,
    /// A command with this number.
    Command(u64),
}

/// How the configuration is to change.
#[derive(Clone, Copy, Debug)]
pub enum Change {
    /// Becomes a learner, whatever it was.
    Learn(Node),
    /// A learner becomes a voter.
    Promote(Node),
    /// Leaves.
    Remove(Node),
    /// A learner takes the place of a voter.
    Replace(Node, Node),
}

/// What can be seen of a node that runs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct View {
    pub leads: bool,
    /// The latest term it knows of.
    pub term: u64,
    pub log: Vec<Record>,
    /// The terms of the records.
    pub terms: Vec<u64>,
    pub committed_len: usize,
    pub voters: Vec<Node>,
    pub learners: Vec<Node>,
    pub joint: bool,
}

/// A cluster of one implementation. Nothing happens in it but what it is told; letters are delivered in
/// [`Cluster::settle`].
pub trait Cluster {
    /// The node's election timer runs out, and nobody has heard a leader for long.
    fn campaign(&mut self, node: Node);
    /// False if the node does not take commands.
    fn propose(&mut self, node: Node, command: u64) -> bool;
    fn transfer(&mut self, leader: Node, to: Node);
    fn change(&mut self, leader: Node, change: Change) -> bool;
    /// Loses all that is not on disk.
    fn crash(&mut self, node: Node);
    fn restart(&mut self, node: Node);
    /// While it is stuck a disk writes nothing; what was asked of it ends when it is no longer.
    fn stick(&mut self, node: Node, stuck: bool);
    /// Nodes of different groups do not hear each other, and are not told so.
    fn part(&mut self, groups: &[usize]);
    /// Delivers all letters, with some heartbeats, until nothing is new.
    fn settle(&mut self);
    /// None if it does not run.
    fn view(&self, node: Node) -> Option<View>;
}

/// Nodes of which the first three are voters from the start.
pub const NODES_LEN: usize = 5;
pub const VOTERS_LEN: usize = 3;
/// Heartbeats in which everybody learns what there is to learn.
pub const HEARTBEATS_LEN: usize = 5;
