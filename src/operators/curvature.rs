//! Hessian, Gauss–Newton matrix and noise covariance as operators.

use std::cell::{Cell, RefCell};

use super::pass::{Pass, extent};
use super::problem::parameters_of;
use super::{Block, Problem, SymmetricOperator};
use crate::gpu::{Gpu, Program, Recorder, View};
use crate::jets::ops::Extent;
use crate::jets::plan::{Request, Seeds};
use crate::kernels::broadcast::{Axes, Strided, reduce};
use crate::kernels::vector;
use crate::net::Subspace;
use crate::{Error, Result};

/// Which symmetric matrix of a [`Problem`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Curvature {
    /// `H = ∇²L`
    Hessian,
    /// `G = (1/N) Σ Jᵀ ∇²ℓ J`
    Ggn,
    /// `C = (1/N) Σ (g_p − ḡ)(g_p − ḡ)ᵀ`
    NoiseCovariance,
}

/// A curvature matrix of a problem at its present parameters, restricted to some of them.
pub struct CurvatureOperator<'p> {
    problem: &'p Problem,
    which: Curvature,
    space: Subspace,
    /// ḡ on the device, for the noise covariance.
    mean: Option<View>,
    /// Words of the memory budget that are the caller's.
    room: Cell<usize>,
    /// For the numbers of directions last used.
    passes: RefCell<Vec<Recorded>>,
}

struct Recorded {
    pass: Pass,
    /// Clears the result and, for the noise covariance, makes the centres `c = ḡ·v`.
    prologue: Program,
    /// For the noise covariance: what makes of `(1/N) Σ w_p g_p` with the weights `w_p = ℓ1_p − c` the product
    /// `(1/N) Σ w_p (g_p − ḡ)`. The weights' mean is 0 but for the rounding of c, and that times ḡ is no small error where
    /// ḡ outweighs the noise.
    epilogue: Option<Program>,
}

/// A full block and a ragged last one.
const KEPT_PASSES: usize = 2;

impl<'p> CurvatureOperator<'p> {
    pub(super) fn new(problem: &'p Problem, which: Curvature, space: &Subspace) -> Result<Self> {
        let mean = match which {
            Curvature::NoiseCovariance => Some(problem.device_gradient(space)?),
            _ => None,
        };
        let (room, passes) = (Cell::default(), RefCell::default());
        Ok(CurvatureOperator { problem, which, space: space.clone(), mean, room, passes })
    }

    /// The coordinates of its vectors.
    pub fn space(&self) -> &Subspace {
        &self.space
    }

    fn request(&self) -> Request {
        let seeds = match self.which {
            Curvature::Hessian => Seeds::Jet,
            Curvature::Ggn => Seeds::Ggn,
            Curvature::NoiseCovariance => Seeds::Noise,
        };
        Request::product(&parameters_of(&self.space), seeds, 1)
    }

    /// How many samples and of `k` directions go through at once, and the bytes that this takes with all that is held.
    pub(super) fn fitted(&self, k: usize) -> Result<(Extent, u64)> {
        extent(self.problem, &self.request(), &self.space, k, self.room.get())
    }

    fn record(&self, extent: Extent) -> Result<Recorded> {
        let gpu = self.problem.gpu();
        let weight = 1.0 / self.problem.samples().len() as f32;
        let pass = Pass::new(self.problem, &self.request(), &self.space, extent, weight)?;
        let (k, stride) = (extent.k, self.space.stride);
        let result = pass.sweep.gradient.as_ref().expect("products were asked for");
        let (mut prologue, mut epilogue) = (Recorder::new(gpu), None);
        prologue.clear(result);
        if let Some(mean) = &self.mean {
            let chunks = stride.div_ceil(vector::CHUNK);
            let partial = gpu.buffer(k * chunks)?.slice(0, k * chunks);
            let directions = pass.sweep.directions.as_ref().expect("there are directions");
            let centre = pass.sweep.centre.as_ref().expect("there are tangents");
            vector::dot(&mut prologue, stride, (mean, 0), directions, &partial)?;
            let whole = |view| Strided { view, stride: 0 };
            let rows = Axes { outer: 1, m: k, inner: chunks };
            reduce(&mut prologue, 1, rows, whole(&partial), None, whole(centre), 1.0, false)?;

            let slopes = pass.sweep.slopes.as_ref().expect("there are tangents"); // w [k, positions]
            let samples = self.problem.samples().len();
            let sums = gpu.buffer(k)?.slice(0, k);
            let of_direction = Strided { view: slopes, stride: slopes.len() / k };
            let all = Axes { outer: 1, m: 1, inner: samples };
            let mut after = Recorder::new(gpu);
            reduce(&mut after, k, all, of_direction, None, Strided { view: &sums, stride: 1 }, 1.0, false)?;
            vector::add_outer(&mut after, -weight, &sums, mean, result)?; // [k, stride]
            epilogue = Some(after.finish()?);
        }
        Ok(Recorded { prologue: prologue.finish()?, epilogue, pass })
    }

    /// Floating-point operations of one application to `k` directions, its dispatches, and how many samples
    /// and directions it takes at a time.
    ///
    /// # Errors
    /// As the application itself.
    pub fn cost(&self, k: usize) -> Result<(f64, usize, Extent)> {
        let (extent, _) = self.fitted(k)?;
        let recorded = self.record(extent)?;
        let blocks = k.div_ceil(extent.k);
        let batches = recorded.pass.steps.len();
        let sweep = &recorded.pass.sweep;
        Ok((sweep.flops() * (batches * blocks) as f64, sweep.dispatches() * batches * blocks, sweep.extent))
    }
}

impl SymmetricOperator for CurvatureOperator<'_> {
    fn gpu(&self) -> &Gpu {
        self.problem.gpu()
    }

    fn dim(&self) -> usize {
        self.space.dim
    }

    fn stride(&self) -> usize {
        self.space.stride
    }

    fn apply(&self, x: &Block, y: &Block) -> Result<()> {
        check_blocks(self, x, y)?;
        if x.is_empty() {
            return Ok(());
        }
        if self.which == Curvature::NoiseCovariance && self.problem.samples().len() == 1 {
            // one sample does not vary: rounding in ℓ1 − ḡ·v would say otherwise
            let mut recorder = Recorder::new(self.gpu());
            y.runs(0, y.len()).iter().for_each(|(_, run)| recorder.clear(run));
            return recorder.finish()?.run();
        }
        let (fitted, bytes) = self.fitted(x.len())?;
        let mut passes = self.passes.borrow_mut();
        for first in (0..x.len()).step_by(fitted.k) {
            let k = fitted.k.min(x.len() - first);
            let recorded = match passes.iter().position(|r| r.pass.sweep.extent.k == k) {
                Some(at) => &passes[at],
                None => {
                    // where the budget cut the block, it has no room for two passes
                    if passes.len() == KEPT_PASSES
                        || fitted.k < x.len()
                        || self.gpu().memory_in_use() + bytes > self.gpu().memory_budget()
                    {
                        passes.clear();
                    }
                    let recorded = self.record(Extent { k, ..fitted })?;
                    passes.push(recorded);
                    passes.last().expect("just pushed")
                }
            };
            let sweep = &recorded.pass.sweep;
            let directions = sweep.directions.as_ref().expect("there are directions");
            let result = sweep.gradient.as_ref().expect("products were asked for");
            x.copy_to(first, directions)?;
            recorded.prologue.run()?;
            sweep.run(&recorded.pass.steps)?;
            if let Some(epilogue) = &recorded.epilogue {
                epilogue.run()?;
            }
            y.copy_from(first, result)?;
        }
        Ok(())
    }

    fn leave_room(&self, bytes: u64) {
        let words = (bytes / 4) as usize;
        if self.room.replace(words) != words {
            // they may take what is to be left
            self.passes.borrow_mut().clear();
        }
    }

    fn description(&self) -> Option<String> {
        let (which, parts, samples) = (self.which, &self.space.parts, self.problem.samples().len());
        let (loss, budget) = (self.problem.loss_kind(), self.gpu().memory_budget());
        let model = self.problem.network().model().to_toml();
        Some(format!("{which:?} at {parts:?}, {samples} samples, {loss}, budget {budget}\n{model}"))
    }

    fn pad(&self, flat: &[f32]) -> Vec<f32> {
        self.space.pad(flat)
    }

    fn unpad(&self, padded: &[f32]) -> Vec<f32> {
        self.space.unpad(padded)
    }
}

/// Whether `x` and `y` are blocks of as many of the operator's vectors.
pub(super) fn check_blocks(operator: &dyn SymmetricOperator, x: &Block, y: &Block) -> Result<()> {
    let expected = [x.len(), operator.stride()];
    for (name, block) in [("X", x), ("Y", y)] {
        let found = [block.len(), block.stride()];
        if found != expected {
            return Err(Error::shape(format!("block {name}"), found, expected));
        }
    }
    Ok(())
}
