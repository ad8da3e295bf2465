// Eigendecompositions of many small symmetric matrices, A_n = Σ_m λ_m u_m u_mᵀ, by cyclic Jacobi rotations
//   J(p, q)   p′ = p − s (q + τ p)   q′ = q + s (p − τ q)      t = tan θ makes a_pq 0, s = sin θ, τ = tan ½θ
//
//   n  matrix   i, k  rows and columns, d of them, 1 ≤ d ≤ 64   m  eigenpair, λ_0 ≥ λ_1 ≥ …
//   x: A_n[i, k] at n sample_stride + i row_stride + k; what is decomposed is ½ (A + Aᵀ)
//   values [n, m], vectors [n, m, i] (u_m is a row), residuals [n] = max_m ‖A u_m − λ_m u_m‖ / max_m |λ_m|
//
// One workgroup per matrix. A is scaled by a power of two, so that no square over- or underflows, and its lower
// triangle kept in workgroup memory, a_ik at i (i + 1) / 2 + k for k ≤ i, with rows of zeros added up to a
// multiple of four, e. Rows come in twins, 2P and 2P + 1. In a round every twin meets one other, e / 4 meetings
// at once, and e / 2 − 1 rounds bring each two together (the circle method). A meeting turns the six pairs of
// its four rows one after another, which gives a rotation R [4, 4]; the 4 × 4 blocks in which the rows of one
// meeting meet the columns of another, and the columns of the vectors (invocation i's alone is column i), then
// follow by one product with R, read and written once for six rotations. No pair is turned whose a_pq is
// negligible; a sweep that turns none is the last.
// R is kept as R − 1, which loses nothing where the angles are small. Rotations drift off unit length: at the
// end vectors are made unit, eigenvalues divided by the squared length, and the residual is taken from the
// matrix as it was given.
//
// A dispatch makes as many sweeps as the host bids it, and may be the first, which begins, or the last, which ends. In
// between the triangle, the bound below which entries are negligible, and whether all of them are, lie in `state`
// [n − first, ·], e (e + 1) / 2 + 2 words a matrix.

override SIZE: u32 = 64u;

const BEGIN: u32 = 1u;
const END: u32 = 2u;
const NEGLIGIBLE: f32 = 1e-6; // of ‖A‖, over all off-diagonal entries together

struct Params {
    first: u32,
    samples: u32, // the end of what this dispatch decomposes
    d: u32,
    sample_stride: u32,
    row_stride: u32,
    sweeps: u32,
    flags: u32,   // BEGIN, END
}

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> values: array<f32>;
@group(0) @binding(2) var<storage, read_write> vectors: array<f32>;
@group(0) @binding(3) var<storage, read_write> residuals: array<f32>;
@group(0) @binding(4) var<storage, read_write> state: array<f32>;
@group(1) @binding(0) var<uniform> p: Params;

var<workgroup> a: array<f32, 2080>;           // 64 · 65 / 2
var<workgroup> pairs: array<vec2<u32>, 16>;   // the twins that meet, P < Q
var<workgroup> turns: array<vec4<f32>, 64>;   // four rows of R − 1 each
var<workgroup> still: array<u32, 16>;         // 1 where R is the identity
var<workgroup> part: array<f32, 64>;          // one value per invocation, or per eigenpair
var<workgroup> bits: array<u32, 64>;
var<workgroup> lambda: array<f32, 64>;
var<workgroup> origin: array<u32, 64>;        // which row of the vectors comes m-th
var<workgroup> turned: f32;

fn at(i: u32, k: u32) -> u32 {
    let high = max(i, k);
    return (high * (high + 1u)) / 2u + min(i, k);
}

fn element(n: u32, i: u32, k: u32) -> f32 {
    let start = n * p.sample_stride;
    return 0.5 * x[start + i * p.row_stride + k] + 0.5 * x[start + k * p.row_stride + i];
}

// The scaled matrix into workgroup memory; zeros for one that is not finite (scale 0).
fn load(n: u32, e: u32, lid: u32, scale: f32) {
    for (var i = 0u; i < e; i++) {
        for (var k = lid; k <= i; k += SIZE) {
            var v = 0.0;
            if (i < p.d) && (scale > 0.0) {
                v = scale * element(n, i, k);
            }
            a[(i * (i + 1u)) / 2u + k] = v;
        }
    }
}

// The bits of the largest magnitude: they are in the order of the values, NaN above all.
fn largest_bits(n: u32, lid: u32) -> u32 {
    var most = 0u;
    for (var i = 0u; i < p.d; i++) {
        for (var k = lid; k <= i; k += SIZE) {
            most = max(most, bitcast<u32>(element(n, i, k)) & 0x7fffffffu);
        }
    }
    bits[lid] = most;
    workgroupBarrier();
    for (var j = 0u; j < SIZE; j++) {
        most = max(most, bits[j]);
    }
    return most;
}

fn sum_of_parts() -> f32 {
    var sum = 0.0;
    for (var j = 0u; j < SIZE; j++) {
        sum += part[j];
    }
    return sum;
}

fn rows_of(pair: vec2<u32>) -> vec4<u32> {
    return vec4(2u * pair.x, 2u * pair.x + 1u, 2u * pair.y, 2u * pair.y + 1u);
}

// Turns p and q of the 4 × 4 block b so that b_pq is 0, unless it is negligible; r is R − 1, its rows as columns.
fn turn(b: ptr<function, mat4x4<f32>>, r: ptr<function, mat4x4<f32>>, p: u32, q: u32, negligible: f32) -> f32 {
    let off = (*b)[p][q];
    if abs(off) <= negligible {
        return 0.0;
    }
    let cot = ((*b)[q][q] - (*b)[p][p]) / (2.0 * off); // cot 2θ
    let t = select(-1.0, 1.0, cot >= 0.0) / (abs(cot) + sqrt(1.0 + cot * cot));
    let v = 1.0 + t * t;
    let near = inverseSqrt(v);
    let c = near * (1.5 - 0.5 * v * near * near); // a step of Newton's: built in, it may be off by 2 ulp
    let s = t * c;
    let tau = s / (1.0 + c);
    let pp = (*b)[p][p] - t * off;
    let qq = (*b)[q][q] + t * off;
    let bp = (*b)[p] - s * ((*b)[q] + tau * (*b)[p]);
    let bq = (*b)[q] + s * ((*b)[p] - tau * (*b)[q]);
    (*b)[p] = bp;
    (*b)[q] = bq;
    for (var i = 0u; i < 4u; i++) {
        (*b)[i][p] = bp[i];
        (*b)[i][q] = bq[i];
    }
    (*b)[p][p] = pp;
    (*b)[q][q] = qq;
    (*b)[p][q] = 0.0;
    (*b)[q][p] = 0.0;
    var rp = (*r)[p];
    var rq = (*r)[q];
    rp[p] += 1.0;
    rq[q] += 1.0;
    (*r)[p] -= s * (rq + tau * rp);
    (*r)[q] += s * (rp - tau * rq);
    return abs(s);
}

// The meeting of two twins: its rotation, the block after it, and the sum of the sines.
fn turn_diagonal(k: u32, pair: vec2<u32>, negligible: f32) -> f32 {
    let rows = rows_of(pair);
    var b: mat4x4<f32>;
    for (var i = 0u; i < 4u; i++) {
        for (var j = 0u; j < 4u; j++) {
            b[i][j] = a[at(rows[i], rows[j])];
        }
    }
    var r = mat4x4<f32>();
    var sines = turn(&b, &r, 0u, 1u, negligible);
    sines += turn(&b, &r, 2u, 3u, negligible);
    sines += turn(&b, &r, 0u, 2u, negligible);
    sines += turn(&b, &r, 1u, 3u, negligible);
    sines += turn(&b, &r, 0u, 3u, negligible);
    sines += turn(&b, &r, 1u, 2u, negligible);
    pairs[k] = pair;
    still[k] = select(0u, 1u, sines == 0.0);
    for (var i = 0u; i < 4u; i++) {
        turns[4u * k + i] = r[i];
    }
    if sines > 0.0 {
        for (var i = 0u; i < 4u; i++) {
            for (var j = 0u; j <= i; j++) {
                a[at(rows[i], rows[j])] = b[i][j];
            }
        }
    }
    return sines;
}

// R − 1 of a meeting.
fn rotation(k: u32) -> mat4x4<f32> {
    return transpose(mat4x4(turns[4u * k], turns[4u * k + 1u], turns[4u * k + 2u], turns[4u * k + 3u]));
}

// The 4 × 4 block of the rows of one meeting and the columns of another.
fn turn_block(row: u32, column: u32) {
    let rows = rows_of(pairs[row]);
    let columns = rows_of(pairs[column]);
    let left = rotation(row);
    let right = rotation(column);
    var b: mat4x4<f32>; // b[j] is column j
    for (var j = 0u; j < 4u; j++) {
        let v = vec4(a[at(rows[0], columns[j])], a[at(rows[1], columns[j])],
            a[at(rows[2], columns[j])], a[at(rows[3], columns[j])]);
        b[j] = v + left * v;
    }
    b = transpose(b);
    for (var i = 0u; i < 4u; i++) {
        let v = b[i] + right * b[i];
        for (var j = 0u; j < 4u; j++) {
            a[at(rows[i], columns[j])] = v[j];
        }
    }
}

@compute @workgroup_size(SIZE)
fn eigen(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) lid: u32,
    @builtin(num_workgroups) groups: vec3<u32>,
) {
    let n = p.first + group.x + group.y * groups.x;
    if n >= p.samples {
        return;
    }
    let d = p.d;
    let e = (d + 3u) & 0xfffffffcu;
    let meetings = e / 4u;
    let last = e / 2u - 1u;
    let to = n * d * d;

    let most = largest_bits(n, lid);
    let finite = most < 0x7f800000u;
    let exponent = clamp(most >> 23u, 1u, 253u);
    let scale = select(0.0, bitcast<f32>((254u - exponent) << 23u), finite); // 2^(127 − exponent)
    let entries = (e * (e + 1u)) / 2u;
    let kept = (n - p.first) * (entries + 2u);
    var negligible = 0.0;
    if (p.flags & BEGIN) != 0u {
        load(n, e, lid, scale);
        for (var m = 0u; m < d; m++) {
            for (var i = lid; i < d; i += SIZE) {
                vectors[to + m * d + i] = select(0.0, 1.0, m == i);
            }
        }
        workgroupBarrier();
        var squares = 0.0;
        for (var i = 0u; i < d; i++) {
            for (var k = lid; k <= i; k += SIZE) {
                let v = a[(i * (i + 1u)) / 2u + k];
                squares += select(2.0, 1.0, i == k) * v * v;
            }
        }
        part[lid] = squares;
        workgroupBarrier();
        negligible = NEGLIGIBLE * sqrt(sum_of_parts()) / f32(d);
        if lid == 0u {
            turned = 1.0;
        }
    } else {
        if lid == 0u {
            turned = state[kept + entries + 1u];
        }
        if (workgroupUniformLoad(&turned) == 0.0) && ((p.flags & END) == 0u) {
            return;
        }
        for (var i = lid; i < entries; i += SIZE) {
            a[i] = state[kept + i];
        }
        negligible = state[kept + entries];
    }

    for (var sweep = 0u; sweep < p.sweeps; sweep++) {
        if workgroupUniformLoad(&turned) == 0.0 {
            break;
        }
        var mine = 0.0;
        for (var round = 0u; round < last; round++) {
            for (var k = lid; k < meetings; k += SIZE) {
                // the last stays, the others move on by one: 0 meets the last, k meets −k
                let other = select((round + last - k) % last, last, k == 0u);
                let one = (round + k) % last;
                mine += turn_diagonal(k, vec2(min(one, other), max(one, other)), negligible);
            }
            workgroupBarrier();
            // block b = meetings · distance + row, of meetings row and row + distance, each two once
            var row = lid;
            var distance = 1u;
            for (var b = meetings + lid; b < (meetings * (meetings + 1u)) / 2u; b += SIZE) {
                while row >= meetings {
                    row -= meetings;
                    distance += 1u;
                }
                var column = row + distance;
                if column >= meetings {
                    column -= meetings;
                }
                if (still[row] & still[column]) == 0u {
                    turn_block(row, column);
                }
                row += SIZE;
            }
            for (var k = 0u; k < meetings; k++) {
                if still[k] == 0u {
                    let r = rotation(k);
                    let there = rows_of(pairs[k]) < vec4(d);
                    let rows = to + d * min(rows_of(pairs[k]), vec4(d - 1u));
                    for (var i = lid; i < d; i += SIZE) {
                        var v = vec4(vectors[rows.x + i], vectors[rows.y + i],
                            vectors[rows.z + i], vectors[rows.w + i]);
                        v += r * v;
                        if there.x { vectors[rows.x + i] = v.x; }
                        if there.y { vectors[rows.y + i] = v.y; }
                        if there.z { vectors[rows.z + i] = v.z; }
                        if there.w { vectors[rows.w + i] = v.w; }
                    }
                }
            }
            workgroupBarrier();
        }
        part[lid] = mine;
        workgroupBarrier();
        if lid == 0u {
            turned = sum_of_parts();
        }
    }
    workgroupBarrier();
    if (p.flags & END) == 0u {
        for (var i = lid; i < entries; i += SIZE) {
            state[kept + i] = a[i];
        }
        if lid == 0u {
            state[kept + entries] = negligible;
            state[kept + entries + 1u] = turned;
        }
        return;
    }

    // unit vectors, their eigenvalues and where they come in descending order
    storageBarrier();
    for (var m = lid; m < d; m += SIZE) {
        var length2 = 0.0;
        for (var i = 0u; i < d; i++) {
            let v = vectors[to + m * d + i];
            length2 += v * v;
        }
        part[m] = inverseSqrt(length2);
        lambda[m] = a[at(m, m)] / length2;
    }
    workgroupBarrier();
    storageBarrier();
    for (var m = lid; m < d; m += SIZE) {
        let mine = lambda[m];
        var rank = 0u;
        for (var j = 0u; j < d; j++) {
            if (lambda[j] > mine) || ((lambda[j] == mine) && (j < m)) {
                rank += 1u;
            }
        }
        origin[rank] = m;
    }
    workgroupBarrier();

    // each invocation permutes its columns of the vectors along the cycles of `origin`
    for (var i = lid; i < d; i += SIZE) {
        var done = vec2(0u);
        for (var start = 0u; start < d; start++) {
            if (done[start / 32u] & (1u << (start % 32u))) != 0u {
                continue;
            }
            let held = vectors[to + start * d + i] * part[start];
            var m = start;
            loop {
                done[m / 32u] |= 1u << (m % 32u);
                let source = origin[m];
                if source == start {
                    vectors[to + m * d + i] = held;
                    break;
                }
                vectors[to + m * d + i] = vectors[to + source * d + i] * part[source];
                m = source;
            }
        }
    }

    // ‖A u − λ u‖ of the matrix as it was given
    load(n, e, lid, scale);
    storageBarrier();
    workgroupBarrier();
    let poison = bitcast<f32>(most | 0x7fc00000u); // NaN where the matrix is not finite
    var worst = 0.0;
    var largest = 0.0;
    for (var m = lid; m < d; m += SIZE) {
        let mine = lambda[origin[m]];
        let u = to + m * d;
        var error2 = 0.0;
        for (var i = 0u; i < d; i++) {
            var sum = -mine * vectors[u + i];
            for (var k = 0u; k < d; k++) {
                sum += a[at(i, k)] * vectors[u + k];
            }
            error2 += sum * sum;
        }
        worst = max(worst, error2);
        values[n * d + m] = select(poison, mine / scale, finite);
    }
    workgroupBarrier();
    part[lid] = worst;
    workgroupBarrier();
    if lid == 0u {
        for (var j = 0u; j < SIZE; j++) {
            worst = max(worst, part[j]);
        }
        for (var m = 0u; m < d; m++) {
            largest = max(largest, abs(lambda[m]));
        }
        residuals[n] = select(poison, select(0.0, sqrt(worst) / largest, largest > 0.0), finite);
    }
}
