// Per-sample outer products      w[n, o, i] = Σ_t a[n, t, o] b[n, t, i]
//
//   n  sample   t  position within the sample   o, i  features
//   a [n, t, o], b [n, t, i] contiguous;  w: [o, i] contiguous, from one sample's to the next's
//   `sample_stride` words

struct Params {
    samples: u32,
    positions: u32,
    outs: u32,
    ins: u32,
    sample_stride: u32,
}

@group(0) @binding(0) var<storage, read> a: array<f32>;
@group(0) @binding(1) var<storage, read> b: array<f32>;
@group(0) @binding(2) var<storage, read_write> w: array<f32>;
@group(1) @binding(0) var<uniform> p: Params;

@compute @workgroup_size(64)
fn outer(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let e = linear_index(id, groups, 64u);
    let size = p.outs * p.ins;
    if e >= p.samples * size {
        return;
    }
    let n = e / size;
    let o = (e % size) / p.ins;
    let i = e % p.ins;
    var sum = 0.0;
    for (var t = 0u; t < p.positions; t++) {
        let at = n * p.positions + t;
        sum += a[at * p.outs + o] * b[at * p.ins + i];
    }
    w[n * p.sample_stride + e % size] = sum;
}
