//! Three kinds of load on one client, on the calling thread.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use evershard::Client;
use evershard::client::{ClientEvent, SendError};
use evershard::protocol::client::ReplyStatus;

use crate::report::{Recorder, Series};
use crate::schedule::Schedule;

/// What a full window gave.
#[derive(Debug, Clone, Copy)]
pub struct Throughput {
    /// Replies counted.
    pub replies: u64,
    /// In which time.
    pub elapsed: Duration,
}

impl Throughput {
    /// Replies a second.
    pub fn rate(&self) -> f64 {
        self.replies as f64 / self.elapsed.as_secs_f64()
    }
}

/// One request in flight, each sent when the one before is answered.
pub fn closed_loop(client: &mut Client, name: &str, size: usize, length: Duration) -> Result<Series> {
    let payload = vec![FILLING; size];
    warm_up(client, &payload, length)?;
    let mut recorder = Recorder::new(name, INTERVAL);
    let begin = Instant::now();
    let mut sent = begin;
    loop {
        let reply = client.call(&payload)?;
        let replied = Instant::now();
        ensure!(reply.status == ReplyStatus::Applied, "a request was answered with {:?}", reply.status);
        ensure!(reply.payload.len() == size, "an echo of {size} bytes came back with {}", reply.payload.len());
        let at = replied - begin;
        recorder.record(at, replied - sent);
        if at >= length {
            return Ok(recorder.finish(at));
        }
        // Recording is not part of the next latency.
        sent = Instant::now();
    }
}

/// As many requests in flight as the client's window allows, topped up whenever replies come.
pub fn window(client: &mut Client, size: usize, window_len: usize, length: Duration) -> Result<Throughput> {
    let payload = vec![FILLING; size];
    let warm_up = length / WARM_UP_SHARE;
    let mut tally = Tally::default();
    let mut begin = Instant::now();
    let mut is_warm = false;
    let throughput = loop {
        while client.unanswered() < window_len {
            match client.try_send(&payload) {
                Ok(_) => {}
                Err(SendError::WindowFull | SendError::QueueFull) => break,
                Err(error) => return Err(error.into()),
            }
        }
        client.poll(Some(REPLY_MAX), &mut |event| _ = tally.take(&event, size))?;
        tally.check()?;
        let elapsed = begin.elapsed();
        if !is_warm && elapsed >= warm_up {
            (is_warm, tally.replies, begin) = (true, 0, Instant::now());
        } else if is_warm && elapsed >= length {
            break Throughput { replies: tally.replies, elapsed };
        }
    };
    drain(client)?;
    Ok(throughput)
}

/// Requests at their scheduled times; each latency counts from there, also when the window was full or the client was
/// busy with replies.
///
/// Between two requests the client waits in the kernel, for a reply or for the next one's time, but never less than
/// [`WAIT_MIN`] before it: the last stretch is polled, so that a late wake-up is no one's latency.
pub fn open_loop(client: &mut Client, name: &str, size: usize, rate: f64, length: Duration) -> Result<Series> {
    let payload = vec![FILLING; size];
    warm_up(client, &payload, length)?;
    let mut schedule = Schedule::new(rate, length);
    let mut recorder = Recorder::new(name, INTERVAL);
    let mut intended: VecDeque<Duration> = VecDeque::with_capacity(client_window(rate));
    let mut tally = Tally::default();
    let begin = Instant::now();
    loop {
        let now = begin.elapsed();
        while let Some(due) = schedule.peek().filter(|due| due.intended <= now) {
            match client.try_send(&payload) {
                Ok(_) => intended.push_back(due.intended),
                // Stays due: what it waits here is part of its latency.
                Err(SendError::WindowFull | SendError::QueueFull) => break,
                Err(error) => return Err(error.into()),
            }
            schedule.take_due(now);
        }
        if schedule.peek().is_none() && intended.is_empty() {
            break;
        }
        let wait = match schedule.wait(now) {
            // All due ones that fit were sent: with one still due the window is full, and only a reply helps.
            Some(Duration::ZERO) | None => REPLY_MAX,
            Some(wait) => wait.saturating_sub(WAIT_MIN),
        };
        client.poll(Some(wait), &mut |event| {
            if tally.take(&event, size) {
                // Replies come in the order of the requests. The clock is read for each: a batch is not instant.
                let replied = begin.elapsed();
                let intended = intended.pop_front().expect("a session answers each request once");
                recorder.record(replied, replied.saturating_sub(intended));
            }
        })?;
        tally.check()?;
        ensure!(begin.elapsed() < length * 2 + REPLY_MAX, "{name}: the rate is beyond the cluster; lower --rates");
    }
    Ok(recorder.finish(begin.elapsed()))
}

fn warm_up(client: &mut Client, payload: &[u8], length: Duration) -> Result<()> {
    let begin = Instant::now();
    while begin.elapsed() < length / WARM_UP_SHARE {
        client.call(payload)?;
    }
    Ok(())
}

fn drain(client: &mut Client) -> Result<()> {
    let begin = Instant::now();
    while client.unanswered() > 0 {
        ensure!(begin.elapsed() < DRAIN_MAX, "{} requests stay unanswered", client.unanswered());
        client.poll(Some(REPLY_MAX), &mut |_| {})?;
    }
    Ok(())
}

/// What came back, and whether it is what was asked for.
#[derive(Debug, Default)]
struct Tally {
    replies: u64,
    last_position: u64,
    wrong: Option<String>,
}

impl Tally {
    /// Takes one event; whether it was a reply. A reconnection is no error: its pause is in the latencies.
    fn take(&mut self, event: &ClientEvent<'_>, size: usize) -> bool {
        let ClientEvent::Reply { request, position, status, payload, .. } = event else { return false };
        self.replies += 1;
        // Each request is a record of its own: a reply that is counted twice or made up would not move forward.
        if *status != ReplyStatus::Applied || payload.len() != size || position.0 <= self.last_position {
            let bytes = payload.len();
            self.wrong = Some(format!("{request}: {status:?} at {position} with {bytes} bytes, not an echo of {size}"));
        }
        self.last_position = position.0;
        true
    }

    fn check(&self) -> Result<()> {
        match &self.wrong {
            Some(wrong) => bail!("{wrong}; the position before was {}", self.last_position),
            None => Ok(()),
        }
    }
}

/// Room for a tenth of a second: the queue does not grow in a run that keeps up.
fn client_window(rate: f64) -> usize {
    (rate / 10.0) as usize + 1
}

/// Of every length, before it.
const WARM_UP_SHARE: u32 = 5;
/// What a load takes with its warm-up, relative to what it counts.
pub const WITH_WARM_UP: f64 = 1.0 + 1.0 / WARM_UP_SHARE as f64;
/// A new interval's histogram costs tens of microseconds on the measuring thread: rarely, so as not to be the tail.
const INTERVAL: Duration = Duration::from_secs(1);
const REPLY_MAX: Duration = Duration::from_secs(1);
/// How long the rest of a window may take.
const DRAIN_MAX: Duration = Duration::from_secs(10);
/// The kernel wakes a sleeper this late at worst on a core that is not busy, with a timer slack of 1 ns.
const WAIT_MIN: Duration = Duration::ZERO;
const FILLING: u8 = 0x45;
