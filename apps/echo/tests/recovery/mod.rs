//! A quorum of processes is lost for good, and an operator makes a new cluster of what one node's directory holds.

use std::time::Duration;

use evershard::node::DurabilityConfig;
use evershard::node::salvage::SalvageError;
use evershard::node::salvage::files::{FilesError, Recovery, Survivor, best, write};
use evershard::operator::{self, MemberChange};
use evershard::protocol::NodeId;
use evershard::{Client, ClientConfig, ShardId};

use crate::Checked;
use crate::processes::{Processes, WAIT_MAX, wait_for};

/// The node that is left.
const SURVIVOR: usize = 1;

fn recovery(cluster: &Processes) -> Recovery {
    Recovery {
        old_cluster: "chaos".to_owned(),
        new_cluster: "phoenix".to_owned(),
        node: NodeId(1),
        address: cluster.addresses()[SURVIVOR].parse().expect("an address"),
        to: cluster.data(SURVIVOR).with_extension("new"),
        reason: "two of three burnt down".to_owned(),
        accept_loss: false,
    }
}

/// Commands that the service has counted.
fn count(cluster: &Processes) -> u64 {
    let mut config = ClientConfig::new([&cluster.addresses()[SURVIVOR]], ShardId(0));
    config.connect_timeout = WAIT_MAX;
    let mut client = Client::connect(&config).expect("it leads");
    let answer = client.query(b"").expect("it answers");
    u64::from_le_bytes(answer.payload.try_into().expect("eight bytes"))
}

/// What is below a directory: names and contents of all files but the lock.
fn content(path: &std::path::Path) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(path).expect("a directory").map(|entry| entry.expect("an entry").path()) {
        if entry.is_dir() {
            found.extend(content(&entry));
        } else if !entry.ends_with("lock") {
            found.push((entry.clone(), std::fs::read(&entry).expect("a file")));
        }
    }
    found.sort();
    found
}

/// Two of three are killed under load and never come back, the third is stopped. Nothing happens before the operator says
/// so; then all that the third held is there, the client that was connected goes on, and what is left of the others neither
/// gets in nor serves. One of them comes back with an empty disk.
#[test]
fn a_lost_quorum_is_recovered_and_the_lost_stay_out() {
    let mut cluster = Processes::start(3, DurabilityConfig::Durable);
    let mut client = Checked::connect(&cluster);
    client.progress(3000);
    // Nothing is under way, so that the survivor has everything that was acknowledged.
    while client.answered < client.sent {
        client.turn(false);
    }
    wait_for("the survivor to have everything", || {
        let status: Vec<_> = (0..3).filter_map(|node| cluster.status(node)).collect();
        let end = status.iter().filter_map(|status| status["appended"].as_u64()).max();
        status.len() == 3 && status[SURVIVOR]["durable"].as_u64() == end
    });
    cluster.kill(0);
    cluster.kill(2);
    let answered = client.answered;
    client.run_for(Duration::from_millis(500));
    assert_eq!(client.answered, answered, "one of three acknowledges nothing");
    let running = Survivor::open(&cluster.data(SURVIVOR)).err().expect("it runs");
    assert!(matches!(running, FilesError::Lock { .. }), "{running}");
    cluster.kill(SURVIVOR);

    refusals(&cluster);
    let before = content(&cluster.data(SURVIVOR));
    let recovery = recovery(&cluster);
    let mut survivors = vec![Survivor::open(&cluster.data(SURVIVOR)).expect("it is stopped")];
    assert_eq!(best(&survivors, 0), Some(0));
    let written = write(&mut survivors, &recovery).expect("nothing is in doubt");
    assert!(written[0].copied.note.kept >= written[0].copied.note.committed);
    drop(survivors);
    assert!(content(&cluster.data(SURVIVOR)) == before, "the survivor's own directory is not changed");

    let (old, new) = (cluster.data(SURVIVOR).display().to_string(), recovery.to.display().to_string());
    let found_at = cluster.addresses()[SURVIVOR].clone();
    let alone = |text: &str| {
        let (front, _) = text.split_once("[[nodes]]").expect("nodes come last");
        let front = front.replace("\"chaos\"", "\"phoenix\"").replace(&old, &new);
        format!("{front}[[nodes]]\nid = 1\naddress = \"{found_at}\"\n")
    };
    cluster.edit_config(SURVIVOR, alone);
    cluster.run(SURVIVOR);
    client.progress(500);
    assert!(count(&cluster) >= client.answered, "every command that was acknowledged is there");
    let told = cluster.status(SURVIVOR).expect("it runs")["recovery"].clone();
    assert_eq!((told["survivor"].as_u64(), told["reason"].as_str()), (Some(1), Some("two of three burnt down")));

    stay_out(&mut cluster, &mut client);
    let sent = client.sent;
    client.finish();
    assert_eq!(count(&cluster), sent, "each command once");
    cluster.check_digests();
}

/// What must not be done is not done, and leaves nothing.
fn refusals(cluster: &Processes) {
    let survivor = || Survivor::open(&cluster.data(SURVIVOR)).expect("it is stopped");
    let good = recovery(cluster);
    let same = Recovery { new_cluster: "chaos".to_owned(), ..good.clone() };
    let other = Recovery { old_cluster: "another".to_owned(), ..good.clone() };
    for (wrong, word) in [(same, "the identity of the old one"), (other, "belongs to cluster")] {
        let refused = write(&mut [survivor()], &wrong).expect_err("it must be refused").to_string();
        assert!(refused.contains(word) && refused.contains("hint:"), "{refused}");
    }
    let there = Recovery { to: cluster.data(0), ..good.clone() };
    let refused = write(&mut [survivor()], &there).expect_err("it must be refused");
    assert!(matches!(refused, FilesError::Exists(_)), "{refused}");
    let two = [0, SURVIVOR].map(|node| Survivor::open(&cluster.data(node)).expect("it is stopped"));
    let refused = write(&mut { two }, &good).expect_err("two of three are a quorum");
    assert!(matches!(&refused, FilesError::Shard { source: SalvageError::QuorumThere(_), .. }), "{refused}");
    assert!(!good.to.exists() && !good.to.with_extension("new.unfinished").exists(), "nothing is left of it");
}

/// Old members, with their old files and with new ones, while the new cluster works.
fn stay_out(cluster: &mut Processes, client: &mut Checked) {
    cluster.run(2);
    client.progress(300);
    wait_for("the old member to campaign in vain", || {
        client.turn(true);
        cluster.status(2).is_some_and(|status| status["role"] == "candidate" || status["leader"].is_null())
    });
    client.run_for(Duration::from_millis(500));
    let status = cluster.status(2).expect("it runs");
    assert!(status["role"] != "leader" && status["leader"].is_null(), "it neither leads nor follows: {status}");
    cluster.kill(2);
    let old = cluster.data(2);
    cluster.edit_config(2, |text| text.replace("\"chaos\"", "\"phoenix\""));
    let message = cluster.refusal(2);
    assert!(message.contains("belong") && message.contains("node 2"), "files of another cluster: {message}");

    std::fs::remove_dir_all(old).expect("the node is dead");
    cluster.edit_config(2, |text| format!("join = true\n{text}"));
    cluster.run(2);
    let found_at = cluster.addresses()[2].clone();
    for change in [MemberChange::Add(found_at), MemberChange::Promote] {
        let outcome = operator::change_member(cluster.addresses(), 2, &change, WAIT_MAX, &mut |_, _| {});
        outcome.unwrap_or_else(|error| panic!("{change:?}: {error}"));
        client.progress(300);
    }
}
