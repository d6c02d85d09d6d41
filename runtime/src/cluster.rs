//! A cluster in this process: one node, any number of shards, the same code and the same client.

use std::net::TcpListener;

use evershard_client::{Client, ClientConfig, ClientError};
use evershard_node::config::{NodeAddress, NodeConfig};
use evershard_node::{Node, NodeError};
use evershard_protocol::ShardId;
use evershard_service::Service;

/// Attempts to find neighbouring free ports.
const PORT_ATTEMPTS: usize = 100;

/// An embedded cluster could not be started.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// See [`NodeError`].
    #[error(transparent)]
    Node(#[from] NodeError),
    /// No temporary directory or no free port.
    #[error("cannot prepare an embedded cluster: {0}")]
    Io(#[from] std::io::Error),
}

/// One node in this process with its data in a temporary directory, gone when dropped.
pub struct Cluster {
    /// Declared before the directory: the node ends before its files go.
    _node: Node,
    addresses: Vec<String>,
    _data: tempfile::TempDir,
}

impl Cluster {
    /// Starts a node with `shards` shards; `service` makes each one's service.
    ///
    /// # Errors
    /// [`ClusterError`].
    pub fn embedded<S: Service>(
        shards: u16,
        service: impl Fn(ShardId) -> S + Send + Sync + 'static,
    ) -> Result<Self, ClusterError> {
        let data = tempfile::tempdir()?;
        let port = free_ports(shards)?;
        let address = NodeAddress { id: 0, address: format!("127.0.0.1:{port}") };
        let mut config = NodeConfig::new("embedded", 0, data.path().to_owned(), shards, vec![address]);
        config.segment_size_mib = 16;
        let node = Node::start(&config, service)?;
        let addresses = (0..shards).map(|shard| format!("127.0.0.1:{}", port + shard)).collect();
        Ok(Self { _node: node, addresses, _data: data })
    }

    /// Where a shard listens.
    ///
    /// # Panics
    /// If there is no such shard.
    #[must_use]
    pub fn address(&self, shard: u16) -> &str {
        &self.addresses[usize::from(shard)]
    }

    /// Connects a client to a shard.
    ///
    /// # Errors
    /// [`ClientError`].
    ///
    /// # Panics
    /// If there is no such shard.
    pub fn client(&self, shard: u16) -> Result<Client, ClientError> {
        Client::connect(&ClientConfig::new([self.address(shard)], ShardId(shard)))
    }
}

/// The first of `count` neighbouring ports that are free on loopback just now.
///
/// # Errors
/// When none are found.
pub fn free_ports(count: u16) -> std::io::Result<u16> {
    let mut last = None;
    for _ in 0..PORT_ATTEMPTS {
        let probe = TcpListener::bind("127.0.0.1:0")?;
        let first = probe.local_addr()?.port();
        drop(probe);
        let Some(end) = first.checked_add(count) else { continue };
        // Below the range from which the kernel takes ports for outgoing connections there is less traffic, but it
        // may be taken by others: only trying tells.
        let held: Result<Vec<_>, _> = (first..end).map(|port| TcpListener::bind(("127.0.0.1", port))).collect();
        match held {
            Ok(_) => return Ok(first),
            Err(error) => last = Some(error),
        }
    }
    Err(last.unwrap_or_else(|| std::io::ErrorKind::AddrInUse.into()))
}
