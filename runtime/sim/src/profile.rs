//! Mixes of faults: which kinds, how often, with what cluster.

use evershard_consensus::Durability;

use crate::plan::{Fault, MS, Options, Planned, Who};
use crate::random::Random;

/// One kind of fault in a mix: how often relative to the others, how long, and how it is drawn.
#[derive(Clone, Copy)]
pub struct Share {
    /// Relative frequency.
    pub weight: u64,
    /// Shortest and longest duration, in milliseconds.
    pub for_ms: (u64, u64),
    /// Makes one.
    pub draw: fn(&mut Draw<'_>) -> Fault,
}

/// What a fault is drawn from.
pub struct Draw<'a> {
    /// The stream.
    pub random: &'a mut Random,
    /// The cluster.
    pub options: &'a Options,
}

impl Draw<'_> {
    /// A node, or a leader: those are hit more often than their number tells.
    pub fn who(&mut self) -> Who {
        if self.random.chance(400) { Who::Leader(self.shard()) } else { Who::Node(self.node()) }
    }

    /// A leader.
    pub fn leader(&mut self) -> Who {
        Who::Leader(self.shard())
    }

    /// Any node.
    pub fn node(&mut self) -> usize {
        self.random.index(self.options.nodes)
    }

    /// Any shard.
    pub fn shard(&mut self) -> usize {
        self.random.index(self.options.shards)
    }

    /// Any client.
    pub fn client(&mut self) -> usize {
        self.random.index(self.options.clients * self.options.shards)
    }
}

/// A mix.
#[derive(Clone)]
pub struct Profile {
    /// Its name on a command line.
    pub name: &'static str,
    /// Its kinds of faults.
    pub shares: Vec<Share>,
    /// In a thousand: each kind is left out of a seed so often.
    pub off_per_mille: u64,
    /// Mean time between two faults in milliseconds: the shortest and the longest that a seed may have.
    pub every_ms: (u64, u64),
    /// Nodes, if not drawn.
    pub nodes: Option<usize>,
    /// Shards, if not drawn.
    pub shards: Option<usize>,
    /// Durability, if not drawn.
    pub durability: Option<Durability>,
    /// In a thousand: more seeds with slow disks.
    pub slow_disk_per_mille: u64,
    /// In a thousand: seeds with nodes that may join, where durability allows it.
    pub growing_per_mille: u64,
    /// In a thousand: seeds whose clients ask questions.
    pub asking_per_mille: u64,
    /// In a thousand: seeds with leases.
    pub lease_per_mille: u64,
    /// Duration, if not drawn.
    pub duration_ns: Option<u64>,
    /// The last word on the options.
    pub adjust: fn(&mut Options),
}

impl Profile {
    /// The faults of a seed.
    #[must_use]
    pub fn faults(&self, seed: u64, options: &Options) -> Vec<Planned> {
        let mut random = Random::stream(seed, "faults");
        let shares: Vec<Share> = self.shares.iter().filter(|_| !random.chance(self.off_per_mille)).copied().collect();
        let total: u64 = shares.iter().map(|share| share.weight).sum();
        let mut faults = Vec::new();
        if total == 0 {
            return faults;
        }
        let every = random.between(self.every_ms.0, self.every_ms.1) * MS;
        let mut at = random.between(0, 800 * MS);
        while at < options.duration_ns {
            let index = faults.len();
            let mut own = Random::numbered(seed, "fault", index as u64);
            let share = choose(&shares, own.below(total));
            let for_ns = own.between(share.for_ms.0 * MS, share.for_ms.1 * MS);
            let fault = (share.draw)(&mut Draw { random: &mut own, options });
            faults.push(Planned { index, at, for_ns, fault });
            at += random.between(every / 4, every * 7 / 4).max(1);
        }
        faults
    }
}

fn choose(shares: &[Share], mut ticket: u64) -> Share {
    for share in shares {
        if ticket < share.weight {
            return *share;
        }
        ticket -= share.weight;
    }
    unreachable!("the ticket is below the sum of all weights")
}

fn share(weight: u64, for_ms: (u64, u64), draw: fn(&mut Draw<'_>) -> Fault) -> Share {
    Share { weight, for_ms, draw }
}

/// Everything that may go wrong.
#[must_use]
pub fn standard() -> Profile {
    Profile {
        name: "standard",
        shares: vec![
            share(10, (20, 1500), |draw| Fault::Kill(draw.who())),
            share(6, (20, 2500), |draw| Fault::PowerLoss(draw.who())),
            share(3, (20, 800), |_| Fault::Blackout),
            share(5, (20, 1500), |draw| Fault::Stop(draw.who())),
            share(5, (20, 2000), |draw| Fault::Pause(draw.who())),
            share(1, (5000, 30_000), |draw| Fault::Pause(draw.who())),
            share(3, (20, 1000), |draw| Fault::PauseInTurn(draw.who())),
            share(2, (50, 1000), |draw| Fault::Wipe(draw.who())),
            share(5, (50, 2500), |draw| Fault::CutOneWay(draw.who(), draw.node())),
            share(5, (50, 2500), |draw| Fault::Cut(draw.who(), draw.node())),
            share(6, (50, 2500), |draw| Fault::Isolate(draw.who(), draw.random.chance(500))),
            share(3, (1, 1), |draw| Fault::Reset(draw.who())),
            share(4, (1, 1), |draw| Fault::ResetClient(draw.client())),
            share(3, (100, 4000), |draw| Fault::CutClient(draw.client())),
            share(2, (100, 3000), |draw| Fault::SlowClient(draw.client())),
            share(3, (100, 3000), |draw| Fault::SlowLink(draw.who(), draw.node(), draw.random.between(1, 120) * MS)),
            share(4, (20, 4000), |draw| Fault::DiskStall(draw.who())),
            share(3, (100, 4000), |draw| Fault::DiskFull(draw.who())),
            share(3, (1, 1), |draw| Fault::WriteError(draw.who(), draw.shard())),
            share(1, (1, 1), |draw| Fault::SlotError(draw.who(), draw.shard())),
            share(2, (1, 1), |draw| Fault::LostWrite(draw.who(), draw.shard())),
            share(2, (1, 1), |draw| Fault::Misdirected(draw.who(), draw.shard())),
            share(4, (1, 1), |draw| Fault::Rot(draw.who(), draw.shard(), draw.random.any())),
            share(2, (1, 1), |draw| Fault::SlotRot(draw.who(), draw.shard(), draw.random.any())),
            share(2, (1, 1), |draw| Fault::BadRead(draw.who(), draw.shard())),
            share(3, (20, 500), |draw| Fault::LeftOver(draw.who(), draw.shard())),
            share(4, (1, 1), |draw| Fault::ClockJump(draw.who(), jump(draw.random))),
            share(4, (1, 1), |draw| Fault::Transfer(draw.shard(), draw.node())),
            share(2, (1, 1), |draw| Fault::Digest(draw.shard())),
            share(6, (1, 1), |draw| Fault::Snapshot(draw.who(), draw.shard())),
            share(1, (1, 1), |draw| Fault::SnapshotRot(draw.who(), draw.shard(), draw.random.any())),
            share(4, (1, 1), |draw| Fault::MemberAdd(draw.shard(), draw.node())),
            share(4, (1, 1), |draw| Fault::MemberPromote(draw.shard(), draw.node())),
            share(4, (1, 1), |draw| Fault::MemberRemove(draw.shard(), draw.who())),
        ],
        off_per_mille: 450,
        every_ms: (60, 1200),
        nodes: None,
        shards: None,
        durability: None,
        slow_disk_per_mille: 0,
        growing_per_mille: 300,
        asking_per_mille: 500,
        lease_per_mille: 200,
        duration_ns: None,
        adjust: |_| {},
    }
}

fn jump(random: &mut Random) -> i64 {
    let ms: i64 = random.pick(&[1, 50, 2000, 3_600_000]);
    if random.chance(500) { ms * 1_000_000 } else { -ms * 1_000_000 }
}

/// Five nodes whose leaders fall right after they were elected, with logs that differ at their ends (Raft, figure 8).
#[must_use]
pub fn figure_eight() -> Profile {
    Profile {
        name: "figure-eight",
        shares: vec![
            share(10, (30, 600), |draw| Fault::PowerLoss(draw.leader())),
            share(6, (30, 900), |draw| Fault::PowerLoss(Who::Node(draw.node()))),
            share(10, (50, 700), |draw| Fault::Isolate(draw.leader(), false)),
            share(8, (50, 900), |draw| Fault::Cut(draw.leader(), draw.node())),
            share(4, (50, 900), |draw| Fault::CutOneWay(draw.leader(), draw.node())),
        ],
        off_per_mille: 150,
        every_ms: (30, 120),
        nodes: Some(5),
        shards: Some(1),
        durability: Some(Durability::Durable),
        adjust: |options| {
            options.clients = 3;
            options.commands = 120;
            options.think_ns = 15 * MS;
            options.latency_ns = (3_000_000, 12_000_000);
            options.inflight_size_max = 72 * 1024;
            options.tail_size = 1024 * 1024;
            options.large_per_mille = 500;
            options.window_len = 16;
            options.bandwidth = 100;
            options.disk_ns = (50_000, 300_000);
            options.slow_blocks_ns = 40 * MS;
            options.duration_ns = 3500 * MS;
            options.timing = evershard_consensus::Timing {
                heartbeat_ns: 10 * MS,
                election_min_ns: 60 * MS,
                election_max_ns: 120 * MS,
                stall_ns: 40 * MS,
                lease_ns: 0,
            };
        },
        growing_per_mille: 0,
        ..standard()
    }
}

/// Elections all the time, slow writes of votes, and voters that fall right after they have voted.
#[must_use]
pub fn elections() -> Profile {
    Profile {
        name: "elections",
        shares: vec![
            share(10, (5, 60), |draw| Fault::Kill(Who::Node(draw.node()))),
            share(12, (5, 60), |draw| Fault::PowerLoss(Who::Node(draw.node()))),
            share(8, (30, 400), |draw| Fault::Isolate(draw.leader(), false)),
            share(4, (1, 1), |draw| Fault::Reset(draw.leader())),
            share(4, (1, 1), |draw| Fault::Transfer(draw.shard(), draw.node())),
            share(4, (30, 300), |draw| Fault::CutOneWay(draw.who(), draw.node())),
        ],
        off_per_mille: 100,
        every_ms: (25, 120),
        nodes: Some(3),
        durability: Some(Durability::Durable),
        slow_disk_per_mille: 800,
        adjust: |options| {
            options.timing = evershard_consensus::Timing {
                heartbeat_ns: 10 * MS,
                election_min_ns: 30 * MS,
                election_max_ns: 60 * MS,
                stall_ns: 40 * MS,
                lease_ns: 0,
            };
            options.latency_ns = (200_000, 3_000_000);
        },
        growing_per_mille: 0,
        ..standard()
    }
}

/// The power of all goes again and again while disks are slow.
#[must_use]
pub fn blackouts() -> Profile {
    Profile {
        name: "blackouts",
        shares: vec![
            share(10, (20, 300), |_| Fault::Blackout),
            share(4, (20, 600), |draw| Fault::PowerLoss(draw.who())),
            share(3, (20, 400), |draw| Fault::DiskStall(draw.who())),
            share(2, (1, 1), |draw| Fault::WriteError(draw.who(), draw.shard())),
        ],
        off_per_mille: 200,
        every_ms: (150, 700),
        nodes: Some(3),
        durability: Some(Durability::Durable),
        slow_disk_per_mille: 500,
        adjust: |options| options.think_ns = 10 * MS,
        growing_per_mille: 0,
        ..standard()
    }
}

/// Disks that damage what they hold, and starts that have to find out.
#[must_use]
pub fn damage() -> Profile {
    Profile {
        name: "damage",
        shares: vec![
            share(8, (10, 600), |draw| Fault::PowerLoss(draw.who())),
            share(6, (10, 600), |draw| Fault::Kill(draw.who())),
            share(8, (1, 1), |draw| Fault::Rot(draw.who(), draw.shard(), draw.random.any())),
            share(3, (1, 1), |draw| Fault::LostWrite(draw.who(), draw.shard())),
            share(3, (1, 1), |draw| Fault::Misdirected(draw.who(), draw.shard())),
            share(4, (1, 1), |draw| Fault::SlotRot(draw.who(), draw.shard(), draw.random.any())),
            share(5, (20, 400), |draw| Fault::Wipe(draw.who())),
            share(6, (20, 300), |draw| Fault::LeftOver(draw.who(), draw.shard())),
            share(5, (100, 1500), |draw| Fault::Isolate(draw.who(), false)),
            share(3, (20, 800), |draw| Fault::DiskStall(draw.who())),
        ],
        off_per_mille: 250,
        every_ms: (60, 400),
        nodes: Some(3),
        adjust: |options| options.think_ns = 20 * MS,
        growing_per_mille: 0,
        ..standard()
    }
}

/// Logs that are cut and written anew while the disk is still busy with what was cut, and then the power goes.
#[must_use]
pub fn overwrites() -> Profile {
    Profile {
        name: "overwrites",
        shares: vec![
            share(6, (20, 200), |_| Fault::Blackout),
            share(6, (20, 300), |draw| Fault::PowerLoss(draw.who())),
            share(12, (80, 250), |draw| Fault::Isolate(draw.leader(), false)),
        ],
        off_per_mille: 0,
        every_ms: (50, 160),
        nodes: Some(3),
        shards: Some(1),
        durability: Some(Durability::Durable),
        adjust: |options| {
            options.disk_ns = (50_000, 100_000);
            options.slow_blocks_ns = 300 * MS;
            options.latency_ns = (50_000, 300_000);
            options.tail_size = 1024 * 1024;
            options.clients = 3;
            options.commands = 200;
            options.window_len = 8;
            options.think_ns = 5 * MS;
            options.timing = evershard_consensus::Timing {
                heartbeat_ns: 10 * MS,
                election_min_ns: 40 * MS,
                election_max_ns: 80 * MS,
                stall_ns: 40 * MS,
                lease_ns: 0,
            };
        },
        asking_per_mille: 0,
        lease_per_mille: 0,
        growing_per_mille: 0,
        ..standard()
    }
}

/// Leaders that are replaced unawares, or that hand over, while everybody asks: cut off from the others but not from
/// clients, stopped in the middle of a turn, with slow and broken links at the moment of a transfer.
#[must_use]
pub fn reads() -> Profile {
    Profile {
        name: "reads",
        shares: vec![
            share(10, (60, 900), |draw| Fault::Isolate(draw.leader(), false)),
            share(6, (40, 600), |draw| Fault::Cut(draw.leader(), draw.node())),
            share(6, (40, 600), |draw| Fault::Sever(draw.leader(), draw.node())),
            share(6, (40, 400), |draw| Fault::SlowLink(draw.who(), draw.node(), draw.random.between(5, 100) * MS)),
            share(12, (1, 1), |draw| Fault::Transfer(draw.shard(), draw.node())),
            share(8, (20, 500), |draw| Fault::PauseInTurn(draw.who())),
            share(4, (20, 500), |draw| Fault::Pause(draw.who())),
            share(3, (20, 300), |draw| Fault::Kill(draw.who())),
            share(2, (20, 300), |draw| Fault::PowerLoss(draw.who())),
            share(2, (1, 1), |draw| Fault::Reset(draw.who())),
        ],
        off_per_mille: 250,
        every_ms: (15, 200),
        nodes: Some(3),
        shards: Some(1),
        asking_per_mille: 1000,
        lease_per_mille: 700,
        adjust: |options| {
            options.clients = 3;
            options.commands = 150;
            options.think_ns = 20 * MS;
            options.questions = 300;
            options.question_ns = 10 * MS;
            options.duration_ns = 3500 * MS;
        },
        growing_per_mille: 0,
        ..standard()
    }
}

/// Leaders that hand over and are alone at the next moment, while everybody asks.
#[must_use]
pub fn hand_overs() -> Profile {
    Profile {
        name: "hand-overs",
        shares: vec![
            share(12, (1, 1), |draw| Fault::Transfer(draw.shard(), draw.node())),
            share(10, (60, 400), |draw| Fault::Sever(draw.leader(), draw.node())),
            share(3, (40, 400), |draw| Fault::Cut(draw.leader(), draw.node())),
        ],
        off_per_mille: 0,
        every_ms: (15, 60),
        slow_disk_per_mille: 800,
        lease_per_mille: 1000,
        adjust: |options| {
            options.clients = 3;
            options.commands = 60;
            options.questions = 400;
            options.question_ns = 10 * MS;
            options.duration_ns = 3500 * MS;
        },
        ..reads()
    }
}

/// Members come, become voters and go, one after the other, while leaders fall and links break.
#[must_use]
pub fn members() -> Profile {
    Profile {
        name: "members",
        shares: vec![
            share(10, (1, 1), |draw| Fault::MemberAdd(draw.shard(), draw.node())),
            share(14, (1, 1), |draw| Fault::MemberPromote(draw.shard(), draw.node())),
            share(12, (1, 1), |draw| Fault::MemberRemove(draw.shard(), draw.who())),
            share(8, (30, 700), |draw| Fault::Isolate(draw.leader(), false)),
            share(6, (30, 900), |draw| Fault::Isolate(Who::Node(draw.node()), false)),
            share(8, (30, 700), |draw| Fault::Cut(draw.leader(), draw.node())),
            share(4, (30, 700), |draw| Fault::CutOneWay(draw.leader(), draw.node())),
            share(6, (20, 500), |draw| Fault::PowerLoss(draw.who())),
            share(4, (20, 500), |draw| Fault::Kill(draw.who())),
            share(2, (20, 500), |_| Fault::Blackout),
            share(3, (20, 500), |draw| Fault::Pause(draw.who())),
            share(3, (1, 1), |draw| Fault::Transfer(draw.shard(), draw.node())),
            share(2, (20, 500), |draw| Fault::DiskStall(draw.who())),
            share(2, (20, 400), |draw| Fault::Wipe(draw.who())),
        ],
        off_per_mille: 200,
        every_ms: (20, 150),
        shards: Some(1),
        durability: Some(Durability::Durable),
        growing_per_mille: 1000,
        adjust: |options| {
            options.clients = 2;
            options.think_ns = 20 * MS;
            options.duration_ns = 4000 * MS;
        },
        ..standard()
    }
}

/// Snapshots taken, interrupted, damaged and sent, with logs that are trimmed behind them all the time.
#[must_use]
pub fn snapshots() -> Profile {
    Profile {
        name: "snapshots",
        shares: vec![
            share(16, (1, 1), |draw| Fault::Snapshot(draw.who(), draw.shard())),
            share(6, (20, 600), |draw| Fault::Kill(draw.who())),
            share(6, (20, 600), |draw| Fault::PowerLoss(draw.who())),
            share(2, (20, 300), |_| Fault::Blackout),
            share(6, (20, 400), |draw| Fault::Wipe(draw.who())),
            share(6, (200, 1500), |draw| Fault::Isolate(draw.who(), false)),
            share(3, (50, 900), |draw| Fault::Cut(draw.who(), draw.node())),
            share(3, (1, 1), |draw| Fault::Reset(draw.who())),
            share(3, (20, 900), |draw| Fault::Pause(draw.who())),
            share(3, (100, 900), |draw| Fault::DiskFull(draw.who())),
            share(3, (20, 800), |draw| Fault::DiskStall(draw.who())),
            share(4, (1, 1), |draw| Fault::SnapshotRot(draw.who(), draw.shard(), draw.random.any())),
            share(3, (1, 1), |draw| Fault::Rot(draw.who(), draw.shard(), draw.random.any())),
            share(2, (1, 1), |draw| Fault::BadRead(draw.who(), draw.shard())),
            share(3, (1, 1), |draw| Fault::MemberAdd(draw.shard(), draw.node())),
            share(3, (1, 1), |draw| Fault::MemberPromote(draw.shard(), draw.node())),
            share(3, (1, 1), |draw| Fault::MemberRemove(draw.shard(), draw.who())),
            share(2, (1, 1), |draw| Fault::Transfer(draw.shard(), draw.node())),
        ],
        off_per_mille: 250,
        every_ms: (30, 250),
        shards: Some(1),
        adjust: |options| {
            options.snapshot_segments = 1;
            options.tail_size = 80 * 1024;
            options.clients = 3;
            options.commands = 250;
            options.think_ns = 10 * MS;
            options.segment_size = evershard_log::SEGMENT_SIZE_MIN;
        },
        ..standard()
    }
}

/// All mixes.
#[must_use]
pub fn all() -> Vec<Profile> {
    vec![
        standard(),
        figure_eight(),
        elections(),
        blackouts(),
        damage(),
        overwrites(),
        reads(),
        hand_overs(),
        members(),
        snapshots(),
    ]
}

/// No faults at all: for scripts.
#[must_use]
pub fn calm() -> Profile {
    Profile {
        name: "calm",
        shares: Vec::new(),
        growing_per_mille: 0,
        asking_per_mille: 0,
        lease_per_mille: 0,
        ..standard()
    }
}
