//! One shard's part of the flow: sent at its scheduled times, every reply compared with the local exchange.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use evershard::client::{ClientEvent, SendError};
use evershard::{Client, ShardId};
use hdrhistogram::Histogram;

use super::Count;
use crate::collect::Collector;
use crate::local::Local;
use crate::wire::{Command, Order, Reply};

/// Orders one client may have unanswered.
pub(super) const WINDOW_LEN: usize = 2048;
/// Latencies up to this are recorded exactly; longer ones as this.
const LATENCY_NS_MAX: u64 = 120_000_000_000;
/// A pause between two replies shorter than this is none worth keeping.
const PAUSE_MIN: Duration = Duration::from_millis(1);

/// What one driver plays: the place of each order in the whole flow, and the order.
pub(super) struct Plan {
    pub(super) shard: ShardId,
    pub(super) orders: Vec<(u64, Order)>,
}

impl Plan {
    pub(super) fn new(shard: ShardId) -> Self {
        Self { shard, orders: Vec::new() }
    }
}

/// Where all drivers together are.
#[derive(Default)]
pub(super) struct Progress {
    pub(super) answered: Count,
}

/// What one driver saw.
pub(super) struct Outcome {
    pub(super) sent: u64,
    pub(super) acknowledged: u64,
    /// Replies that are not what the local exchange says, or whose position did not grow: applied twice or not at all.
    pub(super) different: u64,
    /// From the intended send time, nanoseconds.
    pub(super) latency: Histogram<u64>,
    /// Pauses between two replies: when they began, and how long they were.
    pauses: Vec<(Instant, Duration)>,
}

impl Outcome {
    /// The longest pause that began or was under way after `killed`.
    pub(super) fn gap_around(&self, killed: Option<Instant>) -> Duration {
        let Some(killed) = killed else { return Duration::ZERO };
        let after = self.pauses.iter().filter(|(begin, pause)| *begin + *pause >= killed);
        after
            .take_while(|(begin, _)| *begin < killed + Duration::from_secs(5))
            .map(|(_, pause)| *pause)
            .max()
            .unwrap_or_default()
    }
}

struct Waiting {
    order: Order,
    due: Instant,
    expected: Vec<u8>,
}

struct Driver<'a> {
    outcome: Outcome,
    waiting: VecDeque<Waiting>,
    /// Buffers of expected replies, used again.
    spare: Vec<Vec<u8>>,
    last_position: u64,
    last_reply: Instant,
    collector: &'a Mutex<Collector>,
    progress: &'a Progress,
    failure: Option<anyhow::Error>,
}

pub(super) fn run(
    plan: Plan,
    mut client: Client,
    rate: u64,
    start: Instant,
    collector: &Mutex<Collector>,
    progress: &Progress,
    stop: &AtomicBool,
) -> Result<Outcome> {
    let latency = Histogram::new_with_bounds(1, LATENCY_NS_MAX, 3).expect("constant bounds");
    let outcome = Outcome { sent: 0, acknowledged: 0, different: 0, latency, pauses: Vec::new() };
    let mut driver = Driver {
        outcome,
        waiting: VecDeque::with_capacity(WINDOW_LEN),
        spare: Vec::new(),
        last_position: 0,
        last_reply: start,
        collector,
        progress,
        failure: None,
    };
    let mut local = Local::default();
    let mut command = Vec::new();
    let mut orders = plan.orders.into_iter().peekable();
    while orders.peek().is_some() || !driver.waiting.is_empty() {
        if stop.load(Ordering::Relaxed) {
            bail!("stopped before the end");
        }
        let now = Instant::now();
        let mut next_due = None;
        while let Some((number, order)) = orders.peek() {
            let due = (number * 1_000_000_000).checked_div(rate).map_or(now, |ns| start + Duration::from_nanos(ns));
            if due > now || driver.waiting.len() == WINDOW_LEN {
                next_due = Some(due);
                break;
            }
            command.clear();
            Command::Order(*order).encode(&mut command);
            match client.try_send(&command) {
                Ok(_) => {}
                Err(SendError::WindowFull | SendError::QueueFull) => break,
                Err(error) => return Err(error).context("an order cannot be sent"),
            }
            driver.outcome.sent += 1;
            let mut expected = driver.spare.pop().unwrap_or_default();
            expected.clear();
            expected.extend_from_slice(local.apply(Local::SESSION, &command));
            driver.waiting.push_back(Waiting { order: *order, due, expected });
            orders.next();
        }
        let wait = next_due.map_or(Duration::from_millis(20), |due| due.saturating_duration_since(Instant::now()));
        client.poll(Some(wait.min(Duration::from_millis(20))), &mut |event| driver.on_event(&event))?;
        if let Some(failure) = driver.failure.take() {
            return Err(failure);
        }
    }
    client.close().context("the session cannot be closed")?;
    Ok(driver.outcome)
}

impl Driver<'_> {
    fn on_event(&mut self, event: &ClientEvent<'_>) {
        // Events tell makers of executions that takers' acks show as well.
        let ClientEvent::Reply { position, payload, .. } = event else { return };
        let now = Instant::now();
        let Some(waiting) = self.waiting.pop_front() else {
            self.outcome.different += 1;
            return;
        };
        let pause = now.saturating_duration_since(self.last_reply.max(waiting.due));
        if pause >= PAUSE_MIN {
            self.outcome.pauses.push((now - pause, pause));
        }
        self.last_reply = now;
        let latency = u64::try_from((now - waiting.due).as_nanos()).unwrap_or(LATENCY_NS_MAX);
        self.outcome.latency.saturating_record(latency);
        self.outcome.acknowledged += 1;
        if *payload != &waiting.expected[..] || position.0 <= self.last_position {
            self.outcome.different += 1;
        }
        self.last_position = position.0;
        if let Err(error) = self.collect(&waiting.order, payload) {
            self.failure = Some(error);
        }
        self.spare.push(waiting.expected);
        self.progress.answered.fetch_add(1, Ordering::Relaxed);
    }

    fn collect(&self, order: &Order, payload: &[u8]) -> Result<()> {
        match Reply::decode(payload).context("a reply cannot be read")? {
            Reply::Ack(ack) => self.collector.lock().expect("no driver panicked").on_ack(order, &ack)?,
            other => bail!("an order was answered with {other:?}"),
        }
        Ok(())
    }
}
