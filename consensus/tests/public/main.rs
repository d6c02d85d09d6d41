//! Public tables of what a correct Raft core does, run against this one.
//!
//! The tables are etcd's (Apache-2.0) and lie beside the repository in `../shared/data/raft-scenarios`; where that
//! folder is missing only our own small samples of the same format run. Quorums and configurations are compared with
//! the files text by text. Interactions are replayed by scripts of our own, since messages, timers and logs differ by
//! design; each script says in its first paragraph what differs and why.

mod confchange;
mod coverage;
mod datadriven;
mod quorums;
mod script;
mod scripts;
mod shown;
#[path = "../stage/mod.rs"]
mod stage;
