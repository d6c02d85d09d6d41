//! Dependencies between the crates of the house go down a floor: a new edge is a decision, made here.

use std::collections::{BTreeMap, BTreeSet};

use cargo_metadata::{DependencyKind, MetadataCommand};

/// Each crate with the crates of the house that it may depend on. Dev-dependencies are free: tests look everywhere.
const ALLOWED: &[(&str, &[&str])] = &[
    // Ground.
    ("evershard-protocol", &[]),
    ("evershard-sys", &[]),
    // Cores.
    ("evershard-consensus", &["evershard-protocol"]),
    ("evershard-log", &["evershard-protocol"]),
    ("evershard-service", &["evershard-protocol"]),
    ("exchange-book", &[]),
    // Shells.
    (
        "evershard-node",
        &["evershard-consensus", "evershard-log", "evershard-protocol", "evershard-service", "evershard-sys"],
    ),
    ("evershard-client", &["evershard-protocol"]),
    ("evershard", &["evershard-client", "evershard-node", "evershard-protocol", "evershard-service"]),
    ("evershard-tuning", &[]),
    // Leaves.
    ("echo", &["evershard"]),
    ("exchange", &["evershard", "evershard-service", "exchange-book"]),
    ("evershard-bench", &["echo", "evershard"]),
    (
        "evershard-sim",
        &[
            "evershard-client",
            "evershard-consensus",
            "evershard-log",
            "evershard-node",
            "evershard-protocol",
            "evershard-service",
            "evershard-sys",
        ],
    ),
];

#[test]
fn dependencies_go_down_a_floor() {
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    let metadata = MetadataCommand::new().manifest_path(manifest).no_deps().exec().expect("cargo knows its workspace");
    let allowed: BTreeMap<&str, &[&str]> = ALLOWED.iter().copied().collect();
    let house: BTreeSet<&str> = metadata.packages.iter().map(|package| package.name.as_str()).collect();
    let mut wrong = Vec::new();
    for package in &metadata.packages {
        let from = package.name.as_str();
        let Some(below) = allowed.get(from) else {
            wrong.push(format!("{from} has no floor: add it to ALLOWED with the crates it may depend on"));
            continue;
        };
        for dependency in package.dependencies.iter().filter(|one| one.kind != DependencyKind::Development) {
            let to = dependency.name.as_str();
            if house.contains(to) && !below.contains(&to) {
                wrong.push(format!("{from} -> {to} is not an edge of the floor plan"));
            }
        }
    }
    for name in allowed.keys().filter(|name| !house.contains(*name)) {
        wrong.push(format!("{name} is in ALLOWED but not in the workspace"));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The table itself has no way up: every allowed edge leads to a crate listed before.
#[test]
fn the_floor_plan_is_in_order() {
    for (at, (from, below)) in ALLOWED.iter().enumerate() {
        for to in *below {
            let known = ALLOWED[..at].iter().any(|(name, _)| name == to);
            assert!(known, "{from} -> {to} leads up");
        }
    }
}
