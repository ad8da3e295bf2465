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

/// The arithmetic mean; NaN for an empty series.
pub fn mean(x: &[f64]) -> f64 {
    x.iter().sum::<f64>() / x.len() as f64
}

/// The variance over N, about the mean; NaN for an empty series.
pub fn variance(x: &[f64]) -> f64 {
    let centre = mean(x);
    x.iter().map(|x| (x - centre).powi(2)).sum::<f64>() / x.len() as f64
}

/// The sample standard deviation (over N − 1); `None` for fewer than two values.
pub fn standard_deviation(x: &[f64]) -> Option<f64> {
    let n = x.len() as f64;
    (x.len() > 1).then(|| (variance(x) * n / (n - 1.0)).sqrt())
}

/// Two series of equal length with at least `least` values, all finite.
fn check_pair(what: &str, x: &[f64], y: &[f64], least: usize) -> Result<()> {
    if x.len() != y.len() {
        return Err(Error::shape(format!("{what}: y"), [y.len()], [x.len()]));
    }
    if x.len() < least {
        return Err(Error::argument(what, format!("{} points", x.len()), format!("at least {least}")));
    }
    match x.iter().chain(y).find(|value| !value.is_finite()) {
        Some(value) => {
            Err(Error::NotFinite { quantity: what.into(), detail: format!("a point holds {value}") })
        }
        None => Ok(()),
    }
}
