//! `evershard recover`: looks at the data directories that are left, and makes a new cluster of them.

use std::net::ToSocketAddrs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Args, Subcommand};

use evershard::node::salvage::files::{Recovery, Survivor, Written, best, shards, write};
use evershard::node::salvage::{Survey, quorum_among};
use evershard::protocol::NodeId;
use evershard::protocol::limits::NODE_ID_MAX;

use crate::host_and_port;

/// What is done.
#[derive(Subcommand)]
pub enum Step {
    /// Shows what each data directory holds of each shard, and which has the best log. Changes nothing.
    Inspect {
        #[command(flatten)]
        survivors: Survivors,
    },
    /// Writes the data directory of a new cluster's only node. The survivors' directories are not changed.
    Write {
        #[command(flatten)]
        survivors: Survivors,
        #[command(flatten)]
        target: Target,
    },
}

/// Where to read.
#[derive(Args)]
pub struct Survivors {
    /// Data directory of a node that survived and is stopped; repeat for several: each shard's best log is taken.
    #[arg(long = "data", required = true)]
    data: Vec<PathBuf>,
}

/// What to write.
#[derive(Args)]
pub struct Target {
    /// The new data directory, which does not exist yet.
    #[arg(long)]
    to: PathBuf,
    /// Name of the cluster that is lost: `cluster` in its nodes' files.
    #[arg(long)]
    old_cluster: String,
    /// Name of the new cluster. No cluster ever had it: the name keeps the lost nodes out for ever.
    #[arg(long)]
    new_cluster: String,
    /// Id of the new cluster's only node, best the survivor's.
    #[arg(long, value_parser = clap::value_parser!(u8).range(..=i64::from(NODE_ID_MAX)))]
    node: u8,
    /// Where its shard 0 will be found, `host:port`.
    #[arg(long, value_parser = host_and_port)]
    address: String,
    /// Why; it goes into the log, into the audit record.
    #[arg(long)]
    reason: String,
    /// Give up what is known to be lost: damaged blocks and all behind them, or what an unclean stop may have lost.
    #[arg(long)]
    accept_loss: bool,
}

/// Does it.
///
/// # Errors
/// What keeps it from being done, with a hint.
pub fn run(step: Step) -> Result<ExitCode> {
    match step {
        Step::Inspect { survivors } => {
            inspect(&open(&survivors)?);
            Ok(ExitCode::SUCCESS)
        }
        Step::Write { survivors, target } => recover(&mut open(&survivors)?, target),
    }
}

fn open(survivors: &Survivors) -> Result<Vec<Survivor>> {
    survivors.data.iter().map(|path| Ok(Survivor::open(path)?)).collect()
}

fn inspect(survivors: &[Survivor]) {
    for shard in 0..shards(survivors) {
        println!("shard {shard}");
        for survivor in survivors {
            let path = survivor.path.display();
            match survivor.shards.iter().find(|one| one.shard == shard).map(|one| &one.survey) {
                Some(Ok(survey)) => println!("  {path}\n{}", describe(survey)),
                Some(Err(error)) => println!("  {path}\n      ! {}", error.to_string().replace('\n', "\n        ")),
                None => println!("  {path}\n      ! has no such shard"),
            }
        }
        let known = survivors.iter().filter_map(|survivor| survivor.survey(shard));
        match (best(survivors, shard), quorum_among(known)) {
            (_, Some(membership)) => {
                println!("  these are a quorum of {membership}: start them as they are, nothing is to be recovered");
            }
            (Some(at), None) => println!("  best log: {}", survivors[at].path.display()),
            (None, None) => println!("  NOTHING can be recovered of this shard"),
        }
    }
}

fn describe(survey: &Survey) -> String {
    let Survey { identity, term, vote, start, kept, known, last_term, committed, .. } = survey;
    let vote = vote.map_or_else(|| "no vote".to_owned(), |node| format!("voted for node {node}"));
    let mut text = format!(
        "      cluster {:016x}, node {}, term {term}, {vote}\n      log {start} to {kept} in term {last_term}, known to \
         be committed up to {committed}",
        identity.cluster.0, identity.node
    );
    if known > kept {
        text.push_str(&format!(", once went up to {known}"));
    }
    match &survey.membership {
        Some((position, membership)) => text.push_str(&format!("\n      {membership}, since position {position}")),
        None => text.push_str("\n      members as in the nodes' files: none are in the log"),
    }
    for doubt in &survey.doubts {
        text.push_str(&format!("\n      ! {doubt}"));
    }
    text
}

fn recover(survivors: &mut [Survivor], target: Target) -> Result<ExitCode> {
    let mut found = target.address.to_socket_addrs().with_context(|| format!("cannot look up `{}`", target.address))?;
    let address = found.next().with_context(|| format!("`{}` has no address", target.address))?;
    let recovery = Recovery {
        old_cluster: target.old_cluster,
        new_cluster: target.new_cluster,
        node: NodeId(target.node),
        address,
        to: target.to,
        reason: target.reason,
        accept_loss: target.accept_loss,
    };
    let written = write(survivors, &recovery)?;
    for one in &written {
        println!("{}", tell(one));
    }
    println!("\n{}", what_next(&recovery, written.len()));
    Ok(ExitCode::SUCCESS)
}

fn tell(written: &Written) -> String {
    let Written { shard, from, copied } = written;
    let note = &copied.note;
    format!(
        "shard {shard}: taken from {}, node {} of {}, up to position {kept}, known to be committed up to {}. LOST, whether \
         acknowledged or not: all above position {kept} that only the lost nodes had",
        from.display(),
        note.survivor,
        note.membership,
        note.committed,
        kept = note.kept,
    )
}

fn what_next(recovery: &Recovery, shards: usize) -> String {
    let Recovery { old_cluster: old, new_cluster: new, node, address, to, .. } = recovery;
    let file = format!(
        "    cluster = {new:?}\n    node = {node}\n    data = {to:?}\n    shards = {shards}\n    nodes = [{{ id = {node}, \
         address = \"{address}\" }}]"
    );
    format!(
        "{} is the data directory of node {node}, the only one of cluster `{new}`. In its file:\n\n{file}\n\nIf the old file \
         has more shards, the others are in none of the directories: look for them before you start the node.\nThen add nodes \
         with empty data directories by `evershard member add` and `promote`; ids of the old cluster may be used again.\n\
         Never start the old directories again. None of them gets into `{new}`, but if several of the lost nodes come back \
         together, they may still be a quorum of `{old}`, and serve whoever does not ask for the cluster by its name.",
        to.display()
    )
}
