//! Whole files through the exchange, without a cluster, against digests of what `reference_book.py` wrote.

use std::io::Write;
use std::path::{Path, PathBuf};

use exchange::collect::{Collector, Totals};
use exchange::generator::{Config, Generator};
use exchange::local::Local;
use exchange::orders::{self, OrderFile};
use exchange::shard_of;
use exchange::wire::{Command, Order, Reply};
use sha2::{Digest, Sha256};

use crate::hex;

/// What the independent reference wrote for the sample, and for the two recordings together.
const SAMPLE_TRADES: &str = "056718f680f35ac7a93e125f7048f45d1545b6aeb2c2c775ef7e9757608c75d8";
const SAMPLE_BOOK: &str = "c20384ca20766b6a5a048a1b068a5a7351b97223ac3f77aeec05c713ee6d6882";
const RECORDED_TRADES: &str = "9117a82b9c933b677c773a55150ad387bc306f01903a22cd694211ad6bcb4d1f";
const RECORDED_BOOK: &str = "a890c01a3c2fd1fb4210d9cb354d801bf5af9d4287625e7552729908581d0f1a";

struct Outcome {
    trades: String,
    book: String,
    totals: Totals,
}

/// Runs orders through one exchange per shard and collects.
fn run(shards: u16, orders: impl Iterator<Item = Order>) -> Outcome {
    let mut exchanges: Vec<Local> = (0..shards).map(|_| Local::default()).collect();
    let mut collector = Collector::new(shards);
    for order in orders {
        let exchange = &mut exchanges[usize::from(shard_of(order.symbol, shards).0)];
        match exchange.call(&Command::Order(order)).expect("a readable reply") {
            Reply::Ack(ack) => collector.on_ack(&order, &ack).expect("acks fit together"),
            other => panic!("an order is acknowledged: {other:?}"),
        }
    }
    while let Some((shard, command)) = collector.wanted() {
        let reply = exchanges[usize::from(shard.0)].call(&command).expect("a readable reply");
        collector.on_reply(shard, &reply).expect("pages fit together");
    }
    let digest = |write: &dyn Fn(&mut Vec<u8>) -> std::io::Result<()>| {
        let mut text = Vec::new();
        write(&mut text).expect("a vector takes everything");
        hex(&Sha256::digest(&text))
    };
    Outcome {
        trades: digest(&|out| collector.write_trades(out)),
        book: digest(&|out| collector.write_book(out)),
        totals: collector.totals(),
    }
}

fn read(path: &Path) -> impl Iterator<Item = Order> + use<> {
    let name = path.to_str().expect("a readable path").to_owned();
    OrderFile::open(&name).expect("the file opens").map(|line| line.expect("a sound line").1)
}

fn sample() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("samples/orders-sample.csv")
}

#[test]
fn the_sample_gives_what_the_reference_gives() {
    for shards in 1..=3 {
        let outcome = run(shards, read(&sample()));
        assert_eq!((outcome.trades.as_str(), outcome.book.as_str()), (SAMPLE_TRADES, SAMPLE_BOOK), "{shards} shards");
        let Totals { accepted, rejected, trades, volume, resting } = outcome.totals;
        assert_eq!((accepted, rejected, trades, volume, resting), (3980, 20, 863, 408_604, 797));
    }
}

/// The recordings are not part of the repository; where they lie beside it, they are replayed.
#[test]
fn the_recordings_give_what_the_reference_gives() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/orders");
    let files = ["btcusd-2026.csv.gz", "xbtusd-2015.csv.gz"].map(|name| folder.join(name));
    if files.iter().any(|file| !file.exists()) {
        let _ = writeln!(std::io::stderr(), "no recordings in {}: only the sample was replayed", folder.display());
        return;
    }
    let outcome = run(3, files.iter().flat_map(|file| read(file)));
    assert_eq!((outcome.trades.as_str(), outcome.book.as_str()), (RECORDED_TRADES, RECORDED_BOOK));
    let Totals { accepted, rejected, trades, resting, .. } = outcome.totals;
    assert_eq!((accepted + rejected, rejected, trades, resting), (364_441, 13_221, 12_648, 184));
}

#[test]
fn the_sample_is_what_the_generator_makes() {
    let mut text = Vec::new();
    orders::write_header(&mut text).expect("a vector takes everything");
    for order in Generator::new(Config { resting: 200, ..Config::new(1) }).take(4000) {
        orders::write_order(&mut text, &order).expect("a vector takes everything");
    }
    let sample = std::fs::read(sample()).expect("the sample is there");
    assert!(text == sample, "the generator changed: run examples/sample.rs and the reference, renew the digests here");
}

#[test]
fn generated_flow_keeps_the_books_steady() {
    let outcome = run(2, Generator::new(Config::new(7)).take(40_000));
    assert!((3600..=4400).contains(&outcome.totals.resting), "{:?}", outcome.totals);
    assert!(outcome.totals.trades > 2000, "{:?}", outcome.totals);
    assert!((50..600).contains(&outcome.totals.rejected), "{:?}", outcome.totals);
}
