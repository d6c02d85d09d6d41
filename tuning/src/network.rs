//! Network switches that are good to know when reading latency figures.

use crate::finding::{Advice, Finding, Grade};
use crate::host::Host;

pub(crate) fn findings(host: &Host) -> Vec<Finding> {
    let advice = Advice {
        wanted: "for a dedicated network card: 50 or so; no effect on loopback",
        why: "busy polling fetches packets without waiting for the interrupt",
        change: "",
    };
    let value = |name: &str| match host.number(&format!("proc/sys/net/core/{name}")) {
        Some(microseconds) => format!("{name} {microseconds} µs"),
        None => format!("{name} unknown"),
    };
    vec![Finding::new("busy polling", Grade::Info, format!("{}, {}", value("busy_read"), value("busy_poll")), &advice)]
}
