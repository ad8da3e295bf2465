//! `curvkit bench`: what this adapter does, and how far from its own ceilings the crate's programs are.

use std::time::Instant;

use clap::{Args, ValueEnum};
use serde::Serialize;
use serde_json::json;

use super::Device;
use super::record;
use crate::data::{Dataset, Targets};
use crate::gpu::{Gpu, Recorder};
use crate::kernels::gemm::{Family, Layout, Shape, Tuning, rate};
use crate::kernels::vector;
use crate::net::{Layer, Loss, Model, Network};
use crate::operators::{Block, Curvature, Problem, SymmetricOperator};
use crate::train::{TrainOptions, Trainer};
use crate::{Error, Result};

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Subject {
    /// Matrix products and the copy bandwidth: the ceilings.
    Gemm,
    /// Hessian-vector products in blocks of 1, 4 and 16.
    Hvp,
    /// SGD steps.
    Train,
}

#[derive(Args)]
pub struct Bench {
    #[arg(value_enum)]
    subject: Subject,
    /// Widths of the fully connected network; by default the design's for the subject.
    #[arg(long, value_delimiter = ',', value_name = "WIDTH,…")]
    widths: Option<Vec<usize>>,
    /// Samples (hvp) or batch size (train).
    #[arg(long, value_name = "N")]
    samples: Option<usize>,
    /// Block sizes for hvp.
    #[arg(long, value_delimiter = ',', default_value = "1,4,16", value_name = "K,…")]
    blocks: Vec<usize>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// The ceilings: what every share is a share of.
#[derive(Clone, Debug, Serialize)]
struct Ceilings {
    /// The best rate of the products below, floating-point operations a second.
    gemm: f64,
    /// Bytes read and written a second by a copy.
    bandwidth: f64,
    /// Seconds that a dispatch takes that does next to nothing.
    dispatch: f64,
    products: Vec<ProductRate>,
}

#[derive(Clone, Debug, Serialize)]
struct ProductRate {
    family: Family,
    layout: Layout,
    batch: usize,
    m: usize,
    n: usize,
    k: usize,
    flops: f64,
}

/// Seconds of one `work`, the best of several runs over half a second or more.
fn seconds(gpu: &Gpu, mut work: impl FnMut() -> Result<()>) -> Result<f64> {
    work()?;
    gpu.wait()?;
    let (mut best, start) = (f64::INFINITY, Instant::now());
    let mut runs = 0;
    while runs < 3 || (start.elapsed().as_secs_f64() < 2.0 && runs < 50) {
        let run = Instant::now();
        work()?;
        gpu.wait()?;
        best = best.min(run.elapsed().as_secs_f64());
        runs += 1;
    }
    Ok(best)
}

fn ceilings(gpu: &Gpu) -> Result<Ceilings> {
    let mut products = Vec::new();
    let software = gpu.info().device_type == wgpu::DeviceType::Cpu;
    // a software adapter takes seconds for what a GPU needs to get up to speed
    let sizes: &[usize] = if software { &[256, 512, 1000] } else { &[512, 1024, 2048, 4096] };
    for &size in sizes {
        for layout in [Layout::NT, Layout::NN, Layout::TN] {
            for family in [Family::Register, Family::Workgroup] {
                let shape = Shape { batch: 1, m: size, n: size, k: size };
                let runs = ((1u64 << 30) as f64 / shape.flops()).ceil().clamp(1.0, 16.0) as usize;
                let flops = rate(gpu, family, layout, shape, runs)?;
                products.push(ProductRate { family, layout, batch: 1, m: size, n: size, k: size, flops });
            }
        }
    }
    let gemm = products.iter().fold(0.0, |best: f64, p| best.max(p.flops));
    let words = (16 << 20).min(gpu.max_binding_len());
    let (from, to) = (gpu.zeros(words)?, gpu.zeros(words)?);
    let mut copy = Recorder::new(gpu);
    vector::combine(&mut copy, 1.0, &from.view(), 0.0, &to.view())?;
    let copy = copy.finish()?;
    let bandwidth = 8.0 * words as f64 / seconds(gpu, || copy.run())?;
    let mut empty = Recorder::new(gpu);
    for _ in 0..200 {
        vector::combine(&mut empty, 1.0, &from.slice(0, 64), 0.0, &to.slice(0, 64))?;
    }
    let empty = empty.finish()?;
    let dispatch = seconds(gpu, || empty.run())? / 200.0;
    Ok(Ceilings { gemm, bandwidth, dispatch, products })
}

/// Inputs in [0, 1] and classes in turn: the figures do not depend on the values.
fn made_up(width: usize, outputs: usize, samples: usize) -> Result<Dataset> {
    let inputs = (0..samples * width).map(|i| (i * 7919 % 1000) as f32 / 1000.0).collect();
    let classes = (0..samples as u32).map(|i| i % outputs as u32).collect();
    Dataset::new(inputs, vec![width], Targets::Classes(classes))
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
}

impl Bench {
    pub fn run(&self, device: &Device) -> Result<String> {
        if let Some(k) = self.blocks.iter().find(|&&k| k == 0) {
            return Err(Error::argument("--blocks", k, "at least 1"));
        }
        let gpu = device.open()?;
        let ceilings = ceilings(&gpu)?;
        let result = match self.subject {
            Subject::Gemm => json!({}),
            Subject::Hvp => self.hvp(&gpu, &ceilings)?,
            Subject::Train => self.train(&gpu, &ceilings)?,
        };
        let all = json!({
            "adapter": record::adapter(&gpu), "version": env!("CARGO_PKG_VERSION"),
            "ceilings": ceilings, "small_product": Tuning::SMALL, "result": result,
        });
        if self.json {
            return Ok(record::json(&all));
        }
        let info = gpu.info();
        let mut lines =
            vec![format!("{} · {} {} · {}", info.name, info.driver, info.driver_info, info.backend)];
        for p in &ceilings.products {
            let family = format!("{:?}", p.family).to_lowercase();
            lines.push(format!(
                "product {:>5}³ {:?} {family:<10} {:>7.2} GFLOP/s",
                p.m,
                p.layout,
                p.flops / 1e9
            ));
        }
        lines.push(format!("copy                    {:>9.2} GB/s", ceilings.bandwidth / 1e9));
        lines.push(format!("dispatch                {:>9.2} µs", ceilings.dispatch * 1e6));
        lines.extend(rows(&result));
        Ok(lines.join("\n"))
    }

    fn network(&self, default: &[usize], bias: bool) -> Result<Network> {
        let widths = self.widths.as_deref().unwrap_or(default);
        if widths.len() < 2 || widths.contains(&0) {
            return Err(Error::argument("--widths", format!("{widths:?}"), "two or more positive widths"));
        }
        Network::new(&Model::mlp(widths, Layer::Relu, bias))
    }

    fn hvp(&self, gpu: &Gpu, ceilings: &Ceilings) -> Result<serde_json::Value> {
        let network = self.network(&[784, 1024, 512, 256, 128, 64, 10], true)?;
        let samples = self.samples.unwrap_or(512);
        let data = made_up(network.input_len(), network.outputs(), samples)?;
        let theta = network.initial_parameters(0);
        let problem = Problem::new(gpu, &network, &theta, &data, Loss::CrossEntropy)?;
        let space = network.all();
        let operator = problem.operator(Curvature::Hessian, &space)?;
        let mut rows = Vec::new();
        for &k in &self.blocks {
            let directions = network.initial_parameters(1).repeat(k);
            let x = Block::upload(gpu, space.stride, &space.pad(&directions))?;
            let y = Block::zeros(gpu, space.stride, k)?;
            let seconds = seconds(gpu, || operator.apply(&x, &y))?;
            let (flops, dispatches, _) = operator.cost(k)?;
            rows.push(HvpRate {
                k,
                seconds,
                hvps_per_second: k as f64 / seconds,
                samples_per_second: (k * samples) as f64 / seconds,
                flops: flops / seconds,
                share_of_gemm: flops / seconds / ceilings.gemm,
                dispatches,
            });
        }
        Ok(json!({ "parameters": network.dim(), "samples": samples, "rows": rows }))
    }

    fn train(&self, gpu: &Gpu, ceilings: &Ceilings) -> Result<serde_json::Value> {
        let network = self.network(&[784, 50, 50, 10], false)?;
        let batch = self.samples.unwrap_or(50);
        let steps = 400;
        let data = made_up(network.input_len(), network.outputs(), batch * steps)?;
        let options = TrainOptions::sgd(Loss::CrossEntropy, 0.01, batch, 1);
        let mut trainer = Trainer::new(gpu, &network, network.initial_parameters(0), &data, options)?;
        let seconds = seconds(gpu, || trainer.run_epoch().map(drop))? / steps as f64;
        let dispatches = trainer.dispatches_per_step();
        let floor = dispatches as f64 * ceilings.dispatch + trainer.flops_per_step() / ceilings.gemm;
        Ok(json!({ "parameters": network.dim(), "rows": [{
            "batch": batch, "seconds": seconds, "steps_per_second": 1.0 / seconds, "dispatches": dispatches,
            "flops": trainer.flops_per_step() / seconds, "floor_seconds": floor, "times_floor": seconds / floor,
        }]}))
    }
}

/// The rows of a result, a line each.
fn rows(result: &serde_json::Value) -> Vec<String> {
    let (Some(rows), Some(p)) = (result["rows"].as_array(), result["parameters"].as_u64()) else {
        return vec![];
    };
    let row = |row: &serde_json::Map<String, serde_json::Value>| {
        let cells = row.iter().map(|(name, value)| match value.as_f64() {
            Some(v) if value.is_u64() => format!("{name} {v}"),
            Some(v) if v.abs() < 0.01 => format!("{name} {v:.3e}"),
            Some(v) => format!("{name} {v:.3}"),
            None => format!("{name} {value}"),
        });
        format!("  {}", cells.collect::<Vec<_>>().join("  "))
    };
    let lines = rows.iter().filter_map(|row| row.as_object()).map(row);
    std::iter::once(format!("{p} parameters")).chain(lines).collect()
}
