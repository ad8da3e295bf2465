//! Two operators of one checkpoint beside each other: the noise–curvature report.

use std::path::Path;

use serde::Serialize;
use serde_json::{Value, json};

use super::Operator;
use super::eigen::Found;
use crate::Result;
use crate::operators::SymmetricOperator;
use crate::report::plots::{Axis, Mark, Scale, Series, chart};
use crate::report::{Block, Page, Section, Table, write_csv, write_text};
use crate::spectral::Comparison;
use crate::stats::{LineFit, fit_line, spearman};

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
    /// γ in `B_ii ∝ A_ii^γ`; `None` for fewer than three pairs of positive values.
    exponent: Option<LineFit>,
    /// Spearman's ρ of A_ii and B_ii; `None` for fewer than two.
    rank_correlation: Option<f64>,
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
    overlap: f64,
}

impl Report<'_> {
    /// Measures, and writes `comparison.csv`, `comparison.svg`, `overlap.svg` and `report.html`.
    pub fn write(&self) -> Result<Compared> {
        let [(a, of_a, found_a), (b, of_b, found_b)] = self.operators;
        let pairs = [&found_a.pairs, &found_b.pairs];
        let measured = Comparison::measure((a, pairs[0]), (b, pairs[1]), self.probes, self.seed)?;
        let positive = || {
            let both = measured.eigenvalues.iter().zip(&measured.diagonal);
            both.filter(|&(&x, &y)| x > 0.0 && y > 0.0).map(|(x, y)| (x.log10(), y.log10()))
        };
        let (x, y): (Vec<f64>, Vec<f64>) = positive().unzip();
        let compared = Compared {
            names: [of_a, of_b],
            dim: a.dim(),
            exponent: fit_line(&x, &y).ok(),
            rank_correlation: spearman(&measured.eigenvalues, &measured.diagonal).ok(),
            measured,
        };
        let plots = compared.plots()?;
        write_csv(self.out.join("comparison.csv"), compared.rows())?;
        for (name, svg) in ["comparison.svg", "overlap.svg"].into_iter().zip(&plots) {
            write_text(self.out.join(name), svg)?;
        }
        write_text(self.out.join("report.html"), &compared.page(plots, self.how_made).render()?)?;
        Ok(compared)
    }
}

impl Compared {
    fn rows(&self) -> Vec<Row> {
        let Comparison { eigenvalues, diagonal, overlap, .. } = &self.measured;
        let row = |(i, overlap): (usize, &f64)| Row {
            index: i + 1,
            eigenvalue: eigenvalues[i],
            diagonal: diagonal[i],
            overlap: *overlap,
        };
        overlap.iter().enumerate().map(row).collect()
    }

    /// Name, value and meaning of each measure.
    fn measures(&self) -> Vec<[String; 3]> {
        let [a, b] = self.names.map(Operator::words);
        let k = self.measured.overlap.len();
        let mut measures = Vec::new();
        if let Some(overlap) = self.measured.overlap.last() {
            let meaning = format!(
                "share of the first {k} eigenvectors of the {a} that those of the {b} span; unrelated spaces have {:.1e}",
                k as f64 / self.dim as f64
            );
            measures.push(["overlap".into(), format!("{overlap:.4}"), meaning]);
        }
        if let Some(LineFit { slope, slope_error, points, .. }) = self.exponent {
            let meaning = format!("{b} ∝ ({a})^γ along the {a}'s eigenvectors, over {points} of them");
            measures.push(["γ".into(), format!("{slope:.3} ± {slope_error:.3}"), meaning]);
        }
        if let Some(rho) = self.rank_correlation {
            measures.push(["Spearman's ρ".into(), format!("{rho:.4}"), "of the same two diagonals".into()]);
        }
        let (error, spread) = (self.measured.commutativity_error, self.measured.commutativity_standard_error);
        measures.push([
            "commutativity error".into(),
            format!("{error:.4} ± {spread:.4}"),
            "‖AB − BA‖ / ‖AB‖ in the Frobenius norm: 0 where they commute, √2 where they are unrelated"
                .into(),
        ]);
        measures
    }

    /// Appends what is printed.
    pub fn tell(&self, lines: &mut Vec<String>) {
        let [a, b] = self.names.map(Operator::words);
        lines.push(format!("{a} and {b}:"));
        lines.extend(self.measures().iter().map(|[name, value, _]| format!("  {name:<20} {value}")));
    }

    pub fn json(&self) -> Value {
        json!({
            "with": self.names[1].name(), "overlap": self.measured.overlap, "diagonal": self.measured.diagonal,
            "exponent": self.exponent, "rank_correlation": self.rank_correlation,
            "commutativity_error": self.measured.commutativity_error,
            "commutativity_standard_error": self.measured.commutativity_standard_error,
            "products": self.measured.products,
        })
    }

    /// The diagonals against each other, and the overlap by the number of eigenvectors.
    fn plots(&self) -> Result<Vec<String>> {
        let [a, b] = self.names.map(Operator::words);
        let Comparison { eigenvalues, diagonal, overlap, .. } = &self.measured;
        let points: Vec<(f64, f64)> = eigenvalues.iter().copied().zip(diagonal.iter().copied()).collect();
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
        let counted = |value: &dyn Fn(usize) -> f64| {
            (1..=overlap.len()).map(|k| (k as f64, value(k))).collect::<Vec<(f64, f64)>>()
        };
        let by_count = [
            Series {
                name: "measured".into(),
                mark: if overlap.len() > 1 { Mark::Line } else { Mark::Points },
                colour: 0,
                points: counted(&|k| overlap[k - 1]),
            },
            Series {
                name: "unrelated".into(),
                mark: Mark::Guide,
                colour: 1,
                points: counted(&|k| k as f64 / self.dim as f64),
            },
        ];
        let linear = |label| Axis { label, scale: Scale::Linear };
        let overlaps = chart(
            "Overlap of the leading subspaces",
            linear("eigenvectors of each"),
            linear("overlap"),
            &by_count,
        )?;
        Ok(vec![diagonals, overlaps])
    }

    fn page(&self, svgs: Vec<String>, how_made: &Value) -> Page {
        let [a, b] = self.names.map(Operator::words);
        let table = Table {
            columns: ["measure", "value", "meaning"].map(String::from).to_vec(),
            rows: self.measures().into_iter().map(|row| row.to_vec()).collect(),
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
                            "Left: uᵢᵀ B uᵢ against uᵢᵀ A uᵢ for the eigenvectors uᵢ of A, the {a}. Right: ‖UₖᵀVₖ‖²/k of the first k eigenvectors of A and B."
                        ),
                    },
                ],
            }],
            how_made: how_made.map(|(name, value)| (name.clone(), flat(value))).collect(),
        }
    }
}
