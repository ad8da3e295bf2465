//! Two operators on one space: do their leading eigenvectors span the same directions, and do they commute?

use super::observer::go_on;
use super::products::Products;
use super::random::{Distribution, RandomVectors};
use super::{Basis, Eigenpairs, Observer, Progress, rayleigh_quotients};
use crate::operators::{SymmetricOperator, combine_each, dots};
use crate::{Error, Result, Undefined};

/// Vectors that are multiplied at a time.
const AT_ONCE: usize = 16;

/// Below this share of |λ₁|, what an operator makes of a unit vector is rounding.
const ROUNDING: f64 = 1e-6;

/// What is measured of A and B, with `u_i` and `v_i` their leading eigenvectors.
#[derive(Clone, Debug, PartialEq)]
pub struct Comparison {
    /// `λ_i = u_iᵀ A u_i`, `[K]`.
    pub eigenvalues: Vec<f64>,
    /// `u_iᵀ B u_i`, `[K]`.
    pub diagonal: Vec<f64>,
    /// Whether `λ_i` and `u_iᵀ B u_i` are told from 0, `[K]`: they stand above their residual and rounding.
    pub resolved: Vec<bool>,
    /// `‖U_kᵀ V_k‖_F² / k` for k = 1 … K: one where the first k eigenvectors of A span what those of B do, about
    /// k / D where they have nothing to do with each other. Undefined where the k-th eigenvalue of either is not told
    /// from 0: all vectors that the operator maps to 0 are its eigenvectors alike.
    pub overlap: Vec<Option<f64>>,
    /// `‖AB − BA‖_F / ‖AB‖_F`: zero where they commute, √2 for unrelated operators of high rank. Undefined where AB
    /// is 0 but for rounding.
    pub commutativity_error: Option<f64>,
    /// Its standard error over the probes.
    pub commutativity_standard_error: Option<f64>,
    /// Why `overlap`, from the first k on that has none, and `commutativity_error` are undefined, where they are.
    pub undefined: Undefined,
    /// Products with A and with B, together.
    pub products: usize,
}

impl Comparison {
    /// Measures B in A's eigenvectors, and both norms from `probes` random vectors `z`, as `E ‖(AB − BA) z‖²` and
    /// `E ‖AB z‖²` (Hutchinson 1989).
    ///
    /// # Errors
    /// [`Error::Shape`] where the operators are not on one space, [`Error::Argument`] for fewer than two probes,
    /// [`Error::NotFinite`] where a product is not finite, [`Error::Cancelled`] where the observer stops it, and the
    /// device's errors.
    pub fn measure(
        (a, of_a): (&dyn SymmetricOperator, &Eigenpairs),
        (b, of_b): (&dyn SymmetricOperator, &Eigenpairs),
        probes: usize,
        seed: u64,
        observer: &mut Observer,
    ) -> Result<Comparison> {
        let (found, expected) = ([b.dim(), b.stride()], [a.dim(), a.stride()]);
        if found != expected {
            return Err(Error::shape("the operator compared with", found, expected));
        }
        if probes < 2 {
            return Err(Error::argument("probes", probes, "at least 2, for a standard error"));
        }
        let [mut by_a, mut by_b] = [(); 2].map(|()| Products::new("the comparison"));
        let total = of_a.vectors.len() + 4 * probes;
        let diagonal = rayleigh_quotients(b, &of_a.vectors)?;
        by_b.made = diagonal.len();
        let mut undefined = Undefined::default();
        let mut overlap: Vec<Option<f64>> =
            overlaps(&of_a.vectors, &of_b.vectors)?.into_iter().map(Some).collect();
        for k in (0..overlap.len()).rev() {
            let vanishing =
                [("first", of_a), ("second", of_b)].into_iter().find(|(_, of)| !told_from_zero(of, k));
            if let Some((which, _)) = vanishing {
                overlap[k] = None;
                let reason = format!("eigenvalue {} of the {which} operator is not told from 0", k + 1);
                undefined.note("overlap", reason);
            }
        }
        let resolved = |i: usize| {
            // an operator that is 0 has rounding alone to show
            told_from_zero(of_a, i) && of_b.scale > 0.0 && diagonal[i].abs() > ROUNDING * of_b.scale
        };
        let (mut commutators, mut products, mut seconds) = (Vec::new(), Vec::new(), 0.0);
        let mut random = RandomVectors::new(Distribution::Rademacher, seed);
        for first in (0..probes).step_by(AT_ONCE) {
            let z = random.draw(a, AT_ONCE.min(probes - first))?;
            let bz = by_b.make(b, &z)?;
            seconds += dots(&bz, &bz)?.iter().sum::<f64>();
            let ab = by_a.make(a, &bz)?;
            let ba = by_b.make(b, &by_a.make(a, &z)?)?;
            products.extend(dots(&ab, &ab)?);
            combine_each(&vec![-1.0; z.len()], &ba, &ab, true)?; // AB z − BA z
            commutators.extend(dots(&ab, &ab)?);
            go_on(observer, &Progress::of_products(by_a.made + by_b.made, total))?;
        }
        let rounding = (ROUNDING * of_a.scale).powi(2) * seconds;
        let zero = of_a.scale == 0.0 || of_b.scale == 0.0;
        let ratio = match zero {
            true => Err(Error::undefined("the commutativity error", "the operators' product is 0")),
            false => root_ratio(&commutators, &products, rounding),
        };
        let commutativity = undefined.or_value("commutativity_error", ratio)?;
        Ok(Comparison {
            eigenvalues: of_a.values.clone(),
            products: by_a.made + by_b.made,
            resolved: (0..diagonal.len()).map(resolved).collect(),
            diagonal,
            overlap,
            commutativity_error: commutativity.map(|(error, _)| error),
            commutativity_standard_error: commutativity.map(|(_, standard_error)| standard_error),
            undefined,
        })
    }
}

/// Whether the i-th eigenvalue stands above its residual, within which an eigenvalue of A lies, and above rounding.
fn told_from_zero(pairs: &Eigenpairs, i: usize) -> bool {
    pairs.values[i].abs() > pairs.residuals[i].max(ROUNDING) * pairs.scale
}

/// `‖U_kᵀ V_k‖_F² / k` for each k up to the shorter of the two.
fn overlaps(u: &Basis, v: &Basis) -> Result<Vec<f64>> {
    let most = u.len().min(v.len());
    let products = u.project_all(v)?; // UᵀV
    // what the k-th row and column add to the square before them
    let added = |k: usize| {
        let row: f64 = (0..=k).map(|j| products[(k, j)].powi(2)).sum();
        let column: f64 = (0..k).map(|i| products[(i, k)].powi(2)).sum();
        row + column
    };
    let sums = (0..most).scan(0.0, |sum, k| {
        *sum += added(k);
        Some(*sum / (k + 1) as f64)
    });
    Ok(sums.collect())
}

/// `√(Σ x / Σ y)` with its standard error by the jackknife; undefined where Σ y, of all terms or of all but one, is no
/// more than `rounding`.
fn root_ratio(x: &[f64], y: &[f64], rounding: f64) -> Result<(f64, f64)> {
    let (sum_x, sum_y): (f64, f64) = (x.iter().sum(), y.iter().sum());
    let ratio = |x: f64, y: f64| match y > rounding {
        true => Ok((x.max(0.0) / y).sqrt()),
        false => Err(Error::undefined("the commutativity error", "the operators' product is 0")),
    };
    let without = x.iter().zip(y).map(|(x, y)| ratio(sum_x - x, sum_y - y)).collect::<Result<Vec<f64>>>()?;
    let n = without.len() as f64;
    let mean = without.iter().sum::<f64>() / n;
    let spread: f64 = without.iter().map(|r| (r - mean).powi(2)).sum();
    Ok((ratio(sum_x, sum_y)?, (spread * (n - 1.0) / n).sqrt()))
}
