//! Per-sample outer products (`shaders/outer.wgsl`).

use crate::Result;
use crate::gpu::{Recorder, Shader, View, grid};

pub const SHADER: Shader =
    Shader { name: "outer", files: &[super::COMMON, include_str!("../../shaders/outer.wgsl")] };

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    samples: u32,
    positions: u32,
    outs: u32,
    ins: u32,
    sample_stride: u32,
    padding: [u32; 3],
}

/// `w[n, o, i] = Σ_t a[n, t, o] b[n, t, i]`.
///
/// `shape`: samples, positions, outs, ins. `w`: `[outs, ins]` a sample, `sample_stride` words apart.
pub fn outer(
    rec: &mut Recorder,
    shape: [usize; 4],
    a: &View,
    b: &View,
    (w, sample_stride): (&View, usize),
) -> Result<()> {
    let [samples, positions, outs, ins] = shape.map(|n| n as u32);
    let params =
        Params { samples, positions, outs, ins, sample_stride: sample_stride as u32, padding: [0; 3] };
    let kernel = rec.gpu().kernel(SHADER, "outer", &[])?;
    let items = shape[0] * shape[2] * shape[3];
    let work = (items * (1 + 2 * shape[1])) as f64;
    rec.dispatch(&kernel, &[("a", a), ("b", b), ("w", w)], &params, grid(items, 64), work)
}
