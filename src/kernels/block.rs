//! Inner products and combinations of blocks of vectors (`shaders/block.wgsl`; by products where workgroup memory pays).

use super::gemm::{Family, Gemm, Layout, Matrix, Shape, Tuning, gemm_with};
use crate::Result;
use crate::gpu::{Recorder, Shader, View, Work, grid};

/// Register tiles, for software adapters.
pub const SHADER: Shader =
    Shader { name: "block", files: &[super::COMMON, super::TILE, include_str!("../../shaders/block.wgsl")] };

#[repr(C)]
#[derive(Clone, Copy, Default, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    rows: u32,
    columns: u32,
    stride4: u32,
    chunk4: u32,
    chunks: u32,
    tiles_i: u32,
    tiles_j: u32,
    add: u32,
}

/// The family that makes products of few columns fastest.
fn family(rec: &Recorder) -> Family {
    Tuning::of(rec.gpu()).small
}

fn matrix(view: &View, row: usize, batch: usize) -> Matrix<'_> {
    Matrix { view, row, batch, period: 0 }
}

/// The chunks that [`gram`] makes of `stride` coordinates.
pub fn chunks(stride: usize, chunk: usize) -> usize {
    (stride / chunk).max(1)
}

/// `s[c, i, j] = Σ_{e in chunk c} x[i, e] y[j, e]` over [`chunks`] of `chunk` coordinates; what is left of them belongs to
/// one of these.
///
/// `x`: `[I, stride]`. `y`: `[J, stride]`. `s`: `[chunks, I, J]`. `stride` and `chunk` are multiples of 64.
pub fn gram(rec: &mut Recorder, stride: usize, chunk: usize, x: &View, y: &View, s: &View) -> Result<()> {
    let (rows, columns, chunks) = (x.len() / stride, y.len() / stride, chunks(stride, chunk));
    assert!(stride.is_multiple_of(64) && chunk.is_multiple_of(64), "a block's vectors are padded");
    assert!(s.len() >= chunks * rows * columns, "gram's shapes");
    if rows * columns == 0 {
        return Ok(());
    }
    let family = family(rec);
    if family == Family::Workgroup {
        let whole = stride / chunk;
        // the rest is added to the first chunk
        for (start, batch, k) in [(0, whole, chunk), (whole * chunk, 1, stride % chunk)] {
            if batch * k > 0 {
                let shape = Shape { batch, m: rows, n: columns, k };
                let product = Gemm { layout: Layout::NT, shape, alpha: 1.0, add: start > 0 };
                let [a, b] = [x, y].map(|view| view.slice(start, view.len() - start));
                let [a, b] = [&a, &b].map(|view| matrix(view, stride, chunk));
                gemm_with(rec, family, product, a, b, None, matrix(s, columns, rows * columns))?;
            }
        }
        return Ok(());
    }
    let params = Params {
        rows: rows as u32,
        columns: columns as u32,
        stride4: (stride / 4) as u32,
        chunk4: (chunk / 4) as u32,
        chunks: chunks as u32,
        tiles_i: rows.div_ceil(16) as u32,
        tiles_j: columns.div_ceil(4) as u32,
        add: 0,
    };
    let kernel = rec.gpu().kernel(SHADER, "gram", &[])?;
    let invocations = rows.div_ceil(16) * columns.div_ceil(4) * chunks;
    let flops = 2.0 * (rows * columns * stride) as f64;
    rec.count_flops(flops);
    let bindings = [("x", x), ("y_in", y), ("s", s)];
    // the coordinates, and the stores
    rec.dispatch(&kernel, &bindings, &params, grid(invocations, 8), Work::new(flops, 2 * chunk / 4 + 18))
}

/// `y[j, e] = Σ_i s[j, i] x[i, e]`, or `+=` where `add`.
///
/// `s`: `[J, I]`. `x`: `[I, stride]`. `y`: `[J, stride]`. `stride` is a multiple of 64.
pub fn combine(rec: &mut Recorder, stride: usize, s: &View, x: &View, y: &View, add: bool) -> Result<()> {
    let (rows, columns) = (x.len() / stride, y.len() / stride);
    assert!(stride.is_multiple_of(64), "a block's vectors are padded");
    assert!(s.len() >= rows * columns, "combine's shapes");
    if rows * columns == 0 {
        return Ok(());
    }
    let family = family(rec);
    // wide blocks fill the tiles of the general products
    if family == Family::Workgroup || columns > 4 {
        let shape = Shape { batch: 1, m: columns, n: stride, k: rows };
        let product = Gemm { layout: Layout::NN, shape, alpha: 1.0, add };
        let [s, x, y] = [(s, rows), (x, stride), (y, stride)].map(|(view, row)| matrix(view, row, 0));
        return gemm_with(rec, family, product, s, x, None, y);
    }
    let params = Params {
        rows: rows as u32,
        columns: columns as u32,
        stride4: (stride / 4) as u32,
        tiles_j: columns.div_ceil(4) as u32,
        add: add as u32,
        ..Params::default()
    };
    let kernel = rec.gpu().kernel(SHADER, "combine", &[])?;
    let flops = 2.0 * (rows * columns * stride) as f64;
    rec.count_flops(flops);
    let groups = grid(stride.div_ceil(128) * columns.div_ceil(4), 1);
    let work = Work::new(flops, rows + 2 * rows.div_ceil(256) + 1);
    rec.dispatch(&kernel, &[("s_in", s), ("x", x), ("y", y)], &params, groups, work)
}
