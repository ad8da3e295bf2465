// Linear algebra on blocks of vectors with few columns, by register tiles: for software adapters
//
//   gram     s[c, i, j] = Σ_{e in chunk c} x[i, e] y[j, e]
//   combine  y[j, e] (+)= Σ_i s[j, i] x[i, e]
//
//   e  coordinate, four to a vec4   i  vector of X, `rows` of them   j  vector of Y or column of S, `columns`
//   c  chunk of coordinates, the last with what is left   x [i, stride]   y [j, stride]
//
// An invocation of gram owns 4 × 4 inner products of one chunk, each in four accumulators that are added at the end; one
// of combine owns 4 vectors × 16 coordinates. Loads clamp to the block; what lies beyond it is not stored.

struct Params {
    rows: u32,
    columns: u32,
    stride4: u32,   // of vectors, in vec4
    chunk4: u32,    // coordinates of a chunk, in vec4
    chunks: u32,
    tiles_i: u32,   // tiles of four
    tiles_j: u32,
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

fn store_row(c: u32, i: u32, j: u32, t0: vec4<f32>, t1: vec4<f32>, t2: vec4<f32>, t3: vec4<f32>) {
    let one = vec4(1.0);
    store(c, i, j, dot(t0, one));
    store(c, i, j + 1u, dot(t1, one));
    store(c, i, j + 2u, dot(t2, one));
    store(c, i, j + 3u, dot(t3, one));
}

// neighbouring invocations own neighbouring tiles of X's vectors
@compute @workgroup_size(8)
fn gram(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let at = linear_index(id, groups, 8u);
    if at >= p.tiles_i * p.tiles_j * p.chunks {
        return;
    }
    let i = (at % p.tiles_i) * 4u;
    let j = (at / p.tiles_i % p.tiles_j) * 4u;
    let c = at / (p.tiles_i * p.tiles_j);
    let q = vec4(0u, 1u, 2u, 3u);
    let xi = min(q + i, vec4(p.rows - 1u)) * p.stride4;
    let yj = min(q + j, vec4(p.columns - 1u)) * p.stride4;
    let first = c * p.chunk4;
    let last = select(first + p.chunk4, p.stride4, c + 1u == p.chunks);
    var t: Tile;
    for (var e = first; e < last; e++) {
        let x0 = x[xi.x + e];
        let x1 = x[xi.y + e];
        let x2 = x[xi.z + e];
        let x3 = x[xi.w + e];
        let y0 = y_in[yj.x + e];
        let y1 = y_in[yj.y + e];
        let y2 = y_in[yj.z + e];
        let y3 = y_in[yj.w + e];
        t[0] += x0 * y0; t[1] += x0 * y1; t[2] += x0 * y2; t[3] += x0 * y3;
        t[4] += x1 * y0; t[5] += x1 * y1; t[6] += x1 * y2; t[7] += x1 * y3;
        t[8] += x2 * y0; t[9] += x2 * y1; t[10] += x2 * y2; t[11] += x2 * y3;
        t[12] += x3 * y0; t[13] += x3 * y1; t[14] += x3 * y2; t[15] += x3 * y3;
    }
    store_row(c, i, j, t[0], t[1], t[2], t[3]);
    store_row(c, i + 1u, j, t[4], t[5], t[6], t[7]);
    store_row(c, i + 2u, j, t[8], t[9], t[10], t[11]);
    store_row(c, i + 3u, j, t[12], t[13], t[14], t[15]);
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
