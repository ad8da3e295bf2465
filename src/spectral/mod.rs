//! Spectra of symmetric operators on device-resident vectors.

mod algebra;
mod basis;
mod orthonormalise;

pub use algebra::{Distribution, RandomVectors, Vectors, combine, copy, gram};
pub use basis::Basis;
pub use orthonormalise::{Orthonormal, orthonormalise};
