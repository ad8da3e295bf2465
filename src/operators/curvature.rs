//! Hessian, Gauss–Newton matrix, gradients' moments and Jacobians as operators.

use super::pass::{Frame, Outline};
use super::products::Products;
use super::session::parameters_of;
use super::{Block, Session, SymmetricOperator, check_blocks};
use crate::Result;
use crate::gpu::{Gpu, Recorder, Taken};
use crate::jets::ops::Extent;
use crate::jets::plan::{Request, Seeds};
use crate::net::Subspace;

/// Which symmetric matrix of a [`Session`]. J_p is the Jacobian of sample p's outputs, ℓ_p its loss, g_p its gradient.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Curvature {
    /// `H = ∇²L`
    Hessian,
    /// `G = (1/N) Σ J_pᵀ ∇²ℓ_p J_p`
    Ggn,
    /// `C = (1/N) Σ (g_p − ḡ)(g_p − ḡ)ᵀ`
    NoiseCovariance,
    /// `Σ₁ = (1/N) Σ g_p g_pᵀ`, the uncentred second moment.
    SecondMoment,
    /// `(1/N) Σ J_pᵀ J_p`
    JacobianGram,
}

/// A curvature of a session at its θ, wherever that moves, restricted to some parameters.
pub struct CurvatureOperator {
    which: Curvature,
    products: Products,
}

impl CurvatureOperator {
    pub(super) fn new(session: &Session, which: Curvature, space: &Subspace) -> Result<Self> {
        session.network().check_subspace(space)?;
        let outline =
            |seeds| Outline::whole(session, Request::product(&parameters_of(space), seeds, 1), space);
        let plain = |seeds| Products::new(session, outline(seeds), Frame::Fresh);
        let products = match which {
            Curvature::Hessian => plain(Seeds::Jet),
            Curvature::Ggn => plain(Seeds::Ggn),
            Curvature::NoiseCovariance => Products::centred(session, outline(Seeds::Noise))?,
            Curvature::SecondMoment => plain(Seeds::Noise),
            Curvature::JacobianGram => plain(Seeds::Outputs),
        };
        Ok(CurvatureOperator { which, products })
    }

    /// Which curvature it is.
    pub fn curvature(&self) -> Curvature {
        self.which
    }

    /// The session that it is a curvature of.
    pub fn session(&self) -> &Session {
        self.products.session()
    }

    /// The coordinates of its vectors.
    pub fn space(&self) -> &Subspace {
        self.products.space()
    }

    pub(super) fn products(&self) -> &Products {
        &self.products
    }

    /// Floating-point operations of one application to `k` directions, its dispatches, and how many samples
    /// and directions it takes at a time.
    ///
    /// # Errors
    /// As the application itself.
    pub fn cost(&self, k: usize) -> Result<(f64, usize, Extent)> {
        self.products.cost(k)
    }

    /// What each dispatch, clear and copy of one application to `k` directions takes, each run alone; of an application
    /// that the memory budget cuts, of its first part. Directions are what the last application left.
    ///
    /// # Errors
    /// As the application itself.
    pub fn profile(&self, k: usize) -> Result<Vec<Taken>> {
        self.products.profile(k)
    }
}

impl std::fmt::Debug for CurvatureOperator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} on {} coordinates of {:?}", self.which, self.dim(), self.session())
    }
}

impl SymmetricOperator for CurvatureOperator {
    fn gpu(&self) -> &Gpu {
        self.session().gpu()
    }

    fn dim(&self) -> usize {
        self.space().dim
    }

    fn stride(&self) -> usize {
        self.space().stride
    }

    fn apply(&self, x: &Block, y: &Block) -> Result<()> {
        check_blocks(self, x, y)?;
        self.products.apply(x, y)
    }

    fn record(&self, rec: &mut Recorder, x: &Block, y: &Block) -> Result<()> {
        check_blocks(self, x, y)?;
        self.products.record(rec, x, y)
    }

    fn leave_room(&self, bytes: u64) {
        self.products.leave_room(bytes);
    }

    /// Of the noise covariance: slopes are off by some ε‖ḡ‖, and the variance of that alone is some (ε‖ḡ‖)².
    fn rounding(&self) -> Result<f64> {
        const SHARE: f64 = 8.0 / (1 << 24) as f64;
        let mean = self.products.mean()?.unwrap_or_default();
        Ok(mean.iter().map(|&g| f64::from(g).powi(2)).sum::<f64>() * SHARE * SHARE)
    }

    fn description(&self) -> Option<String> {
        let (which, parts, session) = (self.which, &self.space().parts, self.session());
        let (samples, loss) = (session.samples().len(), session.loss_kind());
        let (budget, model) = (self.gpu().memory_budget(), session.network().description());
        Some(format!("{which:?} at {parts:?}, {samples} samples, {loss}, budget {budget}\n{model}"))
    }

    fn pad(&self, flat: &[f32]) -> Result<Vec<f32>> {
        self.space().pad(flat)
    }

    fn unpad(&self, padded: &[f32]) -> Result<Vec<f32>> {
        self.space().unpad(padded)
    }
}
