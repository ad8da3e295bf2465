//! Solvers and the products that they make keep within one memory budget.

use curvkit::gpu::{Gpu, GpuOptions};
use curvkit::net::{Layer, Loss, Network};
use curvkit::operators::{Curvature, CurvatureOperator, Session};
use curvkit::spectral::{
    LanczosOptions, LobpcgOptions, QuadratureOptions, eigenpairs, lobpcg, quadrature, unobserved,
};
use kernels_tests::cases::perceptron;
use kernels_tests::device::gpu;

/// What `solve` finds of the Hessian of a network of 934 parameters on 1,003 samples within each budget: whose passes
/// would take all of the smaller ones, and whose bases lie on the device in some and on the host in others.
fn keeps_within(budgets: [u64; 2], solve: impl Fn(&CurvatureOperator) -> Vec<f64>) {
    let case = perceptron(&[17, 33, 10], Layer::Gelu, Loss::CrossEntropy, 1_003, 1);
    let network = Network::new(&case.model).unwrap();
    let found = |gpu: &Gpu| {
        let problem = Session::new(gpu, &network, &case.parameters, &case.data, case.loss).unwrap();
        solve(&problem.operator(Curvature::Hessian, &network.all()).unwrap())
    };
    let expected = found(gpu());
    for budget in budgets {
        let gpu = Gpu::new(&GpuOptions { memory_budget: Some(budget), ..GpuOptions::from_env() }).unwrap();
        for (i, (found, expected)) in found(&gpu).iter().zip(&expected).enumerate() {
            let off = (found - expected).abs();
            assert!(
                off <= 2e-5 * expected.abs().max(1.0),
                "in {budget} bytes, {i}: {found}, expected {expected}"
            );
        }
        let peak = gpu.peak_memory();
        println!("{peak} of {budget} bytes");
        assert!(peak <= budget, "{peak} of {budget} bytes");
        assert!(peak > budget / 3, "{peak} of {budget} bytes: the budget is not what limits");
    }
}

#[test]
fn lanczos() {
    keeps_within([2 << 20, 1 << 20], |operator| {
        let options = LanczosOptions { tolerance: 1e-5, block: Some(4), ..LanczosOptions::new(20) };
        let pairs = eigenpairs(operator, options, &mut unobserved).unwrap();
        assert!(pairs.complete && pairs.converged.iter().all(|&converged| converged));
        pairs.values
    });
}

#[test]
fn lobpcg_with_three_bases() {
    keeps_within([2 << 20, 1 << 20], |operator| {
        let pairs = lobpcg(
            operator,
            &LobpcgOptions { tolerance: 1e-4, ..LobpcgOptions::new(10) },
            None,
            &mut unobserved,
        )
        .unwrap();
        assert!(pairs.converged.iter().all(|&converged| converged));
        pairs.values
    });
}

#[test]
fn quadrature_of_many_probes() {
    keeps_within([2 << 20, 1 << 20], |operator| {
        let found =
            quadrature(operator, &QuadratureOptions { probes: 8, steps: 20, seed: 0 }, &mut unobserved)
                .unwrap();
        (1..=4).map(|power| found.moment(power).value).collect()
    });
}
