//! Stochastic Lanczos quadrature against exact moments and densities.

use curvkit::Error;
use curvkit::gpu::Gpu;
use curvkit::net::Network;
use curvkit::operators::{Curvature, Session, SymmetricOperator};
use curvkit::spectral::{Density, Quadrature, QuadratureOptions, quadrature, unobserved};
use kernels_tests::cases::cases;
use kernels_tests::device::{bindings_of, gpu, own_device};
use kernels_tests::prescribed::{Breaks, Prescribed};
use kernels_tests::spectra::{assert_within, bulk, clusters_of_20, dense, spectrum, wide_bulk};

fn made(operator: &dyn SymmetricOperator, probes: usize, steps: usize) -> Quadrature {
    quadrature(operator, &QuadratureOptions { probes, steps, seed: 1 }, &mut unobserved).unwrap()
}

/// The mean of λ^j over a spectrum.
fn moment(eigenvalues: &[f64], j: u32) -> f64 {
    eigenvalues.iter().map(|value| value.powi(j as i32)).sum::<f64>() / eigenvalues.len() as f64
}

fn integral(density: &Density) -> f64 {
    density.values.iter().sum::<f64>() * (density.points[1] - density.points[0])
}

#[test]
fn as_many_steps_as_dimensions_are_exact() {
    for dim in [1usize, 2, 7, 64, 65] {
        // a diagonal matrix: every probe with entries ±1 has the same share of each eigenvector
        let operator = Prescribed::new(gpu(), bulk(dim as u64, dim, 2.0), 0);
        let mut expected = operator.eigenvalues.clone();
        expected.sort_by(f64::total_cmp);
        for steps in [dim, dim + 3] {
            let found = made(&operator, 3, steps);
            assert_eq!((found.rules.len(), found.products), (3, 3 * dim));
            for rule in &found.rules {
                for (i, expected) in expected.iter().enumerate() {
                    let (node, weight) = (rule.nodes[i], rule.weights[i] * dim as f64);
                    assert!((node - expected).abs() < 2e-5, "{dim}: node {i} is {node}, not {expected}");
                    assert!((weight - 1.0).abs() < 1e-2, "{dim}: weight {i} is {weight} / {dim}");
                }
            }
        }
        // whatever the eigenvectors are, zᵀ f(A) z is exact, so that one probe's moments are
        let rotated = Prescribed::new(gpu(), operator.eigenvalues.clone(), 2);
        assert_within("trace", made(&rotated, 30, dim).moment(1), moment(&expected, 1), 1e-5);
    }
}

/// Where a Krylov space ends before the steps do, vectors ±1 of few coordinates are soon drawn twice: what goes on is
/// orthogonal to the basis nevertheless, and no node leaves the spectrum.
#[test]
fn nodes_stay_within_a_spectrum_of_few_distinct_values() {
    for dim in [2usize, 3, 4, 8, 12] {
        let eigenvalues: Vec<f64> = (0..dim).map(|i| [0.25, 1.0, 2.0][i % 3]).collect();
        for rotations in [0, 2] {
            let operator = Prescribed::new(gpu(), eigenvalues.clone(), rotations);
            let found = made(&operator, 64, dim);
            let (low, high) = found.range();
            let largest = eigenvalues.iter().fold(0.0f64, |a, &b| a.max(b));
            assert!(low >= 0.25 - 1e-5 && high <= largest + 1e-5, "{dim}: nodes from {low} to {high}");
            for rule in &found.rules {
                assert!((rule.weights.iter().sum::<f64>() - 1.0).abs() < 1e-9);
            }
            assert_within("trace", found.moment(1), moment(&eigenvalues, 1), 1e-5);
        }
    }
}

/// Of each probe the moments up to 2 S − 1, as zᵀ Aʲ z in f64.
#[test]
fn moments_of_a_probe_are_exact() {
    let dim = 500;
    let operator = Prescribed::new(gpu(), bulk(4, dim, 1.0), 0);
    let steps = 6;
    let found = made(&operator, 1, steps);
    for j in 0..2 * steps as u32 {
        // (±1)² = 1: the probe is the mean over the diagonal
        let (value, expected) = (found.moment(j).value, moment(&operator.eigenvalues, j));
        assert!((value - expected).abs() < 2e-6, "moment {j} is {value}, expected {expected}");
    }
    assert_eq!(found.moment(1).standard_error, f64::INFINITY);
}

#[test]
fn moments_agree_within_their_errors() {
    let decades: Vec<f64> = (0..400).map(|i| 10f64.powf(-8.0 * i as f64 / 400.0)).collect();
    let spectra =
        [("clusters", clusters_of_20(600)), ("a wide bulk", wide_bulk(1000)), ("eight decades", decades)];
    for (name, eigenvalues) in spectra {
        let operator = Prescribed::new(gpu(), eigenvalues, 2);
        let found = made(&operator, 24, 30);
        for j in 0..6 {
            let what = format!("{name}, moment {j}");
            let expected = moment(&operator.eigenvalues, j);
            let scale = moment(&operator.eigenvalues, 2 * j).sqrt();
            let estimate = found.moment(j);
            assert_within(&what, estimate, expected, 2e-6 * scale);
            // and the errors are no excuse
            assert!(estimate.standard_error < 0.2 * scale, "{what}: ± {}", estimate.standard_error);
        }
        let share =
            |values: &[f64]| values.iter().filter(|&&v| v > 0.02).count() as f64 / values.len() as f64;
        let expected = share(&operator.eigenvalues);
        let above = found.integral(|node| if node > 0.02 { 1.0 } else { 0.0 });
        assert!((above.value - expected).abs() < 0.1, "{name}: {above:?} above 0.02, not {expected}");
    }
}

#[test]
fn densities_hold_the_spectrum() {
    let dim = 1000;
    // an outlier on each side, a hundredth at 3, the rest within 1
    let values = spectrum(dim, [9.0, -5.0].into_iter().chain([3.0; 10]), bulk(7, dim, 1.0));
    let operator = Prescribed::new(gpu(), values, 2);
    let found = made(&operator, 16, 40);
    let (low, high) = found.range();
    assert!((low + 5.0).abs() < 1e-4 && (high - 9.0).abs() < 1e-4, "{low} to {high}");
    let density = found.density(401, 0.05).unwrap();
    assert!((integral(&density) - 1.0).abs() < 1e-6, "{}", integral(&density));
    assert_eq!((density.points.len(), density.values.len(), density.standard_errors.len()), (401, 401, 401));
    let step = density.points[1] - density.points[0];
    let within = |range: std::ops::Range<f64>| {
        let inside = density.points.iter().zip(&density.values).filter(|(point, _)| range.contains(point));
        inside.map(|(_, value)| value).sum::<f64>() * step
    };
    assert!((within(2.5..3.5) - 0.01).abs() < 0.004, "{}", within(2.5..3.5));
    assert!((within(-1.3..1.3) - 0.988).abs() < 0.005, "{}", within(-1.3..1.3));
    // the uniform bulk
    let at_0 = density.values[density.points.iter().position(|&point| point > 0.0).unwrap()];
    assert!((at_0 - 0.494).abs() < 0.1, "{at_0}");

    let log = found.log_density(301, 0.1, 1e-3).unwrap();
    let total = integral(&log.positive) + integral(&log.negative) + log.below.value;
    assert!((total - 1.0).abs() < 1e-6, "{total}");
    let negative = operator.eigenvalues.iter().filter(|&&v| v < -1e-3).count() as f64 / dim as f64;
    assert!((integral(&log.negative) - negative).abs() < 0.05, "{} of {negative}", integral(&log.negative));
    assert_eq!(log.positive.points, log.negative.points);

    let refused = |density: curvkit::Result<Density>| density.err().unwrap().to_string();
    assert_eq!(refused(found.density(401, 0.0)), "sigma: found 0, expected a number above 0");
    let error = refused(found.density(11, 0.5));
    assert!(error.starts_with("sigma: found 0.5, expected at least 1."), "{error}");
    let error = found.log_density(11, 0.5, -1.0).err().unwrap().to_string();
    assert_eq!(error, "smallest: found -1, expected a number above 0");
}

/// Probes end early where the matrix has few different eigenvalues: each goes on with random vectors that weigh nothing.
#[test]
fn a_recurrence_that_ends_is_exact() {
    let dim = 300;
    let values = spectrum(dim, [2.0; 30], vec![-1.0; dim]);
    let operator = Prescribed::new(gpu(), values, 2);
    let found = made(&operator, 8, 12);
    for rule in &found.rules {
        assert_eq!(rule.nodes.len(), 12);
        assert!((rule.weights.iter().sum::<f64>() - 1.0).abs() < 1e-9);
        for (node, weight) in rule.nodes.iter().zip(&rule.weights) {
            let off = (node - 2.0).abs().min((node + 1.0).abs());
            assert!(off < 1e-5 || *weight < 1e-9, "node {node} weighs {weight}");
        }
    }
    assert_within("share at 2", found.integral(|node| if node > 0.0 { 1.0 } else { 0.0 }), 0.1, 0.0);
    let zero = made(&Prescribed::new(gpu(), vec![0.0; 70], 0), 2, 5);
    assert_eq!((zero.range(), zero.moment(2).value), ((0.0, 0.0), 0.0));
    assert!((zero.moment(0).value - 1.0).abs() < 1e-12);
    assert!((integral(&zero.density(21, 1.0).unwrap()) - 1.0).abs() < 1e-6);
}

/// The probes' products are made in groups that find room; a block of them may take several bindings.
#[test]
fn probes_do_not_depend_on_who_is_beside_them() {
    let on = |gpu: &Gpu, probes: usize| {
        // one whose recurrences end, some of them sooner, and go on from random vectors
        let ends = Prescribed::new(gpu, spectrum(700, [2.0; 30], vec![-1.0; 700]), 2);
        let operator = Prescribed::new(gpu, clusters_of_20(700), 2);
        [operator, ends].map(|operator| made(&operator, probes, 12).rules)
    };
    let all = on(gpu(), 7);
    assert_eq!(on(gpu(), 7), all, "the same seed");
    for (some, all) in on(gpu(), 3).iter().zip(&all) {
        assert_eq!(some[..], all[..3]);
    }
    let tiny = own_device(wgpu::Limits::default(), Some(2 * 2 * 20 * 704 * 4));
    assert_eq!(on(&tiny, 7), all);
    // three vectors to a binding
    let cramped = own_device(bindings_of(3 * 704 * 4), None);
    assert_eq!(on(&cramped, 7), all);
}

#[test]
fn a_networks_hessian() {
    let case = cases().into_iter().find(|case| case.name.starts_with("[17, 33, 10] Tanh bias")).unwrap();
    let network = Network::new(&case.model).unwrap();
    let problem = Session::new(gpu(), &network, &case.parameters, &case.data, case.loss).unwrap();
    let eigenvalues = dense(&case, Curvature::Hessian).symmetric_eigenvalues().as_slice().to_vec();
    let operator = problem.operator(Curvature::Hessian, &network.all()).unwrap();
    let found = made(&operator, 16, 40);
    for j in 1..5 {
        let scale = moment(&eigenvalues, 2 * j).sqrt();
        assert_within(&format!("moment {j}"), found.moment(j), moment(&eigenvalues, j), 1e-5 * scale);
    }
}

#[test]
fn what_cannot_be_made_is_an_error() {
    let operator = Prescribed::new(gpu(), vec![1.0; 10], 0);
    let refused = |probes, steps| {
        quadrature(&operator, &QuadratureOptions { probes, steps, seed: 0 }, &mut unobserved)
            .err()
            .unwrap()
            .to_string()
    };
    assert_eq!(refused(0, 5), "probes: found 0, expected at least 1");
    assert_eq!(refused(5, 0), "steps: found 0, expected at least 1");
    let operator = Breaks::after(6, Prescribed::new(gpu(), bulk(1, 200, 1.0), 0));
    let error = quadrature(&operator, &QuadratureOptions { probes: 4, steps: 5, seed: 0 }, &mut unobserved)
        .err()
        .unwrap();
    assert!(matches!(error, Error::NotFinite { .. }));
    assert!(error.to_string().starts_with("product 2 of operator 2 is not finite"), "{error}");
}
