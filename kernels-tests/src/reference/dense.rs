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
        let (n, l) = (self.samples(), self.network.outputs);
        let jacobians = self.jacobians();
        let mut curved = jacobians.clone(); // M J
        for p in 0..n {
            let (x, y) = self.sample(p);
            let f = self.network.forward(&self.parameters, x);
            let column = |o| {
                let moving = zip(&f, &unit(l, o), |value, slope| Dual { value, slope });
                loss_gradient(self.loss, &moving, y).into_iter().map(|g| g.slope)
            };
            let m = DMatrix::from_iterator(l, l, (0..l).flat_map(column));
            curved.rows_mut(p * l, l).copy_from(&(m * jacobians.rows(p * l, l)));
        }
        jacobians.tr_mul(&curved) / n as f64
    }

    /// `(1/N) Σ J_pᵀ J_p`
    pub fn jacobian_gram(&self) -> DMatrix<f64> {
        let jacobians = self.jacobians();
        jacobians.tr_mul(&jacobians) / self.samples() as f64
    }

    /// J of every sample, below each other: `[N L, P]`
    fn jacobians(&self) -> DMatrix<f64> {
        let (n, l, dim) = (self.samples(), self.network.outputs, self.parameters.len());
        let mut jacobians = DMatrix::zeros(n * l, dim);
        for p in 0..n {
            let (x, _) = self.sample(p);
            let row = |o| self.network.backward(&self.parameters, x, |_| unit(l, o));
            let rows: Vec<f64> = (0..l).flat_map(row).collect();
            jacobians.rows_mut(p * l, l).copy_from(&DMatrix::from_row_slice(l, dim, &rows));
        }
        jacobians
    }

    /// `Σ₁ = (1/N) Σ g_p g_pᵀ`
    pub fn second_moment(&self) -> DMatrix<f64> {
        let theta = &self.parameters;
        let mean = nalgebra::DVector::from_vec(self.mean_gradient(theta));
        self.noise_covariance() + &mean * mean.transpose()
    }

    /// `C = (1/N) Σ (g_p − ḡ)(g_p − ḡ)ᵀ`
    pub fn noise_covariance(&self) -> DMatrix<f64> {
        let deviations = self.deviations();
        deviations.tr_mul(&deviations) / self.samples() as f64
    }
}

/// The unit vector e_o of l outputs.
fn unit(l: usize, o: usize) -> Vec<f64> {
    (0..l).map(|i| if i == o { 1.0 } else { 0.0 }).collect()
}
