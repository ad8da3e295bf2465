//! Every network of the zoo at work: eight steps of training, a Hessian product's symmetry, and the memory that
//! they take.

use curvkit::gpu::{Gpu, GpuOptions};
use curvkit::net::{Loss, Network, ZOO};
use curvkit::operators::Session;
use curvkit::train::{TrainOptions, Trainer};
use kernels_tests::cases::random;
use kernels_tests::device::gpu;
use kernels_tests::zoo::samples;

/// Enough for the loss to fall.
const STEPS: usize = 8;

/// Trains on 4 samples, all at once; then `uᵀ H v = vᵀ H u` with `u = H v`, a direction in which there is much to
/// compare; within `budget` bytes.
fn runs(name: &str, learning_rate: f64, budget: u64) {
    let entry = ZOO.iter().find(|entry| entry.name == name).expect("in the zoo");
    let network = Network::new(&entry.model()).unwrap();
    gpu(); // tuned
    let options = GpuOptions { memory_budget: Some(budget), ..GpuOptions::from_env() };
    let gpu = Gpu::new(&options).unwrap();
    let data = samples(&network, 4);
    // one output has nothing to compare itself with
    let loss = if network.outputs() == 1 { Loss::SquaredError } else { Loss::CrossEntropy };
    let options = TrainOptions { momentum: 0.5, ..TrainOptions::sgd(learning_rate, 4, STEPS as u64) };
    let problem = Session::new(&gpu, &network, &network.initial_parameters(1), &data, loss).unwrap();
    let mut trainer = Trainer::new(&problem, options).unwrap();
    let losses: Vec<f64> = (0..STEPS).map(|_| trainer.run_epoch().unwrap().loss).collect();
    assert!(losses[STEPS - 1] < losses[0], "{name}: {losses:?}");

    drop(trainer);
    let all = network.all();
    let dot = |x: &[f32], y: &[f32]| x.iter().zip(y).map(|(&x, &y)| f64::from(x) * f64::from(y)).sum::<f64>();
    let v = random(9, 3 * network.dim());
    let products = problem.hvp(&all, &v).unwrap();
    let (v, u) = (&v[..network.dim()], &products[..network.dim()]);
    let hu = problem.hvp(&all, u).unwrap();
    let (uhv, vhu, peak) = (dot(u, u), dot(v, &hu), gpu.peak_memory());
    println!("{name}: loss {} to {}, uᵀHv = {uhv}, vᵀHu = {vhu}, {peak} bytes", losses[0], losses[STEPS - 1]);
    assert!(uhv > 0.0 && (uhv - vhu).abs() <= 1e-5 * uhv, "{name}: {uhv} and {vhu}");
    assert!(peak <= budget, "{name}: {peak} of {budget} bytes");
}

const MIB: u64 = 1 << 20;

macro_rules! zoo_runs {
    ($($test:ident: $name:literal at $learning_rate:literal within $budget:literal MiB;)*) => {
        $(#[test]
        fn $test() {
            runs($name, $learning_rate, $budget * MIB);
        })*

        #[test]
        fn none_is_left_out() {
            let names: Vec<&str> = ZOO.iter().map(|entry| entry.name).collect();
            assert_eq!(names, [$($name),*]);
        }
    };
}

zoo_runs! {
    mlp_mnist: "mlp-mnist" at 0.1 within 64 MiB;
    mlp_cifar: "mlp-cifar" at 0.02 within 192 MiB;
    cnn_superlinear: "cnn-superlinear" at 0.1 within 64 MiB;
    cnn_superlinear_mnist: "cnn-superlinear-mnist" at 0.1 within 64 MiB;
    lenet: "lenet" at 0.05 within 64 MiB;
    resnet20: "resnet20" at 0.02 within 64 MiB;
    mlp_tanh: "mlp-tanh" at 0.1 within 64 MiB;
    cnn_sharpness: "cnn-sharpness" at 0.02 within 64 MiB;
    transformer_sst2: "transformer-sst2" at 0.02 within 96 MiB;
    linear_4: "linear-4" at 0.05 within 64 MiB;
    two_layer: "two-layer" at 0.05 within 64 MiB;
    fnn_geometry: "fnn-geometry" at 0.05 within 64 MiB;
    cnn_geometry: "cnn-geometry" at 0.05 within 64 MiB;
    vgg13: "vgg13" at 0.05 within 64 MiB;
    vgg19: "vgg19" at 0.05 within 1024 MiB;
    resnet38: "resnet38" at 0.1 within 64 MiB;
    resnet110: "resnet110" at 0.02 within 128 MiB;
}
