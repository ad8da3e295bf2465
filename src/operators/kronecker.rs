//! Sums of Kronecker products over samples, `Σ_p A_p ⊗ b_p b_pᵀ` with A_p `[d_out, d_out]` symmetric and b_p
//! `[d_in]`: what every second-order moment of a fully connected layer is.
//!
//! Packed to their entries i ≤ k, the factors of a batch make one product of matrices for each A, which does a
//! quarter of the plain work; no D × D matrix of a single sample is made, D = d_out · d_in.

use faer::Mat;

use super::pass::LONGEST_BATCH;
use crate::gpu::{Gpu, Program, Recorder, View};
use crate::kernels::gemm::{Gemm, Layout, Matrix, Shape, gemm};
use crate::kernels::pack::{self, Rows, packed_len};
use crate::{Error, Result};

/// Words, for each sample of a batch, of what a sum over `lefts` factors A holds.
pub(super) fn words_held(lefts: usize, (d_out, d_in): (usize, usize)) -> usize {
    lefts * packed_len(d_out) + packed_len(d_in)
}

/// Floating-point operations that one sample adds to the product of a factor.
pub(super) fn flops((d_out, d_in): (usize, usize)) -> f64 {
    (2 * packed_len(d_out) * packed_len(d_in)) as f64
}

/// Sums that batches on the device are added to: in single precision over a batch, in double precision over batches.
pub(super) struct KroneckerSums {
    gpu: Gpu,
    shape: (usize, usize),
    pack: Program,
    products: Vec<Program>,
    /// `[(o ≤ o'), (i ≤ i')]`
    gram: View,
    sums: Vec<Vec<f64>>,
}

impl KroneckerSums {
    /// For batches of `n` samples whose b_p lie in `b` `[n, d_in]` and whose packed A_p in each of `lefts`,
    /// `[n, o ≤ o']`, when they are added.
    pub fn new(
        gpu: &Gpu,
        n: usize,
        shape: (usize, usize),
        b: &View,
        lefts: &[&View],
    ) -> Result<KroneckerSums> {
        let (rows_a, rows_b) = (packed_len(shape.0), packed_len(shape.1));
        let rights = gpu.buffer(n * rows_b)?.slice(0, n * rows_b); // b bᵀ: [n, i ≤ i']
        let gram = gpu.buffer(rows_a * rows_b)?.slice(0, rows_a * rows_b);
        let mut rec = Recorder::new(gpu);
        pack::square(&mut rec, (n, shape.1), b, Rows { view: &rights, stride: rows_b })?;
        let pack = rec.finish()?;
        let product = |left: &&View| {
            let mut rec = Recorder::new(gpu);
            let shape = Shape { batch: 1, m: rows_a, n: rows_b, k: n };
            let product = Gemm { layout: Layout::TN, shape, alpha: 1.0, add: false };
            let left = Matrix { view: left, row: rows_a, batch: 0, period: 0 };
            let right = Matrix { view: &rights, row: rows_b, batch: 0, period: 0 };
            let to = Matrix { view: &gram, row: rows_b, batch: 0, period: 0 };
            gemm(&mut rec, product, left, right, None, to)?;
            rec.finish()
        };
        let products = lefts.iter().map(product).collect::<Result<_>>()?;
        let sums = vec![vec![0.0; rows_a * rows_b]; lefts.len()];
        Ok(KroneckerSums { gpu: gpu.clone(), shape, pack, products, gram, sums })
    }

    /// Adds the batch that lies in the factors' buffers.
    pub fn add(&mut self) -> Result<()> {
        self.pack.run()?;
        for (product, sum) in self.products.iter().zip(&mut self.sums) {
            product.run()?;
            for (total, part) in sum.iter_mut().zip(self.gpu.read::<f32>(&self.gram)?) {
                *total += part as f64;
            }
        }
        Ok(())
    }

    /// The means over `samples`, `[(o, i), (o', i')]`.
    pub fn means(self, samples: usize) -> Vec<Mat<f64>> {
        self.sums.iter().map(|sums| unpack(sums, self.shape, 1.0 / samples as f64)).collect()
    }
}

/// `(1/N) Σ_p A_p ⊗ b_p b_pᵀ` for each family of factors A in `lefts`, `[D, D]` with (o, i) at o · d_in + i.
///
/// `b`: `[N, d_in]`. `lefts`: `[N, o ≤ o']` each, the upper triangle row after row.
///
/// # Errors
/// [`Error::Shape`] where the lengths do not agree, and the device's errors.
pub fn kronecker_means(
    gpu: &Gpu,
    shape: (usize, usize),
    b: &[f32],
    lefts: &[&[f32]],
) -> Result<Vec<Mat<f64>>> {
    let (d_in, rows) = (shape.1, packed_len(shape.0));
    let samples = b.len() / d_in.max(1);
    if samples == 0 || b.len() != samples * d_in {
        return Err(Error::shape("factors b", [b.len()], [samples.max(1) * d_in]));
    }
    if let Some(left) = lefts.iter().find(|left| left.len() != samples * rows) {
        return Err(Error::shape("packed factors A", [left.len()], [samples * rows]));
    }
    let longest = rows.max(packed_len(d_in));
    let most = (gpu.max_binding_len() / longest)
        .min(gpu.memory_budget() as usize / 8 / words_held(lefts.len(), shape))
        .min((gpu.dispatch_flops() / flops(shape)) as usize)
        .clamp(1, LONGEST_BATCH);
    let n = samples.div_ceil(samples.div_ceil(most));
    let zeros = |words: usize| gpu.zeros(words).map(|buffer| buffer.slice(0, words));
    let on_device = zeros(n * d_in)?;
    let left_on_device = lefts.iter().map(|_| zeros(n * rows)).collect::<Result<Vec<View>>>()?;
    let views: Vec<&View> = left_on_device.iter().collect();
    let mut sums = KroneckerSums::new(gpu, n, shape, &on_device, &views)?;
    // what the last batch has too few of is zero
    let place = |view: &View, values: &[f32], first: usize, width: usize| {
        let mut rows = values[first * width..values.len().min((first + n) * width)].to_vec();
        rows.resize(n * width, 0.0);
        gpu.write(view, &rows)
    };
    for first in (0..samples).step_by(n) {
        place(&on_device, b, first, d_in)?;
        for (view, left) in views.iter().zip(lefts) {
            place(view, left, first, rows)?;
        }
        sums.add()?;
    }
    Ok(sums.means(samples))
}

/// The full matrix `[(o, i), (o', i')]` of packed sums `[(o ≤ o'), (i ≤ i')]`, times `scale`.
fn unpack(sums: &[f64], (d_out, d_in): (usize, usize), scale: f64) -> Mat<f64> {
    let at = |i: usize, k: usize, d: usize| {
        let (i, k) = (i.min(k), i.max(k));
        i * d - (i * (i + 1)) / 2 + k
    };
    let rows_b = packed_len(d_in);
    Mat::from_fn(d_out * d_in, d_out * d_in, |row, column| {
        let ((o, i), (p, j)) = ((row / d_in, row % d_in), (column / d_in, column % d_in));
        sums[at(o, p, d_out) * rows_b + at(i, j, d_in)] * scale
    })
}
