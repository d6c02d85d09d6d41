//! The log against a model disk: power cuts, rot, rolls, truncations, restarts.
//!
//! `disk` begins with the fault model; `replica` drives a writer and knows what every recovery may find.

mod crash;
mod disk;
mod holes;
mod refusals;
mod replica;
mod rot;
mod segments;
mod tail;
