//! Products of a pass with blocks of directions, cut to the memory budget.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::pass::{Frame, Outline, Pass, Recorded};
use super::session::{Mean, check_directions};
use super::{Block, Session};
use crate::Result;
use crate::gpu::{Prepare, Recorder, Taken};
use crate::jets::ops::Extent;
use crate::kernels::Write;
use crate::kernels::broadcast::{Axes, Strided, reduce};
use crate::kernels::vector;

/// What a pass makes of directions, `[K, stride]` of `[K, stride]`.
pub(super) struct Products {
    session: Session,
    outline: Outline,
    frame: Frame,
    /// ḡ on the device, where the frame is centred.
    mean: Option<Arc<Mean>>,
    /// Words of the memory budget that are the caller's.
    room: AtomicUsize,
}

impl Products {
    pub fn new(session: &Session, outline: Outline, frame: Frame) -> Products {
        Products { session: session.clone(), outline, frame, mean: None, room: AtomicUsize::new(0) }
    }

    /// Products with the centred noise covariance.
    pub fn centred(session: &Session, outline: Outline) -> Result<Products> {
        let mean = Some(session.mean(&outline.space)?);
        Ok(Products { mean, ..Products::new(session, outline, Frame::Centred) })
    }

    pub fn session(&self) -> &Session {
        &self.session
    }

    pub fn space(&self) -> &crate::net::Subspace {
        &self.outline.space
    }

    /// From now on `bytes` of the memory budget are the caller's.
    pub fn leave_room(&self, bytes: u64) {
        self.room.store((bytes / 4) as usize, Ordering::Relaxed);
    }

    /// How many samples and of `k` directions go through at once, and the bytes that this takes with all that is held.
    pub fn fitted(&self, k: usize) -> Result<(Extent, u64)> {
        let room = self.room.load(Ordering::Relaxed);
        self.session.passes().fitted(&self.session, &self.outline, k, room)
    }

    /// The pass for `k` of a block of `of` directions.
    pub fn recorded(&self, k: usize, of: usize) -> Result<Arc<Recorded>> {
        let (fitted, bytes) = self.fitted(of)?;
        let extent = Extent { k, ..fitted };
        self.session.passes().recorded(&self.session, (&self.outline, self.frame), (extent, bytes), || {
            self.record_pass(extent)
        })
    }

    fn record_pass(&self, extent: Extent) -> Result<Recorded> {
        let gpu = self.session.gpu();
        let samples = self.session.samples().len();
        let weight = 1.0 / samples as f32;
        let pass = Pass::new(&self.session, (&self.outline, self.frame), extent, weight)?;
        let (k, stride) = (extent.k, self.outline.space.stride);
        let mut rec = Recorder::new(gpu);
        if let Some(result) = &pass.sweep.gradient {
            rec.clear(result);
        }
        match &self.mean {
            None => rec.replay_once(&pass.program)?,
            Some(mean) => {
                let renew: Arc<dyn Prepare> = mean.clone();
                rec.prepare(&renew);
                let result = pass.sweep.gradient.as_ref().expect("products were asked for");
                let directions = pass.sweep.directions.as_ref().expect("there are directions");
                let centre = pass.sweep.centre.as_ref().expect("there are tangents");
                let chunks = stride.div_ceil(vector::CHUNK);
                let partial = gpu.buffer(k * chunks)?.slice(0, k * chunks);
                vector::dot(&mut rec, stride, (&mean.view, 0), directions, &partial)?;
                let whole = |view| Strided { view, stride: 0 };
                let rows = Axes { outer: 1, m: k, inner: chunks };
                reduce(&mut rec, 1, rows, whole(&partial), None, whole(centre), Write::NEW)?; // c = ḡ·v [k]

                rec.replay_once(&pass.program)?;

                // of `(1/N) Σ w_p g_p` with the weights `w_p = ℓ1_p − c` is made `(1/N) Σ w_p (g_p − ḡ)`: the weights' mean
                // is 0 but for the rounding of c, and that times ḡ is no small error where ḡ outweighs the noise
                let slopes = pass.sweep.slopes.as_ref().expect("there are tangents"); // w [k, positions]
                let sums = gpu.buffer(k)?.slice(0, k);
                let of_direction = Strided { view: slopes, stride: slopes.len() / k };
                let all = Axes { outer: 1, m: 1, inner: samples };
                let to = Strided { view: &sums, stride: 1 };
                reduce(&mut rec, k, all, of_direction, None, to, Write::NEW)?;
                vector::add_outer(&mut rec, -weight, &sums, &mean.view, result)?; // [k, stride]
            }
        }
        Ok(Recorded { program: Arc::new(rec.finish()?), pass })
    }

    /// Whether they are those of the covariance of one sample's gradient, which does not vary: rounding in ℓ1 − ḡ·v would
    /// say otherwise.
    fn are_zero(&self) -> bool {
        self.frame == Frame::Centred && self.outline.samples == 1
    }

    /// ḡ, `[stride]`, where products are centred.
    pub fn mean(&self) -> Result<Option<Vec<f32>>> {
        let Some(mean) = &self.mean else { return Ok(None) };
        mean.prepare()?;
        self.session.gpu().read(&mean.view).map(Some)
    }

    /// Records `Y` = the products with the vectors of X.
    pub fn record(&self, rec: &mut Recorder, x: &Block, y: &Block) -> Result<()> {
        if x.is_empty() || self.are_zero() {
            y.record_clear(rec);
            return Ok(());
        }
        let (fitted, _) = self.fitted(x.len())?;
        for first in (0..x.len()).step_by(fitted.k) {
            let k = fitted.k.min(x.len() - first);
            let recorded = self.recorded(k, x.len())?;
            let sweep = &recorded.pass.sweep;
            x.record_copy_to(rec, first, sweep.directions.as_ref().expect("there are directions"));
            rec.replay_once(&recorded.program)?;
            y.record_copy_from(rec, first, sweep.gradient.as_ref().expect("products were asked for"));
        }
        Ok(())
    }

    /// The products with the vectors of X, part by part: the parts of a block that the budget cuts are not held at once.
    pub fn apply(&self, x: &Block, y: &Block) -> Result<()> {
        if x.is_empty() || self.are_zero() {
            return y.clear();
        }
        if let Some(mean) = &self.mean {
            // now, where its pass need not fit beside this one's
            mean.prepare()?;
        }
        let (fitted, _) = self.fitted(x.len())?;
        for first in (0..x.len()).step_by(fitted.k) {
            let k = fitted.k.min(x.len() - first);
            let recorded = self.recorded(k, x.len())?;
            let sweep = &recorded.pass.sweep;
            let mut rec = Recorder::new(self.session.gpu());
            x.record_copy_to(&mut rec, first, sweep.directions.as_ref().expect("there are directions"));
            rec.replay_once(&recorded.program)?;
            y.record_copy_from(&mut rec, first, sweep.gradient.as_ref().expect("products were asked for"));
            drop(recorded); // the program holds what it needs, until it has been submitted
            rec.run()?;
        }
        Ok(())
    }

    /// The products with flat directions, `[K, dim]` of `[K, dim]`.
    pub fn apply_flat(&self, directions: &[f32]) -> Result<Vec<f32>> {
        let space = self.space();
        let at_once = self.fitted(check_directions(space, directions)?)?.0.k;
        let mut products = Vec::with_capacity(directions.len());
        for some in directions.chunks(at_once * space.dim) {
            let x = Block::upload(self.session.gpu(), space.stride, &space.pad(some)?)?;
            let y = Block::zeros(self.session.gpu(), space.stride, x.len())?;
            self.apply(&x, &y)?;
            products.extend(space.unpad(&y.download()?)?);
        }
        Ok(products)
    }

    /// Floating-point operations of the products with `k` directions, their dispatches, and how many samples and
    /// directions are taken at a time.
    pub fn cost(&self, k: usize) -> Result<(f64, usize, Extent)> {
        let (extent, _) = self.fitted(k)?;
        let recorded = self.recorded(extent.k, k)?;
        let blocks = k.div_ceil(extent.k);
        let (program, extent) = (&recorded.pass.program, recorded.pass.sweep.extent);
        Ok((program.flops() * blocks as f64, program.dispatches() * blocks, extent))
    }

    /// What each command of the first part of the products with `k` directions takes.
    pub fn profile(&self, k: usize) -> Result<Vec<Taken>> {
        let (extent, _) = self.fitted(k)?;
        self.recorded(extent.k, k)?.program.profile()
    }
}
