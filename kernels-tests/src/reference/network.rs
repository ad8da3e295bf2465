//! One sample's way through a network, forwards and backwards, and the losses at its end, in any
//! [`Scalar`].
//!
//! The only rules written here are the forward formulas and the adjoints of `y = W x + b`. A pointwise
//! function's derivative, and a loss's gradient, are slopes of the forward formula over [`Dual`]s.

use std::ops::Range;

use curvkit::net::{Layer, Loss, Model};

use super::scalar::{Dual, Scalar, sum};

/// A model with its shapes worked out.
pub struct Network {
    stages: Vec<Stage>,
    /// Each parameter's name and shape, in the order of the flat vector.
    pub parameters: Vec<(String, Vec<usize>)>,
    /// d: the number of inputs of one sample.
    pub inputs: usize,
    /// L: the number of outputs.
    pub outputs: usize,
}

/// One layer, and its share of the flat parameter vector.
struct Stage {
    layer: Layer,
    /// The last axis of its input, which a linear layer acts on.
    width: usize,
    parameters: Range<usize>,
}

impl Network {
    /// # Panics
    /// Where the layers do not fit together, and at layers that have no reference.
    pub fn new(model: &Model) -> Network {
        let inputs = model.input.iter().product();
        let mut shape = model.input.clone();
        let mut parameters = Vec::new();
        let mut stages = Vec::new();
        let mut start = 0;
        for (i, layer) in model.layers.iter().enumerate() {
            let mut end = start;
            let width = *shape.last().unwrap_or_else(|| panic!("layer {i}: its input has no axis"));
            match *layer {
                Layer::Linear { out_features, bias } => {
                    parameters.push((format!("{i}.weight"), vec![out_features, width]));
                    end += out_features * width;
                    if bias {
                        parameters.push((format!("{i}.bias"), vec![out_features]));
                        end += out_features;
                    }
                    *shape.last_mut().expect("the width") = out_features;
                }
                Layer::Flatten => shape = vec![shape.iter().product()],
                Layer::Relu | Layer::LeakyRelu { .. } | Layer::Tanh | Layer::Gelu => {}
                _ => panic!("layer {i}: {layer:?} has no f64 reference"),
            }
            stages.push(Stage { layer: layer.clone(), width, parameters: start..end });
            start = end;
        }
        Network { stages, parameters, inputs, outputs: shape.iter().product() }
    }

    /// Where the parameter `name` stands in the flat vector.
    ///
    /// # Panics
    /// If there is no such parameter.
    pub fn range(&self, name: &str) -> Range<usize> {
        let mut start = 0;
        for (found, shape) in &self.parameters {
            let end = start + shape.iter().product::<usize>();
            if found == name {
                return start..end;
            }
            start = end;
        }
        panic!("no parameter {name} among {:?}", self.parameters);
    }

    /// P.
    pub fn parameter_count(&self) -> usize {
        self.parameters.iter().map(|(_, shape)| shape.iter().product::<usize>()).sum()
    }

    /// The input of every layer, then the outputs `f [L]`, of the sample `x [d]` at parameters `theta [P]`.
    pub fn forward<S: Scalar>(&self, theta: &[S], x: &[f64]) -> Vec<Vec<S>> {
        let mut states = vec![x.iter().map(|&x| S::constant(x)).collect::<Vec<_>>()];
        for Stage { layer, width, parameters } in &self.stages {
            let theta = &theta[parameters.clone()];
            let x = states.last().expect("the input is there");
            states.push(match *layer {
                Layer::Linear { out_features, bias } => {
                    let (weight, b) = theta.split_at(out_features * width);
                    let unit = |x: &[S], o: usize| {
                        let row = &weight[o * width..(o + 1) * width];
                        let wx = sum(row.iter().zip(x).map(|(&w, &x)| w * x));
                        if bias { wx + b[o] } else { wx }
                    };
                    let units = |x| (0..out_features).map(move |o| unit(x, o));
                    x.chunks(*width).flat_map(units).collect()
                }
                Layer::Flatten => x.clone(),
                _ => x.iter().map(|&x| pointwise(layer, x)).collect(),
            });
        }
        states
    }

    /// `(∂f/∂θ)ᵀ f̄ [P]` at the `states` of [`forward`](Self::forward), for the adjoint `f̄ [L]` of the outputs.
    pub fn backward<S: Scalar>(&self, theta: &[S], states: &[Vec<S>], output_adjoint: Vec<S>) -> Vec<S> {
        let mut theta_adjoint = vec![S::constant(0.0); theta.len()];
        let mut y_adjoint = output_adjoint;
        for (Stage { layer, width, parameters }, x) in self.stages.iter().zip(states).rev() {
            y_adjoint = match *layer {
                Layer::Linear { out_features, bias } => {
                    let weight = &theta[parameters.clone()];
                    let (weight_adjoint, bias_adjoint) =
                        theta_adjoint[parameters.clone()].split_at_mut(out_features * width);
                    let mut x_adjoint = vec![S::constant(0.0); x.len()];
                    let rows = x.chunks(*width).zip(y_adjoint.chunks(out_features));
                    for ((x, y), x_adjoint) in rows.zip(x_adjoint.chunks_mut(*width)) {
                        for (o, &y) in y.iter().enumerate() {
                            for i in 0..*width {
                                let w = o * width + i;
                                weight_adjoint[w] = weight_adjoint[w] + y * x[i];
                                x_adjoint[i] = x_adjoint[i] + weight[w] * y;
                            }
                            if bias {
                                bias_adjoint[o] = bias_adjoint[o] + y;
                            }
                        }
                    }
                    x_adjoint
                }
                Layer::Flatten => y_adjoint,
                _ => x.iter().zip(&y_adjoint).map(|(&x, &y)| pointwise_slope(layer, x) * y).collect(),
            };
        }
        theta_adjoint
    }
}

/// `σ(x)`
///
/// # Panics
/// If `sigma` is not a pointwise layer that has a reference.
pub fn pointwise<S: Scalar>(sigma: &Layer, x: S) -> S {
    match *sigma {
        Layer::Relu if x.real() > 0.0 => x,
        Layer::Relu => S::constant(0.0),
        Layer::LeakyRelu { .. } if x.real() > 0.0 => x,
        Layer::LeakyRelu { negative_slope } => S::constant(negative_slope.into()) * x,
        Layer::Tanh => x.tanh(),
        Layer::Gelu => x * x.normal_cdf(),
        _ => panic!("{sigma:?} has no f64 reference"),
    }
}

/// `σ′(x)`
pub fn pointwise_slope<S: Scalar>(sigma: &Layer, x: S) -> S {
    pointwise(sigma, Dual::variable(x)).slope
}

/// `ℓ(f, y)` of the outputs `f [L]` and the targets `y [L]` (one-hot where the target is a class).
pub fn sample_loss<S: Scalar>(loss: Loss, f: &[S], y: &[f64]) -> S {
    let mean = S::constant(1.0 / f.len() as f64);
    let squares = |f: &[S]| {
        sum(f.iter().zip(y).map(|(&f, &y)| {
            let r = f - S::constant(y);
            r * r
        }))
    };
    match loss {
        Loss::CrossEntropy => {
            let (largest, exps) = shifted_exps(f);
            let log_sum_exp = largest + sum(exps).ln();
            sum(f.iter().zip(y).map(|(&f, &y)| S::constant(y) * (log_sum_exp - f)))
        }
        Loss::Mse => mean * squares(f),
        Loss::SoftmaxMse => {
            let (_, exps) = shifted_exps(f);
            let total = sum(exps.iter().copied());
            let softmax: Vec<S> = exps.into_iter().map(|e| e / total).collect();
            mean * squares(&softmax)
        }
        Loss::SquaredError => S::constant(0.5) * squares(f),
    }
}

/// `m = max f` as a constant, and `exp(f − m)`, none of which overflows.
fn shifted_exps<S: Scalar>(f: &[S]) -> (S, Vec<S>) {
    let largest = S::constant(f.iter().map(|f| f.real()).fold(f64::NEG_INFINITY, f64::max));
    (largest, f.iter().map(|&f| (f - largest).exp()).collect())
}

/// `∇ℓ(f, y) [L]`
pub fn loss_gradient<S: Scalar>(loss: Loss, f: &[S], y: &[f64]) -> Vec<S> {
    let mut f: Vec<Dual<S>> = f.iter().map(|&value| Dual { value, slope: S::constant(0.0) }).collect();
    (0..f.len())
        .map(|l| {
            f[l] = Dual::variable(f[l].value);
            let slope = sample_loss(loss, &f, y).slope;
            f[l].slope = S::constant(0.0);
            slope
        })
        .collect()
}
