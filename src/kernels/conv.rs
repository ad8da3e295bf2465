//! Convolution of images and its adjoints (`shaders/conv.wgsl`).

use super::broadcast::Strided;
use super::gemm::sum_parts;
use crate::Result;
use crate::gpu::{Recorder, Shader, View, grid};

pub const SHADER: Shader =
    Shader { name: "conv", files: &[super::COMMON, include_str!("../../shaders/conv.wgsl")] };

/// The sizes of a convolution: images `[channels, height, width]`, weights `[out, in, kernel, kernel]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conv {
    pub channels: [usize; 2],
    /// Height and width.
    pub input: [usize; 2],
    pub output: [usize; 2],
    pub kernel: usize,
    pub stride: usize,
    pub padding: usize,
}

impl Conv {
    /// Values of one sample, in and out.
    pub fn lens(&self) -> [usize; 2] {
        let plane = |[h, w]: [usize; 2]| h * w;
        [self.channels[0] * plane(self.input), self.channels[1] * plane(self.output)]
    }

    /// Weights.
    pub fn weights(&self) -> usize {
        self.channels[0] * self.channels[1] * self.kernel * self.kernel
    }

    /// Floating-point operations of one sample, forward or either adjoint.
    pub fn flops(&self) -> f64 {
        2.0 * self.weights() as f64 * (self.output[0] * self.output[1]) as f64
    }

    fn params(&self, samples: usize, alpha: f32, add: bool) -> Params {
        Params {
            samples: samples as u32,
            channels_in: self.channels[0] as u32,
            channels_out: self.channels[1] as u32,
            in_h: self.input[0] as u32,
            in_w: self.input[1] as u32,
            out_h: self.output[0] as u32,
            out_w: self.output[1] as u32,
            kernel: self.kernel as u32,
            stride: self.stride as u32,
            padding: self.padding as u32,
            flags: add as u32,
            alpha,
            parts: 1,
            ..Params::default()
        }
    }
}

#[repr(C)]
#[derive(Clone, Copy, Default, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    samples: u32,
    channels_in: u32,
    channels_out: u32,
    in_h: u32,
    in_w: u32,
    out_h: u32,
    out_w: u32,
    kernel: u32,
    stride: u32,
    padding: u32,
    x_stride: u32,
    w_stride: u32,
    y_stride: u32,
    bias_stride: u32,
    tiles: u32,
    tiles_n: u32,
    flags: u32,
    alpha: f32,
    parts: u32,
    part_samples: u32,
    part_stride: u32,
    padding_words: [u32; 3],
}

const BIAS: u32 = 2;
/// Rows and columns of a workgroup's tile.
const TILE: (usize, usize) = (8, 64);

/// `y (+)= α w ⋆ x (+ bias)`; transposed, `x (+)= α` the adjoint of `y`.
///
/// `operand`: x `[n, in, h, w]`, or ȳ `[n, out, h, w]` where transposed; `out` the other. `w`: `[out, in, k, k]`.
/// Each is one for all of the `batch`, or one for each, `stride` words apart.
#[allow(clippy::too_many_arguments)]
pub fn conv(
    rec: &mut Recorder,
    c: Conv,
    transposed: bool,
    (batch, samples): (usize, usize),
    w: Strided,
    operand: Strided,
    bias: Option<Strided>,
    out: Strided,
    alpha: f32,
    add: bool,
) -> Result<()> {
    let [rows, plane] = match transposed {
        false => [c.channels[1], c.output[0] * c.output[1]],
        true => [c.channels[0], c.input[0] * c.input[1]],
    };
    let (x, y) = if transposed { (out, operand) } else { (operand, out) };
    let tiles_n = (samples * plane).div_ceil(TILE.1);
    let tiles = rows.div_ceil(TILE.0) * tiles_n;
    let mut params = Params {
        x_stride: x.stride as u32,
        w_stride: w.stride as u32,
        y_stride: y.stride as u32,
        bias_stride: bias.map_or(0, |bias| bias.stride as u32),
        tiles: tiles as u32,
        tiles_n: tiles_n as u32,
        ..c.params(samples, alpha, add)
    };
    if bias.is_some() {
        params.flags |= BIAS;
    }
    let kernel = rec.gpu().kernel(SHADER, "conv", &[("TRANSPOSED", transposed as u32)])?;
    let bindings =
        [("w", w.view), ("x", operand.view), ("bias", bias.map_or(w.view, |b| b.view)), ("out", out.view)];
    let [gx, gy, _] = grid(tiles, 1);
    let work = c.flops() * (batch * samples) as f64;
    rec.count_flops(work);
    rec.dispatch(&kernel, &bindings, &params, [gx, gy, batch as u32], work)
}

/// `w (+)= α` the adjoint with respect to the weights, summed over samples in a fixed order.
///
/// `y` (ȳ): `[n, out, h, w]`. `x`: `[n, in, h, w]`. `w`: `[out, in, k, k]`.
#[allow(clippy::too_many_arguments)]
pub fn weight(
    rec: &mut Recorder,
    c: Conv,
    (batch, samples): (usize, usize),
    y: Strided,
    x: Strided,
    w: Strided,
    alpha: f32,
    add: bool,
) -> Result<()> {
    // enough parts to keep the adapter busy, none of less than a few samples
    let tiles = tiles_of_weight(c);
    let wanted = (512usize).div_ceil(tiles.0 * batch).min(samples.div_ceil(4)).max(1);
    let part_samples = samples.div_ceil(wanted);
    let parts = samples.div_ceil(part_samples);
    if parts == 1 {
        return weight_parts(rec, c, (batch, samples, samples), y, x, (w, 0), alpha, add);
    }
    let len = c.weights();
    let words = batch * parts * len;
    let scratch = rec.scratch(words)?;
    let into = (Strided { view: &scratch, stride: parts * len }, len);
    weight_parts(rec, c, (batch, samples, part_samples), y, x, into, 1.0, false)?;
    sum_parts(rec, (batch, parts, len), &scratch, w, alpha, add)
}

/// `w[n] = α` the adjoint with respect to the weights, sample by sample, `sample_stride` words apart.
pub fn weight_per_sample(
    rec: &mut Recorder,
    c: Conv,
    samples: usize,
    y: &View,
    x: &View,
    (w, sample_stride): (&View, usize),
    alpha: f32,
) -> Result<()> {
    let [y, x] = [y, x].map(|view| Strided { view, stride: 0 });
    let into = (Strided { view: w, stride: 0 }, sample_stride);
    weight_parts(rec, c, (1, samples, 1), y, x, into, alpha, false)
}

fn tiles_of_weight(c: Conv) -> (usize, usize) {
    let tiles_n = (c.channels[0] * c.kernel * c.kernel).div_ceil(TILE.1);
    (c.channels[1].div_ceil(TILE.0) * tiles_n, tiles_n)
}

#[allow(clippy::too_many_arguments)]
fn weight_parts(
    rec: &mut Recorder,
    c: Conv,
    (batch, samples, part_samples): (usize, usize, usize),
    y: Strided,
    x: Strided,
    (w, part_stride): (Strided, usize),
    alpha: f32,
    add: bool,
) -> Result<()> {
    let (tiles, tiles_n) = tiles_of_weight(c);
    let parts = samples.div_ceil(part_samples);
    assert!(batch * parts <= 65_535, "a convolution's weights in {} parts", batch * parts);
    let params = Params {
        x_stride: x.stride as u32,
        w_stride: w.stride as u32,
        y_stride: y.stride as u32,
        tiles: tiles as u32,
        tiles_n: tiles_n as u32,
        parts: parts as u32,
        part_samples: part_samples as u32,
        part_stride: part_stride as u32,
        ..c.params(samples, alpha, add)
    };
    let kernel = rec.gpu().kernel(SHADER, "weight", &[])?;
    let bindings = [("y_in", y.view), ("x", x.view), ("out", w.view)];
    let [gx, gy, _] = grid(tiles, 1);
    let work = c.flops() * (batch * samples) as f64;
    rec.count_flops(work);
    rec.dispatch(&kernel, &bindings, &params, [gx, gy, (batch * parts) as u32], work)
}
