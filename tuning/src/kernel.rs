//! The kernel's io_uring: new enough, allowed, and working with a shard's setup flags.

use io_uring::{IoUring, cqueue, squeue};

use crate::finding::{Advice, Finding, Grade};
use crate::host::Host;

pub(crate) fn findings(host: &Host, probe: bool) -> Vec<Finding> {
    let mut findings = vec![version(host), allowed(host)];
    if probe {
        findings.push(ring());
    }
    findings
}

fn version(host: &Host) -> Finding {
    let advice = Advice {
        wanted: "6.1 or newer",
        why: "shards need rings with SINGLE_ISSUER and DEFER_TASKRUN (6.1), multishot receive (6.0) and provided \
              buffer rings (5.19)",
        change: "install a newer kernel; every long-term kernel since 6.1 will do",
    };
    let release = host.text("proc/sys/kernel/osrelease");
    let parsed = release.as_deref().and_then(parse_version);
    let grade = match parsed {
        None => Grade::Unknown,
        Some(version) if version < (6, 1) => Grade::Harmful,
        Some(_) => Grade::Good,
    };
    let lacking = match parsed {
        Some(version) if version < (5, 19) => ": no provided buffer rings, no multishot receive, no deferred work",
        Some(version) if version < (6, 0) => ": no multishot receive, no deferred work",
        Some(version) if version < (6, 1) => ": no deferred work",
        _ => "",
    };
    let release = release.unwrap_or_else(|| "cannot be read".to_owned());
    Finding::new("kernel", grade, format!("{release}{lacking}"), &advice)
}

fn parse_version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse().ok());
    Some((numbers.next()??, numbers.next()??))
}

fn allowed(host: &Host) -> Finding {
    let advice = Advice {
        wanted: "kernel.io_uring_disabled = 0",
        why: "a shard does all its IO through a ring",
        change: "sysctl --write kernel.io_uring_disabled=0, or 1 with the service's group in kernel.io_uring_group",
    };
    let (grade, found) = match host.text("proc/sys/kernel/io_uring_disabled").as_deref() {
        Some("0") => (Grade::Good, "allowed to all"),
        Some("1") => (Grade::CouldBeBetter, "allowed to root and one group only"),
        Some("2") => (Grade::Harmful, "forbidden to all"),
        Some(_) => (Grade::Unknown, "an unknown value"),
        // The switch came with 6.6; kernels before it allow rings.
        None => (Grade::Good, "no switch to forbid it"),
    };
    Finding::new("io_uring permission", grade, found, &advice)
}

fn ring() -> Finding {
    let advice = Advice {
        wanted: "a ring with SINGLE_ISSUER and DEFER_TASKRUN",
        why: "without deferred work a round trip on loopback takes about three times as long",
        change: "look at the kernel's version, kernel.io_uring_disabled, the container's seccomp profile and the \
                 limit of locked memory",
    };
    let mut builder = IoUring::<squeue::Entry, cqueue::Entry>::builder();
    builder.setup_single_issuer().setup_defer_taskrun();
    match builder.build(RING_ENTRIES) {
        Ok(_) => Finding::new("ring", Grade::Good, format!("created with {RING_ENTRIES} entries"), &advice),
        Err(error) => Finding::new("ring", Grade::Harmful, format!("cannot be created: {error}"), &advice),
    }
}

const RING_ENTRIES: u32 = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_releases() {
        for (release, version) in
            [("6.18.44-fc-v669", Some((6, 18))), ("5.15.0-91-generic", Some((5, 15))), ("6.1", Some((6, 1)))]
        {
            assert_eq!(parse_version(release), version);
        }
        assert_eq!(parse_version("unknown"), None);
    }
}
