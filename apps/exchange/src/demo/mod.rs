//! Three nodes, three shards, real orders, and a leader killed on the way.
//!
//! Each node is a process of its own. One client per shard plays its part of the flow at scheduled times and compares
//! every reply with what the same exchange in this process says ([`crate::local`]). Half-way the leader of the busiest
//! shard gets SIGKILL and is started again. At the end the books are read from the cluster, and every replica of
//! every shard has to show the same digest at the same position.

mod drive;
mod nodes;
mod report;

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use evershard::node::DurabilityConfig;
use evershard::{Client, ClientConfig, ShardId};
use indicatif::{ProgressBar, ProgressStyle};

use crate::collect::Collector;
use crate::generator::{self, Generator};
use crate::orders::OrderFile;
use crate::shard_of;
use crate::wire::{Order, Reply};
use drive::{Outcome, Plan, Progress};
use nodes::Nodes;
pub use report::Report;

/// Orders a second when none are asked for.
const RATE: u64 = 20_000;
/// How long the cluster may take to come up, and to agree at the end.
const PATIENCE: Duration = Duration::from_secs(60);

/// What to play, and how.
#[derive(clap::Args, Clone, Debug)]
pub struct DemoOptions {
    /// An order file, plain or gzip: neutral CSV, or LOBSTER messages as SYMBOL=FILE. Repeat for several. Without one,
    /// order flow is made up from a seed.
    #[arg(long)]
    pub orders: Vec<String>,
    /// Orders a second over all shards; 0 plays as fast as they are answered.
    #[arg(long, default_value_t = RATE)]
    pub rate: u64,
    /// How long made-up order flow lasts; order files are played to their end.
    #[arg(long, default_value_t = 10)]
    pub seconds: u64,
    /// What an acknowledgement is worth.
    #[arg(long, value_enum, default_value_t = Durability::Durable)]
    pub durability: Durability,
    /// Where to write trades.csv and book.csv.
    #[arg(long)]
    pub out: Option<PathBuf>,
    /// Shards of every node.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub shards: u16,
    /// Seed of made-up order flow.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Keep the leader alive.
    #[arg(long)]
    pub no_failover: bool,
    /// Where the nodes' data goes; a temporary directory otherwise.
    #[arg(long)]
    pub data: Option<PathBuf>,
    /// The figures as JSON.
    #[arg(long)]
    pub json: Option<PathBuf>,
}

/// What an acknowledgement is worth.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum Durability {
    /// A quorum holds the order on stable storage.
    Durable,
    /// A quorum holds the order in memory.
    Replicated,
}

impl From<Durability> for DurabilityConfig {
    fn from(durability: Durability) -> Self {
        match durability {
            Durability::Durable => Self::Durable,
            Durability::Replicated => Self::Replicated,
        }
    }
}

/// Plays it. True if nothing was lost, doubled or different.
///
/// # Errors
/// An order file with a broken line (named), a cluster that does not come up, files that cannot be written.
pub fn run(options: &DemoOptions) -> Result<bool> {
    let flow = read_flow(options)?;
    let total = flow.iter().map(|plan| plan.orders.len() as u64).sum::<u64>();
    if total == 0 {
        bail!("there are no orders to play");
    }
    let temporary = match &options.data {
        Some(_) => None,
        None => Some(tempfile::tempdir().context("cannot make a temporary directory")?),
    };
    let data = options.data.as_deref().or(temporary.as_ref().map(tempfile::TempDir::path)).expect("one of the two");
    eprintln!("starting 3 nodes with {} shards each; their logs are in {}", options.shards, data.display());
    let mut nodes = Nodes::start(data, options.shards, options.durability.into())?;
    nodes.wait_until_settled(PATIENCE)?;

    let collector = Mutex::new(Collector::new(options.shards));
    let progress = Progress::default();
    let begun = Instant::now();
    let (outcomes, failover) = play(options, &mut nodes, flow, total, &collector, &progress)?;
    let took = begun.elapsed();

    let mut collector = collector.into_inner().expect("no driver panicked");
    read_books(&nodes, &mut collector)?;
    let digests = nodes.agree(PATIENCE)?;
    if let Some(out) = &options.out {
        write_files(out, &collector)?;
    }
    let report = Report::new(options, total, took, outcomes, failover, collector.totals(), digests);
    print!("{report}");
    if let Some(path) = &options.json {
        let text = serde_json::to_string_pretty(&report.to_json()).expect("plain values become JSON");
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    nodes.stop();
    Ok(report.is_sound())
}

/// Orders by shard, each with its place in the whole flow.
fn read_flow(options: &DemoOptions) -> Result<Vec<Plan>> {
    let mut plans: Vec<Plan> = (0..options.shards).map(|shard| Plan::new(ShardId(shard))).collect();
    let mut number = 0;
    let mut add = |order: Order| {
        plans[usize::from(shard_of(order.symbol, options.shards).0)].orders.push((number, order));
        number += 1;
    };
    if options.orders.is_empty() {
        let rate = if options.rate == 0 { RATE } else { options.rate };
        let count = usize::try_from(rate * options.seconds).context("that many orders do not fit in memory")?;
        Generator::new(generator::Config::new(options.seed)).take(count).for_each(add);
    } else {
        for argument in &options.orders {
            for line in OrderFile::open(argument)? {
                add(line?.1);
            }
        }
    }
    Ok(plans)
}

/// A leader was killed: which node led which shard, and how long nothing was answered there.
#[derive(Clone, Copy, Debug)]
pub struct Failover {
    shard: u16,
    node: u8,
    gap: Duration,
}

fn play(
    options: &DemoOptions,
    nodes: &mut Nodes,
    flow: Vec<Plan>,
    total: u64,
    collector: &Mutex<Collector>,
    progress: &Progress,
) -> Result<(Vec<Outcome>, Option<Failover>)> {
    let busiest = flow.iter().max_by_key(|plan| plan.orders.len()).map_or(ShardId(0), |plan| plan.shard);
    let clients: Vec<Client> =
        (0..options.shards).map(|shard| connect(nodes, ShardId(shard))).collect::<Result<_, _>>()?;
    let start = Instant::now() + Duration::from_millis(20);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let drivers: Vec<_> = flow
            .into_iter()
            .zip(clients)
            .map(|(plan, client)| {
                let rate = options.rate;
                let stop = &stop;
                scope.spawn(move || drive::run(plan, client, rate, start, collector, progress, stop))
            })
            .collect();
        let watched =
            watch(options, nodes, total, busiest, progress, &|| drivers.iter().all(|driver| driver.is_finished()));
        // Relaxed: only ends the drivers early when watching failed.
        stop.store(watched.is_err(), Ordering::Relaxed);
        let outcomes: Result<Vec<Outcome>> =
            drivers.into_iter().map(|driver| driver.join().expect("drivers return their errors")).collect();
        let (killed_at, failover) = watched?;
        let outcomes = outcomes?;
        let failover = failover.map(|(shard, node)| {
            let gap = outcomes[usize::from(shard)].gap_around(killed_at);
            Failover { shard, node, gap }
        });
        Ok((outcomes, failover))
    })
}

type Killed = (Option<Instant>, Option<(u16, u8)>);

/// Shows progress, and kills and restarts the leader of the busiest shard half-way.
fn watch(
    options: &DemoOptions,
    nodes: &mut Nodes,
    total: u64,
    busiest: ShardId,
    progress: &Progress,
    is_finished: &dyn Fn() -> bool,
) -> Result<Killed> {
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} orders acknowledged  {per_sec}  {wide_msg}")?;
    let bar = ProgressBar::new(total).with_style(style);
    let mut killed: Killed = (None, None);
    let mut restart_at = None;
    while !is_finished() {
        let answered = progress.answered.load(Ordering::Relaxed);
        bar.set_position(answered);
        if !options.no_failover && killed.0.is_none() && answered >= total / 2 {
            let node = nodes.leader_of(busiest.0).context("no node leads the busiest shard")?;
            killed = (Some(Instant::now()), Some((busiest.0, node)));
            nodes.kill(node)?;
            bar.set_message(format!("node {node} killed, it led shard {busiest}"));
            restart_at = Some(Instant::now() + Duration::from_secs(1));
        }
        if restart_at.is_some_and(|at| at <= Instant::now()) {
            restart_at = None;
            let (_, node) = killed.1.expect("set with the kill");
            nodes.restart(node)?;
            bar.set_message(format!("node {node} started again"));
        }
        nodes.check_alive(killed.1.filter(|_| restart_at.is_some()).map(|(_, node)| node))?;
        std::thread::sleep(Duration::from_millis(20));
    }
    if restart_at.is_some() {
        nodes.restart(killed.1.expect("set with the kill").1)?;
    }
    bar.set_position(progress.answered.load(Ordering::Relaxed));
    bar.finish_and_clear();
    Ok(killed)
}

fn connect(nodes: &Nodes, shard: ShardId) -> Result<Client> {
    let mut config = ClientConfig::new(nodes.addresses(shard.0), shard);
    config.window_len = drive::WINDOW_LEN;
    config.request_timeout = PATIENCE;
    Client::connect(&config).with_context(|| format!("cannot reach shard {shard}"))
}

fn read_books(nodes: &Nodes, collector: &mut Collector) -> Result<()> {
    let mut clients: Vec<Option<Client>> = Vec::new();
    let mut command_bytes = Vec::new();
    while let Some((shard, command)) = collector.wanted() {
        let at = usize::from(shard.0);
        if clients.len() <= at {
            clients.resize_with(at + 1, || None);
        }
        let client = match &mut clients[at] {
            Some(client) => client,
            empty => empty.insert(connect(nodes, shard)?),
        };
        command_bytes.clear();
        command.encode(&mut command_bytes);
        let reply = client.call(&command_bytes)?;
        collector.on_reply(shard, &Reply::decode(reply.payload)?)?;
    }
    for client in clients.into_iter().flatten() {
        client.close()?;
    }
    Ok(())
}

fn write_files(out: &Path, collector: &Collector) -> Result<()> {
    std::fs::create_dir_all(out).with_context(|| format!("cannot make {}", out.display()))?;
    let create = |name: &str| {
        let path = out.join(name);
        std::fs::File::create(&path)
            .map(std::io::BufWriter::new)
            .with_context(|| format!("cannot write {}", path.display()))
    };
    let mut trades = create("trades.csv")?;
    collector.write_trades(&mut trades)?;
    std::io::Write::flush(&mut trades)?;
    let mut book = create("book.csv")?;
    collector.write_book(&mut book)?;
    std::io::Write::flush(&mut book)?;
    Ok(())
}

/// Counts over all drivers.
pub(crate) type Count = AtomicU64;
