//! Table 1: γ_emp and γ_AWD of every cell, over seeds, beside the published values.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::measures::Exponents;
use super::settings::{Architecture, ImageSet, LEARNING_RATE, Preset, Published, Setting};
use crate::data::prepare_folder;
use crate::net::Loss;
use crate::report::{Finding, Table, write_csv, write_json};
use crate::stats::{mean, standard_deviation};
use crate::{Error, Result};

/// How far the mean over seeds may be from the published mean to count as agreeing.
pub const TOLERANCE: f64 = 0.05;

/// Everything that determines a run's results; a run on record under the same identity stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Identity {
    pub dataset: ImageSet,
    pub model: Architecture,
    pub loss: Loss,
    pub classes: usize,
    pub seed: u64,
    pub preset: Preset,
    pub per_class: usize,
    pub batch_size: usize,
    pub epochs: u64,
    pub learning_rate: f64,
    pub top: usize,
    /// The layer that was measured, where it is not the paper's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layer: Option<String>,
    /// SHA-256 of the training set.
    pub data: String,
    /// This crate's.
    pub version: String,
}

impl Identity {
    /// Of a run of `setting` from `seed` on the training set with digest `data`.
    pub fn new(setting: &Setting, preset: Preset, seed: u64, data: String) -> Identity {
        Identity {
            dataset: setting.dataset,
            model: setting.model,
            loss: setting.loss,
            classes: setting.classes,
            seed,
            preset,
            per_class: setting.per_class,
            batch_size: setting.batch_size,
            epochs: setting.epochs,
            learning_rate: LEARNING_RATE,
            top: setting.top,
            layer: None,
            data,
            version: env!("CARGO_PKG_VERSION").into(),
        }
    }
}

/// Loss and accuracy at the end of an epoch, as means over its batches.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Epoch {
    pub epoch: u64,
    pub loss: f64,
    pub accuracy: f64,
}

/// A finished run: what it was, how training went, and what was measured at its end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Run {
    pub identity: Identity,
    pub history: Vec<Epoch>,
    /// The loss and accuracy of the trained network over the whole training set.
    pub train_loss: f64,
    pub train_accuracy: f64,
    pub exponents: Exponents,
    /// SHA-256 of the trained parameters: a checkpoint without it is not this run's.
    pub parameters: String,
}

/// The runs on record in a folder, a JSON file each.
#[derive(Clone, Debug)]
pub struct Records {
    folder: PathBuf,
}

impl Records {
    /// Those in `out/runs`, which is made.
    ///
    /// # Errors
    /// [`Error::Io`] where it cannot be, or cannot be written to.
    pub fn open(out: &Path) -> Result<Records> {
        let folder = out.join("runs");
        prepare_folder(&folder)?;
        Ok(Records { folder })
    }

    /// The file of a run of `setting` from `seed`, with the extension that tells its content.
    pub fn path(&self, setting: &Setting, seed: u64, extension: &str) -> PathBuf {
        self.folder.join(format!("{}-seed{seed}.{extension}", setting.name()))
    }

    /// The run of `setting` from `seed`, where one is on record under this very identity.
    ///
    /// # Errors
    /// [`Error::Io`] where its file cannot be read.
    pub fn find(&self, setting: &Setting, identity: &Identity) -> Result<Option<Run>> {
        let path = self.of(setting, identity);
        match std::fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io(&path, "read")(error)),
            Ok(text) => {
                let run = serde_json::from_slice::<Run>(&text).ok();
                Ok(run.filter(|run| run.identity == *identity))
            }
        }
    }

    /// Puts `run`, of `setting`, on record.
    ///
    /// # Errors
    /// [`Error::Io`] where its file cannot be written.
    pub fn keep(&self, setting: &Setting, run: &Run) -> Result<()> {
        write_json(self.of(setting, &run.identity), run)
    }

    /// The file of the run with this identity: layers apart from the paper's have their own.
    fn of(&self, setting: &Setting, identity: &Identity) -> PathBuf {
        match &identity.layer {
            None => self.path(setting, identity.seed, "json"),
            Some(layer) => self.path(setting, identity.seed, &format!("{layer}.json")),
        }
    }
}

/// A cell of the table: one setting, summarised over its runs.
#[derive(Clone, Debug)]
pub struct Cell {
    pub setting: Setting,
    pub runs: usize,
    pub emp: Comparison,
    pub awd: Comparison,
    /// Means over the runs.
    pub train_loss: f64,
    pub train_accuracy: f64,
}

/// An exponent as measured, beside what was published.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Comparison {
    pub mean: f64,
    /// Over seeds; `None` for a single one.
    pub std: Option<f64>,
    pub published: Option<Published>,
}

impl Comparison {
    /// Measured less published.
    pub fn difference(&self) -> Option<f64> {
        self.published.map(|published| self.mean - published.mean)
    }
}

impl Cell {
    /// The cell that `runs`, of which there is at least one, make up.
    pub fn of(setting: &Setting, runs: &[&Run]) -> Cell {
        let compare = |which: usize, exponent: fn(&Exponents) -> f64| {
            let values: Vec<f64> = runs.iter().map(|run| exponent(&run.exponents)).collect();
            Comparison {
                mean: mean(&values),
                std: standard_deviation(&values),
                published: setting.published.map(|published| published[which]),
            }
        };
        let losses: Vec<f64> = runs.iter().map(|run| run.train_loss).collect();
        let accuracies: Vec<f64> = runs.iter().map(|run| run.train_accuracy).collect();
        Cell {
            setting: *setting,
            runs: runs.len(),
            emp: compare(0, |exponents| exponents.emp.slope),
            awd: compare(1, |exponents| exponents.awd.slope),
            train_loss: mean(&losses),
            train_accuracy: mean(&accuracies),
        }
    }

    /// A sentence for each exponent that has a published value.
    pub fn findings(&self) -> Vec<Finding> {
        let Setting { dataset, model, loss, classes, .. } = self.setting;
        [("γ_emp", self.emp), ("γ_AWD", self.awd)]
            .into_iter()
            .filter_map(|(symbol, comparison)| {
                let (published, difference) = (comparison.published?, comparison.difference()?);
                let agrees = difference.abs() <= TOLERANCE;
                let sentence = format!(
                    "{symbol} of {dataset}, {model}, {loss}, {classes} classes: {:.2} over {}, {:.2} published; {:+.3} apart, {} {TOLERANCE}.",
                    comparison.mean,
                    if self.runs == 1 { "one seed".into() } else { format!("{} seeds", self.runs) },
                    published.mean,
                    difference,
                    if agrees { "within" } else { "more than" },
                );
                Some(Finding { agrees, sentence })
            })
            .collect()
    }
}

/// Writes `table1.csv`, a row a run.
///
/// # Errors
/// [`Error::Io`] where it cannot be written.
pub fn write_runs(out: &Path, runs: &[Run]) -> Result<()> {
    #[derive(Serialize)]
    struct Record {
        dataset: ImageSet,
        model: Architecture,
        loss: Loss,
        classes: usize,
        seed: u64,
        gamma_emp: f64,
        gamma_awd: f64,
        train_loss: f64,
        train_accuracy: f64,
    }
    let records = runs.iter().map(|run| Record {
        dataset: run.identity.dataset,
        model: run.identity.model,
        loss: run.identity.loss,
        classes: run.identity.classes,
        seed: run.identity.seed,
        gamma_emp: run.exponents.emp.slope,
        gamma_awd: run.exponents.awd.slope,
        train_loss: run.train_loss,
        train_accuracy: run.train_accuracy,
    });
    write_csv(out.join("table1.csv"), records)
}

/// Writes `table1_summary.csv`, a row a cell; what is not known stays empty.
///
/// # Errors
/// [`Error::Io`] where it cannot be written.
pub fn write_summary(out: &Path, cells: &[Cell]) -> Result<()> {
    #[derive(Serialize)]
    struct Record {
        dataset: ImageSet,
        model: Architecture,
        loss: Loss,
        classes: usize,
        runs: usize,
        gamma_emp_mean: f64,
        gamma_emp_std: Option<f64>,
        gamma_emp_published: Option<f64>,
        gamma_emp_published_std: Option<f64>,
        gamma_awd_mean: f64,
        gamma_awd_std: Option<f64>,
        gamma_awd_published: Option<f64>,
        gamma_awd_published_std: Option<f64>,
        train_loss: f64,
        train_accuracy: f64,
    }
    let records = cells.iter().map(|cell| Record {
        dataset: cell.setting.dataset,
        model: cell.setting.model,
        loss: cell.setting.loss,
        classes: cell.setting.classes,
        runs: cell.runs,
        gamma_emp_mean: cell.emp.mean,
        gamma_emp_std: cell.emp.std,
        gamma_emp_published: cell.emp.published.map(|published| published.mean),
        gamma_emp_published_std: cell.emp.published.map(|published| published.std),
        gamma_awd_mean: cell.awd.mean,
        gamma_awd_std: cell.awd.std,
        gamma_awd_published: cell.awd.published.map(|published| published.mean),
        gamma_awd_published_std: cell.awd.published.map(|published| published.std),
        train_loss: cell.train_loss,
        train_accuracy: cell.train_accuracy,
    });
    write_csv(out.join("table1_summary.csv"), records)
}

/// The table as it is printed and set in the report.
pub fn table(cells: &[Cell]) -> Table {
    let columns = [
        "network",
        "loss",
        "classes",
        "seeds",
        "γ_emp",
        "published",
        "difference",
        "γ_AWD",
        "published",
        "difference",
        "train loss",
        "accuracy",
    ];
    let spread = |value: f64, std: Option<f64>| match std {
        Some(std) => format!("{value:.3} ± {std:.3}"),
        None => format!("{value:.3}"),
    };
    let compared = |comparison: &Comparison| {
        [
            spread(comparison.mean, comparison.std),
            comparison.published.map_or("–".into(), |p| format!("{:.2} ± {:.2}", p.mean, p.std)),
            comparison.difference().map_or("–".into(), |difference| format!("{difference:+.3}")),
        ]
    };
    let rows = cells
        .iter()
        .map(|cell| {
            let setting = &cell.setting;
            let mut row = vec![
                format!("{} {}", setting.dataset, setting.model),
                setting.loss.to_string(),
                setting.classes.to_string(),
                cell.runs.to_string(),
            ];
            row.extend(compared(&cell.emp));
            row.extend(compared(&cell.awd));
            row.push(format!("{:.3e}", cell.train_loss));
            row.push(format!("{:.2} %", 100.0 * cell.train_accuracy));
            row
        })
        .collect();
    Table { columns: columns.map(String::from).into(), rows, caption: String::new() }
}
