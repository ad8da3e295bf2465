//! The Activity–Weight Duality of `papers::superlinear` against matrices that are formed sample by sample, in f64.

use curvkit::Error;
use curvkit::data::{Dataset, Targets};
use curvkit::net::{Layer, Loss, Model, Network};
use curvkit::operators::Session;
use curvkit::papers::superlinear::duality::{Chain, States, Terms};
use curvkit::papers::superlinear::measures::{Diagonals, Eigenbasis};
use curvkit::papers::superlinear::members::{Member, Members, diagonal};
use curvkit::papers::superlinear::pairs::{BatchPairs, Pair};
use faer::{Mat, Side};
use kernels_tests::cases::random;
use kernels_tests::device::gpu;
use kernels_tests::{f64s, reference};

const D_IN: usize = 6;
const D_OUT: usize = 5;
const D: usize = D_OUT * D_IN;
const CLASSES: usize = 4;
const SAMPLES: usize = 24;
const BATCH: usize = 8;

/// A small network whose layer `2.weight` is measured, and its data.
struct Small {
    model: Model,
    loss: Loss,
    parameters: Vec<f32>,
    data: Dataset,
}

impl Small {
    fn new(activation: Layer, bias: bool, loss: Loss) -> Small {
        let model = Model::mlp(&[7, D_IN, D_OUT, CLASSES], activation, bias);
        let parameters = Network::new(&model).unwrap().initial_parameters(5);
        let inputs = random(3, SAMPLES * 7);
        let classes = (0..SAMPLES).map(|p| (p * 7 % CLASSES) as u32).collect();
        let data = Dataset::new(inputs, vec![7], Targets::Classes(classes)).unwrap();
        Small { model, loss, parameters, data }
    }

    fn problem(&self) -> Session {
        let network = Network::new(&self.model).unwrap();
        Session::new(gpu(), &network, &self.parameters, &self.data, self.loss).unwrap()
    }

    /// W `[d_out, d_in]`, and the layer's input of each sample by a network that ends there: `[N, d_in]`.
    fn weights_and_inputs(&self) -> (Vec<f64>, Vec<f64>) {
        let range = |name: &str| {
            let mut at = 0;
            for (known, shape) in Network::new(&self.model).unwrap().signature() {
                let len: usize = shape.iter().product();
                if known == name {
                    return at..at + len;
                }
                at += len;
            }
            unreachable!("{name}")
        };
        let weights = range("2.weight");
        let first = Model { layers: self.model.layers[..2].to_vec(), ..self.model.clone() };
        let below = &self.parameters[..weights.start];
        let classes = Dataset::new(
            self.data.inputs.clone(),
            vec![7],
            Targets::Values { values: vec![0.0; SAMPLES * D_IN], width: D_IN },
        );
        let inputs = reference::Problem::new(&first, Loss::Mse, below, &classes.unwrap()).outputs();
        (f64s(&self.parameters[weights]), inputs)
    }
}

/// The whole chain from explicit h_p, g_p and ΔW*.
struct Explicit {
    hh: Mat<f64>,
    hg: Mat<f64>,
    gg: Mat<f64>,
    raw: Mat<f64>,
    sd: Mat<f64>,
    wd: Mat<f64>,
    sigma_w2: f64,
}

fn column(x: &[f64]) -> Mat<f64> {
    Mat::from_fn(x.len(), 1, |i, _| x[i])
}

/// `ΔW* = (W Δa) aᵀ / ‖a‖²`, `[d_out · d_in]` (eq. 9)
fn weight_change(w: &[f64], a: &[f64], partner: &[f64]) -> Vec<f64> {
    let length2: f64 = a.iter().map(|a| a * a).sum();
    let change = |o: usize| (0..D_IN).map(|i| w[o * D_IN + i] * (partner[i] - a[i])).sum::<f64>();
    (0..D).map(|at| change(at / D_IN) * a[at % D_IN] / length2).collect()
}

fn explicit(small: &Small, pairs: &BatchPairs) -> Explicit {
    let oracle = reference::Problem::new(&small.model, small.loss, &small.parameters, &small.data);
    let (w, inputs) = small.weights_and_inputs();
    let input = |p: u32| &inputs[p as usize * D_IN..][..D_IN];
    let all = oracle.per_sample_gradient();
    let before =
        all.len() / SAMPLES - (D + if small.biased() { D_OUT + CLASSES } else { 0 } + D_OUT * CLASSES);
    let gradient = |p: u32| &all[p as usize * (all.len() / SAMPLES) + before..][..D];
    let hessians: Vec<Mat<f64>> = (0..SAMPLES)
        .map(|p| {
            let h = oracle.sample_hessian(p, "2.weight");
            Mat::from_fn(D, D, |i, j| h[(i, j)])
        })
        .collect();

    let zero = || Mat::<f64>::zeros(D, D);
    let (mut hh, mut hg, mut gg, mut raw, mut sd, mut wd) = (zero(), zero(), zero(), zero(), zero(), zero());
    let (mut weighted, mut weights) = (0.0, 0.0);
    let drawn = (pairs.batch_size * pairs.batches.len()) as f64;
    let of_batches = 1.0 / (2.0 * drawn);
    for h in &hessians {
        // ‖h_p‖² = Σ κ², for as many pairs as samples have on average
        weights += h.squared_norm_l2() * drawn / SAMPLES as f64;
    }
    for batch in &pairs.batches {
        let (mut one, mut two) = (Mat::<f64>::zeros(D, 1), Mat::<f64>::zeros(D, 1));
        for &[p, partner] in batch {
            let (a, h) = (input(p), &hessians[p as usize]);
            let dw = column(&weight_change(&w, a, input(partner)));
            let along = h * &dw;
            // (∇Δw*)ᵀ ∇ℓ: Δw* is linear in W, so that a difference is a derivative
            let term_two = |at: usize| {
                let mut moved = w.clone();
                moved[at] += 1.0;
                let change = weight_change(&moved, a, input(partner));
                gradient(p)
                    .iter()
                    .zip(&change)
                    .enumerate()
                    .map(|(i, (g, c))| g * (c - dw[(i, 0)]))
                    .sum::<f64>()
            };
            one += &along;
            two += Mat::from_fn(D, 1, |at, _| term_two(at));
            sd += &along * along.transpose() * faer::Scale(of_batches);
            let eigen = h.self_adjoint_eigen(Side::Lower).unwrap();
            for m in 0..D {
                let (kappa, u) = (eigen.S().column_vector()[m], eigen.U().col(m));
                let component = (u.transpose() * dw.col(0)).powi(2);
                wd += u * u.transpose() * faer::Scale(of_batches * kappa * kappa * component);
                weighted += kappa * kappa * component;
            }
        }
        hh += &one * one.transpose() * faer::Scale(of_batches);
        hg += (&one * two.transpose() + &two * one.transpose()) * faer::Scale(of_batches);
        gg += &two * two.transpose() * faer::Scale(of_batches);
        let both = &one + &two;
        raw += &both * both.transpose() * faer::Scale(of_batches);
    }
    Explicit { hh, hg, gg, raw, sd, wd, sigma_w2: weighted / weights }
}

impl Small {
    fn biased(&self) -> bool {
        Network::new(&self.model).unwrap().signature().iter().any(|(name, _)| name == "2.bias")
    }
}

#[track_caller]
fn assert_near(what: &str, found: &Mat<f64>, expected: &Mat<f64>) {
    let error = (found - expected).norm_l2() / expected.norm_l2();
    assert!(error < 1e-4, "{what}: off by {error:.1e} of its norm");
}

#[test]
fn every_member_is_what_explicit_matrices_give() {
    for (activation, bias, loss) in [
        (Layer::Relu, false, Loss::CrossEntropy),
        (Layer::Tanh, true, Loss::CrossEntropy),
        (Layer::Tanh, true, Loss::SoftmaxMse),
        (Layer::Gelu, false, Loss::Mse),
    ] {
        let small = Small::new(activation, bias, loss);
        // with batches of 7, samples differ in how often they are drawn and how many partners they have
        let batch = if bias { 7 } else { BATCH };
        let pairs = BatchPairs::draw(&small.data, batch, 4 * SAMPLES / batch, 9).unwrap();
        let expected = explicit(&small, &pairs);
        let oracle = reference::Problem::new(&small.model, small.loss, &small.parameters, &small.data);
        let moments = oracle.layer_moments("2.weight");
        let dense = |m: &nalgebra::DMatrix<f64>| Mat::from_fn(D, D, |i, j| m[(i, j)]);
        let basis = Eigenbasis::of(dense(&moments.hessian).as_ref()).unwrap();
        let second = basis.express(dense(&moments.squared_hessian).as_ref()).unwrap();

        let problem = small.problem();
        let layer = problem.layer("2.weight").unwrap();
        let states = States::of(&layer).unwrap();
        let chain = Chain::of(gpu(), &layer, &states, &pairs, &basis, second.as_ref()).unwrap();
        let express = |m: &Mat<f64>| basis.express(m.as_ref()).unwrap();
        assert_near("C^hh", &chain.hh, &express(&expected.hh));
        assert_near("C^hg", &chain.hg, &express(&expected.hg));
        assert_near("C^gg", &chain.gg, &express(&expected.gg));
        assert_near("C_AWD,raw", &chain.raw, &express(&expected.raw));
        assert_near("C^hh,SD", &chain.sd, &express(&expected.sd));
        assert_near("C^hh,SD,WD", &chain.wd, &express(&expected.wd));
        let sigma_w2 = chain.sigma_w2.unwrap();
        let sigma_off = (sigma_w2 / expected.sigma_w2 - 1.0).abs();
        assert!(sigma_off < 1e-4, "σ_w²: {sigma_w2} for {}", expected.sigma_w2);
        assert_near("C^hh,SD,WD,LI", &chain.li, &(&second * faer::Scale(0.5 * expected.sigma_w2)));

        let raw = Terms::of(&states, &pairs).express(&basis).raw_diagonal();
        let expected = diagonal(&chain.raw);
        for (found, expected) in raw.iter().zip(&expected) {
            assert!((found - expected).abs() <= 1e-12 * expected.abs() + 1e-18, "{found} for {expected}");
        }
    }
}

#[test]
fn tables_and_figures_are_of_the_same_diagonals() {
    let small = Small::new(Layer::Tanh, true, Loss::CrossEntropy);
    let pairs = BatchPairs::draw(&small.data, BATCH, 17, 2).unwrap();
    let problem = small.problem();
    let table = Diagonals::of_layer(&problem, "2.weight", &pairs).unwrap();
    let members = Members::measure(&problem, "2.weight", &pairs).unwrap();
    let figures = members.diagonals();

    let oracle = reference::Problem::new(&small.model, small.loss, &small.parameters, &small.data);
    let moments = oracle.layer_moments("2.weight");
    let dense = |m: &nalgebra::DMatrix<f64>| Mat::from_fn(D, D, |i, j| m[(i, j)]);
    let basis = Eigenbasis::of(dense(&moments.hessian).as_ref()).unwrap();
    let of = |matrix: Mat<f64>| basis.diagonal(matrix.as_ref()).unwrap();
    for (what, found, also, expected) in [
        ("H", &table.hessian, &figures.hessian, &basis.values),
        ("C", &table.covariance, &figures.covariance, &of(dense(&moments.gradient_moment))),
        (
            "E[h²]",
            &table.curvature_second_moment,
            &figures.curvature_second_moment,
            &of(dense(&moments.squared_hessian)),
        ),
        ("C_AWD,raw", &table.awd_raw, &figures.awd_raw, &of(explicit(&small, &pairs).raw)),
    ] {
        for found in [found, also] {
            let error = found.iter().zip(expected).map(|(x, y)| (x - y).powi(2)).sum::<f64>().sqrt();
            let norm = expected.iter().map(|y| y * y).sum::<f64>().sqrt();
            assert!(error < 1e-4 * norm, "{what}: off by {:.1e} of its norm", error / norm);
        }
    }
    for (at, member) in Member::ALL.into_iter().enumerate() {
        assert_eq!(members.covariances[at].0, member);
    }
}

/// Of 3 classes of 20, 10 and 6 samples.
fn uneven() -> Dataset {
    let classes: Vec<u32> = (0..36)
        .map(|p| {
            if p < 20 {
                2
            } else if p < 30 {
                0
            } else {
                1
            }
        })
        .collect();
    Dataset::new(random(4, 36 * 5), vec![5], Targets::Classes(classes)).unwrap()
}

#[test]
fn a_partner_is_the_nearest_of_its_class_in_the_next_batch() {
    let data = uneven();
    let Targets::Classes(classes) = &data.targets else { unreachable!() };
    let (batch, rounds) = (9, 3);
    let pairs = BatchPairs::draw(&data, batch, rounds * 4, 1).unwrap();
    let samples = |pairs: &[Pair]| pairs.iter().map(|pair| pair[0]).collect::<Vec<_>>();
    for round in pairs.batches.chunks(4) {
        let mut met: Vec<u32> = round.iter().flat_map(|pairs| samples(pairs)).collect();
        met.sort_unstable();
        assert_eq!(met, (0..36).collect::<Vec<u32>>(), "every sample once a round");
        for (j, of_batch) in round.iter().enumerate() {
            let others = samples(&round[(j + 1) % 4]);
            for class in 0..3 {
                // by their shares 10, 6 and 20 of 36, a batch of 9 has 2.5, 1.5 and 5
                let held = of_batch.iter().filter(|pair| classes[pair[0] as usize] == class).count() as f64;
                let share = [2.5, 1.5, 5.0][class as usize];
                assert!((held - share).abs() <= 1.0, "class {class}: {held} of a batch");
            }
            for &[p, partner] in of_batch {
                let distance = |k: u32| -> f64 {
                    let x = |of: u32| data.inputs[of as usize * 5..][..5].iter().map(|&x| x as f64);
                    x(p).zip(x(k)).map(|(a, b)| (a - b) * (a - b)).sum()
                };
                let of_class = others.iter().copied().filter(|&k| classes[k as usize] == classes[p as usize]);
                let nearest = of_class.min_by(|&k, &l| distance(k).total_cmp(&distance(l))).unwrap();
                assert_eq!(partner, nearest, "of sample {p}");
            }
        }
    }
    assert_eq!(pairs, BatchPairs::draw(&data, batch, rounds * 4, 1).unwrap());
    assert_ne!(pairs, BatchPairs::draw(&data, batch, rounds * 4, 2).unwrap());
}

#[test]
fn a_sample_without_partners_has_no_term() {
    // one sample of class 1, which is in one of the two batches
    let classes = vec![0, 0, 0, 1, 0, 0];
    let data = Dataset::new(random(6, 6 * 2), vec![2], Targets::Classes(classes)).unwrap();
    let pairs = BatchPairs::draw(&data, 3, 2, 0).unwrap();
    let lengths: Vec<usize> = pairs.batches.iter().map(Vec::len).collect();
    assert_eq!(lengths.iter().sum::<usize>(), 5, "{lengths:?}");
}

#[test]
fn what_cannot_be_paired_is_an_error() {
    let data = uneven();
    for batch in [0, 19, 37] {
        let refused = BatchPairs::draw(&data, batch, 3, 0).unwrap_err().to_string();
        let expected = "at most half of the samples, and at least 1";
        assert_eq!(refused, format!("batch_size: found {batch} of 36 samples, expected {expected}"));
    }
    let values = Targets::Values { values: vec![0.0; 36], width: 1 };
    let data = Dataset::new(data.inputs, vec![5], values).unwrap();
    assert!(matches!(BatchPairs::draw(&data, 3, 3, 0), Err(Error::Argument { .. })));
}
