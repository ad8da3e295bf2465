// Pooling over windows of images, and its adjoint
//   average   y[p, oy, ox] (+)= c / |W| Σ_{(iy, ix) in W(oy, ox)} x[p, iy, ix]
//   maximum   y[p, oy, ox] (+)= c x[p, first maximum of x0 over W(oy, ox)]
//
//   p  plane: direction, sample and channel together    y [p, oy, ox]    x [p, iy, ix]    contiguous
//   x0: the values that decide the maximum, one set of `planes0` planes for all directions
//   W(o): from o · stride, `kernel` long; or, where `adaptive`, from ⌊o in / out⌋ to ⌈(o + 1) in / out⌉
//
// One invocation makes one element, unless it says otherwise: the transposed maps look for the windows that hold
// theirs.

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

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> x0: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
@group(1) @binding(0) var<uniform> p: Params;

// The first position of window o and the one after its last, along an axis.
fn window(o: u32, len: u32, outs: u32) -> vec2<u32> {
    if p.adaptive != 0u {
        return vec2((o * len) / outs, ((o + 1u) * len + outs - 1u) / outs);
    }
    return vec2(o * p.stride, o * p.stride + p.kernel);
}

// The first window that holds position i and the one after the last, along an axis; windows are in order.
fn holders(i: u32, len: u32, outs: u32) -> vec2<u32> {
    var first = 0u;
    if p.adaptive != 0u {
        first = (i * outs) / len;
    } else if i >= p.kernel {
        first = (i - p.kernel) / p.stride + 1u;
    }
    var end = first;
    while end < outs && window(end, len, outs).x <= i {
        end += 1u;
    }
    return vec2(first, end);
}

fn store(e: u32, v: f32) {
    var total = p.c * v;
    if p.add != 0u {
        total += y[e];
    }
    y[e] = total;
}

@compute @workgroup_size(64)
fn average(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let e = linear_index(id, groups, 64u);
    if e >= p.planes * p.out_h * p.out_w {
        return;
    }
    let plane = e / (p.out_h * p.out_w);
    let wy = window((e / p.out_w) % p.out_h, p.in_h, p.out_h);
    let wx = window(e % p.out_w, p.in_w, p.out_w);
    var sum = 0.0;
    for (var iy = wy.x; iy < wy.y; iy++) {
        var of_row = 0.0;
        for (var ix = wx.x; ix < wx.y; ix++) {
            of_row += x[(plane * p.in_h + iy) * p.in_w + ix];
        }
        sum += of_row;
    }
    store(e, sum / f32((wy.y - wy.x) * (wx.y - wx.x)));
}

// x is ȳ [p, oy, ox] and y is x̄ [p, iy, ix]
@compute @workgroup_size(64)
fn average_adjoint(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let e = linear_index(id, groups, 64u);
    if e >= p.planes * p.in_h * p.in_w {
        return;
    }
    let plane = e / (p.in_h * p.in_w);
    let hy = holders((e / p.in_w) % p.in_h, p.in_h, p.out_h);
    let hx = holders(e % p.in_w, p.in_w, p.out_w);
    var sum = 0.0;
    for (var oy = hy.x; oy < hy.y; oy++) {
        let wy = window(oy, p.in_h, p.out_h);
        for (var ox = hx.x; ox < hx.y; ox++) {
            let wx = window(ox, p.in_w, p.out_w);
            sum += x[(plane * p.out_h + oy) * p.out_w + ox] / f32((wy.y - wy.x) * (wx.y - wx.x));
        }
    }
    store(e, sum);
}

// Where the first maximum of the window lies in its plane of x0.
fn first_maximum(plane0: u32, oy: u32, ox: u32) -> u32 {
    let wy = window(oy, p.in_h, p.out_h);
    let wx = window(ox, p.in_w, p.out_w);
    let start = plane0 * p.in_h * p.in_w;
    var best = wy.x * p.in_w + wx.x;
    var top = x0[start + best];
    for (var iy = wy.x; iy < wy.y; iy++) {
        for (var ix = wx.x; ix < wx.y; ix++) {
            let at = iy * p.in_w + ix;
            let v = x0[start + at];
            if v > top {
                best = at;
                top = v;
            }
        }
    }
    return best;
}

// One invocation per window of a plane of x0, for all directions.
@compute @workgroup_size(64)
fn maximum(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let e = linear_index(id, groups, 64u);
    let outs = p.out_h * p.out_w;
    if e >= p.planes0 * outs {
        return;
    }
    let best = first_maximum(e / outs, (e / p.out_w) % p.out_h, e % p.out_w);
    for (var plane = e / outs; plane < p.planes; plane += p.planes0) {
        store(plane * outs + e % outs, x[plane * p.in_h * p.in_w + best]);
    }
}

@compute @workgroup_size(64)
fn maximum_adjoint(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let e = linear_index(id, groups, 64u);
    if e >= p.planes * p.in_h * p.in_w {
        return;
    }
    let plane = e / (p.in_h * p.in_w);
    let within = e % (p.in_h * p.in_w);
    let hy = holders(within / p.in_w, p.in_h, p.out_h);
    let hx = holders(within % p.in_w, p.in_w, p.out_w);
    var sum = 0.0;
    for (var oy = hy.x; oy < hy.y; oy++) {
        for (var ox = hx.x; ox < hx.y; ox++) {
            if first_maximum(plane % p.planes0, oy, ox) == within {
                sum += x[(plane * p.out_h + oy) * p.out_w + ox];
            }
        }
    }
    store(e, sum);
}

// The same where windows do not overlap: one invocation per cell of stride × stride positions of a plane of x0, of
// which the window, if there is one, holds the first `kernel` each way; for all directions.
@compute @workgroup_size(64)
fn maximum_adjoint_apart(@builtin(global_invocation_id) id: vec3<u32>,
                         @builtin(num_workgroups) groups: vec3<u32>) {
    let e = linear_index(id, groups, 64u);
    let cells_h = (p.in_h + p.stride - 1u) / p.stride;
    let cells_w = (p.in_w + p.stride - 1u) / p.stride;
    if e >= p.planes0 * cells_h * cells_w {
        return;
    }
    let plane0 = e / (cells_h * cells_w);
    let oy = (e / cells_w) % cells_h;
    let ox = e % cells_w;
    let pooled = oy < p.out_h && ox < p.out_w;
    var best = 0u;
    if pooled {
        best = first_maximum(plane0, oy, ox);
    }
    for (var plane = plane0; plane < p.planes; plane += p.planes0) {
        var v = 0.0;
        if pooled {
            v = x[(plane * p.out_h + oy) * p.out_w + ox];
        }
        for (var iy = oy * p.stride; iy < min((oy + 1u) * p.stride, p.in_h); iy++) {
            for (var ix = ox * p.stride; ix < min((ox + 1u) * p.stride, p.in_w); ix++) {
                let at = iy * p.in_w + ix;
                store(plane * p.in_h * p.in_w + at, select(0.0, v, pooled && at == best));
            }
        }
    }
}
