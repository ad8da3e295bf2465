// Eigendecompositions of many small symmetric matrices, A_n = Σ_m λ_m u_m u_mᵀ, by cyclic Jacobi rotations
//   J(p, q)   p′ = p − s (q + τ p)   q′ = q + s (p − τ q)      t = tan θ makes a_pq 0, s = sin θ, τ = tan ½θ
//
//   n  matrix   i, k  rows and columns, d of them, 1 ≤ d ≤ 64   m  eigenpair, λ_0 ≥ λ_1 ≥ …
//   x: A_n[i, k] at n sample_stride + i row_stride + k; what is decomposed is ½ (A + Aᵀ)
//   values [n, m], vectors [n, m, i] (u_m is a row), residuals [n] = max_m ‖A u_m − λ_m u_m‖ / max_m |λ_m|
//
// One workgroup per matrix. A is scaled by a power of two, so that no square over- or underflows, and its lower
// triangle kept in workgroup memory, a_ik at i (i + 1) / 2 + k for k ≤ i, with a row of zeros added where d is
// odd. A round turns e / 2 disjoint pairs at once, e − 1 rounds meet every pair (the circle method), and the
// 2 × 2 blocks in which rows of one pair meet columns of another are independent of one another. Invocation i
// alone turns column i of the vectors. No pair is turned whose a_pq is negligible; a sweep that turns none is
// the last. Rotations drift off unit length, in both rows of a pair alike: at the end vectors are made unit,
// eigenvalues divided by the squared length, and the residual is taken from the matrix as it was given.

override SIZE: u32 = 64u;

const SWEEPS: u32 = 16u;
const NEGLIGIBLE: f32 = 1e-6; // of ‖A‖, over all off-diagonal entries together

struct Params {
    first: u32,
    samples: u32, // the end of what this dispatch decomposes
    d: u32,
    sample_stride: u32,
    row_stride: u32,
}

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> values: array<f32>;
@group(0) @binding(2) var<storage, read_write> vectors: array<f32>;
@group(0) @binding(3) var<storage, read_write> residuals: array<f32>;
@group(1) @binding(0) var<uniform> p: Params;

var<workgroup> a: array<f32, 2080>;           // 64 · 65 / 2
var<workgroup> pairs: array<vec2<u32>, 32>;   // p < q
var<workgroup> turns: array<vec2<f32>, 32>;   // s, τ; 0 where the pair is not turned
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

// s and τ that make a_pq zero, and the diagonal after it; 0 where a_pq is negligible already.
fn turn(pair: vec2<u32>, negligible: f32) -> vec2<f32> {
    let pp = at(pair.x, pair.x);
    let qq = at(pair.y, pair.y);
    let pq = at(pair.x, pair.y);
    let off = a[pq];
    if abs(off) <= negligible {
        return vec2(0.0);
    }
    let cot = (a[qq] - a[pp]) / (2.0 * off); // cot 2θ
    let t = select(-1.0, 1.0, cot >= 0.0) / (abs(cot) + sqrt(1.0 + cot * cot));
    let c = inverseSqrt(1.0 + t * t);
    a[pp] -= t * off;
    a[qq] += t * off;
    a[pq] = 0.0;
    return vec2(t * c, (t * c) / (1.0 + c));
}

// The block of rows of pair P and columns of pair R, P ≠ R.
fn turn_block(rows: vec2<u32>, columns: vec2<u32>, by_rows: vec2<f32>, by_columns: vec2<f32>) {
    let pr = at(rows.x, columns.x);
    let ps = at(rows.x, columns.y);
    let qr = at(rows.y, columns.x);
    let qs = at(rows.y, columns.y);
    let top = vec2(a[pr], a[ps]);
    let low = vec2(a[qr], a[qs]);
    let up = top - by_rows.x * (low + by_rows.y * top);
    let down = low + by_rows.x * (top - by_rows.y * low);
    let left = vec2(up.x, down.x);
    let right = vec2(up.y, down.y);
    let first = left - by_columns.x * (right + by_columns.y * left);
    let second = right + by_columns.x * (left - by_columns.y * right);
    a[pr] = first.x;
    a[ps] = second.x;
    a[qr] = first.y;
    a[qs] = second.y;
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
    let e = d + (d & 1u);
    let half = e / 2u;
    let to = n * d * d;

    let most = largest_bits(n, lid);
    let finite = most < 0x7f800000u;
    let exponent = clamp(most >> 23u, 1u, 253u);
    let scale = select(0.0, bitcast<f32>((254u - exponent) << 23u), finite); // 2^(127 − exponent)
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
    let negligible = NEGLIGIBLE * sqrt(sum_of_parts()) / f32(d);

    for (var sweep = 0u; sweep < SWEEPS; sweep++) {
        var mine = 0.0;
        for (var round = 0u; round + 1u < e; round++) {
            for (var k = lid; k < half; k += SIZE) {
                // the last stays, the others move on by one: 0 meets the last, k meets −k
                let other = select((round + e - 1u - k) % (e - 1u), e - 1u, k == 0u);
                let one = (round + k) % (e - 1u);
                let pair = vec2(min(one, other), max(one, other));
                let by = turn(pair, negligible);
                mine += abs(by.x);
                pairs[k] = pair;
                turns[k] = by;
            }
            workgroupBarrier();
            // block b = half · distance + row, of pairs row and row + distance, each two pairs once
            var row = lid;
            var distance = 1u;
            for (var b = half + lid; b < (half * (half + 1u)) / 2u; b += SIZE) {
                while row >= half {
                    row -= half;
                    distance += 1u;
                }
                var column = row + distance;
                if column >= half {
                    column -= half;
                }
                let by_rows = turns[row];
                let by_columns = turns[column];
                if (by_rows.x != 0.0) || (by_columns.x != 0.0) {
                    turn_block(pairs[row], pairs[column], by_rows, by_columns);
                }
                row += SIZE;
            }
            for (var k = 0u; k < half; k++) {
                let by = turns[k];
                if by.x != 0.0 {
                    let first = to + pairs[k].x * d;
                    let second = to + pairs[k].y * d;
                    for (var i = lid; i < d; i += SIZE) {
                        let u = vectors[first + i];
                        let v = vectors[second + i];
                        vectors[first + i] = u - by.x * (v + by.y * u);
                        vectors[second + i] = v + by.x * (u - by.y * v);
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
        if workgroupUniformLoad(&turned) == 0.0 {
            break;
        }
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
