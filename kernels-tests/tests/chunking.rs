//! Results do not depend on how work is cut: every network of the zoo with a memory budget that holds all of it, and with
//! one that cuts samples and directions small and loops cut short.

use curvkit::gpu::{Family, Gpu, GpuOptions};
use curvkit::net::{Loss, Network, ZOO};
use curvkit::operators::Session;
use kernels_tests::cases::{assert_close, random};
use kernels_tests::engine::{CONTRACT, PRODUCTS, per_sample_gradient};
use kernels_tests::f64s;
use kernels_tests::zoo::samples;

/// Every quantity of a network, by name, with the tolerance that the contract allows it.
fn quantities(
    gpu: &Gpu,
    network: &Network,
    samples_count: usize,
    of_all: bool,
) -> Vec<(&'static str, Vec<f32>, f64)> {
    let data = samples(network, samples_count);
    let loss = if network.outputs() == 1 { Loss::SquaredError } else { Loss::CrossEntropy };
    let theta = network.initial_parameters(1);
    let problem = Session::new(gpu, network, &theta, &data, loss).unwrap();
    let all = network.all();
    let v = random(9, 2 * network.dim());
    let [of_loss, gradient, product, third] = CONTRACT;
    let mut found = vec![
        ("loss", vec![problem.loss().unwrap().loss as f32], of_loss),
        ("gradient", problem.gradient(&all).unwrap(), gradient),
    ];
    for (name, make) in PRODUCTS {
        if of_all || name == "hvp" {
            found.push((name, make(&problem, &all, &v), if name == "third" { third } else { product }));
        }
    }
    if of_all {
        found.push(("per-sample gradients", per_sample_gradient(&problem, &all), gradient));
    }
    found
}

/// Compares the whole with what is cut. `small`: bytes that hold little more than the network; `of_all`: whether
/// every quantity is made, or loss, gradient and Hessian products alone.
fn agrees(name: &str, count: usize, small: u64, of_all: bool) {
    let entry = ZOO.iter().find(|entry| entry.name == name).expect("in the zoo");
    let network = Network::new(&entry.model()).unwrap();
    // One family against itself: where a value lies at a kink to within its rounding, two families may take it to lie on
    // different sides, and are both right. That they agree is for the engine's tests, on networks without such values.
    let family = Some(Family::Register);
    let [whole, cut] = [(None, None), (Some(small), Some(SHORT))].map(|(memory_budget, loop_iterations)| {
        let options = GpuOptions { memory_budget, family, loop_iterations, ..GpuOptions::from_env() };
        quantities(&Gpu::new(&options).unwrap(), &network, count, of_all)
    });
    for ((quantity, found, tolerance), (_, expected, _)) in cut.iter().zip(&whole) {
        // two computations, each of which the contract allows its error
        assert_close(&format!("{quantity} of {name}"), found, &f64s(expected), 2.0 * tolerance, 1e-3);
    }
}

/// Iterations that loops are cut to.
const SHORT: usize = 2_000;

const MIB: u64 = 1 << 20;

macro_rules! zoo {
    ($($test:ident: $name:literal, $count:literal samples, $small:literal MiB, all $all:literal;)*) => {
        $(#[test]
        fn $test() {
            agrees($name, $count, $small * MIB, $all);
        })*

        #[test]
        fn none_is_left_out() {
            let names: Vec<&str> = ZOO.iter().map(|entry| entry.name).collect();
            assert_eq!(names, [$($name),*]);
        }
    };
}

zoo! {
    mlp_mnist: "mlp-mnist", 301 samples, 3 MiB, all true;
    mlp_cifar: "mlp-cifar", 9 samples, 160 MiB, all false;
    cnn_superlinear: "cnn-superlinear", 3 samples, 16 MiB, all true;
    cnn_superlinear_mnist: "cnn-superlinear-mnist", 5 samples, 16 MiB, all false;
    lenet: "lenet", 19 samples, 8 MiB, all true;
    resnet20: "resnet20", 2 samples, 24 MiB, all true;
    mlp_tanh: "mlp-tanh", 37 samples, 12 MiB, all true;
    cnn_sharpness: "cnn-sharpness", 5 samples, 24 MiB, all true;
    transformer_sst2: "transformer-sst2", 2 samples, 96 MiB, all true;
    linear_4: "linear-4", 67 samples, 12 MiB, all true;
    two_layer: "two-layer", 67 samples, 12 MiB, all true;
    fnn_geometry: "fnn-geometry", 19 samples, 48 MiB, all true;
    cnn_geometry: "cnn-geometry", 5 samples, 24 MiB, all true;
    vgg13: "vgg13", 2 samples, 64 MiB, all false;
    vgg19: "vgg19", 1 samples, 1024 MiB, all false;
    resnet38: "resnet38", 2 samples, 32 MiB, all false;
    resnet110: "resnet110", 1 samples, 96 MiB, all false;
}
