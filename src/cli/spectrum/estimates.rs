//! What random vectors tell of one operator: the density of its spectrum, its trace, norm and diagonal.

use std::path::Path;

use serde::Serialize;
use serde_json::{Value, json};

use super::Operator;
use crate::data::write_tensors;
use crate::operators::SymmetricOperator;
use crate::report::plots::{Axis, Mark, Scale, Series, chart};
use crate::report::{write_csv, write_text};
use crate::spectral::{
    Density, Estimate, Hutchinson, Observer, QuadratureOptions, hutchinson, quadrature, xtrace,
};
use crate::{Error, Result};

/// Points of a density, and the deviation that each node is broadened to: as a share of the spectrum's range, and in
/// decades.
const POINTS: usize = 1000;
const BROADENING: f64 = 0.005;
const BROADENING_IN_DECADES: f64 = 0.1;
/// The smallest magnitude on the logarithmic axis, as a share of the largest: what is smaller is rounding.
const SMALLEST: f64 = 1e-7;

/// The files that a density is written to, beside its plot, and the one of a trace.
pub const DENSITY: [&str; 3] = ["density.csv", "density-log.csv", "density-log.svg"];
pub const DIAGONAL: &str = "diagonal.safetensors";

/// A row of `density.csv` and `density-log.csv`.
#[derive(Serialize)]
struct Row {
    eigenvalue: f64,
    density: f64,
    standard_error: f64,
}

fn rows(density: &Density, at: impl Fn(f64) -> f64) -> Vec<Row> {
    let Density { points, values, standard_errors } = density;
    let row =
        |i: usize| Row { eigenvalue: at(points[i]), density: values[i], standard_error: standard_errors[i] };
    (0..points.len()).map(row).collect()
}

/// A density as a line, without what lies more than eight decades below its top: there, the logarithmic axis would show
/// nothing but the tails of Gaussians.
fn curve(name: &str, colour: usize, density: &Density, at: impl Fn(f64) -> f64) -> Series {
    let floor = density.values.iter().fold(0.0f64, |top, &value| top.max(value)) * 1e-8;
    let points = density.points.iter().zip(&density.values);
    let points = points.filter(|point| *point.1 > floor).map(|(&point, &value)| (at(point), value)).collect();
    Series { name: name.into(), mark: Mark::Line, colour, points }
}

/// Writes `density.csv` (per unit of λ), `density-log.csv` (per decade of |λ|, positive and negative eigenvalues), the
/// plot `svg` of the one and `density-log.svg` of the other; returns what is printed and what goes into the record.
///
/// # Errors
/// [`Error::Undefined`] where all eigenvalues are 0, and nothing is written; those of [`quadrature`], and
/// [`Error::Io`] where a file cannot be written.
pub fn density(
    out: &Path,
    svg: &str,
    operator: &dyn SymmetricOperator,
    name: Operator,
    options: &QuadratureOptions,
    observer: &mut Observer,
) -> Result<(String, Value)> {
    let found = quadrature(operator, options, observer)?;
    let (low, high) = found.range();
    let largest = low.abs().max(high.abs());
    if largest <= operator.rounding()? {
        return Err(Error::undefined("the density", "all eigenvalues are 0"));
    }
    // of a multiple of the identity, the range is a point
    let span = if high - low > SMALLEST * largest { high - low } else { largest };
    let linear = found.density(POINTS, BROADENING * span)?;
    write_csv(out.join("density.csv"), rows(&linear, |at| at))?;
    let smallest = (SMALLEST * largest).max(f64::MIN_POSITIVE);
    let logarithmic = found.log_density(POINTS, BROADENING_IN_DECADES, smallest)?;
    let positive = rows(&logarithmic.positive, |at| 10f64.powf(at));
    let negative = rows(&logarithmic.negative, |at| -10f64.powf(at));
    write_csv(out.join("density-log.csv"), positive.into_iter().chain(negative))?;
    let title = format!("Spectral density of the {}", name.words());
    let plot = |label: &str, scale: Scale, series: &[Series]| {
        chart(&title, Axis { label, scale }, Axis { label: "density", scale: Scale::Log }, series)
    };
    write_text(out.join(svg), &plot("eigenvalue", Scale::Linear, &[curve("", 0, &linear, |at| at)])?)?;
    let sides = [("positive", 0, &logarithmic.positive), ("negative", 1, &logarithmic.negative)];
    let series = sides.map(|(name, colour, density)| curve(name, colour, density, |at| 10f64.powf(at)));
    let series: Vec<Series> = series.into_iter().filter(|series| !series.points.is_empty()).collect();
    write_text(out.join("density-log.svg"), &plot("|eigenvalue|", Scale::Log, &series)?)?;
    let QuadratureOptions { probes, steps, .. } = options;
    let products = found.products;
    let text = format!(
        "density by {probes} probes of {steps} steps, {products} products: from {low:.4e} to {high:.4e}"
    );
    let moments: Vec<Value> = (1..=4).map(|power| json(found.moment(power))).collect();
    Ok((text, json!({ "range": [low, high], "moments": moments, "products": products })))
}

/// Writes `diagonal.safetensors` (`diagonal` and `standard_error`, `[P]` each) with this metadata; returns what is printed and what goes
/// into the record.
pub fn trace(
    out: &Path,
    operator: &dyn SymmetricOperator,
    probes: usize,
    seed: u64,
    metadata: &[(&str, String)],
    observer: &mut Observer,
) -> Result<(Vec<String>, Value)> {
    let Hutchinson { trace, frobenius_norm, diagonal } = hutchinson(operator, probes, seed, observer)?;
    let estimates = [
        ("trace (Hutchinson)", "hutchinson", trace),
        ("trace (XTrace)", "xtrace", xtrace(operator, probes.max(4), seed, observer)?),
        ("Frobenius norm", "frobenius", frobenius_norm),
    ];
    let of =
        |value: &dyn Fn(&Estimate) -> f64| diagonal.iter().map(|e| value(e) as f32).collect::<Vec<f32>>();
    let (values, errors) = (of(&|e| e.value), of(&|e| e.standard_error));
    let shape = [values.len()];
    let tensors = [("diagonal", &shape[..], &values[..]), ("standard_error", &shape[..], &errors[..])];
    let metadata: Vec<(&str, &str)> = metadata.iter().map(|(key, text)| (*key, text.as_str())).collect();
    write_tensors(out.join(DIAGONAL), &tensors, &metadata)?;
    let line = |&(name, _, Estimate { value, standard_error, products }): &(&str, &str, Estimate)| {
        format!("{name:<22} {value:.6e} ± {standard_error:.1e}, {products} products")
    };
    let record = estimates.iter().map(|&(_, key, estimate)| (key.to_string(), json(estimate)));
    Ok((estimates.iter().map(line).collect(), Value::Object(record.collect())))
}

fn json(estimate: Estimate) -> Value {
    let Estimate { value, standard_error, products } = estimate;
    json!({ "value": value, "standard_error": standard_error, "products": products })
}
