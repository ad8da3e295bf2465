// Elementwise work on blocks of vectors
//   combine   y[e] = α x[e] + β y[e]                        (β = 0: y is not read)
//   add_outer y[k, e] += c[k] x[e]                          y: `stride` words from row to row
//   units     y[k, n, i] = 1 if i = first + k else 0        tangents that are unit directions
//   dot       s[j, c] = Σ_{e in chunk c} x[i, e] y[j, e]    i = (first + j) mod I
//   combine_each  y[i, e] += Σ_j c[j] x[j, e]    over the j with (first + j) mod I = i
//
//   e  coordinate   i, j, k  vector   I  `period`   c  chunk of CHUNK coordinates

const CHUNK = 4096u;

struct Params {
    elements: u32,
    vectors: u32,
    stride: u32,
    period: u32,
    first: u32,
    alpha: f32,
    beta: f32,
}

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> c: array<f32>;
@group(0) @binding(2) var<storage, read> y_in: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;
@group(0) @binding(4) var<storage, read_write> s: array<f32>;
@group(1) @binding(0) var<uniform> p: Params;

@compute @workgroup_size(64)
fn combine(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let e = linear_index(id, groups, 64u);
    if e >= p.elements {
        return;
    }
    var v = p.alpha * x[e];
    if p.beta != 0.0 {
        v += p.beta * y[e];
    }
    y[e] = v;
}

@compute @workgroup_size(64)
fn add_outer(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let at = linear_index(id, groups, 64u);
    if at >= p.elements * p.vectors {
        return;
    }
    let k = at / p.elements;
    let e = at % p.elements;
    y[k * p.stride + e] += p.alpha * c[k] * x[e];
}

// elements: n · i together, stride: the number of i
@compute @workgroup_size(64)
fn units(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let at = linear_index(id, groups, 64u);
    if at >= p.elements * p.vectors {
        return;
    }
    let k = at / p.elements;
    y[at] = select(0.0, 1.0, at % p.stride == p.first + k);
}

var<workgroup> partial: array<f32, 64>;

@compute @workgroup_size(64)
fn dot(@builtin(local_invocation_id) local: vec3<u32>, @builtin(workgroup_id) group: vec3<u32>,
       @builtin(num_workgroups) groups: vec3<u32>) {
    let chunks = (p.elements + CHUNK - 1u) / CHUNK;
    let at = group.x + group.y * groups.x;
    let chunk = at % chunks;
    let j = at / chunks;
    if j >= p.vectors {
        return;
    }
    let i = (p.first + j) % p.period;
    let first = chunk * CHUNK;
    let end = min(first + CHUNK, p.elements);
    var sum = 0.0;
    for (var e = first + local.x; e < end; e += 64u) {
        sum += x[i * p.elements + e] * y_in[j * p.elements + e];
    }
    partial[local.x] = sum;
    workgroupBarrier();
    for (var half = 32u; half > 0u; half /= 2u) {
        if local.x < half {
            partial[local.x] += partial[local.x + half];
        }
        workgroupBarrier();
    }
    if local.x == 0u {
        s[at] = partial[0];
    }
}

@compute @workgroup_size(64)
fn combine_each(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let at = linear_index(id, groups, 64u);
    if at >= p.elements * p.period {
        return;
    }
    let i = at / p.elements;
    let e = at % p.elements;
    // in the order of j from what is there, so that bits do not depend on where x is cut
    var sum = y[at];
    for (var j = (i + p.period - p.first) % p.period; j < p.vectors; j += p.period) {
        sum += c[j] * x[j * p.elements + e];
    }
    y[at] = sum;
}
