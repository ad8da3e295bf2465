// What an adapter does with a long loop, a subnormal number, and the arithmetic that kernels are made of
//   y[0]  how often a loop of `iterations` went round (u32's bits)    y[1]  tiny / 2, tiny the smallest normal number
//   y[2 + i]  1/x   √x   1/√x of x[i],  e^x of x[n + i],  log(1 + x) of x[2n + i]        n `arguments` of each

struct Params {
    iterations: u32,
    arguments: u32,
    tiny: f32,
    padding: u32,
}

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;
@group(1) @binding(0) var<uniform> p: Params;

@compute @workgroup_size(64)
fn trial(@builtin(global_invocation_id) id: vec3<u32>) {
    let i = id.x;
    let n = p.arguments;
    if i < n {
        y[2u + i] = 1.0 / x[i];
        y[2u + n + i] = sqrt(x[i]);
        y[2u + 2u * n + i] = inverseSqrt(x[i]);
        y[2u + 3u * n + i] = exponential(x[n + i]);
        y[2u + 4u * n + i] = log1p(x[2u * n + i]);
    }
    if i == 0u {
        // a congruential generator: no compiler knows its end without going there
        var state = 1u;
        var count = 0u;
        for (var k = 0u; k < p.iterations; k++) {
            state = state * 1664525u + 1013904223u;
            count += select(1u, 0u, state == p.iterations);
        }
        y[0] = bitcast<f32>(count);
        y[1] = 0.5 * p.tiny;
    }
}
