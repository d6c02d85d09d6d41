//! The bound of every queue, buffer and table, and what happens when it is reached.

use crate::record::HEADER_SIZE;

/// Voters, and learners, of one shard. More: the configuration or the change is refused.
pub const NODES_MAX: usize = 7;
/// The greatest id a node may have. Ids are not given to another node again.
pub const NODE_ID_MAX: u8 = 62;
/// Shards of one node. More: the configuration is refused.
pub const SHARDS_MAX: usize = 64;
/// Bytes of one command. More: the frame is refused with `PayloadTooLarge` and the session goes on.
pub const PAYLOAD_SIZE_MAX: usize = 64 * 1024;
/// Bytes of one reply or event. More: the service's call returns an error and it replies with less.
pub const REPLY_SIZE_MAX: usize = 64 * 1024;
/// Bytes of one record in the log, padding included.
pub const RECORD_SIZE_MAX: usize = HEADER_SIZE + PAYLOAD_SIZE_MAX;
/// Bytes of log that one append frame carries. More is sent in further frames.
pub const APPEND_SIZE_MAX: usize = 256 * 1024;
/// Bytes of one frame, header included. More: the connection is closed as hostile.
pub const FRAME_SIZE_MAX: usize = APPEND_SIZE_MAX + 4 * 1024;
/// Sessions of one shard. More: `SessionsFull`, the client is told to come again.
pub const SESSIONS_MAX: usize = 1024;
/// Requests a session may have unanswered. More: `Busy`, the client sends again later.
pub const WINDOW_LEN_MAX: u64 = 4096;
/// Bytes of remembered replies per session. Beyond, the oldest are forgotten: a repeated request is then answered
/// with `ReplyForgotten`, never executed again.
pub const REPLY_RING_SIZE: usize = 4 * 1024 * 1024;
/// Bytes of one snapshot that a replica takes over from another. More: refused, and the replica stays behind until its
/// operator helps.
pub const SNAPSHOT_SIZE_MAX: u64 = 16 * 1024 * 1024 * 1024;
/// Bytes of a snapshot that one frame carries.
pub const SNAPSHOT_CHUNK_SIZE: usize = 128 * 1024;
/// Questions (reads without a record) of one shard that wait to be answered. More: the client is told `Busy`.
pub const QUERIES_LEN_MAX: usize = 1024;
/// Bytes of such questions. More: as above.
pub const QUERIES_SIZE_MAX: usize = 256 * 1024;
/// Connections of one shard, clients and peers. More: the connection is closed at once.
pub const LINKS_MAX: usize = 1024;
/// Timers of one service instance. More: the service's call returns an error.
pub const TIMERS_MAX: usize = 64 * 1024;
/// Runs of the table (term, first position). The oldest run is dropped when full; a replica that far behind needs
/// a snapshot.
pub const TERM_RUNS_MAX: usize = 16 * 1024;
/// Events of one applied record. More: the service's call returns an error.
pub const EVENTS_PER_RECORD_MAX: usize = 4096;
/// Bytes of all events of one applied record. More: the service's call returns an error.
pub const EVENT_BYTES_PER_RECORD_MAX: usize = 1024 * 1024;

const _: () = assert!(PAYLOAD_SIZE_MAX <= QUERIES_SIZE_MAX, "one question of any size can wait");
const _: () = assert!(SNAPSHOT_CHUNK_SIZE <= APPEND_SIZE_MAX, "a link that has room for an append has room for it");
const _: () = assert!(RECORD_SIZE_MAX <= APPEND_SIZE_MAX, "one record always fits one append frame");
const _: () = assert!(REPLY_SIZE_MAX + 64 <= REPLY_RING_SIZE, "the latest reply can always be remembered");
const _: () =
    assert!(PAYLOAD_SIZE_MAX.is_multiple_of(8) && HEADER_SIZE.is_multiple_of(8), "records are padded to eight bytes");
