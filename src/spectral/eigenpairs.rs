//! What an eigensolver returns, and its file.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::Basis;
use crate::Result;
use crate::data::{Elements, TensorFile, write_state};
use crate::operators::{Block, SymmetricOperator};

/// The metadata's key under which [`Certificate`] stands.
const KEY: &str = "eigenpairs";

/// Eigenpairs, the most wanted first.
pub struct Eigenpairs {
    /// λ, the vectors' Rayleigh quotients: `[K]`, or as many as the budget of products sufficed for.
    pub values: Vec<f64>,
    /// `‖A v − λ v‖ / |λ₁|` by fresh products, `[K]`; 0 for the zero matrix, which has no λ₁ to measure by.
    pub residuals: Vec<f64>,
    /// |λ₁|, the largest magnitude of an eigenvalue that was seen.
    pub scale: f64,
    /// Whether the residual is within the tolerance, `[K]`.
    pub converged: Vec<bool>,
    /// Where pairs have not converged because the rounding of products hides what is left of their residuals, so that
    /// no more of them would help: the largest residual.
    pub floor: Option<f64>,
    /// Whether something has shown that none was missed: a fresh random vector's Krylov sequence, which only
    /// Lanczos makes, or a basis that spans the space.
    pub complete: bool,
    /// v, orthonormal: K vectors.
    pub vectors: Basis,
    /// Products spent, those for the residuals included.
    pub products: usize,
}

/// What [`Eigenpairs::save`] writes beside numbers and vectors.
#[derive(Serialize, Deserialize)]
struct Certificate {
    scale: f64,
    converged: Vec<bool>,
    floor: Option<f64>,
    complete: bool,
    products: usize,
}

impl Eigenpairs {
    /// Writes them to a safetensors file: `eigenvalues` and `residuals` `[K]` in F64, `eigenvectors` `[K, dim]` in F32,
    /// the rest in the file's metadata beside the caller's `metadata` (key, text).
    ///
    /// # Errors
    /// [`crate::Error::Io`], and the device's errors.
    pub fn save(
        &self,
        operator: &dyn SymmetricOperator,
        path: impl AsRef<Path>,
        metadata: &[(&str, &str)],
    ) -> Result<()> {
        let (k, dim) = (self.values.len(), operator.dim());
        let certificate = Certificate {
            scale: self.scale,
            converged: self.converged.clone(),
            floor: self.floor,
            complete: self.complete,
            products: self.products,
        };
        let certificate = serde_json::to_string(&certificate).expect("numbers and words are JSON");
        let vectors = operator.unpad(&self.vectors.download()?)?;
        write_state(
            path,
            &[
                ("eigenvalues", &[k], Elements::F64(&self.values)),
                ("residuals", &[k], Elements::F64(&self.residuals)),
                ("eigenvectors", &[k, dim], Elements::F32(&vectors)),
            ],
            &[metadata, &[(KEY, &certificate)]].concat(),
        )
    }

    /// Reads what [`Eigenpairs::save`] wrote of an operator of as many coordinates, onto the operator's device.
    ///
    /// # Errors
    /// [`crate::Error::File`] where the file is no such one, is damaged, or is of another dimension, [`crate::Error::Io`], and the
    /// device's errors.
    pub fn read(operator: &dyn SymmetricOperator, path: impl AsRef<Path>) -> Result<Eigenpairs> {
        let path = path.as_ref();
        let file = TensorFile::read(path)?;
        let certificate: Certificate = file.json(KEY, "eigenpairs with their certificate")?;
        file.check_undamaged()?;
        let k = certificate.converged.len();
        let vectors = operator.pad(&file.f32("eigenvectors", &[k, operator.dim()])?)?;
        let mut basis = Basis::new(operator.gpu(), operator.stride(), k)?;
        basis.append(&Block::upload(operator.gpu(), operator.stride(), &vectors)?)?;
        Ok(Eigenpairs {
            values: file.f64("eigenvalues", &[k])?,
            residuals: file.f64("residuals", &[k])?,
            scale: certificate.scale,
            converged: certificate.converged,
            floor: certificate.floor,
            complete: certificate.complete,
            vectors: basis,
            products: certificate.products,
        })
    }

    /// The same, of an iteration that has done all it could where it is `exhausted`.
    pub(super) fn with_floor(self, exhausted: bool) -> Eigenpairs {
        let short = exhausted && self.converged.contains(&false);
        let floor = short.then(|| self.residuals.iter().copied().fold(0.0, f64::max));
        Eigenpairs { floor, ..self }
    }
}
