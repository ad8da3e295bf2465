// Convolution by tiles in workgroup memory: for adapters where that is memory (formula and letters in conv.wgsl)
//
// An implicit matrix product: LX × LY invocations own 8 LY rows × 8 LX columns of it, 8 × 8 each, and walk the
// contraction k in steps of 8. The host arranges the invocations so that few rows and columns are in vain.
//   conv    rows m, columns (n, j), k = (c, t)
//   weight  rows m, columns (c, t), k = (n, j) of the part
//
// Columns are looked up: where each column's x lies is worked out once and kept in workgroup
// memory. Invocations side by side load what is side by side in memory: pixels in `conv`; in `weight` 8 pixels of
// one channel, hence tiles whose k-rows are one vec4 longer, so that 32 invocations write 32 different banks.
// There is no prefetch as in gemm_workgroup.wgsl: workgroups are small, and several on a processor hide
// each other's loads.

override LX: u32 = 16u;
override LY: u32 = 8u;

var<workgroup> tile_a: array<vec4<f32>, 136>; // 8 k-rows of 2 LY + 1, LY ≤ 8
var<workgroup> tile_b: array<vec4<f32>, 520>; // 8 k-rows of 2 LX + 1, LX ≤ 32
var<workgroup> columns: array<vec4<i32>, 256>; // 8 LX

fn put_a(k: u32, m: u32, v: f32) {
    tile_a[k * (2u * LY + 1u) + m / 4u][m % 4u] = v;
}

fn put_b(k: u32, n: u32, v: f32) {
    tile_b[k * (2u * LX + 1u) + n / 4u][n % 4u] = v;
}

fn multiply_add_step(t: ptr<function, Tile>, l: vec3<u32>) {
    for (var k = 0u; k < 8u; k++) {
        let i = k * (2u * LY + 1u) + l.y;
        let j = k * (2u * LX + 1u) + l.x;
        multiply_add(t, tile_a[i], tile_a[i + LY], tile_b[j], tile_b[j + LX]);
    }
}

// Row and column, in the workgroup's tile, of one invocation's q-th vec4.
fn corner(q: u32, l: vec3<u32>) -> vec2<u32> {
    let row = q / 2u;
    return vec2(4u * l.y + select(row, 4u * LY + row - 4u, row >= 4u), 4u * (l.x + (q % 2u) * LX));
}

const NOWHERE: i32 = -0x40000000; // a row of x that no tap reaches the plane from

// x at that row and column of the plane that begins at `plane`, 0 outside. Where it is outside, the first word of all
// is loaded, and dropped.
fn pixel(plane: u32, row: i32, column: i32) -> f32 {
    let inside = (u32(row) < p.x_size.x) & (u32(column) < p.x_size.y);
    return select(0.0, x[select(0u, plane + u32(row) * p.x_size.y + u32(column), inside)], inside);
}

@compute @workgroup_size(LX, LY)
fn conv(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_id) l: vec3<u32>,
        @builtin(local_invocation_index) e: u32, @builtin(num_workgroups) groups: vec3<u32>) {
    let number = group.x + group.y * groups.x;
    if number >= p.tiles * p.batch {
        return;
    }
    let z = number / p.tiles;
    let tile = number % p.tiles;
    let m0 = (tile / p.tiles_n) * 8u * LY;
    let n0 = (tile % p.tiles_n) * 8u * LX;
    let pixels = p.j_size.x * p.j_size.y;
    let x_plane = p.x_size.x * p.x_size.y;
    let y_plane = p.y_size.x * p.y_size.y;
    for (var i = e; i < 8u * LX; i += LX * LY) {
        let n = (n0 + i) / pixels;
        let j = (n0 + i) % pixels;
        let row = j / p.j_size.y;
        let column = j % p.j_size.y;
        // where x and y are, at c = 0 and m = 0, and row and column of x at t = 0
        var place = vec4(0, NOWHERE, 0, 0);
        if n < p.samples {
            let at = p.out_first + vec2(row, column) * p.out_step;
            place = vec4(
                i32(z * p.x_stride + n * p.x_sample + p.x_first),
                i32(row * p.step) + p.start.x,
                i32(column * p.step) + p.start.y,
                i32(z * p.y_stride + n * p.rows * y_plane + at.x * p.y_size.y + at.y),
            );
        }
        columns[i] = place;
    }
    workgroupBarrier();
    let taps = p.taps.x * p.taps.y;
    let depth = p.depth * taps;
    let w_start = z * p.w_stride + p.w_first;
    var t: Tile;
    for (var k0 = 0u; k0 < depth; k0 += 8u) {
        for (var i = e; i < 64u * LY; i += LX * LY) {
            let k = k0 + i % 8u;
            let m = m0 + i / 8u;
            var v = 0.0;
            if k < depth && m < p.rows {
                let r = vec2<i32>(vec2((k % taps) / p.taps.y, k % p.taps.y)) * p.w_tap;
                v = w[w_start + m * p.w_row + (k / taps) * p.w_depth + u32(r.x + r.y)];
            }
            put_a(i % 8u, i / 8u, v);
        }
        for (var k = 0u; k < 8u; k++) {
            // the same for all invocations
            let plane = ((k0 + k) / taps) * x_plane;
            let tap = (k0 + k) % taps;
            for (var i = e; i < 8u * LX; i += LX * LY) {
                let at = columns[i];
                var v = 0.0;
                if k0 + k < depth {
                    v = pixel(u32(at.x) + plane, at.y + i32(tap / p.taps.y), at.z + i32(tap % p.taps.y));
                }
                put_b(k, i, v);
            }
        }
        workgroupBarrier();
        multiply_add_step(&t, l);
        workgroupBarrier();
    }
    // a loop over a copy, as in gemm_workgroup.wgsl
    var held = t;
    for (var q = 0u; q < 16u; q++) {
        let at = corner(q, l);
        let m = m0 + at.x;
        if m < p.rows {
            let shift = bias_of(z, m);
            for (var i = 0u; i < 4u; i++) {
                let place = columns[at.y + i];
                if place.y != NOWHERE {
                    store(u32(place.w) + m * y_plane, held[q][i], shift);
                }
            }
        }
    }
}

// Pixels that are added up in one accumulator before they are added to what came before.
const RUN: u32 = 256u;

@compute @workgroup_size(LX, LY)
fn weight(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_id) l: vec3<u32>,
          @builtin(local_invocation_index) e: u32, @builtin(num_workgroups) groups: vec3<u32>) {
    let number = group.x + group.y * groups.x;
    if number >= p.tiles * p.parts * p.batch {
        return;
    }
    let tile = number % p.tiles;
    let part = (number / p.tiles) % p.parts;
    let z = number / (p.tiles * p.parts);
    let m0 = (tile / p.tiles_n) * 8u * LY;
    let n0 = (tile % p.tiles_n) * 8u * LX;
    let taps = p.taps.x * p.taps.y;
    let x_plane = p.x_size.x * p.x_size.y;
    for (var i = e; i < 8u * LX; i += LX * LY) {
        let column = n0 + i;
        let row = select(NOWHERE, i32((column % taps) / p.taps.y) + p.start.x, column < p.depth * taps);
        // where c's plane is, and row and column of x at j = 0
        columns[i] = vec4(i32((column / taps) * x_plane), row, i32(column % p.taps.y) + p.start.y, 0);
    }
    workgroupBarrier();
    let pixels = p.j_size.x * p.j_size.y;
    let first = (p.part_first + part) * p.part_len;
    let last = min(first + p.part_len, p.samples * pixels);
    var t: Tile;
    var total: Tile;
    for (var k0 = first; k0 < last; k0 += 8u) {
        // 8 divides the number of invocations: each keeps to one k of the step
        let k = k0 + e % 8u;
        let n = k / pixels;
        let j = k % pixels;
        let y_start = z * p.y_stride + n * p.rows * pixels + j;
        let x_start = z * p.x_stride + n * p.x_sample + p.x_first;
        let row = i32((j / p.j_size.y) * p.step);
        let column = i32((j % p.j_size.y) * p.step);
        for (var i = e / 8u; i < 8u * LY; i += LX * LY / 8u) {
            var v = 0.0;
            if k < last && m0 + i < p.rows {
                v = y[y_start + (m0 + i) * pixels];
            }
            put_a(e % 8u, i, v);
        }
        for (var i = e / 8u; i < 8u * LX; i += LX * LY / 8u) {
            let at = columns[i];
            var v = 0.0;
            if k < last {
                v = pixel(x_start + u32(at.x), row + at.y, column + at.z);
            }
            put_b(e % 8u, i, v);
        }
        workgroupBarrier();
        multiply_add_step(&t, l);
        if (k0 + 8u - first) % RUN == 0u {
            add_tile(&total, t);
            t = Tile();
        }
        workgroupBarrier();
    }
    add_tile(&total, t);
    let all = p.depth * taps;
    let out_first = z * p.w_stride + part * p.part_stride;
    var held = total;
    for (var q = 0u; q < 16u; q++) {
        let at = corner(q, l);
        let m = m0 + at.x;
        for (var i = 0u; i < 4u; i++) {
            let column = n0 + at.y + i;
            if m < p.rows && column < all {
                store(out_first + m * all + column, held[q][i], 0.0);
            }
        }
    }
}
