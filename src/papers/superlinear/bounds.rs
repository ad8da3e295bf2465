//! Theorem 5.1: the second moment of curvature lies between a line and a parabola of the first.
//!
//! ```text
//! H_ii² ≤ E[h²]_ii ≤ κ_max H_ii      (eqs. 72–78)
//! ```
//!
//! The lower bound is Jensen's and Cauchy and Schwarz's inequality, and holds whatever the h_p are. The upper one
//! needs them positive semi-definite, κ_max being the largest of their eigenvalues. A batch's covariance is
//! `C = (σ_w²/2B) E[h²]` (eq. 15), so that `C₁ = B C`, of single samples, is bounded by
//! `(σ_w²/2) H_ii² ≤ C₁_ii ≤ (σ_w²/2) κ_max H_ii` (eqs. 19, 79): `2C₁/σ_w²` stands in place of `E[h²]`.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::measures::{Diagonals, positive_pairs};
use crate::operators::LayerCurvature;
use crate::report::plots::{Axis, Mark, Scale, Series, chart};
use crate::report::{Block, Finding, write_csv, write_text};
use crate::{Error, Result};

/// Points of each kind that the chart shows, evenly spaced among the directions.
const SHOWN: usize = 500;
/// The share of itself that a bound may be exceeded by before it counts as violated: sums over samples are made
/// in single precision.
const ROUNDING: f64 = 1e-4;
/// The share of negative curvature up to which per-sample Hessians count as positive semi-definite.
const INDEFINITE: f64 = 1e-4;

/// The eigenvalues κ of the per-sample Hessians of a layer, over all samples and modes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Curvatures {
    /// κ_max
    pub largest: f64,
    /// κ_min; 0 where all are positive, for a layer's h_p have a null space.
    pub smallest: f64,
    /// `Σ|κ < 0| / Σ|κ|`: 0 for positive semi-definite h_p; `None` where all κ are 0.
    pub negative_share: Option<f64>,
}

impl Curvatures {
    /// Of all samples that `layer` is measured on.
    ///
    /// # Errors
    /// As [`LayerCurvature::spectra`].
    pub fn measure(layer: &LayerCurvature) -> Result<Curvatures> {
        let (mut largest, mut smallest, mut negative, mut sum) = (0.0f64, 0.0f64, 0.0, 0.0);
        layer.spectra(|batch| {
            for kappa in batch.eigenvalues.iter().map(|&kappa| kappa as f64) {
                largest = largest.max(kappa);
                smallest = smallest.min(kappa);
                negative += (-kappa).max(0.0);
                sum += kappa.abs();
            }
            Ok(())
        })?;
        let negative_share = (sum > 0.0).then(|| negative / sum);
        Ok(Curvatures { largest, smallest, negative_share })
    }
}

/// Directions of which one bound or the other does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Violations {
    /// Those that have curvature or a second moment above rounding; the others tell nothing.
    pub directions: usize,
    /// Of `H_ii² ≤ E[h²]_ii`.
    pub lower: usize,
    /// Of `E[h²]_ii ≤ κ_max H_ii`.
    pub upper: usize,
}

impl Violations {
    /// Over the leading `top` directions, with `second` `[D]` the diagonal of `E[h²]`, or `2C₁/σ_w²`.
    ///
    /// A direction counts where a bound is exceeded by more than 1e-4 of itself, and by more than the rounding
    /// of sums in single precision: directions without curvature have moments of either sign.
    pub fn count(hessian: &[f64], second: &[f64], largest: f64, top: usize) -> Violations {
        let (h_floor, second_floor) = (rounding_of(hessian), rounding_of(second));
        let told = |&(h, e): &(&f64, &f64)| h.abs() > h_floor || e.abs() > second_floor;
        let pairs = || hessian.iter().zip(second).take(top).filter(told);
        let above = |less: f64, more: f64, floor: f64| less - more > ROUNDING * more.abs() + floor;
        Violations {
            directions: pairs().count(),
            lower: pairs().filter(|&(h, e)| above(h * h, *e, second_floor)).count(),
            upper: pairs().filter(|&(h, e)| above(*e, largest * h, second_floor + largest * h_floor)).count(),
        }
    }
}

/// What single precision makes of a diagonal's entries that vanish, at most: ε times its norm.
fn rounding_of(diagonal: &[f64]) -> f64 {
    f64::from(f32::EPSILON) * diagonal.iter().map(|x| x * x).sum::<f64>().sqrt()
}

/// How one second moment keeps to its bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// Over the leading 𝒩 directions.
    pub leading: Violations,
    /// Over all D.
    pub all: Violations,
}

impl Kept {
    fn of(hessian: &[f64], second: &[f64], largest: f64, top: usize) -> Kept {
        let count = |top| Violations::count(hessian, second, largest, top);
        Kept { leading: count(top), all: count(hessian.len()) }
    }
}

/// What was written, for the report.
#[derive(Clone, Debug)]
pub struct Bounds {
    /// The chart of `bounds.svg`: second moments against H_ii, between the bounds.
    pub svg: String,
    /// κ_max of the upper bound, and how far the h_p are from positive semi-definite.
    pub curvatures: Curvatures,
    /// Of `E[h²]`.
    pub second_moment: Kept,
    /// Of `2C₁/σ_w²`, with σ_w²; `None` where that is not known.
    pub covariance: Option<(Kept, f64)>,
}

/// Writes `bounds.csv`, all D rows in descending order of H_ii (index from 1), and `bounds.svg` into the folder
/// `out`. `sigma_w2` is σ_w², the variance of weight perturbations (eq. 14), where it is known.
///
/// # Errors
/// [`Error::Io`] where they cannot be written, [`Error::Undefined`] where no direction has any curvature.
pub fn write(
    out: &Path,
    title: &str,
    diagonals: &Diagonals,
    curvatures: Curvatures,
    sigma_w2: Option<f64>,
    top: usize,
) -> Result<Bounds> {
    #[derive(Serialize)]
    struct Record {
        index: usize,
        hessian: f64,
        lower: f64,
        curvature_second_moment: f64,
        /// `2C₁/σ_w²`
        scaled_covariance: Option<f64>,
        upper: f64,
    }
    let Diagonals { hessian, covariance, curvature_second_moment, .. } = diagonals;
    let largest = curvatures.largest;
    let rounding = rounding_of(hessian);
    let mut curved = positive_pairs(hessian, curvature_second_moment, hessian.len());
    if !curved.any(|(h, _)| h > rounding) {
        return Err(Error::undefined("E[h²]_ii between its bounds", "no direction has curvature"));
    }
    let scaled: Option<Vec<f64>> =
        sigma_w2.map(|sigma_w2| covariance.iter().map(|c| 2.0 * c / sigma_w2).collect());
    let bounds = Bounds {
        svg: plot(title, hessian, curvature_second_moment, scaled.as_deref(), largest)?,
        curvatures,
        second_moment: Kept::of(hessian, curvature_second_moment, largest, top),
        covariance: scaled.as_ref().map(|scaled| Kept::of(hessian, scaled, largest, top)).zip(sigma_w2),
    };
    std::fs::create_dir_all(out).map_err(Error::io(out, "create folder"))?;
    let records = (0..hessian.len()).map(|i| Record {
        index: i + 1,
        hessian: hessian[i],
        lower: hessian[i] * hessian[i],
        curvature_second_moment: curvature_second_moment[i],
        scaled_covariance: scaled.as_ref().map(|scaled| scaled[i]),
        upper: largest * hessian[i],
    });
    write_csv(out.join("bounds.csv"), records)?;
    write_text(out.join("bounds.svg"), &bounds.svg)?;
    Ok(bounds)
}

/// The directions that have both moments, H_ii above rounding, and the two bounds as lines.
fn plot(
    title: &str,
    hessian: &[f64],
    second: &[f64],
    scaled: Option<&[f64]>,
    largest: f64,
) -> Result<String> {
    let thinned = |second: &[f64]| -> Vec<(f64, f64)> {
        let pairs = positive_pairs(hessian, second, hessian.len());
        let pairs: Vec<(f64, f64)> = pairs.filter(|&(h, _)| h > rounding_of(hessian)).collect();
        pairs.iter().step_by(pairs.len().div_ceil(SHOWN).max(1)).copied().collect()
    };
    let points = |name: &str, colour, second| Series {
        name: name.into(),
        mark: Mark::Points,
        colour,
        points: thinned(second),
    };
    let mut series = vec![points("E[h²]", 0, second)];
    series.extend(scaled.map(|scaled| points("2C/σ²", 1, scaled)));
    let h = |i: usize| series[0].points.get(i).map_or(1.0, |p| p.0);
    let ends = [h(0), h(series[0].points.len().saturating_sub(1))];
    let line = |name: &str, colour, bound: &dyn Fn(f64) -> f64| {
        let points = ends.map(|h| (h, bound(h))).to_vec();
        Series { name: name.into(), mark: Mark::Line, colour, points }
    };
    let (lower, upper) = (line("H²", 2, &|h| h * h), line("κ_max H", 3, &|h| largest * h));
    series.extend([lower, upper]);
    let axis = |label| Axis { label, scale: Scale::Log };
    chart(title, axis("Hᵢᵢ"), axis("E[h²]ᵢᵢ"), &series)
}

impl Bounds {
    /// What the report shows.
    pub fn blocks(&self) -> Vec<Block> {
        let caption = "E[h²]_ii and 2C_ii/σ_w² against H_ii, between the bounds H_ii² and κ_max H_ii of Theorem 5.1 (eqs. 19, 79).";
        vec![
            Block::Figures { svgs: vec![self.svg.clone()], caption: caption.into() },
            Block::Findings { findings: self.findings() },
        ]
    }

    /// Whether each bound holds, and how far the per-sample Hessians are from what the upper one asks.
    pub fn findings(&self) -> Vec<Finding> {
        let Curvatures { largest, smallest, negative_share } = self.curvatures;
        let mut findings = Vec::new();
        let mut bounds = |kept: &Kept, symbol: &str, given: &str| {
            let Kept { leading, all } = kept;
            for (bound, leading_count, all_count, condition) in [
                (format!("H_ii² ≤ {symbol}"), leading.lower, all.lower, String::new()),
                (
                    format!("{symbol} ≤ κ_max H_ii"),
                    leading.upper,
                    all.upper,
                    format!(", κ_max being {largest:.3e}"),
                ),
            ] {
                let violated = format!(
                    "{bound}{given}{condition}: violated in {leading_count} of the leading {} directions and in {all_count} of all {} that have curvature.",
                    leading.directions, all.directions,
                );
                findings.push(match leading.directions {
                    0 => Finding::undefined(format!(
                        "{bound}{given}: none of the leading directions has curvature."
                    )),
                    _ => Finding::new(leading_count == 0, violated),
                });
            }
        };
        bounds(&self.second_moment, "E[h²]_ii", "");
        match &self.covariance {
            Some((kept, sigma_w2)) => {
                bounds(kept, "2C_ii/σ_w²", &format!(" with σ_w² = {sigma_w2:.3e}"));
            }
            None => findings.push(Finding::undefined("The bounds of 2C_ii/σ_w²: σ_w² is undefined.")),
        }
        let semi_definite =
            "The upper bound is proved for positive semi-definite h_p: negative eigenvalues make up";
        findings.push(match negative_share {
            Some(share) => Finding::new(
                share <= INDEFINITE,
                format!(
                    "{semi_definite} {:.2} % of the per-sample curvature Σ|κ|, the lowest being {smallest:.3e}.",
                    100.0 * share,
                ),
            ),
            None => Finding::undefined(format!("{semi_definite} no share of it, for no sample has curvature.")),
        });
        findings
    }
}
