//! The core allocates nothing once it has led for the first time: counted, not believed.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use evershard_consensus::{
    Config, Durability, HardState, Output, Raft, Restored, SnapshotMark, Standing, Taken, TermTable, Timing,
};
use evershard_protocol::peer::{Append, AppendReply, Hint, PeerMessage, TimeoutNow, Vote, VoteReply};
use evershard_protocol::{Instant, MembershipChange, NodeId, NodeSet, Position, Term};

thread_local! {
    /// Allocations of this thread while they count; none while they do not.
    static COUNT: Cell<Option<u64>> = const { Cell::new(None) };
}

struct Counting;

// SAFETY: every call is handed to the system's allocator unchanged; counting touches only a thread's own cell, which
// needs no allocation and has no destructor.
#[expect(unsafe_code, reason = "counting allocations needs an allocator")]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller keeps GlobalAlloc's contract, and it is the same one.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: as above.
        unsafe { System.realloc(memory, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn count() {
    COUNT.set(COUNT.get().map(|count| count + 1));
}

/// Allocations of this thread while `run` runs.
fn allocations(run: impl FnOnce()) -> u64 {
    COUNT.set(Some(0));
    run();
    COUNT.replace(None).expect("just set")
}

const MS: u64 = 1_000_000;
const RECORD_SIZE: u64 = 64;
const OTHERS: [NodeId; 4] = [NodeId(1), NodeId(2), NodeId(3), NodeId(4)];

/// Node 0, a voter with 1 and 2; 3 and 4 are connected and may join. The others say what the test wants.
struct Replica {
    raft: Raft,
    out: Output,
    now: Instant,
}

impl Replica {
    fn new() -> Self {
        let config = Config {
            id: NodeId(0),
            members: vec![NodeId(0), NodeId(1), NodeId(2)],
            durability: Durability::Durable,
            timing: Timing { lease_ns: 140 * MS, ..Timing::default() },
            seed: 7,
            inflight_size_max: 1 << 20,
        };
        let (terms, zero) = (TermTable::new(), Position::ZERO);
        let restored = Restored { hard: HardState::NEW, terms, memberships: vec![], durable: zero, commit: zero };
        let now = Instant(MS);
        let mut replica = Self { raft: Raft::new(config, restored, now), out: Output::new(), now };
        for peer in OTHERS {
            replica.raft.on_link_up(peer, now, &mut replica.out);
        }
        replica
    }

    fn hear(&mut self, from: NodeId, message: PeerMessage) {
        self.raft.on_message(from, &message, self.now, &mut self.out);
        self.save();
    }

    fn save(&mut self) {
        if let Some(hard) = self.raft.hard_state_to_save() {
            self.raft.on_hard_state_saved(hard, &mut self.out);
        }
        self.out.messages.clear();
    }

    fn pass(&mut self, ms: u64) {
        for _ in 0..ms / 10 {
            self.now = self.now.after(10 * MS);
            self.raft.tick(self.now, &mut self.out);
            std::hint::black_box(self.raft.next_deadline());
        }
        self.save();
    }

    fn grant(&mut self, from: NodeId, term: Term, pre_vote: bool) {
        self.hear(from, PeerMessage::VoteReply(VoteReply { term, granted: true, pre_vote, recovering: false }));
    }

    /// Waits for the timer, loses a round, asks again, is elected, and begins its term.
    fn lead(&mut self) {
        self.pass(700);
        let term = self.raft.term().next();
        self.grant(NodeId(1), term, true);
        self.grant(NodeId(2), term, false);
        assert!(self.raft.wants_term_start(), "elected");
        self.append(None);
        self.replicate();
    }

    fn append(&mut self, change: Option<MembershipChange>) {
        let end = self.raft.last().advance(RECORD_SIZE);
        let planned = change.map(|change| self.raft.plan_membership(&change).expect("settled"));
        if let Some(next) = planned.or(self.raft.wants_membership()) {
            self.raft.on_membership(end, next);
        }
        self.raft.on_appended(self.raft.term(), end);
        self.raft.on_durable(end);
    }

    /// Everybody takes everything and says so.
    fn replicate(&mut self) {
        for peer in OTHERS {
            while let Some(append) = self.raft.plan_append(peer, self.now, 1 << 16) {
                self.raft.on_append_sent(peer, &append, self.now);
                self.acknowledge(peer, self.raft.last(), append.round, None);
            }
            std::hint::black_box((self.raft.peer(peer), self.raft.slowest_needed()));
        }
    }

    fn acknowledge(&mut self, from: NodeId, durable: Position, round: u64, rejected: Option<Hint>) {
        let term = self.raft.term();
        let reply =
            AppendReply { term, received: durable, durable, round, rejected, recovering: false, promise_ns: 140 * MS };
        self.hear(from, PeerMessage::AppendReply(reply));
    }

    /// Follows node 1 in a later term, with a tail that does not match cut away, and answers.
    fn follow(&mut self) {
        let term = self.raft.term().next();
        let (previous, last) = (self.raft.commit(), self.raft.last());
        let previous_term = self.raft.terms().term_at(previous).expect("committed");
        let mut append = Append {
            term,
            previous,
            previous_term,
            data_term: term,
            size: 64,
            commit: previous,
            round: 1,
            confirmed: previous,
            vouched: false,
        };
        let beyond = Append { previous: last.advance(640), previous_term: term, ..append };
        assert_eq!(self.raft.on_append(NodeId(1), &beyond, self.now, &mut self.out), Taken::No);
        self.save();
        assert!(self.raft.take_reply(self.now).is_some_and(|(_, reply)| reply.rejected.is_some()));
        for round in 2..20 {
            append.round = round;
            let taken = self.raft.on_append(NodeId(1), &append, self.now, &mut self.out);
            assert!(matches!(taken, Taken::Data { skip: 0, .. }));
            let end = append.previous.advance(append.size);
            self.raft.on_appended(term, end);
            self.raft.on_durable(end);
            assert!(self.raft.take_reply(self.now).is_some());
            append.previous = end;
            append.previous_term = term;
            append.commit = end;
        }
    }
}

fn set(nodes: &[u8]) -> NodeSet {
    nodes.iter().map(|id| NodeId(*id)).collect()
}

#[test]
fn nothing_is_allocated_after_the_first_leadership() {
    let mut replica = Replica::new();
    replica.lead();
    let elections = allocations(|| {
        for _ in 0..50 {
            replica.follow();
            replica.lead();
            replica.append(None);
            replica.follow();
            let term = replica.raft.term();
            replica.hear(NodeId(1), PeerMessage::TimeoutNow(TimeoutNow { term }));
            let (last, last_term) = (replica.raft.last(), replica.raft.last_term());
            let vote = Vote { term: term.next().next(), last, last_term, pre_vote: false, transfer: true };
            replica.hear(NodeId(2), PeerMessage::Vote(vote));
            replica.hear(NodeId(1), PeerMessage::Vote(Vote { pre_vote: true, ..vote }));
            for peer in OTHERS {
                replica.raft.on_link_down(peer, replica.now, &mut replica.out);
                replica.raft.on_link_up(peer, replica.now, &mut replica.out);
            }
            replica.lead();
        }
    });
    let appends = allocations(|| {
        for round in 0..500 {
            replica.append(None);
            replica.replicate();
            replica.pass(20);
            let hint = Hint { position: replica.raft.commit(), term: replica.raft.term() };
            replica.acknowledge(OTHERS[round % 2], Position::ZERO, 1 << 20, Some(hint));
            let _ = replica.raft.transfer(NodeId(1), replica.now, &mut replica.out);
            replica.raft.on_link_down(NodeId(1), replica.now, &mut replica.out);
            replica.raft.on_link_up(NodeId(1), replica.now, &mut replica.out);
            replica.replicate();
        }
    });
    let memberships = allocations(|| {
        for _ in 0..50 {
            for (promote, learn, remove) in
                [(&[][..], &[3, 4][..], &[][..]), (&[3, 4], &[], &[]), (&[], &[3], &[]), (&[], &[], &[3, 4])]
            {
                let change = MembershipChange { promote: set(promote), learn: set(learn), remove: set(remove) };
                replica.append(Some(change));
                replica.replicate();
                if replica.raft.wants_membership().is_some() {
                    replica.append(None);
                    replica.replicate();
                }
                assert!(!replica.raft.membership().is_joint(), "settled");
            }
        }
    });
    let reads = allocations(|| {
        for _ in 0..100 {
            let read = replica.raft.begin_read(replica.now).expect("it leads");
            replica.replicate();
            assert!(replica.raft.is_confirmed(&read));
            replica.pass(150);
            let read = replica.raft.begin_read(replica.now).expect("it leads, without a lease by now");
            replica.replicate();
            assert!(replica.raft.is_confirmed(&read) && replica.raft.is_pending(&read));
        }
    });
    let snapshots = allocations(|| {
        for _ in 0..50 {
            let behind = replica.raft.last();
            replica.append(None);
            replica.raft.on_link_down(NodeId(2), replica.now, &mut replica.out);
            replica.raft.on_link_up(NodeId(2), replica.now, &mut replica.out);
            replica.acknowledge(NodeId(1), replica.raft.last(), 0, None);
            replica.raft.on_trimmed(replica.raft.commit());
            let probe = replica.raft.plan_append(NodeId(2), replica.now, 1 << 16).expect("a probe");
            replica.raft.on_append_sent(NodeId(2), &probe, replica.now);
            let nothing = Hint { position: Position::ZERO, term: Term(0) };
            replica.acknowledge(NodeId(2), Position::ZERO, probe.round, Some(nothing));
            assert!(replica.raft.commit() > behind && replica.raft.wants_snapshot(NodeId(2)));
            replica.raft.on_snapshot_begun(NodeId(2), replica.raft.commit());
            replica.raft.on_snapshot_ended(NodeId(2), true);
            replica.replicate();
            let membership = *replica.raft.membership();
            let (term, position) = (replica.raft.term().next(), replica.raft.last().advance(6400));
            let mark = SnapshotMark { position, term, membership };
            replica.raft.install_snapshot(NodeId(1), term, &mark, replica.now);
            assert_eq!(replica.raft.commit(), position);
            replica.lead();
        }
    });
    assert_eq!(replica.raft.standing(), Standing::Sound);
    let counted = [elections, appends, memberships, reads, snapshots];
    assert_eq!(counted, [0; 5], "elections, appends, memberships, reads, snapshots");
    assert!(allocations(|| drop(std::hint::black_box(vec![1]))) > 0, "the counter counts");
}
