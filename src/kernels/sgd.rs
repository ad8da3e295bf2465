//! The SGD update (`shaders/sgd.wgsl`).

use crate::Result;
use crate::gpu::{Recorder, Shader, View, Work, grid};

/// The WGSL, for the tests that validate every shader.
pub const SHADER: Shader =
    Shader { name: "sgd", files: &[super::COMMON, include_str!("../../shaders/sgd.wgsl")] };

/// `m ← μ m + (g + λ θ)`, `θ ← θ − η m`, with η, μ and λ of the step; all of one length, a multiple of 4 as that of a
/// subspace's vectors is.
pub fn sgd(rec: &mut Recorder, gradient: &View, theta: &View, momentum: &View) -> Result<()> {
    assert!(gradient.len() == theta.len() && momentum.len() == theta.len(), "sgd's shapes");
    assert!(theta.len().is_multiple_of(4), "sgd's vectors are padded");
    let kernel = rec.gpu().kernel(SHADER, "sgd", &[])?;
    let bindings = [("g", gradient), ("theta", theta), ("m", momentum)];
    let fours = theta.len() / 4;
    let work = Work::new(5.0 * theta.len() as f64, 0);
    rec.dispatch(&kernel, &bindings, &(fours as u32), grid(fours, 64), work)
}
