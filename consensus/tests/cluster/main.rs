//! Raft in a small deterministic network: scenarios, and a swarm of random ones.

mod acknowledgements;
mod elections;
mod network;
mod node;
mod nonsense;
mod oracle;
mod recovery;
mod replication;
mod solo;
mod swarm;
mod transfer;
mod votes;
