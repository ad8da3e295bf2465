use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{check_pair, mean, scatter};
use crate::{Error, Result};

/// The share of slopes that a bootstrap leaves out on either side: a 95 % interval.
const TAIL: f64 = 0.025;
/// Resamples without which the tails hold less than one slope each.
const FEWEST_RESAMPLES: usize = 40;
/// Points without which there are fewer different draws, `C(2n − 1, n)` of n points, than [`FEWEST_RESAMPLES`]: by
/// simulation an interval of three points holds the slope in two of three cases, one of five in nine of ten.
const FEWEST_POINTS: usize = 5;
/// What a line fit is in messages.
const FIT: &str = "the line";

/// The line `y = intercept + slope · x` of least squared vertical distance.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct LineFit {
    /// The slope, in units of y per unit of x.
    pub slope: f64,
    /// The line's value at x = 0.
    pub intercept: f64,
    /// The slope's standard error, `√(Σ residual² / (n − 2) / Σ (x − x̄)²)`.
    pub slope_error: f64,
    /// n, the number of points.
    pub points: usize,
}

impl LineFit {
    /// The line's value at `x`.
    pub fn at(&self, x: f64) -> f64 {
        self.intercept + self.slope * x
    }
}

/// Fits a line to the points `(x, y)` by ordinary least squares.
///
/// # Errors
/// [`Error::Shape`] where the lengths differ, [`Error::Undefined`] for fewer than three points or
/// where all x are equal, [`Error::NotFinite`] where a coordinate is NaN or infinite.
pub fn fit_line(x: &[f64], y: &[f64]) -> Result<LineFit> {
    check_pair(FIT, x, y, 3)?;
    let sxx = scatter(x)?.ok_or_else(|| Error::undefined(FIT, "all points have the same x"))?;
    let (x_mean, y_mean) = (mean(x)?, mean(y)?);
    let sxy: f64 = x.iter().zip(y).map(|(x, y)| (x - x_mean) * (y - y_mean)).sum();
    let slope = sxy / sxx;
    let intercept = y_mean - slope * x_mean;
    let residual: f64 = x.iter().zip(y).map(|(x, y)| (y - intercept - slope * x).powi(2)).sum();
    let slope_error = (residual / (x.len() - 2) as f64 / sxx).sqrt();
    Ok(LineFit { slope, intercept, slope_error, points: x.len() })
}

/// A confidence interval.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Interval {
    /// The lower end, included.
    pub low: f64,
    /// The upper end, included.
    pub high: f64,
}

impl Interval {
    /// Whether `value` lies in it, its ends included.
    pub fn contains(&self, value: f64) -> bool {
        (self.low..=self.high).contains(&value)
    }
}

/// The 95 % confidence interval of the slope that [`fit_line`] finds, by the bootstrap over points: lines are
/// fitted to `resamples` draws of n of the n points, with replacement, and the interval holds all but the
/// outer 2.5 % of their slopes on either side (Efron's percentile interval).
///
/// Unlike the slope's standard error it takes no residual to be as large as another. A draw whose x are all
/// equal is drawn again. `seed` determines the draws.
///
/// # Errors
/// As [`fit_line`], but [`Error::Undefined`] for fewer than five points, and [`Error::Argument`] for fewer than 40
/// resamples.
pub fn fit_line_bootstrap(x: &[f64], y: &[f64], resamples: usize, seed: u64) -> Result<Interval> {
    check_pair("the bootstrap interval", x, y, FEWEST_POINTS)?;
    fit_line(x, y)?;
    if resamples < FEWEST_RESAMPLES {
        return Err(Error::argument("resamples", resamples, format!("at least {FEWEST_RESAMPLES}")));
    }
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let (mut drawn_x, mut drawn_y) = (vec![0.0; x.len()], vec![0.0; y.len()]);
    let mut slopes = Vec::with_capacity(resamples);
    while slopes.len() < resamples {
        for (drawn_x, drawn_y) in drawn_x.iter_mut().zip(&mut drawn_y) {
            let point = rng.random_range(0..x.len());
            (*drawn_x, *drawn_y) = (x[point], y[point]);
        }
        slopes.extend(fit_line(&drawn_x, &drawn_y).map(|line| line.slope));
    }
    slopes.sort_by(f64::total_cmp);
    Ok(Interval { low: quantile(&slopes, TAIL), high: quantile(&slopes, 1.0 - TAIL) })
}

/// The value below which the share `q` of `ascending` lies, interpolated between the two nearest.
fn quantile(ascending: &[f64], q: f64) -> f64 {
    let place = q * (ascending.len() - 1) as f64;
    let (below, above) = (ascending[place.floor() as usize], ascending[place.ceil() as usize]);
    below + place.fract() * (above - below)
}
