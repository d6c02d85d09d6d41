//! The table of scenarios says what there is: every number once, every test it names exists and is run.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Where the crates of the table have their sources.
const CRATES: [(&str, &str); 9] = [
    ("client", "runtime/client"),
    ("consensus", "consensus"),
    ("echo", "apps/echo"),
    ("exchange", "apps/exchange"),
    ("log", "log"),
    ("node", "runtime/node"),
    ("protocol", "runtime/protocol"),
    ("sim", "runtime/sim"),
    ("sys", "runtime/sys"),
];

/// One row.
struct Row {
    number: usize,
    /// Crate and name.
    tests: Vec<(String, String)>,
    is_open: bool,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The rows of both lists.
fn tables() -> [Vec<Row>; 2] {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("COVERAGE.md")).expect("the table");
    let (first, second) = text.split_once("## List 2").expect("two lists");
    [first, second].map(|part| part.lines().filter_map(row).collect())
}

fn row(line: &str) -> Option<Row> {
    let cells: Vec<&str> = line.split('|').map(str::trim).collect();
    let [_, number, title, tests, _] = cells[..] else { return None };
    let number = number.parse().ok()?;
    assert!(!title.is_empty(), "{number} has no title");
    let (named, open) = match tests.split_once("open:") {
        Some((named, reason)) => (named, Some(reason.trim())),
        None => (tests, None),
    };
    assert!(open.is_none_or(|reason| reason.len() > 10), "{number} is open without a reason");
    let mut found = Vec::new();
    for group in named.split(';').map(str::trim).filter(|group| !group.is_empty()) {
        let (of, names) = group.split_once(':').unwrap_or_else(|| panic!("{number}: `{group}` names no crate"));
        found.extend(names.split(',').map(|name| (of.trim().to_owned(), name.trim().to_owned())));
    }
    assert!(open.is_some() || !found.is_empty(), "{number} is neither shown nor open");
    Some(Row { number, tests: found, is_open: open.is_some() })
}

/// All that the sources below a folder say.
fn sources(folder: &Path, into: &mut Vec<String>) {
    for entry in fs::read_dir(folder).expect("a folder of sources").map(|entry| entry.expect("an entry").path()) {
        if entry.is_dir() {
            sources(&entry, into);
        } else if entry.extension().is_some_and(|ending| ending == "rs") {
            into.push(fs::read_to_string(&entry).expect("a source"));
        }
    }
}

/// The attributes of the function of this name, if it is there.
fn attributes<'a>(source: &'a str, name: &str) -> Option<Vec<&'a str>> {
    let head = format!("fn {name}(");
    let lines: Vec<&str> = source.lines().map(str::trim).collect();
    let at = lines.iter().position(|line| line.starts_with(&head))?;
    Some(
        lines[..at].iter().rev().take_while(|line| line.starts_with("#[") || line.starts_with("//")).copied().collect(),
    )
}

#[test]
fn every_scenario_has_its_row() {
    for (rows, len) in tables().into_iter().zip([74, 55]) {
        let numbers: Vec<usize> = rows.iter().map(|row| row.number).collect();
        assert_eq!(numbers, (1..=len).collect::<Vec<_>>(), "every number once, in order");
    }
}

#[test]
fn every_test_of_the_table_exists_and_is_run() {
    let mut texts: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (name, path) in CRATES {
        let of_crate = texts.entry(name).or_default();
        for folder in ["src", "tests"].map(|folder| root().join(path).join(folder)).iter().filter(|path| path.exists())
        {
            sources(folder, of_crate);
        }
    }
    for (list, rows) in tables().iter().enumerate() {
        for Row { number, tests, .. } in rows {
            for (of, name) in tests {
                let texts = texts.get(of.as_str()).unwrap_or_else(|| panic!("there is no crate `{of}`"));
                let found: Vec<_> = texts.iter().filter_map(|text| attributes(text, name)).collect();
                let place = format!("list {}, {number}: `{name}` of {of}", list + 1);
                assert!(!found.is_empty(), "{place} does not exist");
                let is_test = found.iter().any(|lines| lines.contains(&"#[test]"));
                assert!(is_test, "{place} is no test");
                let is_ignored = found.iter().flatten().any(|line| line.starts_with("#[ignore"));
                assert!(!is_ignored, "{place} is not run");
            }
        }
    }
}

#[test]
fn scenarios_that_must_have_a_name_of_their_own_have_it() {
    let [first, _] = tables();
    for Row { number, tests, is_open } in first {
        let prefix = format!("s{number:02}_");
        let is_named = tests.iter().any(|(_, name)| name.starts_with(&prefix));
        let must = matches!(number, 1..=37 | 44..=52 | 72);
        assert!(!must || is_named || is_open, "{number} has no test that begins with {prefix}");
    }
}
