//! |λ₁| by power iteration.

use faer::Mat;

use super::products::Products;
use super::random::{Distribution, RandomVectors};
use super::{Observer, Progress};
use crate::operators::{Block, SymmetricOperator, combine, dots};
use crate::{Error, Result};

/// What [`power_iteration`] found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LargestMagnitude {
    /// `ρ = ‖A v‖` for a unit vector v, at most |λ₁|.
    pub value: f64,
    /// `‖A² v − ρ² v‖ / ρ²`: so near to ρ², as a share, lies the square of an eigenvalue.
    pub residual: f64,
    /// Products spent.
    pub products: usize,
}

/// |λ₁|, the largest magnitude of an eigenvalue, to a residual of `tolerance` if `max_products` suffice and the observer
/// does not stop it.
///
/// Two products in a row tell A² v from ρ² v, so that eigenvalues of both signs do no harm (von Mises & Pollaczek-Geiringer
/// 1929, for A²).
///
/// # Errors
/// [`Error::Argument`] for less than two products, [`Error::NotFinite`] where one is not finite, and the device's
/// errors.
pub fn power_iteration(
    operator: &dyn SymmetricOperator,
    tolerance: f64,
    max_products: usize,
    seed: u64,
    observer: &mut Observer,
) -> Result<LargestMagnitude> {
    if max_products < 2 {
        return Err(Error::argument("max_products", max_products, "at least 2"));
    }
    let mut products = Products::new("the power iteration");
    let scaled = |x: &Block, by: f64| -> Result<Block> {
        let y = Block::zeros(operator.gpu(), operator.stride(), 1)?;
        combine(Mat::full(1, 1, by).as_ref(), x, &y, false)?;
        Ok(y)
    };
    let start = RandomVectors::new(Distribution::Gaussian, seed).draw(operator, 1)?;
    let mut v = scaled(&start, 1.0 / dots(&start, &start)?[0].sqrt())?;
    let mut av = products.make(operator, &v)?;
    loop {
        let value = dots(&av, &av)?[0].sqrt();
        if value == 0.0 {
            return Ok(LargestMagnitude { value, residual: 0.0, products: products.made });
        }
        let w = scaled(&av, 1.0 / value)?;
        let aw = products.make(operator, &w)?;
        // A² v − ρ² v = ρ (A w − ρ v)
        let rest = scaled(&v, -value)?;
        combine(Mat::full(1, 1, 1.0).as_ref(), &aw, &rest, true)?;
        let residual = dots(&rest, &rest)?[0].sqrt() / value;
        let stopped = observer(&Progress::of_products(products.made, max_products)).is_break();
        if stopped || residual <= tolerance || products.made >= max_products {
            return Ok(LargestMagnitude { value, residual, products: products.made });
        }
        (v, av) = (w, aw);
    }
}
