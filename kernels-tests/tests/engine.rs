//! The jet engine: against the f64 reference over the case table, and against invariants that need no second
//! implementation.

use curvkit::data::{Dataset, Targets};
use curvkit::gpu::{Gpu, GpuOptions, LimitsChoice};
use curvkit::net::{Layer, Loss, Model, Network};
use curvkit::operators::{Curvature, Session};
use kernels_tests::cases::{Case, assert_close, cases, op_cases, perceptron, random};
use kernels_tests::device::{bindings_of, gpu, own_device};
use kernels_tests::engine::{
    CONTRACT, DENSE, GGNVP, HVP, NOISE, PRODUCTS, SCALE, THIRD, check_to, per_sample_gradient, problem,
};
use kernels_tests::f64s;

/// Every quantity of a fully connected case against the reference.
fn check(gpu: &Gpu, case: &Case, how: &str) {
    check_to(gpu, case, how, DENSE);
}

/// Layers that act at several positions of a sample: the last axis is theirs, the others are rows.
fn positions() -> Vec<Case> {
    let linear = |out_features, bias| Layer::Linear { out_features, bias };
    let models = [
        Model {
            input: vec![5, 3],
            layers: vec![linear(4, true), Layer::Tanh, Layer::Flatten, linear(3, true)],
            ..Model::default()
        },
        Model {
            input: vec![2, 3, 4],
            layers: vec![linear(7, true), Layer::Gelu, linear(1, true), Layer::Flatten],
            ..Model::default()
        },
        Model {
            input: vec![3, 2],
            layers: vec![Layer::Tanh, linear(5, false), Layer::Relu, Layer::Flatten, Layer::Gelu],
            ..Model::default()
        },
    ];
    let case = |(i, model): (usize, Model)| {
        let network = Network::new(&model).unwrap();
        let (samples, directions, seed) = (11, 3, 100 * i as u64);
        let inputs = random(seed, samples * network.input_len());
        let values = random(seed + 1, samples * network.outputs());
        let targets = Targets::Values { values, width: network.outputs() };
        Case {
            name: format!("{model:?}"),
            loss: Loss::SoftmaxMse,
            parameters: random(seed + 2, network.dim()),
            data: Dataset::new(inputs, model.input.clone(), targets).unwrap(),
            directions,
            v: random(seed + 3, directions * network.dim()),
            model,
        }
    };
    models.into_iter().enumerate().map(case).collect()
}

/// Smooth networks, one for each loss.
fn smooth() -> Vec<Case> {
    [
        perceptron(&[3, 7, 5, 4], Layer::Tanh, Loss::CrossEntropy, 23, 2),
        perceptron(&[5, 6, 2], Layer::Gelu, Loss::Mse, 17, 2),
        perceptron(&[4, 9, 3], Layer::Tanh, Loss::SoftmaxMse, 29, 2),
        perceptron(&[2, 5, 5, 1], Layer::Gelu, Loss::SquaredError, 31, 2),
    ]
    .into()
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
}

fn norm(x: &[f32]) -> f64 {
    dot(x, x).sqrt()
}

/// `(1/N) Σ` of flat rows `[N, dim]`.
fn mean_row(rows: &[f32], dim: usize) -> Vec<f64> {
    let mut mean = vec![0.0; dim];
    for row in rows.chunks(dim) {
        mean.iter_mut().zip(row).for_each(|(m, &x)| *m += f64::from(x) / (rows.len() / dim) as f64);
    }
    mean
}

/// Every layer of the papers' networks, at odd sizes and in mid-graph.
#[test]
fn every_layer_agrees_with_the_reference() {
    for case in op_cases() {
        check_to(gpu(), &case, "", CONTRACT);
    }
}

#[test]
fn every_quantity_agrees_with_the_reference() {
    for case in cases() {
        check(gpu(), &case, "");
    }
}

#[test]
fn layers_at_several_positions_agree_with_the_reference() {
    for case in positions() {
        check(gpu(), &case, "");
    }
}

#[test]
fn the_limits_of_webgpu_are_enough() {
    let options = GpuOptions { limits: LimitsChoice::WebGpuDefaults, ..GpuOptions::from_env() };
    let gpu = Gpu::new(&options).unwrap();
    assert_eq!(gpu.limits().max_storage_buffers_per_shader_stage, 8);
    assert_eq!(gpu.limits().max_storage_buffer_binding_size, 128 << 20);
    for case in cases().iter().chain(&positions()) {
        check(&gpu, case, ", within WebGPU's default limits");
    }
}

#[test]
fn a_device_of_the_callers_will_do() {
    // bindings of 16 KiB: the samples lie in several buffers
    let gpu = own_device(bindings_of(16 << 10), None);
    for case in cases().iter().step_by(5) {
        check(&gpu, case, ", on the caller's device");
    }
    let case = perceptron(&[61, 5, 3], Layer::Gelu, Loss::CrossEntropy, 203, 2);
    assert!(4 * case.data.inputs.len() > 3 * (16 << 10), "the samples should take more than three bindings");
    check(&gpu, &case, ", on the caller's device");
}

#[test]
fn curvature_is_symmetric() {
    for case in smooth() {
        let problem = problem(gpu(), &case);
        let all = problem.network().all();
        let (u, v) = case.v.split_at(all.dim);
        for (name, product) in &PRODUCTS[..3] {
            let both = product(&problem, &all, &case.v);
            let (au, av) = both.split_at(all.dim);
            let (uav, vau) = (dot(u, av), dot(v, au));
            let size = norm(u) * norm(av);
            assert!((uav - vau).abs() <= 1e-6 * size, "{name} of {}: {uav} and {vau}", case.name);
        }
    }
}

#[test]
fn curvature_is_linear() {
    for case in smooth() {
        let problem = problem(gpu(), &case);
        let all = problem.network().all();
        let (u, v) = case.v.split_at(all.dim);
        let mixed: Vec<f32> = u.iter().zip(v).map(|(u, v)| 2.0 * u - 0.5 * v).collect();
        for (name, product) in &PRODUCTS[..3] {
            let both = product(&problem, &all, &case.v);
            let (au, av) = both.split_at(all.dim);
            let expected: Vec<f64> =
                au.iter().zip(av).map(|(&u, &v)| 2.0 * f64::from(u) - 0.5 * f64::from(v)).collect();
            let found = product(&problem, &all, &mixed);
            assert_close(&format!("{name} of {}", case.name), &found, &expected, 5e-6, SCALE);
        }
        // ∇³L[v, v] is quadratic
        let twice: Vec<f32> = u.iter().map(|u| -2.0 * u).collect();
        let expected: Vec<f64> = f64s(&THIRD(&problem, &all, u)).into_iter().map(|x| 4.0 * x).collect();
        let found = THIRD(&problem, &all, &twice);
        assert_close(&format!("third of {}", case.name), &found, &expected, 5e-6, SCALE);
    }
}

/// `(f(θ + εv) − f(θ − εv)) / 2ε` for a unit vector v, with the ε that rounding left of it.
fn central_difference(case: &Case, v: &[f32], f: impl Fn(&Session) -> Vec<f32>) -> Vec<f64> {
    let problem = problem(gpu(), case);
    let epsilon = 0.02;
    let at = |sign: f32| {
        let moved: Vec<f32> = case.parameters.iter().zip(v).map(|(p, v)| p + sign * epsilon * v).collect();
        problem.set_parameters(&moved).unwrap();
        f(&problem)
    };
    let (ahead, behind) = (at(1.0), at(-1.0));
    let difference = |(&a, &b): (&f32, &f32)| (f64::from(a) - f64::from(b)) / (2.0 * f64::from(epsilon));
    ahead.iter().zip(&behind).map(difference).collect()
}

/// The first direction of a case, at unit length.
fn unit(case: &Case) -> Vec<f32> {
    let v = &case.v[..case.parameters.len()];
    let norm = norm(v) as f32;
    v.iter().map(|v| v / norm).collect()
}

#[test]
fn hessian_is_the_slope_of_the_gradient() {
    for case in smooth() {
        let v = unit(&case);
        let expected = central_difference(&case, &v, |p| p.gradient(&p.network().all()).unwrap());
        let problem = problem(gpu(), &case);
        let found = HVP(&problem, &problem.network().all(), &v);
        assert_close(&case.name, &found, &expected, 1e-3, SCALE);
    }
}

#[test]
fn third_derivative_is_the_slope_of_the_hessian() {
    for case in smooth() {
        let v = unit(&case);
        let expected = central_difference(&case, &v, |p| HVP(p, &p.network().all(), &v));
        let problem = problem(gpu(), &case);
        let found = THIRD(&problem, &problem.network().all(), &v);
        assert_close(&case.name, &found, &expected, 2e-3, SCALE);
    }
}

#[test]
fn ggn_is_the_hessian_where_the_residual_vanishes() {
    for loss in [Loss::Mse, Loss::SquaredError] {
        let mut case = perceptron(&[4, 9, 3], Layer::Tanh, loss, 29, 2);
        let outputs = case.problem().outputs();
        let values = outputs.into_iter().map(|f| f as f32).collect();
        case.data.targets = Targets::Values { values, width: 3 };
        let problem = problem(gpu(), &case);
        let all = problem.network().all();
        let (h, g) = (HVP(&problem, &all, &case.v), GGNVP(&problem, &all, &case.v));
        assert_close(&case.name, &h, &f64s(&g), 2e-6, SCALE);
    }
    // and where the network is linear in its parameters, whatever the residual
    for loss in [Loss::CrossEntropy, Loss::Mse, Loss::SoftmaxMse, Loss::SquaredError] {
        let case = perceptron(&[7, 4], Layer::Tanh, loss, 13, 3);
        let problem = problem(gpu(), &case);
        let all = problem.network().all();
        let (h, g) = (HVP(&problem, &all, &case.v), GGNVP(&problem, &all, &case.v));
        assert_close(&case.name, &h, &f64s(&g), 2e-6, SCALE);
    }
}

/// Means over the samples, and `C v` from the gradients themselves, in f64.
#[test]
fn per_sample_gradients_make_the_gradient_and_the_noise() {
    for case in smooth().iter().chain(&positions()) {
        let problem = problem(gpu(), case);
        let all = problem.network().all();
        let rows = per_sample_gradient(&problem, &all);
        let mean = mean_row(&rows, all.dim);
        let gradient = problem.gradient(&all).unwrap();
        assert_close(&format!("gradient of {}", case.name), &gradient, &mean, 2e-6, SCALE);
        let mut expected = Vec::new();
        for v in case.v.chunks(all.dim) {
            let mut product = vec![0.0; all.dim];
            for row in rows.chunks(all.dim) {
                let deviation: Vec<f64> = row.iter().zip(&mean).map(|(&g, m)| f64::from(g) - m).collect();
                let along: f64 = deviation.iter().zip(v).map(|(d, &v)| d * f64::from(v)).sum();
                let weight = along / problem.samples().len() as f64;
                product.iter_mut().zip(&deviation).for_each(|(p, d)| *p += weight * d);
            }
            expected.extend(product);
        }
        let found = NOISE(&problem, &all, &case.v);
        assert_close(&format!("noise of {}", case.name), &found, &expected, 5e-6, SCALE);
    }
}

#[test]
fn a_block_is_its_directions_one_by_one() {
    for case in [
        perceptron(&[3, 7, 5, 4], Layer::Tanh, Loss::CrossEntropy, 23, 5),
        perceptron(&[17, 33, 10], Layer::Relu, Loss::SoftmaxMse, 67, 5),
    ] {
        let problem = problem(gpu(), &case);
        let all = problem.network().all();
        for (name, product) in PRODUCTS {
            let block = product(&problem, &all, &case.v);
            let singles: Vec<f32> = case.v.chunks(all.dim).flat_map(|v| product(&problem, &all, v)).collect();
            assert_close(&format!("{name} of {}", case.name), &block, &f64s(&singles), 2e-6, SCALE);
        }
    }
}

#[test]
fn restricted_to_some_parameters_is_rows_and_columns_of_the_whole() {
    let case = perceptron(&[5, 7, 6, 3], Layer::Tanh, Loss::CrossEntropy, 23, 2);
    let problem = problem(gpu(), &case);
    let network = problem.network();
    let all = network.all();
    let whole_gradient = problem.gradient(&all).unwrap();
    let whole_rows = per_sample_gradient(&problem, &all);
    let masks: [&[&str]; 9] = [
        &["0.weight"],
        &["0.bias"],
        &["2.weight"],
        &["2.bias"],
        &["4.weight"],
        &["4.bias"],
        &["4.bias", "0.weight"],
        &["2.weight", "4.weight"],
        &["0.weight", "0.bias", "2.weight", "2.bias", "4.weight", "4.bias"],
    ];
    for names in masks {
        let space = network.restricted(names).unwrap();
        // in the order in which they are named
        let named = |name: &&str| network.parameters().iter().find(|p| p.name == *name).unwrap();
        let chosen: Vec<usize> = names.iter().map(named).flat_map(|p| p.offset..p.offset + p.len).collect();
        assert_eq!(space.dim, chosen.len(), "{names:?}");
        let part = |whole: &[f32]| -> Vec<f64> {
            whole.chunks(all.dim).flat_map(|x| chosen.iter().map(|&i| f64::from(x[i]))).collect()
        };
        let what = |quantity: &str| format!("{quantity} restricted to {names:?}");
        let gradient = problem.gradient(&space).unwrap();
        assert_close(&what("gradient"), &gradient, &part(&whole_gradient), 2e-6, SCALE);
        let rows = per_sample_gradient(&problem, &space);
        assert_close(&what("per-sample gradient"), &rows, &part(&whole_rows), 2e-6, SCALE);
        let v = random(9, 2 * space.dim);
        let mut embedded = vec![0.0; 2 * all.dim];
        for (v, embedded) in v.chunks(space.dim).zip(embedded.chunks_mut(all.dim)) {
            chosen.iter().zip(v).for_each(|(&i, &v)| embedded[i] = v);
        }
        for (name, product) in PRODUCTS {
            let expected = part(&product(&problem, &all, &embedded));
            assert_close(&what(name), &product(&problem, &space, &v), &expected, 5e-6, SCALE);
        }
    }
}

#[test]
fn chunks_of_samples_and_directions_make_the_whole() {
    let case = perceptron(&[17, 33, 10], Layer::Gelu, Loss::CrossEntropy, 523, 7);
    let network = Network::new(&case.model).unwrap();
    let space = network.all();
    // bytes, and the samples and directions that a Hessian product is cut to at the least
    for (budget, n, k) in [(1_350_000, 175, 7), (700_000, 175, 4), (380_000, 175, 2), (120_000, 60, 1)] {
        let gpu = Gpu::new(&GpuOptions { memory_budget: Some(budget), ..GpuOptions::from_env() }).unwrap();
        let problem = Session::new(&gpu, &network, &case.parameters, &case.data, case.loss).unwrap();
        let (_, _, extent) = problem.operator(Curvature::Hessian, &space).unwrap().cost(7).unwrap();
        assert!(extent.n <= n && extent.k <= k, "{budget} bytes: {extent:?}, expected {n} × {k} at the most");

        check(&gpu, &case, &format!(", in {budget} bytes"));
        // the smallest is less than what every pass needs whatever it is cut to
        let peak = gpu.peak_memory();
        assert!(peak <= budget.max(200_000), "{peak} of {budget} bytes");
    }
}

/// More samples than one batch takes, so that sums in single precision stay short.
#[test]
fn many_samples_come_in_batches() {
    let case = perceptron(&[2, 3, 2], Layer::Tanh, Loss::SquaredError, 4_099, 2);
    check(gpu(), &case, "");
}

#[test]
fn a_budget_for_less_than_one_sample_is_an_error() {
    let case = perceptron(&[17, 33, 10], Layer::Gelu, Loss::CrossEntropy, 5, 2);
    let gpu = Gpu::new(&GpuOptions { memory_budget: Some(1_000), ..GpuOptions::from_env() }).unwrap();
    let problem = problem(&gpu, &case);
    let error = problem.hvp(&problem.network().all(), &case.v).unwrap_err();
    assert!(matches!(error, curvkit::Error::OutOfMemory { .. }), "{error:?}");
    let message = error.to_string();
    let start = "out of device memory while planning a sweep over one sample and one direction: it takes ";
    assert!(message.starts_with(start), "{message}");
    assert!(message.contains("; the budget is 1000 and a binding holds "), "{message}");
}

/// Everything that is measured of a case, as bits.
fn bits(gpu: &Gpu, case: &Case) -> Vec<u32> {
    let problem = problem(gpu, case);
    let all = problem.network().all();
    let report = problem.loss().unwrap();
    let mut numbers = vec![report.loss as f32, report.accuracy.unwrap() as f32];
    numbers.extend(report.per_sample);
    numbers.extend(problem.gradient(&all).unwrap());
    numbers.extend(per_sample_gradient(&problem, &all));
    PRODUCTS.iter().for_each(|(_, product)| numbers.extend(product(&problem, &all, &case.v)));
    numbers.into_iter().map(f32::to_bits).collect()
}

#[test]
fn the_same_bits_every_time() {
    let case = perceptron(&[33, 65, 10], Layer::Gelu, Loss::CrossEntropy, 523, 5);
    let first = bits(gpu(), &case);
    assert!(first == bits(gpu(), &case), "two evaluations on one device differ");
    let other = Gpu::new(&GpuOptions::from_env()).unwrap();
    assert!(first == bits(&other, &case), "two devices differ");
}

/// The share of samples whose largest output is their class's, first of equals; values have none.
#[test]
fn accuracy_counts_the_right_samples() {
    for case in cases() {
        if let Targets::Values { .. } = case.data.targets {
            assert_eq!(problem(gpu(), &case).loss().unwrap().accuracy, None, "{}", case.name);
            continue;
        }
        let reference = case.problem();
        let outputs = reference.network.outputs;
        let largest = |x: &[f64]| (0..x.len()).rev().max_by(|&i, &j| x[i].total_cmp(&x[j])).unwrap();
        let (f, y) = (reference.outputs(), reference.targets.clone());
        let right =
            f.chunks(outputs).zip(y.chunks(outputs)).filter(|(f, y)| largest(f) == largest(y)).count();
        let expected = right as f64 / reference.samples() as f64;
        assert_eq!(problem(gpu(), &case).loss().unwrap().accuracy, Some(expected), "{}", case.name);
    }
}

#[test]
fn one_sample_makes_no_noise() {
    let case = perceptron(&[3, 7, 4], Layer::Tanh, Loss::CrossEntropy, 1, 2);
    let problem = problem(gpu(), &case);
    let found = NOISE(&problem, &problem.network().all(), &case.v);
    assert!(found.iter().all(|&x| x == 0.0), "{found:?}");
}

#[test]
fn what_does_not_fit_is_refused() {
    let case = perceptron(&[2, 3, 2], Layer::Tanh, Loss::CrossEntropy, 4, 1); // P = 17
    let network = Network::new(&case.model).unwrap();
    let made = |parameters: &[f32], data: &Dataset, loss| {
        Session::new(gpu(), &network, parameters, data, loss).expect_err("an error").to_string()
    };
    let (theta, data) = (&case.parameters, &case.data);
    let with = |targets| Dataset { targets, ..data.clone() };
    let values = |width| with(Targets::Values { values: vec![0.5; 4 * width], width });
    let broken = [&theta[..7], &[f32::NAN], &theta[8..]].concat();
    let wide = Dataset::new(vec![0.0; 12], vec![3], data.targets.clone()).unwrap();
    let ce = Loss::CrossEntropy;
    for (found, expected) in [
        (made(&theta[1..], data, ce), "parameters: found shape [16], expected [17]"),
        (made(&broken, data, ce), "parameter 0.bias is not finite: it holds NaN"),
        (made(theta, &wide, ce), "inputs: one sample: found shape [3], expected [2]"),
        (
            made(theta, &with(Targets::Classes(vec![0, 1, 2, 0])), ce),
            "targets: found class 2 for sample 2, expected 0 to 1 for 2 outputs",
        ),
        (
            made(theta, &values(2), ce),
            "targets: found values, expected classes (I32 or I64) for cross-entropy",
        ),
        (made(theta, &values(3), Loss::Mse), "targets: found shape [4, 3], expected [4, 2]"),
    ] {
        assert_eq!(found, expected);
    }
    let problem = problem(gpu(), &case);
    let all = network.all();
    for count in [0, 16, 18] {
        let message = problem.hvp(&all, &vec![0.0; count]).unwrap_err().to_string();
        let expected =
            format!("directions: found shape [{}, {count}], expected [\"K ≥ 1\", \"17\"]", count / 17);
        assert_eq!(message, expected);
        assert_eq!(problem.third(&all, &vec![0.0; count]).unwrap_err().to_string(), expected);
    }
    for (names, expected) in [
        (
            &["5.weight"][..],
            "parameters: found “5.weight”, expected one of 0.weight, 0.bias, 2.weight, 2.bias",
        ),
        (&["0.bias", "0.bias"], "parameters: found “0.bias” twice, expected each name once"),
        (&[], "parameters: found no name, expected at least one"),
    ] {
        assert_eq!(network.restricted(names).unwrap_err().to_string(), expected);
    }
}
