//! Runs the same schedules on `evershard-consensus` and on the crate `raft`, and prints the first difference.
//!
//! Arguments: how many seeds, and the first of them; 1000 and 0 by default. A third names a bug that is switched on in
//! ours, to see that it is noticed. See README.md for what is compared.

mod cluster;
mod ours;
mod schedule;
mod theirs;

use std::process::ExitCode;
use std::time::Instant;

use evershard_protocol::bugs::{self, Bug};
use schedule::{Counts, Schedule};

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1).take(2).map(|text| text.parse::<u64>());
    let seeds_len = arguments.next().unwrap_or(Ok(1000));
    let first = arguments.next().unwrap_or(Ok(0));
    let (Ok(seeds_len), Ok(first)) = (seeds_len, first) else {
        eprintln!("error: the arguments are no numbers\n\nhint: give the number of seeds and the first of them");
        return ExitCode::FAILURE;
    };
    if let Some(slug) = std::env::args().nth(3) {
        let Some(bug) = Bug::from_slug(&slug) else {
            eprintln!("error: there is no bug {slug}\n\nhint: see runtime/protocol/src/bugs.rs");
            return ExitCode::FAILURE;
        };
        bugs::switch(Some(bug));
    }
    let begun = Instant::now();
    let mut total = Counts::default();
    for seed in first..first + seeds_len {
        let mut schedule = Schedule::new(seed);
        if let Err(difference) = schedule.run(STEPS_LEN) {
            eprintln!("error: seed {seed}: {difference}");
            return ExitCode::FAILURE;
        }
        total.add(&schedule.counts);
    }
    println!("{seeds_len} seeds without a difference in {:.1} s: {total:?}", begun.elapsed().as_secs_f64());
    ExitCode::SUCCESS
}

impl Counts {
    fn add(&mut self, other: &Self) {
        self.steps += other.steps;
        self.elections += other.elections;
        self.commands += other.commands;
        self.committed += other.committed;
        self.overwritten += other.overwritten;
        self.transfers += other.transfers;
        self.changes += other.changes;
        self.crashes += other.crashes;
    }
}

const STEPS_LEN: usize = 60;
