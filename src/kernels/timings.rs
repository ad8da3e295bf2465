//! What was measured of an adapter once, kept for later runs: they choose alike, and with that make the same
//! bits.

use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::gpu::Gpu;
use crate::{Error, Result};

/// What an earlier run measured as `name` on this adapter, driver and version of the kernels, or else `measure`'s result,
/// kept.
///
/// It is kept in the folder of [`crate::gpu::GpuOptions::timings`]. `None` where it cannot be kept or measured: a choice
/// that the next run may make otherwise is none.
pub(crate) fn kept_or_measured<T: Serialize + DeserializeOwned>(
    gpu: &Gpu,
    name: &str,
    measure: impl FnOnce() -> Result<T>,
) -> Option<T> {
    let path = path(gpu, name)?;
    let kept = || std::fs::read(&path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
    kept().or_else(|| {
        let measured = measure().and_then(|measured| match kept() {
            // another process was quicker: both go by what it found
            Some(kept) => Ok(kept),
            None => keep(&measured, &path).map(|()| measured),
        });
        measured.inspect_err(|error| log::warn!("no {name} measured for this adapter: {error}")).ok()
    })
}

fn path(gpu: &Gpu, name: &str) -> Option<PathBuf> {
    let folder = gpu.timings()?;
    let info = gpu.info();
    // what timings rest on most
    use super::{conv, gemm};
    let shaders = [gemm::REGISTER, gemm::WORKGROUP, conv::REGISTER, conv::WORKGROUP, super::block::SHADER];
    let kernels: String = shaders.iter().flat_map(|shader| shader.files).copied().collect();
    let version = format!("{}-{:016x}", env!("CARGO_PKG_VERSION"), fnv1a(kernels.as_bytes()));
    let name = format!("{name}-{}-{}-{version}", info.name, info.driver_info);
    let name: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    Some(folder.join(format!("{name}.json")))
}

fn keep(measured: &impl Serialize, path: &Path) -> Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(Error::io(folder, "create folder"))?;
    }
    crate::files::write_atomically(path, |file| file.write_all(&serde_json::to_vec(measured)?))
}

/// A hash that stays the same from build to build.
pub(crate) fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| (hash ^ byte as u64).wrapping_mul(0x100_0000_01b3))
}
