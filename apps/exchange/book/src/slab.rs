//! Items at stable small integers, with reuse of free places.

/// Grows by doubling up to what its user allows; never shrinks.
#[derive(Debug, Clone)]
pub(crate) struct Slab<T> {
    items: Vec<T>,
    /// Invariant: its capacity is at least that of `items` as filled so far, so that [`Slab::release`] never allocates.
    free: Vec<u32>,
}

impl<T> Slab<T> {
    pub(crate) fn with_capacity(len: usize) -> Self {
        Self { items: Vec::with_capacity(len), free: Vec::with_capacity(len) }
    }

    /// Takes a place; the most recently released one first, as it is warm in the cache.
    pub(crate) fn insert(&mut self, item: T) -> u32 {
        if let Some(at) = self.free.pop() {
            self.items[at as usize] = item;
            return at;
        }
        let at = u32::try_from(self.items.len()).expect("the limits of a book are 32 bits wide");
        self.items.push(item);
        self.free.reserve(self.items.len());
        at
    }

    /// Gives a place back. What is there is stale from now on.
    pub(crate) fn release(&mut self, at: u32) {
        self.free.push(at);
    }

    pub(crate) fn get(&self, at: u32) -> &T {
        &self.items[at as usize]
    }

    pub(crate) fn get_mut(&mut self, at: u32) -> &mut T {
        &mut self.items[at as usize]
    }

    pub(crate) fn len(&self) -> usize {
        self.items.len() - self.free.len()
    }

    /// Bytes allocated.
    pub(crate) fn memory_size(&self) -> usize {
        self.items.capacity() * size_of::<T>() + self.free.capacity() * size_of::<u32>()
    }
}
