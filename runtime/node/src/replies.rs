//! The replies of one session that its client may still ask for again.
//!
//! Part of the replicated state: what is remembered and what is forgotten follows from the records alone.

use std::collections::VecDeque;

use evershard_protocol::client::ReplyStatus;
use evershard_protocol::limits::{REPLY_RING_SIZE, WINDOW_LEN_MAX};
use evershard_protocol::{Position, RequestNumber};

const WINDOW_LEN: usize = WINDOW_LEN_MAX as usize;

#[derive(Clone, Copy, Debug)]
struct Entry {
    request: RequestNumber,
    position: Position,
    status: ReplyStatus,
    start: usize,
    size: usize,
}

/// A remembered reply.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reply<'a> {
    /// The request it answers.
    pub request: RequestNumber,
    /// Position of the request's record.
    pub position: Position,
    /// How it ended.
    pub status: ReplyStatus,
    /// What the service replied.
    pub payload: &'a [u8],
}

/// Replies by request number, without gaps; the oldest are forgotten when a bound is reached.
pub struct ReplyRing {
    entries: VecDeque<Entry>,
    /// Invariant: the entries' ranges do not overlap; they lie in ring order from `entries.front().start`.
    bytes: Vec<u8>,
    /// Where the next reply goes.
    head: usize,
}

impl Default for ReplyRing {
    fn default() -> Self {
        // Zeroed memory of this size comes from the kernel untouched: it costs nothing before it is used.
        Self { entries: VecDeque::with_capacity(WINDOW_LEN), bytes: vec![0; REPLY_RING_SIZE], head: 0 }
    }
}

impl ReplyRing {
    /// Remembers the reply to the request after the last one.
    ///
    /// # Panics
    /// If request numbers are not consecutive, or the reply is larger than the ring: the caller's bug.
    pub fn push(&mut self, request: RequestNumber, position: Position, status: ReplyStatus, payload: &[u8]) {
        if let Some(last) = self.entries.back() {
            assert_eq!(request, last.request.next(), "requests of a session are applied in order, each once");
        }
        if self.entries.len() == WINDOW_LEN {
            self.entries.pop_front();
        }
        let start = self.make_room(payload.len());
        self.bytes[start..start + payload.len()].copy_from_slice(payload);
        self.head = start + payload.len();
        self.entries.push_back(Entry { request, position, status, start, size: payload.len() });
    }

    /// Forgets the oldest replies until `size` contiguous bytes are free; says where.
    fn make_room(&mut self, size: usize) -> usize {
        assert!(size <= self.bytes.len(), "a reply is smaller than the ring");
        loop {
            let Some(oldest) = self.entries.front() else {
                self.head = 0;
                return 0;
            };
            let tail = oldest.start;
            let wrapped =
                self.head <= tail && self.entries.back().is_some_and(|last| last.start < tail || self.head < tail);
            if wrapped {
                if self.head + size < tail {
                    return self.head;
                }
            } else if self.head + size <= self.bytes.len() {
                return self.head;
            } else if size < tail {
                return 0;
            }
            self.entries.pop_front();
        }
    }

    /// The client has the answers to all requests below `first_unanswered`.
    pub fn release(&mut self, first_unanswered: RequestNumber) {
        while self.entries.front().is_some_and(|entry| entry.request < first_unanswered) {
            self.entries.pop_front();
        }
    }

    /// The reply to `request`, if it is remembered.
    #[must_use]
    pub fn get(&self, request: RequestNumber) -> Option<Reply<'_>> {
        let first = self.entries.front()?.request;
        let at = usize::try_from(request.0.checked_sub(first.0)?).ok()?;
        let entry = self.entries.get(at)?;
        debug_assert_eq!(entry.request, request, "entries are consecutive");
        Some(Reply {
            request,
            position: entry.position,
            status: entry.status,
            payload: &self.bytes[entry.start..entry.start + entry.size],
        })
    }

    /// All that is remembered, oldest first, each with its place in the ring.
    pub(crate) fn placed(&self) -> impl ExactSizeIterator<Item = (Reply<'_>, usize)> {
        self.entries.iter().map(|entry| {
            let payload = &self.bytes[entry.start..entry.start + entry.size];
            let Entry { request, position, status, start, .. } = *entry;
            (Reply { request, position, status, payload }, start)
        })
    }

    /// Where the next reply goes.
    pub(crate) fn head(&self) -> usize {
        self.head
    }

    /// The ring whose next reply goes to `head`, without replies yet; `None` if there is no such place.
    pub(crate) fn restored(head: usize) -> Option<Self> {
        (head <= REPLY_RING_SIZE).then(|| Self { head, ..Self::default() })
    }

    /// Puts a reply behind the others, at its place; `None` if it does not fit there or does not follow them.
    pub(crate) fn put_back(&mut self, reply: &Reply<'_>, start: usize) -> Option<()> {
        let size = reply.payload.len();
        let follows = self.entries.back().is_none_or(|last| reply.request == last.request.next());
        if !follows || self.entries.len() == WINDOW_LEN {
            return None;
        }
        self.bytes.get_mut(start..start.checked_add(size)?)?.copy_from_slice(reply.payload);
        let Reply { request, position, status, .. } = *reply;
        self.entries.push_back(Entry { request, position, status, start, size });
        Some(())
    }

    /// Bytes that cannot be used for new replies without forgetting one.
    #[must_use]
    pub fn used(&self) -> usize {
        self.entries.front().map_or(0, |oldest| self.span_from(oldest))
    }

    /// Bytes that will still be used once the client's word is applied that it has the answers to all requests below
    /// `first_unanswered`.
    #[must_use]
    pub fn used_from(&self, first_unanswered: RequestNumber) -> usize {
        let Some(oldest) = self.entries.front() else { return 0 };
        let at = usize::try_from(first_unanswered.0.saturating_sub(oldest.request.0)).unwrap_or(usize::MAX);
        self.entries.get(at).map_or(0, |entry| self.span_from(entry))
    }

    fn span_from(&self, entry: &Entry) -> usize {
        match entry.start.cmp(&self.head) {
            std::cmp::Ordering::Less => self.head - entry.start,
            // Nothing but empty replies lies between, or the whole ring.
            std::cmp::Ordering::Equal if self.entries.iter().all(|entry| entry.size == 0) => 0,
            _ => self.bytes.len() - (entry.start - self.head),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn check(ring: &ReplyRing, model: &BTreeMap<u64, Vec<u8>>) {
        for (request, payload) in model {
            if let Some(reply) = ring.get(RequestNumber(*request)) {
                assert_eq!(reply.payload, &payload[..], "request {request}");
                assert_eq!(reply.position, Position(request * 64));
            }
        }
        let last = *model.keys().last().expect("something was pushed");
        assert!(ring.get(RequestNumber(last)).is_some(), "the latest reply is always remembered");
        assert!(ring.get(RequestNumber(last + 1)).is_none());
    }

    proptest! {
        #[test]
        fn what_is_remembered_is_right(sizes in proptest::collection::vec((0_usize..65_536, 0_u64..200), 1..300)) {
            let mut ring = ReplyRing::default();
            let mut model = BTreeMap::new();
            for (at, (size, lag)) in sizes.into_iter().enumerate() {
                let request = at as u64 + 1;
                let payload = vec![u8::try_from(request % 251).expect("small"); size];
                ring.push(RequestNumber(request), Position(request * 64), ReplyStatus::Applied, &payload);
                model.insert(request, payload);
                let released = request.saturating_sub(lag);
                ring.release(RequestNumber(released));
                prop_assert!(ring.get(RequestNumber(released.saturating_sub(1))).is_none() || lag > request);
                prop_assert!(ring.used() <= REPLY_RING_SIZE);
                prop_assert!(ring.used_from(RequestNumber(request + 1)) == 0, "all answered: nothing is in the way");
                check(&ring, &model);
            }
        }
    }

    #[test]
    fn within_the_window_nothing_small_is_forgotten() {
        let mut ring = ReplyRing::default();
        for request in 1..=WINDOW_LEN_MAX {
            ring.push(RequestNumber(request), Position(request * 64), ReplyStatus::Applied, &[1; 200]);
        }
        assert!(ring.get(RequestNumber(1)).is_some());
        ring.push(RequestNumber(WINDOW_LEN_MAX + 1), Position(0), ReplyStatus::Applied, &[]);
        assert!(ring.get(RequestNumber(1)).is_none(), "the window is the bound");
    }
}
