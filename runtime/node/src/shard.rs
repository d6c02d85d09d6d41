//! The duty cycle: one turn of a shard's loop.
//!
//! ```text
//! reap       completions, sorted by kind; frames are parsed and requests become records on the way; with leases the
//!            clock is then read once more
//! read       questions of this turn -> one read of consensus
//! elect      timers, votes, the change of roles
//! sequence   the leader's own records
//! apply      (applied, committed] -> service -> replies, events; then the questions that can be answered
//! deliver    egress
//! replicate  the new range -> every peer link; the follower's acknowledgement
//! repair     blocks that do not read back, here and elsewhere
//! snapshots  what the shadow is to save, what may be dropped, who is sent one
//! write      the same range -> the file
//! submit     one io_uring_enter
//! ```

use evershard_consensus::Role;
use evershard_protocol::Instant;
use evershard_protocol::SessionId;
use evershard_protocol::record::Kind;
use evershard_protocol::time::MILLISECOND_NS;
use evershard_service::Service;

use crate::core::{Core, Leading};
use crate::env::{Env, Event, Idle};
use crate::notice::Notice;

/// While an answer from the background is awaited, the shard looks for it this often.
const BACKGROUND_POLL_NS: u64 = MILLISECOND_NS / 2;
/// The shard never sleeps longer than this: somebody may want it to stop.
const SLEEP_NS_MAX: u64 = 20 * MILLISECOND_NS;
/// A stopping leader gives leadership away within this time, or stops all the same.
const STOP_NS_MAX: u64 = 1000 * MILLISECOND_NS;

/// One shard on this node: its state, and the world below.
pub struct Shard<S: Service, E: Env> {
    env: E,
    core: Core<S>,
    stage: Stage,
}

/// How far a shard is with stopping.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    Running,
    /// Leadership is given away and everything reaches the disk, until this time.
    HandingOver(Instant),
    /// From here on nothing is acknowledged any more: only the mark of a clean stop is written, until this time.
    Marking(Instant),
    Stopped,
}

impl<S: Service, E: Env> Shard<S, E> {
    /// Puts a shard together.
    pub fn new(env: E, core: Core<S>) -> Self {
        Self { env, core, stage: Stage::Running }
    }

    /// The state, for tests and status.
    pub fn core(&self) -> &Core<S> {
        &self.core
    }

    /// The world below.
    pub fn env(&mut self) -> &mut E {
        &mut self.env
    }

    /// One turn. Returns how many events it began with.
    pub fn turn(&mut self) -> usize {
        let Self { env, core, .. } = self;
        core.now = env.now();
        let events = env.reap(&mut |event| core.on_event(event));
        if core.raft.promises() {
            // The process may have been stopped since: what is promised or believed for a while now is counted from
            // here. Without leases nothing is, and a clock costs as much as a step.
            core.now = env.now();
        }
        core.begin_reads();
        core.elect(env);
        core.sequence_own();
        core.note_appended();
        let more = core.apply(env);
        core.settle();
        core.answer_queries();
        core.deliver();
        core.replicate(env);
        core.repair(env);
        core.keep_snapshots(env);
        core.write_log(env);
        core.links.flush(env);
        core.tell(env);
        env.submit(if more { Idle::Busy } else { Idle::Until(core.next_deadline()) });
        events
    }

    /// Turns until a stop is asked for, then stops cleanly.
    pub fn run(&mut self) {
        while !self.env.stop_requested() {
            self.turn();
        }
        self.begin_stop();
        while !self.stop_turn() {}
    }

    /// From now on [`Shard::stop_turn`] takes the place of [`Shard::turn`]: hands leadership over, lets everything reach
    /// the disk, and leaves the mark of a clean stop.
    pub fn begin_stop(&mut self) {
        assert_eq!(self.stage, Stage::Running, "a shard stops once");
        self.core.stopping = true;
        self.core.hasten_placement();
        self.stage = Stage::HandingOver(self.env.now().instant.after(STOP_NS_MAX));
    }

    /// One turn of stopping; true when the shard has stopped.
    pub fn stop_turn(&mut self) -> bool {
        match self.stage {
            Stage::Running => unreachable!("a shard stops after begin_stop"),
            Stage::HandingOver(end) => self.hand_over(end),
            Stage::Marking(end) => self.await_mark(end),
            Stage::Stopped => {}
        }
        self.stage == Stage::Stopped
    }

    fn hand_over(&mut self, end: Instant) {
        self.turn();
        let core = &self.core;
        let late = core.now.instant >= end;
        let leads = core.raft.role() == Role::Leader && core.raft.members().len() > 1;
        let written = core.tail.end() == core.disk.durable() && core.disk.is_quiet();
        if written && (!leads || late) {
            self.stage = Stage::Stopped;
            if self.core.save_clean_stop(&mut self.env) {
                self.stage = Stage::Marking(self.env.now().instant.after(STOP_NS_MAX));
            }
        } else if late && core.disk.failed().is_some() || core.now.instant >= end.after(STOP_NS_MAX) {
            self.stage = Stage::Stopped;
        }
    }

    fn await_mark(&mut self, end: Instant) {
        if self.core.disk.is_quiet() || self.env.now().instant >= end {
            self.stage = Stage::Stopped;
            return;
        }
        self.env.submit(Idle::Until(end));
        let core = &mut self.core;
        self.env.reap(&mut |event| {
            if let Event::SlotWritten { buffer, outcome } = event {
                core.on_slot_written(buffer, outcome);
            }
        });
    }
}

impl<S: Service> Core<S> {
    /// Timers and votes; a leader that has just won begins its term.
    fn elect(&mut self, env: &mut impl Env) {
        self.renew_peers();
        self.dial(env);
        self.note_appended();
        self.raft.tick(self.now.instant, &mut self.output);
        self.place_leadership();
        self.note_role();
        if self.raft.wants_term_start() && self.append_own(Kind::TermStart, SessionId(0), &[]).is_some() {
            self.raft.on_appended(self.raft.term(), self.tail.end());
        }
        self.save_hard_state(env);
    }

    fn note_role(&mut self) {
        let is = (self.raft.role(), self.raft.term(), self.raft.leader());
        if is == self.told {
            return;
        }
        self.told = is;
        self.notice(Notice::Role(is.0, is.1, is.2));
        let term = self.raft.term();
        if self.raft.role() == Role::Leader {
            if self.leading.is_none_or(|leading| leading.term != term) {
                if self.leading.is_some() {
                    // Deposed and elected again within one turn: the clients' links are of the old term.
                    self.dismiss_clients();
                }
                self.leading = Some(Leading { term, ready: false, fired: None, next_scan: self.now.instant });
                self.placement.on_leading(self.now.instant);
            }
        } else {
            self.leading = None;
            self.dismiss_clients();
        }
    }

    /// Tells consensus what was sequenced since it was last told: once, however many records it were. Always before it
    /// hears anything that may end the leadership, for afterwards nobody would know whose records they are.
    pub(crate) fn note_appended(&mut self) {
        if self.raft.role() == Role::Leader && self.tail.end() > self.raft.last() {
            self.raft.on_appended(self.raft.term(), self.tail.end());
        }
    }

    /// A leader that has applied the first record of its term has applied all that its predecessors committed.
    fn settle(&mut self) {
        let Some(leading) = &mut self.leading else { return };
        if !leading.ready && self.raft.term_start().is_some_and(|start| self.replica.applied >= start) {
            leading.ready = true;
            self.replica.sessions.reset_volatile(self.now.instant);
            self.seat_waiting();
            self.note_appended();
        }
    }

    fn next_deadline(&self) -> Instant {
        let now = self.now.instant;
        let mut deadline = self.raft.next_deadline().min(now.after(SLEEP_NS_MAX));
        let peers = self.peers.next_deadline(self.identity.node);
        let others = [self.disk.next_deadline(), peers, self.timer_deadline(), self.repair_deadline()];
        for other in others.into_iter().flatten() {
            deadline = deadline.min(other);
        }
        let reads = self.replay.awaits_background() || self.peers.awaits_background();
        let writes = self.disk.awaits_background() || self.snapshots.awaits_background();
        if reads || writes || self.repair.awaits_background() {
            deadline = deadline.min(now.after(BACKGROUND_POLL_NS));
        }
        deadline
    }

    /// When the leader's next timer is due, on the monotonic clock.
    fn timer_deadline(&self) -> Option<Instant> {
        let leading = self.leading.as_ref()?;
        let timer = self.replica.timers.next_after(leading.fired)?;
        Some(self.now.instant.after(timer.deadline.0.saturating_sub(self.now.timestamp.0)))
    }
}
