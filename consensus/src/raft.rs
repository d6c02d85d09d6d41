//! The replica: its state, its inputs, and what every role does with them before the roles part ways.

use evershard_protocol::peer::PeerMessage;
use evershard_protocol::{Instant, Membership, NodeId, NodeSet, Position, Term};

use crate::follower::Following;
use crate::membership::{MembershipTable, PEERS_LEN_MAX};
use crate::progress::Peer;
use crate::random::Random;
use crate::transfer::Transfer;
use crate::{Config, Durability, HardState, Output, Restored, Role, Standing, TermTable, Timing};

/// One replica of a shard: a function of (state, input, now) to output. See the crate's page for how to drive it.
#[derive(Clone, Debug)]
pub struct Raft {
    pub(crate) id: NodeId,
    /// The configuration in force, and the latest ones with their positions.
    pub(crate) membership: Membership,
    pub(crate) memberships: MembershipTable,
    pub(crate) durability: Durability,
    pub(crate) timing: Timing,
    pub(crate) inflight_size_max: u64,
    pub(crate) random: Random,
    /// The other nodes of the configuration, and others that are connected; at most [`PEERS_LEN_MAX`].
    pub(crate) peers: Vec<Peer>,

    /// What should be on stable storage, and what is. Invariant: `saved.term <= hard.term`.
    pub(crate) hard: HardState,
    pub(crate) saved: HardState,
    pub(crate) role: Role,
    /// The leader of the current term, while it is known and not known to be out of touch.
    pub(crate) leader: Option<NodeId>,
    pub(crate) leader_heard: Instant,

    /// The log. Invariant: `commit <= terms.last()` and `durable <= terms.last()`.
    pub(crate) terms: TermTable,
    pub(crate) durable: Position,
    pub(crate) commit: Position,
    /// The log was cut since `durable` was last reported, which may therefore be lower next time.
    pub(crate) cut: bool,

    /// When this life began.
    pub(crate) born: Instant,
    /// Term and end of the log that the disk had when this life began.
    pub(crate) restored: (Term, Position),

    /// The latest instant seen, and the latest tick.
    pub(crate) now: Instant,
    pub(crate) ticked_at: Instant,
    pub(crate) election_deadline: Instant,
    pub(crate) election_timeout_ns: u64,

    /// This replica can read all of its log. If not it neither campaigns nor takes over.
    pub(crate) whole: bool,
    /// It grants nobody a vote before this instant, but to a candidate that the leader has summoned.
    pub(crate) pledged_until: Instant,

    /// On a follower: what it owes its leader. Of the current term.
    pub(crate) following: Following,
    /// A deposed leader that must be told of the current term, and the round it asked with.
    pub(crate) deposed: Option<(NodeId, u64)>,
    /// A vote that was given and will be told once it is saved. Invariant: equal to `hard.vote`.
    pub(crate) vote_held: Option<NodeId>,

    /// On a candidate: its own vote is saved, so others may be asked.
    pub(crate) asking: bool,
    /// On a candidate: the leader told it to campaign.
    pub(crate) summoned: bool,

    /// On a leader: the check for a quorum begins here.
    pub(crate) quorum_since: Instant,
    /// On a leader: where its first record ended.
    pub(crate) term_start: Option<Position>,
    pub(crate) transfer: Option<Transfer>,
    /// On a leader: it has summoned a successor in this term, who may campaign at any time.
    pub(crate) has_summoned: bool,
    /// On a leader: the number of the latest read, and whether any peer was told of it.
    pub(crate) read_number: u64,
    pub(crate) read_told: bool,
}

impl Raft {
    /// A follower that remembers what `restored` says, and first listens. All allocation happens here.
    ///
    /// # Panics
    /// If the configuration contradicts itself (see [`Config`]) or what was restored does.
    #[must_use]
    pub fn new(config: Config, restored: Restored, now: Instant) -> Self {
        config.check();
        let Restored { hard, mut terms, memberships, durable, commit } = restored;
        terms.reserve();
        let saved = hard;
        let mut hard = hard;
        if terms.last_term() > hard.term {
            // Records may reach the disk before the term they came with; then no vote was given in it.
            hard = HardState { term: terms.last_term(), vote: None, ..hard };
        }
        assert!(hard.term <= TERM_MAX, "terms are counted one by one");
        assert!(durable <= terms.last(), "what is durable is in the log");
        let first = Membership::of_voters(config.members.iter().copied().collect::<NodeSet>());
        let mut raft = Self {
            id: config.id,
            membership: Membership::default(),
            memberships: MembershipTable::new(first, &memberships),
            durability: config.durability,
            timing: config.timing,
            inflight_size_max: config.inflight_size_max,
            random: Random::new(config.seed, u64::from(config.id.0)),
            peers: Vec::with_capacity(PEERS_LEN_MAX),
            hard,
            saved,
            role: Role::Follower,
            leader: None,
            leader_heard: now,
            commit: commit.min(terms.last()),
            durable,
            born: now,
            restored: (hard.term, terms.last()),
            terms,
            cut: false,
            now,
            ticked_at: now,
            election_deadline: now,
            election_timeout_ns: 0,
            whole: true,
            // Whatever was promised in an earlier life is kept.
            pledged_until: now.after(config.timing.lease_ns),
            following: Following::default(),
            deposed: None,
            vote_held: None,
            asking: false,
            summoned: false,
            quorum_since: now,
            term_start: None,
            transfer: None,
            has_summoned: false,
            read_number: 0,
            read_told: false,
        };
        raft.draw_election_timeout();
        raft.adopt_membership();
        if !raft.is_sole_voter() {
            raft.arm_election_timer();
        }
        raft
    }

    /// Says whether this replica can read all of its log. A replica that cannot neither campaigns nor takes over: it
    /// could not give the others what it cannot read. It votes and acknowledges with its whole log all the same: what
    /// it cannot read it has had, and may be the reason why somebody was told that it is safe.
    pub fn set_whole(&mut self, whole: bool) {
        self.whole = whole;
    }

    /// Lets time pass; every duty cycle, and at [`Raft::next_deadline`] at the latest.
    pub fn tick(&mut self, now: Instant, out: &mut Output) {
        self.see(now);
        let paused_ns = self.now.since(self.ticked_at);
        self.ticked_at = self.now;
        if paused_ns > self.timing.stall_ns {
            self.on_stall();
        }
        match self.role {
            Role::Leader => {
                self.retire_if_removed(out);
                self.check_quorum();
                self.tick_transfer(out);
            }
            Role::Follower | Role::PreCandidate | Role::Candidate => {
                self.recover();
                self.forget_silent_leader();
                if self.campaign_due().is_some_and(|due| self.now >= due) {
                    self.campaign(out);
                }
            }
        }
        debug_assert!({
            self.check_invariants();
            true
        });
    }

    /// Takes a message of a peer; [`PeerMessage::Append`] goes to [`Raft::on_append`] instead and is ignored here.
    pub fn on_message(&mut self, from: NodeId, message: &PeerMessage, now: Instant, out: &mut Output) {
        self.see(now);
        let Some(index) = self.make_peer(from) else { return };
        self.peers[index].heard = Some(self.now);
        match message {
            PeerMessage::Vote(vote) => self.on_vote(index, vote, out),
            PeerMessage::VoteReply(reply) => self.on_vote_reply(index, reply),
            PeerMessage::AppendReply(reply) => self.on_append_reply(index, reply, out),
            PeerMessage::TimeoutNow(summons) => self.on_timeout_now(from, summons.term),
            PeerMessage::Append(_) => {}
        }
    }

    /// The caller put records of `term` up to `end` in its log: a leader its own, a follower an append's data.
    ///
    /// # Panics
    /// If the records are not what a leader may write or what the last [`crate::Taken::Data`] allowed.
    pub fn on_appended(&mut self, term: Term, end: Position) {
        if self.role == Role::Leader {
            assert_eq!(term, self.hard.term, "a leader writes records of its own term");
            self.terms.append(term, end);
            self.term_start.get_or_insert(end);
            self.advance_commit();
        } else {
            self.on_data_appended(term, end);
        }
    }

    /// The log is on stable storage up to `durable`, a record boundary: the contiguous prefix of what the log holds
    /// now. May be lower than before only right after a cut.
    ///
    /// # Panics
    /// If what was durable no longer is, though the log was not cut.
    pub fn on_durable(&mut self, durable: Position) {
        let durable = durable.min(self.terms.last());
        assert!(self.cut || durable >= self.durable, "what is durable stays so until the log is cut");
        self.cut = false;
        self.durable = durable;
        if self.role == Role::Leader {
            self.advance_commit();
        } else {
            self.recover();
        }
    }

    /// What should be saved, while it differs from what is. Whatever depends on it is held back until
    /// [`Raft::on_hard_state_saved`].
    #[must_use]
    pub fn hard_state_to_save(&self) -> Option<HardState> {
        (self.hard != self.saved).then_some(self.hard)
    }

    /// A state from [`Raft::hard_state_to_save`] is on stable storage. Saves end in the order in which they began.
    ///
    /// # Panics
    /// If such a state was never wanted.
    pub fn on_hard_state_saved(&mut self, saved: HardState, out: &mut Output) {
        assert!(saved.term <= self.hard.term, "only wanted states are saved");
        assert!(saved.term >= self.saved.term, "saves end in the order in which they began");
        let recovered = self.saved.standing == Standing::Recovering && saved.standing == Standing::Sound;
        self.saved = saved;
        if recovered && self.role == Role::Follower {
            self.following.owe();
        }
        if saved.term != self.hard.term {
            return;
        }
        if self.role == Role::Candidate && !self.asking && saved.vote == Some(self.id) {
            self.ask_for_votes(out);
        }
        self.release_vote(out);
    }

    /// There is a new link to `peer`; the one before, if any, is gone and nothing that came over it follows.
    pub fn on_link_up(&mut self, peer: NodeId, now: Instant, out: &mut Output) {
        self.see(now);
        let Some(index) = self.make_peer(peer) else { return };
        if self.peers[index].connected {
            self.on_link_down(peer, now, out);
        }
        let last = self.terms.last();
        let link = &mut self.peers[index];
        link.connected = true;
        link.heard = Some(self.now);
        link.restart(last);
        self.ask_for_vote(index, out);
    }

    /// The link to `peer` is gone.
    pub fn on_link_down(&mut self, peer: NodeId, now: Instant, _out: &mut Output) {
        self.see(now);
        let Some(index) = self.peer_index(peer) else { return };
        let last = self.terms.last();
        let link = &mut self.peers[index];
        link.connected = false;
        // A peer that was restarted may no longer have what it acknowledged: it must say so again on a new link.
        link.restart(last);
        if self.transfer.is_some_and(|transfer| transfer.to == peer) {
            self.transfer = None;
        }
        if self.leader == Some(peer) {
            self.on_leader_lost();
        }
    }

    /// A peer remembers what this replica said in an earlier life (or in a `later` one): if the disk had less when this
    /// life began, it was put back to an earlier state, and this replica's word counts no more until a leader has brought
    /// it up to date. True if that is so.
    pub fn on_floor(&mut self, term: Term, durable: Position, later: bool) -> bool {
        let (own_term, own_last) = self.restored;
        let held = term <= own_term && durable <= own_last && !later;
        if held || term > TERM_MAX {
            return false;
        }
        self.hard.standing = Standing::Recovering;
        self.become_follower(self.hard.term.max(term));
        true
    }

    /// What `peer` once said, for the case that it comes back with less: see [`Raft::on_floor`].
    #[must_use]
    pub fn floor_of(&self, peer: NodeId) -> (Term, Position) {
        self.peer_index(peer).map_or_else(Default::default, |index| self.peers[index].floor)
    }

    /// A peer had saved `term`, and holds `durable` of this leader's log.
    pub(crate) fn note_floor(&mut self, index: usize, term: Term, durable: Position) {
        let committed = durable.min(self.commit);
        let floor = &mut self.peers[index].floor;
        *floor = (floor.0.max(term), floor.1.max(committed));
    }

    /// Follows nobody yet in `term`, which is the current one or a later one.
    pub(crate) fn become_follower(&mut self, term: Term) {
        assert!(term >= self.hard.term, "terms never go back");
        if term > self.hard.term {
            self.enter_term(term, None);
        }
        if self.role != Role::Follower {
            self.draw_election_timeout();
            self.arm_election_timer();
        }
        self.role = Role::Follower;
        self.leader = None;
        self.asking = false;
        self.summoned = false;
        self.term_start = None;
        self.transfer = None;
        self.has_summoned = false;
    }

    /// Begins a later term: what was promised and verified in the last one is over.
    pub(crate) fn enter_term(&mut self, term: Term, vote: Option<NodeId>) {
        assert!(term > self.hard.term && term <= TERM_MAX, "terms are counted one by one");
        self.hard.term = term;
        self.hard.vote = vote;
        self.vote_held = None;
        self.following = Following::default();
    }

    pub(crate) fn peer_index(&self, id: NodeId) -> Option<usize> {
        self.peers.iter().position(|peer| peer.id == id)
    }

    /// Instants come from one clock, but not always in the order in which they were read.
    pub(crate) fn see(&mut self, now: Instant) {
        self.now = self.now.max(now);
    }

    /// The loop was not run for a while: what it has not heard may still lie in its buffers.
    fn on_stall(&mut self) {
        if self.role == Role::Leader {
            self.quorum_since = self.now;
            for peer in &mut self.peers {
                peer.contact = None;
                peer.promised_until = Instant(0);
            }
        } else {
            if self.leader.is_some() {
                self.leader_heard = self.now;
            }
            if !self.is_sole_voter() {
                self.arm_election_timer();
            }
        }
    }
}

/// Terms above this are nonsense: nobody ever counts so far, and counting on from here cannot overflow.
pub(crate) const TERM_MAX: Term = Term(u64::MAX >> 1);
