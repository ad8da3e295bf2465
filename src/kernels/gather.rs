//! Rows by index (`shaders/gather.wgsl`).

use crate::Result;
use crate::gpu::{Recorder, Shader, View, Work, grid};

/// The WGSL, for the tests that validate every shader.
pub const SHADER: Shader =
    Shader { name: "gather", files: &[super::COMMON, include_str!("../../shaders/gather.wgsl")] };

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    rows: u32,
    width: u32,
    start: u32,
    held: u32,
}

/// `x[n, j] = data[indices[step.first + n] − start, j]` for the rows whose sample `data` holds.
///
/// `data`: `[held, width]`, the data set's samples from `start` on. `indices`: u32. `x`: `[rows, width]`.
pub fn gather(
    rec: &mut Recorder,
    data: &View,
    start: usize,
    indices: &View,
    (rows, width): (usize, usize),
    x: &View,
) -> Result<()> {
    assert!(x.len() >= rows * width && data.len().is_multiple_of(width), "gather's shapes");
    let kernel = rec.gpu().kernel(SHADER, "gather", &[])?;
    let held = data.len() / width;
    let params = Params { rows: rows as u32, width: width as u32, start: start as u32, held: held as u32 };
    let bindings = [("data", data), ("indices", indices), ("x", x)];
    rec.dispatch(
        &kernel,
        &bindings,
        &params,
        grid(rows * width, 64),
        Work::new(2.0 * (rows * width) as f64, 0),
    )
}
