//! What must hold, judged from outside. Each rule has its file and its name; a name is what a finding is called, and what
//! shrinking keeps.
//!
//! | name | rule | file |
//! |---|---|---|
//! | `two-leaders` | a term has one leader | [`leaders`] |
//! | `leader-lacks` | a leader has everything committed in earlier terms | [`leaders`] |
//! | `membership` | configurations change one legal step at a time, each after the last is committed; leaders are voters | [`memberships`] |
//! | `few-votes` | a leader has the votes of a majority, of both while its configuration is joint | [`memberships`] |
//! | `log-differs` | what one replica holds for committed every other does, byte for byte | [`log`] |
//! | `log-malformed` | what is committed is whole records, in order, of terms that do not go back | [`replay`] |
//! | `record-time` | record time does not go back along the log | [`replay`] |
//! | `executed-twice` | each command is executed once, requests of a session in order | [`replay`], [`service`] |
//! | `state-differs` | every service does what the model does, at every record | [`service`] |
//! | `digests-differ` | equal positions, equal digests of everything replicated | [`service`] |
//! | `position-back`, `position-order`, `durable-back` | applied <= committed <= appended, durable <= appended, none goes back | [`positions`] |
//! | `reply-wrong`, `reply-lost`, `reply-changed` | a reply is that of the committed record, and stays so | [`replies`] |
//! | `stale-read` | an answer has all that was committed when its question was first asked | [`reads`] |
//! | `read-wrong` | it is the model's at exactly the position that it names | [`reads`] |
//! | `real-time` | who asks after an answer is behind it in the log | [`replies`] |
//! | `stale-read` | an answer without a record has all that was told before it was asked | [`replies`] |
//! | `not-linearizable` | an independent search agrees, key by key | [`linear`] |
//! | `false-fault` | recovery finds damage only where damage was done | [`damage`] |
//! | `refused-start` | a replica starts from any disk that the fault model allows | [`damage`] |
//! | `halted` | nothing stops being applied but for damage | [`damage`] |
//! | `session-refused` | a session ends only by its client or by its time | [`replies`] |
//! | `stuck` | when all trouble is over, everything is answered and all agree, in time | [`convergence`] |
//! | `panic` | no assertion fails | [`crate::panics`] |

pub mod convergence;
pub mod damage;
pub mod leaders;
pub mod linear;
pub mod log;
pub mod memberships;
pub mod positions;
pub mod reads;
pub mod replay;
pub mod replies;
pub mod service;

use evershard_node::core::Core;
use evershard_protocol::Position;

use crate::disk::SimDisk;
use crate::node::node_id;
use crate::service::{KeyValue, Seen};

/// A rule was broken.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation {
    /// The rule's name.
    pub rule: &'static str,
    /// What was seen.
    pub what: String,
}

impl Violation {
    /// For `Err(...)?`.
    pub fn of<T>(rule: &'static str, what: String) -> Result<T, Self> {
        Err(Self { rule, what })
    }
}

/// What is known of one shard from outside.
pub struct ShardOracle {
    /// The committed log.
    pub log: log::CommittedLog,
    /// Who led when.
    pub leaders: leaders::Leaders,
    /// Who changed the configuration.
    pub memberships: memberships::Memberships,
    /// How far each replica was.
    pub positions: positions::Positions,
    /// What the services did.
    pub services: service::Services,
    /// What clients were told.
    pub replies: replies::Replies,
    /// What questions were answered.
    pub reads: reads::Reads,
}

impl ShardOracle {
    /// Nothing is known yet.
    #[must_use]
    pub fn new(nodes: usize, voters: usize) -> Self {
        Self {
            log: log::CommittedLog::new(nodes, (0..voters).map(node_id).collect()),
            memberships: memberships::Memberships::new(nodes),
            leaders: leaders::Leaders::default(),
            positions: positions::Positions::new(nodes),
            services: service::Services::new(nodes),
            replies: replies::Replies::default(),
            reads: reads::Reads::default(),
        }
    }

    /// A replica begins a new life.
    pub fn on_start(&mut self, node: usize) {
        self.log.on_start(node);
        self.positions.on_start(node);
        self.services.on_start(node);
    }

    /// A replica's disk is a new one.
    pub fn on_wipe(&mut self, node: usize) {
        self.positions.on_wipe(node);
    }

    /// A replica has had a turn.
    ///
    /// # Errors
    /// [`Violation`].
    pub fn after_turn(
        &mut self,
        node: usize,
        core: &Core<KeyValue>,
        disk: &mut SimDisk,
        seen: &[Seen],
    ) -> Result<(), Violation> {
        self.positions.check(node, core)?;
        self.log.advance(node, core, disk)?;
        self.leaders.check(node, core, &self.log)?;
        self.memberships.check(node, core)?;
        self.services.check(node, seen, &self.log.replay)?;
        self.services.check_digest(node, core)?;
        self.replies.settle(&self.log.replay)?;
        self.reads.settle(&self.log.replay)?;
        core.raft().check_invariants();
        Ok(())
    }

    /// Everything up to here is committed, as far as is known.
    #[must_use]
    pub fn committed(&self) -> Position {
        self.log.end()
    }
}
