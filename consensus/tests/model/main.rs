//! Model check of the consensus core itself, with stateright: every way that few replicas can go within small bounds.
//!
//! See [`world`] for what is simplified and why that is sound, [`scenario`] for the bounds. The default run takes less
//! than a minute; `EVERSHARD_MODEL_DEPTH=2 cargo test --release --package evershard-consensus --test model --
//! --nocapture` goes two steps further and shows how many states were seen.

mod bugs;
mod check;
mod history;
mod membership;
mod reads;
mod replica;
mod replication;
mod scenario;
mod world;
