//! The four processes of one combination: how they are started, find each other and report.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use hdrhistogram::Histogram;
use nix::sys::resource::{UsageWho, getrusage};
use serde::{Deserialize, Serialize};

use super::plan::{ClientKind, Combination, Idle, Placement, Role};
use super::ring::{Counters, set_policy};
use super::{client, follower, leader};

/// The arguments of the hidden subcommand that one process of the floor runs as.
#[derive(Debug, Clone, clap::Args)]
pub struct NodeOptions {
    /// Which of the four this process is.
    #[arg(long)]
    role: Role,
    /// Where the four run.
    #[arg(long)]
    placement: Placement,
    /// How they idle.
    #[arg(long)]
    idle: Idle,
    /// What the client uses.
    #[arg(long)]
    client: ClientKind,
    /// Bytes of a request and of its reply.
    #[arg(long)]
    size: usize,
    /// Seconds to measure, for the client.
    #[arg(long)]
    seconds: f64,
    /// The leader's port, for all but the leader.
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// The cores that may be used.
    #[arg(long, value_delimiter = ',')]
    cores: Vec<usize>,
    /// The preallocated file to write durably.
    #[arg(long)]
    file: Option<PathBuf>,
}

/// What one process says when it ends, as one line of JSON.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NodeReport {
    /// Calls of `io_uring_enter`.
    pub enters: u64,
    /// Turns of its loop.
    pub turns: u64,
    /// Times it gave the processor up by waiting.
    pub voluntary_switches: i64,
    /// Times the processor was taken from it.
    pub involuntary_switches: i64,
    /// The client's requests, the warm-up's included.
    pub requests: u64,
    /// The client's round trips: (nanoseconds, count).
    pub round_trips: Vec<(u64, u64)>,
}

/// What one run of a combination gave.
#[derive(Debug)]
pub struct Run {
    /// Round trips in nanoseconds.
    pub histogram: Histogram<u64>,
    /// Requests answered, the warm-up's included.
    pub requests: u64,
    /// The leader's calls of `io_uring_enter`.
    pub leader_enters: u64,
    /// The leader's context switches.
    pub leader_switches: u64,
}

impl Run {
    /// Adds another run of the same combination.
    pub fn add(&mut self, other: &Run) {
        self.histogram.add(&other.histogram).expect("both resize themselves");
        self.requests += other.requests;
        self.leader_enters += other.leader_enters;
        self.leader_switches += other.leader_switches;
    }
}

/// Runs one combination: starts the four processes, waits for the client, ends them all.
pub fn run(
    program: &Path,
    cores: &[usize],
    combination: Combination,
    size: usize,
    duration: Duration,
    files: Option<&[PathBuf; 3]>,
) -> Result<Run> {
    let start = |role: Role, port: u16| -> Result<Process> {
        let file = files.and_then(|files| match role {
            Role::Client => None,
            other => Some(&files[other as usize - 1]),
        });
        Process::start(program, cores, combination, role, size, duration, port, file)
    };
    let mut leader = start(Role::Leader, 0)?;
    let port = leader.line()?.trim().parse().context("the leader did not say its port")?;
    let mut first = start(Role::FirstFollower, port)?;
    let mut second = start(Role::SecondFollower, port)?;
    let mut client = start(Role::Client, port)?;
    let client = client.finish()?;
    let leader = leader.finish()?;
    first.finish()?;
    second.finish()?;
    let mut histogram = Histogram::new(3)?;
    for (nanoseconds, count) in client.round_trips {
        histogram.record_n(nanoseconds, count)?;
    }
    ensure!(!histogram.is_empty(), "no request came back");
    let leader_switches = u64::try_from(leader.voluntary_switches + leader.involuntary_switches).unwrap_or(0);
    Ok(Run { histogram, requests: client.requests, leader_enters: leader.enters, leader_switches })
}

/// The body of the hidden subcommand.
pub fn serve(options: &NodeOptions) -> Result<()> {
    let core_count = options.cores.len();
    if let Some(indexes) = options.placement.cores() {
        let id = options.cores[indexes[options.role as usize]];
        ensure!(core_affinity::set_for_current(core_affinity::CoreId { id }), "cannot pin to core {id}");
    }
    match options.idle {
        Idle::BlockBatch => set_policy(libc::SCHED_BATCH, 0).context("cannot take the batch policy")?,
        Idle::BlockFifo => set_policy(libc::SCHED_FIFO, 1).context("cannot take the real-time policy")?,
        _ => {}
    }
    let wait = options.idle.wait(options.placement.is_alone(options.role, core_count));
    let file = options.file.as_deref().map(open_direct).transpose()?;
    let (counters, histogram) = match options.role {
        Role::Leader => {
            let links = accept_links()?;
            (leader::serve(wait, options.size, links, file)?, None)
        }
        Role::FirstFollower | Role::SecondFollower => {
            let leader = connect(options)?;
            (follower::follow(wait, options.size, leader, file)?, None)
        }
        Role::Client => {
            let leader = connect(options)?;
            let duration = Duration::from_secs_f64(options.seconds);
            let (histogram, counters) = client::run(options.client, wait, options.size, duration, leader)?;
            (counters, Some(histogram))
        }
    };
    say(&report(counters, histogram.as_ref())?)
}

fn report(counters: Counters, histogram: Option<&Histogram<u64>>) -> Result<NodeReport> {
    let usage = getrusage(UsageWho::RUSAGE_SELF)?;
    let round_trips = histogram
        .map(|histogram| histogram.iter_recorded().map(|value| (value.value_iterated_to(), value.count_at_value())));
    Ok(NodeReport {
        enters: counters.enters,
        turns: counters.turns,
        requests: counters.requests,
        voluntary_switches: usage.voluntary_context_switches(),
        involuntary_switches: usage.involuntary_context_switches(),
        round_trips: round_trips.into_iter().flatten().collect(),
    })
}

fn say(report: &NodeReport) -> Result<()> {
    let mut line = serde_json::to_string(report)?;
    line.push('\n');
    std::io::stdout().write_all(line.as_bytes())?;
    Ok(())
}

/// Takes the client and both followers, in whatever order they come, and puts them in the order of their roles.
fn accept_links() -> Result<[TcpStream; 3]> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    println!("{}", listener.local_addr()?.port());
    let mut links: [Option<TcpStream>; 3] = [None, None, None];
    while links.iter().any(Option::is_none) {
        let (mut stream, _) = listener.accept()?;
        stream.set_nodelay(true)?;
        let mut role = [0];
        stream.read_exact(&mut role)?;
        let index = [Role::Client, Role::FirstFollower, Role::SecondFollower]
            .iter()
            .position(|&known| known as u8 == role[0])
            .context("a stranger connected")?;
        links[index] = Some(stream);
    }
    // The client may begin: everybody is here.
    let links = links.map(|link| link.expect("the loop above ends when all are present"));
    for mut link in &links {
        link.write_all(&[READY])?;
    }
    Ok(links)
}

fn connect(options: &NodeOptions) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, options.port)))?;
    stream.set_nodelay(true)?;
    stream.write_all(&[options.role as u8])?;
    let mut ready = [0];
    stream.read_exact(&mut ready)?;
    ensure!(ready[0] == READY, "the leader greeted with {}", ready[0]);
    Ok(stream)
}

fn open_direct(path: &Path) -> Result<File> {
    let opened = OpenOptions::new().write(true).custom_flags(libc::O_DIRECT).open(path);
    opened.with_context(|| format!("cannot open {} with O_DIRECT", path.display()))
}

/// A child that is killed and reaped when dropped before its end.
struct Process {
    child: Child,
    output: BufReader<std::process::ChildStdout>,
    role: Role,
}

impl Process {
    #[expect(clippy::too_many_arguments, reason = "one call site that only forwards what a run was given")]
    fn start(
        program: &Path,
        cores: &[usize],
        combination: Combination,
        role: Role,
        size: usize,
        duration: Duration,
        port: u16,
        file: Option<&PathBuf>,
    ) -> Result<Self> {
        let name = |value: &dyn Fn() -> Option<clap::builder::PossibleValue>| {
            value().map(|value| value.get_name().to_owned()).unwrap_or_default()
        };
        use clap::ValueEnum;
        let cores: Vec<String> = cores.iter().map(ToString::to_string).collect();
        let mut command = Command::new(program);
        command.arg("floor-node");
        command.args(["--role", &name(&|| role.to_possible_value())]);
        command.args(["--placement", &name(&|| combination.placement.to_possible_value())]);
        command.args(["--idle", &name(&|| combination.idle.to_possible_value())]);
        command.args(["--client", &name(&|| combination.client.to_possible_value())]);
        command.args(["--size", &size.to_string(), "--port", &port.to_string()]);
        command.args(["--seconds", &duration.as_secs_f64().to_string(), "--cores", &cores.join(",")]);
        if let Some(file) = file {
            command.arg("--file").arg(file);
        }
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("cannot start itself")?;
        let output = BufReader::new(child.stdout.take().context("a child without its pipe")?);
        Ok(Self { child, output, role })
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        if line.is_empty() {
            bail!("the floor's {:?} ended without a word", self.role);
        }
        Ok(line)
    }

    fn finish(&mut self) -> Result<NodeReport> {
        let report = serde_json::from_str(&self.line()?)?;
        let status = self.child.wait()?;
        ensure!(status.success(), "the floor's {:?} failed: {status}", self.role);
        Ok(report)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // A child that has been waited for is not killed again: the standard library remembers its status.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

const READY: u8 = 0x52;
