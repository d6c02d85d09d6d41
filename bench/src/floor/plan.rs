//! What the floor tries: placements of four processes on cores, ways to wait, and which of these fit a machine.

use serde::{Deserialize, Serialize};

/// The four processes, in the order of [`Placement::cores`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Sends a request, waits for its echo.
    Client,
    /// Sends every request to both followers and answers at a quorum.
    Leader,
    /// Answers the leader; the first of the two is the one placed nearest to it.
    FirstFollower,
    /// Answers the leader.
    SecondFollower,
}

impl Role {
    /// All four, in index order.
    pub const ALL: [Role; 4] = [Role::Client, Role::Leader, Role::FirstFollower, Role::SecondFollower];
}

/// Where the four processes run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Placement {
    /// The kernel's scheduler decides.
    Unpinned,
    /// All four on one core.
    OneCore,
    /// Client and leader on one core, both followers on another.
    FollowersApart,
    /// The leader has a core, the other three share one.
    LeaderAlone,
    /// The client has a core, the cluster shares one.
    ClientAlone,
    /// A quorum (leader, one follower) and the client on one core, the second follower on another.
    QuorumTogether,
    /// One core each.
    CoreEach,
}

impl Placement {
    /// Every placement, in the order of the tables.
    pub const ALL: [Placement; 7] = [
        Placement::Unpinned,
        Placement::OneCore,
        Placement::FollowersApart,
        Placement::LeaderAlone,
        Placement::ClientAlone,
        Placement::QuorumTogether,
        Placement::CoreEach,
    ];

    /// The index of each role's core in the list of usable cores, or `None` where roles are not pinned.
    pub fn cores(self) -> Option<[usize; 4]> {
        match self {
            Placement::Unpinned => None,
            Placement::OneCore => Some([0, 0, 0, 0]),
            Placement::FollowersApart => Some([0, 0, 1, 1]),
            Placement::LeaderAlone => Some([1, 0, 1, 1]),
            Placement::ClientAlone => Some([0, 1, 1, 1]),
            Placement::QuorumTogether => Some([0, 0, 0, 1]),
            Placement::CoreEach => Some([0, 1, 2, 3]),
        }
    }

    /// Whether a role has a core to itself.
    pub fn is_alone(self, role: Role, core_count: usize) -> bool {
        match self.cores() {
            None => core_count > Role::ALL.len(),
            Some(cores) => cores.iter().filter(|&&core| core == cores[role as usize]).count() == 1,
        }
    }

    /// Whether a machine has the cores.
    pub fn fits(self, core_count: usize) -> bool {
        self.cores().is_none_or(|cores| cores.iter().all(|&core| core < core_count))
    }
}

/// How one process waits for its next completion.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Wait {
    /// One enter: submit and wait for one completion; a send's own completion counts.
    Block,
    /// As `Block`, but waits for one more than the sends just submitted.
    BlockCount,
    /// As `Block`, but successful sends post no completion.
    BlockSkip,
    /// As `BlockSkip` on a ring with COOP_TASKRUN in the place of DEFER_TASKRUN.
    BlockCoop,
    /// Enters for events each turn without waiting.
    Spin,
    /// Enters only when there is something to submit or the kernel has flagged work.
    SpinCoop,
    /// As `Spin`, with `sched_yield` after a turn without events.
    Yield,
    /// As `SpinCoop`, with `sched_yield` after a turn without events: the yield itself runs the kernel's work.
    YieldCoop,
    /// Spins for so many turns without events, then blocks as `BlockSkip` does.
    Backoff {
        /// Turns without events before blocking.
        turns: u32,
        /// Whether to yield between them, because the core is shared.
        yielding: bool,
    },
}

impl Wait {
    /// Whether the ring runs completions cooperatively, with a flag, and not only inside enter.
    pub fn is_cooperative(self) -> bool {
        matches!(self, Wait::BlockCoop | Wait::SpinCoop | Wait::YieldCoop)
    }

    /// Whether successful sends post no completion.
    pub fn skips_send_completions(self) -> bool {
        !matches!(self, Wait::Block | Wait::BlockCount)
    }
}

/// How the four processes idle; each role's [`Wait`] follows from it and the placement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Idle {
    /// All block; send completions wake the waiter once for nothing.
    Block,
    /// All block; the wait counts the sends.
    BlockCount,
    /// All block; sends complete silently.
    BlockSkip,
    /// As `block-skip` on cooperative rings.
    BlockCoop,
    /// As `block-skip` under the batch policy: a process that wakes does not preempt the one that woke it.
    BlockBatch,
    /// As `block-skip` under the real-time FIFO policy (needs privilege).
    BlockFifo,
    /// All spin; only where each has a core.
    Spin,
    /// All spin on cooperative rings; only where each has a core.
    SpinCoop,
    /// All spin with `sched_yield`.
    Yield,
    /// All spin with `sched_yield` on cooperative rings.
    YieldCoop,
    /// Who has a core spins there, the others block silently.
    SpinAlone,
    /// Who has a core spins there, the others yield.
    SpinAloneYield,
    /// Spin for a while, yielding on a shared core, then block.
    Backoff,
}

impl Idle {
    /// Every idle mode, in the order of the tables.
    pub const ALL: [Idle; 13] = [
        Idle::Block,
        Idle::BlockCount,
        Idle::BlockSkip,
        Idle::BlockCoop,
        Idle::BlockBatch,
        Idle::BlockFifo,
        Idle::Spin,
        Idle::SpinCoop,
        Idle::Yield,
        Idle::YieldCoop,
        Idle::SpinAlone,
        Idle::SpinAloneYield,
        Idle::Backoff,
    ];

    /// How a process waits that has its core to itself, or not.
    pub fn wait(self, alone: bool) -> Wait {
        match (self, alone) {
            (Idle::Block, _) => Wait::Block,
            (Idle::BlockCount, _) => Wait::BlockCount,
            (Idle::BlockSkip | Idle::BlockBatch | Idle::BlockFifo, _) | (Idle::SpinAlone, false) => Wait::BlockSkip,
            (Idle::BlockCoop, _) => Wait::BlockCoop,
            (Idle::Spin | Idle::SpinAlone | Idle::SpinAloneYield, true) | (Idle::Spin, false) => Wait::Spin,
            (Idle::SpinCoop, _) => Wait::SpinCoop,
            (Idle::Yield, _) | (Idle::SpinAloneYield, false) => Wait::Yield,
            (Idle::YieldCoop, _) => Wait::YieldCoop,
            (Idle::Backoff, alone) => Wait::Backoff { turns: BACKOFF_TURNS, yielding: !alone },
        }
    }

    fn fits(self, placement: Placement, core_count: usize) -> bool {
        let alone = Role::ALL.iter().filter(|&&role| placement.is_alone(role, core_count)).count();
        match self {
            Idle::Spin | Idle::SpinCoop => alone == Role::ALL.len(),
            Idle::SpinAlone | Idle::SpinAloneYield => alone > 0 && alone < Role::ALL.len(),
            _ => true,
        }
    }
}

/// What the client uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum ClientKind {
    /// `send` and `recv` on a blocking socket.
    Syscalls,
    /// A ring that waits as the placement and idle mode say.
    Ring,
}

/// One thing to try.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Combination {
    /// Where the processes run.
    pub placement: Placement,
    /// How they idle.
    pub idle: Idle,
    /// What the client uses.
    pub client: ClientKind,
}

/// Every combination that makes sense on a machine with so many usable cores.
pub fn combinations(core_count: usize) -> Vec<Combination> {
    let mut all = Vec::new();
    for placement in Placement::ALL.into_iter().filter(|placement| placement.fits(core_count)) {
        for idle in Idle::ALL.into_iter().filter(|idle| idle.fits(placement, core_count)) {
            all.push(Combination { placement, idle, client: ClientKind::Ring });
            let client_blocks = matches!(
                idle.wait(placement.is_alone(Role::Client, core_count)),
                Wait::BlockSkip | Wait::Backoff { .. }
            );
            if client_blocks {
                all.push(Combination { placement, idle, client: ClientKind::Syscalls });
            }
        }
    }
    all
}

/// Turns without events before a backing-off process blocks: some tens of microseconds.
const BACKOFF_TURNS: u32 = 50;
