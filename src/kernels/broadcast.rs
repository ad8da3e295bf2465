//! A short tensor over a long one, and its adjoint (`shaders/broadcast.wgsl`).

use super::Write;
use crate::Result;
use crate::gpu::{Recorder, Shader, View, Work, grid};

/// The WGSL, for the tests that validate every shader.
pub const SHADER: Shader =
    Shader { name: "broadcast", files: &[super::COMMON, include_str!("../../shaders/broadcast.wgsl")] };

/// How element `e = (o m + q) inner + i` of the long tensor belongs to element q of the short one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Axes {
    /// o, how often the axis m is repeated.
    pub outer: usize,
    /// m, values of the short tensor.
    pub m: usize,
    /// i, neighbours in the long tensor that share a value.
    pub inner: usize,
}

impl Axes {
    /// The length of the long tensor.
    pub fn len(&self) -> usize {
        self.outer * self.m * self.inner
    }

    /// Whether the long tensor has no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A tensor of each direction, `stride` words apart (0: one for all).
#[derive(Clone, Copy)]
pub struct Strided<'a> {
    /// Where they lie.
    pub view: &'a View,
    /// Words from one direction to the next.
    pub stride: usize,
}

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    directions: u32,
    outer: u32,
    m: u32,
    inner: u32,
    a_stride: u32,
    b_stride: u32,
    y_stride: u32,
    has_b: u32,
    add: u32,
    c: f32,
    parts: u32,
    part_len: u32,
}

fn params(
    directions: usize,
    axes: Axes,
    a: Strided,
    b: Option<Strided>,
    y: Strided,
    Write { c, add }: Write,
) -> Params {
    Params {
        directions: directions as u32,
        outer: axes.outer as u32,
        m: axes.m as u32,
        inner: axes.inner as u32,
        a_stride: a.stride as u32,
        b_stride: b.map_or(0, |b| b.stride as u32),
        y_stride: y.stride as u32,
        has_b: b.is_some() as u32,
        add: add as u32,
        c,
        parts: 1,
        part_len: (axes.outer * axes.inner) as u32,
    }
}

/// `y[k, e] (+)= c a[k, q(e)] b[k, e]`; without `b`, b is one.
pub fn expand(
    rec: &mut Recorder,
    directions: usize,
    axes: Axes,
    a: Strided,
    b: Option<Strided>,
    y: Strided,
    write: Write,
) -> Result<()> {
    let by4 = |len: usize| len.is_multiple_of(4);
    let in_row = by4(axes.inner) || (axes.inner == 1 && by4(axes.m));
    // a stands in for b where there is none
    let in_fours = in_row && by4(y.stride) && b.map_or(a.view.len() >= 4, |b| by4(b.stride));
    let (entry, names, each) = match in_fours {
        true => ("expand4", ["a_in", "b4", "y4"], 4),
        false => ("expand", ["a_in", "b", "y"], 1),
    };
    let kernel = rec.gpu().kernel(SHADER, entry, &[])?;
    let params = params(directions, axes, a, b, y, write);
    let views = [a.view, b.map_or(a.view, |b| b.view), y.view];
    let bindings: [_; 3] = std::array::from_fn(|i| (names[i], views[i]));
    let items = directions * axes.len();
    rec.dispatch(&kernel, &bindings, &params, grid(items / each, 64), Work::new(3.0 * items as f64, 0))
}

/// Invocations that share a sum.
const SLICES: usize = 16;
/// Terms that an invocation adds up in one accumulator: more would lose more than they have to.
const RUN: usize = 256;

/// `a[k, q] (+)= c Σ_{e of q} y[k, e] b[k, e]`, in a fixed tree; without `b`, b is one.
///
/// A workgroup sums at most 4,096 terms of a sum; the sums of longer parts are summed in turn.
pub fn reduce(
    rec: &mut Recorder,
    directions: usize,
    axes: Axes,
    y: Strided,
    b: Option<Strided>,
    a: Strided,
    write: Write,
) -> Result<()> {
    // a sum of this many terms is worth a workgroup
    const LONG: usize = 128;
    // unless there are so many that one invocation each keeps every processor busy
    const MANY: usize = 1 << 16;
    let (terms, sums) = (axes.outer * axes.inner, axes.m * directions);
    let work = 3.0 * (directions * axes.len()) as f64;
    if terms < LONG || (terms <= RUN && sums > MANY) {
        let kernel = rec.gpu().kernel(SHADER, "reduce_many", &[])?;
        let params = params(directions, axes, a, b, y, write);
        let bindings = [("y_in", y.view), ("b", b.map_or(y.view, |b| b.view)), ("a", a.view)];
        return rec.dispatch(&kernel, &bindings, &params, grid(sums, 64), Work::new(work, terms + 1));
    }
    let kernel = rec.gpu().kernel(SHADER, "reduce_long", &[])?;
    let parts = terms.div_ceil(SLICES * RUN);
    let groups = grid(axes.m.div_ceil(SLICES) * parts * directions, 1);
    let work = Work::new(work, RUN + SLICES + 2);
    let record = |rec: &mut Recorder, a: Strided, write| {
        let part_len = terms.div_ceil(parts) as u32;
        let params = Params { parts: parts as u32, part_len, ..params(directions, axes, a, b, y, write) };
        let bindings = [("y_in", y.view), ("b", b.map_or(y.view, |b| b.view)), ("a", a.view)];
        rec.dispatch(&kernel, &bindings, &params, groups, work)
    };
    if parts == 1 {
        return record(rec, a, write);
    }
    // [k, part, q]
    let partial = rec.gpu().buffer(parts * sums)?.slice(0, parts * sums);
    let partial = Strided { view: &partial, stride: parts * axes.m };
    record(rec, partial, Write::NEW)?;
    reduce(rec, directions, Axes { outer: parts, m: axes.m, inner: 1 }, partial, None, a, write)
}
