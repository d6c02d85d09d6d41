//! The ring of receive buffers that the kernel chooses from (IORING_REGISTER_PBUF_RING, Linux 5.19).

use std::io;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::IoUring;
use io_uring::types::BufRingEntry;

use super::RingConfig;
use crate::buffer::AlignedBuffer;

pub(super) struct ProvidedBuffers {
    /// The shared ring of entries; page-aligned as the kernel wants it.
    entries: AlignedBuffer,
    /// All buffers, one behind the other.
    memory: AlignedBuffer,
    buffer_size: usize,
    len: u16,
    /// Our copy of the tail; published with release order.
    tail: u16,
}

impl ProvidedBuffers {
    pub(super) fn new(ring: &mut IoUring, group: u16, config: &RingConfig) -> io::Result<Self> {
        let len = config.receive_buffers_len;
        assert!(len.is_power_of_two(), "the kernel masks the tail");
        let mut buffers = Self {
            entries: AlignedBuffer::new(usize::from(len) * size_of::<BufRingEntry>()),
            memory: AlignedBuffer::new(usize::from(len) * config.receive_buffer_size),
            buffer_size: config.receive_buffer_size,
            len,
            tail: 0,
        };
        // SAFETY: `entries` is page-aligned, holds `len` entries, and lives until the ring is gone (see Ring::drop).
        unsafe { ring.submitter().register_buf_ring_with_flags(buffers.entries.as_ptr() as u64, len, group, 0)? };
        for id in 0..len {
            buffers.give_back(id);
        }
        buffers.publish();
        Ok(buffers)
    }

    /// The first `size` bytes of a buffer that the kernel has filled and handed to us.
    pub(super) fn filled(&self, id: u16, size: usize) -> &[u8] {
        assert!(id < self.len && size <= self.buffer_size, "the kernel fills what it was given");
        let start = usize::from(id) * self.buffer_size;
        &self.memory[start..start + size]
    }

    /// Queues a buffer for the kernel; it sees it with the next [`ProvidedBuffers::publish`].
    pub(super) fn give_back(&mut self, id: u16) {
        let at = usize::from(self.tail & (self.len - 1));
        let address = &raw const self.memory[usize::from(id) * self.buffer_size];
        let entries = self.entries.as_mut_ptr().cast::<BufRingEntry>();
        // SAFETY: `at` is below `len`, the number of entries in the page-aligned memory; the kernel does not read an
        // entry at or behind the published tail, so it is ours to write. The tail shares memory with a reserved
        // field of entry 0 that the setters do not touch.
        let entry = unsafe { &mut *entries.add(at) };
        entry.set_addr(address as u64);
        entry.set_len(u32::try_from(self.buffer_size).expect("buffers are far below 4 GiB"));
        entry.set_bid(id);
        self.tail = self.tail.wrapping_add(1);
    }

    /// Shows the kernel all buffers given back.
    pub(super) fn publish(&mut self) {
        let entries = self.entries.as_ptr().cast::<BufRingEntry>();
        // SAFETY: `entries` is the base address that was registered.
        let tail = unsafe { BufRingEntry::tail(entries) }.cast_mut().cast::<AtomicU16>();
        // SAFETY: the tail is an aligned u16 in memory we own, shared with the kernel only, which reads it atomically.
        // Release: partner of the kernel's load-acquire of the tail, so that it sees the entries written before.
        unsafe { (*tail).store(self.tail, Ordering::Release) };
    }
}
