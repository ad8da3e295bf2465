//! Networks of the papers' kinds, cut in width to nearly 3,000 parameters: the largest whose curvature is decomposed
//! densely.

use curvkit::net::{FeedForwardActivation, Layer, Loss, PositionalEncoding};

use super::ops::{
    Input, Mask, Row, adaptive, case, conv, embedding, encoder, encoding, linear, max_pool, residual,
};
use super::{Case, Target};

use Layer::{Flatten, MeanPool, Relu, Tanh};

/// `mlp-tanh` of 2,970 parameters.
fn mlp() -> Row {
    let layers = vec![linear(37), Tanh, linear(37), Tanh, linear(10)];
    ("MLP", Input::Tensor(&[31]), layers, Loss::CrossEntropy, Target::Class, 40, 1)
}

/// `lenet` of 2,932 parameters.
fn lenet() -> Row {
    let convolution = |channels| [conv(channels, 5, 1, 2, true), Relu, max_pool(2, None)];
    let head = [Flatten, linear(30), Relu, linear(20), Relu, linear(10)];
    let layers = [&convolution(4)[..], &convolution(8), &head].concat();
    ("LeNet", Input::Tensor(&[3, 8, 8]), layers, Loss::CrossEntropy, Target::Class, 10, 1)
}

/// `resnet20` of 2,832 parameters: a block that keeps the image's size and one that halves it.
fn resnet() -> Row {
    let block = |channels, stride, shortcut| {
        let body = vec![conv(channels, 3, stride, 1, true), Relu, conv(channels, 3, 1, 1, true)];
        [residual(body, shortcut), Relu]
    };
    let first = [conv(7, 3, 1, 1, true), Relu];
    let blocks = [block(7, 1, vec![]), block(10, 2, vec![conv(10, 1, 2, 0, true)])].concat();
    let layers = [&first[..], &blocks, &[adaptive(1), Flatten, linear(10)]].concat();
    ("ResNet", Input::Tensor(&[3, 6, 6]), layers, Loss::CrossEntropy, Target::Class, 10, 1)
}

/// `transformer-sst2` of 2,946 parameters, in one layer.
fn transformer() -> Row {
    let attention = encoder(4, 48, FeedForwardActivation::Relu, false);
    let sinusoidal = encoding(PositionalEncoding::Sinusoidal);
    let layers = vec![embedding(16), sinusoidal, attention, MeanPool, linear(2)];
    ("Transformer", Input::Tokens(8, 10, Mask::Front), layers, Loss::CrossEntropy, Target::Class, 12, 1)
}

/// All four, the same ones in every run. Where a layer branches, f64 and f32 take the same branch.
pub fn network_cases() -> [Case; 4] {
    [mlp(), lenet(), resnet(), transformer()].map(|row| case(1_000, row))
}
