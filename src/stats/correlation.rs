use super::{check_pair, mean};
use crate::{Error, Result};

/// Pearson's correlation coefficient of two series, in [−1, 1].
///
/// # Errors
/// [`Error::Shape`] where the lengths differ, [`Error::Argument`] for fewer than two points or where
/// a series is constant, [`Error::NotFinite`] where a value is NaN or infinite.
pub fn pearson(x: &[f64], y: &[f64]) -> Result<f64> {
    check_pair("correlation", x, y, 2)?;
    let (x_mean, y_mean) = (mean(x), mean(y));
    let (mut sxx, mut syy, mut sxy) = (0.0, 0.0, 0.0);
    for (x, y) in x.iter().zip(y) {
        let (dx, dy) = (x - x_mean, y - y_mean);
        sxx += dx * dx;
        syy += dy * dy;
        sxy += dx * dy;
    }
    if sxx == 0.0 || syy == 0.0 {
        return Err(Error::argument("correlation", "a constant series", "values that differ"));
    }
    Ok((sxy / (sxx * syy).sqrt()).clamp(-1.0, 1.0))
}

/// Spearman's ρ: Pearson's correlation of the ranks, where equal values share their average rank.
///
/// # Errors
/// As [`pearson`].
pub fn spearman(x: &[f64], y: &[f64]) -> Result<f64> {
    check_pair("rank correlation", x, y, 2)?;
    pearson(&average_ranks(x), &average_ranks(y))
}

/// Ranks from 1 in ascending order; equal values share the average of the ranks that they occupy.
pub fn average_ranks(x: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..x.len()).collect();
    order.sort_by(|&i, &j| x[i].total_cmp(&x[j]));
    let mut ranks = vec![0.0; x.len()];
    let mut first = 0; // position of the first of a run of equal values
    for run in order.chunk_by(|&i, &j| x[i] == x[j]) {
        let rank = first as f64 + (run.len() + 1) as f64 / 2.0;
        for &i in run {
            ranks[i] = rank;
        }
        first += run.len();
    }
    ranks
}
