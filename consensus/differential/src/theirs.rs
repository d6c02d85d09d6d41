//! A cluster of the crate `raft`, with pre-vote, without its check for a quorum, and with writes that may take long.

use std::collections::VecDeque;

use raft::eraftpb::{
    ConfChangeSingle, ConfChangeTransition, ConfChangeType, ConfChangeV2, ConfState, Entry, EntryType, HardState,
    Message,
};
use raft::storage::MemStorage;
use raft::{Config, GetEntriesContext, RawNode, StateRole, Storage};
use slog::{Discard, Logger, o};

use crate::cluster::{Change, Cluster, HEARTBEATS_LEN, NODES_LEN, Node, Record, VOTERS_LEN, View};

/// What a disk that is stuck was asked for, and what waits for it.
struct Write {
    number: u64,
    entries: Vec<Entry>,
    hard: Option<HardState>,
    messages: Vec<Message>,
}

struct Replica {
    raw: Option<RawNode<MemStorage>>,
    /// What it can read, and what of it is on disk: it wants to read what is only asked to be written.
    store: MemStorage,
    disk: MemStorage,
    stuck: bool,
    writes: Vec<Write>,
}

/// See [`Cluster`].
pub struct Theirs {
    replicas: Vec<Replica>,
    letters: VecDeque<Message>,
    groups: Vec<usize>,
}

impl Theirs {
    pub fn new() -> Self {
        let mut theirs = Self { replicas: vec![], letters: VecDeque::new(), groups: vec![0; NODES_LEN] };
        for _ in 0..NODES_LEN {
            let (store, disk) = (new_store(), new_store());
            theirs.replicas.push(Replica { raw: None, store, disk, stuck: false, writes: vec![] });
        }
        (0..NODES_LEN).for_each(|node| theirs.restart(node));
        theirs
    }

    /// Does what a node wants done, until it wants no more.
    fn finish(&mut self, node: Node) {
        let Replica { raw, store, disk, stuck, writes } = &mut self.replicas[node];
        let Some(raw) = raw else { return };
        if !*stuck {
            for write in writes.drain(..) {
                persist(disk, &write.entries, write.hard);
                raw.on_persist_ready(write.number);
                self.letters.extend(write.messages);
            }
        }
        while raw.has_ready() {
            let mut ready = raw.ready();
            self.letters.extend(ready.take_messages());
            apply(raw, &ready.take_committed_entries());
            let (entries, hard, messages) =
                (ready.take_entries(), ready.hs().cloned(), ready.take_persisted_messages());
            store.wl().append(&entries).expect("entries follow each other");
            if *stuck {
                writes.push(Write { number: ready.number(), entries, hard, messages });
                raw.advance_append_async(ready);
            } else {
                persist(disk, &entries, hard);
                self.letters.extend(messages);
                let mut light = raw.advance_append(ready);
                if let Some(commit) = light.commit_index() {
                    disk.wl().mut_hard_state().commit = commit;
                }
                self.letters.extend(light.take_messages());
                apply(raw, &light.take_committed_entries());
            }
            raw.advance_apply();
        }
    }

    fn deliver_all(&mut self) {
        while let Some(message) = self.letters.pop_front() {
            let (from, to) = (node_of(message.from), node_of(message.to));
            if self.groups[from] != self.groups[to] {
                continue;
            }
            let Some(raw) = &mut self.replicas[to].raw else { continue };
            // It says no to messages of nodes it does not know, which is an answer like any other.
            let _refused = raw.step(message);
            self.finish(to);
        }
    }

    fn raw(&mut self, node: Node) -> &mut RawNode<MemStorage> {
        self.replicas[node].raw.as_mut().expect("it runs")
    }
}

impl Cluster for Theirs {
    fn campaign(&mut self, node: Node) {
        self.raw(node).campaign().expect("a voter may campaign");
        self.finish(node);
    }

    fn propose(&mut self, node: Node, command: u64) -> bool {
        let Some(raw) = self.replicas[node].raw.as_mut().filter(|raw| raw.raft.state == StateRole::Leader) else {
            return false;
        };
        let taken = raw.propose(vec![], command.to_le_bytes().to_vec()).is_ok();
        self.finish(node);
        taken
    }

    fn transfer(&mut self, leader: Node, to: Node) {
        self.raw(leader).transfer_leader(id(to));
        self.finish(leader);
    }

    fn change(&mut self, leader: Node, change: Change) -> bool {
        use ConfChangeType::{AddLearnerNode, AddNode, RemoveNode};
        let steps = match change {
            Change::Learn(node) => vec![(AddLearnerNode, node)],
            Change::Promote(node) => vec![(AddNode, node)],
            Change::Remove(node) => vec![(RemoveNode, node)],
            Change::Replace(old, new) => vec![(RemoveNode, old), (AddNode, new)],
        };
        let raw = self.raw(leader);
        // As ours: jointly where the voters change, and in one step otherwise.
        let voters = raw.raft.prs().conf().to_conf_state().voters;
        let joint = steps.iter().any(|(kind, node)| voters.contains(&id(*node)) || *kind == AddNode);
        let mut wanted = ConfChangeV2::default();
        wanted.set_transition(if joint { ConfChangeTransition::Implicit } else { ConfChangeTransition::Auto });
        for (kind, node) in steps {
            let mut step = ConfChangeSingle::default();
            step.set_change_type(kind);
            step.node_id = id(node);
            wanted.mut_changes().push(step);
        }
        let before = raw.raft.raft_log.last_index();
        let proposed = raw.propose_conf_change(vec![], wanted).is_ok();
        // A change that it ignores it appends as an empty entry.
        let last = raw.raft.raft_log.last_index();
        let taken = proposed && last > before && has_type(raw, last, EntryType::EntryConfChangeV2);
        self.finish(leader);
        taken
    }

    fn crash(&mut self, node: Node) {
        let replica = &mut self.replicas[node];
        replica.raw = None;
        replica.stuck = false;
        replica.writes.clear();
        replica.store = new_store();
        let (disk, hard) = (&replica.disk, replica.disk.rl().hard_state().clone());
        let last = disk.last_index().expect("it is in memory");
        let entries = if last == 0 { Ok(vec![]) } else { disk.entries(1, last + 1, None, context()) };
        persist(&replica.store, &entries.expect("all is there"), Some(hard));
        self.letters.retain(|message| message.from != id(node) && message.to != id(node));
    }

    fn restart(&mut self, node: Node) {
        let config = Config {
            id: id(node),
            election_tick: 1_000_000,
            heartbeat_tick: 1,
            pre_vote: true,
            check_quorum: false,
            max_size_per_msg: u64::MAX,
            max_inflight_msgs: 1024,
            ..Config::default()
        };
        let replica = &mut self.replicas[node];
        let raw = RawNode::new(&config, replica.store.clone(), &Logger::root(Discard, o!())).expect("a valid state");
        replica.raw = Some(raw);
        self.finish(node);
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
            for node in 0..NODES_LEN {
                // Followers are not ticked: they campaign when they are told.
                if let Some(raw) = &mut self.replicas[node].raw
                    && raw.raft.state == StateRole::Leader
                {
                    raw.tick();
                }
                self.finish(node);
            }
            self.deliver_all();
        }
    }

    fn view(&self, node: Node) -> Option<View> {
        let raw = self.replicas[node].raw.as_ref()?;
        let entries = raw.raft.raft_log.all_entries();
        let conf = raw.raft.prs().conf().to_conf_state();
        let sorted = |ids: &[u64]| {
            let mut nodes: Vec<Node> = ids.iter().map(|id| node_of(*id)).collect();
            nodes.sort_unstable();
            nodes
        };
        Some(View {
            leads: raw.raft.state == StateRole::Leader,
            term: raw.raft.term,
            log: entries.iter().map(record_of).collect(),
            terms: entries.iter().map(|entry| entry.term).collect(),
            committed_len: usize::try_from(raw.raft.raft_log.committed).expect("short"),
            voters: sorted(&conf.voters),
            learners: sorted(&conf.learners),
            joint: !conf.voters_outgoing.is_empty(),
        })
    }
}

/// Those that join begin with the first configuration as well: their log does not carry whole ones.
fn new_store() -> MemStorage {
    let voters: Vec<u64> = (0..VOTERS_LEN).map(id).collect();
    MemStorage::new_with_conf_state(ConfState::from((voters, vec![])))
}

fn context() -> GetEntriesContext {
    GetEntriesContext::empty(false)
}

fn persist(store: &MemStorage, entries: &[Entry], hard: Option<HardState>) {
    store.wl().append(entries).expect("entries follow each other");
    if let Some(hard) = hard {
        store.wl().set_hardstate(hard);
    }
}

fn apply(raw: &mut RawNode<MemStorage>, entries: &[Entry]) {
    for entry in entries.iter().filter(|entry| entry.get_entry_type() == EntryType::EntryConfChangeV2) {
        let mut change = ConfChangeV2::default();
        protobuf::Message::merge_from_bytes(&mut change, &entry.data).expect("we have written it");
        raw.apply_conf_change(&change).expect("a change that a leader took");
    }
}

fn has_type(raw: &RawNode<MemStorage>, index: u64, wanted: EntryType) -> bool {
    raw.raft.raft_log.all_entries().iter().any(|entry| entry.index == index && entry.get_entry_type() == wanted)
}

fn record_of(entry: &Entry) -> Record {
    match entry.get_entry_type() {
        EntryType::EntryNormal if entry.data.is_empty() => Record::Start,
        EntryType::EntryNormal => {
            let bytes: [u8; 8] = entry.data[..].try_into().expect("a command is a number");
            Record::Command(u64::from_le_bytes(bytes))
        }
        EntryType::EntryConfChange | EntryType::EntryConfChangeV2 => Record::Change,
    }
}

fn id(node: Node) -> u64 {
    node as u64 + 1
}

fn node_of(id: u64) -> Node {
    usize::try_from(id - 1).expect("few nodes")
}
