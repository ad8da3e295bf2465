//! Figures 3 and 13–15, Section 5.3 and Appendix B.3: the suppression experiment. What is it about the
//! per-sample spectra that makes γ?
//!
//! From the eigenpairs of n samples' Hessians, `h_p = Σ_m κ_m w_m w_mᵀ` (eq. 23), and the squared projections
//! of their eigenvectors on H's, H and `2C/σ_w²` are put together anew with other eigenvalues κ̃ (eq. 27):
//!
//! ```text
//! H̃_ii = (1/n) Σ_p Σ_m κ̃_m (w_m · v_i)²      2C̃_ii/σ_w² = (1/n) Σ_p Σ_m κ̃_m² (w_m · v_i)²
//! ```
//!
//! Four times: as they are; with all but each sample's first mode suppressed; with the first modes of all but
//! the stiff samples suppressed besides; and with the stiff samples' first eigenvalues made equal (eqs. 24–26).

mod figures;

pub use figures::{Figures, write};

use faer::Mat;
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use super::measures::{Eigenbasis, Exponent, positive_pairs};
use crate::data::Targets;
use crate::net::Loss;
use crate::operators::{LayerCurvature, SampleSpectra};
use crate::stats::{Interval, LineFit, fit_line, mean};
use crate::{Error, Result};

/// n, the samples that the paper takes.
pub const SAMPLES: usize = 200;
/// What eigenvalues past a sample's first are multiplied by, ε_tail.
const TAIL: f64 = 1e-5;
/// What the first eigenvalues of samples that are not stiff are multiplied by, ε_bg.
const BACKGROUND: f64 = 1e-3;

/// The positions of `count` samples, drawn by `seed` from each class in turn; in ascending order.
///
/// # Errors
/// [`Error::Argument`] where the targets are no classes, or fewer than `count`.
pub fn draw(targets: &Targets, count: usize, seed: u64) -> Result<Vec<usize>> {
    let Targets::Classes(classes) = targets else {
        return Err(Error::argument("targets", "values", "classes, to draw as many samples of each"));
    };
    if classes.len() < count {
        return Err(Error::argument("samples", classes.len(), format!("at least {count}")));
    }
    let mut order: Vec<usize> = (0..classes.len()).collect();
    order.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
    let mut seen = vec![0usize; 1 + classes.iter().copied().max().unwrap_or(0) as usize];
    let mut turns: Vec<(usize, u32, usize)> = Vec::with_capacity(order.len());
    for position in order {
        let class = classes[position];
        turns.push((seen[class as usize], class, position));
        seen[class as usize] += 1;
    }
    turns.sort_unstable();
    let mut drawn: Vec<usize> = turns[..count].iter().map(|turn| turn.2).collect();
    drawn.sort_unstable();
    Ok(drawn)
}

/// H, C and the spectra that they are made of, as they are or with other eigenvalues.
#[derive(Clone, Debug)]
pub struct Stage {
    /// κ̃_m of sample p: `[n, d_out]`, in descending order of κ_m.
    pub eigenvalues: Vec<f64>,
    /// H̃_ii `[D]`, in the order of the basis.
    pub hessian: Vec<f64>,
    /// `2C̃_ii/σ_w²` `[D]`
    pub covariance: Vec<f64>,
    /// `[D, d_out]`: the share of `2C̃_ii/σ_w²` that modes 1 to k of every sample make up, in column k − 1; NaN
    /// where it is zero.
    pub cumulative: Mat<f64>,
    /// γ over the leading directions.
    pub gamma: LineFit,
    /// `None` for fewer than five directions.
    pub interval: Option<Interval>,
    /// Of H̃_ii against the unchanged H_ii.
    pub hessian_change: Change,
    /// Of C̃_ii against the unchanged C_ii.
    pub covariance_change: Change,
}

/// How far a diagonal is from what it was, over the leading directions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Change {
    /// Of log₁₀ of the changed against log₁₀ of the unchanged diagonal.
    pub slope: f64,
    /// The root mean square of log₁₀ (changed / unchanged).
    pub decades: f64,
}

impl Change {
    fn of(unchanged: &[f64], changed: &[f64], top: usize) -> Result<Change> {
        let pairs: Vec<(f64, f64)> = positive_pairs(unchanged, changed, top).collect();
        let (x, y): (Vec<f64>, Vec<f64>) = pairs.iter().map(|(x, y)| (x.log10(), y.log10())).unzip();
        let line = fit_line(&x, &y)?;
        let squares: Vec<f64> = pairs.iter().map(|(x, y)| (y / x).log10().powi(2)).collect();
        Ok(Change { slope: line.slope, decades: mean(&squares)?.sqrt() })
    }
}

/// The experiment on one layer of one network.
#[derive(Clone, Debug)]
pub struct Suppression {
    /// The loss that H and C are of.
    pub loss: Loss,
    /// θ, above which share of the largest κ₁ a sample counts as stiff (eq. 24).
    pub theta: f64,
    /// 𝒩
    pub top: usize,
    /// d_out: the eigenvalues of a sample's Hessian that are not 0.
    pub modes: usize,
    /// Whether each of the n samples is stiff.
    pub stiff: Vec<bool>,
    /// Unchanged; tails suppressed; background suppressed too; stiff samples made equal too.
    pub stages: [Stage; 4],
}

/// What the stages are called.
const STAGES: [&str; 4] = ["unchanged", "first modes", "stiff first modes", "equal stiff modes"];

impl Suppression {
    /// Of the samples that `layer` is measured on, with H's eigenbasis over the full training set (Section 3.4).
    ///
    /// # Errors
    /// As [`Suppression::of`] and [`LayerCurvature::spectra`].
    pub fn measure(
        layer: &LayerCurvature,
        basis: &Eigenbasis,
        loss: Loss,
        theta: f64,
        top: usize,
    ) -> Result<Suppression> {
        let mut spectra = Vec::new();
        layer.spectra(|batch| {
            spectra.push(batch.clone());
            Ok(())
        })?;
        Suppression::of(&spectra, basis, loss, theta, top)
    }

    /// Of the samples of `spectra`, all of one layer.
    ///
    /// # Errors
    /// [`Error::Shape`] where the layer's weights are not as many as the directions of the basis,
    /// [`Error::Undefined`] where no sample's largest eigenvalue is positive; as [`super::measures::exponent`].
    pub fn of(
        spectra: &[SampleSpectra],
        basis: &Eigenbasis,
        loss: Loss,
        theta: f64,
        top: usize,
    ) -> Result<Suppression> {
        let Some(&SampleSpectra { d_out: modes, d_in, .. }) = spectra.first() else {
            return Err(Error::argument("samples", 0, "at least one"));
        };
        if modes * d_in != basis.dimension() {
            return Err(Error::shape("the layer's weights", [modes, d_in], [basis.dimension()]));
        }
        let kappa: Vec<f64> =
            spectra.iter().flat_map(|batch| &batch.eigenvalues).map(|&k| k as f64).collect();
        let first: Vec<f64> = kappa.iter().step_by(modes).copied().collect();
        let largest = first.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        if largest <= 0.0 {
            let reason = format!("no sample’s h_p has a positive eigenvalue, {largest:e} being the largest");
            return Err(Error::undefined("what is stiff", reason));
        }
        let stiff: Vec<bool> = first.iter().map(|&k| k > theta * largest).collect();
        let cooked = cook(&kappa, &stiff)?;
        let sums = reconstruct(spectra, basis, &cooked);
        let unchanged = (sums[0].hessian.clone(), sums[0].covariance());
        let mut stages = Vec::with_capacity(4);
        for (eigenvalues, sums) in cooked.into_iter().zip(sums) {
            stages.push(Stage::new(eigenvalues, sums, &unchanged, top)?);
        }
        let stages = stages.try_into().expect("as many stages as spectra");
        Ok(Suppression { loss, theta, top, modes, stiff, stages })
    }

    /// The share of the unchanged `2C_ii/σ_w²` that first modes make up: over the leading directions its mean
    /// and its least.
    ///
    /// # Errors
    /// [`Error::Undefined`] where none of them has any noise.
    pub fn first_mode(&self) -> Result<(f64, f64)> {
        let shares = self.stages[0].shares(1, self.top);
        Ok((mean(&shares)?, shares.iter().copied().fold(f64::INFINITY, f64::min)))
    }
}

/// The eigenvalues of each stage (eqs. 25, 26).
fn cook(kappa: &[f64], stiff: &[bool]) -> Result<[Vec<f64>; 4]> {
    let modes = kappa.len() / stiff.len();
    let first = kappa.iter().step_by(modes).zip(stiff);
    let mean = mean(&first.filter(|(_, stiff)| **stiff).map(|(k, _)| *k).collect::<Vec<_>>())?;
    let with = |of_first: &dyn Fn(f64, bool) -> f64| {
        // where all of a sample's M_p is negative, h_p's largest eigenvalue is one of its zeros
        let of_mode = |(n, &k): (usize, &f64)| match n % modes {
            0 if k > 0.0 => of_first(k, stiff[n / modes]),
            _ => TAIL * k,
        };
        kappa.iter().enumerate().map(of_mode).collect()
    };
    Ok([
        kappa.to_vec(),
        with(&|k, _| k),
        with(&|k, stiff| if stiff { k } else { BACKGROUND * k }),
        with(&|k, stiff| if stiff { mean } else { BACKGROUND * k }),
    ])
}

/// The sums over samples of a stage.
struct Sums {
    /// H̃_ii `[D]`
    hessian: Vec<f64>,
    /// `(1/n) Σ_p Σ_{m ≤ k} κ̃_m² (w_m · v_i)²`: `[D, d_out]`
    cumulative: Mat<f64>,
}

impl Sums {
    /// `2C̃_ii/σ_w²` `[D]`, that of all modes.
    fn covariance(&self) -> Vec<f64> {
        self.cumulative.col(self.cumulative.ncols() - 1).iter().copied().collect()
    }
}

/// Puts the diagonals together from each of the spectra in `cooked`, `[n, d_out]` (eq. 27).
fn reconstruct<const S: usize>(
    spectra: &[SampleSpectra],
    basis: &Eigenbasis,
    cooked: &[Vec<f64>; S],
) -> [Sums; S] {
    let (dimension, modes) = (basis.dimension(), spectra[0].d_out);
    let zero = || Sums { hessian: vec![0.0; dimension], cumulative: Mat::zeros(dimension, modes) };
    let mut stages = [(); S].map(|()| zero());
    let share = modes as f64 / cooked[0].len() as f64; // 1/n
    let mut before = 0;
    for batch in spectra {
        batch.project(basis.vectors.as_ref(), |p, projections| {
            for (m, column) in projections.col_iter().enumerate() {
                for (sums, cooked) in stages.iter_mut().zip(cooked) {
                    let kappa = cooked[(before + p) * modes + m];
                    let of_mode = sums.hessian.iter_mut().zip(sums.cumulative.col_mut(m).iter_mut());
                    for ((hessian, square), w_v) in of_mode.zip(column.iter()) {
                        let part = share * kappa * w_v * w_v;
                        *hessian += part;
                        *square += kappa * part;
                    }
                }
            }
        });
        before += batch.count;
    }
    for sums in &mut stages {
        for k in 1..modes {
            for i in 0..dimension {
                sums.cumulative[(i, k)] += sums.cumulative[(i, k - 1)];
            }
        }
    }
    stages
}

impl Stage {
    fn new(eigenvalues: Vec<f64>, sums: Sums, unchanged: &(Vec<f64>, Vec<f64>), top: usize) -> Result<Stage> {
        let (covariance, hessian, mut cumulative) = (sums.covariance(), sums.hessian, sums.cumulative);
        for column in cumulative.col_iter_mut() {
            column.iter_mut().zip(&covariance).for_each(|(part, whole)| *part /= whole);
        }
        let exponent = Exponent::of(&hessian, &covariance, top, 0)?;
        Ok(Stage {
            gamma: exponent.line("γ")?,
            interval: exponent.interval,
            hessian_change: Change::of(&unchanged.0, &hessian, top)?,
            covariance_change: Change::of(&unchanged.1, &covariance, top)?,
            eigenvalues,
            hessian,
            covariance,
            cumulative,
        })
    }

    /// The share of modes 1 to k, for each of the leading `top` directions that has any noise.
    pub fn shares(&self, k: usize, top: usize) -> Vec<f64> {
        let shares = self.cumulative.col(k - 1).iter().take(top).copied();
        shares.filter(|share| share.is_finite()).collect()
    }
}
