//! The f64 oracle against JAX and PyTorch in f64: every quantity of the cases in `reference-cases`.

use std::path::{Path, PathBuf};

use curvkit::data::Dataset;
use curvkit::net::Model;
use kernels_tests::cases::{REFERENCE_CASES, assert_close};
use kernels_tests::reference::Problem;
use kernels_tests::reference::network::Network;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

struct Tensors {
    path: PathBuf,
    bytes: Vec<u8>,
}

impl Tensors {
    fn read(path: PathBuf) -> Tensors {
        let bytes = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        Tensors { path, bytes }
    }

    fn view<T>(&self, name: &str, use_it: impl Fn(TensorView) -> T) -> T {
        let tensors = SafeTensors::deserialize(&self.bytes);
        let view = tensors.as_ref().map(|tensors| tensors.tensor(name));
        match view {
            Ok(Ok(view)) => use_it(view),
            problem => panic!("{}: {name}: {problem:?}", self.path.display()),
        }
    }

    fn f32s(&self, name: &str) -> Vec<f32> {
        self.view(name, |view| {
            assert_eq!(view.dtype(), Dtype::F32, "{name}");
            bytemuck::pod_collect_to_vec(view.data())
        })
    }

    fn f64s(&self, name: &str) -> Vec<f64> {
        self.view(name, |view| {
            assert_eq!(view.dtype(), Dtype::F64, "{name}");
            bytemuck::pod_collect_to_vec(view.data())
        })
    }
}

#[test]
fn the_oracle_agrees_with_jax_and_pytorch() {
    for &(case, loss) in REFERENCE_CASES {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("reference-cases").join(case);
        let tensors = |file: &str| Tensors::read(folder.join(file));
        let model = Model::read(folder.join("model.toml")).expect("a model file");
        let weights = tensors("weights.safetensors");
        let parameters = Network::new(&model).parameters;
        for (name, shape) in &parameters {
            weights.view(name, |view| assert_eq!(view.shape(), shape, "{case}: {name}"));
        }
        let theta: Vec<f32> = parameters.iter().flat_map(|(name, _)| weights.f32s(name)).collect();
        let data = Dataset::read(folder.join("data.safetensors")).expect("a data set");
        let problem = Problem::new(&model, loss, &theta, &data);
        let v = tensors("vectors.safetensors").f32s("v");

        let expected = tensors("reference.safetensors");
        for (quantity, found) in [
            ("loss", vec![problem.loss()]),
            ("gradient", problem.gradient()),
            ("per_sample_gradient", problem.per_sample_gradient()),
            ("hvp", problem.hvp(&v)),
            ("ggnvp", problem.ggnvp(&v)),
            ("noise_covariance_vp", problem.noise_covariance_vp(&v)),
            ("third", problem.third(&v)),
        ] {
            assert_close(&format!("{case}: {quantity}"), &found, &expected.f64s(quantity), 1e-10, 1.0);
        }
    }
}
