//! The command `evershard-tuning`: judges this host.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use evershard_tuning::{CpuList, Options, check};

/// Judges a Linux host for low-latency work.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Looks at the host and changes nothing. Ends with 1 if something is harmful.
    Check(CheckArguments),
}

#[derive(clap::Args)]
struct CheckArguments {
    /// The cores that shards will run on, such as `2-3,8`; the isolated ones when not given.
    #[arg(long)]
    cores: Option<CpuList>,
    /// The directory that the logs will lie in; it must exist.
    #[arg(long)]
    data: Option<PathBuf>,
    /// End with 1 also if something could be better.
    #[arg(long)]
    strict: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// Read `proc` and `sys` under this directory, and try nothing on the running kernel.
    #[arg(long)]
    sysroot: Option<PathBuf>,
}

fn main() -> ExitCode {
    let Command::Check(arguments) = Arguments::parse().command;
    match run(arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!(
                "error: {error:#}\n\nhint: --data names a directory that exists; --sysroot one with `proc` and `sys`"
            );
            ExitCode::from(2)
        }
    }
}

fn run(arguments: CheckArguments) -> Result<bool> {
    let data = arguments.data.map(|data| match &arguments.sysroot {
        // The mounts of another root are compared by their text.
        Some(_) => Ok(data),
        None => data.canonicalize().with_context(|| format!("cannot find {}", data.display())),
    });
    let options = Options {
        probe: arguments.sysroot.is_none(),
        sysroot: arguments.sysroot.unwrap_or_else(|| PathBuf::from("/")),
        cores: arguments.cores,
        data: data.transpose()?,
    };
    let report = check(&options);
    let text = if arguments.json { serde_json::to_string_pretty(&report)? + "\n" } else { report.to_string() };
    std::io::stdout().write_all(text.as_bytes()).context("cannot print the report")?;
    Ok(report.passes(arguments.strict))
}
