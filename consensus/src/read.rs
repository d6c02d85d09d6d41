//! Reads without a record in the log: by asking a quorum (read-index), or by the promises of a quorum (lease).
//!
//! A read is linearizable if it sees all that was committed before it began. So the leader notes its commit position when
//! the read begins, makes sure that it still led after that, and answers when the position is applied.
//!
//! * **Read-index** (Raft thesis §6.4): an append of a new round goes to every peer; once a quorum has answered rounds
//!   that were sent after the read began, no other leader can have committed anything before it.
//! * **Lease** (§6.4.1): every acknowledgement promises to grant nobody a vote for `promise_ns` after the append was taken
//!   in. The leader counts from when it *sent* the append, and a bit less, since clocks run at different rates
//!   ([`DRIFT_DIVISOR`]). While a quorum's promises last, reads need not ask. The lease is void from the moment a
//!   transfer begins until the next term (the summoned candidate is exempt from the promises), and after a stall until
//!   the peers have answered again.
//!
//! The clock must count time in which the machine is suspended (CLOCK_BOOTTIME), or the lease outlives its promises.

use evershard_protocol::bugs::{self, Bug};
use evershard_protocol::{Instant, Position, Term};

use crate::progress::Peer;
use crate::{Raft, Role};

/// A promise is believed for this part of itself less: 1/64, which covers clocks that differ by 1.5 %.
pub const DRIFT_DIVISOR: u64 = 64;

/// A read that has begun: see [`Raft::begin_read`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Read {
    /// Answer with the state at this position or later.
    pub position: Position,
    term: Term,
    /// 0: nobody needs to be asked.
    number: u64,
}

impl Raft {
    /// Begins a read at `now`, which was read from the clock after the request came in. `None` if this replica does not
    /// lead, or has not committed a record of its own term yet and so does not know what is committed.
    pub fn begin_read(&mut self, now: Instant) -> Option<Read> {
        self.see(now);
        let settled = self.term_start.is_some_and(|start| self.commit >= start);
        if self.role != Role::Leader || !settled {
            return None;
        }
        let (position, term) = (self.commit, self.hard.term);
        if self.has_lease() || self.is_sole_voter() {
            return Some(Read { position, term, number: 0 });
        }
        let number = self.next_read_number();
        Some(Read { position, term, number })
    }

    /// The number of a read that begins now. Reads that begin before the next round leaves share it.
    pub(crate) fn next_read_number(&mut self) -> u64 {
        if self.read_told {
            self.read_number += 1;
            self.read_told = false;
        }
        self.read_number
    }

    /// All reads up to this number are confirmed. Who may have forgotten whom it voted for confirms nothing, unless
    /// every voter says the same: then nobody is left who could have elected another leader.
    pub(crate) fn confirmed_read(&self) -> u64 {
        let by_quorum = self.rank_of_quorum(u64::MAX, |peer| if peer.counts() { peer.confirmed_read } else { 0 });
        by_quorum.max(self.least_of_all(u64::MAX, |peer| peer.confirmed_read))
    }

    /// Whether the leader of the read is known to have led after it began. `false` for ever once this replica has lost
    /// the term: begin again elsewhere.
    #[must_use]
    pub fn is_confirmed(&self, read: &Read) -> bool {
        if self.role != Role::Leader || self.hard.term != read.term {
            return false;
        }
        read.number <= self.confirmed_read() || bugs::is_on(Bug::ReadUnconfirmed)
    }

    /// Whether the read can still become confirmed.
    #[must_use]
    pub fn is_pending(&self, read: &Read) -> bool {
        self.role == Role::Leader && self.hard.term == read.term
    }

    /// A leader's lease holds: a quorum has promised to grant nobody a vote yet.
    #[must_use]
    pub fn has_lease(&self) -> bool {
        if self.timing.lease_ns == 0 || self.role != Role::Leader {
            return false;
        }
        let handing_over = self.transfer.is_some() || self.has_summoned;
        if handing_over && !bugs::is_on(Bug::LeaseAcrossTransfer) {
            return false;
        }
        let promised = |peer: &Peer| if peer.counts() { peer.promised_until } else { Instant(0) };
        self.now < self.rank_of_quorum(Instant(u64::MAX), promised)
    }

    /// Whether this replica promises or believes anything for a time: the caller's clock must then be read after what
    /// came in was processed as well (duty 8).
    #[must_use]
    pub fn promises(&self) -> bool {
        self.timing.lease_ns > 0
    }
}
