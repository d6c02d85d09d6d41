//! Deterministic simulation of whole clusters: nodes, shards, clients and background work in one thread, from one seed.
//!
//! The code that runs is the production code: [`evershard_node::shard::Shard`] and all below it, starting from
//! [`evershard_node::start`], the log's writer and recovery, consensus, and the client's session. Only the world is a
//! model: time, disks, network, operators. A run is a function of its seed; whatever is found comes again.
//!
//! # How to use it
//!
//! ```text
//! cargo run --release -p evershard-sim                          a minute of seeds nobody has tried
//! cargo run --release -p evershard-sim -- --minutes 60          more of them
//! cargo run --release -p evershard-sim -- --seeds 0..1000       these
//! cargo run --release -p evershard-sim -- --seed 350            one, with everything that happens
//! cargo run --release -p evershard-sim -- --seeds 0..200 --twice    is a run a function of its seed?
//! cargo run --release -p evershard-sim -- --bug map-order --seeds 0..50
//! cargo run --release -p evershard-sim -- --prove               are all known bugs found?
//! ```
//!
//! It ends with 1 if anything was found. A finding is made small (faults are left out, then clients, commands and time,
//! as long as the same rule is broken) and printed with its faults, the end of its trace, and the line that runs it again.
//!
//! # A run
//!
//! First everything may go wrong, for some seconds of the run's time, while clients work. Then all trouble is over: links,
//! disks and processes work, what says that it cannot go on is restarted, clients finish. Everything must be answered and
//! all replicas must hold the same, in time.
//!
//! * [`plan`] draws the cluster, its load and the list of faults; [`profile`] has the mixes. Which kinds of faults a seed
//!   has at all is drawn first.
//! * [`world`] is the queue of events; [`turns`], [`faults`] and [`operators`] say what
//!   each brings about; [`run`] is the order of it all.
//! * [`env`](mod@env) stands below a shard. [`disk`], [`shelf`] (its snapshots), [`network`] and [`clock`] are the models;
//!   **each begins with its fault model**. [`background`] runs the production shadow. [`budget`] says what is not done because no correct system survives it.
//! * [`service`] is what the clusters run, [`client`] who uses it.
//! * [`oracle`] judges: its page has the table of rules. [`wgl`] searches histories for an order that explains them.
//! * [`shrink`] makes findings small. [`script`] does by hand what plans do by chance: named scenarios are written with it.
//!   [`salvage`] is what an operator does who has lost a quorum. `COVERAGE.md` says which scenario is shown by which test, and what is open.
//!
//! # How to read a trace
//!
//! ```text
//!    1.217937 --     fault #1 at 1217 ms for 1153 ms: Pause(Leader(0))
//!    1.831885 n0.s0  is PreCandidate of t1, log up to 178864
//!    2.284123 c1     is welcome
//! ```
//!
//! Time of the run in seconds; where: a node with a shard, a client (`c1`), or the whole (`--`); what. `says` is what the
//! replica tells people by a notice. Positions are byte offsets in the shard's log. `#1` is the fault's place in the list of
//! the seed, by which `--keep` names it.
//!
//! # It finds bugs
//!
//! Known bugs are switched on one by one (`evershard_protocol::bugs`), each with a mix and a bound of seeds within which it
//! has to be found ([`bugs`]). Seeds needed, from 0 on, by `--prove` at commit e856c62 (a virtual machine of 2 cores, kernel
//! 6.18, beside other work). They change with every change to a mix; the bound is what is held:
//!
//! | bug | mix | bound | seeds | found as |
//! |---|---|---|---|---|
//! | `commit-prior-term` | figure-eight | 2000 | 555 | `refused-start` |
//! | `vote-not-durable` | elections | 1000 | 1 | `few-votes` |
//! | `ack-before-durable` | blackouts | 50 | 3 | `log-differs` |
//! | `received-as-durable` | blackouts | 100 | 5 | `leader-lacks` |
//! | `truncate-on-checksum` | damage | 500 | 2 | `leader-lacks` |
//! | `duplicate-reexecuted` | standard | 50 | 5 | `executed-twice` |
//! | `timer-fired-locally` | standard | 50 | 1 | `state-differs` |
//! | `stale-block-accepted` | damage | 200 | 1 | `false-fault` |
//! | `write-error-ignored` | standard | 200 | 87 | `false-fault` |
//! | `commit-ahead-of-data` | figure-eight | 200 | 1 | `log-differs` |
//! | `map-order` | standard | 50 | 1 | `state-differs` |
//! | `ack-overwritten` | overwrites | 6000 | 51 | `position-order` |
//! | `recovering-counts` | damage | 500 | 7 | `leader-lacks` |
//! | `vote-for-shorter-log` | standard | 100 | 33 | `leader-lacks` |
//! | `time-goes-back` | standard | 100 | 1 | `record-time` |
//! | `read-unconfirmed` | reads | 100 | 9 | `stale-read` |
//! | `lease-across-transfer` | hand-overs | 1000 | 58 | `stale-read` |
//! | `joint-left-early` | members | 50 | 1 | `membership` |
//! | `joint-one-majority` | members | 500 | 68 | `few-votes` |
//! | `membership-at-commit` | members | 1000 | 50 | `few-votes` |
//! | `hole-as-absent` | damage | 200 | 2 | `leader-lacks` |
//! | `snapshot-without-sessions` | snapshots | 100 | 1 | `state-differs` |
//! | `trim-before-publish` | snapshots | 100 | 4 | `refused-start` |
//!
//! The same machine and commit, `--minutes 10` at nice 19 beside `.ci/run`: no finding, 5,193 seeds, 513 a minute; 7.74 hours
//! simulated, 742,623 replies and 371,392 answers checked, 23,066 elections, 30,884 process starts, 4,063 snapshots. Some
//! commits before, at 587cb4d, the standard mix made 1,430 seeds a minute without such company.
//!
//! # What is not modelled
//!
//! Segments are prepared at once, after a delay; a crash in the middle of that leaves nothing. The shadow reads the log in one
//! step, not chunk by chunk. Two processes of one node never run at once.
#![forbid(unsafe_code)]

pub mod background;
pub mod budget;
pub mod bugs;
pub mod client;
pub mod clock;
pub mod disk;
pub mod env;
pub mod faults;
pub mod history;
pub mod network;
pub mod node;
pub mod operators;
pub mod oracle;
pub mod panics;
pub mod plan;
pub mod profile;
pub mod random;
pub mod report;
pub mod run;
pub mod salvage;
pub mod script;
pub mod service;
pub mod shelf;
pub mod shrink;
pub mod stats;
pub mod trace;
pub mod turns;
pub mod wgl;
pub mod world;
