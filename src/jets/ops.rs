//! Which kernels a linear or bilinear map is: forward, transposed, for one operand or one per direction.

use super::plan::Form;
use crate::Result;
use crate::gpu::{Recorder, View};
use crate::kernels::broadcast::{Axes, Strided, expand, reduce};
use crate::kernels::gemm::{Gemm, Layout, Matrix, Shape, gemm};
use crate::kernels::sequence::{self, Sequences};
use crate::kernels::{conv, outer, pool};
use crate::net::{Bilinear, Constant, Linear};

/// A tensor in memory: one for all directions, or one for each, `stride` words apart.
#[derive(Clone)]
pub struct Operand {
    pub view: View,
    /// Words from one direction's tensor to the next's; `None` where one serves all.
    pub stride: Option<usize>,
}

impl Operand {
    /// As a batch of matrices whose rows are `row` words apart.
    fn matrix(&self, row: usize) -> Matrix<'_> {
        Matrix { view: &self.view, row, batch: self.stride.unwrap_or(0), period: 0 }
    }

    fn strided(&self) -> Strided<'_> {
        Strided { view: &self.view, stride: self.stride.unwrap_or(0) }
    }

    /// Several tensors of `len` words, one after the other.
    fn each(&self, len: usize) -> Strided<'_> {
        Strided { view: &self.view, stride: len }
    }
}

/// Samples and directions of a sweep.
#[derive(Clone, Copy, Debug)]
pub struct Extent {
    pub n: usize,
    pub k: usize,
}

impl Extent {
    /// How many tensors an operand has: one, or one for each direction.
    fn directions(&self, operand: &Operand) -> usize {
        if operand.stride.is_some() { self.k } else { 1 }
    }
}

/// `y (+)= c A x`, or `y (+)= c Aᵀ x`.
///
/// Transposed, a map of a parameter sums over samples; `per_sample` keeps them apart, `stride` words from one
/// to the next in `y`. `by`: the values that the map depends on.
#[allow(clippy::too_many_arguments)]
pub fn linear(
    rec: &mut Recorder,
    map: Linear,
    (transposed, per_sample): (bool, bool),
    extent: Extent,
    x: &Operand,
    by: Option<&View>,
    y: &Operand,
    c: f32,
    add: bool,
) -> Result<()> {
    let k = extent.directions(y);
    match map {
        Linear::Broadcast(axes) if per_sample => {
            reduce(rec, extent.n, axes, x.each(axes.len()), None, y.strided(), c, add)
        }
        Linear::Broadcast(axes) => {
            let axes = Axes { outer: extent.n * axes.outer, ..axes };
            match transposed {
                false => expand(rec, k, axes, x.strided(), None, y.strided(), c, add),
                true => reduce(rec, k, axes, x.strided(), None, y.strided(), c, add),
            }
        }
        Linear::Spread { m, inner } => {
            let axes = Axes { outer: 1, m: k * extent.n * m, inner };
            match transposed {
                false => expand(rec, 1, axes, x.each(0), None, y.each(0), c, add),
                true => reduce(rec, 1, axes, x.each(0), None, y.each(0), c, add),
            }
        }
        Linear::Pool { channels, windows, maximum } => {
            let planes0 = extent.n * channels;
            let deciding = by.filter(|_| maximum).map(|values| (values, planes0));
            pool::pool(rec, windows, transposed, k * planes0, &x.view, deciding, &y.view, c, add)
        }
        Linear::Embed { ids, width, tokens } => {
            let ids_of = by.expect("an embedding is given its ids");
            let weights = if transposed { y } else { x };
            let sizes = (ids, width, weights.stride.unwrap_or(0));
            let (s, kind) = match per_sample {
                true => (Sequences { directions: extent.n, samples: 1, tokens }, sequence::Embed::PerSample),
                false if transposed => {
                    (Sequences { directions: k, samples: extent.n, tokens }, sequence::Embed::Adjoint)
                }
                false => (Sequences { directions: k, samples: extent.n, tokens }, sequence::Embed::Value),
            };
            sequence::embed(rec, s, sizes, kind, &x.view, ids_of, &y.view, c, add)
        }
        Linear::Heads { tokens, heads } => {
            let s = Sequences { directions: k, samples: extent.n, tokens };
            sequence::heads(rec, s, heads, transposed, &x.view, &y.view, c, add)
        }
    }
}

/// `y (+)=` a constant, of the input and of values `of`.
pub fn constant(
    rec: &mut Recorder,
    constant: Constant,
    n: usize,
    input: &View,
    of: Option<&View>,
    y: &View,
    add: bool,
) -> Result<()> {
    let s = |tokens| Sequences { directions: 1, samples: n, tokens };
    match constant {
        Constant::Sinusoid { tokens, width } => sequence::sinusoid(rec, s(tokens), width, y, add),
        Constant::TokenWeight { tokens, masked } => {
            sequence::token_weight(rec, s(tokens), masked.then_some(input), y, add)
        }
        Constant::RowShift { tokens, heads, masked, .. } => {
            let scores = of.expect("a shift is given its scores");
            sequence::row_shift(rec, s(tokens), heads, scores, masked.then_some(input), y, add)
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
    let n = extent.n;
    // with one weight for all directions, their samples stand below each other
    let stacked = |weight: &Operand, rows: &Operand| match weight.stride {
        None => (1, n * extent.directions(rows)),
        Some(_) => (extent.k, n),
    };
    let k = extent.directions(out);
    match map {
        Bilinear::Dense { rows, ins, outs } => {
            let bias = bias.map(|bias| (&bias.view, bias.stride.unwrap_or(0)));
            let mut run = |layout, shape, a: (&Operand, usize), b: (&Operand, usize), width| {
                let (a, b, c_out) = (a.0.matrix(a.1), b.0.matrix(b.1), out.matrix(width));
                gemm(rec, Gemm { layout, shape, alpha: c, add }, a, b, bias, c_out)
            };
            match form {
                Form::Value => {
                    // y[r, o] = Σ_i b[r, i] a[o, i]
                    let (batch, samples) = stacked(x, y);
                    let shape = Shape { batch, m: samples * rows, n: outs, k: ins };
                    run(Layout::NT, shape, (y, ins), (x, ins), outs)
                }
                Form::AdjointB => {
                    // b̄[r, i] = Σ_o ȳ[r, o] a[o, i]
                    let (batch, samples) = stacked(y, x);
                    let shape = Shape { batch, m: samples * rows, n: ins, k: outs };
                    run(Layout::NN, shape, (x, outs), (y, ins), ins)
                }
                Form::AdjointA => {
                    // ā[o, i] = Σ_r ȳ[r, o] b[r, i]
                    let shape = Shape { batch: k, m: outs, n: ins, k: n * rows };
                    run(Layout::TN, shape, (x, outs), (y, ins), ins)
                }
                Form::PerSampleA => {
                    let shape = [n, rows, outs, ins];
                    outer::outer(rec, shape, &x.view, &y.view, (&out.view, out.stride.unwrap_or(0)))
                }
            }
        }
        Bilinear::Conv(sizes) => match form {
            Form::Value => {
                let batch = stacked(x, y);
                let bias = bias.map(Operand::strided);
                conv::conv(
                    rec,
                    sizes,
                    false,
                    None,
                    batch,
                    x.strided(),
                    y.strided(),
                    bias,
                    out.strided(),
                    c,
                    add,
                )
            }
            Form::AdjointB => {
                let batch = stacked(y, x);
                conv::conv(
                    rec,
                    sizes,
                    true,
                    None,
                    batch,
                    y.strided(),
                    x.strided(),
                    None,
                    out.strided(),
                    c,
                    add,
                )
            }
            Form::AdjointA => {
                conv::weight(rec, sizes, None, (k, n), x.strided(), y.strided(), out.strided(), c, add)
            }
            Form::PerSampleA => {
                let into = (&out.view, out.stride.unwrap_or(0));
                conv::weight_per_sample(rec, sizes, None, n, &x.view, &y.view, into, c)
            }
        },
        Bilinear::ScaleByParameter(axes) => {
            let all = Axes { outer: n * axes.outer, ..axes };
            match form {
                Form::Value => expand(rec, k, all, x.strided(), Some(y.strided()), out.strided(), c, add),
                Form::AdjointB => expand(rec, k, all, y.strided(), Some(x.strided()), out.strided(), c, add),
                Form::AdjointA => reduce(rec, k, all, x.strided(), Some(y.strided()), out.strided(), c, add),
                Form::PerSampleA => {
                    let (x, y) = (x.each(axes.len()), y.each(axes.len()));
                    reduce(rec, n, axes, x, Some(y), out.strided(), c, add)
                }
            }
        }
        Bilinear::Scale { m, inner } => {
            let axes = Axes { outer: 1, m: n * m, inner };
            match form {
                Form::Value => expand(rec, k, axes, x.strided(), Some(y.strided()), out.strided(), c, add),
                Form::AdjointB => expand(rec, k, axes, y.strided(), Some(x.strided()), out.strided(), c, add),
                Form::AdjointA => reduce(rec, k, axes, x.strided(), Some(y.strided()), out.strided(), c, add),
                Form::PerSampleA => unreachable!("no parameter is scaled so"),
            }
        }
        Bilinear::MatMul { batch, m, n: columns, k: depth, transposed_b } => {
            let matrices = n * batch;
            let mut run =
                |layout, [m, n, k]: [usize; 3], a: (&Operand, [usize; 2]), b: (&Operand, [usize; 2])| {
                    // an operand of all directions begins again with each
                    let period = |of: &Operand| if of.stride.is_some() { 0 } else { matrices };
                    let (batch_a, batch_b) = (a.1[0] * a.1[1], b.1[0] * b.1[1]);
                    let to_a = Matrix { view: &a.0.view, row: a.1[1], batch: batch_a, period: period(a.0) };
                    let to_b = Matrix { view: &b.0.view, row: b.1[1], batch: batch_b, period: period(b.0) };
                    let to = Matrix { view: &out.view, row: n, batch: m * n, period: 0 };
                    let shape = Shape { batch: extent.directions(out) * matrices, m, n, k };
                    gemm(rec, Gemm { layout, shape, alpha: c, add }, to_a, to_b, None, to)
                };
            let b_shape = if transposed_b { [columns, depth] } else { [depth, columns] };
            let (a_shape, y_shape) = ([m, depth], [m, columns]);
            match (form, transposed_b) {
                (Form::Value, true) => run(Layout::NT, [m, columns, depth], (x, a_shape), (y, b_shape)),
                (Form::Value, false) => run(Layout::NN, [m, columns, depth], (x, a_shape), (y, b_shape)),
                // ā = ȳ b, or ȳ bᵀ
                (Form::AdjointA, true) => run(Layout::NN, [m, depth, columns], (x, y_shape), (y, b_shape)),
                (Form::AdjointA, false) => run(Layout::NT, [m, depth, columns], (x, y_shape), (y, b_shape)),
                // b̄ = ȳᵀ a, or aᵀ ȳ
                (Form::AdjointB, true) => run(Layout::TN, [columns, depth, m], (x, y_shape), (y, a_shape)),
                (Form::AdjointB, false) => run(Layout::TN, [depth, columns, m], (y, a_shape), (x, y_shape)),
                (Form::PerSampleA, _) => unreachable!("no parameter is multiplied so"),
            }
        }
    }
}

/// Whether `bilinear` can add `bias` to what it makes of `x` and `y`, so that it costs no dispatch.
pub fn takes_bias(map: Bilinear, form: Form, x: &Operand, y: &Operand, bias: &Operand) -> bool {
    match map {
        // the rows of a stacked product belong to several directions
        Bilinear::Dense { .. } | Bilinear::Conv(_) => {
            form == Form::Value && (x.stride.is_some() || (y.stride.is_none() && bias.stride.is_none()))
        }
        _ => false,
    }
}
