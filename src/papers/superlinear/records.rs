//! What a run leaves behind, so that it can be taken up again: checkpoints, its history, and what was measured.

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::settings::{Architecture, ImageSet, LEARNING_RATE, Setting};
use crate::data::{read_parameters, write_parameters};
use crate::gpu::Gpu;
use crate::net::{Loss, Network};
use crate::report::write_json;
use crate::runs::{Mode, Outputs, Record, Run, digest_of_values};
use crate::{Error, Result};

/// Everything that determines how a network is trained, but for the adapter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Training {
    /// The images that are trained on.
    pub dataset: ImageSet,
    /// The family that the network is of.
    pub model: Architecture,
    /// The loss that is trained on.
    pub loss: Loss,
    /// The number of classes, the first of the data set; the network has ten outputs whatever it is.
    pub classes: usize,
    /// The seed of the first parameters and of the order of the samples.
    pub seed: u64,
    /// Images of each class.
    pub per_class: usize,
    /// B, the images of a batch.
    pub batch_size: usize,
    /// The epochs of the whole run.
    pub epochs: u64,
    /// The constant learning rate, [`LEARNING_RATE`].
    pub learning_rate: f64,
    /// SHA-256 of the training set.
    pub data: String,
    /// This crate's version.
    pub version: String,
}

impl Training {
    /// Of a run of `setting` from `seed` on the training set with digest `data`.
    pub fn of(setting: &Setting, seed: u64, data: String) -> Training {
        let &Setting { dataset, model, loss, classes, per_class, batch_size, epochs, .. } = setting;
        let (learning_rate, version) = (LEARNING_RATE, env!("CARGO_PKG_VERSION").into());
        Training {
            dataset,
            model,
            loss,
            classes,
            seed,
            per_class,
            batch_size,
            epochs,
            learning_rate,
            data,
            version,
        }
    }
}

/// Everything that determines what is measured of a checkpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measuring {
    /// SHA-256 of the parameters.
    pub parameters: String,
    /// And of the samples.
    pub data: String,
    /// The weights of the fully connected layer that is measured: `2.weight`.
    pub layer: String,
    /// The loss that H and C are of.
    pub loss: Loss,
    /// 𝒩
    pub top: usize,
    /// B, the samples of each batch of the duality's pairs.
    pub batch_size: usize,
    /// Pairs of batches that the duality's covariances are means over.
    pub pairs: usize,
    /// This crate's version.
    pub version: String,
    /// Adapter, driver, tuning and memory budget.
    pub adapter: Value,
    /// [`MEASURES`]
    pub measures: u32,
}

/// Which definitions of the measures results on record are of: to be raised with every change of one.
pub const MEASURES: u32 = 4;

/// Loss and accuracy of an epoch, as means over its batches while they were trained on.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Epoch {
    /// The number of the epoch, from 1.
    pub epoch: u64,
    /// The mean loss of the samples.
    pub loss: f64,
    /// The share of the samples that were classified rightly, in [0, 1].
    pub accuracy: f64,
}

/// A run of training as far as it has come.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trained {
    /// What determined the run.
    pub training: Training,
    /// An entry for each epoch that was run.
    pub history: Vec<Epoch>,
    /// The epochs whose parameters are kept and their SHA-256, in ascending order; the last is where the run stands.
    pub checkpoints: Vec<(u64, String)>,
}

/// A result, and what determined it.
#[derive(Serialize, Deserialize)]
struct Kept<T> {
    measuring: Measuring,
    result: T,
}

/// What to do where the folder of a run holds another one's files.
#[derive(Clone, Copy, Debug, Default)]
pub struct Leave {
    /// Go on from a run that something else determined.
    pub resume_anyway: bool,
    /// Remove them.
    pub overwrite: bool,
}

const TRAINING: &str = "training.json";

/// The records of one run: a folder with `training.json`, checkpoints `epoch-000100.safetensors`, and a JSON file for
/// everything that was measured of a layer.
pub struct Records {
    run: Run,
}

impl Records {
    /// Those of the run of `training` in `folder`, which is made. What was trained and measured there stays, unless it
    /// is of another run, and `leave` says so.
    ///
    /// # Errors
    /// [`Error::OtherRun`] and [`Error::Occupied`] where it holds those of another run, and as [`Run::claim`].
    pub fn open(folder: &Path, gpu: &Gpu, training: &Training, layer: &str, leave: Leave) -> Result<Records> {
        let claim = |mode| {
            let measured = [format!("end-{layer}.json"), format!("epoch-*-{layer}.json")];
            let names = ["epoch-*.safetensors".into(), TRAINING.into()].into_iter().chain(measured);
            let record = Record::new("training", Some(gpu), json!({ "training": training }), json!({}));
            Run::claim(Outputs::folder(folder, names), record, mode)
        };
        let mode = if leave.resume_anyway { Mode::ResumeAnyway } else { Mode::Resume };
        let run = match claim(mode) {
            Err(Error::OtherRun { .. } | Error::Occupied { .. }) if leave.overwrite => claim(Mode::Overwrite),
            claimed => claimed,
        };
        Ok(Records { run: run? })
    }

    /// Where the parameters after `epoch` epochs are kept.
    pub fn checkpoint(&self, epoch: u64) -> PathBuf {
        self.run.path(&checkpoint(epoch))
    }

    /// How far the run has come, and the parameters `[P]` that it has come to; nothing where the checkpoint of an epoch
    /// in `keep` is missing.
    ///
    /// # Errors
    /// [`Error::Io`] where a file is there and cannot be read.
    pub fn trained(&self, network: &Network, keep: &[u64]) -> Result<Option<(Trained, Vec<f32>)>> {
        let record = self.run.resumes().then(|| self.read::<Trained>(TRAINING)).transpose()?.flatten();
        let Some(record) = record else { return Ok(None) };
        let epoch = record.history.len() as u64;
        let mut last = None;
        for of in keep.iter().copied().filter(|&of| of < epoch).chain([epoch]) {
            let Some((_, digest)) = record.checkpoints.iter().find(|(kept, _)| *kept == of) else {
                return Ok(None);
            };
            last = match read_parameters(self.checkpoint(of), &network.signature()) {
                Ok(parameters) if digest_of_values(&parameters) == *digest => Some(parameters),
                Err(error @ Error::Io { .. }) if self.checkpoint(of).exists() => return Err(error),
                _ => return Ok(None),
            };
        }
        Ok(last.map(|parameters| (record, parameters)))
    }

    /// Puts a run on record as far as it has come, with its `parameters`; the checkpoint before is removed unless its
    /// epoch is in `keep`.
    ///
    /// # Errors
    /// [`Error::Io`] where a file cannot be written.
    pub fn keep_trained(
        &self,
        trained: &mut Trained,
        network: &Network,
        parameters: &[f32],
        keep: &[u64],
    ) -> Result<()> {
        let epoch = trained.history.len() as u64;
        let before = trained.checkpoints.pop_if(|(before, _)| !keep.contains(before));
        trained.checkpoints.push((epoch, digest_of_values(parameters)));
        let (key, how) = self.run.metadata();
        let write = |folder: &Path| {
            write_parameters(
                folder.join(checkpoint(epoch)),
                &network.signature(),
                parameters,
                &[(key, &how)],
            )?;
            write_json(folder.join(TRAINING), trained)
        };
        match epoch == trained.training.epochs {
            true => self.run.finish(write)?,
            false => self.run.write(write)?,
        }
        before.map_or(Ok(()), |(before, _)| self.run.remove(&checkpoint(before)))
    }

    /// The result `what` of this very `measuring`, where it is on record.
    ///
    /// # Errors
    /// [`Error::Io`] where a file is there and cannot be read.
    pub fn find<T: DeserializeOwned>(&self, what: &str, measuring: &Measuring) -> Result<Option<T>> {
        let kept: Option<Kept<T>> = self.read(&file(what, measuring))?;
        Ok(kept.filter(|kept| kept.measuring == *measuring).map(|kept| kept.result))
    }

    /// Puts a result on record, of a run whose training has ended.
    ///
    /// # Errors
    /// [`Error::Io`] where it cannot be written.
    pub fn keep<T: Serialize>(&self, what: &str, measuring: &Measuring, result: T) -> Result<()> {
        let kept = Kept { measuring: measuring.clone(), result };
        self.run.finish(|folder| write_json(folder.join(file(what, measuring)), &kept))
    }

    /// The content of a JSON file; nothing where it is not there or is not of this kind.
    fn read<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>> {
        let path = self.run.path(name);
        match std::fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io(&path, "read")(error)),
            Ok(text) => Ok(serde_json::from_slice(&text).ok()),
        }
    }
}

fn file(what: &str, measuring: &Measuring) -> String {
    format!("{what}-{}.json", measuring.layer)
}

fn checkpoint(epoch: u64) -> String {
    format!("epoch-{epoch:06}.safetensors")
}
