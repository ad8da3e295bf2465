//! Two operators of one checkpoint beside each other: the noise–curvature report.

use std::path::Path;

use serde::Serialize;
use serde_json::{Value, json};

use super::Operator;
use super::eigen::Found;
use crate::operators::SymmetricOperator;
use crate::report::plots::{Axis, Mark, Scale, Series, chart};
use crate::report::{Block, Page, Section, Table, told, write_csv, write_text};
use crate::spectral::{Comparison, Observer};
use crate::stats::{LineFit, fit_line, spearman};
use crate::{Result, Undefined};

/// The files that a comparison is written to.
pub const RESULTS: [&str; 4] = ["comparison.csv", "comparison.svg", "overlap.svg", "report.html"];

/// What is compared, and where it goes.
pub struct Report<'a> {
    pub out: &'a Path,
    pub operators: [(&'a dyn SymmetricOperator, Operator, &'a Found); 2],
    pub probes: usize,
    pub seed: u64,
    pub how_made: &'a Value,
}

/// The measures, and what they come to.
pub struct Compared {
    names: [Operator; 2],
    dim: usize,
    measured: Comparison,
    /// γ in `B_ii ∝ A_ii^γ`, over the pairs of positive values that are told from 0.
    exponent: Option<LineFit>,
    /// Spearman's ρ of A_ii and B_ii.
    rank_correlation: Option<f64>,
    /// Why a measure has no value.
    undefined: Undefined,
}

/// A measure as it is shown.
struct Measure {
    name: &'static str,
    value: Option<String>,
    /// What it means; why it is undefined, where it has no value.
    note: String,
}

/// A row of `comparison.csv`: eigenvector i of the first operator.
#[derive(Serialize)]
struct Row {
    index: usize,
    /// `u_iᵀ A u_i`
    eigenvalue: f64,
    /// `u_iᵀ B u_i`
    diagonal: f64,
    /// `‖U_iᵀ V_i‖_F² / i` of the first i eigenvectors of each
    overlap: Option<f64>,
}

impl Report<'_> {
    /// Measures, and writes `comparison.csv`, `comparison.svg`, `overlap.svg` where there is an overlap, and
    /// `report.html`.
    pub fn write(&self, observer: &mut Observer) -> Result<Compared> {
        let [(a, of_a, found_a), (b, of_b, found_b)] = self.operators;
        let pairs = [&found_a.pairs, &found_b.pairs];
        let measured = Comparison::measure((a, pairs[0]), (b, pairs[1]), self.probes, self.seed, observer)?;
        let mut undefined = measured.undefined.clone();
        let told: Vec<(f64, f64)> = points(&measured)
            .zip(&measured.resolved)
            .filter(|(_, told)| **told)
            .map(|(point, _)| point)
            .collect();
        let positive = told.iter().filter(|&&(x, y)| x > 0.0 && y > 0.0);
        let (x, y): (Vec<f64>, Vec<f64>) = positive.map(|(x, y)| (x.log10(), y.log10())).unzip();
        let (of_a_told, of_b_told): (Vec<f64>, Vec<f64>) = told.into_iter().unzip();
        let compared = Compared {
            names: [of_a, of_b],
            dim: a.dim(),
            exponent: undefined.or_value("exponent", fit_line(&x, &y))?,
            rank_correlation: undefined.or_value("rank_correlation", spearman(&of_a_told, &of_b_told))?,
            measured,
            undefined,
        };
        let plots = compared.plots()?;
        write_csv(self.out.join("comparison.csv"), compared.rows())?;
        for (name, svg) in &plots {
            write_text(self.out.join(name), svg)?;
        }
        let svgs = plots.into_iter().map(|(_, svg)| svg).collect();
        write_text(self.out.join("report.html"), &compared.page(svgs, self.how_made).render()?)?;
        Ok(compared)
    }
}

impl Compared {
    fn rows(&self) -> Vec<Row> {
        let Comparison { eigenvalues, diagonal, overlap, .. } = &self.measured;
        let row = |(i, overlap): (usize, &Option<f64>)| Row {
            index: i + 1,
            eigenvalue: eigenvalues[i],
            diagonal: diagonal[i],
            overlap: *overlap,
        };
        overlap.iter().enumerate().map(row).collect()
    }

    fn measures(&self) -> [Measure; 4] {
        let [a, b] = self.names.map(Operator::words);
        let measured = &self.measured;
        let reason = |key: &str| self.undefined.reason(key).unwrap_or_default().to_string();
        let measure = |key: &str, name: &'static str, value: Option<[String; 2]>| {
            let note = value.as_ref().map_or_else(|| reason(key), |[_, meaning]| meaning.clone());
            Measure { name, value: value.map(|[value, _]| value), note }
        };
        let last = measured.overlap.iter().rposition(Option::is_some);
        let overlap = last.and_then(|at| Some((at + 1, measured.overlap[at]?))).map(|(k, overlap)| {
            let unrelated = k as f64 / self.dim as f64;
            let mut meaning = format!(
                "share of the first {k} eigenvectors of the {a} that those of the {b} span; unrelated spaces have {unrelated:.1e}"
            );
            if k < measured.overlap.len() {
                meaning += &format!("; undefined for {}: {}", measured.overlap.len(), reason("overlap"));
            }
            [format!("{overlap:.4}"), meaning]
        });
        let exponent = self.exponent.map(|LineFit { slope, slope_error, points, .. }| {
            let meaning = format!("{b} ∝ ({a})^γ along the {a}'s eigenvectors, over {points} of them");
            [format!("{slope:.3} ± {slope_error:.3}"), meaning]
        });
        let rank = self.rank_correlation.map(|rho| [format!("{rho:.4}"), "of the same two diagonals".into()]);
        let error = measured.commutativity_error.zip(measured.commutativity_standard_error);
        let error = error.map(|(error, spread)| {
            let meaning =
                "‖AB − BA‖ / ‖AB‖ in the Frobenius norm: 0 where they commute, √2 where they are unrelated";
            [format!("{error:.4} ± {spread:.4}"), meaning.into()]
        });
        [
            measure("overlap", "overlap", overlap),
            measure("exponent", "γ", exponent),
            measure("rank_correlation", "Spearman's ρ", rank),
            measure("commutativity_error", "commutativity error", error),
        ]
    }

    /// What is wrong where a measure has no value.
    pub fn missing(&self) -> Option<String> {
        let measures = self.measures();
        let [a, b] = self.names.map(Operator::words);
        let because = |measure: &Measure| format!("{} ({})", measure.name, measure.note);
        let without: Vec<String> =
            measures.iter().filter(|measure| measure.value.is_none()).map(because).collect();
        (!without.is_empty()).then(|| format!("{a} and {b}: undefined: {}", without.join(", ")))
    }

    /// Appends what is printed.
    pub fn tell(&self, lines: &mut Vec<String>) {
        let [a, b] = self.names.map(Operator::words);
        lines.push(format!("{a} and {b}:"));
        lines.extend(self.measures().into_iter().map(|Measure { name, value, note }| {
            format!("  {name:<20} {}", value.unwrap_or_else(|| format!("undefined: {note}")))
        }));
    }

    pub fn json(&self) -> Value {
        json!({
            "with": self.names[1].name(), "overlap": self.measured.overlap, "diagonal": self.measured.diagonal,
            "exponent": self.exponent, "rank_correlation": self.rank_correlation,
            "commutativity_error": self.measured.commutativity_error,
            "commutativity_standard_error": self.measured.commutativity_standard_error,
            "products": self.measured.products, "undefined": self.undefined,
        })
    }

    /// The diagonals against each other, and the overlap by the number of eigenvectors, where there is one; with the
    /// names of their files.
    fn plots(&self) -> Result<Vec<(&'static str, String)>> {
        let [a, b] = self.names.map(Operator::words);
        let overlap = &self.measured.overlap;
        let points: Vec<(f64, f64)> = points(&self.measured).collect();
        let positive = points.iter().any(|&(x, y)| x > 0.0 && y > 0.0);
        let scale = if positive { Scale::Log } else { Scale::Linear };
        let mut series = vec![Series {
            name: "eigenvectors".into(),
            mark: Mark::Points,
            colour: 0,
            points: points.clone(),
        }];
        if let (Some(fit), true) = (self.exponent, positive) {
            let line = |&(x, _): &(f64, f64)| (x, 10f64.powf(fit.at(x.log10())));
            let mut ends: Vec<(f64, f64)> = points.iter().filter(|p| p.0 > 0.0).map(line).collect();
            ends.sort_by(|p, q| p.0.total_cmp(&q.0));
            ends.dedup();
            let ends = [ends.first(), ends.last()].into_iter().flatten().copied().collect();
            let name = format!("γ = {:.2}", fit.slope);
            series.push(Series { name, mark: Mark::Line, colour: 1, points: ends });
        }
        let (x, y) = (format!("along an eigenvector: {a}"), b.to_string());
        let diagonals = chart("Diagonals", Axis { label: &x, scale }, Axis { label: &y, scale }, &series)?;
        let mut plots = vec![("comparison.svg", diagonals)];
        let counted = (1..).zip(overlap).map(|(k, overlap)| (k as f64, *overlap));
        let measured: Vec<(f64, f64)> = counted.filter_map(|(k, overlap)| Some((k, overlap?))).collect();
        if measured.is_empty() {
            return Ok(plots);
        }
        let by_count = [
            Series {
                name: "measured".into(),
                mark: if measured.len() > 1 { Mark::Line } else { Mark::Points },
                colour: 0,
                points: measured,
            },
            Series {
                name: "unrelated".into(),
                mark: Mark::Guide,
                colour: 1,
                points: [1.0, overlap.len() as f64].map(|k| (k, k / self.dim as f64)).to_vec(),
            },
        ];
        let linear = |label| Axis { label, scale: Scale::Linear };
        let overlaps = chart(
            "Overlap of the leading subspaces",
            linear("eigenvectors of each"),
            linear("overlap"),
            &by_count,
        )?;
        plots.push(("overlap.svg", overlaps));
        Ok(plots)
    }

    fn page(&self, svgs: Vec<String>, how_made: &Value) -> Page {
        let [a, b] = self.names.map(Operator::words);
        let table = Table {
            columns: ["measure", "value", "meaning"].map(String::from).to_vec(),
            rows: self
                .measures()
                .into_iter()
                .map(|Measure { name, value, note }| vec![name.into(), told(value, |value| value), note])
                .collect(),
            caption: format!("A: the {a}, B: the {b}, on {} parameters.", self.dim),
        };
        let flat = |value: &Value| match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let how_made = how_made.as_object().into_iter().flatten();
        Page {
            title: format!("The {a} and the {b}"),
            lead: vec![format!(
                "The leading eigenvectors of the {a} and of the {b} of one checkpoint, found by block Lanczos, each with its residual in eigenvalues.csv; and how far the two share their directions, their order and their scale."
            )],
            sections: vec![Section {
                heading: "Measures".into(),
                blocks: vec![
                    Block::Table(table),
                    Block::Figures {
                        svgs,
                        caption: format!(
                            "Left: uᵢᵀ B uᵢ against uᵢᵀ A uᵢ for the eigenvectors uᵢ of A, the {a}. Right, where it is defined: ‖UₖᵀVₖ‖²/k of the first k eigenvectors of A and B."
                        ),
                    },
                ],
            }],
            how_made: how_made.map(|(name, value)| (name.clone(), flat(value))).collect(),
        }
    }
}

/// `(u_iᵀ A u_i, u_iᵀ B u_i)` of each eigenvector.
fn points(measured: &Comparison) -> impl Iterator<Item = (f64, f64)> {
    measured.eigenvalues.iter().copied().zip(measured.diagonal.iter().copied())
}
