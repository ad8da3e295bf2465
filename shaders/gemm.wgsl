// C[z] (+)= α op(A[z]) op(B[z]) (+ bias), what both families of kernels share
//
//   m  row of C   n  column of C   k  contraction   z  batch
//   NT: A[m, k], B[n, k]     NN: A[m, k], B[k, n]     TN: A[k, m], B[k, n]     always C[m, n]
//   row-major, rows lda, ldb, ldc words apart, batches stride_* words apart (0 shares an operand)
//
// k runs in increasing order, in an accumulator for each run of RUN, so that results do not depend on how invocations
// meet, and long sums lose no more than short ones. A split product has `parts` such series of runs, each a matrix of
// its own; `gemm_sum` adds them in order.

struct Gemm {
    m: u32,
    n: u32,
    k: u32,           // where the contraction of this dispatch ends
    flags: u32,       // bit 0: C += instead of C =; bit 1: add bias[n]
    lda: u32,
    ldb: u32,
    ldc: u32,
    k_part: u32,      // of k in one part
    stride_a: u32,
    stride_b: u32,
    stride_c: u32,
    alpha: f32,
    tiles: u32,       // of C, numbered along n first
    tiles_n: u32,
    parts: u32,       // workgroup_id.z = (batch − first_z) parts + part
    stride_bias: u32,
    period_a: u32,    // after so many matrices, A begins again (where it does not: the batch)
    period_b: u32,
    first_k: u32,     // where the contraction and the batch of this dispatch begin
    first_z: u32,
}

const RUN: u32 = 256u;

// 0: NT, 1: NN, 2: TN
override LAYOUT: u32 = 0u;

@group(1) @binding(0) var<uniform> p: Gemm;
@group(0) @binding(0) var<storage, read> a: array<f32>;
@group(0) @binding(1) var<storage, read> b: array<f32>;
@group(0) @binding(2) var<storage, read_write> c: array<f32>;
@group(0) @binding(3) var<storage, read> bias: array<f32>;

// Rows and columns beyond the matrix are dropped here; no load leaves its view.
fn store1(z: u32, m: u32, n: u32, x: f32) {
    if m < p.m && n < p.n {
        let i = z * p.stride_c + m * p.ldc + n;
        var v = p.alpha * x;
        if (p.flags & 2u) != 0u {
            v += bias[z * p.stride_bias + n];
        }
        if (p.flags & 1u) != 0u {
            v += c[i];
        }
        c[i] = v;
    }
}

fn store4(z: u32, m: u32, n: u32, v: vec4<f32>) {
    store1(z, m, n, v.x);
    store1(z, m, n + 1u, v.y);
    store1(z, m, n + 2u, v.z);
    store1(z, m, n + 3u, v.w);
}

// Which tile of which matrix a workgroup makes, and its run of k. The host folds the tiles into two
// dimensions of the grid.
struct Place {
    tile: u32,
    a: u32,           // where the operands' matrices start
    b: u32,
    z: u32,           // number of the matrix that is written
    first: u32,
    last: u32,
}

fn place(w: vec3<u32>, groups: vec3<u32>) -> Place {
    let batch = p.first_z + w.z / p.parts;
    let part = w.z % p.parts;
    let first = p.first_k + part * p.k_part;
    let a_start = (batch % p.period_a) * p.stride_a;
    let b_start = (batch % p.period_b) * p.stride_b;
    let z = batch * p.parts + part;
    return Place(w.x + w.y * groups.x, a_start, b_start, z, first, min(first + p.k_part, p.k));
}
