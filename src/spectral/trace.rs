//! Traces, Frobenius norms and diagonals from products with random vectors; the largest eigenvalue by power
//! iteration.

use faer::{Mat, Scale};

use super::algebra::{Distribution, RandomVectors, combine, dots, gram};
use super::basis::Basis;
use super::orthonormalise::orthonormalise;
use super::products::Products;
use super::quadrature::mean_with_error;
use crate::operators::{Block, SymmetricOperator};
use crate::{Error, Result};

/// Vectors that are multiplied at a time.
const AT_ONCE: usize = 16;

/// An estimate and how far it may be off.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    pub value: f64,
    /// Over what was drawn.
    pub standard_error: f64,
    /// Products spent.
    pub products: usize,
}

/// What products with random vectors tell at once.
#[derive(Clone, Debug, PartialEq)]
pub struct Hutchinson {
    /// `tr A = E zᵀ A z`
    pub trace: Estimate,
    /// `‖A‖_F = √(E ‖A z‖²)`
    pub frobenius: Estimate,
    /// `A_ii = E z_i (A z)_i`, `[dim]`
    pub diagonal: Vec<f64>,
    /// Its standard errors, `[dim]`.
    pub diagonal_standard_error: Vec<f64>,
}

fn at_least(name: &str, found: usize, least: usize) -> Result<()> {
    if found < least {
        return Err(Error::argument(name, found, format!("at least {least}")));
    }
    Ok(())
}

/// Trace, Frobenius norm and diagonal from `probes` vectors of ±1 (Hutchinson 1989; the diagonal: Bekas, Kokiopoulou
/// & Saad 2007).
///
/// # Errors
/// [`Error::Argument`] for fewer than two probes, [`Error::NotFinite`] where a product is not finite, and the
/// device's errors.
pub fn hutchinson(operator: &dyn SymmetricOperator, probes: usize, seed: u64) -> Result<Hutchinson> {
    at_least("probes", probes, 2)?;
    let mut products = Products::new(operator, "Hutchinson's estimate");
    let mut random = RandomVectors::new(Distribution::Rademacher, seed);
    let (mut traces, mut squares) = (Vec::new(), Vec::new());
    let (mut sum, mut sum_of_squares) = (vec![0.0; operator.dim()], vec![0.0; operator.dim()]);
    for first in (0..probes).step_by(AT_ONCE) {
        let z = random.draw(operator, AT_ONCE.min(probes - first))?;
        let az = products.make(&z)?;
        traces.extend(dots(&z, &az)?);
        squares.extend(dots(&az, &az)?);
        let [flat, product] = [&z, &az].map(|block| block.download().map(|v| operator.unpad(&v)));
        for (i, (z, az)) in flat?.iter().zip(product?).enumerate() {
            let value = f64::from(z * az);
            sum[i % operator.dim()] += value;
            sum_of_squares[i % operator.dim()] += value * value;
        }
    }
    let n = probes as f64;
    let spread = |(sum, squares): (&f64, &f64)| ((squares - sum * sum / n).max(0.0) / (n - 1.0) / n).sqrt();
    let (trace, trace_error) = mean_with_error(&traces);
    let (square, square_error) = mean_with_error(&squares);
    let norm = square.sqrt();
    let estimate = |value, standard_error| Estimate { value, standard_error, products: probes };
    Ok(Hutchinson {
        trace: estimate(trace, trace_error),
        frobenius: estimate(norm, if norm > 0.0 { square_error / (2.0 * norm) } else { 0.0 }),
        diagonal_standard_error: sum.iter().zip(&sum_of_squares).map(spread).collect(),
        diagonal: sum.iter().map(|sum| sum / n).collect(),
    })
}

/// `A X`, a few vectors at a time.
fn multiply(products: &mut Products, x: &Block) -> Result<Block> {
    let y = Block::zeros(x.gpu(), x.stride(), x.len())?;
    for first in (0..x.len()).step_by(AT_ONCE) {
        let range = first..x.len().min(first + AT_ONCE);
        let some = Block::zeros(x.gpu(), x.stride(), range.len())?;
        super::copy((x, range.clone()), &some)?;
        super::copy(&products.make(&some)?, (&y, range))?;
    }
    Ok(y)
}

/// Orthonormal vectors that span those of `y`, and R with `Y = Q R`.
fn span(operator: &dyn SymmetricOperator, y: Block, random: &mut RandomVectors) -> Result<(Block, Mat<f64>)> {
    let none = Basis::new(operator.gpu(), operator.stride(), 1)?;
    let width = y.len();
    let made = orthonormalise(operator, &none, y, width, 0.0, random)?;
    Ok((made.q, made.r))
}

/// The trace by Hutch++ (Meyer, Musco, Musco & Woodruff 2021): exact on the range of a sketch, Hutchinson's on the
/// rest; a third of the products each for the sketch, its range and the rest.
///
/// # Errors
/// [`Error::Argument`] for fewer than six products, [`Error::NotFinite`] where a product is not finite, and the
/// device's errors.
pub fn hutch_plus_plus(operator: &dyn SymmetricOperator, products: usize, seed: u64) -> Result<Estimate> {
    at_least("products", products, 6)?;
    let third = (products / 3).min(operator.dim());
    let mut made = Products::new(operator, "Hutch++");
    let mut random = RandomVectors::new(Distribution::Rademacher, seed);
    let sketch = random.draw(operator, third)?;
    let y = multiply(&mut made, &sketch)?;
    let (q, _) = span(operator, y, &mut random)?;
    let exact: f64 = dots(&q, &multiply(&mut made, &q)?)?.iter().sum();
    let g = random.draw(operator, third)?;
    let components = gram(&q, &g)?;
    combine((-1.0 * &components).as_ref(), &q, &g, true)?; // (I − QQᵀ) G
    let rest = dots(&g, &multiply(&mut made, &g)?)?;
    let (mean, error) = mean_with_error(&rest);
    Ok(Estimate { value: exact + mean, standard_error: error, products: made.made })
}

/// The trace by XTrace (Epperly, Tropp & Webber 2024): as Hutch++, but every test vector sketches for all the others
/// and is tested against what they span, so that half as many serve for both.
///
/// With `Y = A Ω = Q R` and `H = QᵀAQ`, the range of Y without its column i is Q without the direction
/// `s_i ∝ R⁻ᵀ e_i`; the i-th estimate is `tr H − s_iᵀ H s_i + ω_iᵀ (I − P_i) A (I − P_i) ω_i`, P_i projecting onto that
/// range.
///
/// # Errors
/// [`Error::Argument`] for fewer than four products, [`Error::NotFinite`] where a product is not finite, and the
/// device's errors.
pub fn x_trace(operator: &dyn SymmetricOperator, products: usize, seed: u64) -> Result<Estimate> {
    at_least("products", products, 4)?;
    let m = (products / 2).min(operator.dim());
    let mut made = Products::new(operator, "XTrace");
    let mut random = RandomVectors::new(Distribution::Rademacher, seed);
    let omega = random.draw(operator, m)?;
    let y = multiply(&mut made, &omega)?;
    let products_of = dots(&omega, &y)?; // ω_iᵀ A ω_i
    let (q, r) = span(operator, y, &mut random)?;
    let h = gram(&q, &multiply(&mut made, &q)?)?;
    let h = (&h + h.transpose()) * Scale(0.5);
    let w = gram(&q, &omega)?;
    let trace: f64 = (0..m).map(|i| h[(i, i)]).sum();
    let left_out = left_out(&r)?;
    let estimates: Vec<f64> = (0..m)
        .map(|i| {
            let s = left_out.col(i);
            let along = s.transpose() * w.col(i);
            let x = w.col(i) - s * Scale(along); // P_i ω_i in Q
            let hx = &h * &x;
            let mixed = x.transpose() * r.col(i);
            trace - s.transpose() * &h * s + products_of[i] - 2.0 * mixed + x.transpose() * &hx
        })
        .collect();
    let (value, standard_error) = mean_with_error(&estimates);
    Ok(Estimate { value, standard_error, products: made.made })
}

/// The unit vectors s_i, as columns; zero where column i of R depends on the others, whose span it then does not
/// change.
fn left_out(r: &Mat<f64>) -> Result<Mat<f64>> {
    const DEPENDENT: f64 = 1e-6;
    let m = r.ncols();
    let svd = r.svd().map_err(|error| Error::NotFinite {
        quantity: "a sketch's singular values".into(),
        detail: format!("{error:?}"),
    })?;
    let (u, sigma, v) = (svd.U(), svd.S().column_vector(), svd.V());
    let largest = sigma.iter().fold(0.0f64, |largest, &value| largest.max(value));
    let counts = |j: usize| sigma[j] > DEPENDENT * largest;
    let mut s = Mat::zeros(m, m);
    for i in 0..m {
        let dependent: f64 = (0..m).filter(|&j| !counts(j)).map(|j| v[(i, j)].powi(2)).sum();
        if dependent.sqrt() > DEPENDENT {
            continue;
        }
        for j in (0..m).filter(|&j| counts(j)) {
            for row in 0..m {
                s[(row, i)] += u[(row, j)] * v[(i, j)] / sigma[j];
            }
        }
        let length = s.col(i).norm_l2();
        s.col_mut(i).iter_mut().for_each(|value| *value /= length);
    }
    Ok(s)
}

/// The eigenvalue of largest magnitude, its vector and its residual.
pub struct PowerIteration {
    /// The Rayleigh quotient.
    pub value: f64,
    /// `‖A v − λ v‖ / |λ|`
    pub residual: f64,
    pub converged: bool,
    /// One vector, of unit length.
    pub vector: Block,
    /// Products spent.
    pub products: usize,
}

/// Power iteration from a random vector until the residual is within `tolerance` or `max_products` are spent. Two
/// eigenvalues of one magnitude and opposite signs keep it from converging.
///
/// # Errors
/// [`Error::Argument`] for a tolerance that is not positive or no products, [`Error::NotFinite`] where a product is
/// not finite, and the device's errors.
pub fn power_iteration(
    operator: &dyn SymmetricOperator,
    tolerance: f64,
    max_products: usize,
    seed: u64,
) -> Result<PowerIteration> {
    // also false for NaN
    let positive = tolerance > 0.0 && tolerance.is_finite();
    if !positive {
        return Err(Error::argument("tolerance", tolerance, "a number above 0"));
    }
    at_least("products", max_products, 1)?;
    let mut products = Products::new(operator, "power iteration");
    let mut v = RandomVectors::new(Distribution::Gaussian, seed).draw(operator, 1)?;
    normalise(&mut v)?;
    loop {
        let mut next = products.make(&v)?;
        let (value, square) = (dots(&v, &next)?[0], dots(&next, &next)?[0]);
        // of unit v: ‖A v − λ v‖² = ‖A v‖² − λ², which cancels near convergence: the difference itself is measured
        let difference = Block::zeros(operator.gpu(), v.stride(), 1)?;
        super::copy(&next, &difference)?;
        combine(Mat::from_fn(1, 1, |_, _| -value).as_ref(), &v, &difference, true)?;
        let length = dots(&difference, &difference)?[0].sqrt();
        let residual = if value != 0.0 { length / value.abs() } else { 0.0 };
        let converged = square == 0.0 || (value != 0.0 && residual <= tolerance);
        if converged || products.made == max_products {
            return Ok(PowerIteration { value, residual, converged, vector: v, products: products.made });
        }
        normalise(&mut next)?;
        v = next;
    }
}

/// Makes one vector's length 1.
fn normalise(v: &mut Block) -> Result<()> {
    let length = dots(&*v, v)?[0].sqrt();
    let unit = Block::zeros(v.gpu(), v.stride(), 1)?;
    combine(Mat::from_fn(1, 1, |_, _| 1.0 / length).as_ref(), &*v, &unit, false)?;
    *v = unit;
    Ok(())
}
