//! Where the nodes and the client run. A node always pins its shard on a host with more cores than shards, so "the
//! kernel decides", which the floor also tries, is none of the layouts.

use anyhow::{Context, Result, ensure};
use evershard::node::IdleConfig;
use serde::{Deserialize, Serialize};

use super::PlacementOption;
use crate::floor::plan::{Placement, Role};

/// What the nodes of one cluster do when there is nothing to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Idling {
    /// All block.
    Park,
    /// All spin for a while, then block.
    Backoff,
    /// Who has a core alone spins there, the others block.
    SpinAlone,
}

/// Cores and idling of one cluster and its client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layout {
    /// As in the floor.
    pub placement: Placement,
    /// The processor of each of [`Role::ALL`].
    cores: [usize; 4],
    /// What the nodes do when there is nothing to do.
    pub idling: Idling,
    core_count: usize,
}

impl Layout {
    /// What to try. The first is the one the closed loop usually does best with.
    pub fn candidates(option: PlacementOption, quick: bool) -> Result<Vec<Self>> {
        let usable: Vec<usize> = core_affinity::get_core_ids()
            .context("cannot list the cores this process may use")?
            .into_iter()
            .map(|core| core.id)
            .collect();
        let tried: &[(Placement, Idling)] = match option {
            PlacementOption::OneCore => &[(Placement::OneCore, Idling::Park), (Placement::OneCore, Idling::Backoff)],
            PlacementOption::FollowersApart => {
                &[(Placement::FollowersApart, Idling::Park), (Placement::FollowersApart, Idling::Backoff)]
            }
            PlacementOption::LeaderAlone => {
                &[(Placement::LeaderAlone, Idling::Park), (Placement::LeaderAlone, Idling::Backoff)]
            }
            PlacementOption::ClientAlone => {
                &[(Placement::ClientAlone, Idling::Park), (Placement::ClientAlone, Idling::Backoff)]
            }
            PlacementOption::Auto if quick => &AUTO[..4],
            PlacementOption::Auto => &AUTO,
        };
        let fitting = tried.iter().filter(|(placement, _)| placement.fits(usable.len()));
        let layouts: Vec<Self> = fitting
            .filter_map(|&(placement, idling)| {
                let cores = placement.cores()?.map(|index| usable[index]);
                Some(Self { placement, cores, idling, core_count: usable.len() })
            })
            .collect();
        ensure!(!layouts.is_empty(), "the placement does not fit a machine with {} cores", usable.len());
        Ok(layouts)
    }

    /// The core of a node; node 0 leads.
    pub fn node_core(&self, node: u8) -> usize {
        self.cores[node_role(node) as usize]
    }

    /// How a node idles.
    pub fn node_idle(&self, node: u8) -> IdleConfig {
        match self.idling {
            Idling::Backoff => IdleConfig::Backoff,
            _ if self.spins_at(node_role(node)) => IdleConfig::Spin,
            _ => IdleConfig::Park,
        }
    }

    /// The client's core.
    pub fn client_core(&self) -> usize {
        self.cores[Role::Client as usize]
    }

    /// Whether the client spins.
    pub fn client_spins(&self) -> bool {
        self.spins_at(Role::Client)
    }

    /// For people.
    pub fn title(&self) -> String {
        let name = match self.placement {
            Placement::Unpinned => "unpinned",
            Placement::OneCore => "one-core",
            Placement::FollowersApart => "followers-apart",
            Placement::LeaderAlone => "leader-alone",
            Placement::ClientAlone => "client-alone",
            Placement::QuorumTogether => "quorum-together",
            Placement::CoreEach => "core-each",
        };
        let idling = match self.idling {
            Idling::Park => "park",
            Idling::Backoff => "backoff",
            Idling::SpinAlone => "alone spins",
        };
        format!("{name}, {idling}")
    }

    fn spins_at(&self, role: Role) -> bool {
        self.idling == Idling::SpinAlone && self.placement.is_alone(role, self.core_count)
    }
}

fn node_role(node: u8) -> Role {
    match node {
        0 => Role::Leader,
        1 => Role::FirstFollower,
        _ => Role::SecondFollower,
    }
}

/// What `auto` tries; the first four when in a hurry.
const AUTO: [(Placement, Idling); 8] = [
    (Placement::OneCore, Idling::Park),
    (Placement::FollowersApart, Idling::Backoff),
    (Placement::FollowersApart, Idling::Park),
    (Placement::OneCore, Idling::Backoff),
    (Placement::LeaderAlone, Idling::Park),
    (Placement::ClientAlone, Idling::Park),
    (Placement::LeaderAlone, Idling::SpinAlone),
    (Placement::QuorumTogether, Idling::Park),
];
