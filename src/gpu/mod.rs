//! The device: adapters, buffers, pipelines, recorded dispatch lists, read-back, limits, errors.
//!
//! [`Gpu`] takes a `wgpu::Device` and `Queue` of the caller's as readily as it makes its own, and works
//! within whatever limits that device has; the WebGPU defaults are enough for everything.

mod adapter;
mod buffer;
mod pipeline;
mod profile;
mod record;
mod trial;

pub use adapter::{AdapterReport, Family, GpuOptions, LimitsChoice, adapters};
pub(crate) use buffer::Cache;
pub use buffer::{ALIGN, Buffer, View};
pub(crate) use pipeline::check_wgsl;
pub use pipeline::{Kernel, Shader};
pub use profile::Taken;
pub(crate) use record::{Exclusive, Prepare};
pub use record::{Program, Recorder, Work, grid};
pub use trial::{Errors, SHADER as TRIAL, Trial};

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use crate::{Error, Result};

/// A device, its queue, and what is kept for it: pipelines and free buffers.
///
/// Cheap to clone; clones share everything.
#[derive(Clone)]
pub struct Gpu {
    inner: Arc<Inner>,
}

struct Inner {
    device: wgpu::Device,
    queue: wgpu::Queue,
    limits: wgpu::Limits,
    info: wgpu::AdapterInfo,
    memory_budget: u64,
    lost: Arc<Mutex<Option<String>>>,
    kernels: Mutex<pipeline::Kernels>,
    uniform_layout: wgpu::BindGroupLayout,
    pool: Arc<buffer::Pool>,
    pace: Mutex<record::Pace>,
    /// What the layers above keep for the device, by its type.
    kept: Mutex<HashMap<TypeId, Kept>>,
    family: Option<Family>,
    timings: Option<PathBuf>,
    /// Iterations that an invocation's loops may make together, at the caller's wish.
    loop_iterations: usize,
    trial: OnceLock<Trial>,
}

/// A value that is made once, by whoever asks first.
type Kept = Arc<OnceLock<Arc<dyn Any + Send + Sync>>>;

impl Gpu {
    /// Opens the adapter that `options` name, or the most capable one there is.
    ///
    /// # Errors
    /// [`Error::NoAdapter`] where there is none, [`Error::Argument`] where none bears the name or index that
    /// was asked for, [`Error::NoDevice`] where the adapter refuses, [`Error::Unfit`] where it does not do what
    /// kernels need.
    pub fn new(options: &GpuOptions) -> Result<Gpu> {
        Self::open(&adapter::choose(options)?, options)
    }

    fn open(adapter: &wgpu::Adapter, options: &GpuOptions) -> Result<Gpu> {
        let info = adapter.get_info();
        let limits = match options.limits {
            LimitsChoice::Adapter => adapter.limits(),
            LimitsChoice::WebGpuDefaults => wgpu::Limits::default(),
        };
        let request = adapter.request_device(&wgpu::DeviceDescriptor {
            label: Some("curvkit"),
            required_limits: limits,
            memory_hints: wgpu::MemoryHints::MemoryUsage,
            ..Default::default()
        });
        let (device, queue) = pollster::block_on(request)
            .map_err(|error| Error::NoDevice { adapter: info.name.clone(), reason: error.to_string() })?;
        let lost = Arc::new(Mutex::new(None));
        let note = lost.clone();
        device.set_device_lost_callback(move |reason, message| {
            if reason != wgpu::DeviceLostReason::Destroyed {
                *note.lock().unwrap_or_else(PoisonError::into_inner) = Some(message);
            }
        });
        Self::assemble(device, queue, options, lost)
    }

    /// Uses a device of the caller's, within the limits it was made with; `options` say the rest, but for the adapter and
    /// its limits.
    ///
    /// The caller's error handlers stay as they are: the crate catches its own errors in error scopes.
    ///
    /// # Errors
    /// [`Error::Unfit`] where the device's limits are below [`Gpu::required_limits`] or the adapter does not do what
    /// kernels need, and the device's errors.
    pub fn from_device(device: wgpu::Device, queue: wgpu::Queue, options: &GpuOptions) -> Result<Gpu> {
        let (limits, mut missing) = (device.limits(), Vec::new());
        Self::required_limits().check_limits_with_fail_fn(&limits, false, |name, required, found| {
            missing.push(format!("{name} is {found}, below {required}"));
        });
        if !missing.is_empty() {
            return Err(Error::Unfit {
                adapter: driver(&device.adapter_info()),
                problem: format!("the device was made with limits too small: {}", missing.join(", ")),
                remedy: "ask for Gpu::required_limits or wgpu's defaults".into(),
            });
        }
        Self::assemble(device, queue, options, Arc::default())
    }

    /// The limits that a device has to have; every WebGPU device has them. With larger bindings and buffers less is cut.
    pub fn required_limits() -> wgpu::Limits {
        let default = wgpu::Limits::default();
        wgpu::Limits {
            max_storage_buffers_per_shader_stage: default.max_storage_buffers_per_shader_stage,
            max_storage_buffer_binding_size: 1 << 10,
            max_compute_workgroup_storage_size: default.max_compute_workgroup_storage_size,
            max_compute_invocations_per_workgroup: default.max_compute_invocations_per_workgroup,
            max_compute_workgroup_size_x: default.max_compute_workgroup_size_x,
            max_compute_workgroups_per_dimension: default.max_compute_workgroups_per_dimension,
            max_buffer_size: 1 << 10,
            ..wgpu::Limits::downlevel_webgl2_defaults()
        }
    }

    fn assemble(
        device: wgpu::Device,
        queue: wgpu::Queue,
        options: &GpuOptions,
        lost: Arc<Mutex<Option<String>>>,
    ) -> Result<Gpu> {
        let info = device.adapter_info();
        let uniform_layout = pipeline::uniform_layout(&device);
        let gpu = Gpu {
            inner: Arc::new(Inner {
                limits: device.limits(),
                memory_budget: options.memory_budget.unwrap_or(GpuOptions::DEFAULT_MEMORY_BUDGET),
                lost,
                kernels: Mutex::default(),
                uniform_layout,
                pool: Arc::default(),
                pace: Mutex::new(record::Pace::new(info.device_type)),
                kept: Mutex::default(),
                family: options.family,
                timings: options.timings.clone(),
                loop_iterations: options.loop_iterations.unwrap_or(usize::MAX),
                trial: OnceLock::new(),
                info,
                device,
                queue,
            }),
        };
        let trial = Trial::run(&gpu)?;
        trial.check(&gpu.driver())?;
        if let Some(shortcoming) = trial.shortcoming() {
            // worked around: no result depends on it
            log::info!("{} {shortcoming}, no result depends on it", gpu.driver());
        }
        gpu.inner.trial.get_or_init(|| trial);
        Ok(gpu)
    }

    /// The device itself.
    pub fn device(&self) -> &wgpu::Device {
        &self.inner.device
    }

    /// The device's queue.
    pub fn queue(&self) -> &wgpu::Queue {
        &self.inner.queue
    }

    /// The limits that the device was made with.
    pub fn limits(&self) -> &wgpu::Limits {
        &self.inner.limits
    }

    /// Returns [`Error::OtherDevice`]: `tensor` does not lie on this device, but on `found`, where that is known.
    pub(crate) fn refuses(&self, tensor: impl Into<String>, found: Option<&Gpu>) -> Error {
        let found = match found {
            Some(found) => format!("one of another device, {}", found.driver()),
            None => "memory of another device".into(),
        };
        Error::OtherDevice { tensor: tensor.into(), found, expected: self.driver() }
    }

    /// Returns what the adapter was seen to fall short in when it was opened, in a sentence, if in anything: it is
    /// worked around, and no result depends on it.
    pub fn shortcoming(&self) -> Option<String> {
        self.inner.trial.get().and_then(Trial::shortcoming)
    }

    /// Name, driver and backend of the adapter.
    pub fn info(&self) -> &wgpu::AdapterInfo {
        &self.inner.info
    }

    /// Name and driver of the adapter, as messages tell them.
    pub fn driver(&self) -> String {
        driver(self.info())
    }

    /// Bytes of device memory that samples and directions are cut to fit into.
    pub fn memory_budget(&self) -> u64 {
        self.inner.memory_budget
    }

    /// The largest number of f32 that one binding can hold, at most 2³⁰: shaders count words in 32 bits, some of
    /// them with a sign.
    pub fn max_binding_len(&self) -> usize {
        let limits = self.limits();
        let words = limits.max_storage_buffer_binding_size.min(limits.max_buffer_size) / 4;
        words.min(1 << 30) as usize & !63
    }

    /// What the adapter was seen to do when it was opened.
    pub fn trial(&self) -> &Trial {
        self.inner.trial.get().expect("an adapter is tried when it is opened")
    }

    /// How often an invocation may go round its loops, all of them together: what kernels are cut to.
    ///
    /// 65,534 where the adapter ends loops (Mesa's llvmpipe of version 22), `usize::MAX` elsewhere.
    pub fn loop_budget(&self) -> usize {
        let seen = self.inner.trial.get().map_or(usize::MAX, Trial::loop_budget);
        seen.min(self.inner.loop_iterations)
    }

    /// The family of kernels that the caller wants, in the place of the one that is measured to be faster.
    pub(crate) fn family(&self) -> Option<Family> {
        self.inner.family
    }

    /// The folder in which measured timings are kept, if they are.
    pub(crate) fn timings(&self) -> Option<&Path> {
        self.inner.timings.as_deref()
    }

    /// The device's value of type T, made by `make` where there is none yet.
    pub(crate) fn kept<T: Send + Sync + 'static>(&self, make: impl FnOnce(&Gpu) -> T) -> Arc<T> {
        let cell = {
            let mut kept = self.inner.kept.lock().unwrap_or_else(PoisonError::into_inner);
            kept.entry(TypeId::of::<T>()).or_default().clone()
        };
        let value = cell.get_or_init(|| Arc::new(make(self))).clone();
        value.downcast().unwrap_or_else(|_| unreachable!("values are kept by their type"))
    }

    /// Whether both are the same device.
    pub fn is(&self, other: &Gpu) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }

    /// Runs `work` inside error scopes; what wgpu reports becomes a typed error that names `doing`.
    pub(crate) fn scoped<T>(&self, doing: &str, work: impl FnOnce() -> T) -> Result<T> {
        let device = self.device();
        let scopes = [
            device.push_error_scope(wgpu::ErrorFilter::Internal),
            device.push_error_scope(wgpu::ErrorFilter::OutOfMemory),
            device.push_error_scope(wgpu::ErrorFilter::Validation),
        ];
        let result = work();
        let mut first = None;
        for scope in scopes.into_iter().rev() {
            first = first.or(pollster::block_on(scope.pop()));
        }
        self.check_lost(doing)?;
        match first {
            None => Ok(result),
            Some(wgpu::Error::OutOfMemory { source }) => {
                Err(Error::OutOfMemory { doing: doing.into(), detail: one_line(&source.to_string()) })
            }
            Some(error) => Err(Error::Device { doing: doing.into(), reason: one_line(&error.to_string()) }),
        }
    }

    fn check_lost(&self, doing: &str) -> Result<()> {
        match self.inner.lost.lock().unwrap_or_else(PoisonError::into_inner).as_ref() {
            None => Ok(()),
            Some(reason) => Err(Error::DeviceLost { doing: doing.into(), reason: one_line(reason) }),
        }
    }

    /// Waits until everything that was submitted has run.
    pub fn wait(&self) -> Result<()> {
        self.wait_for(None, "waiting for the device")
    }

    fn wait_for(&self, submission: Option<wgpu::SubmissionIndex>, doing: &str) -> Result<()> {
        let poll = self.device().poll(wgpu::PollType::Wait { submission_index: submission, timeout: None });
        self.check_lost(doing)?;
        poll.map(|_| ()).map_err(|error| Error::DeviceLost { doing: doing.into(), reason: error.to_string() })
    }
}

impl std::fmt::Debug for Gpu {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Gpu({}, {})", self.info().name, self.info().driver_info)
    }
}

/// Name and driver of an adapter in one line.
fn driver(info: &wgpu::AdapterInfo) -> String {
    format!("{} ({})", info.name, one_line(&format!("{} {}", info.driver, info.driver_info)))
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
