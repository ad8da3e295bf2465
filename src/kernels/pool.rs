//! Pooling of images (`shaders/pool.wgsl`).

use crate::Result;
use crate::gpu::{Recorder, Shader, View, grid};

pub const SHADER: Shader =
    Shader { name: "pool", files: &[super::COMMON, include_str!("../../shaders/pool.wgsl")] };

/// The windows of a pooling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Windows {
    /// Height and width.
    pub input: [usize; 2],
    pub output: [usize; 2],
    /// Kernel size and stride; `None` where the windows cover the input evenly (adaptive).
    pub fixed: Option<(usize, usize)>,
}

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    planes: u32,
    planes0: u32,
    in_h: u32,
    in_w: u32,
    out_h: u32,
    out_w: u32,
    kernel: u32,
    stride: u32,
    adaptive: u32,
    add: u32,
    c: f32,
    padding: u32,
}

/// `y (+)= c · pooled x`, plane by plane; transposed, the adjoint, with `x` in the shape of the output.
///
/// `deciding`: the values whose first maxima are taken, one set of `planes0` planes for all directions; the
/// mean is taken without.
#[allow(clippy::too_many_arguments)]
pub fn pool(
    rec: &mut Recorder,
    windows: Windows,
    transposed: bool,
    planes: usize,
    x: &View,
    deciding: Option<(&View, usize)>,
    y: &View,
    c: f32,
    add: bool,
) -> Result<()> {
    let (kernel_size, stride) = windows.fixed.unwrap_or((1, 1));
    let apart = windows.fixed.is_some() && stride >= kernel_size;
    let ([h, w], cells) = (windows.input, windows.input.map(|len| len.div_ceil(stride)));
    let ([oh, ow], planes0) = (windows.output, deciding.map_or(1, |(_, planes0)| planes0));
    let (entry, items) = match (deciding.is_some(), transposed) {
        (false, false) => ("average", planes * oh * ow),
        (false, true) => ("average_adjoint", planes * h * w),
        (true, false) => ("maximum", planes0 * oh * ow),
        (true, true) if apart => ("maximum_adjoint_apart", planes0 * cells[0] * cells[1]),
        (true, true) => ("maximum_adjoint", planes * h * w),
    };
    let params = Params {
        planes: planes as u32,
        planes0: planes0 as u32,
        in_h: windows.input[0] as u32,
        in_w: windows.input[1] as u32,
        out_h: windows.output[0] as u32,
        out_w: windows.output[1] as u32,
        kernel: kernel_size as u32,
        stride: stride as u32,
        adaptive: windows.fixed.is_none() as u32,
        add: add as u32,
        c,
        padding: 0,
    };
    let kernel = rec.gpu().kernel(SHADER, entry, &[])?;
    let work = 2.0 * (planes * h * w) as f64;
    match deciding {
        Some((x0, _)) => {
            rec.dispatch(&kernel, &[("x", x), ("x0", x0), ("y", y)], &params, grid(items, 64), work)
        }
        None => rec.dispatch(&kernel, &[("x", x), ("y", y)], &params, grid(items, 64), work),
    }
}
