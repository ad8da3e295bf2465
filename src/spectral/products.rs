//! Products that are counted and checked, and eigenpairs measured by them.

use faer::Mat;

use super::{Basis, Eigenpairs, Which};
use crate::operators::{Block, SymmetricOperator, combine_each, dots};
use crate::{Error, Result};

/// The products that a solver makes.
pub(super) struct Products {
    /// Whose they are, for messages.
    solver: &'static str,
    /// How many.
    pub made: usize,
    /// The longest product, which for unit vectors is |λ₁|, as far as seen.
    pub largest: f64,
}

impl Products {
    /// None so far.
    pub fn new(solver: &'static str) -> Products {
        Products { solver, made: 0, largest: 0.0 }
    }

    /// `A X`.
    ///
    /// # Errors
    /// [`Error::NotFinite`] naming the product that is not finite, and the device's errors.
    pub fn make(&mut self, operator: &dyn SymmetricOperator, x: &Block) -> Result<Block> {
        let y = self.begin(operator, x)?;
        self.note(&dots(&y, &y)?)?;
        Ok(y)
    }

    /// `A X`, of which the squares of the lengths are for [`Products::note`] once they are known.
    ///
    /// # Errors
    /// The device's.
    pub fn begin(&self, operator: &dyn SymmetricOperator, x: &Block) -> Result<Block> {
        let y = Block::zeros(operator.gpu(), x.stride(), x.len())?;
        operator.apply(x, &y)?;
        Ok(y)
    }

    /// Counts products by the squares of their lengths.
    ///
    /// # Errors
    /// [`Error::NotFinite`] naming the product that is not finite.
    pub fn note(&mut self, squares: &[f64]) -> Result<()> {
        for &square in squares {
            self.made += 1;
            if !square.is_finite() {
                return Err(Error::NotFinite {
                    quantity: format!("product {} of {}", self.made, self.solver),
                    detail: "the operator overflows, or holds what is no number".into(),
                });
            }
            self.largest = self.largest.max(square.sqrt());
        }
        Ok(())
    }

    /// Orthonormal vectors as eigenpairs, with Rayleigh quotients and residuals by fresh products, `width` at a
    /// time.
    ///
    /// # Errors
    /// As [`Products::make`].
    pub fn measure(
        &mut self,
        operator: &dyn SymmetricOperator,
        mut vectors: Basis,
        width: usize,
        which: Which,
        tolerance: f64,
    ) -> Result<Eigenpairs> {
        let count = vectors.len();
        vectors.reorthonormalise()?;
        let (mut values, mut lengths) = (Vec::with_capacity(count), Vec::with_capacity(count));
        for first in (0..count).step_by(width) {
            let x = vectors.block(first..count.min(first + width))?;
            let y = self.make(operator, &x)?;
            let (xx, xy) = (dots(&x, &x)?, dots(&x, &y)?);
            let lambda: Vec<f64> = xy.iter().zip(&xx).map(|(xy, xx)| xy / xx).collect();
            let minus: Vec<f64> = lambda.iter().map(|lambda| -lambda).collect();
            combine_each(&minus, &x, &y, true)?; // A v − λ v
            lengths.extend(dots(&y, &y)?.iter().zip(&xx).map(|(rr, xx)| (rr / xx).sqrt()));
            values.extend(lambda);
        }
        self.largest = values.iter().fold(self.largest, |largest, value| largest.max(value.abs()));
        if self.largest <= operator.rounding()? {
            // the zero matrix, but for the rounding that it is made with
            self.largest = 0.0;
            values.fill(0.0);
        }
        let residual = |i: usize| if self.largest > 0.0 { lengths[i] / self.largest } else { 0.0 };
        // close values may have changed places
        let mut order: Vec<usize> = (0..count).collect();
        let rank = |i: usize| which.rank(values[i]);
        order.sort_by(|&i, &j| rank(j).total_cmp(&rank(i)));
        if !order.is_sorted() {
            let q = Mat::from_fn(count, count, |i, j| if order[j] == i { 1.0 } else { 0.0 });
            vectors.rotate(q.as_ref())?;
        }
        Ok(Eigenpairs {
            values: order.iter().map(|&i| values[i]).collect(),
            residuals: order.iter().map(|&i| residual(i)).collect(),
            converged: order.iter().map(|&i| residual(i) <= tolerance).collect(),
            floor: None,
            scale: self.largest,
            complete: false,
            vectors,
            products: self.made,
        })
    }
}

/// Vectors that are multiplied at a time for their Rayleigh quotients.
const AT_ONCE: usize = 16;

/// Returns the Rayleigh quotients `uᵀAu / uᵀu` of A with the vectors of a basis, `[len]`: A's diagonal in that basis where
/// it is orthonormal, whatever operator the basis is of.
///
/// # Errors
/// [`Error::NotFinite`] naming the product that is not finite, and the device's errors.
pub fn rayleigh_quotients(operator: &dyn SymmetricOperator, basis: &Basis) -> Result<Vec<f64>> {
    let mut products = Products::new("the Rayleigh quotients");
    let mut quotients = Vec::with_capacity(basis.len());
    for first in (0..basis.len()).step_by(AT_ONCE) {
        let u = basis.block(first..basis.len().min(first + AT_ONCE))?;
        let along = dots(&u, &products.make(operator, &u)?)?;
        quotients.extend(along.iter().zip(dots(&u, &u)?).map(|(along, square)| along / square));
    }
    Ok(quotients)
}
