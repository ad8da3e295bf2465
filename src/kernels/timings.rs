//! What was measured of an adapter once, kept for later runs: they choose alike, and with that make the same
//! bits.

use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::gpu::Gpu;
use crate::{Error, Result};

/// What an earlier run measured as `name` on this adapter, driver and version, or else `measure`'s result,
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
    let name = format!("{name}-{}-{}-{}", info.name, info.driver_info, env!("CARGO_PKG_VERSION"));
    let name: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    Some(folder.join(format!("{name}.json")))
}

fn keep(measured: &impl Serialize, path: &Path) -> Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(Error::io(folder, "create folder"))?;
    }
    crate::files::write_atomically(path, |file| file.write_all(&serde_json::to_vec(measured)?))
}
