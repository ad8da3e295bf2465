//! What of the paper is to be made, by the names that the command line takes.

use std::str::FromStr;

use super::settings::{Architecture, ImageSet};
use crate::net::Loss;
use crate::{Error, Result};

/// What is made of a network, or of none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

/// A table, a figure, a part, or everything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// As it was asked for.
    pub name: String,
    pub parts: Vec<Part>,
    /// What the paper's figure of that number was trained on.
    pub figure: Option<(ImageSet, Architecture, Loss)>,
}

impl Target {
    const NAMES: &'static str = "all, table1, table3, figure1 to figure15, scaling, alignment, evolution, suppression, bounds or synthetic";

    pub fn has(&self, part: Part) -> bool {
        self.parts.contains(&part)
    }

    /// Whether it is made of a trained network's layer.
    pub fn has_figures(&self) -> bool {
        self.parts.iter().any(|part| !matches!(part, Part::Tables | Part::Synthetic))
    }

    /// Whether a network has to be trained or given.
    pub fn needs_network(&self) -> bool {
        self.has(Part::Tables) || self.has_figures()
    }
}

impl FromStr for Target {
    type Err = Error;

    fn from_str(name: &str) -> Result<Target> {
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
        let figure = match number {
            Some(1 | 6 | 7 | 10) => Some((Cifar10, Cnn, CrossEntropy)),
            Some(4 | 8 | 11 | 15) => Some((Mnist, Mlp, CrossEntropy)),
            Some(5 | 9 | 12 | 14) => Some((Mnist, Mlp, SoftmaxMse)),
            Some(13) => Some((Cifar10, Mlp, CrossEntropy)),
            _ => None, // 2 and 3 are of several networks
        };
        Ok(Target { name: name.into(), parts, figure })
    }
}
