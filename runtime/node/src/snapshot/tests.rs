//! The format under test: what was saved comes back, what was damaged does not.

use super::*;
use core::mem::offset_of;
use evershard_protocol::client::ReplyStatus;
use evershard_protocol::{NodeSet, RequestNumber, SessionId};
use evershard_service::{Context, SnapshotReader, SnapshotWriter};
use proptest::prelude::*;

const CLUSTER: ClusterId = ClusterId(7);
const SHARD: ShardId = ShardId(2);

/// A sum that cannot be saved.
const PANICS: u64 = 13;

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
        assert!(self.0 != PANICS, "a service with a defect");
        out.write(&self.0.to_le_bytes())
    }

    fn restore(&mut self, source: &mut dyn SnapshotReader) -> Result<(), SnapshotError> {
        let mut bytes = [0; 8];
        source.read_exact(&mut bytes)?;
        self.0 = u64::from_le_bytes(bytes);
        assert!(self.1 < 9, "a service with a defect");
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
    evershard_protocol::layout::check(include_str!("../snapshot.rs"), &rows, HEADER_SIZE);
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
fn a_service_that_panics_over_a_snapshot_has_none() {
    let mut replica = replica(1);
    replica.service_mut().0 = PANICS;
    assert!(matches!(encode(&replica, CLUSTER, SHARD, &mark()), Err(SnapshotError::Format(_))));
    let snapshot = Snapshot::parse(encoded(), CLUSTER, SHARD).expect("it verifies");
    assert!(matches!(snapshot.restore(Sum(0, 9)), Err(RestoreError::Read(SnapshotError::Format(_)))));
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
