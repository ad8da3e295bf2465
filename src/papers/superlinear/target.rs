//! What of the paper is to be made, by the names that the command line takes.

use std::str::FromStr;

use super::members::Member;
use super::settings::{Architecture, ImageSet};
use crate::net::Loss;
use crate::{Error, Result};

/// What is made of a network, or of none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// Tables 1 and 3.
    Tables,
    /// Figures 2 and 10–12.
    Scaling,
    /// Figures 1 and 7–9.
    Alignment,
    /// Figures 4–6.
    Evolution,
    /// Figures 3 and 13–15.
    Suppression,
    /// Theorem 5.1.
    Bounds,
    /// Section 5.2 and Appendix E.4.
    Synthetic,
}

impl Part {
    /// The files that it is written to: tables to the folder of all, studies to one of their own in it, figures to that
    /// of their network.
    pub fn files(self) -> Vec<String> {
        let list = |names: &[&str]| names.iter().map(|name| name.to_string()).collect();
        match self {
            Part::Tables => list(&["table1.csv", "table1_summary.csv"]),
            Part::Scaling => list(&["scaling.csv", "exponents.csv", "scaling.svg", "scaling_members.svg"]),
            Part::Alignment => {
                let maps = ["covariance", "correlation", "correlation_random", "correlation_all"];
                let maps =
                    maps.into_iter().flat_map(|map| Member::ALL.map(|of| format!("{map}_{}.svg", of.key())));
                maps.chain(list(&["alignment.json", "alignment.csv"])).collect()
            }
            Part::Evolution => {
                let panels = ('a'..='h').map(|letter| format!("evolution_{letter}.svg"));
                panels.chain(list(&["evolution.csv", "diagonals.csv"])).collect()
            }
            Part::Suppression => list(&[
                "suppression.csv",
                "suppression_spectra.csv",
                "suppression.svg",
                "suppression_first_modes.svg",
                "suppression_equal.svg",
            ]),
            Part::Bounds => list(&["bounds.csv", "bounds.svg"]),
            Part::Synthetic => list(&[
                "synthetic/synthetic.csv",
                "synthetic/synthetic_random_shifts.svg",
                "synthetic/synthetic_perfect_alignment.svg",
                "synthetic/synthetic_spectral_degeneracy.svg",
            ]),
        }
    }
}

/// A table, a figure, a part, or everything; or several of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// As it was asked for.
    pub name: String,
    /// What is made, in the order of [`Part`] and each once.
    pub parts: Vec<Part>,
    /// The networks that the paper's tables and figures of these numbers are of, where they are of these alone.
    pub networks: Vec<PaperNetwork>,
}

/// A network of the paper: images, family, loss.
pub type PaperNetwork = (ImageSet, Architecture, Loss);

impl Target {
    const NAMES: &'static str = "all, table1, table3, figure1 to figure15, scaling, alignment, evolution, suppression, bounds or synthetic";

    /// Returns whether `part` is to be made.
    pub fn has(&self, part: Part) -> bool {
        self.parts.contains(&part)
    }

    /// Whether it is made of a trained network's layer.
    pub fn has_figures(&self) -> bool {
        self.parts.iter().any(|part| !matches!(part, Part::Tables | Part::Synthetic))
    }

    /// What is left of `all` for a layer that the tables are not of, or, where it is not `trained` here, for a checkpoint
    /// without a history; every other target stays as it is.
    pub fn of_layer(mut self, trained: bool) -> Target {
        if self.name == "all" {
            self.parts.retain(|part| match part {
                Part::Tables | Part::Synthetic => false,
                Part::Evolution => trained,
                _ => true,
            });
        }
        self
    }

    /// Whether a network has to be trained or given.
    pub fn needs_network(&self) -> bool {
        self.has(Part::Tables) || self.has_figures()
    }
}

impl FromStr for Target {
    type Err = Error;

    /// Of a name, or of several with commas between them.
    fn from_str(names: &str) -> Result<Target> {
        let named = names.split(',').map(named).collect::<Result<Vec<_>>>()?;
        let mut parts: Vec<Part> = named.iter().flat_map(|(parts, _)| parts).copied().collect();
        parts.sort_unstable();
        parts.dedup();
        let mut networks: Vec<PaperNetwork> = Vec::new();
        if named.iter().all(|(_, networks)| !networks.is_empty()) {
            for network in named.into_iter().flat_map(|(_, networks)| networks) {
                if !networks.contains(&network) {
                    networks.push(network);
                }
            }
        }
        Ok(Target { name: names.into(), parts, networks })
    }
}

/// The parts and the networks of one name.
fn named(name: &str) -> Result<(Vec<Part>, Vec<PaperNetwork>)> {
    use Architecture::{Cnn, Mlp};
    use ImageSet::{Cifar10, Mnist};
    use Loss::{CrossEntropy, SoftmaxMse};
    use Part::*;

    let number = name.strip_prefix("figure").and_then(|number| number.parse::<u8>().ok());
    let parts = match (name, number) {
        ("all", _) => vec![Tables, Scaling, Alignment, Evolution, Suppression, Bounds, Synthetic],
        ("table1" | "table3", _) => vec![Tables],
        ("scaling", _) | (_, Some(2 | 10..=12)) => vec![Scaling],
        ("alignment", _) | (_, Some(1 | 7..=9)) => vec![Alignment],
        ("evolution", _) | (_, Some(4..=6)) => vec![Evolution],
        ("suppression", _) | (_, Some(3 | 13..=15)) => vec![Suppression],
        ("bounds", _) => vec![Bounds],
        ("synthetic", _) => vec![Synthetic],
        _ => return Err(Error::argument("superlinear", format!("“{name}”"), Target::NAMES)),
    };
    let networks = match (name, number) {
        (_, Some(1 | 6 | 7 | 10)) => vec![(Cifar10, Cnn, CrossEntropy)],
        (_, Some(4 | 8 | 11 | 15)) => vec![(Mnist, Mlp, CrossEntropy)],
        ("table3", _) | (_, Some(5 | 9 | 12 | 14)) => vec![(Mnist, Mlp, SoftmaxMse)],
        (_, Some(13)) => vec![(Cifar10, Mlp, CrossEntropy)],
        (_, Some(3)) => vec![(Cifar10, Mlp, CrossEntropy), (Mnist, Mlp, SoftmaxMse)],
        _ => vec![], // Figure 2 does not name its networks
    };
    Ok((parts, networks))
}
