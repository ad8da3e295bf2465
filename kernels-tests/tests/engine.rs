//! The jet engine against the f64 reference, over the case table.

use curvkit::gpu::{Gpu, GpuOptions};
use curvkit::net::Network;
use curvkit::operators::Problem;
use kernels_tests::cases::{assert_close, cases};

#[test]
fn every_quantity_agrees_with_the_reference() {
    let gpu = Gpu::new(&GpuOptions::from_env()).unwrap();
    for case in cases() {
        let reference = case.problem();
        let network = Network::new(&case.model).unwrap();
        let problem = Problem::new(&gpu, &network, &case.parameters, &case.data, case.loss).unwrap();
        let all = network.all();
        let name = &case.name;
        let g = reference.gradient();
        let scale = 1e-3;
        let report = problem.loss().unwrap();
        assert_close(&format!("loss {name}"), &[report.loss], &[reference.loss()], 1e-5, scale);
        assert_close(&format!("gradient {name}"), &problem.gradient(&all).unwrap(), &g, 1e-5, scale);
        let mut rows = Vec::new();
        problem.per_sample_gradients(&all, |r| { rows.extend_from_slice(r); Ok(()) }).unwrap();
        assert_close(&format!("per-sample {name}"), &rows, &reference.per_sample_gradient(), 1e-5, scale);
        let v = &case.v;
        assert_close(&format!("hvp {name}"), &problem.hvp(&all, v).unwrap(), &reference.hvp(v), 5e-5, scale);
        assert_close(&format!("ggnvp {name}"), &problem.ggnvp(&all, v).unwrap(), &reference.ggnvp(v), 5e-5, scale);
        assert_close(&format!("noise {name}"), &problem.noise_covariance_vp(&all, v).unwrap(), &reference.noise_covariance_vp(v), 5e-5, scale);
        assert_close(&format!("third {name}"), &problem.third(&all, v).unwrap(), &reference.third(v), 2e-4, scale);
    }
}
