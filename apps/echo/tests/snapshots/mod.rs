//! Snapshots of real processes: taken and trimmed behind under load while nodes are killed; a wiped node brought back from one
//! when the log's beginning is gone; damaged and missing ones.

use std::path::PathBuf;
use std::time::Duration;

use evershard::client::admin;
use evershard::node::DurabilityConfig;

use crate::Checked;
use crate::processes::{Processes, Random, wait_for};

/// Three nodes with log files of one MiB, and a snapshot behind every second one, by the hot instance or by the shadow.
fn small(hot_save_kib: u64) -> Processes {
    let mut cluster = Processes::start(3, DurabilityConfig::Durable);
    cluster.wait_for_leader();
    for node in 0..3 {
        cluster.kill(node);
        cluster.edit_config(node, |text| {
            let text = text.replace("segment_size_mib = 8", "segment_size_mib = 1");
            let text = text.replace("snapshot_segments = 8", "snapshot_segments = 2");
            text.replace("hot_save_kib = 128", &format!("hot_save_kib = {hot_save_kib}"))
        });
    }
    for node in 0..3 {
        cluster.run(node);
    }
    cluster
}

fn files(cluster: &Processes, node: usize, suffix: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(cluster.data(node).join("shard-0")).expect("the node made it");
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("readable").path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == suffix));
    files.sort();
    files
}

fn snapshot_of(cluster: &Processes, node: usize) -> u64 {
    cluster.status(node).and_then(|status| status["snapshot"].as_u64()).unwrap_or(0)
}

/// Load until the first log file is gone on every node.
fn trimmed(cluster: &Processes, client: &mut Checked) {
    wait_for("the logs to be trimmed", || {
        client.turn(true);
        (0..3).all(|node| {
            files(cluster, node, "log").first().is_none_or(|first| !first.ends_with("segment-0000000000000001.log"))
        })
    });
}

fn all_sound(cluster: &Processes, client: &mut Checked) {
    wait_for("all nodes to be sound", || {
        client.turn(true);
        (0..3).all(|node| cluster.status(node).is_some_and(|status| status["sound"] == true))
    });
}

#[test]
fn nodes_are_killed_while_snapshots_are_taken_and_logs_trimmed() {
    kill_and_trim(0);
}

#[test]
fn nodes_are_killed_while_small_states_are_saved_and_logs_trimmed() {
    kill_and_trim(128);
}

fn kill_and_trim(hot_save_kib: u64) {
    let mut random = Random(23);
    let mut cluster = small(hot_save_kib);
    let mut client = Checked::connect(&cluster);
    trimmed(&cluster, &mut client);
    for _ in 0..8 {
        let victim = random.below(3);
        client.run_for(Duration::from_millis(100 + random.below(400) as u64));
        cluster.kill(victim);
        client.run_for(Duration::from_millis(random.below(300) as u64));
        cluster.run(victim);
        client.progress(500);
    }
    all_sound(&cluster, &mut client);
    // Whoever has caught up in one go has a long log until there are two snapshots behind it. Then it is two intervals of two
    // files, one being written, two made ready, and one more that is being deleted.
    wait_for("few files on every node", || {
        client.progress(20);
        (0..3).all(|node| files(&cluster, node, "log").len() <= 10 && files(&cluster, node, "state").len() <= 3)
    });
    client.finish();
    cluster.check_digests();
    assert!((0..3).all(|node| snapshot_of(&cluster, node) > 0), "every node took some");
}

/// Its peers have dropped the beginning of their logs: what the new disk lacks comes as a snapshot.
#[test]
fn a_wiped_node_comes_back_from_a_snapshot() {
    let mut cluster = small(0);
    let mut client = Checked::connect(&cluster);
    trimmed(&cluster, &mut client);
    let victim = (usize::from(cluster.wait_for_leader()) + 1) % 3;
    cluster.kill(victim);
    std::fs::remove_dir_all(cluster.data(victim)).expect("the node is dead");
    client.progress(500);
    cluster.run(victim);
    wait_for("the node to be sound", || {
        client.turn(true);
        cluster.status(victim).is_some_and(|status| status["sound"] == true)
    });
    assert!(snapshot_of(&cluster, victim) > 0, "it begins with a snapshot");
    client.progress(500);
    client.finish();
    cluster.check_digests();
    // And from its own files.
    cluster.kill(victim);
    cluster.run(victim);
    cluster.check_digests();
}

/// The newest snapshot has rotted: the one before it and the log take its place. Without any the node says what is missing.
#[test]
fn a_rotten_snapshot_is_passed_over_and_missing_ones_are_named() {
    let mut cluster = small(0);
    let mut client = Checked::connect(&cluster);
    trimmed(&cluster, &mut client);
    let victim = (usize::from(cluster.wait_for_leader()) + 1) % 3;
    wait_for("two snapshots", || {
        client.turn(true);
        files(&cluster, victim, "state").len() == 2
    });
    client.finish();
    cluster.kill(victim);
    let snapshots = files(&cluster, victim, "state");
    let newest = snapshots.last().expect("there are two or three");
    let mut bytes = std::fs::read(newest).expect("it is there");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(newest, bytes).expect("the node is down");
    cluster.run(victim);
    cluster.check_digests();
    cluster.kill(victim);
    for path in files(&cluster, victim, "state") {
        std::fs::remove_file(path).expect("the node is down");
    }
    let message = cluster.refusal(victim);
    assert!(message.contains("no snapshot that verifies") && message.contains("hint:"), "{message}");
}

/// An operator need not wait for the next one; a second one at the same place is refused with the reason.
#[test]
fn an_operator_asks_for_a_snapshot() {
    let cluster = Processes::start(1, DurabilityConfig::Durable);
    let mut client = Checked::connect(&cluster);
    client.progress(300);
    client.finish();
    let ask = || admin::snapshot(&cluster.addresses()[0], Duration::from_secs(2)).expect("the node answers");
    let answer = ask();
    assert_eq!(answer.code, 0, "{}", answer.text);
    wait_for("the snapshot", || snapshot_of(&cluster, 0) == answer.position.0);
    // The session's end may have been applied since.
    wait_for("nothing to be new", || {
        let again = ask();
        again.code != 0 && again.text.contains("nothing was applied")
    });
}
