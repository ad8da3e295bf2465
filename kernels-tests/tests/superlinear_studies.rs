//! The studies of `papers::superlinear` against dense matrices, closed forms and what theory has for γ.

use approx::assert_relative_eq;
use curvkit::Error;
use curvkit::data::{Dataset, Targets};
use curvkit::net::{Layer, Loss, Model, Network};
use curvkit::operators::{LayerMoments, SampleSpectra, Session};
use curvkit::papers::superlinear::bounds::{self, Curvatures, Violations};
use curvkit::papers::superlinear::claims::{Claims, PublishedSuppression};
use curvkit::papers::superlinear::measures::{Diagonals, Eigenbasis};
use curvkit::papers::superlinear::suppression::{self, Suppression};
use curvkit::papers::superlinear::synthetic;
use curvkit::report::Verdict;
use curvkit::stats::haar_orthogonal;
use faer::{Mat, MatRef, Side};
use kernels_tests::cases::random;
use kernels_tests::device::gpu;
use kernels_tests::reference;

const WEIGHT: &str = "2.weight";

fn model() -> Model {
    Model::mlp(&[5, 7, 6, 3], Layer::Relu, false)
}

/// A small network of ReLUs, its parameters and N samples of three classes.
fn small(samples: usize) -> (Network, Vec<f32>, Dataset) {
    let network = Network::new(&model()).unwrap();
    let parameters = random(1, network.dim());
    let targets = Targets::Classes((0..samples as u32).map(|p| p % 3).collect());
    let data = Dataset::new(random(2, samples * 5), vec![5], targets).unwrap();
    (network, parameters, data)
}

/// The one that the paper has for the MLP on MNIST.
const THETA: f64 = 0.05;

/// h_p of every sample, `[D, D]`, in f64 throughout.
fn hessians(parameters: &[f32], data: &Dataset, loss: Loss) -> Vec<Mat<f64>> {
    let reference = reference::Problem::new(&model(), loss, parameters, data);
    let of_sample = |p| {
        let h = reference.sample_hessian(p, WEIGHT);
        Mat::from_fn(h.nrows(), h.ncols(), |i, j| h[(i, j)])
    };
    (0..data.len()).map(of_sample).collect()
}

/// All D eigenpairs, in descending order of eigenvalue.
fn eigenpairs(hessian: MatRef<'_, f64>) -> Vec<(f64, Vec<f64>)> {
    let pairs = hessian.self_adjoint_eigen(Side::Lower).unwrap();
    let (values, vectors) = (pairs.S().column_vector(), pairs.U());
    let pairs = (0..hessian.nrows()).rev().map(|j| (values[j], vectors.col(j).iter().copied().collect()));
    pairs.collect()
}

fn assert_close(what: &str, found: &[f64], expected: &[f64], tolerance: f64) {
    let norm = |x: &[f64]| x.iter().map(|x| x * x).sum::<f64>().sqrt();
    let difference: Vec<f64> = found.iter().zip(expected).map(|(x, y)| x - y).collect();
    assert!(norm(&difference) <= tolerance * norm(expected), "{what}: {found:?}, expected {expected:?}");
}

#[test]
fn the_stages_are_those_of_dense_per_sample_hessians() {
    for loss in [Loss::CrossEntropy, Loss::SoftmaxMse] {
        let (network, parameters, data) = small(67);
        let problem = Session::new(gpu(), &network, &parameters, &data, loss).unwrap();
        let drawn = data.select(&suppression::draw(&data.targets, 20, 3).unwrap());
        let of_drawn = Session::new(gpu(), &network, &parameters, &drawn, loss).unwrap();
        let moments = LayerMoments::measure(&problem, WEIGHT).unwrap();
        let basis = Eigenbasis::of(moments.hessian.as_ref()).unwrap();
        let dim = basis.dimension();
        let found = Suppression::measure(&of_drawn.layer(WEIGHT).unwrap(), &basis, loss, THETA, dim).unwrap();

        // eqs. 23–27 as they stand, over all D modes
        let pairs: Vec<_> =
            hessians(&parameters, &drawn, loss).iter().map(|h| eigenpairs(h.as_ref())).collect();
        let n = pairs.len() as f64;
        let largest = pairs.iter().map(|pairs| pairs[0].0).fold(0.0, f64::max);
        let stiff: Vec<bool> = pairs.iter().map(|pairs| pairs[0].0 > 0.05 * largest).collect();
        let group: Vec<f64> =
            pairs.iter().zip(&stiff).filter(|(_, stiff)| **stiff).map(|(pairs, _)| pairs[0].0).collect();
        assert_eq!(found.stiff, stiff);
        assert!((2..pairs.len()).contains(&group.len()), "{} stiff samples", group.len());
        let group = group.iter().sum::<f64>() / group.len() as f64;
        for (stage, found) in found.stages.iter().enumerate() {
            let (mut hessian, mut covariance) = (vec![0.0; dim], vec![0.0; dim]);
            for (pairs, &stiff) in pairs.iter().zip(&stiff) {
                for (m, (kappa, w)) in pairs.iter().enumerate() {
                    let cooked = match (stage, m) {
                        (0, _) | (1, 0) => *kappa,
                        (_, 1..) => 1e-5 * kappa,
                        _ if !stiff => 1e-3 * kappa,
                        (2, 0) => *kappa,
                        _ => group,
                    };
                    for i in 0..dim {
                        let w_v: f64 = (0..dim).map(|d| w[d] * basis.vectors[(d, i)]).sum();
                        hessian[i] += cooked * w_v * w_v / n;
                        covariance[i] += cooked * cooked * w_v * w_v / n;
                    }
                }
            }
            assert_close(&format!("{loss}: H of stage {stage}"), &found.hessian, &hessian, 1e-4);
            assert_close(&format!("{loss}: C of stage {stage}"), &found.covariance, &covariance, 1e-4);
        }

        // unchanged, they are the drawn samples' own moments in the basis
        let own = LayerMoments::measure(&of_drawn, WEIGHT).unwrap();
        let unchanged = &found.stages[0];
        let diagonal = basis.diagonal(own.hessian.as_ref()).unwrap();
        assert_close(&format!("{loss}: the samples' H"), &unchanged.hessian, &diagonal, 1e-4);
        let diagonal = basis.diagonal(own.curvature_second_moment.as_ref()).unwrap();
        assert_close(&format!("{loss}: the samples' E[h²]"), &unchanged.covariance, &diagonal, 1e-4);

        for stage in &found.stages {
            for i in (0..dim).filter(|&i| stage.covariance[i] > 0.0) {
                let shares: Vec<f64> = stage.cumulative.row(i).iter().copied().collect();
                assert!(shares[0] >= 0.0 && shares.is_sorted());
                assert_eq!(shares[found.modes - 1], 1.0);
            }
        }
        // one eigenvalue left: C̃ = κ̄ H̃ but for what was suppressed
        let equal = &found.stages[3];
        assert_relative_eq!(equal.covariance[0] / equal.hessian[0], group, max_relative = 0.01);
        assert_eq!(found.stages[0].hessian_change.decades, 0.0);
        assert_relative_eq!(found.stages[0].covariance_change.slope, 1.0, max_relative = 1e-12);
    }
}

#[test]
fn projections_onto_a_basis_are_those_onto_each_vector_and_complete() {
    let (network, parameters, data) = small(37);
    let problem = Session::new(gpu(), &network, &parameters, &data, Loss::SoftmaxMse).unwrap();
    let layer = problem.layer(WEIGHT).unwrap();
    let basis = haar_orthogonal(layer.d_out() * layer.d_in(), 4);
    let mut seen = 0;
    layer
        .spectra(|batch| {
            batch.project(basis.as_ref(), |p, projections| {
                for (i, v) in basis.col_iter().enumerate() {
                    let v: Vec<f64> = v.iter().copied().collect();
                    for (m, expected) in batch.projections(p, &v).into_iter().enumerate() {
                        assert!((projections[(i, m)] - expected).abs() < 1e-13);
                    }
                }
                let active =
                    batch.activations[p * batch.d_in..(p + 1) * batch.d_in].iter().any(|&a| a != 0.0);
                for column in projections.col_iter() {
                    let sum: f64 = column.iter().map(|w_v| w_v * w_v).sum(); // Σ_i (w_m · v_i)²
                    assert!((sum - f64::from(u8::from(active))).abs() < 1e-5, "{sum}");
                }
                seen += 1;
            });
            Ok(())
        })
        .unwrap();
    assert_eq!(seen, 37);
}

/// n samples of a layer of 2 × 2 weights whose h_p have the eigenvalues `kappa`, all with the same eigenvectors.
fn aligned(kappa: &[[f32; 2]]) -> SampleSpectra {
    let count = kappa.len();
    SampleSpectra {
        first: 0,
        count,
        d_out: 2,
        d_in: 2,
        activations: [1.0, 0.0].repeat(count),
        deltas: vec![0.0; 2 * count],
        output_eigenvalues: kappa.concat(),
        eigenvalues: kappa.concat(),
        vectors: [1.0, 0.0, 0.0, 1.0].repeat(count),
        residuals: vec![0.0; count],
    }
}

#[test]
fn an_experiment_that_cannot_be_made_is_refused() {
    let basis = Eigenbasis::of(Mat::<f64>::identity(4, 4).as_ref()).unwrap();
    let loss = Loss::SoftmaxMse;
    let of = |spectra: &[SampleSpectra], basis| Suppression::of(spectra, basis, loss, THETA, 4);
    assert!(matches!(of(&[], &basis), Err(Error::Argument { .. })));
    assert!(matches!(of(&[aligned(&[[-1.0, -2.0]])], &basis), Err(Error::Undefined { .. })));
    // two directions of four have curvature: too few for an exponent
    assert!(matches!(of(&[aligned(&[[2.0, 1.0]])], &basis), Err(Error::Undefined { .. })));
    let other = Eigenbasis::of(Mat::<f64>::identity(5, 5).as_ref()).unwrap();
    assert!(matches!(of(&[aligned(&[[2.0, 1.0]])], &other), Err(Error::Shape { .. })));
}

#[test]
fn samples_are_drawn_from_each_class_in_turn() {
    let targets = Targets::Classes((0..100).map(|p| if p < 50 { 7 } else { p % 2 }).collect());
    let Targets::Classes(classes) = &targets else { unreachable!() };
    let drawn = suppression::draw(&targets, 40, 5).unwrap();
    assert!(drawn.is_sorted_by(|a, b| a < b) && drawn.len() == 40);
    let of_class = |class| drawn.iter().filter(|&&p| classes[p] == class).count();
    assert_eq!([of_class(0), of_class(1), of_class(7)], [14, 13, 13]);
    assert_eq!(drawn, suppression::draw(&targets, 40, 5).unwrap());
    assert_ne!(drawn, suppression::draw(&targets, 40, 6).unwrap());
    // the two classes of 25 are used up, the third fills in
    let most = suppression::draw(&targets, 90, 5).unwrap();
    assert_eq!(most.iter().filter(|&&p| classes[p] == 7).count(), 40);
    assert!(matches!(suppression::draw(&targets, 101, 0), Err(Error::Argument { .. })));
    let values = Targets::Values { values: vec![0.0; 8], width: 2 };
    assert!(matches!(suppression::draw(&values, 2, 0), Err(Error::Argument { .. })));
}

#[test]
fn the_experiment_writes_what_it_measured() {
    let (network, parameters, data) = small(40);
    let problem = Session::new(gpu(), &network, &parameters, &data, Loss::CrossEntropy).unwrap();
    let moments = LayerMoments::measure(&problem, WEIGHT).unwrap();
    let basis = Eigenbasis::of(moments.hessian.as_ref()).unwrap();
    let layer = problem.layer(WEIGHT).unwrap();
    let loss = Loss::CrossEntropy;
    let measured = Suppression::measure(&layer, &basis, loss, THETA, 20).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("case");
    let figures = suppression::write(&out, "a < b", measured.clone()).unwrap();

    let read = |name: &str| std::fs::read_to_string(out.join(name)).unwrap();
    let directions = read("suppression.csv");
    let line: Vec<f64> = directions.lines().nth(3).unwrap().split(',').map(|x| x.parse().unwrap()).collect();
    assert_eq!(directions.lines().count(), 1 + basis.dimension());
    assert_eq!(line[..3], [3.0, measured.stages[0].hessian[2], measured.stages[0].covariance[2]]);
    assert_eq!(line[8..], [measured.stages[3].hessian[2], measured.stages[3].covariance[2]]);
    let spectra = read("suppression_spectra.csv");
    assert_eq!(spectra.lines().count(), 1 + 40 * measured.modes);
    assert_eq!(
        spectra.lines().next().unwrap(),
        "sample,stiff,mode,unchanged,first_modes,stiff_first_modes,equal"
    );
    assert_eq!(read("suppression.svg"), figures.panels);
    assert_eq!(figures.panels.matches("<g transform").count(), 20);
    assert!(figures.panels.contains("a &lt; b") && figures.panels.matches("<svg").count() == 1);
    assert_eq!(read("suppression_equal.svg"), figures.covariances[1]);
    assert_eq!(measured.table(&Claims::default()).rows.len(), 4);
    assert_eq!(measured.findings(&Claims::default()).unwrap().len(), 6);
    let published = PublishedSuppression { theta: THETA, stiff: 20, gamma: 1.1 };
    let claims = Claims { suppression: Some(published), ..Claims::default() };
    assert_eq!(measured.findings(&claims).unwrap().len(), 8);
}

/// Diagonals of samples' Hessians `h_p` `[D, D]` in the eigenbasis of their mean.
fn diagonals_of(hessians: &[Mat<f64>]) -> Diagonals {
    let n = hessians.len() as f64;
    let dim = hessians[0].nrows();
    let (mut mean, mut second) = (Mat::zeros(dim, dim), Mat::zeros(dim, dim));
    for h in hessians {
        mean += h * faer::Scale(1.0 / n);
        second += h * h * faer::Scale(1.0 / n);
    }
    let basis = Eigenbasis::of(mean.as_ref()).unwrap();
    let diagonal = basis.diagonal(second.as_ref()).unwrap();
    Diagonals {
        hessian: basis.values,
        covariance: diagonal.clone(),
        curvature_second_moment: diagonal.clone(),
        awd_raw: diagonal,
    }
}

#[test]
fn the_bounds_hold_for_semi_definite_hessians_alone() {
    let dim = 12;
    let of_eigenvalues = |eigenvalues: &dyn Fn(usize, u64) -> f64| -> Vec<Mat<f64>> {
        let of_sample = |p: u64| {
            let q = haar_orthogonal(dim, p);
            let scaled = Mat::from_fn(dim, dim, |i, m| q[(i, m)] * eigenvalues(m, p));
            scaled * q.transpose()
        };
        (0..30).map(of_sample).collect()
    };
    let count = |diagonals: &Diagonals, largest| {
        Violations::count(&diagonals.hessian, &diagonals.curvature_second_moment, largest, dim)
    };
    let positive = diagonals_of(&of_eigenvalues(&|m, p| (1 + p % 5) as f64 / (1.0 + m as f64)));
    assert_eq!(count(&positive, 5.0), Violations { directions: dim, lower: 0, upper: 0 });
    // equality: all h_p the same multiple of 1
    let same = diagonals_of(&vec![Mat::<f64>::identity(dim, dim) * faer::Scale(3.0); 4]);
    assert_eq!(count(&same, 3.0), Violations { directions: dim, lower: 0, upper: 0 });
    assert_eq!(count(&same, 2.99).upper, dim);

    // as much negative as positive curvature: H is small, E[h²] is not
    let indefinite = diagonals_of(&of_eigenvalues(&|m, _| if m % 2 == 0 { 1.0 } else { -1.0 }));
    let found = count(&indefinite, 1.0);
    assert_eq!((found.lower, found.upper), (0, dim));
    // a second moment that is none
    let halved: Vec<f64> = positive.hessian.iter().map(|h| h * h / 2.0).collect();
    assert_eq!(
        Violations::count(&positive.hessian, &halved, 5.0, 7),
        Violations { directions: 7, lower: 7, upper: 0 }
    );
}

#[test]
fn the_bounds_of_a_layer() {
    // a piecewise linear network: M_p is semi-definite for the cross-entropy, and is not for softmax-mse
    for (loss, semi_definite) in [(Loss::CrossEntropy, true), (Loss::SoftmaxMse, false)] {
        let (network, parameters, data) = small(67);
        let problem = Session::new(gpu(), &network, &parameters, &data, loss).unwrap();
        let curvatures = Curvatures::measure(&problem.layer(WEIGHT).unwrap()).unwrap();
        let dense = hessians(&parameters, &data, loss);
        let kappa: Vec<f64> = dense.iter().flat_map(|h| eigenpairs(h.as_ref())).map(|pair| pair.0).collect();
        let extreme = |sign: f64| kappa.iter().fold(0.0f64, |most, k| most.max(sign * k)) * sign;
        assert_relative_eq!(curvatures.largest, extreme(1.0), max_relative = 1e-4);
        let negative: f64 = kappa.iter().map(|k| (-k).max(0.0)).sum();
        let share = negative / kappa.iter().map(|k| k.abs()).sum::<f64>();
        let negative_share = curvatures.negative_share.unwrap();
        assert!((negative_share - share).abs() < 1e-5);
        assert_eq!(negative_share < 1e-4, semi_definite, "{loss}: {curvatures:?}");
        assert!((curvatures.smallest - extreme(-1.0)).abs() < 1e-4 * curvatures.largest);

        let moments = LayerMoments::measure(&problem, WEIGHT).unwrap();
        let basis = Eigenbasis::of(moments.hessian.as_ref()).unwrap();
        let second = moments.curvature_second_moment.as_ref();
        // C₁ = (σ_w²/2) E[h²], as eq. 15 has it
        let (sigma_w2, top) = (0.3, 20);
        let covariance = &moments.curvature_second_moment * faer::Scale(sigma_w2 / 2.0);
        let diagonals = Diagonals {
            hessian: basis.values.clone(),
            covariance: basis.diagonal(covariance.as_ref()).unwrap(),
            curvature_second_moment: basis.diagonal(second).unwrap(),
            awd_raw: vec![0.0; basis.dimension()],
        };
        let folder = tempfile::tempdir().unwrap();
        let found =
            bounds::write(folder.path(), "case", &diagonals, curvatures, Some(sigma_w2), top).unwrap();
        assert_eq!((found.second_moment.all.lower, found.second_moment.leading.directions), (0, top));
        assert_eq!(found.second_moment.all.upper == 0, semi_definite, "{loss}: {found:?}");
        assert_eq!(found.covariance, Some((found.second_moment, sigma_w2)));
        let agree: Vec<bool> =
            found.findings().iter().map(|finding| finding.verdict == Verdict::Agrees).collect();
        assert_eq!(agree.len(), 5);
        assert_eq!(agree[4], semi_definite);
        let csv = std::fs::read_to_string(folder.path().join("bounds.csv")).unwrap();
        assert_eq!(csv.lines().count(), 1 + basis.dimension());
        assert_eq!(std::fs::read_to_string(folder.path().join("bounds.svg")).unwrap(), found.svg);
    }
}

/// Directions without curvature keep to no bounds, and none agree where all are such.
#[test]
fn the_bounds_of_nothing_are_undefined() {
    let none = Curvatures { largest: 0.0, smallest: 0.0, negative_share: None };
    let zero = || vec![0.0; 40];
    let diagonals = |hessian, second| Diagonals {
        hessian,
        covariance: zero(),
        curvature_second_moment: second,
        awd_raw: zero(),
    };
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let error = bounds::write(&out, "case", &diagonals(zero(), zero()), none, None, 20).err().unwrap();
    assert_eq!(error.to_string(), "E[h²]_ii between its bounds is undefined: no direction has curvature");
    assert!(!out.exists());
    assert_eq!(
        Violations::count(&zero(), &zero(), 0.0, 20),
        Violations { directions: 0, lower: 0, upper: 0 }
    );

    // one direction of forty has curvature, and it is not a leading one
    let mut hessian = zero();
    hessian[39] = 1.0;
    let curvatures = Curvatures { largest: 1.0, smallest: 0.0, negative_share: Some(0.0) };
    let found =
        bounds::write(&out, "case", &diagonals(hessian.clone(), hessian), curvatures, None, 20).unwrap();
    assert_eq!((found.second_moment.leading.directions, found.second_moment.all.directions), (0, 1));
    let verdicts: Vec<Verdict> = found.findings().iter().map(|finding| finding.verdict).collect();
    use Verdict::{Agrees, Undefined};
    assert_eq!(verdicts, [Undefined, Undefined, Undefined, Agrees]);
}

#[test]
fn synthetic_landscapes_have_the_exponents_of_theory() {
    let folder = tempfile::tempdir().unwrap();
    let made = synthetic::write(folder.path(), 0).unwrap();
    for (study, gamma) in made.studies.iter().zip([2.0, 2.0, 1.0]) {
        assert_eq!(study.predicted.0, gamma);
        assert!((study.fit.slope - gamma).abs() < 0.01, "{}: {:?}", study.name, study.fit);
        assert!(study.interval.high - study.interval.low < 0.02, "{}: {:?}", study.name, study.interval);
        assert_relative_eq!(10f64.powf(study.fit.intercept), study.predicted.1, max_relative = 0.03);
        let svg = folder.path().join(format!("synthetic_{}.svg", study.name));
        assert!(std::fs::read_to_string(svg).unwrap().contains("predicted"));
    }
    assert!(made.findings().iter().all(|finding| finding.verdict == Verdict::Agrees));
    let again = synthetic::spectral_degeneracy(0).unwrap();
    assert_eq!(again.covariance, made.studies[2].covariance);
    assert_ne!(again.covariance, synthetic::spectral_degeneracy(1).unwrap().covariance);

    // 95 % intervals of independent landscapes: 11 or fewer of 15 hold γ once in 180 times
    for (study, gamma) in [
        (synthetic::random_shifts as fn(u64) -> curvkit::Result<synthetic::Study>, 2.0),
        (synthetic::perfect_alignment, 2.0),
        (synthetic::spectral_degeneracy, 1.0),
    ] {
        let held = (0..15).filter(|&seed| study(seed).unwrap().interval.contains(gamma)).count();
        assert!(held >= 12, "{held} of 15 intervals hold {gamma}");
    }
}
