//! The networks that the tests run over, and the measure of agreement.

mod networks;
mod ops;

pub use networks::network_cases;
pub use ops::{TIES, op_cases};

use curvkit::data::{Dataset, Targets};
use curvkit::net::{Layer, Loss, Model, Network};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::reference::Problem;
use crate::{Real, f64s};

/// One problem: a network, its data and K directions, in the f32 that an engine is handed.
#[derive(Clone)]
pub struct Case {
    /// What it is, for messages.
    pub name: String,
    pub model: Model,
    pub loss: Loss,
    /// θ: `[P]`
    pub parameters: Vec<f32>,
    pub data: Dataset,
    /// K.
    pub directions: usize,
    /// `[K, P]`
    pub v: Vec<f32>,
}

impl Case {
    /// The same in f64.
    pub fn problem(&self) -> Problem {
        Problem::new(&self.model, self.loss, &self.parameters, &self.data)
    }

    /// The same with sample p alone.
    pub fn sample(&self, p: usize) -> Case {
        Case { name: format!("sample {p} of {}", self.name), data: self.data.select(&[p]), ..self.clone() }
    }
}

/// The folders of `reference-cases` and the losses of their problems.
pub const REFERENCE_CASES: &[(&str, Loss)] = &[
    ("cross-entropy", CrossEntropy),
    ("mse", Mse),
    ("softmax-mse", SoftmaxMse),
    ("squared-error", SquaredError),
    ("conv", CrossEntropy),
    ("residual", Mse),
    ("transformer-post-norm", CrossEntropy),
    ("transformer-norm-first", SquaredError),
];

use Layer::{Gelu, Relu, Tanh};
use Loss::{CrossEntropy, Mse, SoftmaxMse, SquaredError};
use Target::{Class, Value};

const LEAKY: Layer = Layer::LeakyRelu { negative_slope: 0.1 };

#[derive(Clone, Copy, Debug, PartialEq)]
enum Target {
    Class,
    Value,
}

/// Widths, activation, bias, loss, targets, N, K.
type Row = (&'static [usize], Layer, bool, Loss, Target, usize, usize);

/// Odd sizes; each activation with each loss; N and K from one to more than a workgroup's share.
const TABLE: &[Row] = &[
    // no hidden layer
    (&[5, 2], Tanh, true, CrossEntropy, Class, 7, 3),
    (&[5, 2], Tanh, false, SquaredError, Value, 2, 1),
    (&[33, 10], Tanh, true, SoftmaxMse, Class, 67, 5),
    // as small as can be
    (&[1, 1, 1], Tanh, true, SquaredError, Value, 1, 1),
    (&[1, 1, 1], Gelu, false, Mse, Value, 2, 3),
    (&[1, 2, 2], Relu, true, CrossEntropy, Class, 2, 1),
    (&[1, 2, 2], LEAKY, false, SoftmaxMse, Class, 1, 3),
    // one hidden layer
    (&[3, 5, 2], Tanh, true, CrossEntropy, Class, 7, 3),
    (&[3, 5, 2], Tanh, false, Mse, Value, 67, 1),
    (&[3, 5, 2], Gelu, true, SoftmaxMse, Class, 2, 5),
    (&[3, 5, 2], Relu, true, SquaredError, Class, 7, 3),
    (&[3, 5, 2], LEAKY, true, CrossEntropy, Class, 67, 5),
    (&[17, 33, 10], Relu, false, CrossEntropy, Class, 67, 1),
    (&[17, 33, 10], Gelu, true, CrossEntropy, Class, 7, 5),
    (&[17, 33, 10], Tanh, true, SoftmaxMse, Class, 67, 3),
    (&[17, 33, 10], LEAKY, true, Mse, Class, 2, 3),
    // two hidden layers
    (&[7, 13, 1, 4], Tanh, true, SquaredError, Value, 7, 5),
    (&[7, 13, 1, 4], Gelu, false, CrossEntropy, Class, 67, 3),
    (&[7, 13, 1, 4], Relu, true, SoftmaxMse, Class, 67, 3),
    (&[7, 13, 1, 4], LEAKY, true, SquaredError, Value, 2, 1),
    (&[7, 13, 3, 1], Relu, true, Mse, Value, 67, 5),
    // wider than a workgroup's tile
    (&[65, 129, 10], Gelu, true, SquaredError, Class, 7, 3),
    (&[65, 129, 10], Relu, true, CrossEntropy, Class, 67, 1),
    (&[129, 65, 3], Tanh, false, CrossEntropy, Class, 2, 5),
];

/// All problems, the same ones in every run.
pub fn cases() -> Vec<Case> {
    TABLE.iter().enumerate().map(|(i, row)| case(i as u64, row)).collect()
}

/// Inputs, values and directions are uniform in [−1, 1); parameters also, times `2/√(inputs of their layer)`.
fn case(seed: u64, (widths, sigma, bias, loss, target, samples, directions): &Row) -> Case {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut uniform = |count: usize| (0..count).map(|_| rng.random_range(-1.0..1.0)).collect::<Vec<f32>>();
    let mut parameters = Vec::new();
    for layer in widths.windows(2) {
        let scale = 2.0 / (layer[0] as f32).sqrt();
        let count = layer[0] * layer[1] + if *bias { layer[1] } else { 0 };
        parameters.extend(uniform(count).into_iter().map(|x| scale * x));
    }
    let outputs = widths[widths.len() - 1];
    let inputs = uniform(samples * widths[0]);
    let values = uniform(samples * outputs);
    let targets = match target {
        // the class that a random vector points to
        Class => Targets::Classes(values.chunks(outputs).map(largest).collect()),
        Value => Targets::Values { values, width: outputs },
    };
    let bias_word = if *bias { "bias" } else { "no bias" };
    Case {
        name: format!("{widths:?} {sigma:?} {bias_word} {loss} N={samples} K={directions}"),
        model: Model::mlp(widths, sigma.clone(), *bias),
        loss: *loss,
        v: uniform(directions * parameters.len()),
        parameters,
        data: Dataset::new(inputs, vec![widths[0]], targets).expect("the table's shapes agree"),
        directions: *directions,
    }
}

/// A perceptron with random parameters and samples, for what the table is too small for.
///
/// # Panics
/// Where the widths make no network.
pub fn perceptron(widths: &[usize], sigma: Layer, loss: Loss, samples: usize, directions: usize) -> Case {
    let model = Model::mlp(widths, sigma.clone(), true);
    let network = Network::new(&model).expect("a network");
    let outputs = network.outputs();
    let targets = match loss {
        Loss::CrossEntropy => Targets::Classes((0..samples).map(|p| (p * p % 7 % outputs) as u32).collect()),
        _ => Targets::Values { values: random(1, samples * outputs), width: outputs },
    };
    Case {
        name: format!("{widths:?} {sigma:?} {loss} N={samples} K={directions}"),
        loss,
        parameters: random(2, network.dim()).into_iter().map(|x| 0.5 * x).collect(),
        data: Dataset::new(random(3, samples * widths[0]), vec![widths[0]], targets).expect("shapes agree"),
        directions,
        v: random(4, directions * network.dim()),
        model,
    }
}

fn largest(x: &[f32]) -> u32 {
    (0..x.len()).max_by(|&i, &j| x[i].total_cmp(&x[j])).expect("at least one output") as u32
}

/// Uniform in [−1, 1), the same numbers for the same seed.
pub fn random(seed: u64, count: usize) -> Vec<f32> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    (0..count).map(|_| rng.random_range(-1.0..1.0)).collect()
}

/// `‖found − reference‖ / ‖reference‖`, or `‖found − reference‖ / scale` where the reference vanishes: where
/// `‖reference‖ ≤ 1e-12 scale`. NaN where anything found is NaN.
///
/// # Panics
/// If the lengths differ.
pub fn relative_error(found: &[impl Real], reference: &[f64], scale: f64) -> f64 {
    assert_eq!(found.len(), reference.len(), "found and reference differ in length");
    let norm = |x: &[f64]| x.iter().map(|x| x * x).sum::<f64>().sqrt();
    let error: Vec<f64> =
        f64s(found).iter().zip(reference).map(|(found, reference)| found - reference).collect();
    let size = norm(reference);
    match norm(&error) {
        0.0 => 0.0,
        error if size > 1e-12 * scale => error / size,
        error => error / scale,
    }
}

/// Asserts that [`relative_error`] is at most `tolerance`; the message names the worst element.
#[track_caller]
pub fn assert_close(what: &str, found: &[impl Real], reference: &[f64], tolerance: f64, scale: f64) {
    let error = relative_error(found, reference, scale);
    if error <= tolerance {
        return;
    }
    let found = f64s(found);
    let distance = |i: usize| (found[i] - reference[i]).abs();
    let rank = |i: usize| if distance(i).is_nan() { f64::INFINITY } else { distance(i) };
    let worst =
        (0..found.len()).max_by(|&i, &j| rank(i).total_cmp(&rank(j))).expect("an element that differs");
    panic!(
        "{what}: relative error {error:.2e}, at most {tolerance:.0e} allowed; of {} elements the worst is {worst}: \
         found {:.9e}, expected {:.9e}",
        found.len(),
        found[worst],
        reference[worst],
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_each_activation_with_each_loss() {
        for sigma in [Tanh, Gelu, Relu, LEAKY] {
            for loss in Loss::ALL {
                let found = TABLE.iter().any(|row| row.1 == sigma && row.3 == loss && row.0.len() > 2);
                assert!(found, "{sigma:?} with {loss}");
            }
        }
    }

    #[test]
    fn relative_error_is_absolute_where_the_reference_vanishes() {
        assert_eq!(relative_error(&[3.0f32, 4.5], &[3.0, 4.0], 1.0), 0.1);
        assert_eq!(relative_error(&[1e-3], &[0.0], 10.0), 1e-4);
        assert_eq!(relative_error(&[0.0f32; 2], &[0.0; 2], 0.0), 0.0);
        assert!(relative_error(&[f32::NAN], &[0.0], 1.0).is_nan());
    }

    #[test]
    #[should_panic(
        expected = "w: relative error NaN, at most 1e-5 allowed; of 2 elements the worst is 1: found NaN"
    )]
    fn assert_close_refuses_nan() {
        assert_close("w", &[5.0, f32::NAN], &[1.0, 2.0], 1e-5, 1.0);
    }
}
