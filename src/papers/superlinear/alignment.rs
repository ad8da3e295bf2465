//! Figures 1 and 7–9, and Appendix D: how each estimate of C lies in H's eigenbasis, beside the same spectrum with
//! random eigenvectors.

use std::f64::consts::SQRT_2;
use std::path::Path;

use faer::{Mat, MatRef};
use serde::{Deserialize, Serialize};

use super::claims::Claims;
use super::measures::{Coupling, Significance, Structure, correlation_matrix, effective_rank, rotated};
use super::members::{Member, Members};
use crate::report::plots::heat_map;
use crate::report::{Block, Finding, Table, told, write_csv, write_json, write_text};
use crate::stats::{haar_orthogonal, mean};
use crate::{Error, Result, Undefined};

/// The leading directions that the heat maps show.
const SHOWN: usize = 100;
/// Decades of |C| that the heat map shows below its largest entry.
const DECADES: f64 = 8.0;
/// The rank correlation from which two orders count as the same.
const SAME_ORDER: f64 = 0.9;
/// The log₁₀ p below which the paper calls the alignment significant (Section 2.2).
const SIGNIFICANT: f64 = -50.0;

/// The measures of one estimate of C in H's eigenbasis.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Alignment {
    /// The estimate of C that was measured.
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
    pub significance: Option<Significance>,
    /// Why there is no `significance`, where there is none.
    pub undefined: Undefined,
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
        let observed = Structure::of(covariance, hessian, top)?;
        let mut undefined = Undefined::default();
        let significance = Coupling::of(covariance)
            .and_then(|coupling| Ok(Significance::of(&coupling, effective_rank(covariance)?)));
        let alignment = Alignment {
            member,
            dimension: hessian.len(),
            top,
            random: Structure::of(random.as_ref(), hessian, top)?,
            significance: undefined.or_value("significance", significance)?,
            observed,
            undefined,
        };
        Ok((alignment, random))
    }

    /// Each measure, observed and for random eigenvectors.
    fn rows(&self) -> Vec<Row> {
        let chance = |of: fn(&Significance) -> f64| self.significance.as_ref().map(of);
        let coupling = |of: fn(&Coupling) -> f64| {
            [&self.observed, &self.random].map(|structure| structure.coupling.as_ref().map(of))
        };
        let both = |of: fn(&Structure) -> Option<f64>| [of(&self.observed), of(&self.random)];
        let compared =
            |measure, [observed, random]: [Option<f64>; 2]| Row { measure, observed, random, compared: true };
        let alone = |measure, observed| Row { measure, observed, random: None, compared: false };
        let rank = chance(|chance| chance.effective_rank);
        vec![
            compared("mean |R_ij| (μ)", coupling(|coupling| coupling.mean)),
            compared("variance of |R_ij| (σ²)", coupling(|coupling| coupling.variance)),
            compared("directions in μ and σ²", coupling(|coupling| coupling.directions as f64)),
            compared("effective rank M", [rank, rank]),
            alone("baseline √(2/π)/√M", chance(|chance| chance.baseline)),
            alone("Z", chance(|chance| chance.z)),
            alone("log₁₀ p", chance(|chance| chance.log10_p)),
            compared("commutativity error", both(|of| of.commutativity_error)),
            compared("eigen-alignment", both(|of| of.eigen_alignment)),
            compared("Spearman's ρ, all directions", both(|of| of.spearman)),
            compared("Spearman's ρ, top 𝒩", both(|of| of.spearman_top)),
        ]
    }

    /// A measure as observed and with random eigenvectors.
    ///
    /// # Errors
    /// [`Error::Undefined`] where either is.
    fn both<T>(&self, name: &str, of: fn(&Structure) -> Option<T>) -> Result<(T, T)> {
        let reason = || [&self.observed, &self.random].iter().find_map(|of| of.undefined.reason(name));
        let undefined =
            || Error::undefined(format!("that of {}", self.member.symbol()), reason().unwrap_or_default());
        of(&self.observed).zip(of(&self.random)).ok_or_else(undefined)
    }

    /// The two couplings and what chance has.
    ///
    /// # Errors
    /// As [`Alignment::both`].
    fn couplings(&self) -> Result<Couplings> {
        let (observed, random) = self.both("coupling", |of| of.coupling)?;
        let reason = || self.undefined.reason("significance").unwrap_or_default();
        let significance = self.significance.ok_or_else(|| Error::undefined("its significance", reason()))?;
        Ok((observed, random, significance))
    }

    /// Whether the off-diagonal |R_ij| are significantly smaller than with random eigenvectors.
    fn is_aligned(&self) -> Result<bool> {
        let (observed, random, significance) = self.couplings()?;
        Ok(observed.mean < random.mean && significance.log10_p < SIGNIFICANT)
    }

    /// What each measure is compared with, and whether it agrees with the paper's claim.
    fn findings(&self) -> Result<Vec<Finding>> {
        let aligned = || {
            let (observed, random, significance) = self.couplings()?;
            let sentence = format!(
                "C and H are aligned if the off-diagonal |R_ij| are smaller than chance has them: their mean is {:.4}, against {:.4} for the same spectrum with random eigenvectors (Z = {:.0}, log₁₀ p = {:.0}; the paper's threshold is {SIGNIFICANT:.0}).",
                observed.mean, random.mean, significance.z, significance.log10_p,
            );
            Ok(Finding::new(self.is_aligned()?, sentence))
        };
        let chance = || {
            let (_, random, significance) = self.couplings()?;
            let expected = significance.baseline / random.mean - 1.0;
            let sentence = format!(
                "Appendix C expects a chance level of √(2/π)/√M = {:.4} for the {:.1} effective spikes of this spectrum: {:+.0} % from the measured {:.4}, 15 % being allowed for.",
                significance.baseline,
                significance.effective_rank,
                100.0 * expected,
                random.mean,
            );
            Ok(Finding::new(expected.abs() <= 0.15, sentence))
        };
        let commuting = || {
            let (observed, random) = self.both("commutativity_error", |of| of.commutativity_error)?;
            let sentence = format!(
                "C and H nearly commute if ‖CH − HC‖/‖CH‖ is far below that of unrelated matrices (√2 = {SQRT_2:.2} in high dimension): it is {observed:.3}, against {random:.3} for random eigenvectors; less than half counts.",
            );
            Ok(Finding::new(observed < random / 2.0, sentence))
        };
        let diagonal = || {
            let (observed, random) = self.both("eigen_alignment", |of| of.eigen_alignment)?;
            let sentence = format!(
                "C is nearly diagonal in H's eigenbasis if the diagonal holds most of its norm: its share is {observed:.3}, against {random:.3} for random eigenvectors; more than twice counts.",
            );
            Ok(Finding::new(observed > 2.0 * random, sentence))
        };
        let ordered = || {
            let (leading, _) = self.both("spearman_top", |of| of.spearman_top)?;
            let sentence = format!(
                "Noise grows with curvature if C_ii and H_ii are in the same order: Spearman's ρ is {leading:.3} over the leading {} directions and {} over all {}; above {SAME_ORDER} over the leading ones counts.",
                self.top,
                told(self.observed.spearman, |rho| format!("{rho:.3}")),
                self.dimension,
            );
            Ok(Finding::new(leading > SAME_ORDER, sentence))
        };
        Ok(vec![
            Finding::of("C and H should be aligned: the mean of the off-diagonal |R_ij|", aligned())?,
            Finding::of("The chance level that Appendix C expects", chance())?,
            Finding::of("C and H should nearly commute: the commutativity error", commuting())?,
            Finding::of("C should be nearly diagonal in H's eigenbasis: the eigen-alignment", diagonal())?,
            Finding::of("Noise should grow with curvature: the rank correlation", ordered())?,
        ])
    }

    /// The rows of `alignment.csv`.
    fn records(&self) -> impl Iterator<Item = Record> {
        let estimate = self.member.key();
        self.rows().into_iter().map(move |Row { measure, observed, random, .. }| Record {
            estimate,
            measure,
            observed,
            random,
        })
    }
}

/// Observed, with random eigenvectors, and what chance has.
type Couplings = (Coupling, Coupling, Significance);

/// A measure, `None` where it is undefined.
struct Row {
    measure: &'static str,
    observed: Option<f64>,
    random: Option<f64>,
    /// Whether it is one of random eigenvectors too.
    compared: bool,
}

/// A row of `alignment.csv`.
#[derive(Serialize)]
struct Record {
    estimate: &'static str,
    measure: &'static str,
    observed: Option<f64>,
    random: Option<f64>,
}

/// Writes `alignment.json`, `alignment.csv` (`estimate,measure,observed,random`) and, for each estimate of C that has
/// noise, the heat maps `covariance_KEY.svg`, `correlation_KEY.svg` and `correlation_random_KEY.svg` of the leading
/// directions and `correlation_all_KEY.svg` of all into the folder `out`; gives what the report shows of them.
///
/// # Errors
/// [`Error::Io`] where they cannot be written; [`Error::Undefined`] where C itself has no noise; as
/// [`Alignment::measure`].
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
        let (alignment, random) = Alignment::measure(*member, covariance.as_ref(), hessian, top, q.as_ref())?;
        let svgs = match draw(member.symbol(), covariance.as_ref(), random.as_ref()) {
            Err(error @ Error::Undefined { .. }) if *member != Member::Empirical => {
                blocks.push(Block::Text { text: format!("{error}.") });
                alignments.push(alignment);
                continue;
            }
            drawn => drawn?,
        };
        let names = ["covariance", "correlation", "correlation_random", "correlation_all"];
        let key = member.key();
        maps.extend(names.iter().zip(&svgs).map(|(name, svg)| (format!("{name}_{key}.svg"), svg.clone())));
        let coupling = |structure: &Structure| {
            told(structure.coupling, |of| format!("μ = {:.4}, σ² = {:.5}", of.mean, of.variance))
        };
        blocks.push(Block::Figures {
            svgs: svgs.into(),
            caption: format!(
                "{}: its magnitude, its correlation matrix R (off the diagonal {}), R for the same spectrum with random eigenvectors ({}), and R over all directions.",
                member.symbol(),
                coupling(&alignment.observed),
                coupling(&alignment.random),
            ),
        });
        alignments.push(alignment);
    }
    std::fs::create_dir_all(out).map_err(Error::io(out, "create folder"))?;
    maps.iter().try_for_each(|(name, svg)| write_text(out.join(name), svg))?;
    write_json(out.join("alignment.json"), &alignments)?;
    write_csv(out.join("alignment.csv"), alignments.iter().flat_map(Alignment::records))?;
    blocks.push(Block::Table(table(&alignments, pairs)));
    let of_c = &alignments[0];
    let mut findings = of_c.findings()?;
    let chain = "Every member of the chain should be aligned with H as C is";
    findings.push(Finding::of(chain, chain_finding(&alignments))?);
    let mut compare = |what: &str, published: Option<f64>, within, of: fn(Couplings) -> f64| -> Result<()> {
        if let Some(published) = published {
            let compared = of_c.couplings().map(|found| claims.compare(what, of(found), published, within));
            findings.push(Finding::of(what, compared)?);
        }
        Ok(())
    };
    compare("μ of C", claims.coupling, 0.25, |(observed, ..)| observed.mean)?;
    compare("μ of C with random eigenvectors", claims.chance, 0.25, |(_, random, _)| random.mean)?;
    compare("The effective rank M of C", claims.effective_rank, 0.5, |(.., of)| of.effective_rank)?;
    blocks.push(Block::Findings { findings });
    Ok(blocks)
}

fn table(alignments: &[Alignment], pairs: usize) -> Table {
    let number =
        |value: f64| if value.abs() >= 100.0 { format!("{value:.0}") } else { format!("{value:.4}") };
    let mut columns = vec!["measure".to_string()];
    columns.extend(alignments.iter().map(|alignment| alignment.member.symbol().to_string()));
    columns.push("C, random eigenvectors".into());
    let rows = alignments[0].rows().into_iter().enumerate().map(|(at, of_c)| {
        let mut row = vec![of_c.measure.to_string()];
        row.extend(alignments.iter().map(|alignment| told(alignment.rows()[at].observed, number)));
        row.push(if of_c.compared { told(of_c.random, number) } else { "–".into() });
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
fn chain_finding(alignments: &[Alignment]) -> Result<Finding> {
    let (mut agrees, mut list) = (true, Vec::new());
    for of in alignments {
        let (observed, random, _) = of.couplings()?;
        agrees &= of.is_aligned()?;
        list.push(format!("{} {:.4} ({:.4})", of.member.symbol(), observed.mean, random.mean));
    }
    let list = list.join(", ");
    Ok(Finding::new(
        agrees,
        format!(
            "Every member of the chain should be aligned with H as C is; μ of each, beside random eigenvectors’: {list}."
        ),
    ))
}

/// Means of |R_ij| over squares of directions, so that at most [`SHOWN`] a side stand for all of them; NaN where R is
/// defined nowhere in a square.
fn binned(covariance: MatRef<'_, f64>) -> Mat<f64> {
    let correlation = correlation_matrix(covariance);
    let width = covariance.nrows().div_ceil(SHOWN);
    let bins = covariance.nrows().div_ceil(width);
    Mat::from_fn(bins, bins, |i, j| {
        let span = |bin: usize| bin * width..((bin + 1) * width).min(covariance.nrows());
        let cells = span(j).flat_map(|c| span(i).map(move |r| (r, c)));
        let defined: Vec<f64> = cells.map(|at| correlation[at].abs()).filter(|r| r.is_finite()).collect();
        mean(&defined).unwrap_or(f64::NAN)
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
        let quantity = format!("R of {symbol}");
        return Err(Error::undefined(quantity, format!("the leading {shown} directions have no noise")));
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
