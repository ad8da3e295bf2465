//! What each kernel computes, in f64 and in plain loops.
//!
//! Matrices are flat and row-major. A tensor's shape stands in brackets; n or N counts samples, k or K
//! directions.

pub mod pool;
pub mod sequence;

use curvkit::net::{Layer, Loss};

use crate::reference::layers::Window;
use crate::reference::network::{self, loss_gradient, pointwise_slope, sample_loss};
use crate::reference::scalar::{Curve, Scalar};
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
    pub a: Strides,
    pub b: Strides,
    pub out: Strides,
    /// From one batch's bias to the next; 0 where all share one.
    pub bias_batch: usize,
}

/// Elements from one row of a matrix to the next, and from one matrix of the batch to the next (0 where all
/// batches share one).
#[derive(Clone, Copy, Debug)]
pub struct Strides {
    pub row: usize,
    pub batch: usize,
}

/// `Out_b[i,j] = α Σ_k A_b[i,k] B_b[k,j] + bias_b[j]`, added to Out where `accumulate` is set.
///
/// `Out_b [m,n]`; `bias_b [n]` or none. What lies between the rows and the batches of Out is left as it is.
pub fn gemm<T: Real>(product: &Gemm, a: &[T], b: &[T], bias: Option<&[T]>, out: &mut [f64]) {
    let Gemm { layout, m, n, k, alpha, accumulate, batches, .. } = *product;
    let at = |strides: Strides, batch, row, column| batch * strides.batch + row * strides.row + column;
    for batch in 0..batches {
        for i in 0..m {
            for j in 0..n {
                let mut dot = 0.0;
                for l in 0..k {
                    let (a_row, a_column) = if layout == Layout::Tn { (l, i) } else { (i, l) };
                    let (b_row, b_column) = if layout == Layout::Nt { (j, l) } else { (l, j) };
                    let a = a[at(product.a, batch, a_row, a_column)];
                    let b = b[at(product.b, batch, b_row, b_column)];
                    dot += a.into() * b.into();
                }
                let bias = bias.map_or(0.0, |bias| bias[batch * product.bias_batch + j].into());
                let into = &mut out[at(product.out, batch, i, j)];
                let before = if accumulate { *into } else { 0.0 };
                *into = before + alpha * dot + bias;
            }
        }
    }
}

/// The terms `y[o,q] w[o,c,r,s] x[c, q·stride − padding + (r,s)]` of one sample's convolution: `term` is given
/// the places of y, w and x, once for each term inside of the image.
///
/// `y [O,·,·]`, `w [O,C,size,size]`, `x [C,height,width]`. The value is the sum of the terms' slopes with
/// respect to y, the adjoints those with respect to x and w.
pub fn conv_terms(
    [channels, outs]: [usize; 2],
    [height, width]: [usize; 2],
    window: Window,
    mut term: impl FnMut(usize, usize, usize),
) {
    let Window { size, stride, padding } = window;
    let (rows, columns) = (window.count(height), window.count(width));
    let inside = |q: usize, r: usize, len: usize| (q * stride + r).checked_sub(padding).filter(|&i| i < len);
    for o in 0..outs {
        for (q_row, q_column) in (0..rows * columns).map(|q| (q / columns, q % columns)) {
            for (c, rs) in (0..channels * size * size).map(|j| (j / (size * size), j % (size * size))) {
                let row = inside(q_row, rs / size, height);
                let column = inside(q_column, rs % size, width);
                if let (Some(row), Some(column)) = (row, column) {
                    let y = (o * rows + q_row) * columns + q_column;
                    term(y, (o * channels + c) * size * size + rs, (c * height + row) * width + column);
                }
            }
        }
    }
}

/// A tensor along K directions: `[x [E], x′ [K,E], x″ [K,E]]`. Orders that an argument does not carry are
/// empty, and count as zero.
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
    let at_rest = |e: usize| f(x.map(|[x, ..]| Curve::constant(x[e].into()))).real();
    let moving = |ke: usize| {
        let e = ke % value.len();
        f(x.map(|[x, x1, x2]| Curve::new([x[e].into(), or_zero(x1, ke), or_zero(x2, ke)]))).derivatives()
    };
    [
        (0..value.len()).map(at_rest).collect(),
        (0..first.len()).map(|ke| moving(ke)[1]).collect(),
        (0..first.len()).map(|ke| moving(ke)[2]).collect(),
    ]
}

/// `x[i]`, or 0 of an order that is not carried.
fn or_zero(x: &[impl Real], i: usize) -> f64 {
    if x.is_empty() { 0.0 } else { x[i].into() }
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
    let (n, outputs) = (w.len(), targets.len() / w.len());
    let mut jet = LossJet { loss: Vec::new(), slope: Vec::new(), adjoint: [const { Vec::new() }; 3] };
    for (p, (f, y)) in z.chunks(outputs).zip(targets.chunks(outputs)).enumerate() {
        jet.loss.push(sample_loss(loss, f, y));
        jet.adjoint[0].extend(loss_gradient(loss, f, y).into_iter().map(|g| w[p].into() * g));
    }
    for kp in 0..z1.len() / outputs {
        let p = kp % n;
        let y = &targets[p * outputs..(p + 1) * outputs];
        let along = |l| {
            let kpl = kp * outputs + l;
            Curve::new([z[p * outputs + l], z1[kpl], or_zero(&z2, kpl)])
        };
        let f: Vec<Curve<f64>> = (0..outputs).map(along).collect();
        jet.slope.push(sample_loss(loss, &f, y).derivatives()[1]);
        for g in loss_gradient(loss, &f, y) {
            let [_, g1, g2] = g.derivatives();
            jet.adjoint[1].push(w[p].into() * g1);
            jet.adjoint[2].push(w[p].into() * g2);
        }
    }
    jet
}

/// `out[r] = Σ_e x[r,e]`, `x [R,E]`
pub fn row_sums(x: &[impl Real], width: usize) -> Vec<f64> {
    x.chunks(width).map(|row| row.iter().map(|&x| x.into()).sum()).collect()
}

/// `out[k,e] = Σ_p x[k,p,e]`, `x [K,N,E]`
pub fn sample_sums(x: &[impl Real], [directions, samples, width]: [usize; 3]) -> Vec<f64> {
    let mut out = vec![0.0; directions * width];
    for (kp, row) in x.chunks(width).enumerate() {
        for (e, &x) in row.iter().enumerate() {
            out[kp / samples * width + e] += x.into();
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
pub fn outer_products<T: Real>(x: &[T], y: &[T], [i, j]: [usize; 2]) -> Vec<f64> {
    let mut out = Vec::new();
    for (x, y) in x.chunks(i).zip(y.chunks(j)) {
        out.extend((0..i * j).map(|ij| x[ij / j].into() * y[ij % j].into()));
    }
    out
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

/// `out[p,(i≤k)] = s_p ½ (A_p[i,k] + A_p[k,i])`, `a [N,I,I]`, `s [N]`; pairs are numbered as [`upper_pairs`]
/// has them.
pub fn packed_matrices(a: &[impl Real], size: usize, s: &[f64]) -> Vec<f64> {
    let mut out = Vec::new();
    for (a, s) in a.chunks(size * size).zip(s) {
        let entry = |i: usize, k: usize| a[i * size + k].into();
        out.extend(upper_pairs(size).map(|(i, k)| s * 0.5 * (entry(i, k) + entry(k, i))));
    }
    out
}

/// `out[p,(i≤k)] = x_p[i] x_p[k]`, `x [N,I]`
pub fn packed_squares(x: &[impl Real], size: usize) -> Vec<f64> {
    let square = |x: &[_]| packed_matrices(&outer_products(x, x, [size, size]), size, &[1.0]);
    f64s(x).chunks(size).flat_map(square).collect()
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

/// `y[i] += Σ_j c_j x_j` over the j with `(first + j) mod I = i`, `x [J,P]`, `y [I,P]`
pub fn combine_each<T: Real>(c: &[T], x: &[T], first: usize, y: &mut [f64], length: usize) {
    let period = y.len() / length;
    for (j, (&c, x)) in c.iter().zip(x.chunks(length)).enumerate() {
        axpy(&[c], x, &mut y[(first + j) % period * length..][..length], length);
    }
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

/// Eigenvalues `[m]` in descending order and eigenvectors, a row each, `[m,i]`, of the symmetric part of
/// `a [d,d]`.
pub fn eigenpairs(a: &[impl Real], d: usize) -> (Vec<f64>, Vec<f64>) {
    let a = nalgebra::DMatrix::from_row_slice(d, d, &f64s(a));
    let eigen = (0.5 * (&a + a.transpose())).symmetric_eigen();
    let mut order: Vec<usize> = (0..d).collect();
    order.sort_by(|&i, &j| eigen.eigenvalues[j].total_cmp(&eigen.eigenvalues[i]));
    let vectors =
        order.iter().flat_map(|&m| eigen.eigenvectors.column(m).iter().copied().collect::<Vec<_>>());
    (order.iter().map(|&m| eigen.eigenvalues[m]).collect(), vectors.collect())
}

#[cfg(test)]
mod tests {
    use nalgebra::DMatrix;

    use super::*;
    use crate::cases::{assert_close, random};

    #[test]
    fn gemm_is_the_matrix_product() {
        let (m, n, k, batches) = (3, 4, 5, 2);
        let (a, b, bias) = (random(1, batches * m * k), random(2, k * n), random(3, batches * n));
        let width = n + 1; // a gap after each row of Out
        for layout in Layout::ALL {
            let product = Gemm {
                layout,
                m,
                n,
                k,
                alpha: -1.5,
                accumulate: true,
                batches,
                a: Strides { row: if layout == Layout::Tn { m } else { k }, batch: m * k },
                b: Strides { row: if layout == Layout::Nt { k } else { n }, batch: 0 },
                out: Strides { row: width, batch: m * width },
                bias_batch: n,
            };
            let mut out = vec![7.0; batches * m * width];
            gemm(&product, &a, &b, Some(&bias), &mut out);
            let b = match layout {
                Layout::Nt => DMatrix::from_row_slice(n, k, &f64s(&b)).transpose(),
                _ => DMatrix::from_row_slice(k, n, &f64s(&b)),
            };
            for batch in 0..batches {
                let a = &f64s(&a)[batch * m * k..(batch + 1) * m * k];
                let a = match layout {
                    Layout::Tn => DMatrix::from_row_slice(k, m, a).transpose(),
                    _ => DMatrix::from_row_slice(m, k, a),
                };
                let ab = a * &b;
                let expected = DMatrix::from_fn(width, m, |j, i| match j {
                    j if j < n => 7.0 - 1.5 * ab[(i, j)] + f64::from(bias[batch * n + j]),
                    _ => 7.0,
                });
                let found = &out[batch * m * width..(batch + 1) * m * width];
                assert_close(&format!("{layout:?}"), found, expected.as_slice(), 1e-14, 1.0);
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
        type Derivatives = fn(f64) -> [f64; 4];
        let sigmas: [(Layer, Derivatives); 4] = [
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
            assert_close(
                &format!("{sigma:?} alone"),
                &all(pointwise(&sigma, [x[0], &[], &[]])),
                &forward[0],
                1e-14,
                1.0,
            );
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
        assert_eq!(sample_sums(&x, [2, 2, 2]), [4.0, 6.0, 12.0, 14.0]);
        assert_eq!(gather_rows(&x, 2, &[3, 0, 3]), [7.0, 8.0, 1.0, 2.0, 7.0, 8.0]);
        assert_eq!(outer_products(&x[..4], &x[4..6], [2, 1]), [5.0, 10.0, 18.0, 24.0]);
        assert_eq!(packed_matrices(&x[..4], 2, &[2.0]), [2.0, 5.0, 8.0]);
        assert_eq!(packed_squares(&x[..4], 2), [1.0, 2.0, 4.0, 9.0, 12.0, 16.0]);
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
            outer_products(&x, &x, [size, size])
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
