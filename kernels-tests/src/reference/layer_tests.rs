//! What the layers promise, each by an argument that needs no second implementation.

use std::cell::Cell;
use std::ops::{Add, Div, Mul, Neg, Sub};

use curvkit::net::Layer;

use super::layers::{Window, adaptive_ranges};
use super::*;
use crate::cases::{Case, TIES, assert_close, network_cases, op_cases, random};

thread_local! {
    static MARGIN: Cell<f64> = const { Cell::new(f64::INFINITY) };
}

/// A number that takes note of how near the two sides of a decision come, unless they are equal.
#[derive(Clone, Copy)]
struct Watched(f64);

macro_rules! arithmetic {
    ($($operator:ident $name:ident),*) => {
        $(impl $operator for Watched {
            type Output = Self;
            fn $name(self, b: Self) -> Self {
                Watched(self.0.$name(b.0))
            }
        })*
    };
}

arithmetic!(Add add, Sub sub, Mul mul, Div div);

impl Neg for Watched {
    type Output = Self;
    fn neg(self) -> Self {
        Watched(-self.0)
    }
}

impl Scalar for Watched {
    fn constant(c: f64) -> Self {
        Watched(c)
    }
    fn real(self) -> f64 {
        self.0
    }
    fn exceeds(self, b: Self) -> bool {
        if self.0 != b.0 {
            MARGIN.set(MARGIN.get().min((self.0 - b.0).abs()));
        }
        self.0 > b.0
    }
    fn exp(self) -> Self {
        Watched(self.0.exp())
    }
    fn ln(self) -> Self {
        Watched(self.0.ln())
    }
    fn sqrt(self) -> Self {
        Watched(self.0.sqrt())
    }
    fn tanh(self) -> Self {
        Watched(self.0.tanh())
    }
    fn normal_cdf(self) -> Self {
        Watched(self.0.normal_cdf())
    }
}

#[test]
fn rounding_to_f32_changes_no_branch() {
    let all = op_cases().into_iter().map(|case| (case, 5e-5));
    for (case, margin) in all.chain(network_cases().map(|case| (case, 5e-6))) {
        let problem = case.problem();
        let theta: Vec<Watched> = problem.parameters.iter().map(|&theta| Watched(theta)).collect();
        for p in 0..problem.samples() {
            MARGIN.set(f64::INFINITY);
            problem.network.forward(&theta, problem.sample(p).0);
            assert!(MARGIN.get() > margin, "{}, sample {p}: {:.1e}", case.name, MARGIN.get());
        }
    }
}

fn inner(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[test]
fn the_hessian_is_symmetric_and_linear() {
    for case in op_cases() {
        let (problem, name) = (case.problem(), &case.name);
        let p = problem.parameters.len();
        let (u, v) = (f64s(&random(1, p)), f64s(&case.v[..p]));
        for (operator, apply) in [("H", Problem::hvp as fn(&Problem, &[f64]) -> _), ("G", Problem::ggnvp)] {
            let (along_u, along_v) = (apply(&problem, &u), apply(&problem, &v));
            let scale = along_u.iter().map(|x| x * x).sum::<f64>().sqrt();
            let (uv, vu) = (inner(&u, &along_v), inner(&v, &along_u));
            assert!((uv - vu).abs() <= 1e-12 * scale, "{name}: u{operator}v = {uv}, v{operator}u = {vu}");
            let sum = apply(&problem, &zip(&u, &v, |u, v| 2.0 * u - v));
            let expected = zip(&along_u, &along_v, |u, v| 2.0 * u - v);
            assert_close(&format!("{name}: {operator}(2u − v)"), &sum, &expected, 1e-12, 1.0);
        }
    }
}

/// Where every output is as it should be, only the Gauss–Newton part of the Hessian is left.
#[test]
fn without_residuals_the_ggn_is_the_hessian() {
    for case in op_cases() {
        let mut problem = case.problem();
        problem.loss = Loss::SquaredError;
        problem.targets = problem.outputs();
        let v = &case.v[..problem.parameters.len()];
        assert_close(&case.name, &problem.hvp(v), &problem.ggnvp(v), 1e-12, 1.0);
    }
}

/// All quantities of two problems with as many parameters.
fn assert_same(what: &str, found: &Problem, expected: &Problem, v: &[f32], tolerance: f64) {
    for (quantity, compute) in [
        ("loss", (|problem, _| problem.per_sample_loss()) as fn(&Problem, &[f32]) -> Vec<f64>),
        ("per-sample gradient", |problem, _| problem.per_sample_gradient()),
        ("hvp", |problem, v| problem.hvp(v)),
        ("ggnvp", |problem, v| problem.ggnvp(v)),
        ("third", |problem, v| problem.third(v)),
    ] {
        let (found, expected) = (compute(found, v), compute(expected, v));
        assert_close(&format!("{what}: {quantity}"), &found, &expected, tolerance, 1.0);
    }
}

fn case_named(name: &str) -> Case {
    op_cases().into_iter().find(|case| case.name.starts_with(name)).expect("a case of that name")
}

/// Of equal values the first is the one at the corner of the window, which picking every second value takes too.
#[test]
fn max_pooling_takes_the_first_of_equal_values() {
    let mut case = case_named(TIES);
    let problem = case.problem();
    // without the rows and columns where only other windows' corners would be
    let cropped = case.data.inputs.chunks(7).enumerate().filter(|(row, _)| row % 5 < 4);
    case.data.inputs = cropped.flat_map(|(_, row)| &row[..6]).copied().collect();
    case.data.shape = vec![2, 4, 6];
    case.model.input = vec![2, 4, 6];
    case.model.layers[1] = Layer::AvgPool2d { kernel_size: 1, stride: Some(2) };
    assert_same(TIES, &problem, &case.problem(), &case.v, 1e-14);
}

#[test]
fn windows_are_those_of_pytorch() {
    assert_eq!(adaptive_ranges(2, 5), [0..3, 2..5]);
    assert_eq!(adaptive_ranges(3, 7), [0..3, 2..5, 4..7]);
    assert_eq!(adaptive_ranges(4, 3), [0..1, 0..2, 1..3, 2..3]);
    assert_eq!(Window { size: 2, stride: 3, padding: 0 }.ranges(7), [0..2, 3..5]);
    assert_eq!(Window { size: 3, stride: 2, padding: 0 }.ranges(7), [0..3, 2..5, 4..7]);
    assert_eq!(Window { size: 5, stride: 2, padding: 2 }.count(5), 3);
}

/// What stands under padding reaches neither loss nor derivatives.
#[test]
fn padding_is_without_effect() {
    let mut seen = 0;
    for mut case in op_cases() {
        let Some(tokens) = case.model.tokens else { continue };
        if !case.model.layers.contains(&Layer::MeanPool) {
            continue;
        }
        let problem = case.problem();
        let Layer::Embedding { num_embeddings, .. } = case.model.layers[0] else { panic!("no embedding") };
        for sample in case.data.inputs.chunks_mut(2 * tokens) {
            let (ids, mask) = sample.split_at_mut(tokens);
            for (id, _) in ids.iter_mut().zip(mask).filter(|(_, mask)| **mask == 0.0) {
                *id = (*id + 1.0) % num_embeddings as f32;
                seen += 1;
            }
        }
        assert_same(&case.name, &case.problem(), &problem, &case.v, 0.0);
    }
    assert!(seen > 10);
}

/// A sequence with padding is the shorter sequence.
#[test]
fn a_padded_sequence_is_the_sequence_without() {
    let case = case_named("encoder, post-norm, relu");
    let kept: Vec<usize> =
        case.data.inputs.chunks(14).map(|x| x[7..].iter().map(|&x| x as usize).sum()).collect();
    assert_eq!(kept, [7, 1, 4, 3, 7]);
    for (p, &tokens) in kept.iter().enumerate() {
        let mut padded = case.problem();
        let (x, y) = padded.sample(p);
        (padded.inputs, padded.targets) = (x.to_vec(), y.to_vec());
        let mut short = case.problem();
        short.network = Network::new(&Model { tokens: Some(tokens), ..case.model.clone() });
        short.targets = padded.targets.clone();
        short.inputs = [&padded.inputs[..tokens], &vec![1.0; tokens]].concat();
        assert_same(&format!("{tokens} tokens"), &padded, &short, &case.v, 1e-12);
    }
}

#[test]
fn parameters_have_the_names_and_order_of_a_state_dict() {
    let network = case_named("fixup residuals").problem().network;
    let names: Vec<&str> = network.parameters.iter().map(|(name, _)| name.as_str()).collect();
    let expected = [
        "0.weight",
        "1.bias",
        "3.body.0.bias",
        "3.body.1.weight",
        "3.body.2.bias",
        "3.body.4.bias",
        "3.body.5.weight",
        "3.body.6.scale",
        "3.body.7.bias",
        "5.body.0.bias",
        "5.body.1.weight",
        "5.body.2.bias",
        "5.body.4.bias",
        "5.body.5.weight",
        "5.body.6.scale",
        "5.body.7.bias",
        "5.shortcut.0.bias",
        "5.shortcut.1.weight",
    ];
    assert_eq!(names[..expected.len()], expected);

    let network = case_named("encoder, post-norm, relu").problem().network;
    let parameters: Vec<(&str, &[usize])> =
        network.parameters.iter().map(|(name, shape)| (name.as_str(), &shape[..])).collect();
    let expected: [(&str, &[usize]); 15] = [
        ("0.weight", &[11, 6]),
        ("2.self_attn.in_proj_weight", &[18, 6]),
        ("2.self_attn.in_proj_bias", &[18]),
        ("2.self_attn.out_proj.weight", &[6, 6]),
        ("2.self_attn.out_proj.bias", &[6]),
        ("2.linear1.weight", &[9, 6]),
        ("2.linear1.bias", &[9]),
        ("2.linear2.weight", &[6, 9]),
        ("2.linear2.bias", &[6]),
        ("2.norm1.weight", &[6]),
        ("2.norm1.bias", &[6]),
        ("2.norm2.weight", &[6]),
        ("2.norm2.bias", &[6]),
        ("4.weight", &[3, 6]),
        ("4.bias", &[3]),
    ];
    assert_eq!(parameters, expected);
}
