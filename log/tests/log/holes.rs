//! Holes one by one: what is lost, what is not, what fills them.

use evershard_log::block::BLOCK_HEADER_SIZE;
use evershard_log::{FaultReason, HOLES_MAX, Recovered, RepairError, Verdict, Writer};
use evershard_protocol::record::Kind;

use crate::disk::SECTOR;
use crate::replica::{CONFIG, Replica, read_back};
use crate::rot::{Found, OWN_HEADER, Place, blocks, check_one_block, check_rot, file, flip, written};

/// Scenario 16: bit by bit through a block in the middle.
#[test]
fn a_bit_in_the_middle_costs_nothing_else() {
    let template = written(4);
    let blocks = blocks(&template);
    let place = blocks[blocks.len() / 2];
    for at in (0..place.covered).step_by(97).chain(0..OWN_HEADER) {
        let mut replica = written(4);
        let good = replica.disk.files.clone();
        flip(&mut replica, place, at, 3);
        let found = check_one_block(&mut replica, &good, place, blocks.len() as u64);
        assert!(found == Found::Repaired || (OWN_HEADER..BLOCK_HEADER_SIZE).contains(&at), "{at}: {found:?}");
    }
}

/// Scenario 17: three replicas of one stream, each with another block rotten: every record still has two good copies, and
/// each is repaired from what another one reads back.
#[test]
fn a_different_block_on_each_replica() {
    let mut replicas: Vec<Replica> = (0..3).map(|_| written(1)).collect();
    let data: Vec<Place> = blocks(&replicas[0]).into_iter().filter(|place| place.is_data).collect();
    for (at, replica) in replicas.iter_mut().enumerate() {
        flip(replica, data[5 + 4 * at], BLOCK_HEADER_SIZE + 9, 2);
    }
    let found: Vec<Recovered> = replicas.iter_mut().map(Replica::recovered).collect();
    for at in 0..3 {
        assert_eq!((found[at].verdict, found[at].end), (Verdict::Clean, replicas[at].end()), "nobody lacks anything");
        let [hole] = found[at].holes[..] else { panic!("one hole: {:?}", found[at].holes) };
        let other = (at + 1) % 3;
        let (table, segments) = (found[other].table.clone(), found[other].segments.clone());
        let stream = read_back(&mut replicas[other].disk, &table, &segments, hole.first(), hole.end());
        let mut buffer = vec![0; hole.size()];
        hole.rebuild(&stream, &mut buffer).expect("the same stream");
        replicas[at].disk.overwrite(hole.segment(), hole.offset(), &buffer);
    }
    for replica in &mut replicas {
        let whole = replica.recovered();
        assert!(whole.holes.is_empty() && whole.end == replica.end());
    }
}

/// Scenario 20: what is read wrong once and right the next time is no fault at all.
#[test]
fn a_stale_read_leads_to_nothing() {
    let mut replica = written(2);
    let expected = replica.recovered();
    let places: Vec<_> = blocks(&replica).iter().map(|place| (place.segment, place.offset as u64)).collect();
    let headers: Vec<_> = replica.disk.files.keys().map(|segment| (*segment, 0)).collect();
    for place in places.into_iter().chain(headers) {
        replica.disk.stale = vec![place];
        let recovered = replica.recovered();
        assert!(replica.disk.stale.is_empty(), "it was read");
        assert_eq!((recovered.verdict, recovered.end), (Verdict::Clean, expected.end), "{place:?}");
        assert!(recovered.holes.is_empty() && recovered.mends.is_empty(), "{place:?}");
    }
}

/// Wrong bytes never fill a hole, and a repair that is torn leaves the hole.
#[test]
fn only_the_very_bytes_fill_a_hole() {
    let mut replica = written(3);
    let data: Vec<Place> = blocks(&replica).into_iter().filter(|place| place.is_data).collect();
    let place = *data.iter().find(|place| place.covered > 3 * SECTOR && place.sequence > 4).expect("a large one");
    let good = replica.disk.files.clone();
    flip(&mut replica, place, SECTOR + 1, 0);
    let hole = replica.recovered().holes[0];
    let mut stream = replica.stream[replica.index(hole.first())..replica.index(hole.end())].to_vec();
    let mut buffer = vec![0; hole.size()];
    let short = hole.rebuild(&stream[8..], &mut buffer);
    assert_eq!(short, Err(RepairError::Size { expected: stream.len(), found: stream.len() - 8 }));
    stream[70] ^= 1;
    assert_eq!(hole.rebuild(&stream, &mut buffer), Err(RepairError::Content));
    stream[70] ^= 1;
    let size = hole.rebuild(&stream, &mut buffer).expect("the very bytes");
    for sector in 0..size / SECTOR {
        let at = usize::try_from(hole.offset()).expect("small") + sector * SECTOR;
        let written = &buffer[sector * SECTOR..][..SECTOR];
        assert!(replica.recovered().end == replica.end(), "torn before sector {sector}");
        file(&mut replica, hole.segment())[at..at + SECTOR].copy_from_slice(written);
    }
    assert_eq!(check_rot(&mut replica, &good), Found::Nothing);
}

/// A configuration counts from where it stands in the log, so what follows one that is lost cannot be judged.
#[test]
fn a_lost_configuration_is_a_fault() {
    let mut replica = Replica::new(8);
    for payload in [&b"configuration 1"[..], b"configuration 2"] {
        replica.append_as(Kind::Membership, payload);
        replica.append(b"a command");
        replica.flush();
        replica.append(b"another");
        replica.flush();
    }
    let found = replica.recovered();
    let payloads: Vec<&[u8]> = found.memberships.iter().map(|(_, payload)| &payload[..]).collect();
    assert_eq!(payloads, [&b"configuration 1"[..], b"configuration 2"]);
    let data: Vec<Place> = blocks(&replica).into_iter().filter(|place| place.is_data).collect();
    flip(&mut replica, data[1], BLOCK_HEADER_SIZE, 0);
    assert_eq!(replica.recovered().verdict, Verdict::Clean);
    flip(&mut replica, data[2], BLOCK_HEADER_SIZE + 20, 0);
    let found = replica.recovered();
    assert!(matches!(found.verdict, Verdict::Faulty { from, .. } if from == data[2].first));
    assert_eq!(found.memberships.len(), 1);
}

/// A log cut below a hole has the hole no more; cut within it, it says that only a restart helps.
#[test]
fn a_cut_takes_holes_along() {
    let mut replica = Replica::new(8);
    for _ in 0..6 {
        for _ in 0..3 {
            replica.append(b"some record");
        }
        replica.flush();
    }
    let data: Vec<Place> = blocks(&replica).into_iter().filter(|place| place.is_data).collect();
    for place in [data[2], data[4]] {
        flip(&mut replica, place, BLOCK_HEADER_SIZE + 20, 5);
    }
    let recovered = replica.recovered();
    let [low, high] = recovered.holes[..] else { panic!("two: {:?}", recovered.holes) };
    let stream = replica.stream.clone();
    replica.resume(&recovered, stream);
    assert_eq!(replica.writer.hole_at(low.first()), Some(&low));
    assert_eq!(replica.writer.hole_at(low.until()), None);
    replica.truncate(high.first());
    assert_eq!(replica.writer.holes(), [low]);
    assert!(!replica.writer.note_hole(&high), "it is not part of the log any more");
    let within = replica.boundaries(low.first())[1];
    replica.truncate(within);
    let cut = replica.writer.holes()[0];
    assert!(cut.is_cut() && cut.until() == within);
    assert_eq!(cut.rebuild(&[], &mut vec![0; cut.size()]), Err(RepairError::Cut));
    replica.append(b"another record");
    replica.flush();
    let recovered = replica.recovered();
    assert!(
        matches!(recovered.verdict, Verdict::Faulty { from, reason: FaultReason::CutHole, .. } if from == low.first())
    );
    assert!(recovered.holes.is_empty());
}

#[test]
fn holes_are_noted_once_and_bounded() {
    let mut replica = Replica::new(8);
    for _ in 0..HOLES_MAX + 3 {
        replica.append(b"one block each");
        replica.flush();
    }
    let data: Vec<Place> = blocks(&replica).into_iter().filter(|place| place.is_data).collect();
    for place in &data[..HOLES_MAX] {
        flip(&mut replica, *place, BLOCK_HEADER_SIZE + 20, 5);
    }
    let recovered = replica.recovered();
    assert_eq!((recovered.verdict, recovered.holes.len()), (Verdict::Clean, HOLES_MAX));
    let mut writer = Writer::new(CONFIG, &recovered);
    assert!(!writer.note_hole(&recovered.holes[3]), "noted already");
    writer.on_repaired(recovered.holes[3].segment(), recovered.holes[3].offset());
    assert_eq!(writer.hole_at(recovered.holes[3].first()), None);
    assert!(writer.note_hole(&recovered.holes[3]));
    assert_eq!(writer.holes(), recovered.holes);
    flip(&mut replica, data[HOLES_MAX], BLOCK_HEADER_SIZE + 20, 5);
    let too_many = replica.recovered();
    assert!(matches!(too_many.verdict, Verdict::Faulty { reason: FaultReason::Content, .. }));
    assert_eq!(too_many.holes.len(), HOLES_MAX);
}
