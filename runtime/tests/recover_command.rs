//! `evershard recover` as an operator calls it, on the directories of nodes that ran in this process.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use evershard::client::{ClientError, admin};
use evershard::node::{NodeAddress, NodeConfig};
use evershard::operator;
use evershard::{
    Client, ClientConfig, Context, Digest, Node, Service, ShardId, SnapshotError, SnapshotReader, SnapshotWriter,
    free_addresses,
};

const SHARDS: u16 = 2;

/// Counts.
#[derive(Default)]
struct Counter(u64);

impl Service for Counter {
    fn apply(&mut self, context: &mut Context<'_>, _: &[u8]) {
        self.0 += 1;
        context.reply(&self.0.to_le_bytes()).expect("eight bytes fit a reply");
    }
    fn digest(&self) -> Digest {
        Digest::of(&self.0.to_le_bytes())
    }
    fn save(&self, out: &mut dyn SnapshotWriter) -> Result<(), SnapshotError> {
        out.write(&self.0.to_le_bytes())
    }
    fn restore(&mut self, source: &mut dyn SnapshotReader) -> Result<(), SnapshotError> {
        let mut bytes = [0; 8];
        source.read_exact(&mut bytes)?;
        self.0 = u64::from_le_bytes(bytes);
        Ok(())
    }
}

fn config(cluster: &str, node: u8, data: PathBuf, named: &[u8], addresses: &[String]) -> NodeConfig {
    let address = |id: u8| NodeAddress { id, address: addresses[usize::from(u16::from(id) * SHARDS)].clone() };
    let mut config = NodeConfig::new(cluster, node, data, SHARDS, named.iter().map(|id| address(*id)).collect());
    config.segment_size_mib = 1;
    config
}

fn start(config: &NodeConfig) -> Node {
    Node::start(config, |_| Counter::default()).expect("it starts")
}

/// One more command to each shard; what was counted.
fn count(addresses: impl Fn(u16) -> Vec<String>) -> Vec<u64> {
    let call = |shard| {
        let mut client = Client::connect(&ClientConfig::new(addresses(shard), ShardId(shard))).expect("it leads");
        let reply = client.call(b"one more").expect("it answers");
        u64::from_le_bytes(reply.payload.try_into().expect("eight bytes"))
    };
    (0..SHARDS).map(call).collect()
}

/// Waits until every replica has everything on disk: which two survive must not matter.
fn await_alike(address: &str) {
    let until = Instant::now() + Duration::from_secs(30);
    loop {
        let replicas = operator::cluster_status(&[address.to_owned()], Duration::from_secs(1)).expect("nodes answer");
        let states: Vec<_> = replicas.iter().filter_map(|replica| replica.state.as_ref()).collect();
        let end = |shard: u16| states.iter().filter(|state| state.shard == shard).map(|state| state.appended).max();
        if states.len() == 5 * usize::from(SHARDS) && states.iter().all(|state| Some(state.durable) == end(state.shard))
        {
            return;
        }
        assert!(Instant::now() < until, "the replicas do not become alike");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Has a replica take a snapshot.
fn snapshot(address: &str) {
    let wait = Duration::from_secs(1);
    let answer = admin::snapshot(address, wait).expect("it answers");
    assert!(answer.code <= 1, "{}", answer.text);
    let until = Instant::now() + Duration::from_secs(30);
    let has_one = || {
        let status: serde_json::Value = serde_json::from_str(&admin::status(address, wait)?).expect("status is JSON");
        Ok::<bool, ClientError>(status["snapshot"].as_u64() > Some(0))
    };
    while !has_one().expect("it answers") {
        assert!(Instant::now() < until, "no snapshot is taken");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn evershard(step: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_evershard"));
    command.args(["recover", step]).args(arguments).output().expect("it was built")
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Three nodes of five stop and never come back. Of the two that are left the operator makes a new cluster, each shard from
/// the better log.
#[test]
fn two_of_five_directories_become_a_cluster() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let data = |name: &str| directory.path().join(name);
    let addresses = free_addresses(5 * SHARDS).expect("free addresses");
    let old = |node: u8| config("old", node, data(&format!("node-{node}")), &[0, 1, 2, 3, 4], &addresses);
    let mut nodes: Vec<Node> = (0..5).map(|node| start(&old(node))).collect();
    let address = |node: u16, shard: u16| addresses[usize::from(node * SHARDS + shard)].clone();
    for expected in 1..=3 {
        assert_eq!(count(|shard| (0..5).map(|node| address(node, shard)).collect()), [expected; 2]);
    }
    await_alike(&address(0, 0));
    [1, 3].iter().for_each(|node| snapshot(&address(*node, 0)));
    let of = |node: u8| data(&format!("node-{node}")).display().to_string();
    let (one, three) = (of(1), of(3));
    let refused = evershard("inspect", &["--data", &one]);
    assert!(!refused.status.success() && said(&refused).contains("in use"), "{}", said(&refused));
    nodes.clear();

    let all: Vec<String> = (0..5).flat_map(|node| ["--data".to_owned(), of(node)]).collect();
    let text = said(&evershard("inspect", &all.iter().map(String::as_str).collect::<Vec<_>>()));
    assert_eq!(text.matches("are a quorum of voters=(0 1 2 3 4)").count(), 2, "{text}");
    let text = said(&evershard("inspect", &["--data", &one, "--data", &three]));
    for part in ["shard 0", "shard 1", "node 1", "node 3", "voters=(0 1 2 3 4)", "best log: "] {
        assert!(text.contains(part), "`{part}` is missing in\n{text}");
    }

    let to = data("new").display().to_string();
    let found_at = address(3, 0);
    let write = |new: &str| {
        let names = ["--old-cluster", "old", "--new-cluster", new, "--node", "3", "--address", &found_at];
        let rest = ["--data", &one, "--data", &three, "--to", &to, "--reason", "a fire"];
        evershard("write", &[&names[..], &rest[..]].concat())
    };
    let refused = write("old");
    assert!(!refused.status.success() && said(&refused).contains("hint:"), "{}", said(&refused));
    assert!(!Path::new(&to).exists(), "nothing is made of a refusal");
    std::fs::create_dir(data("new.unfinished")).expect("the directory is ours");
    let refused = write("new");
    assert!(!refused.status.success() && said(&refused).contains("was interrupted"), "{}", said(&refused));
    std::fs::remove_dir(data("new.unfinished")).expect("nothing was put into it");
    let done = write("new");
    assert!(done.status.success() && said(&done).contains("LOST"), "{}", said(&done));
    assert!(!write("new").status.success(), "nothing is overwritten");

    let founder = start(&config("new", 3, data("new"), &[3], &addresses));
    assert_eq!(count(|shard| vec![address(3, shard)]), [4; 2], "it goes on from what the two held");
    let snapshots = |shard: &str| {
        let names = std::fs::read_dir(data("new").join(shard)).expect("the new directory");
        names
            .filter(|entry| entry.as_ref().is_ok_and(|entry| entry.path().extension() == Some("state".as_ref())))
            .count()
    };
    assert_eq!([snapshots("shard-0"), snapshots("shard-1")], [1, 0], "shard 0 had one");
    let wrong = config("new", 1, data("node-1"), &[1, 3], &addresses);
    let refused = Node::start(&wrong, |_| Counter::default()).err().expect("another cluster's files").to_string();
    assert!(refused.contains("belong"), "{refused}");
    drop(founder);
}
