//! What an operator does with a running cluster: look at every replica, compare state digests, move a leader, change
//! the members.
//!
//! Any reachable address of any shard is enough to begin with: its answer names the others. The replicas are asked in
//! parallel, so that a look at a cluster with dead nodes takes one `timeout`, not one for each of them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use evershard_client::{ClientError, admin};
use evershard_protocol::NodeId;
use evershard_protocol::client::AdminAction;
use serde::{Deserialize, Serialize};

/// One replica as an operator sees it.
#[derive(Clone, Debug, Serialize)]
pub struct ReplicaStatus {
    /// The shard.
    pub shard: u16,
    /// The node.
    pub node: u8,
    /// Where the replica was asked, `host:port`.
    pub address: String,
    /// What it said, if it could be asked.
    pub state: Option<ReplicaState>,
    /// Why it could not be asked.
    pub unreachable: Option<String>,
}

/// What a replica says about itself. Positions are byte offsets in the shard's log.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ReplicaState {
    /// Name of the service.
    pub service: String,
    /// Version of the service that runs.
    pub service_version: u32,
    /// Release of Evershard.
    pub release: String,
    /// The node that answered.
    pub node: u8,
    /// The shard that answered.
    pub shard: u16,
    /// `leader`, `follower` or `candidate`.
    pub role: String,
    /// The replica's term.
    pub term: u64,
    /// The leader it knows of.
    pub leader: Option<u8>,
    /// `durable` or `replicated`.
    pub durability: String,
    /// Who votes in the configuration in force, as this replica knows it.
    #[serde(default)]
    pub voters: Vec<u8>,
    /// Who votes as well until a joint configuration is left.
    #[serde(default)]
    pub outgoing: Vec<u8>,
    /// Who only takes over the log.
    #[serde(default)]
    pub learners: Vec<u8>,
    /// False while the replica's word does not count.
    pub sound: bool,
    /// End of its last snapshot.
    pub snapshot: u64,
    /// Applied up to here.
    pub applied: u64,
    /// Committed up to here, as far as it knows.
    pub committed: u64,
    /// On its stable storage up to here.
    pub durable: u64,
    /// End of its log.
    pub appended: u64,
    /// A leader's transfer under way.
    pub transfer_to: Option<u8>,
    /// The last digest record it applied.
    pub digest: Option<StateDigest>,
    /// Where the record of the configuration in force ends.
    #[serde(default)]
    pub membership: u64,
    /// The last recovery by an operator that it has applied since its start.
    #[serde(default)]
    pub recovery: Option<RecoveryRecord>,
    /// What keeps it from working, in words.
    pub trouble: Vec<String>,
    /// Open sessions.
    pub sessions: u64,
    /// Where this shard is found on each node.
    pub addresses: Vec<ReplicaAddress>,
    /// Shards of the cluster.
    pub shards: u16,
}

/// The audit record of an operator's recovery.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RecoveryRecord {
    /// Where it ends in the log.
    pub position: u64,
    /// Identity of the cluster that was lost.
    pub old_cluster: String,
    /// The node of it whose log was kept.
    pub survivor: u8,
    /// Up to here.
    pub kept: u64,
    /// So much of it was known to be committed.
    pub committed: u64,
    /// Something known was given up.
    pub loss_accepted: bool,
    /// When, nanoseconds since the epoch.
    pub timestamp: u64,
    /// What the operator said.
    pub reason: String,
}

/// The digest of a replica's state at one position.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct StateDigest {
    /// Where in the log.
    pub position: u64,
    /// The digest, for comparing.
    pub digest: String,
}

/// Where a shard is found on one node.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ReplicaAddress {
    /// The node.
    pub node: u8,
    /// `host:port`.
    pub address: String,
}

/// The digests of one shard's reachable replicas at one position.
#[derive(Clone, Debug, Serialize)]
pub struct ShardDigests {
    /// The shard.
    pub shard: u16,
    /// Where in the log.
    pub position: u64,
    /// Node and digest.
    pub replicas: Vec<(u8, String)>,
    /// Nodes that could not be asked: their state was not compared.
    pub unreachable: Vec<u8>,
}

impl ShardDigests {
    /// True if no two of the replicas that were asked differ.
    #[must_use]
    pub fn equal(&self) -> bool {
        self.replicas.windows(2).all(|pair| pair[0].1 == pair[1].1)
    }
}

/// An operator's request could not be carried out.
#[derive(Debug, thiserror::Error)]
pub enum OperatorError {
    /// None of the addresses answers.
    #[error(
        "no node answers at {addresses}\n  {reasons}\n\nhint: give the address of any shard of any running node \
         (shard i listens on the node's port + i)"
    )]
    NobodyAnswers {
        /// What was tried.
        addresses: String,
        /// Why each failed.
        reasons: String,
    },
    /// An answer that this release cannot read.
    #[error(
        "cannot read the status of {address}: {source}\n\nhint: the node probably runs another release; use the \
         `evershard` of that release"
    )]
    Unreadable {
        /// Who answered.
        address: String,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// The shard has no leader.
    #[error(
        "shard {shard} has no leader\n\nhint: a majority of its nodes must run and reach each other; `evershard status` \
         shows which do"
    )]
    NoLeader {
        /// The shard.
        shard: u16,
    },
    /// There is no such shard.
    #[error("there is no shard {shard}\n\nhint: the cluster has the shards 0 to {}", shards - 1)]
    NoShard {
        /// What was asked for.
        shard: u16,
        /// How many there are.
        shards: u16,
    },
    /// There is no such node.
    #[error("node {node} has no replica of shard {shard}\n\nhint: the nodes are {nodes}")]
    NoNode {
        /// What was asked for.
        node: u8,
        /// The shard.
        shard: u16,
        /// Those there are.
        nodes: String,
    },
    /// The leader did not take the request.
    #[error("the leader of shard {shard} (node {leader}) declines: {text}\n\nhint: try again shortly")]
    Declined {
        /// The shard.
        shard: u16,
        /// Its leader.
        leader: u8,
        /// What it says.
        text: String,
    },
    /// The leader could not be asked.
    #[error("{0}\n\nhint: leadership may just have moved: try again")]
    Client(#[from] ClientError),
    /// What was begun did not come to an end in time.
    #[error(
        "shard {shard}: {what} did not happen within {waited:?}\n\nhint: `evershard status` shows who lags or is in trouble"
    )]
    Timeout {
        /// The shard.
        shard: u16,
        /// What was awaited.
        what: String,
        /// How long.
        waited: Duration,
    },
}

/// The state of every replica of every shard, ordered by shard and node. `addresses` are of any shards on any nodes;
/// `timeout` is for each question.
///
/// # Errors
/// [`OperatorError::NobodyAnswers`], [`OperatorError::Unreadable`]. A replica that does not answer is no error.
pub fn cluster_status(addresses: &[String], timeout: Duration) -> Result<Vec<ReplicaStatus>, OperatorError> {
    let first = first_answer(addresses, timeout)?;
    let mut targets = Vec::new();
    for shard in 0..first.shards {
        for known in &first.addresses {
            targets.push((shard, known.node, address_of(&known.address, first.shard, shard)));
        }
    }
    targets.sort_unstable();
    let ask = |(shard, node, address): (u16, u8, String)| ask_replica(shard, node, address, timeout);
    let replicas = std::thread::scope(|scope| {
        let asked: Vec<_> = targets.into_iter().map(|target| scope.spawn(move || ask(target))).collect();
        asked.into_iter().map(|thread| thread.join().expect("asking does not panic")).collect()
    });
    Ok(replicas)
}

/// Has every shard append a digest record and waits until all replicas that can be asked show its digest; `timeout`
/// is for each shard.
///
/// # Errors
/// [`OperatorError`].
pub fn digests(addresses: &[String], timeout: Duration) -> Result<Vec<ShardDigests>, OperatorError> {
    let mut shards = Vec::new();
    for (shard, replicas) in by_shard(cluster_status(addresses, timeout.min(QUESTION_MAX))?) {
        shards.push(digests_of_shard(shard, &replicas, timeout)?);
    }
    Ok(shards)
}

/// Hands the leadership of a shard over to node `to` and waits until that node says it leads. Returns how long that
/// took; nothing if it led already.
///
/// # Errors
/// [`OperatorError`].
pub fn transfer(addresses: &[String], shard: u16, to: u8, timeout: Duration) -> Result<Duration, OperatorError> {
    let mut shards = by_shard(cluster_status(addresses, timeout.min(QUESTION_MAX))?);
    let count = u16::try_from(shards.len()).expect("bounded by SHARDS_MAX");
    let replicas = shards.remove(&shard).ok_or(OperatorError::NoShard { shard, shards: count })?;
    let Some(target) = replicas.iter().find(|replica| replica.node == to) else {
        let nodes: Vec<String> = replicas.iter().map(|replica| replica.node.to_string()).collect();
        return Err(OperatorError::NoNode { node: to, shard, nodes: nodes.join(", ") });
    };
    let leader = leader_of(&replicas).ok_or(OperatorError::NoLeader { shard })?;
    if leader.node == to {
        return Ok(Duration::ZERO);
    }
    let begun = Instant::now();
    let answer = admin::transfer(&leader.address, NodeId(to), timeout.min(QUESTION_MAX))?;
    if answer.code != 0 {
        return Err(OperatorError::Declined { shard, leader: leader.node, text: answer.text });
    }
    while begun.elapsed() < timeout {
        let now = ask_replica(shard, to, target.address.clone(), timeout.min(QUESTION_MAX));
        if now.state.is_some_and(|state| state.role == "leader") {
            return Ok(begun.elapsed());
        }
        std::thread::sleep(PAUSE);
    }
    Err(OperatorError::Timeout { shard, what: format!("the transfer to node {to}"), waited: timeout })
}

/// What a node shall be to every shard.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum MemberChange {
    /// A learner; where its shard 0 is found, `ip:port`.
    Add(String),
    /// A voter, as soon as it has caught up.
    Promote,
    /// Nothing.
    Remove,
}

/// Changes what node `node` is to every shard, one shard after the other, and waits until each has committed the new
/// configuration; `timeout` is for each shard. `each` is told of every shard that is done. A shard for which the node is
/// already what it shall be is passed over.
///
/// # Errors
/// [`OperatorError`]: the shards told of are done, the others as before. Run it again.
pub fn change_member(
    addresses: &[String],
    node: u8,
    change: &MemberChange,
    timeout: Duration,
    each: &mut dyn FnMut(u16, &str),
) -> Result<(), OperatorError> {
    for (shard, replicas) in by_shard(cluster_status(addresses, timeout.min(QUESTION_MAX))?) {
        let text = change_member_of_shard(shard, &replicas, node, change, timeout)?;
        each(shard, &text);
    }
    Ok(())
}

fn change_member_of_shard(
    shard: u16,
    replicas: &[ReplicaStatus],
    node: u8,
    change: &MemberChange,
    timeout: Duration,
) -> Result<String, OperatorError> {
    let (action, found_at) = match change {
        MemberChange::Add(address) => (AdminAction::MemberAdd, address_of(address, 0, shard)),
        MemberChange::Promote => (AdminAction::MemberPromote, String::new()),
        MemberChange::Remove => (AdminAction::MemberRemove, String::new()),
    };
    let begun = Instant::now();
    let mut declined = String::new();
    while begun.elapsed() < timeout {
        let ask = |one: &ReplicaStatus| ask_replica(shard, one.node, one.address.clone(), timeout.min(QUESTION_MAX));
        let now: Vec<ReplicaStatus> = replicas.iter().map(ask).collect();
        let leader = leader_of(&now).and_then(|leader| Some((leader, leader.state.as_ref()?)));
        if let Some((leader, state)) = leader {
            let (votes, learns) = (state.voters.contains(&node), state.learners.contains(&node));
            let is_there = match change {
                MemberChange::Add(_) => votes || learns,
                MemberChange::Promote => votes,
                MemberChange::Remove => !votes && !learns,
            };
            if is_there && state.outgoing.is_empty() && state.committed >= state.membership {
                return Ok(describe_members(state));
            }
            if !is_there && state.outgoing.is_empty() {
                let answer =
                    admin::change_member(&leader.address, action, NodeId(node), &found_at, timeout.min(QUESTION_MAX))?;
                if answer.code > 1 {
                    return Err(OperatorError::Declined { shard, leader: leader.node, text: answer.text });
                }
                // It may be that the node has not caught up, or that the configuration before is not committed yet.
                declined = if answer.code == 0 { String::new() } else { answer.text };
            }
        }
        std::thread::sleep(PAUSE);
    }
    let what = format!("the change of node {node}");
    let what = if declined.is_empty() { what } else { format!("{what} ({declined})") };
    Err(OperatorError::Timeout { shard, what, waited: timeout })
}

/// The configuration as a person reads it.
#[must_use]
pub fn describe_members(state: &ReplicaState) -> String {
    let list = |nodes: &[u8]| nodes.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    let mut text = format!("voters {}", list(&state.voters));
    if !state.outgoing.is_empty() {
        text.push_str(&format!(", until the change has ended also {}", list(&state.outgoing)));
    }
    if !state.learners.is_empty() {
        text.push_str(&format!(", learners {}", list(&state.learners)));
    }
    text
}

/// Who leads among the replicas of one shard: of several that say so, the one with the highest term.
#[must_use]
pub fn leader_of(replicas: &[ReplicaStatus]) -> Option<&ReplicaStatus> {
    let leads = |replica: &&ReplicaStatus| replica.state.as_ref().is_some_and(|state| state.role == "leader");
    replicas.iter().filter(leads).max_by_key(|replica| replica.state.as_ref().map(|state| state.term))
}

/// The replicas of each shard.
#[must_use]
pub fn by_shard(replicas: Vec<ReplicaStatus>) -> BTreeMap<u16, Vec<ReplicaStatus>> {
    let mut shards: BTreeMap<u16, Vec<ReplicaStatus>> = BTreeMap::new();
    for replica in replicas {
        shards.entry(replica.shard).or_default().push(replica);
    }
    shards
}

fn digests_of_shard(shard: u16, replicas: &[ReplicaStatus], timeout: Duration) -> Result<ShardDigests, OperatorError> {
    let leader = leader_of(replicas).ok_or(OperatorError::NoLeader { shard })?;
    let begun = Instant::now();
    let answer = admin::digest(&leader.address, timeout.min(QUESTION_MAX))?;
    if answer.code != 0 {
        return Err(OperatorError::Declined { shard, leader: leader.node, text: answer.text });
    }
    while begun.elapsed() < timeout {
        let ask = |one: &ReplicaStatus| ask_replica(shard, one.node, one.address.clone(), timeout.min(QUESTION_MAX));
        let now: Vec<ReplicaStatus> = replicas.iter().map(ask).collect();
        if let Some(digests) = digests_at(shard, answer.position.0, &now) {
            return Ok(digests);
        }
        std::thread::sleep(PAUSE);
    }
    Err(OperatorError::Timeout { shard, what: "a digest by every reachable replica".to_owned(), waited: timeout })
}

/// The digests, once all replicas that can be asked show one of the same position, `from` or later: another operator
/// may have asked meanwhile.
fn digests_at(shard: u16, from: u64, replicas: &[ReplicaStatus]) -> Option<ShardDigests> {
    let unreachable = replicas.iter().filter(|replica| replica.state.is_none()).map(|replica| replica.node).collect();
    let mut found = ShardDigests { shard, position: 0, replicas: Vec::new(), unreachable };
    for (replica, state) in replicas.iter().filter_map(|replica| Some((replica, replica.state.as_ref()?))) {
        let shown = state.digest.as_ref().filter(|digest| digest.position >= from)?;
        if !found.replicas.is_empty() && shown.position != found.position {
            return None;
        }
        found.position = shown.position;
        found.replicas.push((replica.node, shown.digest.clone()));
    }
    (!found.replicas.is_empty()).then_some(found)
}

fn first_answer(addresses: &[String], timeout: Duration) -> Result<ReplicaState, OperatorError> {
    let mut reasons = Vec::new();
    for address in addresses {
        match admin::status(address, timeout) {
            Ok(text) => return read_state(address, &text),
            Err(error) => reasons.push(error.to_string()),
        }
    }
    Err(OperatorError::NobodyAnswers { addresses: addresses.join(", "), reasons: reasons.join("\n  ") })
}

fn ask_replica(shard: u16, node: u8, address: String, timeout: Duration) -> ReplicaStatus {
    let answer = admin::status(&address, timeout).map_err(|error| error.to_string());
    let state = answer.and_then(|text| read_state(&address, &text).map_err(|error| error.to_string()));
    let state = state.and_then(|state| {
        let found = (state.shard, state.node);
        if found == (shard, node) {
            Ok(state)
        } else {
            Err(format!("shard {} of node {} answers there", found.0, found.1))
        }
    });
    match state {
        Ok(state) => ReplicaStatus { shard, node, address, state: Some(state), unreachable: None },
        Err(reason) => ReplicaStatus { shard, node, address, state: None, unreachable: Some(reason) },
    }
}

fn read_state(address: &str, text: &str) -> Result<ReplicaState, OperatorError> {
    serde_json::from_str(text).map_err(|source| OperatorError::Unreadable { address: address.to_owned(), source })
}

/// The address of shard `wanted` on the node where shard `known` is at `address`: neighbouring ports.
fn address_of(address: &str, known: u16, wanted: u16) -> String {
    let split = address.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse::<u16>().ok()?)));
    let moved = split.and_then(|(host, port)| Some((host, port.checked_sub(known)?.checked_add(wanted)?)));
    moved.map_or_else(|| address.to_owned(), |(host, port)| format!("{host}:{port}"))
}

/// Between two looks at a replica that is not there yet.
const PAUSE: Duration = Duration::from_millis(5);
/// One question takes at most this, so that a dead node does not use up the time for all.
const QUESTION_MAX: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_are_at_neighbouring_ports() {
        assert_eq!(address_of("host:7001", 1, 2), "host:7002");
        assert_eq!(address_of("[::1]:7000", 0, 0), "[::1]:7000");
        assert_eq!(address_of("host", 0, 3), "host");
    }
}
