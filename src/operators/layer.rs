//! The curvature of one fully connected layer, over a data set: H, C and E[h²] in full, and sample by sample.
//!
//! For `z = W a` the per-sample Hessian is `h_p = M_p ⊗ a_p a_pᵀ` with `M_p = ∇²_z ℓ_p`, because W enters
//! once. Seeding the tangent at z with the d_out unit directions gives all M_p in one block pass, and with
//! `δ_p = ∇_z ℓ_p` the three matrices are
//!
//! ```text
//! H = E[M_p ⊗ a aᵀ]      C = E[δ_p δ_pᵀ ⊗ a aᵀ]      E[h²] = E[‖a‖² M_p² ⊗ a aᵀ]
//! ```
//!
//! one Kronecker Gram product `Σ_p A_p[i,k] B_p[j,l]` over packed symmetric factors, for the three A at once.
//! The factors themselves, and what they say of each sample, are [`super::SampleFactors`] and
//! [`super::SampleSpectra`].

use faer::Mat;

use super::pass::Pass;
use super::problem::Problem;
use crate::gpu::{Recorder, Step, View};
use crate::jets::ops::Extent;
use crate::jets::plan::{Request, Seeds, Tangents, adjoint, value};
use crate::jets::sweep::fit;
use crate::kernels::gemm::{Gemm, Layout, Matrix, Shape, gemm};
use crate::kernels::pack::{self, Rows, packed_len};
use crate::net::{Bilinear, Graph, Network, TensorId, Term};
use crate::{Error, Result};

/// The curvature of a fully connected layer `z = W a` of a problem's network, `W [d_out, d_in]`: see
/// [`Problem::layer`].
pub struct LayerCurvature<'p> {
    pub(super) problem: &'p Problem,
    focus: Focus,
}

/// `H`, `C` and `E[h²]` of a fully connected layer's weights `W [d_out, d_in]`, each D × D with D = d_out · d_in
/// and W[o, i] at o · d_in + i.
#[derive(Clone, Debug)]
pub struct LayerMoments {
    pub d_out: usize,
    pub d_in: usize,
    /// N.
    pub samples: usize,
    /// `H = E[h_p]`
    pub hessian: Mat<f64>,
    /// The uncentred second moment `(1/N) Σ g_p g_pᵀ` of per-sample gradients (superlinear, eq. 2, B = 1).
    pub covariance: Mat<f64>,
    /// `E[h_p²]` (superlinear, eq. 15 without its prefactor)
    pub curvature_second_moment: Mat<f64>,
}

/// Where a fully connected layer stands in a graph.
struct Focus {
    input: TensorId,
    output: TensorId,
    d_in: usize,
    d_out: usize,
}

/// The layer whose weights are called `weight`.
fn focus(graph: &Graph, weight: &str) -> Result<Focus> {
    let known = || {
        let dense = graph.nodes.iter().flat_map(|node| &node.terms).filter_map(|term| match term {
            Term::Bilinear { map: Bilinear::Dense { .. }, a, .. } => {
                graph.parameters.iter().find(|p| p.tensor == *a).map(|p| p.name.as_str())
            }
            _ => None,
        });
        dense.collect::<Vec<_>>().join(", ")
    };
    let missing =
        || Error::argument("--layer", format!("“{weight}”"), format!("a fully connected layer: {}", known()));
    let parameter = graph.parameters.iter().find(|p| p.name == weight).ok_or_else(missing)?;
    for node in &graph.nodes {
        for term in &node.terms {
            if let Term::Bilinear { map: Bilinear::Dense { rows, ins, outs }, a, b, .. } = *term
                && a == parameter.tensor
            {
                if rows != 1 {
                    let found = format!("“{weight}”, which is applied {rows} times a sample");
                    return Err(Error::argument("--layer", found, "a layer that is applied once"));
                }
                return Ok(Focus { input: b, output: node.output, d_in: ins, d_out: outs });
            }
        }
    }
    Err(missing())
}

/// d_out and d_in of the fully connected layer of `network` whose weights are called `weight` (`2.weight`).
///
/// # Errors
/// [`Error::Argument`] where there is no such layer: it lists those that there are.
pub fn layer_shape(network: &Network, weight: &str) -> Result<(usize, usize)> {
    focus(network.graph(), weight).map(|focus| (focus.d_out, focus.d_in))
}

impl Problem {
    /// The curvature of the fully connected layer whose weights are called `weight` (`2.weight`).
    ///
    /// # Errors
    /// As [`layer_shape`].
    pub fn layer(&self, weight: &str) -> Result<LayerCurvature<'_>> {
        Ok(LayerCurvature { problem: self, focus: focus(self.network().graph(), weight)? })
    }
}

/// What a layer's pass needs for each sample besides the sweep itself.
pub(super) struct Needs {
    /// Words of the longest tensor.
    pub longest: usize,
    /// Words of all of them.
    pub held: usize,
    /// Floating-point operations of the longest dispatch.
    pub flops: f64,
}

/// A pass over the data set that leaves the layer's factors of each batch on the device.
pub(super) struct LayerPass {
    pass: Pass,
    /// Samples of a batch.
    pub n: usize,
    /// a: `[n, d_in]`
    pub a: View,
    /// δ: `[n, d_out]`
    pub delta: View,
    /// M, symmetric: `[k, n, o]`
    pub m: View,
}

impl LayerPass {
    /// The batches, in the order of the data set.
    pub fn steps(&self) -> &[Step] {
        &self.pass.steps
    }

    /// Makes a, δ and M of a batch.
    pub fn run(&self, step: Step) -> Result<()> {
        self.pass.sweep.run(&[step])
    }
}

impl LayerCurvature<'_> {
    /// The layer's outputs, d_out.
    pub fn d_out(&self) -> usize {
        self.focus.d_out
    }

    /// The layer's inputs, d_in.
    pub fn d_in(&self) -> usize {
        self.focus.d_in
    }

    /// Records the pass that all measures of a layer begin with: all d_out directions at once.
    pub(super) fn pass(&self, needs: &Needs) -> Result<LayerPass> {
        let Focus { input, output, d_out, .. } = self.focus;
        let (a, delta, m) = (value(input, 0), adjoint(output, 0), adjoint(output, 1));
        let request = Request {
            tangents: Tangents::Units(output),
            order: 1,
            seeds: Seeds::Jet,
            keep: vec![a, delta, m],
            ..Request::loss()
        };
        let extent = self.extent(&request, needs)?;
        let pass = Pass::new(self.problem, &request, &self.problem.network().all(), extent, 1.0)?;
        let kept = |slot| pass.kept(slot).clone();
        let (n, a, delta, m) = (pass.sweep.extent.n, kept(a), kept(delta), kept(m));
        debug_assert_eq!(m.len(), n * d_out * d_out);
        Ok(LayerPass { pass, n, a, delta, m })
    }

    /// How many samples to take at a time, all d_out directions at once.
    fn extent(&self, request: &Request, needs: &Needs) -> Result<Extent> {
        let (problem, d_out) = (self.problem, self.focus.d_out);
        let (gpu, network) = (problem.gpu(), problem.network());
        let samples = problem.samples().len();
        let most = (gpu.max_binding_len() / needs.longest)
            .min(gpu.memory_budget() as usize / 8 / needs.held)
            .min((gpu.dispatch_flops() / needs.flops) as usize)
            .clamp(1, 4096); // longer sums over samples in single precision lose too much
        let mut n = samples.div_ceil(samples.div_ceil(most));
        loop {
            let (extent, _) = fit(gpu, network, request, &network.all(), problem.held(), (n, d_out))?;
            if extent.k == d_out {
                return Ok(extent);
            }
            // `fit` keeps samples rather than directions; here the directions have to stay together
            if n == 1 {
                return Err(Error::OutOfMemory {
                    doing: format!("measuring a layer of {d_out} outputs"),
                    detail: "not even one sample's directions fit the memory budget".into(),
                });
            }
            n = n.div_ceil(2);
        }
    }

    /// `H`, `C` and `E[h²]` in one pass over the data set.
    ///
    /// Products are summed in single precision over batches and in double precision over the batches.
    ///
    /// # Errors
    /// [`Error::NotFinite`] where the result is not finite, and the device's errors.
    pub fn moments(&self) -> Result<LayerMoments> {
        let gpu = self.problem.gpu();
        let Focus { d_in, d_out, .. } = self.focus;
        let samples = self.problem.samples().len();
        let (rows_a, rows_b) = (packed_len(d_out), packed_len(d_in));
        let pass = self.pass(&Needs {
            longest: (d_out * d_out).max(rows_a).max(rows_b),
            held: 3 * rows_a + rows_b + d_out * d_out,
            flops: (2 * rows_a * rows_b) as f64,
        })?;
        let LayerPass { n, ref a, ref delta, ref m, .. } = pass;

        // M² [n, o, o'] = Σ_k M[n, o, k] M[n, o', k], with M stored [k, n, o] and symmetric
        let squares = gpu.buffer(n * d_out * d_out)?.slice(0, n * d_out * d_out);
        let rights = gpu.buffer(n * rows_b)?.slice(0, n * rows_b); // a aᵀ: [n, j ≤ l]
        let packed = || gpu.buffer(n * rows_a).map(|buffer| buffer.slice(0, n * rows_a));
        let (hessians, covariances, second) = (packed()?, packed()?, packed()?); // M, δδᵀ, ‖a‖² M²: [n, i ≤ k]
        let mut rec = Recorder::new(gpu);
        let by_sample = Matrix { view: m, row: n * d_out, batch: d_out, period: 0 };
        let shape = Shape { batch: n, m: d_out, n: d_out, k: d_out };
        let square = Gemm { layout: Layout::TN, shape, alpha: 1.0, add: false };
        let to = Matrix { view: &squares, row: d_out, batch: d_out * d_out, period: 0 };
        gemm(&mut rec, square, by_sample, by_sample, None, to)?;
        let row = |view| Rows { view, stride: rows_a };
        pack::matrix(&mut rec, (n, d_out), (m, d_out, n * d_out), None, row(&hessians))?;
        pack::square(&mut rec, (n, d_out), delta, row(&covariances))?;
        let scale = Some((a, d_in));
        pack::matrix(&mut rec, (n, d_out), (&squares, d_out * d_out, d_out), scale, row(&second))?;
        pack::square(&mut rec, (n, d_in), a, Rows { view: &rights, stride: rows_b })?;
        let mut sums = vec![vec![0.0f64; rows_a * rows_b]; 3];
        let gram = gpu.buffer(rows_a * rows_b)?.slice(0, rows_a * rows_b);
        let products: Vec<_> = [&hessians, &covariances, &second]
            .into_iter()
            .map(|left| {
                let mut rec = Recorder::new(gpu);
                let shape = Shape { batch: 1, m: rows_a, n: rows_b, k: n };
                let product = Gemm { layout: Layout::TN, shape, alpha: 1.0, add: false };
                let left = Matrix { view: left, row: rows_a, batch: 0, period: 0 };
                let right = Matrix { view: &rights, row: rows_b, batch: 0, period: 0 };
                gemm(
                    &mut rec,
                    product,
                    left,
                    right,
                    None,
                    Matrix { view: &gram, row: rows_b, batch: 0, period: 0 },
                )?;
                rec.finish()
            })
            .collect::<Result<_>>()?;
        let factors = rec.finish()?;
        for step in pass.steps() {
            pass.run(*step)?;
            factors.run()?;
            for (product, sum) in products.iter().zip(&mut sums) {
                product.run()?;
                for (total, part) in sum.iter_mut().zip(gpu.read::<f32>(&gram)?) {
                    *total += part as f64;
                }
            }
        }
        let [hessian, covariance, second] =
            [0, 1, 2].map(|which: usize| unpack(&sums[which], d_out, d_in, 1.0 / samples as f64));
        let moments =
            LayerMoments { d_out, d_in, samples, hessian, covariance, curvature_second_moment: second };
        moments.check()?;
        Ok(moments)
    }
}

impl LayerMoments {
    /// Measures the layer whose weights are called `weight` (`2.weight`): [`Problem::layer`] and
    /// [`LayerCurvature::moments`] in one.
    ///
    /// # Errors
    /// Theirs.
    pub fn measure(problem: &Problem, weight: &str) -> Result<LayerMoments> {
        problem.layer(weight)?.moments()
    }

    fn check(&self) -> Result<()> {
        let named = [
            ("the layer's Hessian", &self.hessian),
            ("the layer's noise covariance", &self.covariance),
            ("the layer's second moment of curvature", &self.curvature_second_moment),
        ];
        for (quantity, matrix) in named {
            let finite = matrix.col_iter().all(|column| column.iter().all(|v| v.is_finite()));
            if !finite {
                let detail = "the network's outputs or the loss overflow".into();
                return Err(Error::NotFinite { quantity: quantity.into(), detail });
            }
        }
        Ok(())
    }
}

/// The full matrix `[(o, i), (o', i')]` of packed sums `[(o ≤ o'), (i ≤ i')]`, times `scale`.
fn unpack(sums: &[f64], d_out: usize, d_in: usize, scale: f64) -> Mat<f64> {
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
