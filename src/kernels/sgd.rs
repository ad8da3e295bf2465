//! The SGD update (`shaders/sgd.wgsl`).

use crate::Result;
use crate::gpu::{Recorder, Shader, View, grid};

pub const SHADER: Shader =
    Shader { name: "sgd", files: &[super::COMMON, include_str!("../../shaders/sgd.wgsl")] };

/// `m ← μ m + (g + λ θ)`, `θ ← θ − η m`, with η, μ and λ of the step; all of one length.
pub fn sgd(rec: &mut Recorder, gradient: &View, theta: &View, momentum: &View) -> Result<()> {
    assert!(gradient.len() == theta.len() && momentum.len() == theta.len(), "sgd's shapes");
    let kernel = rec.gpu().kernel(SHADER, "sgd", &[])?;
    let bindings = [("g", gradient), ("theta", theta), ("m", momentum)];
    let params = [theta.len() as u32, 0, 0, 0];
    rec.dispatch(&kernel, &bindings, &params, grid(theta.len(), 64), 5.0 * theta.len() as f64)
}
