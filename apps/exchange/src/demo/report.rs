//! The last screen: what was played, how fast, and whether it is right.

use std::fmt;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use super::drive::Outcome;
use super::nodes::ShardDigests;
use super::{DemoOptions, Durability, Failover};
use crate::collect::Totals;

/// What a demonstration came to.
pub struct Report {
    durability: Durability,
    rate: u64,
    orders: u64,
    took: Duration,
    sent: u64,
    acknowledged: u64,
    different: u64,
    latency: Histogram<u64>,
    failover: Option<Failover>,
    totals: Totals,
    digests: Vec<ShardDigests>,
}

impl Report {
    pub(super) fn new(
        options: &DemoOptions,
        orders: u64,
        took: Duration,
        outcomes: Vec<Outcome>,
        failover: Option<Failover>,
        totals: Totals,
        digests: Vec<ShardDigests>,
    ) -> Self {
        let mut latency =
            outcomes.first().map_or_else(|| Histogram::new(3).expect("three digits"), |one| one.latency.clone());
        for outcome in outcomes.iter().skip(1) {
            latency.add(&outcome.latency).expect("all histograms have the same bounds");
        }
        Self {
            durability: options.durability,
            rate: options.rate,
            orders,
            took,
            sent: outcomes.iter().map(|outcome| outcome.sent).sum(),
            acknowledged: outcomes.iter().map(|outcome| outcome.acknowledged).sum(),
            different: outcomes.iter().map(|outcome| outcome.different).sum(),
            latency,
            failover,
            totals,
            digests,
        }
    }

    fn lost(&self) -> u64 {
        self.orders - self.acknowledged
    }

    fn digests_equal(&self) -> bool {
        self.digests.iter().all(|shard| shard.digests.windows(2).all(|pair| pair[0] == pair[1]))
    }

    /// Nothing lost, doubled or different.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.lost() == 0 && self.different == 0 && self.digests_equal()
    }

    fn percentiles(&self) -> [(&'static str, f64); 5] {
        let at = |quantile| micros(self.latency.value_at_quantile(quantile));
        [
            ("p50", at(0.5)),
            ("p90", at(0.9)),
            ("p99", at(0.99)),
            ("p99.9", at(0.999)),
            ("max", micros(self.latency.max())),
        ]
    }

    /// All figures.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let latency: serde_json::Map<String, Value> =
            self.percentiles().into_iter().map(|(name, value)| (name.to_owned(), json!(value))).collect();
        json!({
            "orders": self.orders, "sent": self.sent, "acknowledged": self.acknowledged,
            "lost": self.lost(), "applied_twice": self.different,
            "seconds": self.took.as_secs_f64(), "trades": self.totals.trades, "accepted": self.totals.accepted,
            "rejected": self.totals.rejected, "resting": self.totals.resting, "latency_us": latency,
            "failover_ms": self.failover.map(|failover| failover.gap.as_secs_f64() * 1e3),
            "digests_equal": self.digests_equal(),
        })
    }
}

fn micros(ns: u64) -> f64 {
    Duration::from_nanos(ns).as_secs_f64() * 1e6
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let per_second = self.acknowledged as f64 / self.took.as_secs_f64();
        let promise = match self.durability {
            Durability::Durable => "durable: acknowledged when two of three nodes have it on disk",
            Durability::Replicated => "replicated: acknowledged when two of three nodes have it in memory",
        };
        writeln!(f, "\n{promise}\n")?;
        writeln!(f, "orders sent          {:>12}", self.sent)?;
        writeln!(
            f,
            "acknowledged         {:>12}   in {:.1} s, {per_second:.0} a second",
            self.acknowledged,
            self.took.as_secs_f64()
        )?;
        writeln!(f, "lost                 {:>12}", self.lost())?;
        writeln!(
            f,
            "applied twice        {:>12}   (replies that differ from an exchange without a cluster)",
            self.different
        )?;
        let Totals { accepted, rejected, trades, volume, resting } = self.totals;
        writeln!(f, "accepted, rejected   {accepted:>12} {rejected:>8}")?;
        writeln!(f, "trades               {trades:>12}   {volume} lots; {resting} orders rest")?;
        let schedule = if self.rate == 0 { "as fast as answered" } else { "from the intended send time" };
        writeln!(f, "\nlatency in µs, {schedule}")?;
        for (name, value) in self.percentiles() {
            writeln!(f, "  {name:<6} {value:>12.1}")?;
        }
        if let Some(failover) = self.failover {
            let gap = failover.gap.as_secs_f64() * 1e3;
            let Failover { node, shard, .. } = failover;
            writeln!(
                f,
                "\nfail-over: node {node}, leader of shard {shard}, got SIGKILL; nothing was answered there for {gap:.0} ms"
            )?;
        }
        writeln!(f, "\ndigests of the three replicas")?;
        for shard in &self.digests {
            let equal = if shard.digests.windows(2).all(|pair| pair[0] == pair[1]) { "equal" } else { "DIFFERENT" };
            writeln!(f, "  shard {} at {:>12}  {}  {equal}", shard.shard, shard.position, shard.digests.join("  "))?;
        }
        let verdict =
            if self.is_sound() { "nothing lost, nothing doubled, all replicas equal" } else { "THIS RUN IS NOT RIGHT" };
        writeln!(f, "\n{verdict}")
    }
}
