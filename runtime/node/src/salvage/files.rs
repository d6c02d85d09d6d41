//! Recovering from whole data directories, offline: survivors are read, a new directory is written beside its place and
//! renamed when all of it is durable. Nothing below a survivor's directory is changed but its lock, which keeps a node from
//! running on it meanwhile.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use evershard_log::Identity;
use evershard_protocol::{ClusterId, NodeId, ShardId, Term, Timestamp};
use evershard_sys::clock;
use evershard_sys::file::{DirectoryLock, LockError, sync_directory};

use super::replica_files::{LogFiles, NewFiles};
use super::{Copied, Order, SalvageError, Survey, copy, quorum_among};

/// Why data directories cannot be recovered from, or to.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// The system refuses a file or directory.
    #[error("{path}: {source}\n\nhint: is the path right, and may this user read or write it?")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A node runs on it.
    #[error(
        "{path} is in use: {source}\n\nhint: stop the node that runs on it; a node that runs may still have a quorum"
    )]
    Lock {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: LockError,
    },
    /// No shards are in it.
    #[error("{0} has no directory `shard-0` or the like\n\nhint: name a node's data directory, `data` in its file")]
    NoShards(PathBuf),
    /// A shard is missing.
    #[error(
        "shard {0} is in none of the directories, though later ones are\n\nhint: name the directories of all survivors"
    )]
    Missing(u16),
    /// None of the survivors has anything of a shard.
    #[error("shard {shard}: none of the survivors has a log that can be read:\n  {reasons}")]
    Nothing {
        /// The shard.
        shard: u16,
        /// Why each has not.
        reasons: String,
    },
    /// Something of a shard cannot be recovered.
    #[error("shard {shard} from {path}: {source}")]
    Shard {
        /// The shard.
        shard: u16,
        /// The survivor's directory.
        path: PathBuf,
        /// Why.
        source: SalvageError,
    },
    /// The new directory exists.
    #[error("{0} exists already\n\nhint: name a directory that does not exist; nothing is ever overwritten")]
    Exists(PathBuf),
    /// An earlier recovery did not end.
    #[error("{0} exists: an earlier recovery was interrupted\n\nhint: nothing uses it; remove it and try again")]
    Unfinished(PathBuf),
    /// The shards' ports.
    #[error("{0}: the shards' ports do not fit 1..65535\n\nhint: shard i listens on the node's port + i")]
    Ports(SocketAddr),
}

/// The data directory of a node that does not run.
pub struct Survivor {
    /// Where.
    pub path: PathBuf,
    /// Its shards, ascending.
    pub shards: Vec<SurvivingShard>,
    _lock: DirectoryLock,
}

/// One shard of a survivor.
pub struct SurvivingShard {
    /// Its number.
    pub shard: u16,
    /// What it holds, or why it is of no use.
    pub survey: Result<Survey, SalvageError>,
    files: LogFiles,
}

impl Survivor {
    /// Looks at all that a node's data directory holds.
    ///
    /// # Errors
    /// [`FilesError`]. A shard that is of no use is no error yet.
    pub fn open(path: &Path) -> Result<Self, FilesError> {
        let io = |source| FilesError::Io { path: path.to_owned(), source };
        let mut numbers = Vec::new();
        for entry in std::fs::read_dir(path).map_err(io)? {
            let name = entry.map_err(io)?.file_name();
            numbers.extend(name.to_str().and_then(|name| name.strip_prefix("shard-")?.parse::<u16>().ok()));
        }
        if numbers.is_empty() {
            return Err(FilesError::NoShards(path.to_owned()));
        }
        numbers.sort_unstable();
        let lock = DirectoryLock::acquire(path).map_err(|source| FilesError::Lock { path: path.to_owned(), source })?;
        let mut shards = Vec::new();
        for shard in numbers {
            let mut files = LogFiles::open(&path.join(shard_name(shard))).map_err(io)?;
            let survey = files.survey(shard);
            shards.push(SurvivingShard { shard, survey, files });
        }
        Ok(Self { path: path.to_owned(), shards, _lock: lock })
    }

    /// What it holds of a shard, if it is of use.
    #[must_use]
    pub fn survey(&self, shard: u16) -> Option<&Survey> {
        self.shards.iter().find(|one| one.shard == shard).and_then(|one| one.survey.as_ref().ok())
    }
}

/// Which of the survivors has the best log of a shard; of equals the one with the fewest doubts, then the first.
#[must_use]
pub fn best(survivors: &[Survivor], shard: u16) -> Option<usize> {
    let known = survivors.iter().enumerate().filter_map(|(at, survivor)| Some((at, survivor.survey(shard)?)));
    let key = |(at, survey): &(usize, &Survey)| (survey.rank(), std::cmp::Reverse((survey.doubts.len(), *at)));
    known.max_by_key(key).map(|(at, _)| at)
}

/// Shards that any of the survivors has.
#[must_use]
pub fn shards(survivors: &[Survivor]) -> u16 {
    let last = survivors.iter().filter_map(|survivor| survivor.shards.last()).map(|one| one.shard).max();
    last.map_or(0, |last| last + 1)
}

/// What the operator has decided.
#[derive(Clone, Debug)]
pub struct Recovery {
    /// Name of the cluster that is lost.
    pub old_cluster: String,
    /// Name of the one that begins: no cluster ever had it.
    pub new_cluster: String,
    /// The node that decides alone in it.
    pub node: NodeId,
    /// Where its shard 0 will be found.
    pub address: SocketAddr,
    /// Its data directory, which does not exist yet.
    pub to: PathBuf,
    /// Why, for the audit record.
    pub reason: String,
    /// What is known to be lost is given up.
    pub accept_loss: bool,
}

/// One shard of the new directory.
#[derive(Clone, Debug)]
pub struct Written {
    /// The shard.
    pub shard: u16,
    /// Whose log it was.
    pub from: PathBuf,
    /// What was written.
    pub copied: Copied,
}

/// Makes the data directory of a new cluster's first node, each shard from the survivor with the best log.
///
/// # Errors
/// [`FilesError`]: there is no new directory then, and the survivors' are as they were.
pub fn write(survivors: &mut [Survivor], recovery: &Recovery) -> Result<Vec<Written>, FilesError> {
    let to = &recovery.to;
    let unfinished = unfinished_path(to);
    for (path, error) in [(to, FilesError::Exists as fn(PathBuf) -> _), (&unfinished, FilesError::Unfinished)] {
        if path.symlink_metadata().is_ok() {
            return Err(error(path.clone()));
        }
    }
    let io = |source| FilesError::Io { path: unfinished.clone(), source };
    let chosen = (0..shards(survivors)).map(|shard| choose(survivors, shard)).collect::<Result<Vec<_>, _>>()?;
    let last = u16::try_from(chosen.len().saturating_sub(1)).unwrap_or(u16::MAX);
    if recovery.address.port() == 0 || recovery.address.port().checked_add(last).is_none() {
        return Err(FilesError::Ports(recovery.address));
    }
    std::fs::create_dir(&unfinished).map_err(io)?;
    let written = write_shards(survivors, &chosen, &unfinished, recovery).inspect_err(|_| {
        // It was made a moment ago, by this process; if it stays, the next attempt says so.
        let _ = std::fs::remove_dir_all(&unfinished);
    })?;
    sync_directory(&unfinished).map_err(io)?;
    std::fs::rename(&unfinished, to).map_err(io)?;
    let parent = to.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    sync_directory(parent).map_err(|source| FilesError::Io { path: parent.to_owned(), source })?;
    Ok(written)
}

fn write_shards(
    survivors: &mut [Survivor],
    chosen: &[(usize, Term)],
    directory: &Path,
    recovery: &Recovery,
) -> Result<Vec<Written>, FilesError> {
    let mut written = Vec::new();
    for (shard, (from, term)) in (0..).zip(chosen) {
        let survivor = &mut survivors[*from];
        let failed = |source| FilesError::Shard { shard, path: survivor.path.clone(), source };
        let one = survivor.shards.iter_mut().find(|one| one.shard == shard).expect("it was chosen");
        let copied = write_shard(one, directory, *term, recovery).map_err(failed)?;
        written.push(Written { shard, from: survivor.path.clone(), copied });
    }
    Ok(written)
}

/// Which survivor's log is taken for a shard, and the highest term that any of them knows of.
fn choose(survivors: &[Survivor], shard: u16) -> Result<(usize, Term), FilesError> {
    let Some(chosen) = best(survivors, shard) else {
        let of_shard = survivors.iter().filter_map(|survivor| {
            let found = survivor.shards.iter().find(|one| one.shard == shard)?;
            Some(format!("{}: {}", survivor.path.display(), found.survey.as_ref().err()?))
        });
        let reasons: Vec<String> = of_shard.collect();
        return Err(match reasons.is_empty() {
            true => FilesError::Missing(shard),
            false => FilesError::Nothing { shard, reasons: reasons.join("\n  ") },
        });
    };
    let known = survivors.iter().filter_map(|survivor| survivor.survey(shard));
    if let Some(membership) = quorum_among(known.clone()) {
        let path = survivors[chosen].path.clone();
        return Err(FilesError::Shard { shard, path, source: SalvageError::QuorumThere(membership) });
    }
    Ok((chosen, known.map(|survey| survey.term).max().unwrap_or_default()))
}

fn write_shard(
    one: &mut SurvivingShard,
    directory: &Path,
    term: Term,
    recovery: &Recovery,
) -> Result<Copied, SalvageError> {
    let (shard, survey) = (one.shard, one.survey.as_ref().expect("it was chosen"));
    let mut address = recovery.address;
    address.set_port(address.port() + shard);
    let order = Order {
        old_cluster: ClusterId::of_name(&recovery.old_cluster),
        new_cluster: ClusterId::of_name(&recovery.new_cluster),
        node: recovery.node,
        address: &address.to_string(),
        reason: &recovery.reason,
        term,
        now: Timestamp(clock::realtime_ns()),
        accept_loss: recovery.accept_loss,
    };
    let directory = directory.join(shard_name(shard));
    std::fs::create_dir(&directory).map_err(SalvageError::Write)?;
    let mut sink = NewFiles::new(&directory);
    let copied = copy(survey, &mut one.files, &order, &mut sink)?;
    verify(&directory, shard, &order, &copied)?;
    Ok(copied)
}

/// Finds what was written as the node's start will.
fn verify(directory: &Path, shard: u16, order: &Order<'_>, copied: &Copied) -> Result<(), SalvageError> {
    let found = LogFiles::open(directory).map_err(SalvageError::Write)?.survey(shard)?;
    let expected = Identity { cluster: order.new_cluster, shard: ShardId(shard), node: order.node };
    let voters = found.membership.map(|(_, membership)| membership.deciding().iter().collect::<Vec<_>>());
    let is_right = found.identity == expected
        && found.kept == copied.end
        && found.last_term == copied.term
        && found.term == copied.term
        && found.doubts.is_empty()
        && voters == Some(vec![order.node]);
    let found = || format!("{} up to {} in {:?}, {:?}", found.identity, found.kept, found.term, found.doubts);
    if is_right { Ok(()) } else { Err(SalvageError::Unverified(found())) }
}

fn shard_name(shard: u16) -> String {
    format!("shard-{shard}")
}

fn unfinished_path(to: &Path) -> PathBuf {
    let mut name = to.as_os_str().to_owned();
    name.push(".unfinished");
    PathBuf::from(name)
}
