//! The simulator under test, and the cluster under the simulator.

mod coverage;
mod histories;
mod leases;
mod scenarios;
mod seeds;
