//! Arguments that several commands share.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};

use crate::data::fetch::{Progress, Source};
use crate::data::{
    Dataset, Selection, Split, Standardization, Vocabulary, cifar10, mnist, read_parameters, same_axes, sst2,
    synthetic_digits,
};
use crate::jets::samples::check;
use crate::net::{Loss, Model, Network, Subspace};
use crate::runs::{self, Mode, Outputs, digest_of_data, digest_of_values};
use crate::spectral;
use crate::{Error, Result};

/// `512MiB`, `4GiB`, `1.5GB` or a number of bytes.
pub fn size(text: &str) -> Result<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "" | "B" => 1.0,
        "KB" => 1e3,
        "MB" => 1e6,
        "GB" => 1e9,
        "KiB" => 1024.0,
        "MiB" => 1024.0 * 1024.0,
        "GiB" => 1024.0 * 1024.0 * 1024.0,
        _ => f64::NAN,
    };
    match digits.trim().parse::<f64>() {
        Ok(number) if number * unit >= 1.0 && number.is_finite() => Ok((number * unit) as u64),
        _ => {
            let expected = "a number and B, KB, MB, GB, KiB, MiB or GiB, such as 512MiB";
            Err(Error::argument("--memory-budget", format!("“{text}”"), expected))
        }
    }
}

/// A data set that the program knows by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Named {
    Mnist,
    Cifar10,
    /// Sentences as token ids and mask.
    Sst2,
    /// The built-in drawn digits: no files needed.
    Synthetic,
}

/// Which samples to use.
#[derive(Args, Clone, Debug)]
pub struct DataArgs {
    /// A safetensors file with `inputs` [N, …] and `targets` [N] or [N, L].
    #[arg(long, value_name = "FILE", required_unless_present = "dataset", conflicts_with = "dataset")]
    pub data: Option<PathBuf>,
    /// A data set by its name.
    #[arg(long, value_enum)]
    pub dataset: Option<Named>,
    #[command(flatten)]
    pub place: DataPlace,
    /// The classes to use, such as 0,1,2; all if not given.
    #[arg(long, value_delimiter = ',', value_name = "CLASS,…")]
    pub classes: Option<Vec<u32>>,
    /// The first M samples of each class, in file order.
    #[arg(long, value_name = "M")]
    pub per_class: Option<usize>,
    /// The first N samples.
    #[arg(long, value_name = "N")]
    pub limit: Option<usize>,
    /// The test samples in the place of the training samples.
    #[arg(long)]
    pub test: bool,
    /// Tokens of a sample of sst2; longer sentences are cut.
    #[arg(long, default_value_t = 64, value_name = "T")]
    pub max_length: usize,
    /// Shift and scale each channel to mean 0 and variance 1.
    #[arg(long)]
    pub standardize: bool,
    /// Take the vocabulary and the means and variances from the first N training samples (of --classes), in
    /// the place of the samples that are used; --test needs it where either is taken.
    #[arg(long, value_name = "N")]
    pub fit_on: Option<usize>,
}

/// Where data sets lie.
#[derive(Args, Clone, Debug)]
pub struct DataPlace {
    /// The folder that holds the data sets.
    #[arg(long, env = "CURVKIT_DATA", default_value = "data", value_name = "DIR")]
    pub data_dir: PathBuf,
}

impl DataPlace {
    /// The files of the data set `name`, with the option that names their folder.
    pub fn inputs(&self, name: &str) -> Vec<(String, PathBuf)> {
        let files = Source::named(name).map_or(vec![], |source| source.files(&self.data_dir));
        files.into_iter().map(|file| ("--data-dir".into(), file)).collect()
    }
}

impl DataArgs {
    /// The samples, which `network` and `loss` can take.
    pub fn read(&self, network: &Network, loss: Loss) -> Result<Dataset> {
        self.check(network)?;
        let split = if self.test { Split::Test } else { Split::Train };
        let used = Selection { classes: self.classes.clone(), per_class: self.per_class, limit: self.limit };
        let mut data = match self.dataset {
            Some(Named::Sst2) => self.sentences(split, &used)?,
            _ => self.images(split, &used)?,
        };
        check(network, &data, loss).map_err(|error| match (&self.data, self.dataset) {
            (Some(path), _) => Error::file(path, error.to_string()),
            (None, name) => Error::file(named(name).unwrap_or_default(), error.to_string()),
        })?;
        if self.standardize {
            // channels are those of the model, where it has an image's axes
            let model = network.sample_shape();
            let shaped = |data: Dataset| match model {
                [_, _, _] if same_axes(&data.shape, model) => data.in_shape(model),
                _ => data,
            };
            data = shaped(data);
            let standardization = match self.fitted()? {
                None => Standardization::of(&data)?,
                Some(fitted) => {
                    let fitted = self.images(Split::Train, &fitted).map_err(of_fit)?;
                    Standardization::of(&shaped(fitted))?
                }
            };
            standardization.apply(&mut data)?;
        }
        Ok(data)
    }

    /// Whether what is said has a meaning for these samples.
    fn check(&self, network: &Network) -> Result<()> {
        const LONGEST: usize = 1 << 16;
        if self.test && self.data.is_some() {
            return Err(Error::argument(
                "--test",
                "it with --data",
                "a data set by name, which has test samples",
            ));
        }
        if self.fit_on.is_some() && !self.standardize && !matches!(self.dataset, Some(Named::Sst2)) {
            let expected = "--standardize, or sst2, whose vocabulary is taken from samples";
            return Err(Error::argument("--fit-on", "it alone", expected));
        }
        if self.fit_on == Some(0) {
            return Err(Error::argument("--fit-on", 0, "at least 1"));
        }
        if !(1..=LONGEST).contains(&self.max_length) {
            return Err(Error::argument("--max-length", self.max_length, format!("1 to {LONGEST}")));
        }
        if let (Some(Named::Sst2), Some(_), &[_, tokens]) =
            (self.dataset, network.token_ids(), network.sample_shape())
            && tokens != self.max_length
        {
            let expected = format!("{tokens}, the tokens of a sample that the model takes");
            return Err(Error::argument("--max-length", self.max_length, expected));
        }
        Ok(())
    }

    fn sentences(&self, split: Split, used: &Selection) -> Result<Dataset> {
        if self.standardize {
            return Err(Error::argument("--standardize", "sst2", "a data set of images"));
        }
        let dir = &self.place.data_dir;
        let rows = sst2(dir, split, used)?;
        let vocabulary = match self.fitted()? {
            None => Vocabulary::of(&rows.sentences),
            Some(fitted) => Vocabulary::of(&sst2(dir, Split::Train, &fitted).map_err(of_fit)?.sentences),
        };
        rows.encode(&vocabulary, self.max_length)
    }

    /// Samples of the file or of one half of a data set of images.
    fn images(&self, split: Split, wanted: &Selection) -> Result<Dataset> {
        let dir = &self.place.data_dir;
        match (&self.data, self.dataset) {
            (Some(path), _) => Dataset::read(path)?.selected(wanted),
            (None, Some(Named::Synthetic)) => {
                synthetic_digits(2000, (split == Split::Test) as u64)?.selected(wanted)
            }
            (None, Some(Named::Cifar10)) => cifar10(dir, split, wanted),
            (None, _) => mnist(dir, split)?.selected(wanted),
        }
    }

    /// The training samples that vocabulary, means and variances are taken from, if not from those used.
    fn fitted(&self) -> Result<Option<Selection>> {
        match (self.fit_on, self.test) {
            (Some(_), _) => {
                Ok(Some(Selection { classes: self.classes.clone(), per_class: None, limit: self.fit_on }))
            }
            (None, true) => Err(Error::argument(
                "--fit-on",
                "none with --test",
                "the number of training samples to fit to",
            )),
            (None, false) => Ok(None),
        }
    }

    /// The files that are read, each with the option that names it.
    pub fn inputs(&self) -> Vec<(String, PathBuf)> {
        match (&self.data, named(self.dataset)) {
            (Some(path), _) => vec![("--data".into(), path.clone())],
            (None, Some(name)) => self.place.inputs(&name),
            (None, None) => vec![],
        }
    }

    /// What it was, for `run.json`.
    pub fn describe(&self) -> serde_json::Value {
        serde_json::json!({
            "data": self.data.as_ref().map(runs::path), "dataset": named(self.dataset),
            "test": self.test, "classes": self.classes, "per_class": self.per_class, "limit": self.limit,
            "max_length": self.max_length, "standardize": self.standardize, "fit_on": self.fit_on,
        })
    }
}

/// The limit of the samples that something is fitted to is another option than that of those used.
fn of_fit(error: Error) -> Error {
    match error {
        Error::Argument { option, found, expected } if option == "limit" => {
            Error::Argument { option: "--fit-on".into(), found, expected }
        }
        error => error,
    }
}

/// A data set's name on the command line.
fn named(dataset: Option<Named>) -> Option<String> {
    dataset.and_then(|dataset| Some(dataset.to_possible_value()?.get_name().to_string()))
}

/// A network and what it is compared by.
#[derive(Args, Clone, Debug)]
pub struct ModelArgs {
    /// A model file, or a name that `curvkit models` lists.
    #[arg(long, value_name = "TOML|NAME")]
    pub model: PathBuf,
    /// The loss: cross-entropy, mse, softmax-mse or squared-error.
    #[arg(long)]
    pub loss: Loss,
}

impl ModelArgs {
    pub fn network(&self) -> Result<Network> {
        open_network(&self.model)
    }

    /// The file that is read, with the option that names it.
    pub fn input(&self) -> (String, PathBuf) {
        ("--model".into(), self.model.clone())
    }
}

/// A network at given parameters, and the samples that it is looked at with.
#[derive(Args, Clone, Debug)]
pub struct CheckpointArgs {
    #[command(flatten)]
    pub model: ModelArgs,
    /// The parameters, a safetensors file with the names of PyTorch's `state_dict`.
    #[arg(long, value_name = "FILE")]
    pub weights: PathBuf,
    #[command(flatten)]
    pub data: DataArgs,
}

impl CheckpointArgs {
    /// The network and its parameters, `[P]`.
    pub fn network(&self) -> Result<(Network, Vec<f32>)> {
        let network = self.model.network()?;
        let parameters = read_parameters(&self.weights, &network.signature())?;
        Ok((network, parameters))
    }

    /// The samples.
    pub fn data(&self, network: &Network) -> Result<Dataset> {
        self.data.read(network, self.model.loss)
    }

    /// The files that are read, each with the option that names it.
    pub fn inputs(&self) -> Vec<(String, PathBuf)> {
        let checkpoint = [self.model.input(), ("--weights".into(), self.weights.clone())];
        checkpoint.into_iter().chain(self.data.inputs()).collect()
    }

    /// What results depend on, for `run.json`, with what else `options` say.
    pub fn determined(
        &self,
        network: &Network,
        parameters: &[f32],
        data: &Dataset,
        mut options: serde_json::Value,
    ) -> serde_json::Value {
        options["model"] = serde_json::json!(network.model());
        options["loss"] = serde_json::json!(self.model.loss);
        let contents =
            serde_json::json!({ "weights": digest_of_values(parameters), "data": digest_of_data(data) });
        serde_json::json!({ "options": options, "contents": contents })
    }

    /// Where that came from, for `run.json`.
    pub fn describe(&self) -> serde_json::Value {
        serde_json::json!({ "inputs": { "weights": runs::path(&self.weights), "data": self.data.describe() } })
    }
}

/// What to make of the files that the folder of a run holds already.
#[derive(Args, Clone, Debug)]
pub struct RunArgs {
    /// Go on from where the folder's run of the same command was stopped, if there is one.
    #[arg(long)]
    pub resume: bool,
    /// Go on from it even where other data, options, an other adapter, driver or version determined it; run.json says
    /// which.
    #[arg(long)]
    pub resume_anyway: bool,
    /// Replace what another run has left in the folder.
    #[arg(long, conflicts_with_all = ["resume", "resume_anyway"])]
    pub overwrite: bool,
}

impl RunArgs {
    pub fn mode(&self) -> Mode {
        match (self.resume, self.resume_anyway, self.overwrite) {
            (_, true, _) => Mode::ResumeAnyway,
            (true, ..) => Mode::Resume,
            (.., true) => Mode::Overwrite,
            _ => Mode::Begin,
        }
    }
}

/// The coordinates of the parameters that are named; of all where none are.
pub fn subspace(network: &Network, names: Option<&[String]>) -> Result<Subspace> {
    names.map_or_else(|| Ok(network.all()), |names| network.restricted(names))
}

/// The network of a model file or of the zoo.
pub fn open_network(file_or_name: &Path) -> Result<Network> {
    let model = Model::open(file_or_name)?;
    Network::new(&model).map_err(|error| match error {
        Error::Model(problem) => Error::file(file_or_name, problem),
        other => other,
    })
}

#[derive(Subcommand)]
pub enum DataAction {
    /// Download a data set, check its SHA-256 sums and unpack it.
    Fetch {
        /// mnist, cifar10 or sst2
        name: String,
        /// The folder for data sets.
        #[arg(long, value_name = "DIR")]
        dir: PathBuf,
        /// Where the archives are, in the place of the usual server.
        #[arg(long, value_name = "URL")]
        from: Option<String>,
    },
}

impl DataAction {
    pub fn run(&self, quiet: bool) -> Result<String> {
        let DataAction::Fetch { name, dir, from } = self;
        let source = Source::named(name)?;
        Outputs::folder(dir, source.members()).check()?;
        let bar = bar(quiet, 0, "{msg} {bytes}/{total_bytes} {bar:30}");
        source.fetch(dir, from.as_deref(), &mut |progress: Progress| {
            bar.set_message(progress.archive.to_string());
            bar.set_length(progress.total.unwrap_or(progress.received));
            bar.set_position(progress.received);
        })?;
        bar.finish_and_clear();
        Ok(if quiet { String::new() } else { format!("{name}: complete in {}", dir.display()) })
    }
}

/// A progress bar on a terminal's standard error; nothing elsewhere.
pub fn bar(quiet: bool, len: u64, template: &str) -> ProgressBar {
    if quiet {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(len).with_style(style)
}

/// An observer that shows on a bar how many products of an estimate are made.
pub fn watched(quiet: bool, what: &'static str) -> impl FnMut(&spectral::Progress) -> ControlFlow<()> {
    let bar = bar(quiet, 0, "{msg} {pos}/{len} products {bar:24}, {eta} left");
    bar.set_message(what);
    move |progress| {
        bar.set_length(progress.total as u64);
        bar.set_position(progress.done as u64);
        if progress.done == progress.total {
            bar.finish_and_clear();
        }
        ControlFlow::Continue(())
    }
}
