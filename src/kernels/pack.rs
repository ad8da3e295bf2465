//! Packed symmetric factors of a Kronecker Gram matrix (`shaders/pack.wgsl`).
//!
//! The Gram matrix itself, `Out[(i≤k),(j≤l)] = Σ_p A_p[i,k] B_p[j,l]`, is then one product `Aᵀ B` of the
//! packed factors: a quarter of the work of the full `Σ_p A_p ⊗ B_p`.

use crate::Result;
use crate::gpu::{Recorder, Shader, View, Work, grid};

/// The WGSL, for the tests that validate every shader.
pub const SHADER: Shader =
    Shader { name: "pack", files: &[super::COMMON, include_str!("../../shaders/pack.wgsl")] };

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    samples: u32,
    d: u32,
    sample_stride: u32,
    row_stride: u32,
    out_stride: u32,
    width: u32,
}

/// The number of entries i ≤ k of a symmetric d × d matrix.
pub fn packed_len(d: usize) -> usize {
    d * (d + 1) / 2
}

/// Where the packed rows go: one row per sample, `stride` words apart.
#[derive(Clone, Copy)]
pub struct Rows<'a> {
    /// Where the rows lie.
    pub view: &'a View,
    /// Words from one row to the next.
    pub stride: usize,
}

/// `out[n, (i≤k)] = s_n ½ (a[n, i, k] + a[n, k, i])`, with `s_n = ‖b_n‖²` where `scale = (b, width)` is
/// given, else 1.
///
/// `a`: element (n, i, k) at `n · sample_stride + i · row_stride + k`. `b`: `[N, width]`.
pub fn matrix(
    rec: &mut Recorder,
    (samples, d): (usize, usize),
    (a, sample_stride, row_stride): (&View, usize, usize),
    scale: Option<(&View, usize)>,
    out: Rows,
) -> Result<()> {
    let params = Params {
        samples: samples as u32,
        d: d as u32,
        sample_stride: sample_stride as u32,
        row_stride: row_stride as u32,
        out_stride: out.stride as u32,
        width: scale.map_or(0, |(_, width)| width as u32),
    };
    let kernel = rec.gpu().kernel(SHADER, "matrix", &[])?;
    let bindings = [("a", a), ("b", scale.map_or(a, |(b, _)| b)), ("out", out.view)];
    let work = Work::new((samples * d * d) as f64, d + 1 + params.width as usize + 1);
    rec.dispatch(&kernel, &bindings, &params, grid(samples * d, 64), work)
}

/// `out[n, (i≤k)] = a[n, i] a[n, k]`.
///
/// `a`: `[N, d]`.
pub fn square(rec: &mut Recorder, (samples, d): (usize, usize), a: &View, out: Rows) -> Result<()> {
    let params = Params {
        samples: samples as u32,
        d: d as u32,
        sample_stride: d as u32,
        row_stride: 0,
        out_stride: out.stride as u32,
        width: 0,
    };
    let kernel = rec.gpu().kernel(SHADER, "square", &[])?;
    let bindings = [("a", a), ("b", a), ("out", out.view)];
    let work = Work::new((samples * d * d) as f64, d + 1);
    rec.dispatch(&kernel, &bindings, &params, grid(samples * d, 64), work)
}
