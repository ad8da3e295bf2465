//! `curvkit train`

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use serde_json::json;

use super::Device;
use super::args::{DataArgs, ModelArgs, bar};
use super::record::{self, RunRecord};
use crate::data::{TensorFile, prepare_folder, read_parameters, write_parameters, write_tensors};
use crate::net::Network;
use crate::report::plots::{Axis, Mark, Scale, Series, chart};
use crate::report::{write_csv, write_text};
use crate::train::{EpochRecord, Sampling, Schedule, TrainOptions, TrainState, Trainer};
use crate::{Error, Result};

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Optimizer {
    Sgd,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum SamplingArg {
    /// Pass over all samples in a random order.
    Epoch,
    WithReplacement,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ScheduleArg {
    Constant,
    /// Multiply the learning rate by --gamma after each epoch.
    Exponential,
}

#[derive(Args)]
pub struct Train {
    #[command(flatten)]
    model: ModelArgs,
    /// Parameters to start from; PyTorch's default initialisation by --seed if not given.
    #[arg(long, value_name = "FILE")]
    weights: Option<PathBuf>,
    #[command(flatten)]
    data: DataArgs,
    #[arg(long, value_enum, default_value = "sgd")]
    optimizer: Optimizer,
    #[arg(long, allow_negative_numbers = true)]
    learning_rate: f64,
    #[arg(long, default_value_t = 0.0, allow_negative_numbers = true)]
    momentum: f64,
    #[arg(long, default_value_t = 0.0, allow_negative_numbers = true)]
    weight_decay: f64,
    #[arg(long, value_enum, default_value = "constant")]
    schedule: ScheduleArg,
    /// Of the exponential schedule.
    #[arg(long, required_if_eq("schedule", "exponential"))]
    gamma: Option<f64>,
    #[arg(long)]
    batch_size: usize,
    #[arg(long)]
    epochs: u64,
    #[arg(long, value_enum, default_value = "epoch")]
    sampling: SamplingArg,
    /// Of the initialisation and of the order of the samples.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Keep the parameters after every so many epochs, in checkpoints/.
    #[arg(long, value_name = "EPOCHS")]
    checkpoint_every: Option<u64>,
    /// Go on from the folder's last checkpoint, if there is one.
    #[arg(long)]
    resume: bool,
    /// The folder for weights, history, loss curve, checkpoint and run.json.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Print the last epoch as JSON.
    #[arg(long)]
    json: bool,
}

/// How often, at least, the state that a run resumes from is written.
const SAVE_EVERY: Duration = Duration::from_secs(15);

impl Train {
    fn options(&self) -> TrainOptions {
        let Optimizer::Sgd = self.optimizer;
        TrainOptions {
            loss: self.model.loss,
            learning_rate: self.learning_rate,
            momentum: self.momentum,
            weight_decay: self.weight_decay,
            schedule: match self.schedule {
                ScheduleArg::Constant => Schedule::Constant,
                ScheduleArg::Exponential => Schedule::Exponential { gamma: self.gamma.unwrap_or(1.0) },
            },
            batch_size: self.batch_size,
            epochs: self.epochs,
            sampling: match self.sampling {
                SamplingArg::Epoch => Sampling::Epoch,
                SamplingArg::WithReplacement => Sampling::WithReplacement,
            },
            seed: self.seed,
        }
    }

    pub fn run(&self, device: &Device) -> Result<String> {
        if self.checkpoint_every == Some(0) {
            return Err(Error::argument("--checkpoint-every", 0, "at least 1"));
        }
        let network = self.model.network()?;
        let options = self.options();
        let data = self.data.read(&network, options.loss)?;
        options.check(data.len())?;
        let parameters = match &self.weights {
            Some(path) => read_parameters(path, &network.signature())?,
            None => network.initial_parameters(self.seed),
        };
        let files = Files { out: &self.out, network: &network };
        // all that decides the course of the run; more epochs are no other run
        let course = json!({
            "model": network.model(), "options": { "epochs": null, "rest": TrainOptions { epochs: 0, ..options.clone() } },
            "data": self.data.describe(), "samples": data.len(), "weights": self.weights,
        })
        .to_string();
        let (state, mut history) = match self.resume.then(|| files.load(&course)).transpose()?.flatten() {
            Some(saved) => saved,
            None => {
                let momentum = vec![0.0; parameters.len()];
                (TrainState { epoch: 0, parameters, momentum }, Vec::new())
            }
        };
        if state.epoch > options.epochs {
            let expected = format!("at least {}: so many have been run", state.epoch);
            return Err(Error::argument("--epochs", options.epochs, expected));
        }
        let gpu = device.open()?;
        let run = RunRecord::start(
            &gpu,
            json!({ "model": network.model(), "data": self.data.describe(), "train": options, "weights": self.weights }),
        );
        let epochs = options.epochs;
        let mut trainer = Trainer::resume(&gpu, &network, state, &data, options)?;
        prepare_folder(&self.out)?;
        let bar = bar(device.quiet, epochs, "epoch {pos}/{len} {bar:30} {msg}, {eta} left");
        bar.set_position(trainer.epoch());
        let mut saved = Instant::now();
        while trainer.epoch() < epochs {
            let record = trainer.run_epoch()?;
            history.push(record);
            bar.set_message(format!(
                "loss {:.6}, accuracy {}",
                record.loss,
                record::accuracy(record.accuracy)
            ));
            bar.inc(1);
            let kept = self.checkpoint_every.is_some_and(|every| record.epoch.is_multiple_of(every));
            if kept {
                let folder = self.out.join("checkpoints");
                std::fs::create_dir_all(&folder).map_err(Error::io(&folder, "create folder"))?;
                let path = folder.join(format!("epoch-{:06}.safetensors", record.epoch));
                write_parameters(
                    path,
                    &network.signature(),
                    &trainer.parameters()?,
                    &[("run", &run.value().to_string())],
                )?;
            }
            if kept || saved.elapsed() >= SAVE_EVERY || record.epoch == epochs {
                files.save(&trainer.state()?, &history, &course)?;
                saved = Instant::now();
            }
        }
        bar.finish_and_clear();
        let path = self.out.join("weights.safetensors");
        let how = run.value().to_string();
        write_parameters(path, &network.signature(), &trainer.parameters()?, &[("run", &how)])?;
        files.plot(&history)?;
        run.write(&self.out)?;
        let last = history.last();
        Ok(match last {
            _ if self.json => {
                let undefined = last.map(|last| record::undefined_accuracy(last.accuracy));
                record::json(&json!({ "last": last, "undefined": undefined, "run": run.value() }))
            }
            Some(&EpochRecord { epoch, loss, accuracy, .. }) if !device.quiet => {
                let accuracy = record::accuracy(accuracy);
                format!("epoch {epoch}: loss {loss:.6}, accuracy {accuracy}\nwrote {}", self.out.display())
            }
            _ => String::new(),
        })
    }
}

/// The files of a run.
struct Files<'a> {
    out: &'a Path,
    network: &'a Network,
}

impl Files<'_> {
    fn checkpoint(&self) -> PathBuf {
        self.out.join("checkpoint.safetensors")
    }

    /// Writes the history, then the checkpoint: a run that stops in between has too long a history, which
    /// [`Files::load`] cuts.
    fn save(&self, state: &TrainState, history: &[EpochRecord], course: &str) -> Result<()> {
        write_csv(self.out.join("history.csv"), history)?;
        let p = [self.network.dim()];
        let tensors: [(&str, &[usize], &[f32]); 2] =
            [("parameters", &p, &state.parameters), ("momentum", &p, &state.momentum)];
        write_tensors(self.checkpoint(), &tensors, &[("epoch", &state.epoch.to_string()), ("course", course)])
    }

    /// Draws the loss of each epoch.
    fn plot(&self, history: &[EpochRecord]) -> Result<()> {
        let points = history.iter().map(|row| (row.epoch as f64, row.loss)).collect();
        let loss = Series { name: String::new(), mark: Mark::Line, colour: 0, points };
        let axis = |label| Axis { label, scale: Scale::Linear };
        let svg = chart("Training", axis("epoch"), axis("loss"), &[loss])?;
        write_text(self.out.join("loss.svg"), &svg)
    }

    /// The last state and the history up to it, if a run was saved.
    fn load(&self, course: &str) -> Result<Option<(TrainState, Vec<EpochRecord>)>> {
        let path = self.checkpoint();
        if !path.exists() {
            return Ok(None);
        }
        let file = TensorFile::read(&path)?;
        if file.metadata("course") != Some(course) {
            let problem = "is of a run with other options, model or data; expected the same but for --epochs";
            return Err(Error::file(path, problem));
        }
        let epoch = file.metadata("epoch").and_then(|epoch| epoch.parse().ok());
        let epoch = epoch.ok_or_else(|| Error::file(&path, "found no epoch, expected a number"))?;
        let p = [self.network.dim()];
        let state = TrainState {
            epoch,
            parameters: file.f32("parameters", &p)?,
            momentum: file.f32("momentum", &p)?,
        };
        let path = self.out.join("history.csv");
        let rows = csv::Reader::from_path(&path)
            .and_then(|mut csv| csv.deserialize().collect::<Result<Vec<EpochRecord>, _>>())
            .map_err(|error| Error::file(&path, error.to_string()))?;
        Ok(Some((state, rows.into_iter().filter(|row| row.epoch <= epoch).collect())))
    }
}
