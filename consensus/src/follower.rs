//! A follower's side of replication: does an append match, what of it is new, and when is an answer owed.

use evershard_protocol::bugs::{self, Bug};
use evershard_protocol::limits::APPEND_SIZE_MAX;
use evershard_protocol::peer::{Append, AppendReply, Hint};
use evershard_protocol::{Instant, NodeId, Position, Term};

use crate::raft::TERM_MAX;
use crate::{Durability, Output, Raft, Role, Standing, Taken};

/// What a follower owes the leader of the current term; begins anew with every term.
#[derive(Clone, Debug, Default, Hash)]
pub(crate) struct Following {
    /// The log is this leader's up to here. Invariant: not beyond the log's end.
    pub(crate) matched: Position,
    /// The highest commit position it told.
    pub(crate) leader_commit: Position,
    /// See [`Append::confirmed`] and [`Append::vouched`].
    confirmed: Position,
    vouched: bool,
    /// The caller is about to append records of this term, up to here at most.
    taking: Option<(Term, Position)>,
    /// Round of its latest append; none before the first.
    round: Option<u64>,
    /// An answer is owed even if there is no progress to tell.
    owed: bool,
    /// The latest append did not match.
    rejected: Option<Hint>,
    /// What was answered so far. Acknowledgements never go back within a term.
    told_received: Position,
    told_durable: Position,
}

impl Following {
    /// The leader is to be answered whatever there is to tell, if there is one.
    pub(crate) fn owe(&mut self) {
        self.owed = self.round.is_some();
    }

    /// A snapshot replaced the log: what it holds is the leader's.
    pub(crate) fn restart_at(&mut self, position: Position) {
        self.matched = position;
        self.taking = None;
        self.rejected = None;
    }
}

impl Raft {
    /// Takes an append of a leader, or of someone who believes to be one. The data stays with the caller.
    pub fn on_append(&mut self, from: NodeId, append: &Append, now: Instant, _out: &mut Output) -> Taken {
        self.see(now);
        let Some(index) = self.make_peer(from) else { return Taken::No };
        if !is_sensible(append) {
            return Taken::No;
        }
        self.peers[index].heard = Some(self.now);
        if append.term < self.hard.term {
            self.deposed = Some((from, append.round));
            return Taken::No;
        }
        if !self.follow(from, append.term) {
            return Taken::No;
        }
        self.pledged_until = self.pledged_until.max(self.now.after(self.timing.lease_ns));
        // What an earlier append allowed is void: the caller had no room for it.
        self.following.taking = None;
        // A new round asks for an answer: heartbeats and probes bring one, data in between does not.
        if self.following.round != Some(append.round) {
            self.following.owed = true;
            self.following.round = Some(append.round);
        }
        if bugs::is_on(Bug::CommitAheadOfData) {
            self.commit = self.commit.max(append.commit.min(self.terms.last()));
        }
        if !self.matches(append) {
            self.following.rejected = Some(self.terms.find_hint(append.previous, append.previous_term));
            self.following.owed = true;
            return Taken::No;
        }
        self.following.rejected = None;
        self.following.leader_commit = self.following.leader_commit.max(append.commit);
        self.following.confirmed = self.following.confirmed.max(append.confirmed);
        self.following.vouched |= append.vouched;
        self.take(append)
    }

    /// The answer that is owed to a leader, if any: the newest word, so that what one duty cycle gathered is
    /// acknowledged once. Called once per duty cycle, after its input was processed; until it says `None` if a
    /// deposed leader should not have to wait for the next cycle.
    pub fn take_reply(&mut self, now: Instant) -> Option<(NodeId, AppendReply)> {
        self.see(now);
        if let Some(reply) = self.take_reply_to_leader() {
            return Some(reply);
        }
        let (deposed, round) = self.deposed.take()?;
        let reply = AppendReply {
            term: self.hard.term,
            received: Position::ZERO,
            durable: Position::ZERO,
            round,
            rejected: None,
            recovering: self.saved.standing == Standing::Recovering,
            promise_ns: 0,
        };
        Some((deposed, reply))
    }

    /// The caller did what [`Taken::Data`] told it to.
    pub(crate) fn on_data_appended(&mut self, term: Term, end: Position) {
        let Some((taking_term, taking_end)) = self.following.taking.take() else {
            assert!(end <= self.terms.last(), "a follower appends what it was told to append");
            return;
        };
        assert_eq!(term, taking_term, "an append carries data of one term");
        assert!(end <= taking_end, "a follower appends what it was told to append");
        self.terms.append(term, end);
        self.following.matched = end;
        self.on_matched();
    }

    /// A replica that lost records is sound again once it holds all that was committed before its return, as its leader
    /// has made sure with a quorum of others since ([`Append::confirmed`]). Whatever it acknowledged in its earlier life
    /// counts no more since the link was made anew, and a vote it may have forgotten no longer elects anybody: so long
    /// no campaign lasts.
    pub(crate) fn recover(&mut self) {
        if self.hard.standing == Standing::Sound || self.role != Role::Follower {
            return;
        }
        let confirmed = self.following.confirmed;
        let held = match self.durability {
            Durability::Durable => self.following.matched.min(self.durable),
            Durability::Replicated => self.following.matched,
        };
        // Votes are durable in either mode; only a disk that has lost something may have lost one.
        let remembers = self.durability == Durability::Replicated && self.restored.0 > Term(0);
        let settled = remembers || self.following.vouched || self.now.since(self.born) >= self.timing.election_max_ns;
        if confirmed > Position::ZERO && confirmed <= held && settled {
            assert!(self.hard.term > Term(0), "there is a leader, so there was an election");
            self.hard.standing = Standing::Sound;
        }
    }

    /// Follows `from`, which says that it leads `term`; `false` if that cannot be.
    pub(crate) fn follow(&mut self, from: NodeId, term: Term) -> bool {
        assert!(term >= self.hard.term, "deposed leaders are answered elsewhere");
        if term == self.hard.term {
            let other = self.leader.is_some_and(|leader| leader != from);
            if other || self.role == Role::Leader {
                // Two leaders of one term: the peer is broken.
                return false;
            }
        }
        if term > self.hard.term || self.role != Role::Follower {
            self.become_follower(term);
        }
        self.leader = Some(from);
        self.leader_heard = self.now;
        self.arm_election_timer();
        true
    }

    //= raft §5.3: a follower refuses entries if its log has none at the previous position with that term.
    fn matches(&self, append: &Append) -> bool {
        if append.previous < self.terms.base() {
            // What the table forgot was committed long ago, and what is committed is in every leader's log.
            return self.terms.base() <= self.commit;
        }
        self.terms.term_at(append.previous) == Some(append.previous_term)
    }

    /// The append matches at its beginning: how much of its data is new?
    fn take(&mut self, append: &Append) -> Taken {
        let last = self.terms.last();
        let end = append.previous.advance(append.size);
        let agreed = self.agreed(append, end);
        assert!(agreed >= append.previous && agreed <= end, "the logs agree where they were found to match");
        if agreed == end {
            self.following.matched = self.following.matched.max(end.min(last));
            self.following.owed |= append.size > 0;
            self.on_matched();
            if append.size == 0 {
                return Taken::No;
            }
            return Taken::Data { skip: append.size, truncate_to: None };
        }
        let settled = self.commit.max(self.following.matched);
        let out_of_order = self.terms.term_at(agreed).is_none_or(|term| term > append.data_term);
        if (agreed < last && agreed < settled) || out_of_order {
            // What is committed, or was this leader's a moment ago, is never cut: the peer is broken.
            return Taken::No;
        }
        self.following.matched = self.following.matched.max(agreed);
        self.following.taking = Some((append.data_term, end));
        if agreed < last {
            self.terms.truncate(agreed);
            self.durable = self.durable.min(agreed);
            self.cut = true;
            self.truncate_memberships(agreed);
        }
        self.on_matched();
        Taken::Data { skip: agreed.since(append.previous), truncate_to: (agreed < last).then_some(agreed) }
    }

    /// How far this log is the same as the append's data. The data is of one term, so it is the same as long as the
    /// term is.
    fn agreed(&self, append: &Append, end: Position) -> Position {
        let start = append.previous.max(self.terms.base());
        if start >= end {
            return end;
        }
        if self.terms.term_of_byte(start) == Some(append.data_term) {
            return self.terms.run_end(start).min(end);
        }
        start
    }

    fn on_matched(&mut self) {
        let matched = self.following.matched;
        assert!(matched <= self.terms.last(), "what matches is in the log");
        let verified = if bugs::is_on(Bug::CommitAheadOfData) { self.terms.last() } else { matched };
        self.commit = self.commit.max(self.following.leader_commit.min(verified));
        if bugs::is_on(Bug::MembershipAtCommit) {
            self.adopt_membership();
        }
        self.recover();
    }

    fn take_reply_to_leader(&mut self) -> Option<(NodeId, AppendReply)> {
        let leader = self.leader.filter(|_| self.role == Role::Follower)?;
        if self.saved.term != self.hard.term {
            // An acknowledgement promises never to follow an older leader again.
            return None;
        }
        let following = &mut self.following;
        let received = following.matched.max(following.told_received);
        let held = if bugs::is_on(Bug::ReceivedAsDurable) { following.matched } else { self.durable };
        let durable = following.matched.min(held).max(following.told_durable);
        let progress = match self.durability {
            Durability::Durable => durable > following.told_durable,
            Durability::Replicated => received > following.told_received,
        };
        if !progress && !following.owed {
            return None;
        }
        // Counted from here at the earliest: the caller's clock may have been read long before the append came in.
        self.pledged_until = self.pledged_until.max(self.now.after(self.timing.lease_ns));
        following.owed = false;
        following.told_received = received;
        following.told_durable = durable;
        let reply = AppendReply {
            term: self.hard.term,
            received,
            durable,
            round: following.round.expect("there is a leader, so it has sent an append"),
            rejected: following.rejected.take(),
            recovering: self.saved.standing == Standing::Recovering,
            promise_ns: self.timing.lease_ns,
        };
        Some((leader, reply))
    }
}

/// Whether the append could come from a leader at all.
fn is_sensible(append: &Append) -> bool {
    let grows = append.previous_term <= append.data_term && append.data_term <= append.term;
    let dated = append.size == 0 || append.data_term > Term(0);
    let ends = append.size <= APPEND_SIZE_MAX as u64 && append.previous.0.checked_add(append.size).is_some();
    append.term > Term(0) && append.term <= TERM_MAX && grows && dated && ends
}
