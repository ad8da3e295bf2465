use curvkit::spectral::*;
use kernels_tests::cases::random;
use kernels_tests::device::gpu;
use kernels_tests::f64s;
use kernels_tests::prescribed::Prescribed;
fn bulk(seed: u64, count: usize, scale: f64) -> Vec<f64> {
    f64s(&random(seed, count)).into_iter().map(|x| scale * x).collect()
}
fn spectrum(dim: usize, head: impl IntoIterator<Item = f64>, tail: Vec<f64>) -> Vec<f64> {
    head.into_iter().chain(tail).take(dim).collect()
}
#[test]
fn experiment() {
    let dim = 700;
    let outlier = |i: usize| [1.0, -0.3][i % 2] / (1.0 + i as f64).sqrt();
    let hess = |i: usize| (1.0 / (1.0 + i as f64)).powf(1.0);
    let spectra = [
        (
            "clusters of 20",
            spectrum(dim, [5.0, 3.0, -4.0, -2.5].into_iter().flat_map(|v| [v; 20]), bulk(1, dim, 1.0)),
            25,
        ),
        ("negative end", spectrum(dim, (0..10).map(|i| -20.0 + i as f64), bulk(2, dim, 5.0)), 10),
        ("wide bulk", spectrum(dim, (0..dim / 20).map(outlier), bulk(3, dim, 0.01)), 15),
        ("eight decades", (0..300).map(|i| 10f64.powf(-8.0 * i as f64 / 300.0)).collect(), 20),
        ("hessian-like", spectrum(4000, (0..60).map(hess), bulk(3, 4000, 0.01)), 20),
        ("one", spectrum(4000, (0..60).map(hess), bulk(3, 4000, 0.01)), 1),
    ];
    for tolerance in [1e-3, 1e-5] {
        for (name, values, count) in &spectra {
            let a = Prescribed::new(gpu(), values.clone(), 2);
            for which in if count == &1 || *name == "hessian-like" {
                vec![Which::Largest]
            } else {
                vec![Which::Largest, Which::Smallest]
            } {
                let o = LobpcgOptions { which, tolerance, ..LobpcgOptions::new(*count) };
                let t = std::time::Instant::now();
                let p = lobpcg(&a, &o, None).unwrap();
                let t1 = t.elapsed().as_secs_f64();
                let l: Vec<usize> = [1, 4, 16][..0]
                    .iter()
                    .map(|&b| {
                        let o = LanczosOptions {
                            which,
                            tolerance,
                            block: Some(b),
                            ..LanczosOptions::new(*count)
                        };
                        eigenpairs(&a, o).unwrap().products
                    })
                    .collect();
                let bad = p.converged.iter().filter(|c| !**c).count();
                println!(
                    "{tolerance:e} {name} {which:?} k={count}: lobpcg {} ({bad} bad, {t1:.2}s), lanczos b=1,4,16 {l:?}",
                    p.products
                );
            }
        }
    }
}
