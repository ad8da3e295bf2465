//! A network at given parameters, on a data set, with a loss: everything that is measured is measured of it.

use super::curvature::{Curvature, CurvatureOperator};
use super::pass::{Pass, extent};
use super::{Block, SampleOperators, SymmetricOperator};
use crate::data::Dataset;
use crate::gpu::{Buffer, Gpu, Recorder, View};
use crate::jets::ops::Extent;
use crate::jets::plan::{Request, Seeds};
use crate::jets::{Samples, Workload};
use crate::net::{Loss, Network, Subspace};
use crate::{Error, Result};

/// A network with its parameters, a data set and a loss, on the device.
///
/// Vectors go in and come out flat, in the coordinates of a [`Subspace`] of the parameters.
pub struct Problem {
    gpu: Gpu,
    network: Network,
    samples: Samples,
    loss: Loss,
    theta: Buffer,
}

/// The loss over a data set.
#[derive(Clone, Debug, PartialEq)]
pub struct LossReport {
    /// The mean over samples.
    pub loss: f64,
    /// The share of samples whose largest output is their class's; none where the targets are values.
    pub accuracy: Option<f64>,
    /// ℓ of each sample, `[N]`.
    pub per_sample: Vec<f32>,
}

impl Problem {
    /// Uploads `data` and the flat `parameters`, `[P]`.
    ///
    /// # Errors
    /// [`Error::Shape`] where parameters, samples or targets do not fit the network, [`Error::NotFinite`]
    /// where a parameter is not finite, and the device's errors.
    pub fn new(
        gpu: &Gpu,
        network: &Network,
        parameters: &[f32],
        data: &Dataset,
        loss: Loss,
    ) -> Result<Problem> {
        let samples = Samples::new(gpu, network, data, loss)?;
        let theta = gpu.zeros(network.all().stride)?;
        let mut problem = Problem { gpu: gpu.clone(), network: network.clone(), samples, loss, theta };
        problem.set_parameters(parameters)?;
        Ok(problem)
    }

    /// Moves to other parameters, flat `[P]`.
    ///
    /// # Errors
    /// [`Error::Shape`], [`Error::NotFinite`], and the device's errors.
    pub fn set_parameters(&mut self, parameters: &[f32]) -> Result<()> {
        let all = self.network.all();
        if parameters.len() != all.dim {
            return Err(Error::shape("parameters", [parameters.len()], [all.dim]));
        }
        if let Some(at) = parameters.iter().position(|p| !p.is_finite()) {
            let name = self.network.parameters().iter().rev().find(|p| p.offset <= at);
            return Err(Error::NotFinite {
                quantity: format!("parameter {}", name.map_or("", |p| &p.name)),
                detail: format!("it holds {}", parameters[at]),
            });
        }
        self.gpu.write(&self.theta.view(), &all.pad(parameters))
    }

    pub fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    pub fn network(&self) -> &Network {
        &self.network
    }

    pub fn samples(&self) -> &Samples {
        &self.samples
    }

    pub fn loss_kind(&self) -> Loss {
        self.loss
    }

    /// θ on the device, as [`Network::all`] lays it out.
    pub fn theta(&self) -> View {
        self.theta.view()
    }

    /// Words on the device that every pass needs: the data set, θ, and a sample's index, loss, slope and whether
    /// it was right.
    pub(super) fn held(&self) -> usize {
        self.samples.words() + self.network.all().stride + 4 * self.samples.len()
    }

    /// What a sweep over the samples of a list of `positions` indices runs on.
    pub(super) fn workload(&self, indices: View, positions: usize) -> Workload<'_> {
        Workload {
            gpu: &self.gpu,
            network: &self.network,
            samples: &self.samples,
            loss: self.loss,
            theta: self.theta(),
            indices,
            positions,
        }
    }

    /// The weight of one sample in the mean over samples.
    fn mean_weight(&self) -> f32 {
        1.0 / self.samples.len() as f32
    }

    /// Loss and accuracy over the data set; per-sample losses are summed in double precision on the host.
    pub fn loss(&self) -> Result<LossReport> {
        let all = self.network.all();
        let request = Request::loss();
        let (extent, _) = extent(self, &request, &all, 1, 0)?;
        let pass = Pass::new(self, &request, &all, extent, self.mean_weight())?;
        pass.sweep.run(&pass.steps)?;
        let n = self.samples.len();
        let mut per_sample: Vec<f32> = self.gpu.read(&pass.sweep.losses)?;
        per_sample.truncate(n);
        let correct: Vec<f32> = self.gpu.read(&pass.sweep.correct)?;
        let mean = |values: &[f32]| values[..n].iter().map(|&v| v as f64).sum::<f64>() / n as f64;
        let accuracy = self.samples.classes().then(|| mean(&correct));
        Ok(LossReport { loss: mean(&per_sample), accuracy, per_sample })
    }

    /// The gradient of the mean loss, `[dim]`.
    pub fn gradient(&self, space: &Subspace) -> Result<Vec<f32>> {
        let gradient = self.device_gradient(space)?;
        Ok(space.unpad(&self.gpu.read(&gradient)?))
    }

    /// The gradient of the mean loss on the device, `[stride]`.
    pub(super) fn device_gradient(&self, space: &Subspace) -> Result<View> {
        let request = Request::gradient(&parameters_of(space));
        let (extent, _) = extent(self, &request, space, 1, 0)?;
        let pass = Pass::new(self, &request, space, extent, self.mean_weight())?;
        pass.sweep.run(&pass.steps)?;
        Ok(pass.sweep.gradient.clone().expect("a gradient was asked for"))
    }

    /// Each sample's gradient, handed to `each` batch after batch as flat rows `[n, dim]`.
    ///
    /// # Errors
    /// What `each` returns, and the device's errors.
    pub fn per_sample_gradients(
        &self,
        space: &Subspace,
        mut each: impl FnMut(&[f32]) -> Result<()>,
    ) -> Result<()> {
        let request = Request::per_sample_gradient(&parameters_of(space));
        let (extent, _) = extent(self, &request, space, 1, 0)?;
        let pass = Pass::new(self, &request, space, extent, 1.0)?;
        for step in &pass.steps {
            pass.sweep.run(&[*step])?;
            let rows = pass.sweep.gradient.as_ref().expect("gradients were asked for");
            let rows = self.gpu.read::<f32>(&rows.slice(0, step.count as usize * space.stride))?;
            each(&space.unpad(&rows))?;
        }
        Ok(())
    }

    /// `H V` for flat directions `[K, dim]`: `[K, dim]`.
    ///
    /// # Errors
    /// [`Error::Shape`] where the directions are not of the subspace, and the device's errors.
    pub fn hvp(&self, space: &Subspace, directions: &[f32]) -> Result<Vec<f32>> {
        self.operator(Curvature::Hessian, space)?.apply_flat(directions)
    }

    /// `G V` with the Gauss–Newton matrix `G = (1/N) Σ Jᵀ ∇²ℓ J`, for flat directions `[K, dim]`.
    ///
    /// # Errors
    /// As [`Problem::hvp`].
    pub fn ggnvp(&self, space: &Subspace, directions: &[f32]) -> Result<Vec<f32>> {
        self.operator(Curvature::Ggn, space)?.apply_flat(directions)
    }

    /// `C V` with the centred covariance `C = (1/N) Σ (g_p − ḡ)(g_p − ḡ)ᵀ` of single samples' gradients, for
    /// flat directions `[K, dim]`; that of a batch of B is C / B.
    ///
    /// # Errors
    /// As [`Problem::hvp`].
    pub fn noise_covariance_vp(&self, space: &Subspace, directions: &[f32]) -> Result<Vec<f32>> {
        self.operator(Curvature::NoiseCovariance, space)?.apply_flat(directions)
    }

    /// Hessian, GGN or noise covariance on `space`, as an operator on device-resident blocks.
    pub fn operator(&self, which: Curvature, space: &Subspace) -> Result<CurvatureOperator<'_>> {
        CurvatureOperator::new(self, which, space)
    }

    /// The Hessians or GGNs of all samples on `space`, as a family whose products are made together.
    ///
    /// # Errors
    /// [`Error::Argument`] for the noise covariance: a sample alone does not vary.
    pub fn sample_operators(&self, which: Curvature, space: &Subspace) -> Result<SampleOperators<'_>> {
        SampleOperators::new(self, which, space)
    }

    /// `∇³L[v, v, ·] = ∇θ (vᵀ H v)` for each of the flat directions `[K, dim]`: `[K, dim]`.
    ///
    /// # Errors
    /// As [`Problem::hvp`].
    pub fn third(&self, space: &Subspace, directions: &[f32]) -> Result<Vec<f32>> {
        let k = check_directions(space, directions)?;
        let request = Request::product(&parameters_of(space), Seeds::Jet, 2);
        let (extent, _) = extent(self, &request, space, k, 0)?;
        let mut results = Vec::with_capacity(directions.len());
        let mut pass: Option<Pass> = None;
        for block in directions.chunks(extent.k * space.dim) {
            let k = block.len() / space.dim;
            // the one before is let go first: the budget is for one
            let current = match pass.take().filter(|pass| pass.sweep.extent.k == k) {
                Some(pass) => pass,
                None => Pass::new(self, &request, space, Extent { k, ..extent }, self.mean_weight())?,
            };
            let (sweep, view) = (&current.sweep, |v: &Option<View>| v.clone().expect("there are directions"));
            self.gpu.write(&view(&sweep.directions), &space.pad(block))?;
            let mut clear = Recorder::new(&self.gpu);
            clear.clear(&view(&sweep.gradient));
            clear.finish()?.run()?;
            sweep.run(&current.steps)?;
            results.extend(space.unpad(&self.gpu.read(&view(&sweep.gradient))?));
            pass = Some(current);
        }
        Ok(results)
    }
}

/// The positions of a subspace's parameters.
pub(super) fn parameters_of(space: &Subspace) -> Vec<usize> {
    space.parts.iter().map(|part| part.parameter).collect()
}

/// K of flat directions `[K, dim]`.
pub(super) fn check_directions(space: &Subspace, directions: &[f32]) -> Result<usize> {
    if directions.is_empty() || !directions.len().is_multiple_of(space.dim) {
        let found = [directions.len() / space.dim.max(1), directions.len()];
        return Err(Error::shape("directions", found, ["K ≥ 1".to_string(), space.dim.to_string()]));
    }
    if let Some(at) = directions.iter().position(|x| !x.is_finite()) {
        let detail = format!("direction {} holds {}", at / space.dim, directions[at]);
        return Err(Error::NotFinite { quantity: "directions".into(), detail });
    }
    Ok(directions.len() / space.dim)
}

impl CurvatureOperator<'_> {
    /// The operator on flat directions, `[K, dim]`.
    fn apply_flat(&self, directions: &[f32]) -> Result<Vec<f32>> {
        let at_once = self.fitted(check_directions(self.space(), directions)?)?.0.k;
        let mut products = Vec::with_capacity(directions.len());
        for some in directions.chunks(at_once * self.dim()) {
            let x = Block::upload(self.gpu(), self.stride(), &self.space().pad(some))?;
            let y = Block::zeros(self.gpu(), self.stride(), x.len())?;
            self.apply(&x, &y)?;
            products.extend(self.space().unpad(&y.download()?));
        }
        Ok(products)
    }
}
