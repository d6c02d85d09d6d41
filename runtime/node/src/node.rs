//! Starting and stopping a node: one thread per shard, each pinned to its core, and one background executor.

use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;

use evershard_protocol::limits::NODES_MAX;
use evershard_protocol::{ClusterId, NodeId, ShardId};
use evershard_service::Service;
use evershard_sys::file::{DirectoryLock, LockError};
use evershard_sys::probe::RingError;
use evershard_sys::ring::{Ring, RingConfig};
use evershard_sys::{cores, socket};

use crate::background::{Background, BackgroundError, Desk};
use crate::config::{ConfigError, NodeConfig};
use crate::core::{Core, CoreParts, Identity, ShardConfig};
use crate::env::Env;
use crate::shadow::Instances;
use crate::shard::Shard;
use crate::snapshot::RestoreError;
use crate::storage::{Storage, StorageError};
use crate::uring::{UringEnv, UringParts};

/// Bytes a leader sends a follower ahead of its acknowledgement.
const INFLIGHT_SIZE_MAX: u64 = 8 * 1024 * 1024;

/// Why a node does not start or did not go on.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// See [`ConfigError`].
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Another process has the data directory.
    #[error(
        "{path} is in use: {source}\n\nhint: a data directory belongs to one running node. If another process of this \
         node still runs, stop it; the lock ends with its process, there is no file to remove"
    )]
    Lock {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: LockError,
    },
    /// The data directory cannot be made.
    #[error(
        "cannot use the data directory {path}: {source}\n\nhint: `data` in the configuration must be writable by this user"
    )]
    Data {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A shard's files cannot be used.
    #[error("shard {shard}: {source}")]
    Storage {
        /// The shard.
        shard: u16,
        /// Why.
        source: StorageError,
    },
    /// The service does not read the snapshot that was found.
    #[error(
        "shard {shard}: {source}\n\nhint: run the release and service that wrote it, or move the whole shard directory away: \
         the replica then comes back from its peers"
    )]
    Restore {
        /// The shard.
        shard: u16,
        /// Why.
        source: RestoreError,
    },
    /// A shard's port is taken.
    #[error(
        "shard {shard} cannot listen on {address}: {source}\n\nhint: shard i listens on the node's port + i; another \
         process has this one, perhaps as the near end of an outgoing connection (keep the node's ports out of \
         net.ipv4.ip_local_port_range, or list them in net.ipv4.ip_local_reserved_ports), or the address is not this host's"
    )]
    Listen {
        /// The shard.
        shard: u16,
        /// Where.
        address: std::net::SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The kernel refuses a ring.
    #[error(transparent)]
    Ring(#[from] RingError),
    /// The background does not start.
    #[error(transparent)]
    Background(#[from] BackgroundError),
    /// A core cannot be used.
    #[error("shard {shard}: {source}\n\nhint: correct `cores` in the configuration")]
    Pin {
        /// The shard.
        shard: u16,
        /// Why.
        source: cores::PinError,
    },
    /// A shard's thread, or the background's, broke an assertion: a defect of Evershard, reported above.
    #[error("a thread of the node panicked: this is a defect in Evershard; the node stops rather than go on with it")]
    Panicked,
}

/// A running node.
pub struct Node {
    threads: Vec<JoinHandle<()>>,
    stop: Arc<AtomicBool>,
    /// Dropped last: the shards need it to the end.
    background: Option<Background>,
    _lock: DirectoryLock,
}

/// Asks a node to stop, from any thread.
#[derive(Clone)]
pub struct Stopper(Arc<AtomicBool>);

impl Stopper {
    /// The node's shards hand over and stop.
    pub fn stop(&self) {
        // Relaxed: nothing else is published with the flag.
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Node {
    /// Starts a node; `service` makes each shard's service on the shard's thread, and its shadow on the background's.
    ///
    /// # Errors
    /// [`NodeError`]: nothing runs then.
    pub fn start<S: Service>(
        config: &NodeConfig,
        service: impl Fn(ShardId) -> S + Send + Sync + 'static,
    ) -> Result<Self, NodeError> {
        config.check()?;
        // Asked first and of our own ring: it says what is missing, where glommio would panic.
        drop(Ring::new(&RingConfig { queue_len: 8, receive_buffers_len: 1, receive_buffer_size: 4096 })?);
        let data = &config.data;
        std::fs::create_dir_all(data).map_err(|source| NodeError::Data { path: data.clone(), source })?;
        let lock = DirectoryLock::acquire(data).map_err(|source| NodeError::Lock { path: data.clone(), source })?;
        let (me, cluster) = (NodeId(config.node), ClusterId::of_name(&config.cluster));
        let service = Arc::new(service);
        let desks: Vec<Arc<Desk>> = (0..config.shards)
            .map(|shard| {
                let shard_id = ShardId(shard);
                let service = Arc::clone(&service);
                let shadows = Instances { cluster, shard: shard_id, service: move |shard| service(shard) };
                Arc::new(Desk::new(me, shard_id, shard_directory(config, shard), Box::new(shadows)))
            })
            .collect();
        let stop = Arc::new(AtomicBool::new(false));
        let background = Background::start(desks.clone(), config.background_core, data.clone(), Arc::clone(&stop))?;
        let mut node = Self { threads: Vec::new(), stop: Arc::clone(&stop), background: Some(background), _lock: lock };
        let (started, starting) = mpsc::channel();
        for (shard, desk) in (0..config.shards).zip(desks) {
            let (config, stop, started, service) =
                (config.clone(), Arc::clone(&stop), started.clone(), Arc::clone(&service));
            let body = move || {
                let failed = StopOnPanic(Arc::clone(&stop));
                match open_shard(&config, shard, desk, &stop, move |shard| service(shard)) {
                    Ok(mut shard) => {
                        let _ = started.send(Ok(()));
                        shard.run();
                    }
                    Err(error) => {
                        let _ = started.send(Err(error));
                    }
                }
                drop(failed);
            };
            let thread = std::thread::Builder::new().name(format!("shard-{shard}")).spawn(body);
            node.threads.push(thread.map_err(|source| NodeError::Data { path: data.clone(), source })?);
        }
        drop(started);
        for _ in 0..config.shards {
            match starting.recv() {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return Err(error),
                Err(_) => return Err(NodeError::Panicked),
            }
        }
        Ok(node)
    }

    /// Something to stop the node with.
    #[must_use]
    pub fn stopper(&self) -> Stopper {
        Stopper(Arc::clone(&self.stop))
    }

    /// Waits until all shards have stopped.
    ///
    /// # Errors
    /// [`NodeError::Panicked`].
    pub fn wait(mut self) -> Result<(), NodeError> {
        self.join()
    }

    fn join(&mut self) -> Result<(), NodeError> {
        let mut outcome = Ok(());
        for thread in self.threads.drain(..) {
            outcome = thread.join().map_err(|_| NodeError::Panicked).and(outcome);
        }
        if self.background.take().is_some_and(|mut background| !background.end()) {
            outcome = Err(NodeError::Panicked);
        }
        outcome
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.stopper().stop();
        // Who wants to know waits; a node that is dropped only has to end.
        let _ = self.join();
    }
}

/// A shard that panics takes its node with it: the others stop cleanly.
struct StopOnPanic(Arc<AtomicBool>);

impl Drop for StopOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // Relaxed: as in Stopper.
            self.0.store(true, Ordering::Relaxed);
        }
    }
}

fn shard_directory(config: &NodeConfig, shard: u16) -> PathBuf {
    config.data.join(format!("shard-{shard}"))
}

fn open_shard<S: Service>(
    config: &NodeConfig,
    shard: u16,
    desk: Arc<Desk>,
    stop: &Arc<AtomicBool>,
    service: impl Fn(ShardId) -> S + 'static,
) -> Result<Shard<S, UringEnv>, NodeError> {
    let (core, idle) = config.placement(shard, &cores::allowed());
    if let Some(core) = core {
        cores::pin_to(core).map_err(|source| NodeError::Pin { shard, source })?;
    }
    let (me, shard_id) = (NodeId(config.node), ShardId(shard));
    let cluster = ClusterId::of_name(&config.cluster);
    let marks = evershard_log::Identity { cluster, shard: shard_id, node: me };
    let storage = Storage::open(&shard_directory(config, shard), &marks, config.durability.into())
        .map_err(|source| NodeError::Storage { shard, source })?;
    for remark in &storage.started.remarks {
        tracing::warn!(node = config.node, shard, "{remark}");
    }
    let listener = listen(config, shard)?;
    let mut peers = Vec::new();
    for node in config.nodes.iter().filter(|node| node.id != config.node) {
        peers.push((NodeId(node.id), config.address(node, shard)?));
    }
    let Storage { started, slots, segments } = storage;
    let parts = UringParts { listener, slots, segments, desk, peers, idle, stop: Arc::clone(stop) };
    let env = UringEnv::new(parts)?;
    let core = Core::new(CoreParts {
        identity: Identity { cluster, node: me, shard: shard_id, incarnation: started.slot.incarnation },
        config: ShardConfig {
            durability: config.durability.into(),
            session_timeout_ns: config.session_timeout_ms * evershard_protocol::time::MILLISECOND_NS,
            prefer_leaders: config.prefer_leaders,
            snapshot_segments: config.snapshot_segments,
            hot_save_size_max: usize::try_from(config.hot_save_kib * 1024).expect("bounded by the configuration"),
        },
        members: if config.join { Vec::new() } else { config.members() },
        configured: config.members().into_iter().collect(),
        timing: config.timing(),
        segment_size: config.segment_size_mib * 1024 * 1024,
        tail_size: usize::try_from(config.tail_size_mib * 1024 * 1024).expect("bounded by the configuration"),
        inflight_size_max: INFLIGHT_SIZE_MAX,
        started,
        instances: Box::new(move || service(shard_id)),
        addresses: addresses(config, shard),
        shards: config.shards,
        now: env.now(),
    });
    let core = core.map_err(|source| NodeError::Restore { shard, source })?;
    Ok(Shard::new(env, core))
}

fn listen(config: &NodeConfig, shard: u16) -> Result<TcpListener, NodeError> {
    let own = config.nodes.iter().find(|node| node.id == config.node).expect("checked with the configuration");
    let address = config.address(own, shard)?;
    socket::listen(address).map_err(|source| NodeError::Listen { shard, address, source })
}

fn addresses(config: &NodeConfig, shard: u16) -> Vec<Option<Arc<str>>> {
    let len = config.nodes.iter().map(|node| usize::from(node.id) + 1).max().unwrap_or(NODES_MAX);
    let mut addresses = vec![None; len];
    for node in &config.nodes {
        addresses[usize::from(node.id)] = Some(Arc::from(config.address_text(node, shard)));
    }
    addresses
}

/// Runs a node until the process is told to stop by SIGTERM or SIGINT, then stops it cleanly.
///
/// # Errors
/// [`NodeError`].
pub fn serve_until_signal<S: Service>(
    config: &NodeConfig,
    service: impl Fn(ShardId) -> S + Send + Sync + 'static,
) -> Result<(), NodeError> {
    use nix::sys::signal::{SigSet, Signal};
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGTERM);
    signals.add(Signal::SIGINT);
    // Blocked before any thread is started, so that all inherit it and only the one below waits for them.
    signals.thread_block().expect("blocking signals fails only for an unknown operation");
    let node = Node::start(config, service)?;
    let stopper = node.stopper();
    let waiting = std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        let _ = signals.wait();
        stopper.stop();
    });
    waiting.map_err(|source| NodeError::Data { path: config.data.clone(), source })?;
    node.wait()
}

/// Has the process's log printed to standard error; `EVERSHARD_LOG` sets the level (default `info`, `evershard_node=debug`
/// and the like).
pub fn log_to_stderr() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("EVERSHARD_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    // Fails only where the program has already chosen another way.
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).try_init();
}

/// An error and its causes as one text, without what is said twice.
#[must_use]
pub fn describe(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}
