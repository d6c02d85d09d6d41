//! The requests not yet answered, payloads included, in two rings that never grow.
//!
//! A request stays here from the moment the caller hands it over until its reply is delivered, so that it can be sent
//! again on the next connection. Payloads lie end to end in one ring of bytes; one that crosses the ring's end is
//! handed out in two parts.

use evershard_protocol::RequestNumber;

use super::SendError;

/// Where one request's payload lies.
#[derive(Clone, Copy, Default)]
struct Entry {
    /// Counted from the beginning of the session or since the queue was last empty; the ring position is its remainder.
    start: u64,
    size: u32,
}

/// The unanswered requests, oldest first.
pub(super) struct Queue {
    entries: Box<[Entry]>,
    bytes: Box<[u8]>,
    /// Invariant: `tail - head` bytes are in use, at most `bytes.len()`.
    head: u64,
    tail: u64,
    /// The oldest unanswered request. Invariant: `first <= next`.
    first: RequestNumber,
    /// The number the next request gets.
    next: RequestNumber,
    len_max: u64,
}

impl Queue {
    /// Room for `len_max` requests with `size` bytes of payload together (rounded up to a power of two).
    pub(super) fn new(len_max: usize, size: usize) -> Self {
        assert!(len_max > 0, "a window of no requests sends nothing");
        assert!(size > 0, "a queue of no bytes sends nothing");
        Self {
            entries: vec![Entry::default(); len_max.next_power_of_two()].into_boxed_slice(),
            bytes: vec![0; size.next_power_of_two()].into_boxed_slice(),
            head: 0,
            tail: 0,
            first: RequestNumber(1),
            next: RequestNumber(1),
            len_max: len_max as u64,
        }
    }

    /// The oldest unanswered request, or the next one to come if there is none.
    pub(super) fn first(&self) -> RequestNumber {
        self.first
    }

    /// The number the next request will get.
    pub(super) fn next(&self) -> RequestNumber {
        self.next
    }

    /// Unanswered requests.
    pub(super) fn len(&self) -> usize {
        usize::try_from(self.next.0 - self.first.0).expect("bounded by len_max, which is a usize")
    }

    /// Takes in one request; the payload is copied.
    pub(super) fn push(&mut self, payload: &[u8]) -> Result<RequestNumber, SendError> {
        if self.next.0 - self.first.0 >= self.len_max {
            return Err(SendError::WindowFull);
        }
        if self.tail - self.head + payload.len() as u64 > self.bytes.len() as u64 {
            return Err(SendError::QueueFull);
        }
        let size = u32::try_from(payload.len()).map_err(|_| SendError::QueueFull)?;
        let (index, ahead) = self.locate(self.tail, payload.len());
        let (front, back) = payload.split_at(ahead);
        self.bytes[index..index + ahead].copy_from_slice(front);
        self.bytes[..back.len()].copy_from_slice(back);
        let slot = self.slot(self.next);
        self.entries[slot] = Entry { start: self.tail, size };
        self.tail += u64::from(size);
        let request = self.next;
        self.next = request.next();
        Ok(request)
    }

    /// The payload of an unanswered request, in two parts.
    pub(super) fn payload(&self, request: RequestNumber) -> [&[u8]; 2] {
        assert!(self.first <= request, "answered requests are no longer held");
        assert!(request < self.next, "only requests that were taken in are held");
        let entry = self.entries[self.slot(request)];
        let size = entry.size as usize;
        let (index, ahead) = self.locate(entry.start, size);
        [&self.bytes[index..index + ahead], &self.bytes[..size - ahead]]
    }

    /// Forgets the oldest request: it was answered.
    pub(super) fn pop(&mut self) {
        assert!(self.first < self.next, "only an unanswered request can be answered");
        let entry = self.entries[self.slot(self.first)];
        self.head = entry.start + u64::from(entry.size);
        self.first = self.first.next();
        if self.first == self.next {
            // Begin at the front again: one request at a time then stays in the same few cache lines.
            (self.head, self.tail) = (0, 0);
        }
    }

    /// Both lengths are powers of two, so the remainder is a mask and always fits.
    fn slot(&self, request: RequestNumber) -> usize {
        usize::try_from(request.0 & (self.entries.len() as u64 - 1)).expect("masked below a usize")
    }

    /// Index of `offset` in the ring, and how many of `size` bytes lie before the ring's end.
    fn locate(&self, offset: u64, size: usize) -> (usize, usize) {
        let index = usize::try_from(offset & (self.bytes.len() as u64 - 1)).expect("masked below a usize");
        (index, size.min(self.bytes.len() - index))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn behaves_as_a_bounded_deque(steps in prop::collection::vec(prop::option::of(0_usize..40), 1..400)) {
            let mut queue = Queue::new(5, 64);
            let mut model: VecDeque<Vec<u8>> = VecDeque::new();
            let mut first = 1_u64;
            for (index, step) in steps.into_iter().enumerate() {
                let Some(size) = step else {
                    if model.pop_front().is_some() {
                        queue.pop();
                        first += 1;
                    }
                    continue;
                };
                let payload: Vec<u8> = (0..size).map(|at| (index * 31 + at) as u8).collect();
                let used: usize = model.iter().map(Vec::len).sum();
                let expected = if model.len() == 5 {
                    Err(SendError::WindowFull)
                } else if used + size > 64 {
                    Err(SendError::QueueFull)
                } else {
                    model.push_back(payload.clone());
                    Ok(RequestNumber(first + model.len() as u64 - 1))
                };
                prop_assert_eq!(queue.push(&payload), expected);
                prop_assert_eq!(queue.len(), model.len());
                for (at, held) in model.iter().enumerate() {
                    prop_assert_eq!(&queue.payload(RequestNumber(first + at as u64)).concat(), held);
                }
            }
        }
    }
}
