//! What a fully connected layer's curvature is made of, sample by sample.

use faer::{Mat, MatRef, Side};

use super::layer::{LayerCurvature, Needs};
use crate::gpu::Recorder;
use crate::kernels::jacobi::{self, Eigenpairs};
use crate::{Error, Result};

/// Samples that are projected at a time.
const PROJECTED_AT_ONCE: usize = 32;

/// The factors of a batch's per-sample Hessians and gradients with respect to `W` of `z = W a`:
/// `h_p = M_p ⊗ a_p a_pᵀ` and `g_p = δ_p ⊗ a_p`, with W[o, i] at o · d_in + i.
#[derive(Clone, Debug, PartialEq)]
pub struct SampleFactors {
    /// Where the batch starts in the data set.
    pub first: usize,
    /// n, the samples of the batch.
    pub count: usize,
    /// The layer's outputs.
    pub d_out: usize,
    /// The layer's inputs.
    pub d_in: usize,
    /// a_p: `[n, d_in]`
    pub activations: Vec<f32>,
    /// `δ_p = ∇_z ℓ_p`: `[n, d_out]`
    pub deltas: Vec<f32>,
    /// `M_p = ∇²_z ℓ_p`: `[n, d_out, d_out]`
    pub curvatures: Vec<f32>,
}

/// The spectra of a batch's per-sample Hessians with respect to `W` of `z = W a` (superlinear, eq. 23):
///
/// ```text
/// h_p = Σ_m κ_m w_m w_mᵀ      κ_m = ‖a_p‖² μ_m      w_m = u_m ⊗ a_p / ‖a_p‖      M_p = Σ_m μ_m u_m u_mᵀ
/// ```
///
/// for the d_out eigenpairs that M_p has; the other D − d_out eigenvalues of h_p are 0. Hence (eqs. 16, 17, 65)
/// `H_ii = E_p Σ_m κ_m (w_m · v_i)²`, `E[h²]_ii = E_p Σ_m κ_m² (w_m · v_i)²`, `h_p v = Σ_m κ_m (w_m · v) w_m`,
/// whose [`projections`](SampleSpectra::projections) `w_m · v` take no vector of D entries a sample.
#[derive(Clone, Debug, PartialEq)]
pub struct SampleSpectra {
    /// Where the batch starts in the data set.
    pub first: usize,
    /// n, the samples of the batch.
    pub count: usize,
    /// The layer's outputs.
    pub d_out: usize,
    /// The layer's inputs.
    pub d_in: usize,
    /// a_p: `[n, d_in]`
    pub activations: Vec<f32>,
    /// `δ_p = ∇_z ℓ_p`: `[n, d_out]`
    pub deltas: Vec<f32>,
    /// μ_m, the eigenvalues of M_p in descending order: `[n, d_out]`
    pub output_eigenvalues: Vec<f32>,
    /// κ_m, those of h_p in the same order: `[n, d_out]`
    pub eigenvalues: Vec<f32>,
    /// u_m, a row each: `[n, d_out, d_out]`
    pub vectors: Vec<f32>,
    /// `max_m ‖M_p u_m − μ_m u_m‖ / max_m |μ_m|`, from a fresh product: `[n]`; some 1e-6 where the eigenpairs
    /// have converged.
    pub residuals: Vec<f32>,
}

impl LayerCurvature {
    /// Hands the factors of every sample to `each`, batch after batch in the order of the data set.
    ///
    /// # Errors
    /// What `each` returns, and the device's errors.
    pub fn factors(&self, mut each: impl FnMut(&SampleFactors) -> Result<()>) -> Result<()> {
        let (gpu, d_out, d_in) = (self.session.gpu(), self.d_out(), self.d_in());
        let square = d_out * d_out;
        let pass = self.pass(&Needs { longest: square, held: square, flops: square as f64 })?;
        for step in pass.steps() {
            pass.run(*step)?;
            let (first, count) = (step.first as usize, step.count as usize);
            let m: Vec<f32> = gpu.read(&pass.m)?; // [k, n, o]
            let mut curvatures = Vec::with_capacity(count * square); // [n, k, o]
            for p in 0..count {
                for k in 0..d_out {
                    let start = (k * pass.n + p) * d_out;
                    curvatures.extend_from_slice(&m[start..start + d_out]);
                }
            }
            let activations = gpu.read(&pass.a.slice(0, count * d_in))?;
            let deltas = gpu.read(&pass.delta.slice(0, count * d_out))?;
            each(&SampleFactors { first, count, d_out, d_in, activations, deltas, curvatures })?;
        }
        Ok(())
    }

    /// Hands the spectra of every sample's Hessian to `each`, batch after batch in the order of the data set.
    ///
    /// # Errors
    /// [`Error::NotFinite`] where an M_p is not finite, what `each` returns, and the device's errors.
    pub fn spectra(&self, mut each: impl FnMut(&SampleSpectra) -> Result<()>) -> Result<()> {
        let (gpu, d_out, d_in) = (self.session.gpu(), self.d_out(), self.d_in());
        if d_out > jacobi::MOST {
            return self.factors(|batch| each(&decomposed(batch)?)); // more than the kernel's workgroup memory holds
        }
        let square = d_out * d_out;
        let pass =
            self.pass(&Needs { longest: square, held: square + d_out + 1, flops: jacobi::flops(d_out) })?;
        let n = pass.n;
        let buffer = |words: usize| gpu.buffer(words).map(|buffer| buffer.slice(0, words));
        let (values, vectors, residuals) = (buffer(n * d_out)?, buffer(n * square)?, buffer(n)?);
        let mut rec = Recorder::new(gpu);
        let to = Eigenpairs { values: &values, vectors: &vectors, residuals: &residuals };
        jacobi::eigen(&mut rec, (n, d_out), (&pass.m, d_out, n * d_out), to)?; // M stored [k, n, o]
        let decompose = rec.finish()?;
        for step in pass.steps() {
            pass.run(*step)?;
            decompose.run()?;
            let (first, count) = (step.first as usize, step.count as usize);
            let residuals: Vec<f32> = gpu.read(&residuals.slice(0, count))?;
            if let Some(p) = residuals.iter().position(|residual| !residual.is_finite()) {
                return Err(not_finite(first + p));
            }
            let activations: Vec<f32> = gpu.read(&pass.a.slice(0, count * d_in))?;
            let output_eigenvalues: Vec<f32> = gpu.read(&values.slice(0, count * d_out))?;
            let eigenvalues = scaled(&output_eigenvalues, &activations, (d_out, d_in));
            each(&SampleSpectra {
                first,
                count,
                d_out,
                d_in,
                activations,
                deltas: gpu.read(&pass.delta.slice(0, count * d_out))?,
                output_eigenvalues,
                eigenvalues,
                vectors: gpu.read(&vectors.slice(0, count * square))?,
                residuals,
            })?;
        }
        Ok(())
    }
}

/// `κ_m = ‖a_p‖² μ_m` of every sample, `[n, d_out]`.
fn scaled(mu: &[f32], activations: &[f32], (d_out, d_in): (usize, usize)) -> Vec<f32> {
    let of_sample = |(a, mu): (&[f32], &[f32])| {
        let length2 = squared_length(a);
        mu.iter().map(|&mu| (length2 * mu as f64) as f32).collect::<Vec<_>>()
    };
    std::iter::zip(activations.chunks(d_in), mu.chunks(d_out)).flat_map(of_sample).collect()
}

/// The spectra of a batch by a dense eigensolver on the host.
fn decomposed(batch: &SampleFactors) -> Result<SampleSpectra> {
    let &SampleFactors { first, count, d_out, d_in, .. } = batch;
    let (mut output_eigenvalues, mut vectors, mut residuals) = (Vec::new(), Vec::new(), Vec::new());
    for (p, m) in batch.curvatures.chunks(d_out * d_out).enumerate() {
        let m = Mat::from_fn(d_out, d_out, |i, k| 0.5 * (m[i * d_out + k] as f64 + m[k * d_out + i] as f64));
        let pairs = match m.is_all_finite() {
            true => m.self_adjoint_eigen(Side::Lower).map_err(|_| not_finite(first + p))?,
            false => return Err(not_finite(first + p)),
        };
        let mu = pairs.S().column_vector();
        let off = &m * pairs.U() - pairs.U() * pairs.S();
        let largest = mu.iter().fold(0.0, |largest: f64, mu| largest.max(mu.abs()));
        let worst = off.col_iter().map(|column| column.norm_l2()).fold(0.0, f64::max);
        residuals.push(if largest > 0.0 { (worst / largest) as f32 } else { 0.0 });
        for k in (0..d_out).rev() {
            output_eigenvalues.push(mu[k] as f32);
            vectors.extend(pairs.U().col(k).iter().map(|&u| u as f32));
        }
    }
    let (activations, deltas) = (batch.activations.clone(), batch.deltas.clone());
    let eigenvalues = scaled(&output_eigenvalues, &activations, (d_out, d_in));
    Ok(SampleSpectra {
        first,
        count,
        d_out,
        d_in,
        activations,
        deltas,
        output_eigenvalues,
        eigenvalues,
        vectors,
        residuals,
    })
}

fn not_finite(sample: usize) -> Error {
    Error::NotFinite {
        quantity: format!("the Hessian of sample {sample}"),
        detail: "the network's outputs or the loss overflow".into(),
    }
}

fn squared_length(a: &[f32]) -> f64 {
    a.iter().map(|&a| a as f64 * a as f64).sum()
}

impl SampleSpectra {
    /// κ_m of sample p of the batch, in descending order: `[d_out]`.
    pub fn eigenvalues_of(&self, p: usize) -> &[f32] {
        &self.eigenvalues[p * self.d_out..(p + 1) * self.d_out]
    }

    /// `w_m = u_m ⊗ a_p / ‖a_p‖` of sample p of the batch: `[d_out · d_in]`; 0 where a_p is 0.
    pub fn eigenvector(&self, p: usize, m: usize) -> Vec<f64> {
        let a = self.direction(p);
        let u = &self.vectors[(p * self.d_out + m) * self.d_out..][..self.d_out];
        u.iter().flat_map(|&u| a.iter().map(move |a| u as f64 * a)).collect()
    }

    /// `w_m · v` for all eigenvectors of sample p of the batch, `[d_out]`: `U V a_p / ‖a_p‖` of `v`, read as
    /// `V [d_out, d_in]`; 0 where a_p is 0.
    ///
    /// # Panics
    /// If `v` is not of d_out · d_in entries.
    pub fn projections(&self, p: usize, v: &[f64]) -> Vec<f64> {
        assert_eq!(v.len(), self.d_out * self.d_in, "a direction's length");
        let a = self.direction(p); // [d_in]
        let along: Vec<f64> = v.chunks(self.d_in).map(|row| dot(row, &a)).collect(); // [d_out]
        let rows = self.vectors[p * self.d_out * self.d_out..].chunks(self.d_out).take(self.d_out);
        rows.map(|u| u.iter().zip(&along).map(|(&u, along)| u as f64 * along).sum()).collect()
    }

    /// Hands p and `w_m · v_i` `[K, d_out]` to `each`, sample after sample, for the columns v_i of `vectors`
    /// `[D, K]`: what [`projections`](Self::projections) gives of one vector, as products of matrices.
    ///
    /// # Panics
    /// If `vectors` has not d_out · d_in rows.
    pub fn project(&self, vectors: MatRef<'_, f64>, mut each: impl FnMut(usize, MatRef<'_, f64>)) {
        let (d_out, d_in) = (self.d_out, self.d_in);
        assert_eq!(vectors.nrows(), d_out * d_in, "a direction's length");
        for first in (0..self.count).step_by(PROJECTED_AT_ONCE) {
            let count = PROJECTED_AT_ONCE.min(self.count - first);
            let mut a = Mat::zeros(d_in, count);
            for p in 0..count {
                a.col_mut(p).iter_mut().zip(self.direction(first + p)).for_each(|(to, from)| *to = from);
            }
            let rows = (0..d_out).map(|o| vectors.subrows(o * d_in, d_in)); // V_o [d_in, K]
            let along: Vec<Mat<f64>> = rows.map(|rows| rows.transpose() * &a).collect(); // V_oᵀ a [K, n]
            for p in 0..count {
                let u = &self.vectors[(first + p) * d_out * d_out..];
                let u = Mat::from_fn(d_out, d_out, |o, m| u[m * d_out + o] as f64);
                let along = Mat::from_fn(vectors.ncols(), d_out, |i, o| along[o][(i, p)]);
                each(first + p, (along * u).as_ref());
            }
        }
    }

    /// `a_p / ‖a_p‖`, `[d_in]`
    fn direction(&self, p: usize) -> Vec<f64> {
        let a = &self.activations[p * self.d_in..(p + 1) * self.d_in];
        let length = squared_length(a).sqrt();
        a.iter().map(|&a| if length > 0.0 { a as f64 / length } else { 0.0 }).collect()
    }
}

fn dot(x: &[f64], y: &[f64]) -> f64 {
    x.iter().zip(y).map(|(x, y)| x * y).sum()
}
