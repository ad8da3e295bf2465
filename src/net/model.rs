//! The model file: a sequence of layers in TOML.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::initialisation::Scheme;
use super::zoo::ZOO;
use crate::{Error, Result};

/// A sequence of layers, as `torch.nn.Sequential` has them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Model {
    /// The shape of one sample; empty for a token model.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub input: Vec<usize>,
    /// Of a token model, the number of tokens in one sample, padding included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<usize>,
    /// How parameters are drawn before training: `"pytorch"` or `"fixup"`.
    #[serde(default, skip_serializing_if = "Scheme::is_default")]
    pub initialisation: Scheme,
    /// The layers, from the input to the output.
    pub layers: Vec<Layer>,
}

/// One layer. Names, options and defaults are PyTorch's; images are `[channels, height, width]`, sequences
/// `[tokens, features]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Layer {
    /// `y = W x + b` on the last axis; `weight` is `[out_features, in_features]`.
    Linear {
        /// The length of the last axis of the output.
        out_features: usize,
        /// Whether `bias`, `[out_features]`, is added; true if not given.
        #[serde(default = "yes")]
        bias: bool,
    },
    /// Square kernels, zeros around the image; `weight` is `[out_channels, in_channels, k, k]`.
    Conv2d {
        /// The channels of the output.
        out_channels: usize,
        /// k, the side of a kernel in pixels.
        kernel_size: usize,
        /// The pixels from one place of the kernel to the next; 1 if not given.
        #[serde(default = "one")]
        stride: usize,
        /// The zeros on each side of the image, in pixels; 0 if not given.
        #[serde(default)]
        padding: usize,
        /// Whether `bias`, `[out_channels]`, is added; true if not given.
        #[serde(default = "yes")]
        bias: bool,
    },
    /// The largest of each window, the first of equal ones. `stride` is `kernel_size` if not given.
    MaxPool2d {
        /// The side of a window in pixels.
        kernel_size: usize,
        /// The pixels from one window to the next.
        stride: Option<usize>,
    },
    /// The mean of each window. `stride` is `kernel_size` if not given.
    AvgPool2d {
        /// The side of a window in pixels.
        kernel_size: usize,
        /// The pixels from one window to the next.
        stride: Option<usize>,
    },
    /// The means of `output_size` × `output_size` windows that cover the image.
    AdaptiveAvgPool2d {
        /// The side of the output in pixels: the windows along either axis.
        output_size: usize,
    },
    /// Appends channels of zeros to an image until it has `channels`, a multiple of those that it has: a
    /// residual layer's shortcut without weights where the channels grow.
    PadChannels {
        /// The channels of the output.
        channels: usize,
    },
    /// Makes one axis of all.
    Flatten,
    /// `max(x, 0)`
    Relu,
    /// `max(x, 0) + negative_slope · min(x, 0)`
    LeakyRelu {
        /// The slope below 0; 0.01 if not given.
        #[serde(default = "leaky_slope")]
        negative_slope: f32,
    },
    /// The hyperbolic tangent.
    Tanh,
    /// `x Φ(x)`, with the exact Gaussian distribution function.
    Gelu,
    /// `x + bias`, one number for the whole tensor: `bias` is `[1]`, zero at first (fixup).
    ScalarBias,
    /// `scale · x`, one number for the whole tensor: `scale` is `[1]`, one at first (fixup).
    ScalarScale,
    /// `body(x) + shortcut(x)`; without a shortcut, `body(x) + x`.
    Residual {
        /// The layers whose output is added to the shortcut's.
        body: Vec<Layer>,
        /// The layers beside the body, with an output of the same shape; none is the identity.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        shortcut: Vec<Layer>,
    },
    /// A row of `weight`, `[num_embeddings, embedding_dim]`, for each token.
    Embedding {
        /// The number of ids, which are 0 to one less.
        num_embeddings: usize,
        /// The features of a token.
        embedding_dim: usize,
    },
    /// Adds a vector to each position.
    PositionalEncoding {
        /// Which vectors are added.
        kind: PositionalEncoding,
    },
    /// `torch.nn.TransformerEncoderLayer` without dropout, `batch_first`.
    TransformerEncoderLayer {
        /// The heads of self-attention, a divisor of the features.
        num_heads: usize,
        /// The hidden units of the feed-forward part.
        dim_feedforward: usize,
        /// The activation between the two layers of the feed-forward part.
        activation: FeedForwardActivation,
        /// Whether layer norms come before attention and feed-forward part, not after; false if not given.
        #[serde(default)]
        norm_first: bool,
    },
    /// `(x − mean) / √(variance + 1e-5) · weight + bias` over the last axis.
    LayerNorm,
    /// The mean over the tokens that the mask keeps.
    MeanPool,
}

/// What a positional encoding adds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PositionalEncoding {
    /// `sin(t / 10000^(2i/d))` on coordinate 2i, the cosine on coordinate 2i + 1.
    Sinusoidal,
    /// `weight`, `[tokens, features]`.
    Learned,
}

/// The activation of a transformer layer's feed-forward part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FeedForwardActivation {
    /// `max(x, 0)`
    Relu,
    /// `x Φ(x)`, with the exact Gaussian distribution function.
    Gelu,
}

impl Layer {
    /// The `type` in the model file.
    pub fn name(&self) -> &'static str {
        match self {
            Layer::Linear { .. } => "linear",
            Layer::Conv2d { .. } => "conv2d",
            Layer::MaxPool2d { .. } => "max_pool2d",
            Layer::AvgPool2d { .. } => "avg_pool2d",
            Layer::AdaptiveAvgPool2d { .. } => "adaptive_avg_pool2d",
            Layer::PadChannels { .. } => "pad_channels",
            Layer::ScalarBias => "scalar_bias",
            Layer::ScalarScale => "scalar_scale",
            Layer::Residual { .. } => "residual",
            Layer::Embedding { .. } => "embedding",
            Layer::PositionalEncoding { .. } => "positional_encoding",
            Layer::TransformerEncoderLayer { .. } => "transformer_encoder_layer",
            Layer::LayerNorm => "layer_norm",
            Layer::MeanPool => "mean_pool",
            Layer::Flatten => "flatten",
            Layer::Relu => "relu",
            Layer::LeakyRelu { .. } => "leaky_relu",
            Layer::Tanh => "tanh",
            Layer::Gelu => "gelu",
        }
    }
}

fn yes() -> bool {
    true
}

fn one() -> usize {
    1
}

fn leaky_slope() -> f32 {
    0.01
}

impl Model {
    /// The model of that name in the [`ZOO`], or the one in the file at that path.
    ///
    /// # Errors
    /// Those of [`Model::read`]; [`Error::File`] where it can only be a misspelt name.
    pub fn open(name_or_path: impl AsRef<Path>) -> Result<Model> {
        let path = name_or_path.as_ref();
        if let Some(entry) = ZOO.iter().find(|entry| path.as_os_str() == entry.name) {
            return Ok(entry.model());
        }
        let bare = path.extension().is_none() && path.components().count() == 1;
        if bare && !path.exists() {
            let names: Vec<&str> = ZOO.iter().map(|entry| entry.name).collect();
            let problem = format!("found no such model, expected a file or one of {}", names.join(", "));
            return Err(Error::file(path, problem));
        }
        Model::read(path)
    }

    /// The shape of one sample; of a token model `[2, tokens]`, the ids and the mask.
    pub fn sample_shape(&self) -> Vec<usize> {
        self.tokens.map_or_else(|| self.input.clone(), |tokens| vec![2, tokens])
    }

    /// The model file's text.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("a model is plain data")
    }

    /// Reads a model file.
    ///
    /// # Errors
    /// [`Error::Io`] where it cannot be read, [`Error::File`] naming the line where it is no model.
    pub fn read(path: impl AsRef<Path>) -> Result<Model> {
        let path = path.as_ref();
        let text = std::fs::read_to_string(path).map_err(Error::io(path, "read"))?;
        Model::parse(&text).map_err(|problem| Error::file(path, problem))
    }

    /// Parses a model file's text; the error is one line that names the line, the layer and the key.
    pub fn parse(text: &str) -> std::result::Result<Model, String> {
        super::parse::parse(text)
    }

    /// A multi-layer perceptron `widths[0] → … → widths[last]` with `activation` between its layers.
    pub fn mlp(widths: &[usize], activation: Layer, bias: bool) -> Model {
        let mut layers = Vec::new();
        for (i, &out_features) in widths.iter().enumerate().skip(1) {
            layers.push(Layer::Linear { out_features, bias });
            if i + 1 < widths.len() {
                layers.push(activation.clone());
            }
        }
        Model { input: vec![widths[0]], layers, ..Model::default() }
    }
}
