//! A pass: a sweep over the whole data set or a list of its samples, batch after batch.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

use super::Session;
use crate::gpu::{Buffer, Program, Recorder};
use crate::jets::plan::{Request, Slot};
use crate::jets::sweep::{Results, Workload, choose_extent};
use crate::jets::{Sweep, ops::Extent};
use crate::kernels::Step;
use crate::net::Subspace;
use crate::{Error, Result};

/// The most samples of one batch: longer sums over samples in single precision lose too much.
pub(super) const LONGEST_BATCH: usize = 4096;

/// A sweep recorded for batches that cover a list of samples, and their steps.
pub(super) struct Pass {
    pub sweep: Sweep,
    pub steps: Vec<Step>,
    /// All batches: adds to what the gradient holds.
    pub program: Arc<Program>,
    /// What the sweep gathers by.
    pub indices: Buffer,
}

/// What a pass is recorded for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Outline {
    pub request: Request,
    pub space: Subspace,
    /// The length of the list of samples.
    pub samples: usize,
}

impl Outline {
    /// A pass over the whole data set of a session.
    pub fn whole(session: &Session, request: Request, space: &Subspace) -> Outline {
        Outline { request, space: space.clone(), samples: session.samples().len() }
    }

    /// How many samples and directions the pass takes at a time, beside `room` words that are left to others, and the
    /// bytes that all of it takes.
    pub fn extent(&self, session: &Session, directions: usize, room: usize) -> Result<(Extent, u64)> {
        let longest = self.samples.div_ceil(self.samples.div_ceil(LONGEST_BATCH));
        let (held, wanted) = (session.held() + room, (longest, directions));
        choose_extent(session.gpu(), session.network(), &self.request, &self.space, held, wanted)
    }
}

impl Pass {
    /// Records the pass; each sample has weight `weight` in sums over samples. The list of samples begins with the first
    /// of the data set, one by one.
    pub fn new(
        session: &Session,
        (outline, frame): (&Outline, Frame),
        extent: Extent,
        weight: f32,
    ) -> Result<Pass> {
        let samples = outline.samples;
        let batches = samples.div_ceil(extent.n);
        // the batches are as even as they can be; what the last has too few repeats sample 0, weightless
        let extent = Extent { n: samples.div_ceil(batches), ..extent };
        let positions = batches * extent.n;
        let mut indices: Vec<u32> = (0..samples as u32).collect();
        indices.resize(positions, 0);
        let indices = session.gpu().upload(&indices)?;
        let steps: Vec<Step> = (0..batches)
            .map(|batch| Step {
                first: (batch * extent.n) as u32,
                count: extent.n.min(samples - batch * extent.n) as u32,
                weight,
                ..Step::default()
            })
            .collect();
        let whole = frame != Frame::Listed && batches == 1 && samples == session.samples().len();
        let work = Workload { whole, ..session.workload(indices.view(), positions) };
        let sweep = Sweep::record(&work, &outline.request, &outline.space, extent, Results::Accumulate)?;
        let mut rec = Recorder::new(session.gpu());
        rec.replay(sweep.program(), &steps)?;
        let program = Arc::new(rec.finish()?);
        Ok(Pass { sweep, steps, program, indices })
    }

    /// The view of a slot that the request keeps.
    pub fn kept(&self, slot: Slot) -> &crate::gpu::View {
        self.sweep.kept(slot).expect("the request keeps this slot")
    }
}

/// How a recorded pass begins and ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Frame {
    /// As it is.
    Plain,
    /// It clears its results first.
    Fresh,
    /// The same, over a list of samples that is written before each run.
    Listed,
    /// It clears its results, makes the centres ḡ·v first, and takes the weights' mean times ḡ off at the end.
    Centred,
}

/// A recorded pass, with what comes before and after it.
pub(super) struct Recorded {
    pub pass: Pass,
    /// All of it: what comes before, every batch, what comes after.
    pub program: Arc<Program>,
}

/// Passes that a session has recorded, for use again.
#[derive(Default)]
pub(super) struct Passes(Mutex<Kept>);

/// How many samples and directions go through at once, and the bytes that this takes with all that is held.
type Fitted = (Extent, u64);

#[derive(Default)]
struct Kept {
    /// By outline, directions and words left to others.
    fitted: HashMap<(Outline, usize, usize), Fitted>,
    /// The one last used last.
    recorded: Vec<((Outline, Frame, Extent), Arc<Recorded>)>,
}

/// Passes that are kept at the most: they may be many, where each serves another subspace.
const MOST: usize = 16;

impl Passes {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// [`Outline::extent`], planned once.
    pub fn fitted(
        &self,
        session: &Session,
        outline: &Outline,
        directions: usize,
        room: usize,
    ) -> Result<Fitted> {
        let key = (outline.clone(), directions, room);
        if let Some(&fitted) = self.kept().fitted.get(&key) {
            return Ok(fitted);
        }
        let fitted = outline.extent(session, directions, room)?;
        self.kept().fitted.insert(key, fitted);
        Ok(fitted)
    }

    /// The pass of that extent, recorded by `record` where there is none yet; `bytes` is what it takes with all that is
    /// held. Others are let go where the budget has no room for them beside it.
    pub fn recorded(
        &self,
        session: &Session,
        (outline, frame): (&Outline, Frame),
        (extent, bytes): Fitted,
        record: impl FnOnce() -> Result<Recorded>,
    ) -> Result<Arc<Recorded>> {
        let mut kept = self.kept();
        let key = (outline.clone(), frame, extent);
        if let Some(at) = kept.recorded.iter().position(|(other, _)| *other == key) {
            let found = kept.recorded.remove(at);
            let recorded = found.1.clone();
            kept.recorded.push(found);
            return Ok(recorded);
        }
        let gpu = session.gpu();
        while !kept.recorded.is_empty()
            && (kept.recorded.len() >= MOST || gpu.memory_in_use() + bytes > gpu.memory_budget())
        {
            kept.recorded.remove(0);
        }
        let recorded = Arc::new(record()?);
        kept.recorded.push((key, recorded.clone()));
        Ok(recorded)
    }

    /// Lets go of what nobody uses at present.
    pub fn release(&self) {
        let mut kept = match self.0.try_lock() {
            Ok(kept) => kept,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            // somebody records, and has seen to the budget
            Err(TryLockError::WouldBlock) => return,
        };
        kept.recorded.retain(|(_, recorded)| Arc::strong_count(recorded) > 1);
    }
}

/// Whether every one of `samples` is a sample of a data set of `count`.
pub(super) fn check_samples(samples: &[u32], count: usize) -> Result<()> {
    if samples.is_empty() {
        return Err(Error::argument("samples", "none", "at least one"));
    }
    match samples.iter().position(|&sample| sample as usize >= count) {
        Some(at) => {
            let found = format!("{} at position {at}", samples[at]);
            Err(Error::argument("samples", found, format!("0 to {}", count - 1)))
        }
        None => Ok(()),
    }
}
