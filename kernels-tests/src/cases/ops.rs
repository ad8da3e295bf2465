//! Small networks over every layer kind: each at odd sizes, at the start of a network, in its middle and at its
//! end.

use curvkit::data::{Dataset, Targets};
use curvkit::net::{FeedForwardActivation, Layer, Loss, Model, PositionalEncoding};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{Case, LEAKY, Target, largest};
use crate::reference::network::Network;

use FeedForwardActivation as Activation;
use Input::{Tensor, Tokens};
use Layer::{Flatten, Gelu, LayerNorm, MeanPool, Relu, ScalarBias, ScalarScale, Tanh};
use Loss::{CrossEntropy, Mse, SoftmaxMse, SquaredError};
use PositionalEncoding::{Learned, Sinusoidal};
use Target::{Class, Value};

/// What a network is given.
pub(super) enum Input {
    /// Samples of that shape.
    Tensor(&'static [usize]),
    /// That many tokens, padding included, of a vocabulary of the second size, and what the masks keep.
    Tokens(usize, usize, Mask),
}

#[derive(Clone, Copy)]
pub(super) enum Mask {
    /// The first tokens: in the first sample all, in the second one, then other numbers.
    Front,
    /// Some or all tokens anywhere.
    Anywhere,
}

/// Name, input, layers, loss, targets, N, K.
pub(super) type Row = (&'static str, Input, Vec<Layer>, Loss, Target, usize, usize);

pub(super) fn linear(out_features: usize) -> Layer {
    Layer::Linear { out_features, bias: true }
}

pub(super) fn conv(
    out_channels: usize,
    kernel_size: usize,
    stride: usize,
    padding: usize,
    bias: bool,
) -> Layer {
    Layer::Conv2d { out_channels, kernel_size, stride, padding, bias }
}

pub(super) fn max_pool(kernel_size: usize, stride: Option<usize>) -> Layer {
    Layer::MaxPool2d { kernel_size, stride }
}

fn avg_pool(kernel_size: usize, stride: Option<usize>) -> Layer {
    Layer::AvgPool2d { kernel_size, stride }
}

pub(super) fn adaptive(output_size: usize) -> Layer {
    Layer::AdaptiveAvgPool2d { output_size }
}

pub(super) fn residual(body: Vec<Layer>, shortcut: Vec<Layer>) -> Layer {
    Layer::Residual { body, shortcut }
}

/// A block of a fixup residual network.
fn fixup(channels: usize, stride: usize, shortcut: Vec<Layer>) -> Layer {
    let first = [ScalarBias, conv(channels, 3, stride, 1, false), ScalarBias, Relu];
    let second = [ScalarBias, conv(channels, 3, 1, 1, false), ScalarScale, ScalarBias];
    residual([first, second].concat(), shortcut)
}

pub(super) fn embedding(embedding_dim: usize) -> Layer {
    // the vocabulary is filled in from the input
    Layer::Embedding { num_embeddings: 0, embedding_dim }
}

pub(super) fn encoding(kind: PositionalEncoding) -> Layer {
    Layer::PositionalEncoding { kind }
}

pub(super) fn encoder(
    num_heads: usize,
    dim_feedforward: usize,
    activation: Activation,
    norm_first: bool,
) -> Layer {
    Layer::TransformerEncoderLayer { num_heads, dim_feedforward, activation, norm_first }
}

fn table() -> Vec<Row> {
    let image = |shape| Tensor(shape);
    let tokens = |count, vocabulary| Tokens(count, vocabulary, Mask::Front);
    let holes = |count, vocabulary| Tokens(count, vocabulary, Mask::Anywhere);
    let relu = Activation::Relu;
    let gelu = Activation::Gelu;
    vec![
        // convolutions: kernel, stride, padding, bias
        (
            "conv k1",
            image(&[2, 5, 7]),
            vec![conv(3, 1, 1, 0, true), Tanh, conv(2, 1, 1, 0, false), Flatten, linear(3)],
            CrossEntropy,
            Class,
            2,
            3,
        ),
        (
            "conv k3 p1",
            image(&[3, 5, 7]),
            vec![conv(4, 3, 1, 1, true), Relu, conv(5, 3, 1, 1, false), Flatten, linear(3)],
            CrossEntropy,
            Class,
            5,
            3,
        ),
        (
            "conv k3 s2",
            image(&[2, 5, 7]),
            vec![conv(3, 3, 2, 0, false), Gelu, conv(2, 3, 2, 1, true), Flatten, linear(2)],
            SquaredError,
            Value,
            2,
            1,
        ),
        (
            "conv k5 s2 p2",
            image(&[1, 7, 5]),
            vec![conv(3, 5, 2, 2, true), Tanh, conv(2, 5, 1, 2, true), LEAKY, Flatten, linear(4)],
            SoftmaxMse,
            Class,
            5,
            1,
        ),
        (
            "conv k3 s2 p1 thrice, one pixel left",
            image(&[1, 7, 5]),
            vec![conv(3, 3, 2, 1, true), Tanh, conv(5, 3, 2, 1, true), Gelu, conv(3, 3, 2, 1, true), Flatten],
            CrossEntropy,
            Class,
            2,
            3,
        ),
        (
            "conv k5 over the whole image, nothing else",
            image(&[2, 5, 5]),
            vec![conv(3, 5, 1, 0, true), Flatten],
            CrossEntropy,
            Class,
            1,
            3,
        ),
        (
            "conv k3 s3 p2, windows mostly of padding",
            image(&[1, 5, 7]),
            vec![conv(4, 3, 3, 2, true), Relu, conv(3, 3, 3, 2, false), Tanh, Flatten, linear(1)],
            Mse,
            Value,
            5,
            1,
        ),
        (
            "conv k1 s2 p1, skipping pixels",
            image(&[3, 5, 7]),
            vec![conv(2, 1, 2, 1, true), Tanh, conv(3, 1, 2, 0, false), Flatten, linear(3)],
            CrossEntropy,
            Class,
            2,
            1,
        ),
        (
            "conv of one pixel",
            image(&[5, 1, 1]),
            vec![conv(3, 3, 1, 1, true), Gelu, conv(1, 1, 1, 0, true), Flatten],
            SquaredError,
            Value,
            1,
            1,
        ),
        (
            "conv of one row",
            image(&[2, 1, 11]),
            vec![conv(3, 3, 2, 1, true), Tanh, conv(2, 5, 1, 2, false), Flatten, linear(2)],
            SoftmaxMse,
            Class,
            5,
            3,
        ),
        (
            "conv of 17 channels",
            image(&[1, 3, 5]),
            vec![conv(17, 3, 1, 1, false), Relu, conv(7, 3, 2, 0, true), Relu, Flatten, linear(10)],
            CrossEntropy,
            Class,
            5,
            3,
        ),
        // pooling
        (
            "max pool k2",
            image(&[2, 5, 7]),
            vec![conv(3, 3, 1, 1, true), Relu, max_pool(2, None), conv(2, 3, 1, 1, true), Flatten, linear(3)],
            CrossEntropy,
            Class,
            5,
            3,
        ),
        (
            "max pool k3 s2, overlapping",
            image(&[2, 7, 5]),
            vec![conv(3, 3, 1, 1, true), Tanh, max_pool(3, Some(2)), Gelu, Flatten, linear(3)],
            Mse,
            Class,
            2,
            3,
        ),
        (
            "max pool k2 s3, with gaps, twice",
            image(&[1, 7, 8]),
            vec![
                conv(3, 3, 1, 1, false),
                max_pool(2, Some(3)),
                Tanh,
                conv(3, 1, 1, 0, true),
                max_pool(1, Some(2)),
                Flatten,
            ],
            SquaredError,
            Value,
            5,
            1,
        ),
        (
            "max pool first and last",
            image(&[2, 9, 7]),
            vec![max_pool(2, None), conv(3, 3, 1, 1, true), Tanh, max_pool(3, None), Flatten],
            CrossEntropy,
            Class,
            2,
            1,
        ),
        (
            TIES,
            image(&[2, 5, 7]),
            vec![conv(3, 1, 1, 0, true), max_pool(3, Some(2)), Tanh, Flatten, linear(3)],
            CrossEntropy,
            Class,
            5,
            3,
        ),
        (
            "avg pool k2",
            image(&[2, 5, 7]),
            vec![conv(3, 3, 1, 1, true), Tanh, avg_pool(2, None), conv(2, 3, 1, 1, true), Flatten, linear(3)],
            CrossEntropy,
            Class,
            5,
            3,
        ),
        (
            "avg pool k3 s2, overlapping",
            image(&[2, 7, 5]),
            vec![conv(3, 3, 1, 1, true), Gelu, avg_pool(3, Some(2)), Gelu, Flatten, linear(3)],
            SoftmaxMse,
            Class,
            2,
            3,
        ),
        (
            "avg pool k1 s2, first, and with gaps, last",
            image(&[3, 9, 7]),
            vec![avg_pool(1, Some(2)), conv(2, 3, 1, 1, true), Tanh, avg_pool(2, Some(3)), Flatten],
            SquaredError,
            Value,
            1,
            3,
        ),
        (
            "adaptive avg pool to 1",
            image(&[2, 5, 7]),
            vec![conv(5, 3, 1, 1, true), Relu, adaptive(1), Flatten, linear(3)],
            CrossEntropy,
            Class,
            5,
            1,
        ),
        (
            "adaptive avg pool to 2 and 3, uneven",
            image(&[1, 5, 7]),
            vec![
                conv(2, 3, 1, 1, true),
                Tanh,
                adaptive(3),
                conv(2, 1, 1, 0, true),
                Gelu,
                adaptive(2),
                Flatten,
            ],
            SquaredError,
            Class,
            2,
            3,
        ),
        (
            "adaptive avg pool first, and to more than there is",
            image(&[2, 7, 5]),
            vec![adaptive(3), conv(2, 3, 1, 1, true), Tanh, adaptive(4), Flatten, linear(2)],
            CrossEntropy,
            Class,
            2,
            1,
        ),
        (
            "linear along the rows of an image",
            image(&[2, 3, 5]),
            vec![conv(2, 3, 1, 1, true), linear(4), Tanh, conv(1, 3, 1, 0, true), Flatten],
            CrossEntropy,
            Class,
            5,
            3,
        ),
        // residuals and scalars
        (
            "residual on the input",
            Tensor(&[7]),
            vec![residual(vec![linear(5), Tanh, linear(7)], vec![]), Relu, linear(3)],
            CrossEntropy,
            Class,
            5,
            3,
        ),
        (
            "residual with shortcut, first and last",
            Tensor(&[5]),
            vec![residual(vec![linear(7), Gelu, linear(3)], vec![linear(3)])],
            SoftmaxMse,
            Class,
            1,
            3,
        ),
        (
            "residuals in a residual",
            Tensor(&[3]),
            vec![
                linear(5),
                residual(
                    vec![Tanh, residual(vec![linear(5)], vec![Gelu]), residual(vec![Tanh], vec![])],
                    vec![linear(4), residual(vec![Relu, linear(4)], vec![]), linear(5)],
                ),
                Tanh,
                linear(2),
            ],
            Mse,
            Value,
            2,
            3,
        ),
        (
            "residual of convolutions",
            image(&[2, 5, 7]),
            vec![
                conv(3, 3, 1, 1, true),
                residual(vec![conv(3, 3, 1, 1, true), Relu, conv(3, 3, 1, 1, false)], vec![]),
                Relu,
                residual(
                    vec![conv(4, 3, 2, 1, false), Tanh, conv(4, 3, 1, 1, true)],
                    vec![conv(4, 1, 2, 0, false)],
                ),
                Relu,
                adaptive(1),
                Flatten,
                linear(3),
            ],
            CrossEntropy,
            Class,
            5,
            3,
        ),
        (
            "fixup residuals",
            image(&[1, 7, 5]),
            vec![
                conv(3, 3, 1, 1, false),
                ScalarBias,
                Relu,
                fixup(3, 1, vec![]),
                Relu,
                fixup(4, 2, vec![ScalarBias, conv(4, 1, 2, 0, false)]),
                Relu,
                fixup(4, 2, vec![avg_pool(1, Some(2))]),
                Relu,
                adaptive(1),
                ScalarBias,
                Flatten,
                linear(3),
            ],
            CrossEntropy,
            Class,
            5,
            3,
        ),
        (
            "scalars first and last",
            Tensor(&[5]),
            vec![ScalarScale, ScalarBias, linear(3), Tanh, ScalarBias, linear(2), ScalarScale, ScalarBias],
            SquaredError,
            Value,
            2,
            3,
        ),
        ("two scalars, nothing else", Tensor(&[3]), vec![ScalarBias, ScalarScale], SoftmaxMse, Class, 5, 1),
        // normalised
        ("layer norm", Tensor(&[7]), vec![linear(5), LayerNorm, Tanh, linear(3)], CrossEntropy, Class, 5, 3),
        (
            "layer norm first and last",
            Tensor(&[7]),
            vec![LayerNorm, linear(5), Gelu, linear(4), LayerNorm],
            SquaredError,
            Value,
            2,
            1,
        ),
        (
            "layer norm along the rows of an image",
            image(&[2, 3, 5]),
            vec![conv(2, 3, 1, 1, true), LayerNorm, LEAKY, Flatten, linear(3)],
            SoftmaxMse,
            Class,
            1,
            3,
        ),
        // tokens
        ("embedding", tokens(3, 7), vec![embedding(5), Flatten, linear(3)], CrossEntropy, Class, 5, 3),
        ("embedding and mean, nothing else", tokens(5, 3), vec![embedding(3), MeanPool], Mse, Value, 5, 1),
        (
            "embedding of one token",
            tokens(1, 2),
            vec![embedding(3), Tanh, MeanPool, linear(2)],
            SquaredError,
            Class,
            1,
            3,
        ),
        (
            "sinusoidal encoding, odd width",
            tokens(6, 11),
            vec![embedding(5), encoding(Sinusoidal), linear(7), Gelu, MeanPool, linear(3)],
            CrossEntropy,
            Class,
            5,
            3,
        ),
        (
            "learned encoding",
            tokens(5, 11),
            vec![embedding(4), encoding(Learned), LayerNorm, linear(3), Tanh, MeanPool, linear(2)],
            SoftmaxMse,
            Class,
            5,
            1,
        ),
        (
            "learned and sinusoidal encoding in mid-network",
            holes(5, 7),
            vec![
                embedding(3),
                linear(5),
                encoding(Learned),
                Tanh,
                encoding(Sinusoidal),
                Gelu,
                MeanPool,
                linear(3),
            ],
            CrossEntropy,
            Class,
            2,
            3,
        ),
        // attention
        (
            "encoder, post-norm, relu",
            tokens(7, 11),
            vec![embedding(6), encoding(Sinusoidal), encoder(2, 9, relu, false), MeanPool, linear(3)],
            CrossEntropy,
            Class,
            5,
            3,
        ),
        (
            "encoder, norm first, relu",
            tokens(7, 11),
            vec![embedding(6), encoding(Learned), encoder(3, 5, relu, true), MeanPool, linear(2)],
            SquaredError,
            Class,
            5,
            1,
        ),
        (
            "encoder, post-norm, gelu, one head",
            holes(5, 7),
            vec![embedding(5), encoding(Learned), encoder(1, 7, gelu, false), MeanPool, linear(3)],
            SoftmaxMse,
            Class,
            5,
            3,
        ),
        (
            "encoder, norm first, gelu, heads of one feature",
            holes(6, 7),
            vec![
                embedding(5),
                encoding(Sinusoidal),
                encoder(5, 3, gelu, true),
                LayerNorm,
                MeanPool,
                linear(3),
            ],
            CrossEntropy,
            Class,
            2,
            1,
        ),
        (
            "encoders, both orders, in mid-network",
            tokens(5, 7),
            vec![
                embedding(3),
                encoding(Sinusoidal),
                linear(8),
                Tanh,
                encoder(2, 11, relu, false),
                encoder(4, 7, gelu, true),
                LayerNorm,
                linear(5),
                Gelu,
                MeanPool,
                linear(3),
            ],
            CrossEntropy,
            Class,
            2,
            3,
        ),
        (
            "encoder in a residual, scaled",
            tokens(4, 5),
            vec![
                embedding(4),
                residual(vec![encoder(2, 3, relu, false), ScalarScale], vec![linear(4), ScalarBias]),
                MeanPool,
                Tanh,
                linear(2),
            ],
            Mse,
            Value,
            2,
            3,
        ),
        (
            "encoder whose padded rows count",
            tokens(3, 5),
            vec![embedding(4), encoder(2, 5, gelu, false), Flatten, linear(3)],
            CrossEntropy,
            Class,
            2,
            1,
        ),
        (
            "encoder of one token",
            tokens(1, 5),
            vec![embedding(4), encoder(2, 5, relu, true), MeanPool, linear(3)],
            CrossEntropy,
            Class,
            1,
            3,
        ),
        (
            "encoder without mask, first",
            Tensor(&[5, 4]),
            vec![encoder(2, 3, gelu, true), encoder(1, 3, relu, false), MeanPool, linear(2)],
            CrossEntropy,
            Class,
            2,
            3,
        ),
        (
            "encoder last",
            Tensor(&[3, 4]),
            vec![linear(4), encoder(2, 3, gelu, false), MeanPool],
            SquaredError,
            Value,
            1,
            1,
        ),
        // all kinds of thing
        (
            "convolution, pooling, rows as tokens",
            image(&[1, 9, 8]),
            vec![
                conv(2, 3, 1, 1, true),
                Relu,
                max_pool(2, None),
                fixup(3, 1, vec![conv(3, 1, 1, 0, true)]),
                LayerNorm,
                avg_pool(2, Some(1)),
                Tanh,
                Flatten,
                linear(5),
                residual(vec![LayerNorm, linear(5), Gelu], vec![ScalarScale]),
                linear(3),
            ],
            CrossEntropy,
            Class,
            5,
            3,
        ),
    ]
}

/// The case in which all values of a channel are equal, while their derivatives are not.
pub const TIES: &str = "max pool of equal values";

/// Small networks over every layer kind, the same ones in every run: fewer than 3,000 parameters, N at most 5,
/// K at most 3.
///
/// Where a layer branches (ReLU, max pooling), f64 and an f32 that is within 1e-5 take the same branch. Ids are
/// random under padding, too.
pub fn op_cases() -> Vec<Case> {
    table().into_iter().enumerate().map(|(i, row)| case(i as u64, row)).collect()
}

/// Inputs, values and directions are uniform in [−1, 1). So are parameters, times `2/√fan_in`; what scales
/// (`scale`, a norm's `weight`) is about 1.
pub(super) fn case(seed: u64, (name, input, mut layers, loss, target, samples, directions): Row) -> Case {
    let mut rng = ChaCha8Rng::seed_from_u64(2_000 + seed);
    let (shape, tokens, inputs) = match input {
        Tensor(shape) => {
            let count = samples * shape.iter().product::<usize>();
            (shape.to_vec(), None, (0..count).map(|_| rng.random_range(-1.0..1.0)).collect::<Vec<f32>>())
        }
        Tokens(tokens, vocabulary, mask) => {
            let Layer::Embedding { num_embeddings, .. } = &mut layers[0] else {
                panic!("no embedding first")
            };
            *num_embeddings = vocabulary;
            let mut inputs = Vec::new();
            for p in 0..samples {
                inputs.extend((0..tokens).map(|_| rng.random_range(0..vocabulary) as f32));
                let kept = [tokens, 1, tokens / 2 + 1, tokens.div_ceil(3), tokens][p % 5];
                let mut keep: Vec<bool> = (0..tokens).map(|t| t < kept).collect();
                if matches!(mask, Mask::Anywhere) {
                    keep.fill_with(|| rng.random_bool(0.6));
                    keep[p % tokens] = true;
                }
                inputs.extend(keep.into_iter().map(|keep| if keep { 1.0 } else { 0.0 }));
            }
            (vec![2, tokens], Some(tokens), inputs)
        }
    };
    let model = Model {
        input: if tokens.is_some() { Vec::new() } else { shape.clone() },
        tokens,
        layers,
        ..Model::default()
    };
    let network = Network::new(&model);
    let mut uniform = |count: usize| (0..count).map(|_| rng.random_range(-1.0..1.0)).collect::<Vec<f32>>();
    let mut parameters = Vec::new();
    for (name, shape) in &network.parameters {
        let values = uniform(shape.iter().product());
        let scales = name.ends_with("scale") || (shape.len() == 1 && name.ends_with("weight"));
        let fan_in: usize = shape[1..].iter().product();
        let size = if shape.len() == 1 { 0.5 } else { 2.0 / (fan_in as f32).sqrt() };
        parameters.extend(values.into_iter().map(|x| size * x + if scales { 1.0 } else { 0.0 }));
    }
    if name == TIES {
        let weight = network.range("0.weight");
        parameters[weight].fill(0.0);
    }
    let outputs = network.outputs;
    let values = uniform(samples * outputs);
    let targets = match target {
        // the class that a random vector points to
        Class => Targets::Classes(values.chunks(outputs).map(largest).collect()),
        Value => Targets::Values { values, width: outputs },
    };
    Case {
        name: format!("{name}, {loss} N={samples} K={directions}"),
        model,
        loss,
        v: uniform(directions * parameters.len()),
        parameters,
        data: Dataset::new(inputs, shape, targets).expect("the table's shapes agree"),
        directions,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of a layer and those in it, the name, with what changes how it is computed.
    fn kinds(layer: &Layer, found: &mut Vec<String>) {
        let variant = match layer {
            Layer::Residual { body, shortcut } => {
                body.iter().chain(shortcut).for_each(|layer| kinds(layer, found));
                format!(" {}", if shortcut.is_empty() { "identity" } else { "shortcut" })
            }
            Layer::Conv2d { kernel_size, stride, padding, bias, .. } => {
                found.push(format!("conv2d {}", if *bias { "bias" } else { "no bias" }));
                found.push(format!("conv2d stride {stride}"));
                found.push(format!("conv2d padding {padding}"));
                format!(" k{kernel_size}")
            }
            Layer::PositionalEncoding { kind } => format!(" {kind:?}"),
            Layer::TransformerEncoderLayer { activation, norm_first, .. } => {
                format!(" {activation:?} {}", if *norm_first { "first" } else { "post" })
            }
            _ => String::new(),
        };
        found.push(format!("{}{variant}", layer.name()));
    }

    #[test]
    fn the_table_has_each_layer_and_keeps_its_word() {
        let mut found = Vec::new();
        for case in op_cases() {
            case.model.layers.iter().for_each(|layer| kinds(layer, &mut found));
            assert!(case.parameters.len() < 3_000, "{}", case.name);
            assert!(
                [1, 2, 5].contains(&case.data.len()) && [1, 3].contains(&case.directions),
                "{}",
                case.name
            );
        }
        for kind in [
            "adaptive_avg_pool2d",
            "avg_pool2d",
            "conv2d bias",
            "conv2d k1",
            "conv2d k3",
            "conv2d k5",
            "conv2d no bias",
            "conv2d padding 0",
            "conv2d padding 1",
            "conv2d padding 2",
            "conv2d stride 1",
            "conv2d stride 2",
            "conv2d stride 3",
            "embedding",
            "flatten",
            "gelu",
            "layer_norm",
            "leaky_relu",
            "linear",
            "max_pool2d",
            "mean_pool",
            "positional_encoding Learned",
            "positional_encoding Sinusoidal",
            "relu",
            "residual identity",
            "residual shortcut",
            "scalar_bias",
            "scalar_scale",
            "tanh",
            "transformer_encoder_layer Gelu first",
            "transformer_encoder_layer Gelu post",
            "transformer_encoder_layer Relu first",
            "transformer_encoder_layer Relu post",
        ] {
            assert!(found.iter().any(|found| found == kind), "{kind}");
        }
    }
}
