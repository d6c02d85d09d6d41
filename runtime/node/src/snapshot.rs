//! A snapshot: the replicated state of one shard at one position, as a file and on its way to another replica.
//!
//! | offset | size | field | meaning |
//! |---|---|---|---|
//! | 0 | 8 | magic | `EVSNAPSH` |
//! | 8 | 4 | checksum | CRC-32C of everything behind this field |
//! | 12 | 2 | format | version of this layout, 1 |
//! | 14 | 2 | shard | the shard it belongs to |
//! | 16 | 8 | cluster | the cluster it belongs to |
//! | 24 | 8 | size | of the whole snapshot in bytes |
//! | 32 | 8 | position | the state is that of this position; committed |
//! | 40 | 8 | term | of the record that ends there |
//! | 48 | 8 | time | record time there |
//! | 56 | 8 | digest | of the replicated state, see [`Replica::compute_digest`] |
//! | 64 | 8 | told_position | of the last digest record applied; 0: none was |
//! | 72 | 8 | told_digest | what it said |
//! | 80 | 8 | service_size | bytes of the service's own state |
//! | 88 | 4 | service_version | that wrote it |
//! | 92 | 4 | name_size | bytes of the service's name |
//! | 96 | 4 | membership_size | bytes of the configuration |
//! | 100 | 4 | sessions_len | sessions that follow |
//! | 104 | 4 | timers_len | timers that follow |
//! | 108 | 4 | reserved | zero |
//!
//! Then the service's name; the configuration in force, as a record's payload ([`evershard_protocol::membership`]); the
//! sessions by id, each with its remembered replies; the timers in firing order, 16 bytes each (deadline, id); and what
//! [`Service::save`] wrote. A snapshot names no node: any replica of the shard may use it.
//!
//! Replies are kept with their places in the ring ([`crate::replies`]): which of them will be forgotten next follows from
//! those, and must not differ between a replica that was restored and one that was not.

use std::panic::{AssertUnwindSafe, catch_unwind};

use evershard_protocol::bugs::{self, Bug};
use evershard_protocol::checksum::crc32c;
use evershard_protocol::{ClusterId, Membership, NodeId, Position, ShardId, Term, TimerId, Timestamp};
use evershard_service::{Digest, Service, SnapshotError, SnapshotWriter};
use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::replica::Replica;
use crate::sessions::SessionTable;
use crate::timers::{Timer, TimerTable};

/// The version of the layout above.
pub const SNAPSHOT_FORMAT: u16 = 1;

const MAGIC: [u8; 8] = *b"EVSNAPSH";
const CHECKED_FROM: usize = 12;
const HEADER_SIZE: usize = size_of::<RawHeader>();
const _: () = assert!(HEADER_SIZE == 112, "the table above says so");

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Clone, Copy)]
#[repr(C)]
struct RawHeader {
    magic: [u8; 8],
    checksum: U32,
    format: U16,
    shard: U16,
    cluster: U64,
    size: U64,
    position: U64,
    term: U64,
    time: U64,
    digest: U64,
    told_position: U64,
    told_digest: U64,
    service_size: U64,
    service_version: U32,
    name_size: U32,
    membership_size: U32,
    sessions_len: U32,
    timers_len: U32,
    reserved: U32,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Clone, Copy)]
#[repr(C)]
struct RawTimer {
    deadline: U64,
    id: U64,
}

/// Where a snapshot stands in the log, and who belonged to the shard there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mark {
    /// The position.
    pub position: Position,
    /// Term of the record that ends there.
    pub term: Term,
    /// The configuration in force, as a record's payload.
    pub membership: Vec<u8>,
}

/// Why bytes are not a snapshot of this shard.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SnapshotFault {
    /// It is cut short, or its checksum does not match.
    #[error("the snapshot does not verify: it was cut short, or the disk has damaged it")]
    Damaged,
    /// Somebody else's.
    #[error("the snapshot belongs to cluster {:016x}, shard {shard}: the data directory was probably mixed up", cluster.0)]
    Foreign {
        /// Whose it is.
        cluster: ClusterId,
        /// Whose it is.
        shard: ShardId,
    },
    /// A release wrote it that this one does not know.
    #[error("the snapshot has format {0}, this release reads format {SNAPSHOT_FORMAT}: upgrade this node")]
    Format(u16),
}

/// Why a snapshot that verifies cannot become a replica's state.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// Another service wrote it.
    #[error("the snapshot was written by service `{found}`, but this node runs `{expected}`")]
    Service {
        /// Who wrote it.
        found: String,
        /// Who is to read it.
        expected: &'static str,
    },
    /// A newer version of the service wrote it.
    #[error("version {found} of the service wrote the snapshot, this is version {expected}: upgrade this node")]
    Version {
        /// Which wrote it.
        found: u32,
        /// Which is to read it.
        expected: u32,
    },
    /// The service cannot read its part.
    #[error("the service cannot read its part of the snapshot: {0}")]
    Read(#[from] SnapshotError),
    /// What was read is not what was written: `save` and `restore` of the service do not match.
    #[error(
        "the state restored from the snapshot has another digest than the state that was saved: `save` and `restore` of \
         the service do not match"
    )]
    Digest,
    /// Sessions or timers contradict themselves although the checksum is right: a defect of the release that wrote it.
    #[error("the sessions or timers in the snapshot contradict each other")]
    Contradiction,
}

/// Writes the state of `replica`, which must stand at the mark's position.
///
/// # Errors
/// Those of [`Service::save`].
pub fn encode<S: Service>(
    replica: &Replica<S>,
    cluster: ClusterId,
    shard: ShardId,
    mark: &Mark,
) -> Result<Vec<u8>, SnapshotError> {
    let whole = encode_within(replica, cluster, shard, mark, usize::MAX)?;
    Ok(whole.expect("nothing is larger than that"))
}

/// The same, given up (`None`) as soon as it is clear that it takes more than `size_max` bytes: what that costs is bounded
/// by as much.
///
/// # Errors
/// Those of [`Service::save`].
pub fn encode_within<S: Service>(
    replica: &Replica<S>,
    cluster: ClusterId,
    shard: ShardId,
    mark: &Mark,
    size_max: usize,
) -> Result<Option<Vec<u8>>, SnapshotError> {
    assert_eq!(replica.applied, mark.position, "a snapshot is the state at its position");
    let (name, version) = replica.describe();
    let mut out = vec![0; HEADER_SIZE];
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(&mark.membership);
    let known_size = out.len() + replica.sessions.saved_size() + replica.timers.all().len() * size_of::<RawTimer>();
    if known_size > size_max {
        return Ok(None);
    }
    let mut sessions_len = replica.sessions.len();
    if bugs::is_on(Bug::SnapshotWithoutSessions) {
        sessions_len = 0;
    } else {
        replica.sessions.save(&mut out);
    }
    for timer in replica.timers.all() {
        let raw = RawTimer { deadline: timer.deadline.0.into(), id: timer.id.0.into() };
        out.extend_from_slice(raw.as_bytes());
    }
    let service_from = out.len();
    let mut bounded = Bounded { out, size_max, is_over: false };
    match unless_it_panics(|| replica.save_service(&mut bounded)) {
        Err(_) if bounded.is_over => return Ok(None),
        outcome => outcome?,
    }
    let mut out = bounded.out;
    // Only now: of a large state it takes long.
    let is_short = sessions_len < replica.sessions.len();
    let digest = if is_short { Digest(0) } else { unless_it_panics(|| Ok(replica.compute_digest()))? };
    let told = replica.digest.unwrap_or((Position::ZERO, Digest(0)));
    let mut raw = RawHeader {
        magic: MAGIC,
        checksum: U32::new(0),
        format: SNAPSHOT_FORMAT.into(),
        shard: shard.0.into(),
        cluster: cluster.0.into(),
        size: (out.len() as u64).into(),
        position: mark.position.0.into(),
        term: mark.term.0.into(),
        time: replica.time.0.into(),
        digest: digest.0.into(),
        told_position: told.0.0.into(),
        told_digest: told.1.0.into(),
        service_size: ((out.len() - service_from) as u64).into(),
        service_version: version.into(),
        name_size: count(name.len()),
        membership_size: count(mark.membership.len()),
        sessions_len: count(sessions_len),
        timers_len: count(replica.timers.all().len()),
        reserved: U32::new(0),
    };
    out[..HEADER_SIZE].copy_from_slice(raw.as_bytes());
    raw.checksum = crc32c(&out[CHECKED_FROM..]).into();
    out[..HEADER_SIZE].copy_from_slice(raw.as_bytes());
    Ok(Some(out))
}

/// A service that panics over a snapshot has no snapshot; its shard goes on, and so does its node.
fn unless_it_panics<T>(call: impl FnOnce() -> Result<T, SnapshotError>) -> Result<T, SnapshotError> {
    // Nothing that a panic may have left half done is looked at afterwards: the bytes are dropped, and so is an instance that
    // was to be restored.
    let outcome = catch_unwind(AssertUnwindSafe(call));
    outcome.unwrap_or_else(|_| Err(SnapshotError::Format("the service panicked over it".to_owned())))
}

/// Takes so many bytes and refuses the rest.
struct Bounded {
    out: Vec<u8>,
    size_max: usize,
    is_over: bool,
}

impl SnapshotWriter for Bounded {
    fn write(&mut self, bytes: &[u8]) -> Result<(), SnapshotError> {
        self.is_over |= self.out.len() + bytes.len() > self.size_max;
        if self.is_over {
            return Err(std::io::Error::from(std::io::ErrorKind::FileTooLarge).into());
        }
        self.out.extend_from_slice(bytes);
        Ok(())
    }
}

fn count(len: usize) -> U32 {
    u32::try_from(len).expect("sessions, timers and names are bounded").into()
}

/// A snapshot that verifies.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Snapshot {
    bytes: Vec<u8>,
    membership: Membership,
    addresses: Vec<(NodeId, String)>,
}

impl Snapshot {
    /// Checks the bytes of a snapshot of this shard.
    ///
    /// # Errors
    /// [`SnapshotFault`]; never panics, whatever the bytes.
    pub fn parse(bytes: Vec<u8>, cluster: ClusterId, shard: ShardId) -> Result<Self, SnapshotFault> {
        let (raw, rest) = RawHeader::ref_from_prefix(&bytes).map_err(|_| SnapshotFault::Damaged)?;
        let whole = raw.magic == MAGIC && raw.size.get() == bytes.len() as u64;
        if !whole || crc32c(&bytes[CHECKED_FROM..]) != raw.checksum.get() {
            return Err(SnapshotFault::Damaged);
        }
        if raw.format.get() != SNAPSHOT_FORMAT {
            return Err(SnapshotFault::Format(raw.format.get()));
        }
        let of = (ClusterId(raw.cluster.get()), ShardId(raw.shard.get()));
        if of != (cluster, shard) {
            return Err(SnapshotFault::Foreign { cluster: of.0, shard: of.1 });
        }
        let mut addresses = Vec::new();
        let payload = raw.part(rest, raw.name_size.get(), raw.membership_size.get()).ok_or(SnapshotFault::Damaged)?;
        let membership = Membership::decode(payload, |node, address| addresses.push((node, address.to_owned())));
        let membership = membership.ok_or(SnapshotFault::Damaged)?;
        Ok(Self { bytes, membership, addresses })
    }

    fn raw(&self) -> &RawHeader {
        RawHeader::ref_from_prefix(&self.bytes).expect("checked when it was parsed").0
    }

    /// The bytes, as they are kept and sent.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The bytes, to be kept or sent.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// The bytes of the same state as a snapshot of another cluster: see [`crate::salvage`].
    #[must_use]
    pub fn renamed(&self, cluster: ClusterId) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        let (raw, _) = RawHeader::mut_from_prefix(&mut bytes).expect("checked when it was parsed");
        raw.cluster = cluster.0.into();
        let checksum = crc32c(&bytes[CHECKED_FROM..]);
        bytes[CHECKED_FROM - size_of::<U32>()..CHECKED_FROM].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// It is the state at this position.
    #[must_use]
    pub fn position(&self) -> Position {
        Position(self.raw().position.get())
    }

    /// Term of the record that ends there.
    #[must_use]
    pub fn term(&self) -> Term {
        Term(self.raw().term.get())
    }

    /// Record time there.
    #[must_use]
    pub fn time(&self) -> Timestamp {
        Timestamp(self.raw().time.get())
    }

    /// The configuration in force there.
    #[must_use]
    pub fn membership(&self) -> Membership {
        self.membership
    }

    /// Where the configuration says that its nodes are found.
    #[must_use]
    pub fn addresses(&self) -> &[(NodeId, String)] {
        &self.addresses
    }

    /// The replica that was saved; `service` is a fresh instance.
    ///
    /// # Errors
    /// [`RestoreError`].
    pub fn restore<S: Service>(&self, service: S) -> Result<Replica<S>, RestoreError> {
        let raw = self.raw();
        let mut replica = Replica::new(service);
        let (expected, version) = replica.describe();
        let contradiction = RestoreError::Contradiction;
        let mut rest = self.bytes.get(HEADER_SIZE..).expect("checked when it was parsed");
        let name = take(&mut rest, raw.name_size.get()).ok_or(contradiction)?;
        if name != expected.as_bytes() {
            return Err(RestoreError::Service { found: String::from_utf8_lossy(name).into_owned(), expected });
        }
        if raw.service_version.get() > version {
            return Err(RestoreError::Version { found: raw.service_version.get(), expected: version });
        }
        take(&mut rest, raw.membership_size.get()).ok_or(RestoreError::Contradiction)?;
        replica.sessions =
            SessionTable::restore(&mut rest, raw.sessions_len.get()).ok_or(RestoreError::Contradiction)?;
        replica.timers = restore_timers(&mut rest, raw.timers_len.get()).ok_or(RestoreError::Contradiction)?;
        if rest.len() as u64 != raw.service_size.get() {
            return Err(RestoreError::Contradiction);
        }
        unless_it_panics(|| replica.restore_service(&mut rest))?;
        replica.applied = self.position();
        replica.time = self.time();
        let told = (Position(raw.told_position.get()), Digest(raw.told_digest.get()));
        replica.digest = (told.0 > Position::ZERO).then_some(told);
        let digest = unless_it_panics(|| Ok(replica.compute_digest()))?;
        if digest.0 != raw.digest.get() && !bugs::is_on(Bug::SnapshotWithoutSessions) {
            return Err(RestoreError::Digest);
        }
        Ok(replica)
    }
}

impl RawHeader {
    fn part<'a>(&self, rest: &'a [u8], from: u32, size: u32) -> Option<&'a [u8]> {
        let (from, size) = (usize::try_from(from).ok()?, usize::try_from(size).ok()?);
        rest.get(from..from.checked_add(size)?)
    }
}

fn take<'a>(rest: &mut &'a [u8], size: u32) -> Option<&'a [u8]> {
    let (front, behind) = rest.split_at_checked(usize::try_from(size).ok()?)?;
    *rest = behind;
    Some(front)
}

fn restore_timers(rest: &mut &[u8], len: u32) -> Option<TimerTable> {
    let size = u32::try_from(size_of::<RawTimer>()).ok()?.checked_mul(len)?;
    let raw = <[RawTimer]>::ref_from_bytes(take(rest, size)?).ok()?;
    let timer = |raw: &RawTimer| Timer { deadline: Timestamp(raw.deadline.get()), id: TimerId(raw.id.get()) };
    TimerTable::restore(raw.iter().map(timer))
}

/// The name of a snapshot's file; names sort as the positions do.
#[must_use]
pub fn snapshot_file_name(position: Position) -> String {
    format!("snapshot-{:020}.state", position.0)
}

/// The position in the name of a snapshot's file, if it is one.
#[must_use]
pub fn snapshot_position_of(file_name: &str) -> Option<Position> {
    let digits = file_name.strip_prefix("snapshot-")?.strip_suffix(".state")?;
    let position = digits.parse().ok().map(Position)?;
    (snapshot_file_name(position) == file_name).then_some(position)
}

#[cfg(test)]
mod tests;
