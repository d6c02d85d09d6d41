//! `membership`: configurations change by one legal step at a time, along the committed log and in every leader's own, and
//! a leader makes no step before the last one is committed. Whoever is elected is a voter of the latest configuration of
//! its log, or of the one before as long as the latest is not committed. `few-votes`: it has the votes of a majority, of
//! both majorities if that configuration is joint; judged by what the disks of the others remember.

use evershard_node::core::Core;
use evershard_protocol::{Membership, NodeId, NodeSet, Position, Term};

use crate::budget::has_majorities;
use crate::oracle::Violation;
use crate::service::KeyValue;

/// What leaders did about configurations.
pub struct Memberships {
    /// Of each node while it leads: the term, its latest configuration and where that stands.
    leading: Vec<Option<(Term, Position, Membership)>>,
}

impl Memberships {
    /// Nobody leads.
    #[must_use]
    pub fn new(nodes: usize) -> Self {
        Self { leading: vec![None; nodes] }
    }

    /// A replica has had a turn.
    pub(super) fn check(&mut self, node: usize, core: &Core<KeyValue>) -> Result<(), Violation> {
        let raft = core.raft();
        if raft.role() != evershard_consensus::Role::Leader {
            self.leading[node] = None;
            return Ok(());
        }
        let (position, is) = (raft.membership_position(), raft.membership_at(raft.last()));
        match self.leading[node].replace((raft.term(), position, is)) {
            Some((term, before_at, before)) if term == raft.term() && position > before_at => {
                if raft.commit() < before_at {
                    let what = format!(
                        "n{node} appends {is} at {position}; {before} at {before_at} is not committed, {} is",
                        raft.commit()
                    );
                    return Violation::of("membership", what);
                }
                check_step((before_at, before), is)
            }
            Some((term, ..)) if term == raft.term() => Ok(()),
            _ => check_elected(node, core),
        }
    }
}

/// Whoever was just elected may lead.
fn check_elected(node: usize, core: &Core<KeyValue>) -> Result<(), Violation> {
    let raft = core.raft();
    let (position, is) = (raft.membership_position(), raft.membership_at(raft.last()));
    let before = raft.membership_at(Position(position.0.saturating_sub(1)));
    let decides = |membership: Membership| membership.deciding().contains(raft.id());
    if decides(is) || position > raft.commit() && decides(before) {
        return Ok(());
    }
    let what = format!("n{node} leads {:?}, and has no vote in {is} at {position}", raft.term());
    Violation::of("membership", what)
}

/// Holds a leader that was just elected against the votes that others may have given: `votes` are the term and the vote
/// that each disk remembers, or nothing if it may have forgotten.
///
/// # Errors
/// [`Violation`].
pub fn check_votes(
    node: usize,
    core: &Core<KeyValue>,
    votes: &[Option<(Term, Option<NodeId>)>],
) -> Result<(), Violation> {
    let raft = core.raft();
    let possible = |vote: &Option<(Term, Option<NodeId>)>| match vote {
        // A later term has taken the place of whatever vote there was.
        Some((term, choice)) => *term > raft.term() || (*term == raft.term() && *choice == Some(raft.id())),
        None => true,
    };
    let voters = (0_u8..).zip(votes).filter(|(_, vote)| possible(vote)).map(|(voter, _)| NodeId(voter));
    let (voters, is) = (voters.collect::<NodeSet>(), raft.membership_at(raft.last()));
    if has_majorities(&is, voters) {
        return Ok(());
    }
    let what =
        format!("n{node} leads {:?} by the votes of ({voters}) at most, and its configuration is {is}", raft.term());
    Violation::of("few-votes", what)
}

/// Whether a configuration may follow another one, which stands at `position`.
///
/// # Errors
/// [`Violation`].
pub fn check_step((position, before): (Position, Membership), next: Membership) -> Result<(), Violation> {
    let written_down = position == Position::ZERO && next == before;
    let joint = before.outgoing.is_empty() && next.outgoing == before.voters && next.voters != before.voters;
    let learners = before.outgoing.is_empty() && next.outgoing.is_empty() && next.voters == before.voters;
    let left = !before.outgoing.is_empty() && next == Membership { outgoing: NodeSet::EMPTY, ..before };
    if (written_down || joint || learners || left) && next.voters.intersection(next.learners).is_empty() {
        return Ok(());
    }
    Violation::of("membership", format!("{next} follows {before}, which stands at {position}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn membership(voters: u64, outgoing: u64, learners: u64) -> Membership {
        let [voters, outgoing, learners] = [voters, outgoing, learners].map(NodeSet::from_bits);
        Membership { voters, outgoing, learners }
    }

    #[test]
    fn one_step_at_a_time() {
        let step = |before: Membership, next: Membership| check_step((Position(64), before), next).is_ok();
        let (three, four) = (membership(0b111, 0, 0), membership(0b1111, 0b111, 0));
        assert!(step(three, membership(0b111, 0, 0b1000)));
        assert!(step(membership(0b111, 0, 0b1000), four));
        assert!(step(four, membership(0b1111, 0, 0)));
        assert!(!step(three, membership(0b1111, 0, 0)), "voters change through a joint configuration");
        assert!(!step(four, membership(0b1_1111, 0b111, 0)), "a joint one is left first");
        assert!(!step(three, membership(0b111, 0, 1)), "no learner votes");
        assert!(check_step((Position::ZERO, three), three).is_ok());
    }
}
