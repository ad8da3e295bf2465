// Per-sample losses ℓ(z, t) and their jets, weighted by the sample's weight w:
//   ℓ, z̄ = w ∇ℓ          ℓ1 = ∇ℓ·z1          z̄1 = w ∇²ℓ z1          z̄2 = w (∇²ℓ z2 + ∇³ℓ[z1, z1])
//
//   n  row of the batch   k  direction   l  output of the network
//   z, z̄ [n, l]   z1, z2, z̄1, z̄2 [k, n, l]   (the adjoints are g, g1, g2 below)
//   indices [·]: row n holds sample indices[step.first + n]
//   targets: classes [sample], or values [sample, l]
//   losses, correct [·] and slopes (ℓ1) [k, ·] are indexed by step.first + n; rows from step.count on
//   weigh nothing and write nothing there
//
// Softmax is shifted by its largest argument, and p_y − 1 is taken as −Σ_{i≠y} p_i: a sample that the
// network is sure of has a small gradient, not a rounded one. The shift r carries through the jets.

override LOSS: u32 = 0u;
override CLASSES: u32 = 1u; // 1: targets are classes, 0: values


struct Params {
    rows: u32,
    outputs: u32,
    directions: u32,
    order: u32,   // of the jet: 1, or 2 where z̄2 is wanted too
    has_z2: u32,
    slope_stride: u32, // from one direction's slopes to the next's
}

@group(0) @binding(0) var<storage, read> z: array<f32>;
@group(0) @binding(1) var<storage, read> indices: array<u32>;
@group(0) @binding(2) var<storage, read> targets: array<u32>;
@group(0) @binding(3) var<storage, read_write> losses: array<f32>;
@group(0) @binding(4) var<storage, read_write> correct: array<f32>;
@group(0) @binding(5) var<storage, read_write> g: array<f32>;
@group(0) @binding(6) var<storage, read> z1: array<f32>;
@group(0) @binding(7) var<storage, read> z2: array<f32>;
@group(0) @binding(8) var<storage, read_write> slopes: array<f32>;
@group(0) @binding(9) var<storage, read_write> g1: array<f32>;
@group(0) @binding(10) var<storage, read_write> g2: array<f32>;
@group(1) @binding(0) var<uniform> p: Params;

// The target value of output l for the sample in hand.
fn target_of(sample: u32, l: u32) -> f32 {
    if CLASSES == 1u {
        return select(0.0, 1.0, targets[sample] == l);
    }
    return bitcast<f32>(targets[sample * p.outputs + l]);
}

// What softmax needs once per row: the output r with the largest z, and Σ_{i≠r} exp(z_i − z_r).
struct Softmax {
    r: u32,
    top: f32,
    rest: f32,
}

fn softmax_of(row: u32) -> Softmax {
    var s = Softmax(0u, z[row], 0.0);
    for (var l = 1u; l < p.outputs; l++) {
        if z[row + l] > s.top {
            s.r = l;
            s.top = z[row + l];
        }
    }
    for (var l = 0u; l < p.outputs; l++) {
        if l != s.r {
            s.rest += exponential(z[row + l] - s.top);
        }
    }
    return s;
}

fn probability(s: Softmax, row: u32, l: u32) -> f32 {
    return select(exponential(z[row + l] - s.top), 1.0, l == s.r) / (1.0 + s.rest);
}

// p_l − t_l without cancellation where t is one-hot
fn residual(s: Softmax, row: u32, sample: u32, l: u32) -> f32 {
    if CLASSES == 1u && targets[sample] == l {
        if l == s.r {
            return -s.rest / (1.0 + s.rest);
        }
        var others = 1.0;
        for (var i = 0u; i < p.outputs; i++) {
            if i != l && i != s.r {
                others += exponential(z[row + i] - s.top);
            }
        }
        return -others / (1.0 + s.rest);
    }
    return probability(s, row, l) - target_of(sample, l);
}

fn weight_of(n: u32) -> f32 {
    return select(0.0, step.weight, n < step.count);
}

@compute @workgroup_size(64)
fn primal(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let n = linear_index(id, groups, 64u);
    if n >= p.rows {
        return;
    }
    let row = n * p.outputs;
    let sample = indices[step.first + n];
    let w = weight_of(n);
    let scale = 1.0 / f32(p.outputs);
    let s = softmax_of(row);
    var loss = 0.0;
    var goal = 0u; // the target's largest entry
    var highest = target_of(sample, 0u);
    for (var l = 1u; l < p.outputs; l++) {
        let t = target_of(sample, l);
        if t > highest {
            goal = l;
            highest = t;
        }
    }
    switch LOSS {
        case CROSS_ENTROPY: {
            // log Σ exp z − Σ t z = log1p(rest) − Σ t (z − top), for targets that sum to one
            loss = log1p(s.rest);
            for (var l = 0u; l < p.outputs; l++) {
                let t = target_of(sample, l);
                if t != 0.0 {
                    loss -= t * (z[row + l] - s.top);
                }
                g[row + l] = w * residual(s, row, sample, l);
            }
        }
        case SOFTMAX_MSE: {
            let f_r = residual(s, row, sample, s.r);
            var mean = 0.0; // Σ p (f − f_r)
            for (var l = 0u; l < p.outputs; l++) {
                let f = residual(s, row, sample, l);
                loss += scale * f * f;
                mean += probability(s, row, l) * (f - f_r);
            }
            for (var l = 0u; l < p.outputs; l++) {
                let f = residual(s, row, sample, l);
                g[row + l] = 2.0 * scale * w * probability(s, row, l) * (f - f_r - mean);
            }
        }
        default: {
            let c = select(1.0, 2.0 * scale, LOSS == MSE);
            for (var l = 0u; l < p.outputs; l++) {
                let f = z[row + l] - target_of(sample, l);
                loss += 0.5 * c * f * f;
                g[row + l] = c * w * f;
            }
        }
    }
    if n < step.count {
        losses[step.first + n] = loss;
        correct[step.first + n] = select(0.0, 1.0, goal == s.r);
    }
}

@compute @workgroup_size(64)
fn tangent(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let at = linear_index(id, groups, 64u);
    if at >= p.rows * p.directions {
        return;
    }
    let k = at / p.rows;
    let n = at % p.rows;
    let row = n * p.outputs;
    let jet = at * p.outputs; // of z1, z2, z̄1, z̄2
    let sample = indices[step.first + n];
    let w = weight_of(n);
    let scale = 1.0 / f32(p.outputs);
    var slope = 0.0;
    if LOSS == CROSS_ENTROPY || LOSS == SOFTMAX_MSE {
        let s = softmax_of(row);
        // p1 = p (a − m) with a = z1 − z1_r and m = Σ p a;  p2 = p1 (a − m) + p (b − m1), b = z2 − z2_r,
        // m1 = Σ p1 a + p b
        let top1 = z1[jet + s.r];
        var top2 = 0.0;
        if p.has_z2 == 1u {
            top2 = z2[jet + s.r];
        }
        var m = 0.0;
        for (var l = 0u; l < p.outputs; l++) {
            m += probability(s, row, l) * (z1[jet + l] - top1);
        }
        var m1 = 0.0;
        if p.order == 2u {
            for (var l = 0u; l < p.outputs; l++) {
                let a = z1[jet + l] - top1;
                let q = probability(s, row, l);
                m1 += q * (a - m) * a;
                if p.has_z2 == 1u {
                    m1 += q * (z2[jet + l] - top2);
                }
            }
        }
        // softmax-mse: f = c (p − t), s0 = Σ p (f − f_r), z̄ = p (f − f_r − s0), differentiated twice
        let c = 2.0 * scale;
        let f_r = residual(s, row, sample, s.r);
        let q_r = probability(s, row, s.r);
        let f1_r = q_r * (0.0 - m);
        let f2_r = q_r * (m * m - m1);
        var s0 = 0.0;
        var s1 = 0.0;
        var s2 = 0.0;
        if LOSS == SOFTMAX_MSE {
            for (var l = 0u; l < p.outputs; l++) {
                let q = probability(s, row, l);
                let a = z1[jet + l] - top1 - m;
                let q1 = q * a;
                let f = residual(s, row, sample, l) - f_r;
                let f1 = q1 - f1_r;
                s0 += q * f;
                s1 += q1 * f + q * f1;
                slope += c * residual(s, row, sample, l) * q1;
                if p.order == 2u {
                    var b = -m1;
                    if p.has_z2 == 1u {
                        b += z2[jet + l] - top2;
                    }
                    let q2 = q1 * a + q * b;
                    s2 += q2 * f + 2.0 * q1 * f1 + q * (q2 - f2_r);
                }
            }
        }
        for (var l = 0u; l < p.outputs; l++) {
            let q = probability(s, row, l);
            let a = z1[jet + l] - top1 - m;
            let q1 = q * a;
            var q2 = 0.0;
            if p.order == 2u {
                var b = -m1;
                if p.has_z2 == 1u {
                    b += z2[jet + l] - top2;
                }
                q2 = q1 * a + q * b;
            }
            if LOSS == CROSS_ENTROPY {
                // ∇ℓ sums to zero, so that any shift of z1 leaves the slope as it is
                slope += residual(s, row, sample, l) * (z1[jet + l] - top1);
                g1[jet + l] = w * q1;
                if p.order == 2u {
                    g2[jet + l] = w * q2;
                }
            } else {
                let f = residual(s, row, sample, l) - f_r - s0;
                let f1 = q1 - f1_r - s1;
                g1[jet + l] = w * c * (q1 * f + q * f1);
                if p.order == 2u {
                    g2[jet + l] = w * c * (q2 * f + 2.0 * q1 * f1 + q * (q2 - f2_r - s2));
                }
            }
        }
    } else {
        let c = select(1.0, 2.0 * scale, LOSS == MSE);
        for (var l = 0u; l < p.outputs; l++) {
            slope += c * (z[row + l] - target_of(sample, l)) * z1[jet + l];
            g1[jet + l] = c * w * z1[jet + l];
            if p.order == 2u {
                var second = 0.0;
                if p.has_z2 == 1u {
                    second = z2[jet + l];
                }
                g2[jet + l] = c * w * second;
            }
        }
    }
    if n < step.count {
        slopes[k * p.slope_stride + step.first + n] = slope;
    }
}

// Slopes about their mean c = ḡ·v, and the seeds of the noise covariance: ℓ1 ← ℓ1 − c, then z̄1 = ℓ1 z̄
//   c [k] in `centres`, ℓ1 in `slopes`, z̄ in `g_in`
@group(0) @binding(11) var<storage, read> centres: array<f32>;
@group(0) @binding(12) var<storage, read> slopes_in: array<f32>;
@group(0) @binding(13) var<storage, read> g_in: array<f32>;

@compute @workgroup_size(64)
fn centre(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let at = linear_index(id, groups, 64u);
    if at >= p.rows * p.directions {
        return;
    }
    let k = at / p.rows;
    let n = at % p.rows;
    if n < step.count {
        slopes[k * p.slope_stride + step.first + n] -= centres[k];
    }
}

@compute @workgroup_size(64)
fn noise_seed(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let at = linear_index(id, groups, 64u);
    let row_len = p.rows * p.outputs;
    if at >= row_len * p.directions {
        return;
    }
    let k = at / row_len;
    let e = at % row_len;
    let n = e / p.outputs;
    if n < step.count {
        g1[at] = slopes_in[k * p.slope_stride + step.first + n] * g_in[e];
    } else {
        g1[at] = 0.0;
    }
}

// z̄1 = w z1, the adjoint that makes Jᵀ J
@compute @workgroup_size(64)
fn output_seed(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let at = linear_index(id, groups, 64u);
    let row_len = p.rows * p.outputs;
    if at >= row_len * p.directions {
        return;
    }
    g1[at] = weight_of((at % row_len) / p.outputs) * z1[at];
}
