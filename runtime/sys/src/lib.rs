//! Linux, as far as Evershard needs it. The only crate with `unsafe` beside the service ABI.
//!
//! * [`ring`]: one io_uring per shard: typed operations, buffers moved in and given back with the completion.
//! * [`buffer`]: page-aligned memory for direct IO.
//! * [`file`]: files of the log, direct where the file system allows it; directories locked against a second process.
//! * [`socket`]: TCP sockets and addresses.
//! * [`cores`]: which cores there are, and pinning to one.
//! * [`clock`]: the two clocks.
//! * [`probe`]: whether this kernel can run a shard at all, and if not, what to do.
//!
//! # JUSTIFICATION of unsafe
//!
//! Submitting to a ring hands raw pointers to the kernel. [`ring::Ring`] makes that safe by ownership: a buffer is
//! moved into the operation, rests in the ring's own table while the kernel may touch it, and leaves with the
//! completion. What is still in flight when a ring is dropped is leaked, not freed.

pub mod buffer;
pub mod clock;
pub mod cores;
pub mod file;
pub mod probe;
pub mod ring;
pub mod socket;
