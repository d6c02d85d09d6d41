//! Leadership is handed over without losing a command, or stays where it is.

use evershard_consensus::{Durability, Standing, TransferError};

use crate::network::{Cluster, Setup};

fn name(index: usize) -> u8 {
    u8::try_from(index).expect("few nodes")
}

#[test]
fn leadership_moves_to_a_replica_in_step_at_once() {
    for seed in 0..20 {
        let mut cluster = Cluster::new(3, Setup { seed, ..Setup::default() });
        let leader = cluster.elect();
        let target = (leader + 1) % 3;
        let term = cluster.raft(leader).term();
        let end = cluster.propose(leader);
        assert_eq!(cluster.transfer(leader, name(target)), Ok(()));
        assert!(!cluster.raft(leader).admits(), "nothing new while handing over");
        assert_eq!(cluster.raft(leader).transfer_target(), Some(cluster.nodes[target].id));
        let moved = |cluster: &Cluster| cluster.leader() == Some(target) && cluster.raft(target).admits();
        let took = cluster.run_until(100, moved);
        assert!(took.is_some_and(|ms| ms < 20), "seed {seed}: {took:?} ms");
        assert_eq!(cluster.raft(target).term(), term.next());
        assert_eq!(cluster.raft(leader).transfer_target(), None, "losing leadership ends it");
        assert!(cluster.raft(target).last() > end, "nothing was lost");
        assert!(cluster.run_until(500, Cluster::has_converged).is_some());
    }
}

#[test]
fn a_replica_behind_is_waited_for() {
    let mut cluster = Cluster::new(3, Setup::default());
    let leader = cluster.elect();
    cluster.run_ms(50);
    let target = (leader + 1) % 3;
    cluster.nodes[target].disk_stuck = true;
    cluster.propose(leader);
    cluster.run_ms(1);
    assert_eq!(cluster.transfer(leader, name(target)), Ok(()));
    cluster.run_ms(15);
    assert_eq!(cluster.leader(), Some(leader), "its answer waits for its disk");
    cluster.nodes[target].disk_stuck = false;
    let took = cluster.run_until(100, |cluster| cluster.leader() == Some(target));
    assert!(took.is_some());
}

#[test]
fn if_the_target_does_not_take_over_the_leader_goes_on() {
    for noticed in [true, false] {
        let mut cluster = Cluster::new(3, Setup::default());
        let leader = cluster.elect();
        cluster.run_ms(50);
        let target = (leader + 1) % 3;
        assert_eq!(cluster.transfer(leader, name(target)), Ok(()));
        cluster.crash(target, noticed);
        assert_eq!(cluster.raft(leader).admits(), noticed, "a closed link ends the attempt");
        let took = cluster.run_until(1000, |cluster| cluster.raft(leader).admits());
        assert!(took.is_some_and(|ms| ms <= 301), "{took:?} ms");
        let end = cluster.propose(leader);
        cluster.run_ms(20);
        assert_eq!(cluster.raft(leader).commit(), end);
        cluster.restart(target);
        cluster.run_ms(50);
        assert_eq!(cluster.transfer(leader, name(target)), Ok(()), "and may try again");
        assert!(cluster.run_until(100, |cluster| cluster.leader() == Some(target)).is_some());
    }
}

#[test]
fn what_cannot_be_is_refused_with_the_reason() {
    let mut cluster = Cluster::new(3, Setup { durability: Durability::Replicated, ..Setup::default() });
    let leader = cluster.elect();
    cluster.run_ms(50);
    let (target, third) = ((leader + 1) % 3, (leader + 2) % 3);
    assert_eq!(cluster.transfer(target, name(leader)), Err(TransferError::NotLeader));
    assert_eq!(cluster.transfer(leader, name(leader)), Err(TransferError::AlreadyLeader));
    assert_eq!(cluster.transfer(leader, 99), Err(TransferError::NotMember));
    cluster.disconnect(leader, target);
    assert_eq!(cluster.transfer(leader, name(target)), Err(TransferError::NotReady));
    cluster.connect(leader, target);
    cluster.run_ms(10);
    assert_eq!(cluster.transfer(leader, name(target)), Ok(()));
    assert_eq!(cluster.transfer(leader, name(third)), Err(TransferError::InProgress));
}

/// Replica 2 may have lost records and cannot prove otherwise while it hears nothing: it is not summoned.
#[test]
fn a_recovering_replica_is_not_made_leader() {
    let mut cluster = Cluster::new(3, Setup { durability: Durability::Replicated, ..Setup::default() });
    let leader = cluster.elect();
    let target = (leader + 1) % 3;
    cluster.run_ms(50);
    cluster.crash(target, true);
    cluster.nodes[target].save_stuck = true;
    cluster.restart(target);
    cluster.run_ms(50);
    assert_eq!(cluster.raft(target).standing(), Standing::Recovering, "what it learnt is not saved yet");
    assert_eq!(cluster.transfer(leader, name(target)), Err(TransferError::NotReady));
    cluster.nodes[target].save_stuck = false;
    cluster.run_ms(50);
    assert_eq!(cluster.transfer(leader, name(target)), Ok(()));
    assert!(cluster.run_until(100, |cluster| cluster.leader() == Some(target)).is_some());
}
