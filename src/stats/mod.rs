//! Statistics of measured series: moments, line fits and their confidence, correlations, the tail of the normal
//! distribution, and random rotations.

mod correlation;
mod fit;
mod normal;
mod rotation;

pub use correlation::{average_ranks, pearson, spearman};
pub use fit::{Interval, LineFit, fit_line, fit_line_bootstrap};
pub use normal::log10_normal_cdf;
pub use rotation::haar_orthogonal;

use crate::{Error, Result};

/// `count` numbers of 1 to `last` at most, evenly spaced on a logarithmic axis; 1 and `last` are among them.
pub fn logarithmically_spaced(last: u64, count: usize) -> Vec<u64> {
    let steps = count.max(2) - 1;
    let mut at: Vec<u64> =
        (0..=steps).map(|i| (last as f64).powf(i as f64 / steps as f64).round() as u64).collect();
    at.dedup();
    at
}

/// The arithmetic mean.
///
/// # Errors
/// [`Error::Undefined`] for an empty series.
pub fn mean(x: &[f64]) -> Result<f64> {
    match x.len() {
        0 => Err(Error::undefined("the mean", "there are no values")),
        n => Ok(x.iter().sum::<f64>() / n as f64),
    }
}

/// The variance over N, about the mean.
///
/// # Errors
/// As [`mean`].
pub fn variance(x: &[f64]) -> Result<f64> {
    let centre = mean(x)?;
    mean(&x.iter().map(|x| (x - centre).powi(2)).collect::<Vec<_>>())
}

/// The sample standard deviation (over N − 1).
///
/// # Errors
/// [`Error::Undefined`] for fewer than two values.
pub fn standard_deviation(x: &[f64]) -> Result<f64> {
    match x.len() as f64 {
        n if n < 2.0 => {
            Err(Error::undefined("the standard deviation", format!("of {n} values, 2 are needed")))
        }
        n => Ok((variance(x)? * n / (n - 1.0)).sqrt()),
    }
}

/// `Σ (x − x̄)²`, or nothing where all values are the same, whose mean need not be one of them.
fn scatter(x: &[f64]) -> Result<Option<f64>> {
    let centre = mean(x)?;
    let sum = x.iter().map(|x| (x - centre).powi(2)).sum::<f64>();
    Ok((x.iter().any(|&value| value != x[0]) && sum > 0.0).then_some(sum))
}

/// Two series of equal length with at least `least` values, all finite.
fn check_pair(what: &str, x: &[f64], y: &[f64], least: usize) -> Result<()> {
    if x.len() != y.len() {
        return Err(Error::shape(format!("{what}: y"), [y.len()], [x.len()]));
    }
    if x.len() < least {
        return Err(Error::undefined(what, format!("of {} points, {least} are needed", x.len())));
    }
    match x.iter().chain(y).find(|value| !value.is_finite()) {
        Some(value) => {
            Err(Error::NotFinite { quantity: what.into(), detail: format!("a point holds {value}") })
        }
        None => Ok(()),
    }
}
