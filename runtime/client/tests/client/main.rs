//! The client against scripted, hostile, modelled and real (loopback) servers.

mod fake;
mod hostile;
mod liveness;
mod loopback;
mod model;
mod scenarios;
mod server;
