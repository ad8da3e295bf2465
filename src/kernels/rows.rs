//! A vector over the rows of a matrix, and its adjoint (`shaders/rows.wgsl`).

use crate::Result;
use crate::gpu::{Recorder, Shader, View, grid};

pub const SHADER: Shader =
    Shader { name: "rows", files: &[super::COMMON, include_str!("../../shaders/rows.wgsl")] };

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    directions: u32,
    rows: u32,
    columns: u32,
    vector_stride: u32,
    c: f32,
    add: u32,
    padding: [u32; 2],
}

fn params(shape: [usize; 3], vector_stride: usize, c: f32, add: bool) -> Params {
    let [directions, rows, columns] = shape.map(|n| n as u32);
    let vector_stride = vector_stride as u32;
    Params { directions, rows, columns, vector_stride, c, add: add as u32, padding: [0; 2] }
}

/// `y[k, m, n] (+)= c b[k, n]`.
///
/// `y`: `[K, M, N]`. `b`: K rows of N, `vector_stride` words apart (0: one for every k).
pub fn broadcast(
    rec: &mut Recorder,
    shape: [usize; 3],
    (b, vector_stride): (&View, usize),
    y: &View,
    c: f32,
    add: bool,
) -> Result<()> {
    let items: usize = shape.iter().product();
    let kernel = rec.gpu().kernel(SHADER, "broadcast", &[])?;
    let params = params(shape, vector_stride, c, add);
    rec.dispatch(&kernel, &[("b_in", b), ("y", y)], &params, grid(items, 64), 2.0 * items as f64)
}

/// `b[k, n] (+)= c Σ_m y[k, m, n]`, in a fixed tree.
///
/// `y`: `[K, M, N]`. `b`: K rows of N, `vector_stride` words apart.
pub fn column_sum(
    rec: &mut Recorder,
    shape: [usize; 3],
    y: &View,
    (b, vector_stride): (&View, usize),
    c: f32,
    add: bool,
) -> Result<()> {
    let kernel = rec.gpu().kernel(SHADER, "column_sum", &[])?;
    let params = params(shape, vector_stride, c, add);
    let groups = [shape[2].div_ceil(16) as u32, shape[0] as u32, 1];
    let work = shape.iter().product::<usize>() as f64;
    rec.dispatch(&kernel, &[("y_in", y), ("b", b)], &params, groups, work)
}
