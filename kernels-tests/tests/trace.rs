//! Traces, norms, diagonals and |λ₁| against exact ones.

use curvkit::Error;
use curvkit::net::Network;
use curvkit::operators::{Curvature, Session, SymmetricOperator};
use curvkit::spectral::{
    Estimate, Hutchinson, hutch_plus_plus, hutchinson, power_iteration, unobserved, xtrace,
};
use kernels_tests::cases::cases;
use kernels_tests::device::gpu;
use kernels_tests::prescribed::{Breaks, Prescribed};
use kernels_tests::spectra::{assert_within, bulk, clusters_of_20, dense, largest, spectrum, wide_bulk};

type Estimator = fn(&dyn SymmetricOperator, usize, u64) -> curvkit::Result<Estimate>;

const TRACES: [(&str, Estimator); 3] = [
    ("Hutchinson", |operator, products, seed| {
        Ok(hutchinson(operator, products, seed, &mut unobserved)?.trace)
    }),
    ("Hutch++", |operator, products, seed| hutch_plus_plus(operator, products, seed, &mut unobserved)),
    ("XTrace", |operator, products, seed| xtrace(operator, products, seed, &mut unobserved)),
];

/// λ_i = 1 / i^power
fn decaying(dim: usize, power: f64) -> Vec<f64> {
    (1..=dim).map(|i| (i as f64).powf(-power)).collect()
}

#[test]
fn traces_agree_within_their_errors() {
    let decades: Vec<f64> = (0..400).map(|i| 10f64.powf(-8.0 * i as f64 / 400.0)).collect();
    let spectra = [
        ("clusters", clusters_of_20(600)),
        ("a wide bulk", wide_bulk(1000)),
        ("eight decades", decades),
        ("1/i²", decaying(700, 2.0)),
        ("rank 4", spectrum(300, [4.0, 3.0, 3.0, -1.0], vec![0.0; 300])),
        ("zero", vec![0.0; 70]),
    ];
    for (name, eigenvalues) in spectra {
        let operator = Prescribed::new(gpu(), eigenvalues, 2);
        let trace: f64 = operator.eigenvalues.iter().sum();
        let squares: f64 = operator.eigenvalues.iter().map(|value| value * value).sum();
        for (estimator, estimate) in TRACES {
            for (products, seed) in [(40, 1), (41, 2), (90, 3), (12, 4)] {
                let found = estimate(&operator, products, seed).unwrap();
                let what = format!("{estimator}, {name}, {products} products");
                assert!(found.products <= products && found.products + 2 > products, "{what}: {found:?}");
                // rounding, and an error that is no larger than some times Hutchinson's
                assert_within(&what, found, trace, 1e-5 * squares.sqrt());
                let most = 3.0 * (2.0 * squares / products as f64).sqrt();
                assert!(found.standard_error <= most, "{what}: ± {}", found.standard_error);
            }
        }
    }
}

/// One pass over the random vectors gives all three: the operator breaks if it is asked for one product more.
#[test]
fn trace_norm_and_diagonal_take_the_products_of_one() {
    let operator = Breaks::after(20, Prescribed::new(gpu(), bulk(1, 200, 1.0), 0));
    assert!(hutchinson(&operator, 20, 0, &mut unobserved).is_ok());
}

/// The root mean square over seeds of what each is off.
#[test]
fn what_decays_is_estimated_better() {
    for (name, eigenvalues, share) in [("1/i²", decaying(500, 2.0), 0.1), ("1/i", decaying(500, 1.0), 0.6)] {
        // reflections enough for no eigenvector to be near a unit vector, whose share Hutchinson's entries ±1 get exactly
        let operator = Prescribed::new(gpu(), eigenvalues, 200);
        let trace: f64 = operator.eigenvalues.iter().sum();
        let [plain, plus, exchangeable] = TRACES.map(|(estimator, estimate)| {
            let found: Vec<Estimate> = (0..12).map(|seed| estimate(&operator, 60, seed).unwrap()).collect();
            let mean = |f: &dyn Fn(&Estimate) -> f64| (found.iter().map(f).sum::<f64>() / 12.0).sqrt();
            let off = mean(&|e| (e.value - trace).powi(2));
            let claimed = mean(&|e| e.standard_error.powi(2));
            println!("{name}, {estimator}: off by {off:.2e}, claimed {claimed:.2e}");
            assert!((0.4..2.5).contains(&(off / claimed)), "{estimator}: off by {off}, claimed {claimed}");
            off
        });
        assert!(plus < share * plain, "{name}: {plus} by Hutch++, {plain} by Hutchinson");
        assert!(exchangeable < plus, "{name}: {exchangeable} by XTrace, {plus} by Hutch++");
    }
}

/// Two standard errors hold the trace in 95 % of the cases or nearly so, however few the products.
#[test]
fn standard_errors_of_few_products_hold_what_they_claim() {
    let (dim, seeds) = (120, 100);
    let exponential = (0..dim).map(|i| 0.9f64.powi(i as i32)).collect();
    for (name, eigenvalues) in [("1/i", decaying(dim, 1.0)), ("0.9^i", exponential)] {
        let operator = Prescribed::new(gpu(), eigenvalues, 30);
        let trace: f64 = operator.eigenvalues.iter().sum();
        for ((estimator, estimate), products) in
            [(TRACES[0], 3), (TRACES[1], 7), (TRACES[2], 6), (TRACES[2], 10), (TRACES[2], 20)]
        {
            let beyond = |seed: &u64| {
                let found = estimate(&operator, products, *seed).unwrap();
                (found.value - trace).abs() > 2.0 * found.standard_error
            };
            let beyond = (0..seeds).filter(beyond).count();
            println!("{name}, {estimator}, {products} products: {beyond} of {seeds} beyond two errors");
            // of nominally 5; without Student's factor, and XTrace's own, 15 to 30
            assert!(beyond <= 11, "{name}, {estimator}, {products} products: {beyond} of {seeds}");
        }
    }
}

#[test]
fn a_range_that_holds_all_leaves_nothing_to_chance() {
    for dim in [1usize, 2, 5, 64] {
        let operator = Prescribed::new(gpu(), bulk(dim as u64, dim, 2.0), 1);
        let trace: f64 = operator.eigenvalues.iter().sum();
        for (estimator, estimate) in &TRACES[1..] {
            let found = estimate(&operator, 3 * dim + 6, 1).unwrap();
            assert!((found.value - trace).abs() < 2e-5, "{estimator}, {dim}: {found:?}, not {trace}");
            assert_eq!(found.standard_error, 0.0);
        }
    }
}

#[test]
fn norms_and_diagonals_agree_within_their_errors() {
    for (reflections, dim) in [(0, 67), (2, 300)] {
        let operator = Prescribed::new(gpu(), bulk(8, dim, 1.0), reflections);
        let norm = operator.eigenvalues.iter().map(|value| value * value).sum::<f64>().sqrt();
        let Hutchinson { trace, frobenius_norm, diagonal } =
            hutchinson(&operator, 40, 1, &mut unobserved).unwrap();
        assert_within("the norm", frobenius_norm, norm, 1e-6 * norm);
        assert!(frobenius_norm.standard_error < 0.05 * norm && frobenius_norm.products == 40);
        assert_eq!(diagonal.len(), dim);
        // of the same products
        let sum: f64 = diagonal.iter().map(|estimate| estimate.value).sum();
        assert!((sum - trace.value).abs() < 1e-5 * norm, "{sum}, the trace {}", trace.value);
        let mut beyond_2 = 0;
        for (i, estimate) in diagonal.into_iter().enumerate() {
            let mut unit = vec![0.0; dim];
            unit[i] = 1.0;
            let expected = operator.times(&unit)[i];
            assert_within(&format!("diagonal {i}"), estimate, expected, 1e-6);
            beyond_2 += usize::from((estimate.value - expected).abs() > 2.0 * estimate.standard_error + 1e-6);
        }
        assert!(beyond_2 < dim / 8, "{beyond_2} of {dim} are off by more than two errors");
    }
    let zero =
        hutchinson(&Prescribed::new(gpu(), vec![0.0; 70], 0), 4, 0, &mut unobserved).unwrap().frobenius_norm;
    assert_eq!((zero.value, zero.standard_error), (0.0, 0.0));
}

#[test]
fn the_largest_magnitude_by_powers() {
    let dim = 300;
    let of = |head: &[f64]| Prescribed::new(gpu(), spectrum(dim, head.iter().copied(), bulk(2, dim, 1.0)), 2);
    // of either sign, and of both at once
    for head in [&[3.0][..], &[-3.0], &[3.0, -3.0], &[3.0, 3.0, -2.0]] {
        let found = power_iteration(&of(head), 1e-5, 200, 1, &mut unobserved).unwrap();
        assert!((found.value - 3.0).abs() < 1e-5 && found.residual <= 1e-5, "{head:?}: {found:?}");
        assert!(found.products < 60, "{head:?}: {found:?}");
    }
    let short = power_iteration(&of(&[1.001]), 1e-5, 7, 1, &mut unobserved).unwrap();
    assert!(short.residual > 1e-3 && short.products == 7 && short.value < 1.0, "{short:?}");
    let zero =
        power_iteration(&Prescribed::new(gpu(), vec![0.0; 70], 0), 1e-5, 7, 1, &mut unobserved).unwrap();
    assert_eq!((zero.value, zero.residual), (0.0, 0.0));
}

#[test]
fn a_networks_curvature() {
    let case = cases().into_iter().find(|case| case.name.starts_with("[17, 33, 10] Tanh bias")).unwrap();
    let network = Network::new(&case.model).unwrap();
    let problem = Session::new(gpu(), &network, &case.parameters, &case.data, case.loss).unwrap();
    for curvature in [Curvature::Hessian, Curvature::NoiseCovariance] {
        let dense = dense(&case, curvature);
        let operator = problem.operator(curvature, &network.all()).unwrap();
        for (estimator, estimate) in TRACES {
            let what = format!("{curvature:?}, {estimator}");
            assert_within(&what, estimate(&operator, 48, 1).unwrap(), dense.trace(), 2e-5 * dense.norm());
        }
        let Hutchinson { frobenius_norm, diagonal, .. } =
            hutchinson(&operator, 48, 1, &mut unobserved).unwrap();
        assert_within("the norm", frobenius_norm, dense.norm(), 2e-5 * dense.norm());
        let scale = largest(dense.symmetric_eigenvalues().as_slice());
        let found = power_iteration(&operator, 1e-3, 300, 1, &mut unobserved).unwrap();
        assert!((found.value - scale).abs() < 1e-3 * scale, "{found:?}, not {scale}");
        for (i, estimate) in diagonal.into_iter().enumerate() {
            let off = (estimate.value - dense[(i, i)]).abs();
            // one in a thousand is off by more than four errors of a distribution with tails
            assert!(
                off <= 6.0 * estimate.standard_error + 1e-5 * scale,
                "{curvature:?}, diagonal {i}: {estimate:?}"
            );
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_bits() {
    let operator = Prescribed::new(gpu(), bulk(3, 200, 1.0), 2);
    for (estimator, estimate) in TRACES {
        let bits = |seed| estimate(&operator, 20, seed).unwrap().value.to_bits();
        assert_eq!(bits(1), bits(1), "{estimator}");
        assert_ne!(bits(1), bits(2), "{estimator}");
    }
    assert_eq!(
        hutchinson(&operator, 20, 1, &mut unobserved).unwrap(),
        hutchinson(&operator, 20, 1, &mut unobserved).unwrap()
    );
}

#[test]
fn what_cannot_be_made_is_an_error() {
    let operator = Prescribed::new(gpu(), vec![1.0; 10], 0);
    let refused = |estimate: Estimator, products| estimate(&operator, products, 0).err().unwrap().to_string();
    assert_eq!(refused(TRACES[0].1, 1), "probes: found 1, expected at least 2, for a standard error");
    assert_eq!(refused(TRACES[1].1, 5), "products: found 5, expected at least 6");
    assert_eq!(refused(TRACES[2].1, 3), "products: found 3, expected at least 4");
    let error = power_iteration(&operator, 1e-3, 1, 0, &mut unobserved).err().unwrap().to_string();
    assert_eq!(error, "max_products: found 1, expected at least 2");
    for (estimator, estimate) in TRACES {
        let operator = Breaks::after(9, Prescribed::new(gpu(), bulk(1, 200, 1.0), 0));
        let error = estimate(&operator, 12, 0).err().unwrap();
        assert!(matches!(error, Error::NotFinite { .. }), "{estimator}: {error}");
        assert!(
            error.to_string().starts_with("product 10 of the estimate is not finite"),
            "{estimator}: {error}"
        );
    }
}
