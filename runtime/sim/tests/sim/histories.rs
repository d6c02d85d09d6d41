//! The checker of linearizability against histories with known verdicts: the public ones of real systems, where they are
//! at hand, and otherwise two of our own making. A checker by other hands gives a second opinion.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use evershard_sim::wgl::{Call, Model, Register, RegisterOp, Verdict, check};
use todc_utils::linearizability::WGLChecker;
use todc_utils::specifications::etcd::{EtcdSpecification, history_from_log};

const STEPS_MAX: u64 = 5_000_000;
const NIL: u64 = u64::MAX;

fn public() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/histories")
}

fn samples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("samples")
}

/// Reads a log of Jepsen's test of a register.
fn register_log(path: &Path) -> Vec<Call<RegisterOp>> {
    let text = std::fs::read_to_string(path).expect("a history that is there");
    let mut calls: Vec<Call<RegisterOp>> = Vec::new();
    let mut open: BTreeMap<String, usize> = BTreeMap::new();
    for (time, line) in text.lines().enumerate() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [_, "jepsen.util", _, process, kind, function, ref values @ ..] = words[..] else { continue };
        if process == ":nemesis" {
            continue;
        }
        let value = |at: usize| {
            let word = values[at].trim_matches(|letter| letter == '[' || letter == ']');
            if word == "nil" { NIL } else { word.parse().expect("a number") }
        };
        let time = time as u64;
        match kind {
            ":invoke" => {
                let op = match function {
                    ":read" => RegisterOp::Read(None),
                    ":write" => RegisterOp::Write(value(0)),
                    _ => RegisterOp::Cas(value(0), value(1), None),
                };
                open.insert(process.to_owned(), calls.len());
                calls.push(Call { op, invoked: time, returned: None });
            }
            ":ok" | ":fail" => {
                let Some(at) = open.remove(process) else { continue };
                let call = &mut calls[at];
                call.returned = Some(time);
                call.op = match call.op {
                    RegisterOp::Read(_) if kind == ":ok" => RegisterOp::Read(Some(value(0))),
                    RegisterOp::Cas(from, to, _) => RegisterOp::Cas(from, to, Some(kind == ":ok")),
                    RegisterOp::Write(_) if kind == ":fail" => RegisterOp::Read(None),
                    op => op,
                };
            }
            // Nobody knows: it stays open. The process goes on under another name.
            _ => {
                open.remove(process);
            }
        }
    }
    calls
}

fn verdict(path: &Path) -> Verdict {
    check(&Register(NIL), &register_log(path), STEPS_MAX)
}

#[test]
fn registers_of_real_systems_are_judged_rightly() {
    let (table, logs) = (public().join("expected_jepsen.csv"), public().join("test_data/jepsen"));
    let Ok(table) = std::fs::read_to_string(table) else {
        assert_eq!(verdict(&samples().join("register-good.log")), Verdict::Linearizable);
        assert_eq!(verdict(&samples().join("register-bad.log")), Verdict::NotLinearizable);
        return;
    };
    let mut judged = 0;
    for line in table.lines().skip(1) {
        let (name, expected) = line.split_once(',').expect("name and verdict");
        let path = logs.join(name);
        let expected = expected.trim() == "true";
        let is = verdict(&path);
        assert_eq!(is == Verdict::Linearizable, expected, "{name}: {is:?}");
        assert_ne!(is, Verdict::GaveUp, "{name}");
        judged += 1;
    }
    assert_eq!(judged, 102);
}

#[test]
fn the_samples_are_judged_alike_by_a_checker_of_other_hands() {
    for (name, expected) in [("register-good.log", true), ("register-bad.log", false)] {
        let path = samples().join(name);
        assert_eq!(verdict(&path) == Verdict::Linearizable, expected, "{name}");
        let history = history_from_log(path.display().to_string());
        assert_eq!(WGLChecker::<EtcdSpecification>::is_linearizable(history), expected, "{name}, second opinion");
    }
}

/// A key that is appended to and read.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Text(String);

enum TextOp {
    Append(String),
    Put(String),
    Get(Option<String>),
}

impl Model for Text {
    type Op = TextOp;

    fn apply(&self, op: &TextOp) -> Option<Self> {
        match op {
            TextOp::Append(more) => Some(Self(format!("{}{more}", self.0))),
            TextOp::Put(value) => Some(Self(value.clone())),
            TextOp::Get(told) => told.as_ref().is_none_or(|told| *told == self.0).then(|| self.clone()),
        }
    }
}

/// Reads a history of a key-value store, key by key.
fn text_log(path: &Path) -> BTreeMap<String, Vec<Call<TextOp>>> {
    let text = std::fs::read_to_string(path).expect("a history that is there");
    let mut keys: BTreeMap<String, Vec<Call<TextOp>>> = BTreeMap::new();
    let mut open: BTreeMap<String, (String, usize)> = BTreeMap::new();
    for (time, line) in text.lines().enumerate() {
        let field = |name: &str| {
            let rest = &line[line.find(name).expect("every line has all fields") + name.len() + 1..];
            let quoted = rest.strip_prefix('"').and_then(|rest| rest.split('"').next());
            quoted.unwrap_or_else(|| rest.split([',', '}']).next().expect("a value")).to_owned()
        };
        let (process, key, time) = (field(":process"), field(":key"), time as u64);
        if field(":type") == ":invoke" {
            let op = match field(":f").as_str() {
                ":append" => TextOp::Append(field(":value")),
                ":put" => TextOp::Put(field(":value")),
                _ => TextOp::Get(None),
            };
            let calls = keys.entry(key.clone()).or_default();
            open.insert(process, (key, calls.len()));
            calls.push(Call { op, invoked: time, returned: None });
        } else if let Some((key, at)) = open.remove(&process) {
            let call = &mut keys.get_mut(&key).expect("it was invoked")[at];
            call.returned = Some(time);
            if let TextOp::Get(told) = &mut call.op {
                *told = Some(field(":value"));
            }
        }
    }
    keys
}

#[test]
fn key_value_histories_are_judged_rightly() {
    for name in ["c01-ok", "c01-bad", "c10-ok", "c10-bad"] {
        let path = public().join("test_data/kv").join(format!("{name}.txt"));
        if !path.exists() {
            return;
        }
        let verdicts = text_log(&path).into_values().map(|calls| check(&Text(String::new()), &calls, STEPS_MAX));
        let all_good = verdicts.fold(true, |good, verdict| {
            assert_ne!(verdict, Verdict::GaveUp, "{name}");
            good && verdict == Verdict::Linearizable
        });
        assert_eq!(all_good, name.ends_with("ok"), "{name}");
    }
}
