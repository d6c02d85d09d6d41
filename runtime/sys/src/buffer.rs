//! Page-aligned memory for direct IO.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

/// Alignment of every [`AlignedBuffer`]: a page, which covers the logical block sizes in use.
pub const ALIGNMENT: usize = 4096;

/// A fixed-size, zero-initialised, page-aligned buffer.
pub struct AlignedBuffer {
    /// Invariant: allocated with `layout`, initialised, exclusively ours.
    memory: NonNull<u8>,
    layout: Layout,
}

// SAFETY: the memory is exclusively owned, like a Box<[u8]>.
unsafe impl Send for AlignedBuffer {}
// SAFETY: shared access only reads.
unsafe impl Sync for AlignedBuffer {}

impl AlignedBuffer {
    /// Allocates `size` bytes, rounded up to [`ALIGNMENT`].
    ///
    /// # Panics
    /// If `size` is 0 or absurd: the caller's bug.
    #[must_use]
    pub fn new(size: usize) -> Self {
        assert!(size > 0, "an empty buffer serves nobody");
        let size = size.next_multiple_of(ALIGNMENT);
        let layout = Layout::from_size_align(size, ALIGNMENT).expect("buffer sizes are far below the address space");
        // SAFETY: the layout has a non-zero size (asserted above).
        let memory = unsafe { alloc_zeroed(layout) };
        let Some(memory) = NonNull::new(memory) else { handle_alloc_error(layout) };
        Self { memory, layout }
    }
}

impl Drop for AlignedBuffer {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this very layout, not freed before.
        unsafe { dealloc(self.memory.as_ptr(), self.layout) }
    }
}

impl Deref for AlignedBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `memory` points to `layout.size()` initialised bytes that live as long as `self`.
        unsafe { std::slice::from_raw_parts(self.memory.as_ptr(), self.layout.size()) }
    }
}

impl DerefMut for AlignedBuffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`, and `&mut self` excludes other access.
        unsafe { std::slice::from_raw_parts_mut(self.memory.as_ptr(), self.layout.size()) }
    }
}

impl fmt::Debug for AlignedBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AlignedBuffer({} bytes)", self.layout.size())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_aligned_zeroed_and_rounded_up() {
        let buffer = AlignedBuffer::new(5000);
        assert_eq!(buffer.len(), 8192);
        assert_eq!(buffer.as_ptr() as usize % ALIGNMENT, 0);
        assert!(buffer.iter().all(|byte| *byte == 0));
    }
}
