//! placeholder
use crate::gpu::{Gpu, Recorder, Shader, View, grid};
use crate::Result;
pub struct Tuning;
impl Tuning { pub fn load_or_measure(_: &Gpu) -> Tuning { Tuning } }
pub const SHADER: Shader = Shader { name: "gemm_plain", files: &[super::COMMON, include_str!("../../shaders/gemm_plain.wgsl")] };
pub fn shaders() -> Vec<(Shader, &'static [&'static str])> { vec![(SHADER, &["gemm"])] }

/// How A and B are laid out, in the letters of `C[m, n] = Σ_k A B`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout { /// `A[m, k] B[k, n]`
 NN, /// `A[m, k] B[n, k]`
 NT, /// `A[k, m] B[k, n]`
 TN }

/// A batch of row-major matrices.
#[derive(Clone, Copy)]
pub struct Matrix<'a> { pub view: &'a View, /// words from one row to the next
 pub row: usize, /// words from one matrix of the batch to the next; 0: one for all
 pub batch: usize }

/// The sizes of `C[z, m, n] = Σ_k A[z] B[z]`.
#[derive(Clone, Copy, Debug)]
pub struct Shape { pub batch: usize, pub m: usize, pub n: usize, pub k: usize }

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params { m: u32, n: u32, k: u32, z: u32, lda: u32, ldb: u32, ldc: u32, layout: u32, sa: u32, sb: u32, sc: u32, sbias: u32, alpha: f32, add: u32, bias: u32, pad: u32 }

#[derive(Clone, Copy, Debug)]
pub struct Gemm { pub layout: Layout, pub shape: Shape, pub alpha: f32, pub add: bool }
/// `C (+)= α A B (+ bias)`
pub fn gemm(rec: &mut Recorder, what: Gemm, a: Matrix, b: Matrix, bias: Option<(&View, usize)>, c: Matrix) -> Result<()> {
    let Gemm { layout, shape: s, alpha, add } = what;
    let kernel = rec.gpu().kernel(SHADER, "gemm", &[])?;
    let p = Params { m: s.m as u32, n: s.n as u32, k: s.k as u32, z: s.batch as u32, lda: a.row as u32, ldb: b.row as u32, ldc: c.row as u32, layout: layout as u32, sa: a.batch as u32, sb: b.batch as u32, sc: c.batch as u32, sbias: bias.map_or(0, |b| b.1 as u32), alpha, add: add as u32, bias: bias.is_some() as u32, pad: 0 };
    let work = 2.0 * (s.m * s.n * s.k * s.batch) as f64;
    rec.count_flops(work);
    rec.dispatch(&kernel, &[("a", a.view), ("b", b.view), ("c", c.view), ("bias", bias.map_or(a.view, |b| b.0))], &p, grid(s.m * s.n * s.batch, 64), work)
}
