//! What is asked of an eigensolver, and what it returns.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::operators::{Block, SymmetricOperator, copy};
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

/// Vectors that an eigensolver starts from, such as the eigenvectors of an operator nearby.
#[derive(Clone, Debug, Default)]
pub enum Start {
    /// Random vectors alone.
    #[default]
    Random,
    /// Flat vectors, `[k, dim]`.
    Flat(Vec<f32>),
    /// Vectors on the operator's device, which are copied.
    Block(Arc<Block>),
}

impl Start {
    /// The number of vectors, of which there may be `most`.
    ///
    /// # Errors
    /// [`Error::Shape`] and [`Error::OtherDevice`] where they are not of the operator's space, or too many, and
    /// [`Error::NotFinite`] where flat ones hold what is no number.
    pub(super) fn check(&self, operator: &dyn SymmetricOperator, most: usize) -> Result<usize> {
        let dim = operator.dim();
        let shape = |found: String, dim: usize| Error::Shape {
            tensor: "start".into(),
            found,
            expected: format!("[k, {dim}] with k from 1 to {most}"),
        };
        match self {
            Start::Random => Ok(0),
            Start::Flat(flat) => {
                let vectors = flat.len() / dim;
                if vectors == 0 || flat.len() != vectors * dim || vectors > most {
                    return Err(shape(format!("[{}]", flat.len()), dim));
                }
                match flat.iter().find(|value| !value.is_finite()) {
                    None => Ok(vectors),
                    Some(value) => {
                        let detail = format!("it holds {value}");
                        Err(Error::NotFinite { quantity: "start".into(), detail })
                    }
                }
            }
            Start::Block(block) => {
                if !block.gpu().is(operator.gpu()) {
                    return Err(operator.gpu().refuses("start", Some(block.gpu())));
                }
                if block.stride() != operator.stride() || !(1..=most).contains(&block.len()) {
                    let found = format!("[{}, {}] on the device", block.len(), block.stride());
                    return Err(shape(found, operator.stride()));
                }
                Ok(block.len())
            }
        }
    }

    /// The vectors in a block of their own.
    pub(super) fn block(&self, operator: &dyn SymmetricOperator) -> Result<Block> {
        let (gpu, stride) = (operator.gpu(), operator.stride());
        match self {
            Start::Random => Block::zeros(gpu, stride, 0),
            Start::Flat(flat) => Block::upload(gpu, stride, &operator.pad(flat)?),
            Start::Block(block) => {
                let own = Block::uninitialized(gpu, stride, block.len())?;
                copy(&**block, &own)?;
                Ok(own)
            }
        }
    }
}

/// What [`Lanczos`](super::Lanczos) is to find.
#[derive(Clone, Debug)]
pub struct LanczosOptions {
    /// K, the number of eigenpairs.
    pub count: usize,
    /// The end of the spectrum that is wanted.
    pub which: Which,
    /// A pair has converged when `‖A v − λ v‖ ≤ tolerance · |λ₁|`, λ₁ being the eigenvalue of largest
    /// magnitude seen. Where single precision does not reach it, the iteration ends nevertheless, and
    /// [`Eigenpairs::floor`](super::Eigenpairs::floor) says what it reaches.
    pub tolerance: f64,
    /// b, the vectors that A is applied to at a time; `None` takes the width that was measured to be
    /// cheapest.
    pub block: Option<usize>,
    /// The most products that are spent, those that measure the residuals at the end included; `None` stands
    /// for `20 K + 2,000`.
    pub max_products: Option<usize>,
    /// Of the random vectors.
    pub seed: u64,
    /// At most b vectors to start from; random ones complete the block.
    pub start: Start,
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
            start: Start::Random,
        }
    }

    pub(super) fn max_products(&self) -> usize {
        self.max_products.unwrap_or(20 * self.count + 2000)
    }

    /// The number of vectors to start from.
    ///
    /// # Errors
    /// [`Error::Argument`] or [`Error::Shape`] naming the first option that cannot be used in the operator's space.
    pub(super) fn check(&self, operator: &dyn SymmetricOperator) -> Result<usize> {
        let dim = operator.dim();
        check_wanted(self.count, self.tolerance, dim)?;
        if self.block == Some(0) {
            return Err(Error::argument("block", 0, "at least 1"));
        }
        self.start.check(operator, self.block.unwrap_or(dim))
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
