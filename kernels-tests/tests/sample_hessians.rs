//! Each sample's Hessian and GGN, made in one sweep, against the f64 reference and problems of that sample alone.

use curvkit::Error;
use curvkit::gpu::{Gpu, GpuOptions};
use curvkit::net::{Network, Subspace};
use curvkit::operators::{Block, Curvature, OperatorFamily, SampleOperators, Session, SymmetricOperator};
use curvkit::spectral::{FamilyOptions, family_eigenpairs, unobserved};
use kernels_tests::cases::{Case, assert_close, cases, op_cases, random};
use kernels_tests::device::{bindings_of, gpu, own_device};
use kernels_tests::f64s;

/// Below this a result counts as zero: parameters, inputs and directions are all of order one.
const SCALE: f64 = 1e-3;

const BOTH: [Curvature; 2] = [Curvature::Hessian, Curvature::Ggn];

fn problem(gpu: &Gpu, case: &Case) -> Session {
    let network = Network::new(&case.model).unwrap();
    Session::new(gpu, &network, &case.parameters, &case.data, case.loss).unwrap()
}

/// A case's network on 23 samples.
fn convolutional() -> Case {
    let case = op_cases().into_iter().find(|case| case.name.starts_with("residual of convolutions")).unwrap();
    let samples: Vec<usize> = (0..23).map(|p| p % 5).collect();
    let mut data = case.data.select(&samples);
    data.inputs = random(11, data.inputs.len());
    Case { data, ..case }
}

/// `A_p x` for the members p, `[members, b, dim]`, in what held other things before; the padding has to be zero.
fn products(family: &SampleOperators, members: std::ops::Range<usize>, x: &[f32]) -> Vec<f32> {
    let (gpu, stride) = (family.gpu(), family.stride());
    let from = Block::upload(gpu, stride, &family.pad(x).unwrap()).unwrap();
    let to = Block::upload(gpu, stride, &vec![f32::NAN; from.len() * stride]).unwrap();
    family.apply(members, &from, &to).unwrap();
    let padded = to.download().unwrap();
    let flat = family.unpad(&padded).unwrap();
    assert!(family.pad(&flat).unwrap() == padded, "words that are no coordinates");
    flat
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
}

fn norm(x: &[f32]) -> f64 {
    dot(x, x).sqrt()
}

/// Two vectors a member, each member's its own: products, symmetry, and the mean over members.
#[test]
fn members_are_their_samples_alone() {
    for case in cases().into_iter().chain(op_cases()) {
        let problem = problem(gpu(), &case);
        let all = problem.network().all();
        let (n, dim) = (case.data.len(), all.dim);
        let x = random(5, n * 2 * dim);
        for which in BOTH {
            let family = problem.sample_operators(which, &all).unwrap();
            assert_eq!((family.count(), family.dim()), (n, dim));
            let y = products(&family, 0..n, &x);
            // the largest ‖A x‖ / ‖x‖ that was met stands for ‖A‖: a vector of few coordinates may be met by nothing
            let stretch = |(x, y): (&[f32], &[f32])| norm(y) / norm(x);
            let size = x.chunks(dim).zip(y.chunks(dim)).map(stretch).fold(0.0, f64::max);
            for p in 0..n {
                let what = format!("{which:?} of sample {p} of {}", case.name);
                let own = p * 2 * dim..(p + 1) * 2 * dim;
                let (x, y) = (&x[own.clone()], &y[own]);
                let reference = case.sample(p).problem();
                let expected = match which {
                    Curvature::Hessian => reference.hvp(x),
                    _ => reference.ggnvp(x),
                };
                assert_close(&what, y, &expected, 5e-5, SCALE);
                let ((u, v), (au, av)) = (x.split_at(dim), y.split_at(dim));
                let off = (dot(u, av) - dot(v, au)).abs();
                assert!(
                    off <= 2e-6 * size * norm(u) * norm(v),
                    "{what}: uᵀAv − vᵀAu = {off:e}, ‖A‖ ≥ {size:e}"
                );
            }
            let v = &case.v[..dim];
            let together = products(&family, 0..n, &v.repeat(n));
            let mean: Vec<f64> = (0..dim)
                .map(|i| (0..n).map(|p| f64::from(together[p * dim + i])).sum::<f64>() / n as f64)
                .collect();
            let whole = match which {
                Curvature::Hessian => problem.hvp(&all, v).unwrap(),
                _ => problem.ggnvp(&all, v).unwrap(),
            };
            assert_close(&format!("mean {which:?} of {}", case.name), &whole, &mean, 5e-6, SCALE);
        }
    }
}

/// The engine beside itself: what a sweep of one sample makes.
#[test]
fn members_are_problems_of_one_sample() {
    for case in cases().into_iter().chain(op_cases()).step_by(3) {
        let (n, whole) = (case.data.len().min(5), problem(gpu(), &case));
        let all = whole.network().all();
        for which in BOTH {
            let family = whole.sample_operators(which, &all).unwrap();
            let x = random(6, n * all.dim);
            let y = products(&family, 0..n, &x);
            for (p, (x, y)) in x.chunks(all.dim).zip(y.chunks(all.dim)).enumerate() {
                let alone = problem(gpu(), &case.sample(p));
                let operator = alone.operator(which, &all).unwrap();
                let from = Block::upload(gpu(), all.stride, &operator.pad(x).unwrap()).unwrap();
                let to = Block::zeros(gpu(), all.stride, 1).unwrap();
                operator.apply(&from, &to).unwrap();
                let expected = f64s(&operator.unpad(&to.download().unwrap()).unwrap());
                assert_close(&format!("{which:?} {p} of {}", case.name), y, &expected, 1e-5, SCALE);
            }
        }
    }
}

/// Ranges that begin anywhere, several vectors a member, and parts that do not come out even.
#[test]
fn parts_make_the_whole() {
    let case = convolutional();
    let whole = problem(gpu(), &case);
    let all = whole.network().all();
    for which in BOTH {
        let reference = whole.sample_operators(which, &all).unwrap();
        for (budget, members, each) in [(400_000, 0..23, 1), (560_000, 3..20, 2), (130_000, 22..23, 7)] {
            let x = random(7, members.len() * each * all.dim);
            let expected = f64s(&products(&reference, members.clone(), &x));
            let gpu =
                Gpu::new(&GpuOptions { memory_budget: Some(budget), ..GpuOptions::from_env() }).unwrap();
            let cut = problem(&gpu, &case);
            let family = cut.sample_operators(which, &all).unwrap();
            let what = format!("{which:?} of {members:?}, {each} vectors each, in {budget} bytes");
            for time in ["first", "second"] {
                let found = products(&family, members.clone(), &x);
                assert_close(&format!("{what}, {time} time"), &found, &expected, 1e-6, SCALE);
            }
            // a sweep of another size, and back
            products(&family, 5..6, &x[..all.dim]);
            let found = products(&family, members.clone(), &x);
            assert_close(&what, &found, &expected, 1e-6, SCALE);
            assert!(gpu.peak_memory() <= budget, "{what}: {} bytes", gpu.peak_memory());
        }
    }
    let cramped = own_device(bindings_of(16 << 10), None);
    let cut = problem(&cramped, &case);
    let family = cut.sample_operators(Curvature::Hessian, &all).unwrap();
    let x = random(7, 23 * all.dim);
    let expected = products(&whole.sample_operators(Curvature::Hessian, &all).unwrap(), 0..23, &x);
    assert_close("small bindings", &products(&family, 0..23, &x), &f64s(&expected), 1e-6, SCALE);
}

#[test]
fn restricted_to_some_parameters_is_rows_and_columns_of_the_whole() {
    for case in op_cases() {
        let problem = problem(gpu(), &case);
        let network = problem.network();
        let (n, all) = (case.data.len(), network.all());
        let names: Vec<&str> = network.parameters().iter().map(|p| p.name.as_str()).collect();
        // every second parameter, and the last one alone
        let spaces = [names.iter().copied().step_by(2).collect(), vec![names[names.len() - 1]]];
        for names in spaces {
            let space: Subspace = network.restricted(&names).unwrap();
            let parts = network.parameters().iter().filter(|p| names.contains(&p.name.as_str()));
            let chosen: Vec<usize> = parts.flat_map(|p| p.offset..p.offset + p.len).collect();
            let v = random(8, n * space.dim);
            let mut embedded = vec![0.0; n * all.dim];
            for (v, embedded) in v.chunks(space.dim).zip(embedded.chunks_mut(all.dim)) {
                chosen.iter().zip(v).for_each(|(&i, &v)| embedded[i] = v);
            }
            for which in BOTH {
                let whole = products(&problem.sample_operators(which, &all).unwrap(), 0..n, &embedded);
                let part = products(&problem.sample_operators(which, &space).unwrap(), 0..n, &v);
                for (p, (whole, part)) in whole.chunks(all.dim).zip(part.chunks(space.dim)).enumerate() {
                    let expected: Vec<f64> = chosen.iter().map(|&i| f64::from(whole[i])).collect();
                    let what = format!("{which:?} of sample {p} of {} at {names:?}", case.name);
                    assert_close(&what, part, &expected, 1e-5, SCALE);
                }
            }
        }
    }
}

/// Eigenpairs, their bases included, keep within the memory budget, and are those of a device with more.
#[test]
fn a_solver_and_its_products_share_the_budget() {
    let case = convolutional();
    let options = FamilyOptions { max_steps: Some(20), ..FamilyOptions::new(2) };
    let values = |gpu: &Gpu| {
        let problem = problem(gpu, &case);
        let family = problem.sample_operators(Curvature::Hessian, &problem.network().all()).unwrap();
        let mut all = Vec::new();
        let mut groups = 0;
        family_eigenpairs(
            &family,
            &options,
            |found| {
                groups += 1;
                all.extend(found.values);
                Ok(())
            },
            &mut unobserved,
        )
        .unwrap();
        (all, groups)
    };
    let budget = 800_000;
    let gpu_ = Gpu::new(&GpuOptions { memory_budget: Some(budget), ..GpuOptions::from_env() }).unwrap();
    let (found, groups) = values(&gpu_);
    println!("{groups} groups, peak {}", gpu_.peak_memory());
    assert!(groups > 1, "the bases should not find room together");
    assert!(gpu_.peak_memory() <= budget, "{} of {budget} bytes", gpu_.peak_memory());
    assert_close("eigenvalues", &found, &values(gpu()).0, 1e-5, SCALE);
}

#[test]
fn the_same_bits_every_time() {
    let case = convolutional();
    let bits = |gpu: &Gpu| {
        let problem = problem(gpu, &case);
        let all = problem.network().all();
        let family = problem.sample_operators(Curvature::Hessian, &all).unwrap();
        let x = random(9, 23 * all.dim);
        products(&family, 0..23, &x).into_iter().map(f32::to_bits).collect::<Vec<_>>()
    };
    let first = bits(gpu());
    assert!(first == bits(gpu()), "two evaluations on one device differ");
    assert!(first == bits(&Gpu::new(&GpuOptions::from_env()).unwrap()), "two devices differ");
}

#[test]
fn what_cannot_be_asked_for_is_refused() {
    let case = convolutional();
    let whole = problem(gpu(), &case);
    let all = whole.network().all();
    let error = whole.sample_operators(Curvature::NoiseCovariance, &all).err().unwrap().to_string();
    let expected = "curvature: found NoiseCovariance, expected the Hessian, the GGN or the Jacobians' Gram matrix: a sample's gradients are one";
    assert_eq!(error, expected);
    let family = whole.sample_operators(Curvature::Ggn, &all).unwrap();
    let block = |len| Block::zeros(gpu(), all.stride, len).unwrap();
    let refused = |members, x: &Block, y: &Block| family.apply(members, x, y).err().unwrap().to_string();
    assert_eq!(refused(20..24, &block(4), &block(4)), "members: found 20..24, expected some of 0..23");
    let expected = format!("block Y: found shape [3, {0}], expected [4, {0}]", all.stride);
    assert_eq!(refused(0..2, &block(4), &block(3)), expected);
    let expected = format!("block X: found shape [5, {0}], expected [4, {0}]", all.stride);
    assert_eq!(refused(0..2, &block(5), &block(4)), expected);
    family.apply(3..3, &block(0), &block(0)).unwrap();

    let tiny = Gpu::new(&GpuOptions { memory_budget: Some(60_000), ..GpuOptions::from_env() }).unwrap();
    let problem = problem(&tiny, &case);
    let family = problem.sample_operators(Curvature::Hessian, &all).unwrap();
    let (x, y) = (Block::zeros(&tiny, all.stride, 1).unwrap(), Block::zeros(&tiny, all.stride, 1).unwrap());
    let error = family.apply(0..1, &x, &y).err().unwrap();
    assert!(matches!(error, Error::OutOfMemory { .. }), "{error}");
}
