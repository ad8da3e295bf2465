//! Which adapters there are, and which one to use.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{Gpu, Trial};
use crate::{Error, Result};

/// How to open a device.
#[derive(Clone, Debug, Default)]
pub struct GpuOptions {
    /// An index into [`adapters`] or a part of an adapter's name; `None` takes the most capable one.
    pub adapter: Option<String>,
    /// The limits that the device is made with.
    pub limits: LimitsChoice,
    /// Bytes of device memory that samples and directions are cut to fit into.
    pub memory_budget: Option<u64>,
    /// The family of kernels that makes every product and convolution; `None` for the one that is measured to be
    /// faster.
    pub family: Option<Family>,
    /// How often an invocation may go round its loops, all of them together, at the most: work is cut to it.
    /// `None` for as often as the adapter was seen to.
    pub loop_iterations: Option<usize>,
    /// The folder in which measured timings are kept for later runs. `None`: nothing is measured nor kept, and what is
    /// sound for the adapter's class is chosen.
    pub timings: Option<PathBuf>,
}

/// Two ways to make products and convolutions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Family {
    /// Tiles in registers alone, for software adapters.
    Register,
    /// Tiles in workgroup memory, for GPUs.
    Workgroup,
}

impl GpuOptions {
    /// What is assumed where nothing is said: wgpu does not tell how much memory an adapter has.
    pub const DEFAULT_MEMORY_BUDGET: u64 = 2 << 30;

    /// The adapter that the environment variable `CURVKIT_ADAPTER` names, if it is set, with timings kept in
    /// [`GpuOptions::users_timings`].
    pub fn from_env() -> GpuOptions {
        let adapter = std::env::var_os("CURVKIT_ADAPTER").map(|name| name.to_string_lossy().into());
        GpuOptions { adapter, timings: Self::users_timings(), ..Default::default() }
    }

    /// The user's folder for timings: `$CURVKIT_CACHE`, or `curvkit/` in the user's cache folder.
    pub fn users_timings() -> Option<PathBuf> {
        let var = |name| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        var("CURVKIT_CACHE")
            .or_else(|| var("XDG_CACHE_HOME").map(|dir| dir.join("curvkit")))
            .or_else(|| var("LOCALAPPDATA").map(|dir| dir.join("curvkit")))
            .or_else(|| var("HOME").map(|dir| dir.join(".cache/curvkit")))
    }
}

/// Which limits to ask the adapter for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LimitsChoice {
    /// All that it has.
    #[default]
    Adapter,
    /// What every WebGPU device has.
    WebGpuDefaults,
}

/// What `curvkit adapters` tells of one adapter.
#[derive(Clone, Debug, Serialize)]
pub struct AdapterReport {
    /// Its place in the list, from 0, as `GpuOptions::adapter` takes it.
    pub index: usize,
    /// The adapter's name, as its driver gives it.
    pub name: String,
    /// Vulkan, Metal or DX12.
    pub backend: String,
    /// Discrete, integrated, virtual, software (`Cpu`) or other.
    pub device_type: String,
    /// The driver's name.
    pub driver: String,
    /// The driver's version, in its own words.
    pub driver_info: String,
    /// Bytes.
    pub max_buffer_size: u64,
    /// Bytes.
    pub max_storage_buffer_binding_size: u64,
    /// Storage buffers that one kernel may bind.
    pub max_storage_buffers_per_shader_stage: u32,
    /// Invocations of one workgroup.
    pub max_compute_invocations_per_workgroup: u32,
    /// Bytes.
    pub max_compute_workgroup_storage_size: u32,
    /// The smallest and the largest subgroup, in invocations.
    pub subgroup_size: [u32; 2],
    /// wgpu's names of the features that it has.
    pub features: Vec<String>,
    /// What it was seen to do; `None` where it could not be opened, or is not fit for kernels.
    pub trial: Option<Trial>,
    /// Why it could not be opened, or is not fit.
    pub problem: Option<String>,
}

fn instance() -> wgpu::Instance {
    let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
    descriptor.backends = wgpu::Backends::VULKAN | wgpu::Backends::METAL | wgpu::Backends::DX12;
    // wgpu validates every call; the drivers' own layers are for the drivers' authors.
    descriptor.flags = wgpu::InstanceFlags::empty();
    wgpu::Instance::new(descriptor)
}

fn enumerate() -> Vec<wgpu::Adapter> {
    pollster::block_on(instance().enumerate_adapters(wgpu::Backends::all()))
}

/// Every adapter that Vulkan, Metal or DX12 offers, in the order of their indices, each of them tried.
pub fn adapters() -> Vec<AdapterReport> {
    let report = |(index, adapter): (usize, wgpu::Adapter)| {
        let (info, limits) = (adapter.get_info(), adapter.limits());
        let tried = Gpu::open(&adapter, &GpuOptions::default());
        AdapterReport {
            index,
            name: info.name,
            backend: info.backend.to_string(),
            device_type: format!("{:?}", info.device_type),
            driver: info.driver,
            driver_info: info.driver_info,
            max_buffer_size: limits.max_buffer_size,
            max_storage_buffer_binding_size: limits.max_storage_buffer_binding_size,
            max_storage_buffers_per_shader_stage: limits.max_storage_buffers_per_shader_stage,
            max_compute_invocations_per_workgroup: limits.max_compute_invocations_per_workgroup,
            max_compute_workgroup_storage_size: limits.max_compute_workgroup_storage_size,
            subgroup_size: [info.subgroup_min_size, info.subgroup_max_size],
            features: adapter.features().iter_names().map(|(name, _)| name.to_string()).collect(),
            trial: tried.as_ref().ok().map(|gpu| *gpu.trial()),
            problem: tried.err().map(|error| error.to_string()),
        }
    };
    enumerate().into_iter().enumerate().map(report).collect()
}

pub(super) fn choose(options: &GpuOptions) -> Result<wgpu::Adapter> {
    let adapters = enumerate();
    if adapters.is_empty() {
        return Err(Error::NoAdapter);
    }
    let names: Vec<String> = adapters.iter().map(|a| a.get_info().name).collect();
    let rank = |adapter: &wgpu::Adapter| match adapter.get_info().device_type {
        wgpu::DeviceType::DiscreteGpu => 0,
        wgpu::DeviceType::IntegratedGpu => 1,
        wgpu::DeviceType::VirtualGpu => 2,
        wgpu::DeviceType::Other => 3,
        wgpu::DeviceType::Cpu => 4,
    };
    let Some(wanted) = &options.adapter else {
        return adapters.into_iter().min_by_key(rank).ok_or(Error::NoAdapter);
    };
    let listed: Vec<String> = names.iter().enumerate().map(|(i, name)| format!("{i} {name}")).collect();
    let at = position(wanted, &names).map_err(|several| {
        let found = format!("“{wanted}”, of {} adapters", several.len());
        let several: Vec<&str> = several.iter().map(|&at| listed[at].as_str()).collect();
        Error::argument("adapter", found, format!("the index of one of {}", several.join(", ")))
    })?;
    at.and_then(|at| adapters.into_iter().nth(at)).ok_or_else(|| {
        Error::argument("adapter", format!("“{wanted}”"), format!("one of {}", listed.join(", ")))
    })
}

/// The adapter that `wanted` means, if there is one: that of this index, else that of this name, else the one whose
/// name has it as a part (upper and lower case alike), a number as a whole one.
///
/// # Errors
/// Where several have, their indices.
pub fn position(wanted: &str, names: &[String]) -> Result<Option<usize>, Vec<usize>> {
    if let Some(index) = wanted.parse().ok().filter(|&index: &usize| index < names.len()) {
        return Ok(Some(index));
    }
    let wanted = wanted.to_lowercase();
    let those = |fits: &dyn Fn(&str) -> bool| -> Vec<usize> {
        (0..names.len()).filter(|&at| fits(&names[at].to_lowercase())).collect()
    };
    let mut found = those(&|name| name == wanted);
    if found.is_empty() {
        found = match wanted.trim() {
            "" => Vec::new(),
            number if number.bytes().all(|byte| byte.is_ascii_digit()) => {
                those(&|name| name.split(|c: char| !c.is_ascii_digit()).any(|part| part == number))
            }
            _ => those(&|name| name.contains(&wanted)),
        };
    }
    match found[..] {
        [] => Ok(None),
        [at] => Ok(Some(at)),
        _ => Err(found),
    }
}

#[cfg(test)]
mod tests {
    use super::position;

    #[test]
    fn adapters_by_index_name_and_part() {
        let names =
            ["llvmpipe (LLVM 15.0.6, 256 bits)", "NVIDIA GeForce RTX 4090", "NVIDIA GeForce RTX 4090 D"];
        let names = names.map(String::from);
        for (wanted, expected) in [
            ("0", Ok(Some(0))),
            ("2", Ok(Some(2))),
            ("3", Ok(None)),
            ("256", Ok(Some(0))),
            ("5", Ok(None)),
            ("", Ok(None)),
            (" ", Ok(None)),
            ("4090", Err(vec![1, 2])),
            ("4090 d", Ok(Some(2))),
            ("nvidia geforce rtx 4090", Ok(Some(1))),
            ("LLVMPIPE", Ok(Some(0))),
            ("radeon", Ok(None)),
            ("-1", Ok(None)),
        ] {
            assert_eq!(position(wanted, &names), expected, "{wanted}");
        }
        assert_eq!(position("4090", &names[..2]), Ok(Some(1)));
    }
}
