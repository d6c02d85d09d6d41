//! Handing leadership over (Raft thesis §3.10): stop admitting, wait until the target has everything, summon it.

use evershard_protocol::peer::{PeerMessage, TimeoutNow};
use evershard_protocol::{Instant, NodeId};

use crate::{Output, Raft, Role, TransferError};

/// A leader's intention to hand over.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Transfer {
    pub(crate) to: NodeId,
    /// When the leader goes on as before.
    pub(crate) deadline: Instant,
    summoned: bool,
}

impl Raft {
    /// Begins to move leadership to `to`. Nothing is admitted until it has moved, or has not after the longest
    /// election timeout.
    ///
    /// # Errors
    /// [`TransferError`]: nothing was begun.
    pub fn transfer(&mut self, to: NodeId, now: Instant, out: &mut Output) -> Result<(), TransferError> {
        self.see(now);
        if self.role != Role::Leader {
            return Err(TransferError::NotLeader);
        }
        if to == self.id {
            return Err(TransferError::AlreadyLeader);
        }
        let index = self.peer_index(to).ok_or(TransferError::NotMember)?;
        if self.transfer.is_some() {
            return Err(TransferError::InProgress);
        }
        if !self.membership.voters.contains(to) {
            return Err(TransferError::NotMember);
        }
        let peer = &self.peers[index];
        if !peer.connected || peer.recovering || self.term_start.is_none() {
            return Err(TransferError::NotReady);
        }
        let deadline = self.now.after(self.timing.election_max_ns);
        self.transfer = Some(Transfer { to, deadline, summoned: false });
        self.tick_transfer(out);
        Ok(())
    }

    /// Summons the target when it has everything; gives up when it takes too long.
    pub(crate) fn tick_transfer(&mut self, out: &mut Output) {
        let Some(transfer) = self.transfer else { return };
        assert_eq!(self.role, Role::Leader, "who no longer leads has nothing to hand over");
        let Some(index) = self.peer_index(transfer.to) else {
            self.transfer = None;
            return;
        };
        let peer = &self.peers[index];
        if self.now >= transfer.deadline || peer.recovering {
            self.transfer = None;
            return;
        }
        if !transfer.summoned && peer.received == self.terms.last() {
            self.transfer = Some(Transfer { summoned: true, ..transfer });
            self.has_summoned = true;
            out.push(transfer.to, PeerMessage::TimeoutNow(TimeoutNow { term: self.hard.term }));
        }
    }
}
