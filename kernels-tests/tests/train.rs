//! The trainer against SGD in f64, step by step from the same batches; resumed, repeated and cut runs.

use curvkit::Error;
use curvkit::data::{Dataset, Targets};
use curvkit::gpu::{Gpu, GpuOptions};
use curvkit::net::{Layer, Loss, Model, Network};
use curvkit::operators::Session;
use curvkit::train::{EpochRecord, Sampling, Schedule, TrainOptions, TrainState, Trainer};
use kernels_tests::cases::{assert_close, random};
use kernels_tests::device::{bindings_of, gpu, own_device};
use kernels_tests::{f64s, reference, twins};

/// A network, where it starts, its samples and how it is trained.
struct Run {
    network: Network,
    theta: Vec<f32>,
    data: Dataset,
    loss: Loss,
    options: TrainOptions,
}

impl Run {
    fn new(widths: &[usize], sigma: Layer, samples: usize, loss: Loss, options: TrainOptions) -> Run {
        let network = Network::new(&Model::mlp(widths, sigma, true)).unwrap();
        let outputs = network.outputs();
        let targets = match loss {
            Loss::CrossEntropy | Loss::SoftmaxMse => {
                Targets::Classes((0..samples).map(|p| (p * p % 7 % outputs) as u32).collect())
            }
            _ => Targets::Values { values: random(1, samples * outputs), width: outputs },
        };
        let data = Dataset::new(random(2, samples * widths[0]), vec![widths[0]], targets).unwrap();
        Run { theta: network.initial_parameters(3), network, data, loss, options }
    }

    fn session(&self, gpu: &Gpu) -> Session {
        Session::new(gpu, &self.network, &self.theta, &self.data, self.loss).unwrap()
    }

    fn trainer(&self, gpu: &Gpu) -> Trainer {
        Trainer::new(&self.session(gpu), self.options.clone()).unwrap()
    }

    fn resumed(&self, gpu: &Gpu, state: TrainState) -> Trainer {
        Trainer::resume(&self.session(gpu), state, self.options.clone()).unwrap()
    }

    /// One epoch from `theta` and `momentum` in f64: the record.
    fn twin_epoch(&self, epoch: u64, theta: &mut [f64], momentum: &mut [f64]) -> EpochRecord {
        let options = &self.options;
        let learning_rate = match options.schedule {
            Schedule::Constant => options.learning_rate,
            Schedule::Exponential { gamma } => (0..epoch).fold(options.learning_rate, |rate, _| rate * gamma),
        };
        let (mut loss, mut right, mut seen) = (0.0, 0, 0);
        for batch in options.order(self.data.len(), epoch).chunks(options.batch_size) {
            let batch: Vec<usize> = batch.iter().map(|&i| i as usize).collect();
            let samples = self.data.select(&batch);
            let problem = reference::Problem::new(self.network.model().unwrap(), self.loss, theta, &samples);
            loss += problem.per_sample_loss().iter().sum::<f64>();
            let outputs = self.network.outputs();
            let largest = |x: &[f64]| (0..outputs).rev().max_by(|&i, &j| x[i].total_cmp(&x[j])).unwrap();
            let (f, y) = (problem.outputs(), &problem.targets);
            right +=
                f.chunks(outputs).zip(y.chunks(outputs)).filter(|(f, y)| largest(f) == largest(y)).count();
            seen += batch.len();
            let gradient = problem.gradient();
            let (mu, lambda) = (options.momentum, options.weight_decay);
            twins::sgd_step(theta, momentum, &gradient, learning_rate, mu, lambda);
        }
        let classes = matches!(self.data.targets, Targets::Classes(_));
        let accuracy = classes.then(|| right as f64 / seen as f64);
        EpochRecord { epoch: epoch + 1, loss: loss / seen as f64, accuracy, learning_rate }
    }

    /// Trains beside the twin, all epochs.
    fn check(&self, gpu: &Gpu, what: &str) {
        let mut trainer = self.trainer(gpu);
        let mut theta = f64s(&self.theta);
        let mut momentum = vec![0.0; theta.len()];
        for epoch in 0..self.options.epochs {
            let what = |quantity: &str| format!("{quantity} after epoch {} of {what}", epoch + 1);
            let record = trainer.run_epoch().unwrap();
            let expected = self.twin_epoch(epoch, &mut theta, &mut momentum);
            let state = trainer.state().unwrap();
            assert_eq!((record.epoch, state.epoch, trainer.epoch()), (epoch + 1, epoch + 1, epoch + 1));
            assert_close(&what("loss"), &[record.loss], &[expected.loss], 5e-6, 1.0);
            assert_eq!(record.accuracy, expected.accuracy, "{}", what("accuracy"));
            assert_close(&what("rate"), &[record.learning_rate], &[expected.learning_rate], 1e-14, 1.0);
            assert_close(&what("θ"), &state.parameters, &theta, 5e-6, 1.0);
            match self.options.momentum {
                0.0 => assert!(state.momentum.iter().all(|&m| m == 0.0), "{}", what("momentum")),
                _ => assert_close(&what("momentum"), &state.momentum, &momentum, 2e-5, 1.0),
            }
            assert_eq!(trainer.parameters().unwrap(), state.parameters);
        }
    }
}

fn exponential(gamma: f64) -> Schedule {
    Schedule::Exponential { gamma }
}

/// With and without momentum, weight decay, a schedule and replacement; batches that divide the samples and
/// batches that leave a smaller one.
fn runs() -> Vec<(&'static str, Run)> {
    let sgd = TrainOptions::sgd;
    let (ce, mse, softmax, squared) = (Loss::CrossEntropy, Loss::Mse, Loss::SoftmaxMse, Loss::SquaredError);
    let replaced = Sampling::WithReplacement;
    vec![
        ("plain SGD", Run::new(&[5, 7, 3], Layer::Tanh, 24, ce, sgd(0.1, 8, 3))),
        ("gradient descent", Run::new(&[3, 4, 2], Layer::Gelu, 11, mse, sgd(0.3, 11, 3))),
        ("batches of one", Run::new(&[2, 3, 2], Layer::Tanh, 7, softmax, sgd(0.5, 1, 2))),
        (
            "momentum and a last batch of one",
            Run::new(&[5, 7, 3], Layer::Gelu, 25, ce, TrainOptions { momentum: 0.9, ..sgd(0.05, 8, 3) }),
        ),
        (
            "weight decay and a schedule",
            Run::new(
                &[4, 9, 2],
                Layer::Tanh,
                31,
                squared,
                TrainOptions { weight_decay: 0.05, schedule: exponential(0.7), ..sgd(0.1, 7, 4) },
            ),
        ),
        (
            "with replacement",
            Run::new(
                &[5, 7, 3],
                Layer::Tanh,
                25,
                ce,
                TrainOptions { sampling: replaced, seed: 4, ..sgd(0.1, 8, 3) },
            ),
        ),
        (
            "everything at once",
            Run::new(
                &[17, 33, 10],
                Layer::Relu,
                67,
                softmax,
                TrainOptions {
                    momentum: 0.8,
                    weight_decay: 0.01,
                    schedule: exponential(0.9),
                    sampling: replaced,
                    seed: 9,
                    ..sgd(0.2, 13, 4)
                },
            ),
        ),
    ]
}

#[test]
fn trajectories_agree_with_sgd_in_f64() {
    for (what, run) in runs() {
        run.check(gpu(), what);
    }
}

/// The samples lie in several buffers.
#[test]
fn samples_in_several_buffers_train_alike() {
    let options = TrainOptions { momentum: 0.5, ..TrainOptions::sgd(0.05, 32, 2) };
    let run = Run::new(&[61, 5, 3], Layer::Tanh, 203, Loss::CrossEntropy, options);
    run.check(&own_device(bindings_of(16 << 10), None), "samples in several buffers");
}

/// A batch that the memory budget cuts into parts makes the same step as a whole one.
#[test]
fn batches_larger_than_the_budget_are_made_in_parts() {
    let options = TrainOptions { momentum: 0.5, weight_decay: 0.01, ..TrainOptions::sgd(0.5, 499, 3) };
    let run = Run::new(&[17, 33, 10], Layer::Tanh, 700, Loss::CrossEntropy, options);
    let small = Gpu::new(&GpuOptions { memory_budget: Some(150_000), ..GpuOptions::from_env() }).unwrap();
    let (whole, parts) = (run.trainer(gpu()), run.trainer(&small));
    // 499 is prime: parts of one size make more rows than it has
    assert!(parts.flops_per_step() > whole.flops_per_step(), "the batch should be cut");
    run.check(gpu(), "whole batches");
    run.check(&small, "batches in parts");
    assert!(small.peak_memory() <= 300_000, "{} bytes of two trainers", small.peak_memory());
    let [mut first, mut second] = [run.trainer(&small), run.trainer(&small)];
    for _ in 0..2 {
        assert_eq!(first.run_epoch().unwrap(), second.run_epoch().unwrap());
    }
    assert!(bits(&first) == bits(&second), "two runs differ");
    let mut resumed = run.resumed(&small, first.state().unwrap());
    assert_eq!(first.run_epoch().unwrap(), resumed.run_epoch().unwrap());
    assert!(bits(&first) == bits(&resumed), "a resumed run differs");
}

fn bits(trainer: &Trainer) -> Vec<u32> {
    let state = trainer.state().unwrap();
    state.parameters.iter().chain(&state.momentum).map(|x| x.to_bits()).collect()
}

#[test]
fn repeated_and_resumed_runs_have_the_same_bits() {
    let other = Gpu::new(&GpuOptions::from_env()).unwrap();
    for (what, run) in runs() {
        let [mut first, mut second] = [run.trainer(gpu()), run.trainer(&other)];
        let half = run.options.epochs / 2;
        let mut state = first.state().unwrap();
        for epoch in 0..run.options.epochs {
            if epoch == half {
                state = first.state().unwrap();
            }
            assert_eq!(first.run_epoch().unwrap(), second.run_epoch().unwrap(), "{what}");
        }
        assert!(bits(&first) == bits(&second), "{what}: two runs differ");
        assert_eq!(state.epoch, half);
        let mut resumed = run.resumed(gpu(), state);
        for _ in half..run.options.epochs {
            resumed.run_epoch().unwrap();
        }
        assert_eq!(resumed.epoch(), run.options.epochs);
        assert!(bits(&first) == bits(&resumed), "{what}: a resumed run differs");
    }
}

#[test]
fn orders_of_samples() {
    let epoch = TrainOptions::sgd(0.1, 8, 5);
    let drawn = TrainOptions { sampling: Sampling::WithReplacement, ..epoch.clone() };
    for options in [&epoch, &drawn] {
        assert_eq!(options.order(67, 3), options.order(67, 3));
        assert_ne!(options.order(67, 3), options.order(67, 4), "epochs differ");
        let reseeded = TrainOptions { seed: 1, ..options.clone() };
        assert_ne!(options.order(67, 3), reseeded.order(67, 3), "seeds differ");
    }
    for round in 0..3 {
        let mut order = epoch.order(67, round);
        assert!(!order.is_sorted(), "epoch {round} is shuffled");
        order.sort_unstable();
        assert!(order.into_iter().eq(0..67), "epoch {round} passes over every sample once");
        let order = drawn.order(67, round);
        assert_eq!(order.len(), 72, "as many batches as without replacement, all of them full");
        assert!(order.iter().all(|&i| i < 67));
        let mut distinct = order;
        distinct.sort_unstable();
        distinct.dedup();
        assert!((30..60).contains(&distinct.len()), "{} of 67 drawn in 72", distinct.len());
    }
}

/// PyTorch's `U(−1/√fan_in, 1/√fan_in)`, weights and biases alike.
#[test]
fn initial_parameters_are_pytorchs() {
    let network = Network::new(&Model::mlp(&[64, 100, 9], Layer::Relu, true)).unwrap();
    let theta = network.initial_parameters(5);
    assert_eq!(theta, network.initial_parameters(5));
    assert_ne!(theta, network.initial_parameters(6));
    let expected = [("0.weight", 0.125), ("0.bias", 0.125), ("2.weight", 0.1), ("2.bias", 0.1f32)];
    for (parameter, (name, bound)) in network.parameters().iter().zip(expected) {
        assert_eq!(parameter.name, name);
        let values = &theta[parameter.offset..parameter.offset + parameter.len];
        assert!(values.iter().all(|x| x.abs() <= bound), "{name}");
        let count = values.len() as f32;
        // its quantiles: the largest of n values is within 10/n of the end but once in e¹⁰ runs
        let (low, high) = values.iter().fold((0.0f32, 0.0f32), |(l, h), &x| (l.min(x), h.max(x)));
        let slack = 20.0 / count * bound;
        assert!(low < -bound + slack && high > bound - slack, "{name}: {low} to {high}");
        let mean = values.iter().sum::<f32>() / count;
        assert!(mean.abs() < 4.0 * bound / (3.0 * count).sqrt(), "{name}: mean {mean}");
    }
}

/// Where a step's parts are of the size that the papers train, it stays a short list of dispatches.
#[test]
fn a_step_is_a_short_list_of_dispatches() {
    let mut run =
        Run::new(&[784, 50, 50, 10], Layer::Relu, 50, Loss::CrossEntropy, TrainOptions::sgd(0.1, 50, 1));
    assert!(run.trainer(gpu()).dispatches_per_step() <= 20);
    run.network = Network::new(&Model::mlp(&[784, 50, 50, 10], Layer::Relu, false)).unwrap();
    run.theta = run.network.initial_parameters(0);
    assert!(run.trainer(gpu()).dispatches_per_step() <= 20);
}

/// `y = w x` on samples `x = 1`, `y = 0` with a rate of 1e19: w is 1, −1e19, 1e38 before steps 1, 2 and 3, and
/// half its square overflows first at the third.
#[test]
fn divergence_names_the_step() {
    let network = Network::new(&Model::mlp(&[1, 1], Layer::Relu, false)).unwrap();
    for (samples, epoch) in [(1, 3), (2, 2), (3, 1)] {
        let targets = Targets::Values { values: vec![0.0; samples], width: 1 };
        let data = Dataset::new(vec![1.0; samples], vec![1], targets).unwrap();
        let options = TrainOptions::sgd(1e19, 1, 5);
        let session = Session::new(gpu(), &network, &[1.0], &data, Loss::SquaredError).unwrap();
        let mut trainer = Trainer::new(&session, options).unwrap();
        for _ in 1..epoch {
            trainer.run_epoch().unwrap();
        }
        let error = trainer.run_epoch().unwrap_err();
        let expected = format!(
            "training diverged at step 3 (epoch {epoch}): loss is inf; lower the learning rate (found 1e19)"
        );
        assert_eq!(error.to_string(), expected);
        assert!(matches!(error, Error::Diverged { step: 3, .. }));
        assert_eq!(trainer.epoch(), epoch - 1, "the epoch does not count");
    }
}

/// A last step may leave the finite numbers after the last loss was taken: its parameters are no result.
#[test]
fn parameters_that_are_not_finite_are_no_result() {
    let network = Network::new(&Model::mlp(&[1, 1], Layer::Relu, false)).unwrap();
    let targets = Targets::Values { values: vec![0.0], width: 1 };
    let data = Dataset::new(vec![0.0], vec![1], targets).unwrap();
    let options = TrainOptions { weight_decay: 1e20, ..TrainOptions::sgd(1e20, 1, 1) };
    let session = Session::new(gpu(), &network, &[1.0], &data, Loss::SquaredError).unwrap();
    let mut trainer = Trainer::new(&session, options).unwrap();
    assert_eq!(trainer.run_epoch().unwrap().loss, 0.0);
    for error in [trainer.parameters().unwrap_err(), trainer.state().unwrap_err()] {
        assert_eq!(
            error.to_string(),
            "a parameter after epoch 1 is not finite: it is -inf; the run diverged, lower the learning rate or the weight decay (found 1e20 and 1e20)"
        );
    }
}

#[test]
fn options_that_cannot_be_used_are_refused() {
    let good = TrainOptions::sgd(0.1, 4, 2);
    let run = Run::new(&[2, 3, 2], Layer::Tanh, 7, Loss::CrossEntropy, good.clone());
    let refused = |options: TrainOptions| {
        let trainer = Trainer::new(&run.session(gpu()), options);
        trainer.expect_err("an error").to_string()
    };
    let rate = |learning_rate| TrainOptions { learning_rate, ..good.clone() };
    let momentum = |momentum| TrainOptions { momentum, ..good.clone() };
    let decay = |weight_decay| TrainOptions { weight_decay, ..good.clone() };
    let batch = |batch_size| TrainOptions { batch_size, ..good.clone() };
    let gamma = |gamma| TrainOptions { schedule: exponential(gamma), ..good.clone() };
    for (options, expected) in [
        (rate(0.0), "learning_rate: found 0, expected a positive number"),
        (rate(-1.0), "learning_rate: found -1, expected a positive number"),
        (rate(f64::NAN), "learning_rate: found NaN, expected a positive number"),
        (rate(f64::INFINITY), "learning_rate: found inf, expected a positive number"),
        (momentum(1.0), "momentum: found 1, expected a number from 0 to below 1"),
        (momentum(-0.5), "momentum: found -0.5, expected a number from 0 to below 1"),
        (decay(-0.5), "weight_decay: found -0.5, expected a number from 0 on"),
        (decay(f64::NAN), "weight_decay: found NaN, expected a number from 0 on"),
        (gamma(0.0), "gamma: found 0, expected a positive number"),
        (batch(0), "batch_size: found 0, expected 1 to the 7 samples"),
        (batch(8), "batch_size: found 8, expected 1 to the 7 samples"),
        (TrainOptions { epochs: 0, ..good.clone() }, "epochs: found 0, expected at least 1"),
    ] {
        assert_eq!(refused(options), expected);
    }
    let resumed = |parameters: Vec<f32>, momentum: Vec<f32>| {
        let state = TrainState { epoch: 1, parameters, momentum };
        let trainer = Trainer::resume(&run.session(gpu()), state, good.clone());
        trainer.expect_err("an error").to_string()
    };
    let with = |value: f32| [&[value][..], &run.theta[1..]].concat();
    assert_eq!(resumed(vec![0.0; 16], run.theta.clone()), "parameters: found shape [16], expected [17]");
    assert_eq!(resumed(run.theta.clone(), vec![0.0; 18]), "momentum: found shape [18], expected [17]");
    assert_eq!(resumed(with(f32::NAN), run.theta.clone()), "parameter 0.weight is not finite: it holds NaN");
    assert_eq!(resumed(run.theta.clone(), with(f32::INFINITY)), "momentum is not finite: it holds inf");
}
