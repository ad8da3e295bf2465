//! Losses and derivatives of whole networks in f64: the oracle of the jet engine.
//!
//! Everything is done sample by sample and with dense vectors, from three things:
//! * **dual numbers** ([`scalar`]): `f(x + x′ε)` carries a directional derivative, nested duals carry
//!   higher ones;
//! * **a backward pass over any scalar** ([`tape`]) of the forward formulas ([`network`], [`layers`]): over f64
//!   it returns the gradient, over duals the gradient's directional derivatives,
//!   `∇L(θ + εv) = ∇L + ε H v` and `∇L(θ + (ε₁ + ε₂) v) = … + ε₁ ε₂ ∇³L[v, v]`;
//! * **definitions**: the noise covariance and the layer moments are means of explicit outer products and
//!   explicit per-sample Hessians.

mod dense;
pub mod layers;
pub mod network;
pub mod scalar;
pub mod tape;

use curvkit::data::{Dataset, Targets};
use curvkit::net::{Loss, Model};
use nalgebra::{DMatrix, DVector};

use crate::{Real, f64s};
use network::{Network, loss_gradient, sample_loss};
use scalar::{Curve, Dual, Scalar};

/// A network, its parameters, a loss and N samples.
///
/// Matrices such as `[K, P]` are flat and row-major; `v` is always a block of K directions `[K, P]`.
pub struct Problem {
    pub network: Network,
    pub loss: Loss,
    /// θ: `[P]`, in the order of PyTorch's `state_dict`.
    pub parameters: Vec<f64>,
    /// `[N, d]`
    pub inputs: Vec<f64>,
    /// `[N, L]`, one-hot where the data set has classes.
    pub targets: Vec<f64>,
}

/// Means over the samples at one parameter of D elements, from explicit per-sample gradients `g_p [D]` and
/// Hessians `h_p [D, D]`.
pub struct LayerMoments {
    /// `E[h_p]`
    pub hessian: DMatrix<f64>,
    /// `E[g_p g_pᵀ]`, not centred.
    pub gradient_moment: DMatrix<f64>,
    /// `E[h_p²]`
    pub squared_hessian: DMatrix<f64>,
}

impl Problem {
    /// # Panics
    /// Where model, parameters and data do not fit together, or the model has a layer without a reference.
    pub fn new(model: &Model, loss: Loss, parameters: &[impl Real], data: &Dataset) -> Problem {
        let network = Network::new(model);
        let outputs = network.outputs;
        assert_eq!(data.shape, network.input, "the samples' shape");
        assert_eq!(parameters.len(), network.parameter_count(), "the number of parameters");
        let targets = match &data.targets {
            Targets::Classes(classes) => one_hot(classes, outputs),
            Targets::Values { values, width } => {
                assert_eq!(*width, outputs, "the targets' width");
                f64s(values)
            }
        };
        Problem { network, loss, parameters: f64s(parameters), inputs: f64s(&data.inputs), targets }
    }

    /// N.
    pub fn samples(&self) -> usize {
        self.inputs.len() / self.network.inputs
    }

    /// `L = (1/N) Σ ℓ_p`
    pub fn loss(&self) -> f64 {
        self.per_sample_loss().iter().sum::<f64>() / self.samples() as f64
    }

    /// `ℓ_p [N]`
    pub fn per_sample_loss(&self) -> Vec<f64> {
        self.outputs()
            .chunks(self.network.outputs)
            .zip(self.targets.chunks(self.network.outputs))
            .map(|(f, y)| sample_loss(self.loss, f, y))
            .collect()
    }

    /// `f [N, L]`
    pub fn outputs(&self) -> Vec<f64> {
        let sample = |p| self.network.forward(&self.parameters, self.sample(p).0);
        (0..self.samples()).flat_map(sample).collect()
    }

    /// `∇L [P]`
    pub fn gradient(&self) -> Vec<f64> {
        self.mean_gradient(&self.parameters)
    }

    /// `g_p = ∇ℓ_p [N, P]`
    pub fn per_sample_gradient(&self) -> Vec<f64> {
        (0..self.samples()).flat_map(|p| self.sample_gradient(p, &self.parameters)).collect()
    }

    /// `H v [K, P]`
    pub fn hvp(&self, v: &[impl Real]) -> Vec<f64> {
        self.per_direction(v, |v| {
            let theta = zip(&self.parameters, v, |value, slope| Dual { value, slope });
            self.mean_gradient(&theta).into_iter().map(|g| g.slope).collect()
        })
    }

    /// `∇³L[v, v, ·] = d²/dε² ∇L(θ + εv)` at 0: `[K, P]`.
    pub fn third(&self, v: &[impl Real]) -> Vec<f64> {
        self.per_direction(v, |v| {
            let theta = zip(&self.parameters, v, |theta, v| Curve::new([theta, v, 0.0]));
            self.mean_gradient(&theta).into_iter().map(|g| g.derivatives()[2]).collect()
        })
    }

    /// `G v [K, P]` with `G = (1/N) Σ Jᵀ ∇²ℓ J` and `J = ∂f/∂θ`.
    pub fn ggnvp(&self, v: &[impl Real]) -> Vec<f64> {
        self.per_direction(v, |v| self.mean_curvature(&self.parameters, v))
    }

    /// `C v [K, P]` with `C = (1/N) Σ (g_p − ḡ)(g_p − ḡ)ᵀ`.
    pub fn noise_covariance_vp(&self, v: &[impl Real]) -> Vec<f64> {
        let deviations = self.deviations();
        self.per_direction(v, |v| {
            let along = &deviations * DVector::from_column_slice(v); // [N]
            (deviations.tr_mul(&along) / self.samples() as f64).as_slice().to_vec()
        })
    }

    /// `g_p − ḡ [N, P]`
    fn deviations(&self) -> DMatrix<f64> {
        let g = DMatrix::from_row_slice(self.samples(), self.parameters.len(), &self.per_sample_gradient());
        let mean = g.row_mean();
        DMatrix::from_fn(g.nrows(), g.ncols(), |p, i| g[(p, i)] - mean[i])
    }

    /// H, uncentred C and `E[h_p²]` at the parameter `name` (`2.weight`), all `[D, D]`.
    ///
    /// # Panics
    /// If there is no such parameter.
    pub fn layer_moments(&self, name: &str) -> LayerMoments {
        let range = self.network.range(name);
        let d = range.len();
        let mean = 1.0 / self.samples() as f64;
        let zero = DMatrix::zeros(d, d);
        let mut moments =
            LayerMoments { hessian: zero.clone(), gradient_moment: zero.clone(), squared_hessian: zero };
        for p in 0..self.samples() {
            let g = DVector::from_column_slice(&self.sample_gradient(p, &self.parameters)[range.clone()]);
            let h = self.sample_hessian(p, name);
            moments.hessian += mean * &h;
            moments.gradient_moment += mean * &g * g.transpose();
            moments.squared_hessian += mean * &h * &h;
        }
        moments
    }

    /// `h_p = ∇²ℓ_p` at the parameter `name`, `[D, D]`.
    ///
    /// # Panics
    /// If there is no such parameter or sample.
    pub fn sample_hessian(&self, p: usize, name: &str) -> DMatrix<f64> {
        let range = self.network.range(name);
        let mut theta: Vec<Dual<f64>> = self.parameters.iter().map(|&x| Dual::constant(x)).collect();
        let mut h = DMatrix::zeros(range.len(), range.len());
        for (j, mut column) in h.column_iter_mut().enumerate() {
            theta[range.start + j].slope = 1.0;
            let along = self.sample_gradient(p, &theta);
            theta[range.start + j].slope = 0.0;
            for (h, g) in column.iter_mut().zip(&along[range.clone()]) {
                *h = g.slope;
            }
        }
        h
    }

    /// The inputs `[d]` and the targets `[L]` of sample p.
    fn sample(&self, p: usize) -> (&[f64], &[f64]) {
        let (d, l) = (self.network.inputs, self.network.outputs);
        (&self.inputs[p * d..(p + 1) * d], &self.targets[p * l..(p + 1) * l])
    }

    /// `∇ℓ_p(θ) [P]` at any parameters, in any scalar.
    fn sample_gradient<S: Scalar>(&self, p: usize, theta: &[S]) -> Vec<S> {
        let (x, y) = self.sample(p);
        self.network.backward(theta, x, |f| loss_gradient(self.loss, f, y))
    }

    /// `∇L(θ) [P]` at any parameters, in any scalar.
    pub(crate) fn mean_gradient<S: Scalar>(&self, theta: &[S]) -> Vec<S> {
        self.mean(|p| self.sample_gradient(p, theta))
    }

    /// `G v [P]` at any parameters, in any scalar: the slope of `∇ℓ(f + ε J v)`, pulled back by `Jᵀ`.
    pub(crate) fn mean_curvature<S: Scalar>(&self, theta: &[S], v: &[S]) -> Vec<S> {
        let moving = zip(theta, v, |value, slope| Dual { value, slope });
        self.mean(|p| {
            let (x, y) = self.sample(p);
            let outputs = self.network.forward(&moving, x);
            let adjoint = loss_gradient(self.loss, &outputs, y).into_iter().map(|g| g.slope).collect();
            self.network.backward(theta, x, |_| adjoint)
        })
    }

    /// `(1/N) Σ_p x_p [P]`
    fn mean<S: Scalar>(&self, x: impl Fn(usize) -> Vec<S>) -> Vec<S> {
        let total = (1..self.samples()).fold(x(0), |total, p| zip(&total, &x(p), |a, b| a + b));
        let mean = S::constant(1.0 / self.samples() as f64);
        total.into_iter().map(|total| mean * total).collect()
    }

    /// `A v [K, P]` from the `A v [P]` of one direction.
    fn per_direction(&self, v: &[impl Real], apply: impl Fn(&[f64]) -> Vec<f64>) -> Vec<f64> {
        assert_eq!(v.len() % self.parameters.len(), 0, "directions of length P");
        f64s(v).chunks(self.parameters.len()).flat_map(apply).collect()
    }
}

/// `[N, L]`: 1 at each sample's class.
pub fn one_hot(classes: &[u32], outputs: usize) -> Vec<f64> {
    let mut y = vec![0.0; classes.len() * outputs];
    for (y, &class) in y.chunks_mut(outputs).zip(classes) {
        y[class as usize] = 1.0;
    }
    y
}

fn zip<A: Copy, B: Copy, C>(a: &[A], b: &[B], f: impl Fn(A, B) -> C) -> Vec<C> {
    a.iter().zip(b).map(|(&a, &b)| f(a, b)).collect()
}

#[cfg(test)]
mod layer_tests;
#[cfg(test)]
mod tests;
