//! A run before it begins: what the cluster is like and what goes wrong when, all drawn from the seed.
//!
//! Faults are a list, each with its time, its place and its end, so that any of them may be left out and the rest still
//! makes sense: that is what shrinking does. Which kinds of faults a seed has at all is drawn first (swarm testing,
//! Groce et al. 2012): runs with few kinds find what runs with all of them drown.

use std::fmt;

use evershard_consensus::{Durability, Timing};
use evershard_log::SEGMENT_SIZE_MIN;

use crate::clock::Time;
use crate::profile::Profile;
use crate::random::Random;

/// A millisecond of the run.
pub const MS: u64 = 1_000_000;

/// What a cluster and its clients are like.
#[derive(Clone, Debug)]
pub struct Options {
    /// Nodes.
    pub nodes: usize,
    /// Voters at first: nodes beyond them belong to no shard until an operator adds them.
    pub voters: usize,
    /// Shards of each.
    pub shards: usize,
    /// What an acknowledgement is worth.
    pub durability: Durability,
    /// How patient consensus is.
    pub timing: Timing,
    /// Bytes of a segment.
    pub segment_size: u64,
    /// A snapshot is taken when so many segments were begun since the last one; 0: only when asked.
    pub snapshot_segments: u64,
    /// States up to this size are saved by the hot instance.
    pub hot_save_size_max: usize,
    /// Bytes of log in memory.
    pub tail_size: usize,
    /// Bytes sent ahead of acknowledgements.
    pub inflight_size_max: u64,
    /// When a session without a client ends.
    pub session_timeout_ns: u64,
    /// Shard i prefers node i mod n.
    pub prefer_leaders: bool,
    /// Clients of each shard.
    pub clients: usize,
    /// Commands of each client.
    pub commands: u64,
    /// Requests a client may have unanswered.
    pub window_len: usize,
    /// Pause between two commands: up to this.
    pub think_ns: u64,
    /// Keys in use.
    pub keys: u64,
    /// In a thousand: commands with a large payload.
    pub large_per_mille: u64,
    /// In a thousand: sessions closed after a command and opened anew.
    pub close_per_mille: u64,
    /// Questions of each client.
    pub questions: u64,
    /// Pause between two of them: up to this.
    pub question_ns: u64,
    /// Latency of the network: fixed part and jitter.
    pub latency_ns: (u64, u64),
    /// Bytes per microsecond of every link.
    pub bandwidth: u64,
    /// See [`crate::network::Links`].
    pub cuts_per_mille: u64,
    /// See [`crate::network::Links`].
    pub unruly_per_mille: u64,
    /// Latency of the disks: fixed part and jitter.
    pub disk_ns: (u64, u64),
    /// What a block of the log may take longer than a slot: up to this.
    pub slow_blocks_ns: u64,
    /// Drift of the nodes' clocks, at most.
    pub drift_ppm: i64,
    /// Offset of the wall clocks, at most.
    pub offset_ns: i64,
    /// How long faults go on.
    pub duration_ns: u64,
}

/// Who is meant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Who {
    /// This node.
    Node(usize),
    /// Whoever leads this shard then.
    Leader(usize),
}

/// What goes wrong, or is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// kill -9.
    Kill(Who),
    /// The power of one node goes.
    PowerLoss(Who),
    /// The power of all goes.
    Blackout,
    /// SIGTERM.
    Stop(Who),
    /// SIGSTOP.
    Pause(Who),
    /// SIGSTOP in the middle of a turn, between its look at the clock and its look at what has come in.
    PauseInTurn(Who),
    /// The node is killed and comes back with an empty disk.
    Wipe(Who),
    /// Nothing arrives from one node at another.
    CutOneWay(Who, usize),
    /// Nothing arrives between two nodes.
    Cut(Who, usize),
    /// A node neither hears the others nor is heard by them, and its connections to one of them are reset.
    Sever(Who, usize),
    /// A node neither hears nor is heard; clients are cut off too if true.
    Isolate(Who, bool),
    /// All of a node's connections are reset.
    Reset(Who),
    /// A client's connections are reset.
    ResetClient(usize),
    /// A client is cut off.
    CutClient(usize),
    /// A client does not read.
    SlowClient(usize),
    /// A link is slow: extra latency in nanoseconds.
    SlowLink(Who, usize, u64),
    /// A node's disks do nothing.
    DiskStall(Who),
    /// No segment can be prepared.
    DiskFull(Who),
    /// The next write of a block fails.
    WriteError(Who, usize),
    /// The next write of a slot fails.
    SlotError(Who, usize),
    /// The next write of a block is lost.
    LostWrite(Who, usize),
    /// The next write of a block goes elsewhere.
    Misdirected(Who, usize),
    /// Bits of a block change; which one is drawn.
    Rot(Who, usize, u64),
    /// A slot changes.
    SlotRot(Who, usize, u64),
    /// The next reads are garbage.
    BadRead(Who, usize),
    /// A block is left over behind the log's end of a node that is down.
    LeftOver(Who, usize),
    /// A wall clock jumps, by so many nanoseconds.
    ClockJump(Who, i64),
    /// An operator moves leadership.
    Transfer(usize, usize),
    /// An operator asks for a digest.
    Digest(usize),
    /// An operator asks a replica for a snapshot.
    Snapshot(Who, usize),
    /// Bits of the newest snapshot change; which ones is drawn.
    SnapshotRot(Who, usize, u64),
    /// An operator adds a node to a shard, this one or the next that is no member.
    MemberAdd(usize, usize),
    /// An operator makes a learner a voter, this one or the next that is a learner.
    MemberPromote(usize, usize),
    /// An operator removes a node from a shard.
    MemberRemove(usize, Who),
}

impl Fault {
    /// Its name in tables.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Kill(_) => "kill",
            Self::PowerLoss(_) => "power-loss",
            Self::Blackout => "blackout",
            Self::Stop(_) => "stop",
            Self::Pause(_) => "pause",
            Self::PauseInTurn(_) => "pause-in-turn",
            Self::Wipe(_) => "wipe",
            Self::CutOneWay(..) => "cut-one-way",
            Self::Cut(..) => "cut",
            Self::Sever(..) => "sever",
            Self::Isolate(..) => "isolate",
            Self::Reset(_) => "reset",
            Self::ResetClient(_) => "reset-client",
            Self::CutClient(_) => "cut-client",
            Self::SlowClient(_) => "slow-client",
            Self::SlowLink(..) => "slow-link",
            Self::DiskStall(_) => "disk-stall",
            Self::DiskFull(_) => "disk-full",
            Self::WriteError(..) => "write-error",
            Self::SlotError(..) => "slot-error",
            Self::LostWrite(..) => "lost-write",
            Self::Misdirected(..) => "misdirected-write",
            Self::Rot(..) => "rot",
            Self::SlotRot(..) => "slot-rot",
            Self::BadRead(..) => "bad-read",
            Self::LeftOver(..) => "left-over",
            Self::ClockJump(..) => "clock-jump",
            Self::Transfer(..) => "transfer",
            Self::Digest(_) => "digest",
            Self::Snapshot(..) => "snapshot",
            Self::SnapshotRot(..) => "snapshot-rot",
            Self::MemberAdd(..) => "member-add",
            Self::MemberPromote(..) => "member-promote",
            Self::MemberRemove(..) => "member-remove",
        }
    }
}

/// A fault with its time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Planned {
    /// Its place in the list that the seed gives.
    pub index: usize,
    /// When it begins.
    pub at: Time,
    /// How long it lasts.
    pub for_ns: u64,
    /// What it is.
    pub fault: Fault,
}

impl fmt::Display for Planned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (at, long) = (self.at / MS, self.for_ns / MS);
        write!(f, "#{} at {at} ms for {long} ms: {:?}", self.index, self.fault)
    }
}

/// A whole run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where everything comes from.
    pub seed: u64,
    /// What the cluster is like.
    pub options: Options,
    /// What goes wrong, in order of time.
    pub faults: Vec<Planned>,
}

impl Plan {
    /// The run of a seed.
    #[must_use]
    pub fn of_seed(seed: u64, profile: &Profile) -> Self {
        let options = options(seed, profile);
        let faults = profile.faults(seed, &options);
        Self { seed, options, faults }
    }

    /// Leaves out the faults of clients that are not there.
    pub fn forget_absent_clients(&mut self) {
        let len = self.options.clients * self.options.shards;
        self.faults.retain(|planned| match planned.fault {
            Fault::ResetClient(client) | Fault::CutClient(client) | Fault::SlowClient(client) => client < len,
            _ => true,
        });
    }

    /// Leaves out all faults but these, by their places in the seed's list.
    pub fn keep(&mut self, kept: &[usize]) {
        self.faults.retain(|planned| kept.contains(&planned.index));
    }
}

fn options(seed: u64, profile: &Profile) -> Options {
    let random = &mut Random::stream(seed, "options");
    let nodes = profile.nodes.unwrap_or_else(|| random.pick(&[1, 3, 3, 3, 3, 3, 3, 5, 5]));
    let shards = profile.shards.unwrap_or_else(|| random.pick(&[1, 1, 1, 2, 2, 3]));
    let drawn = random.pick(&[Durability::Durable, Durability::Durable, Durability::Replicated]);
    let durability = profile.durability.unwrap_or(drawn);
    let scale = random.pick(&[1, 1, 1, 2, 3]);
    let timing = Timing {
        heartbeat_ns: 20 * MS * scale,
        election_min_ns: 150 * MS * scale,
        election_max_ns: 300 * MS * scale,
        stall_ns: 75 * MS * scale,
        lease_ns: 0,
    };
    let slow_disk = random.chance(200 + profile.slow_disk_per_mille);
    let unruly = durability == Durability::Durable && random.chance(200);
    let mut options = Options {
        nodes,
        voters: nodes,
        shards,
        durability,
        timing,
        segment_size: SEGMENT_SIZE_MIN + random.below(4) * 65_536,
        snapshot_segments: 0,
        hot_save_size_max: 0,
        tail_size: random.pick(&[80, 128, 256, 1024]) * 1024,
        inflight_size_max: random.pick(&[72, 128, 512]) * 1024,
        session_timeout_ns: random.pick(&[2, 5, 20, 60]) * 1000 * MS,
        prefer_leaders: random.chance(500),
        clients: usize::try_from(random.between(1, 3)).expect("small"),
        commands: random.between(20, 90),
        window_len: random.pick(&[1, 1, 2, 8, 64]),
        think_ns: random.pick(&[5, 40, 120, 300]) * MS,
        keys: random.pick(&[1, 3, 12]),
        large_per_mille: random.pick(&[0, 0, 20, 200]),
        close_per_mille: random.pick(&[0, 0, 0, 30]),
        latency_ns: random.pick(&[(20_000, 30_000), (50_000, 500_000), (200_000, 4_000_000), (2_000_000, 20_000_000)]),
        bandwidth: random.pick(&[10, 100, 1000, 1000]),
        cuts_per_mille: random.pick(&[0, 100, 600]),
        unruly_per_mille: if unruly { random.pick(&[10, 100]) } else { 0 },
        disk_ns: random.pick(&[(15_000, 20_000), (80_000, 400_000), (1_000_000, 8_000_000)]),
        drift_ppm: random.pick(&[0, 50, 500]),
        offset_ns: random.pick(&[0, 1, 3_600_000]) * 1_000_000,
        duration_ns: random.between(2500, 7000) * MS,
        slow_blocks_ns: random.pick(&[0, 0, 0, 0, 0, 0, 40, 300]) * MS,
        questions: 0,
        question_ns: 0,
    };
    if slow_disk {
        options.disk_ns = (5_000_000, 60_000_000);
    }
    if let Some(duration) = profile.duration_ns {
        options.duration_ns = duration;
    }
    grow(&mut Random::stream(seed, "members"), profile, &mut options);
    ask(&mut Random::stream(seed, "reading"), profile, &mut options);
    let snapshots = &mut Random::stream(seed, "snapshots");
    options.snapshot_segments = snapshots.pick(&[0, 0, 1, 1, 2]);
    // Half of the seeds have the shadow take them all, the others only what is not small.
    options.hot_save_size_max = snapshots.pick(&[0, 0, 300, 8192]);
    (profile.adjust)(&mut options);
    options.timing.lease_ns = lease(&mut Random::stream(seed, "lease"), profile, &options.timing);
    options
}

/// Some more nodes that may join. Only where acknowledgements wait for the disk: see [`crate::budget`].
fn grow(random: &mut Random, profile: &Profile, options: &mut Options) {
    if options.durability == Durability::Durable && random.chance(profile.growing_per_mille) {
        (options.voters, options.nodes) = random.pick(&[(1, 3), (3, 4), (3, 4), (3, 5), (3, 6), (4, 5), (5, 5)]);
    }
}

fn ask(random: &mut Random, profile: &Profile, options: &mut Options) {
    if random.chance(profile.asking_per_mille) {
        options.questions = random.between(5, 100);
        options.question_ns = random.pick(&[5, 40, 120, 300]) * MS;
    }
}

fn lease(random: &mut Random, profile: &Profile, timing: &Timing) -> u64 {
    let length = random.between(1, timing.election_min_ns);
    let longest = random.chance(500);
    match random.chance(profile.lease_per_mille) {
        false => 0,
        true if longest => timing.election_min_ns,
        true => length,
    }
}
