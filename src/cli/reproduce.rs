//! `curvkit reproduce`

use std::cell::RefCell;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::json;

use super::Device;
use super::args::{DataPlace, bar};
use super::record;
use crate::Result;
use crate::data::{Dataset, Selection, Split, cifar10, mnist, synthetic_digits};
use crate::net::Loss;
use crate::papers::superlinear::run::{Progress, Request, Target, run};
use crate::papers::superlinear::settings::{Architecture, ImageSet, Preset};

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
    /// table1, scaling, alignment or all.
    target: Target,
    /// The images: mnist, cifar10, or synthetic (drawn digits, no files needed).
    #[arg(long, default_value = "mnist")]
    dataset: ImageSet,
    #[command(flatten)]
    place: DataPlace,
    /// mlp, cnn
    #[arg(long, value_delimiter = ',', default_value = "mlp", value_name = "MODEL,…")]
    model: Vec<Architecture>,
    #[arg(long, value_delimiter = ',', default_value = "cross-entropy,softmax-mse", value_name = "LOSS,…")]
    loss: Vec<Loss>,
    /// How many classes, such as 3,6,10; the preset's if not given.
    #[arg(long, value_delimiter = ',', value_name = "C,…")]
    classes: Option<Vec<usize>>,
    /// The preset's if not given; the figures are of the first.
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
    /// The folder for tables, figures, report and runs; what is there already is not made again.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

impl Superlinear {
    /// The first `per_class` images of each of the first `classes` digits.
    fn images(&self, classes: usize, per_class: usize) -> Result<Dataset> {
        let all = match self.dataset {
            ImageSet::Synthetic => synthetic_digits(per_class, 0)?,
            ImageSet::Mnist => mnist(&self.place.data_dir, Split::Train)?,
            ImageSet::Cifar10 => cifar10(&self.place.data_dir, Split::Train)?,
        };
        let classes = Some((0..classes as u32).collect());
        all.selected(&Selection { classes, per_class: Some(per_class), limit: None })
    }

    fn run(&self, device: &Device) -> Result<String> {
        let gpu = device.open()?;
        let request = Request {
            target: self.target,
            dataset: self.dataset,
            data: Box::new(|classes, per_class| self.images(classes, per_class)),
            models: self.model.clone(),
            losses: self.loss.clone(),
            classes: self.classes.clone().unwrap_or_else(|| self.preset.classes().to_vec()),
            seeds: self.seeds.clone().unwrap_or_else(|| self.preset.seeds().to_vec()),
            preset: self.preset,
            layer: self.layer.clone(),
            weights: self.weights.clone(),
            out: self.out.clone(),
            how_made: json!({
                "command": std::env::args().skip(1).collect::<Vec<_>>().join(" "),
                "adapter": record::adapter(&gpu),
            }),
        };
        let bar = bar(device.quiet, 0, "{msg} {bar:24} {pos}/{len}, {eta} left");
        let terminal = !bar.is_hidden();
        let said = RefCell::new(String::new());
        // elsewhere than on a terminal, a line as each stage of a run begins
        let say = |stage: String| {
            if terminal {
                bar.set_message(stage);
            } else if !device.quiet && *said.borrow() != stage {
                eprintln!("{stage}");
                said.replace(stage);
            }
        };
        let summary = run(&gpu, &request, &|progress| match progress {
            Progress::Kept { run } => say(format!("{run}: kept")),
            Progress::Trained { run, epoch, epochs } => {
                bar.set_length(epochs);
                bar.set_position(epoch.epoch);
                say(format!("{run}: training"));
            }
            Progress::Measuring { run } => say(format!("{run}: measuring")),
            Progress::Drawing { run } => say(format!("{run}: drawing")),
        })?;
        bar.finish_and_clear();
        let report = summary.report.display();
        Ok(match (device.quiet, summary.table.as_str()) {
            (true, _) => String::new(),
            (false, "") => format!("report: {report}"),
            (false, table) => format!("{table}\nreport: {report}"),
        })
    }
}
