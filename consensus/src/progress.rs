//! What a replica knows about one peer: the link, its vote, and on a leader how far its log has got.

use std::hash::{Hash, Hasher};

use evershard_protocol::bugs::{self, Bug};
use evershard_protocol::peer::{Append, AppendReply};
use evershard_protocol::{Instant, NodeId, Position, Term};

use crate::read::DRIFT_DIVISOR;
use crate::rounds::{Round, Rounds};

/// One other node of the shard.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    pub(crate) id: NodeId,
    /// There is a link; nothing is planned for a peer without one.
    pub(crate) connected: bool,
    /// When anything was last heard from it.
    pub(crate) heard: Option<Instant>,
    /// On a leader: when it last showed that it follows this leader's term.
    pub(crate) contact: Option<Instant>,
    /// On a candidate: its vote.
    pub(crate) grant: Option<Grant>,
    /// It said that it may have lost acknowledged records.
    pub(crate) recovering: bool,
    /// What it said on this link, in this term, to have in memory; the leader's log up to there.
    pub(crate) received: Position,
    /// What it said on this link, in this term, to have on stable storage. Invariant: not above `received`.
    pub(crate) durable: Position,
    /// How the leader sends to it.
    pub(crate) mode: Mode,
    /// Where the next append begins.
    pub(crate) next: Position,
    /// A term it had saved, and what was committed and on its stable storage, as it last said: for when it comes back with
    /// less. Kept for as long as this replica runs.
    pub(crate) floor: (Term, Position),
    /// It voted for this leader when every member did, and its link has lasted since: its word counts though it may have
    /// lost records, for no member has a better log.
    pub(crate) vouched: bool,
    /// It may have lost records. The read whose confirmation shows that this leader still led when it said so.
    pub(crate) audit: Option<u64>,
    /// What was committed when that was confirmed, and whether the peer was told.
    pub(crate) confirmed: Position,
    told_confirmed: Position,
    /// It has left the configuration with the record that ends here, and is fed until it has been told so.
    pub(crate) farewell: Option<Position>,
    /// The latest read whose number went out to it, and the latest whose round it has answered.
    told_read: u64,
    pub(crate) confirmed_read: u64,
    /// It grants nobody a vote before this instant of the leader's clock.
    pub(crate) promised_until: Instant,
    /// Rounds that it has not answered.
    rounds: Rounds,
    /// The commit position it was told.
    told_commit: Position,
    /// Counts the appends that ask for an answer.
    round: u64,
    /// The first round that was sent after `next` was last set back: older rejections are about something else.
    since: u64,
    /// When anything was last sent to it, and when a round was.
    sent_at: Option<Instant>,
    round_at: Option<Instant>,
}

/// Whether a vote counts by itself, or only together with everybody's.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Grant {
    Sound,
    Recovering,
}

/// How a leader sends to a peer.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Mode {
    /// The leader doesn't know where the logs agree: one append at a time.
    Probe {
        /// An append was sent from `next` and not answered yet.
        waiting: bool,
        /// `next` need not be a boundary of the leader's records: it only asks, without data.
        enquiry: bool,
    },
    /// The logs agree up to `next`, as far as the peer has got: appends follow each other.
    Replicate,
    /// The peer lacks what the leader's log no longer has: it gets heartbeats until a snapshot has arrived.
    Snapshot {
        /// The snapshot at this position is on its way.
        sending: Option<Position>,
    },
}

/// What sets the pace of a leader's appends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    pub(crate) commit: Position,
    pub(crate) read: u64,
    pub(crate) heartbeat_ns: u64,
    pub(crate) now: Instant,
}

/// What is to be sent to a peer now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Due {
    Nothing,
    /// An append with data if there is any, and with this round.
    Data(u64),
    /// An append without data, with this round.
    Empty(u64),
}

impl Peer {
    pub(crate) fn new(id: NodeId) -> Self {
        Self {
            id,
            connected: false,
            heard: None,
            contact: None,
            grant: None,
            recovering: false,
            received: Position::ZERO,
            durable: Position::ZERO,
            mode: Mode::Probe { waiting: false, enquiry: false },
            next: Position::ZERO,
            floor: (Term(0), Position::ZERO),
            vouched: false,
            audit: None,
            confirmed: Position::ZERO,
            told_confirmed: Position::ZERO,
            farewell: None,
            told_read: 0,
            confirmed_read: 0,
            promised_until: Instant(0),
            rounds: Rounds::default(),
            told_commit: Position::ZERO,
            round: 0,
            since: 0,
            sent_at: None,
            round_at: None,
        }
    }

    /// A new term or a new link: nothing the peer said before counts, and the leader asks at `next`.
    pub(crate) fn restart(&mut self, next: Position) {
        self.received = Position::ZERO;
        self.durable = Position::ZERO;
        self.recovering = false;
        self.rounds.clear();
        self.told_read = 0;
        self.farewell = None;
        self.vouched = false;
        self.audit = None;
        self.confirmed = Position::ZERO;
        self.told_confirmed = Position::ZERO;
        // A vote of its last life is none of this one.
        self.grant = None;
        self.probe_from(next, false);
    }

    /// A new leader begins: nothing was asked and nothing promised in its term.
    pub(crate) fn begin_term(&mut self, next: Position) {
        self.confirmed_read = 0;
        self.promised_until = Instant(0);
        self.restart(next);
    }

    /// Goes back to (or begins with) one append at a time.
    pub(crate) fn probe_from(&mut self, next: Position, enquiry: bool) {
        self.go_on(Mode::Probe { waiting: false, enquiry }, next);
    }

    /// Only a snapshot helps; `base` is where the leader's log begins.
    pub(crate) fn await_snapshot(&mut self, base: Position) {
        let sending = match self.mode {
            Mode::Snapshot { sending } => sending.filter(|position| *position >= base),
            _ => None,
        };
        self.go_on(Mode::Snapshot { sending }, base);
    }

    fn go_on(&mut self, mode: Mode, next: Position) {
        self.mode = mode;
        self.next = next;
        self.told_commit = Position::ZERO;
        self.since = self.round + 1;
    }

    /// What is due now, apart from whether there is data and whether it may be sent.
    pub(crate) fn due(&self, pace: &Pace) -> Due {
        assert!(self.connected, "nothing is due on a link that is down");
        let idle = passed(self.sent_at, pace.heartbeat_ns, pace.now);
        match self.mode {
            Mode::Probe { waiting: true, .. } if !idle => Due::Nothing,
            Mode::Probe { enquiry: true, .. } => Due::Empty(self.round + 1),
            Mode::Probe { .. } => Due::Data(self.round + 1),
            Mode::Snapshot { .. } if idle => Due::Empty(self.round + 1),
            Mode::Snapshot { .. } => Due::Nothing,
            Mode::Replicate if idle || self.lacks_read(pace.read) => Due::Empty(self.round + 1),
            Mode::Replicate if self.confirmed > self.told_confirmed => Due::Empty(self.data_round(pace)),
            Mode::Replicate if self.told_commit < pace.commit && passed(self.sent_at, COMMIT_CARRIER_NS, pace.now) => {
                Due::Empty(self.data_round(pace))
            }
            Mode::Replicate => Due::Nothing,
        }
    }

    /// A read waits for a round that has not been sent; unless too many are under way.
    fn lacks_read(&self, read: u64) -> bool {
        self.told_read < read && !self.rounds.is_full()
    }

    /// The round of what is sent now for its own sake, data or a commit position: a new one if the last is as old as a
    /// heartbeat, so that a peer with nothing to acknowledge (its disk is slow) still gives signs of life.
    pub(crate) fn data_round(&self, pace: &Pace) -> u64 {
        let due = passed(self.round_at, pace.heartbeat_ns, pace.now) || self.lacks_read(pace.read);
        self.round + u64::from(due)
    }

    /// When [`Peer::due`] will have something to say, if nothing else happens.
    pub(crate) fn next_due(&self, pace: &Pace) -> Instant {
        let wait_ns = match self.mode {
            Mode::Probe { waiting: false, .. } => return pace.now,
            Mode::Replicate if self.lacks_read(pace.read) || self.confirmed > self.told_confirmed => return pace.now,
            Mode::Replicate if self.told_commit < pace.commit => COMMIT_CARRIER_NS.min(pace.heartbeat_ns),
            _ => pace.heartbeat_ns,
        };
        self.sent_at.map_or(pace.now, |sent_at| sent_at.after(wait_ns))
    }

    /// The append was sent. Reads up to `read` had begun by then.
    pub(crate) fn on_sent(&mut self, append: &Append, read: u64, now: Instant) {
        assert_eq!(append.previous, self.next, "appends to one peer follow each other");
        self.sent_at = Some(now);
        if append.round > self.round {
            self.round = append.round;
            self.round_at = Some(now);
            self.told_read = read;
            self.rounds.push(Round { number: append.round, sent_at: now, read });
        }
        match &mut self.mode {
            Mode::Probe { waiting, .. } => *waiting = true,
            Mode::Replicate => self.next = append.previous.advance(append.size),
            Mode::Snapshot { .. } => {}
        }
        self.told_commit = append.commit;
        self.told_confirmed = append.confirmed;
        if self.farewell.is_some_and(|position| self.told_commit >= position && self.received >= position) {
            self.farewell = None;
        }
    }

    /// The peer has answered this round: it followed this leader after the round was sent.
    pub(crate) fn on_round_answered(&mut self, number: u64, promise_ns: u64) {
        let Some(round) = self.rounds.answer(number) else { return };
        self.confirmed_read = self.confirmed_read.max(round.read);
        if promise_ns > 0 {
            let believed_ns = promise_ns - promise_ns / DRIFT_DIVISOR;
            self.promised_until = self.promised_until.max(round.sent_at.after(believed_ns));
        }
    }

    /// Notes how far the peer has got. Its word is monotone for as long as the link and the term last.
    pub(crate) fn on_positions(&mut self, reply: &AppendReply) {
        assert!(reply.durable <= reply.received, "checked where the reply came in");
        self.recovering = reply.recovering;
        self.received = self.received.max(reply.received);
        self.durable = self.durable.max(reply.durable);
        if self.mode == Mode::Replicate {
            self.next = self.next.max(self.received);
        }
    }

    /// What decides how the peer is treated, without instants; see [`crate::Raft::hash_state`].
    pub(crate) fn hash_state(&self, hasher: &mut impl Hasher) {
        (self.id, self.connected, self.contact.is_some(), self.grant, self.recovering).hash(hasher);
        (self.received, self.durable, self.mode, self.next, self.farewell, self.told_commit).hash(hasher);
        (self.vouched, self.audit.is_some(), self.confirmed, self.told_confirmed).hash(hasher);
        // Answers under way name rounds, so these count as they are.
        (self.round, self.since, self.told_read, self.confirmed_read).hash(hasher);
        self.rounds.hash_state(hasher);
    }

    /// Whether its word counts by itself.
    pub(crate) fn counts(&self) -> bool {
        !self.recovering || self.vouched || bugs::is_on(Bug::RecoveringCounts)
    }

    /// The answer is about the `next` that the leader has in mind now.
    pub(crate) fn is_current(&self, round: u64) -> bool {
        round >= self.since && round <= self.round
    }

    /// The logs agree at `next`, and beyond it as far as the peer says.
    pub(crate) fn replicate(&mut self) {
        assert!(matches!(self.mode, Mode::Probe { .. }), "only an answered probe ends probing");
        self.mode = Mode::Replicate;
        self.next = self.next.max(self.received);
    }
}

/// Whether `wait_ns` have passed since `since`; always if it never was.
fn passed(since: Option<Instant>, wait_ns: u64, now: Instant) -> bool {
    since.is_none_or(|since| now >= since.after(wait_ns))
}

/// How long a new commit position waits for an append to ride on before it gets one of its own.
pub const COMMIT_CARRIER_NS: u64 = 2 * evershard_protocol::time::MILLISECOND_NS;

#[cfg(test)]
mod tests {
    use super::*;

    const HEARTBEAT_NS: u64 = 20_000_000;

    fn pace(commit: u64, now: u64) -> Pace {
        Pace { commit: Position(commit), read: 0, heartbeat_ns: HEARTBEAT_NS, now: Instant(now) }
    }

    fn append(peer: &Peer, size: u64, round: u64, commit: u64) -> Append {
        Append {
            term: Term(1),
            previous: peer.next,
            previous_term: Term(1),
            data_term: Term(1),
            size,
            commit: Position(commit),
            round,
            confirmed: peer.confirmed,
            vouched: peer.vouched,
        }
    }

    fn connected() -> Peer {
        let mut peer = Peer::new(NodeId(1));
        peer.connected = true;
        peer.restart(Position(64));
        peer
    }

    #[test]
    fn a_probe_is_repeated_at_the_heartbeat_and_not_before() {
        let mut peer = connected();
        assert_eq!(peer.due(&pace(0, 0)), Due::Data(1));
        peer.on_sent(&append(&peer, 8, 1, 0), 0, Instant(0));
        assert_eq!(peer.due(&pace(0, HEARTBEAT_NS - 1)), Due::Nothing);
        assert_eq!(peer.due(&pace(0, HEARTBEAT_NS)), Due::Data(2));
        assert_eq!(peer.next, Position(64), "a probe stays where it is until it is answered");
    }

    #[test]
    fn answers_from_before_the_last_step_back_are_about_something_else() {
        let mut peer = connected();
        peer.on_sent(&append(&peer, 0, 1, 0), 0, Instant(0));
        assert!(peer.is_current(1));
        assert!(!peer.is_current(2), "nobody can answer what was not asked");
        peer.probe_from(Position(8), false);
        assert!(!peer.is_current(1));
        peer.on_sent(&append(&peer, 0, 2, 0), 0, Instant(0));
        peer.on_sent(&append(&peer, 0, 3, 0), 0, Instant(1));
        assert!(peer.is_current(2) && peer.is_current(3), "a repeated probe asks the same");
    }

    #[test]
    fn a_commit_position_travels_alone_only_after_a_while() {
        let mut peer = connected();
        peer.on_sent(&append(&peer, 0, 1, 0), 0, Instant(0));
        peer.replicate();
        peer.on_sent(&append(&peer, 8, 1, 0), 0, Instant(0));
        assert_eq!(peer.due(&pace(0, COMMIT_CARRIER_NS)), Due::Nothing);
        assert_eq!(peer.due(&pace(72, COMMIT_CARRIER_NS - 1)), Due::Nothing);
        assert_eq!(peer.next_due(&pace(72, 0)), Instant(COMMIT_CARRIER_NS));
        assert_eq!(peer.due(&pace(72, COMMIT_CARRIER_NS)), Due::Empty(1));
        peer.on_sent(&append(&peer, 0, 1, 72), 0, Instant(COMMIT_CARRIER_NS));
        assert_eq!(peer.due(&pace(72, 2 * COMMIT_CARRIER_NS)), Due::Nothing);
        let later = Instant(COMMIT_CARRIER_NS + HEARTBEAT_NS);
        assert_eq!(peer.due(&pace(72, later.0)), Due::Empty(2));
        assert_eq!(peer.data_round(&pace(0, later.0)), 2, "data may carry the round that is due");
    }

    #[test]
    fn a_read_starts_a_round_and_its_answer_confirms_it() {
        let mut peer = connected();
        peer.on_sent(&append(&peer, 0, 1, 0), 0, Instant(0));
        peer.replicate();
        let reading = Pace { read: 4, ..pace(0, 1) };
        assert_eq!(peer.due(&reading), Due::Empty(2));
        peer.on_sent(&append(&peer, 0, 2, 0), 4, Instant(1));
        assert_eq!(peer.due(&reading), Due::Nothing);
        peer.on_round_answered(1, 0);
        assert_eq!(peer.confirmed_read, 0, "that round was sent before the read began");
        peer.on_round_answered(2, 6400);
        assert_eq!(
            (peer.confirmed_read, peer.promised_until),
            (4, Instant(6301)),
            "counted from the sending, and less"
        );
    }

    #[test]
    fn answers_to_rounds_of_an_earlier_link_confirm_nothing() {
        let mut peer = connected();
        peer.on_sent(&append(&peer, 0, 1, 0), 3, Instant(0));
        peer.restart(Position(64));
        peer.on_round_answered(1, 100);
        assert_eq!((peer.confirmed_read, peer.promised_until), (0, Instant(0)));
    }
}
