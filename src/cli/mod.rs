//! The command line.

mod args;
mod bench;
mod eval;
mod models;
mod record;
mod reproduce;
mod spectrum;
mod timed;
mod train;

use std::error::Error as _;
use std::io::{self, ErrorKind, Write as _};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::gpu::{Gpu, GpuOptions};
use crate::{Error, Result};

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
    /// Find eigenpairs, density and trace of the Hessian, the Gauss–Newton matrix or the noise covariance, and
    /// compare them.
    Spectrum(spectrum::Spectrum),
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

/// Runs the command line; errors go to standard error in one line, with exit code 2, or 3 where there are results, but
/// some have not converged, or something that was asked for is missing among them.
pub fn main() -> ExitCode {
    let told = |error: Error| match error {
        Error::NotConverged { .. } | Error::Incomplete(_) => (error.to_string(), 3),
        _ => (error.to_string(), 2),
    };
    let done = match Cli::try_parse() {
        Ok(cli) => cli.run().and_then(|text| print(&text)).map_err(told),
        // help and version
        Err(error) if !error.use_stderr() => print(&error.render().to_string()).map_err(told),
        Err(error) => Err((usage(&error), 2)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err((problem, code)) => {
            // there is nobody left to tell where standard error is closed
            let _ = writeln!(io::stderr(), "curvkit: {problem}");
            ExitCode::from(code)
        }
    }
}

/// What is wrong with the arguments, in one line.
fn usage(error: &clap::Error) -> String {
    if let Some(error) = error.source().and_then(|source| source.downcast_ref::<Error>()) {
        return error.to_string();
    }
    let text = error.render().to_string();
    let told = text.split("\n\n").filter(|part| !part.starts_with("Usage:") && !part.starts_with("For more"));
    let told = told.flat_map(str::split_whitespace).collect::<Vec<_>>().join(" ");
    told.trim_start_matches("error: ").to_string()
}

/// Prints a result; a reader that has seen enough (`| head`) is no error.
fn print(text: &str) -> Result<()> {
    let text = text.trim_end();
    if text.is_empty() {
        return Ok(());
    }
    match writeln!(io::stdout(), "{text}") {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Error::io("standard output", "write")(error))
        }
        _ => Ok(()),
    }
}

impl Cli {
    /// Does what is asked and gives what there is to print.
    fn run(&self) -> Result<String> {
        match &self.command {
            Command::Adapters { json } => adapters(*json),
            Command::Eval(eval) => eval.run(&self.device),
            Command::Spectrum(spectrum) => spectrum.run(&self.device),
            Command::Train(train) => train.run(&self.device),
            Command::Reproduce { paper } => paper.run(&self.device),
            Command::Bench(bench) => bench.run(&self.device),
            Command::Models(models) => models.run(),
            Command::Data { action } => action.run(self.device.quiet),
        }
    }
}

fn adapters(json: bool) -> Result<String> {
    let adapters = crate::gpu::adapters();
    if adapters.is_empty() {
        return Err(Error::NoAdapter);
    }
    if json {
        return Ok(record::json(&adapters));
    }
    let lines = adapters.iter().flat_map(|a| {
        [
            format!("{}  {} ({}, {})", a.index, a.name, a.backend, a.device_type),
            format!("   driver        {} {}", a.driver, a.driver_info),
            format!("   buffer        {} bytes", a.max_buffer_size),
            format!("   binding       {} bytes", a.max_storage_buffer_binding_size),
            format!("   bindings      {} storage buffers a stage", a.max_storage_buffers_per_shader_stage),
            format!(
                "   workgroup     {} invocations, {} bytes, subgroups of {} to {}",
                a.max_compute_invocations_per_workgroup,
                a.max_compute_workgroup_storage_size,
                a.subgroup_size[0],
                a.subgroup_size[1],
            ),
            format!("   features      {}", a.features.join(" ")),
        ]
    });
    Ok(lines.collect::<Vec<_>>().join("\n"))
}
