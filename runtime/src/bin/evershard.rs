//! `evershard`: what an operator asks of a running cluster, and does for one that will never run again.

#[path = "evershard/recover.rs"]
mod recover;

use std::collections::BTreeMap;
use std::net::ToSocketAddrs;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Args, Parser, Subcommand};

use evershard::client::admin;
use evershard::operator::{self, MemberChange, RecoveryRecord, ReplicaState, ReplicaStatus, ShardDigests};

/// Looks at a running Evershard cluster, moves its leaders, changes its members; recovers from the loss of a quorum.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Shows every replica of every shard. Exit status 0: every shard has a leader and nothing is in trouble; 1: not.
    Status {
        #[command(flatten)]
        reach: Reach,
        /// Print JSON.
        #[arg(long)]
        json: bool,
        /// Have every replica compute its state digest at one position, and compare.
        #[arg(long)]
        digest: bool,
    },
    /// Hands the leadership of a shard over to another node.
    Transfer {
        #[command(flatten)]
        reach: Reach,
        /// The shard.
        #[arg(long)]
        shard: u16,
        /// The node that shall lead.
        #[arg(long)]
        to: u8,
    },
    /// Has the replicas of a shard take a snapshot now, in the background, instead of when it is due.
    Snapshot {
        #[command(flatten)]
        reach: Reach,
        /// The shard.
        #[arg(long)]
        shard: u16,
        /// Only the replica on this node.
        #[arg(long)]
        node: Option<u8>,
    },
    /// Changes the members of the cluster, shard by shard: add a node, promote it when it has caught up, remove one.
    Member {
        #[command(subcommand)]
        change: Member,
    },
    /// For a cluster that has lost a quorum for good: makes a new cluster of what a survivor holds. Offline.
    Recover {
        #[command(subcommand)]
        step: recover::Step,
    },
}

#[derive(Subcommand)]
enum Member {
    /// The node takes over the log of every shard, without a vote. It is started with `join = true`.
    Add {
        #[command(flatten)]
        reach: Reach,
        /// Its id.
        #[arg(long)]
        node: u8,
        /// Where its shard 0 is found, `host:port`.
        #[arg(long, value_parser = host_and_port)]
        address: String,
    },
    /// The learner becomes a voter, as soon as it has caught up.
    Promote {
        #[command(flatten)]
        reach: Reach,
        /// Its id.
        #[arg(long)]
        node: u8,
    },
    /// The node leaves every shard. If it leads one, it hands over.
    Remove {
        #[command(flatten)]
        reach: Reach,
        /// Its id.
        #[arg(long)]
        node: u8,
    },
}

#[derive(Args)]
struct Reach {
    /// Addresses of any shards on any nodes, `host:port`, separated by commas.
    #[arg(long, value_delimiter = ',', required = true, value_parser = host_and_port)]
    cluster: Vec<String>,
    /// Give up after this many milliseconds.
    #[arg(long, default_value_t = 5000, value_parser = clap::value_parser!(u64).range(1..))]
    timeout_ms: u64,
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {}", evershard::node::describe(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Status { reach, json, digest } => show_status(&reach, json, digest),
        Command::Transfer { reach, shard, to } => {
            let timeout = Duration::from_millis(reach.timeout_ms);
            let took = operator::transfer(&reach.cluster, shard, to, timeout)?;
            if took.is_zero() {
                println!("node {to} leads shard {shard} already");
            } else {
                println!("node {to} leads shard {shard} after {:.1} ms", took.as_secs_f64() * 1e3);
            }
            Ok(ExitCode::SUCCESS)
        }
        Command::Snapshot { reach, shard, node } => ask_for_snapshots(&reach, shard, node),
        Command::Member { change } => change_member(change),
        Command::Recover { step } => recover::run(step),
    }
}

fn ask_for_snapshots(reach: &Reach, shard: u16, node: Option<u8>) -> Result<ExitCode> {
    let timeout = Duration::from_millis(reach.timeout_ms);
    let mut replicas = operator::cluster_status(&reach.cluster, timeout.min(QUESTION_MAX))?;
    replicas.retain(|replica| replica.shard == shard && node.is_none_or(|node| replica.node == node));
    if replicas.is_empty() {
        bail!("no such replica: the cluster's shards and nodes are shown by `evershard status`");
    }
    let mut begun = true;
    for replica in replicas {
        let said = admin::snapshot(&replica.address, timeout).map(|answer| (answer.code == 0, answer.text));
        let (good, text) = said.unwrap_or_else(|error| (false, error.to_string()));
        println!("node {}: {text}", replica.node);
        begun &= good;
    }
    Ok(if begun { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn change_member(change: Member) -> Result<ExitCode> {
    let (reach, node, change) = match change {
        Member::Add { reach, node, address } => (reach, node, MemberChange::Add(resolve(&address)?)),
        Member::Promote { reach, node } => (reach, node, MemberChange::Promote),
        Member::Remove { reach, node } => (reach, node, MemberChange::Remove),
    };
    let timeout = Duration::from_millis(reach.timeout_ms);
    operator::change_member(&reach.cluster, node, &change, timeout, &mut |shard, members| {
        println!("shard {shard}: {members}");
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Nodes are told an address, not a name: they do not look names up while they serve.
fn resolve(address: &str) -> Result<String> {
    let mut found = address.to_socket_addrs().with_context(|| format!("cannot look up `{address}`"))?;
    let first = found.next().with_context(|| format!("`{address}` has no address"))?;
    Ok(first.to_string())
}

fn show_status(reach: &Reach, json: bool, digest: bool) -> Result<ExitCode> {
    let timeout = Duration::from_millis(reach.timeout_ms);
    let digests = if digest { operator::digests(&reach.cluster, timeout)? } else { Vec::new() };
    let replicas = operator::cluster_status(&reach.cluster, timeout.min(QUESTION_MAX))?;
    let shards = operator::by_shard(replicas);
    let healthy = shards.values().all(|replicas| is_healthy(replicas)) && digests.iter().all(ShardDigests::equal);
    if json {
        let replicas: Vec<&ReplicaStatus> = shards.values().flatten().collect();
        let whole = serde_json::json!({ "healthy": healthy, "replicas": replicas, "digests": digests });
        println!("{}", serde_json::to_string_pretty(&whole)?);
    } else {
        print_shards(&shards);
        print_digests(&digests);
    }
    Ok(if healthy { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A replica that cannot be asked is trouble too: the shard lives, but has less to lose than it should.
fn is_healthy(replicas: &[ReplicaStatus]) -> bool {
    let well = |replica: &ReplicaStatus| replica.state.as_ref().is_some_and(|state| state.trouble.is_empty());
    operator::leader_of(replicas).is_some() && replicas.iter().all(well)
}

fn print_shards(shards: &BTreeMap<u16, Vec<ReplicaStatus>>) {
    for (shard, replicas) in shards {
        let leader = operator::leader_of(replicas);
        match leader {
            Some(leader) => println!("shard {shard}: led by node {} at {}", leader.node, leader.address),
            None => println!("shard {shard}: NO LEADER"),
        }
        if let Some(state) = leader.and_then(|leader| leader.state.as_ref()) {
            println!("  {}", operator::describe_members(state));
            if let Some(RecoveryRecord { position, old_cluster, survivor, kept, reason, .. }) = &state.recovery {
                println!(
                    "  recovered at {position} from node {survivor} of cluster {old_cluster}, kept up to {kept}: {reason}"
                );
            }
        }
        println!(
            "  {:>4}  {:<9}  {:>6}  {:>12}  {:>12}  {:>12}  {:>12}  {:>12}  {:>10}  {:>8}  {:<5}  digest",
            "node",
            "role",
            "term",
            "snapshot",
            "applied",
            "committed",
            "durable",
            "appended",
            "lag",
            "sessions",
            "sound"
        );
        let end = leader.and_then(|leader| leader.state.as_ref()).map(|state| state.appended);
        for replica in replicas {
            match &replica.state {
                Some(state) => print_replica(state, end),
                None => {
                    println!("  {:>4}  unreachable at {}", replica.node, replica.address);
                    println!("        ! {}", replica.unreachable.as_deref().unwrap_or("no answer"));
                }
            }
        }
    }
}

fn print_replica(state: &ReplicaState, leader_end: Option<u64>) {
    let lag = leader_end.map_or_else(|| "?".to_owned(), |end| end.saturating_sub(state.appended).to_string());
    let digest = state.digest.as_ref();
    let digest = digest.map_or_else(|| "-".to_owned(), |digest| format!("{} at {}", digest.digest, digest.position));
    println!(
        "  {:>4}  {:<9}  {:>6}  {:>12}  {:>12}  {:>12}  {:>12}  {:>12}  {:>10}  {:>8}  {:<5}  {digest}",
        state.node,
        state.role,
        state.term,
        state.snapshot,
        state.applied,
        state.committed,
        state.durable,
        state.appended,
        lag,
        state.sessions,
        if state.sound { "yes" } else { "no" },
    );
    for trouble in &state.trouble {
        println!("        ! {trouble}");
    }
}

fn print_digests(digests: &[ShardDigests]) {
    for shard in digests {
        let ShardDigests { shard: number, position, replicas, unreachable } = shard;
        if shard.equal() {
            println!("shard {number}: {} replicas have EQUAL digests at position {position}", replicas.len());
        } else {
            println!("shard {number}: digests DIFFER at position {position}: {replicas:?} (node, digest)");
        }
        if !unreachable.is_empty() {
            println!("shard {number}: not compared, because unreachable: nodes {unreachable:?}");
        }
    }
}

fn host_and_port(text: &str) -> Result<String, String> {
    let port = text.rsplit_once(':').filter(|(host, _)| !host.is_empty()).map(|(_, port)| port.parse::<u16>());
    match port {
        Some(Ok(_)) => Ok(text.to_owned()),
        _ => Err("write it like 10.0.0.1:7000".to_owned()),
    }
}

/// One question takes at most this.
const QUESTION_MAX: Duration = Duration::from_secs(1);
