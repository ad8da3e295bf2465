//! Which kernels a linear or bilinear map is: forward, transposed, for one operand or one per direction.

use super::plan::Form;
use crate::Result;
use crate::gpu::{Recorder, View};
use crate::kernels::gemm::{Gemm, Layout, Matrix, Shape, gemm};
use crate::kernels::{outer, rows};
use crate::net::{Bilinear, Linear};

/// A tensor in memory: one for all directions, or one for each, `stride` words apart.
#[derive(Clone)]
pub struct Operand {
    pub view: View,
    /// Words from one direction's tensor to the next's; `None` where one serves all.
    pub stride: Option<usize>,
}

impl Operand {
    fn batch(&self) -> usize {
        self.stride.unwrap_or(0)
    }

    /// As a batch of matrices whose rows are `row` words apart.
    fn matrix(&self, row: usize) -> Matrix<'_> {
        Matrix { view: &self.view, row, batch: self.batch() }
    }
}

/// Samples and directions of a sweep.
#[derive(Clone, Copy, Debug)]
pub struct Extent {
    pub n: usize,
    pub k: usize,
}

/// `y (+)= c A x`, or `y (+)= c Aᵀ x`.
///
/// Transposed, a [`Linear::Broadcast`] sums over samples and rows; `per_sample` keeps the samples apart,
/// `stride` words from one to the next in `y`.
#[allow(clippy::too_many_arguments)]
pub fn linear(
    rec: &mut Recorder,
    map: Linear,
    (transposed, per_sample): (bool, bool),
    extent: Extent,
    x: &Operand,
    y: &Operand,
    c: f32,
    add: bool,
) -> Result<()> {
    let k = if y.stride.is_some() { extent.k } else { 1 };
    match map {
        Linear::Broadcast { rows, columns } => {
            if !transposed {
                let shape = [k, extent.n * rows, columns];
                rows::broadcast(rec, shape, (&x.view, x.batch()), &y.view, c, add)
            } else if per_sample {
                let shape = [extent.n, rows, columns];
                rows::column_sum(rec, shape, &x.view, (&y.view, y.batch()), c, add)
            } else {
                let shape = [k, extent.n * rows, columns];
                rows::column_sum(rec, shape, &x.view, (&y.view, y.batch()), c, add)
            }
        }
    }
}

/// `out (+)= c β(x, y)` in one of its forms, where `x` is what the form names first, plus `bias`.
///
/// `bias` is added to every row ([`takes_bias`] says when it may be given). Per sample, `out.stride` is
/// from one sample to the next.
#[allow(clippy::too_many_arguments)]
pub fn bilinear(
    rec: &mut Recorder,
    map: Bilinear,
    form: Form,
    extent: Extent,
    (x, y): (&Operand, &Operand),
    bias: Option<&Operand>,
    out: &Operand,
    c: f32,
    add: bool,
) -> Result<()> {
    match map {
        Bilinear::Dense { rows, ins, outs } => {
            let n = extent.n * rows;
            let bias = bias.map(|bias| (&bias.view, bias.batch()));
            let mut run = |layout, shape, a: (&Operand, usize), b: (&Operand, usize), width| {
                let (a, b, c_out) = (a.0.matrix(a.1), b.0.matrix(b.1), out.matrix(width));
                gemm(rec, Gemm { layout, shape, alpha: c, add }, a, b, bias, c_out)
            };
            // one matrix for all directions on the weight's side: their rows stand below each other
            let stacked = |weight: &Operand, rows: &Operand| match (weight.stride, rows.stride) {
                (None, Some(_)) => (1, extent.k * n),
                (None, None) => (1, n),
                (Some(_), _) => (extent.k, n),
            };
            match form {
                Form::Value => {
                    // y[r, o] = Σ_i b[r, i] a[o, i]
                    let (batch, m) = stacked(x, y);
                    run(Layout::NT, Shape { batch, m, n: outs, k: ins }, (y, ins), (x, ins), outs)
                }
                Form::AdjointB => {
                    // b̄[r, i] = Σ_o ȳ[r, o] a[o, i]
                    let (batch, m) = stacked(y, x);
                    run(Layout::NN, Shape { batch, m, n: ins, k: outs }, (x, outs), (y, ins), ins)
                }
                Form::AdjointA => {
                    // ā[o, i] = Σ_r ȳ[r, o] b[r, i]
                    let batch = if out.stride.is_some() { extent.k } else { 1 };
                    run(Layout::TN, Shape { batch, m: outs, n: ins, k: n }, (x, outs), (y, ins), ins)
                }
                Form::PerSampleA => {
                    let shape = [extent.n, rows, outs, ins];
                    outer::outer(rec, shape, &x.view, &y.view, (&out.view, out.batch()))
                }
            }
        }
    }
}

/// Whether `bilinear` can add `bias` to what it makes of `x` and `y`, so that it costs no dispatch.
pub fn takes_bias(map: Bilinear, form: Form, x: &Operand, y: &Operand, bias: &Operand) -> bool {
    match map {
        // the rows of a stacked product belong to several directions
        Bilinear::Dense { .. } => {
            form == Form::Value
                && (x.stride.is_some() || (y.stride.is_none() && bias.stride.is_none()))
        }
    }
}
