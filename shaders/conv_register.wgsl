// Convolution by register tiles, without workgroup memory: for software adapters (formula and letters in conv.wgsl)
//
// One invocation owns one tile; the eight of a workgroup, one vector of llvmpipe's, own eight tiles in a row.
//   conv    8 channels of y × 4 quads, each of four pixels side by side
//   weight  4 channels of y × 16 columns: as many rows of taps (c, t.x) as there is room for, each with all its t.y
//
// Why this shape: llvmpipe serves each value that is loaded lane by lane, in the time of some fifteen multiply-adds
// (gemm_register.wgsl). But from one tap to the next (weight: from one pixel to the next) all values of x that lie
// side by side move on by one place: the window slides, and loads one value a quad (weight: one a row of taps).

// Four pixels side by side.
struct Quad {
    plane: u32,   // where the sample's first plane of x begins
    row: i32,     // of x, at t = 0
    column: i32,
    out: u32,     // where the first pixel's first channel of y is
    count: u32,   // how many of the four there are
}

// Which quad follows: j of the quad before and its sample.
struct Place {
    n: u32,
    row: u32,
    column: u32,
}

fn after(q: Place) -> Place {
    let new_row = q.column + 4u >= p.j_size.y;
    let row = select(q.row, q.row + 1u, new_row);
    let new_sample = row >= p.j_size.x;
    return Place(
        select(q.n, q.n + 1u, new_sample), select(row, 0u, new_sample), select(q.column + 4u, 0u, new_row));
}

fn quad(z: u32, q: Place) -> Quad {
    // past the last sample: no pixels, and what the last sample has is computed again
    let n = min(q.n, p.samples - 1u);
    let count = select(min(p.j_size.y - q.column, 4u), 0u, q.n >= p.samples);
    let at = p.out_first + vec2(q.row, q.column) * p.out_step;
    return Quad(
        z * p.x_stride + n * p.depth * p.x_size.x * p.x_size.y,
        i32(q.row * p.step) + p.start.x,
        i32(q.column * p.step) + p.start.y,
        z * p.y_stride + n * p.rows * p.y_size.x * p.y_size.y + at.x * p.y_size.y + at.y,
        count,
    );
}

// What a quad meets in channel c and row t.x of the taps, from column s of the taps on, but for its last pixel.
fn window(q: Quad, c: u32, r: u32, s: u32) -> vec4<f32> {
    return vec4(0.0, value(q, c, r, s, 0u), value(q, c, r, s, 1u), value(q, c, r, s, 2u));
}

fn value(q: Quad, c: u32, r: u32, s: u32, pixel_of_four: u32) -> f32 {
    let plane = q.plane + c * p.x_size.x * p.x_size.y;
    return pixel(plane, q.row + i32(r), q.column + i32(s + pixel_of_four * p.step));
}

fn slide(b: vec4<f32>, q: Quad, c: u32, r: u32, s: u32) -> vec4<f32> {
    return vec4(b.yzw, value(q, c, r, s, 3u));
}

fn store_quad(q: Quad, m: u32, v: vec4<f32>, shift: f32) {
    let first = q.out + m * p.y_size.x * p.y_size.y;
    for (var i = 0u; i < q.count; i++) {
        store(first + i * p.out_step, v[i], shift);
    }
}

@compute @workgroup_size(8)
fn conv(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let number = linear_index(id, groups, 8u);
    if number >= p.tiles * p.batch {
        return;
    }
    let z = number / p.tiles;
    let tile = number % p.tiles;
    let m0 = (tile / p.tiles_n) * 8u;
    let quads = (p.j_size.y + 3u) / 4u;
    let first = (tile % p.tiles_n) * 4u;
    let row = first / quads;
    let at0 = Place(row / p.j_size.x, row % p.j_size.x, (first % quads) * 4u);
    let at1 = after(at0);
    let at2 = after(at1);
    let at3 = after(at2);
    let q0 = quad(z, at0);
    let q1 = quad(z, at1);
    let q2 = quad(z, at2);
    let q3 = quad(z, at3);
    let start = z * p.w_stride + p.w_first;
    let four = vec4(0u, 1u, 2u, 3u);
    let w0 = start + min(four + m0, vec4(p.rows - 1u)) * p.w_row;
    let w1 = start + min(four + m0 + 4u, vec4(p.rows - 1u)) * p.w_row;
    var t: Tile;
    var u: Tile;
    for (var c = 0u; c < p.depth; c++) {
        for (var r = 0u; r < p.taps.x; r++) {
            // the columns of the taps in `step` runs, in each of which the window slides
            for (var run = 0u; run < min(p.step, p.taps.y); run++) {
                var b0 = window(q0, c, r, run);
                var b1 = window(q1, c, r, run);
                var b2 = window(q2, c, r, run);
                var b3 = window(q3, c, r, run);
                for (var s = run; s < p.taps.y; s += p.step) {
                    b0 = slide(b0, q0, c, r, s);
                    b1 = slide(b1, q1, c, r, s);
                    b2 = slide(b2, q2, c, r, s);
                    b3 = slide(b3, q3, c, r, s);
                    let tap = c * p.w_depth + u32(i32(r) * p.w_tap.x + i32(s) * p.w_tap.y);
                    let i0 = w0 + tap;
                    let i1 = w1 + tap;
                    let a0 = vec4(w[i0.x], w[i0.y], w[i0.z], w[i0.w]);
                    let a1 = vec4(w[i1.x], w[i1.y], w[i1.z], w[i1.w]);
                    multiply_add(&t, a0, a1, b0, b1);
                    multiply_add(&u, a0, a1, b2, b3);
                }
            }
        }
    }
    // only copies leave the registers for being indexed by a variable
    var t_held = t;
    var u_held = u;
    for (var i = 0u; i < min(8u, p.rows - m0); i++) {
        let shift = bias_of(z, m0 + i);
        store_quad(q0, m0 + i, t_held[2u * i], shift);
        store_quad(q1, m0 + i, t_held[2u * i + 1u], shift);
        store_quad(q2, m0 + i, u_held[2u * i], shift);
        store_quad(q3, m0 + i, u_held[2u * i + 1u], shift);
    }
}

// Columns of a row of taps in a tile: a row of more than sixteen is cut into several.
override SPAN: u32 = 3u;
// 1 where the window slides: for a step of 1.
override SLIDES: u32 = 1u;
const COLUMNS: u32 = 16u;

// The rows of taps of a tile.
struct Rows {
    at: array<u32, 16>,     // from the sample's first word of x to the row's, at t = 0 and j = 0 without padding
    row: array<i32, 16>,    // t.x
    column: array<i32, 16>, // the first t.y: not 0 where a row was cut
}

// What column i of the tile meets at a pixel: what its neighbour met at the pixel before, but at a row's end.
fn column(i: u32, neighbour: f32, rows: ptr<function, Rows>, at: u32, row: i32, column: i32) -> f32 {
    if i >= COLUMNS / SPAN * SPAN {
        return 0.0;
    }
    if SLIDES == 1u && (i + 1u) % SPAN != 0u {
        return neighbour;
    }
    let k = i / SPAN;
    let s = i % SPAN;
    let there_row = u32(row + (*rows).row[k]) < p.x_size.x;
    let there = there_row & (u32(column + (*rows).column[k] + i32(s)) < p.x_size.y);
    return select(0.0, x[at + (*rows).at[k] + s], there);
}

alias Window = array<vec4<f32>, 4>;

fn next(b: ptr<function, Window>, rows: ptr<function, Rows>, sample: u32, jy: u32, jx: i32) {
    let row = i32(jy * p.step) + p.start.x;
    let col = jx * i32(p.step) + p.start.y;
    let at = u32(i32(sample) + row * i32(p.x_size.y) + col);
    (*b)[0] = vec4(column(0u, (*b)[0].y, rows, at, row, col), column(1u, (*b)[0].z, rows, at, row, col),
        column(2u, (*b)[0].w, rows, at, row, col), column(3u, (*b)[1].x, rows, at, row, col));
    (*b)[1] = vec4(column(4u, (*b)[1].y, rows, at, row, col), column(5u, (*b)[1].z, rows, at, row, col),
        column(6u, (*b)[1].w, rows, at, row, col), column(7u, (*b)[2].x, rows, at, row, col));
    (*b)[2] = vec4(column(8u, (*b)[2].y, rows, at, row, col), column(9u, (*b)[2].z, rows, at, row, col),
        column(10u, (*b)[2].w, rows, at, row, col), column(11u, (*b)[3].x, rows, at, row, col));
    (*b)[3] = vec4(column(12u, (*b)[3].y, rows, at, row, col), column(13u, (*b)[3].z, rows, at, row, col),
        column(14u, (*b)[3].w, rows, at, row, col), column(15u, 0.0, rows, at, row, col));
}

@compute @workgroup_size(8)
fn weight(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let number = linear_index(id, groups, 8u);
    if number >= p.tiles * p.parts * p.batch {
        return;
    }
    let tile = number % p.tiles;
    let part = (number / p.tiles) % p.parts;
    let z = number / (p.tiles * p.parts);
    let pieces = (p.taps.y + SPAN - 1u) / SPAN; // of a row of taps
    let all_rows = p.depth * p.taps.x * pieces;
    let first = (tile % p.tiles_n) * (COLUMNS / SPAN);
    var rows: Rows;
    for (var k = 0u; k < COLUMNS / SPAN; k++) {
        let row = min(first + k, all_rows - 1u);
        let piece = row % pieces;
        let r = (row / pieces) % p.taps.x;
        let c = row / (pieces * p.taps.x);
        rows.at[k] = (c * p.x_size.x + r) * p.x_size.y + piece * SPAN;
        rows.row[k] = i32(r);
        rows.column[k] = i32(piece * SPAN);
    }
    let m0 = (tile / p.tiles_n) * 4u;
    let plane = p.j_size.x * p.j_size.y;
    let m = min(vec4(0u, 1u, 2u, 3u) + m0, vec4(p.rows - 1u)) * plane;
    var t: Tile;
    var b: Window;
    let end = min((part + 1u) * p.part_samples, p.samples);
    for (var n = part * p.part_samples; n < end; n++) {
        let sample = z * p.x_stride + n * p.depth * p.x_size.x * p.x_size.y;
        var i = z * p.y_stride + n * p.rows * plane + m;
        for (var jy = 0u; jy < p.j_size.x; jy++) {
            if SLIDES == 1u {
                for (var jx = 1 - i32(SPAN); jx < 0; jx++) {
                    next(&b, &rows, sample, jy, jx);
                }
            }
            for (var jx = 0u; jx < p.j_size.y; jx++) {
                next(&b, &rows, sample, jy, i32(jx));
                let a = vec4(y[i.x], y[i.y], y[i.z], y[i.w]);
                i += 1u;
                t[0] += a * b[0].x; t[1] += a * b[0].y; t[2] += a * b[0].z; t[3] += a * b[0].w;
                t[4] += a * b[1].x; t[5] += a * b[1].y; t[6] += a * b[1].z; t[7] += a * b[1].w;
                t[8] += a * b[2].x; t[9] += a * b[2].y; t[10] += a * b[2].z; t[11] += a * b[2].w;
                t[12] += a * b[3].x; t[13] += a * b[3].y; t[14] += a * b[3].z; t[15] += a * b[3].w;
            }
        }
    }
    let out_first = z * p.w_stride + part * p.part_stride;
    var held = t;
    for (var k = 0u; k < COLUMNS / SPAN * SPAN; k++) {
        let row = first + k / SPAN;
        let tap = (row % pieces) * SPAN + k % SPAN;
        if row < all_rows && tap < p.taps.y {
            for (var i = 0u; i < min(4u, p.rows - m0); i++) {
                let at = ((m0 + i) * p.depth * p.taps.x + row / pieces) * p.taps.y + tap;
                store(out_first + at, held[k][i], 0.0);
            }
        }
    }
}
