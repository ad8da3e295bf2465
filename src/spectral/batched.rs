//! Eigenpairs of many operators at once.

use std::ops::Range;

use super::options::{chased, check_wanted};
use super::random::Distribution;
use super::recurrence::{Recurrences, groups};
use super::{Observer, Progress, Which};
use crate::operators::{Block, OperatorFamily, combine_each, dots};
use crate::{Error, Result};

/// The share of the tolerance that the recurrence's residual has to reach: the fresh one has rounding on top.
const ESTIMATE: f64 = 0.7;

/// What [`family_eigenpairs`] is to find of each member.
#[derive(Clone, Debug, PartialEq)]
pub struct FamilyOptions {
    /// K, the number of eigenpairs.
    pub count: usize,
    /// The end of the spectrum that is wanted.
    pub which: Which,
    /// A pair has converged when `‖A v − λ v‖ ≤ tolerance · |λ₁|`, λ₁ being the member's eigenvalue of largest
    /// magnitude seen.
    pub tolerance: f64,
    /// The most vectors of a member's basis; `None` stands for `4 K + 40`.
    pub max_steps: Option<usize>,
    /// Of the random vectors.
    pub seed: u64,
}

impl FamilyOptions {
    /// The `count` largest eigenvalues to 1e-4.
    pub fn new(count: usize) -> FamilyOptions {
        FamilyOptions { count, which: Which::Largest, tolerance: 1e-4, max_steps: None, seed: 0 }
    }
}

/// K eigenpairs of each of some neighbouring members, the most wanted first.
pub struct FamilyEigenpairs {
    /// Which members.
    pub members: Range<usize>,
    /// λ, the vectors' Rayleigh quotients: `[members, K]`
    pub values: Vec<f64>,
    /// `‖A v − λ v‖ / |λ₁|` by fresh products: `[members, K]`
    pub residuals: Vec<f64>,
    /// Whether the residual is within the tolerance: `[members, K]`
    pub converged: Vec<bool>,
    /// v, orthonormal for each member: K blocks of a vector a member
    pub vectors: Vec<Block>,
    /// Products spent on each member, those for the residuals included.
    pub products: usize,
}

/// Hands K eigenpairs of every member to `each`, as many members at a time as find room in the memory budget.
///
/// The observer is told of products of all members; where it stops, members that were begun are handed over as they
/// stand, and no more are begun.
///
/// Every member has its own Krylov basis from one random vector, without restarts; products and inner products are
/// made for all members together. The recurrence goes on until the slowest of them has converged, or `max_steps`. Of
/// an eigenvalue with several eigenvectors such a basis holds one, unless it spans an invariant subspace before it is
/// full: then another random vector goes on.
///
/// # Errors
/// [`Error::Argument`] naming the option that cannot be used, [`Error::NotFinite`] naming the member whose product is
/// not finite, what `each` returns, and the device's errors.
pub fn family_eigenpairs(
    family: &dyn OperatorFamily,
    options: &FamilyOptions,
    mut each: impl FnMut(FamilyEigenpairs) -> Result<()>,
    observer: &mut Observer,
) -> Result<()> {
    let (dim, count) = (family.dim(), options.count);
    check_wanted(count, options.tolerance, dim)?;
    let steps = options.max_steps.unwrap_or(4 * count + 40);
    if steps < count {
        return Err(Error::argument("max_steps", steps, format!("at least {count}, the eigenpairs")));
    }
    let steps = steps.min(dim);
    let (mut products, mut stopped) = (0, false);
    for members in groups(family, steps) {
        let mut recurrences =
            Recurrences::new(family, members.clone(), steps, Distribution::Gaussian, options.seed)?;
        let mut due = count;
        loop {
            recurrences.step()?;
            products += members.len();
            stopped |= observer(&Progress::of_products(products, family.count() * steps)).is_break();
            // there have to be as many vectors as pairs
            if recurrences.len == steps || stopped && recurrences.len >= count {
                break;
            }
            if recurrences.len >= due {
                if converged(&recurrences, members.len(), options)? {
                    break;
                }
                due += (due / 4).max(1);
            }
        }
        each(measured(family, &recurrences, members, options)?)?;
        if stopped {
            break;
        }
    }
    Ok(())
}

/// Whether every wanted pair of every member has converged by what the recurrences say.
fn converged(recurrences: &Recurrences, members: usize, options: &FamilyOptions) -> Result<bool> {
    for i in 0..members {
        let ritz = recurrences.ritz(i, options.which)?;
        let enough = ESTIMATE * chased(options.tolerance) * recurrences.largest(i, &ritz.values);
        if ritz.residuals[..options.count].iter().any(|&residual| residual > enough) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The wanted pairs with Rayleigh quotients and residuals by fresh products.
fn measured(
    family: &dyn OperatorFamily,
    recurrences: &Recurrences,
    members: Range<usize>,
    options: &FamilyOptions,
) -> Result<FamilyEigenpairs> {
    let (m, n, count) = (members.len(), recurrences.len, options.count);
    let mut q = vec![vec![0.0; n * m]; count]; // [K][n, members]
    let mut largest = Vec::with_capacity(m);
    for i in 0..m {
        let ritz = recurrences.ritz(i, options.which)?;
        for (k, q) in q.iter_mut().enumerate() {
            (0..n).for_each(|j| q[j * m + i] = ritz.vectors[(j, k)]);
        }
        largest.push(recurrences.largest(i, &ritz.values));
    }
    let mut found = FamilyEigenpairs {
        values: vec![0.0; m * count],
        residuals: vec![0.0; m * count],
        converged: Vec::new(),
        vectors: Vec::with_capacity(count),
        products: n + count,
        members: members.clone(),
    };
    for (k, q) in q.iter().enumerate() {
        let x = recurrences.combined(q)?;
        let y = Block::zeros(family.gpu(), family.stride(), m)?;
        family.apply(members.clone(), &x, &y)?;
        let (xx, xy) = (dots(&x, &x)?, dots(&x, &y)?);
        let lambda: Vec<f64> = (0..m).map(|i| xy[i] / xx[i]).collect();
        let minus: Vec<f64> = lambda.iter().map(|lambda| -lambda).collect();
        combine_each(&minus, &x, &y, true)?; // A v − λ v
        let rr = dots(&y, &y)?;
        for i in 0..m {
            found.values[i * count + k] = lambda[i];
            found.residuals[i * count + k] = (rr[i] / xx[i]).sqrt();
        }
        found.vectors.push(x);
    }
    for (residuals, &largest) in found.residuals.chunks_mut(count).zip(&largest) {
        residuals.iter_mut().for_each(|r| *r = if largest > 0.0 { *r / largest } else { 0.0 });
    }
    found.converged = found.residuals.iter().map(|&residual| residual <= options.tolerance).collect();
    Ok(found)
}
