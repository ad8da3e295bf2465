use super::{check_pair, mean};
use crate::{Error, Result};

/// The line `y = intercept + slope · x` of least squared vertical distance.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct LineFit {
    pub slope: f64,
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
/// [`Error::Shape`] where the lengths differ, [`Error::Argument`] for fewer than three points or
/// where all x are equal, [`Error::NotFinite`] where a coordinate is NaN or infinite.
pub fn fit_line(x: &[f64], y: &[f64]) -> Result<LineFit> {
    check_pair("line fit", x, y, 3)?;
    let (x_mean, y_mean) = (mean(x), mean(y));
    let sxx: f64 = x.iter().map(|x| (x - x_mean).powi(2)).sum();
    let sxy: f64 = x.iter().zip(y).map(|(x, y)| (x - x_mean) * (y - y_mean)).sum();
    if sxx == 0.0 {
        return Err(Error::argument("line fit", "all x equal", "at least two distinct x"));
    }
    let slope = sxy / sxx;
    let intercept = y_mean - slope * x_mean;
    let residual: f64 = x.iter().zip(y).map(|(x, y)| (y - intercept - slope * x).powi(2)).sum();
    let slope_error = (residual / (x.len() - 2) as f64 / sxx).sqrt();
    Ok(LineFit { slope, intercept, slope_error, points: x.len() })
}
