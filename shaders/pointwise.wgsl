// σ and its jet      y = σ(x)     y1 = σ′(x) x1     y2 = σ′(x) x2 + σ″(x) x1²
// and its adjoint's  g = σ′(x) ȳ  g1 = σ′(x) ȳ1 + σ″(x) x1 ȳ
//                    g2 = σ′(x) ȳ2 + 2 σ″(x) x1 ȳ1 + (σ″(x) x2 + σ‴(x) x1²) ȳ
//
//   e  element of the tensor, samples flattened         k  direction
//   x, y, ȳ, g [e]    x1, x2, y1, y2, ȳ1, ȳ2, g1, g2 [k, e]    all contiguous (ȳ is `d` below)
//
// One invocation makes element e for every k: x is read, and σ evaluated, once. What a flag in `has` does
// not name is zero and is not read; a bit in `add` adds to what the output holds.

override SIGMA: u32 = 0u;

const RELU = 0u;
const LEAKY_RELU = 1u;
const TANH = 2u;
const GELU = 3u;
const EXP = 4u;
const RECIPROCAL = 5u;
const RECIPROCAL_SQRT = 6u;

const HAS_X1 = 1u;
const HAS_X2 = 2u;
const HAS_D = 4u;
const HAS_D1 = 8u;
const HAS_D2 = 16u;

struct Params {
    elements: u32,
    directions: u32,
    has: u32,
    add: u32,
    number: f32, // slope of the leaky ReLU, shift under the reciprocal square root
}

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> x1: array<f32>;
@group(0) @binding(2) var<storage, read> x2: array<f32>;
@group(0) @binding(3) var<storage, read> d: array<f32>;
@group(0) @binding(4) var<storage, read> d1: array<f32>;
@group(0) @binding(5) var<storage, read> d2: array<f32>;
@group(0) @binding(6) var<storage, read_write> y: array<f32>;
@group(0) @binding(7) var<storage, read_write> y1: array<f32>;
@group(0) @binding(8) var<storage, read_write> y2: array<f32>;
@group(0) @binding(9) var<storage, read_write> g: array<f32>;
@group(0) @binding(10) var<storage, read_write> g1: array<f32>;
@group(0) @binding(11) var<storage, read_write> g2: array<f32>;
@group(1) @binding(0) var<uniform> p: Params;

// ½ erfc(|v|/√2), to 2e-7 of itself. erfcx(z) = t q(2t − 1), t = 1/(1 + z/2): q is a least-squares fit,
// reweighted towards the smallest relative error on [0, 12].
fn gaussian_tail(v: f32) -> f32 {
    let z = abs(v) * 0.70710678;
    let t = 1.0 / (1.0 + 0.5 * z);
    let u = 2.0 * t - 1.0;
    var q = 1.355445147055434e-05;
    q = q * u - 0.00024956942;
    q = q * u + 0.00036791405;
    q = q * u + 0.00150786981;
    q = q * u - 0.00321716166;
    q = q * u - 0.01074749231;
    q = q * u + 0.01821762137;
    q = q * u + 0.13973538578;
    q = q * u + 0.34358048439;
    q = q * u + 0.51079136133;
    return 0.5 * t * q * exponential(-z * z);
}

// [tanh, tanh′] from the decaying exponential u, so that nothing overflows and nothing cancels away, near 0 or
// where it saturates: tanh = (1 − u)/(1 + u), tanh′ = 4 u/(1 + u)²
fn tanh_of(v: f32) -> vec2<f32> {
    let a = abs(v);
    if a < 0.125 {
        let s = v * v;
        let t = v * (1.0 + s * (-0.333333333 + s * (0.133333333 + s * (-0.0539682540 + s * 0.0218694885))));
        return vec2(t, 1.0 - t * t);
    }
    let u = exponential(-2.0 * a);
    return vec2(sign(v) * (1.0 - u), 4.0 * u / (1.0 + u)) / (1.0 + u);
}

// [σ, σ′, σ″, σ‴] at v
fn sigma(v: f32) -> vec4<f32> {
    switch SIGMA {
        case RELU: {
            return select(vec4(0.0), vec4(v, 1.0, 0.0, 0.0), v > 0.0);
        }
        case LEAKY_RELU: {
            return select(vec4(p.number * v, p.number, 0.0, 0.0), vec4(v, 1.0, 0.0, 0.0), v > 0.0);
        }
        case TANH: {
            let y = tanh_of(v);
            return vec4(y, -2.0 * y.x * y.y, y.y * (6.0 * y.x * y.x - 2.0));
        }
        case EXP: {
            return vec4(exponential(v));
        }
        case RECIPROCAL: {
            let r = 1.0 / v;
            return vec4(r, -r * r, 2.0 * r * r * r, -6.0 * r * r * r * r);
        }
        case RECIPROCAL_SQRT: {
            let r = 1.0 / (v + p.number);
            let s = sqrt(r);
            return vec4(s, -0.5 * s * r, 0.75 * s * r * r, -1.875 * s * r * r * r);
        }
        default: { // GELU: σ = v Φ, σ′ = Φ + v φ, σ″ = (2 − v²) φ, σ‴ = (v² − 4) v φ
            let tail = gaussian_tail(v);
            let cdf = select(1.0 - tail, tail, v < 0.0);
            let pdf = 0.39894228 * exponential(-0.5 * v * v);
            return vec4(v * cdf, cdf + v * pdf, (2.0 - v * v) * pdf, (v * v - 4.0) * v * pdf);
        }
    }
}

@compute @workgroup_size(64)
fn jet0(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let e = linear_index(id, groups, 64u);
    if e < p.elements {
        y[e] = sigma(x[e]).x;
    }
}

@compute @workgroup_size(64)
fn jet1(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let e = linear_index(id, groups, 64u);
    if e >= p.elements {
        return;
    }
    let s = sigma(x[e]);
    y[e] = s.x;
    for (var k = 0u; k < p.directions; k++) {
        let at = k * p.elements + e;
        y1[at] = s.y * x1[at];
    }
}

@compute @workgroup_size(64)
fn jet2(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let e = linear_index(id, groups, 64u);
    if e >= p.elements {
        return;
    }
    let s = sigma(x[e]);
    y[e] = s.x;
    for (var k = 0u; k < p.directions; k++) {
        let at = k * p.elements + e;
        let v1 = x1[at];
        var second = s.z * v1 * v1;
        if (p.has & HAS_X2) != 0u {
            second += s.y * x2[at];
        }
        y1[at] = s.y * v1;
        y2[at] = second;
    }
}

// g1 = σ′(x) ȳ1 for a block of adjoints; with one direction it is g = σ′(x) ȳ
@compute @workgroup_size(64)
fn adjoint_block(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let e = linear_index(id, groups, 64u);
    if e >= p.elements {
        return;
    }
    let slope = sigma(x[e]).y;
    for (var k = 0u; k < p.directions; k++) {
        let at = k * p.elements + e;
        var v = slope * d1[at];
        if p.add != 0u {
            v += g1[at];
        }
        g1[at] = v;
    }
}

@compute @workgroup_size(64)
fn adjoint1(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let e = linear_index(id, groups, 64u);
    if e >= p.elements {
        return;
    }
    let s = sigma(x[e]);
    let bend = s.z * d[e];
    for (var k = 0u; k < p.directions; k++) {
        let at = k * p.elements + e;
        var v = bend * x1[at];
        if (p.has & HAS_D1) != 0u {
            v += s.y * d1[at];
        }
        if p.add != 0u {
            v += g1[at];
        }
        g1[at] = v;
    }
}

@compute @workgroup_size(64)
fn adjoint2(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let e = linear_index(id, groups, 64u);
    if e >= p.elements {
        return;
    }
    let s = sigma(x[e]);
    for (var k = 0u; k < p.directions; k++) {
        let at = k * p.elements + e;
        let v1 = x1[at];
        var v = s.w * v1 * v1 * d[e];
        if (p.has & HAS_X2) != 0u {
            v += s.z * x2[at] * d[e];
        }
        if (p.has & HAS_D1) != 0u {
            v += 2.0 * s.z * v1 * d1[at];
        }
        if (p.has & HAS_D2) != 0u {
            v += s.y * d2[at];
        }
        if p.add != 0u {
            v += g2[at];
        }
        g2[at] = v;
    }
}
