//! The operator's requests: one connection, one question, one answer. No session is needed.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use evershard_protocol::client::{Admin, AdminAction, AdminReply, Redirect, Refused, StatusReply, StatusRequest};
use evershard_protocol::frame::{Block, Frame, FrameError, put, size_of_frame};
use evershard_protocol::{NodeId, Position};

use crate::error::ClientError;

/// What a node answered to an operator's request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AdminAnswer {
    /// 0 if what was asked for was begun.
    pub code: u16,
    /// Where an appended record ended; 0 if none was appended.
    pub position: Position,
    /// A sentence for a person.
    pub text: String,
}

/// The state of the replica at `address`, as JSON.
///
/// # Errors
/// [`ClientError::Admin`] and its kin; nothing has changed then.
pub fn status(address: &str, timeout: Duration) -> Result<String, ClientError> {
    let exchange = Exchange::new("ask for the status", address, timeout);
    let (_, text) = exchange.run::<StatusRequest, StatusReply>(&StatusRequest {}, &[])?;
    Ok(text)
}

/// Asks the leader at `address` to hand over its shard to node `to`.
///
/// # Errors
/// [`ClientError::NotLeader`] names who to ask; [`ClientError::Admin`] and its kin: it may have been begun.
pub fn transfer(address: &str, to: NodeId, timeout: Duration) -> Result<AdminAnswer, ClientError> {
    run_action("ask for the transfer of leadership", address, (AdminAction::Transfer, to), "", timeout)
}

/// Asks the leader at `address` to change what node `node` is to its shard: [`AdminAction::MemberAdd`] (with where the
/// shard is found on it, `ip:port`), [`AdminAction::MemberPromote`] or [`AdminAction::MemberRemove`].
///
/// # Errors
/// As [`transfer`].
pub fn change_member(
    address: &str,
    action: AdminAction,
    node: NodeId,
    found_at: &str,
    timeout: Duration,
) -> Result<AdminAnswer, ClientError> {
    run_action("ask for a change of members", address, (action, node), found_at, timeout)
}

/// Asks the leader at `address` to have every replica compute its state digest at one position.
///
/// # Errors
/// As [`transfer`].
pub fn digest(address: &str, timeout: Duration) -> Result<AdminAnswer, ClientError> {
    run_action("ask for a state digest", address, (AdminAction::Digest, NodeId(0)), "", timeout)
}

/// Asks the replica at `address` to take a snapshot, in the background. [`AdminAnswer::position`] says where.
///
/// # Errors
/// As [`status`].
pub fn snapshot(address: &str, timeout: Duration) -> Result<AdminAnswer, ClientError> {
    run_action("ask for a snapshot", address, (AdminAction::Snapshot, NodeId(0)), "", timeout)
}

fn run_action(
    what: &'static str,
    address: &str,
    (action, node): (AdminAction, NodeId),
    argument: &str,
    timeout: Duration,
) -> Result<AdminAnswer, ClientError> {
    let admin = Admin { action: (action as u16).into(), node: node.0, padding: [0; 5] };
    let exchange = Exchange::new(what, address, timeout);
    let (reply, text) = exchange.run::<Admin, AdminReply>(&admin, argument.as_bytes())?;
    Ok(AdminAnswer { code: reply.code.get(), position: Position(reply.position.get()), text })
}

/// One question to one node.
struct Exchange<'a> {
    what: &'static str,
    address: &'a str,
    deadline: Instant,
}

impl<'a> Exchange<'a> {
    fn new(what: &'static str, address: &'a str, timeout: Duration) -> Self {
        Self { what, address, deadline: Instant::now() + timeout }
    }

    fn run<Q: Block, A: Block>(&self, question: &Q, argument: &[u8]) -> Result<(A, String), ClientError> {
        let bytes = self.carry(question, argument).map_err(|source| ClientError::Admin {
            what: self.what,
            address: self.address.to_owned(),
            source,
        })?;
        let malformed = |source| ClientError::AdminMalformed { address: self.address.to_owned(), source };
        let (frame, _) = Frame::take(&bytes).map_err(malformed)?.ok_or(malformed(FrameError::BlockLength))?;
        if frame.is::<Redirect>() {
            let (_, leader) = frame.read::<Redirect>().map_err(malformed)?;
            return Err(ClientError::NotLeader { address: self.address.to_owned(), leader: text_of(leader) });
        }
        if frame.is::<Refused>() {
            let (_, text) = frame.read::<Refused>().map_err(malformed)?;
            return Err(ClientError::AdminRefused { address: self.address.to_owned(), text: text_of(text) });
        }
        let (answer, text) = frame.read::<A>().map_err(malformed)?;
        Ok((answer, text_of(text)))
    }

    /// Sends the question and returns the bytes of the first frame that comes back, or what announces itself as no
    /// frame.
    fn carry<Q: Block>(&self, question: &Q, argument: &[u8]) -> io::Result<Vec<u8>> {
        let mut stream = self.connect()?;
        let mut bytes = Vec::with_capacity(size_of_frame::<Q>(argument.len()));
        put(&mut bytes, question, argument).expect("the capacity was computed for this frame");
        stream.set_write_timeout(Some(self.left()?))?;
        stream.write_all(&bytes)?;
        bytes.clear();
        let mut chunk = [0; 4096];
        while let Ok(None) = Frame::take(&bytes) {
            stream.set_read_timeout(Some(self.left()?))?;
            let size = stream.read(&mut chunk).map_err(timed_out)?;
            if size == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            bytes.extend_from_slice(&chunk[..size]);
        }
        Ok(bytes)
    }

    fn connect(&self) -> io::Result<TcpStream> {
        let mut outcome = Err(io::ErrorKind::NotFound.into());
        for target in self.address.to_socket_addrs()? {
            outcome = TcpStream::connect_timeout(&target, self.left()?);
            if outcome.is_ok() {
                break;
            }
        }
        outcome
    }

    /// Time left, never zero.
    fn left(&self) -> io::Result<Duration> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
    }
}

/// A receive timeout shows as `WouldBlock`, which tells a person nothing.
fn timed_out(error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::WouldBlock { io::ErrorKind::TimedOut.into() } else { error }
}

fn text_of(payload: &[u8]) -> String {
    String::from_utf8_lossy(payload).into_owned()
}
