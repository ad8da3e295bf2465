//! The engine's core on every adapter that there is, by each family of kernels, with loops as long as the adapter lets
//! them be and cut short: whoever opens a device gets the same numbers.

use curvkit::Error;
use curvkit::gpu::{Family, Gpu, GpuOptions, adapters};
use curvkit::net::{Layer, Loss};
use kernels_tests::cases::{cases, network_cases, op_cases, perceptron, random};
use kernels_tests::device::gpu;
use kernels_tests::engine::{CONTRACT, check_to};

/// Fewer iterations than the larger cases' kernels take, so that these are cut.
const SHORT: usize = 1_500;

fn each_device(mut each: impl FnMut(&Gpu, &str)) {
    let all = adapters();
    assert!(!all.is_empty(), "no adapter");
    for adapter in all {
        assert_eq!(adapter.problem, None, "{}", adapter.name);
        let ways = [(Family::Register, None), (Family::Register, Some(SHORT)), (Family::Workgroup, None)];
        for (family, loop_iterations) in ways {
            let options = GpuOptions {
                adapter: Some(adapter.index.to_string()),
                family: Some(family),
                loop_iterations,
                ..GpuOptions::default()
            };
            let gpu = Gpu::new(&options).unwrap();
            let how = format!(", on {} by {family:?}, loops of {}", gpu.driver(), gpu.loop_budget());
            println!("{how}");
            each(&gpu, &how);
        }
    }
}

#[test]
fn the_engine_agrees_with_the_reference() {
    let wide = perceptron(&[1_801, 5, 3], Layer::Tanh, Loss::CrossEntropy, 67, 2);
    each_device(|gpu, how| {
        for case in cases().iter().step_by(4).chain(&op_cases()).chain(&network_cases()).chain([&wide]) {
            check_to(gpu, case, how, CONTRACT);
        }
    });
}

/// Where a kernel cannot be cut to what the adapter's loops allow, it says so.
#[test]
fn loops_that_cannot_be_cut_are_refused() {
    let gpu = Gpu::new(&GpuOptions { loop_iterations: Some(100), ..GpuOptions::from_env() }).unwrap();
    let case = perceptron(&[2, 131], Layer::Tanh, Loss::CrossEntropy, 3, 1);
    let problem = kernels_tests::engine::problem(&gpu, &case);
    let error = problem.loss().unwrap_err();
    assert!(matches!(error, Error::Loops { .. }), "{error:?}");
    let expected = format!(
        "loss primal takes 660 iterations of its loops, and {} ends them after 100: install a newer driver, or take \
         another adapter",
        gpu.driver()
    );
    assert_eq!(error.to_string(), expected);
}

/// What an adapter is seen to do stands in what `curvkit adapters` tells.
#[test]
fn adapters_are_tried() {
    for adapter in adapters() {
        let trial = adapter.trial.expect("a trial");
        assert!(trial.loop_iterations > 4_096 && trial.loop_iterations <= 70_000, "{trial:?}");
        let errors = trial.errors;
        for error in [errors.division, errors.sqrt, errors.inverse_sqrt, errors.exp, errors.log1p] {
            assert!(error < 6e-7, "{}: {trial:?}", adapter.name);
        }
    }
    let trial = gpu().trial();
    let budget =
        if trial.loop_iterations == 70_000 { usize::MAX } else { trial.loop_iterations as usize - 1 };
    assert_eq!(gpu().loop_budget(), budget);
}

/// Sums of very many equal terms, of which a single accumulator loses a thousandth.
#[test]
fn long_sums_lose_nothing() {
    use curvkit::gpu::Recorder;
    use curvkit::kernels::Write;
    use curvkit::kernels::broadcast::{Axes, Strided, reduce};
    use curvkit::kernels::gemm::{Gemm, Layout, Matrix, Shape, gemm_with};
    let gpu = gpu();
    let k = 100_001;
    let (a, b) = (vec![0.001f32; k], vec![1.0f32; k]);
    let [a, b] = [&a, &b].map(|x| gpu.upload(x).unwrap().slice(0, k));
    let exact = k as f64 * f64::from(0.001f32);
    let error = |found: f32| (f64::from(found) - exact).abs() / exact;
    let out = gpu.zeros(1).unwrap().slice(0, 1);
    for family in [Family::Register, Family::Workgroup] {
        for layout in [Layout::NT, Layout::NN, Layout::TN] {
            let (row_a, row_b) =
                (if layout == Layout::TN { 1 } else { k }, if layout == Layout::NT { k } else { 1 });
            let matrix = |view, row| Matrix { view, row, batch: 0, period: 0 };
            let shape = Shape { batch: 1, m: 1, n: 1, k };
            let mut rec = Recorder::new(gpu);
            let product = Gemm { layout, shape, alpha: 1.0, add: false };
            gemm_with(&mut rec, family, product, matrix(&a, row_a), matrix(&b, row_b), None, matrix(&out, 1))
                .unwrap();
            rec.finish().unwrap().run().unwrap();
            let found = gpu.read::<f32>(&out).unwrap()[0];
            assert!(error(found) < 5e-6, "{family:?} {layout:?}: {found}, not {exact}");
        }
    }
    for (outer, inner) in [(1, k), (k, 1)] {
        let mut rec = Recorder::new(gpu);
        let [y, sum] = [&a, &out].map(|view| Strided { view, stride: 0 });
        reduce(&mut rec, 1, Axes { outer, m: 1, inner }, y, None, sum, Write::NEW).unwrap();
        rec.finish().unwrap().run().unwrap();
        let found = gpu.read::<f32>(&out).unwrap()[0];
        assert!(error(found) < 5e-6, "a reduction over {outer} × {inner}: {found}, not {exact}");
    }
}

/// A batch of more matrices than a dispatch has workgroups along one axis.
#[test]
fn a_batch_larger_than_a_grid() {
    use curvkit::gpu::Recorder;
    use curvkit::kernels::gemm::{Gemm, Layout, Matrix, Shape, gemm_with};
    let gpu = gpu();
    let (batch, k) = (70_003, 3);
    let (a, b) = (random(1, batch * k), random(2, batch * k));
    let [x, y] = [&a, &b].map(|x| gpu.upload(x).unwrap().slice(0, x.len()));
    let out = gpu.zeros(batch).unwrap().slice(0, batch);
    let matrix = |view, row| Matrix { view, row, batch: row, period: 0 };
    let shape = Shape { batch, m: 1, n: 1, k };
    let product = Gemm { layout: Layout::NT, shape, alpha: 1.0, add: false };
    let mut rec = Recorder::new(gpu);
    gemm_with(&mut rec, Family::Register, product, matrix(&x, k), matrix(&y, k), None, matrix(&out, 1))
        .unwrap();
    rec.finish().unwrap().run().unwrap();
    for (z, found) in gpu.read::<f32>(&out).unwrap().into_iter().enumerate() {
        let expected: f64 = (z * k..(z + 1) * k).map(|i| f64::from(a[i]) * f64::from(b[i])).sum();
        assert!((f64::from(found) - expected).abs() < 1e-6, "product {z} is {found}, not {expected}");
    }
}
