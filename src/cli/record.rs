//! Results as they are printed.

use serde::Serialize;

/// Pretty JSON.
pub fn json(value: &impl Serialize) -> String {
    serde_json::to_string_pretty(value).expect("results are plain data")
}
