//! Elementwise work on blocks of vectors (`shaders/vector.wgsl`).

use crate::Result;
use crate::gpu::{Recorder, Shader, View, Work, grid};

/// The WGSL, for the tests that validate every shader.
pub const SHADER: Shader =
    Shader { name: "vector", files: &[super::COMMON, include_str!("../../shaders/vector.wgsl")] };

/// Coordinates that one partial sum of [`dot`] covers.
pub const CHUNK: usize = 4096;

#[repr(C)]
#[derive(Clone, Copy, Default, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    elements: u32,
    vectors: u32,
    stride: u32,
    period: u32,
    first: u32,
    alpha: f32,
    beta: f32,
}

/// `y = α x + β y`; with β = 0, `y` is not read.
pub fn combine(rec: &mut Recorder, alpha: f32, x: &View, beta: f32, y: &View) -> Result<()> {
    assert_eq!(x.len(), y.len(), "combine's shapes");
    let kernel = rec.gpu().kernel(SHADER, "combine", &[])?;
    let params = Params { elements: x.len() as u32, alpha, beta, ..Params::default() };
    rec.dispatch(
        &kernel,
        &[("x", x), ("y", y)],
        &params,
        grid(x.len(), 64),
        Work::new(3.0 * x.len() as f64, 0),
    )
}

/// `y[k, e] += α c[k] x[e]`.
///
/// `x`: `[E]`. `c`: `[K]`. `y`: `[K, E]`.
pub fn add_outer(rec: &mut Recorder, alpha: f32, c: &View, x: &View, y: &View) -> Result<()> {
    let (elements, vectors) = (x.len(), y.len() / x.len());
    assert_eq!(y.len(), elements * vectors, "add_outer's shapes");
    let kernel = rec.gpu().kernel(SHADER, "add_outer", &[])?;
    let params = Params {
        elements: elements as u32,
        vectors: vectors as u32,
        stride: elements as u32,
        alpha,
        ..Params::default()
    };
    let bindings = [("x", x), ("c", c), ("y", y)];
    rec.dispatch(&kernel, &bindings, &params, grid(y.len(), 64), Work::new(3.0 * y.len() as f64, 0))
}

/// `y[k, n, i] = 1` where `i = first + k`, else 0: the tangents that are unit directions.
///
/// `y`: `[K, N, width]`.
pub fn units(rec: &mut Recorder, first: usize, vectors: usize, width: usize, y: &View) -> Result<()> {
    let kernel = rec.gpu().kernel(SHADER, "units", &[])?;
    let params = Params {
        elements: (y.len() / vectors) as u32,
        vectors: vectors as u32,
        stride: width as u32,
        first: first as u32,
        ..Params::default()
    };
    rec.dispatch(&kernel, &[("y", y)], &params, grid(y.len(), 64), Work::new(y.len() as f64, 0))
}

/// Partial dot products `s[j, c] = Σ_{e in chunk c} x[i, e] y[j, e]` over chunks of [`CHUNK`] coordinates, with
/// `i = (first + j) mod I`.
///
/// `x`: `[I, E]`. `y`: `[J, E]`. `s`: `[J, ⌈E / CHUNK⌉]`. `first` is below I.
pub fn dot(
    rec: &mut Recorder,
    elements: usize,
    (x, first): (&View, usize),
    y: &View,
    s: &View,
) -> Result<()> {
    let (period, vectors) = (x.len() / elements, y.len() / elements);
    let chunks = elements.div_ceil(CHUNK);
    assert!(first < period && s.len() >= vectors * chunks, "dot's shapes");
    let kernel = rec.gpu().kernel(SHADER, "dot", &[])?;
    let params = Params {
        elements: elements as u32,
        vectors: vectors as u32,
        period: period as u32,
        first: first as u32,
        ..Params::default()
    };
    let bindings = [("x", x), ("y_in", y), ("s", s)];
    // each invocation's share of a chunk, and the tree over the workgroup
    let work = Work::new(2.0 * y.len() as f64, CHUNK / 64 + 1 + 7);
    rec.dispatch(&kernel, &bindings, &params, grid(vectors * chunks, 1), work)
}

/// `y[i, e] += Σ_j c[j] x[j, e]` over the j with `(first + j) mod I = i`, in order.
///
/// `c`: `[J]`. `x`: `[J, E]`. `y`: `[I, E]`. `first` is below I.
pub fn combine_each(
    rec: &mut Recorder,
    elements: usize,
    (c, x, first): (&View, &View, usize),
    y: &View,
) -> Result<()> {
    let (vectors, period) = (x.len() / elements, y.len() / elements);
    assert!(first < period && c.len() == vectors, "combine_each's shapes");
    let kernel = rec.gpu().kernel(SHADER, "combine_each", &[])?;
    let params = Params {
        elements: elements as u32,
        vectors: vectors as u32,
        period: period as u32,
        first: first as u32,
        ..Params::default()
    };
    let bindings = [("x", x), ("c", c), ("y", y)];
    let work = Work::new(2.0 * x.len() as f64, vectors.div_ceil(period) + 1);
    rec.dispatch(&kernel, &bindings, &params, grid(y.len(), 64), work)
}
