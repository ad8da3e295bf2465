//! Eigendecompositions of many small symmetric matrices (`shaders/jacobi.wgsl`).

use crate::Result;
use crate::gpu::{Gpu, Recorder, Shader, View, grid};

pub const SHADER: Shader = Shader { name: "jacobi", files: &[include_str!("../../shaders/jacobi.wgsl")] };

/// The most rows that a matrix may have: its lower triangle then takes half of the workgroup memory that
/// every device grants.
pub const MOST: usize = 64;

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    first: u32,
    samples: u32,
    d: u32,
    sample_stride: u32,
    row_stride: u32,
    padding: [u32; 3],
}

/// Where eigenpairs go: `A_n = Σ_m λ_m u_m u_mᵀ`, eigenvalues in descending order.
#[derive(Clone, Copy)]
pub struct Eigenpairs<'a> {
    /// λ: `[N, m]`
    pub values: &'a View,
    /// U, an eigenvector a row: `[N, m, i]`
    pub vectors: &'a View,
    /// `max_m ‖A u_m − λ_m u_m‖ / max_m |λ_m|`, from a fresh product: `[N]`. Some 1e-6 where the rotations
    /// have converged; NaN, as are the eigenvalues, where a matrix is not finite.
    pub residuals: &'a View,
}

/// Floating-point operations of one d × d matrix: seven sweeps, in each of which every pair of twins makes a
/// product with R of four rows of A (half of them) and of U, and the residual.
pub fn flops(d: usize) -> f64 {
    let d = d as f64;
    7.0 * (d * d / 8.0) * (32.0 * d + 32.0 * d) + 2.0 * d * d * d
}

/// The eigenpairs of `samples` symmetric matrices of `d` rows, of the symmetric part where one is not.
///
/// `x`: element (n, i, k) at `n · sample_stride + i · row_stride + k`.
///
/// # Panics
/// If d is 0 or more than [`MOST`], or a view is too short.
pub fn eigen(
    rec: &mut Recorder,
    (samples, d): (usize, usize),
    (x, sample_stride, row_stride): (&View, usize, usize),
    to: Eigenpairs,
) -> Result<()> {
    assert!((1..=MOST).contains(&d), "matrices of {d} rows, 1 to {MOST} can be");
    let end = samples.saturating_sub(1) * sample_stride + (d - 1) * row_stride + d;
    assert!(samples == 0 || end <= x.len(), "matrices that end at {end} in a view of {}", x.len());
    let lengths = [(to.values, samples * d), (to.vectors, samples * d * d), (to.residuals, samples)];
    assert!(lengths.iter().all(|(view, len)| view.len() >= *len), "eigenpairs of {samples} matrices");
    let kernel = rec.gpu().kernel(SHADER, "eigen", &[("SIZE", invocations(rec.gpu()))])?;
    // each dispatch well within a desktop's watchdog
    let at_once = ((rec.gpu().dispatch_flops() / flops(d)) as usize).max(1);
    for first in (0..samples).step_by(at_once) {
        let count = at_once.min(samples - first);
        let params = Params {
            first: first as u32,
            samples: (first + count) as u32,
            d: d as u32,
            sample_stride: sample_stride as u32,
            row_stride: row_stride as u32,
            padding: [0; 3],
        };
        let bindings =
            [("x", x), ("values", to.values), ("vectors", to.vectors), ("residuals", to.residuals)];
        rec.dispatch(&kernel, &bindings, &params, grid(count, 1), count as f64 * flops(d))?;
    }
    Ok(())
}

/// Invocations of a workgroup. A GPU's share the rows of one matrix among 64; a software adapter, which runs
/// eight as one vector and pays for each vector at every barrier, takes eight.
fn invocations(gpu: &Gpu) -> u32 {
    if gpu.info().device_type == wgpu::DeviceType::Cpu { 8 } else { 64 }
}
