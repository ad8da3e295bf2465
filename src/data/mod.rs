//! Data sets in host memory, and the files they come from.

mod files;

pub use files::write_atomically;

use crate::{Error, Result};

/// N samples and their targets, in host memory.
#[derive(Clone, Debug, PartialEq)]
pub struct Dataset {
    /// Sample after sample, each `shape` in row-major order: `[N, …shape]`.
    pub inputs: Vec<f32>,
    /// The shape of one sample.
    pub shape: Vec<usize>,
    pub targets: Targets,
}

/// What a loss compares the network's outputs with.
#[derive(Clone, Debug, PartialEq)]
pub enum Targets {
    /// One class a sample: `[N]`.
    Classes(Vec<u32>),
    /// `width` values a sample: `[N, width]`.
    Values { values: Vec<f32>, width: usize },
}

impl Dataset {
    /// Checks that inputs and targets agree in number and that every input is finite.
    ///
    /// # Errors
    /// [`Error::Shape`] where they do not agree, [`Error::NotFinite`] naming the first sample with a
    /// NaN or an infinity, [`Error::Argument`] where there is no sample at all.
    pub fn new(inputs: Vec<f32>, shape: Vec<usize>, targets: Targets) -> Result<Self> {
        let width: usize = shape.iter().product();
        let samples = match &targets {
            Targets::Classes(classes) => classes.len(),
            Targets::Values { values, width } => values.len() / (*width).max(1),
        };
        if samples == 0 || width == 0 {
            return Err(Error::argument("data set", "no samples", "at least one sample"));
        }
        if inputs.len() != samples * width {
            return Err(Error::shape("inputs", [inputs.len() / width, width], [samples, width]));
        }
        if let Some(at) = inputs.iter().position(|x| !x.is_finite()) {
            return Err(Error::NotFinite {
                quantity: "inputs".into(),
                detail: format!("sample {} holds {}", at / width, inputs[at]),
            });
        }
        if let Targets::Values { values, width } = &targets {
            if values.len() != samples * width {
                return Err(Error::shape("targets", [values.len()], [samples, *width]));
            }
            if let Some(at) = values.iter().position(|x| !x.is_finite()) {
                return Err(Error::NotFinite {
                    quantity: "targets".into(),
                    detail: format!("sample {} holds {}", at / width, values[at]),
                });
            }
        }
        Ok(Dataset { inputs, shape, targets })
    }

    /// N.
    pub fn len(&self) -> usize {
        self.inputs.len() / self.sample_len()
    }

    /// Never true: a data set has at least one sample.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// The number of values in one sample.
    pub fn sample_len(&self) -> usize {
        self.shape.iter().product()
    }

    /// The samples `indices`, in that order.
    ///
    /// # Panics
    /// If an index is not below N.
    pub fn select(&self, indices: &[usize]) -> Dataset {
        let d = self.sample_len();
        let inputs = indices.iter().flat_map(|&i| &self.inputs[i * d..(i + 1) * d]).copied().collect();
        let targets = match &self.targets {
            Targets::Classes(classes) => Targets::Classes(indices.iter().map(|&i| classes[i]).collect()),
            Targets::Values { values, width } => Targets::Values {
                values: indices.iter().flat_map(|&i| &values[i * width..(i + 1) * width]).copied().collect(),
                width: *width,
            },
        };
        Dataset { inputs, shape: self.shape.clone(), targets }
    }
}
