// Convolution of images with square kernels, and its adjoints
//   value      y[z, n, o, q] (+)= α Σ_{c, r, s} w[z, o, c, r, s] x[z, n, c, q·stride − padding + (r, s)]  (+ bias[z, o])
//   adjoint    x[z, n, c, i] (+)= α Σ_{o, r, s} w[z, o, c, r, s] y[z, n, o, (i + padding − (r, s)) / stride]
//   weight     w[z, part, o, c, r, s] (+)= α Σ_{n in part, q} y[z, n, o, q] x[z, n, c, q·stride − padding + (r, s)]
//
//   z  batch: direction, or one for all   n  sample   o, c  channel   q, i  pixel of y, of x   (r, s)  of the kernel
//   all contiguous; from one z to the next *_stride words (0 shares an operand)
//
// An implicit matrix product by register tiles: one invocation owns 8 channels × 8 pixels (weight: 8 o × 8
// of (c, r, s)), and no patch matrix is ever made. What lies in the padding is zero.

override TRANSPOSED: u32 = 0u; // 0: value, 1: adjoint

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
    flags: u32,     // bit 0: add to what the output holds; bit 1: bias
    alpha: f32,
    parts: u32,     // of the samples, for `weight`; group z = batch · parts + part
    part_samples: u32,
    part_stride: u32,
}

@group(0) @binding(0) var<storage, read> w: array<f32>;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> bias: array<f32>;
@group(0) @binding(3) var<storage, read> y_in: array<f32>;
@group(0) @binding(4) var<storage, read_write> out: array<f32>;
@group(1) @binding(0) var<uniform> p: Params;

alias Tile = array<vec4<f32>, 16>;

fn multiply_add(t: ptr<function, Tile>, a0: vec4<f32>, a1: vec4<f32>, b0: vec4<f32>, b1: vec4<f32>) {
    (*t)[0] += a0.x * b0; (*t)[1] += a0.x * b1;
    (*t)[2] += a0.y * b0; (*t)[3] += a0.y * b1;
    (*t)[4] += a0.z * b0; (*t)[5] += a0.z * b1;
    (*t)[6] += a0.w * b0; (*t)[7] += a0.w * b1;
    (*t)[8] += a1.x * b0; (*t)[9] += a1.x * b1;
    (*t)[10] += a1.y * b0; (*t)[11] += a1.y * b1;
    (*t)[12] += a1.z * b0; (*t)[13] += a1.z * b1;
    (*t)[14] += a1.w * b0; (*t)[15] += a1.w * b1;
}

// Four pixels (n, position) of the output, by their number; those past the last repeat it.
struct Pixels {
    base: vec4<u32>,  // where the sample's first plane of the operand starts
    row: vec4<i32>,   // of the operand, at r = 0
    column: vec4<i32>,
}

fn pixels(first: u32, last: u32, start: u32) -> Pixels {
    let at = min(vec4(first) + vec4(0u, 1u, 2u, 3u), vec4(last));
    if TRANSPOSED == 0u {
        let size = vec4(p.out_h * p.out_w);
        let q = at % size;
        let row = vec4<i32>(q / p.out_w) * i32(p.stride) - i32(p.padding);
        let column = vec4<i32>(q % p.out_w) * i32(p.stride) - i32(p.padding);
        return Pixels(start + (at / size) * (p.channels_in * p.in_h * p.in_w), row, column);
    }
    let size = vec4(p.in_h * p.in_w);
    let i = at % size;
    let row = vec4<i32>(i / p.in_w) + i32(p.padding);
    let column = vec4<i32>(i % p.in_w) + i32(p.padding);
    return Pixels(start + (at / size) * (p.channels_out * p.out_h * p.out_w), row, column);
}

// Where those pixels' operands are in its first plane at kernel position (r, s), and 1 where they are there.
struct Taps {
    at: vec4<u32>,
    there: vec4<f32>,
}

fn taps(q: Pixels, r: i32, s: i32) -> Taps {
    if TRANSPOSED == 0u {
        let row = q.row + r;
        let column = q.column + s;
        let rows = (row >= vec4(0)) & (row < vec4(i32(p.in_h)));
        let inside = rows & (column >= vec4(0)) & (column < vec4(i32(p.in_w)));
        let at = select(vec4(0u), vec4<u32>(row) * p.in_w + vec4<u32>(column), inside);
        return Taps(q.base + at, select(vec4(0.0), vec4(1.0), inside));
    }
    let stride = vec4(i32(p.stride));
    let row = q.row - r;
    let column = q.column - s;
    let whole = (row >= vec4(0)) & (column >= vec4(0)) & (row % stride == vec4(0)) & (column % stride == vec4(0));
    let inside = whole & (row / stride < vec4(i32(p.out_h))) & (column / stride < vec4(i32(p.out_w)));
    let at = select(vec4(0u), vec4<u32>(row / stride) * p.out_w + vec4<u32>(column / stride), inside);
    return Taps(q.base + at, select(vec4(0.0), vec4(1.0), inside));
}

fn store(at: u32, v: f32, shift: f32) {
    var total = p.alpha * v + shift;
    if (p.flags & 1u) != 0u {
        total += out[at];
    }
    out[at] = total;
}

@compute @workgroup_size(8)
fn conv(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_id) local: vec3<u32>,
        @builtin(num_workgroups) groups: vec3<u32>) {
    let tile = group.x + group.y * groups.x;
    if tile >= p.tiles {
        return;
    }
    let z = group.z;
    // `rows` output channels (of x̄: input channels) of the tile, `depth` channels to sum over
    let rows = select(p.channels_in, p.channels_out, TRANSPOSED == 0u);
    let depth = select(p.channels_out, p.channels_in, TRANSPOSED == 0u);
    let out_plane = select(p.in_h * p.in_w, p.out_h * p.out_w, TRANSPOSED == 0u);
    let operand_plane = select(p.out_h * p.out_w, p.in_h * p.in_w, TRANSPOSED == 0u);
    let taps_of_one = p.kernel * p.kernel;
    let row_step = select(taps_of_one, p.channels_in * taps_of_one, TRANSPOSED == 0u);
    let depth_step = select(p.channels_in * taps_of_one, taps_of_one, TRANSPOSED == 0u);
    let m0 = (tile / p.tiles_n) * 8u;
    let n0 = ((tile % p.tiles_n) * 8u + local.x) * 8u;
    let columns = p.samples * out_plane;
    let start = z * select(p.y_stride, p.x_stride, TRANSPOSED == 0u);
    let q0 = pixels(n0, columns - 1u, start);
    let q1 = pixels(n0 + 4u, columns - 1u, start);
    let four = vec4(0u, 1u, 2u, 3u);
    let w0 = z * p.w_stride + min(four + m0, vec4(rows - 1u)) * row_step;
    let w1 = z * p.w_stride + min(four + m0 + 4u, vec4(rows - 1u)) * row_step;
    var t: Tile;
    for (var r = 0u; r < p.kernel; r++) {
        for (var s = 0u; s < p.kernel; s++) {
            let t0 = taps(q0, i32(r), i32(s));
            let t1 = taps(q1, i32(r), i32(s));
            let tap = r * p.kernel + s;
            for (var c = 0u; c < depth; c++) {
                let wc = tap + c * depth_step;
                let oc = c * operand_plane;
                let a0 = vec4(w[w0.x + wc], w[w0.y + wc], w[w0.z + wc], w[w0.w + wc]);
                let a1 = vec4(w[w1.x + wc], w[w1.y + wc], w[w1.z + wc], w[w1.w + wc]);
                let b0 = vec4(x[t0.at.x + oc], x[t0.at.y + oc], x[t0.at.z + oc], x[t0.at.w + oc]);
                let b1 = vec4(x[t1.at.x + oc], x[t1.at.y + oc], x[t1.at.z + oc], x[t1.at.w + oc]);
                multiply_add(&t, a0, a1, b0 * t0.there, b1 * t1.there);
            }
        }
    }
    let out_start = z * select(p.x_stride, p.y_stride, TRANSPOSED == 0u);
    var held = t;
    for (var i = 0u; i < 64u; i++) {
        let m = m0 + i / 8u;
        let n = n0 + i % 8u;
        if m < rows && n < columns {
            var shift = 0.0;
            if (p.flags & 2u) != 0u {
                shift = bias[z * p.bias_stride + m];
            }
            let at = out_start + ((n / out_plane) * rows + m) * out_plane + n % out_plane;
            store(at, held[i / 4u][i % 4u], shift);
        }
    }
}

@compute @workgroup_size(8)
fn weight(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_id) local: vec3<u32>,
          @builtin(num_workgroups) groups: vec3<u32>) {
    let tile = group.x + group.y * groups.x;
    if tile >= p.tiles {
        return;
    }
    let z = group.z / p.parts;
    let part = group.z % p.parts;
    let taps_of_one = p.kernel * p.kernel;
    let columns = p.channels_in * taps_of_one;
    let m0 = (tile / p.tiles_n) * 8u;
    let n0 = ((tile % p.tiles_n) * 8u + local.x) * 8u;
    let four = vec4(0u, 1u, 2u, 3u);
    let last = vec4(columns - 1u);
    let j0 = min(four + n0, last);
    let j1 = min(four + n0 + 4u, last);
    let plane_in = p.in_h * p.in_w;
    let plane_out = p.out_h * p.out_w;
    let base0 = (j0 / taps_of_one) * plane_in;
    let base1 = (j1 / taps_of_one) * plane_in;
    let r0 = vec4<i32>((j0 % taps_of_one) / p.kernel) - i32(p.padding);
    let r1 = vec4<i32>((j1 % taps_of_one) / p.kernel) - i32(p.padding);
    let s0 = vec4<i32>(j0 % p.kernel) - i32(p.padding);
    let s1 = vec4<i32>(j1 % p.kernel) - i32(p.padding);
    let o0 = min(four + m0, vec4(p.channels_out - 1u)) * plane_out;
    let o1 = min(four + m0 + 4u, vec4(p.channels_out - 1u)) * plane_out;
    let height = vec4(i32(p.in_h));
    let width = vec4(i32(p.in_w));
    var t: Tile;
    let end = min((part + 1u) * p.part_samples, p.samples);
    for (var n = part * p.part_samples; n < end; n++) {
        let xs = z * p.x_stride + n * p.channels_in * plane_in;
        let ys = z * p.y_stride + n * p.channels_out * plane_out;
        for (var oy = 0u; oy < p.out_h; oy++) {
            let iy0 = r0 + i32(oy * p.stride);
            let iy1 = r1 + i32(oy * p.stride);
            let rows0 = (iy0 >= vec4(0)) & (iy0 < height);
            let rows1 = (iy1 >= vec4(0)) & (iy1 < height);
            for (var ox = 0u; ox < p.out_w; ox++) {
                let ix0 = s0 + i32(ox * p.stride);
                let ix1 = s1 + i32(ox * p.stride);
                let in0 = rows0 & (ix0 >= vec4(0)) & (ix0 < width);
                let in1 = rows1 & (ix1 >= vec4(0)) & (ix1 < width);
                let at0 = xs + base0 + select(vec4(0u), vec4<u32>(iy0) * p.in_w + vec4<u32>(ix0), in0);
                let at1 = xs + base1 + select(vec4(0u), vec4<u32>(iy1) * p.in_w + vec4<u32>(ix1), in1);
                let yq = ys + oy * p.out_w + ox;
                let a0 = vec4(y_in[yq + o0.x], y_in[yq + o0.y], y_in[yq + o0.z], y_in[yq + o0.w]);
                let a1 = vec4(y_in[yq + o1.x], y_in[yq + o1.y], y_in[yq + o1.z], y_in[yq + o1.w]);
                let b0 = vec4(x[at0.x], x[at0.y], x[at0.z], x[at0.w]);
                let b1 = vec4(x[at1.x], x[at1.y], x[at1.z], x[at1.w]);
                multiply_add(&t, a0, a1, select(vec4(0.0), b0, in0), select(vec4(0.0), b1, in1));
            }
        }
    }
    let out_start = z * p.w_stride + part * p.part_stride;
    var held = t;
    for (var i = 0u; i < 64u; i++) {
        let m = m0 + i / 8u;
        let n = n0 + i % 8u;
        if m < p.channels_out && n < columns {
            store(out_start + m * columns + n, held[i / 4u][i % 4u], 0.0);
        }
    }
}
