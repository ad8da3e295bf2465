//! What each kernel computes, in f64 and in plain loops.
//!
//! Matrices are flat and row-major. A tensor's shape stands in brackets; n or N counts samples, k or K
//! directions.

use curvkit::net::{Layer, Loss};

use crate::reference::network::{self, loss_gradient, pointwise_slope, sample_loss};
use crate::reference::scalar::Curve;
use crate::{Real, f64s};

/// How the factors of a product are stored: `A [m,k]` or, transposed, `[k,m]`; `B [k,n]` or `[n,k]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// `A [m,k]`, `B [k,n]`
    Nn,
    /// `A [m,k]`, `B [n,k]`
    Nt,
    /// `A [k,m]`, `B [k,n]`
    Tn,
}

impl Layout {
    pub const ALL: [Layout; 3] = [Layout::Nn, Layout::Nt, Layout::Tn];
}

/// The sizes of a batched product; see [`gemm`].
#[derive(Clone, Copy, Debug)]
pub struct Gemm {
    pub layout: Layout,
    pub m: usize,
    pub n: usize,
    pub k: usize,
    pub alpha: f64,
    pub accumulate: bool,
    pub batches: usize,
    /// How far one batch's A, B, bias and Out lie behind the batch before; 0 where all share one.
    pub strides: [usize; 4],
}

/// `Out_b[i,j] = α Σ_k A_b[i,k] B_b[k,j] + bias_b[j]`, added to Out where `accumulate` is set.
///
/// `Out_b [m,n]`; `bias_b [n]` or none. What lies between the batches of Out is left as it is.
pub fn gemm<T: Real>(product: &Gemm, a: &[T], b: &[T], bias: Option<&[T]>, out: &mut [f64]) {
    let Gemm { layout, m, n, k, alpha, accumulate, batches, strides } = *product;
    for batch in 0..batches {
        let [a0, b0, bias0, out0] = strides.map(|stride| batch * stride);
        for i in 0..m {
            for j in 0..n {
                let mut dot = 0.0;
                for l in 0..k {
                    let a = if layout == Layout::Tn { a[a0 + l * m + i] } else { a[a0 + i * k + l] };
                    let b = if layout == Layout::Nt { b[b0 + j * k + l] } else { b[b0 + l * n + j] };
                    dot += a.into() * b.into();
                }
                let into = &mut out[out0 + i * n + j];
                let before = if accumulate { *into } else { 0.0 };
                *into = before + alpha * dot + bias.map_or(0.0, |bias| bias[bias0 + j].into());
            }
        }
    }
}

/// A tensor along K directions: `[x [E], x′ [K,E], x″ [K,E]]`.
pub type Jet<T> = [T; 3];

/// The jet of `y = σ(x)`: `y1 = σ′(x) x1`, `y2 = σ′(x) x2 + σ″(x) x1²`.
pub fn pointwise(sigma: &Layer, x: Jet<&[impl Real]>) -> Jet<Vec<f64>> {
    along_curves([x], |[x]| network::pointwise(sigma, x))
}

/// The jet of the adjoint `g = σ′(x) ȳ`: `g1 = σ′ȳ1 + σ″x1ȳ`, `g2 = σ′ȳ2 + 2σ″x1ȳ1 + (σ″x2 + σ‴x1²)ȳ`.
pub fn pointwise_adjoint<T: Real>(sigma: &Layer, x: Jet<&[T]>, y_adjoint: Jet<&[T]>) -> Jet<Vec<f64>> {
    along_curves([x, y_adjoint], |[x, y_adjoint]| pointwise_slope(sigma, x) * y_adjoint)
}

/// The jet of `f(x, …)`, element by element and direction by direction.
fn along_curves<T: Real, const M: usize>(
    x: [Jet<&[T]>; M],
    f: impl Fn([Curve<f64>; M]) -> Curve<f64>,
) -> Jet<Vec<f64>> {
    let [value, first, _] = x[0];
    let mut y = [vec![0.0; value.len()], vec![0.0; first.len()], vec![0.0; first.len()]];
    for ke in 0..first.len() {
        let e = ke % value.len();
        let curves = x.map(|[x, x1, x2]| Curve::new([x[e].into(), x1[ke].into(), x2[ke].into()]));
        [y[0][e], y[1][ke], y[2][ke]] = f(curves).derivatives();
    }
    y
}

/// The per-sample losses at outputs `z [N,L]`, along K directions.
pub struct LossJet {
    /// `ℓ_p [N]`
    pub loss: Vec<f64>,
    /// `ℓ′_p = ∇ℓ_p · z1_p [K,N]`
    pub slope: Vec<f64>,
    /// `w_p ∇ℓ_p [N,L]`, `w_p ∇²ℓ_p z1_p [K,N,L]`, `w_p (∇²ℓ_p z2_p + ∇³ℓ_p[z1_p, z1_p]) [K,N,L]`
    pub adjoint: Jet<Vec<f64>>,
}

/// The jets of the losses and of their adjoints, these weighted by `w [N]`. `targets [N,L]`.
pub fn loss_jet<T: Real>(loss: Loss, z: Jet<&[T]>, targets: &[f64], w: &[impl Real]) -> LossJet {
    let [z, z1, z2] = z.map(f64s);
    let (n, outputs) = (w.len(), z.len() / w.len());
    let mut jet = LossJet {
        loss: vec![0.0; n],
        slope: vec![0.0; z1.len() / outputs],
        adjoint: [vec![0.0; z.len()], vec![0.0; z1.len()], vec![0.0; z1.len()]],
    };
    for kp in 0..z1.len() / outputs {
        let p = kp % n;
        let y = &targets[p * outputs..(p + 1) * outputs];
        let f: Vec<Curve<f64>> = (0..outputs)
            .map(|l| Curve::new([z[p * outputs + l], z1[kp * outputs + l], z2[kp * outputs + l]]))
            .collect();
        [jet.loss[p], jet.slope[kp], _] = sample_loss(loss, &f, y).derivatives();
        for (l, adjoint) in loss_gradient(loss, &f, y).into_iter().enumerate() {
            let [a, a1, a2] = adjoint.derivatives().map(|a| w[p].into() * a);
            jet.adjoint[0][p * outputs + l] = a;
            jet.adjoint[1][kp * outputs + l] = a1;
            jet.adjoint[2][kp * outputs + l] = a2;
        }
    }
    jet
}

/// `out[r] = Σ_e x[r,e]`, `x [R,E]`
pub fn row_sums(x: &[impl Real], width: usize) -> Vec<f64> {
    x.chunks(width).map(|row| row.iter().map(|&x| x.into()).sum()).collect()
}

/// `out[k,e] = Σ_p x[k,p,e]`, `x [K,N,E]`
pub fn sample_sums(x: &[impl Real], samples: usize, width: usize) -> Vec<f64> {
    let mut out = vec![0.0; x.len() / samples];
    for (block, out) in x.chunks(samples * width).zip(out.chunks_mut(width)) {
        for row in block.chunks(width) {
            for (out, &x) in out.iter_mut().zip(row) {
                *out += x.into();
            }
        }
    }
    out
}

/// `out[p,e] = x[index[p],e]`, `x [·,E]`
pub fn gather_rows(x: &[impl Real], width: usize, index: &[u32]) -> Vec<f64> {
    index.iter().flat_map(|&i| f64s(&x[i as usize * width..(i as usize + 1) * width])).collect()
}

/// A step of SGD with PyTorch's momentum: `buf = μ buf + g + λ θ`, then `θ = θ − η buf`. All `[P]`.
pub fn sgd_step(theta: &mut [f64], buf: &mut [f64], g: &[impl Real], eta: f64, mu: f64, lambda: f64) {
    for ((theta, buf), &g) in theta.iter_mut().zip(buf).zip(g) {
        *buf = mu * *buf + g.into() + lambda * *theta;
        *theta -= eta * *buf;
    }
}

/// `out[p,i,j] = x[p,i] y[p,j]`, `x [N,I]`, `y [N,J]`
pub fn outer_products<T: Real>(x: &[T], y: &[T], samples: usize) -> Vec<f64> {
    let (x_rows, y_rows) = (x.chunks(x.len() / samples), y.chunks(y.len() / samples));
    let outer = |(x, y): (&[T], &[T])| {
        x.iter().flat_map(|&x| y.iter().map(move |&y| x.into() * y.into())).collect::<Vec<f64>>()
    };
    x_rows.zip(y_rows).flat_map(outer).collect()
}

/// `out[(i≤k),(j≤l)] = Σ_p A_p[i,k] B_p[j,l]` for symmetric `A_p [I,I]` and `B_p [J,J]`.
///
/// `a [N,I,I]`, `b [N,J,J]`, `out [I(I+1)/2, J(J+1)/2]`; pairs (i≤k) are numbered as [`upper_pairs`] has them.
pub fn kronecker_gram<T: Real>(a: &[T], i: usize, b: &[T], j: usize) -> Vec<f64> {
    let mut out = Vec::new();
    for (a_row, a_column) in upper_pairs(i) {
        for (b_row, b_column) in upper_pairs(j) {
            let samples = a.chunks(i * i).zip(b.chunks(j * j));
            let term = |(a, b): (&[T], &[T])| a[a_row * i + a_column].into() * b[b_row * j + b_column].into();
            out.push(samples.map(term).sum());
        }
    }
    out
}

/// The entries on and above the diagonal of a `[size, size]` matrix, row after row.
pub fn upper_pairs(size: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..size).flat_map(move |i| (i..size).map(move |k| (i, k)))
}

/// `out[k,j] = x_k · y_j`, `x [K,P]`, `y [J,P]`
pub fn dots<T: Real>(x: &[T], y: &[T], length: usize) -> Vec<f64> {
    let dot = |x: &[T], y: &[T]| x.iter().zip(y).map(|(&x, &y)| x.into() * y.into()).sum();
    x.chunks(length).flat_map(|x| y.chunks(length).map(move |y| dot(x, y))).collect()
}

/// `‖x_k‖ [K]`, `x [K,P]`
pub fn norms(x: &[impl Real], length: usize) -> Vec<f64> {
    x.chunks(length).map(|x| x.iter().map(|&x| x.into() * x.into()).sum::<f64>().sqrt()).collect()
}

/// `y_k += Σ_j c[j,k] x_j`, `x [J,P]`, `c [J,K]`, `y [K,P]`
pub fn axpy<T: Real>(c: &[T], x: &[T], y: &mut [f64], length: usize) {
    let directions = y.len() / length;
    for (j, x) in x.chunks(length).enumerate() {
        for (k, y) in y.chunks_mut(length).enumerate() {
            for (y, &x) in y.iter_mut().zip(x) {
                *y += c[j * directions + k].into() * x.into();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use nalgebra::DMatrix;

    use super::*;
    use crate::cases::{assert_close, random};

    #[test]
    fn gemm_is_the_matrix_product() {
        let (m, n, k, batches) = (3, 4, 5, 2);
        let a = random(1, batches * m * k);
        let b = random(2, k * n);
        let bias = random(3, batches * n);
        for layout in Layout::ALL {
            let strides = [m * k, 0, n, m * n + 1];
            let product = Gemm { layout, m, n, k, alpha: -1.5, accumulate: true, batches, strides };
            let mut out = vec![7.0; batches * (m * n + 1)];
            gemm(&product, &a, &b, Some(&bias), &mut out);
            for batch in 0..batches {
                let a = &f64s(&a)[batch * m * k..(batch + 1) * m * k];
                let a = match layout {
                    Layout::Tn => DMatrix::from_row_slice(k, m, a).transpose(),
                    _ => DMatrix::from_row_slice(m, k, a),
                };
                let b = match layout {
                    Layout::Nt => DMatrix::from_row_slice(n, k, &f64s(&b)).transpose(),
                    _ => DMatrix::from_row_slice(k, n, &f64s(&b)),
                };
                let ab = a * b;
                let expected: Vec<f64> = (0..m * n)
                    .map(|ij| 7.0 - 1.5 * ab[(ij / n, ij % n)] + f64::from(bias[batch * n + ij % n]))
                    .collect();
                let found = &out[batch * (m * n + 1)..][..m * n + 1];
                assert_close(&format!("{layout:?}"), &found[..m * n], &expected, 1e-14, 1.0);
                assert_eq!(found[m * n], 7.0, "the gap between batches is left alone");
            }
        }
    }

    #[test]
    fn pointwise_jets_follow_the_written_formulas() {
        let (e, k) = (5, 3);
        let x: Jet<Vec<f32>> = [random(1, e), random(2, k * e), random(3, k * e)];
        let y: Jet<Vec<f32>> = [random(4, e), random(5, k * e), random(6, k * e)];
        let all = |jet: Jet<Vec<f64>>| jet.concat();
        let tanh = |x: f64| {
            let (t, c) = (x.tanh(), 1.0 / x.cosh().powi(2));
            [t, c, -2.0 * t * c, (6.0 * t * t - 2.0) * c]
        };
        let gelu = |x: f64| {
            let (cdf, pdf) =
                (0.5 * (1.0 + libm::erf(x / 2f64.sqrt())), (-x * x / 2.0).exp() / 2.5066282746310002);
            [x * cdf, cdf + x * pdf, (2.0 - x * x) * pdf, (x * x - 4.0) * x * pdf]
        };
        let relu = |x: f64| [x.max(0.0), if x > 0.0 { 1.0 } else { 0.0 }, 0.0, 0.0];
        let leaky = |x: f64| [x.max(0.5 * x), if x > 0.0 { 1.0 } else { 0.5 }, 0.0, 0.0];
        let sigmas: [(Layer, fn(f64) -> [f64; 4]); 4] = [
            (Layer::Tanh, tanh),
            (Layer::Gelu, gelu),
            (Layer::Relu, relu),
            (Layer::LeakyRelu { negative_slope: 0.5 }, leaky),
        ];
        for (sigma, derivatives) in sigmas {
            let mut forward = [vec![0.0; e], vec![0.0; k * e], vec![0.0; k * e]];
            let mut adjoint = forward.clone();
            for ke in 0..k * e {
                let [x, x1, x2] = [x[0][ke % e], x[1][ke], x[2][ke]].map(f64::from);
                let [y, y1, y2] = [y[0][ke % e], y[1][ke], y[2][ke]].map(f64::from);
                let [s, s1, s2, s3] = derivatives(x);
                [forward[0][ke % e], forward[1][ke], forward[2][ke]] = [s, s1 * x1, s1 * x2 + s2 * x1 * x1];
                [adjoint[0][ke % e], adjoint[1][ke], adjoint[2][ke]] = [
                    s1 * y,
                    s1 * y1 + s2 * x1 * y,
                    s1 * y2 + 2.0 * s2 * x1 * y1 + (s2 * x2 + s3 * x1 * x1) * y,
                ];
            }
            let (x, y) = (x.each_ref().map(Vec::as_slice), y.each_ref().map(Vec::as_slice));
            assert_close(&format!("{sigma:?}"), &all(pointwise(&sigma, x)), &all(forward), 1e-14, 1.0);
            let found = all(pointwise_adjoint(&sigma, x, y));
            assert_close(&format!("{sigma:?} adjoint"), &found, &all(adjoint), 1e-14, 1.0);
        }
    }

    /// Cross-entropy's derivatives are the cumulants of `e_c` under the softmax q: with `m = E[z1]` and
    /// `s² = Var[z1]`, `∇²ℓ z1 = q (z1 − m)` and `∇³ℓ[z1, z1] = q ((z1 − m)² − s²)`.
    #[test]
    fn cross_entropy_jets_are_cumulants() {
        let (n, k, outputs) = (2, 2, 4);
        let z: Jet<Vec<f32>> =
            [random(1, n * outputs), random(2, k * n * outputs), random(3, k * n * outputs)];
        let w = [0.5f32, -2.0];
        let classes = [3, 1];
        let targets = crate::reference::one_hot(&classes, outputs);
        let jet = loss_jet(Loss::CrossEntropy, z.each_ref().map(Vec::as_slice), &targets, &w);
        let [z, z1, z2] = z.map(|z| f64s(&z));
        for kp in 0..k * n {
            let p = kp % n;
            let row = |x: &[f64], r: usize| x[r * outputs..(r + 1) * outputs].to_vec();
            let (z, z1, z2, y) = (row(&z, p), row(&z1, kp), row(&z2, kp), row(&targets, p));
            let total: f64 = z.iter().map(|z| z.exp()).sum();
            let q: Vec<f64> = z.iter().map(|z| z.exp() / total).collect();
            let mean = |x: &dyn Fn(usize) -> f64| (0..outputs).map(|l| q[l] * x(l)).sum::<f64>();
            let (m1, m2) = (mean(&|l| z1[l]), mean(&|l| z2[l]));
            let variance = mean(&|l| (z1[l] - m1).powi(2));
            let class = classes[p] as usize;
            let expected =
                |f: &dyn Fn(usize) -> f64| (0..outputs).map(|l| f64::from(w[p]) * f(l)).collect::<Vec<_>>();
            assert_close("ℓ", &jet.loss[p..=p], &[total.ln() - z[class]], 1e-14, 1.0);
            assert_close("ℓ′", &jet.slope[kp..=kp], &[m1 - z1[class]], 1e-14, 1.0);
            assert_close("z̄", &row(&jet.adjoint[0], p), &expected(&|l| q[l] - y[l]), 1e-14, 1.0);
            assert_close("z̄1", &row(&jet.adjoint[1], kp), &expected(&|l| q[l] * (z1[l] - m1)), 1e-14, 1.0);
            let second = expected(&|l| q[l] * (z2[l] - m2 + (z1[l] - m1).powi(2) - variance));
            assert_close("z̄2", &row(&jet.adjoint[2], kp), &second, 1e-14, 1.0);
        }
    }

    #[test]
    fn reductions_and_updates_on_small_numbers() {
        let x = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0];
        assert_eq!(row_sums(&x, 2), [3.0, 7.0, 11.0, 15.0]);
        assert_eq!(sample_sums(&x, 2, 2), [4.0, 6.0, 12.0, 14.0]);
        assert_eq!(gather_rows(&x, 2, &[3, 0, 3]), [7.0, 8.0, 1.0, 2.0, 7.0, 8.0]);
        assert_eq!(outer_products(&x[..4], &x[4..6], 2), [5.0, 10.0, 18.0, 24.0]);
        assert_eq!(dots(&x[..4], &x[4..6], 2), [17.0, 39.0]);
        assert_eq!(norms(&[3.0, 4.0, 0.0, -2.0], 2), [5.0, 2.0]);
        let mut y = [1.0, 1.0];
        axpy(&[2.0, 0.5], &x[..4], &mut y, 2);
        assert_eq!(y, [4.5, 7.0]);
        let (mut theta, mut buf) = ([1.0], [2.0]);
        sgd_step(&mut theta, &mut buf, &[3.0], 0.5, 0.25, 0.5);
        assert_eq!((theta, buf), ([-1.0], [4.0]));
    }

    /// Unpacked, the Gram of outer products is `Σ_p (A_p ⊗ B_p)`.
    #[test]
    fn kronecker_gram_holds_every_entry_of_the_kronecker_product() {
        let (n, i, j) = (3, 2, 3);
        let symmetric = |seed, size| {
            let x = random(seed, n * size);
            outer_products(&x, &x, n)
        };
        let (a, b) = (symmetric(1, i), symmetric(2, j));
        let mut sum = DMatrix::zeros(i * j, i * j);
        for (a, b) in a.chunks(i * i).zip(b.chunks(j * j)) {
            sum += DMatrix::from_row_slice(i, i, a).kronecker(&DMatrix::from_row_slice(j, j, b));
        }
        let mut out = kronecker_gram(&a, i, &b, j).into_iter();
        for (row, column) in upper_pairs(i) {
            for (r, c) in upper_pairs(j) {
                let found = out.next().expect("one entry for each two pairs");
                approx::assert_relative_eq!(found, sum[(row * j + r, column * j + c)], max_relative = 1e-14);
            }
        }
        assert_eq!(out.next(), None);
    }
}
