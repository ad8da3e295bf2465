//! The measures of `papers::superlinear` against closed forms.

use approx::assert_relative_eq;
use curvkit::data::{Dataset, Targets, write_parameters};
use curvkit::net::{Layer, Loss, Model, Network};
use curvkit::papers::superlinear::claims::{Claims, PublishedSuppression};
use curvkit::papers::superlinear::evolution::{self, Snapshot};
use curvkit::papers::superlinear::measures::*;
use curvkit::papers::superlinear::members::{Member, Members};
use curvkit::papers::superlinear::records::{Epoch, Leave, MEASURES, Measuring, Records, Trained, Training};
use curvkit::papers::superlinear::settings::*;
use curvkit::papers::superlinear::target::{Part, Target};
use curvkit::papers::superlinear::{alignment, page, scaling, tables};
use curvkit::report::{Block, Verdict};
use curvkit::stats::{Interval, LineFit, haar_orthogonal};
use curvkit::{Error, Undefined};
use faer::Mat;
use kernels_tests::device::gpu;

/// Q diag(spectrum) Qᵀ
fn with_spectrum(q: &Mat<f64>, spectrum: &[f64]) -> Mat<f64> {
    let scaled = Mat::from_fn(q.nrows(), q.ncols(), |i, j| q[(i, j)] * spectrum[j]);
    scaled * q.transpose()
}

fn power_law(dimension: usize, decay: f64) -> Vec<f64> {
    (1..=dimension).map(|i| (i as f64).powf(-decay)).collect()
}

#[test]
fn the_eigenbasis_is_descending_and_diagonalises() {
    let q = haar_orthogonal(23, 1);
    let mut spectrum = power_law(23, 1.0);
    spectrum[22] = -0.5;
    let hessian = with_spectrum(&q, &spectrum);
    let basis = Eigenbasis::of(hessian.as_ref()).unwrap();
    assert!(basis.values.is_sorted_by(|a, b| a >= b));
    assert_relative_eq!(basis.values[22], -0.5, max_relative = 1e-12);

    let expressed = basis.express(hessian.as_ref()).unwrap();
    let diagonal = basis.diagonal(hessian.as_ref()).unwrap();
    for i in 0..23 {
        for j in 0..23 {
            let expected = if i == j { basis.values[i] } else { 0.0 };
            assert!((expressed[(i, j)] - expected).abs() < 1e-13);
        }
        assert_relative_eq!(diagonal[i], expressed[(i, i)], epsilon = 1e-14);
    }
}

#[test]
fn exponents_of_powers_of_the_hessian() {
    let q = haar_orthogonal(60, 2);
    let hessian = with_spectrum(&q, &power_law(60, 1.5));
    let squared = &hessian * &hessian;
    let basis = Eigenbasis::of(hessian.as_ref()).unwrap();
    let diagonals = Diagonals {
        covariance: basis.diagonal(hessian.as_ref()).unwrap(),
        curvature_second_moment: basis.diagonal(squared.as_ref()).unwrap(),
        awd_raw: basis.values.iter().map(|h| h.powf(1.5)).collect(),
        hessian: basis.values,
    };
    let exponents = diagonals.exponents(40).unwrap();
    assert_relative_eq!(exponents.emp.slope().unwrap(), 1.0, max_relative = 1e-9);
    assert_relative_eq!(exponents.awd.slope().unwrap(), 2.0, max_relative = 1e-9);
    assert_relative_eq!(exponents.awd_raw.slope().unwrap(), 1.5, max_relative = 1e-9);
    assert_eq!(exponents.emp.fit.unwrap().points, 40);
}

#[test]
fn an_exponent_uses_positive_entries_of_the_leading_ones_only() {
    let hessian = [8.0, 4.0, 2.0, 1.0, 0.5, -1.0];
    let covariance = [64.0, -1.0, 4.0, 1.0, 100.0, 1.0];
    let fit = exponent(&hessian, &covariance, 4).unwrap();
    assert_relative_eq!(fit.slope, 2.0, max_relative = 1e-14);
    assert_eq!(fit.points, 3);
    let none = exponent(&hessian, &covariance, 2).unwrap_err().to_string();
    let why = "of 1 points, 3 are needed; a point is a direction with curvature and noise";
    assert_eq!(none, format!("γ is undefined: {why}"));
    let undefined = Exponent::of(&hessian, &covariance, 4, 0).unwrap();
    assert_eq!((undefined.slope().is_some(), undefined.interval), (true, None));
    assert!(undefined.undefined.reason("interval").unwrap().starts_with("of 3 points, 5 are needed"));
}

#[test]
fn commuting_matrices_are_aligned() {
    let q = haar_orthogonal(40, 3);
    let hessian = with_spectrum(&q, &power_law(40, 1.0));
    let basis = Eigenbasis::of(hessian.as_ref()).unwrap();
    let covariance = basis.express(with_spectrum(&q, &power_law(40, 1.3)).as_ref()).unwrap();
    let structure = Structure::of(covariance.as_ref(), &basis.values, 10).unwrap();
    assert!(structure.commutativity_error.unwrap() < 1e-12);
    assert_relative_eq!(structure.eigen_alignment.unwrap(), 1.0, max_relative = 1e-12);
    assert_relative_eq!(structure.spearman.unwrap(), 1.0, max_relative = 1e-12);
    assert_relative_eq!(structure.spearman_top.unwrap(), 1.0, max_relative = 1e-12);
    let coupling = structure.coupling.unwrap();
    assert!(coupling.mean < 1e-10 && coupling.directions == 40 && structure.undefined.is_empty());
}

#[test]
fn the_commutator_agrees_with_its_definition() {
    let (n, q) = (17, haar_orthogonal(17, 4));
    let hessian = with_spectrum(&q, &power_law(n, 0.7));
    let covariance = with_spectrum(&haar_orthogonal(n, 5), &power_law(n, 0.2));
    let (ch, hc) = (&covariance * &hessian, &hessian * &covariance);
    let basis = Eigenbasis::of(hessian.as_ref()).unwrap();
    let expressed = basis.express(covariance.as_ref()).unwrap();
    assert_relative_eq!(
        commutativity_error(expressed.as_ref(), &basis.values).unwrap(),
        (&ch - &hc).norm_l2() / ch.norm_l2(),
        max_relative = 1e-12
    );
}

#[test]
fn a_random_rotation_keeps_the_spectrum_and_loses_the_alignment() {
    // M equal spikes of D: Appendix C's model, where μ → √(2/π)/√M and σ² → (1 − 2/π)/M
    let (dimension, spikes) = (400, 20);
    let mut spectrum = vec![0.0; dimension];
    spectrum[..spikes].fill(3.0);
    let covariance = with_spectrum(&haar_orthogonal(dimension, 6), &spectrum);
    assert_relative_eq!(effective_rank(covariance.as_ref()).unwrap(), spikes as f64, max_relative = 1e-10);

    let rotated = rotated(covariance.as_ref(), haar_orthogonal(dimension, 7).as_ref());
    assert_relative_eq!(rotated.norm_l2(), covariance.norm_l2(), max_relative = 1e-12);
    assert_relative_eq!(effective_rank(rotated.as_ref()).unwrap(), spikes as f64, max_relative = 1e-10);

    let hessian = power_law(dimension, 1.0);
    let structure = Structure::of(rotated.as_ref(), &hessian, 100).unwrap();
    let coupling = structure.coupling.unwrap();
    let significance = Significance::of(&coupling, spikes as f64);
    assert_relative_eq!(coupling.mean, significance.baseline, max_relative = 0.02);
    assert_relative_eq!(
        coupling.variance,
        (1.0 - 2.0 / std::f64::consts::PI) / spikes as f64,
        max_relative = 0.1
    );
    // ‖CH − HC‖² / ‖CH‖² = 2 − 2 tr(CHCH) / tr(CHHC), whose Haar averages are known: √2 for M, M_H ≪ D,
    // with M_H = (tr H)² / tr H² the effective rank of H
    let hessian_rank = hessian.iter().sum::<f64>().powi(2) / hessian.iter().map(|h| h * h).sum::<f64>();
    let expected = (2.0 - 2.0 * (spikes as f64 + hessian_rank) / dimension as f64).sqrt();
    assert_relative_eq!(structure.commutativity_error.unwrap(), expected, max_relative = 0.01);
    assert!(structure.spearman.unwrap().abs() < 0.2);
}

#[test]
fn significance_in_closed_form() {
    let coupling = Coupling { mean: 0.066, variance: 0.01, directions: 2_560 };
    let significance = Significance::of(&coupling, 20.0);
    assert_relative_eq!(significance.baseline, 0.178412, max_relative = 1e-5);
    assert_relative_eq!(significance.standard_error, 5.2655e-5, max_relative = 1e-4);
    assert_relative_eq!(
        significance.z,
        (0.066 - significance.baseline) / significance.standard_error,
        max_relative = 1e-12
    );
    // −z²/2 / ln 10 to leading order
    assert_relative_eq!(
        significance.log10_p,
        -significance.z.powi(2) / 2.0 / std::f64::consts::LN_10,
        max_relative = 1e-4
    );
}

#[test]
fn the_correlation_matrix_is_scale_invariant_and_leaves_dead_directions_out() {
    let covariance = with_spectrum(&haar_orthogonal(12, 8), &power_law(12, 1.0));
    // direction i stretched by s_i; directions 3 and 7 without any noise
    let stretch: Vec<f64> = (0..12).map(|i| if i == 3 || i == 7 { 0.0 } else { 1.0 + i as f64 }).collect();
    let stretched = Mat::from_fn(12, 12, |i, j| covariance[(i, j)] * stretch[i] * stretch[j]);
    let (r, r_stretched) = (correlation_matrix(covariance.as_ref()), correlation_matrix(stretched.as_ref()));
    for i in 0..12 {
        assert_relative_eq!(r[(i, i)], 1.0, max_relative = 1e-14);
        for j in 0..12 {
            match stretch[i] * stretch[j] == 0.0 {
                true => assert!(r_stretched[(i, j)].is_nan()),
                false => assert_relative_eq!(r_stretched[(i, j)], r[(i, j)], epsilon = 1e-14),
            }
        }
    }
    assert_eq!(resolved(stretched.as_ref()), [0, 1, 2, 4, 5, 6, 8, 9, 10, 11]);

    let coupling = Coupling::of(stretched.as_ref()).unwrap();
    let off: Vec<f64> = resolved(stretched.as_ref())
        .iter()
        .flat_map(|&i| resolved(stretched.as_ref()).into_iter().filter(move |&j| j != i).map(move |j| (i, j)))
        .map(|(i, j)| r[(i, j)].abs())
        .collect();
    assert_relative_eq!(coupling.mean, curvkit::stats::mean(&off).unwrap(), max_relative = 1e-12);
    assert_relative_eq!(coupling.variance, curvkit::stats::variance(&off).unwrap(), max_relative = 1e-10);
}

#[test]
fn matrices_that_do_not_fit_are_refused() {
    let basis = Eigenbasis::of(Mat::<f64>::identity(4, 4).as_ref()).unwrap();
    assert!(matches!(basis.diagonal(Mat::identity(3, 3).as_ref()), Err(Error::Shape { .. })));
    let mut broken = Mat::<f64>::identity(4, 4);
    broken[(1, 2)] = f64::NAN;
    assert!(matches!(Eigenbasis::of(broken.as_ref()), Err(Error::NotFinite { .. })));
    assert!(matches!(basis.express(broken.as_ref()), Err(Error::NotFinite { .. })));
}

#[test]
fn of_zero_matrices_nothing_is_defined() {
    let zero = Mat::<f64>::zeros(6, 6);
    let hessian = power_law(6, 1.0);
    let structure = Structure::of(zero.as_ref(), &hessian, 4).unwrap();
    let measures = [structure.commutativity_error, structure.eigen_alignment, structure.spearman];
    assert_eq!((measures, structure.spearman_top, structure.coupling), ([None; 3], None, None));
    let reasons: Vec<&str> = structure.undefined.iter().map(|(_, reason)| reason).collect();
    let constant = "a series is constant";
    assert_eq!(
        reasons,
        ["the matrix is 0", "0 directions have noise, 2 are needed", "the matrix is 0", constant, constant]
    );
    assert!(matches!(effective_rank(zero.as_ref()), Err(Error::Undefined { .. })));
    // what is written has null, and the reasons
    let json = serde_json::to_value(&structure).unwrap();
    assert!(json["eigen_alignment"].is_null());
    assert_eq!(json["undefined"]["eigen_alignment"], "the matrix is 0");
    assert_eq!(serde_json::from_value::<Structure>(json).unwrap(), structure);

    // C is there, the chain is not
    let mut members = power_law_members(48);
    members.covariances[1..].iter_mut().for_each(|(_, c)| c.fill(0.0));
    members.gradient_terms.iter_mut().for_each(|c| c.fill(0.0));
    members.sigma_w2 = None;
    let folder = tempfile::tempdir().unwrap();
    let blocks = scaling::write(folder.path(), "t", &members, &Claims::default(), 30, 0).unwrap();
    use Verdict::{Agrees, Undefined};
    assert_eq!(verdicts(&blocks), [Agrees, Undefined, Undefined]);
    let exponents = rows(&folder.path().join("exponents.csv"));
    assert_eq!(exponents[2][1..], ["", "", "", "", ""]);
    assert!(format!("{blocks:?}").contains("undefined"));
    let blocks = alignment::write(folder.path(), &members, &Claims::default(), 1000, 30, 1).unwrap();
    assert_eq!(verdicts(&blocks).last(), Some(&Undefined));
    let measures = rows(&folder.path().join("alignment.csv"));
    assert_eq!(measures.iter().find(|row| row[0] == "hh").unwrap()[2..], ["", ""]);
    let snapshots =
        [1, 2].map(|epoch| Snapshot::of(epoch, (0.1, 1.0), &members, &centred(&members), 30).unwrap());
    let claims = Claims::default();
    let blocks = evolution::write(folder.path(), &snapshots, &[], &members, &claims).unwrap();
    assert_eq!(verdicts(&blocks), [Agrees, Agrees, Undefined, Undefined, Undefined]);

    // and C is not
    members.covariances[0].1.fill(0.0);
    let zero = Mat::zeros(48, 48);
    let out = folder.path().join("none");
    let scaling = scaling::write(&out, "t", &members, &claims, 30, 0).unwrap_err().to_string();
    assert!(scaling.starts_with("γ of C is undefined: of 0 points, 3 are needed"), "{scaling}");
    let alignment = alignment::write(&out, &members, &claims, 1000, 30, 1).unwrap_err().to_string();
    assert_eq!(alignment, "R of C is undefined: the leading 48 directions have no noise");
    assert!(!out.exists());
    let snapshots = [1, 2].map(|epoch| Snapshot::of(epoch, (0.1, 1.0), &members, &zero, 30).unwrap());
    let blocks = evolution::write(&out, &snapshots, &[], &members, &claims).unwrap();
    assert_eq!(verdicts(&blocks), [Undefined; 5]);
    assert!(!out.join("evolution_a.svg").exists());
    let record = serde_json::to_string(&snapshots).unwrap();
    assert_eq!(serde_json::from_str::<[Snapshot; 2]>(&record).unwrap(), snapshots);
}

/// Tables 1 and 3 as they are printed, a second time: data, model, C; MSE's γ_emp, γ_AWD and γ′_AWD, CE's γ_emp and γ_AWD.
const PUBLISHED: &str = "
    mnist mlp 3 | 1.07±0.02 1.14±0.02 1.07±0.02 | 1.22±0.01 1.24±0.01
    mnist mlp 6 | 1.01±0.01 1.08±0.01 1.03±0.01 | 1.19±0.01 1.19±0.01
    mnist mlp 10 | 0.96±0.01 1.03±0.01 1.00±0.01 | 1.14±0.01 1.14±0.01
    mnist cnn 3 | 0.99±0.01 1.05±0.02 1.02±0.02 | 1.38±0.05 1.33±0.03
    mnist cnn 6 | 1.03±0.01 1.06±0.01 1.05±0.01 | 1.33±0.01 1.31±0.01
    mnist cnn 10 | 0.98±0.01 1.05±0.01 1.03±0.01 | 1.31±0.02 1.29±0.02
    cifar10 mlp 3 | 1.12±0.04 1.17±0.03 1.09±0.03 | 1.27±0.04 1.27±0.04
    cifar10 mlp 6 | 1.03±0.01 1.08±0.02 1.06±0.02 | 1.43±0.01 1.43±0.01
    cifar10 mlp 10 | 1.00±0.02 1.03±0.02 1.03±0.02 | 1.51±0.03 1.47±0.03
    cifar10 cnn 3 | 1.04±0.04 1.09±0.03 1.06±0.03 | 1.10±0.01 1.11±0.01
    cifar10 cnn 6 | 1.00±0.01 1.01±0.01 0.97±0.01 | 1.08±0.02 1.08±0.01
    cifar10 cnn 10 | 1.01±0.01 1.02±0.01 0.97±0.01 | 1.08±0.01 1.08±0.01
";

/// The same rows from the settings.
fn published_rows(dataset: ImageSet) -> Vec<String> {
    let mut rows = Vec::new();
    for model in [Architecture::Mlp, Architecture::Cnn] {
        for classes in CLASSES {
            let of = |loss| {
                Setting::find(dataset, model, loss, classes, Preset::Paper).unwrap().published.unwrap()
            };
            let (mse, entropy) = (of(Loss::SoftmaxMse), of(Loss::CrossEntropy));
            assert_eq!(entropy.awd_raw, None);
            let [emp, awd, raw, ce_emp, ce_awd] =
                [mse.emp, mse.awd, mse.awd_raw.unwrap(), entropy.emp, entropy.awd]
                    .map(|gamma| format!("{:.2}±{:.2}", gamma.mean, gamma.std));
            rows.push(format!("{dataset} {model} {classes} | {emp} {awd} {raw} | {ce_emp} {ce_awd}"));
        }
    }
    rows
}

#[test]
fn settings_cover_both_tables() {
    let mut cells = 0;
    for dataset in [ImageSet::Mnist, ImageSet::Cifar10] {
        for model in [Architecture::Mlp, Architecture::Cnn] {
            for loss in [Loss::CrossEntropy, Loss::SoftmaxMse] {
                for classes in CLASSES {
                    let paper = Setting::find(dataset, model, loss, classes, Preset::Paper).unwrap();
                    assert!(paper.published.is_some() && paper.top <= 1_500);
                    let quick = Setting::find(dataset, model, loss, classes, Preset::Quick).unwrap();
                    let images = |setting: &Setting| setting.per_class as u64 * setting.epochs;
                    assert!(quick.per_class < paper.per_class && images(&quick) < images(&paper));
                    cells += 1;
                }
            }
        }
    }
    assert_eq!(cells, 24);
    let found: Vec<String> =
        [ImageSet::Mnist, ImageSet::Cifar10].into_iter().flat_map(published_rows).collect();
    let expected: Vec<&str> = PUBLISHED.trim().lines().map(str::trim).collect();
    assert_eq!(found, expected);

    let find =
        |dataset, loss, classes| Setting::find(dataset, Architecture::Mlp, loss, classes, Preset::Paper);
    let cell = find(ImageSet::Cifar10, Loss::CrossEntropy, 10).unwrap();
    assert_eq!((cell.per_class, cell.batch_size, cell.epochs, cell.top), (2_000, 100, 150, 1_500));
    assert_eq!(cell.name(), "cifar10-mlp-cross-entropy-10");
    assert!(find(ImageSet::Synthetic, Loss::CrossEntropy, 3).unwrap().published.is_none());
    assert!(matches!(find(ImageSet::Mnist, Loss::CrossEntropy, 4), Err(Error::Argument { .. })));
    assert!(matches!(find(ImageSet::Mnist, Loss::SquaredError, 3), Err(Error::Argument { .. })));
}

/// C less the square of a mean gradient along direction 4.
fn centred(members: &Members) -> Mat<f64> {
    let mut centred = members.covariance(Member::Empirical).clone();
    centred[(3, 3)] -= 0.25;
    centred
}

/// Estimates of C that are powers of H, in its eigenbasis: H^1.2, H^1.3 and so on; `E[h²]` = H^1.5.
fn power_law_members(dimension: usize) -> Members {
    let hessian = power_law(dimension, 2.0);
    let diagonal = |power: f64| -> Mat<f64> {
        Mat::from_fn(dimension, dimension, |i, j| if i == j { hessian[i].powf(power) } else { 0.0 })
    };
    let q = haar_orthogonal(dimension, 9);
    let basis = Eigenbasis::of(with_spectrum(&q, &hessian).as_ref()).unwrap();
    let covariances = Member::ALL.into_iter().enumerate();
    Members {
        covariances: covariances.map(|(n, member)| (member, diagonal(1.2 + 0.1 * n as f64))).collect(),
        gradient_terms: [diagonal(3.0), diagonal(4.0)],
        curvature_second_moment: hessian.iter().map(|h| h.powf(1.5)).collect(),
        sigma_w2: Some(2.0),
        basis,
    }
}

fn verdicts(blocks: &[Block]) -> Vec<Verdict> {
    let of = |block: &Block| match block {
        Block::Findings { findings } => findings.iter().map(|finding| finding.verdict).collect(),
        _ => vec![],
    };
    blocks.iter().flat_map(of).collect()
}

/// Where every comparison has a value.
fn agreements(blocks: &[Block]) -> Vec<bool> {
    let verdicts = verdicts(blocks);
    assert!(!verdicts.contains(&Verdict::Undefined));
    verdicts.into_iter().map(|verdict| verdict == Verdict::Agrees).collect()
}

fn rows(path: &std::path::Path) -> Vec<Vec<String>> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|line| line.split(',').map(String::from).collect()).collect()
}

#[test]
fn scaling_and_alignment_write_what_they_measure() {
    let members = power_law_members(48);
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("case");
    let blocks = scaling::write(&out, "a < b", &members, &Claims::default(), 30, 0).unwrap();
    // both exponents are within [1, 2]; those of the chain reach from 1.2 to 1.7, which explains nothing
    assert_eq!(agreements(&blocks), [true, true, false]);

    let exponents = rows(&out.join("exponents.csv"));
    assert_eq!(exponents[0], ["estimate", "gamma", "low", "high", "standard_error", "directions"]);
    for (n, row) in exponents[1..].iter().enumerate() {
        assert_eq!((row[0].as_str(), row[5].as_str()), (Member::ALL[n].key(), "30"));
        assert_relative_eq!(row[1].parse::<f64>().unwrap(), 1.2 + 0.1 * n as f64, max_relative = 1e-6);
    }
    let scaling = rows(&out.join("scaling.csv"));
    assert_eq!(
        scaling[0].join(","),
        "index,hessian,curvature_second_moment,covariance,awd_raw,hh,hh_sd,hh_sd_wd,hh_sd_wd_li"
    );
    assert_eq!(scaling.len(), 1 + 48);
    let last: Vec<f64> = scaling[48].iter().map(|field| field.parse().unwrap()).collect();
    assert_eq!(last[..3], [48.0, members.basis.values[47], members.curvature_second_moment[47]]);
    assert_eq!(last[4], members.covariance(Member::Raw)[(47, 47)]);
    let svg = std::fs::read_to_string(out.join("scaling.svg")).unwrap();
    assert!(svg.starts_with("<svg") && svg.contains("a &lt; b") && svg.contains("γ = 1.200"));
    assert!(std::fs::read_to_string(out.join("scaling_members.svg")).unwrap().contains("γ = 1.400"));

    alignment::write(&out, &members, &Claims::default(), 1000, 30, 1).unwrap();
    let read: Vec<alignment::Alignment> =
        serde_json::from_slice(&std::fs::read(out.join("alignment.json")).unwrap()).unwrap();
    for (member, read) in Member::ALL.into_iter().zip(&read) {
        assert_eq!(read.member, member);
        let [observed, random] = [&read.observed, &read.random].map(|of| of.commutativity_error.unwrap());
        assert!(observed < 1e-9 && random > 0.5);
        for map in ["covariance", "correlation", "correlation_random", "correlation_all"] {
            assert!(out.join(format!("{map}_{}.svg", member.key())).exists(), "{map} of {member:?}");
        }
    }
    assert_eq!(rows(&out.join("alignment.csv"))[0], ["estimate", "measure", "observed", "random"]);
    let parts = std::fs::read_dir(&out).unwrap().filter(|entry| {
        entry.as_ref().unwrap().path().extension().is_some_and(|extension| extension == "part")
    });
    assert_eq!(parts.count(), 0);
}

#[test]
fn evolution_writes_what_was_measured() {
    let members = power_law_members(40);
    let snapshots: Vec<Snapshot> = [1, 10]
        .into_iter()
        .map(|epoch| Snapshot::of(epoch, (0.1, 1.0), &members, &centred(&members), 30).unwrap())
        .collect();
    let [hg, gg] = snapshots[0].gradient_norms;
    assert_relative_eq!(hg, members.gradient_terms[0].norm_l2());
    assert_relative_eq!(gg, members.gradient_terms[1].norm_l2());
    let history: Vec<Epoch> =
        (1..=10).map(|epoch| Epoch { epoch, loss: 1.0 / epoch as f64, accuracy: 0.5 }).collect();
    let folder = tempfile::tempdir().unwrap();
    let claims = Claims { converged: Some(30), ..Claims::default() };
    let blocks = evolution::write(folder.path(), &snapshots, &history, &members, &claims).unwrap();
    // C_ii as H^1.2 commutes with H; the gradient terms, H³ and H⁴, are as large as C^hh at H = 1; SD is C^hh less a
    // tenth of a power, WD less two; no epoch has all samples right
    assert_eq!(agreements(&blocks), [true, true, false, true, true, false]);

    let evolution = rows(&folder.path().join("evolution.csv"));
    assert_eq!(evolution.len(), 1 + 2 * (Member::ALL.len() + 3));
    assert_eq!(evolution[1][..2], ["1", "covariance"]);
    assert_relative_eq!(evolution[1][2].parse::<f64>().unwrap(), 1.2, max_relative = 1e-9);
    assert_eq!((evolution[9][1].as_str(), evolution[9][2].as_str()), ("gg", ""));
    // C − g gᵀ is C but for direction 4
    assert_eq!(evolution[7][1], "covariance_centred");
    let (c, norm) = (members.covariance(Member::Empirical), evolution[7][6].parse::<f64>().unwrap());
    let fourth = c[(3, 3)];
    let expected = (c.squared_norm_l2() - fourth.powi(2) + (fourth - 0.25).powi(2)).sqrt();
    assert_relative_eq!(norm, expected, max_relative = 1e-12);
    let diagonals = rows(&folder.path().join("diagonals.csv"));
    assert_eq!(diagonals[0].join(","), "index,covariance,awd_raw,hh,hh_sd,hh_sd_wd,hh_sd_wd_li,hg,gg");
    assert_eq!(diagonals.len(), 1 + 40);
    for letter in 'a'..='h' {
        let svg = std::fs::read_to_string(folder.path().join(format!("evolution_{letter}.svg"))).unwrap();
        assert!(svg.contains(&format!("{letter}. ")), "panel {letter}");
    }
}

#[test]
fn targets_by_the_papers_numbers() {
    let parse = |name: &str| name.parse::<Target>().unwrap();
    assert_eq!(parse("figure6").parts, [Part::Evolution]);
    let (mlp, cnn) = (Architecture::Mlp, Architecture::Cnn);
    let mnist_mse = (ImageSet::Mnist, mlp, Loss::SoftmaxMse);
    assert_eq!(parse("figure6").networks, [(ImageSet::Cifar10, cnn, Loss::CrossEntropy)]);
    assert_eq!(parse("figure14").networks, [mnist_mse]);
    assert_eq!(parse("figure3").networks, [(ImageSet::Cifar10, mlp, Loss::CrossEntropy), mnist_mse]);
    assert_eq!(parse("table3").networks, [mnist_mse]);
    assert_eq!((parse("all").networks, parse("figure2").networks), (vec![], vec![]));
    // of another layer, and of a checkpoint alone
    let figures = [Part::Scaling, Part::Alignment, Part::Evolution, Part::Suppression, Part::Bounds];
    assert_eq!(parse("all").of_layer(true).parts, figures);
    let measured = [Part::Scaling, Part::Alignment, Part::Suppression, Part::Bounds];
    assert_eq!(parse("all").of_layer(false).parts, measured);
    assert_eq!(parse("evolution").of_layer(false).parts, [Part::Evolution]);
    assert_eq!(parse("table3").parts, [Part::Tables]);
    assert_eq!(parse("all").parts.len(), 7);
    assert!(!parse("synthetic").needs_network() && parse("bounds").has_figures());
    // several at once, in the order in which they are made; of networks of their own where all name some
    let several = parse("alignment,table1,scaling,alignment");
    assert_eq!(several.parts, [Part::Tables, Part::Scaling, Part::Alignment]);
    assert_eq!((several.networks, parse("figure8,figure11").networks.len()), (vec![], 1));
    assert_eq!(parse("figure8,figure9").networks.len(), 2);
    for name in ["figure0", "figure16", "table2", "Figure1", "figure", "", "scaling,", "all,table2"] {
        assert!(matches!(name.parse::<Target>(), Err(Error::Argument { .. })), "{name}");
    }
}

/// A run of `setting` with the given exponents, measured nowhere.
fn run_with(setting: &Setting, seed: u64, emp: f64, awd: f64, awd_raw: f64) -> tables::Run {
    let fit = |slope| Exponent {
        fit: Some(LineFit { slope, intercept: 0.0, slope_error: 0.01, points: 100 }),
        interval: Some(Interval { low: slope - 0.5, high: slope + 0.5 }),
        undefined: Undefined::default(),
    };
    tables::Run {
        training: Training::of(setting, seed, "data".into()),
        history: vec![
            Epoch { epoch: 1, loss: 0.5, accuracy: 0.9 },
            Epoch { epoch: 2, loss: 0.1, accuracy: 1.0 },
        ],
        end: tables::End {
            loss: 0.1,
            accuracy: 1.0,
            exponents: Exponents { emp: fit(emp), awd: fit(awd), awd_raw: fit(awd_raw) },
        },
    }
}

#[test]
fn a_cell_is_compared_with_the_published_values() {
    let find = |loss| Setting::find(ImageSet::Mnist, Architecture::Mlp, loss, 10, Preset::Paper).unwrap();
    let setting = find(Loss::CrossEntropy);
    let runs = [run_with(&setting, 0, 1.13, 1.3, 1.1), run_with(&setting, 1, 1.17, 1.3, 1.1)];
    let cell = tables::Cell::of(&setting, &[&runs[0], &runs[1]]).unwrap();
    assert_relative_eq!(cell.emp.mean.unwrap(), 1.15, max_relative = 1e-12);
    assert_relative_eq!(cell.emp.std.unwrap(), 0.04 / 2f64.sqrt(), max_relative = 1e-9);
    assert_relative_eq!(cell.emp.difference().unwrap(), 0.01, max_relative = 1e-9);
    let agreement: Vec<bool> = cell.findings().iter().map(|of| of.verdict == Verdict::Agrees).collect();
    assert_eq!(agreement, [true, false], "γ′_AWD was not published for cross-entropy");

    let single = tables::Cell::of(&setting, &[&runs[0]]).unwrap();
    assert_eq!(single.emp.std, None);
    let text = tables::table(&[single, cell.clone()]).to_text();
    assert!(text.lines().nth(1).unwrap().contains("1.130") && text.contains("1.150 ± 0.028"));

    let squared = find(Loss::SoftmaxMse);
    let other = tables::Cell::of(&squared, &[&run_with(&squared, 0, 0.96, 1.03, 1.06)]).unwrap();
    let agreement: Vec<bool> = other.findings().iter().map(|of| of.verdict == Verdict::Agrees).collect();
    assert_eq!(agreement, [true, true, false], "γ′_AWD is published as 1.00");

    let folder = tempfile::tempdir().unwrap();
    tables::write_runs(folder.path(), &runs).unwrap();
    tables::write_summary(folder.path(), std::slice::from_ref(&cell)).unwrap();
    let csv = std::fs::read_to_string(folder.path().join("table1.csv")).unwrap();
    assert_eq!(
        csv.lines().next().unwrap(),
        "dataset,model,loss,classes,seed,gamma_emp,gamma_emp_low,gamma_emp_high,gamma_awd,gamma_awd_low,\
         gamma_awd_high,gamma_awd_raw,gamma_awd_raw_low,gamma_awd_raw_high,train_loss,train_accuracy"
    );
    let line: Vec<&str> = csv.lines().nth(2).unwrap().split(',').collect();
    assert_eq!(line[..6], ["mnist", "mlp", "cross-entropy", "10", "1", "1.17"]);
    assert_eq!((line[8], &line[11..]), ("1.3", &["1.1", "0.6000000000000001", "1.6", "0.1", "1.0"][..]));

    let how = serde_json::json!({ "seeds": [0, 1] });
    let failures = ["another could not be made: for a reason".to_string()];
    let page = page::page(Some("Small ones."), (&[cell, other], &runs), &[], None, &failures, &how);
    let html = page.unwrap().render().unwrap();
    assert!(html.contains("Small ones.") && html.contains("could not be made: for a reason."));
    assert!(html.contains("<td class=\"number\">1.150 ± 0.028</td>") && html.contains("0, 1"));
    assert!(html.contains("<svg") && !html.contains("src=") && !html.contains("href="));
}

#[test]
fn an_exponent_that_is_undefined_is_so_in_its_row() {
    let setting =
        Setting::find(ImageSet::Mnist, Architecture::Mlp, Loss::CrossEntropy, 10, Preset::Paper).unwrap();
    let mut runs = [0, 1].map(|seed| run_with(&setting, seed, 1.1, 1.1, 1.1));
    runs[1].end.exponents.emp = Exponent::of(&[1.0; 9], &[0.0; 9], 9, 0).unwrap();
    let cell = tables::Cell::of(&setting, &[&runs[0], &runs[1]]).unwrap();
    let findings = cell.findings();
    assert_eq!(findings[0].verdict, Verdict::Undefined);
    assert_eq!(
        findings[0].sentence,
        "γ_emp of mnist, mlp, cross-entropy, 10 classes is undefined: of 0 points, 3 are needed; a point is a direction with curvature and noise."
    );
    assert_eq!(findings[1].verdict, Verdict::Differs);
    let text = tables::table(std::slice::from_ref(&cell)).to_text();
    assert!(text.lines().nth(1).unwrap().contains("  undefined  1.14 ± 0.01  1.100 ± 0.000  "), "{text}");
    let folder = tempfile::tempdir().unwrap();
    tables::write_runs(folder.path(), &runs).unwrap();
    tables::write_summary(folder.path(), std::slice::from_ref(&cell)).unwrap();
    assert_eq!(rows(&folder.path().join("table1.csv"))[2][4..9], ["1", "", "", "", "1.1"]);
    assert_eq!(rows(&folder.path().join("table1_summary.csv"))[1][5..7], ["", ""]);
}

#[test]
fn cifar_alone_is_scaled() {
    let images = || Dataset::new(vec![0.0, 0.25, 1.0], vec![3], Targets::Classes(vec![0])).unwrap();
    for (set, expected) in [(ImageSet::Mnist, [0.0, 0.25, 1.0]), (ImageSet::Cifar10, [-1.0, -0.5, 1.0])] {
        let mut scaled = images();
        set.scale(&mut scaled);
        assert_eq!(scaled.inputs, expected);
    }
}

#[test]
fn sizes_that_depart_from_the_papers_are_told() {
    let quick =
        Setting::find(ImageSet::Cifar10, Architecture::Cnn, Loss::SoftmaxMse, 3, Preset::Quick).unwrap();
    let sizes =
        ["500 images a class in place of 5000", "batches of 16 in place of 128", "60 epochs in place of 500"];
    assert_eq!(quick.departures(0.951), sizes);
    assert_eq!(quick.departures(0.5)[3], "training accuracy 50.0 % in place of > 95 %");
    let paper =
        Setting::find(ImageSet::Mnist, Architecture::Mlp, Loss::CrossEntropy, 3, Preset::Paper).unwrap();
    assert_eq!(paper.departures(1.0), [""; 0]);
    assert_eq!(paper.departures(0.951), ["training accuracy 95.1 % in place of 100 %"]);
}

#[test]
fn claims_are_those_of_the_figures() {
    let (mlp, cnn) = (Architecture::Mlp, Architecture::Cnn);
    let of = |dataset, model: Architecture, loss, classes| {
        let setting = Setting::find(dataset, model, loss, classes, Preset::Paper).unwrap();
        Claims::of(Some(&setting), model.network(dataset).1, 1.0)
    };
    let suppression = |theta, stiff, gamma| Some(PublishedSuppression { theta, stiff, gamma });
    let cifar = of(ImageSet::Cifar10, mlp, Loss::CrossEntropy, 10);
    assert_eq!((cifar.suppression, cifar.theta()), (suppression(0.001, 36, 1.4), 0.001));
    let mse = of(ImageSet::Mnist, mlp, Loss::SoftmaxMse, 10);
    assert_eq!((mse.suppression, mse.scaling_top), (suppression(0.05, 33, 1.05), Some(1_500)));
    let entropy = of(ImageSet::Mnist, mlp, Loss::CrossEntropy, 10);
    assert_eq!((entropy.suppression, entropy.converged), (suppression(0.05, 20, 1.1), Some(30)));
    let figure1 = of(ImageSet::Cifar10, cnn, Loss::CrossEntropy, 10);
    assert_eq!((figure1.coupling, figure1.effective_rank), (Some(0.066), Some(20.0)));
    assert_eq!((figure1.theta(), figure1.departure), (0.05, None));

    // another number of classes departs from the figure's, and has Table 2's number of directions
    let three = of(ImageSet::Mnist, mlp, Loss::CrossEntropy, 3);
    assert_eq!((three.scaling_top, three.departure.as_deref()), (None, Some("3 classes in place of 10")));
    assert_eq!(of(ImageSet::Mnist, cnn, Loss::CrossEntropy, 3).departure, None);
    // nothing is published of other layers and other images
    let other = Setting::find(ImageSet::Mnist, mlp, Loss::CrossEntropy, 10, Preset::Paper).unwrap();
    assert_eq!(Claims::of(Some(&other), "4.weight", 1.0), Claims::default());
    let drawn = of(ImageSet::Synthetic, mlp, Loss::CrossEntropy, 10);
    assert_eq!(drawn.departure.as_deref(), Some("drawn digits in place of MNIST"));
    assert_eq!((drawn.exponents, drawn.suppression), (None, None));
}

#[test]
fn a_comparison_says_how_the_network_departs_whatever_it_comes_to() {
    let departure = Some("3 classes in place of 10".to_string());
    let claims = Claims { departure, ..Claims::default() };
    let why = "(the network is not the paper’s: 3 classes in place of 10)";
    let agrees = claims.compare("μ of C", 0.07216, 0.066, 0.25);
    assert_eq!(agrees.verdict, Verdict::Agrees);
    assert_eq!(
        agrees.sentence,
        format!("μ of C is 0.0722, 0.066 published: +9 %, 25 % being allowed for {why}.")
    );
    let apart = claims.compare("The number", 13.0, 20.0, 0.1);
    assert_eq!(apart.verdict, Verdict::Differs);
    assert_eq!(
        apart.sentence,
        format!("The number is 13, 20 published: -35 %, 10 % being allowed for {why}.")
    );
    let papers = Claims::default().compare("The number", 20.0, 20.0, 0.1);
    assert_eq!(papers.sentence, "The number is 20, 20 published: +0 %, 10 % being allowed for.");

    // and so do those of the tables: exponents, and the claims on several cells
    let quick = |loss| Setting::find(ImageSet::Mnist, Architecture::Mlp, loss, 10, Preset::Quick).unwrap();
    let cell = |loss, emp, awd, awd_raw| {
        let setting = quick(loss);
        tables::Cell::of(&setting, &[&run_with(&setting, 0, emp, awd, awd_raw)]).unwrap()
    };
    for (awd, verdict) in [(1.14, Verdict::Agrees), (1.4, Verdict::Differs)] {
        let cells = [
            cell(Loss::CrossEntropy, awd, awd, awd),
            cell(Loss::SoftmaxMse, 0.5 * awd, awd, if verdict == Verdict::Agrees { 0.6 } else { 2.0 }),
        ];
        assert_eq!(cells[0].findings()[0].verdict, verdict);
        let why = "(the network is not the paper’s: 500 images a class in place of 2000)";
        let page = page::page(
            None,
            (&cells, &[run_with(&cells[0].setting, 0, 1.0, 1.0, 1.0)]),
            &[],
            None,
            &[],
            &().into(),
        );
        let html = page.unwrap().render().unwrap();
        // three exponents and two of them published for cross-entropy, one of each claim
        assert_eq!(html.matches(why).count(), 2 + 3 + 2, "{html}");
    }
}

#[test]
fn a_run_on_record_stands_only_under_its_own_identity() {
    let setting =
        Setting::find(ImageSet::Mnist, Architecture::Mlp, Loss::CrossEntropy, 3, Preset::Paper).unwrap();
    let network = Network::new(&Model::mlp(&[3, 4, 2], Layer::Relu, true)).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("run");
    let open = |training: &Training, leave| Records::open(&place, gpu(), training, "2.weight", leave);
    let trained = |training: &Training, keep: &[u64]| {
        open(training, Leave::default()).unwrap().trained(&network, keep).unwrap()
    };
    let training = Training::of(&setting, 2, "data".into());
    let keep = [1, 3];
    assert_eq!(trained(&training, &keep), None);

    let mut run = Trained { training: training.clone(), history: vec![], checkpoints: vec![] };
    for epoch in 1..=4 {
        run.history.push(Epoch { epoch, loss: 0.5, accuracy: 0.9 });
        let parameters = network.initial_parameters(epoch);
        let records = open(&training, Leave::default()).unwrap();
        records.keep_trained(&mut run, &network, &parameters, &keep).unwrap();
        drop(records);
        assert_eq!(trained(&training, &keep), Some((run.clone(), parameters)), "after epoch {epoch}");
    }
    let checkpoint = |epoch: u64| place.join(format!("epoch-{epoch:06}.safetensors"));
    let there: Vec<bool> = (1..=4).map(|epoch| checkpoint(epoch).exists()).collect();
    assert_eq!(there, [true, false, true, true], "the second was to make room");

    let other_data = Training { data: "other data".into(), ..training.clone() };
    for (other, difference) in [
        (&Training { epochs: 99, ..training.clone() }, "training.epochs: found 100, expected 99"),
        (&other_data, "training.data: found data, expected other data"),
        (&Training { seed: 3, ..training.clone() }, "training.seed: found 2, expected 3"),
    ] {
        let refused = open(other, Leave::default()).err().unwrap().to_string();
        assert_eq!(refused, format!("{}: found another run: {difference}", place.display()));
    }
    assert_eq!(trained(&training, &[2]), None, "epoch 2 is not on record");
    let anyway = open(&other_data, Leave { resume_anyway: true, overwrite: false }).unwrap();
    assert_eq!(anyway.trained(&network, &keep).unwrap().unwrap().0.history, run.history);
    drop(anyway);
    let over = open(&other_data, Leave { resume_anyway: false, overwrite: true }).unwrap();
    assert_eq!(over.trained(&network, &keep).unwrap(), None);
    assert!(checkpoint(4).exists(), "nothing is removed before anything is written");
    drop(over);

    write_parameters(checkpoint(4), &network.signature(), &network.initial_parameters(9), &[]).unwrap();
    assert_eq!(trained(&training, &keep), None, "other parameters");
    std::fs::write(place.join("training.json"), "{ half").unwrap();
    assert_eq!(trained(&training, &keep), None);
}

#[test]
fn a_measurement_on_record_stands_only_under_its_own_identity() {
    let folder = tempfile::tempdir().unwrap();
    let setting =
        Setting::find(ImageSet::Mnist, Architecture::Mlp, Loss::CrossEntropy, 3, Preset::Paper).unwrap();
    let training = Training::of(&setting, 2, "data".into());
    let records = Records::open(folder.path(), gpu(), &training, "2.weight", Leave::default()).unwrap();
    let measuring = Measuring {
        parameters: "p".into(),
        data: "d".into(),
        layer: "2.weight".into(),
        loss: Loss::CrossEntropy,
        top: 10,
        batch_size: 5,
        pairs: 100,
        version: "0.0.0".into(),
        adapter: "a".into(),
        measures: MEASURES,
    };
    records.keep("end", &measuring, 1.5).unwrap();
    assert_eq!(records.find::<f64>("end", &measuring).unwrap(), Some(1.5));
    assert_eq!(records.find::<f64>("epoch", &measuring).unwrap(), None);
    for other in [
        Measuring { parameters: "q".into(), ..measuring.clone() },
        Measuring { layer: "4.weight".into(), ..measuring.clone() },
        Measuring { pairs: 200, ..measuring.clone() },
        Measuring { adapter: "b".into(), ..measuring.clone() },
        Measuring { measures: MEASURES + 1, ..measuring.clone() },
    ] {
        assert_eq!(records.find::<f64>("end", &other).unwrap(), None);
    }
}
