//! The command line.

mod args;
mod bench;
mod eval;
mod models;
mod record;
mod reproduce;
mod train;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::Result;
use crate::gpu::{Gpu, GpuOptions};

/// The geometry of neural-network training, measured on any GPU.
#[derive(Parser)]
#[command(name = "curvkit", version, about, max_term_width = 100)]
struct Cli {
    #[command(flatten)]
    device: Device,
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Args)]
struct Device {
    /// Adapter to use: an index or a part of its name, as `curvkit adapters` lists them.
    #[arg(long, global = true, env = "CURVKIT_ADAPTER", value_name = "NAME|INDEX")]
    adapter: Option<String>,
    /// Device memory that chunks are cut to, such as 512MiB or 4GiB.
    #[arg(long, global = true, value_parser = args::size, value_name = "SIZE")]
    memory_budget: Option<u64>,
    /// No progress, no results on standard output.
    #[arg(long, short, global = true)]
    quiet: bool,
}

impl Device {
    fn open(&self) -> Result<Gpu> {
        Gpu::new(&GpuOptions {
            adapter: self.adapter.clone(),
            memory_budget: self.memory_budget,
            ..GpuOptions::default()
        })
    }
}

#[derive(Subcommand)]
enum Command {
    /// List every adapter with its limits and features.
    Adapters {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Evaluate losses, gradients and curvature products of a checkpoint.
    Eval(eval::Eval),
    /// Train by SGD.
    Train(train::Train),
    /// Reproduce a paper's tables and figures.
    Reproduce {
        #[command(subcommand)]
        paper: reproduce::Paper,
    },
    /// Measure this adapter.
    Bench(bench::Bench),
    /// List the papers' networks, or print one's model file.
    Models(models::Models),
    /// Manage data sets.
    Data {
        #[command(subcommand)]
        action: args::DataAction,
    },
}

/// Runs the command line; errors go to standard error in one line, with exit code 2.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match &cli.command {
        Command::Adapters { json } => adapters(*json),
        Command::Eval(eval) => eval.run(&cli.device),
        Command::Train(train) => train.run(&cli.device),
        Command::Reproduce { paper } => paper.run(&cli.device),
        Command::Bench(bench) => bench.run(&cli.device),
        Command::Models(models) => models.run().map(|text| println!("{}", text.trim_end())),
        Command::Data { action } => action.run(cli.device.quiet),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("curvkit: {error}");
            ExitCode::from(2)
        }
    }
}

fn adapters(json: bool) -> Result<()> {
    let adapters = crate::gpu::adapters();
    if adapters.is_empty() {
        return Err(crate::Error::NoAdapter { wanted: "at all".into(), found: "none was found".into() });
    }
    if json {
        println!("{}", record::json(&adapters));
        return Ok(());
    }
    for a in &adapters {
        println!("{}  {} ({}, {})", a.index, a.name, a.backend, a.device_type);
        println!("   driver        {} {}", a.driver, a.driver_info);
        println!("   buffer        {} bytes", a.max_buffer_size);
        println!("   binding       {} bytes", a.max_storage_buffer_binding_size);
        println!("   bindings      {} storage buffers a stage", a.max_storage_buffers_per_shader_stage);
        println!(
            "   workgroup     {} invocations, {} bytes, subgroups of {} to {}",
            a.max_compute_invocations_per_workgroup,
            a.max_compute_workgroup_storage_size,
            a.subgroup_size[0],
            a.subgroup_size[1],
        );
        println!("   features      {}", a.features.join(" "));
    }
    Ok(())
}
