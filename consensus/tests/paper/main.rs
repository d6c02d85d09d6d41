//! The rules of the Raft paper (extended version, 2014) and of the thesis, one test for each that this core implements,
//! named after the section. Every test drives the core directly, on the stage or one replica alone.

mod alone;
mod changes;
mod elections;
mod reads;
mod replication;
#[path = "../stage/mod.rs"]
mod stage;
