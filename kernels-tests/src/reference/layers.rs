//! What layers compute of one sample: the formulas, in any [`Scalar`].
//!
//! Images are `[channels, height, width]`, sequences `[tokens, features]`; all flat and row-major.

use std::ops::Range;

use super::scalar::{Scalar, sum};

/// A square window that slides over an image with zeros around it.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    pub size: usize,
    pub stride: usize,
    pub padding: usize,
}

impl Window {
    /// How many windows an axis of `len` has.
    ///
    /// # Panics
    /// If there is none.
    pub fn count(&self, len: usize) -> usize {
        let padded = len + 2 * self.padding;
        assert!(padded >= self.size, "a window of {} over {padded}", self.size);
        (padded - self.size) / self.stride + 1
    }

    /// Of window o along an axis of `len`: the places in the window and in the axis where they meet.
    fn meet(&self, o: usize, len: usize) -> impl Iterator<Item = (usize, usize)> + Clone {
        let Window { stride, padding, .. } = *self;
        (0..self.size).filter_map(move |k| {
            let i = (o * stride + k).checked_sub(padding)?;
            (i < len).then_some((k, i))
        })
    }

    /// The windows along an axis of `len`, without padding.
    pub fn ranges(&self, len: usize) -> Vec<Range<usize>> {
        (0..self.count(len)).map(|o| o * self.stride..o * self.stride + self.size).collect()
    }
}

/// The windows of adaptive pooling: from `⌊o·len/count⌋` to `⌈(o + 1)·len/count⌉`.
pub fn adaptive_ranges(count: usize, len: usize) -> Vec<Range<usize>> {
    (0..count).map(|o| o * len / count..((o + 1) * len).div_ceil(count)).collect()
}

/// `y[o, r, s] = b[o] + Σ_{c, k, l} w[o, c, k, l] x[c, r·stride + k − padding, s·stride + l − padding]`
///
/// `w [out, channels, k, k]`, `b [out]` or empty.
pub fn conv2d<S: Scalar>(
    x: &[S],
    [channels, height, width]: [usize; 3],
    w: &[S],
    b: &[S],
    window: Window,
) -> Vec<S> {
    let k = window.size;
    let mut y = Vec::new();
    for (o, w) in w.chunks(channels * k * k).enumerate() {
        for r in 0..window.count(height) {
            for s in 0..window.count(width) {
                let rows = window.meet(r, height);
                let places = rows.flat_map(|row| window.meet(s, width).map(move |column| (row, column)));
                let terms = (0..channels).flat_map(|c| places.clone().map(move |place| (c, place)));
                let wx = S::dot(terms.map(|(c, ((k_row, row), (k_column, column)))| {
                    (w[(c * k + k_row) * k + k_column], x[(c * height + row) * width + column])
                }));
                y.push(if b.is_empty() { wx } else { wx + b[o] });
            }
        }
    }
    y
}

/// `y[c, r, s] = pool(x[c, rows[r], columns[s]])`, the window's values in row-major order.
pub fn pool2d<S: Scalar>(
    x: &[S],
    [channels, height, width]: [usize; 3],
    rows: &[Range<usize>],
    columns: &[Range<usize>],
    pool: impl Fn(&[S]) -> S,
) -> Vec<S> {
    let mut y = Vec::new();
    for c in 0..channels {
        for rows in rows {
            for columns in columns {
                let line = |row| &x[(c * height + row) * width..][columns.clone()];
                let window: Vec<S> = rows.clone().flat_map(line).copied().collect();
                y.push(pool(&window));
            }
        }
    }
    y
}

/// The first of the largest.
pub fn first_largest<S: Scalar>(x: &[S]) -> S {
    x.iter().copied().reduce(|largest, x| if x.exceeds(largest) { x } else { largest }).expect("a value")
}

/// `(1/n) Σ x`
pub fn mean<S: Scalar>(x: &[S]) -> S {
    S::constant(1.0 / x.len() as f64) * sum(x.iter().copied())
}

/// `y[t, o] = b[o] + Σ_i w[o, i] x[t, i]`
///
/// `x [T, width]`, `w [out, width]`, `b [out]` or empty.
pub fn linear<S: Scalar>(x: &[S], width: usize, w: &[S], b: &[S]) -> Vec<S> {
    let mut y = Vec::new();
    for x in x.chunks(width) {
        for (o, w) in w.chunks(width).enumerate() {
            let wx = S::dot(w.iter().copied().zip(x.iter().copied()));
            y.push(if b.is_empty() { wx } else { wx + b[o] });
        }
    }
    y
}

/// `(x − mean) / √(variance + 1e-5) · w + b` of each row, with the biased variance.
///
/// `x [T, d]`, `w`, `b [d]`.
pub fn layer_norm<S: Scalar>(x: &[S], w: &[S], b: &[S]) -> Vec<S> {
    let mut y = Vec::new();
    for x in x.chunks(w.len()) {
        let mean_x = mean(x);
        let deviations: Vec<S> = x.iter().map(|&x| x - mean_x).collect();
        let squares: Vec<S> = deviations.iter().map(|&d| d * d).collect();
        let scale = (mean(&squares) + S::constant(1e-5)).sqrt();
        y.extend(deviations.iter().zip(w.iter().zip(b)).map(|(&d, (&w, &b))| d / scale * w + b));
    }
    y
}

/// `m = max x` as a constant, and `exp(x − m)`, none of which overflows.
pub fn shifted_exps<S: Scalar>(x: &[S]) -> (S, Vec<S>) {
    let largest = S::constant(x.iter().map(|x| x.real()).fold(f64::NEG_INFINITY, f64::max));
    (largest, x.iter().map(|&x| (x - largest).exp()).collect())
}

/// `exp x / Σ exp x`
pub fn softmax<S: Scalar>(x: &[S]) -> Vec<S> {
    let (_, exps) = shifted_exps(x);
    let total = sum(exps.iter().copied());
    exps.into_iter().map(|e| e / total).collect()
}

/// `softmax(q kᵀ / √(E/heads)) v` for each head's share of the E features, over the tokens s with `keep[s]`.
///
/// `qkv [T, 3 E]`: the queries, keys and values of a token side by side. Returns `[T, E]`; tokens that are not
/// kept get their rows too. At least one is to be kept.
pub fn attention<S: Scalar>(qkv: &[S], keep: &[bool], heads: usize) -> Vec<S> {
    let tokens = keep.len();
    let features = qkv.len() / tokens / 3;
    let width = features / heads;
    let part = |which: usize, token: usize, head: usize| {
        &qkv[(token * 3 + which) * features + head * width..][..width] // [width]
    };
    let kept: Vec<usize> = (0..tokens).filter(|&s| keep[s]).collect();
    let scale = S::constant(1.0 / (width as f64).sqrt());
    let mut y = Vec::new();
    for t in 0..tokens {
        for head in 0..heads {
            let score = |&s: &usize| {
                let pairs = part(0, t, head).iter().zip(part(1, s, head));
                scale * S::dot(pairs.map(|(&q, &k)| (q, k)))
            };
            let weights = softmax(&kept.iter().map(score).collect::<Vec<_>>());
            y.extend((0..width).map(|i| {
                S::dot(weights.iter().zip(&kept).map(|(&weight, &s)| (weight, part(2, s, head)[i])))
            }));
        }
    }
    y
}

/// The mean over the tokens that are kept, at least one: `x [T, d]` to `[d]`.
pub fn mean_pool<S: Scalar>(x: &[S], keep: &[bool]) -> Vec<S> {
    let rows = x.chunks(x.len() / keep.len()).zip(keep).filter(|(_, keep)| **keep).map(|(row, _)| row);
    let rows: Vec<&[S]> = rows.collect();
    (0..rows[0].len()).map(|i| mean(&rows.iter().map(|row| row[i]).collect::<Vec<_>>())).collect()
}

/// `sin(t / 10000^(2i/d))` at `[t, 2i]`, the cosine at `[t, 2i + 1]`: `[T, d]`.
pub fn sinusoids(tokens: usize, features: usize) -> Vec<f64> {
    let at = |t: usize, j: usize| {
        let angle = t as f64 / 10_000f64.powf((j / 2 * 2) as f64 / features as f64);
        if j.is_multiple_of(2) { angle.sin() } else { angle.cos() }
    };
    (0..tokens).flat_map(|t| (0..features).map(move |j| at(t, j))).collect()
}
