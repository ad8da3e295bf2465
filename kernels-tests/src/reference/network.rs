//! One sample's way through a network, and the losses at its end, in any [`Scalar`].
//!
//! Only forward formulas are written here and in [`layers`]; each layer's names, shapes and
//! formula stand in one place. Derivatives with respect to the parameters come from a [`Tape`], a pointwise
//! function's and a loss's also as slopes over [`Dual`]s.

use std::ops::Range;

use curvkit::net::{FeedForwardActivation, Layer, Loss, Model, PositionalEncoding};

use super::layers::{self, Window, adaptive_ranges, shifted_exps, softmax};
use super::scalar::{Dual, Scalar, sum};
use super::tape::Tape;

/// A model with its shapes worked out.
pub struct Network {
    model: Model,
    /// Each parameter's name and shape, in the order of the flat vector.
    pub parameters: Vec<(String, Vec<usize>)>,
    /// The shape of one sample; `[2, T]` for tokens: ids, then mask.
    pub input: Vec<usize>,
    /// d: the number of inputs of one sample.
    pub inputs: usize,
    /// L: the number of outputs.
    pub outputs: usize,
}

/// A tensor of one sample.
#[derive(Clone)]
struct Tensor<S> {
    shape: Vec<usize>,
    values: Vec<S>,
}

impl<S> Tensor<S> {
    /// # Panics
    /// If there is no axis.
    fn width(&self) -> usize {
        *self.shape.last().expect("at least one axis")
    }

    /// `[channels, height, width]`
    ///
    /// # Panics
    /// If it is no image.
    fn image(&self) -> [usize; 3] {
        let shape = &self.shape;
        shape[..].try_into().unwrap_or_else(|_| panic!("found shape {shape:?}, expected an image"))
    }

    /// `[tokens, features]`
    ///
    /// # Panics
    /// If it is no sequence.
    fn sequence(&self) -> [usize; 2] {
        let shape = &self.shape;
        shape[..].try_into().unwrap_or_else(|_| panic!("found shape {shape:?}, expected a sequence"))
    }
}

impl Network {
    /// # Panics
    /// Where the layers do not fit together, and at layers that have no reference.
    pub fn new(model: &Model) -> Network {
        let input = match model.tokens {
            Some(tokens) => vec![2, tokens],
            None => model.input.clone(),
        };
        let inputs: usize = input.iter().product();
        let mut names = Names::default();
        let output = run(model, &mut names, &vec![1.0; inputs]);
        Network {
            model: model.clone(),
            parameters: names.0,
            input,
            inputs,
            outputs: output.shape.iter().product(),
        }
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

    /// The outputs `f [L]` of the sample `x [d]` at parameters `theta [P]`.
    pub fn forward<S: Scalar>(&self, theta: &[S], x: &[f64]) -> Vec<S> {
        run(&self.model, &mut Slices { rest: theta }, x).values
    }

    /// `(∂f/∂θ)ᵀ f̄ [P]` for the adjoint `f̄(f) [L]` of the outputs `f [L]`.
    pub fn backward<S: Scalar>(
        &self,
        theta: &[S],
        x: &[f64],
        output_adjoint: impl FnOnce(&[S]) -> Vec<S>,
    ) -> Vec<S> {
        let tape = Tape::new();
        let theta = tape.variables(theta);
        let f = self.forward(&theta, x);
        let values: Vec<S> = f.iter().map(|f| f.value).collect();
        tape.pull_back(&theta, &f, &output_adjoint(&values))
    }
}

/// Where layers get their parameters from, each asking for its own by name and shape, in order.
trait Parameters<S> {
    fn next(&mut self, name: String, shape: &[usize]) -> Vec<S>;
}

/// From the flat vector.
struct Slices<'a, S> {
    rest: &'a [S],
}

impl<S: Scalar> Parameters<S> for Slices<'_, S> {
    fn next(&mut self, _: String, shape: &[usize]) -> Vec<S> {
        let (values, rest) = self.rest.split_at(shape.iter().product());
        self.rest = rest;
        values.to_vec()
    }
}

/// From nowhere: writes down what is asked for.
#[derive(Default)]
struct Names(Vec<(String, Vec<usize>)>);

impl Parameters<f64> for Names {
    fn next(&mut self, name: String, shape: &[usize]) -> Vec<f64> {
        self.0.push((name, shape.to_vec()));
        vec![0.0; shape.iter().product()]
    }
}

/// The output of `model` for the sample `x [d]`.
fn run<S: Scalar, P: Parameters<S>>(model: &Model, parameters: &mut P, x: &[f64]) -> Tensor<S> {
    let values = |x: &[f64]| x.iter().map(|&x| S::constant(x)).collect();
    let (x, keep) = match model.tokens {
        Some(tokens) => {
            let (ids, mask) = x.split_at(tokens);
            let keep = mask.iter().map(|&kept| kept != 0.0).collect();
            (Tensor { shape: vec![tokens], values: values(ids) }, Some(keep))
        }
        None => (Tensor { shape: model.input.clone(), values: values(x) }, None),
    };
    Walk { parameters, keep }.layers("", &model.layers, x)
}

struct Walk<'a, P> {
    parameters: &'a mut P,
    /// Of each token of a token model, whether the mask keeps it.
    keep: Option<Vec<bool>>,
}

impl<P> Walk<'_, P> {
    /// Layer after layer, named `prefix` and a number.
    fn layers<S: Scalar>(&mut self, prefix: &str, layers: &[Layer], x: Tensor<S>) -> Tensor<S>
    where
        P: Parameters<S>,
    {
        layers.iter().enumerate().fold(x, |x, (i, layer)| self.layer(&format!("{prefix}{i}"), layer, x))
    }

    /// # Panics
    /// Where the layer does not fit what it is given, or has no reference.
    fn layer<S: Scalar>(&mut self, name: &str, layer: &Layer, x: Tensor<S>) -> Tensor<S>
    where
        P: Parameters<S>,
    {
        let mut next =
            |suffix: &str, shape: &[usize]| self.parameters.next(format!("{name}.{suffix}"), shape);
        match *layer {
            Layer::Linear { out_features, bias } => {
                let width = x.width();
                let w = next("weight", &[out_features, width]);
                let b = if bias { next("bias", &[out_features]) } else { Vec::new() };
                let shape = [&x.shape[..x.shape.len() - 1], &[out_features]].concat();
                Tensor { shape, values: layers::linear(&x.values, width, &w, &b) }
            }
            Layer::Conv2d { out_channels, kernel_size, stride, padding, bias } => {
                let image @ [channels, height, width] = x.image();
                let w = next("weight", &[out_channels, channels, kernel_size, kernel_size]);
                let b = if bias { next("bias", &[out_channels]) } else { Vec::new() };
                let window = Window { size: kernel_size, stride, padding };
                let shape = vec![out_channels, window.count(height), window.count(width)];
                Tensor { shape, values: layers::conv2d(&x.values, image, &w, &b, window) }
            }
            Layer::MaxPool2d { kernel_size, stride } => {
                let window = Window { size: kernel_size, stride: stride.unwrap_or(kernel_size), padding: 0 };
                pool(&x, |len| window.ranges(len), layers::first_largest)
            }
            Layer::AvgPool2d { kernel_size, stride } => {
                let window = Window { size: kernel_size, stride: stride.unwrap_or(kernel_size), padding: 0 };
                pool(&x, |len| window.ranges(len), layers::mean)
            }
            Layer::AdaptiveAvgPool2d { output_size } => {
                pool(&x, |len| adaptive_ranges(output_size, len), layers::mean)
            }
            Layer::PadChannels { channels } => {
                let [_, height, width] = x.image();
                let mut values = x.values;
                values.resize(channels * height * width, S::constant(0.0));
                Tensor { shape: vec![channels, height, width], values }
            }
            Layer::Flatten => Tensor { shape: vec![x.values.len()], ..x },
            Layer::ScalarBias => {
                let b = next("bias", &[1])[0];
                map(x, |x| x + b)
            }
            Layer::ScalarScale => {
                let scale = next("scale", &[1])[0];
                map(x, |x| scale * x)
            }
            Layer::Residual { ref body, ref shortcut } => {
                let y = self.layers(&format!("{name}.body."), body, x.clone());
                let x = self.layers(&format!("{name}.shortcut."), shortcut, x);
                assert_eq!(y.shape, x.shape, "layer {name}: body and shortcut");
                add(y, &x.values)
            }
            Layer::Embedding { num_embeddings, embedding_dim } => {
                let [tokens] = x.shape[..] else { panic!("layer {name}: found {:?}, expected ids", x.shape) };
                let w = next("weight", &[num_embeddings, embedding_dim]);
                let row = |id: &S| &w[id.real() as usize * embedding_dim..][..embedding_dim];
                let values = x.values.iter().flat_map(row).copied().collect();
                Tensor { shape: vec![tokens, embedding_dim], values }
            }
            Layer::PositionalEncoding { kind } => {
                let [tokens, features] = x.sequence();
                let encoding = match kind {
                    PositionalEncoding::Sinusoidal => {
                        layers::sinusoids(tokens, features).into_iter().map(S::constant).collect()
                    }
                    PositionalEncoding::Learned => next("weight", &[tokens, features]),
                };
                add(x, &encoding)
            }
            Layer::TransformerEncoderLayer { num_heads, dim_feedforward, activation, norm_first } => {
                let [_, width] = x.sequence();
                let mut pair = |weight: &str, bias: &str, outs: usize, ins: usize| {
                    (next(weight, &[outs, ins]), next(bias, &[outs]))
                };
                let into = pair("self_attn.in_proj_weight", "self_attn.in_proj_bias", 3 * width, width);
                let out = pair("self_attn.out_proj.weight", "self_attn.out_proj.bias", width, width);
                let linear1 = pair("linear1.weight", "linear1.bias", dim_feedforward, width);
                let linear2 = pair("linear2.weight", "linear2.bias", width, dim_feedforward);
                let [norm1, norm2] = ["norm1", "norm2"].map(|norm| {
                    (next(&format!("{norm}.weight"), &[width]), next(&format!("{norm}.bias"), &[width]))
                });
                let keep = self.keep(&x);
                let sigma = match activation {
                    FeedForwardActivation::Relu => Layer::Relu,
                    FeedForwardActivation::Gelu => Layer::Gelu,
                };
                let attend = |x: Tensor<S>| {
                    let qkv = layers::linear(&x.values, width, &into.0, &into.1);
                    let heads = layers::attention(&qkv, &keep, num_heads);
                    Tensor { values: layers::linear(&heads, width, &out.0, &out.1), ..x }
                };
                let feed_forward = |x: Tensor<S>| {
                    let hidden = layers::linear(&x.values, width, &linear1.0, &linear1.1);
                    let hidden: Vec<S> = hidden.into_iter().map(|x| pointwise(&sigma, x)).collect();
                    Tensor { values: layers::linear(&hidden, dim_feedforward, &linear2.0, &linear2.1), ..x }
                };
                let norm = |x: Tensor<S>, (w, b): &(Vec<S>, Vec<S>)| Tensor {
                    values: layers::layer_norm(&x.values, w, b),
                    ..x
                };
                if norm_first {
                    let x = add(attend(norm(x.clone(), &norm1)), &x.values);
                    add(feed_forward(norm(x.clone(), &norm2)), &x.values)
                } else {
                    let x = norm(add(attend(x.clone()), &x.values), &norm1);
                    norm(add(feed_forward(x.clone()), &x.values), &norm2)
                }
            }
            Layer::LayerNorm => {
                let width = x.width();
                let (w, b) = (next("weight", &[width]), next("bias", &[width]));
                Tensor { values: layers::layer_norm(&x.values, &w, &b), ..x }
            }
            Layer::MeanPool => {
                let [_, features] = x.sequence();
                Tensor { values: layers::mean_pool(&x.values, &self.keep(&x)), shape: vec![features] }
            }
            Layer::Relu | Layer::LeakyRelu { .. } | Layer::Tanh | Layer::Gelu => {
                map(x, |x| pointwise(layer, x))
            }
            _ => panic!("layer {name}: {layer:?} has no f64 reference"),
        }
    }

    /// Which tokens of the sequence `x` are kept: all where the model has no mask.
    fn keep<S>(&self, x: &Tensor<S>) -> Vec<bool> {
        let [tokens, _] = x.sequence();
        self.keep.clone().unwrap_or_else(|| vec![true; tokens])
    }
}

fn map<S: Scalar>(mut x: Tensor<S>, f: impl Fn(S) -> S) -> Tensor<S> {
    x.values.iter_mut().for_each(|x| *x = f(*x));
    x
}

fn add<S: Scalar>(mut x: Tensor<S>, y: &[S]) -> Tensor<S> {
    x.values.iter_mut().zip(y).for_each(|(x, &y)| *x = *x + y);
    x
}

fn pool<S: Scalar>(
    x: &Tensor<S>,
    windows: impl Fn(usize) -> Vec<Range<usize>>,
    pool: impl Fn(&[S]) -> S,
) -> Tensor<S> {
    let image @ [channels, height, width] = x.image();
    let (rows, columns) = (windows(height), windows(width));
    let values = layers::pool2d(&x.values, image, &rows, &columns, pool);
    Tensor { shape: vec![channels, rows.len(), columns.len()], values }
}

/// `σ(x)`
///
/// # Panics
/// If `sigma` is not a pointwise layer that has a reference.
pub fn pointwise<S: Scalar>(sigma: &Layer, x: S) -> S {
    let zero = S::constant(0.0);
    match *sigma {
        Layer::Relu | Layer::LeakyRelu { .. } if x.exceeds(zero) => x,
        Layer::Relu => zero,
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
        Loss::SoftmaxMse => mean * squares(&softmax(f)),
        Loss::SquaredError => S::constant(0.5) * squares(f),
    }
}

/// `∇ℓ(f, y) [L]`
pub fn loss_gradient<S: Scalar>(loss: Loss, f: &[S], y: &[f64]) -> Vec<S> {
    let mut f: Vec<Dual<S>> = f.iter().map(|&f| Dual::constant_in(f)).collect();
    (0..f.len())
        .map(|l| {
            f[l] = Dual::variable(f[l].value);
            let slope = sample_loss(loss, &f, y).slope;
            f[l].slope = S::constant(0.0);
            slope
        })
        .collect()
}
