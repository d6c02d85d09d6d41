//! `stuck`: when all trouble is over there is a leader, every client's requests are answered, no configuration is joint,
//! and all members of the leader's configuration hold, have applied and have on disk the same log, within [`BOUND_NS`] of
//! the run's time. Who was removed or never added is excused.

use evershard_consensus::Role;
use evershard_node::core::Core;
use evershard_service::Service;

use crate::node::node_id;
use crate::service::KeyValue;

/// How long it may take: the longest pause of a client, some elections, catching up from disk.
pub const BOUND_NS: u64 = 30_000_000_000;

/// What keeps the replicas of one shard from being the same, if anything does. `None` for a node that is down.
#[must_use]
pub fn obstacle(shard: usize, cores: &[Option<&Core<KeyValue>>]) -> Option<String> {
    let Some(leader) = leader(cores) else {
        return Some(format!("shard {shard} has no leader that admits commands: {}", picture(cores)));
    };
    let end = leader.tail().end();
    let alike = |core: &Core<KeyValue>| {
        let raft = core.raft();
        let role = raft.role() == Role::Follower || core.raft().id() == leader.raft().id();
        role && raft.term() == leader.raft().term()
            && core.tail().end() == end
            && raft.commit() == end
            && core.replica().applied == end
            && core.disk().durable() == end
            && core.replica().halted.is_none()
    };
    let membership = leader.raft().membership();
    if membership.is_joint() {
        return Some(format!("shard {shard} has a joint configuration, {membership}: {}", picture(cores)));
    }
    let excused = |node: usize| !membership.everybody().contains(node_id(node));
    let all = cores.iter().enumerate().all(|(node, core)| excused(node) || core.is_some_and(alike));
    (!all).then(|| format!("the replicas of shard {shard} are not alike: {}", picture(cores)))
}

/// The leader of the highest term that admits commands.
#[must_use]
pub fn leader<'a>(cores: &[Option<&'a Core<KeyValue>>]) -> Option<&'a Core<KeyValue>> {
    let admitting = cores.iter().flatten().filter(|core| core.raft().admits());
    admitting.max_by_key(|core| core.raft().term()).copied()
}

/// One line about all replicas.
#[must_use]
pub fn picture(cores: &[Option<&Core<KeyValue>>]) -> String {
    let mut parts = Vec::new();
    for (node, core) in cores.iter().enumerate() {
        parts.push(core.map_or(format!("n{node} is down"), |core| {
            let raft = core.raft();
            format!(
                "n{node} {:?} {:?} of {:?}, {:?}, {}: applied {} committed {} durable {} appended {}{}{}",
                raft.role(),
                raft.term(),
                raft.leader(),
                raft.standing(),
                raft.membership(),
                core.replica().applied,
                raft.commit(),
                core.disk().durable(),
                core.tail().end(),
                core.disk().failed().map(|errno| format!(", disk failed with {errno}")).unwrap_or_default(),
                core.replica().halted.map(|halted| format!(", halted {halted:?}")).unwrap_or_default(),
            )
        }));
    }
    parts.join("; ")
}

/// The digest of everything a replica has applied.
#[must_use]
pub fn digest<S: Service>(core: &Core<S>) -> u64 {
    core.replica().compute_digest().0
}
