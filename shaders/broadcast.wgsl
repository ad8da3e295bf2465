// A short tensor over a long one, and its adjoint; with a factor b, a product with broadcasting
//   expand   y[k, e] (+)= c a[k, (e / d) mod m] b[k, e]
//   reduce   a[k, q] (+)= c Σ_{e: (e / d) mod m = q} y[k, e] b[k, e]
//
//   e = (o m + q) d + i   o outer   q index of a   i inner      k  direction
//   y, b [k, o, q, i]   a [k, q]   from one direction's to the next's *_stride words (0: one for all)
//
// Without `has_b`, b is one. A sum is made by `SLICES` invocations over consecutive runs of (o, i), whose sums
// are added in order: a fixed tree; or, where there are many sums of few terms, by one invocation each. A sum of
// very many terms is made of `parts` such sums, a[k, part, q], which another dispatch adds up.

const SLICES = 16u;
const COLUMNS = 16u;

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
    part_len: u32, // terms of one
}

@group(0) @binding(0) var<storage, read> a_in: array<f32>;
@group(0) @binding(1) var<storage, read> b: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
@group(0) @binding(3) var<storage, read> y_in: array<f32>;
@group(0) @binding(4) var<storage, read_write> a: array<f32>;
@group(0) @binding(5) var<storage, read> b4: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read_write> y4: array<vec4<f32>>;
@group(1) @binding(0) var<uniform> p: Params;

@compute @workgroup_size(64)
fn expand(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let at = linear_index(id, groups, 64u);
    let len = p.outer * p.m * p.inner;
    if at >= len * p.directions {
        return;
    }
    let k = at / len;
    let e = at % len;
    var v = p.c * a_in[k * p.a_stride + (e / p.inner) % p.m];
    if p.has_b != 0u {
        v *= b[k * p.b_stride + e];
    }
    let to = k * p.y_stride + e;
    if p.add != 0u {
        v += y[to];
    }
    y[to] = v;
}

// The same for four elements at a time, where they lie within one row of i, or i is the only one; every stride is
// a multiple of 4.
@compute @workgroup_size(64)
fn expand4(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let at = linear_index(id, groups, 64u) * 4u;
    let len = p.outer * p.m * p.inner;
    if at >= len * p.directions {
        return;
    }
    let k = at / len;
    let e = at % len;
    let q = k * p.a_stride + (e / p.inner) % p.m;
    var v = vec4(p.c * a_in[q]);
    if p.inner == 1u {
        v = p.c * vec4(a_in[q], a_in[q + 1u], a_in[q + 2u], a_in[q + 3u]);
    }
    if p.has_b != 0u {
        v *= b4[(k * p.b_stride + e) / 4u];
    }
    let to = (k * p.y_stride + e) / 4u;
    if p.add != 0u {
        v += y4[to];
    }
    y4[to] = v;
}

// Σ over the terms first … end of the sum q of direction k
fn sum(k: u32, q: u32, first: u32, end: u32) -> f32 {
    var total = 0.0;
    var at = vec2(first / p.inner, first % p.inner); // o and i
    for (var t = first; t < end; t++) {
        let e = (at.x * p.m + q) * p.inner + at.y;
        at.y += 1u;
        if at.y == p.inner {
            at = vec2(at.x + 1u, 0u);
        }
        var v = y_in[k * p.y_stride + e];
        if p.has_b != 0u {
            v *= b[k * p.b_stride + e];
        }
        total += v;
    }
    return total;
}

fn put(to: u32, sum: f32) {
    var v = p.c * sum;
    if p.add != 0u {
        v += a[to];
    }
    a[to] = v;
}

@compute @workgroup_size(64)
fn reduce_many(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let at = linear_index(id, groups, 64u);
    if at >= p.m * p.directions {
        return;
    }
    let k = at / p.m;
    let q = at % p.m;
    put(k * p.a_stride + q, sum(k, q, 0u, p.outer * p.inner));
}

var<workgroup> partial: array<f32, 256>;

@compute @workgroup_size(16, 16)
fn reduce_long(@builtin(local_invocation_id) local: vec3<u32>, @builtin(workgroup_id) group: vec3<u32>,
               @builtin(num_workgroups) groups: vec3<u32>) {
    let tiles = (p.m + COLUMNS - 1u) / COLUMNS;
    let number = group.x + group.y * groups.x;
    let q = (number % tiles) * COLUMNS + local.x;
    let part = (number / tiles) % p.parts;
    let k = number / (tiles * p.parts);
    let there = q < p.m && k < p.directions;
    let slice = (p.part_len + SLICES - 1u) / SLICES;
    let end = min((part + 1u) * p.part_len, p.outer * p.inner);
    let first = min(part * p.part_len + local.y * slice, end);
    var mine = 0.0;
    if there {
        mine = sum(k, q, first, min(first + slice, end));
    }
    partial[local.y * COLUMNS + local.x] = mine;
    workgroupBarrier();
    if local.y == 0u && there {
        var total = 0.0;
        for (var s = 0u; s < SLICES; s++) {
            total += partial[s * COLUMNS + local.x];
        }
        put(k * p.a_stride + part * p.m + q, total);
    }
}
