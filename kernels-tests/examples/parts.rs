use curvkit::operators::{Block, combine, dots, gram};
use kernels_tests::device::gpu;
use std::time::Instant;
fn main() {
    let gpu = gpu();
    let stride = 42_368;
    let block = |n: usize, s: f32| {
        let v: Vec<f32> = (0..n * stride).map(|i| ((i * 7919 % 1000) as f32 / 1000.0 - 0.5) * s).collect();
        Block::upload(gpu, stride, &v).unwrap()
    };
    let (v, y, z) = (block(64, 0.01), block(4, 1.0), block(4, 1.0));
    let time = |name: &str, f: &dyn Fn()| {
        f();
        gpu.wait().unwrap();
        let mut best = f64::INFINITY;
        for _ in 0..7 {
            let t = Instant::now();
            f();
            gpu.wait().unwrap();
            best = best.min(t.elapsed().as_secs_f64());
        }
        println!("{name:30} {:.3} ms", 1e3 * best);
    };
    time("gram 64x4", &|| drop(gram(&v, &y).unwrap()));
    time("gram 4x4", &|| drop(gram(&z, &y).unwrap()));
    let s = faer::Mat::from_fn(64, 4, |i, j| (i + j) as f64 * 0.001);
    time("combine 64->4", &|| combine(s.as_ref(), &v, &y, true).unwrap());
    let q = faer::Mat::from_fn(4, 4, |i, j| (i + j) as f64 * 0.001);
    time("combine 4->4", &|| combine(q.as_ref(), &z, &y, false).unwrap());
    time("dots 4", &|| drop(dots(&y, &y).unwrap()));
    time("zeros 4", &|| drop(Block::zeros(gpu, stride, 4).unwrap()));
    time("read 64 words", &|| drop(gpu.read::<f32>(&y.runs(0, 1)[0].1.slice(0, 64)).unwrap()));
}
