//! Figures 2 and 10–12: the diagonals of C and `E[h_p²]` against those of H, on logarithmic axes.

use std::path::Path;

use serde::Serialize;

use super::measures::{Diagonals, Exponents, positive_pairs};
use crate::report::plots::{Axis, Mark, Scale, Series, chart};
use crate::report::{Finding, write_csv, write_text};
use crate::stats::{LineFit, mean};
use crate::{Error, Result};

/// How far outside [1, 2] a fitted exponent may be and still count as within the bounds.
const SLACK: f64 = 0.05;

/// What was written, for the report.
#[derive(Clone, Debug)]
pub struct Scaling {
    pub svg: String,
    pub exponents: Exponents,
}

/// Writes `scaling.csv`, all D rows in descending order of H_ii (index from 1), and `scaling.svg`, the
/// leading `top` with their fits, into the folder `out`.
///
/// # Errors
/// [`Error::Io`] where they cannot be written; as
/// [`exponent`](super::measures::exponent) where no line can be fitted.
pub fn write(out: &Path, title: &str, diagonals: &Diagonals, top: usize) -> Result<Scaling> {
    #[derive(Serialize)]
    struct Record {
        index: usize,
        hessian: f64,
        covariance: f64,
        curvature_second_moment: f64,
    }
    let exponents = diagonals.exponents(top)?;
    let svg = plot(title, diagonals, &exponents, top)?;
    std::fs::create_dir_all(out).map_err(Error::io(out, "create folder"))?;
    let records = (0..diagonals.hessian.len()).map(|i| Record {
        index: i + 1,
        hessian: diagonals.hessian[i],
        covariance: diagonals.covariance[i],
        curvature_second_moment: diagonals.curvature_second_moment[i],
    });
    write_csv(out.join("scaling.csv"), records)?;
    write_text(out.join("scaling.svg"), &svg)?;
    Ok(Scaling { svg, exponents })
}

fn plot(title: &str, diagonals: &Diagonals, exponents: &Exponents, top: usize) -> Result<String> {
    let mut series = Vec::new();
    let kinds = [
        ("C", "γ_emp", &diagonals.covariance, exponents.emp),
        ("E[h²]", "γ_AWD", &diagonals.curvature_second_moment, exponents.awd),
    ];
    for (colour, (name, symbol, second, fit)) in kinds.into_iter().enumerate() {
        let points: Vec<(f64, f64)> = positive_pairs(&diagonals.hessian, second, top).collect();
        let ends = [points[0].0, points[points.len() - 1].0];
        let line = ends.map(|h| (h, 10f64.powf(fit.at(h.log10())))).to_vec();
        series.push(Series { name: name.into(), mark: Mark::Points, colour, points });
        series.push(Series {
            name: format!("{symbol} = {:.3} ± {:.3}", fit.slope, fit.slope_error),
            mark: Mark::Line,
            colour,
            points: line,
        });
    }
    // slopes 1 and 2 through the middle of C's points
    let points = &series[0].points;
    let logs: Vec<(f64, f64)> = points.iter().map(|p| (p.0.log10(), p.1.log10())).collect();
    let centre_x = mean(&logs.iter().map(|p| p.0).collect::<Vec<_>>());
    let centre_y = mean(&logs.iter().map(|p| p.1).collect::<Vec<_>>());
    let (first, last) = (points[0].0, points[points.len() - 1].0);
    for slope in [1.0, 2.0] {
        let guide = LineFit { slope, intercept: centre_y - slope * centre_x, slope_error: 0.0, points: 0 };
        series.push(Series {
            name: if slope == 1.0 { "slopes 1 and 2".into() } else { String::new() },
            mark: Mark::Guide,
            colour: 0,
            points: [first, last].map(|h| (h, 10f64.powf(guide.at(h.log10())))).to_vec(),
        });
    }
    let x = Axis { label: "Hᵢᵢ", scale: Scale::Log };
    let y = Axis { label: "Cᵢᵢ,  E[h²]ᵢᵢ", scale: Scale::Log };
    chart(title, x, y, &series)
}

/// Whether both exponents are within the bounds of Theorem 5.1 (eq. 20), and how close they are.
pub fn findings(exponents: &Exponents) -> Vec<Finding> {
    let bounded = |symbol: &str, fit: &LineFit| {
        let agrees = (1.0 - SLACK..=2.0 + SLACK).contains(&fit.slope);
        let place = if agrees { "within" } else { "outside" };
        Finding {
            agrees,
            sentence: format!(
                "{symbol} = {:.3} (standard error {:.3}, {} directions) is {place} the bounds 1 ≤ γ ≤ 2 of eq. 20, {SLACK} being allowed for.",
                fit.slope, fit.slope_error, fit.points,
            ),
        }
    };
    vec![bounded("γ_emp", &exponents.emp), bounded("γ_AWD", &exponents.awd)]
}
