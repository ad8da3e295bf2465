//! Solvers that are watched and stopped, owned and moved; what they start from, and what is kept of them.

use std::ops::ControlFlow;
use std::sync::Arc;

use curvkit::Error;
use curvkit::operators::{Block, Sequential, SymmetricOperator};
use curvkit::spectral::{
    Comparison, Eigenpairs, FamilyOptions, Lanczos, LanczosOptions, LobpcgOptions, Progress,
    QuadratureOptions, Start, eigenpairs, family_eigenpairs, hutch_plus_plus, hutchinson, lobpcg,
    power_iteration, quadrature, rayleigh_quotients, unobserved, xtrace,
};
use kernels_tests::device::gpu;
use kernels_tests::prescribed::Prescribed;
use kernels_tests::spectra::bulk;

/// Eigenvalues that are found slowly: a bulk without gaps.
fn slow(dim: usize) -> Prescribed {
    Prescribed::new(gpu(), bulk(3, dim, 1.0), 2)
}

/// Keeps what it is told, and stops at the `most`-th time.
fn stopping(most: usize, told: &mut Vec<Progress>) -> impl FnMut(&Progress) -> ControlFlow<()> {
    move |progress| {
        told.push(progress.clone());
        if told.len() < most { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    }
}

/// Products never become fewer, and what is done is part of what there is to do.
fn check(told: &[Progress], total: usize) {
    assert!(told.is_sorted_by_key(|progress| progress.products), "{told:?}");
    for progress in told {
        assert!(progress.done <= progress.total && progress.total == total, "{progress:?}");
    }
}

#[test]
fn eigensolvers_return_what_they_have_when_they_are_stopped() {
    let operator = slow(600);
    let mut told = Vec::new();
    let options = LanczosOptions { block: Some(4), tolerance: 1e-5, ..LanczosOptions::new(12) };
    let pairs = eigenpairs(&operator, options, &mut stopping(5, &mut told)).unwrap();
    assert_eq!(told.len(), 5);
    check(&told, 12);
    // five blocks, and the residuals
    assert_eq!((told[4].products, pairs.products), (20, 32));
    assert!(!pairs.complete && pairs.converged.contains(&false));
    // Ritz values as they were looked at last, from below
    assert_eq!(told[4].values.len(), 12);
    for (ritz, value) in told[4].values.iter().zip(&pairs.values) {
        assert!(*ritz <= value + 1e-5, "{ritz} for {value}");
    }

    told.clear();
    let options = LobpcgOptions { tolerance: 1e-5, ..LobpcgOptions::new(6) };
    let pairs = lobpcg(&operator, &options, None, &mut stopping(3, &mut told)).unwrap();
    assert_eq!((told.len(), pairs.values.len()), (3, 6));
    check(&told, 6);
    assert!(pairs.converged.contains(&false) && pairs.floor.is_none());
    assert_eq!(pairs.products, told[2].products + 6);
    assert!(told[2].values.is_sorted_by(|a, b| a >= b) && told[2].values[0] > told[0].values[0]);

    told.clear();
    let found = power_iteration(&operator, 1e-9, 500, 0, &mut stopping(4, &mut told)).unwrap();
    assert_eq!((found.products, told[3].products), (5, 5));
    check(&told, 500);

    told.clear();
    let family = Sequential::new(vec![slow(60), slow(60), slow(60)]).unwrap();
    let mut found = Vec::new();
    let each = |pairs| {
        found.push(pairs);
        Ok(())
    };
    let options = FamilyOptions { tolerance: 1e-6, ..FamilyOptions::new(5) };
    family_eigenpairs(&family, &options, each, &mut stopping(2, &mut told)).unwrap();
    // as many vectors as pairs are made first
    assert_eq!((found.len(), found[0].members.clone()), (1, 0..3));
    assert!(found[0].converged.contains(&false));
}

#[test]
fn estimates_are_of_what_was_made_when_they_are_stopped() {
    let operator = slow(300);
    let mut told = Vec::new();
    let options = QuadratureOptions { probes: 5, steps: 30, seed: 1 };
    let found = quadrature(&operator, &options, &mut stopping(7, &mut told)).unwrap();
    check(&told, 150);
    assert_eq!((found.products, found.rules.len(), found.rules[0].nodes.len()), (35, 5, 7));
    // seven steps from the same vectors
    let short = QuadratureOptions { steps: 7, ..options };
    assert_eq!(quadrature(&operator, &short, &mut unobserved).unwrap(), found);

    told.clear();
    let stopped = hutchinson(&operator, 64, 1, &mut stopping(2, &mut told)).unwrap();
    assert_eq!((stopped.trace.products, told.len()), (32, 2));
    assert_eq!(stopped, hutchinson(&operator, 32, 1, &mut unobserved).unwrap());
    told.clear();
    let stopped = hutch_plus_plus(&operator, 120, 1, &mut stopping(7, &mut told)).unwrap();
    assert!(stopped.products < 120 && stopped.standard_error > 0.0);
    check(&told, 120);

    // nothing can be said yet
    let at_once = |_: &Progress| ControlFlow::Break(());
    for error in [
        xtrace(&operator, 40, 1, &mut { at_once }).err().unwrap(),
        hutch_plus_plus(&operator, 60, 1, &mut { at_once }).err().unwrap(),
    ] {
        assert!(matches!(error, Error::Cancelled), "{error}");
        assert_eq!(error.to_string(), "stopped before there was a result");
    }
    let pairs = eigenpairs(&operator, LanczosOptions::new(4), &mut unobserved).unwrap();
    let compared = Comparison::measure((&operator, &pairs), (&operator, &pairs), 20, 0, &mut { at_once });
    assert!(matches!(compared, Err(Error::Cancelled)));
}

/// An iteration that owns its operator goes on in another thread, to the bits of one that did not move.
#[test]
fn an_iteration_moves_to_another_thread() {
    let operator: Arc<dyn SymmetricOperator> = Arc::new(slow(400));
    let options = LanczosOptions { block: Some(4), ..LanczosOptions::new(8) };
    let mut lanczos = Lanczos::new(operator.clone(), options.clone()).unwrap();
    for _ in 0..3 {
        assert!(lanczos.step().unwrap());
    }
    let moved = std::thread::spawn(move || {
        while lanczos.step().unwrap() {}
        lanczos.finish().unwrap()
    });
    let (found, stayed) = (moved.join().unwrap(), eigenpairs(&operator, options, &mut unobserved).unwrap());
    assert_eq!(found.values, stayed.values);
    assert_eq!(found.vectors.download().unwrap(), stayed.vectors.download().unwrap());
}

/// Vectors on the device start as the same vectors on the host do, and stay what they are.
#[test]
fn starts_on_the_device() {
    let operator = slow(300);
    let near = eigenpairs(&operator, LanczosOptions::new(4), &mut unobserved).unwrap();
    let padded = near.vectors.download().unwrap();
    let block = Arc::new(Block::upload(gpu(), operator.stride(), &padded).unwrap());
    let flat = operator.unpad(&padded).unwrap();
    let of = |start: &Start| {
        let lanczos = LanczosOptions { start: start.clone(), block: Some(4), ..LanczosOptions::new(4) };
        let lobpcg_options = LobpcgOptions { start: start.clone(), ..LobpcgOptions::new(4) };
        [
            eigenpairs(&operator, lanczos, &mut unobserved).unwrap(),
            lobpcg(&operator, &lobpcg_options, None, &mut unobserved).unwrap(),
        ]
        .map(|pairs| (pairs.values, pairs.products))
    };
    assert_eq!(of(&Start::Flat(flat)), of(&Start::Block(block.clone())));
    assert_eq!(block.download().unwrap(), padded);

    let refused = |block: Block, count: usize| {
        let start = Start::Block(Arc::new(block));
        let options = LobpcgOptions { start, ..LobpcgOptions::new(count) };
        lobpcg(&operator, &options, None, &mut unobserved).err().unwrap().to_string()
    };
    let stride = operator.stride();
    assert_eq!(
        refused(Block::zeros(gpu(), stride, 4).unwrap(), 3),
        format!("start: found shape [4, {stride}] on the device, expected [k, {stride}] with k from 1 to 3")
    );
    let other = refused(Block::zeros(gpu(), 64, 1).unwrap(), 3);
    assert!(other.starts_with("start: found shape [1, 64] on the device"), "{other}");
    let elsewhere = curvkit::gpu::Gpu::new(&curvkit::gpu::GpuOptions::from_env()).unwrap();
    let other = refused(Block::zeros(&elsewhere, stride, 1).unwrap(), 3);
    assert!(other.starts_with("start: found one of another device"), "{other}");
}

#[test]
fn rayleigh_quotients_in_another_operators_basis() {
    let (a, b) = (slow(200), Prescribed::new(gpu(), bulk(9, 200, 2.0), 1));
    let pairs = eigenpairs(&a, LanczosOptions::new(20), &mut unobserved).unwrap();
    for (quotient, value) in rayleigh_quotients(&a, &pairs.vectors).unwrap().iter().zip(&pairs.values) {
        assert!((quotient - value).abs() < 1e-5, "{quotient} for {value}");
    }
    let vectors = a.unpad(&pairs.vectors.download().unwrap()).unwrap();
    let products = |v: &[f32]| {
        let x = Block::upload(gpu(), b.stride(), &b.pad(v).unwrap()).unwrap();
        let y = Block::zeros(gpu(), b.stride(), 1).unwrap();
        b.apply(&x, &y).unwrap();
        b.unpad(&y.download().unwrap()).unwrap()
    };
    for (v, quotient) in vectors.chunks(200).zip(rayleigh_quotients(&b, &pairs.vectors).unwrap()) {
        let along = |x: &[f32]| v.iter().zip(x).map(|(&v, &x)| f64::from(v) * f64::from(x)).sum::<f64>();
        let expected = along(&products(v)) / along(v);
        assert!((quotient - expected).abs() < 1e-5, "{quotient} for {expected}");
    }
}

#[test]
fn eigenpairs_are_written_and_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pairs.safetensors");
    let operator = slow(150);
    let pairs = eigenpairs(&operator, LanczosOptions::new(7), &mut unobserved).unwrap();
    pairs.save(&operator, &path, &[("mine", "kept")]).unwrap();
    let read = Eigenpairs::read(&operator, &path).unwrap();
    assert_eq!(
        (
            &read.values,
            &read.residuals,
            &read.converged,
            read.scale,
            read.floor,
            read.complete,
            read.products
        ),
        (
            &pairs.values,
            &pairs.residuals,
            &pairs.converged,
            pairs.scale,
            pairs.floor,
            pairs.complete,
            pairs.products
        )
    );
    assert_eq!(read.vectors.download().unwrap(), pairs.vectors.download().unwrap());
    let wrong = Eigenpairs::read(&slow(151), &path).err().unwrap().to_string();
    assert!(wrong.ends_with("tensor eigenvectors: found shape [7, 150], expected [7, 151]"), "{wrong}");
    std::fs::write(&path, b"none").unwrap();
    assert!(matches!(Eigenpairs::read(&operator, &path), Err(Error::File { .. })));
}
