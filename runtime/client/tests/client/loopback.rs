//! The blocking face against a real socket.

use std::net::TcpListener;
use std::time::Duration;

use evershard_client::{Client, ClientConfig, ClientError, ClientEvent, SendError, Trouble, admin};
use evershard_protocol::client::ReplyStatus;
use evershard_protocol::{ClusterId, NodeId, Position, RequestNumber, ShardId};

use crate::fake::SESSION;
use crate::server::{Memory, Script, serve, start};

fn config(address: &str) -> ClientConfig {
    let cluster = Some(ClusterId(9));
    ClientConfig { cluster, token: Some(77), ..ClientConfig::new([address], ShardId(3)) }
}

/// Sends `count` commands of `size` bytes as fast as the window allows; all must be answered once, in order.
/// Returns how often the client reconnected.
fn check_stream(client: &mut Client, count: u64, size: usize) -> usize {
    let mut command = vec![0; size];
    let (mut sent, mut answered, mut reconnected) = (0_u64, 0_u64, 0);
    while answered < count {
        while sent < count {
            command[..8].copy_from_slice(&(sent + 1).to_le_bytes());
            match client.try_send(&command) {
                Ok(request) => sent = request.0,
                Err(SendError::WindowFull | SendError::QueueFull) => break,
                Err(error) => panic!("{error}"),
            }
        }
        let polled = client.poll(None, &mut |event| match event {
            ClientEvent::Reply { request, payload, status, .. } => {
                answered += 1;
                assert_eq!((request, status), (RequestNumber(answered), ReplyStatus::Applied));
                assert_eq!((&payload[..8], payload.len()), (&answered.to_le_bytes()[..], size));
            }
            ClientEvent::Reconnected { .. } => reconnected += 1,
            ClientEvent::Answer { .. } => panic!("nothing was asked"),
            ClientEvent::Event { .. } => panic!("the server tells nothing unasked"),
        });
        assert!(polled.expect("the session lives") > 0);
    }
    assert_eq!(client.unanswered(), 0);
    reconnected
}

#[test]
fn calls_are_answered_one_by_one() {
    for spin in [false, true] {
        let (address, server) = start(Script::default());
        let mut client = Client::connect(&ClientConfig { spin, ..config(&address) }).expect("the server is up");
        assert_eq!((client.session().0, client.leader()), (SESSION, Some(NodeId(0))));
        assert_eq!((client.address(), client.trouble()), (address.as_str(), None));
        for number in 1..=200_u64 {
            let reply = client.call(&number.to_le_bytes()).expect("answered");
            assert_eq!((reply.request, reply.payload), (RequestNumber(number), &number.to_le_bytes()[..]));
            assert_eq!((reply.status, reply.position), (ReplyStatus::Applied, Position(number * 64)));
        }
        client.close().expect("the server is up");
        assert_eq!(server.join().expect("the server ends").applied.len(), 200);
    }
}

#[test]
fn a_server_that_cuts_connections_in_mid_stream_is_resumed() {
    let (address, server) = start(Script { cut_after: 700, ..Script::default() });
    let mut client = Client::connect(&ClientConfig { window_len: 256, ..config(&address) }).expect("the server is up");
    let reconnected = check_stream(&mut client, 20_000, 64);
    assert!(reconnected >= 20_000 / 700, "{reconnected}");
    client.close().expect("the server is up");
    let memory = server.join().expect("the server ends");
    assert_eq!((memory.applied.len(), memory.connections), (20_000, reconnected + 1));
}

#[test]
fn calls_survive_cuts_too() {
    let (address, server) = start(Script { cut_after: 7, ..Script::default() });
    let mut client = Client::connect(&config(&address)).expect("the server is up");
    for number in 1..=100_u64 {
        assert_eq!(client.call(&number.to_le_bytes()).expect("answered").payload, number.to_le_bytes());
    }
    client.close().expect("the server is up");
    assert_eq!(server.join().expect("the server ends").applied.len(), 100);
}

#[test]
fn two_full_directions_do_not_hold_each_other_up() {
    // The server writes each reply before it reads on: with 60 MB in flight both sockets are full.
    let (address, server) = start(Script::default());
    let large = ClientConfig { window_len: 1024, queue_size: 64 * 1024 * 1024, ..config(&address) };
    let mut client = Client::connect(&large).expect("the server is up");
    check_stream(&mut client, 1_500, 60_000);
    client.close().expect("the server is up");
    assert_eq!(server.join().expect("the server ends").applied.len(), 1_500);
}

#[test]
fn the_client_comes_back_after_a_full_outage() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a loopback port is free");
    let address = listener.local_addr().expect("bound").to_string();
    let again = address.clone();
    let server = std::thread::spawn(move || {
        let (stream, _) = listener.accept().expect("the listener is open");
        drop(listener);
        drop(stream);
        loop {
            // The port is ours again as soon as the kernel has let go of it.
            if let Ok(listener) = TcpListener::bind(&again) {
                return serve(&listener, Script::default(), Memory::default());
            }
            std::thread::yield_now();
        }
    });
    let mut client = Client::connect(&config(&address)).expect("the server comes back");
    assert_eq!(client.call(b"hello").expect("answered").payload, b"hello");
    client.close().expect("the server is up");
    assert_eq!(server.join().expect("the server ends").applied.len(), 1);
}

#[test]
fn nobody_there_is_told_with_the_cause() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a loopback port is free");
    let address = listener.local_addr().expect("bound").to_string();
    drop(listener);
    let hasty = ClientConfig { connect_timeout: Duration::from_millis(20), ..config(&address) };
    let Err(ClientError::ConnectTimeout { address: tried, trouble, .. }) = Client::connect(&hasty) else {
        panic!("nobody is there");
    };
    assert_eq!(tried, address);
    assert!(matches!(trouble, Some(Trouble::Unreachable(_))), "{trouble:?}");
    let nowhere = ClientConfig { endpoints: vec![], ..hasty };
    assert!(matches!(Client::connect(&nowhere), Err(ClientError::Config(_))));
}

#[test]
fn a_call_that_is_not_answered_in_time_says_so_and_the_next_goes_on() {
    let (address, server) = start(Script { silent_before: 2, ..Script::default() });
    let hasty = ClientConfig { request_timeout: Duration::from_millis(20), ..config(&address) };
    let mut client = Client::connect(&hasty).expect("the server is up");
    let Err(ClientError::RequestTimeout { request, trouble, .. }) = client.call(b"one") else {
        panic!("the server is silent");
    };
    assert_eq!((request, trouble, client.unanswered()), (RequestNumber(1), None, 1));
    let mut others = Vec::new();
    let reply = client.call_with(b"two", &mut |event| others.push(crate::fake::tell(event))).expect("answered");
    assert_eq!((reply.request, reply.payload), (RequestNumber(2), &b"two"[..]));
    assert_eq!(others, [crate::fake::applied(1, "one")]);
    client.close().expect("the server is up");
    server.join().expect("the server ends");
}

#[test]
fn poll_returns_when_its_time_is_over() {
    let (address, server) = start(Script::default());
    let mut client = Client::connect(&config(&address)).expect("the server is up");
    for timeout in [Duration::ZERO, Duration::from_millis(3), Duration::from_millis(70)] {
        let begun = std::time::Instant::now();
        assert_eq!(client.poll(Some(timeout), &mut |_| panic!("nothing was sent")).expect("the session lives"), 0);
        assert!(begun.elapsed() >= timeout);
    }
    client.try_send(b"x").expect("the window is empty");
    client.flush();
    let mut answered = 0;
    client.poll(None, &mut |_| answered += 1).expect("the session lives");
    assert_eq!(answered, 1);
    client.close().expect("the server is up");
    server.join().expect("the server ends");
}

#[test]
fn operators_ask_without_a_session() {
    let (address, server) = start(Script::default());
    let timeout = Duration::from_secs(5);
    assert_eq!(admin::status(&address, timeout).expect("answered"), r#"{"role":"leader"}"#);
    let answer = admin::digest(&address, timeout).expect("answered");
    assert_eq!((answer.code, answer.position, answer.text.as_str()), (0, Position(640), "begun"));
    assert_eq!(admin::transfer(&address, NodeId(2), timeout).expect("answered"), answer);
    let Err(ClientError::NotLeader { leader, .. }) = admin::transfer(&address, NodeId(1), timeout) else {
        panic!("the script redirects this one");
    };
    assert_eq!(leader, "elsewhere:1");
    Client::connect(&config(&address)).expect("the server is up").close().expect("the server is up");
    server.join().expect("the server ends");
    assert!(matches!(admin::status(&address, timeout), Err(ClientError::Admin { .. })));
}
