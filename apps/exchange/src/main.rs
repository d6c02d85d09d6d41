//! `exchange`: a node of a replicated exchange, and the demonstration.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use evershard::node::{NodeConfig, log_to_stderr, serve_until_signal};
use exchange::Exchange;
use exchange::demo::{self, DemoOptions};
use exchange::service::ExchangeLimits;

/// A replicated exchange on Evershard.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Three nodes, real orders, a leader killed half-way: shows that nothing is lost or applied twice.
    Demo(DemoOptions),
    /// Runs one node until SIGTERM.
    Node {
        /// The node's TOML; the docs of evershard-node::config show a whole one.
        #[arg(long)]
        config: PathBuf,
    },
}

fn main() -> ExitCode {
    log_to_stderr();
    match run(Arguments::parse().command) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {}", evershard::node::describe(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<bool> {
    match command {
        Command::Demo(options) => demo::run(&options),
        Command::Node { config } => {
            let config = NodeConfig::load(&config)?;
            serve_until_signal(&config, |_| Exchange::new(ExchangeLimits::default()))?;
            Ok(true)
        }
    }
}
