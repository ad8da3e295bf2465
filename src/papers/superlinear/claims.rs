//! What the paper says in numbers of the figures of one network, and how the network at hand departs from the paper's.

use super::settings::{Architecture, ImageSet, PublishedExponents, Setting};
use crate::net::Loss;
use crate::report::Finding;

/// The classes of the networks that the figures are of.
pub const FIGURE_CLASSES: usize = 10;
/// θ of networks that the paper has no suppression experiment of.
const THETA: f64 = 0.05;

/// The numbers of the figures of one network; nothing for those that the paper has no figures of.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Claims {
    /// Those of Tables 1 and 3.
    pub exponents: Option<PublishedExponents>,
    /// 𝒩 of Figures 10–12.
    pub scaling_top: Option<usize>,
    /// μ of C (Section 2.2, Figure 1).
    pub coupling: Option<f64>,
    /// M (Appendix D.3).
    pub effective_rank: Option<f64>,
    /// μ of unrelated eigenvectors (Appendix D.3, eq. 47).
    pub chance: Option<f64>,
    /// Figures 3 and 13–15.
    pub suppression: Option<PublishedSuppression>,
    /// The epoch around which all training images come to be classified rightly (Figure 4 e).
    pub converged: Option<u64>,
    /// How the network at hand departs from the paper's, where it does.
    pub departure: Option<String>,
}

/// The suppression experiment as published.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PublishedSuppression {
    /// Above which share of the largest κ₁ a sample counts as stiff (eq. 24).
    pub theta: f64,
    /// The stiff ones of 200 samples.
    pub stiff: usize,
    /// γ with unchanged spectra.
    pub gamma: f64,
}

impl Claims {
    /// What is published of the network of `setting` where `layer` is the paper's, whatever number of classes it was
    /// trained on; `accuracy` is that of the network at hand on its training set.
    pub fn of(setting: Option<&Setting>, layer: &str, accuracy: f64) -> Claims {
        let papers = |setting: &&Setting| layer == setting.model.network(setting.dataset).1;
        let Some(setting) = setting.filter(papers) else { return Claims::default() };
        let mut departures = setting.departures(accuracy);
        let published = |theta, stiff, gamma| Some(PublishedSuppression { theta, stiff, gamma });
        let none = Claims::default();
        let figures = match (setting.dataset, setting.model, setting.loss) {
            (ImageSet::Cifar10, Architecture::Cnn, Loss::CrossEntropy) => Claims {
                scaling_top: Some(1_500),
                coupling: Some(0.066),
                effective_rank: Some(20.0),
                chance: Some(0.178),
                ..none
            },
            (ImageSet::Cifar10, Architecture::Mlp, Loss::CrossEntropy) => {
                Claims { suppression: published(0.001, 36, 1.4), ..none }
            }
            (ImageSet::Mnist, Architecture::Mlp, Loss::CrossEntropy) => Claims {
                scaling_top: Some(1_500),
                suppression: published(0.05, 20, 1.1),
                converged: Some(30),
                ..none
            },
            (ImageSet::Mnist, Architecture::Mlp, Loss::SoftmaxMse) => {
                Claims { scaling_top: Some(1_500), suppression: published(0.05, 33, 1.05), ..none }
            }
            _ => none,
        };
        let of_these_classes = setting.classes == FIGURE_CLASSES;
        if !of_these_classes && figures != Claims::default() {
            departures.push(format!("{} classes in place of {FIGURE_CLASSES}", setting.classes));
        }
        Claims {
            exponents: setting.published,
            scaling_top: figures.scaling_top.filter(|_| of_these_classes),
            departure: (!departures.is_empty()).then(|| departures.join(", ")),
            ..figures
        }
    }

    /// θ
    pub fn theta(&self) -> f64 {
        self.suppression.map_or(THETA, |published| published.theta)
    }

    /// Sets a measured number beside a published one; `within` is the share of it that is allowed for. That the network
    /// is not the paper's is said whether they agree or not: it excuses neither.
    pub fn compare(&self, what: &str, found: f64, published: f64, within: f64) -> Finding {
        let apart = found / published - 1.0;
        let sentence = format!(
            "{what} is {}, {published} published: {:+.0} %, {:.0} % being allowed for{}.",
            three_digits(found),
            100.0 * apart,
            100.0 * within,
            departing(self.departure.as_slice()),
        );
        Finding::new(apart.abs() <= within, sentence)
    }
}

/// What a comparison with the paper says of how the network departs from the paper's, where it does.
pub fn departing(departures: &[String]) -> String {
    match departures {
        [] => String::new(),
        some => format!(" (the network is not the paper’s: {})", some.join(", ")),
    }
}

/// A number to three digits; integers as they are.
fn three_digits(value: f64) -> String {
    if value == value.trunc() {
        return format!("{value:.0}");
    }
    let digits = (2.0 - value.abs().log10().floor()).max(0.0) as usize;
    format!("{value:.digits$}")
}
