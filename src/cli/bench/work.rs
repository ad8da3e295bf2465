//! Hessian-vector products and SGD steps, timed.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;
use serde_json::{Value, json};

use super::ceilings::{Ceilings, seconds};
use super::profile::{Line, lines};
use crate::cli::args::open_network;
use crate::data::{Dataset, Targets};
use crate::gpu::Gpu;
use crate::net::{Layer, Loss, Model, Network};
use crate::operators::{Block, Curvature, Session, SymmetricOperator};
use crate::train::{TrainOptions, Trainer};
use crate::{Error, Result};

#[derive(Args)]
pub struct Hvp {
    /// A model file, or a name that `curvkit models` lists; by default a fully connected network,
    /// 784-1024-512-256-128-64-10.
    #[arg(long, value_name = "TOML|NAME")]
    model: Option<PathBuf>,
    /// N.
    #[arg(long, default_value_t = 512, value_name = "N")]
    samples: usize,
    /// Numbers of directions in a block.
    #[arg(long, value_delimiter = ',', default_value = "1,4,16", value_name = "K,…")]
    blocks: Vec<usize>,
    /// Also what each kernel takes.
    #[arg(long)]
    profile: bool,
}

#[derive(Args)]
pub struct Train {
    /// A model file, or a name that `curvkit models` lists; by default a fully connected network without
    /// biases, 784-50-50-10.
    #[arg(long, value_name = "TOML|NAME")]
    model: Option<PathBuf>,
    /// B.
    #[arg(long, default_value_t = 50, value_name = "B")]
    batch_size: usize,
}

#[derive(Serialize)]
struct HvpRate {
    k: usize,
    seconds: f64,
    hvps_per_second: f64,
    samples_per_second: f64,
    flops: f64,
    share_of_gemm: f64,
    dispatches: usize,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    profile: Vec<Line>,
}

/// Inputs in [0, 1], or token ids none of which is masked, and classes in turn: the figures do not depend on
/// the values.
pub fn made_up(network: &Network, samples: usize) -> Result<Dataset> {
    let inputs = match (network.token_ids(), network.sample_shape()) {
        (Some(ids), &[_, tokens]) => {
            let id = |n: usize, t: usize| ((n * tokens + t) * 7919 % ids) as f32;
            let sample = |n| (0..tokens).map(move |t| id(n, t)).chain((0..tokens).map(|_| 1.0));
            (0..samples).flat_map(sample).collect()
        }
        _ => (0..samples * network.input_len()).map(|i| (i * 7919 % 1000) as f32 / 1000.0).collect(),
    };
    let classes = (0..samples as u32).map(|i| i % network.outputs() as u32).collect();
    Dataset::new(inputs, network.sample_shape().to_vec(), Targets::Classes(classes))
}

/// `size`, which an option gave and which has to be at least 1.
pub fn positive(option: &str, size: usize) -> Result<usize> {
    if size == 0 { Err(Error::argument(option, size, "at least 1")) } else { Ok(size) }
}

pub fn network(chosen: &Option<PathBuf>, default: (&[usize], bool)) -> Result<Network> {
    match chosen {
        None => Network::new(&Model::mlp(default.0, Layer::Relu, default.1)),
        Some(model) => open_network(model),
    }
}

impl Hvp {
    pub fn network(&self) -> Result<Network> {
        positive("--samples", self.samples)?;
        self.blocks.iter().try_for_each(|&k| positive("--blocks", k).map(drop))?;
        network(&self.model, (&[784, 1024, 512, 256, 128, 64, 10], true))
    }

    pub fn run(&self, gpu: &Gpu, network: &Network, ceilings: &Ceilings) -> Result<Value> {
        let data = made_up(network, self.samples)?;
        let theta = network.initial_parameters(0);
        let problem = Session::new(gpu, network, &theta, &data, Loss::CrossEntropy)?;
        let space = network.all();
        let operator = problem.operator(Curvature::Hessian, &space)?;
        let mut rows = Vec::new();
        for &k in &self.blocks {
            let directions = network.initial_parameters(1).repeat(k);
            let x = Block::upload(gpu, space.stride, &space.pad(&directions)?)?;
            let y = Block::zeros(gpu, space.stride, k)?;
            let seconds = seconds(gpu, || operator.apply(&x, &y))?;
            let (flops, dispatches, _) = operator.cost(k)?;
            rows.push(HvpRate {
                k,
                seconds,
                hvps_per_second: k as f64 / seconds,
                samples_per_second: (k * self.samples) as f64 / seconds,
                flops: flops / seconds,
                share_of_gemm: flops / seconds / ceilings.gemm,
                dispatches,
                profile: if self.profile { lines(operator.profile(k)?) } else { vec![] },
            });
        }
        Ok(json!({ "parameters": network.dim(), "samples": self.samples, "rows": rows }))
    }
}

impl Train {
    pub fn network(&self) -> Result<Network> {
        positive("--batch-size", self.batch_size)?;
        network(&self.model, (&[784, 50, 50, 10], false))
    }

    pub fn run(&self, gpu: &Gpu, network: &Network, ceilings: &Ceilings) -> Result<Value> {
        let batch = self.batch_size;
        let trainer = |steps: usize| {
            let data = made_up(network, batch * steps)?;
            let theta = network.initial_parameters(0);
            let session = Session::new(gpu, network, &theta, &data, Loss::CrossEntropy)?;
            Trainer::new(&session, TrainOptions::sgd(0.01, batch, 1))
        };
        // a software adapter's seconds, and enough of them for a GPU to get up to speed
        let steps = (1e11 / trainer(1)?.flops_per_step()).clamp(8.0, 400.0) as usize;
        let mut trainer = trainer(steps)?;
        let seconds = seconds(gpu, || trainer.run_epoch().map(drop))? / steps as f64;
        let dispatches = trainer.dispatches_per_step();
        let flops = trainer.flops_per_step();
        let floor = dispatches as f64 * ceilings.dispatch + flops / ceilings.gemm;
        Ok(json!({ "parameters": network.dim(), "rows": [{
            "batch": batch, "seconds": seconds, "steps_per_second": 1.0 / seconds, "dispatches": dispatches,
            "flops": flops / seconds, "floor_seconds": floor, "times_floor": seconds / floor,
        }]}))
    }
}
