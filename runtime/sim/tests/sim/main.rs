//! The simulator under test, and the cluster under the simulator.

mod histories;
mod leases;
mod scenarios;
mod seeds;
