//! Messages that no correct peer would send, at random.

use evershard_consensus::Durability;
use evershard_protocol::peer::{AppendReply, Hint, PeerMessage, TimeoutNow, Vote, VoteReply};
use evershard_protocol::{NodeId, Position, Term};
use proptest::prelude::*;

use crate::network::MS;
use crate::solo::{PEER, Solo, THIRD, append, vote};

fn number() -> impl Strategy<Value = u64> {
    prop_oneof![8 => 0_u64..6, 4 => (0_u64..6).prop_map(|n| n * 64), 1 => (u64::MAX - 2)..=u64::MAX, 1 => any::<u64>()]
}

fn message() -> impl Strategy<Value = PeerMessage> {
    let hint = proptest::option::of((number(), number()));
    let (flag, other_flag) = (any::<bool>(), any::<bool>());
    (0_u8..5, [(); 6].map(|()| number()), hint, flag, other_flag).prop_map(|(kind, n, hint, flag, other)| match kind {
        0 => PeerMessage::Append(append(n[0], (n[1], n[2]), (n[3], n[4]), n[5], n[1] % 5)),
        1 => PeerMessage::AppendReply(AppendReply {
            term: Term(n[0]),
            received: Position(n[1]),
            durable: Position(n[2]),
            round: n[3],
            rejected: hint.map(|(position, term)| Hint { position: Position(position), term: Term(term) }),
            recovering: flag,
            promise_ns: n[4],
        }),
        2 => PeerMessage::Vote(Vote { pre_vote: flag, transfer: other, ..vote(n[0], n[1], n[2]) }),
        3 => PeerMessage::VoteReply(VoteReply {
            term: Term(n[0]),
            granted: n[1].is_multiple_of(2),
            pre_vote: flag,
            recovering: other,
        }),
        _ => PeerMessage::TimeoutNow(TimeoutNow { term: Term(n[0]) }),
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    /// Whatever peers say, the replica goes on, its invariants hold and commit does not go back.
    #[test]
    fn nonsense_from_peers_harms_nobody(
        messages in proptest::collection::vec((0_u8..4, message(), 0_u64..40), 1..80),
        durability in prop_oneof![Just(Durability::Durable), Just(Durability::Replicated)],
    ) {
        let mut solo = Solo::new(durability, &[(1, 64), (2, 128)], 2);
        for (from, message, wait_ms) in messages {
            let commit = solo.raft.commit();
            solo.now = solo.now.after(wait_ms * MS);
            solo.raft.tick(solo.now, &mut solo.out);
            match message {
                PeerMessage::Append(append) => drop(solo.append(NodeId(from), &append)),
                message => drop(solo.hear(NodeId(from), message)),
            }
            solo.save();
            if solo.raft.wants_term_start() {
                solo.raft.on_appended(solo.raft.term(), solo.raft.last().advance(64));
            }
            if wait_ms % 4 == 0 {
                solo.raft.on_durable(solo.raft.last());
            }
            for peer in [PEER, THIRD] {
                let mut planned_len = 0;
                while let Some(append) = solo.raft.plan_append(peer, solo.now, 1000) {
                    solo.raft.on_append_sent(peer, &append, solo.now);
                    planned_len += 1;
                    prop_assert!(planned_len < 1000, "planning ends");
                }
            }
            let _ = solo.raft.take_reply(solo.now);
            let _ = solo.raft.next_deadline();
            solo.out.messages.clear();
            solo.raft.check_invariants();
            prop_assert!(solo.raft.commit() >= commit);
        }
    }
}
