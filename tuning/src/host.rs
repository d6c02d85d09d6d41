//! Reading a host's `/proc` and `/sys` under any root.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// A host's files.
pub(crate) struct Host {
    root: PathBuf,
}

impl Host {
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// A file's text without the white space around it; `None` when it cannot be read or is empty.
    pub fn text(&self, path: &str) -> Option<String> {
        let text = fs::read_to_string(self.path(path)).ok()?;
        let text = text.trim();
        (!text.is_empty()).then(|| text.to_owned())
    }

    /// A file that holds one number.
    pub fn number(&self, path: &str) -> Option<u64> {
        self.text(path)?.parse().ok()
    }

    /// A file that holds a list of cores; an empty file is an empty list.
    pub fn cpu_list(&self, path: &str) -> Option<CpuList> {
        fs::read_to_string(self.path(path)).ok()?.parse().ok()
    }

    /// The word in brackets of a file such as `always [madvise] never`.
    pub fn choice(&self, path: &str) -> Option<String> {
        let text = self.text(path)?;
        let (_, rest) = text.split_once('[')?;
        Some(rest.split_once(']')?.0.to_owned())
    }

    /// The names in a directory, sorted; none when it cannot be read.
    pub fn names(&self, path: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path(path)).into_iter().flatten().flatten();
        let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.sort();
        names
    }

    /// The cores that are running.
    pub fn online(&self) -> CpuList {
        self.cpu_list("sys/devices/system/cpu/online").unwrap_or_default()
    }

    fn path(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }
}

/// A set of cores, in the kernel's notation: `0-3,8`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CpuList(BTreeSet<usize>);

impl CpuList {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether a core is among them.
    pub fn contains(&self, core: usize) -> bool {
        self.0.contains(&core)
    }

    /// The cores, ascending.
    pub fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.0.iter().copied()
    }

    /// The cores that both have.
    pub fn common(&self, other: &CpuList) -> CpuList {
        CpuList(self.0.intersection(&other.0).copied().collect())
    }

    /// Whether each of these is among the others.
    pub fn is_within(&self, other: &CpuList) -> bool {
        self.0.is_subset(&other.0)
    }
}

impl FromIterator<usize> for CpuList {
    fn from_iter<I: IntoIterator<Item = usize>>(cores: I) -> Self {
        Self(cores.into_iter().collect())
    }
}

/// A text that is not a list of cores.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CpuListError(String);

impl fmt::Display for CpuListError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is not a list of cores such as `2-3,8`", self.0)
    }
}

impl std::error::Error for CpuListError {}

impl FromStr for CpuList {
    type Err = CpuListError;

    fn from_str(text: &str) -> Result<Self, CpuListError> {
        let wrong = || CpuListError(text.trim().to_owned());
        let mut cores = BTreeSet::new();
        // The kernel prints (null) for a boot parameter that was not given.
        if text.trim() == "(null)" {
            return Ok(Self(cores));
        }
        for part in text.trim().split(',').filter(|part| !part.is_empty()) {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let first: usize = first.trim().parse().map_err(|_| wrong())?;
            let last: usize = last.trim().parse().map_err(|_| wrong())?;
            if first > last || last >= CORE_ID_LIMIT {
                return Err(wrong());
            }
            cores.extend(first..=last);
        }
        Ok(Self(cores))
    }
}

impl fmt::Display for CpuList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        let mut cores = self.iter().peekable();
        while let Some(first) = cores.next() {
            let mut last = first;
            while let Some(next) = cores.next_if_eq(&(last + 1)) {
                last = next;
            }
            match last - first {
                0 => write!(f, "{separator}{first}")?,
                _ => write!(f, "{separator}{first}-{last}")?,
            }
            separator = ",";
        }
        Ok(())
    }
}

/// More cores than any kernel is built for; keeps a mistyped range small.
const CORE_ID_LIMIT: usize = 1 << 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_read_and_print_in_the_kernels_notation() {
        for (text, printed) in [("0-3,8\n", "0-3,8"), ("", ""), ("(null)\n", ""), ("5", "5"), ("3,1,2", "1-3")] {
            let list: CpuList = text.parse().expect("a list");
            assert_eq!(list.to_string(), printed);
        }
    }

    #[test]
    fn what_is_not_a_list_is_refused() {
        for text in ["a", "3-1", "1-", "0-99999999"] {
            assert!(text.parse::<CpuList>().is_err(), "{text}");
        }
    }
}
