//! Section 5.2 and Appendix E.4: landscapes made so that γ is known, 2, 2 and 1.
//!
//! Each study draws per-sample gradients or Hessians of D parameters, measures H and a second moment in H's
//! eigenbasis as is done with networks, and fits `C_ii = c H_ii^γ`, of which theory has both γ and c. There are
//! far more draws than parameters: eigenvectors of few draws lean towards those that happen to be large.

use std::path::Path;

use faer::Mat;
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Exp1, StandardNormal};
use serde::Serialize;

use super::measures::{Eigenbasis, exponent, exponent_interval};
use crate::report::plots::{Axis, Mark, Scale, Series, chart};
use crate::report::{Block, Finding, write_csv, write_text};
use crate::stats::{Interval, LineFit, haar_orthogonal};
use crate::{Error, Result};

/// D
const DIMENSION: usize = 60;
/// Batches, or samples, that second moments are taken over.
const DRAWS: usize = 4_000;
/// H's eigenvalues fall as `i^−DECAY`, heavy-tailed as those of networks.
const DECAY: f64 = 2.0;
/// σ, the standard deviation of a random shift along each direction.
const SHIFT: f64 = 0.3;
/// n, the dominant modes of [`spectral_degeneracy`].
const DOMINANT: usize = 5;
/// The standard deviation of a dominant direction along the first direction of the bulk.
const FLUCTUATION: f64 = 0.1;
/// How far a fitted exponent may be from the predicted one to count as agreeing.
const TOLERANCE: f64 = 0.05;

/// A landscape's diagonals, and the power law between them.
#[derive(Clone, Debug)]
pub struct Study {
    /// For files and tables: `random_shifts`.
    pub name: &'static str,
    /// What the report calls it: `Spectral degeneracy`.
    pub title: &'static str,
    /// H_ii `[D]`, descending.
    pub hessian: Vec<f64>,
    /// C_ii, or `E[h²]_ii`: `[D]`
    pub covariance: Vec<f64>,
    /// log₁₀ c + γ log₁₀ H
    pub fit: LineFit,
    /// Of γ.
    pub interval: Interval,
    /// What theory has for γ and c.
    pub predicted: (f64, f64),
}

impl Study {
    fn new(
        (name, title): (&'static str, &'static str),
        hessian: Vec<f64>,
        covariance: Vec<f64>,
        predicted: (f64, f64),
    ) -> Result<Study> {
        let fit = exponent(&hessian, &covariance, DIMENSION)?;
        let interval = exponent_interval(&hessian, &covariance, DIMENSION, 0)?;
        Ok(Study { name, title, hessian, covariance, fit, interval, predicted })
    }

    /// Whether γ is what theory has.
    pub fn finding(&self) -> Finding {
        let (gamma, factor) = self.predicted;
        Finding::new(
            (self.fit.slope - gamma).abs() <= TOLERANCE,
            format!(
                "{}: γ = {:.3} (95 % interval {:.3} to {:.3}) where {gamma} is predicted, {TOLERANCE} being allowed for, and C_ii = {:.3e} H_ii^γ where the factor {factor:.3e} is.",
                self.title,
                self.fit.slope,
                self.interval.low,
                self.interval.high,
                10f64.powf(self.fit.intercept),
            ),
        )
    }

    fn plot(&self) -> Result<String> {
        let points = self.hessian.iter().copied().zip(self.covariance.iter().copied()).collect();
        let ends = [self.hessian[0], self.hessian[DIMENSION - 1]];
        let line = |name: String, mark, slope, intercept| {
            let at = |h: f64| (h, 10f64.powf(intercept + slope * h.log10()));
            Series { name, mark, colour: 1, points: ends.map(at).to_vec() }
        };
        let (gamma, factor) = self.predicted;
        let fit = format!("γ = {:.3} [{:.3}, {:.3}]", self.fit.slope, self.interval.low, self.interval.high);
        let series = [
            Series { name: "directions".into(), mark: Mark::Points, colour: 0, points },
            line(fit, Mark::Line, self.fit.slope, self.fit.intercept),
            line(format!("predicted: {gamma}"), Mark::Guide, gamma, factor.log10()),
        ];
        let axis = |label| Axis { label, scale: Scale::Log };
        chart(self.title, axis("Hᵢᵢ"), axis("Cᵢᵢ"), &series)
    }
}

/// The random-shifts model (eqs. 96–103): batches see a quadratic loss, `½ wᵀHw`, each shifted by a
/// `δw ~ N(0, σ²)` of its own. The noise of their gradients at one w is `H δw`, so that C = σ²H² and γ = 2.
///
/// # Errors
/// As [`exponent`].
pub fn random_shifts(seed: u64) -> Result<Study> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let q = haar_orthogonal(DIMENSION, rng.random());
    let scaled = Mat::from_fn(DIMENSION, DIMENSION, |i, j| q[(i, j)] * power_law(j));
    let hessian = scaled * q.transpose(); // [D, D]
    let w = normals(&mut rng, 1); // [D, 1]
    let shifts = normals(&mut rng, DRAWS); // δw/σ: [D, batches]
    let seen = Mat::from_fn(DIMENSION, DRAWS, |i, nu| w[(i, 0)] - SHIFT * shifts[(i, nu)]);
    let (gradient, gradients) = (&hessian * &w, &hessian * &seen); // [D, 1], [D, batches]
    let noise = Mat::from_fn(DIMENSION, DRAWS, |i, nu| gradient[(i, 0)] - gradients[(i, nu)]);
    let covariance = &noise * noise.transpose() * faer::Scale(1.0 / DRAWS as f64);
    let basis = Eigenbasis::of(hessian.as_ref())?;
    let covariance = basis.diagonal(covariance.as_ref())?;
    Study::new(("random_shifts", "Random shifts"), basis.values, covariance, (2.0, SHIFT * SHIFT))
}

/// Perfect alignment (Proposition 5.3) on a self-similar landscape: samples see the loss `Σ_i c_i exp(q_i · w)`,
/// each shifted by a `δw ~ N(0, σ²)` of its own.
///
/// Their Hessians share the eigenvectors q_i. Their eigenvalues are `λ_i = c_i exp(q_i · (w − δw))`, of which
/// `‖∇λ_i‖/λ_i` is constant (eq. 113): log-normal ones with `Var λ_i = (exp σ² − 1) (E λ_i)²`, so that
/// `E[h²]_ii = exp σ² H_ii²` and γ = 2.
///
/// # Errors
/// As [`exponent`].
pub fn perfect_alignment(seed: u64) -> Result<Study> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let shifts = normals(&mut rng, DRAWS); // q_i · δw / σ, of which any rotation is as good: [D, samples]
    let over_samples = |i: usize, power: f64| {
        let kappa = |nu: usize| power_law(i) * (-SHIFT * shifts[(i, nu)]).exp();
        (0..DRAWS).map(|nu| kappa(nu).powf(power)).sum::<f64>() / DRAWS as f64
    };
    let mut moments: Vec<(f64, f64)> =
        (0..DIMENSION).map(|i| (over_samples(i, 1.0), over_samples(i, 2.0))).collect();
    moments.sort_by(|x, y| y.0.total_cmp(&x.0));
    let (hessian, second) = moments.into_iter().unzip();
    let predicted = (2.0, (SHIFT * SHIFT).exp());
    Study::new(("perfect_alignment", "Perfect alignment"), hessian, second, predicted)
}

/// Spectral degeneracy (Proposition 5.5): each sample's Hessian has n dominant modes of independent, equally
/// distributed magnitudes, along directions that fluctuate slightly from sample to sample.
///
/// The fluctuations make the bulk of H; being independent of the magnitudes κ they give
/// `E[h²]_ii = E[κ²]/E[κ] H_ii` (eq. 95), hence γ = 1. Here κ is exponentially distributed, `E[κ²]/E[κ] = 2`.
///
/// # Errors
/// As [`exponent`].
pub fn spectral_degeneracy(seed: u64) -> Result<Study> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let (mut scaled, mut squared) =
        (Mat::zeros(DIMENSION, DOMINANT * DRAWS), Mat::zeros(DIMENSION, DOMINANT * DRAWS));
    let mut directions = Mat::zeros(DIMENSION, DOMINANT * DRAWS);
    for p in 0..DRAWS {
        let fluctuations = normals(&mut rng, DOMINANT);
        let u = Mat::from_fn(DIMENSION, DOMINANT, |i, m| match i.checked_sub(DOMINANT) {
            None => f64::from(i == m),
            Some(bulk) => FLUCTUATION * power_law(bulk).sqrt() * fluctuations[(i, m)],
        });
        let u = u.qr().compute_thin_Q(); // [D, n], orthonormal
        for m in 0..DOMINANT {
            let kappa: f64 = Exp1.sample(&mut rng);
            for i in 0..DIMENSION {
                directions[(i, p * DOMINANT + m)] = u[(i, m)];
                scaled[(i, p * DOMINANT + m)] = kappa * u[(i, m)] / DRAWS as f64;
                squared[(i, p * DOMINANT + m)] = kappa * kappa * u[(i, m)] / DRAWS as f64;
            }
        }
    }
    let basis = Eigenbasis::of((scaled * directions.transpose()).as_ref())?; // E Σ_m κ_m u_m u_mᵀ
    let second = basis.diagonal((squared * directions.transpose()).as_ref())?;
    Study::new(("spectral_degeneracy", "Spectral degeneracy"), basis.values, second, (1.0, 2.0))
}

/// The i-th eigenvalue, from 0.
fn power_law(i: usize) -> f64 {
    (1.0 + i as f64).powf(-DECAY)
}

/// Standard normals `[D, count]`.
fn normals(rng: &mut impl Rng, count: usize) -> Mat<f64> {
    let mut normals = Mat::zeros(DIMENSION, count);
    for column in normals.col_iter_mut() {
        column.iter_mut().for_each(|entry| *entry = StandardNormal.sample(rng));
    }
    normals
}

/// What was written, for the report.
#[derive(Clone, Debug)]
pub struct Synthetic {
    /// Random shifts, perfect alignment and spectral degeneracy, for which γ is 2, 2 and 1.
    pub studies: [Study; 3],
    /// A chart each.
    pub svgs: [String; 3],
}

/// Makes the three studies from `seed` and writes `synthetic.csv` (a row a study and direction, index from 1) and
/// `synthetic_random_shifts.svg` and the like into the folder `out`.
///
/// # Errors
/// [`Error::Io`] where they cannot be written.
pub fn write(out: &Path, seed: u64) -> Result<Synthetic> {
    #[derive(Serialize)]
    struct Record {
        study: &'static str,
        index: usize,
        hessian: f64,
        covariance: f64,
    }
    let studies = [random_shifts(seed)?, perfect_alignment(seed)?, spectral_degeneracy(seed)?];
    let svgs = [studies[0].plot()?, studies[1].plot()?, studies[2].plot()?];
    std::fs::create_dir_all(out).map_err(Error::io(out, "create folder"))?;
    let records = studies.iter().flat_map(|study| {
        (0..DIMENSION).map(|i| Record {
            study: study.name,
            index: i + 1,
            hessian: study.hessian[i],
            covariance: study.covariance[i],
        })
    });
    write_csv(out.join("synthetic.csv"), records)?;
    for (study, svg) in studies.iter().zip(&svgs) {
        write_text(out.join(format!("synthetic_{}.svg", study.name)), svg)?;
    }
    Ok(Synthetic { studies, svgs })
}

impl Synthetic {
    /// What the report shows.
    pub fn blocks(&self) -> Vec<Block> {
        let caption = "C_ii against H_ii of the random-shifts model (eqs. 96–103), of perfectly aligned curvatures that vary as their means (Proposition 5.3), and of dominant modes of one magnitude (Proposition 5.5).";
        vec![
            Block::Figures { svgs: self.svgs.to_vec(), caption: caption.into() },
            Block::Findings { findings: self.findings() },
        ]
    }

    /// Whether each γ is what theory has.
    pub fn findings(&self) -> Vec<Finding> {
        self.studies.iter().map(Study::finding).collect()
    }
}
