//! Interrupts: which of them land on the shards' cores, and who moves them.

use crate::finding::{Advice, Finding, Grade};
use crate::host::{CpuList, Host};

pub(crate) fn findings(host: &Host, critical: &CpuList) -> Vec<Finding> {
    vec![affinity(host, critical), balancer(host)]
}

fn affinity(host: &Host, critical: &CpuList) -> Finding {
    let advice = Advice {
        wanted: "no device's interrupts on the shards' cores",
        why: "an interrupt and its softirq take a shard's core for 5 to 50 µs at any time",
        change: "echo HOUSEKEEPING_CORES > /proc/irq/N/smp_affinity_list for each; boot with irqaffinity=HOUSEKEEPING_CORES",
    };
    let landing: Vec<(String, CpuList)> = host
        .names("proc/irq")
        .into_iter()
        .filter(|irq| irq.parse::<u32>().is_ok())
        .filter_map(|irq| {
            let effective = host.cpu_list(&format!("proc/irq/{irq}/effective_affinity_list"));
            let list = effective.filter(|list| !list.is_empty());
            let list = list.or_else(|| host.cpu_list(&format!("proc/irq/{irq}/smp_affinity_list")))?;
            Some((irq, list))
        })
        .collect();
    if landing.is_empty() {
        return Finding::new("interrupts", Grade::Unknown, "/proc/irq cannot be read", &advice);
    }
    let busiest = busiest(host);
    if critical.is_empty() {
        let found = format!("{} lines; {busiest}; no shard's core is known (--cores)", landing.len());
        return Finding::new("interrupts", Grade::Info, found, &advice);
    }
    let bad: Vec<&str> =
        landing.iter().filter(|(_, list)| !list.common(critical).is_empty()).map(|(irq, _)| irq.as_str()).collect();
    if bad.is_empty() {
        return Finding::new("interrupts", Grade::Good, format!("none on {critical}; {busiest}"), &advice);
    }
    let found = format!("{} of {} lines land on {critical}: {}; {busiest}", bad.len(), landing.len(), bad.join(" "));
    Finding::new("interrupts", Grade::CouldBeBetter, found, &advice)
}

/// The device line with the most interrupts so far, and where they went.
fn busiest(host: &Host) -> String {
    let table = host.text("proc/interrupts").unwrap_or_default();
    let core_count = table.lines().next().map_or(0, |line| line.split_whitespace().count());
    let busiest = table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let irq: u32 = words.next()?.strip_suffix(':')?.parse().ok()?;
            let counts: Vec<u64> = words.by_ref().take(core_count).filter_map(|word| word.parse().ok()).collect();
            let (core, _) = counts.iter().enumerate().max_by_key(|(_, count)| **count)?;
            Some((counts.iter().sum::<u64>(), irq, words.last().unwrap_or("unnamed").to_owned(), core))
        })
        .max();
    match busiest {
        Some((count, irq, name, core)) => {
            format!("busiest: {name} (line {irq}), {count} so far, mostly on core {core}")
        }
        None => "no counts to be seen".to_owned(),
    }
}

fn balancer(host: &Host) -> Finding {
    let advice = Advice {
        wanted: "irqbalance off, or told to keep off the shards' cores",
        why: "it moves interrupts onto whichever core looks idle, and a blocked shard's core does",
        change: "systemctl disable --now irqbalance, or set IRQBALANCE_BANNED_CPULIST",
    };
    let processes = host.names("proc").into_iter().filter(|name| name.parse::<u32>().is_ok());
    let runs = processes.into_iter().any(|id| host.text(&format!("proc/{id}/comm")).as_deref() == Some("irqbalance"));
    let (grade, found) =
        if runs { (Grade::CouldBeBetter, "irqbalance runs") } else { (Grade::Good, "irqbalance does not run") };
    Finding::new("interrupt balancer", grade, found, &advice)
}
