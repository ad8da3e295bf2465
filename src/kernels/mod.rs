//! One module per WGSL file: typed arguments, shapes checked, dispatch.
//!
//! Every function records onto a [`crate::gpu::Recorder`]. Lengths are asserted: a wrong one is a mistake
//! of the caller's within this crate, not of the user's input.

pub mod gather;
pub mod gemm;
pub mod loss;
pub mod outer;
pub mod pack;
pub mod pointwise;
pub mod rows;
pub mod sgd;
pub mod vector;

use crate::gpu::Shader;

const COMMON: &str = include_str!("../../shaders/common.wgsl");

/// Every shader with its entry points, for the tests that validate and translate them all.
pub fn shaders() -> Vec<(Shader, &'static [&'static str])> {
    let mut all: Vec<(Shader, &'static [&'static str])> = vec![
        (gather::SHADER, &["gather"]),
        (loss::SHADER, &["primal", "tangent", "noise_seed"]),
        (outer::SHADER, &["outer"]),
        (pack::SHADER, &["matrix", "square"]),
        (pointwise::SHADER, &["jet0", "jet1", "jet2", "adjoint_block", "adjoint1", "adjoint2"]),
        (rows::SHADER, &["broadcast", "column_sum"]),
        (sgd::SHADER, &["sgd"]),
        (vector::SHADER, &["combine", "add_outer", "units", "dot", "row_sum"]),
    ];
    all.extend(gemm::shaders());
    all
}
