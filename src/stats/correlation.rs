use super::{check_pair, mean, scatter};
use crate::{Error, Result};

/// Pearson's correlation coefficient of two series, in [−1, 1].
///
/// # Errors
/// [`Error::Shape`] where the lengths differ, [`Error::Undefined`] for fewer than two points or where
/// a series is constant, [`Error::NotFinite`] where a value is NaN or infinite.
pub fn pearson(x: &[f64], y: &[f64]) -> Result<f64> {
    const WHAT: &str = "the correlation";
    check_pair(WHAT, x, y, 2)?;
    let (Some(sxx), Some(syy)) = (scatter(x)?, scatter(y)?) else {
        return Err(Error::undefined(WHAT, "a series is constant"));
    };
    let (x_mean, y_mean) = (mean(x)?, mean(y)?);
    let sxy: f64 = x.iter().zip(y).map(|(x, y)| (x - x_mean) * (y - y_mean)).sum();
    Ok((sxy / (sxx.sqrt() * syy.sqrt())).clamp(-1.0, 1.0))
}

/// Spearman's ρ: Pearson's correlation of the ranks, where equal values share their average rank.
///
/// # Errors
/// As [`pearson`].
pub fn spearman(x: &[f64], y: &[f64]) -> Result<f64> {
    check_pair("the rank correlation", x, y, 2)?;
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
