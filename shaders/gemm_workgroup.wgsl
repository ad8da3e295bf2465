// Matrix products by tiles in workgroup memory: for adapters where that is memory (formula and letters in
// gemm.wgsl)
//
// 16 × 16 invocations own 128 × 128 elements of C, 8 × 8 each, and walk k in steps of 8. Both operands' tiles
// lie in workgroup memory k-major, so that one invocation's step is four vec4 reads for 64 multiply-adds.
// The next step's 4 + 4 elements travel from global memory to registers while the present one is computed.
// Any shape and stride: loads beyond the matrices give 0, stores beyond are dropped.

// 1 where k is long: then each run of RUN has an accumulator of its own.
override RUNS: u32 = 0u;

// A k-row is 128 elements and one vec4 of padding: a warp that copies 8 k of 4 rows (the k-contiguous layouts) then
// writes 32 different banks, 4 k + m. Two such buffers of both tiles would take 16.5 KiB, above the 16 KiB
// that WebGPU grants, hence one buffer, two barriers, and the prefetch in registers.
const PITCH: u32 = 33u;
var<workgroup> tile_a: array<vec4<f32>, 264>; // 8 * PITCH
var<workgroup> tile_b: array<vec4<f32>, 264>;

// Four elements per invocation of one 128 x 8 tile. Neighbouring invocations walk the contiguous index: k when
// along_k (32 rows per pass, 4 passes), else the row or column (2 k per pass).
fn pass_row(along_k: bool, e: u32, s: u32) -> u32 { return select(e & 127u, (e >> 3u) + 32u * s, along_k); }
fn pass_k(along_k: bool, e: u32, s: u32) -> u32 { return select((e >> 7u) + 2u * s, e & 7u, along_k); }

fn load_a(base: u32, m0: u32, k0: u32, k1: u32, e: u32, s: u32) -> f32 {
    let m = m0 + pass_row(LAYOUT != 2u, e, s);
    let k = k0 + pass_k(LAYOUT != 2u, e, s);
    var v = 0.0;
    if m < p.m && k < k1 { v = a[base + select(m * p.lda + k, k * p.lda + m, LAYOUT == 2u)]; }
    return v;
}

fn load_b(base: u32, n0: u32, k0: u32, k1: u32, e: u32, s: u32) -> f32 {
    let n = n0 + pass_row(LAYOUT == 0u, e, s);
    let k = k0 + pass_k(LAYOUT == 0u, e, s);
    var v = 0.0;
    if n < p.n && k < k1 { v = b[base + select(k * p.ldb + n, n * p.ldb + k, LAYOUT == 0u)]; }
    return v;
}

fn put_a(e: u32, s: u32, v: f32) {
    let m = pass_row(LAYOUT != 2u, e, s);
    tile_a[pass_k(LAYOUT != 2u, e, s) * PITCH + m / 4u][m % 4u] = v;
}

fn put_b(e: u32, s: u32, v: f32) {
    let n = pass_row(LAYOUT == 0u, e, s);
    tile_b[pass_k(LAYOUT == 0u, e, s) * PITCH + n / 4u][n % 4u] = v;
}

@compute @workgroup_size(16, 16)
fn gemm(
    @builtin(workgroup_id) w: vec3<u32>,
    @builtin(local_invocation_id) l: vec3<u32>,
    @builtin(local_invocation_index) e: u32,
    @builtin(num_workgroups) groups: vec3<u32>,
) {
    let o = place(w, groups);
    if o.tile >= p.tiles {
        return;
    }
    let z = o.z;
    let first = o.first;
    let last = o.last;
    let m0 = (o.tile / p.tiles_n) * 128u;
    let n0 = (o.tile % p.tiles_n) * 128u;
    let oa = o.a;
    let ob = o.b;
    var t: Tile;
    var total: Tile;
    var fa = vec4(load_a(oa, m0, first, last, e, 0u), load_a(oa, m0, first, last, e, 1u),
        load_a(oa, m0, first, last, e, 2u), load_a(oa, m0, first, last, e, 3u));
    var fb = vec4(load_b(ob, n0, first, last, e, 0u), load_b(ob, n0, first, last, e, 1u),
        load_b(ob, n0, first, last, e, 2u), load_b(ob, n0, first, last, e, 3u));
    for (var k0 = first; k0 < last; k0 += 8u) {
        put_a(e, 0u, fa.x); put_a(e, 1u, fa.y); put_a(e, 2u, fa.z); put_a(e, 3u, fa.w);
        put_b(e, 0u, fb.x); put_b(e, 1u, fb.y); put_b(e, 2u, fb.z); put_b(e, 3u, fb.w);
        workgroupBarrier();
        let next = k0 + 8u; // beyond the last step every load gives 0 and touches nothing
        fa = vec4(load_a(oa, m0, next, last, e, 0u), load_a(oa, m0, next, last, e, 1u),
            load_a(oa, m0, next, last, e, 2u), load_a(oa, m0, next, last, e, 3u));
        fb = vec4(load_b(ob, n0, next, last, e, 0u), load_b(ob, n0, next, last, e, 1u),
            load_b(ob, n0, next, last, e, 2u), load_b(ob, n0, next, last, e, 3u));
        for (var k = 0u; k < 8u; k++) {
            let r = k * PITCH;
            multiply_add(&t, tile_a[r + l.y], tile_a[r + 16u + l.y], tile_b[r + l.x], tile_b[r + 16u + l.x]);
        }
        if RUNS == 1u && (next - first) % RUN == 0u {
            add_tile(&total, t);
            t = Tile();
        }
        workgroupBarrier();
    }
    if RUNS == 1u {
        add_tile(&t, total);
    }
    // A loop over a copy: 64 unrolled guarded stores take a software adapter seconds to compile, and only the copy
    // leaves the registers for being indexed by a variable, once per tile.
    var s = t;
    for (var q = 0u; q < 16u; q++) {
        let row = q / 2u;
        store4(z, m0 + l.y * 4u + select(row, 60u + row, row >= 4u), n0 + l.x * 4u + (q % 2u) * 64u, s[q]);
    }
}
