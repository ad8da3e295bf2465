//! SGD on the device.

use serde::{Deserialize, Serialize};

use super::TrainOptions;
use crate::data::Dataset;
use crate::gpu::{Buffer, Gpu, Program, Recorder, Step};
use crate::jets::ops::Extent;
use crate::jets::plan::Request;
use crate::jets::sweep::{Results, Workload, fit};
use crate::jets::{Samples, Sweep};
use crate::kernels::sgd::sgd;
use crate::net::{Network, Subspace};
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

/// A run of SGD: parameters and momentum live on the device, an epoch is replayed without reading back.
pub struct Trainer {
    gpu: Gpu,
    space: Subspace,
    options: TrainOptions,
    samples: usize,
    /// Whether the targets are classes.
    classes: bool,
    theta: Buffer,
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

impl Trainer {
    /// Prepares a run from flat `parameters`, `[P]`.
    ///
    /// # Errors
    /// [`Error::Argument`] where an option cannot be used, [`Error::Shape`] and the device's errors.
    pub fn new(
        gpu: &Gpu,
        network: &Network,
        parameters: Vec<f32>,
        data: &Dataset,
        options: TrainOptions,
    ) -> Result<Trainer> {
        let momentum = vec![0.0; parameters.len()];
        let state = TrainState { epoch: 0, parameters, momentum };
        Self::resume(gpu, network, state, data, options)
    }

    /// Takes a run up where [`Trainer::state`] left it.
    ///
    /// # Errors
    /// As [`Trainer::new`].
    pub fn resume(
        gpu: &Gpu,
        network: &Network,
        state: TrainState,
        data: &Dataset,
        options: TrainOptions,
    ) -> Result<Trainer> {
        options.check(data.len())?;
        let space = network.all();
        for (name, vector) in [("parameters", &state.parameters), ("momentum", &state.momentum)] {
            if vector.len() != space.dim {
                return Err(Error::shape(name, [vector.len()], [space.dim]));
            }
            if let Some(value) = vector.iter().find(|v| !v.is_finite()) {
                return Err(Error::NotFinite { quantity: name.into(), detail: format!("it holds {value}") });
            }
        }
        let on_device = Samples::new(gpu, network, data, options.loss)?;
        let theta = space.upload(gpu, &state.parameters)?;
        let momentum = space.upload(gpu, &state.momentum)?;
        let batch = options.batch_size;
        let all: Vec<usize> = (0..network.parameters().len()).collect();
        let request = Request::gradient(&all);
        let held = on_device.words() + 2 * space.stride;
        let (extent, _) = fit(gpu, network, &request, &space, held, (batch, 1))?;
        // a batch's rows past its samples gather whatever index stands there: there has to be one
        let positions = data.len().div_ceil(batch) * batch + extent.n;
        let indices = gpu.zeros(positions)?;
        let work = Workload {
            gpu,
            network,
            samples: &on_device,
            loss: options.loss,
            theta: theta.view(),
            indices: indices.view(),
            positions,
        };
        let update = |rec: &mut Recorder, sweep: &Sweep| {
            let gradient = sweep.gradient.as_ref().expect("a gradient was asked for");
            let stride = space.stride;
            sgd(rec, &gradient.slice(0, stride), &theta.slice(0, stride), &momentum.slice(0, stride))
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
        Ok(Trainer {
            gpu: gpu.clone(),
            space,
            samples: data.len(),
            classes: on_device.classes(),
            options,
            theta,
            momentum,
            indices,
            stepper,
            epoch: state.epoch,
        })
    }

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
        let order = self.options.order(self.samples, self.epoch);
        let learning_rate = self.options.learning_rate_at(self.epoch);
        self.gpu.write(&self.indices.view(), &order)?;
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
                ..Step::default()
            })
            .collect();
        let sweep = match &self.stepper {
            Stepper::Whole { program, sweep } => {
                program.run_steps(&steps)?;
                sweep
            }
            Stepper::Parts { sweep, update } => {
                let n = sweep.extent.n as u32;
                for step in &steps {
                    let part = |start: u32| Step {
                        first: step.first + start,
                        count: n.min(step.count - start),
                        ..*step
                    };
                    let parts: Vec<Step> = (0..step.count).step_by(n as usize).map(part).collect();
                    sweep.run(&parts)?;
                    update.run_steps(&[*step])?;
                }
                sweep
            }
        };
        let losses: Vec<f32> = self.gpu.read(&sweep.losses.slice(0, order.len()))?;
        let correct: Vec<f32> = self.gpu.read(&sweep.correct.slice(0, order.len()))?;
        let mean = |values: &[f32]| values.iter().map(|&v| v as f64).sum::<f64>() / values.len() as f64;
        if let Some(at) = losses.iter().position(|loss| !loss.is_finite()) {
            let steps_before = self.epoch * steps.len() as u64;
            return Err(Error::Diverged {
                step: steps_before + (at / batch) as u64 + 1,
                epoch: self.epoch + 1,
                loss: losses[at] as f64,
                learning_rate,
            });
        }
        self.epoch += 1;
        let accuracy = self.classes.then(|| mean(&correct));
        Ok(EpochRecord { epoch: self.epoch, loss: mean(&losses), accuracy, learning_rate })
    }

    /// The parameters, flat `[P]`.
    ///
    /// # Errors
    /// [`Error::NotFinite`] where the last step left the finite numbers, which no loss has met yet, and the
    /// device's errors.
    pub fn parameters(&self) -> Result<Vec<f32>> {
        self.vector("parameter", &self.theta)
    }

    /// What [`Trainer::resume`] takes.
    ///
    /// # Errors
    /// As [`Trainer::parameters`].
    pub fn state(&self) -> Result<TrainState> {
        let (parameters, momentum) = (self.parameters()?, self.vector("momentum", &self.momentum)?);
        Ok(TrainState { epoch: self.epoch, parameters, momentum })
    }

    fn vector(&self, name: &str, buffer: &Buffer) -> Result<Vec<f32>> {
        let values = self.space.unpad(&self.gpu.read(&buffer.slice(0, self.space.stride))?);
        match values.iter().find(|value| !value.is_finite()) {
            None => Ok(values),
            Some(value) => Err(Error::NotFinite {
                quantity: format!("a {name} after epoch {}", self.epoch),
                detail: format!("it is {value}; the run diverged, lower the learning rate"),
            }),
        }
    }
}
