//! Eigenpairs by block Lanczos, for several widths of the block.

use std::path::PathBuf;
use std::time::Instant;

use clap::Args;
use serde::Serialize;
use serde_json::{Value, json};

use super::ceilings::Ceilings;
use super::work::{made_up, network, positive};
use crate::cli::timed::Timed;
use crate::gpu::Gpu;
use crate::net::{Loss, Network};
use crate::operators::{Curvature, Session};
use crate::spectral::{LanczosOptions, eigenpairs, unobserved};
use crate::{Error, Result};

#[derive(Args)]
pub struct Spectrum {
    /// A model file, or a name that `curvkit models` lists; by default a fully connected network without
    /// biases, 784-50-50-10.
    #[arg(long, value_name = "TOML|NAME")]
    model: Option<PathBuf>,
    /// N.
    #[arg(long, default_value_t = 512, value_name = "N")]
    samples: usize,
    /// How many eigenpairs of the Hessian.
    #[arg(long, default_value_t = 20, value_name = "K")]
    top: usize,
    #[arg(long, default_value_t = 1e-4, value_name = "T")]
    tolerance: f64,
    /// Widths of the block.
    #[arg(long, value_delimiter = ',', default_value = "1,2,4,8,16,32", value_name = "B,…")]
    blocks: Vec<usize>,
}

#[derive(Serialize)]
struct Row {
    block: usize,
    converged: usize,
    products: usize,
    products_per_pair: f64,
    seconds: f64,
    /// Of the time, what is not products.
    share_outside: f64,
    /// Of the GEMM ceiling, what the products run at.
    share_of_gemm: f64,
}

impl Spectrum {
    pub fn network(&self) -> Result<Network> {
        positive("--samples", self.samples)?;
        self.blocks.iter().try_for_each(|&block| positive("--blocks", block).map(drop))?;
        let network = network(&self.model, (&[784, 50, 50, 10], false))?;
        if !(1..=network.dim()).contains(&self.top) {
            let expected = format!("1 to {}, the number of parameters", network.dim());
            return Err(Error::argument("--top", self.top, expected));
        }
        Ok(network)
    }

    pub fn run(&self, gpu: &Gpu, network: &Network, ceilings: &Ceilings) -> Result<Value> {
        let data = made_up(network, self.samples)?;
        let problem = Session::new(gpu, network, &network.initial_parameters(0), &data, Loss::CrossEntropy)?;
        let operator = problem.operator(Curvature::Hessian, &network.all())?;
        let mut rows = Vec::new();
        for &block in &self.blocks {
            let timed = Timed::new(&operator);
            let options = LanczosOptions {
                block: Some(block),
                tolerance: self.tolerance,
                ..LanczosOptions::new(self.top)
            };
            let start = Instant::now();
            let pairs = eigenpairs(&timed, options, &mut unobserved)?;
            let seconds = start.elapsed().as_secs_f64();
            let converged = pairs.converged.iter().filter(|&&converged| converged).count();
            // of as many full blocks, to which the last one of a run comes close
            let flops = operator.cost(block)?.0 / block as f64 * pairs.products as f64;
            rows.push(Row {
                block,
                converged,
                products: pairs.products,
                products_per_pair: pairs.products as f64 / converged.max(1) as f64,
                seconds,
                share_outside: 1.0 - timed.seconds() / seconds,
                share_of_gemm: flops / timed.seconds() / ceilings.gemm,
            });
        }
        Ok(json!({ "parameters": network.dim(), "samples": self.samples, "top": self.top, "rows": rows }))
    }
}
