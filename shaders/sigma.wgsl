// [σ, σ′, σ″, σ‴] at v, of the function that SIGMA numbers; `p.number` is the slope of the leaky ReLU, the shift under the
// reciprocal square root.

override SIGMA: u32 = 0u;

// ½ erfc(|v|/√2), to 2e-7 of itself. erfcx(z) = t q(2t − 1), t = 1/(1 + z/2): q is a least-squares fit,
// reweighted towards the smallest relative error on [0, 12].
fn gaussian_tail(v: f32) -> f32 {
    let z = abs(v) * 0.70710678;
    let t = 1.0 / (1.0 + 0.5 * z);
    let u = 2.0 * t - 1.0;
    var q = 1.355445147055434e-05;
    q = q * u - 0.00024956942;
    q = q * u + 0.00036791405;
    q = q * u + 0.00150786981;
    q = q * u - 0.00321716166;
    q = q * u - 0.01074749231;
    q = q * u + 0.01821762137;
    q = q * u + 0.13973538578;
    q = q * u + 0.34358048439;
    q = q * u + 0.51079136133;
    return 0.5 * t * q * exponential(-z * z);
}

// [tanh, tanh′] from the decaying exponential u, so that nothing overflows and nothing cancels away, near 0 or
// where it saturates: tanh = (1 − u)/(1 + u), tanh′ = 4 u/(1 + u)²
fn tanh_of(v: f32) -> vec2<f32> {
    let a = abs(v);
    if a < 0.125 {
        let s = v * v;
        let t = v * (1.0 + s * (-0.333333333 + s * (0.133333333 + s * (-0.0539682540 + s * 0.0218694885))));
        return vec2(t, 1.0 - t * t);
    }
    let u = exponential(-2.0 * a);
    return vec2(sign(v) * (1.0 - u), 4.0 * u / (1.0 + u)) / (1.0 + u);
}

fn sigma(v: f32) -> vec4<f32> {
    switch SIGMA {
        case RELU: {
            return select(vec4(0.0), vec4(v, 1.0, 0.0, 0.0), v > 0.0);
        }
        case LEAKY_RELU: {
            return select(vec4(p.number * v, p.number, 0.0, 0.0), vec4(v, 1.0, 0.0, 0.0), v > 0.0);
        }
        case TANH: {
            let y = tanh_of(v);
            return vec4(y, -2.0 * y.x * y.y, y.y * (6.0 * y.x * y.x - 2.0));
        }
        case EXP: {
            return vec4(exponential(v));
        }
        case RECIPROCAL: {
            let r = 1.0 / v;
            return vec4(r, -r * r, 2.0 * r * r * r, -6.0 * r * r * r * r);
        }
        case RECIPROCAL_SQRT: {
            let r = 1.0 / (v + p.number);
            let s = sqrt(r);
            return vec4(s, -0.5 * s * r, 0.75 * s * r * r, -1.875 * s * r * r * r);
        }
        default: { // GELU: σ = v Φ, σ′ = Φ + v φ, σ″ = (2 − v²) φ, σ‴ = (v² − 4) v φ
            let tail = gaussian_tail(v);
            let cdf = select(1.0 - tail, tail, v < 0.0);
            let pdf = 0.39894228 * exponential(-0.5 * v * v);
            return vec4(v * cdf, cdf + v * pdf, (2.0 - v * v) * pdf, (v * v - 4.0) * v * pdf);
        }
    }
}
