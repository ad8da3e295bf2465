//! Results as they are printed.

use crate::Undefined;
use serde::Serialize;

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
