//! `curvkit eval`

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde_json::json;

use super::Device;
use super::args::{CheckpointArgs, prepare_file, subspace};
use super::record::{self, RunRecord};
use crate::data::{read_directions, write_tensors};
use crate::operators::Problem;
use crate::{Error, Result};

/// What can be evaluated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Quantity {
    Loss,
    Gradient,
    PerSampleGradient,
    Hvp,
    Ggnvp,
    NoiseCovarianceVp,
    Third,
}

impl Quantity {
    /// The tensor's name in the result.
    fn tensor(self) -> &'static str {
        match self {
            Quantity::Loss => "loss",
            Quantity::Gradient => "gradient",
            Quantity::PerSampleGradient => "per_sample_gradient",
            Quantity::Hvp => "hvp",
            Quantity::Ggnvp => "ggnvp",
            Quantity::NoiseCovarianceVp => "noise_covariance_vp",
            Quantity::Third => "third",
        }
    }

    fn takes_directions(self) -> bool {
        !matches!(self, Quantity::Loss | Quantity::Gradient | Quantity::PerSampleGradient)
    }
}

#[derive(Args)]
pub struct Eval {
    #[command(flatten)]
    checkpoint: CheckpointArgs,
    /// What to compute.
    #[arg(long, value_enum, value_delimiter = ',', required = true, value_name = "QUANTITY,…")]
    compute: Vec<Quantity>,
    /// Directions: a safetensors file with `v` [K, P], in the coordinates of the parameters chosen.
    #[arg(long, value_name = "FILE")]
    vectors: Option<PathBuf>,
    /// Only these parameters' coordinates, such as 2.weight; all if not given.
    #[arg(long, value_delimiter = ',', value_name = "NAME,…")]
    parameters: Option<Vec<String>>,
    /// The safetensors file to write.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Print loss, accuracy and how it was made as JSON.
    #[arg(long)]
    json: bool,
}

impl Eval {
    pub fn run(&self, device: &Device) -> Result<String> {
        let (network, parameters) = self.checkpoint.network()?;
        let space = subspace(&network, self.parameters.as_deref())?;
        let directions = match &self.vectors {
            Some(path) => read_directions(path, space.dim)?.1,
            None => Vec::new(),
        };
        if let Some(which) = self.compute.iter().find(|q| q.takes_directions())
            && directions.is_empty()
        {
            let found = format!("none for {}", which.tensor());
            return Err(Error::argument("--vectors", found, "a file with directions v [K, P]"));
        }
        let data = self.checkpoint.data(&network)?;
        let gpu = device.open()?;
        let problem = Problem::new(&gpu, &network, &parameters, &data, self.checkpoint.model.loss)?;
        prepare_file(&self.out)?;
        let options = json!({ "parameters": self.parameters, "vectors": self.vectors });
        let run = RunRecord::start(&gpu, self.checkpoint.describe(&network, options));
        let report = problem.loss()?;
        let overflow = "the network's outputs or the loss overflow";
        if let Some(at) = report.per_sample.iter().position(|loss| !loss.is_finite()) {
            let detail = format!("sample {at} has {}: {overflow}", report.per_sample[at]);
            return Err(Error::NotFinite { quantity: "loss".into(), detail });
        }
        let mut tensors: Vec<(&str, Vec<usize>, Vec<f32>)> = Vec::new();
        let k = directions.len() / space.dim.max(1);
        for &quantity in &self.compute {
            let (shape, values) = match quantity {
                Quantity::Loss => (vec![], vec![report.loss as f32]),
                Quantity::Gradient => (vec![space.dim], problem.gradient(&space)?),
                Quantity::PerSampleGradient => {
                    let mut rows = Vec::with_capacity(data.len() * space.dim);
                    problem.per_sample_gradients(&space, |batch| {
                        rows.extend_from_slice(batch);
                        Ok(())
                    })?;
                    (vec![data.len(), space.dim], rows)
                }
                Quantity::Hvp => (vec![k, space.dim], problem.hvp(&space, &directions)?),
                Quantity::Ggnvp => (vec![k, space.dim], problem.ggnvp(&space, &directions)?),
                Quantity::NoiseCovarianceVp => {
                    (vec![k, space.dim], problem.noise_covariance_vp(&space, &directions)?)
                }
                Quantity::Third => (vec![k, space.dim], problem.third(&space, &directions)?),
            };
            if let Some(at) = values.iter().position(|value| !value.is_finite()) {
                return Err(Error::NotFinite {
                    quantity: quantity.tensor().into(),
                    detail: format!("element {at} is {}: {overflow}", values[at]),
                });
            }
            if tensors.iter().all(|(name, ..)| *name != quantity.tensor()) {
                tensors.push((quantity.tensor(), shape, values));
            }
        }
        let how = run.value();
        let tensors: Vec<(&str, &[usize], &[f32])> =
            tensors.iter().map(|(name, shape, values)| (*name, &shape[..], &values[..])).collect();
        write_tensors(&self.out, &tensors, &[("run", &how.to_string())])?;
        let (loss, accuracy) = (report.loss, report.accuracy);
        Ok(match (self.json, device.quiet) {
            (true, _) => {
                let undefined = record::undefined_accuracy(accuracy);
                let told = json!({ "loss": loss, "accuracy": accuracy, "undefined": undefined, "run": how });
                record::json(&told)
            }
            (false, true) => String::new(),
            (false, false) => {
                let accuracy = record::accuracy(accuracy);
                format!("loss      {loss:.9}\naccuracy  {accuracy}\nwrote     {}", self.out.display())
            }
        })
    }
}
