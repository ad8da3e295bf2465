//! Tables 1 and 3: γ_emp, γ_AWD and γ′_AWD of every cell, over seeds, beside the published values.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::claims::departing;
use super::measures::{Exponent, Exponents};
use super::records::{Epoch, Training};
use super::settings::{Architecture, ImageSet, Published, PublishedExponents, Setting};
use crate::net::Loss;
use crate::report::{Finding, Table, told, write_csv};
use crate::stats::{mean, standard_deviation};
use crate::{Result, Undefined};

/// How far the mean over seeds may be from the published mean to count as agreeing: networks of the squared error
/// are not trained to their minimum and vary more.
pub fn tolerance(loss: Loss) -> f64 {
    if loss == Loss::CrossEntropy { 0.03 } else { 0.05 }
}

/// A finished run: how training went, and what was measured at its end.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    /// What determined the run.
    pub training: Training,
    /// Loss and accuracy of each epoch, in order.
    pub history: Vec<Epoch>,
    /// What was measured of the trained network.
    pub end: End,
}

/// What was measured at the end of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct End {
    /// The loss and accuracy of the trained network over the whole training set.
    pub loss: f64,
    /// The share that is classified rightly, in [0, 1].
    pub accuracy: f64,
    /// γ_emp, γ_AWD and γ′_AWD.
    pub exponents: Exponents,
}

/// A cell of the table: one setting, summarised over its runs.
#[derive(Clone, Debug)]
pub struct Cell {
    /// What was trained, and what was published for it.
    pub setting: Setting,
    /// The number of runs, one for each seed.
    pub runs: usize,
    /// γ_emp
    pub emp: Comparison,
    /// γ_AWD
    pub awd: Comparison,
    /// γ′_AWD, published for softmax-mse alone.
    pub awd_raw: Comparison,
    /// Means over the runs.
    pub train_loss: f64,
    /// The mean accuracy over the runs, in [0, 1].
    pub train_accuracy: f64,
}

/// An exponent as measured, beside what was published.
#[derive(Clone, Debug, PartialEq)]
pub struct Comparison {
    /// `None` where it is undefined for any of the runs.
    pub mean: Option<f64>,
    /// Over seeds; `None` for a single one.
    pub std: Option<f64>,
    /// The published value and its standard deviation; `None` where there is none.
    pub published: Option<Published>,
    /// Why it is undefined, where it is.
    pub undefined: Option<String>,
}

impl Comparison {
    /// Measured less published.
    pub fn difference(&self) -> Option<f64> {
        Some(self.mean? - self.published?.mean)
    }
}

impl Cell {
    /// The cell that `runs`, of which there is at least one, make up.
    pub fn of(setting: &Setting, runs: &[&Run]) -> Result<Cell> {
        let compare = |exponent: fn(&Exponents) -> &Exponent,
                       published: fn(&PublishedExponents) -> Option<Published>|
         -> Result<Comparison> {
            let mut undefined = Undefined::default();
            let slopes = |run: &&Run| Ok(exponent(&run.end.exponents).line("γ")?.slope);
            let values = runs.iter().map(slopes).collect::<Result<Vec<f64>>>();
            let values = undefined.or_value("γ", values)?;
            Ok(Comparison {
                mean: values.as_deref().map(mean).transpose()?,
                std: values.and_then(|values| standard_deviation(&values).ok()),
                published: setting.published.as_ref().and_then(published),
                undefined: undefined.reason("γ").map(String::from),
            })
        };
        let mean_of =
            |value: fn(&End) -> f64| mean(&runs.iter().map(|run| value(&run.end)).collect::<Vec<_>>());
        Ok(Cell {
            setting: *setting,
            runs: runs.len(),
            emp: compare(|exponents| &exponents.emp, |published| Some(published.emp))?,
            awd: compare(|exponents| &exponents.awd, |published| Some(published.awd))?,
            awd_raw: compare(|exponents| &exponents.awd_raw, |published| published.awd_raw)?,
            train_loss: mean_of(|end| end.loss)?,
            train_accuracy: mean_of(|end| end.accuracy)?,
        })
    }

    /// The exponents by their names.
    pub fn exponents(&self) -> [(&'static str, &Comparison); 3] {
        [("γ_emp", &self.emp), ("γ_AWD", &self.awd), ("γ′_AWD", &self.awd_raw)]
    }

    /// A sentence for each exponent that has a published value, or no value of its own.
    pub fn findings(&self) -> Vec<Finding> {
        let Setting { dataset, model, loss, classes, .. } = self.setting;
        let departures = self.setting.departures(self.train_accuracy);
        let of = |(symbol, comparison): (&str, &Comparison)| {
            let what = format!("{symbol} of {dataset}, {model}, {loss}, {classes} classes");
            if let Some(reason) = &comparison.undefined {
                return Some(Finding::undefined(format!("{what} is undefined: {reason}.")));
            }
            let (published, difference) = (comparison.published?, comparison.difference()?);
            let agrees = difference.abs() <= tolerance(loss);
            let sentence = format!(
                "{what}: {:.2} over {}, {:.2} published; {difference:+.3} apart, {} {}{}.",
                comparison.mean?,
                if self.runs == 1 { "one seed".into() } else { format!("{} seeds", self.runs) },
                published.mean,
                if agrees { "within" } else { "more than" },
                tolerance(loss),
                departing(&departures),
            );
            Some(Finding::new(agrees, sentence))
        };
        self.exponents().into_iter().filter_map(of).collect()
    }
}

/// Writes `table1.csv`, a row a run: each exponent with its 95 % bootstrap interval over directions; what is undefined
/// stays empty.
///
/// # Errors
/// [`Error::Io`](crate::Error::Io) where it cannot be written.
pub fn write_runs(out: &Path, runs: &[Run]) -> Result<()> {
    #[derive(Serialize)]
    struct Record {
        dataset: ImageSet,
        model: Architecture,
        loss: Loss,
        classes: usize,
        seed: u64,
        gamma_emp: Option<f64>,
        gamma_emp_low: Option<f64>,
        gamma_emp_high: Option<f64>,
        gamma_awd: Option<f64>,
        gamma_awd_low: Option<f64>,
        gamma_awd_high: Option<f64>,
        gamma_awd_raw: Option<f64>,
        gamma_awd_raw_low: Option<f64>,
        gamma_awd_raw_high: Option<f64>,
        train_loss: f64,
        train_accuracy: f64,
    }
    let records = runs.iter().map(|run| {
        let Exponents { emp, awd, awd_raw } = &run.end.exponents;
        let (low, high) = (
            |of: &Exponent| of.interval.map(|interval| interval.low),
            |of: &Exponent| of.interval.map(|interval| interval.high),
        );
        Record {
            dataset: run.training.dataset,
            model: run.training.model,
            loss: run.training.loss,
            classes: run.training.classes,
            seed: run.training.seed,
            gamma_emp: emp.slope(),
            gamma_emp_low: low(emp),
            gamma_emp_high: high(emp),
            gamma_awd: awd.slope(),
            gamma_awd_low: low(awd),
            gamma_awd_high: high(awd),
            gamma_awd_raw: awd_raw.slope(),
            gamma_awd_raw_low: low(awd_raw),
            gamma_awd_raw_high: high(awd_raw),
            train_loss: run.end.loss,
            train_accuracy: run.end.accuracy,
        }
    });
    write_csv(out.join("table1.csv"), records)
}

/// Writes `table1_summary.csv`, a row a cell; what is not known or undefined stays empty.
///
/// # Errors
/// [`Error::Io`](crate::Error::Io) where it cannot be written.
pub fn write_summary(out: &Path, cells: &[Cell]) -> Result<()> {
    #[derive(Serialize)]
    struct Record {
        dataset: ImageSet,
        model: Architecture,
        loss: Loss,
        classes: usize,
        runs: usize,
        gamma_emp_mean: Option<f64>,
        gamma_emp_std: Option<f64>,
        gamma_emp_published: Option<f64>,
        gamma_emp_published_std: Option<f64>,
        gamma_awd_mean: Option<f64>,
        gamma_awd_std: Option<f64>,
        gamma_awd_published: Option<f64>,
        gamma_awd_published_std: Option<f64>,
        gamma_awd_raw_mean: Option<f64>,
        gamma_awd_raw_std: Option<f64>,
        gamma_awd_raw_published: Option<f64>,
        gamma_awd_raw_published_std: Option<f64>,
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
        gamma_awd_raw_mean: cell.awd_raw.mean,
        gamma_awd_raw_std: cell.awd_raw.std,
        gamma_awd_raw_published: cell.awd_raw.published.map(|published| published.mean),
        gamma_awd_raw_published_std: cell.awd_raw.published.map(|published| published.std),
        train_loss: cell.train_loss,
        train_accuracy: cell.train_accuracy,
    });
    write_csv(out.join("table1_summary.csv"), records)
}

/// Tables 1 and 3 in one, as they are printed and set in the report.
pub fn table(cells: &[Cell]) -> Table {
    let columns = [
        "network",
        "loss",
        "classes",
        "seeds",
        "γ_emp",
        "published",
        "γ_AWD",
        "published",
        "γ′_AWD",
        "published",
        "train loss",
        "accuracy",
    ];
    let spread = |value: f64, std: Option<f64>| match std {
        Some(std) => format!("{value:.3} ± {std:.3}"),
        None => format!("{value:.3}"),
    };
    let compared = |comparison: &Comparison| {
        [
            told(comparison.mean, |mean| spread(mean, comparison.std)),
            comparison.published.map_or("–".into(), |p| format!("{:.2} ± {:.2}", p.mean, p.std)),
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
            row.extend([&cell.emp, &cell.awd, &cell.awd_raw].into_iter().flat_map(compared));
            row.push(format!("{:.3e}", cell.train_loss));
            row.push(format!("{:.2} %", 100.0 * cell.train_accuracy));
            row
        })
        .collect();
    Table { columns: columns.map(String::from).into(), rows, caption: String::new() }
}
