//! State digests: cheap, and the same on every replica and in every release.

use std::fmt;

use xxhash_rust::xxh3::Xxh3;

/// A digest of a service's state: xxh3, 64 bits. It detects divergence, it does not authenticate.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Digest(pub u64);

impl Digest {
    /// The digest of one range of bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(xxhash_rust::xxh3::xxh3_64(bytes))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Builds a [`Digest`] piece by piece.
#[derive(Default)]
pub struct Digester(Xxh3);

impl Digester {
    /// Nothing added yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds bytes. Lengths of variable parts are the caller's to add.
    pub fn add(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Adds one integer.
    pub fn add_u64(&mut self, value: u64) {
        self.0.update(&value.to_le_bytes());
    }

    /// The digest of everything added so far.
    #[must_use]
    pub fn finish(&self) -> Digest {
        Digest(self.0.digest())
    }
}
