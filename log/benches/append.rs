//! What the log costs a shard's core: encoding into the tail, and making a block of what has gathered.

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use evershard_log::{Identity, Plan, Recovered, SegmentHeader, Tail, WRITE_SIZE_MAX, Writer, WriterConfig};
use evershard_protocol::record::{Draft, Kind};
use evershard_protocol::{ClusterId, NodeId, Position, ShardId, Term, Timestamp};
use std::hint::black_box;

const IDENTITY: Identity = Identity { cluster: ClusterId(1), shard: ShardId(0), node: NodeId(0) };
const RUNS: &[(Term, Position)] = &[(Term(1), Position(0))];

fn draft(payload: &[u8]) -> Draft<'_> {
    Draft::plain(Kind::Command, Term(1), Timestamp(1), payload)
}

fn append(c: &mut Criterion) {
    let mut group = c.benchmark_group("append");
    for size in [64_usize, 256, 4096] {
        let payload = vec![0x5A; size];
        let mut tail = Tail::new(16 * 1024 * 1024, Position(0));
        group.throughput(Throughput::Bytes(draft(&payload).padded_size() as u64));
        group.bench_function(size.to_string(), |bencher| {
            bencher.iter(|| {
                let floor = tail.end();
                tail.append(black_box(&draft(&payload)), floor).expect("everything may be forgotten")
            });
        });
    }
    group.finish();
}

fn plan(c: &mut Criterion) {
    let config = WriterConfig::default();
    let mut group = c.benchmark_group("plan");
    for records in [1_usize, 32, 1024] {
        let payload = [0x5A; 64];
        let mut tail = Tail::new(16 * 1024 * 1024, Position(0));
        let mut writer = Writer::new(config, &Recovered::default());
        let mut buffer = vec![0; WRITE_SIZE_MAX];
        group.throughput(Throughput::Elements(records as u64));
        group.bench_function(records.to_string(), |bencher| {
            bencher.iter_batched(
                || (),
                |()| {
                    for _ in 0..records {
                        tail.append(&draft(&payload), writer.submitted()).expect("room");
                    }
                    loop {
                        match writer.plan(&tail, Position(0), RUNS, &mut buffer) {
                            Plan::Write(write) => writer.on_written(write.sequence, Ok(())),
                            Plan::NoSegment => {
                                let number = writer.wants_segment().expect("none waits");
                                let size = config.segment_size;
                                writer.add_segment(SegmentHeader { identity: IDENTITY, number, nonce: 1, size });
                                writer.forget_before(number);
                            }
                            _ => break,
                        }
                    }
                    black_box(writer.durable())
                },
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, append, plan);
criterion_main!(benches);
