//! One judgement, and all of them.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How good a thing is as it was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Grade {
    /// Nothing to do.
    Good,
    /// Nothing to judge; good to know.
    Info,
    /// It could not be found out.
    Unknown,
    /// It works, with a longer tail than it need have.
    CouldBeBetter,
    /// It does not work, or it breaks a promise.
    Harmful,
}

impl fmt::Display for Grade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Grade::Good => "good",
            Grade::Info => "info",
            Grade::Unknown => "unknown",
            Grade::CouldBeBetter => "could be better",
            Grade::Harmful => "harmful",
        })
    }
}

/// One judgement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// A short name that stays the same between releases.
    pub subject: String,
    /// The judgement.
    pub grade: Grade,
    /// What was found.
    pub found: String,
    /// What is wanted.
    pub wanted: String,
    /// Why it matters here.
    pub why: String,
    /// How to change it; empty when there is nothing to change.
    pub change: String,
}

impl Finding {
    /// A finding whose change is only told when there is something to change.
    pub(crate) fn new(subject: &str, grade: Grade, found: impl Into<String>, advice: &Advice) -> Self {
        let change = if matches!(grade, Grade::Good | Grade::Info) { "" } else { advice.change };
        Self {
            subject: subject.to_owned(),
            grade,
            found: found.into(),
            wanted: advice.wanted.to_owned(),
            why: advice.why.to_owned(),
            change: change.to_owned(),
        }
    }
}

/// What is always the same about a subject.
pub(crate) struct Advice {
    pub wanted: &'static str,
    pub why: &'static str,
    pub change: &'static str,
}

/// All judgements of one host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// In the order of the host's parts.
    pub findings: Vec<Finding>,
}

impl Report {
    /// The worst grade of all.
    pub fn worst(&self) -> Grade {
        self.findings.iter().map(|finding| finding.grade).max().unwrap_or(Grade::Good)
    }

    /// Whether the host passes: nothing harmful and, if strict, nothing that could be better.
    pub fn passes(&self, strict: bool) -> bool {
        self.worst() < if strict { Grade::CouldBeBetter } else { Grade::Harmful }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Finding { subject, grade, found, wanted, why, change } in &self.findings {
            writeln!(f, "{grade:<16}{subject:<22}{found}")?;
            if *grade >= Grade::Unknown {
                writeln!(f, "{:<16}{:<22}wanted: {wanted}", "", "")?;
                writeln!(f, "{:<16}{:<22}why:    {why}", "", "")?;
                writeln!(f, "{:<16}{:<22}change: {change}", "", "")?;
            }
        }
        let count = |grade| self.findings.iter().filter(|finding| finding.grade == grade).count();
        writeln!(
            f,
            "\n{} good, {} could be better, {} harmful, {} unknown",
            count(Grade::Good),
            count(Grade::CouldBeBetter),
            count(Grade::Harmful),
            count(Grade::Unknown)
        )
    }
}
