//! Seeds: none of them breaks a rule, each of them is a function of its number, known bugs are found, and what is found
//! is made small and comes again.

use std::time::Duration;

use evershard_protocol::bugs::Bug;
use evershard_sim::bugs::entry;
use evershard_sim::profile;
use evershard_sim::run::Words;
use evershard_sim::shrink::{Case, decode, encode, shrink};

#[test]
fn the_standard_mix_breaks_no_rule() {
    for seed in 0..30 {
        let case = Case::of_seed(seed, profile::standard(), None);
        let report = case.run(Words::Kept);
        assert!(report.violation.is_none(), "{}", evershard_sim::report::finding(&case, &report));
    }
}

#[test]
fn a_run_is_a_function_of_its_seed() {
    let mut hashes = Vec::new();
    for seed in 40..46 {
        let case = Case::of_seed(seed, profile::standard(), None);
        let (silent, worded) = (case.run(Words::None), case.run(Words::Kept));
        assert_eq!(silent.hash, worded.hash, "seed {seed}");
        assert_eq!(silent.stats.events, worded.stats.events, "seed {seed}");
        hashes.push(silent.hash);
    }
    hashes.dedup();
    assert_eq!(hashes.len(), 6, "seeds differ");
}

#[test]
fn known_bugs_are_found() {
    for bug in [Bug::MapOrder, Bug::RecoveringCounts, Bug::AckBeforeDurable] {
        let entry = entry(bug).expect("it has its place in the table");
        let finds =
            |seed: &u64| Case::of_seed(*seed, (entry.profile)(), Some(bug)).run(Words::None).violation.is_some();
        assert!((0..entry.bound.min(40)).any(|seed| finds(&seed)), "{} is not found", bug.slug());
    }
}

#[test]
fn a_finding_becomes_small_and_comes_again() {
    let entry = entry(Bug::MapOrder).expect("it has its place in the table");
    let fails = |seed: u64| Case::of_seed(seed, (entry.profile)(), Some(Bug::MapOrder));
    let case = (0..entry.bound).map(fails).find(|case| case.run(Words::None).violation.is_some());
    let case = case.expect("the bug is found");
    let rule = case.run(Words::None).violation.expect("it was found").rule;
    let small = shrink(&case, rule, Duration::from_secs(5));
    let kept = small.keep.clone().expect("a small case names its faults");
    assert!(kept.len() <= case.plan().faults.len());
    let again = Case { keep: decode(&encode(&kept)), ..small.clone() };
    assert_eq!(again.run(Words::None).violation.expect("the line fails again").rule, rule);
    assert!(small.to_string().contains("--bug map-order --keep "), "{small}");
}
