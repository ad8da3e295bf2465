//! From a request to files: train or load, measure, write, report.

use std::path::{Path, PathBuf};
use std::time::Instant;

use serde_json::{Value, json};

use super::page::page;
use super::records::Records;
use super::settings::{ImageSet, LEARNING_RATE, Preset, Setting};
use super::study::{Figures, Study};
use super::tables::{self, Cell, Run};
use super::target::{PaperNetwork, Part, Target};
use super::{Progress, synthetic};
use crate::data::{Dataset, prepare_folder, read_parameters};
use crate::gpu::Gpu;
use crate::net::{Loss, Network};
use crate::report::{Block, write_json, write_text};
use crate::stats::logarithmically_spaced;
use crate::{Error, Result};

/// Gives, in [0, 1], the first `per_class` images of each of the first `classes` classes of a set, or as many as there are.
pub type Images<'a> = dyn Fn(ImageSet, usize, usize) -> Result<Dataset> + 'a;

/// What is measured.
pub enum Subject<'a> {
    /// Networks of the paper, trained here unless there are weights.
    Paper {
        networks: Vec<PaperNetwork>,
        data: Box<Images<'a>>,
        classes: Vec<usize>,
        /// The fully connected layer to measure (`4.weight`); the paper's if not given.
        layer: Option<String>,
    },
    /// Somebody's own checkpoint.
    Own {
        name: String,
        network: Box<Network>,
        data: Dataset,
        loss: Loss,
        layer: String,
        batch_size: usize,
        /// 𝒩
        top: usize,
    },
}

/// What is asked for.
pub struct Request<'a> {
    pub target: Target,
    pub subject: Subject<'a>,
    /// The figures are made of the first.
    pub seeds: Vec<u64>,
    pub preset: Preset,
    /// A checkpoint to make the figures of, in place of training.
    pub weights: Option<PathBuf>,
    /// The folder that everything is written to; it is made.
    pub out: PathBuf,
    /// What `run.json` and the report say besides what is known here: adapter, driver, command, data.
    pub how_made: Value,
}

/// What was made.
#[derive(Clone, Debug)]
pub struct Summary {
    /// The cells of the tables; empty where they were not asked for.
    pub cells: Vec<Cell>,
    /// The printed table; empty where there are no cells.
    pub table: String,
    /// The HTML page.
    pub report: PathBuf,
    /// What was asked for and could not be made, and why; it stands in the report and in `run.json` too.
    pub missing: Vec<String>,
}

/// Makes what `request` asks for.
///
/// What is on record in `out/runs` under the same identity is not made again, and training goes on where it stopped.
/// The figures of a single case are written to `out` itself, those of several each to a folder of their own.
/// A target that needs no network needs no `gpu` either.
///
/// Where one network of several cannot be trained or measured, or a figure or an exponent is undefined, all else is made,
/// and the summary says what is missing.
///
/// # Errors
/// Where the only network cannot be trained or measured, its error. [`Error::NoAdapter`] without a `gpu` that is needed,
/// [`Error::Argument`] where the request asks for what the paper does not have, or for `weights` together
/// with more than the figures of one case; [`Error::Io`] where a file cannot be written; whatever training
/// and measuring report.
pub fn run(gpu: Option<&Gpu>, request: &Request<'_>, progress: &dyn Fn(Progress<'_>)) -> Result<Summary> {
    let started = Instant::now();
    let cases = request.cases()?;
    let mut made = Made::default();
    for case in &cases {
        let study = request.study(gpu.ok_or(Error::NoAdapter)?, case, progress)?;
        let folder = match cases.len() {
            1 => request.out.clone(),
            _ => request.out.join(&study.name),
        };
        match request.make(&study, case, &folder, &mut made) {
            // of this network alone: the others are made nevertheless
            Err(error @ (Error::Argument { .. } | Error::NotFinite { .. } | Error::Diverged { .. }))
                if cases.len() > 1 =>
            {
                made.missing.push(format!("{} could not be made: {error}", study.name));
            }
            result => result?,
        }
        // after each case: a later one may take hours
        request.report(&made, started)?;
    }
    prepare_folder(&request.out)?;
    if request.target.has(Part::Synthetic) {
        let studies = synthetic::write(&request.out.join("synthetic"), request.seeds[0])?;
        made.studies = Some(studies.blocks());
    }
    let report = request.report(&made, started)?;
    let table = if made.cells.is_empty() { String::new() } else { tables::table(&made.cells).to_text() };
    Ok(Summary { cells: made.cells, table, report, missing: made.missing })
}

/// What has been made so far.
#[derive(Default)]
struct Made {
    runs: Vec<Run>,
    cells: Vec<Cell>,
    figures: Vec<Figures>,
    /// A line on the sizes of each case.
    sizes: Vec<String>,
    /// What could not be made, and why.
    missing: Vec<String>,
    /// The synthetic ones.
    studies: Option<Vec<Block>>,
}

impl Made {
    /// Adds the figures of a network.
    fn draw(&mut self, figures: Figures) {
        self.missing.extend(figures.missing.iter().cloned());
        self.figures.push(figures);
    }
}

/// A network of the paper, or somebody's own, and whether its figures are asked for.
struct Case {
    setting: Option<Setting>,
    draws: bool,
}

impl Request<'_> {
    /// Every case that is asked for; none where no network is needed.
    fn cases(&self) -> Result<Vec<Case>> {
        if self.seeds.is_empty() {
            return Err(Error::argument("--seeds", "none", "at least one"));
        }
        if !self.target.needs_network() {
            return match &self.weights {
                Some(weights) => {
                    let found = format!("{}, for {}", weights.display(), self.target.name);
                    Err(Error::argument("--weights", found, "none: no network is measured"))
                }
                None => Ok(vec![]),
            };
        }
        let cases = match &self.subject {
            Subject::Own { .. } => vec![Case { setting: None, draws: true }],
            Subject::Paper { networks, classes, .. } => {
                let most = classes.iter().max().copied();
                let mut cases = Vec::new();
                for &(dataset, model, loss) in networks {
                    for &count in classes {
                        let setting = Setting::find(dataset, model, loss, count, self.preset)?;
                        // beside the tables, figures are those of the most classes, as the paper's are
                        let draws = !self.target.has(Part::Tables) || Some(count) == most;
                        let draws = draws && self.target.has_figures();
                        cases.push(Case { setting: Some(setting), draws });
                    }
                }
                cases
            }
        };
        self.check(&cases)?;
        if let Subject::Paper { networks, data, .. } = &self.subject {
            // where files are missing, it is told before the first network is trained
            let mut sets: Vec<ImageSet> = networks.iter().map(|&(dataset, ..)| dataset).collect();
            sets.dedup();
            sets[1..].iter().try_for_each(|&dataset| data(dataset, 1, 1).map(drop))?;
        }
        Ok(cases)
    }

    fn check(&self, cases: &[Case]) -> Result<()> {
        let name = &self.target.name;
        if cases.is_empty() {
            let options = "--dataset, --model, --loss, --classes";
            return Err(Error::argument(options, "no cases", "at least one of each"));
        }
        let trains = self.target.has(Part::Tables) || self.target.has(Part::Evolution);
        if self.weights.is_some() && trains {
            let expected = "scaling, alignment, suppression or bounds: what a checkpoint shows";
            return Err(Error::argument("--weights", format!("a checkpoint, for {name}"), expected));
        }
        if self.weights.is_some() && (cases.len() > 1 || self.seeds.len() > 1) {
            let found = format!("a checkpoint, for {} cases", cases.len() * self.seeds.len());
            let expected = "one of --dataset, --model, --loss, --classes and --seeds each";
            return Err(Error::argument("--weights", found, expected));
        }
        match &self.subject {
            Subject::Paper { layer: Some(layer), .. } if self.target.has(Part::Tables) => {
                let expected = "a figure: the tables are of the paper's layer";
                Err(Error::argument("--layer", format!("“{layer}” for {name}"), expected))
            }
            Subject::Own { .. } if self.weights.is_none() => {
                Err(Error::argument("--weights", "none", "a checkpoint, for a model of your own"))
            }
            _ => Ok(()),
        }
    }

    fn study<'a>(
        &'a self,
        gpu: &'a Gpu,
        case: &Case,
        progress: &'a dyn Fn(Progress<'_>),
    ) -> Result<Study<'a>> {
        match (&self.subject, case.setting) {
            (Subject::Paper { data, layer, .. }, Some(mut setting)) => {
                let (model, focus) = setting.model.network(setting.dataset);
                let mut data = data(setting.dataset, setting.classes, setting.per_class)?;
                setting.dataset.scale(&mut data);
                // there may be fewer than are asked for
                setting.per_class = data.class_counts().into_values().max().unwrap_or(0);
                if self.weights.is_some() {
                    // how a checkpoint was trained is not known
                    (setting.batch_size, setting.epochs) = (setting.paper_batch_size, setting.paper_epochs);
                }
                let sizes = (setting.batch_size, setting.top, setting.pairs);
                let layer = layer.clone().unwrap_or_else(|| focus.to_string());
                let (name, network, loss) = (setting.name(), Network::new(&model)?, setting.loss);
                Study::new(gpu, name, network, layer, data, loss, sizes, Some(setting), progress)
            }
            (Subject::Own { name, network, data, loss, layer, batch_size, top }, _) => {
                let sizes = (*batch_size, *top, self.preset.pairs());
                let (name, network, data) = (name.clone(), Network::clone(network), data.clone());
                Study::new(gpu, name, network, layer.clone(), data, *loss, sizes, None, progress)
            }
            (Subject::Paper { .. }, None) => unreachable!("a case of the paper has a setting"),
        }
    }

    /// Makes one case.
    fn make(&self, study: &Study<'_>, case: &Case, folder: &Path, made: &mut Made) -> Result<()> {
        let training = study.setting.as_ref().map_or(String::new(), |setting| {
            format!("{} images a class, {} epochs, ", setting.per_class, setting.epochs)
        });
        made.sizes.push(format!(
            "{} ({training}batches of {}, top {}, {} pairs of batches)",
            study.name, study.batch_size, study.top, study.pairs,
        ));
        if let Some(weights) = &self.weights {
            let parameters = read_parameters(weights, &study.network.signature())?;
            let source = format!("Of the weights in {}", weights.display());
            prepare_folder(&self.out)?;
            let figures = study.figures(&self.target, &parameters, None, source, folder, self.seeds[0])?;
            made.draw(figures);
            return Ok(());
        }
        let setting = study.setting.as_ref().expect("what has no weights is a case of the paper");
        prepare_folder(&self.out)?;
        let mut runs = Vec::new();
        for (n, &seed) in self.seeds.iter().enumerate() {
            let draws = case.draws && n == 0;
            if !self.target.has(Part::Tables) && !draws {
                continue;
            }
            // of the first seed, which figures are made of, now or later
            let keep = match n {
                0 => logarithmically_spaced(setting.epochs, self.preset.snapshots()),
                _ => vec![setting.epochs],
            };
            let run = format!("{}-{}-seed{seed}", study.name, self.preset);
            let records = Records::open(&self.out, &run)?;
            let training = study.training(setting, seed);
            let (trained, parameters) = study.train(&records, &training, &keep)?;
            if draws {
                let source = format!("Trained from seed {seed}");
                let from = Some((&records, &trained));
                made.draw(study.figures(&self.target, &parameters, from, source, folder, seed)?);
            }
            if self.target.has(Part::Tables) {
                let end = study.end(&records, &run, &parameters)?;
                runs.push(Run { training, history: trained.history, end });
            }
        }
        if self.target.has(Part::Tables) {
            let cell = Cell::of(setting, &runs.iter().collect::<Vec<_>>())?;
            for (symbol, exponent) in cell.exponents() {
                let missing = exponent.undefined.as_ref();
                let missing =
                    missing.map(|reason| format!("{symbol} of {} is undefined: {reason}", study.name));
                made.missing.extend(missing);
            }
            made.cells.push(cell);
            made.runs.extend(runs);
        }
        Ok(())
    }

    /// Writes the tables, `run.json` and the page, whose path it gives.
    fn report(&self, made: &Made, started: Instant) -> Result<PathBuf> {
        let Made { runs, cells, figures, missing, studies, .. } = made;
        if !cells.is_empty() {
            tables::write_runs(&self.out, runs)?;
            tables::write_summary(&self.out, cells)?;
        }
        let how_made = self.how_made(made, started.elapsed().as_secs_f64());
        write_json(self.out.join("run.json"), &how_made)?;
        let page = page(self.networks(), (cells, runs), figures, studies.as_deref(), missing, &how_made)?;
        let report = self.out.join("report.html");
        write_text(&report, &page.render()?)?;
        Ok(report)
    }

    /// What the networks are, for the top of the page; nothing where there are none.
    fn networks(&self) -> Option<&'static str> {
        match (&self.subject, self.preset, &self.weights) {
            _ if !self.target.needs_network() => None,
            (_, _, Some(_)) => Some("The network is the one whose weights were given."),
            (_, Preset::Paper, None) => Some("Sizes are the paper’s own, as far as there is data."),
            (_, Preset::Quick, None) => Some(
                "Sizes are those of the quick preset: fewer images than the paper’s, hence other minima; the published values stand beside them for orientation.",
            ),
        }
    }

    /// The content of `run.json`.
    fn how_made(&self, made: &Made, seconds: f64) -> Value {
        let layer = match &self.subject {
            Subject::Paper { layer, .. } => layer.as_ref(),
            Subject::Own { layer, .. } => Some(layer),
        };
        let mut how = json!({
            "target": self.target.name,
            "preset": self.preset,
            "cases": made.sizes,
            "seeds": self.seeds,
            "learning_rate": LEARNING_RATE,
            "weights": self.weights,
            "layer": layer,
            "missing": made.missing,
            "crate_version": env!("CARGO_PKG_VERSION"),
            "wall_seconds": (seconds * 10.0).round() / 10.0,
        });
        if let (Value::Object(how), Value::Object(given)) = (&mut how, &self.how_made) {
            how.extend(given.clone());
        }
        how
    }
}
