//! What sequences of tokens need beyond matrix products. `tokens` of a sample are `[2, T]`: ids, then the mask.

/// Where the mask of one sample `[2, T]` keeps a token: `[T]`.
pub fn kept(sample: &[f32]) -> Vec<bool> {
    sample[sample.len() / 2..].iter().map(|&keep| keep == 1.0).collect()
}

/// The terms `w[v, e]` that the elements `y[t, e]` of one sample's embedding are: `term` is given the places of y
/// and w. The adjoint sums `y` at w.
///
/// `y [T, width]`, `w [ids, width]`
pub fn embed_terms(sample: &[f32], width: usize, mut term: impl FnMut(usize, usize)) {
    for (t, &id) in sample[..sample.len() / 2].iter().enumerate() {
        (0..width).for_each(|e| term(t * width + e, id as usize * width + e));
    }
}

/// The terms `x[t, part, h, d]` that the elements `y[h, t, d]` of one sample's heads are: `term` is given the
/// places of y and x.
///
/// `y [heads, T, width]`, `x [T, parts, heads, width]`
pub fn heads_terms(
    tokens: usize,
    [parts, part]: [usize; 2],
    [heads, width]: [usize; 2],
    mut term: impl FnMut(usize, usize),
) {
    for h in 0..heads {
        for t in 0..tokens {
            let (y, x) = ((h * tokens + t) * width, ((t * parts + part) * heads + h) * width);
            (0..width).for_each(|d| term(y + d, x + d));
        }
    }
}

/// `y[t] = keep[t] / Σ keep`
pub fn token_weights(keep: &[bool]) -> Vec<f64> {
    let count = keep.iter().filter(|&&keep| keep).count() as f64;
    keep.iter().map(|&keep| if keep { 1.0 / count } else { 0.0 }).collect()
}

/// `y[s] = −max_{s kept} x[s]` where `keep[s]`, else −1e30 in f32: of one row of scores, `x`, `y [T]`.
pub fn row_shift(x: &[f32], keep: &[bool]) -> Vec<f64> {
    let scores = x.iter().zip(keep).filter(|(_, keep)| **keep).map(|(&x, _)| f64::from(x));
    let largest = scores.fold(f64::NEG_INFINITY, f64::max);
    keep.iter().map(|&keep| if keep { -largest } else { f64::from(-1e30f32) }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences_on_small_numbers() {
        let sample = [3.0, 0.0, 3.0, 1.0, 1.0, 0.0];
        assert_eq!(kept(&sample), [true, true, false]);
        let mut terms = Vec::new();
        embed_terms(&sample, 2, |y, w| terms.push((y, w)));
        assert_eq!(terms, [(0, 6), (1, 7), (2, 0), (3, 1), (4, 6), (5, 7)]);

        // x[t, part, h, d] = 1000 t + 100 part + 10 h + d
        let (tokens, parts, heads, width) = (2, 3, 2, 2);
        let digits = |i: usize| {
            [i / (parts * heads * width), i / (heads * width) % parts, i / width % heads, i % width]
        };
        let mut y = vec![0; heads * tokens * width];
        heads_terms(tokens, [parts, 1], [heads, width], |to, x| {
            y[to] = digits(x).into_iter().fold(0, |number, digit| 10 * number + digit);
        });
        assert_eq!(y, [100, 101, 1100, 1101, 110, 111, 1110, 1111]);

        assert_eq!(token_weights(&[true, false, true, true, true]), [0.25, 0.0, 0.25, 0.25, 0.25]);
        let padded = f64::from(-1e30f32);
        assert_eq!(row_shift(&[1.0, 9.0, -2.0], &[true, false, true]), [-1.0, padded, -1.0]);
        assert_eq!(row_shift(&[1.0, 9.0, -2.0], &[false, false, true]), [padded, padded, 2.0]);
    }
}
