//! What an operator sees of one replica.

use evershard_consensus::{Durability, Role, Standing};
use evershard_protocol::NodeSet;
use evershard_service::Service;
use serde::Serialize;

use crate::core::Core;
use crate::replica::Recovery;

/// One replica's state, as JSON on the wire. Positions are byte offsets in the shard's log.
#[derive(Serialize)]
struct Status<'a> {
    /// Name of the service.
    service: &'a str,
    service_version: u32,
    release: &'static str,
    node: u8,
    shard: u16,
    role: &'static str,
    term: u64,
    leader: Option<u8>,
    durability: &'static str,
    /// The configuration in force: who votes, who votes as well until a joint configuration is left, who only follows.
    voters: Vec<u8>,
    outgoing: Vec<u8>,
    learners: Vec<u8>,
    /// Where the record of that configuration ends.
    membership: u64,
    /// False while this replica's word does not count (see ARCHITECTURE.md, "Recovering").
    sound: bool,
    snapshot: u64,
    applied: u64,
    committed: u64,
    durable: u64,
    appended: u64,
    /// Leader: transfer under way to this node.
    transfer_to: Option<u8>,
    /// The last digest record applied: position and digest.
    digest: Option<DigestStatus>,
    /// The last recovery by an operator that this replica has applied since its start.
    recovery: Option<RecoveryStatus<'a>>,
    /// What keeps this replica from working, in words.
    trouble: Vec<String>,
    sessions: usize,
    commands_sequenced: u64,
    records_applied: u64,
    connections_malformed: u64,
    busy_told: u64,
    commands_too_large: u64,
    clients_slow: u64,
    /// Blocks of the log that do not read back and are being repaired.
    holes: usize,
    blocks_repaired: u64,
    repairs_refused: u64,
    /// Leader: how far the others are.
    peers: Vec<PeerStatus>,
    /// Where this shard is found on each node.
    addresses: Vec<AddressStatus<'a>>,
    shards: u16,
}

#[derive(Serialize)]
struct DigestStatus {
    position: u64,
    digest: String,
}

#[derive(Serialize)]
struct RecoveryStatus<'a> {
    /// Where the audit record ends.
    position: u64,
    old_cluster: String,
    survivor: u8,
    kept: u64,
    committed: u64,
    loss_accepted: bool,
    /// Nanoseconds since the epoch.
    timestamp: u64,
    reason: &'a str,
}

#[derive(Serialize)]
struct PeerStatus {
    node: u8,
    connected: bool,
    sound: bool,
    received: u64,
    durable: u64,
    /// Bytes of the leader's log it has not acknowledged.
    lag: u64,
}

#[derive(Serialize)]
struct AddressStatus<'a> {
    node: u8,
    address: &'a str,
}

impl<S: Service> Core<S> {
    /// The state as JSON.
    pub(crate) fn status_json(&self) -> String {
        let (service, service_version) = self.replica.describe();
        let raft = &self.raft;
        let leads = raft.role() == Role::Leader;
        let status = Status {
            service,
            service_version,
            release: env!("CARGO_PKG_VERSION"),
            node: self.identity.node.0,
            shard: self.identity.shard.0,
            role: role_name(raft.role()),
            term: raft.term().0,
            leader: raft.leader().map(|node| node.0),
            durability: match self.config.durability {
                Durability::Durable => "durable",
                Durability::Replicated => "replicated",
            },
            voters: ids(raft.membership().voters),
            outgoing: ids(raft.membership().outgoing),
            learners: ids(raft.membership().learners),
            membership: raft.membership_position().0,
            sound: raft.standing() == Standing::Sound,
            snapshot: self.snapshots.newest().map_or(0, |position| position.0),
            applied: self.replica.applied.0,
            committed: raft.commit().0,
            durable: self.disk.durable().0,
            appended: self.tail.end().0,
            transfer_to: raft.transfer_target().map(|node| node.0),
            digest: self
                .replica
                .digest
                .map(|(position, digest)| DigestStatus { position: position.0, digest: digest.to_string() }),
            recovery: self.recovery_status(),
            trouble: self.trouble(),
            sessions: self.replica.sessions.len(),
            commands_sequenced: self.counters.commands_sequenced,
            records_applied: self.counters.records_applied,
            connections_malformed: self.counters.connections_malformed,
            busy_told: self.counters.busy_told,
            commands_too_large: self.counters.commands_too_large,
            clients_slow: self.counters.clients_slow,
            holes: self.disk.holes().len(),
            blocks_repaired: self.counters.blocks_repaired,
            repairs_refused: self.counters.repairs_refused,
            peers: if leads { self.peer_status() } else { Vec::new() },
            addresses: self.address_status(),
            shards: self.shards,
        };
        serde_json::to_string(&status).expect("plain numbers and strings become JSON")
    }

    fn recovery_status(&self) -> Option<RecoveryStatus<'_>> {
        self.replica.recovery.as_ref().map(|Recovery { position, note, reason }| RecoveryStatus {
            position: position.0,
            old_cluster: format!("{:016x}", note.old_cluster.0),
            survivor: note.survivor.0,
            kept: note.kept.0,
            committed: note.committed.0,
            loss_accepted: note.loss_accepted,
            timestamp: note.timestamp.0,
            reason,
        })
    }

    fn peer_status(&self) -> Vec<PeerStatus> {
        let others = self.raft.members().iter().filter(|node| *node != self.identity.node);
        let views = others.filter_map(|node| self.raft.peer(node).map(|peer| (node, peer)));
        let status = views.map(|(node, peer)| PeerStatus {
            node: node.0,
            connected: peer.connected,
            sound: !peer.recovering,
            received: peer.received.0,
            durable: peer.durable.0,
            lag: self.raft.last().since(peer.received),
        });
        status.collect()
    }

    fn address_status(&self) -> Vec<AddressStatus<'_>> {
        // A node that is no member of anything yet tells what its own file says.
        let members = self.raft.members();
        let told = |node: &(usize, _)| members.is_empty() || members.iter().any(|id| usize::from(id.0) == node.0);
        let known = self.addresses.iter().enumerate().filter(told);
        let status = known.filter_map(|(node, address)| {
            let node = u8::try_from(node).expect("bounded by NODES_MAX");
            address.as_deref().map(|address| AddressStatus { node, address })
        });
        status.collect()
    }

    fn trouble(&self) -> Vec<String> {
        let mut trouble = Vec::new();
        if let Some((position, reason)) = self.replica.halted {
            trouble.push(format!("nothing is applied from position {position} on: {reason}"));
        }
        if let Some(errno) = self.disk.failed() {
            let error = std::io::Error::from_raw_os_error(errno);
            trouble.push(format!("a log write failed ({error}): check the disk and restart the node"));
        }
        if let Some((first, end, cut)) = self.first_hole() {
            let holes = self.disk.holes().len();
            trouble.push(if cut {
                format!(
                    "the log does not verify from position {first} to {end} and was cut there since: restart this node"
                )
            } else {
                format!(
                    "{holes} blocks of the log do not verify, the first from position {first} to {end}: they are being \
                     repaired from the other replicas, and until then this replica does not lead; look at the disk"
                )
            });
        }
        if self.disk.lacks_space() {
            trouble.push("no log segment can be prepared: free space on the data disk".to_owned());
        }
        if self.raft.standing() == Standing::Recovering {
            trouble.push(
                "this replica may lack records it once acknowledged: it counts again when a leader has brought it up \
                 to date; if no leader can be elected, start all members"
                    .to_owned(),
            );
        }
        trouble
    }
}

fn ids(set: NodeSet) -> Vec<u8> {
    set.iter().map(|node| node.0).collect()
}

fn role_name(role: Role) -> &'static str {
    match role {
        Role::Follower => "follower",
        Role::PreCandidate | Role::Candidate => "candidate",
        Role::Leader => "leader",
    }
}
