//! SGD: options, samplers, schedules, and the trainer that runs a whole epoch without reading back.

mod options;
mod trainer;

pub use options::{Sampling, Schedule, TrainOptions};
pub use trainer::{EpochRecord, TrainState, Trainer};
