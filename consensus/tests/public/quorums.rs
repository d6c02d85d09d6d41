//! Tables of quorums: what is committed, and where an election stands, with one majority and with two.
//!
//! The answers come from the code that the core itself decides with ([`evershard_consensus::quorum`]); the file's
//! little picture of who reaches how far is drawn here. Two things are mapped:
//!
//! * Ids in the files are any numbers; here they are numbered from 0 in ascending order, as a set of nodes has 63 places.
//! * In the files an empty quorum commits everything and wins every vote, as the neutral element of a joint quorum. Here
//!   the neutral element is an empty *outgoing* set, and a configuration without voters decides nothing: it belongs to a
//!   replica that does not know its shard yet. The adapter answers for the files' empty quorum and checks ours.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use evershard_consensus::quorum::{VoteOutcome, reached, vote_outcome};
use evershard_protocol::{Membership, NodeId, NodeSet, Position};

use crate::datadriven::{Command, run};

/// Runs one file; how many commands it had.
pub fn run_file(path: &Path) -> usize {
    run(path, |command| match &command.name[..] {
        "committed" => committed(command),
        "vote" => vote(command),
        other => panic!("{}:{}: no such command: {other}", path.display(), command.line),
    })
}

/// The voters of a command: ids of the file in ascending order, and the configuration that they make.
struct Electorate {
    ids: Vec<u64>,
    membership: Membership,
    /// The ids in the order in which their values are given: first those of the first set.
    order: Vec<u64>,
}

impl Electorate {
    fn of(command: &Command) -> Self {
        let numbers = |key: &str| -> Vec<u64> {
            let values = command.values(key).unwrap_or_default();
            values
                .iter()
                .filter(|value| *value != "zero")
                .map(|value| value.parse().expect("ids are numbers"))
                .collect()
        };
        let (first, second) = (numbers("cfg"), numbers("cfgj"));
        let mut order = first.clone();
        order.extend(second.iter().filter(|id| !first.contains(id)));
        let mut ids = order.clone();
        ids.sort_unstable();
        let set = |of: &[u64]| -> NodeSet { of.iter().map(|id| node(&ids, *id)).collect() };
        let membership = Membership { voters: set(&first), outgoing: set(&second), learners: NodeSet::EMPTY };
        Self { ids, membership, order }
    }

    /// What the command says of every voter, by id; nothing where it says `_`.
    fn values<T>(&self, command: &Command, key: &str, read: impl Fn(&str) -> T) -> BTreeMap<u64, T> {
        let values = command.values(key).unwrap_or_default();
        assert_eq!(values.len(), self.order.len(), "line {}: one value for each voter", command.line);
        let known = self.order.iter().zip(values).filter(|(_, value)| *value != "_");
        known.map(|(id, value)| (*id, read(value))).collect()
    }

    fn id(&self, node: NodeId) -> u64 {
        self.ids[usize::from(node.0)]
    }
}

fn committed(command: &Command) -> String {
    let electorate = Electorate::of(command);
    let known = electorate.values(command, "idx", |value| value.parse::<u64>().expect("a number"));
    let of_node = |node: NodeId| Position(known.get(&electorate.id(node)).copied().unwrap_or(0));
    let committed = reached(&electorate.membership, of_node);
    if electorate.ids.is_empty() {
        assert_eq!(committed, Position::ZERO, "who belongs nowhere commits nothing");
        return "<empty majority quorum>∞".to_owned();
    }
    let Membership { voters, outgoing, .. } = electorate.membership;
    if !outgoing.is_empty() {
        let turned = Membership { voters: outgoing, outgoing: voters, learners: NodeSet::EMPTY };
        assert_eq!(reached(&turned, of_node), committed, "two majorities are of equal rank");
        let twice = Membership { outgoing: voters, ..electorate.membership };
        let once = Membership { outgoing: NodeSet::EMPTY, ..electorate.membership };
        assert_eq!(reached(&twice, of_node), reached(&once, of_node), "joint with itself");
    }
    format!("{}{}", picture(&electorate.ids, &known), committed.0)
}

/// How many voters are behind each, as a bar; `?` where nothing is known.
fn picture(ids: &[u64], known: &BTreeMap<u64, u64>) -> String {
    let index = |id: &u64| known.get(id).copied().unwrap_or(0);
    let width = ids.len();
    let mut out = format!("{:width$}    idx\n", "");
    for id in ids {
        let bar = match known.get(id) {
            None => "?".to_owned(),
            Some(value) => format!("{}>", "x".repeat(ids.iter().filter(|other| index(other) < *value).count())),
        };
        writeln!(out, "{bar:len$} {:5}    (id={id})", index(id), len = width + 1).expect("strings take everything");
    }
    out
}

fn vote(command: &Command) -> String {
    let electorate = Electorate::of(command);
    let answers = electorate.values(command, "votes", |value| match value {
        "y" => true,
        "n" => false,
        other => panic!("line {}: no such vote: {other}", command.line),
    });
    let outcome = vote_outcome(&electorate.membership, |node| answers.get(&electorate.id(node)).copied());
    if electorate.ids.is_empty() {
        assert_ne!(outcome, VoteOutcome::Won, "who belongs nowhere is not elected");
        return "VoteWon".to_owned();
    }
    match outcome {
        VoteOutcome::Pending => "VotePending",
        VoteOutcome::Won => "VoteWon",
        VoteOutcome::Lost => "VoteLost",
    }
    .to_owned()
}

fn node(ids: &[u64], id: u64) -> NodeId {
    let at = ids.binary_search(&id).expect("every voter has an id");
    NodeId(u8::try_from(at).expect("few voters"))
}
