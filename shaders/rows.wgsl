// A vector over the rows of a matrix, and its adjoint
//   broadcast   y[k, m, n] (+)= c b[k, n]
//   column_sum  b[k, n] (+)= c Σ_m y[k, m, n]
//
//   k  direction   m  row   n  column
//   y [k, m, n] contiguous;  b [k, n], from one direction's to the next's `vector_stride` words
//
// A column is summed by `SLICES` invocations over consecutive slices of rows, whose sums are added in
// order: a fixed tree.

const SLICES = 16u;
const COLUMNS = 16u;

struct Params {
    directions: u32,
    rows: u32,
    columns: u32,
    vector_stride: u32,
    c: f32,
    add: u32,
}

@group(0) @binding(0) var<storage, read> b_in: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;
@group(0) @binding(2) var<storage, read> y_in: array<f32>;
@group(0) @binding(3) var<storage, read_write> b: array<f32>;
@group(1) @binding(0) var<uniform> p: Params;

@compute @workgroup_size(64)
fn broadcast(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let e = linear_index(id, groups, 64u);
    let matrix = p.rows * p.columns;
    if e >= matrix * p.directions {
        return;
    }
    var v = p.c * b_in[(e / matrix) * p.vector_stride + e % p.columns];
    if p.add != 0u {
        v += y[e];
    }
    y[e] = v;
}

var<workgroup> partial: array<f32, 256>;

@compute @workgroup_size(16, 16)
fn column_sum(@builtin(local_invocation_id) local: vec3<u32>, @builtin(workgroup_id) group: vec3<u32>) {
    let n = group.x * COLUMNS + local.x;
    let k = group.y;
    let slice = (p.rows + SLICES - 1u) / SLICES;
    let first = local.y * slice;
    let end = min(first + slice, p.rows);
    var sum = 0.0;
    if n < p.columns {
        for (var m = first; m < end; m++) {
            sum += y_in[(k * p.rows + m) * p.columns + n];
        }
    }
    partial[local.y * COLUMNS + local.x] = sum;
    workgroupBarrier();
    if local.y == 0u && n < p.columns {
        var total = 0.0;
        for (var s = 0u; s < SLICES; s++) {
            total += partial[s * COLUMNS + local.x];
        }
        total *= p.c;
        let at = k * p.vector_stride + n;
        if p.add != 0u {
            total += b[at];
        }
        b[at] = total;
    }
}
