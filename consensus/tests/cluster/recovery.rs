//! Replicas that may have lost what they acknowledged.

use evershard_consensus::{Durability, Standing};
use evershard_protocol::Term;

use crate::network::{Cluster, Setup};

fn replicated(len: usize, seed: u64) -> Cluster {
    Cluster::new(len, Setup { durability: Durability::Replicated, seed, ..Setup::default() })
}

/// Everyone agrees, and everyone's word counts.
fn recover(cluster: &mut Cluster) {
    let done =
        |cluster: &Cluster| cluster.has_converged() && (0..cluster.nodes.len()).all(|node| is_sound(cluster, node));
    assert!(cluster.run_until(2000, done).is_some(), "some replica never recovered");
}

fn is_sound(cluster: &Cluster, index: usize) -> bool {
    cluster.raft(index).standing() == Standing::Sound
}

#[test]
fn one_of_three_is_caught_up_and_counts_again() {
    let mut cluster = replicated(3, 1);
    let leader = cluster.elect();
    let (lossy, third) = ((leader + 1) % 3, (leader + 2) % 3);
    for node in &mut cluster.nodes {
        node.disk_stuck = true;
    }
    for _ in 0..10 {
        cluster.propose(leader);
        cluster.step();
    }
    cluster.run_ms(10);
    cluster.crash(lossy, true);
    cluster.restart(lossy);
    assert!(!is_sound(&cluster, lossy));
    let took = cluster.run_until(500, |cluster| is_sound(cluster, lossy));
    assert!(took.is_some_and(|ms| ms < 50), "{took:?} ms");
    cluster.stop(third);
    let end = cluster.propose(leader);
    cluster.run_ms(100);
    assert_eq!(cluster.raft(leader).commit(), end, "it counts again");
}

/// While it recovers, its word does not make a quorum.
#[test]
fn a_recovering_replica_does_not_count() {
    let mut cluster = replicated(3, 1);
    let leader = cluster.elect();
    let (lossy, third) = ((leader + 1) % 3, (leader + 2) % 3);
    cluster.run_ms(100);
    cluster.crash(lossy, true);
    cluster.nodes[lossy].save_stuck = true;
    cluster.restart(lossy);
    cluster.run_ms(50);
    cluster.stop(third);
    let end = cluster.propose(leader);
    cluster.run_ms(100);
    let peer = cluster.raft(leader).peer(cluster.nodes[lossy].id).expect("a member");
    assert!(peer.recovering && peer.received == end, "{peer:?}");
    assert!(cluster.raft(leader).commit() < end, "a sound quorum is needed");
    cluster.nodes[lossy].save_stuck = false;
    cluster.run_ms(50);
    assert_eq!(cluster.raft(leader).commit(), end);
}

/// The leader was elected by a sound quorum, and before it committed anything of its own everyone else crashed. Nobody
/// could ever become sound again by a quorum's word; but all are there and all have the record.
#[test]
fn what_every_member_holds_is_committed() {
    for seed in 0..10 {
        let mut cluster = replicated(3, seed);
        let leader = cluster.run_until(3000, |cluster| cluster.leader().is_some()).and(cluster.leader());
        let leader = leader.expect("elected");
        for other in (0..3).filter(|&other| other != leader) {
            cluster.crash(other, true);
        }
        assert_eq!(cluster.raft(leader).commit().0, 0, "seed {seed}: the scenario shows nothing");
        for other in (0..3).filter(|&other| other != leader) {
            cluster.restart(other);
        }
        recover(&mut cluster);
    }
}

#[test]
fn two_of_three_elect_only_together_with_the_third() {
    for seed in 0..20 {
        let mut cluster = replicated(3, seed);
        let leader = cluster.elect();
        let (second, third) = ((leader + 1) % 3, (leader + 2) % 3);
        cluster.propose(leader);
        cluster.run_ms(10);
        cluster.crash(leader, true);
        cluster.crash(second, true);
        cluster.stop(third);
        cluster.restart(leader);
        cluster.restart(second);
        cluster.run_ms(3000);
        assert_eq!(cluster.leader(), None, "seed {seed}: two recovering replicas are no quorum");
        cluster.restart(third);
        let leader = cluster.elect();
        recover(&mut cluster);
        assert_eq!(cluster.leader(), Some(leader), "seed {seed}");
    }
}

/// Power was lost everywhere: the best log that is left becomes the shard's log.
#[test]
fn when_all_are_recovering_all_elect_the_best_log() {
    for seed in 0..20 {
        let mut cluster = replicated(3, seed);
        let leader = cluster.elect();
        cluster.run_ms(50);
        // Only one disk keeps up.
        let best = (leader + 1) % 3;
        for node in (0..3).filter(|&node| node != best) {
            cluster.nodes[node].disk_stuck = true;
        }
        for _ in 0..5 {
            cluster.propose(leader);
            cluster.run_ms(5);
        }
        for node in 0..3 {
            cluster.crash(node, true);
        }
        cluster.oracle.loss_allowed = true;
        cluster.heal();
        let kept = cluster.nodes[best].disk.len();
        let first = (best + 1) % 3;
        cluster.restart(best);
        cluster.restart(first);
        cluster.run_ms(2000);
        assert_eq!(cluster.leader(), None, "seed {seed}: not without all");
        cluster.restart((best + 2) % 3);
        let leader = cluster.elect();
        assert_eq!(leader, best, "seed {seed}");
        recover(&mut cluster);
        assert!(cluster.nodes[first].log.len() > kept, "seed {seed}: nothing of the best log is lost");
    }
}

#[test]
fn a_lonely_recovering_node_is_all_there_is() {
    let mut cluster = replicated(1, 1);
    cluster.elect();
    cluster.oracle.loss_allowed = true;
    cluster.crash(0, true);
    cluster.restart(0);
    cluster.elect();
    cluster.run_ms(10);
    assert!(is_sound(&cluster, 0));
}

/// In durable mode a replica whose disk did not verify is sound again only when what it fetched is on disk: the next
/// crash must not take it away unseen.
#[test]
fn in_durable_mode_recovery_waits_for_the_disk() {
    let mut cluster = Cluster::new(3, Setup::default());
    let leader = cluster.elect();
    let faulty = (leader + 1) % 3;
    for _ in 0..10 {
        cluster.propose(leader);
        cluster.run_ms(2);
    }
    cluster.run_ms(50);
    cluster.crash(faulty, true);
    cluster.nodes[faulty].disk.truncate(2);
    cluster.nodes[faulty].log.truncate(2);
    cluster.nodes[faulty].hard.standing = Standing::Recovering;
    cluster.nodes[faulty].disk_stuck = true;
    cluster.oracle.loss_allowed = true;
    cluster.restart(faulty);
    cluster.run_ms(200);
    assert_eq!(cluster.raft(faulty).last(), cluster.raft(leader).last(), "it has everything again");
    assert!(!is_sound(&cluster, faulty), "but not on disk");
    cluster.nodes[faulty].disk_stuck = false;
    cluster.run_ms(150);
    assert!(is_sound(&cluster, faulty));
}

/// A recovering replica asks for votes like everyone else, but leads only if all members say so; with a leader alive it
/// raises no terms.
#[test]
fn a_recovering_replica_raises_no_terms() {
    let mut cluster = replicated(3, 3);
    let leader = cluster.elect();
    let (lossy, third) = ((leader + 1) % 3, (leader + 2) % 3);
    cluster.run_ms(50);
    let term: Term = cluster.raft(leader).term();
    cluster.crash(lossy, true);
    cluster.stop(third);
    cluster.run_ms(400);
    cluster.crash(leader, true);
    cluster.restart(lossy);
    cluster.restart(leader);
    cluster.run_ms(3000);
    assert_eq!(cluster.raft(lossy).term(), term, "without a chance there is no candidature");
}

/// A disk that was put back to an earlier state verifies, and lacks what the replica said it had: a peer remembers.
#[test]
fn what_a_peer_remembers_is_held_against_the_disk() {
    let mut cluster = Cluster::new(3, Setup::default());
    let leader = cluster.elect();
    let other = (leader + 1) % 3;
    for _ in 0..10 {
        cluster.propose(leader);
        cluster.run_ms(20);
    }
    let (backup, hard) = (cluster.nodes[other].disk.clone(), cluster.nodes[other].hard);
    for _ in 0..10 {
        cluster.propose(leader);
        cluster.run_ms(20);
    }
    let name = cluster.nodes[other].id;
    let (term, durable) = cluster.raft(leader).floor_of(name);
    assert_eq!((term, durable), (cluster.raft(leader).term(), cluster.raft(leader).commit()));
    cluster.crash(other, true);
    cluster.restart(other);
    let raft = cluster.nodes[other].raft.as_mut().expect("it runs");
    assert!(!raft.on_floor(term, durable, false), "nothing is missing");
    cluster.crash(other, true);
    cluster.nodes[other].disk = backup.clone();
    cluster.nodes[other].log = backup;
    cluster.nodes[other].hard = hard;
    cluster.oracle.loss_allowed = true;
    cluster.restart(other);
    let raft = cluster.nodes[other].raft.as_mut().expect("it runs");
    assert!(raft.on_floor(term, durable, false));
    assert!(raft.hard_state_to_save().is_some_and(|hard| hard.standing == Standing::Recovering));
    let sound = |cluster: &Cluster| cluster.raft(other).standing() == Standing::Sound && cluster.has_converged();
    cluster.run_ms(10);
    assert!(cluster.run_until(2000, sound).is_some(), "a leader brings it up to date");
}
