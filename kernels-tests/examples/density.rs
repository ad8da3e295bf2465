//! The density of a small network's Hessian by stochastic Lanczos quadrature, over the histogram of its exact
//! eigenvalues: those of the dense f64 Hessian by dual numbers, which shares no code with the engine.
//!
//! `cargo run --release -p kernels-tests --example density -- MODEL WEIGHTS MNIST OUT` takes the first 500 images in the
//! folder MNIST and cross-entropy, writes `OUT/exact.svg` and `OUT/exact-log.svg`, and prints the first two moments.

use std::path::PathBuf;

use curvkit::data::{Selection, Split, mnist, read_parameters};
use curvkit::gpu::{Gpu, GpuOptions};
use curvkit::net::{Loss, Model, Network};
use curvkit::operators::{Curvature, Session};
use curvkit::report::plots::{Axis, Mark, Scale, Series, chart};
use curvkit::report::write_text;
use curvkit::spectral::{Density, Estimate, QuadratureOptions, hutchinson, quadrature, unobserved};
use kernels_tests::reference;
use kernels_tests::spectra::{decomposed, largest};

/// The standard deviation that a node is broadened to, as a share of the spectrum's range and in decades; a bin of the
/// histogram is two of them.
const SIGMA: f64 = 0.005;
const DECADES: f64 = 0.1;

fn main() -> curvkit::Result<()> {
    let arguments: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [model, weights, images, out] = &arguments[..] else { panic!("expected MODEL WEIGHTS MNIST OUT") };
    let model = Model::open(model)?;
    let network = Network::new(&model)?;
    let theta = read_parameters(weights, &network.signature())?;
    let some = Selection { classes: None, per_class: None, limit: Some(500) };
    let data = mnist(images, Split::Train)?.selected(&some)?;

    let (exact, _) =
        decomposed(&reference::Problem::new(&model, Loss::CrossEntropy, &theta, &data).hessian());
    let (dim, span) = (exact.len(), exact[exact.len() - 1] - exact[0]);

    let gpu = Gpu::new(&GpuOptions::from_env())?;
    let problem = Session::new(&gpu, &network, &theta, &data, Loss::CrossEntropy)?;
    let operator = problem.operator(Curvature::Hessian, &network.all())?;
    let found =
        quadrature(&operator, &QuadratureOptions { probes: 32, steps: 200, seed: 0 }, &mut unobserved)?;

    let axis = Axis { label: "eigenvalue", scale: Scale::Linear };
    let bars = histogram(&exact, 2.0 * SIGMA * span, dim);
    let density = curve(&found.density(1000, SIGMA * span)?, 2.0 * SIGMA * span, dim);
    let series = [line("exact", 1, bars), line("quadrature", 0, density)];
    write_text(out.join("exact.svg"), &plot(axis, &series)?)?;

    // what is smaller is rounding of single precision
    let smallest = 1e-7 * largest(&exact);
    let density = found.log_density(1000, DECADES, smallest)?;
    let axis = Axis { label: "|eigenvalue|", scale: Scale::Log };
    let power = |points: Vec<(f64, f64)>| points.into_iter().map(|(x, y)| (10f64.powf(x), y)).collect();
    let bars = |sign: f64| {
        let large = exact.iter().filter(|&&value| sign * value >= smallest);
        let logarithms: Vec<f64> = large.map(|value| value.abs().log10()).collect();
        power(histogram(&logarithms, 2.0 * DECADES, dim))
    };
    let curve = |density| power(curve(density, 2.0 * DECADES, dim));
    let series = [
        line("exact, positive", 1, bars(1.0)),
        line("exact, negative", 3, bars(-1.0)),
        line("quadrature, positive", 0, curve(&density.positive)),
        line("quadrature, negative", 2, curve(&density.negative)),
    ];
    write_text(out.join("exact-log.svg"), &plot(axis, &series)?)?;

    // from other random vectors than the quadrature's
    let other = hutchinson(&operator, 256, 1, &mut unobserved)?;
    let (per_dim, norm) = (1.0 / dim as f64, other.frobenius_norm);
    let mean = |power: i32| per_dim * exact.iter().map(|value| value.powi(power)).sum::<f64>();
    let row = |name: &str, power: u32, value: f64, error: f64| {
        let Estimate { value: moment, standard_error, .. } = found.moment(power);
        let exact = mean(power as i32);
        println!(
            "| {name} | {exact:.4e} | {moment:.4e} ± {standard_error:.1e} | {value:.4e} ± {error:.1e} |"
        );
    };
    row("trace / D", 1, per_dim * other.trace.value, per_dim * other.trace.standard_error);
    row("‖H‖² / D", 2, per_dim * norm.value.powi(2), per_dim * 2.0 * norm.value * norm.standard_error);
    let small = |value: f64| if value.abs() < 1e-3 { 1.0 } else { 0.0 };
    let (share, Estimate { value, standard_error, .. }) =
        (per_dim * exact.iter().map(|&value| small(value)).sum::<f64>(), found.integral(small));
    println!("| share below 1e-3 | {share:.3} | {value:.3} ± {standard_error:.3} | |");
    Ok(())
}

/// What is drawn in the place of less: a hundredth of one of `dim` eigenvalues in a bin of that width.
fn floor(width: f64, dim: usize) -> f64 {
    0.01 / (dim as f64 * width)
}

/// The outline of the histogram of some of `dim` values, as a density: bins of that width, at its multiples.
fn histogram(values: &[f64], width: f64, dim: usize) -> Vec<(f64, f64)> {
    let mut bins: Vec<i64> = values.iter().map(|value| (value / width).floor() as i64).collect();
    bins.sort_unstable();
    let (Some(first), Some(last)) = (bins.first(), bins.last()) else { return Vec::new() };
    let count = |bin: i64| bins.iter().filter(|&&other| other == bin).count() as f64;
    let height = |bin: i64| (count(bin) / (dim as f64 * width)).max(floor(width, dim));
    (first - 1..=last + 1)
        .flat_map(|bin| [bin, bin + 1].map(|edge| (edge as f64 * width, height(bin))))
        .collect()
}

fn curve(density: &Density, width: f64, dim: usize) -> Vec<(f64, f64)> {
    let points = density.points.iter().zip(&density.values);
    points.map(|(&point, value)| (point, value.max(floor(width, dim)))).collect()
}

fn line(name: &str, colour: usize, points: Vec<(f64, f64)>) -> Series {
    Series { name: name.into(), mark: Mark::Line, colour, points }
}

fn plot(x: Axis<'_>, series: &[Series]) -> curvkit::Result<String> {
    chart("Spectral density of a small Hessian", x, Axis { label: "density", scale: Scale::Log }, series)
}
