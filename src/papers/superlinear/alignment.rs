//! Figures 1 and 7–9, Figures 4 b–d at the end of training, and Appendix D: how C lies in H's eigenbasis,
//! beside the same spectrum with random eigenvectors.

use std::f64::consts::SQRT_2;
use std::path::Path;

use faer::{Mat, MatRef};
use serde::{Deserialize, Serialize};

use super::measures::{
    Eigenbasis, Significance, Structure, correlation_matrix, effective_rank, randomly_rotated,
};
use crate::report::plots::heat_map;
use crate::report::{Finding, Table, write_csv, write_json, write_text};
use crate::{Error, Result};

/// The leading directions that the heat maps show.
const SHOWN: usize = 100;
/// Decades of |C| that the heat map shows below its largest entry.
const DECADES: f64 = 8.0;
/// The rank correlation from which two orders count as the same.
const SAME_ORDER: f64 = 0.9;
/// The log₁₀ p below which the paper calls the alignment significant (Section 2.2).
const SIGNIFICANT: f64 = -50.0;

/// The measures of C in H's eigenbasis.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Alignment {
    /// D
    pub dimension: usize,
    /// 𝒩
    pub top: usize,
    /// C as it is.
    pub observed: Structure,
    /// C with Haar-random eigenvectors.
    pub random: Structure,
    /// The observed μ against Appendix C's expectation.
    pub significance: Significance,
}

impl Alignment {
    /// Measures `covariance` in `basis` and rotated by the Haar matrix of `seed`; also gives both
    /// matrices, `[D, D]` each.
    ///
    /// # Errors
    /// As [`Eigenbasis::express`] and [`Structure::of`].
    pub fn measure(
        basis: &Eigenbasis,
        covariance: MatRef<'_, f64>,
        top: usize,
        seed: u64,
    ) -> Result<(Alignment, Mat<f64>, Mat<f64>)> {
        let observed = basis.express(covariance)?;
        let random = randomly_rotated(observed.as_ref(), seed);
        let structure = Structure::of(observed.as_ref(), &basis.values, top)?;
        let alignment = Alignment {
            dimension: basis.dimension(),
            top,
            observed: structure,
            random: Structure::of(random.as_ref(), &basis.values, top)?,
            significance: Significance::of(&structure.coupling, effective_rank(observed.as_ref())),
        };
        Ok((alignment, observed, random))
    }

    /// Each measure, observed and for random eigenvectors.
    fn rows(&self) -> Vec<(&'static str, f64, Option<f64>)> {
        let (seen, random, chance) = (&self.observed, &self.random, &self.significance);
        let rank = chance.effective_rank;
        vec![
            ("mean |R_ij| (μ)", seen.coupling.mean, Some(random.coupling.mean)),
            ("variance of |R_ij| (σ²)", seen.coupling.variance, Some(random.coupling.variance)),
            (
                "directions in μ and σ²",
                seen.coupling.directions as f64,
                Some(random.coupling.directions as f64),
            ),
            ("effective rank M", rank, Some(rank)),
            ("baseline √(2/π)/√M", chance.baseline, None),
            ("Z", chance.z, None),
            ("log₁₀ p", chance.log10_p, None),
            ("commutativity error", seen.commutativity_error, Some(random.commutativity_error)),
            ("eigen-alignment", seen.eigen_alignment, Some(random.eigen_alignment)),
            ("Spearman's ρ, all directions", seen.spearman, Some(random.spearman)),
            ("Spearman's ρ, top 𝒩", seen.spearman_top, Some(random.spearman_top)),
        ]
    }

    /// The measures beside those of random eigenvectors.
    pub fn table(&self) -> Table {
        let number = |value: f64| {
            if value.fract() == 0.0 || value.abs() >= 1e4 {
                format!("{value:.0}")
            } else {
                format!("{value:.4}")
            }
        };
        let rows = self
            .rows()
            .into_iter()
            .map(|(measure, observed, random)| {
                vec![measure.into(), number(observed), random.map_or("–".into(), number)]
            })
            .collect();
        Table {
            columns: ["measure", "C", "random eigenvectors"].map(String::from).into(),
            rows,
            caption: format!("C in H's eigenbasis; D = {}, 𝒩 = {}.", self.dimension, self.top),
        }
    }

    /// What each measure is compared with, and whether it agrees with the paper's claim.
    pub fn findings(&self) -> Vec<Finding> {
        let Alignment { observed, random, significance, .. } = self;
        let finding = |agrees, sentence| Finding { agrees, sentence };
        let aligned = observed.coupling.mean < random.coupling.mean && significance.log10_p < SIGNIFICANT;
        let expected = significance.baseline / random.coupling.mean - 1.0;
        vec![
            finding(
                aligned,
                format!(
                    "C and H are aligned if the off-diagonal |R_ij| are smaller than chance has them: their mean is {:.4}, against {:.4} for the same spectrum with random eigenvectors (Z = {:.0}, log₁₀ p = {:.0}; the paper's threshold is {SIGNIFICANT:.0}).",
                    observed.coupling.mean, random.coupling.mean, significance.z, significance.log10_p,
                ),
            ),
            finding(
                expected.abs() <= 0.15,
                format!(
                    "Appendix C expects a chance level of √(2/π)/√M = {:.4} for the {:.1} effective spikes of this spectrum: {:+.0} % from the measured {:.4}, 15 % being allowed for.",
                    significance.baseline,
                    significance.effective_rank,
                    100.0 * expected,
                    random.coupling.mean,
                ),
            ),
            finding(
                observed.commutativity_error < random.commutativity_error / 2.0,
                format!(
                    "C and H nearly commute if ‖CH − HC‖/‖CH‖ is far below that of unrelated matrices (√2 = {SQRT_2:.2} in high dimension): it is {:.3}, against {:.3} for random eigenvectors; less than half counts.",
                    observed.commutativity_error, random.commutativity_error,
                ),
            ),
            finding(
                observed.eigen_alignment > 2.0 * random.eigen_alignment,
                format!(
                    "C is nearly diagonal in H's eigenbasis if the diagonal holds most of its norm: its share is {:.3}, against {:.3} for random eigenvectors; more than twice counts.",
                    observed.eigen_alignment, random.eigen_alignment,
                ),
            ),
            finding(
                observed.spearman_top > SAME_ORDER,
                format!(
                    "Noise grows with curvature if C_ii and H_ii are in the same order: Spearman's ρ is {:.3} over the leading {} directions and {:.3} over all {}; above {SAME_ORDER} over the leading ones counts.",
                    observed.spearman_top, self.top, observed.spearman, self.dimension,
                ),
            ),
        ]
    }
}

/// What was written, for the report.
#[derive(Clone, Debug)]
pub struct Maps {
    /// log₁₀|C|, |R| and |R_rand|.
    pub svgs: [String; 3],
    pub alignment: Alignment,
}

/// Writes `alignment.json`, `alignment.csv` (`measure,observed,random`) and the heat maps
/// `covariance.svg`, `correlation.svg` and `correlation_random.svg` of the leading directions into the
/// folder `out`.
///
/// # Errors
/// [`Error::Io`] where they cannot be written; as [`Alignment::measure`].
pub fn write(
    out: &Path,
    basis: &Eigenbasis,
    covariance: MatRef<'_, f64>,
    top: usize,
    seed: u64,
) -> Result<Maps> {
    #[derive(Serialize)]
    struct Record {
        measure: &'static str,
        observed: f64,
        random: Option<f64>,
    }
    let (alignment, observed, random) = Alignment::measure(basis, covariance, top, seed)?;
    let svgs = draw(observed.as_ref(), random.as_ref())?;
    std::fs::create_dir_all(out).map_err(Error::io(out, "create folder"))?;
    write_json(out.join("alignment.json"), &alignment)?;
    let records = alignment.rows().into_iter();
    write_csv(
        out.join("alignment.csv"),
        records.map(|(measure, observed, random)| Record { measure, observed, random }),
    )?;
    for (name, svg) in ["covariance", "correlation", "correlation_random"].into_iter().zip(&svgs) {
        write_text(out.join(format!("{name}.svg")), svg)?;
    }
    Ok(Maps { svgs, alignment })
}

fn draw(observed: MatRef<'_, f64>, random: MatRef<'_, f64>) -> Result<[String; 3]> {
    let shown = SHOWN.min(observed.nrows());
    let lead =
        |matrix: MatRef<'_, f64>, map: fn(f64) -> f64| Mat::from_fn(shown, shown, |i, j| map(matrix[(i, j)]));
    let magnitude = lead(observed, |c| c.abs().log10());
    let largest =
        magnitude.col_iter().flat_map(|column| column.iter()).copied().fold(f64::NEG_INFINITY, f64::max);
    if !largest.is_finite() {
        return Err(Error::argument("covariance", "no noise in the leading directions", "noise"));
    }
    let correlation = |matrix: MatRef<'_, f64>| lead(correlation_matrix(matrix).as_ref(), f64::abs);
    Ok([
        heat_map("C in H’s eigenbasis", magnitude.as_ref(), largest - DECADES..largest, "log₁₀ |Cᵢⱼ|")?,
        heat_map("R", correlation(observed).as_ref(), 0.0..1.0, "|Rᵢⱼ|")?,
        heat_map("R, random eigenvectors", correlation(random).as_ref(), 0.0..1.0, "|Rᵢⱼ|")?,
    ])
}
