//! README's commands, one after the other, as they stand.

mod program;

use program::*;

const README: &str = include_str!("../README.md");

/// What stands in the block of `language` that holds `part`.
fn block(language: &str, part: &str) -> &'static str {
    let start = format!("```{language}\n");
    let mut blocks = README.split(&start).skip(1).map(|rest| rest.split("```").next().unwrap());
    blocks.find(|block| block.contains(part)).unwrap_or_else(|| panic!("no {language} block has {part}"))
}

#[test]
fn the_commands_do_what_they_say() {
    let place = Place::empty();
    place.write("mlp.toml", block("toml", "# mlp.toml"));
    let script = block("sh", "curvkit adapters").replace("\\\n", " ");
    let commands = script.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let mut names = Vec::new();
    for command in commands {
        let arguments = command.strip_prefix("curvkit ").expect(command);
        names.push(arguments.split(' ').next().unwrap());
        match arguments.starts_with("data fetch") {
            false => assert!(!place.done(arguments).is_empty(), "{command}"),
            // where there is no network, the server is named
            true => {
                let Outcome { code, err, .. } = place.run(arguments);
                assert!(code == Some(0) || code == Some(2) && err.starts_with("curvkit: http"), "{err}");
            }
        }
    }
    assert_eq!(
        names,
        ["adapters", "models", "data", "train", "eval", "reproduce", "reproduce", "spectrum", "bench"]
    );

    // what the comments above them promise
    assert_eq!(place.text("run/history.csv").lines().count(), 1 + 20);
    let tensors: Vec<String> = place.tensors("out.safetensors").into_keys().collect();
    assert_eq!(tensors, ["gradient", "loss", "per_sample_gradient"]);
    assert_eq!(place.values("out.safetensors", "per_sample_gradient").0, [1000, 500]);
    for part in ["table1.csv", "table1_summary.csv", "report.html"] {
        assert!(!place.text(&format!("report/{part}")).is_empty(), "{part}");
    }
    assert_eq!(place.text("scaling/exponents.csv").lines().count(), 1 + 6);
    assert_eq!(place.text("spectrum/eigenvalues.csv").lines().count(), 1 + 10);
    assert_eq!(place.text("spectrum/comparison.csv").lines().count(), 1 + 10);
}
