//! What of the public tables is run, file by file: nothing is left out in silence.

use std::path::{Path, PathBuf};

use crate::datadriven::{parse, shared_folder, text_files};
use crate::{confchange, quorums};

/// Every file of the two kinds, and how many commands it has.
const TABLES: &[(&str, usize)] = &[
    ("confchange/testdata/joint_autoleave.txt", 4),
    ("confchange/testdata/joint_idempotency.txt", 3),
    ("confchange/testdata/joint_learners_next.txt", 3),
    ("confchange/testdata/joint_safety.txt", 15),
    ("confchange/testdata/simple_idempotency.txt", 11),
    ("confchange/testdata/simple_promote_demote.txt", 7),
    ("confchange/testdata/simple_safety.txt", 11),
    ("confchange/testdata/update.txt", 3),
    ("confchange/testdata/zero.txt", 1),
    ("quorum/testdata/joint_commit.txt", 50),
    ("quorum/testdata/joint_vote.txt", 39),
    ("quorum/testdata/majority_commit.txt", 16),
    ("quorum/testdata/majority_vote.txt", 22),
];

fn run_file(path: &Path, name: &str) -> usize {
    if name.starts_with("quorum") { quorums::run_file(path) } else { confchange::run_file(path) }
}

#[test]
fn every_public_table_is_run_and_every_command_compared() {
    let Some(folder) = shared_folder() else { return };
    let mut found = vec![];
    for kind in ["confchange", "quorum"] {
        let files = text_files(&folder.join(kind).join("testdata"));
        found.extend(files.iter().map(|name| format!("{kind}/testdata/{name}")));
    }
    let known: Vec<&str> = TABLES.iter().map(|(name, _)| *name).collect();
    assert_eq!(found, known, "every file is listed");
    let mut counted = vec![];
    for (name, _) in TABLES {
        let path = folder.join(name);
        let text = std::fs::read_to_string(&path).expect("just listed");
        let answers = text.lines().filter(|line| *line == "----").count();
        assert_eq!(parse(&text).len(), answers, "{name}: the reader finds every command");
        counted.push((*name, run_file(&path, name)));
    }
    assert_eq!(counted, TABLES, "commands of each file");
}

#[test]
fn our_own_samples_of_the_tables_are_run() {
    let folder: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/public/samples");
    let mut commands = 0;
    for kind in ["confchange", "quorum"] {
        for name in text_files(&folder.join(kind)) {
            commands += run_file(&folder.join(kind).join(&name), kind);
        }
    }
    assert_eq!(commands, 19, "the samples have changed");
}
