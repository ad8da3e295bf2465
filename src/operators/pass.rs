//! A pass: a sweep over the whole data set, batch after batch.

use super::Problem;
use crate::Result;
use crate::gpu::{Buffer, Step, View};
use crate::jets::plan::{Request, Slot};
use crate::jets::sweep::{Results, fit};
use crate::jets::{Sweep, ops::Extent};
use crate::net::Subspace;

/// The most samples of one batch: longer sums over samples in single precision lose too much.
pub(super) const LONGEST_BATCH: usize = 4096;

/// A sweep recorded for batches that cover the data set, and their steps.
pub(super) struct Pass {
    pub sweep: Sweep,
    pub steps: Vec<Step>,
    /// Kept alive: what the sweep gathers by.
    _indices: Buffer,
}

/// How many samples and directions a pass takes at a time, beside `room` words that are left to others, and the bytes
/// that all of it takes.
pub(super) fn extent(
    problem: &Problem,
    request: &Request,
    space: &Subspace,
    directions: usize,
    room: usize,
) -> Result<(Extent, u64)> {
    let samples = problem.samples().len();
    let longest = samples.div_ceil(samples.div_ceil(LONGEST_BATCH));
    let held = problem.held() + room;
    fit(problem.gpu(), problem.network(), request, space, held, (longest, directions))
}

impl Pass {
    /// Records `request`; each sample has weight `weight` in sums over samples.
    pub fn new(
        problem: &Problem,
        request: &Request,
        space: &Subspace,
        extent: Extent,
        weight: f32,
    ) -> Result<Pass> {
        let samples = problem.samples().len();
        let batches = samples.div_ceil(extent.n);
        // the batches are as even as they can be; what the last has too few repeats sample 0, weightless
        let extent = Extent { n: samples.div_ceil(batches), ..extent };
        let positions = batches * extent.n;
        let mut indices: Vec<u32> = (0..samples as u32).collect();
        indices.resize(positions, 0);
        let indices = problem.gpu().upload(&indices)?;
        let steps = (0..batches)
            .map(|batch| Step {
                first: (batch * extent.n) as u32,
                count: extent.n.min(samples - batch * extent.n) as u32,
                weight,
                ..Step::default()
            })
            .collect();
        let work = problem.workload(indices.view(), positions);
        let sweep = Sweep::record(&work, request, space, extent, Results::Accumulate)?;
        Ok(Pass { sweep, steps, _indices: indices })
    }

    /// The view of a slot that the request keeps.
    pub fn kept(&self, slot: Slot) -> &View {
        self.sweep.kept(slot).expect("the request keeps this slot")
    }
}
