//! Spectra to be found, and what is claimed of pairs that a solver found.

use curvkit::operators::{Curvature, SymmetricOperator};
use curvkit::spectral::{Eigenpairs, Estimate, Which};
use nalgebra::{DMatrix, DVector};

use crate::cases::{Case, random};
use crate::f64s;

/// Uniform in [−1, 1), times `scale`.
pub fn bulk(seed: u64, count: usize, scale: f64) -> Vec<f64> {
    f64s(&random(seed, count)).into_iter().map(|x| scale * x).collect()
}

/// `head`, then as much of `tail` as makes `dim` eigenvalues.
pub fn spectrum(dim: usize, head: impl IntoIterator<Item = f64>, tail: Vec<f64>) -> Vec<f64> {
    head.into_iter().chain(tail).take(dim).collect()
}

/// Four values twenty times each, two at each end of a uniform bulk.
pub fn clusters_of_20(dim: usize) -> Vec<f64> {
    let heads = [5.0, 3.0, -4.0, -2.5].into_iter().flat_map(|value| [value; 20]);
    spectrum(dim, heads, bulk(1, dim, 1.0))
}

/// 95 % of the eigenvalues lie within 1 % of the largest around zero.
pub fn wide_bulk(dim: usize) -> Vec<f64> {
    let outlier = |i: usize| [1.0, -0.3][i % 2] / (1.0 + i as f64).sqrt();
    spectrum(dim, (0..dim / 20).map(outlier), bulk(3, dim, 0.01))
}

/// The K wanted ones.
pub fn wanted(eigenvalues: &[f64], which: Which, count: usize) -> Vec<f64> {
    let mut sorted = eigenvalues.to_vec();
    match which {
        Which::Largest => sorted.sort_by(|a, b| b.total_cmp(a)),
        Which::Smallest => sorted.sort_by(f64::total_cmp),
        Which::Magnitude => sorted.sort_by(|a, b| b.abs().total_cmp(&a.abs())),
    }
    sorted.truncate(count);
    sorted
}

/// The largest magnitude.
pub fn largest(eigenvalues: &[f64]) -> f64 {
    eigenvalues.iter().fold(0.0, |m, v| m.max(v.abs()))
}

/// The vectors as columns, `[dim, K]`.
///
/// # Panics
/// Where the device fails.
pub fn vectors(operator: &dyn SymmetricOperator, pairs: &Eigenpairs) -> DMatrix<f64> {
    let block = pairs.vectors.block(0..pairs.vectors.len()).unwrap();
    let flat = f64s(&operator.unpad(&block.download().unwrap()).unwrap());
    DMatrix::from_column_slice(operator.dim(), pairs.vectors.len(), &flat)
}

/// What was asked for: K, the end, the tolerance.
pub type Asked = (usize, Which, f64);

/// Asserts everything that is claimed of converged pairs of an operator whose products `times` makes in f64; the
/// eigenvalues are to be `exact` to that share of the largest.
///
/// # Panics
/// Where it does not hold.
#[track_caller]
pub fn check(
    what: &str,
    operator: &dyn SymmetricOperator,
    times: impl Fn(&[f64]) -> Vec<f64>,
    spectrum: &[f64],
    (count, which, tolerance): Asked,
    pairs: &Eigenpairs,
    exact: f64,
) {
    let scale = largest(spectrum);
    let expected = wanted(spectrum, which, count);
    assert_eq!(pairs.values.len(), count, "{what}: pairs");
    let bad = pairs.converged.iter().filter(|&&c| !c).count();
    assert!(bad == 0, "{what}: {bad} not converged, residuals {:?}", pairs.residuals);
    for (i, (found, expected)) in pairs.values.iter().zip(&expected).enumerate() {
        // the ends' eigenvalues of like magnitude may come in either order
        let off = match which {
            Which::Magnitude => (found.abs() - expected.abs()).abs(),
            _ => (found - expected).abs(),
        };
        assert!(off <= exact * scale, "{what}: eigenvalue {i} is {found}, expected {expected} (of {scale})");
    }
    let v = vectors(operator, pairs);
    let unit = DMatrix::<f64>::identity(count, count);
    let orthonormal = (v.transpose() * &v - unit).amax();
    assert!(orthonormal < 1.5e-6, "{what}: VᵀV is off by {orthonormal:e}");
    for (i, x) in v.column_iter().enumerate() {
        let ax = DVector::from_vec(times(x.as_slice()));
        let residual = (ax - pairs.values[i] * x).norm() / scale;
        let claimed = pairs.residuals[i];
        assert!(claimed <= tolerance, "{what}: residual {i}");
        assert!(
            (residual - claimed).abs() <= 2e-6 + 0.02 * residual,
            "{what}: residual {i} is {residual:e}, claimed {claimed:e}"
        );
    }
}

/// Asserts that the leading vectors span what the leading exact ones do, for each number of them behind which the
/// spectrum has a gap δ of 1e-3 of the largest: `‖sin Θ‖_F ≤ ‖R‖_F / δ` (Davis & Kahan 1970), where R are the residuals,
/// and rounding. Returns how many such numbers there are.
///
/// `spectrum`, `exact`: eigenvalues and, as columns, eigenvectors, the most wanted first.
///
/// # Panics
/// Where it does not hold.
#[track_caller]
pub fn check_spans(
    what: &str,
    operator: &dyn SymmetricOperator,
    spectrum: &[f64],
    exact: &DMatrix<f64>,
    pairs: &Eigenpairs,
) -> usize {
    let (v, scale) = (vectors(operator, pairs), largest(spectrum));
    let gap = |m: usize| (pairs.values[m - 1] - spectrum[m]).abs() / scale;
    let numbers = (1..=v.ncols()).filter(|&m| gap(m) > 1e-3);
    numbers
        .inspect(|&m| {
            let (v, u) = (v.columns(0, m), exact.columns(0, m));
            let sines = (v - u * u.tr_mul(&v)).norm();
            let residual = pairs.residuals[..m].iter().map(|r| r * r).sum::<f64>().sqrt();
            let most = 1.05 * residual / gap(m) + 3e-6 * (m as f64).sqrt() / gap(m);
            assert!(
                sines <= most,
                "{what}: of {m} vectors the span is off by {sines:e}, at most {most:e} allowed"
            );
        })
        .count()
}

/// Basis, values and residuals, bit by bit, and the products.
///
/// # Panics
/// Where the device fails.
pub fn bits(pairs: &Eigenpairs) -> (Vec<u32>, Vec<u64>, Vec<u64>, usize) {
    let vectors = pairs.vectors.download().unwrap();
    let bits = |x: &[f64]| x.iter().map(|x| x.to_bits()).collect();
    let vectors = vectors.iter().map(|x| x.to_bits()).collect();
    (vectors, bits(&pairs.values), bits(&pairs.residuals), pairs.products)
}

/// `D × D` of that curvature.
pub fn dense(case: &Case, which: Curvature) -> DMatrix<f64> {
    let problem = case.problem();
    match which {
        Curvature::Hessian => problem.hessian(),
        Curvature::Ggn => problem.ggn(),
        Curvature::NoiseCovariance => problem.noise_covariance(),
        Curvature::SecondMoment => problem.second_moment(),
        Curvature::JacobianGram => problem.jacobian_gram(),
    }
}

/// Eigenvalues in ascending order, and eigenvectors as columns.
///
/// # Panics
/// Where the decomposition fails.
pub fn decomposed(matrix: &DMatrix<f64>) -> (Vec<f64>, DMatrix<f64>) {
    let dim = matrix.nrows();
    let entries = faer::Mat::from_fn(dim, dim, |i, j| matrix[(i, j)]);
    let pairs = entries.self_adjoint_eigen(faer::Side::Lower).expect("eigenpairs");
    let (s, u) = (pairs.S().column_vector(), pairs.U());
    (s.iter().copied().collect(), DMatrix::from_fn(dim, dim, |i, j| u[(i, j)]))
}

/// Asserts that an estimate is off by no more than four of its standard errors, and `rounding`.
#[track_caller]
pub fn assert_within(what: &str, found: Estimate, expected: f64, rounding: f64) {
    let off = (found.value - expected).abs();
    assert!(
        off <= 4.0 * found.standard_error + rounding,
        "{what}: {} ± {}, expected {expected}",
        found.value,
        found.standard_error
    );
}
