//! The distributions that parameters are drawn from before training.

use rand::{Rng, RngExt};
use rand_distr::StandardNormal;
use serde::{Deserialize, Serialize};

use super::graph::Parameter;
use super::model::{Layer, Model};

/// What a parameter's first values are drawn from, each by itself.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Initialisation {
    /// All this value.
    Constant(f32),
    /// `U(−bound, bound)`
    Uniform(f32),
    /// `N(0, deviation²)`
    Normal(f32),
}

impl Initialisation {
    /// PyTorch's of a linear layer's or convolution's weight and bias: `U(−1/√fan_in, 1/√fan_in)`.
    pub fn fan_in(fan_in: usize) -> Initialisation {
        Initialisation::Uniform(1.0 / (fan_in as f32).sqrt())
    }

    /// Xavier's, PyTorch's of attention's `in_proj_weight`: `U(−b, b)` with `b = √(6 / (ins + outs))`.
    pub fn xavier(ins: usize, outs: usize) -> Initialisation {
        Initialisation::Uniform((6.0 / (ins + outs) as f32).sqrt())
    }

    /// Appends `len` values.
    pub fn draw(self, len: usize, random: &mut impl Rng, values: &mut Vec<f32>) {
        match self {
            Initialisation::Constant(value) => values.resize(values.len() + len, value),
            Initialisation::Uniform(bound) => {
                values.extend((0..len).map(|_| random.random_range(-bound..=bound)));
            }
            Initialisation::Normal(deviation) => {
                values.extend((0..len).map(|_| deviation * random.sample::<f32, _>(StandardNormal)));
            }
        }
    }
}

/// A model's rule for the [`Initialisation`] of its parameters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scheme {
    /// Each layer's default in PyTorch.
    #[default]
    Pytorch,
    /// Fixup (Zhang, Dauphin and Ma 2019) for networks of residual layers without normalisation. Of L
    /// residual layers, whose body has m weights: the body's last weight is zero, its others are He's times
    /// `L^(−1/(2m−2))`, its biases zero; the network's last layer is zero. All else is PyTorch's.
    ///
    /// He's is `N(0, 2/fan_out)` (`fan_out` is `out_channels · k²` of a convolution), as in the networks that
    /// the paper's authors published; `fan_in` differs from it only where a block changes the channels.
    Fixup,
}

impl Scheme {
    pub(super) fn is_default(&self) -> bool {
        *self == Scheme::default()
    }

    /// Changes the parameters' defaults to those of the scheme.
    pub(super) fn apply(self, model: &Model, parameters: &mut [Parameter]) {
        match self {
            Scheme::Pytorch => {}
            Scheme::Fixup => fixup(model, parameters),
        }
    }
}

fn fixup(model: &Model, parameters: &mut [Parameter]) {
    let is_weight = |parameter: &Parameter| parameter.shape.len() > 1;
    let residual = |layer: &Layer| matches!(layer, Layer::Residual { .. });
    let blocks = model.layers.iter().filter(|layer| residual(layer)).count() as f32;
    for (i, _) in model.layers.iter().enumerate().filter(|(_, layer)| residual(layer)) {
        let body = format!("{i}.body.");
        let body = parameters.iter_mut().filter(|parameter| parameter.name.starts_with(&body));
        let (mut weights, vectors): (Vec<_>, Vec<_>) = body.partition(|parameter| is_weight(parameter));
        for bias in vectors.into_iter().filter(|parameter| parameter.name.ends_with(".bias")) {
            bias.initial = Initialisation::Constant(0.0);
        }
        let m = weights.len() as f32;
        if let Some(last) = weights.pop() {
            last.initial = Initialisation::Constant(0.0);
        }
        for weight in weights {
            let fan_out: usize = weight.shape.iter().product::<usize>() / weight.shape[1];
            let he = (2.0 / fan_out as f32).sqrt();
            weight.initial = Initialisation::Normal(he * blocks.powf(-1.0 / (2.0 * m - 2.0)));
        }
    }
    let Some(last) = parameters.iter().rfind(|parameter| is_weight(parameter)) else { return };
    let layer = last.name.trim_end_matches("weight").to_string();
    for parameter in parameters.iter_mut().filter(|parameter| parameter.name.starts_with(&layer)) {
        parameter.initial = Initialisation::Constant(0.0);
    }
}
