//! The session by scenario: handshake, redirects, resume, going back, refusals, limits.

use evershard_client::core::Want;
use evershard_client::{SendError, SessionError, Trouble};
use evershard_protocol::client::{RefusedCode, ReplyStatus};
use evershard_protocol::limits::PAYLOAD_SIZE_MAX;
use evershard_protocol::{NodeId, RequestNumber, SessionId};

use crate::fake::*;

#[test]
fn a_session_opens_sends_and_is_answered() {
    let mut client = Harness::open(&["a:1"]);
    assert_eq!(client.session.id(), SessionId(SESSION));
    assert_eq!(client.session.leader(), Some(NodeId(0)));
    assert_eq!((client.send("x"), client.send("y")), (1, 2));
    let said = client.said();
    assert_eq!(said[0], Said::Request { request: 1, first_unanswered: 1, payload: b"x".to_vec() });
    assert_eq!(said.len(), 2);
    assert_eq!(client.feed(&reply(1, b"X")), [applied(1, "X")]);
    client.send("z");
    assert_eq!(client.said(), [Said::Request { request: 3, first_unanswered: 2, payload: b"z".to_vec() }]);
    assert_eq!(client.feed(&[reply(2, b"Y"), event(b"E"), reply(3, b"Z")].concat()).len(), 3);
    assert_eq!(client.session.unanswered(), 0);
}

#[test]
fn requests_may_be_queued_before_the_session_is_open() {
    let mut client = Harness::new(config(&["a:1"]));
    client.send("early");
    client.connect("a:1");
    assert_eq!(client.said_requests(), []);
    client.feed(&welcome(0));
    assert_eq!(client.said_requests(), [1]);
}

#[test]
fn a_redirect_leads_to_the_leader_at_once() {
    let mut client = Harness::new(config(&["a:1", "b:1"]));
    client.connect("a:1");
    client.said();
    client.feed(&redirect("leader:1"));
    assert!(!client.session.is_linked());
    assert_eq!(client.session.want(client.now), Want::Connect("leader:1"));
    client.session.on_connected(client.now);
    assert_eq!(client.said(), [Said::Hello { session: 0, token: 77, first_unanswered: 1 }]);
    client.feed(&welcome(0));
    assert!(client.session.is_open());
}

#[test]
fn a_redirect_to_nobody_asks_the_next_endpoint_after_a_short_pause() {
    let mut client = Harness::new(config(&["a:1", "b:1"]));
    for address in ["a:1", "b:1", "a:1"] {
        let before = client.now;
        client.connect(address);
        assert!(client.now.since(before) <= 5_000_000, "a short pause");
        client.feed(&redirect(""));
        assert_eq!(client.session.trouble(), Some(Trouble::NoLeader));
    }
}

#[test]
fn a_redirect_in_mid_stream_resumes_at_the_new_leader() {
    let mut client = Harness::open(&["a:1", "b:1"]);
    client.send("x");
    client.said();
    client.feed(&redirect("b:1"));
    assert_eq!(client.resume("b:1", 1), [Told::Reconnected { resent: 1 }]);
    assert_eq!(client.said_requests(), [1]);
    assert_eq!(client.feed(&reply(1, b"X")), [applied(1, "X")]);
}

#[test]
fn resume_sends_exactly_the_unanswered_in_order_under_the_same_numbers() {
    let mut client = Harness::open(&["a:1", "b:1"]);
    for payload in ["1", "2", "3", "4", "5"] {
        client.send(payload);
    }
    client.said();
    client.feed(&[reply(1, b"1"), reply(2, b"2")].concat());
    client.session.on_disconnected(client.now, Trouble::Closed);
    client.send("6");
    assert_eq!(client.said(), []);
    assert_eq!(client.resume("b:1", 4), [Told::Reconnected { resent: 3 }]);
    let expected = ["3", "4", "5", "6"].iter().zip(3..).map(|(payload, request)| Said::Request {
        request,
        first_unanswered: 3,
        payload: payload.as_bytes().to_vec(),
    });
    assert_eq!(client.said(), expected.collect::<Vec<_>>());
}

#[test]
fn a_reply_that_overtakes_the_resent_requests_waits_for_its_turn() {
    let mut client = Harness::open(&["a:1"]);
    client.send("1");
    client.send("2");
    client.said();
    client.session.on_disconnected(client.now, Trouble::Closed);
    client.resume("a:1", 2);
    // Applied just now, while our repetition of both is under way.
    assert_eq!(client.feed(&reply(2, b"2")), []);
    assert_eq!(client.said_requests(), [1, 2]);
    assert_eq!(client.feed(&[reply(1, b"1"), reply(2, b"2")].concat()), [applied(1, "1"), applied(2, "2")]);
}

#[test]
fn a_reply_that_comes_before_its_repetition_saves_it() {
    let mut client = Harness::open(&["a:1"]);
    client.send("1");
    client.send("2");
    client.said();
    client.session.on_disconnected(client.now, Trouble::Closed);
    client.resume("a:1", 2);
    assert_eq!(client.feed(&reply(1, b"1")), [applied(1, "1")]);
    assert_eq!(client.said_requests(), [2]);
}

#[test]
fn repeated_replies_are_ignored() {
    let mut client = Harness::open(&["a:1"]);
    client.send("1");
    client.said();
    assert_eq!(client.feed(&[reply(1, b"1"), reply(1, b"1"), reply(1, b"other")].concat()), [applied(1, "1")]);
    assert!(client.session.is_open());
}

#[test]
fn busy_goes_back_after_pauses_that_double_and_progress_makes_short_again() {
    let mut client = Harness::open(&["a:1"]);
    for payload in ["1", "2", "3", "4"] {
        client.send(payload);
    }
    assert_eq!(client.said_requests(), [1, 2, 3, 4]);
    for pause_ms in [1, 2, 4, 8, 16, 32, 50, 50] {
        client.feed(&busy(3));
        client.advance_ms(pause_ms - 1);
        assert_eq!(client.said_requests(), []);
        client.advance_ms(1);
        assert_eq!(client.said_requests(), [3, 4]);
    }
    client.feed(&[reply(1, b"1"), busy(3)].concat());
    client.advance_ms(1);
    assert_eq!(client.said_requests(), [3, 4]);
    assert_eq!(client.feed(&[reply(2, b"2"), reply(3, b"3"), reply(4, b"4")].concat()).len(), 3);
}

#[test]
fn busy_said_twice_pauses_once() {
    let mut client = Harness::open(&["a:1"]);
    client.send("1");
    client.send("2");
    client.said();
    client.feed(&[busy(1), busy(1)].concat());
    client.advance_ms(1);
    assert_eq!(client.said_requests(), [1, 2]);
}

#[test]
fn forgotten_and_oversized_requests_are_told_and_the_session_goes_on() {
    let mut client = Harness::open(&["a:1"]);
    client.send("1");
    client.send("2");
    client.said();
    for (request, status) in [(1, ReplyStatus::ReplyForgotten), (2, ReplyStatus::PayloadTooLarge)] {
        let told = client.feed(&reply_with(request, status, &[]));
        assert_eq!(told, [Told::Reply { request, status, payload: vec![] }]);
    }
    assert!(client.session.is_open());
}

#[test]
fn an_unknown_session_is_lost_and_never_opened_again_silently() {
    let mut client = Harness::open(&["a:1"]);
    client.send("1");
    client.said();
    client.session.on_disconnected(client.now, Trouble::Closed);
    client.connect("a:1");
    client.feed(&refused(RefusedCode::SessionUnknown));
    let lost = SessionError::SessionLost { session: SessionId(SESSION), unanswered: 1 };
    assert_eq!(client.session.failure(), Some(&lost));
    assert_eq!(client.session.want(client.now), Want::Nothing);
    assert_eq!(client.session.send(b"2"), Err(SendError::Ended));
    assert_eq!(client.said(), []);
}

#[test]
fn a_cluster_that_forgot_acknowledged_requests_is_reported() {
    let mut client = Harness::open(&["a:1"]);
    client.send("1");
    client.send("2");
    client.said();
    client.feed(&[reply(1, b"1"), reply(2, b"2")].concat());
    client.session.on_disconnected(client.now, Trouble::Closed);
    client.resume("a:1", 1);
    let lost =
        SessionError::HistoryLost { session: SessionId(SESSION), answered: RequestNumber(2), known: RequestNumber(1) };
    assert_eq!(client.session.failure(), Some(&lost));
}

#[test]
fn refusals_that_may_pass_are_tried_again_and_the_others_are_final() {
    for code in [RefusedCode::SessionsFull, RefusedCode::Slow] {
        let mut client = Harness::new(config(&["a:1"]));
        for _ in 0..10 {
            client.connect("a:1");
            client.feed(&refused(code));
            assert_eq!(client.session.trouble(), Some(Trouble::Refused(code)));
        }
        assert_eq!(client.session.failure(), None);
    }
    for code in [RefusedCode::Protocol, RefusedCode::Cluster, RefusedCode::Shard, RefusedCode::Token] {
        let mut client = Harness::new(config(&["a:1"]));
        client.connect("a:1");
        client.feed(&refused(code));
        let (address, text) = ("a:1".to_owned(), "says the script".to_owned());
        assert_eq!(client.session.failure(), Some(&SessionError::Refused { address, code, text }));
    }
}

#[test]
fn being_superseded_again_and_again_is_final() {
    let mut client = Harness::open(&["a:1"]);
    for _ in 0..2 {
        client.feed(&refused(RefusedCode::Superseded));
        client.resume("a:1", 0);
        assert!(client.session.is_open(), "it may have been our own last connection");
    }
    client.feed(&refused(RefusedCode::Superseded));
    assert_eq!(client.session.failure(), Some(&SessionError::Superseded { session: SessionId(SESSION) }));
}

#[test]
fn the_window_is_the_smaller_of_both_sides() {
    let mut client = Harness::new(config(&["a:1", "b:1"]));
    client.connect("a:1");
    client.feed(&welcome(0));
    for payload in 1..=8 {
        client.send(&payload.to_string());
    }
    assert_eq!(client.session.send(b"9"), Err(SendError::WindowFull));
    assert_eq!(client.said_requests(), [1, 2, 3, 4, 5, 6, 7, 8]);
    // The next leader allows less: the rest waits in the queue.
    client.session.on_disconnected(client.now, Trouble::Closed);
    client.connect("b:1");
    client.feed(&welcome_with(0, 3));
    assert_eq!(client.said_requests(), [1, 2, 3]);
    client.feed(&reply(1, b""));
    assert_eq!(client.said_requests(), [4]);
    assert_eq!(client.session.send(b"9"), Err(SendError::WindowFull));
}

#[test]
fn bytes_bound_the_queue_and_one_command() {
    let mut client = Harness::open(&["a:1"]);
    let (size, max) = (PAYLOAD_SIZE_MAX + 1, PAYLOAD_SIZE_MAX);
    assert_eq!(client.session.send(&vec![0; size]), Err(SendError::PayloadTooLarge { size, max }));
    assert_eq!(client.session.send(&vec![0; max]), Ok(RequestNumber(1)));
    assert_eq!(client.session.send(&[0]), Err(SendError::QueueFull));
    client.said();
    client.feed(&reply(1, b""));
    assert_eq!(client.session.send(&[0]), Ok(RequestNumber(2)));
}

#[test]
fn output_that_is_full_keeps_the_rest_queued() {
    let mut client = Harness::open(&["a:1"]);
    for _ in 0..4 {
        client.send("0123456789");
    }
    client.out = Vec::with_capacity(100);
    assert_eq!(client.said_requests(), [1, 2]);
    assert_eq!(client.said_requests(), [3, 4]);
    assert!(client.out.capacity() <= 100, "the output never grows");
}

#[test]
fn close_comes_after_the_requests_and_ends_the_session() {
    let mut client = Harness::open(&["a:1"]);
    client.send("1");
    assert!(!client.session.close(&mut client.out), "a request waits to be sent");
    client.said();
    assert!(client.session.close(&mut client.out));
    assert_eq!(parse(&client.out), [Said::Close]);
    assert_eq!(client.session.failure(), Some(&SessionError::Closed));
}

#[test]
fn questions_are_asked_again_on_the_next_connection_until_they_are_answered() {
    let mut harness = Harness::open(&["a:1", "b:1"]);
    let ask = |harness: &mut Harness, text: &str| harness.session.query(text.as_bytes()).expect("room").0;
    assert_eq!((ask(&mut harness, "one"), ask(&mut harness, "two")), (1, 2));
    let said = |query, text: &str| Said::Query { query, payload: text.as_bytes().to_vec() };
    assert_eq!(harness.said(), [said(1, "one"), said(2, "two")]);
    let told = |query, text: &str| Told::Answer { query, payload: text.as_bytes().to_vec() };
    assert_eq!(harness.feed(&answer(1, b"1")), [told(1, "1")]);
    harness.session.on_disconnected(harness.now, Trouble::Closed);
    let address = harness.session.address().to_owned();
    harness.resume(&address, 0);
    assert_eq!(harness.said(), [said(2, "two")], "what was answered is not asked again");
    assert_eq!(harness.feed(&answer(2, b"2")), [told(2, "2")]);
    assert_eq!(harness.session.unanswered_queries(), 0);
    harness.feed(&answer(7, b"?"));
    assert!(!harness.session.is_linked(), "an answer to what nobody asked is no answer");
}

/// The story: a leader was paused, another one was elected and answered request 1. The client's connection broke, and the
/// old leader woke up and welcomed it: as far as it knew, nothing had been taken. The client took that for the loss of
/// acknowledged data and ended its session for good.
#[test]
fn a_deposed_leader_that_does_not_know_it_yet_says_nothing_about_history() {
    let mut harness = Harness::open(&["a:1", "b:1"]);
    let term = |term: u64, last: u64| {
        let mut bytes = welcome(last);
        let block = 16 + bytes[16..].len() - 8;
        bytes[block..].copy_from_slice(&term.to_le_bytes());
        let checksum = evershard_protocol::checksum::crc32c(&bytes[8..]);
        bytes[4..8].copy_from_slice(&checksum.to_le_bytes());
        bytes
    };
    harness.session.on_disconnected(harness.now, Trouble::Closed);
    harness.connect("b:1");
    harness.said();
    assert_eq!(harness.feed(&term(2, 0)), [Told::Reconnected { resent: 0 }]);
    harness.send("x");
    harness.said();
    assert_eq!(harness.feed(&reply(1, b"x")), [applied(1, "x")]);
    harness.session.on_disconnected(harness.now, Trouble::Closed);
    harness.connect("a:1");
    harness.said();
    assert_eq!(harness.feed(&term(1, 0)), []);
    assert_eq!(harness.session.failure(), None, "it is asked again elsewhere");
    harness.connect("b:1");
    harness.said();
    assert_eq!(harness.feed(&term(2, 1)), [Told::Reconnected { resent: 0 }]);
}
