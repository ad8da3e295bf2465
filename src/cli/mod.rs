//! The command line.

mod args;
mod bench;
mod eval;
mod models;
mod record;
mod reproduce;
#[cfg(unix)]
mod signals;
mod spectrum;
mod stderr;
mod timed;
mod train;

use std::error::Error as _;
use std::ffi::OsString;
use std::io::{self, ErrorKind, Write as _};
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use crate::gpu::{AdapterReport, Errors, Gpu, GpuOptions};
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

/// The variable that names the adapter where `--adapter` does not.
const ADAPTER: &str = "CURVKIT_ADAPTER";

#[derive(clap::Args)]
struct Device {
    /// Adapter to use: an index, or a part of one name alone, as `curvkit adapters` lists them.
    #[arg(long, global = true, env = ADAPTER, value_name = "NAME|INDEX")]
    adapter: Option<String>,
    /// Device memory that chunks are cut to, such as 512MiB or 4GiB.
    #[arg(long, global = true, value_parser = args::size, value_name = "SIZE")]
    memory_budget: Option<u64>,
    /// No progress, no results on standard output, and on standard error only errors and warnings of this program.
    #[arg(long, short, global = true)]
    quiet: bool,
}

impl Device {
    /// Opens the device, once all input is known to be good.
    fn open(&self) -> Result<Gpu> {
        stderr::release_warnings();
        Gpu::new(&GpuOptions {
            adapter: self.adapter.clone(),
            memory_budget: self.memory_budget,
            timings: GpuOptions::users_timings(),
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
    let told = |error: Error| {
        let code = if matches!(error, Error::NotConverged { .. } | Error::Incomplete(_)) { 3 } else { 2 };
        (worded(&error), code)
    };
    stderr::without_desktop();
    stderr::hear_warnings();
    #[cfg(unix)]
    signals::handle();
    let done = match Cli::try_parse() {
        Ok(cli) => {
            if cli.device.quiet {
                stderr::silence_others();
            }
            cli.run().and_then(|text| print(&text)).map_err(told)
        }
        // help and version
        Err(error) if !error.use_stderr() => print(&error.render().to_string()).map_err(told),
        Err(error) => Err((usage(&error), 2)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err((problem, code)) => {
            stderr::tell(format_args!("curvkit: {problem}"));
            ExitCode::from(code)
        }
    }
}

/// The error in the words of the command line: what the library calls `learning_rate` is the option `--learning-rate`;
/// and which option helps.
fn worded(error: &Error) -> String {
    let advice = match error {
        Error::Occupied { resumable: true, .. } => {
            "; --resume goes on from it, --overwrite replaces it".into()
        }
        Error::Occupied { .. } => "; --overwrite replaces it".into(),
        Error::OtherRun { anyway: true, .. } => {
            "; --resume-anyway goes on from it, --overwrite replaces it".into()
        }
        Error::OtherRun { .. } => "; --overwrite replaces it".into(),
        &Error::FewerSamples { there, .. } if there > 0 => {
            format!("; --limit or --per-class, within the first {there} samples, asks for fewer than all")
        }
        _ => String::new(),
    };
    let option = match error {
        Error::Argument { option, .. } => named(option),
        _ => None,
    };
    match (error, option) {
        (Error::Argument { found, expected, .. }, Some(option)) => {
            Error::argument(option, found, expected.as_str()).to_string()
        }
        _ => format!("{error}{advice}"),
    }
}

/// The option of the command that was called that the library's field `field` is set by, if there is one.
fn named(field: &str) -> Option<String> {
    let long = |command: &clap::Command| {
        let option = command.get_arguments().find(|option| option.get_id() == field)?;
        Some(format!("--{}", option.get_long()?))
    };
    let whole = Cli::command();
    let (mut command, mut found) = (&whole, long(&whole));
    for argument in std::env::args_os().skip(1) {
        if let Some(inner) = argument.to_str().and_then(|name| command.find_subcommand(name)) {
            command = inner;
            found = found.or_else(|| long(command));
        }
    }
    found
}

/// What is wrong with the arguments, in one line.
fn usage(error: &clap::Error) -> String {
    if let Some(error) = error.source().and_then(|source| source.downcast_ref::<Error>()) {
        return worded(error);
    }
    if error.kind() == clap::error::ErrorKind::InvalidUtf8 {
        return not_text();
    }
    let text = error.render().to_string();
    let told = text.split("\n\n").filter(|part| !part.starts_with("Usage:") && !part.starts_with("For more"));
    let told = told.flat_map(str::split_whitespace).collect::<Vec<_>>().join(" ");
    told.trim_start_matches("error: ").to_string()
}

/// Which of the arguments may be the one that is no text, in one line.
fn not_text() -> String {
    let odd = |argument: &OsString| argument.to_str().is_none();
    let arguments: Vec<String> =
        std::env::args_os().skip(1).filter(odd).map(|odd| format!("“{}”", odd.display())).collect();
    match std::env::var_os(ADAPTER).filter(|_| arguments.is_empty()) {
        Some(name) => format!("{ADAPTER}: found “{}”, expected UTF-8", name.display()),
        None => format!("found {}, expected UTF-8 but for the names of files", arguments.join(" and ")),
    }
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
            format!("   trial         {}", tried(a)),
        ]
    });
    Ok(lines.collect::<Vec<_>>().join("\n"))
}

/// What came of trying an adapter.
fn tried(adapter: &AdapterReport) -> String {
    let Some(trial) = adapter.trial else {
        return format!("failed: {}", adapter.problem.as_deref().unwrap_or_default());
    };
    let Errors { division, sqrt, inverse_sqrt, exp, log1p } = trial.errors;
    let errors = [division, sqrt, inverse_sqrt, exp, log1p].map(|error| format!("{error:.0e}")).join(", ");
    let subnormals = if trial.subnormals { "kept" } else { "flushed to zero" };
    let passed =
        trial.shortcoming().map_or("passed".to_string(), |shortcoming| format!("passed, but {shortcoming}"));
    format!("{passed}; subnormals are {subnormals}; errors of 1/x, √x, 1/√x, exp and log(1 + x): {errors}")
}
