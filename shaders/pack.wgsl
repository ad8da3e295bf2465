// Packed symmetric factors of a Kronecker Gram matrix, one row per sample:
//   matrix  out[n, q(i,k)] = s_n ½ (a[n, i, k] + a[n, k, i])
//   square  out[n, q(i,k)] = s_n a[n, i] a[n, k]
//
//   n  sample   i ≤ k  indices of the d × d factor   q(i,k) = i d − i (i−1)/2 + (k − i), row by row
//   a: element (n, i, k) of the matrix at n sample_stride + i row_stride + k, of the vector at n d + i
//   s_n = ‖b_n‖², b [n, width] contiguous, where width > 0, else 1
//   out: from one sample's to the next's `out_stride` words

struct Params {
    samples: u32,
    d: u32,
    sample_stride: u32,
    row_stride: u32,
    out_stride: u32,
    width: u32,
}

@group(0) @binding(0) var<storage, read> a: array<f32>;
@group(0) @binding(1) var<storage, read> b: array<f32>;
@group(0) @binding(2) var<storage, read_write> out: array<f32>;
@group(1) @binding(0) var<uniform> p: Params;

fn squared_norm(n: u32) -> f32 {
    if p.width == 0u {
        return 1.0;
    }
    var sum = 0.0;
    for (var j = 0u; j < p.width; j++) {
        let v = b[n * p.width + j];
        sum += v * v;
    }
    return sum;
}

// One invocation per (n, i): row i of the upper triangle.
@compute @workgroup_size(64)
fn matrix(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let e = linear_index(id, groups, 64u);
    if e >= p.samples * p.d {
        return;
    }
    let n = e / p.d;
    let i = e % p.d;
    let s = 0.5 * squared_norm(n);
    let start = n * p.sample_stride;
    let to = n * p.out_stride + i * p.d - (i * (i + 1u)) / 2u;
    for (var k = i; k < p.d; k++) {
        out[to + k] = s * (a[start + i * p.row_stride + k] + a[start + k * p.row_stride + i]);
    }
}

@compute @workgroup_size(64)
fn square(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let e = linear_index(id, groups, 64u);
    if e >= p.samples * p.d {
        return;
    }
    let n = e / p.d;
    let i = e % p.d;
    let s = squared_norm(n) * a[n * p.d + i];
    let to = n * p.out_stride + i * p.d - (i * (i + 1u)) / 2u;
    for (var k = i; k < p.d; k++) {
        out[to + k] = s * a[n * p.d + k];
    }
}
