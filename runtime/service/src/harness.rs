//! Runs a service in a unit test, twice, and compares.

use evershard_protocol::{Position, RequestNumber, SessionId, TimerId, Timestamp};

use crate::{Context, Digest, Effects, Occasion, Service, TimerChange};

/// Bytes of log each step pretends to take.
const STEP_SIZE: u64 = 64;
/// Record time between two steps, in nanoseconds.
const STEP_NS: u64 = 1_000_000;

enum Step {
    Command(SessionId, Vec<u8>),
    Open(SessionId),
    Close(SessionId),
    Advance(u64),
}

/// A list of inputs for a service, and how to make one.
///
/// See the [crate docs](crate) for an example.
pub struct Harness<S, F: Fn() -> S> {
    make: F,
    steps: Vec<Step>,
}

/// What a run brought forth.
#[derive(Debug, PartialEq, Eq, Default, Clone)]
pub struct Report {
    /// The reply to each command, in order.
    pub replies: Vec<Vec<u8>>,
    /// All events: session and content, in order.
    pub events: Vec<(u64, Vec<u8>)>,
    /// The digest after each step.
    pub digests: Vec<Digest>,
}

impl<S: Service, F: Fn() -> S> Harness<S, F> {
    /// Begins an empty list; `make` gives a fresh instance.
    pub fn new(make: F) -> Self {
        Self { make, steps: Vec::new() }
    }

    /// A command of a session.
    #[must_use]
    pub fn command(mut self, session: u64, command: &[u8]) -> Self {
        self.steps.push(Step::Command(SessionId(session), command.to_vec()));
        self
    }

    /// A session opens.
    #[must_use]
    pub fn open(mut self, session: u64) -> Self {
        self.steps.push(Step::Open(SessionId(session)));
        self
    }

    /// A session closes.
    #[must_use]
    pub fn close(mut self, session: u64) -> Self {
        self.steps.push(Step::Close(SessionId(session)));
        self
    }

    /// Record time passes; timers that become due fire.
    #[must_use]
    pub fn advance(mut self, ns: u64) -> Self {
        self.steps.push(Step::Advance(ns));
        self
    }

    /// Runs the list on a fresh instance, and on a second one that is saved and restored into a third at every
    /// step of the way, and compares.
    ///
    /// # Panics
    /// If the two runs differ: the service breaks the determinism contract. The message names the first step.
    pub fn run(&self) -> Report {
        let straight = self.run_once(false);
        let restored = self.run_once(true);
        for (step, (one, other)) in straight.digests.iter().zip(&restored.digests).enumerate() {
            assert_eq!(one, other, "step {step}: the state differs after save and restore, or between two runs");
        }
        assert_eq!(straight.replies, restored.replies, "replies differ between two runs of the same commands");
        assert_eq!(straight.events, restored.events, "events differ between two runs of the same commands");
        straight
    }

    fn run_once(&self, restore_each_step: bool) -> Report {
        let mut run = Run {
            service: (self.make)(),
            effects: Effects::default(),
            timers: Vec::new(),
            position: Position::ZERO,
            now: Timestamp(STEP_NS),
            report: Report::default(),
        };
        for (number, step) in self.steps.iter().enumerate() {
            run.step(number, step);
            if restore_each_step {
                let mut bytes = Vec::new();
                run.service.save(&mut bytes).expect("a vector takes everything");
                let mut fresh = (self.make)();
                fresh.restore(&mut &bytes[..]).expect("a service reads what it wrote");
                run.service = fresh;
            }
            run.report.digests.push(run.service.digest());
        }
        run.report
    }
}

struct Run<S> {
    service: S,
    effects: Effects,
    timers: Vec<(TimerId, Timestamp)>,
    position: Position,
    now: Timestamp,
    report: Report,
}

impl<S: Service> Run<S> {
    fn step(&mut self, number: usize, step: &Step) {
        let request = RequestNumber(number as u64 + 1);
        match step {
            Step::Command(session, command) => {
                self.handle(*session, request, |service, context| service.apply(context, command));
                self.report.replies.push(self.effects.reply.clone());
            }
            Step::Open(session) => self.handle(*session, RequestNumber(0), |service, context| {
                service.on_session_open(context);
            }),
            Step::Close(session) => self.handle(*session, RequestNumber(0), |service, context| {
                service.on_session_close(context);
            }),
            Step::Advance(ns) => self.advance(*ns),
        }
    }

    fn advance(&mut self, ns: u64) {
        let end = self.now.after(ns);
        while let Some(due) = self.next_due(end) {
            let (timer, deadline) = self.timers.remove(due);
            self.now = self.now.max(deadline);
            self.handle(SessionId(0), RequestNumber(0), |service, context| service.on_timer(context, timer));
        }
        self.now = self.now.max(end);
    }

    fn next_due(&self, end: Timestamp) -> Option<usize> {
        let due = self.timers.iter().enumerate().filter(|(_, (_, deadline))| *deadline <= end);
        due.min_by_key(|(_, (timer, deadline))| (*deadline, timer.0)).map(|(at, _)| at)
    }

    fn handle(&mut self, session: SessionId, request: RequestNumber, call: impl FnOnce(&mut S, &mut Context<'_>)) {
        self.position = self.position.advance(STEP_SIZE);
        self.now = self.now.after(STEP_NS);
        self.effects.clear();
        let occasion = Occasion { position: self.position, now: self.now, session, request };
        call(&mut self.service, &mut Context::new(occasion, &mut self.effects));
        for entry in &self.effects.events {
            self.report.events.push((entry.session.0, self.effects.event(entry).to_vec()));
        }
        for change in &self.effects.timers {
            let (TimerChange::Set(timer, _) | TimerChange::Cancel(timer)) = *change;
            self.timers.retain(|(known, _)| *known != timer);
            if let TimerChange::Set(_, deadline) = *change {
                self.timers.push((timer, deadline));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{SnapshotError, SnapshotReader, SnapshotWriter};

    /// Counts; forgets its count in snapshots if told to be broken.
    struct Tally {
        total: u64,
        forgetful: bool,
    }

    impl Service for Tally {
        fn apply(&mut self, context: &mut Context<'_>, command: &[u8]) {
            self.total += command.len() as u64;
            context.set_timer(TimerId(1), context.now().after(10)).expect("one timer");
            context.reply(&self.total.to_le_bytes()).expect("fits");
        }
        fn on_timer(&mut self, context: &mut Context<'_>, _: TimerId) {
            self.total += 100;
            context.emit(SessionId(1), b"tick").expect("fits");
        }
        fn digest(&self) -> Digest {
            Digest::of(&self.total.to_le_bytes())
        }
        fn save(&self, out: &mut dyn SnapshotWriter) -> Result<(), SnapshotError> {
            out.write(&if self.forgetful { 0 } else { self.total }.to_le_bytes())
        }
        fn restore(&mut self, source: &mut dyn SnapshotReader) -> Result<(), SnapshotError> {
            let mut bytes = [0; 8];
            source.read_exact(&mut bytes)?;
            self.total = u64::from_le_bytes(bytes);
            Ok(())
        }
    }

    #[test]
    fn runs_commands_and_timers() {
        let harness = Harness::new(|| Tally { total: 0, forgetful: false });
        let report = harness.open(1).command(1, b"abc").advance(1_000).command(1, b"d").run();
        assert_eq!(report.replies[1], 104_u64.to_le_bytes());
        assert_eq!(report.events, vec![(1, b"tick".to_vec())]);
    }

    #[test]
    #[should_panic(expected = "step 0: the state differs")]
    fn a_snapshot_that_forgets_is_found() {
        Harness::new(|| Tally { total: 0, forgetful: true }).command(1, b"abc").run();
    }
}
