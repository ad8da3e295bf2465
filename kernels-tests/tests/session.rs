//! Sessions and the operators made of them: against explicit f64 matrices, with θ moving under them, shared by threads
//! and over two devices; and what keeps blocks and subspaces of others out.

use std::sync::Arc;

use curvkit::Error;
use curvkit::gpu::{Gpu, GpuOptions, Recorder};
use curvkit::net::{Network, Subspace};
use curvkit::operators::{
    Block, Curvature, DenseMatrix, Distributed, Projected, Restricted, Scaled, Shifted, Sum,
    SymmetricOperator,
};
use kernels_tests::cases::{Case, assert_close, network_cases, random};
use kernels_tests::device::gpu;
use kernels_tests::engine::problem;
use kernels_tests::f64s;
use kernels_tests::spectra::dense;
use nalgebra::DMatrix;

const CURVATURES: [Curvature; 5] = [
    Curvature::Hessian,
    Curvature::Ggn,
    Curvature::NoiseCovariance,
    Curvature::SecondMoment,
    Curvature::JacobianGram,
];

/// Agreement of entries that are small beside the vector.
const SCALE: f64 = 1e-3;

/// A network of each kind.
fn cases() -> Vec<Case> {
    network_cases().to_vec()
}

/// `A V` of a matrix, for flat directions.
fn times(a: &DMatrix<f64>, v: &[f32]) -> Vec<f64> {
    let v = DMatrix::from_column_slice(a.nrows(), v.len() / a.nrows(), &f64s(v));
    (a * v).as_slice().to_vec()
}

/// `A V` of an operator, applied and recorded, which make the same bits.
fn applied(operator: &dyn SymmetricOperator, v: &[f32]) -> Vec<f32> {
    let (gpu, stride) = (operator.gpu(), operator.stride());
    let x = Block::upload(gpu, stride, &operator.pad(v).unwrap()).unwrap();
    let poisoned = || Block::upload(gpu, stride, &vec![f32::NAN; x.len() * stride]).unwrap();
    let (y, z) = (poisoned(), poisoned());
    operator.apply(&x, &y).unwrap();
    let y = y.download().unwrap();
    let mut rec = Recorder::new(gpu);
    match operator.record(&mut rec, &x, &z) {
        Ok(()) => {
            rec.run().unwrap();
            assert!(z.download().unwrap() == y, "recorded products are the applied ones");
        }
        Err(error) => assert!(error.to_string().starts_with("operator: "), "{error}"),
    }
    let flat = operator.unpad(&y).unwrap();
    assert!(operator.pad(&flat).unwrap() == y, "words that are no coordinates are zero");
    flat
}

#[test]
fn every_curvature_is_the_explicit_matrix() {
    for case in cases() {
        let session = problem(gpu(), &case);
        let all = session.network().all();
        for which in CURVATURES {
            let operator = session.operator(which, &all).unwrap();
            let expected = times(&dense(&case, which), &case.v);
            assert_close(
                &format!("{which:?} of {}", case.name),
                &applied(&operator, &case.v),
                &expected,
                1e-5,
                SCALE,
            );
        }
    }
}

/// Orthonormal columns, `[dim, m]`, to single precision.
fn orthonormal(dim: usize, m: usize) -> DMatrix<f64> {
    let q = DMatrix::from_column_slice(dim, m, &f64s(&random(11, dim * m))).qr().q();
    q.map(|x| f64::from(x as f32))
}

#[test]
fn operators_compose() {
    let case = &cases()[0];
    let session = problem(gpu(), case);
    let network = session.network();
    let all = network.all();
    let dim = all.dim;
    let operator = |which| session.operator(which, &all).unwrap();
    let [h, c] = [Curvature::Hessian, Curvature::NoiseCovariance].map(|which| dense(case, which));
    let close = |what: &str, operator: &dyn SymmetricOperator, expected: &DMatrix<f64>| {
        assert_close(what, &applied(operator, &case.v), &times(expected, &case.v), 1e-5, SCALE);
    };
    let sum =
        Sum::new(vec![(2.0, operator(Curvature::Hessian)), (-0.5, operator(Curvature::NoiseCovariance))]);
    close("2 H − C/2", &sum.unwrap(), &(2.0 * &h - 0.5 * &c));
    close("−3 H", &Scaled::new(-3.0, operator(Curvature::Hessian)), &(-3.0 * &h));
    let identity = DMatrix::<f64>::identity(dim, dim);
    close("H + 0.7", &Shifted::new(operator(Curvature::Hessian), 0.7), &(&h + 0.7 * &identity));

    let e = orthonormal(dim, 5);
    let flat: Vec<f32> = e.as_slice().iter().map(|&x| x as f32).collect();
    let basis = || Block::upload(gpu(), all.stride, &all.pad(&flat).unwrap()).unwrap();
    let onto = &e * e.transpose();
    let off = &identity - &onto;
    close("P H P", &Projected::onto(operator(Curvature::Hessian), basis()).unwrap(), &(&onto * &h * &onto));
    let projected = Projected::off(operator(Curvature::Hessian), basis()).unwrap();
    close("(1 − P) H (1 − P)", &projected, &(&off * &h * &off));
    // what is left of E in the products is rounding
    let left = e.transpose()
        * DMatrix::from_column_slice(dim, case.directions, &f64s(&applied(&projected, &case.v)));
    assert!(left.amax() <= 1e-6 * h.norm(), "{left}");

    // operators of operators, by pointers
    let shared: Arc<dyn SymmetricOperator> = Arc::new(operator(Curvature::Hessian));
    let boxed: Box<dyn SymmetricOperator> = Box::new(Shifted::new(shared.clone(), 1.0));
    close("(H + 1) / 4", &Scaled::new(0.25, &boxed), &(0.25 * (&h + &identity)));

    let names: Vec<&str> = network.parameters().iter().rev().take(2).map(|p| p.name.as_str()).collect();
    let some = network.restricted(&names).unwrap();
    let restricted = Restricted::new(shared, &all, &some).unwrap();
    let v = random(3, 2 * some.dim);
    let own = session.operator(Curvature::Hessian, &some).unwrap();
    assert_close("restricted", &applied(&restricted, &v), &f64s(&applied(&own, &v)), 1e-5, SCALE);
}

/// Operators whose products are made on the host have a part in compositions, but cannot be recorded.
#[test]
fn compositions_of_what_cannot_be_recorded() {
    let operator = kernels_tests::prescribed::Prescribed::new(gpu(), vec![3.0, 2.0, 1.0], 1);
    let a = DMatrix::from_fn(3, 3, |i, j| {
        operator.times(&(0..3).map(|k| if k == j { 1.0 } else { 0.0 }).collect::<Vec<_>>())[i]
    });
    let shifted = Shifted::new(&operator, -1.0);
    let expected = times(&(a - DMatrix::<f64>::identity(3, 3)), &[1.0, 2.0, 3.0]);
    assert_close("A − 1", &applied(&shifted, &[1.0, 2.0, 3.0]), &expected, 1e-5, SCALE);
}

#[test]
fn compositions_that_do_not_fit_are_refused() {
    let identity = |gpu: &Gpu, dim: usize| {
        let values: Vec<f32> = (0..dim * dim).map(|i| if i % (dim + 1) == 0 { 1.0 } else { 0.0 }).collect();
        DenseMatrix::new(gpu, dim, &values).unwrap()
    };
    let error = Sum::new(vec![(1.0, identity(gpu(), 3)), (1.0, identity(gpu(), 4))]).err().unwrap();
    assert_eq!(error.to_string(), "coordinates and words of term 1: found shape [4, 64], expected [3, 64]");
    let none = Sum::<DenseMatrix>::new(vec![]).err().unwrap().to_string();
    assert_eq!(none, "terms: found none, expected at least one");
    let other = Gpu::new(&GpuOptions::from_env()).unwrap();
    let error = Sum::new(vec![(1.0, identity(gpu(), 3)), (1.0, identity(&other, 3))]).err().unwrap();
    assert!(matches!(error, Error::OtherDevice { .. }), "{error}");
    let basis = Block::zeros(gpu(), 128, 2).unwrap();
    let error = Projected::onto(identity(gpu(), 3), basis).err().unwrap().to_string();
    assert_eq!(error, "block E: found shape [2, 128], expected [2, 64]");
}

#[test]
fn slopes_and_per_sample_gradients() {
    for case in cases() {
        let session = problem(gpu(), &case);
        let all = session.network().all();
        let reference = case.problem();
        let n = reference.samples();
        let gradients = DMatrix::from_row_slice(n, all.dim, &reference.per_sample_gradient());
        let v = DMatrix::from_column_slice(all.dim, case.directions, &f64s(&case.v));
        // [N, K] in columns is [K, N] in rows
        let expected = (&gradients * v).as_slice().to_vec();
        let found = session.slopes(&all, &case.v).unwrap();
        assert_close(&format!("slopes of {}", case.name), &found, &expected, 1e-5, SCALE);

        let basis = Block::upload(gpu(), all.stride, &all.pad(&case.v).unwrap()).unwrap();
        let found = session.per_sample_projections(&all, &basis).unwrap();
        let expected: Vec<f64> = (0..n)
            .flat_map(|p| (0..case.directions).map(move |k| (p, k)))
            .map(|(p, k)| expected[k * n + p])
            .collect();
        assert_close(&format!("gradients on a basis of {}", case.name), &found, &expected, 1e-5, SCALE);

        let mut seen = 0;
        session
            .per_sample_blocks(&all, |first, rows| {
                assert_eq!(first, seen, "batches in their order");
                let found = all.unpad(&rows.download()?)?;
                let expected: Vec<f64> = gradients.rows(first, rows.len()).transpose().as_slice().to_vec();
                assert_close(&format!("gradients of {}", case.name), &found, &expected, 1e-5, SCALE);
                seen += rows.len();
                Ok(())
            })
            .unwrap();
        assert_eq!(seen, n);
    }
}

#[test]
fn gradients_of_given_samples() {
    let case = &cases()[0];
    let session = problem(gpu(), case);
    let all = session.network().all();
    let n = case.data.len() as u32;
    for samples in [vec![n - 1], vec![0, 2, 2], (0..n).rev().collect(), vec![1, 0]] {
        let chosen: Vec<usize> = samples.iter().map(|&sample| sample as usize).collect();
        let of = Case { data: case.data.select(&chosen), ..case.clone() };
        let found = session.gradient_of(&all, &samples).unwrap();
        assert_close(&format!("{samples:?}"), &found, &of.problem().gradient(), 1e-5, SCALE);
    }
    // and the mean over all is still that
    assert_close("all", &session.gradient(&all).unwrap(), &case.problem().gradient(), 1e-5, SCALE);
    let error = session.gradient_of(&all, &[0, n]).unwrap_err().to_string();
    assert_eq!(error, format!("samples: found {n} at position 1, expected 0 to {}", n - 1));
    let error = session.gradient_of(&all, &[]).unwrap_err().to_string();
    assert_eq!(error, "samples: found none, expected at least one");
}

/// `∇³L[u, v]` in f64, by polarisation.
fn mixed(case: &Case, u: &[f32], v: &[f32]) -> Vec<f64> {
    let at = |sign: f64| -> Vec<f64> { f64s(u).iter().zip(f64s(v)).map(|(u, v)| u + sign * v).collect() };
    let reference = case.problem();
    let (plus, minus) = (reference.third(&at(1.0)), reference.third(&at(-1.0)));
    plus.iter().zip(minus).map(|(plus, minus)| 0.25 * (plus - minus)).collect()
}

#[test]
fn third_derivatives_in_two_directions_and_of_traces() {
    for case in cases() {
        let session = problem(gpu(), &case);
        let all = session.network().all();
        let (dim, k) = (all.dim, 3);
        // u a hundred times longer than v
        let u: Vec<f32> = random(21, k * dim).iter().map(|x| 100.0 * x).collect();
        let v = random(22, k * dim);
        let found = session.third_mixed(&all, &u, &v).unwrap();
        let pairs = u.chunks(dim).zip(v.chunks(dim));
        let expected: Vec<f64> = pairs.flat_map(|(u, v)| mixed(&case, u, v)).collect();
        assert_close(&format!("∇³L[u, v] of {}", case.name), &found, &expected, 2e-4, SCALE);

        let mu = [0.7, -0.2, 1.5];
        let block = |flat: &[f32]| Block::upload(gpu(), all.stride, &all.pad(flat).unwrap()).unwrap();
        let y = Block::zeros(gpu(), all.stride, 1).unwrap();
        session.trace_gradient(&all, &mu, &block(&v), &y).unwrap();
        let mut expected = vec![0.0; dim];
        for (mu, v) in mu.iter().zip(v.chunks(dim)) {
            let third = case.problem().third(v);
            expected.iter_mut().zip(third).for_each(|(sum, x)| *sum += mu * x);
        }
        let found = all.unpad(&y.download().unwrap()).unwrap();
        assert_close(&format!("∇Tr(HC) of {}", case.name), &found, &expected, 2e-4, SCALE);

        let thirds = Block::zeros(gpu(), all.stride, k).unwrap();
        session.third_of_block(&all, &block(&v), &thirds).unwrap();
        let flat = all.unpad(&thirds.download().unwrap()).unwrap();
        assert!(flat == session.third(&all, &v).unwrap(), "blocks and flat vectors make the same bits");
    }
}

/// θ moves, by the host and on the device; operators that were made and recorded before follow, ḡ too.
#[test]
fn theta_moves_under_living_operators() {
    let case = cases().remove(0);
    let session = problem(gpu(), &case);
    let all = session.network().all();
    let v = &case.v[..all.dim];
    let operators = CURVATURES.map(|which| session.operator(which, &all).unwrap());
    let x = Block::upload(gpu(), all.stride, &all.pad(v).unwrap()).unwrap();
    let recorded = operators.each_ref().map(|operator| {
        let y = Block::zeros(gpu(), all.stride, 1).unwrap();
        let mut rec = Recorder::new(gpu());
        operator.record(&mut rec, &x, &y).unwrap();
        (rec.finish().unwrap(), y)
    });
    let before = gpu().memory_in_use();
    for (round, scale) in [1.0f32, -0.5, 1.25].into_iter().enumerate() {
        let parameters: Vec<f32> = case.parameters.iter().map(|x| scale * x).collect();
        match round {
            1 => session.move_theta(|theta| gpu().write(theta, &all.pad(&parameters).unwrap())).unwrap(),
            _ => session.set_parameters(&parameters).unwrap(),
        }
        assert!(session.parameters().unwrap() == parameters);
        let moved = Case { parameters, ..case.clone() };
        for ((which, operator), (program, y)) in CURVATURES.iter().zip(&operators).zip(&recorded) {
            let expected = times(&dense(&moved, *which), v);
            let what = format!("{which:?}, round {round}");
            assert_close(&what, &applied(operator, v), &expected, 1e-5, SCALE);
            program.run().unwrap();
            let found = all.unpad(&y.download().unwrap()).unwrap();
            assert_close(&format!("{what}, recorded"), &found, &expected, 1e-5, SCALE);
        }
        assert_close("gradient", &session.gradient(&all).unwrap(), &moved.problem().gradient(), 1e-5, SCALE);
        let loss = session.loss().unwrap().loss;
        assert!((loss - moved.problem().loss()).abs() <= 1e-5 * loss, "loss, round {round}");
    }
    // a gradient's and a loss's pass were added, and nothing was recorded again
    let after = gpu().memory_in_use();
    session.set_parameters(&case.parameters).unwrap();
    for operator in &operators {
        applied(operator, v);
    }
    session.gradient(&all).unwrap();
    assert_eq!(gpu().memory_in_use(), after, "{before} bytes at first");
}

/// Four threads share a session's operators, gradients and losses; each gets what one alone gets, to the bit.
#[test]
fn threads_share_a_session() {
    let case = cases().remove(0);
    let session = problem(gpu(), &case);
    let all = session.network().all();
    let operators = CURVATURES.map(|which| Arc::new(session.operator(which, &all).unwrap()));
    let alone: Vec<Vec<f32>> = operators.iter().map(|operator| applied(operator, &case.v)).collect();
    let (gradient, loss) = (session.gradient(&all).unwrap(), session.loss().unwrap());
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (operators, session, all) = (operators.clone(), session.clone(), all.clone());
            let (alone, gradient, loss, case) = (&alone, &gradient, &loss, &case);
            scope.spawn(move || {
                for round in 0..10 {
                    let at = (thread + round) % operators.len();
                    assert!(applied(&operators[at], &case.v) == alone[at], "thread {thread}, round {round}");
                    assert!(session.gradient(&all).unwrap() == *gradient, "thread {thread}, round {round}");
                    assert!(session.loss().unwrap() == *loss, "thread {thread}, round {round}");
                }
            });
        }
    });
}

/// Two devices with a part of the samples each make what one makes of all.
#[test]
fn an_operator_over_two_devices() {
    let case = cases().remove(0);
    let other = Gpu::new(&GpuOptions::from_env()).unwrap();
    let n = case.data.len();
    let cut = n / 3 + 1;
    let part = |gpu: &Gpu, samples: std::ops::Range<usize>| {
        let samples: Vec<usize> = samples.collect();
        problem(gpu, &Case { data: case.data.select(&samples), ..case.clone() })
    };
    let sessions = [part(gpu(), 0..cut), part(&other, cut..n)];
    let all = sessions[0].network().all();
    let moved =
        Case { parameters: case.parameters.iter().map(|theta| 0.9 * theta).collect(), ..case.clone() };
    for which in CURVATURES {
        let operator = Distributed::of_sessions(which, &all, &sessions).unwrap();
        // θ is moved under it
        for case in [&case, &moved] {
            sessions.iter().for_each(|session| session.set_parameters(&case.parameters).unwrap());
            let expected = times(&dense(case, which), &case.v);
            assert_close(&format!("{which:?}"), &applied(&operator, &case.v), &expected, 1e-5, SCALE);
        }
        sessions.iter().for_each(|session| session.set_parameters(&case.parameters).unwrap());
    }
}

/// What is of another device or network, or aliased, is refused, and nothing of it is touched.
#[test]
fn what_belongs_elsewhere_is_refused() {
    let case = cases().remove(0);
    let session = problem(gpu(), &case);
    let all = session.network().all();
    let operator = session.operator(Curvature::Hessian, &all).unwrap();
    let block = |gpu: &Gpu| Block::upload(gpu, all.stride, &all.pad(&case.v[..all.dim]).unwrap()).unwrap();
    let other = Gpu::new(&GpuOptions::from_env()).unwrap();
    let (here, there) = (block(gpu()), block(&other));
    let before = there.download().unwrap();
    for (x, y, name) in [(&there, &here, "X"), (&here, &there, "Y")] {
        let error = operator.apply(x, y).unwrap_err();
        assert!(matches!(error, Error::OtherDevice { .. }), "{error}");
        assert!(
            error.to_string().starts_with(&format!("block {name}: found one of another device, ")),
            "{error}"
        );
    }
    assert!(there.download().unwrap() == before);
    let error = operator.apply(&here, &here).unwrap_err().to_string();
    assert_eq!(error, "block Y: found memory of block X, expected memory of its own");

    let wider =
        Network::new(&curvkit::net::Model::mlp(&[9, 14, 5], curvkit::net::Layer::Tanh, true)).unwrap();
    let space: Subspace = wider.all();
    let v = vec![0.5; space.dim];
    let refused = [
        session.gradient(&space).err(),
        session.hvp(&space, &v).err(),
        session.third(&space, &v).err(),
        session.third_mixed(&space, &v, &v).err(),
        session.slopes(&space, &v).err(),
        session.operator(Curvature::Ggn, &space).err(),
        session.sample_operators(Curvature::Ggn, &space).err(),
        session.per_sample_gradients(&space, |_, _| Ok(())).err(),
    ];
    for error in refused {
        let error = error.expect("refused").to_string();
        assert!(error.starts_with("subspace: found shape ["), "{error}");
    }
}

#[test]
fn shapes_from_outside_are_errors() {
    let upload =
        |stride, len: usize| Block::upload(gpu(), stride, &vec![1.0; len]).err().map(|e| e.to_string());
    assert_eq!(upload(64, 65).unwrap(), "values of a block: found shape [65], expected [K, 64]");
    assert_eq!(upload(0, 64).unwrap(), "stride: found 0, expected a multiple of 64");
    assert_eq!(upload(100, 100).unwrap(), "stride: found 100, expected a multiple of 64");
    assert_eq!(upload(64, 0), None);
    let operator = DenseMatrix::new(gpu(), 2, &[1.0, 0.0, 0.0, 1.0]).unwrap();
    let error = operator.pad(&[1.0; 3]).unwrap_err().to_string();
    assert_eq!(error, "vectors: found shape [3], expected [K, 2]");
    let error = operator.unpad(&[1.0; 65]).unwrap_err().to_string();
    assert_eq!(error, "vectors: found shape [65], expected [K, 64]");
}

/// A session that others outlive: programs that were recorded with its operators still run.
#[test]
fn programs_outlive_their_session() {
    let case = cases().remove(0);
    let session = problem(gpu(), &case);
    let all = session.network().all();
    let x = Block::upload(gpu(), all.stride, &all.pad(&case.v[..all.dim]).unwrap()).unwrap();
    let y = Block::zeros(gpu(), all.stride, 1).unwrap();
    let mut rec = Recorder::new(gpu());
    session.operator(Curvature::NoiseCovariance, &all).unwrap().record(&mut rec, &x, &y).unwrap();
    let program = rec.finish().unwrap();
    program.run().unwrap();
    let first = y.download().unwrap();
    drop(session);
    y.clear().unwrap();
    program.run().unwrap();
    assert!(y.download().unwrap() == first);
}
