//! `curvkit bench`: what this adapter does, and how far from its own ceilings the crate's programs are.

mod ceilings;
mod layer;
mod profile;
mod spectrum;
mod work;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use self::ceilings::{Ceilings, ceilings};
use self::layer::Layer;
use self::spectrum::Spectrum;
use self::work::{Hvp, Train};
use super::{Device, record};
use crate::Result;
use crate::gpu::Gpu;
use crate::kernels::gemm::Tuning;
use crate::runs;

#[derive(Args)]
pub struct Bench {
    #[command(subcommand)]
    subject: Subject,
    /// Print JSON.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Subcommand)]
enum Subject {
    /// Matrix products and the copy bandwidth: the ceilings, which the other subjects measure too.
    Gemm,
    /// Hessian-vector products in blocks.
    Hvp(Hvp),
    /// SGD steps.
    Train(Train),
    /// Eigenpairs by block Lanczos.
    Spectrum(Spectrum),
    /// H, C and E[h²] of a fully connected layer, and every sample's spectrum.
    Layer(Layer),
}

impl Bench {
    pub fn run(&self, device: &Device) -> Result<String> {
        let network = match &self.subject {
            Subject::Gemm => None,
            Subject::Hvp(hvp) => Some(hvp.network()?),
            Subject::Train(train) => Some(train.network()?),
            Subject::Spectrum(spectrum) => Some(spectrum.network()?),
            Subject::Layer(layer) => Some(layer.network()?),
        };
        let gpu = device.open()?;
        let ceilings = ceilings(&gpu)?;
        let result = match (&self.subject, &network) {
            (Subject::Hvp(hvp), Some(network)) => hvp.run(&gpu, network, &ceilings)?,
            (Subject::Train(train), Some(network)) => train.run(&gpu, network, &ceilings)?,
            (Subject::Spectrum(spectrum), Some(network)) => spectrum.run(&gpu, network, &ceilings)?,
            (Subject::Layer(layer), Some(network)) => layer.run(&gpu, network, &ceilings)?,
            _ => json!({}),
        };
        let all = json!({
            "adapter": runs::adapter(&gpu), "version": env!("CARGO_PKG_VERSION"),
            "ceilings": ceilings, "small_product": Tuning::SMALL, "result": result,
        });
        Ok(if self.json { record::json(&all) } else { lines(&gpu, &ceilings, &result) })
    }
}

fn lines(gpu: &Gpu, ceilings: &Ceilings, result: &Value) -> String {
    let info = gpu.info();
    let mut lines = vec![format!("{} · {} {} · {}", info.name, info.driver, info.driver_info, info.backend)];
    for p in &ceilings.products {
        let family = format!("{:?}", p.family).to_lowercase();
        let (layout, rate) = (p.layout, p.flops / 1e9);
        lines.push(format!("product {:>5}³ {layout:?} {family:<10} {rate:>7.2} GFLOP/s", p.m));
    }
    lines.push(format!("copy                    {:>9.2} GB/s", ceilings.bandwidth / 1e9));
    lines.push(format!("dispatch                {:>9.2} µs", ceilings.dispatch * 1e6));
    lines.extend(rows(result));
    lines.join("\n")
}

/// The rows of a result, a line each.
fn rows(result: &serde_json::Value) -> Vec<String> {
    let (Some(rows), Some(p)) = (result["rows"].as_array(), result["parameters"].as_u64()) else {
        return vec![];
    };
    let row = |row: &serde_json::Map<String, serde_json::Value>| {
        let plain = row.iter().filter(|(_, value)| !value.is_array());
        let cells = plain.map(|(name, value)| match value.as_f64() {
            Some(v) if value.is_u64() => format!("{name} {v}"),
            Some(v) if v.abs() < 0.01 => format!("{name} {v:.3e}"),
            Some(v) => format!("{name} {v:.3}"),
            None => format!("{name} {value}"),
        });
        let profile = row.get("profile").and_then(|profile| profile.as_array());
        let profile = profile.into_iter().flatten().map(profile::line);
        let row = format!("  {}", cells.collect::<Vec<_>>().join("  "));
        std::iter::once(row).chain(profile).collect::<Vec<_>>().join("\n")
    };
    let lines = rows.iter().filter_map(|row| row.as_object()).map(row);
    std::iter::once(format!("{p} parameters")).chain(lines).collect()
}
