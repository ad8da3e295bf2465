//! The papers' networks: their counts by rules of their own, and what their model files say.

use curvkit::net::{Initialisation, Layer, Model, Network, PositionalEncoding, Scheme, ZOO, ZooEntry};
use curvkit::papers::superlinear::settings::{Architecture, ImageSet};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

/// The shape and the number of parameters after a sequence of layers, counted as PyTorch's modules do: an
/// oracle that shares nothing with the graph.
fn count(layers: &[Layer], mut shape: Vec<usize>) -> (Vec<usize>, usize) {
    let mut total = 0;
    for layer in layers {
        let last = *shape.last().expect("has an axis");
        // images, square
        let slide = |side: usize, kernel: usize, stride: usize, padding: usize| {
            (side + 2 * padding - kernel) / stride + 1
        };
        match *layer {
            Layer::Linear { out_features, bias } => {
                total += last * out_features + usize::from(bias) * out_features;
                *shape.last_mut().expect("has an axis") = out_features;
            }
            Layer::Conv2d { out_channels, kernel_size, stride, padding, bias } => {
                total += shape[0] * out_channels * kernel_size.pow(2) + usize::from(bias) * out_channels;
                let side = slide(last, kernel_size, stride, padding);
                shape = vec![out_channels, side, side];
            }
            Layer::MaxPool2d { kernel_size, stride } | Layer::AvgPool2d { kernel_size, stride } => {
                let side = slide(last, kernel_size, stride.unwrap_or(kernel_size), 0);
                shape = vec![shape[0], side, side];
            }
            Layer::AdaptiveAvgPool2d { output_size } => shape = vec![shape[0], output_size, output_size],
            Layer::PadChannels { channels } => shape[0] = channels,
            Layer::Flatten => shape = vec![shape.iter().product()],
            Layer::ScalarBias | Layer::ScalarScale => total += 1,
            Layer::Residual { ref body, ref shortcut } => {
                let (body, of_body) = count(body, shape.clone());
                let (shortcut, of_shortcut) = count(shortcut, shape);
                assert_eq!(body, shortcut, "the branches' shapes");
                total += of_body + of_shortcut;
                shape = body;
            }
            Layer::Embedding { num_embeddings, embedding_dim } => {
                total += num_embeddings * embedding_dim;
                shape.push(embedding_dim);
            }
            Layer::PositionalEncoding { kind: PositionalEncoding::Sinusoidal } => {}
            Layer::PositionalEncoding { kind: PositionalEncoding::Learned } => total += shape[0] * last,
            Layer::TransformerEncoderLayer { num_heads, dim_feedforward, .. } => {
                assert_eq!(last % num_heads, 0);
                total += 4 * last * (last + 1) + dim_feedforward * (2 * last + 1) + last + 2 * 2 * last;
            }
            Layer::LayerNorm => total += 2 * last,
            Layer::MeanPool => shape = vec![last],
            Layer::Relu | Layer::LeakyRelu { .. } | Layer::Tanh | Layer::Gelu => {}
            ref other => panic!("no rule for {other:?}"),
        }
    }
    (shape, total)
}

fn entry(name: &str) -> &'static ZooEntry {
    ZOO.iter().find(|entry| entry.name == name).expect("in the zoo")
}

#[test]
fn parameters_are_as_many_as_are_said() {
    for entry in ZOO {
        let model = entry.model();
        let input = model.tokens.map_or(model.input.clone(), |tokens| vec![tokens]);
        let (outputs, total) = count(&model.layers, input);
        assert_eq!(total, entry.parameters, "{}", entry.name);
        assert!(matches!(outputs[..], [1 | 2 | 10]), "{}: {outputs:?}", entry.name);
    }
}

/// (name, paper, what the paper says)
const PUBLISHED: [(&str, u8, usize); 6] = [
    ("fnn-geometry", 4, 219_200),
    ("cnn-geometry", 4, 43_072),
    ("vgg13", 4, 605_458),
    ("vgg19", 4, 20_091_338),
    ("resnet38", 4, 558_222),
    ("resnet110", 4, 1_720_138),
];

#[test]
fn published_counts() {
    for (name, paper, parameters) in PUBLISHED {
        assert_eq!((entry(name).paper, entry(name).parameters), (paper, parameters), "{name}");
    }
    // “approximately”: to the thousand
    let thousands = |name| (entry(name).parameters + 500) / 1000;
    assert_eq!((thousands("lenet"), thousands("resnet20")), (137, 272));
    assert_eq!(entry("lenet").parameters, 136_886);
}

#[test]
fn names_are_those_that_are_promised() {
    let names: Vec<&str> = ZOO.iter().map(|entry| entry.name).collect();
    let promised = "mlp-mnist mlp-cifar cnn-superlinear cnn-superlinear-mnist lenet resnet20 mlp-tanh \
        cnn-sharpness transformer-sst2 linear-4 two-layer fnn-geometry cnn-geometry vgg13 vgg19 resnet38 \
        resnet110";
    assert_eq!(names, promised.split_whitespace().collect::<Vec<_>>());
}

#[test]
fn focus_layers_have_the_papers_shapes() {
    for (of, dataset, ins, outs) in [
        (Architecture::Mlp, ImageSet::Mnist, 50, 50),
        (Architecture::Mlp, ImageSet::Cifar10, 50, 50),
        (Architecture::Cnn, ImageSet::Mnist, 128, 20),
        (Architecture::Cnn, ImageSet::Cifar10, 128, 20),
    ] {
        let (model, focus) = of.network(dataset);
        let at: usize = focus.trim_end_matches(".weight").parse().expect("a layer's number");
        assert_eq!(model.layers[at], Layer::Linear { out_features: outs, bias: false }, "{focus}");
        assert_eq!(count(&model.layers[..at], model.input.clone()).0, [ins], "{focus}");
    }
}

#[test]
fn model_files_say_the_same() {
    for entry in ZOO {
        let model = entry.model();
        assert_eq!(Model::parse(&model.to_toml()).as_ref(), Ok(&model), "{}", entry.name);
        assert_eq!(Model::open(entry.name).expect("known"), model);
    }
    assert_eq!(entry("resnet38").model().initialisation, Scheme::Fixup);
    assert!(
        entry("resnet38").model().to_toml().starts_with("input = [3, 32, 32]\ninitialisation = \"fixup\"\n")
    );
    assert!(!entry("lenet").model().to_toml().contains("initialisation"));
}

#[test]
fn names_that_are_not_there() {
    let problem = Model::open("lenett").expect_err("no such model").to_string();
    assert!(
        problem.starts_with("lenett: found no such model, expected a file or one of mlp-mnist, "),
        "{problem}"
    );
    let problem = Model::open("lenet.toml").expect_err("no such file").to_string();
    assert_eq!(problem, "lenet.toml: read: No such file or directory (os error 2)");
    let problem = Model::parse("initialisation = \"he\"\nlayers = []").expect_err("no such scheme");
    assert_eq!(problem, "line 1: initialisation: unknown variant `he`, expected `pytorch` or `fixup`");
}

#[test]
fn the_graph_counts_the_same() {
    for entry in ZOO {
        let network = Network::new(&entry.model()).expect(entry.name);
        assert_eq!(network.dim(), entry.parameters, "{}", entry.name);
    }
}

/// Of ResNet-38: 18 blocks whose bodies have two convolutions.
#[test]
fn fixup_initialisation() {
    let network = Network::new(&entry("resnet38").model()).expect("a network");
    for parameter in network.parameters() {
        let (name, shape) = (parameter.name.as_str(), &parameter.shape);
        let expected = match (name, &shape[..]) {
            ("0.weight", _) => Initialisation::fan_in(27),
            // where a stage begins, the body's first scalar bias stands before the block
            (name, &[channels, _, 3, 3])
                if name.ends_with("body.1.weight") || name.ends_with("body.0.weight") =>
            {
                Initialisation::Normal((2.0 / (9 * channels) as f32).sqrt() * 18.0f32.powf(-0.5))
            }
            (name, _) if name.ends_with("scale") => Initialisation::Constant(1.0),
            _ => Initialisation::Constant(0.0),
        };
        match (parameter.initial, expected) {
            (Initialisation::Normal(found), Initialisation::Normal(expected)) => {
                assert!((found / expected - 1.0).abs() < 1e-6, "{name}: {found}, expected {expected}");
            }
            (found, expected) => assert_eq!(found, expected, "{name}"),
        }
    }
}

#[test]
fn draws_have_the_distributions_moments() {
    let draw = |initial: Initialisation| {
        let mut values = Vec::new();
        initial.draw(100_000, &mut ChaCha8Rng::seed_from_u64(7), &mut values);
        let n = values.len() as f64;
        let mean = values.iter().map(|&x| f64::from(x)).sum::<f64>() / n;
        let variance = values.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / n;
        let largest = values.iter().fold(0.0f32, |largest, x| largest.max(x.abs()));
        (mean, variance, largest)
    };
    assert_eq!(draw(Initialisation::Constant(2.0)), (2.0, 0.0, 2.0));
    let (mean, variance, largest) = draw(Initialisation::xavier(10, 14));
    assert!(
        mean.abs() < 0.005 && (variance - 0.25 / 3.0).abs() < 0.002 && largest <= 0.5,
        "{mean} {variance}"
    );
    let (mean, variance, largest) = draw(Initialisation::Normal(3.0));
    assert!(mean.abs() < 0.05 && (variance - 9.0).abs() < 0.15 && largest > 9.0, "{mean} {variance}");
}
