// σ and its jet      y = σ(x)     y1 = σ′(x) x1     y2 = σ′(x) x2 + σ″(x) x1²
// and its adjoint's  g = σ′(x) ȳ  g1 = σ′(x) ȳ1 + σ″(x) x1 ȳ
//                    g2 = σ′(x) ȳ2 + 2 σ″(x) x1 ȳ1 + (σ″(x) x2 + σ‴(x) x1²) ȳ
//
//   e  element of the tensor, samples flattened         k  direction
//   x, y, ȳ, g [e]    x1, x2, y1, y2, ȳ1, ȳ2, g1, g2 [k, e]    all contiguous (ȳ is `d` below)
//
// One invocation makes element e for every k: x is read, and σ evaluated, once. What a flag in `has` does
// not name is zero and is not read; a bit in `add` adds to what the output holds.
//
// [σ, σ′, σ″, σ‴] is `sigma` in sigma.wgsl, or a caller's own function of that name.

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
