//! Bytes no server sends: the connection ends, the session does not, and nothing panics.

use evershard_client::Trouble;
use evershard_protocol::client::{Request, Welcome};
use evershard_protocol::frame::FrameError;
use proptest::prelude::*;

use crate::fake::*;

/// `bytes` end the connection of a session that has requests 1 and 2 unanswered, and both are sent again.
fn check_dropped(bytes: &[u8], cause: Option<FrameError>) {
    let mut client = Harness::open(&["a:1", "b:1"]);
    client.send("1");
    client.send("2");
    client.said();
    assert_eq!(client.feed(bytes), []);
    assert!(!client.session.is_linked());
    match (client.session.trouble(), cause) {
        (Some(Trouble::Malformed(found)), Some(cause)) => assert_eq!(found, cause),
        (Some(Trouble::Malformed(_)), None) => {}
        other => panic!("expected a malformed frame, found {other:?}"),
    }
    assert_eq!(client.resume("b:1", 2), [Told::Reconnected { resent: 2 }]);
    assert_eq!(client.said_requests(), [1, 2]);
}

#[test]
fn frames_out_of_place_end_the_connection() {
    let request = Request { request: 1.into(), first_unanswered: 1.into() };
    check_dropped(&frame(&request, &[]), Some(FrameError::Unexpected { schema: 1, template: 2 }));
    check_dropped(&welcome(0), Some(FrameError::Unexpected { schema: 1, template: 33 }));
    let mut client = Harness::new(config(&["a:1"]));
    client.connect("a:1");
    assert_eq!(client.feed(&reply(1, b"too early")), []);
    assert!(!client.session.is_linked());
}

#[test]
fn fields_out_of_range_end_the_connection() {
    check_dropped(&reply(0, b""), Some(FrameError::Field("request")));
    check_dropped(&reply(3, b"never sent"), Some(FrameError::Field("request")));
    check_dropped(&reply(u64::MAX >> 8, b""), Some(FrameError::Field("request")));
    check_dropped(&busy(0), Some(FrameError::Field("expected")));
    check_dropped(&busy(4), Some(FrameError::Field("expected")));
    check_dropped(&busy(u64::MAX), Some(FrameError::Field("expected")));
}

#[test]
fn a_damaged_byte_ends_the_connection() {
    let mut bytes = reply(1, b"payload");
    *bytes.last_mut().expect("not empty") ^= 1;
    check_dropped(&bytes, Some(FrameError::Checksum));
}

#[test]
fn an_impossible_size_ends_the_connection() {
    check_dropped(&[0xff; 64], None);
    check_dropped(&[0; 64], Some(FrameError::Size(0)));
}

#[test]
fn a_welcome_that_makes_no_sense_is_not_believed() {
    let whole = welcome(0);
    let (good, _) = evershard_protocol::frame::Frame::take(&whole).expect("a frame").expect("whole");
    let (good, _) = good.read::<Welcome>().expect("a welcome");
    let bad = [
        Welcome { session: 0.into(), ..good },
        Welcome { session: (SESSION + 1).into(), ..good },
        Welcome { protocol: 2.into(), ..good },
        Welcome { window_len_max: 0.into(), ..good },
        Welcome { last_request: 1.into(), ..good },
        Welcome { last_request: u64::MAX.into(), ..good },
    ];
    for bad in bad {
        let mut client = Harness::open(&["a:1"]);
        client.session.on_disconnected(client.now, Trouble::Closed);
        client.connect("a:1");
        assert_eq!(client.feed(&frame(&bad, &[])), []);
        assert!(matches!(client.session.trouble(), Some(Trouble::Malformed(_))), "{bad:?}");
        assert_eq!(client.session.failure(), None);
    }
}

#[test]
fn frames_may_be_split_at_every_byte() {
    let bytes = [reply(1, b"first"), event(b"told"), pong(), reply(2, b"second"), reply(2, b"again")].concat();
    for split in 0..=bytes.len() {
        let mut client = Harness::open(&["a:1"]);
        client.send("1");
        client.send("2");
        client.said();
        let mut told = Vec::new();
        let taken = take_all(&mut client.session, &bytes[..split], client.now, &mut told);
        let taken = taken + take_all(&mut client.session, &bytes[taken..], client.now, &mut told);
        assert_eq!(taken, bytes.len());
        assert_eq!(
            told,
            [applied(1, "first"), Told::Event(b"told".to_vec()), applied(2, "second")],
            "split at {split}"
        );
    }
}

proptest! {
    #[test]
    fn noise_never_panics(noise in prop::collection::vec(any::<u8>(), 0..300), greeting in any::<bool>()) {
        let mut client = if greeting { Harness::new(config(&["a:1"])) } else { Harness::open(&["a:1"]) };
        if greeting {
            client.connect("a:1");
        }
        client.send("1");
        client.said();
        let mut told = Vec::new();
        let taken = take_all(&mut client.session, &noise, client.now, &mut told);
        prop_assert!(taken <= noise.len());
        prop_assert_eq!(told, []);
    }

    /// Whole frames with any template and block under a correct checksum: only the fields are hostile.
    #[test]
    fn well_formed_nonsense_never_panics(
        frames in prop::collection::vec((30_u16..44, prop::collection::vec(prop_oneof![Just(0_u8), Just(1), any::<u8>()], 0..64)), 1..20),
        greeting in any::<bool>(),
    ) {
        let mut client = if greeting { Harness::new(config(&["a:1"])) } else { Harness::open(&["a:1"]) };
        if greeting {
            client.connect("a:1");
        }
        client.send("1");
        client.send("2");
        client.said();
        let mut bytes = Vec::new();
        for (template, block) in frames {
            bytes.extend(raw_frame(template, &block));
        }
        let mut told = Vec::new();
        take_all(&mut client.session, &bytes, client.now, &mut told);
        let replies = told.iter().filter(|told| matches!(told, Told::Reply { .. })).count();
        prop_assert!(replies <= 2);
        client.advance_ms(10_000);
        client.said();
        client.session.want(client.now);
    }
}

fn raw_frame(template: u16, block: &[u8]) -> Vec<u8> {
    let size = u32::try_from(16 + block.len()).expect("short");
    let block_length = u16::try_from(block.len()).expect("short");
    let mut bytes = Vec::new();
    bytes.extend(size.to_le_bytes());
    bytes.extend([0; 4]);
    for field in [block_length, template, 1, 1] {
        bytes.extend(field.to_le_bytes());
    }
    bytes.extend(block);
    let checksum = evershard_protocol::checksum::crc32c(&bytes[8..]);
    bytes[4..8].copy_from_slice(&checksum.to_le_bytes());
    bytes
}
