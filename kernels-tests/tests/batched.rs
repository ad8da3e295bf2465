//! Eigenpairs of many operators at once against prescribed spectra and dense eigendecompositions.

use curvkit::Error;
use curvkit::gpu::Gpu;
use curvkit::net::Network;
use curvkit::operators::{Block, Curvature, OperatorFamily, Sequential, Session, SymmetricOperator};
use curvkit::spectral::{FamilyOptions, Which, family_eigenpairs, unobserved};
use kernels_tests::cases::{cases, random};
use kernels_tests::device::{bindings_of, gpu, own_device};
use kernels_tests::f64s;
use kernels_tests::prescribed::{Breaks, Prescribed};
use kernels_tests::spectra::{bulk, dense, largest, spectrum, wanted, wide_bulk};
use nalgebra::{DMatrix, DVector};

/// What is found of one member.
struct Found {
    values: Vec<f64>,
    residuals: Vec<f64>,
    converged: Vec<bool>,
    /// v as columns, `[dim, K]`
    vectors: DMatrix<f64>,
    products: usize,
}

fn found(family: &dyn OperatorFamily, options: &FamilyOptions) -> curvkit::Result<Vec<Found>> {
    let (dim, stride) = (family.dim(), family.stride());
    let mut all = Vec::new();
    family_eigenpairs(
        family,
        options,
        |pairs| {
            assert_eq!(pairs.members.start, all.len(), "members in their order");
            let count = options.count;
            let vectors: Vec<Vec<f32>> = pairs.vectors.iter().map(|v| v.download().unwrap()).collect();
            for i in 0..pairs.members.len() {
                let own = i * count..(i + 1) * count;
                let flat: Vec<f64> = vectors
                    .iter()
                    .flat_map(|v| f64s(&family.unpad(&v[i * stride..][..stride]).unwrap()))
                    .collect();
                all.push(Found {
                    values: pairs.values[own.clone()].to_vec(),
                    residuals: pairs.residuals[own.clone()].to_vec(),
                    converged: pairs.converged[own].to_vec(),
                    vectors: DMatrix::from_column_slice(dim, count, &flat),
                    products: pairs.products,
                });
            }
            Ok(())
        },
        &mut unobserved,
    )?;
    assert_eq!(all.len(), family.count());
    Ok(all)
}

fn several<A: SymmetricOperator>(operators: &[A]) -> Sequential<&A> {
    Sequential::new(operators.iter().collect()).unwrap()
}

/// Asserts what is claimed of the pairs of operators whose products `times` makes in f64.
#[track_caller]
fn check(
    what: &str,
    found: &[Found],
    times: impl Fn(usize, &[f64]) -> Vec<f64>,
    spectra: &[Vec<f64>],
    options: &FamilyOptions,
) {
    for (i, (found, spectrum)) in found.iter().zip(spectra).enumerate() {
        let scale = largest(spectrum);
        assert!(found.converged.iter().all(|&c| c), "{what}, {i}: residuals {:?}", found.residuals);
        let expected = wanted(spectrum, options.which, options.count);
        for (value, expected) in found.values.iter().zip(expected) {
            assert!((value - expected).abs() <= 1e-5 * scale, "{what}, {i}: {value}, expected {expected}");
        }
        let unit = DMatrix::<f64>::identity(options.count, options.count);
        let off = (found.vectors.transpose() * &found.vectors - unit).amax();
        assert!(off < 3e-6, "{what}, {i}: VᵀV is off by {off:e}");
        for (k, x) in found.vectors.column_iter().enumerate() {
            let residual =
                (DVector::from_vec(times(i, x.as_slice())) - found.values[k] * x).norm() / scale.max(1e-30);
            let claimed = found.residuals[k];
            assert!(claimed <= options.tolerance);
            assert!(
                (residual - claimed).abs() <= 2e-6 + 0.02 * residual,
                "{what}, {i}: residual {k} is {residual:e}, claimed {claimed:e}"
            );
        }
    }
}

/// Spectra of all kinds in one family.
fn mixed(gpu: &Gpu, dim: usize) -> Vec<Prescribed> {
    let decades = (0..dim).map(|i| 10f64.powf(-8.0 * i as f64 / dim as f64)).collect();
    let spectra = [
        wide_bulk(dim),
        spectrum(dim, (0..10).map(|i| -20.0 + i as f64), bulk(2, dim, 5.0)),
        spectrum(dim, (0..10).map(|i| 9.0 - i as f64), bulk(2, dim, 1e-3)),
        decades,
        // ends after three steps
        spectrum(dim, [5.0, 4.0, 3.0], vec![-1.0; dim]),
    ];
    spectra.into_iter().map(|values| Prescribed::new(gpu, values, 2)).collect()
}

#[test]
fn each_member_finds_its_own() {
    let dim = 300;
    let operators = mixed(gpu(), dim);
    let spectra: Vec<Vec<f64>> = operators.iter().map(|operator| operator.eigenvalues.clone()).collect();
    for (which, count) in [(Which::Largest, 3), (Which::Smallest, 1), (Which::Magnitude, 3)] {
        let options =
            FamilyOptions { which, tolerance: 1e-5, max_steps: Some(120), ..FamilyOptions::new(count) };
        // the bulk's ends of the wide ones are dense
        let some = if which == Which::Largest { 0..5 } else { 0..3 };
        let (operators, spectra) = (&operators[some.clone()], &spectra[some]);
        let found = found(&several(operators), &options).unwrap();
        println!("{which:?}: {} products each", found[0].products);
        check(&format!("{which:?}"), &found, |i, x| operators[i].times(x), spectra, &options);
    }
}

#[test]
fn small_spaces_and_multiple_eigenvalues() {
    for dim in [1usize, 2, 5, 64, 65] {
        for count in [1, dim.div_ceil(2), dim] {
            let operators = [bulk(1, dim, 2.0), vec![3.0; dim], vec![0.0; dim]]
                .map(|values| Prescribed::new(gpu(), values, 1));
            let spectra: Vec<Vec<f64>> = operators.iter().map(|o| o.eigenvalues.clone()).collect();
            let options = FamilyOptions { tolerance: 1e-5, ..FamilyOptions::new(count) };
            // up to the end: only then all copies are found
            let options = FamilyOptions { max_steps: Some(dim), ..options };
            let found = found(&several(&operators), &options).unwrap();
            check(&format!("{count} of {dim}"), &found, |i, x| operators[i].times(x), &spectra, &options);
        }
    }
}

#[test]
fn a_member_does_not_depend_on_the_others() {
    let on = |gpu: &Gpu, some: std::ops::Range<usize>| {
        let operators = mixed(gpu, 300);
        // no member converges to that, so that all take as many steps
        let options =
            FamilyOptions { tolerance: f64::MIN_POSITIVE, max_steps: Some(30), ..FamilyOptions::new(4) };
        let found = found(&several(&operators[some]), &options).unwrap();
        found.into_iter().map(|f| (f.values, f.residuals, f.vectors)).collect::<Vec<_>>()
    };
    let all = on(gpu(), 0..4);
    assert!(on(gpu(), 0..4) == all, "the same seed");
    assert!(on(gpu(), 0..2) == all[..2]);
    let tiny = own_device(wgpu::Limits::default(), Some(2 * 2 * 38 * 320 * 4));
    assert!(on(&tiny, 0..4) == all, "two at a time");
    let cramped = own_device(bindings_of(3 * 320 * 4), None);
    assert!(on(&cramped, 0..4) == all, "three vectors to a binding");
}

#[test]
fn products_of_several_vectors_each() {
    let operators = mixed(gpu(), 67);
    let family = several(&operators);
    let x = random(5, 3 * 2 * 67);
    let from = Block::upload(gpu(), 128, &family.pad(&x).unwrap()).unwrap();
    let to = Block::upload(gpu(), 128, &[7.0; 6 * 128]).unwrap();
    family.apply(1..4, &from, &to).unwrap();
    let y = to.download().unwrap();
    for (k, x) in x.chunks(67).enumerate() {
        let expected = operators[1 + k / 2].times(&f64s(x));
        kernels_tests::cases::assert_close(&format!("vector {k}"), &y[k * 128..][..67], &expected, 1e-6, 1.0);
        assert!(y[k * 128 + 67..][..61].iter().all(|&padding| padding == 0.0));
    }
    let error = family.apply(1..4, &from, &Block::zeros(gpu(), 128, 5).unwrap()).err().unwrap().to_string();
    assert_eq!(error, "block Y: found shape [5, 128], expected [6, 128]");
}

/// The eigenpairs of every sample's Hessian and GGN, against f64 eigendecompositions.
#[test]
fn curvatures_of_samples() {
    let case = cases().into_iter().find(|case| case.name.starts_with("[7, 13, 1, 4] Gelu")).unwrap();
    let network = Network::new(&case.model).unwrap();
    let problem = Session::new(gpu(), &network, &case.parameters, &case.data, case.loss).unwrap();
    for which in [Curvature::Hessian, Curvature::Ggn] {
        let family = problem.sample_operators(which, &network.all()).unwrap();
        let matrices: Vec<DMatrix<f64>> =
            (0..case.data.len()).map(|p| dense(&case.sample(p), which)).collect();
        let spectra: Vec<Vec<f64>> =
            matrices.iter().map(|matrix| matrix.symmetric_eigenvalues().as_slice().to_vec()).collect();
        let options = FamilyOptions { tolerance: 2e-5, ..FamilyOptions::new(3) };
        let found = found(&family, &options).unwrap();
        println!("{which:?}: {} products each", found[0].products);
        let times = |i: usize, x: &[f64]| (&matrices[i] * DVector::from_column_slice(x)).as_slice().to_vec();
        check(&format!("{which:?} of samples"), &found, times, &spectra, &options);
    }
}

#[test]
fn what_cannot_be_asked_for_is_refused() {
    let operators = [bulk(1, 10, 1.0), bulk(2, 10, 1.0)].map(|values| Prescribed::new(gpu(), values, 0));
    let family = several(&operators);
    let refused = |options: FamilyOptions| found(&family, &options).err().unwrap().to_string();
    assert_eq!(refused(FamilyOptions::new(11)), "count: found 11, expected 1 to 10, the dimension");
    let short = FamilyOptions { max_steps: Some(2), ..FamilyOptions::new(3) };
    assert_eq!(refused(short), "max_steps: found 2, expected at least 3, the eigenpairs");
    assert_eq!(
        Sequential::<Prescribed>::new(vec![]).err().unwrap().to_string(),
        "operators: found 0, expected at least 1"
    );
    let other = Prescribed::new(gpu(), bulk(1, 70, 1.0), 0);
    let error = Sequential::new(vec![&operators[0], &other]).err().unwrap().to_string();
    assert_eq!(error, "coordinates and words of operator 1: found shape [70, 128], expected [10, 64]");

    let operators = [100, 4].map(|made| Breaks::after(made, Prescribed::new(gpu(), bulk(1, 200, 1.0), 0)));
    let error = found(&several(&operators), &FamilyOptions::new(3)).err().unwrap();
    assert!(matches!(error, Error::NotFinite { .. }));
    assert!(error.to_string().starts_with("product 5 of operator 1 is not finite"), "{error}");
}
