//! Elections: timers, pre-vote, votes, and when a replica refuses to take part in one.

use evershard_protocol::bugs::{self, Bug};
use evershard_protocol::peer::{PeerMessage, Vote, VoteReply};
use evershard_protocol::time::MILLISECOND_NS;
use evershard_protocol::{Instant, NodeId, Position, Term};

use crate::progress::{Grant, Peer};
use crate::quorum::{VoteOutcome, vote_outcome};
use crate::raft::TERM_MAX;
use crate::{Output, Raft, Role, Standing};

impl Raft {
    /// The leader was silent for too long, or a campaign came to nothing: asks whether a new one would have a chance.
    pub(crate) fn campaign(&mut self, out: &mut Output) {
        assert_ne!(self.role, Role::Leader, "a leader has nothing to campaign for");
        //= raft thesis §9.6: a candidate only increments its term if a quorum would vote for it.
        self.role = Role::PreCandidate;
        self.leader = None;
        self.asking = true;
        self.summoned = false;
        self.begin_round(out);
    }

    /// When this replica campaigns, if nothing changes: never if it has no part in deciding, or cannot read all of
    /// its log.
    pub(crate) fn campaign_due(&self) -> Option<Instant> {
        (self.may_lead() && self.whole).then_some(self.election_deadline.max(self.pledged_until))
    }

    /// Campaigns in a new term; others are asked once the own vote is saved.
    pub(crate) fn campaign_in_new_term(&mut self, summoned: bool) {
        assert_ne!(self.role, Role::Leader, "a leader has nothing to campaign for");
        if self.hard.term >= TERM_MAX {
            return;
        }
        self.enter_term(self.hard.term.next(), Some(self.id));
        self.role = Role::Candidate;
        self.leader = None;
        self.asking = false;
        self.summoned = summoned;
        self.draw_election_timeout();
        self.arm_election_timer();
    }

    /// The own vote is saved.
    pub(crate) fn ask_for_votes(&mut self, out: &mut Output) {
        assert_eq!(self.role, Role::Candidate, "only a candidate has voted for itself");
        assert_eq!(self.saved.vote, Some(self.id), "a candidate's own vote is saved before others are asked");
        self.asking = true;
        self.begin_round(out);
    }

    /// Asks one peer for its vote, if this replica is asking at all and there is a link.
    pub(crate) fn ask_for_vote(&mut self, index: usize, out: &mut Output) {
        let pre_vote = match self.role {
            Role::PreCandidate => true,
            Role::Candidate => false,
            Role::Follower | Role::Leader => return,
        };
        let peer = &self.peers[index];
        if !self.asking || !peer.connected || !self.membership.deciding().contains(peer.id) {
            return;
        }
        let vote = Vote {
            term: if pre_vote { self.hard.term.next() } else { self.hard.term },
            last: self.terms.last(),
            last_term: self.terms.last_term(),
            pre_vote,
            transfer: self.summoned,
        };
        out.push(self.peers[index].id, PeerMessage::Vote(vote));
    }

    pub(crate) fn on_vote(&mut self, index: usize, vote: &Vote, out: &mut Output) {
        if vote.term > TERM_MAX || vote.last_term >= vote.term {
            return;
        }
        let from = self.peers[index].id;
        let loyal = self.is_in_touch() || self.now < self.pledged_until;
        let refused = vote.term < self.hard.term || (!vote.transfer && loyal);
        if refused || vote.pre_vote {
            let granted = !refused && vote.term > self.hard.term && self.is_up_to_date(vote);
            // A granted pre-vote is about the candidate's next term; nothing is promised, so nothing is held back.
            let term = if granted { vote.term } else { self.hard.term };
            self.answer_vote(from, term, granted, vote.pre_vote, out);
            return;
        }
        if vote.term > self.hard.term {
            self.become_follower(vote.term);
        }
        let free = match self.hard.vote {
            None => self.leader.is_none(),
            Some(choice) => choice == from,
        };
        if !free || !self.is_up_to_date(vote) {
            self.answer_vote(from, self.hard.term, false, false, out);
            return;
        }
        assert!(matches!(self.role, Role::Follower | Role::PreCandidate), "candidates and leaders chose themselves");
        if self.role == Role::PreCandidate {
            self.become_follower(self.hard.term);
        }
        self.hard.vote = Some(from);
        self.vote_held = Some(from);
        self.arm_election_timer();
        self.release_vote(out);
    }

    /// Tells the vote that was given, once it is saved.
    pub(crate) fn release_vote(&mut self, out: &mut Output) {
        let saved = self.saved.term == self.hard.term && self.saved.vote == self.hard.vote;
        if !saved && !bugs::is_on(Bug::VoteNotDurable) {
            return;
        }
        if let Some(candidate) = self.vote_held.take() {
            assert_eq!(self.hard.vote, Some(candidate), "the vote told is the vote given");
            self.answer_vote(candidate, self.hard.term, true, false, out);
        }
    }

    pub(crate) fn on_vote_reply(&mut self, index: usize, reply: &VoteReply) {
        if reply.term > TERM_MAX {
            return;
        }
        let hypothetical = reply.pre_vote && reply.granted;
        if reply.term > self.hard.term && !hypothetical {
            self.become_follower(reply.term);
            return;
        }
        if reply.term == self.hard.term && self.role == Role::Leader {
            self.peers[index].contact = Some(self.now);
        }
        let asked = match self.role {
            Role::PreCandidate => reply.pre_vote && reply.term == self.hard.term.next(),
            Role::Candidate => self.asking && !reply.pre_vote && reply.term == self.hard.term,
            Role::Follower | Role::Leader => false,
        };
        if asked && reply.granted {
            let grant = if reply.recovering { Grant::Recovering } else { Grant::Sound };
            self.peers[index].grant = Some(grant);
            if self.role == Role::Candidate {
                self.note_floor(index, reply.term, Position::ZERO);
            }
            self.count_votes();
        }
    }

    /// The leader asks this replica to take over.
    pub(crate) fn on_timeout_now(&mut self, from: NodeId, term: Term) {
        if term > self.hard.term && term <= TERM_MAX {
            self.become_follower(term);
        }
        let current = term == self.hard.term && self.role == Role::Follower && self.leader == Some(from);
        let fit = self.saved.standing == Standing::Sound && self.may_lead() && self.whole;
        if current && fit {
            self.campaign_in_new_term(true);
        }
    }

    /// Who has no vote never campaigns, and is told nothing more once it has left: it must not name a leader for ever.
    pub(crate) fn forget_silent_leader(&mut self) {
        let is_silent = self.now.since(self.leader_heard) >= self.timing.election_max_ns;
        if is_silent && self.leader.is_some() && self.role == Role::Follower && self.campaign_due().is_none() {
            self.leader = None;
        }
    }

    /// The link to the leader is gone. A killed process closes its links at once, so this is worth a quick question;
    /// if the leader lives, the others refuse.
    pub(crate) fn on_leader_lost(&mut self) {
        assert_eq!(self.role, Role::Follower, "only a follower has a leader elsewhere");
        self.leader = None;
        let soon = self.now.after(self.random.between(LEADER_LOST_MIN_NS, LEADER_LOST_MAX_NS));
        self.election_deadline = self.election_deadline.min(soon);
    }

    /// Steps down if no quorum was heard for a while: another leader may have been elected.
    pub(crate) fn check_quorum(&mut self) {
        if self.now >= self.quorum_deadline() {
            self.become_follower(self.hard.term);
        }
    }

    /// When a leader that hears no more from anyone steps down.
    pub(crate) fn quorum_deadline(&self) -> Instant {
        let heard = |peer: &Peer| peer.contact.unwrap_or_default().max(self.quorum_since);
        self.rank_of_quorum(self.now, heard).after(self.timing.election_max_ns)
    }

    pub(crate) fn arm_election_timer(&mut self) {
        self.election_deadline = self.now.after(self.election_timeout_ns);
    }

    /// Draws how long this replica waits for a leader until it is drawn again: once per campaign, so that the path of
    /// an append has no arithmetic to do.
    pub(crate) fn draw_election_timeout(&mut self) {
        let timing = &self.timing;
        self.election_timeout_ns = self.random.between(timing.election_min_ns, timing.election_max_ns);
    }

    fn begin_round(&mut self, out: &mut Output) {
        self.draw_election_timeout();
        self.arm_election_timer();
        for index in 0..self.peers.len() {
            self.peers[index].grant = None;
            self.ask_for_vote(index, out);
        }
        self.count_votes();
    }

    /// A campaign is won with the sound votes of a quorum, or with the votes of all: then no member, whatever it
    /// lost, has a better log left.
    fn count_votes(&mut self) {
        let own_sound = self.saved.standing == Standing::Sound || bugs::is_on(Bug::RecoveringCounts);
        let sound = |grant: Option<Grant>| match grant {
            Some(Grant::Recovering) => bugs::is_on(Bug::RecoveringCounts),
            grant => grant == Some(Grant::Sound),
        };
        // Refusals are not kept: a campaign that is lost ends with its timer.
        let by_quorum = own_sound && self.vote_outcome(|peer| sound(peer.grant).then_some(true)) == VoteOutcome::Won;
        let by_all = self.holds_of_all(true, |peer| peer.grant.is_some());
        if !by_quorum && !by_all {
            return;
        }
        match self.role {
            Role::PreCandidate => self.campaign_in_new_term(false),
            Role::Candidate => self.become_leader(!by_quorum),
            Role::Follower | Role::Leader => unreachable!("only a campaign counts votes"),
        }
    }

    /// What the peers' answers and the own vote come to.
    fn vote_outcome(&self, answer: impl Fn(&Peer) -> Option<bool>) -> VoteOutcome {
        vote_outcome(&self.membership, |node| {
            if node == self.id {
                return Some(true);
            }
            self.peer_index(node).and_then(|index| answer(&self.peers[index]))
        })
    }

    fn become_leader(&mut self, elected_by_all: bool) {
        assert_eq!(self.role, Role::Candidate, "only a candidate is elected");
        assert_eq!(self.saved.term, self.hard.term, "a leader's term is saved");
        self.role = Role::Leader;
        self.leader = Some(self.id);
        self.leader_heard = self.now;
        self.asking = false;
        self.summoned = false;
        self.quorum_since = self.now;
        self.term_start = None;
        self.transfer = None;
        if elected_by_all {
            // The best log of all members is the shard's log.
            self.hard.standing = Standing::Sound;
        }
        self.has_summoned = false;
        self.read_number += 1;
        self.read_told = false;
        let last = self.terms.last();
        for peer in &mut self.peers {
            peer.contact = peer.grant.map(|_| self.now);
            let vouched = elected_by_all && peer.grant.is_some();
            peer.begin_term(last);
            peer.vouched = vouched;
        }
    }

    /// A leader is alive as far as this replica knows, so that it takes no part in replacing it.
    fn is_in_touch(&self) -> bool {
        let loyal_ns = self.timing.election_min_ns;
        if self.role == Role::Leader {
            let touched = |contact: Option<Instant>| contact.is_some_and(|at| self.now.since(at) < loyal_ns);
            return self.rank_of_quorum(true, |peer| touched(peer.contact));
        }
        self.leader.is_some() && self.now.since(self.leader_heard) < loyal_ns
    }

    //= raft §5.4.1: a voter denies its vote if its own log is more up-to-date than that of the candidate.
    fn is_up_to_date(&self, vote: &Vote) -> bool {
        let own = (self.terms.last_term(), self.terms.last());
        (vote.last_term, vote.last) >= own || bugs::is_on(Bug::VoteForShorterLog)
    }

    fn answer_vote(&self, to: NodeId, term: Term, granted: bool, pre_vote: bool, out: &mut Output) {
        let recovering = self.saved.standing == Standing::Recovering;
        out.push(to, PeerMessage::VoteReply(VoteReply { term, granted, pre_vote, recovering }));
    }
}

/// How long a follower waits after its link to the leader went down: long enough that two followers rarely ask at once.
const LEADER_LOST_MIN_NS: u64 = 5 * MILLISECOND_NS;
const LEADER_LOST_MAX_NS: u64 = 40 * MILLISECOND_NS;
