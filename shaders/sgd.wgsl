// SGD with momentum and weight decay, as PyTorch has it
//   m ← μ m + (g + λ θ)     θ ← θ − η m         (m starts as zero; where μ is 0 it is not used)
//
//   e  four coordinates of the parameters      θ, g, m [e]      η, μ, λ: of the step

struct Params {
    fours: u32,
}

@group(0) @binding(0) var<storage, read> g: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read_write> theta: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> m: array<vec4<f32>>;
@group(1) @binding(0) var<uniform> p: Params;

@compute @workgroup_size(64)
fn sgd(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let e = linear_index(id, groups, 64u);
    if e >= p.fours {
        return;
    }
    let before = theta[e];
    var v = g[e] + step.weight_decay * before;
    if step.momentum != 0.0 {
        v += step.momentum * m[e];
        m[e] = v;
    }
    theta[e] = before - step.learning_rate * v;
}
