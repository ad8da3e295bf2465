//! Layers to graph: each is a linear, bilinear or pointwise op, or a composition of them.

use super::check::{MOST, product};
use super::graph::{Bilinear, Constant, Graph, Linear, TensorId, Term};
use super::initialisation::Initialisation;
use super::model::{FeedForwardActivation, Layer, Model, PositionalEncoding};
use crate::kernels::broadcast::Axes;
use crate::kernels::conv::Conv;
use crate::kernels::pointwise::Pointwise;
use crate::kernels::pool::Windows;
use crate::kernels::sequence::Heads;
use crate::{Error, Result};

/// Under the square root of a layer norm, as PyTorch has it.
const LAYER_NORM_EPSILON: f32 = 1e-5;

/// Appends layers to a graph; `at` is the tensor that the next layer takes, `shape` its shape.
pub(super) struct Builder {
    pub graph: Graph,
    pub at: TensorId,
    pub shape: Vec<usize>,
    tokens: Option<usize>,
}

/// What a layer finds, and what it expects.
type Built<T = ()> = std::result::Result<T, String>;

impl Builder {
    pub fn new(model: &Model) -> Result<Builder> {
        let shape = match (&model.input[..], model.tokens) {
            ([], Some(tokens)) => vec![2, tokens],
            ([], None) => {
                return Err(Error::Model("found neither input nor tokens, expected one of them".into()));
            }
            (shape, None) => shape.to_vec(),
            (_, Some(_)) => return Err(Error::Model("found input and tokens, expected one of them".into())),
        };
        let len = size(&shape).map_err(|problem| Error::Model(format!("input: {problem}")))?;
        let graph = Graph::new(len);
        Ok(Builder { graph, at: 0, shape, tokens: model.tokens })
    }

    /// Appends `layer`, whose parameters' names begin with `name`.
    pub fn layer(&mut self, name: &str, layer: &Layer) -> Result<()> {
        if let Layer::Residual { body, shortcut } = layer {
            return self.residual(name, body, shortcut);
        }
        let takes_ids = matches!(layer, Layer::Embedding { .. });
        let has_ids = self.tokens.is_some() && self.at == self.graph.input;
        let from = self.graph.nodes.len();
        let built = match (takes_ids, has_ids) {
            (true, false) => Err("takes token ids: it comes first, in a model with tokens".into()),
            (false, true) => Err("found token ids, expected an embedding layer first".into()),
            _ => self.plain_layer(name, layer),
        };
        let built = built.and_then(|()| self.check_sizes(from));
        built.map_err(|problem| Error::Model(format!("layer {name} ({}): {problem}", layer.name())))
    }

    /// Sees to it that 32-bit indices reach everything in the tensors that were defined since there were `from`, and all
    /// parameters.
    fn check_sizes(&self, from: usize) -> Built {
        let tensors = self.graph.nodes[from..].iter().map(|node| self.graph.tensors[node.output].len);
        match tensors
            .chain(self.graph.parameters.last().map(|last| last.offset.saturating_add(last.len)))
            .max()
        {
            Some(len) if len > MOST => Err(format!("found {len} values, expected at most {MOST}")),
            _ => Ok(()),
        }
    }

    fn plain_layer(&mut self, name: &str, layer: &Layer) -> Built {
        match *layer {
            Layer::Linear { out_features, bias } => {
                let (rows, ins) = self.last_axis()?;
                positive("out_features", out_features)?;
                size(&[rows, out_features]).map_err(|problem| format!("output: {problem}"))?;
                size(&[out_features, ins]).map_err(|problem| format!("weight: {problem}"))?;
                let names = [format!("{name}.weight"), format!("{name}.bias")];
                self.dense(names, rows, ins, out_features, bias);
                *self.shape.last_mut().expect("has an axis") = out_features;
            }
            Layer::Conv2d { out_channels, kernel_size, stride, padding, bias } => {
                self.convolution(name, out_channels, kernel_size, stride, padding, bias)?;
            }
            Layer::MaxPool2d { kernel_size, stride } => {
                self.pool(Some((kernel_size, stride.unwrap_or(kernel_size))), 0, true)?;
            }
            Layer::AvgPool2d { kernel_size, stride } => {
                self.pool(Some((kernel_size, stride.unwrap_or(kernel_size))), 0, false)?;
            }
            Layer::AdaptiveAvgPool2d { output_size } => self.pool(None, output_size, false)?,
            Layer::PadChannels { channels } => {
                let (ins, [h, w]) = self.image()?;
                positive("channels", channels)?;
                if !channels.is_multiple_of(ins) {
                    return Err(format!(
                        "channels: found {channels}, expected a multiple of the image's {ins}"
                    ));
                }
                // the image is the first of equal parts, the others are zero
                let first = Heads { heads: 1, width: ins * h * w, parts: channels / ins, part: 0 };
                let map = Linear::Heads { tokens: 1, heads: first };
                self.shape = vec![channels, h, w];
                self.define(vec![Term::Linear { map, transposed: true, x: self.at, c: 1.0 }]);
            }
            Layer::Flatten => self.shape = vec![self.len()],
            Layer::Relu => self.pointwise(Pointwise::Relu),
            Layer::LeakyRelu { negative_slope } => {
                if !negative_slope.is_finite() {
                    return Err(format!("negative_slope: found {negative_slope}, expected a finite number"));
                }
                self.pointwise(Pointwise::LeakyRelu { slope: negative_slope });
            }
            Layer::Tanh => self.pointwise(Pointwise::Tanh),
            Layer::Gelu => self.pointwise(Pointwise::Gelu),
            Layer::ScalarBias => {
                let x = self.parameter(format!("{name}.bias"), &[1], Initialisation::Constant(0.0));
                let axes = Axes { outer: 1, m: 1, inner: self.len() };
                let all = Term::linear(Linear::identity(self.len()), self.at);
                self.define(vec![all, Term::linear(Linear::Broadcast(axes), x)]);
            }
            Layer::ScalarScale => {
                let a = self.parameter(format!("{name}.scale"), &[1], Initialisation::Constant(1.0));
                let axes = Axes { outer: 1, m: 1, inner: self.len() };
                self.define(vec![Term::bilinear(Bilinear::ScaleByParameter(axes), a, self.at)]);
            }
            Layer::Embedding { num_embeddings, embedding_dim } => {
                let tokens = self.tokens.expect("an embedding layer is met in token models only");
                positive("num_embeddings", num_embeddings)?;
                positive("embedding_dim", embedding_dim)?;
                size(&[tokens, embedding_dim]).map_err(|problem| format!("output: {problem}"))?;
                size(&[num_embeddings, embedding_dim]).map_err(|problem| format!("weight: {problem}"))?;
                let initial = Initialisation::Normal(1.0);
                let x = self.parameter(format!("{name}.weight"), &[num_embeddings, embedding_dim], initial);
                self.shape = vec![tokens, embedding_dim];
                let map = Linear::Embed { ids: num_embeddings, width: embedding_dim, tokens };
                self.define(vec![Term::linear(map, x)]);
            }
            Layer::PositionalEncoding { kind } => {
                let (tokens, width) = self.sequence()?;
                let all = Term::linear(Linear::identity(self.len()), self.at);
                let encoding = match kind {
                    PositionalEncoding::Sinusoidal => Term::Constant(Constant::Sinusoid { tokens, width }),
                    PositionalEncoding::Learned => {
                        let initial = Initialisation::Normal(1.0);
                        let x = self.parameter(format!("{name}.weight"), &[tokens, width], initial);
                        Term::linear(Linear::Broadcast(Axes { outer: 1, m: tokens * width, inner: 1 }), x)
                    }
                };
                self.define(vec![all, encoding]);
            }
            Layer::TransformerEncoderLayer { num_heads, dim_feedforward, activation, norm_first } => {
                self.transformer(name, num_heads, dim_feedforward, activation, norm_first)?;
            }
            Layer::LayerNorm => {
                let names = [format!("{name}.weight"), format!("{name}.bias")];
                self.layer_norm(names)?;
            }
            Layer::MeanPool => {
                let (tokens, width) = self.sequence()?;
                let x = self.at;
                self.shape = vec![tokens];
                let share = self.define(vec![Term::Constant(Constant::TokenWeight {
                    tokens,
                    masked: self.tokens.is_some(),
                })]);
                self.shape = vec![width];
                let map = Bilinear::MatMul { batch: 1, m: 1, n: width, k: tokens, transposed_b: false };
                self.define(vec![Term::bilinear(map, share, x)]);
            }
            Layer::Residual { .. } => unreachable!("residual layers are built by `layer`"),
        }
        Ok(())
    }

    /// `body(x) + shortcut(x)`
    fn residual(&mut self, name: &str, body: &[Layer], shortcut: &[Layer]) -> Result<()> {
        let (x, shape) = (self.at, self.shape.clone());
        for (i, layer) in body.iter().enumerate() {
            self.layer(&format!("{name}.body.{i}"), layer)?;
        }
        let (through, through_shape) = (self.at, self.shape.clone());
        (self.at, self.shape) = (x, shape);
        for (i, layer) in shortcut.iter().enumerate() {
            self.layer(&format!("{name}.shortcut.{i}"), layer)?;
        }
        if self.shape != through_shape {
            return Err(Error::Model(format!(
                "layer {name} (residual): found a body of shape {through_shape:?} and a shortcut of shape {:?}, \
                 expected the same",
                self.shape
            )));
        }
        self.add(through, self.at);
        Ok(())
    }

    fn convolution(
        &mut self,
        name: &str,
        out: usize,
        kernel: usize,
        stride: usize,
        padding: usize,
        bias: bool,
    ) -> Built {
        let (channels, [h, w]) = self.image()?;
        positive("out_channels", out)?;
        positive("kernel_size", kernel)?;
        positive("stride", stride)?;
        if padding > MOST {
            return Err(format!("padding: found {padding}, expected 0 to {MOST}"));
        }
        if h + 2 * padding < kernel || w + 2 * padding < kernel {
            return Err(format!(
                "kernel_size: found {kernel}, expected at most the padded image's {h} × {w} + 2 · {padding}"
            ));
        }
        let output = [h, w].map(|side| (side + 2 * padding - kernel) / stride + 1);
        size(&[out, output[0], output[1]]).map_err(|problem| format!("output: {problem}"))?;
        size(&[out, channels, kernel, kernel]).map_err(|problem| format!("weight: {problem}"))?;
        let conv = Conv { channels: [channels, out], input: [h, w], output, kernel, stride, padding };
        let initial = Initialisation::fan_in(channels * kernel * kernel);
        let a = self.parameter(format!("{name}.weight"), &[out, channels, kernel, kernel], initial);
        let mut terms = vec![Term::bilinear(Bilinear::Conv(conv), a, self.at)];
        if bias {
            let x = self.parameter(format!("{name}.bias"), &[out], initial);
            let axes = Axes { outer: 1, m: out, inner: output[0] * output[1] };
            terms.push(Term::linear(Linear::Broadcast(axes), x));
        }
        self.shape = vec![out, output[0], output[1]];
        self.define(terms);
        Ok(())
    }

    fn pool(&mut self, fixed: Option<(usize, usize)>, adaptive: usize, maximum: bool) -> Built {
        let (channels, input) = self.image()?;
        let output = match fixed {
            Some((kernel, stride)) => {
                positive("kernel_size", kernel)?;
                positive("stride", stride)?;
                if input.iter().any(|&side| side < kernel) {
                    let [h, w] = input;
                    return Err(format!(
                        "kernel_size: found {kernel}, expected at most the image's {h} × {w}"
                    ));
                }
                input.map(|side| (side - kernel) / stride + 1)
            }
            None => {
                positive("output_size", adaptive)?;
                [adaptive, adaptive]
            }
        };
        self.shape = vec![channels, output[0], output[1]];
        let windows = Windows { input, output, fixed };
        self.define(vec![Term::linear(Linear::Pool { channels, windows, maximum }, self.at)]);
        Ok(())
    }

    /// `(x − mean) / √(variance + ε) · weight + bias` over the last axis.
    fn layer_norm(&mut self, [weight, bias]: [String; 2]) -> Built {
        let (rows, width) = self.last_axis()?;
        let (x, shape, len) = (self.at, self.shape.clone(), self.len());
        let mean = Linear::Spread { m: rows, inner: width };
        let mean_of = |x| Term::Linear { map: mean, transposed: true, x, c: 1.0 / width as f32 };
        self.shape = vec![rows];
        let mu = self.define(vec![mean_of(x)]);
        self.shape = shape.clone();
        let centred = self.define(vec![
            Term::linear(Linear::identity(len), x),
            Term::Linear { map: mean, transposed: false, x: mu, c: -1.0 },
        ]);
        let square = Bilinear::Scale { m: len, inner: 1 };
        let squares = self.define(vec![Term::bilinear(square, centred, centred)]);
        self.shape = vec![rows];
        self.define(vec![mean_of(squares)]);
        self.pointwise(Pointwise::ReciprocalSqrt { shift: LAYER_NORM_EPSILON });
        let scale = self.at;
        self.shape = shape;
        let normal =
            self.define(vec![Term::bilinear(Bilinear::Scale { m: rows, inner: width }, scale, centred)]);
        let axes = Axes { outer: rows, m: width, inner: 1 };
        let a = self.parameter(weight, &[width], Initialisation::Constant(1.0));
        let b = self.parameter(bias, &[width], Initialisation::Constant(0.0));
        self.define(vec![
            Term::bilinear(Bilinear::ScaleByParameter(axes), a, normal),
            Term::linear(Linear::Broadcast(axes), b),
        ]);
        Ok(())
    }

    fn transformer(
        &mut self,
        name: &str,
        heads: usize,
        hidden: usize,
        activation: FeedForwardActivation,
        norm_first: bool,
    ) -> Built {
        let (tokens, width) = self.sequence()?;
        positive("dim_feedforward", hidden)?;
        positive("num_heads", heads)?;
        if !width.is_multiple_of(heads) {
            return Err(format!("num_heads: found {heads}, expected a divisor of the {width} features"));
        }
        // parameters in the order of PyTorch's state_dict, though not all are used in that order
        let of = |part: &str| format!("{name}.{part}");
        let mut linear = |part: &str, ins, outs, weight, bias| {
            let weight = self.parameter(of(&format!("{part}weight")), &[outs, ins], weight);
            (weight, self.parameter(of(&format!("{part}bias")), &[outs], bias))
        };
        let (zero, usual) = (Initialisation::Constant(0.0), Initialisation::fan_in);
        let xavier = Initialisation::xavier(width, 3 * width);
        let in_proj = linear("self_attn.in_proj_", width, 3 * width, xavier, zero);
        let out_proj = linear("self_attn.out_proj.", width, width, usual(width), zero);
        let linear1 = linear("linear1.", width, hidden, usual(width), usual(width));
        let linear2 = linear("linear2.", hidden, width, usual(hidden), usual(hidden));
        let norm = |n: usize| [of(&format!("norm{n}.weight")), of(&format!("norm{n}.bias"))];

        let x = self.at;
        if norm_first {
            self.layer_norm(norm(1))?;
        }
        self.attention(tokens, width, heads, in_proj, out_proj);
        let mut y = self.add(self.at, x);
        if !norm_first {
            self.layer_norm(norm(1))?;
            y = self.at;
        } else {
            self.layer_norm(norm(2))?;
        }
        self.apply(linear1, tokens, width, hidden);
        self.pointwise(match activation {
            FeedForwardActivation::Relu => Pointwise::Relu,
            FeedForwardActivation::Gelu => Pointwise::Gelu,
        });
        self.apply(linear2, tokens, hidden, width);
        self.add(self.at, y);
        if !norm_first {
            self.layer_norm(norm(2))?;
        }
        Ok(())
    }

    /// Multi-head self-attention; keys that are padding are skipped.
    fn attention(
        &mut self,
        tokens: usize,
        width: usize,
        heads: usize,
        in_proj: (TensorId, TensorId),
        out_proj: (TensorId, TensorId),
    ) {
        let d = width / heads;
        let qkv = self.apply(in_proj, tokens, width, 3 * width);
        let part = |part| Linear::Heads { tokens, heads: Heads { heads, width: d, parts: 3, part } };
        self.shape = vec![heads, tokens, d];
        let [q, k, v] = [0, 1, 2].map(|which| self.define(vec![Term::linear(part(which), qkv)]));
        self.shape = vec![heads, tokens, tokens];
        let len = self.len();
        let map = Bilinear::MatMul { batch: heads, m: tokens, n: tokens, k: d, transposed_b: true };
        let scores = self.define(vec![Term::Bilinear { map, a: q, b: k, c: 1.0 / (d as f32).sqrt() }]);
        let shift = Constant::RowShift { tokens, heads, masked: self.tokens.is_some(), of: scores };
        self.define(vec![Term::linear(Linear::identity(len), scores), Term::Constant(shift)]);
        self.pointwise(Pointwise::Exp);
        let exponentials = self.at;
        let rows = Linear::Spread { m: heads * tokens, inner: tokens };
        self.shape = vec![heads, tokens];
        self.define(vec![Term::Linear { map: rows, transposed: true, x: exponentials, c: 1.0 }]);
        self.pointwise(Pointwise::Reciprocal);
        let scale = self.at;
        self.shape = vec![heads, tokens, tokens];
        let map = Bilinear::Scale { m: heads * tokens, inner: tokens };
        let weights = self.define(vec![Term::bilinear(map, scale, exponentials)]);
        self.shape = vec![heads, tokens, d];
        let map = Bilinear::MatMul { batch: heads, m: tokens, n: d, k: tokens, transposed_b: false };
        let out = self.define(vec![Term::bilinear(map, weights, v)]);
        self.shape = vec![tokens, width];
        let merge = Linear::Heads { tokens, heads: Heads { heads, width: d, parts: 1, part: 0 } };
        self.define(vec![Term::Linear { map: merge, transposed: true, x: out, c: 1.0 }]);
        self.apply(out_proj, tokens, width, width);
    }

    fn dense(&mut self, [weight, bias]: [String; 2], rows: usize, ins: usize, outs: usize, with_bias: bool) {
        let initial = Initialisation::fan_in(ins);
        let a = self.parameter(weight, &[outs, ins], initial);
        let mut terms = vec![Term::bilinear(Bilinear::Dense { rows, ins, outs }, a, self.at)];
        if with_bias {
            let x = self.parameter(bias, &[outs], initial);
            terms.push(Term::linear(Linear::Broadcast(Axes { outer: rows, m: outs, inner: 1 }), x));
        }
        self.define_len(terms, rows * outs);
    }

    /// A fully connected layer with given parameters on the last axis.
    fn apply(&mut self, (a, x): (TensorId, TensorId), rows: usize, ins: usize, outs: usize) -> TensorId {
        *self.shape.last_mut().expect("a sequence has two axes") = outs;
        let bias = Linear::Broadcast(Axes { outer: rows, m: outs, inner: 1 });
        self.define(vec![
            Term::bilinear(Bilinear::Dense { rows, ins, outs }, a, self.at),
            Term::linear(bias, x),
        ])
    }

    /// `a + b`
    fn add(&mut self, a: TensorId, b: TensorId) -> TensorId {
        let identity = Linear::identity(self.len());
        self.define(vec![Term::linear(identity, a), Term::linear(identity, b)])
    }

    fn pointwise(&mut self, sigma: Pointwise) {
        self.define(vec![Term::Pointwise { sigma, x: self.at }]);
    }

    /// Defines the next tensor, of the shape in hand.
    fn define(&mut self, terms: Vec<Term>) -> TensorId {
        self.define_len(terms, self.len())
    }

    fn define_len(&mut self, terms: Vec<Term>, len: usize) -> TensorId {
        self.at = self.graph.define(len, terms);
        self.at
    }

    fn parameter(&mut self, name: String, shape: &[usize], initial: Initialisation) -> TensorId {
        self.graph.parameter(name, shape, initial)
    }

    fn len(&self) -> usize {
        product(&self.shape)
    }

    /// The product of all axes but the last, and the last.
    fn last_axis(&self) -> Built<(usize, usize)> {
        match self.shape.split_last() {
            Some((&last, rows)) => Ok((product(rows), last)),
            None => Err("takes a tensor with at least one axis".into()),
        }
    }

    fn image(&self) -> Built<(usize, [usize; 2])> {
        match self.shape[..] {
            [channels, h, w] => Ok((channels, [h, w])),
            _ => Err(format!("found shape {:?}, expected [channels, height, width]", self.shape)),
        }
    }

    fn sequence(&self) -> Built<(usize, usize)> {
        match self.shape[..] {
            [tokens, width] => Ok((tokens, width)),
            _ => Err(format!("found shape {:?}, expected [tokens, features]", self.shape)),
        }
    }
}

/// [`product`], of a tensor that is neither empty nor too large.
fn size(shape: &[usize]) -> Built<usize> {
    match product(shape) {
        size @ 1..=MOST if !shape.is_empty() => Ok(size),
        _ => Err(format!("found shape {shape:?}, expected positive sizes and at most {MOST} values")),
    }
}

fn positive(option: &str, value: usize) -> Built {
    match value {
        1..=MOST => Ok(()),
        found => Err(format!("{option}: found {found}, expected 1 to {MOST}")),
    }
}
