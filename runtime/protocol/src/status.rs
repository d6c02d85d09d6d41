//! The state of one replica, as told to operators.
//!
//! Status is for people and their tools and off the hot path; it goes as JSON so that a tool of one release reads a
//! node of another. The node writes it and the client reads it; the fields are described where they are filled
//! (`evershard-node`, `status.rs`).

/// Bytes of one status answer at most. More: the answer is cut and says so.
pub const STATUS_SIZE_MAX: usize = 16 * 1024;
