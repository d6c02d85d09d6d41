//! Measuring Evershard: what the machine can do, and what the product adds to it.
//!
//! - [`floor`]: the machine's limit for a three-hop quorum echo, over raw rings, without product code.
//! - [`latency`]: a cluster under an open-loop load, beside the floor of the same run.
//! - [`schedule`]: when a load generator should send, so that no pause is left out.
//! - [`report`]: tables, JSON, interval logs, percentile plots.
//!
//! Only `floor`'s ring contains `unsafe`.

pub mod floor;
pub mod latency;
pub mod report;
pub mod schedule;
