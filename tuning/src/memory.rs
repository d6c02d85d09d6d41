//! Memory: what may be locked, huge pages, swap.

use crate::finding::{Advice, Finding, Grade};
use crate::host::Host;

pub(crate) fn findings(host: &Host) -> Vec<Finding> {
    vec![locked(host), huge_pages(host), swap(host)]
}

fn locked(host: &Host) -> Finding {
    let advice = Advice {
        wanted: "unlimited",
        why: "rings and registered buffers are charged to it, for two generations during a restart; \
              a background executor refuses to start below 512 KiB",
        change: "LimitMEMLOCK=infinity in the unit, or `* - memlock unlimited` in /etc/security/limits.conf",
    };
    let limit = host.text("proc/self/limits").and_then(|text| {
        let line = text.lines().find(|line| line.starts_with("Max locked memory"))?.to_owned();
        line.split_whitespace().nth(3).map(str::to_owned)
    });
    let exempt = may_lock_anything(host);
    let (grade, found) = match limit.as_deref() {
        None => (Grade::Unknown, "cannot be read".to_owned()),
        Some("unlimited") => (Grade::Good, "unlimited".to_owned()),
        Some(size) if exempt => (Grade::Good, format!("{}, but this user is exempt (CAP_IPC_LOCK)", readable(size))),
        Some(size) => match size.parse::<u64>() {
            Err(_) => (Grade::Unknown, format!("`{size}`")),
            Ok(bytes) if bytes < EXECUTOR_SIZE_MIN => (Grade::Harmful, readable(size)),
            Ok(_) => (Grade::CouldBeBetter, readable(size)),
        },
    };
    Finding::new("locked memory", grade, found, &advice)
}

fn readable(size: &str) -> String {
    size.parse::<u64>().map_or_else(|_| size.to_owned(), |bytes| format!("{} KiB", bytes / 1024))
}

fn may_lock_anything(host: &Host) -> bool {
    let status = host.text("proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let capabilities = line.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    capabilities & (1 << CAP_IPC_LOCK) != 0
}

fn huge_pages(host: &Host) -> Finding {
    let advice = Advice {
        wanted: "madvise (or never)",
        why: "with `always` the kernel compacts memory inside page faults, which stops a shard for milliseconds",
        change: "echo madvise > /sys/kernel/mm/transparent_hugepage/enabled",
    };
    let choice = host.choice("sys/kernel/mm/transparent_hugepage/enabled");
    let grade = match choice.as_deref() {
        Some("madvise" | "never") => Grade::Good,
        Some(_) => Grade::CouldBeBetter,
        None => Grade::Unknown,
    };
    Finding::new("huge pages", grade, choice.unwrap_or_else(|| "cannot be read".to_owned()), &advice)
}

fn swap(host: &Host) -> Finding {
    let advice = Advice {
        wanted: "none",
        why: "a page that was swapped out costs a disk read in the middle of a command",
        change: "swapoff --all, and take it out of /etc/fstab",
    };
    let devices = host.text("proc/swaps").map(|text| text.lines().count().saturating_sub(1));
    let (grade, found) = match devices {
        None => (Grade::Unknown, "cannot be read".to_owned()),
        Some(0) => (Grade::Good, "none".to_owned()),
        Some(count) => (Grade::CouldBeBetter, format!("{count} in use")),
    };
    Finding::new("swap", grade, found, &advice)
}

const EXECUTOR_SIZE_MIN: u64 = 512 * 1024;
const CAP_IPC_LOCK: u32 = 14;
