//! Each sample's own curvature: the products of many samples in one sweep.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use super::family::vectors_of_each;
use super::session::parameters_of;
use super::{Block, Curvature, OperatorFamily, Session};
use crate::gpu::{Buffer, Gpu, Recorder};
use crate::jets::Sweep;
use crate::jets::ops::Extent;
use crate::jets::plan::{Request, Seeds};
use crate::jets::sweep::{Results, choose_extent};
use crate::kernels::Step;
use crate::net::Subspace;
use crate::{Error, Result};

/// `h_p = ∇²ℓ_p`, or the Gauss–Newton matrices `J_pᵀ ∇²ℓ_p J_p`, of all samples p of a problem at its present
/// parameters, restricted to some of them: N operators, whose mean is the problem's own.
///
/// A sweep takes as many vectors, each with its member's sample, as keep within half of the memory budget; the other
/// half is the caller's. Of a member with several vectors the sample is taken as many times. How many go through
/// together may show in a product's last bits, as it does in a block's.
///
/// ```no_run
/// use curvkit::data::{Dataset, Targets};
/// use curvkit::gpu::{Gpu, GpuOptions};
/// use curvkit::net::{Layer, Loss, Model, Network};
/// use curvkit::operators::{Curvature, Session};
/// use curvkit::spectral::{FamilyOptions, family_eigenpairs, unobserved};
///
/// # fn main() -> curvkit::Result<()> {
/// let gpu = Gpu::new(&GpuOptions::default())?;
/// let network = Network::new(&Model::mlp(&[4, 8, 3], Layer::Tanh, true))?;
/// let data = Dataset::new(vec![0.5; 2 * 4], vec![4], Targets::Classes(vec![0, 2]))?;
/// let session = Session::new(&gpu, &network, &network.initial_parameters(0), &data, Loss::CrossEntropy)?;
///
/// // the three largest eigenvalues of every sample's Hessian
/// let hessians = session.sample_operators(Curvature::Hessian, &network.all())?;
/// family_eigenpairs(&hessians, &FamilyOptions::new(3), |found| {
///     for (sample, values) in found.members.zip(found.values.chunks(3)) {
///         println!("sample {sample}: {values:?}");
///     }
///     Ok(())
/// }, &mut unobserved)?;
/// # Ok(())
/// # }
/// ```
pub struct SampleOperators {
    session: Session,
    request: Request,
    space: Subspace,
    /// For the number of vectors last used.
    recorded: Mutex<Option<Recorded>>,
}

struct Recorded {
    /// Vectors of the application that the sweep was cut for.
    vectors: usize,
    sweep: Sweep,
    /// Which sample each of the sweep's directions belongs to.
    samples: Buffer,
}

impl SampleOperators {
    pub(super) fn new(session: &Session, which: Curvature, space: &Subspace) -> Result<Self> {
        session.network().check_subspace(space)?;
        let seeds = match which {
            Curvature::Hessian => Seeds::Jet,
            Curvature::Ggn => Seeds::Ggn,
            Curvature::JacobianGram => Seeds::Outputs,
            Curvature::NoiseCovariance | Curvature::SecondMoment => {
                let expected =
                    "the Hessian, the GGN or the Jacobians' Gram matrix: a sample's gradients are one";
                return Err(Error::argument("curvature", format!("{which:?}"), expected));
            }
        };
        let request = Request { per_sample: true, ..Request::product(&parameters_of(space), seeds, 1) };
        Ok(SampleOperators {
            session: session.clone(),
            request,
            space: space.clone(),
            recorded: Mutex::default(),
        })
    }

    /// The coordinates of its vectors.
    pub fn space(&self) -> &Subspace {
        &self.space
    }

    /// A sweep for `vectors` vectors, in as many parts as the memory asks for, as even as can be.
    fn record(&self, vectors: usize) -> Result<Recorded> {
        let (gpu, network) = (self.session.gpu(), self.session.network());
        let callers = (gpu.memory_budget() / 2 / 4) as usize;
        let held = self.session.held() + callers;
        let (fitted, _) = choose_extent(gpu, network, &self.request, &self.space, held, (vectors, 1))?;
        let extent = Extent { n: vectors.div_ceil(vectors.div_ceil(fitted.n)), ..fitted };
        let samples = gpu.buffer(extent.n)?;
        let work = self.session.workload(samples.view(), extent.n);
        let sweep = Sweep::record(&work, &self.request, &self.space, extent, Results::Replace)?;
        Ok(Recorded { vectors, sweep, samples })
    }
}

impl OperatorFamily for SampleOperators {
    fn gpu(&self) -> &Gpu {
        self.session.gpu()
    }

    fn count(&self) -> usize {
        self.session.samples().len()
    }

    fn dim(&self) -> usize {
        self.space.dim
    }

    fn stride(&self) -> usize {
        self.space.stride
    }

    fn apply(&self, members: Range<usize>, x: &Block, y: &Block) -> Result<()> {
        let each = vectors_of_each(self, &members, x, y)?;
        if x.is_empty() {
            return Ok(());
        }
        let mut recorded = self.recorded.lock().unwrap_or_else(PoisonError::into_inner);
        // the one before is let go first: the budget is for one
        let current = match recorded.take().filter(|recorded| recorded.vectors == x.len()) {
            Some(current) => current,
            None => self.record(x.len())?,
        };
        let Recorded { sweep, samples, .. } = recorded.insert(current);
        let directions = sweep.directions.as_ref().expect("there are directions");
        let products = sweep.gradient.as_ref().expect("products were asked for");
        let n = sweep.extent.n;
        for first in (0..x.len()).step_by(n) {
            let count = n.min(x.len() - first);
            // what the last part has too few repeats its last sample, weightless
            let vectors = (first..first + n).map(|vector| vector.min(x.len() - 1));
            let of: Vec<u32> = vectors.map(|vector| (members.start + vector / each) as u32).collect();
            self.gpu().write(&samples.view(), &of)?;
            let mut rec = Recorder::new(self.gpu());
            x.record_copy_to(&mut rec, first, &directions.slice(0, count * self.space.stride));
            rec.replay(sweep.program(), &[Step { count: count as u32, weight: 1.0, ..Step::default() }])?;
            y.record_copy_from(&mut rec, first, &products.slice(0, count * self.space.stride));
            rec.run()?;
        }
        Ok(())
    }

    fn pad(&self, flat: &[f32]) -> Result<Vec<f32>> {
        self.space.pad(flat)
    }

    fn unpad(&self, padded: &[f32]) -> Result<Vec<f32>> {
        self.space.unpad(padded)
    }
}
