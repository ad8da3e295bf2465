//! `curvkit eval`

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde_json::json;

use super::Device;
use super::args::{CheckpointArgs, subspace};
use super::record;
use crate::data::{read_directions, write_tensors};
use crate::net::Subspace;
use crate::operators::Session;
use crate::runs::{self, Mode, Outputs, Record, Run, digest_of_values};
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

    /// What it comes to, `[K, dim]` for those that take directions `[K, dim]`, `[N, dim]` or `[dim]` for the others.
    fn values(self, problem: &Session, space: &Subspace, directions: &[f32]) -> Result<Vec<f32>> {
        match self {
            Quantity::Loss => Ok(vec![problem.loss()?.loss as f32]),
            Quantity::Gradient => problem.gradient(space),
            Quantity::PerSampleGradient => {
                let mut rows = Vec::with_capacity(problem.samples().len() * space.dim);
                problem.per_sample_gradients(space, |_, batch| {
                    rows.extend_from_slice(batch);
                    Ok(())
                })?;
                Ok(rows)
            }
            Quantity::Hvp => problem.hvp(space, directions),
            Quantity::Ggnvp => problem.ggnvp(space, directions),
            Quantity::NoiseCovarianceVp => problem.noise_covariance_vp(space, directions),
            Quantity::Third => problem.third(space, directions),
        }
    }

    /// Why element `at` of what it comes to is not finite, although loss, weights and directions are.
    fn overflow(self, at: usize, problem: &Session, space: &Subspace, directions: &[f32]) -> Result<String> {
        if self.takes_directions() {
            let which = at / space.dim;
            let direction = &directions[which * space.dim..][..space.dim];
            let length = direction.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
            let unit: Vec<f32> = direction.iter().map(|&x| (f64::from(x) / length) as f32).collect();
            if self.values(problem, space, &unit)?.iter().all(|value| value.is_finite()) {
                return Ok(format!("it overflows by direction {which}, of length {length:e}"));
            }
        }
        Ok("the network's derivatives overflow".into())
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
    /// Only these parameters' coordinates, such as 2.weight, in the order in which they are named here; all if not
    /// given.
    #[arg(long, value_delimiter = ',', value_name = "NAME,…")]
    parameters: Option<Vec<String>>,
    /// The safetensors file to write.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Replace the file even where it is no result of this command.
    #[arg(long)]
    overwrite: bool,
    /// Print loss, accuracy and how it was made as JSON.
    #[arg(long)]
    json: bool,
}

impl Eval {
    /// What is to be computed, each once.
    fn quantities(&self) -> impl Iterator<Item = Quantity> {
        let is_first = |&(i, which): &(usize, &Quantity)| {
            self.compute[..i].iter().all(|before| before.tensor() != which.tensor())
        };
        self.compute.iter().enumerate().filter(is_first).map(|(_, which)| *which)
    }

    pub fn run(&self, device: &Device) -> Result<String> {
        let vectors = self.vectors.iter().map(|path| ("--vectors", path.clone()));
        let outputs = Outputs::file(&self.out)?.reading(self.checkpoint.inputs()).reading(vectors);
        outputs.check()?;
        let (network, parameters) = self.checkpoint.network()?;
        let space = subspace(&network, self.parameters.as_deref())?;
        let layout = network.layout(&space);
        let directions = match &self.vectors {
            Some(path) => read_directions(path, &layout)?.1,
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
        let quantities: Vec<&str> = self.quantities().map(Quantity::tensor).collect();
        let options = json!({ "compute": quantities, "parameters": self.parameters });
        let mut determined = self.checkpoint.determined(&network, &parameters, &data, options);
        let mut told = self.checkpoint.describe();
        told["samples"] = json!(data.len());
        if let Some(path) = &self.vectors {
            determined["contents"]["vectors"] = json!(digest_of_values(&directions));
            told["inputs"]["vectors"] = runs::path(path);
        }
        let record = Record::new("eval", Some(&gpu), determined, told);
        let mode = if self.overwrite { Mode::Overwrite } else { Mode::Begin };
        let run = Run::claim(outputs, record, mode)?;
        let loss = self.checkpoint.model.loss;
        let (problem, report) = Session::with_loss(&gpu, &network, &parameters, &data, loss)?;
        let mut tensors: Vec<(&str, Vec<usize>, Vec<f32>)> = Vec::new();
        let mut lost = Vec::new();
        for quantity in self.quantities() {
            let values = match quantity {
                Quantity::Loss => vec![report.loss as f32],
                _ => quantity.values(&problem, &space, &directions)?,
            };
            if let Some(at) = values.iter().position(|value| !value.is_finite()) {
                let why = quantity.overflow(at, &problem, &space, &directions)?;
                let detail = format!("element {at} is {}: {why}", values[at]);
                lost.push(Error::NotFinite { quantity: quantity.tensor().into(), detail });
                continue;
            }
            let shape = match quantity {
                Quantity::Loss => vec![],
                Quantity::Gradient => vec![space.dim],
                Quantity::PerSampleGradient => vec![data.len(), space.dim],
                _ => vec![directions.len() / space.dim, space.dim],
            };
            tensors.push((quantity.tensor(), shape, values));
        }
        if tensors.is_empty() {
            return Err(lost.swap_remove(0));
        }
        let how = run.record();
        let tensors: Vec<(&str, &[usize], &[f32])> =
            tensors.iter().map(|(name, shape, values)| (*name, &shape[..], &values[..])).collect();
        let name = self.out.file_name().unwrap_or_default();
        let (key, layout) = layout.metadata();
        let metadata = [("run", &*how.to_string()), (key, &layout)];
        run.finish(|folder| write_tensors(folder.join(name), &tensors, &metadata))?;
        let (loss, accuracy, samples) = (report.loss, report.accuracy, data.len());
        let text = match (self.json, device.quiet) {
            (true, _) => {
                let undefined = record::undefined_accuracy(accuracy);
                record::json(&json!({
                    "loss": loss, "accuracy": accuracy, "undefined": undefined, "samples": samples, "run": how,
                }))
            }
            (false, true) => String::new(),
            (false, false) => {
                let (accuracy, out) = (record::accuracy(accuracy), self.out.display());
                format!("loss      {loss:.9}\naccuracy  {accuracy}\nsamples   {samples}\nwrote     {out}")
            }
        };
        if lost.is_empty() {
            return Ok(text);
        }
        super::print(&text)?;
        Err(Error::Incomplete(lost.iter().map(Error::to_string).collect()))
    }
}
