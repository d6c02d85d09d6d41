//! Cores: how many, shared or not, isolated, ticking, sleeping, and the clock they read.

use crate::finding::{Advice, Finding, Grade};
use crate::host::{CpuList, Host};

pub(crate) fn findings(host: &Host, critical: &CpuList) -> Vec<Finding> {
    vec![
        count(host),
        siblings(host, critical),
        isolated(host, critical),
        ticks(host, critical),
        governor(host),
        idle(host),
        clock(host),
        mitigations(host),
    ]
}

fn count(host: &Host) -> Finding {
    let advice = Advice {
        wanted: "a core for each shard of this node, and one more for everything else",
        why: "a shard owns its core; who shares it waits for the scheduler",
        change: "a larger machine, or fewer shards and nodes on this one",
    };
    let online = host.online();
    let grade = match online.len() {
        0 => Grade::Unknown,
        1..=3 => Grade::CouldBeBetter,
        _ => Grade::Good,
    };
    Finding::new("cores", grade, format!("{} online ({online})", online.len()), &advice)
}

fn siblings(host: &Host, critical: &CpuList) -> Finding {
    let advice = Advice {
        wanted: "no two busy threads on one physical core",
        why: "hardware threads share execution units and caches; a neighbour's work is this one's tail",
        change: "echo off > /sys/devices/system/cpu/smt/control, or give shards one thread of each core only",
    };
    let online = host.online();
    let groups = online
        .iter()
        .filter_map(|core| host.cpu_list(&format!("sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list")));
    let groups: Vec<CpuList> = groups.collect();
    let shared = groups.iter().find(|group| group.len() > 1);
    let clash = groups.iter().find(|group| group.common(critical).len() > 1);
    let (grade, found) = match (groups.is_empty(), shared, clash) {
        (true, ..) => (Grade::Unknown, "the topology cannot be read".to_owned()),
        (_, None, _) => (Grade::Good, "one hardware thread on each core".to_owned()),
        (_, _, Some(clash)) => (Grade::CouldBeBetter, format!("shards' cores {clash} are one physical core")),
        (_, Some(shared), _) if critical.is_empty() => (Grade::Info, format!("cores share threads, such as {shared}")),
        (_, Some(shared), _) => (Grade::Good, format!("threads are shared, such as {shared}, but not by two shards")),
    };
    Finding::new("hardware threads", grade, found, &advice)
}

fn isolated(host: &Host, critical: &CpuList) -> Finding {
    let advice = Advice {
        wanted: "the shards' cores isolated from the scheduler",
        why: "any other thread that lands on a shard's core stops it for milliseconds",
        change: "boot with isolcpus=managed_irq,domain,CORES, or put everything else into a cpuset without them",
    };
    let Some(list) = host.cpu_list(ISOLATED) else {
        return Finding::new("isolated cores", Grade::Unknown, "the list cannot be read", &advice);
    };
    let (grade, found) = match (list.is_empty(), critical.is_within(&list)) {
        (true, _) if host.online().len() < CORES_TO_ISOLATE => {
            (Grade::Info, "none; there are too few cores".to_owned())
        }
        (true, _) => (Grade::CouldBeBetter, "none".to_owned()),
        (false, true) => (Grade::Good, format!("{list}")),
        (false, false) => (Grade::CouldBeBetter, format!("{list}, but shards run on {critical}")),
    };
    Finding::new("isolated cores", grade, found, &advice)
}

fn ticks(host: &Host, critical: &CpuList) -> Finding {
    let advice = Advice {
        wanted: "no timer tick on the shards' cores",
        why: "each tick interrupts a spinning shard for a few microseconds, 100 to 1000 times a second",
        change: "boot with nohz_full=CORES rcu_nocbs=CORES (the kernel needs CONFIG_NO_HZ_FULL)",
    };
    let list = host.cpu_list("sys/devices/system/cpu/nohz_full");
    let (grade, found) = match list {
        None if critical.is_empty() => (Grade::Info, "the kernel cannot stop ticks".to_owned()),
        None => (Grade::CouldBeBetter, "the kernel cannot stop ticks".to_owned()),
        Some(list) if list.is_empty() && critical.is_empty() => (Grade::Info, "none".to_owned()),
        Some(list) if !list.is_empty() && critical.is_within(&list) => (Grade::Good, format!("{list}")),
        Some(list) => (Grade::CouldBeBetter, format!("`{list}`; shards run on `{critical}`")),
    };
    Finding::new("tickless cores", grade, found, &advice)
}

fn governor(host: &Host) -> Finding {
    let advice = Advice {
        wanted: "performance",
        why: "a core that saves power is slow for the first microseconds after each pause",
        change: "cpupower frequency-set --governor performance",
    };
    let mut governors: Vec<String> = host
        .online()
        .iter()
        .filter_map(|core| host.text(&format!("sys/devices/system/cpu/cpu{core}/cpufreq/scaling_governor")))
        .collect();
    governors.dedup();
    let (grade, found) = match governors.as_slice() {
        [] => (Grade::Unknown, "none to be seen; the hypervisor or the firmware decides".to_owned()),
        [one] if one == "performance" => (Grade::Good, one.clone()),
        several => (Grade::CouldBeBetter, several.join(", ")),
    };
    Finding::new("frequency governor", grade, found, &advice)
}

fn idle(host: &Host) -> Finding {
    let advice = Advice {
        wanted: "shallow sleep, or in a virtual machine the haltpoll driver",
        why: "waking a halted core takes 2 to 200 µs; a blocking shard pays it for each message",
        change: "boot with intel_idle.max_cstate=1 or processor.max_cstate=1; in a guest: modprobe cpuidle-haltpoll",
    };
    let driver = host.text("sys/devices/system/cpu/cpuidle/current_driver");
    let states = host.names("sys/devices/system/cpu/cpu0/cpuidle").len();
    let (grade, found) = match driver.as_deref() {
        None => (Grade::Unknown, "no idle driver to be seen".to_owned()),
        Some("haltpoll") => (Grade::Good, "haltpoll".to_owned()),
        Some("none") => (Grade::CouldBeBetter, "none: an idle core halts at once".to_owned()),
        Some(driver) if states <= SHALLOW_STATES => (Grade::Good, format!("{driver}, {states} states")),
        Some(driver) => (Grade::CouldBeBetter, format!("{driver}, {states} states")),
    };
    Finding::new("idle states", grade, found, &advice)
}

fn clock(host: &Host) -> Finding {
    let advice = Advice {
        wanted: "tsc",
        why: "reading any other clock costs more, up to a microsecond and a system call each time",
        change: "echo tsc > /sys/devices/system/clocksource/clocksource0/current_clocksource, or boot with tsc=reliable",
    };
    let source = host.text("sys/devices/system/clocksource/clocksource0/current_clocksource");
    let grade = match source.as_deref() {
        None => Grade::Unknown,
        Some("tsc" | "arch_sys_counter") => Grade::Good,
        Some("hpet" | "acpi_pm" | "jiffies") => Grade::Harmful,
        Some(_) => Grade::CouldBeBetter,
    };
    Finding::new("clock source", grade, source.unwrap_or_else(|| "cannot be read".to_owned()), &advice)
}

fn mitigations(host: &Host) -> Finding {
    let advice = Advice {
        wanted: "what the site's security asks for",
        why: "mitigations make each system call dearer; a machine that runs trusted code only may do without some",
        change: "",
    };
    let directory = "sys/devices/system/cpu/vulnerabilities";
    let active: Vec<String> = host
        .names(directory)
        .into_iter()
        .filter(|name| host.text(&format!("{directory}/{name}")).is_some_and(|text| text.starts_with("Mitigation")))
        .collect();
    let found = if active.is_empty() { "none active".to_owned() } else { format!("active: {}", active.join(", ")) };
    Finding::new("mitigations", Grade::Info, found, &advice)
}

pub(crate) const ISOLATED: &str = "sys/devices/system/cpu/isolated";
const CORES_TO_ISOLATE: usize = 4;
/// Polling and one halt.
const SHALLOW_STATES: usize = 2;
