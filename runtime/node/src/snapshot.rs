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

use evershard_protocol::bugs::{self, Bug};
use evershard_protocol::checksum::crc32c;
use evershard_protocol::{ClusterId, Membership, NodeId, Position, ShardId, Term, TimerId, Timestamp};
use evershard_service::{Digest, Service, SnapshotError};
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
    assert_eq!(replica.applied, mark.position, "a snapshot is the state at its position");
    let (name, version) = replica.describe();
    let mut out = vec![0; HEADER_SIZE];
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(&mark.membership);
    let (mut sessions_len, mut digest) = (replica.sessions.len(), replica.compute_digest());
    if bugs::is_on(Bug::SnapshotWithoutSessions) {
        sessions_len = 0;
        digest = Digest(0);
    } else {
        replica.sessions.save(&mut out);
    }
    for timer in replica.timers.all() {
        let raw = RawTimer { deadline: timer.deadline.0.into(), id: timer.id.0.into() };
        out.extend_from_slice(raw.as_bytes());
    }
    let service_from = out.len();
    replica.save_service(&mut out)?;
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
    Ok(out)
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
        replica.restore_service(&mut rest)?;
        replica.applied = self.position();
        replica.time = self.time();
        let told = (Position(raw.told_position.get()), Digest(raw.told_digest.get()));
        replica.digest = (told.0 > Position::ZERO).then_some(told);
        if replica.compute_digest().0 != raw.digest.get() && !bugs::is_on(Bug::SnapshotWithoutSessions) {
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
mod tests {
    use super::*;
    use core::mem::offset_of;
    use evershard_protocol::client::ReplyStatus;
    use evershard_protocol::{NodeSet, RequestNumber, SessionId};
    use evershard_service::{Context, SnapshotReader, SnapshotWriter};
    use proptest::prelude::*;

    const CLUSTER: ClusterId = ClusterId(7);
    const SHARD: ShardId = ShardId(2);

    #[derive(Default)]
    struct Sum(u64, u32);

    impl Service for Sum {
        fn apply(&mut self, _: &mut Context<'_>, _: &[u8]) {}

        fn version(&self) -> evershard_service::ServiceVersion {
            evershard_service::ServiceVersion(self.1)
        }

        fn digest(&self) -> Digest {
            Digest(self.0)
        }

        fn save(&self, out: &mut dyn SnapshotWriter) -> Result<(), SnapshotError> {
            out.write(&self.0.to_le_bytes())
        }

        fn restore(&mut self, source: &mut dyn SnapshotReader) -> Result<(), SnapshotError> {
            let mut bytes = [0; 8];
            source.read_exact(&mut bytes)?;
            self.0 = u64::from_le_bytes(bytes);
            Ok(())
        }
    }

    fn mark() -> Mark {
        let membership = Membership::of_voters([NodeId(0), NodeId(1)].into_iter().collect::<NodeSet>());
        let mut payload = Vec::new();
        membership.encode([(NodeId(1), "10.0.0.1:7000")].into_iter(), &mut payload);
        Mark { position: Position(4096), term: Term(3), membership: payload }
    }

    /// A replica with a session whose replies have wrapped around their ring, another without any, and two timers.
    fn replica(version: u32) -> Replica<Sum> {
        let mut replica = Replica::new(Sum(99, version));
        (replica.applied, replica.time) = (mark().position, Timestamp(1234));
        replica.digest = Some((Position(64), Digest(5)));
        for id in [64, 128] {
            assert!(replica.sessions.open(Position(id), id, 1, 0));
        }
        let session = replica.sessions.get(SessionId(64)).expect("just opened");
        for request in 1..200_u64 {
            let reply = vec![u8::try_from(request).expect("small"); 60_000];
            let (number, first) = (RequestNumber(request), RequestNumber(request.saturating_sub(50)));
            session.on_applied(number, first, Position(request * 8), ReplyStatus::Applied, &reply);
        }
        let timer = |deadline, id| Timer { deadline: Timestamp(deadline), id: TimerId(id) };
        replica.timers = TimerTable::restore([timer(5, 2), timer(9, 1)].into_iter()).expect("in order");
        replica
    }

    fn encoded() -> Vec<u8> {
        encode(&replica(1), CLUSTER, SHARD, &mark()).expect("nothing refuses")
    }

    #[test]
    fn layout_is_the_documented_one() {
        macro_rules! rows {
            ($($field:ident $size:literal,)*) => { [$((stringify!($field), offset_of!(RawHeader, $field), $size),)*] };
        }
        let rows = rows![
            magic 8, checksum 4, format 2, shard 2, cluster 8, size 8, position 8, term 8, time 8, digest 8,
            told_position 8, told_digest 8, service_size 8, service_version 4, name_size 4, membership_size 4,
            sessions_len 4, timers_len 4, reserved 4,
        ];
        evershard_protocol::layout::check(include_str!("snapshot.rs"), &rows, HEADER_SIZE);
    }

    #[test]
    fn what_was_saved_comes_back_and_goes_on_alike() {
        let snapshot = Snapshot::parse(encoded(), CLUSTER, SHARD).expect("just made");
        assert_eq!((snapshot.position(), snapshot.term(), snapshot.time()), (Position(4096), Term(3), Timestamp(1234)));
        assert_eq!(snapshot.addresses(), [(NodeId(1), "10.0.0.1:7000".to_owned())]);
        let mut restored = snapshot.restore(Sum(0, 1)).expect("its own service");
        assert_eq!(restored.digest, Some((Position(64), Digest(5))));
        assert_eq!(encode(&restored, CLUSTER, SHARD, &mark()).expect("nothing refuses"), encoded());
        // What is forgotten next follows from where the replies lie.
        let mut original = replica(1);
        for request in 200..400_u64 {
            for one in [&mut original, &mut restored] {
                let session = one.sessions.get(SessionId(64)).expect("it is open");
                let number = RequestNumber(request);
                session.on_applied(number, RequestNumber(1), Position(request * 8), ReplyStatus::Applied, &[7; 50_000]);
            }
            assert_eq!(original.compute_digest(), restored.compute_digest(), "after request {request}");
        }
    }

    #[test]
    fn others_and_newer_ones_are_refused() {
        let parse = |bytes, shard| Snapshot::parse(bytes, CLUSTER, shard);
        let foreign = SnapshotFault::Foreign { cluster: CLUSTER, shard: SHARD };
        assert_eq!(parse(encoded(), ShardId(1)), Err(foreign));
        let newer = encode(&replica(2), CLUSTER, SHARD, &mark()).expect("nothing refuses");
        let restored = parse(newer, SHARD).expect("it verifies").restore(Sum(0, 1)).map(drop);
        assert!(matches!(restored, Err(RestoreError::Version { found: 2, expected: 1 })));
    }

    #[test]
    fn any_flipped_bit_and_any_cut_is_noticed() {
        let bytes = encoded();
        for at in (0..bytes.len()).step_by(997).chain(0..HEADER_SIZE) {
            let mut flipped = bytes.clone();
            flipped[at] ^= 0x20;
            assert_eq!(Snapshot::parse(flipped, CLUSTER, SHARD), Err(SnapshotFault::Damaged), "byte {at}");
            assert_eq!(Snapshot::parse(bytes[..at].to_vec(), CLUSTER, SHARD), Err(SnapshotFault::Damaged));
        }
    }

    proptest! {
        #[test]
        fn well_formed_nonsense_never_panics(garbage in proptest::collection::vec(any::<u8>(), 0..600), at in 24_usize..300) {
            let mut bytes = encoded();
            bytes.truncate(700);
            let at = at.min(bytes.len());
            let end = (at + garbage.len()).min(bytes.len());
            bytes[at..end].copy_from_slice(&garbage[..end - at]);
            let size = bytes.len() as u64;
            bytes[24..32].copy_from_slice(&size.to_le_bytes());
            let checksum = crc32c(&bytes[CHECKED_FROM..]);
            bytes[8..12].copy_from_slice(&checksum.to_le_bytes());
            if let Ok(snapshot) = Snapshot::parse(bytes, CLUSTER, SHARD) {
                let _ = snapshot.restore(Sum(0, 1));
            }
        }
    }

    #[test]
    fn file_names_sort_and_read_back() {
        assert!(snapshot_file_name(Position(9)) < snapshot_file_name(Position(10)));
        assert_eq!(snapshot_position_of(&snapshot_file_name(Position(12))), Some(Position(12)));
        for name in ["snapshot-12.state", "snapshot-00000000000000000012.preparing", "segment-1.log"] {
            assert_eq!(snapshot_position_of(name), None, "{name}");
        }
    }
}
