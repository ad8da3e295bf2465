//! `curvkit train`

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use serde_json::json;

use super::Device;
use super::args::{DataArgs, ModelArgs, RunArgs, bar};
use super::record;
use crate::data::{Elements, TensorFile, read_parameters, write_parameters, write_state};
use crate::net::Network;
use crate::operators::Session;
use crate::report::plots::{Axis, Mark, Scale, Series, chart};
use crate::report::{write_csv, write_text};
use crate::runs::{self, Outputs, Record, Run, digest_of_data, digest_of_values};
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
    #[command(flatten)]
    run: RunArgs,
    /// The folder for weights, history, loss curve, checkpoint and run.json.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Print the last epoch as JSON.
    #[arg(long)]
    json: bool,
}

/// How often, at least, the state that a run resumes from is written.
const SAVE_EVERY: Duration = Duration::from_secs(15);
/// The state that a run resumes from.
const STATE: &str = "checkpoint.safetensors";
const HISTORY: &str = "history.csv";
/// What may differ where a run is resumed: more epochs are no other run.
const FREE: &[&str] = &["options.train.epochs", "options.checkpoint_every"];

impl Train {
    fn options(&self) -> TrainOptions {
        let Optimizer::Sgd = self.optimizer;
        TrainOptions {
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

    /// The files of a run, and those that it reads.
    fn outputs(&self) -> Outputs {
        let kept = self.checkpoint_every.map(|_| "checkpoints/epoch-*.safetensors");
        let names = [HISTORY, "weights.safetensors", "loss.svg"].into_iter().chain(kept);
        let weights = self.weights.iter().map(|path| ("--weights", path.clone()));
        // the state comes after what it stands for
        let outputs = Outputs::folder(&self.out, names.chain([STATE]));
        outputs.reading([self.model.input()]).reading(weights).reading(self.data.inputs())
    }

    pub fn run(&self, device: &Device) -> Result<String> {
        if self.checkpoint_every == Some(0) {
            return Err(Error::argument("--checkpoint-every", 0, "at least 1"));
        }
        let outputs = self.outputs();
        outputs.check()?;
        let network = self.model.network()?;
        let options = self.options();
        let data = self.data.read(&network, self.model.loss)?;
        options.check(data.len())?;
        let parameters = match &self.weights {
            Some(path) => read_parameters(path, &network.signature())?,
            None => network.initial_parameters(self.seed),
        };
        let first = parameters.clone();
        let gpu = device.open()?;
        let determined = json!({
            "options": {
                "model": network.model(), "loss": self.model.loss, "train": options,
                "checkpoint_every": self.checkpoint_every,
            },
            "contents": { "weights": digest_of_values(&parameters), "data": digest_of_data(&data) },
        });
        let weights = self.weights.as_ref().map(runs::path);
        let told = json!({
            "inputs": { "weights": weights, "data": self.data.describe() }, "samples": data.len(),
        });
        let record = Record::new("train", Some(&gpu), determined, told).free(FREE).bound(&["options.model"]);
        let run = Run::claim(outputs, record, self.run.mode())?;
        let files = Files { run: &run, network: &network };
        let (state, mut history) = match files.load()? {
            Some(saved) => saved,
            None => {
                let momentum = vec![0.0; parameters.len()];
                (TrainState { epoch: 0, parameters, momentum }, Vec::new())
            }
        };
        let epochs = options.epochs;
        if state.epoch > epochs {
            let expected = format!("at least {}: so many have been run", state.epoch);
            return Err(Error::argument("--epochs", epochs, expected));
        }
        let session = Session::new(&gpu, &network, &state.parameters, &data, self.model.loss)?;
        let mut trainer = Trainer::resume(&session, state, options)?;
        let bar = bar(device.quiet, epochs, "epoch {pos}/{len} {bar:30} {msg}, {eta} left");
        bar.set_position(trainer.epoch());
        let mut saved = Instant::now();
        while trainer.epoch() < epochs {
            let record = trainer.run_epoch().map_err(|error| match error {
                // where the loss was not finite before the first update, it is not the learning rate's fault
                Error::Diverged { .. } => {
                    Session::with_loss(&gpu, &network, &first, &data, self.model.loss).err().unwrap_or(error)
                }
                error => error,
            })?;
            history.push(record);
            bar.set_message(format!(
                "loss {:.6}, accuracy {}",
                record.loss,
                record::accuracy(record.accuracy)
            ));
            bar.inc(1);
            let kept = self.checkpoint_every.is_some_and(|every| record.epoch.is_multiple_of(every));
            if kept || saved.elapsed() >= SAVE_EVERY || record.epoch == epochs {
                files.save(&trainer.state()?, &history, kept)?;
                saved = Instant::now();
            }
        }
        bar.finish_and_clear();
        files.finish(&trainer.parameters()?, &history)?;
        let last = history.last();
        Ok(match last {
            _ if self.json => {
                let undefined = last.map(|last| record::undefined_accuracy(last.accuracy));
                record::json(&json!({
                    "last": last, "undefined": undefined, "samples": data.len(), "run": run.record(),
                }))
            }
            Some(&EpochRecord { epoch, loss, accuracy, .. }) if !device.quiet => {
                let (accuracy, samples) = (record::accuracy(accuracy), data.len());
                let wrote = self.out.display();
                format!(
                    "epoch {epoch}: loss {loss:.6}, accuracy {accuracy}, {samples} samples\nwrote {wrote}"
                )
            }
            _ => String::new(),
        })
    }
}

/// The files of a run.
struct Files<'a> {
    run: &'a Run,
    network: &'a Network,
}

impl Files<'_> {
    /// Writes history and state, and a checkpoint that is kept if it is one.
    fn save(&self, state: &TrainState, history: &[EpochRecord], kept: bool) -> Result<()> {
        let (key, how) = self.run.metadata();
        self.run.write(|folder| {
            write_csv(folder.join(HISTORY), history)?;
            if kept {
                let folder = folder.join("checkpoints");
                std::fs::create_dir(&folder).map_err(Error::io(&folder, "create folder"))?;
                let path = folder.join(format!("epoch-{:06}.safetensors", state.epoch));
                write_parameters(path, &self.network.signature(), &state.parameters, &[(key, &how)])?;
            }
            let p = [self.network.dim()];
            let tensors: [(&str, &[usize], Elements); 2] = [
                ("parameters", &p, Elements::F32(&state.parameters)),
                ("momentum", &p, Elements::F32(&state.momentum)),
            ];
            let (layout_key, layout) = self.network.layout(&self.network.all()).metadata();
            let metadata = [("epoch", &*state.epoch.to_string()), (key, &how), (layout_key, &layout)];
            write_state(folder.join(STATE), &tensors, &metadata)
        })
    }

    /// Writes the last parameters, the loss of each epoch as a curve, and the record.
    fn finish(&self, parameters: &[f32], history: &[EpochRecord]) -> Result<()> {
        let (key, how) = self.run.metadata();
        let points = history.iter().map(|row| (row.epoch as f64, row.loss)).collect();
        let loss = Series { name: String::new(), mark: Mark::Line, colour: 0, points };
        let axis = |label| Axis { label, scale: Scale::Linear };
        let svg = chart("Training", axis("epoch"), axis("loss"), &[loss])?;
        self.run.finish(|folder| {
            let path = folder.join("weights.safetensors");
            write_parameters(path, &self.network.signature(), parameters, &[(key, &how)])?;
            write_text(folder.join("loss.svg"), &svg)
        })
    }

    /// The last state and the history up to it, if a run was saved that is to be resumed.
    fn load(&self) -> Result<Option<(TrainState, Vec<EpochRecord>)>> {
        let path = self.run.path(STATE);
        if !self.run.resumes() {
            return Ok(None);
        }
        if !path.exists() {
            let kept = [HISTORY, "weights.safetensors"].into_iter().find(|name| self.run.path(name).exists());
            return match kept {
                // it was stopped before it had anything to keep
                None => Ok(None),
                Some(kept) => {
                    let problem = format!("found none beside {kept}, expected the state to go on from");
                    Err(Error::file(&path, problem))
                }
            };
        }
        let file = TensorFile::read(&path)?;
        file.check_undamaged()?;
        self.run.check_state(&path, &file)?;
        let epoch = file.metadata("epoch").and_then(|epoch| epoch.parse().ok());
        let epoch = epoch.ok_or_else(|| Error::file(&path, "found no epoch, expected a number"))?;
        let p = [self.network.dim()];
        let state = TrainState {
            epoch,
            parameters: file.f32("parameters", &p)?,
            momentum: file.f32("momentum", &p)?,
        };
        let path = self.run.path(HISTORY);
        let rows = csv::Reader::from_path(&path)
            .and_then(|mut csv| csv.deserialize().collect::<Result<Vec<EpochRecord>, _>>())
            .map_err(|error| Error::file(&path, error.to_string()))?;
        let rows: Vec<EpochRecord> = rows.into_iter().filter(|row| row.epoch <= epoch).collect();
        if rows.len() as u64 != epoch {
            return Err(Error::file(path, format!("found {} epochs, expected {epoch}", rows.len())));
        }
        Ok(Some((state, rows)))
    }
}
