//! `curvkit` measures the geometry of neural-network training on any GPU that Vulkan, Metal or DX12
//! drives: gradients, per-sample gradients, Hessian-, Gauss–Newton- and noise-covariance-vector
//! products, third derivatives, and the SGD runs that they describe. Every number is computed by a
//! hand-written WGSL kernel under a thin host layer.
//!
//! Modules depend downwards only; `docs/architecture.md` says how they fit together:
//!
//! | module | holds |
//! |---|---|
//! | [`gpu`] | device, buffers, pipelines, recording, read-back, limits, errors |
//! | `kernels` | one Rust module per WGSL file: typed arguments, shapes, dispatch (public with the feature `unstable`) |
//! | [`data`] | data sets and tensor files |
//! | [`net`] | model files, parameters, the graph |
//! | `jets` | the jet programs: forward and reverse sweeps at orders 0, 1 and 2 (public with the feature `unstable`) |
//! | [`operators`] | Hessian, GGN, noise covariance and dense matrices on device-resident blocks |
//! | [`spectral`] | block Lanczos, LOBPCG, quadrature, traces, and linear algebra on blocks of vectors |
//! | [`train`] | SGD, samplers, schedules |
//! | [`stats`] | fits, correlations, tests |
//! | `runs` | a run's folder: lock, record, resumption (feature `cli`) |
//! | `papers`, `report`, `cli` | the reproductions and the command line (feature `cli`) |

#![warn(missing_docs)]

pub mod data;
mod error;
mod files;
pub mod gpu;
pub mod net;
pub mod operators;
pub mod spectral;
pub mod stats;
pub mod train;

// what programs may build on without the promise that it stays as it is
#[cfg(feature = "unstable")]
pub mod jets;
#[cfg(not(feature = "unstable"))]
mod jets;
#[cfg(feature = "unstable")]
pub mod kernels;
#[cfg(not(feature = "unstable"))]
mod kernels;

#[cfg(feature = "cli")]
pub mod cli;
#[cfg(feature = "cli")]
pub mod papers;
#[cfg(feature = "cli")]
pub mod report;
#[cfg(feature = "cli")]
pub mod runs;

pub use error::{Error, Result, Undefined};
/// Both stand in signatures: matrices of the host, and devices and buffers of the caller's.
pub use {faer, wgpu};

/// The README's example is a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
