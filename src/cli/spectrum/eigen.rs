//! The eigenpairs of one operator: found, watched, saved and written.

use std::path::Path;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::{Value, json};

use super::Operator;
use crate::cli::args::bar;
use crate::cli::stderr::tell;
use crate::cli::timed::Timed;
use crate::data::{Layout, TensorFile};
use crate::operators::SymmetricOperator;
use crate::report::plots::{Axis, Mark, Scale, Series, chart};
use crate::report::{write_csv, write_text};
use crate::runs::Run;
use crate::spectral::{Eigenpairs, Lanczos, LanczosOptions, Progress};
use crate::{Error, Result};

/// How often, at least, the state that a run resumes from is written.
const SAVE_EVERY: Duration = Duration::from_secs(60);
/// How often a run tells where it is when it is not watched.
const TELL_EVERY: Duration = Duration::from_secs(30);

/// The state that a run resumes from.
pub const STATE: &str = "lanczos.safetensors";
/// The results.
pub const RESULTS: [&str; 3] = ["eigenvalues.csv", "eigenvectors.safetensors", "spectrum.svg"];

/// What is to be found, and where it goes.
pub struct Wanted<'a> {
    pub run: &'a Run,
    /// The folder for the results.
    pub folder: &'a Path,
    /// What the names of the files begin with.
    pub files: &'a str,
    pub options: LanczosOptions,
    pub quiet: bool,
}

/// The eigenpairs of an operator.
pub struct Found {
    pub pairs: Eigenpairs,
    /// K.
    count: usize,
    tolerance: f64,
    /// Of the run that ended here, and of its products alone.
    seconds: [f64; 2],
}

/// A row of `eigenvalues.csv`.
#[derive(Serialize)]
struct Row {
    index: usize,
    eigenvalue: f64,
    residual: f64,
    converged: bool,
}

impl Wanted<'_> {
    /// Iterates to the end and writes [`RESULTS`].
    ///
    /// From time to time and at the end, the state that `--resume` takes up is put into the run's folder; it is for the
    /// caller to remove it once all results are in their places.
    pub fn find(&self, operator: &dyn SymmetricOperator, layout: &Layout, name: Operator) -> Result<Found> {
        let named = |name: &str| format!("{}{name}", self.files);
        let (key, how) = self.run.metadata();
        let start = Instant::now();
        let timed = Timed::new(operator);
        let state = self.run.path(&named(STATE));
        let mut lanczos = match self.run.resumes() && state.exists() {
            true => {
                self.run.check_state(&state, &TensorFile::read(&state)?)?;
                Lanczos::resume(&timed, self.options.clone(), &state)?
            }
            false => Lanczos::new(&timed, self.options.clone())?,
        };
        let (layout_key, layout) = layout.metadata();
        let metadata = [(key, &*how), (layout_key, &layout)];
        let save =
            |lanczos: &Lanczos<_>| self.run.save(|folder| lanczos.save(folder.join(named(STATE)), &metadata));
        let count = self.options.count;
        let bar = bar(self.quiet, count as u64, "{pos}/{len} eigenpairs {bar:24} {msg}");
        let watched = !bar.is_hidden();
        let (mut saved, mut told, before) = (Instant::now(), Instant::now(), lanczos.progress().products);
        while lanczos.step()? {
            let progress = lanczos.progress();
            let line = line(&progress, progress.products - before, start.elapsed());
            bar.set_position(progress.done as u64);
            bar.set_message(line.clone());
            if !watched && !self.quiet && told.elapsed() >= TELL_EVERY {
                tell(format!("{}: {} of {count} eigenpairs, {line}", name.words(), progress.done));
                told = Instant::now();
            }
            if saved.elapsed() >= SAVE_EVERY {
                save(&lanczos)?;
                saved = Instant::now();
            }
        }
        bar.finish_and_clear();
        save(&lanczos)?;
        let (pairs, tolerance) = (lanczos.finish()?, self.options.tolerance);
        let seconds = [start.elapsed().as_secs_f64(), timed.seconds()];
        let found = Found { pairs, count, tolerance, seconds };
        let [values, vectors, plot] = RESULTS.map(|name| self.folder.join(named(name)));
        write_csv(values, found.rows())?;
        found.pairs.save(operator, vectors, &metadata)?;
        write_text(plot, &found.plot(name)?)?;
        Ok(found)
    }
}

/// What a progress bar says beside the converged pairs.
fn line(progress: &Progress, done: usize, elapsed: Duration) -> String {
    let mut line = format!("{} products", progress.products);
    if let (Some(left), true) = (progress.remaining, done > 0) {
        let seconds = elapsed.as_secs_f64() / done as f64 * left as f64;
        line += &format!(", about {left} and {seconds:.0} s left");
    }
    line
}

impl Found {
    fn rows(&self) -> Vec<Row> {
        let Eigenpairs { values, residuals, converged, .. } = &self.pairs;
        let row = |index: usize| Row {
            index: index + 1,
            eigenvalue: values[index],
            residual: residuals[index],
            converged: converged[index],
        };
        (0..values.len()).map(row).collect()
    }

    fn plot(&self, name: Operator) -> Result<String> {
        let values = self.pairs.values.iter().enumerate();
        let points: Vec<(f64, f64)> = values.map(|(i, &value)| ((i + 1) as f64, value)).collect();
        // a logarithmic axis would leave out what is not positive
        let scale = if points.iter().all(|p| p.1 > 0.0) { Scale::Log } else { Scale::Linear };
        let series = Series { name: String::new(), mark: Mark::Points, colour: 0, points };
        let axes =
            [("index", Scale::Linear), ("eigenvalue", scale)].map(|(label, scale)| Axis { label, scale });
        chart(&format!("Eigenvalues of the {}", name.words()), axes[0], axes[1], &[series])
    }

    fn converged(&self) -> usize {
        self.pairs.converged.iter().filter(|&&converged| converged).count()
    }

    /// Appends what is printed: the first few pairs.
    pub fn tell(&self, lines: &mut Vec<String>) {
        const SHOWN: usize = 20;
        let rows = self.rows();
        lines.push(format!("{:>6}  {:>14}  {:>9}", "index", "eigenvalue", "residual"));
        for Row { index, eigenvalue, residual, converged } in rows.iter().take(SHOWN) {
            let mark = if *converged { "" } else { "  not converged" };
            lines.push(format!("{index:>6}  {eigenvalue:>14.7e}  {residual:>9.1e}{mark}"));
        }
        if rows.len() > SHOWN {
            lines.push(format!("{:>6}  in eigenvalues.csv", "…"));
        }
        if self.pairs.scale == 0.0 {
            lines.push("all vectors that were multiplied gave 0: each of them is an eigenvector".into());
        }
        lines.push(format!(
            "{} of {} converged to {:e}, {} products, {:.1} s of which {:.1} s are not products",
            self.converged(),
            self.count,
            self.tolerance,
            self.pairs.products,
            self.seconds[0],
            self.seconds[0] - self.seconds[1],
        ));
    }

    pub fn json(&self) -> Value {
        json!({
            "floor": self.pairs.floor,
            "eigenvalues": self.pairs.values, "residuals": self.pairs.residuals,
            "converged": self.pairs.converged, "complete": self.pairs.complete, "products": self.pairs.products,
            "seconds": self.seconds[0], "seconds_in_products": self.seconds[1],
        })
    }

    /// What is wrong, where something has not converged or may be missing.
    pub fn unconverged(&self, name: Operator) -> Option<Error> {
        let (converged, wanted) = (self.converged(), self.count);
        let within = format!("within {} products", self.pairs.products);
        let problem = match (converged < wanted, self.pairs.complete, self.pairs.floor) {
            (true, _, Some(floor)) => format!(
                "converged to {:e}: single precision reaches residuals of {floor:.1e} here, and more products would not lower them",
                self.tolerance,
            ),
            (true, _, None) => format!("converged {within}"),
            (false, false, _) => format!("converged but were not shown to be the first {within}"),
            (false, true, _) => return None,
        };
        Some(Error::NotConverged { of: name.words().to_string(), converged, wanted, problem })
    }
}
