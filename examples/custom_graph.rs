//! A network that no model file has: a graph of one's own, with a pointwise function given in WGSL.

use curvkit::Result;
use curvkit::data::{Dataset, Targets};
use curvkit::gpu::{Gpu, GpuOptions};
use curvkit::net::{
    Axes, Bilinear, Function, Graph, Initialisation, Linear, Loss, Network, Pointwise, TensorId, Term,
};
use curvkit::operators::Session;

/// SiLU, `σ(v) = v s(v)` with the logistic function s, and its first three derivatives.
const SILU: &str = "
    fn sigma(v: f32) -> vec4<f32> {
        let u = exponential(-abs(v));
        let s = select(u, 1.0, v >= 0.0) / (1.0 + u);
        let s1 = u / ((1.0 + u) * (1.0 + u));
        let s2 = s1 * (1.0 - 2.0 * s);
        let s3 = s1 * (1.0 - 6.0 * s1);
        return vec4(v * s, s + v * s1, 2.0 * s1 + v * s2, 3.0 * s2 + v * s3);
    }
";

/// `W x + b`
fn dense(graph: &mut Graph, name: &str, x: TensorId, ins: usize, outs: usize) -> TensorId {
    let initial = Initialisation::fan_in(ins);
    let weight = graph.parameter(format!("{name}.weight"), &[outs, ins], initial);
    let bias = graph.parameter(format!("{name}.bias"), &[outs], initial);
    let axes = Axes { outer: 1, m: outs, inner: 1 };
    let terms = vec![
        Term::bilinear(Bilinear::Dense { rows: 1, ins, outs }, weight, x),
        Term::linear(Linear::Broadcast(axes), bias),
    ];
    graph.define(outs, terms)
}

pub fn main() -> Result<()> {
    let silu = Pointwise::Custom(Function::new("silu", SILU, false)?);
    // f(x) = V (gate ⊙ silu(W x)) with a gate of its own weights: a gated layer
    let mut graph = Graph::new(5);
    let x = graph.input;
    let inner = dense(&mut graph, "inner", x, 5, 12);
    let gate = dense(&mut graph, "gate", x, 5, 12);
    let active = graph.define(12, vec![Term::Pointwise { sigma: silu, x: inner }]);
    let gated = graph.define(12, vec![Term::bilinear(Bilinear::Scale { m: 12, inner: 1 }, gate, active)]);
    dense(&mut graph, "outer", gated, 12, 2);
    let network = Network::from_graph(graph, &[5])?;

    let gpu = Gpu::new(&GpuOptions::from_env())?;
    let inputs = (0..150).map(|i| (i as f32 * 0.37).sin()).collect();
    let values = (0..60).map(|i| (i as f32 * 0.11).cos()).collect();
    let data = Dataset::new(inputs, vec![5], Targets::Values { values, width: 2 })?;
    let theta = network.initial_parameters(3);
    let session = Session::new(&gpu, &network, &theta, &data, Loss::SquaredError)?;

    // the Hessian along v is the gradient's change
    let all = network.all();
    let v: Vec<f32> = (0..network.dim()).map(|i| (i as f32 * 0.7).cos()).collect();
    let product = session.hvp(&all, &v)?;
    let step = 1e-2;
    let gradient_at = |by: f32| {
        let moved: Vec<f32> = theta.iter().zip(&v).map(|(theta, v)| theta + by * v).collect();
        session.set_parameters(&moved)?;
        session.gradient(&all)
    };
    let (ahead, behind) = (gradient_at(step)?, gradient_at(-step)?);
    let change = ahead.iter().zip(&behind).map(|(a, b)| (a - b) / (2.0 * step));
    let off: f32 = product.iter().zip(change).map(|(p, c)| (p - c).powi(2)).sum::<f32>().sqrt();
    let length = product.iter().map(|p| p * p).sum::<f32>().sqrt();
    assert!(off < 1e-3 * length, "‖Hv − change‖ = {off}, ‖Hv‖ = {length}");
    println!("‖H v‖ = {length:.5}, off the gradient's change by {:.1e} of it", off / length);
    Ok(())
}
