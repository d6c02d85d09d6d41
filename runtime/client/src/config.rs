//! What the user tells a [`Client`](crate::Client) beforehand.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use evershard_protocol::limits::{PAYLOAD_SIZE_MAX, WINDOW_LEN_MAX};
use evershard_protocol::{ClusterId, ShardId};

use crate::core::SessionConfig;
use crate::error::ClientError;

/// How a [`Client`](crate::Client) reaches its shard. Begin with [`ClientConfig::new`] and change what you need.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// Addresses of this shard on its nodes, `host:port`. Any of them leads to the leader; name all of them, so that
    /// every outage but a total one is survived.
    pub endpoints: Vec<String>,
    /// The shard.
    pub shard: ShardId,
    /// The cluster that is meant (see [`ClusterId::of_name`]); `None` takes any. Guards against a wrong address.
    pub cluster: Option<ClusterId>,
    /// Requests that may be unanswered at a time: 1024.
    pub window_len: usize,
    /// Bytes of unanswered commands: 1 MiB.
    pub queue_size: usize,
    /// [`Client::call`](crate::Client::call) gives up after this: 10 s.
    pub request_timeout: Duration,
    /// [`Client::connect`](crate::Client::connect) gives up after this: 10 s.
    pub connect_timeout: Duration,
    /// One attempt to connect to one address is given up after this: 500 ms.
    pub attempt_max: Duration,
    /// A `Ping` asks whether the server lives after this much silence: 1 s.
    pub ping_after: Duration,
    /// The connection is given up after this much silence while something is awaited: 2 s.
    pub silence_max: Duration,
    /// Another node is asked who leads after this long without a reply while requests are unanswered: 5 s.
    pub stall_max: Duration,
    /// The secret that proves a resumed session is ours; `None` draws one.
    pub token: Option<u64>,
    /// Wait for replies by asking the socket over and over: less latency, one busy core.
    pub spin: bool,
}

impl ClientConfig {
    /// The defaults named at the fields.
    #[must_use]
    pub fn new(endpoints: impl IntoIterator<Item = impl Into<String>>, shard: ShardId) -> Self {
        Self {
            endpoints: endpoints.into_iter().map(Into::into).collect(),
            shard,
            cluster: None,
            window_len: 1024,
            queue_size: 1024 * 1024,
            request_timeout: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(10),
            attempt_max: Duration::from_millis(500),
            ping_after: Duration::from_secs(1),
            silence_max: Duration::from_secs(2),
            stall_max: Duration::from_secs(5),
            token: None,
            spin: false,
        }
    }

    /// The session's part, checked.
    ///
    /// # Errors
    /// [`ClientError::Config`] says which field cannot work.
    pub fn session(&self) -> Result<SessionConfig, ClientError> {
        if self.endpoints.is_empty() {
            return Err(ClientError::Config("`endpoints` is empty; name the shard's address on every node"));
        }
        if self.window_len == 0 || self.window_len as u64 > WINDOW_LEN_MAX {
            return Err(ClientError::Config("`window_len` must be 1 to limits::WINDOW_LEN_MAX (4096)"));
        }
        if self.queue_size < PAYLOAD_SIZE_MAX {
            return Err(ClientError::Config("`queue_size` must hold one command of any size (65536 bytes)"));
        }
        let durations = [self.attempt_max, self.ping_after, self.silence_max, self.stall_max];
        if durations.iter().any(Duration::is_zero) {
            return Err(ClientError::Config("a time limit of zero would give up before it begins"));
        }
        Ok(SessionConfig {
            endpoints: self.endpoints.clone(),
            shard: self.shard,
            cluster: self.cluster.unwrap_or_default(),
            token: self.token.unwrap_or_else(|| RandomState::new().hash_one(std::process::id())),
            window_len: self.window_len,
            queue_size: self.queue_size,
            attempt_max_ns: nanoseconds(self.attempt_max),
            ping_after_ns: nanoseconds(self.ping_after),
            silence_max_ns: nanoseconds(self.silence_max),
            stall_max_ns: nanoseconds(self.stall_max),
        })
    }
}

/// Saturates after 584 years.
pub(crate) fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
