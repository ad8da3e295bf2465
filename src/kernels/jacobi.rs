//! Eigendecompositions of many small symmetric matrices (`shaders/jacobi.wgsl`).

use crate::Result;
use crate::gpu::{Gpu, Recorder, Shader, View, Work, grid};

/// The WGSL, for the tests that validate every shader.
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
    sweeps: u32,
    flags: u32,
}

const BEGIN: u32 = 1;
const END: u32 = 2;
/// Sweeps at the most; some seven are enough.
const SWEEPS: usize = 16;

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
/// `x`: element (n, i, k) at `n · sample_stride + i · row_stride + k`. Elements below 2⁻¹²⁶ may count as 0: adapters may
/// flush them.
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
    let gpu = rec.gpu();
    let size = invocations(gpu);
    let kernel = gpu.kernel(SHADER, "eigen", &[("SIZE", size as u32)])?;
    // each dispatch well within a desktop's watchdog, and its loops within the adapter's budget
    let at_once = ((gpu.dispatch_flops() / flops(d)) as usize).clamp(1, samples.max(1));
    let stages = stages(d, size, gpu.loop_budget());
    let words = if stages.len() == 1 { 1 } else { at_once * (padded(d) * (padded(d) + 1) / 2 + 2) };
    let state = rec.scratch(super::PARTS, words)?;
    for first in (0..samples).step_by(at_once) {
        let count = at_once.min(samples - first);
        for &(sweeps, flags, iterations) in &stages {
            let params = Params {
                first: first as u32,
                samples: (first + count) as u32,
                d: d as u32,
                sample_stride: sample_stride as u32,
                row_stride: row_stride as u32,
                sweeps: sweeps as u32,
                flags,
            };
            let bindings = [
                ("x", x),
                ("values", to.values),
                ("vectors", to.vectors),
                ("residuals", to.residuals),
                ("state", &state),
            ];
            let share = sweeps.max(1) as f64 / SWEEPS as f64;
            let work = Work::new(count as f64 * flops(d) * share, iterations);
            rec.dispatch(&kernel, &bindings, &params, grid(count, 1), work)?;
        }
    }
    Ok(())
}

/// d rounded up to the kernel's rows: e.
fn padded(d: usize) -> usize {
    d.next_multiple_of(4)
}

/// What each dispatch does: sweeps, flags, and how often an invocation goes round its loops.
///
/// One does all where the loops' `budget` allows; a sweep at a time goes through in any case.
fn stages(d: usize, size: usize, budget: usize) -> Vec<(usize, u32, usize)> {
    let (e, rounds) = (padded(d), padded(d) / 2 - 1);
    let (meetings, share) = (e / 4, |len: usize| len.div_ceil(size) + 1);
    // rows of the triangle, each shared by the invocations; a loop over invocations
    let (triangle, invocations) = (e * (1 + share(e)) + 1, size + 1);
    let blocks = (meetings * meetings.saturating_sub(1) / 2).div_ceil(size);
    let (of_pair, of_block) = (25 + 6 * 5 + 5 + 19, 5 + 4 * 6 + size.div_ceil(meetings) + 3);
    let sweep = rounds * (share(meetings) * of_pair + blocks * of_block + 1 + meetings * (1 + share(d)) + 2)
        + invocations
        + 1;
    let always = triangle + invocations + e * (e + 1) / 2 / size * 2 + 4;
    let begin = triangle + d * (1 + share(d)) + triangle + invocations + 2;
    let end = share(d) * (3 * d + 6)
        + share(d) * (3 * d + 2)
        + triangle
        + share(d) * (d * (d + 2) + 1)
        + invocations
        + d
        + 8;
    let cost = |sweeps, flags| {
        let part = |flag, cost| if flags & flag != 0 { cost } else { 0 };
        always + sweeps * sweep + part(BEGIN, begin) + part(END, end)
    };
    let mut stages = Vec::new();
    let mut left = SWEEPS;
    loop {
        let begins = if stages.is_empty() { BEGIN } else { 0 };
        if cost(left, begins | END) <= budget {
            stages.push((left, begins | END, cost(left, begins | END)));
            return stages;
        }
        // where nothing is left, ending alone does not fit the budget either, and recording it says so
        if left == 0 {
            stages.push((0, begins | END, cost(0, begins | END)));
            return stages;
        }
        let fits = (1..=left).rev().find(|&sweeps| cost(sweeps, begins) <= budget).unwrap_or(1);
        stages.push((fits, begins, cost(fits, begins)));
        left -= fits;
    }
}

/// Invocations of a workgroup. A GPU's share the rows of one matrix among 64; a software adapter, which runs
/// eight as one vector and pays for each vector at every barrier, takes eight.
fn invocations(gpu: &Gpu) -> usize {
    if gpu.info().device_type == wgpu::DeviceType::Cpu { 8 } else { 64 }
}
