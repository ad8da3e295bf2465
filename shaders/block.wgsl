// Linear algebra on blocks of vectors with few columns, by register tiles: for software adapters
//
//   gram     s[c, i, j] = Σ_{e in chunk c} x[i, e] y[j, e]
//   combine  y[j, e] (+)= Σ_i s[j, i] x[i, e]
//
//   e  coordinate, four to a vec4   i  vector of X, `rows` of them   j  vector of Y or column of S, `columns`
//   c  chunk of coordinates, the last with what is left   x [i, stride]   y [j, stride]
//
// An invocation of gram owns 16 × 4 inner products of one chunk, each in an accumulator to which four coordinates' products
// are added at a time; one of combine owns 4 vectors × 16 coordinates. Loads clamp to the block; what lies beyond it is
// not stored.

struct Params {
    rows: u32,
    columns: u32,
    stride4: u32,   // of vectors, in vec4
    chunk4: u32,    // coordinates of a chunk, in vec4
    chunks: u32,
    tiles_i: u32,   // of sixteen
    tiles_j: u32,   // of four
    add: u32,       // combine: Y += instead of Y =
}

const RUN = 256u;

@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> y_in: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> s_in: array<f32>;
@group(0) @binding(3) var<storage, read_write> s: array<f32>;
@group(0) @binding(4) var<storage, read_write> y: array<vec4<f32>>;
@group(1) @binding(0) var<uniform> p: Params;

fn store(c: u32, i: u32, j: u32, v: f32) {
    if i < p.rows && j < p.columns {
        s[(c * p.rows + i) * p.columns + j] = v;
    }
}

// neighbouring invocations own neighbouring tiles of X's vectors
@compute @workgroup_size(8)
fn gram(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let at = linear_index(id, groups, 8u);
    if at >= p.tiles_i * p.tiles_j * p.chunks {
        return;
    }
    let i = (at % p.tiles_i) * 16u;
    let j = (at / p.tiles_i % p.tiles_j) * 4u;
    let c = at / (p.tiles_i * p.tiles_j);
    let q = vec4(0u, 1u, 2u, 3u);
    let end = vec4(p.rows - 1u);
    let i0 = min(q + i, end) * p.stride4;
    let i1 = min(q + i + 4u, end) * p.stride4;
    let i2 = min(q + i + 8u, end) * p.stride4;
    let i3 = min(q + i + 12u, end) * p.stride4;
    let yj = min(q + j, vec4(p.columns - 1u)) * p.stride4;
    let first = c * p.chunk4;
    let last = select(first + p.chunk4, p.stride4, c + 1u == p.chunks);
    var t: Tile;
    for (var e = first; e < last; e++) {
        // the four vectors' coordinates, each column a vector
        let y = mat4x4(y_in[yj.x + e], y_in[yj.y + e], y_in[yj.z + e], y_in[yj.w + e]);
        t[0] += x[i0.x + e] * y; t[1] += x[i0.y + e] * y; t[2] += x[i0.z + e] * y; t[3] += x[i0.w + e] * y;
        t[4] += x[i1.x + e] * y; t[5] += x[i1.y + e] * y; t[6] += x[i1.z + e] * y; t[7] += x[i1.w + e] * y;
        t[8] += x[i2.x + e] * y; t[9] += x[i2.y + e] * y; t[10] += x[i2.z + e] * y; t[11] += x[i2.w + e] * y;
        t[12] += x[i3.x + e] * y; t[13] += x[i3.y + e] * y; t[14] += x[i3.z + e] * y; t[15] += x[i3.w + e] * y;
    }
    var u = t;
    for (var r = 0u; r < 16u; r++) {
        store(c, i + r, j, u[r].x);
        store(c, i + r, j + 1u, u[r].y);
        store(c, i + r, j + 2u, u[r].z);
        store(c, i + r, j + 3u, u[r].w);
    }
}

fn store4(j: u32, e: u32, v: vec4<f32>) {
    if j < p.columns && e < p.stride4 {
        let at = j * p.stride4 + e;
        if p.add == 1u {
            y[at] += v;
        } else {
            y[at] = v;
        }
    }
}

fn store_vector(j: u32, e: u32, t0: vec4<f32>, t1: vec4<f32>, t2: vec4<f32>, t3: vec4<f32>) {
    store4(j, e, t0);
    store4(j, e + 8u, t1);
    store4(j, e + 16u, t2);
    store4(j, e + 24u, t3);
}

// a workgroup owns 128 coordinates; each invocation every eighth vec4 of them
@compute @workgroup_size(8)
fn combine(@builtin(workgroup_id) w: vec3<u32>, @builtin(local_invocation_id) l: vec3<u32>,
           @builtin(num_workgroups) groups: vec3<u32>) {
    let at = w.x + w.y * groups.x;
    let j = (at % p.tiles_j) * 4u;
    let e = (at / p.tiles_j) * 32u + l.x;
    if e >= p.stride4 {
        return;
    }
    let sj = min(vec4(0u, 1u, 2u, 3u) + j, vec4(p.columns - 1u)) * p.rows;
    let es = min(vec4(0u, 8u, 16u, 24u) + e, vec4(p.stride4 - 1u));
    var total: Tile;
    for (var run = 0u; run < p.rows; run += RUN) {
        var t = Tile();
        for (var i = run; i < min(run + RUN, p.rows); i++) {
            let at = i * p.stride4;
            let a = vec4(s_in[sj.x + i], s_in[sj.y + i], s_in[sj.z + i], s_in[sj.w + i]);
            let x0 = x[at + es.x];
            let x1 = x[at + es.y];
            let x2 = x[at + es.z];
            let x3 = x[at + es.w];
            t[0] += a.x * x0; t[1] += a.x * x1; t[2] += a.x * x2; t[3] += a.x * x3;
            t[4] += a.y * x0; t[5] += a.y * x1; t[6] += a.y * x2; t[7] += a.y * x3;
            t[8] += a.z * x0; t[9] += a.z * x1; t[10] += a.z * x2; t[11] += a.z * x3;
            t[12] += a.w * x0; t[13] += a.w * x1; t[14] += a.w * x2; t[15] += a.w * x3;
        }
        add_tile(&total, t);
    }
    store_vector(j, e, total[0], total[1], total[2], total[3]);
    store_vector(j + 1u, e, total[4], total[5], total[6], total[7]);
    store_vector(j + 2u, e, total[8], total[9], total[10], total[11]);
    store_vector(j + 3u, e, total[12], total[13], total[14], total[15]);
}
