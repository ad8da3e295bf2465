//! From a request to files: train or load, measure, write, report.

use std::path::{Path, PathBuf};
use std::time::Instant;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::alignment;
use super::measures::{Diagonals, Eigenbasis};
use super::page::{Figures, page};
use super::scaling;
use super::settings::{Architecture, ImageSet, LEARNING_RATE, Preset, Setting};
use super::table1::{self, Cell, Epoch, Identity, Records, Run};
use crate::data::{Dataset, Targets, read_parameters, write_parameters};
use crate::gpu::Gpu;
use crate::net::{Loss, Network};
use crate::operators::{LayerMoments, Problem, layer_shape};
use crate::report::{write_json, write_text};
use crate::train::{Sampling, Schedule, TrainOptions, Trainer};
use crate::{Error, Result};

/// The most weights that a layer may have for its matrices to be held and diagonalised in full.
pub const LARGEST_LAYER: usize = 10_000;

/// What is to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    Table1,
    Scaling,
    Alignment,
    All,
}

impl Target {
    fn has_table1(self) -> bool {
        matches!(self, Target::Table1 | Target::All)
    }

    fn has_scaling(self) -> bool {
        matches!(self, Target::Scaling | Target::All)
    }

    fn has_alignment(self) -> bool {
        matches!(self, Target::Alignment | Target::All)
    }
}

impl std::str::FromStr for Target {
    type Err = Error;

    fn from_str(name: &str) -> Result<Target> {
        match name {
            "table1" => Ok(Target::Table1),
            "scaling" => Ok(Target::Scaling),
            "alignment" => Ok(Target::Alignment),
            "all" => Ok(Target::All),
            _ => {
                Err(Error::argument("superlinear", format!("“{name}”"), "table1, scaling, alignment or all"))
            }
        }
    }
}

/// Gives the first `per_class` images of each of the first `classes` classes.
pub type Images<'a> = dyn Fn(usize, usize) -> Result<Dataset> + 'a;

/// What is asked for.
pub struct Request<'a> {
    pub target: Target,
    pub dataset: ImageSet,
    /// `(classes, per_class)` to the training set.
    pub data: Box<Images<'a>>,
    pub models: Vec<Architecture>,
    pub losses: Vec<Loss>,
    pub classes: Vec<usize>,
    /// The figures are made of the first.
    pub seeds: Vec<u64>,
    pub preset: Preset,
    /// The weights to make the figures of (`4.weight`); the paper's layer if not given.
    pub layer: Option<String>,
    /// A checkpoint to make the figures of, in place of training.
    pub weights: Option<PathBuf>,
    /// The folder that everything is written to; it is made.
    pub out: PathBuf,
    /// What `run.json` and the report say besides what is known here: adapter, driver, command, data.
    pub how_made: Value,
}

/// What is going on, for whoever is waiting.
#[derive(Clone, Copy, Debug)]
pub enum Progress<'a> {
    /// A run whose results stand from an earlier call.
    Kept { run: &'a str },
    /// An epoch of `epochs` has ended.
    Trained { run: &'a str, epoch: Epoch, epochs: u64 },
    /// H, C and `E[h²]` are being computed, then diagonalised.
    Measuring { run: &'a str },
    /// The figures are being made.
    Drawing { run: &'a str },
}

/// What was made.
#[derive(Clone, Debug)]
pub struct Summary {
    /// The cells of Table 1; empty where it was not asked for.
    pub cells: Vec<Cell>,
    /// The printed table; empty where there are no cells.
    pub table: String,
    /// The HTML page.
    pub report: PathBuf,
}

/// Makes what `request` asks for.
///
/// A run whose results are on record in `out/runs` under the same identity is not repeated, and a
/// network that is there is not trained again. The figures of a single case are written to `out` itself,
/// those of several each to a folder of their own.
///
/// # Errors
/// [`Error::Argument`] where the request asks for what the paper does not have, or for `weights` together
/// with more than the figures of one case; [`Error::Io`] where a file cannot be written; whatever training
/// and measuring report.
pub fn run(gpu: &Gpu, request: &Request<'_>, progress: &dyn Fn(Progress<'_>)) -> Result<Summary> {
    let started = Instant::now();
    let settings = request.settings()?;
    let (mut runs, mut cells, mut figures) = (Vec::new(), Vec::new(), Vec::new());
    for setting in &settings {
        let folder = match settings.len() {
            1 => request.out.clone(),
            _ => request.out.join(setting.name()),
        };
        let case = Case::new(gpu, request, setting, progress)?;
        let given = request.weights.as_ref().map(|path| read_parameters(path, &case.network.signature()));
        let given = given.transpose()?;
        // nothing is written before the input has been found to be right
        let records = Records::open(&request.out)?;
        if let (Some(weights), Some(parameters)) = (&request.weights, given) {
            figures.push(case.figures(&parameters, &folder, request.seeds[0], weights_source(weights))?);
            continue;
        }
        let mut of_case = Vec::new();
        for (n, &seed) in request.seeds.iter().enumerate() {
            let draws = n == 0 && request.target != Target::Table1;
            if request.target.has_table1() || draws {
                let (run, drawn) = case.run(&records, seed, draws.then_some(folder.as_path()))?;
                of_case.push(run);
                figures.extend(drawn);
            }
        }
        if request.target.has_table1() {
            cells.push(Cell::of(setting, &of_case.iter().collect::<Vec<_>>()));
            runs.extend(of_case);
        }
    }

    if request.target.has_table1() {
        table1::write_runs(&request.out, &runs)?;
        table1::write_summary(&request.out, &cells)?;
    }
    let how_made = request.how_made(&settings, started.elapsed().as_secs_f64());
    write_json(request.out.join("run.json"), &how_made)?;
    let report = request.out.join("report.html");
    write_text(&report, &page(request.preset, &cells, &runs, &figures, &how_made)?.render()?)?;
    let table = if cells.is_empty() { String::new() } else { table1::table(&cells).to_text() };
    Ok(Summary { cells, table, report })
}

impl Request<'_> {
    /// The settings of every case that is asked for.
    fn settings(&self) -> Result<Vec<Setting>> {
        let mut settings = Vec::new();
        for &model in &self.models {
            for &loss in &self.losses {
                for &classes in &self.classes {
                    settings.push(Setting::find(self.dataset, model, loss, classes, self.preset)?);
                }
            }
        }
        if settings.is_empty() || self.seeds.is_empty() {
            let found = format!("{} cases and {} seeds", settings.len(), self.seeds.len());
            return Err(Error::argument(
                "--model, --loss, --classes, --seeds",
                found,
                "at least one of each",
            ));
        }
        if self.weights.is_some() && (self.target.has_table1() || settings.len() > 1) {
            let found = format!("{:?} of {} cases", self.target, settings.len()).to_lowercase();
            return Err(Error::argument(
                "--weights",
                found,
                "scaling or alignment, one model, loss and --classes",
            ));
        }
        if let (Some(layer), true) = (&self.layer, self.target.has_table1()) {
            let found = format!("“{layer}” for {:?}", self.target).to_lowercase();
            return Err(Error::argument(
                "--layer",
                found,
                "scaling or alignment: Table 1 is of the paper's layer",
            ));
        }
        Ok(settings)
    }

    /// The content of `run.json`.
    fn how_made(&self, settings: &[Setting], seconds: f64) -> Value {
        let mut made = json!({
            "preset": self.preset,
            "dataset": self.dataset,
            "cases": settings.iter().map(|setting| format!(
                "{} ({} images a class, batches of {}, {} epochs, top {})",
                setting.name(), setting.per_class, setting.batch_size, setting.epochs, setting.top,
            )).collect::<Vec<_>>(),
            "seeds": self.seeds,
            "learning_rate": LEARNING_RATE,
            "weights": self.weights,
            "layer": self.layer,
            "crate_version": env!("CARGO_PKG_VERSION"),
            "wall_seconds": (seconds * 10.0).round() / 10.0,
        });
        if let (Value::Object(made), Value::Object(given)) = (&mut made, &self.how_made) {
            made.extend(given.clone());
        }
        made
    }
}

/// One setting with its data and network.
struct Case<'a> {
    gpu: &'a Gpu,
    target: Target,
    preset: Preset,
    setting: &'a Setting,
    progress: &'a dyn Fn(Progress<'_>),
    network: Network,
    /// The weights that are measured.
    layer: String,
    /// The same, where they are not the paper's.
    other: Option<String>,
    data: Dataset,
    digest: String,
}

impl<'a> Case<'a> {
    fn new(
        gpu: &'a Gpu,
        request: &Request<'_>,
        setting: &'a Setting,
        progress: &'a dyn Fn(Progress<'_>),
    ) -> Result<Case<'a>> {
        let (model, layer) = setting.model.network(setting.dataset);
        let network = Network::new(&model)?;
        let other = request.layer.clone().filter(|other| other != layer);
        let layer = other.clone().unwrap_or_else(|| layer.to_string());
        let (d_out, d_in) = layer_shape(&network, &layer)?;
        if d_out * d_in > LARGEST_LAYER {
            let found = format!("“{layer}” of {d_out} × {d_in} weights");
            let expected = format!("a layer of at most {LARGEST_LAYER}, for its matrices to be held in full");
            return Err(Error::argument("--layer", found, expected));
        }
        let data = (request.data)(setting.classes, setting.per_class)?;
        let (target, preset, digest) = (request.target, request.preset, digest(&data));
        Ok(Case { gpu, target, preset, setting, progress, network, layer, other, data, digest })
    }

    /// The results of the run from `seed`, and its figures in `folder` where one is given.
    fn run(&self, records: &Records, seed: u64, folder: Option<&Path>) -> Result<(Run, Option<Figures>)> {
        let name = format!("{}-seed{seed}", self.setting.name());
        let of_paper = Identity::new(self.setting, self.preset, seed, self.digest.clone());
        let identity = Identity { layer: self.other.clone(), ..of_paper.clone() };
        let kept = records.find(self.setting, &identity)?;
        if let (Some(run), None) = (&kept, folder) {
            (self.progress)(Progress::Kept { run: &name });
            return Ok((run.clone(), None));
        }

        let checkpoint = records.path(self.setting, seed, "safetensors");
        // the network is the same whichever layer of it was measured
        let known = match kept.is_none() && self.other.is_some() {
            true => records.find(self.setting, &of_paper)?,
            false => kept.clone(),
        };
        let (parameters, history) =
            match known.and_then(|run| Some((self.trained(&run, &checkpoint)?, run.history))) {
                Some(known) => known,
                None => self.train(&name, seed)?,
            };
        (self.progress)(Progress::Measuring { run: &name });
        let problem = self.problem(&parameters)?;
        let moments = LayerMoments::measure(&problem, &self.layer)?;
        let basis = Eigenbasis::of(moments.hessian.as_ref())?;
        let diagonals = self.diagonals(&basis, &moments)?;
        let run = match kept {
            Some(run) => run,
            None => {
                let report = problem.loss()?;
                let (train_loss, train_accuracy) = (report.loss, report.accuracy);
                let exponents = diagonals.exponents(self.setting.top)?;
                let digest = digest_of([bytemuck::cast_slice(&parameters)]);
                let run =
                    Run { identity, history, train_loss, train_accuracy, exponents, parameters: digest };
                write_parameters(&checkpoint, &self.network.signature(), &parameters, &[])?;
                records.keep(self.setting, &run)?;
                run
            }
        };
        let figures = match folder {
            Some(folder) => {
                (self.progress)(Progress::Drawing { run: &name });
                let source = format!(
                    "Trained from seed {seed}: training loss {:.3e}, accuracy {:.2} %.",
                    run.train_loss,
                    100.0 * run.train_accuracy,
                );
                Some(self.draw(&basis, &moments, &diagonals, folder, seed, source)?)
            }
            None => None,
        };
        Ok((run, figures))
    }

    /// The figures of given parameters.
    fn figures(&self, parameters: &[f32], folder: &Path, seed: u64, source: String) -> Result<Figures> {
        let name = self.setting.name();
        (self.progress)(Progress::Measuring { run: &name });
        let moments = LayerMoments::measure(&self.problem(parameters)?, &self.layer)?;
        let basis = Eigenbasis::of(moments.hessian.as_ref())?;
        let diagonals = self.diagonals(&basis, &moments)?;
        (self.progress)(Progress::Drawing { run: &name });
        self.draw(&basis, &moments, &diagonals, folder, seed, source)
    }

    /// The parameters `[P]` that `run` ended with, where `checkpoint` holds them.
    fn trained(&self, run: &Run, checkpoint: &Path) -> Option<Vec<f32>> {
        let parameters = read_parameters(checkpoint, &self.network.signature()).ok()?;
        (digest_of([bytemuck::cast_slice(&parameters)]) == run.parameters).then_some(parameters)
    }

    /// Trains from `seed`; the parameters `[P]` at the end, and each epoch's loss and accuracy.
    fn train(&self, name: &str, seed: u64) -> Result<(Vec<f32>, Vec<Epoch>)> {
        let options = TrainOptions {
            loss: self.setting.loss,
            learning_rate: LEARNING_RATE,
            momentum: 0.0,
            weight_decay: 0.0,
            schedule: Schedule::Constant,
            batch_size: self.setting.batch_size,
            epochs: self.setting.epochs,
            sampling: Sampling::Epoch,
            seed,
        };
        let initial = self.network.initial_parameters(seed);
        let mut trainer = Trainer::new(self.gpu, &self.network, initial, &self.data, options)?;
        let mut history = Vec::new();
        for _ in 0..self.setting.epochs {
            let record = trainer.run_epoch()?;
            let epoch = Epoch { epoch: record.epoch, loss: record.loss, accuracy: record.accuracy };
            (self.progress)(Progress::Trained { run: name, epoch, epochs: self.setting.epochs });
            history.push(epoch);
        }
        Ok((trainer.parameters()?, history))
    }

    fn problem(&self, parameters: &[f32]) -> Result<Problem> {
        Problem::new(self.gpu, &self.network, parameters, &self.data, self.setting.loss)
    }

    fn diagonals(&self, basis: &Eigenbasis, moments: &LayerMoments) -> Result<Diagonals> {
        Diagonals::measure(basis, moments.covariance.as_ref(), moments.curvature_second_moment.as_ref())
    }

    fn draw(
        &self,
        basis: &Eigenbasis,
        moments: &LayerMoments,
        diagonals: &Diagonals,
        folder: &Path,
        seed: u64,
        source: String,
    ) -> Result<Figures> {
        let Setting { dataset, model, loss, classes, top, .. } = *self.setting;
        let scaling = match self.target.has_scaling() {
            true => {
                let layer = self.other.as_ref().map_or(String::new(), |layer| format!(", {layer}"));
                let title = format!("{dataset}, {model}, {loss}, {classes} classes{layer}");
                Some(scaling::write(folder, &title, diagonals, top)?)
            }
            false => None,
        };
        let maps = match self.target.has_alignment() {
            true => Some(alignment::write(folder, basis, moments.covariance.as_ref(), top, seed)?),
            false => None,
        };
        let source = format!("{source} H, C and E[h²] are those of {}.", self.layer);
        Ok(Figures { setting: *self.setting, source, scaling, maps })
    }
}

fn weights_source(weights: &Path) -> String {
    format!("Of the weights in {}.", weights.display())
}

/// SHA-256 of shape, inputs and targets.
fn digest(data: &Dataset) -> String {
    let shape = format!("{:?}", data.shape);
    let targets = match &data.targets {
        Targets::Classes(classes) => bytemuck::cast_slice(classes),
        Targets::Values { values, .. } => bytemuck::cast_slice(values),
    };
    digest_of([shape.as_bytes(), bytemuck::cast_slice(&data.inputs), targets])
}

/// SHA-256 of `parts` one after the other, in hexadecimal.
fn digest_of<const N: usize>(parts: [&[u8]; N]) -> String {
    let mut hash = Sha256::new();
    parts.into_iter().for_each(|part| hash.update(part));
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}
