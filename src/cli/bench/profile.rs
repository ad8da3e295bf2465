//! What each kernel of a program takes.

use serde::Serialize;
use serde_json::Value;

use crate::gpu::Taken;

/// Commands of one kernel with as many workgroups and operations.
#[derive(Serialize)]
pub struct Line {
    kernel: String,
    groups: [u32; 3],
    dispatches: usize,
    /// Of one dispatch: floating-point operations and words moved.
    operations: f64,
    /// Of all dispatches.
    seconds: f64,
    share: f64,
}

/// The commands that are alike in a line each, those that take longest first.
pub fn lines(taken: Vec<Taken>) -> Vec<Line> {
    let all: f64 = taken.iter().map(|taken| taken.seconds).sum();
    let mut lines: Vec<Line> = Vec::new();
    for Taken { kernel, groups, operations, seconds } in taken {
        let alike = |l: &&mut Line| l.kernel == kernel && l.groups == groups && l.operations == operations;
        match lines.iter_mut().find(alike) {
            Some(line) => (line.dispatches, line.seconds) = (line.dispatches + 1, line.seconds + seconds),
            None => lines.push(Line { kernel, groups, dispatches: 1, operations, seconds, share: 0.0 }),
        }
    }
    lines.iter_mut().for_each(|line| line.share = if all > 0.0 { line.seconds / all } else { 0.0 });
    lines.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
    lines
}

/// A line as text.
pub fn line(line: &Value) -> String {
    let number = |name: &str| line[name].as_f64().unwrap_or(f64::NAN);
    let (kernel, groups, dispatches) =
        (line["kernel"].as_str().unwrap_or_default(), &line["groups"], number("dispatches"));
    let (seconds, operations) = (number("seconds"), number("operations"));
    let rate = dispatches * operations / 1e9;
    let rate = if seconds > 0.0 { format!("{:.2} G/s", rate / seconds) } else { "–".into() };
    format!(
        "    {kernel:<34} {:>16} × {dispatches:<4} {:>11.1} µs {:>5.1} %  {rate:>12}",
        groups.to_string(),
        seconds * 1e6,
        100.0 * number("share")
    )
}
