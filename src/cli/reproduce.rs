//! `curvkit reproduce`

use std::cell::RefCell;
use std::fmt::Display;
use std::path::{Path, PathBuf};

use super::Device;
use super::args::{DataPlace, bar, open_network};
use super::stderr::tell;
use crate::data::{Dataset, Selection, Split, cifar10, mnist, synthetic_digits};
use crate::jets::samples::check;
use crate::net::Loss;
use crate::papers::superlinear::Progress;
use crate::papers::superlinear::claims::FIGURE_CLASSES;
use crate::papers::superlinear::records::Leave;
use crate::papers::superlinear::run::{Request, Subject, run};
use crate::papers::superlinear::settings::{Architecture, ImageSet, Preset, QUICK_PER_CLASS};
use crate::papers::superlinear::target::{PaperNetwork, Part, Target};
use crate::{Error, Result};
use clap::{Args, Subcommand};

#[derive(Subcommand)]
pub enum Paper {
    /// The noise covariance against the curvature: C ∝ `E[h²]`, C_ii ∝ H_ii^γ.
    Superlinear(Superlinear),
}

impl Paper {
    pub fn run(&self, device: &Device) -> Result<String> {
        let Paper::Superlinear(superlinear) = self;
        superlinear.run(device)
    }
}

#[derive(Args)]
pub struct Superlinear {
    /// all, table1, table3, figure1 to figure15, scaling, alignment, evolution, suppression, bounds or synthetic; or
    /// several, such as table1,scaling.
    #[arg(value_name = "TARGET,…")]
    target: Target,
    /// The images: mnist, cifar10 (scaled to [-1, 1] for the paper's networks), or synthetic (drawn digits, no files
    /// needed); the figure's, or mnist, if not given.
    #[arg(long, value_delimiter = ',', value_name = "DATASET,…")]
    dataset: Option<Vec<ImageSet>>,
    #[command(flatten)]
    place: DataPlace,
    /// mlp, cnn, or a model file or name of your own, which needs --weights and --layer; the figure's, or mlp, if not
    /// given.
    #[arg(long, value_delimiter = ',', value_name = "MODEL,…")]
    model: Option<Vec<PathBuf>>,
    /// The figure's, or cross-entropy,softmax-mse, if not given.
    #[arg(long, value_delimiter = ',', value_name = "LOSS,…")]
    loss: Option<Vec<Loss>>,
    /// How many classes, such as 3,6,10; the preset's for the tables, 10 for figures, if not given.
    #[arg(long, value_delimiter = ',', value_name = "C,…")]
    classes: Option<Vec<usize>>,
    /// The first M images of each class; the preset's number if not given.
    #[arg(long, value_name = "M")]
    per_class: Option<usize>,
    /// The preset's if not given, one for figures alone; the figures are of the first.
    #[arg(long, value_delimiter = ',', value_name = "SEED,…")]
    seeds: Option<Vec<u64>>,
    /// paper: the paper's own sizes; quick: the same pipeline in minutes on two CPU cores.
    #[arg(long, default_value = "quick")]
    preset: Preset,
    /// Make the figures of this fully connected layer, such as 4.weight, in the place of the paper's.
    #[arg(long, value_name = "NAME")]
    layer: Option<String>,
    /// Make the figures of this checkpoint in the place of training.
    #[arg(long, value_name = "FILE")]
    weights: Option<PathBuf>,
    /// The folder for tables, figures and the report of this call, and for the runs of all: what they hold already is
    /// not made again.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Go on from the folder's runs of training even where other data, an other adapter, driver or version determined
    /// them, and replace what was made of them.
    #[arg(long)]
    resume_anyway: bool,
    /// Replace tables, figures and report of another call, and what runs of training were determined by something else.
    #[arg(long)]
    overwrite: bool,
    #[command(flatten)]
    own: Own,
}

/// What a model of one's own is measured with.
#[derive(Args)]
#[command(next_help_heading = "For a model of your own")]
struct Own {
    /// A safetensors file with `inputs` [N, …] and `targets` [N], in the place of --dataset.
    #[arg(long, value_name = "FILE", conflicts_with = "dataset")]
    data: Option<PathBuf>,
    /// The first N samples.
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Samples of a batch; 50 if not given.
    #[arg(long, value_name = "B")]
    batch_size: Option<usize>,
    /// The leading directions that γ is fitted over; 1000 if not given.
    #[arg(long, value_name = "N")]
    top: Option<usize>,
}

impl Superlinear {
    /// Those samples of the data set that `wanted` takes, of `per_class` a class where they are drawn.
    fn samples(&self, dataset: ImageSet, per_class: usize, wanted: &Selection) -> Result<Dataset> {
        match dataset {
            ImageSet::Synthetic => synthetic_digits(per_class, 0)?.selected(wanted),
            ImageSet::Mnist => mnist(&self.place.data_dir, Split::Train)?.selected(wanted),
            ImageSet::Cifar10 => cifar10(&self.place.data_dir, Split::Train, wanted),
        }
    }

    /// The first images of each of the first `classes` classes: `per_class`, unless --per-class asks for others.
    fn images(&self, dataset: ImageSet, classes: usize, per_class: usize) -> Result<Dataset> {
        let per_class = self.per_class.unwrap_or(per_class);
        let classes = Some((0..classes as u32).collect());
        self.samples(dataset, per_class, &Selection { classes, per_class: Some(per_class), limit: None })
    }

    fn target(&self) -> Target {
        match self.weights.is_some() || self.layer.is_some() {
            true => self.target.clone().of_layer(self.weights.is_none()),
            false => self.target.clone(),
        }
    }

    /// The networks that the target is of, or every combination of what is given, one for each option that is not.
    fn networks(&self) -> Result<Vec<PaperNetwork>> {
        let networks = &self.target.networks;
        if self.dataset.is_none() && self.model.is_none() && self.loss.is_none() && !networks.is_empty() {
            return Ok(networks.clone());
        }
        let first = networks.first();
        let models = match &self.model {
            Some(names) => names.iter().filter_map(|name| papers(name)).collect(),
            None => vec![first.map_or(Architecture::Mlp, |first| first.1)],
        };
        let losses = match (&self.loss, first) {
            (Some(losses), _) => losses.clone(),
            (None, Some(first)) => vec![first.2],
            (None, None) => vec![Loss::CrossEntropy, Loss::SoftmaxMse],
        };
        let mut all = Vec::new();
        for &dataset in &self.datasets() {
            for &model in &models {
                all.extend(losses.iter().map(|&loss| (dataset, model, loss)));
            }
        }
        Ok(all)
    }

    fn datasets(&self) -> Vec<ImageSet> {
        let first = self.target.networks.first();
        self.dataset.clone().unwrap_or_else(|| vec![first.map_or(ImageSet::Mnist, |first| first.0)])
    }

    /// A checkpoint of one's own, where that is what the model names.
    fn own(&self) -> Result<Option<Subject<'_>>> {
        let names = self.model.as_deref().unwrap_or_default();
        let file = match names {
            [name] if papers(name).is_none() => name,
            _ => {
                if let Some(name) = names.iter().find(|name| papers(name).is_none()) {
                    let found = format!("“{}” beside others", name.display());
                    return Err(Error::argument("--model", found, "it alone"));
                }
                let Own { data, limit, batch_size, top } = &self.own;
                let number = |number: &Option<usize>| number.map(|number| number.to_string());
                let path = data.as_ref().map(|path| path.display().to_string());
                let given = [
                    ("--data", path),
                    ("--limit", number(limit)),
                    ("--batch-size", number(batch_size)),
                    ("--top", number(top)),
                ];
                return match given.into_iter().find_map(|(option, found)| Some((option, found?))) {
                    Some((option, found)) => {
                        Err(Error::argument(option, found, "a model of your own: --model FILE"))
                    }
                    None => Ok(None),
                };
            }
        };
        let name = file.display();
        if let Some(classes) = &self.classes {
            let found = format!("{classes:?}, for “{name}”");
            return Err(Error::argument("--classes", found, "none: all classes of the data are measured"));
        }
        let network = open_network(file)?;
        let missing =
            |option: &str, what: &str| Error::argument(option, "none", format!("{what}, for “{name}”"));
        let layer = self.layer.clone().ok_or_else(|| missing("--layer", "a fully connected layer"))?;
        let loss = match self.loss.as_deref() {
            Some([loss]) => *loss,
            _ => return Err(missing("--loss", "one loss")),
        };
        let wanted = Selection { per_class: self.per_class, limit: self.own.limit, classes: None };
        let (data, source) = match (&self.own.data, self.datasets().as_slice()) {
            (Some(path), _) => (Dataset::read(path)?.selected(&wanted)?, path.display().to_string()),
            (None, &[dataset]) => {
                let drawn = self.per_class.unwrap_or(QUICK_PER_CLASS);
                (self.samples(dataset, drawn, &wanted)?, dataset.to_string())
            }
            _ => return Err(Error::argument("--dataset", "several", format!("one, for “{name}”"))),
        };
        check(&network, &data, loss).map_err(|error| Error::file(source, error.to_string()))?;
        let stem = file.file_stem().unwrap_or(file.as_os_str()).to_string_lossy().into_owned();
        let (batch_size, top) = (self.own.batch_size.unwrap_or(50), self.own.top.unwrap_or(1000));
        let network = Box::new(network);
        Ok(Some(Subject::Own { name: stem, network, data, loss, layer, batch_size, top }))
    }

    fn subject(&self) -> Result<Subject<'_>> {
        if let Some(own) = self.own()? {
            return Ok(own);
        }
        let classes = match self.target().has(Part::Tables) {
            true => self.preset.classes().to_vec(),
            false => vec![FIGURE_CLASSES],
        };
        Ok(Subject::Paper {
            networks: self.networks()?,
            data: Box::new(|dataset, classes, per_class| self.images(dataset, classes, per_class)),
            classes: self.classes.clone().unwrap_or(classes),
            layer: self.layer.clone(),
        })
    }

    /// The files that are read, each with the option that names it.
    fn inputs(&self) -> Vec<(String, PathBuf)> {
        let models = self.model.iter().flatten().filter(|name| papers(name).is_none());
        let mut inputs: Vec<(String, PathBuf)> =
            models.map(|path| ("--model".into(), path.clone())).collect();
        inputs.extend(self.weights.iter().map(|path| ("--weights".into(), path.clone())));
        inputs.extend(self.own.data.iter().map(|path| ("--data".into(), path.clone())));
        inputs.extend(self.datasets().iter().flat_map(|dataset| self.place.inputs(&dataset.to_string())));
        inputs
    }

    fn run(&self, device: &Device) -> Result<String> {
        each_once("--seeds", &self.seeds)?;
        each_once("--classes", &self.classes)?;
        each_once("--dataset", &self.dataset)?;
        let models = self
            .model
            .as_ref()
            .map(|names| names.iter().map(|name| name.display()).map(|name| name.to_string()).collect());
        each_once::<String>("--model", &models)?;
        each_once("--loss", &self.loss)?;
        let target = self.target();
        let mut seeds = self.preset.seeds().to_vec();
        if !target.has(Part::Tables) {
            seeds.truncate(1);
        }
        let request = Request {
            target,
            subject: self.subject()?,
            seeds: self.seeds.clone().unwrap_or(seeds),
            preset: self.preset,
            weights: self.weights.clone(),
            out: self.out.clone(),
            inputs: self.inputs(),
            leave: Leave { resume_anyway: self.resume_anyway, overwrite: self.overwrite },
        };
        let gpu = self.target.needs_network().then(|| device.open()).transpose()?;
        let bar = bar(device.quiet, 0, "{msg} {bar:24} {pos}/{len}, {eta} left");
        let terminal = !bar.is_hidden();
        let said = RefCell::new(String::new());
        // elsewhere than on a terminal, a line as each stage of a run begins
        let say = |stage: String| {
            if terminal {
                bar.set_message(stage);
            } else if !device.quiet && *said.borrow() != stage {
                tell(&stage);
                said.replace(stage);
            }
        };
        let summary = run(gpu.as_ref(), &request, &|progress| match progress {
            Progress::Kept { run } => say(format!("{run}: kept")),
            Progress::Trained { run, epoch, epochs } => {
                bar.set_length(epochs);
                bar.set_position(epoch.epoch);
                say(format!("{run}: training"));
            }
            Progress::Measuring { run } => say(format!("{run}: measuring")),
            Progress::Snapshot { run, at, of } => say(format!("{run}: measuring checkpoint {at} of {of}")),
            Progress::Drawing { run } => say(format!("{run}: drawing")),
        })?;
        bar.finish_and_clear();
        let table = Some(summary.table.trim_end()).filter(|table| !table.is_empty());
        let lines = summary.cases.iter().map(String::as_str).chain(table).map(String::from);
        let report = format!("report: {}", summary.report.display());
        let text = match device.quiet {
            true => String::new(),
            false => lines.chain([report]).collect::<Vec<_>>().join("\n"),
        };
        if summary.missing.is_empty() {
            return Ok(text);
        }
        super::print(&text)?;
        Err(Error::Incomplete(summary.missing))
    }
}

/// The paper's family of networks of that name, if it is one.
fn papers(name: &Path) -> Option<Architecture> {
    name.to_str()?.parse().ok()
}

/// Refuses a list that names something twice.
fn each_once<T: PartialEq + Display>(option: &str, list: &Option<Vec<T>>) -> Result<()> {
    let list = list.as_deref().unwrap_or_default();
    match list.iter().enumerate().find(|(at, item)| list[..*at].contains(item)) {
        Some((_, item)) => Err(Error::argument(option, format!("{item} twice"), "each once")),
        None => Ok(()),
    }
}
