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
//! Kronecker sums `Σ_p A_p ⊗ a_p a_pᵀ` over packed symmetric factors (`kronecker.rs`), in one pass.
//! The factors themselves, and what they say of each sample, are [`super::SampleFactors`] and
//! [`super::SampleSpectra`].

use faer::linalg::matmul::triangular::{BlockStructure, matmul};
use faer::{Accum, Mat, Par};

use super::kronecker::{self, KroneckerSums};
use super::pass::{Frame, LONGEST_BATCH, Outline, Pass};
use super::session::Session;
use crate::gpu::{Recorder, View};
use crate::jets::ops::Extent;
use crate::jets::plan::{Request, Seeds, Tangents, adjoint, value};
use crate::jets::sweep::choose_extent;
use crate::kernels::Step;
use crate::kernels::gemm::{Gemm, Layout, Matrix, Shape, gemm};
use crate::kernels::pack::{self, Rows, packed_len};
use crate::net::{Bilinear, Graph, Network, TensorId, Term};
use crate::{Error, Result};

/// The curvature of a fully connected layer `z = W a` of a session's network, `W [d_out, d_in]`: see
/// [`Session::layer`].
pub struct LayerCurvature {
    pub(super) session: Session,
    focus: Focus,
}

/// `H`, `C` and `E[h²]` of a fully connected layer's weights `W [d_out, d_in]`, each D × D with D = d_out · d_in
/// and W[o, i] at o · d_in + i.
#[derive(Clone, Debug)]
pub struct LayerMoments {
    /// The layer's outputs.
    pub d_out: usize,
    /// The layer's inputs.
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
    /// The position of its weights in [`Network::parameters`].
    parameter: usize,
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
        || Error::argument("layer", format!("“{weight}”"), format!("a fully connected layer: {}", known()));
    let index = graph.parameters.iter().position(|p| p.name == weight).ok_or_else(missing)?;
    let weights = graph.parameters[index].tensor;
    for node in &graph.nodes {
        for term in &node.terms {
            if let Term::Bilinear { map: Bilinear::Dense { rows, ins, outs }, a, b, .. } = *term
                && a == weights
            {
                if rows != 1 {
                    let found = format!("“{weight}”, which is applied {rows} times a sample");
                    return Err(Error::argument("layer", found, "a layer that is applied once"));
                }
                return Ok(Focus { parameter: index, input: b, output: node.output, d_in: ins, d_out: outs });
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

impl Session {
    /// The curvature of the fully connected layer whose weights are called `weight` (`2.weight`).
    ///
    /// # Errors
    /// As [`layer_shape`].
    pub fn layer(&self, weight: &str) -> Result<LayerCurvature> {
        Ok(LayerCurvature { session: self.clone(), focus: focus(self.network().graph(), weight)? })
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

impl LayerCurvature {
    /// The layer's outputs, d_out.
    pub fn d_out(&self) -> usize {
        self.focus.d_out
    }

    /// The layer's inputs, d_in.
    pub fn d_in(&self) -> usize {
        self.focus.d_in
    }

    /// W, as `[d_out, d_in]`.
    ///
    /// # Errors
    /// The device's.
    pub fn weights(&self) -> Result<Vec<f32>> {
        let part =
            *self.session.network().all().part(self.focus.parameter).expect("all parameters are there");
        self.session.gpu().read(&self.session.theta().slice(part.padded, part.len))
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
        let outline = Outline::whole(&self.session, request, &self.session.network().all());
        let pass = Pass::new(&self.session, (&outline, Frame::Plain), extent, 1.0)?;
        let kept = |slot| pass.kept(slot).clone();
        let (n, a, delta, m) = (pass.sweep.extent.n, kept(a), kept(delta), kept(m));
        debug_assert_eq!(m.len(), n * d_out * d_out);
        Ok(LayerPass { pass, n, a, delta, m })
    }

    /// How many samples to take at a time, all d_out directions at once.
    fn extent(&self, request: &Request, needs: &Needs) -> Result<Extent> {
        let (session, d_out) = (&self.session, self.focus.d_out);
        let (gpu, network) = (session.gpu(), session.network());
        let samples = session.samples().len();
        let most = (gpu.max_binding_len() / needs.longest)
            .min(gpu.memory_budget() as usize / 8 / needs.held)
            .min((gpu.dispatch_flops() / needs.flops) as usize)
            .clamp(1, LONGEST_BATCH);
        let mut n = samples.div_ceil(samples.div_ceil(most));
        loop {
            let (extent, _) =
                choose_extent(gpu, network, request, &network.all(), session.held(), (n, d_out))?;
            if extent.k == d_out {
                return Ok(extent);
            }
            // `choose_extent` keeps samples rather than directions; here the directions have to stay together
            if n == 1 {
                return Err(Error::OutOfMemory {
                    doing: format!("measuring a layer of {d_out} outputs"),
                    detail: "not even one sample's directions fit the memory budget".into(),
                });
            }
            n = n.div_ceil(2);
        }
    }

    /// Returns the noise covariance `(1/N) Σ (g_p − ḡ)(g_p − ḡ)ᵀ` of the layer's weights, `[D, D]` (superlinear, eq. 2,
    /// its first line).
    ///
    /// Gradients are centred before they are multiplied, in double precision: where ḡ outweighs the noise, the uncentred
    /// second moment of [`LayerCurvature::moments`] less `ḡ ḡᵀ` would be rounding. It costs `N D²` additions and
    /// multiplications on the host.
    ///
    /// # Errors
    /// The device's.
    pub fn noise_covariance(&self) -> Result<Mat<f64>> {
        let network = self.session.network();
        let space = network.restricted(&[&network.parameters()[self.focus.parameter].name])?;
        let d = space.dim;
        let near: Vec<f64> = self.session.gradient(&space)?.into_iter().map(f64::from).collect();
        let (mut moment, mut rest) = (Mat::zeros(d, d), vec![0.0; d]);
        self.session.per_sample_gradients(&space, |_, rows| {
            let centred = Mat::from_fn(rows.len() / d, d, |p, i| f64::from(rows[p * d + i]) - near[i]);
            rest.iter_mut().zip(centred.col_iter()).for_each(|(rest, column)| *rest += column.sum());
            let (lower, whole) = (BlockStructure::TriangularLower, BlockStructure::Rectangular);
            let transposed = centred.transpose();
            matmul(&mut moment, lower, Accum::Add, transposed, whole, &centred, whole, 1.0, Par::rayon(0));
            Ok(())
        })?;
        let samples = self.session.samples().len() as f64;
        // what the gradient that was taken off is away from the mean
        rest.iter_mut().for_each(|rest| *rest /= samples);
        Ok(Mat::from_fn(d, d, |i, j| moment[(i.max(j), i.min(j))] / samples - rest[i] * rest[j]))
    }

    /// `H`, `C` and `E[h²]` in one pass over the data set.
    ///
    /// Products are summed in single precision over batches and in double precision over the batches.
    ///
    /// # Errors
    /// [`Error::NotFinite`] where the result is not finite, and the device's errors.
    pub fn moments(&self) -> Result<LayerMoments> {
        let gpu = self.session.gpu();
        let Focus { d_in, d_out, .. } = self.focus;
        let samples = self.session.samples().len();
        let (rows_a, rows_b) = (packed_len(d_out), packed_len(d_in));
        let pass = self.pass(&Needs {
            longest: (d_out * d_out).max(rows_a).max(rows_b),
            held: kronecker::words_held(3, (d_out, d_in)) + d_out * d_out,
            flops: kronecker::flops((d_out, d_in)),
        })?;
        let LayerPass { n, ref a, ref delta, ref m, .. } = pass;

        // M² [n, o, o'] = Σ_k M[n, o, k] M[n, o', k], with M stored [k, n, o] and symmetric
        let squares = gpu.buffer(n * d_out * d_out)?.slice(0, n * d_out * d_out);
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
        let factors = rec.finish()?;
        let lefts = [&hessians, &covariances, &second];
        let mut sums = KroneckerSums::new(gpu, n, (d_out, d_in), a, &lefts)?;
        for step in pass.steps() {
            pass.run(*step)?;
            factors.run()?;
            sums.add()?;
        }
        let [hessian, covariance, second] =
            sums.means(samples).try_into().expect("three factors have three sums");
        let moments =
            LayerMoments { d_out, d_in, samples, hessian, covariance, curvature_second_moment: second };
        moments.check()?;
        Ok(moments)
    }
}

impl LayerMoments {
    /// Measures the layer whose weights are called `weight` (`2.weight`): [`Session::layer`] and
    /// [`LayerCurvature::moments`] in one.
    ///
    /// # Errors
    /// Theirs.
    pub fn measure(session: &Session, weight: &str) -> Result<LayerMoments> {
        session.layer(weight)?.moments()
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
