//! How a service's state leaves and enters.

/// Why a snapshot could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The place it is written to or read from failed.
    #[error("the snapshot's storage failed: {0}")]
    Storage(#[from] std::io::Error),
    /// It ends too early.
    #[error("the snapshot ends too early")]
    Truncated,
    /// The content is not what this version of the service reads.
    #[error("the snapshot is not readable by this version of the service: {0}")]
    Format(String),
}

/// Takes a service's state, piece by piece.
pub trait SnapshotWriter {
    /// Takes the next bytes.
    ///
    /// # Errors
    /// [`SnapshotError::Storage`].
    fn write(&mut self, bytes: &[u8]) -> Result<(), SnapshotError>;
}

/// Gives a service's state back, in the order it was written.
pub trait SnapshotReader {
    /// Fills `out`.
    ///
    /// # Errors
    /// [`SnapshotError::Truncated`] if fewer bytes are left, [`SnapshotError::Storage`].
    fn read_exact(&mut self, out: &mut [u8]) -> Result<(), SnapshotError>;
}

impl SnapshotWriter for Vec<u8> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), SnapshotError> {
        self.extend_from_slice(bytes);
        Ok(())
    }
}

impl SnapshotReader for &[u8] {
    fn read_exact(&mut self, out: &mut [u8]) -> Result<(), SnapshotError> {
        let (front, rest) = self.split_at_checked(out.len()).ok_or(SnapshotError::Truncated)?;
        out.copy_from_slice(front);
        *self = rest;
        Ok(())
    }
}
