//! Order files, sound and broken.

use std::io::{Cursor, Write};

use exchange::orders::{AGGRESSOR_ID_MIN, HEADER, OrderFile, Skipped};
use exchange::wire::Order;
use exchange_book::Side;
use flate2::Compression;
use flate2::write::GzEncoder;
use proptest::prelude::*;

use crate::order;

fn open(name: &str, content: impl Into<Vec<u8>>) -> Result<OrderFile, String> {
    OrderFile::from_reader(name, Cursor::new(content.into()), None).map_err(|error| error.to_string())
}

fn read(name: &str, content: impl Into<Vec<u8>>) -> Result<Vec<(u64, Order)>, String> {
    open(name, content)?.map(|line| line.map_err(|error| error.to_string())).collect()
}

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(content).expect("a vector takes everything");
    encoder.finish().expect("a vector takes everything")
}

#[track_caller]
fn check_error(content: impl Into<Vec<u8>>, expected: &str) {
    assert_eq!(read("orders.csv", content).expect_err("it is broken"), expected);
}

fn sound() -> Vec<(u64, Order)> {
    vec![
        (2, order("A", 'N', 1, Side::Buy, 10, 5)),
        (3, order("A", 'I', 2, Side::Sell, 9, 9_223_372_036_854_775_807)),
        (5, order("A", 'M', 1, Side::Buy, 11, 4)),
        (6, order("B", 'C', 18_446_744_073_709_551_615, Side::Buy, 0, 0)),
    ]
}

const SOUND: &str = "symbol,op,order_id,side,price,qty\nA,N,1,B,10,5\nA,I,2,S,9,9223372036854775807\n\n\
    A,M,1,B,11,4\nB,C,18446744073709551615,,,\n\n";

#[test]
fn the_neutral_format_in_all_its_clothes() {
    let check = |content: Vec<u8>| assert_eq!(read("orders.csv", content), Ok(sound()));
    check(SOUND.into());
    check(SOUND.trim_end().into());
    check(SOUND.replace('\n', "\r\n").into());
    check(format!("\u{feff}{SOUND}").into());
    check(SOUND.replace("A,N,1,B,10,5", "\"A\",\"N\",\"1\", B ,10,\"5\"").into());
    check(gzip(SOUND.as_bytes()));
    let (front, back) = SOUND.as_bytes().split_at(40);
    check([gzip(front), gzip(back)].concat());
    let other_columns = "note,qty,price,side,order_id,op,symbol\nx,5,10,B,1,N,A\n";
    assert_eq!(read("orders.csv", other_columns), Ok(sound()[..1].to_vec()));
    assert_eq!(read("orders.csv", format!("{HEADER}\n")), Ok(Vec::new()));
}

#[test]
fn a_broken_line_is_named_and_explained() {
    let broken = |line: &str| format!("{HEADER}\r\n\r\nA,N,1,B,10,5\r\n{line}\r\nA,C,1,,,\r\n");
    check_error(broken("A,X,1,B,10,5"), "orders.csv line 4: op: expected N, I, M or C, found `X`");
    check_error(broken("A,N,1,b,10,5"), "orders.csv line 4: side: expected B or S, found `b`");
    check_error(broken("A,N,1,B,10"), "orders.csv line 4: expected 6 fields, found 5");
    check_error(
        broken("A,N,1,B,0,5"),
        "orders.csv line 4: price: expected an integer from 1 to 9223372036854775807, found `0`",
    );
    check_error(
        broken("A,N,1,B,1,9223372036854775808"),
        "orders.csv line 4: qty: expected an integer from 1 to 9223372036854775807, found `9223372036854775808`",
    );
    check_error(
        broken("A,N,-1,B,1,1"),
        "orders.csv line 4: order_id: expected an integer from 0 to 18446744073709551615, found `-1`",
    );
    check_error(
        broken("SEVENTEENLETTERSX,N,1,B,1,1"),
        "orders.csv line 4: symbol: expected 1 to 16 printable ASCII characters without space, comma or quote, \
         found `SEVENTEENLETTERSX`",
    );
    let lines: Vec<_> = open("orders.csv", broken("A,N,,B,1,1")).expect("a sound header").collect();
    assert_eq!(lines.iter().filter(|line| line.is_ok()).count(), 2, "the caller may go on");
    assert!(lines[1].as_ref().is_err_and(|error| error.is_one_line()));
}

#[test]
fn a_broken_file_is_explained() {
    let header = "expected the header `symbol,op,order_id,side,price,qty`, or LOBSTER messages, found";
    check_error("time,price\n", &format!("orders.csv line 1: {header} `time,price`"));
    check_error(b"\x7fELF\x00\xff\n", &format!("orders.csv line 1: {header} `\\u{{7f}}ELF\\0\u{fffd}`"));
    let empty = "the file is empty: expected the header `symbol,op,order_id,side,price,qty`, or LOBSTER messages";
    check_error("", &format!("orders.csv: {empty}"));
    let whole = gzip(SOUND.repeat(50).as_bytes());
    let cut = "the gzip data end too early: the file is incomplete, fetch or copy it again";
    assert!(read("orders.csv.gz", &whole[..whole.len() / 2]).is_err_and(|error| error.ends_with(cut)));
    assert!(read("orders.csv.gz", &whole[..9]).is_err_and(|error| error.ends_with(cut)));
    let mut damaged = whole.clone();
    damaged[whole.len() / 2] ^= 0xFF;
    assert!(read("orders.csv.gz", damaged).is_err());
    let long = format!("{HEADER}\nA,N,1,B,1,{}\n", "1".repeat(10_000));
    check_error(long, "orders.csv line 2: the line is longer than 4096 bytes: expected a CSV file of orders");
    let missing = OrderFile::open("/nonexistent/orders.csv").err().expect("there is no such file").to_string();
    assert!(missing.starts_with("/nonexistent/orders.csv: cannot open it: "), "{missing}");
}

const LOBSTER: &str = "\
34200.017459617,5,0,1,2238200,-1
34200.189608100,1,11885113,21,2238100,1
34200.189608200,1,11885114,30,2239500,-1
34200.2,2,11885113,6,2238100,1
34200.3,4,11885113,10,2238100,1
34200.4,4,777,10,2238100,1
34200.5,3,11885114,30,2239500,-1
34200.6,4,11885113,5,2238100,1
34200.7,6,-1,100,2238100,-1
34201,7,0,0,-1,-1
34201.5,3,11885113,5,2238100,1
";

#[test]
fn lobster_messages_become_instructions() {
    let name = "data/AAPL_2012-06-21_34200000_57600000_message_10.csv";
    let mut file = open(name, LOBSTER).expect("a first line that is understood");
    let found: Vec<_> = file.by_ref().map(|line| line.expect("a sound line")).collect();
    let expected = vec![
        (2, order("AAPL", 'N', 11_885_113, Side::Buy, 2_238_100, 21)),
        (3, order("AAPL", 'N', 11_885_114, Side::Sell, 2_239_500, 30)),
        (4, order("AAPL", 'M', 11_885_113, Side::Buy, 2_238_100, 15)),
        (5, order("AAPL", 'I', AGGRESSOR_ID_MIN, Side::Sell, 2_238_100, 10)),
        (7, order("AAPL", 'C', 11_885_114, Side::Sell, 0, 0)),
        (8, order("AAPL", 'I', AGGRESSOR_ID_MIN + 1, Side::Sell, 2_238_100, 5)),
    ];
    assert_eq!(found, expected);
    let skipped = Skipped { hidden_executions: 1, crosses: 1, halts: 1, unknown_orders: 2 };
    assert_eq!(file.skipped(), skipped);
}

#[test]
fn the_symbol_of_lobster_messages_must_be_known() {
    let expected = "messages.csv: LOBSTER messages do not name their symbol: \
        give it as SYMBOL=FILE, or name the file SYMBOL_...";
    assert_eq!(read("messages.csv", LOBSTER).expect_err("nothing tells the symbol"), expected);
    let symbol = "AAPL".parse().ok();
    let file = OrderFile::from_reader("messages.csv", Cursor::new(LOBSTER), symbol).expect("now it is known");
    assert_eq!(file.count(), 6);
    let given = OrderFile::from_reader("orders.csv", Cursor::new(SOUND), symbol).err().expect("one too many");
    assert_eq!(given.to_string(), "orders.csv: the file names its symbols itself: give it without SYMBOL=");
}

#[test]
fn a_symbol_may_be_given_before_the_file() {
    let sample = concat!(env!("CARGO_MANIFEST_DIR"), "/samples/orders-sample.csv");
    assert!(OrderFile::open(sample).is_ok());
    let error = OrderFile::open(&format!("AAPL={sample}")).err().expect("the sample has symbols");
    assert!(error.to_string().ends_with("give it without SYMBOL="));
}

proptest! {
    #[test]
    fn hostile_files_never_panic(mut content in proptest::collection::vec(any::<u8>(), 0..300), kind in 0_u8..4) {
        match kind {
            0 => content.splice(0..0, HEADER.bytes().chain(*b"\n")).count(),
            1 => content.splice(0..0, *b"1.5,1,1,1,1,1\n").count(),
            2 => content.splice(0..0, [0x1F, 0x8B, 8, 0]).count(),
            _ => 0,
        };
        let _ = open("A_x.csv", content.clone()).map(|file| file.take(1000).count());
        let _ = open("A_x.csv", gzip(&content)).map(|file| file.take(1000).count());
    }

    #[test]
    fn hostile_fields_never_panic(text in "([ABCIMNS0-9.\"-]{0,20},){5}[0-9-]{0,20}\n?") {
        for first in [HEADER, "1.5,1,1,1,1,1"] {
            let file = open("A_x.csv", format!("{first}\n{text}{text}"));
            prop_assert!(file.is_ok_and(|file| file.count() <= 3));
        }
    }
}
