//! What an operator must look at: refused with a message that says so.

use evershard_log::{Identity, RecoveryError, SegmentNumber, recover};
use evershard_protocol::NodeId;
use evershard_protocol::checksum::crc32c;

use crate::disk::{Disk, IDENTITY};
use crate::replica::Replica;

fn three_segments() -> Disk {
    let mut replica = Replica::new(1);
    while replica.writer.table().locate(replica.end()).is_none_or(|location| location.segment.0 < 3) {
        replica.append_any();
        replica.flush();
    }
    replica.disk
}

fn check(mut disk: Disk, identity: &Identity, words: &[&str]) -> RecoveryError {
    let error = recover(identity, disk.mount()).expect_err("an operator must look at this");
    for word in words {
        assert!(error.to_string().contains(word), "{word:?} is not in {error}");
    }
    error
}

#[test]
fn somebody_elses_data() {
    let other = Identity { node: NodeId(2), ..IDENTITY };
    check(three_segments(), &other, &["node 1", "node 2", "shard 3", "segment-0000000000000001.log"]);
}

#[test]
fn a_missing_segment() {
    let mut disk = three_segments();
    disk.delete(SegmentNumber(2));
    let error = check(disk, &IDENTITY, &["segment-0000000000000002.log", "missing"]);
    assert!(matches!(error, RecoveryError::Missing { segment: SegmentNumber(2) }));
}

#[test]
fn a_renamed_and_a_shortened_file() {
    let mut disk = three_segments();
    let file = disk.files.remove(&SegmentNumber(3)).expect("it is there");
    disk.files.insert(SegmentNumber(9), file);
    check(disk, &IDENTITY, &["segment-0000000000000009.log", "segment 3"]);
    let mut disk = three_segments();
    disk.files.get_mut(&SegmentNumber(3)).expect("it is there").truncate(8192);
    check(disk, &IDENTITY, &["8192 bytes"]);
}

/// Gives a segment's header or its first block another format, with the right checksum.
fn with_format(at: usize, size: usize, format: u8) -> Disk {
    let mut disk = three_segments();
    let file = disk.files.get_mut(&SegmentNumber(2)).expect("it is there");
    file[at + if at == 0 { 12 } else { 16 }] = format;
    let checksum = crc32c(&file[at + 12..at + size]);
    file[at + 8..at + 12].copy_from_slice(&checksum.to_le_bytes());
    disk
}

#[test]
fn a_newer_release() {
    check(with_format(0, 64, 3), &IDENTITY, &["format 3", "upgrade"]);
    check(with_format(4096, 128, 3), &IDENTITY, &["format 3", "upgrade"]);
}

#[test]
fn an_older_release() {
    check(with_format(0, 64, 1), &IDENTITY, &["format 1", "older", "begin anew"]);
}
