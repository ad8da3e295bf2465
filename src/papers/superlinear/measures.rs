//! What is measured on H, C and `E[h_p²]` of one layer: the exponents and the alignment.
//!
//! All matrices are `[D, D]`, symmetric, in f64. H is the layer's Hessian, C the uncentred second
//! moment of per-sample gradients (eq. 2 without 1/B), `E[h_p²]` the second moment of per-sample
//! Hessians (eqs. 15 and 71 without σ_w²/2B). V holds H's eigenvectors in descending order of
//! eigenvalue. Any other estimate of C, in whatever basis order, can stand in C's place.

use std::f64::consts::PI;

use faer::{Mat, MatRef, Side};
use serde::{Deserialize, Serialize};

use crate::report::told;
use crate::stats::{Interval, LineFit, fit_line, fit_line_bootstrap, log10_normal_cdf, spearman};
use crate::{Error, Result, Undefined};

/// Resamples of an exponent's confidence interval.
const RESAMPLES: usize = 1_000;

/// H's eigenpairs, in descending order of eigenvalue.
#[derive(Clone, Debug)]
pub struct Eigenbasis {
    /// `[D]`, the diagonal of H in its own eigenbasis.
    pub values: Vec<f64>,
    /// V `[D, D]`: column i belongs to `values[i]`.
    pub vectors: Mat<f64>,
}

impl Eigenbasis {
    /// Diagonalises `hessian`, of which the lower triangle is read.
    ///
    /// # Errors
    /// [`Error::Shape`] where it is not square, [`Error::NotFinite`] where it holds a NaN or an infinity
    /// or where the eigensolver did not converge.
    pub fn of(hessian: MatRef<'_, f64>) -> Result<Eigenbasis> {
        check_square("Hessian", hessian, hessian.nrows())?;
        let pairs = hessian.self_adjoint_eigen(Side::Lower).map_err(|error| Error::NotFinite {
            quantity: "Hessian's eigenvalues".into(),
            detail: format!("{error:?}"),
        })?;
        let ascending = pairs.S().column_vector();
        Ok(Eigenbasis {
            values: ascending.iter().rev().copied().collect(),
            vectors: pairs.U().reverse_cols().to_owned(),
        })
    }

    /// D.
    pub fn dimension(&self) -> usize {
        self.values.len()
    }

    /// The diagonal `[D]` of VᵀMV, at the cost of one product of matrices.
    ///
    /// # Errors
    /// [`Error::Shape`] where M is not `[D, D]`, [`Error::NotFinite`] where it holds a NaN or an infinity.
    pub fn diagonal(&self, matrix: MatRef<'_, f64>) -> Result<Vec<f64>> {
        check_square("matrix", matrix, self.dimension())?;
        let product = matrix * &self.vectors; // M V [D, D]
        Ok(self.vectors.col_iter().zip(product.col_iter()).map(|(v, mv)| v.transpose() * mv).collect())
    }

    /// Vᵀx, of a vector x `[D]`.
    pub fn coordinates(&self, x: &[f64]) -> Vec<f64> {
        let along = |v: faer::ColRef<'_, f64>| v.iter().zip(x).map(|(v, x)| v * x).sum();
        self.vectors.col_iter().map(along).collect()
    }

    /// VᵀMV `[D, D]`.
    ///
    /// # Errors
    /// As [`Eigenbasis::diagonal`].
    pub fn express(&self, matrix: MatRef<'_, f64>) -> Result<Mat<f64>> {
        check_square("matrix", matrix, self.dimension())?;
        Ok(self.vectors.transpose() * (matrix * &self.vectors))
    }
}

/// The diagonals in H's eigenbasis that the tables are of, each `[D]`, in descending order of H_ii.
#[derive(Clone, Debug, PartialEq)]
pub struct Diagonals {
    /// H_ii (eq. 16)
    pub hessian: Vec<f64>,
    /// C_ii
    pub covariance: Vec<f64>,
    /// `E_p[Σ_m κ_m² (u_m·v_i)²]` (eq. 17)
    pub curvature_second_moment: Vec<f64>,
    /// Those of C_AWD,raw (eq. 59).
    pub awd_raw: Vec<f64>,
}

impl Diagonals {
    /// γ_emp, γ_AWD and γ′_AWD over the leading `top` directions.
    ///
    /// # Errors
    /// As [`Exponent::of`].
    pub fn exponents(&self, top: usize) -> Result<Exponents> {
        let of = |second: &[f64]| Exponent::of(&self.hessian, second, top, 0);
        Ok(Exponents {
            emp: of(&self.covariance)?,
            awd: of(&self.curvature_second_moment)?,
            awd_raw: of(&self.awd_raw)?,
        })
    }
}

/// The exponents of the paper's Tables 1 and 3.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Exponents {
    /// γ_emp: the empirical covariance against H.
    pub emp: Exponent,
    /// γ_AWD: the second moment of per-sample curvature against H.
    pub awd: Exponent,
    /// γ′_AWD: C_AWD,raw, its gradient terms included, against H.
    pub awd_raw: Exponent,
}

/// γ in `C_ii ∝ H_ii^γ`, as a fit in log₁₀.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Exponent {
    /// The line through log₁₀ C_ii against log₁₀ H_ii, whose slope is γ.
    pub fit: Option<LineFit>,
    /// The 95 % confidence interval of γ, by the bootstrap over directions.
    pub interval: Option<Interval>,
    /// Why there is no `fit` or no `interval`, where there is none.
    pub undefined: Undefined,
}

impl Exponent {
    /// Of C's diagonal against H's over the leading `top` directions; `seed` is the bootstrap's.
    ///
    /// # Errors
    /// [`Error::Shape`] or [`Error::NotFinite`] as [`exponent`].
    pub fn of(hessian: &[f64], covariance: &[f64], top: usize, seed: u64) -> Result<Exponent> {
        let mut undefined = Undefined::default();
        let fit = undefined.or_value("fit", exponent(hessian, covariance, top))?;
        let interval = undefined.or_value("interval", exponent_interval(hessian, covariance, top, seed))?;
        Ok(Exponent { fit, interval, undefined })
    }

    /// γ, where it is defined.
    pub fn slope(&self) -> Option<f64> {
        self.fit.map(|fit| fit.slope)
    }

    /// The fitted line.
    ///
    /// # Errors
    /// [`Error::Undefined`] with the reason, by the name `what`.
    pub fn line(&self, what: &str) -> Result<LineFit> {
        self.fit.ok_or_else(|| Error::undefined(what, self.undefined.reason("fit").unwrap_or_default()))
    }
}

/// An interval as a cell or a sentence has it, its ends set apart by `between`.
pub fn told_interval(interval: Option<Interval>, between: &str) -> String {
    told(interval, |of| format!("{:.3}{between}{:.3}", of.low, of.high))
}

/// γ in `C_ii ∝ H_ii^γ` (eq. 18): the slope of log₁₀ C_ii against log₁₀ H_ii over the first `top`
/// entries, of which [`curved_pairs`] are used.
///
/// # Errors
/// [`Error::Undefined`] where fewer than three of them are, or where all their H_ii are equal.
pub fn exponent(hessian: &[f64], covariance: &[f64], top: usize) -> Result<LineFit> {
    let (x, y): (Vec<f64>, Vec<f64>) = curved_pairs(hessian, covariance, top)
        .map(|(hessian, covariance)| (hessian.log10(), covariance.log10()))
        .unzip();
    fit_line(&x, &y).map_err(of_directions)
}

/// What is undefined of points is so of directions with curvature and noise.
fn of_directions(error: Error) -> Error {
    match error {
        Error::Undefined { reason, .. } => {
            Error::undefined("γ", format!("{reason}; a point is a direction with curvature and noise"))
        }
        other => other,
    }
}

/// The 95 % confidence interval of [`exponent`], by the bootstrap over directions.
///
/// # Errors
/// As [`exponent`], but [`Error::Undefined`] for fewer than five directions.
pub fn exponent_interval(hessian: &[f64], covariance: &[f64], top: usize, seed: u64) -> Result<Interval> {
    let pairs = curved_pairs(hessian, covariance, top);
    let (x, y): (Vec<f64>, Vec<f64>) = pairs.map(|(h, c)| (h.log10(), c.log10())).unzip();
    fit_line_bootstrap(&x, &y, RESAMPLES, seed).map_err(of_directions)
}

/// The pairs among the first `top` where both are positive and the curvature is told from 0.
///
/// H is made in single precision, and turned into its eigenbasis: an entry of its diagonal is off by some ε‖H‖/√D,
/// whatever its size. C_ii is a sum of squares, each of which is as accurate as it is small.
pub fn curved_pairs<'a>(
    hessian: &'a [f64],
    covariance: &'a [f64],
    top: usize,
) -> impl Iterator<Item = (f64, f64)> + 'a {
    let norm = hessian.iter().map(|x| x * x).sum::<f64>().sqrt();
    let floor = 4.0 * f64::from(f32::EPSILON) * norm / (hessian.len() as f64).sqrt();
    positive_pairs(hessian, covariance, top).filter(move |&(hessian, _)| hessian > floor)
}

/// The pairs among the first `top` where both are positive.
pub fn positive_pairs<'a>(
    hessian: &'a [f64],
    covariance: &'a [f64],
    top: usize,
) -> impl Iterator<Item = (f64, f64)> + 'a {
    let pairs = hessian.iter().copied().zip(covariance.iter().copied()).take(top);
    pairs.filter(|&(hessian, covariance)| hessian > 0.0 && covariance > 0.0)
}

/// The scale-invariant coupling |R_ij| of distinct directions.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Coupling {
    /// μ (eq. 7)
    pub mean: f64,
    /// σ²
    pub variance: f64,
    /// The directions that it is taken over; see [`resolved`].
    pub directions: usize,
}

/// `R_ij = C_ij / √|C_ii C_jj|` (eq. 6), `[D, D]`; NaN, which heat maps leave white, where C_ii or C_jj is zero.
pub fn correlation_matrix(covariance: MatRef<'_, f64>) -> Mat<f64> {
    let scale: Vec<f64> = (0..covariance.nrows())
        .map(|i| covariance[(i, i)].abs())
        .map(|diagonal| if diagonal > 0.0 { diagonal.sqrt().recip() } else { f64::NAN })
        .collect();
    Mat::from_fn(covariance.nrows(), covariance.ncols(), |i, j| covariance[(i, j)] * scale[i] * scale[j])
}

/// The directions i whose C_ii stands above single-precision rounding, in ascending order of i.
///
/// C is summed in f32, so its entries are off by about ε‖C‖_F/D each and so is any C_ii; units that no
/// sample activates give directions with no gradient at all. R is not defined there.
pub fn resolved(covariance: MatRef<'_, f64>) -> Vec<usize> {
    let floor = f64::from(f32::EPSILON) * covariance.norm_l2() / covariance.nrows() as f64;
    (0..covariance.nrows()).filter(|&i| covariance[(i, i)] > floor).collect()
}

impl Coupling {
    /// μ and σ² of |R_ij|, i ≠ j, over the [`resolved`] directions of `covariance`.
    ///
    /// # Errors
    /// [`Error::Undefined`] where fewer than two directions are resolved.
    pub fn of(covariance: MatRef<'_, f64>) -> Result<Coupling> {
        let directions = resolved(covariance);
        if directions.len() < 2 {
            let reason = format!("{} directions have noise, 2 are needed", directions.len());
            return Err(Error::undefined("the coupling of directions", reason));
        }
        let (mut sum, mut sum_of_squares) = (0.0, 0.0);
        for (n, &j) in directions.iter().enumerate() {
            for &i in &directions[n + 1..] {
                let squared = covariance[(i, j)].powi(2) / (covariance[(i, i)] * covariance[(j, j)]);
                sum += squared.sqrt();
                sum_of_squares += squared;
            }
        }
        let pairs = (directions.len() * (directions.len() - 1) / 2) as f64;
        let mean = sum / pairs;
        Ok(Coupling { mean, variance: sum_of_squares / pairs - mean * mean, directions: directions.len() })
    }
}

/// M, the effective number of spikes in C's spectrum: the participation ratio `(Σλ)² / Σλ²`, which is
/// `(tr C)² / ‖C‖_F²` and needs no eigenvalues.
///
/// M equal spikes give M. It is the M that Appendix C calls for at any spectrum: for Haar-random
/// eigenvectors, Var C_ij = Σλ²/D² and E C_ii = Σλ/D, hence Var R_ij ≈ 1/M (eqs. 33, 37).
///
/// # Errors
/// [`Error::Undefined`] where C is zero.
pub fn effective_rank(covariance: MatRef<'_, f64>) -> Result<f64> {
    let trace: f64 = (0..covariance.nrows()).map(|i| covariance[(i, i)]).sum();
    Ok(ratio("the effective rank", trace, covariance.norm_l2())?.powi(2))
}

/// `part / whole`, of norms.
fn ratio(quantity: &str, part: f64, whole: f64) -> Result<f64> {
    match whole > 0.0 {
        true => Ok(part / whole),
        false => Err(Error::undefined(quantity, "the matrix is 0")),
    }
}

/// What Appendices C and D expect of μ where C's eigenvectors are unrelated to the basis, and how far
/// off the observed μ is.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Significance {
    /// M, see [`effective_rank`].
    pub effective_rank: f64,
    /// `√(2/π) / √M` (eqs. 40, 43)
    pub baseline: f64,
    /// `SE = √((1 − 2/π) / M) / D` (eq. 45), for entries of R taken as independent.
    pub standard_error: f64,
    /// `Z = (μ − baseline) / SE` (eq. 46); negative where C is more diagonal than chance has it.
    pub z: f64,
    /// log₁₀ of the one-sided p-value `P(Z' ≤ Z)`.
    pub log10_p: f64,
}

impl Significance {
    /// Of `coupling` against chance, for a covariance of `effective_rank`.
    pub fn of(coupling: &Coupling, effective_rank: f64) -> Significance {
        let baseline = (2.0 / PI / effective_rank).sqrt();
        let standard_error = ((1.0 - 2.0 / PI) / effective_rank).sqrt() / coupling.directions as f64;
        let z = (coupling.mean - baseline) / standard_error;
        Significance { effective_rank, baseline, standard_error, z, log10_p: log10_normal_cdf(z) }
    }
}

/// `‖CH − HC‖_F / ‖CH‖_F`, with `covariance` in H's eigenbasis and `hessian` its eigenvalues `[D]`: there
/// `(CH)_ij = C_ij H_jj`. Zero where they commute; √2 for unrelated matrices whose effective ranks are
/// far below D.
///
/// # Errors
/// [`Error::Undefined`] where CH is zero.
pub fn commutativity_error(covariance: MatRef<'_, f64>, hessian: &[f64]) -> Result<f64> {
    let (mut commutator, mut product) = (0.0, 0.0);
    for (column, h_j) in covariance.col_iter().zip(hessian) {
        for (c, h_i) in column.iter().zip(hessian) {
            commutator += (c * (h_j - h_i)).powi(2);
            product += (c * h_j).powi(2);
        }
    }
    Ok(ratio("the commutativity error", commutator, product)?.sqrt())
}

/// The diagonal's share of the magnitude of `covariance`, `‖diag C‖_F / ‖C‖_F`, in [0, 1]: 1 where C is
/// diagonal.
///
/// # Errors
/// [`Error::Undefined`] where C is zero.
pub fn eigen_alignment(covariance: MatRef<'_, f64>) -> Result<f64> {
    let diagonal: f64 = (0..covariance.nrows()).map(|i| covariance[(i, i)].powi(2)).sum();
    ratio("the eigen-alignment", diagonal.sqrt(), covariance.norm_l2())
}

/// How C lies in a basis.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Structure {
    /// μ and σ² of |R_ij| (eq. 7).
    pub coupling: Option<Coupling>,
    /// `‖CH − HC‖_F / ‖CH‖_F`, see [`commutativity_error`].
    pub commutativity_error: Option<f64>,
    /// `‖diag C‖_F / ‖C‖_F`, in [0, 1], see [`eigen_alignment`].
    pub eigen_alignment: Option<f64>,
    /// Spearman's ρ of C_ii and H_ii over all D directions.
    pub spearman: Option<f64>,
    /// The same over the leading 𝒩.
    pub spearman_top: Option<f64>,
    /// Why a measure has no value, where it has none.
    pub undefined: Undefined,
}

impl Structure {
    /// Of `covariance` in H's eigenbasis; `hessian` are the eigenvalues `[D]`, `top` is 𝒩.
    ///
    /// # Errors
    /// [`Error::Shape`] where it is not `[D, D]`, [`Error::NotFinite`] where it holds a NaN or an infinity.
    pub fn of(covariance: MatRef<'_, f64>, hessian: &[f64], top: usize) -> Result<Structure> {
        check_square("covariance", covariance, hessian.len())?;
        let diagonal: Vec<f64> = (0..hessian.len()).map(|i| covariance[(i, i)]).collect();
        let top = top.min(hessian.len());
        let mut undefined = Undefined::default();
        let error = commutativity_error(covariance, hessian);
        Ok(Structure {
            coupling: undefined.or_value("coupling", Coupling::of(covariance))?,
            commutativity_error: undefined.or_value("commutativity_error", error)?,
            eigen_alignment: undefined.or_value("eigen_alignment", eigen_alignment(covariance))?,
            spearman: undefined.or_value("spearman", spearman(hessian, &diagonal))?,
            spearman_top: undefined.or_value("spearman_top", spearman(&hessian[..top], &diagonal[..top]))?,
            undefined,
        })
    }
}

/// QCQᵀ: with Q Haar-random, C's spectrum with eigenvectors that know nothing of H.
///
/// This is the paper's `C_rand = Q Λ_C Qᵀ`: with C = U Λ_C Uᵀ, QU is as Haar-random as Q.
pub fn rotated(covariance: MatRef<'_, f64>, q: MatRef<'_, f64>) -> Mat<f64> {
    q * (covariance * q.transpose())
}

fn check_square(what: &str, matrix: MatRef<'_, f64>, dimension: usize) -> Result<()> {
    if (matrix.nrows(), matrix.ncols()) != (dimension, dimension) {
        return Err(Error::shape(what, [matrix.nrows(), matrix.ncols()], [dimension, dimension]));
    }
    if !matrix.is_all_finite() {
        return Err(Error::NotFinite { quantity: what.into(), detail: "an entry is NaN or infinite".into() });
    }
    Ok(())
}
