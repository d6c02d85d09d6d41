//! A cluster of `evershard-consensus`, driven as its page demands.

use std::collections::VecDeque;

use evershard_consensus::{Config, Durability, HardState, Output, Raft, Restored, Role, Taken, TermTable, Timing};
use evershard_protocol::peer::{Append, PeerMessage};
use evershard_protocol::{Instant, Membership, MembershipChange, NodeId, NodeSet, Position, Term};

use crate::cluster::{Change, Cluster, HEARTBEATS_LEN, NODES_LEN, Node, Record, VOTERS_LEN, View};

#[derive(Clone, Copy, PartialEq, Eq)]
struct Entry {
    term: Term,
    end: Position,
    record: Record,
    membership: Option<Membership>,
}

enum Letter {
    Message(PeerMessage),
    Append(Append, Vec<Entry>),
}

struct Replica {
    raft: Option<Raft>,
    log: Vec<Entry>,
    disk: Vec<Entry>,
    hard: HardState,
    stuck: bool,
    out: Output,
}

/// See [`Cluster`].
pub struct Ours {
    replicas: Vec<Replica>,
    letters: VecDeque<(Node, Node, Letter)>,
    groups: Vec<usize>,
    now: Instant,
    /// An election that was forced: nobody says anything about logs before it is over, or the old leader would be heard
    /// again and the others be loyal to it.
    voting: bool,
}

impl Ours {
    pub fn new() -> Self {
        let (replicas, letters, groups) = (vec![], VecDeque::new(), vec![0; NODES_LEN]);
        let mut ours = Self { replicas, letters, groups, now: Instant(1), voting: false };
        for _ in 0..NODES_LEN {
            let (log, disk) = (vec![], vec![]);
            ours.replicas.push(Replica {
                raft: None,
                log,
                disk,
                hard: HardState::NEW,
                stuck: false,
                out: Output::new(),
            });
        }
        (0..NODES_LEN).for_each(|node| ours.restart(node));
        ours
    }

    /// The end of a duty cycle of one replica.
    fn finish(&mut self, node: Node) {
        let now = self.now;
        let replica = &mut self.replicas[node];
        let Some(raft) = &mut replica.raft else { return };
        if raft.wants_term_start() {
            append(raft, &mut replica.log, Record::Start, None);
        } else if let Some(next) = raft.wants_membership() {
            append(raft, &mut replica.log, Record::Change, Some(next));
        }
        if !replica.stuck {
            if let Some(hard) = raft.hard_state_to_save() {
                replica.hard = hard;
                raft.on_hard_state_saved(hard, &mut replica.out);
            }
            if replica.disk != replica.log || raft.durable() < raft.last() {
                replica.disk.clone_from(&replica.log);
                raft.on_durable(raft.last());
            }
        }
        for (to, message) in replica.out.messages.drain(..) {
            self.letters.push_back((node, usize::from(to.0), Letter::Message(message)));
        }
        if self.voting {
            return;
        }
        for peer in raft.peers().collect::<Vec<_>>() {
            while let Some(append) = raft.plan_append(peer, now, 1 << 20) {
                let end = append.previous.advance(append.size);
                let within = |entry: &&Entry| entry.end > append.previous && entry.end <= end;
                let data = replica.log.iter().filter(within).copied().collect();
                raft.on_append_sent(peer, &append, now);
                self.letters.push_back((node, usize::from(peer.0), Letter::Append(append, data)));
            }
        }
        while let Some((to, reply)) = raft.take_reply(now) {
            self.letters.push_back((node, usize::from(to.0), Letter::Message(PeerMessage::AppendReply(reply))));
        }
    }

    fn deliver_all(&mut self) {
        while let Some((from, to, letter)) = self.letters.pop_front() {
            let replica = &mut self.replicas[to];
            let Some(raft) = replica.raft.as_mut().filter(|_| self.groups[from] == self.groups[to]) else { continue };
            receive(raft, &mut replica.log, &mut replica.out, (id(from), letter), self.now);
            self.finish(to);
        }
    }

    /// A leader that was removed hands over in its tick. No other leader is ticked: without a quorum it would step
    /// down, and theirs does not.
    fn retire(&mut self) {
        for node in 0..NODES_LEN {
            let replica = &mut self.replicas[node];
            if let Some(raft) = replica.raft.as_mut()
                && raft.role() == Role::Leader
                && !raft.is_voter()
            {
                raft.tick(self.now, &mut replica.out);
            }
            self.finish(node);
        }
    }
}

impl Cluster for Ours {
    fn campaign(&mut self, node: Node) {
        self.now = self.now.after(LONG_NS);
        let replica = &mut self.replicas[node];
        let raft = replica.raft.as_mut().expect("it runs");
        if raft.role() != Role::Leader {
            raft.tick(self.now, &mut replica.out);
        }
        self.voting = true;
        self.finish(node);
        self.deliver_all();
        self.voting = false;
        (0..NODES_LEN).for_each(|node| self.finish(node));
    }

    fn propose(&mut self, node: Node, command: u64) -> bool {
        let replica = &mut self.replicas[node];
        let Some(raft) = replica.raft.as_mut().filter(|raft| raft.admits()) else { return false };
        append(raft, &mut replica.log, Record::Command(command), None);
        self.finish(node);
        true
    }

    fn transfer(&mut self, leader: Node, to: Node) {
        let replica = &mut self.replicas[leader];
        let raft = replica.raft.as_mut().expect("it runs");
        raft.transfer(id(to), self.now, &mut replica.out).expect("the schedule asks for what is possible");
        self.finish(leader);
    }

    fn change(&mut self, leader: Node, change: Change) -> bool {
        let mut wanted = MembershipChange::default();
        match change {
            Change::Learn(node) => wanted.learn = NodeSet::of(id(node)),
            Change::Promote(node) => wanted.promote = NodeSet::of(id(node)),
            Change::Remove(node) => wanted.remove = NodeSet::of(id(node)),
            Change::Replace(old, new) => {
                wanted.promote = NodeSet::of(id(new));
                wanted.remove = NodeSet::of(id(old));
            }
        }
        let replica = &mut self.replicas[leader];
        let raft = replica.raft.as_mut().expect("it runs");
        let Ok(next) = raft.plan_membership(&wanted) else { return false };
        append(raft, &mut replica.log, Record::Change, Some(next));
        self.finish(leader);
        true
    }

    fn crash(&mut self, node: Node) {
        let replica = &mut self.replicas[node];
        replica.raft = None;
        replica.stuck = false;
        replica.log.clone_from(&replica.disk);
        self.letters.retain(|(from, to, _)| *from != node && *to != node);
    }

    fn restart(&mut self, node: Node) {
        let replica = &mut self.replicas[node];
        let mut terms = TermTable::new();
        replica.log.iter().for_each(|entry| terms.append(entry.term, entry.end));
        let members = if node < VOTERS_LEN { (0..VOTERS_LEN).map(id).collect() } else { vec![] };
        let config = Config {
            id: id(node),
            members,
            durability: Durability::Durable,
            timing: Timing { stall_ns: 1 << 60, ..Timing::default() },
            seed: 1,
            inflight_size_max: 1 << 20,
        };
        let memberships = replica.log.iter().filter_map(|entry| Some((entry.end, entry.membership?))).collect();
        let durable = terms.last();
        let restored = Restored { hard: replica.hard, terms, memberships, durable, commit: Position::ZERO };
        replica.raft = Some(Raft::new(config, restored, self.now));
        for peer in (0..NODES_LEN).filter(|peer| *peer != node) {
            for (here, there) in [(node, peer), (peer, node)] {
                let replica = &mut self.replicas[here];
                let Some(raft) = replica.raft.as_mut() else { continue };
                raft.on_link_up(id(there), self.now, &mut replica.out);
                // A campaign that came to nothing would go on with a new link, which theirs does not: these are lost.
                replica.out.messages.clear();
            }
        }
    }

    fn stick(&mut self, node: Node, stuck: bool) {
        self.replicas[node].stuck = stuck;
        self.finish(node);
    }

    fn part(&mut self, groups: &[usize]) {
        self.groups = groups.to_vec();
    }

    fn settle(&mut self) {
        self.deliver_all();
        for _ in 0..HEARTBEATS_LEN {
            self.now = self.now.after(Timing::default().heartbeat_ns);
            (0..NODES_LEN).for_each(|node| self.finish(node));
            self.deliver_all();
            self.retire();
            self.deliver_all();
        }
    }

    fn view(&self, node: Node) -> Option<View> {
        let replica = &self.replicas[node];
        let raft = replica.raft.as_ref()?;
        let nodes = |set: NodeSet| set.iter().map(|node| usize::from(node.0)).collect();
        Some(View {
            leads: raft.role() == Role::Leader,
            term: raft.term().0,
            log: replica.log.iter().map(|entry| entry.record).collect(),
            terms: replica.log.iter().map(|entry| entry.term.0).collect(),
            committed_len: replica.log.partition_point(|entry| entry.end <= raft.commit()),
            voters: nodes(raft.membership().voters),
            learners: nodes(raft.membership().learners),
            joint: raft.membership().is_joint(),
        })
    }
}

fn append(raft: &mut Raft, log: &mut Vec<Entry>, record: Record, membership: Option<Membership>) {
    let (term, end) = (raft.term(), raft.last().advance(RECORD_SIZE));
    log.push(Entry { term, end, record, membership });
    if let Some(membership) = membership {
        raft.on_membership(end, membership);
    }
    raft.on_appended(term, end);
}

fn receive(raft: &mut Raft, log: &mut Vec<Entry>, out: &mut Output, (from, letter): (NodeId, Letter), now: Instant) {
    let (append, data) = match letter {
        Letter::Message(message) => return raft.on_message(from, &message, now, out),
        Letter::Append(append, data) => (append, data),
    };
    let Taken::Data { skip, truncate_to } = raft.on_append(from, &append, now, out) else { return };
    if let Some(to) = truncate_to {
        log.retain(|entry| entry.end <= to);
    }
    if skip == append.size {
        return;
    }
    let begin = append.previous.advance(skip);
    for entry in data.iter().filter(|entry| entry.end > begin) {
        if let Some(membership) = entry.membership {
            raft.on_membership(entry.end, membership);
        }
        log.push(*entry);
    }
    raft.on_appended(append.data_term, append.previous.advance(append.size));
}

fn id(node: Node) -> NodeId {
    NodeId(u8::try_from(node).expect("few nodes"))
}

const RECORD_SIZE: u64 = 64;
/// Longer than any timer.
const LONG_NS: u64 = 1_000_000_000;
