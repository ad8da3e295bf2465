//! What a run was made with.

use std::path::Path;
use std::time::Instant;

use serde_json::{Map, Value, json};

use crate::gpu::Gpu;

/// How many differences a message names.
const NAMED: usize = 3;
/// The most characters of a value in a message.
const SHOWN: usize = 60;

/// What determined a run, and what else there is to say of it.
#[derive(Clone, Debug)]
pub struct Record {
    started: Instant,
    determined: Map<String, Value>,
    told: Map<String, Value>,
    free: &'static [&'static str],
    bound: &'static [&'static str],
}

impl Record {
    /// Starts the clock of a run of `subject`, such as `train`.
    ///
    /// `determined` has a member for everything that its results depend on, as content and not as the names of files;
    /// adapter, driver, tuning, memory budget and this crate's version are added. Members of `told` may differ between
    /// two runs that are the same; the command line is added.
    ///
    /// # Panics
    /// If either is no object.
    pub fn new(subject: &str, gpu: Option<&Gpu>, determined: Value, told: Value) -> Record {
        let (Value::Object(mut determined), Value::Object(mut told)) = (determined, told) else {
            panic!("what determined a run has members");
        };
        determined.insert("subject".into(), json!(subject));
        determined.insert("version".into(), json!(env!("CARGO_PKG_VERSION")));
        determined.insert("adapter".into(), json!(gpu.map(adapter)));
        let arguments = std::env::args_os().skip(1);
        let command: Vec<String> = arguments.map(|argument| argument.to_string_lossy().into()).collect();
        told.insert("command".into(), json!(command.join(" ")));
        Record { started: Instant::now(), determined, told, free: &[], bound: &[] }
    }

    /// Lets members differ where a run is resumed, named as `options.train.epochs`: how far it goes.
    pub fn free(self, free: &'static [&'static str]) -> Record {
        Record { free, ..self }
    }

    /// Says in which members a run is resumed under no circumstances, with all that is below them: its state is of no
    /// use to one in which they differ.
    pub fn bound(self, bound: &'static [&'static str]) -> Record {
        Record { bound, ..self }
    }

    /// Whether a run could go on in spite of these differences.
    pub(super) fn could_go_on(&self, found: &Value, differences: &[String]) -> bool {
        let is_bound = |difference: &String| {
            let name = difference.split_once(": ").map_or("", |(name, _)| name);
            self.bound.iter().any(|&bound| {
                name.strip_prefix(bound).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
            })
        };
        self.is_alike(found) && !differences.iter().any(is_bound)
    }

    /// Says something more of the run.
    pub fn tell(&mut self, name: &str, value: Value) {
        self.told.insert(name.into(), value);
    }

    /// Returns everything, up to now.
    pub fn value(&self) -> Value {
        let mut all = self.determined.clone();
        all.extend(self.told.clone());
        all.insert("wall_time_seconds".into(), json!(self.started.elapsed().as_secs_f64()));
        Value::Object(all)
    }

    /// Whether `found` is the record of a run of the same subject.
    pub(super) fn is_alike(&self, found: &Value) -> bool {
        found["subject"] == self.determined["subject"]
    }

    /// Returns what determined the run of the record `found` otherwise than this one, each as
    /// `options.train.seed: found 0, expected 1`; `resumed`, what a resumed run is free in does not count.
    pub(super) fn differences(&self, found: &Value, resumed: bool) -> Vec<String> {
        // as it would be read from a file
        let expected = Value::Object(self.determined.clone()).to_string();
        let expected = serde_json::from_str(&expected).expect("it was written just now");
        let Value::Object(expected) = expected else { return vec![] };
        if !self.is_alike(found) {
            // what they have is not the same in kind
            let (found, expected) = (shown(&found["subject"]), shown(&expected["subject"]));
            return vec![format!("subject: found {found}, expected {expected}")];
        }
        let free = if resumed { self.free } else { &[] };
        let mut differences = Vec::new();
        for (name, expected) in &expected {
            compare(name, &found[name], expected, free, &mut differences);
        }
        // what a person has typed says more than a sum
        differences.sort_by_key(|difference| difference.starts_with("contents."));
        differences
    }
}

/// Returns the first few differences as a message has them.
pub(super) fn sentence(differences: &[String]) -> String {
    let named = differences[..differences.len().min(NAMED)].join("; ");
    match differences.len().saturating_sub(NAMED) {
        0 => named,
        more => format!("{named}; and {more} more"),
    }
}

fn compare(name: &str, found: &Value, expected: &Value, free: &[&str], differences: &mut Vec<String>) {
    if found == expected || free.contains(&name) {
        return;
    }
    match (found, expected) {
        (Value::Object(a), Value::Object(b)) => {
            let more = a.keys().filter(|key| !b.contains_key(*key));
            for key in b.keys().chain(more) {
                compare(&format!("{name}.{key}"), &found[key], &expected[key], free, differences);
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (i, (a, b)) in a.iter().zip(b).enumerate() {
                compare(&format!("{name}.{i}"), a, b, free, differences);
            }
        }
        _ => differences.push(format!("{name}: found {}, expected {}", shown(found), shown(expected))),
    }
}

fn shown(value: &Value) -> String {
    let text = match value {
        Value::Null => return "none".into(),
        Value::String(text) if text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
            return format!("SHA-256 {}…", &text[..12]);
        }
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// Describes an adapter, its driver, its backend, and what was chosen for it.
pub fn adapter(gpu: &Gpu) -> Value {
    let info = gpu.info();
    json!({
        "name": info.name,
        "driver": info.driver,
        "driver_info": info.driver_info,
        "backend": info.backend.to_string(),
        "device_type": format!("{:?}", info.device_type),
        "shortcoming": gpu.shortcoming(),
        "memory_budget": gpu.memory_budget(),
        "tuning": crate::kernels::gemm::Tuning::of(gpu),
    })
}

/// A path as a record has it: what is not UTF-8 is replaced.
pub fn path(path: impl AsRef<Path>) -> Value {
    json!(path.as_ref().to_string_lossy())
}

#[cfg(test)]
mod tests {
    use super::*;

    type Change<'a> = &'a dyn Fn(&mut Value);

    fn record(determined: Value) -> Record {
        Record::new("test", None, determined, json!({ "inputs": "elsewhere" }))
    }

    #[test]
    fn differences_are_named() {
        let digest = |digit: &str| digit.repeat(64);
        let determined = json!({
            "options": { "rate": 0.1, "epochs": 3, "layers": [{ "width": 5 }, { "width": 7 }], "names": null },
            "contents": { "data": digest("a") },
        });
        let expected = record(determined.clone()).free(&["options.epochs"]);
        let of = |change: Change, resumed| {
            let mut found = record(determined.clone()).value();
            change(&mut found);
            expected.differences(&found, resumed)
        };
        assert_eq!(of(&|_| {}, false), [""; 0]);
        assert_eq!(of(&|run| run["inputs"] = json!("here"), false), [""; 0]);
        let longer = |run: &mut Value| run["options"]["epochs"] = json!(9);
        assert_eq!(of(&longer, false), ["options.epochs: found 9, expected 3"]);
        assert_eq!(of(&longer, true), [""; 0]);
        let others: [(Change, &str); 6] = [
            (&|run| run["options"]["rate"] = json!(0.2), "options.rate: found 0.2, expected 0.1"),
            (
                &|run| run["options"]["layers"][1]["width"] = json!(6),
                "options.layers.1.width: found 6, expected 7",
            ),
            (&|run| run["options"]["names"] = json!(["b"]), "options.names: found [\"b\"], expected none"),
            (&|run| run["options"]["more"] = json!(true), "options.more: found true, expected none"),
            (
                &|run| run["version"] = json!("0.0.1"),
                concat!("version: found 0.0.1, expected ", env!("CARGO_PKG_VERSION")),
            ),
            (
                &|run| run["contents"]["data"] = json!(digest("b")),
                "contents.data: found SHA-256 bbbbbbbbbbbb…, expected SHA-256 aaaaaaaaaaaa…",
            ),
        ];
        for (change, difference) in others {
            assert_eq!(of(change, true), [difference]);
        }
        // of another subject, nothing else is compared; a record that is none is of no subject
        assert_eq!(of(&|run| run["subject"] = json!("eval"), true), ["subject: found eval, expected test"]);
        assert_eq!(expected.differences(&json!([1]), true), ["subject: found none, expected test"]);
    }

    #[test]
    fn a_sentence_names_the_first_few() {
        let all = ["a", "b", "c", "d", "e"].map(String::from);
        assert_eq!(sentence(&all[..1]), "a");
        assert_eq!(sentence(&all[..3]), "a; b; c");
        assert_eq!(sentence(&all), "a; b; c; and 2 more");
    }
}
