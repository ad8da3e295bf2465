// Convolution of images with square kernels, and its adjoints: what both families of kernels share
//
// All three are sums over the terms  y[n, m, j] w[m, c, t] x[n, c, step j + start + t]:
//   conv      y[z, n, m, j] (+)= α Σ_{c, t} w[z, m, c, t] x[z, n, c, step j + start + t]  (+ bias[z, m])
//   weight    w[z, part, m, c, t] (+)= α Σ_{n in part, j} y[z, n, m, j] x[z, n, c, step j + start + t]
//
//   z  batch: direction, or one for all   n  sample   m, c  channel of y, of x   j  pixel of y   t  tap of the kernel
//   j and t have a row and a column; x is zero outside of its plane
//   y [z, n, m, ·], x [z, n, c, ·], w [z, part, m, c, t]  contiguous; from one z to the next *_stride words (0 shares)
//
// The adjoint with respect to x is `conv` too, with x and y, and m and c, in each other's place. Its pixels
// i = first + stride j, for each of the stride² firsts, meet every stride-th tap alone; so each first is a pass of
// its own, a convolution of step 1 with every stride-th tap, in the opposite order. y's pixels are hence
// first + out_step j, and tap t of w is w_first + t w_tap.
// A contraction of very many channels is cut: a pass has `depth` of them, from x_first on, and adds to what is there.

struct Pass {
    samples: u32,
    rows: u32,          // channels of y
    depth: u32,         // channels of x
    step: u32,
    y_size: vec2<u32>,  // height and width
    x_size: vec2<u32>,
    j_size: vec2<u32>,  // rows and columns of j; all of y where out_step is 1
    out_first: vec2<u32>,
    start: vec2<i32>,
    taps: vec2<u32>,    // rows and columns of t
    out_step: u32,
    w_first: u32,
    w_row: u32,         // from one m to the next
    w_depth: u32,       // from one c to the next
    w_tap: vec2<i32>,   // from one row of t, and from one column, to the next
    x_stride: u32,
    w_stride: u32,
    y_stride: u32,
    bias_stride: u32,
    tiles: u32,         // of one z and part
    tiles_n: u32,       // numbered along j (weight: along (c, t)) first
    batch: u32,         // how many z
    flags: u32,         // bit 0: add to what the output holds; bit 1: bias
    alpha: f32,
    parts: u32,         // of what an output's sums run over (conv_register: of y's lines)
    part_len: u32,      // of a part: lines of j (conv_workgroup: pixels of j)
    part_stride: u32,
    part_first: u32,    // number of the first part
    x_sample: u32,      // from one sample of x to the next
    x_first: u32,       // from a sample's first word to the first channel's
    padding: u32,
}

@group(1) @binding(0) var<uniform> p: Pass;
@group(0) @binding(0) var<storage, read> w: array<f32>;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> y: array<f32>;
@group(0) @binding(3) var<storage, read> bias: array<f32>;
@group(0) @binding(4) var<storage, read_write> out: array<f32>;

fn bias_of(z: u32, m: u32) -> f32 {
    if (p.flags & 2u) == 0u {
        return 0.0;
    }
    return bias[z * p.bias_stride + m];
}

fn store(at: u32, v: f32, shift: f32) {
    var total = p.alpha * v + shift;
    if (p.flags & 1u) != 0u {
        total += out[at];
    }
    out[at] = total;
}
