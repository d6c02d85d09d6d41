//! Real processes on loopback: leaders killed under load, leadership moved, wrong starts refused, hostile bytes.

mod members;
mod processes;
mod recovery;
mod repair;
mod snapshots;

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use evershard::client::{ClientEvent, SendError, admin};
use evershard::node::DurabilityConfig;
use evershard::protocol::client::{Hello, QueryStatus, ReplyStatus, Request};
use evershard::protocol::frame::{Block, put, size_of_frame};
use evershard::protocol::{ClusterId, Incarnation, NodeId, Term, peer};
use evershard::{Client, ClientConfig, ShardId};

use self::processes::{Processes, Random, WAIT_MAX, wait_for};

/// Requests in flight.
const WINDOW_LEN: usize = 256;

/// A client that sends counters and checks that each comes back once, in order.
struct Checked {
    client: Client,
    sent: u64,
    expected: VecDeque<u64>,
    answered: u64,
}

impl Checked {
    fn connect(cluster: &Processes) -> Self {
        let mut config = ClientConfig::new(cluster.addresses(), ShardId(0));
        config.connect_timeout = WAIT_MAX;
        config.window_len = WINDOW_LEN;
        let client = Client::connect(&config).expect("a leader is elected");
        Self { client, sent: 0, expected: VecDeque::new(), answered: 0 }
    }

    /// Fills the window if wanted, and takes what has come.
    fn turn(&mut self, fill: bool) {
        if fill {
            self.fill();
        }
        let (expected, answered) = (&mut self.expected, &mut self.answered);
        let check = &mut |event: ClientEvent<'_>| {
            if let ClientEvent::Reply { request, status, payload: reply, .. } = event {
                let wanted = expected.pop_front().expect("a reply without a request");
                assert_eq!(status, ReplyStatus::Applied, "{request}");
                assert_eq!(request.0, wanted + 1, "replies come in order, each once");
                assert_eq!(reply, payload(wanted), "{request} got another's reply");
                *answered += 1;
            }
        };
        self.client.poll(Some(Duration::from_millis(20)), check).expect("the session survives");
    }

    fn fill(&mut self) {
        loop {
            match self.client.try_send(&payload(self.sent)) {
                Ok(_) => {
                    self.expected.push_back(self.sent);
                    self.sent += 1;
                }
                Err(SendError::WindowFull | SendError::QueueFull) => return,
                Err(error) => panic!("request {}: {error}", self.sent),
            }
        }
    }

    fn run_for(&mut self, time: Duration) {
        let until = Instant::now() + time;
        while Instant::now() < until {
            self.turn(true);
        }
    }

    /// Until `count` more requests are answered.
    fn progress(&mut self, count: u64) {
        let (until, wanted) = (Instant::now() + WAIT_MAX, self.answered + count);
        while self.answered < wanted {
            self.turn(true);
            assert!(Instant::now() < until, "no progress: {} answered, {:?}", self.answered, self.client.trouble());
        }
    }

    fn finish(mut self) -> u64 {
        let until = Instant::now() + WAIT_MAX;
        while !self.expected.is_empty() {
            self.turn(false);
            assert!(Instant::now() < until, "{} unanswered, {:?}", self.expected.len(), self.client.trouble());
        }
        self.client.close().expect("the cluster is up");
        self.answered
    }
}

/// The counter, and as many more bytes as it says, so that records have different sizes.
fn payload(counter: u64) -> Vec<u8> {
    let mut bytes = counter.to_le_bytes().to_vec();
    bytes.resize(8 + usize::try_from(counter % 57).expect("small"), counter.to_le_bytes()[0]);
    bytes
}

fn chaos(durability: DurabilityConfig, seed: u64) {
    let mut random = Random(seed);
    let mut cluster = Processes::start(3, durability);
    let mut client = Checked::connect(&cluster);
    client.progress(1000);
    let until = Instant::now() + Duration::from_secs(12);
    let mut rounds = 0;
    while Instant::now() < until {
        let leader = usize::from(cluster.wait_for_leader());
        // Two times in three the leader, otherwise a follower.
        let first = if random.below(3) > 0 { leader } else { (leader + 1 + random.below(2)) % 3 };
        cluster.kill(first);
        client.run_for(Duration::from_millis(50 + random.below(500) as u64));
        // In replicated mode two at a time may lose what was acknowledged: that is the promise.
        if durability == DurabilityConfig::Durable && random.below(3) == 0 {
            let second = (first + 1 + random.below(2)) % 3;
            cluster.kill(second);
            client.run_for(Duration::from_millis(20 + random.below(200) as u64));
            cluster.run(second);
        }
        cluster.run(first);
        client.progress(500);
        wait_for("all nodes to be sound", || {
            client.turn(true);
            (0..3).all(|node| cluster.status(node).is_some_and(|status| status["sound"] == true))
        });
        rounds += 1;
    }
    let answered = client.finish();
    cluster.check_digests();
    println!("seed {seed}: {rounds} rounds, {answered} requests, every reply right");
    assert!(rounds >= 3, "only {rounds} rounds in the time");
}

#[test]
fn every_reply_is_right_while_nodes_are_killed_durable() {
    chaos(DurabilityConfig::Durable, 7);
}

#[test]
fn every_reply_is_right_while_nodes_are_killed_replicated() {
    chaos(DurabilityConfig::Replicated, 11);
}

#[test]
fn a_transfer_under_load_is_not_noticed_by_the_client() {
    let cluster = Processes::start(3, DurabilityConfig::Durable);
    let mut client = Checked::connect(&cluster);
    // A replica of a new cluster cannot tell it from a disk that was lost: its word counts after a while.
    wait_for("all nodes to be sound", || {
        client.turn(true);
        (0..3).all(|node| cluster.status(node).is_some_and(|status| status["sound"] == true))
    });
    for _ in 0..4 {
        client.progress(500);
        let leader = cluster.wait_for_leader();
        let to = (leader + 1) % 3;
        let answer = admin::transfer(&cluster.addresses()[usize::from(leader)], NodeId(to), Duration::from_secs(2));
        let answer = answer.expect("the leader answers");
        assert_eq!(answer.code, 0, "{}", answer.text);
        // Leadership may go on to the preferred node from there; that it has left is what was asked for.
        wait_for("the leader to have handed over", || {
            client.turn(true);
            cluster.status(usize::from(leader)).is_some_and(|status| status["role"] != "leader")
        });
    }
    client.progress(500);
    client.finish();
    cluster.check_digests();
}

/// A question sees every command that was acknowledged before it, whoever leads, with and without a lease.
#[test]
fn questions_see_all_that_was_acknowledged() {
    for lease_ms in [0, 100] {
        let mut cluster = Processes::start(3, DurabilityConfig::Durable);
        cluster.wait_for_leader();
        for node in 0..3 {
            cluster.kill(node);
            cluster.edit_config(node, |text| format!("lease_ms = {lease_ms}\n{text}"));
        }
        for node in 0..3 {
            cluster.run(node);
        }
        let mut config = ClientConfig::new(cluster.addresses(), ShardId(0));
        config.connect_timeout = WAIT_MAX;
        config.request_timeout = WAIT_MAX;
        let mut writer = Client::connect(&config).expect("a leader is elected");
        let mut reader = Client::connect(&config).expect("a leader is elected");
        for round in 0..600_u64 {
            if round % 200 == 100 {
                cluster.kill(usize::from(cluster.wait_for_leader()));
            }
            writer.call(&payload(round)).expect("the session survives");
            let answer = reader.query(b"").expect("the session survives");
            assert_eq!(answer.status, QueryStatus::Answered);
            let count = u64::from_le_bytes(answer.payload.try_into().expect("eight bytes"));
            assert_eq!(count, round + 1, "stale, or ahead of what was asked for");
            if round % 200 == 150 {
                (0..3)
                    .filter(|node| !cluster.is_running(*node))
                    .collect::<Vec<_>>()
                    .into_iter()
                    .for_each(|node| cluster.run(node));
            }
        }
    }
}

#[test]
fn a_data_directory_of_another_node_is_refused() {
    let mut cluster = Processes::start(3, DurabilityConfig::Durable);
    cluster.wait_for_leader();
    cluster.kill(1);
    cluster.kill(2);
    std::fs::remove_dir_all(cluster.data(2)).expect("node 2 is dead");
    std::fs::rename(cluster.data(1), cluster.data(2)).expect("same file system");
    let message = cluster.refusal(2);
    assert!(message.contains("node 1") && message.contains("node 2"), "both must be named: {message}");
}

#[test]
fn a_directory_of_another_shard_is_refused() {
    let mut cluster = Processes::with_shards(1, 2, DurabilityConfig::Durable);
    cluster.wait_for_leader();
    cluster.kill(0);
    let data = cluster.data(0);
    std::fs::remove_dir_all(data.join("shard-1")).expect("the node is dead");
    std::fs::rename(data.join("shard-0"), data.join("shard-1")).expect("same file system");
    let message = cluster.refusal(0);
    assert!(message.contains("shard 0") && message.contains("shard 1"), "both must be named: {message}");
}

#[test]
fn a_second_process_on_a_data_directory_is_refused_until_the_first_is_gone() {
    let mut cluster = Processes::start(1, DurabilityConfig::Durable);
    cluster.wait_for_leader();
    let message = cluster.refusal(0);
    assert!(message.contains("in use") && message.contains("hint:"), "{message}");
    cluster.kill(0);
    cluster.run(0);
    cluster.wait_for_leader();
}

#[test]
fn a_misspelt_key_is_refused_with_the_nearest() {
    let mut cluster = Processes::start(1, DurabilityConfig::Durable);
    cluster.kill(0);
    cluster.edit_config(0, |text| text.replace("durability", "durabilty"));
    let message = cluster.refusal(0);
    assert!(message.contains("durabilty") && message.contains("did you mean `durability`?"), "{message}");
}

#[test]
fn hostile_bytes_disturb_nobody() {
    let mut random = Random(5);
    let mut cluster = Processes::start(3, DurabilityConfig::Durable);
    let mut client = Checked::connect(&cluster);
    let leader = usize::from(cluster.wait_for_leader());
    for round in 0..200 {
        let node = if round % 4 == 0 { (leader + 1) % 3 } else { leader };
        throw(&cluster.addresses()[node], &hostile(round, &mut random));
        client.progress(20);
        assert!(cluster.is_running(node), "node {node} ended by hostile bytes of kind {}", round % KINDS);
    }
    client.finish();
    cluster.check_digests();
}

const KINDS: usize = 8;

fn hostile(round: usize, random: &mut Random) -> Vec<u8> {
    match round % KINDS {
        0 => random.bytes(1 + random.clone().below(4000)),
        1 => u32::MAX.to_le_bytes().to_vec(),
        2 => [0; 64].to_vec(),
        3 => {
            let mut bytes = frame(&hello(), &[]);
            bytes.truncate(bytes.len() - 1 - random.below(40));
            bytes
        }
        4 => {
            // A header with every number right but the checksum, then garbage.
            let mut bytes = frame(&Request { request: 1.into(), first_unanswered: 1.into() }, &random.bytes(100));
            bytes[4] ^= 0x55;
            bytes.extend(random.bytes(500));
            bytes
        }
        5 => frame(&Request { request: u64::MAX.into(), first_unanswered: u64::MAX.into() }, &random.bytes(10)),
        6 => {
            let mut bytes = frame(&hello(), &[]);
            bytes.extend(frame(&Request { request: 99.into(), first_unanswered: 98.into() }, &[]));
            bytes.extend(random.bytes(300));
            bytes
        }
        _ => {
            let hello = peer::Hello {
                protocol_min: peer::PROTOCOL_MIN,
                protocol_max: peer::PROTOCOL_MAX,
                shard: ShardId(0),
                from: NodeId(2),
                to: NodeId(0),
                cluster: ClusterId::of_name("another"),
                incarnation: Incarnation(u64::MAX),
                heard: peer::Heard::default(),
                term: Term(u64::MAX),
            };
            let mut bytes = Vec::with_capacity(1024);
            peer::put_hello(&mut bytes, &hello).expect("fits");
            bytes.extend(random.bytes(100));
            bytes
        }
    }
}

fn hello() -> Hello {
    Hello {
        protocol_min: 1.into(),
        protocol_max: 1.into(),
        shard: 0.into(),
        padding: [0; 2],
        features: u64::MAX.into(),
        cluster: 0.into(),
        session: 12_345.into(),
        token: 1.into(),
        first_unanswered: u64::MAX.into(),
    }
}

fn frame<B: Block>(block: &B, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(size_of_frame::<B>(payload.len()));
    put(&mut bytes, block, payload).expect("the capacity was computed");
    bytes
}

/// Sends the bytes and waits for the node to close, briefly: it may as well wait for more.
fn throw(address: &str, bytes: &[u8]) {
    let mut stream = TcpStream::connect(address).expect("the node listens");
    stream.set_read_timeout(Some(Duration::from_millis(20))).expect("not zero");
    // The node may close before it has everything.
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(Shutdown::Write);
    let _ = stream.read(&mut [0; 4096]);
}
