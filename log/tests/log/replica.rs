//! A replica's use of its log, with a naive model of the stream beside it.

use evershard_log::{
    Location, Plan, Recovered, SEGMENT_SIZE_MIN, SegmentNumber, Tail, Verdict, WRITE_SIZE_MAX, Writer, WriterConfig,
    read_blocks, recover,
};
use evershard_protocol::record::{Draft, Kind, Record};
use evershard_protocol::{Position, Term, Timestamp};

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};

use crate::disk::{Disk, IDENTITY, Random};

pub const CONFIG: WriterConfig = WriterConfig { segment_size: SEGMENT_SIZE_MIN, writes_in_flight_max: 4 };
const TAIL_CAPACITY: usize = 512 * 1024;

pub struct Replica {
    pub disk: Disk,
    pub writer: Writer,
    pub tail: Tail,
    pub random: Random,
    /// The stream from `begin` on.
    pub stream: Vec<u8>,
    pub begin: Position,
    pub runs: Vec<(Term, Position)>,
    pub term: Term,
    pub committed: Position,
    /// The stream as the disk has it after each block in flight; the first is what is known to be durable.
    versions: Vec<Version>,
    /// Digests of all states the stream on disk ever went through, in all lives.
    history: BTreeSet<u64>,
    nonce: u64,
    buffer: Vec<u8>,
}

#[derive(Clone)]
struct Version {
    sequence: u64,
    complete: bool,
    stream: Vec<u8>,
}

impl Replica {
    pub fn new(seed: u64) -> Self {
        let recovered = Recovered::default();
        Self {
            disk: Disk::default(),
            writer: Writer::new(CONFIG, &recovered),
            tail: Tail::new(TAIL_CAPACITY, Position(0)),
            random: Random(seed),
            stream: Vec::new(),
            begin: Position(0),
            runs: Vec::new(),
            term: Term(1),
            committed: Position(0),
            versions: vec![Version { sequence: 0, complete: true, stream: Vec::new() }],
            history: BTreeSet::from([digest(&[])]),
            nonce: seed | 1,
            buffer: vec![0xDD; WRITE_SIZE_MAX],
        }
    }

    pub fn end(&self) -> Position {
        self.begin.advance(self.stream.len() as u64)
    }

    pub fn index(&self, position: Position) -> usize {
        usize::try_from(position.since(self.begin)).expect("small")
    }

    /// Appends a record; `false` if the tail is full.
    pub fn append(&mut self, payload: &[u8]) -> bool {
        self.append_as(Kind::Command, payload)
    }

    pub fn append_as(&mut self, kind: Kind, payload: &[u8]) -> bool {
        let draft = Draft::plain(kind, self.term, Timestamp(self.random.next()), payload);
        let start = self.tail.end();
        let Ok(end) = self.tail.append(&draft, self.writer.submitted()) else {
            return false;
        };
        if self.runs.last().is_none_or(|(term, _)| *term < self.term) {
            self.runs.push((self.term, start));
        }
        let (high, low) = self.tail.range(start, end).expect("just appended");
        self.stream.extend_from_slice(high);
        self.stream.extend_from_slice(low);
        true
    }

    /// A record of random size: mostly small, sometimes the largest, sometimes zeros.
    pub fn append_any(&mut self) -> bool {
        let size = match self.random.below(8) {
            0 => 60_000 + self.random.below(5_537),
            1 => self.random.below(9_000),
            _ => self.random.below(300),
        };
        let zeros = self.random.below(4) == 0;
        let payload: Vec<u8> = (0..size).map(|_| if zeros { 0 } else { self.random.next() as u8 }).collect();
        self.append(&payload)
    }

    /// Some record boundary that was not committed.
    pub fn truncate_any(&mut self) {
        let boundaries = self.boundaries(self.committed);
        let to = boundaries[self.random.below(boundaries.len())];
        self.truncate(to);
    }

    pub fn truncate(&mut self, to: Position) {
        self.tail.truncate(to);
        self.writer.truncate(to);
        self.stream.truncate(self.index(to));
        self.runs.retain(|(_, start)| *start < to);
        self.term = self.term.next();
    }

    pub fn boundaries(&self, from: Position) -> Vec<Position> {
        let mut all = vec![from];
        let mut at = from;
        while at < self.end() {
            at = Record::parse(at, &self.stream[self.index(at)..]).expect("the model holds records").header.position;
            all.push(at);
        }
        all
    }

    /// Hands the next block to the disk.
    pub fn plan(&mut self) -> Plan {
        if let Some(number) = self.writer.wants_segment() {
            self.nonce = self.nonce.wrapping_add(2);
            let header = self.disk.prepare(number, self.nonce, CONFIG.segment_size);
            self.writer.add_segment(header);
        }
        let plan = self.writer.plan(&self.tail, self.committed, &self.runs, &mut self.buffer);
        if let Plan::Write(write) = plan {
            self.disk.submit(write, &self.buffer[..write.size]);
            let submitted = self.index(self.writer.submitted());
            let stream = self.stream[..submitted].to_vec();
            self.history.insert(digest(&stream));
            self.versions.push(Version { sequence: write.sequence, complete: false, stream });
        }
        plan
    }

    pub fn complete_any(&mut self) {
        if self.disk.in_flight() > 0 {
            let sequence = self.disk.complete(self.random.below(self.disk.in_flight()));
            self.writer.on_written(sequence, Ok(()));
            let version = self.versions.iter_mut().find(|version| version.sequence == sequence);
            version.expect("it was planned").complete = true;
            while self.versions.len() > 1 && self.versions[1].complete {
                self.versions.remove(0);
            }
        }
    }

    /// Writes everything and waits for it.
    pub fn flush(&mut self) {
        loop {
            match self.plan() {
                Plan::Write(_) => {}
                Plan::TooManyInFlight => self.complete_any(),
                Plan::Nothing if self.disk.in_flight() > 0 => self.complete_any(),
                Plan::Nothing => break,
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(self.writer.durable(), self.end());
    }

    pub fn commit_durable(&mut self) {
        self.committed = self.committed.max(self.writer.durable());
    }

    /// The power goes, the replica comes back. Only what a power cut may do is accepted.
    pub fn crash(&mut self) -> Recovered {
        self.disk.cut_power(&mut self.random);
        let recovered = recover(&IDENTITY, self.disk.mount()).expect("no operator needed");
        assert!(!matches!(recovered.verdict, Verdict::Faulty { .. }), "{:?}", recovered.verdict);
        assert_eq!(recovered.start, self.begin);
        let stream = read_back(&mut self.disk, &recovered.table, &recovered.segments, self.begin, recovered.end);
        assert!(
            self.versions.iter().any(|version| version.stream == stream),
            "recovered {} bytes; possible were {:?}",
            stream.len(),
            self.versions.iter().map(|version| version.stream.len()).collect::<Vec<_>>()
        );
        assert!(recovered.committed <= self.committed.min(recovered.end));
        assert!(recovered.holes.is_empty() && recovered.mends.is_empty(), "a power cut makes no hole");
        self.resume(&recovered, stream);
        recovered
    }

    /// Goes on with what recovery found.
    pub fn resume(&mut self, recovered: &Recovered, stream: Vec<u8>) {
        self.stream = stream;
        self.begin = recovered.start;
        self.runs = runs_of(self.begin, &self.stream);
        let within: Vec<_> = recovered.runs.iter().filter(|(_, start)| *start >= self.begin).copied().collect();
        if self.begin == Position(0) {
            assert_eq!(recovered.runs, self.runs);
        } else {
            assert!(self.runs.ends_with(&within[within.len().saturating_sub(1)..]));
        }
        self.runs.clone_from(&recovered.runs);
        self.writer = Writer::new(CONFIG, recovered);
        self.tail.reset(recovered.end);
        self.term = self.term.next();
        self.versions = vec![Version { sequence: 0, complete: true, stream: self.stream.clone() }];
        assert_eq!(self.end(), recovered.end);
    }

    /// Whether the stream on disk was ever this.
    pub fn was_ever(&self, stream: &[u8]) -> bool {
        self.history.contains(&digest(stream))
    }

    /// Recovers without any expectation.
    pub fn recovered(&mut self) -> Recovered {
        recover(&IDENTITY, self.disk.mount()).expect("no operator needed")
    }

    /// Repairs what recovery could restore and what it found missing, from the model of the stream.
    pub fn repair(&mut self, recovered: &Recovered) {
        for mend in &recovered.mends {
            self.disk.overwrite(mend.segment, mend.offset, &mend.bytes);
        }
        for hole in &recovered.holes {
            let stream = &self.stream[self.index(hole.first())..self.index(hole.end())];
            let size = hole.rebuild(stream, &mut self.buffer).expect("the very bytes");
            assert_eq!(size, hole.size());
            self.disk.overwrite(hole.segment(), hole.offset(), &self.buffer[..size]);
        }
    }

    /// Reads the durable stream through the writer's table, as catch-up does.
    pub fn check_read_back(&mut self) {
        let durable = self.writer.durable();
        let boundaries = self.boundaries(self.begin);
        let durable_boundaries: Vec<_> = boundaries.into_iter().filter(|boundary| *boundary <= durable).collect();
        let from = durable_boundaries[self.random.below(durable_boundaries.len())];
        let mut segments = Vec::new();
        for number in self.disk.files.keys() {
            segments.extend(self.writer.segment(*number).copied());
        }
        let read = read_back(&mut self.disk, self.writer.table(), &segments, from, durable);
        assert_eq!(read, self.stream[self.index(from)..self.index(durable)], "[{from}, {durable})");
    }
}

fn digest(stream: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    stream.hash(&mut hasher);
    hasher.finish()
}

/// Reads [from, to) block by block.
pub fn read_back(
    disk: &mut Disk,
    table: &evershard_log::BlockTable,
    segments: &[evershard_log::SegmentHeader],
    from: Position,
    to: Position,
) -> Vec<u8> {
    let mut stream = Vec::new();
    let mut next = from;
    while next < to {
        let mut location = table.locate(next).expect("it was written").until(to);
        let nonce = segments.iter().find(|header| header.number == location.segment).expect("it is there").nonce;
        loop {
            let chunk = chunk_at(disk, location.segment, location.offset);
            let mut sink = |first: Position, bytes: &[u8]| {
                assert_eq!(first, next, "the stream has no gap");
                stream.extend_from_slice(bytes);
                next = first.advance(bytes.len() as u64);
            };
            let progress = read_blocks(&chunk, nonce, location, from, &mut sink).expect("it reads back");
            if progress.finished {
                assert_eq!(next, location.end);
                break;
            }
            assert!(progress.next_offset > location.offset, "a chunk brings at least one block forward");
            location = Location { offset: progress.next_offset, position: progress.position_reached, ..location };
        }
    }
    stream
}

fn chunk_at(disk: &Disk, segment: SegmentNumber, offset: u64) -> Vec<u8> {
    let file = &disk.files[&segment];
    let offset = usize::try_from(offset).expect("small");
    file[offset..file.len().min(offset + WRITE_SIZE_MAX)].to_vec()
}

pub fn runs_of(begin: Position, stream: &[u8]) -> Vec<(Term, Position)> {
    let mut runs: Vec<(Term, Position)> = Vec::new();
    let (mut at, mut rest) = (begin, stream);
    while !rest.is_empty() {
        let record = Record::parse(at, rest).expect("whole, verified records");
        if runs.last().is_none_or(|(term, _)| *term < record.header.term) {
            runs.push((record.header.term, at));
        }
        at = record.header.position;
        rest = &rest[record.bytes.len()..];
    }
    runs
}
