//! What a caller may see of a replica, and what is always true of it.

use std::hash::{Hash, Hasher};

use evershard_protocol::{Instant, Membership, NodeId, NodeSet, Position, Term};

use crate::progress::Mode;
use crate::{Raft, Role, Standing, TermTable};

/// What a replica knows of a peer, for status. Positions mean something on a leader only.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PeerView {
    /// What the peer said to have in memory, in this term and on this link.
    pub received: Position,
    /// What it said to have on stable storage.
    pub durable: Position,
    /// Where the next append to it begins.
    pub next: Position,
    /// There is a link.
    pub connected: bool,
    /// It may have lost records it once acknowledged.
    pub recovering: bool,
    /// When anything was last heard from it; [`Instant`] 0 if never.
    pub last_heard: Instant,
    /// The leader is still finding out where the logs agree.
    pub probing: bool,
    /// It needs what the leader's log no longer has: it must be given a snapshot.
    pub needs_snapshot: bool,
}

impl Raft {
    /// This replica's node.
    #[must_use]
    pub fn id(&self) -> NodeId {
        self.id
    }

    /// The configuration in force: the latest in the log.
    #[must_use]
    pub fn membership(&self) -> &Membership {
        &self.membership
    }

    /// Where the record of that configuration ends; 0 if it is the one that the replica began with.
    #[must_use]
    pub fn membership_position(&self) -> Position {
        self.memberships.current().0
    }

    /// The configuration in force at `position`, if that is among the latest ones.
    #[must_use]
    pub fn membership_at(&self, position: Position) -> Membership {
        self.memberships.at(position)
    }

    /// The same, with where its record ends (0 if it is the one that the replica began with); `None` if it is not among
    /// the latest ones: what a snapshot at `position` must hold.
    #[must_use]
    pub fn membership_entry_at(&self, position: Position) -> Option<(Position, Membership)> {
        self.memberships.entry_at(position)
    }

    /// Everybody in that configuration: voters, those that are being left, learners.
    #[must_use]
    pub fn members(&self) -> NodeSet {
        self.membership.everybody()
    }

    /// Every node to whom [`Raft::plan_append`] may have something to say.
    pub fn peers(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.peers.iter().map(|peer| peer.id)
    }

    /// On a leader: nodes that have left the configuration and are still to be told so.
    #[must_use]
    pub fn parting(&self) -> NodeSet {
        self.peers.iter().filter(|peer| peer.farewell.is_some()).map(|peer| peer.id).collect()
    }

    /// Whether it can read all of its log; see [`Raft::set_whole`].
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.whole
    }

    /// What this replica is at the moment.
    #[must_use]
    pub fn role(&self) -> Role {
        self.role
    }

    /// The latest term it has seen.
    #[must_use]
    pub fn term(&self) -> Term {
        self.hard.term
    }

    /// The leader of that term, while known and in touch.
    #[must_use]
    pub fn leader(&self) -> Option<NodeId> {
        self.leader
    }

    /// Whether its word counts; as saved.
    #[must_use]
    pub fn standing(&self) -> Standing {
        self.saved.standing
    }

    /// What is known to be committed. Never goes back.
    #[must_use]
    pub fn commit(&self) -> Position {
        self.commit
    }

    /// Where its log ends.
    #[must_use]
    pub fn last(&self) -> Position {
        self.terms.last()
    }

    /// Term of the last record of its log.
    #[must_use]
    pub fn last_term(&self) -> Term {
        self.terms.last_term()
    }

    /// What of its log is on stable storage.
    #[must_use]
    pub fn durable(&self) -> Position {
        self.durable
    }

    /// The terms of its log.
    #[must_use]
    pub fn terms(&self) -> &TermTable {
        &self.terms
    }

    /// New commands may be sequenced: it leads, its first record is in the log, and it is not handing over.
    #[must_use]
    pub fn admits(&self) -> bool {
        self.role == Role::Leader && self.term_start.is_some() && self.transfer.is_none()
    }

    /// To whom it is handing over.
    #[must_use]
    pub fn transfer_target(&self) -> Option<NodeId> {
        self.transfer.map(|transfer| transfer.to)
    }

    /// It was just elected: before anything else the caller appends a `TermStart` record of [`Raft::term`] at
    /// [`Raft::last`] and calls [`Raft::on_appended`].
    #[must_use]
    pub fn wants_term_start(&self) -> bool {
        self.role == Role::Leader && self.term_start.is_none()
    }

    /// On a leader: where its `TermStart` record ended. Once applied up to there, it has all that was ever committed.
    #[must_use]
    pub fn term_start(&self) -> Option<Position> {
        self.term_start
    }

    /// When [`Raft::tick`] must be called and the peers be offered appends again, at the latest. Asked at the end of a
    /// duty cycle: what was due in it and could not be sent waits for its link, not for an instant.
    #[must_use]
    pub fn next_deadline(&self) -> Instant {
        // Well before a pause would count as a stall.
        let latest = self.ticked_at.after(self.timing.stall_ns / 2);
        if self.role != Role::Leader {
            return self.campaign_due().map_or(latest, |due| latest.min(due));
        }
        let pace = self.pace();
        let connected = self.peers.iter().filter(|peer| peer.connected && self.feeds(peer));
        let appends = connected.map(|peer| peer.next_due(&pace));
        let to_come = appends.filter(|due| *due > self.now);
        let transfer = self.transfer.map(|transfer| transfer.deadline);
        to_come.chain(transfer).fold(latest.min(self.quorum_deadline()), Instant::min)
    }

    /// On a leader: the lowest position that a connected peer in step still needs; otherwise the log's end.
    #[must_use]
    pub fn slowest_needed(&self) -> Position {
        let last = self.terms.last();
        if self.role != Role::Leader {
            return last;
        }
        let in_step =
            self.peers.iter().filter(|peer| peer.connected && self.feeds(peer) && peer.mode == Mode::Replicate);
        in_step.map(|peer| peer.received).fold(last, Position::min)
    }

    /// What it knows of a peer; nothing of itself and of strangers.
    #[must_use]
    pub fn peer(&self, id: NodeId) -> Option<PeerView> {
        let peer = &self.peers[self.peer_index(id)?];
        Some(PeerView {
            received: peer.received,
            durable: peer.durable,
            next: peer.next,
            connected: peer.connected,
            recovering: peer.recovering,
            last_heard: peer.heard.unwrap_or_default(),
            probing: matches!(peer.mode, Mode::Probe { .. }),
            needs_snapshot: matches!(peer.mode, Mode::Snapshot { .. }),
        })
    }

    /// Feeds `hasher` with everything that decides what this replica will do, apart from instants and dice: what a model
    /// checker that lets timers run out at any moment takes for one state.
    pub fn hash_state(&self, hasher: &mut impl Hasher) {
        (self.hard, self.saved, self.role, self.leader).hash(hasher);
        (&self.terms, self.durable, self.commit, self.cut, &self.memberships).hash(hasher);
        (&self.following, self.deposed, self.vote_held, self.asking, self.summoned).hash(hasher);
        (self.whole, self.term_start, self.has_summoned).hash(hasher);
        (self.transfer.map(|transfer| transfer.to), self.read_number, self.read_told).hash(hasher);
        for peer in &self.peers {
            peer.hash_state(hasher);
        }
    }

    /// Panics if anything is not as it must be. For tests and `debug_assert!`.
    pub fn check_invariants(&self) {
        self.terms.check_invariants();
        let last = self.terms.last();
        assert!(self.commit <= last, "what is committed is in the log");
        assert!(self.durable <= last, "what is durable is in the log");
        assert!(self.saved.term <= self.hard.term, "saving comes after deciding");
        assert!(self.terms.last_term() <= self.hard.term, "no record is of a term to come");
        assert!(self.following.matched <= last, "what matches is in the log");
        assert!(self.vote_held.is_none() || self.vote_held == self.hard.vote, "the vote held is the vote given");
        match self.role {
            Role::Leader => self.check_leader_invariants(),
            Role::Follower => {
                assert_ne!(self.leader, Some(self.id), "a follower follows somebody else");
                assert!(self.transfer.is_none(), "only a leader hands over");
                assert!(self.term_start.is_none(), "only a leader begins a term");
            }
            Role::PreCandidate => assert!(self.leader.is_none(), "a campaign means that there is no leader"),
            Role::Candidate => {
                assert!(self.leader.is_none(), "a campaign means that there is no leader");
                assert_eq!(self.hard.vote, Some(self.id), "a candidate votes for itself");
            }
        }
    }

    fn check_leader_invariants(&self) {
        assert_eq!(self.leader, Some(self.id), "a leader knows who leads");
        assert_eq!(self.hard.vote, Some(self.id), "a leader voted for itself");
        assert_eq!(self.saved.term, self.hard.term, "a leader's term is saved");
        for peer in &self.peers {
            assert!(peer.durable <= peer.received, "what is durable was received");
            assert!(peer.received <= self.terms.last(), "nobody has more of the leader's log than the leader");
            assert!(peer.next <= self.terms.last(), "nothing is sent before it is appended");
            assert!(peer.mode != Mode::Replicate || peer.received <= peer.next, "what was received is not sent again");
        }
    }
}
