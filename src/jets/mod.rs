//! The jet programs: forward and reverse sweeps at orders 0, 1 and 2, for blocks of directions.
//!
//! [`plan`](mod@plan) turns a graph and a request into instructions, [`sweep`] gives their tensors memory and records
//! them, [`ops`] says which kernels a linear or bilinear map is, forward, transposed and batched.

pub mod ops;
pub mod plan;
pub mod samples;
pub mod sweep;

pub use samples::Samples;
pub use sweep::{Sweep, Workload};
