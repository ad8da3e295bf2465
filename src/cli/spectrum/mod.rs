//! `curvkit spectrum`: eigenpairs, density and trace of a checkpoint's curvature, and two operators compared.

mod comparison;
mod eigen;
mod estimates;

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use serde_json::{Map, Value, json};

use self::eigen::Wanted;
use super::Device;
use super::args::{CheckpointArgs, RunArgs, subspace, watched};
use super::record;
use crate::data::Layout;
use crate::net::{Network, Subspace};
use crate::operators::{Curvature, Session, layer_shape};
use crate::runs::{Outputs, Record, Run};
use crate::spectral::{LanczosOptions, QuadratureOptions, Which, cheapest_block};
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
    /// Only these parameters' coordinates, such as 2.weight,2.bias, in the order in which they are named here; all if
    /// not given.
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
    #[command(flatten)]
    run: RunArgs,
    /// The folder for eigenvalues.csv, eigenvectors.safetensors, spectrum.svg, run.json and what else is made.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Print the results as JSON.
    #[arg(long)]
    json: bool,
}

/// What was found: the results of the record, what is printed, and what is wrong with them.
struct Measured {
    results: Map<String, Value>,
    lines: Vec<String>,
    /// Whether all eigenpairs that were wanted have converged: no state is needed any more.
    converged: bool,
    amiss: Option<Error>,
}

/// Probes and steps at the most: what every one of them leaves behind has to find room.
const MOST: usize = 100_000;

/// What the state of an iteration is of: it goes on with nothing else.
const BOUND: &[&str] = &[
    "contents",
    "options.model",
    "options.loss",
    "options.operator",
    "options.parameters",
    "options.layer",
    "options.top",
    "options.which",
    "options.tolerance",
    "options.block",
    "options.seed",
];

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
        let count = self.top.or(self.finds_pairs().then_some(10.min(dim)));
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
        if !(2..=MOST).contains(&self.probes) {
            let expected = format!("2, for a standard error, to {MOST}");
            return Err(Error::argument("--probes", self.probes, expected));
        }
        if !(1..=MOST).contains(&self.steps) {
            return Err(Error::argument("--steps", self.steps, format!("1 to {MOST}")));
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

    /// Whether eigenpairs are wanted.
    fn finds_pairs(&self) -> bool {
        let estimates_alone = (self.density || self.trace) && self.compare.is_none();
        self.top.is_some() || !estimates_alone
    }

    /// The plot of the density: the eigenvalues' bears the other name where there are any.
    fn density_plot(&self) -> &'static str {
        if self.finds_pairs() { "density.svg" } else { "spectrum.svg" }
    }

    /// What the names of the files of an operator's eigenpairs begin with.
    fn prefixes(&self) -> Vec<String> {
        let operators = self
            .finds_pairs()
            .then(|| [Some(String::new()), self.compare.map(|other| format!("{}-", other.name()))]);
        operators.into_iter().flatten().flatten().collect()
    }

    /// The files of a run, and those that it reads.
    fn outputs(&self) -> Outputs {
        let of_pairs = |prefix: &String| {
            eigen::RESULTS
                .into_iter()
                .chain([eigen::STATE])
                .map(|name| format!("{prefix}{name}"))
                .collect::<Vec<_>>()
        };
        let mut names: Vec<String> = self.prefixes().iter().flat_map(of_pairs).collect();
        if self.compare.is_some() {
            names.extend(comparison::RESULTS.map(String::from));
        }
        if self.density {
            names.extend(estimates::DENSITY.into_iter().chain([self.density_plot()]).map(String::from));
        }
        if self.trace {
            names.push(estimates::DIAGONAL.into());
        }
        Outputs::folder(&self.out, names).reading(self.checkpoint.inputs())
    }

    pub fn run(&self, device: &Device) -> Result<String> {
        self.check()?;
        let outputs = self.outputs();
        outputs.check()?;
        let (network, parameters) = self.checkpoint.network()?;
        let space = self.space(&network)?;
        let count = self.count(space.dim)?;
        let data = self.checkpoint.data(&network)?;
        let gpu = device.open()?;
        let loss = self.checkpoint.model.loss;
        let (problem, _) = Session::with_loss(&gpu, &network, &parameters, &data, loss)?;
        let block = self.blocks(&problem, &space, count)?;
        let options = json!({
            "operator": self.operator.name(), "parameters": self.parameters, "layer": self.layer, "top": count,
            "which": self.which(), "tolerance": self.tolerance, "block": block,
            "max_products": self.max_products, "seed": self.seed, "compare": self.compare.map(Operator::name),
            "density": self.density, "trace": self.trace, "probes": self.probes, "steps": self.steps,
        });
        let determined = self.checkpoint.determined(&network, &parameters, &data, options);
        let mut told = self.checkpoint.describe();
        told["samples"] = json!(data.len());
        let record = Record::new("spectrum", Some(&gpu), determined, told);
        // more products are no other run
        let record = record.free(&["options.max_products"]).bound(BOUND);
        let run = Run::claim(outputs, record, self.run.mode())?;
        let layout = network.layout(&space);
        let measured = run.finish(|folder| {
            let measured = self.measure(device, &problem, (&space, &layout, count), &block, &run, folder)?;
            run.tell("results", Value::Object(measured.results.clone()));
            Ok(measured)
        })?;
        let Measured { results, mut lines, converged, amiss } = measured;
        if converged {
            for prefix in self.prefixes() {
                run.remove(&format!("{prefix}{}", eigen::STATE))?;
            }
        }
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

    /// The vectors that each solver multiplies at a time: what was asked for, or what was measured to be cheapest, which
    /// the results depend on as well.
    fn blocks(&self, problem: &Session, space: &Subspace, count: Option<usize>) -> Result<Vec<usize>> {
        let Some(count) = count else { return Ok(Vec::new()) };
        let operators = [Some(self.operator), self.compare].into_iter().flatten();
        let width = |operator: Operator| match self.block {
            Some(block) => Ok(block),
            None => Ok(cheapest_block(&problem.operator(operator.curvature(), space)?, count)),
        };
        operators.map(width).collect()
    }

    /// Finds what is asked for and writes it into `folder`.
    fn measure(
        &self,
        device: &Device,
        problem: &Session,
        (space, layout, count): (&Subspace, &Layout, Option<usize>),
        block: &[usize],
        run: &Run,
        folder: &Path,
    ) -> Result<Measured> {
        let operator = problem.operator(self.operator.curvature(), space)?;
        let mut results = Map::new();
        let samples = problem.samples().len();
        results.insert("dim".into(), json!(space.dim));
        results.insert("samples".into(), json!(samples));
        let watch = |what: &'static str| watched(device.quiet, what);
        let words = self.operator.words();
        let mut lines = vec![format!("{words} of {} parameters over {samples} samples", space.dim)];
        // what is wrong although there are results: the first of what there is to say
        let mut amiss = None;
        let (mut lost, mut undefined) = (Vec::new(), Undefined::default());
        if let Some(count) = count {
            let wanted = Wanted {
                run,
                folder,
                files: "",
                options: LanczosOptions {
                    which: self.which(),
                    tolerance: self.tolerance,
                    block: Some(block[0]),
                    max_products: self.max_products,
                    seed: self.seed,
                    ..LanczosOptions::new(count)
                },
                quiet: device.quiet,
            };
            let found = wanted.find(&operator, layout, self.operator)?;
            found.tell(&mut lines);
            results.insert("eigenpairs".into(), found.json());
            amiss = found.unconverged(self.operator);
            if let Some(other) = self.compare {
                let of_other = problem.operator(other.curvature(), space)?;
                let files = format!("{}-", other.name());
                let options = LanczosOptions { block: Some(block[1]), ..wanted.options.clone() };
                let second = Wanted { files: &files, options, ..wanted }.find(&of_other, layout, other)?;
                second.tell(&mut lines);
                amiss = amiss.or(second.unconverged(other));
                let compared = comparison::Report {
                    out: folder,
                    operators: [(&operator, self.operator, &found), (&of_other, other, &second)],
                    probes: self.probes,
                    seed: self.seed,
                    how_made: &run.record(),
                }
                .write(&mut watch("comparison"));
                if let Some(compared) = or_lost(&mut lost, "comparison", compared)? {
                    compared.tell(&mut lines);
                    lost.extend(compared.missing());
                    results.insert("comparison".into(), compared.json());
                }
            }
        }
        if self.density {
            let options = QuadratureOptions { probes: self.probes, steps: self.steps, seed: self.seed };
            let plot = self.density_plot();
            let made =
                estimates::density(folder, plot, &operator, self.operator, &options, &mut watch("density"));
            let made = or_lost(&mut lost, "density", undefined.or_value("density", made))?;
            let (line, value) = match made {
                Some(Some((line, value))) => (line, value),
                Some(None) => {
                    let reason = undefined.reason("density").unwrap_or_default();
                    let line = format!("density of the {}: undefined: {reason}", self.operator.words());
                    lost.push(line.clone());
                    (line, Value::Null)
                }
                None => (format!("density of the {}: not made", self.operator.words()), Value::Null),
            };
            lines.push(line);
            results.insert("density".into(), value);
        }
        if self.trace {
            let metadata = [("run", run.record().to_string()), layout.metadata()];
            let made =
                estimates::trace(folder, &operator, self.probes, self.seed, &metadata, &mut watch("trace"));
            if let Some((told, value)) = or_lost(&mut lost, "trace", made)? {
                lines.extend(told);
                results.insert("trace".into(), value);
            }
        }
        results.insert("undefined".into(), json!(undefined));
        let missing = (!lost.is_empty()).then_some(Error::Incomplete(lost));
        Ok(Measured { results, lines, converged: amiss.is_none(), amiss: amiss.or(missing) })
    }

    fn which(&self) -> Which {
        match self.which {
            WhichArg::Largest => Which::Largest,
            WhichArg::Smallest => Which::Smallest,
            WhichArg::Magnitude => Which::Magnitude,
        }
    }
}

/// What was made of a part of a run, or nothing where it overflows, of which the reason is kept: the others are made
/// nevertheless.
///
/// # Errors
/// Whatever else has gone wrong.
fn or_lost<T>(lost: &mut Vec<String>, part: &str, made: Result<T>) -> Result<Option<T>> {
    match made {
        Err(error @ Error::NotFinite { .. }) => {
            lost.push(format!("{part}: {error}"));
            Ok(None)
        }
        made => made.map(Some),
    }
}
