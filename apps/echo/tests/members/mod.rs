//! Nodes come and go under load: learners, voters, the leader itself, a node that has lost its disk.

use std::time::Duration;

use evershard::node::DurabilityConfig;
use evershard::operator::{self, MemberChange};

use crate::Checked;
use crate::processes::{Processes, WAIT_MAX, wait_for};

fn change(cluster: &Processes, node: u8, change: &MemberChange) {
    let outcome = operator::change_member(cluster.addresses(), node, change, WAIT_MAX, &mut |_, _| {});
    outcome.unwrap_or_else(|error| panic!("{change:?} of node {node}: {error}"));
}

fn voters(cluster: &Processes, node: usize) -> Vec<u64> {
    let status = cluster.status(node).expect("the node runs");
    let ids = status["voters"].as_array().expect("a list").iter();
    ids.map(|id| id.as_u64().expect("a number")).collect()
}

/// Two of three are replaced one after the other under load, the leader among them; then everything is restarted
/// with the old files, and the log says who belongs to the shard.
#[test]
fn nodes_are_replaced_under_load() {
    let mut cluster = Processes::start(3, DurabilityConfig::Durable);
    let mut client = Checked::connect(&cluster);
    client.progress(2000);
    for (new, old) in [(3, 0), (4, 1)] {
        cluster.run(new);
        let address = cluster.addresses()[new].clone();
        let id = u8::try_from(new).expect("few");
        change(&cluster, id, &MemberChange::Add(address));
        client.progress(500);
        change(&cluster, id, &MemberChange::Promote);
        client.progress(500);
        change(&cluster, old, &MemberChange::Remove);
        client.progress(500);
        wait_for("the node to know that it has left", || {
            cluster.status(usize::from(old)).is_some_and(|status| {
                status["role"] == "follower"
                    && !status["voters"].as_array().expect("a list").contains(&u64::from(old).into())
            })
        });
        cluster.kill(usize::from(old));
        client.progress(500);
    }
    assert_eq!(voters(&cluster, 2), [2, 3, 4]);
    client.finish();
    cluster.check_digests();
    for node in 2..5 {
        cluster.kill(node);
    }
    for node in 2..5 {
        cluster.run(node);
    }
    let mut client = Checked::connect(&cluster);
    client.progress(500);
    client.finish();
    assert_eq!(voters(&cluster, 2), [2, 3, 4]);
    cluster.check_digests();
}

/// A node that has lost its disk comes back under its id and takes over the log before its word counts again.
#[test]
fn a_wiped_node_comes_back() {
    let mut cluster = Processes::start(3, DurabilityConfig::Durable);
    let mut client = Checked::connect(&cluster);
    client.progress(2000);
    for wiped in 0..3 {
        cluster.kill(wiped);
        client.run_for(Duration::from_millis(100));
        std::fs::remove_dir_all(cluster.data(wiped)).expect("the node is dead");
        cluster.run(wiped);
        client.progress(500);
        wait_for("the node to be sound", || {
            client.turn(true);
            cluster.status(wiped).is_some_and(|status| status["sound"] == true)
        });
    }
    client.finish();
    cluster.check_digests();
}

#[test]
fn a_node_that_nobody_has_added_is_refused_and_waits() {
    let mut cluster = Processes::start(3, DurabilityConfig::Durable);
    let mut client = Checked::connect(&cluster);
    cluster.run(3);
    client.progress(500);
    let mut status = serde_json::Value::Null;
    wait_for("the node to answer", || {
        status = cluster.status(3).unwrap_or_default();
        !status.is_null()
    });
    client.progress(500);
    assert_eq!(status["appended"], 0);
    assert_eq!(status["voters"].as_array().map(Vec::len), Some(0));
    client.finish();
}
