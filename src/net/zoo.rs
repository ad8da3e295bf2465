//! The networks of the four papers.

use super::initialisation::Scheme;
use super::model::{FeedForwardActivation, Layer, Model, PositionalEncoding};

/// A network that the program knows by name.
pub struct ZooEntry {
    /// The name, which stands wherever a model file does.
    pub name: &'static str,
    /// The paper that it is of, 1 to 4.
    pub paper: u8,
    /// Its layers in words.
    pub about: &'static str,
    /// P, the number of parameters.
    pub parameters: usize,
    build: fn() -> Model,
}

impl ZooEntry {
    /// Makes the model.
    pub fn model(&self) -> Model {
        (self.build)()
    }
}

/// Every network, paper by paper. A name stands wherever a model file does.
///
/// Counts that the papers publish are met exactly: `lenet` (paper 2: about 137,000), `fnn-geometry`,
/// `cnn-geometry`, `vgg13`, `vgg19`, `resnet38`, `resnet110`. Where a paper leaves something open, each
/// builder below says what was chosen, and by what.
pub const ZOO: &[ZooEntry] = &[
    ZooEntry {
        name: "mlp-mnist",
        paper: 1,
        about: "784-50-50-10, ReLU, no bias",
        parameters: 42_200,
        build: || Model::mlp(&[784, 50, 50, 10], Layer::Relu, false),
    },
    ZooEntry {
        name: "mlp-cifar",
        paper: 1,
        about: "3072-1000-50-50-10, ReLU, no bias",
        parameters: 3_125_000,
        build: || Model::mlp(&[3072, 1000, 50, 50, 10], Layer::Relu, false),
    },
    ZooEntry {
        name: "cnn-superlinear",
        paper: 1,
        about: "convolutions 32-M-64-M-128-128-M on 3 channels, mean, 128-20-10, ReLU, no bias",
        parameters: 243_240,
        build: || cnn_superlinear([3, 32, 32]),
    },
    ZooEntry {
        name: "cnn-superlinear-mnist",
        paper: 1,
        about: "convolutions 32-M-64-M-128-128-M on 1 channel, mean, 128-20-10, ReLU, no bias",
        parameters: 242_664,
        build: || cnn_superlinear([1, 28, 28]),
    },
    ZooEntry {
        name: "lenet",
        paper: 2,
        about: "5×5 convolutions 6-M-16-M padded by 2, 1024-120-84-10, ReLU",
        parameters: 136_886,
        build: lenet,
    },
    ZooEntry {
        name: "resnet20",
        paper: 2,
        about: "16-32-64 channels, 3 blocks each, 1×1 convolutions as shortcuts, no normalisation",
        parameters: 271_690,
        build: resnet20,
    },
    ZooEntry {
        name: "mlp-tanh",
        paper: 3,
        about: "784-200-200-10, tanh",
        parameters: 199_210,
        build: || Model::mlp(&[784, 200, 200, 10], Layer::Tanh, true),
    },
    ZooEntry {
        name: "cnn-sharpness",
        paper: 3,
        about: "3×3 convolutions 32-M-32-M, 2048-10, ReLU",
        parameters: 30_634,
        build: cnn_sharpness,
    },
    ZooEntry {
        name: "transformer-sst2",
        paper: 3,
        about: "2 encoder layers of width 64 with 8 heads on 64 tokens, mean, 64-2, ReLU",
        parameters: 752_514,
        build: transformer_sst2,
    },
    ZooEntry {
        name: "linear-4",
        paper: 4,
        about: "50-50-50-50-1, linear, no bias",
        parameters: 7_550,
        build: linear_4,
    },
    ZooEntry {
        name: "two-layer",
        paper: 4,
        about: "50-100-1, ReLU, no bias",
        parameters: 5_100,
        build: || Model::mlp(&[50, 100, 1], Layer::Relu, false),
    },
    ZooEntry {
        name: "fnn-geometry",
        paper: 4,
        about: "784-256-64-32-2, ReLU, no bias",
        parameters: 219_200,
        build: || Model::mlp(&[784, 256, 64, 32, 2], Layer::Relu, false),
    },
    ZooEntry {
        name: "cnn-geometry",
        paper: 4,
        about: "5×5 convolutions 6-M-16-M with bias, 400-100-2 without, ReLU",
        parameters: 43_072,
        build: cnn_geometry,
    },
    ZooEntry {
        name: "vgg13",
        paper: 4,
        about: "VGG-13 of 16 to 128 channels, 128-128-2, no normalisation",
        parameters: 605_458,
        build: || vgg(&[2, 2, 2, 2, 2], 16, 2),
    },
    ZooEntry {
        name: "vgg19",
        paper: 4,
        about: "VGG-19 of 64 to 512 channels, 512-128-10, no normalisation",
        parameters: 20_091_338,
        build: || vgg(&[2, 2, 4, 4, 4], 64, 10),
    },
    ZooEntry {
        name: "resnet38",
        paper: 4,
        about: "16-32-64 channels, 6 fixup blocks each, 2 outputs",
        parameters: 558_222,
        build: || fixup_resnet(6, 2),
    },
    ZooEntry {
        name: "resnet110",
        paper: 4,
        about: "16-32-64 channels, 18 fixup blocks each, 10 outputs",
        parameters: 1_720_138,
        build: || fixup_resnet(18, 10),
    },
];

fn linear(out_features: usize, bias: bool) -> Layer {
    Layer::Linear { out_features, bias }
}

/// A 3×3 convolution that keeps the image's size, divided by `stride`.
fn conv3(out_channels: usize, stride: usize, bias: bool) -> Layer {
    Layer::Conv2d { out_channels, kernel_size: 3, stride, padding: 1, bias }
}

/// A 5×5 convolution.
fn conv5(out_channels: usize, padding: usize) -> Layer {
    Layer::Conv2d { out_channels, kernel_size: 5, stride: 1, padding, bias: true }
}

/// Halves the image.
fn max_pool() -> Layer {
    Layer::MaxPool2d { kernel_size: 2, stride: None }
}

/// The mean of each channel, on one axis.
fn channel_means() -> [Layer; 2] {
    [Layer::AdaptiveAvgPool2d { output_size: 1 }, Layer::Flatten]
}

fn images(input: [usize; 3], layers: Vec<Layer>) -> Model {
    Model { input: input.to_vec(), layers, ..Model::default() }
}

/// Convolutions are 3×3, padded by 1. The focus layer is 128 → 20.
fn cnn_superlinear(input: [usize; 3]) -> Model {
    let mut layers = Vec::new();
    for channels in [&[32][..], &[64], &[128, 128]] {
        for &channels in channels {
            layers.extend([conv3(channels, 1, false), Layer::Relu]);
        }
        layers.push(max_pool());
    }
    layers.extend(channel_means());
    layers.extend([linear(20, false), Layer::Relu, linear(10, false)]);
    images(input, layers)
}

/// The paper says two convolutions, three dense layers, 450 weights in the first convolution, and "about
/// 137,000" parameters in all: with both convolutions padded by 2 there are 136,886.
fn lenet() -> Model {
    let layers = vec![
        conv5(6, 2),
        Layer::Relu,
        max_pool(),
        conv5(16, 2),
        Layer::Relu,
        max_pool(),
        Layer::Flatten,
        linear(120, true),
        Layer::Relu,
        linear(84, true),
        Layer::Relu,
        linear(10, true),
    ];
    images([3, 32, 32], layers)
}

/// The paper says "approximately 272,000" without batch normalisation. With a bias in each convolution in
/// its place, and 1×1 convolutions as shortcuts where the channels change, there are 271,690; without
/// biases there are 270,906, with shortcuts that have no weights 269,034.
fn resnet20() -> Model {
    let mut layers = vec![conv3(16, 1, true), Layer::Relu];
    for channels in [16, 32, 64] {
        for block in 0..3 {
            let narrows = block == 0 && channels > 16;
            let stride = if narrows { 2 } else { 1 };
            let body = vec![conv3(channels, stride, true), Layer::Relu, conv3(channels, 1, true)];
            let project =
                Layer::Conv2d { out_channels: channels, kernel_size: 1, stride, padding: 0, bias: true };
            let shortcut = if narrows { vec![project] } else { vec![] };
            layers.extend([Layer::Residual { body, shortcut }, Layer::Relu]);
        }
    }
    layers.extend(channel_means());
    layers.push(linear(10, true));
    images([3, 32, 32], layers)
}

/// As Cohen et al. (2021) have it, whose setting the paper follows: padded by 1, with biases, a pooling by 2
/// after each convolution.
fn cnn_sharpness() -> Model {
    let mut layers = Vec::new();
    for _ in 0..2 {
        layers.extend([conv3(32, 1, true), Layer::Relu, max_pool()]);
    }
    layers.extend([Layer::Flatten, linear(10, true)]);
    images([3, 32, 32], layers)
}

/// The paper gives two layers, width 64, 8 heads, ReLU, the mean and a linear head, and follows Damian et al.
/// (2023) and Song et al. (2025). From their lineage come PyTorch's default feed-forward width of 2,048, the
/// norm after each part, sinusoidal positions, and two outputs. Chosen here:
/// - the vocabulary: the 2,968 words of the first 1,000 training sentences, a padding and an unknown token
///   (they took the 30,522 word pieces of BERT, all but some 3,000 of which never occur);
/// - 64 tokens: the longest training sentence has 52 words;
/// - the mean is over the sentence's own tokens, not its padding.
fn transformer_sst2() -> Model {
    let encoder = Layer::TransformerEncoderLayer {
        num_heads: 8,
        dim_feedforward: 2048,
        activation: FeedForwardActivation::Relu,
        norm_first: false,
    };
    let layers = vec![
        Layer::Embedding { num_embeddings: 2970, embedding_dim: 64 },
        Layer::PositionalEncoding { kind: PositionalEncoding::Sinusoidal },
        encoder.clone(),
        encoder,
        Layer::MeanPool,
        linear(2, true),
    ];
    Model { tokens: Some(64), layers, ..Model::default() }
}

/// The paper varies the width and gives none; inputs have its effective dimension of 50, and so have the
/// hidden layers here. `two-layer` has 100 hidden units.
fn linear_4() -> Model {
    Model {
        input: vec![50],
        layers: [50, 50, 50, 1].map(|width| linear(width, false)).to_vec(),
        ..Model::default()
    }
}

/// The published count is that of convolutions with bias (without: 22 fewer) and linear layers without (with:
/// 102 more).
fn cnn_geometry() -> Model {
    let layers = vec![
        conv5(6, 0),
        Layer::Relu,
        max_pool(),
        conv5(16, 0),
        Layer::Relu,
        max_pool(),
        Layer::Flatten,
        linear(100, false),
        Layer::Relu,
        linear(2, false),
    ];
    images([3, 32, 32], layers)
}

/// Five stages of so many 3×3 convolutions, of `width` times 1, 2, 4, 8 and 8 channels, each stage pooled by
/// 2. The published counts are those of a hidden layer of 128, of width 16 and two outputs (the paper's
/// VGG-13 tells two classes apart), and of width 64 and ten outputs (VGG-19).
fn vgg(convolutions: &[usize; 5], width: usize, outputs: usize) -> Model {
    let mut layers = Vec::new();
    for (&convolutions, factor) in convolutions.iter().zip([1, 2, 4, 8, 8]) {
        for _ in 0..convolutions {
            layers.extend([conv3(factor * width, 1, true), Layer::Relu]);
        }
        layers.push(max_pool());
    }
    layers.extend([Layer::Flatten, linear(128, true), Layer::Relu, linear(outputs, true)]);
    images([3, 32, 32], layers)
}

/// ResNet with fixup (Zhang, Dauphin and Ma 2019): convolutions without bias; before each convolution and
/// each activation a scalar bias, after a block's last convolution a scalar scale and bias. Where a stage
/// begins, the shortcut takes every other pixel and pads the channels with zeros, and the block's first
/// scalar bias acts on the shortcut too: it stands before the block. The published counts are those of two
/// outputs (ResNet-38, two classes) and ten (ResNet-110).
fn fixup_resnet(blocks: usize, outputs: usize) -> Model {
    let mut layers = vec![conv3(16, 1, false), Layer::ScalarBias, Layer::Relu];
    for channels in [16, 32, 64] {
        for block in 0..blocks {
            let begins = block == 0 && channels > 16;
            let stride = if begins { 2 } else { 1 };
            let mut body = vec![
                Layer::ScalarBias,
                conv3(channels, stride, false),
                Layer::ScalarBias,
                Layer::Relu,
                Layer::ScalarBias,
                conv3(channels, 1, false),
                Layer::ScalarScale,
                Layer::ScalarBias,
            ];
            let mut shortcut = Vec::new();
            if begins {
                layers.push(body.remove(0));
                let every_other = Layer::AvgPool2d { kernel_size: 1, stride: Some(2) };
                shortcut.extend([every_other, Layer::PadChannels { channels }]);
            }
            layers.extend([Layer::Residual { body, shortcut }, Layer::Relu]);
        }
    }
    layers.extend(channel_means());
    layers.extend([Layer::ScalarBias, linear(outputs, true)]);
    Model { initialisation: Scheme::Fixup, ..images([3, 32, 32], layers) }
}
