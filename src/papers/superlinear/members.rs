//! The estimates of C that the paper compares, measured on one layer at one checkpoint.

use faer::Mat;
use serde::{Deserialize, Serialize};

use super::duality::{Chain, States, Terms};
use super::measures::{Diagonals, Eigenbasis};
use super::pairs::BatchPairs;
use crate::Result;
use crate::operators::Session;

/// An estimate of the noise covariance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Member {
    /// The second moment of per-sample gradients (eq. 2, its second line).
    Empirical,
    /// C_AWD,raw (eq. 59)
    Raw,
    /// C^hh (eq. 61)
    Hh,
    /// C^hh,SD (eq. 64)
    Sd,
    /// C^hh,SD,WD (eq. 66 with m = n)
    Wd,
    /// C^hh,SD,WD,LI = ½ σ_w² `E[h²]` (eq. 70)
    Li,
}

impl Member {
    /// From what is measured to what is left once every approximation is made.
    pub const ALL: [Member; 6] =
        [Member::Empirical, Member::Raw, Member::Hh, Member::Sd, Member::Wd, Member::Li];

    /// As the paper writes it.
    pub fn symbol(self) -> &'static str {
        match self {
            Member::Empirical => "C",
            Member::Raw => "C_AWD,raw",
            Member::Hh => "C^hh",
            Member::Sd => "C^hh,SD",
            Member::Wd => "C^hh,SD,WD",
            Member::Li => "C^hh,SD,WD,LI",
        }
    }

    /// In names of files and columns.
    pub fn key(self) -> &'static str {
        match self {
            Member::Empirical => "covariance",
            Member::Raw => "awd_raw",
            Member::Hh => "hh",
            Member::Sd => "hh_sd",
            Member::Wd => "hh_sd_wd",
            Member::Li => "hh_sd_wd_li",
        }
    }
}

/// Every estimate in H's eigenbasis, of single samples (a batch's are those over B).
pub struct Members {
    /// H's eigenvalues and eigenvectors, over all samples.
    pub basis: Eigenbasis,
    /// In the order of [`Member::ALL`], `[D, D]` each.
    pub covariances: Vec<(Member, Mat<f64>)>,
    /// C^hg and C^gg, which C_AWD,raw has besides C^hh.
    pub gradient_terms: [Mat<f64>; 2],
    /// The diagonal of `E[h²]`.
    pub curvature_second_moment: Vec<f64>,
    /// σ_w², see [`Chain::sigma_w2`].
    pub sigma_w2: Option<f64>,
}

impl Members {
    /// Measures the fully connected layer `layer` of `problem` over all of its samples.
    ///
    /// # Errors
    /// As [`Session::layer`], [`LayerCurvature::moments`](crate::operators::LayerCurvature::moments) and
    /// [`LayerCurvature::spectra`](crate::operators::LayerCurvature::spectra).
    pub fn measure(problem: &Session, layer: &str, pairs: &BatchPairs) -> Result<Members> {
        let layer = problem.layer(layer)?;
        let moments = layer.moments()?;
        let basis = Eigenbasis::of(moments.hessian.as_ref())?;
        let empirical = basis.express(moments.covariance.as_ref())?;
        let second = basis.express(moments.curvature_second_moment.as_ref())?;
        let states = States::of(&layer)?;
        let chain = Chain::of(problem.gpu(), &layer, &states, pairs, &basis, second.as_ref())?;
        let Chain { raw, hh, hg, gg, sd, wd, li, sigma_w2 } = chain;
        let covariances = Member::ALL.into_iter().zip([empirical, raw, hh, sd, wd, li]).collect();
        let (gradient_terms, curvature_second_moment) = ([hg, gg], diagonal(&second));
        Ok(Members { basis, covariances, gradient_terms, curvature_second_moment, sigma_w2 })
    }

    /// C by one of its estimates.
    pub fn covariance(&self, member: Member) -> &Mat<f64> {
        &self.covariances[member as usize].1
    }

    /// H's eigenvalues and the diagonals of what Tables 1 and 3 are of.
    pub fn diagonals(&self) -> Diagonals {
        Diagonals {
            hessian: self.basis.values.clone(),
            covariance: diagonal(self.covariance(Member::Empirical)),
            curvature_second_moment: self.curvature_second_moment.clone(),
            awd_raw: diagonal(self.covariance(Member::Raw)),
        }
    }
}

impl Diagonals {
    /// Measures those of the fully connected layer `layer` of `problem` over all of its samples: what Tables 1 and 3
    /// need, without the matrices of the chain.
    ///
    /// # Errors
    /// As [`Members::measure`].
    pub fn of_layer(problem: &Session, layer: &str, pairs: &BatchPairs) -> Result<Diagonals> {
        let layer = problem.layer(layer)?;
        let moments = layer.moments()?;
        let basis = Eigenbasis::of(moments.hessian.as_ref())?;
        let states = States::of(&layer)?;
        Ok(Diagonals {
            covariance: basis.diagonal(moments.covariance.as_ref())?,
            curvature_second_moment: basis.diagonal(moments.curvature_second_moment.as_ref())?,
            awd_raw: Terms::of(&states, pairs).express(&basis).raw_diagonal(),
            hessian: basis.values,
        })
    }
}

/// The diagonal of a square matrix.
pub fn diagonal(matrix: &Mat<f64>) -> Vec<f64> {
    matrix.diagonal().column_vector().iter().copied().collect()
}
