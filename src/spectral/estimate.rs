//! Estimates with their uncertainty.

/// A quantity estimated from random vectors.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    pub value: f64,
    /// Of the value; 0 where nothing was left to chance, infinite where a single sample says nothing of it.
    pub standard_error: f64,
    /// Products spent.
    pub products: usize,
}

impl Estimate {
    /// The mean of independent samples.
    pub(super) fn of(samples: &[f64], products: usize) -> Estimate {
        let m = samples.len() as f64;
        let value = samples.iter().sum::<f64>() / m;
        let squares: f64 = samples.iter().map(|sample| (sample - value).powi(2)).sum();
        let standard_error =
            if samples.len() > 1 { (squares / (m * (m - 1.0))).sqrt() } else { f64::INFINITY };
        Estimate { value, standard_error, products }
    }

    /// The square root of a quantity that is not negative, with the standard error to first order.
    pub(super) fn root(self) -> Estimate {
        let value = self.value.sqrt();
        let standard_error = if value > 0.0 { self.standard_error / (2.0 * value) } else { 0.0 };
        Estimate { value, standard_error, ..self }
    }
}
