//! The curvature of one fully connected layer: its moments, and every sample's spectrum.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;
use serde_json::{Value, json};

use super::ceilings::{Ceilings, seconds};
use super::work::{made_up, network, positive};
use crate::Result;
use crate::data::read_parameters;
use crate::gpu::Gpu;
use crate::kernels::pack::packed_len;
use crate::net::{Loss, Network};
use crate::operators::{Session, layer_shape};

#[derive(Args)]
pub struct Layer {
    /// A model file, or a name that `curvkit models` lists; by default a fully connected network without
    /// biases, 784-50-50-10.
    #[arg(long, value_name = "TOML|NAME")]
    model: Option<PathBuf>,
    /// The weights of the fully connected layer.
    #[arg(long, default_value = "2.weight", value_name = "NAME")]
    layer: String,
    /// A checkpoint; first parameters if not given.
    #[arg(long, value_name = "FILE")]
    weights: Option<PathBuf>,
    /// N.
    #[arg(long, default_value_t = 20_000, value_name = "N")]
    samples: usize,
}

#[derive(Serialize)]
struct Row {
    /// moments: H, C and E[h²] in full; spectra: the eigenpairs of every sample's Hessian, read back.
    measure: &'static str,
    seconds: f64,
    samples_per_second: f64,
    /// Of the GEMM ceiling, what the moments' three products of packed factors alone make up.
    #[serde(skip_serializing_if = "Option::is_none")]
    share_of_gemm: Option<f64>,
}

impl Layer {
    pub fn network(&self) -> Result<Network> {
        positive("--samples", self.samples)?;
        let network = network(&self.model, (&[784, 50, 50, 10], false))?;
        layer_shape(&network, &self.layer)?;
        Ok(network)
    }

    pub fn run(&self, gpu: &Gpu, network: &Network, ceilings: &Ceilings) -> Result<Value> {
        let data = made_up(network, self.samples)?;
        let theta = match &self.weights {
            Some(path) => read_parameters(path, &network.signature())?,
            None => network.initial_parameters(0),
        };
        let problem = Session::new(gpu, network, &theta, &data, Loss::CrossEntropy)?;
        let layer = problem.layer(&self.layer)?;
        let (d_out, d_in, n) = (layer.d_out(), layer.d_in(), self.samples as f64);
        let flops = 3.0 * 2.0 * n * (packed_len(d_out) * packed_len(d_in)) as f64;
        let moments = seconds(gpu, || layer.moments().map(drop))?;
        let spectra = seconds(gpu, || layer.spectra(|_| Ok(())))?;
        let rows = [("moments", moments, Some(flops / moments / ceilings.gemm)), ("spectra", spectra, None)];
        let rows = rows.map(|(measure, seconds, share_of_gemm)| Row {
            measure,
            seconds,
            samples_per_second: n / seconds,
            share_of_gemm,
        });
        Ok(json!({
            "parameters": network.dim(), "samples": self.samples, "dimension": d_out * d_in, "rows": rows,
        }))
    }
}
