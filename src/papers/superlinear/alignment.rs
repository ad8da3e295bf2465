//! Figures 1 and 7–9, and Appendix D: how each estimate of C lies in H's eigenbasis, beside the same spectrum with
//! random eigenvectors.

use std::f64::consts::SQRT_2;
use std::path::Path;

use faer::{Mat, MatRef};
use serde::{Deserialize, Serialize};

use super::claims::Claims;
use super::measures::{Significance, Structure, correlation_matrix, effective_rank, rotated};
use super::members::{Member, Members};
use crate::report::plots::heat_map;
use crate::report::{Block, Finding, Table, write_csv, write_json, write_text};
use crate::stats::haar_orthogonal;
use crate::{Error, Result};

/// The leading directions that the heat maps show.
const SHOWN: usize = 100;
/// Decades of |C| that the heat map shows below its largest entry.
const DECADES: f64 = 8.0;
/// The rank correlation from which two orders count as the same.
const SAME_ORDER: f64 = 0.9;
/// The log₁₀ p below which the paper calls the alignment significant (Section 2.2).
const SIGNIFICANT: f64 = -50.0;

/// The measures of one estimate of C in H's eigenbasis.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Alignment {
    pub member: Member,
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
    /// Measures `covariance`, which is in the eigenbasis of the eigenvalues `hessian` `[D]`, and the same rotated by
    /// `q` `[D, D]`; also gives the latter.
    ///
    /// # Errors
    /// As [`Structure::of`].
    pub fn measure(
        member: Member,
        covariance: MatRef<'_, f64>,
        hessian: &[f64],
        top: usize,
        q: MatRef<'_, f64>,
    ) -> Result<(Alignment, Mat<f64>)> {
        let random = rotated(covariance, q);
        let structure = Structure::of(covariance, hessian, top)?;
        let alignment = Alignment {
            member,
            dimension: hessian.len(),
            top,
            observed: structure,
            random: Structure::of(random.as_ref(), hessian, top)?,
            significance: Significance::of(&structure.coupling, effective_rank(covariance)),
        };
        Ok((alignment, random))
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

    /// Whether the off-diagonal |R_ij| are significantly smaller than with random eigenvectors.
    fn is_aligned(&self) -> bool {
        self.observed.coupling.mean < self.random.coupling.mean && self.significance.log10_p < SIGNIFICANT
    }

    /// What each measure is compared with, and whether it agrees with the paper's claim.
    fn findings(&self) -> Vec<Finding> {
        let Alignment { observed, random, significance, .. } = self;
        let finding = |agrees, sentence| Finding { agrees, sentence };
        let expected = significance.baseline / random.coupling.mean - 1.0;
        vec![
            finding(
                self.is_aligned(),
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

    /// The rows of `alignment.csv`.
    fn records(&self) -> impl Iterator<Item = Record> {
        let estimate = self.member.key();
        self.rows().into_iter().map(move |(measure, observed, random)| Record {
            estimate,
            measure,
            observed,
            random,
        })
    }
}

/// A row of `alignment.csv`.
#[derive(Serialize)]
struct Record {
    estimate: &'static str,
    measure: &'static str,
    observed: f64,
    random: Option<f64>,
}

/// Writes `alignment.json`, `alignment.csv` (`estimate,measure,observed,random`) and, for each estimate of C that has
/// noise, the heat maps `covariance_KEY.svg`, `correlation_KEY.svg` and `correlation_random_KEY.svg` of the leading
/// directions and `correlation_all_KEY.svg` of all into the folder `out`; gives what the report shows of them.
///
/// # Errors
/// [`Error::Io`] where they cannot be written; as [`Alignment::measure`].
pub fn write(
    out: &Path,
    members: &Members,
    claims: &Claims,
    pairs: usize,
    top: usize,
    seed: u64,
) -> Result<Vec<Block>> {
    let hessian = &members.basis.values;
    let q = haar_orthogonal(hessian.len(), seed);
    // everything is measured before anything is written
    let (mut alignments, mut maps, mut blocks) = (Vec::new(), Vec::new(), Vec::new());
    for (member, covariance) in &members.covariances {
        let drawn = Alignment::measure(*member, covariance.as_ref(), hessian, top, q.as_ref())
            .and_then(|(of, random)| Ok((of, draw(member.symbol(), covariance.as_ref(), random.as_ref())?)));
        let (alignment, svgs) = match drawn {
            Err(error @ Error::Argument { .. }) if *member != Member::Empirical => {
                blocks.push(Block::Text { text: format!("{}: {error}.", member.symbol()) });
                continue;
            }
            drawn => drawn?,
        };
        let names = ["covariance", "correlation", "correlation_random", "correlation_all"];
        let key = member.key();
        maps.extend(names.iter().zip(&svgs).map(|(name, svg)| (format!("{name}_{key}.svg"), svg.clone())));
        let Structure { coupling: seen, .. } = alignment.observed;
        let Structure { coupling: chance, .. } = alignment.random;
        blocks.push(Block::Figures {
            svgs: svgs.into(),
            caption: format!(
                "{}: its magnitude, its correlation matrix R (off the diagonal μ = {:.4}, σ² = {:.5}), R for the same spectrum with random eigenvectors (μ = {:.4}, σ² = {:.5}), and R over all directions.",
                member.symbol(), seen.mean, seen.variance, chance.mean, chance.variance,
            ),
        });
        alignments.push(alignment);
    }
    std::fs::create_dir_all(out).map_err(Error::io(out, "create folder"))?;
    maps.iter().try_for_each(|(name, svg)| write_text(out.join(name), svg))?;
    write_json(out.join("alignment.json"), &alignments)?;
    write_csv(out.join("alignment.csv"), alignments.iter().flat_map(Alignment::records))?;
    blocks.push(Block::Table(table(&alignments, pairs)));
    let mut findings = alignments[0].findings();
    findings.push(chain_finding(&alignments));
    let Alignment { observed, random, significance, .. } = &alignments[0];
    findings.extend(claims.coupling.map(|mu| claims.compare("μ of C", observed.coupling.mean, mu, 0.25)));
    findings.extend(
        claims.chance.map(|chance| {
            claims.compare("μ of C with random eigenvectors", random.coupling.mean, chance, 0.25)
        }),
    );
    findings.extend(
        claims
            .effective_rank
            .map(|rank| claims.compare("The effective rank M of C", significance.effective_rank, rank, 0.5)),
    );
    blocks.push(Block::Findings { findings });
    Ok(blocks)
}

fn table(alignments: &[Alignment], pairs: usize) -> Table {
    let number =
        |value: f64| if value.abs() >= 100.0 { format!("{value:.0}") } else { format!("{value:.4}") };
    let mut columns = vec!["measure".to_string()];
    columns.extend(alignments.iter().map(|alignment| alignment.member.symbol().to_string()));
    columns.push("C, random eigenvectors".into());
    let rows = alignments[0].rows().into_iter().enumerate().map(|(at, (measure, _, random))| {
        let mut row = vec![measure.to_string()];
        row.extend(alignments.iter().map(|alignment| number(alignment.rows()[at].1)));
        row.push(random.map_or("–".into(), number));
        row
    });
    let Alignment { dimension, top, .. } = alignments[0];
    Table {
        columns,
        rows: rows.collect(),
        caption: format!(
            "Each estimate in H’s eigenbasis; D = {dimension}, 𝒩 = {top}. C_AWD,raw and C^hh are means over {pairs} pairs of batches, which alone gives |R_ij| a mean of {:.4}.",
            (2.0 / std::f64::consts::PI / pairs as f64).sqrt(),
        ),
    }
}

/// Whether every member of the chain is aligned as C is.
fn chain_finding(alignments: &[Alignment]) -> Finding {
    let list: Vec<String> = alignments
        .iter()
        .map(|a| {
            format!("{} {:.4} ({:.4})", a.member.symbol(), a.observed.coupling.mean, a.random.coupling.mean)
        })
        .collect();
    Finding {
        agrees: alignments.iter().all(Alignment::is_aligned),
        sentence: format!(
            "Every member of the chain should be aligned with H as C is; μ of each, beside random eigenvectors’: {}.",
            list.join(", "),
        ),
    }
}

/// Means of |R_ij| over squares of directions, so that at most [`SHOWN`] a side stand for all of them.
fn binned(covariance: MatRef<'_, f64>) -> Mat<f64> {
    let correlation = correlation_matrix(covariance);
    let width = covariance.nrows().div_ceil(SHOWN);
    let bins = covariance.nrows().div_ceil(width);
    Mat::from_fn(bins, bins, |i, j| {
        let span = |bin: usize| bin * width..((bin + 1) * width).min(covariance.nrows());
        let cells = span(j).flat_map(|c| span(i).map(move |r| (r, c)));
        let (sum, count) = cells.fold((0.0, 0), |(sum, n), at| (sum + correlation[at].abs(), n + 1));
        sum / count as f64
    })
}

fn draw(symbol: &str, observed: MatRef<'_, f64>, random: MatRef<'_, f64>) -> Result<[String; 4]> {
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
    let titled = |what: &str| format!("{what} of {symbol}");
    Ok([
        heat_map(
            &format!("{symbol} in H’s eigenbasis"),
            magnitude.as_ref(),
            largest - DECADES..largest,
            "log₁₀ |Cᵢⱼ|",
        )?,
        heat_map(&titled("R"), correlation(observed).as_ref(), 0.0..1.0, "|Rᵢⱼ|")?,
        heat_map(&titled("R, random"), correlation(random).as_ref(), 0.0..1.0, "|Rᵢⱼ|")?,
        heat_map(&titled("R, all directions"), binned(observed).as_ref(), 0.0..1.0, "|Rᵢⱼ|, mean")?,
    ])
}
