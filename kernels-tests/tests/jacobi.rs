//! The batched Jacobi kernel against its f64 twin, and a layer's per-sample spectra against explicit
//! per-sample Hessians.

use curvkit::Error;
use curvkit::gpu::{Gpu, GpuOptions, LimitsChoice, Recorder};
use curvkit::kernels::jacobi::{self, Eigenpairs};
use curvkit::net::{Layer, Loss, Network};
use curvkit::operators::{LayerMoments, Session};
use kernels_tests::cases::{assert_close, cases, random};
use kernels_tests::{f64s, reference, twins};
use nalgebra::{DMatrix, DVector};

fn gpu() -> Gpu {
    // all that the kernel may use is what every WebGPU device has
    Gpu::new(&GpuOptions { limits: LimitsChoice::WebGpuDefaults, ..GpuOptions::from_env() }).unwrap()
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    /// Uniform entries, not quite symmetric: the symmetric part is decomposed.
    Uniform,
    /// Uniform, times a power of ten.
    Scaled(i32),
    Diagonal,
    Zero,
    Identity,
    /// Eigenvalues ±1 and 0 in turn, in a random basis.
    Repeated,
    /// Products of that many random vectors, each half as long as the one before.
    Rank(usize),
    /// Eigenvalues over eight decades, of both signs, in a random basis.
    Graded,
    /// All entries equal.
    Ones,
}

use Kind::*;

/// A [d,d]
fn matrix(kind: Kind, d: usize, seed: u64) -> Vec<f32> {
    let r = random(seed, d * d);
    let in_a_basis = |value: fn(usize) -> f64| {
        let q = DMatrix::from_row_slice(d, d, &f64s(&r)).qr().q();
        let spectrum = DMatrix::from_diagonal(&DVector::from_fn(d, |m, _| value(m)));
        let a = &q * spectrum * q.transpose();
        (0..d * d).map(|at| a[(at / d, at % d)] as f32).collect()
    };
    let entries = |entry: &dyn Fn(usize, usize) -> f32| (0..d * d).map(|at| entry(at / d, at % d)).collect();
    match kind {
        Uniform => r,
        Scaled(power) => r.iter().map(|v| v * 10f32.powi(power)).collect(),
        Diagonal => entries(&|i, k| if i == k { r[i] } else { 0.0 }),
        Zero => vec![0.0; d * d],
        Identity => entries(&|i, k| if i == k { 1.0 } else { 0.0 }),
        Repeated => in_a_basis(|m| [1.0, -1.0, 0.0][m % 3]),
        Rank(rank) => entries(&|i, k| {
            (0..rank.min(d)).map(|j| r[j * d + i] * r[j * d + k] * 0.5f32.powi(j as i32)).sum()
        }),
        Graded => in_a_basis(|m| if m % 2 == 0 { 1.0 } else { -1.0 } * 10f64.powf(-8.0 * m as f64 / 64.0)),
        Ones => vec![1.0; d * d],
    }
}

struct Found {
    values: Vec<f32>,
    vectors: Vec<f32>,
    residuals: Vec<f32>,
}

/// Decomposes matrices `[N,d,d]` that lie as a block pass leaves them, `[i, n, k]`; outputs begin as NaN.
fn decompose(gpu: &Gpu, x: &[f32], (n, d): (usize, usize)) -> Found {
    let interleaved: Vec<f32> =
        (0..d).flat_map(|i| (0..n).flat_map(move |p| x[(p * d + i) * d..][..d].iter().copied())).collect();
    let upload = |x: &[f32]| gpu.upload(x).unwrap().slice(0, x.len());
    let poisoned = |len: usize| upload(&vec![f32::NAN; len]);
    let (x, values, vectors, residuals) =
        (upload(&interleaved), poisoned(n * d), poisoned(n * d * d), poisoned(n));
    let mut rec = Recorder::new(gpu);
    let to = Eigenpairs { values: &values, vectors: &vectors, residuals: &residuals };
    jacobi::eigen(&mut rec, (n, d), (&x, d, n * d), to).unwrap();
    rec.finish().unwrap().run().unwrap();
    let read = |view| gpu.read::<f32>(view).unwrap();
    Found { values: read(&values), vectors: read(&vectors), residuals: read(&residuals) }
}

#[test]
fn eigenpairs_agree_with_the_twin() {
    let gpu = gpu();
    let table = [
        (1, 5, Uniform),
        (2, 67, Uniform),
        (3, 129, Uniform),
        (5, 1, Uniform),
        (10, 33, Uniform),
        (31, 5, Uniform),
        (50, 7, Uniform),
        (63, 2, Uniform),
        (64, 3, Uniform),
        (7, 3, Scaled(-20)),
        (7, 3, Scaled(20)),
        (33, 2, Scaled(37)),
        (20, 2, Scaled(-30)),
        (13, 3, Diagonal),
        (64, 1, Diagonal),
        (1, 1, Zero),
        (9, 2, Zero),
        (17, 2, Identity),
        (17, 3, Repeated),
        (50, 2, Repeated),
        (11, 3, Rank(1)),
        (50, 3, Rank(10)),
        (49, 2, Graded),
        (64, 2, Graded),
        (37, 1, Ones),
    ];
    for (seed, (d, n, kind)) in table.into_iter().enumerate() {
        let x: Vec<f32> = (0..n).flat_map(|p| matrix(kind, d, (100 * seed + p) as u64)).collect();
        let found = decompose(&gpu, &x, (n, d));
        let again = decompose(&gpu, &x, (n, d));
        assert_eq!(found.values, again.values);
        assert_eq!(found.vectors, again.vectors);
        for p in 0..n {
            let what = format!("{kind:?} d={d} matrix {p} of {n}");
            let a = &x[p * d * d..(p + 1) * d * d];
            let (values, vectors) =
                (&found.values[p * d..(p + 1) * d], &found.vectors[p * d * d..(p + 1) * d * d]);
            let (expected, _) = twins::eigenpairs(a, d);
            let largest = expected.iter().fold(0.0f64, |most, value| most.max(value.abs()));
            for (m, (found, expected)) in values.iter().zip(&expected).enumerate() {
                let error = (*found as f64 - expected).abs();
                assert!(error <= 2e-6 * largest, "{what}: λ_{m} is {found:e}, expected {expected:e}");
            }
            assert!(values.is_sorted_by(|a, b| a >= b), "{what}: {values:?} descend");
            let u = DMatrix::from_row_slice(d, d, &f64s(vectors));
            let unit = (&u * u.transpose() - DMatrix::identity(d, d)).amax();
            assert!(unit <= 2e-6, "{what}: orthonormal to {unit:.1e}");
            let a = DMatrix::from_row_slice(d, d, &f64s(a));
            let a = 0.5 * (&a + a.transpose());
            let lambda = DMatrix::from_diagonal(&DVector::from_vec(f64s(values)));
            let apart = &a * u.transpose() - u.transpose() * lambda; // [i, m]
            let residual = apart.column_iter().map(|column| column.norm()).fold(0.0, f64::max);
            assert!(residual <= 4e-6 * largest, "{what}: A U − U Λ is {:.1e}", residual / largest);
            let claimed = found.residuals[p] as f64;
            assert!(claimed <= 4e-6, "{what}: claims a residual of {claimed:.1e}");
            assert!(
                residual <= (claimed + 1e-6) * largest,
                "{what}: claims {claimed:.1e}, found {residual:.1e}"
            );
        }
    }
}

/// With distinct eigenvalues the eigenvectors are the twin's, but for their signs.
#[test]
fn eigenvectors_agree_with_the_twin() {
    let d = 23;
    let x = matrix(Uniform, d, 1);
    let found = decompose(&gpu(), &x, (1, d));
    let (values, vectors) = twins::eigenpairs(&x, d);
    for m in 0..d {
        let gaps = [m.checked_sub(1), Some(m + 1).filter(|&m| m < d)];
        let gap = gaps.into_iter().flatten().map(|j| (values[m] - values[j]).abs()).fold(f64::MAX, f64::min);
        let (u, v) = (&f64s(&found.vectors)[m * d..(m + 1) * d], &vectors[m * d..(m + 1) * d]);
        let along: f64 = u.iter().zip(v).map(|(u, v)| u * v).sum();
        assert!(1.0 - along.abs() <= 1e-6, "u_{m}·v_{m} = {along}, the nearest eigenvalue {gap} away");
    }
}

/// Already diagonal: nothing is turned, equal eigenvalues keep their order.
#[test]
fn a_diagonal_matrix_is_sorted_only() {
    let (d, diagonal) = (5, [2.0, -1.0, 3.0, 2.0, 0.0]);
    let x: Vec<f32> = (0..d * d).map(|at| if at / d == at % d { diagonal[at / d] } else { 0.0 }).collect();
    let found = decompose(&gpu(), &x, (1, d));
    assert_eq!(found.values, [3.0, 2.0, 2.0, 0.0, -1.0]);
    let rows: Vec<usize> =
        found.vectors.chunks(d).map(|row| row.iter().position(|&v| v == 1.0).unwrap()).collect();
    assert_eq!(rows, [2, 0, 3, 4, 1]);
    assert_eq!(found.residuals, [0.0]);
}

#[test]
fn a_matrix_that_is_not_finite_says_so_and_spoils_no_other() {
    let (n, d) = (4, 6);
    let mut x = random(3, n * d * d);
    let clean = decompose(&gpu(), &x, (n, d));
    x[d * d + 4] = f32::NAN;
    x[2 * d * d + 7] = f32::INFINITY;
    let found = decompose(&gpu(), &x, (n, d));
    for p in [1, 2] {
        assert!(found.residuals[p].is_nan() && found.values[p * d..(p + 1) * d].iter().all(|v| v.is_nan()));
    }
    for p in [0, 3] {
        assert_eq!(found.residuals[p], clean.residuals[p]);
        assert_eq!(found.values[p * d..(p + 1) * d], clean.values[p * d..(p + 1) * d]);
    }
}

#[test]
fn more_matrices_than_a_dispatch_takes() {
    let (n, d) = (1700, 64);
    let mut x = vec![0.0; n * d * d];
    for p in 0..n {
        x[p * d * d] = p as f32;
    }
    let found = decompose(&gpu(), &x, (n, d));
    for p in 0..n {
        assert_eq!(found.values[p * d], p as f32);
        assert_eq!(found.vectors[p * d * d], 1.0);
    }
    assert!(found.residuals.iter().all(|&residual| residual == 0.0));
}

/// The layers of a case: name, d_out, d_in.
fn layers(network: &Network, problem: &Session) -> Vec<(String, usize, usize)> {
    let names = network.parameters().iter().map(|p| p.name.clone()).filter(|name| name.ends_with("weight"));
    names
        .map(|name| {
            let layer = problem.layer(&name).unwrap();
            (name, layer.d_out(), layer.d_in())
        })
        .collect()
}

#[test]
fn spectra_and_factors_are_those_of_the_per_sample_hessians() {
    let mut covered = Vec::new();
    for case in cases() {
        let wanted = matches!(case.loss, Loss::CrossEntropy | Loss::SoftmaxMse);
        let network = Network::new(&case.model).unwrap();
        if !wanted || network.dim() > 2000 {
            continue;
        }
        let reference: reference::Problem = case.problem();
        let gpu = gpu();
        let problem = Session::new(&gpu, &network, &case.parameters, &case.data, case.loss).unwrap();
        for (weight, d_out, d_in) in layers(&network, &problem).into_iter().rev() {
            let dim = d_out * d_in;
            if dim > 400 {
                continue;
            }
            covered
                .push((case.model.layers.contains(&Layer::Relu), case.model.layers.contains(&Layer::Tanh)));
            let what = format!("{} {weight}", case.name);
            let layer = problem.layer(&weight).unwrap();
            let hessians: Vec<DMatrix<f64>> =
                (0..reference.samples()).map(|p| reference.sample_hessian(p, &weight)).collect();
            let gradients = reference.per_sample_gradient();
            let range = reference.network.range(&weight);

            let (mut seen, mut second) = (0, DMatrix::<f64>::zeros(dim, dim));
            let mut mean = 0.0;
            let v: Vec<f64> = f64s(&random(7, dim));
            layer
                .spectra(|batch| {
                    assert_eq!((batch.first, batch.d_out, batch.d_in), (seen, d_out, d_in), "{what}");
                    for p in 0..batch.count {
                        let h = &hessians[seen + p];
                        let kappa = f64s(batch.eigenvalues_of(p));
                        let w = DMatrix::from_fn(dim, d_out, |_, _| 0.0);
                        let w = (0..d_out).fold(w, |mut w, m| {
                            w.column_mut(m).copy_from_slice(&batch.eigenvector(p, m));
                            w
                        });
                        let lambda = DMatrix::from_diagonal(&DVector::from_vec(kappa.clone()));
                        let found = &w * &lambda * w.transpose();
                        let scale = 1e-2;
                        assert_close(&format!("{what}: h_{p}"), found.as_slice(), h.as_slice(), 5e-5, scale);
                        assert!(kappa.is_sorted_by(|a, b| a >= b), "{what}");
                        assert!(batch.residuals[p] <= 4e-6, "{what}: residual {:e}", batch.residuals[p]);
                        let projections = batch.projections(p, &v);
                        let expected = w.tr_mul(&DVector::from_column_slice(&v));
                        assert_close(&format!("{what}: w·v"), &projections, expected.as_slice(), 1e-12, 1.0);
                        mean += kappa.iter().zip(&projections).map(|(k, c)| k * c * c).sum::<f64>();
                        second += &w * &lambda * &lambda * w.transpose();
                    }
                    seen += batch.count;
                    Ok(())
                })
                .unwrap();
            assert_eq!(seen, hessians.len());
            let n = seen as f64;
            let moments = LayerMoments::measure(&problem, &weight).unwrap();
            let measured = |matrix: &faer::Mat<f64>| DMatrix::from_fn(dim, dim, |i, j| matrix[(i, j)]);
            let (second, measured_second) = (second / n, measured(&moments.curvature_second_moment));
            assert_close(
                &format!("{what}: E[h²]"),
                second.as_slice(),
                measured_second.as_slice(),
                5e-5,
                1e-4,
            );
            let v = DVector::from_vec(v);
            let along = v.dot(&(measured(&moments.hessian) * &v));
            assert_close(&format!("{what}: vᵀHv"), &[mean / n], &[along], 1e-4, 1e-2);

            let mut seen = 0;
            layer
                .factors(|batch| {
                    for p in 0..batch.count {
                        let a = DVector::from_vec(f64s(&batch.activations[p * d_in..(p + 1) * d_in]));
                        let delta = DVector::from_vec(f64s(&batch.deltas[p * d_out..(p + 1) * d_out]));
                        let square = d_out * d_out;
                        let m = &batch.curvatures[p * square..(p + 1) * square];
                        let m = DMatrix::from_row_slice(d_out, d_out, &f64s(m));
                        let found = m.kronecker(&(&a * a.transpose()));
                        let h = &hessians[seen + p];
                        assert_close(&format!("{what}: M ⊗ aaᵀ"), found.as_slice(), h.as_slice(), 5e-5, 1e-2);
                        let found = delta.kronecker(&a);
                        let expected = &gradients[(seen + p) * reference.parameters.len()..][range.clone()];
                        assert_close(&format!("{what}: δ ⊗ a"), found.as_slice(), expected, 5e-5, 1e-2);
                    }
                    seen += batch.count;
                    Ok(())
                })
                .unwrap();
            assert_eq!(seen, hessians.len());
        }
    }
    assert!(covered.len() > 8 && covered.iter().any(|c| c.0) && covered.iter().any(|c| c.1), "{covered:?}");
}

/// What each batch hands out does not depend on how the data set was cut.
#[test]
fn spectra_do_not_depend_on_the_batches() {
    let case = cases().into_iter().find(|case| case.name.contains("[17, 33, 10] Tanh")).unwrap();
    let network = Network::new(&case.model).unwrap();
    let all = |memory_budget: Option<u64>| {
        let gpu = Gpu::new(&GpuOptions { memory_budget, ..GpuOptions::from_env() }).unwrap();
        let problem = Session::new(&gpu, &network, &case.parameters, &case.data, case.loss).unwrap();
        let (mut batches, mut eigenvalues) = (0, Vec::new());
        problem
            .layer("0.weight")
            .unwrap()
            .spectra(|batch| {
                assert_eq!(batch.eigenvalues.len(), batch.count * batch.d_out);
                batches += 1;
                eigenvalues.extend_from_slice(&batch.eigenvalues);
                Ok(())
            })
            .unwrap();
        (batches, eigenvalues)
    };
    let (whole, cut) = (all(None), all(Some(400_000)));
    assert!(whole.0 == 1 && cut.0 > 1, "{} and {} batches", whole.0, cut.0);
    assert_close("κ", &cut.1, &f64s(&whole.1), 1e-6, 1.0);
}

#[test]
fn layers_that_cannot_be_are_refused() {
    let case = cases().into_iter().find(|case| case.name.contains("[65, 129, 10] Relu")).unwrap();
    let network = Network::new(&case.model).unwrap();
    let problem = Session::new(&gpu(), &network, &case.parameters, &case.data, case.loss).unwrap();
    let Err(error) = problem.layer("1.weight") else { panic!("there is no such layer") };
    assert!(matches!(error, Error::Argument { .. }));
    assert!(error.to_string().contains("0.weight, 2.weight"), "{error}");
    let stop = problem.layer("2.weight").unwrap().spectra(|_| Err(Error::argument("x", "y", "z")));
    assert!(matches!(stop, Err(Error::Argument { .. })));
}

/// Of 129 outputs, where the kernel takes 64: the spectra are made on the host.
#[test]
fn a_layer_of_more_outputs_than_the_kernel_takes() {
    let case = cases().into_iter().find(|case| case.name.contains("[65, 129, 10] Relu")).unwrap();
    let network = Network::new(&case.model).unwrap();
    let problem = Session::new(&gpu(), &network, &case.parameters, &case.data, case.loss).unwrap();
    let layer = problem.layer("0.weight").unwrap();
    let d = layer.d_out();
    let (mut curvatures, mut activations) = (Vec::new(), Vec::new());
    layer
        .factors(|batch| {
            curvatures.extend_from_slice(&batch.curvatures);
            activations.extend_from_slice(&batch.activations);
            Ok(())
        })
        .unwrap();
    let mut seen = 0;
    layer
        .spectra(|batch| {
            for p in 0..batch.count {
                let u = DMatrix::from_row_slice(d, d, &f64s(&batch.vectors[p * d * d..(p + 1) * d * d]));
                let mu = f64s(&batch.output_eigenvalues[p * d..(p + 1) * d]);
                assert!(mu.is_sorted_by(|a, b| a >= b));
                let found = u.transpose() * DMatrix::from_diagonal(&DVector::from_vec(mu.clone())) * &u;
                let expected = f64s(&curvatures[(seen + p) * d * d..][..d * d]);
                assert_close("M", found.as_slice(), &expected, 1e-6, 1e-6);
                assert_close(
                    "U Uᵀ",
                    (&u * u.transpose()).as_slice(),
                    DMatrix::identity(d, d).as_slice(),
                    1e-6,
                    1.0,
                );
                let a = f64s(&activations[(seen + p) * layer.d_in()..][..layer.d_in()]);
                let length2: f64 = a.iter().map(|a| a * a).sum();
                let kappa: Vec<f64> = mu.iter().map(|mu| length2 * mu).collect();
                assert_close("κ", batch.eigenvalues_of(p), &kappa, 1e-6, 1e-6);
                assert!(batch.residuals[p] < 1e-6, "residual {:e}", batch.residuals[p]);
            }
            seen += batch.count;
            Ok(())
        })
        .unwrap();
    assert_eq!(seen, problem.samples().len());
}
