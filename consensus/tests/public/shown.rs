//! The states that a public scenario shows, in the words of our scripts, and how many of them a script finds too.

use crate::datadriven::parse;
use crate::script::runs;

/// Every line of every state that the scenario shows, as a check of ours.
pub fn states(public: &str) -> Vec<String> {
    let mut states = vec![];
    for command in parse(public) {
        let node = command.arguments.first().map_or("", |(name, _)| &name[..]);
        let lines = command.expected.lines();
        match &command.name[..] {
            "status" => states.extend(lines.filter_map(|line| progress(node, line))),
            "raft-state" => states.extend(lines.map(role)),
            "raft-log" => states.push(log(node, &command.expected)),
            _ => {}
        }
    }
    states
}

/// How many of the states, in order, the script's checks contain, and which they do not.
pub fn compare(states: &[String], script: &str) -> (usize, Vec<String>) {
    let checks: Vec<Vec<&str>> = script.lines().map(|line| line.split_whitespace().collect()).collect();
    let (mut from, mut missing) = (0, vec![]);
    for state in states {
        let words: Vec<&str> = state.split_whitespace().collect();
        let found = checks[from..].iter().position(|check| words.iter().all(|word| check.contains(word)));
        match found {
            // One check may stand for the same state shown twice.
            Some(at) => from += at,
            None => missing.push(state.clone()),
        }
    }
    (states.len() - missing.len(), missing)
}

/// `2: StateReplicate match=14 next=15 ...`; the leader's line about itself is no peer's.
fn progress(leader: &str, line: &str) -> Option<String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let node = words[0].trim_end_matches(':');
    let mode = words[1].trim_start_matches("State").to_lowercase();
    (node != leader).then(|| format!("see {leader} {node} {mode} {} {}", words[2], words[3]))
}

/// `2: StateFollower (Voter) Term:1 Lead:1`.
fn role(line: &str) -> String {
    let words: Vec<&str> = line.split_whitespace().collect();
    let node = words[0].trim_end_matches(':');
    let role = words[1].trim_start_matches("State").to_lowercase();
    let voter = words[2].trim_matches(['(', ')']).to_lowercase();
    let leader = words[4].trim_start_matches("Lead:");
    let leader = if leader == "0" { "none" } else { leader };
    format!("expect {node} {role} {voter} term={} lead={leader}", words[3].trim_start_matches("Term:"))
}

/// Lines of `term/index ...`: what is on stable storage.
fn log(node: &str, lines: &str) -> String {
    let term = |line: &str| line.split_once('/')?.0.parse().ok();
    format!("expect {node} disk={}", runs(lines.lines().filter_map(term)))
}
