//! One run from its plan to its verdict: first everything may go wrong, then nothing does and all must be well again.

use evershard_protocol::bugs::{self, Bug};

use crate::node::node_id;
use crate::oracle::convergence::{BOUND_NS, digest, leader, obstacle};
use crate::oracle::{Violation, linear};
use crate::plan::{MS, Plan};
use crate::stats::Stats;
use crate::trace::Entry;
use crate::world::World;

/// How often the state is looked at while it is to become well.
const LOOK_NS: u64 = 5 * MS;
/// How often somebody looks after the nodes.
const NURSE_NS: u64 = 400 * MS;

/// How a run ended.
#[derive(Clone, Debug)]
pub struct Report {
    /// The rule that was broken, if one was.
    pub violation: Option<Violation>,
    /// Everything that happened, as one number.
    pub hash: u64,
    /// How much of everything.
    pub stats: Stats,
    /// The last that happened, if words were asked for.
    pub trace: Vec<Entry>,
}

/// How much is said of a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Words {
    /// Nothing.
    None,
    /// The last of the trace is kept.
    Kept,
    /// The trace is printed.
    Printed,
}

/// Runs a plan, with a known bug switched on if one is given.
#[must_use]
pub fn run(plan: &Plan, bug: Option<Bug>, words: Words) -> Report {
    bugs::switch(bug);
    let mut world = World::new(plan.clone());
    world.trace.worded = words != Words::None;
    world.trace.printed = words == Words::Printed;
    let violation = go(&mut world).err();
    bugs::switch(None);
    let mut stats = std::mem::take(&mut world.stats);
    stats.runs = 1;
    stats.virtual_ns = world.time;
    for oracle in &world.oracles {
        stats.replies += oracle.replies.count;
        stats.answers += oracle.reads.count;
        stats.commands += oracle.log.replay.commands() as u64;
        stats.elections += oracle.leaders.count() as u64;
        stats.bytes += oracle.committed().0;
    }
    stats.sessions = world.clients.iter().map(crate::client::Client::sessions).sum();
    Report { violation, hash: world.trace.hash(), stats, trace: world.trace.tail(400).cloned().collect() }
}

fn go(world: &mut World) -> Result<(), Violation> {
    world.run_until_time(world.plan.options.duration_ns)?;
    world.heal();
    settle(world)?;
    conclude(world)
}

/// Lets a healed world become well.
///
/// # Errors
/// [`Violation`] `stuck` with what keeps it, if it takes too long.
pub fn settle(world: &mut World) -> Result<(), Violation> {
    let end = world.time + BOUND_NS;
    let mut nurse_at = world.time;
    loop {
        if world.time >= nurse_at {
            world.nurse();
            nurse_at = world.time + NURSE_NS;
        }
        world.run_until_time(world.time + LOOK_NS)?;
        let Some(what) = unsettled(world) else { return Ok(()) };
        if world.time >= end {
            let (seconds, network) = (BOUND_NS / (1000 * MS), world.network.picture());
            let what = format!("{seconds} s after all trouble was over: {what}; connections: {network}");
            return Violation::of("stuck", what);
        }
    }
}

fn unsettled(world: &World) -> Option<String> {
    let waiting = world.clients.iter().enumerate().find(|(_, client)| client.unanswered() > 0);
    let (shards, clients) = (world.plan.options.shards, &world.clients);
    for shard in 0..shards {
        if let Some(what) = obstacle(shard, &world.cores(shard)) {
            return Some(what);
        }
    }
    debug_assert!(clients.len() >= shards);
    waiting.map(|(index, client)| {
        let picture = crate::oracle::convergence::picture(&world.cores(client.shard));
        format!("client {index} of shard {} waits: {}; {picture}", client.shard, client.describe())
    })
}

/// The last judgements, of a world that is well.
///
/// # Errors
/// [`Violation`].
pub fn conclude(world: &mut World) -> Result<(), Violation> {
    for shard in 0..world.plan.options.shards {
        let digests: Vec<_> = world
            .cores(shard)
            .iter()
            .enumerate()
            .filter_map(|(node, core)| core.map(|core| (node, core.replica().applied, digest(core))))
            .collect();
        let members = leader(&world.cores(shard)).map(|leader| leader.raft().members()).unwrap_or_default();
        let oracle = &mut world.oracles[shard];
        for (node, applied, digest) in digests {
            oracle.services.compare_digest(node, applied, digest)?;
            if applied < oracle.committed() && members.contains(node_id(node)) {
                let what = format!("{} was committed, and at the end n{node} has {applied}", oracle.committed());
                return Violation::of("reply-lost", what);
            }
        }
        if oracle.replies.unverified() > 0 {
            return Violation::of("reply-lost", format!("{} replies have no record", oracle.replies.unverified()));
        }
        if oracle.reads.unverified() > 0 {
            let what = format!("{} answers are from states that nobody committed", oracle.reads.unverified());
            return Violation::of("read-wrong", what);
        }
        linear::search(&world.history, shard)?;
    }
    Ok(())
}
