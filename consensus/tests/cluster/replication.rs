//! How logs become the same, and what that costs.

use evershard_consensus::{COMMIT_CARRIER_NS, Durability, Role};
use evershard_protocol::limits::RECORD_SIZE_MAX;
use evershard_protocol::{NodeId, Position};

use crate::network::{Cluster, MS, Setup};

fn converge(cluster: &mut Cluster) {
    assert!(cluster.run_until(5000, Cluster::has_converged).is_some(), "the replicas never agreed");
}

#[test]
fn a_divergent_tail_gives_way_in_few_rounds() {
    // The paper's figure 7, with the leader of term 8 on top and as many followers as fit.
    let leader = vec![1, 1, 1, 4, 4, 5, 5, 6, 6, 6];
    let followers = [
        vec![1, 1, 1, 4, 4, 5, 5, 6, 6],
        vec![1, 1, 1, 4],
        vec![1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 6],
        vec![1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 7, 7],
        vec![1, 1, 1, 4, 4, 4, 4],
        vec![1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3],
    ];
    for (case, follower) in followers.iter().enumerate() {
        let mut cluster = Cluster::with_logs(&[leader.clone(), leader.clone(), follower.clone()], Setup::default());
        cluster.part(&[2], &[0, 1]);
        cluster.elect();
        cluster.heal();
        converge(&mut cluster);
        assert_eq!(cluster.nodes[2].log[..10], cluster.nodes[0].log[..10], "case {case}");
        assert!(cluster.counts.rejections <= 4, "case {case}: {:?}", cluster.counts);
    }
}

/// A hundred terms on either side: the steps back are counted in runs, not in records.
#[test]
fn back_off_is_bounded_by_the_number_of_runs() {
    let odd: Vec<u64> = (0..100).flat_map(|term| [1 + 2 * term; 10]).collect();
    let even: Vec<u64> = (0..99).flat_map(|term| [2 + 2 * term; 10]).collect();
    let mut cluster = Cluster::with_logs(&[odd.clone(), odd.clone(), even], Setup::default());
    cluster.part(&[2], &[0, 1]);
    cluster.elect();
    cluster.heal();
    converge(&mut cluster);
    assert!(cluster.counts.rejections > 10, "the scenario shows nothing: {:?}", cluster.counts);
    assert!(cluster.counts.rejections <= 200, "{:?}", cluster.counts);
}

/// Figure 8: a record of an old term on a quorum may still be overwritten, so it is not committed by counting.
#[test]
fn records_of_old_terms_are_committed_only_below_one_of_the_own() {
    let logs = [vec![1, 2], vec![1, 2], vec![1], vec![1], vec![1, 3]];
    for seed in 0..20 {
        let mut cluster = Cluster::with_logs(&logs, Setup { seed, ..Setup::default() });
        cluster.part(&[4], &[0, 1, 2, 3]);
        // The new leader's own records never reach a disk, the old ones are on every disk of the quorum.
        let leader = cluster.run_until(3000, |cluster| cluster.leader().is_some()).and(cluster.leader());
        let leader = leader.expect("elected");
        assert!(leader < 2, "seed {seed}: only these have term 2");
        for node in &mut cluster.nodes {
            node.disk_stuck = true;
        }
        cluster.run_ms(200);
        if let Some(committed) = cluster.oracle.committed.last() {
            assert!(committed.term >= cluster.raft(leader).term(), "seed {seed}");
        }
        for node in 0..4 {
            cluster.crash(node, true);
        }
        cluster.heal();
        for node in 0..4 {
            cluster.restart(node);
        }
        cluster.elect();
        converge(&mut cluster);
    }
}

#[test]
fn a_slow_disk_bounds_what_is_in_flight_and_costs_no_leadership() {
    let inflight_size_max = 4 * RECORD_SIZE_MAX as u64;
    let mut cluster = Cluster::new(3, Setup { inflight_size_max, ..Setup::default() });
    let leader = cluster.elect();
    cluster.run_ms(100);
    let slow = (leader + 1) % 3;
    cluster.nodes[slow].disk_stuck = true;
    let term = cluster.raft(leader).term();
    for _ in 0..100 {
        cluster.propose_sized(leader, 30_000);
        cluster.run_ms(10);
        let peer = cluster.raft(leader).peer(cluster.nodes[slow].id).expect("a member");
        assert!(peer.next.since(peer.durable) <= inflight_size_max, "{peer:?}");
        assert!(
            cluster.now.since(peer.last_heard) < 60 * MS,
            "a full pipe still gives signs of life: {peer:?} at {:?}",
            cluster.now
        );
        assert_eq!(cluster.raft(leader).slowest_needed(), peer.received);
    }
    assert!(cluster.raft(leader).commit().0 > 90 * 30_000, "the other two go on");
    // Now nobody's disk goes on: nothing is committed, but nobody is to blame for silence.
    for node in &mut cluster.nodes {
        node.disk_stuck = true;
    }
    for _ in 0..100 {
        cluster.propose_sized(leader, 64);
        cluster.run_ms(10);
    }
    assert_eq!((cluster.leader(), cluster.raft(leader).term()), (Some(leader), term));
    cluster.heal();
    converge(&mut cluster);
    assert_eq!(cluster.raft(leader).term(), term);
}

/// Links should lose nothing. If one does anyway, the next append finds out.
#[test]
fn what_a_link_lost_is_sent_again() {
    for seed in 0..20 {
        let mut cluster = Cluster::new(3, Setup { seed, loss: 200, ..Setup::default() });
        let ready = |cluster: &Cluster| cluster.leader().is_some_and(|leader| cluster.raft(leader).admits());
        for _ in 0..50 {
            assert!(cluster.run_until(5000, ready).is_some());
            let leader = cluster.leader().expect("just seen");
            cluster.propose(leader);
            cluster.run_ms(10);
        }
        cluster.setup.loss = 0;
        converge(&mut cluster);
    }
}

/// In durable mode one command costs each follower one append and one answer, nothing for being received.
#[test]
fn a_command_costs_one_append_and_one_answer() {
    for durability in [Durability::Durable, Durability::Replicated] {
        let mut cluster = Cluster::new(3, Setup { durability, ..Setup::default() });
        let leader = cluster.elect();
        converge(&mut cluster);
        cluster.run_until(1000, |cluster| cluster.counts.empty > 20);
        let quiet = cluster.counts;
        let end = cluster.propose(leader);
        let took = cluster.run_until(10, |cluster| cluster.raft(leader).commit() == end);
        assert!(took.is_some());
        cluster.run_ms(1);
        let counts = cluster.counts;
        assert_eq!(counts.data - quiet.data, 2, "{durability:?}");
        assert!(counts.replies - quiet.replies <= 2 + counts.empty - quiet.empty, "{durability:?}: {counts:?}");
    }
}

#[test]
fn a_commit_position_reaches_idle_followers_soon() {
    let mut cluster = Cluster::new(3, Setup::default());
    let leader = cluster.elect();
    converge(&mut cluster);
    for _ in 0..20 {
        cluster.run_ms(3);
        let end = cluster.propose(leader);
        let committed = |cluster: &Cluster| cluster.raft(leader).commit() == end;
        assert!(cluster.run_until(20, committed).is_some());
        let everywhere = |cluster: &Cluster| (0..3).all(|node| cluster.raft(node).commit() == end);
        let took = cluster.run_until(20, everywhere);
        assert!(took.is_some_and(|ms| ms <= COMMIT_CARRIER_NS / MS + 2), "{took:?} ms");
    }
}

#[test]
fn replicated_commits_do_not_wait_for_disks() {
    let mut cluster = Cluster::new(3, Setup { durability: Durability::Replicated, ..Setup::default() });
    let leader = cluster.elect();
    for node in &mut cluster.nodes {
        node.disk_stuck = true;
    }
    let end = cluster.propose(leader);
    cluster.run_ms(5);
    assert_eq!(cluster.raft(leader).commit(), end);
    assert!(cluster.raft(leader).durable() < end);
}

#[test]
fn durable_commits_wait_for_a_quorum_of_disks_whichever_they_are() {
    let mut cluster = Cluster::new(3, Setup::default());
    let leader = cluster.elect();
    converge(&mut cluster);
    cluster.nodes[leader].disk_stuck = true;
    let end = cluster.propose(leader);
    cluster.run_ms(20);
    assert_eq!(cluster.raft(leader).commit(), end, "the leader's own disk is nobody special");
    cluster.nodes[(leader + 1) % 3].disk_stuck = true;
    let end = cluster.propose(leader);
    cluster.run_ms(20);
    assert!(cluster.raft(leader).commit() < end);
    cluster.heal();
    converge(&mut cluster);
}

/// A follower that was down while much was written is caught up in bounded pieces.
#[test]
fn a_follower_that_was_down_is_caught_up() {
    let mut cluster = Cluster::new(3, Setup { append_size_max: 1000, ..Setup::default() });
    let leader = cluster.elect();
    let down = (leader + 1) % 3;
    cluster.crash(down, true);
    for _ in 0..500 {
        cluster.propose(leader);
        cluster.step();
    }
    assert_eq!(cluster.raft(leader).role(), Role::Leader);
    cluster.restart(down);
    assert!(cluster.raft(leader).peer(NodeId(u8::try_from(down).expect("small"))).expect("a member").probing);
    converge(&mut cluster);
    assert_eq!(cluster.raft(down).commit(), cluster.raft(leader).last());
    assert!(cluster.raft(down).commit() > Position(500 * 64));
}
