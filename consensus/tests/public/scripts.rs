//! The interactions: one script for each public scenario, with the same name.

use std::path::{Path, PathBuf};

use crate::datadriven::{shared_folder, text_files};
use crate::script::play;
use crate::shown::{compare, states};

macro_rules! scripts {
    ($($name:ident,)*) => {
        const NAMES: &[&str] = &[$(stringify!($name),)*];
        $(#[test]
        fn $name() {
            play(stringify!($name), include_str!(concat!("scripts/", stringify!($name), ".txt")));
        })*
    };
}

scripts! {
    async_storage_writes,
    async_storage_writes_append_aba_race,
    campaign,
    campaign_learner_must_vote,
    checkquorum,
    confchange_disable_validation,
    confchange_v1_add_single,
    confchange_v1_remove_leader,
    confchange_v1_remove_leader_stepdown,
    confchange_v2_add_double_auto,
    confchange_v2_add_double_implicit,
    confchange_v2_add_single_auto,
    confchange_v2_add_single_explicit,
    confchange_v2_replace_leader,
    confchange_v2_replace_leader_stepdown,
    forget_leader,
    forget_leader_prevote_checkquorum,
    forget_leader_read_only_lease_based,
    heartbeat_resp_recovers_from_probing,
    lagging_commit,
    prevote,
    prevote_checkquorum,
    probe_and_replicate,
    replicate_pause,
    single_node,
    slow_follower_after_compaction,
    snapshot_succeed_via_app_resp,
    snapshot_succeed_via_app_resp_behind,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/public/scripts")
}

#[test]
fn every_script_is_played_and_has_a_purpose() {
    let names: Vec<String> = text_files(&folder()).iter().map(|name| name.replace(".txt", "")).collect();
    assert_eq!(names, NAMES, "the table names every file");
    for name in NAMES {
        let text = std::fs::read_to_string(folder().join(format!("{name}.txt"))).expect("just listed");
        let purpose = text.lines().take_while(|line| line.starts_with('#')).count();
        assert!(purpose >= 2, "{name} does not say what it is about");
        assert!(play(name, &text).checks > 0, "{name} checks nothing");
    }
}

/// The states that the public scenarios show: how many lines of them, and how many the scripts find word for word and in
/// order (role, vote, term and leader; mode, match and next; what is on disk). The others differ by design.
const SHOWN: &[(&str, usize, usize)] = &[
    ("async_storage_writes_append_aba_race", 5, 5),
    // A removed leader follows.
    ("confchange_v1_remove_leader", 12, 10),
    ("confchange_v1_remove_leader_stepdown", 9, 9),
    // The new node has no vote before the record is in its log.
    ("confchange_v2_replace_leader", 15, 14),
    // The successor is the one that was summoned.
    ("confchange_v2_replace_leader_stepdown", 15, 12),
    // Pre-vote comes first.
    ("forget_leader", 36, 34),
    ("forget_leader_prevote_checkquorum", 13, 13),
    // The link closes whether one likes it or not.
    ("forget_leader_read_only_lease_based", 3, 2),
    // What was said over the old link has to be said again.
    ("heartbeat_resp_recovers_from_probing", 6, 5),
    ("lagging_commit", 2, 2),
    ("prevote", 1, 1),
    ("probe_and_replicate", 7, 7),
    ("replicate_pause", 10, 10),
    ("slow_follower_after_compaction", 6, 6),
    // Who needs a snapshot is known as soon as the log was dropped.
    ("snapshot_succeed_via_app_resp", 6, 5),
    // No snapshot is sent unasked.
    ("snapshot_succeed_via_app_resp_behind", 10, 8),
];

#[test]
fn every_public_scenario_has_a_script_that_finds_the_same_states() {
    let Some(shared) = shared_folder() else { return };
    let names: Vec<String> = text_files(&shared).iter().map(|name| name.replace(".txt", "")).collect();
    assert_eq!(names, NAMES, "every scenario has a script of its name");
    let mut found = vec![];
    for name in NAMES {
        let read = |folder: &Path| std::fs::read_to_string(folder.join(format!("{name}.txt"))).expect("just listed");
        let states = states(&read(&shared));
        let (same, missing) = compare(&states, &read(&folder()));
        println!("{name}: differs in {missing:#?}");
        if !states.is_empty() {
            found.push((*name, states.len(), same));
        }
    }
    assert_eq!(found, SHOWN);
}
