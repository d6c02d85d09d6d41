//! The session when nothing comes: pings, silence, stalls, outages.

use evershard_client::Trouble;
use evershard_client::core::Want;
use evershard_protocol::Instant;
use evershard_protocol::time::MILLISECOND_NS;

use crate::fake::*;

#[test]
fn an_idle_connection_is_pinged_and_given_up_without_an_answer() {
    let mut client = Harness::open(&["a:1", "b:1"]);
    client.advance_ms(999);
    assert_eq!(client.said(), []);
    client.advance_ms(1);
    assert_eq!(client.said(), [Said::Ping]);
    client.advance_ms(1_500);
    client.feed(&pong());
    client.advance_ms(1_000);
    assert_eq!(client.said(), [Said::Ping]);
    client.advance_ms(1_999);
    assert!(client.session.is_open());
    client.advance_ms(1);
    assert_eq!(client.session.trouble(), Some(Trouble::Silent));
    client.resume("b:1", 0);
}

#[test]
fn silence_is_counted_from_when_something_was_awaited() {
    let mut client = Harness::open(&["a:1"]);
    // The caller was away for an hour: neither an idle connection nor a fresh request is to blame.
    client.now = client.now.after(3_600_000 * MILLISECOND_NS);
    client.send("1");
    assert_eq!(client.said_requests(), [1]);
    client.advance_ms(999);
    assert_eq!(client.said(), []);
    client.advance_ms(1);
    assert_eq!(client.said(), [Said::Ping]);
    client.advance_ms(999);
    assert!(client.session.is_open());
    client.advance_ms(1);
    assert_eq!(client.session.trouble(), Some(Trouble::Silent));
}

#[test]
fn half_a_frame_is_a_sign_of_life() {
    let mut client = Harness::open(&["a:1"]);
    client.send("1");
    client.said();
    client.advance_ms(1_900);
    let bytes = reply(1, b"long");
    assert_eq!(client.session.take(&bytes[..5], client.now).size, 0);
    client.advance_ms(1_900);
    assert!(client.session.is_open());
    assert_eq!(client.feed(&bytes), [applied(1, "long")]);
}

#[test]
fn a_server_that_lives_but_answers_nothing_is_left() {
    let mut client = Harness::open(&["a:1", "b:1"]);
    client.send("1");
    client.said();
    for _ in 0..5 {
        assert!(client.session.is_open());
        client.advance_ms(999);
        client.feed(&pong());
    }
    client.advance_ms(5);
    assert_eq!(client.session.trouble(), Some(Trouble::Stalled));
    client.resume("b:1", 0);
    assert_eq!(client.said_requests(), [1]);
}

#[test]
fn a_greeting_that_is_not_answered_is_given_up() {
    let mut client = Harness::new(config(&["a:1", "b:1"]));
    client.connect("a:1");
    client.said();
    client.advance_ms(2_000);
    assert_eq!(client.session.trouble(), Some(Trouble::Silent));
    assert_eq!(client.session.want(client.now), Want::Connect("b:1"));
}

#[test]
fn a_connection_that_does_not_come_about_is_given_up() {
    let mut client = Harness::new(config(&["a:1", "b:1"]));
    assert_eq!(client.session.want(client.now), Want::Connect("a:1"));
    client.advance_ms(499);
    assert!(client.session.is_connecting());
    client.advance_ms(1);
    assert_eq!(client.session.trouble(), Some(Trouble::Unanswered));
    assert_eq!(client.session.want(client.now), Want::Connect("b:1"));
}

#[test]
fn a_total_outage_is_waited_out_with_bounded_pauses() {
    let mut client = Harness::open(&["a:1", "b:1", "c:1"]);
    client.send("1");
    client.said();
    client.session.on_disconnected(client.now, Trouble::Closed);
    let mut attempts = 0;
    let end = client.now.after(10_000 * MILLISECOND_NS);
    while client.now < end {
        match client.session.want(client.now) {
            Want::Connect(_) => {
                attempts += 1;
                let refused = Trouble::Unreachable(std::io::ErrorKind::ConnectionRefused);
                client.session.on_disconnected(client.now, refused);
            }
            Want::Wait(until) => {
                assert!(until.since(client.now) <= 100 * MILLISECOND_NS, "the cluster's return is seen soon");
                client.now = until;
            }
            Want::Nothing => panic!("an outage is not the end"),
        }
    }
    assert!((100..1_000).contains(&attempts), "{attempts} attempts in ten seconds");
    let address = client.session.address().to_owned();
    assert_eq!(client.resume(&address, 0), [Told::Reconnected { resent: 1 }]);
    assert_eq!(client.said_requests(), [1]);
}

#[test]
fn timers_are_always_named_in_advance() {
    let mut client = Harness::open(&["a:1"]);
    client.send("1");
    client.said();
    client.feed(&busy(1));
    let mut last = Instant(0);
    while client.session.is_open() {
        let Want::Wait(until) = client.session.want(client.now) else {
            panic!("an open session waits");
        };
        assert!(last < until, "a timer that has acted is not named again");
        last = until;
        client.now = until;
        client.session.on_tick(client.now);
        client.said();
    }
    assert_eq!(client.session.trouble(), Some(Trouble::Silent));
}
