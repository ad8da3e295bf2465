struct Params { m: u32, n: u32, k: u32, z: u32, lda: u32, ldb: u32, ldc: u32, form: u32, sa: u32, sb: u32, sc: u32, sbias: u32, alpha: f32, add: u32, has_bias: u32, pad: u32 }
@group(0) @binding(0) var<storage, read> a: array<f32>;
@group(0) @binding(1) var<storage, read> b: array<f32>;
@group(0) @binding(2) var<storage, read> bias: array<f32>;
@group(0) @binding(3) var<storage, read_write> c: array<f32>;
@group(1) @binding(0) var<uniform> p: Params;
@compute @workgroup_size(64)
fn gemm(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let e = linear_index(id, groups, 64u);
    if e >= p.m * p.n * p.z { return; }
    let z = e / (p.m * p.n); let m = (e / p.n) % p.m; let n = e % p.n;
    var s = 0.0;
    for (var k = 0u; k < p.k; k++) {
        let ia = select(m * p.lda + k, k * p.lda + m, p.form == 2u);
        let ib = select(k * p.ldb + n, n * p.ldb + k, p.form == 1u);
        s += a[z * p.sa + ia] * b[z * p.sb + ib];
    }
    var v = p.alpha * s;
    if p.has_bias != 0u { v += bias[z * p.sbias + n]; }
    let at = z * p.sc + m * p.ldc + n;
    if p.add != 0u { v += c[at]; }
    c[at] = v;
}
