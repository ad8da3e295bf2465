//! The experiment as files and figures, and what it says of the paper's claims.

use std::path::Path;

use serde::Serialize;

use super::{Change, STAGES, Stage, Suppression};
use crate::net::Loss;
use crate::papers::superlinear::claims::Claims;
use crate::papers::superlinear::measures::{positive_pairs, told_interval};
use crate::report::plots::{Axis, Mark, Scale, Series, chart, grid};
use crate::report::{Block, Finding, Table, write_csv, write_text};
use crate::stats::mean;
use crate::{Error, Result};

/// Directions that a panel shows, evenly spaced among the leading ones.
const SHOWN: usize = 250;
/// Directions whose cumulative contributions a panel shows.
const CURVES: usize = 40;
/// The modes of a sample that a panel shows: above the rank that ten outputs leave a piecewise linear network.
const MODES: usize = 10;
/// The share of a sample's κ₁ below which an eigenvalue is rounding, and is not shown.
const RESOLVED: f64 = 1e-6;
/// The share of C that first modes should exceed (Figures 13–15).
const DOMINANT: f64 = 0.8;
/// The decades, as a root mean square, by which a diagonal may change and still count as hardly changed: a
/// factor of 1.5.
const HARDLY: f64 = 0.176;
/// How far the exponent may fall, and the slope of the changed C against C from 1, to count as kept.
const KEPT: f64 = 0.1;

/// What was written, for the report.
#[derive(Clone, Debug)]
pub struct Figures {
    /// Figures 13–15: a row a stage.
    pub panels: String,
    /// Figure 3: C̃ against C with first modes alone, and with equal stiff ones.
    pub covariances: [String; 2],
    /// The experiment that the figures are of.
    pub suppression: Suppression,
}

/// Writes `suppression.csv` (all D directions in the order of the basis, index from 1),
/// `suppression_spectra.csv` (every sample's eigenvalues), `suppression.svg`, and Figure 3's panels
/// `suppression_first_modes.svg` and `suppression_equal.svg` into the folder `out`.
///
/// # Errors
/// [`Error::Io`] where they cannot be written, [`Error::Undefined`] where a plot has nothing to show.
pub fn write(out: &Path, title: &str, suppression: Suppression) -> Result<Figures> {
    let panels = panels(title, &suppression)?;
    let covariances = [1, 3].map(|stage| {
        let title = format!("{title}: {}", STAGES[stage]);
        let raw = &suppression.stages[0].covariance;
        against(&title, "2C/σ²", raw, &suppression.stages[stage].covariance, suppression.top)
    });
    let [first_modes, equal] = covariances;
    let covariances = [first_modes?, equal?];
    std::fs::create_dir_all(out).map_err(Error::io(out, "create folder"))?;
    write_tables(out, &suppression)?;
    write_text(out.join("suppression.svg"), &panels)?;
    write_text(out.join("suppression_first_modes.svg"), &covariances[0])?;
    write_text(out.join("suppression_equal.svg"), &covariances[1])?;
    Ok(Figures { panels, covariances, suppression })
}

impl Figures {
    /// What the report shows, beside what is published.
    ///
    /// # Errors
    /// As [`Suppression::first_mode`].
    pub fn blocks(&self, claims: &Claims) -> Result<Vec<Block>> {
        let caption = "The suppression experiment (the paper’s Figures 13–15). Rows: the samples’ spectra unchanged; all but first modes suppressed; first modes of samples that are not stiff suppressed too; stiff samples’ first eigenvalues made equal. Columns: C̃ against H̃; what modes 1 to k contribute to C̃; the spectra; C̃ against C; H̃ against H.";
        let pair = "C̃ against C with all but first modes suppressed, and with stiff samples’ first eigenvalues equal (the paper’s Figure 3).";
        Ok(vec![
            Block::Figures { svgs: vec![self.panels.clone()], caption: caption.into() },
            Block::Figures { svgs: self.covariances.to_vec(), caption: pair.into() },
            Block::Table(self.suppression.table(claims)),
            Block::Findings { findings: self.suppression.findings(claims)? },
        ])
    }
}

fn write_tables(out: &Path, suppression: &Suppression) -> Result<()> {
    #[derive(Serialize)]
    struct Direction {
        index: usize,
        hessian: f64,
        covariance: f64,
        /// The first modes' share of it, where there is any.
        first_mode: Option<f64>,
        hessian_first_modes: f64,
        covariance_first_modes: f64,
        hessian_stiff_first_modes: f64,
        covariance_stiff_first_modes: f64,
        hessian_equal: f64,
        covariance_equal: f64,
    }
    #[derive(Serialize)]
    struct Eigenvalue {
        sample: usize,
        stiff: bool,
        mode: usize,
        unchanged: f64,
        first_modes: f64,
        stiff_first_modes: f64,
        equal: f64,
    }
    let Suppression { stages: [unchanged, first, stiff, equal], modes, .. } = suppression;
    let directions = (0..unchanged.hessian.len()).map(|i| Direction {
        index: i + 1,
        hessian: unchanged.hessian[i],
        covariance: unchanged.covariance[i],
        first_mode: Some(unchanged.cumulative[(i, 0)]).filter(|share| share.is_finite()),
        hessian_first_modes: first.hessian[i],
        covariance_first_modes: first.covariance[i],
        hessian_stiff_first_modes: stiff.hessian[i],
        covariance_stiff_first_modes: stiff.covariance[i],
        hessian_equal: equal.hessian[i],
        covariance_equal: equal.covariance[i],
    });
    write_csv(out.join("suppression.csv"), directions)?;
    let eigenvalues = (0..unchanged.eigenvalues.len()).map(|n| Eigenvalue {
        sample: n / modes,
        stiff: suppression.stiff[n / modes],
        mode: n % modes + 1,
        unchanged: unchanged.eigenvalues[n],
        first_modes: first.eigenvalues[n],
        stiff_first_modes: stiff.eigenvalues[n],
        equal: equal.eigenvalues[n],
    });
    write_csv(out.join("suppression_spectra.csv"), eigenvalues)
}

/// A row a stage: C̃ against H̃, cumulative contributions, spectra, C̃ against C, H̃ against H.
fn panels(title: &str, suppression: &Suppression) -> Result<String> {
    let Suppression { stages, top, .. } = suppression;
    let mut charts = Vec::with_capacity(20);
    for (stage, name) in stages.iter().zip(STAGES) {
        charts.push(scaling(&format!("{title}: {name}"), stage, *top)?);
        charts.push(contributions(stage, *top)?);
        charts.push(spectra(suppression, stage)?);
        charts.push(against("C, changed", "2C/σ²", &stages[0].covariance, &stage.covariance, *top)?);
        charts.push(against("H, changed", "H", &stages[0].hessian, &stage.hessian, *top)?);
    }
    Ok(grid(&charts, 5))
}

/// At most [`SHOWN`] of the positive pairs among the leading `top`, evenly spaced.
fn shown(x: &[f64], y: &[f64], top: usize) -> Vec<(f64, f64)> {
    let pairs: Vec<(f64, f64)> = positive_pairs(x, y, top).collect();
    pairs.iter().step_by(pairs.len().div_ceil(SHOWN).max(1)).copied().collect()
}

fn points(name: String, points: Vec<(f64, f64)>) -> Series {
    Series { name, mark: Mark::Points, colour: 0, points }
}

fn scaling(title: &str, stage: &Stage, top: usize) -> Result<String> {
    let dots = shown(&stage.hessian, &stage.covariance, top);
    let (low, high) =
        dots.iter().fold((f64::INFINITY, 0.0f64), |(low, high), p| (low.min(p.0), high.max(p.0)));
    let gamma = &stage.gamma;
    let name = format!("γ = {:.3} [{}]", gamma.slope, told_interval(stage.interval, ", "));
    let line = [low, high].map(|h| (h, 10f64.powf(gamma.at(h.log10())))).to_vec();
    let fit = Series { name, mark: Mark::Line, colour: 1, points: line };
    let series = [points(String::new(), dots), fit];
    let axis = |label| Axis { label, scale: Scale::Log };
    chart(title, axis("Hᵢᵢ"), axis("2Cᵢᵢ/σ²"), &series)
}

/// The changed diagonal against the unchanged, and the line on which they are the same.
fn against(title: &str, symbol: &str, raw: &[f64], cooked: &[f64], top: usize) -> Result<String> {
    let dots = shown(raw, cooked, top);
    let span = dots.iter().flat_map(|p| [p.0, p.1]);
    let (low, high) = span.fold((f64::INFINITY, 0.0f64), |(low, high), x| (low.min(x), high.max(x)));
    let same = Series {
        name: "the same".into(),
        mark: Mark::Guide,
        colour: 0,
        points: vec![(low, low), (high, high)],
    };
    let (x, y) = (format!("{symbol}, unchanged"), format!("{symbol}, changed"));
    let [x, y] = [&x, &y].map(|label| Axis { label, scale: Scale::Log });
    chart(title, x, y, &[points(String::new(), dots), same])
}

/// All modes: negative eigenvalues are a sample's last, and those that vanish stand before them.
fn contributions(stage: &Stage, top: usize) -> Result<String> {
    let curve = |share: &dyn Fn(usize) -> f64| {
        (0..=stage.cumulative.ncols()).map(|k| (k as f64, if k == 0 { 0.0 } else { share(k) })).collect()
    };
    let top = top.min(stage.cumulative.nrows());
    let mut series: Vec<Series> = (0..top)
        .step_by(top.div_ceil(CURVES).max(1))
        .map(|i| curve(&|k| stage.cumulative[(i, k - 1)]))
        .map(|points| Series { name: String::new(), mark: Mark::Thin, colour: 0, points })
        .collect();
    let means = curve(&|k| mean(&stage.shares(k, top)).unwrap_or(f64::NAN));
    series.push(Series { name: "mean".into(), mark: Mark::Line, colour: 1, points: means });
    let axis = |label| Axis { label, scale: Scale::Linear };
    chart("Cumulative contributions", axis("modes 1 to k"), axis("share of 2Cᵢᵢ/σ²"), &series)
}

fn spectra(suppression: &Suppression, stage: &Stage) -> Result<String> {
    let modes = suppression.modes;
    let unchanged = suppression.stages[0].eigenvalues.chunks(modes);
    let mut series = Vec::new();
    let mut named = [false; 2];
    for ((raw, cooked), &stiff) in unchanged.zip(stage.eigenvalues.chunks(modes)).zip(&suppression.stiff) {
        let curve: Vec<(f64, f64)> = (0..MODES.min(modes))
            .filter(|&m| raw[m] > RESOLVED * raw[0])
            .map(|m| ((m + 1) as f64, cooked[m]))
            .collect();
        let colour = usize::from(stiff);
        let name = if std::mem::replace(&mut named[colour], true) { "" } else { ["others", "stiff"][colour] };
        series.push(Series { name: name.into(), mark: Mark::Thin, colour, points: curve });
    }
    let (x, y) = (Axis { label: "mode m", scale: Scale::Linear }, Axis { label: "κₘ", scale: Scale::Log });
    chart("Per-sample spectra", x, y, &series)
}

impl Suppression {
    /// A row a stage: γ, and how far C and H are from what they were.
    pub fn table(&self, claims: &Claims) -> Table {
        let columns =
            ["eigenvalues", "γ", "95 % interval", "slope of C", "decades of C", "slope of H", "decades of H"];
        let rows = self.stages.iter().zip(STAGES).map(|(stage, name)| {
            let [c, h] = [stage.covariance_change, stage.hessian_change];
            let mut row = vec![name.into(), format!("{:.3}", stage.gamma.slope)];
            row.push(told_interval(stage.interval, " – "));
            row.extend([c.slope, c.decades, h.slope, h.decades].map(|number| format!("{number:.3}")));
            row
        });
        Table {
            columns: columns.map(String::from).into(),
            rows: rows.collect(),
            caption: format!(
                "{} samples, of which {} are stiff at θ = {}{}, over the leading {} directions. Slopes are those of log-log lines against the unchanged diagonal, decades the root mean square of log₁₀ of the ratio to it.",
                self.stiff.len(),
                self.stiff_samples(),
                self.theta,
                if claims.suppression.is_some() { "" } else { " (the paper gives none for this network)" },
                self.top,
            ),
        }
    }

    fn stiff_samples(&self) -> usize {
        self.stiff.iter().filter(|&&stiff| stiff).count()
    }

    /// Each of the paper's claims, and whether it is borne out.
    ///
    /// # Errors
    /// As [`Suppression::first_mode`].
    pub fn findings(&self, claims: &Claims) -> Result<Vec<Finding>> {
        let [unchanged, first, stiff, equal] = &self.stages;
        let (share, least) = self.first_mode()?;
        let mut findings = vec![Finding::new(
            share > DOMINANT,
            format!(
                "First modes should make up more than {:.0} % of C: {:.1} % on average over the leading {} directions, {:.1} % at least.",
                100.0 * DOMINANT,
                100.0 * share,
                self.top,
                100.0 * least,
            ),
        )];
        for (stage, what) in [
            (first, "With all but first modes suppressed"),
            (stiff, "With the first modes of samples that are not stiff suppressed too"),
        ] {
            let changes = [
                ("C", stage.covariance_change, &stage.covariance, &unchanged.covariance),
                ("H", stage.hessian_change, &stage.hessian, &unchanged.hessian),
            ];
            for (symbol, change, left, whole) in changes {
                let trace = |diagonal: &[f64]| diagonal.iter().sum::<f64>();
                findings.push(Finding::new(
                    change.decades <= HARDLY,
                    format!(
                        "{what}, {symbol} should hardly change: by a factor of {:.2} (root mean square; up to {:.1} counts), with slope {:.3}; γ goes from {:.3} to {:.3}. {:.0} % of its trace is left.",
                        10f64.powf(change.decades),
                        10f64.powf(HARDLY),
                        change.slope,
                        unchanged.gamma.slope,
                        stage.gamma.slope,
                        100.0 * trace(left) / trace(whole),
                    ),
                ));
            }
        }
        findings.push(self.with_equal_modes(unchanged, equal));
        findings.extend(claims.suppression.iter().flat_map(|published| {
            let stiff =
                format!("The number of {} samples that are stiff at θ = {}", self.stiff.len(), self.theta);
            [
                claims.compare("γ of the unchanged spectra", unchanged.gamma.slope, published.gamma, 0.1),
                claims.compare(&stiff, self.stiff_samples() as f64, published.stiff as f64, 0.5),
            ]
        }));
        Ok(findings)
    }

    /// Section 5.3: with the stiff samples' κ₁ made equal, C stays as it was for MSE, and loses its
    /// superlinearity for the cross-entropy. That γ is then 1 is no finding: with one eigenvalue κ̄ left,
    /// `2C̃/σ_w² = κ̄ H̃` whatever the directions.
    fn with_equal_modes(&self, unchanged: &Stage, equal: &Stage) -> Finding {
        let fall = unchanged.gamma.slope - equal.gamma.slope;
        let Change { slope, decades } = equal.covariance_change;
        let kept = fall <= KEPT && slope >= 1.0 - KEPT;
        let (agrees, expected) = match self.loss {
            Loss::CrossEntropy => (!kept, "C should be distorted, and γ fall"),
            _ => (kept, "C and γ should stay nearly as they were"),
        };
        Finding::new(
            agrees,
            format!(
                "With the stiff samples’ first eigenvalues made equal, {expected}: log C changes with slope {slope:.3} and by a factor of {:.2} (root mean square), and γ goes from {:.3} to {:.3}; a slope from {:.1} and a fall up to {KEPT} count as kept. That γ is then 1 follows from there being one eigenvalue left.",
                10f64.powf(decades),
                unchanged.gamma.slope,
                equal.gamma.slope,
                1.0 - KEPT,
            ),
        )
    }
}
