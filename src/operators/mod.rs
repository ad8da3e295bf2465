//! Curvature and noise as operators on device-resident blocks of vectors, and the quantities behind them.
//!
//! ```no_run
//! use curvkit::data::{Dataset, Targets};
//! use curvkit::gpu::{Gpu, GpuOptions};
//! use curvkit::net::{Layer, Loss, Model, Network};
//! use curvkit::operators::Problem;
//!
//! # fn main() -> curvkit::Result<()> {
//! let gpu = Gpu::new(&GpuOptions::default())?;
//! let network = Network::new(&Model::mlp(&[4, 8, 3], Layer::Tanh, true))?;
//! let theta = network.initial_parameters(0);
//! let data = Dataset::new(vec![0.5; 2 * 4], vec![4], Targets::Classes(vec![0, 2]))?;
//! let problem = Problem::new(&gpu, &network, &theta, &data, Loss::CrossEntropy)?;
//! let v = vec![1.0; network.dim()];
//! let hv = problem.hvp(&network.all(), &v)?; // [K, P] from directions [K, P], here K = 1
//! # Ok(())
//! # }
//! ```

mod block;
mod curvature;
mod dense;
mod family;
mod kronecker;
mod layer;
mod overflow;
mod pass;
mod per_sample;
mod problem;
mod samples;

pub use block::Block;
pub use curvature::{Curvature, CurvatureOperator};
pub use dense::DenseMatrix;
pub use family::{OperatorFamily, Several};
pub use kronecker::kronecker_means;
pub use layer::{LayerCurvature, LayerMoments, layer_shape};
pub use per_sample::SampleOperators;
pub use problem::{LossReport, Problem};
pub use samples::{SampleFactors, SampleSpectra};

use crate::Result;
use crate::gpu::Gpu;

/// A symmetric linear map on vectors that live on the device.
pub trait SymmetricOperator {
    /// The device.
    fn gpu(&self) -> &Gpu;

    /// The number of coordinates.
    fn dim(&self) -> usize;

    /// Words that one vector takes on the device; those that are no coordinates are zero.
    fn stride(&self) -> usize;

    /// `Y = A X`, vector by vector.
    ///
    /// # Errors
    /// [`crate::Error::Shape`] where the blocks are not of this operator's vectors or differ in number, and
    /// the device's errors.
    fn apply(&self, x: &Block, y: &Block) -> Result<()>;

    /// From now on `bytes` of the memory budget are the caller's, for a basis and blocks of vectors: what the operator
    /// holds has to fit beside them. One that holds next to nothing need not listen.
    fn leave_room(&self, bytes: u64) {
        let _ = bytes;
    }

    /// What tells it from operators whose products take another time; `None` where it cannot say.
    /// Eigensolvers keep measured times by it.
    fn description(&self) -> Option<String> {
        None
    }

    /// Flat vectors `[K, dim]` as they lie on the device, `[K, stride]`. Unless an operator says otherwise,
    /// the coordinates stand first and zeros after them.
    fn pad(&self, flat: &[f32]) -> Vec<f32> {
        pad_behind(flat, self.dim(), self.stride())
    }

    /// The other way round.
    fn unpad(&self, padded: &[f32]) -> Vec<f32> {
        unpad_behind(padded, self.dim(), self.stride())
    }
}

/// Flat vectors `[K, dim]` with zeros behind each: `[K, stride]`.
fn pad_behind(flat: &[f32], dim: usize, stride: usize) -> Vec<f32> {
    let mut padded = vec![0.0; flat.len() / dim * stride];
    for (from, to) in flat.chunks_exact(dim).zip(padded.chunks_exact_mut(stride)) {
        to[..dim].copy_from_slice(from);
    }
    padded
}

/// The other way round.
fn unpad_behind(padded: &[f32], dim: usize, stride: usize) -> Vec<f32> {
    padded.chunks_exact(stride).flat_map(|vector| &vector[..dim]).copied().collect()
}
