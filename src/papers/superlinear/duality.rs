//! The Activity–Weight Duality on a fully connected layer `z = W a`: the gradient noise of a batch from what its
//! samples' partners in another batch would have been (Section 3, Appendix E.2).
//!
//! A partner p′ of sample p is p under the perturbed weights `W + ΔW*`, `ΔW* = (W Δa) aᵀ / ‖a‖²` with
//! `Δa = a_{p′} − a_p` (eq. 9). To first order the gradients of the two batches then differ by the sum over p of
//!
//! ```text
//! Term I   h_p Δw*          = q_p a_pᵀ      q_p = M_p W Δa_p       M_p = ∇²_z ℓ_p
//! Term II  (∇Δw*)ᵀ ∇ℓ_p     = δ_p Δa_pᵀ     δ_p = ∇_z ℓ_p          (eqs. 12, 57)
//! ```
//!
//! of rank one each, so that no sample needs a D × D matrix. With t₁ and t₂ the sums of the two over a batch, and
//! all covariances times B, so that they are of single samples as C is:
//!
//! ```text
//! C^hh = E[t₁ t₁ᵀ] / 2B      C^hg = E[t₁ t₂ᵀ + t₂ t₁ᵀ] / 2B      C^gg = E[t₂ t₂ᵀ] / 2B      (eqs. 58, 59)
//! C_AWD,raw = C^hh + C^hg + C^gg = E[(t₁ + t₂)(t₁ + t₂)ᵀ] / 2B
//! C^hh,SD       = ½ E_p[E_μ[q qᵀ] ⊗ a aᵀ]                             distinct samples are independent (eq. 64)
//! C^hh,SD,WD    = ½ E_p[Σ_m μ_m² E_μ[(u_m · W Δa)²] u_m u_mᵀ ⊗ a aᵀ]   ΔW* along h_p's axes too (eq. 66, m = n)
//! C^hh,SD,WD,LI = ½ σ_w² E[h_p²]                                      with one variance for all (eqs. 67–71)
//! ```
//!
//! M_p = Σ_m μ_m u_m u_mᵀ, so that h_p has the eigenpairs `κ_m = ‖a‖² μ_m`, `w_m = u_m ⊗ a / ‖a‖`, and
//! `w_m · Δw* = u_m · W Δa / ‖a‖`.

use faer::linalg::matmul::matmul;
use faer::{Accum, ColMut, Mat, MatMut, MatRef, Par};

use super::measures::Eigenbasis;
use super::pairs::{BatchPairs, Pair};
use crate::Result;
use crate::gpu::Gpu;
use crate::operators::{LayerCurvature, kronecker_means};

/// What the duality needs of every sample, at one checkpoint.
pub struct States {
    d_out: usize,
    d_in: usize,
    /// a_p: `[N, d_in]`
    activations: Vec<f32>,
    /// δ_p: `[N, d_out]`
    deltas: Vec<f32>,
    /// M_p: `[N, d_out, d_out]`
    curvatures: Vec<f32>,
    /// W a_p: `[N, d_out]`
    outputs: Vec<f64>,
}

impl States {
    /// Those of `layer` on all samples of its problem, in one pass.
    ///
    /// # Errors
    /// The device's errors.
    pub fn of(layer: &LayerCurvature) -> Result<States> {
        let (d_out, d_in) = (layer.d_out(), layer.d_in());
        let (mut activations, mut deltas, mut curvatures) = (Vec::new(), Vec::new(), Vec::new());
        layer.factors(|batch| {
            activations.extend_from_slice(&batch.activations);
            deltas.extend_from_slice(&batch.deltas);
            curvatures.extend_from_slice(&batch.curvatures);
            Ok(())
        })?;
        let weights = layer.weights()?;
        let along =
            |a: &[f32], row: &[f32]| a.iter().zip(row).map(|(&a, &w)| a as f64 * w as f64).sum::<f64>();
        let outputs =
            activations.chunks(d_in).flat_map(|a| weights.chunks(d_in).map(move |row| along(a, row)));
        let outputs = outputs.collect();
        Ok(States { d_out, d_in, activations, deltas, curvatures, outputs })
    }

    /// N
    fn len(&self) -> usize {
        self.deltas.len() / self.d_out
    }

    fn activation(&self, p: u32) -> &[f32] {
        &self.activations[p as usize * self.d_in..][..self.d_in]
    }

    /// M_p, row after row.
    fn curvature(&self, p: usize) -> &[f32] {
        &self.curvatures[p * self.d_out * self.d_out..][..self.d_out * self.d_out]
    }

    /// `W Δa` of a pair, `[d_out]`.
    fn output_change(&self, [p, partner]: Pair) -> Vec<f64> {
        let of = |p: u32| &self.outputs[p as usize * self.d_out..][..self.d_out];
        of(partner).iter().zip(of(p)).map(|(partner, own)| partner - own).collect()
    }
}

/// t₁ and t₂ of every pair of batches, and what each sample's own pairs add up to.
///
/// The first are of the layer's weights or, once [`expressed`](Terms::express), of H's eigenbasis.
pub struct Terms {
    shape: (usize, usize),
    batch_size: usize,
    /// t₁, Term I of a batch: `[D, S]`
    hessian: Mat<f64>,
    /// t₂, Term II: `[D, S]`
    gradient: Mat<f64>,
    /// `Σ (W Δa)(W Δa)ᵀ` over a sample's pairs: `[N, d_out, d_out]`, its upper triangle.
    changes: Vec<f32>,
}

impl Terms {
    /// Sums the two terms over each of `pairs`' batches.
    pub fn of(states: &States, pairs: &BatchPairs) -> Terms {
        let (d_out, d_in) = (states.d_out, states.d_in);
        let (dim, count) = (d_out * d_in, pairs.batches.len());
        let mut terms = Terms {
            shape: (d_out, d_in),
            batch_size: pairs.batch_size,
            hessian: Mat::zeros(dim, count),
            gradient: Mat::zeros(dim, count),
            changes: vec![0.0; states.len() * d_out * d_out],
        };
        for (s, batch) in pairs.batches.iter().enumerate() {
            let mut q = Mat::zeros(batch.len(), d_out);
            for (row, &pair) in batch.iter().enumerate() {
                let p = pair[0] as usize;
                let change = states.output_change(pair); // W Δa
                for (o, m) in states.curvature(p).chunks(d_out).enumerate() {
                    q[(row, o)] = m.iter().zip(&change).map(|(&m, change)| m as f64 * change).sum();
                }
                let sums = &mut terms.changes[p * d_out * d_out..][..d_out * d_out];
                for (o, row) in sums.chunks_mut(d_out).enumerate() {
                    let products = change[o..].iter().map(|other| (change[o] * other) as f32);
                    row[o..].iter_mut().zip(products).for_each(|(sum, product)| *sum += product);
                }
            }
            let of = |which: usize, row: usize| states.activation(batch[row][which]);
            let a = Mat::from_fn(d_in, batch.len(), |i, row| of(0, row)[i] as f64);
            let change = Mat::from_fn(d_in, batch.len(), |i, row| (of(1, row)[i] - of(0, row)[i]) as f64);
            let delta = Mat::from_fn(batch.len(), d_out, |row, o| {
                states.deltas[batch[row][0] as usize * d_out + o] as f64
            });
            // the entry (o, i) of a term at o · d_in + i of its column
            outer_sum(terms.hessian.col_mut(s), a.as_ref(), q.as_ref());
            outer_sum(terms.gradient.col_mut(s), change.as_ref(), delta.as_ref());
        }
        terms
    }

    /// `Σ (W Δa)(W Δa)ᵀ` over the pairs of sample p, `[d_out, d_out]`.
    fn changes_of(&self, p: usize) -> Mat<f64> {
        let d_out = self.shape.0;
        let sums = &self.changes[p * d_out * d_out..][..d_out * d_out];
        Mat::from_fn(d_out, d_out, |i, k| sums[i.min(k) * d_out + i.max(k)] as f64)
    }

    /// The same terms in another basis: columns `Vᵀ t`.
    pub fn express(self, basis: &Eigenbasis) -> Terms {
        let [hessian, gradient] = [&self.hessian, &self.gradient].map(|t| basis.vectors.transpose() * t);
        Terms { hessian, gradient, ..self }
    }

    /// `1 / 2BS`, for S pairs of batches
    fn scale(&self) -> f64 {
        1.0 / (2.0 * self.batch_size as f64 * self.hessian.ncols() as f64)
    }

    /// The diagonal of C_AWD,raw, `[D]`.
    pub fn raw_diagonal(&self) -> Vec<f64> {
        let mut diagonal = vec![0.0; self.hessian.nrows()];
        for (one, two) in self.hessian.col_iter().zip(self.gradient.col_iter()) {
            for ((sum, one), two) in diagonal.iter_mut().zip(one.iter()).zip(two.iter()) {
                *sum += self.scale() * (one + two).powi(2);
            }
        }
        diagonal
    }

    /// `E[t tᵀ] / 2B`, `[D, D]`
    fn second_moment(&self, t: MatRef<'_, f64>) -> Mat<f64> {
        let mut moment = Mat::zeros(t.nrows(), t.nrows());
        matmul(moment.as_mut(), Accum::Replace, t, t.transpose(), self.scale(), Par::rayon(0));
        moment
    }
}

/// `column`, read as `[d_in, d_out]`, becomes `Σ_rows left_i right_o`: `left` `[d_in, B]`, `right` `[B, d_out]`.
fn outer_sum(column: ColMut<'_, f64>, left: MatRef<'_, f64>, right: MatRef<'_, f64>) {
    let column = column.try_as_col_major_mut().expect("columns are contiguous").as_slice_mut();
    let into = MatMut::from_column_major_slice_mut(column, left.nrows(), right.ncols());
    matmul(into, Accum::Replace, left, right, 1.0, Par::Seq);
}

/// The covariances that the duality gives, `[D, D]` each in H's eigenbasis, of single samples (times B).
pub struct Chain {
    /// C_AWD,raw = C^hh + C^hg + C^gg
    pub raw: Mat<f64>,
    /// C^hh, of Term I alone (eqs. 58, 59)
    pub hh: Mat<f64>,
    /// C^hg, of Term I with Term II, both of its halves
    pub hg: Mat<f64>,
    /// C^gg, of Term II alone
    pub gg: Mat<f64>,
    /// C^hh,SD
    pub sd: Mat<f64>,
    /// C^hh,SD,WD
    pub wd: Mat<f64>,
    /// C^hh,SD,WD,LI = `½ σ_w² E[h²]`
    pub li: Mat<f64>,
    /// σ_w², the variance of ΔW* along h_p's axes, each weighted by the κ_m² that multiplies it (eqs. 67, 68); `None` where
    /// all κ_m are 0.
    pub sigma_w2: Option<f64>,
}

impl Chain {
    /// All of the chain, from the layer's `states` and `pairs`; `second_moment` is `E[h²]` in H's eigenbasis.
    ///
    /// # Errors
    /// As [`LayerCurvature::spectra`].
    pub fn of(
        gpu: &Gpu,
        layer: &LayerCurvature,
        states: &States,
        pairs: &BatchPairs,
        basis: &Eigenbasis,
        second_moment: MatRef<'_, f64>,
    ) -> Result<Chain> {
        let terms = Terms::of(states, pairs).express(basis);
        let hh = terms.second_moment(terms.hessian.as_ref());
        let gg = terms.second_moment(terms.gradient.as_ref());
        let raw = terms.second_moment((&terms.hessian + &terms.gradient).as_ref());
        let hg = &raw - &hh - &gg;
        let own = terms.own(states);
        let (along, sigma_w2) = terms.along_modes(layer)?;
        let means = kronecker_means(gpu, terms.shape, &states.activations, &[&own, &along])?;
        let means = means.iter().map(|mean| basis.express(mean.as_ref())).collect::<Result<Vec<_>>>()?;
        let [sd, wd] = means.try_into().expect("two factors have two means");
        // without curvature E[h²] is 0, whatever σ_w²
        let half = 0.5 * sigma_w2.unwrap_or(0.0);
        let li = Mat::from_fn(hh.nrows(), hh.ncols(), |i, j| half * second_moment[(i, j)]);
        Ok(Chain { raw, hh, hg, gg, sd, wd, li, sigma_w2 })
    }
}

impl Terms {
    /// What the sum over a sample's pairs is multiplied by, for a mean over N samples to be halved and over S pairs of
    /// batches of B each.
    fn share(&self) -> f64 {
        let samples = self.changes.len() / (self.shape.0 * self.shape.0);
        samples as f64 * self.scale()
    }

    /// The factors A_p of C^hh,SD, `½ E_μ[q qᵀ] = ½ M E_μ[(W Δa)(W Δa)ᵀ] M`, packed `[N, o ≤ o']`.
    fn own(&self, states: &States) -> Vec<f32> {
        let (d_out, share) = (self.shape.0, self.share());
        let mut own = Vec::new();
        for p in 0..states.len() {
            let m = states.curvature(p);
            let m = Mat::from_fn(d_out, d_out, |i, k| m[i * d_out + k] as f64);
            pack(&(&m * (self.changes_of(p) * &m)), share, &mut own);
        }
        own
    }

    /// The factors of C^hh,SD,WD, `½ Σ_m μ_m² E_μ[(u_m · W Δa)²] u_m u_mᵀ`, packed `[N, o ≤ o']`, and σ_w².
    fn along_modes(&self, layer: &LayerCurvature) -> Result<(Vec<f32>, Option<f64>)> {
        let (d_out, d_in) = self.shape;
        let share = self.share();
        let mut along = Vec::new();
        let (mut weighted, mut weights) = (0.0, 0.0);
        layer.spectra(|batch| {
            for p in 0..batch.count {
                let u = &batch.vectors[p * d_out * d_out..][..d_out * d_out];
                let u = Mat::from_fn(d_out, d_out, |o, m| u[m * d_out + o] as f64); // a column each
                let changes = self.changes_of(batch.first + p) * &u;
                let a = &batch.activations[p * d_in..][..d_in];
                let length2: f64 = a.iter().map(|&a| a as f64 * a as f64).sum();
                let mut scaled = u.clone();
                for m in 0..d_out {
                    let mu = batch.output_eigenvalues[p * d_out + m] as f64;
                    let variance = u.col(m).transpose() * changes.col(m);
                    weighted += 2.0 * share * length2 * mu * mu * variance; // κ² (w · Δw*)²
                    weights += (length2 * mu).powi(2);
                    scaled.col_mut(m).iter_mut().for_each(|x| *x *= mu * mu * variance);
                }
                pack(&(scaled * u.transpose()), share, &mut along);
            }
            Ok(())
        })?;
        Ok((along, (weights > 0.0).then(|| weighted / weights)))
    }
}

/// Adds `scale` times the upper triangle of `matrix` to `packed`, row after row.
fn pack(matrix: &Mat<f64>, scale: f64, packed: &mut Vec<f32>) {
    for i in 0..matrix.nrows() {
        packed.extend((i..matrix.ncols()).map(|k| (scale * matrix[(i, k)]) as f32));
    }
}
