//! A short tensor over a long one, and its adjoint (`shaders/broadcast.wgsl`).

use crate::Result;
use crate::gpu::{Recorder, Shader, View, grid};

pub const SHADER: Shader =
    Shader { name: "broadcast", files: &[super::COMMON, include_str!("../../shaders/broadcast.wgsl")] };

/// How element `e = (o m + q) inner + i` of the long tensor belongs to element q of the short one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Axes {
    pub outer: usize,
    pub m: usize,
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
    pub view: &'a View,
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
    padding: [u32; 2],
}

fn params(
    directions: usize,
    axes: Axes,
    a: Strided,
    b: Option<Strided>,
    y: Strided,
    c: f32,
    add: bool,
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
        padding: [0; 2],
    }
}

/// `y[k, e] (+)= c a[k, q(e)] b[k, e]`; without `b`, b is one.
#[allow(clippy::too_many_arguments)]
pub fn expand(
    rec: &mut Recorder,
    directions: usize,
    axes: Axes,
    a: Strided,
    b: Option<Strided>,
    y: Strided,
    c: f32,
    add: bool,
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
    let params = params(directions, axes, a, b, y, c, add);
    let views = [a.view, b.map_or(a.view, |b| b.view), y.view];
    let bindings: [_; 3] = std::array::from_fn(|i| (names[i], views[i]));
    let items = directions * axes.len();
    rec.dispatch(&kernel, &bindings, &params, grid(items / each, 64), 3.0 * items as f64)
}

/// `a[k, q] (+)= c Σ_{e of q} y[k, e] b[k, e]`, in a fixed tree; without `b`, b is one.
#[allow(clippy::too_many_arguments)]
pub fn reduce(
    rec: &mut Recorder,
    directions: usize,
    axes: Axes,
    y: Strided,
    b: Option<Strided>,
    a: Strided,
    c: f32,
    add: bool,
) -> Result<()> {
    // a sum of this many terms is worth a workgroup
    const LONG: usize = 128;
    // unless there are so many that one invocation each keeps every processor busy
    const MANY: usize = 1 << 16;
    let long = axes.outer * axes.inner >= LONG && axes.m * directions <= MANY;
    let (entry, groups) = match long {
        true => ("reduce_long", [axes.m.div_ceil(16) as u32, directions as u32, 1]),
        false => ("reduce_many", grid(axes.m * directions, 64)),
    };
    assert!(groups[0] <= 65_535 && groups[1] <= 65_535, "sums of {axes:?} for {directions} directions");
    let kernel = rec.gpu().kernel(SHADER, entry, &[])?;
    let params = params(directions, axes, a, b, y, c, add);
    let bindings = [("y_in", y.view), ("b", b.map_or(y.view, |b| b.view)), ("a", a.view)];
    rec.dispatch(&kernel, &bindings, &params, groups, 3.0 * (directions * axes.len()) as f64)
}
