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
    Constant,
    /// Multiplied by `gamma` after each epoch.
    Exponential {
        gamma: f64,
    },
}

/// The hyper-parameters of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrainOptions {
    pub learning_rate: f64,
    pub momentum: f64,
    pub weight_decay: f64,
    pub schedule: Schedule,
    pub batch_size: usize,
    pub epochs: u64,
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
        let ranged = |name: &str, value: f64, fits: bool, expected: &str| {
            if fits { Ok(()) } else { Err(Error::argument(name, value, expected)) }
        };
        let rate = self.learning_rate;
        ranged("--learning-rate", rate, rate.is_finite() && rate > 0.0, "a positive number")?;
        let momentum = self.momentum;
        ranged("--momentum", momentum, (0.0..1.0).contains(&momentum), "a number from 0 to below 1")?;
        let decay = self.weight_decay;
        ranged("--weight-decay", decay, decay.is_finite() && decay >= 0.0, "a number from 0 on")?;
        if let Schedule::Exponential { gamma } = self.schedule {
            ranged("--gamma", gamma, gamma.is_finite() && gamma > 0.0, "a positive number")?;
        }
        if self.batch_size == 0 || self.batch_size > samples {
            return Err(Error::argument(
                "--batch-size",
                self.batch_size,
                format!("1 to the {samples} samples"),
            ));
        }
        if self.epochs == 0 {
            return Err(Error::argument("--epochs", 0, "at least 1"));
        }
        Ok(())
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
