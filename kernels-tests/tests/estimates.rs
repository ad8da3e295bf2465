//! Densities, traces, norms and diagonals from random vectors, against the spectra that they are of.

use curvkit::Error;
use curvkit::gpu::Gpu;
use curvkit::net::Network;
use curvkit::operators::{Block, Curvature, DenseMatrix, Problem, SymmetricOperator};
use curvkit::spectral::{
    Distribution, Estimate, QuadratureOptions, RandomVectors, diagonal, frobenius_norm, hutch_plus_plus,
    hutchinson, power_iteration, quadrature, xtrace,
};
use kernels_tests::cases::{Case, cases, random};
use kernels_tests::device::{gpu, own_device};
use kernels_tests::f64s;
use kernels_tests::prescribed::Prescribed;

/// Indefinite, with a bulk around zero.
fn indefinite(dim: usize) -> Vec<f64> {
    let mut eigenvalues: Vec<f64> = random(1, dim).iter().map(|&x| 0.05 * f64::from(x)).collect();
    eigenvalues[..6].copy_from_slice(&[3.0, 2.0, 2.0, 1.0, -0.5, -1.5]);
    eigenvalues
}

/// A decade every ten eigenvalues.
fn decaying(dim: usize) -> Vec<f64> {
    (0..dim).map(|i| 10f64.powf(-0.1 * i as f64)).collect()
}

fn moment(eigenvalues: &[f64], power: i32) -> f64 {
    eigenvalues.iter().map(|value| value.powi(power)).sum::<f64>() / eigenvalues.len() as f64
}

#[track_caller]
fn within_four_errors(what: &str, (value, error): (f64, f64), expected: f64, rounding: f64) {
    let off = (value - expected).abs();
    assert!(off <= 4.0 * error + rounding, "{what}: {value} ± {error}, expected {expected}");
}

fn of(estimate: Estimate) -> (f64, f64) {
    (estimate.value, estimate.standard_error)
}

#[test]
fn moments_of_the_quadrature() {
    for (what, eigenvalues) in [("indefinite", indefinite(613)), ("decaying", decaying(500))] {
        let operator = Prescribed::new(gpu(), eigenvalues.clone(), 7);
        for (probes, steps) in [(20, 30), (1, 12), (3, 1)] {
            let found = quadrature(&operator, &QuadratureOptions { probes, steps, seed: 3 }).unwrap();
            assert_eq!((found.rules.len(), found.products), (probes, probes * steps), "{what}");
            for rule in &found.rules {
                assert_eq!((rule.nodes.len(), rule.weights.len()), (steps, steps), "{what}");
                let weights: f64 = rule.weights.iter().sum();
                assert!((weights - 1.0).abs() < 1e-9, "{what}: weights add up to {weights}");
                assert!(rule.weights.iter().all(|&weight| weight >= 0.0) && rule.nodes.is_sorted());
            }
            if probes < 20 {
                continue;
            }
            for power in 1..=4 {
                let found = of(found.moment(power as u32));
                within_four_errors(
                    &format!("{what}: moment {power}"),
                    found,
                    moment(&eigenvalues, power),
                    1e-6,
                );
                assert!(found.1 < 0.1, "{what}: moment {power} is known to {}", found.1);
            }
        }
    }
}

/// One vector's rule is exact for polynomials: `zᵀ Aʲ z` by products of the operator itself.
#[test]
fn a_rule_is_exact_for_polynomials() {
    let eigenvalues = indefinite(200);
    let operator = Prescribed::new(gpu(), eigenvalues, 5);
    let rule = quadrature(&operator, &QuadratureOptions { probes: 1, steps: 5, seed: 11 }).unwrap();
    let mut random = RandomVectors::new(Distribution::Rademacher, 11);
    let z = f64s(&operator.unpad(&random.draw(&operator, 1).unwrap().download().unwrap()));
    let mut x = z.clone();
    for power in 1..=9 {
        x = operator.times(&x);
        let expected = z.iter().zip(&x).map(|(z, x)| z * x).sum::<f64>() / 200.0;
        let found = rule.moment(power).value;
        assert!((found - expected).abs() <= 3e-5 * expected.abs().max(1.0), "{power}: {found}, {expected}");
    }
}

/// With as many steps as dimensions, or an exhausted space, the nodes are the eigenvalues.
#[test]
fn a_small_space_is_exhausted() {
    let eigenvalues = [4.0, 4.0, 4.0, 1.0, 1.0, -2.0, 0.0, 0.0, 0.0, 0.5, 0.25, -1.0, 3.0];
    let operator = Prescribed::new(gpu(), eigenvalues.to_vec(), 2);
    let found = quadrature(&operator, &QuadratureOptions { probes: 40, steps: 100, seed: 1 }).unwrap();
    for rule in &found.rules {
        assert!(rule.nodes.len() <= 13);
        for (theta, weight) in rule.nodes.iter().zip(&rule.weights).filter(|node| *node.1 > 1e-6) {
            let nearest = eigenvalues.iter().map(|value| (value - theta).abs()).fold(f64::INFINITY, f64::min);
            assert!(nearest < 1e-4, "{theta} with weight {weight}");
        }
    }
    // the share of eigenvalues that are 4
    within_four_errors("fours", of(found.integral(|v| f64::from((v - 4.0).abs() < 0.1))), 3.0 / 13.0, 1e-6);
    let zero = Prescribed::new(gpu(), vec![0.0; 70], 2);
    let found = quadrature(&zero, &QuadratureOptions { probes: 2, steps: 9, seed: 1 }).unwrap();
    assert_eq!(of(found.integral(|v| f64::from(v == 0.0))), (1.0, 0.0));
}

#[test]
fn densities_integrate_to_shares() {
    let eigenvalues = indefinite(400);
    let operator = Prescribed::new(gpu(), eigenvalues.clone(), 3);
    let found = quadrature(&operator, &QuadratureOptions { probes: 10, steps: 60, seed: 2 }).unwrap();
    let (low, high) = found.range();
    assert!((low + 1.5).abs() < 1e-4 && (high - 3.0).abs() < 1e-4, "{low} to {high}");
    let integral = |x: &[f64], y: &[f64]| {
        let panels = x.windows(2).zip(y.windows(2));
        panels.map(|(x, y)| (x[1] - x[0]) * (y[0] + y[1]) / 2.0).sum::<f64>()
    };
    let density = found.density(4000, 0.05).unwrap();
    let all = integral(&density.points, &density.values);
    assert!((all - 1.0).abs() < 1e-4, "{all}");
    assert!(density.standard_errors.iter().all(|error| error.is_finite() && *error >= 0.0));
    let log = found.log_density(4000, 0.1, 1e-5).unwrap();
    let mut shares = log.below.value;
    for (sign, density) in [(1.0, &log.positive), (-1.0, &log.negative)] {
        let share = integral(&density.points, &density.values);
        let expected = eigenvalues.iter().filter(|v| **v * sign > 1e-5).count() as f64 / 400.0;
        let spread = found.integral(|v| f64::from(v * sign > 1e-5)).standard_error;
        within_four_errors("share", (share, spread), expected, 0.02);
        shares += share;
    }
    assert!((shares - 1.0).abs() < 1e-3, "{shares}");
    let message = |error: Error| error.to_string();
    assert_eq!(message(found.density(100, 0.0).unwrap_err()), "sigma: found 0, expected a number above 0");
    let smallest = found.log_density(100, 0.1, 0.0).unwrap_err();
    assert_eq!(message(smallest), "smallest: found 0, expected a number above 0");
    let coarse = message(found.density(10, 0.01).unwrap_err());
    assert!(coarse.starts_with("sigma: found 0.01, expected at least "), "{coarse}");
}

/// Probes whose bases do not find room together are made one after the other, to the same rules.
#[test]
fn probes_in_groups() {
    let eigenvalues = indefinite(700);
    let options = QuadratureOptions { probes: 3, steps: 20, seed: 4 };
    let whole = quadrature(&Prescribed::new(gpu(), eigenvalues.clone(), 7), &options).unwrap();
    let small = own_device(wgpu::Limits::default(), Some(2 * 4 * 704 * 3 * 5));
    let parts = quadrature(&Prescribed::new(&small, eigenvalues, 7), &options).unwrap();
    for power in 1..=6 {
        let [whole, parts] = [&whole, &parts].map(|q| q.moment(power).value);
        assert!((whole - parts).abs() <= 1e-5 * whole.abs().max(1e-3), "{power}: {whole} and {parts}");
    }
    let again = quadrature(&Prescribed::new(gpu(), indefinite(700), 7), &options).unwrap();
    assert_eq!(again, whole, "the same bits");
}

#[test]
fn traces_norms_and_diagonals() {
    for (what, eigenvalues) in [("indefinite", indefinite(613)), ("decaying", decaying(500))] {
        // so many reflections that it is far from diagonal, where ±1 makes no error
        let operator = Prescribed::new(gpu(), eigenvalues.clone(), 300);
        let dim = eigenvalues.len() as f64;
        let (trace, square) = (dim * moment(&eigenvalues, 1), dim * moment(&eigenvalues, 2));
        let plain = hutchinson(&operator, 60, 5).unwrap();
        within_four_errors(what, of(plain), trace, 1e-3);
        within_four_errors(what, of(frobenius_norm(&operator, 60, 5).unwrap()), square.sqrt(), 1e-4);
        let entries = diagonal(&operator, 60, 5).unwrap();
        let sum: f64 = entries.iter().map(|entry| entry.value).sum();
        assert!((sum - plain.value).abs() < 1e-3, "{what}: {sum} and {}", plain.value);
        let mut beyond = 0;
        for i in 0..eigenvalues.len() {
            let mut unit = vec![0.0; eigenvalues.len()];
            unit[i] = 1.0;
            let off = (entries[i].value - operator.times(&unit)[i]).abs();
            beyond += usize::from(off > 4.0 * entries[i].standard_error + 1e-5);
        }
        assert!(beyond <= eigenvalues.len() / 100, "{what}: {beyond} entries of the diagonal are far off");
        for better in [hutch_plus_plus(&operator, 60, 5).unwrap(), xtrace(&operator, 60, 5).unwrap()] {
            assert_eq!(better.products, 60, "{what}");
            within_four_errors(what, of(better), trace, 1e-3);
            if what == "decaying" {
                let (of_plain, of_better) = (plain.standard_error, better.standard_error);
                assert!(of_better < 0.3 * of_plain, "{what}: ± {of_better}, Hutchinson ± {of_plain}");
            }
        }
    }
}

/// Where the sketch spans all there is, nothing is left to chance.
#[test]
fn traces_of_low_rank_are_exact() {
    let mut eigenvalues = vec![0.0; 300];
    eigenvalues[..4].copy_from_slice(&[2.0, 1.0, 1.0, -0.5]);
    let operator = Prescribed::new(gpu(), eigenvalues, 9);
    for estimate in [hutch_plus_plus(&operator, 30, 1).unwrap(), xtrace(&operator, 30, 1).unwrap()] {
        assert!((estimate.value - 3.5).abs() < 1e-4 && estimate.standard_error < 1e-4, "{estimate:?}");
    }
    // more products than the space has dimensions
    let small = Prescribed::new(gpu(), vec![1.0, 2.0, 3.0, -4.0, 0.5], 9);
    for estimate in [hutch_plus_plus(&small, 90, 1).unwrap(), xtrace(&small, 90, 1).unwrap()] {
        assert!((estimate.value - 2.5).abs() < 1e-4, "{estimate:?}");
    }
}

#[test]
fn the_largest_eigenvalue() {
    let operator = Prescribed::new(gpu(), indefinite(613), 7);
    let found = power_iteration(&operator, 1e-4, 500, 3).unwrap();
    assert!(found.residual <= 1e-4 && (found.value - 3.0).abs() < 1e-5, "{found:?}");
    let few = power_iteration(&operator, 1e-6, 3, 3).unwrap();
    assert!(few.residual > 1e-6 && few.products == 3, "{few:?}");
    // eigenvalues of one magnitude and both signs
    let both = Prescribed::new(gpu(), vec![1.0, -1.0, 0.5, 0.25], 7);
    let found = power_iteration(&both, 1e-4, 100, 3).unwrap();
    assert!(found.residual <= 1e-4 && (found.value - 1.0).abs() < 1e-4, "{found:?}");
    let zero = Prescribed::new(gpu(), vec![0.0; 70], 2);
    assert_eq!(power_iteration(&zero, 1e-4, 100, 3).unwrap().value, 0.0);
}

/// An operator whose products are no numbers.
struct Broken(Gpu);

impl SymmetricOperator for Broken {
    fn gpu(&self) -> &Gpu {
        &self.0
    }

    fn dim(&self) -> usize {
        64
    }

    fn stride(&self) -> usize {
        64
    }

    fn apply(&self, _: &Block, y: &Block) -> curvkit::Result<()> {
        let runs = y.runs(0, y.len());
        runs.iter().try_for_each(|(_, run)| self.0.write(run, &vec![f32::NAN; run.len()]))
    }
}

#[test]
fn what_cannot_be_is_refused() {
    let broken = Broken(gpu().clone());
    let options = QuadratureOptions { probes: 2, steps: 3, seed: 0 };
    let errors = [
        quadrature(&broken, &options).map(drop).unwrap_err(),
        hutchinson(&broken, 2, 0).map(drop).unwrap_err(),
        hutch_plus_plus(&broken, 6, 0).map(drop).unwrap_err(),
        xtrace(&broken, 4, 0).map(drop).unwrap_err(),
        power_iteration(&broken, 1e-3, 5, 0).map(drop).unwrap_err(),
    ];
    for error in errors {
        assert!(
            matches!(error, Error::NotFinite { .. }) && error.to_string().contains("product 1 of "),
            "{error}"
        );
    }
    let unit = DenseMatrix::new(gpu(), 2, &[1.0, 0.0, 0.0, 1.0]).unwrap();
    let message = |error: curvkit::Result<()>| error.unwrap_err().to_string();
    let none = QuadratureOptions { probes: 0, ..options };
    assert_eq!(message(quadrature(&unit, &none).map(drop)), "probes: found 0, expected at least 1");
    assert_eq!(
        message(hutchinson(&unit, 1, 0).map(drop)),
        "probes: found 1, expected at least 2, for a standard error"
    );
    assert_eq!(message(hutch_plus_plus(&unit, 5, 0).map(drop)), "products: found 5, expected at least 6");
    assert_eq!(message(xtrace(&unit, 3, 0).map(drop)), "products: found 3, expected at least 4");
    assert_eq!(
        message(power_iteration(&unit, 0.1, 1, 0).map(drop)),
        "max_products: found 1, expected at least 2"
    );
}

/// Of networks, whose vectors have padding inside.
#[test]
fn curvature_of_networks() {
    let small = |case: &Case| (30..400).contains(&case.parameters.len()) && case.data.len() > 10;
    let chosen: Vec<Case> = cases().into_iter().filter(small).take(3).collect();
    assert_eq!(chosen.len(), 3);
    for case in chosen {
        let network = Network::new(&case.model).unwrap();
        let problem = Problem::new(gpu(), &network, &case.parameters, &case.data, case.loss).unwrap();
        let all = network.all();
        let identity: Vec<f32> =
            (0..all.dim * all.dim).map(|e| f32::from(e / all.dim == e % all.dim)).collect();
        let dense = problem.hvp(&all, &identity).unwrap();
        let trace: f64 = (0..all.dim).map(|i| f64::from(dense[i * all.dim + i])).sum();
        let square: f64 = dense.iter().map(|&h| f64::from(h).powi(2)).sum();
        let operator = problem.operator(Curvature::Hessian, &all).unwrap();
        let plain = hutchinson(&operator, 50, 1).unwrap();
        within_four_errors(&case.name, of(plain), trace, 1e-5);
        within_four_errors(&case.name, of(frobenius_norm(&operator, 50, 1).unwrap()), square.sqrt(), 1e-5);
        within_four_errors(&case.name, of(xtrace(&operator, 40, 1).unwrap()), trace, 1e-5);
        let rules = quadrature(&operator, &QuadratureOptions { probes: 30, steps: 20, seed: 6 }).unwrap();
        within_four_errors(&case.name, of(rules.moment(1)), trace / all.dim as f64, 1e-6);
        within_four_errors(&case.name, of(rules.moment(2)), square / all.dim as f64, 1e-6);
    }
}
