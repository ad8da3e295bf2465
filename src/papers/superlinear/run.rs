//! From a request to files: train or load, measure, write, report.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::page::page;
use super::records::{Leave, MEASURES, Records};
use super::settings::{ImageSet, LEARNING_RATE, Preset, Setting};
use super::study::{Figures, Study};
use super::tables::{self, Cell, Run};
use super::target::{PaperNetwork, Part, Target};
use super::{Progress, synthetic};
use crate::data::{Dataset, read_parameters};
use crate::gpu::Gpu;
use crate::net::{Loss, Network};
use crate::report::{Block, write_text};
use crate::runs::{self, Mode, Outputs, Record, Run as Folder, digest_of_data, digest_of_values};
use crate::stats::logarithmically_spaced;
use crate::{Error, Result};

/// Gives, in [0, 1], the first `per_class` images of each of the first `classes` classes of a set, or as many of each as
/// the caller was asked for.
pub type Images<'a> = dyn Fn(ImageSet, usize, usize) -> Result<Dataset> + 'a;

/// What is measured.
pub enum Subject<'a> {
    /// Networks of the paper, trained here unless there are weights.
    Paper {
        /// The networks, each by images, family and loss.
        networks: Vec<PaperNetwork>,
        /// Where their training images come from.
        data: Box<Images<'a>>,
        /// The numbers of classes, of 3, 6 and 10, that each network is trained on.
        classes: Vec<usize>,
        /// The fully connected layer to measure (`4.weight`); the paper's if not given.
        layer: Option<String>,
    },
    /// Somebody's own checkpoint.
    Own {
        /// The name for files, progress and the report.
        name: String,
        /// The network that the checkpoint is of.
        network: Box<Network>,
        /// The samples to measure it on, with classes as targets.
        data: Dataset,
        /// The loss that H and C are of.
        loss: Loss,
        /// The weights of the fully connected layer to measure: `4.weight`.
        layer: String,
        /// B, the samples of each batch of the duality's pairs.
        batch_size: usize,
        /// 𝒩
        top: usize,
    },
}

/// What is asked for.
pub struct Request<'a> {
    /// The tables, figures and parts to make.
    pub target: Target,
    /// The networks to make them of.
    pub subject: Subject<'a>,
    /// The figures are made of the first.
    pub seeds: Vec<u64>,
    /// The sizes to run with; of somebody's own checkpoint, the pairs of batches alone.
    pub preset: Preset,
    /// A checkpoint to make the figures of, in place of training.
    pub weights: Option<PathBuf>,
    /// The folder that everything is written to; it is made.
    pub out: PathBuf,
    /// The files that are read, each with what names it.
    pub inputs: Vec<(String, PathBuf)>,
    /// What to do where `out` holds files of other runs.
    pub leave: Leave,
}

/// What was made.
#[derive(Clone, Debug)]
pub struct Summary {
    /// The cells of the tables; empty where they were not asked for.
    pub cells: Vec<Cell>,
    /// A line on the sizes of each case, the number of samples among them.
    pub cases: Vec<String>,
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
    let cases = request.cases()?;
    let folder = request.claim(gpu, &cases)?;
    let mut made = Made::default();
    for case in &cases {
        let study = request.study(gpu.ok_or(Error::NoAdapter)?, case, progress)?;
        match request.make(&study, case, &folder, cases.len() > 1, &mut made) {
            // of this network alone: the others are made nevertheless
            Err(error @ (Error::Argument { .. } | Error::NotFinite { .. } | Error::Diverged { .. }))
                if cases.len() > 1 =>
            {
                made.missing.push(format!("{} could not be made: {error}", study.name));
            }
            result => result?,
        }
        // after each case: a later one may take hours
        folder.write(|out| request.report(&made, &folder, out))?;
    }
    if request.target.has(Part::Synthetic) {
        let studies = folder.write(|out| synthetic::write(&out.join("synthetic"), request.seeds[0]))?;
        made.studies = Some(studies.blocks());
    }
    folder.finish(|out| request.report(&made, &folder, out))?;
    let table = if made.cells.is_empty() { String::new() } else { tables::table(&made.cells).to_text() };
    let (cells, cases, missing) = (made.cells, made.sizes, made.missing);
    Ok(Summary { cells, cases, table, report: folder.path(REPORT), missing })
}

/// The page.
const REPORT: &str = "report.html";

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
            return Err(Error::argument("seeds", "none", "at least one"));
        }
        if !self.target.needs_network() {
            return match &self.weights {
                Some(weights) => {
                    let found = format!("{}, for {}", weights.display(), self.target.name);
                    Err(Error::argument("weights", found, "none: no network is measured"))
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
        if let (Subject::Paper { data, .. }, true) = (&self.subject, cases.len() > 1) {
            // where files are missing, it is told before the first network is trained
            let mut most = BTreeMap::new();
            for Setting { dataset, classes, per_class, .. } in cases.iter().filter_map(|case| case.setting) {
                let asked: &mut (usize, usize) = most.entry(dataset).or_default();
                *asked = (asked.0.max(classes), asked.1.max(per_class));
            }
            most.iter()
                .try_for_each(|(&set, &(classes, per_class))| data(set, classes, per_class).map(drop))?;
        }
        Ok(cases)
    }

    /// The name of a case, and of its folder where there are several.
    fn name(&self, case: &Case) -> String {
        match (&self.subject, case.setting) {
            (Subject::Own { name, .. }, _) => name.clone(),
            (_, setting) => setting.map_or(String::new(), |setting| setting.name()),
        }
    }

    /// Takes possession of the folder for this request.
    fn claim(&self, gpu: Option<&Gpu>, cases: &[Case]) -> Result<Folder> {
        let mut names = Vec::new();
        for case in cases.iter().filter(|case| case.draws) {
            let within = if cases.len() > 1 { self.name(case) + "/" } else { String::new() };
            let figures =
                self.target.parts.iter().filter(|part| !matches!(part, Part::Tables | Part::Synthetic));
            names.extend(figures.flat_map(|part| part.files()).map(|file| within.clone() + &file));
        }
        for part in [Part::Tables, Part::Synthetic] {
            names.extend(part.files().into_iter().filter(|_| self.target.has(part)));
        }
        let outputs = Outputs::folder(&self.out, names.into_iter().chain([REPORT.to_string()]));
        let names: Vec<String> = cases.iter().map(|case| self.name(case)).collect();
        let mut determined = json!({
            "target": self.target.name,
            "preset": self.preset,
            "networks": names,
            "seeds": self.seeds,
            "learning_rate": LEARNING_RATE,
            "layer": null,
            "measures": MEASURES,
        });
        match &self.subject {
            Subject::Paper { data, layer, .. } => {
                determined["layer"] = json!(layer);
                for case in cases {
                    let Some(setting) = case.setting else { continue };
                    let read = data(setting.dataset, setting.classes, setting.per_class)?;
                    determined["contents"]["data"][self.name(case)] = json!({
                        "digest": digest_of_data(&read), "samples": read.len(), "batch_size": setting.batch_size,
                    });
                }
            }
            Subject::Own { network, data, loss, layer, batch_size, top, .. } => {
                determined["layer"] = json!(layer);
                determined["options"] =
                    json!({ "model": network.model(), "loss": loss, "batch_size": batch_size, "top": top });
                determined["contents"]["data"] = json!(digest_of_data(data));
            }
        }
        if let Some(weights) = &self.weights {
            let network = match (&self.subject, cases.first().and_then(|case| case.setting)) {
                (Subject::Own { network, .. }, _) => Network::clone(network),
                (_, setting) => {
                    let setting = setting.expect("a case of the paper has a setting");
                    Network::new(&setting.model.network(setting.dataset).0)?
                }
            };
            let parameters = read_parameters(weights, &network.signature())?;
            determined["contents"]["weights"] = json!(digest_of_values(&parameters));
        }
        let told = json!({ "weights": self.weights.as_ref().map(runs::path) });
        let record = Record::new("reproduce superlinear", gpu, determined, told);
        // all is made anew from what is in runs/, whatever made it
        let mode = match self.leave {
            Leave { overwrite: false, resume_anyway: false } => Mode::Begin,
            _ => Mode::Overwrite,
        };
        Folder::claim(outputs.reading(self.inputs.iter().cloned()), record, mode)
    }

    fn check(&self, cases: &[Case]) -> Result<()> {
        let name = &self.target.name;
        if cases.is_empty() {
            return Err(Error::argument(
                "target",
                "no cases",
                "a dataset, a model, a loss and a number of classes",
            ));
        }
        let trains = self.target.has(Part::Tables) || self.target.has(Part::Evolution);
        if self.weights.is_some() && trains {
            let expected = "scaling, alignment, suppression or bounds: what a checkpoint shows";
            return Err(Error::argument("weights", format!("a checkpoint, for {name}"), expected));
        }
        if self.weights.is_some() && (cases.len() > 1 || self.seeds.len() > 1) {
            let found = format!("a checkpoint, for {} cases", cases.len() * self.seeds.len());
            let expected = "one dataset, model, loss, number of classes and seed";
            return Err(Error::argument("weights", found, expected));
        }
        match &self.subject {
            Subject::Paper { layer: Some(layer), .. } if self.target.has(Part::Tables) => {
                let expected = "a figure: the tables are of the paper's layer";
                Err(Error::argument("layer", format!("“{layer}” for {name}"), expected))
            }
            Subject::Own { .. } if self.weights.is_none() => {
                Err(Error::argument("weights", "none", "a checkpoint, for a model of your own"))
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
                // the caller may have been asked for another number
                setting.per_class = data.class_counts().into_values().max().unwrap_or(0);
                if self.weights.is_some() {
                    // how a checkpoint was trained is not known
                    (setting.batch_size, setting.epochs) = (setting.paper_batch_size, setting.paper_epochs);
                }
                Study {
                    gpu,
                    name: setting.name(),
                    network: Network::new(&model)?,
                    layer: layer.clone().unwrap_or_else(|| focus.to_string()),
                    data,
                    loss: setting.loss,
                    batch_size: setting.batch_size,
                    top: setting.top,
                    pairs: setting.pairs,
                    setting: Some(setting),
                    progress,
                    drawn: OnceCell::new(),
                }
                .checked()
            }
            (Subject::Own { name, network, data, loss, layer, batch_size, top }, _) => Study {
                gpu,
                name: name.clone(),
                network: Network::clone(network),
                layer: layer.clone(),
                data: data.clone(),
                loss: *loss,
                batch_size: *batch_size,
                top: *top,
                pairs: self.preset.pairs(),
                setting: None,
                progress,
                drawn: OnceCell::new(),
            }
            .checked(),
            (Subject::Paper { .. }, None) => unreachable!("a case of the paper has a setting"),
        }
    }

    /// Makes one case, with a folder of its own in `folder` where it is one of `several`.
    fn make(
        &self,
        study: &Study<'_>,
        case: &Case,
        folder: &Folder,
        several: bool,
        made: &mut Made,
    ) -> Result<()> {
        study.check(&self.target)?;
        let within = |out: &Path| if several { out.join(&study.name) } else { out.into() };
        let training = study.setting.as_ref().map_or(String::new(), |setting| match self.weights {
            // how long a checkpoint was trained is not known
            Some(_) => format!("{} images a class, ", setting.per_class),
            None => format!("{} images a class, {} epochs, ", setting.per_class, setting.epochs),
        });
        made.sizes.push(format!(
            "{} ({} samples, {training}batches of {}, top {}, {} pairs of batches)",
            study.name,
            study.data.len(),
            study.batch_size,
            study.top,
            study.pairs,
        ));
        if let Some(weights) = &self.weights {
            let parameters = read_parameters(weights, &study.network.signature())?;
            let source = format!("Of the weights in {}", weights.display());
            let figures = |out: &Path| {
                study.figures(&self.target, &parameters, None, source, &within(out), self.seeds[0])
            };
            made.draw(folder.write(figures)?);
            return Ok(());
        }
        let setting = study.setting.as_ref().expect("what has no weights is a case of the paper");
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
            let training = study.training(setting, seed);
            let place = folder.path("runs").join(&run);
            let records = Records::open(&place, study.gpu, &training, &study.layer, self.leave)?;
            let (trained, parameters) = study.train(&records, &training, &keep)?;
            if draws {
                let source = format!("Trained from seed {seed}");
                let from = Some((&records, &trained));
                let figures =
                    |out: &Path| study.figures(&self.target, &parameters, from, source, &within(out), seed);
                made.draw(folder.write(figures)?);
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

    /// Writes the tables and the page into `out`, and says in the record what was made.
    fn report(&self, made: &Made, folder: &Folder, out: &Path) -> Result<()> {
        let Made { runs, cells, figures, missing, studies, sizes } = made;
        if !cells.is_empty() {
            tables::write_runs(out, runs)?;
            tables::write_summary(out, cells)?;
        }
        folder.tell("cases", json!(sizes));
        folder.tell("missing", json!(missing));
        let mut how_made = folder.record();
        how_made.as_object_mut().map(|members| members.remove("files"));
        let page = page(self.networks(), (cells, runs), figures, studies.as_deref(), missing, &how_made)?;
        write_text(out.join(REPORT), &page.render()?)
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
}
