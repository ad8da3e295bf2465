// What sequences of tokens need beyond matrix products. An input sample is [2, t]: ids, then the mask.
//
//   embed          y[k, n, t, e] (+)= c W[k, id(n, t), e]
//   embed_adjoint  W[k, v, e] (+)= c Σ_{n, t: id(n, t) = v} y[k, n, t, e]       in the order of (n, t)
//   embed_links    where each id stands, for embed_adjoint to follow: links[g, v] is id v's first position (n, t),
//                  links[g, V + position] the next position of the same id, or END; of the positions first … end
//   heads          y[k, n, h, t, d] (+)= c x[k, n, t, part, h, d]              x has `parts` parts
//   heads_adjoint  x[k, n, t, part, h, d] (+)= c y[k, n, h, t, d], and zero in the other parts
//   token_weight   y[n, t] (+)= mask(n, t) / Σ_t mask(n, t)
//   row_shift      y[n, h, t, s] (+)= −max_{s kept} x[n, h, t, s] where mask(n, s) keeps s, else −∞ (−1e30)
//
//   k direction  n sample  t, s token  e feature  v id, of V  h head  d feature of a head;  contiguous, but
//   W of one direction is `stride` words from the next's, and so are `token_stride` the tokens for `embed` and its
//   adjoint (0: all directions have the same)
//   g list of positions: one for all directions, or one for each where each has tokens of its own

struct Params {
    directions: u32,
    samples: u32,
    tokens: u32,
    width: u32,    // E; of a head's features for `heads`
    count: u32,    // ids, or heads
    parts: u32,
    part: u32,     // for masks, 1 where there is none
    stride: u32,
    add: u32,
    c: f32,
    token_stride: u32,
    first: u32,    // positions of this dispatch
    end: u32,
}

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> tokens: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
@group(0) @binding(3) var<storage, read> links_in: array<u32>;
@group(0) @binding(4) var<storage, read_write> links: array<u32>;
@group(1) @binding(0) var<uniform> p: Params;

const END = 0xffffffffu;

fn store(e: u32, v: f32) {
    var total = v;
    if p.add != 0u {
        total += y[e];
    }
    y[e] = total;
}

// id(n, t), of direction k where it has tokens of its own
fn token(k: u32, n: u32, t: u32) -> u32 {
    return min(u32(tokens[k * p.token_stride + n * 2u * p.tokens + t]), p.count - 1u);
}

fn keeps(n: u32, t: u32) -> bool {
    if p.part == 1u {
        return true;
    }
    return tokens[(n * 2u + 1u) * p.tokens + t] != 0.0;
}

@compute @workgroup_size(64)
fn embed(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let at = linear_index(id, groups, 64u);
    let len = p.samples * p.tokens * p.width;
    if at >= len * p.directions {
        return;
    }
    let position = (at % len) / p.width;
    let v = token(at / len, position / p.tokens, position % p.tokens);
    store(at, p.c * x[(at / len) * p.stride + v * p.width + at % p.width]);
}

fn positions() -> u32 {
    return p.samples * p.tokens;
}

@compute @workgroup_size(64)
fn embed_links(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let at = linear_index(id, groups, 64u);
    if at >= p.count * select(p.directions, 1u, p.token_stride == 0u) {
        return;
    }
    let g = at / p.count;
    let v = at % p.count;
    let list = g * (p.count + positions());
    var next = END;
    for (var q = p.end; q > p.first; q--) {
        if token(g, (q - 1u) / p.tokens, (q - 1u) % p.tokens) == v {
            links[list + p.count + q - 1u] = next;
            next = q - 1u;
        }
    }
    links[list + v] = next;
}

@compute @workgroup_size(64)
fn embed_adjoint(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let at = linear_index(id, groups, 64u);
    let len = p.count * p.width;
    if at >= len * p.directions {
        return;
    }
    let k = at / len;
    let v = (at % len) / p.width;
    let list = select(k * (p.count + positions()), 0u, p.token_stride == 0u);
    // in runs of 256, as other long sums
    var total = 0.0;
    var sum = 0.0;
    var terms = 0u;
    for (var q = links_in[list + v]; q != END; q = links_in[list + p.count + q]) {
        sum += x[(k * positions() + q) * p.width + at % p.width];
        terms += 1u;
        if terms % 256u == 0u {
            total += sum;
            sum = 0.0;
        }
    }
    store(k * p.stride + at % len, p.c * (total + sum));
}

// The element of x [·, t, part, h, d] that element (·, h, t, d) of y is.
fn merged(at: u32) -> u32 {
    let d = at % p.width;
    let t = (at / p.width) % p.tokens;
    let h = (at / (p.width * p.tokens)) % p.count;
    let n = at / (p.width * p.tokens * p.count);
    return (((n * p.tokens + t) * p.parts + p.part) * p.count + h) * p.width + d;
}

@compute @workgroup_size(64)
fn heads(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let at = linear_index(id, groups, 64u);
    if at < p.directions * p.samples * p.count * p.tokens * p.width {
        store(at, p.c * x[merged(at)]);
    }
}

@compute @workgroup_size(64)
fn heads_adjoint(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let at = linear_index(id, groups, 64u);
    if at >= p.directions * p.samples * p.tokens * p.parts * p.count * p.width {
        return;
    }
    let d = at % p.width;
    let h = (at / p.width) % p.count;
    let part = (at / (p.width * p.count)) % p.parts;
    let t = (at / (p.width * p.count * p.parts)) % p.tokens;
    let n = at / (p.width * p.count * p.parts * p.tokens);
    var v = 0.0;
    if part == p.part {
        v = p.c * x[((n * p.count + h) * p.tokens + t) * p.width + d];
    }
    store(at, v);
}

@compute @workgroup_size(64)
fn token_weight(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let at = linear_index(id, groups, 64u);
    if at >= p.samples * p.tokens {
        return;
    }
    let n = at / p.tokens;
    var kept = 0.0;
    for (var t = 0u; t < p.tokens; t++) {
        kept += select(0.0, 1.0, keeps(n, t));
    }
    store(at, select(0.0, 1.0 / max(kept, 1.0), keeps(n, at % p.tokens)));
}

// One invocation per row (n, h, t).
@compute @workgroup_size(64)
fn row_shift(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let row = linear_index(id, groups, 64u);
    if row >= p.samples * p.count * p.tokens {
        return;
    }
    let n = row / (p.count * p.tokens);
    var top = -1e30;
    for (var s = 0u; s < p.tokens; s++) {
        if keeps(n, s) {
            top = max(top, x[row * p.tokens + s]);
        }
    }
    for (var s = 0u; s < p.tokens; s++) {
        store(row * p.tokens + s, select(-1e30, -top, keeps(n, s)));
    }
}
