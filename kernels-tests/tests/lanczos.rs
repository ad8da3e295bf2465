//! Block Lanczos against prescribed spectra and against dense eigendecompositions of networks' curvature.

use std::sync::atomic::{AtomicUsize, Ordering};

use curvkit::Error;
use curvkit::data::TensorFile;
use curvkit::gpu::Gpu;
use curvkit::net::Network;
use curvkit::operators::{Block, Curvature, DenseMatrix, Session, SymmetricOperator};
use curvkit::spectral::{Eigenpairs, Lanczos, LanczosOptions, Start, Which, eigenpairs, unobserved};
use kernels_tests::cases::network_cases;
use kernels_tests::device::{gpu, own_device};
use kernels_tests::f64s;
use kernels_tests::prescribed::{Breaks, Prescribed};
use kernels_tests::spectra::{
    bits, bulk, check, check_spans, clusters_of_20, decomposed, dense, spectrum, vectors, wide_bulk,
};
use nalgebra::{DMatrix, DVector};

const ALL: [Which; 3] = [Which::Largest, Which::Smallest, Which::Magnitude];

/// A device whose memory budget leaves a basis of 700 coordinates 150 vectors, so that it is restarted.
fn tight() -> Gpu {
    own_device(wgpu::Limits::default(), Some(2 * 150 * 704 * 4))
}

/// Asserts everything that is claimed of pairs, and that nothing is missed.
#[track_caller]
fn check_complete(
    what: &str,
    operator: &dyn SymmetricOperator,
    times: impl Fn(&[f64]) -> Vec<f64>,
    spectrum: &[f64],
    options: &LanczosOptions,
    pairs: &Eigenpairs,
) {
    assert!(pairs.complete, "{what}: not complete");
    let asked = (options.count, options.which, options.tolerance);
    check(what, operator, times, spectrum, asked, pairs, 1e-5);
}

fn find(what: &str, operator: &Prescribed, options: LanczosOptions) -> Eigenpairs {
    let pairs = eigenpairs(operator, options.clone(), &mut unobserved).unwrap();
    println!("{what}: {} products", pairs.products);
    check_complete(what, operator, |x| operator.times(x), &operator.eigenvalues, &options, &pairs);
    pairs
}

#[test]
fn prescribed_spectra_are_found() {
    let (gpu, dim) = (tight(), 700);
    let spectra = [
        ("clusters of 20", clusters_of_20(dim), 25),
        ("a large negative end", spectrum(dim, (0..10).map(|i| -20.0 + i as f64), bulk(2, dim, 5.0)), 10),
        ("a wide bulk around zero", wide_bulk(dim), 15),
        ("eight decades", (0..300).map(|i| 10f64.powf(-8.0 * i as f64 / 300.0)).collect(), 20),
    ];
    for (name, eigenvalues, count) in spectra {
        for (reflections, which) in ALL.into_iter().flat_map(|which| [(0, which), (2, which)]) {
            let operator = Prescribed::new(&gpu, eigenvalues.clone(), reflections);
            let options =
                LanczosOptions { which, tolerance: 1e-5, block: Some(4), ..LanczosOptions::new(count) };
            find(&format!("{name}, {reflections} reflections, {which:?}"), &operator, options);
        }
    }
}

#[test]
fn dense_matrices_are_diagonalised() {
    let dim = 131;
    let operator = Prescribed::new(gpu(), bulk(9, dim, 3.0), 3);
    let mut entries = Vec::new();
    for i in 0..dim {
        let mut unit = vec![0.0; dim];
        unit[i] = 1.0;
        entries.extend(operator.times(&unit));
    }
    let matrix: Vec<f32> = (0..dim * dim)
        .map(|e| 0.5 * (entries[e] + entries[e % dim * dim + e / dim]))
        .map(|entry| entry as f32)
        .collect();
    let matrix = DenseMatrix::new(gpu(), dim, &matrix).unwrap();
    for which in ALL {
        for (count, block) in [(1, 1), (7, 3), (40, 16), (131, 5), (131, 200), (3, 200)] {
            let what = format!("{count} of {dim} by {block}, {which:?}");
            let options =
                LanczosOptions { which, tolerance: 1e-5, block: Some(block), ..LanczosOptions::new(count) };
            let pairs = eigenpairs(&matrix, options.clone(), &mut unobserved).unwrap();
            check_complete(&what, &matrix, |x| operator.times(x), &operator.eigenvalues, &options, &pairs);
        }
    }
}

#[test]
fn four_thousand_dimensions() {
    let dim = 4000;
    let operator = Prescribed::new(gpu(), wide_bulk(dim), 3);
    let options = LanczosOptions { block: Some(8), tolerance: 1e-5, ..LanczosOptions::new(50) };
    let pairs = find("4,000 dimensions", &operator, options.clone());
    assert!(pairs.products < 500, "{} products for 50 pairs", pairs.products);
    // the projected matrix is large enough for its solver to use every core: the bits are still the same
    let more = || {
        bits(
            &eigenpairs(&operator, LanczosOptions { count: 90, ..options.clone() }, &mut unobserved).unwrap(),
        )
    };
    assert_eq!(more(), more());
    find("4,000 dimensions", &operator, LanczosOptions { which: Which::Smallest, count: 20, ..options });
}

/// Whichever of the multiple eigenvalues the start block has no part in, they are found: rounding does not
/// bring them in, because on a diagonal matrix it does not mix coordinates.
#[test]
fn no_copy_is_missed() {
    let (gpu, dim) = (tight(), 600);
    for (multiplicity, block) in [(20, 1), (20, 4), (7, 4), (33, 16)] {
        let values = spectrum(dim, std::iter::repeat_n(2.0, multiplicity), bulk(5, dim, 1.0));
        let operator = Prescribed::new(&gpu, values, 0);
        for count in [5, multiplicity, multiplicity + 5] {
            let what = format!("{count}, multiplicity {multiplicity}, block {block}");
            let options =
                LanczosOptions { block: Some(block), tolerance: 1e-5, ..LanczosOptions::new(count) };
            find(&what, &operator, options);
        }
    }
}

#[test]
fn what_the_start_block_is_orthogonal_to_is_found() {
    for (dim, block) in [(500, 1), (500, 3), (30_000, 2)] {
        let values = spectrum(dim, [9.0, -8.0, 7.0, 6.0, 5.0], bulk(6, dim, 1.0));
        let operator = Prescribed::new(gpu(), values, 0);
        // no part of the two outermost eigenvectors, nor of most of the others
        let mut start = vec![0.0; block * dim];
        for k in 0..block {
            for i in [2, 3, 4, 20 + k, 30 + k, 40 + k] {
                start[k * dim + i] = 1.0 + (i * k) as f32;
            }
        }
        for (which, count) in [(Which::Largest, 4), (Which::Smallest, 1), (Which::Magnitude, 4)] {
            let options = LanczosOptions {
                which,
                tolerance: 1e-5,
                block: Some(block),
                start: Start::Flat(start.clone()),
                ..LanczosOptions::new(count)
            };
            find(&format!("an unlucky start of {block} in {dim}, {which:?}"), &operator, options);
        }
    }
}

#[test]
fn more_pairs_than_the_rank() {
    let dim = 400;
    let operator = Prescribed::new(gpu(), spectrum(dim, [4.0, 3.0, 3.0, 1.0], vec![0.0; dim]), 2);
    for which in [Which::Largest, Which::Magnitude] {
        for block in [1, 8] {
            let options = LanczosOptions { which, block: Some(block), ..LanczosOptions::new(30) };
            let pairs = find(&format!("rank 4, block {block}, {which:?}"), &operator, options);
            assert!(pairs.values[4..].iter().all(|value| value.abs() < 1e-6));
        }
    }
    let zero = Prescribed::new(gpu(), vec![0.0; 70], 0);
    let pairs = eigenpairs(&zero, LanczosOptions::new(5), &mut unobserved).unwrap();
    assert!(pairs.complete && pairs.converged == [true; 5]);
    assert_eq!((pairs.values, pairs.residuals), (vec![0.0; 5], vec![0.0; 5]));
}

#[test]
fn small_spaces() {
    for dim in [1usize, 2, 5, 64, 65] {
        for which in ALL {
            for count in [1, dim.div_ceil(2), dim] {
                let operator = Prescribed::new(gpu(), bulk(dim as u64, dim, 2.0), 1);
                let options = LanczosOptions { which, tolerance: 1e-5, ..LanczosOptions::new(count) };
                find(&format!("{count} of {dim}, {which:?}"), &operator, options);
            }
        }
    }
}

#[test]
fn what_does_not_converge_within_the_budget_is_marked() {
    let operator = Prescribed::new(gpu(), clusters_of_20(2000), 2);
    let options = |max_products| LanczosOptions {
        block: Some(4),
        tolerance: 1e-5,
        max_products: Some(max_products),
        ..LanczosOptions::new(30)
    };
    let pairs = eigenpairs(&operator, options(150), &mut unobserved).unwrap();
    assert!(pairs.products <= 150 && !pairs.complete);
    assert_eq!((pairs.values.len(), pairs.vectors.len()), (30, 30));
    assert!(pairs.converged.contains(&false));
    let v = vectors(&operator, &pairs);
    for (i, x) in v.column_iter().enumerate() {
        let ax = DVector::from_vec(operator.times(x.as_slice()));
        let residual = (ax - pairs.values[i] * x).norm() / 5.0;
        assert!((residual - pairs.residuals[i]).abs() < 1e-5 + 0.01 * residual, "residual {i}");
        assert_eq!(pairs.converged[i], pairs.residuals[i] <= 1e-5);
    }
    // too few products for as many vectors: those that there are
    let pairs = eigenpairs(&operator, options(1), &mut unobserved).unwrap();
    assert_eq!((pairs.values.len(), pairs.vectors.len(), pairs.products, pairs.complete), (4, 4, 8, false));
}

/// A tolerance that no product reaches ends the iteration where rounding does, and the pairs that reach it count.
#[test]
fn a_tolerance_below_rounding_ends_at_the_floor() {
    let of = |eigenvalues| Prescribed::new(gpu(), eigenvalues, 2);
    let decades = (0..300).map(|i| 10f64.powf(-8.0 * i as f64 / 300.0)).collect();
    for (name, operator, which) in [
        ("clusters", of(clusters_of_20(700)), Which::Smallest),
        ("a wide bulk", of(wide_bulk(1000)), Which::Largest),
        ("magnitude", of(wide_bulk(600)), Which::Magnitude),
        ("decades", of(decades), Which::Largest),
    ] {
        let find = |tolerance| {
            eigenpairs(
                &operator,
                LanczosOptions { which, tolerance, ..LanczosOptions::new(5) },
                &mut unobserved,
            )
            .unwrap()
        };
        let (enough, pairs) = (find(1e-5), find(1e-12));
        println!("{name}: {} products, {} for 1e-5; {:?}", pairs.products, enough.products, pairs.residuals);
        assert!(pairs.complete && pairs.products <= 2 * enough.products + 60, "{name}: {}", pairs.products);
        let floor = pairs.floor.unwrap();
        assert_eq!(floor, pairs.residuals.iter().copied().fold(0.0, f64::max));
        assert!((2e-8..1e-6).contains(&floor), "{name}: {floor}");
        assert_eq!(enough.floor, None);
    }
    // of the zero matrix, whose products are exact
    let zero = eigenpairs(
        &of(vec![0.0; 70]),
        LanczosOptions { tolerance: 1e-12, ..LanczosOptions::new(2) },
        &mut unobserved,
    );
    let zero = zero.unwrap();
    assert_eq!((zero.converged, zero.floor, zero.scale), (vec![true; 2], None, 0.0));
}

#[test]
fn a_resumed_run_is_an_uninterrupted_one() {
    let (gpu, dim) = (tight(), 900);
    // with missed copies, so that there is a sequence to be resumed within, and restarts
    let values = spectrum(dim, [1.1; 9], bulk(5, dim, 1.0));
    let operator = Prescribed::new(&gpu, values, 0);
    let options = LanczosOptions { block: Some(4), tolerance: 1e-5, seed: 3, ..LanczosOptions::new(12) };
    let whole = bits(&eigenpairs(&operator, options.clone(), &mut unobserved).unwrap());
    assert_eq!(
        bits(&eigenpairs(&operator, options.clone(), &mut unobserved).unwrap()),
        whole,
        "the same seed twice"
    );
    let seeded = LanczosOptions { seed: 4, ..options.clone() };
    assert_ne!(bits(&eigenpairs(&operator, seeded, &mut unobserved).unwrap()), whole, "another seed");

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.safetensors");
    let mut lanczos = Lanczos::new(&operator, options.clone()).unwrap();
    lanczos.save(&path, &[]).unwrap();
    let mut steps = 0;
    loop {
        if steps % 5 == 0 {
            lanczos =
                Lanczos::resume(&operator, LanczosOptions { block: None, ..options.clone() }, &path).unwrap();
        }
        let more = lanczos.step().unwrap();
        lanczos.save(&path, &[]).unwrap();
        steps += 1;
        if !more {
            break;
        }
    }
    assert!(steps > 30, "{steps} steps");
    let ended = Lanczos::resume(&operator, options.clone(), &path).unwrap();
    assert_eq!(ended.progress(), lanczos.progress());
    assert_eq!(bits(&lanczos.finish().unwrap()), whole);
    assert_eq!(bits(&ended.finish().unwrap()), whole);

    let refused = |operator: &Prescribed, options: LanczosOptions| {
        let error = Lanczos::resume(operator, options, &path).err().unwrap().to_string();
        error.replace(&path.display().to_string(), "FILE")
    };
    let other = |change: &dyn Fn(&mut LanczosOptions)| {
        let mut options = options.clone();
        change(&mut options);
        refused(&operator, options)
    };
    assert_eq!(other(&|o| o.count = 13), "FILE: count: found a state of 12, expected 13");
    assert_eq!(other(&|o| o.seed = 4), "FILE: seed: found a state of 3, expected 4");
    assert_eq!(other(&|o| o.block = Some(5)), "FILE: block: found a state of 4, expected 5");
    assert_eq!(
        other(&|o| o.which = Which::Smallest),
        "FILE: which: found a state of Largest, expected Smallest"
    );
    assert_eq!(other(&|o| o.tolerance = 1e-4), "FILE: tolerance: found a state of 0.00001, expected 0.0001");
    let shorter = Prescribed::new(&gpu, operator.eigenvalues[..800].to_vec(), 0);
    assert_eq!(refused(&shorter, options.clone()), "FILE: dimension: found a state of 900, expected 800");
    let scaled = Prescribed::new(&gpu, operator.eigenvalues.iter().map(|x| 1.01 * x).collect(), 0);
    let error = refused(&scaled, options.clone());
    assert!(error.starts_with("FILE: a state of another operator: vᵀAv is 1.1"), "{error}");
    curvkit::data::write_tensors(&path, &[("x", &[1], &[1.0])], &[]).unwrap();
    assert_eq!(refused(&operator, options.clone()), "FILE: not the state of a Lanczos iteration");
}

/// `A V = V T + P S` with `T = VᵀAV` and `[V P]` orthonormal, before the first restart and after several.
#[test]
fn the_recurrence_holds() {
    let dim = 700;
    let operator = Prescribed::new(&tight(), bulk(7, dim, 1.0), 2);
    let options = LanczosOptions { block: Some(5), tolerance: 1e-6, ..LanczosOptions::new(20) };
    let mut lanczos = Lanczos::new(&operator, options).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.safetensors");
    let mut restarts = 0;
    let mut before = 0;
    for step in 1..=70 {
        assert!(lanczos.step().unwrap());
        let now = lanczos.basis_len();
        restarts += usize::from(now < before);
        before = now;
        if ![1, 20, 45, 70].contains(&step) {
            continue;
        }
        lanczos.save(&path, &[]).unwrap();
        let file = TensorFile::read(&path).unwrap();
        let (vectors, n) = (file.shape("basis").unwrap()[0], file.shape("t").unwrap()[0]);
        let stride = operator.stride();
        let flat = f64s(&operator.unpad(&file.f32("basis", &[vectors, stride]).unwrap()).unwrap());
        let basis = DMatrix::from_column_slice(dim, vectors, &flat);
        let t = DMatrix::from_row_slice(n, n, &file.f64("t", &[n, n]).unwrap());
        let s = DMatrix::from_row_slice(vectors - n, n, &file.f64("s", &[vectors - n, n]).unwrap());
        let (v, p) = (basis.columns(0, n), basis.columns(n, vectors - n));
        let products: Vec<f64> = v.column_iter().flat_map(|v| operator.times(v.as_slice())).collect();
        let av = DMatrix::from_column_slice(dim, n, &products);
        let orthonormal = (basis.transpose() * &basis - DMatrix::<f64>::identity(vectors, vectors)).amax();
        assert!(orthonormal < 3e-6, "step {step}: [V P] is off by {orthonormal:e}");
        let rest = (&av - v * &t - p * &s).amax();
        assert!(rest < 1e-6, "step {step}: A V − V T − P S is {rest:e}");
        let projected = (v.transpose() * &av - &t).amax();
        assert!(projected < 2e-6, "step {step}: VᵀAV − T is {projected:e}");
    }
    assert!(restarts >= 3, "{restarts} restarts");
}

#[test]
fn a_basis_on_the_host_finds_the_same() {
    let dim = 700;
    // a vector takes 2,816 bytes, the basis more than half of the budget, a window twelve vectors
    let tiny = own_device(wgpu::Limits::default(), Some(280_000));
    let find_on = |gpu: &Gpu| {
        let operator = Prescribed::new(gpu, clusters_of_20(dim), 2);
        let options = LanczosOptions { block: Some(4), tolerance: 1e-5, ..LanczosOptions::new(30) };
        let pairs = find("a basis on either side", &operator, options);
        (pairs.vectors.on_device(), pairs)
    };
    let ((near, here), (far, there)) = (find_on(gpu()), find_on(&tiny));
    assert!(near && !far);
    for (a, b) in here.values.iter().zip(&there.values) {
        assert!((a - b).abs() < 5e-6, "{a} and {b}");
    }
}

#[test]
fn what_cannot_be_asked_for_is_refused() {
    let operator = Prescribed::new(gpu(), vec![1.0; 10], 0);
    let refused = |change: &dyn Fn(&mut LanczosOptions)| {
        let mut options = LanczosOptions::new(3);
        change(&mut options);
        Lanczos::new(&operator, options).err().unwrap().to_string()
    };
    assert_eq!(refused(&|o| o.count = 0), "count: found 0, expected 1 to 10, the dimension");
    assert_eq!(refused(&|o| o.count = 11), "count: found 11, expected 1 to 10, the dimension");
    for tolerance in [0.0, -1e-3, f64::NAN, f64::INFINITY] {
        let expected = format!("tolerance: found {tolerance}, expected a number above 0");
        assert_eq!(refused(&|o| o.tolerance = tolerance), expected);
    }
    assert_eq!(refused(&|o| o.block = Some(0)), "block: found 0, expected at least 1");
    for len in [0, 9, 15] {
        let expected = format!("start: found shape [{len}], expected [k, 10] with k from 1 to 10");
        assert_eq!(refused(&|o| o.start = Start::Flat(vec![1.0; len])), expected);
    }
    let wide = |o: &mut LanczosOptions| {
        (o.block, o.start) = (Some(2), Start::Flat(vec![1.0; 30]));
    };
    assert_eq!(refused(&wide), "start: found shape [30], expected [k, 10] with k from 1 to 2");
    let error = refused(&|o| o.start = Start::Flat([vec![1.0; 9], vec![f32::NAN]].concat()));
    assert_eq!(error, "start is not finite: it holds NaN");
}

#[test]
fn a_product_that_is_not_finite_is_an_error() {
    let operator = Breaks::after(9, Prescribed::new(gpu(), bulk(1, 200, 1.0), 0));
    let options = LanczosOptions { block: Some(4), ..LanczosOptions::new(3) };
    let error = eigenpairs(&operator, options, &mut unobserved).err().unwrap();
    assert!(matches!(error, Error::NotFinite { .. }));
    let expected = "product 10 of the Lanczos iteration is not finite: \
        the operator overflows, or holds what is no number";
    assert_eq!(error.to_string(), expected);
}

/// The 20 largest and 5 smallest eigenpairs of all three matrices of a network of nearly 3,000 parameters.
fn agrees_with_a_dense_eigendecomposition(name: &str) {
    let case =
        network_cases().into_iter().find(|case| case.name.starts_with(name)).expect("a case of that name");
    let network = Network::new(&case.model).unwrap();
    let problem = Session::new(gpu(), &network, &case.parameters, &case.data, case.loss).unwrap();
    for curvature in [Curvature::Hessian, Curvature::Ggn, Curvature::NoiseCovariance] {
        let operator = problem.operator(curvature, &network.all()).unwrap();
        let dense = dense(&case, curvature);
        let (mut spectrum, mut exact) = decomposed(&dense);
        for (which, count) in [(Which::Smallest, 5), (Which::Largest, 20)] {
            let options = LanczosOptions { which, tolerance: 2e-5, ..LanczosOptions::new(count) };
            let pairs = eigenpairs(&operator, options.clone(), &mut unobserved).unwrap();
            let what = format!("{name}, {curvature:?}, {which:?}");
            let times = |x: &[f64]| (&dense * DVector::from_column_slice(x)).as_slice().to_vec();
            check_complete(&what, &operator, times, &spectrum, &options, &pairs);
            let spans = check_spans(&what, &operator, &spectrum, &exact, &pairs);
            println!("{what}: {} products, {spans} spans", pairs.products);
            // the smallest of a matrix of lower rank are any vectors of its null space
            assert!(
                spans > 0 || (which == Which::Smallest && curvature != Curvature::Hessian),
                "{what}: no span"
            );
            spectrum.reverse();
            exact = DMatrix::from_fn(exact.nrows(), exact.ncols(), |i, j| exact[(i, exact.ncols() - 1 - j)]);
        }
    }
}

#[test]
fn curvature_of_an_mlp() {
    agrees_with_a_dense_eigendecomposition("MLP");
}

#[test]
fn curvature_of_a_convolutional_network() {
    agrees_with_a_dense_eigendecomposition("LeNet");
}

#[test]
fn curvature_of_a_residual_network() {
    agrees_with_a_dense_eigendecomposition("ResNet");
}

#[test]
fn curvature_of_a_transformer() {
    agrees_with_a_dense_eigendecomposition("Transformer");
}

/// An operator that counts how often it is applied.
struct Counted {
    operator: Prescribed,
    description: Option<String>,
    applied: AtomicUsize,
}

impl SymmetricOperator for Counted {
    fn gpu(&self) -> &Gpu {
        self.operator.gpu()
    }

    fn dim(&self) -> usize {
        self.operator.dim()
    }

    fn stride(&self) -> usize {
        self.operator.stride()
    }

    fn apply(&self, x: &Block, y: &Block) -> curvkit::Result<()> {
        self.applied.fetch_add(1, Ordering::Relaxed);
        self.operator.apply(x, y)
    }

    fn description(&self) -> Option<String> {
        self.description.clone()
    }
}

#[test]
fn a_width_is_measured_once() {
    let counted = |description: Option<&str>| Counted {
        operator: Prescribed::new(gpu(), bulk(1, 90, 1.0), 0),
        description: description.map(String::from),
        applied: AtomicUsize::new(0),
    };
    let made =
        |operator: &Counted| bits(&eigenpairs(operator, LanczosOptions::new(4), &mut unobserved).unwrap());
    // whatever an earlier run kept, or this one measures
    let described = Some("an operator of the tests");
    Lanczos::new(&counted(described), LanczosOptions::new(4)).unwrap();
    let operator = counted(described);
    Lanczos::new(&operator, LanczosOptions::new(4)).unwrap();
    assert_eq!(operator.applied.load(Ordering::Relaxed), 0, "not measured a second time");
    assert_eq!(made(&counted(described)), made(&counted(described)));
    // without a description nothing is measured
    let operator = counted(None);
    let options = LanczosOptions::new(4);
    Lanczos::new(&operator, options.clone()).unwrap();
    assert_eq!(operator.applied.load(Ordering::Relaxed), 0);
    let eight = eigenpairs(&operator, LanczosOptions { block: Some(8), ..options }, &mut unobserved).unwrap();
    assert_eq!(made(&operator), bits(&eight));
}
