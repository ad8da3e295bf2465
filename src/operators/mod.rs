//! Curvature and noise as operators on device-resident blocks of vectors, and the quantities behind them.
//!
//! ```no_run
//! use curvkit::data::{Dataset, Targets};
//! use curvkit::gpu::{Gpu, GpuOptions};
//! use curvkit::net::{Layer, Loss, Model, Network};
//! use curvkit::operators::Session;
//!
//! # fn main() -> curvkit::Result<()> {
//! let gpu = Gpu::new(&GpuOptions::default())?;
//! let network = Network::new(&Model::mlp(&[4, 8, 3], Layer::Tanh, true))?;
//! let theta = network.initial_parameters(0);
//! let data = Dataset::new(vec![0.5; 2 * 4], vec![4], Targets::Classes(vec![0, 2]))?;
//! let session = Session::new(&gpu, &network, &theta, &data, Loss::CrossEntropy)?;
//! let v = vec![1.0; network.dim()];
//! let hv = session.hvp(&network.all(), &v)?; // [K, P] from directions [K, P], here K = 1
//! # Ok(())
//! # }
//! ```

mod algebra;
mod block;
mod compose;
mod curvature;
mod dense;
mod distributed;
mod family;
mod kronecker;
mod layer;
mod overflow;
mod pass;
mod per_sample;
mod products;
mod samples;
mod session;
mod third;

pub use algebra::{Vectors, combine, combine_each, copy, dots, gram, grams};
pub use block::Block;
pub use compose::{Projected, Restricted, Scaled, Shifted, Sum};
pub use curvature::{Curvature, CurvatureOperator};
pub use dense::DenseMatrix;
pub use distributed::Distributed;
pub use family::{OperatorFamily, Sequential};
pub use kronecker::kronecker_means;
pub use layer::{LayerCurvature, LayerMoments, layer_shape};
pub use per_sample::SampleOperators;
pub use samples::{SampleFactors, SampleSpectra};
pub use session::{LossReport, Session};

pub(crate) use algebra::record_combine;

use std::sync::Arc;

use crate::gpu::{Gpu, Recorder};
use crate::net::check_whole;
use crate::{Error, Result};

/// A symmetric linear map on vectors that live on the device.
///
/// Operators are shared by threads; references, boxes and [`Arc`]s of operators are operators.
pub trait SymmetricOperator: Send + Sync {
    /// The device.
    fn gpu(&self) -> &Gpu;

    /// The number of coordinates.
    fn dim(&self) -> usize;

    /// Words that one vector takes on the device; those that are no coordinates are zero.
    fn stride(&self) -> usize;

    /// `Y = A X`, vector by vector; does not wait for the device.
    ///
    /// # Errors
    /// [`Error::Shape`] where the blocks are not of this operator's vectors or differ in number, [`Error::OtherDevice`]
    /// where one lies elsewhere, [`Error::Argument`] where both have memory in common, and the device's errors.
    /// [`check_blocks`] makes the first three.
    fn apply(&self, x: &Block, y: &Block) -> Result<()>;

    /// Records `Y = A X`, so that it is made whenever the program runs.
    ///
    /// # Errors
    /// As [`SymmetricOperator::apply`]. [`Error::Argument`] where products are made on the host: an operator that does not
    /// say how to record can only be applied.
    fn record(&self, rec: &mut Recorder, x: &Block, y: &Block) -> Result<()> {
        let _ = (rec, x, y);
        Err(Error::argument("operator", "one whose products are not recorded", "one that records them"))
    }

    /// From now on `bytes` of the memory budget are the caller's, for a basis and blocks of vectors: what the operator
    /// holds has to fit beside them. One that holds next to nothing need not listen.
    fn leave_room(&self, bytes: u64) {
        let _ = bytes;
    }

    /// The magnitude below which an eigenvalue is what rounding makes of 0, where the operator knows that: one whose
    /// entries are differences of much larger numbers. An operator of which no eigenvalue is larger counts as 0.
    ///
    /// # Errors
    /// The device's.
    fn rounding(&self) -> Result<f64> {
        Ok(0.0)
    }

    /// What tells it from operators whose products take another time; `None` where it cannot say.
    /// Eigensolvers keep measured times by it.
    fn description(&self) -> Option<String> {
        None
    }

    /// Flat vectors `[K, dim]` as they lie on the device, `[K, stride]`. Unless an operator says otherwise,
    /// the coordinates stand first and zeros after them.
    ///
    /// # Errors
    /// [`Error::Shape`] where they are not whole vectors.
    fn pad(&self, flat: &[f32]) -> Result<Vec<f32>> {
        pad_behind(flat, self.dim(), self.stride())
    }

    /// Flat vectors `[K, dim]` of those that lie on the device, `[K, stride]`.
    ///
    /// # Errors
    /// [`Error::Shape`] where they are not whole vectors.
    fn unpad(&self, padded: &[f32]) -> Result<Vec<f32>> {
        unpad_behind(padded, self.dim(), self.stride())
    }
}

macro_rules! operator_behind {
    ($($pointer:ty),*) => {$(
        impl<A: SymmetricOperator + ?Sized> SymmetricOperator for $pointer {
            fn gpu(&self) -> &Gpu {
                (**self).gpu()
            }

            fn dim(&self) -> usize {
                (**self).dim()
            }

            fn stride(&self) -> usize {
                (**self).stride()
            }

            fn apply(&self, x: &Block, y: &Block) -> Result<()> {
                (**self).apply(x, y)
            }

            fn record(&self, rec: &mut Recorder, x: &Block, y: &Block) -> Result<()> {
                (**self).record(rec, x, y)
            }

            fn leave_room(&self, bytes: u64) {
                (**self).leave_room(bytes);
            }

            fn rounding(&self) -> Result<f64> {
                (**self).rounding()
            }

            fn description(&self) -> Option<String> {
                (**self).description()
            }

            fn pad(&self, flat: &[f32]) -> Result<Vec<f32>> {
                (**self).pad(flat)
            }

            fn unpad(&self, padded: &[f32]) -> Result<Vec<f32>> {
                (**self).unpad(padded)
            }
        }
    )*};
}

operator_behind!(&A, Box<A>, Arc<A>);

/// Whether `x` and `y` are blocks of as many of the operator's vectors, on its device, with no memory in common.
///
/// # Errors
/// [`Error::Shape`], [`Error::OtherDevice`] or [`Error::Argument`] naming the block that is not.
pub fn check_blocks<A: SymmetricOperator + ?Sized>(operator: &A, x: &Block, y: &Block) -> Result<()> {
    check_vectors(operator.gpu(), operator.stride(), &[("X", x), ("Y", y)], x.len())?;
    if x.overlaps(y) {
        return Err(Error::argument("block Y", "memory of block X", "memory of its own"));
    }
    Ok(())
}

/// Whether each of the named blocks has `len` vectors of `stride` words on that device.
fn check_vectors(gpu: &Gpu, stride: usize, blocks: &[(&str, &Block)], len: usize) -> Result<()> {
    for (name, block) in blocks {
        let (found, expected) = ([block.len(), block.stride()], [len, stride]);
        if found != expected {
            return Err(Error::shape(format!("block {name}"), found, expected));
        }
        if !block.gpu().is(gpu) {
            return Err(gpu.refuses(format!("block {name}"), Some(block.gpu())));
        }
    }
    Ok(())
}

/// Flat vectors `[K, dim]` with zeros behind each: `[K, stride]`.
fn pad_behind(flat: &[f32], dim: usize, stride: usize) -> Result<Vec<f32>> {
    check_whole(flat, dim)?;
    let mut padded = vec![0.0; flat.len() / dim * stride];
    for (from, to) in flat.chunks_exact(dim).zip(padded.chunks_exact_mut(stride)) {
        to[..dim].copy_from_slice(from);
    }
    Ok(padded)
}

/// Flat vectors `[K, dim]` of ones with something behind each, `[K, stride]`.
fn unpad_behind(padded: &[f32], dim: usize, stride: usize) -> Result<Vec<f32>> {
    check_whole(padded, stride)?;
    Ok(padded.chunks_exact(stride).flat_map(|vector| &vector[..dim]).copied().collect())
}
