//! Writes made-up order flow in the neutral format to standard output: `sample [LINES] [SEED]`.
//!
//! The sample of this folder is `cargo run -p exchange --example sample > samples/orders-sample.csv`.

use std::io::{BufWriter, Write};

use exchange::generator::{Config, Generator};
use exchange::orders::{write_header, write_order};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let lines: usize = arguments.next().map_or(Ok(4000), |text| text.parse())?;
    let seed: u64 = arguments.next().map_or(Ok(1), |text| text.parse())?;
    let mut out = BufWriter::new(std::io::stdout().lock());
    write_header(&mut out)?;
    for order in Generator::new(Config { resting: 200, ..Config::new(seed) }).take(lines) {
        write_order(&mut out, &order)?;
    }
    out.flush()?;
    Ok(())
}
