//! Judging a Linux host for low-latency work: what was found, what is wanted, why, and how to change it.
//!
//! [`check`] reads `/proc` and `/sys` (under a root of the caller's choice, so that a test brings its own host) and, when
//! [`Options::probe`] is set, tries two things on the running kernel: to create a ring as a shard does, and to write a
//! block with O_DIRECT where the log would lie. It changes nothing. Each answer is a [`Finding`]; a [`Report`] has them all.

#![forbid(unsafe_code)]

mod cpu;
mod disk;
mod finding;
mod host;
mod interrupts;
mod kernel;
mod memory;
mod network;

use std::path::PathBuf;

pub use finding::{Finding, Grade, Report};
pub use host::{CpuList, CpuListError};

/// What to judge.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where `proc` and `sys` are found; `/` on a real host.
    pub sysroot: PathBuf,
    /// The cores that shards run on; the isolated ones when `None`.
    pub cores: Option<CpuList>,
    /// Where the logs will lie; the disk is not judged when `None`.
    pub data: Option<PathBuf>,
    /// Whether to try rings and O_DIRECT on the running kernel.
    pub probe: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { sysroot: PathBuf::from("/"), cores: None, data: None, probe: true }
    }
}

/// Judges a host. Whatever cannot be read is a finding of its own, never an error.
pub fn check(options: &Options) -> Report {
    let host = host::Host::new(&options.sysroot);
    let critical = options.cores.clone().or_else(|| host.cpu_list(cpu::ISOLATED)).unwrap_or_default();
    let mut findings = Vec::new();
    findings.extend(cpu::findings(&host, &critical));
    findings.extend(interrupts::findings(&host, &critical));
    findings.extend(memory::findings(&host));
    findings.extend(kernel::findings(&host, options.probe));
    if let Some(data) = &options.data {
        findings.extend(disk::findings(&host, data, options.probe));
    }
    findings.extend(network::findings(&host));
    Report { findings }
}
