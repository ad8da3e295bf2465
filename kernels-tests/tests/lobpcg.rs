//! LOBPCG against prescribed spectra, Lanczos, and dense eigendecompositions of networks' curvature.

use curvkit::Error;
use curvkit::net::Network;
use curvkit::operators::{Block, Curvature, Session, SymmetricOperator};
use curvkit::spectral::{Eigenpairs, LobpcgOptions, Start, Which, lobpcg, unobserved};
use kernels_tests::cases::{cases, random};
use kernels_tests::device::{gpu, own_device};
use kernels_tests::prescribed::{Breaks, Prescribed};
use kernels_tests::spectra::{bits, bulk, check, clusters_of_20, dense, spectrum, vectors, wide_bulk};
use nalgebra::DVector;

const ENDS: [Which; 2] = [Which::Largest, Which::Smallest];

fn find(what: &str, operator: &Prescribed, options: &LobpcgOptions) -> Eigenpairs {
    let pairs = lobpcg(operator, options, None, &mut unobserved).unwrap();
    println!("{what}: {} products", pairs.products);
    let asked = (options.count, options.which, options.tolerance);
    check(
        what,
        operator,
        |x| operator.times(x),
        &operator.eigenvalues,
        asked,
        &pairs,
        1e-5f64.max(0.1 * options.tolerance),
    );
    pairs
}

#[test]
fn prescribed_spectra_are_found() {
    let dim = 700;
    let decades = |last: f64| (0..300).map(move |i| 10f64.powf(last * i as f64 / 300.0)).collect();
    let spectra: [(&str, Vec<f64>, usize, &[Which]); 4] = [
        ("clusters of 20", clusters_of_20(dim), 25, &ENDS),
        (
            "a large negative end",
            spectrum(dim, (0..10).map(|i| -20.0 + i as f64), bulk(2, dim, 5.0)),
            10,
            &ENDS,
        ),
        ("a wide bulk around zero", wide_bulk(dim), 15, &ENDS),
        ("eight decades", decades(-8.0), 20, &[Which::Largest]),
    ];
    for (name, eigenvalues, count, ends) in spectra {
        for &which in ends {
            for reflections in [0, 2] {
                let operator = Prescribed::new(gpu(), eigenvalues.clone(), reflections);
                let options = LobpcgOptions { which, tolerance: 1e-5, ..LobpcgOptions::new(count) };
                find(&format!("{name}, {reflections} reflections, {which:?}"), &operator, &options);
            }
        }
    }
}

/// Products that are combined over hundreds of iterations lose less than a tolerance near rounding.
#[test]
fn carried_products_are_refreshed() {
    let operator = Prescribed::new(gpu(), bulk(2, 400, 1.0), 2);
    let options = LobpcgOptions { tolerance: 1.5e-6, ..LobpcgOptions::new(3) };
    find("a tight tolerance", &operator, &options);
}

/// A tolerance that no product reaches ends the iteration where rounding does.
#[test]
fn a_tolerance_below_rounding_ends_at_the_floor() {
    for (name, eigenvalues, count) in
        [("clusters", clusters_of_20(700), 25), ("a bulk", bulk(2, 400, 1.0), 3), ("all", bulk(4, 9, 1.0), 9)]
    {
        for which in ENDS {
            let operator = Prescribed::new(gpu(), eigenvalues.clone(), 2);
            let find = |tolerance| {
                let options = LobpcgOptions { which, tolerance, ..LobpcgOptions::new(count) };
                lobpcg(&operator, &options, None, &mut unobserved).unwrap()
            };
            let (enough, pairs) = (find(1e-5), find(1e-12));
            let what = format!("{name}, {which:?}");
            println!("{what}: {} products, {} for 1e-5; {:?}", pairs.products, enough.products, pairs.floor);
            assert!(pairs.products <= 3 * enough.products + 300, "{what}: {} products", pairs.products);
            assert!((2e-8..2e-6).contains(&pairs.floor.unwrap()), "{what}: {:?}", pairs.residuals);
            assert_eq!(enough.floor, None, "{what}");
        }
    }
}

#[test]
fn a_single_pair() {
    let operator = Prescribed::new(gpu(), wide_bulk(1000), 2);
    for which in ENDS {
        let options = LobpcgOptions { which, tolerance: 1e-5, ..LobpcgOptions::new(1) };
        find(&format!("one, {which:?}"), &operator, &options);
    }
}

#[test]
fn small_spaces() {
    for dim in [1usize, 2, 5, 9, 64, 65] {
        for which in ENDS {
            for count in [1, dim.div_ceil(2), dim.saturating_sub(1).max(1), dim] {
                let operator = Prescribed::new(gpu(), bulk(dim as u64, dim, 2.0), 1);
                let options = LobpcgOptions { which, tolerance: 1e-5, ..LobpcgOptions::new(count) };
                let pairs = find(&format!("{count} of {dim}, {which:?}"), &operator, &options);
                assert!(pairs.complete || count + 4 < dim, "{count} of {dim}: the basis spans the space");
            }
        }
    }
}

#[test]
fn a_warm_start_takes_fewer_products() {
    let (dim, count) = (2000, 20);
    let outliers = (0..60).map(|i| 1.0 / (1.0 + i as f64));
    let operator = Prescribed::new(gpu(), spectrum(dim, outliers, bulk(3, dim, 0.01)), 2);
    let options = LobpcgOptions { tolerance: 1e-3, ..LobpcgOptions::new(count) };
    let pairs = find("cold", &operator, &options);
    let found = operator.unpad(&pairs.vectors.download().unwrap()).unwrap();
    // as of a matrix nearby: each vector off by a random one of length 0.01
    let noise = random(1, count * dim).into_iter().map(|x| 0.01 * (3.0 / dim as f32).sqrt() * x);
    let near = found.iter().zip(noise).map(|(v, noise)| v + noise).collect();
    let warm =
        find("warm", &operator, &LobpcgOptions { start: Start::Flat(near), ..options.clone() }).products;
    assert!(3 * warm < 2 * pairs.products, "{warm} products warm, {} cold", pairs.products);
    // the start block's products and those that show that it has converged
    let again =
        find("converged", &operator, &LobpcgOptions { start: Start::Flat(found), ..options }).products;
    assert_eq!(again, count + 4 + count);
}

/// `Y = f(A) X`, product by product in f64.
fn function_of(
    operator: &Prescribed,
    f: impl Fn(f64) -> f64,
) -> impl Fn(&Block, &Block) -> curvkit::Result<()> {
    let mapped = operator.map(f);
    move |x: &Block, y: &Block| mapped.apply(x, y)
}

#[test]
fn an_exact_inverse_takes_few_iterations() {
    // six decades, whose smallest end takes thousands of products without
    let eigenvalues: Vec<f64> = (0..600).map(|i| 10f64.powf(-6.0 + i as f64 / 100.0)).collect();
    let operator = Prescribed::new(gpu(), eigenvalues, 2);
    let count = 5;
    let options = LobpcgOptions {
        which: Which::Smallest,
        tolerance: 1e-5,
        max_products: Some(150),
        ..LobpcgOptions::new(count)
    };
    let inverse = function_of(&operator, |lambda| 1.0 / lambda);
    let with = lobpcg(&operator, &options, Some(&inverse), &mut unobserved).unwrap();
    assert_eq!(with.converged, [true; 5]);
    for (i, (value, x)) in with.values.iter().zip(vectors(&operator, &with).column_iter()).enumerate() {
        assert!((value - operator.eigenvalues[i]).abs() < 1e-6, "eigenvalue {i} is {value}");
        let residual = (DVector::from_vec(operator.times(x.as_slice())) - *value * x).norm();
        // by the largest eigenvalue that was seen, which is no more than 1
        assert!(residual < 1e-5, "residual {i} is {residual:e}");
    }
    let without = lobpcg(&operator, &options, None, &mut unobserved).unwrap();
    assert!(without.converged.contains(&false) && without.products <= 150);
    println!("an exact inverse: {} products", with.products);
    assert!(with.products < 10 * count);
}

#[test]
fn a_rank_deficient_start() {
    let (dim, count) = (500, 6);
    let operator =
        Prescribed::new(gpu(), spectrum(dim, [9.0, 8.0, 7.0, 6.0, 5.0, 4.0, 3.0], bulk(6, dim, 1.0)), 1);
    let x = random(1, dim);
    let twice: Vec<f32> = x.iter().map(|x| 2.0 * x).collect();
    let starts = [
        [x.clone(), twice.clone(), x.clone(), random(2, dim)].concat(),
        vec![0.0; 3 * dim],
        [x, twice].concat(),
    ];
    for (i, start) in starts.into_iter().enumerate() {
        let options =
            LobpcgOptions { tolerance: 1e-5, start: Start::Flat(start), ..LobpcgOptions::new(count) };
        find(&format!("start {i}"), &operator, &options);
    }
}

#[test]
fn more_pairs_than_the_rank() {
    let dim = 300;
    let operator = Prescribed::new(gpu(), spectrum(dim, [4.0, 3.0, 3.0, 1.0], vec![0.0; dim]), 2);
    find("rank 4", &operator, &LobpcgOptions { tolerance: 1e-5, ..LobpcgOptions::new(20) });
    let zero = Prescribed::new(gpu(), vec![0.0; 70], 0);
    let pairs = lobpcg(&zero, &LobpcgOptions::new(5), None, &mut unobserved).unwrap();
    assert_eq!(pairs.converged, [true; 5]);
    assert_eq!((pairs.values, pairs.residuals), (vec![0.0; 5], vec![0.0; 5]));
}

#[test]
fn what_does_not_converge_within_the_budget_is_marked() {
    let positive = bulk(2, 2000, 1.0).into_iter().map(|x| 1.0 + x).collect();
    let operator = Prescribed::new(gpu(), positive, 2);
    let options = LobpcgOptions { tolerance: 1e-5, max_products: Some(120), ..LobpcgOptions::new(10) };
    let pairs = lobpcg(&operator, &options, None, &mut unobserved).unwrap();
    assert!(pairs.products <= 120 && !pairs.complete && pairs.converged.contains(&false));
    let v = vectors(&operator, &pairs);
    for (i, x) in v.column_iter().enumerate() {
        let ax = DVector::from_vec(operator.times(x.as_slice()));
        let residual = (ax - pairs.values[i] * x).norm() / pairs.values[0];
        assert!((residual - pairs.residuals[i]).abs() < 1e-5 + 0.01 * residual, "residual {i}");
        assert_eq!(pairs.converged[i], pairs.residuals[i] <= 1e-5);
    }
}

#[test]
fn the_same_seed_gives_the_same_bits() {
    let operator = Prescribed::new(gpu(), clusters_of_20(400), 1);
    let made = |seed| {
        bits(
            &lobpcg(&operator, &LobpcgOptions { seed, ..LobpcgOptions::new(7) }, None, &mut unobserved)
                .unwrap(),
        )
    };
    assert_eq!(made(3), made(3));
    assert_ne!(made(3), made(4));
}

#[test]
fn a_basis_on_the_host_finds_the_same() {
    let dim = 700;
    // a vector takes 2,816 bytes, the basis more than half of the budget
    let tiny = own_device(wgpu::Limits::default(), Some(150_000));
    let options = LobpcgOptions { tolerance: 1e-5, ..LobpcgOptions::new(20) };
    let [here, there] = [gpu(), &tiny].map(|gpu| {
        let operator = Prescribed::new(gpu, clusters_of_20(dim), 2);
        find("a basis on either side", &operator, &options).values
    });
    for (a, b) in here.iter().zip(&there) {
        assert!((a - b).abs() < 5e-6, "{a} and {b}");
    }
}

#[test]
fn what_cannot_be_asked_for_is_refused() {
    let operator = Prescribed::new(gpu(), vec![1.0; 10], 0);
    let refused = |change: &dyn Fn(&mut LobpcgOptions)| {
        let mut options = LobpcgOptions::new(3);
        change(&mut options);
        lobpcg(&operator, &options, None, &mut unobserved).err().unwrap().to_string()
    };
    assert_eq!(refused(&|o| o.count = 11), "count: found 11, expected 1 to 10, the dimension");
    assert_eq!(refused(&|o| o.tolerance = f64::NAN), "tolerance: found NaN, expected a number above 0");
    assert_eq!(
        refused(&|o| o.which = Which::Magnitude),
        "which: found magnitude, expected largest or smallest"
    );
    let long = |o: &mut LobpcgOptions| o.start = Start::Flat(vec![1.0; 40]);
    assert_eq!(refused(&long), "start: found shape [40], expected [k, 10] with k from 1 to 3");
}

#[test]
fn a_product_that_is_not_finite_is_an_error() {
    // the start block takes seven
    let operator = Breaks::after(8, Prescribed::new(gpu(), bulk(1, 200, 1.0), 0));
    let error = lobpcg(&operator, &LobpcgOptions::new(3), None, &mut unobserved).err().unwrap();
    assert!(matches!(error, Error::NotFinite { .. }));
    let expected = "product 9 of LOBPCG is not finite: the operator overflows, or holds what is no number";
    assert_eq!(error.to_string(), expected);
}

#[test]
fn curvature_of_an_mlp() {
    let case = cases().into_iter().find(|case| case.name.starts_with("[17, 33, 10] Tanh bias")).unwrap();
    let network = Network::new(&case.model).unwrap();
    let problem = Session::new(gpu(), &network, &case.parameters, &case.data, case.loss).unwrap();
    for curvature in [Curvature::Hessian, Curvature::Ggn] {
        let dense = dense(&case, curvature);
        let eigenvalues = dense.symmetric_eigenvalues().as_slice().to_vec();
        let operator = problem.operator(curvature, &network.all()).unwrap();
        let options = LobpcgOptions { tolerance: 2e-5, ..LobpcgOptions::new(20) };
        let pairs = lobpcg(&operator, &options, None, &mut unobserved).unwrap();
        let what = format!("{curvature:?}");
        println!("{what}: {} products", pairs.products);
        let times = |x: &[f64]| (&dense * DVector::from_column_slice(x)).as_slice().to_vec();
        check(&what, &operator, times, &eigenvalues, (20, Which::Largest, 2e-5), &pairs, 1e-5);
    }
}
