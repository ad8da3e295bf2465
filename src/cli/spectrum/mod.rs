//! `curvkit spectrum`: eigenpairs, density and trace of a checkpoint's curvature, and two operators compared.

mod comparison;
mod eigen;
mod estimates;

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde_json::{Map, Value, json};

use self::eigen::Wanted;
use super::Device;
use super::args::{CheckpointArgs, subspace};
use super::record::{self, RunRecord};
use crate::data::prepare_folder;
use crate::net::{Network, Subspace};
use crate::operators::{Curvature, Problem, layer_shape};
use crate::spectral::{LanczosOptions, QuadratureOptions, Which};
use crate::{Error, Result, Undefined};

/// An operator's name on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Operator {
    Hessian,
    Ggn,
    NoiseCovariance,
}

impl Operator {
    fn curvature(self) -> Curvature {
        match self {
            Operator::Hessian => Curvature::Hessian,
            Operator::Ggn => Curvature::Ggn,
            Operator::NoiseCovariance => Curvature::NoiseCovariance,
        }
    }

    /// As a sentence has it.
    fn words(self) -> &'static str {
        match self {
            Operator::Hessian => "Hessian",
            Operator::Ggn => "Gauss–Newton matrix",
            Operator::NoiseCovariance => "noise covariance",
        }
    }

    fn name(self) -> &'static str {
        match self {
            Operator::Hessian => "hessian",
            Operator::Ggn => "ggn",
            Operator::NoiseCovariance => "noise-covariance",
        }
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum WhichArg {
    /// The algebraically largest.
    Largest,
    /// The algebraically smallest.
    Smallest,
    /// The largest in magnitude.
    Magnitude,
}

#[derive(Args)]
pub struct Spectrum {
    #[command(flatten)]
    checkpoint: CheckpointArgs,
    #[arg(long, value_enum)]
    operator: Operator,
    /// Only these parameters' coordinates, such as 2.weight,2.bias; all if not given.
    #[arg(long, value_delimiter = ',', value_name = "NAME,…", conflicts_with = "layer")]
    parameters: Option<Vec<String>>,
    /// Only the weights of this fully connected layer, such as 2.weight.
    #[arg(long, value_name = "NAME")]
    layer: Option<String>,
    /// How many eigenpairs; 10, or none where density or trace are asked for.
    #[arg(long, value_name = "K")]
    top: Option<usize>,
    #[arg(long, value_enum, default_value = "largest")]
    which: WhichArg,
    /// A pair has converged when ‖A v − λ v‖ is below this share of |λ₁|.
    #[arg(long, default_value_t = 1e-4, value_name = "T")]
    tolerance: f64,
    /// How many vectors are multiplied at a time; the width that was measured to be cheapest if not given.
    #[arg(long, value_name = "B")]
    block: Option<usize>,
    /// The most products that are spent on the eigenpairs; 20 K + 2,000 if not given.
    #[arg(long, value_name = "N")]
    max_products: Option<usize>,
    /// Compare with this operator: overlap of the leading subspaces, diagonals, commutator; and a report.
    #[arg(long, value_enum, value_name = "OPERATOR")]
    compare: Option<Operator>,
    /// The density of the spectrum, by stochastic Lanczos quadrature.
    #[arg(long)]
    density: bool,
    /// Trace, Frobenius norm and diagonal, with standard errors.
    #[arg(long)]
    trace: bool,
    /// Random vectors for what is estimated: density, trace, commutator.
    #[arg(long, default_value_t = 10, value_name = "M")]
    probes: usize,
    /// Lanczos steps of each random vector of the density.
    #[arg(long, default_value_t = 80, value_name = "S")]
    steps: usize,
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Go on from where the folder's last run of the same command was stopped, if there is one.
    #[arg(long)]
    resume: bool,
    /// The folder for eigenvalues.csv, eigenvectors.safetensors, spectrum.svg, run.json and what else is made.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Print the results as JSON.
    #[arg(long)]
    json: bool,
}

impl Spectrum {
    /// The coordinates of the operator's vectors.
    fn space(&self, network: &Network) -> Result<Subspace> {
        match &self.layer {
            Some(layer) => {
                layer_shape(network, layer)?;
                network.restricted(&[layer])
            }
            None => subspace(network, self.parameters.as_deref()),
        }
    }

    /// K, where eigenpairs are wanted.
    fn count(&self, dim: usize) -> Result<Option<usize>> {
        let estimates_alone = (self.density || self.trace) && self.compare.is_none();
        let count = self.top.or((!estimates_alone).then_some(10.min(dim)));
        match count {
            Some(count) if !(1..=dim).contains(&count) => {
                Err(Error::argument("--top", count, format!("1 to {dim}, the number of parameters")))
            }
            _ => Ok(count),
        }
    }

    fn check(&self) -> Result<()> {
        // also false for NaN
        let positive = self.tolerance > 0.0 && self.tolerance.is_finite();
        if !positive {
            return Err(Error::argument("--tolerance", self.tolerance, "a number above 0"));
        }
        for (option, value) in [("--block", self.block), ("--max-products", self.max_products)] {
            if value == Some(0) {
                return Err(Error::argument(option, 0, "at least 1"));
            }
        }
        if self.probes < 2 {
            return Err(Error::argument("--probes", self.probes, "at least 2, for a standard error"));
        }
        if self.steps == 0 {
            return Err(Error::argument("--steps", 0, "at least 1"));
        }
        if self.compare == Some(self.operator) {
            return Err(Error::argument(
                "--compare",
                self.operator.name(),
                "another operator than --operator",
            ));
        }
        Ok(())
    }

    pub fn run(&self, device: &Device) -> Result<String> {
        self.check()?;
        let (network, parameters) = self.checkpoint.network()?;
        let space = self.space(&network)?;
        let count = self.count(space.dim)?;
        let data = self.checkpoint.data(&network)?;
        let gpu = device.open()?;
        let problem = Problem::new(&gpu, &network, &parameters, &data, self.checkpoint.model.loss)?;
        prepare_folder(&self.out)?;
        let options = json!({
            "operator": self.operator.name(), "parameters": self.parameters, "layer": self.layer, "top": count,
            "which": self.which(), "tolerance": self.tolerance, "block": self.block,
            "max_products": self.max_products, "seed": self.seed, "compare": self.compare.map(Operator::name),
            "density": self.density, "trace": self.trace, "probes": self.probes, "steps": self.steps,
        });
        let run = RunRecord::start(&gpu, self.checkpoint.describe(&network, options));
        let operator = problem.operator(self.operator.curvature(), &space)?;
        let mut results = Map::new();
        results.insert("dim".into(), json!(space.dim));
        let mut lines = vec![format!("{} of {} parameters", self.operator.words(), space.dim)];
        // what is wrong although there are results: the first of what there is to say
        let mut amiss = None;
        let mut undefined = Undefined::default();
        if let Some(count) = count {
            let wanted = Wanted {
                out: &self.out,
                files: "",
                options: LanczosOptions {
                    which: self.which(),
                    tolerance: self.tolerance,
                    block: self.block,
                    max_products: self.max_products,
                    seed: self.seed,
                    ..LanczosOptions::new(count)
                },
                resume: self.resume,
                quiet: device.quiet,
            };
            let found = wanted.find(&operator, &space, self.operator, &run)?;
            found.tell(&mut lines);
            results.insert("eigenpairs".into(), found.json());
            amiss = found.unconverged(self.operator);
            if let Some(other) = self.compare {
                let of_other = problem.operator(other.curvature(), &space)?;
                let files = format!("{}-", other.name());
                let second = Wanted { files: &files, options: wanted.options.clone(), ..wanted }
                    .find(&of_other, &space, other, &run)?;
                second.tell(&mut lines);
                amiss = amiss.or(second.unconverged(other));
                let compared = comparison::Report {
                    out: &self.out,
                    operators: [(&operator, self.operator, &found), (&of_other, other, &second)],
                    probes: self.probes,
                    seed: self.seed,
                    how_made: &run.value(),
                }
                .write()?;
                compared.tell(&mut lines);
                amiss = amiss.or(compared.missing());
                results.insert("comparison".into(), compared.json());
            }
        }
        if self.density {
            let options = QuadratureOptions { probes: self.probes, steps: self.steps, seed: self.seed };
            // the eigenvalues' plot bears that name where there are any
            let svg = if count.is_some() { "density.svg" } else { "spectrum.svg" };
            let made = estimates::density(&self.out, svg, &operator, self.operator, &options);
            let (line, value) = match undefined.or_value("density", made)? {
                Some((line, value)) => (line, value),
                None => {
                    let reason = undefined.reason("density").unwrap_or_default();
                    let line = format!("density of the {}: undefined: {reason}", self.operator.words());
                    amiss = amiss.or(Some(Error::Incomplete(vec![line.clone()])));
                    (line, Value::Null)
                }
            };
            lines.push(line);
            results.insert("density".into(), value);
        }
        if self.trace {
            let how_made = run.value().to_string();
            let (told, value) = estimates::trace(&self.out, &operator, self.probes, self.seed, &how_made)?;
            lines.extend(told);
            results.insert("trace".into(), value);
        }
        results.insert("undefined".into(), json!(undefined));
        let mut record = run.value();
        record["results"] = Value::Object(results.clone());
        crate::report::write_json(self.out.join("run.json"), &record)?;
        lines.push(format!("wrote {}", self.out.display()));
        let text = match (self.json, device.quiet) {
            (true, _) => record::json(&results),
            (false, true) => String::new(),
            (false, false) => lines.join("\n"),
        };
        match amiss {
            None => Ok(text),
            Some(error) => {
                super::print(&text)?;
                Err(error)
            }
        }
    }

    fn which(&self) -> Which {
        match self.which {
            WhichArg::Largest => Which::Largest,
            WhichArg::Smallest => Which::Smallest,
            WhichArg::Magnitude => Which::Magnitude,
        }
    }
}
