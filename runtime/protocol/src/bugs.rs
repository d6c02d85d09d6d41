//! Known bugs, to be switched on by the simulator and the model check: what does not find them proves nothing.
//!
//! Compiled in by the feature `bugs`, which only `evershard-sim` and the tests of the consensus core ask for; without
//! it [`is_on`] is the constant `false` and every switch is compiled away. At most one bug is on at a time, per thread:
//! a simulated cluster lives on one thread.

macro_rules! bugs {
    ($($(#[$doc:meta])* $name:ident = $slug:literal,)*) => {
        /// A mistake that somebody has made in a system like this one.
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, PartialOrd, Ord)]
        pub enum Bug { $($(#[$doc])* $name,)* }
        impl Bug {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];
            /// Its name on a command line.
            #[must_use]
            pub fn slug(self) -> &'static str {
                match self { $(Self::$name => $slug,)* }
            }
            /// The bug with this name.
            #[must_use]
            pub fn from_slug(slug: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|bug| bug.slug() == slug)
            }
        }
    };
}

bugs! {
    /// A leader commits records of earlier terms by counting replicas (Raft, figure 8).
    CommitPriorTerm = "commit-prior-term",
    /// A vote is told before it is on stable storage.
    VoteNotDurable = "vote-not-durable",
    /// A block counts as durable as soon as it was handed to the disk.
    AckBeforeDurable = "ack-before-durable",
    /// A follower reports what it has received as durable.
    ReceivedAsDurable = "received-as-durable",
    /// A leader keeps its lease while it hands over.
    LeaseAcrossTransfer = "lease-across-transfer",
    /// A leader serves a read without asking whether it still leads.
    ReadUnconfirmed = "read-unconfirmed",
    /// Recovery takes a block whose checksum is wrong for a torn tail and cuts the log there.
    TruncateOnChecksum = "truncate-on-checksum",
    /// A command that was sent again is executed again.
    DuplicateReexecuted = "duplicate-reexecuted",
    /// A replica fires a timer by its own clock instead of by the record.
    TimerFiredLocally = "timer-fired-locally",
    /// Recovery accepts a block that an earlier life of the segment's file left behind.
    StaleBlockAccepted = "stale-block-accepted",
    /// A failed write counts as done.
    WriteErrorIgnored = "write-error-ignored",
    /// A follower believes the leader's commit position beyond what it has verified.
    CommitAheadOfData = "commit-ahead-of-data",
    /// A service lets the order of a hash map into its replies and state.
    MapOrder = "map-order",
    /// A joint configuration is left before it is committed.
    JointLeftEarly = "joint-left-early",
    /// One majority decides while a joint configuration asks for two.
    JointOneMajority = "joint-one-majority",
    /// A configuration takes effect when it is committed, not when it is appended.
    MembershipAtCommit = "membership-at-commit",
    /// The late completion of a write that was cut away acknowledges what stands there now.
    AckOverwritten = "ack-overwritten",
    /// The word of a replica that has lost its disk counts at once.
    RecoveringCounts = "recovering-counts",
    /// A voter grants its vote to a candidate whose log is behind.
    VoteForShorterLog = "vote-for-shorter-log",
    /// A hole in the log is treated as if the records had never been there.
    HoleAsAbsent = "hole-as-absent",
    /// A snapshot leaves the sessions out.
    SnapshotWithoutSessions = "snapshot-without-sessions",
    /// The log is dropped when a snapshot is begun, not when it is durable.
    TrimBeforePublish = "trim-before-publish",
    /// Record time is the leader's clock, even if that goes back.
    TimeGoesBack = "time-goes-back",
}

/// Whether the switches are compiled into this build.
pub const COMPILED_IN: bool = cfg!(feature = "bugs");

#[cfg(feature = "bugs")]
thread_local! {
    static ON: std::cell::Cell<Option<Bug>> = const { std::cell::Cell::new(None) };
}

/// Whether this bug is switched on, on this thread.
#[cfg(feature = "bugs")]
#[must_use]
pub fn is_on(bug: Bug) -> bool {
    ON.get() == Some(bug)
}

/// Whether this bug is switched on: never in this build.
#[cfg(not(feature = "bugs"))]
#[inline(always)]
#[must_use]
pub const fn is_on(_bug: Bug) -> bool {
    false
}

/// Switches a bug on, or all off, on this thread.
#[cfg(feature = "bugs")]
pub fn switch(bug: Option<Bug>) {
    ON.set(bug);
}
