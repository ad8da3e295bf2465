//! The statistics against closed forms, known values and invariants.

use approx::assert_relative_eq;
use curvkit::Error;
use curvkit::stats::*;
use faer::Mat;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

#[test]
fn moments_of_a_short_series() {
    let x = [2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0];
    assert_eq!(mean(&x).unwrap(), 5.0);
    assert_eq!(variance(&x).unwrap(), 4.0);
    assert_relative_eq!(standard_deviation(&x).unwrap(), (32.0f64 / 7.0).sqrt(), max_relative = 1e-15);
    assert_eq!(
        undefined(standard_deviation(&[3.0])),
        "the standard deviation is undefined: of 1 values, 2 are needed"
    );
    assert_eq!(undefined(mean(&[])), "the mean is undefined: there are no values");
    assert_eq!(undefined(variance(&[])), "the mean is undefined: there are no values");
}

/// The message of what has no value.
fn undefined<T: std::fmt::Debug>(value: curvkit::Result<T>) -> String {
    let error = value.unwrap_err();
    assert!(matches!(error, Error::Undefined { .. }), "{error:?}");
    error.to_string()
}

#[test]
fn a_line_is_fitted_exactly_and_a_parabola_with_its_error() {
    let x: Vec<f64> = (0..7).map(f64::from).collect();
    let y: Vec<f64> = x.iter().map(|x| 3.0 - 0.5 * x).collect();
    let line = fit_line(&x, &y).unwrap();
    assert_relative_eq!(line.slope, -0.5, max_relative = 1e-14);
    assert_relative_eq!(line.intercept, 3.0, max_relative = 1e-14);
    assert!(line.slope_error < 1e-14 && line.points == 7);

    // y = x² on 0, 1, 2, 3: slope 3, intercept −1, residuals 1, −1, −1, 1, Sxx = 5
    let parabola = fit_line(&[0.0, 1.0, 2.0, 3.0], &[0.0, 1.0, 4.0, 9.0]).unwrap();
    assert_relative_eq!(parabola.slope, 3.0, max_relative = 1e-14);
    assert_relative_eq!(parabola.intercept, -1.0, max_relative = 1e-14);
    assert_relative_eq!(parabola.slope_error, (4.0f64 / 2.0 / 5.0).sqrt(), max_relative = 1e-14);
    assert_relative_eq!(parabola.at(2.0), 5.0, max_relative = 1e-14);
}

/// n points of slope 2 whose vertical scatter grows with |x|: no scatter is the same for all.
fn scattered(n: usize, seed: u64) -> (Vec<f64>, Vec<f64>) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut normal = || -> f64 { (0..12).map(|_| rng.random_range(-0.5..0.5)).sum() };
    let x: Vec<f64> = (0..n).map(|_| normal()).collect();
    let y = x.iter().map(|x| 1.0 + 2.0 * x + x.abs() * normal()).collect();
    (x, y)
}

#[test]
fn a_bootstrap_interval_holds_the_slope_at_its_nominal_rate() {
    let (trials, n) = (400, 100);
    let [mut held, mut width, mut standard] = [0.0; 3];
    for seed in 0..trials {
        let (x, y) = scattered(n, seed);
        let interval = fit_line_bootstrap(&x, &y, 200, seed).unwrap();
        let line = fit_line(&x, &y).unwrap();
        assert!(interval.low < line.slope && line.slope < interval.high);
        held += f64::from(interval.contains(2.0)) / trials as f64;
        width += (interval.high - interval.low) / trials as f64;
        standard += 2.0 * 1.96 * line.slope_error / trials as f64;
    }
    // nominally 95 %; a rate of 400 trials is known to within ± 2 %
    assert!((0.89..=0.98).contains(&held), "{held} of the intervals hold the slope");
    // the slope's variance is E[x⁴]/n = 3/n, which the standard error takes for 1/n
    assert_relative_eq!(width / standard, 3f64.sqrt(), max_relative = 0.1);
}

#[test]
fn a_bootstrap_interval_of_few_points_and_of_a_line() {
    let (x, y) = scattered(40, 1);
    let interval = |resamples, seed| fit_line_bootstrap(&x, &y, resamples, seed);
    assert_eq!(interval(100, 3).unwrap(), interval(100, 3).unwrap());
    assert_ne!(interval(100, 3).unwrap(), interval(100, 4).unwrap());
    assert!(matches!(interval(39, 3), Err(Error::Argument { .. })));
    // draws of one point only have no slope, and are drawn again
    let x5 = [1.0, 1.0, 1.0, 1.0, 4.0];
    let line = fit_line_bootstrap(&x5, &x5.map(|x| 5.0 - 2.0 * x), 500, 0).unwrap();
    assert_relative_eq!(line.low, -2.0, max_relative = 1e-12);
    assert_relative_eq!(line.high, -2.0, max_relative = 1e-12);
    // four points have 35 different draws, of which a tail of 2.5 % holds none
    let few = fit_line_bootstrap(&x[..4], &y[..4], 100, 0);
    assert_eq!(undefined(few), "the bootstrap interval is undefined: of 4 points, 5 are needed");
    let same = fit_line_bootstrap(&[0.1; 5], &[1.0, 2.0, 3.0, 4.0, 5.0], 100, 0);
    assert_eq!(undefined(same), "the line is undefined: all points have the same x");
    assert!(matches!(fit_line_bootstrap(&x, &y[1..], 100, 0), Err(Error::Shape { .. })));
    assert!(matches!(fit_line_bootstrap(&x, &[f64::NAN; 40], 100, 0), Err(Error::NotFinite { .. })));
}

#[test]
fn fits_and_correlations_refuse_what_they_cannot_use() {
    assert_eq!(undefined(fit_line(&[], &[])), "the line is undefined: of 0 points, 3 are needed");
    assert_eq!(
        undefined(fit_line(&[1.0, 2.0], &[1.0, 2.0])),
        "the line is undefined: of 2 points, 3 are needed"
    );
    // the mean of three times 0.1 is not 0.1
    for same in [vec![1.0; 4], vec![0.1; 3], vec![0.1; 1000]] {
        let other: Vec<f64> = (0..same.len()).map(|i| i as f64).collect();
        let what = "all points have the same x";
        assert_eq!(undefined(fit_line(&same, &other)), format!("the line is undefined: {what}"));
        for (x, y) in [(&same, &other), (&other, &same), (&same, &same)] {
            let constant = "the correlation is undefined: a series is constant";
            assert_eq!(undefined(pearson(x, y)), constant);
            assert_eq!(undefined(spearman(x, y)), constant);
        }
    }
    assert!(matches!(fit_line(&[1.0; 4], &[1.0; 3]), Err(Error::Shape { .. })));
    assert!(matches!(fit_line(&[1.0, 2.0, f64::NAN], &[1.0; 3]), Err(Error::NotFinite { .. })));
    assert_eq!(
        undefined(spearman(&[1.0], &[3.0])),
        "the rank correlation is undefined: of 1 points, 2 are needed"
    );
}

#[test]
fn correlations() {
    // deviations (−1.5, −0.5, 0.5, 1.5) and (−2, 0, 1, 1): 5 / √(5 · 6)
    let (x, y) = ([1.0, 2.0, 3.0, 4.0], [1.0, 3.0, 4.0, 4.0]);
    assert_relative_eq!(pearson(&x, &y).unwrap(), 5.0 / 30f64.sqrt(), max_relative = 1e-14);
    // a strictly increasing map leaves ρ at 1, a decreasing one turns it
    let cube: Vec<f64> = x.iter().map(|x: &f64| x.powi(3)).collect();
    assert_relative_eq!(spearman(&x, &cube).unwrap(), 1.0, max_relative = 1e-14);
    let falling: Vec<f64> = cube.iter().map(|x| -x).collect();
    assert_relative_eq!(spearman(&x, &falling).unwrap(), -1.0, max_relative = 1e-14);
    // ties share ranks: y has ranks 1, 2, 3.5, 3.5
    assert_eq!(average_ranks(&y), [1.0, 2.0, 3.5, 3.5]);
    assert_eq!(average_ranks(&[7.0, 7.0, -1.0, 7.0]), [3.0, 3.0, 1.0, 3.0]);
    assert_relative_eq!(
        spearman(&x, &y).unwrap(),
        pearson(&x, &[1.0, 2.0, 3.5, 3.5]).unwrap(),
        max_relative = 1e-14
    );
}

#[test]
fn the_normal_distribution_from_far_below_to_far_above() {
    // Φ from tables of 15 digits
    for (z, phi) in [
        (0.0, 0.5),
        (-1.0, 0.158655253931457),
        (1.0, 0.841344746068543),
        (-1.96, 0.0249978951482204),
        (-2.5, 0.00620966532577613),
        (-3.0, 0.00134989803163009),
        (3.0, 0.998650101968370),
        (-6.0, 9.86587645037698e-10),
        (-10.0, 7.61985302416053e-24),
    ] {
        assert_relative_eq!(10f64.powf(log10_normal_cdf(z)), phi, max_relative = 1e-12);
    }
    // ln Φ(z) → −z²/2 − ln(|z| √2π) + ln(1 − 1/z² + 3/z⁴)
    for z in [-40.0, -500.0, -3378.0, -1e6] {
        let z2: f64 = z * z;
        let asymptotic =
            -z2 / 2.0 - 0.5 * (2.0 * std::f64::consts::PI * z2).ln() + (-1.0 / z2 + 3.0 / (z2 * z2)).ln_1p();
        assert_relative_eq!(log10_normal_cdf(z), asymptotic / std::f64::consts::LN_10, max_relative = 1e-10);
    }
    // the three branches meet
    for z in [-2.0f64, 2.0] {
        let (below, above) = (log10_normal_cdf(z.next_down()), log10_normal_cdf(z.next_up()));
        assert_relative_eq!(below, above, max_relative = 1e-12);
    }
}

#[test]
fn random_rotations_are_orthogonal_uniform_and_seeded() {
    let n = 61;
    let q = haar_orthogonal(n, 5);
    assert!((q.transpose() * &q - Mat::<f64>::identity(n, n)).norm_l2() < 1e-12);
    assert_eq!(q, haar_orthogonal(n, 5));
    assert_ne!(q, haar_orthogonal(n, 6));

    // over the Haar measure E[tr Q] = 0 and E[(tr Q)²] = 1; without the sign correction E[tr Q] ≠ 0
    let traces: Vec<f64> = (0..2_000)
        .map(|seed| {
            let q = haar_orthogonal(4, seed);
            (0..4).map(|i| q[(i, i)]).sum()
        })
        .collect();
    let (mean, variance) = (mean(&traces).unwrap(), variance(&traces).unwrap());
    assert!(mean.abs() < 0.1, "mean trace {mean}");
    assert!((variance - 1.0).abs() < 0.15, "variance of the trace {variance}");
}

#[test]
fn numbers_are_logarithmically_spaced() {
    assert_eq!(logarithmically_spaced(100, 6), [1, 3, 6, 16, 40, 100]);
    assert_eq!(logarithmically_spaced(3, 10), [1, 2, 3]);
    assert_eq!(logarithmically_spaced(1, 6), [1]);
}
