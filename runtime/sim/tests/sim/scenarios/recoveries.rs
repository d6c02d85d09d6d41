//! A quorum is lost for good, and an operator makes a new cluster of what survived: scenario 49.

use evershard_consensus::{Durability, Role, Standing};
use evershard_log::{SEGMENT_HEADER_SIZE, SEGMENT_SIZE_MIN, SegmentNumber, SegmentSource};
use evershard_node::salvage::{Doubt, SalvageError, quorum_among};
use evershard_protocol::client::AdminAction::{MemberAdd, MemberPromote};
use evershard_protocol::{ClusterId, Membership, NodeId, NodeSet, Position};
use evershard_sim::node::NodeFile;
use evershard_sim::script::Script;
use evershard_sim::service::Command;

use super::{leads, ready, with};

/// Sends commands, some every few milliseconds; gives back how many the session took.
fn work(script: &mut Script, len: u64) -> u64 {
    let mut sent = 0;
    for _ in 0..len {
        sent += u64::from(script.send(0, Command::Add(1, 1)));
        script.run_for(2);
    }
    sent
}

/// Waits for a moment in which a node has on disk whatever any client was told: then nothing acknowledged is lost with the
/// others.
fn await_all_on(script: &mut Script, node: usize) {
    script.run_until(5000, "it has on disk what is committed", |script| {
        script.status(node, 0).is_some_and(|status| status.durable >= script.world.oracles[0].committed())
    });
}

fn set(nodes: &[usize]) -> NodeSet {
    nodes.iter().map(|node| NodeId(u8::try_from(*node).expect("few nodes"))).collect()
}

/// Nobody commits anything any more, for as long as somebody might try.
fn stands_still(script: &mut Script) {
    script.run_for(500);
    let committed = script.world.oracles[0].committed();
    script.run_for(2000);
    assert_eq!(script.world.oracles[0].committed(), committed, "one of three is no quorum");
}

/// Two of three nodes are lost under load. What the third holds becomes a new cluster, in which it decides alone; sessions go
/// on with what was under way. The lost ones come back with their disks: under their old name they reach nobody and decide
/// nothing, under the new one they do not start. With an empty disk one of them may be added like any new node.
#[test]
fn s49_a_survivor_becomes_a_cluster_and_the_lost_never_rejoin() {
    for seed in 0..9 {
        let mut script = with(seed, |_| {});
        let leader = ready(&mut script);
        let survivor = (leader + usize::try_from(seed % 3).expect("small")) % 3;
        let lost: Vec<usize> = (0..3).filter(|node| *node != survivor).collect();
        let mut sent = work(&mut script, 100);
        await_all_on(&mut script, survivor);
        script.lose(&lost);
        sent += work(&mut script, 20);
        stands_still(&mut script);
        script.crash(survivor);
        let found = script.survey(survivor, 0).expect("it is whole");
        assert_eq!((found.doubts.as_slice(), found.start, found.known), (&[][..], Position::ZERO, found.kept));
        assert_eq!(found.membership.map(|(_, is)| is), Some(Membership::of_voters(set(&[0, 1, 2]))));
        let same = script.recover(survivor, "simulated", false);
        assert!(matches!(same, Err(SalvageError::SameCluster)), "the old name would let the lost ones in");
        let copied = script.recover(survivor, "phoenix", false).expect("nothing is in doubt")[0];
        assert_eq!(
            (copied.note.kept, copied.note.survivor),
            (found.kept, NodeId(u8::try_from(survivor).expect("few")))
        );
        assert!(copied.term > found.term && copied.term > found.last_term);
        let refused = script.refusal(survivor, NodeFile::default());
        assert!(format!("{refused:?}").contains("Foreign"), "under the old name: {refused:?}");
        script.restart(survivor);
        assert_eq!(script.status(survivor, 0).expect("it runs").standing, Standing::Sound);
        assert_eq!(script.elect(0), survivor);
        assert_eq!(script.membership(0).map(|is| is.voters), Some(set(&[survivor])));
        script.run_until(5000, "it says so", |script| script.said(survivor, "RecoveredByOperator"));
        sent += work(&mut script, 20);
        sent += come_back(&mut script, survivor, &lost, found.kept);
        let new = lost[0];
        script.wipe(new);
        script.enlist(new, survivor);
        script.restart(new);
        script.change(0, MemberAdd, new);
        script.change(0, MemberPromote, new);
        sent += work(&mut script, 20);
        script.settle();
        assert_eq!(script.call(0, Command::Get(1)), [sent], "seed {seed}: each command once");
        assert_eq!(script.membership(0).map(|is| is.voters), Some(set(&[survivor, new])));
        assert_eq!(script.world.clients[0].sessions(), 1, "the session survives");
    }
}

/// Each of the lost in turn, while the new cluster works; gives back how many commands it was sent.
fn come_back(script: &mut Script, survivor: usize, lost: &[usize], kept: Position) -> u64 {
    let mut sent = 0;
    for old in lost {
        let file = script.world.nodes[survivor].file;
        let refused = script.refusal(*old, file);
        assert!(format!("{refused:?}").contains("Foreign"), "n{old} under the new name: {refused:?}");
        script.restart(*old);
        sent += work(script, 10);
        script.run_for(1500);
        let status = script.status(*old, 0).expect("it runs");
        assert!(status.role != Role::Leader && status.committed <= kept, "n{old} alone decides nothing: {status:?}");
        assert!(leads(script, survivor), "nobody disturbs the new cluster");
        if *old > survivor {
            // The greater id dials.
            assert!(script.said(*old, "PeerRefused") && script.said(survivor, "Stranger"), "both sides say so");
        }
        script.crash(*old);
    }
    sent
}

/// Three of five are lost, among them the leader. Of the two that are left one was cut off for a while: the other has the
/// better log, as an election would find, and with it everything that was acknowledged.
#[test]
fn s49_of_two_survivors_of_five_the_better_one_is_taken() {
    for seed in 0..6 {
        let mut script = with(seed, |options| (options.nodes, options.voters) = (5, 5));
        let leader = ready(&mut script);
        let [better, worse] = [(leader + 1) % 5, (leader + 2) % 5];
        let lost: Vec<usize> = (0..5).filter(|node| ![better, worse].contains(node)).collect();
        let mut sent = work(&mut script, 50);
        script.isolate(worse);
        sent += work(&mut script, 50);
        await_all_on(&mut script, better);
        script.lose(&lost);
        script.heal();
        script.run_for(500);
        script.crash(better);
        script.crash(worse);
        let found = [better, worse, lost[0]].map(|node| script.survey(node, 0).expect("it is whole"));
        assert!(found[0].rank() > found[1].rank(), "seed {seed}: {:?}, {:?}", found[0].rank(), found[1].rank());
        assert_eq!(quorum_among(found[..2].iter()), None, "two of five");
        assert!(quorum_among(found.iter()).is_some(), "with a third one nothing is to be recovered");
        script.recover(better, "phoenix", false).expect("nothing is in doubt");
        script.restart(better);
        assert_eq!(script.elect(0), better);
        sent += work(&mut script, 20);
        script.wipe(worse);
        script.enlist(worse, better);
        script.restart(worse);
        script.change(0, MemberAdd, worse);
        script.change(0, MemberPromote, worse);
        script.settle();
        assert_eq!(script.call(0, Command::Get(1)), [sent]);
        assert_eq!(script.membership(0).map(|is| is.voters), Some(set(&[better, worse])));
    }
}

/// The survivor was cut off while the others acknowledged more, and they are lost with it. Nobody can give that back; but the
/// client is told that its session has lost acknowledged requests, and goes on with another one.
#[test]
fn s49_a_client_of_what_is_lost_is_told() {
    for seed in 0..6 {
        let mut script = with(seed, |_| {});
        let survivor = (ready(&mut script) + 1) % 3;
        let held = work(&mut script, 30);
        script.run_for(100);
        script.isolate(survivor);
        let more = work(&mut script, 30);
        script.run_for(100);
        assert_eq!(script.answered(0), usize::try_from(held + more).expect("small"));
        script.lose(&(0..3).filter(|node| *node != survivor).collect::<Vec<_>>());
        script.crash(survivor);
        script.heal();
        let committed = script.world.oracles[0].committed();
        let copied = script.recover(survivor, "phoenix", false).expect("it does not know what it lacks")[0];
        assert!(copied.note.kept < committed, "what is above it is lost");
        script.give_up(survivor);
        script.restart(survivor);
        script.elect(0);
        let told = |script: &Script| script.world.clients[0].sessions() == 2;
        script.run_until(20_000, "it is told and begins another session", told);
        assert_eq!(script.call(0, Command::Get(1)), [held], "seed {seed}");
        assert_eq!(script.call(0, Command::Add(1, 1)), [held + 1]);
    }
}

/// A block of the survivor does not read back: it is said what would be lost, and nothing is given up unasked.
#[test]
fn s49_what_is_damaged_is_given_up_only_when_told() {
    for seed in 0..6 {
        let mut script = with(seed, |_| {});
        let survivor = (ready(&mut script) + 1) % 3;
        let mut positions = Vec::new();
        for _ in 0..8 {
            script.call(0, Command::Add(1, 1));
            script.run_for(30);
            positions.push(script.status(survivor, 0).expect("it runs").durable);
        }
        script.run_for(100);
        script.lose(&[0, 1, 2]);
        script.rot(survivor, 0, Position(positions[4].0 - 1));
        let found = script.survey(survivor, 0).expect("it can be read up to there");
        // A bit of what a block repeats of the one before it is missed by nobody.
        let Some(Doubt::Hole { first, end }) = found.doubts.first().copied() else { continue };
        assert!(first < positions[4] && end >= positions[7] && found.kept == first);
        assert!(matches!(script.recover(survivor, "phoenix", false), Err(SalvageError::Doubtful { .. })));
        let copied = script.recover(survivor, "phoenix", true).expect("the operator has said so")[0];
        assert!(copied.note.loss_accepted && copied.note.kept == first && copied.note.known >= end);
        let new = script.survey(survivor, 0).expect("what was written is a log");
        assert_eq!((new.kept, new.doubts.as_slice(), new.term), (copied.end, &[][..], copied.term));
    }
}

/// A log of several segments, with records of all sizes; the header of one segment is gone, which the rest of the log makes
/// good. Every record is there afterwards, byte for byte, or the oracles would say so.
#[test]
fn s49_a_long_log_is_kept_record_by_record() {
    for seed in 0..4 {
        let mut script = with(seed, |_| {});
        let survivor = (ready(&mut script) + 1) % 3;
        let mut sent = 0;
        for size in (0..60).map(|step| step * 1013) {
            sent += u64::from(script.send_sized(0, Command::Add(1, 1), size));
            script.run_for(10);
        }
        script.run_for(500);
        await_all_on(&mut script, survivor);
        script.lose(&(0..3).filter(|node| *node != survivor).collect::<Vec<_>>());
        script.crash(survivor);
        let disk = &mut script.world.nodes[survivor].disks[0];
        assert!(disk.mount().segments().len() > 3, "several segments");
        disk.repair(SegmentNumber(2), 0, &[0x55; SEGMENT_HEADER_SIZE]).expect("a file to damage");
        assert!(script.survey(survivor, 0).expect("it can be read").doubts.is_empty(), "the header is known otherwise");
        script.recover(survivor, "phoenix", false).expect("nothing is in doubt");
        assert!(script.world.nodes[survivor].disks[0].mount().segments().len() > 1, "several segments again");
        script.restart(survivor);
        assert_eq!(script.elect(0), survivor);
        script.settle();
        assert_eq!(script.call(0, Command::Get(1)), [sent]);
    }
}

/// The beginning of the log is gone and a snapshot stands for it, on every node: it comes with the log, as a snapshot of the new
/// cluster, and so do the sessions in it.
#[test]
fn s49_a_snapshot_comes_with_the_log() {
    for seed in 0..4 {
        let mut script = with(seed, |options| {
            (options.segment_size, options.snapshot_segments) = (SEGMENT_SIZE_MIN, 1);
            options.tail_size = 80 * 1024;
        });
        let survivor = (ready(&mut script) + 1) % 3;
        let mut sent = 0;
        for _ in 0..600 {
            sent += u64::from(script.send_sized(0, Command::Add(1, 1), 5000));
            script.run_for(4);
        }
        script.run_for(500);
        await_all_on(&mut script, survivor);
        script.lose(&(0..3).filter(|node| *node != survivor).collect::<Vec<_>>());
        script.crash(survivor);
        let first = script.world.nodes[survivor].disks[0].mount().segments()[0];
        assert!(first > SegmentNumber(1), "seed {seed}: the log was trimmed");
        let found = script.survey(survivor, 0).expect("it can be read");
        assert!(found.start > Position::ZERO && found.doubts.is_empty());
        script.recover(survivor, "phoenix", false).expect("nothing is in doubt");
        let new = script.survey(survivor, 0).expect("what was written is a log");
        assert_eq!((new.start, new.identity.cluster), (found.start, ClusterId::of_name("phoenix")));
        script.restart(survivor);
        assert_eq!(script.elect(0), survivor);
        sent += work(&mut script, 20);
        script.settle();
        assert_eq!(script.call(0, Command::Get(1)), [sent]);
        assert_eq!(script.world.clients[0].sessions(), 1, "the session survives");
    }
}

/// Where acknowledgements do not wait for the disk, nobody knows what an unclean stop has lost: the operator has to say that
/// it is given up.
#[test]
fn s49_a_survivor_in_replicated_durability_takes_a_word_more() {
    let mut script = with(3, |options| options.durability = Durability::Replicated);
    let survivor = (ready(&mut script) + 1) % 3;
    let sent = work(&mut script, 50);
    script.run_for(500);
    await_all_on(&mut script, survivor);
    let lost: Vec<usize> = (0..3).filter(|node| *node != survivor).collect();
    script.lose(&lost);
    script.crash(survivor);
    let refused = script.recover(survivor, "phoenix", false);
    assert!(matches!(&refused, Err(SalvageError::Doubtful { doubts, .. }) if doubts == &[Doubt::Recovering]));
    script.recover(survivor, "phoenix", true).expect("the operator has said so");
    script.restart(survivor);
    assert_eq!(script.elect(0), survivor);
    script.settle();
    assert_eq!(script.call(0, Command::Get(1)), [sent]);
}

/// The story: a node introduced itself in the very turn in which the leader appended the configuration that made it a member, and
/// the leader's file did not name it. The leader welcomed it and did not keep the link, for its table of peers was renewed later
/// in the turn; the node believed that it was connected, and neither side dialled again.
#[test]
fn a_node_that_introduces_itself_while_it_is_added_is_a_peer() {
    for seed in 0..100 {
        let mut script = with(seed, |options| (options.nodes, options.voters) = (2, 1));
        ready(&mut script);
        script.call(0, Command::Put(1, 1));
        script.run_for(100);
        script.lose(&[1]);
        script.crash(0);
        script.recover(0, "phoenix", false).expect("nothing is in doubt");
        script.restart(0);
        script.elect(0);
        script.wipe(1);
        script.enlist(1, 0);
        script.restart(1);
        script.change(0, MemberAdd, 1);
        script.change(0, MemberPromote, 1);
        script.settle();
    }
}
