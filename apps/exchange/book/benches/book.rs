//! The book on recorded and on made-up order flow, and the structure of its price levels against two others.
//!
//! Recorded flow comes from the neutral order files (gzip CSV) of the folder `EVERSHARD_ORDERS` names, or of
//! `shared/data/orders` beside the checkout; without them only made-up flow is measured.
//! Run with `cargo bench -p exchange-book`.

use std::collections::{BTreeMap, HashMap};
use std::hint::black_box;
use std::io::Read;
use std::path::PathBuf;
use std::time::Duration;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use exchange_book::ladder::Ladder;
use exchange_book::{Book, Limits, NewOrder, OrderId, Price, Qty, Side};

const LIMITS: Limits = Limits { orders_max: 1 << 20, orders_reserved: 1 << 15 };

#[derive(Clone, Copy)]
enum Step {
    New(NewOrder),
    ImmediateOrCancel(NewOrder),
    Modify(OrderId, Price, Qty),
    Cancel(OrderId),
}

/// A level that comes or goes, by rank.
#[derive(Clone, Copy)]
enum LevelStep {
    Insert(u64),
    Remove(u64),
}

fn replay(book: &mut Book, steps: &[Step]) -> u64 {
    let mut volume = 0;
    for step in steps {
        let sink = |fill: &exchange_book::Fill| volume += fill.qty.0;
        let _ = match *step {
            Step::New(order) => book.new_order(order, sink),
            Step::ImmediateOrCancel(order) => book.immediate_or_cancel(order, sink),
            Step::Modify(id, price, qty) => book.modify(id, price, qty, sink),
            Step::Cancel(id) => book.cancel(id),
        };
    }
    volume
}

fn captures() -> Vec<(String, Vec<Step>)> {
    let beside = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../../shared/data/orders");
    let folder = std::env::var_os("EVERSHARD_ORDERS").map_or(beside, PathBuf::from);
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut paths: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.retain(|path| path.to_string_lossy().ends_with(".csv.gz"));
    paths.sort();
    paths.iter().map(|path| (path.file_stem().expect("a file").to_string_lossy().into_owned(), read(path))).collect()
}

fn read(path: &PathBuf) -> Vec<Step> {
    let file = std::fs::File::open(path).expect("readable");
    let mut text = String::new();
    flate2::read::MultiGzDecoder::new(file).read_to_string(&mut text).expect("gzip");
    let parse = |line: &str| {
        let fields: Vec<_> = line.split(',').collect();
        let id = OrderId(fields[2].parse().expect("an id"));
        if fields[1] == "C" {
            return Step::Cancel(id);
        }
        let side = if fields[3] == "B" { Side::Buy } else { Side::Sell };
        let price = Price(fields[4].parse().expect("a price"));
        let qty = Qty(fields[5].trim_end().parse().expect("a quantity"));
        let order = NewOrder { id, side, price, qty, owner: 1 };
        match fields[1] {
            "N" => Step::New(order),
            "I" => Step::ImmediateOrCancel(order),
            _ => Step::Modify(id, price, qty),
        }
    };
    text.lines().skip(1).map(parse).collect()
}

/// Orders around a fixed middle, `width` ticks to each side, a cancellation for each once `resting` orders rest.
fn synthetic(resting: u64, width: u64) -> Vec<Step> {
    let mut random = 1_u64;
    let mut steps = Vec::new();
    for number in 0..resting + 200_000 {
        let far = (next(&mut random) % width).min(next(&mut random) % width);
        let side = if number % 2 == 0 { Side::Buy } else { Side::Sell };
        let price = Price(if side == Side::Buy { 10_000_000 - far } else { 10_000_001 + far });
        steps.push(Step::New(NewOrder { id: OrderId(number), side, price, qty: Qty(10), owner: 1 }));
        if let Some(old) = number.checked_sub(resting) {
            steps.push(Step::Cancel(OrderId(old)));
        }
    }
    steps
}

fn next(random: &mut u64) -> u64 {
    *random ^= *random << 13;
    *random ^= *random >> 7;
    *random ^= *random << 17;
    *random
}

/// How the levels of the bids come and go, trades aside.
fn level_steps(steps: &[Step]) -> Vec<LevelStep> {
    let (mut live, mut counts, mut found) = (HashMap::new(), HashMap::new(), Vec::new());
    for step in steps {
        match *step {
            Step::New(order) if order.side == Side::Buy && !live.contains_key(&order.id) => {
                live.insert(order.id, order.price.0);
                let count = counts.entry(order.price.0).or_insert(0);
                *count += 1;
                if *count == 1 {
                    found.push(LevelStep::Insert(order.price.0));
                }
            }
            Step::Cancel(id) => {
                let Some(price) = live.remove(&id) else { continue };
                let count = counts.get_mut(&price).expect("counted when it came");
                *count -= 1;
                if *count == 0 {
                    found.push(LevelStep::Remove(price));
                }
            }
            _ => (),
        }
    }
    found
}

fn run_ladder(steps: &[LevelStep]) -> u64 {
    let (mut ladder, mut sum) = (Ladder::new(), 0);
    for step in steps {
        match *step {
            LevelStep::Insert(rank) => {
                if let Err(place) = ladder.find(rank) {
                    ladder.insert(place, rank, 1);
                }
            }
            LevelStep::Remove(rank) => ladder.remove(rank),
        }
        sum ^= ladder.best().map_or(0, |(rank, _)| rank);
    }
    sum
}

fn run_sorted_vec(steps: &[LevelStep]) -> u64 {
    let (mut levels, mut sum) = (Vec::<(u64, u32)>::new(), 0);
    for step in steps {
        match *step {
            LevelStep::Insert(rank) => {
                if let Err(at) = levels.binary_search_by_key(&rank, |level| level.0) {
                    levels.insert(at, (rank, 1));
                }
            }
            LevelStep::Remove(rank) => {
                let at = levels.binary_search_by_key(&rank, |level| level.0).expect("it is there");
                levels.remove(at);
            }
        }
        sum ^= levels.last().map_or(0, |level| level.0);
    }
    sum
}

fn run_tree(steps: &[LevelStep]) -> u64 {
    let (mut levels, mut sum) = (BTreeMap::new(), 0);
    for step in steps {
        match *step {
            LevelStep::Insert(rank) => {
                levels.insert(rank, 1_u32);
            }
            LevelStep::Remove(rank) => {
                levels.remove(&rank);
            }
        }
        sum ^= levels.last_key_value().map_or(0, |(rank, _)| *rank);
    }
    sum
}

fn book(criterion: &mut Criterion) {
    let mut flows = captures();
    flows.push(("synthetic-near".into(), synthetic(10_000, 500)));
    flows.push(("synthetic-wide".into(), synthetic(100_000, 1_000_000)));
    for (name, steps) in &flows {
        let mut group = criterion.benchmark_group(format!("book/{name}"));
        group.throughput(Throughput::Elements(steps.len() as u64));
        group.bench_function("replay", |bencher| {
            let fresh = || Book::new(LIMITS);
            bencher.iter_batched_ref(fresh, |book| replay(book, black_box(steps)), BatchSize::LargeInput);
        });
        group.finish();
    }
    let mut book = Book::new(LIMITS);
    replay(&mut book, &synthetic(100_000, 1_000_000)[..100_000]);
    criterion.bench_function("digest/100k orders", |bencher| bencher.iter(|| black_box(&book).digest()));
    for (name, steps) in &flows {
        let steps = level_steps(steps);
        let mut group = criterion.benchmark_group(format!("levels/{name}"));
        group.throughput(Throughput::Elements(steps.len() as u64));
        group.bench_function("ladder", |bencher| bencher.iter(|| run_ladder(black_box(&steps))));
        group.bench_function("sorted vec", |bencher| bencher.iter(|| run_sorted_vec(black_box(&steps))));
        group.bench_function("btree", |bencher| bencher.iter(|| run_tree(black_box(&steps))));
        group.finish();
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(10).warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(2));
    targets = book
}
criterion_main!(benches);
