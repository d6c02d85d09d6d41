//! Connections: putting frames together from what arrives, and gathering what goes out.
//!
//! A frame that lies whole in an arriving buffer is parsed in place; one that straddles is completed in the link's own
//! buffer. What goes out gathers in one buffer while the other is being sent, so order is kept by one send in
//! flight per link and whatever came together meanwhile goes out in the next.

use evershard_protocol::frame::{self, Frame, FrameError};
use evershard_protocol::limits::{FRAME_SIZE_MAX, LINKS_MAX};
use evershard_protocol::{NodeId, SessionId};

use crate::env::{Env, LinkId};

/// Bytes that may wait to go out to a client. Full: replies wait in their session, events close the link as slow.
pub const CLIENT_OUT_SIZE: usize = 256 * 1024;
/// Bytes that may wait to go out to a peer. Full: the peer gets no further append until some have gone.
pub const PEER_OUT_SIZE: usize = 2 * FRAME_SIZE_MAX;

/// Who is at the other end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// Nobody has said anything yet.
    Unknown,
    /// A client that waits for its session: for the record to be applied, or for the leader to be ready.
    Waiting(evershard_protocol::client::Hello),
    /// A client with its session.
    Client(SessionId),
    /// A replica of this shard.
    Peer(NodeId),
}

/// One connection.
pub struct Link {
    /// Its name.
    pub id: LinkId,
    /// Who is at the other end.
    pub role: Role,
    /// What goes out next. Its capacity is its limit.
    pub out: Vec<u8>,
    /// The other buffer, while it is not being sent.
    spare: Option<Vec<u8>>,
    /// Bytes of a frame that is not complete.
    partial: Vec<u8>,
    /// Close as soon as everything has gone out.
    closing: bool,
    dirty: bool,
}

impl Link {
    fn new(id: LinkId, role: Role, out_size: usize) -> Self {
        Self {
            id,
            role,
            out: Vec::with_capacity(out_size),
            spare: Some(Vec::with_capacity(out_size)),
            partial: Vec::new(),
            closing: false,
            dirty: false,
        }
    }

    /// True once the link is on its way out: what still arrives is ignored.
    #[must_use]
    pub fn is_closing(&self) -> bool {
        self.closing
    }

    /// Bytes that still fit `out`.
    #[must_use]
    pub fn room(&self) -> usize {
        self.out.capacity() - self.out.len()
    }
}

/// All connections of a shard.
#[derive(Default)]
pub struct LinkTable {
    links: Vec<Option<Box<Link>>>,
    /// Links with something to send or to close.
    dirty: Vec<LinkId>,
}

/// A link's partial frame, taken out while frames are handled.
#[derive(Default)]
pub struct Assembly {
    partial: Vec<u8>,
}

impl LinkTable {
    /// An empty table.
    #[must_use]
    pub fn new() -> Self {
        Self { links: Vec::with_capacity(LINKS_MAX), dirty: Vec::with_capacity(LINKS_MAX) }
    }

    /// A connection is there.
    pub fn insert(&mut self, id: LinkId, role: Role) {
        let index = id.index as usize;
        if self.links.len() <= index {
            self.links.resize_with(index + 1, || None);
        }
        let out_size = if matches!(role, Role::Peer(_)) { PEER_OUT_SIZE } else { CLIENT_OUT_SIZE };
        self.links[index] = Some(Box::new(Link::new(id, role, out_size)));
    }

    /// The connection, if it is still there.
    pub fn get(&mut self, id: LinkId) -> Option<&mut Link> {
        self.links.get_mut(id.index as usize)?.as_deref_mut().filter(|link| link.id == id)
    }

    /// The connection for writing to it: it will be looked at by [`LinkTable::flush`].
    pub fn get_dirty(&mut self, id: LinkId) -> Option<&mut Link> {
        let link = self.links.get_mut(id.index as usize)?.as_deref_mut().filter(|link| link.id == id)?;
        if !link.dirty {
            link.dirty = true;
            self.dirty.push(id);
        }
        Some(link)
    }

    /// A peer has introduced itself on a connection that came in: it needs more room than a client.
    pub fn become_peer(&mut self, id: LinkId, node: NodeId) {
        if let Some(link) = self.get(id) {
            link.role = Role::Peer(node);
            for buffer in [Some(&mut link.out), link.spare.as_mut()].into_iter().flatten() {
                let missing = PEER_OUT_SIZE.saturating_sub(buffer.len());
                buffer.reserve_exact(missing);
            }
        }
    }

    /// Everything written so far goes out, then the link is closed.
    pub fn close_after_flush(&mut self, id: LinkId) {
        if let Some(link) = self.get_dirty(id) {
            link.closing = true;
        }
    }

    /// The connection is gone. Returns what it was.
    pub fn remove(&mut self, id: LinkId) -> Option<Role> {
        self.get(id)?;
        self.links[id.index as usize].take().map(|link| link.role)
    }

    /// All connections.
    pub fn iter(&self) -> impl Iterator<Item = &Link> {
        self.links.iter().flatten().map(AsRef::as_ref)
    }

    /// A send has ended; the buffer comes back.
    pub fn on_sent(&mut self, id: LinkId, mut buffer: Vec<u8>) {
        if let Some(link) = self.get_dirty(id) {
            buffer.clear();
            link.spare = Some(buffer);
        }
    }

    /// Starts a send on every link that has something to send and none in flight, and closes what is to be closed.
    pub fn flush(&mut self, env: &mut impl Env) {
        for at in 0..self.dirty.len() {
            let id = self.dirty[at];
            let Some(link) = self.links[id.index as usize].as_deref_mut().filter(|link| link.id == id) else {
                continue;
            };
            link.dirty = false;
            if !link.out.is_empty() {
                if let Some(next) = link.spare.take() {
                    env.send(id, std::mem::replace(&mut link.out, next));
                }
            } else if link.closing && link.spare.is_some() {
                env.close(id);
            }
        }
        self.dirty.clear();
    }

    /// Takes out a link's partial frame, to go through arriving bytes with [`Assembly::next`].
    pub fn assemble(&mut self, id: LinkId) -> Option<Assembly> {
        let link = self.get(id)?;
        Some(Assembly { partial: std::mem::take(&mut link.partial) })
    }

    /// Puts the partial frame back.
    pub fn put_back(&mut self, id: LinkId, assembly: Assembly) {
        if let Some(link) = self.get(id) {
            link.partial = assembly.partial;
        }
    }
}

impl Assembly {
    /// Goes through `bytes` frame by frame; `handle` says whether to go on. The rest is kept for later.
    ///
    /// # Errors
    /// [`FrameError`] of the first frame that cannot be one.
    pub fn run(
        &mut self,
        mut bytes: &[u8],
        mut handle: impl FnMut(&Frame<'_>) -> Result<(), FrameError>,
    ) -> Result<(), FrameError> {
        loop {
            if self.partial.is_empty() {
                let Some((frame, size)) = Frame::take(bytes)? else {
                    self.partial.extend_from_slice(bytes);
                    return Ok(());
                };
                handle(&frame)?;
                bytes = &bytes[size..];
            } else {
                let wanted = frame::peek_size(&self.partial)?.unwrap_or(size_of::<u32>());
                let missing = wanted.saturating_sub(self.partial.len()).min(bytes.len());
                self.partial.extend_from_slice(&bytes[..missing]);
                bytes = &bytes[missing..];
                if let Some((frame, size)) = Frame::take(&self.partial)? {
                    debug_assert_eq!(size, self.partial.len(), "exactly one frame was completed");
                    handle(&frame)?;
                    self.partial.clear();
                }
            }
            if bytes.is_empty() {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use evershard_protocol::client::Ping;

    #[test]
    fn frames_are_found_however_the_stream_is_cut() {
        let mut stream = Vec::with_capacity(4096);
        for token in 0..20_u64 {
            frame::put(&mut stream, &Ping { token: token.into() }, &[7; 13]).expect("there is room");
        }
        for cut in 1..60 {
            let mut assembly = Assembly::default();
            let mut seen = Vec::new();
            for piece in stream.chunks(cut) {
                let outcome = assembly.run(piece, |frame| {
                    seen.push(frame.read::<Ping>()?.0.token.get());
                    Ok(())
                });
                outcome.expect("the stream is well formed");
            }
            assert_eq!(seen, (0..20).collect::<Vec<_>>());
        }
    }
}
