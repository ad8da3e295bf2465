//! The three matrices of a network, entry by entry: `[P, P]` each.

use nalgebra::DMatrix;

use super::network::loss_gradient;
use super::scalar::{Dual, Slopes};
use super::{Problem, zip};

impl Problem {
    /// `H = ∇²L`, by as many of its columns at a time as a dual number has slopes.
    pub fn hessian(&self) -> DMatrix<f64> {
        const K: usize = 8;
        let dim = self.parameters.len();
        let mut h = DMatrix::zeros(dim, dim);
        for first in (0..dim).step_by(K) {
            let slope = |i| Slopes(std::array::from_fn(|k| if i == first + k { 1.0 } else { 0.0 }));
            let theta: Vec<Dual<f64, Slopes<K>>> = self
                .parameters
                .iter()
                .enumerate()
                .map(|(i, &value)| Dual { value, slope: slope(i) })
                .collect();
            for (i, g) in self.mean_gradient(&theta).into_iter().enumerate() {
                for (j, slope) in (first..dim).zip(g.slope.0) {
                    h[(i, j)] = slope;
                }
            }
        }
        h
    }

    /// `G = (1/N) Σ J_pᵀ M_p J_p` with `J_p = ∂f/∂θ [L, P]` and `M_p = ∂²ℓ/∂f² [L, L]`, from all entries of both.
    pub fn ggn(&self) -> DMatrix<f64> {
        let (n, l, dim) = (self.samples(), self.network.outputs, self.parameters.len());
        let mut jacobians = DMatrix::zeros(n * l, dim);
        let mut curved = DMatrix::zeros(n * l, dim); // M J
        for p in 0..n {
            let (x, y) = self.sample(p);
            let unit = |o| (0..l).map(|i| if i == o { 1.0 } else { 0.0 }).collect::<Vec<f64>>();
            let rows: Vec<f64> =
                (0..l).flat_map(|o| self.network.backward(&self.parameters, x, |_| unit(o))).collect();
            let jacobian = DMatrix::from_row_slice(l, dim, &rows);
            let f = self.network.forward(&self.parameters, x);
            let column = |o| {
                let moving = zip(&f, &unit(o), |value, slope| Dual { value, slope });
                loss_gradient(self.loss, &moving, y).into_iter().map(|g| g.slope)
            };
            let m = DMatrix::from_iterator(l, l, (0..l).flat_map(column));
            curved.rows_mut(p * l, l).copy_from(&(m * &jacobian));
            jacobians.rows_mut(p * l, l).copy_from(&jacobian);
        }
        jacobians.tr_mul(&curved) / n as f64
    }

    /// `C = (1/N) Σ (g_p − ḡ)(g_p − ḡ)ᵀ`
    pub fn noise_covariance(&self) -> DMatrix<f64> {
        let deviations = self.deviations();
        deviations.tr_mul(&deviations) / self.samples() as f64
    }
}
