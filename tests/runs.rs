//! Who owns what the program writes: inputs stay, runs are not mixed, and what is stopped can be taken up.

mod program;

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use program::*;
use serde_json::Value;

const CHECKPOINT: &str =
    "--model model.toml --weights weights.safetensors --data data.safetensors --loss cross-entropy";
const TRAIN: &str = "train --model model.toml --data data.safetensors --loss cross-entropy --learning-rate 0.05 --batch-size 4";

fn eval(out: &str) -> String {
    format!("eval {CHECKPOINT} --compute loss --out {out}")
}

fn record(place: &Place, name: &str) -> Value {
    serde_json::from_str(&place.text(name)).unwrap()
}

/// Runs the program beside others, without what it prints.
fn started(mut command: Command) -> Child {
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// Waits until the file is there.
fn wait_for(path: &Path, child: &mut Child) {
    let started = Instant::now();
    while !path.exists() {
        assert!(child.try_wait().unwrap().is_none(), "ended before {}", path.display());
        assert!(started.elapsed() < Duration::from_secs(300), "no {}", path.display());
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The names in a folder, those within it after it.
fn names(place: &Place, folder: &str) -> Vec<String> {
    let folder = place.path().join(folder);
    let name = |path: &Path| path.strip_prefix(&folder).unwrap().to_str().unwrap().to_string();
    files(&folder).keys().map(|path| name(path)).collect()
}

// ------------------------------------------------------------------------------------ outputs and inputs

#[cfg(unix)]
#[test]
fn an_output_that_is_an_input_is_refused() {
    use std::os::unix::fs::symlink;

    let place = Place::of("cross-entropy");
    let at = |name: &str| place.path().join(name);
    fs::create_dir(at("sub")).unwrap();
    symlink("weights.safetensors", at("link.safetensors")).unwrap();
    symlink("sub", at("alias")).unwrap();
    fs::hard_link(at("weights.safetensors"), at("hard.safetensors")).unwrap();
    let evaluate = format!("eval {CHECKPOINT} --compute hvp --vectors vectors.safetensors --out");
    let absolute = at("weights.safetensors").display().to_string();
    for (out, option) in [
        ("weights.safetensors", "--weights"),
        ("model.toml", "--model"),
        ("data.safetensors", "--data"),
        ("vectors.safetensors", "--vectors"),
        ("./weights.safetensors", "--weights"),
        ("sub/../weights.safetensors", "--weights"),
        ("link.safetensors", "--weights"),
        ("hard.safetensors", "--weights"),
        ("alias/../data.safetensors", "--data"),
        (&absolute, "--weights"),
    ] {
        let expected =
            format!("{out}: found the file that {option} names, expected an output that is no input");
        assert_eq!(place.refused(&format!("{evaluate} {out}")), expected);
        assert_eq!(place.refused(&format!("{evaluate} {out} --overwrite")), expected);
    }

    fs::copy(at("weights.safetensors"), at("sub/w.safetensors")).unwrap();
    let in_sub = evaluate.replace("--weights weights", "--weights sub/w");
    assert!(
        place
            .refused(&format!("{in_sub} alias/w.safetensors"))
            .starts_with("alias/w.safetensors: found the file")
    );

    // files in the folder that a run writes
    place.done(&format!("{TRAIN} --epochs 2 --checkpoint-every 1 --out run"));
    symlink("run", at("alias-run")).unwrap();
    let weights =
        "run/weights.safetensors: found the file that --weights names, expected an output that is no input";
    let train = format!("{TRAIN} --epochs 2 --weights run/weights.safetensors --out");
    for options in ["run", "run --resume", "run --overwrite", "alias-run"] {
        let expected = weights.replacen("run/", &format!("{}/", options.split(' ').next().unwrap()), 1);
        assert_eq!(place.refused(&format!("{train} {options}")), expected);
    }
    // what another run has left is removed, unless it is read
    let spectrum =
        "spectrum --model model.toml --data data.safetensors --loss cross-entropy --operator hessian --top 2";
    let kept = "run/checkpoints/epoch-000001.safetensors";
    assert_eq!(
        place.refused(&format!("{spectrum} --weights {kept} --out run --overwrite")),
        format!("{kept}: found the file that --weights names, expected an output that is no input")
    );
    symlink("../weights.safetensors", at("sub/eigenvectors.safetensors")).unwrap();
    assert_eq!(
        place.refused(&format!("{spectrum} --weights weights.safetensors --out sub")),
        "sub/eigenvectors.safetensors: found the file that --weights names, expected an output that is no input"
    );
    fs::rename(at("sub/eigenvectors.safetensors"), at("sub/scaling.csv")).unwrap();
    assert_eq!(
        place.refused(&format!("reproduce superlinear scaling {CHECKPOINT} --layer 2.weight --out sub")),
        "sub/scaling.csv: found the file that --weights names, expected an output that is no input"
    );
    // a data set's files
    place.write("t10k-images-idx3-ubyte", "");
    assert_eq!(
        place.refused(
            "eval --model mlp-mnist --weights weights.safetensors --dataset mnist --data-dir . --loss cross-entropy \
             --compute loss --out t10k-images-idx3-ubyte"
        ),
        "t10k-images-idx3-ubyte: found the file that --data-dir names, expected an output that is no input"
    );
}

#[test]
fn eval_replaces_only_what_it_wrote() {
    let place = Place::of("cross-entropy");
    place.done(&eval("o.safetensors"));
    place.done(&format!("{} --limit 5", eval("o.safetensors")));
    place.write("notes", "of mine");
    place.done(&format!("{TRAIN} --epochs 1 --out run"));
    for (of_others, found) in [
        ("notes", "a file that no such run wrote"),
        (
            "run/weights.safetensors",
            "weights.safetensors of another run (subject: found train, expected eval)",
        ),
    ] {
        let expected = format!("{of_others}: found {found}, expected none; --overwrite replaces it");
        assert_eq!(place.refused(&eval(of_others)), expected);
    }
    place.done(&eval("notes --overwrite"));
    place.values("notes", "loss");
}

// ----------------------------------------------------------------------------------- a folder is one run's

#[test]
fn files_of_another_run_are_refused_or_removed() {
    let place = Place::of("cross-entropy");
    let train = format!("{TRAIN} --checkpoint-every 1 --out run");
    place.done(&format!("{train} --epochs 4"));
    place.write("run/notes", "of mine");
    let whole = files(&place.path().join("run"));
    let message = place.refused(&format!("{train} --epochs 2 --seed 1"));
    assert!(message.starts_with("run: found history.csv and 8 more files of another run (options.train.epochs: found 4, expected 2; options.train.seed: found 0, expected 1; "), "{message}");
    assert!(message.ends_with("), expected none; --overwrite replaces it"), "{message}");
    // fewer epochs, or another command
    let message = place.refused(&format!("{train} --epochs 2"));
    assert!(message.ends_with("; --resume goes on from it, --overwrite replaces it"), "{message}");
    let message = place.refused(&format!("spectrum {CHECKPOINT} --operator hessian --top 2 --out run"));
    assert!(message.contains("subject: found train, expected spectrum"), "{message}");
    // the same run again
    place.done(&format!("{train} --epochs 4"));
    let again = files(&place.path().join("run"));
    assert!(again.keys().eq(whole.keys()));

    place.done(&format!("{train} --epochs 2 --seed 1 --overwrite"));
    let kept =
        ["checkpoints", "checkpoints/epoch-000001.safetensors", "checkpoints/epoch-000002.safetensors"];
    let all =
        ["checkpoint.safetensors", "history.csv", "loss.svg", "notes", "run.json", "weights.safetensors"];
    let mut expected = [&kept[..], &all[..]].concat();
    expected.sort();
    assert_eq!(names(&place, "run"), expected);
    assert_eq!(place.text("run/notes"), "of mine");
    for name in ["checkpoints/epoch-000001.safetensors", "checkpoint.safetensors", "weights.safetensors"] {
        assert!(
            String::from_utf8_lossy(&place.read(&format!("run/{name}"))).contains(r#"\"seed\":1"#),
            "{name}"
        );
    }
    // without checkpoints, none are left
    place.done(&format!("{TRAIN} --epochs 2 --out run --overwrite"));
    assert_eq!(names(&place, "run"), all);
}

#[test]
fn files_of_nobody_are_refused() {
    let place = Place::of("cross-entropy");
    fs::create_dir_all(place.path().join("run/checkpoints")).unwrap();
    place.write("run/notes", "");
    place.write("run/checkpoints/epoch-000009.safetensors", "");
    place.write("run/checkpoints/epoch-best.safetensors", "");
    let train = format!("{TRAIN} --epochs 1 --checkpoint-every 1 --out run");
    assert_eq!(
        place.refused(&train),
        "run: found checkpoints/epoch-000009.safetensors of no run on record, expected none; --overwrite replaces it"
    );
    place.done(&format!("{train} --overwrite"));
    let names = names(&place, "run");
    let is_there = |name: &str| names.iter().any(|there| there == name);
    assert!(is_there("notes") && is_there("checkpoints/epoch-best.safetensors"), "{names:?}");
    assert!(!is_there("checkpoints/epoch-000009.safetensors"), "{names:?}");
}

/// Two calls of reproduce are two runs, whose trainings are one.
#[test]
fn reproduce_keeps_trainings_and_refuses_figures_of_another_call() {
    let place = Place::of("cross-entropy");
    let reproduce = |what: &str| format!("reproduce superlinear {what} --out out");
    let own = |layer: &str| format!("{CHECKPOINT} --layer {layer} --batch-size 2 --top 20");
    place.done(&reproduce(&format!("bounds {}", own("2.weight"))));
    place.done(&reproduce(&format!("bounds {}", own("2.weight"))));
    let message = place.refused(&reproduce(&format!("scaling {}", own("2.weight"))));
    assert!(
        message.starts_with(
            "out: found bounds.csv and 3 more files of another run (target: found bounds, expected scaling)"
        ),
        "{message}"
    );
    let message = place.refused(&reproduce(&format!("bounds {}", own("0.weight"))));
    assert!(message.contains("(layer: found 2.weight, expected 0.weight)"), "{message}");
    place.done(&reproduce(&format!("scaling {} --overwrite", own("2.weight"))));
    assert!(!place.path().join("out/bounds.csv").exists());
}

#[test]
fn one_process_writes_at_a_time() {
    let place = Place::of("cross-entropy");
    let train = format!("{TRAIN} --epochs 100000 --checkpoint-every 1 --out run");
    let mut first = started(place.command(&train));
    wait_for(&place.path().join("run/checkpoints/epoch-000002.safetensors"), &mut first);
    let busy = "run: found another process writing there, expected none";
    let second = |args: &str| {
        let Outcome { code, err, .. } = place.run(args);
        assert_eq!((code, err), (Some(2), format!("curvkit: {busy}\n")), "{args}");
    };
    second(&train);
    second(&format!("{train} --overwrite"));
    second(&format!("{train} --resume"));
    second(&format!("spectrum {CHECKPOINT} --operator hessian --top 2 --out run"));
    first.kill().unwrap();
    first.wait().unwrap();

    // its lock has gone with it, what it left half-written goes with the next, and its state is good
    let history = place.text("run/history.csv");
    assert_eq!(record(&place, "run/run.json")["complete"], false);
    fs::create_dir_all(place.path().join("run/.curvkit/7")).unwrap();
    place.write("run/.curvkit/7/weights.safetensors", "ha");
    place.write("run/.weights.safetensors.4711-0.part", "ha");
    let epochs = history.lines().count() + 1;
    place.done(&format!("{TRAIN} --epochs {epochs} --checkpoint-every 1 --out run --resume"));
    assert_eq!(record(&place, "run/run.json")["complete"], true);
    assert!(names(&place, "run").iter().all(|name| !name.starts_with('.')), "{:?}", names(&place, "run"));
    place.done(&format!("{TRAIN} --epochs {epochs} --checkpoint-every 1 --out whole"));
    for name in ["history.csv", "loss.svg"] {
        assert_eq!(place.read(&format!("run/{name}")), place.read(&format!("whole/{name}")));
    }
    assert_eq!(place.tensors("run/weights.safetensors"), place.tensors("whole/weights.safetensors"));
}

// -------------------------------------------------------------------------------------------- resumption

#[test]
fn a_run_is_resumed_on_its_own_data() {
    let place = Place::of("cross-entropy");
    let train = format!("{TRAIN} --weights weights.safetensors --out run");
    place.done(&format!("{train} --epochs 2"));
    // the same content by another name
    for name in ["data", "weights", "model"] {
        let extension = if name == "model" { "toml" } else { "safetensors" };
        fs::copy(
            place.path().join(format!("{name}.{extension}")),
            place.path().join(format!("same-{name}.{extension}")),
        )
        .unwrap();
    }
    let renamed = train.replace("data.safe", "same-data.safe").replace("weights.safe", "same-weights.safe");
    place.done(&format!("{renamed} --epochs 3 --resume"));

    // another content by the same name
    let change = |name: &str| {
        let mut bytes = place.read(name);
        let last = bytes.len() - 3;
        bytes[last] ^= 1;
        place.write(name, bytes);
    };
    for (name, member) in [("data.safetensors", "contents.data"), ("weights.safetensors", "contents.weights")]
    {
        let before = place.read(name);
        change(name);
        if name.starts_with("data") {
            // of the inputs: the last tensor holds classes
            let mut bytes = before.clone();
            let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
            bytes[header] ^= 1;
            place.write(name, bytes);
        }
        let message = place.refused(&format!("{train} --epochs 4 --resume"));
        assert!(
            message.starts_with(&format!("run: found another run: {member}: found SHA-256 ")),
            "{message}"
        );
        if name.starts_with("data") {
            place.done(&format!("{train} --epochs 4 --resume-anyway"));
            let over = record(&place, "run/run.json")["resumed_over"][0].as_str().unwrap().to_string();
            assert!(over.starts_with("contents.data: found SHA-256 "), "{over}");
            place.done(&format!("{train} --epochs 5 --resume"));
            assert_eq!(record(&place, "run/run.json")["resumed_over"][0], over);
        } else {
            place.write(name, before);
        }
    }
    let model = place.text("model.toml");
    place.write("model.toml", model.replacen("relu", "tanh", 1).replacen("gelu", "tanh", 1));
    if place.text("model.toml") != model {
        let message = place.refused(&format!("{train} --epochs 6 --resume"));
        assert!(message.starts_with("run: found another run: options.model.layers."), "{message}");
    }
    // a state from elsewhere
    place.write("model.toml", model);
    place.done(&format!("{TRAIN} --seed 7 --epochs 1 --out other"));
    fs::copy(
        place.path().join("other/checkpoint.safetensors"),
        place.path().join("run/checkpoint.safetensors"),
    )
    .unwrap();
    let message = place.refused(&format!("{train} --epochs 6 --resume"));
    assert!(
        message.starts_with(
            "run/checkpoint.safetensors: found another run: options.train.seed: found 7, expected 0"
        ),
        "{message}"
    );
}

#[test]
fn a_spectrum_is_resumed_on_its_own_data() {
    let place = Place::of("cross-entropy");
    let spectrum =
        format!("spectrum {CHECKPOINT} --operator hessian --top 20 --tolerance 1e-5 --block 2 --out s");
    assert_eq!(place.run(&format!("{spectrum} --max-products 46")).code, Some(3));
    for (options, difference) in [
        ("--limit 12", "contents.data: found SHA-256 "),
        ("--memory-budget 64MiB", "adapter.memory_budget: found 2147483648, expected 67108864"),
        ("--tolerance 1e-4", ""),
        (
            "--parameters 2.weight,2.bias",
            "options.parameters: found none, expected [\"2.weight\",\"2.bias\"]",
        ),
    ] {
        let spectrum =
            if difference.is_empty() { spectrum.replace("--tolerance 1e-5 ", "") } else { spectrum.clone() };
        let message = place.refused(&format!("{spectrum} {options} --resume"));
        assert!(message.starts_with(&format!("s: found another run: {difference}")), "{message}");
        // the state of an iteration goes on with its own operator alone
        let helps = difference.starts_with("adapter");
        assert_eq!(message.contains("--resume-anyway"), helps, "{message}");
        if !helps {
            assert_eq!(place.refused(&format!("{spectrum} {options} --resume-anyway")), message);
        }
    }
    let (_, header) = safetensors::SafeTensors::read_metadata(&place.read("s/lanczos.safetensors")).unwrap();
    assert!(header.metadata().as_ref().unwrap().contains_key("layout"));
    // results, state and record say what they are of
    let run = record(&place, "s/run.json");
    for name in ["lanczos", "eigenvectors"] {
        let bytes = place.read(&format!("s/{name}.safetensors"));
        let (_, header) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
        let kept: Value = serde_json::from_str(&header.metadata().as_ref().unwrap()["run"]).unwrap();
        for member in ["adapter", "contents", "options", "version"] {
            assert!(!kept[member].is_null() && kept[member] == run[member], "{name}: {member}");
        }
    }
    assert!(run["adapter"]["tuning"].is_object() && run["adapter"]["driver"].is_string());
    place.done(&format!("{spectrum} --memory-budget 1GiB --resume-anyway"));
    assert!(
        record(&place, "s/run.json")["resumed_over"][0]
            .as_str()
            .unwrap()
            .starts_with("adapter.memory_budget")
    );
}

// ------------------------------------------------------------------------------------------ failed writes

#[test]
fn a_folder_in_the_place_of_a_result_is_found_before_anything_is_done() {
    let place = Place::of("cross-entropy");
    let spectrum = format!(
        "spectrum {CHECKPOINT} --operator hessian --top 20 --tolerance 1e-5 --block 2 --density --trace --out s"
    );
    assert_eq!(place.run(&format!("{spectrum} --max-products 46")).code, Some(3));
    let results = names(&place, "s");
    for name in results.iter().filter(|name| *name != "run.json") {
        let path = place.path().join("s").join(name);
        let kept = fs::read(&path).unwrap();
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        let message = place.refused(&format!("{spectrum} --resume"));
        assert_eq!(message, format!("s/{name}: found a folder, expected a file"));
        fs::remove_dir(&path).unwrap();
        fs::write(&path, kept).unwrap();
    }
    place.done(&format!("{spectrum} --resume"));
    assert!(!place.path().join("s/lanczos.safetensors").exists());

    fs::create_dir(place.path().join("run")).unwrap();
    place.write("run/checkpoints", "");
    assert_eq!(
        place.refused(&format!("{TRAIN} --epochs 1 --checkpoint-every 1 --out run")),
        "run/checkpoints: found a file, expected a folder"
    );
    fs::create_dir_all(place.path().join("data/mnist/train-images-idx3-ubyte")).unwrap();
    assert_eq!(
        place.refused("data fetch mnist --dir data"),
        "data/mnist/train-images-idx3-ubyte: found a folder, expected a file"
    );
}

/// While it runs, a folder takes the place of a result: everything stays as it was, and so does the state.
#[test]
fn a_write_that_fails_leaves_the_old_results_and_the_state() {
    let place = Place::of("cross-entropy");
    let spectrum =
        format!("spectrum {CHECKPOINT} --operator hessian --top 20 --tolerance 1e-5 --block 2 --out s");
    assert_eq!(place.run(&format!("{spectrum} --max-products 46")).code, Some(3));
    let (values, run) = (place.read("s/eigenvalues.csv"), place.read("s/run.json"));
    let state = place.read("s/lanczos.safetensors");
    let plot = place.path().join("s/spectrum.svg");
    fs::remove_file(&plot).unwrap();
    let mut child = place.command(&format!("{spectrum} --resume"));
    let mut child = child.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    wait_for(&place.path().join("s/.curvkit/lock"), &mut child);
    fs::create_dir(&plot).unwrap();
    let output = child.wait_with_output().unwrap();
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{message}");
    assert_eq!(message, "curvkit: s/spectrum.svg: found a folder, expected a file\n");
    assert!(place.read("s/eigenvalues.csv") == values && place.read("s/run.json") == run);
    assert_ne!(place.read("s/lanczos.safetensors"), state, "the state of the end");
    fs::remove_dir(&plot).unwrap();
    let printed: Value = serde_json::from_str(&place.done(&format!("{spectrum} --resume --json"))).unwrap();
    // what is left is to find the residuals
    let state = printed["eigenpairs"]["products"].as_u64().unwrap();
    assert!(state > 46, "{state}");
    assert!(!place.path().join("s/lanczos.safetensors").exists());
}

/// The names of what is made beside a file on its way say more than its own, which may be as long as names can be.
#[test]
fn names_as_long_as_they_can_be() {
    let place = Place::of("cross-entropy");
    for length in [200, 201, 239, 255] {
        let name = format!("{}.safetensors", "n".repeat(length - ".safetensors".len()));
        place.done(&eval(&name));
        place.done(
            &format!("{TRAIN} --epochs 1 --out {name}-run").replace(&name, &name[..name.len().min(240)]),
        );
        assert!(place.tensors(&name).contains_key("loss"));
    }
    let left: Vec<_> = names(&place, ".").into_iter().filter(|name| name.starts_with('.')).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_name_that_ends_as_a_folders_is_no_file() {
    let place = Place::of("cross-entropy");
    for out in ["new/", "sub/new/", "./"] {
        assert_eq!(place.refused(&eval(out)), format!("{out}: found a folder, expected a file"));
    }
}

/// What is read stays, even where it is called as what a killed process leaves.
#[test]
fn inputs_that_look_like_leftovers_stay() {
    let place = Place::of("cross-entropy");
    let at = |name: &str| place.path().join(name);
    let left = ".out.safetensors.1-0.part";
    fs::copy(at("weights.safetensors"), at(left)).unwrap();
    let reading = |input: &str, out: &str| eval(out).replace("weights.safetensors", input);
    place.done(&reading(left, "out.safetensors"));
    assert!(at(left).exists());
    place.done(&eval("out.safetensors"));
    assert!(!at(left).exists(), "nobody reads it");
    // the folders in which results are made are cleared
    for (folder, command) in [
        (".out.safetensors.curvkit", reading(".out.safetensors.curvkit/w", "out.safetensors")),
        ("run/.curvkit", format!("{TRAIN} --epochs 1 --weights run/.curvkit/w --out run")),
    ] {
        fs::create_dir_all(at(folder)).unwrap();
        fs::copy(at("weights.safetensors"), at(folder).join("w")).unwrap();
        assert_eq!(
            place.refused(&command),
            format!("{folder}/w: found the file that --weights names, expected an output that is no input")
        );
    }
}

/// Everything is looked at before the first file is put into its place, the record too.
#[test]
fn a_record_that_cannot_be_written_leaves_the_old_results() {
    let place = Place::of("cross-entropy");
    let train = format!("{TRAIN} --epochs 3000 --checkpoint-every 1000 --out run");
    let mut child = place.command(&train).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    wait_for(&place.path().join("run/checkpoints/epoch-001000.safetensors"), &mut child);
    let record = place.path().join("run/run.json");
    fs::remove_file(&record).unwrap();
    fs::create_dir(&record).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(
        String::from_utf8(output.stderr).unwrap(),
        "curvkit: run/run.json: found a folder, expected a file\n"
    );
    assert!(!place.path().join("run/weights.safetensors").exists());
}

#[test]
fn a_workplace_that_vanishes_is_told() {
    let place = Place::of("cross-entropy");
    let train = format!("{TRAIN} --epochs 100000 --checkpoint-every 1000 --out run");
    let mut child = place.command(&train).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    wait_for(&place.path().join("run/checkpoints/epoch-001000.safetensors"), &mut child);
    while fs::rename(place.path().join("run/.curvkit"), place.path().join("away")).is_err() {}
    let output = child.wait_with_output().unwrap();
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{message}");
    assert!(message.starts_with("curvkit: run/") && message.lines().count() == 1, "{message}");
}

#[test]
fn a_run_without_its_state_is_not_resumed() {
    let place = Place::of("cross-entropy");
    place.done(&format!("{TRAIN} --epochs 2 --out run"));
    fs::remove_file(place.path().join("run/checkpoint.safetensors")).unwrap();
    assert_eq!(
        place.refused(&format!("{TRAIN} --epochs 3 --out run --resume")),
        "run/checkpoint.safetensors: found none beside history.csv, expected the state to go on from"
    );
}

#[test]
fn a_folder_that_vanishes_is_told() {
    let place = Place::of("cross-entropy");
    let train = format!("{TRAIN} --epochs 100000 --checkpoint-every 1 --out run");
    let mut child = place.command(&train).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    wait_for(&place.path().join("run/checkpoints/epoch-000002.safetensors"), &mut child);
    // with the program writing into it, removing all takes several tries
    while fs::rename(place.path().join("run"), place.path().join("away")).is_err() {}
    let output = child.wait_with_output().unwrap();
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{message}");
    assert!(message.starts_with("curvkit: run") && message.lines().count() == 1, "{message}");
    assert!(!place.path().join("run").exists());
}

/// Of what needs no adapter: some software drivers keep the device's memory in files, too.
#[cfg(target_os = "linux")]
#[test]
fn a_limit_on_file_sizes_is_an_error() {
    let place = Place::empty();
    let reproduce = "reproduce superlinear synthetic --out";
    place.done(&format!("{reproduce} out"));
    for out in ["out", "new"] {
        let program = place.command(&format!("{reproduce} {out}"));
        let mut limited = Command::new("bash");
        limited
            .args(["-c", "ulimit -f 1; exec \"$0\" \"$@\""])
            .arg(program.get_program())
            .args(program.get_args());
        let message = place.refused_command(limited.current_dir(place.path()));
        assert!(message.starts_with(&format!("{out}/synthetic/synthetic")), "{message}");
        assert!(message.ends_with(": write: File too large (os error 27)"), "{message}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_or_closed_standard_output_is_no_panic() {
    let place = Place::of("cross-entropy");
    let full = || fs::File::options().write(true).open("/dev/full").unwrap();
    let mut command = place.command(&eval("o.safetensors"));
    let output = command.stdout(full()).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(
        String::from_utf8(output.stderr).unwrap(),
        "curvkit: standard output: write: No space left on device (os error 28)\n"
    );
    for args in [eval("o.safetensors"), "nonsense".into()] {
        let mut command = place.command(&args);
        let status = command.stdout(full()).stderr(full()).status().unwrap();
        assert_eq!(status.code(), Some(2), "{args}");
    }
}

// ------------------------------------------------------------------------------------------------- names

#[cfg(target_os = "linux")]
mod names_that_are_not_utf8 {
    use std::ffi::{OsStr, OsString};
    use std::os::unix::ffi::OsStrExt;

    use super::*;

    fn odd(name: &[u8]) -> OsString {
        OsStr::from_bytes(name).to_os_string()
    }

    fn ends_well(command: &mut Command) -> Outcome {
        let output = command.output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        let outcome =
            Outcome { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) };
        assert!(matches!(outcome.code, Some(0 | 2)), "{command:?}: {outcome:?}");
        let lines = if outcome.code == Some(2) { 1 } else { 0 };
        assert_eq!(outcome.err.lines().count(), lines, "{command:?}: {outcome:?}");
        assert!(!outcome.err.contains("panicked"), "{outcome:?}");
        outcome
    }

    #[test]
    fn are_read_and_written_like_others() {
        let place = Place::of("cross-entropy");
        for name in ["weights", "data", "vectors"] {
            let to = odd(&[name.as_bytes(), b"\xff.safetensors"].concat());
            fs::copy(place.path().join(format!("{name}.safetensors")), place.path().join(to)).unwrap();
        }
        fs::copy(place.path().join("model.toml"), place.path().join(odd(b"model\xff.toml"))).unwrap();
        let given = |command: &mut Command| {
            command.arg("--model").arg(odd(b"model\xff.toml"));
            command.arg("--data").arg(odd(b"data\xff.safetensors"));
            command.args(["--loss", "cross-entropy"]);
        };
        let mut eval = place.command("eval --compute loss,hvp");
        given(&mut eval);
        eval.arg("--weights").arg(odd(b"weights\xff.safetensors"));
        eval.arg("--vectors").arg(odd(b"vectors\xff.safetensors"));
        eval.arg("--out").arg(odd(b"\xfe\xffo.safetensors")).arg("--json");
        let printed: Value = serde_json::from_str(&ends_well(&mut eval).out).unwrap();
        assert_eq!(printed["run"]["inputs"]["weights"], "weights\u{fffd}.safetensors");
        assert!(place.path().join(odd(b"\xfe\xffo.safetensors")).exists());
        assert_eq!(ends_well(&mut eval).code, Some(0), "again");

        let mut train =
            place.command("train --learning-rate 0.1 --batch-size 4 --epochs 1 --checkpoint-every 1");
        given(&mut train);
        train.arg("--out").arg(odd(b"run\xff"));
        assert_eq!(ends_well(&mut train).code, Some(0));
        train.arg("--resume");
        assert_eq!(ends_well(&mut train).code, Some(0));

        let mut spectrum = place.command("spectrum --operator hessian --top 2");
        given(&mut spectrum);
        spectrum.arg("--weights").arg(odd(b"run\xff/weights.safetensors")).arg("--out").arg(odd(b"s\xff"));
        assert_eq!(ends_well(&mut spectrum).code, Some(0));

        let mut reproduce =
            place.command("reproduce superlinear bounds --quiet --layer 2.weight --batch-size 2 --top 20");
        given(&mut reproduce);
        reproduce.arg("--weights").arg(odd(b"run\xff/weights.safetensors")).arg("--out").arg(odd(b"out\xff"));
        assert_eq!(ends_well(&mut reproduce).code, Some(0));
    }

    /// Every option and argument of every command, and the variables of the environment.
    #[test]
    fn end_with_a_message_where_text_is_expected() {
        let place = Place::of("cross-entropy");
        let commands: [(&str, &[&str]); 7] = [
            (
                "eval",
                &[
                    "--model model.toml",
                    "--weights weights.safetensors",
                    "--data data.safetensors",
                    "--loss cross-entropy",
                    "--compute loss",
                    "--out o.safetensors",
                ],
            ),
            (
                "train",
                &[
                    "--model model.toml",
                    "--data data.safetensors",
                    "--loss cross-entropy",
                    "--learning-rate 0.1",
                    "--batch-size 4",
                    "--epochs 1",
                    "--out run",
                    "--overwrite",
                ],
            ),
            (
                "spectrum",
                &[
                    "--model model.toml",
                    "--weights weights.safetensors",
                    "--data data.safetensors",
                    "--loss cross-entropy",
                    "--operator hessian",
                    "--top 1",
                    "--out s",
                    "--overwrite",
                ],
            ),
            ("reproduce superlinear synthetic", &["--out out", "--overwrite"]),
            ("data fetch mnist", &["--dir data", "--from http://127.0.0.1:9/"]),
            ("models", &[]),
            ("bench hvp", &["--model nothing"]),
        ];
        for (command, given) in commands {
            let help = place.done(&format!("{command} --help"));
            let options = help.split_whitespace().filter(|word| word.starts_with("--"));
            let takes_value = |option: &&str| help.contains(&format!("{option} <"));
            let mut options: Vec<&str> = options.filter(takes_value).collect();
            options.sort();
            options.dedup();
            assert!(command == "models" || !options.is_empty(), "{help}");
            for option in options {
                let others = given.iter().filter(|given| given.split(' ').next() != Some(option));
                let others: Vec<&str> = others.copied().collect();
                let mut command = place.command(&format!("{command} {}", others.join(" ")));
                ends_well(command.arg(option).arg(odd(b"\xff")));
            }
            ends_well(place.command(command).arg(odd(b"\xff\xfe")));
        }
        ends_well(place.command("").arg(odd(b"\xff")));
        for variable in ["CURVKIT_ADAPTER", "CURVKIT_DATA", "CURVKIT_CACHE"] {
            // no name of a file that an option above has left
            let value = odd(b"folder\xff");
            ends_well(place.command(&eval("o.safetensors")).env(variable, &value));
            ends_well(place.command("adapters").env(variable, &value));
        }
        let mut adapter = place.command(&eval("o.safetensors"));
        assert_eq!(ends_well(adapter.env("CURVKIT_ADAPTER", odd(b"\xff"))).code, Some(2));
    }
}
