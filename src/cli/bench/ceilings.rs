//! What every share is a share of: products, copies and dispatches on this adapter.

use std::time::Instant;

use serde::Serialize;

use crate::Result;
use crate::gpu::{Gpu, Recorder};
use crate::kernels::gemm::{Family, Layout, Shape, rate};
use crate::kernels::vector;

#[derive(Clone, Debug, Serialize)]
pub struct Ceilings {
    /// The best rate of the products below, floating-point operations a second.
    pub gemm: f64,
    /// Bytes read and written a second by a copy.
    pub bandwidth: f64,
    /// Seconds that a dispatch takes that does next to nothing.
    pub dispatch: f64,
    pub products: Vec<ProductRate>,
}

#[derive(Clone, Debug, Serialize)]
pub struct ProductRate {
    pub family: Family,
    pub layout: Layout,
    pub batch: usize,
    pub m: usize,
    pub n: usize,
    pub k: usize,
    pub flops: f64,
}

/// Seconds of one `work`, after a first one: the best of three to fifty runs over two seconds, of fewer where
/// they take longer than twenty.
pub fn seconds(gpu: &Gpu, mut work: impl FnMut() -> Result<()>) -> Result<f64> {
    work()?;
    gpu.wait()?;
    let (mut best, start) = (f64::INFINITY, Instant::now());
    let mut runs = 0;
    let done = |runs: usize, seconds: f64| (runs >= 3 && seconds > 2.0) || seconds > 20.0 || runs == 50;
    while runs == 0 || !done(runs, start.elapsed().as_secs_f64()) {
        let run = Instant::now();
        work()?;
        gpu.wait()?;
        best = best.min(run.elapsed().as_secs_f64());
        runs += 1;
    }
    Ok(best)
}

pub fn ceilings(gpu: &Gpu) -> Result<Ceilings> {
    let mut products = Vec::new();
    let software = gpu.info().device_type == wgpu::DeviceType::Cpu;
    // a software adapter takes seconds for what a GPU needs to get up to speed
    let sizes: &[usize] = if software { &[256, 512, 1000] } else { &[512, 1024, 2048, 4096] };
    for &size in sizes {
        for layout in [Layout::NT, Layout::NN, Layout::TN] {
            for family in [Family::Register, Family::Workgroup] {
                let shape = Shape { batch: 1, m: size, n: size, k: size };
                let runs = ((1u64 << 30) as f64 / shape.flops()).ceil().clamp(1.0, 16.0) as usize;
                let flops = rate(gpu, family, layout, shape, runs)?;
                products.push(ProductRate { family, layout, batch: 1, m: size, n: size, k: size, flops });
            }
        }
    }
    let gemm = products.iter().fold(0.0, |best: f64, p| best.max(p.flops));
    let words = (16 << 20).min(gpu.max_binding_len());
    let (from, to) = (gpu.zeros(words)?, gpu.zeros(words)?);
    let mut copy = Recorder::new(gpu);
    vector::combine(&mut copy, 1.0, &from.view(), 0.0, &to.view())?;
    let copy = copy.finish()?;
    let bandwidth = 8.0 * words as f64 / seconds(gpu, || copy.run())?;
    let mut empty = Recorder::new(gpu);
    for _ in 0..200 {
        vector::combine(&mut empty, 1.0, &from.slice(0, 64), 0.0, &to.slice(0, 64))?;
    }
    let empty = empty.finish()?;
    let dispatch = seconds(gpu, || empty.run())? / 200.0;
    Ok(Ceilings { gemm, bandwidth, dispatch, products })
}
