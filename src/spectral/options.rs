//! What is asked of an eigensolver, and what it returns.

use serde::{Deserialize, Serialize};

use super::Basis;
use crate::{Error, Result};

/// Half a unit in the last place of single precision: rounding v and A v alone leaves residuals of some such share of
/// |λ₁|, and sums more.
const FINEST: f64 = 1.0 / (1 << 24) as f64;

/// The tolerance that an iteration goes by: it chases nothing that the rounding of products hides.
pub(super) fn chased(tolerance: f64) -> f64 {
    tolerance.max(FINEST)
}

/// Which end of the spectrum is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Which {
    /// The algebraically largest eigenvalues, in descending order.
    Largest,
    /// The algebraically smallest, in ascending order.
    Smallest,
    /// Those largest in magnitude, in descending order of it.
    Magnitude,
}

impl Which {
    /// What is largest for the eigenvalue that is wanted most.
    pub(super) fn rank(self, value: f64) -> f64 {
        match self {
            Which::Largest => value,
            Which::Smallest => -value,
            Which::Magnitude => value.abs(),
        }
    }
}

/// What [`Lanczos`](super::Lanczos) is to find.
#[derive(Clone, Debug, PartialEq)]
pub struct LanczosOptions {
    /// K, the number of eigenpairs.
    pub count: usize,
    pub which: Which,
    /// A pair has converged when `‖A v − λ v‖ ≤ tolerance · |λ₁|`, λ₁ being the eigenvalue of largest
    /// magnitude seen. Where single precision does not reach it, the iteration ends nevertheless, and
    /// [`Eigenpairs::floor`] says what it reaches.
    pub tolerance: f64,
    /// b, the vectors that A is applied to at a time; `None` takes the width that was measured to be
    /// cheapest.
    pub block: Option<usize>,
    /// The most products that are spent, those that measure the residuals at the end included; `None` stands
    /// for `20 K + 2,000`.
    pub max_products: Option<usize>,
    pub seed: u64,
    /// Flat vectors `[k, dim]` to start from, at most b; random ones complete the block.
    pub start: Option<Vec<f32>>,
}

impl LanczosOptions {
    /// The `count` largest eigenvalues to 1e-4.
    pub fn new(count: usize) -> LanczosOptions {
        LanczosOptions {
            count,
            which: Which::Largest,
            tolerance: 1e-4,
            block: None,
            max_products: None,
            seed: 0,
            start: None,
        }
    }

    pub(super) fn max_products(&self) -> usize {
        self.max_products.unwrap_or(20 * self.count + 2000)
    }

    /// The number of vectors to start from.
    ///
    /// # Errors
    /// [`Error::Argument`] or [`Error::Shape`] naming the first option that cannot be used in a space of
    /// `dim` coordinates.
    pub(super) fn check(&self, dim: usize) -> Result<usize> {
        check_wanted(self.count, self.tolerance, dim)?;
        if self.block == Some(0) {
            return Err(Error::argument("block", 0, "at least 1"));
        }
        check_start(self.start.as_deref(), self.block.unwrap_or(dim), dim)
    }
}

/// Whether so many eigenpairs can be asked for, to that tolerance, in a space of `dim` coordinates.
pub(super) fn check_wanted(count: usize, tolerance: f64, dim: usize) -> Result<()> {
    if !(1..=dim).contains(&count) {
        return Err(Error::argument("count", count, format!("1 to {dim}, the dimension")));
    }
    // also false for NaN
    let positive = tolerance > 0.0 && tolerance.is_finite();
    if !positive {
        return Err(Error::argument("tolerance", tolerance, "a number above 0"));
    }
    Ok(())
}

/// The number of vectors to start from, of which there may be `most`.
pub(super) fn check_start(start: Option<&[f32]>, most: usize, dim: usize) -> Result<usize> {
    let Some(start) = start else { return Ok(0) };
    let vectors = start.len() / dim;
    if vectors == 0 || start.len() != vectors * dim || vectors > most {
        return Err(Error::Shape {
            tensor: "start".into(),
            found: format!("[{}]", start.len()),
            expected: format!("[k, {dim}] with k from 1 to {most}"),
        });
    }
    if let Some(value) = start.iter().find(|value| !value.is_finite()) {
        return Err(Error::NotFinite { quantity: "start".into(), detail: format!("it holds {value}") });
    }
    Ok(vectors)
}

/// Eigenpairs, the most wanted first.
pub struct Eigenpairs {
    /// λ, the vectors' Rayleigh quotients: `[K]`, or as many as the budget of products sufficed for.
    pub values: Vec<f64>,
    /// `‖A v − λ v‖ / |λ₁|` by fresh products, `[K]`; 0 for the zero matrix, which has no λ₁ to measure by.
    pub residuals: Vec<f64>,
    /// |λ₁|, the largest magnitude of an eigenvalue that was seen.
    pub scale: f64,
    /// Whether the residual is within the tolerance, `[K]`.
    pub converged: Vec<bool>,
    /// Where pairs have not converged because the rounding of products hides what is left of their residuals, so that
    /// no more of them would help: the largest residual.
    pub floor: Option<f64>,
    /// Whether something has shown that none was missed: a fresh random vector's Krylov sequence, which only
    /// Lanczos makes, or a basis that spans the space.
    pub complete: bool,
    /// v, orthonormal: K vectors.
    pub vectors: Basis,
    /// Products spent, those for the residuals included.
    pub products: usize,
}

impl Eigenpairs {
    /// The same, of an iteration that has done all it could where it is `exhausted`.
    pub(super) fn with_floor(self, exhausted: bool) -> Eigenpairs {
        let short = exhausted && self.converged.contains(&false);
        let floor = short.then(|| self.residuals.iter().copied().fold(0.0, f64::max));
        Eigenpairs { floor, ..self }
    }
}

/// How far an eigensolver has come.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Progress {
    /// Wanted pairs that have converged, as of when they were last looked at.
    pub converged: usize,
    /// K.
    pub count: usize,
    /// Products spent.
    pub products: usize,
    /// Vectors of the basis.
    pub basis: usize,
    /// Products that it may still take, by those a converged pair has taken so far; `None` before one has.
    pub remaining: Option<usize>,
}
