// Functions whose built-in forms are only as accurate as the adapter likes: WGSL allows exp an error of 3 + 2|x| ulp,
// and log one of 2⁻²¹ next to 1. These are made of sums, products and divisions.

const LN2_HIGH: f32 = 0.693359375; // 9 bits: its products with whole numbers below 2¹⁵ are exact
const LN2_LOW: f32 = -2.12194440e-4;

// e^x, to 3e-7 of itself: 2ⁿ eʳ with r = x − n ln 2, and Taylor's polynomial of degree 7 on |r| ≤ ½ ln 2. It is 0 below
// −87.3, where the result would be subnormal, ∞ above 88.7, and not a number where x is none.
fn exponential(x: f32) -> f32 {
    let n = round(clamp(x, -104.0, 104.0) * 1.44269504);
    let r = (x - n * LN2_HIGH) - n * LN2_LOW;
    var v = 1.0 + r * 0.142857143;
    v = 1.0 + r * 0.166666667 * v;
    v = 1.0 + r * 0.2 * v;
    v = 1.0 + r * 0.25 * v;
    v = 1.0 + r * 0.333333333 * v;
    v = 1.0 + r * 0.5 * v;
    v = 1.0 + r * v;
    // in two factors, both of them finite
    let half = i32(n) / 2;
    let power = bitcast<vec2<f32>>(vec2<u32>(vec2(half, i32(n) - half) + 127) << vec2(23u));
    return select((v * power.x) * power.y, 0.0, x < -87.3);
}

// log(1 + x) for x ≥ 0, to 3e-7 of itself: with 1 + x = 2ᵉ m and √½ ≤ m < √2, it is e ln 2 + 2 artanh(s) with
// s = (m − 1)/(m + 1). Where e is 0, x itself stands for m − 1, so that a small x is not rounded away.
fn log1p(x: f32) -> f32 {
    let y = 1.0 + x;
    let bits = bitcast<u32>(y);
    let e = i32(bits >> 23u) - 127 + select(0, 1, (bits & 0x007fffffu) >= 0x003504f3u); // a mantissa of √2 or more
    let f = select(y * bitcast<f32>(u32(127 - e) << 23u) - 1.0, x, e == 0);
    let s = f / (2.0 + f);
    let q = s * s;
    let tail = q * (0.333333333 + q * (0.2 + q * (0.142857143 + q * (0.111111111 + q * 0.0909090909))));
    let rest = 2.0 * s * (1.0 + tail);
    return select(f32(e) * LN2_HIGH + (f32(e) * LN2_LOW + rest), x, x >= 1e38);
}
