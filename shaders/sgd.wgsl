// SGD with momentum and weight decay, as PyTorch has it
//   m ← μ m + (g + λ θ)     θ ← θ − η m         (m starts as zero; where μ is 0 it is not used)
//
//   e  coordinate of the parameters      θ, g, m [e]      η, μ, λ: of the step

struct Params {
    elements: u32,
}

@group(0) @binding(0) var<storage, read> g: array<f32>;
@group(0) @binding(1) var<storage, read_write> theta: array<f32>;
@group(0) @binding(2) var<storage, read_write> m: array<f32>;
@group(1) @binding(0) var<uniform> p: Params;

@compute @workgroup_size(64)
fn sgd(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let e = linear_index(id, groups, 64u);
    if e >= p.elements {
        return;
    }
    var v = g[e] + step.weight_decay * theta[e];
    if step.momentum != 0.0 {
        v += step.momentum * m[e];
        m[e] = v;
    }
    theta[e] -= step.learning_rate * v;
}
