//! Plays the scripts: one command a line, on the stage of [`crate::stage`].
//!
//! | command | meaning |
//! |---|---|
//! | `nodes N [voters=1,2] [learners=3] [index=10] [inflight=3] [lease=120]` | that many nodes come, with the next numbers; `voters=none` for nodes that must join |
//! | `log ID 1x3,4x2` | before anything else: this node's log holds these terms behind the snapshot |
//! | `campaign ID`, `never-campaigns ID` | time passes at the node until its election timer runs out; or it does not |
//! | `heartbeat IDS`, `rest IDS`, `patience IDS` | time passes: a heartbeat, as long as loyalty lasts, the longest election timeout |
//! | `propose ID [N]`, `change ID +3 l4 -1`, `transfer A B` | what clients and operators ask for |
//! | `refuse REASON COMMAND` | the command is refused, and why |
//! | `process IDS` | one duty cycle |
//! | `deliver A->B [N]`, `drop A->B`, `stabilize [IDS]` | letters arrive or are lost; `*` is everybody |
//! | `silence A->B`, `isolate ID`, `hear-again` | letters of the future |
//! | `hold saves\|writes IDS`, `release saves\|writes IDS`, `complete save\|write IDS` | a slow disk |
//! | `trim ID INDEX`, `report A B arrived\|lost` | snapshots |
//! | `unlink A B`, `link A B`, `crash ID`, `restart ID` | links and processes |
//! | `read ID NAME`, `confirmed ID NAME yes\|no\|never` | reads |
//! | `expect ID WORDS`, `see A B WORDS`, `letters A->B WORDS` | checks: each word must be among those of the state |

use std::collections::BTreeMap;

use evershard_consensus::{Read, Role};
use evershard_protocol::peer::PeerMessage;
use evershard_protocol::{MembershipChange, NodeId, Position};

use crate::stage::{Letter, MS, Plot, RECORD_SIZE, Stage, at};

/// What a script has done.
#[derive(Default)]
pub struct Played {
    pub commands: usize,
    pub checks: usize,
}

/// Plays a script; panics with its name and line where it does not go as written.
pub fn play(name: &str, text: &str) -> Played {
    let mut player = Player { stage: Stage::default(), plot: Plot::default(), reads: BTreeMap::new() };
    let mut played = Played::default();
    for (number, line) in text.lines().enumerate() {
        let words: Vec<&str> = line.split_whitespace().take_while(|word| !word.starts_with('#')).collect();
        let Some((verb, rest)) = words.split_first() else { continue };
        let done = player.run(verb, rest);
        if let Err(text) = done {
            panic!("{name}:{}: {line}\n  {text}", number + 1);
        }
        played.commands += 1;
        played.checks += usize::from(CHECKS.contains(verb));
    }
    played
}

const CHECKS: &[&str] = &["expect", "see", "letters", "refuse", "confirmed", "never-campaigns"];

struct Player {
    stage: Stage,
    plot: Plot,
    reads: BTreeMap<String, Read>,
}

/// What went wrong.
type Outcome = Result<(), String>;

impl Player {
    fn run(&mut self, verb: &str, words: &[&str]) -> Outcome {
        match (verb, words) {
            ("nodes", [len, options @ ..]) => self.nodes(number(len), options),
            ("log", [node, runs]) => self.stage.enter(id(node), &self.plot, &terms(runs)),
            ("campaign", [node]) => return or(self.stage.campaign(id(node)), "it does not campaign"),
            ("never-campaigns", [node]) => return or(!self.stage.campaign(id(node)), "it campaigns"),
            ("heartbeat", nodes) => self.each(nodes, Stage::heartbeat),
            ("rest", nodes) => self.each(nodes, Stage::rest),
            ("patience", nodes) => self.each(nodes, Stage::patience),
            ("propose", [node, times @ ..]) => {
                for _ in 0..times.first().map_or(1, |times| number(times)) {
                    self.stage.propose(id(node));
                }
            }
            ("change", [node, operations @ ..]) => {
                let changed = self.stage.change(id(node), &change(operations));
                return changed.map(|_| ()).map_err(|error| error.to_string());
            }
            ("transfer", [from, to]) => {
                return self.stage.transfer(id(from), id(to)).map_err(|error| error.to_string());
            }
            ("refuse", [reason, command @ ..]) => return self.refuse(reason, command),
            ("process", nodes) => self.each(nodes, |stage, node| {
                stage.process(node);
            }),
            ("stabilize", []) => self.stage.stabilize_all(),
            ("stabilize", nodes) => self.stage.stabilize(&ids(nodes)),
            ("deliver", [link, times]) => {
                for _ in 0..number(times) {
                    let arrived = self.links(link).into_iter().any(|(from, to)| self.stage.deliver(from, to));
                    or(arrived, "nothing is under way")?;
                }
            }
            ("deliver", [link]) => {
                let links = self.links(link);
                let arrived: usize = links.into_iter().map(|(from, to)| self.stage.deliver_all(from, to)).sum();
                return or(arrived > 0, "nothing is under way");
            }
            ("drop", [link]) => self.links(link).into_iter().for_each(|(from, to)| self.stage.lose(from, to)),
            ("silence", [link]) => self.links(link).into_iter().for_each(|(from, to)| self.stage.silence(from, to)),
            ("isolate", nodes) => self.each(nodes, Stage::isolate),
            ("hear-again", []) => self.stage.hear_again(),
            ("hold" | "release" | "complete", [what, nodes @ ..]) => return self.disk(verb, what, nodes),
            ("trim", [node, index]) => self.stage.actor(id(node)).trim(at(number(index))),
            ("report", [node, peer, word]) => {
                let peer = NodeId(id(peer));
                self.stage.actor(id(node)).raft_mut().0.on_snapshot_ended(peer, *word == "arrived");
            }
            ("unlink", [a, b]) => self.stage.unlink(id(a), id(b)),
            ("link", [a, b]) => self.stage.link(id(a), id(b)),
            ("crash", nodes) => self.each(nodes, Stage::crash),
            ("restart", nodes) => self.each(nodes, Stage::restart),
            ("read", [node, name]) => {
                let (raft, _, now) = self.stage.actor(id(node)).raft_mut();
                let read = raft.begin_read(now).ok_or("it serves no reads")?;
                self.reads.insert((*name).to_owned(), read);
            }
            ("confirmed", [node, name, word]) => return self.confirmed(id(node), name, word),
            ("expect", [node, words @ ..]) => return has(&self.state(id(node)), words),
            ("see", [node, peer, words @ ..]) => return has(&self.view(id(node), id(peer))?, words),
            ("letters", [link, words @ ..]) => return self.letters(link, words),
            _ => return Err("no such command".to_owned()),
        }
        Ok(())
    }

    fn nodes(&mut self, len: u64, options: &[&str]) {
        let first = self.stage.ids().len() as u64 + 1;
        let list = |value: &str| -> Vec<u8> { value.split(',').filter(|id| *id != "none").map(id).collect() };
        for option in options {
            let (key, value) = option.split_once('=').expect("key=value");
            match key {
                "voters" => self.plot.voters = list(value),
                "learners" => self.plot.learners = list(value),
                "index" => self.plot.index = number(value),
                "inflight" => self.plot.inflight_size_max = number(value) * RECORD_SIZE,
                "lease" => self.plot.timing.lease_ns = number(value) * MS,
                other => panic!("no such option: {other}"),
            }
        }
        for node in first..first + len {
            self.stage.enter(u8::try_from(node).expect("few nodes"), &self.plot, &[]);
        }
    }

    fn each(&mut self, nodes: &[&str], mut run: impl FnMut(&mut Stage, u8)) {
        assert!(!nodes.is_empty(), "which nodes?");
        ids(nodes).into_iter().for_each(|node| run(&mut self.stage, node));
    }

    /// The links that `A->B` names.
    fn links(&self, link: &str) -> Vec<(u8, u8)> {
        let (from, to) = link.split_once("->").expect("A->B");
        let named = |name: &str| if name == "*" { self.stage.ids() } else { vec![id(name)] };
        named(from).into_iter().flat_map(|from| named(to).into_iter().map(move |to| (from, to))).collect()
    }

    fn refuse(&mut self, reason: &str, command: &[&str]) -> Outcome {
        let told = match command {
            ["change", node, operations @ ..] => {
                self.stage.change(id(node), &change(operations)).err().map(|error| format!("{error:?}"))
            }
            ["transfer", from, to] => self.stage.transfer(id(from), id(to)).err().map(|error| format!("{error:?}")),
            ["propose", node] => (!self.stage.raft(id(node)).admits()).then(|| "NotAdmitted".to_owned()),
            ["read", node] => {
                let (raft, _, now) = self.stage.actor(id(node)).raft_mut();
                raft.begin_read(now).is_none().then(|| "NoReads".to_owned())
            }
            _ => return Err("no such command".to_owned()),
        };
        match told {
            None => Err("it was not refused".to_owned()),
            Some(told) => or(told.contains(reason), &format!("it was refused with {told}")),
        }
    }

    fn disk(&mut self, verb: &str, what: &str, nodes: &[&str]) -> Outcome {
        for node in ids(nodes) {
            let actor = self.stage.actor(node);
            match (verb, what) {
                ("hold", "saves") => actor.saves_held = true,
                ("hold", "writes") => actor.writes_held = true,
                ("release", "saves") => actor.saves_held = false,
                ("release", "writes") => actor.writes_held = false,
                ("complete", "save") => or(actor.complete_save(), "nothing is being saved")?,
                ("complete", "write") => or(actor.complete_write(), "nothing is being written")?,
                _ => return Err("no such disk".to_owned()),
            }
        }
        Ok(())
    }

    fn confirmed(&self, node: u8, name: &str, word: &str) -> Outcome {
        let (raft, read) = (self.stage.raft(node), self.reads.get(name).ok_or("no such read")?);
        let state = match (raft.is_confirmed(read), raft.is_pending(read)) {
            (true, _) => "yes",
            (false, true) => "no",
            (false, false) => "never",
        };
        or(state == word, state)
    }

    /// The letters under way, in order.
    fn letters(&self, link: &str, words: &[&str]) -> Outcome {
        let links = self.links(link);
        let letters = links.iter().flat_map(|(from, to)| self.stage.letters(*from, *to));
        let mut told: Vec<String> = letters.map(|letter| describe(&letter)).collect();
        if told.is_empty() {
            told.push("none".to_owned());
        }
        or(told == words, &format!("under way: {}", told.join(" ")))
    }

    /// Everything about a replica, as words.
    fn state(&self, node: u8) -> Vec<String> {
        let raft = self.stage.raft(node);
        let role = match raft.role() {
            Role::Follower => "follower",
            Role::PreCandidate => "pre-candidate",
            Role::Candidate => "candidate",
            Role::Leader => "leader",
        };
        let leader = raft.leader().map_or("none".to_owned(), |leader| leader.0.to_string());
        let kept = self.stage.actors[&node].log.iter().map(|record| record.term.0);
        let on_disk = self.stage.actors[&node].disk.iter().map(|record| record.term.0);
        let configuration = raft.membership().to_string().replace(") ", ")|").replace(' ', ",");
        let mut words = vec![
            role.to_owned(),
            if raft.is_voter() { "voter" } else { "non-voter" }.to_owned(),
            format!("term={}", raft.term().0),
            format!("lead={leader}"),
            format!("first={}", raft.terms().base().0 / RECORD_SIZE + 1),
            format!("last={}", self.stage.last(node)),
            format!("log={}", runs(kept)),
            format!("commit={}", self.stage.commit(node)),
            format!("durable={}", raft.durable().0 / RECORD_SIZE),
            format!("disk={}", runs(on_disk)),
            format!("lease={}", if raft.has_lease() { "yes" } else { "no" }),
        ];
        words.extend(configuration.split('|').map(str::to_owned));
        words
    }

    /// What a leader knows of a peer, as words. `match` is what counts: on stable storage.
    fn view(&self, node: u8, peer: u8) -> Result<Vec<String>, String> {
        let peer = self.stage.raft(node).peer(NodeId(peer)).ok_or("a stranger")?;
        let mode = match (peer.probing, peer.needs_snapshot) {
            (true, _) => "probe",
            (_, true) => "snapshot",
            _ => "replicate",
        };
        let index = |position: Position| position.0 / RECORD_SIZE;
        Ok(vec![
            mode.to_owned(),
            format!("match={}", index(peer.durable)),
            format!("received={}", index(peer.received)),
            format!("next={}", index(peer.next) + 1),
            if peer.connected { "connected" } else { "disconnected" }.to_owned(),
        ])
    }
}

/// A letter in a word: its kind, and the term or index that matters.
fn describe(letter: &Letter) -> String {
    match letter {
        Letter::Append(append, data) => {
            format!("append:{}+{}", append.previous.0 / RECORD_SIZE, data.len())
        }
        Letter::Snapshot(_, mark) => format!("snapshot:{}", mark.position.0 / RECORD_SIZE),
        Letter::Message(PeerMessage::AppendReply(reply)) => match reply.rejected {
            None => format!("reply:{}", reply.durable.0 / RECORD_SIZE),
            Some(hint) => format!("reject:{}", hint.position.0 / RECORD_SIZE),
        },
        Letter::Message(PeerMessage::Vote(vote)) => {
            format!("{}vote:{}", if vote.pre_vote { "pre-" } else { "" }, vote.term.0)
        }
        Letter::Message(PeerMessage::VoteReply(reply)) => {
            let kind = if reply.granted { "grant" } else { "refuse" };
            format!("{}{kind}:{}", if reply.pre_vote { "pre-" } else { "" }, reply.term.0)
        }
        Letter::Message(PeerMessage::TimeoutNow(summons)) => format!("summons:{}", summons.term.0),
        Letter::Message(PeerMessage::Append(_)) => unreachable!("appends travel with their data"),
    }
}

/// Terms of records as `1x3,4x2`.
pub fn runs(terms: impl Iterator<Item = u64>) -> String {
    let mut runs: Vec<(u64, usize)> = vec![];
    for term in terms {
        match runs.last_mut() {
            Some((last, len)) if *last == term => *len += 1,
            _ => runs.push((term, 1)),
        }
    }
    let words: Vec<String> = runs.iter().map(|(term, len)| format!("{term}x{len}")).collect();
    if words.is_empty() { "none".to_owned() } else { words.join(",") }
}

fn has(state: &[String], words: &[&str]) -> Outcome {
    let missing = words.iter().find(|word| !state.iter().any(|is| is == *word));
    missing.map_or(Ok(()), |word| Err(format!("not {word}: {}", state.join(" "))))
}

fn or(holds: bool, text: &str) -> Outcome {
    if holds { Ok(()) } else { Err(text.to_owned()) }
}

fn number(word: &str) -> u64 {
    word.parse().unwrap_or_else(|_| panic!("not a number: {word}"))
}

fn id(word: &str) -> u8 {
    word.parse().unwrap_or_else(|_| panic!("not a node: {word}"))
}

fn ids(words: &[&str]) -> Vec<u8> {
    words.iter().map(|word| id(word)).collect()
}

/// `1x3,4x2` as one term for each record.
fn terms(runs: &str) -> Vec<u64> {
    let run = |run: &str| {
        let (term, len) = run.split_once('x').expect("TERMxLEN");
        vec![number(term); usize::try_from(number(len)).expect("short")]
    };
    runs.split(',').flat_map(run).collect()
}

fn change(operations: &[&str]) -> MembershipChange {
    let which = |sign: char| {
        operations.iter().filter_map(|word| word.strip_prefix(sign)).map(|word| NodeId(id(word))).collect()
    };
    MembershipChange { promote: which('+'), learn: which('l'), remove: which('-') }
}
