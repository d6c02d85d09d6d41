//! A small server on a loopback port: it echoes commands, remembers replies, and fails as its script says.
//!
//! Fault model: a connection may end in the middle of a frame. The server's memory outlives its connections.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread::JoinHandle;

use evershard_protocol::client::{Admin, AdminReply, StatusReply, StatusRequest};
use evershard_protocol::frame::Frame;

use crate::fake::*;

/// What the server does wrong.
#[derive(Clone, Copy, Default)]
pub struct Script {
    /// Ends each connection in the middle of a reply after so many; 0 for never.
    pub cut_after: usize,
    /// Answers no request before so many have been taken in.
    pub silent_before: usize,
}

/// Everything that survives a connection.
#[derive(Default)]
pub struct Memory {
    pub applied: Vec<Vec<u8>>,
    pub connections: usize,
}

/// Binds a port and serves it on a thread until a client says `Close`.
pub fn start(script: Script) -> (String, JoinHandle<Memory>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a loopback port is free");
    let address = listener.local_addr().expect("bound").to_string();
    (address, std::thread::spawn(move || serve(&listener, script, Memory::default())))
}

/// Serves connections one after the other until a client says `Close`.
pub fn serve(listener: &TcpListener, script: Script, mut memory: Memory) -> Memory {
    loop {
        let (stream, _) = listener.accept().expect("the listener is open");
        memory.connections += 1;
        if serve_one(stream, script, &mut memory) {
            return memory;
        }
    }
}

/// True if the client said `Close`.
fn serve_one(mut stream: TcpStream, script: Script, memory: &mut Memory) -> bool {
    let mut bytes = Vec::new();
    let mut chunk = vec![0; 64 * 1024];
    let mut replies = 0;
    loop {
        while let Some((frame, size)) = Frame::take(&bytes).expect("the client sends frames") {
            let Some(answer) = answer_to(&frame, script, memory) else {
                return true;
            };
            replies += 1;
            if script.cut_after > 0 && replies > script.cut_after {
                // The client may have gone: then nothing is cut but what it never sees.
                let _ = stream.write_all(&answer[..answer.len() / 2]);
                return false;
            }
            if stream.write_all(&answer).is_err() {
                return false;
            }
            bytes.drain(..size);
        }
        match stream.read(&mut chunk) {
            Ok(0) | Err(_) => return false,
            Ok(size) => bytes.extend_from_slice(&chunk[..size]),
        }
    }
}

/// `None` to `Close`.
fn answer_to(frame: &Frame<'_>, script: Script, memory: &mut Memory) -> Option<Vec<u8>> {
    if frame.is::<StatusRequest>() {
        let status = StatusReply { node: 1, padding: 0, shard: 3.into(), reserved: 0.into() };
        return Some(crate::fake::frame(&status, br#"{"role":"leader"}"#));
    }
    if let Ok((admin, _)) = frame.read::<Admin>() {
        // Node 2 may be transferred to; nobody else leads here.
        if admin.action.get() == 1 && admin.node != 2 {
            return Some(redirect("elsewhere:1"));
        }
        let reply = AdminReply { code: 0.into(), padding: [0; 6], position: 640.into() };
        return Some(crate::fake::frame(&reply, b"begun"));
    }
    match parse_frame(frame) {
        Said::Hello { .. } => Some(welcome(memory.applied.len() as u64)),
        Said::Request { request, payload, .. } => Some(on_request(request, payload, script, memory)),
        Said::Query { query, payload } => Some(answer(query, &payload)),
        Said::Ping => Some(pong()),
        Said::Close => None,
    }
}

fn on_request(request: u64, payload: Vec<u8>, script: Script, memory: &mut Memory) -> Vec<u8> {
    let index = usize::try_from(request).expect("small") - 1;
    if index == memory.applied.len() {
        memory.applied.push(payload);
    }
    assert!(index < memory.applied.len(), "requests come without gaps");
    let taken = memory.applied.len();
    if taken < script.silent_before {
        return Vec::new();
    }
    if taken == script.silent_before {
        return memory.applied.iter().zip(1..).flat_map(|(payload, request)| reply(request, payload)).collect();
    }
    reply(request, &memory.applied[index])
}
