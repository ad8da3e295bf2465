//! How a result was made.

use std::path::Path;
use std::time::Instant;

use serde::Serialize;
use serde_json::{Value, json};

use crate::gpu::Gpu;
use crate::report::write_json;
use crate::{Result, Undefined};

/// Pretty JSON.
pub fn json(value: &impl Serialize) -> String {
    serde_json::to_string_pretty(value).expect("results are plain data")
}

/// Why there is no accuracy where there is none.
const NO_CLASSES: &str = "the targets are values, not classes";

/// An accuracy as it is printed.
pub fn accuracy(accuracy: Option<f64>) -> String {
    accuracy.map_or_else(|| format!("undefined: {NO_CLASSES}"), |accuracy| format!("{accuracy:.4}"))
}

/// What stands under `undefined` beside an accuracy in JSON: nothing where it has a value.
pub fn undefined_accuracy(accuracy: Option<f64>) -> Undefined {
    let mut undefined = Undefined::default();
    if accuracy.is_none() {
        undefined.note("accuracy", NO_CLASSES);
    }
    undefined
}

/// What `run.json` says.
pub struct RunRecord {
    started: Instant,
    options: Value,
    adapter: Value,
}

impl RunRecord {
    /// Starts the clock; `options` is what the user asked for.
    pub fn start(gpu: &Gpu, options: Value) -> RunRecord {
        RunRecord { started: Instant::now(), options, adapter: adapter(gpu) }
    }

    /// Everything, up to now.
    pub fn value(&self) -> Value {
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "command": std::env::args().skip(1).collect::<Vec<_>>().join(" "),
            "options": self.options,
            "adapter": self.adapter,
            "wall_time_seconds": self.started.elapsed().as_secs_f64(),
        })
    }

    /// Writes `run.json` into `out`.
    pub fn write(&self, out: &Path) -> Result<()> {
        write_json(out.join("run.json"), &self.value())
    }
}

/// The adapter, its driver and its backend.
pub fn adapter(gpu: &Gpu) -> Value {
    let info = gpu.info();
    json!({
        "name": info.name,
        "driver": info.driver,
        "driver_info": info.driver_info,
        "backend": info.backend.to_string(),
        "device_type": format!("{:?}", info.device_type),
        "memory_budget": gpu.memory_budget(),
    })
}
