//! The interactions: one script for each public scenario, with the same name.

use std::path::{Path, PathBuf};

use crate::datadriven::{shared_folder, text_files};
use crate::script::play;

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

/// Where the public scenario shows a state, the script checks one.
#[test]
fn every_public_scenario_has_a_script_that_checks_as_often() {
    let Some(shared) = shared_folder() else { return };
    let names: Vec<String> = text_files(&shared).iter().map(|name| name.replace(".txt", "")).collect();
    assert_eq!(names, NAMES, "every scenario has a script of its name");
    for name in NAMES {
        let public = std::fs::read_to_string(shared.join(format!("{name}.txt"))).expect("just listed");
        let shows = |line: &&str| ["raft-state", "status ", "raft-log "].iter().any(|verb| line.starts_with(verb));
        let shown = public.lines().filter(shows).count();
        let text = std::fs::read_to_string(folder().join(format!("{name}.txt"))).expect("just listed");
        let checks = play(name, &text).checks;
        assert!(checks >= shown, "{name} checks {checks} times, the scenario shows a state {shown} times");
    }
}
