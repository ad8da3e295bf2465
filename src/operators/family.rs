//! Sequential symmetric operators that are applied together.

use std::ops::Range;

use super::{Block, SymmetricOperator, check_vectors, pad_behind, unpad_behind};
use crate::gpu::{Gpu, Recorder};
use crate::{Error, Result};

/// Symmetric linear maps A_i of one space, such as the Hessians of a data set's samples, whose products are made
/// together.
pub trait OperatorFamily: Send + Sync {
    /// The device.
    fn gpu(&self) -> &Gpu;

    /// The number of operators.
    fn count(&self) -> usize;

    /// The number of coordinates.
    fn dim(&self) -> usize;

    /// Words that one vector takes on the device; those that are no coordinates are zero.
    fn stride(&self) -> usize;

    /// `Y_i = A_i X_i` for the operators i of the range `members`: X holds b vectors for the first of them, then b for
    /// the next, and so on, and so does Y.
    ///
    /// # Errors
    /// [`Error::Argument`] where there are no such members, [`Error::Shape`] where the blocks are not of these
    /// operators' vectors or differ in number, and the device's errors.
    fn apply(&self, members: Range<usize>, x: &Block, y: &Block) -> Result<()>;

    /// Flat vectors `[K, dim]` as they lie on the device, `[K, stride]`; as [`SymmetricOperator::pad`].
    ///
    /// # Errors
    /// [`Error::Shape`] where they are not whole vectors.
    fn pad(&self, flat: &[f32]) -> Result<Vec<f32>> {
        pad_behind(flat, self.dim(), self.stride())
    }

    /// Flat vectors `[K, dim]` of those that lie on the device; as [`SymmetricOperator::unpad`].
    ///
    /// # Errors
    /// [`Error::Shape`] where they are not whole vectors.
    fn unpad(&self, padded: &[f32]) -> Result<Vec<f32>> {
        unpad_behind(padded, self.dim(), self.stride())
    }
}

/// How many vectors of each member `x` and `y` hold.
///
/// # Errors
/// [`Error::Argument`] and [`Error::Shape`] as [`OperatorFamily::apply`] has them.
pub(super) fn vectors_of_each(
    family: &dyn OperatorFamily,
    members: &Range<usize>,
    x: &Block,
    y: &Block,
) -> Result<usize> {
    if members.end > family.count() {
        let found = format!("{members:?}");
        return Err(Error::argument("members", found, format!("some of 0..{}", family.count())));
    }
    let each = x.len() / members.len().max(1);
    let blocks = [("X", x), ("Y", y)];
    check_vectors(family.gpu(), family.stride(), &blocks, each * members.len())?;
    Ok(each)
}

/// Operators that know nothing of each other, applied one after the other.
#[derive(Debug)]
pub struct Sequential<A>(Vec<A>);

impl<A: SymmetricOperator> Sequential<A> {
    /// The family of these operators.
    ///
    /// # Errors
    /// [`Error::Argument`] where there are none, [`Error::Shape`] naming the first whose vectors are not like those
    /// of the operator before it.
    pub fn new(operators: Vec<A>) -> Result<Sequential<A>> {
        if operators.is_empty() {
            return Err(Error::argument("operators", 0, "at least 1"));
        }
        for (i, pair) in operators.windows(2).enumerate() {
            let [expected, found] = [0, 1].map(|of| [pair[of].dim(), pair[of].stride()]);
            if found != expected {
                let name = format!("coordinates and words of operator {}", i + 1);
                return Err(Error::shape(name, found, expected));
            }
        }
        Ok(Sequential(operators))
    }
}

impl<A: SymmetricOperator> OperatorFamily for Sequential<A> {
    fn gpu(&self) -> &Gpu {
        self.0[0].gpu()
    }

    fn count(&self) -> usize {
        self.0.len()
    }

    fn dim(&self) -> usize {
        self.0[0].dim()
    }

    fn stride(&self) -> usize {
        self.0[0].stride()
    }

    fn apply(&self, members: Range<usize>, x: &Block, y: &Block) -> Result<()> {
        let each = vectors_of_each(self, &members, x, y)?;
        let own = || Block::zeros(self.gpu(), self.stride(), each);
        let (own_x, own_y) = (own()?, own()?);
        let vector = |block: &Block, at: usize| block.runs(at, 1).remove(0).1;
        for (i, operator) in self.0[members].iter().enumerate() {
            let mut into = Recorder::new(self.gpu());
            let mut back = Recorder::new(self.gpu());
            for k in 0..each {
                into.copy(&vector(x, i * each + k), &vector(&own_x, k));
                back.copy(&vector(&own_y, k), &vector(y, i * each + k));
            }
            into.run()?;
            operator.apply(&own_x, &own_y)?;
            back.run()?;
        }
        Ok(())
    }

    fn pad(&self, flat: &[f32]) -> Result<Vec<f32>> {
        self.0[0].pad(flat)
    }

    fn unpad(&self, padded: &[f32]) -> Result<Vec<f32>> {
        self.0[0].unpad(padded)
    }
}
