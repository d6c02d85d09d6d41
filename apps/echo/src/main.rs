//! `echo`: a node that echoes, and a client to try it with.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use echo::Echo;
use evershard::node::{NodeConfig, serve_until_signal};
use evershard::{Client, ClientConfig, ShardId};

/// The smallest service on Evershard.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs one node until SIGTERM.
    Node {
        /// The node's TOML.
        #[arg(long)]
        config: PathBuf,
    },
    /// Sends one command and prints the reply.
    Call {
        /// Addresses of the shard on any nodes, `host:port`.
        #[arg(long, value_delimiter = ',', required = true)]
        cluster: Vec<String>,
        /// The shard those addresses belong to.
        #[arg(long, default_value_t = 0)]
        shard: u16,
        /// What to send.
        text: String,
    },
}

fn main() -> ExitCode {
    evershard::node::log_to_stderr();
    match run(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", evershard::node::describe(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<()> {
    match command {
        Command::Node { config } => serve_until_signal(&NodeConfig::load(&config)?, |_| Echo::default())?,
        Command::Call { cluster, shard, text } => {
            let mut client = Client::connect(&ClientConfig::new(cluster, ShardId(shard)))?;
            let reply = client.call(text.as_bytes())?;
            println!("{} (position {}, {:?})", String::from_utf8_lossy(reply.payload), reply.position, reply.promise);
            client.close()?;
        }
    }
    Ok(())
}
