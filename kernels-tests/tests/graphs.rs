//! Networks of a caller's graphs and pointwise functions of a caller's WGSL: the same as the crate's own where they are
//! the same, and refused where they cannot be computed.

use curvkit::data::Dataset;
use curvkit::net::{
    Axes, Bilinear, Conv, Function, Graph, Initialisation, Layer, Linear, Loss, Model, Network, Node,
    Pointwise, Term, Windows, ZOO,
};
use curvkit::operators::{Curvature, Session, SymmetricOperator};
use kernels_tests::cases::random;
use kernels_tests::device::gpu;
use kernels_tests::zoo::samples;

/// `input → hidden → outputs` with biases and σ between, as `Model::mlp` has it.
fn mlp([ins, hidden, outs]: [usize; 3], sigma: Pointwise) -> Graph {
    let mut graph = Graph::new(ins);
    let dense = |graph: &mut Graph, name: usize, x, ins, outs| {
        let initial = Initialisation::fan_in(ins);
        let a = graph.parameter(format!("{name}.weight"), &[outs, ins], initial);
        let bias = graph.parameter(format!("{name}.bias"), &[outs], initial);
        let axes = Axes { outer: 1, m: outs, inner: 1 };
        let terms = vec![
            Term::bilinear(Bilinear::Dense { rows: 1, ins, outs }, a, x),
            Term::linear(Linear::Broadcast(axes), bias),
        ];
        graph.define(outs, terms)
    };
    let x = graph.input;
    let inner = dense(&mut graph, 0, x, ins, hidden);
    let active = graph.define(hidden, vec![Term::Pointwise { sigma, x: inner }]);
    dense(&mut graph, 2, active, hidden, outs);
    graph
}

/// Gradient, Hessian, GGN, noise and third derivative of a network on the same θ, samples and direction.
fn quantities(network: &Network, data: &Dataset) -> Vec<Vec<f32>> {
    let theta = random(3, network.dim());
    let session = Session::new(gpu(), network, &theta, data, Loss::CrossEntropy).unwrap();
    let (all, v) = (network.all(), random(4, network.dim()));
    vec![
        session.gradient(&all).unwrap(),
        session.hvp(&all, &v).unwrap(),
        session.ggnvp(&all, &v).unwrap(),
        session.noise_covariance_vp(&all, &v).unwrap(),
        session.third(&all, &v).unwrap(),
    ]
}

const CUBE: &str = "fn sigma(v: f32) -> vec4<f32> { return vec4(v * v * v, 3.0 * v * v, 6.0 * v, 6.0); }";
const RELU: &str =
    "fn sigma(v: f32) -> vec4<f32> { return select(vec4(0.0), vec4(v, 1.0, 0.0, 0.0), v > 0.0); }";

#[test]
fn a_graph_of_ones_own_is_the_models() {
    let sizes = [7, 11, 4];
    let model = Network::new(&Model::mlp(&sizes, Layer::Tanh, true)).unwrap();
    let data = samples(&model, 9);
    let own = Network::from_graph(mlp(sizes, Pointwise::Tanh), &[7]).unwrap();
    assert_eq!(own.signature(), model.signature());
    assert_eq!(own.initial_parameters(5), model.initial_parameters(5));
    assert!(own.model().is_none() && own.sample_shape() == [7] && own.token_ids().is_none());
    assert_eq!(quantities(&own, &data), quantities(&model, &data));
    // an operator of it can say what its products cost
    let session = Session::new(gpu(), &own, &own.initial_parameters(0), &data, Loss::CrossEntropy).unwrap();
    let operator = session.operator(Curvature::Hessian, &own.all()).unwrap();
    assert!(operator.description().is_some());
}

/// Of a piecewise linear function of one's own the bits are the crate's; of a cube, the chain rule to order three holds.
#[test]
fn functions_of_ones_own() {
    let sizes = [6, 9, 3];
    let relu = Function::new("relu of mine", RELU, true).unwrap();
    assert_eq!(relu.name(), "relu of mine");
    assert!(std::ptr::eq(relu, Function::new("relu of mine", RELU, true).unwrap()), "made once");
    let model = Network::new(&Model::mlp(&sizes, Layer::Relu, true)).unwrap();
    let data = samples(&model, 8);
    let own = Network::from_graph(mlp(sizes, Pointwise::Custom(relu)), &[6]).unwrap();
    assert_eq!(quantities(&own, &data), quantities(&model, &data));

    // x³ = x · x · x by products: the same function by other terms
    let cube = Function::new("cube", CUBE, false).unwrap();
    let by_function = Network::from_graph(mlp(sizes, Pointwise::Custom(cube)), &[6]).unwrap();
    let mut graph = mlp(sizes, Pointwise::Tanh);
    let place =
        graph.nodes.iter().position(|node| matches!(node.terms[..], [Term::Pointwise { .. }])).unwrap();
    let Term::Pointwise { x, .. } = graph.nodes[place].terms[0] else { unreachable!() };
    let times = |a, b| vec![Term::bilinear(Bilinear::Scale { m: 9, inner: 1 }, a, b)];
    let output = graph.nodes[place].output;
    let last = graph.output;
    let square = graph.define(9, times(x, x));
    graph.output = last;
    let made = graph.nodes.pop().unwrap();
    graph.nodes.insert(place, made);
    graph.nodes[place + 1] = Node { output, terms: times(square, x) };
    let by_products = Network::from_graph(graph, &[6]).unwrap();
    for (found, expected) in quantities(&by_function, &data).iter().zip(quantities(&by_products, &data)) {
        let off: f32 = found.iter().zip(&expected).map(|(a, b)| (a - b).powi(2)).sum::<f32>().sqrt();
        let length = expected.iter().map(|x| x * x).sum::<f32>().sqrt();
        assert!(length > 0.0 && off < 1e-5 * length, "off by {off} of {length}");
    }
}

#[test]
fn wgsl_that_is_no_function_is_refused() {
    let refused = |wgsl: &str| Function::new("mine", wgsl, false).unwrap_err().to_string();
    for (wgsl, part) in [
        ("fn other(v: f32) -> f32 { return v; }", "sigma"),
        ("fn sigma(v: f32) -> f32 { return v; }", "function mine: found "),
        ("fn sigma(v: f32) -> vec4<f32> { return vec4(v) }", "expected"),
        ("", "sigma"),
    ] {
        let message = refused(wgsl);
        assert!(message.contains(part) && !message.contains('\n'), "{message}");
        assert!(message.ends_with("expected fn sigma(v: f32) -> vec4<f32>"), "{message}");
    }
}

#[test]
fn graphs_that_cannot_be_computed_are_refused() {
    let good = || mlp([6, 9, 3], Pointwise::Tanh);
    type Change = fn(&mut Graph);
    let cases: [(Change, &str); 15] = [
        (|graph| graph.nodes.clear(), "parameter 0 (0.weight): found nothing that uses it"),
        (|graph| graph.output = 0, "output: found tensor 0, which nothing defines"),
        (|graph| graph.input = 1, "input: found tensor 1, expected one of that kind"),
        (|graph| graph.nodes.swap(0, 1), "tensor 4: found a term of tensor 3, which is not defined before"),
        (|graph| graph.nodes[0].terms.clear(), "parameter 0 (0.weight): found nothing that uses it"),
        (|graph| graph.tensors[3].len = 8, "tensor 3: found a term of 9 values, expected 8"),
        (|graph| graph.tensors[0].len = 7, "tensor 3: b: found 7 values, expected 6"),
        (|graph| graph.nodes[0].output = 4, "tensor 4: found two definitions, expected one"),
        (
            |graph| graph.parameters[1].name = "0.weight".into(),
            "parameter 1 (0.weight): found its name twice, or none",
        ),
        (|graph| graph.parameters[1].offset = 3, "parameter 1 (0.bias): found offset 3, expected 54"),
        (
            |graph| graph.parameters[0].shape = vec![6, 8],
            "parameter 0 (0.weight): found 54 values, expected shape [6, 8]",
        ),
        (
            |graph| {
                let doubled = graph.nodes[1].terms[0];
                graph.nodes[1].terms.push(doubled);
            },
            "tensor 4: found a pointwise term beside others, expected it alone",
        ),
        (
            |graph| {
                graph.nodes[1].terms[0] =
                    Term::Linear { map: Linear::identity(9), transposed: false, x: 3, c: f32::NAN }
            },
            "tensor 4: c: found NaN, expected a finite number",
        ),
        (
            |graph| {
                let windows = Windows { input: [3, 3], output: [2, 2], fixed: Some((2, 2)) };
                let map = Linear::Pool { channels: 1, windows, maximum: false };
                graph.nodes[1].terms[0] = Term::linear(map, 3);
            },
            "tensor 4: windows: found Windows { input: [3, 3], output: [2, 2], fixed: Some((2, 2)) }",
        ),
        (
            |graph| {
                let (input, output) = ([3, 3], [3, 3]);
                let conv = Conv { channels: [1, 1], input, output, kernel: 2, stride: 1, padding: 0 };
                graph.nodes[1].terms[0] = Term::bilinear(Bilinear::Conv(conv), 1, 3);
            },
            "tensor 4: convolution: found Conv",
        ),
    ];
    for (change, expected) in cases {
        let mut graph = good();
        change(&mut graph);
        let message = Network::from_graph(graph, &[6]).map(drop).unwrap_err().to_string();
        // where the input's length was changed, the samples' is not looked at first
        assert!(message.starts_with(&format!("model: {expected}")), "{message}");
    }
    let message = Network::from_graph(good(), &[2, 4]).map(drop).unwrap_err().to_string();
    assert_eq!(message, "model: found samples of shape [2, 4], expected 6 values, as the graph's input has");
    // every network of numbers passes
    for entry in ZOO.iter().filter(|entry| entry.model().tokens.is_none()) {
        let network = Network::new(&entry.model()).unwrap();
        let shape = network.sample_shape().to_vec();
        assert!(Network::from_graph(network.graph().clone(), &shape).is_ok(), "{}", entry.name);
    }
}
