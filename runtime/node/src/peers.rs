//! The links to the other replicas of the shard: making them, introductions, and what comes in over them. What goes out is in
//! `peers/feed.rs`.

use evershard_consensus::Taken;
use evershard_protocol::frame::{Frame, FrameError};
use evershard_protocol::limits::NODES_MAX;
use evershard_protocol::peer::{
    self, Append, Heard, Hello, PROTOCOL_MAX, PROTOCOL_MIN, PeerFrame, PeerMessage, RefusedCode,
};
use evershard_protocol::record::Record;
use evershard_protocol::time::MILLISECOND_NS;
use evershard_protocol::{Incarnation, Instant, NodeId, NodeSet, Position};
use evershard_service::Service;

use crate::core::Core;
use crate::env::{Chunk, Env, LinkId};
use crate::links::Role;
use crate::notice::Notice;

mod feed;

/// A peer that could not be reached is tried again after this long, doubling ...
const DIAL_NS_MIN: u64 = 10 * MILLISECOND_NS;
/// ... up to this.
const DIAL_NS_MAX: u64 = 200 * MILLISECOND_NS;

/// How far the acquaintance has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Contact {
    Down,
    Dialing(LinkId),
    Greeting(LinkId),
    Up(LinkId),
}

/// One other replica.
struct Peer {
    id: NodeId,
    contact: Contact,
    dial_at: Instant,
    dial_ns: u64,
    /// Log content read back for a peer that is behind what is in memory.
    feed: Option<Chunk>,
    /// The question to the background that is under way.
    asked: Option<u64>,
    /// Reads in a row that failed.
    faults: u8,
    /// How far it has applied, as it last said.
    applied: Position,
    /// Its life, as it last said; 0 before it has said anything.
    incarnation: Incarnation,
}

impl Peer {
    fn new(id: NodeId) -> Self {
        Self {
            id,
            contact: Contact::Down,
            dial_at: Instant(0),
            dial_ns: DIAL_NS_MIN,
            feed: None,
            asked: None,
            faults: 0,
            applied: Position::ZERO,
            incarnation: Incarnation(0),
        }
    }
}

/// All other replicas.
pub struct PeerTable {
    peers: Vec<Peer>,
    /// Of whom they are made: the configuration in force and this node's own file.
    known: NodeSet,
    tickets: u64,
    /// When the leader is told next how far this replica has applied.
    tell_applied_at: Instant,
}

impl PeerTable {
    /// Nobody is known yet.
    #[must_use]
    pub fn new(me: NodeId, members: NodeSet) -> Self {
        let peers = members.iter().filter(|id| *id != me).map(Peer::new);
        Self { peers: peers.collect(), known: members, tickets: 0, tell_applied_at: Instant(0) }
    }

    /// The link to a peer that is known and connected.
    #[must_use]
    pub fn link(&self, id: NodeId) -> Option<LinkId> {
        match self.peers.iter().find(|peer| peer.id == id)?.contact {
            Contact::Up(link) => Some(link),
            _ => None,
        }
    }

    /// Those that are connected.
    pub fn connected(&self) -> impl Iterator<Item = (NodeId, LinkId)> + '_ {
        self.peers.iter().filter_map(|peer| match peer.contact {
            Contact::Up(link) => Some((peer.id, link)),
            _ => None,
        })
    }

    /// Names the next question to the background.
    pub fn next_ticket(&mut self) -> u64 {
        self.tickets += 1;
        self.tickets
    }

    /// How far a peer has applied, as it last said.
    #[must_use]
    pub fn applied(&self, id: NodeId) -> Position {
        self.peers.iter().find(|peer| peer.id == id).map_or(Position::ZERO, |peer| peer.applied)
    }

    /// When the next peer is dialled; the greater id dials.
    #[must_use]
    pub fn next_deadline(&self, me: NodeId) -> Option<Instant> {
        let down = self.peers.iter().filter(|peer| peer.id < me && peer.contact == Contact::Down);
        down.map(|peer| peer.dial_at).min()
    }

    /// Whether answers from the background are awaited.
    #[must_use]
    pub fn awaits_background(&self) -> bool {
        self.peers.iter().any(|peer| peer.asked.is_some())
    }

    /// Of whom the peers are made.
    #[must_use]
    pub fn known(&self) -> NodeSet {
        self.known
    }

    /// The peers are these from now on; gives back the links of those that are none any more.
    pub fn renew(&mut self, me: NodeId, known: NodeSet) -> [Option<LinkId>; NODES_MAX] {
        let mut gone = [None; NODES_MAX];
        self.known = known;
        let mut dismissed = gone.iter_mut();
        self.peers.retain(|peer| {
            if let (false, Contact::Dialing(link) | Contact::Greeting(link) | Contact::Up(link)) =
                (known.contains(peer.id), peer.contact)
                && let Some(place) = dismissed.next()
            {
                *place = Some(link);
            }
            known.contains(peer.id)
        });
        for id in known.iter().filter(|id| *id != me) {
            if self.peers.iter().all(|peer| peer.id != id) {
                self.peers.push(Peer::new(id));
            }
        }
        gone
    }

    fn find(&mut self, id: NodeId) -> Option<&mut Peer> {
        self.peers.iter_mut().find(|peer| peer.id == id)
    }
}

impl<S: Service> Core<S> {
    /// Dials the peers that this replica has to dial.
    pub(crate) fn dial(&mut self, env: &mut impl Env) {
        for peer in &mut self.peers.peers {
            if peer.id > self.identity.node || peer.contact != Contact::Down || self.now.instant < peer.dial_at {
                continue;
            }
            peer.dial_at = self.now.instant.after(peer.dial_ns);
            peer.dial_ns = (peer.dial_ns * 2).min(DIAL_NS_MAX);
            let address = self.addresses.get(usize::from(peer.id.0)).and_then(Option::as_deref);
            if let Some(link) = env.connect(peer.id, address) {
                self.links.insert(link, Role::Peer(peer.id));
                peer.contact = Contact::Dialing(link);
            }
        }
    }

    pub(crate) fn on_connected(&mut self, id: LinkId) {
        let Some(Role::Peer(node)) = self.links.get(id).map(|link| link.role) else { return };
        let hello = self.hello_to(node);
        if let Some(link) = self.links.get_dirty(id) {
            peer::put_hello(&mut link.out, &hello).expect("a new link has room");
        }
        if let Some(peer) = self.peers.find(node) {
            peer.contact = Contact::Greeting(id);
        }
    }

    pub(crate) fn on_peer_closed(&mut self, node: NodeId, id: LinkId) {
        let now = self.now.instant;
        let Some(peer) = self.peers.find(node) else { return };
        let was = peer.contact;
        if !matches!(was, Contact::Dialing(link) | Contact::Greeting(link) | Contact::Up(link) if link == id) {
            return;
        }
        peer.contact = Contact::Down;
        peer.dial_at = now.after(peer.dial_ns);
        if matches!(was, Contact::Up(_)) {
            peer.feed = None;
            self.raft.on_link_down(node, now, &mut self.output);
            self.notice(Notice::PeerDown(node));
        }
    }

    pub(crate) fn on_peer_frame(&mut self, id: LinkId, frame: &Frame<'_>) -> Result<(), FrameError> {
        match peer::read(frame)? {
            PeerFrame::Hello(hello) => {
                self.on_peer_hello(id, &hello);
                Ok(())
            }
            PeerFrame::Refused(code, _) => {
                if let Some(Role::Peer(node)) = self.links.get(id).map(|link| link.role) {
                    self.notice(Notice::PeerRefused(node, code));
                    if let Some(peer) = self.peers.find(node) {
                        peer.dial_ns = DIAL_NS_MAX;
                    }
                }
                self.links.close_after_flush(id);
                Ok(())
            }
            PeerFrame::Applied(applied) => {
                if let Some(Role::Peer(node)) = self.links.get(id).map(|link| link.role)
                    && let Some(peer) = self.peers.find(node)
                {
                    peer.applied = applied;
                }
                Ok(())
            }
            PeerFrame::RepairRequest(request) => {
                if let Some(node) = self.peer_on(id) {
                    self.on_repair_request(node, &request);
                }
                Ok(())
            }
            PeerFrame::RepairReply(reply, data) => {
                if let Some(node) = self.peer_on(id) {
                    self.on_repair_reply(node, &reply, data);
                }
                Ok(())
            }
            PeerFrame::SnapshotRequest(request) => {
                if let Some(node) = self.peer_on(id) {
                    self.on_snapshot_request(node, &request);
                }
                Ok(())
            }
            PeerFrame::SnapshotChunk(chunk, data) => {
                if let Some(node) = self.peer_on(id) {
                    self.on_snapshot_chunk(node, &chunk, data);
                }
                Ok(())
            }
            PeerFrame::SnapshotReply(reply) => {
                if let Some(node) = self.peer_on(id) {
                    self.on_snapshot_reply(node, &reply);
                }
                Ok(())
            }
            PeerFrame::Message(message, data) => {
                let Some(Role::Peer(node)) = self.links.get(id).map(|link| link.role) else {
                    return Err(FrameError::Field("message before hello"));
                };
                if self.peers.link(node) != Some(id) {
                    return Ok(());
                }
                self.note_appended();
                match message {
                    PeerMessage::Append(append) => self.on_append(node, &append, data),
                    _ => {
                        self.raft.on_message(node, &message, self.now.instant, &mut self.output);
                        Ok(())
                    }
                }
            }
        }
    }

    fn on_peer_hello(&mut self, id: LinkId, hello: &Hello) {
        if let Err((code, reason)) = self.check_hello(hello) {
            self.notice(Notice::Stranger(hello.from, code as u16));
            if let Some(link) = self.links.get_dirty(id) {
                // A link too full to take the reason is closed all the same.
                let _ = peer::put_refused(&mut link.out, code, reason);
            }
            self.links.close_after_flush(id);
            return;
        }
        let node = hello.from;
        // What makes it a member may have come in with this very turn.
        self.renew_peers();
        self.hear_of_earlier_life(hello);
        let dialled = self.links.get(id).is_some_and(|link| link.role == Role::Peer(node));
        if !dialled {
            let answer = self.hello_to(node);
            self.links.become_peer(id, node);
            if let Some(link) = self.links.get_dirty(id) {
                peer::put_hello(&mut link.out, &answer).expect("a new link has room");
            }
        }
        let Some(peer) = self.peers.find(node) else { return };
        let before = std::mem::replace(&mut peer.contact, Contact::Up(id));
        peer.dial_ns = DIAL_NS_MIN;
        peer.feed = None;
        peer.applied = Position::ZERO;
        peer.incarnation = hello.incarnation;
        match before {
            Contact::Up(old) if old != id => {
                // The peer has come back before its old connection was found broken.
                self.links.close_after_flush(old);
                self.raft.on_link_down(node, self.now.instant, &mut self.output);
            }
            Contact::Dialing(old) | Contact::Greeting(old) if old != id => self.links.close_after_flush(old),
            _ => {}
        }
        self.raft.on_link_up(node, self.now.instant, &mut self.output);
        self.notice(Notice::PeerUp(node));
    }

    fn check_hello(&self, hello: &Hello) -> Result<(), (RefusedCode, &'static str)> {
        if hello.protocol_max < PROTOCOL_MIN || hello.protocol_min > PROTOCOL_MAX {
            return Err((RefusedCode::Protocol, "no common version of the peer protocol: upgrade the older node"));
        }
        if hello.cluster != self.identity.cluster {
            return Err((RefusedCode::Cluster, "this is another cluster: compare `cluster` in both configurations"));
        }
        if hello.shard != self.identity.shard {
            return Err((
                RefusedCode::Shard,
                "this port serves another shard: compare the nodes' addresses and `shards`",
            ));
        }
        let known = self.raft.members().union(self.configured).contains(hello.from) && hello.from != self.identity.node;
        if !known || hello.to != self.identity.node {
            return Err((
                RefusedCode::Node,
                "not a member of this shard, or the wrong node was dialled: compare `[[nodes]]`, and add a node that joins \
                 with `evershard member add`",
            ));
        }
        Ok(())
    }

    /// The peer tells what it remembers of this replica.
    fn hear_of_earlier_life(&mut self, hello: &Hello) {
        let (heard, own) = (hello.heard, self.identity.incarnation);
        // What was said in this life is known here.
        if heard.incarnation == own || heard.incarnation == Incarnation(0) {
            return;
        }
        // A later life than this one has been: the disk is an older image, whatever it holds.
        let later = heard.incarnation > own;
        if self.raft.on_floor(heard.term, heard.durable, later) {
            self.notice(Notice::PutBack(hello.from, heard.term, heard.durable));
        }
    }

    fn hello_to(&self, to: NodeId) -> Hello {
        let incarnation =
            self.peers.peers.iter().find(|peer| peer.id == to).map_or(Incarnation(0), |peer| peer.incarnation);
        let (heard_term, heard_durable) = self.raft.floor_of(to);
        Hello {
            protocol_min: PROTOCOL_MIN,
            protocol_max: PROTOCOL_MAX,
            shard: self.identity.shard,
            from: self.identity.node,
            to,
            cluster: self.identity.cluster,
            incarnation: self.identity.incarnation,
            term: self.raft.term(),
            heard: Heard { incarnation, term: heard_term, durable: heard_durable },
        }
    }

    /// A follower takes over log data.
    fn on_append(&mut self, from: NodeId, append: &Append, data: &[u8]) -> Result<(), FrameError> {
        let taken = self.raft.on_append(from, append, self.now.instant, &mut self.output);
        let Taken::Data { skip, truncate_to } = taken else { return Ok(()) };
        if let Some(to) = truncate_to {
            assert!(to >= self.replica.applied, "what was applied was committed and is never truncated");
            self.tail.truncate(to);
            self.disk.writer.truncate(to);
            self.raft.on_durable(self.disk.durable());
        }
        let skip = usize::try_from(skip).expect("within the data");
        let outcome = self.take_records(append, &data[skip..]);
        if self.tail.end() > append.previous.advance(skip as u64) {
            self.raft.on_appended(append.data_term, self.tail.end());
        }
        outcome
    }

    fn take_records(&mut self, append: &Append, mut data: &[u8]) -> Result<(), FrameError> {
        while !data.is_empty() {
            let start = self.tail.end();
            let record = Record::parse(start, data).map_err(|_| FrameError::Checksum)?;
            if record.header.term != append.data_term {
                return Err(FrameError::Field("data_term"));
            }
            let floor = self.floor_for(record.bytes.len());
            if !self.tail.has_room(record.bytes.len(), floor) {
                // The leader finds out by the next append that does not match, and sends again.
                return Ok(());
            }
            if !self.adopt_membership(&record) {
                return Err(FrameError::Field("membership"));
            }
            self.tail.append_record(record.bytes, floor).expect("there is room");
            self.log_time = self.log_time.max(record.header.timestamp);
            data = &data[record.bytes.len()..];
        }
        Ok(())
    }

    /// The peer whose link this is, if it has not come back on another one since.
    fn peer_on(&mut self, id: LinkId) -> Option<NodeId> {
        match self.links.get(id)?.role {
            Role::Peer(node) if self.peers.link(node) == Some(id) => Some(node),
            _ => None,
        }
    }
}
