//! Spectra of symmetric operators on device-resident vectors.
//!
//! [`eigenpairs`] finds some at an end of the spectrum of whatever implements
//! [`SymmetricOperator`](crate::operators::SymmetricOperator): the curvature of a
//! [`Session`](crate::operators::Session), or an operator of the caller's:
//!
//! ```
//! use curvkit::gpu::{Gpu, GpuOptions};
//! use curvkit::operators::{Block, SymmetricOperator};
//! use curvkit::spectral::{LanczosOptions, Which, eigenpairs, unobserved};
//!
//! /// A diagonal matrix, multiplied on the host; a kernel of yours would record onto the device.
//! struct Diagonal {
//!     gpu: Gpu,
//!     entries: Vec<f32>,
//! }
//!
//! impl SymmetricOperator for Diagonal {
//!     fn gpu(&self) -> &Gpu {
//!         &self.gpu
//!     }
//!
//!     fn dim(&self) -> usize {
//!         self.entries.len()
//!     }
//!
//!     fn stride(&self) -> usize {
//!         self.dim().next_multiple_of(64)
//!     }
//!
//!     fn apply(&self, x: &Block, y: &Block) -> curvkit::Result<()> {
//!         for ((_, from), (_, to)) in x.runs(0, x.len()).into_iter().zip(y.runs(0, y.len())) {
//!             let mut values: Vec<f32> = self.gpu.read(&from)?;
//!             for vector in values.chunks_mut(self.stride()) {
//!                 vector.iter_mut().zip(&self.entries).for_each(|(value, entry)| *value *= entry);
//!             }
//!             self.gpu.write(&to, &values)?;
//!         }
//!         Ok(())
//!     }
//! }
//!
//! # fn main() -> curvkit::Result<()> {
//! let gpu = Gpu::new(&GpuOptions::default())?;
//! let entries = (0..500).map(|i| 1.0 / (1.0 + i as f32)).collect();
//! let operator = Diagonal { gpu, entries };
//! let options = LanczosOptions { which: Which::Largest, tolerance: 1e-5, ..LanczosOptions::new(3) };
//! let pairs = eigenpairs(&operator, options, &mut unobserved)?;
//! assert!(pairs.complete && pairs.converged.iter().all(|&converged| converged));
//! assert!((pairs.values[1] - 0.5).abs() < 1e-5);
//! let v = operator.unpad(&pairs.vectors.download()?)?; // [K, dim]
//! assert!((v[500 + 1].abs() - 1.0).abs() < 1e-3);
//! # Ok(())
//! # }
//! ```
//!
//! [`Lanczos`] does the same step by step, and can be saved and resumed. Every solver tells an [`Observer`] how far it is
//! and ends where that one stops it. Beside Lanczos there are
//!
//! | function | finds |
//! |---|---|
//! | [`lobpcg`] | some pairs at an end, from vectors near them, with a preconditioner |
//! | [`family_eigenpairs`] | some pairs of each of many operators at once, an [`OperatorFamily`](crate::operators::OperatorFamily) |
//! | [`quadrature`] | the density of the spectrum, its moments, the mean of a function over it |
//! | [`hutchinson`] | the trace, ‖A‖_F and A's diagonal, from the same products |
//! | [`hutch_plus_plus`], [`xtrace`] | the trace, with fewer products |
//! | [`power_iteration`] | \|λ₁\| |
//! | [`rayleigh_quotients`] | A's diagonal in any basis |
//!
//! All build on the same ground: [`gram`](crate::operators::gram) and [`combine`](crate::operators::combine),
//! [`dots`](crate::operators::dots) and [`combine_each`](crate::operators::combine_each), [`RandomVectors`], [`Basis`]
//! and [`orthonormalise`].

mod basis;
mod batched;
mod comparison;
mod eigenpairs;
mod estimate;
mod lanczos;
mod lobpcg;
mod observer;
mod options;
mod orthonormalise;
mod power;
mod products;
mod projection;
mod quadrature;
mod random;
mod recurrence;
mod state;
mod trace;
mod width;

pub use basis::Basis;
pub use batched::{FamilyEigenpairs, FamilyOptions, family_eigenpairs};
pub use comparison::Comparison;
pub use eigenpairs::Eigenpairs;
pub use estimate::Estimate;
pub use lanczos::{Lanczos, eigenpairs};
pub use lobpcg::{LobpcgOptions, Preconditioner, lobpcg};
pub use observer::{Observer, Progress, unobserved};
pub use options::{LanczosOptions, Start, Which};
pub use orthonormalise::{Orthonormal, orthonormalise};
pub use power::{LargestMagnitude, power_iteration};
pub use products::rayleigh_quotients;
pub use quadrature::{Density, LogDensity, Quadrature, QuadratureOptions, Rule, quadrature};
pub use random::{Distribution, RandomVectors};
pub use trace::{Hutchinson, hutch_plus_plus, hutchinson, xtrace};
pub use width::cheapest_block;
