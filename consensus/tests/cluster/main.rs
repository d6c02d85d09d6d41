//! Raft in a small deterministic network: scenarios, and a swarm of random ones.

mod acknowledgements;
mod bugs;
mod elections;
mod membership;
mod network;
mod node;
mod nonsense;
mod oracle;
mod reads;
mod recovery;
mod replication;
mod scenarios;
mod scenarios_members;
mod snapshots;
mod solo;
#[path = "../stage/mod.rs"]
mod stage;
mod swarm;
mod transfer;
mod votes;
