//! What to train with.

use rand::{RngExt, SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// Which samples make a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sampling {
    /// Each epoch passes over all samples in a random order; a last batch may be smaller.
    Epoch,
    /// Each batch is drawn with replacement; an epoch has as many batches as it would have without.
    WithReplacement,
}

/// The learning rate over the epochs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Schedule {
    /// The same in every epoch.
    Constant,
    /// Multiplied by `gamma` after each epoch.
    Exponential {
        /// The factor, positive.
        gamma: f64,
    },
}

/// The hyper-parameters of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrainOptions {
    /// η of the first epoch, positive.
    pub learning_rate: f64,
    /// μ in `m ← μ m + (g + λ θ)`, `θ ← θ − η m`: from 0 to below 1.
    pub momentum: f64,
    /// λ in the same update: 0 or positive.
    pub weight_decay: f64,
    /// How the learning rate changes from epoch to epoch.
    pub schedule: Schedule,
    /// B, the samples of a batch: from 1 to all.
    pub batch_size: usize,
    /// The number of epochs of the whole run, at least 1.
    pub epochs: u64,
    /// How an epoch's batches are drawn.
    pub sampling: Sampling,
    /// Of the order of the samples.
    pub seed: u64,
}

impl TrainOptions {
    /// Plain SGD: no momentum, no weight decay, a constant learning rate, epoch sampling, seed 0.
    pub fn sgd(learning_rate: f64, batch_size: usize, epochs: u64) -> TrainOptions {
        TrainOptions {
            learning_rate,
            momentum: 0.0,
            weight_decay: 0.0,
            schedule: Schedule::Constant,
            batch_size,
            epochs,
            sampling: Sampling::Epoch,
            seed: 0,
        }
    }

    /// # Errors
    /// [`Error::Argument`] naming the first option that cannot be used with `samples` samples.
    pub fn check(&self, samples: usize) -> Result<()> {
        // on the device, what is smaller is 0 and what is larger is infinite
        let held = |x: f64| (f64::from(f32::MIN_POSITIVE)..=f64::from(f32::MAX)).contains(&x);
        let ranged = |name: &str, value: f64, fits: bool, expected: &str| match fits {
            true if value == 0.0 || held(value) => Ok(()),
            true => Err(Error::argument(name, value, format!("{expected}, within 1.2e-38 to 3.4e38"))),
            false => Err(Error::argument(name, value, expected)),
        };
        let positive = |x: f64| x.is_finite() && x > 0.0;
        let rate = self.learning_rate;
        ranged("learning_rate", rate, positive(rate), "a positive number")?;
        let momentum = self.momentum;
        ranged("momentum", momentum, (0.0..1.0).contains(&momentum), "a number from 0 to below 1")?;
        let decay = self.weight_decay;
        ranged("weight_decay", decay, decay == 0.0 || positive(decay), "a number from 0 on")?;
        if let Schedule::Exponential { gamma } = self.schedule {
            ranged("gamma", gamma, positive(gamma), "a positive number")?;
        }
        if self.batch_size == 0 || self.batch_size > samples {
            return Err(Error::argument(
                "batch_size",
                self.batch_size,
                format!("1 to the {samples} samples"),
            ));
        }
        if self.epochs == 0 {
            return Err(Error::argument("epochs", 0, "at least 1"));
        }
        Ok(())
    }

    /// What to change where training has diverged in epoch `epoch`, the first being 0.
    pub(super) fn remedy(&self, epoch: u64) -> String {
        let (rate, decay) = (self.learning_rate_at(epoch), self.weight_decay);
        match self.schedule {
            // θ ← (1 − ηλ) θ alone grows
            _ if rate * decay > 2.0 => {
                format!("lower the learning rate or the weight decay (found {rate:?} and {decay:?})")
            }
            Schedule::Exponential { gamma } if gamma > 1.0 && epoch > 0 => {
                format!("lower gamma (found {gamma:?}, by which the learning rate has come to {rate:?})")
            }
            _ => format!("lower the learning rate (found {rate:?})"),
        }
    }

    /// The learning rate of epoch `epoch`, the first being 0.
    pub fn learning_rate_at(&self, epoch: u64) -> f64 {
        match self.schedule {
            Schedule::Constant => self.learning_rate,
            Schedule::Exponential { gamma } => self.learning_rate * gamma.powf(epoch as f64),
        }
    }

    /// The samples of epoch `epoch` in order; its batches are consecutive runs of `batch_size`. It depends
    /// on nothing but seed and epoch, so that a resumed run goes on as an uninterrupted one would.
    pub fn order(&self, samples: usize, epoch: u64) -> Vec<u32> {
        let mut random = ChaCha8Rng::seed_from_u64(self.seed);
        random.set_stream(epoch + 1);
        match self.sampling {
            Sampling::Epoch => {
                let mut order: Vec<u32> = (0..samples as u32).collect();
                order.shuffle(&mut random);
                order
            }
            Sampling::WithReplacement => {
                let draws = samples.div_ceil(self.batch_size) * self.batch_size;
                (0..draws).map(|_| random.random_range(0..samples as u32)).collect()
            }
        }
    }
}
