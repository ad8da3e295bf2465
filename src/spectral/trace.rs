//! Traces, norms and diagonals from products with random vectors.

use faer::Mat;

use super::estimate::of_few;
use super::observer::go_on;
use super::products::Products;
use super::random::{Distribution, RandomVectors};
use super::{Basis, Estimate, Observer, Orthonormal, Progress, orthonormalise};
use crate::operators::{Block, SymmetricOperator, copy, dots};
use crate::{Error, Result};

/// Random vectors that are multiplied at a time; the numbers do not depend on it.
const BLOCK: usize = 16;

/// What a product leaves of a unit vector that counts as nothing beside the longest one.
const ROUNDING: f64 = 1e-6;

/// How much smaller the standard error of XTrace's estimates is if they are taken to be independent.
const CORRELATED: f64 = 1.5;

/// What products with random vectors z with entries ±1 tell of A.
#[derive(Clone, Debug, PartialEq)]
pub struct Hutchinson {
    /// tr A, the mean of `zᵀ A z` (Girard 1987, Hutchinson 1989). The standard error falls as 1/√M with the number M of
    /// products.
    pub trace: Estimate,
    /// ‖A‖_F, from the mean of `‖A z‖²`, which is `‖A‖_F²`. The standard error is that of the mean, to first order.
    pub frobenius_norm: Estimate,
    /// A's diagonal, the mean of `z ⊙ A z` (Bekas, Kokiopoulou & Saad 2007): `[dim]`.
    pub diagonal: Vec<Estimate>,
}

/// Trace, norm and diagonal of A from the same `products`, or from those made where the observer stops it.
///
/// # Errors
/// [`Error::Argument`] for less than two products, [`Error::NotFinite`] where one is not finite, and the device's
/// errors.
pub fn hutchinson(
    operator: &dyn SymmetricOperator,
    products: usize,
    seed: u64,
    observer: &mut Observer,
) -> Result<Hutchinson> {
    if products < 2 {
        return Err(Error::argument("probes", products, "at least 2, for a standard error"));
    }
    let dim = operator.dim();
    let mut random = RandomVectors::new(Distribution::Rademacher, seed);
    let mut made = Products::new("the estimate");
    let (mut traces, mut norms) = (Vec::with_capacity(products), Vec::with_capacity(products));
    let (mut sums, mut squares, mut shift) = (vec![0.0; dim], vec![0.0; dim], Vec::new());
    for first in (0..products).step_by(BLOCK) {
        let z = random.draw(operator, BLOCK.min(products - first))?;
        let az = made.make(operator, &z)?;
        traces.extend(dots(&z, &az)?);
        norms.extend(dots(&az, &az)?);
        let flat = |block: &Block| -> Result<Vec<f32>> { operator.unpad(&block.download()?) };
        let entries: Vec<f64> =
            flat(&z)?.iter().zip(flat(&az)?).map(|(&z, az)| z as f64 * az as f64).collect();
        if shift.is_empty() {
            // sums of what the samples are off the first: their squares cancel less
            shift = entries[..dim].to_vec();
        }
        for sample in entries.chunks_exact(dim) {
            for (i, sample) in sample.iter().enumerate() {
                sums[i] += sample - shift[i];
                squares[i] += (sample - shift[i]).powi(2);
            }
        }
        if observer(&Progress::of_products(made.made, products)).is_break() {
            break;
        }
    }
    let products = made.made;
    if products < 2 {
        return Err(Error::Cancelled);
    }
    let (m, widened) = (products as f64, of_few(products));
    let entry = |i: usize| {
        let variance = (squares[i] - sums[i] * sums[i] / m).max(0.0) / (m - 1.0);
        let standard_error = widened * (variance / m).sqrt();
        Estimate { value: shift[i] + sums[i] / m, standard_error, products }
    };
    Ok(Hutchinson {
        trace: Estimate::of(&traces, products),
        frobenius_norm: Estimate::of(&norms, products).root(),
        diagonal: (0..dim).map(entry).collect(),
    })
}

/// tr A as the trace on the range of A times random vectors, and [`hutchinson`]'s estimate of the rest: a third of the
/// products each for finding that range, for the trace on it and for the rest (Meyer, Musco, Musco & Woodruff 2021,
/// Hutch++). For a matrix whose eigenvalues decay, the standard error falls as 1/M or faster.
///
/// # Errors
/// [`Error::Argument`] for less than six products, [`Error::NotFinite`] where one is not finite, and the device's
/// errors.
pub fn hutch_plus_plus(
    operator: &dyn SymmetricOperator,
    products: usize,
    seed: u64,
    observer: &mut Observer,
) -> Result<Estimate> {
    if products < 6 {
        return Err(Error::argument("products", products, "at least 6"));
    }
    let mut random = RandomVectors::new(Distribution::Rademacher, seed);
    let sketch = (products / 3).min(operator.dim());
    let mut made = Products::new("the estimate");
    let omega = random.draw(operator, sketch)?;
    let mut watch = |made: &Products| go_on(observer, &Progress::of_products(made.made, products));
    let range = Range::of(operator, &mut made, &omega, &mut random, &mut watch)?;
    let within: f64 = (0..sketch).map(|i| range.h[(i, i)]).sum();
    if sketch == operator.dim() {
        return Ok(Estimate { value: within, standard_error: 0.0, products: made.made });
    }
    let mut samples = Vec::new();
    while made.made < products {
        let g = random.draw(operator, BLOCK.min(products - made.made))?;
        range.q.remove_from(&g)?;
        samples.extend(dots(&g, &made.make(operator, &g)?)?);
        if observer(&Progress::of_products(made.made, products)).is_break() {
            break;
        }
    }
    let rest = Estimate::of(&samples, made.made);
    Ok(Estimate { value: within + rest.value, ..rest })
}

/// tr A as the mean of M/2 estimates, each of which takes the trace on the range of A times all random vectors but one,
/// and estimates the rest from that one (Epperly, Tropp & Webber 2024, XTrace). Its standard error falls faster with the
/// number M of products than that of [`hutch_plus_plus`], because all vectors serve both ends.
///
/// For the same reason the estimates are not independent: any two of them are correlated, by about 1/m with m = M/2, and
/// `s/√m` is too small by some √2. The standard error is widened by 1.5, and for few estimates as every one is
/// ([`Estimate::standard_error`]). Simulated for ten spectra of 200 eigenvalues (powers of the index, exponentials, a
/// flat bulk, some that stand out), the trace is off by more than two standard errors in 1 to 10 % of the cases with M from
/// 4 to 60, where `s/√m` alone would make it 5 to 37 %. The exception is a range that just misses something: where M/2
/// is the number of eigenvalues that stand out of a flat rest by a factor of 1,000, it is 30 % still.
///
/// # Errors
/// [`Error::Argument`] for less than four products, [`Error::NotFinite`] where one is not finite, and the device's
/// errors.
pub fn xtrace(
    operator: &dyn SymmetricOperator,
    products: usize,
    seed: u64,
    observer: &mut Observer,
) -> Result<Estimate> {
    if products < 4 {
        return Err(Error::argument("products", products, "at least 4"));
    }
    let dim = operator.dim();
    let mut random = RandomVectors::new(Distribution::Gaussian, seed);
    let m = (products / 2).min(dim);
    let mut made = Products::new("the estimate");
    let omega = random.draw(operator, m)?;
    let mut watch = |made: &Products| go_on(observer, &Progress::of_products(made.made, products));
    let Range { q, h, r, .. } = Range::of(operator, &mut made, &omega, &mut random, &mut watch)?;
    let within: f64 = (0..m).map(|i| h[(i, i)]).sum();
    if m == dim {
        return Ok(Estimate { value: within, standard_error: 0.0, products: made.made });
    }
    let w = q.project(&omega)?; // QᵀΩ
    let squares = dots(&omega, &omega)?;
    let s = left_out(&r)?;
    let sample = |i: usize| {
        let (s, w, aw) = (s.col(i), w.col(i), r.col(i)); // QᵀAω = R e_i
        let along: f64 = s.transpose() * w;
        // ω − Q u is what the range without ω's own part leaves of ω
        let u = w - s * along;
        let rest = w.transpose() * aw - 2.0 * (u.transpose() * aw) + u.transpose() * &h * &u;
        // of the right length for a vector in what is left of the space
        let left = squares[i] - u.squared_norm_l2();
        let room = (dim - m) as f64 + s.squared_norm_l2().round();
        within - s.transpose() * &h * s + rest * room / left
    };
    let of = Estimate::of(&(0..m).map(sample).collect::<Vec<_>>(), made.made);
    Ok(Estimate { standard_error: CORRELATED * of.standard_error, ..of })
}

/// An orthonormal basis Q of the range of `A Ω = Q R`, and `H = QᵀAQ`.
struct Range {
    q: Basis,
    h: Mat<f64>,
    r: Mat<f64>,
}

impl Range {
    fn of(
        operator: &dyn SymmetricOperator,
        products: &mut Products,
        omega: &Block,
        random: &mut RandomVectors,
        watch: &mut dyn FnMut(&Products) -> Result<()>,
    ) -> Result<Range> {
        let m = omega.len();
        let none = Basis::new(operator.gpu(), operator.stride(), 1)?;
        let y = Block::zeros(operator.gpu(), operator.stride(), m)?;
        for first in (0..m).step_by(BLOCK) {
            let range = first..m.min(first + BLOCK);
            let z = Block::zeros(operator.gpu(), operator.stride(), range.len())?;
            copy((omega, range.clone()), &z)?;
            copy(&products.make(operator, &z)?, (&y, range))?;
            watch(products)?;
        }
        let floor = ROUNDING * products.largest;
        let Orthonormal { q: block, r, .. } = orthonormalise(operator, &none, y, m, floor, random)?;
        let mut q = Basis::new(operator.gpu(), operator.stride(), m)?;
        q.append(&block)?;
        let mut h = Mat::zeros(m, m);
        for first in (0..m).step_by(BLOCK) {
            let range = first..m.min(first + BLOCK);
            let az = products.make(operator, &q.block(range.clone())?)?;
            h.subcols_mut(range.start, range.len()).copy_from(&q.project(&az)?);
            watch(products)?;
        }
        Ok(Range { q, h, r })
    }
}

/// For each column of `R`, the unit vector of its space that is orthogonal to all other columns: the direction of the
/// range that this column alone reaches. 0 where R is singular to rounding: the others then reach all of the range.
fn left_out(r: &Mat<f64>) -> Result<Mat<f64>> {
    let m = r.ncols();
    let svd = r.thin_svd().map_err(|error| Error::NotFinite {
        quantity: "the singular values of a random matrix's products".into(),
        detail: format!("{error:?}"),
    })?;
    let sigma = svd.S().column_vector();
    if sigma[m - 1] <= ROUNDING * sigma[0] {
        return Ok(Mat::zeros(m, m));
    }
    // R⁻ᵀ = U Σ⁻¹ Vᵀ
    let scaled = Mat::from_fn(m, m, |i, j| svd.U()[(i, j)] / sigma[j]);
    let inverse = scaled * svd.V().transpose();
    Ok(Mat::from_fn(m, m, |i, j| inverse[(i, j)] / inverse.col(j).norm_l2()))
}
