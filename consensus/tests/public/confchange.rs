//! Tables of configuration changes: which configuration follows from which, and what a leader then knows of its peers.
//!
//! The configurations are [`Membership::begin`] and [`Membership::left`], printed as they print themselves. They are
//! appended to the log of a leader (a real core, itself outside of the tables' configurations), and the lines about
//! progress show that leader's view of its peers. What differs from the tables' own semantics:
//!
//! * `simple` does not exist here: voters change through a joint configuration only. It is run as begin and leave, under
//!   the public rule that at most one voter changes.
//! * Operations follow each other in the files; here a change names each node once. The last operation on a node is the
//!   one that counts, which is the same, as every operation sets a node's place whatever it was before.
//! * A joint configuration that changes nothing cannot be begun here; the adapter makes it by hand.
//! * A configuration without voters may become one with voters here (a shard is born); the files allow that for `simple`
//!   only.
//! * `u` updates an address, which travels beside the configuration here. Node 0, which the files ignore, is an
//!   ordinary node here. Joint configurations are always left by the leader; `autoleave` is printed as it came in.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use evershard_consensus::{Config, Durability, HardState, Output, Raft, Restored, TermTable, Timing};
use evershard_protocol::{Instant, Membership, MembershipChange, MembershipError, NodeId, Position};

use crate::datadriven::{Command, run};

/// Runs one file; how many commands it had.
pub fn run_file(path: &Path) -> usize {
    let mut table = Table::new();
    run(path, |command| {
        let answer = match &command.name[..] {
            "simple" => table.simple(command),
            "enter-joint" => table.enter_joint(command),
            "leave-joint" => table.leave_joint(),
            other => panic!("{}:{}: no such command: {other}", path.display(), command.line),
        };
        table.commands += 1;
        match answer {
            Ok(()) => table.describe(),
            Err(text) => text.to_owned(),
        }
    })
}

struct Table {
    leader: Raft,
    current: Membership,
    autoleave: bool,
    commands: u64,
}

impl Table {
    fn new() -> Self {
        let config = Config {
            id: LEADER,
            members: vec![LEADER],
            durability: Durability::Durable,
            timing: Timing::default(),
            seed: 1,
            inflight_size_max: 1 << 20,
        };
        let (terms, zero) = (TermTable::new(), Position::ZERO);
        let restored = Restored { hard: HardState::NEW, terms, memberships: vec![], durable: zero, commit: zero };
        let (mut leader, mut out) = (Raft::new(config, restored, Instant(0)), Output::new());
        leader.tick(Instant(1), &mut out);
        leader.on_hard_state_saved(leader.hard_state_to_save().expect("a vote for itself"), &mut out);
        assert!(leader.wants_term_start(), "alone, it leads");
        leader.on_appended(leader.term(), Position(RECORD_SIZE));
        Self { leader, current: Membership::default(), autoleave: false, commands: 0 }
    }

    fn simple(&mut self, command: &Command) -> Result<(), &'static str> {
        if self.current.is_joint() {
            assert_eq!(self.current.begin(&MembershipChange::default()), Err(MembershipError::Joint));
            return Err("can't apply simple config change in joint config");
        }
        let joint = self.current.begin(&change(command)).map_err(text)?;
        let (before, after) = (self.current.voters, joint.voters);
        if before.without(after).len() + after.without(before).len() > 1 {
            return Err("more than one voter changed without entering joint config");
        }
        self.append(joint);
        if let Some(left) = joint.left() {
            self.append(left);
        }
        Ok(())
    }

    fn enter_joint(&mut self, command: &Command) -> Result<(), &'static str> {
        let begun = self.current.begin(&change(command));
        if self.current.voters.is_empty() {
            assert!(begun.is_err() || begun.is_ok_and(|next| !next.is_joint()), "nobody is left behind");
            return Err("can't make a zero-voter config joint");
        }
        let next = begun.map_err(text)?;
        let joint = if next.is_joint() { next } else { Membership { outgoing: self.current.voters, ..next } };
        self.autoleave = command.values("autoleave").is_some_and(|values| values == ["true"]);
        self.append(joint);
        Ok(())
    }

    fn leave_joint(&mut self) -> Result<(), &'static str> {
        let left = self.current.left().ok_or("can't leave a non-joint config")?;
        self.autoleave = false;
        self.append(left);
        Ok(())
    }

    /// Appends the configuration to the leader's log, behind one record for each command before.
    fn append(&mut self, next: Membership) {
        let (term, start) = (self.leader.term(), Position(self.commands.max(1) * RECORD_SIZE));
        if self.leader.last() < start {
            self.leader.on_appended(term, start);
        }
        let end = self.leader.last().advance(RECORD_SIZE / 8);
        self.leader.on_membership(end, next);
        self.leader.on_appended(term, end);
        self.leader.check_invariants();
        assert_eq!(*self.leader.membership(), next, "in force where it is appended");
        self.current = next;
    }

    fn describe(&self) -> String {
        let mut out = self.current.to_string();
        if self.autoleave {
            out.push_str(" autoleave");
        }
        out.push('\n');
        for node in self.current.everybody().iter() {
            let peer = self.leader.peer(node).expect("the leader knows everybody");
            let state = if peer.probing { "StateProbe" } else { "another state" };
            let (met, next) = (peer.received.0 / RECORD_SIZE, peer.next.0 / RECORD_SIZE);
            let learner = if self.current.deciding().contains(node) { "" } else { " learner" };
            writeln!(out, "{}: {state} match={met} next={next}{learner}", node.0).expect("strings take everything");
        }
        out
    }
}

/// What the operations of a command come to.
fn change(command: &Command) -> MembershipChange {
    let mut last = BTreeMap::new();
    for operation in &command.input {
        let (verb, id) = operation.split_at(1);
        if verb != "u" {
            last.insert(id.parse::<u8>().expect("ids are numbers"), verb.to_owned());
        }
    }
    let which =
        |verb: &str| last.iter().filter(|(id, is)| **id != 0 && *is == verb).map(|(id, _)| NodeId(*id)).collect();
    assert!(last.values().all(|verb| ["v", "l", "r"].contains(&&verb[..])), "line {}", command.line);
    MembershipChange { promote: which("v"), learn: which("l"), remove: which("r") }
}

/// The tables' words for our errors.
fn text(error: MembershipError) -> &'static str {
    match error {
        MembershipError::NoVoters => "removed all voters",
        MembershipError::Joint => "config is already joint",
        MembershipError::TooMany => "too many nodes",
        MembershipError::Contradiction | MembershipError::VotingLearner => unreachable!("the last operation counts"),
    }
}

/// Not in any of the tables.
const LEADER: NodeId = NodeId(62);
const RECORD_SIZE: u64 = 64;
