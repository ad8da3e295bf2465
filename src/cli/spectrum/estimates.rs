//! What random vectors tell of one operator: the density of its spectrum, its trace, norm and diagonal.

use std::path::Path;

use serde::Serialize;
use serde_json::{Value, json};

use super::Operator;
use crate::Result;
use crate::data::write_tensors;
use crate::operators::SymmetricOperator;
use crate::report::plots::{Axis, Mark, Scale, Series, chart};
use crate::report::{write_csv, write_text};
use crate::spectral::{
    Density, Estimate, Hutchinson, Quadrature, QuadratureOptions, hutchinson, quadrature, x_trace,
};

/// Points of a density, and the deviation that each node is broadened to: of the spectrum's range, and in decades.
const POINTS: usize = 1000;
const BROADENING: f64 = 0.005;
const BROADENING_IN_DECADES: f64 = 0.1;

/// A row of `density.csv` and `density-log.csv`.
#[derive(Serialize)]
struct Row {
    eigenvalue: f64,
    density: f64,
    standard_error: f64,
}

fn rows(density: &Density, sign: f64) -> impl Iterator<Item = Row> + '_ {
    let Density { at, density, standard_error } = density;
    (0..at.len()).map(move |i| Row {
        eigenvalue: sign * at[i],
        density: density[i],
        standard_error: standard_error[i],
    })
}

/// Writes `density.csv` (per unit of λ), `density-log.csv` (per decade of |λ|, positive and negative eigenvalues) and
/// the plot `svg`; returns what is printed and what goes into the record.
pub fn density(
    out: &Path,
    svg: &str,
    operator: &dyn SymmetricOperator,
    name: Operator,
    options: &QuadratureOptions,
) -> Result<(String, Value)> {
    let found: Quadrature = quadrature(operator, options)?;
    let linear = found.density(POINTS, BROADENING)?;
    write_csv(out.join("density.csv"), rows(&linear, 1.0))?;
    // a sign that no eigenvalue has makes no rows
    let of_sign = |sign: f64| found.log_density(sign, POINTS, BROADENING_IN_DECADES).ok().map(|d| (sign, d));
    let logarithmic: Vec<(f64, Density)> = [1.0, -1.0].into_iter().filter_map(of_sign).collect();
    write_csv(out.join("density-log.csv"), logarithmic.iter().flat_map(|(sign, d)| rows(d, *sign)))?;
    let points: Vec<(f64, f64)> = linear.at.iter().copied().zip(linear.density.iter().copied()).collect();
    let floor = points.iter().fold(0.0f64, |top, p| top.max(p.1)) * 1e-8;
    let series = Series {
        name: String::new(),
        mark: Mark::Line,
        colour: 0,
        points: points.into_iter().filter(|p| p.1 > floor).collect(),
    };
    let axes = [("eigenvalue", Scale::Linear), ("density", Scale::Log)];
    let [x, y] = axes.map(|(label, scale)| Axis { label, scale });
    write_text(
        out.join(svg),
        &chart(&format!("Spectral density of the {}", name.words()), x, y, &[series])?,
    )?;
    let moment = |power: i32| found.integrate(|value| value.powi(power));
    let (low, high) = found.range();
    let text = format!(
        "density by {} probes of {} steps, {} products: from {low:.4e} to {high:.4e}",
        options.probes, options.steps, found.products
    );
    let moments: Vec<Value> = (1..=4).map(|power| json!([moment(power).0, moment(power).1])).collect();
    Ok((
        text,
        json!({ "range": [low, high], "moments": moments, "products": found.products, "rules": found.rules }),
    ))
}

/// Writes `diagonal.safetensors` (`diagonal` and `standard_error`, `[P]` each); returns what is printed and what goes
/// into the record.
pub fn trace(
    out: &Path,
    operator: &dyn SymmetricOperator,
    probes: usize,
    seed: u64,
    how_made: &str,
) -> Result<(Vec<String>, Value)> {
    let Hutchinson { trace, frobenius, diagonal, diagonal_standard_error } =
        hutchinson(operator, probes, seed)?;
    // as many products as the probes' own
    let better = x_trace(operator, probes.max(4), seed)?;
    let single = |values: &[f64]| values.iter().map(|&value| value as f32).collect::<Vec<f32>>();
    let (diagonal, errors) = (single(&diagonal), single(&diagonal_standard_error));
    let shape = [diagonal.len()];
    let tensors = [("diagonal", &shape[..], &diagonal[..]), ("standard_error", &shape[..], &errors[..])];
    write_tensors(out.join("diagonal.safetensors"), &tensors, &[("run", how_made)])?;
    let line = |name: &str, Estimate { value, standard_error, products }: Estimate| {
        format!("{name:<22} {value:.6e} ± {standard_error:.1e}, {products} products")
    };
    let json =
        |e: Estimate| json!({ "value": e.value, "standard_error": e.standard_error, "products": e.products });
    Ok((
        vec![
            line("trace (Hutchinson)", trace),
            line("trace (XTrace)", better),
            line("Frobenius norm", frobenius),
        ],
        json!({ "hutchinson": json(trace), "xtrace": json(better), "frobenius": json(frobenius) }),
    ))
}
