//! A network at given parameters, on a data set, with a loss: everything that is measured is measured of it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::curvature::{Curvature, CurvatureOperator};
use super::pass::{Frame, Outline, Pass, Passes, Recorded, check_samples};
use super::products::Products;
use super::{Block, SampleOperators, check_vectors, gram};
use crate::data::Dataset;
use crate::gpu::{Buffer, Cache, Gpu, Prepare, Recorder, View};
use crate::jets::plan::{Request, Seeds};
use crate::jets::{Samples, Workload};
use crate::net::{Loss, Network, Subspace};
use crate::{Error, Result};

/// A network with its parameters θ, a data set and a loss, on the device: once, for training and for every operator.
///
/// Clones are the same session, and threads may share it. Vectors go in and come out flat, in the coordinates of a
/// [`Subspace`] of the parameters, or as [`Block`]s. What is recorded for a product or a gradient is kept and serves
/// the next one; where θ moves, nothing is recorded anew, and what depends on it is made anew when it is next used.
#[derive(Clone)]
pub struct Session(Arc<Shared>);

struct Shared {
    gpu: Gpu,
    network: Network,
    samples: Samples,
    loss: Loss,
    theta: Buffer,
    /// How often θ has moved.
    generation: AtomicU64,
    passes: Passes,
    /// Mean gradients that operators use.
    means: Mutex<Vec<Weak<Mean>>>,
}

impl Cache for Shared {
    fn release(&self) {
        self.passes.release();
    }
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

/// ḡ on a subspace, on the device, as of when a program that uses it last began.
pub(super) struct Mean {
    session: Weak<Shared>,
    space: Subspace,
    pub view: View,
    /// [`Shared::generation`] of that time.
    generation: Mutex<Option<u64>>,
}

impl Prepare for Mean {
    fn prepare(&self) -> Result<()> {
        // without a session nothing moves θ
        let Some(session) = self.session.upgrade().map(Session) else { return Ok(()) };
        let mut generation = self.generation.lock().unwrap_or_else(PoisonError::into_inner);
        let now = session.generation();
        if *generation != Some(now) {
            session.device_gradient(&self.space, &self.view)?;
            *generation = Some(now);
        }
        Ok(())
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("gpu", self.gpu())
            .field("parameters", &self.network().dim())
            .field("samples", &self.samples().len())
            .field("loss", &self.loss_kind())
            .finish()
    }
}

impl Session {
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
    ) -> Result<Session> {
        let samples = Samples::new(gpu, network, data, loss)?;
        let theta = gpu.zeros(network.all().stride)?;
        let shared = Arc::new(Shared {
            gpu: gpu.clone(),
            network: network.clone(),
            samples,
            loss,
            theta,
            generation: AtomicU64::new(0),
            passes: Passes::default(),
            means: Mutex::default(),
        });
        let cache: Weak<dyn Cache> = Arc::downgrade(&shared) as Weak<dyn Cache>;
        gpu.register(cache);
        let session = Session(shared);
        session.set_parameters(parameters)?;
        Ok(session)
    }

    /// Moves θ to other parameters, flat `[P]`. Operators of the session are then those at the new θ.
    ///
    /// # Errors
    /// [`Error::Shape`], [`Error::NotFinite`], and the device's errors.
    pub fn set_parameters(&self, parameters: &[f32]) -> Result<()> {
        let all = self.network().all();
        if parameters.len() != all.dim {
            return Err(Error::shape("parameters", [parameters.len()], [all.dim]));
        }
        if let Some(at) = parameters.iter().position(|p| !p.is_finite()) {
            let name = self.network().parameters().iter().rev().find(|p| p.offset <= at);
            return Err(Error::NotFinite {
                quantity: format!("parameter {}", name.map_or("", |p| &p.name)),
                detail: format!("it holds {}", parameters[at]),
            });
        }
        self.move_theta(|theta| self.gpu().write(theta, &all.pad(parameters)?))
    }

    /// Lets `write` write to θ on the device, `[stride]` as [`Network::all`] lays it out, and notes that θ has moved.
    ///
    /// Zeros between the parameters have to stay zero.
    ///
    /// # Errors
    /// What `write` returns.
    pub fn move_theta(&self, write: impl FnOnce(&View) -> Result<()>) -> Result<()> {
        let written = write(&self.theta());
        self.0.generation.fetch_add(1, Ordering::SeqCst);
        written
    }

    /// θ as it is now, flat `[P]`.
    ///
    /// # Errors
    /// The device's.
    pub fn parameters(&self) -> Result<Vec<f32>> {
        self.network().all().unpad(&self.gpu().read::<f32>(&self.theta())?)
    }

    /// The device.
    pub fn gpu(&self) -> &Gpu {
        &self.0.gpu
    }

    /// The network.
    pub fn network(&self) -> &Network {
        &self.0.network
    }

    /// The data set on the device.
    pub fn samples(&self) -> &Samples {
        &self.0.samples
    }

    /// The loss.
    pub fn loss_kind(&self) -> Loss {
        self.0.loss
    }

    /// θ on the device, as [`Network::all`] lays it out, to be read; [`Session::move_theta`] is for writing.
    pub fn theta(&self) -> View {
        self.0.theta.slice(0, self.network().all().stride)
    }

    /// How often θ has moved.
    pub(super) fn generation(&self) -> u64 {
        self.0.generation.load(Ordering::SeqCst)
    }

    /// The recorded passes.
    pub(super) fn passes(&self) -> &Passes {
        &self.0.passes
    }

    /// Words on the device that every pass needs: the data set, θ, and a sample's index, loss, slope and whether
    /// it was right.
    pub(crate) fn held(&self) -> usize {
        self.samples().words() + self.network().all().stride + 4 * self.samples().len()
    }

    /// What a sweep over the samples of a list of `positions` indices runs on.
    pub(crate) fn workload(&self, indices: View, positions: usize) -> Workload<'_> {
        Workload {
            gpu: self.gpu(),
            network: self.network(),
            samples: self.samples(),
            loss: self.loss_kind(),
            theta: self.theta(),
            indices,
            positions,
            whole: false,
        }
    }

    /// ḡ on `space`, renewed by every program that depends on it where θ has moved.
    pub(super) fn mean(&self, space: &Subspace) -> Result<Arc<Mean>> {
        let mut means: MutexGuard<Vec<Weak<Mean>>> =
            self.0.means.lock().unwrap_or_else(PoisonError::into_inner);
        means.retain(|mean| mean.strong_count() > 0);
        if let Some(mean) = means.iter().filter_map(Weak::upgrade).find(|mean| mean.space == *space) {
            return Ok(mean);
        }
        let view = self.gpu().zeros(space.stride)?.slice(0, space.stride);
        let session = Arc::downgrade(&self.0);
        let mean = Arc::new(Mean { session, space: space.clone(), view, generation: Mutex::new(None) });
        means.push(Arc::downgrade(&mean));
        Ok(mean)
    }

    /// The pass of an outline for one direction or none, recorded once.
    fn single(&self, outline: &Outline, frame: Frame) -> Result<Arc<Recorded>> {
        let fitted = self.passes().fitted(self, outline, 1, 0)?;
        self.passes().recorded(self, (outline, frame), fitted, || {
            let pass = Pass::new(self, (outline, frame), fitted.0, 1.0 / outline.samples as f32)?;
            let mut rec = Recorder::new(self.gpu());
            if frame != Frame::Plain {
                rec.clear(pass.sweep.gradient.as_ref().expect("what is cleared was asked for"));
            }
            rec.replay_once(&pass.program)?;
            Ok(Recorded { program: Arc::new(rec.finish()?), pass })
        })
    }

    /// Loss and accuracy over the data set; per-sample losses are summed in double precision on the host.
    ///
    /// # Errors
    /// The device's.
    pub fn loss(&self) -> Result<LossReport> {
        let outline = Outline::whole(self, Request::loss(), &self.network().all());
        let recorded = self.single(&outline, Frame::Plain)?;
        let submitted = recorded.program.submit()?;
        let sweep = &recorded.pass.sweep;
        let losses = self.gpu().start_read::<f32>(&sweep.losses)?;
        let correct = self.gpu().start_read::<f32>(&sweep.correct)?;
        drop(submitted);
        let n = self.samples().len();
        let (mut per_sample, correct) = (losses.wait()?, correct.wait()?);
        per_sample.truncate(n);
        let mean = |values: &[f32]| values[..n].iter().map(|&v| v as f64).sum::<f64>() / n as f64;
        let accuracy = self.samples().classes().then(|| mean(&correct));
        Ok(LossReport { loss: mean(&per_sample), accuracy, per_sample })
    }

    /// The gradient of the mean loss, `[dim]`.
    ///
    /// # Errors
    /// [`Error::Shape`] where `space` is another network's, and the device's errors.
    pub fn gradient(&self, space: &Subspace) -> Result<Vec<f32>> {
        let all: Vec<u32> = Vec::new();
        self.gradient_with(space, &all)
    }

    /// The gradient of the mean loss over the samples whose numbers are given, `[dim]`; one given twice counts twice.
    ///
    /// # Errors
    /// [`Error::Argument`] where there is no such sample or none is given, [`Error::Shape`] where `space` is another
    /// network's, and the device's errors.
    pub fn gradient_of(&self, space: &Subspace, samples: &[u32]) -> Result<Vec<f32>> {
        check_samples(samples, self.samples().len())?;
        self.gradient_with(space, samples)
    }

    /// The gradient over `samples`, or over all where there are none.
    fn gradient_with(&self, space: &Subspace, samples: &[u32]) -> Result<Vec<f32>> {
        let (recorded, write) = self.gradient_pass(space, samples)?;
        let steps: [u32; 1] = [0];
        let submitted = recorded.program.submit_steps(&steps, write)?;
        let gradient = recorded.pass.sweep.gradient.as_ref().expect("a gradient was asked for");
        let gradient = self.gpu().start_read(gradient)?;
        drop(submitted);
        space.unpad(&gradient.wait()?)
    }

    /// The pass of a gradient, and what tells it the samples.
    fn gradient_pass<'s>(
        &'s self,
        space: &Subspace,
        samples: &'s [u32],
    ) -> Result<(Arc<Recorded>, impl FnOnce() -> Result<()> + 's)> {
        self.network().check_subspace(space)?;
        let mut outline = Outline::whole(self, Request::gradient(&parameters_of(space)), space);
        let whole = samples.is_empty();
        if !whole {
            outline.samples = samples.len();
        }
        // the list of a pass over given samples is written to: such a pass is another than one over all
        let recorded = self.single(&outline, if whole { Frame::Fresh } else { Frame::Listed })?;
        let indices = recorded.pass.indices.view();
        Ok((recorded, move || if whole { Ok(()) } else { self.gpu().write(&indices, samples) }))
    }

    /// The gradient of the mean loss, to `to` on the device, `[stride]`.
    fn device_gradient(&self, space: &Subspace, to: &View) -> Result<()> {
        let (recorded, _) = self.gradient_pass(space, &[])?;
        let mut rec = Recorder::new(self.gpu());
        rec.replay_once(&recorded.program)?;
        rec.copy(recorded.pass.sweep.gradient.as_ref().expect("a gradient was asked for"), to);
        rec.run()
    }

    /// Each sample's gradient, handed to `each` batch after batch as the number of the batch's first sample and flat rows
    /// `[n, dim]`.
    ///
    /// # Errors
    /// What `each` returns, [`Error::Shape`] where `space` is another network's, and the device's errors.
    pub fn per_sample_gradients(
        &self,
        space: &Subspace,
        mut each: impl FnMut(usize, &[f32]) -> Result<()>,
    ) -> Result<()> {
        self.per_sample_blocks(space, |first, rows| each(first, &space.unpad(&rows.download()?)?))
    }

    /// [`Session::per_sample_gradients`] on the device: rows `[n, stride]`, whose content is there until `each` returns.
    ///
    /// # Errors
    /// As there.
    pub fn per_sample_blocks(
        &self,
        space: &Subspace,
        mut each: impl FnMut(usize, &Block) -> Result<()>,
    ) -> Result<()> {
        self.network().check_subspace(space)?;
        let request = Request::per_sample_gradient(&parameters_of(space));
        let outline = Outline::whole(self, request, space);
        // not kept: it takes as much memory as there is
        let pass = Pass::new(self, (&outline, Frame::Plain), outline.extent(self, 1, 0)?.0, 1.0)?;
        let rows = pass.sweep.gradient.as_ref().expect("gradients were asked for");
        for step in &pass.steps {
            pass.sweep.run(&[*step])?;
            let held = rows.slice(0, step.count as usize * space.stride);
            each(step.first as usize, &Block::from_view(self.gpu(), space.stride, held)?)?;
        }
        Ok(())
    }

    /// Each sample's gradient on a basis, `g_p · e_i` for m vectors of `space` on the device, in one pass of gradients:
    /// `[N, m]`. Cheaper than [`Session::slopes`] where there are many vectors.
    ///
    /// # Errors
    /// [`Error::Shape`] where the vectors are not of `space`, or that is another network's, [`Error::OtherDevice`], and the
    /// device's errors.
    pub fn per_sample_projections(&self, space: &Subspace, basis: &Block) -> Result<Vec<f32>> {
        check_vectors(self.gpu(), space.stride, &[("E", basis)], basis.len())?;
        let m = basis.len();
        let mut projections = vec![0.0; self.samples().len() * m];
        self.per_sample_blocks(space, |first, rows| {
            let n = rows.len();
            let product = gram(rows, basis)?; // [n, m]
            for (p, row) in projections[first * m..][..n * m].chunks_exact_mut(m).enumerate() {
                row.iter_mut().enumerate().for_each(|(i, to)| *to = product[(p, i)] as f32);
            }
            Ok(())
        })?;
        Ok(projections)
    }

    /// The slopes of the samples' losses along flat directions `[K, dim]`, `∇ℓ_p · v_k`: `[K, N]`.
    ///
    /// # Errors
    /// As [`Session::hvp`].
    pub fn slopes(&self, space: &Subspace, directions: &[f32]) -> Result<Vec<f32>> {
        self.network().check_subspace(space)?;
        let count = check_directions(space, directions)?;
        let request =
            Request { gradients: Vec::new(), ..Request::product(&parameters_of(space), Seeds::None, 1) };
        let products = Products::new(self, Outline::whole(self, request, space), Frame::Plain);
        let (at_once, n) = (products.fitted(count)?.0.k, self.samples().len());
        let mut slopes = Vec::with_capacity(count * n);
        for some in directions.chunks(at_once * space.dim) {
            let recorded = products.recorded(some.len() / space.dim, count)?;
            let sweep = &recorded.pass.sweep;
            let (to, from) = (sweep.directions.as_ref(), sweep.slopes.as_ref());
            let padded = space.pad(some)?;
            let write = || self.gpu().write(to.expect("there are directions"), &padded);
            let submitted = recorded.program.submit_steps(&[0u32], write)?;
            let read = self.gpu().start_read::<f32>(from.expect("there are tangents"))?;
            drop(submitted);
            let read = read.wait()?;
            let positions = read.len() / sweep.extent.k;
            slopes.extend(read.chunks_exact(positions).flat_map(|row| &row[..n]));
        }
        Ok(slopes)
    }

    /// `H V` for flat directions `[K, dim]`: `[K, dim]`.
    ///
    /// # Errors
    /// [`Error::Shape`] where the directions are not of the subspace or that is another network's,
    /// [`Error::NotFinite`] where one is not finite, and the device's errors.
    pub fn hvp(&self, space: &Subspace, directions: &[f32]) -> Result<Vec<f32>> {
        self.product(Curvature::Hessian, space, directions)
    }

    /// `G V` with the Gauss–Newton matrix `G = (1/N) Σ Jᵀ ∇²ℓ J`, for flat directions `[K, dim]`.
    ///
    /// # Errors
    /// As [`Session::hvp`].
    pub fn ggnvp(&self, space: &Subspace, directions: &[f32]) -> Result<Vec<f32>> {
        self.product(Curvature::Ggn, space, directions)
    }

    /// `C V` with the centred covariance `C = (1/N) Σ (g_p − ḡ)(g_p − ḡ)ᵀ` of single samples' gradients, for
    /// flat directions `[K, dim]`; that of a batch of B is C / B.
    ///
    /// # Errors
    /// As [`Session::hvp`].
    pub fn noise_covariance_vp(&self, space: &Subspace, directions: &[f32]) -> Result<Vec<f32>> {
        self.product(Curvature::NoiseCovariance, space, directions)
    }

    /// `A V` for flat directions `[K, dim]`, with A one of the curvatures: `[K, dim]`.
    ///
    /// # Errors
    /// As [`Session::hvp`].
    pub fn product(&self, which: Curvature, space: &Subspace, directions: &[f32]) -> Result<Vec<f32>> {
        self.operator(which, space)?.products().apply_flat(directions)
    }

    /// One of the curvatures on `space`, as an operator on device-resident blocks.
    ///
    /// # Errors
    /// [`Error::Shape`] where `space` is another network's, and the device's errors.
    pub fn operator(&self, which: Curvature, space: &Subspace) -> Result<CurvatureOperator> {
        CurvatureOperator::new(self, which, space)
    }

    /// The Hessians or GGNs of all samples on `space`, as a family whose products are made together.
    ///
    /// # Errors
    /// [`Error::Argument`] for a curvature that is not a mean over samples, [`Error::Shape`] where `space` is another
    /// network's.
    pub fn sample_operators(&self, which: Curvature, space: &Subspace) -> Result<SampleOperators> {
        SampleOperators::new(self, which, space)
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
