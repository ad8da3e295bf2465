//! Which kernels a linear or bilinear map is: forward, transposed, for one operand, one per direction or one per
//! sample.

use super::plan::Form;
use crate::Result;
use crate::gpu::{Recorder, View};
use crate::kernels::broadcast::{Axes, Strided, expand, reduce};
use crate::kernels::gemm::{Gemm, Layout, Matrix, Shape, gemm};
use crate::kernels::sequence::{self, Sequences};
use crate::kernels::{Write, conv, pool};
use crate::net::{Bilinear, Constant, Linear};

/// A tensor in memory.
#[derive(Clone)]
pub struct Operand {
    /// Where its values lie.
    pub view: View,
    /// What its rows are of: parameters, samples, or directions of either.
    pub of: Of,
}

/// What has a tensor of its own, and the words from one's tensor to the next's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Of {
    /// Nothing: one serves all directions.
    All,
    /// Each direction.
    Direction(usize),
    /// Each sample, where a tensor is otherwise one for all samples: tangents and adjoints of a parameter.
    Sample(usize),
}

impl Operand {
    /// Whether one serves all directions.
    fn is_shared(&self) -> bool {
        self.of == Of::All
    }

    /// Words from one tensor to the next; 0 where one serves all.
    fn stride(&self) -> usize {
        match self.of {
            Of::All => 0,
            Of::Direction(stride) | Of::Sample(stride) => stride,
        }
    }

    /// As a batch of matrices whose rows are `row` words apart.
    fn matrix(&self, row: usize) -> Matrix<'_> {
        Matrix { view: &self.view, row, batch: self.stride(), period: 0 }
    }

    fn strided(&self) -> Strided<'_> {
        Strided { view: &self.view, stride: self.stride() }
    }

    /// All of it as one tensor.
    fn whole(&self) -> Strided<'_> {
        Strided { view: &self.view, stride: 0 }
    }
}

/// Samples and directions of a sweep.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Extent {
    /// Samples of a batch.
    pub n: usize,
    /// Directions, K.
    pub k: usize,
}

impl Extent {
    /// How many tensors an operand has: one, or one for each direction.
    fn directions(&self, operand: &Operand) -> usize {
        if operand.is_shared() { 1 } else { self.k }
    }

    /// Where one of the operands is a parameter of each sample's own, the n samples of one direction are regarded as
    /// n directions of one sample each, and the activations that it meets likewise. Elsewhere all stay what they are.
    fn apart<const M: usize>(self, operands: [&Operand; M]) -> (Extent, [Operand; M]) {
        if !operands.iter().any(|operand| matches!(operand.of, Of::Sample(_))) {
            return (self, operands.map(Operand::clone));
        }
        let of_sample = |operand: &Operand| match operand.of {
            Of::Sample(stride) => Of::Direction(stride),
            // [n, …], or [1, n, …]
            _ => Of::Direction(operand.view.len() / self.n),
        };
        let each = |operand: &Operand| Operand { of: of_sample(operand), ..operand.clone() };
        (Extent { n: 1, k: self.n }, operands.map(each))
    }
}

/// `y (+)= c A x`, or `y (+)= c Aᵀ x`.
///
/// Transposed, a map of a parameter sums over samples, unless y is each sample's. `by`: the values that the map
/// depends on.
pub fn linear(
    rec: &mut Recorder,
    map: Linear,
    transposed: bool,
    extent: Extent,
    (x, by): (&Operand, Option<&Operand>),
    y: &Operand,
    write: Write,
) -> Result<()> {
    // x stands in for values where the map depends on none
    let (extent, [x, by, y]) = extent.apart([x, by.unwrap_or(x), y]);
    let k = extent.directions(&y);
    match map {
        Linear::Broadcast(axes) => {
            let axes = Axes { outer: extent.n * axes.outer, ..axes };
            match transposed {
                false => expand(rec, k, axes, x.strided(), None, y.strided(), write),
                true => reduce(rec, k, axes, x.strided(), None, y.strided(), write),
            }
        }
        Linear::Spread { m, inner } => {
            let axes = Axes { outer: 1, m: k * extent.n * m, inner };
            match transposed {
                false => expand(rec, 1, axes, x.whole(), None, y.whole(), write),
                true => reduce(rec, 1, axes, x.whole(), None, y.whole(), write),
            }
        }
        Linear::Pool { channels, windows, maximum } => {
            let planes0 = extent.n * channels;
            let deciding = maximum.then_some((&by.view, planes0));
            pool::pool(rec, windows, transposed, k * planes0, (&x.view, deciding), &y.view, write)
        }
        Linear::Embed { ids, width, tokens } => {
            let weights = if transposed { &y } else { &x };
            let sizes = (ids, width, weights.stride());
            let s = Sequences { directions: k, samples: extent.n, tokens };
            sequence::embed(rec, s, sizes, transposed, (&x.view, by.strided()), &y.view, write)
        }
        Linear::Heads { tokens, heads } => {
            let s = Sequences { directions: k, samples: extent.n, tokens };
            sequence::heads(rec, s, heads, transposed, &x.view, &y.view, write)
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
/// `bias` is added to every row ([`takes_bias`] says when it may be given).
pub fn bilinear(
    rec: &mut Recorder,
    map: Bilinear,
    form: Form,
    extent: Extent,
    (x, y, bias): (&Operand, &Operand, Option<&Operand>),
    out: &Operand,
    write: Write,
) -> Result<()> {
    let Write { c, add } = write;
    let (extent, [x, y, out]) = extent.apart([x, y, out]);
    let (n, x, y) = (extent.n, &x, &y);
    // with one weight for all directions, their samples stand below each other
    let stacked = |weight: &Operand, rows: &Operand| match weight.is_shared() {
        true => (1, n * extent.directions(rows)),
        false => (extent.k, n),
    };
    let k = extent.directions(&out);
    match map {
        Bilinear::Dense { rows, ins, outs } => {
            let bias = bias.map(|bias| (&bias.view, bias.stride()));
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
            }
        }
        Bilinear::Conv(sizes) => match form {
            Form::Value => {
                let operands = (x.strided(), y.strided(), bias.map(Operand::strided));
                conv::conv(rec, sizes, (false, None), stacked(x, y), operands, out.strided(), write)
            }
            Form::AdjointB => {
                let operands = (y.strided(), x.strided(), None);
                conv::conv(rec, sizes, (true, None), stacked(y, x), operands, out.strided(), write)
            }
            Form::AdjointA => {
                let operands = (x.strided(), y.strided());
                conv::weight(rec, sizes, None, (k, n), operands, out.strided(), write)
            }
        },
        Bilinear::ScaleByParameter(axes) => {
            let all = Axes { outer: n * axes.outer, ..axes };
            match form {
                Form::Value => expand(rec, k, all, x.strided(), Some(y.strided()), out.strided(), write),
                Form::AdjointB => expand(rec, k, all, y.strided(), Some(x.strided()), out.strided(), write),
                Form::AdjointA => reduce(rec, k, all, x.strided(), Some(y.strided()), out.strided(), write),
            }
        }
        Bilinear::Scale { m, inner } => {
            let axes = Axes { outer: 1, m: n * m, inner };
            match form {
                Form::Value => expand(rec, k, axes, x.strided(), Some(y.strided()), out.strided(), write),
                Form::AdjointB => expand(rec, k, axes, y.strided(), Some(x.strided()), out.strided(), write),
                Form::AdjointA => reduce(rec, k, axes, x.strided(), Some(y.strided()), out.strided(), write),
            }
        }
        Bilinear::MatMul { batch, m, n: columns, k: depth, transposed_b } => {
            let matrices = n * batch;
            let mut run =
                |layout, [m, n, k]: [usize; 3], a: (&Operand, [usize; 2]), b: (&Operand, [usize; 2])| {
                    // an operand of all directions begins again with each
                    let period = |of: &Operand| if of.is_shared() { matrices } else { 0 };
                    let (batch_a, batch_b) = (a.1[0] * a.1[1], b.1[0] * b.1[1]);
                    let to_a = Matrix { view: &a.0.view, row: a.1[1], batch: batch_a, period: period(a.0) };
                    let to_b = Matrix { view: &b.0.view, row: b.1[1], batch: batch_b, period: period(b.0) };
                    let to = Matrix { view: &out.view, row: n, batch: m * n, period: 0 };
                    let shape = Shape { batch: extent.directions(&out) * matrices, m, n, k };
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
            }
        }
    }
}

/// Whether `bilinear` can add `bias` to what it makes of `x` and `y`, so that it costs no dispatch.
pub fn takes_bias(map: Bilinear, form: Form, x: &Operand, y: &Operand, bias: &Operand) -> bool {
    match map {
        // the rows of a stacked product belong to several directions
        Bilinear::Dense { .. } | Bilinear::Conv(_) => {
            form == Form::Value && (!x.is_shared() || (y.is_shared() && bias.is_shared()))
        }
        _ => false,
    }
}
