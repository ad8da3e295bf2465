//! Pooling of images (`shaders/pool.wgsl`).

use super::Write;
use super::broadcast::{Axes, Strided, reduce};
use crate::Result;
use crate::gpu::{Recorder, Shader, View, Work, grid};

/// The WGSL, for the tests that validate every shader.
pub const SHADER: Shader =
    Shader { name: "pool", files: &[super::COMMON, include_str!("../../shaders/pool.wgsl")] };

/// The windows of a pooling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Windows {
    /// Height and width.
    pub input: [usize; 2],
    /// Height and width of what is made of a plane.
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
}

impl Windows {
    /// How long a window is at the most, in rows and columns.
    fn most(&self) -> [usize; 2] {
        match self.fixed {
            Some((kernel, _)) => [kernel; 2],
            None => [0, 1].map(|i| self.input[i].div_ceil(self.output[i].max(1)) + 1),
        }
    }

    /// How many windows hold a position at the most, in rows and columns.
    fn holders(&self) -> [usize; 2] {
        match self.fixed {
            Some((kernel, stride)) => [kernel.div_ceil(stride); 2],
            None => [0, 1].map(|i| self.output[i].div_ceil(self.input[i].max(1)) + 1),
        }
    }

    /// Whether one window is the whole image.
    fn is_global(&self) -> bool {
        self.output == [1, 1] && self.fixed.is_none_or(|(kernel, _)| self.input == [kernel; 2])
    }
}

/// How often loops over rows and columns go round.
fn rounds([rows, columns]: [usize; 2], within: usize) -> usize {
    rows * (columns * (1 + within) + 2) + 1
}

/// `y (+)= c · pooled x`, plane by plane; transposed, the adjoint, with `x` in the shape of the output.
///
/// `deciding`: the values whose first maxima are taken, one set of `planes0` planes for all directions; the
/// mean is taken without. The mean of whole images is a sum like any other.
pub fn pool(
    rec: &mut Recorder,
    windows: Windows,
    transposed: bool,
    planes: usize,
    (x, deciding): (&View, Option<(&View, usize)>),
    y: &View,
    write: Write,
) -> Result<()> {
    let Write { c, add } = write;
    if deciding.is_none() && !transposed && windows.is_global() {
        let pixels = windows.input[0] * windows.input[1];
        let axes = Axes { outer: 1, m: planes, inner: pixels };
        let whole = |view| Strided { view, stride: 0 };
        return reduce(rec, 1, axes, whole(x), None, whole(y), Write { c: c / pixels as f32, ..write });
    }
    let (kernel_size, stride) = windows.fixed.unwrap_or((1, 1));
    let apart = windows.fixed.is_some() && stride >= kernel_size;
    let ([h, w], cells) = (windows.input, windows.input.map(|len| len.div_ceil(stride)));
    let ([oh, ow], planes0) = (windows.output, deciding.map_or(1, |(_, planes0)| planes0));
    let (window, holders, of_window) = (windows.most(), windows.holders(), rounds(windows.most(), 0));
    let directions = planes.div_ceil(planes0.max(1)) + 1;
    let (entry, items, iterations) = match (deciding.is_some(), transposed) {
        (false, false) => ("average", planes * oh * ow, of_window),
        (false, true) => {
            ("average_adjoint", planes * h * w, rounds(holders, 0) + holders[0] + holders[1] + 2)
        }
        (true, false) => ("maximum", planes0 * oh * ow, of_window + directions),
        (true, true) if apart => {
            let cell = directions * (rounds([stride; 2], 0) + 1);
            ("maximum_adjoint_apart", planes0 * cells[0] * cells[1], of_window + cell)
        }
        (true, true) => {
            let held = rounds(holders, rounds(window, 0));
            ("maximum_adjoint", planes * h * w, held + holders[0] + holders[1] + 2)
        }
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
    };
    let kernel = rec.gpu().kernel(SHADER, entry, &[])?;
    let work = Work::new(2.0 * (planes * h * w) as f64, iterations);
    match deciding {
        Some((x0, _)) => {
            rec.dispatch(&kernel, &[("x", x), ("x0", x0), ("y", y)], &params, grid(items, 64), work)
        }
        None => rec.dispatch(&kernel, &[("x", x), ("y", y)], &params, grid(items, 64), work),
    }
}
