//! Judges invented hosts, file by file.

use std::fs;
use std::path::{Path, PathBuf};

use evershard_tuning::{Finding, Grade, Options, Report, check};
use tempfile::TempDir;

/// A well-kept host of eight cores, of which 4 to 7 are isolated.
const GOOD_HOST: &[(&str, &str)] = &[
    ("sys/devices/system/cpu/online", "0-7\n"),
    ("sys/devices/system/cpu/isolated", "4-7\n"),
    ("sys/devices/system/cpu/nohz_full", "4-7\n"),
    ("sys/devices/system/cpu/cpu0/topology/thread_siblings_list", "0\n"),
    ("sys/devices/system/cpu/cpu4/topology/thread_siblings_list", "4\n"),
    ("sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "performance\n"),
    ("sys/devices/system/cpu/cpu4/cpufreq/scaling_governor", "performance\n"),
    ("sys/devices/system/cpu/cpu0/cpuidle/state0/name", "POLL\n"),
    ("sys/devices/system/cpu/cpuidle/current_driver", "intel_idle\n"),
    ("sys/devices/system/clocksource/clocksource0/current_clocksource", "tsc\n"),
    ("sys/devices/system/cpu/vulnerabilities/meltdown", "Mitigation: PTI\n"),
    ("proc/irq/24/effective_affinity_list", "0\n"),
    ("proc/irq/24/smp_affinity_list", "0-7\n"),
    ("proc/interrupts", "      CPU0 CPU1\n 24:  7  3  PCI-MSIX  nvme0q1\nLOC:  9  9  Local timer\n"),
    ("proc/1/comm", "systemd\n"),
    (
        "proc/self/limits",
        "Limit  Soft  Hard\nMax locked memory         unlimited            unlimited            bytes\n",
    ),
    ("proc/self/status", "Name:\tx\nCapEff:\t0000000000000000\n"),
    ("proc/self/mountinfo", "22 1 259:1 / / rw - ext4 /dev/root rw\n23 22 259:2 / /data rw - xfs /dev/nvme0n1p2 rw\n"),
    ("sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never\n"),
    ("proc/swaps", "Filename Type Size Used Priority\n"),
    ("proc/sys/kernel/osrelease", "6.12.8\n"),
    ("proc/sys/kernel/io_uring_disabled", "0\n"),
    ("proc/sys/net/core/busy_read", "0\n"),
    ("proc/sys/net/core/busy_poll", "0\n"),
    ("sys/dev/block/259:2/queue/logical_block_size", "512\n"),
    ("sys/dev/block/259:2/queue/write_cache", "write through\n"),
    ("sys/dev/block/259:2/queue/fua", "0\n"),
    ("sys/dev/block/259:2/queue/scheduler", "[none] mq-deadline\n"),
];

/// Judges the good host with some files replaced.
fn check_host(changes: &[(&str, &str)], data: &str) -> Report {
    let root = host(changes);
    let options =
        Options { sysroot: root.path().to_owned(), cores: None, data: Some(PathBuf::from(data)), probe: false };
    check(&options)
}

fn host(changes: &[(&str, &str)]) -> TempDir {
    let root = tempfile::tempdir().expect("a temporary directory");
    for (path, text) in GOOD_HOST.iter().chain(changes) {
        let path: &Path = &root.path().join(path);
        fs::create_dir_all(path.parent().expect("every path has a parent")).expect("writable");
        fs::write(path, text).expect("writable");
    }
    root
}

fn finding<'a>(report: &'a Report, subject: &str) -> &'a Finding {
    report.findings.iter().find(|finding| finding.subject == subject).expect("the subject is judged")
}

#[test]
fn a_well_kept_host_passes_strictly() {
    let report = check_host(&[], "/data/node");
    assert!(report.passes(true), "{report}");
    assert_eq!(report.worst(), Grade::Info);
    assert!(report.findings.iter().all(|finding| finding.change.is_empty()));
}

#[test]
fn each_fault_is_found_and_graded() {
    use Grade::{CouldBeBetter, Good, Harmful, Info, Unknown};
    let limits = |size: &str| format!("Max locked memory         {size}  {size}  bytes\n");
    let (small, medium) = (limits("65536"), limits("8388608"));
    let cases: &[(&str, &str, &str, Grade)] = &[
        ("cores", "sys/devices/system/cpu/online", "0-1", CouldBeBetter),
        ("hardware threads", "sys/devices/system/cpu/cpu4/topology/thread_siblings_list", "4-5", CouldBeBetter),
        ("hardware threads", "sys/devices/system/cpu/cpu0/topology/thread_siblings_list", "0-1", Good),
        ("isolated cores", "sys/devices/system/cpu/isolated", "", CouldBeBetter),
        ("tickless cores", "sys/devices/system/cpu/nohz_full", "(null)", CouldBeBetter),
        ("frequency governor", "sys/devices/system/cpu/cpu4/cpufreq/scaling_governor", "powersave", CouldBeBetter),
        ("idle states", "sys/devices/system/cpu/cpuidle/current_driver", "none", CouldBeBetter),
        ("clock source", "sys/devices/system/clocksource/clocksource0/current_clocksource", "hpet", Harmful),
        ("clock source", "sys/devices/system/clocksource/clocksource0/current_clocksource", "kvm-clock", CouldBeBetter),
        ("mitigations", "sys/devices/system/cpu/vulnerabilities/mds", "Vulnerable", Info),
        ("interrupts", "proc/irq/24/effective_affinity_list", "5", CouldBeBetter),
        ("interrupts", "proc/irq/24/effective_affinity_list", "", CouldBeBetter),
        ("interrupt balancer", "proc/77/comm", "irqbalance", CouldBeBetter),
        ("locked memory", "proc/self/limits", &small, Harmful),
        ("locked memory", "proc/self/limits", &medium, CouldBeBetter),
        ("locked memory", "proc/self/limits", "", Unknown),
        ("huge pages", "sys/kernel/mm/transparent_hugepage/enabled", "[always] madvise never", CouldBeBetter),
        ("swap", "proc/swaps", "Filename\n/dev/sdb partition\n", CouldBeBetter),
        ("kernel", "proc/sys/kernel/osrelease", "5.15.0-91-generic", Harmful),
        ("io_uring permission", "proc/sys/kernel/io_uring_disabled", "2", Harmful),
        ("file system", "proc/self/mountinfo", "22 1 0:1 / /data rw - tmpfs tmpfs rw", Harmful),
        ("device block", "sys/dev/block/259:2/queue/logical_block_size", "16384", Harmful),
        ("device cache", "sys/dev/block/259:2/queue/write_cache", "write back", CouldBeBetter),
        ("device scheduler", "sys/dev/block/259:2/queue/scheduler", "none [bfq]", CouldBeBetter),
    ];
    for (subject, path, text, grade) in cases {
        let report = check_host(&[(path, text)], "/data/node");
        let finding = finding(&report, subject);
        assert_eq!(finding.grade, *grade, "{subject} with `{text}`: {}", finding.found);
        let needs_change = *grade >= CouldBeBetter;
        assert!(!needs_change || !finding.change.is_empty(), "{subject} says how to change it");
        assert_eq!(report.passes(false), *grade != Harmful);
        assert_eq!(report.passes(true), *grade < CouldBeBetter, "{subject} with `{text}`");
    }
}

#[test]
fn a_privileged_user_is_exempt_from_the_lock_limit() {
    let limits = "Max locked memory         65536  65536  bytes\n";
    let changes = [("proc/self/limits", limits), ("proc/self/status", "CapEff:\t000001ffffffffff\n")];
    assert_eq!(finding(&check_host(&changes, "/data"), "locked memory").grade, Grade::Good);
}

#[test]
fn the_deepest_mount_counts() {
    assert!(finding(&check_host(&[], "/data/node"), "file system").found.starts_with("xfs"));
    assert!(finding(&check_host(&[], "/database"), "file system").found.starts_with("ext4"));
}

#[test]
fn an_empty_root_is_unknown_and_not_an_error() {
    let root = tempfile::tempdir().expect("a temporary directory");
    let options = Options { sysroot: root.path().to_owned(), probe: false, ..Options::default() };
    let report = check(&options);
    assert!(report.passes(false), "{report}");
    assert_eq!(finding(&report, "kernel").grade, Grade::Unknown);
}

#[test]
fn direct_writes_leave_nothing_behind() {
    let root = host(&[]);
    let data = tempfile::tempdir().expect("a temporary directory");
    let options =
        Options { sysroot: root.path().to_owned(), cores: None, data: Some(data.path().to_owned()), probe: true };
    let report = check(&options);
    assert!(report.findings.iter().any(|finding| finding.subject == "direct writes"));
    assert_eq!(fs::read_dir(data.path()).expect("readable").count(), 0);
}

#[test]
fn a_report_survives_json() {
    let report = check_host(&[], "/data");
    let text = serde_json::to_string(&report).expect("serializable");
    assert_eq!(serde_json::from_str::<Report>(&text).expect("valid"), report);
}
