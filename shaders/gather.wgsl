// Rows by index      x[n, j] = data[indices[step.first + n] − start, j]
//
//   n  row of the batch   j  value of a sample
//   data [samples start … start + held of the data set, j]   indices [·]   x [n, j]   all contiguous
//
// The data set may be cut over several buffers: each has a dispatch, which makes the rows it holds.

struct Params {
    rows: u32,
    width: u32,
    start: u32,
    held: u32,
}

@group(0) @binding(0) var<storage, read> data: array<f32>;
@group(0) @binding(1) var<storage, read> indices: array<u32>;
@group(0) @binding(2) var<storage, read_write> x: array<f32>;
@group(1) @binding(0) var<uniform> p: Params;

@compute @workgroup_size(64)
fn gather(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let e = linear_index(id, groups, 64u);
    if e >= p.rows * p.width {
        return;
    }
    let sample = indices[step.first + e / p.width];
    if sample >= p.start && sample - p.start < p.held {
        x[e] = data[(sample - p.start) * p.width + e % p.width];
    }
}
