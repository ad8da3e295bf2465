//! SGD on the device.

use serde::{Deserialize, Serialize};

use super::TrainOptions;
use crate::gpu::{Buffer, Program, Recorder, View};
use crate::jets::Sweep;
use crate::jets::ops::Extent;
use crate::jets::plan::Request;
use crate::jets::sweep::{Results, choose_extent};
use crate::kernels::Step;
use crate::kernels::sgd::sgd;
use crate::net::Subspace;
use crate::operators::Session;
use crate::{Error, Result};

/// One epoch of a run.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct EpochRecord {
    /// How many epochs have been run with this one.
    pub epoch: u64,
    /// The mean loss of the samples, each as its batch met it.
    pub loss: f64,
    /// The share of samples that were classified rightly, each as its batch met it; none where the targets are values.
    pub accuracy: Option<f64>,
    /// The learning rate of the epoch's steps.
    pub learning_rate: f64,
}

/// What a run needs to go on.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainState {
    /// Epochs run.
    pub epoch: u64,
    /// Flat, `[P]`.
    pub parameters: Vec<f32>,
    /// SGD's momentum, flat, `[P]`.
    pub momentum: Vec<f32>,
}

/// A run of SGD on a session: θ is the session's and momentum lies beside it on the device; an epoch is replayed without
/// reading back.
pub struct Trainer {
    session: Session,
    space: Subspace,
    options: TrainOptions,
    momentum: Buffer,
    indices: Buffer,
    stepper: Stepper,
    epoch: u64,
}

/// How a batch becomes a step.
enum Stepper {
    /// One program makes the gradient and the update.
    Whole { program: Program, sweep: Sweep },
    /// The batch is too large for the memory budget: gradients of its parts are added up, then the update.
    Parts { sweep: Sweep, update: Program },
}

impl std::fmt::Debug for Trainer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Trainer")
            .field("session", &self.session)
            .field("options", &self.options)
            .field("epoch", &self.epoch)
            .finish()
    }
}

impl Trainer {
    /// Prepares a run from the session's θ, without momentum.
    ///
    /// # Errors
    /// [`Error::Argument`] where an option cannot be used, and the device's errors.
    pub fn new(session: &Session, options: TrainOptions) -> Result<Trainer> {
        options.check(session.samples().len())?;
        let space = session.network().all();
        let momentum = session.gpu().zeros(space.stride)?;
        let batch = options.batch_size;
        let all: Vec<usize> = (0..session.network().parameters().len()).collect();
        let request = Request::gradient(&all);
        let held = session.held() + space.stride;
        let gpu = session.gpu();
        let (extent, _) = choose_extent(gpu, session.network(), &request, &space, held, (batch, 1))?;
        // a batch's rows past its samples gather whatever index stands there: there has to be one
        let positions = session.samples().len().div_ceil(batch) * batch + extent.n;
        let indices = gpu.zeros(positions)?;
        let work = session.workload(indices.view(), positions);
        let (theta, stride) = (session.theta(), space.stride);
        let update = |rec: &mut Recorder, sweep: &Sweep| {
            let gradient = sweep.gradient.as_ref().expect("a gradient was asked for");
            sgd(rec, &gradient.slice(0, stride), &theta, &momentum.slice(0, stride))
        };
        let stepper = if extent.n == batch {
            let mut rec = Recorder::new(gpu);
            let sweep = Sweep::record_onto(&mut rec, &work, &request, &space, extent, Results::Replace)?;
            update(&mut rec, &sweep)?;
            Stepper::Whole { program: rec.finish()?, sweep }
        } else {
            let extent = Extent { n: batch.div_ceil(batch.div_ceil(extent.n)), k: 1 };
            let sweep = Sweep::record(&work, &request, &space, extent, Results::Accumulate)?;
            let mut rec = Recorder::new(gpu);
            update(&mut rec, &sweep)?;
            rec.clear(sweep.gradient.as_ref().expect("a gradient was asked for"));
            Stepper::Parts { sweep, update: rec.finish()? }
        };
        Ok(Trainer { session: session.clone(), space, options, momentum, indices, stepper, epoch: 0 })
    }

    /// Takes a run up where [`Trainer::state`] left it: moves the session's θ there.
    ///
    /// # Errors
    /// [`Error::Shape`] and [`Error::NotFinite`] where the state is not one of this network, and as [`Trainer::new`].
    pub fn resume(session: &Session, state: TrainState, options: TrainOptions) -> Result<Trainer> {
        let space = session.network().all();
        if state.momentum.len() != space.dim {
            return Err(Error::shape("momentum", [state.momentum.len()], [space.dim]));
        }
        if let Some(value) = state.momentum.iter().find(|v| !v.is_finite()) {
            return Err(Error::NotFinite {
                quantity: "momentum".into(),
                detail: format!("it holds {value}"),
            });
        }
        let trainer = Trainer::new(session, options)?;
        session.set_parameters(&state.parameters)?;
        session.gpu().write(&trainer.momentum.view(), &space.pad(&state.momentum)?)?;
        Ok(Trainer { epoch: state.epoch, ..trainer })
    }

    /// The session whose θ the run moves.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// The run's options.
    pub fn options(&self) -> &TrainOptions {
        &self.options
    }

    /// Epochs run so far.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Dispatches of one step, where a batch is made in one piece.
    pub fn dispatches_per_step(&self) -> usize {
        match &self.stepper {
            Stepper::Whole { program, .. } => program.dispatches(),
            Stepper::Parts { sweep, update } => sweep.dispatches() + update.dispatches(),
        }
    }

    /// Floating-point operations of the matrix products of one step.
    pub fn flops_per_step(&self) -> f64 {
        match &self.stepper {
            Stepper::Whole { program, .. } => program.flops(),
            Stepper::Parts { sweep, .. } => {
                sweep.flops() * self.options.batch_size.div_ceil(sweep.extent.n) as f64
            }
        }
    }

    /// Runs one epoch.
    ///
    /// # Errors
    /// [`Error::Diverged`] naming the first step whose loss is not finite, and the device's errors.
    pub fn run_epoch(&mut self) -> Result<EpochRecord> {
        let batch = self.options.batch_size;
        let (gpu, samples) = (self.session.gpu(), self.session.samples());
        let order = self.options.order(samples.len(), self.epoch);
        let learning_rate = self.options.learning_rate_at(self.epoch);
        gpu.write(&self.indices.view(), &order)?;
        let steps: Vec<Step> = order
            .chunks(batch)
            .enumerate()
            .map(|(i, chunk)| Step {
                first: (i * batch) as u32,
                count: chunk.len() as u32,
                weight: 1.0 / chunk.len() as f32,
                learning_rate: learning_rate as f32,
                momentum: self.options.momentum as f32,
                weight_decay: self.options.weight_decay as f32,
            })
            .collect();
        self.session.move_theta(|_| self.run_steps(&steps))?;
        let (Stepper::Whole { sweep, .. } | Stepper::Parts { sweep, .. }) = &self.stepper;
        let losses: Vec<f32> = gpu.read(&sweep.losses.slice(0, order.len()))?;
        let correct: Vec<f32> = gpu.read(&sweep.correct.slice(0, order.len()))?;
        let mean = |values: &[f32]| values.iter().map(|&v| v as f64).sum::<f64>() / values.len() as f64;
        if let Some(at) = losses.iter().position(|loss| !loss.is_finite()) {
            let steps_before = self.epoch * steps.len() as u64;
            return Err(Error::Diverged {
                step: steps_before + (at / batch) as u64 + 1,
                epoch: self.epoch + 1,
                loss: losses[at] as f64,
                remedy: self.options.remedy(self.epoch),
            });
        }
        self.epoch += 1;
        let accuracy = self.session.samples().classes().then(|| mean(&correct));
        Ok(EpochRecord { epoch: self.epoch, loss: mean(&losses), accuracy, learning_rate })
    }

    /// Runs one step after another.
    fn run_steps(&self, steps: &[Step]) -> Result<()> {
        match &self.stepper {
            Stepper::Whole { program, .. } => program.run_steps(steps),
            Stepper::Parts { sweep, update } => steps.iter().try_for_each(|step| {
                let n = sweep.extent.n as u32;
                let part = |start: u32| Step {
                    first: step.first + start,
                    count: n.min(step.count - start),
                    ..*step
                };
                let parts: Vec<Step> = (0..step.count).step_by(n as usize).map(part).collect();
                sweep.run(&parts)?;
                update.run_steps(&[*step])
            }),
        }
    }

    /// The parameters, flat `[P]`.
    ///
    /// # Errors
    /// [`Error::NotFinite`] where the last step left the finite numbers, which no loss has met yet, and the
    /// device's errors.
    pub fn parameters(&self) -> Result<Vec<f32>> {
        self.vector("parameter", &self.session.theta())
    }

    /// What [`Trainer::resume`] takes.
    ///
    /// # Errors
    /// As [`Trainer::parameters`].
    pub fn state(&self) -> Result<TrainState> {
        let (parameters, momentum) =
            (self.parameters()?, self.vector("momentum", &self.momentum.slice(0, self.space.stride))?);
        Ok(TrainState { epoch: self.epoch, parameters, momentum })
    }

    fn vector(&self, name: &str, view: &View) -> Result<Vec<f32>> {
        let values = self.space.unpad(&self.session.gpu().read::<f32>(view)?)?;
        match values.iter().find(|value| !value.is_finite()) {
            None => Ok(values),
            Some(value) => Err(Error::NotFinite {
                quantity: format!("a {name} after epoch {}", self.epoch),
                detail: format!(
                    "it is {value}; the run diverged, {}",
                    self.options.remedy(self.epoch.saturating_sub(1))
                ),
            }),
        }
    }
}
