//! A cluster in this process: one node, any number of shards, the same code and the same client.

use evershard_client::{Client, ClientConfig, ClientError};
use evershard_node::config::{NodeAddress, NodeConfig};
use evershard_node::{Node, NodeError};
use evershard_protocol::ShardId;
use evershard_service::Service;

use crate::free_addresses;

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
        let addresses = free_addresses(shards)?;
        let address = NodeAddress { id: 0, address: addresses.first().cloned().unwrap_or_default() };
        let mut config = NodeConfig::new("embedded", 0, data.path().to_owned(), shards, vec![address]);
        config.segment_size_mib = 16;
        let node = Node::start(&config, service)?;
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
