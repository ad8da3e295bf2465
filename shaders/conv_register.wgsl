// Convolution by register tiles, without workgroup memory: for software adapters (formula and letters in conv.wgsl)
//
// One invocation owns 4 channels of y and as many rows of taps (c, t.x) as there is room for in its columns, each row
// with all its t.y; it walks over pixels. The eight invocations of a workgroup are one vector of llvmpipe's.
//   conv    the columns' weights stay in registers, and the pixels' sums in memory of the invocation's own, until
//           all the rows of taps have been there
//   weight  the columns' sums stay in registers
//
// Why this shape: llvmpipe serves each value that is loaded from storage lane by lane, with a branch for the lane's
// mask and one for the bounds, in the time of some twenty multiply-adds; a store takes twice as long. Memory of
// the invocation's own has neither branch. And from one pixel to the next the values that a row of taps meets
// move on by one place: the window slides, and loads one value a row.

// Columns of a row of taps: a row of more than COLUMNS is cut into pieces.
override SPAN: u32 = 3u;
// 1 where the window slides: for a step of 1.
override SLIDES: u32 = 1u;

// Columns of a tile.
override COLUMNS: u32 = 32u;

const ABSENT: i32 = -0x40000000; // a row outside of every plane

// The rows of taps of a tile.
struct Rows {
    at: array<u32, 32>,     // from the sample's first word of x to the row's, at t = 0 and j = 0 without padding
    row: array<i32, 32>,    // t.x
    column: array<i32, 32>, // the first t.y: not 0 where a row was cut
    w: array<u32, 32>,      // from m's first weight to the row's
}

fn pieces() -> u32 {
    return (p.taps.y + SPAN - 1u) / SPAN;
}

fn all_rows() -> u32 {
    return p.depth * p.taps.x * pieces();
}

fn rows_from(first: u32) -> Rows {
    var rows: Rows;
    for (var k = 0u; k < COLUMNS / SPAN; k++) {
        let piece = (first + k) % pieces();
        let r = (first + k) / pieces() % p.taps.x;
        let c = (first + k) / (pieces() * p.taps.x);
        rows.at[k] = (c * p.x_size.x + r) * p.x_size.y + piece * SPAN;
        rows.row[k] = select(ABSENT, i32(r), c < p.depth);
        rows.column[k] = i32(piece * SPAN);
        rows.w[k] = c * p.w_depth + u32(i32(r) * p.w_tap.x + rows.column[k] * p.w_tap.y);
    }
    return rows;
}

// Where j's pixel is in x at t = 0: its word, row and column.
struct Pixel {
    at: u32,
    row: i32,
    column: i32,
}

fn pixel_of(sample: u32, jy: u32, jx: i32) -> Pixel {
    let row = i32(jy * p.step) + p.start.x;
    let column = jx * i32(p.step) + p.start.y;
    return Pixel(u32(i32(sample) + row * i32(p.x_size.y) + column), row, column);
}

// What column i of the tile meets at a pixel: what its neighbour met at the pixel before, but at a row's end.
// Outside of x's plane the first word of all is loaded, and dropped.
fn column(i: u32, neighbour: f32, rows: ptr<function, Rows>, at: Pixel) -> f32 {
    if i >= COLUMNS / SPAN * SPAN {
        return 0.0;
    }
    if SLIDES == 1u && (i + 1u) % SPAN != 0u {
        return neighbour;
    }
    let k = i / SPAN;
    let s = i % SPAN;
    let inside = (u32(at.row + (*rows).row[k]) < p.x_size.x)
        & (u32(at.column + (*rows).column[k] + i32(s)) < p.x_size.y);
    return select(0.0, x[select(0u, at.at + (*rows).at[k] + s, inside)], inside);
}

// The columns, and a vec4 more.
alias Window = array<vec4<f32>, 9>;

fn slide4(b: ptr<function, Window>, q: u32, rows: ptr<function, Rows>, at: Pixel) {
    (*b)[q] = vec4(
        column(4u * q, (*b)[q].y, rows, at), column(4u * q + 1u, (*b)[q].z, rows, at),
        column(4u * q + 2u, (*b)[q].w, rows, at), column(4u * q + 3u, (*b)[q + 1u].x, rows, at));
}

fn slide(b: ptr<function, Window>, rows: ptr<function, Rows>, at: Pixel) {
    slide4(b, 0u, rows, at);
    slide4(b, 1u, rows, at);
    slide4(b, 2u, rows, at);
    slide4(b, 3u, rows, at);
    slide4(b, 4u, rows, at);
    slide4(b, 5u, rows, at);
    slide4(b, 6u, rows, at);
    slide4(b, 7u, rows, at);
}

// The first pixel of a row of j: the pixels before it, which fill the window.
fn first_pixel() -> i32 {
    return select(0, 1 - i32(SPAN), SLIDES == 1u);
}

// Weights, or sums, of four channels.
alias Columns = array<vec4<f32>, 32>;

fn multiply4(w: ptr<function, Columns>, q: u32, b: vec4<f32>) -> vec4<f32> {
    return (*w)[4u * q] * b.x + (*w)[4u * q + 1u] * b.y + (*w)[4u * q + 2u] * b.z + (*w)[4u * q + 3u] * b.w;
}

fn add4(t: ptr<function, Columns>, q: u32, a: vec4<f32>, b: vec4<f32>) {
    if 4u * q >= COLUMNS {
        return;
    }
    (*t)[4u * q] += a * b.x;
    (*t)[4u * q + 1u] += a * b.y;
    (*t)[4u * q + 2u] += a * b.z;
    (*t)[4u * q + 3u] += a * b.w;
}

// The invocation's z and tile, and its part: the first line of all `len`, and the next part's. False where there is
// none.
struct Place {
    there: bool,
    z: u32,
    tile: u32,
    part: u32,
    first: u32,
    end: u32,
}

fn place(id: vec3<u32>, groups: vec3<u32>, len: u32) -> Place {
    let number = linear_index(id, groups, 8u);
    let z = number / (p.tiles * p.parts);
    let part = (number / p.tiles) % p.parts;
    let first = (p.part_first + part) * p.part_len;
    return Place(z < p.batch, z, number % p.tiles, part, first, min(first + p.part_len, len));
}

// Pixels of a tile at the most.
const LINE: u32 = 128u;

// A row of j of one sample, or a piece of it: its sample, row, first column and the next one's.
struct Line {
    n: u32,
    row: u32,
    first: u32,
    end: u32,
}

fn cuts() -> u32 {
    return (p.j_size.y + LINE - 1u) / LINE;
}

fn line(number: u32) -> Line {
    let row = number / cuts();
    let first = (number % cuts()) * LINE;
    return Line(row / p.j_size.x, row % p.j_size.x, first, min(first + LINE, p.j_size.y));
}

@compute @workgroup_size(8)
fn conv(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let o = place(id, groups, p.samples * p.j_size.x * cuts());
    if !o.there {
        return;
    }
    let m0 = o.tile * 4u;
    let m = min(vec4(0u, 1u, 2u, 3u) + m0, vec4(p.rows - 1u));
    let w_start = o.z * p.w_stride + p.w_first + m * p.w_row;
    var b: Window;
    var sums: array<vec4<f32>, 128>;
    for (var first = 0u; first < all_rows(); first += COLUMNS / SPAN) {
        var rows = rows_from(first);
        var weights: Columns;
        for (var k = 0u; k < COLUMNS / SPAN; k++) {
            let there = rows.row[k] != ABSENT;
            for (var s = 0u; s < SPAN; s++) {
                if there && rows.column[k] + i32(s) < i32(p.taps.y) {
                    let at = w_start + rows.w[k] + u32(i32(s) * p.w_tap.y);
                    weights[k * SPAN + s] = vec4(w[at.x], w[at.y], w[at.z], w[at.w]);
                }
            }
        }
        var i = 0u;
        for (var number = o.first; number < o.end; number++) {
            let l = line(number);
            let sample = o.z * p.x_stride + l.n * p.x_sample + p.x_first;
            for (var jx = i32(l.first) + first_pixel(); jx < i32(l.end); jx++) {
                slide(&b, &rows, pixel_of(sample, l.row, jx));
                if jx >= i32(l.first) {
                    var v = sums[i];
                    v += multiply4(&weights, 0u, b[0]) + multiply4(&weights, 1u, b[1]);
                    v += multiply4(&weights, 2u, b[2]) + multiply4(&weights, 3u, b[3]);
                    v += multiply4(&weights, 4u, b[4]) + multiply4(&weights, 5u, b[5]);
                    v += multiply4(&weights, 6u, b[6]) + multiply4(&weights, 7u, b[7]);
                    sums[i] = v;
                    i += 1u;
                }
            }
        }
    }
    let plane = p.y_size.x * p.y_size.y;
    let shift = vec4(bias_of(o.z, m.x), bias_of(o.z, m.y), bias_of(o.z, m.z), bias_of(o.z, m.w));
    var i = 0u;
    for (var number = o.first; number < o.end; number++) {
        let l = line(number);
        let at = p.out_first + vec2(l.row, l.first) * p.out_step;
        var to = o.z * p.y_stride + (l.n * p.rows + m0) * plane + at.x * p.y_size.y + at.y;
        for (var jx = l.first; jx < l.end; jx++) {
            let v = sums[i];
            for (var q = 0u; q < min(4u, p.rows - m0); q++) {
                store(to + q * plane, v[q], shift[q]);
            }
            to += p.out_step;
            i += 1u;
        }
    }
}

// Pixels that are added up in one accumulator before they are added to what came before.
const RUN: u32 = 256u;

@compute @workgroup_size(8)
fn weight(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let o = place(id, groups, p.samples * p.j_size.x * cuts());
    if !o.there {
        return;
    }
    let first = (o.tile % p.tiles_n) * (COLUMNS / SPAN);
    let m0 = (o.tile / p.tiles_n) * 4u;
    var rows = rows_from(first);
    let plane = p.j_size.x * p.j_size.y;
    let m = min(vec4(0u, 1u, 2u, 3u) + m0, vec4(p.rows - 1u)) * plane;
    var total: Columns;
    var t: Columns;
    var b: Window;
    var held = 0u;
    for (var number = o.first; number < o.end; number++) {
        let l = line(number);
        let sample = o.z * p.x_stride + l.n * p.x_sample + p.x_first;
        var i = o.z * p.y_stride + l.n * p.rows * plane + m + l.row * p.j_size.y + l.first;
        for (var jx = i32(l.first) + first_pixel(); jx < i32(l.end); jx++) {
            slide(&b, &rows, pixel_of(sample, l.row, jx));
            if jx >= i32(l.first) {
                let a = vec4(y[i.x], y[i.y], y[i.z], y[i.w]);
                i += 1u;
                add4(&t, 0u, a, b[0]);
                add4(&t, 1u, a, b[1]);
                add4(&t, 2u, a, b[2]);
                add4(&t, 3u, a, b[3]);
                add4(&t, 4u, a, b[4]);
                add4(&t, 5u, a, b[5]);
                add4(&t, 6u, a, b[6]);
                add4(&t, 7u, a, b[7]);
            }
        }
        held += l.end - l.first;
        if held >= RUN || number + 1u == o.end {
            var run = t; // only the copy leaves the registers for being indexed by a variable
            for (var i = 0u; i < COLUMNS; i++) {
                total[i] += run[i];
            }
            t = Columns();
            held = 0u;
        }
    }
    let out_first = o.z * p.w_stride + o.part * p.part_stride;
    for (var i = 0u; i < COLUMNS / SPAN * SPAN; i++) {
        let row = first + i / SPAN;
        let tap = (row % pieces()) * SPAN + i % SPAN;
        if row < all_rows() && tap < p.taps.y {
            for (var j = 0u; j < min(4u, p.rows - m0); j++) {
                let at = ((m0 + j) * p.depth * p.taps.x + row / pieces()) * p.taps.y + tap;
                store(out_first + at, total[i][j], 0.0);
            }
        }
    }
}
