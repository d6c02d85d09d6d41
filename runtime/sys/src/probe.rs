//! Whether this kernel can run a shard, and if not, what is missing and what to do about it.

use std::{fs, io};

/// A ring could not be set up.
#[derive(Debug, thiserror::Error)]
#[error("cannot set up an io_uring: {what}\n\nhint: {hint}")]
pub struct RingError {
    /// What was refused.
    pub what: String,
    /// What to do about it.
    pub hint: String,
    /// The kernel's word.
    #[source]
    pub source: io::Error,
}

/// Explains why the kernel refused to set up a ring with `memory` bytes of its own.
#[must_use]
pub fn explain(source: io::Error) -> RingError {
    let (what, hint) = match source.raw_os_error() {
        Some(libc::ENOSYS) => (
            "this kernel has no io_uring".to_owned(),
            "Evershard needs Linux 6.1 or newer with CONFIG_IO_URING; `uname -r` says what is running. A sandbox or \
             container may also hide it with a seccomp filter: allow io_uring_setup, io_uring_enter and \
             io_uring_register."
                .to_owned(),
        ),
        Some(libc::EPERM | libc::EACCES) => (
            "the kernel has io_uring but forbids it to this process".to_owned(),
            format!(
                "kernel.io_uring_disabled is {} (0 allows everyone, 1 only the group kernel.io_uring_group and \
                 CAP_SYS_ADMIN, 2 nobody; since Linux 6.6). `sysctl kernel.io_uring_disabled=0` allows it; in a \
                 container also check its seccomp profile.",
                disabled_setting()
            ),
        ),
        Some(libc::EINVAL) => (
            "this kernel's io_uring is too old".to_owned(),
            "SINGLE_ISSUER is there since Linux 6.0 and DEFER_TASKRUN since 6.1: run Linux 6.1 or newer.".to_owned(),
        ),
        Some(libc::ENOMEM) => (
            "the memory lock limit is too small".to_owned(),
            "rings are charged to RLIMIT_MEMLOCK (`ulimit -l`): a node needs about 1 MiB per shard and 2 MiB \
             besides. Set LimitMEMLOCK=infinity in the systemd unit, or raise memlock in limits.conf."
                .to_owned(),
        ),
        Some(libc::EMFILE | libc::ENFILE) => (
            "no file descriptor is left".to_owned(),
            "raise the limit of open files (`ulimit -n`, LimitNOFILE= in the systemd unit).".to_owned(),
        ),
        _ => (source.to_string(), "`evershard-tuning check` tells what this host offers.".to_owned()),
    };
    RingError { what, hint, source }
}

fn disabled_setting() -> String {
    fs::read_to_string("/proc/sys/kernel/io_uring_disabled")
        .map_or_else(|_| "not readable".to_owned(), |setting| setting.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_says_what_to_do() {
        for (errno, word) in [
            (libc::ENOSYS, "6.1"),
            (libc::EPERM, "io_uring_disabled"),
            (libc::EINVAL, "6.1"),
            (libc::ENOMEM, "LimitMEMLOCK"),
            (libc::EMFILE, "ulimit -n"),
        ] {
            let message = explain(io::Error::from_raw_os_error(errno)).to_string();
            assert!(message.contains(word), "{message}");
            assert!(message.contains("hint: "), "{message}");
        }
    }
}
