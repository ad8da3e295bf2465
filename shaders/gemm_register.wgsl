// Matrix products by register tiles, without workgroup memory: for software adapters (formula and letters
// in gemm.wgsl)
//
// One invocation owns 8 rows × 8 columns; a workgroup of LX × LY = 8 invocations, one vector of llvmpipe's,
// owns 8 LY rows × 8 LX columns. They are numbered along one axis: llvmpipe fills its vectors along the first.
//   gemm_ab4   A[k, m] and B[k, n], both by quads
//   gemm_b4    A by words, m × k or k × m; B[k, n] by quads
//   gemm_any   both by words
//   gemm_pack  first pass: op(A) as [k, m] with rows of whole quads, for the kernels above
//   gemm_sum   last pass of a split product: C (+)= α Σ_part A[part] (+ bias)
// "By quads": rows and batches are multiples of 4 words apart, and the last quad of a row may hold what is not the
// matrix's own.
//
// Why this shape: inside a loop llvmpipe serves every storage load lane by lane, with a branch for the
// lane's mask and one for the bounds, whether the address is uniform or not. A vec4 costs about twice a
// scalar, and unrolling k overflows the instruction cache. Hence few vec4 loads, many multiply-adds a load,
// one k an iteration. gemm_workgroup.wgsl wins where workgroup memory is memory and barriers are cheap.

override LX: u32 = 8u;
override LY: u32 = 1u;

@group(0) @binding(0) var<storage, read> a4: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> b4: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> c4: array<vec4<f32>>;

// The last quad of a row of so many words.
fn last_quad(words: u32) -> u32 {
    return (words - 1u) / 4u;
}

// Lane l owns quads l and l + LX (or LY), so that lanes read neighbouring quads. The loop over a copy of the tile
// keeps compilation short (checked module: 0.3 s on llvmpipe, against 4 s with 64 written-out guarded stores), and
// only the copy leaves the registers for being indexed by a variable.
fn store_tile(z: u32, m0: u32, n0: u32, t: Tile) {
    var s = t;
    for (var q = 0u; q < 16u; q++) {
        let row = q / 2u;
        store4(z, m0 + select(row, 4u * LY + row - 4u, row >= 4u), n0 + (q % 2u) * 4u * LX, s[q]);
    }
}

// The first row and column of an invocation's tile.
fn corner(tile: u32, l: u32) -> vec2<u32> {
    return vec2(((tile / p.tiles_n) * 2u * LY + l / LX) * 4u, ((tile % p.tiles_n) * 2u * LX + l % LX) * 4u);
}

@compute @workgroup_size(8)
fn gemm_ab4(@builtin(workgroup_id) w: vec3<u32>, @builtin(local_invocation_index) l: u32,
            @builtin(num_workgroups) groups: vec3<u32>) {
    let o = place(w, groups);
    if o.tile >= p.tiles {
        return;
    }
    let at = corner(o.tile, l);
    let la = p.lda / 4u;
    let lb = p.ldb / 4u;
    let base_a = o.a / 4u;
    let base_b = o.b / 4u;
    let i0 = base_a + min(at.x / 4u, last_quad(p.m));
    let i1 = base_a + min(at.x / 4u + LY, last_quad(p.m));
    let j0 = base_b + min(at.y / 4u, last_quad(p.n));
    let j1 = base_b + min(at.y / 4u + LX, last_quad(p.n));
    var total: Tile;
    for (var run = o.first; run < o.last; run += RUN) {
        var t = Tile();
        for (var k = run; k < min(run + RUN, o.last); k++) {
            multiply_add(&t, a4[k * la + i0], a4[k * la + i1], b4[k * lb + j0], b4[k * lb + j1]);
        }
        add_tile(&total, t);
    }
    store_tile(o.z, at.x, at.y, total);
}

@compute @workgroup_size(8)
fn gemm_b4(@builtin(workgroup_id) w: vec3<u32>, @builtin(local_invocation_index) l: u32,
            @builtin(num_workgroups) groups: vec3<u32>) {
    let o = place(w, groups);
    if o.tile >= p.tiles {
        return;
    }
    let at = corner(o.tile, l);
    let lb = p.ldb / 4u;
    let base_b = o.b / 4u;
    let ka = select(1u, p.lda, LAYOUT == 2u);
    let i = rows(o.a, at.x, p.m, select(p.lda, 1u, LAYOUT == 2u));
    let j0 = base_b + min(at.y / 4u, last_quad(p.n));
    let j1 = base_b + min(at.y / 4u + LX, last_quad(p.n));
    var total: Tile;
    for (var run = o.first; run < o.last; run += RUN) {
        var t = Tile();
        for (var k = run; k < min(run + RUN, o.last); k++) {
            let x = k * ka;
            let a0 = vec4(a[i[0].x + x], a[i[0].y + x], a[i[0].z + x], a[i[0].w + x]);
            let a1 = vec4(a[i[1].x + x], a[i[1].y + x], a[i[1].z + x], a[i[1].w + x]);
            multiply_add(&t, a0, a1, b4[k * lb + j0], b4[k * lb + j1]);
        }
        add_tile(&total, t);
    }
    store_tile(o.z, at.x, at.y, total);
}

// The element offsets of one invocation's eight rows (stride LY quads apart), clamped to the matrix.
fn rows(base: u32, m: u32, end: u32, ld: u32) -> array<vec4<u32>, 2> {
    let q = vec4(0u, 1u, 2u, 3u);
    let last = vec4(end - 1u);
    return array<vec4<u32>, 2>(base + min(q + m, last) * ld, base + min(q + m + 4u * LY, last) * ld);
}

fn columns(base: u32, n: u32, end: u32, ld: u32) -> array<vec4<u32>, 2> {
    let q = vec4(0u, 1u, 2u, 3u);
    let last = vec4(end - 1u);
    return array<vec4<u32>, 2>(base + min(q + n, last) * ld, base + min(q + n + 4u * LX, last) * ld);
}

@compute @workgroup_size(8)
fn gemm_any(@builtin(workgroup_id) w: vec3<u32>, @builtin(local_invocation_index) l: u32,
            @builtin(num_workgroups) groups: vec3<u32>) {
    let o = place(w, groups);
    if o.tile >= p.tiles {
        return;
    }
    let at = corner(o.tile, l);
    let ka = select(1u, p.lda, LAYOUT == 2u);
    let kb = select(p.ldb, 1u, LAYOUT == 0u);
    let i = rows(o.a, at.x, p.m, select(p.lda, 1u, LAYOUT == 2u));
    let j = columns(o.b, at.y, p.n, select(1u, p.ldb, LAYOUT == 0u));
    var total: Tile;
    for (var run = o.first; run < o.last; run += RUN) {
        var t = Tile();
        for (var k = run; k < min(run + RUN, o.last); k++) {
            let x = k * ka;
            let y = k * kb;
            let a0 = vec4(a[i[0].x + x], a[i[0].y + x], a[i[0].z + x], a[i[0].w + x]);
            let a1 = vec4(a[i[1].x + x], a[i[1].y + x], a[i[1].z + x], a[i[1].w + x]);
            let b0 = vec4(b[j[0].x + y], b[j[0].y + y], b[j[0].z + y], b[j[0].w + y]);
            let b1 = vec4(b[j[1].x + y], b[j[1].y + y], b[j[1].z + y], b[j[1].w + y]);
            multiply_add(&t, a0, a1, b0, b1);
        }
        add_tile(&total, t);
    }
    store_tile(o.z, at.x, at.y, total);
}

// C4[z, k, q] = op(A)[z, k, 4 q …], one invocation each. A is [k, m], or [m, k] where LAYOUT says so; there are `tiles`
// matrices; ldc is the length of C's rows, m in whole quads.
@compute @workgroup_size(64)
fn gemm_pack(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let e = id.x + id.y * groups.x * 64u;
    let quads = p.ldc / 4u;
    if e >= p.tiles * p.k * quads {
        return;
    }
    let k = e / quads % p.k;
    let base = e / (quads * p.k) * p.stride_a + k * select(1u, p.lda, LAYOUT == 2u);
    let i = base + min(e % quads * 4u + vec4(0u, 1u, 2u, 3u), vec4(p.m - 1u)) * select(p.lda, 1u, LAYOUT == 2u);
    c4[e] = vec4(a[i.x], a[i.y], a[i.z], a[i.w]);
}

// One invocation per element of C, of all `tiles` matrices. A holds parts * batch dense m x n matrices, batch-major, in
// part order; they are added in runs.
@compute @workgroup_size(64)
fn gemm_sum(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let e = id.x + id.y * groups.x * 64u;
    let len = p.m * p.n;
    if e >= p.tiles * len {
        return;
    }
    let z = e / len;
    var total = 0.0;
    for (var run = 0u; run < p.parts; run += 32u) {
        var s = 0.0;
        for (var q = run; q < min(run + 32u, p.parts); q++) {
            s += a[(z * p.parts + q) * len + e % len];
        }
        total += s;
    }
    store1(z, (e % len) / p.n, e % p.n, total);
}
