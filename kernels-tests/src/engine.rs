//! Every quantity that the engine makes, held against the f64 reference.

use curvkit::gpu::Gpu;
use curvkit::net::{Network, Subspace};
use curvkit::operators::Session;

use crate::cases::{Case, assert_close};

/// Below this a result counts as zero: parameters, inputs and directions are all of order one.
pub const SCALE: f64 = 1e-3;

/// The case on a device.
pub fn problem(gpu: &Gpu, case: &Case) -> Session {
    let network = Network::new(&case.model).unwrap();
    Session::new(gpu, &network, &case.parameters, &case.data, case.loss).unwrap()
}

/// Every sample's gradient: `[N, dim]`
pub fn per_sample_gradient(problem: &Session, space: &Subspace) -> Vec<f32> {
    let mut rows = Vec::new();
    let each = |first: usize, r: &[f32]| {
        assert_eq!(rows.len(), first * space.dim, "batches in their order");
        rows.extend_from_slice(r);
        Ok(())
    };
    problem.per_sample_gradients(space, each).unwrap();
    rows
}

/// A quantity with a direction in it: `[K, dim]` from `[K, dim]`.
pub type Product = fn(&Session, &Subspace, &[f32]) -> Vec<f32>;

/// `H V`
pub const HVP: Product = |problem, space, v| problem.hvp(space, v).unwrap();
/// `G V`
pub const GGNVP: Product = |problem, space, v| problem.ggnvp(space, v).unwrap();
/// `C V`
pub const NOISE: Product = |problem, space, v| problem.noise_covariance_vp(space, v).unwrap();
/// `∇³L[v, v]`
pub const THIRD: Product = |problem, space, v| problem.third(space, v).unwrap();

/// All of them, with their names.
pub const PRODUCTS: [(&str, Product); 4] =
    [("hvp", HVP), ("ggnvp", GGNVP), ("noise", NOISE), ("third", THIRD)];

/// Allowed relative errors of loss, gradients, products and third derivatives.
pub type Tolerances = [f64; 4];
/// The contract's.
pub const CONTRACT: Tolerances = [1e-5, 1e-5, 5e-5, 2e-4];
/// What fully connected networks reach.
pub const DENSE: Tolerances = [1e-6, 3e-6, 5e-6, 1e-5];

/// Every quantity of a case against the reference.
pub fn check_to(gpu: &Gpu, case: &Case, how: &str, [loss, gradient, product, third]: Tolerances) {
    let (loss_tolerance, gradient_tolerance) = (loss, gradient);
    let reference = case.problem();
    let problem = problem(gpu, case);
    let all = problem.network().all();
    let what = |quantity: &str| format!("{quantity} of {}{how}", case.name);
    let report = problem.loss().unwrap();
    assert_close(&what("loss"), &[report.loss], &[reference.loss()], loss_tolerance, SCALE);
    let losses = reference.per_sample_loss();
    assert_close(&what("per-sample loss"), &report.per_sample, &losses, loss_tolerance, SCALE);
    let gradient = problem.gradient(&all).unwrap();
    assert_close(&what("gradient"), &gradient, &reference.gradient(), gradient_tolerance, SCALE);
    let rows = per_sample_gradient(&problem, &all);
    assert_close(
        &what("per-sample gradient"),
        &rows,
        &reference.per_sample_gradient(),
        gradient_tolerance,
        SCALE,
    );
    let v = &case.v;
    for (name, found, expected, tolerance) in [
        ("hvp", HVP(&problem, &all, v), reference.hvp(v), product),
        ("ggnvp", GGNVP(&problem, &all, v), reference.ggnvp(v), product),
        ("noise", NOISE(&problem, &all, v), reference.noise_covariance_vp(v), product),
        ("third", THIRD(&problem, &all, v), reference.third(v), third),
    ] {
        assert_close(&what(name), &found, &expected, tolerance, SCALE);
    }
}
