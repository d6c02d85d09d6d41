//! Makes a failing run small: leaves out faults, then clients and commands, then time, as long as the same rule is
//! broken. What is left is one line to run again.

use std::fmt;
use std::time::{Duration, Instant};

use evershard_protocol::bugs::Bug;

use crate::plan::Plan;
use crate::profile::Profile;
use crate::run::{Report, Words, run};

/// What is run: a seed of a mix, with parts left out.
#[derive(Clone)]
pub struct Case {
    /// The seed.
    pub seed: u64,
    /// The mix.
    pub profile: Profile,
    /// The bug that is on.
    pub bug: Option<Bug>,
    /// Faults that are kept, by their places; `None`: all.
    pub keep: Option<Vec<usize>>,
    /// Clients of each shard, if not drawn.
    pub clients: Option<usize>,
    /// Commands of each client, if not drawn.
    pub commands: Option<u64>,
    /// How long faults go on, in milliseconds, if not drawn.
    pub duration_ms: Option<u64>,
}

impl Case {
    /// A whole seed.
    #[must_use]
    pub fn of_seed(seed: u64, profile: Profile, bug: Option<Bug>) -> Self {
        Self { seed, profile, bug, keep: None, clients: None, commands: None, duration_ms: None }
    }

    /// Its plan.
    #[must_use]
    pub fn plan(&self) -> Plan {
        let mut plan = Plan::of_seed(self.seed, &self.profile);
        if let Some(kept) = &self.keep {
            plan.keep(kept);
        }
        // Not more than the seed has: numbers of clients are also numbers of their streams.
        let options = &mut plan.options;
        options.clients = self.clients.unwrap_or(options.clients).clamp(1, options.clients);
        options.commands = self.commands.unwrap_or(options.commands);
        options.duration_ns = self.duration_ms.map_or(options.duration_ns, |ms| ms * 1_000_000);
        plan.forget_absent_clients();
        plan
    }

    /// Runs it.
    #[must_use]
    pub fn run(&self, words: Words) -> Report {
        run(&self.plan(), self.bug, words)
    }
}

/// The line that runs a case again.
impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cargo run --release -p evershard-sim -- --seed {}", self.seed)?;
        if self.profile.name != "standard" {
            write!(f, " --mix {}", self.profile.name)?;
        }
        if let Some(bug) = self.bug {
            write!(f, " --bug {}", bug.slug())?;
        }
        if let Some(kept) = &self.keep {
            write!(f, " --keep {}", encode(kept))?;
        }
        if let Some(clients) = self.clients {
            write!(f, " --clients {clients}")?;
        }
        if let Some(commands) = self.commands {
            write!(f, " --commands {commands}")?;
        }
        if let Some(ms) = self.duration_ms {
            write!(f, " --duration {ms}")?;
        }
        Ok(())
    }
}

/// Places of faults as text: `0-3,7`; `none` for none.
#[must_use]
pub fn encode(kept: &[usize]) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut at = 0;
    while at < kept.len() {
        let first = kept[at];
        let mut last = first;
        while kept.get(at + 1) == Some(&(last + 1)) {
            last += 1;
            at += 1;
        }
        at += 1;
        parts.push(if first == last { first.to_string() } else { format!("{first}-{last}") });
    }
    if parts.is_empty() { "none".to_owned() } else { parts.join(",") }
}

/// The places that a text names; `None` if it names none rightly.
#[must_use]
pub fn decode(text: &str) -> Option<Vec<usize>> {
    if text == "none" {
        return Some(Vec::new());
    }
    let mut kept = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        kept.extend(first..=last);
    }
    Some(kept)
}

/// Shrinks a failing case within the time given. Returns the smallest that was found; it fails by the same rule.
#[must_use]
pub fn shrink(case: &Case, rule: &str, within: Duration) -> Case {
    let end = Instant::now() + within;
    let fails = |case: &Case| {
        Instant::now() < end && case.run(Words::None).violation.is_some_and(|violation| violation.rule == rule)
    };
    let all: Vec<usize> = case.plan().faults.iter().map(|planned| planned.index).collect();
    let mut best = Case { keep: Some(all), ..case.clone() };
    if !fails(&best) {
        return case.clone();
    }
    loop {
        let before = best.to_string();
        drop_faults(&mut best, &fails);
        lessen(&mut best, &fails);
        if best.to_string() == before || Instant::now() >= end {
            return best;
        }
    }
}

/// Delta debugging over the list of faults (Zeller and Hildebrandt 2002): leaves out ever smaller parts.
fn drop_faults(best: &mut Case, fails: &impl Fn(&Case) -> bool) {
    let mut kept = best.keep.clone().unwrap_or_default();
    let mut size = kept.len();
    while size > 0 {
        let mut at = 0;
        while at < kept.len() {
            let mut fewer = kept.clone();
            fewer.drain(at..(at + size).min(kept.len()));
            let candidate = Case { keep: Some(fewer.clone()), ..best.clone() };
            if fails(&candidate) {
                kept = fewer;
                *best = candidate;
            } else {
                at += size;
            }
        }
        size /= 2;
    }
}

/// Fewer clients, fewer commands, less time.
fn lessen(best: &mut Case, fails: &impl Fn(&Case) -> bool) {
    let options = best.plan().options;
    for clients in 1..options.clients {
        let candidate = Case { clients: Some(clients), ..best.clone() };
        if fails(&candidate) {
            *best = candidate;
            break;
        }
    }
    let mut commands = options.commands;
    while commands > 1 {
        let candidate = Case { commands: Some(commands / 2), ..best.clone() };
        if !fails(&candidate) {
            break;
        }
        commands /= 2;
        *best = candidate;
    }
    let mut ms = options.duration_ns / 1_000_000;
    while ms > 100 {
        let candidate = Case { duration_ms: Some(ms * 2 / 3), ..best.clone() };
        if !fails(&candidate) {
            break;
        }
        ms = ms * 2 / 3;
        *best = candidate;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_come_back_as_they_were() {
        for kept in [vec![], vec![0], vec![0, 1, 2, 5], vec![3, 7, 8, 9, 20]] {
            assert_eq!(decode(&encode(&kept)), Some(kept));
        }
        assert_eq!(encode(&[0, 1, 2, 5]), "0-2,5");
        assert_eq!(decode("1-x"), None);
    }
}
